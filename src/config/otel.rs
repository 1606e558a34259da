//! The variables of OpenTelemetry as a source, above the file and below `FANFARE_TELEMETRY__*`.
//!
//! In: `OTEL_*`, and `K8S_*` of the downward API. Out: values; and of what cannot be read the words for
//! a warning, since the specification of OpenTelemetry forbids to end by them. An empty variable is as
//! none. Bounds: the names of the table; others are not looked at.

use crate::config::checks::files;
use crate::config::environment::value_of;
use crate::config::forms::Unfit;
use crate::config::key::Key;
use crate::config::keys;
use crate::config::telemetry_keys::OTEL_NAMES;
use crate::config::value::{Kind, Value};
use crate::config::values::{Origin, Values};

/// Variables of OpenTelemetry that ask for what is not there. Others ask other programs.
const NOT_OFFERED: &[&str] = &[
    "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE",
    "OTEL_EXPORTER_OTLP_CLIENT_KEY",
    "OTEL_EXPORTER_OTLP_TRACES_CLIENT_CERTIFICATE",
    "OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY",
    "OTEL_EXPORTER_OTLP_LOGS_CLIENT_CERTIFICATE",
    "OTEL_EXPORTER_OTLP_LOGS_CLIENT_KEY",
    "OTEL_EXPORTER_OTLP_METRICS_CLIENT_CERTIFICATE",
    "OTEL_EXPORTER_OTLP_METRICS_CLIENT_KEY",
];
/// The longest part of a value that a warning repeats, in characters.
const SHOWN_CHARS_MAX: usize = 60;

/// A variable that was not taken.
#[derive(Debug)]
pub struct Ignored {
    variable: &'static str,
    path: Option<String>,
    why: String,
}

impl Ignored {
    /// The warning: which variable, and what is used in its place.
    #[must_use]
    pub fn told(&self, values: &Values) -> String {
        let Self { variable, why, .. } = self;
        let used = self.path.as_ref().and_then(|path| {
            let (setting, key) = (values.get(path)?, keys::find(path)?);
            let used = match setting.value.shown(&key.kind) {
                serde_json::Value::Null => "is not set".to_owned(),
                value => format!("is {value}"),
            };
            Some(format!("; {path} {used} ({})", setting.origin))
        });
        format!(
            "{variable}: {why}, so it is ignored{}",
            used.unwrap_or_default()
        )
    }
}

/// Reads them over what is in `values`.
#[must_use]
pub fn read(environment: &[(String, String)], values: &mut Values) -> Vec<Ignored> {
    let mut ignored = Vec::new();
    for &(variable, name) in OTEL_NAMES {
        let text = value_of(environment, variable).map(str::trim);
        let Some(text) = text.filter(|text| !text.is_empty()) else {
            continue;
        };
        let path = format!("telemetry.{name}");
        let key = keys::find(&path).expect("the names are those of the table");
        match value(variable, key, text) {
            Ok(value) => values.set(path, value, Origin::Environment(variable.to_owned())),
            Err(why) => ignored.push(Ignored {
                variable,
                path: Some(path),
                why,
            }),
        }
    }
    let asked = |variable: &&&str| value_of(environment, variable).is_some();
    ignored.extend(NOT_OFFERED.iter().filter(asked).map(|variable| Ignored {
        variable,
        path: None,
        why: "certificates of clients are not offered".to_owned(),
    }));
    ignored
}

/// The value of a variable, or why it has none.
fn value(variable: &str, key: &Key, text: &str) -> Result<Value, String> {
    let small = text.to_ascii_lowercase();
    let read = match (variable, &key.kind) {
        // Nothing but this word is true; whatever else it is, it does not disable.
        ("OTEL_SDK_DISABLED", _) => key.read_text(&small),
        (_, Kind::Choice(_)) => key.read_text(&small),
        // Values may have "://" in them, which says something else in a list of URLs.
        (_, Kind::List(form)) => {
            let items = text
                .split(',')
                .map(str::trim)
                .filter(|item| !item.is_empty());
            let items: Result<_, Unfit> = items.map(|item| form.read(item)).collect();
            items.map(Value::List)
        }
        _ => key.read_text(text),
    };
    let value = read.map_err(|unfit| match unfit {
        Unfit::Because(wrong) => wrong.what.into_owned(),
        Unfit::Form if key.kind.hide().is_some() || text.contains('@') => {
            format!("its value, which is hidden, is not {}", key.kind.wanted())
        }
        Unfit::Form => {
            let begin: String = text.chars().take(SHOWN_CHARS_MAX).collect();
            format!("{begin:?} is not {}", key.kind.wanted())
        }
    })?;
    if key.name.ends_with("tls_ca_file") {
        files::certificates(text.as_ref()).map_err(|why| format!("{text:?}: {why}"))?;
    }
    Ok(value)
}
