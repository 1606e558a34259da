//! The cluster: which nodes live, which of them is whose home, where topics are occupied.
//!
//! In: leases and occupancy in Redis, local session counts. Out: a [`view::View`] that everybody
//! may read without waiting, and answers for the API. Delivery depends on none of it: a view that
//! is old costs time, never messages.

pub mod control;
pub mod lease_store;
mod levels;
pub mod membership;
pub mod occupancy;
pub mod occupancy_store;
pub mod ring;
pub mod standing;
pub mod view;
