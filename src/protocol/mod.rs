//! The wire contract `fanfare.v1`: names, commands, events, codes and the two codecs.
//!
//! In: bytes of one WebSocket message or one HTTP body. Out: typed commands; typed events turned
//! into complete frames. Nothing here owns state, opens a socket or reads a clock, so every rule
//! of the wire can be tested by values alone. Everything else in the crate may import this
//! module; it imports nothing of the crate. Beside the wire: the hash on which all nodes agree.

pub mod close;
pub mod codec;
pub mod command;
pub mod data;
pub mod error;
pub mod event;
pub mod fixed_hash;
pub mod frame;
pub mod ids;
pub mod info;
mod json;
mod msgpack;
pub mod raw;
pub mod size;
