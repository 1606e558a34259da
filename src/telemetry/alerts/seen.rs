//! What alerts are judged by: a few numbers of the last minutes.
//!
//! In: the performance history, and what else the node knows. Out: of each alert its value, or none
//! where there is too little to judge by. Pure.

use std::time::{Duration, Instant};

use super::{Alert, FAILURES};
use crate::telemetry::history::History;
use crate::telemetry::history::measure::{Measure, Point, Range};

/// Over which time errors are counted.
const ERRORS_OVER: Duration = Duration::from_secs(900);
/// Over which time answers and those who come are looked at.
const TRAFFIC_OVER: Duration = Duration::from_secs(300);
/// Over which time memory and processor are.
const USE_OVER: Duration = Duration::from_secs(60);
/// Of fewer than this a part or a mean says nothing: one request of two that fails at night is no
/// alert.
const COUNT_MIN: f64 = 20.0;
/// Fewer seconds of memory and processor say nothing: what is told is the mean of a minute, of which one
/// long second may reach out.
const USE_SECONDS_MIN: f64 = 50.0;

/// See the module.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// Requests and commands, and how many of them failed; those too whose callers gave up.
    calls: f64,
    failed: f64,
    /// Publications that the broker was to take, and how many it did not.
    publications: f64,
    unpublished: f64,
    /// Of requests and of commands: how many, and their mean time.
    responses_ms: [(f64, f64); 2],
    memory_percent: Option<f64>,
    cpu_percent: Option<f64>,
    /// Those who came, and how many of them were turned away.
    came: f64,
    refused: f64,
    queue_oldest: Duration,
    /// By how much memory grows, where that is suspected to be a leak.
    growth_percent: Option<f64>,
    /// The longest piece of work.
    longest: Duration,
}

/// What the history does not know.
#[derive(Debug, Clone, Copy, Default)]
pub struct Known {
    /// Bytes of memory that the process can have; 0: not known.
    pub memory_bytes_max: u64,
    /// Age of the oldest due entry.
    pub queue_oldest: Duration,
    /// By how much memory grows, where that is suspected to be a leak.
    pub growth_percent: Option<f64>,
    /// The longest piece of work that ended since the last look, or hangs.
    pub longest: Duration,
}

impl Seen {
    /// Of the history at this instant.
    #[must_use]
    pub fn of(history: &History, known: Known, now: Instant) -> Self {
        let recent = |length| history.recent(length, now);
        let errors = recent(ERRORS_OVER);
        let traffic = recent(TRAFFIC_OVER);
        let used = recent(USE_OVER);
        let sum = |point: &Option<Point>, measure| {
            let point = point.as_ref();
            point.map_or(0.0, |point| point.range(measure).sum)
        };
        let failed = errors.as_ref().map_or(0, |point| {
            let told = FAILURES.iter().map(|code| point.errors(*code));
            told.sum()
        });
        let response = |measure| {
            let range = traffic.as_ref().map(|point| *point.range(measure));
            let mean = range.as_ref().and_then(Range::mean).unwrap_or(0.0);
            (range.map_or(0.0, |range| range.weight), mean)
        };
        let level = |measure| {
            let range = used.as_ref()?.range(measure);
            range.mean().filter(|_| range.weight >= USE_SECONDS_MIN)
        };
        let given_up = sum(&errors, Measure::GivenUp);
        let unpublished = sum(&errors, Measure::PublicationsFailed);
        let refused = sum(&traffic, Measure::Refused);
        let memory_max = Some(known.memory_bytes_max).filter(|bytes| *bytes > 0);
        Self {
            calls: sum(&errors, Measure::Requests) + sum(&errors, Measure::Commands),
            failed: failed as f64 + given_up,
            publications: sum(&errors, Measure::Publications) + unpublished,
            unpublished,
            responses_ms: [Measure::RequestMs, Measure::CommandMs].map(response),
            memory_percent: level(Measure::MemoryBytes)
                .zip(memory_max)
                .map(|(bytes, most)| 100.0 * bytes / most as f64),
            cpu_percent: level(Measure::CpuPercent),
            came: sum(&traffic, Measure::Opened) + refused,
            refused,
            queue_oldest: known.queue_oldest,
            growth_percent: known.growth_percent,
            longest: known.longest,
        }
    }

    /// The value by which an alert is judged; `None`: there is too little to say.
    #[must_use]
    pub fn value(&self, alert: Alert) -> Option<f64> {
        let part = |of: f64, all: f64| (all >= COUNT_MIN).then(|| 100.0 * of / all);
        match alert {
            Alert::ErrorRate => {
                // A request that failed in part is one, however many publications it had.
                let of_calls = part(self.failed, self.calls);
                let of_publications = part(self.unpublished, self.publications);
                of_calls.into_iter().chain(of_publications).reduce(f64::max)
            }
            Alert::MeanResponse => {
                let enough = self
                    .responses_ms
                    .iter()
                    .filter(|(count, _)| *count >= COUNT_MIN);
                enough.map(|(_, mean)| *mean).reduce(f64::max)
            }
            Alert::MemoryHigh => self.memory_percent,
            Alert::CpuHigh => self.cpu_percent,
            Alert::ConnectionsRefused => part(self.refused, self.came),
            Alert::QueueAge => Some(self.queue_oldest.as_secs_f64()),
            Alert::MemoryGrowing => self.growth_percent,
            Alert::ProcessingSlow => Some(self.longest.as_secs_f64()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fanfare_protocol::error::ErrorCode;

    const MIB: f64 = 1024.0 * 1024.0;

    /// Of a history of so many seconds that are all like this.
    fn seen(seconds: u64, known: Known, fill: impl Fn(&mut Point)) -> Seen {
        let begun_at = Instant::now();
        let (history, mut recorder) = History::begin(begun_at);
        for second in 0..seconds {
            let mut point = Point::empty(second * 1_000, (second + 1) * 1_000);
            fill(&mut point);
            recorder.record(&point);
        }
        Seen::of(&history, known, begun_at + Duration::from_secs(seconds))
    }

    fn known() -> Known {
        Known {
            memory_bytes_max: 1 << 30,
            ..Known::default()
        }
    }

    /// A limit of the defaults, and of an alert a history above it and two that are not.
    fn is_above(alert: Alert, limit: f64, seen: &Seen) -> bool {
        seen.value(alert).is_some_and(|value| value > limit)
    }

    fn failing(requests: f64, failed: u64, code: ErrorCode) -> impl Fn(&mut Point) {
        move |point| {
            point.set(Measure::Requests, Range::rate(requests, 1.0));
            point.set(Measure::Commands, Range::rate(1.0, 1.0));
            point.set_errors(code, failed);
        }
    }

    #[test]
    fn more_than_a_twentieth_of_fifteen_minutes_that_failed_is_an_error_rate() {
        let above = |seen| is_above(Alert::ErrorRate, 5.0, &seen);
        assert!(above(seen(
            900,
            known(),
            failing(9.0, 1, ErrorCode::Unavailable)
        )));
        assert!(above(seen(
            20,
            known(),
            failing(9.0, 1, ErrorCode::Internal)
        )));
        assert!(!above(seen(
            900,
            known(),
            failing(39.0, 1, ErrorCode::Unavailable)
        )));
        // What callers do wrong is theirs.
        assert!(!above(seen(
            900,
            known(),
            failing(9.0, 9, ErrorCode::BadRequest)
        )));
        // One of two at night.
        assert!(!above(seen(
            1,
            known(),
            failing(1.0, 1, ErrorCode::Unavailable)
        )));
        assert!(!above(seen(0, known(), |_| ())));
    }

    #[test]
    fn callers_who_give_up_and_publications_that_fail_inside_of_requests_are_an_error_rate() {
        let value = |measure, count| {
            let seen = seen(60, known(), |point| {
                point.set(Measure::Requests, Range::rate(10.0, 1.0));
                point.set(Measure::Publications, Range::rate(30.0, 1.0));
                point.set(measure, Range::rate(count, 1.0));
            });
            seen.value(Alert::ErrorRate).map(f64::round)
        };
        assert_eq!(value(Measure::GivenUp, 2.0), Some(20.0));
        assert_eq!(value(Measure::PublicationsFailed, 10.0), Some(25.0));
        assert_eq!(value(Measure::Deliveries, 10.0), Some(0.0));
        // A batch a minute is few requests and many publications.
        let batches = seen(60, known(), |point| {
            point.set(Measure::PublicationsFailed, Range::rate(1.0, 1.0));
        });
        assert_eq!(batches.value(Alert::ErrorRate), Some(100.0));
    }

    #[test]
    fn a_mean_of_more_than_a_second_of_requests_or_of_commands_is_slow() {
        let timed =
            |measure, ms, count| move |point: &mut Point| point.set(measure, Range::of(ms, count));
        let above = |seen| is_above(Alert::MeanResponse, 1_000.0, &seen);
        for measure in [Measure::RequestMs, Measure::CommandMs] {
            assert!(above(seen(60, known(), timed(measure, 1_200.0, 1.0))));
            assert!(!above(seen(60, known(), timed(measure, 900.0, 100.0))));
            assert!(
                !above(seen(3, known(), timed(measure, 9_000.0, 1.0))),
                "too few"
            );
        }
        assert!(!above(seen(
            60,
            known(),
            timed(Measure::ConnectMs, 9_000.0, 9.0)
        )));
        // Many commands that are quick hide no requests that are slow.
        let both = seen(60, known(), |point| {
            point.set(Measure::RequestMs, Range::of(2_000.0, 1.0));
            point.set(Measure::CommandMs, Range::of(1.0, 10_000.0));
        });
        assert!(above(both));
    }

    #[test]
    fn memory_and_processor_are_high_above_four_fifths_for_a_minute() {
        let used = |alert, percent: f64, seconds| {
            let seen = seen(seconds, known(), |point| {
                point.set(Measure::MemoryBytes, Range::of(percent * 10.24 * MIB, 1.0));
                point.set(Measure::CpuPercent, Range::of(percent, 1.0));
            });
            is_above(alert, 80.0, &seen)
        };
        for alert in [Alert::MemoryHigh, Alert::CpuHigh] {
            assert!(used(alert, 85.0, 60), "{alert:?}");
            assert!(!used(alert, 75.0, 60), "{alert:?}");
            assert!(!used(alert, 99.0, 40), "{alert:?}: a start is no minute");
        }
        let without_limit = seen(60, Known::default(), |point| {
            point.set(Measure::MemoryBytes, Range::of(1e12, 1.0));
        });
        assert_eq!(without_limit.value(Alert::MemoryHigh), None);
    }

    #[test]
    fn more_than_a_tenth_of_those_who_come_and_are_turned_away_are_refused() {
        let came = |seconds, opened: f64, refused: f64| {
            let seen = seen(seconds, known(), |point| {
                point.set(Measure::Opened, Range::rate(opened, 1.0));
                point.set(Measure::Refused, Range::rate(refused, 1.0));
            });
            is_above(Alert::ConnectionsRefused, 10.0, &seen)
        };
        assert!(came(60, 8.0, 2.0));
        assert!(!came(60, 19.0, 1.0));
        assert!(!came(1, 0.0, 9.0), "too few");
        assert!(!came(60, 0.0, 0.0));
    }

    #[test]
    fn age_growth_and_the_longest_work_are_told_as_they_are() {
        let with = |known: Known| seen(1, known, |_| ());
        let seconds = Duration::from_secs;
        let old = |age| Known {
            queue_oldest: seconds(age),
            ..Known::default()
        };
        assert!(is_above(Alert::QueueAge, 60.0, &with(old(61))));
        assert!(!is_above(Alert::QueueAge, 60.0, &with(old(59))));
        let long = |took| Known {
            longest: seconds(took),
            ..Known::default()
        };
        assert!(is_above(Alert::ProcessingSlow, 30.0, &with(long(31))));
        assert!(!is_above(Alert::ProcessingSlow, 30.0, &with(long(29))));
        let grows = |percent| Known {
            growth_percent: percent,
            ..Known::default()
        };
        assert!(is_above(
            Alert::MemoryGrowing,
            10.0,
            &with(grows(Some(12.0)))
        ));
        assert!(!is_above(Alert::MemoryGrowing, 10.0, &with(grows(None))));
    }
}
