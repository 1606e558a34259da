//! `fanfare roundtrip` against real nodes: its times, its three answers, and how it gets in.

use std::net::TcpListener;
use std::process::Output;

use fanfare_testkit::http;
use fanfare_testkit::node::{Node, Plan};
use serde_json::Value;

use crate::commands::{fanfare, json_lines};

const SECRET: &str = "a secret of at least thirty-two bytes";

/// Runs it against a node, with these arguments.
async fn roundtrip(node: &Node, arguments: &[&str]) -> Output {
    let mut command = fanfare(&["roundtrip"]);
    command
        .args(arguments)
        .env("FANFARE_API_URL", format!("http://{}", node.api))
        .env("FANFARE_URL", format!("ws://{}", node.public))
        .env("ROUNDTRIP_SECRET", SECRET);
    tokio::task::spawn_blocking(move || command.output().expect("the binary starts"))
        .await
        .expect("no panic")
}

/// The one line that it printed.
fn line(output: &Output) -> Value {
    let lines = json_lines(output);
    assert_eq!(lines.len(), 1, "{output:?}");
    lines[0].clone()
}

#[tokio::test]
async fn a_message_comes_back_and_each_step_has_its_time() {
    let node = Plan::dev().flag("--node-id=one").start().await;
    let output = roundtrip(&node, &[]).await;
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let said = line(&output);
    assert_eq!((&said["ok"], &said["node"]), (&true.into(), &"one".into()));
    assert_eq!(said["topic"], "roundtrip");
    let sum: f64 = ["connect", "subscribe", "publish", "receive", "total"]
        .iter()
        .map(|step| said[format!("{step}_ms")].as_f64().expect("a time"))
        .sum();
    assert!(sum > 0.0, "{said}");
    // It is what the topic has now, and no other.
    let history = http::get(node.api, "/v1/topics/roundtrip/history").await;
    let publications = history.json()["publications"].clone();
    assert_eq!(publications.as_array().map(Vec::len), Some(1));
    assert_eq!(publications[0]["position"], said["position"]);
    // For people, by another topic.
    let shown = roundtrip(&node, &["--format", "text", "--topic", "orders:probe"]).await;
    assert_eq!(shown.status.code(), Some(0), "{shown:?}");
    let text = String::from_utf8(shown.stdout).expect("UTF-8");
    let begin = "ok: a message to orders:probe came back through one in ";
    assert!(text.starts_with(begin), "{text}");
    assert_eq!(text.lines().count(), 5, "{text}");
}

#[tokio::test]
async fn a_node_that_refuses_exits_1_and_names_the_step() {
    let node = Plan::default()
        .env("FANFARE_AUTH__HMAC_SECRET", SECRET)
        .env("FANFARE_API__KEYS", "the-key-of-this-node")
        .start()
        .await;
    let rows: [(&[&str], &str); 3] = [
        (&["--token", "none"], "connect"),
        // The token is made, and the key of the API is another one.
        (
            &["--secret-env", "ROUNDTRIP_SECRET", "--api-key", "wrong"],
            "publish",
        ),
        // A token that allows another topic.
        (
            &[
                "--secret-env",
                "ROUNDTRIP_SECRET",
                "--api-key",
                "the-key-of-this-node",
                "--claim",
                r#"can={"subscribe":["other"]}"#,
            ],
            "subscribe",
        ),
    ];
    for (arguments, step) in rows {
        let output = roundtrip(&node, arguments).await;
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let said = line(&output);
        assert_eq!(
            (&said["ok"], &said["step"]),
            (&false.into(), &step.into()),
            "{said}"
        );
        let told = String::from_utf8(output.stderr).expect("UTF-8");
        assert!(
            told.starts_with(&format!("fanfare: {step} failed: ")),
            "{told}"
        );
    }
    let arguments = [
        "--secret-env",
        "ROUNDTRIP_SECRET",
        "--api-key",
        "the-key-of-this-node",
    ];
    let output = roundtrip(&node, &arguments).await;
    assert_eq!(output.status.code(), Some(0), "{output:?}");
}

#[tokio::test]
async fn nobody_there_exits_69() {
    let node = Plan::dev().start().await;
    let free = TcpListener::bind("127.0.0.1:0").expect("a port");
    let nowhere = free.local_addr().expect("it has an address");
    drop(free);
    for (flag, url, step) in [
        ("--url", format!("ws://{nowhere}"), "connect"),
        ("--api-url", format!("http://{nowhere}"), "publish"),
    ] {
        let output = roundtrip(&node, &[flag, &url]).await;
        assert_eq!(output.status.code(), Some(69), "{output:?}");
        assert_eq!(line(&output)["step"], step);
    }
}

#[tokio::test]
async fn an_api_that_takes_the_message_and_does_not_answer_exits_69() {
    let node = Plan::dev().start().await;
    // The kernel takes connections and requests for it, and nobody reads them.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", silent.local_addr().expect("it has an address"));
    let output = roundtrip(&node, &["--api-url", &url]).await;
    assert_eq!(output.status.code(), Some(69), "{output:?}");
    let said = line(&output);
    assert_eq!(said["step"], "publish");
    assert_eq!(said["error"], "no answer within 10 s");
}

#[tokio::test]
async fn who_is_not_let_in_is_told_flags_that_there_are() {
    let plan = Plan::default().env("FANFARE_AUTH__HMAC_SECRET", SECRET);
    let node = plan.env("FANFARE_API__KEYS", "a-key").start().await;
    let output = roundtrip(&node, &[]).await;
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let told = String::from_utf8(output.stderr).expect("UTF-8");
    assert!(told.contains("--secret-env"), "{told}");
    assert!(!told.contains("--user"), "{told}");
}

#[tokio::test]
async fn a_wrong_command_line_exits_64() {
    let node = Plan::dev().start().await;
    for arguments in [
        &["--url", "no address"][..],
        &["--secret", "short"],
        &["--nothing"],
    ] {
        let output = roundtrip(&node, arguments).await;
        assert_eq!(output.status.code(), Some(64), "{output:?}");
    }
}
