//! The instruments of the durable queue.
//!
//! In: the consumer counts, and tells its figures once a second. Out: their lines in `/metrics`. Of
//! figures each node tells those of the partitions that it holds, so that they add up to the cluster's.

use std::time::Duration;

use super::counter::{Counter, Longest, Seconds};
use super::family::{Family, Kind, Label as _, Table};
use super::histogram::LongHistogram;
use super::labels::label;
use fanfare_protocol::ids::Priority;

label! {
    /// Why an entry was put aside.
    DeadReason, "reason" {
        /// It cannot be read.
        BadEntry: "bad_entry",
        /// It stands in another partition's stream.
        WrongPartition: "wrong_partition",
        /// Its data is too long.
        TooLarge: "too_large",
        /// It was not moved in its time.
        Expired: "expired",
        /// Its topic cannot be written.
        Failed: "failed",
        /// The node ended whenever it tried.
        Crashed: "crashed",
        /// Its app is not known.
        UnknownApp: "unknown_app",
    }
}

label! {
    /// Why an entry was refused before the broker was asked.
    EntryRefusal, "reason" {
        /// `queue.capacity`.
        Capacity: "capacity",
        /// Redis' memory.
        Memory: "memory",
        /// What it says.
        Invalid: "invalid",
    }
}

/// See the module.
#[derive(Debug, Default)]
pub struct QueueMetrics {
    /// Entries that the API put into the queue.
    pub enqueued: Counter,
    /// Entries that had been enqueued before under the same key.
    pub repeated: Counter,
    /// Entries that were refused before the broker was asked, by reason.
    refused: Table<EntryRefusal, Counter>,
    /// Dead letters that became entries again.
    pub redriven: Counter,
    /// Dead letters that the API dropped.
    pub dropped: Counter,
    /// Entries that were published.
    pub published: Counter,
    /// Entries that a move did not find, because another had taken them.
    pub gone: Counter,
    /// Passes that were given up.
    pub given_up: Counter,
    /// Dead letters that made room for newer ones.
    pub dead_dropped: Counter,
    /// Passes on their way.
    pub workers: Counter,
    /// Entries that are to come later.
    pub delayed: Counter,
    /// Dead letters.
    pub dead: Counter,
    /// The part of the depth that more nodes would work off.
    pub pressure: Counter,
    /// This node's part of `queue.capacity`.
    pub capacity: Counter,
    /// Partitions whose queues cannot be worked off, for what Redis says.
    pub blocked: Counter,
    /// Entries put aside, by reason.
    buried: Table<DeadReason, Counter>,
    depth: Table<Priority, Counter>,
    oldest: Table<Priority, Seconds>,
    /// From acceptance, or from when an entry was due, to its publication.
    pub wait: LongHistogram,
    /// The longest pass.
    pub longest: Longest,
}

impl QueueMetrics {
    /// So many entries were refused for this reason.
    pub fn count_refused(&self, why: EntryRefusal, count: u64) {
        self.refused.of(why).add(count);
    }

    /// An entry was put aside for this reason.
    pub fn count_dead(&self, reason: &str) {
        let mut reasons = DeadReason::ALL.iter();
        if let Some(known) = reasons.find(|known| known.word() == reason) {
            self.buried.of(*known).add(1);
        }
    }

    /// What waits now, by priority, the most urgent first.
    pub fn tell(&self, depth: &[u64; 4], oldest_ms: &[u64; 4]) {
        for (priority, (depth, oldest_ms)) in Priority::ALL.iter().zip(depth.iter().zip(oldest_ms))
        {
            self.depth.of(*priority).set(*depth);
            self.oldest
                .of(*priority)
                .set(Duration::from_millis(*oldest_ms));
        }
    }

    /// Entries that are due.
    #[must_use]
    pub fn due(&self) -> u64 {
        self.depth.cells().map(Counter::get).sum()
    }

    /// Age of the oldest of them.
    #[must_use]
    pub fn oldest(&self) -> Duration {
        self.oldest
            .cells()
            .map(Seconds::get)
            .max()
            .unwrap_or_default()
    }

    /// All of them.
    #[must_use]
    pub fn families(&self) -> Vec<Family> {
        let mut all = vec![
            Family::of(
                Kind::Gauge,
                "fanfare_queue_depth",
                "Entries of the durable queue that are due, in the partitions that this node holds; while Redis is away also in those that it held, as seen last.",
                &self.depth,
            ),
            Family::of(
                Kind::Gauge,
                "fanfare_queue_oldest_seconds",
                "Age of the oldest of them; 0 where none waits.",
                &self.oldest,
            ),
        ];
        let plain = |kind, (name, help, cell)| Family::of(kind, name, help, cell);
        let gauges = self.gauges().into_iter();
        all.extend(gauges.map(|row| plain(Kind::Gauge, row)));
        let counters = self.counters().into_iter();
        all.extend(counters.map(|row| plain(Kind::Counter, row)));
        all.push(Family::of(
            Kind::Counter,
            "fanfare_queue_buried_total",
            "Entries that became dead letters.",
            &self.buried,
        ));
        all.push(Family::of(
            Kind::Counter,
            "fanfare_queue_refused_total",
            "Entries that the API refused before the queue was asked; a body that cannot be read counts once.",
            &self.refused,
        ));
        all.push(Family::of(
            Kind::Histogram,
            "fanfare_queue_wait_seconds",
            "From the acceptance of an entry, or from when it was due, to its publication.",
            &self.wait,
        ));
        all
    }

    fn gauges(&self) -> [(&'static str, &'static str, &Counter); 6] {
        [
            (
                "fanfare_queue_blocked_partitions",
                "Partitions whose queues stand still, because Redis is away or refuses: those of this node, and those whose lease it lost while Redis was away; what waits there is told as it was seen last.",
                &self.blocked,
            ),
            (
                "fanfare_queue_delayed",
                "Entries that are to come later, in the partitions that this node holds.",
                &self.delayed,
            ),
            (
                "fanfare_queue_dead",
                "Dead letters in the partitions that this node holds.",
                &self.dead,
            ),
            (
                "fanfare_queue_capacity",
                "This node's part of queue.capacity, by the partitions that it holds or, while Redis is away, held: of all nodes together, so many entries may wait in the cluster.",
                &self.capacity,
            ),
            (
                "fanfare_queue_pressure",
                "The part of the depth that more nodes would work off; 0 while Redis is away.",
                &self.pressure,
            ),
            (
                "fanfare_queue_workers",
                "Passes over queues on their way.",
                &self.workers,
            ),
        ]
    }

    fn counters(&self) -> [(&'static str, &'static str, &Counter); 8] {
        [
            (
                "fanfare_queue_enqueued_total",
                "Entries that the API put into the queue.",
                &self.enqueued,
            ),
            (
                "fanfare_queue_repeated_total",
                "Entries that had been enqueued before under the same idempotency key.",
                &self.repeated,
            ),
            (
                "fanfare_queue_redriven_total",
                "Dead letters that became entries again.",
                &self.redriven,
            ),
            (
                "fanfare_queue_dropped_total",
                "Dead letters that the API dropped.",
                &self.dropped,
            ),
            (
                "fanfare_queue_published_total",
                "Entries that were published.",
                &self.published,
            ),
            (
                "fanfare_queue_gone_total",
                "Entries that a move did not find: a call whose answer was lost had moved them, or another node.",
                &self.gone,
            ),
            (
                "fanfare_queue_given_up_total",
                "Passes that were not back after 30 seconds.",
                &self.given_up,
            ),
            (
                "fanfare_queue_dead_dropped_total",
                "Dead letters that made room for newer ones.",
                &self.dead_dropped,
            ),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::text::{self, TextForm};

    #[test]
    fn figures_are_told_by_priority_and_reasons_by_name() {
        let metrics = QueueMetrics::default();
        metrics.tell(&[1, 0, 0, 7], &[1_500, 0, 0, 0]);
        metrics.count_dead("expired");
        metrics.count_refused(EntryRefusal::Memory, 3);
        let out = text::write(&metrics.families(), TextForm::Prometheus);
        for line in [
            "fanfare_queue_depth{priority=\"low\"} 7",
            "fanfare_queue_oldest_seconds{priority=\"critical\"} 1.5",
            "fanfare_queue_buried_total{reason=\"expired\"} 1",
            "fanfare_queue_buried_total{reason=\"failed\"} 0",
            "fanfare_queue_refused_total{reason=\"capacity\"} 0",
            "fanfare_queue_refused_total{reason=\"memory\"} 3",
        ] {
            assert!(out.lines().any(|other| other == line), "{line}: {out}");
        }
    }
}
