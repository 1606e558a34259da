//! How often an address came with a wrong key.
//!
//! In: the address of a peer, once for each wrong key. Out: nothing, or when it may come again, and when it
//! is its turn to be told so. Who has a right key is never asked here, so that nobody is shut out by others
//! behind the same address; what an address is told in between is 429 and not whether a key was near.
//! The turns slow whoever waits for answers, and hold a connection of whoever does not; against somebody
//! with very many connections only the length of keys helps, which production asks for.
//!
//! Addresses are those of sockets, as nothing else can be believed: of IPv6 the first 64 bits, which one
//! peer has all of. Bound: [`ADDRESSES_MAX`] addresses; beyond it all others are counted as one.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Wrong keys that an address may come with in each [`WINDOW`].
pub(super) const WRONG_MAX: u32 = 20;
/// For so long they are counted.
pub(super) const WINDOW: Duration = Duration::from_secs(60);
/// Beyond them an answer of an address comes so long after the one before.
pub(super) const TURN: Duration = Duration::from_secs(1);
/// Longest wait for a turn: within the time that a shutdown leaves to requests.
pub(super) const TURN_MAX: Duration = Duration::from_secs(5);
/// Addresses that are known at the same time: about half a megabyte.
pub(super) const ADDRESSES_MAX: usize = 8_192;

/// See the module. The lock is held for one look, and for a look at all of them once in a window.
#[derive(Debug, Default)]
pub(super) struct Guesses(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    of: HashMap<IpAddr, Count>,
    others: Option<Count>,
    swept: Option<Instant>,
}

/// Wrong keys since the first of them.
#[derive(Debug, Clone, Copy)]
struct Count {
    since: Instant,
    wrong: u32,
    /// When the last of its answers is given.
    turn: Instant,
}

/// What becomes of one wrong key too many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TooMany {
    /// When those before are forgotten.
    pub(super) forgotten_in: Duration,
    /// When it is told.
    pub(super) turn_in: Duration,
    /// It is the first of this window.
    pub(super) is_first: bool,
}

impl Guesses {
    /// This peer came with a wrong key. Peers that nobody knows are one.
    ///
    /// # Errors
    /// It came with too many.
    pub(super) fn wrong(&self, peer: Option<IpAddr>, now: Instant) -> Result<(), TooMany> {
        let address = peer.map_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED), neighbourhood);
        // Where a holder of the lock panicked, nothing was half done.
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.sweep(now);
        known.count(address, now).add(now)
    }
}

impl Known {
    /// Forgets who came long ago, where there is no more room, and once in a window at most.
    fn sweep(&mut self, now: Instant) {
        let is_due = self.swept.is_none_or(|swept| now - swept >= WINDOW);
        if self.of.len() >= ADDRESSES_MAX && is_due {
            self.of.retain(|_, count| !count.is_over(now));
            self.swept = Some(now);
        }
    }

    fn count(&mut self, address: IpAddr, now: Instant) -> &mut Count {
        let is_full = self.of.len() >= ADDRESSES_MAX && !self.of.contains_key(&address);
        match is_full {
            true => self.others.get_or_insert(Count::begin(now)),
            false => self.of.entry(address).or_insert(Count::begin(now)),
        }
    }
}

impl Count {
    fn begin(now: Instant) -> Self {
        Self {
            since: now,
            wrong: 0,
            turn: now,
        }
    }

    fn is_over(self, now: Instant) -> bool {
        now.saturating_duration_since(self.since) >= WINDOW
    }

    fn add(&mut self, now: Instant) -> Result<(), TooMany> {
        if self.is_over(now) {
            *self = Self::begin(now);
        }
        self.wrong = self.wrong.saturating_add(1);
        if self.wrong <= WRONG_MAX {
            return Ok(());
        }
        self.turn = (self.turn.max(now) + TURN).min(now + TURN_MAX);
        Err(TooMany {
            forgotten_in: WINDOW - now.saturating_duration_since(self.since),
            turn_in: self.turn - now,
            is_first: self.wrong == WRONG_MAX + 1,
        })
    }
}

/// All addresses that one peer can be expected to have.
fn neighbourhood(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let first = u128::from(address) >> 64 << 64;
            IpAddr::V6(first.into())
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    #[test]
    fn the_twenty_first_wrong_key_of_a_minute_is_too_many() {
        let (guesses, begun) = (Guesses::default(), Instant::now());
        let peer = address("192.0.2.1");
        for n in 0..WRONG_MAX {
            let now = begun + Duration::from_secs(u64::from(n));
            assert_eq!(guesses.wrong(peer, now), Ok(()), "{n}");
        }
        let at = |s| begun + Duration::from_secs(s);
        let too_many = |turn_s, is_first| TooMany {
            forgotten_in: Duration::from_secs(30),
            turn_in: Duration::from_secs(turn_s),
            is_first,
        };
        assert_eq!(guesses.wrong(peer, at(30)), Err(too_many(1, true)));
        for turn_s in [2, 3, 4, 5, 5, 5] {
            assert_eq!(guesses.wrong(peer, at(30)), Err(too_many(turn_s, false)));
        }
        assert_eq!(guesses.wrong(address("192.0.2.2"), at(30)), Ok(()));
        assert_eq!(guesses.wrong(peer, at(60)), Ok(()));
    }

    #[test]
    fn the_addresses_of_one_peer_are_one() {
        let pairs = [
            ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9", true),
            ("2001:db8:1:2::1", "2001:db8:1:3::1", false),
            ("192.0.2.1", "::ffff:192.0.2.1", true),
            ("192.0.2.1", "192.0.2.2", false),
        ];
        for (one, other, is_same) in pairs {
            let (guesses, now) = (Guesses::default(), Instant::now());
            for _ in 0..WRONG_MAX {
                assert_eq!(guesses.wrong(address(one), now), Ok(()));
            }
            let refused = guesses.wrong(address(other), now).is_err();
            assert_eq!(refused, is_same, "{one} {other}");
        }
    }

    #[test]
    fn the_table_is_bounded_and_counts_whom_it_has_no_room_for_as_one() {
        let (guesses, begun) = (Guesses::default(), Instant::now());
        let nth = |n: u32| Some(IpAddr::from(n.to_be_bytes()));
        let most = u32::try_from(ADDRESSES_MAX).unwrap();
        for n in 0..most {
            assert_eq!(guesses.wrong(nth(n), begun), Ok(()));
        }
        for n in 0..WRONG_MAX {
            assert_eq!(guesses.wrong(nth(most + n), begun), Ok(()));
        }
        assert!(guesses.wrong(nth(most + 99), begun).is_err());
        assert_eq!(guesses.wrong(nth(7), begun), Ok(()), "it has its own count");
        assert_eq!(guesses.0.lock().unwrap().of.len(), ADDRESSES_MAX);
        let later = begun + WINDOW;
        assert_eq!(guesses.wrong(nth(most + 99), later), Ok(()));
        assert_eq!(guesses.0.lock().unwrap().of.len(), 1);
    }
}
