//! What the configuration opens and closes at the door of a real node: tokens by header, query and
//! cookie, pings as events, homes, the development page, and bounds at other values than usual.

use std::time::Duration;

use fanfare_protocol::form::Encoding;
use fanfare_testkit::http;
use fanfare_testkit::node::{Node, Plan};
use fanfare_testkit::raw::{Handshake, PING, Raw, TEXT};
use fanfare_testkit::redis_server::RedisServer;
use fanfare_testkit::talk::Talk;
use fanfare_testkit::tokens;
use serde_json::{Value, json};

const ORIGIN: &str = "https://app.example";

async fn with_cookie(directory: &tempfile::TempDir) -> Node {
    Plan::with_config(&tokens::config_file(directory))
        .env("FANFARE_AUTH__COOKIE", "fanfare_token")
        .env("FANFARE_AUTH__ORIGINS", ORIGIN)
        .start()
        .await
}

/// Opens with a handshake whose header lines may be of any bytes, and returns status and user.
async fn opened(node: &Node, query: &str, lines: &[&[u8]]) -> (u16, Value) {
    let mut bytes = Handshake::to(&format!("/v1/connect{query}")).bytes();
    bytes.truncate(bytes.len() - 2);
    for line in lines {
        bytes.extend([line, &b"\r\n"[..]].concat());
    }
    bytes.extend(b"\r\n");
    let mut raw = Raw::open(node.public).await;
    raw.send(&bytes).await;
    let head = raw.head().await.expect("an answer");
    if head.status != 101 {
        return (head.status, Value::Null);
    }
    let welcome = raw.receive_json().await;
    assert_eq!(welcome["type"], "welcome", "{welcome}");
    (101, welcome["user"].clone())
}

#[tokio::test]
async fn a_foreign_page_is_told_no_home_and_of_two_cookies_none_is_believed() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let node = with_cookie(&directory).await;
    let cookie = |user: &str| format!("fanfare_token={}", tokens::token(user));
    let origin = format!("Origin: {ORIGIN}\r\n");
    let one = cookie("ada");
    let two = format!("{}; {one}", cookie("eve"));
    for (origin, cookie, status) in [
        (origin.as_str(), &one, 200),
        ("", &one, 200),
        ("Origin: https://evil.example\r\n", &one, 403),
        (origin.as_str(), &two, 401),
    ] {
        let request =
            format!("GET /v1/route HTTP/1.1\r\nHost: a\r\nCookie: {cookie}\r\n{origin}\r\n");
        let mut raw = Raw::open(node.public).await;
        raw.send(request.as_bytes()).await;
        let head = raw.head().await.expect("an answer");
        assert_eq!(head.status, status, "{origin}");
    }
}

#[tokio::test]
async fn a_cookie_is_a_token_with_a_listed_origin_only() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let node = with_cookie(&directory).await;
    let token = tokens::token("ada");
    let cookie = format!("Cookie: theme=dark; fanfare_token={token}").into_bytes();
    let origin = format!("Origin: {ORIGIN}").into_bytes();
    let ada = (101, json!("ada"));
    let refused = (403, Value::Null);
    assert_eq!(opened(&node, "", &[&cookie, &origin]).await, ada);
    assert_eq!(opened(&node, "", &[&cookie]).await, refused);
    let foreign = b"Origin: https://evil.example";
    assert_eq!(opened(&node, "", &[&cookie, foreign]).await, refused);
    let by_query = format!("?token={}", tokens::token("bob"));
    let bob = (101, json!("bob"));
    assert_eq!(opened(&node, &by_query, &[]).await, bob);
    assert_eq!(opened(&node, &by_query, &[&cookie]).await, bob);
    let mut raw = Raw::open(node.public).await;
    let request = [
        b"GET /v1/route HTTP/1.1\r\nHost: a\r\n",
        &*cookie,
        b"\r\n\r\n",
    ]
    .concat();
    raw.send(&request).await;
    assert_eq!(raw.answer().await.expect("an answer").0.status, 200);
}

#[tokio::test]
async fn a_neighbour_of_any_kind_hides_no_token() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let node = with_cookie(&directory).await;
    let token = tokens::token("ada");
    let by_query = format!("?x=%FF&token={token}&y=%zz");
    let by_header = format!("Authorization: bearer  {token}").into_bytes();
    let origin = format!("Origin: {ORIGIN}").into_bytes();
    let cookie =
        |before: &[u8]| [b"Cookie: ", before, b"fanfare_token=", token.as_bytes()].concat();
    let strangers: [&[u8]; 5] = [
        b"Authorization: Basic dXNlcjpwYXNz",
        b"Authorization: Negotiate J\xfcrgen",
        b"Authorization:",
        b"X-Name: J\xfcrgen",
        b"Sec-WebSocket-Extensions: \xff",
    ];
    let ada = (101, json!("ada"));
    for stranger in strangers {
        let what = String::from_utf8_lossy(stranger);
        assert_eq!(opened(&node, &by_query, &[stranger]).await, ada, "{what}");
        assert_eq!(
            opened(&node, "", &[stranger, &by_header]).await,
            ada,
            "{what}"
        );
        let all = [stranger, &cookie(b""), &origin];
        assert_eq!(opened(&node, "", &all).await, ada, "{what}");
    }
    let before: [&[u8]; 4] = [
        b"n=J\xfcrgen; ",
        b"q=\"a; b\"; ",
        b"e=a=b; ",
        b"xfanfare_token=1; ",
    ];
    for before in before {
        let what = String::from_utf8_lossy(before);
        assert_eq!(
            opened(&node, "", &[&cookie(before), &origin]).await,
            ada,
            "{what}"
        );
    }
    let apart: [&[u8]; 3] = [b"Cookie: n=J\xfcrgen", &cookie(b""), &origin];
    assert_eq!(opened(&node, "?token=", &apart).await, ada);
    // The API's key among the same neighbours.
    for stranger in strangers {
        let request = [
            b"GET /v1/nodes HTTP/1.1\r\nHost: a\r\n",
            stranger,
            b"\r\nAuthorization: Bearer dev\r\n\r\n",
        ]
        .concat();
        let mut raw = Raw::open(node.api).await;
        raw.send(&request).await;
        let (head, _) = raw.answer().await.expect("an answer");
        assert_eq!(head.status, 200, "{}", String::from_utf8_lossy(stranger));
    }
}

#[tokio::test]
async fn pings_come_as_events_where_the_query_says_so() {
    let node = Plan::dev()
        .env("FANFARE_SESSION__PING_MS", "200")
        .start()
        .await;
    for (query, opcode) in [("?user=ada&heartbeat=app", TEXT), ("?user=ada", PING)] {
        let mut raw = Raw::upgraded(node.public, &format!("/v1/connect{query}")).await;
        assert_eq!(raw.receive_json().await["type"], "welcome");
        let frame = raw.receive().await.expect("a sign of life");
        assert_eq!(frame.opcode(), opcode, "{query}");
        if opcode == TEXT {
            let event: Value = serde_json::from_slice(&frame.payload).expect("JSON");
            assert_eq!(event, json!({"type": "ping"}));
        }
    }
}

#[tokio::test]
async fn a_node_that_was_stopped_for_longer_than_a_pong_may_take_ends_nobody_for_it() {
    let node = Plan::dev()
        .env("FANFARE_SESSION__PING_MS", "500")
        .env("FANFARE_SESSION__PONG_MS", "2500")
        .start()
        .await;
    let (mut talk, _) = Talk::welcomed(&node.connect_url("?user=ada"), Encoding::Json).await;
    node.signal("STOP");
    tokio::time::sleep(Duration::from_secs(4)).await;
    node.signal("CONT");
    // The node looks at its deadlines before it hears the client.
    tokio::time::sleep(Duration::from_millis(700)).await;
    talk.ok(json!({"type": "ping"})).await;
}

#[tokio::test]
async fn the_advertised_address_is_told_wherever_a_home_is() {
    for url in [Some("wss://node-0.example.com"), None] {
        let flag = url.map(|url| format!("--advertise={url}"));
        let plan = flag.iter().fold(Plan::dev(), |plan, flag| plan.flag(flag));
        let node = plan.flag("--node-id=node-0").start().await;
        let (_talk, welcome) = Talk::welcomed(&node.connect_url("?user=ada"), Encoding::Json).await;
        assert_eq!(
            welcome["home"].get("url").and_then(Value::as_str),
            url,
            "{welcome}"
        );
        let public = http::get(node.public, "/v1/route?user=ada").await;
        assert_eq!(public.status, 401, "the key of the API is no token");
        let mut raw = Raw::open(node.public).await;
        raw.send(b"GET /v1/route?user=ada HTTP/1.1\r\nHost: a\r\n\r\n")
            .await;
        let (_, public) = raw.answer().await.expect("an answer");
        let public: Value = serde_json::from_slice(&public).expect("JSON");
        let api = http::get(node.api, "/v1/route?user=ada").await.json();
        assert_eq!(public, api, "both listeners tell the same home");
        assert_eq!(api["node"], "node-0");
        assert_eq!(api.get("url").and_then(Value::as_str), url, "{api}");
        let nodes = http::get(node.api, "/v1/nodes").await.json();
        assert_eq!(nodes["nodes"][0].get("url").and_then(Value::as_str), url);
    }
}

#[tokio::test]
async fn the_page_is_there_in_development_only() {
    let node = Plan::dev().start().await;
    let page = http::get(node.public, "/").await;
    assert_eq!(page.status, 200);
    assert_eq!(page.headers["content-type"], "text/html; charset=utf-8");
    assert!(
        page.text().contains("/v1/connect"),
        "the page opens a session"
    );
    let directory = tempfile::tempdir().expect("a temporary directory");
    let node = Plan::with_config(&tokens::config_file(&directory))
        .start()
        .await;
    assert_eq!(http::get(node.public, "/").await.status, 404);
}

/// How often a command at a Redis that does not answer is answered by a leaving node, before or
/// after Redis goes on.
async fn answers_while_leaving(commands_timeout_ms: &str, redis_goes_on: bool) -> usize {
    let redis = RedisServer::start().await;
    let mut node = Plan::clustered("node-0", &redis.url())
        .env("FANFARE_DRAIN__WINDOW_MS", "0")
        .env("FANFARE_DRAIN__COMMANDS_TIMEOUT_MS", commands_timeout_ms)
        .start()
        .await;
    let (mut talk, _) = Talk::welcomed(&node.connect_url("?user=ada"), Encoding::Json).await;
    talk.ok(json!({"type": "subscribe", "topic": "t"})).await;
    redis.signal("STOP");
    let publish = json!({"type": "publish", "topic": "t", "data": 1});
    let id = talk.command(publish).await;
    // Its answer says that the command before it was read.
    talk.ok(json!({"type": "ping"})).await;
    node.signal("TERM");
    talk.event_of("drain").await;
    if redis_goes_on {
        redis.signal("CONT");
    }
    let mut answers_count = 0;
    while let Some(event) = talk.next().await {
        answers_count += usize::from(event["id"] == id);
    }
    redis.signal("CONT");
    node.ended().await;
    answers_count
}

#[tokio::test]
async fn commands_at_the_broker_are_awaited_as_long_as_configured() {
    assert_eq!(answers_while_leaving("5000", true).await, 1);
    assert_eq!(answers_while_leaving("0", false).await, 0);
}

/// Every page of a call, by the cursor that `next` finds in each.
async fn pages(
    node: &Node,
    path: &str,
    list: &str,
    next: fn(&Value) -> Option<String>,
) -> Vec<Value> {
    let mut all = Vec::new();
    let mut after = String::new();
    loop {
        let page = http::get(node.api, &format!("{path}?limit=2{after}")).await;
        assert_eq!(page.status, 200, "{}", page.text());
        let page = page.json();
        let entries = page[list].as_array().expect("a list");
        assert!(entries.len() <= 2, "{page}");
        all.extend(entries.iter().cloned());
        assert!(all.len() < 100, "the pages do not end");
        match next(&page) {
            Some(cursor) => after = format!("&after={cursor}"),
            None => return all,
        }
    }
}

#[tokio::test]
async fn pages_of_a_real_node_have_everything_once() {
    let redis = RedisServer::start().await;
    for plan in [Plan::dev(), Plan::clustered("node-0", &redis.url())] {
        let node = plan.start().await;
        let mut talks = Vec::new();
        for user in ["a", "b", "c", "d", "e"] {
            let url = node.connect_url(&format!("?user={user}"));
            let (mut talk, _) = Talk::welcomed(&url, Encoding::Json).await;
            let topic = format!("t:{user}");
            talk.ok(json!({"type": "subscribe", "topic": topic})).await;
            talk.ok(json!({"type": "subscribe", "topic": "all", "presence": true}))
                .await;
            talks.push(talk);
        }
        let wanted: Vec<_> = [
            "@a", "@b", "@c", "@d", "@e", "all", "t:a", "t:b", "t:c", "t:d", "t:e",
        ]
        .into();
        fanfare_testkit::wait::until("every topic to be told", async || {
            let next = |page: &Value| Some(page["next"].as_str()?.replace('@', "%40"));
            let topics = pages(&node, "/v1/topics", "topics", next).await;
            let mut names: Vec<_> = topics.iter().filter_map(|t| t["topic"].as_str()).collect();
            names.sort_unstable();
            names.retain(|name| *name != "@");
            (names == wanted).then_some(())
        })
        .await;
        let next = |page: &Value| {
            let last = page["members"].as_array()?.last()?["session"].as_str()?;
            (page["more"] == true).then(|| last.to_owned())
        };
        let members = pages(&node, "/v1/topics/all/presence", "members", next).await;
        let mut users: Vec<_> = members.iter().filter_map(|m| m["user"].as_str()).collect();
        users.sort_unstable();
        assert_eq!(users, ["a", "b", "c", "d", "e"]);
    }
}

#[tokio::test]
async fn bounds_hold_at_the_values_that_are_configured() {
    let node = Plan::dev()
        .env("FANFARE_SESSION__PAGE_MAX", "3")
        .env("FANFARE_SESSION__PAGE_BYTES_MAX", "65536")
        .env("FANFARE_SESSION__KEY_BYTES_MAX", "16")
        .env("FANFARE_API__TARGETS_MAX", "2")
        .start()
        .await;
    let (mut talk, _) = Talk::welcomed(&node.connect_url("?user=ada"), Encoding::Json).await;
    for n in 0..5 {
        talk.publish("t", json!(n)).await;
        talk.publish("long", json!("x".repeat(30_000))).await;
    }
    let history = json!({"type": "history", "topic": "t"});
    assert_eq!(
        talk.ok(history.clone()).await["publications"]
            .as_array()
            .map(Vec::len),
        Some(3)
    );
    let mut beyond = history.clone();
    beyond["limit"] = json!(4);
    talk.refused(beyond, "limit_exceeded").await;
    let long = talk.ok(json!({"type": "history", "topic": "long"})).await;
    assert_eq!(
        long["publications"].as_array().map(Vec::len),
        Some(2),
        "64 KiB a page"
    );
    let key =
        |length| json!({"type": "publish", "topic": "t", "data": 1, "key": "k".repeat(length)});
    talk.ok(key(16)).await;
    talk.refused(key(17), "too_large").await;

    let page = http::get(node.api, "/v1/topics/t/history").await.json();
    assert_eq!(page["publications"].as_array().map(Vec::len), Some(3));
    let page = http::get(node.api, "/v1/topics/long/history").await.json();
    assert_eq!(page["publications"].as_array().map(Vec::len), Some(2));
    let refused = http::get(node.api, "/v1/topics/t/history?limit=4").await;
    assert_eq!(refused.json()["error"]["code"], "limit_exceeded");
    let post = async |body: Value| {
        let path = if body.is_array() {
            "/v1/batch"
        } else {
            "/v1/publish"
        };
        let answer = http::post(node.api, path, &body).await.json();
        answer["error"]["code"].as_str().map(str::to_owned)
    };
    let one = json!({"topic": "t", "data": 1});
    assert_eq!(post(json!({"topics": ["a", "b"], "data": 1})).await, None);
    let three = json!({"topics": ["a", "b", "c"], "data": 1});
    assert_eq!(post(three).await.as_deref(), Some("limit_exceeded"));
    assert_eq!(post(json!([one, one])).await, None);
    assert_eq!(
        post(json!([one, one, one])).await.as_deref(),
        Some("limit_exceeded")
    );
    let key = |length| json!({"topic": "t", "data": 1, "idempotency_key": "k".repeat(length)});
    assert_eq!(post(key(16)).await, None);
    assert_eq!(post(key(17)).await.as_deref(), Some("too_large"));
}
