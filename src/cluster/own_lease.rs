//! How long a node's own lease lasts while Redis takes no writes: pure.
//!
//! In: what is in Redis about the lease, read in one step. Out: for how long nobody can be told
//! that it has ended. It follows from `scripts/heartbeat.lua`, which says what the next heartbeat
//! that is answered will make of all leases. Owns nothing.

use std::time::Duration;

/// A node's own lease as it is in Redis, in milliseconds by the clock of Redis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OwnLease {
    /// When it was read.
    pub now_ms: u64,
    /// When the lease ends. `None`: there is none, or a node was told that it has ended.
    pub end_ms: Option<u64>,
    /// When the last heartbeat of any node was answered.
    pub last_ms: u64,
}

impl OwnLease {
    /// Reads what `own_lease.lua` answers. `None`: somebody else has the name, or has this process
    /// under another incarnation, or it is not what the script answers.
    pub(super) fn read(answer: &[String], mine: u64, holder: &str) -> Option<Self> {
        let [now, end, held_by, last] = answer else {
            return None;
        };
        let mut held_by = held_by.split(' ');
        let is_own = held_by.next() == Some(&mine.to_string()) && held_by.next() == Some(holder);
        let end: Option<i64> = end.parse().ok();
        Some(Self {
            now_ms: now.parse().ok()?,
            // Negative where it was seen to end.
            end_ms: end.and_then(|end| end.try_into().ok()),
            last_ms: last.parse().ok()?,
        })
        .filter(|_| is_own)
    }

    /// For how long the lease surely lasts from the reading on, at most `lease`; zero where it may
    /// be over.
    pub(super) fn left(&self, lease: Duration) -> Duration {
        let Some(end_ms) = self.end_ms else {
            return Duration::ZERO;
        };
        let unanswered = Duration::from_millis(self.now_ms.saturating_sub(self.last_ms));
        if unanswered > lease / 2 {
            // Nobody was answered for so long that the next heartbeat which is extends all leases
            // to a whole one.
            return lease;
        }
        // Where the clock has stepped back, the lease moves back with it.
        let left_ms = end_ms.saturating_sub(self.now_ms.max(self.last_ms));
        Duration::from_millis(left_ms).min(lease)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_millis(5_000);

    fn left(now_ms: u64, end_ms: Option<u64>, last_ms: u64) -> u128 {
        let own = OwnLease {
            now_ms,
            end_ms,
            last_ms,
        };
        own.left(LEASE).as_millis()
    }

    #[test]
    fn a_lease_lasts_whole_where_nobody_was_answered_for_long() {
        assert_eq!(left(20_000, Some(15_000), 17_499), 5_000);
        assert_eq!(left(90_000, Some(15_000), 14_000), 5_000);
    }

    #[test]
    fn a_lease_lasts_its_rest_where_others_were_answered() {
        assert_eq!(left(20_000, Some(21_000), 17_500), 1_000);
        assert_eq!(left(20_000, Some(24_500), 19_500), 4_500);
        assert_eq!(left(20_000, Some(20_000), 17_500), 0);
        assert_eq!(left(20_000, Some(15_000), 19_000), 0, "it is over");
        assert_eq!(left(90_000, None, 14_000), 0, "somebody knows that");
    }

    #[test]
    fn a_lease_moves_back_with_the_clock() {
        assert_eq!(left(10_000, Some(24_000), 20_000), 4_000);
        assert_eq!(left(10_000, Some(90_000), 20_000), 5_000, "at most a lease");
    }

    #[test]
    fn the_lease_of_another_process_or_life_is_not_read() {
        let read = |words: [&str; 4]| OwnLease::read(&words.map(str::to_owned), 7, "ab");
        let own = OwnLease {
            now_ms: 20,
            end_ms: Some(24),
            last_ms: 19,
        };
        assert_eq!(read(["20", "24", "7 ab 3 18", "19"]), Some(own));
        assert_eq!(
            read(["20", "24", "7 ab", "19"]),
            Some(own),
            "another release"
        );
        let over = Some(OwnLease {
            end_ms: None,
            ..own
        });
        assert_eq!(read(["20", "-24", "7 ab", "19"]), over);
        assert_eq!(read(["20", "", "7 ab", "19"]), over);
        for strange in [
            ["20", "24", "7 cd", "19"],
            ["20", "24", "8 ab", "19"],
            ["20", "24", "", "19"],
            ["20", "24", "7 ab", ""],
        ] {
            assert_eq!(read(strange), None, "{strange:?}");
        }
    }
}
