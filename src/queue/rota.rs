//! Which partitions are looked at, and when: pure, with time as a value.
//!
//! In: the partitions that are held, rings, what a pass saw. Out: the next pass. Each partition is in
//! one pass at most, so that the next move of a stream goes out after the answer of the last. Owner:
//! the consumer. Bound: one slot a partition, and one number for each of at most as many masters; a pass
//! has at most [`PARTITIONS_PER_CALL`] partitions, a glance at most [`GLANCE_MAX`].
//!
//! Where something critical waits it is looked at first, then where something critical may wait, then
//! the rest; among equals who has waited longest. But one call of a master in [`URGENT_IN_A_ROW`] + 1
//! begins with who has waited longest, whatever for, so that the rest never stands still. Of those of
//! one pass, who was not its first for the longest time is so now: its streams of each priority come
//! first there. What failed goes alone.
//!
//! A partition is looked at when its bell rings, when something that is to come later is due, at once
//! where more is left, and otherwise once in [`POLL`]; once in [`POLL_OFTEN`] where entries came
//! without a bell within [`UNRUNG_FOR`], as those do that a backend writes itself. Polls of one server
//! go together. What failed is looked at after a wait that grows from [`RETRY_MIN`] to [`RETRY_MAX`],
//! for ever.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::broker::FeedNumber;
use crate::broker::queue::bells::Ring;
use crate::broker::queue::calls::CallOf;
use crate::broker::queue::{Depths, FETCH_MAX, HeldPartition, PARTITIONS_PER_CALL};

mod slot;

use slot::{Cause, Slot, Urgency};

/// How often a partition is looked at that nobody rang for.
pub const POLL: Duration = Duration::from_secs(1);
/// The same where entries came without a bell.
pub const POLL_OFTEN: Duration = Duration::from_millis(100);
/// How long that lasts after the last such entry.
pub const UNRUNG_FOR: Duration = Duration::from_secs(60);
/// So long after it was fetched last a partition in which nothing waits is fetched again, for what
/// grows old there.
pub const WHOLE: Duration = Duration::from_secs(60);
/// The most partitions of a glance, which reads nothing but where anything is: all of a usual cluster
/// in one call, half a millisecond of Redis. What has something is fetched by a pass of its own, so that
/// no partition waits for the work of others that were glanced at with it.
pub const GLANCE_MAX: usize = 256;
/// First wait after a failure; each is twice the one before, plus up to as much again.
pub const RETRY_MIN: Duration = Duration::from_millis(50);
/// Longest wait after a failure.
pub const RETRY_MAX: Duration = Duration::from_secs(5);

/// After so many calls of a master that began with what is urgent one begins with who has waited longest.
/// So what is critical waits for one call more, and the rest has a quarter of the calls at least.
pub const URGENT_IN_A_ROW: u8 = 3;

/// A call that is to be made.
#[derive(Debug, PartialEq, Eq)]
pub struct Pass {
    /// What its partitions have in common.
    pub call: CallOf,
    /// Which.
    pub held: Vec<HeldPartition>,
    /// The place among them from which on their entries come.
    pub from: u64,
    /// Nobody rang, and nothing waited in any of them: most likely nothing does.
    pub is_glance: bool,
}

/// What a pass saw of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// It was looked at.
    Looked {
        /// Something was there.
        has_come: bool,
        /// So many due entries are left.
        left: u64,
        /// So long until the next of those that are to come later.
        next_due: Option<Duration>,
    },
    /// It was glanced at, and something is there: a pass is to fetch it.
    Something,
    /// It was glanced at, and nobody said whether something is there.
    Unsaid,
    /// It could not be looked at, or not all was moved.
    Failed,
    /// Another node has it.
    Refused,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Rota {
    slots: BTreeMap<u32, Slot>,
    turn: u64,
    /// Of each master, how many calls in a row began with what is urgent.
    urgent: BTreeMap<FeedNumber, u8>,
}

impl Rota {
    /// These partitions are held now, by these tokens. Returns those that are so from now on, and
    /// those that are so no more.
    pub fn note(&mut self, held: &BTreeMap<u32, u64>, now: Instant) -> (Vec<u32>, Vec<u32>) {
        let mut taken = Vec::new();
        for (partition, token) in held {
            match self.slots.get_mut(partition) {
                Some(slot) if slot.token == *token => {}
                Some(slot) => {
                    slot.token = *token;
                    slot.ring(Ring::Unsaid, now);
                }
                None => {
                    taken.push(*partition);
                    self.slots.insert(*partition, Slot::new(*token, now));
                }
            }
        }
        let known = self.slots.keys().copied();
        let lost: Vec<_> = known
            .filter(|partition| !held.contains_key(partition))
            .collect();
        self.slots
            .retain(|partition, _| held.contains_key(partition));
        (taken, lost)
    }

    /// Something new waits in a partition.
    pub fn ring(&mut self, partition: u32, ring: Ring, now: Instant) {
        if let Some(slot) = self.slots.get_mut(&partition) {
            slot.ring(ring, now);
        }
    }

    /// How many partitions are to be looked at now.
    #[must_use]
    pub fn due_count(&self, now: Instant) -> usize {
        self.slots.values().filter(|slot| slot.is_due(now)).count()
    }

    /// The next pass, among calls that `may_begin`; [`Self::ended`] follows for each of its
    /// partitions. Those of no master wait for the next poll.
    pub fn take(
        &mut self,
        now: Instant,
        call_of: impl Fn(u32) -> Option<CallOf>,
        may_begin: impl Fn(&CallOf) -> bool,
    ) -> Option<Pass> {
        let due = self.slots.iter().filter(|(_, slot)| slot.is_due(now));
        let mut due: Vec<_> = due
            .map(|(partition, slot)| (slot.turn(now, false), *partition, slot.cause))
            .collect();
        due.sort_unstable_by_key(|(turn, ..)| *turn);
        let mut found = None;
        for ((urgency, _), partition, cause) in &due {
            match call_of(*partition) {
                Some(call) if may_begin(&call) => {
                    found = Some((call, *urgency, *cause));
                    break;
                }
                Some(_) => {}
                None => self.wait(*partition, now),
            }
        }
        let (mut call, urgency, mut cause) = found?;
        let is_general = self.is_general(call.feed, urgency);
        if is_general && urgency != Urgency::Rest {
            due.sort_unstable_by_key(|((_, due), ..)| *due);
            let first = due.iter().find_map(|(_, partition, cause)| {
                let of_same = |found: &CallOf| found.feed == call.feed && may_begin(found);
                Some((call_of(*partition).filter(of_same)?, *cause))
            });
            (call, cause) = first.unwrap_or((call, cause));
        }
        self.turn += 1;
        Some(self.fill(call, cause, is_general, now, call_of))
    }

    /// Whether the next call of a master begins with who has waited longest. `urgency`: of the first
    /// otherwise.
    fn is_general(&mut self, master: FeedNumber, urgency: Urgency) -> bool {
        let is_general = urgency == Urgency::Rest
            || (self.urgent.get(&master)).is_some_and(|count| *count >= URGENT_IN_A_ROW);
        if is_general {
            self.urgent.remove(&master);
            return true;
        }
        if !self.urgent.contains_key(&master) && self.urgent.len() >= self.slots.len() {
            self.urgent.clear(); // Some are masters that have been replaced.
        }
        *self.urgent.entry(master).or_default() += 1;
        false
    }

    /// Takes the partitions of a call, no more than fill a fetch by what is known of them: looking
    /// into one costs as much as several of its entries. A poll takes along those whose poll would
    /// come soon.
    fn fill(
        &mut self,
        call: CallOf,
        cause: Cause,
        is_general: bool,
        now: Instant,
        call_of: impl Fn(u32) -> Option<CallOf>,
    ) -> Pass {
        let soon = match cause {
            Cause::Poll => now + POLL / 2,
            Cause::Work | Cause::Later => now,
        };
        let mut candidates: Vec<_> = self
            .slots
            .iter_mut()
            .filter(|(partition, slot)| {
                let is_wanted =
                    slot.is_due(now) || (slot.cause == Cause::Poll && slot.is_due(soon));
                is_wanted && call_of(**partition) == Some(call)
            })
            .collect();
        candidates.sort_by_key(|(_, slot)| slot.turn(now, is_general));
        let first = candidates.first();
        let is_glance = first.is_some_and(|(_, slot)| slot.is_glance(now));
        let is_alone = first.is_some_and(|(_, slot)| slot.failures_count > 0);
        let mut room = if is_glance {
            GLANCE_MAX as u64
        } else {
            FETCH_MAX as u64
        };
        let fits = |(_, slot): &(&u32, &mut Slot)| {
            let is_in = room > 0;
            room = room.saturating_sub(slot.weight(now));
            is_in
        };
        let same = |(_, slot): &(&u32, &mut Slot)| {
            // One that has something would have all of them fetched, and one that fails might take the
            // others with it.
            slot.is_glance(now) == is_glance && (is_alone || slot.failures_count == 0)
        };
        let count_max = match (is_alone, is_glance) {
            (true, _) => 1,
            (false, true) => GLANCE_MAX,
            (false, false) => PARTITIONS_PER_CALL,
        };
        let chosen = candidates.into_iter().filter(same).take(count_max);
        let mut chosen: Vec<_> = chosen.take_while(fits).collect();
        let leader = chosen.iter_mut().enumerate();
        let leader = leader.min_by_key(|(_, (_, slot))| slot.led);
        let from = leader.map_or(0, |(at, (_, slot))| {
            slot.led = self.turn;
            at
        });
        let begun = chosen.into_iter().map(|(partition, slot)| {
            slot.is_busy = true;
            if !is_glance {
                slot.fetched = Some(now);
            }
            let (partition, token) = (*partition, slot.token);
            HeldPartition { partition, token }
        });
        Pass {
            call,
            held: begun.collect(),
            from: from as u64,
            is_glance,
        }
    }

    /// No master has it at the moment.
    fn wait(&mut self, partition: u32, now: Instant) {
        if let Some(slot) = self.slots.get_mut(&partition) {
            slot.look_at(now + POLL, Cause::Poll);
        }
    }

    /// A pass has ended. `held` as it was taken; `jitter` from 0 to 1.
    pub fn ended(&mut self, held: HeldPartition, seen: Seen, now: Instant, jitter: f64) {
        let Some(slot) = self.slots.get_mut(&held.partition) else {
            return;
        };
        if !slot.is_busy {
            return; // Lost and taken again meanwhile.
        }
        slot.is_busy = false;
        let cause = slot.cause;
        let rung = slot.rung.take();
        match seen {
            Seen::Looked {
                has_come,
                left,
                next_due,
            } => {
                slot.failures_count = 0;
                if has_come && cause == Cause::Poll && rung.is_none() {
                    slot.unrung = Some(now);
                }
                slot.looked(left, rung, next_due, now);
            }
            Seen::Something | Seen::Unsaid => {
                if seen == Seen::Something && rung.is_none() {
                    slot.unrung = Some(now);
                }
                slot.look_at(now, Cause::Work);
                slot.keep(rung.max(Some(Ring::Unsaid)));
            }
            Seen::Failed => {
                let doubled = RETRY_MIN * 2_u32.pow(slot.failures_count.min(10));
                slot.failures_count = slot.failures_count.saturating_add(1);
                let wait = doubled.mul_f64(1.0 + jitter.clamp(0.0, 1.0)).min(RETRY_MAX);
                slot.look_at(now + wait, Cause::Work);
                slot.keep(rung);
            }
            Seen::Refused if slot.token == held.token => {
                // It is held no more, which will be told; or it is told otherwise next time.
                slot.look_at(now + POLL, Cause::Poll);
                slot.keep(rung);
            }
            Seen::Refused => {
                slot.look_at(now, Cause::Work);
                slot.keep(rung);
            }
        }
    }

    /// So much waits in a partition. What a pass found comes before [`Self::ended`] of that pass.
    pub fn found(&mut self, partition: u32, depths: &Depths) {
        if let Some(slot) = self.slots.get_mut(&partition) {
            slot.left = depths.due.iter().sum();
            slot.critical = depths.due[0];
            slot.is_bare = slot.left + depths.later == 0;
        }
    }

    /// Partitions that are held.
    pub fn held(&self) -> impl Iterator<Item = u32> {
        self.slots.keys().copied()
    }

    /// How many partitions failed when they were looked at last, and again after that.
    #[must_use]
    pub fn failing_count(&self) -> usize {
        let failing = self.slots.values().filter(|slot| slot.failures_count > 1);
        failing.count()
    }

    /// When something is to be looked at next. What is due now and was not taken waits for a pass to
    /// end, not for a time.
    #[must_use]
    pub fn next_at(&self, now: Instant) -> Option<Instant> {
        let idle = self.slots.values().filter(|slot| !slot.is_busy);
        idle.map(|slot| slot.due).filter(|due| *due > now).min()
    }

    /// Whether this partition is held.
    #[must_use]
    pub fn holds(&self, partition: u32) -> bool {
        self.slots.contains_key(&partition)
    }
}

#[cfg(test)]
mod tests;
