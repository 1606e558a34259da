//! What a node writes back, and no more of it than the store still lacks: pure.
//!
//! In: rows that the store lacked, and pages of what changed there since. Out: chunks to write. All nodes
//! may write back at the same time: each begins elsewhere, and leaves out what it has read from the others
//! meanwhile, so that together they write about as much as was lost, not that for every node. Bound: the
//! rows of one table.

use rustc_hash::FxHashMap;

use super::reader::{BACK, Page};
use super::{Mark, Row};

/// See the module.
#[derive(Debug)]
pub struct Back {
    rows: Vec<Row>,
    /// What the store has of them by now, as far as it was read.
    there: FxHashMap<Box<str>, Mark>,
}

impl Back {
    /// These are to be written, in an order that chance decides.
    #[must_use]
    pub fn new(mut rows: Vec<Row>, chance: &mut impl FnMut(usize) -> usize) -> Self {
        for nth in (1..rows.len()).rev() {
            rows.swap(nth, chance(nth + 1).min(nth));
        }
        Self {
            rows,
            there: FxHashMap::default(),
        }
    }

    /// The next [`BACK`] rows that the store lacks, as far as it was read; empty: there are none.
    pub fn chunk(&mut self) -> Vec<Row> {
        let mut chunk = Vec::new();
        while chunk.len() < BACK
            && let Some(row) = self.rows.pop()
        {
            let there = self.there.remove(&row.name);
            if there.is_none_or(|mark| mark.and(row.mark) != mark) {
                chunk.push(row);
            }
        }
        chunk
    }

    /// The store has this by now.
    pub fn saw(&mut self, page: &Page) {
        if self.rows.is_empty() {
            return;
        }
        for row in &page.rows {
            self.there.insert(row.name.clone(), row.mark);
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{RngExt as _, SeedableRng as _};

    use super::super::adding::{Added, Adding, Asked};
    use super::super::memory::Held;
    use super::*;

    const ROWS: u64 = 20_000;

    fn row(number: u64) -> Row {
        let mark = Mark {
            issued_before: 5,
            until_ms: 1_000_000,
        };
        Row {
            name: format!("u default user-{number}").into(),
            mark,
            at: number,
        }
    }

    /// How many rows are written by nodes that write in turn, and what the store has then.
    fn written(nodes: u64) -> (usize, Held) {
        let mut held = Held::default();
        let mut each: Vec<_> = (0..nodes)
            .map(|seed| {
                let mut rng = StdRng::seed_from_u64(seed);
                let mut chance = |below| rng.random_range(0..below);
                (Back::new((1..=ROWS).map(row).collect(), &mut chance), 0)
            })
            .collect();
        let mut count = 0;
        loop {
            let chunks: Vec<_> = each.iter_mut().map(|(back, _)| back.chunk()).collect();
            if chunks.iter().all(Vec::is_empty) {
                return (count, held);
            }
            for rows in chunks {
                count += rows.len();
                let adding = Adding {
                    asked: rows.iter().map(Asked::from).collect(),
                    most: ROWS as usize,
                    ..Adding::default()
                };
                assert!(matches!(held.add(&adding, 1_000, 0), Added::Stored(_)));
            }
            for (back, cursor) in &mut each {
                let mut page = held.read(*cursor, 1_000);
                while let Some(up_to) = page.up_to {
                    *cursor = up_to;
                    back.saw(&page);
                    page = held.read(up_to, 1_000);
                }
            }
        }
    }

    #[test]
    fn nodes_write_back_together_about_as_much_as_was_lost() {
        for nodes in [1, 3, 6] {
            let (count, held) = written(nodes);
            assert_eq!(held.read(0, 1_000).count, ROWS, "nothing is left out");
            // What is on its way at the same time is written more than once.
            let most = ROWS as usize * 3 / 2;
            assert!((ROWS as usize..=most).contains(&count), "{nodes}: {count}");
        }
    }

    #[test]
    fn what_the_store_has_weaker_is_written_all_the_same() {
        let mut back = Back::new((1..=600).map(row).collect(), &mut |below| below - 1);
        let mut chance = back.chunk();
        assert_eq!(chance.len(), BACK);
        let weaker = Mark {
            issued_before: 4,
            until_ms: 2_000_000,
        };
        let mut rows: Vec<_> = (1..=100).map(row).collect();
        rows[0].mark = weaker;
        back.saw(&Page::of(rows));
        chance = back.chunk();
        assert_eq!(chance, [row(1)]);
        assert!(back.chunk().is_empty());
    }
}
