//! Log output on stderr: text on a terminal, one JSON object a line in a pipe.
//!
//! In: `tracing` events of every module, filtered by `log.level`, which may change while the process
//! runs ([`set_level`]). Out: stderr, and where it is asked for a collector ([`super::otlp::records`]);
//! stdout belongs to results. Owner: the process, once. Text of
//! other people (names, reasons, errors of a peer) is written with its control characters escaped, so
//! that it can neither steer a terminal nor forge a line. Whoever logs does not wait for the reader of
//! the log: lines go through a bounded queue to a thread of their own ([`super::lines`]). Bounds: those
//! of the queue, of the fields of a line ([`super::fields`]), and of the lines of one event in a second
//! ([`super::limits`]); the last word of the process has none of a second.
//!
//! Every line says what happened by the field `event`, a stable name of the form noun_past-verb
//! (`node_started`, `session_closed`), and on which `node`; the message beside it is for people and
//! may change. Where `fanfare::tasks` is filtered at `debug` or finer, it also names the `task` in
//! which it was written. Levels: a peer's fault is `debug`, ours is `warn`, lost data or a needed human is
//! `error`. Values are written in the words of the wire.

use std::fmt;
use std::io::IsTerminal;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::{self, Format, FormatEvent, FormatFields, Full, Writer};
use tracing_subscriber::fmt::time::{FormatTime as _, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormattedFields, MakeWriter, SubscriberBuilder};
use tracing_subscriber::registry::LookupSpan;

use super::fields::{EscapedFields, JsonFields, JsonSpanFields, escape, quoted};
use super::limits::{Limits, Suppressed};
use super::lines::{self, FLUSH, IntoQueue};
use super::otlp::records;
use crate::config::{Log, LogFormat};

/// How often it is told how many lines were not written.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// Events of which every line is written.
const UNLIMITED: [&str; 2] = ["call_audited", "audit_refused"];

/// What is said of lines that were not written.
const SUPPRESSED_TEXT: &str = "this event had more lines in a second than are written";

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// `log.level` is not a filter.
    #[error("log.level is no filter such as info,fanfare=debug")]
    Filter(#[source] tracing_subscriber::filter::ParseError),
    /// The process logs already.
    #[error("the log was started before")]
    Started(#[source] tracing::subscriber::SetGlobalDefaultError),
    /// Nothing would write it.
    #[error(transparent)]
    NoThread(#[from] lines::NoThread),
    /// The log cannot be changed any more.
    #[error("the log is gone")]
    Gone(#[source] tracing_subscriber::reload::Error),
}

type SetFilter = Box<dyn Fn(EnvFilter) -> Result<(), LogError> + Send + Sync>;

/// Changes the filter of the log that was started.
static SET_FILTER: OnceLock<SetFilter> = OnceLock::new();

/// The log that was started: how lines that pass by the filter are written.
static FORM: OnceLock<Form> = OnceLock::new();

#[derive(Debug, Clone)]
struct Form {
    is_json: bool,
    node: String,
    limits: Arc<Limits>,
}

/// Tells what was not written, see [`Self::run`].
#[derive(Debug)]
#[must_use = "without its run nobody learns what was not written"]
pub struct Suppressions(Form);

impl Suppressions {
    /// Tells once a second which events had more lines than are written, and how many more, for ever;
    /// to be called on a thread of its own. It sleeps while there are none.
    pub fn run(self) -> ! {
        loop {
            self.0.limits.wait();
            std::thread::sleep(TELL_EVERY);
            self.0.tell(|limits| limits.ended(Instant::now()));
        }
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

/// Starts the log of this process, whose lines name this node, and the thread that writes them.
/// What is not written is told by what is returned.
///
/// # Errors
/// [`LogError`].
pub fn start(log: &Log, node: &str) -> Result<Suppressions, LogError> {
    let into = || IntoQueue;
    let filter = EnvFilter::try_new(&log.level).map_err(LogError::Filter)?;
    lines::start()?;
    let form = Form {
        is_json: is_json(log.format),
        node: node.to_owned(),
        limits: Arc::default(),
    };
    if form.is_json {
        let (subscriber, set) = json(into, filter, form.clone());
        begin(subscriber, set)?;
    } else {
        let is_terminal = std::io::stderr().is_terminal();
        let (subscriber, set) = text(into, filter, form.clone(), is_terminal);
        begin(subscriber, set)?;
    }
    // Only one log is ever started, as `begin` holds.
    let _ = FORM.set(form.clone());
    Ok(Suppressions(form))
}

/// Tells why the process ends, whatever `log.level` says: as a line of the log where that is JSON,
/// and as plain text to people.
pub fn last_word(text: &str) {
    let event = "node_failed";
    let line = match FORM.get() {
        Some(form) if form.is_json => form.line(Level::ERROR, event, text, &[]),
        _ => format!("{text}\n"),
    };
    if let Some(queue) = lines::queue() {
        queue.push_last_word(line.as_bytes());
    }
}

/// Tells a collector the same, while what is sent to it still is.
pub fn send_last_word(text: &str) {
    let event = "node_failed";
    records::send_own(Level::ERROR, event, text, module_path!(), None);
}

impl Form {
    /// Whether this line is none too many of its event. Then the collector gets it too.
    fn admits(&self, event: &Event<'_>) -> bool {
        let metadata = event.metadata();
        let mut name = EventName::default();
        event.record(&mut name);
        let name = name.0.as_deref().unwrap_or(metadata.target());
        // An act of the audit is never left out: nobody may hide one behind others. Clients have a rate
        // of them.
        let is_admitted = UNLIMITED.contains(&name)
            || self.limits.admits(name, *metadata.level(), Instant::now());
        match is_admitted {
            true => records::send(event),
            false => lines::room().counters.suppressed.add(1),
        }
        is_admitted
    }

    /// Tells what is due, which is taken and in the queue before anybody else tells.
    fn tell(&self, due: impl FnOnce(&Limits) -> Vec<Suppressed>) {
        static TELLING: Mutex<()> = Mutex::new(());
        let _telling = TELLING.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(queue) = lines::queue() else {
            return;
        };
        for one in due(&self.limits) {
            queue.push(self.suppressed(&one).as_bytes());
            let event = "lines_suppressed";
            let (level, own) = (one.level, module_path!());
            records::send_own(level, event, SUPPRESSED_TEXT, own, Some(&one));
        }
    }

    /// Tells of lines that were not written. They had passed the filter, so this does not ask it.
    fn suppressed(&self, suppressed: &Suppressed) -> String {
        let (of, count) = (quoted(&suppressed.event), suppressed.count.to_string());
        let fields = [("suppressed", of), ("count", count)];
        let event = "lines_suppressed";
        self.line(suppressed.level, event, SUPPRESSED_TEXT, &fields)
    }

    /// A line of this module's own. The values of the fields are JSON.
    fn line(&self, level: Level, event: &str, text: &str, fields: &[(&str, String)]) -> String {
        let mut time = String::new();
        // Writing to a String cannot fail.
        let _ = SystemTime.format_time(&mut Writer::new(&mut time));
        let (node, target) = (&self.node, module_path!());
        let fields = fields.iter();
        if self.is_json {
            let fields: String = fields.map(|(name, v)| format!(",\"{name}\":{v}")).collect();
            let (text, node) = (quoted(text), quoted(node));
            format!(
                "{{\"timestamp\":\"{time}\",\"level\":\"{level}\",\"event\":\"{event}\",\
                 \"message\":{text}{fields},\"node\":{node},\"target\":\"{target}\"}}\n"
            )
        } else {
            let fields: String = fields.map(|(name, v)| format!(" {name}={v}")).collect();
            let mut escaped = String::new();
            escape(text, &mut escaped);
            format!("{time} {level:>5} {target}: {escaped} event=\"{event}\"{fields} node={node}\n")
        }
    }
}

/// Finds the name of an event among its fields.
#[derive(Default)]
struct EventName(Option<String>);

impl Visit for EventName {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "event" {
            self.0 = Some(value.to_owned());
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn fmt::Debug) {}
}

/// Shows people something between the lines of the log.
pub fn show(text: &str) {
    if let Some(queue) = lines::queue() {
        queue.push(text.as_bytes());
    }
}

/// Tells what was not written so far, and waits until the lines are, for at most [`FLUSH`]: before the
/// process ends.
pub fn flush() {
    if let Some(form) = FORM.get() {
        form.tell(|limits| limits.all(Instant::now()));
    }
    if let Some(queue) = lines::queue() {
        queue.flush(FLUSH);
    }
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

fn json<W>(writer: W, filter: EnvFilter, form: Form) -> (impl Subscriber + Send + Sync, SetFilter)
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let builder = SubscriberBuilder::default()
        .log_internal_errors(false)
        .event_format(JsonLines(form))
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
    form: Form,
    ansi: bool,
) -> (impl Subscriber + Send + Sync, SetFilter)
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let lines = format::format().with_ansi(ansi);
    let builder = SubscriberBuilder::default()
        .with_ansi(ansi)
        .log_internal_errors(false)
        .event_format(TextLines { form, lines })
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
    form: Form,
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
        if !self.form.admits(event) {
            // Then nothing is written.
            return Err(fmt::Error);
        }
        let mut line = String::new();
        self.lines
            .format_event(context, Writer::new(&mut line), event)?;
        writeln!(writer, "{} node={}", line.trim_end(), self.form.node)
    }
}

/// One JSON object a line: time, level, event, message and node first, then the fields.
struct JsonLines(Form);

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
        if !self.0.admits(event) {
            // Then nothing is written.
            return Err(fmt::Error);
        }
        let mut time = String::new();
        SystemTime.format_time(&mut Writer::new(&mut time))?;
        let mut fields = JsonFields::default();
        event.record(&mut fields);
        let level = event.metadata().level();
        write!(writer, "{{\"timestamp\":\"{time}\",\"level\":\"{level}\"")?;
        fields.write(&mut writer)?;
        for span in context.event_scope().into_iter().flatten() {
            if let Some(fields) = span.extensions().get::<FormattedFields<N>>() {
                writer.write_str(fields)?;
            }
        }
        let (node, target) = (quoted(&self.0.node), quoted(event.metadata().target()));
        writeln!(writer, ",\"node\":{node},\"target\":{target}}}")
    }
}

#[cfg(test)]
mod tests;
