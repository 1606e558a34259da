//! Three real nodes over one real Redis: whoever is revoked on one is out on all, whatever happens to
//! a node and to Redis meanwhile.

use std::time::{Duration, Instant};

use fanfare_protocol::form::Encoding;
use fanfare_testkit::http::{self, Answer};
use fanfare_testkit::node::{Node, Plan};
use fanfare_testkit::redis_server::RedisServer;
use fanfare_testkit::talk::Talk;
use fanfare_testkit::tokens::{self, seconds_from_now};
use fanfare_testkit::wait;
use serde_json::{Value, json};

/// Within so long a session must end once its node can be reached. The machine of a test may have much
/// else to do.
const BOUND: Duration = Duration::from_secs(1);

fn plan(name: &str, redis: &RedisServer) -> Plan {
    Plan::clustered(name, &redis.url()).env("FANFARE_AUTH__HMAC_SECRET", tokens::SECRET)
}

async fn three_nodes(redis: &RedisServer) -> [Node; 3] {
    let start = |name: &'static str| plan(name, redis).start();
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

fn token(user: &str, issued_ago: i64) -> String {
    tokens::signed(&json!({
        "sub": user,
        "iat": seconds_from_now(-issued_ago),
        "exp": seconds_from_now(600),
    }))
}

async fn session(node: &Node, token: &str) -> Talk {
    Talk::welcomed(
        &node.connect_url(&format!("?token={token}")),
        Encoding::Json,
    )
    .await
    .0
}

/// What a token that is no good is told.
async fn refusal(node: &Node, token: &str) -> Value {
    let url = node.connect_url(&format!("?token={token}"));
    let mut talk = Talk::connected(&url, Encoding::Json).await;
    talk.event_of("error").await
}

async fn revoke(node: &Node, user: &str) -> Answer {
    http::post(node.api, &format!("/v1/users/{user}/revoke"), &json!({})).await
}

#[tokio::test]
async fn a_user_who_is_revoked_on_one_node_is_out_on_all() {
    let redis = RedisServer::start().await;
    let nodes = three_nodes(&redis).await;
    let old = token("ada", 10);
    let mut sessions = Vec::new();
    for node in &nodes {
        sessions.push(session(node, &old).await);
    }
    let mut bob = session(&nodes[2], &token("bob", 10)).await;
    let answer = revoke(&nodes[0], "ada").await;
    let told = answer.json();
    assert_eq!(
        (answer.status.as_u16(), &told["waiting"]),
        (200, &json!([])),
        "{told}"
    );
    assert_eq!(
        (&told["user"], &told["sessions"]),
        (&json!("ada"), &json!(3))
    );
    for session in &mut sessions {
        assert_eq!(session.close_code().await, Some(4002));
    }
    for node in &nodes {
        let error = refusal(node, &old).await;
        assert_eq!(error["message"], "the token was revoked: get a new one");
    }
    bob.ok(json!({"type": "ping"})).await;
    let nobody = revoke(&nodes[1], "nobody").await;
    assert_eq!(
        (nobody.status.as_u16(), &nobody.json()["sessions"]),
        (200, &json!(0))
    );
}

/// Revokes these users, a hundred a second, and counts the answers: 200, and 202 for the third node.
async fn revoke_all(node: &Node, users: std::ops::Range<u64>) -> (usize, usize) {
    let first = users.start;
    let calls = users.map(|number| async move {
        tokio::time::sleep(Duration::from_millis((number - first) * 10)).await;
        revoke(node, &format!("user-{number}")).await
    });
    let (mut known, mut late) = (0, 0);
    for answer in futures_util::future::join_all(calls).await {
        match answer.status.as_u16() {
            200 => known += 1,
            202 => {
                assert_eq!(answer.json()["waiting"], json!(["three"]));
                late += 1;
            }
            other => panic!("{other}: {}", answer.text()),
        }
    }
    (known, late)
}

#[tokio::test]
async fn a_node_that_stood_still_ends_them_within_a_second_of_going_on() {
    let redis = RedisServer::start().await;
    let [one, two, three] = three_nodes(&redis).await;
    let (mut there, mut away) = (Vec::new(), Vec::new());
    for number in 0..30 {
        let token = token(&format!("user-{}", number * 10), 10);
        match number % 2 {
            0 => there.push(session(&two, &token).await),
            _ => away.push(session(&three, &token).await),
        }
    }
    let mut stays = session(&three, &token("stays", 10)).await;
    three.signal("STOP");
    let (_, late) = revoke_all(&one, 0..200).await;
    assert!(
        late > 0,
        "a node that stands still is waited for while it has a lease"
    );
    wait::until("the lease to end", async || {
        let seen = http::get(one.api, "/v1/nodes").await.json();
        (seen["nodes"].as_array()?.len() == 2).then_some(())
    })
    .await;
    assert_eq!(revoke_all(&one, 200..300).await, (100, 0));
    for session in &mut there {
        assert_eq!(session.close_code().await, Some(4002));
    }
    three.signal("CONT");
    let on = Instant::now();
    for session in &mut away {
        assert_eq!(session.close_code().await, Some(4002));
    }
    let took = on.elapsed();
    assert!(took < BOUND, "{took:?}");
    stays.ok(json!({"type": "ping"})).await;
    let error = refusal(&three, &token("user-7", 10)).await;
    assert_eq!(error["code"], "unauthorized", "{error}");
}

#[tokio::test]
async fn what_redis_lost_is_written_back_and_holds_for_nodes_that_come() {
    let mut redis = RedisServer::start().await;
    let nodes = three_nodes(&redis).await;
    let old = token("ada", 10);
    assert_eq!(revoke(&nodes[0], "ada").await.status.as_u16(), 200);
    let bob = token("bob", 10);
    let mut of_bob = session(&nodes[1], &bob).await;
    redis.kill_with_data();
    redis.restart().await;
    wait::until("the revocation to be written back", async || {
        let there = redis.command(&["HEXISTS", "ff:{rv}:h", "u default ada"]);
        there.as_deref() == Some(":1")
    })
    .await;
    for node in &nodes {
        node.until_ready().await;
        wait::until("tokens to be judged", async || {
            let error = refusal(node, &old).await;
            (error["code"] == "unauthorized").then_some(())
        })
        .await;
    }
    let fourth = plan("four", &redis).start().await;
    let error = refusal(&fourth, &old).await;
    assert_eq!(error["message"], "the token was revoked: get a new one");
    let mut restored = 0;
    for node in &nodes {
        restored += node.metric("fanfare_revocations_restored_total").await;
    }
    assert!(restored > 0);
    wait::until("all nodes to read", async || {
        (revoke(&fourth, "bob").await.status.as_u16() == 200).then_some(())
    })
    .await;
    assert_eq!(of_bob.close_code().await, Some(4002));
}

#[tokio::test]
async fn a_node_that_cannot_read_takes_no_token_and_says_so() {
    let redis = RedisServer::start().await;
    let node = plan("one", &redis).start().await;
    let ada = token("ada", 10);
    let mut stays = session(&node, &ada).await;
    let answer = revoke(&node, "bob").await;
    assert_eq!(answer.status.as_u16(), 200, "{}", answer.text());
    redis.signal("STOP");
    let part = wait::until("the node to say so", async || {
        let health = http::get(node.api, "/health/detailed").await.json();
        let parts = health["components"].as_array()?.clone();
        let part = parts
            .into_iter()
            .find(|part| part["name"] == "revocations")?;
        (part["state"] == "degraded").then_some(part)
    })
    .await;
    assert_eq!(
        part["reason"],
        "revocations could not be read for too long, so no token is taken"
    );
    // A node without Redis lets nobody in, so whoever is there asks.
    let refresh = |token: &str| json!({"type": "refresh", "token": token});
    let error = stays.refused(refresh(&ada), "unavailable").await;
    assert_eq!(
        error["message"],
        "whether the token was revoked is not known at the moment: try again"
    );
    stays.ok(json!({"type": "ping"})).await;
    let bob = token("bob", 10);
    let error = stays.refused(refresh(&bob), "unauthorized").await;
    assert_eq!(
        error["message"], "the token was revoked: get a new one",
        "what it knows it says"
    );
    let refused = revoke(&node, "ada").await;
    assert_eq!(refused.status.as_u16(), 503, "{}", refused.text());
    redis.signal("CONT");
    wait::until("tokens to be taken again", async || {
        let url = node.connect_url(&format!("?token={ada}"));
        let mut talk = Talk::open(&url, Encoding::Json, &[]).await.ok()?;
        let first = talk.next().await?;
        (first["type"] == "welcome" || first["code"] == "unauthorized").then_some(())
    })
    .await;
}

/// What other hands may do to the keys, and one entry among them.
const DAMAGES: &[&[&str]] = &[
    &["HDEL", "ff:{rv}:h", "u default eve"],
    &["HSET", "ff:{rv}:h", "u default eve", "banana"],
    &["HSET", "ff:{rv}:h", "foreign", "y"],
    &["DEL", "ff:{rv}:m"],
    &["DEL", "ff:{rv}:at"],
    &["DEL", "ff:{rv}:h"],
    &["SET", "ff:{rv}:at", "text"],
];

#[tokio::test]
async fn what_other_hands_do_to_single_keys_is_put_right_and_keeps_nobody_out() {
    let redis = RedisServer::start().await;
    let nodes = three_nodes(&redis).await;
    let eve = token("eve", 10);
    assert_eq!(revoke(&nodes[0], "eve").await.status.as_u16(), 200);
    for (number, damage) in DAMAGES.iter().enumerate() {
        let done = redis.command(damage);
        assert!(
            done.is_some_and(|answer| !answer.starts_with('-')),
            "{damage:?}"
        );
        // A node that begins meanwhile reads what nobody else has noticed.
        let mut new = plan(&format!("new-{number}"), &redis).start().await;
        for node in nodes.iter().chain([&new]) {
            wait::until("tokens to be judged as before", async || {
                let error = refusal(node, &eve).await;
                (error["code"] == "unauthorized").then_some(())
            })
            .await;
            drop(session(node, &token("bob", 10)).await);
        }
        wait::until("all nodes to agree with Redis", async || {
            let user = format!("somebody-{number}");
            (revoke(&new, &user).await.status.as_u16() == 200).then_some(())
        })
        .await;
        let there = redis.command(&["HEXISTS", "ff:{rv}:h", "u default eve"]);
        assert_eq!(there.as_deref(), Some(":1"), "{damage:?}");
        new.terminate().await;
    }
}

#[tokio::test]
async fn a_node_that_has_not_joined_knows_nobody_and_promises_nothing() {
    let redis = RedisServer::start().await;
    let [one, two, three] = three_nodes(&redis).await;
    let old = token("ada", 10);
    let _there = session(&two, &old).await;
    one.signal("KILL");
    two.signal("STOP");
    // It looks for a while whether the one of before still lives, and its API answers meanwhile.
    let again = plan("one", &redis).start_unready().await;
    let answer = wait::until("its API to answer", async || {
        let answer = http::try_post(again.api, "/v1/users/ada/revoke", &json!({})).await?;
        (answer.status.as_u16() != 503).then_some(answer)
    })
    .await;
    let waiting = answer.json()["waiting"].clone();
    assert_eq!(answer.status.as_u16(), 202, "{waiting}");
    two.signal("CONT");
    drop(three);
}

#[tokio::test]
async fn a_user_is_put_out_also_where_memory_is_used_up() {
    let redis = RedisServer::start().await;
    let node = plan("one", &redis).start().await;
    let ada = token("ada", 10);
    let mut of_ada = session(&node, &ada).await;
    redis.ask(&["CONFIG", "SET", "maxmemory", "1"]).unwrap();
    let answer = revoke(&node, "ada").await;
    assert_eq!(answer.status.as_u16(), 200, "{}", answer.text());
    assert_eq!(of_ada.close_code().await, Some(4002));
    let error = refusal(&node, &ada).await;
    assert_eq!(error["message"], "the token was revoked: get a new one");
}

#[tokio::test]
async fn a_node_that_stood_still_sends_nothing_that_was_published_after_the_answer() {
    let redis = RedisServer::start().await;
    let nodes = three_nodes(&redis).await;
    let users: Vec<_> = (0..8).map(|number| format!("still-{number}")).collect();
    let mut sessions = Vec::new();
    for user in &users {
        sessions.push(session(&nodes[2], &token(user, 10)).await);
    }
    let mut other = session(&nodes[2], &token("other", 10)).await;
    nodes[2].signal("STOP");
    tokio::time::sleep(Duration::from_secs(6)).await;
    for user in &users {
        let answer = revoke(&nodes[0], user).await;
        assert!(
            matches!(answer.status.as_u16(), 200 | 202),
            "{}",
            answer.text()
        );
    }
    let body = json!({"users": users, "data": "secret"});
    assert_eq!(
        http::post(nodes[0].api, "/v1/publish", &body).await.status,
        200
    );
    let body = json!({"user": "other", "data": "hello"});
    assert_eq!(
        http::post(nodes[0].api, "/v1/publish", &body).await.status,
        200
    );
    nodes[2].signal("CONT");
    for (user, session) in users.iter().zip(&mut sessions) {
        while let Some(event) = session.next().await {
            assert_ne!(event["type"], "message", "{user} got {event}");
        }
    }
    assert_eq!(other.message("@other").await["data"], "hello");
}
