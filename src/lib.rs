//! Fanfare: a realtime gateway. Any node delivers to any user, and nothing that was accepted is
//! lost, doubled or reordered in silence.

pub mod api;
pub mod broker;
pub mod config;
pub mod protocol;
pub mod telemetry;
