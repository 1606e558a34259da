//! `[queue]`: how much the durable queue takes, and how fast a node works it off.
//!
//! In: values of the table of keys. Out: plain numbers for the API, which takes entries, and for the
//! node's consumer. Pure.

use std::time::Duration;

/// `[queue]`
#[derive(Debug, Clone)]
pub struct Queue {
    /// Entries of the whole cluster, due or to come later, from which on nothing more is taken.
    /// Default 50,000.
    pub capacity: u64,
    /// Calls of this node's consumer that are in flight at once, at most. Default 20.
    pub workers: usize,
    /// How long an idempotency key of an entry is remembered, in `idempotency_s`. Default a day.
    pub idempotency: Duration,
}
