//! The instruments of the durable queue.
//!
//! In: the consumer counts, and tells its figures once a second. Out: their lines in `/metrics`. Of
//! figures each node tells those of the partitions that it holds, so that they add up to the cluster's.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::counter::Counter;

/// The priorities in the order in which figures are told.
const PRIORITIES: [&str; 4] = ["critical", "high", "normal", "low"];
/// The reasons of dead letters.
const REASONS: [&str; 6] = [
    "bad_entry",
    "wrong_partition",
    "too_large",
    "expired",
    "failed",
    "crashed",
];
/// Why entries were refused before the broker was asked.
const REFUSALS: [&str; 3] = ["capacity", "memory", "invalid"];
/// The shortest of a histogram's bounds, in microseconds; each is twice the one before.
const SHORTEST_US: u64 = 250;
/// How many bounds there are: the longest is 262.144 s, since a backlog may be older than minutes.
const BOUNDS: usize = 21;

/// Durations by their length. The cells may be written by any thread.
#[derive(Debug, Default)]
pub struct Histogram {
    /// Not above the bound of the same place and above the one before; the last: above all.
    cells: [AtomicU64; BOUNDS + 1],
    sum_us: AtomicU64,
}

impl Histogram {
    /// Counts one.
    pub fn count(&self, duration: Duration) {
        let us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let is_within = |place: &usize| us <= SHORTEST_US << place;
        let place = (0..BOUNDS).find(is_within).unwrap_or(BOUNDS);
        self.cells[place].fetch_add(1, Relaxed);
        self.sum_us.fetch_add(us, Relaxed);
    }

    fn render(&self, out: &mut String, name: &str, help: &str) {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} histogram");
        let mut count = 0;
        for (place, cell) in self.cells.iter().enumerate() {
            count += cell.load(Relaxed);
            let _ = match place {
                BOUNDS => writeln!(out, "{name}_bucket{{le=\"+Inf\"}} {count}"),
                _ => {
                    let bound = seconds(SHORTEST_US << place);
                    writeln!(out, "{name}_bucket{{le=\"{bound}\"}} {count}")
                }
            };
        }
        let sum = seconds(self.sum_us.load(Relaxed));
        let _ = writeln!(out, "{name}_sum {sum}\n{name}_count {count}");
    }
}

#[expect(clippy::cast_precision_loss)]
fn seconds(us: u64) -> f64 {
    us as f64 / 1e6
}

/// Why an entry was refused before the broker was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryRefusal {
    /// `queue.capacity`.
    Capacity,
    /// Redis' memory.
    Memory,
    /// What it says.
    Invalid,
}

/// See the module.
#[derive(Debug, Default)]
pub struct QueueMetrics {
    /// Entries that the API put into the queue.
    pub enqueued: Counter,
    /// Entries that had been enqueued before under the same key.
    pub repeated: Counter,
    /// Entries that were refused before the broker was asked, by reason.
    refused: [Counter; REFUSALS.len()],
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
    buried: [Counter; REASONS.len()],
    depth: [Counter; 4],
    oldest_ms: [Counter; 4],
    /// From acceptance, or from when an entry was due, to its publication.
    pub wait: Histogram,
}

impl QueueMetrics {
    /// So many entries were refused for this reason.
    pub fn count_refused(&self, why: EntryRefusal, count: u64) {
        self.refused[why as usize].add(count);
    }

    /// An entry was put aside for this reason.
    pub fn count_dead(&self, reason: &str) {
        if let Some(place) = REASONS.iter().position(|known| *known == reason) {
            self.buried[place].add(1);
        }
    }

    /// What waits now, by priority.
    pub fn tell(&self, depth: &[u64; 4], oldest_ms: &[u64; 4]) {
        for place in 0..PRIORITIES.len() {
            self.depth[place].set(depth[place]);
            self.oldest_ms[place].set(oldest_ms[place]);
        }
    }

    /// Appends its lines.
    pub fn render(&self, out: &mut String) {
        let of_priorities =
            |out: &mut String, name, help, cells: &[Counter; 4], show: fn(u64) -> f64| {
                head(out, name, "gauge", help);
                for (priority, cell) in PRIORITIES.iter().zip(cells) {
                    let value = show(cell.get());
                    let _ = writeln!(out, "{name}{{priority=\"{priority}\"}} {value}");
                }
            };
        #[expect(clippy::cast_precision_loss)]
        let plain = |value: u64| value as f64;
        let name = "fanfare_queue_depth";
        let help =
            "Entries of the durable queue that are due, in the partitions that this node holds.";
        of_priorities(out, name, help, &self.depth, plain);
        let name = "fanfare_queue_oldest_seconds";
        let help = "Age of the oldest of them; 0 where none waits.";
        of_priorities(out, name, help, &self.oldest_ms, |ms| {
            seconds(ms.saturating_mul(1_000))
        });
        let counters = self.counters().into_iter();
        let counters = counters.map(|(name, help, cell)| (name, "counter", help, cell));
        let gauges = self.gauges().into_iter();
        let gauges = gauges.map(|(name, help, cell)| (name, "gauge", help, cell));
        for (name, kind, help, cell) in gauges.chain(counters) {
            head(out, name, kind, help);
            let _ = writeln!(out, "{name} {}", cell.get());
        }
        let name = "fanfare_queue_buried_total";
        head(out, name, "counter", "Entries that became dead letters.");
        for (reason, cell) in REASONS.iter().zip(&self.buried) {
            let _ = writeln!(out, "{name}{{reason=\"{reason}\"}} {}", cell.get());
        }
        let name = "fanfare_queue_refused_total";
        let help = "Entries that the API refused before the queue was asked; a body that cannot be read counts once.";
        head(out, name, "counter", help);
        for (reason, cell) in REFUSALS.iter().zip(&self.refused) {
            let _ = writeln!(out, "{name}{{reason=\"{reason}\"}} {}", cell.get());
        }
        let help = "From the acceptance of an entry, or from when it was due, to its publication.";
        self.wait.render(out, "fanfare_queue_wait_seconds", help);
    }

    fn gauges(&self) -> [(&'static str, &'static str, &Counter); 6] {
        [
            (
                "fanfare_queue_blocked_partitions",
                "Partitions of this node whose queues stand still, because Redis is away or refuses; what waits there is told as it was seen last.",
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
                "This node's part of queue.capacity, by the partitions that it holds: of all nodes together, so many entries may wait in the cluster.",
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

fn head(out: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_counted_in_every_bucket_from_theirs_on() {
        let histogram = Histogram::default();
        for ms in [0, 1, 9_000, 200_000, 1_000_000] {
            histogram.count(Duration::from_millis(ms));
        }
        let mut out = String::new();
        histogram.render(&mut out, "h", "Help.");
        for line in [
            "# TYPE h histogram",
            "h_bucket{le=\"0.00025\"} 1",
            "h_bucket{le=\"0.0005\"} 1",
            "h_bucket{le=\"0.001\"} 2",
            "h_bucket{le=\"8.192\"} 2",
            "h_bucket{le=\"16.384\"} 3",
            "h_bucket{le=\"131.072\"} 3",
            "h_bucket{le=\"262.144\"} 4",
            "h_bucket{le=\"+Inf\"} 5",
            "h_sum 1209.001",
            "h_count 5",
        ] {
            assert!(out.lines().any(|other| other == line), "{line}: {out}");
        }
    }

    #[test]
    fn figures_are_told_by_priority_and_reasons_by_name() {
        let metrics = QueueMetrics::default();
        metrics.tell(&[1, 0, 0, 7], &[1_500, 0, 0, 0]);
        metrics.count_dead("expired");
        metrics.count_refused(EntryRefusal::Memory, 3);
        let mut out = String::new();
        metrics.render(&mut out);
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
