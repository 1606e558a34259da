//! As much of RFC 6455 as a load needs: a client's frames out, a reader of a server's frames in.
//!
//! In: bytes of one socket. Out: opcodes and payloads, in place and without a copy. A payload has
//! no bound of its own here: who sends it is the server that is asked for its figures.

/// A text message.
pub const TEXT: u8 = 1;
/// A binary message.
pub const BINARY: u8 = 2;
/// The server closes.
pub const CLOSE: u8 = 8;
/// The server asks for a sign of life.
pub const PING: u8 = 9;
/// The sign of life.
pub const PONG: u8 = 10;

/// Set where the sender masks its payload, which a server must not do.
const MASKED: u8 = 0x80;

/// A frame from a server that no server may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the server sent a frame that breaks RFC 6455")]
pub struct BadFrame;

/// A client's frame. The mask is zero, which the RFC forbids to clients that fear
/// intermediaries; a load has none, and spends nothing on masking.
#[must_use]
pub fn masked(opcode: u8, payload: &[u8]) -> Vec<u8> {
    frame(opcode, MASKED, &[0; 4], payload)
}

/// A server's frame, for those that play one.
#[must_use]
pub fn unmasked(opcode: u8, payload: &[u8]) -> Vec<u8> {
    frame(opcode, 0, &[], payload)
}

fn frame(opcode: u8, masked: u8, mask: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(payload.len() + 14);
    frame.push(0x80 | opcode);
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(short @ 0..=125), _) => frame.push(masked | short),
        (_, Ok(length)) => {
            frame.push(masked | 126);
            frame.extend_from_slice(&length.to_be_bytes());
        }
        (_, Err(_)) => {
            frame.push(masked | 127);
            frame.extend_from_slice(&(payload.len() as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(mask);
    frame.extend_from_slice(payload);
    frame
}

/// Calls `each` with every whole frame of `bytes`, and returns how many bytes those had.
///
/// # Errors
/// [`BadFrame`] for a masked frame or a length that no memory has.
pub fn each_frame(bytes: &[u8], mut each: impl FnMut(u8, &[u8])) -> Result<usize, BadFrame> {
    let mut at = 0;
    while let Some((opcode, head, length)) = head(&bytes[at..])? {
        let begin = at + head;
        let end = begin.checked_add(length).ok_or(BadFrame)?;
        let Some(payload) = bytes.get(begin..end) else {
            break;
        };
        each(opcode, payload);
        at = end;
    }
    Ok(at)
}

/// The opcode, the length of the head and that of the payload; none while the head is not whole.
fn head(bytes: &[u8]) -> Result<Option<(u8, usize, usize)>, BadFrame> {
    let [first, second, rest @ ..] = bytes else {
        return Ok(None);
    };
    let opcode = first & 0x0f;
    Ok(match (second, rest) {
        (0..=125, _) => Some((opcode, 2, usize::from(*second))),
        (126, [a, b, ..]) => Some((opcode, 4, usize::from(u16::from_be_bytes([*a, *b])))),
        (127, [a, b, c, d, e, f, g, h, ..]) => {
            let length = u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h]);
            let length = usize::try_from(length).map_err(|_| BadFrame)?;
            Some((opcode, 10, length))
        }
        (126 | 127, _) => None,
        (MASKED.., _) => return Err(BadFrame),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_of_every_length_are_read_wherever_the_stream_is_cut() {
        let payloads = [vec![], vec![b'a'; 125], vec![b'b'; 126], vec![b'c'; 70_000]];
        let stream: Vec<u8> = payloads.iter().flat_map(|p| unmasked(TEXT, p)).collect();
        for step in [1, 3, 127, 65_536, stream.len()] {
            let (mut waiting, mut seen) = (Vec::new(), Vec::new());
            for part in stream.chunks(step) {
                waiting.extend_from_slice(part);
                let end = each_frame(&waiting, |opcode, payload| {
                    assert_eq!(opcode, TEXT);
                    seen.push(payload.to_vec());
                });
                waiting.drain(..end.expect("good frames"));
            }
            assert_eq!(seen, payloads, "in steps of {step}");
            assert!(waiting.is_empty());
        }
    }

    #[test]
    fn a_masked_frame_of_a_server_is_refused() {
        assert_eq!(each_frame(&masked(TEXT, b"x"), |_, _| {}), Err(BadFrame));
    }
}
