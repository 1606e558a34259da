//! What a session asks of the broker: one future a command, each ending in one [`Completion`].
//!
//! In: requests that the state machine has let through. Out: answers, which the session's loop
//! turns into frames in one step without awaits, so that nothing is delivered in between. The
//! futures belong to the session and are dropped with it; what was submitted to the broker by then
//! may still be carried out.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crate::broker::unavailable::Unavailable;
use crate::broker::visible::{self, VisiblePage};
use crate::broker::{Acked, Broker, BrokerError, HistoryQuery, Page, PublishRequest, Published};
use crate::config::Retention;
use crate::presence::MembersPage;
use crate::telemetry::trace::sampler::Caller;
use crate::telemetry::trace::tracer::{Cause, Destination};
use crate::worker::catchup::{PAGE_ENTRIES_MAX, Pull, ReadPage};
use crate::worker::hub::SessionKey;
use crate::worker::{Join, Worker};
use fanfare_protocol::command::History;
use fanfare_protocol::error::{ErrorCode, WireError};
use fanfare_protocol::event::{GapReason, Member};
use fanfare_protocol::ids::{Position, SessionId, Topic, TopicKind};

use super::joining::{Amendment, Begin, Joining};
use super::opening::{AutoJoined, Opened};
use super::parked::{Asked, Held, Parked};
use super::shared_reads::SharedReads;
use super::state::Now;
use super::{Services, backoff};

/// How long a page rests after it could not be read, or brought nothing: at first, and at last.
const PULL_REST: Duration = Duration::from_millis(100);
const PULL_REST_MAX: Duration = Duration::from_secs(5);

/// What has come back.
#[derive(Debug)]
pub enum Completion {
    /// Everything that `welcome` needs.
    Opened(Box<Opened>),
    /// The session cannot be opened.
    Unopened(Option<u64>, WireError),
    /// `@`, which was not live in time for `welcome`.
    Everyone(Box<AutoJoined>),
    /// Where a subscription begins, or why it does not.
    Subscribed {
        /// The command's id.
        id: Option<u64>,
        /// What was joined.
        joining: Joining,
        /// The outcome.
        result: Result<Subscribed, WireError>,
    },
    /// How many members there are after a session became one, or why it did not.
    Amended {
        /// The command's id.
        id: Option<u64>,
        /// What was asked for.
        amendment: Amendment,
        /// The outcome.
        result: Result<Entered, WireError>,
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
    /// The tokens of a command that was parked are checked.
    Checked(Box<Parked>),
    /// A command that was held back goes on.
    Held(Box<Held>),
    /// The authorizer of a command that was parked has answered.
    Authorized(Box<Asked>),
    /// The outcome of a command behind which nothing was read.
    Alone(Box<Completion>),
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
    /// Until when an authorizer grants it, in unix seconds.
    pub authorized: Option<u64>,
}

/// A membership that has begun.
#[derive(Debug, Clone, Copy)]
pub struct Entered {
    /// Members.
    pub count: u64,
    /// Until when an authorizer grants it, in unix seconds.
    pub authorized: Option<u64>,
}

/// What the futures of one session share.
#[derive(Clone)]
pub struct BrokerCalls {
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

impl BrokerCalls {
    pub(super) fn broker(&self) -> &Broker {
        &self.services.broker
    }

    pub(super) fn retention(&self, topic: &Topic) -> Retention {
        match topic.kind() {
            TopicKind::Presence => crate::broker::member::PRESENCE_RETENTION,
            _ => {
                let settings = self.services.apps.of_topic(topic);
                settings.namespace(topic).retention()
            }
        }
    }

    /// Waits until the topic is live on this worker, as long as a broker that is there may take.
    pub(super) async fn joined(&self, topic: &Topic) -> Result<(), WireError> {
        let has_history = self.retention(topic).entries_max > 0;
        let Join::Waiting(answer) = self.worker.join(self.key, topic, has_history) else {
            return Ok(());
        };
        // The subscription, then the last id: two commands. A session that opens with many topics
        // must be welcome before its deadline all the same.
        let config = &self.services.config;
        let patience = (config.redis.command_timeout * 2).min(config.auth.timeout / 2);
        match tokio::time::timeout(patience, answer).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(left_before_joined()),
            Err(_) => {
                // What went wrong meanwhile says more.
                let known = self.broker().check(topic).err();
                let why = known.unwrap_or(Unavailable::SubscriptionUnconfirmed.into());
                Err(broker_error(why))
            }
        }
    }

    /// `subscribe`: joins, becomes a member where asked, finds out where it begins.
    pub async fn subscribe(
        self,
        id: Option<u64>,
        mut joining: Joining,
        (member, user): (Option<Member>, Option<String>),
    ) -> Completion {
        let asks = joining.asks.take();
        let whom = (user.as_deref(), joining.presence);
        let subscribed = async {
            let authorized = self.may_join(asks, &joining.topic, whom).await?;
            let begun = self.begin(&joining.topic, joining.begin, member).await?;
            Ok(Subscribed {
                authorized,
                ..begun
            })
        };
        let result = subscribed.await;
        Completion::Subscribed {
            id,
            joining,
            result,
        }
    }

    /// Joins a topic and finds out where it begins. What a master has that is away is not waited
    /// for.
    pub(super) async fn begin(
        &self,
        topic: &Topic,
        begin: Begin,
        member: Option<Member>,
    ) -> Result<Subscribed, WireError> {
        self.broker().check(topic).map_err(broker_error)?;
        let mut count = None;
        if let Some(member) = member {
            count = Some(self.enter(topic, member).await?);
        }
        self.joined(topic).await?;
        let start = match (begin.since, begin.rewind) {
            (Some(since), _) => self.resume(topic, since, begin.reach).await?,
            (None, Some(newest)) if newest > 0 => self.rewind(topic, newest).await?,
            (None, _) => Start::Live,
        };
        Ok(Subscribed {
            start,
            count,
            authorized: None,
        })
    }

    /// `subscribe` on a topic that is joined: becomes a member.
    pub async fn amend(
        self,
        id: Option<u64>,
        mut amendment: Amendment,
        member: Member,
    ) -> Completion {
        let asks = amendment.asks.take();
        let result = async {
            let whom = (member.user.as_deref(), true);
            let authorized = self.may_join(asks, &amendment.topic, whom).await?;
            self.broker()
                .check(&amendment.topic)
                .map_err(broker_error)?;
            let count = self.enter(&amendment.topic, member).await?;
            Ok(Entered { count, authorized })
        };
        let result = result.await;
        Completion::Amended {
            id,
            amendment,
            result,
        }
    }

    /// First the changes are heard, then the member enters: no change falls between the two.
    async fn enter(&self, topic: &Topic, member: Member) -> Result<u64, WireError> {
        self.joined(&topic.presence()).await?;
        let entered = self.services.presence.enter(topic, member).await;
        entered.map_err(broker_error)
    }

    /// Where a reader who left at `since` begins. The broker judges it, also on a topic without
    /// history: what this worker has seen may be behind the position that a publisher was told.
    /// What is older than `reach` counts as not retained, by the broker's clock, which made the
    /// positions.
    pub(super) async fn resume(
        &self,
        topic: &Topic,
        since: Position,
        reach: Option<Duration>,
    ) -> Result<Start, WireError> {
        let only_the_place = Page {
            entries_max: 1,
            bytes_max: 1,
        };
        let since = match since {
            Position::UNWRITTEN => Position::ZERO,
            since => since,
        };
        let retention = self.retention_within(topic, reach);
        let page = self.read(topic, since, retention, only_the_place).await?;
        Ok(Start::After {
            at: page.start,
            gap: page.gap,
        })
    }

    fn retention_within(&self, topic: &Topic, reach: Option<Duration>) -> Retention {
        let mut retention = self.retention(topic);
        if let Some(reach) = reach {
            let reach_ms = u64::try_from(reach.as_millis()).unwrap_or(u64::MAX);
            retention.age_ms = retention.age_ms.min(reach_ms);
        }
        retention
    }

    /// Before the oldest of the newest `count` that are retained. A page may end at its bytes
    /// before that; then the next one is read.
    async fn rewind(&self, topic: &Topic, count: u32) -> Result<Start, WireError> {
        let mut query = HistoryQuery {
            topic: topic.clone(),
            retention: self.retention(topic),
            since: None,
            until: None,
            limit: count,
            bytes_max: self.services.config.session.page_bytes_max,
            reverse: true,
        };
        let mut start = Start::Live;
        loop {
            let page = self.broker().history(query.clone()).await;
            let page = page.map_err(broker_error)?;
            let Some(oldest) = page.entries.last() else {
                return Ok(start);
            };
            start = Start::After {
                at: oldest.prev,
                gap: None,
            };
            query.until = Some(oldest.position);
            let got = u32::try_from(page.entries.len()).unwrap_or(u32::MAX);
            query.limit = query.limit.saturating_sub(got);
            if query.limit == 0 || !page.more {
                return Ok(start);
            }
        }
    }

    /// A page of a catch-up.
    pub async fn pull(self, pull: Pull) -> Completion {
        let size = Page {
            entries_max: u32::try_from(PAGE_ENTRIES_MAX).unwrap_or(u32::MAX),
            bytes_max: self.worker.page_bytes_max(),
        };
        let reach = self.services.config.session.resume;
        let reach = pull.is_limited.then_some(reach);
        let retention = self.retention_within(&pull.topic, reach);
        let page = self.read(&pull.topic, pull.at, retention, size).await;
        Completion::Page(pull, page)
    }

    async fn read(
        &self,
        topic: &Topic,
        since: Position,
        retention: Retention,
        page: Page,
    ) -> Result<Rc<ReadPage>, WireError> {
        let reads = &self.reads;
        let read = reads.since(&self.worker, topic, since, retention, page);
        read.await.map_err(broker_error)
    }

    /// A pause before a catch-up asks again, after so many failures before this one.
    pub async fn rest(pull: Pull, failures: u32) -> Completion {
        tokio::time::sleep(backoff::rest(PULL_REST, failures, PULL_REST_MAX)).await;
        Completion::PullAgain(pull)
    }

    /// `publish`. The request has the context that its client sent.
    pub async fn publish(
        self,
        id: Option<u64>,
        mut request: PublishRequest,
        asks: Option<Box<str>>,
    ) -> Completion {
        let Services { tracer, apps, .. } = &*self.services;
        let settings = apps.of_topic(&request.topic);
        let to = Destination {
            topic: &request.topic,
            namespace: settings.namespace_name(&request.topic),
        };
        let cause = Cause::Own(request.trace, Caller::Client(self.session));
        let traced = tracer.publication("publish", cause, to);
        request.trace = traced.context();
        if let Err(error) = self.may_publish(asks, &mut request).await {
            traced.published(Err::<Position, _>(error.code.name()));
            return Completion::Published(id, Err(error));
        }
        let published = self.broker().publish(request).await;
        let outcome = published.as_ref().map(|published| published.position);
        traced.published(outcome.map_err(|error| error.told().code.name()));
        if published.is_ok() {
            self.broker().relieved().await;
        }
        Completion::Published(id, published.map_err(broker_error))
    }

    /// `ack`.
    pub async fn ack(self, id: Option<u64>, inbox: Topic, position: Position) -> Completion {
        let retention = self.retention(&inbox);
        let acked = self
            .broker()
            .ack(&inbox, position, self.session, retention)
            .await;
        Completion::Acked(id, acked.map_err(broker_error))
    }

    /// `history`.
    pub async fn history(self, id: Option<u64>, topic: Topic, history: History) -> Completion {
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
        Completion::History(id, page.map_err(broker_error))
    }

    /// `presence`.
    pub async fn presence(
        self,
        id: Option<u64>,
        topic: Topic,
        after: Option<SessionId>,
        limit: u32,
    ) -> Completion {
        let size = Page {
            entries_max: limit,
            bytes_max: self.services.config.session.page_bytes_max,
        };
        let page = self.services.presence.page(&topic, after, size).await;
        Completion::Presence(id, page.map_err(broker_error))
    }
}

/// What a client is told of a broker's failure.
#[must_use]
pub fn broker_error(error: BrokerError) -> WireError {
    let told = error.told();
    WireError {
        retry_after_ms: told.code.retry().then_some(1_000),
        ..told
    }
}

/// What a client is told that left a topic while the answer to its `subscribe` was on its way.
#[must_use]
pub fn left_before_joined() -> WireError {
    let text = "the topic was left before it was joined";
    WireError::new(ErrorCode::NotSubscribed, text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::unavailable;

    #[test]
    fn clients_are_told_each_failure_of_the_broker_in_its_words() {
        for error in unavailable::all() {
            let expected = error.told();
            let told = broker_error(error);
            assert_eq!(
                (told.code, &told.message),
                (expected.code, &expected.message)
            );
            assert_eq!(told.retry_after_ms.is_some(), told.code.retry());
        }
    }
}
