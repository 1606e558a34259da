//! `fanfare plan` as a user meets it, and its page: every example is run, every cost is the code's.

use std::path::PathBuf;

use fanfare::cli::plan::costs;
use serde_json::Value;

use super::commands::{json_lines, run};

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

/// The JSON of a plan that there is.
fn planned(arguments: &[&str]) -> Value {
    let output = run(&[&["plan"], arguments].concat());
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let mut lines = json_lines(&output);
    assert_eq!(lines.len(), 1);
    lines.remove(0)
}

/// The exit code, and what stderr says of a plan that there is not.
fn refused(arguments: &[&str]) -> (Option<i32>, String) {
    let output = run(&[&["plan"], arguments].concat());
    assert!(output.stdout.is_empty(), "{arguments:?}");
    (output.status.code(), text(&output.stderr))
}

const LEAST: [&str; 6] = ["--users", "10k", "--topics", "500", "--rate", "200"];

#[test]
fn a_pipe_gets_one_object_with_names_that_scripts_can_read() {
    let all = planned(&LEAST);
    assert_eq!(all["demand"]["users"], 10_000);
    assert_eq!(all["demand"]["fanout"], 20, "users divided by topics");
    assert_eq!(all["machines"]["node_sessions_max"], 10_000);
    let plan = &all["plan"];
    assert_eq!(
        (&plan["nodes"], &plan["redis_masters"]),
        (&2.into(), &1.into())
    );
    assert_eq!(plan["deliveries_per_s"], 4_000);
    let needs = plan["needs"].as_array().expect("a list");
    let names: Vec<_> = needs.iter().map(|need| &need["resource"]).collect();
    assert_eq!(
        names,
        [
            "sessions",
            "spare",
            "cpu",
            "control",
            "memory",
            "network",
            "redis_cpu",
            "redis_memory",
            "redis_network"
        ]
    );
    assert!(names.contains(&&plan["binds_first"]));
    assert_eq!(all["warnings"], serde_json::json!([]));
}

#[test]
fn sizes_and_machines_of_ones_own_change_the_plan() {
    let nodes = |more: &[&str]| planned(&[&LEAST, more].concat())["plan"]["nodes"].clone();
    assert_eq!(nodes(&["--size", "medium"]), 13);
    assert_eq!(nodes(&["--size", "small", "--node-sessions", "2000"]), 7);
    assert_eq!(
        nodes(&["--size", "large", "--node-cores", "0.1"]),
        nodes(&["--node-cores", "0.1", "--node-sessions", "5k"])
    );
}

/// What a size means stands in the chart too.
#[test]
fn sizes_are_those_of_the_chart() {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/helm/fanfare/templates/_facts.tpl"
    );
    let chart = std::fs::read_to_string(path).expect("the chart");
    let cpus = [
        ("small", "250m"),
        ("medium", "500m"),
        ("large", "1"),
        ("enterprise", "2"),
    ];
    for (size, cpu) in cpus {
        let machines = &planned(&[&LEAST[..], &["--size", size]].concat())["machines"];
        let cores = match cpu.strip_suffix('m') {
            Some(thousandths) => thousandths.parse::<f64>().expect("a number") / 1_000.0,
            None => cpu.parse().expect("a number"),
        };
        assert_eq!(machines["node_cores"], cores);
        let mebibytes = machines["node_memory_bytes"].as_u64().expect("bytes") >> 20;
        let memory = match mebibytes % 1_024 {
            0 => format!("{}Gi", mebibytes / 1_024),
            _ => format!("{mebibytes}Mi"),
        };
        let sessions = &machines["node_sessions_max"];
        let row = format!(
            "\"{size}\" (dict \"connections\" {sessions} \"cpu\" \"{cpu}\" \"memory\" \"{memory}\")"
        );
        assert!(chart.contains(&row), "the chart has no {row}");
    }
}

#[test]
fn what_goes_beyond_measurements_and_defaults_is_warned_of() {
    let large = "--users 10M --topics 1 --rate 10 --fanout 5 --bytes 100k --inbox 0 \
                 --node-sessions 5k --network 10k";
    let large: Vec<_> = large.split_whitespace().collect();
    let all = planned(&large);
    let warnings = all["warnings"].to_string();
    for words in [
        "2,500 nodes: at most 300 were measured",
        "bytes a publication: at most 1,024 were measured",
        "set maxclients of Redis above 12,500; the default is 10,000",
        "set session.message_bytes_max above 100,000; the default is 65,536",
    ] {
        assert!(warnings.contains(words), "{words}: {warnings}");
    }
    for setting in ["topics_max", "handshakes_per_s"] {
        assert!(!warnings.contains(setting), "{warnings}");
    }
    // More sessions come to each node in a second than it lets in.
    let hasty = "--users 1M --topics 20k --rate 5k --fanout 50 --session 1s";
    let hasty: Vec<_> = hasty.split_whitespace().collect();
    let all = planned(&hasty);
    let warnings = all["warnings"].to_string();
    let words = "set admission.handshakes_per_s above 6,411; the default is 5,000";
    assert!(warnings.contains(words), "{warnings}");
}

/// Arguments, the exit code, and words of what is said.
const REFUSED: [(&str, i32, &str); 14] = [
    (
        "--users 0 --topics 1 --rate 1",
        64,
        "invalid value '0' for '--users <N>': must be a whole number from 1 to 10000000000",
    ),
    (
        "--users 1 --topics 0 --rate 1",
        64,
        "'--topics <N>': must be a whole number from 1",
    ),
    (
        "--users 1 --topics 1 --rate 0",
        64,
        "'--rate <MESSAGES_PER_S>': must be a whole number from 1 to 1000000000",
    ),
    (
        "--users 99999999999999999999999 --topics 1 --rate 1",
        64,
        "from 1 to 10000000000",
    ),
    (
        "--users=-5 --topics 1 --rate 1",
        64,
        "from 1 to 10000000000",
    ),
    (
        "--users 5m --topics 1 --rate 1",
        64,
        "unknown unit \"m\": use k, M or G",
    ),
    (
        "--users 1 --topics 1 --rate 1 --queued 101",
        64,
        "101 is not in 0..=100",
    ),
    (
        "--users 1 --topics 1 --rate 1 --size huge",
        64,
        "[possible values: small, medium, large, enterprise]",
    ),
    (
        "--users 1 --topics 1 --rate 1 --node-cores NaN",
        64,
        "must be a number from 0.1 to 1024",
    ),
    (
        "--users 1 --topics 1 --rate 1 --session 0s",
        64,
        "must be from 1s to 365d",
    ),
    (
        "--users 10 --topics 1 --rate 1 --fanout 11",
        64,
        "--fanout 11 is more than --users 10: a publication goes to each session once\nhint: give a smaller --fanout or more --users",
    ),
    (
        "--users 10 --topics 1M --rate 1 --fanout 10",
        64,
        "--topics 1000000 with 10 sessions each would be 1000000 topics for each of 10 users, and a session joins at most 100000",
    ),
    (
        "--users 40M --topics 1 --rate 1 --fanout 1",
        1,
        "the heartbeats of 5000 nodes take more of the first master of Redis than it may use\nhint: give larger nodes",
    ),
    (
        "--users 1 --topics 1 --rate 1k --bytes 16M --network 1",
        1,
        "100000 nodes are too few: what is short is the network of a node\nhint: give more --network",
    ),
];

#[test]
fn what_cannot_be_is_refused_with_what_to_change() {
    for (arguments, code, words) in REFUSED {
        let split: Vec<_> = arguments.split_whitespace().collect();
        let (found, told) = refused(&split);
        assert_eq!(found, Some(code), "{arguments}: {told}");
        assert!(told.contains(words), "{arguments}: {told}");
    }
}

fn page_path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs/capacity.md")
}

/// The page with what the code says in place of what stands there: the table of costs, and below each
/// example what it prints.
fn page_of_the_code(page: &str) -> String {
    let (before, rest) = page.split_once("<!-- costs -->\n").expect("the mark");
    let (_, after) = rest.split_once("<!-- end of costs -->").expect("the mark");
    let mut table = "| cost | is | measured |\n|---|---|---|\n".to_owned();
    for cost in costs::ALL {
        let value = match cost.name.strip_suffix("_s") {
            Some(_) => format!("{} µs", (cost.value * 1e8).round() / 100.0),
            None => cost.value.to_string(),
        };
        table.push_str(&format!(
            "| `{}` | {value} | {} |\n",
            cost.name, cost.source
        ));
    }
    let page = format!("{before}<!-- costs -->\n{table}<!-- end of costs -->{after}");
    let mut parts = page.split("```sh\n");
    let mut written = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (command, rest) = part
            .split_once("\n```\n\n```text\n")
            .expect("an example and its output");
        let (_, after) = rest.split_once("```").expect("an end");
        let arguments: Vec<_> = command.split_whitespace().skip(1).collect();
        let output = run(&[&arguments[..], &["--format", "text"]].concat());
        assert!(
            output.status.success(),
            "{command}: {}",
            text(&output.stderr)
        );
        let shown = text(&output.stdout);
        written.push_str(&format!(
            "```sh\n{command}\n```\n\n```text\n{shown}```{after}"
        ));
    }
    written
}

#[test]
fn the_page_shows_what_the_command_prints_and_the_costs_of_the_code() {
    let kept = std::fs::read_to_string(page_path()).expect("docs/capacity.md");
    let page = page_of_the_code(&kept);
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(page_path(), &page).expect("the page can be written");
    }
    assert!(page.matches("```text").count() >= 3, "three examples");
    assert!(
        kept == page,
        "docs/capacity.md is not what the code says; `BLESS=1 cargo test --test cli plan` writes it"
    );
}
