//! `fanfare queue` against a real node: what it adds, tells, redrives and drops, and its exit codes.
//!
//! In: the binary as a user runs it, and the binary as a node over the broker inside the process, or a
//! played API where there is more than a node of a test has. Out: lines and codes. Entries are delayed, so that they wait whether the node moves others or not.

use std::process::{Command, Output, Stdio};

use fanfare_testkit::http;
use fanfare_testkit::node::{Node, Plan};
use serde_json::{Value, json};

use crate::commands::{PlayedApi, json_lines, run};

/// Runs the binary with a node's address, and with these lines on standard input.
async fn fanfare(node: &Node, arguments: &[&str], input: &'static str) -> Output {
    let mut command = Command::new(fanfare_testkit::program::fanfare());
    command
        .args(arguments)
        .env("FANFARE_API_URL", format!("http://{}", node.api))
        .env_remove("FANFARE_API_KEY")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let run = move || {
        let mut child = command.spawn().expect("the binary starts");
        let mut stdin = child.stdin.take().expect("piped");
        // A command that reads nothing may be gone before all is written.
        let _ = std::io::Write::write_all(&mut stdin, input.as_bytes());
        drop(stdin);
        child.wait_with_output().expect("it ends")
    };
    tokio::task::spawn_blocking(run).await.expect("no panic")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Entries of the broker: due, delayed, dead.
async fn counts(node: &Node) -> [u64; 3] {
    let answer = http::get(node.api, "/v1/queue?partitions=true").await;
    let answer = answer.json();
    let partitions = answer["partitions"].as_array().expect("a list");
    ["depth", "delayed", "dead"].map(|name| {
        let of = |one: &Value| one[name].as_u64().expect("a number");
        partitions.iter().map(of).sum()
    })
}

#[tokio::test]
async fn messages_are_added_one_or_one_a_line() {
    let node = Plan::dev().start().await;
    let add = [
        "queue",
        "add",
        "orders:7",
        r#"{"a":1.10}"#,
        "--delay",
        "1h",
        "--idempotency-key",
        "k",
    ];
    let output = fanfare(&node, &add, "").await;
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let first = json_lines(&output);
    assert_eq!(first[0]["topic"], "orders:7");
    assert!(first[0]["entry"].is_string(), "{first:?}");
    let again = json_lines(&fanfare(&node, &add, "").await);
    assert_eq!(
        (&again[0]["duplicate"], &again[0]["entry"]),
        (&Value::Bool(true), &first[0]["entry"])
    );

    let lines = [
        "queue", "add", "--user", "ada", "-", "--delay", "1h", "--format", "text",
    ];
    let output = fanfare(&node, &lines, "1\n\ntwo\n3\n").await;
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let told = text(&output.stdout);
    assert_eq!(told.lines().count(), 3, "{told}");
    assert!(told.lines().all(|line| line.starts_with("@ada ")), "{told}");
    assert_eq!(counts(&node).await, [0, 4, 0]);

    let output = fanfare(&node, &["queue", "depth", "--partitions"], "").await;
    let depth = &json_lines(&output)[0];
    assert_eq!(
        (&depth["durable"], &depth["capacity"]),
        (&Value::Bool(false), &Value::from(50_000))
    );
    assert_eq!(depth["partitions"].as_array().expect("a list").len(), 2);
    let output = fanfare(
        &node,
        &["queue", "depth", "--partitions", "--format", "text"],
        "",
    )
    .await;
    let told = text(&output.stdout);
    assert!(
        told.contains("capacity") && told.contains("partition"),
        "{told}"
    );
}

#[tokio::test]
async fn what_the_node_refuses_is_told_with_its_code() {
    let node = Plan::dev().start().await;
    let rows: [(&[&str], i32, &str); 8] = [
        (&["queue", "add", "a b", "1"], 1, "invalid_topic"),
        (
            &["queue", "add", "t", "1", "--expires-at", "1"],
            1,
            "in the past",
        ),
        (&["queue", "add", "t", "1", "--delay", "31d"], 1, "30 days"),
        (&["queue", "add", "1"], 64, "TOPIC, --user or --everyone"),
        (
            &[
                "queue",
                "add",
                "t",
                "1",
                "--delay",
                "1h",
                "--not-before",
                "5",
            ],
            64,
            "cannot be used",
        ),
        (&["queue", "redrive"], 64, "required"),
        (
            &["queue", "drop", "--all", "--why", "failed"],
            64,
            "cannot be used",
        ),
        (&["queue", "dead", "--why", "because"], 64, "bad_entry"),
    ];
    for (arguments, code, words) in rows {
        let output = fanfare(&node, arguments, "").await;
        let told = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {told}");
        assert!(told.contains(words), "{arguments:?}: {told}");
    }
    let output = fanfare(&node, &["queue", "depth", "--api-key", "wrong"], "").await;
    assert_eq!(output.status.code(), Some(77));
    let lines = fanfare(
        &node,
        &["queue", "add", "t", "-", "--json", "--delay", "1h"],
        "1\n{\n3\n",
    )
    .await;
    assert_eq!(lines.status.code(), Some(65));
    assert_eq!(json_lines(&lines).len(), 2);
    assert_eq!(counts(&node).await, [0, 2, 0]);
}

#[tokio::test]
async fn letters_that_are_not_there_are_told_by_their_ids() {
    let node = Plan::dev().start().await;
    for (act, count) in [("redrive", "redriven"), ("drop", "dropped")] {
        let output = fanfare(
            &node,
            &["queue", act, "--id", "3:17-0", "--id", "4:1-1"],
            "",
        )
        .await;
        let told = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{told}");
        assert!(
            told.contains("3:17-0: not_found") && told.contains("4:1-1"),
            "{told}"
        );
        assert_eq!(json_lines(&output)[0][count], 0);
        let output = fanfare(&node, &["queue", act, "--all", "--format", "text"], "").await;
        assert_eq!(output.status.code(), Some(0));
        assert_eq!(text(&output.stdout), format!("{count}: 0\n"));
        let output = fanfare(&node, &["queue", act, "--id", "x"], "").await;
        assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    }
    let output = fanfare(&node, &["queue", "dead"], "").await;
    assert_eq!((output.status.code(), output.stdout.len()), (Some(0), 0));
}

#[test]
fn dead_letters_of_any_number_are_done_with_by_one_call_after_the_other() {
    let failed = |code: &str| json!([{"id": "9:1-0", "error": {"code": code, "message": "no"}}]);
    let some = json!({"redriven": 1000, "failed": [], "more": true, "next": "7:1-0"});
    let last = json!({"redriven": 2, "failed": failed("bad_request"), "more": false});
    let api = PlayedApi::start([(200, some.clone()), (200, last)]);
    let redrive = ["queue", "redrive", "--why", "failed", "--api-url"];
    let output = run(&[&redrive[..], &[&api.url(), "--format", "text"]].concat());
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(text(&output.stdout), "redriven: 1002\n");
    assert!(text(&output.stderr).contains("9:1-0: bad_request: no"));
    let bodies: Vec<_> = api.asked().into_iter().map(|asked| asked.body).collect();
    let second = json!({"why": "failed", "after": "7:1-0"});
    assert_eq!(bodies, [json!({"why": "failed"}), second]);

    // Where the queue is full, the rest would be refused too.
    let full =
        json!({"redriven": 0, "failed": failed("rate_limited"), "more": true, "next": "9:1-0"});
    let api = PlayedApi::start([(200, full)]);
    let output = run(&[&redrive[..], &[&api.url()]].concat());
    assert_eq!(output.status.code(), Some(69));
    assert_eq!(json_lines(&output).len(), 1);
    assert_eq!(api.asked().len(), 1);

    let some = json!({"dropped": 1000, "failed": [], "more": true, "next": "7:1-0"});
    let api = PlayedApi::start([
        (200, some),
        (200, json!({"dropped": 1, "failed": [], "more": false})),
    ]);
    let output = run(&["queue", "drop", "--all", "--api-url", &api.url()]);
    assert_eq!(output.status.code(), Some(0));
    let lines: Vec<_> = api.asked().into_iter().map(|asked| asked.line).collect();
    let wanted = [
        "DELETE /v1/queue/dead?all=true",
        "DELETE /v1/queue/dead?after=7%3A1-0&all=true",
    ];
    assert_eq!(lines, wanted);
}

#[test]
fn dead_letters_are_listed_page_by_page_and_shown_without_control_characters() {
    let letter = |id: &str| {
        json!({"id": id, "why": "failed", "priority": "low", "topic": "t",
        "entry": "1-0", "error": "red \u{1b}[31m", "accepted": 1})
    };
    let pages = [
        (
            200,
            json!({"letters": [letter("1:1-0"), letter("1:2-0")], "more": true, "next": "1:7-0"}),
        ),
        // A page without a letter, behind which there are others.
        (200, json!({"letters": [], "more": true, "next": "1:9-0"})),
        (200, json!({"letters": [letter("2:1-0")], "more": false})),
    ];
    let api = PlayedApi::start(pages.clone());
    let output = run(&["queue", "dead", "--api-url", &api.url()]);
    assert_eq!(
        (output.status.code(), json_lines(&output).len()),
        (Some(0), 3)
    );
    let lines: Vec<_> = api.asked().into_iter().map(|asked| asked.line).collect();
    let first = "GET /v1/queue/dead?limit=1000";
    let after = |place: &str| format!("{first}&after=1%3A{place}-0");
    assert_eq!(lines, [first.to_owned(), after("7"), after("9")]);
    let api = PlayedApi::start(pages);
    let output = run(&[
        "queue",
        "dead",
        "--format",
        "text",
        "--limit",
        "2",
        "--api-url",
        &api.url(),
    ]);
    assert_eq!(api.asked_once().line, "GET /v1/queue/dead?limit=2");
    let shown = text(&output.stdout);
    assert_eq!(shown.lines().count(), 3, "{shown}");
    assert!(
        shown.contains("1:2-0") && !shown.contains('\u{1b}'),
        "{shown}"
    );
}

#[test]
fn partitions_that_cannot_be_read_are_told_and_the_others_are_gone_on_with() {
    let fault = json!({"partition": 200, "error": {"code": "unavailable", "message": "away"}});
    let some = json!({"redriven": 3, "failed": [fault], "more": true, "next": "7:0-0"});
    let last = json!({"redriven": 2, "failed": [], "more": false, "durable": false});
    let api = PlayedApi::start([(200, some), (200, last)]);
    let output = run(&[
        "queue",
        "redrive",
        "--all",
        "--format",
        "text",
        "--api-url",
        &api.url(),
    ]);
    assert_eq!(output.status.code(), Some(69));
    assert_eq!(text(&output.stdout), "redriven: 5\n");
    let told = text(&output.stderr);
    assert!(
        told.contains("partition 200: unavailable: away") && told.contains("without Redis"),
        "{told}"
    );
    let page = json!({"letters": [], "more": false, "failed": [fault]});
    let depth = json!({"depth": 0, "partitions": [], "failed": [fault]});
    let api = PlayedApi::start([(200, page), (200, depth)]);
    for command in [&["queue", "dead"][..], &["queue", "depth", "--partitions"]] {
        let output = run(&[command, &["--api-url", &api.url()]].concat());
        assert_eq!(output.status.code(), Some(69), "{command:?}");
        assert!(text(&output.stderr).contains("partition 200: unavailable: away"));
    }
}

#[tokio::test]
async fn lines_wait_for_room_in_the_queue_and_keep_their_order() {
    let small = || Plan::dev().env("FANFARE_QUEUE__CAPACITY", "10");
    let node = small().start().await;
    let lines =
        "1\n2\n3\n4\n5\n6\n7\n8\n9\n10\n11\n12\n13\n14\n15\n16\n17\n18\n19\n20\n21\n22\n23\n24\n";
    let add = ["queue", "add", "row", "-", "--priority", "critical"];
    let delayed = [&add[..], &["--delay", "1s", "--format", "text"]].concat();
    let output = fanfare(&node, &delayed, lines).await;
    let told = text(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{told}");
    assert!(told.contains("durable: false"), "{told}");
    assert_eq!(text(&output.stdout).lines().count(), 24, "{told}");
    let published = async || {
        let history = http::get(node.api, "/v1/topics/row/history").await.json();
        let all = history["publications"].as_array().expect("a list");
        let all = all
            .iter()
            .map(|one| one["data"].as_u64().expect("a number"));
        let all: Vec<_> = all.collect();
        (all.len() == 24).then_some(all)
    };
    let published = fanfare_testkit::wait::until("all to be published", published).await;
    assert_eq!(published, (1..=24).collect::<Vec<_>>());

    let node = small().start().await;
    let patient = [&add[..], &["--delay", "1h", "--wait", "2s"]].concat();
    let output = fanfare(&node, &patient, lines).await;
    let told = text(&output.stderr);
    assert_eq!(output.status.code(), Some(69), "{told}");
    assert!(
        told.contains("10 lines were enqueued; line 11 and what follows was not"),
        "{told}"
    );
    assert_eq!(counts(&node).await, [0, 10, 0]);
}

#[tokio::test]
async fn a_line_that_is_refused_holds_up_no_later_one() {
    let node = Plan::dev().start().await;
    let add = ["queue", "add", "row", "-", "--delay", "1h", "--key"];
    let output = fanfare(&node, &[&add[..], &["k"]].concat(), "1\n2\n3\n").await;
    assert_eq!(output.status.code(), Some(0));
    let long = Box::leak(format!("1\n{}\n3\n\n4\n", "x".repeat(70_000)).into_boxed_str());
    let output = fanfare(&node, &[&add[..], &["k"]].concat(), long).await;
    let told = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("line 2: too_large"), "{told}");
    assert_eq!(counts(&node).await, [0, 6, 0]);
}

#[test]
fn what_is_needed_is_told_whatever_the_environment_has() {
    let output = Command::new(fanfare_testkit::program::fanfare())
        .args(["queue", "drop"])
        .env("FANFARE_API_URL", "http://127.0.0.1:1")
        .output()
        .expect("the binary starts");
    let told = text(&output.stderr);
    assert!(
        told.contains("Usage: fanfare queue drop <--id") && !told.contains("--api-url"),
        "{told}"
    );
}
