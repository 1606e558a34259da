//! The memberships of this node's sessions, as a machine: what each should be, what the broker is
//! known to have, and which call comes next.
//!
//! In: sessions that enter and leave, answers of the broker, lives of the node, places of topics,
//! the time. Out: one [`Order`] at a time for each membership, until the broker has what is wished.
//! Pure: no clock, no broker; [`super::runner`] brings the one and carries out the other.
//! Bounds: one slot for each session in a topic, and for those that left what [`super::left`] takes.
//!
//! ```text
//!            enter                    answered
//!  (nothing) ─────▶ entering ───────────────────────▶ in ──┐ another life of the node, or a place
//!      ▲                │ failed, or leave            │  ◀─┘ that lost what it had: written again
//!      │                ▼                       leave ▼
//!      └── a minute ── left ◀────────────────────── leaving    enter, from any state: the next
//!                       answered; again where the place        generation enters
//!                       lost what it had
//! ```
//!
//! Commands may be carried out late, twice, or not at all, and a failover may take any of them
//! back. Three rules make the end right all the same. Each entering has a **generation**, and the
//! broker lets nothing older undo what it has, so the order of commands does not matter. What
//! **stands** is known with the life and the place that it stands under, and is written again where
//! either is another. A leave is **remembered** for [`LEFT_FOR`]: where the place lost it, it is
//! carried out once more; and where an entering may still be on its way, because its answer was
//! lost, once more at the end of that time. Where there is no room for that, the topic stays in the
//! index for as long as the node lives, so that a reaper finds then what came late.
//!
//! A generation is a count of this process. That suffices, because a session and its memberships
//! never outlive the process: no other one has a generation of the same session.
//!
//! A grace (a session that comes right back never left) would be one more state between `in` and
//! `leaving`, which [`Memberships::leave`] sets and the time ends. Changes that are told together
//! need nothing here: the broker makes them.

use std::time::Duration;

use rustc_hash::FxHashMap;

use crate::broker::Place;
use fanfare_protocol::event::Member;
use fanfare_protocol::ids::{Owner, Topic};

use super::Key;
use super::left::Left;

/// How long a leave is remembered: several times what a failover of Redis was seen to lose, and
/// longer than a command is late.
pub(super) const LEFT_FOR: Duration = Duration::from_secs(60);
/// What the broker is to do.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Act {
    Enter(Member),
    Leave,
}

/// One call, to be answered before the next of its membership.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Order {
    pub(super) key: Key,
    pub(super) act: Act,
    pub(super) generation: u64,
    /// Under which life of the node.
    pub(super) owner: Owner,
    place: Option<Place>,
    /// What might have stood before it.
    before: Option<u64>,
    /// The leave after which a membership is forgotten.
    is_last: bool,
}

/// What became of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Done,
    /// Surely not done.
    NotDone,
    /// Perhaps done, or done yet.
    Unknown,
}

/// How things are while the next call is asked for.
#[derive(Debug)]
pub(super) struct World<'a> {
    /// This life of the node, as [`Memberships::renew`] was told.
    pub(super) me: &'a Owner,
    /// It may write under it.
    pub(super) has_lease: bool,
    /// Where the topic is.
    pub(super) place: Option<Place>,
    /// The topic stands in the index under this life, so that whoever cleans up finds it.
    pub(super) is_indexed: bool,
    /// By any clock that does not go back.
    pub(super) now: Duration,
}

/// What comes next for a membership.
#[derive(Debug, PartialEq)]
pub(super) enum Next {
    /// Nothing, or it is on its way.
    Nothing,
    /// The node has no lease: nobody may enter under its life. Whoever leaves does so by the node's
    /// name, lease or not.
    NoLease,
    /// The index is to be written first.
    NoIndex,
    Call(Order),
}

/// What follows from an event for the index of topics, for which each slot holds its topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Index {
    Stays,
    Pin,
    Unpin,
}

/// A membership that has left and is forgotten before its time, for want of room.
pub(super) type GivenUp = Option<(Key, Index)>;

/// What of a wish is known to be done: under which life and at which place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stand {
    life: u64,
    place: Option<Place>,
}

#[derive(Debug)]
struct Slot {
    /// The newest entering.
    generation: u64,
    /// `None`: it is to be out.
    wish: Option<Member>,
    done: Option<Stand>,
    /// The earliest life under which an entry may stand.
    may_stand: Option<u64>,
    /// The generation of the call that is on its way.
    in_flight: Option<u64>,
    /// Somebody waits for an answer, though it may be done.
    is_asked: bool,
    /// The broker has had this entering.
    is_confirmed: bool,
    /// An entering may be carried out late: its answer was lost.
    is_unsure: bool,
    /// Until when it is remembered, once it has left.
    until: Duration,
    /// The topic is held in the index for it.
    is_held: bool,
}

impl Slot {
    fn new(generation: u64, member: Member) -> Self {
        Self {
            generation,
            wish: Some(member),
            done: None,
            may_stand: None,
            in_flight: None,
            is_asked: true,
            is_confirmed: false,
            is_unsure: false,
            until: Duration::ZERO,
            is_held: true,
        }
    }

    fn is_done(&self, life: u64, place: Option<Place>) -> bool {
        let at = |done: Stand| done.place == place && (self.wish.is_none() || done.life == life);
        self.done.is_some_and(at)
    }

    /// Its entry may stand under an earlier life, and must not go with it.
    fn is_behind(&self, life: u64) -> bool {
        self.wish.is_some() && self.may_stand.is_some_and(|stands| stands < life)
    }

    /// Nothing of it is at the broker, or can come there.
    fn is_void(&self) -> bool {
        let is_silent = self.may_stand.is_none() && !self.is_unsure && self.in_flight.is_none();
        self.wish.is_none() && self.done.is_none() && is_silent
    }

    fn be_out(&mut self) {
        self.wish = None;
        self.done = None;
        self.is_asked = false;
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Memberships {
    slots: FxHashMap<Key, Slot>,
    left: Left,
    generation: u64,
    life: u64,
    behind_count: usize,
    /// Slots that are in or not out yet.
    busy_count: usize,
}

impl Memberships {
    /// A session is to be a member. Where it is one, this asks once more under the same generation.
    /// Returns the generation, of which the answer will speak.
    pub(super) fn enter(&mut self, key: &Key, member: Member) -> (u64, Index) {
        let (next, life) = (self.generation + 1, self.life);
        if !self.slots.contains_key(key) {
            self.generation = next;
            self.busy_count += 1;
            self.slots.insert(key.clone(), Slot::new(next, member));
            return (next, Index::Pin);
        }
        let (generation, index) = self.change(key, |slot| {
            if slot.wish.is_some() {
                slot.is_asked = slot.in_flight != Some(slot.generation);
                return (slot.generation, Index::Stays);
            }
            let index = if slot.is_held {
                Index::Stays
            } else {
                Index::Pin
            };
            if slot.done.is_some() {
                // Its place may have lost the leave: should this entering fail, it leaves again.
                slot.may_stand = Some(life);
            }
            slot.generation = next;
            slot.wish = Some(member);
            slot.done = None;
            slot.is_asked = true;
            slot.is_confirmed = false;
            slot.is_held = true;
            (next, index)
        });
        self.generation = self.generation.max(generation);
        (generation, index)
    }

    /// A session is to be no member any more. The caller asks for what is next.
    pub(super) fn leave(&mut self, key: &Key) -> Index {
        if !self.slots.contains_key(key) {
            return Index::Stays;
        }
        self.change(key, |slot| {
            if slot.wish.is_some() {
                slot.be_out();
            }
        });
        self.forget_void(key)
    }

    /// Who asked for this entering waits no longer: it ends, unless the broker has had it. Whether
    /// a call for it is on its way.
    pub(super) fn abandon(&mut self, key: &Key, generation: u64) -> (bool, Index) {
        let Some(slot) = self.slots.get(key).filter(|s| s.generation == generation) else {
            return (false, Index::Stays);
        };
        let is_in_flight = slot.in_flight.is_some() || slot.is_unsure;
        if slot.is_confirmed {
            return (is_in_flight, Index::Stays);
        }
        (is_in_flight, self.leave(key))
    }

    /// The newest entering of a session in a topic.
    pub(super) fn generation(&self, key: &Key) -> Option<u64> {
        self.slots.get(key).map(|slot| slot.generation)
    }

    /// The entering for which somebody waits, while no call is on its way.
    pub(super) fn is_asked(&self, key: &Key) -> Option<u64> {
        let slot = self.slots.get(key).filter(|slot| slot.is_asked)?;
        Some(slot.generation)
    }

    /// What is next for a membership; a call counts as begun.
    pub(super) fn next(&mut self, key: &Key, world: &World<'_>) -> Next {
        let life = self.life;
        if !self.slots.contains_key(key) {
            return Next::Nothing;
        }
        self.change(key, |slot| {
            let is_over = slot.wish.is_none() && slot.is_unsure && world.now >= slot.until;
            let is_last = is_over && slot.done.is_some();
            let is_done = slot.is_done(life, world.place) && !slot.is_asked && !is_last;
            if slot.in_flight.is_some() || is_done {
                return Next::Nothing;
            }
            let act = match &slot.wish {
                Some(_) if !world.has_lease => return Next::NoLease,
                Some(_) if !world.is_indexed => return Next::NoIndex,
                Some(member) => Act::Enter(member.clone()),
                None => Act::Leave,
            };
            let before = slot.may_stand;
            if slot.wish.is_some() {
                slot.may_stand = Some(before.map_or(life, |before| before.min(life)));
            }
            slot.is_asked = false;
            slot.in_flight = Some(slot.generation);
            Next::Call(Order {
                key: key.clone(),
                act,
                generation: slot.generation,
                owner: world.me.clone(),
                place: world.place,
                before,
                is_last,
            })
        })
    }

    /// A call was answered. The caller asks for what is next, at once or, after a failure, later.
    pub(super) fn answered(
        &mut self,
        order: &Order,
        outcome: Outcome,
        now: Duration,
    ) -> (Index, GivenUp) {
        let key = &order.key;
        if !self.slots.contains_key(key) {
            return (Index::Stays, None);
        }
        let (mut index, mut given_up) = (Index::Stays, None);
        let mut is_forgotten = false;
        let has_left = self.change(key, |slot| {
            slot.in_flight = None;
            let stand = Stand {
                life: order.owner.incarnation,
                place: order.place,
            };
            let is_newest = slot.generation == order.generation;
            match (&order.act, outcome) {
                (Act::Enter(_), Outcome::Done) => {
                    slot.may_stand = Some(stand.life);
                    if is_newest && slot.wish.is_some() {
                        slot.done = Some(stand);
                        slot.is_confirmed = true;
                    }
                }
                (Act::Enter(_), _) => {
                    match outcome {
                        Outcome::NotDone => slot.may_stand = order.before,
                        _ => slot.is_unsure = true,
                    }
                    if is_newest && !slot.is_confirmed {
                        slot.be_out();
                    }
                }
                (Act::Leave, Outcome::Done) if is_newest && slot.wish.is_none() => {
                    slot.done = Some(stand);
                    slot.may_stand = None;
                    slot.until = now + LEFT_FOR;
                    is_forgotten = order.is_last;
                    return true;
                }
                (Act::Leave, _) => {}
            }
            false
        });
        if has_left {
            (index, given_up) = self.remember(key, is_forgotten);
        }
        match self.forget_void(key) {
            Index::Stays => (index, given_up),
            let_go => (let_go, given_up),
        }
    }

    /// A membership has left: kept for its time, and the topic let go where nothing can come.
    fn remember(&mut self, key: &Key, is_forgotten: bool) -> (Index, GivenUp) {
        if is_forgotten {
            return (self.forget(key), None);
        }
        let (until, index) = self.change(key, |slot| {
            let lets_go = slot.is_held && !slot.is_unsure;
            slot.is_held &= !lets_go;
            let index = if lets_go { Index::Unpin } else { Index::Stays };
            (slot.until, index)
        });
        let given_up = self.left.push(until, key.clone());
        let given_up = given_up.and_then(|(until, key)| {
            // What is on its way is remembered anew when it is answered.
            let slot = self.left_until(&key, until);
            let is_unsure = slot.filter(|slot| slot.in_flight.is_none())?.is_unsure;
            let index = match self.forget(&key) {
                Index::Unpin if is_unsure && self.left.stays(&key.0) => Index::Stays,
                index => index,
            };
            Some((key, index))
        });
        (index, given_up)
    }

    /// Takes one membership whose time is over: forgotten, or due for its last leave. `None`: there
    /// is none at this time.
    pub(super) fn expire(&mut self, now: Duration) -> Option<(Key, Index)> {
        loop {
            let (until, key) = self.left.pop(now)?;
            let Some(slot) = self.left_until(&key, until) else {
                continue;
            };
            // What is on its way is asked about again when it is answered.
            if slot.is_unsure || slot.in_flight.is_some() {
                return Some((key, Index::Stays));
            }
            let index = self.forget(&key);
            return Some((key, index));
        }
    }

    /// A membership that has left, while it is remembered until then.
    fn left_until(&self, key: &Key, until: Duration) -> Option<&Slot> {
        let is_left = |s: &&Slot| s.wish.is_none() && s.done.is_some() && s.until == until;
        self.slots.get(key).filter(is_left)
    }

    /// When [`Self::expire`] is to be called next.
    pub(super) fn expires_at(&self) -> Option<Duration> {
        self.left.next_at()
    }

    /// The node has this life now.
    pub(super) fn renew(&mut self, life: u64) {
        self.life = life;
        let behind = self.slots.values().filter(|slot| slot.is_behind(life));
        self.behind_count = behind.count();
    }

    /// Whether nothing that should stay stands under an earlier life any more.
    pub(super) fn all_stand(&self) -> bool {
        self.behind_count == 0
    }

    /// All memberships for which something is to be done, with their places of now.
    pub(super) fn due<'a>(
        &'a self,
        place_of: impl Fn(&Topic) -> Option<Place> + 'a,
    ) -> impl Iterator<Item = &'a Key> {
        let due = self.slots.iter();
        due.filter(move |(key, slot)| !slot.is_done(self.life, place_of(&key.0)))
            .map(|(key, _)| key)
    }

    /// All that are in.
    pub(super) fn inside(&self) -> impl Iterator<Item = &Key> {
        let inside = self.slots.iter().filter(|(_, slot)| slot.wish.is_some());
        inside.map(|(key, _)| key)
    }

    /// How many are known, with those that have left.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether all have left.
    pub(super) fn is_settled(&self) -> bool {
        self.busy_count == 0
    }

    fn forget_void(&mut self, key: &Key) -> Index {
        match self.slots.get(key) {
            Some(slot) if slot.is_void() => self.forget(key),
            _ => Index::Stays,
        }
    }

    fn forget(&mut self, key: &Key) -> Index {
        let Some(slot) = self.slots.remove(key) else {
            return Index::Stays;
        };
        self.behind_count -= usize::from(slot.is_behind(self.life));
        self.busy_count -= usize::from(is_busy(&slot));
        if slot.is_held {
            Index::Unpin
        } else {
            Index::Stays
        }
    }

    /// Changes a slot that is there, and the counts with it.
    fn change<T>(&mut self, key: &Key, change: impl FnOnce(&mut Slot) -> T) -> T {
        let life = self.life;
        let slot = self.slots.get_mut(key).expect("the caller found it");
        let before = (slot.is_behind(life), is_busy(slot));
        let changed = change(slot);
        let after = (slot.is_behind(life), is_busy(slot));
        self.behind_count = self.behind_count + usize::from(after.0) - usize::from(before.0);
        self.busy_count = self.busy_count + usize::from(after.1) - usize::from(before.1);
        changed
    }
}

/// In, or not out yet.
fn is_busy(slot: &Slot) -> bool {
    slot.wish.is_some() || slot.done.is_none()
}
