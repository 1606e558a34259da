//! Dead letters: their ids, and one of them.
//!
//! In: ids and cursors of callers. Out: letters as the broker keeps them. Owns nothing. Bound:
//! [`LETTERS_MAX`] letters are what one call is about.

use std::fmt;
use std::str::FromStr;

use crate::api::state::ApiState;
use crate::broker::BrokerError;
use crate::broker::queue::DeadLetter;
use fanfare_protocol::ids::Position;

/// Most letters that one call redrives or drops.
pub const LETTERS_MAX: usize = 1_000;

/// Names a letter, and a place in the order of all: `PARTITION:MS-SEQ`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct LetterId {
    pub(super) partition: u32,
    pub(super) id: Position,
}

impl LetterId {
    /// The place before all letters of a partition.
    pub(super) fn before_all_of(partition: u32) -> Self {
        let id = Position { ms: 0, seq: 0 };
        Self { partition, id }
    }

    /// Of this letter.
    pub(super) fn of(letter: &DeadLetter) -> Self {
        Self {
            partition: letter.partition,
            id: letter.id,
        }
    }
}

impl fmt::Display for LetterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.partition, self.id)
    }
}

/// The text is no id of a dead letter.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NoLetterId;

impl FromStr for LetterId {
    type Err = NoLetterId;

    fn from_str(text: &str) -> Result<Self, NoLetterId> {
        let (partition, id) = text.split_once(':').ok_or(NoLetterId)?;
        let id = id.parse().map_err(|_| NoLetterId)?;
        let partition = partition.parse().map_err(|_| NoLetterId)?;
        let read = Self { partition, id };
        // One text for each letter: no signs, no zeros in front.
        (read.to_string() == text).then_some(read).ok_or(NoLetterId)
    }
}

/// The letter of this id, if it is there.
///
/// # Errors
/// [`BrokerError`].
pub(super) async fn find(
    state: &ApiState,
    wanted: LetterId,
) -> Result<Option<DeadLetter>, BrokerError> {
    if wanted.partition >= state.config.redis.partitions {
        return Ok(None);
    }
    let (broker, after) = (&state.broker, before(wanted.id));
    let letters = broker.dead_letters(wanted.partition, after, 1).await?;
    let found = letters.into_iter().next();
    Ok(found.filter(|letter| letter.id == wanted.id))
}

/// Drops the letter of this id. Returns whether it was there.
///
/// # Errors
/// [`BrokerError`].
pub(super) async fn drop_one(state: &ApiState, wanted: LetterId) -> Result<bool, BrokerError> {
    if wanted.partition >= state.config.redis.partitions {
        return Ok(false);
    }
    let letter = [wanted.id];
    let dropped = state.broker.drop_dead(wanted.partition, &letter).await?;
    Ok(dropped > 0)
}

/// The position just below.
fn before(position: Position) -> Option<Position> {
    match position {
        Position { ms: 0, seq: 0 } => None,
        Position { ms, seq: 0 } => Some(Position {
            ms: ms - 1,
            seq: u64::MAX,
        }),
        Position { ms, seq } => Some(Position { ms, seq: seq - 1 }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_letter_has_one_text_and_no_other_is_read_as_it() {
        let id = LetterId {
            partition: 7,
            id: Position { ms: 1_700, seq: 3 },
        };
        assert_eq!(id.to_string(), "7:1700-3");
        assert_eq!("7:1700-3".parse(), Ok(id));
        let wrong = [
            "",
            "7",
            "7:",
            ":1700-3",
            "07:1700-3",
            "+7:1700-3",
            "-1:1700-3",
            "7:1700",
            "7:1700-03",
            "7:1700-3 ",
            "4294967296:1-1",
        ];
        for text in wrong {
            assert_eq!(text.parse::<LetterId>(), Err(NoLetterId), "{text:?}");
        }
    }

    #[test]
    fn just_below_a_position_is_nothing_that_stands_before_it() {
        let at = |ms, seq| Position { ms, seq };
        assert_eq!(before(at(5, 2)), Some(at(5, 1)));
        assert_eq!(before(at(5, 0)), Some(at(4, u64::MAX)));
        assert_eq!(before(at(0, 0)), None);
    }
}
