//! `fanfare bench` as a user runs it: the real binary against a real node, with small numbers.
//!
//! What is checked is the report: its fields, and that nothing was missing, doubled or out of
//! order. That the checker sees such things is held beside it (`crates/bench/src/tally.rs`), and here
//! against a played server that does them. No figure is asserted. The peers' protocols are played
//! by a small server (`tests/cli/bench/peer.rs`).

mod peer;

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::process::{Command, Output};

use fanfare_testkit::node::{Node, Plan};
use peer::{Fault, Kind, Peer};
use serde_json::Value;

/// Runs a scenario and returns how it ended.
async fn bench(arguments: &[impl AsRef<OsStr>]) -> Output {
    let mut command = Command::new(fanfare_testkit::program::fanfare());
    for name in ["URL", "API_URL", "API_KEY", "TOKEN"] {
        command.env_remove(format!("FANFARE_{name}"));
    }
    command.arg("bench").args(arguments);
    let run = tokio::task::spawn_blocking(move || command.output());
    let output = run.await.expect("no panic");
    output.expect("the binary starts")
}

fn report(output: &Output) -> Value {
    let errors = String::from_utf8_lossy(&output.stderr);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("no report ({e}): {errors}"))
}

/// Runs a scenario against a node and returns its report, which must be clean.
async fn clean(node: &Node, arguments: &[&str]) -> Value {
    let (url, api) = (node.connect_url(""), format!("http://{}", node.api));
    let pid = node.pid().to_string();
    let target = ["--url", &url, "--api-url", &api, "--pid", &pid];
    let all: Vec<&str> = arguments.iter().copied().chain(target).collect();
    let output = bench(&all).await;
    let report = report(&output);
    assert!(output.status.success(), "{report:#}");
    assert_eq!(report["scenario"], arguments[0]);
    assert_eq!(report["processes"][0]["pid"], node.pid());
    assert!(report["generator"]["was_bottleneck"].is_boolean());
    report
}

/// That so many deliveries were expected, and all came once and in order.
fn assert_all_came(report: &Value) {
    let messages = &report["messages"];
    assert!(messages["expected"].as_u64() > Some(0), "{report:#}");
    assert_eq!(messages["received"], messages["expected"], "{report:#}");
    for fault in [
        "missing",
        "doubled",
        "reordered",
        "gaps_told",
        "sessions_ended",
    ] {
        assert_eq!(messages[fault], 0, "{fault} in {report:#}");
    }
}

/// That latencies of these kinds were recorded, each with its percentiles in order.
fn assert_latencies(report: &Value, kinds: &[&str]) {
    for kind in kinds {
        let latency = &report["latency_us"][kind];
        assert!(latency["count"].as_u64() > Some(0), "{kind} in {report:#}");
        let of = ["p50", "p90", "p99", "p99_9", "max"].map(|name| latency[name].as_u64());
        assert!(of.is_sorted() && of[0].is_some(), "{kind} in {report:#}");
    }
}

#[tokio::test]
async fn connect_counts_every_session_and_says_what_it_cost() {
    let node = Plan::dev().start().await;
    let report = clean(&node, &["connect", "--sessions", "40", "--users", "each"]).await;
    assert_eq!(report["latency_us"]["welcome"]["count"], 40);
    assert_eq!(report["latency_us"]["subscribe"]["count"], 40);
    assert!(report["figures"]["connects_per_s"].as_f64() > Some(0.0));
    assert!(report["figures"]["server_cpu_us_per_connect"].is_number());
    let report = clean(&node, &["connect", "--sessions", "5", "--welcome-only"]).await;
    assert_eq!(report["latency_us"]["subscribe"]["count"], 0);
}

#[tokio::test]
async fn idle_says_what_a_session_holds_and_uses() {
    let node = Plan::dev().start().await;
    let report = clean(&node, &["idle", "--sessions", "50", "--seconds", "0.3"]).await;
    let figures = &report["figures"];
    assert!(figures["server_rss_bytes_per_session"].is_number());
    assert!(figures["server_cpu_us_per_session_s"].is_number());
    assert_eq!(report["messages"]["sessions_ended"], 0);
}

#[tokio::test]
async fn fanout_delivers_everything_in_both_forms_and_at_every_pace() {
    let node = Plan::dev().start().await;
    let paces: [&[&str]; 3] = [
        &["--publications", "30", "--encoding", "msgpack"],
        &["--publications", "50", "--publishers", "4"],
        &["--rate", "50", "--seconds", "0.5"],
    ];
    for pace in paces {
        let arguments = [&["fanout", "--sessions", "20"], pace].concat();
        let report = clean(&node, &arguments).await;
        assert_all_came(&report);
        assert_latencies(&report, &["delivery", "publish"]);
        assert!(report["figures"]["deliveries_per_s"].as_f64() > Some(0.0));
        assert!(report["figures"]["server_cpu_us_per_delivery"].is_number());
    }
}

#[tokio::test]
async fn latency_is_paced_and_draws_its_curves() {
    let node = Plan::dev().start().await;
    let folder = tempfile::tempdir().expect("a directory");
    let file = folder.path().join("curves.svg");
    let plot = file.to_str().expect("UTF-8");
    let arguments = ["latency", "--sessions", "10", "--seconds", "0.5"];
    let report = clean(&node, &[&arguments[..], &["--plot", plot]].concat()).await;
    assert_all_came(&report);
    assert_latencies(&report, &["delivery", "publish", "publish_late"]);
    let svg = std::fs::read_to_string(&file).expect("the curves");
    assert_well_formed(&svg);
    for text in [
        "latency in ms by percentile",
        "99.9 %",
        "deliveries in each second",
    ] {
        assert!(svg.contains(text), "{text} in {svg}");
    }
    assert!(svg.contains("<polyline"), "{svg}");
}

/// That every element is closed, in order. What plotters writes has no comments and no `<` in text.
fn assert_well_formed(svg: &str) {
    let mut open = Vec::new();
    for part in svg.split('<').skip(1) {
        let (tag, _) = part.split_once('>').expect("a tag ends");
        let name = |tag: &str| tag.split_whitespace().next().map(str::to_owned);
        if let Some(closed) = tag.strip_prefix('/') {
            assert_eq!(open.pop().flatten(), name(closed), "{svg}");
        } else if !tag.ends_with('/') {
            open.push(name(tag));
        }
    }
    assert!(open.is_empty(), "{open:?}");
    assert!(svg.starts_with("<svg "));
}

#[tokio::test]
async fn inbox_reaches_every_user_in_calls_of_many() {
    let node = Plan::dev().start().await;
    let sizes = [
        "inbox",
        "--sessions",
        "25",
        "--rounds",
        "4",
        "--targets",
        "10",
    ];
    let report = clean(&node, &sizes).await;
    assert_all_came(&report);
    assert_eq!(report["messages"]["expected"], 100);
    assert_eq!(report["messages"]["sent"], 12, "calls");
}

#[tokio::test]
async fn queue_reaches_every_inbox_both_ways_and_tells_who_waited() {
    let node = Plan::dev().start().await;
    let paces: [&[&str]; 3] = [
        &["--via", "both", "--turns", "2", "--seconds", "0.3"],
        &["--rate", "500", "--seconds", "0.5"],
        &["--backlog", "300"],
    ];
    for pace in paces {
        let sizes = ["queue", "--sessions", "20", "--list", "5-30"];
        let report = clean(&node, &[&sizes[..], pace].concat()).await;
        assert_all_came(&report);
        assert_latencies(
            &report,
            &["queue_wait_critical", "queue_wait_low", "queue_answer"],
        );
        let figures = &report["figures"];
        assert!(figures["queue_entries_per_s"].as_f64() > Some(0.0));
        assert!(figures["queue_server_cpu_us_per_entry"].is_number());
        assert!(figures["queue_stood_low_us"].is_number());
        let is_both = pace[0] == "--via";
        assert_eq!(figures["batch_entries_per_s"].is_number(), is_both);
        assert_eq!(report["latency_us"]["batch_wait_low"].is_object(), is_both);
        if pace[0] == "--backlog" {
            // What comes before is a warm-up.
            assert!(
                report["messages"]["expected"].as_u64() > Some(300),
                "{report:#}"
            );
            let waited = &report["latency_us"];
            let kinds = ["critical", "high", "normal", "low"];
            let counts = kinds.map(|kind| waited[format!("queue_wait_{kind}")]["count"].as_u64());
            assert_eq!(counts.iter().flatten().sum::<u64>(), 300, "{report:#}");
        }
    }
}

#[tokio::test]
async fn mixed_times_subscribe_publish_ack_and_delivery() {
    let node = Plan::dev().start().await;
    let sizes = [
        "mixed",
        "--sessions",
        "10",
        "--actors",
        "3",
        "--circles",
        "5",
    ];
    let report = clean(&node, &[&sizes[..], &["--seconds", "1"]].concat()).await;
    assert_all_came(&report);
    let kinds = ["subscribe", "publish_socket", "ack", "delivery", "publish"];
    assert_latencies(&report, &kinds);
    assert_latencies(&report, &["delivery_echo", "delivery_inbox", "unsubscribe"]);
}

#[tokio::test]
async fn slow_lets_the_stalled_reader_have_everything_in_order() {
    // An outbox that is full soon, so that the stall is more than a full socket.
    let node = Plan::dev().env("FANFARE_SESSION__OUTBOX_BYTES_MAX", "65536");
    let node = node.start().await;
    let sizes = ["slow", "--sessions", "5", "--rate", "100", "--seconds", "1"];
    let report = clean(&node, &[&sizes[..], &["--bytes", "8000"]].concat()).await;
    assert_all_came(&report);
    let figures = &report["figures"];
    assert!(figures["slow_unread_at_end_of_stall"].as_u64() > Some(0));
    assert!(figures["slow_received"].as_u64() > Some(50), "{report:#}");
    for fault in ["slow_missing", "slow_doubled", "slow_reordered"] {
        assert_eq!(figures[fault], 0, "{report:#}");
    }
    assert_latencies(&report, &["delivery", "delivery_beside_stall"]);
}

#[tokio::test]
async fn storm_brings_everybody_back_with_what_they_missed() {
    let node = Plan::dev().start().await;
    let sizes = ["storm", "--sessions", "30", "--rate", "50"];
    let times = ["--away", "0.5", "--seconds", "0.5"];
    for encoding in ["json", "msgpack"] {
        let form = ["--encoding", encoding];
        let report = clean(&node, &[&sizes[..], &times, &form].concat()).await;
        assert_all_came(&report);
        let figures = &report["figures"];
        assert!(
            figures["all_joined_after_s"].as_f64() <= figures["all_caught_up_after_s"].as_f64()
        );
        assert_latencies(&report, &["welcome", "subscribe", "delivery_from_return"]);
    }
}

#[tokio::test]
async fn soak_samples_memory_and_gives_no_verdict_too_soon() {
    let node = Plan::dev().start().await;
    let times = ["--seconds", "1", "--every", "0.2"];
    let report = clean(&node, &[&["soak", "--sessions", "5"], &times[..]].concat()).await;
    assert_all_came(&report);
    let figures = &report["figures"];
    assert!(figures["memory_samples"].as_u64() >= Some(2), "{report:#}");
    assert!(figures["memory_growth_bytes_per_minute"].is_number());
    assert_eq!(figures["leak"], "too_short");
}

#[tokio::test]
async fn tokens_are_made_for_nodes_outside_development() {
    let folder = tempfile::tempdir().expect("a directory");
    let config = fanfare_testkit::tokens::config_file(&folder);
    let node = Plan::with_config(&config).start().await;
    let secret = ["--secret", fanfare_testkit::tokens::SECRET];
    let fanout = ["fanout", "--sessions", "5", "--publications", "5"];
    assert_all_came(&clean(&node, &[&fanout[..], &secret].concat()).await);
    let inbox = ["inbox", "--sessions", "5", "--rounds", "2"];
    assert_all_came(&clean(&node, &[&inbox[..], &secret].concat()).await);
    let url = node.connect_url("");
    let wrong = ["connect", "--url", &url, "--token", "no.such.token"];
    let refused = bench(&wrong).await;
    assert_eq!(refused.status.code(), Some(77), "{refused:?}");
}

#[tokio::test]
async fn the_report_for_people_is_a_table() {
    let node = Plan::dev().start().await;
    let (url, api) = (node.connect_url(""), format!("http://{}", node.api));
    let target = ["--url", &url, "--api-url", &api, "--format", "text"];
    let load = ["fanout", "--sessions", "3", "--publications", "5"];
    let output = bench(&[&load[..], &target].concat()).await;
    let text = String::from_utf8_lossy(&output.stdout);
    for words in [
        "missing 0, doubled 0, reordered 0",
        "deliveries per s",
        "p99.9",
        "generator",
    ] {
        assert!(text.contains(words), "{words} in {text}");
    }
}

#[tokio::test]
async fn the_peers_protocols_are_spoken() {
    for kind in [Kind::Pusher, Kind::Centrifugo, Kind::SocketIo] {
        let peer = Peer::start(kind, Fault::None).await;
        for scenario in ["connect", "idle", "fanout", "latency"] {
            let output = bench(&peer.arguments(scenario)).await;
            let report = report(&output);
            assert!(output.status.success(), "{kind:?} {scenario}: {report:#}");
            if matches!(scenario, "fanout" | "latency") {
                assert_all_came(&report);
            }
        }
        let refused = bench(&peer.arguments("storm")).await;
        assert_eq!(refused.status.code(), Some(64), "{refused:?}");
    }
}

#[tokio::test]
async fn a_server_that_loses_doubles_or_reorders_is_found_out() {
    let faults = [
        (Fault::Loses, "missing"),
        (Fault::Doubles, "doubled"),
        (Fault::Reorders, "reordered"),
    ];
    for (fault, name) in faults {
        let peer = Peer::start(Kind::SocketIo, fault).await;
        let output = bench(&peer.arguments("fanout")).await;
        let report = report(&output);
        assert_eq!(output.status.code(), Some(1), "{report:#}");
        for count in ["missing", "doubled", "reordered"] {
            let found = report["messages"][count].as_u64().expect("a count");
            assert_eq!(found > 0, count == name, "{count} in {report:#}");
        }
    }
}

#[tokio::test]
async fn what_cannot_be_run_is_refused_with_what_to_do() {
    let cases: [(&[&str], i32, &str); 7] = [
        (&["fanout", "--sessions", "100000000"], 64, "ulimit -n"),
        (
            &["fanout", "--sessions", "0"],
            64,
            "a count is a whole number from 1 on",
        ),
        (
            &["latency", "--rate", "0"],
            64,
            "a rate is a number above 0",
        ),
        (
            &["idle", "--pid", "4294967295"],
            64,
            "--pid is the id of a running process",
        ),
        (&["fanout", "--url", "http://x"], 64, "ws://HOST:PORT"),
        (
            &["connect", "--token", "x", "--secret", "y"],
            64,
            "cannot be used with",
        ),
        (
            &["connect", "--url", "ws://127.0.0.1:1"],
            69,
            "fanfare serve --dev",
        ),
    ];
    for (arguments, code, words) in cases {
        let output = bench(arguments).await;
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {text}");
        assert!(text.contains(words), "{arguments:?}: {text}");
        assert!(output.stdout.is_empty(), "{arguments:?}");
    }
}

#[tokio::test]
async fn a_scenario_offers_no_flag_that_it_would_refuse() {
    // Other servers have neither positions nor inboxes; where each session is a user of its own,
    // nobody is to say who they are.
    let of_peers = ["--protocol", "--app-id", "--app-key", "--app-secret"];
    let of_users = ["--users", "--token"];
    for (scenarios, has_peers, has_users) in [
        (
            &["connect", "idle", "fanout", "latency", "soak"][..],
            true,
            true,
        ),
        (&["slow", "storm"], false, true),
        (&["inbox", "mixed", "queue"], false, false),
    ] {
        for scenario in scenarios {
            let help = bench(&[scenario, "--help"]).await;
            let text = String::from_utf8_lossy(&help.stdout);
            let offers = |flag: &str| text.split_whitespace().any(|word| word == flag);
            for (flags, offered) in [(&of_peers[..], has_peers), (&of_users, has_users)] {
                for flag in flags {
                    assert_eq!(offers(flag), offered, "{scenario} {flag}: {text}");
                }
            }
            for flag in [
                "--json",
                "--format",
                "--api-url",
                "--secret-env",
                "--pid",
                "--url",
            ] {
                assert!(offers(flag), "{scenario} {flag}: {text}");
            }
        }
    }
}

#[tokio::test]
async fn every_scenario_says_what_it_is_and_shows_examples_that_name_it() {
    let scenarios = [
        "connect", "idle", "fanout", "latency", "inbox", "queue", "mixed", "slow", "storm", "soak",
    ];
    let mut abouts = BTreeSet::new();
    for scenario in scenarios {
        let help = bench(&[scenario, "--help"]).await;
        let text = String::from_utf8_lossy(&help.stdout);
        let example = format!("Examples:\n  fanfare bench {scenario}");
        assert!(text.contains(&example), "{text}");
        let about = text.lines().next().unwrap_or_default();
        assert!(abouts.insert(about.to_owned()), "as another one: {about}");
    }
}
