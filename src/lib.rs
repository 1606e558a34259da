//! Fanfare: a realtime gateway. Any node delivers to any user, and nothing that was accepted is
//! lost, doubled or reordered in silence.

pub mod api;
pub mod apps;
pub mod auth;
pub mod authorizer;
pub mod broker;
pub mod cli;
pub mod cluster;
pub mod config;
pub mod dispatcher;
pub mod fixed_hash;
pub mod http;
pub mod ingress;
pub mod lifecycle;
pub mod node;
pub mod policy;
pub mod presence;
pub mod queue;
pub mod redis;
pub mod revocation;
#[cfg(test)]
mod seeds;
pub mod session;
pub mod tasks;
pub mod telemetry;
pub mod verification;
pub mod worker;
