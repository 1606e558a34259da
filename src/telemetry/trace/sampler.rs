//! Which work is traced.
//!
//! In: the context of whoever caused it, chance, the time. Out: yes or no. Bounds: [`PerSlot`] says yes so
//! many times in a part of a second, and [`Forced`] once a second to a session. A client that is not
//! trusted picks neither its ids nor its flag so that more or less of it is traced: its ids decide
//! nothing, and its flag a few times a second.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use super::context::TraceContext;
use fanfare_protocol::ids::SessionId;

/// How many of those that nobody else has decided about.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Share {
    /// All.
    All,
    /// None.
    None,
    /// This part of them, from 0 to 1.
    Part(f64),
}

/// How it is decided.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampler {
    /// What holds where nobody has decided.
    pub share: Share,
    /// What has a context is traced where its flag says so.
    pub is_parent_based: bool,
}

/// One in a hundred, and what others have decided.
impl Default for Sampler {
    fn default() -> Self {
        Self {
            share: Share::Part(0.01),
            is_parent_based: true,
        }
    }
}

/// Whose context it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caller {
    /// A backend with a key: it is believed.
    Backend,
    /// A client of the WebSocket, by its session.
    Client(SessionId),
    /// A caller of the API without a key.
    Stranger,
}

impl Sampler {
    /// Decides. `may_force` is asked where the flag of one who is not believed says yes; `chance` is
    /// random, and where there is no parent the last eight bytes of the id that the trace gets: whoever
    /// decides by that later decides the same.
    #[must_use]
    pub fn takes(
        self,
        parent: Option<&TraceContext>,
        caller: Caller,
        chance: u64,
        may_force: impl FnOnce() -> bool,
    ) -> bool {
        let Some(parent) = parent else {
            return self.has_in_share(chance);
        };
        match (self.is_parent_based, caller) {
            (true, Caller::Backend) => parent.is_sampled(),
            (true, Caller::Client(_) | Caller::Stranger) => {
                (parent.is_sampled() && may_force()) || self.has_in_share(chance)
            }
            // By its id, as every other service that knows the trace decides.
            (false, Caller::Backend) => self.has_in_share(tail_of(parent)),
            (false, Caller::Client(_) | Caller::Stranger) => self.has_in_share(chance),
        }
    }

    #[allow(clippy::cast_precision_loss)]
    fn has_in_share(self, number: u64) -> bool {
        match self.share {
            Share::All => true,
            Share::None => false,
            // As the SDKs of OpenTelemetry do it: 63 bits of the id below the part of 2^63.
            Share::Part(part) => {
                part >= 1.0 || ((number >> 1) as f64) < part * (1_u64 << 63) as f64
            }
        }
    }
}

/// The last eight bytes of the trace's id.
fn tail_of(context: &TraceContext) -> u64 {
    let mut tail = [0; 8];
    tail.copy_from_slice(&context.trace[8..]);
    u64::from_be_bytes(tail)
}

/// Bits of the number of those that were admitted in a slot.
const COUNT_BITS: u32 = 24;

/// So many in each slot of time, from any thread.
#[derive(Debug, Default)]
pub struct PerSlot(AtomicU64);

impl PerSlot {
    /// Whether one more of `most` (below 2^24) is there in this slot, counted from anywhere. Where a slot
    /// is over, the newest one that was asked for is meant.
    pub fn admits(&self, slot: u64, most: u32) -> bool {
        let admit = |state: u64| {
            let (now, count) = (state >> COUNT_BITS, state & ((1 << COUNT_BITS) - 1));
            let (now, count) = match slot > now {
                true => (slot, 0),
                false => (now, count),
            };
            (count < u64::from(most)).then_some(now << COUNT_BITS | (count + 1))
        };
        self.0.fetch_update(Relaxed, Relaxed, admit).is_ok()
    }
}

/// Sessions whose flag was followed, in the newest second that was asked for; as many as may be.
#[derive(Debug, Default)]
pub struct Forced(Mutex<(u64, Vec<SessionId>)>);

impl Forced {
    /// Whether this session may in this second, where `most` may: each once.
    pub fn admits(&self, second: u64, session: SessionId, most: usize) -> bool {
        let (now, sessions) = &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if second > *now {
            *now = second;
            sessions.clear();
        }
        let may = sessions.len() < most && !sessions.contains(&session);
        if may {
            sessions.push(session);
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(number: u8) -> SessionId {
        format!("{number:032x}").parse().unwrap()
    }

    fn client() -> Caller {
        Caller::Client(session(1))
    }

    const NEVER: u64 = u64::MAX;

    fn context(tail: u64, flags: u8) -> TraceContext {
        let mut trace = [7; 16];
        trace[8..].copy_from_slice(&tail.to_be_bytes());
        TraceContext {
            trace,
            span: [1; 8],
            flags,
        }
    }

    fn takes(sampler: Sampler, parent: Option<(u64, u8)>, caller: Caller, chance: u64) -> bool {
        let parent = parent.map(|(tail, flags)| context(tail, flags));
        sampler.takes(parent.as_ref(), caller, chance, || false)
    }

    #[test]
    fn what_nobody_has_decided_is_taken_by_its_share() {
        let of = |part| Sampler {
            share: Share::Part(part),
            is_parent_based: true,
        };
        let taken = |part: f64| {
            let each = (0..10_000_u64).map(|n| n * (u64::MAX / 10_000));
            each.filter(|chance| takes(of(part), None, Caller::Backend, *chance))
                .count()
        };
        assert_eq!(taken(0.0), 0);
        assert!((99..=101).contains(&taken(0.01)), "{}", taken(0.01));
        assert!((4_999..=5_001).contains(&taken(0.5)), "{}", taken(0.5));
        assert_eq!(taken(1.0), 10_000);
        assert!(takes(of(1.0), None, client(), NEVER));
        for (share, all) in [(Share::All, true), (Share::None, false)] {
            let sampler = Sampler {
                share,
                is_parent_based: true,
            };
            assert_eq!(takes(sampler, None, client(), 0), all);
        }
    }

    #[test]
    fn a_backend_is_followed_whatever_the_share() {
        let sampler = Sampler {
            share: Share::None,
            ..Sampler::default()
        };
        assert!(takes(sampler, Some((NEVER, 1)), Caller::Backend, NEVER));
        let all = Sampler {
            share: Share::All,
            ..sampler
        };
        assert!(!takes(all, Some((0, 0)), Caller::Backend, 0));
        // Other flags say nothing about it.
        assert!(!takes(all, Some((0, 0xfe)), Caller::Backend, 0));
    }

    #[test]
    fn without_parents_the_id_of_a_backend_decides_and_that_of_a_client_does_not() {
        let sampler = Sampler {
            share: Share::Part(0.01),
            is_parent_based: false,
        };
        assert!(takes(sampler, Some((0, 0)), Caller::Backend, NEVER));
        assert!(!takes(sampler, Some((NEVER, 1)), Caller::Backend, 0));
        assert!(!takes(sampler, Some((0, 1)), client(), NEVER));
        assert!(takes(sampler, Some((NEVER, 0)), client(), 0));
    }

    #[test]
    fn a_client_forces_as_long_as_it_may_and_goes_by_chance_afterwards() {
        let sampler = Sampler::default();
        let forcing = |may: bool, chance| {
            let parent = context(0, 1);
            sampler.takes(Some(&parent), client(), chance, || may)
        };
        assert!(forcing(true, NEVER));
        assert!(!forcing(false, NEVER), "its id would be taken");
        assert!(forcing(false, 0));
        // Nobody hides by a flag either: what says no is as what says nothing.
        let unsampled = context(0, 0);
        let by = |caller, chance| {
            let asked = || panic!("nobody forces");
            sampler.takes(Some(&unsampled), caller, chance, asked)
        };
        for caller in [client(), Caller::Stranger] {
            assert!(by(caller, 0));
            assert!(!by(caller, NEVER));
        }
        assert!(!by(Caller::Backend, 0));
    }

    #[test]
    fn each_session_has_its_way_once_in_a_second_and_so_many_have_in_all() {
        let forced = Forced::default();
        let sessions: Vec<_> = (0..20).map(session).collect();
        let admitted = |second| {
            let twice = sessions[..6].iter().chain(&sessions);
            twice
                .filter(|session| forced.admits(second, **session, 10))
                .count()
        };
        assert_eq!(admitted(0), 10);
        assert_eq!(admitted(0), 0);
        assert_eq!(admitted(1), 10);
        let alone = (0..30).filter(|_| forced.admits(2, session(1), 10)).count();
        assert_eq!(alone, 1);
        assert!(!forced.admits(1, session(1), 10), "that second is over");
    }

    #[test]
    fn so_many_are_admitted_in_each_second_and_none_by_one_that_is_over() {
        let limit = PerSlot::default();
        let admitted = |second| (0..30).filter(|_| limit.admits(second, 10)).count();
        assert_eq!(admitted(0), 10);
        assert_eq!(admitted(0), 0);
        assert_eq!(admitted(5), 10);
        assert_eq!(admitted(4), 0, "another thread was slow");
        assert_eq!(admitted(6), 10);
        assert!(!limit.admits(7, 0));
    }
}
