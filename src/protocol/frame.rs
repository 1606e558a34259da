//! WebSocket frame headers of what the server sends (RFC 6455, section 5.2): unmasked, whole.

use bytes::Bytes;

/// A ping without payload.
#[must_use]
pub fn ping() -> Bytes {
    todo!()
}

/// The pong that answers a ping with this payload (at most 125 bytes).
#[must_use]
pub fn pong(payload: &[u8]) -> Bytes {
    let _ = payload;
    todo!()
}

/// A close frame with a code and a text (cut to 123 bytes).
#[must_use]
pub fn close(code: u16, text: &str) -> Bytes {
    let _ = (code, text);
    todo!()
}
