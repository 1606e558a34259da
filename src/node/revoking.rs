//! The node's part in revocation: who reads, who is told, and the answer to a call.
//!
//! In: the configuration, the broker, what the API revokes. Out: the task that reads, the one that
//! tells workers ten times a second what is new, and for each call which nodes have read it. Who lives
//! is known by a heartbeat that was sent after the entry was stored: one that joined since then has to
//! read first. Bounds:
//! a call waits for [`PATIENCE`]; what is new waits, as hashes, for a worker whose queue is full.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::Notify;
use tokio::time::{Instant, MissedTickBehavior, timeout_at};

use super::read_told::{ReadTold, Told};
use crate::api::state::{Component, PartState};
use crate::apps::Apps;
use crate::broker::redis::RedisBroker;
use crate::broker::{Broker, BrokerError};
use crate::cluster::membership::Membership;
use crate::cluster::membership_machine::MembershipState;
use crate::cluster::view::{NodeInfo, View};
use crate::config::Config;
use crate::revocation::adding::{Added, Adding, Asked};
use crate::revocation::known::Revocations;
use crate::revocation::news::News;
use crate::revocation::progress::Progress;
use crate::revocation::runner::{DIFFERS_AFTER, Runner};
use crate::revocation::store::{Store, StoreError};
use crate::revocation::{ENTRIES_ALL_MAX, ENTRIES_MAX, Target, name_of};
use crate::tasks::{self, turns};
use crate::telemetry::metrics::Metrics;
use crate::worker::handle::{Inbound, WorkerHandle};
use fanfare_protocol::ids::App;

/// How long a call waits for the nodes to read.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often workers are told what is new.
const SCAN_EVERY: Duration = Duration::from_millis(100);
/// How often a call that waits asks for a heartbeat and a look at what others have read.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// See the module.
#[derive(Debug, Clone)]
pub struct Revoking {
    /// What this node knows.
    pub known: Revocations,
    /// Asks for a heartbeat, which tells who lives.
    pub hurry: Arc<Notify>,
    read_told: ReadTold,
    store: Store,
}

/// What was stored by a call.
#[derive(Debug)]
pub struct Stored {
    /// The names of the entries.
    pub names: Vec<Box<str>>,
    /// Before which second the tokens were issued.
    pub issued_before: u64,
    /// When the store had it, at the latest.
    pub at: Instant,
}

impl Revoking {
    /// Starts the task that reads.
    #[must_use]
    pub fn start(
        (config, apps): (&Config, &Arc<Apps>),
        broker: &Broker,
        metrics: &Metrics,
    ) -> Self {
        let read_told = ReadTold::default();
        let counts = Arc::clone(&metrics.revocations);
        let (known, store) = match broker {
            Broker::Redis(redis) => (
                Revocations::clustered(config.redis.lease),
                Store::redis(redis.urgent(), redis.keys()),
            ),
            Broker::Memory(_) => (Revocations::default(), Store::memory()),
        };
        let known = known.counting(counts);
        let (life, leeway) = super::apps::longest(&apps.all());
        known.set_token_life(life);
        known.set_leeway(leeway);
        let runner = Runner {
            known: known.clone(),
            store: store.clone(),
            progress: Arc::clone(&read_told.read_on),
        };
        tasks::vital("revocations", turns::polled("revocations", runner.run()));
        Self {
            known,
            store,
            hurry: Arc::default(),
            read_told,
        }
    }

    /// Reads anew whenever this node becomes a member: what is promised without a node that is none
    /// holds for it from then on. Says how far it has read.
    pub fn follow(&self, membership: &Membership, redis: &RedisBroker) {
        let progress = Progress::new(redis.urgent(), redis.keys());
        let (known, hurry) = (&self.known, &self.hurry);
        self.read_told.start(&progress, known, membership, hurry);
        let (known, mut standing) = (self.known.clone(), membership.standing());
        tasks::spawn("revocation_joins", async move {
            loop {
                if let MembershipState::Member(_) = *standing.borrow_and_update() {
                    known.joined();
                }
                if standing.changed().await.is_err() {
                    return;
                }
            }
        });
    }

    /// Tells the workers what is new, for as long as the node runs.
    pub fn tell(&self, workers: Vec<WorkerHandle>) {
        let known = self.known.clone();
        tasks::vital("revocation_news", async move {
            let mut scans = tokio::time::interval(SCAN_EVERY);
            scans.set_missed_tick_behavior(MissedTickBehavior::Delay);
            // What each worker is still to be told.
            let mut owed = vec![News::default(); workers.len()];
            let mut readings = known.readings();
            loop {
                // Both are cancel-safe. An error would mean that `known` is gone.
                tokio::select! {
                    _ = scans.tick() => {}
                    _ = readings.changed(), if known.is_awaited() => {}
                }
                let read_at = known.read_at();
                let news = known.take_news();
                for (worker, owed) in workers.iter().zip(&mut owed) {
                    owed.merge(news.clone());
                    if owed.is_empty() {
                        continue;
                    }
                    let message = Inbound::Revoked(std::mem::take(owed).into());
                    if let Err(Inbound::Revoked(back)) = worker.send(message) {
                        *owed = News::clone(&back);
                    }
                }
                if owed.iter().all(News::is_empty) {
                    known.tell(read_at);
                }
            }
        });
    }

    /// Adds entries of an app. `issued_before` as [`Asked::issued_before`]. `Err(count)` inside: there
    /// are too many already, and nothing was added.
    ///
    /// # Errors
    /// [`StoreError`]: they may have been added.
    pub async fn add(
        &self,
        app: &App,
        targets: &[Target],
        issued_before: Option<u64>,
    ) -> Result<Result<Stored, u64>, StoreError> {
        let names: BTreeSet<_> = targets.iter().map(|target| name_of(app, target)).collect();
        let names: Vec<_> = names.into_iter().collect();
        let asked = names.iter().map(|name| Asked {
            name: name.clone(),
            issued_before,
            until_ms: None,
        });
        let adding = Adding {
            asked: asked.collect(),
            kept_ms: self.known.kept_ms(),
            clock_s: unix_s(),
            leeway_s: self.known.leeway_s(),
            above: self.known.read_to(),
            most: targets
                .iter()
                .map(Target::most)
                .min()
                .unwrap_or(ENTRIES_MAX),
        };
        let issued_before = match self.store.add(&adding).await? {
            Added::Stored(issued_before) => issued_before,
            Added::Full(count) => return Ok(Err(count)),
        };
        self.known.stored(&names, issued_before);
        self.known.ring();
        Ok(Ok(Stored {
            names,
            issued_before,
            at: Instant::now(),
        }))
    }

    /// The live nodes that have not said yet that they have read these entries, sorted; empty as soon
    /// as there is none, or what is left when the time is over. This node's own name stands for those
    /// of whom it does not know.
    pub async fn waiting(&self, membership: &Membership, stored: &Stored) -> Vec<String> {
        let until = Instant::now() + PATIENCE;
        let mut readings = self.known.readings();
        let mut view = membership.view();
        let mut told = self.read_told.told();
        loop {
            let waiting = {
                let told = told.borrow_and_update();
                not_read(&membership.now(), &told, &self.known, stored)
            };
            if waiting.is_empty() || Instant::now() >= until {
                return waiting;
            }
            self.hurry.notify_one();
            self.read_told.want();
            let look_at = until.min(Instant::now() + LOOK_EVERY);
            // All waits are cancel-safe, and whatever ends them, it is looked again.
            let change = async {
                tokio::select! {
                    _ = readings.changed() => {}
                    _ = view.changed() => {}
                    _ = told.changed() => {}
                }
            };
            let _ = timeout_at(look_at, change).await;
        }
    }
}

fn unix_s() -> u64 {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH);
    since_1970.unwrap_or_default().as_secs()
}

/// A node counts by what it said with its heartbeat or beside it, whichever is more.
fn not_read(view: &View, beside: &Told, known: &Revocations, stored: &Stored) -> Vec<String> {
    let Stored {
        names,
        issued_before,
        at,
    } = stored;
    let others = view
        .nodes
        .iter()
        .filter(|node| node.owner.node != view.me.node);
    let covers = |read_to| known.covers(read_to, names, *issued_before);
    let has_read = |node: &NodeInfo| {
        let beside = beside.get(&node.owner).copied();
        covers(node.details.revoked) || beside.is_some_and(covers)
    };
    let mut waiting: Vec<_> = others
        .filter(|node| !has_read(node))
        .map(|node| node.owner.node.to_string())
        .collect();
    // Without a lease nobody has told this node who lives, and what it was told before says nothing
    // of who has joined since: that one may have read before this was stored.
    let is_told = view.has_lease() && (view.until.is_none() || view.told_at >= *at);
    if !is_told || !covers(known.read_to()) {
        waiting.push(view.me.node.to_string());
    }
    waiting.sort_unstable();
    waiting
}

/// Why a call could not be carried out.
pub(super) fn broker_error(error: StoreError) -> BrokerError {
    match error {
        StoreError::Redis(error) => error.into(),
        StoreError::Unexpected => BrokerError::Unexpected(error.to_string()),
    }
}

/// Whether this node takes tokens.
#[must_use]
pub fn part(known: &Revocations) -> Component {
    let (count, bytes) = known.size();
    let age_ms = known.age().map_or(0, super::millis);
    let differs_for = known.differs_for().filter(|time| *time >= DIFFERS_AFTER);
    let differs = differs_for.map(|time| {
        format!(
            "for {} s Redis has had other revocations than this node: what is revoked holds, but calls \
             that revoke are answered 202",
            time.as_secs()
        )
    });
    let unread = known.unread().map(str::to_owned).or(differs);
    let detail = unread
        .clone()
        .unwrap_or_else(|| format!("revocations known: {count}"));
    Component::new("revocations", detail)
        .state(PartState::Degraded, unread)
        .figure("entries", count as u64, Some(ENTRIES_ALL_MAX as u64))
        .figure("memory_bytes", bytes as u64, None)
        .figure("read_age_ms", age_ms, None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::view::NodeDetails;
    use crate::revocation::memory::Held;
    use crate::revocation::reader::Reader;
    use crate::revocation::store_rig;

    /// A view of `one` that was told at this instant, with a node that has read this far.
    fn view(told_at: Instant, other: Option<u64>) -> View {
        let me = "one~7".parse().expect("an owner");
        let mut view = View::alone(me, NodeDetails::default(), 16);
        view.nodes.extend(other.map(|revoked| NodeInfo {
            owner: "two~8".parse().expect("an owner"),
            details: NodeDetails {
                revoked,
                ..NodeDetails::default()
            },
        }));
        view.told_at = told_at;
        view.until = Some(told_at + Duration::from_secs(5));
        view
    }

    #[test]
    fn every_live_node_is_said_to_know_only_by_a_heartbeat_after_the_entry_was_stored() {
        let (known, mut held, mut reader) = (
            Revocations::clustered(Duration::from_secs(5)),
            Held::default(),
            Reader::default(),
        );
        let name = "u default ada";
        store_rig::add(&mut held, name, 7);
        store_rig::read(&known, &mut reader, &held);
        let stored = Stored {
            names: vec![name.into()],
            issued_before: 7,
            at: Instant::now(),
        };
        let before = stored.at - Duration::from_millis(1);
        let read = known.read_to();
        let waiting = |view: &View| not_read(view, &Told::new(), &known, &stored);
        assert_eq!(waiting(&view(stored.at, Some(read))), [""; 0]);
        assert_eq!(waiting(&view(stored.at, Some(0))), ["two"]);
        // Somebody may have joined since.
        assert_eq!(waiting(&view(before, Some(read))), ["one"]);
        assert_eq!(waiting(&view(before, Some(0))), ["one", "two"]);
        // A node that has not joined yet sees itself alone.
        let joining = View {
            me: "one~0".parse().expect("an owner"),
            ..view(stored.at, None)
        };
        assert_eq!(waiting(&joining), ["one"]);
        let stale = View {
            fresh: false,
            ..view(stored.at, None)
        };
        assert_eq!(waiting(&stale), ["one"]);
        let alone = View {
            until: None,
            ..view(before, None)
        };
        assert_eq!(
            waiting(&alone),
            [""; 0],
            "without Redis there is nobody else"
        );
    }

    #[test]
    fn what_a_node_said_beside_its_heartbeats_counts_for_the_life_that_said_it() {
        let (known, mut held, mut reader) = (
            Revocations::clustered(Duration::from_secs(5)),
            Held::default(),
            Reader::default(),
        );
        let name = "u default ada";
        store_rig::add(&mut held, name, 7);
        store_rig::read(&known, &mut reader, &held);
        let stored = Stored {
            names: vec![name.into()],
            issued_before: 7,
            at: Instant::now(),
        };
        let read = known.read_to();
        let waiting = |life: &str, read_to, by_heartbeat| {
            let beside = Told::from([(life.parse().expect("an owner"), read_to)]);
            not_read(&view(stored.at, by_heartbeat), &beside, &known, &stored)
        };
        assert_eq!(waiting("two~8", read, Some(0)), [""; 0]);
        assert_eq!(waiting("two~8", read - 1, Some(read)), [""; 0]);
        assert_eq!(waiting("two~8", read - 1, Some(0)), ["two"]);
        assert_eq!(
            waiting("two~8", read + 1, Some(0)),
            ["two"],
            "a change of another history, or one that this node has not read"
        );
        assert_eq!(waiting("two~7", read, Some(0)), ["two"], "an earlier life");
        assert_eq!(waiting("one~7", read, Some(0)), ["two"]);
    }

    #[tokio::test]
    async fn a_reading_counts_as_told_only_when_every_worker_has_its_news() {
        let known = Revocations::clustered(Duration::from_secs(5));
        let revoking = Revoking {
            known: known.clone(),
            hurry: Arc::default(),
            read_told: ReadTold::default(),
            store: Store::memory(),
        };
        let (handle, mut queue) = WorkerHandle::new(Arc::default());
        while handle.send(Inbound::Revoked(Arc::default())).is_ok() {}
        let (mut held, mut reader) = (Held::default(), Reader::default());
        store_rig::add(&mut held, "u default ada", 7);
        store_rig::read(&known, &mut reader, &held);
        let mut told = known.told();
        revoking.tell(vec![handle]);
        tokio::time::sleep(3 * SCAN_EVERY).await;
        assert!(told.borrow().is_none(), "the worker's queue is full");
        let mut news = 0;
        let is_told = async {
            while told.borrow_and_update().is_none() {
                while let Ok(Inbound::Revoked(one)) = queue.try_recv() {
                    news += usize::from(!one.is_empty());
                }
                let _ = tokio::time::timeout(SCAN_EVERY, told.changed()).await;
            }
        };
        let is_told = tokio::time::timeout(20 * SCAN_EVERY, is_told).await;
        is_told.expect("there is room");
        while let Ok(Inbound::Revoked(one)) = queue.try_recv() {
            news += usize::from(!one.is_empty());
        }
        assert_eq!(news, 1);
    }
}
