//! Figures of several runs, each beside its bar, as a table for people or as JSON. A report of
//! `fanfare bench` is of one run and judges nothing.
//!
//! In: one value a run, with or without a bar. Out: the median of the runs, what lay lowest and
//! highest, and `met` or `missed`. A bar may itself be measured (1.3 times what the floor did);
//! then its median counts. Where another build is measured by turns, each run has a value of both,
//! and the median of the ratios counts.

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

/// How much more than the build before a figure may be where no issue says less.
pub(crate) const WORSE_MAX: f64 = 1.03;

/// Whose figures come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Build {
    /// This one's.
    #[default]
    Now,
    /// Those of the other binary.
    Before,
}

/// Figures, in the order in which they came.
#[derive(Debug, Default)]
pub(crate) struct Report {
    /// Whose figures come next.
    pub(crate) build: Build,
    scenario: String,
    rows: Vec<Row>,
}

/// One figure of all runs.
#[derive(Debug)]
pub(crate) struct Row {
    scenario: String,
    name: String,
    unit: &'static str,
    runs: Vec<f64>,
    bars: Vec<Bar>,
    /// The same of the build before.
    before: Vec<f64>,
    /// Most that the ratio of the two may be.
    ratio_max: Option<f64>,
}

impl Report {
    /// What follows belongs to this scenario.
    pub(crate) fn scenario(&mut self, name: &str) {
        eprintln!("{name}");
        self.scenario = name.into();
    }

    /// The figure of one run that no bar is set for.
    pub(crate) fn add(&mut self, name: &str, unit: &'static str, value: f64) -> &mut Row {
        let build = self.build;
        let row = self.row(name, unit, value);
        match build {
            Build::Now => row.runs.push(value),
            Build::Before => row.before.push(value),
        }
        row
    }

    /// The figure of one run, and what it is held against. The build before is not.
    pub(crate) fn judge(
        &mut self,
        name: &str,
        unit: &'static str,
        value: f64,
        bar: Bar,
    ) -> &mut Row {
        let build = self.build;
        let row = self.add(name, unit, value);
        if build == Build::Now {
            row.bars.push(bar);
        }
        row
    }

    fn row(&mut self, name: &str, unit: &'static str, value: f64) -> &mut Row {
        let of = match self.build {
            Build::Now => "",
            Build::Before => " before",
        };
        eprintln!("  {name}{of} = {value:.2} {unit}");
        let known = |row: &Row| row.scenario == self.scenario && row.name == name;
        let at = self.rows.iter().position(known).unwrap_or_else(|| {
            self.rows.push(Row {
                scenario: self.scenario.clone(),
                name: name.into(),
                unit,
                runs: Vec::new(),
                bars: Vec::new(),
                before: Vec::new(),
                ratio_max: None,
            });
            self.rows.len() - 1
        });
        &mut self.rows[at]
    }

    /// The table for people; with another build a second one.
    pub(crate) fn table(&self) -> String {
        let mut lines = vec![format!(
            "{:<16} {:<74} {:>10} {:<5} {:>9}  {:<6}  lowest .. highest",
            "scenario", "what", "median", "", "bar", ""
        )];
        lines.extend(self.rows.iter().map(Row::line));
        if self.rows.iter().any(|row| !row.before.is_empty()) {
            lines.push(format!(
                "\n{:<16} {:<74} {:>10} {:>10} {:<5} {:>7} {:>9}  {:<6}  lowest .. highest",
                "scenario", "what", "before", "now", "", "ratio", "bar", ""
            ));
            lines.extend(self.rows.iter().filter_map(Row::line_beside_before));
        }
        let verdicts = |row: &Row| [row.verdict(), row.ratio_verdict()];
        let verdicts: Vec<_> = self.rows.iter().flat_map(verdicts).flatten().collect();
        let missed = verdicts.iter().filter(|verdict| **verdict == "missed");
        let (missed, judged) = (missed.count(), verdicts.len());
        lines.push(format!("{missed} of {judged} bars missed"));
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
                "before": row.before,
                "ratio": row.ratio(),
                "ratio_max": row.ratio_max,
                "ratio_verdict": row.ratio_verdict(),
            })
        });
        let rows: Vec<_> = rows.collect();
        json!({ "machine": machine, "versions": versions, "figures": rows })
    }
}

impl Row {
    /// Holds the ratio to the build before against this, where there is one.
    pub(crate) fn beside_before(&mut self, ratio_max: f64) {
        self.ratio_max = Some(ratio_max);
    }

    fn line(&self) -> String {
        let sorted = sorted(&self.runs);
        let bar = self.bar();
        format!(
            "{:<16} {:<74} {:>10.2} {:<5} {:>9}  {:<6}  {}",
            self.scenario,
            self.name,
            middle(&sorted),
            self.unit,
            bar.map_or(String::new(), |b| format!("{} {:.2}", b.sign(), b.limit())),
            self.verdict().unwrap_or_default(),
            range(&sorted),
        )
    }

    /// None where both are nothing, as faults should be.
    fn line_beside_before(&self) -> Option<String> {
        let ratio = self.ratio()?;
        if ratio.is_nan() && self.ratio_max.is_none() {
            return None;
        }
        let bar = self.ratio_max.map(|most| format!("≤ {most:.2}"));
        Some(format!(
            "{:<16} {:<74} {:>10.2} {:>10.2} {:<5} {:>7.3} {:>9}  {:<6}  {}",
            self.scenario,
            self.name,
            middle(&sorted(&self.before)),
            middle(&sorted(&self.runs)),
            self.unit,
            ratio,
            bar.unwrap_or_default(),
            self.ratio_verdict().unwrap_or_default(),
            range(&self.ratios()),
        ))
    }

    /// Of each run, sorted.
    fn ratios(&self) -> Vec<f64> {
        let pairs = self.runs.iter().zip(&self.before);
        sorted(&pairs.map(|(now, before)| now / before).collect::<Vec<_>>())
    }

    /// The ratio to the build before.
    fn ratio(&self) -> Option<f64> {
        let ratios = self.ratios();
        (!ratios.is_empty()).then(|| middle(&ratios))
    }

    fn ratio_verdict(&self) -> Option<&'static str> {
        Some(match self.ratio()? <= self.ratio_max? {
            true => "met",
            false => "missed",
        })
    }

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

fn range(sorted: &[f64]) -> String {
    match sorted {
        [lowest, .., highest] => format!("{lowest:.2} .. {highest:.2}"),
        [one] => format!("{one:.2} .. {one:.2}"),
        [] => String::new(),
    }
}

/// The median of sorted values, of two in the middle the higher; NaN of none.
fn middle(sorted: &[f64]) -> f64 {
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}
