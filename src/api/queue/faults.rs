//! Partitions of the queue with which a call was not done, and why.
//!
//! In: what the broker said of one. Out: code and words for whoever called. Pure.

use serde::Serialize;
use utoipa::ToSchema;

use crate::broker::BrokerError;
use crate::http::error::as_body;
use fanfare_protocol::error::{ErrorCode, WireError};
use fanfare_protocol::event::ErrorBody;

/// A partition that was passed over.
#[derive(Debug, Serialize, ToSchema)]
pub struct PartitionFault {
    /// Which.
    pub partition: u32,
    /// Why: `unavailable` where it can be tried again, `internal` where a key of it is of another type.
    pub error: ErrorBody,
}

impl PartitionFault {
    /// The broker said this of it.
    pub(super) fn of(partition: u32, error: &BrokerError) -> Self {
        Self {
            partition,
            error: as_body(&told(partition, error)),
        }
    }
}

/// What callers are told of a fault of one partition.
fn told(partition: u32, error: &BrokerError) -> WireError {
    match error {
        BrokerError::Unexpected(text) if text.contains("WRONGTYPE") => WireError::new(
            ErrorCode::Internal,
            format!(
                "a key of the queue of partition {partition} is of another type in Redis: look with \
                 TYPE at those that begin with ff:q:{{{partition}}}: (ff is redis.prefix), and rename \
                 the one that is not Fanfare's"
            ),
        ),
        error => error.told(),
    }
}
