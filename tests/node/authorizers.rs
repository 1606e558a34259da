//! Authorizers of a real node: the backends that `docs/authorizers.md` shows, one that fails, and secrets that
//! change under load.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fanfare_protocol::form::Encoding;
use fanfare_testkit::backend::{Backend, Reply};
use fanfare_testkit::node::{Node, Plan};
use fanfare_testkit::talk::Talk;
use fanfare_testkit::{http, tokens, wait};
use serde_json::{Value, json};

const PAGE: &str = include_str!("../../docs/authorizers.md");

fn secret(byte: u8) -> String {
    format!("whsec_{}", STANDARD.encode([byte; 32]))
}

/// A node that asks there about each session, and about `chat`. Its secrets stand in a file beside its own.
async fn node(url: &str, directory: &tempfile::TempDir) -> Node {
    let path = tokens::config_file(directory);
    let text = std::fs::read_to_string(&path).expect("it was written");
    let text = text.replace("[auth]", "[auth]\nauthorize_connect = \"backend\"");
    let text = format!(
        "{text}\n[namespaces.chat]\nsubscribe = \"authenticated\"\npublish = \"authenticated\"\n\
         authorize_subscribe = \"backend\"\nauthorize_publish = \"backend\"\n\n\
         [[authorizers]]\nname = \"backend\"\nurl = {url:?}\nsecrets_file = \"secrets\"\n\
         allow_private = true\n"
    );
    std::fs::write(&path, text).expect("the directory can be written");
    write_secrets(directory, &[1]);
    Plan::with_config(&path).start().await
}

fn write_secrets(directory: &tempfile::TempDir, bytes: &[u8]) {
    let lines: String = bytes.iter().map(|byte| secret(*byte) + "\n").collect();
    std::fs::write(directory.path().join("secrets"), lines).expect("it can be written");
}

async fn connected(node: &Node) -> (Talk, Value) {
    let url = node.connect_url("");
    let mut talk = Talk::open(&url, Encoding::Json, &[])
        .await
        .expect("it is let in until it says who it is");
    let welcome = talk.ok(json!({"type": "connect"})).await;
    (talk, welcome)
}

/// A backend of the page, as a process that ends with the test.
struct Shown {
    child: Child,
    port: u16,
}

impl Drop for Shown {
    fn drop(&mut self) {
        // An error means that the process is gone, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn installed(what: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("target/clients")
        .join(what);
    let told = "is missing: run scripts/test, which installs it";
    assert!(path.exists(), "{} {told}", path.display());
    path
}

impl Shown {
    async fn start(language: &str, mut command: Command, directory: &tempfile::TempDir) -> Self {
        let (_, rest) = PAGE
            .split_once(&format!("```{language}\n"))
            .expect("the page shows it");
        let (program, _) = rest.split_once("```").expect("a block ends");
        let path = directory.path().join(format!("backend.{language}"));
        std::fs::write(&path, program).expect("the directory can be written");
        let out = directory.path().join("port");
        let file = std::fs::File::create(&out).expect("the directory can be written");
        let child = command
            .arg(path)
            .env("AUTHORIZER_SECRET", secret(1))
            .env("PORT", "0")
            .stdin(Stdio::null())
            .stdout(file)
            .spawn()
            .expect("it was installed");
        let port = wait::until("the backend to listen", async || {
            let text = std::fs::read_to_string(&out).unwrap_or_default();
            text.trim().parse::<u16>().ok()
        });
        let port = port.await;
        Self { child, port }
    }
}

async fn goes_through(shown: Shown, directory: &tempfile::TempDir) {
    let node = node(&format!("http://127.0.0.1:{}/", shown.port), directory).await;
    let (mut talk, welcome) = connected(&node).await;
    let user = format!("guest-{}", welcome["session"].as_str().expect("an id"));
    assert_eq!(welcome["user"], user);
    let staff = json!({"type": "subscribe", "topic": "chat:staff"});
    let error = talk.refused(staff, "forbidden").await;
    assert_eq!(
        error["message"],
        "refused by the authorizer `backend`: staff only"
    );
    talk.subscribe("chat:1", json!({})).await;
    talk.ok(json!({"type": "publish", "topic": "chat:1", "data": "darn it", "echo": true}))
        .await;
    assert_eq!(talk.data(1).await, ["**** it"]);
    // Signed by a secret that the backend has not, nobody comes in.
    write_secrets(directory, &[2]);
    node.signal("HUP");
    node.until_told("configuration_reloaded").await;
    let publish = json!({"type": "publish", "topic": "chat:1", "data": 1});
    talk.refused(publish, "unavailable").await;
    let failed = node.until_told("authorizer_failed").await;
    let told = failed[0].to_string();
    assert!(told.contains("it answered 401 Unauthorized"), "{told}");
    // With both it is known again.
    write_secrets(directory, &[2, 1]);
    node.signal("HUP");
    wait::until_equal(2, async || node.log_lines("configuration_reloaded").len()).await;
    talk.publish("chat:1", json!(1)).await;
}

#[tokio::test]
async fn the_backend_in_python_that_the_page_shows_is_one() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let python = Command::new(installed("venv/bin/python"));
    let shown = Shown::start("python", python, &directory).await;
    goes_through(shown, &directory).await;
}

#[tokio::test]
async fn the_backend_in_javascript_that_the_page_shows_is_one() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut script = Command::new("node");
    script.env("NODE_PATH", installed("node_modules"));
    let shown = Shown::start("javascript", script, &directory).await;
    goes_through(shown, &directory).await;
}

#[tokio::test]
async fn a_backend_that_fails_is_told_everywhere_and_others_are_served() {
    let backend = Backend::http(|asked| match asked.json["type"] == "connect" {
        true => Reply::json(&json!({"allow": true, "user": "ada"})),
        false => Reply::status(500),
    })
    .await;
    let directory = tempfile::tempdir().expect("a temporary directory");
    let node = node(&backend.url, &directory).await;
    let part = async || {
        let detailed = http::get(node.api, "/health/detailed").await.json();
        let parts = detailed["components"].as_array().expect("a list").clone();
        let mut parts = parts.into_iter();
        let found = parts.find(|part| part["name"] == "authorizers");
        found.expect("the part is there")
    };
    assert_eq!(part().await["state"], "ok");
    let (mut talk, _) = connected(&node).await;
    let subscribe = json!({"type": "subscribe", "topic": "chat:1"});
    for _ in 0..8 {
        talk.refused(subscribe.clone(), "unavailable").await;
    }
    let error = talk.refused(subscribe.clone(), "unavailable").await;
    let text = "the authorizer `backend` failed too often and is not asked for a moment";
    assert_eq!(error["message"], text);
    assert_eq!(
        (
            &error["retry"],
            error["retry_after_ms"].as_u64() >= Some(1_000)
        ),
        (&json!(true), true)
    );
    let part_now = part().await;
    assert_eq!(part_now["state"], "degraded", "{part_now}");
    assert!(
        part_now.to_string().contains("it answered 500"),
        "{part_now}"
    );
    node.until_told("authorizer_suspended").await;
    assert_eq!(node.metric("fanfare_authorizers_suspended").await, 1);
    let failed = "fanfare_authorizations_total{result=\"failed\"}";
    assert_eq!(node.metric(failed).await, 8);
    let all = "fanfare_authorizer_failures_total{authorizer=\"backend\"}";
    assert_eq!(node.metric(all).await, 9);
    let ready = http::get(node.api, "/health/ready").await;
    assert_eq!(ready.status, 200, "the node serves everybody else");
    assert!(
        ready.text().contains("authorizer backend: it answered 500"),
        "{}",
        ready.text()
    );
    talk.subscribe("open", json!({})).await;
    backend.answer(|_| Reply::json(&json!({"allow": true})));
    wait::until("it is asked again", async || {
        let answer = talk.ask(subscribe.clone()).await;
        (answer["type"] == "ok").then_some(())
    })
    .await;
    node.until_told("authorizer_resumed").await;
    assert_eq!(part().await["state"], "ok");
}

/// What comes of a `connect`: the error, and the close code.
async fn connects(node: &Node, more: Value) -> (Value, Option<u16>) {
    let mut talk = Talk::open(&node.connect_url("?wait=1"), Encoding::Json, &[])
        .await
        .expect("it is let in until it says who it is");
    let mut connect = json!({"type": "connect"});
    for (name, value) in more.as_object().expect("a map") {
        connect[name] = value.clone();
    }
    let error = talk.ask(connect).await;
    (error, talk.close_code().await)
}

#[tokio::test]
async fn whatever_an_authorizer_answers_is_told_exactly() {
    let no = || Reply::json(&json!({"allow": false}));
    let backend = Backend::http(move |_| no()).await;
    let directory = tempfile::tempdir().expect("a temporary directory");
    let node = node(&backend.url, &directory).await;
    let refused = "refused by the authorizer `backend`";
    let useless = "the authorizer `backend` gave no answer that can be used; try again";
    let is = |told: (Value, Option<u16>), code: &str, message: &str, close: u16| {
        let (error, closed) = told;
        assert_eq!(
            (&error["code"], &error["message"]),
            (&json!(code), &json!(message))
        );
        assert_eq!(closed, Some(close));
    };
    is(connects(&node, json!({})).await, "forbidden", refused, 4000);
    backend.answer(|_| Reply::json(&json!({"allow": true, "user": "bob"})));
    let ada = json!({"token": tokens::token("ada")});
    is(connects(&node, ada).await, "unavailable", useless, 4105);
    let (mut bob, _) = connected(&node).await;
    let subscribe = json!({"type": "subscribe", "topic": "chat:1"});
    let garbage = [
        Reply::text("garbage"),
        Reply::text(" ".repeat(64 * 1024 + 1)),
        Reply::status(307),
        Reply::json(&json!({"allow": true, "user": "eve"})),
    ];
    for reply in garbage {
        backend.answer(move |_| reply.clone());
        let error = bob.refused(subscribe.clone(), "unavailable").await;
        assert_eq!(error["message"], useless);
    }
    backend.answer(move |_| no());
    let error = bob.refused(subscribe.clone(), "forbidden").await;
    assert_eq!(error["message"], refused);
    bob.refused(
        json!({"type": "unsubscribe", "topic": "chat:1"}),
        "not_subscribed",
    )
    .await;
    // A slow one is told within its time, and nobody waits for it but who asked.
    backend.answer(|_| Reply::never());
    let (told, took) = {
        let began = std::time::Instant::now();
        let told = connects(&node, json!({})).await;
        (told, began.elapsed())
    };
    is(told, "unavailable", useless, 4105);
    assert!(took < Duration::from_secs(4), "{took:?}");
    let lied = "fanfare_authorizations_total{result=\"lied\"}";
    assert_eq!(node.metric(lied).await, 2);
    for event in ["authorizer_disbelieved", "authorizer_failed"] {
        node.until_told(event).await;
    }
}

#[tokio::test]
async fn secrets_are_read_again_under_load_and_no_enquiry_fails_by_that() {
    let backend =
        Backend::http(|_| Reply::json(&json!({"allow": true})).after(Duration::from_millis(2)))
            .await;
    let directory = tempfile::tempdir().expect("a temporary directory");
    let node = node(&backend.url, &directory).await;
    let url = node.connect_url(&format!("?token={}", tokens::token("ada")));
    let (mut talk, _) = Talk::welcomed(&url, Encoding::Json).await;
    let load = async {
        for number in 0..200 {
            talk.publish("chat:1", json!(number)).await;
        }
    };
    let rotation = async {
        for (count, secrets) in [vec![1, 2], vec![2], vec![2, 3], vec![3]]
            .into_iter()
            .enumerate()
        {
            write_secrets(&directory, &secrets);
            node.signal("HUP");
            wait::until_equal(count + 1, async || {
                node.log_lines("configuration_reloaded").len()
            })
            .await;
        }
    };
    tokio::join!(load, rotation);
    let signatures = |asked: &fanfare_testkit::backend::Asked| {
        let told = asked.headers["webhook-signature"].to_str();
        told.expect("text").split(' ').count()
    };
    let asked = backend.asked();
    assert_eq!(asked.len(), 201);
    assert!(
        asked.iter().any(|one| signatures(one) == 2),
        "both signed for a while"
    );
    assert_eq!(signatures(&asked[200]), 1);
    assert!(node.log_lines("configuration_ignored").is_empty());
}
