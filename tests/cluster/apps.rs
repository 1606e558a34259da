//! Apps that are set at one node and hold at all, over one real Redis: what another program writes into
//! the store, and what happens while Redis is away.

use std::time::{Duration, Instant};

use bytes::Bytes;
use fanfare_protocol::form::Encoding;
use fanfare_protocol::ids::{App, Topic};
use fanfare_testkit::http::{self, Answer};
use fanfare_testkit::node::{Node, Plan};
use fanfare_testkit::redis_server::RedisServer;
use fanfare_testkit::talk::Talk;
use fanfare_testkit::{tokens, wait};
use http_body_util::Full;
use hyper::Request;
use serde_json::{Value, json};

const APPS: &str = "ff:{apps}";

fn plan(name: &str, redis: &RedisServer) -> Plan {
    Plan::clustered(name, &redis.url()).env("FANFARE_AUTH__HMAC_SECRET", tokens::SECRET)
}

async fn call(node: &Node, method: &str, path: &str, body: &Value) -> Answer {
    let request = Request::builder().method(method).uri(path);
    let request = request.header("content-type", "application/json");
    let request = request.body(Full::from(Bytes::from(body.to_string())));
    http::send(node.api, request.unwrap())
        .await
        .expect("an answer")
}

async fn put(node: &Node, app: &str, body: &Value) -> Answer {
    call(node, "PUT", &format!("/v1/apps/{app}"), body).await
}

/// Whether calls about this app are taken.
async fn is_known(node: &Node, app: &str) -> bool {
    let request = Request::builder()
        .uri("/v1/topics")
        .header("fanfare-app", app);
    let request = request.body(Full::default()).unwrap();
    let answer = http::send(node.api, request).await.expect("an answer");
    match answer.status.as_u16() {
        200 => true,
        404 => false,
        _ => panic!("{}", answer.text()),
    }
}

async fn until_known(node: &Node, app: &str, wanted: bool) {
    let is_so = async || (is_known(node, app).await == wanted).then_some(());
    wait::until(&format!("{app} to be known: {wanted}"), is_so).await;
}

/// The part of the health that tells of apps.
async fn part(node: &Node) -> Value {
    let health = http::get(node.api, "/health/detailed").await.json();
    let parts = health["components"].as_array().unwrap().iter();
    parts
        .clone()
        .find(|part| part["name"] == "apps")
        .cloned()
        .unwrap()
}

async fn until_part(node: &Node, state: &str) -> String {
    wait::until(&format!("apps to be {state}"), async || {
        let part = part(node).await;
        (part["state"] == state).then(|| part["detail"].as_str().unwrap().to_owned())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_set_at_one_node_holds_there_at_once_and_soon_at_the_other() {
    let redis = RedisServer::start().await;
    let (one, two) = tokio::join!(plan("one", &redis).start(), plan("two", &redis).start());
    let settings = json!({"namespaces": {"default": {"presence": true}}});
    assert_eq!(put(&one, "shop", &settings).await.status, 200);
    assert!(is_known(&one, "shop").await);
    until_known(&two, "shop", true).await;
    let shown = http::get(two.api, "/v1/apps/shop").await.json();
    assert_eq!(shown["settings"], settings);
    // A node that starts later knows it when it is ready.
    let three = plan("three", &redis).start().await;
    assert!(is_known(&three, "shop").await);
    assert_eq!(
        call(&two, "DELETE", "/v1/apps/shop", &json!({}))
            .await
            .status,
        200
    );
    assert!(!is_known(&two, "shop").await);
    until_known(&one, "shop", false).await;
    until_known(&three, "shop", false).await;
    assert_eq!(two.log_lines("stored_apps_changed").len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_another_program_stores_hurts_no_other_app() {
    let redis = RedisServer::start().await;
    for (name, json) in [
        ("good", "{}"),
        ("bad", "{\"auth\":"),
        ("Not An App", "{}"),
        ("default", "{}"),
    ] {
        redis.command(&["HSET", APPS, name, json]).unwrap();
    }
    let node = plan("one", &redis).start().await;
    until_known(&node, "good", true).await;
    assert!(!is_known(&node, "bad").await);
    assert_eq!(
        until_part(&node, "degraded").await,
        "stored apps with faults: 3 (bad, Not An App, default)"
    );
    let told = node.log_lines("stored_app_refused");
    assert_eq!(told.len(), 3, "{told:?}");
    let bad = http::get(node.api, "/v1/apps/bad").await.json();
    assert_eq!(
        (&bad["faulty"], &bad["settings"]),
        (&json!(true), &Value::Null)
    );
    assert!(
        bad["faults"][0].as_str().unwrap().contains("not JSON"),
        "{bad}"
    );
    // Putting it mends it, and what cannot be an app can be taken away by hand alone. None is told again.
    assert_eq!(put(&node, "bad", &json!({})).await.status, 200);
    assert!(is_known(&node, "bad").await);
    assert_eq!(put(&node, "b", &json!({})).await.status, 200);
    assert_eq!(
        call(&node, "DELETE", "/v1/apps/b", &json!({})).await.status,
        200
    );
    assert_eq!(node.log_lines("stored_app_refused").len(), 3);
    redis
        .command(&["HDEL", APPS, "Not An App", "default"])
        .unwrap();
    assert_eq!(put(&node, "more", &json!({})).await.status, 200);
    assert_eq!(until_part(&node, "ok").await, "apps known: 4");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_is_no_store_or_has_lost_all_takes_no_app_away() {
    let redis = RedisServer::start().await;
    let node = plan("one", &redis).start().await;
    assert_eq!(put(&node, "shop", &json!({})).await.status, 200);
    // Another type.
    redis.command(&["DEL", APPS]).unwrap();
    redis.command(&["SET", APPS, "x"]).unwrap();
    redis.command(&["INCR", "ff:{apps}:v"]).unwrap();
    node.until_told("stored_apps_missed").await;
    assert!(is_known(&node, "shop").await);
    let refused = put(&node, "b", &json!({})).await;
    assert_eq!(refused.status, 500, "{}", refused.text());
    assert_eq!(part(&node).await["state"], "degraded");
    // Nothing at all: what is known is put back.
    lose(&redis);
    node.until_told("stored_apps_restored").await;
    assert!(is_known(&node, "shop").await);
    until_part(&node, "ok").await;
    until_stored(&redis, 1).await;
    // More than may be.
    let names: Vec<_> = (0..1_001).map(|n| format!("a{n}")).collect();
    let mut words = vec!["HSET", APPS];
    words.extend(names.iter().flat_map(|name| [name.as_str(), "{}"]));
    redis.command(&words).unwrap();
    redis.command(&["INCR", "ff:{apps}:v"]).unwrap();
    let detail = until_part(&node, "degraded").await;
    assert!(
        detail.contains("1002 apps are stored, too many"),
        "{detail}"
    );
    assert!(is_known(&node, "shop").await && !is_known(&node, "a7").await);
    let full = put(&node, "b", &json!({})).await;
    assert!(
        full.status == 400 && full.text().contains("1002 apps are stored"),
        "{}",
        full.text()
    );
}

/// Redis loses all that it has of apps.
fn lose(redis: &RedisServer) {
    let keys = ["", ":v", ":l", ":r", ":a"].map(|part| format!("{APPS}{part}"));
    let mut words = vec!["DEL"];
    words.extend(keys.iter().map(String::as_str));
    redis.command(&words).unwrap();
}

/// An anonymous session of an app.
async fn session(node: &Node, app: &str) -> Talk {
    let url = node.connect_url(&format!("?app={app}"));
    let mut talk = Talk::connected(&url, Encoding::Json).await;
    talk.ok(json!({"type": "connect"})).await;
    talk
}

/// That the session is still there.
async fn is_there(talk: &mut Talk) {
    talk.ok(json!({"type": "subscribe", "topic": "t"})).await;
    talk.ok(json!({"type": "unsubscribe", "topic": "t"})).await;
}

fn open_to_all() -> Value {
    json!({"auth": {"anonymous": true}, "namespaces": {"default": {"subscribe": "anyone"}}})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_puts_one_app_again_that_redis_has_lost_ends_no_session_of_another() {
    let redis = RedisServer::start().await;
    let (one, two) = tokio::join!(plan("one", &redis).start(), plan("two", &redis).start());
    for app in ["a", "b", "c"] {
        assert_eq!(put(&one, app, &open_to_all()).await.status, 200);
        until_known(&two, app, true).await;
    }
    let mut sessions = Vec::new();
    for node in [&one, &two] {
        for app in ["a", "b", "c"] {
            sessions.push(session(node, app).await);
        }
    }
    // All of it, and one is put before anybody has looked.
    lose(&redis);
    assert_eq!(put(&one, "a", &open_to_all()).await.status, 200);
    until_stored(&redis, 3).await;
    // Who looks first tells it and puts all back; the other may look when nothing is missing any more.
    let nodes = [&one, &two];
    wait::until("a node to tell of the loss", async || {
        let mut told = nodes
            .map(|node| node.log_lines("stored_apps_lost"))
            .concat();
        told.pop()
    })
    .await;
    // Only the hash: nodes see by themselves that something is missing.
    redis.command(&["DEL", APPS]).unwrap();
    until_stored(&redis, 3).await;
    for talk in &mut sessions {
        is_there(talk).await;
    }
    until_part(&one, "ok").await;
    until_part(&two, "ok").await;
    // What is removed after that is removed.
    let removed = call(&two, "DELETE", "/v1/apps/b", &json!({})).await;
    assert_eq!(removed.status, 200);
    until_known(&one, "b", false).await;
    assert_eq!(sessions[1].close_code().await, Some(4002));
    assert_eq!(sessions[4].close_code().await, Some(4002));
    is_there(&mut sessions[0]).await;
    until_stored(&redis, 2).await;
}

async fn until_stored(redis: &RedisServer, count: u32) {
    let count = format!(":{count}");
    wait::until("the apps to be put back", async || {
        (redis.command(&["HLEN", APPS]) == Some(count.clone())).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_app_that_is_removed_and_made_anew_at_once_is_another_at_every_node() {
    let redis = RedisServer::start().await;
    let (one, two) = tokio::join!(plan("one", &redis).start(), plan("two", &redis).start());
    assert_eq!(put(&one, "shop", &open_to_all()).await.status, 200);
    until_known(&two, "shop", true).await;
    let (mut here, mut there) = (session(&one, "shop").await, session(&two, "shop").await);
    // Set again with other settings it is the same.
    let mut more = open_to_all();
    more["namespaces"]["default"]["history_entries_max"] = 7.into();
    assert_eq!(put(&two, "shop", &more).await.status, 200);
    is_there(&mut here).await;
    is_there(&mut there).await;
    let gone = call(&one, "DELETE", "/v1/apps/shop", &json!({})).await;
    assert_eq!(gone.status, 200);
    assert_eq!(put(&one, "shop", &more).await.status, 200);
    assert_eq!(here.close_code().await, Some(4002));
    assert_eq!(there.close_code().await, Some(4002));
    until_known(&two, "shop", true).await;
    let mut new = session(&two, "shop").await;
    is_there(&mut new).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_of_the_release_before_set_and_remove_apps_beside_this_one() {
    let redis = RedisServer::start().await;
    // Their scripts know the hash and a number that they count up.
    let put_before = |name: &str, json: &str| {
        redis.command(&["INCR", "ff:{apps}:v"]).unwrap();
        redis.command(&["HSET", APPS, name, json]).unwrap();
    };
    put_before("old", "{}");
    put_before("gone", "{}");
    let node = plan("one", &redis).start().await;
    assert!(is_known(&node, "old").await && is_known(&node, "gone").await);
    assert_eq!(put(&node, "new", &json!({})).await.status, 200);
    put_before("later", "{}");
    until_known(&node, "later", true).await;
    // They change one without a trace but the number.
    put_before("new", "{\"inbox\":{}}");
    wait::until("the change to be seen", async || {
        let shown = http::get(node.api, "/v1/apps/new").await.json();
        (shown["settings"] == json!({"inbox": {}})).then_some(())
    })
    .await;
    redis.command(&["INCR", "ff:{apps}:v"]).unwrap();
    redis.command(&["HDEL", APPS, "gone"]).unwrap();
    until_known(&node, "gone", false).await;
    assert!(node.log_lines("stored_apps_lost").is_empty());
    assert!(is_known(&node, "old").await && is_known(&node, "new").await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_nodes_hear_of_a_change_long_before_they_would_look() {
    let redis = RedisServer::start().await;
    let (one, two) = tokio::join!(plan("one", &redis).start(), plan("two", &redis).start());
    let mut fast = 0;
    for n in 0..8 {
        let app = format!("a{n}");
        assert_eq!(put(&one, &app, &json!({})).await.status, 200);
        let put_at = Instant::now();
        until_known(&two, &app, true).await;
        fast += usize::from(put_at.elapsed() < Duration::from_secs(1));
    }
    // By looking alone each would take three to five seconds from the one before.
    assert!(fast >= 6, "{fast} of 8");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_has_not_read_yet_tells_nobody_that_there_is_no_app_and_keeps_the_queue() {
    let mut redis = RedisServer::start().await;
    let mut before = plan("before", &redis).start().await;
    assert_eq!(put(&before, "shop", &open_to_all()).await.status, 200);
    assert!(before.terminate().await.success());
    let topic = Topic::new(&App::new("shop").unwrap(), "orders:7").unwrap();
    let stream = format!("ff:q:{{{}}}:normal", topic.partition(256));
    for n in ["1", "2", "3"] {
        let fields = ["app", "shop", "topic", "orders:7", "data", n];
        redis
            .ask(&[&["XADD", &*stream, "*"], &fields[..]].concat())
            .unwrap();
    }
    redis.kill();
    let node = plan("one", &redis).start_unready().await;
    node.until_told("stored_apps_missed").await;
    let refused = async || {
        let request = Request::builder()
            .uri("/v1/topics")
            .header("fanfare-app", "shop");
        let request = request.body(Full::default()).unwrap();
        http::send(node.api, request)
            .await
            .expect("an answer")
            .status
    };
    assert_eq!(refused().await, 503);
    redis.restart().await;
    let back_at = Instant::now();
    wait::until("the node to know the app", async || {
        let status = refused().await;
        assert_ne!(status, 404, "it says that there is none");
        (status == 200).then_some(())
    })
    .await;
    assert!(
        back_at.elapsed() < Duration::from_secs(4),
        "{:?}",
        back_at.elapsed()
    );
    wait::until("the queue to be drained", async || {
        (redis.command(&["XLEN", &stream]).as_deref() == Some(":0")).then_some(())
    })
    .await;
    let request = Request::builder()
        .uri("/v1/queue/dead")
        .header("fanfare-app", "shop");
    let dead = http::send(node.api, request.body(Full::default()).unwrap()).await;
    assert_eq!(dead.expect("an answer").json()["letters"], json!([]));
    assert_eq!(node.metric("fanfare_queue_published_total").await, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_redis_is_away_what_is_known_stays_and_nothing_is_set() {
    let mut redis = RedisServer::start().await;
    let node = plan("one", &redis).start().await;
    assert_eq!(put(&node, "shop", &json!({})).await.status, 200);
    redis.kill_with_data();
    node.until_told("stored_apps_missed").await;
    assert!(is_known_by_list(&node, "shop").await);
    let refused = put(&node, "b", &json!({})).await;
    assert_eq!(refused.status, 503, "{}", refused.text());
    let without = plan("two", &redis).start_unready().await;
    let detail = part(&without).await["detail"].as_str().unwrap().to_owned();
    assert!(
        detail.contains("was not read yet") || detail.contains("cannot be read"),
        "{detail}"
    );
    redis.restart().await;
    node.until_told("stored_apps_read").await;
    // It began anew and has nothing: what is known stays, and is put back for the other.
    assert!(is_known_by_list(&node, "shop").await);
    without.until_ready().await;
    until_known(&without, "shop", true).await;
}

/// The same without a question to Redis.
async fn is_known_by_list(node: &Node, app: &str) -> bool {
    let list = http::get(node.api, "/v1/apps").await.json();
    let mut apps = list["apps"].as_array().unwrap().iter();
    apps.any(|one| one["app"] == app)
}
