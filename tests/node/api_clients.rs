//! Callers of a real node's API: keys in a file that changes, wrong keys by their address, and what is
//! written down of an act in Redis and in the log.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::Instant;

use bytes::Bytes;
use fanfare::config::api_clients::hash_of;
use fanfare::node::reload::LOOK_EVERY;
use fanfare_testkit::http::{self, Answer};
use fanfare_testkit::node::Plan;
use fanfare_testkit::redis_server::RedisServer;
use fanfare_testkit::wait;
use http_body_util::Full;
use hyper::{Method, Request};

/// A call with this key.
async fn call(to: SocketAddr, key: &str, (method, path): (&str, &str)) -> Answer {
    let request = Request::builder()
        .method(Method::from_bytes(method.as_bytes()).expect("a method"))
        .uri(path)
        .header("authorization", format!("Bearer {key}"))
        .body(Full::<Bytes>::default())
        .expect("a valid request");
    http::send(to, request).await.expect("the node answers")
}

async fn is_taken(to: SocketAddr, key: &str) -> bool {
    call(to, key, ("GET", "/v1/nodes")).await.status == 200
}

#[tokio::test]
async fn a_file_of_keys_that_changes_is_taken_up_and_a_bad_one_is_not() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("keys");
    std::fs::write(&path, "first-key-of-the-file\n").expect("a file");
    let plan = Plan::dev().env("FANFARE_API__KEYS_FILE", &path.display().to_string());
    let node = plan.start().await;
    assert!(is_taken(node.api, "first-key-of-the-file").await);
    assert!(is_taken(node.api, http::DEV_KEY).await);

    let changed_at = Instant::now();
    std::fs::write(&path, "second-key-of-the-file\n").expect("a file");
    wait::until("the second key", async || {
        is_taken(node.api, "second-key-of-the-file").await
    })
    .await;
    let took = changed_at.elapsed();
    println!("a changed file of keys was taken up after {took:?}");
    assert!(took < 2 * LOOK_EVERY, "{took:?}");
    assert!(!is_taken(node.api, "first-key-of-the-file").await);
    assert!(is_taken(node.api, http::DEV_KEY).await);

    std::fs::write(&path, "no key at all\n").expect("a file");
    let told = node.until_told("configuration_refused").await;
    let fault = told[0]["fault"].as_str().expect("a text");
    assert!(fault.contains("which has in line 1 no key"), "{fault}");
    assert!(!node.log_text().contains("at all"), "it shows no key");
    assert!(
        is_taken(node.api, "second-key-of-the-file").await,
        "the old one stays"
    );

    std::fs::remove_file(&path).expect("it was there");
    wait::until("the second fault", async || {
        node.log_lines("configuration_refused").len() == 2
    })
    .await;
    assert!(is_taken(node.api, "second-key-of-the-file").await);
    std::fs::write(&path, "third-key-of-the-file\n").expect("a file");
    wait::until("the third key", async || {
        is_taken(node.api, "third-key-of-the-file").await
    })
    .await;
    assert_eq!(
        node.log_lines("configuration_refused").len(),
        2,
        "each told once"
    );
}

#[tokio::test]
async fn wrong_keys_of_an_address_are_too_many_and_a_right_one_is_taken() {
    let node = Plan::dev().start().await;
    for n in 0..20 {
        let answer = call(node.api, &format!("wrong-{n}"), ("GET", "/v1/nodes")).await;
        assert_eq!(answer.status, 401, "{n}");
    }
    let answer = call(node.api, "wrong", ("GET", "/v1/nodes")).await;
    assert_eq!(answer.status, 429);
    assert_eq!(answer.json()["error"]["code"], "rate_limited");
    let wait = answer.headers["retry-after"].to_str().expect("digits");
    let wait: u64 = wait.parse().expect("seconds");
    assert!((1..=60).contains(&wait), "{wait}");
    assert!(is_taken(node.api, http::DEV_KEY).await);
    let name = "fanfare_api_refused_total{reason=\"wrong_key\"}";
    assert_eq!(node.metric(name).await, 21);
    let name = "fanfare_api_refused_total{reason=\"too_many\"}";
    assert_eq!(node.metric(name).await, 1);
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _infallible = write!(text, "{byte:02x}");
        text
    })
}

#[tokio::test]
async fn an_act_stands_in_redis_and_in_the_log_before_it_is_done() {
    let mut redis = RedisServer::start().await;
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("fanfare.toml");
    let hash = hex(&hash_of(b"support-key"));
    let text = format!(
        "[[api.clients]]\nname = \"support\"\nkey_sha256 = \"{hash}\"\nscopes = [\"users\"]\n"
    );
    std::fs::write(&path, text).expect("a file");
    let plan = Plan::clustered("node-0", &redis.url());
    let config = format!("--config={}", path.display());
    let node = plan.flag(&config).start().await;
    let answer = call(
        node.api,
        "support-key",
        ("POST", "/v1/users/ada/disconnect"),
    )
    .await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let answer = call(node.api, "support-key", ("GET", "/v1/nodes")).await;
    assert_eq!(answer.status, 403, "it has one scope");
    let told = node.until_told("call_audited").await;
    for (field, value) in [
        ("client", "support"),
        ("app", "default"),
        ("operation", "disconnect"),
        ("about", r#"{"user":"ada"}"#),
        ("address", "127.0.0.1"),
    ] {
        assert_eq!(told[0][field], value, "{told:?}");
    }
    let audit = call(node.api, http::DEV_KEY, ("GET", "/v1/audit"))
        .await
        .json();
    assert_eq!(audit["entries"][0]["client"], "support", "{audit}");
    let kept = redis
        .ask(&["XRANGE", "ff:audit", "-", "+"])
        .expect("Redis answers");
    for text in ["attempted", "support", r#"{"user":"ada"}"#, "127.0.0.1"] {
        assert!(kept.iter().any(|one| one == text), "{text} in {kept:?}");
    }

    redis.kill();
    wait::until("the loss", async || {
        let answer = call(
            node.api,
            "support-key",
            ("POST", "/v1/users/bob/disconnect"),
        )
        .await;
        (answer.status == 503).then_some(())
    })
    .await;
    let told = node.until_told("audit_refused").await;
    assert_eq!(told[0]["about"], r#"{"user":"bob"}"#, "{told:?}");
    let answer = call(node.api, http::DEV_KEY, ("POST", "/v1/nodes/node-0/drain")).await;
    assert_eq!(answer.status, 200, "a node may leave: {}", answer.text());
}
