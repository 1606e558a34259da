//! What a node asks Redis about its topics, and what one bad key does to the others.

use fanfare::broker::BrokerError;
use fanfare::config::Retention;
use fanfare::redis::Keys;
use serde_json::json;

use crate::rig::{HISTORY, Peer, topic};
use fanfare_protocol::form::Encoding;
use fanfare_testkit::node::Plan;
use fanfare_testkit::redis_server::RedisServer;
use fanfare_testkit::talk::Talk;
use fanfare_testkit::wait::{self, PATIENCE};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_cannot_be_asked_about_keeps_no_other_from_joining() {
    let redis = RedisServer::start().await;
    let bad = "ff:{231}{default:bad}:l";
    let pushed = redis.command(&["LPUSH", bad, "another program's"]);
    assert_eq!(pushed.as_deref(), Some(":1"));
    let node = Plan::clustered("a", &redis.url()).start().await;
    let (mut talk, _) = Talk::welcomed(&node.connect_url("?user=anna"), Encoding::Json).await;
    let subscribe = |name: &str| json!({"type": "subscribe", "topic": name});
    let refused = talk.command(subscribe("bad")).await;
    let mut good = Vec::new();
    for n in 0..50 {
        good.push(talk.command(subscribe(&format!("good-{n}"))).await);
    }
    for id in good {
        let answer = talk.answer(id).await;
        assert_eq!(answer["type"], "ok", "{answer}");
    }
    let answer = talk.answer(refused).await;
    assert_eq!(answer["code"], "unavailable", "{answer}");
    redis.command(&["DEL", bad]).expect("it runs");
    wait::until_within(PATIENCE, "the topic to be joined", async || {
        let id = talk.command(subscribe("bad")).await;
        (talk.answer(id).await["type"] == "ok").then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_last_id_is_read_and_renewed_by_one_plain_command() {
    let redis = RedisServer::start().await;
    let peer = Peer::up(redis.url()).await;
    let (room, inbox) = (topic("room"), topic("@anna"));
    let calls = |name: &str| {
        let stats = redis
            .ask(&["INFO", "commandstats"])
            .expect("it runs")
            .concat();
        let begin = format!("cmdstat_{name}:calls=");
        let count = stats
            .split(&begin)
            .nth(1)
            .map_or("0", |rest| rest.split(',').next().expect("a number"));
        count.parse::<u64>().expect("a number")
    };
    let short = Retention {
        entries_max: 10,
        age_ms: 1_000,
    };
    for topic in [&room, &inbox] {
        let published = peer.publish(topic, 1).await.expect("up").position;
        let before = (calls("getex"), calls("evalsha"));
        let last = peer.broker.last(topic, short, true).await;
        assert_eq!(last, Ok(Some(published)));
        let is_plain = *topic == room;
        let after = (calls("getex"), calls("evalsha"));
        assert_eq!(after.0 - before.0, u64::from(is_plain), "{topic}");
        if is_plain {
            let key = Keys::new("ff", 256).last(topic);
            let left = redis.ask(&["PTTL", &key]).expect("it runs").concat();
            let left: u64 = left.parse().expect("a number");
            let renewal_ms = short.renewal_ms();
            assert!(left <= renewal_ms && left > renewal_ms - 60_000, "{left}");
        }
    }
    // Where the last id is gone the newest entry stands for it.
    let newest = peer.retained(&room).await[0].0;
    redis
        .command(&["DEL", "ff:{160}{default:room}:l"])
        .expect("it runs");
    assert_eq!(
        peer.broker.last(&room, HISTORY, true).await,
        Ok(Some(newest))
    );
    redis
        .command(&["DEL", "ff:{160}{default:room}:s"])
        .expect("it runs");
    assert_eq!(peer.broker.last(&room, HISTORY, true).await, Ok(None));
    redis
        .command(&["LPUSH", "ff:{160}{default:room}:l", "x"])
        .expect("it runs");
    for was_there in [true, false] {
        let last = peer.broker.last(&room, HISTORY, was_there).await;
        assert!(matches!(last, Err(BrokerError::Unexpected(_))), "{last:?}");
    }
}
