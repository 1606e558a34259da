//! Dashboards, rules and pages against each other. No node is started.

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::Value;

use super::files::{
    FILES, alerts, dashboards, filled, metrics, panels, path, read, rows, sections, tested,
};
use super::promql::{family, faults, selectors};

/// Columns of a dashboard.
const GRID_WIDTH: u64 = 24;
/// The units that panels have, by Grafana's names.
const UNITS: [&str; 6] = ["short", "percentunit", "s", "ops", "bytes", "Bps"];
/// What each section of the page for who is on call says.
const PARTS: [&str; 6] = [
    "**Means.**",
    "**Users notice.**",
    "**Type first.**",
    "**Causes.**",
    "**Do.**",
    "**Wake somebody.**",
];

fn keys<V>(map: &std::collections::BTreeMap<String, V>) -> BTreeSet<String> {
    map.keys().cloned().collect()
}

#[test]
fn every_alert_has_its_section_and_is_tested_both_ways() {
    let names = keys(&alerts());
    assert!(names.len() >= 8, "{names:?}");
    assert_eq!(names, keys(&sections()), "sections of docs/oncall.md");
    let [fire, quiet] = tested();
    assert_eq!(names, fire, "alerts that a test lets fire");
    assert_eq!(names, quiet, "alerts that a test does not let fire");
}

#[test]
fn every_alert_says_how_bad_it_is_what_it_is_and_where_to_read_on() {
    for (name, lines) in alerts() {
        let value = |key: &str| {
            let mut lines = lines.lines().map(str::trim);
            let value = lines.find_map(|line| line.strip_prefix(&format!("{key}: ")));
            value.unwrap_or_else(|| panic!("{name} has no {key}"))
        };
        assert!(
            ["critical", "warning"].contains(&value("severity")),
            "{name}"
        );
        let section = format!("\"docs/oncall.md#{}\"", name.to_lowercase());
        assert_eq!(value("runbook_url"), section, "{name}");
        for key in ["summary", "description"] {
            assert!(value(key).len() > 20, "{name}: {key}");
        }
    }
}

#[test]
fn every_section_says_what_to_type_and_when_to_wake_somebody() {
    for (name, body) in sections() {
        let mut from = 0;
        for part in PARTS {
            let at = body[from..].find(part);
            from += at.unwrap_or_else(|| panic!("{name} lacks {part}, or has it earlier"));
        }
        assert!(body.contains("\n```sh\n"), "{name} shows no command");
    }
}

#[test]
fn every_panel_has_title_unit_and_description_and_only_names_what_nodes_have() {
    let metrics = metrics();
    let panels = panels();
    assert!(panels.len() > 50, "{} panels", panels.len());
    let mut names = BTreeSet::new();
    for panel in panels {
        let name = &panel.name;
        assert!(!name.ends_with(": "), "{name} has no title");
        assert!(panel.description.len() > 5, "{name} has no description");
        assert!(UNITS.contains(&&*panel.unit), "{name}: {}", panel.unit);
        assert!(!panel.queries.is_empty(), "{name} asks nothing");
        for query in &panel.queries {
            assert_eq!(faults(query, &metrics), Vec::<String>::new(), "{name}");
            let chosen = selectors(query).into_iter().all(|selector| {
                ["namespace", "job", "instance"]
                    .iter()
                    .all(|label| selector.matchers.iter().any(|(name, ..)| name == label))
            });
            assert!(chosen, "{name} is not of the chosen nodes: {query}");
        }
        assert!(names.insert(panel.name.clone()), "{name} is there twice");
    }
}

#[test]
fn every_dashboard_has_the_same_variables_and_panels_of_its_own() {
    let dashboards = dashboards();
    let all: BTreeSet<_> = ["overview", "delivery", "redis", "queue", "node"].into();
    assert_eq!(
        dashboards.keys().map(|k| &**k).collect::<BTreeSet<_>>(),
        all
    );
    for (name, dashboard) in dashboards {
        assert_eq!(dashboard["uid"], format!("fanfare-{name}"));
        let variables = dashboard["templating"]["list"].as_array().expect("a list");
        let variables: Vec<_> = variables.iter().map(|v| &v["name"]).collect();
        assert_eq!(
            variables,
            ["datasource", "namespace", "job", "node"],
            "{name}"
        );
        let panels = dashboard["panels"].as_array().expect("a list");
        let ids: BTreeSet<_> = panels.iter().map(|panel| panel["id"].as_u64()).collect();
        assert_eq!(ids.len(), panels.len(), "{name}: an id is there twice");
        assert!(!ids.contains(&None), "{name}: a panel has no id");
        for panel in panels.iter().filter(|panel| panel["type"] != "row") {
            assert_eq!(
                panel["datasource"]["uid"], "${datasource}",
                "{name}: {panel}"
            );
        }
        let mut taken = BTreeSet::new();
        for panel in panels {
            for place in places(panel) {
                assert!(taken.insert(place), "{name}: two panels at {place:?}");
            }
        }
    }
}

/// The places of a dashboard's grid that a panel takes.
fn places(panel: &Value) -> Vec<(u64, u64)> {
    let [x, y, width, height] =
        ["x", "y", "w", "h"].map(|side| panel["gridPos"][side].as_u64().expect("a number"));
    assert!(width > 0 && height > 0, "it is nowhere: {panel}");
    assert!(x + width <= GRID_WIDTH, "it reaches out: {panel}");
    let columns = x..x + width;
    columns
        .flat_map(|x| (y..y + height).map(move |y| (x, y)))
        .collect()
}

#[test]
fn every_metric_is_in_a_panel_or_has_a_reason_not_to_be() {
    let metrics = metrics();
    let mut told: BTreeSet<String> = BTreeSet::new();
    for query in panels().into_iter().flat_map(|panel| panel.queries) {
        let of_query = selectors(&query).into_iter();
        told.extend(of_query.filter_map(|s| Some(family(&s.metric, &metrics)?.to_owned())));
    }
    let page = read("docs/monitoring.md");
    let (_, left_out) = page
        .split_once("\n## Not on a dashboard\n")
        .expect("a section of what is not shown");
    for row in rows(left_out) {
        let Some(name) = row[0].strip_prefix('`') else {
            continue;
        };
        let name = name.trim_end_matches('`');
        assert!(metrics.contains_key(name), "no node has {name}");
        assert!(row[1].len() > 10, "{name} has no reason");
        assert!(told.insert(name.to_owned()), "{name} is in a panel");
    }
    let missing: Vec<_> = metrics
        .keys()
        .filter(|name| !told.contains(*name))
        .collect();
    assert!(
        missing.is_empty(),
        "in no panel and without a reason: {missing:?}"
    );
}

#[test]
fn the_rules_only_name_what_nodes_have() {
    let metrics = metrics();
    for (name, lines) in alerts() {
        let (expression, _) = lines.split_once("\n        labels:").expect("labels");
        assert_eq!(faults(expression, &metrics), Vec::<String>::new(), "{name}");
        let asks = expression.contains("fanfare_") || expression.contains("process_");
        assert!(asks, "{name} asks nothing of a node");
    }
}

#[test]
fn what_no_node_has_is_found_in_a_query() {
    let metrics = metrics();
    for (query, fault) in [
        ("rate(fanfare_session[5m])", "no node has `fanfare_session`"),
        (
            "fanfare_sessions_bucket",
            "no node has `fanfare_sessions_bucket`",
        ),
        (
            "fanfare_publish_seconds > 1",
            "no node has `fanfare_publish_seconds`",
        ),
        (
            "fanfare_redis_circuits{job=~\"}\", state=\"opened\"}",
            "`fanfare_redis_circuits` has no state `opened`",
        ),
        (
            "fanfare_dropped_total{reason=~\"slow_session|slow\"}",
            "`fanfare_dropped_total` has no reason `slow`",
        ),
        (
            "fanfare_api_requests_total{status=~\"9..\"}",
            "`fanfare_api_requests_total` has no status `9..`",
        ),
        (
            "fanfare_ready{state=\"open\"}",
            "`fanfare_ready` has no label `state`",
        ),
    ] {
        assert_eq!(faults(query, &metrics), [fault], "{query}");
    }
    for query in [
        "sum by (le) (rate(fanfare_publish_seconds_bucket{job=~\"$job\"}[5m]))",
        "fanfare_api_requests_total{route!~\"/health.*|/metrics\", status=~\"5..\"}",
        "fanfare_redis_circuits{state=\"open\"} > 0 unless up{job=\"x\"} == 0",
    ] {
        assert_eq!(faults(query, &metrics), Vec::<String>::new(), "{query}");
    }
}

/// Runs Debian's promtool, which `scripts/test` installs, and returns what it says.
fn promtool(arguments: &[&str]) -> (bool, String) {
    let output = Command::new("promtool")
        .args(arguments)
        .current_dir(path(FILES))
        .output()
        .expect("promtool is installed: Debian's package prometheus");
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    (output.status.success(), said)
}

#[test]
fn promtool_reads_the_rules_and_each_fires_when_it_should() {
    let (is_read, said) = promtool(&["check", "rules", "rules.yaml"]);
    assert!(is_read, "{said}");
    let count = format!("{} rules found", alerts().len());
    assert!(said.contains(&count), "{said}");
    let (is_right, said) = promtool(&["test", "rules", "rules.test.yaml"]);
    assert!(is_right, "{said}");
}

#[test]
fn promtool_reads_every_query_of_every_panel() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let mut rules = String::from("groups:\n  - name: panels\n    rules:\n");
    let mut count = 0;
    for panel in panels() {
        for query in panel.queries {
            let query = serde_json::to_string(&filled(&query, "1m")).expect("text");
            rules += &format!("      - record: query:{count}\n        expr: {query}\n");
            count += 1;
        }
    }
    let file = folder.path().join("panels.yaml");
    std::fs::write(&file, rules).expect("a file that can be written");
    let (is_read, said) = promtool(&["check", "rules", &file.to_string_lossy()]);
    assert!(is_read, "{said}");
    assert!(said.contains(&format!("{count} rules found")), "{said}");
}

#[test]
fn prometheus_takes_the_configuration_that_the_page_shows() {
    let page = read("docs/monitoring.md");
    let (_, rest) = page.split_once("\n```yaml\n").expect("a configuration");
    let (config, _) = rest.split_once("\n```").expect("its end");
    let folder = tempfile::tempdir().expect("a temporary directory");
    let file = folder.path().join("prometheus.yml");
    std::fs::write(&file, config).expect("a file that can be written");
    let rules = path(FILES).join("rules.yaml");
    std::fs::copy(rules, folder.path().join("rules.yaml")).expect("the rules");
    let (is_taken, said) = promtool(&["check", "config", &file.to_string_lossy()]);
    assert!(is_taken, "{said}");
    assert!(said.contains("1 rule files"), "{said}");
}
