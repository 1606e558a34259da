//! A store of revocations in a test's hand: added to and read when the test says so.
//!
//! In: names and times. Out: what a node knows. Only in builds for tests; owns nothing.

use std::time::Instant;

use super::adding::{Added, Adding, Asked};
use super::known::Revocations;
use super::memory::Held;
use super::reader::{Next, Reader};

/// Revokes what was issued before this second.
pub(crate) fn add(held: &mut Held, name: &str, issued_before: u64) {
    let adding = Adding {
        asked: vec![Asked {
            name: name.into(),
            issued_before: Some(issued_before),
            until_ms: None,
        }],
        kept_ms: 10_000,
        above: 0,
        most: 100,
        ..Adding::default()
    };
    assert_eq!(held.add(&adding, 1_000, 0), Added::Stored(issued_before));
}

/// Reads all that is new.
pub(crate) fn read(known: &Revocations, reader: &mut Reader, held: &Held) {
    let mut since = reader.begin();
    while let Next::Ask(next) = known.take(&held.read(since, 1), reader) {
        since = next;
    }
    known.settled(Instant::now(), reader);
}
