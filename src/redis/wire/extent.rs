//! Where an answer ends, found before it is decoded.
//!
//! In: the bytes that have come so far. Out: how many of them are the next answer, once all of it is
//! there, or a [`Fault`]. It goes on where it stopped, so that an answer in a thousand pieces is looked
//! at once and not a thousand times, as the decoder of `redis-protocol` would; and it refuses what
//! would fill memory, or the stack, on which that decoder descends. Pure. Bounds: [`ANSWER_BYTES_MAX`],
//! [`ELEMENTS_MAX`], [`DEPTH_MAX`] and [`LINE_BYTES_MAX`]; beyond each the answer is a fault, told
//! with the first bytes that announce it.

/// Longest answer. No message of a session is longer than a quarter of it.
pub const ANSWER_BYTES_MAX: usize = 64 << 20;
/// Most values in one answer. Each costs some 200 bytes while it is decoded, and may have come as 3.
pub const ELEMENTS_MAX: u64 = 1 << 18;
/// Deepest nesting of lists. Redis' own answers have up to five.
pub const DEPTH_MAX: usize = 16;
/// Longest line: a text that is no bulk string, an error, a number.
pub const LINE_BYTES_MAX: usize = 64 << 10;

/// Why what has come is no answer, for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// No kind of value begins so.
    #[error("what answers does not speak RESP3: a value begins with the byte 0x{0:02x}")]
    Kind(u8),
    /// A length is no number.
    #[error("what answers does not speak RESP3: a length is no number")]
    Length,
    /// A text does not end where its length says.
    #[error("what answers does not speak RESP3: a text does not end with its length")]
    Unended,
    /// See [`LINE_BYTES_MAX`].
    #[error("an answer of Redis has a line of more than {LINE_BYTES_MAX} bytes")]
    Line,
    /// See [`ANSWER_BYTES_MAX`].
    #[error("an answer of Redis is longer than {ANSWER_BYTES_MAX} bytes")]
    Long,
    /// See [`ELEMENTS_MAX`].
    #[error("an answer of Redis has more than {ELEMENTS_MAX} values")]
    Wide,
    /// See [`DEPTH_MAX`].
    #[error("an answer of Redis is nested more than {DEPTH_MAX} deep")]
    Deep,
}

/// How far an answer was looked at.
#[derive(Debug, Default)]
pub(super) struct Extent {
    /// Where the next value begins.
    at: usize,
    /// Up to where the end of its first line was looked for.
    searched: usize,
    /// Values that were begun.
    elements: u64,
    /// How many values each open list still wants, the outermost first.
    open: [u64; DEPTH_MAX],
    depth: usize,
}

impl Extent {
    /// Looks at what has come since. Returns how long the answer is that these bytes begin with, and is
    /// as new then; `None`: there is more to come.
    ///
    /// # Errors
    /// A [`Fault`]; nothing that follows can be read.
    pub(super) fn find(&mut self, bytes: &[u8]) -> Result<Option<usize>, Fault> {
        loop {
            let Some((end, mut is_whole)) = self.value(bytes)? else {
                return Ok(None);
            };
            if end > ANSWER_BYTES_MAX {
                return Err(Fault::Long);
            }
            (self.at, self.searched) = (end, end);
            // With its last value a list is whole, which is one value of the list around it.
            while is_whole {
                let Some(wanted) = self.innermost() else {
                    *self = Self::default();
                    return Ok(Some(end));
                };
                *wanted -= 1;
                is_whole = *wanted == 0;
                if is_whole {
                    self.depth -= 1;
                }
            }
        }
    }

    /// The end of the value that begins at `at`, and whether that is all of it: of a list it is the
    /// line that announces it, and the list is opened.
    fn value(&mut self, bytes: &[u8]) -> Result<Option<(usize, bool)>, Fault> {
        let Some(&kind) = bytes.get(self.at) else {
            return Ok(None);
        };
        if !b"+-:_,#($!=*~>%|".contains(&kind) {
            return Err(Fault::Kind(kind));
        }
        let Some(line_end) = self.line_end(bytes)? else {
            return Ok(None);
        };
        let text = &bytes[self.at + 1..line_end - 2];
        let mut end = line_end;
        let wanted = match kind {
            b'$' | b'!' | b'=' => {
                end += length(text)? + 2;
                if end > ANSWER_BYTES_MAX {
                    return Err(Fault::Long);
                }
                if bytes.len() < end {
                    return Ok(None);
                }
                if &bytes[end - 2..end] != b"\r\n" {
                    return Err(Fault::Unended);
                }
                0
            }
            b'*' | b'~' | b'>' => length(text)? as u64,
            // A key and a value each.
            b'%' => 2 * length(text)? as u64,
            // The value of which they tell follows them, and is of the same place.
            b'|' => 2 * length(text)? as u64 + 1,
            _ => 0,
        };
        self.elements += 1;
        if self.elements + wanted > ELEMENTS_MAX {
            return Err(Fault::Wide);
        }
        if wanted > 0 {
            *self.open.get_mut(self.depth).ok_or(Fault::Deep)? = wanted;
            self.depth += 1;
        }
        Ok(Some((end, wanted == 0)))
    }

    /// Behind the line that begins at `at`, if it has come.
    fn line_end(&mut self, bytes: &[u8]) -> Result<Option<usize>, Fault> {
        let from = self.searched.max(self.at);
        let found = bytes[from..].windows(2).position(|pair| pair == b"\r\n");
        let end = found.map(|position| from + position + 2);
        if end.unwrap_or(bytes.len()) - self.at > LINE_BYTES_MAX {
            return Err(Fault::Line);
        }
        if end.is_none() {
            // The last byte may be half of the end.
            self.searched = from.max(bytes.len().saturating_sub(1));
        }
        Ok(end)
    }

    fn innermost(&mut self) -> Option<&mut u64> {
        let last = self.depth.checked_sub(1)?;
        self.open.get_mut(last)
    }
}

/// A length. One of more than nine digits is longer than anything that is taken, and may overflow.
fn length(text: &[u8]) -> Result<usize, Fault> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return Err(Fault::Length);
    }
    if text.len() > 9 {
        return Err(Fault::Long);
    }
    let digits = text.iter().map(|digit| usize::from(digit - b'0'));
    Ok(digits.fold(0, |number, digit| 10 * number + digit))
}
