//! The fields of one line of the log, as JSON and as text.
//!
//! In: the values that `tracing` records, and lists ([`List`]). Out: JSON values or `name=value`, with
//! control characters escaped. Owner: nobody; each line has its own. Bounds: a value has at most
//! [`VALUE_BYTES_MAX`] bytes of text before it is escaped, and all of a line together
//! [`FIELDS_BYTES_MAX`]. What is longer is cut, and ends in `…`; of a list, whole items are left out.

use std::error::Error;
use std::fmt::{self, Write as _};

use tracing::field::{Field, Visit};
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::Writer;

/// Most bytes of one value: room for a backtrace of a hundred frames and more.
pub const VALUE_BYTES_MAX: usize = 32 * 1_024;
/// Most bytes of all values of a line.
pub const FIELDS_BYTES_MAX: usize = 64 * 1_024;
/// Stands where something was cut off.
const CUT: char = '…';

/// A value that is written as a JSON list, whatever its field is called.
///
/// `tracing` takes numbers, texts and errors, and only an error can be asked for its type. So this is
/// one in form, and none in meaning.
#[derive(Debug)]
pub struct List(Vec<String>);

impl List {
    /// Of these texts.
    #[must_use]
    pub fn of<T: ToString>(items: impl IntoIterator<Item = T>) -> Self {
        Self(items.into_iter().map(|item| item.to_string()).collect())
    }

    /// The value of a field.
    #[must_use]
    pub fn value(&self) -> &(dyn Error + 'static) {
        self
    }

    /// With as many items as there is room for.
    fn json(&self, room: &mut Room) -> String {
        let fits = |item: &&String| {
            let fits = item.len() < room.value();
            room.left = room.left.saturating_sub(item.len() + 1);
            fits
        };
        let mut items: Vec<_> = self.0.iter().take_while(fits).map(|i| i.as_str()).collect();
        let left_out = match self.0.len() - items.len() {
            0 => None,
            count => Some(format!("{CUT} and {count} more")),
        };
        items.extend(left_out.as_deref());
        serde_json::Value::from(items).to_string()
    }
}

impl fmt::Display for List {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.json(&mut Room::default()))
    }
}

impl Error for List {}

/// How many bytes the values of a line may still have.
struct Room {
    left: usize,
}

impl Default for Room {
    fn default() -> Self {
        let left = FIELDS_BYTES_MAX;
        Self { left }
    }
}

impl Room {
    /// For the next value.
    fn value(&self) -> usize {
        self.left.min(VALUE_BYTES_MAX)
    }

    /// What a value says, as far as there is room.
    fn text(&mut self, value: fmt::Arguments<'_>) -> String {
        let mut text = Bounded {
            text: String::new(),
            bytes_max: self.value(),
        };
        let is_cut = text.write_fmt(value).is_err();
        let mut text = text.text;
        self.left -= text.len();
        if is_cut {
            text.push(CUT);
        }
        text
    }
}

/// Takes so many bytes, and refuses the rest.
struct Bounded {
    text: String,
    bytes_max: usize,
}

impl fmt::Write for Bounded {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let fitting = cut(text, self.bytes_max - self.text.len());
        self.text.push_str(fitting);
        match fitting.len() == text.len() {
            true => Ok(()),
            false => Err(fmt::Error),
        }
    }
}

/// What a value says, of at most so many bytes.
#[must_use]
pub fn bounded(value: fmt::Arguments<'_>, bytes_max: usize) -> String {
    let mut text = Bounded {
        text: String::new(),
        bytes_max,
    };
    // What does not fit is left out.
    let _ = text.write_fmt(value);
    text.text
}

/// The fields of one line or span as JSON, `event` and `message` first.
#[derive(Default)]
pub struct JsonFields {
    first: Vec<(&'static str, String)>,
    rest: Vec<(&'static str, String)>,
    room: Room,
}

impl JsonFields {
    /// Writes each with a comma before it.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn write(&self, writer: &mut impl fmt::Write) -> fmt::Result {
        for (name, value) in self.first.iter().chain(&self.rest) {
            write!(writer, ",{}:{value}", quoted(name))?;
        }
        Ok(())
    }

    fn put(&mut self, field: &Field, value: String) {
        match field.name() {
            name @ ("event" | "message") => self.first.push((name, value)),
            name => self.rest.push((name, value)),
        }
    }

    fn put_text(&mut self, field: &Field, value: fmt::Arguments<'_>) {
        let text = self.room.text(value);
        self.put(field, quoted(&text));
    }
}

impl Visit for JsonFields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, serde_json::Value::from(value).to_string());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value.to_string());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value.to_string());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value.to_string());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put_text(field, format_args!("{value}"));
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        match value.downcast_ref::<List>() {
            Some(list) => {
                let list = list.json(&mut self.room);
                self.put(field, list);
            }
            None => self.put_text(field, format_args!("{}", causes(value))),
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put_text(field, format_args!("{value:?}"));
    }
}

/// The fields of a span as they are written into each JSON line inside it.
pub struct JsonSpanFields;

impl<'w> FormatFields<'w> for JsonSpanFields {
    fn format_fields<R: RecordFields>(&self, mut writer: Writer<'w>, fields: R) -> fmt::Result {
        let mut json = JsonFields::default();
        fields.record(&mut json);
        json.write(&mut writer)
    }
}

/// Fields as `name=value`. The subscriber's own form escapes terminal sequences but leaves line
/// breaks in what is logged by `Display`, so a peer's text could begin a line of its own.
pub struct EscapedFields;

impl<'w> FormatFields<'w> for EscapedFields {
    fn format_fields<R: RecordFields>(&self, mut writer: Writer<'w>, fields: R) -> fmt::Result {
        let mut text = TextFields::default();
        fields.record(&mut text);
        writer.write_str(&text.text)
    }
}

/// The fields of one line as text.
#[derive(Default)]
struct TextFields {
    text: String,
    room: Room,
}

impl TextFields {
    fn put(&mut self, field: &Field, value: fmt::Arguments<'_>) {
        if !self.text.is_empty() {
            self.text.push(' ');
        }
        if field.name() != "message" {
            self.text.push_str(field.name());
            self.text.push('=');
        }
        escape(&self.room.text(value), &mut self.text);
    }
}

impl Visit for TextFields {
    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        self.put(field, format_args!("{}", causes(value)));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format_args!("{value:?}"));
    }
}

/// Appends a text, with its control characters escaped.
pub fn escape(text: &str, into: &mut String) {
    for character in text.chars() {
        if character.is_control() {
            into.extend(character.escape_default());
        } else {
            into.push(character);
        }
    }
}

/// As much of a text as has so many bytes.
#[must_use]
pub fn cut(text: &str, bytes_max: usize) -> &str {
    let mut end = text.len().min(bytes_max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// A text as a JSON value.
#[must_use]
pub fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// An error and what caused it, down to the first cause. Where an error already says what its
/// cause says, that is not repeated.
#[must_use]
pub fn causes(error: &(dyn Error + 'static)) -> String {
    let causes = std::iter::successors(error.source(), |&cause| cause.source());
    causes.fold(error.to_string(), |text, cause| {
        let said = cause.to_string();
        if text.ends_with(&said) {
            text
        } else {
            format!("{text}: {said}")
        }
    })
}
