//! What the commands print: text for people on a terminal, one JSON object a line in a pipe.
//!
//! In: results and events. Out: stdout for what was asked for, stderr for everything else. What
//! came from a node may carry text of other people, so control characters never reach the
//! terminal as they are.

use std::borrow::Cow;
use std::io::{ErrorKind, IsTerminal, Write};

use serde_json::Value;

use super::exit::Exit;

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Text on a terminal, JSON lines in a pipe
    Auto,
    /// Text for people
    Text,
    /// One JSON object a line
    Json,
}

impl Format {
    /// Whether to print JSON lines.
    #[must_use]
    pub fn is_json(self) -> bool {
        match self {
            Self::Auto => !std::io::stdout().is_terminal(),
            Self::Text => false,
            Self::Json => true,
        }
    }
}

/// Prints one line on stdout. A reader that has gone away ends the program quietly, as the
/// signal SIGPIPE does for other tools in a pipe; a full disk ends it with code 74 (`EX_IOERR`).
pub fn line(text: &str) {
    if !line_is_read(text) {
        std::process::exit(Exit::Done as i32);
    }
}

/// The same for a program that has more to do than to print: false where nobody reads any more.
pub fn line_is_read(text: &str) -> bool {
    let mut stdout = std::io::stdout().lock();
    match writeln!(stdout, "{text}").and_then(|()| stdout.flush()) {
        Ok(()) => true,
        Err(error) if error.kind() == ErrorKind::BrokenPipe => false,
        Err(error) => {
            note(&format!("fanfare: cannot write the output: {error}"));
            std::process::exit(Exit::Io as i32);
        }
    }
}

/// Prints one line on stderr; nobody can be told when that fails.
pub fn note(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// The text with control characters written as escapes, so that a message can neither steer the
/// terminal nor forge a line.
#[must_use]
pub fn printable(text: &str) -> Cow<'_, str> {
    if !text.contains(char::is_control) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 8);
    for character in text.chars() {
        if character.is_control() {
            escaped.extend(character.escape_default());
        } else {
            escaped.push(character);
        }
    }
    Cow::Owned(escaped)
}

/// A value for people: text as it is, everything else as JSON.
#[must_use]
pub fn body(data: &Value) -> String {
    match data {
        Value::String(text) => printable(text).into_owned(),
        other => printable(&other.to_string()).into_owned(),
    }
}

/// JSON of somebody else for people: a string as its text, everything else as it came.
#[must_use]
pub fn raw_body(json: &str) -> String {
    match serde_json::from_str::<String>(json) {
        Ok(text) => printable(&text).into_owned(),
        Err(_) => printable(json).into_owned(),
    }
}

/// JSON as one line, byte for byte but for line breaks, which can only stand between its parts. On
/// a terminal control characters are written as escapes.
#[must_use]
pub fn json_line(json: &str, is_terminal: bool) -> Cow<'_, str> {
    let is_break = |c: char| matches!(c, '\n' | '\r');
    let is_hidden = |c: char| is_terminal && c.is_control() && c != '\t';
    if !json.contains(|c| is_break(c) || is_hidden(c)) {
        return Cow::Borrowed(json);
    }
    let mut line = String::with_capacity(json.len() + 8);
    for character in json.chars() {
        match character {
            c if is_break(c) => line.push(' '),
            c if is_hidden(c) => line.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => line.push(c),
        }
    }
    Cow::Owned(line)
}

/// The time of day in UTC of a unix time in milliseconds, `12:03:44.123Z`.
#[must_use]
pub fn clock(unix_ms: u64) -> String {
    let (seconds, ms) = (unix_ms / 1_000, unix_ms % 1_000);
    let (hours, minutes) = (seconds / 3_600 % 24, seconds / 60 % 60);
    format!("{hours:02}:{minutes:02}:{:02}.{ms:03}Z", seconds % 60)
}

/// A table with a head line, columns as wide as their widest cell.
#[must_use]
pub fn table(head: &[&str], rows: &[Vec<String>]) -> Vec<String> {
    let width = |column: usize| {
        rows.iter()
            .map(|row| row[column].chars().count())
            .chain([head[column].len()])
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let line = |cells: Vec<&str>| {
        let cells: Vec<String> = cells
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        cells.join("  ").trim_end().to_owned()
    };
    std::iter::once(line(head.to_vec()))
        .chain(
            rows.iter()
                .map(|row| line(row.iter().map(String::as_str).collect())),
        )
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_of_a_message_are_shown_and_not_obeyed() {
        let hostile = Value::from("red \u{1b}[31m, bell \u{7}, C1 \u{9b}2J, line\nforged");
        let shown = body(&hostile);
        assert!(!shown.contains(char::is_control));
        assert_eq!(
            shown,
            r"red \u{1b}[31m, bell \u{7}, C1 \u{9b}2J, line\nforged"
        );
        // In JSON text serde_json leaves DEL and C1 as they are.
        let nested = serde_json::json!({"a": "\u{9b}2J"});
        assert!(!body(&nested).contains(char::is_control));
        assert_eq!(body(&Value::from("grüße 👋")), "grüße 👋");
    }

    #[test]
    fn json_of_others_keeps_every_byte_and_is_one_line() {
        let json = "{\"b\":1.10,\n \"a\":18446744073709551616,\"c\":\"\u{9b}2J\"}";
        assert_eq!(
            json_line(json, false),
            "{\"b\":1.10,  \"a\":18446744073709551616,\"c\":\"\u{9b}2J\"}"
        );
        let shown = json_line(json, true);
        assert!(
            !shown.contains(char::is_control) && shown.contains("\\u009b2J"),
            "{shown}"
        );
        assert_eq!(raw_body("1e400"), "1e400");
        assert_eq!(raw_body(r#"{"b":1,"a":2}"#), r#"{"b":1,"a":2}"#);
        assert_eq!(raw_body(r#""a\u0041""#), "aA");
        assert_eq!(raw_body(r#""\ud800""#), r#""\ud800""#);
    }

    #[test]
    fn the_time_of_day_is_counted_in_utc() {
        assert_eq!(clock(0), "00:00:00.000Z");
        assert_eq!(clock(1_700_000_000_007), "22:13:20.007Z");
    }

    #[test]
    fn a_table_lines_up_its_columns() {
        let rows = vec![
            vec!["a".to_owned(), "up".to_owned()],
            vec!["longer".to_owned(), "down".to_owned()],
        ];
        assert_eq!(
            table(&["node", "state"], &rows),
            ["node    state", "a       up", "longer  down"]
        );
    }
}
