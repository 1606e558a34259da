//! What a store is asked to add, and what came of it: pure.
//!
//! In: names, and times where they are not the usual ones. Out: plain values for both stores. Bounds:
//! the caller's; a call of the API names [`super::TOKENS_MAX`].

use super::Row;

/// One entry to add.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// Its name.
    pub name: Box<str>,
    /// Tokens that were issued before this second; `None`: all that may have been issued so far
    /// ([`Adding::clock_s`], [`Adding::leeway_s`]).
    pub issued_before: Option<u64>,
    /// When it is forgotten, unix milliseconds; `None`: as long from now as entries are kept.
    pub until_ms: Option<u64>,
}

impl From<&Row> for Asked {
    fn from(row: &Row) -> Self {
        Self {
            name: row.name.clone(),
            issued_before: Some(row.mark.issued_before),
            until_ms: Some(row.mark.until_ms),
        }
    }
}

/// What is to be added in one step.
#[derive(Debug, Clone, Default)]
pub struct Adding {
    /// The entries.
    pub asked: Vec<Asked>,
    /// How long this node keeps entries. Those of the call are kept for the longest that any node
    /// said, so that it does not matter which one takes it.
    pub kept_ms: u64,
    /// This node's clock, unix seconds: whoever issues tokens may go by it, or by that of the store,
    /// which counts up to [`super::AHEAD_MAX_S`] ahead.
    pub clock_s: u64,
    /// So many seconds a token's `iat` may lie ahead when it is taken.
    pub leeway_s: u64,
    /// Their changes get numbers above this one.
    pub above: u64,
    /// Most entries that the store may have.
    pub most: usize,
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Added {
    /// All of it is there; before which second the tokens of all of them were issued, which may be later
    /// than was asked.
    Stored(u64),
    /// Nothing was added: so many entries are there.
    Full(u64),
}

/// How the store is to go through all that it has.
#[derive(Debug, Clone, Default)]
pub struct Mending {
    /// How many entries it said that it has, and the sum of their prints; `None`: whatever it has.
    pub seen: Option<(u64, u64)>,
    /// For how long this node keeps entries: those that end sooner than others of their age are
    /// lengthened.
    pub kept_ms: u64,
    /// Names that nobody can read.
    pub unreadable: Vec<Vec<u8>>,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mended {
    /// It is whole. So many names had no entry that can be read, and are gone; the first of them, for
    /// people.
    Done(u64, Vec<String>),
    /// Nothing was done: other entries are there by now, or it was done a moment ago.
    Left,
}
