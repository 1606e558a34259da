//! Redis away, back, deaf, forgetful, or no master any more.

use std::sync::Arc;
use std::time::Duration;

use fanfare::broker::{Acked, BrokerError, BrokerHealth, FeedEvent, Published};
use fanfare::redis::refusal::REFUSALS;
use fanfare_protocol::ids::{Position, SessionId};
use futures_util::StreamExt;
use futures_util::stream::FuturesOrdered;
use tokio::task::JoinHandle;

use crate::deaf_proxy::DeafProxy;
use crate::rig::{HISTORY, Peer, Reader, request, topic};
use fanfare_testkit::redis_server::RedisServer;
use fanfare_testkit::wait::{self, PATIENCE};

/// Publishes 1, 2, … one after the other until `enough` were accepted after `go_on` was told.
/// Returns what was accepted, and whether any answer was "unknown".
fn load(peer: &Arc<Peer>, go_on: &Arc<tokio::sync::Notify>) -> JoinHandle<Vec<(Position, u64)>> {
    const ENOUGH: usize = 300;
    let (peer, go_on) = (Arc::clone(peer), Arc::clone(go_on));
    tokio::spawn(async move {
        let topic = topic("load");
        let mut accepted = Vec::new();
        let mut enough = usize::MAX;
        let mut n = 0;
        let told = go_on.notified();
        tokio::pin!(told);
        while accepted.len() < enough {
            n += 1;
            tokio::select! {
                biased;
                () = &mut told, if enough == usize::MAX => enough = accepted.len() + ENOUGH,
                () = std::future::ready(()) => {}
            }
            match peer.publish(&topic, n).await {
                Ok(Published { position, .. }) => accepted.push((position, n)),
                Err(BrokerError::Unexpected(what)) => panic!("{what}"),
                // Away: not asked again at once.
                Err(_) => tokio::time::sleep(Duration::from_millis(2)).await,
            }
        }
        accepted
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_accepted_is_missing_after_redis_was_killed_under_load() {
    let mut server = RedisServer::start().await;
    let publisher = Arc::new(Peer::up(server.url()).await);
    let mut listener = Peer::up(server.url()).await;
    let load_topic = topic("load");
    listener.hear(&load_topic).await;
    let go_on = Arc::new(tokio::sync::Notify::new());
    let load = load(&publisher, &go_on);
    let mut reader = Reader::new(&load_topic);
    while reader.read.len() < 200 {
        let event = listener.next().await;
        reader.take(&listener, event).await;
    }

    server.kill();
    let reason = listener.is_down().await;
    assert!(
        reason.contains("Redis") || reason.contains("feed"),
        "{reason}"
    );
    publisher.is_down().await;
    server.restart().await;
    publisher.is_up().await;
    listener.is_up().await;
    while reader.breaks == 0 {
        let event = listener.next().await;
        reader.take(&listener, event).await;
    }
    // The break is told when the subscriptions stand: what is published from now on arrives by
    // itself, and the reader needs the stream no more.
    let repaired = reader.repaired;
    go_on.notify_one();
    let accepted = load.await.expect("the load runs");
    let (_, newest) = *accepted.last().expect("some were accepted");
    while reader.newest() < Some(newest) {
        let event = listener.next().await;
        reader.take(&listener, event).await;
    }
    assert_eq!((reader.breaks, reader.repaired), (1, repaired));

    let retained = listener.retained(&load_topic).await;
    assert_eq!(reader.read, retained);
    let missing: Vec<_> = accepted.iter().filter(|a| !retained.contains(a)).collect();
    assert!(missing.is_empty(), "accepted but not retained: {missing:?}");
    // Neither doubled nor reordered, those included whose answer was lost.
    assert!(retained.is_sorted_by(|(_, a), (_, b)| a < b));
    assert!(listener.metrics.control.redis_reconnects.get() >= 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_feed_breaks_and_the_stream_has_exactly_what_was_missed() {
    let server = RedisServer::start().await;
    let publisher = Arc::new(Peer::up(server.url()).await);
    let mut listener = Peer::up(server.url()).await;
    let load_topic = topic("load");
    listener.hear(&load_topic).await;
    let go_on = Arc::new(tokio::sync::Notify::new());
    let load = load(&publisher, &go_on);
    let mut reader = Reader::new(&load_topic);
    for cut in 1..=3 {
        while reader.read.len() < 200 * cut {
            let event = listener.next().await;
            reader.take(&listener, event).await;
        }
        server
            .command(&["CLIENT", "KILL", "TYPE", "pubsub"])
            .expect("the server runs");
        while (reader.breaks as usize) < cut {
            let event = listener.next().await;
            reader.take(&listener, event).await;
        }
    }
    go_on.notify_one();
    let accepted = load.await.expect("the load runs");
    let (_, newest) = *accepted.last().expect("some were accepted");
    while reader.newest() < Some(newest) {
        let event = listener.next().await;
        reader.take(&listener, event).await;
    }
    // Only the feed was cut, so every publication was accepted.
    let every: Vec<u64> = (1..=newest).collect();
    let numbers: Vec<u64> = reader.read.iter().map(|(_, n)| *n).collect();
    assert_eq!(numbers, every);
    assert_eq!(accepted, reader.read);
    assert!(
        reader.repaired > 0,
        "nothing was missed, so nothing was shown"
    );
    assert_eq!(reader.breaks, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_without_redis_says_why_and_comes_up_when_it_appears() {
    let mut server = RedisServer::not_yet();
    let mut peer = Peer::start(server.url());
    let room = topic("room");
    let wish = peer.broker.interest().want(room.clone());
    peer.is_down_for("Connection refused").await;
    let refused = peer.publish(&room, 1).await;
    assert!(
        matches!(refused, Err(BrokerError::Unavailable(_))),
        "{refused:?}"
    );
    let refused = peer.broker.last(&room, HISTORY, true).await;
    assert!(
        matches!(refused, Err(BrokerError::Unavailable(_))),
        "{refused:?}"
    );

    server.restart().await;
    peer.is_up().await;
    // The wish was kept.
    let confirmed = FeedEvent::Subscribed(vec![(room.clone(), wish)]);
    assert_eq!(peer.next().await, confirmed);
    peer.publish(&room, 2).await.expect("the broker is up");
    assert!(matches!(peer.next().await, FeedEvent::Delivery { .. }));
    assert_eq!(
        peer.broker.maxmemory_policy().as_deref(),
        Some("noeviction")
    );
}

/// Takes all scripts away every few milliseconds until `work` is done.
pub(crate) async fn without_scripts<T>(server: &RedisServer, work: impl Future<Output = T>) -> T {
    let mut ticks = tokio::time::interval(Duration::from_millis(5));
    // Where the machine was busy, what was missed is not made up for: a call must have a chance.
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    tokio::pin!(work);
    loop {
        tokio::select! {
            done = &mut work => break done,
            _ = ticks.tick() => {
                let flushed = server.command(&["SCRIPT", "FLUSH"]);
                assert_eq!(flushed.as_deref(), Some("+OK"));
            }
        }
    }
}

/// How often a script was not known.
pub(crate) fn misses_count(server: &RedisServer) -> u64 {
    let stats = server.ask(&["INFO", "errorstats"]).expect("it runs");
    let stats = stats.join("\n");
    let (_, count) = stats.split_once("errorstat_NOSCRIPT:count=").expect("some");
    let end = count.find(|c: char| !c.is_ascii_digit());
    count[..end.unwrap_or(count.len())]
        .parse()
        .expect("a count")
}

/// Publishes every second number at once; where each stands.
async fn publish_at_once(peer: &Peer, first: u64) -> Vec<(Position, u64)> {
    let room = topic("room");
    let numbers = (first..=12_000).step_by(2);
    let publish = |n| {
        let answer = peer.broker.publish(request(&room, n));
        async move { (answer.await.expect("nothing is refused").position, n) }
    };
    let answers: FuturesOrdered<_> = numbers.map(publish).collect();
    answers.collect().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_scripts_cost_no_publication_and_no_order() {
    let server = RedisServer::start().await;
    let (odd, even) = tokio::join!(Peer::up(server.url()), Peer::up(server.url()));
    let published = async { tokio::join!(publish_at_once(&odd, 1), publish_at_once(&even, 2)) };
    let (odds, evens) = without_scripts(&server, published).await;
    assert!(misses_count(&server) > 10, "none was missed");
    assert!(odds.is_sorted() && evens.is_sorted());
    let mut all = [odds, evens].concat();
    all.sort_unstable();
    assert_eq!(odd.retained(&topic("room")).await, all);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn questions_are_answered_though_scripts_are_lost() {
    let server = RedisServer::start().await;
    let peer = Peer::up(server.url()).await;
    let questions = async {
        for n in 1..=500 {
            let inbox = topic("@bob");
            let published = peer.publish(&inbox, n).await.expect("published");
            let (at, session) = (published.position, SessionId::random());
            let (acked, last, summary) = tokio::join!(
                peer.broker.ack(&inbox, at, session, HISTORY),
                peer.broker.last(&inbox, HISTORY, false),
                peer.broker.inbox(&inbox, HISTORY),
            );
            assert_eq!(acked, Ok(Acked::Cursor(at)));
            assert!(last.is_ok() && summary.is_ok(), "{last:?}, {summary:?}");
        }
    };
    without_scripts(&server, questions).await;
    assert!(misses_count(&server) > 10, "none was missed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_calls_load_a_forgotten_script_by_themselves() {
    let server = RedisServer::start().await;
    let peer = Peer::up(server.url()).await;
    let inbox = topic("@alice");
    let position = peer.publish(&inbox, 1).await.expect("up").position;
    server
        .command(&["SCRIPT", "FLUSH"])
        .expect("the server runs");
    let session = SessionId::random();
    let acked = peer.broker.ack(&inbox, position, session, HISTORY).await;
    assert_eq!(acked, Ok(Acked::Cursor(position)));
    let summary = peer.broker.inbox(&inbox, HISTORY).await.expect("up");
    assert_eq!((summary.cursor, summary.pending), (Some(position), 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deaf_feed_is_found_by_its_probe_and_built_anew() {
    let server = RedisServer::start().await;
    let proxy = DeafProxy::start(server.port()).await;
    let publisher = Peer::up(server.url()).await;
    let mut listener = Peer::up(proxy.url()).await;
    let room = topic("room");
    listener.hear(&room).await;
    proxy.deafen();
    publisher.publish(&room, 1).await.expect("up");
    wait::until_within(PATIENCE, "a message to vanish", async || {
        proxy.has_swallowed().then_some(())
    })
    .await;
    listener.is_down_for("the feed is deaf").await;

    let mut reader = Reader::new(&room);
    while reader.breaks == 0 {
        let event = listener.next().await;
        reader.take(&listener, event).await;
    }
    assert_eq!(reader.newest(), Some(1));
    listener.is_up().await;
    publisher.publish(&room, 2).await.expect("up");
    while reader.newest() < Some(2) {
        let event = listener.next().await;
        reader.take(&listener, event).await;
    }
    assert_eq!((reader.breaks, reader.repaired), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_demoted_master_is_down_and_takes_nothing() {
    let server = RedisServer::start().await;
    let peer = Peer::up(server.url()).await;
    let room = topic("room");
    peer.publish(&room, 1).await.expect("up");
    server
        .command(&["REPLICAOF", "127.0.0.1", "1"])
        .expect("the server runs");
    peer.is_down_for("READONLY").await;
    let refused = peer.publish(&room, 2).await;
    assert!(
        matches!(refused, Err(BrokerError::Refused(_))),
        "{refused:?}"
    );
    server
        .command(&["REPLICAOF", "NO", "ONE"])
        .expect("the server runs");
    peer.is_up().await;
    let reconnects = peer.metrics.control.redis_reconnects.get();
    assert!((1..20).contains(&reconnects), "{reconnects} reconnections");
    peer.publish(&room, 3).await.expect("up");
    let numbers: Vec<_> = peer.retained(&room).await.iter().map(|(_, n)| *n).collect();
    assert_eq!(numbers, [1, 3]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_hangs_is_down_and_what_it_did_later_is_there_once() {
    let server = RedisServer::start().await;
    let mut peer = Peer::up(server.url()).await;
    let room = topic("room");
    peer.hear(&room).await;
    peer.publish(&room, 1).await.expect("up");
    // Longer than a few command timeouts, so that the connections are given up meanwhile.
    server
        .command(&["CLIENT", "PAUSE", "8000", "ALL"])
        .expect("the server runs");
    let lost = peer.publish(&room, 2).await;
    assert!(matches!(lost, Err(BrokerError::Unknown(_))), "{lost:?}");
    peer.is_down_for("cannot be used").await;
    // Some other link may have been the first to say so.
    let away = &peer.metrics.control.away_publications;
    wait::until("publications to be refused", async || {
        (away.get() == 1).then_some(())
    })
    .await;
    let refused = peer.publish(&room, 3).await;
    assert!(
        matches!(refused, Err(BrokerError::Unavailable(_))),
        "{refused:?}"
    );
    peer.is_up().await;
    peer.publish(&room, 4).await.expect("up");

    let mut reader = Reader::new(&room);
    while reader.breaks == 0 || reader.newest() < Some(4) {
        let event = peer.next().await;
        reader.take(&peer, event).await;
    }
    let numbers: Vec<_> = reader.read.iter().map(|(_, n)| *n).collect();
    // The second was written before the connection was given up; Redis may or may not have read
    // it. Its place is then where Redis came to it.
    let others: Vec<_> = numbers.iter().filter(|n| **n != 2).copied().collect();
    assert_eq!(others, [1, 4], "{numbers:?}");
    assert!(numbers.len() <= 3, "{numbers:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_subscription_is_seen_and_made_good_when_it_is_allowed() {
    let server = RedisServer::start().await;
    let publisher = Peer::up(server.url()).await;
    let acl = |rule: &str| {
        let answer = server.command(&["ACL", "SETUSER", "listener", rule]);
        assert_eq!(answer.as_deref(), Some("+OK"));
    };
    for rule in ["on", ">secret", "~*", "+@all", "&ff:probe:*", "&ff:ctl"] {
        acl(rule);
    }
    let url = server.url().replace("redis://", "redis://listener:secret@");
    let mut listener = Peer::up(url).await;
    let room = topic("room");
    let wish = listener.broker.interest().want(room.clone());
    let mut health = listener.broker.health();
    let is_told = |health: &BrokerHealth| match health {
        BrokerHealth::Partly(reason) => reason.contains("forbids the channel of room: NOPERM"),
        _ => false,
    };
    let told = tokio::time::timeout(PATIENCE, health.wait_for(is_told)).await;
    told.expect("in time").expect("the broker runs");
    acl("&ff:{*}{default:*");
    let confirmed = FeedEvent::Subscribed(vec![(room.clone(), wish)]);
    assert_eq!(listener.next().await, confirmed);
    listener.is_up().await;
    publisher.publish(&room, 1).await.expect("up");
    assert!(matches!(listener.next().await, FeedEvent::Delivery { .. }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forbidden_channel_is_told_only_while_somebody_wants_it() {
    let server = RedisServer::start().await;
    for rule in ["on", ">secret", "~*", "+@all", "&ff:probe:*", "&ff:ctl"] {
        let answer = server.command(&["ACL", "SETUSER", "listener", rule]);
        assert_eq!(answer.as_deref(), Some("+OK"));
    }
    let url = server.url().replace("redis://", "redis://listener:secret@");
    let listener = Peer::up(url).await;
    let interest = listener.broker.interest();
    let [room, hall] = ["room", "hall"].map(topic);
    interest.want(room.clone());
    let is_told = async |name: &str| {
        let told = format!("forbids the channel of {name}: NOPERM");
        listener
            .is_partly_up_where(|reason| reason.contains(&told))
            .await;
    };
    is_told("room").await;
    interest.want(hall.clone());
    interest.unwant(room);
    is_told("hall").await;
    interest.unwant(hall);
    listener.is_up().await;
    let refused = REFUSALS.iter().find(|row| row.word == "NOPERM");
    let gauge = refused.expect("a word of the table").gauge;
    wait::until_equal(0, async || gauge(&listener.metrics.control).get()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_broker_answers_what_was_queued_and_ends() {
    let server = RedisServer::start().await;
    let peer = Peer::up(server.url()).await;
    let room = topic("room");
    let mut answers = FuturesOrdered::new();
    for n in 1..=500 {
        answers.push_back(peer.broker.publish(request(&room, n)));
    }
    let first = answers.next().await.expect("an answer");
    first.expect("up");
    peer.broker.stop().await;
    while let Some(answer) = answers.next().await {
        answer.expect("what was queued before the stop is published");
    }
    let refused = peer.publish(&room, 501).await;
    assert!(
        matches!(refused, Err(BrokerError::Unavailable(_))),
        "{refused:?}"
    );
    let other = Peer::up(server.url()).await;
    assert_eq!(other.retained(&room).await.len(), 500);
}
