//! The command line as a user meets it: the real binary, its output and its exit codes.
//!
//! The HTTP API is played by a small server in the test that keeps what it was asked and answers
//! what the test gives it; whether a real node answers so is the matter of the end-to-end tests.

use std::collections::VecDeque;
use std::io::Write;
use std::net::SocketAddr;
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};

const SUBCOMMANDS: [&str; 13] = [
    "serve",
    "config",
    "publish",
    "queue",
    "subscribe",
    "token",
    "revoke",
    "nodes",
    "health",
    "roundtrip",
    "plan",
    "bench",
    "completions",
];

/// The binary, with none of the caller's own settings.
pub(crate) fn fanfare(arguments: &[&str]) -> Command {
    let mut command = Command::new(fanfare_testkit::program::fanfare());
    command.args(arguments).stdin(Stdio::null());
    for name in ["URL", "API_URL", "API_KEY", "TOKEN"] {
        command.env_remove(format!("FANFARE_{name}"));
    }
    command
}

pub(crate) fn run(arguments: &[&str]) -> Output {
    fanfare(arguments).output().expect("the binary starts")
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("UTF-8")
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("UTF-8")
}

pub(crate) fn json_lines(output: &Output) -> Vec<Value> {
    let parse = |line| serde_json::from_str(line).expect("a JSON line");
    stdout(output).lines().map(parse).collect()
}

/// What the played API was asked.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Asked {
    pub(crate) line: String,
    authorization: String,
    /// The app that the call is about.
    pub(crate) app: Option<String>,
    content_type: String,
    pub(crate) body: Value,
}

/// An HTTP API that gives prepared answers in order.
pub(crate) struct PlayedApi {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
    _runtime: tokio::runtime::Runtime,
}

impl PlayedApi {
    pub(crate) fn start(answers: impl Into<VecDeque<(u16, Value)>>) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let listener = runtime
            .block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))
            .expect("a free port");
        let address = listener.local_addr().expect("an address");
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (seen, answers) = (asked.clone(), Arc::new(Mutex::new(answers.into())));
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (seen, answers) = (seen.clone(), answers.clone());
                let service =
                    service_fn(move |request| answer(request, seen.clone(), answers.clone()));
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service),
                );
            }
        });
        Self {
            address,
            asked,
            _runtime: runtime,
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().expect("no panic before").clone()
    }

    /// The only request.
    pub(crate) fn asked_once(&self) -> Asked {
        let asked = self.asked();
        assert_eq!(asked.len(), 1, "{asked:?}");
        asked[0].clone()
    }
}

async fn answer(
    request: Request<hyper::body::Incoming>,
    seen: Arc<Mutex<Vec<Asked>>>,
    answers: Arc<Mutex<VecDeque<(u16, Value)>>>,
) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let header = |name: &str| {
        let value = request.headers().get(name).map(|value| value.to_str());
        value.and_then(Result::ok).unwrap_or_default().to_owned()
    };
    let mut asked = Asked {
        line: format!("{} {}", request.method(), request.uri()),
        authorization: header("authorization"),
        app: Some(header("fanfare-app")).filter(|app| !app.is_empty()),
        content_type: header("content-type"),
        body: Value::Null,
    };
    let body = request.into_body().collect().await?.to_bytes();
    asked.body = serde_json::from_slice(&body).unwrap_or_default();
    let unprepared = publish_all(&asked.body);
    seen.lock().expect("no panic before").push(asked);
    let prepared = answers.lock().expect("no panic before").pop_front();
    let (status, answer) = prepared.unwrap_or((200, unprepared));
    Ok(Response::builder()
        .status(status)
        .body(Full::new(answer.to_string().into()))
        .expect("a response"))
}

/// Publishes every item of a batch, or the one item, unless its data is `"refuse me"`.
fn publish_all(body: &Value) -> Value {
    let publish = |item: &Value| match item["data"] == "refuse me" {
        true => json!({"error": {"code": "too_large", "message": "over 64 KiB"}}),
        false => json!({"results": [{"topic": item["topic"], "position": "1-1"}]}),
    };
    match body.as_array() {
        Some(items) => json!({"results": items.iter().map(publish).collect::<Vec<_>>()}),
        None => publish(body),
    }
}

#[test]
fn every_command_explains_itself_with_examples() {
    let main = run(&["--help"]);
    assert!(main.status.success());
    assert!(stdout(&main).contains("Examples:\n  fanfare "));
    for name in SUBCOMMANDS {
        let help = run(&[name, "--help"]);
        assert!(help.status.success(), "{name}");
        let text = stdout(&help);
        assert!(
            text.contains(&format!("Examples:\n  fanfare {name}")),
            "{text}"
        );
    }
}

#[test]
fn the_version_names_the_commit() {
    let output = run(&["--version"]);
    assert!(output.status.success());
    let text = stdout(&output);
    let commit = text
        .trim_end()
        .strip_prefix(concat!("fanfare ", env!("CARGO_PKG_VERSION"), " (commit "))
        .and_then(|rest| rest.strip_suffix(')'));
    let is_hex = |commit: &str| commit.len() >= 7 && commit.bytes().all(|b| b.is_ascii_hexdigit());
    assert!(
        commit.is_some_and(|commit| commit == "unknown" || is_hex(commit)),
        "{text}"
    );
}

#[test]
fn a_wrong_command_line_exits_with_64_and_says_why_on_stderr() {
    for arguments in [
        &[][..],
        &["dance"],
        &["publish"],
        &["publish", "hello"],
        &["publish", "news", "x", "--everyone"],
        &["publish", "news", "x", "--priority", "urgent"],
        &["publish", "news", "x", "--api-url", "example.org"],
        &["publish", "news", "x", "--json", "--text"],
        &[
            "publish",
            "news",
            "x",
            "--api-url",
            "https://h",
            "--ca",
            "/nowhere",
        ],
        &["subscribe"],
        &["subscribe", "news", "--inbox"],
        &["subscribe", "news", "--rewind", "3", "--since", "1-1"],
        &["subscribe", "news", "--count", "0"],
        &["subscribe", "news", "--url", "http://example.org"],
        &["subscribe", "news", "--url", "wss://h", "--ca", "/nowhere"],
        &["token", "--user", "alice"],
        &[
            "token", "--user", "alice", "--secret", "s", "--key", "k.pem",
        ],
        &["token", "--user", "alice", "--secret", "s", "--ttl", "soon"],
        &[
            "token", "--user", "alice", "--secret", "s", "--can", "fly=*",
        ],
        &[
            "token",
            "--user",
            "alice",
            "--secret",
            "s",
            "--algorithm",
            "ES256",
        ],
        &[
            "token",
            "--user",
            "alice",
            "--secret",
            "s",
            "--algorithm",
            "none",
        ],
        &["token", "--user", "alice", "--secret-file", "/nowhere"],
        &["completions", "cmd.exe"],
    ] {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(64), "{arguments:?}");
        assert!(output.stdout.is_empty(), "{arguments:?}");
        assert!(!output.stderr.is_empty(), "{arguments:?}");
    }
}

#[test]
fn completions_are_printed_for_a_shell() {
    let output = run(&["completions", "bash"]);
    assert!(output.status.success());
    let text = stdout(&output);
    assert!(SUBCOMMANDS.iter().all(|name| text.contains(name)));
}

#[test]
fn a_message_goes_to_the_api_with_everything_that_was_said() {
    let answer = json!({"results": [{"topic": "orders:eu", "position": "7-1", "duplicate": true}]});
    let api = PlayedApi::start([(200, answer)]);
    let output = fanfare(&[
        "publish",
        "orders:eu",
        r#"{"id":7}"#,
        "--priority",
        "high",
        "--key",
        "order-7",
        "--idempotency-key",
        "abc",
        "--ttl-ms",
        "5000",
        "--api-key",
        "secret",
    ])
    .env("FANFARE_API_URL", api.url())
    .output()
    .expect("the binary starts");
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let printed = json!({"topic": "orders:eu", "position": "7-1", "duplicate": true});
    assert_eq!(json_lines(&output), [printed]);
    let expected = Asked {
        line: "POST /v1/publish".to_owned(),
        authorization: "Bearer secret".to_owned(),
        app: None,
        content_type: "application/json".to_owned(),
        body: json!({"topic": "orders:eu", "data": {"id": 7}, "priority": "high",
            "key": "order-7", "idempotency_key": "abc", "ttl_ms": 5000}),
    };
    assert_eq!(api.asked_once(), expected);
}

#[test]
fn text_that_is_not_json_goes_as_text_to_every_kind_of_target() {
    for (arguments, body) in [
        (
            &["news", "hello you"][..],
            json!({"topic": "news", "data": "hello you"}),
        ),
        (&["news", "-5"], json!({"topic": "news", "data": -5})),
        (&["news", "\"5\""], json!({"topic": "news", "data": "5"})),
        (
            &["--user", "al|ice", "{broken"],
            json!({"user": "al|ice", "data": "{broken"}),
        ),
        (
            &["--everyone", "null"],
            json!({"everyone": true, "data": null}),
        ),
    ] {
        let api = PlayedApi::start([]);
        let url = api.url();
        let output = run(&[&["publish", "--api-url", &url], arguments].concat());
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        let asked = api.asked_once();
        assert_eq!(asked.body, body);
        assert_eq!(asked.authorization, "Bearer dev");
    }
}

/// Feeds standard input to `publish t -`.
fn publish_lines(api: &PlayedApi, arguments: &[&str], lines: &str) -> Output {
    let url = api.url();
    let mut child = fanfare(&[&["publish", "t", "-", "--api-url", &url], arguments].concat())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    let mut input = child.stdin.take().expect("piped");
    let lines = lines.to_owned();
    let writer = std::thread::spawn(move || input.write_all(lines.as_bytes()));
    let output = child.wait_with_output().expect("it ends");
    writer.join().expect("no panic").expect("read by the child");
    output
}

#[test]
fn lines_of_standard_input_are_published_together_and_in_order() {
    let api = PlayedApi::start([]);
    // Every second line is empty and left out, but counted.
    let lines: String = (1..=2_500).map(|n| format!("{n}\n\n")).collect();
    let output = publish_lines(&api, &["--idempotency-key", "k"], &lines);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(json_lines(&output).len(), 2_500);
    let asked = api.asked();
    assert!(asked.iter().all(|one| one.line == "POST /v1/batch"));
    assert!(asked.len() < 250, "{} requests", asked.len());
    let items = asked.iter().flat_map(|one| one.body.as_array()).flatten();
    let expected = (1..=2_500)
        .map(|n| json!({"topic": "t", "data": n, "idempotency_key": format!("k-{}", 2 * n - 1)}));
    assert!(items.cloned().eq(expected));
}

#[test]
fn a_refused_line_is_told_by_its_number_and_the_others_go_on() {
    let api = PlayedApi::start([]);
    let lines = "one\nrefuse me\nthree";
    let output = publish_lines(&api, &["--format", "text"], lines);
    assert_eq!(stdout(&output), "t 1-1\nt 1-1\n");
    assert_eq!(stderr(&output), "fanfare: line 2: too_large: over 64 KiB\n");
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn the_exit_code_says_whose_fault_a_refusal_is() {
    let error = |code: &str| json!({"error": {"code": code, "message": "because"}});
    let result = json!({"results": [{"topic": "news", "error": {"code": "forbidden", "message": "because"}}]});
    for (status, answer, code) in [
        (400, error("invalid_topic"), 1),
        (413, error("too_large"), 1),
        (401, error("unauthorized"), 77),
        (403, result, 77),
        (503, error("unavailable"), 69),
        (404, json!("no API"), 1),
    ] {
        let api = PlayedApi::start([(status, answer)]);
        let output = run(&["publish", "news", "x", "--api-url", &api.url()]);
        assert_eq!(output.status.code(), Some(code), "{status}");
        if status != 404 {
            assert!(stderr(&output).contains("because"), "{}", stderr(&output));
        }
    }
}

/// A port on which nobody listens.
fn closed_port() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("an address")
}

#[test]
fn a_node_that_is_away_is_named_with_what_to_do_next() {
    let address = closed_port();
    let api = format!("http://{address}");
    let sockets = format!("ws://{address}");
    for arguments in [
        &["publish", "news", "x", "--api-url", &api][..],
        &["nodes", "--api-url", &api],
        &["subscribe", "news", "--url", &sockets],
    ] {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(69), "{arguments:?}");
        let text = stderr(&output);
        assert!(text.contains(&address.to_string()), "{text}");
        assert!(text.contains("onnection refused"), "{text}");
        assert!(text.contains("fanfare serve --dev"), "{text}");
    }
}

#[test]
fn nodes_are_a_table_for_people_and_json_lines_in_a_pipe() {
    let nodes = json!([
        {"node": "a", "state": "ready", "sessions": 12, "share": 0.5, "partitions": 130, "url": "ws://a:1",
            "age_ms": 960, "fresh": true},
        {"node": "node-b", "state": "draining", "sessions": 2, "drain_sessions": 9, "share": 0.25,
            "age_ms": 75_120, "fresh": false},
        {"node": "of-another-release", "state": "ready", "sessions": 0, "share": 0.25}
    ]);
    let answer = json!({"nodes": nodes, "partitions": 256});
    let api = PlayedApi::start([(200, answer.clone()), (200, answer)]);
    let output = run(&["nodes", "--api-url", &api.url()]);
    assert_eq!(json_lines(&output), *nodes.as_array().expect("a list"));
    let output = run(&["nodes", "--api-url", &api.url(), "--format", "text"]);
    assert_eq!(
        stdout(&output),
        "node                state     sessions  drained  share   partitions  age                url\n\
         a                   ready     12        -        50.0 %  130         0.9 s              ws://a:1\n\
         node-b              draining  2         7/9      25.0 %  -           75.1 s, not fresh  -\n\
         of-another-release  ready     0         -        25.0 %  -           -                  -\n"
    );
    assert_eq!(api.asked()[0].line, "GET /v1/nodes");
}

/// `cargo run` hands what the build script sets to the program, whose settings begin alike.
#[test]
fn what_the_build_tells_the_program_is_no_setting() {
    let script = include_str!("../../build.rs");
    assert!(script.contains("cargo:rustc-env="), "it tells the commit");
    assert!(!script.contains("cargo:rustc-env=FANFARE_"));
}
