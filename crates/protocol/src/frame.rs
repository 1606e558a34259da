//! WebSocket frames of what the server sends (RFC 6455, section 5.2): unmasked, never in fragments.
//!
//! In: an opcode and a payload. Out: bytes ready for the socket. Holds no state. A header has at
//! most [`HEADER_BYTES_MAX`] bytes, and a control frame at most [`CONTROL_BYTES_MAX`] bytes of
//! payload; what is longer is cut, because the RFC has no way to say it.

use bytes::{Bytes, BytesMut};

use super::form::Encoding;

/// Longest header of a frame without a mask: opcode, length marker, 64-bit length.
pub const HEADER_BYTES_MAX: usize = 10;

/// Longest payload of a ping, pong or close frame (RFC 6455, section 5.5).
pub const CONTROL_BYTES_MAX: usize = 125;

/// What a frame is. Every frame of the server is the last of its message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opcode {
    /// A text message.
    Text,
    /// A binary message.
    Binary,
    /// The end.
    Close,
    /// A question for a sign of life.
    Ping,
    /// The answer to it.
    Pong,
}

impl Opcode {
    /// Of a message in this encoding.
    #[must_use]
    pub const fn of(encoding: Encoding) -> Self {
        match encoding {
            Encoding::Json => Self::Text,
            Encoding::MsgPack => Self::Binary,
        }
    }

    /// The first byte of the frame: FIN and the opcode.
    fn first_byte(self) -> u8 {
        0x80 | match self {
            Self::Text => 0x1,
            Self::Binary => 0x2,
            Self::Close => 0x8,
            Self::Ping => 0x9,
            Self::Pong => 0xa,
        }
    }
}

/// Room for the header in front of a payload that is yet to be written into the same buffer.
#[must_use]
pub fn begin(capacity_bytes: usize) -> Vec<u8> {
    let mut buffer = Vec::with_capacity(HEADER_BYTES_MAX + capacity_bytes);
    buffer.resize(HEADER_BYTES_MAX, 0);
    buffer
}

/// Completes a buffer made by [`begin`]: puts the header right before the payload and returns
/// the frame. The payload is not moved.
#[must_use]
pub fn finish(opcode: Opcode, mut buffer: Vec<u8>) -> Bytes {
    let payload_bytes = buffer.len() - HEADER_BYTES_MAX;
    let mut header = [0; HEADER_BYTES_MAX];
    let header_bytes = write_header(&mut header, opcode, payload_bytes);
    let start = HEADER_BYTES_MAX - header_bytes;
    buffer[start..HEADER_BYTES_MAX].copy_from_slice(&header[..header_bytes]);
    Bytes::from(buffer).slice(start..)
}

/// A ping without payload.
#[must_use]
pub fn ping() -> Bytes {
    Bytes::from_static(&[0x89, 0])
}

/// The pong that answers a ping with this payload (at most 125 bytes).
#[must_use]
pub fn pong(payload: &[u8]) -> Bytes {
    control(
        Opcode::Pong,
        &payload[..payload.len().min(CONTROL_BYTES_MAX)],
    )
}

/// A close frame with a code and a text (cut to 123 bytes, never inside a character).
#[must_use]
pub fn close(code: u16, text: &str) -> Bytes {
    let code = code.to_be_bytes();
    let mut end = text.len().min(CONTROL_BYTES_MAX - code.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    control(Opcode::Close, &[&code, &text.as_bytes()[..end]].concat())
}

/// A close frame without a code, which answers one without a code.
#[must_use]
pub fn close_empty() -> Bytes {
    control(Opcode::Close, &[])
}

fn control(opcode: Opcode, payload: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(2 + payload.len());
    let mut header = [0; HEADER_BYTES_MAX];
    let header_bytes = write_header(&mut header, opcode, payload.len());
    frame.extend_from_slice(&header[..header_bytes]);
    frame.extend_from_slice(payload);
    frame.freeze()
}

/// Writes the shortest header for the length, as the RFC demands, and returns its length.
fn write_header(
    header: &mut [u8; HEADER_BYTES_MAX],
    opcode: Opcode,
    payload_bytes: usize,
) -> usize {
    header[0] = opcode.first_byte();
    if let Ok(short) = u8::try_from(payload_bytes)
        && short <= 125
    {
        header[1] = short;
        2
    } else if let Ok(medium) = u16::try_from(payload_bytes) {
        header[1] = 126;
        header[2..4].copy_from_slice(&medium.to_be_bytes());
        4
    } else {
        header[1] = 127;
        header[2..].copy_from_slice(&(payload_bytes as u64).to_be_bytes());
        HEADER_BYTES_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame_of(payload_bytes: usize) -> Bytes {
        let mut buffer = begin(payload_bytes);
        buffer.resize(HEADER_BYTES_MAX + payload_bytes, b'x');
        finish(Opcode::Binary, buffer)
    }

    #[test]
    fn the_header_is_the_shortest_at_every_border() {
        let cases: [(usize, &[u8]); 7] = [
            (0, &[0x82, 0]),
            (1, &[0x82, 1]),
            (125, &[0x82, 125]),
            (126, &[0x82, 126, 0, 126]),
            (65_535, &[0x82, 126, 0xff, 0xff]),
            (65_536, &[0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
            (70_000, &[0x82, 127, 0, 0, 0, 0, 0, 1, 0x11, 0x70]),
        ];
        for (payload_bytes, header) in cases {
            let frame = frame_of(payload_bytes);
            assert_eq!(&frame[..header.len()], header, "{payload_bytes}");
            assert_eq!(frame.len(), header.len() + payload_bytes);
            assert!(frame[header.len()..].iter().all(|b| *b == b'x'));
        }
    }

    #[test]
    fn control_frames_stay_within_what_the_rfc_allows() {
        assert_eq!(&ping()[..], [0x89, 0]);
        assert_eq!(&pong(b"hi")[..], [0x8a, 2, b'h', b'i']);
        assert_eq!(pong(&[7; 126]).len(), 2 + 125);
        assert_eq!(&close(4000, "no")[..], [0x88, 4, 0x0f, 0xa0, b'n', b'o']);
        let long = close(1000, &"ä".repeat(100));
        assert_eq!((long[1], long.len()), (2 + 122, 2 + 2 + 122));
        assert!(std::str::from_utf8(&long[4..]).is_ok());
    }
}
