//! As much of RFC 6455 as a load needs: a handshake, masked short frames, a reader of frames.
//!
//! In: bytes of one socket. Out: payloads. A session that waits holds nothing but what is left of
//! an incomplete frame, which is mostly nothing.

/// A message.
pub(crate) const TEXT: u8 = 1;
/// The server closes.
pub(crate) const CLOSE: u8 = 8;
/// The server asks for a sign of life.
pub(crate) const PING: u8 = 9;
/// The sign of life.
pub(crate) const PONG: u8 = 10;

/// The head of a request that asks for a WebSocket.
pub(crate) fn handshake(host: &str, token: &str) -> String {
    format!(
        "GET /v1/connect?token={token} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\n\
         Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
}

/// A client's frame. The mask is zero, which the RFC forbids to clients that fear
/// intermediaries; here there are none.
pub(crate) fn masked(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let length = u8::try_from(payload.len()).expect("a load sends short frames");
    assert!(length < 126, "a load sends short frames");
    let mut frame = vec![0x80 | opcode, 0x80 | length, 0, 0, 0, 0];
    frame.extend_from_slice(payload);
    frame
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

/// Calls `each` with every whole frame of `bytes`, and returns how many bytes those had.
pub(crate) fn each_frame(bytes: &[u8], mut each: impl FnMut(u8, &[u8])) -> usize {
    let mut at = 0;
    while let Some((opcode, head, length)) = head(&bytes[at..]) {
        let Some(payload) = bytes.get(at + head..at + head + length) else {
            break;
        };
        each(opcode, payload);
        at += head + length;
    }
    at
}

/// The opcode, the length of the head and that of the payload.
fn head(bytes: &[u8]) -> Option<(u8, usize, usize)> {
    let [first, second, rest @ ..] = bytes else {
        return None;
    };
    let opcode = first & 0x0f;
    match (second, rest) {
        (126, [a, b, ..]) => Some((opcode, 4, usize::from(u16::from_be_bytes([*a, *b])))),
        (0..=125, _) => Some((opcode, 2, usize::from(*second))),
        // A server masks nothing, and 64 KiB are not sent here.
        (126, _) => None,
        _ => panic!("a frame that no load asked for"),
    }
}
