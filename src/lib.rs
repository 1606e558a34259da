//! Fanfare: a realtime gateway. Any node delivers to any user, and nothing that was accepted is
//! lost, doubled or reordered in silence.

pub mod broker;
pub mod cli;
pub mod config;
pub mod protocol;
pub mod telemetry;
