//! When a client comes back after a break: the close code's class, and a back-off with full jitter.
//!
//! Pure. In: what ended the connection, as an [`Again`], and a random number. Out: how long to
//! wait, or that nobody should come back. The bound of every wait that the client chooses itself
//! is [`BACK_OFF_MAX`]; what the server asks for is kept, up to [`ASKED_MAX`].

use std::time::Duration;

/// First wait of the back-off. It doubles with every try.
const BACK_OFF_FIRST: Duration = Duration::from_millis(250);
/// Longest wait of the back-off.
const BACK_OFF_MAX: Duration = Duration::from_secs(15);
/// Least wait after a close code of the class 4100 to 4199.
const CALM: Duration = Duration::from_secs(1);

/// Longest wait that a server may ask for. What is longer counts as this.
pub(crate) const ASKED_MAX: Duration = Duration::from_secs(60 * 60);

/// A wait that a server asks for, in milliseconds.
pub(crate) fn asked(wait_ms: u64) -> Duration {
    Duration::from_millis(wait_ms).min(ASKED_MAX)
}

/// What a client should do after a break.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Again {
    /// Not come back as it is.
    Never,
    /// Come back now.
    AtOnce,
    /// Come back after at least so long.
    After(Duration),
    /// Come back after a time of the client's choice.
    BackOff,
}

impl Again {
    /// What a close code asks for. `drain` is how much is left of the time that a `drain` event
    /// named, if there was one.
    #[must_use]
    pub fn by_close_code(code: u16, drain: Option<Duration>) -> Self {
        match code {
            // A network that was slow, and sessions that the server still counts: both pass.
            4004 | 4006 => Self::BackOff,
            4000..=4099 => Self::Never,
            4100..=4199 => Self::After(drain.unwrap_or(CALM)),
            4200..=4299 => Self::AtOnce,
            _ => Self::BackOff,
        }
    }
}

/// Counts tries in a row and spreads them.
#[derive(Debug, Default)]
pub struct Pace {
    tries: u32,
}

impl Pace {
    /// How long to wait before the next try; `None`: there is none. `random` is at least 0 and
    /// below 1, so that a thousand clients of one dead node do not return in the same moment.
    pub fn wait(&mut self, again: Again, random: f64) -> Option<Duration> {
        let back_off = BACK_OFF_FIRST
            .saturating_mul(2_u32.saturating_pow(self.tries))
            .min(BACK_OFF_MAX)
            .mul_f64(random);
        let is_first = self.tries == 0;
        self.tries = self.tries.saturating_add(1);
        match again {
            Again::Never => None,
            Again::AtOnce if is_first => Some(Duration::ZERO),
            Again::AtOnce | Again::BackOff => Some(back_off),
            Again::After(least) if is_first => Some(least.mul_f64(1.0 + random / 4.0)),
            Again::After(least) => Some(least + back_off),
        }
    }

    /// A connection has lasted: the next break begins with the shortest wait.
    pub fn settled(&mut self) {
        self.tries = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_class_of_a_close_code_decides() {
        let left = Some(Duration::from_millis(300));
        assert_eq!(Again::by_close_code(4001, left), Again::Never);
        assert_eq!(
            Again::by_close_code(4100, left),
            Again::After(Duration::from_millis(300))
        );
        assert_eq!(Again::by_close_code(4103, None), Again::After(CALM));
        assert_eq!(Again::by_close_code(4200, None), Again::AtOnce);
        for other in [1000, 1001, 1006, 1009, 1011, 4004, 4006, 4300] {
            assert_eq!(Again::by_close_code(other, None), Again::BackOff);
        }
    }

    #[test]
    fn waits_grow_to_their_bound_and_start_over_once_a_connection_lasted() {
        let mut pace = Pace::default();
        let waits: Vec<_> = (0..40)
            .map(|_| pace.wait(Again::BackOff, 0.999).expect("comes back"))
            .collect();
        assert!(waits[0] < BACK_OFF_FIRST && waits[0] >= BACK_OFF_FIRST / 2);
        assert_eq!(
            Pace::default().wait(Again::BackOff, 0.0),
            Some(Duration::ZERO)
        );
        assert!(waits.windows(2).all(|pair| pair[0] <= pair[1]));
        assert!(waits[39] <= BACK_OFF_MAX);
        pace.settled();
        assert!(pace.wait(Again::BackOff, 0.0).expect("comes back") < BACK_OFF_FIRST);
    }

    #[test]
    fn at_once_is_at_once_only_the_first_time() {
        let mut pace = Pace::default();
        assert_eq!(pace.wait(Again::AtOnce, 0.5), Some(Duration::ZERO));
        assert!(pace.wait(Again::AtOnce, 0.5) > Some(Duration::ZERO));
    }

    #[test]
    fn nobody_returns_before_the_time_that_the_server_named() {
        let mut pace = Pace::default();
        let least = Duration::from_secs(2);
        for _ in 0..5 {
            assert!(pace.wait(Again::After(least), 0.0) >= Some(least));
        }
        assert_eq!(pace.wait(Again::Never, 0.0), None);
    }
}
