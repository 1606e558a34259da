//! Standard input as lines.
//!
//! In: bytes, read by a thread of its own, because reading a terminal or a pipe blocks. Out: the
//! lines that are not empty, each with its number, counted from 1. A line ends in `\n` or `\r\n`;
//! the last one need not. A line that is no text or too long is told by its number, and the lines
//! behind it follow. Bounds: [`LINES_WAIT_MAX`] lines wait, then reading waits; of a line over
//! [`LINE_BYTES_MAX`] the rest is passed over.

use std::io::{self, BufRead, Read};

use tokio::sync::mpsc;

/// Most lines that wait to be taken.
const LINES_WAIT_MAX: usize = 1_000;
/// Longest line.
const LINE_BYTES_MAX: u64 = 4 << 20;

/// One line of standard input.
#[derive(Debug, PartialEq, Eq)]
pub struct Line {
    /// Counted from 1.
    pub number: u64,
    /// Without its end.
    pub text: String,
}

/// Why a line is none, or there are no more.
#[derive(Debug, thiserror::Error)]
pub enum InputError {
    /// Reading failed; it is the last.
    #[error("cannot read standard input")]
    Read(#[source] io::Error),
    /// Too long.
    #[error("line {0} is longer than {LINE_BYTES_MAX} bytes and was not sent")]
    TooLong(u64),
    /// No text.
    #[error("line {0} is not UTF-8 and was not sent")]
    NotText(u64),
}

/// Reads lines until the end, an error, or until nobody takes them any more.
///
/// # Errors
/// The thread cannot be started.
pub fn of_stdin() -> io::Result<mpsc::Receiver<Result<Line, InputError>>> {
    let (sender, receiver) = mpsc::channel(LINES_WAIT_MAX);
    crate::tasks::thread("stdin".to_owned(), move || {
        let mut input = std::io::stdin().lock();
        for number in 1.. {
            let Some(line) = next(&mut input, number) else {
                return;
            };
            let is_last = matches!(line, Err(InputError::Read(_)));
            let is_empty = matches!(&line, Ok(line) if line.text.is_empty());
            // A closed channel means that the command has ended.
            if !is_empty && (sender.blocking_send(line).is_err() || is_last) {
                return;
            }
        }
    })?;
    Ok(receiver)
}

fn next(input: &mut impl BufRead, number: u64) -> Option<Result<Line, InputError>> {
    let mut bytes = Vec::new();
    // Room for the line's end.
    let read = input
        .by_ref()
        .take(LINE_BYTES_MAX + 2)
        .read_until(b'\n', &mut bytes);
    match read {
        Err(error) => return Some(Err(InputError::Read(error))),
        Ok(0) => return None,
        Ok(_) => {}
    }
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
        if bytes.last() == Some(&b'\r') {
            bytes.pop();
        }
    } else if bytes.len() as u64 > LINE_BYTES_MAX
        && let Err(error) = input.skip_until(b'\n')
    {
        return Some(Err(InputError::Read(error)));
    }
    if bytes.len() as u64 > LINE_BYTES_MAX {
        return Some(Err(InputError::TooLong(number)));
    }
    let text = String::from_utf8(bytes).map_err(|_| InputError::NotText(number));
    Some(text.map(|text| Line { number, text }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(mut input: &[u8]) -> Vec<Result<String, String>> {
        let lines = (1..).map_while(|number| next(&mut input, number));
        let told = lines.map(|line| match line {
            Ok(line) => Ok(line.text),
            Err(error) => Err(error.to_string()),
        });
        told.collect()
    }

    #[test]
    fn a_line_ends_at_its_break_and_nothing_else_is_taken_away() {
        let ok = |texts: &[&str]| {
            texts
                .iter()
                .map(|t| Ok((*t).to_owned()))
                .collect::<Vec<_>>()
        };
        assert_eq!(
            all(b"one\r\n\n two \nx\r\r\na\0b\nlast"),
            ok(&["one", "", " two ", "x\r", "a\0b", "last"])
        );
        assert_eq!(all(b""), ok(&[]));
    }

    #[test]
    fn a_line_that_is_no_text_or_too_long_is_told_and_the_next_follow() {
        let longest = usize::try_from(LINE_BYTES_MAX).expect("fits");
        for (length, end, fits) in [
            (longest, "\r\n", true),
            (longest + 1, "\r\n", false),
            (longest + 1, "\n", false),
            (longest + 5, "\n", false),
        ] {
            let input = format!("\n{}{end}next\n", "x".repeat(length));
            let told = all(input.as_bytes());
            assert_eq!(told[1].is_ok(), fits, "{length}");
            assert_eq!(told[2], Ok("next".to_owned()));
            if !fits {
                let what = "line 2 is longer than 4194304 bytes and was not sent";
                assert_eq!(told[1], Err(what.to_owned()));
            }
        }
        let what = "line 2 is not UTF-8 and was not sent";
        let told = all(b"one\n\xff\xfe\nthree");
        assert_eq!(told[1], Err(what.to_owned()));
        assert_eq!(told[2], Ok("three".to_owned()));
    }
}
