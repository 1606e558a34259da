//! Clients that nobody here wrote, in both wire forms, through a real node: npm `ws` and PyPI
//! `websockets`.
//!
//! `scripts/test` installs them under `target/clients`. Each client goes through a session's life
//! (connect, subscribe, publish, receive, history, inbox and ack, a dropped socket, resume,
//! close) and fails at the first surprise.

use std::path::{Path, PathBuf};
use std::process::Command;

use fanfare_testkit::node::{Node, Plan};

/// Where `scripts/test` puts the packages.
fn installed(what: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("target/clients")
        .join(what);
    assert!(
        path.exists(),
        "{} is missing: run scripts/test, which installs it",
        path.display()
    );
    path
}

async fn run(node: &Node, mut client: Command, wire: &str) {
    let urls = [
        format!("ws://{}/v1/connect", node.public),
        format!("http://{}", node.api),
    ];
    client.args(urls).arg(wire);
    let running = tokio::task::spawn_blocking(move || client.output());
    let output = running
        .await
        .expect("the client is awaited")
        .expect("the client starts");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{wire}: {}\n{told}", output.status);
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/clients")
        .join(name)
}

#[tokio::test]
async fn the_npm_package_ws_goes_through_the_life_of_a_session() {
    let node = Plan::dev().start().await;
    for wire in ["json", "msgpack"] {
        let mut client = Command::new("node");
        client
            .env("NODE_PATH", installed("node_modules"))
            .arg(script("ws_client.js"));
        run(&node, client, wire).await;
    }
}

#[tokio::test]
async fn the_pypi_package_websockets_goes_through_the_life_of_a_session() {
    let node = Plan::dev().start().await;
    for wire in ["json", "msgpack"] {
        let mut client = Command::new(installed("venv/bin/python"));
        client.arg(script("websockets_client.py"));
        run(&node, client, wire).await;
    }
}
