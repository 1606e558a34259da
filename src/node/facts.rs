//! What this node is and can have, as its metrics tell it.
//!
//! In: the configuration, the build, the machine. Out: [`Facts`], once at start.

use crate::config::Config;
use crate::config::machine::{self, Machine};
use crate::telemetry::facts::Facts;

/// Of this process.
pub(super) fn here(config: &Config, commit: &'static str) -> Facts {
    let machine = Machine::here();
    Facts {
        version: env!("CARGO_PKG_VERSION"),
        commit,
        connections_max: config.server.sessions_max() as u64,
        memory_bytes_max: machine.memory_max().unwrap_or(0),
        cores_max: machine::cores_max(&machine),
    }
}
