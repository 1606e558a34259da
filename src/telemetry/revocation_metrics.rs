//! The instruments of revocations.
//!
//! In: readings, and what they ended. Out: families. Any thread counts.

use super::counter::Counter;
use super::family::{Family, Kind, Table};
use super::labels::label;

label! {
    /// How a wait of deliveries ended.
    WaitEnd, "end" {
        /// Revocations were read.
        Read: "read",
        /// They could not be in time.
        Late: "late",
    }
}

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
    /// How often the store was put right.
    pub mended: Counter,
    /// 1 while the store has something else than this node, for longer than that may take.
    pub differs: Counter,
    /// 1 while no token is taken.
    pub unread: Counter,
    /// How often deliveries waited for a reading after a break.
    pub waits: Table<WaitEnd, Counter>,
    /// Commands that waited for a reading.
    pub commands_held: Counter,
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
                "fanfare_revocations_mended_total",
                "How often Redis was asked to go through all revocations because their sum or an entry was wrong.",
                &self.mended,
            ),
            Family::of(
                Kind::Gauge,
                "fanfare_revocations_differ",
                "1 while Redis has had other revocations than this node for 10 s: calls that revoke are answered 202.",
                &self.differs,
            ),
            Family::of(
                Kind::Gauge,
                "fanfare_revocations_unread",
                "1 while no token is taken because revocations could not be read for too long.",
                &self.unread,
            ),
            Family::of(
                Kind::Counter,
                "fanfare_revocation_waits_total",
                "How often deliveries waited after a break of a feed until revocations were read, or for a second in vain.",
                &self.waits,
            ),
            Family::of(
                Kind::Counter,
                "fanfare_commands_held_total",
                "Commands that waited after a break, or after the node stood still, until revocations were read, for a second at the most.",
                &self.commands_held,
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
