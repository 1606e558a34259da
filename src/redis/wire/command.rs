//! Commands in the form in which Redis reads them, one after the other in one buffer.
//!
//! In: the arguments of a command, as bytes, in parts, or prepared. Out: their bytes at the end of a
//! buffer, copied there once; nothing is allocated for an argument. Owns nothing. Bounds: none of its
//! own; the connection refuses a command where too much waits (`UNSENT_BYTES_MAX`).

use bytes::{Bytes, BytesMut};

/// The digits of the longest number.
const DIGITS_MAX: usize = 20;

/// Arguments in the form in which they are sent: what many commands have in common, or a command that
/// is made elsewhere than it is sent, and may have to be sent again. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Prepared {
    bytes: Bytes,
    count: usize,
}

impl Prepared {
    /// These arguments, in this order.
    #[must_use]
    pub fn new(arguments: &[&[u8]]) -> Self {
        Self::with(0, |prepared| {
            for argument in arguments {
                prepared.bytes(argument);
            }
        })
    }

    /// What is written here, in some so many bytes.
    #[must_use]
    pub fn with(bytes: usize, fill: impl FnOnce(&mut Arguments<'_>)) -> Self {
        let mut buffer = BytesMut::with_capacity(bytes);
        let mut arguments = Arguments::new(&mut buffer);
        fill(&mut arguments);
        Self {
            count: arguments.count,
            bytes: buffer.freeze(),
        }
    }

    /// How many arguments they are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count
    }

    /// How many bytes they are.
    #[must_use]
    pub fn bytes_count(&self) -> usize {
        self.bytes.len()
    }
}

/// Takes the arguments of one command, its name first.
#[derive(Debug)]
pub struct Arguments<'a> {
    buffer: &'a mut BytesMut,
    count: usize,
}

impl<'a> Arguments<'a> {
    fn new(buffer: &'a mut BytesMut) -> Self {
        Self { buffer, count: 0 }
    }

    /// One argument.
    pub fn bytes(&mut self, argument: &[u8]) -> &mut Self {
        self.joined(&[argument])
    }

    /// One argument that is put together of these parts.
    pub fn joined(&mut self, parts: &[&[u8]]) -> &mut Self {
        let length = parts.iter().map(|part| part.len()).sum();
        head(self.buffer, b'$', length);
        for part in parts {
            self.buffer.extend_from_slice(part);
        }
        self.buffer.extend_from_slice(b"\r\n");
        self.count += 1;
        self
    }

    /// One argument: a number.
    pub fn number(&mut self, number: u64) -> &mut Self {
        let mut digits = [0; DIGITS_MAX];
        self.bytes(decimal(number, &mut digits))
    }

    /// Arguments that were written before.
    pub fn prepared(&mut self, prepared: &Prepared) -> &mut Self {
        self.buffer.extend_from_slice(&prepared.bytes);
        self.count += prepared.count;
        self
    }
}

/// Appends one command of so many arguments, its name among them. Returns whether there were so many;
/// if not, nothing is appended.
#[must_use]
pub(super) fn append(
    buffer: &mut BytesMut,
    arguments_count: usize,
    fill: impl FnOnce(&mut Arguments<'_>),
) -> bool {
    let start = buffer.len();
    head(buffer, b'*', arguments_count);
    let mut arguments = Arguments::new(buffer);
    fill(&mut arguments);
    let is_whole = arguments.count == arguments_count && arguments_count > 0;
    if !is_whole {
        buffer.truncate(start);
    }
    is_whole
}

fn head(buffer: &mut BytesMut, kind: u8, length: usize) {
    let mut digits = [0; DIGITS_MAX];
    buffer.extend_from_slice(&[kind]);
    buffer.extend_from_slice(decimal(length as u64, &mut digits));
    buffer.extend_from_slice(b"\r\n");
}

fn decimal(mut number: u64, digits: &mut [u8; DIGITS_MAX]) -> &[u8] {
    let mut at = DIGITS_MAX;
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            return &digits[at..];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_written_as_redis_reads_it() {
        let mut buffer = BytesMut::new();
        let prepared = Prepared::new(&[b"EVALSHA", b"5ha"]);
        let whole = append(&mut buffer, 5, |arguments| {
            arguments.prepared(&prepared).number(0).bytes(b"");
            arguments.joined(&[b"ff:{", b"default:t", b"}:s"]);
        });
        assert!(whole);
        let expected: &[u8] =
            b"*5\r\n$7\r\nEVALSHA\r\n$3\r\n5ha\r\n$1\r\n0\r\n$0\r\n\r\n$16\r\nff:{default:t}:s\r\n";
        assert_eq!(&buffer[..], expected);
        assert!(append(&mut buffer, 1, |arguments| {
            arguments.number(u64::MAX);
        }));
        assert_eq!(
            &buffer[expected.len()..],
            b"*1\r\n$20\r\n18446744073709551615\r\n"
        );
    }

    #[test]
    fn a_command_of_another_length_leaves_nothing_behind() {
        let mut buffer = BytesMut::from(&b"before"[..]);
        for count in [0, 1, 3] {
            let whole = append(&mut buffer, count, |arguments| {
                arguments.bytes(b"GET").bytes(b"key");
            });
            assert!(!whole);
            assert_eq!(&buffer[..], b"before");
        }
    }
}
