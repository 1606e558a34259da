//! Whether the memory of a node grows and goes on growing.
//!
//! In: memory, and what needs it, over time, the oldest first. Out: a [`Growth`] with its reason. Pure.
//! What holds caches, and what waits for sockets, is taken off before, and the first quarter of an hour of a node is left out: a node
//! that has just started fills what it keeps anyway. A straight line of the least squares goes
//! through what is left, and growth is suspected to be a leak where
//!
//! 1. there is enough of it to say so: an hour, or a day for what is slow;
//! 2. the line rises by more than the limit, a part of the mean, in an hour or a day, and by
//!    [`BYTES_MIN`] from end to end;
//! 3. it still rises so in its last third, at least half as fast: one step up is no leak;
//! 4. what more sessions, subscriptions and topics need is less than half of it. Each is taken to need
//!    so many bytes ([`Level::needed`]): that twice as many are there says nothing where they are six.

/// What an idle session needs, with what its token says.
const SESSION_BYTES: f64 = 8.0 * 1024.0;
/// What a subscription needs, on the session's side and on the topic's.
const SUBSCRIPTION_BYTES: f64 = 512.0;
/// What a topic needs that somebody has joined: most of it are the ids that are remembered.
const TOPIC_BYTES: f64 = 16.0 * 1024.0;

/// Less than this from end to end is noise.
const BYTES_MIN: f64 = 8.0 * 1024.0 * 1024.0;

/// Memory at a time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Level {
    /// Since the history began.
    pub(super) seconds: f64,
    /// Without caches and what waits.
    pub(super) bytes: f64,
    pub(super) sessions: f64,
    pub(super) subscriptions: f64,
    pub(super) topics: f64,
}

impl Level {
    /// About what all that is there needs.
    fn needed(&self) -> f64 {
        self.sessions * SESSION_BYTES
            + self.subscriptions * SUBSCRIPTION_BYTES
            + self.topics * TOPIC_BYTES
    }
}

/// Over which time growth is looked at.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span {
    /// The time in which growth is told: an hour, or a day.
    pub(super) unit_s: f64,
    /// As people call it.
    pub(super) unit: &'static str,
    /// So many levels are needed.
    pub(super) levels_min: usize,
}

/// What is thought of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The node has not run for long enough.
    TooShort,
    /// It stands still, or grows by less than the limit.
    None,
    /// It grows, and so do sessions, or what they have joined.
    WithSessions,
    /// It grows, and nothing explains it.
    Suspected,
}

impl Verdict {
    /// As it is written.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::TooShort => "too_short",
            Self::None => "none",
            Self::WithSessions => "with_sessions",
            Self::Suspected => "suspected",
        }
    }
}

/// The verdict with its figures.
#[derive(Debug, Clone, PartialEq)]
pub struct Growth {
    /// What is thought of it.
    pub verdict: Verdict,
    /// How much of its mean memory rises, in percent; in what time the reason says.
    pub percent: f64,
    /// Why, for people.
    pub reason: String,
}

impl Growth {
    /// Of levels in their order; more than `percent_max` in the span's unit of time is much.
    pub(super) fn judge(levels: &[Level], span: Span, percent_max: f64) -> Self {
        let Span { unit, .. } = span;
        if levels.len() < span.levels_min {
            let (count, needed) = (levels.len(), span.levels_min);
            return Self {
                verdict: Verdict::TooShort,
                percent: 0.0,
                reason: format!(
                    "{count} of {needed} means of the memory that a verdict needs, without the first quarter of an hour"
                ),
            };
        }
        let bytes: fn(&Level) -> f64 = |level| level.bytes;
        let per_unit = |levels: &[Level], of: fn(&Level) -> f64| slope(levels, of) * span.unit_s;
        let percent = share(per_unit(levels, bytes), mean(levels, bytes));
        let last = &levels[levels.len() - levels.len() / 3..];
        let lately = share(per_unit(last, bytes), mean(last, bytes));
        let explained = share(per_unit(levels, Level::needed), mean(levels, bytes));
        let seconds = levels[levels.len() - 1].seconds - levels[0].seconds;
        let added = slope(levels, bytes) * seconds;
        let grows = format!("memory without caches grows by {percent:.1} % {unit}");
        let (verdict, reason) = if percent <= percent_max {
            let reason = format!("{grows}, the limit is {percent_max} %");
            (Verdict::None, reason)
        } else if added < BYTES_MIN {
            let reason = format!("{grows}, which is too little to tell: {added:.0} bytes");
            (Verdict::None, reason)
        } else if lately < percent / 2.0 {
            let reason = format!("{grows}, but in the last third of the time by {lately:.1} %");
            (Verdict::None, reason)
        } else if explained >= percent / 2.0 {
            let reason =
                format!("{grows}; more sessions, subscriptions and topics need {explained:.1} %");
            (Verdict::WithSessions, reason)
        } else {
            let reason = format!(
                "{grows} and has not stopped; more sessions, subscriptions and topics need {explained:.1} %"
            );
            (Verdict::Suspected, reason)
        };
        Self {
            verdict,
            percent,
            reason,
        }
    }
}

/// In percent; 0 of nothing.
fn share(part: f64, whole: f64) -> f64 {
    if whole <= 0.0 {
        return 0.0;
    }
    100.0 * part / whole
}

fn mean(levels: &[Level], of: impl Fn(&Level) -> f64) -> f64 {
    levels.iter().map(of).sum::<f64>() / levels.len().max(1) as f64
}

/// Of the straight line with the least squares, a second; 0 through less than two levels.
fn slope(levels: &[Level], of: impl Fn(&Level) -> f64) -> f64 {
    let middle_s = mean(levels, |level| level.seconds);
    let middle = mean(levels, &of);
    let (mut above, mut below) = (0.0, 0.0);
    for level in levels {
        let off = level.seconds - middle_s;
        above += off * (of(level) - middle);
        below += off * off;
    }
    if below == 0.0 { 0.0 } else { above / below }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Span = Span {
        unit_s: 3_600.0,
        unit: "an hour",
        levels_min: 60,
    };
    const MIB: f64 = 1024.0 * 1024.0;

    /// Two hours by minutes.
    fn judge(bytes: impl Fn(f64) -> f64, sessions: impl Fn(f64) -> f64) -> Growth {
        joined(bytes, sessions, |_| 0.0, |_| 0.0)
    }

    fn joined(
        bytes: impl Fn(f64) -> f64,
        sessions: impl Fn(f64) -> f64,
        subscriptions: impl Fn(f64) -> f64,
        topics: impl Fn(f64) -> f64,
    ) -> Growth {
        let levels: Vec<_> = (0..120)
            .map(|minute| {
                let hours = f64::from(minute) / 60.0;
                let breath = f64::from(minute % 2) * MIB;
                Level {
                    seconds: hours * 3_600.0,
                    bytes: bytes(hours) + breath,
                    sessions: sessions(hours),
                    subscriptions: subscriptions(hours),
                    topics: topics(hours),
                }
            })
            .collect();
        Growth::judge(&levels, HOUR, 10.0)
    }

    #[test]
    fn memory_that_grows_for_hours_without_sessions_is_suspected() {
        let growth = judge(|hours| (100.0 + 30.0 * hours) * MIB, |_| 500.0);
        assert_eq!(growth.verdict, Verdict::Suspected, "{growth:?}");
        assert!((growth.percent - 23.0).abs() < 1.0, "{growth:?}");
        let idle = judge(|hours| (100.0 + 30.0 * hours) * MIB, |_| 0.0);
        assert_eq!(idle.verdict, Verdict::Suspected, "{idle:?}");
    }

    #[test]
    fn breathing_a_step_few_bytes_and_more_sessions_are_not() {
        let rows = [
            (judge(|_| 100.0 * MIB, |_| 9.0), Verdict::None),
            (
                judge(|hours| (100.0 + 5.0 * hours) * MIB, |_| 9.0),
                Verdict::None,
            ),
            (
                judge(|hours| (100.0 - 30.0 * hours) * MIB, |_| 9.0),
                Verdict::None,
            ),
            (
                judge(
                    |hours| (100.0 + 80.0 * f64::from(u8::from(hours >= 0.7))) * MIB,
                    |_| 9.0,
                ),
                Verdict::None,
            ),
            (
                judge(|hours| (10.0 + 2.0 * hours) * MIB, |_| 9.0),
                Verdict::None,
            ),
            (
                judge(
                    |hours| (100.0 + 30.0 * hours) * MIB,
                    |hours| 10_000.0 + 3_000.0 * hours,
                ),
                Verdict::WithSessions,
            ),
        ];
        for (growth, verdict) in rows {
            assert_eq!(growth.verdict, verdict, "{growth:?}");
        }
    }

    #[test]
    fn growth_is_explained_by_the_bytes_that_more_of_something_needs_and_not_by_its_share() {
        let grows = |hours: f64| (1_000.0 + 300.0 * hours) * MIB;
        let leaks = judge(grows, |hours| 3.0 + 2.0 * hours);
        assert_eq!(leaks.verdict, Verdict::Suspected, "{leaks:?}");
        let subscribed = joined(grows, |_| 50_000.0, |hours| 600_000.0 * hours, |_| 9.0);
        assert_eq!(subscribed.verdict, Verdict::WithSessions, "{subscribed:?}");
        let topics = joined(grows, |_| 500.0, |_| 500.0, |hours| 20_000.0 * hours);
        assert_eq!(topics.verdict, Verdict::WithSessions, "{topics:?}");
    }

    #[test]
    fn a_short_life_has_no_verdict() {
        let growth = Growth::judge(&[], HOUR, 10.0);
        assert_eq!(growth.verdict, Verdict::TooShort);
    }
}
