//! Log output on stderr: text on a terminal, one JSON object a line in a pipe.
//!
//! In: `tracing` events of every module, filtered by `log.level`, which may change while the process
//! runs ([`set_level`]). Out: stderr; stdout belongs to results. Owner: the process, once. Text of
//! other people (names, reasons, errors of a peer) is written with its control characters escaped, so
//! that it can neither steer a terminal nor forge a line. Whoever logs does not wait for the reader of
//! the log: lines go through a bounded queue to a thread of their own ([`super::lines`]).
//!
//! Every line says what happened by the field `event`, a stable name of the form noun_past-verb
//! (`node_started`, `session_closed`), and on which `node`; the message beside it is for people and
//! may change. Where `fanfare::tasks` is filtered at `debug` or finer, it also names the `task` in
//! which it was written. Levels: a peer's fault is `debug`, ours is `warn`, lost data or a needed human is
//! `error`. Values are written in the words of the wire.

use std::error::Error;
use std::fmt;
use std::io::IsTerminal;
use std::sync::OnceLock;

use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::format::{self, Format, FormatEvent, FormatFields, Full, Writer};
use tracing_subscriber::fmt::time::{FormatTime as _, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormattedFields, MakeWriter, SubscriberBuilder};
use tracing_subscriber::registry::LookupSpan;

use super::lines::{FLUSH, IntoQueue, queue};
use crate::config::{Log, LogFormat};

/// Fields that are written as a list: their value is the text of a JSON list.
const LISTS: &[&str] = &["reasons", "keys"];

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// `log.level` is not a filter.
    #[error("log.level is no filter such as info,fanfare=debug")]
    Filter(#[source] tracing_subscriber::filter::ParseError),
    /// The process logs already.
    #[error("the log was started before")]
    Started(#[source] tracing::subscriber::SetGlobalDefaultError),
    /// The log cannot be changed any more.
    #[error("the log is gone")]
    Gone(#[source] tracing_subscriber::reload::Error),
}

type SetFilter = Box<dyn Fn(EnvFilter) -> Result<(), LogError> + Send + Sync>;

/// Changes the filter of the log that was started.
static SET_FILTER: OnceLock<SetFilter> = OnceLock::new();

/// How the last word of the process is written.
static FORM: OnceLock<Form> = OnceLock::new();

struct Form {
    is_json: bool,
    node: String,
}

/// Writes the lines of the log, see [`Self::run`].
#[derive(Debug)]
#[must_use = "without its run nothing is written"]
pub struct LogWriter(());

impl LogWriter {
    /// Writes for ever; to be called on a thread of its own.
    pub fn run(self) -> ! {
        queue().write_to(std::io::stderr())
    }
}

/// Whether a log of this format is one of JSON lines.
#[must_use]
pub fn is_json(format: LogFormat) -> bool {
    match format {
        LogFormat::Auto => !std::io::stderr().is_terminal(),
        LogFormat::Text => false,
        LogFormat::Json => true,
    }
}

/// Starts the log of this process, whose lines name this node. They are written by what is
/// returned.
///
/// # Errors
/// [`LogError`].
pub fn start(log: &Log, node: &str) -> Result<LogWriter, LogError> {
    let into = || IntoQueue;
    let filter = EnvFilter::try_new(&log.level).map_err(LogError::Filter)?;
    let is_json = is_json(log.format);
    if is_json {
        let (subscriber, set) = json(into, filter, node);
        begin(subscriber, set)?;
    } else {
        let is_terminal = std::io::stderr().is_terminal();
        let (subscriber, set) = text(into, filter, node, is_terminal);
        begin(subscriber, set)?;
    }
    let node = node.to_owned();
    // Only one log is ever started, as `begin` holds.
    let _ = FORM.set(Form { is_json, node });
    Ok(LogWriter(()))
}

/// Tells why the process ends, whatever `log.level` says: as a line of the log where that is JSON,
/// and as plain text to people.
pub fn last_word(text: &str) {
    let line = match FORM.get() {
        Some(form) if form.is_json => last_line(text, &form.node),
        _ => format!("{text}\n"),
    };
    queue().push_last_word(line.as_bytes());
}

fn last_line(text: &str, node: &str) -> String {
    let mut time = String::new();
    // Writing to a String cannot fail.
    let _ = SystemTime.format_time(&mut Writer::new(&mut time));
    let (text, node) = (quoted(text), quoted(node));
    let target = quoted(module_path!());
    format!(
        "{{\"timestamp\":\"{time}\",\"level\":\"ERROR\",\"event\":\"{event}\",\
         \"message\":{text},\"node\":{node},\"target\":{target}}}\n",
        event = "node_failed"
    )
}

/// Shows people something between the lines of the log.
pub fn show(text: &str) {
    queue().push(text.as_bytes());
}

/// Waits until the lines so far are written, for at most [`FLUSH`]: before the process ends.
pub fn flush() {
    queue().flush(FLUSH);
}

fn begin(subscriber: impl Subscriber + Send + Sync, set: SetFilter) -> Result<(), LogError> {
    tracing::subscriber::set_global_default(subscriber).map_err(LogError::Started)?;
    // Only one log is ever started, as the line above holds.
    let _ = SET_FILTER.set(set);
    Ok(())
}

/// Filters by another level from now on.
///
/// # Errors
/// [`LogError::Filter`]; nothing changes.
pub fn set_level(level: &str) -> Result<(), LogError> {
    let filter = EnvFilter::try_new(level).map_err(LogError::Filter)?;
    SET_FILTER.get().map_or(Ok(()), |set| set(filter))
}

fn json<W>(writer: W, filter: EnvFilter, node: &str) -> (impl Subscriber + Send + Sync, SetFilter)
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let node = node.to_owned();
    let builder = SubscriberBuilder::default()
        .log_internal_errors(false)
        .event_format(JsonLines { node })
        .fmt_fields(JsonSpanFields)
        .with_writer(writer)
        .with_env_filter(filter)
        .with_filter_reloading();
    let handle = builder.reload_handle();
    let set: SetFilter = Box::new(move |filter| handle.reload(filter).map_err(LogError::Gone));
    (builder.finish(), set)
}

fn text<W>(
    writer: W,
    filter: EnvFilter,
    node: &str,
    ansi: bool,
) -> (impl Subscriber + Send + Sync, SetFilter)
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let node = node.to_owned();
    let lines = format::format().with_ansi(ansi);
    let builder = SubscriberBuilder::default()
        .with_ansi(ansi)
        .log_internal_errors(false)
        .event_format(TextLines { node, lines })
        .with_writer(writer)
        .fmt_fields(EscapedFields)
        .with_env_filter(filter)
        .with_filter_reloading();
    let handle = builder.reload_handle();
    let set: SetFilter = Box::new(move |filter| handle.reload(filter).map_err(LogError::Gone));
    (builder.finish(), set)
}

/// Lines of text, with the node at their end.
struct TextLines {
    node: String,
    lines: Format<Full, SystemTime>,
}

impl<S, N> FormatEvent<S, N> for TextLines
where
    S: Subscriber + for<'l> LookupSpan<'l>,
    N: for<'w> FormatFields<'w> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut line = String::new();
        self.lines
            .format_event(context, Writer::new(&mut line), event)?;
        writeln!(writer, "{} node={}", line.trim_end(), self.node)
    }
}

/// One JSON object a line: time, level, event, message and node first, then the fields.
struct JsonLines {
    node: String,
}

impl<S, N> FormatEvent<S, N> for JsonLines
where
    S: Subscriber + for<'l> LookupSpan<'l>,
    N: for<'w> FormatFields<'w> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut time = String::new();
        SystemTime.format_time(&mut Writer::new(&mut time))?;
        let mut fields = JsonFields::default();
        event.record(&mut fields);
        let level = event.metadata().level();
        write!(writer, "{{\"timestamp\":\"{time}\",\"level\":\"{level}\"")?;
        for (name, value) in fields.first.iter().chain(&fields.rest) {
            write!(writer, ",{}:{value}", quoted(name))?;
        }
        for span in context.event_scope().into_iter().flatten() {
            if let Some(fields) = span.extensions().get::<FormattedFields<N>>() {
                writer.write_str(fields)?;
            }
        }
        let (node, target) = (quoted(&self.node), quoted(event.metadata().target()));
        writeln!(writer, ",\"node\":{node},\"target\":{target}}}")
    }
}

/// The fields of a span as they are written into each JSON line inside it.
struct JsonSpanFields;

impl<'w> FormatFields<'w> for JsonSpanFields {
    fn format_fields<R: RecordFields>(&self, mut writer: Writer<'w>, fields: R) -> fmt::Result {
        let mut json = JsonFields::default();
        fields.record(&mut json);
        for (name, value) in json.first.iter().chain(&json.rest) {
            write!(writer, ",{}:{value}", quoted(name))?;
        }
        Ok(())
    }
}

/// The fields of one line as JSON, `event` and `message` apart.
#[derive(Default)]
struct JsonFields {
    first: Vec<(&'static str, String)>,
    rest: Vec<(&'static str, String)>,
}

impl JsonFields {
    fn put(&mut self, field: &Field, value: String) {
        match field.name() {
            name @ ("event" | "message") => self.first.push((name, value)),
            name => self.rest.push((name, value)),
        }
    }

    fn put_text(&mut self, field: &Field, text: &str) {
        let is_list = LISTS.contains(&field.name())
            && serde_json::from_str::<Vec<serde_json::Value>>(text).is_ok();
        self.put(
            field,
            if is_list {
                text.to_owned()
            } else {
                quoted(text)
            },
        );
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
        self.put_text(field, value);
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        self.put_text(field, &causes(value));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put_text(field, &format!("{value:?}"));
    }
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// A list for one of the fields that are written as lists, see [`LISTS`].
#[must_use]
pub fn list<T: AsRef<str>>(items: &[T]) -> String {
    let items = items
        .iter()
        .map(|item| serde_json::Value::from(item.as_ref()));
    serde_json::Value::Array(items.collect()).to_string()
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

/// Fields as `name=value`. The subscriber's own form escapes terminal sequences but leaves line
/// breaks in what is logged by `Display`, so a peer's text could begin a line of its own.
struct EscapedFields;

impl<'w> FormatFields<'w> for EscapedFields {
    fn format_fields<R: RecordFields>(&self, mut writer: Writer<'w>, fields: R) -> fmt::Result {
        let mut text = TextFields::default();
        fields.record(&mut text);
        writer.write_str(&text.0)
    }
}

/// The fields of one line as text.
#[derive(Default)]
struct TextFields(String);

impl TextFields {
    fn put(&mut self, field: &Field, text: &str) {
        if !self.0.is_empty() {
            self.0.push(' ');
        }
        if field.name() != "message" {
            self.0.push_str(field.name());
            self.0.push('=');
        }
        for character in text.chars() {
            if character.is_control() {
                self.0.extend(character.escape_default());
            } else {
                self.0.push(character);
            }
        }
    }
}

impl Visit for TextFields {
    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        self.put(field, &causes(value));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, &format!("{value:?}"));
    }
}

#[cfg(test)]
mod tests;
