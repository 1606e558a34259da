//! How much the in-process broker keeps, and what it forgets first when that is too much.
//!
//! In: each topic whose state changed, and the queues, with their weight before and after. Out: the topic that is to
//! forget next. Owner of the order in which topics were last changed, and of the sum of weights.
//! Weights are estimates of memory ([`TOPIC_BYTES`] and others). Bounds: one entry a topic.
//!
//! Topics without sessions come first, the longest unchanged of them; then those with sessions that
//! keep something. Each forgets its oldest entries and keys before it is forgotten as a whole; with
//! sessions only the former. Whatever was forgotten lies at or below the floor: a topic of which
//! nothing is known begins there, so that its next id is above, and a `since` below the floor is
//! answered by `retention` and never by a guess.

use std::collections::BTreeMap;

use fanfare_protocol::ids::{Position, Topic};

/// A topic without anything in it: its name, its state, and its places in two maps.
pub(super) const TOPIC_BYTES: usize = 768;
/// A retained entry beside its body.
pub(super) const ENTRY_BYTES: usize = 320;
/// An idempotency key beside its text.
pub(super) const KEY_BYTES: usize = 192;
/// A member of a topic.
pub(super) const MEMBER_BYTES: usize = 512;

/// What a topic forgot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Forgotten {
    /// Its oldest entry.
    Entry,
    /// Its oldest idempotency key.
    Key,
}

/// The place of a topic in the order.
#[derive(Debug, Clone, Copy)]
pub(super) struct Turn {
    number: u64,
    is_in_use: bool,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Room {
    bytes: usize,
    bytes_max: usize,
    next: u64,
    idle: BTreeMap<u64, Topic>,
    in_use: BTreeMap<u64, Topic>,
    floor: Option<Position>,
}

impl Room {
    /// Room for about so many bytes.
    pub(super) fn new(bytes_max: usize) -> Self {
        Self {
            bytes: 0,
            bytes_max,
            next: 0,
            idle: BTreeMap::new(),
            in_use: BTreeMap::new(),
            floor: None,
        }
    }

    /// A topic weighs something else now.
    pub(super) fn weigh(&mut self, before: usize, after: usize) {
        self.bytes = (self.bytes + after).saturating_sub(before);
    }

    /// What all topics and queues weigh.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// What they may weigh.
    pub(super) fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    /// Whether that is too much.
    pub(super) fn is_short(&self) -> bool {
        self.bytes > self.bytes_max
    }

    /// The topic changed: it is the last to forget. `turn` is its place before and after; one that is
    /// in use and keeps nothing has none.
    pub(super) fn changed(
        &mut self,
        topic: &Topic,
        turn: &mut Option<Turn>,
        is_in_use: bool,
        keeps: bool,
    ) {
        self.forget(turn);
        if is_in_use && !keeps {
            return;
        }
        self.next += 1;
        let number = self.next;
        self.order(is_in_use).insert(number, topic.clone());
        *turn = Some(Turn { number, is_in_use });
    }

    /// The topic has no place any more.
    pub(super) fn forget(&mut self, turn: &mut Option<Turn>) {
        if let Some(Turn { number, is_in_use }) = turn.take() {
            self.order(is_in_use).remove(&number);
        }
    }

    /// Who forgets next, if anybody can.
    pub(super) fn next_to_forget(&self) -> Option<Topic> {
        let first = self.idle.values().next();
        first.or_else(|| self.in_use.values().next()).cloned()
    }

    /// Something up to this position was forgotten with its topic.
    pub(super) fn raise_floor(&mut self, position: Position) {
        self.floor = self.floor.max(Some(position));
    }

    /// Below which nothing can be said of a topic that is not known.
    pub(super) fn floor(&self) -> Option<Position> {
        self.floor
    }

    fn order(&mut self, is_in_use: bool) -> &mut BTreeMap<u64, Topic> {
        match is_in_use {
            true => &mut self.in_use,
            false => &mut self.idle,
        }
    }
}
