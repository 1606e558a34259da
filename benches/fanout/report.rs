//! Figures of several runs, each beside its bar, as a table for people or as JSON.
//!
//! In: one value a run, with or without a bar. Out: the median of the runs, what lay lowest and
//! highest, and `met` or `missed`. A bar may itself be measured (1.3 times what the floor did);
//! then its median counts.

use serde_json::{Value, json};

/// What a figure is held against.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Bar {
    /// The figure is not above it.
    AtMost(f64),
    /// The figure is not below it.
    AtLeast(f64),
}

impl Bar {
    fn limit(self) -> f64 {
        match self {
            Self::AtMost(limit) | Self::AtLeast(limit) => limit,
        }
    }

    fn json(self) -> Value {
        match self {
            Self::AtMost(limit) => json!({ "at_most": limit }),
            Self::AtLeast(limit) => json!({ "at_least": limit }),
        }
    }

    fn sign(self) -> &'static str {
        match self {
            Self::AtMost(_) => "≤",
            Self::AtLeast(_) => "≥",
        }
    }
}

/// Figures, in the order in which they came.
#[derive(Debug, Default)]
pub(crate) struct Report {
    scenario: String,
    rows: Vec<Row>,
}

#[derive(Debug)]
struct Row {
    scenario: String,
    name: String,
    unit: &'static str,
    runs: Vec<f64>,
    bars: Vec<Bar>,
}

impl Report {
    /// What follows belongs to this scenario.
    pub(crate) fn scenario(&mut self, name: &str) {
        eprintln!("{name}");
        self.scenario = name.into();
    }

    /// The figure of one run that no bar is set for.
    pub(crate) fn add(&mut self, name: &str, unit: &'static str, value: f64) {
        self.row(name, unit, value);
    }

    /// The figure of one run, and what it is held against.
    pub(crate) fn judge(&mut self, name: &str, unit: &'static str, value: f64, bar: Bar) {
        self.row(name, unit, value).bars.push(bar);
    }

    fn row(&mut self, name: &str, unit: &'static str, value: f64) -> &mut Row {
        eprintln!("  {name} = {value:.2} {unit}");
        let known = |row: &Row| row.scenario == self.scenario && row.name == name;
        let at = self.rows.iter().position(known).unwrap_or_else(|| {
            self.rows.push(Row {
                scenario: self.scenario.clone(),
                name: name.into(),
                unit,
                runs: Vec::new(),
                bars: Vec::new(),
            });
            self.rows.len() - 1
        });
        self.rows[at].runs.push(value);
        &mut self.rows[at]
    }

    /// The table for people.
    pub(crate) fn table(&self) -> String {
        let mut lines = vec![format!(
            "{:<16} {:<74} {:>10} {:<5} {:>9}  {:<6}  lowest .. highest",
            "scenario", "what", "median", "", "bar", ""
        )];
        for row in &self.rows {
            let sorted = sorted(&row.runs);
            let bar = row.bar();
            lines.push(format!(
                "{:<16} {:<74} {:>10.2} {:<5} {:>9}  {:<6}  {:.2} .. {:.2}",
                row.scenario,
                row.name,
                middle(&sorted),
                row.unit,
                bar.map_or(String::new(), |b| format!("{} {:.2}", b.sign(), b.limit())),
                row.verdict().unwrap_or_default(),
                sorted[0],
                sorted[sorted.len() - 1],
            ));
        }
        let missed = |row: &&Row| row.verdict() == Some("missed");
        let judged = self.rows.iter().filter(|row| row.bar().is_some()).count();
        lines.push(format!(
            "{} of {judged} bars missed",
            self.rows.iter().filter(missed).count()
        ));
        lines.join("\n")
    }

    /// The same for machines, with every run.
    pub(crate) fn json(&self, machine: &str, versions: &str) -> Value {
        let rows = self.rows.iter().map(|row| {
            json!({
                "scenario": row.scenario,
                "name": row.name,
                "unit": row.unit,
                "median": middle(&sorted(&row.runs)),
                "runs": row.runs,
                "bar": row.bar().map(Bar::json),
                "verdict": row.verdict(),
            })
        });
        let rows: Vec<_> = rows.collect();
        json!({ "machine": machine, "versions": versions, "figures": rows })
    }
}

impl Row {
    /// The bar in the middle of all runs.
    fn bar(&self) -> Option<Bar> {
        let limits: Vec<_> = self.bars.iter().map(|bar| bar.limit()).collect();
        let limit = middle(&sorted(&limits));
        self.bars.first().map(|bar| match bar {
            Bar::AtMost(_) => Bar::AtMost(limit),
            Bar::AtLeast(_) => Bar::AtLeast(limit),
        })
    }

    /// A figure that is no number meets nothing.
    fn verdict(&self) -> Option<&'static str> {
        let value = middle(&sorted(&self.runs));
        let met = match self.bar()? {
            Bar::AtMost(limit) => value <= limit,
            Bar::AtLeast(limit) => value >= limit,
        };
        Some(if met { "met" } else { "missed" })
    }
}

fn sorted(values: &[f64]) -> Vec<f64> {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values
}

/// The median of sorted values, of two in the middle the higher; NaN of none.
fn middle(sorted: &[f64]) -> f64 {
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}
