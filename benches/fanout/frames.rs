//! What the bench needs of RFC 6455 beside the frames of `fanfare bench`: a handshake with a token,
//! and the frame that the bare loop sends.
//!
//! In: an address, a token, a payload. Out: bytes for one socket.

use fanfare::cli::bench::frames::TEXT;

/// The head of a request that asks for a WebSocket.
pub(crate) fn handshake(host: &str, token: &str) -> String {
    format!(
        "GET /v1/connect?token={token} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\n\
         Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
}

/// A server's text frame of a payload of 126 bytes to 64 KiB.
pub(crate) fn text_of_server(payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).expect("shorter than 64 KiB");
    assert!(length > 125, "longer than the short form");
    let mut frame = vec![0x80 | TEXT, 126];
    frame.extend_from_slice(&length.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}
