//! Opening a session: what `welcome` waits for, and what it does not.
//!
//! In: who is there and what `connect` names, judged by the state machine. Out: one
//! [`Completion::Opened`], or [`Completion::Unopened`] where the inbox cannot be joined. `welcome` waits for
//! the inbox; for the topics of `connect`, all at once, as long as a broker that is there may take;
//! and for `@` no longer than [`EVERYONE_PATIENCE`], because that topic lies on one master of Redis,
//! which must keep nobody out whose topics are elsewhere. An `@` that is late is handed on as
//! [`Late`]. What a master has that is known to be away is answered at once. Bound: the
//! authentication deadline.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::{LocalBoxFuture, join, join_all};
use rand::RngExt as _;

use crate::broker::InboxSummary;
use crate::worker::Join;
use fanfare_protocol::error::WireError;
use fanfare_protocol::event::Member;
use fanfare_protocol::ids::{Position, Topic};

use super::backoff;
use super::broker_calls::{BrokerCalls, Completion, Start, Subscribed, broker_error};
use super::joining::{Begin, Joining, OwnTopic};

/// How long `welcome` waits for `@` while nothing is known against its master: many times what a
/// healthy one takes.
const EVERYONE_PATIENCE: Duration = Duration::from_millis(50);
/// How long opening rests at first while the broker does not answer, and at last.
const REST: Duration = Duration::from_millis(200);
const REST_MAX: Duration = Duration::from_secs(2);
/// When a client is told to come back whose inbox cannot be joined, in milliseconds.
const COME_BACK_MS: std::ops::Range<u64> = 1_000..5_000;

/// What a session asks for when it opens.
#[derive(Debug)]
pub struct Opening {
    /// The id of the `connect` that asked.
    pub id: Option<u64>,
    /// `@`.
    pub everyone: OwnTopic,
    /// The inbox, where there is a user.
    pub inbox: Option<OwnTopic>,
    /// The other topics of `connect`, by the name under which it has them.
    pub topics: Vec<(String, Result<Joining, WireError>)>,
    /// The session as a member.
    pub member: Member,
}

/// All that `welcome` waits for.
#[derive(Debug)]
pub struct Opened {
    /// The id of the `connect` that asked.
    pub id: Option<u64>,
    /// The inbox, as the user left it, and where it begins.
    pub inbox: Option<(InboxSummary, AutoJoined)>,
    /// `@`, or what comes of it later.
    pub everyone: Result<AutoJoined, Late>,
    /// What became of the other topics.
    pub topics: Vec<(String, Outcome)>,
}

/// Where a topic begins that the session belongs to unasked.
#[derive(Debug)]
pub struct AutoJoined {
    /// `@` or the inbox.
    pub topic: Topic,
    /// Where the client left it, or the cursor stands.
    pub left: Option<Position>,
    /// What `connect` is answered of it, where that named it: its place, or this.
    pub named: Option<Result<(), WireError>>,
    /// Where it begins.
    pub start: Start,
}

/// A topic of `connect` that can begin, or why it cannot.
pub type Outcome = Result<(Joining, Subscribed), WireError>;

/// An `@` that is not live yet. Ready with where it begins.
pub struct Late {
    own: LocalBoxFuture<'static, AutoJoined>,
    /// `connect` named it.
    pub is_named: bool,
}

impl Future for Late {
    type Output = AutoJoined;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<AutoJoined> {
        self.own.poll_unpin(cx)
    }
}

impl fmt::Debug for Late {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Late").finish_non_exhaustive()
    }
}

impl BrokerCalls {
    /// Joins and finds out where everything begins.
    pub async fn open(self, opening: Opening) -> Completion {
        let Opening {
            id,
            everyone,
            inbox,
            topics,
            member,
        } = opening;
        let patience = match self.broker().check(&everyone.topic) {
            Ok(()) => EVERYONE_PATIENCE,
            Err(_) => Duration::ZERO,
        };
        let mut late = Late {
            is_named: everyone.named.is_some(),
            own: self.clone().everyone(everyone).boxed_local(),
        };
        let inbox = async {
            match inbox {
                Some(inbox) => self.inbox(inbox).await.map(Some),
                None => Ok(None),
            }
        };
        let (places, until) = self.places();
        let topics = topics.into_iter().map(|(name, joining)| async {
            let outcome = async {
                let mut joining = joining?;
                let (asks, whom) = (joining.asks.take(), (&member, joining.presence));
                let authorized = self.may_begin_with(asks, &joining.topic, whom, (&places, until));
                let authorized = authorized.await?;
                let member = joining.presence.then(|| member.clone());
                let begun = self.begin(&joining.topic, joining.begin, member).await?;
                let subscribed = Subscribed {
                    authorized,
                    ..begun
                };
                Ok((joining, subscribed))
            };
            (name, outcome.await)
        });
        let in_time = tokio::time::timeout(patience, &mut late);
        let (everyone, (inbox, topics)) = join(in_time, join(inbox, join_all(topics))).await;
        // It may have become live while the others were waited for.
        let everyone = everyone.ok().or_else(|| (&mut late).now_or_never());
        match inbox {
            Ok(inbox) => Completion::Opened(Box::new(Opened {
                id,
                inbox,
                everyone: everyone.ok_or(late),
                topics,
            })),
            Err(error) => Completion::Unopened(id, error),
        }
    }

    /// Waits for `@` as long as it takes; the session's end ends it.
    async fn everyone(self, own: OwnTopic) -> AutoJoined {
        let has_history = self.retention(&own.topic).entries_max > 0;
        if let Join::Waiting(live) = self.worker.join(self.key, &own.topic, has_history)
            && live.await.is_err()
        {
            // The session has left everything.
            return std::future::pending().await;
        }
        self.insist_on(own, None).await
    }

    /// The inbox, and where it begins: at the client's position, else at the cursor.
    async fn inbox(&self, own: OwnTopic) -> Result<(InboxSummary, AutoJoined), WireError> {
        let mut failures = 0;
        let summary = loop {
            self.broker().check(&own.topic).map_err(|error| {
                let mut told = broker_error(error);
                told.retry_after_ms = Some(rand::rng().random_range(COME_BACK_MS));
                told
            })?;
            let joined = async {
                self.joined(&own.topic).await?;
                self.summary(&own.topic).await
            };
            match joined.await {
                Ok(summary) => break summary,
                Err(_) => tokio::time::sleep(backoff::rest(REST, failures, REST_MAX)).await,
            }
            failures += 1;
        };
        let cursor = summary.cursor.unwrap_or_default();
        Ok((summary, self.insist_on(own, Some(cursor)).await))
    }

    /// Where a topic begins that the session has joined unasked: at the client's position, else at
    /// the cursor, else live. Tries until the broker answers.
    async fn insist_on(&self, own: OwnTopic, cursor: Option<Position>) -> AutoJoined {
        let OwnTopic { topic, named } = own;
        let begin = match &named {
            Some(Ok(begin)) => *begin,
            _ => Begin::default(),
        };
        let left = begin.since.or(cursor);
        let mut failures = 0;
        let start = loop {
            let Some(left) = left else {
                break Start::Live;
            };
            match self.resume(&topic, left, begin.reach).await {
                Ok(start) => break start,
                Err(_) => tokio::time::sleep(backoff::rest(REST, failures, REST_MAX)).await,
            }
            failures += 1;
        };
        AutoJoined {
            topic,
            left,
            named: named.map(|named| named.map(|_| ())),
            start,
        }
    }

    async fn summary(&self, inbox: &Topic) -> Result<InboxSummary, WireError> {
        let summary = self.broker().inbox(inbox, self.retention(inbox)).await;
        summary.map_err(broker_error)
    }
}
