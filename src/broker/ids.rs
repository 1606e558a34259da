//! How a new entry of a topic gets its id, for the engine inside the process and for simulations;
//! `scripts/append.lua` does the same in Redis.
//!
//! In: the last id, the clock, a random number. Out: the next id. Pure.

use std::cmp::Ordering;

use fanfare_protocol::ids::Position;

/// Less than so many sequences are left out between two ids while the clock is behind.
const SEQUENCES_LEFT_OUT_MAX: u64 = 1 << 20;
/// From here on a double, which is what Lua counts in, does not hold every sequence.
const SEQUENCE_END: u64 = 1 << 53;

/// The position of a new entry, as `scripts/append.lua` gives it: above the last one, also while
/// the clock is behind it. An id that was lost (by a failover, or with its process) is not given
/// again: `random` is the sequence in a new millisecond, and how much is left out while the clock
/// is behind. (The script marks ids that are ahead of the clock by a sequence of ten thousand millions
/// or more besides, to know one when it is the last; here nobody needs to.)
#[must_use]
pub fn position_after(last: Position, now_ms: u64, random: u32) -> Position {
    let seq = match now_ms.cmp(&last.ms) {
        Ordering::Greater => {
            return Position {
                ms: now_ms,
                seq: random.into(),
            };
        }
        Ordering::Equal => last.seq.saturating_add(1),
        Ordering::Less => {
            let left_out = u64::from(random) % SEQUENCES_LEFT_OUT_MAX;
            last.seq.saturating_add(1 + left_out)
        }
    };
    match seq < SEQUENCE_END {
        true => Position { ms: last.ms, seq },
        false => Position {
            ms: last.ms + 1,
            seq: random.into(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64, seq: u64) -> Position {
        Position { ms, seq }
    }

    #[test]
    fn a_new_millisecond_begins_at_the_random_sequence() {
        assert_eq!(position_after(at(7, 3), 8, u32::MAX), at(8, 0xffff_ffff));
    }

    #[test]
    fn the_same_millisecond_counts_on_by_one() {
        assert_eq!(position_after(at(7, 3), 7, u32::MAX), at(7, 4));
    }

    #[test]
    fn a_clock_that_is_behind_leaves_out_a_random_number() {
        assert_eq!(position_after(at(7, 3), 6, 0), at(7, 4));
        assert_eq!(position_after(at(7, 3), 0, 5), at(7, 9));
        assert_eq!(position_after(at(7, 3), 6, u32::MAX), at(7, 3 + (1 << 20)));
    }

    #[test]
    fn a_sequence_that_no_double_holds_rolls_over() {
        let end = SEQUENCE_END;
        assert_eq!(position_after(at(7, end - 2), 7, 9), at(7, end - 1));
        for last in [end - 1, end, u64::MAX] {
            assert_eq!(position_after(at(7, last), 7, 9), at(8, 9));
            assert_eq!(position_after(at(7, last), 6, 9), at(8, 9));
        }
    }
}
