//! Apps that are set at one node and hold at all, over one real Redis: what another program writes into
//! the store, and what happens while Redis is away.

use bytes::Bytes;
use fanfare_testkit::http::{self, Answer};
use fanfare_testkit::node::{Node, Plan};
use fanfare_testkit::redis_server::RedisServer;
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
        "stored apps with faults: 3"
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
    // Putting it mends it, and what cannot be an app can be taken away by hand alone.
    assert_eq!(put(&node, "bad", &json!({})).await.status, 200);
    assert!(is_known(&node, "bad").await);
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
    let until_read = async |lines: usize| {
        wait::until("a reading to be refused", async || {
            let told = node.log_lines("stored_apps_missed").len()
                + node.log_lines("stored_apps_refused").len();
            (told >= lines).then_some(())
        })
        .await;
    };
    // Another type.
    redis.command(&["DEL", APPS]).unwrap();
    redis.command(&["SET", APPS, "x"]).unwrap();
    redis.command(&["INCR", "ff:{apps}:v"]).unwrap();
    until_read(1).await;
    assert!(is_known(&node, "shop").await);
    let refused = put(&node, "b", &json!({})).await;
    assert_eq!(refused.status, 500, "{}", refused.text());
    assert_eq!(part(&node).await["state"], "degraded");
    // Nothing at all.
    redis.command(&["DEL", APPS, "ff:{apps}:v"]).unwrap();
    until_read(2).await;
    assert!(is_known(&node, "shop").await);
    let detail = until_part(&node, "degraded").await;
    assert!(
        detail.contains("Redis has lost the 1 stored apps"),
        "{detail}"
    );
    // Putting it again is all that is needed.
    assert_eq!(put(&node, "shop", &json!({})).await.status, 200);
    until_part(&node, "ok").await;
    // More than may be.
    for n in 0..1_001 {
        redis
            .command(&["HSET", APPS, &format!("a{n}"), "{}"])
            .unwrap();
    }
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_redis_is_away_what_is_known_stays_and_nothing_is_set() {
    let mut redis = RedisServer::start().await;
    let node = plan("one", &redis).start().await;
    assert_eq!(put(&node, "shop", &json!({})).await.status, 200);
    redis.kill();
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
    // It began anew and has nothing: what is known stays, and can be put again.
    assert!(is_known_by_list(&node, "shop").await);
    wait::until("the app to be stored again", async || {
        (put(&node, "shop", &json!({})).await.status == 200).then_some(())
    })
    .await;
    without.until_ready().await;
    until_known(&without, "shop", true).await;
}

/// The same without a question to Redis.
async fn is_known_by_list(node: &Node, app: &str) -> bool {
    let list = http::get(node.api, "/v1/apps").await.json();
    let mut apps = list["apps"].as_array().unwrap().iter();
    apps.any(|one| one["app"] == app)
}
