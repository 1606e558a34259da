//! How far the store was read: held by whoever changes it or reads it, one after the other.
//!
//! In: readings and changes. Out: nothing but itself. Owner: [`super::keeper`].

use std::collections::BTreeSet;
use std::time::Instant;

use super::stored::ReadTo;
use fanfare_protocol::ids::App;

/// How far was read.
#[derive(Debug, Default)]
pub(super) struct Reading {
    /// The number by which the next change is known; `None`: all is looked at.
    pub(super) number: Option<Box<str>>,
    /// How far that is.
    pub(super) read_to: ReadTo,
    /// The apps that were read in rounds of a reading that has not ended.
    pub(super) swept: BTreeSet<App>,
    /// When all was looked at.
    pub(super) looked_at: Option<Instant>,
    /// When all was read.
    pub(super) whole_at: Option<Instant>,
}
