//! Which entries a fetch brings: the heads of the streams, each priority and partition in its turn.
//!
//! In: the queues of some partitions. Out: entries in the order in which they are to be moved. Pure.
//! Bounds: [`FETCH_MAX`], [`FETCH_OF_STREAM_MAX`], [`FETCH_BYTES_MAX`] and one entry of each priority. A
//! priority leaves to each lower one what that one has, up to its share: [`FETCH_SHARE`] entries and as
//! large a part of the bytes. The first entry of each comes whatever its bytes.

use super::partition::PartitionQueue;
use crate::broker::queue::{
    Content, FETCH_BYTES_MAX, FETCH_MAX, FETCH_OF_STREAM_MAX, FETCH_SHARE, FetchedEntry, PRIORITIES,
};
use fanfare_protocol::ids::Priority;

/// Partitions with their numbers.
type Queues<'a> = [(u32, &'a PartitionQueue)];

/// The heads, the turn of streams beginning at `from`.
pub(super) fn heads(queues: &Queues<'_>, from: u64) -> Vec<FetchedEntry> {
    let mut taken = Taken::default();
    if queues.is_empty() {
        return taken.entries;
    }
    let begin = usize::try_from(from % queues.len() as u64).unwrap_or(0);
    let (last, first) = queues.split_at(begin);
    let in_turn = [first, last].concat();
    for (rank, priority) in PRIORITIES.into_iter().enumerate() {
        let most = Most::up_to(rank, &in_turn);
        for (partition, queue) in &in_turn {
            taken.take_of(*partition, queue, priority, &most);
        }
    }
    taken.entries
}

/// How much a fetch has at most, up to and with a priority.
struct Most {
    count: usize,
    bytes: usize,
}

impl Most {
    fn up_to(rank: usize, queues: &Queues<'_>) -> Self {
        let mut count = FETCH_MAX;
        for lower in PRIORITIES.into_iter().skip(rank + 1) {
            let due = |(_, queue): &(u32, &PartitionQueue)| queue.due(lower).len();
            let due_count: usize = queues.iter().map(due).sum();
            count -= due_count.min(FETCH_SHARE);
        }
        Self {
            count,
            bytes: FETCH_BYTES_MAX * count / FETCH_MAX,
        }
    }
}

/// What was taken so far.
#[derive(Default)]
struct Taken {
    entries: Vec<FetchedEntry>,
    bytes: usize,
}

impl Taken {
    /// Takes the head of a stream, as far as it fits.
    fn take_of(&mut self, partition: u32, queue: &PartitionQueue, priority: Priority, most: &Most) {
        let stream = queue.due(priority).iter();
        for (at, waiting) in stream.take(FETCH_OF_STREAM_MAX).enumerate() {
            let bytes = self.bytes + waiting.blob.len();
            let last = self.entries.last();
            let is_first = last.is_none_or(|last| last.priority != priority);
            let is_over = bytes > most.bytes && !is_first;
            if is_over || self.entries.len() >= most.count {
                return;
            }
            self.bytes = bytes;
            self.entries.push(FetchedEntry {
                partition,
                priority,
                id: waiting.id,
                content: Content::Blob(waiting.blob.clone()),
                // Nothing outlives this process, and so no home before this one.
                starts: u32::from(at == 0),
            });
        }
    }
}
