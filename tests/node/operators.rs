//! What operators see of a real node: its log, and what SIGHUP changes.

use std::process::Command;

use fanfare_protocol::form::Encoding;
use fanfare_testkit::http;
use fanfare_testkit::node::{Node, Plan};
use fanfare_testkit::raw::{Handshake, Raw};
use fanfare_testkit::redis_server::RedisServer;
use fanfare_testkit::talk::Talk;
use fanfare_testkit::tokens::{self, seconds_from_now};
use fanfare_testkit::wait;
use serde_json::{Value, json};

/// The log as JSON; a line that is none fails the test.
fn lines(node: &Node) -> Vec<Value> {
    let text = node.log_text();
    let parsed = text.lines().map(|line| {
        serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON in the log: {line}"))
    });
    parsed.collect()
}

#[tokio::test]
async fn every_line_of_the_product_names_its_event_and_node() {
    let redis = RedisServer::start().await;
    let plan = Plan::clustered("node-0", &redis.url()).env("FANFARE_DRAIN__WINDOW_MS", "0");
    let mut node = plan
        .env("FANFARE_LOG__LEVEL", "info,fanfare=trace")
        .start()
        .await;
    let (mut talk, _) = Talk::welcomed(&node.connect_url("?user=ada"), Encoding::Json).await;
    talk.refused(
        json!({"type": "subscribe", "topic": "a b"}),
        "invalid_topic",
    )
    .await;
    let mut raw = Raw::open(node.public).await;
    raw.send(
        &Handshake::to("/v1/connect")
            .with("Authorization", "Bearer a.b.c")
            .bytes(),
    )
    .await;
    assert_eq!(raw.head().await.expect("an answer").status, 401);
    let mut raw = Raw::open(node.api).await;
    raw.send(b"GET /v1/nodes HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer no\r\n\r\n")
        .await;
    assert_eq!(raw.head().await.expect("an answer").status, 401);
    node.terminate().await;
    let product = |line: &&Value| {
        line["target"]
            .as_str()
            .is_some_and(|t| t.starts_with("fanfare"))
    };
    for line in lines(&node).iter().filter(product) {
        assert!(line["event"].is_string(), "{line}");
        assert_eq!(line["node"], "node-0", "{line}");
        assert!(line.get("me").is_none(), "{line}");
    }
    let one = |event: &str| {
        node.log_lines(event)
            .pop()
            .unwrap_or_else(|| panic!("no {event}"))
    };
    assert_eq!(one("token_refused")["reason"], "not_jwt");
    assert_eq!(one("handshake_refused")["code"], "unauthorized");
    assert_eq!(one("command_refused")["code"], "invalid_topic");
    assert_eq!(one("api_key_refused")["level"], "DEBUG");
    let reasons = node.log_lines("readiness_changed");
    assert!(
        reasons.iter().all(|line| line["reasons"].is_array()),
        "{reasons:?}"
    );
    assert!(
        reasons
            .iter()
            .any(|line| line["reasons"] == json!(["the node is draining"]))
    );
}

#[tokio::test]
async fn a_clean_start_and_a_clean_stop_warn_of_nothing() {
    let redis = RedisServer::start().await;
    for plan in [Plan::dev(), Plan::clustered("node-0", &redis.url())] {
        // How fast this machine is is not asked here.
        let plan = plan.env("FANFARE_LOG__SLOW_MS", "0");
        let mut node = plan.env("FANFARE_DRAIN__WINDOW_MS", "0").start().await;
        let (mut talk, _) = Talk::welcomed(&node.connect_url("?user=ada"), Encoding::Json).await;
        talk.publish("t", json!(1)).await;
        assert_eq!(node.terminate().await.code(), Some(0));
        for line in lines(&node) {
            // What the configuration asks to think about is told at each start.
            let is_asked = line["event"] == "configuration_questioned";
            let is_calm = matches!(line["level"].as_str(), Some("INFO" | "DEBUG"));
            assert!(is_calm || is_asked, "{line}");
        }
    }
}

/// Asks the API with this credential.
async fn ask_with(node: &Node, credential: &str) {
    let head = format!("GET /v1/nodes HTTP/1.1\r\nHost: a\r\nAuthorization: {credential}\r\n\r\n");
    let mut raw = Raw::open(node.api).await;
    raw.send(head.as_bytes()).await;
    raw.head().await.expect("an answer");
}

#[tokio::test]
async fn why_a_token_is_refused_is_told_and_the_token_never() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let node = Plan::with_config(&tokens::config_file(&directory))
        .env("FANFARE_LOG__LEVEL", "trace")
        .env("FANFARE_AUTH__COOKIE", "fanfare_token")
        .env("FANFARE_AUTH__ORIGINS", "https://app.example")
        .start()
        .await;
    let good = tokens::token("ada");
    let expired = tokens::signed(&json!({"sub": "ada", "exp": seconds_from_now(-60), "iss": "me"}));
    let key = "Bearer a-key-of-the-api-that-is-wrong";
    for token in [&good, &expired] {
        let url = node.connect_url(&format!("?token={token}"));
        drop(Talk::connected(&url, Encoding::Json).await);
        let mut talk = Talk::connected(&node.connect_url(""), Encoding::Json).await;
        talk.command(json!({"type": "connect", "token": token}))
            .await;
        talk.next().await;
        talk.command(json!({"type": "refresh", "token": token}))
            .await;
        talk.command(json!({"type": "subscribe", "topic": "t", "token": token}))
            .await;
        talk.next().await;
        let cookie = format!("fanfare_token={token}");
        let handshake = || Handshake::to("/v1/connect");
        let all = [
            handshake().with("Authorization", &format!("Bearer {token}")),
            handshake()
                .with("Cookie", &cookie)
                .with("Origin", "https://app.example"),
            handshake().with("Cookie", &cookie),
            handshake().line(&format!("POST /v1/connect?token={token} HTTP/1.1")),
            handshake().line(&format!("GET /v1/connect?token={token} HTTP/1.0")),
            handshake().line(&format!("GET /v1/route?token={token} HTTP/1.1")),
            handshake()
                .with("Authorization", &format!("Bearer {token}"))
                .with("X y", "z"),
        ];
        for handshake in all {
            let mut raw = Raw::open(node.public).await;
            raw.send(&handshake.bytes()).await;
            raw.head().await.expect("an answer");
        }
    }
    ask_with(&node, key).await;
    wait::until("the refusals to be logged", async || {
        (node.log_lines("token_refused").len() >= 5).then_some(())
    })
    .await;
    let refused = node.log_lines("token_refused").into_iter();
    let mut claimed = refused.filter(|line| line["iss"] == "me").peekable();
    assert!(
        claimed.peek().is_some(),
        "no line says who issued the token"
    );
    assert!(claimed.all(|line| line["reason"] == "expired"));
    let counted = node
        .metric("fanfare_tokens_refused_total{reason=\"expired\"}")
        .await;
    assert!(counted >= 5, "{counted}");
    let metrics = http::get(node.api, "/metrics").await.text();
    let detailed = http::get(node.api, "/health/detailed").await.text();
    let told = [node.log_text(), metrics, detailed].concat();
    for secret in [&*good, &*expired, &key[7..], tokens::SECRET] {
        assert!(!told.contains(secret), "a secret is told");
    }
}

#[tokio::test]
async fn neither_a_panic_nor_the_configuration_shows_a_secret() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = tokens::config_file(&directory);
    let node = Plan::with_config(&file)
        .flag("--dev")
        .env("FANFARE_LOG__LEVEL", "trace")
        .env("RUST_BACKTRACE", "full")
        .env("PLANTED_PANIC", "session@500")
        .start()
        .await;
    let token = tokens::token("ada");
    let url = node.connect_url(&format!("?token={token}"));
    let (mut talk, _) = Talk::welcomed(&url, Encoding::Json).await;
    talk.command(json!({"type": "subscribe", "topic": "t", "token": token}))
        .await;
    wait::until("the panic", async || node.log_lines("task_panicked").pop()).await;
    let shown = Command::new(fanfare_testkit::program::fanfare())
        .args(["config", "show", "--config"])
        .arg(&file)
        .output()
        .expect("the binary runs");
    assert!(shown.status.success());
    let shown = String::from_utf8([shown.stdout, shown.stderr].concat()).expect("text");
    assert!(
        shown.contains("auth.keys") || shown.contains("hmac_secret"),
        "{shown}"
    );
    let told = node.log_text() + &shown;
    for secret in [&*token, tokens::SECRET] {
        assert!(!told.contains(secret), "a secret is told");
    }
}

#[tokio::test]
async fn the_last_words_of_a_node_are_lines_of_its_log() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("an open socket").to_string();
    let rows = [
        (
            Plan::dev(),
            address.as_str(),
            69,
            "node_failed",
            "cannot listen",
        ),
        (
            Plan::default().flag("--dev").flag("--workers=0"),
            "127.0.0.1:0",
            64,
            "configuration_refused",
            "--workers",
        ),
    ];
    for (plan, listen, code, event, says) in rows {
        let (status, told) = plan.flag("--node-id=node-0").start_refused(listen).await;
        assert_eq!(status.code(), Some(code), "{told}");
        let line: Value = serde_json::from_str(told.lines().last().expect("a line")).expect("JSON");
        assert_eq!(
            (&line["event"], &line["level"]),
            (&json!(event), &json!("ERROR")),
            "{told}"
        );
        assert_eq!(line["node"], "node-0");
        assert!(
            line["message"]
                .as_str()
                .is_some_and(|text| text.contains(says)),
            "{told}"
        );
    }
}

/// The configuration with another secret, key and level, and more at its end.
fn rewrite(directory: &tempfile::TempDir, secret: &str, key: &str, more: &str) {
    let path = directory.path().join("fanfare.toml");
    let text = format!(
        "[api]\nkeys = [\"{key}\"]\n\n[auth]\nhmac_secret = \"{secret}\"\n\n\
         [namespaces.default]\nsubscribe = \"authenticated\"\npublish = \"authenticated\"\n\
         history = \"authenticated\"\n\n{more}"
    );
    std::fs::write(path, text).expect("the directory can be written");
}

async fn is_let_in(node: &Node, token: &str) -> bool {
    let mut raw = Raw::open(node.public).await;
    let handshake = Handshake::to("/v1/connect");
    let bytes = handshake
        .with("Authorization", &format!("Bearer {token}"))
        .bytes();
    raw.send(&bytes).await;
    raw.head().await.expect("an answer").status == 101
}

#[tokio::test]
async fn sighup_changes_keys_and_level_and_cuts_no_session() {
    const OTHER: &str = "another-secret-of-the-tests-just-as-long";
    const TAKEN: &str = "fanfare_reloads_total{result=\"taken\"}";
    const REFUSED: &str = "fanfare_reloads_total{result=\"refused\"}";
    let directory = tempfile::tempdir().expect("a temporary directory");
    let node = Plan::with_config(&tokens::config_file(&directory))
        .env(fanfare_testkit::kept::OWN_LEVEL, "1")
        .start()
        .await;
    let (old, claims) = (
        tokens::token("ada"),
        json!({"sub": "ada", "exp": seconds_from_now(600)}),
    );
    let new = tokens::signed_with(&claims, "HS256", OTHER);
    let url = node.connect_url(&format!("?token={old}"));
    let (mut talk, _) = Talk::welcomed(&url, Encoding::Json).await;
    assert!(is_let_in(&node, &old).await && !is_let_in(&node, &new).await);
    assert!(
        node.log_lines("token_refused").is_empty(),
        "the level is info"
    );

    let more = "[log]\nlevel = \"info,fanfare=debug\"\n\n[session]\npage_max = 7\n";
    rewrite(&directory, OTHER, "other-key", more);
    node.signal("HUP");
    wait::until("the new keys", async || {
        (node.metric(TAKEN).await == 1).then_some(())
    })
    .await;
    assert!(is_let_in(&node, &new).await && !is_let_in(&node, &old).await);
    assert_eq!(
        http::get(node.api, "/v1/nodes").await.status,
        401,
        "the old key of the API"
    );
    let mut raw = Raw::open(node.api).await;
    raw.send(b"GET /v1/nodes HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer other-key\r\n\r\n")
        .await;
    assert_eq!(raw.head().await.expect("an answer").status, 200);
    wait::until("the new level", async || {
        node.log_lines("token_refused").pop()
    })
    .await;
    let ignored = node.until_told("configuration_ignored").await;
    assert_eq!(
        ignored[0]["keys"],
        json!(["session.page_max"]),
        "{ignored:?}"
    );
    talk.publish("t", json!(1)).await;
    talk.refused(json!({"type": "refresh", "token": old}), "unauthorized")
        .await;

    rewrite(&directory, "too short", "third-key", "");
    node.signal("HUP");
    wait::until("the refusal", async || {
        (node.metric(REFUSED).await == 1).then_some(())
    })
    .await;
    let refused = node.until_told("configuration_refused").await;
    assert_eq!(refused[0]["level"], "ERROR", "{refused:?}");
    assert!(
        !node.log_text().contains("too short"),
        "the log shows a secret"
    );
    assert!(is_let_in(&node, &new).await, "the keys before stay");
}

/// Runs `serve` with arguments that it does not have; its exit code and what it says.
fn misused(format: &str) -> (Option<i32>, String) {
    let output = Command::new(fanfare_testkit::program::fanfare())
        .args(["serve", "--no-such-flag"])
        .env("FANFARE_LOG__FORMAT", format)
        .output()
        .expect("the binary runs");
    let said = String::from_utf8(output.stderr).expect("text");
    (output.status.code(), said)
}

#[test]
fn a_fault_of_usage_is_one_line_of_a_json_log() {
    let (code, said) = misused("json");
    assert_eq!(code, Some(64), "{said}");
    let line: Value = serde_json::from_str(&said).expect("one line of JSON");
    assert_eq!(line["event"], "configuration_refused");
    assert!(
        line["message"]
            .as_str()
            .is_some_and(|m| m.contains("--no-such-flag")),
        "{line}"
    );
    let (code, said) = misused("text");
    assert_eq!(code, Some(64));
    assert!(said.starts_with("error: "), "{said}");
}

/// The configuration is a pipe: the node waits in the middle of its start until it is written.
#[tokio::test]
async fn sighup_ends_no_node_that_is_starting() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let pipe = directory.path().join("fanfare.toml");
    let made = Command::new("mkfifo").arg(&pipe).status();
    assert!(made.expect("mkfifo").success());
    let log = directory.path().join("log");
    let mut node = Command::new(fanfare_testkit::program::unkept())
        .args([
            "serve",
            "--dev",
            "--listen",
            "127.0.0.1:0",
            "--api-listen",
            "127.0.0.1:0",
        ])
        .arg("--config")
        .arg(&pipe)
        .env_remove(fanfare_testkit::kept::KEEP)
        .stderr(std::fs::File::create(&log).expect("a log"))
        .spawn()
        .expect("the binary runs");
    let hangup = format!("kill -HUP {}", node.id());
    std::thread::spawn(move || {
        // It is open when the node has opened it too: at its start, and for the signal.
        let open = || std::fs::OpenOptions::new().write(true).open(&pipe);
        let at_start = open().expect("the node opens it");
        let sent = Command::new("sh").args(["-c", &hangup]).status();
        assert!(sent.expect("a shell").success());
        drop(at_start);
        // Ends with the directory.
        while open().is_ok() {}
    });
    wait::until("the node to start and to read it again", async || {
        let said = std::fs::read_to_string(&log).expect("a log");
        let has = |event: &str| said.contains(&format!("\"{event}\""));
        (has("node_started") && has("configuration_reloaded")).then_some(())
    })
    .await;
    node.kill().expect("it runs");
    node.wait().expect("it ends");
}

/// The password of Redis, right and wrong, percent-encoded in its address and not.
#[tokio::test]
async fn no_password_of_redis_is_told_whether_it_is_right_or_wrong() {
    const RIGHT: &str = "right p@ssword of redis";
    const WRONG: &str = "wrong-password-of-redis";
    let redis = RedisServer::start().await;
    let set = redis.command(&["CONFIG", "SET", "requirepass", RIGHT]);
    assert_eq!(set.as_deref(), Some("+OK"));
    let encoded = RIGHT.replace(' ', "%20").replace('@', "%40");
    let with = |password: &str| {
        redis
            .url()
            .replace("redis://", &format!("redis://:{password}@"))
    };
    let trace = |name, password: &str| {
        let plan = Plan::clustered(name, &with(password));
        plan.env("FANFARE_LOG__LEVEL", "trace")
    };
    let right = trace("right", &encoded).start().await;
    let wrong = trace("wrong", WRONG).start_unready().await;
    wait::until("the refusal", async || {
        wrong.log_text().contains("WRONGPASS").then_some(())
    })
    .await;
    let health = http::get(wrong.api, "/health/detailed").await.text();
    let told = [right.log_text(), wrong.log_text(), health].concat();
    for secret in [RIGHT, &encoded, WRONG] {
        assert!(!told.contains(secret), "a password is told");
    }
}
