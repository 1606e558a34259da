//! The mark that every message of a load carries: who published it, its number, and when.
//!
//! In: a publisher, a number, a time. Out: the text of `data`, and from any payload that contains
//! it the same three again. The text has no character that JSON would escape, so it stands as it
//! is in JSON, in MessagePack and in JSON within JSON, and one search finds it in all of them.

/// What begins a mark. No topic of Fanfare has a `!`, so the first one belongs to the data.
const BEGIN: &[u8] = b"!~";

/// What a message says about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// Counted from 0.
    pub publisher: usize,
    /// Counted from 1 per publisher.
    pub number: u64,
    /// When it was sent, in microseconds since the load began.
    pub sent_us: u64,
}

impl Mark {
    /// The mark, filled up to `bytes`. A mark alone may be longer.
    #[must_use]
    pub fn text(self, bytes: usize) -> String {
        let Self {
            publisher,
            number,
            sent_us,
        } = self;
        let mut text = format!("!~{publisher}.{number}.{sent_us}~");
        text.extend(std::iter::repeat_n('x', bytes.saturating_sub(text.len())));
        text
    }

    /// The first mark in a payload, and what follows it.
    #[must_use]
    pub fn find(payload: &[u8]) -> Option<(Self, &[u8])> {
        let at = payload.iter().position(|byte| *byte == BEGIN[0])?;
        let rest = payload[at..].strip_prefix(BEGIN)?;
        let (publisher, rest) = digits(rest)?;
        let (number, rest) = digits(rest.strip_prefix(b".")?)?;
        let (sent_us, rest) = digits(rest.strip_prefix(b".")?)?;
        let mark = Self {
            publisher: usize::try_from(publisher).ok()?,
            number,
            sent_us,
        };
        Some((mark, rest))
    }
}

/// The position that stands in a payload, in either wire form: the digits and dash behind the
/// word. It is copied as it is and never looked into.
#[must_use]
pub fn position(payload: &[u8]) -> Option<&str> {
    const WORD: &[u8] = b"position";
    let at = payload.windows(WORD.len()).position(|part| part == WORD)?;
    let rest = &payload[at + WORD.len()..];
    // Between word and digits stands `":"` in JSON and the head of a string in MessagePack, which
    // for the lengths of positions is no digit.
    let begin = rest.iter().position(u8::is_ascii_digit)?;
    let rest = &rest[begin..];
    let is_part = |byte: &u8| byte.is_ascii_digit() || *byte == b'-';
    let end = rest.iter().position(|byte| !is_part(byte));
    std::str::from_utf8(&rest[..end.unwrap_or(rest.len())]).ok()
}

fn digits(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut number: u64 = 0;
    let mut read = 0;
    for byte in bytes.iter().take_while(|byte| byte.is_ascii_digit()) {
        number = number
            .checked_mul(10)?
            .checked_add(u64::from(byte - b'0'))?;
        read += 1;
    }
    (read > 0).then(|| (number, &bytes[read..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_found_in_every_form_it_travels_in() {
        let mark = Mark {
            publisher: 3,
            number: 17,
            sent_us: 1_234_567,
        };
        let data = mark.text(200);
        assert_eq!(data.len(), 200);
        let message = serde_json::json!({
            "type": "message", "topic": "t", "data": data, "position": "1732190000000-4294967295",
        });
        let json = message.to_string().into_bytes();
        let msgpack = rmp_serde::to_vec_named(&message).expect("a map of texts");
        let twice = serde_json::json!({"event": "message", "data": message.to_string()});
        for payload in [json, msgpack, twice.to_string().into_bytes()] {
            let (found, rest) = Mark::find(&payload).expect("a mark");
            assert_eq!(found, mark);
            assert_eq!(position(rest), Some("1732190000000-4294967295"));
        }
    }

    #[test]
    fn what_has_no_mark_is_no_message_of_a_load() {
        for payload in [
            &b"{}"[..],
            b"!",
            b"!~",
            b"!~1.2",
            b"!~1.2.x~",
            b"hello! ~1.2.3~",
        ] {
            assert_eq!(Mark::find(payload).map(|(mark, _)| mark), None);
        }
    }
}
