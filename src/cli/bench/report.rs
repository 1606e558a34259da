//! What a load found, for people as tables and for machines as one JSON object.
//!
//! In: figures of a scenario. Out: lines on stdout. Names of figures carry their unit and stay the
//! same; `docs/bench.md` says what each means.

use hdrhistogram::Histogram;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::meter::{Cost, Generator, ProcessCost};
use super::tally::Counts;
use crate::cli::exit::Exit;
use crate::cli::output;

/// Percentiles of latencies in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Percentiles {
    /// How many were recorded.
    pub count: u64,
    /// Half took no longer.
    pub p50: u64,
    /// Nine in ten took no longer.
    pub p90: u64,
    /// 99 in 100 took no longer.
    pub p99: u64,
    /// 999 in 1,000 took no longer.
    pub p99_9: u64,
    /// The longest.
    pub max: u64,
}

impl Percentiles {
    /// Of what was recorded.
    #[must_use]
    pub fn of(histogram: &Histogram<u64>) -> Self {
        Self {
            count: histogram.len(),
            p50: histogram.value_at_quantile(0.5),
            p90: histogram.value_at_quantile(0.9),
            p99: histogram.value_at_quantile(0.99),
            p99_9: histogram.value_at_quantile(0.999),
            max: histogram.max(),
        }
    }

    fn cells(&self, name: &str) -> Vec<String> {
        let ms = |us: u64| format!("{:.2}", us as f64 / 1_000.0);
        vec![
            name.replace('_', " "),
            thousands(self.count),
            ms(self.p50),
            ms(self.p90),
            ms(self.p99),
            ms(self.p99_9),
            ms(self.max),
        ]
    }
}

/// One number of a report.
#[derive(Debug)]
struct Figure {
    name: &'static str,
    value: Value,
}

/// What a scenario found.
#[derive(Debug)]
pub struct Report {
    scenario: &'static str,
    protocol: String,
    url: String,
    settings: Map<String, Value>,
    figures: Vec<Figure>,
    counts: Option<Counts>,
    latencies: Vec<(&'static str, Histogram<u64>)>,
    processes: Vec<ProcessCost>,
    generator: Option<Generator>,
    per_second: Vec<u64>,
    notes: Vec<String>,
}

impl Report {
    /// A report without figures.
    #[must_use]
    pub fn new(scenario: &'static str, protocol: &str, url: &str) -> Self {
        Self {
            scenario,
            protocol: protocol.to_owned(),
            url: url.to_owned(),
            settings: Map::new(),
            figures: Vec::new(),
            counts: None,
            latencies: Vec::new(),
            processes: Vec::new(),
            generator: None,
            per_second: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// What was asked for.
    pub fn setting(&mut self, name: &str, value: impl Into<Value>) {
        self.settings.insert(name.to_owned(), value.into());
    }

    /// A number, under a name with its unit.
    pub fn figure(&mut self, name: &'static str, value: impl Into<Value>) {
        let value = value.into();
        self.figures.push(Figure { name, value });
    }

    /// The latencies of one kind, in microseconds.
    pub fn latency(&mut self, name: &'static str, histogram: Histogram<u64>) {
        self.latencies.push((name, histogram));
    }

    /// What came beside what was to come.
    pub fn counts(&mut self, counts: Counts) {
        self.counts = Some(counts);
    }

    /// What it cost.
    pub fn cost(&mut self, cost: Cost) {
        self.processes = cost.processes;
        self.generator = Some(cost.generator);
    }

    /// Deliveries in each second.
    pub fn per_second(&mut self, deliveries: Vec<u64>) {
        self.per_second = deliveries;
    }

    /// A sentence for people and machines.
    pub fn note(&mut self, text: impl Into<String>) {
        self.notes.push(text.into());
    }

    /// The latencies, as curves are drawn from them.
    #[must_use]
    pub fn latencies(&self) -> &[(&'static str, Histogram<u64>)] {
        &self.latencies
    }

    /// Deliveries in each second, as curves are drawn from them.
    #[must_use]
    pub fn deliveries_per_second(&self) -> &[u64] {
        &self.per_second
    }

    /// The head line.
    #[must_use]
    pub fn title(&self) -> String {
        format!("{} · {} · {}", self.scenario, self.protocol, self.url)
    }

    /// Loss, doubles or wrong order are a refusal of what was promised.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match &self.counts {
            Some(counts) if !counts.is_clean() => Exit::Refused,
            _ => Exit::Done,
        }
    }

    /// One object.
    #[must_use]
    pub fn json(&self) -> Value {
        let figures = self.figures.iter();
        let figures: Map<_, _> = figures
            .map(|figure| (figure.name.to_owned(), figure.value.clone()))
            .collect();
        let latencies = self.latencies.iter();
        let latencies: Map<_, _> = latencies
            .map(|(name, histogram)| ((*name).to_owned(), json!(Percentiles::of(histogram))))
            .collect();
        json!({
            "scenario": self.scenario,
            "protocol": self.protocol,
            "url": self.url,
            "settings": self.settings,
            "figures": figures,
            "messages": self.counts,
            "latency_us": latencies,
            "processes": self.processes,
            "generator": self.generator,
            "deliveries_per_second": self.per_second,
            "notes": self.notes,
        })
    }

    /// Lines for people.
    #[must_use]
    pub fn text(&self) -> Vec<String> {
        let settings = self.settings.iter();
        let settings: Vec<_> = settings
            .map(|(name, value)| format!("{} {}", name.replace('_', " "), shown(value)))
            .collect();
        let mut lines = vec![self.title(), settings.join(", "), String::new()];
        lines.extend(self.messages_text());
        let figures = self.figures.iter();
        let rows: Vec<_> = figures
            .map(|figure| vec![figure.name.replace('_', " "), shown(&figure.value)])
            .collect();
        if !rows.is_empty() {
            lines.extend(output::table(&["figure", "value"], &rows));
            lines.push(String::new());
        }
        let recorded = self
            .latencies
            .iter()
            .filter(|(_, histogram)| !histogram.is_empty());
        let rows: Vec<_> = recorded
            .map(|(name, histogram)| Percentiles::of(histogram).cells(name))
            .collect();
        if !rows.is_empty() {
            let head = ["milliseconds", "count", "p50", "p90", "p99", "p99.9", "max"];
            lines.extend(output::table(&head, &rows));
            lines.push(String::new());
        }
        lines.extend(self.processes.iter().map(process_text));
        lines.extend(self.generator.as_ref().map(Generator::sentence));
        lines.extend(self.notes.iter().cloned());
        lines
    }

    fn messages_text(&self) -> Vec<String> {
        let Some(counts) = &self.counts else {
            return Vec::new();
        };
        let mut lines = Vec::new();
        if counts.expected > 0 {
            lines.push(format!(
                "sent {}, expected {}, received {}: missing {}, doubled {}, reordered {}",
                thousands(counts.sent),
                thousands(counts.expected),
                thousands(counts.received),
                thousands(counts.missing),
                thousands(counts.doubled),
                thousands(counts.reordered),
            ));
        }
        if counts.gaps_told + counts.sessions_ended > 0 {
            let reason = counts.first_end.as_deref().unwrap_or("");
            lines.push(format!(
                "gaps told {}, sessions ended {} {}",
                counts.gaps_told,
                counts.sessions_ended,
                output::printable(reason)
            ));
        }
        if !lines.is_empty() {
            lines.push(String::new());
        }
        lines
    }
}

fn process_text(process: &ProcessCost) -> String {
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    format!(
        "process {} ({}): CPU {:.2} s user, {:.2} s system; resident {:.1} MiB before, {:.1} MiB after",
        process.pid,
        output::printable(&process.name),
        process.cpu_user_s,
        process.cpu_system_s,
        mib(process.resident_before_bytes),
        mib(process.resident_after_bytes),
    )
}

/// A value for people: whole numbers grouped, others with as many places as say something.
fn shown(value: &Value) -> String {
    if let Some(whole) = value.as_u64() {
        return thousands(whole);
    }
    match value.as_f64() {
        Some(number) if number.abs() >= 1_000.0 => {
            let sign = if number < 0.0 { "-" } else { "" };
            format!("{sign}{}", thousands(number.abs().round() as u64))
        }
        Some(number) => format!("{number:.2}"),
        None => output::body(value),
    }
}

/// `12345` as `12,345`.
fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_by_thousands() {
        assert_eq!(thousands(0), "0");
        assert_eq!(thousands(999), "999");
        assert_eq!(thousands(1_234_567), "1,234,567");
        assert_eq!(shown(&json!(-1_234.4)), "-1,234");
        assert_eq!(shown(&json!(1.234)), "1.23");
    }

    #[test]
    fn a_loss_is_told_by_the_exit_code() {
        let mut report = Report::new("fanout", "fanfare json", "ws://x");
        assert_eq!(report.exit(), Exit::Done);
        report.counts(Counts {
            expected: 2,
            received: 1,
            missing: 1,
            ..Counts::default()
        });
        assert_eq!(report.exit(), Exit::Refused);
        assert!(report.text().iter().any(|line| line.contains("missing 1,")));
        assert_eq!(report.json()["messages"]["missing"], 1);
    }
}
