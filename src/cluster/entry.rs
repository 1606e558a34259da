//! How a process comes to its name, which somebody may have: pure, with time as a value.
//!
//! In: what the holder of the name says of itself, at each look. Out: whether the name may be taken.
//! It is taken from nobody who shows a sign of life while this process looks; one that was killed or
//! is paused shows none. Owner: the membership task, up to its first heartbeat. Bounds: one look is
//! open at a time.

use std::time::Duration;

use tokio::time::Instant;

/// A look is taken in so many parts, before each of which Redis is asked whether it takes writes: the
/// usual one lasts one and a half heartbeats, of which one may fall into a moment when it takes none.
const PARTS: u32 = 6;

/// See the module.
#[derive(Debug)]
pub(super) enum Entry {
    /// Nothing was seen yet.
    New,
    /// What the holder said of itself, and until when it may say something else.
    Looking {
        /// It changes with each of its heartbeats.
        said: String,
        /// The end of the look.
        until: Instant,
    },
    /// The name may be taken.
    Free,
}

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Judgement {
    /// Take the name.
    Free,
    /// Look again after so long.
    Look(Duration),
    /// Its holder lives.
    Taken,
}

impl Entry {
    /// The holder says this, or there is none. A look that begins now takes so long.
    pub(super) fn judge(
        &mut self,
        said: Option<String>,
        now: Instant,
        look: Duration,
    ) -> Judgement {
        let Some(said) = said else {
            return Judgement::Free;
        };
        match self {
            Self::Looking { said: before, .. } if *before != said => Judgement::Taken,
            Self::Looking { until, .. } if *until <= now => Judgement::Free,
            Self::Looking { until, .. } => Judgement::Look((*until - now).min(look / PARTS)),
            Self::New | Self::Free => {
                let until = now + look;
                *self = Self::Looking { said, until };
                Judgement::Look(look / PARTS)
            }
        }
    }

    /// Redis did not answer or took no writes: the holder could not show that it lives, and a look
    /// begins anew, also where the name was found free.
    pub(super) fn interrupt(&mut self) {
        *self = Self::New;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOOK: Duration = Duration::from_millis(1_500);

    fn said(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    #[test]
    fn a_name_is_free_where_nobody_has_it_or_its_holder_is_silent() {
        let now = Instant::now();
        assert_eq!(Entry::New.judge(None, now, LOOK), Judgement::Free);
        let mut entry = Entry::New;
        for part in 0..PARTS {
            let at = now + LOOK / PARTS * part;
            let judgement = entry.judge(said("1"), at, LOOK);
            assert_eq!(judgement, Judgement::Look(LOOK / PARTS));
        }
        assert_eq!(entry.judge(said("1"), now + LOOK, LOOK), Judgement::Free);
    }

    #[test]
    fn a_holder_that_shows_a_sign_of_life_keeps_its_name() {
        let now = Instant::now();
        let mut entry = Entry::New;
        entry.judge(said("1"), now, LOOK);
        assert_eq!(entry.judge(said("2"), now + LOOK, LOOK), Judgement::Taken);
    }

    #[test]
    fn a_look_begins_anew_where_redis_was_away_or_read_only() {
        let now = Instant::now();
        let looking = Entry::Looking {
            said: "1".to_owned(),
            until: now + LOOK,
        };
        for mut entry in [looking, Entry::Free] {
            entry.interrupt();
            let later = now + 2 * LOOK;
            let judgement = entry.judge(said("1"), later, LOOK);
            assert_eq!(judgement, Judgement::Look(LOOK / PARTS));
            assert_eq!(entry.judge(said("2"), later + LOOK, LOOK), Judgement::Taken);
        }
    }
}
