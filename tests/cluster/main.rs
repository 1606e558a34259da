//! The cluster over a real Redis: leases of nodes and partitions, occupancy, and what is left to
//! others when a node dies, pauses or is replaced.
//!
//! Each test starts its own `redis-server` on a free port and stops it. Waits are on what is to
//! happen, with a deadline of about ten times what it should take; nothing sleeps to be in step.

// In a test an unwrap is an assertion; clippy sees that only inside test functions.
#![allow(clippy::unwrap_used)]

mod agreement;
mod alone;
mod api_only;
mod apps;
mod databases;
mod hanging;
mod heartbeat_cost;
mod hosts;
mod incarnations;
mod lease_scripts;
/// The simulation's model of the scripts of nodes, which [`lease_scripts`] holds against them.
#[path = "../../src/cluster/simulation/leases.rs"]
#[allow(dead_code, reason = "the simulation asks it more")]
mod leases;
mod members;
mod membership;
mod names;
mod next_release;
mod occupancy;
mod occupancy_pages;
mod others;
mod outages;
mod partitions;
mod processes;
mod queue;
mod queue_blocked;
mod queue_xadd;
mod read_only;
mod reaper;
mod reaping_told;
mod rebalance;
mod revocation;
mod revocation_cost;
mod revocation_weather;
mod rig;
mod rolling;
mod rust_client;
mod scripts;
mod settings;
mod storm;
mod three_nodes;
/// The same of partitions, for [`scripts`].
#[path = "../../src/cluster/simulation/tokens.rs"]
mod tokens;
mod traces;
mod two_apps;

// The model names it as in the crate that it is a part of.
use fanfare::cluster;
