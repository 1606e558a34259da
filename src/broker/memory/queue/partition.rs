//! The queue of one partition as the in-process broker keeps it.
//!
//! In: entries, claims and dead letters, under the broker's lock, with the time as an argument. Out:
//! answers that are those of the Redis scripts. Owner of four streams, of what is to come later, and
//! of dead letters. Bounds: [`DEAD_MAX`] and [`DEAD_LIFE_MS`] for the latter; the rest by the memory
//! of all of them together ([`super::queues`]).

use std::collections::{BTreeMap, VecDeque};
use std::fmt;

use bytes::Bytes;

use crate::broker::queue::bells::Ring;
use crate::broker::queue::{DEAD_LIFE_MS, DEAD_MAX, DeadLetter, Depths, PRIORITIES, rank};
use fanfare_protocol::ids::{Position, Priority};

/// An entry beside its blob, wherever it waits.
const QUEUED_BYTES: usize = 160;
/// A dead letter beside its texts and what is kept.
const DEAD_BYTES: usize = 256;

/// About how much memory an entry takes up.
pub(super) fn queued_bytes(blob: &Bytes) -> usize {
    QUEUED_BYTES + blob.len()
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct PartitionQueue {
    /// As [`PRIORITIES`] has them.
    streams: [Stream; 4],
    /// By the time when it is due, then in the order of acceptance.
    later: BTreeMap<DueAt, Later>,
    /// Oldest first.
    dead: VecDeque<DeadLetter>,
    dead_last: Position,
    /// What waits weighs so much.
    bytes: usize,
    dead_bytes: usize,
}

/// When an entry is due, and when it was accepted: unix milliseconds and a number of its own, which
/// is about the time in microseconds.
type DueAt = (u64, u64);

/// Due entries of one priority, and the last id, below which none is given.
#[derive(Debug, Default)]
struct Stream {
    last: Position,
    entries: VecDeque<Waiting>,
}

/// A due entry.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) id: Position,
    pub(super) blob: Bytes,
    /// The name that it was given where it was to come later; otherwise its id is its name.
    name: Option<LaterName>,
}

#[derive(Debug)]
struct Later {
    priority: Priority,
    blob: Bytes,
    name: LaterName,
}

/// The name of an entry that is to come later: when it was accepted, and a random number.
#[derive(Debug, Clone, Copy)]
pub(super) struct LaterName {
    pub(super) accepted_us: u64,
    pub(super) random: u64,
}

impl fmt::Display for LaterName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016}-{:016x}", self.accepted_us, self.random)
    }
}

/// The id that `XADD` would give.
fn id_after(last: Position, now_ms: u64) -> Position {
    if now_ms > last.ms {
        return Position { ms: now_ms, seq: 0 };
    }
    Position {
        ms: last.ms,
        seq: last.seq + 1,
    }
}

impl PartitionQueue {
    /// About how much memory what waits takes up.
    pub(super) fn waiting_bytes(&self) -> usize {
        self.bytes
    }

    /// About how much memory dead letters take up.
    pub(super) fn dead_bytes(&self) -> usize {
        self.dead_bytes
    }

    /// How many entries wait.
    pub(super) fn waiting_count(&self) -> usize {
        let due: usize = self.streams.iter().map(|stream| stream.entries.len()).sum();
        due + self.later.len()
    }

    /// The id of the oldest dead letter.
    pub(super) fn oldest_dead(&self) -> Option<Position> {
        Some(self.dead.front()?.id)
    }

    /// Due entries of a priority, in their order.
    pub(super) fn due(&self, priority: Priority) -> &VecDeque<Waiting> {
        &self.streams[rank(priority)].entries
    }

    /// Puts an entry that may be published now behind those of its stream, and behind all that became
    /// due before it; returns its id, and whether its partition has something new to look for.
    pub(super) fn put(
        &mut self,
        priority: Priority,
        blob: Bytes,
        now_ms: u64,
    ) -> (Position, Option<Ring>) {
        let have_come = self.let_due(now_ms, usize::MAX).then_some(Ring::Unsaid);
        let (id, was_empty) = self.append(priority, blob, None, now_ms);
        (id, have_come.max(was_empty.then(|| Ring::of(priority))))
    }

    fn append(
        &mut self,
        priority: Priority,
        blob: Bytes,
        name: Option<LaterName>,
        now_ms: u64,
    ) -> (Position, bool) {
        self.bytes += queued_bytes(&blob);
        let stream = &mut self.streams[rank(priority)];
        let was_empty = stream.entries.is_empty();
        let id = id_after(stream.last, now_ms);
        stream.last = id;
        stream.entries.push_back(Waiting { id, blob, name });
        (id, was_empty)
    }

    /// Puts an entry among those that are to come later; returns whether it is the first of them.
    pub(super) fn put_later(
        &mut self,
        due_ms: u64,
        name: LaterName,
        priority: Priority,
        blob: Bytes,
    ) -> bool {
        self.bytes += queued_bytes(&blob);
        let due_at: DueAt = (due_ms, name.accepted_us);
        let later = Later {
            priority,
            blob,
            name,
        };
        self.later.insert(due_at, later);
        self.later.keys().next() == Some(&due_at)
    }

    /// Moves what is due into its stream, so many at most; returns whether there was any.
    pub(super) fn let_due(&mut self, now_ms: u64, count_max: usize) -> bool {
        for nth in 0..count_max {
            let first = self.later.first_entry();
            let Some(due) = first.filter(|first| first.key().0 <= now_ms) else {
                return nth > 0;
            };
            let Later {
                priority,
                blob,
                name,
            } = due.remove();
            self.bytes -= queued_bytes(&blob);
            self.append(priority, blob, Some(name), now_ms);
        }
        count_max > 0
    }

    /// Takes an entry out of its stream; returns its name, or nothing where it is not there.
    pub(super) fn claim(&mut self, priority: Priority, id: Position) -> Option<String> {
        let entries = &mut self.streams[rank(priority)].entries;
        let found = entries.binary_search_by_key(&id, |waiting| waiting.id);
        let claimed = entries.remove(found.ok()?)?;
        self.bytes -= queued_bytes(&claimed.blob);
        let name = claimed.name.map(|name| name.to_string());
        Some(name.unwrap_or_else(|| id.to_string()))
    }

    /// Keeps a dead letter, which is given its id; returns how many others made room for it.
    pub(super) fn bury(&mut self, letter: DeadLetter, now_ms: u64) -> u64 {
        self.sweep_dead(now_ms);
        let mut dropped_count = 0;
        while self.dead.len() >= DEAD_MAX {
            self.drop_oldest_dead();
            dropped_count += 1;
        }
        let id = id_after(self.dead_last, now_ms);
        self.dead_last = id;
        self.dead_bytes += dead_bytes(&letter);
        self.dead.push_back(DeadLetter { id, ..letter });
        dropped_count
    }

    /// Dead letters after one of them, the oldest first.
    pub(super) fn dead_letters(
        &mut self,
        after: Option<Position>,
        limit: usize,
        now_ms: u64,
    ) -> Vec<DeadLetter> {
        self.sweep_dead(now_ms);
        let is_before = |letter: &DeadLetter| after.is_some_and(|after| letter.id <= after);
        let begin = self.dead.partition_point(is_before);
        self.dead.iter().skip(begin).take(limit).cloned().collect()
    }

    /// Drops dead letters; returns how many of them were there.
    pub(super) fn drop_dead(&mut self, letters: &[Position], now_ms: u64) -> u64 {
        self.sweep_dead(now_ms);
        let mut dropped_count = 0;
        for id in letters {
            let found = self.dead.binary_search_by_key(id, |letter| letter.id);
            if let Some(letter) = found.ok().and_then(|at| self.dead.remove(at)) {
                self.dead_bytes -= dead_bytes(&letter);
                dropped_count += 1;
            }
        }
        dropped_count
    }

    /// What waits.
    pub(super) fn depths(&mut self, now_ms: u64) -> Depths {
        self.sweep_dead(now_ms);
        Depths {
            due: PRIORITIES.map(|priority| self.due(priority).len() as u64),
            later: self.later.len() as u64,
            dead: self.dead.len() as u64,
            next_due_ms: self.later.keys().next().map(|(due_ms, _)| *due_ms),
            oldest_ms: PRIORITIES.map(|priority| Some(self.due(priority).front()?.id.ms)),
        }
    }

    /// Frees what is over its life, and what room a backlog that is gone took up.
    pub(super) fn sweep(&mut self, now_ms: u64) {
        self.sweep_dead(now_ms);
        for stream in &mut self.streams {
            if stream.entries.is_empty() {
                stream.entries = VecDeque::new();
            }
        }
    }

    fn sweep_dead(&mut self, now_ms: u64) {
        let is_over = |letter: &DeadLetter| letter.id.ms.saturating_add(DEAD_LIFE_MS) < now_ms;
        while self.dead.front().is_some_and(is_over) {
            self.drop_oldest_dead();
        }
    }

    /// Drops the oldest dead letter.
    pub(super) fn drop_oldest_dead(&mut self) {
        if let Some(oldest) = self.dead.pop_front() {
            self.dead_bytes -= dead_bytes(&oldest);
        }
    }
}

fn dead_bytes(letter: &DeadLetter) -> usize {
    DEAD_BYTES + letter.entry.len() + letter.error.len() + letter.kept.len()
}
