//! Both wire forms: bytes to commands, events to complete frames.

use bytes::Bytes;

use super::command::Envelope;
use super::error::WireError;
use super::event::Event;

/// Which form a session speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Wire {
    /// Text messages, subprotocol `fanfare.v1.json`.
    Json,
    /// Binary messages, subprotocol `fanfare.v1.msgpack`.
    MsgPack,
}

/// A command that could not be read, with its id where one could.
#[derive(Debug, Clone, PartialEq)]
pub struct Malformed {
    /// The id, if the map had a valid one.
    pub id: Option<u64>,
    /// What to tell the client.
    pub error: WireError,
}

/// Reads one command.
///
/// # Errors
/// [`Malformed`] when the message is no map, has no `type`, an unknown one, a field of the wrong
/// type, or fields that contradict each other.
pub fn decode(wire: Wire, message: &[u8]) -> Result<Envelope, Malformed> {
    let _ = (wire, message);
    todo!()
}

/// Turns an event into one complete WebSocket frame.
#[must_use]
pub fn encode(wire: Wire, event: &Event) -> Bytes {
    let _ = (wire, event);
    todo!()
}
