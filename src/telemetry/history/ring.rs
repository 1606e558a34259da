//! A ring of rows of numbers that one thread writes and any number read, without a lock.
//!
//! In: rows of one length, in their order. Out: the newest of them by their numbers. Owner: one writer
//! ([`Ring::push`]). Bound: the rows that it was made with; the oldest gives way.
//!
//! Each place has a version: odd while it is written, and even with the number of its row when it is
//! whole. A reader takes a row only where the version says so before and after it has read, so none
//! returns what is half of one row and half of another. It never waits: a place that is being written
//! has the oldest row, which is gone then.

use std::sync::atomic::{AtomicU64, Ordering, fence};

/// See the module.
#[derive(Debug)]
pub(super) struct Ring<const WORDS: usize> {
    places: Box<[Place<WORDS>]>,
    /// Rows that were written so far.
    written: AtomicU64,
}

#[derive(Debug)]
struct Place<const WORDS: usize> {
    version: AtomicU64,
    words: [AtomicU64; WORDS],
}

impl<const WORDS: usize> Place<WORDS> {
    fn new() -> Self {
        Self {
            version: AtomicU64::new(0),
            words: std::array::from_fn(|_| AtomicU64::new(0)),
        }
    }
}

/// The version of a place that has the row of this number whole.
fn whole(number: u64) -> u64 {
    2 * (number + 1)
}

impl<const WORDS: usize> Ring<WORDS> {
    /// What so many rows take.
    pub(super) const fn bytes(rows_max: usize) -> usize {
        rows_max * size_of::<Place<WORDS>>()
    }

    /// For so many rows.
    pub(super) fn new(rows_max: usize) -> Self {
        Self {
            places: (0..rows_max).map(|_| Place::new()).collect(),
            written: AtomicU64::new(0),
        }
    }

    /// Writes the next row. Of its one writer.
    pub(super) fn push(&self, row: &[u64; WORDS]) {
        let number = self.written.load(Ordering::Relaxed);
        let place = self.place(number);
        place.version.store(whole(number) - 1, Ordering::Relaxed);
        fence(Ordering::Release);
        for (word, value) in place.words.iter().zip(row) {
            word.store(*value, Ordering::Relaxed);
        }
        place.version.store(whole(number), Ordering::Release);
        self.written.store(number + 1, Ordering::Release);
    }

    /// How many rows were written so far; the newest has the number below that.
    pub(super) fn written(&self) -> u64 {
        self.written.load(Ordering::Acquire)
    }

    /// The row of this number; `None` where it is not there any more.
    pub(super) fn row(&self, number: u64) -> Option<[u64; WORDS]> {
        let place = self.place(number);
        let before = place.version.load(Ordering::Acquire);
        if before != whole(number) {
            return None;
        }
        let row = std::array::from_fn(|word| place.words[word].load(Ordering::Relaxed));
        fence(Ordering::Acquire);
        (place.version.load(Ordering::Relaxed) == before).then_some(row)
    }

    fn place(&self, number: u64) -> &Place<WORDS> {
        let place = number % self.places.len() as u64;
        &self.places[usize::try_from(place).expect("it is below the length")]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_rows_stay_and_the_oldest_give_way() {
        let ring: Ring<2> = Ring::new(3);
        assert_eq!((ring.written(), ring.row(0)), (0, None));
        for number in 0..5 {
            ring.push(&[number, 10 * number]);
        }
        assert_eq!(ring.written(), 5);
        assert_eq!((ring.row(1), ring.row(5)), (None, None));
        for number in 2..5 {
            assert_eq!(ring.row(number), Some([number, 10 * number]));
        }
    }

    #[test]
    fn no_reader_sees_half_a_row_while_places_are_written_again() {
        const READERS: usize = 3;
        const READS: usize = 50_000;
        // One place, so that what is read is what is written.
        let ring: Ring<64> = Ring::new(1);
        let (ended, torn) = (AtomicU64::new(0), AtomicU64::new(0));
        let read = || {
            let mut whole_count = 0;
            while whole_count < READS {
                let newest = ring.written().checked_sub(1);
                if let Some(number) = newest
                    && let Some(row) = ring.row(number)
                {
                    whole_count += 1;
                    torn.fetch_add(u64::from(row != [number; 64]), Ordering::Relaxed);
                }
            }
            ended.fetch_add(1, Ordering::Relaxed);
        };
        std::thread::scope(|scope| {
            for _ in 0..READERS {
                scope.spawn(read);
            }
            let mut number = 0;
            while ended.load(Ordering::Relaxed) < READERS as u64 {
                ring.push(&[number; 64]);
                number += 1;
                for _ in 0..64 {
                    std::hint::spin_loop();
                }
            }
        });
        assert_eq!(torn.load(Ordering::Relaxed), 0);
    }
}
