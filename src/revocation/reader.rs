//! What a node asks the store for, and what it makes of the answer: pure.
//!
//! In: pages. Out: the next question, or what is to be written back, until the table is what the
//! store has. A page that ends with another count or sum than the table has says that the store lost
//! something, forgot something, or was changed by other hands: then everything is read once, and what
//! the store lacks is written back.
//!
//! ```text
//!   Since ── full page ──▶ Since       Since ── last page, agrees ──▶ settled
//!     │ last page, differs
//!     ▼
//!   Whole ── full page ──▶ Whole       Whole ── last page, nothing lacking ──▶ settled
//!     └───── last page ──▶ write back ──▶ Since
//! ```

use super::Row;
use super::news::News;
use super::table::Table;

/// Numbers of changes that are remembered, to recognise what other nodes say they have read.
pub const CHANGES_MAX: usize = 4_096;

/// Rows of a page.
pub const PAGE: usize = 1_000;
/// Rows that are written back by one call.
pub const BACK: usize = 500;
/// Readings without a look at everything, after one that did not bring agreement: the store takes
/// nothing back, or holds what this release cannot read.
const RESTS: u32 = 10;

/// An answer of the store.
#[derive(Debug, Clone, Default)]
pub struct Page {
    /// The store's clock, unix milliseconds.
    pub now_ms: u64,
    /// How many entries it has.
    pub count: u64,
    /// The sum of their prints.
    pub sum: u64,
    /// All that ended up to this time is forgotten.
    pub forgot_ms: u64,
    /// What changed after the number that was asked for, in the order of changes, at most [`PAGE`].
    pub rows: Vec<Row>,
}

/// What is to be done next.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// Ask for what changed after this number.
    Ask(u64),
    /// Write this back, then tell it to [`Reader::written_back`].
    WriteBack(Vec<Row>),
    /// The table holds all that the store has.
    Settled,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Reader {
    /// The number of the last change that was read.
    cursor: u64,
    /// Everything is being read: how far that is.
    whole: Option<u64>,
    /// The table and the store agreed when they were compared last.
    agreed: bool,
    rests: u32,
    /// Numbers of changes that were read since table and store agreed last, the newest of them.
    changes: Vec<u64>,
    /// This reading has looked at everything.
    has_looked: bool,
}

impl Reader {
    /// Begins a reading. Returns the number to ask with.
    pub fn begin(&mut self) -> u64 {
        self.whole = None;
        self.has_looked = false;
        self.rests = self.rests.saturating_sub(1);
        self.cursor
    }

    /// Up to which change everything was read; `None`: the store and the table differed.
    #[must_use]
    pub fn read_to(&self) -> Option<u64> {
        self.agreed.then_some(self.cursor)
    }

    /// The numbers of the changes that were read since this was asked last.
    pub fn take_changes(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.changes)
    }

    /// Takes an answer into the table. What is news is added to `news`.
    pub fn take(&mut self, page: &Page, table: &mut Table, news: &mut News) -> Next {
        table.expire(page.forgot_ms);
        for row in &page.rows {
            if table.take(row) {
                news.add(&row.name);
            }
        }
        let last = page.rows.last().map(|row| row.at);
        self.changes.extend(page.rows.iter().map(|row| row.at));
        let surplus = self.changes.len().saturating_sub(CHANGES_MAX);
        self.changes.drain(..surplus);
        let is_full = page.rows.len() >= PAGE;
        match &mut self.whole {
            None => {
                self.cursor = last.unwrap_or(self.cursor);
                if is_full {
                    return Next::Ask(self.cursor);
                }
                self.agreed = table.agrees(page.count, page.sum);
                if self.agreed {
                    self.rests = 0;
                    return Next::Settled;
                }
                if self.has_looked || self.rests > 0 {
                    self.rests = self.rests.max(1);
                    return Next::Settled;
                }
                table.begin_whole();
                self.changes.clear();
                self.has_looked = true;
                self.whole = Some(0);
                Next::Ask(0)
            }
            Some(at) => {
                *at = last.unwrap_or(*at);
                if is_full {
                    return Next::Ask(*at);
                }
                // Numbers may have begun below the last one that was read.
                self.cursor = *at;
                self.whole = None;
                let lacking = table.end_whole(page.now_ms);
                self.agreed = table.agrees(page.count, page.sum);
                if self.agreed {
                    return Next::Settled;
                }
                self.rests = RESTS;
                if lacking.is_empty() {
                    return Next::Settled;
                }
                Next::WriteBack(lacking)
            }
        }
    }

    /// What was to be written back was taken by the store, or not. The table holds all that the store
    /// has either way.
    pub fn written_back(&mut self, is_taken: bool) -> Next {
        if is_taken {
            return Next::Ask(self.cursor);
        }
        Next::Settled
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::revocation::{Mark, PRINTS, print_of};

    fn row(name: &str, at: u64) -> Row {
        Row {
            name: name.into(),
            mark: Mark {
                issued_before: at,
                until_ms: 1_000,
            },
            at,
        }
    }

    /// What a store with these rows answers.
    fn page(held: &[Row], since: u64) -> Page {
        let sum = held.iter().map(|row| print_of(&row.name, row.mark));
        let later = held.iter().filter(|row| row.at > since).take(PAGE);
        Page {
            now_ms: 10,
            count: held.len() as u64,
            sum: sum.fold(0, |sum, print| (sum + print) % PRINTS),
            forgot_ms: 0,
            rows: later.cloned().collect(),
        }
    }

    struct Rig {
        reader: Reader,
        table: Table,
        news: News,
    }

    impl Rig {
        fn new() -> Self {
            Self {
                reader: Reader::default(),
                table: Table::default(),
                news: News::default(),
            }
        }

        fn take(&mut self, page: &Page) -> Next {
            self.reader.take(page, &mut self.table, &mut self.news)
        }
    }

    #[test]
    fn only_what_changed_is_read_while_nothing_is_lost() {
        let mut rig = Rig::new();
        let mut held = vec![row("a default", 5)];
        assert_eq!(rig.reader.begin(), 0);
        assert_eq!(rig.take(&page(&held, 0)), Next::Settled);
        assert_eq!(rig.reader.read_to(), Some(5));
        held.push(row("u default ada", 9));
        assert_eq!(rig.reader.begin(), 5);
        assert_eq!(rig.take(&page(&held, 5)), Next::Settled);
        assert_eq!((rig.reader.read_to(), rig.table.len()), (Some(9), 2));
    }

    #[test]
    fn full_pages_are_followed_to_the_end() {
        let mut rig = Rig::new();
        let name = |at: u64| format!("u default user-{at}");
        let held: Vec<_> = (1..=2_500).map(|at| row(&name(at), at)).collect();
        let mut next = Next::Ask(rig.reader.begin());
        let mut asked = Vec::new();
        while let Next::Ask(since) = next {
            asked.push(since);
            next = rig.take(&page(&held, since));
        }
        assert_eq!((next, asked), (Next::Settled, vec![0, 1_000, 2_000]));
        assert_eq!(rig.reader.read_to(), Some(2_500));
    }

    #[test]
    fn what_a_failover_lost_is_written_back_once() {
        let mut rig = Rig::new();
        let held = [row("a default", 5), row("u default ada", 9)];
        rig.reader.begin();
        rig.take(&page(&held, 0));
        // The last change is lost, and another one has a lower number than it had.
        let mut held = vec![held[0].clone(), row("u default bob", 7)];
        rig.reader.begin();
        assert_eq!(rig.take(&page(&held, 9)), Next::Ask(0));
        assert_eq!(rig.reader.read_to(), None, "nothing is promised meanwhile");
        let Next::WriteBack(lacking) = rig.take(&page(&held, 0)) else {
            panic!("the store lacks something");
        };
        assert_eq!(lacking, [row("u default ada", 9)]);
        assert_eq!(rig.reader.written_back(true), Next::Ask(7));
        held.push(Row {
            at: 12,
            ..lacking[0].clone()
        });
        assert_eq!(rig.take(&page(&held, 7)), Next::Settled);
        assert_eq!((rig.reader.read_to(), rig.table.len()), (Some(12), 3));
    }

    #[test]
    fn a_store_that_takes_nothing_back_is_not_read_whole_all_the_time() {
        let mut rig = Rig::new();
        rig.reader.begin();
        rig.take(&page(&[row("a default", 5)], 0));
        let mut wholes = 0;
        for _ in 0..25 {
            let mut next = Next::Ask(rig.reader.begin());
            loop {
                next = match next {
                    Next::Ask(since) => rig.take(&page(&[], since)),
                    Next::WriteBack(_) => {
                        wholes += 1;
                        rig.reader.written_back(false)
                    }
                    Next::Settled => break,
                };
            }
            assert_eq!(rig.reader.read_to(), None);
        }
        assert!((2..=4).contains(&wholes), "{wholes}");
    }
}
