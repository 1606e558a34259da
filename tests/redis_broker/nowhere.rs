//! Deployments that may not be used yet: who asks is told why, in Redis' word where there is one.

use fanfare::broker::unavailable::Unavailable;
use fanfare::broker::{BrokerError, BrokerHealth};
use fanfare::config;
use fanfare::redis::nowhere::{Kind, Nowhere};
use serde_json::json;

use crate::rig::{Peer, settings, topic};
use fanfare_testkit::http;
use fanfare_testkit::node::{Node, Plan};
use fanfare_testkit::redis_server::{RedisServer, free_address};
use fanfare_testkit::wait::{self, PATIENCE};

fn done(server: &RedisServer, words: &[&str]) {
    assert_eq!(server.command(words).as_deref(), Some("+OK"), "{words:?}");
}

/// Waits until publishing is refused for want of a place, for a reason of which this is true.
async fn is_nowhere(peer: &Peer, what: &str, is_it: impl Fn(&Nowhere) -> bool) -> String {
    let room = topic("room");
    wait::until(what, async || match peer.publish(&room, 1).await {
        Err(error @ BrokerError::Unavailable(_)) => {
            let BrokerError::Unavailable(Unavailable::Nowhere(nowhere)) = &error else {
                panic!("expected no place, got {error:?}");
            };
            let told = error.told().message.to_string();
            is_it(nowhere).then_some(told)
        }
        other => panic!("expected a refusal, got {other:?}"),
    })
    .await
}

/// The same where nothing is known but this word.
async fn is_refused_as(peer: &Peer, kind: Kind, word: &str) {
    let is_it = |nowhere: &Nowhere| {
        nowhere.kind == kind && nowhere.refusal.is_some_and(|refusal| refusal.word == word)
    };
    let told = is_nowhere(peer, word, is_it).await;
    assert!(told.contains(word), "{told}");
    assert!(!told.contains("127.0.0.1"), "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_comparison_that_redis_refuses_is_told_in_its_word() {
    let login = |server: &RedisServer, login: &str| {
        server
            .url()
            .replace("redis://", &format!("redis://{login}@"))
    };
    // The server wants a password and gets none, or a wrong one.
    let server = RedisServer::start().await;
    done(
        &server,
        &[
            "ACL", "SETUSER", "node", "on", ">secret", "~*", "&*", "+@all",
        ],
    );
    let wrong = Peer::start(login(&server, "node:wrong"));
    is_refused_as(&wrong, Kind::Uncompared, "WRONGPASS").await;
    drop(wrong);
    // It may do all but read what nodes agree on.
    done(&server, &["ACL", "SETUSER", "node", "-get"]);
    let peer = Peer::start(login(&server, "node:secret"));
    is_refused_as(&peer, Kind::Uncompared, "NOPERM").await;
    // The master is up, and what it has may not be used.
    let says_why = |why: &str| {
        ["fp in Redis", "the user lacks a right"].map(|words| why.contains(words)) == [true; 2]
    };
    peer.is_partly_up_where(says_why).await;
    done(&server, &["ACL", "SETUSER", "node", "+get"]);
    peer.is_up().await;
    peer.publish(&topic("room"), 1).await.expect("compared");
    drop(peer);
    // A first start has to write it.
    let full = RedisServer::start().await;
    done(&full, &["CONFIG", "SET", "maxmemory", "1"]);
    let peer = Peer::start(full.url());
    is_refused_as(&peer, Kind::Uncompared, "OOM").await;
    done(&full, &["CONFIG", "SET", "maxmemory", "0"]);
    peer.is_up().await;
    drop(peer);
    done(&full, &["CONFIG", "SET", "requirepass", "secret"]);
    let peer = Peer::start(full.url());
    is_refused_as(&peer, Kind::Uncompared, "NOAUTH").await;
    // A server that has become a replica.
    let replica = RedisServer::start().await;
    done(
        &replica,
        &["REPLICAOF", "127.0.0.1", &server.port().to_string()],
    );
    let peer = Peer::start(replica.url());
    is_refused_as(&peer, Kind::Uncompared, "READONLY").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn masters_that_nobody_knows_are_told_as_that() {
    let server = RedisServer::start().await;
    let of_cluster = server.url().replace("redis://", "redis-cluster://");
    let peer = Peer::start(of_cluster);
    is_refused_as(&peer, Kind::Masterless, "NOCLUSTER").await;
    // As one of those that refuse, though it is no master.
    let refusing = || peer.metrics.control.refusing_nocluster.get();
    assert_eq!(refusing(), 1);
    peer.broker.stop().await;
    assert_eq!(refusing(), 0);
    let of_sentinels = server.url().replace("redis://", "redis-sentinel://");
    let peer = Peer::start(format!("{of_sentinels}?master=main"));
    is_refused_as(&peer, Kind::Masterless, "NOSENTINEL").await;
    // Nobody answers at all.
    let peer = Peer::start(format!("redis-cluster://{}", free_address()));
    let told = is_nowhere(&peer, "no master", |nowhere| {
        nowhere.kind == Kind::Masterless && nowhere.to_string().contains("refused")
    });
    assert_eq!(
        told.await,
        "no master of Redis is known yet; nothing was done"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_that_nobody_serves_is_told_as_that() {
    let mut server = RedisServer::with(&["--cluster-enabled", "yes"]);
    server.restart().await;
    done(
        &server,
        &["CONFIG", "SET", "cluster-require-full-coverage", "no"],
    );
    done(&server, &["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]);
    let url = server.url().replace("redis://", "redis-cluster://");
    let peer = Peer::start_with(&settings(url, config::RedisAccess::default()));
    peer.is_up().await;
    let slot = server
        .ask(&["CLUSTER", "KEYSLOT", "ff:{160}{default:room}:s"])
        .unwrap();
    done(&server, &["CLUSTER", "DELSLOTS", &slot[0]]);
    let room = topic("room");
    let told = wait::until_within(PATIENCE, "the slot to be missed", async || {
        match peer.publish(&room, 1).await {
            Err(error @ BrokerError::Unavailable(Unavailable::Nowhere(_))) => Some(error.told()),
            // Until the layout is known; Redis has a word for it.
            Err(_) => None,
            Ok(_) => panic!("nobody serves it"),
        }
    });
    let expected = "no master of Redis serves the slot of the topic; nothing was done";
    assert_eq!(told.await.message, expected);
    // Health and metrics tell it too, for as long as it is so.
    peer.is_partly_up_where(|reason| reason.starts_with("1 slots of Redis"))
        .await;
    let unserved = || peer.metrics.control.slots_unserved.get();
    assert_eq!(unserved(), 1);
    done(&server, &["CLUSTER", "ADDSLOTS", &slot[0]]);
    peer.is_up().await;
    assert_eq!(unserved(), 0);
    peer.publish(&room, 1).await.expect("it is served again");
}

/// The first start of several deployments needs all of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_first_start_that_waits_for_another_deployment_names_it_and_its_word() {
    let (east, west) = (RedisServer::start().await, RedisServer::start().await);
    done(&west, &["CONFIG", "SET", "requirepass", "secret"]);
    let url = format!("{}?name=east", east.url());
    let shards = [format!("{}?name=west", west.url())];
    let peer = Peer::over(url, &shards);
    is_refused_as(&peer, Kind::Uncompared, "NOAUTH").await;
    let names_it = |health: &BrokerHealth| match health {
        BrokerHealth::Partly(reason) | BrokerHealth::Down(reason) => {
            reason.contains("its first start needs Redis west too")
        }
        BrokerHealth::Up | BrokerHealth::ReadOnly(_) => false,
    };
    let mut health = peer.broker.health();
    let waited = tokio::time::timeout(PATIENCE, health.wait_for(names_it)).await;
    assert!(waited.is_ok(), "{:?}", peer.broker.health().borrow());
}

/// Whether the queue of a partition can be asked for is the word of its master alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_queues_of_a_deployment_are_away_while_it_is_and_no_others() {
    let (east, mut west) = (RedisServer::start().await, RedisServer::start().await);
    let url = format!("{}?name=east", east.url());
    let peer = Peer::over(url, &[format!("{}?name=west", west.url())]);
    peer.is_up().await;
    let away = || (0..256).filter(|partition| peer.broker.is_queue_away(*partition));
    assert_eq!(away().count(), 0);
    let calls = (0..256).map(|partition| peer.broker.queue_call_of(partition));
    let calls: Vec<_> = calls.map(|call| call.expect("a master").feed).collect();
    west.kill();
    peer.is_partly_up().await;
    let there: Vec<_> = away().map(|one| calls[one as usize]).collect();
    assert!(there.windows(2).all(|two| two[0] == two[1]), "{there:?}");
    let its = calls.iter().filter(|feed| **feed == there[0]);
    assert_eq!(there.len(), its.count());
    assert!(there.len() < 256);
    west.restart().await;
    peer.is_up().await;
    assert_eq!(away().count(), 0);
}

async fn refused(node: &Node, name: &str) -> Option<String> {
    let publication = json!({"topic": name, "data": 1});
    let answer = http::post(node.api, "/v1/publish", &publication).await;
    (answer.status == 503).then(|| answer.text())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_tells_callers_and_its_log_that_a_deployment_is_not_compared() {
    let (east, west) = (RedisServer::start().await, RedisServer::start().await);
    let url = format!("{}?name=east", east.url());
    let shard = format!("{}?name=west", west.url());
    let plan = |name: &str| Plan::clustered(name, &url).env("FANFARE_REDIS__SHARDS", &shard);
    drop(plan("one").start().await);
    // Its key alone is refused, so nothing else says so.
    done(&west, &["ACL", "SETUSER", "default", "-get"]);
    let node = plan("two").start().await;
    let names: Vec<_> = (0..32).map(|n| format!("t{n}")).collect();
    let told = wait::until_within(PATIENCE, "a topic of the other", async || {
        for name in &names {
            if let Some(told) = refused(&node, name).await {
                return Some(told);
            }
        }
        None
    })
    .await;
    let what = "this node has not compared yet what its cluster agreed on, because Redis cannot";
    assert!(told.contains(what) && told.contains("NOPERM"), "{told}");
    let lines = node.until_told("comparison_failed").await;
    assert_eq!(lines.len(), 1, "{lines:?}");
    let line = lines[0].to_string();
    assert!(line.contains("west") && line.contains("NOPERM"), "{line}");
    done(&west, &["ACL", "SETUSER", "default", "+get"]);
    wait::until_within(PATIENCE, "all topics", async || {
        for name in &names {
            if refused(&node, name).await.is_some() {
                return None;
            }
        }
        Some(())
    })
    .await;
    wait::until_within(PATIENCE, "that to be told", async || {
        (node.log_lines("deployment_compared").len() == 2).then_some(())
    })
    .await;
}
