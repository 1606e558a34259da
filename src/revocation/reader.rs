//! What a node asks the store for, and what it makes of the answer: pure.
//!
//! In: pages. Out: the next question, or what is to be written back, until the table is what the
//! store has. A page that ends with another count or sum than the table has says that the store lost
//! something, forgot something, or was changed by other hands: then everything is read once, and what
//! the store lacks is written back. Where it lacks nothing, or has what cannot be read, its count or sum
//! is wrong: it is asked to go through all that it has, and read once more. A node that agreed before
//! looks at everything only after some readings, by chance: mostly another one has written back by then,
//! and all nodes at once would keep Redis busy for minutes.
//!
//! ```text
//!   Since ── full page ──▶ Since       Since ── last page, agrees ──▶ settled
//!     │ last page, differs
//!     ▼
//!   Whole ── full page ──▶ Whole       Whole ── last page, agrees ──▶ settled
//!     │ └─── last page, lacks ──▶ write back ──▶ Since
//!     └───── last page, nothing lacking or unreadable ──▶ mend, once a reading ──▶ Whole
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
/// Names that cannot be read and that one call of the store names.
pub const UNREADABLE_MAX: usize = 100;
/// Readings without a look at everything, after one that did not bring agreement: the store takes
/// nothing back, or holds what this release cannot read. Twice as many after each further one.
const RESTS: u32 = 10;
/// The most of them.
const RESTS_MAX: u32 = 160;
/// A difference is looked into after at most so many readings.
pub const STAGGER_MAX: u32 = 3;

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
    /// For how long entries are kept that were made so far; 0: nobody has said so.
    pub kept_ms: u64,
    /// How many names came after the number that was asked for, at most [`PAGE`].
    pub found: usize,
    /// The number of the last of them; `None`: there was none.
    pub up_to: Option<u64>,
    /// Those that can be read, in the order of changes.
    pub rows: Vec<Row>,
    /// Those that cannot.
    pub unreadable: Vec<Vec<u8>>,
}

impl Page {
    /// One of these rows, all of which can be read.
    #[must_use]
    pub fn of(rows: Vec<Row>) -> Self {
        Self {
            found: rows.len(),
            up_to: rows.last().map(|row| row.at),
            rows,
            ..Self::default()
        }
    }
}

/// What is to be done next.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// Ask for what changed after this number.
    Ask(u64),
    /// Write this back, then tell it to [`Reader::written_back`].
    WriteBack(Vec<Row>),
    /// Let the store go through all that it has, then tell it to [`Reader::mended`].
    Mend {
        /// Its entries and the sum of their prints, as it says.
        seen: (u64, u64),
        /// Names that cannot be read, [`UNREADABLE_MAX`] at most.
        unreadable: Vec<Vec<u8>>,
    },
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
    /// They did at some time.
    has_agreed: bool,
    /// They do not, and when that is looked into is decided.
    is_staggered: bool,
    stagger: u32,
    rests: u32,
    /// Looks at everything in a row that brought no agreement.
    fails: u32,
    /// Numbers of changes that were read since table and store agreed last, the newest of them.
    changes: Vec<u64>,
    /// This reading has looked at everything.
    has_looked: bool,
    /// This reading has let the store go through everything.
    has_mended: bool,
    /// What could not be read while everything was.
    unreadable: Vec<Vec<u8>>,
    kept_ms: u64,
}

impl Reader {
    /// A difference that is found from now on is looked into after so many further readings,
    /// [`STAGGER_MAX`] at the most.
    pub fn stagger(&mut self, readings: u32) {
        self.stagger = readings.min(STAGGER_MAX);
    }

    /// While everything is read, for which many answers may be needed: the number to ask for what is
    /// new meanwhile with.
    #[must_use]
    pub fn is_looking(&self) -> Option<u64> {
        self.whole.map(|_| self.cursor)
    }

    /// Takes an answer to that. Returns whether nothing else is new.
    pub fn take_new(&mut self, page: &Page, table: &mut Table, news: &mut News) -> bool {
        for row in &page.rows {
            if table.take(row) {
                news.add(&row.name);
            }
        }
        self.cursor = page.up_to.unwrap_or(self.cursor);
        page.found < PAGE
    }

    /// Begins a reading. Returns the number to ask with.
    pub fn begin(&mut self) -> u64 {
        self.whole = None;
        self.has_looked = false;
        self.has_mended = false;
        self.rests = self.rests.saturating_sub(1);
        self.cursor
    }

    /// Up to which change everything was read; `None`: the store and the table differed.
    #[must_use]
    pub fn read_to(&self) -> Option<u64> {
        self.agreed.then_some(self.cursor)
    }

    /// For how long the store keeps what it has, as it said last; 0: it did not.
    #[must_use]
    pub fn kept_ms(&self) -> u64 {
        self.kept_ms
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
        self.kept_ms = page.kept_ms;
        let room = UNREADABLE_MAX.saturating_sub(self.unreadable.len());
        self.unreadable
            .extend(page.unreadable.iter().take(room).cloned());
        self.changes.extend(page.rows.iter().map(|row| row.at));
        let surplus = self.changes.len().saturating_sub(CHANGES_MAX);
        self.changes.drain(..surplus);
        let is_full = page.found >= PAGE;
        match &mut self.whole {
            None => {
                self.cursor = page.up_to.unwrap_or(self.cursor);
                if is_full {
                    return Next::Ask(self.cursor);
                }
                self.agreed = table.agrees(page.count, page.sum);
                if self.agreed {
                    self.agree();
                    return Next::Settled;
                }
                if self.has_agreed && !std::mem::replace(&mut self.is_staggered, true) {
                    self.rests = self.rests.max(self.stagger);
                }
                if self.has_looked || self.rests > 0 {
                    self.rests = self.rests.max(1);
                    return Next::Settled;
                }
                self.has_looked = true;
                self.look(table)
            }
            Some(at) => {
                *at = page.up_to.unwrap_or(*at).max(*at);
                if is_full {
                    return Next::Ask(*at);
                }
                // Numbers may have begun below the last one that was read.
                self.cursor = *at;
                self.whole = None;
                let lacking = table.end_whole(page.now_ms);
                self.agreed = table.agrees(page.count, page.sum);
                if self.agreed {
                    self.agree();
                    return Next::Settled;
                }
                self.rests = (RESTS << self.fails.min(8)).min(RESTS_MAX);
                self.fails += 1;
                let unreadable = std::mem::take(&mut self.unreadable);
                let is_wrong = lacking.is_empty() || !unreadable.is_empty();
                if is_wrong && !self.has_mended {
                    let seen = (page.count, page.sum);
                    return Next::Mend { seen, unreadable };
                }
                if lacking.is_empty() {
                    return Next::Settled;
                }
                Next::WriteBack(lacking)
            }
        }
    }

    fn agree(&mut self) {
        (self.rests, self.fails) = (0, 0);
        (self.has_agreed, self.is_staggered) = (true, false);
    }

    /// Begins to read everything.
    fn look(&mut self, table: &mut Table) -> Next {
        table.begin_whole();
        self.changes.clear();
        self.unreadable.clear();
        self.whole = Some(0);
        Next::Ask(0)
    }

    /// The store has gone through everything, or not: everything is read once more.
    pub fn mended(&mut self, table: &mut Table) -> Next {
        self.has_mended = true;
        self.look(table)
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
            ..Page::of(later.cloned().collect())
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
    fn a_store_whose_sum_is_wrong_is_mended_once_a_reading_and_read_again() {
        let mut rig = Rig::new();
        let held = [row("a default", 5), row("u default ada", 9)];
        let wrong = |since| Page {
            sum: 1,
            ..page(&held, since)
        };
        assert_eq!(rig.reader.begin(), 0);
        assert_eq!(rig.take(&wrong(0)), Next::Ask(0));
        let mend = Next::Mend {
            seen: (2, 1),
            unreadable: Vec::new(),
        };
        assert_eq!(rig.take(&wrong(0)), mend);
        assert_eq!(rig.reader.mended(&mut rig.table), Next::Ask(0));
        assert_eq!(rig.take(&wrong(0)), Next::Settled, "once");
        assert_eq!(rig.reader.read_to(), None);
        for _ in 0..RESTS {
            rig.reader.begin();
            rig.take(&wrong(9));
        }
        rig.reader.mended(&mut rig.table);
        assert_eq!(rig.take(&page(&held, 0)), Next::Settled);
        assert_eq!(rig.reader.read_to(), Some(9));
    }

    #[test]
    fn an_entry_that_cannot_be_read_is_dropped_and_written_back_by_who_knows_it() {
        let mut rig = Rig::new();
        let held = [row("a default", 5), row("u default ada", 9)];
        rig.reader.begin();
        rig.take(&page(&held, 0));
        let broken = |since| Page {
            found: 2,
            up_to: Some(9),
            unreadable: vec![b"u default ada".to_vec()],
            count: 2,
            ..page(&held[..1], since)
        };
        // Somebody who knows nothing reads what can be read.
        let mut new = Rig::new();
        new.reader.begin();
        assert_eq!(new.take(&broken(0)), Next::Ask(0));
        let Next::Mend { unreadable, .. } = new.take(&broken(0)) else {
            panic!("what cannot be read is to be dropped");
        };
        assert_eq!(unreadable, [b"u default ada".to_vec()]);
        assert_eq!(new.reader.mended(&mut new.table), Next::Ask(0));
        assert_eq!(new.take(&page(&held[..1], 0)), Next::Settled);
        assert_eq!((new.reader.read_to(), new.table.len()), (Some(5), 1));
        // And who knows it finds that the store lacks it.
        rig.reader.begin();
        assert_eq!(rig.take(&page(&held[..1], 9)), Next::Ask(0));
        let next = rig.take(&page(&held[..1], 0));
        assert_eq!(next, Next::WriteBack(vec![held[1].clone()]));
    }

    #[test]
    fn a_difference_that_another_node_mends_in_time_is_not_looked_into() {
        let mut rig = Rig::new();
        let mut held = vec![row("a default", 5), row("u default ada", 9)];
        rig.reader.begin();
        rig.take(&page(&held, 0));
        let lost = held.pop().unwrap();
        rig.reader.stagger(2);
        for _ in 0..2 {
            let since = rig.reader.begin();
            assert_eq!(rig.take(&page(&held, since)), Next::Settled);
            assert_eq!(rig.reader.read_to(), None, "nothing is promised meanwhile");
        }
        held.push(Row { at: 12, ..lost });
        let since = rig.reader.begin();
        assert_eq!(rig.take(&page(&held, since)), Next::Settled);
        assert_eq!(rig.reader.read_to(), Some(12));
        // And where nobody does, after two readings.
        held.pop();
        for _ in 0..2 {
            let since = rig.reader.begin();
            assert_eq!(rig.take(&page(&held, since)), Next::Settled);
        }
        let since = rig.reader.begin();
        assert_eq!(rig.take(&page(&held, since)), Next::Ask(0));
    }

    #[test]
    fn what_is_new_is_read_also_while_everything_is() {
        let mut rig = Rig::new();
        let name = |at: u64| format!("u default user-{at}");
        let mut held: Vec<_> = (1..=1_500).map(|at| row(&name(at), at)).collect();
        rig.reader.begin();
        for since in [0, 1_000] {
            rig.take(&page(&held, since));
        }
        assert_eq!(rig.reader.is_looking(), None);
        held.remove(7);
        rig.reader.begin();
        assert_eq!(rig.take(&page(&held, 1_500)), Next::Ask(0));
        assert_eq!(rig.take(&page(&held, 0)), Next::Ask(1_001));
        held.push(row("a default", 1_600));
        assert_eq!(rig.reader.is_looking(), Some(1_500));
        let new = page(&held, 1_500);
        assert!(rig.reader.take_new(&new, &mut rig.table, &mut rig.news));
        assert_eq!(rig.reader.is_looking(), Some(1_600));
        let Next::WriteBack(lacking) = rig.take(&page(&held, 1_001)) else {
            panic!("the store lacks something");
        };
        assert_eq!(lacking, [row(&name(8), 8)], "and nothing that is new");
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
                    Next::Mend { .. } => panic!("what the store lacks is no reason to mend it"),
                    Next::Settled => break,
                };
            }
            assert_eq!(rig.reader.read_to(), None);
        }
        assert_eq!(wholes, 2, "and more and more seldom");
    }
}
