//! What tests and benches share: real nodes, real servers, and clients of several kinds.
//!
//! Knows nothing of `fanfare`'s types, so that it is compiled once, and a test of the wire does not
//! believe the codec that it tests.

pub mod backend;
pub mod beside;
pub mod certificates;
pub mod collector;
pub mod fleet;
pub mod http;
pub mod issuer;
pub mod kept;
pub mod load;
pub mod node;
pub mod played;
pub mod process;
pub mod program;
pub mod raw;
pub mod redis_cluster;
pub mod redis_sentinels;
pub mod redis_server;
pub mod resp;
pub mod talk;
pub mod tokens;
pub mod turns;
pub mod wait;
