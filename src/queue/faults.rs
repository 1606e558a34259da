//! What keeps partitions from being worked off, told once a minute.
//!
//! In: faults of passes. Out: one log line for each kind of fault, with a partition that has it and how
//! many stand still. That Redis is away is told elsewhere. Owner: the consumer. Bound: [`KINDS_MAX`].

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

/// A fault is told again after so long.
const AGAIN_AFTER: Duration = Duration::from_secs(60);
/// Faults that are known apart; of more, the one told longest ago is forgotten.
const KINDS_MAX: usize = 64;

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
}

/// See the module.
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
        let told = self.0.get(reason).copied();
        if told.is_some_and(|told| now < told + AGAIN_AFTER) {
            return false;
        }
        if told.is_none() && self.0.len() >= KINDS_MAX {
            let oldest = self.0.iter().min_by_key(|(_, told)| **told);
            if let Some(oldest) = oldest.map(|(reason, _)| reason.clone()) {
                self.0.remove(&oldest);
            }
        }
        self.0.insert(fault.reason.clone(), now);
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

#[cfg(test)]
mod tests {
    use super::*;

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
    fn no_more_kinds_are_known_than_their_bound() {
        let (mut faults, now) = (Faults::default(), Instant::now());
        for number in 0..3 * KINDS_MAX {
            assert!(faults.note(1, &Fault::told(&number.to_string()), 1, now));
        }
        assert_eq!(faults.0.len(), KINDS_MAX);
    }
}
