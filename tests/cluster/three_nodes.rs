//! Three real nodes over one real Redis: any node serves any user, and neither a lost node nor a
//! lost connection nor a lost Redis loses, doubles or reorders what was accepted.

use fanfare_protocol::form::Encoding;
use fanfare_testkit::http;
use fanfare_testkit::load::{Listening, Load};
use fanfare_testkit::node::{Node, Plan};
use fanfare_testkit::raw::{Handshake, Raw};
use fanfare_testkit::redis_server::RedisServer;
use fanfare_testkit::talk::{Talk, data_of};
use fanfare_testkit::turns;
use fanfare_testkit::wait;
use serde_json::{Value, json};

/// Three nodes that all see each other.
async fn three_nodes(redis: &RedisServer) -> [Node; 3] {
    let url = redis.url();
    let start = |name: &'static str| Plan::clustered(name, &url).start();
    let (one, two, three) = tokio::join!(start("one"), start("two"), start("three"));
    let nodes = [one, two, three];
    for node in &nodes {
        wait::until("all nodes to be seen", async || {
            let seen = http::get(node.api, "/v1/nodes").await.json();
            (seen["nodes"].as_array()?.len() == nodes.len()).then_some(())
        })
        .await;
    }
    nodes
}

async fn session(node: &Node, user: &str, wire: Encoding) -> Talk {
    Talk::welcomed(&node.connect_url(&format!("?user={user}")), wire)
        .await
        .0
}

async fn publish(node: &Node, body: Value) -> Value {
    let answer = http::post(node.api, "/v1/publish", &body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["results"][0]["position"].clone()
}

fn numbers(range: std::ops::Range<u64>) -> Vec<Value> {
    range.map(Value::from).collect()
}

#[tokio::test]
async fn a_message_published_on_one_node_reaches_both_wire_forms_on_the_others() {
    let redis = RedisServer::start().await;
    let [one, two, three] = three_nodes(&redis).await;
    let mut ada = session(&two, "ada", Encoding::Json).await;
    let mut bob = session(&three, "bob", Encoding::MsgPack).await;
    for talk in [&mut ada, &mut bob] {
        talk.ok(json!({"type": "subscribe", "topic": "orders:7"}))
            .await;
    }
    let data = json!({"text": "grüß", "list": [1, -2, 2.5, true, null], "big": u64::MAX});
    let position = publish(&one, json!({"topic": "orders:7", "data": data})).await;
    for talk in [&mut ada, &mut bob] {
        let message = talk.message("orders:7").await;
        assert_eq!((&message["position"], &message["data"]), (&position, &data));
    }
    let position = publish(&one, json!({"user": "ada", "data": "for you"})).await;
    let message = ada.message("@ada").await;
    assert_eq!(
        (&message["position"], &message["data"]),
        (&position, &json!("for you"))
    );
    let everyone = json!({"everyone": true, "data": "all"});
    assert_eq!(
        http::post(two.api, "/v1/publish", &everyone).await.status,
        200
    );
    for talk in [&mut ada, &mut bob] {
        assert_eq!(talk.message("@").await["data"], "all");
    }
}

#[tokio::test]
async fn a_publication_costs_nodes_without_sessions_on_its_topic_nothing() {
    const ARRIVED: &str = "fanfare_feed_deliveries_total";
    let redis = RedisServer::start().await;
    let [one, two, three] = three_nodes(&redis).await;
    let mut ada = session(&two, "ada", Encoding::Json).await;
    let mut bob = session(&three, "bob", Encoding::Json).await;
    ada.ok(json!({"type": "subscribe", "topic": "t"})).await;
    bob.ok(json!({"type": "subscribe", "topic": "other"})).await;
    let before = [one.metric(ARRIVED).await, three.metric(ARRIVED).await];
    for number in 0..200 {
        publish(&one, json!({"topic": "t", "data": number})).await;
    }
    ada.messages("t", 200).await;
    assert!(two.metric(ARRIVED).await >= 200);
    let after = [one.metric(ARRIVED).await, three.metric(ARRIVED).await];
    assert_eq!(
        after, before,
        "the node that published, and one that has another topic"
    );
}

#[tokio::test]
async fn a_session_that_was_away_resumes_on_another_node_with_exactly_what_it_missed() {
    let redis = RedisServer::start().await;
    let [one, two, three] = three_nodes(&redis).await;
    let mut ada = session(&two, "ada", Encoding::Json).await;
    ada.ok(json!({"type": "subscribe", "topic": "t"})).await;
    for number in 0..3 {
        publish(&one, json!({"topic": "t", "data": number})).await;
        publish(&one, json!({"user": "ada", "data": number})).await;
    }
    let seen = ada.messages("t", 3).await.pop().expect("three")["position"].clone();
    let inbox_seen = ada.messages("@ada", 3).await.pop().expect("three")["position"].clone();
    drop(ada);
    for number in 3..200 {
        let node = if number % 2 == 0 { &one } else { &two };
        publish(node, json!({"topic": "t", "data": number})).await;
        publish(node, json!({"user": "ada", "data": number})).await;
    }
    let mut ada = Talk::connected(&three.connect_url("?user=ada&wait=1"), Encoding::MsgPack).await;
    let positions = json!({"t": seen, "@ada": inbox_seen});
    let welcome = ada
        .ask(json!({"type": "connect", "positions": positions}))
        .await;
    assert_eq!(welcome["type"], "welcome", "{welcome}");
    assert_eq!(
        welcome["topics"]["t"],
        json!({"recovered": true, "position": seen})
    );
    assert_eq!(welcome["topics"]["@ada"]["recovered"], true, "{welcome}");
    for topic in ["t", "@ada"] {
        assert_eq!(
            data_of(&ada.messages(topic, 197).await),
            numbers(3..200),
            "{topic}"
        );
    }
    publish(&two, json!({"topics": ["t"], "data": "live"})).await;
    assert_eq!(ada.message("t").await["data"], "live", "nothing came twice");
}

#[tokio::test]
async fn the_users_of_a_killed_node_resume_elsewhere_without_loss() {
    let redis = RedisServer::start().await;
    let [mut one, two, three] = three_nodes(&redis).await;
    let load = Load::start(&two, "t").await;
    load.goes_on(1).await;
    let mut users = Vec::new();
    for number in 0..4 {
        let user = format!("user-{number}");
        let mut talk = session(&one, &user, Encoding::Json).await;
        let ok = talk
            .ok(json!({"type": "subscribe", "topic": "t", "since": "0-0"}))
            .await;
        assert_eq!(ok["recovered"], true, "{ok}");
        users.push((user, talk));
    }
    load.goes_on(20).await;
    one.kill();
    load.goes_on(20).await;
    let mut resumed = Vec::new();
    for (number, (user, mut talk)) in users.into_iter().enumerate() {
        let mut heard = Vec::new();
        // What reached the socket before the node was killed, up to the end of the stream.
        while let Some(event) = talk.next().await {
            if event["topic"] == "t" && event["type"] == "message" {
                heard.push(event);
            }
        }
        let last = heard
            .last()
            .map_or(json!("0-0"), |message| message["position"].clone());
        let node = if number % 2 == 0 { &two } else { &three };
        let mut talk = session(node, &user, Encoding::MsgPack).await;
        let ok = talk
            .ok(json!({"type": "subscribe", "topic": "t", "since": last}))
            .await;
        assert_eq!(ok["recovered"], true, "{ok}");
        resumed.push((data_of(&heard), Listening::go_on(talk, "t")));
    }
    load.goes_on(20).await;
    let published = load.end().await;
    for (mut heard, listening) in resumed {
        heard.extend(listening.heard().await);
        assert_eq!(heard, published);
    }
}

#[tokio::test]
async fn every_node_names_the_same_home_for_a_user() {
    let redis = RedisServer::start().await;
    let nodes = three_nodes(&redis).await;
    let mut homes = std::collections::BTreeSet::new();
    for number in 0..60 {
        let path = format!("/v1/route?user=user-{number}");
        let mut answers = Vec::new();
        for node in &nodes {
            answers.push(http::get(node.api, &path).await.json());
        }
        assert!(answers[0]["node"].is_string(), "{}", answers[0]);
        assert!(
            answers.iter().all(|answer| *answer == answers[0]),
            "{answers:?}"
        );
        homes.insert(answers[0]["node"].to_string());
    }
    assert_eq!(homes.len(), nodes.len(), "every node is somebody's home");
    let route = http::get(nodes[0].api, "/v1/route?user=ada").await.json();
    for node in &nodes {
        let (_, welcome) = Talk::welcomed(&node.connect_url("?user=ada"), Encoding::Json).await;
        assert_eq!(welcome["home"]["node"], route["node"], "{welcome}");
    }
}

/// Three listeners on three nodes and a publisher on the first.
async fn under_load(nodes: &[Node; 3], topic: &str) -> (Load, Vec<Listening>) {
    let mut listening = Vec::new();
    for (node, wire) in nodes
        .iter()
        .zip([Encoding::Json, Encoding::MsgPack, Encoding::Json])
    {
        listening.push(Listening::start(node, "listener", wire, topic).await);
    }
    (Load::start(&nodes[0], topic).await, listening)
}

async fn all_heard_all(load: Load, listening: Vec<Listening>) {
    let published = load.end().await;
    for listener in listening {
        assert_eq!(listener.heard().await, published);
    }
}

#[tokio::test]
async fn redis_killed_and_restarted_under_load_loses_nothing_that_was_answered() {
    let mut redis = RedisServer::start().await;
    let nodes = three_nodes(&redis).await;
    let (load, listening) = under_load(&nodes, "t").await;
    for _ in 0..2 {
        load.goes_on(50).await;
        redis.kill();
        for node in &nodes {
            node.until_unready().await;
        }
        redis.restart().await;
        for node in &nodes {
            node.until_ready().await;
        }
    }
    load.goes_on(50).await;
    all_heard_all(load, listening).await;
}

#[tokio::test]
async fn connections_to_redis_cut_under_load_lose_nothing() {
    let redis = RedisServer::start().await;
    let nodes = three_nodes(&redis).await;
    for kind in ["pubsub", "normal"] {
        let (load, listening) = under_load(&nodes, kind).await;
        for _ in 0..5 {
            load.goes_on(20).await;
            // Right after a cut nobody may be connected yet.
            wait::until("somebody to be cut off", async || {
                let killed = redis.command(&["CLIENT", "KILL", "TYPE", kind]);
                killed.filter(|count| count != ":0")
            })
            .await;
        }
        load.goes_on(50).await;
        all_heard_all(load, listening).await;
    }
}

#[tokio::test]
async fn a_node_whose_redis_does_not_answer_starts_says_why_and_recovers() {
    let mut redis = RedisServer::not_yet();
    let node = Plan::clustered("one", &redis.url()).start_unready().await;
    let ready = http::get(node.api, "/health/ready").await;
    assert_eq!(ready.status, 503);
    assert!(
        ready.text().to_lowercase().contains("redis"),
        "it says why: {}",
        ready.text()
    );
    assert_eq!(http::get(node.api, "/health/live").await.status, 200);
    let mut raw = Raw::open(node.public).await;
    raw.send(&Handshake::to("/v1/connect?user=ada").bytes())
        .await;
    let head = raw.head().await.expect("an answer");
    assert_eq!(head.status, 503);
    assert!(head.header("retry-after").is_some(), "{head:?}");
    let refused = http::post(node.api, "/v1/publish", &json!({"topic": "t", "data": 1})).await;
    assert_eq!(refused.status, 503);
    assert!(refused.headers.contains_key("retry-after"));
    redis.restart().await;
    node.until_ready().await;
    let mut talk = session(&node, "ada", Encoding::Json).await;
    talk.ok(json!({"type": "subscribe", "topic": "t"})).await;
    publish(&node, json!({"topic": "t", "data": 1})).await;
    assert_eq!(talk.message("t").await["data"], 1);
}

#[tokio::test]
#[ignore = "long: scripts/test-long runs it"]
async fn a_resume_of_50_000_missed_messages_completes_in_order() {
    let _turn = turns::heavy().await;
    const MISSED: u64 = 50_000;
    const BATCH: u64 = 1_000;
    let redis = RedisServer::start().await;
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("fanfare.toml");
    let text = "[namespaces.long]\nhistory_entries_max = 60000\nsubscribe = \"anyone\"\n";
    std::fs::write(&path, text).expect("the directory can be written");
    let plan =
        |name| Plan::clustered(name, &redis.url()).flag(&format!("--config={}", path.display()));
    let (one, two) = tokio::join!(plan("one").start(), plan("two").start());
    let mut ada = session(&one, "ada", Encoding::Json).await;
    let ok = ada
        .ok(json!({"type": "subscribe", "topic": "long:1"}))
        .await;
    let seen = ok["position"].clone();
    drop(ada);
    for batch in 0..MISSED / BATCH {
        let numbers = batch * BATCH..(batch + 1) * BATCH;
        let items: Vec<_> = numbers
            .map(|number| json!({"topic": "long:1", "data": number}))
            .collect();
        let answer = http::post(one.api, "/v1/batch", &json!(items)).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    let before = two.resident_bytes();
    let mut ada = session(&two, "ada", Encoding::MsgPack).await;
    let ok = ada
        .ok(json!({"type": "subscribe", "topic": "long:1", "since": seen}))
        .await;
    assert_eq!(ok["recovered"], true, "{ok}");
    // The publisher goes on while the session catches up.
    publish(&one, json!({"topic": "long:1", "data": MISSED})).await;
    for number in 0..=MISSED {
        assert_eq!(ada.message("long:1").await["data"], number);
    }
    let grown = two.resident_bytes().saturating_sub(before);
    assert!(
        grown < 64 * 1024 * 1024,
        "grew by {grown} bytes: a resume is paced"
    );
}
