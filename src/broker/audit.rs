//! Who asked the API for what that changes anything: a list that all nodes share.
//!
//! In: an entry before each such act. Out: pages of it, the newest first. Kept by the broker, as the topics
//! are: in Redis as a stream of its own, else in the process. Bound: [`ENTRIES_MAX`] entries; where there
//! are more, the oldest of the client that has most makes room, so that nobody washes out what others did;
//! of each [`TARGET_BYTES_MAX`] bytes of its target. It says what was attempted, because
//! it is written before the act; what became of that is not known then.

use super::{Broker, BrokerError};
use fanfare_protocol::ids::Position;

/// Entries that are kept.
pub const ENTRIES_MAX: usize = 10_000;
/// Longest target; the rest is cut off. What the API writes is shorter (`api::about`).
pub const TARGET_BYTES_MAX: usize = 1_024;
/// Entries of one page.
pub const PAGE_MAX: usize = 1_000;

/// What somebody asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditEntry {
    /// When, unix milliseconds by the clock of the node that was asked.
    pub time_ms: u64,
    /// The client of the API.
    pub client: String,
    /// The app that it spoke of.
    pub app: String,
    /// What for: the name of the call in the API's document.
    pub operation: String,
    /// With whom or what; empty where the call has no target.
    pub target: String,
    /// From which address it came; empty where that is not known.
    pub address: String,
}

/// An entry where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Audited {
    /// Its place; later entries have higher ones.
    pub id: Position,
    /// What it says.
    pub entry: AuditEntry,
}

/// Text of at most so many bytes, whole characters.
#[must_use]
pub fn cut(text: &str, bytes_max: usize) -> &str {
    let mut end = text.len().min(bytes_max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

impl Broker {
    /// Adds an entry. Nothing may be done before this has answered.
    ///
    /// # Errors
    /// [`BrokerError`]; after `Unknown` it may stand there.
    pub async fn audit(&self, entry: AuditEntry) -> Result<(), BrokerError> {
        let entry = AuditEntry {
            target: cut(&entry.target, TARGET_BYTES_MAX).to_owned(),
            ..entry
        };
        match self {
            Self::Memory(broker) => {
                broker.audit(entry);
                Ok(())
            }
            Self::Redis(broker) => broker.audit(entry).await,
        }
    }

    /// The newest entries below a place, at most so many, and at most [`PAGE_MAX`] and one, by which a reader
    /// of pages sees that there is another.
    ///
    /// # Errors
    /// [`BrokerError`].
    pub async fn audited(
        &self,
        before: Option<Position>,
        limit: usize,
    ) -> Result<Vec<Audited>, BrokerError> {
        let limit = limit.min(PAGE_MAX + 1);
        match self {
            Self::Memory(broker) => Ok(broker.audited(before, limit)),
            Self::Redis(broker) => broker.audited(before, limit).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_cut_between_characters() {
        for (text, max, wanted) in [
            ("abc", 3, "abc"),
            ("abc", 2, "ab"),
            ("aé", 2, "a"),
            ("", 9, ""),
        ] {
            assert_eq!(cut(text, max), wanted);
        }
    }
}
