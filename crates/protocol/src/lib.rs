//! The wire contract `fanfare.v1`: names, commands, events, codes and the two codecs.
//!
//! In: bytes of one WebSocket message or one HTTP body. Out: typed commands; typed events turned
//! into complete frames; and for clients the reverse of both ([`client`]). Nothing here owns state, opens a socket or reads a clock, so every rule
//! of the wire can be tested by values alone. Server, client and load generator share this crate.

pub mod client;
pub mod close;
pub mod codec;
pub mod command;
pub mod data;
pub mod error;
pub mod event;
pub mod form;
pub mod frame;
pub mod ids;
pub mod info;
mod json;
mod msgpack;
pub mod pattern;
mod priority;
pub mod raw;
pub mod rules;
#[cfg(feature = "openapi")]
mod schema;
pub mod size;
