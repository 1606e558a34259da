//! How many bytes of request bodies may be held at the same time.
//!
//! In: the length that a body announces. Out: its part of the budget, or a refusal. Short bodies have a
//! budget of their own, so that long ones which come slowly keep nobody else out. Bounds:
//! [`BODIES_AT_ONCE`] of the longest, [`SHORT_BODIES_AT_ONCE`] of [`SHORT_BYTES`].

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use fanfare_protocol::error::{ErrorCode, WireError};

/// How many bodies of the longest length may be held at the same time. With the default of
/// 8 MiB that is 128 MiB.
pub const BODIES_AT_ONCE: usize = 16;

/// A body that announces no more than this is a short one.
pub const SHORT_BYTES: usize = 64 * 1_024;

/// How many short bodies of that length may be held beside the others: as many as there are connections
/// of the API at most, so that each finds room. That is 64 MiB.
pub const SHORT_BODIES_AT_ONCE: usize = 1_024;

/// When a caller should come again whose body found no room, in milliseconds.
const AGAIN_MS: std::ops::RangeInclusive<u64> = 1_000..=5_000;

/// Bytes that one permit of the budget stands for, so that the count fits the semaphore.
const PERMIT_BYTES: usize = 1_024;

/// Bytes of bodies that may be held at the same time.
#[derive(Debug)]
pub struct BodyBudget {
    any: Arc<Semaphore>,
    short: Arc<Semaphore>,
}

impl BodyBudget {
    /// Room for [`BODIES_AT_ONCE`] bodies of the longest length, and for short ones.
    #[must_use]
    pub fn new(body_bytes_max: usize) -> Self {
        let room = |count: usize, bytes: usize| {
            Arc::new(Semaphore::new(count * bytes.div_ceil(PERMIT_BYTES)))
        };
        Self {
            any: room(BODIES_AT_ONCE, body_bytes_max),
            short: room(SHORT_BODIES_AT_ONCE, SHORT_BYTES),
        }
    }

    /// Takes what a body of this length needs, without waiting. One that announces none may turn out to
    /// be of any length, up to the longest.
    pub(super) fn take(
        &self,
        announced: Option<usize>,
        body_bytes_max: usize,
    ) -> Result<OwnedSemaphorePermit, WireError> {
        let (room, length) = match announced {
            Some(length) if length <= SHORT_BYTES => (&self.short, length),
            length => (&self.any, length.unwrap_or(body_bytes_max)),
        };
        let permits = u32::try_from(length.div_ceil(PERMIT_BYTES)).unwrap_or(u32::MAX);
        let taken = Arc::clone(room).try_acquire_many_owned(permits);
        taken.map_err(|_full| {
            let text = "too many large request bodies at the same time";
            let mut error = WireError::new(ErrorCode::RateLimited, text);
            // Not all at the same time again.
            error.retry_after_ms = Some(rand::random_range(AGAIN_MS));
            error
        })
    }
}
