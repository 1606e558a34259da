//! `fanfare health`: its answers, its exit codes, and how it finds the node.
//!
//! In: the binary as a user or a probe runs it, against a real node and against listeners that are none.
//! Out: lines and codes.

use std::io::Write as _;
use std::net::TcpListener;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use fanfare_testkit::node::Plan;
use serde_json::{Value, json};

use crate::commands::{PlayedApi, json_lines, run};

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What it answers with, with these arguments.
fn code(arguments: &[&str]) -> (Option<i32>, Output) {
    let output = run(&[&["health"], arguments].concat());
    (output.status.code(), output)
}

#[tokio::test]
async fn a_node_is_asked_whether_it_is_live_or_ready_and_how_its_parts_do() {
    let node = Plan::dev().flag("--node-id=one").start().await;
    let url = format!("http://{}", node.api);
    let ask = |arguments: &'static [&'static str]| {
        let url = url.clone();
        let asked = move || code(&[arguments, &["--api-url", &url]].concat());
        tokio::task::spawn_blocking(asked)
    };
    let (exit, output) = ask(&[]).await.expect("no panic");
    assert_eq!(exit, Some(0));
    assert_eq!(json_lines(&output), [json!({"ready": true, "reasons": []})]);
    let (exit, output) = ask(&["live"]).await.expect("no panic");
    assert_eq!(exit, Some(0));
    assert_eq!(json_lines(&output), [json!({"live": true})]);
    let (exit, output) = ask(&["detailed"]).await.expect("no panic");
    assert_eq!(exit, Some(0));
    let [line] = &json_lines(&output)[..] else {
        panic!("{}", text(&output.stdout));
    };
    assert_eq!(line["node"], "one");
    let (exit, output) = ask(&["detailed", "--format", "text"])
        .await
        .expect("no panic");
    assert_eq!(exit, Some(0));
    let shown = text(&output.stdout);
    assert!(shown.starts_with("one: ok, ready, release "), "{shown}");
    for part in [
        "turns, worker 0  ok ",
        "turns, dispatcher  ok",
        "sessions 0 of ",
    ] {
        let shown = shown.split_whitespace().collect::<Vec<_>>().join(" ");
        let part = part.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(shown.contains(&part), "{part}: {shown}");
    }
}

#[test]
fn a_node_that_is_not_well_exits_1_and_what_is_no_node_69() {
    let reasons = json!(["worker 0 has not turned for 7 s"]);
    let rows: [(&[&str], u16, Value, i32); 9] = [
        (
            &["ready"],
            503,
            json!({"ready": false, "reasons": reasons}),
            1,
        ),
        (
            &["live"],
            503,
            json!({"live": false, "reasons": reasons}),
            1,
        ),
        (
            &["detailed"],
            200,
            json!({"status": "unavailable", "reasons": reasons}),
            1,
        ),
        (&["ready"], 200, json!({"ready": true, "reasons": []}), 0),
        // Others answer in this way, too.
        (
            &["ready"],
            503,
            json!({"error": {"code": "unavailable"}}),
            69,
        ),
        (&["ready"], 404, json!({"ready": true}), 69),
        (&["ready"], 200, json!({"live": true}), 69),
        (&["live"], 200, json!("live"), 69),
        (&["detailed"], 200, json!({"status": 1}), 69),
    ];
    for (question, status, answer, expected) in rows {
        let api = PlayedApi::start(vec![(status, answer.clone())]);
        let url = api.url();
        let (exit, output) = code(&[question, &["--api-url", &url]].concat());
        assert_eq!(exit, Some(expected), "{answer}: {}", text(&output.stderr));
        let path = format!("GET /health/{}", question[0]);
        assert_eq!(api.asked_once().line, path);
        // A script reads the whole answer, or nothing.
        let printed = if expected == 69 { vec![] } else { vec![answer] };
        assert_eq!(json_lines(&output), printed);
    }
    let answer = json!({"ready": false, "reasons": reasons});
    let api = PlayedApi::start(vec![(503, answer)]);
    let (exit, output) = code(&["--format", "text", "--api-url", &api.url()]);
    assert_eq!(exit, Some(1));
    let shown = "not ready\nnot well: worker 0 has not turned for 7 s\n";
    assert_eq!(text(&output.stdout), shown);
}

#[test]
fn who_does_not_answer_is_given_up_soon() {
    // One where nobody listens, and one where nobody answers.
    let free = TcpListener::bind("127.0.0.1:0").expect("a port");
    let nowhere = free.local_addr().expect("an address");
    drop(free);
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let silent_at = silent.local_addr().expect("an address");
    for address in [nowhere, silent_at] {
        let begun = Instant::now();
        let (exit, output) = code(&["--api-url", &format!("http://{address}")]);
        assert_eq!(exit, Some(69), "{address}");
        assert!(output.stdout.is_empty());
        assert!(text(&output.stderr).starts_with("fanfare: "), "{address}");
        // Ten times its patience; that of other commands is longer.
        assert!(begun.elapsed() < Duration::from_secs(20), "{address}");
    }
    let (_, output) = code(&["--api-url", &format!("http://{silent_at}")]);
    assert!(
        text(&output.stderr).contains("within 2 s"),
        "{}",
        text(&output.stderr)
    );
}

#[test]
fn the_node_is_found_by_its_configuration_whatever_else_is_wrong_with_that() {
    let well = || json!({"ready": true, "reasons": []});
    let api = PlayedApi::start(vec![(200, well()), (200, well()), (200, well())]);
    let address = api.url().trim_start_matches("http://").to_owned();
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    let port = address.rsplit(':').next().expect("a port").to_owned();
    // It listens everywhere, and a key is misspelt.
    writeln!(
        file,
        "[api]\nlisten = \"0.0.0.0:{port}\"\n[drain]\nwindow = 1"
    )
    .expect("written");
    let path = file.path().display().to_string();
    let asked = |arguments: &[&str], variables: &[(&str, &str)]| {
        let mut command = Command::new(fanfare_testkit::program::fanfare());
        command.arg("health").args(arguments);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("FANFARE_") {
                command.env_remove(name);
            }
        }
        command.envs(variables.iter().copied());
        command.output().expect("the binary starts").status.code()
    };
    assert_eq!(asked(&["--config", &path], &[]), Some(0));
    assert_eq!(asked(&[], &[("FANFARE_CONFIG", path.as_str())]), Some(0));
    assert_eq!(
        asked(&[], &[("FANFARE_API__LISTEN", address.as_str())]),
        Some(0)
    );
    assert_eq!(api.asked().len(), 3);
    // What cannot be told from it is said.
    assert_eq!(asked(&["--config", "/nowhere/at-all.toml"], &[]), Some(64));
    assert_eq!(asked(&[], &[("FANFARE_API__LISTEN", "nonsense")]), Some(64));
    // Where both say something, the address does.
    let url = "http://127.0.0.1:1";
    assert_eq!(asked(&["--config", &path, "--api-url", url], &[]), Some(69));
}
