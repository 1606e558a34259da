//! What is kept of each second: the measures, and how often which error was told.
//!
//! In: numbers of one second. Out: [`Point`]s that add up to a minute, a quarter of an hour, a window.
//! Pure. A measure has its least and greatest second, and a sum with a weight, from which its mean
//! comes: what is measured now and then (a level) weighs its seconds, what is a mean itself weighs
//! what it is a mean of. So a second in which nothing was answered says nothing of how long answers
//! take.

use crate::telemetry::family::Label as _;
use crate::telemetry::labels::label;
use fanfare_protocol::error::ErrorCode;

label! {
    /// What is measured. Names end in their units.
    Measure, "measure" {
        /// Open sessions.
        Sessions: "sessions",
        /// Sessions that were opened.
        Opened: "sessions_opened_per_s",
        /// Connections and handshakes that found no place: for want of sessions, pace or memory, or
        /// because the node could not serve.
        Refused: "connections_refused_per_s",
        /// Requests to the HTTP API, without those for health and metrics.
        Requests: "requests_per_s",
        /// Commands of sessions.
        Commands: "commands_per_s",
        /// Errors that callers and sessions were told, and callers who gave up.
        Errors: "errors_per_s",
        /// Requests whose callers went away after they had waited for some time.
        GivenUp: "requests_given_up_per_s",
        /// How long requests took.
        RequestMs: "request_ms",
        /// How long commands took.
        CommandMs: "command_ms",
        /// How long it took from a connection to its welcome.
        ConnectMs: "connect_ms",
        /// How long the broker took for a publication.
        PublishMs: "publish_ms",
        /// How long a message took from the feed to the last socket of a turn.
        DeliveryMs: "delivery_ms",
        /// How long a probe took to Redis and back.
        ProbeMs: "probe_ms",
        /// Publications of this node that the broker took.
        Publications: "publications_per_s",
        /// Publications of this node that it did not take.
        PublicationsFailed: "publications_failed_per_s",
        /// Messages that were pushed to sessions.
        Deliveries: "deliveries_per_s",
        /// Bytes that sockets took.
        Written: "bytes_written_per_s",
        /// Topics that sessions have joined, each as often as it is.
        Subscriptions: "subscriptions",
        /// Topics that any session has joined.
        Topics: "topics",
        /// What waits for sockets and workers.
        WaitingBytes: "waiting_bytes",
        /// Resident memory.
        MemoryBytes: "memory_bytes",
        /// What of it holds recent publications and the topics of the broker inside the process.
        CacheBytes: "cache_bytes",
        /// Processor time, of all cores that the process can use.
        CpuPercent: "cpu_percent",
        /// How long workers were at work, of all their time.
        WorkerPercent: "worker_busy_percent",
        /// Reads of recent publications that needed no broker.
        CacheHitPercent: "cache_hit_percent",
        /// Due entries of the queue, in the partitions of this node.
        QueueDue: "queue_due",
        /// Age of the oldest of them.
        QueueOldestMs: "queue_oldest_ms",
    }
}

/// How many there are.
const MEASURES: usize = Measure::QueueOldestMs as usize + 1;
const CODES: usize = ErrorCode::ALL.len();
const TIMES: usize = 2;
const OF_RANGE: usize = 4;
/// What a point is as a row of numbers.
pub(super) const WORDS: usize = TIMES + MEASURES * OF_RANGE + CODES;

/// A measure over some seconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Range {
    /// Of the second in which it was least.
    pub min: f64,
    /// Of the second in which it was greatest.
    pub max: f64,
    /// Value by weight, of all seconds.
    pub sum: f64,
    /// 0: it was not measured.
    pub weight: f64,
}

impl Range {
    const NONE: Self = Self {
        min: f64::INFINITY,
        max: f64::NEG_INFINITY,
        sum: 0.0,
        weight: 0.0,
    };

    /// This value, which weighs so much.
    #[must_use]
    pub fn of(value: f64, weight: f64) -> Self {
        if weight <= 0.0 || !value.is_finite() {
            return Self::NONE;
        }
        Self {
            min: value,
            max: value,
            sum: value * weight,
            weight,
        }
    }

    /// So many in so many seconds.
    #[must_use]
    pub fn rate(count: f64, seconds: f64) -> Self {
        Self::of(count / seconds, seconds)
    }

    /// The mean, where it was measured.
    #[must_use]
    pub fn mean(&self) -> Option<f64> {
        (self.weight > 0.0).then(|| self.sum / self.weight)
    }

    fn add(&mut self, other: &Self) {
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
        self.sum += other.sum;
        self.weight += other.weight;
    }
}

/// What was measured from one time to another.
#[derive(Debug, Clone, PartialEq)]
pub struct Point {
    /// When it begins, in milliseconds since the history began.
    pub begun_ms: u64,
    /// When it ends.
    pub ended_ms: u64,
    ranges: [Range; MEASURES],
    errors: [u64; CODES],
}

impl Point {
    /// Nothing was measured.
    #[must_use]
    pub fn empty(begun_ms: u64, ended_ms: u64) -> Self {
        Self {
            begun_ms,
            ended_ms,
            ranges: [Range::NONE; MEASURES],
            errors: [0; CODES],
        }
    }

    /// How long it is.
    #[must_use]
    pub fn seconds(&self) -> f64 {
        self.ended_ms.saturating_sub(self.begun_ms) as f64 / 1_000.0
    }

    /// A measure.
    #[must_use]
    pub fn range(&self, measure: Measure) -> &Range {
        &self.ranges[measure as usize]
    }

    /// Sets a measure.
    pub fn set(&mut self, measure: Measure, range: Range) {
        self.ranges[measure as usize] = range;
    }

    /// How often this error was told.
    #[must_use]
    pub fn errors(&self, code: ErrorCode) -> u64 {
        self.errors[code.place()]
    }

    /// Sets how often this error was told.
    pub fn set_errors(&mut self, code: ErrorCode, count: u64) {
        self.errors[code.place()] = count;
    }

    /// Adds another time.
    pub fn add(&mut self, other: &Self) {
        self.begun_ms = self.begun_ms.min(other.begun_ms);
        self.ended_ms = self.ended_ms.max(other.ended_ms);
        for (range, more) in self.ranges.iter_mut().zip(&other.ranges) {
            range.add(more);
        }
        for (count, more) in self.errors.iter_mut().zip(&other.errors) {
            *count = count.saturating_add(*more);
        }
    }

    /// As a row.
    pub(super) fn words(&self) -> [u64; WORDS] {
        let mut words = [0; WORDS];
        let (times, rest) = words.split_at_mut(TIMES);
        times.copy_from_slice(&[self.begun_ms, self.ended_ms]);
        let (ranges, errors) = rest.split_at_mut(MEASURES * OF_RANGE);
        for (words, range) in ranges.chunks_exact_mut(OF_RANGE).zip(&self.ranges) {
            let values = [range.min, range.max, range.sum, range.weight];
            words.copy_from_slice(&values.map(f64::to_bits));
        }
        errors.copy_from_slice(&self.errors);
        words
    }

    /// From its row.
    pub(super) fn read(words: &[u64; WORDS]) -> Self {
        let mut point = Self::empty(words[0], words[1]);
        let (ranges, errors) = words[TIMES..].split_at(MEASURES * OF_RANGE);
        for (range, words) in point.ranges.iter_mut().zip(ranges.chunks_exact(OF_RANGE)) {
            let value = |at: usize| f64::from_bits(words[at]);
            *range = Range {
                min: value(0),
                max: value(1),
                sum: value(2),
                weight: value(3),
            };
        }
        point.errors.copy_from_slice(errors);
        point
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_measure_has_its_place_and_its_unit_in_its_name() {
        assert_eq!(Measure::ALL.len(), MEASURES);
        for (place, measure) in Measure::ALL.iter().enumerate() {
            assert_eq!(measure.place(), place);
        }
    }

    #[test]
    fn a_point_is_the_same_as_a_row() {
        let mut point = Point::empty(3, 1_003);
        point.set(Measure::RequestMs, Range::of(2.5, 7.0));
        point.set(Measure::QueueOldestMs, Range::of(9.0, 1.0));
        point.set_errors(ErrorCode::Unavailable, 4);
        point.set_errors(ErrorCode::UpgradeRequired, 5);
        assert_eq!(Point::read(&point.words()), point);
    }

    #[test]
    fn means_weigh_what_they_are_of_and_what_was_not_measured_says_nothing() {
        let second = |at: u64, range: Range| {
            let mut point = Point::empty(1_000 * at, 1_000 * (at + 1));
            point.set(Measure::RequestMs, range);
            point.set_errors(ErrorCode::Internal, at);
            point
        };
        let mut all = second(1, Range::of(10.0, 1.0));
        all.add(&second(2, Range::of(f64::NAN, 5.0)));
        all.add(&second(3, Range::of(2.0, 3.0)));
        let range = all.range(Measure::RequestMs);
        assert_eq!((range.min, range.max, range.mean()), (2.0, 10.0, Some(4.0)));
        assert_eq!(all.range(Measure::Sessions).mean(), None);
        assert_eq!((all.begun_ms, all.ended_ms), (1_000, 4_000));
        assert_eq!(all.errors(ErrorCode::Internal), 6);
    }
}
