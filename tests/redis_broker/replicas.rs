//! Publications that wait for replicas: what a failover loses without, and does not lose with them.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use fanfare::broker::unavailable::Unavailable;
use fanfare::broker::{BrokerError, FeedEvent, PublishRequest};
use futures_util::StreamExt;
use futures_util::stream::FuturesOrdered;
use serde_json::json;

use crate::failures::{misses_count, without_scripts};
use crate::refusing::partial;
use crate::rig::{Peer, REPLICAS_PATIENCE, number, request, topic, wanting};
use fanfare_protocol::form::Encoding;
use fanfare_testkit::node::Plan;
use fanfare_testkit::redis_server::RedisServer;
use fanfare_testkit::talk::Talk;
use fanfare_testkit::wait::PATIENCE;
use fanfare_testkit::{http, wait};

/// A master and a replica that has all it has.
pub(crate) async fn master_and_replica() -> (RedisServer, RedisServer) {
    let (master, replica) = tokio::join!(RedisServer::start(), RedisServer::start());
    let set = ["CONFIG", "SET", "repl-diskless-sync-delay", "0"];
    assert_eq!(master.command(&set).as_deref(), Some("+OK"));
    follow(&master, &replica).await;
    (master, replica)
}

/// Makes a server a replica of another one, and waits until it has all that one has.
async fn follow(master: &RedisServer, replica: &RedisServer) {
    let port = master.port().to_string();
    let follow = replica.command(&["REPLICAOF", "127.0.0.1", &port]);
    assert_eq!(follow.as_deref(), Some("+OK"));
    until_followed(master, replica).await;
}

/// Waits until the replica has what the master has now.
pub(crate) async fn until_followed(master: &RedisServer, replica: &RedisServer) {
    static MARKS: AtomicU32 = AtomicU32::new(0);
    let mark = format!("mark-{}", MARKS.fetch_add(1, Ordering::Relaxed));
    let set = master.command(&["SET", &mark, "1"]);
    assert_eq!(set.as_deref(), Some("+OK"));
    wait::until_within(PATIENCE, "the replica to follow", async || {
        (replica.command(&["EXISTS", &mark])? == ":1").then_some(())
    })
    .await;
}

/// A broker with a link for publications that wait, which is up too.
async fn peer(server: &RedisServer) -> Peer {
    Peer::replicated(server.url(), 1).await
}

/// Publishes numbers at once; those that were answered `ok`, and how many were told as unknown or
/// refused for want of replicas.
async fn publish(peer: &Peer, numbers: std::ops::Range<u64>, min: u32) -> (BTreeSet<u64>, usize) {
    let mut answers = FuturesOrdered::new();
    for n in numbers {
        let answer = peer.broker.publish(wanting(&topic("room"), n, min));
        answers.push_back(async move { (n, answer.await) });
    }
    let (mut accepted, mut unknown) = (BTreeSet::new(), 0);
    while let Some((n, answer)) = answers.next().await {
        match answer {
            Ok(_) => {
                accepted.insert(n);
            }
            Err(BrokerError::Unconfirmed(why)) => {
                assert!(why.contains("the replica 127.0.0.1:"), "{why}");
                unknown += 1;
            }
            // It is known by then that the replica is gone.
            Err(BrokerError::Unavailable(Unavailable::TooFewFollow { count: 0, .. })) => {
                unknown += 1;
            }
            Err(other) => panic!("{other}"),
        }
    }
    (accepted, unknown)
}

/// A failover that loses what the replica did not get. Returns those that were answered `ok` and
/// are gone, and how many were told as unknown.
async fn lost_by_failover(min: u32) -> (usize, usize) {
    let (mut master, replica) = master_and_replica().await;
    let before = peer(&master).await;
    let (mut accepted, unknown) = publish(&before, 0..500, min).await;
    assert_eq!((accepted.len(), unknown), (500, 0));
    until_followed(&master, &replica).await;
    replica.signal("STOP");
    // Without this what follows waits in the replica's socket and is not lost.
    let cut = master.command(&["CLIENT", "KILL", "TYPE", "replica"]);
    assert_eq!(cut.as_deref(), Some(":1"));
    let (more, unknown) = publish(&before, 500..1_000, min).await;
    accepted.extend(more);
    master.kill();
    replica.signal("CONT");
    wait::until_within(PATIENCE, "the replica to be promoted", async || {
        (replica.command(&["REPLICAOF", "NO", "ONE"])? == "+OK").then_some(())
    })
    .await;
    let after = Peer::up(replica.url()).await;
    let kept = after.retained(&topic("room")).await;
    let kept: BTreeSet<u64> = kept.into_iter().map(|(_, n)| n).collect();
    assert!(kept.len() >= 500, "{} kept", kept.len());
    (accepted.difference(&kept).count(), unknown)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_scripts_cost_nothing_that_waits_for_replicas() {
    let (master, replica) = master_and_replica().await;
    let peer = peer(&master).await;
    let published = publish(&peer, 0..2_000, 1);
    let (accepted, unknown) = without_scripts(&master, published).await;
    assert_eq!((accepted.len(), unknown), (2_000, 0));
    assert!(misses_count(&master) > 0, "none was missed");
    until_followed(&master, &replica).await;
    let kept = peer.retained(&topic("room")).await;
    assert!(kept.iter().map(|(_, n)| *n).eq(0..2_000));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lossy_failover_loses_what_was_answered_only_without_replicas_min() {
    let (lost, unknown) = lost_by_failover(0).await;
    println!("replicas_min = 0: {lost} answered ok and lost, {unknown} told as unknown");
    assert!(lost > 0, "nothing was lost, so nothing is shown");
    assert_eq!(unknown, 0);
    let (lost, unknown) = lost_by_failover(1).await;
    println!("replicas_min = 1: {lost} answered ok and lost, {unknown} told as unknown");
    assert_eq!((lost, unknown), (0, 500));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_only_others_than_the_promoted_replica_confirm_is_not_answered_ok() {
    let (master, promoted) = master_and_replica().await;
    let other = RedisServer::start().await;
    follow(&master, &other).await;
    let peer = peer(&master).await;
    let (accepted, unknown) = publish(&peer, 0..100, 1).await;
    assert_eq!((accepted.len(), unknown), (100, 0));
    // As in a failover by sentinels, before the old master and the nodes are told.
    let promote = promoted.command(&["REPLICAOF", "NO", "ONE"]);
    assert_eq!(promote.as_deref(), Some("+OK"));
    let (accepted, unknown) = publish(&peer, 100..200, 1).await;
    assert_eq!((accepted.len(), unknown), (0, 100));
    assert_eq!(peer.metrics.control.publish_unconfirmed.get(), 100);
    // A replica that does not become the master holds up nobody for ever.
    wait::until_within(PATIENCE, "the replica to be forgotten", async || {
        let (accepted, _) = publish(&peer, 200..201, 1).await;
        (accepted.len() == 1).then_some(())
    })
    .await;
}

/// Who follows is asked while nothing is published too, or the first publication after a quiet hour
/// would suffer for a replica that left in the middle of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_leaves_while_nothing_is_published_is_noticed_then() {
    let (master, _replica) = master_and_replica().await;
    let _peer = peer(&master).await;
    let asked = || {
        let said = master.ask(&["INFO", "commandstats"])?.join("");
        let role = said
            .lines()
            .find_map(|l| l.strip_prefix("cmdstat_role:calls="))?;
        role.split(',').next()?.parse::<u64>().ok()
    };
    let before = asked().expect("it was asked before");
    wait::until_within(PATIENCE, "the master to be asked twice", async || {
        (asked()? >= before + 2).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_confirm_nothing_in_a_connections_first_seconds() {
    let (master, _replica) = master_and_replica().await;
    let peer = Peer::start_with(&fanfare::config::Redis {
        replicas_min: 1,
        ..crate::rig::settings(master.url(), fanfare::config::RedisAccess::default())
    });
    peer.is_up().await;
    let confirmed = async || {
        let answer = peer.broker.publish(wanting(&topic("room"), 1, 1)).await;
        match answer {
            Err(BrokerError::Unavailable(why)) => Err(why),
            other => Ok(other.map(|published| published.position)),
        }
    };
    wait::until_within(PATIENCE, "the link", async || {
        let why = confirmed().await.expect_err("it is new");
        (why == Unavailable::NotYetPromised).then_some(())
    })
    .await;
    wait::until("a confirmation", async || confirmed().await.ok()?.ok()).await;
    // What was refused was not published.
    assert_eq!(peer.retained(&topic("room")).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_asks_for_more_replicas_than_there_are_holds_up_nobody() {
    let (master, _replica) = master_and_replica().await;
    let peer = peer(&master).await;
    let room = topic("room");
    let greedy = peer.broker.publish(wanting(&room, 1, 2));
    let modest = peer.broker.publish(wanting(&room, 2, 1));
    let (greedy, modest) = tokio::join!(greedy, modest);
    let why = Unavailable::TooFewFollow { count: 1, min: 2 };
    assert_eq!(greedy, Err(why.into()));
    modest.expect("its replica confirms");
    assert_eq!(peer.retained(&room).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everybody_is_told_that_too_few_replicas_follow() {
    const WHY: &str = "fewer replicas follow than replicas_min asks for (0 of 1)";
    let (master, replica) = tokio::join!(RedisServer::start(), RedisServer::start());
    let node = Plan::clustered("node-0", &master.url())
        .env("FANFARE_INBOX__REPLICAS_MIN", "1")
        .env("FANFARE_INBOX__PUBLISH", "anyone")
        .start()
        .await;
    let publish = async || {
        let publication = json!({"user": "bob", "data": 1});
        let answer = http::post(node.api, "/v1/publish", &publication).await;
        let message = answer.json()["error"]["message"]
            .as_str()
            .map(str::to_owned);
        (answer.status.as_u16(), message)
    };
    let told = format!("{WHY}; nothing was done");
    wait::until_within(PATIENCE, "a connection that is no longer new", async || {
        let (status, message) = publish().await;
        assert_eq!(status, 503, "{message:?}");
        (message? == told).then_some(())
    })
    .await;
    let (mut talk, _) = Talk::welcomed(&node.connect_url("?user=ada"), Encoding::Json).await;
    let command = json!({"type": "publish", "user": "bob", "data": 1});
    let refused = talk.refused(command, "unavailable").await;
    assert_eq!(refused["message"], told);
    talk.publish("room", json!(1)).await;
    let tells =
        |text: Option<String>| assert!(text.as_ref().is_some_and(|t| t.contains(WHY)), "{text:?}");
    tells(partial(&node).await);
    tells(Some(http::get(node.api, "/health/detailed").await.text()));
    assert_eq!(node.metric("fanfare_redis_followers").await, 0);
    let recovered = node.log_lines("redis_recovered").len();
    assert_eq!(node.until_told("redis_partly_lost").await.len(), 1);

    let set = ["CONFIG", "SET", "repl-diskless-sync-delay", "0"];
    assert_eq!(master.command(&set).as_deref(), Some("+OK"));
    follow(&master, &replica).await;
    wait::until_within(PATIENCE, "a confirmation", async || {
        (publish().await.0 == 200).then_some(())
    })
    .await;
    assert_eq!(partial(&node).await, None);
    assert_eq!(node.metric("fanfare_redis_followers").await, 1);
    wait::until("the end to be told", async || {
        (node.log_lines("redis_recovered").len() == recovered + 1).then_some(())
    })
    .await;
    assert_eq!(node.log_lines("redis_partly_lost").len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_order_of_a_topic_holds_over_many_batches() {
    let (master, _replica) = master_and_replica().await;
    let peer = peer(&master).await;
    let (accepted, _) = publish(&peer, 0..3_000, 1).await;
    assert_eq!(accepted.len(), 3_000);
    let retained = peer.retained(&topic("room")).await;
    let numbers: Vec<u64> = retained.iter().map(|(_, n)| *n).collect();
    assert_eq!(numbers, (0..3_000).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeat_is_answered_only_when_replicas_have_the_first_one() {
    let (master, replica) = master_and_replica().await;
    // Brokers of their own: since Redis 7.2 a WAIT speaks of the last write of its connection, and
    // that of the repeat is older than what it repeats.
    let [first, second, third] = [
        peer(&master).await,
        peer(&master).await,
        peer(&master).await,
    ];
    for peer in [&first, &second, &third] {
        let (accepted, _) = publish(peer, 0..1, 1).await;
        assert_eq!(accepted.len(), 1);
    }
    replica.signal("STOP");
    let keyed = PublishRequest {
        idempotency: Some(("u:ada:key".to_owned(), 300_000)),
        ..wanting(&topic("room"), 1, 1)
    };
    for peer in [&first, &second] {
        let answer = peer.broker.publish(keyed.clone()).await;
        let unconfirmed = format!("0 of 1 replicas confirmed within {REPLICAS_PATIENCE:?}");
        assert_eq!(answer, Err(BrokerError::Unconfirmed(unconfirmed)));
        assert_eq!(peer.metrics.control.publish_unconfirmed.get(), 1);
    }
    replica.signal("CONT");
    until_followed(&master, &replica).await;
    let answer = third.broker.publish(keyed).await.expect("confirmed");
    assert!(answer.duplicate);
    let retained = third.retained(&topic("room")).await;
    let of_key: Vec<_> = retained.iter().filter(|(_, n)| *n == 1).collect();
    assert_eq!(of_key, [&(answer.position, 1)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cut_connections_are_never_taken_for_a_confirmation() {
    let (master, replica) = master_and_replica().await;
    let peer = Arc::new(peer(&master).await);
    replica.signal("STOP");
    // A connection that is new knows of no write, and a WAIT on it would count at once.
    let room = topic("room");
    for n in 0..2 {
        peer.is_settled(1).await;
        let publishing = Arc::clone(&peer);
        let publishing = tokio::spawn(async move {
            let request = wanting(&topic("room"), n, 1);
            publishing.broker.publish(request).await
        });
        let sent = format!(":{}", n + 1);
        wait::until_within(PATIENCE, "it to be sent", async || {
            let length = master.command(&["XLEN", "ff:{160}{default:room}:s"])?;
            (length == sent).then_some(())
        })
        .await;
        let cut = master.command(&["CLIENT", "KILL", "TYPE", "normal"]);
        assert_ne!(cut.as_deref(), Some(":0"));
        let answer = publishing.await.expect("the task runs");
        answer.expect_err("its connection was cut");
        // On the new one nothing is even sent.
        let answer = peer.broker.publish(wanting(&room, 9, 1)).await;
        answer.expect_err("the connection is new");
    }
    replica.signal("CONT");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_for_replicas_holds_up_nobody_else() {
    let (master, replica) = master_and_replica().await;
    let mut peer = peer(&master).await;
    let room = topic("room");
    peer.hear(&room).await;
    replica.signal("STOP");
    let broker = Arc::clone(&peer.broker);
    let waiting = tokio::spawn(async move { broker.publish(wanting(&topic("room"), 1, 1)).await });
    // What waits is delivered at once, and others are answered meanwhile.
    let FeedEvent::Delivery { entry, .. } = peer.next().await else {
        panic!("expected a delivery");
    };
    assert_eq!(number(&entry), 1);
    let other = peer.broker.publish(request(&topic("other"), 2)).await;
    other.expect("the master is enough");
    assert!(!waiting.is_finished());
    let answer = waiting.await.expect("the task runs");
    answer.expect_err("the replica stands still");
    replica.signal("CONT");
}
