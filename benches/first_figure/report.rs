//! Figures of several runs, as a table for people and as one line of JSON.

use serde_json::json;

/// Named figures, in the order in which they came.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    part: &'static str,
    rows: Vec<Row>,
}

#[derive(Debug)]
struct Row {
    name: String,
    unit: &'static str,
    runs: Vec<f64>,
}

impl Figures {
    /// What follows belongs to this part.
    pub(crate) fn part(&mut self, part: &'static str) {
        self.part = part;
    }

    /// Adds the figure of one run.
    pub(crate) fn add(&mut self, name: &str, unit: &'static str, value: f64) {
        let name = format!("{}: {name}", self.part);
        eprintln!("  {name} = {value:.2} {unit}");
        match self.rows.iter_mut().find(|row| row.name == name) {
            Some(row) => row.runs.push(value),
            None => self.rows.push(Row {
                name,
                unit,
                runs: vec![value],
            }),
        }
    }

    /// The table, with the median of all runs and what lay lowest and highest.
    pub(crate) fn table(&self) -> String {
        let mut lines = vec![format!("{:<66} {:>12}   lowest .. highest", "", "median")];
        for row in &self.rows {
            let sorted = row.sorted();
            lines.push(format!(
                "{:<66} {:>12.2}   {:.2} .. {:.2} {}",
                row.name,
                middle(&sorted),
                sorted[0],
                sorted[sorted.len() - 1],
                row.unit
            ));
        }
        lines.join("\n")
    }

    /// The same for machines, with every run.
    pub(crate) fn json(&self) -> String {
        let rows = self.rows.iter().map(|row| {
            let median = middle(&row.sorted());
            json!({"name": row.name, "unit": row.unit, "median": median, "runs": row.runs})
        });
        json!({ "figures": rows.collect::<Vec<_>>() }).to_string()
    }
}

impl Row {
    fn sorted(&self) -> Vec<f64> {
        let mut runs = self.runs.clone();
        runs.sort_by(f64::total_cmp);
        runs
    }
}

/// The median of sorted values; of two in the middle the higher.
pub(crate) fn middle(sorted: &[f64]) -> f64 {
    sorted[sorted.len() / 2]
}
