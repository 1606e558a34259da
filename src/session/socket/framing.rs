//! The headers of a client's frames (RFC 6455, section 5.2), looked at on their way to the reader.
//!
//! In: every byte that the reader is given, and each frame that it returns. Out: the breach of the
//! first header that breaks a rule which the reader does not check, told once all frames before it
//! were returned; and whether the stream stands between two frames, so that the reader holds
//! nothing. Holds one header of at most ten bytes; payloads are counted, not looked at.

use fanfare_protocol::close::CloseReason;

/// Longest payload of a control frame (RFC 6455, section 5.5).
const CONTROL_BYTES_MAX: u8 = 125;
/// Opcode and length in its longest form; the mask behind them is counted with the payload.
const HEADER_BYTES_MAX: usize = 10;
const MASK_BYTES: u64 = 4;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Framing {
    header: [u8; HEADER_BYTES_MAX],
    header_count: usize,
    /// Bytes of mask and payload that the present frame still lacks.
    left: u64,
    /// Frames that were given whole and not yet returned.
    whole: usize,
    breached: bool,
}

impl Framing {
    /// The reader gets these bytes.
    pub(super) fn given(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() && !self.breached {
            if self.left > 0 {
                let skipped = bytes
                    .len()
                    .min(usize::try_from(self.left).unwrap_or(usize::MAX));
                bytes = &bytes[skipped..];
                self.left -= skipped as u64;
                self.whole += usize::from(self.left == 0);
                continue;
            }
            self.header[self.header_count] = bytes[0];
            self.header_count += 1;
            bytes = &bytes[1..];
            match length(&self.header[..self.header_count]) {
                Ok(None) => {}
                Ok(Some(payload)) => {
                    self.left = payload + MASK_BYTES;
                    self.header_count = 0;
                }
                Err(Breach) => self.breached = true,
            }
        }
    }

    /// The reader returned a frame.
    pub(super) fn returned(&mut self) {
        self.whole = self.whole.saturating_sub(1);
    }

    /// The breach, once every frame before it was returned.
    pub(super) fn breach(&self) -> Option<CloseReason> {
        (self.breached && self.whole == 0).then_some(CloseReason::ProtocolViolation)
    }

    /// Whether nothing was given that belongs to a frame which is yet to be returned.
    pub(super) fn is_between_frames(&self) -> bool {
        self.whole == 0 && self.left == 0 && self.header_count == 0
    }
}

/// A header breaks a rule.
struct Breach;

/// The payload's length, once the header is long enough to say it.
fn length(header: &[u8]) -> Result<Option<u64>, Breach> {
    let [first, second, extended @ ..] = header else {
        return Ok(None);
    };
    let (is_control, is_masked) = (first & 0x08 != 0, second & 0x80 != 0);
    let short = second & 0x7f;
    if !is_masked || (is_control && short > CONTROL_BYTES_MAX) {
        return Err(Breach);
    }
    // "The minimal number of bytes MUST be used", and the longest form has its highest bit clear.
    let (length, minimum) = match (short, extended) {
        (126, &[a, b]) => (u64::from(u16::from_be_bytes([a, b])), 126),
        (127, &[a, b, c, d, e, f, g, h]) => (u64::from_be_bytes([a, b, c, d, e, f, g, h]), 1 << 16),
        (126 | 127, _) => return Ok(None),
        (short, _) => (u64::from(short), 0),
    };
    if length < minimum || length >> 63 != 0 {
        return Err(Breach);
    }
    Ok(Some(length))
}
