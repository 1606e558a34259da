//! How many bytes of request bodies may be held at the same time.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use fanfare_protocol::error::{ErrorCode, WireError};

/// How many bodies of the longest length may be held at the same time. With the default of
/// 8 MiB that is 128 MiB; short bodies never meet it.
pub const BODIES_AT_ONCE: usize = 16;

/// Bytes that one permit of the budget stands for, so that the count fits the semaphore.
const PERMIT_BYTES: usize = 1_024;

/// Bytes of bodies that may be held at the same time.
#[derive(Debug)]
pub struct BodyBudget(Arc<Semaphore>);

impl BodyBudget {
    /// Room for [`BODIES_AT_ONCE`] bodies of the longest length.
    #[must_use]
    pub fn new(body_bytes_max: usize) -> Self {
        let permits = BODIES_AT_ONCE * body_bytes_max.div_ceil(PERMIT_BYTES);
        Self(Arc::new(Semaphore::new(permits)))
    }

    /// Takes what a body of this length needs, without waiting.
    pub(super) fn take(&self, length: usize) -> Result<OwnedSemaphorePermit, WireError> {
        let permits = u32::try_from(length.div_ceil(PERMIT_BYTES)).unwrap_or(u32::MAX);
        Arc::clone(&self.0)
            .try_acquire_many_owned(permits)
            .map_err(|_full| {
                WireError::new(
                    ErrorCode::RateLimited,
                    "too many large request bodies at the same time",
                )
            })
    }
}
