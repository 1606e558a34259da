//! The files as values: metrics of the page, panels of the dashboards, alerts of the rules.
//!
//! In: files of the repository, in the form in which they are written there. Out: values for the
//! tests beside.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde_json::Value;

/// Where dashboards and rules lie.
pub(crate) const FILES: &str = "helm/fanfare/files";

/// What `docs/metrics.md` says of a metric: its kind, and its labels with the values that they
/// have, or none where those are open.
#[derive(Debug, Clone, Default)]
pub(crate) struct Metric {
    pub(crate) kind: String,
    pub(crate) labels: BTreeMap<String, BTreeSet<String>>,
}

/// A panel that asks Prometheus something.
#[derive(Debug, Clone)]
pub(crate) struct Panel {
    /// Its dashboard and its title.
    pub(crate) name: String,
    pub(crate) description: String,
    pub(crate) unit: String,
    pub(crate) queries: Vec<String>,
}

pub(crate) fn path(of: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(of)
}

pub(crate) fn read(file: &str) -> String {
    std::fs::read_to_string(path(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// The rows of the tables of a page, as their cells.
pub(crate) fn rows(page: &str) -> impl Iterator<Item = Vec<&str>> {
    let rows = page.lines().filter_map(|line| line.strip_prefix("| "));
    rows.map(|row| {
        let cells = row.trim_end_matches('|').split('|');
        cells.map(str::trim).collect()
    })
}

fn quoted(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

/// All metrics of a node.
pub(crate) fn metrics() -> BTreeMap<String, Metric> {
    let page = read("docs/metrics.md");
    let mut metrics = BTreeMap::new();
    for row in rows(&page) {
        let Some(name) = quoted(row[0]).next() else {
            continue;
        };
        let mut metric = Metric {
            kind: row[1].to_owned(),
            ..Metric::default()
        };
        for label in quoted(row[2]) {
            let (label, value) = label.split_once('=').unwrap_or((label, ""));
            let values = metric.labels.entry(label.to_owned()).or_default();
            let value = value.trim_matches('"');
            values.extend((!value.is_empty()).then(|| value.to_owned()));
        }
        metrics.insert(name.to_owned(), metric);
    }
    assert!(metrics.len() > 100, "{} metrics", metrics.len());
    metrics
}

/// Every dashboard by the name of its file.
pub(crate) fn dashboards() -> BTreeMap<String, Value> {
    let folder = path(FILES).join("dashboards");
    let entries = std::fs::read_dir(folder).expect("the folder of dashboards");
    let mut dashboards = BTreeMap::new();
    for entry in entries {
        let path = entry.expect("an entry of the folder").path();
        let text = std::fs::read_to_string(&path).expect("a dashboard");
        let name = path.file_stem().expect("a name").to_string_lossy();
        let dashboard = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{name}: {e}"));
        dashboards.insert(name.into_owned(), dashboard);
    }
    dashboards
}

/// Every panel of every dashboard that is more than a heading.
pub(crate) fn panels() -> Vec<Panel> {
    let mut panels = Vec::new();
    for (name, dashboard) in dashboards() {
        for panel in dashboard["panels"].as_array().expect("a list of panels") {
            if panel["type"] == "row" {
                continue;
            }
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let targets = panel["targets"].as_array().expect("a list of queries");
            panels.push(Panel {
                name: format!("{name}: {}", text(&panel["title"])),
                description: text(&panel["description"]),
                unit: text(&panel["fieldConfig"]["defaults"]["unit"]),
                queries: targets.iter().map(|target| text(&target["expr"])).collect(),
            });
        }
    }
    panels
}

/// A query as Prometheus takes it: all nodes, and rates over so long.
pub(crate) fn filled(query: &str, rate_interval: &str) -> String {
    let query = query.replace("$__rate_interval", rate_interval);
    ["$namespace", "$job", "$node"]
        .iter()
        .fold(query, |query, variable| query.replace(variable, ".*"))
}

/// One alert as it stands in the rules: its name and its lines.
pub(crate) fn alerts() -> BTreeMap<String, String> {
    let rules = read(&format!("{FILES}/rules.yaml"));
    let alerts = rules.split("- alert: ").skip(1);
    let alerts = alerts.map(|text| {
        let (name, lines) = text
            .split_once('\n')
            .expect("an alert has more than a name");
        (name.to_owned(), lines.to_owned())
    });
    alerts.collect()
}

/// The names of the alerts that the tests of the rules let fire, and of those that they do not.
pub(crate) fn tested() -> [BTreeSet<String>; 2] {
    let tests = read(&format!("{FILES}/rules.test.yaml"));
    let mut tested = [BTreeSet::new(), BTreeSet::new()];
    for text in tests.split("alertname: ").skip(1) {
        let mut lines = text.lines();
        let name = lines.next().expect("a name").trim().to_owned();
        let expected = lines.next().expect("what is expected").trim();
        let is_quiet = match expected {
            "exp_alerts:" => false,
            "exp_alerts: []" => true,
            other => panic!("{name}: `{other}` is not what follows the name of an alert"),
        };
        tested[usize::from(is_quiet)].insert(name);
    }
    tested
}

/// The sections of the page for who is on call, by the alert that they are about.
pub(crate) fn sections() -> BTreeMap<String, String> {
    let page = read("docs/oncall.md");
    let sections = page.split("\n## ").skip(1);
    let sections = sections.filter_map(|text| {
        let (heading, body) = text.split_once('\n')?;
        heading
            .starts_with("Fanfare")
            .then(|| (heading.to_owned(), body.to_owned()))
    });
    sections.collect()
}
