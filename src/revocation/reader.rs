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

    /// The number to ask for what is new with.
    #[must_use]
    pub fn cursor(&self) -> u64 {
        self.cursor
    }

    /// Takes an answer to that. Returns whether nothing else is new.
    pub fn take_new(&mut self, page: &Page, table: &mut Table, news: &mut News) -> bool {
        for row in &page.rows {
            if table.take(row) {
                news.add(&row.name);
            }
        }
        // What is read while everything is comes once more.
        if self.whole.is_none() {
            self.remember(page);
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
        self.remember(page);
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

    fn remember(&mut self, page: &Page) {
        self.changes.extend(page.rows.iter().map(|row| row.at));
        let surplus = self.changes.len().saturating_sub(CHANGES_MAX);
        self.changes.drain(..surplus);
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
mod tests;
