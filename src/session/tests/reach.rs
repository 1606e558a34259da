//! How far back a session is caught up that may not read history, and tokens for one topic that
//! end.

use std::time::Duration;

use serde_json::{Value, json};

use crate::config::{Allow, Config};
use crate::session::rig::node::{Entrance, Node, nobody, run};
use crate::session::rig::{config, token};
use crate::session::state::Now;
use fanfare_protocol::ids::Position;
use fanfare_testkit::talk::Talk;

/// A node whose namespace `open` may be joined by anyone and read back by nobody without a token.
fn node(change: impl FnOnce(&mut Config)) -> Node {
    Node::start(config(|c| {
        let open = c.namespaces.get_mut("open").unwrap();
        open.history = Allow::Token;
        change(c);
    }))
}

/// A session whose token allows so much.
async fn session(node: &Node, can: Value) -> Talk {
    session_by(node, nobody(), can).await
}

async fn session_by(node: &Node, entrance: Entrance, can: Value) -> Talk {
    let mut client = node.connect(entrance).await;
    let token = token("eve", json!({"exp": 4_000_000_000_u64, "can": can}));
    client.ok(json!({"type": "connect", "token": token})).await;
    client
}

async fn without_history(node: &Node) -> Talk {
    session(node, json!({"subscribe": ["**"]})).await
}

fn resumed(ok: &Value) -> (&Value, Option<&str>) {
    (&ok["recovered"], ok["gap_reason"].as_str())
}

#[test]
fn without_the_right_history_a_session_is_caught_up_only_so_far_back() {
    run(async {
        let reach = Duration::from_millis(500);
        let node = node(|c| c.session.resume = reach);
        let seen = node.publish("open:t", "1").await;
        let newest = node.publish("open:t", "2").await;
        tokio::time::sleep(reach * 2).await;
        // Whoever may read history, and asks at the same time, gets all of it.
        let all = json!({"subscribe": ["**"], "history": ["open:*"]});
        let mut reader = session(&node, all).await;
        let mut eve = without_history(&node).await;
        let ok = reader.subscribe("open:t", json!({"since": seen})).await;
        assert_eq!(resumed(&ok), (&json!(true), None));
        assert_eq!(reader.data(1).await, [2]);
        let ok = eve.subscribe("open:t", json!({"since": seen})).await;
        assert_eq!(resumed(&ok), (&json!(false), Some("retention")));
        assert_eq!(ok["position"], json!(newest));
        node.publish("open:t", "3").await;
        assert_eq!(eve.data(1).await, [3]);
        // Who has missed nothing has missed nothing, however long ago that was.
        let quiet = node.publish("open:quiet", "4").await;
        tokio::time::sleep(reach * 2).await;
        let ok = eve.subscribe("open:quiet", json!({"since": quiet})).await;
        assert_eq!(resumed(&ok), (&json!(true), None));
    });
}

#[test]
fn a_reconnect_needs_no_right_to_read_history() {
    run(async {
        let node = node(|_| {});
        let seen = node.publish("open:t", "1").await;
        node.publish("open:t", "2").await;
        let mut eve = without_history(&node).await;
        for asked in [json!({"since": "0-0"}), json!({"rewind": 1})] {
            let mut command = json!({"type": "subscribe", "topic": "open:t"});
            let asked = asked.as_object().unwrap().clone();
            command.as_object_mut().unwrap().extend(asked);
            eve.refused(command, "forbidden").await;
        }
        let ok = eve.subscribe("open:t", json!({"since": seen})).await;
        assert_eq!(resumed(&ok), (&json!(true), None));
        assert_eq!(eve.data(1).await, [2]);
        // The same by `connect`; the own inbox is one's own.
        node.publish("@eve", "3").await;
        let mut client = node.connect(nobody()).await;
        let can = json!({"subscribe": ["**"]});
        let token = token("eve", json!({"exp": 4_000_000_000_u64, "can": can}));
        let positions = json!({"open:t": seen, "open:u": "0-0", "@eve": "0-0"});
        let connect = json!({"type": "connect", "token": token, "positions": positions});
        let topics = client.ok(connect).await["topics"].clone();
        assert_eq!(topics["open:t"]["recovered"], true);
        assert_eq!(topics["open:u"]["error"]["code"], "forbidden");
        assert_eq!(topics["@eve"]["recovered"], true);
        let mut data = client.data(2).await;
        data.sort_by_key(Value::as_u64);
        assert_eq!(data, [2, 3]);
    });
}

#[test]
fn a_place_on_an_unwritten_topic_can_be_resumed_from() {
    run(async {
        let node = node(|_| {});
        let mut eve = without_history(&node).await;
        let told = eve.subscribe("open:t", json!({})).await["position"].clone();
        assert_eq!(told, json!(Position::UNWRITTEN));
        node.publish("open:t", "1").await;
        let mut again = without_history(&node).await;
        let ok = again.subscribe("open:t", json!({"since": told})).await;
        assert_eq!(resumed(&ok), (&json!(true), None));
        assert_eq!(again.data(1).await, [1]);
    });
}

#[test]
fn a_token_for_a_topic_ends_when_it_ends_unless_it_is_renewed() {
    run(async {
        let node = node(|c| c.auth.expired_grace = Duration::ZERO);
        let mut eve = session(&node, json!({"subscribe": []})).await;
        let now_s = Now::read().unix_ms / 1_000;
        let of = |exp: u64| token("eve", json!({"topic": "token:t", "exp": exp}));
        let with = |exp| json!({"token": of(exp)});
        let ok = eve.subscribe("token:t", with(now_s + 30)).await;
        assert_eq!(ok["expires"], now_s + 30);
        let told = eve.event_of("expiring").await;
        assert_eq!(
            (&told["topic"], &told["expires"]),
            (&json!("token:t"), &json!(now_s + 30))
        );
        let ok = eve.subscribe("token:t", with(now_s + 3_600)).await;
        assert_eq!(ok["expires"], now_s + 3_600);
        let renewed = token("eve", json!({"exp": now_s + 7_200, "can": {}}));
        eve.ok(json!({"type": "refresh", "token": renewed})).await;
        node.publish("token:t", "1").await;
        assert_eq!(eve.data(1).await, [1], "a refresh leaves it alone");
        // Still within the tolerance of clocks when it is brought, at its end soon after.
        eve.subscribe("token:t", with(now_s - 2)).await;
        let ended = eve.event_of("unsubscribed").await;
        assert_eq!(
            (&ended["topic"], &ended["code"]),
            (&json!("token:t"), &json!("token_expired"))
        );
        node.publish("token:t", "2").await;
        assert_eq!(eve.all().await, [] as [Value; 0]);
        let history = json!({"type": "history", "topic": "token:t"});
        eve.refused(history, "forbidden").await;
        eve.subscribe("token:t", with(now_s + 3_600)).await;
    });
}

/// Reads old messages up to the gap that tells of the others.
async fn old_until_gap(client: &mut Talk) {
    let mut old = 0;
    loop {
        let event = client.next().await.expect("an open session");
        match event["type"].as_str() {
            Some("message") => {
                assert_eq!(event["data"][0], json!(old), "{old} came before it");
                old += 1;
                assert!(old < OLD, "nothing was cut");
            }
            Some("gap") => {
                assert_eq!(event["reason"], "retention");
                assert_eq!(event["topic"], "open:t");
                return;
            }
            _ => panic!("{event}"),
        }
    }
}

/// A node with a long history that is older than a reconnect, and a slow reader that has begun it.
async fn slow_reader(can: Value, more: Value) -> (Node, Talk) {
    let reach = Duration::from_secs(1);
    let node = node(|c| {
        c.session.resume = reach;
        c.auth.expiring = Duration::ZERO;
        c.auth.expired_grace = Duration::ZERO;
        c.namespaces.get_mut("open").unwrap().history_entries_max = OLD;
    });
    for n in 0..OLD {
        let body = format!("[{n},\"{}\"]", "x".repeat(1_000));
        node.publish("open:t", &body).await;
    }
    tokio::time::sleep(reach * 2).await;
    let narrow = Entrance {
        narrow: true,
        ..nobody()
    };
    let mut client = session_by(&node, narrow, can).await;
    let mut begin = json!({"since": "0-0"});
    begin
        .as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    let ok = client.subscribe("open:t", begin).await;
    assert_eq!(resumed(&ok), (&json!(true), None));
    (node, client)
}

/// Many times what an outbox and two sockets hold.
const OLD: u32 = 4_000;

#[test]
fn a_refresh_without_the_right_history_cuts_a_catch_up() {
    run(async {
        let can = json!({"subscribe": ["**"], "history": ["open:*"]});
        let (node, mut eve) = slow_reader(can, json!({})).await;
        let less = json!({"exp": 4_000_000_000_u64, "can": {"subscribe": ["**"]}});
        let refresh = json!({"type": "refresh", "token": token("eve", less)});
        eve.send(&refresh).await;
        node.until("it is told", |c| c.gaps_told.get() > 0).await;
        node.publish("open:t", "[4000]").await;
        old_until_gap(&mut eve).await;
        assert_eq!(eve.data(1).await, [json!([4000])]);
    });
}

#[test]
fn the_end_of_a_token_that_gave_history_cuts_a_catch_up() {
    run(async {
        let later = Now::read().unix_ms / 1_000 + 3_600;
        let of_topic = token("eve", json!({"topic": "open:t", "exp": later}));
        let can = json!({"subscribe": ["**"]});
        let (node, mut eve) = slow_reader(can, json!({"token": of_topic})).await;
        // Brought once more, it ends at once: it is over and only within the tolerance of clocks.
        let over = Now::read().unix_ms / 1_000 - 2;
        let of_topic = token("eve", json!({"topic": "open:t", "exp": over}));
        let renew = json!({"type": "subscribe", "topic": "open:t", "token": of_topic});
        eve.send(&renew).await;
        node.until("it is told", |c| c.gaps_told.get() > 0).await;
        node.publish("open:t", "[4000]").await;
        old_until_gap(&mut eve).await;
        assert_eq!(eve.data(1).await, [json!([4000])]);
    });
}
