//! The rules that JSON text must keep beyond JSON's own, so that MessagePack can say it too.
//!
//! In: text that a JSON parser has already accepted. Out: the first rule it breaks, if any; how long
//! it is as MessagePack, at most. One pass without recursion or allocation: the nesting is a number,
//! so depth costs no stack.

use super::rules::{DEPTH_MAX, DataError};

/// Checks depth, numbers and surrogates of one valid JSON value.
///
/// # Errors
/// [`DataError`] for the first rule that is broken.
pub(super) fn check(text: &str) -> Result<(), DataError> {
    let bytes = text.as_bytes();
    let mut depth = 0;
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        at = match byte {
            b'"' => string_end(bytes, at + 1)?,
            b'[' | b'{' => {
                depth += 1;
                if depth > DEPTH_MAX {
                    return Err(DataError::TooDeep);
                }
                at + 1
            }
            b']' | b'}' => {
                depth -= 1;
                at + 1
            }
            b'-' | b'0'..=b'9' => {
                let end = number_end(bytes, at);
                check_number(&text[at..end])?;
                end
            }
            _ => at + 1,
        };
    }
    Ok(())
}

/// The place behind the closing quote of the string whose content begins at `at`.
fn string_end(bytes: &[u8], mut at: usize) -> Result<usize, DataError> {
    loop {
        let rest = bytes.get(at..).unwrap_or_default();
        // Most text is plain, and passed over many bytes at a time.
        let plain = memchr::memchr2(b'"', b'\\', rest).unwrap_or(rest.len());
        at += plain;
        match &rest[plain..] {
            [b'\\', b'u', ..] => {
                at += match unit(bytes, at) {
                    Some(0xd800..=0xdbff) => match unit(bytes, at + 6) {
                        Some(0xdc00..=0xdfff) => 12,
                        _ => return Err(DataError::Surrogate),
                    },
                    Some(0xdc00..=0xdfff) => return Err(DataError::Surrogate),
                    _ => 6,
                };
            }
            [b'\\', ..] => at += 2,
            _ => return Ok(at + 1),
        }
    }
}

/// The UTF-16 unit of the escape `\uXXXX` that stands at `at`, if one does.
fn unit(bytes: &[u8], at: usize) -> Option<u16> {
    let digits = bytes.get(at..at + 6)?.strip_prefix(b"\\u")?;
    u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

fn number_end(bytes: &[u8], at: usize) -> usize {
    let is_number = |b: &u8| matches!(b, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E');
    let length = bytes[at..].iter().take_while(|b| is_number(b)).count();
    at + length
}

fn check_number(token: &str) -> Result<(), DataError> {
    if token.contains(['.', 'e', 'E']) {
        match token.parse::<f64>() {
            Ok(number) if number.is_finite() => Ok(()),
            _ => Err(DataError::NotFinite),
        }
    } else if token.parse::<i64>().is_ok() || token.parse::<u64>().is_ok() {
        Ok(())
    } else {
        Err(DataError::IntegerTooLarge)
    }
}

/// How long valid JSON is as MessagePack, at most. Only numbers with a fraction or an exponent and
/// `-0` take more there, nine bytes each, and long text by a few bytes of length.
pub(super) fn msgpack_bytes_max(text: &[u8]) -> usize {
    // Text of 256 bytes and more takes one byte more than its quotes, of 65,536 and more three.
    let lengths = text.len() / 256;
    let doubles = if may_have_doubles(text) {
        doubles_growth(text)
    } else {
        0
    };
    text.len() + lengths + doubles
}

/// Whether there is a double, or text that looks like one. No early end, so that many bytes are
/// looked at at a time.
fn may_have_doubles(text: &[u8]) -> bool {
    let pairs = text.iter().zip(text.get(1..).unwrap_or_default());
    pairs.fold(false, |found, (first, second)| {
        let ends_digits = (*second == b'.') | (*second | 0x20 == b'e');
        let is_double = first.is_ascii_digit() & ends_digits;
        found | is_double | ((*first == b'-') & (*second == b'0'))
    })
}

/// How many bytes the doubles that are shorter than nine grow by.
fn doubles_growth(text: &[u8]) -> usize {
    const DOUBLE_BYTES: usize = 9;
    let (mut growth, mut at) = (0, 0);
    while let Some(&byte) = text.get(at) {
        let begins = at;
        at += 1;
        match byte {
            b'"' => at = behind_quote(text, at),
            b'-' | b'0'..=b'9' => {
                at = number_end(text, begins);
                let number = &text[begins..at];
                let is_double = number.iter().any(|b| matches!(b, b'.' | b'e' | b'E'));
                if is_double || number == b"-0" {
                    growth += DOUBLE_BYTES.saturating_sub(number.len());
                }
            }
            _ => {}
        }
    }
    growth
}

/// The place behind the quote that ends the string whose content begins at `at`.
fn behind_quote(text: &[u8], mut at: usize) -> usize {
    while let Some(&byte) = text.get(at) {
        match byte {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    at
}

/// How many bytes escapes add to a text in JSON.
pub(super) fn escaped(text: &[u8]) -> usize {
    // So many bytes grow by less than a byte can count, which lets them be taken many at a time.
    const AT_ONCE: usize = 32;
    let some = text.chunks(AT_ONCE);
    some.map(|some| usize::from(some.iter().fold(0_u8, |sum, byte| sum + grows(*byte))))
        .sum()
}

/// `\n` and its like by one, other control characters, as `\u001f`, by five.
fn grows(byte: u8) -> u8 {
    let is_short = (byte == b'"') | (byte == b'\\') | (byte == 0x08) | (byte == b'\t');
    let is_short = is_short | (byte == b'\n') | (byte == 0x0c) | (byte == b'\r');
    let is_long = (byte < 0x20) & !is_short;
    u8::from(is_short) + 5 * u8::from(is_long)
}
