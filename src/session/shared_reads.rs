//! One read of the broker for many sessions of a worker that ask for the same at the same time.
//!
//! In: what a session wants to read: a topic, the position after which, how much. Out: the page,
//! shared, with frames that are encoded once for all of them. A storm of resumes after a node's
//! death asks the broker once per topic and position and not once per session. Who may read was
//! decided before, for each session by itself; how far back is a part of what is asked.
//!
//! A session may be given a page that was asked for before it asked, at most [`KEPT`] earlier. That
//! is as if its own answer had been slow: what the page lacks follows with the next page or live,
//! because the worker decides where a catch-up ends by what it has seen itself. Only a failover
//! makes an older page wrong, so pages of before the worker knew of one are not given to those who
//! ask after. Inboxes are read by each session for itself: there is nobody to share with.
//!
//! Bound: [`READS_MAX`] reads a worker; at the bound a session reads for itself.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::{LocalBoxFuture, Shared};
use rustc_hash::FxHashMap;

use crate::broker::{Broker, BrokerError, Page};
use crate::config::Retention;
use crate::tasks;
use crate::worker::Worker;
use crate::worker::catchup::ReadPage;
use fanfare_protocol::ids::{Position, Topic, TopicKind};

/// How long a page is given to others after it has come. Shorter than the rest after a page that
/// brought nothing ([`super::work`]), so that whoever asks again gets a new one.
const KEPT: Duration = Duration::from_millis(50);
/// Most reads that others may share at once. A page has at most a quarter of an outbox.
const READS_MAX: usize = 64;

/// What was read, or why not.
pub type Read = Result<Rc<ReadPage>, BrokerError>;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    topic: Topic,
    since: Position,
    age_ms: u64,
    entries_max: u32,
    bytes_max: usize,
    failovers: u64,
}

/// See the module. One a worker.
pub struct SharedReads {
    broker: Arc<Broker>,
    reads: RefCell<FxHashMap<Key, Shared<LocalBoxFuture<'static, Read>>>>,
}

impl SharedReads {
    /// Nobody reads anything.
    #[must_use]
    pub fn new(broker: Arc<Broker>) -> Rc<Self> {
        Rc::new(Self {
            broker,
            reads: RefCell::default(),
        })
    }

    /// What came after `since`, by a read of this session or of another one of the same worker.
    ///
    /// # Errors
    /// [`BrokerError`], shared as well.
    pub async fn since(
        self: &Rc<Self>,
        worker: &Worker,
        topic: &Topic,
        since: Position,
        retention: Retention,
        page: Page,
    ) -> Read {
        let key = Key {
            topic: topic.clone(),
            since,
            // Who may not read history is shown less of it.
            age_ms: retention.age_ms,
            entries_max: page.entries_max,
            bytes_max: page.bytes_max,
            failovers: worker.failovers(),
        };
        let known = self.reads.borrow().get(&key).cloned();
        if let Some(read) = known {
            worker.metrics().counters.shared_read_hits.add_owned(1);
            return read.await;
        }
        worker.metrics().counters.shared_read_misses.add_owned(1);
        let read = read(
            Arc::clone(&self.broker),
            topic.clone(),
            since,
            retention,
            page,
        );
        if topic.kind() == TopicKind::Inbox || self.reads.borrow().len() >= READS_MAX {
            return read.await;
        }
        let read = read.boxed_local().shared();
        self.reads.borrow_mut().insert(key.clone(), read.clone());
        let kept = Kept {
            reads: Rc::clone(self),
            key,
        };
        let asked = read.clone();
        // A task of its own, so that a session that goes away takes nobody's page along.
        tasks::spawn_local("shared_read", async move {
            let _kept = kept;
            if asked.await.is_ok() {
                tokio::time::sleep(KEPT).await;
            }
        });
        read.await
    }
}

/// A read that others may share until this is dropped: nobody is given one that broke off.
struct Kept {
    reads: Rc<SharedReads>,
    key: Key,
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.reads.reads.borrow_mut().remove(&self.key);
    }
}

async fn read(
    broker: Arc<Broker>,
    topic: Topic,
    since: Position,
    retention: Retention,
    page: Page,
) -> Read {
    let bytes_max = page.bytes_max;
    let page = broker.since(&topic, since, retention, page).await?;
    Ok(Rc::new(ReadPage::new(&topic, page, bytes_max)))
}

impl std::fmt::Debug for SharedReads {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SharedReads")
            .field("reads", &self.reads.borrow().len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::rig::config;
    use crate::session::rig::node::{Node, run, user};
    use crate::worker::handle::Inbound;
    use fanfare_protocol::event::GapReason;
    use fanfare_protocol::ids::App;

    const PAGE: Page = Page {
        entries_max: 100,
        bytes_max: 10_000,
    };

    /// Reads on the worker of a node.
    struct Reads {
        node: Node,
        reads: Rc<SharedReads>,
    }

    impl Reads {
        fn new() -> Self {
            let node = Node::start(config(|_| {}));
            let reads = SharedReads::new(Arc::clone(&node.services.broker));
            Self { node, reads }
        }

        async fn since(&self, topic: &str, since: Position) -> Rc<ReadPage> {
            let topic = Topic::new(&App::default_app(), topic).expect("a topic");
            let settings = self.node.services.apps.of_topic(&topic);
            let retention = settings.namespace(&topic).retention();
            let worker = self.node.worker();
            let read = self.reads.since(worker, &topic, since, retention, PAGE);
            read.await.expect("the broker is here")
        }

        fn misses(&self) -> u64 {
            self.node.counters().shared_read_misses.get()
        }
    }

    #[test]
    fn the_same_is_read_once_and_something_else_anew() {
        run(async {
            let reads = Reads::new();
            let first = reads.node.publish("open:t", "1").await;
            let last = reads.node.publish("open:t", "2").await;
            let both = futures_util::future::join(
                reads.since("open:t", first),
                reads.since("open:t", first),
            );
            let (one, other) = both.await;
            assert!(Rc::ptr_eq(&one, &other));
            assert_eq!(reads.misses(), 1);
            reads.since("open:t", last).await;
            reads.since("open:u", first).await;
            assert_eq!(reads.misses(), 3);
            assert_eq!(reads.node.counters().shared_read_hits.get(), 1);
        });
    }

    #[test]
    fn a_page_is_kept_for_a_moment_only() {
        run(async {
            let reads = Reads::new();
            let at = reads.node.publish("open:t", "1").await;
            reads.since("open:t", at).await;
            while !reads.reads.reads.borrow().is_empty() {
                tokio::time::sleep(KEPT / 10).await;
            }
            reads.since("open:t", at).await;
            assert_eq!(reads.misses(), 2);
        });
    }

    #[test]
    fn what_was_read_before_a_failover_is_not_given_to_those_who_ask_after() {
        run(async {
            let reads = Reads::new();
            let at = reads.node.publish("open:t", "1").await;
            let mut ada = reads.node.welcomed(user("ada")).await;
            ada.subscribe("open:t", serde_json::json!({})).await;
            reads.since("open:t", at).await;
            let before = reads.misses();
            let topic = Topic::new(&App::default_app(), "open:t").expect("a topic");
            reads.node.worker().handle(Inbound::Gap {
                topic,
                from: at,
                to: at,
                reason: GapReason::Failover,
            });
            reads.since("open:t", at).await;
            assert_eq!(reads.misses(), before + 1);
        });
    }

    #[test]
    fn at_the_bound_a_session_reads_for_itself() {
        run(async {
            let reads = Reads::new();
            let at = reads.node.publish("open:t", "1").await;
            for topic in 0..READS_MAX + 5 {
                reads.since(&format!("open:{topic}"), at).await;
            }
            assert!(reads.reads.reads.borrow().len() <= READS_MAX);
            reads.since("@ada", at).await;
            let misses = reads.misses();
            reads.since("@ada", at).await;
            assert_eq!(reads.misses(), misses + 1, "an inbox is nobody else's");
        });
    }
}
