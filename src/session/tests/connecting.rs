//! What `connect` joins at once, and what `subscribe` adds to it later.

use serde_json::{Value, json};

use crate::session::rig::node::{Entrance, Node, run, user};
use crate::session::rig::{config, token};
use fanfare_testkit::talk::Talk;

fn waiting(name: &'static str) -> Entrance {
    Entrance {
        waits: true,
        ..user(name)
    }
}

fn connect(topics: Value, positions: Value) -> Value {
    json!({"type": "connect", "topics": topics, "positions": positions})
}

/// Who is the next to leave; whether the own coming is told before that is chance.
async fn who_left(client: &mut Talk) -> Value {
    loop {
        let left = client.event_of("presence").await["left"][0]["user"].clone();
        if !left.is_null() {
            return left;
        }
    }
}

#[test]
fn connect_joins_topics_with_all_that_subscribe_can_ask_for() {
    run(async {
        let node = Node::start(config(|c| c.session.topics_max = 6));
        let seen = node.publish("open:a", "1").await;
        node.publish("open:a", "2").await;
        let before = node.publish("open:b", "3").await;
        node.publish("open:b", "4").await;
        let newest = node.publish("open:c", "5").await;
        let mut bob = node.welcomed(user("bob")).await;
        bob.subscribe("open:b", json!({"presence": true})).await;
        let for_topic = token("ada", json!({"topic": "token:d", "exp": 4_000_000_000_u64}));
        let mut ada = node.connect(waiting("ada")).await;
        let topics = json!([
            {"topic": "open:a", "since": seen},
            {"topic": "open:b", "rewind": 1, "presence": true, "state": false},
            {"topic": "open:c"},
            {"topic": "token:d", "token": for_topic},
            {"topic": "bare:e", "presence": true},
            {"topic": "token:f"},
            {"topic": "@ada", "rewind": 3},
        ]);
        let welcome = ada.ok(connect(topics, json!({"open:g": "0-0"}))).await;
        let topics = &welcome["topics"];
        let joined = |position, more: Value| {
            let mut joined = json!({"recovered": true, "position": position});
            let more = more.as_object().unwrap().clone();
            joined.as_object_mut().unwrap().extend(more);
            joined
        };
        assert_eq!(topics["open:a"], joined(json!(seen), json!({})));
        assert_eq!(topics["open:b"], joined(json!(before), json!({"count": 2})));
        assert_eq!(topics["open:c"], joined(json!(newest), json!({})));
        let expires = json!({"expires": 4_000_000_000_u64});
        assert_eq!(topics["token:d"], joined(json!("0-0"), expires));
        assert_eq!(topics["open:g"], joined(json!("0-0"), json!({})));
        for (topic, code) in [
            ("bare:e", "forbidden"),
            ("token:f", "forbidden"),
            ("@ada", "bad_request"),
        ] {
            assert_eq!(topics[topic]["error"]["code"], code, "{topics}");
        }
        let mut data = ada.data(2).await;
        data.sort_by_key(Value::as_u64);
        assert_eq!(data, [2, 4]);
        assert_eq!(bob.event_of("presence").await["joined"][0]["user"], "ada");
        // Members see changes, and what was refused is not joined.
        bob.ok(json!({"type": "unsubscribe", "topic": "open:b"}))
            .await;
        assert_eq!(who_left(&mut ada).await, "bob");
        ada.subscribe("open:e", json!({})).await;
    });
}

#[test]
fn a_connect_with_too_many_topics_is_refused_as_a_whole() {
    run(async {
        let node = Node::start(config(|c| c.session.topics_max = 3));
        let mut ada = node.connect(waiting("ada")).await;
        let names = |count| (0..count).map(|n| format!("open:{n}"));
        let listed: Vec<_> = names(4).map(|topic| json!({"topic": topic})).collect();
        let resumed = json!({"@ada": "0-0", "@": "0-0"});
        let asked = connect(json!(listed), resumed.clone());
        ada.refused(asked, "limit_exceeded").await;
        let many: serde_json::Map<_, _> = names(2_000).map(|n| (n, json!("0-0"))).collect();
        for _ in 0..12 {
            // However often, that is no unreadable command.
            let asked = connect(json!([]), json!(many));
            ada.refused(asked, "limit_exceeded").await;
        }
        let welcome = ada.ok(connect(json!(listed[..3]), resumed)).await;
        let topics = welcome["topics"].as_object().unwrap();
        assert_eq!(topics.len(), 5);
        assert!(
            topics.values().all(|t| t.get("error").is_none()),
            "{topics:?}"
        );
    });
}

#[test]
fn a_topic_named_twice_is_refused_whichever_way() {
    run(async {
        let node = Node::start(config(|_| {}));
        let mut ada = node.connect(waiting("ada")).await;
        let one = json!({"topic": "open:a"});
        for (topics, positions) in [
            (json!([one, one]), json!({})),
            (json!([one]), json!({"open:a": "0-0"})),
        ] {
            let answer = ada.ask(connect(topics, positions)).await;
            assert_eq!(answer["code"], "bad_request");
            let text = "`topics` and `positions` name a topic twice";
            assert_eq!(answer["message"], text);
        }
        for bad in [
            json!({"topics": {"open:a": "0-0"}}),
            json!({"topics": ["open:a"]}),
            json!({"topics": [{}]}),
            json!({"topics": [{"topic": "open:a", "since": "now"}]}),
            json!({"topics": [{"topic": "open:a", "since": "0-0", "rewind": 1}]}),
        ] {
            let mut asked = json!({"type": "connect"});
            let more = bad.as_object().unwrap().clone();
            asked.as_object_mut().unwrap().extend(more);
            ada.refused(asked, "bad_request").await;
        }
        ada.ok(connect(json!([one]), json!({}))).await;
    });
}

#[test]
fn presence_is_added_to_a_topic_that_is_joined_already() {
    run(async {
        let node = Node::start(config(|_| {}));
        let seen = node.publish("open:a", "1").await;
        let mut bob = node.welcomed(user("bob")).await;
        bob.subscribe("open:a", json!({"presence": true})).await;
        let mut ada = node.connect(waiting("ada")).await;
        ada.ok(connect(json!([]), json!({"open:a": seen}))).await;
        let with_presence = json!({"type": "subscribe", "topic": "open:a", "presence": true});
        let ok = ada.ok(with_presence.clone()).await;
        assert_eq!(ok["count"], 2);
        assert_eq!(ok.get("position"), None, "the messages go on as they were");
        assert_eq!(bob.event_of("presence").await["joined"][0]["user"], "ada");
        // Once is enough, and messages do not begin anew.
        ada.refused(with_presence, "already_subscribed").await;
        for begin in [json!({"since": "0-0"}), json!({"rewind": 0})] {
            let mut again = json!({"type": "subscribe", "topic": "open:a", "presence": true});
            let begin = begin.as_object().unwrap().clone();
            again.as_object_mut().unwrap().extend(begin);
            ada.refused(again, "already_subscribed").await;
        }
        node.publish("open:a", "2").await;
        assert_eq!(ada.event_of("message").await["data"], 2);
        bob.ok(json!({"type": "unsubscribe", "topic": "open:a"}))
            .await;
        assert_eq!(who_left(&mut ada).await, "bob");
        drop(ada);
        let mut carol = node.welcomed(user("carol")).await;
        let ok = carol.subscribe("bare:a", json!({})).await;
        assert_eq!(ok["recovered"], true);
        let refused = json!({"type": "subscribe", "topic": "bare:a", "presence": true});
        carol.refused(refused, "forbidden").await;
        node.publish("bare:a", "3").await;
        assert_eq!(carol.data(1).await, [3], "it is joined as before");
    });
}
