//! The table of refusals on both listeners of a real node: status, code, headers and body.
//!
//! Every answer has a JSON body with its code, also where the HTTP parser itself refuses.

use std::net::SocketAddr;

use fanfare_testkit::beside::Beside;
use fanfare_testkit::node::{Node, Plan};
use fanfare_testkit::raw::{Handshake, Head, Raw};
use fanfare_testkit::tokens::{self, seconds_from_now};
use serde_json::{Value, json};

/// Which listener is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    Public,
    Api,
    Both,
}

/// What is asked, and what must come: status, code, and headers by name and beginning.
struct Row {
    what: &'static str,
    at: At,
    request: Vec<u8>,
    status: u16,
    code: &'static str,
    headers: &'static [(&'static str, &'static str)],
}

fn row(
    what: &'static str,
    at: At,
    request: impl Into<Vec<u8>>,
    (status, code): (u16, &'static str),
    headers: &'static [(&'static str, &'static str)],
) -> Row {
    let request = request.into();
    Row {
        what,
        at,
        request,
        status,
        code,
        headers,
    }
}

/// A request without a body.
fn get(target: &str, headers: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: fanfare.test\r\n{headers}\r\n")
}

/// A publication by a caller of the API.
fn post(headers: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "POST /v1/publish HTTP/1.1\r\nHost: fanfare.test\r\nAuthorization: Bearer dev\r\n\
         Content-Length: {length}\r\n{headers}\r\n{body}"
    )
}

const PUBLICATION: &str = r#"{"topic":"t","data":1}"#;
const CLOSE: (&str, &str) = ("connection", "close");
const CHALLENGE: (&str, &str) = ("www-authenticate", "Bearer");
const BAD_TOKEN: (&str, &str) = (
    "www-authenticate",
    "Bearer error=\"invalid_token\", error_desc",
);

async fn answered(to: SocketAddr, request: &[u8], what: &str) -> (Head, Value) {
    let mut raw = Raw::open(to).await;
    raw.send(request).await;
    let answer = raw.answer().await;
    let (head, body) = answer.unwrap_or_else(|| panic!("{what}: hung up without an answer"));
    let value = serde_json::from_slice(&body).unwrap_or_else(|_| {
        panic!(
            "{what}: no JSON: {head:?} {}",
            String::from_utf8_lossy(&body)
        )
    });
    (head, value)
}

async fn assert_refused(node: &Node, rows: &[Row]) {
    for Row {
        what,
        at,
        request,
        status,
        code,
        headers,
    } in rows
    {
        let listeners = [(At::Public, node.public), (At::Api, node.api)];
        for (listener, to) in listeners {
            if *at != At::Both && *at != listener {
                continue;
            }
            let what = format!("{what} at {listener:?}");
            let (head, body) = answered(to, request, &what).await;
            let error = &body["error"];
            assert_eq!(
                (head.status, &error["code"]),
                (*status, &json!(code)),
                "{what}: {body}"
            );
            assert!(
                error["message"].as_str().is_some_and(|m| !m.is_empty()),
                "{what}: {body}"
            );
            assert_eq!(
                head.header("content-type"),
                Some("application/json"),
                "{what}"
            );
            assert_eq!(head.header("cache-control"), Some("no-store"), "{what}");
            for (name, value) in *headers {
                let is = head.header(name);
                assert!(
                    is.is_some_and(|is| is.starts_with(value)),
                    "{what}: {name}: {is:?}"
                );
            }
            let keyed = [
                ("www-authenticate", *status == 401),
                ("retry-after", matches!(*status, 429 | 503)),
                ("allow", *status == 405),
                ("sec-websocket-version", *status == 426),
            ];
            for (name, wanted) in keyed {
                assert_eq!(head.header(name).is_some(), wanted, "{what}: {name}");
            }
        }
    }
}

#[rustfmt::skip]
fn rows_of_paths() -> Vec<Row> {
    let connect = Handshake::to("/v1/connect");
    let post = "POST /health/live HTTP/1.1\r\nHost: a\r\n\r\n";
    let trace = "TRACE /health/live HTTP/1.1\r\nHost: a\r\n\r\n";
    let keyed = get("/v1/publish", "Authorization: Bearer dev\r\n");
    let not_found = (404, "not_found");
    let no_method = (405, "method_not_allowed");
    let upgrade: &[_] = &[("upgrade", "websocket"), ("connection", "Upgrade"), ("sec-websocket-version", "13")];
    vec![
        row("no such path", At::Both, get("/v1/nothing", ""), not_found, &[]),
        row("a slash too much", At::Both, get("//health/live", ""), not_found, &[]),
        row("a way up", At::Both, get("/v1/../health/live", ""), not_found, &[]),
        row("another method", At::Both, post, no_method, &[("allow", "GET")]),
        row("TRACE", At::Both, trace, no_method, &[("allow", "GET")]),
        row("GET for POST", At::Api, keyed, no_method, &[("allow", "POST")]),
        row("POST to the sessions", At::Public, connect.line("POST /v1/connect HTTP/1.1").bytes(), no_method, &[("allow", "GET, HEAD")]),
        row("no upgrade", At::Public, get("/v1/connect", ""), (426, "upgrade_required"), upgrade),
    ]
}

#[rustfmt::skip]
fn rows_of_credentials() -> Vec<Row> {
    let expired = tokens::signed(&json!({"sub": "ada", "exp": seconds_from_now(-60)}));
    let of_bytes = b"GET /v1/route HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer \xfc\r\n\r\n";
    let connect = |value: &str| Handshake::to("/v1/connect").with("Authorization", value).bytes();
    let with = |path, value: &str| get(path, &format!("Authorization: {value}\r\n"));
    let (bearer, none) = (format!("bearer {expired}"), (401, "unauthorized"));
    vec![
        row("a bad token", At::Public, connect("Bearer no"), none, &[BAD_TOKEN]),
        row("an empty token", At::Public, connect("Bearer"), none, &[BAD_TOKEN]),
        row("two tokens", At::Public, with("/v1/route", "Bearer a\r\nAuthorization: Bearer b"), none, &[BAD_TOKEN]),
        row("two tokens in the query", At::Public, get("/v1/route?token=a&token=b", ""), none, &[BAD_TOKEN]),
        row("two sessions in one", At::Public, Handshake::to("/v1/connect?token=a&token=b").bytes(), none, &[BAD_TOKEN]),
        row("two heartbeats", At::Public, Handshake::to("/v1/connect?heartbeat=app&heartbeat=ws").bytes(), (400, "bad_request"), &[]),
        row("an expired token", At::Public, connect(&bearer), (401, "token_expired"), &[BAD_TOKEN]),
        row("a token of bytes", At::Public, of_bytes, none, &[BAD_TOKEN]),
        row("a home without a token", At::Public, get("/v1/route", ""), none, &[CHALLENGE]),
        row("a home by an expired token", At::Public, with("/v1/route", &bearer), (401, "token_expired"), &[BAD_TOKEN]),
        row("no key", At::Api, get("/v1/nodes", ""), none, &[CHALLENGE]),
        row("another scheme", At::Api, with("/v1/nodes", "Basic x"), none, &[CHALLENGE]),
        row("a wrong key", At::Api, with("/v1/nodes", "Bearer x"), none, &[BAD_TOKEN]),
    ]
}

#[rustfmt::skip]
fn rows_of_bodies() -> Vec<Row> {
    const TYPE: &str = "Content-Type: application/json\r\n";
    let coded = post(&format!("{TYPE}Content-Encoding: gzip\r\n"), PUBLICATION);
    let unsupported = (415, "unsupported_media_type");
    let unknown = post(TYPE, r#"{"topic":"t","data":1,"ttl":5}"#);
    let lmit = get("/v1/topics?lmit=5", "Authorization: Bearer dev\r\n");
    let long = post(TYPE, &" ".repeat(9 * 1024 * 1024));
    vec![
        row("a body without a type", At::Api, post("", PUBLICATION), unsupported, &[("accept", "application/json"), CLOSE]),
        row("a coded body", At::Api, coded, unsupported, &[("accept-encoding", "identity"), CLOSE]),
        row("too long a body", At::Api, long, (413, "too_large"), &[CLOSE]),
        row("a field that is none", At::Api, unknown, (400, "bad_request"), &[]),
        row("a parameter that is none", At::Api, lmit, (400, "bad_request"), &[]),
    ]
}

#[rustfmt::skip]
fn rows_of_the_parser() -> Vec<Row> {
    let many: String = (0..300).map(|n| format!("X-{n}: 1\r\n")).collect();
    let with = |headers: &str| format!("GET /health/live HTTP/1.1\r\n{headers}\r\n");
    let long = with(&format!("Host: a\r\nX: {}\r\n", "x".repeat(500 * 1024)));
    let (bad, large) = ((400, "bad_request"), (431, "too_large"));
    let both = "Host: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n";
    vec![
        row("no Host", At::Both, with(""), bad, &[CLOSE]),
        row("two Hosts", At::Both, with("Host: a\r\nHost: a\r\n"), bad, &[CLOSE]),
        row("a Host that is none", At::Both, with("Host: a b\r\n"), bad, &[CLOSE]),
        row("a length and chunks", At::Public, with(both), bad, &[CLOSE]),
        row("a length that is none", At::Both, with("Host: a\r\nContent-Length: x\r\n"), bad, &[CLOSE]),
        row("a name with a blank", At::Both, with("Host : a\r\n"), bad, &[CLOSE]),
        row("no HTTP", At::Both, "EHLO a\r\n\r\n", bad, &[CLOSE]),
        row("another HTTP", At::Both, "GET / HTTP/3.0\r\n\r\n", bad, &[CLOSE]),
        row("300 headers", At::Both, with(&format!("Host: a\r\n{many}")), large, &[CLOSE]),
        row("a long header", At::Both, long, large, &[CLOSE]),
        row("a body", At::Public, with("Host: a\r\nContent-Length: 1\r\n") + "x", bad, &[CLOSE]),
    ]
}

#[tokio::test]
async fn both_listeners_refuse_by_one_table() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let plan = Plan::with_config(&tokens::config_file(&directory));
    let node = plan.start().await;
    for rows in [rows_of_paths(), rows_of_credentials(), rows_of_bodies()] {
        assert_refused(&node, &rows).await;
    }
}

#[tokio::test]
async fn what_is_no_http_is_refused_with_a_body() {
    let node = Plan::dev().start().await;
    let beside = Beside::start(&node, "?user=good").await;
    assert_refused(&node, &rows_of_the_parser()).await;
    // Chunks outrank a length, and what follows is not believed (RFC 9112, section 6.1).
    let smuggled = "POST /v1/publish HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n\
                    Authorization: Bearer dev\r\nContent-Length: 5\r\n\
                    Transfer-Encoding: chunked\r\n\r\n16\r\n{\"topic\":\"t\",\"data\":1}\r\n0\r\n\r\n\
                    GET /v1/nodes HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut raw = Raw::open(node.api).await;
    raw.send(smuggled.as_bytes()).await;
    let (head, _) = raw.answer().await.expect("an answer");
    assert_eq!(
        (head.status, head.header("connection")),
        (200, Some("close"))
    );
    assert!(raw.head().await.is_none(), "a second request was served");
    let target = get(&format!("/{}", "x".repeat(70_000)), "");
    for to in [node.public, node.api] {
        let (head, body) = answered(to, target.as_bytes(), "a long target").await;
        assert!(matches!(head.status, 414 | 431), "{head:?}");
        assert_eq!(body["error"]["code"], "too_large");
    }
    beside.unharmed().await;
}

#[tokio::test]
async fn a_head_that_comes_too_slowly_is_told_so() {
    let node = Plan::dev()
        .env("FANFARE_SERVER__HANDSHAKE_TIMEOUT_MS", "300")
        .start()
        .await;
    let row = row(
        "half a head",
        At::Public,
        "GET / HT",
        (408, "request_timeout"),
        &[CLOSE],
    );
    assert_refused(&node, &[row]).await;
    let mut silent = Raw::open(node.public).await;
    assert!(silent.head().await.is_none(), "nobody asked anything");
}

#[tokio::test]
async fn probes_answer_alike_on_both_listeners() {
    let node = Plan::dev().start().await;
    let requests = [
        "GET /health/PROBE HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        "GET /health/PROBE HTTP/1.0\r\n\r\n",
        "GET /health/PROBE?x=1 HTTP/1.1\r\nHost:\r\n\r\n",
        "GET http://b.example/health/PROBE HTTP/1.1\r\nHost: a\r\n\r\n",
    ];
    for to in [node.public, node.api] {
        for request in requests {
            for (probe, key) in [("live", "live"), ("ready", "ready")] {
                let request = request.replace("PROBE", probe);
                let (head, body) = answered(to, request.as_bytes(), &request).await;
                assert_eq!(head.status, 200, "{request}");
                assert_eq!(body[key], true, "{request}: {body}");
                let reasons = (probe == "ready" && to == node.api).then(|| json!([]));
                assert_eq!(body.get("reasons"), reasons.as_ref(), "{request}: {body}");
            }
        }
    }
    let paths: [(SocketAddr, &[&str]); 2] = [
        (node.public, &["/", "/health/live", "/health/ready"]),
        (
            node.api,
            &[
                "/health",
                "/health/live",
                "/health/ready",
                "/health/detailed",
                "/metrics",
                "/openapi.json",
            ],
        ),
    ];
    for (to, paths) in paths {
        for path in paths {
            let mut raw = Raw::open(to).await;
            for method in ["HEAD", "GET"] {
                let request = format!("{method} {path} HTTP/1.1\r\nHost: a\r\n\r\n");
                raw.send(request.as_bytes()).await;
                let head = raw.head().await.expect("an answer");
                assert_eq!(head.status, 200, "{method} {path}");
                assert!(head.header("content-type").is_some(), "{method} {path}");
            }
        }
    }
}

#[tokio::test]
async fn the_last_answer_arrives_before_the_rest_of_a_body() {
    let node = Plan::dev().start().await;
    let length = 4 * 1024 * 1024;
    let head = format!(
        "POST /v1/publish HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\n\r\n"
    );
    let request = [head.as_bytes(), &vec![b' '; length]].concat();
    for _ in 0..5 {
        let (head, _) = answered(node.api, &request, "a body without a key").await;
        assert_eq!(head.status, 401);
        assert_eq!(head.header("connection"), Some("close"));
    }
}

/// The head of a publication whose body is still to come.
fn announced(headers: &str, length: usize) -> String {
    format!(
        "POST /v1/publish HTTP/1.1\r\nHost: a\r\n{headers}Content-Type: application/json\r\n\
         Content-Length: {length}\r\n\r\n"
    )
}

#[tokio::test]
async fn a_body_whose_head_is_refused_is_not_asked_for() {
    const KEY: &str = "Authorization: Bearer dev\r\n";
    const WAITS: &str = "Expect: 100-continue\r\n";
    let node = Plan::dev().start().await;
    let coded = format!("{WAITS}{KEY}Content-Encoding: gzip\r\n");
    let rows = [
        ("no key", WAITS.to_owned(), 22, 401),
        ("a coded body", coded, 22, 415),
        ("too long a body", format!("{WAITS}{KEY}"), 9 << 20, 413),
    ];
    for (what, headers, length, status) in rows {
        let request = announced(&headers, length);
        let (head, _) = answered(node.api, request.as_bytes(), what).await;
        assert_eq!(head.status, status, "{what}");
    }
    let mut raw = Raw::open(node.api).await;
    let request = announced(&format!("{WAITS}{KEY}"), PUBLICATION.len());
    raw.send(request.as_bytes()).await;
    assert_eq!(raw.head().await.map(|head| head.status), Some(100));
    raw.send(PUBLICATION.as_bytes()).await;
    assert_eq!(raw.answer().await.map(|(head, _)| head.status), Some(200));
}

#[tokio::test]
async fn a_body_that_comes_in_pieces_is_read_whole() {
    let node = Plan::dev().start().await;
    let data = "x".repeat(60_000);
    let body = format!(r#"{{"topic":"t","data":"{data}"}}"#);
    let request = announced("Authorization: Bearer dev\r\n", body.len()) + &body;
    let head_bytes = request.len() - body.len();
    let mut raw = Raw::open(node.api).await;
    // All at once, the head alone, and parts of the body behind it.
    for cuts in [
        &[][..],
        &[head_bytes],
        &[head_bytes + 1, head_bytes + 30_000],
    ] {
        let mut sent = 0;
        for &cut in cuts.iter().chain([&request.len()]) {
            raw.send(&request.as_bytes()[sent..cut]).await;
            sent = cut;
            // Whoever is answered came behind the piece.
            answered(node.api, get("/health/live", "").as_bytes(), "a probe").await;
        }
        let (head, body) = raw.answer().await.expect("an answer");
        assert_eq!(head.status, 200, "{cuts:?}: {body:?}");
    }
}
