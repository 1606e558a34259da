//! The durable queue: the home of a partition moves what waits there into its topics.
//!
//! In: the partitions that this node holds, bells, time. Out: publications and dead letters, made from
//! entries by the broker, each in one step with its removal; and figures of what waits. Reading order:
//! [`rota`] decides which partitions are looked at, and when; [`pass`] fetches, judges ([`judge`]) and
//! moves; [`consumer`] runs as many passes as there is work for; `counting` looks where none came;
//! [`figures`] adds up what they saw, [`faults`] tells what holds them up, and [`pressure`] says how much of it more nodes would work off. What stands in Redis, and that it
//! is moved once, is the broker's (`broker::queue`): nothing here must be right for that, and a pass
//! may be repeated or given up at any point. Bounds: `queue.workers` passes at once, each with at
//! most what a fetch may bring.
//!
//! ```text
//!  bell, poll, due time ─▶ rota ─▶ pass: fetch ─▶ judge ─▶ move ─▶ ended: more, or nothing left
//!                           ▲                                         │
//!                           └────────── look again, and when ◀────────┘
//! ```

pub mod consumer;
mod counting;
pub mod faults;
pub mod figures;
pub mod judge;
mod pass;
pub mod pressure;
pub mod rota;
#[cfg(test)]
mod simulation;
mod traced;
