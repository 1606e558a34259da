//! Whether the id of an entry says when it was accepted: an `XADD` may name any.
//!
//! In: the time in an id, and Redis' clock. Out: whether a clock gave it. Pure. Bounds: [`PAST_MAX_MS`],
//! [`AHEAD_MAX_MS`].

/// No entry waits for longer: a year.
const PAST_MAX_MS: u64 = 366 * 24 * 3_600 * 1_000;
/// No master of before was so far ahead of this one: a day.
const AHEAD_MAX_MS: u64 = 24 * 3_600 * 1_000;

/// Whether a clock gave this time, unix milliseconds.
pub(super) fn is_of_a_clock(id_ms: u64, now_ms: u64) -> bool {
    let from = now_ms.saturating_sub(PAST_MAX_MS);
    (from..=now_ms.saturating_add(AHEAD_MAX_MS)).contains(&id_ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_year_ago_and_a_day_ahead_are_of_a_clock_and_no_more() {
        let now_ms = 1_800_000_000_000;
        for (id_ms, is) in [
            (now_ms, true),
            (now_ms - PAST_MAX_MS, true),
            (now_ms - PAST_MAX_MS - 1, false),
            (now_ms + AHEAD_MAX_MS, true),
            (now_ms + AHEAD_MAX_MS + 1, false),
            (1, false),
            (u64::MAX, false),
        ] {
            assert_eq!(is_of_a_clock(id_ms, now_ms), is, "{id_ms}");
        }
    }
}
