//! Families as text: Prometheus 0.0.4, or OpenMetrics 1.0.
//!
//! In: families. Out: their lines. Pure.

use std::fmt::Write as _;

use super::family::{Family, LabelPair, Value};
use super::histogram::{Exemplar, Spread};

/// A form of text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TextForm {
    /// Prometheus text 0.0.4.
    Prometheus,
    /// OpenMetrics 1.0: counters are named without `_total`, units are told, buckets have exemplars,
    /// and it has an end.
    OpenMetrics,
}

impl TextForm {
    /// Its content type.
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// Writes all of them. Writing to a `String` cannot fail.
#[must_use]
pub fn write(families: &[Family], form: TextForm) -> String {
    let mut out = String::with_capacity(128 * 1_024);
    for family in families.iter().filter(|f| f.told().next().is_some()) {
        head(&mut out, family, form);
        for sample in family.told() {
            match &sample.value {
                Value::Whole(value) => line(&mut out, family.name, &sample.labels, value),
                Value::Real(value) => line(&mut out, family.name, &sample.labels, value),
                Value::Spread(spread) => {
                    histogram(&mut out, family.name, &sample.labels, spread, form);
                }
            }
        }
    }
    if form == TextForm::OpenMetrics {
        out.push_str("# EOF\n");
    }
    out
}

fn head(out: &mut String, family: &Family, form: TextForm) {
    let name = match form {
        TextForm::Prometheus => family.name,
        TextForm::OpenMetrics => family.bare_name(),
    };
    let (help, kind) = (family.help, family.kind.word());
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
    if let (TextForm::OpenMetrics, Some(unit)) = (form, family.unit()) {
        let _ = writeln!(out, "# UNIT {name} {unit}");
    }
}

fn line(out: &mut String, name: &str, labels: &[LabelPair], value: impl std::fmt::Display) {
    begin(out, name, labels, value);
    out.push('\n');
}

/// A line without its end.
fn begin(out: &mut String, name: &str, labels: &[LabelPair], value: impl std::fmt::Display) {
    out.push_str(name);
    for (at, (label, text)) in labels.iter().enumerate() {
        let _ = write!(out, "{}{label}=\"", if at == 0 { '{' } else { ',' });
        for letter in text.chars() {
            match letter {
                '\n' => out.push_str("\\n"),
                '"' | '\\' => out.extend(['\\', letter]),
                _ => out.push(letter),
            }
        }
        out.push('"');
    }
    let end = if labels.is_empty() { "" } else { "}" };
    let _ = write!(out, "{end} {value}");
}

fn histogram(out: &mut String, name: &str, labels: &[LabelPair], spread: &Spread, form: TextForm) {
    let bucket = format!("{name}_bucket");
    let mut labels = labels.to_vec();
    let mut count = 0;
    for (place, more) in spread.counts.iter().enumerate() {
        count += more;
        let bound = spread.bound_us(place);
        let bound = bound.map_or_else(|| "+Inf".to_owned(), |us| seconds(us).to_string());
        labels.push(("le", bound.into()));
        begin(out, &bucket, &labels, count);
        if let (TextForm::OpenMetrics, Some(Some(last))) = (form, spread.exemplars.get(place)) {
            exemplar(out, last);
        }
        out.push('\n');
        labels.pop();
    }
    line(out, &format!("{name}_sum"), &labels, seconds(spread.sum_us));
    line(out, &format!("{name}_count"), &labels, count);
}

/// Section "Exemplars" of OpenMetrics 1.0.
fn exemplar(out: &mut String, Exemplar { context, us, at_ms }: &Exemplar) {
    let id = |bytes: &[u8]| {
        bytes.iter().fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
    };
    let (trace, span, value) = (id(&context.trace), id(&context.span), seconds(*us));
    let at = format!("{}.{:03}", at_ms / 1_000, at_ms % 1_000);
    let _ = write!(
        out,
        " # {{trace_id=\"{trace}\",span_id=\"{span}\"}} {value} {at}"
    );
}

#[expect(clippy::cast_precision_loss)]
fn seconds(us: u64) -> f64 {
    us as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::time::Duration;

    use super::*;
    use crate::telemetry::exemplar::TracedHistogram;
    use crate::telemetry::family::{Kind, Sample};
    use crate::telemetry::histogram::LongHistogram;
    use crate::telemetry::metrics::Metrics;
    use crate::telemetry::trace::context::TraceContext;

    /// The names of its lines, and those that OpenMetrics keeps for it.
    fn names_of(family: &Family) -> Vec<String> {
        let bare = family.bare_name();
        let ends: &[&str] = match family.kind {
            Kind::Counter => &["", "_total", "_created"],
            Kind::Gauge => &[""],
            Kind::Histogram => &["", "_bucket", "_sum", "_count", "_created"],
        };
        ends.iter().map(|end| format!("{bare}{end}")).collect()
    }

    fn labelled(labels: Vec<LabelPair>) -> Family {
        Family {
            name: "read_bytes_total",
            help: "Read.",
            kind: Kind::Counter,
            samples: vec![Sample {
                labels,
                value: Value::Whole(7),
            }],
            is_sparse: false,
        }
    }

    #[test]
    fn a_counter_is_named_by_its_form() {
        let family = [labelled(Vec::new())];
        assert_eq!(
            write(&family, TextForm::Prometheus),
            "# HELP read_bytes_total Read.\n# TYPE read_bytes_total counter\nread_bytes_total 7\n"
        );
        assert_eq!(
            write(&family, TextForm::OpenMetrics),
            "# HELP read_bytes Read.\n# TYPE read_bytes counter\n# UNIT read_bytes bytes\n\
             read_bytes_total 7\n# EOF\n"
        );
    }

    #[test]
    fn what_would_end_a_label_is_escaped() {
        let labels = vec![("a", "\"\\\n".into()), ("b", "c".into())];
        let text = write(&[labelled(labels)], TextForm::Prometheus);
        let line = "read_bytes_total{a=\"\\\"\\\\\\n\",b=\"c\"} 7";
        assert_eq!(text.lines().last(), Some(line));
    }

    #[test]
    fn durations_are_counted_in_every_bucket_from_theirs_on() {
        let histogram = LongHistogram::default();
        for ms in [0, 1, 9_000, 200_000, 1_000_000] {
            histogram.count(Duration::from_millis(ms));
        }
        let family = Family::of(Kind::Histogram, "h", "Help.", &histogram);
        let out = write(&[family], TextForm::Prometheus);
        for line in [
            "# TYPE h histogram",
            "h_bucket{le=\"0.00025\"} 1",
            "h_bucket{le=\"0.0005\"} 1",
            "h_bucket{le=\"0.001\"} 2",
            "h_bucket{le=\"8.192\"} 2",
            "h_bucket{le=\"16.384\"} 3",
            "h_bucket{le=\"131.072\"} 3",
            "h_bucket{le=\"262.144\"} 4",
            "h_bucket{le=\"+Inf\"} 5",
            "h_sum 1209.001",
            "h_count 5",
        ] {
            assert!(out.lines().any(|other| other == line), "{line}: {out}");
        }
    }

    #[test]
    fn a_bucket_of_openmetrics_has_its_last_recorded_trace() {
        let histogram = TracedHistogram::default();
        let context = |text: &str| TraceContext::parse(text).ok();
        let first = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let second = "00-11111111111111112222222222222222-3333333333333333-01";
        for (ms, text) in [(1, first), (1, second), (9_000, first), (2, "no")] {
            histogram.count(Duration::from_millis(ms), context(text));
        }
        histogram.count(
            Duration::from_millis(1),
            context(&first.replace("-01", "-00")),
        );
        let family = [Family::of(Kind::Histogram, "h", "Help.", &histogram)];
        let out = write(&family, TextForm::OpenMetrics);
        let told: Vec<_> = out.lines().filter(|line| line.contains(" # ")).collect();
        let [one, above] = told[..] else {
            panic!("{out}");
        };
        let begins = "h_bucket{le=\"0.001\"} 3 # {trace_id=\"11111111111111112222222222222222\",\
                      span_id=\"3333333333333333\"} 0.001 ";
        let at = one.strip_prefix(begins).expect(one);
        assert!(at.parse::<f64>().is_ok_and(|at| at > 1.7e9), "{at}");
        assert!(
            above.starts_with("h_bucket{le=\"+Inf\"} 5 # {trace_id=\"0af7"),
            "{above}"
        );
        let out = write(&family, TextForm::Prometheus);
        assert!(!out.contains("trace_id"), "{out}");
    }

    #[test]
    fn no_family_has_a_name_that_another_one_uses() {
        let mut seen = HashSet::new();
        let families = Metrics::new(1).families();
        for name in families.iter().flat_map(names_of) {
            assert!(seen.insert(name.clone()), "{name} stands for two");
        }
        assert!(seen.len() > 100, "{} names", seen.len());
    }
}
