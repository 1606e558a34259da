//! Lines of the log in the form of OTLP.
//!
//! In: events that `log.level` shows, by a layer over the log. Out: records, by a gate; and one encoded
//! request of many. Owner: the process, once ([`send_to`]). Bounds: those of the gate, and
//! [`RECORD_BYTES_MAX`] bytes of text a record, of which the rest is cut. What a record is made of is
//! only gathered where there is room for it. Left out is what is not of this crate or its client of
//! Redis, and what is of this module: what exporters tell of themselves would beget itself.

use std::error::Error;
use std::fmt;
use std::sync::OnceLock;
use std::time::SystemTime;

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::AnyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs, SeverityNumber};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message as _;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use super::resource::{attribute, scope, text};
use super::spans::nanos;
use crate::telemetry::fields::{bounded, causes};
use crate::telemetry::gate::Gate;

/// Most bytes of text in one record.
pub const RECORD_BYTES_MAX: usize = 2_048;
/// Most bytes of one value.
const VALUE_BYTES_MAX: usize = 1_024;
/// The beginnings of targets that are sent.
const SENT: [&str; 2] = ["fanfare", "fred"];
/// What is not, though it begins so.
const NOT_SENT: &str = "fanfare::telemetry::otlp";

/// Where this process sends its log.
static GATE: OnceLock<Gate<LogRecord>> = OnceLock::new();

/// Sends the lines of this process' log there. The first call counts.
pub(super) fn send_to(gate: Gate<LogRecord>) {
    let _ = GATE.set(gate);
}

/// Hands events to the gate, where there is one.
#[derive(Debug, Clone, Copy)]
pub struct Records;

impl<S: Subscriber> Layer<S> for Records {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if let Some(gate) = GATE.get()
            && is_sent(event.metadata().target())
        {
            gate.send_with(|| record(event, SystemTime::now()));
        }
    }
}

fn is_sent(target: &str) -> bool {
    SENT.iter().any(|begin| target.starts_with(begin)) && !target.starts_with(NOT_SENT)
}

fn record(event: &Event<'_>, now: SystemTime) -> LogRecord {
    let metadata = event.metadata();
    let severity = match *metadata.level() {
        Level::ERROR => SeverityNumber::Error,
        Level::WARN => SeverityNumber::Warn,
        Level::INFO => SeverityNumber::Info,
        Level::DEBUG => SeverityNumber::Debug,
        Level::TRACE => SeverityNumber::Trace,
    };
    let mut fields = Fields {
        record: LogRecord::default(),
        left: RECORD_BYTES_MAX,
    };
    event.record(&mut fields);
    let mut record = fields.record;
    record.attributes.push(text("target", metadata.target()));
    LogRecord {
        time_unix_nano: nanos(now),
        observed_time_unix_nano: nanos(now),
        severity_number: severity.into(),
        severity_text: metadata.level().to_string(),
        ..record
    }
}

/// A record that fields are put into.
struct Fields {
    record: LogRecord,
    left: usize,
}

impl Fields {
    fn put(&mut self, field: &Field, value: Value) {
        match (field.name(), value) {
            ("message", value) => self.record.body = Some(AnyValue { value: Some(value) }),
            ("event", Value::StringValue(name)) => self.record.event_name = name,
            (name, value) => self.record.attributes.push(attribute(name, value)),
        }
    }

    fn put_text(&mut self, field: &Field, value: fmt::Arguments<'_>) {
        let text = bounded(value, self.left.min(VALUE_BYTES_MAX));
        self.left -= text.len().min(self.left);
        self.put(field, Value::StringValue(text));
    }
}

impl Visit for Fields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, Value::DoubleValue(value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, Value::IntValue(value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        let value = i64::try_from(value).unwrap_or(i64::MAX);
        self.put(field, Value::IntValue(value));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, Value::BoolValue(value));
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

/// A request with these records.
pub(super) fn request(resource: &Resource, log_records: Vec<LogRecord>) -> Vec<u8> {
    let logs = ResourceLogs {
        resource: Some(resource.clone()),
        scope_logs: vec![ScopeLogs {
            scope: scope(),
            log_records,
            ..ScopeLogs::default()
        }],
        ..ResourceLogs::default()
    };
    let resource_logs = vec![logs];
    ExportLogsServiceRequest { resource_logs }.encode_to_vec()
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    /// Keeps what it would send.
    struct Kept(Mutex<Vec<LogRecord>>);

    impl<S: Subscriber> Layer<S> for &'static Kept {
        fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
            let record = record(event, SystemTime::UNIX_EPOCH);
            self.0.lock().unwrap().push(record);
        }
    }

    fn text_of(value: Option<&AnyValue>) -> &str {
        match value.and_then(|value| value.value.as_ref()) {
            Some(Value::StringValue(text)) => text,
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
        let records = KEPT.0.lock().unwrap();
        let record = &records[0];
        assert_eq!(record.event_name, "tested");
        assert_eq!(text_of(record.body.as_ref()), "a test");
        assert_eq!(record.severity_number, 13);
        let of = |name: &str| {
            let mut all = record.attributes.iter();
            all.find(|pair| pair.key == name).unwrap().value.as_ref()
        };
        assert_eq!(of("count").unwrap().value, Some(Value::IntValue(7)));
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
    fn what_exporters_tell_of_themselves_is_not_sent() {
        assert!(is_sent("fanfare::session"));
        assert!(is_sent("fred::router"));
        for target in [
            NOT_SENT,
            concat!("fanfare::telemetry::otlp", "::exporter"),
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
}
