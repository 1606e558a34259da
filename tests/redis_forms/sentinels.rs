//! Behind sentinels: the master is found by its name, and found again when it is another one.

use serde_json::{Value, json};

use crate::rig::Peer;
use crate::two_nodes;
use fanfare_protocol::form::Encoding;
use fanfare_testkit::load::{Listening, Load};
use fanfare_testkit::node::Node;
use fanfare_testkit::redis_sentinels::{RedisSentinels, Sentinel};
use fanfare_testkit::redis_server::{self, RedisServer};
use fanfare_testkit::talk::Talk;
use fanfare_testkit::wait::PATIENCE;
use fanfare_testkit::{http, wait};

/// Whatever a master answered stands at its replica before the master goes: sentinels promise no
/// more than Redis does, and this test is about the nodes.
pub(crate) fn hold_writes(sentinels: &RedisSentinels, master: usize) {
    let answer = sentinels.servers[master].command(&["CLIENT", "PAUSE", "5000", "WRITE"]);
    assert_eq!(answer.as_deref(), Some("+OK"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_master_is_followed_whether_it_was_asked_for_or_the_old_one_died() {
    let mut sentinels = RedisSentinels::start().await;
    let other = sentinels.url().replace("master=main", "master=other");
    let hint = "no master called other; give its name as ?master=NAME";
    Peer::start(other).is_down_for(hint).await;
    let [one, two] = two_nodes(&sentinels.url()).await;
    let load = Load::start(&one, "t").await;
    let listening = [
        Listening::start(&one, "ada", Encoding::Json, "t").await,
        Listening::start(&two, "bob", Encoding::MsgPack, "t").await,
    ];
    let first = load.answered();
    load.goes_on(20).await;

    let master = sentinels.master().expect("the sentinels run");
    hold_writes(&sentinels, master);
    sentinels.fail_over().await;
    load.goes_on(20).await;

    // The old master is in step with the new one before that dies.
    sentinels.agree().await;
    let master = sentinels.master().expect("the sentinels run");
    hold_writes(&sentinels, master);
    sentinels.servers[master].kill();
    sentinels.is_not(master).await;
    load.goes_on(20).await;

    let answered = load.end().await;
    for listening in listening {
        listening.heard_all(&answered, first).await;
    }
    for node in [&one, &two] {
        assert!(node.metric("fanfare_topics_moved_total").await > 0);
        assert_eq!(node.metric("fanfare_gaps_total").await, 0);
    }
}

/// As on the wrong side of a partition: it heard of no failover, and names another master.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sentinel_that_knows_of_no_failover_is_outvoted() {
    let sentinels = RedisSentinels::start().await;
    let before = sentinels.master().expect("the sentinels run");
    sentinels.fail_over().await;
    let forgotten = RedisServer::start().await;
    let apart = Sentinel::start(&forgotten.port().to_string());
    wait::until("the lone sentinel", async || {
        let words = ["SENTINEL", "GET-MASTER-ADDR-BY-NAME", "main"];
        redis_server::ask(apart.address, &words)
    })
    .await;
    let scheme = "redis-sentinel://";
    let first = format!("{scheme}{},", apart.address);
    let peer = Peer::up(sentinels.url().replace(scheme, &first)).await;
    let now = sentinels.servers[1 - before].address().to_string();
    let circuits = peer.broker.circuits();
    assert!(
        circuits.iter().all(|(name, ..)| name.starts_with(&now)),
        "{circuits:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_misspelt_sentinel_is_told_while_the_others_work() {
    let sentinels = RedisSentinels::start().await;
    let scheme = "redis-sentinel://";
    let first = format!("{scheme}nowhere.invalid:26379,");
    let peer = Peer::up(sentinels.url().replace(scheme, &first)).await;
    let warnings = wait::until_within(PATIENCE, "a warning", async || {
        Some(peer.broker.warnings()).filter(|warnings| !warnings.is_empty())
    })
    .await;
    let words = "sentinel nowhere.invalid:26379 does not answer: ";
    assert!(
        warnings.len() == 1 && warnings[0].starts_with(words),
        "{warnings:?}"
    );
}

async fn publish(node: &Node, data: u64) -> Option<Value> {
    let answer = http::post(
        node.api,
        "/v1/publish",
        &json!({"topic": "t", "data": data}),
    )
    .await;
    (answer.status == 200).then(|| answer.json()["results"][0]["position"].clone())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_redis_lost_in_a_failover_is_told_to_the_session_that_had_it() {
    let mut sentinels = RedisSentinels::start().await;
    let [one, two] = two_nodes(&sentinels.url()).await;
    let (mut ada, _) = Talk::welcomed(&two.connect_url("?user=ada"), Encoding::Json).await;
    ada.be_patient(PATIENCE);
    ada.ok(json!({"type": "subscribe", "topic": "t"})).await;
    let kept = publish(&one, 0).await.expect("up");
    let master = sentinels.master().expect("the sentinels run");
    let replica = &sentinels.servers[1 - master];
    wait::until("the replica to have it", async || {
        (replica.command(&["XLEN", "ff:{45}{default:t}:s"])? == ":1").then_some(())
    })
    .await;

    // The replica misses what its master answers from now on.
    replica.signal("STOP");
    let cut = ["CLIENT", "KILL", "TYPE", "replica"];
    sentinels.servers[master]
        .command(&cut)
        .expect("the server runs");
    publish(&one, 1).await.expect("up");
    publish(&two, 2).await.expect("up");
    for data in 0..3 {
        assert_eq!(ada.message("t").await["data"], data);
    }
    sentinels.servers[master].kill();
    sentinels.servers[1 - master].signal("CONT");
    sentinels.is_not(master).await;

    let gap = ada.event_of("gap").await;
    assert_eq!((&gap["topic"], &gap["from"]), (&json!("t"), &kept), "{gap}");
    assert_eq!(gap["reason"], "failover");
    wait::until("a publication to be accepted", async || {
        publish(&one, 3).await
    })
    .await;
    assert_eq!(ada.message("t").await["data"], 3);
}
