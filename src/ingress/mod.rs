//! The public listener: TCP accepted per worker, HTTP heads judged, WebSockets handed to sessions.
//!
//! In: connections on the public listener. Out: [`crate::session::Accepted`] for those that may
//! come in; a plain HTTP answer for all others. Owner of: nothing that lasts. Bounds: heads of
//! 16 KiB and 64 headers within `server.handshake_timeout_ms`; sessions up to
//! `server.connections_max`, then 503 with `Retry-After`; connections up to their share of the files
//! (`src/config/file_shares.rs`), then closed at once.

pub mod admission;
pub mod credentials;
pub mod handshake;
pub mod listener;
pub mod listener_state;
pub mod public;
pub mod upgrade;
