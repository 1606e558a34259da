//! What only Redis can do to a broker: ask who it is, vanish, forget its scripts, cut the feed, become a replica.
//!
//! In: a real `redis-server` per case. Out: what is promised of the engine beyond the suite that
//! all engines share (`tests/conformance`).

mod access;
mod asking;
mod away;
mod before;
mod clock_behind;
mod control;
mod cutting_proxy;
mod deaf_proxy;
mod failures;
mod feeding;
mod links;
mod lives;
mod nowhere;
mod publications;
mod queue;
mod queue_bells;
mod queue_cost;
mod queue_faults;
mod queue_hostile;
mod queue_large;
#[allow(dead_code, reason = "each test binary uses another part")]
mod queue_rig;
mod refusing;
mod refusing_pace;
mod releases;
mod replicas;
#[allow(dead_code, reason = "each test binary uses another part")]
mod rig;
mod script_cost;
mod wire;
mod wire_access;
mod wire_hostile;
