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
    /// Tokens that were issued before this second; `None`: before the next full one.
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
    /// How long they are kept.
    pub kept_ms: u64,
    /// Their changes get numbers above this one.
    pub above: u64,
    /// Most entries that the store may have.
    pub most: usize,
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Added {
    /// All of it is there; before which second the tokens of the first were issued.
    Stored(u64),
    /// Nothing was added: so many entries are there.
    Full(u64),
}
