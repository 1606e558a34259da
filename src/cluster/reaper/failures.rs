//! Reports to the operator what cannot be read or removed.
//!
//! In: each failure, each look without one, and of which partitions this node is the home. Out: a
//! line for each new kind of reason, one when there is none any more, the gauge, and a level for
//! whoever asks how the node does. A partition fails until it was looked through without a failure, or
//! has another home: that its lease is lost mends nothing. Bounds: one entry a partition, and one a
//! kind of reason, which are few.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::fmt;
use std::sync::Arc;

use tokio::sync::watch;
use tracing::{info, warn};

use super::ReapError;
use super::lanes::Remains;
use crate::broker::BrokerError;
use crate::cluster::occupancy_store::OccupancyError;
use crate::cluster::partition_store::PartitionError;
use crate::redis::RedisError;
use crate::telemetry::metrics::Metrics;

/// What was being done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Step {
    /// An index was read.
    Read,
    /// What a dead node left in a topic was removed.
    Clean,
    /// The entries of that were taken out of the index.
    Unindex,
}

/// What failed where.
#[derive(Debug)]
pub(super) struct Failure<'a> {
    pub(super) step: Step,
    pub(super) partition: u32,
    /// What was to be removed, where it was that.
    pub(super) remains: Option<&'a Remains>,
    /// Which server was asked.
    pub(super) server: String,
    pub(super) error: &'a ReapError,
}

impl fmt::Display for Failure<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "partition {}", self.partition)?;
        if let Some(Remains { owner, topic, .. }) = self.remains {
            write!(f, ", {} of {owner}", topic.qualified())?;
        }
        write!(f, ", redis at {}: {}", self.server, self.error)?;
        // The broker's errors have said it.
        match self.error.source() {
            Some(why) => write!(f, ": {why}"),
            None => Ok(()),
        }
    }
}

impl Failure<'_> {
    fn kind(&self) -> Kind {
        (self.step, word(self.error))
    }

    fn warn(&self) {
        let (partition, server) = (self.partition, self.server.as_str());
        let topic = self.remains.map(|remains| remains.topic.qualified());
        let owner = self.remains.map(|remains| remains.owner.to_string());
        let error = self.error as &(dyn Error + 'static);
        match self.step {
            Step::Read => warn!(
                event = "index_reading_failed",
                partition,
                server,
                error,
                "it cannot be read what dead nodes left in a partition, if anything; it is tried again"
            ),
            Step::Clean => warn!(
                event = "reaping_failed",
                partition,
                topic,
                owner,
                server,
                error,
                "what a dead node left in a topic cannot be removed, watchers may see its members; it is tried again"
            ),
            Step::Unindex => warn!(
                event = "index_clearing_failed",
                partition,
                server,
                error,
                "what a dead node left is removed and still stands in the index; it is tried again"
            ),
        }
    }
}

/// What is logged once: the step, and the reason in a word.
type Kind = (Step, &'static str);

/// See the module.
#[derive(Debug)]
pub(super) struct Failures {
    failing: BTreeSet<u32>,
    told: BTreeMap<Kind, String>,
    metrics: Arc<Metrics>,
    shown: watch::Sender<Option<String>>,
}

impl Failures {
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        Self {
            failing: BTreeSet::new(),
            told: BTreeMap::new(),
            metrics,
            shown: watch::channel(None).0,
        }
    }

    /// How many partitions fail, and the first of each kind of reason; `None`: none does.
    pub(super) fn shown(&self) -> watch::Receiver<Option<String>> {
        self.shown.subscribe()
    }

    pub(super) fn failed(&mut self, failure: &Failure<'_>) {
        self.failing.insert(failure.partition);
        if let Entry::Vacant(told) = self.told.entry(failure.kind()) {
            told.insert(failure.to_string());
            failure.warn();
        }
        self.show();
    }

    /// A partition was looked through, and nothing failed.
    pub(super) fn succeeded(&mut self, partition: u32) {
        if self.failing.remove(&partition) && self.show() {
            info!(
                event = "reaping_recovered",
                "every partition that could not be read or cleaned has been since"
            );
        }
    }

    /// Whether any partition fails.
    pub(super) fn are_any(&self) -> bool {
        !self.failing.is_empty()
    }

    /// This node is the home of these alone.
    pub(super) fn retain(&mut self, mine: &BTreeSet<u32>) {
        let before_count = self.failing.len();
        self.failing.retain(|partition| mine.contains(partition));
        if self.failing.len() < before_count && self.show() {
            info!(
                event = "reaping_moved",
                "the partitions that could not be read or cleaned have another home now"
            );
        }
    }

    /// Shows how it is; whether nothing fails any more.
    fn show(&mut self) -> bool {
        let count = self.failing.len();
        self.metrics.control.reaping_failing.set(count as u64);
        if count == 0 {
            self.told.clear();
        }
        let reasons: Vec<_> = self.told.values().map(String::as_str).collect();
        let text = (count > 0).then(|| format!("{count} fail: {}", reasons.join("; ")));
        self.shown.send_if_modified(|shown| {
            let is_changed = *shown != text;
            *shown = text;
            is_changed
        });
        count == 0
    }
}

/// The reason in a word: the one in which Redis refuses, or whether it answered at all.
fn word(error: &ReapError) -> &'static str {
    const AWAY: &str = "away";
    const UNEXPECTED: &str = "unexpected";
    match error {
        ReapError::Partition(PartitionError::Redis(error))
        | ReapError::Occupancy(OccupancyError::Redis(error)) => match error.refusal() {
            Some(refusal) => refusal.word,
            None if matches!(error, RedisError::Failed(_)) => UNEXPECTED,
            None => AWAY,
        },
        ReapError::Members(BrokerError::Refused(refusal) | BrokerError::Broken(refusal)) => {
            refusal.word
        }
        ReapError::Occupancy(OccupancyError::Late)
        | ReapError::Members(
            BrokerError::Unavailable(_) | BrokerError::Unconfirmed(_) | BrokerError::Unknown(_),
        ) => AWAY,
        ReapError::Partition(PartitionError::Unexpected | PartitionError::Refused)
        | ReapError::Occupancy(OccupancyError::Unexpected)
        | ReapError::Members(BrokerError::Unexpected(_)) => UNEXPECTED,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redis::refusal::Refusal;

    struct Bench {
        failures: Failures,
        shown: watch::Receiver<Option<String>>,
    }

    impl Bench {
        fn new() -> Self {
            let failures = Failures::new(Arc::new(Metrics::new(0)));
            let shown = failures.shown();
            Self { failures, shown }
        }

        fn fails(&mut self, step: Step, partition: u32, error: impl Into<ReapError>) {
            let remains = Remains {
                partition,
                entry: "default:t a~1".to_owned(),
                owner: "a~1".parse().unwrap(),
                topic: fanfare_protocol::ids::Topic::from_qualified("default:t").unwrap(),
            };
            self.failures.failed(&Failure {
                step,
                partition,
                remains: Some(&remains).filter(|_| step == Step::Clean),
                server: "h:1".to_owned(),
                error: &error.into(),
            });
        }

        fn gauge(&self) -> u64 {
            self.failures.metrics.control.reaping_failing.get()
        }

        fn told(&self) -> Vec<Kind> {
            self.failures.told.keys().copied().collect()
        }
    }

    fn refused() -> BrokerError {
        BrokerError::Refused(Refusal::of("NOPERM x").unwrap())
    }

    #[test]
    fn each_new_kind_of_reason_is_told_once_and_names_what_failed() {
        let mut bench = Bench::new();
        bench.fails(Step::Clean, 7, BrokerError::Unexpected("WRONGTYPE".into()));
        bench.fails(Step::Clean, 8, BrokerError::Unexpected("WRONGTYPE".into()));
        assert_eq!(bench.told(), [(Step::Clean, "unexpected")]);
        let shown = bench.shown.borrow().clone().unwrap();
        let names = [
            "2 fail: partition 7, ",
            "default:t of a~1",
            "h:1",
            "WRONGTYPE",
        ];
        assert!(names.iter().all(|name| shown.contains(name)), "{shown}");
        for partition in [8, 9, 10] {
            bench.fails(Step::Clean, partition, refused());
            bench.fails(Step::Read, partition, PartitionError::Unexpected);
        }
        let kinds = [
            (Step::Read, "unexpected"),
            (Step::Clean, "NOPERM"),
            (Step::Clean, "unexpected"),
        ];
        assert_eq!((bench.told(), bench.gauge()), (kinds.to_vec(), 4));
    }

    #[test]
    fn a_partition_fails_until_it_was_looked_through_or_has_another_home() {
        let mut bench = Bench::new();
        for partition in [7, 8] {
            bench.fails(Step::Read, partition, PartitionError::Unexpected);
        }
        // Its lease may be lost meanwhile; this node is to have it again.
        bench.failures.retain(&[7, 8].into());
        assert_eq!(bench.gauge(), 2);
        bench.failures.succeeded(7);
        bench.failures.succeeded(6);
        assert_eq!((bench.gauge(), bench.told().len()), (1, 1));
        bench.failures.retain(&[7].into());
        assert_eq!((bench.gauge(), bench.told().len()), (0, 0));
        assert_eq!(*bench.shown.borrow(), None);
        bench.fails(Step::Read, 7, PartitionError::Unexpected);
        assert_eq!(bench.told().len(), 1, "it begins anew");
    }
}
