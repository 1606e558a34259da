//! What the tests from outside share: real nodes, real servers, and clients of several kinds.
//!
//! Each test binary takes in this module and uses a part of it.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "every test binary uses another part"
)]

pub mod beside;
pub mod certificates;
pub mod fleet;
pub mod http;
pub mod load;
pub mod node;
pub mod process;
pub mod raw;
pub mod redis_cluster;
pub mod redis_sentinels;
pub mod redis_server;
pub mod resp;
pub mod talk;
pub mod tokens;
pub mod wait;
