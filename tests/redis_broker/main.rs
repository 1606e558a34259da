//! What only Redis can do to a broker: vanish, forget its scripts, cut the feed, become a replica.
//!
//! In: a real `redis-server` per case. Out: what is promised of the engine beyond the suite that
//! all engines share (`tests/conformance`).

mod deaf_proxy;
mod failures;
mod feeding;
#[allow(dead_code, reason = "each test binary uses another part")]
mod rig;
#[path = "../support/mod.rs"]
mod support;
