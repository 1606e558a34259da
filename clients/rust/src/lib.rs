//! A client of Fanfare that resumes by itself: sessions over WebSocket, and the HTTP API.

pub mod address;
pub mod connection;
pub mod dial;
pub mod http;
pub mod reconnect;
pub mod resuming;
pub mod token;
