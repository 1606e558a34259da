//! A walk over the dead letters that stood in the partitions when it came near them.
//!
//! In: a place to begin after. Out: letters in the order of partitions, of one partition the oldest
//! first, and the partitions that cannot be read, each with its fault: the walk passes them over. Of a
//! partition it reads no more letters than stood there when it was counted: what dies again behind the
//! walk is not taken again, so every walk ends. Owner: each request of its walk. Bounds:
//! [`COUNTED_AT_ONCE`] partitions are counted at once, [`CHUNK`] letters read at once, and
//! [`LOOKED_MAX`] letters or [`LOOKED_BYTES_MAX`] bytes are what a call should look at.

use std::collections::VecDeque;

use futures_util::{StreamExt as _, stream};

use super::faults::PartitionFault;
use super::letters::LetterId;
use crate::api::state::ApiState;
use crate::broker::BrokerError;
use crate::broker::queue::{DEAD_MAX, DeadLetter};
use fanfare_protocol::ids::Position;

/// Letters that are asked for at once: each may have as much as the longest message.
const CHUNK: usize = 16;
/// Partitions that are counted at once, since most have no letter.
const COUNTED_AT_ONCE: u32 = 32;
/// So many letters a call looks at, whether it is about them or not.
const LOOKED_MAX: usize = 10_000;
/// The same in bytes of what letters carry.
const LOOKED_BYTES_MAX: usize = 64 << 20;

/// Where letters are.
pub(super) trait Shelf {
    /// How many partitions there are.
    fn partitions_count(&self) -> u32;

    /// How many letters a partition has.
    async fn count(&self, partition: u32) -> Result<u64, BrokerError>;

    /// Letters of a partition after one of them, the oldest first.
    async fn read(
        &self,
        partition: u32,
        after: Option<Position>,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, BrokerError>;
}

impl Shelf for ApiState {
    fn partitions_count(&self) -> u32 {
        self.config.redis.partitions
    }

    async fn count(&self, partition: u32) -> Result<u64, BrokerError> {
        let counted = self.broker.queue_depths(partition).await?;
        match counted.ill {
            None => Ok(counted.depths.dead),
            // It may be the key of these.
            Some(ill) => Err(BrokerError::Unexpected(ill)),
        }
    }

    async fn read(
        &self,
        partition: u32,
        after: Option<Position>,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, BrokerError> {
        self.broker.dead_letters(partition, after, limit).await
    }
}

/// A partition that has letters, and how many the walk may read there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Standing {
    pub(super) partition: u32,
    pub(super) count: usize,
}

/// The partition in which a walk is.
#[derive(Debug)]
struct Here {
    partition: u32,
    /// What was read last.
    after: Option<Position>,
    /// So many letters more stood there.
    left: usize,
    found: VecDeque<DeadLetter>,
}

/// See the module.
pub(super) struct Walk<'a, S> {
    shelf: &'a S,
    /// Where it begins.
    begin: Option<LetterId>,
    /// The first partition that is not counted yet.
    uncounted: u32,
    /// Those that are counted and have letters.
    counted: VecDeque<Standing>,
    here: Option<Here>,
    looked: usize,
    looked_bytes: usize,
    /// Partitions that could not be read.
    pub(super) faults: Vec<PartitionFault>,
}

impl<'a, S: Shelf> Walk<'a, S> {
    /// Begins after this place.
    pub(super) fn after(shelf: &'a S, begin: Option<LetterId>) -> Self {
        Self {
            shelf,
            begin,
            uncounted: begin.map_or(0, |begin| begin.partition),
            counted: VecDeque::new(),
            here: None,
            looked: 0,
            looked_bytes: 0,
            faults: Vec::new(),
        }
    }

    /// Whether it stands before a partition.
    pub(super) fn is_between(&self) -> bool {
        self.here.is_none()
    }

    /// Whether a call has looked at as much as it should.
    pub(super) fn is_long(&self) -> bool {
        self.looked >= LOOKED_MAX || self.looked_bytes >= LOOKED_BYTES_MAX
    }

    /// The next partition that has letters; `None`: there is none.
    pub(super) async fn ahead(&mut self) -> Option<Standing> {
        loop {
            if let Some(standing) = self.counted.front() {
                return Some(*standing);
            }
            let partitions_count = self.shelf.partitions_count();
            if self.uncounted >= partitions_count {
                return None;
            }
            self.count(partitions_count).await;
        }
    }

    /// Counts the next partitions.
    async fn count(&mut self, partitions_count: u32) {
        let first = self.uncounted;
        let end = first.saturating_add(COUNTED_AT_ONCE).min(partitions_count);
        let shelf = self.shelf;
        let counts = stream::iter(first..end)
            .map(|partition| async move { (partition, shelf.count(partition).await) })
            .buffered(COUNTED_AT_ONCE as usize);
        let counts: Vec<_> = counts.collect().await;
        for (partition, count) in counts {
            match count {
                Ok(0) => {}
                Ok(count) => self.counted.push_back(Standing {
                    partition,
                    count: usize::try_from(count).unwrap_or(usize::MAX),
                }),
                // Another key of it may be the bad one, so its letters are tried.
                Err(BrokerError::Unexpected(_)) => self.counted.push_back(Standing {
                    partition,
                    count: DEAD_MAX,
                }),
                Err(error) => self.faults.push(PartitionFault::of(partition, &error)),
            }
        }
        self.uncounted = end;
    }

    /// The next letter of the partition in which it is, or before which it stands; `None`: that
    /// partition is done with.
    pub(super) async fn here(&mut self) -> Option<DeadLetter> {
        if self.here.is_none() {
            let Standing { partition, count } = self.counted.pop_front()?;
            let begin = self.begin.filter(|begin| begin.partition == partition);
            self.here = Some(Here {
                partition,
                after: begin.map(|begin| begin.id),
                left: count,
                found: VecDeque::new(),
            });
        }
        let here = self.here.as_mut()?;
        if here.found.is_empty()
            && let Err(error) = here.look(self.shelf).await
        {
            let fault = PartitionFault::of(here.partition, &error);
            self.faults.push(fault);
        }
        let letter = here.found.pop_front();
        match &letter {
            Some(letter) => {
                self.looked += 1;
                self.looked_bytes += letter.kept.len();
            }
            None => self.here = None,
        }
        letter
    }

    /// The next letter of any partition; `None` behind the last.
    pub(super) async fn next(&mut self) -> Option<DeadLetter> {
        loop {
            if self.is_between() {
                self.ahead().await?;
            }
            let letter = self.here().await;
            if letter.is_some() {
                return letter;
            }
        }
    }
}

impl Here {
    /// Reads the next letters, of those that stood here.
    async fn look(&mut self, shelf: &impl Shelf) -> Result<(), BrokerError> {
        let limit = CHUNK.min(self.left);
        self.left -= limit;
        if limit == 0 {
            return Ok(());
        }
        let letters = match shelf.read(self.partition, self.after, limit).await {
            Ok(letters) => letters,
            Err(error) => {
                self.left = 0;
                return Err(error);
            }
        };
        if letters.len() < limit {
            self.left = 0;
        }
        self.after = letters.last().map(|letter| letter.id);
        self.found.extend(letters);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Mutex;

    use super::*;
    use crate::broker::queue::Why;
    use crate::broker::unavailable::Unavailable;
    use fanfare_protocol::ids::Priority;

    /// Letters by partition, and how often each partition was read.
    #[derive(Default)]
    struct Letters {
        by_partition: Mutex<BTreeMap<u32, Vec<u64>>>,
        reads: Mutex<Vec<(u32, usize)>>,
        away: Vec<u32>,
        foreign: Vec<u32>,
    }

    impl Letters {
        fn standing(rows: &[(u32, u64)]) -> Self {
            let rows = rows
                .iter()
                .map(|(partition, count)| (*partition, (1..=*count).collect()));
            Self {
                by_partition: Mutex::new(rows.collect()),
                ..Self::default()
            }
        }

        fn of(&self, partition: u32) -> Result<Vec<u64>, BrokerError> {
            if self.away.contains(&partition) {
                return Err(Unavailable::Away("at 10.0.0.1".into()).into());
            }
            if self.foreign.contains(&partition) {
                return Err(BrokerError::Unexpected(
                    "WRONGTYPE Operation against".into(),
                ));
            }
            let all = self.by_partition.lock().unwrap();
            Ok(all.get(&partition).cloned().unwrap_or_default())
        }
    }

    impl Shelf for Letters {
        fn partitions_count(&self) -> u32 {
            256
        }

        async fn count(&self, partition: u32) -> Result<u64, BrokerError> {
            Ok(self.of(partition)?.len() as u64)
        }

        async fn read(
            &self,
            partition: u32,
            after: Option<Position>,
            limit: usize,
        ) -> Result<Vec<DeadLetter>, BrokerError> {
            let letters = self.of(partition)?;
            let after = after.map_or(0, |after| after.ms);
            let letters = letters.into_iter().filter(|ms| *ms > after).take(limit);
            let letters = letters.map(|ms| DeadLetter {
                partition,
                id: Position { ms, seq: 0 },
                priority: Priority::Normal,
                entry: String::new(),
                why: Why::Failed,
                error: String::new(),
                kept: bytes::Bytes::new(),
            });
            let letters: Vec<_> = letters.collect();
            self.reads.lock().unwrap().push((partition, letters.len()));
            Ok(letters)
        }
    }

    #[tokio::test]
    async fn letters_that_die_again_behind_the_walk_are_not_taken_again() {
        let shelf = Letters::standing(&[(3, 40), (200, 2)]);
        let mut walk = Walk::after(&shelf, None);
        let mut taken = Vec::new();
        while let Some(letter) = walk.next().await {
            taken.push((letter.partition, letter.id.ms));
            // It is an entry again, and dies at once.
            let mut all = shelf.by_partition.lock().unwrap();
            let letters = all.get_mut(&letter.partition).unwrap();
            letters.retain(|ms| *ms != letter.id.ms);
            letters.push(1_000 + letter.id.ms);
        }
        let wanted = (1..=40).map(|ms| (3, ms)).chain([(200, 1), (200, 2)]);
        assert_eq!(taken, wanted.collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn no_letter_is_read_twice_and_no_empty_partition_is_read() {
        let shelf = Letters::standing(&[(0, 20), (1, 20), (2, 20), (255, 1)]);
        let begin = "1:5-0".parse().ok();
        let mut walk = Walk::after(&shelf, begin);
        let mut count = 0;
        while walk.next().await.is_some() {
            count += 1;
        }
        assert_eq!(count, 15 + 20 + 1);
        let reads = shelf.reads.lock().unwrap().clone();
        assert_eq!(reads, [(1, 15), (2, 16), (2, 4), (255, 1)]);
    }

    #[tokio::test]
    async fn partitions_that_cannot_be_read_are_told_and_end_nothing() {
        let shelf = Letters {
            away: vec![4],
            foreign: vec![5, 200],
            ..Letters::standing(&[(3, 1), (4, 7), (6, 1), (255, 1)])
        };
        let mut walk = Walk::after(&shelf, None);
        let mut partitions = Vec::new();
        while let Some(letter) = walk.next().await {
            partitions.push(letter.partition);
        }
        assert_eq!(partitions, [3, 6, 255]);
        let told = walk.faults.iter().map(|fault| {
            let message = fault.error.message.as_str();
            (
                fault.partition,
                fault.error.code,
                message.contains("another type"),
            )
        });
        let (away, foreign) = (
            fanfare_protocol::error::ErrorCode::Unavailable,
            fanfare_protocol::error::ErrorCode::Internal,
        );
        let wanted = [(4, away, false), (5, foreign, true), (200, foreign, true)];
        assert_eq!(told.collect::<Vec<_>>(), wanted);
    }
}
