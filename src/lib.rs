//! Fanfare: a realtime gateway. Any node delivers to any user, and nothing that was accepted is
//! lost, doubled or reordered in silence.

pub mod auth;
pub mod broker;
pub mod cluster;
pub mod config;
pub mod dispatcher;
pub mod ingress;
pub mod presence;
pub mod protocol;
pub mod redis;
pub mod session;
pub mod shutdown;
pub mod telemetry;
pub mod worker;
