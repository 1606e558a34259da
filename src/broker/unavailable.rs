//! Why the broker surely did nothing, in words for callers, and what callers are told of any failure.
//!
//! In: what a part of the broker found to be the case. Out: one text for each case, the same on both
//! listeners; docs/protocol.md lists them all. Only what may name servers of Redis is kept for
//! operators: [`Unavailable::Away`] and [`Unavailable::Nowhere`] have other words for them. Pure but
//! for one line in the log where an answer makes no sense.

use super::BrokerError;
use crate::redis::RedisError;
use crate::redis::nowhere::Nowhere;
use fanfare_protocol::error::{ErrorCode, WireError};

/// See the module. The same request may be repeated after each of them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unavailable {
    /// The master of Redis that has the topic does not answer: why, for operators alone.
    #[error("the broker is not available: {0}")]
    Away(String),
    /// No master of Redis may be asked for the topic.
    #[error("{0}")]
    Nowhere(Nowhere),
    /// Another master of Redis has the topic, or will soon.
    #[error("the topic is on another master of Redis")]
    Elsewhere,
    /// Redis forgot the scripts, each time they were loaded.
    #[error("Redis does not keep the scripts of this node")]
    Scripts,
    /// Of two publications the later one was done while Redis did not know the script.
    #[error("Redis had lost its scripts, and a later publication of the topic came first")]
    Overtaken,
    /// A queue to Redis is at its bound.
    #[error("too many publications of this node wait for Redis")]
    QueueFull,
    /// An earlier entry of the same target was not taken.
    #[error("not tried, because an earlier entry for the same target failed")]
    NotTried,
    /// So do the other commands.
    #[error("too many commands of this node wait for Redis")]
    CommandsFull,
    /// The broker has ended.
    #[error("this node is stopping")]
    Stopping,
    /// Fewer replicas follow the topic's master than its namespace asks for.
    #[error("fewer replicas follow than replicas_min asks for ({count} of {min})")]
    TooFewFollow {
        /// So many do.
        count: u64,
        /// So many are asked for.
        min: u32,
    },
    /// It cannot be known yet which replicas follow.
    #[error(
        "the connection to Redis is new, and in its first 5 seconds replicas_min cannot be promised"
    )]
    NotYetPromised,
    /// No namespace asked for replicas when the node started.
    #[error("this node was started without replicas_min")]
    NotReplicated,
    /// Topics in use fill the memory of the broker inside the process.
    #[error("this node has no memory left for one more topic (memory.bytes_max)")]
    MemoryFull,
    /// What waits in the queue has all the memory that it may have of the broker inside the process.
    #[error("what waits in the queue has its half of this node's memory (memory.bytes_max)")]
    QueueMemoryFull,
    /// Topics in use leave none of that memory to the queue.
    #[error("topics in use leave this node no memory for one more entry (memory.bytes_max)")]
    QueueMemoryTaken,
    /// Nobody would own the member.
    #[error("this node has no lease at the moment, without which nobody becomes a member")]
    NoLease,
    /// The topic's place in the index, or the turn of the membership, did not come in time.
    #[error("members cannot be written at the moment")]
    MembersUnwritten,
    /// So many members of a dead node stand before the page that it cannot be filled.
    #[error("members of a dead node are being removed")]
    MembersReaped,
    /// Redis answers, but too slowly for a page of topics.
    #[error("where topics are joined could not be read in time")]
    OccupancyLate,
    /// The broker did not confirm it in time.
    #[error("the subscription was not confirmed in time")]
    SubscriptionUnconfirmed,
    /// The session does not want it any more.
    #[error("the topic was left before it was joined")]
    Left,
}

impl From<Unavailable> for BrokerError {
    fn from(why: Unavailable) -> Self {
        Self::Unavailable(why)
    }
}

impl From<RedisError> for BrokerError {
    fn from(error: RedisError) -> Self {
        match (&error, error.refusal()) {
            (RedisError::Failed(_), Some(refusal)) => Self::Broken(refusal),
            (RedisError::Failed(_), None) => Self::Unexpected(error.to_string()),
            _ if error.is_not_done() => Self::not_done(&error),
            _ => Self::Unknown(error.to_string()),
        }
    }
}

impl BrokerError {
    /// Why what had to wait for a call that failed in this way was not done, whatever became of that
    /// call itself.
    #[must_use]
    pub fn not_done(error: &RedisError) -> Self {
        let why = match (error, error.refusal()) {
            (RedisError::Nowhere(nowhere), _) => Unavailable::Nowhere(nowhere.clone()),
            (_, Some(refusal)) => return Self::Refused(refusal),
            (RedisError::NoScript(_), None) => Unavailable::Scripts,
            (error, None) if error.is_moving() => Unavailable::Elsewhere,
            (error, None) if error.is_crowded() => Unavailable::CommandsFull,
            (error, None) => Unavailable::Away(error.to_string()),
        };
        why.into()
    }

    /// What callers are told, over whichever listener they asked.
    #[must_use]
    pub fn told(&self) -> WireError {
        match self {
            Self::Unavailable(Unavailable::Away(_)) => {
                WireError::unavailable("the broker is not available; nothing was done")
            }
            Self::Unavailable(Unavailable::Nowhere(nowhere)) => {
                WireError::unavailable(format!("{}; nothing was done", nowhere.told()))
            }
            Self::Unavailable(_) | Self::Refused(_) => WireError::unavailable(self.to_string()),
            Self::Unconfirmed(_) => WireError::unavailable(
                "it is written, but fewer replicas confirmed it than replicas_min asks for: \
                 the outcome is unknown; repeat it with the same idempotency_key",
            ),
            Self::Unknown(_) => WireError::unavailable(
                "the broker's answer was lost: the outcome is unknown; repeat it, a publication \
                 with the same idempotency_key",
            ),
            Self::Broken(_) => WireError::unavailable(format!(
                "{self}; repeat it, a publication with the same idempotency_key"
            )),
            Self::Unexpected(text) => {
                tracing::error!(
                    event = "broker_answer_misread",
                    text,
                    "the broker's answer makes no sense"
                );
                WireError::new(ErrorCode::Internal, "internal error")
            }
        }
    }
}

#[cfg(test)]
use crate::redis::{nowhere::Kind, refusal::Refusal};

/// Every failure, for tests of who tells them.
#[cfg(test)]
pub(crate) fn all() -> Vec<BrokerError> {
    let secret = || "at 10.0.0.1".to_owned();
    let reasons = [
        Unavailable::Away(secret()),
        Unavailable::Elsewhere,
        Unavailable::Scripts,
        Unavailable::Overtaken,
        Unavailable::QueueFull,
        Unavailable::CommandsFull,
        Unavailable::NotTried,
        Unavailable::Stopping,
        Unavailable::TooFewFollow { count: 0, min: 1 },
        Unavailable::NotYetPromised,
        Unavailable::NotReplicated,
        Unavailable::MemoryFull,
        Unavailable::QueueMemoryFull,
        Unavailable::QueueMemoryTaken,
        Unavailable::NoLease,
        Unavailable::MembersUnwritten,
        Unavailable::MembersReaped,
        Unavailable::OccupancyLate,
        Unavailable::SubscriptionUnconfirmed,
        Unavailable::Left,
    ];
    let others = [
        BrokerError::Unconfirmed(secret()),
        BrokerError::Unknown(secret()),
        BrokerError::Broken(Refusal::of("NOPERM").expect("a row")),
        BrokerError::Unexpected(secret()),
    ];
    let nowhere = |kind| Nowhere::new(kind, &secret());
    let reasons = reasons.into_iter().chain([
        Unavailable::Nowhere(nowhere(Kind::Uncompared).because(&secret(), None)),
        Unavailable::Nowhere(nowhere(Kind::Uncompared).because(&secret(), Refusal::of("NOAUTH"))),
        Unavailable::Nowhere(nowhere(Kind::Differing)),
        Unavailable::Nowhere(nowhere(Kind::Masterless).because(&secret(), None)),
        Unavailable::Nowhere(nowhere(Kind::Masterless).because(&secret(), Refusal::of("NOAUTH"))),
        Unavailable::Nowhere(nowhere(Kind::Unserved)),
    ]);
    let reasons = reasons.map(BrokerError::Unavailable);
    reasons.chain(others).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_failure_has_a_text_of_its_own_in_the_protocol() {
        let page = include_str!("../../docs/protocol.md");
        let mut texts = BTreeSet::new();
        for error in all() {
            let WireError { code, message, .. } = error.told();
            assert!(!message.contains("10.0.0.1"), "{message}");
            assert!(texts.insert(message.to_string()), "twice: {message}");
            if code == ErrorCode::Unavailable {
                let is_done = matches!(error, BrokerError::Unavailable(_));
                assert_eq!(
                    message.ends_with("; nothing was done"),
                    is_done,
                    "{message}"
                );
                assert_eq!(
                    message.contains("outcome is unknown"),
                    !is_done,
                    "{message}"
                );
                assert!(
                    page.contains(&format!("- `{}`: ", row(&message))),
                    "{message}"
                );
            }
        }
        assert_eq!(texts.len(), all().len());
    }

    /// A text as the page has it: the numbers of the case are in brackets, and of what Redis says
    /// in a word the page has one row.
    fn row(message: &str) -> String {
        let message = message.replace("(0 of 1)", "(N of M)");
        match message.split_once(", because Redis ") {
            Some((what, why)) => {
                let (_, rest) = why.rsplit_once("; ").expect("what to make of it");
                format!("{what}, because Redis …; {rest}")
            }
            None => message,
        }
    }
}
