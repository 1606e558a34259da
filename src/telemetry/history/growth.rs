//! Whether the memory of a node grows and goes on growing.
//!
//! In: memory and sessions over time, the oldest first. Out: a [`Growth`] with its reason. Pure. What
//! holds caches is taken off before, and the first quarter of an hour of a node is left out: a node
//! that has just started fills what it keeps anyway. A straight line of the least squares goes
//! through what is left, and growth is suspected to be a leak where
//!
//! 1. there is enough of it to say so: an hour, or a day for what is slow;
//! 2. the line rises by more than the limit, a part of the mean, in an hour or a day, and by
//!    [`BYTES_MIN`] from end to end;
//! 3. it still rises so in its last third, at least half as fast: one step up is no leak;
//! 4. sessions do not rise by half of that or more: each of them needs memory.

/// Less than this from end to end is noise.
const BYTES_MIN: f64 = 8.0 * 1024.0 * 1024.0;

/// Memory at a time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Level {
    /// Since the history began.
    pub(super) seconds: f64,
    /// Without caches.
    pub(super) bytes: f64,
    pub(super) sessions: f64,
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
    /// It grows, and so do sessions.
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
        let sessions: fn(&Level) -> f64 = |level| level.sessions;
        let of_sessions = share(per_unit(levels, sessions), mean(levels, sessions));
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
        } else if of_sessions >= percent / 2.0 {
            let reason = format!("{grows}, and sessions by {of_sessions:.1} %");
            (Verdict::WithSessions, reason)
        } else {
            let reason = format!("{grows} and has not stopped; sessions by {of_sessions:.1} %");
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
        let levels: Vec<_> = (0..120)
            .map(|minute| {
                let hours = f64::from(minute) / 60.0;
                let breath = f64::from(minute % 2) * MIB;
                Level {
                    seconds: hours * 3_600.0,
                    bytes: bytes(hours) + breath,
                    sessions: sessions(hours),
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
                    |hours| 1_000.0 + 300.0 * hours,
                ),
                Verdict::WithSessions,
            ),
        ];
        for (growth, verdict) in rows {
            assert_eq!(growth.verdict, verdict, "{growth:?}");
        }
    }

    #[test]
    fn a_short_life_has_no_verdict() {
        let growth = Growth::judge(&[], HOUR, 10.0);
        assert_eq!(growth.verdict, Verdict::TooShort);
    }
}
