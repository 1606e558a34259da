//! Why the broker surely did nothing, in words for callers, and what callers are told of any failure.
//!
//! In: what a part of the broker found to be the case. Out: one text for each case, the same on both
//! listeners; docs/protocol.md lists them all. Only what may name servers of Redis is kept for
//! operators. Pure but for one line in the log where an answer makes no sense.

use super::BrokerError;
use crate::protocol::error::{ErrorCode, WireError};

/// See the module. The same request may be repeated after each of them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unavailable {
    /// No master of Redis has the topic, or it does not answer: why, for operators alone.
    #[error("the broker is not available: {0}")]
    Away(String),
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
    /// Nobody would own the member.
    #[error("this node has no lease at the moment, without which nobody becomes a member")]
    NoLease,
    /// The topic's place in the index, or the turn of the membership, did not come in time.
    #[error("members cannot be written at the moment")]
    MembersUnwritten,
    /// So many members of a dead node stand before the page that it cannot be filled.
    #[error("members of a dead node are being removed")]
    MembersReaped,
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

impl BrokerError {
    /// What callers are told, over whichever listener they asked.
    #[must_use]
    pub fn told(&self) -> WireError {
        match self {
            Self::Unavailable(Unavailable::Away(_)) => {
                WireError::unavailable("the broker is not available; nothing was done")
            }
            Self::Unavailable(_) | Self::Refused(_) => WireError::unavailable(self.to_string()),
            Self::Unconfirmed(_) => WireError::unavailable(
                "it is published, but fewer replicas confirmed it than replicas_min asks for: \
                 the outcome is unknown; repeat it with the same idempotency_key",
            ),
            Self::Unknown(_) => WireError::unavailable(
                "the broker's answer was lost: the outcome is unknown; repeat it, a publication \
                 with the same idempotency_key",
            ),
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
        Unavailable::Stopping,
        Unavailable::TooFewFollow { count: 0, min: 1 },
        Unavailable::NotYetPromised,
        Unavailable::NotReplicated,
        Unavailable::MemoryFull,
        Unavailable::NoLease,
        Unavailable::MembersUnwritten,
        Unavailable::MembersReaped,
        Unavailable::SubscriptionUnconfirmed,
        Unavailable::Left,
    ];
    let others = [
        BrokerError::Unconfirmed(secret()),
        BrokerError::Unknown(secret()),
        BrokerError::Unexpected(secret()),
    ];
    let reasons = reasons.into_iter().map(BrokerError::Unavailable);
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
                // The numbers of the case stand in brackets.
                let told = message.replace("(0 of 1)", "(N of M)");
                assert!(page.contains(&format!("- `{told}`: ")), "{told}");
            }
        }
        assert_eq!(texts.len(), all().len());
    }
}
