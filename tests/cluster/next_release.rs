//! Nodes of this release beside one of the next, which the test plays: one more part in each of the
//! things that nodes write for each other, and a body of a kind that is not known here.

use fanfare::broker::publication::{self, PresenceChange, Publication};
use fanfare::redis::{Keys, RedisLink};
use fanfare_protocol::data::Data;
use fanfare_protocol::event::Member;
use fanfare_protocol::ids::{SessionId, Topic};
use serde_json::{Value, json};

use crate::processes::{SOME_BEATS, Watcher, listed, plan, sees};
use crate::rig;
use fanfare_protocol::form::Encoding;
use fanfare_testkit::http;
use fanfare_testkit::kept::OWN_LEVEL;
use fanfare_testkit::node::Node;
use fanfare_testkit::redis_server::RedisServer;
use fanfare_testkit::talk::{Talk, data_of};
use fanfare_testkit::wait;

const ROOM: &str = "room";

/// A part that this release does not know, as MessagePack.
const ADDED: &[u8] = b"\x82\xa5trace\xc4\x02ab\xa1n\x93\x01\xc0\xc3";

/// What a node of the next release does in Redis.
struct Newer {
    link: std::sync::Arc<RedisLink>,
}

fn keys() -> Keys {
    Keys::new("ff", rig::PARTITIONS)
}

impl Newer {
    async fn beside(redis: &RedisServer) -> Self {
        let link = rig::link(redis.port());
        wait::until_within(SOME_BEATS, "the link", async || {
            link.command("GET", "nothing", &[]).await.ok()
        })
        .await;
        Self { link }
    }

    /// Appends a body to a topic and tells it, with one field more than this release writes.
    async fn append(&self, topic: &Topic, body: &[u8]) -> String {
        const APPEND: &str = "
            local base, body = ARGV[1], ARGV[2]
            local last = redis.call('GET', base .. ':l') or '0-0'
            local ms, seq = string.match(last, '^(%d+)-(%d+)$')
            local id = ms .. '-' .. string.format('%.0f', seq + 1)
            redis.call('XADD', base .. ':s', id, 'p', last, 'd', body, 'trace', 'ab')
            redis.call('SET', base .. ':l', id, 'KEEPTTL')
            redis.call('PUBLISH', base, id .. ' ' .. last .. ' ' .. body)
            return id";
        let base = keys().channel(topic);
        let args = [b"0".to_vec(), base.into_bytes(), body.to_vec()];
        let id = self.link.command("EVAL", APPEND, &args).await;
        id.expect("Redis answers").convert().expect("a position")
    }

    async fn publish(&self, topic: &str, number: u64) {
        let data = Data::Json(number.to_string().into_bytes().into());
        let publication = Publication {
            user: Some("newer".to_owned()),
            ..Publication::new(data, 1_732_190_000_000)
        };
        let body = grown(&publication::encode_publication(&publication), 1);
        self.append(&rig::topic(topic), &body).await;
    }

    /// Makes a session a member of the room.
    async fn lists(&self, session: &str, owner: &str, member: &[u8]) {
        let session = session.as_bytes();
        let entry = [owner.as_bytes(), b" 1 1732190000000 ", member].concat();
        let (keys, members) = (keys(), rig::topic("room").presence());
        self.set("HSET", &keys.hash(&members), &[session, &entry])
            .await;
        self.set("ZADD", &keys.member_names(&members), &[b"0", session])
            .await;
        let counted: [&[u8]; 2] = [owner.as_bytes(), b"1"];
        self.set("HSET", &keys.member_counts(&members), &counted)
            .await;
    }

    async fn set(&self, command: &'static str, key: &str, args: &[&[u8]]) {
        let args: Vec<_> = args.iter().map(|arg| arg.to_vec()).collect();
        let answer = self.link.command(command, key, &args).await;
        answer.expect("Redis answers");
    }
}

/// A MessagePack list of up to 14 parts that begins at `at`, with one more.
fn grown(bytes: &[u8], at: usize) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    assert_eq!(bytes[at] & 0xf0, 0x90, "a short list");
    bytes[at] += 1;
    bytes.extend_from_slice(ADDED);
    bytes
}

async fn start(redis: &RedisServer) -> [Node; 2] {
    // It counts lines of the level info.
    let start = |name| plan(redis, name).env(OWN_LEVEL, "1").start();
    let (a, b) = (start("a").await, start("b").await);
    sees(&a, &["a", "b"]).await;
    [a, b]
}

/// Reads messages and gaps of the room up to the one with this data.
async fn read_up_to(talk: &mut Talk, last: u64) -> Vec<Value> {
    let mut read = Vec::new();
    while read
        .last()
        .is_none_or(|event: &Value| event["data"] != last)
    {
        let is_of_room = |event: &Value| {
            event["topic"] == ROOM && (event["type"] == "message" || event["type"] == "gap")
        };
        read.push(talk.event(is_of_room).await);
    }
    read
}

#[tokio::test(flavor = "multi_thread")]
async fn newer_publications_are_read_and_a_newer_kind_is_told_as_a_gap() {
    let redis = RedisServer::start().await;
    let nodes = start(&redis).await;
    let newer = Newer::beside(&redis).await;
    let mut talks = Vec::new();
    for node in &nodes {
        for wire in Encoding::ALL {
            let mut talk = Talk::connected(&node.connect_url("?user=reader"), wire).await;
            talk.ok(json!({"type": "subscribe", "topic": ROOM})).await;
            talks.push(talk);
        }
    }
    let mut publisher = Talk::connected(&nodes[0].connect_url("?user=p"), Encoding::Json).await;
    let first = publisher.publish(ROOM, json!(1)).await;
    newer.publish(ROOM, 2).await;
    let before = publisher.publish(ROOM, json!(3)).await;
    let unknown = newer
        .append(&rig::topic(ROOM), b"\x41\x91what is this")
        .await;
    publisher.publish(ROOM, json!(4)).await;
    newer.publish(ROOM, 5).await;

    let gap = json!({"type": "gap", "topic": ROOM, "from": before, "to": unknown,
        "reason": "lost", "dropped": 1});
    for talk in &mut talks {
        let read = read_up_to(talk, 5).await;
        assert_eq!(
            data_of(&read),
            [
                json!(1),
                json!(2),
                json!(3),
                Value::Null,
                json!(4),
                json!(5)
            ]
        );
        assert_eq!(read[3], gap);
    }
    // Whoever comes later is told the same, and history has what can be read.
    let mut late = Talk::connected(&nodes[1].connect_url("?user=late"), Encoding::Json).await;
    let answer = late
        .ok(json!({"type": "subscribe", "topic": ROOM, "since": first}))
        .await;
    assert_eq!(answer["recovered"], true, "{answer}");
    let read = read_up_to(&mut late, 5).await;
    assert_eq!(
        data_of(&read),
        [json!(2), json!(3), Value::Null, json!(4), json!(5)]
    );
    assert_eq!(read[2], gap);
    let path = format!("/v1/topics/{ROOM}/history?limit=100");
    let history = http::get(nodes[1].api, &path).await.json();
    let messages = history["publications"].as_array().expect("a list").clone();
    assert_eq!(data_of(&messages), [1, 2, 3, 4, 5].map(|n| json!(n)));
    counted_once_and_not_repaired(&nodes).await;
}

async fn counted_once_and_not_repaired(nodes: &[Node; 2]) {
    for (node, sessions) in nodes.iter().zip([2, 3]) {
        let unreadable = node
            .metric("fanfare_unreadable_total{reason=\"newer\"}")
            .await;
        assert!(unreadable > 0);
        assert_eq!(
            node.metric("fanfare_unreadable_total{reason=\"damaged\"}")
                .await,
            0
        );
        let dropped = node
            .metric("fanfare_dropped_total{reason=\"unreadable\"}")
            .await;
        assert_eq!(dropped, sessions);
        assert_eq!(node.metric("fanfare_repairs_total").await, 0);
        assert_eq!(node.until_told("body_misread").await.len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_node_and_its_members_are_understood() {
    let redis = RedisServer::start().await;
    let [a, b] = start(&redis).await;
    let newer = Newer::beside(&redis).await;
    let mut watcher = Watcher::start(&a, Encoding::Json, ROOM).await;

    // Its lease, which nobody renews: long enough for the test.
    let details = json!({"state": "ready", "sessions": 7, "version": "99.0.0", "started_ms": 1,
        "partitions": 0, "partition_ranges": "", "regions": [{"x": null}]});
    let details = details.to_string();
    let owner = "newer~1732190000000000";
    newer
        .set(
            "HSET",
            "{ff:nodes}:i",
            &[b"newer", b"1732190000000000 0123456789abcdef more"],
        )
        .await;
    newer
        .set("HSET", "{ff:nodes}:d", &[b"newer", details.as_bytes()])
        .await;
    newer
        .set("ZADD", "{ff:nodes}", &[b"99999999999999", b"newer"])
        .await;
    sees(&b, &["a", "b", "newer"]).await;
    let nodes = http::get(b.api, "/v1/nodes").await.json();
    let its = nodes["nodes"]
        .as_array()
        .expect("a list")
        .iter()
        .find(|n| n["node"] == "newer");
    assert_eq!(its.expect("it is seen")["sessions"], 7);

    // Its member, and the change that tells of it.
    let member = Member {
        user: Some("zoe".to_owned()),
        session: SessionId(0xabc),
        info: None,
    };
    let bytes = grown(&publication::encode_member(&member), 0);
    let session = member.session.to_string();
    newer.lists(&session, owner, &bytes).await;
    let change = PresenceChange {
        joined: true,
        member,
        owner: owner.parse().expect("an owner"),
        count: 2,
    };
    let mut body = publication::encode_presence_head(true, &change.owner);
    body.extend_from_slice(&bytes);
    body.push(2);
    newer
        .append(&rig::topic(ROOM).presence(), &grown(&body, 1))
        .await;
    watcher
        .until(SOME_BEATS, "its member", |seen| {
            seen.joined.contains(&session)
        })
        .await;
    assert!(listed(&b, ROOM).await.contains(&session));
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_of_a_newer_node_are_obeyed_and_unknown_ones_skipped() {
    let redis = RedisServer::start().await;
    let [a, b] = start(&redis).await;
    let from = "newer~1732190000000000";
    let tell = |number: &str, order: Value| {
        let heard = redis.command(&["PUBLISH", "ff:ctl", &format!("{number} {order}")]);
        assert_eq!(heard.as_deref(), Some(":2"), "both nodes listen");
    };
    // A kind of order that is not known here is passed over.
    let unknown = json!({"v": 1, "from": from, "kind": "dance"});
    tell("fedcba9876543210", unknown);
    for node in [&a, &b] {
        wait::until_within(SOME_BEATS, "it to be counted", async || {
            (node.metric("fanfare_control_ignored_total").await == 1).then_some(())
        })
        .await;
    }
    let (mut zoe, _) = Talk::welcomed(&b.connect_url("?user=zoe"), Encoding::Json).await;
    let order = json!({"v": 1, "from": from, "kind": "disconnect", "app": "default",
        "user": "zoe", "code": 4002, "because": {"of": ["this"]}});
    tell("0123456789abcdef", order);
    assert_eq!(zoe.close_code().await, Some(4002));
}
