//! How long Redis keeps what a topic has, where positions are ahead of its clock, and nodes differ.
//!
//! In: a last id six hours ahead, as a master leaves it whose clock was. Out: entries live for their
//! age all the same, and the last id and the cursor until no lower id can be given.

use std::time::{SystemTime, UNIX_EPOCH};

use fanfare::broker::{Acked, HistoryQuery};
use fanfare::config::Retention;
use fanfare::redis::Keys;
use fanfare_protocol::ids::{Position, SessionId, Topic};

use crate::rig::{Peer, request, topic};
use fanfare_testkit::redis_server::RedisServer;

const HOUR_MS: u64 = 3_600_000;
const AHEAD_MS: u64 = 6 * HOUR_MS;
const KEEP: Retention = Retention {
    entries_max: 100,
    age_ms: 60_000,
};

fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    u64::try_from(now.expect("after 1970").as_millis()).expect("milliseconds")
}

fn key(topic: &Topic, of: &str) -> String {
    Keys::new("ff", 256).channel(topic) + ":" + of
}

fn left_ms(redis: &RedisServer, key: &str) -> u64 {
    let left = redis.ask(&["PTTL", key]).expect("it runs").concat();
    left.parse()
        .unwrap_or_else(|_| panic!("{key} has no end, or is gone: {left}"))
}

/// A broker whose topics have a last id ahead of the clock, and those topics.
async fn ahead(names: [&str; 2]) -> (RedisServer, Peer, [Topic; 2]) {
    let redis = RedisServer::start().await;
    let topics = names.map(topic);
    for topic in &topics {
        let last = format!("{}-5", now_ms() + AHEAD_MS);
        let life = (AHEAD_MS + HOUR_MS).to_string();
        let set = redis.command(&["SET", &key(topic, "l"), &last, "PX", &life]);
        assert_eq!(set.as_deref(), Some("+OK"));
    }
    let peer = Peer::up(redis.url()).await;
    (redis, peer, topics)
}

async fn publish(peer: &Peer, topic: &Topic) -> Position {
    let mut request = request(topic, 1);
    request.retention = KEEP;
    let published = peer.broker.publish(request).await;
    published.expect("Redis is up").position
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn entries_ahead_of_the_clock_live_no_longer_than_others() {
    let (redis, peer, topics) = ahead(["room", "@anna"]).await;
    for topic in &topics {
        publish(&peer, topic).await;
        let left = left_ms(&redis, &key(topic, "s"));
        assert!(left <= KEEP.age_ms + 1_000, "{topic}: {left}");
        let last = left_ms(&redis, &key(topic, "l"));
        assert!(last > AHEAD_MS + KEEP.age_ms, "{topic}: {last}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_that_was_published_in_ahead_of_the_clock_is_renewed_in_when_it_comes() {
    const BEGIN_MS: u64 = 1_800_000_000_000;
    let mut redis = RedisServer::with(&[]).clock_at(BEGIN_MS + 10_100);
    redis.restart().await;
    let peer = Peer::up(redis.url()).await;
    let room = topic("room");
    publish(&peer, &room).await;
    redis.set_clock(BEGIN_MS);
    assert_eq!(publish(&peer, &room).await.ms, BEGIN_MS + 10_100);
    redis.set_clock(BEGIN_MS + 10_200);
    publish(&peer, &room).await;
    let left = left_ms(&redis, &key(&room, "s"));
    assert!(left >= KEEP.age_ms, "{left}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn neither_joins_nor_acknowledgements_shorten_the_life_of_a_last_id_ahead_of_the_clock() {
    let (redis, peer, [room, inbox]) = ahead(["room", "@anna"]).await;
    let lives = |topic: &Topic, of: &str, what: &str| {
        let left = left_ms(&redis, &key(topic, of));
        assert!(left > AHEAD_MS, "{topic} after {what}: {left}");
    };
    for topic in [&room, &inbox] {
        let last = publish(&peer, topic).await;
        for was_there in [true, false] {
            let asked = peer.broker.last(topic, KEEP, was_there).await;
            assert_eq!(asked, Ok(Some(last)));
            lives(topic, "l", "a join");
        }
        // What a node of the release before made of it.
        redis.command(&["PEXPIRE", &key(topic, "l"), "3660000"]);
        let asked = peer.broker.last(topic, KEEP, true).await;
        assert_eq!(asked, Ok(Some(last)));
        lives(topic, "l", "another release");
    }
    let first = publish(&peer, &inbox).await;
    let second = publish(&peer, &inbox).await;
    for position in [first, first, second] {
        let acked = peer.broker.ack(&inbox, position, SessionId(1), KEEP).await;
        assert_eq!(acked, Ok(Acked::Cursor(position)));
        lives(&inbox, "l", "an acknowledgement");
        lives(&inbox, "c", "an acknowledgement");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_acknowledgement_by_a_shorter_retention_shortens_nothing() {
    let redis = RedisServer::start().await;
    let peer = Peer::up(redis.url()).await;
    let inbox = topic("@anna");
    let long = Retention {
        age_ms: 24 * HOUR_MS,
        ..KEEP
    };
    let mut request = request(&inbox, 1);
    request.retention = long;
    let published = peer.broker.publish(request).await;
    let position = published.expect("Redis is up").position;
    for retention in [long, KEEP] {
        let acked = peer.broker.ack(&inbox, position, SessionId(1), retention);
        assert_eq!(acked.await, Ok(Acked::Cursor(position)));
        let last = peer.broker.last(&inbox, retention, true).await;
        assert_eq!(last, Ok(Some(position)));
        for of in ["l", "c"] {
            let left = left_ms(&redis, &key(&inbox, of));
            assert!(left > long.age_ms, "{of}: {left}");
        }
    }
    let page = peer.broker.history(HistoryQuery {
        topic: inbox,
        retention: long,
        since: None,
        until: None,
        limit: 10,
        bytes_max: usize::MAX >> 12,
        reverse: false,
    });
    assert_eq!(page.await.expect("Redis is up").entries.len(), 1);
}
