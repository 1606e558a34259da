//! What a session asks of the broker: one future a command, each ending in one [`Done`].
//!
//! In: requests that the state machine has let through. Out: answers, which the session's loop
//! turns into frames in one step without awaits, so that nothing is delivered in between. The
//! futures belong to the session and are dropped with it; what was submitted to the broker by then
//! may still be carried out.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crate::broker::visible::{self, VisiblePage};
use crate::broker::{
    Acked, Broker, BrokerError, HistoryQuery, InboxSummary, Page, PublishRequest, Published,
};
use crate::config::Retention;
use crate::presence::MembersPage;
use crate::protocol::command::{Connect, History, Subscribe};
use crate::protocol::error::{ErrorCode, WireError};
use crate::protocol::event::{GapReason, Member};
use crate::protocol::ids::{Position, SessionId, Topic, TopicKind};
use crate::worker::catchup::{PAGE_ENTRIES_MAX, Pull, ReadPage};
use crate::worker::hub::SessionKey;
use crate::worker::{Join, Worker};

use super::Services;
use super::shared_reads::SharedReads;
use super::state::Now;

/// How long a page rests after it could not be read, or brought nothing.
const PULL_REST: Duration = Duration::from_millis(100);
/// How long opening waits between tries while the broker does not answer.
const OPEN_REST: Duration = Duration::from_millis(200);

/// What has come back.
#[derive(Debug)]
pub enum Done {
    /// Everything that `welcome` needs.
    Opened(Box<Opened>),
    /// Where a subscription begins, or why it does not.
    Subscribed {
        /// The command's id.
        id: Option<u64>,
        /// Which topic.
        topic: Topic,
        /// The stay that the command began.
        stay: u64,
        /// The outcome.
        result: Result<Subscribed, WireError>,
    },
    /// A publication's fate.
    Published(Option<u64>, Result<Published, WireError>),
    /// An acknowledgement's.
    Acked(Option<u64>, Result<Acked, WireError>),
    /// A page of history.
    History(Option<u64>, Result<VisiblePage, WireError>),
    /// A page of members.
    Presence(Option<u64>, Result<MembersPage, WireError>),
    /// A page of a catch-up.
    Page(Pull, Result<Rc<ReadPage>, WireError>),
    /// A catch-up may ask again.
    PullAgain(Pull),
    /// The outcome of a command behind which nothing was read.
    Alone(Box<Done>),
}

/// Where a subscription begins. What lies behind it comes in pages, as the socket takes them.
#[derive(Debug, Clone, Copy)]
pub enum Start {
    /// With what is published from now on.
    Live,
    /// With what comes after this position.
    After {
        /// The position.
        at: Position,
        /// Why something before it is gone.
        gap: Option<GapReason>,
    },
}

/// A subscription that can begin.
#[derive(Debug)]
pub struct Subscribed {
    /// Where.
    pub start: Start,
    /// Members, with `presence: true`.
    pub count: Option<u64>,
}

/// All that `welcome` waits for.
#[derive(Debug)]
pub struct Opened {
    /// The id of the `connect` that asked.
    pub id: Option<u64>,
    /// The inbox, as the user left it.
    pub inbox: Option<(Topic, InboxSummary)>,
    /// `@` and the inbox: they begin whatever becomes of the others.
    pub own: Vec<Own>,
    /// What became of the other positions.
    pub topics: Vec<(String, Resumption)>,
}

/// Where a topic begins that the session belongs to unasked.
#[derive(Debug)]
pub struct Own {
    /// `@` or the inbox.
    pub topic: Topic,
    /// Where the client left it, or the cursor stands.
    pub left: Option<Position>,
    /// The client said where it left it.
    pub is_named: bool,
    /// Where it begins.
    pub start: Start,
}

/// A topic that can begin, or why it cannot.
pub type Resumption = Result<(Topic, Start), WireError>;

/// What the futures of one session share.
#[derive(Clone)]
pub struct Desk {
    /// The node's parts.
    pub services: Arc<Services>,
    /// The session's worker.
    pub worker: Rc<Worker>,
    /// Reads that it shares with the worker's other sessions.
    pub reads: Rc<SharedReads>,
    /// The session there.
    pub key: SessionKey,
    /// The session's name.
    pub session: SessionId,
}

impl Desk {
    fn broker(&self) -> &Broker {
        &self.services.broker
    }

    fn retention(&self, topic: &Topic) -> Retention {
        match topic.kind() {
            TopicKind::Presence => crate::broker::member::PRESENCE_RETENTION,
            _ => self.services.config.namespace(topic).retention(),
        }
    }

    /// Waits until the topic is live on this worker, as long as a broker that is there may take.
    async fn joined(&self, topic: &Topic) -> Result<(), WireError> {
        let has_history = self.retention(topic).entries_max > 0;
        let Join::Waiting(answer) = self.worker.join(self.key, topic, has_history) else {
            return Ok(());
        };
        // The subscription, then the last id: two commands.
        let patience = self.services.config.redis.command_timeout * 2;
        match tokio::time::timeout(patience, answer).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(left_before_joined()),
            Err(_) => Err(broker_error(BrokerError::Unavailable(
                "the subscription was not confirmed".into(),
            ))),
        }
    }

    /// `connect`: joins everyone, the inbox and the topics of `positions`, and reads where each
    /// begins. Tries until the broker answers; the authentication deadline bounds it.
    pub async fn open(
        self,
        id: Option<u64>,
        inbox: Option<Topic>,
        connect: Connect,
        topics: Vec<(String, Result<Topic, WireError>)>,
    ) -> Done {
        let everyone = Topic::everyone(&self.services.app);
        let given = |topic: &Topic| {
            let mut positions = connect.positions.iter();
            positions
                .find(|(name, _)| name == topic.name())
                .map(|(_, p)| *p)
        };
        self.insist(|| self.joined(&everyone)).await;
        let position = given(&everyone);
        let mut own = vec![self.own(everyone, position, None).await];
        let inbox = match inbox {
            None => None,
            Some(inbox) => {
                self.insist(|| self.joined(&inbox)).await;
                let summary = self.insist(|| self.summary(&inbox)).await;
                let position = given(&inbox);
                let cursor = Some(summary.cursor.unwrap_or_default());
                own.push(self.own(inbox.clone(), position, cursor).await);
                Some((inbox, summary))
            }
        };
        let resumed = topics.into_iter().map(|(name, topic)| async {
            let begin = async {
                let topic = topic?;
                let start = self.start(&topic, given(&topic), None).await?;
                Ok((topic, start))
            };
            (name, begin.await)
        });
        let resumed = futures_util::future::join_all(resumed).await;
        Done::Opened(Box::new(Opened {
            id,
            inbox,
            own,
            topics: resumed,
        }))
    }

    /// Tries until the broker answers.
    async fn insist<T>(&self, attempt: impl AsyncFn() -> Result<T, WireError>) -> T {
        loop {
            match attempt().await {
                Ok(value) => return value,
                Err(_) => tokio::time::sleep(OPEN_REST).await,
            }
        }
    }

    /// Where a topic begins that the session has joined unasked: at the client's position, else at
    /// the cursor, else live.
    async fn own(&self, topic: Topic, given: Option<Position>, cursor: Option<Position>) -> Own {
        let left = given.or(cursor);
        let start = match left {
            Some(left) => self.insist(|| self.resume(&topic, left)).await,
            None => Start::Live,
        };
        Own {
            topic,
            left,
            is_named: given.is_some(),
            start,
        }
    }

    async fn summary(&self, inbox: &Topic) -> Result<InboxSummary, WireError> {
        let summary = self.broker().inbox(inbox, self.retention(inbox)).await;
        summary.map_err(broker_error)
    }

    /// `subscribe`: joins, becomes a member where asked, finds out where it begins.
    pub async fn subscribe(
        self,
        id: Option<u64>,
        topic: Topic,
        stay: u64,
        subscribe: Subscribe,
        member: Option<Member>,
    ) -> Done {
        let result = self.subscribe_inner(&topic, &subscribe, member).await;
        Done::Subscribed {
            id,
            topic,
            stay,
            result,
        }
    }

    async fn subscribe_inner(
        &self,
        topic: &Topic,
        subscribe: &Subscribe,
        member: Option<Member>,
    ) -> Result<Subscribed, WireError> {
        self.broker().check(topic).map_err(broker_error)?;
        let mut count = None;
        if let Some(member) = member {
            // First heard, then entered: no change falls between the two.
            self.joined(&topic.presence()).await?;
            let entered = self.services.presence.enter(topic, member).await;
            count = Some(entered.map_err(broker_error)?);
        }
        let start = self.start(topic, subscribe.since, subscribe.rewind);
        Ok(Subscribed {
            start: start.await?,
            count,
        })
    }

    async fn start(
        &self,
        topic: &Topic,
        since: Option<Position>,
        rewind: Option<u32>,
    ) -> Result<Start, WireError> {
        self.joined(topic).await?;
        match (since, rewind) {
            (Some(since), _) => self.resume(topic, since).await,
            (None, Some(count)) if count > 0 => self.rewind(topic, count).await,
            (None, _) => Ok(Start::Live),
        }
    }

    /// Where a reader who left at `since` begins. The broker judges it, also on a topic without
    /// history: what this worker has seen may be behind the position that a publisher was told.
    async fn resume(&self, topic: &Topic, since: Position) -> Result<Start, WireError> {
        let only_the_place = Page {
            entries_max: 1,
            bytes_max: 1,
        };
        let page = self.read(topic, since, only_the_place).await?;
        Ok(Start::After {
            at: page.start,
            gap: page.gap,
        })
    }

    /// Before the oldest of the newest `count` that are retained.
    async fn rewind(&self, topic: &Topic, count: u32) -> Result<Start, WireError> {
        let query = HistoryQuery {
            topic: topic.clone(),
            retention: self.retention(topic),
            since: None,
            until: None,
            limit: count,
            bytes_max: self.services.config.session.page_bytes_max,
            reverse: true,
        };
        let page = self.broker().history(query).await.map_err(broker_error)?;
        Ok(match page.entries.last() {
            Some(oldest) => Start::After {
                at: oldest.prev,
                gap: None,
            },
            None => Start::Live,
        })
    }

    /// A page of a catch-up.
    pub async fn pull(self, pull: Pull) -> Done {
        let size = Page {
            entries_max: u32::try_from(PAGE_ENTRIES_MAX).unwrap_or(u32::MAX),
            bytes_max: self.worker.page_bytes_max(),
        };
        let page = self.read(&pull.topic, pull.at, size).await;
        Done::Page(pull, page)
    }

    async fn read(
        &self,
        topic: &Topic,
        since: Position,
        page: Page,
    ) -> Result<Rc<ReadPage>, WireError> {
        let (reads, retention) = (&self.reads, self.retention(topic));
        let read = reads.since(&self.worker, topic, since, retention, page);
        read.await.map_err(broker_error)
    }

    /// A little pause before a catch-up asks again.
    pub async fn rest(pull: Pull) -> Done {
        tokio::time::sleep(PULL_REST).await;
        Done::PullAgain(pull)
    }

    /// `publish`.
    pub async fn publish(self, id: Option<u64>, request: PublishRequest) -> Done {
        let published = self.broker().publish(request).await;
        if published.is_ok() {
            self.broker().relieved().await;
        }
        Done::Published(id, published.map_err(broker_error))
    }

    /// `ack`.
    pub async fn ack(self, id: Option<u64>, inbox: Topic, position: Position) -> Done {
        let retention = self.retention(&inbox);
        let acked = self
            .broker()
            .ack(&inbox, position, self.session, retention)
            .await;
        Done::Acked(id, acked.map_err(broker_error))
    }

    /// `history`.
    pub async fn history(self, id: Option<u64>, topic: Topic, history: History) -> Done {
        let session = &self.services.config.session;
        let query = HistoryQuery {
            retention: self.retention(&topic),
            topic,
            since: history.since,
            until: history.until,
            limit: history.limit.unwrap_or(100).min(session.page_max),
            bytes_max: session.page_bytes_max,
            reverse: history.reverse,
        };
        let page = visible::history(self.broker(), query, Now::read().unix_ms).await;
        Done::History(id, page.map_err(broker_error))
    }

    /// `presence`.
    pub async fn presence(
        self,
        id: Option<u64>,
        topic: Topic,
        after: Option<SessionId>,
        limit: u32,
    ) -> Done {
        let page = self.services.presence.page(&topic, after, limit).await;
        Done::Presence(id, page.map_err(broker_error))
    }
}

/// What a client is told of a broker's failure.
#[must_use]
pub fn broker_error(error: BrokerError) -> WireError {
    let mut told = match error {
        BrokerError::Unavailable(_) => {
            WireError::unavailable("the broker is not available; try again")
        }
        BrokerError::Unknown(_) => WireError::unavailable(
            "the broker's answer was lost: the outcome is unknown; repeat with the same \
             `idempotency_key`",
        ),
        BrokerError::Unexpected(text) => {
            tracing::error!(
                event = "broker_unexpected",
                text,
                "the broker's answer makes no sense"
            );
            WireError::new(ErrorCode::Internal, "internal error")
        }
    };
    told.retry_after_ms = told.code.retry().then_some(1_000);
    told
}

/// What a client is told that left a topic while the answer to its `subscribe` was on its way.
#[must_use]
pub fn left_before_joined() -> WireError {
    let text = "the topic was left before it was joined";
    WireError::new(ErrorCode::NotSubscribed, text)
}
