//! The cluster: which nodes live, which of them is whose home, where topics are occupied.
//!
//! In: leases and occupancy in Redis, local session counts from the dispatcher. Out: a
//! [`view::View`] that everybody may read without waiting, answers for the API, and control
//! messages between nodes. Delivery depends on none of it: a view that is old costs time, never
//! messages.
//!
//! ```text
//! membership ── heartbeat ──▶ lease_store ──▶ Redis        sessions ── counts ──▶ occupancy ──▶ levels
//!     │  ◀── who lives ───────────┘                                                 │ batches
//!     └─▶ standing ─▶ view (with ring) ─▶ sessions, presence, API, occupancy        └─▶ occupancy_store ──▶ Redis
//!                        └─▶ partitions (leases) ── leases ──▶ partition_store ──▶ Redis
//!                                └─▶ reaper: what the dead left in these partitions
//! ```

pub mod comparison;
mod context_readers;
pub mod control;
mod due;
mod duties;
mod entry;
pub mod keeping;
pub mod lease_store;
pub mod load_told;
pub mod membership;
pub mod membership_machine;
pub mod occupancy;
mod occupancy_buffer;
mod occupancy_pages;
pub mod occupancy_store;
mod others;
pub mod own_lease;
pub mod partition_leases;
pub mod partition_store;
pub mod partitions;
pub mod queue_told;
pub mod reaper;
pub mod rebalance;
pub mod ring;
pub mod roster;
pub mod settled;
#[cfg(test)]
mod simulation;
pub mod texts;
mod trouble;
mod unanswered_leases;
pub mod view;
