//! The context of a trace, as W3C Trace Context gives it.
//!
//! In: a `traceparent`, as text or as the bytes in front of a message on a channel. Out: ids and flags,
//! or why there are none. Pure.

use std::fmt;

/// Length of the text form of version 00.
const TEXT_BYTES: usize = 55;
/// Length of the binary form: trace, span, flags.
pub const CONTEXT_BYTES: usize = 25;
/// The flag that says that the trace is recorded.
const SAMPLED: u8 = 1;
/// The flag that says that the trace's id is random.
const RANDOM: u8 = 2;

/// The id of a trace; never 0.
pub type TraceId = [u8; 16];
/// The id of a span; never 0.
pub type SpanId = [u8; 8];

/// Which span of which trace something belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceContext {
    /// The trace.
    pub trace: TraceId,
    /// The span that caused this.
    pub span: SpanId,
    /// `trace-flags`, as they came.
    pub flags: u8,
}

/// Why a text is no `traceparent`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadTraceparent {
    /// Version `ff`, another form, capitals, or too short or long.
    Malformed,
    /// The trace or the span is all zeros.
    ZeroId,
}

impl TraceContext {
    /// Reads the header (<https://www.w3.org/TR/trace-context/>, section 3.2). A version above 00 may
    /// have more fields behind it, which are left out.
    ///
    /// # Errors
    /// Where the text must be ignored.
    pub fn parse(text: &str) -> Result<Self, BadTraceparent> {
        let bytes = text.as_bytes();
        let malformed = Err(BadTraceparent::Malformed);
        if bytes.len() < TEXT_BYTES || bytes[2] != b'-' || bytes[35] != b'-' || bytes[52] != b'-' {
            return malformed;
        }
        let (version, flags) = (hex::<1>(&bytes[..2]), hex::<1>(&bytes[53..55]));
        let (trace, span) = (hex::<16>(&bytes[3..35]), hex::<8>(&bytes[36..52]));
        let (Some([version]), Some([flags]), Some(trace), Some(span)) =
            (version, flags, trace, span)
        else {
            return malformed;
        };
        let is_longer_form = version > 0 && bytes.get(TEXT_BYTES) == Some(&b'-');
        if version == 0xff || (bytes.len() > TEXT_BYTES && !is_longer_form) {
            return malformed;
        }
        if trace == TraceId::default() || span == SpanId::default() {
            return Err(BadTraceparent::ZeroId);
        }
        Ok(Self { trace, span, flags })
    }

    /// Whether whoever caused this records it.
    #[must_use]
    pub fn is_sampled(&self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// The same with the flag that it is recorded, and without flags that are not known here.
    #[must_use]
    pub fn sampled(self) -> Self {
        Self {
            flags: (self.flags & RANDOM) | SAMPLED,
            ..self
        }
    }

    /// The binary form: trace, span, flags.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; CONTEXT_BYTES] {
        let mut bytes = [0; CONTEXT_BYTES];
        bytes[..16].copy_from_slice(&self.trace);
        bytes[16..24].copy_from_slice(&self.span);
        bytes[24] = self.flags;
        bytes
    }

    /// Reads the binary form; `None` where an id is all zeros.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; CONTEXT_BYTES]) -> Option<Self> {
        let (mut trace, mut span) = (TraceId::default(), SpanId::default());
        trace.copy_from_slice(&bytes[..16]);
        span.copy_from_slice(&bytes[16..24]);
        let is_whole = trace != TraceId::default() && span != SpanId::default();
        is_whole.then_some(Self {
            trace,
            span,
            flags: bytes[24],
        })
    }
}

/// As in the header, version 00.
impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("00-")?;
        self.trace.iter().try_for_each(|b| write!(f, "{b:02x}"))?;
        f.write_str("-")?;
        self.span.iter().try_for_each(|b| write!(f, "{b:02x}"))?;
        write!(f, "-{:02x}", self.flags)
    }
}

/// Lower-case hexadecimal digits, two a byte.
fn hex<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    let value = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = value(pair[0])? << 4 | value(pair[1])?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_context_is_the_same_after_text_and_bytes() {
        let context = TraceContext::parse(GOOD).unwrap();
        assert!(context.is_sampled());
        assert_eq!(context.to_string(), GOOD);
        assert_eq!(TraceContext::from_bytes(&context.to_bytes()), Some(context));
        assert_eq!(TraceContext::from_bytes(&[0; CONTEXT_BYTES]), None);
    }

    #[test]
    fn a_later_version_may_be_longer_and_ff_is_none() {
        let later = GOOD.replacen("00", "cc", 1);
        assert!(TraceContext::parse(&later).is_ok());
        assert!(TraceContext::parse(&format!("{later}-what-follows")).is_ok());
        for wrong in [
            GOOD.replacen("00", "ff", 1),
            format!("{later}.what"),
            format!("{GOOD}-00"),
            format!("{GOOD},{GOOD}"),
            GOOD.to_uppercase(),
            GOOD[..54].to_owned(),
            GOOD.replace('-', "_"),
            GOOD.replacen("0a", "0ä", 1),
            String::new(),
        ] {
            let read = TraceContext::parse(&wrong);
            assert_eq!(read, Err(BadTraceparent::Malformed), "{wrong}");
        }
    }

    #[test]
    fn ids_of_zeros_are_none() {
        for wrong in [
            GOOD.replace("0af7651916cd43dd8448eb211c80319c", &"0".repeat(32)),
            GOOD.replace("b7ad6b7169203331", &"0".repeat(16)),
        ] {
            assert_eq!(TraceContext::parse(&wrong), Err(BadTraceparent::ZeroId));
        }
    }
}
