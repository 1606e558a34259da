//! Two apps on real nodes over one real Redis: all names in common, and nothing of one is seen in the
//! other; who comes to the wrong one is told so; and settings that change while sessions are there.

use std::path::PathBuf;

use bytes::Bytes;
use fanfare_protocol::form::Encoding;
use fanfare_protocol::ids::Topic;
use fanfare_testkit::http::{self, Answer};
use fanfare_testkit::node::{Node, Plan};
use fanfare_testkit::raw::{Handshake, Raw};
use fanfare_testkit::redis_server::RedisServer;
use fanfare_testkit::talk::Talk;
use fanfare_testkit::tokens::{self, seconds_from_now};
use fanfare_testkit::wait;
use http_body_util::Full;
use hyper::Request;
use serde_json::{Value, json};

/// The secret of the app `shop`. That of `default` is the tests' own.
const OF_SHOP: &str = "the secret of the app shop, which is long enough";

/// What both apps set for their topics.
const OPTIONS: &str = "subscribe = \"authenticated\"\npublish = \"authenticated\"\n\
     history = \"authenticated\"\npresence = true\npresence_allow = \"authenticated\"\n\
     history_entries_max = 100\n";

/// `[apps.NAME]` with this secret, these options, and whether it lets anonymous sessions in.
fn app(name: &str, secret: &str, options: &str, anonymous: bool) -> String {
    format!(
        "\n[apps.{name}.auth]\nanonymous = {anonymous}\n\n\
         [[apps.{name}.auth.keys]]\nalgorithm = \"HS256\"\nsecret = \"{secret}\"\n\n\
         [apps.{name}.namespaces.default]\n{options}\n\
         [apps.{name}.inbox]\npublish = \"authenticated\"\n"
    )
}

fn shop() -> String {
    app("shop", OF_SHOP, OPTIONS, true)
}

/// Writes the file of a node with these apps.
fn write(directory: &tempfile::TempDir, apps: &str) -> PathBuf {
    let path = directory.path().join("fanfare.toml");
    let text = format!(
        "[api]\nkeys = [\"{}\"]\n\n[auth]\nhmac_secret = \"{}\"\n\n\
         [namespaces.default]\n{OPTIONS}\n[inbox]\npublish = \"authenticated\"\n{apps}",
        http::DEV_KEY,
        tokens::SECRET
    );
    std::fs::write(&path, text).unwrap();
    path
}

async fn start(directory: &tempfile::TempDir, name: &str, redis: &RedisServer) -> Node {
    Plan::with_config(&directory.path().join("fanfare.toml"))
        .flag("--workers=2")
        .flag(&format!("--redis={}", redis.url()))
        .flag(&format!("--node-id={name}"))
        .start()
        .await
}

/// Two nodes with the app `shop` beside `default`.
async fn two_nodes(directory: &tempfile::TempDir, redis: &RedisServer) -> [Node; 2] {
    write(directory, &shop());
    let (one, two) = tokio::join!(
        start(directory, "one", redis),
        start(directory, "two", redis)
    );
    let nodes = [one, two];
    for node in &nodes {
        wait::until("both nodes to be seen", async || {
            let seen = http::get(node.api, "/v1/nodes").await.json();
            (seen["nodes"].as_array()?.len() == nodes.len()).then_some(())
        })
        .await;
    }
    nodes
}

/// Claims of ada with the same `jti` in every app, and these.
fn claims(more: Value) -> Value {
    let mut claims = json!({
        "sub": "ada", "jti": "one", "iat": seconds_from_now(-10), "exp": seconds_from_now(600),
    });
    let more = more.as_object().unwrap().clone();
    claims.as_object_mut().unwrap().extend(more);
    claims
}

fn of_default(more: Value) -> String {
    tokens::signed(&claims(more))
}

fn of_shop(more: Value) -> String {
    tokens::signed_with(&claims(more), "HS256", OF_SHOP)
}

/// A session of ada in each of the apps.
async fn pair(one: &Node, two: &Node) -> [Talk; 2] {
    let by_default = format!("?token={}", of_default(json!({})));
    let by_shop = format!("?app=shop&token={}", of_shop(json!({})));
    let open = async |node: &Node, query: &str| {
        Talk::welcomed(&node.connect_url(query), Encoding::Json)
            .await
            .0
    };
    [open(one, &by_default).await, open(two, &by_shop).await]
}

fn publish(to: &str, name: &str, data: i32) -> Value {
    json!({"type": "publish", to: name, "data": data, "idempotency_key": "k", "echo": true})
}

/// The data of the messages that came.
async fn messages(talk: &mut Talk) -> Vec<Value> {
    let all = talk.all().await.into_iter();
    let messages = all.filter(|event| event["type"] == "message");
    messages.map(|message| message["data"].clone()).collect()
}

/// History, members and the inbox, as a session of an app sees them in which this was published.
async fn sees_only_its_own(talk: &mut Talk, data: i32) {
    // What is kept.
    let history = talk.ok(json!({"type": "history", "topic": "orders"})).await;
    let kept = history["publications"].as_array().unwrap().iter();
    let kept: Vec<_> = kept.map(|message| message["data"].clone()).collect();
    assert_eq!(kept, [data]);
    // Who is there.
    let members = talk
        .ok(json!({"type": "presence", "topic": "orders"}))
        .await;
    assert_eq!(members["count"], 1, "{members}");
    // What a session that comes back is told of its inbox.
    let history = talk.ok(json!({"type": "history", "topic": "@ada"})).await;
    assert_eq!(
        history["publications"].as_array().unwrap().len(),
        1,
        "{history}"
    );
}

#[tokio::test]
async fn nothing_of_one_app_is_seen_in_another() {
    let (redis, directory) = (RedisServer::start().await, tempfile::tempdir().unwrap());
    let [one, two] = two_nodes(&directory, &redis).await;
    let mut both = pair(&one, &two).await;
    for talk in &mut both {
        talk.subscribe("orders", json!({"presence": true})).await;
    }
    // Live: the same topic, user and idempotency key.
    for (talk, data) in both.iter_mut().zip([1, 2]) {
        let ok = talk.ok(publish("topic", "orders", data)).await;
        assert_eq!(ok["duplicate"], Value::Null, "{ok}");
        assert_eq!(talk.message("orders").await["data"], data);
        let ok = talk.ok(publish("user", "ada", data + 10)).await;
        assert_eq!(ok["duplicate"], Value::Null, "{ok}");
        assert_eq!(talk.message("@ada").await["data"], data + 10);
    }
    for (talk, data) in both.iter_mut().zip([1, 2]) {
        assert_eq!(messages(talk).await, [""; 0], "of app {data}");
        sees_only_its_own(talk, data).await;
    }
    let [mut ada, mut of_shop] = both;
    // What the API does is done in its app alone.
    let answer = call(
        &one,
        "default",
        "POST",
        "/v1/users/ada/disconnect",
        &json!({}),
    )
    .await;
    assert!(answer.status.is_success(), "{}", answer.text());
    assert_eq!(ada.close_code().await, Some(4002));
    let answer = call(
        &one,
        "default",
        "POST",
        "/v1/revoke",
        &json!({"jti": ["one"]}),
    )
    .await;
    assert!(answer.status.is_success(), "{}", answer.text());
    let query = format!("?token={}", of_default(json!({})));
    let mut refused = Talk::connected(&one.connect_url(&query), Encoding::Json).await;
    assert_eq!(refused.close_code().await, Some(4002));
    assert_eq!(of_shop.all().await, [""; 0]);
    let query = format!("?app=shop&token={}", self::of_shop(json!({})));
    let (mut again, _) = Talk::welcomed(&one.connect_url(&query), Encoding::Json).await;
    // And the other way round, on both nodes.
    let other = of_default(json!({"jti": "two"}));
    let query = format!("?token={other}");
    let (mut ada, _) = Talk::welcomed(&two.connect_url(&query), Encoding::Json).await;
    let answer = call(&two, "shop", "POST", "/v1/users/ada/revoke", &json!({})).await;
    assert_eq!(answer.json()["sessions"], 2, "{}", answer.text());
    assert_eq!(again.close_code().await, Some(4002));
    assert_eq!(of_shop.close_code().await, Some(4002));
    ada.ok(json!({"type": "ping"})).await;
}

/// A call that names an app.
async fn call(node: &Node, app: &str, method: &str, path: &str, body: &Value) -> Answer {
    let request = Request::builder().method(method).uri(path);
    let request = request.header("content-type", "application/json");
    let request = request.header("fanfare-app", app);
    let request = request.body(Full::from(Bytes::from(body.to_string())));
    let answer = http::send(node.api, request.unwrap()).await;
    answer.expect("an answer")
}

/// The error and the close code of a session that is not let in.
async fn refusal(node: &Node, query: &str) -> (String, Option<u16>) {
    let mut talk = Talk::connected(&node.connect_url(query), Encoding::Json).await;
    let error = talk.event_of("error").await;
    assert_eq!(error["code"], "unauthorized", "{query}");
    (
        error["message"].as_str().unwrap().to_owned(),
        talk.close_code().await,
    )
}

/// The status and the error of a handshake or a call with the token in the header.
async fn by_header(node: &Node, path: &str, token: &str) -> (u16, Value) {
    let handshake = match path.starts_with("/v1/connect") {
        true => Handshake::to(path).bytes(),
        false => format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n").into_bytes(),
    };
    let mut bytes = handshake;
    bytes.truncate(bytes.len() - 2);
    bytes.extend(format!("Authorization: Bearer {token}\r\n\r\n").into_bytes());
    let mut raw = Raw::open(node.public).await;
    raw.send(&bytes).await;
    let (head, body) = raw.answer().await.expect("an answer");
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    (head.status, body)
}

const CONTRADICTED: &str = "the token is one of another app than this connection: put `?app=` with \
     the token's app into the URL, or leave both away for `default`";
const UNKNOWN: &str = "the token is one of an app that is not known here";
const NO_APP: &str = "`app` in the URL names no app that is known here";
const SIGNATURE: &str = "the token's signature is not valid";

#[tokio::test]
async fn who_comes_to_the_wrong_app_is_told_so_and_how_to_mend_it() {
    let (redis, directory) = (RedisServer::start().await, tempfile::tempdir().unwrap());
    write(&directory, &shop());
    let node = start(&directory, "one", &redis).await;
    let in_app = |name: &str| json!({"app": name});
    let rows = [
        ("app=shop", of_default(in_app("default")), CONTRADICTED),
        ("app=default", of_shop(in_app("shop")), CONTRADICTED),
        ("app=gone", of_default(json!({})), NO_APP),
        ("app=gone", of_default(in_app("gone")), NO_APP),
        ("app=Shop", of_shop(json!({})), NO_APP),
        ("app=", of_default(json!({})), NO_APP),
        ("x=1", of_default(in_app("gone")), UNKNOWN),
        ("x=1", of_shop(in_app("")), UNKNOWN),
        ("x=1", of_shop(json!({})), SIGNATURE),
        ("app=shop", of_default(json!({})), SIGNATURE),
    ];
    for (query, token, told) in rows {
        let answer = refusal(&node, &format!("?{query}&token={token}")).await;
        assert_eq!(answer, (told.to_owned(), Some(4000)), "{query}");
        for path in ["/v1/connect", "/v1/route"] {
            let (status, body) = by_header(&node, &format!("{path}?{query}"), &token).await;
            assert_eq!(status, 401, "{path} {query}");
            assert_eq!(body["error"]["message"], told, "{path} {query}");
        }
    }
    // Without a token, and by `connect`.
    assert_eq!(refusal(&node, "?app=gone").await.0, NO_APP);
    let connect = |token: String| json!({"type": "connect", "token": token});
    let mut talk = Talk::connected(&node.connect_url("?app=shop"), Encoding::Json).await;
    let refused = talk
        .refused(connect(of_default(in_app("default"))), "unauthorized")
        .await;
    assert_eq!(refused["message"], CONTRADICTED);
    assert_eq!(talk.close_code().await, Some(4000));
    // The home of a user is that of its app.
    let route = async |query: &str, token: String| {
        let (status, route) = by_header(&node, &format!("/v1/route{query}"), &token).await;
        assert_eq!(status, 200, "{route}");
        route["partition"].clone()
    };
    let of_apps = [
        route("", of_default(json!({}))).await,
        route("?app=shop", of_shop(json!({}))).await,
    ];
    assert_eq!(of_apps[1], route("", of_shop(in_app("shop"))).await);
    assert_ne!(of_apps[0], of_apps[1]);
    // The token of `connect` chooses, where nothing else has; a token for a topic is of its app.
    let mut talk = Talk::connected(&node.connect_url(""), Encoding::Json).await;
    talk.ok(connect(of_shop(in_app("shop")))).await;
    let for_topic = |token| json!({"type": "subscribe", "topic": "orders", "token": token});
    let foreign = of_default(json!({"app": "default", "topic": "orders"}));
    let refused = talk.refused(for_topic(foreign), "forbidden").await;
    assert_eq!(refused["message"], "the token belongs to another app");
    let own = of_shop(json!({"topic": "orders"}));
    talk.ok(for_topic(own)).await;
    let refresh = json!({"type": "refresh", "token": of_default(in_app("default"))});
    let refused = talk.refused(refresh, "forbidden").await;
    assert_eq!(refused["message"], "the token belongs to another app");
}

#[tokio::test]
async fn sessions_follow_the_settings_of_their_app_and_end_with_it() {
    let (redis, directory) = (RedisServer::start().await, tempfile::tempdir().unwrap());
    let [one, two] = two_nodes(&directory, &redis).await;
    let [mut ada, mut of_shop] = pair(&one, &one).await;
    ada.subscribe("orders", json!({"presence": true})).await;
    of_shop.subscribe("orders", json!({"presence": true})).await;
    of_shop.subscribe("kept:1", json!({})).await;
    let mut anonymous = Talk::connected(&one.connect_url("?app=shop"), Encoding::Json).await;
    anonymous.ok(json!({"type": "connect"})).await;
    let path = "/v1/topics/orders/presence";
    let members =
        async |app| call(&one, app, "GET", path, &Value::Null).await.json()["count"].clone();
    assert_eq!(members("shop").await, 1);
    // `kept` may be joined as before, what is in no namespace of its own by nobody; and keys are others.
    let nobody = OPTIONS.replace("subscribe = \"authenticated\"", "subscribe = \"nobody\"");
    let kept = format!("\n[apps.shop.namespaces.kept]\n{OPTIONS}");
    let other_key = "another secret of the app shop, as long as that";
    write(
        &directory,
        &(app("shop", other_key, &nobody, false) + &kept),
    );
    one.signal("HUP");
    let left = of_shop.event_of("unsubscribed").await;
    assert_eq!(
        (&left["topic"], &left["code"]),
        (&json!("orders"), &json!("forbidden"))
    );
    let text = "the settings of the app do not permit this topic any more";
    assert_eq!(left["message"], text);
    assert_eq!(anonymous.close_code().await, Some(4000));
    of_shop.publish("kept:1", json!(1)).await;
    wait::until("the member to be gone", async || {
        (members("shop").await == 0).then_some(())
    })
    .await;
    assert_eq!(members("default").await, 1);
    // The other node has not read its file again, and says what differs.
    wait::until("the other node to tell the difference", async || {
        let health = http::get(two.api, "/health/detailed").await.text();
        health.contains("apps.shop (digest)").then_some(())
    })
    .await;
    two.signal("HUP");
    // Its app is gone.
    write(&directory, "");
    one.signal("HUP");
    assert_eq!(of_shop.close_code().await, Some(4002));
    let token = tokens::signed_with(&claims(json!({})), "HS256", other_key);
    wait::until("the app to be unknown", async || {
        let told = refusal(&one, &format!("?app=shop&token={token}")).await.0;
        (told == NO_APP).then_some(())
    })
    .await;
    // And nobody else has noticed.
    assert_eq!(ada.all().await, [""; 0]);
    ada.publish("orders", json!(1)).await;
}

#[tokio::test]
async fn an_app_that_the_api_sets_is_there_for_sessions_with_the_answer_and_its_entries_are_not_lost()
 {
    let (redis, directory) = (RedisServer::start().await, tempfile::tempdir().unwrap());
    let [one, two] = two_nodes(&directory, &redis).await;
    // An entry that a backend has enqueued before any node knew the app.
    let topic = Topic::from_qualified("late:orders").unwrap();
    let stream = format!("ff:q:{{{}}}:normal", topic.partition(256));
    let fields = ["app", "late", "topic", "orders", "data", "7"];
    redis
        .ask(&[&["XADD", &stream, "*"], &fields[..]].concat())
        .unwrap();
    let buried = "fanfare_queue_buried_total{reason=\"unknown_app\"}";
    wait::until("it to be put aside", async || {
        (one.metric(buried).await + two.metric(buried).await == 1).then_some(())
    })
    .await;
    let settings = json!({
        "auth": {"keys": [{"algorithm": "HS256", "secret": OF_SHOP}]},
        "namespaces": {"default": {"subscribe": "authenticated"}},
    });
    let answer = call(&one, "default", "PUT", "/v1/apps/late", &settings).await;
    assert!(answer.status.is_success(), "{}", answer.text());
    let query = format!("?token={}", of_shop(json!({"app": "late"})));
    let (mut ada, _) = Talk::welcomed(&one.connect_url(&query), Encoding::Json).await;
    ada.subscribe("orders", json!({})).await;
    let of_two = wait::until("the other node to know it", async || {
        let opened = Talk::open(&two.connect_url(&query), Encoding::Json, &[]).await;
        let mut talk = opened.unwrap();
        (talk.next().await?["type"] == "welcome").then_some(talk)
    });
    let mut of_two = of_two.await;
    let letters = call(&one, "late", "GET", "/v1/queue/dead", &Value::Null).await;
    assert_eq!(
        letters.json()["letters"][0]["why"],
        "unknown_app",
        "{}",
        letters.text()
    );
    let all = json!({"all": true});
    let answer = call(&one, "late", "POST", "/v1/queue/dead/redrive", &all).await;
    assert_eq!(answer.json()["redriven"], 1, "{}", answer.text());
    assert_eq!(ada.message("orders").await["data"], 7);
    // With the app its sessions go, on both nodes.
    let answer = call(&one, "default", "DELETE", "/v1/apps/late", &Value::Null).await;
    assert!(answer.status.is_success(), "{}", answer.text());
    assert_eq!(ada.close_code().await, Some(4002));
    assert_eq!(of_two.close_code().await, Some(4002));
    let told = refusal(&one, &query).await.0;
    assert_eq!(told, UNKNOWN);
}
