//! Lines of the log in the form of the exporters.
//!
//! In: events that the log writes, behind its filter and its limits. Out: records, by a gate; and the exporter
//! that sends them. Owner: the process, once ([`send_to`]). Bounds: those of the gate, [`EARLY_MAX`] lines of before there is one, [`NAMES_MAX`] names
//! of events, and [`RECORD_BYTES_MAX`] bytes of text a record, of which the rest is cut. What a record is
//! made of is only gathered where there is room for it. Left out is what is not of this crate or its
//! client of Redis, and what is of this module: what exporters tell of themselves would beget itself.
//! The bridge of OpenTelemetry is not used: it cuts nothing, and names an event by its place in the source.

use std::collections::HashSet;
use std::error::Error;
use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::SystemTime;

use opentelemetry::InstrumentationScope;
use opentelemetry::logs::{AnyValue, LogRecord as _, Logger as _, LoggerProvider as _, Severity};
use opentelemetry_otlp::{ExporterBuildError, LogExporter};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::logs::{
    LogBatch, LogExporter as _, SdkLogRecord, SdkLogger, SdkLoggerProvider,
};
use tracing::field::{Field, Visit};
use tracing::{Event, Level};

use super::courier::Courier;
use super::exporter::{Exporter, configured};
use super::resource::scope;
use crate::telemetry::fields::{bounded, causes, cut};
use crate::telemetry::gate::Gate;
use crate::telemetry::limits::Suppressed;

/// Most bytes of text in one record.
pub const RECORD_BYTES_MAX: usize = 2_048;
/// Most bytes of one value.
const VALUE_BYTES_MAX: usize = 1_024;
/// Most names of events, which stay until the process ends; those that come then are attributes.
const NAMES_MAX: usize = 512;
/// The beginnings of targets that are sent.
const SENT: [&str; 2] = ["fanfare", "fred"];
/// What is not, though it begins so.
const NOT_SENT: &str = "fanfare::telemetry::otlp";

/// Most lines that wait until it is known whether they are sent.
const EARLY_MAX: usize = 64;

/// Where this process sends its log: unknown at first, and nowhere where it sends none.
static WAY: OnceLock<Option<Way>> = OnceLock::new();
/// Lines of before that was known, and how many more there were.
static EARLY: Mutex<(Vec<Line>, u64)> = Mutex::new((Vec::new(), 0));

#[derive(Debug)]
struct Way {
    gate: Gate<Line>,
    /// Records are made by none but a logger.
    logger: SdkLogger,
}

/// A line of the log.
#[derive(Debug)]
pub(super) struct Line {
    record: SdkLogRecord,
    /// The name of its event.
    event: Option<String>,
}

/// Sends the lines of this process' log there, with those of before; `None`: nowhere. The first call counts.
pub(super) fn send_to(gate: Option<Gate<Line>>) {
    let mut early = EARLY.lock().unwrap_or_else(PoisonError::into_inner);
    let (lines, more) = std::mem::take(&mut *early);
    if let Some(gate) = &gate {
        lines.into_iter().for_each(|line| gate.send(line));
        gate.dropped(more);
    }
    let logger = logger();
    let _ = WAY.set(gate.map(|gate| Way { gate, logger }));
}

/// It has no processors: what it makes goes by the gate.
fn logger() -> SdkLogger {
    // Without a resource it would read the environment for one.
    let nothing = Resource::builder_empty().build();
    let provider = SdkLoggerProvider::builder().with_resource(nothing).build();
    provider.logger_with_scope(scope())
}

/// Hands a line of the log to the gate, where there is one.
pub fn send(event: &Event<'_>) {
    if is_sent(event.metadata().target()) {
        hand_in(|logger| line(logger, event, SystemTime::now()));
    }
}

/// The same for a line that the log makes of itself.
pub fn send_own(
    level: Level,
    event: &str,
    text: &str,
    target: &'static str,
    suppressed: Option<&Suppressed>,
) {
    hand_in(|logger| {
        let mut record = begun(logger, level, SystemTime::now());
        record.set_body(cut(text, VALUE_BYTES_MAX).to_owned().into());
        if let Some(Suppressed { event, count, .. }) = suppressed {
            record.add_attribute("suppressed", event.to_string());
            record.add_attribute("count", i64::try_from(*count).unwrap_or(i64::MAX));
        }
        record.add_attribute("target", target);
        let event = Some(event.to_owned());
        Line { record, event }
    });
}

fn hand_in(make: impl FnOnce(&SdkLogger) -> Line) {
    if WAY.get().is_none() {
        // Before the lock: a value whose `Debug` writes a line comes here once more.
        let line = make(&logger());
        let mut early = EARLY.lock().unwrap_or_else(PoisonError::into_inner);
        // Whoever makes it known holds the lock.
        match WAY.get() {
            None if early.0.len() < EARLY_MAX => early.0.push(line),
            None => early.1 += 1,
            Some(Some(way)) => way.gate.send(line),
            Some(None) => {}
        }
    } else if let Some(Some(Way { gate, logger })) = WAY.get() {
        gate.send_with(|| make(logger));
    }
}

fn is_sent(target: &str) -> bool {
    SENT.iter().any(|begin| target.starts_with(begin)) && !target.starts_with(NOT_SENT)
}

/// A record with no more than when it was and how grave.
fn begun(logger: &SdkLogger, level: Level, now: SystemTime) -> SdkLogRecord {
    let severity = match level {
        Level::ERROR => Severity::Error,
        Level::WARN => Severity::Warn,
        Level::INFO => Severity::Info,
        Level::DEBUG => Severity::Debug,
        Level::TRACE => Severity::Trace,
    };
    let mut record = logger.create_log_record();
    record.set_timestamp(now);
    record.set_observed_timestamp(now);
    record.set_severity_number(severity);
    record.set_severity_text(level.as_str());
    record
}

fn line(logger: &SdkLogger, event: &Event<'_>, now: SystemTime) -> Line {
    let metadata = event.metadata();
    let record = begun(logger, *metadata.level(), now);
    let mut fields = Fields {
        line: Line {
            record,
            event: None,
        },
        left: RECORD_BYTES_MAX,
    };
    event.record(&mut fields);
    let mut line = fields.line;
    line.record.add_attribute("target", metadata.target());
    line
}

/// A line that fields are put into.
struct Fields {
    line: Line,
    left: usize,
}

impl Fields {
    fn put(&mut self, field: &Field, value: impl Into<AnyValue>) {
        let record = &mut self.line.record;
        match field.name() {
            "message" => record.set_body(value.into()),
            name => record.add_attribute(name, value),
        }
    }

    fn put_text(&mut self, field: &Field, value: fmt::Arguments<'_>) {
        let text = bounded(value, self.left.min(VALUE_BYTES_MAX));
        self.left -= text.len().min(self.left);
        match field.name() {
            "event" => self.line.event = Some(text),
            _ => self.put(field, text),
        }
    }
}

impl Visit for Fields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        let value = i64::try_from(value).unwrap_or(i64::MAX);
        self.put(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put_text(field, format_args!("{value}"));
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        self.put_text(field, format_args!("{}", causes(value)));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put_text(field, format_args!("{value:?}"));
    }
}

/// The exporter of lines.
pub(super) struct Lines {
    exporter: LogExporter,
    scope: InstrumentationScope,
    names: HashSet<&'static str>,
}

impl Lines {
    /// An exporter by this courier.
    ///
    /// # Errors
    /// Where the crate does not take its address.
    pub(super) fn new(
        courier: &Arc<Courier>,
        resource: &Resource,
    ) -> Result<Self, ExporterBuildError> {
        let mut exporter = configured(LogExporter::builder().with_http(), courier).build()?;
        exporter.set_resource(resource);
        Ok(Self {
            exporter,
            scope: scope(),
            names: HashSet::new(),
        })
    }
}

impl Exporter<Line> for Lines {
    fn export(&mut self, batch: Vec<Line>) -> impl Future<Output = OTelSdkResult> + Send {
        let records = batch.into_iter().map(|line| named(line, &mut self.names));
        let records: Vec<_> = records.collect();
        async move {
            let pairs: Vec<_> = records.iter().map(|it| (it, &self.scope)).collect();
            self.exporter.export(LogBatch::new(&pairs)).await
        }
    }
}

/// The record of a line, with the name of its event, for which the SDK takes only what stays.
fn named(line: Line, names: &mut HashSet<&'static str>) -> SdkLogRecord {
    let Line { mut record, event } = line;
    let Some(event) = event else {
        return record;
    };
    match names.get(event.as_str()) {
        Some(known) => record.set_event_name(known),
        None if names.len() < NAMES_MAX => {
            let name: &'static str = Box::leak(event.into_boxed_str());
            names.insert(name);
            record.set_event_name(name);
        }
        None => record.add_attribute("event", event),
    }
    record
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tracing::Subscriber;
    use tracing_subscriber::Layer;
    use tracing_subscriber::layer::{Context, SubscriberExt as _};

    use super::*;

    /// Keeps what it would send.
    struct Kept(Mutex<Vec<Line>>);

    impl<S: Subscriber> Layer<S> for &'static Kept {
        fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
            let line = line(&logger(), event, SystemTime::UNIX_EPOCH);
            self.0.lock().unwrap().push(line);
        }
    }

    fn text_of(value: Option<&AnyValue>) -> &str {
        match value {
            Some(AnyValue::String(text)) => text.as_str(),
            other => panic!("no text: {other:?}"),
        }
    }

    #[test]
    fn a_record_has_name_body_and_fields_and_is_cut_at_its_bound() {
        static KEPT: Kept = Kept(Mutex::new(Vec::new()));
        let subscriber = tracing_subscriber::registry().with(&KEPT);
        tracing::subscriber::with_default(subscriber, || {
            let long = "ä".repeat(RECORD_BYTES_MAX);
            tracing::warn!(
                event = "tested",
                count = 7_u64,
                long,
                longer = long,
                longest = long,
                "a test"
            );
        });
        let line = KEPT.0.lock().unwrap().remove(0);
        let record = named(line, &mut HashSet::new());
        assert_eq!(record.event_name(), Some("tested"));
        assert_eq!(text_of(record.body()), "a test");
        assert_eq!(record.severity_number(), Some(Severity::Warn));
        assert_eq!(record.severity_text(), Some("WARN"));
        let of = |name: &str| {
            let mut all = record.attributes_iter();
            all.find(|(key, _)| key.as_str() == name).map(|it| &it.1)
        };
        assert_eq!(of("count"), Some(&AnyValue::Int(7)));
        assert_eq!(text_of(of("target")), module_path!());
        assert_eq!(text_of(of("long")).len(), VALUE_BYTES_MAX);
        assert!(text_of(of("longer")).len() < VALUE_BYTES_MAX);
        let texts: usize = ["long", "longer", "longest"]
            .iter()
            .map(|n| text_of(of(n)).len())
            .sum();
        assert!(texts <= RECORD_BYTES_MAX, "{texts}");
    }

    #[test]
    fn no_more_names_stay_than_their_bound_and_none_is_lost() {
        let (logger, mut names) = (logger(), HashSet::new());
        let mut named = |event: &str| {
            let record = logger.create_log_record();
            let event = Some(event.to_owned());
            named(Line { record, event }, &mut names)
        };
        for number in 0..NAMES_MAX {
            let name = format!("event_{number}");
            assert_eq!(named(&name).event_name(), Some(&*name));
        }
        assert_eq!(named("event_0").event_name(), Some("event_0"));
        let more = named("one_more");
        assert_eq!(more.event_name(), None);
        let pairs: Vec<_> = more.attributes_iter().collect();
        assert_eq!(pairs[0].0.as_str(), "event");
        assert_eq!(text_of(Some(&pairs[0].1)), "one_more");
    }

    #[test]
    fn what_exporters_tell_of_themselves_is_not_sent() {
        assert!(is_sent("fanfare::session"));
        assert!(is_sent("fred::router"));
        for target in [
            NOT_SENT,
            concat!("fanfare::telemetry::otlp", "::courier"),
            "opentelemetry-otlp",
            "h2::client",
            "hyper_util::client",
            "tonic",
            "rustls::client",
            "tokio::task",
        ] {
            assert!(!is_sent(target), "{target}");
        }
        assert!(module_path!().starts_with(NOT_SENT));
    }

    #[test]
    fn a_value_that_writes_a_line_of_its_own_waits_for_nobody() {
        struct Talkative;
        impl fmt::Debug for Talkative {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                send_own(Level::INFO, "inner", "told while told", "fanfare", None);
                f.write_str("talkative")
            }
        }
        hand_in(|logger| {
            let mut record = begun(logger, Level::INFO, SystemTime::UNIX_EPOCH);
            record.set_body(format!("{Talkative:?}").into());
            let event = None;
            Line { record, event }
        });
    }
}
