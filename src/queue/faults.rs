//! What keeps partitions from being worked off, told once a minute.
//!
//! In: faults of passes, and partitions that no node holds. Out: one log line for each kind of fault, with a
//! partition that has it and how many stand still. A kind is the word of Redis and the role of the key that
//! it speaks of, whichever partition's key that is. That Redis is away is told elsewhere. Owner: the
//! consumer. Bound: [`KINDS_MAX`] kinds, and as many lines within [`AGAIN_AFTER`].

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

/// A fault is told again after so long.
const AGAIN_AFTER: Duration = Duration::from_secs(60);
/// Kinds that are told within that time; of more it says nothing.
const KINDS_MAX: usize = 32;
/// Characters of a kind of which Redis has no word.
const KIND_LENGTH_MAX: usize = 128;

/// Why a partition was not worked off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// For people.
    pub reason: String,
    /// Redis does not answer, or answers nobody.
    pub is_outage: bool,
}

impl Fault {
    /// What Redis said of a partition.
    #[must_use]
    pub fn told(reason: &str) -> Self {
        Self {
            reason: reason.to_owned(),
            is_outage: false,
        }
    }

    /// This node is the home of a partition and cannot hold it.
    pub(super) fn unheld() -> Self {
        Self::told(
            "its home has not had its lease for longer than redis.lease_ms: another node keeps it, or \
             Redis refuses it, which partition_leases_missed tells",
        )
    }
}

/// When each kind was told last.
#[derive(Debug, Default)]
pub struct Faults(BTreeMap<String, Instant>);

impl Faults {
    /// A partition has a fault, and so many stand still. Returns whether that was told.
    pub fn note(&mut self, partition: u32, fault: &Fault, count: usize, now: Instant) -> bool {
        let reason = fault.reason.as_str();
        if fault.is_outage {
            tracing::debug!(
                event = "queue_pass_failed",
                partition,
                reason,
                "a pass over queues failed, it begins again"
            );
            return false;
        }
        let kind = kind(reason);
        let is_recent = |told: &Instant| now < *told + AGAIN_AFTER;
        if self.0.get(&kind).is_some_and(is_recent) {
            return false;
        }
        if self.0.len() >= KINDS_MAX {
            self.0.retain(|_, told| is_recent(told));
            if self.0.len() >= KINDS_MAX {
                return false;
            }
        }
        self.0.insert(kind, now);
        tracing::warn!(
            event = "queue_blocked",
            partition,
            partitions = count.max(1),
            reason,
            "the queue of a partition stands still until this is mended; it is tried again within 5 s"
        );
        true
    }
}

/// The word of Redis in a reason, and the role of the key behind it: as the scripts write it, in brackets at
/// the end.
fn kind(reason: &str) -> String {
    let words = reason.split(|c: char| !c.is_ascii_alphanumeric());
    let is_of_redis =
        |word: &&str| word.len() > 2 && word.bytes().all(|byte| byte.is_ascii_uppercase());
    let key = reason
        .strip_suffix(')')
        .and_then(|all| all.rsplit_once('('));
    match words.into_iter().find(is_of_redis) {
        Some(word) => format!("{word} {}", key.map_or("", |(_, key)| role(key))),
        None => {
            let letters = reason.chars().filter(|c| !c.is_ascii_digit());
            letters.take(KIND_LENGTH_MAX).collect()
        }
    }
}

/// What a key of a partition is there for: `dead` of `ff:q:{7}:dead`, `part` of `ff:part:{7}`.
fn role(key: &str) -> &str {
    let Some((before, behind)) = key.split_once('}') else {
        return "";
    };
    match behind.strip_prefix(':') {
        Some(role) => role,
        None => {
            let name = before.rsplit_once(":{").map_or(before, |(name, _)| name);
            name.rsplit(':').next().unwrap_or_default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WRONG: &str = "WRONGTYPE Operation against a key holding the wrong kind of value";

    #[test]
    fn each_kind_of_fault_is_told_once_a_minute_and_an_outage_not_at_all() {
        let (mut faults, now) = (Faults::default(), Instant::now());
        let wrong = Fault::told("WRONGTYPE");
        assert!(faults.note(1, &wrong, 1, now));
        assert!(!faults.note(2, &wrong, 2, now));
        assert!(faults.note(2, &Fault::told("NOPERM"), 2, now));
        assert!(faults.note(2, &wrong, 2, now + AGAIN_AFTER));
        let outage = Fault {
            is_outage: true,
            ..wrong
        };
        assert!(!faults.note(1, &outage, 1, now + 3 * AGAIN_AFTER));
    }

    #[test]
    fn the_same_fault_of_many_partitions_is_one_kind() {
        let (mut faults, now) = (Faults::default(), Instant::now());
        let mut told = |seconds: u64| {
            let mut count = 0;
            for partition in 0..250 {
                for key in ["q:{N}:dead", "q:{N}:later", "part:{N}"] {
                    let key = key.replace('N', &partition.to_string());
                    let fault = Fault::told(&format!("{WRONG} (ff:{key})"));
                    let now = now + Duration::from_secs(seconds);
                    count += usize::from(faults.note(partition, &fault, 250, now));
                }
            }
            count
        };
        assert_eq!([0, 5, 30, 59, 60].map(&mut told), [3, 0, 0, 0, 3]);
    }

    #[test]
    fn a_kind_is_the_word_of_redis_and_the_role_of_the_key() {
        for (reason, of) in [
            (&format!("{WRONG} (ff:q:{{7}}:dead)")[..], "WRONGTYPE dead"),
            (
                &format!("{WRONG} (ff:q:{{12}}:critical)"),
                "WRONGTYPE critical",
            ),
            (&format!("{WRONG} (ff:part:{{7}})"), "WRONGTYPE part"),
            (
                "Redis cannot be used: NOPERM, give the user what docs say; nothing was done",
                "NOPERM ",
            ),
            ("ERR no id under ff:{7}{a:b}:l", "ERR "),
            (
                "partition 12 was not answered",
                "partition  was not answered",
            ),
        ] {
            assert_eq!(kind(reason), of);
        }
    }

    #[test]
    fn no_more_kinds_are_told_in_a_minute_than_their_bound() {
        let (mut faults, now) = (Faults::default(), Instant::now());
        let mut told = |at: Instant| {
            let kinds = (b'a'..=b'z').flat_map(|one| (b'a'..=b'z').map(move |other| [one, other]));
            let told = kinds.filter(|kind| {
                let fault = Fault::told(&String::from_utf8_lossy(kind));
                faults.note(1, &fault, 1, at)
            });
            told.count()
        };
        assert_eq!(told(now), KINDS_MAX);
        assert_eq!(told(now + AGAIN_AFTER / 2), 0);
        assert_eq!(told(now + AGAIN_AFTER), KINDS_MAX);
        assert_eq!(faults.0.len(), KINDS_MAX);
    }
}
