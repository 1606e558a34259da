//! What a load found, for people as tables and for machines as one JSON object.
//!
//! In: figures of a scenario. Out: blocks of text, or an object, for whoever prints them. Names of
//! figures carry their unit and stay the same; `docs/bench.md` says what each means.

use std::borrow::Cow;

use hdrhistogram::Histogram;
use serde_json::{Map, Value, json};

use super::latency::Percentiles;
use super::meter::{Cost, Generator, ProcessCost};
use super::tally::Counts;

/// One number of a report.
#[derive(Debug)]
struct Figure {
    name: Cow<'static, str>,
    value: Value,
}

/// A part of a report for people. Its text may be the server's: it is not safe for a terminal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Block {
    /// Sentences.
    Lines(Vec<String>),
    /// A table: its head, and rows of as many cells.
    Table(Vec<&'static str>, Vec<Vec<String>>),
}

impl Block {
    fn is_empty(&self) -> bool {
        match self {
            Self::Lines(lines) => lines.is_empty(),
            Self::Table(_, rows) => rows.is_empty(),
        }
    }
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
    pub fn figure(&mut self, name: impl Into<Cow<'static, str>>, value: impl Into<Value>) {
        let (name, value) = (name.into(), value.into());
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

    /// Whether nothing was lost, doubled or out of order, and nobody was sent away.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.counts.as_ref().is_none_or(Counts::is_clean)
    }

    /// One object.
    #[must_use]
    pub fn json(&self) -> Value {
        let figures = self.figures.iter();
        let figures: Map<_, _> = figures
            .map(|figure| (figure.name.to_string(), figure.value.clone()))
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

    /// The same for people: blocks, with a blank line between two.
    #[must_use]
    pub fn text(&self) -> Vec<Block> {
        let settings = self.settings.iter();
        let settings: Vec<_> = settings
            .map(|(name, value)| format!("{} {}", name.replace('_', " "), shown(value)))
            .collect();
        let figures = self.figures.iter();
        let figures = figures.map(|f| vec![f.name.replace('_', " "), shown(&f.value)]);
        let recorded = self.latencies.iter().filter(|(_, found)| !found.is_empty());
        let latencies = recorded.map(|(name, found)| cells(name, &Percentiles::of(found)));
        let mut last: Vec<_> = self.processes.iter().map(process_text).collect();
        last.extend(self.generator.as_ref().map(Generator::sentence));
        last.extend(self.notes.iter().cloned());
        let mut blocks = vec![
            Block::Lines(vec![self.title(), settings.join(", ")]),
            Block::Lines(self.counts.as_ref().map_or_else(Vec::new, counts_text)),
            Block::Table(vec!["figure", "value"], figures.collect()),
            Block::Table(
                vec!["milliseconds", "count", "p50", "p90", "p99", "p99.9", "max"],
                latencies.collect(),
            ),
            Block::Lines(last),
        ];
        blocks.retain(|block| !block.is_empty());
        blocks
    }
}

fn counts_text(counts: &Counts) -> Vec<String> {
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
            "gaps told {}, sessions ended {} {reason}",
            counts.gaps_told, counts.sessions_ended,
        ));
    }
    lines
}

fn process_text(process: &ProcessCost) -> String {
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    format!(
        "process {} ({}): CPU {:.2} s user, {:.2} s system; resident {:.1} MiB before, {:.1} MiB after",
        process.pid,
        process.name,
        process.cpu_user_s,
        process.cpu_system_s,
        mib(process.resident_before_bytes),
        mib(process.resident_after_bytes),
    )
}

/// The row of one kind of latency, in milliseconds.
fn cells(name: &str, latency: &Percentiles) -> Vec<String> {
    let ms = |us: u64| format!("{:.2}", us as f64 / 1_000.0);
    vec![
        name.replace('_', " "),
        thousands(latency.count),
        ms(latency.p50),
        ms(latency.p90),
        ms(latency.p99),
        ms(latency.p99_9),
        ms(latency.max),
    ]
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
        None => value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned),
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
    fn a_report_with_a_loss_is_not_clean_and_says_so() {
        let mut report = Report::new("fanout", "fanfare json", "ws://x");
        assert!(report.is_clean());
        report.counts(Counts {
            expected: 2,
            received: 1,
            missing: 1,
            ..Counts::default()
        });
        assert!(!report.is_clean());
        let told = "sent 0, expected 2, received 1: missing 1, doubled 0, reordered 0";
        assert!(report.text().contains(&Block::Lines(vec![told.into()])));
        assert_eq!(report.json()["messages"]["missing"], 1);
    }
}
