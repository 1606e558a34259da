//! The instruments of revocations.
//!
//! In: readings, and what they ended. Out: families. Any thread counts.

use super::counter::Counter;
use super::family::{Family, Kind};

/// See the module.
#[derive(Debug, Default)]
pub struct RevocationMetrics {
    /// Entries that this node knows.
    pub entries: Counter,
    /// About how many bytes they take up.
    pub bytes: Counter,
    /// Readings that failed.
    pub failed: Counter,
    /// Entries that were written back.
    pub restored: Counter,
    /// Sessions that were ended.
    pub sessions: Counter,
    /// Topics that were left.
    pub topics: Counter,
}

impl RevocationMetrics {
    /// All of them.
    #[must_use]
    pub fn families(&self) -> Vec<Family> {
        vec![
            Family::of(
                Kind::Gauge,
                "fanfare_revocations",
                "Revocations that this node knows; 100,000 are the most.",
                &self.entries,
            ),
            Family::of(
                Kind::Gauge,
                "fanfare_revocations_bytes",
                "About how many bytes of memory they take up.",
                &self.bytes,
            ),
            Family::of(
                Kind::Counter,
                "fanfare_revocation_reads_failed_total",
                "Readings of revocations that Redis did not answer; while none succeeds for 4 s (or four fifths of a shorter lease) no token is taken.",
                &self.failed,
            ),
            Family::of(
                Kind::Counter,
                "fanfare_revocations_restored_total",
                "Revocations that Redis lacked, mostly after a failover, and got back from this node.",
                &self.restored,
            ),
            Family::of(
                Kind::Counter,
                "fanfare_sessions_revoked_total",
                "Sessions that were ended because their token was revoked.",
                &self.sessions,
            ),
            Family::of(
                Kind::Counter,
                "fanfare_topics_revoked_total",
                "Topics that sessions had to leave because the token for them was revoked.",
                &self.topics,
            ),
        ]
    }
}
