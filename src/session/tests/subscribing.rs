//! `subscribe` in all its ways: live, from a position, rewound; with history and without.

use serde_json::{Value, json};

use crate::session::rig::node::{Entrance, Node, nobody, run, user};
use crate::session::rig::{config, token};
use crate::telemetry::labels::CommandType;
use fanfare_protocol::form::Encoding;
use fanfare_protocol::ids::Position;
use fanfare_testkit::talk::Talk;

fn node() -> Node {
    Node::start(config(|_| {}))
}

/// A node whose topics keep three entries.
fn short_memory() -> Node {
    Node::start(config(|c| {
        let open = c.namespaces.get_mut("open").unwrap();
        open.history_entries_max = 3;
    }))
}

async fn publish_each(
    node: &Node,
    topic: &str,
    numbers: std::ops::RangeInclusive<u64>,
) -> Vec<Position> {
    let mut positions = Vec::new();
    for n in numbers {
        positions.push(node.publish(topic, &n.to_string()).await);
    }
    positions
}

/// The `ok` of a subscribe without its id.
fn result(mut ok: Value) -> Value {
    let map = ok.as_object_mut().unwrap();
    map.remove("id");
    map.remove("type");
    ok
}

async fn ask(node: &Node, topic: &str, more: Value) -> (Value, Talk) {
    let mut client = node.welcomed(user("ada")).await;
    let ok = client.subscribe(topic, more).await;
    (result(ok), client)
}

#[test]
fn a_live_subscription_says_where_it_begins_and_brings_what_follows() {
    run(async {
        let node = node();
        for topic in ["open:t", "bare:t"] {
            let newest = *publish_each(&node, topic, 1..=3).await.last().unwrap();
            for encoding in [Encoding::Json, Encoding::MsgPack] {
                let mut ada = node
                    .welcomed(Entrance {
                        encoding,
                        ..user("ada")
                    })
                    .await;
                let ok = ada.subscribe(topic, json!({})).await;
                assert_eq!(result(ok), json!({"recovered": true, "position": newest}));
                assert_eq!(ada.all().await, [] as [Value; 0]);
            }
        }
        let (ok, mut ada) = ask(&node, "open:never", json!({})).await;
        assert_eq!(ok, json!({"recovered": true, "position": "0-0"}));
        let position = node.publish("open:never", r#"{"a": [1.50, "é"]}"#).await;
        let message = ada.next().await.unwrap();
        let expected = json!({
            "type": "message", "topic": "open:never", "data": {"a": [1.5, "é"]},
            "position": position, "time": 0,
        });
        assert_eq!(message, expected);
    });
}

#[test]
fn a_since_brings_exactly_what_was_missed_and_then_live_messages() {
    run(async {
        let node = node();
        let positions = publish_each(&node, "open:t", 1..=10).await;
        for (seen, position) in positions.iter().enumerate() {
            let (ok, mut ada) = ask(&node, "open:t", json!({"since": position})).await;
            assert_eq!(ok, json!({"recovered": true, "position": position}));
            let expected: Vec<u64> = (seen as u64 + 2..=10).collect();
            assert_eq!(ada.data(expected.len()).await, expected);
            assert_eq!(ada.all().await, [] as [Value; 0]);
        }
        let (ok, mut ada) = ask(&node, "open:t", json!({"since": "0-0"})).await;
        assert_eq!(ok, json!({"recovered": true, "position": "0-0"}));
        node.publish("open:t", "11").await;
        assert_eq!(ada.data(11).await, (1..=11).collect::<Vec<u64>>());
    });
}

#[test]
fn a_since_that_is_gone_says_why_and_where_the_rest_begins() {
    run(async {
        let node = short_memory();
        let positions = publish_each(&node, "open:t", 1..=6).await;
        let kept = json!({"recovered": true, "position": positions[2]});
        assert_eq!(
            ask(&node, "open:t", json!({"since": positions[2]})).await.0,
            kept
        );

        for since in [json!("0-0"), json!(positions[1])] {
            let (ok, mut ada) = ask(&node, "open:t", json!({"since": since})).await;
            let expected = json!({
                "recovered": false, "gap_reason": "retention", "position": positions[2],
            });
            assert_eq!(ok, expected);
            assert_eq!(ada.data(3).await, [4, 5, 6], "what is retained still comes");
            assert_eq!(ada.all().await, [] as [Value; 0], "and no `gap` is told");
        }

        let (ok, mut ada) = ask(&node, "open:t", json!({"since": "99999999999999-0"})).await;
        let expected = json!({
            "recovered": false, "gap_reason": "failover", "position": positions[2],
        });
        assert_eq!(ok, expected);
        assert_eq!(ada.data(3).await, [4, 5, 6], "it may lack any of them");
        node.publish("open:t", "7").await;
        assert_eq!(ada.data(1).await, [7]);
        assert_eq!(ada.all().await, [] as [Value; 0]);

        // Inside the range, but never given.
        let never = Position {
            seq: positions[4].seq + 1,
            ..positions[4]
        };
        if never != positions[5] {
            let (ok, mut ada) = ask(&node, "open:t", json!({"since": never})).await;
            assert_eq!(
                (&ok["recovered"], &ok["gap_reason"]),
                (&json!(false), &json!("failover"))
            );
            assert_eq!(ok["position"], json!(positions[3]));
            assert_eq!(ada.data(3).await, [5, 6, 7]);
        }
    });
}

#[test]
fn without_history_a_since_is_compared_with_the_newest() {
    run(async {
        let node = node();
        let positions = publish_each(&node, "bare:t", 1..=2).await;
        let newest = positions[1];
        let cases = [
            (json!(newest), true, None),
            (json!(positions[0]), false, Some("retention")),
            (json!("0-0"), false, Some("retention")),
            (json!("99999999999999-0"), false, Some("failover")),
        ];
        for (since, recovered, reason) in cases {
            let (ok, mut ada) = ask(&node, "bare:t", json!({"since": since})).await;
            assert_eq!(ok["recovered"], recovered);
            assert_eq!(ok.get("gap_reason").and_then(Value::as_str), reason);
            assert_eq!(ok["position"], json!(newest));
            assert_eq!(ada.all().await, [] as [Value; 0]);
        }
        let (ok, _) = ask(&node, "bare:never", json!({"since": "0-0"})).await;
        assert_eq!(ok, json!({"recovered": true, "position": "0-0"}));
    });
}

/// A publisher is told its position before the feed has brought the message to its own worker. It
/// may subscribe from there at once, on a topic that is live already.
#[test]
fn a_since_ahead_of_the_workers_feed_is_no_failover() {
    run(async {
        let node = node();
        for topic in ["bare:t", "open:t"] {
            let mut other = node.welcomed(user("bob")).await;
            other.subscribe(topic, json!({})).await;
            let mut ada = node.welcomed(user("ada")).await;
            for n in 0..50_u64 {
                let publish = json!({"type": "publish", "topic": topic, "data": n});
                let position = ada.ok(publish).await["position"].clone();
                let ok = ada.subscribe(topic, json!({"since": position})).await;
                assert_eq!(result(ok), json!({"recovered": true, "position": position}));
                ada.ok(json!({"type": "unsubscribe", "topic": topic})).await;
            }
            assert_eq!(ada.all().await, [] as [Value; 0]);
            assert_eq!(other.data(50).await, (0..50_u64).collect::<Vec<_>>());
        }
    });
}

#[test]
fn a_rewind_begins_with_the_newest_that_are_retained() {
    run(async {
        let node = short_memory();
        let positions = publish_each(&node, "open:t", 1..=5).await;
        let cases = [
            (1, positions[3], vec![5]),
            (2, positions[2], vec![4, 5]),
            (3, positions[1], vec![3, 4, 5]),
            (100, positions[1], vec![3, 4, 5]),
            (0, positions[4], vec![]),
        ];
        for (rewind, position, expected) in cases {
            let (ok, mut ada) = ask(&node, "open:t", json!({"rewind": rewind})).await;
            assert_eq!(
                ok,
                json!({"recovered": true, "position": position}),
                "{rewind}"
            );
            assert_eq!(ada.data(expected.len()).await, expected);
            assert_eq!(ada.all().await, [] as [Value; 0]);
        }
        let (ok, _) = ask(&node, "open:empty", json!({"rewind": 10})).await;
        assert_eq!(ok, json!({"recovered": true, "position": "0-0"}));
        publish_each(&node, "bare:t", 1..=2).await;
        let (_, mut ada) = ask(&node, "bare:t", json!({"rewind": 10})).await;
        assert_eq!(ada.all().await, [] as [Value; 0], "nothing is retained");
    });
}

#[test]
fn a_replay_leaves_out_what_has_ended_and_what_a_newer_one_stands_for() {
    run(async {
        let node = node();
        node.publish_as("open:t", "1", |p| p.ttl_ms = Some(1)).await;
        for (json, key) in [("2", "a"), ("3", "b"), ("4", "a")] {
            node.publish_as("open:t", json, |p| {
                p.key = Some(key.into());
                p.conflate = true;
            })
            .await;
        }
        let newest = node.publish_as("open:t", "5", |p| p.ttl_ms = Some(1)).await;
        let (ok, mut ada) = ask(&node, "open:t", json!({"since": "0-0"})).await;
        assert_eq!(ok, json!({"recovered": true, "position": "0-0"}));
        assert_eq!(ada.data(2).await, [3, 4]);
        assert_eq!(ada.all().await, [] as [Value; 0], "and it is no gap");
        let (ok, mut ada) = ask(&node, "open:t", json!({"since": newest})).await;
        assert_eq!(ok["recovered"], true);
        assert_eq!(ada.all().await, [] as [Value; 0]);
    });
}

#[test]
fn after_the_ok_of_unsubscribe_nothing_more_of_the_topic_comes() {
    run(async {
        let node = node();
        let mut ada = node.welcomed(user("ada")).await;
        let mut bob = node.welcomed(user("bob")).await;
        bob.subscribe("open:t", json!({})).await;
        for round in 0..20_u64 {
            ada.subscribe("open:t", json!({"since": "0-0"})).await;
            node.publish("open:t", "1").await;
            let id = ada
                .command(json!({"type": "unsubscribe", "topic": "open:t"}))
                .await;
            node.publish("open:t", "2").await;
            ada.answer(id).await;
            // What is stashed came before the answer; what comes now comes after it.
            let before = ada.passed_over();
            assert!(before.iter().all(|e| e["type"] == "message"), "{before:?}");
            bob.data(2).await;
            assert_eq!(ada.all().await, [] as [Value; 0], "{round}");
        }
        let again = json!({"type": "unsubscribe", "topic": "open:t"});
        ada.refused(again, "not_subscribed").await;
    });
}

/// Commands may be sent without waiting for answers: the answer to a `subscribe` whose topic was
/// left meanwhile must not begin the stay that a later `subscribe` asked for.
#[test]
fn a_topic_that_is_left_and_joined_again_before_any_answer_begins_where_the_last_one_says() {
    run(async {
        let node = node();
        let mut ada = node.welcomed(user("ada")).await;
        let mut bob = node.welcomed(user("bob")).await;
        for round in 0..20 {
            let topic = format!("open:{round}");
            let positions = publish_each(&node, &topic, 1..=300).await;
            let subscribe =
                |since: Position| json!({"type": "subscribe", "topic": topic, "since": since});
            // Bob waits for the topic too, so that it becomes live whatever ada does.
            bob.command(subscribe(positions[299])).await;
            let first = ada.command(subscribe(Position::ZERO)).await;
            let unsubscribe = json!({"type": "unsubscribe", "topic": topic});
            let left = ada.command(unsubscribe).await;
            let second = ada.command(subscribe(positions[297])).await;
            let mut has_left = false;
            let ok = loop {
                let event = ada.next().await.expect("an open session");
                if event["id"] == second {
                    break event;
                }
                if event["id"] == left {
                    has_left = true;
                } else if has_left {
                    // The answer to the first `subscribe` came too late to begin anything.
                    assert_eq!(event["id"], first, "{event}");
                    assert_eq!(event["code"], "not_subscribed", "{event}");
                }
            };
            assert_eq!(ok["position"], json!(positions[297]), "{ok}");
            assert_eq!(ada.data(2).await, [299, 300]);
            assert_eq!(ada.all().await, [] as [Value; 0]);
            node.publish(&topic, "301").await;
            assert_eq!(ada.data(1).await, [301]);
        }
    });
}

#[test]
fn a_refresh_that_takes_a_right_ends_its_subscription_with_unsubscribed() {
    run(async {
        let node = node();
        let exp = json!(4_000_000_000_u64);
        let token = |can: Value| crate::session::rig::token("ada", json!({"exp": exp, "can": can}));
        let mut ada = node.connect(crate::session::rig::node::nobody()).await;
        let both = token(json!({"subscribe": ["open:*"]}));
        ada.ok(json!({"type": "connect", "token": both})).await;
        for topic in ["open:kept", "open:lost"] {
            ada.subscribe(topic, json!({})).await;
        }
        let less = token(json!({"subscribe": ["open:kept"]}));
        let id = ada.command(json!({"type": "refresh", "token": less})).await;
        let unsubscribed = ada.next().await.unwrap();
        assert_eq!(unsubscribed["type"], "unsubscribed");
        assert_eq!(
            (&unsubscribed["topic"], &unsubscribed["code"]),
            (&json!("open:lost"), &json!("forbidden"))
        );
        assert_eq!(ada.answer(id).await["expires"], exp);
        node.publish("open:lost", "1").await;
        node.publish("open:kept", "2").await;
        assert_eq!(ada.data(1).await, [2]);
        let rejoin = json!({"type": "subscribe", "topic": "open:lost"});
        ada.refused(rejoin, "forbidden").await;
    });
}

#[test]
fn only_a_message_that_is_shown_stands_for_an_older_one() {
    run(async {
        let node = node();
        let about = |ttl_ms| {
            move |p: &mut crate::broker::publication::Publication| {
                p.key = Some("k".into());
                p.conflate = true;
                p.ttl_ms = ttl_ms;
            }
        };
        let mut ada = node.welcomed(user("ada")).await;
        node.publish_as("open:ended", "1", about(None)).await;
        node.publish_as("open:ended", "2", about(None)).await;
        // Accepted in 1970, so it ended long ago.
        node.publish_as("open:ended", "3", about(Some(1))).await;
        ada.subscribe("open:ended", json!({"since": "0-0"})).await;
        assert_eq!(ada.data(1).await, [2]);
        node.publish_as("open:own", "4", about(None)).await;
        let own = json!({"type": "publish", "topic": "open:own", "data": 5, "key": "k", "conflate": true});
        ada.ok(own).await;
        ada.subscribe("open:own", json!({"since": "0-0"})).await;
        assert_eq!(ada.data(1).await, [4]);
    });
}

#[test]
fn a_refresh_with_many_topics_and_patterns_lets_other_sessions_have_their_turn() {
    const COUNT: usize = 1_000;
    run(async {
        let node = Node::start(config(|config| {
            config.session.topics_max = COUNT;
            config.auth.token_bytes_max = 1 << 20;
            config.session.message_bytes_max = 1 << 20;
        }));
        let patterns: Vec<_> = (0..COUNT).map(|n| format!("open:{n}")).collect();
        let with = |patterns: &[String]| {
            let can = json!({"subscribe": patterns, "history": patterns, "publish": []});
            token("ada", json!({"can": can}))
        };
        let mut ada = node.connect(nobody()).await;
        let topics: Vec<_> = patterns.iter().map(|name| json!({"topic": name})).collect();
        let connect = json!({"type": "connect", "token": with(&patterns), "topics": topics});
        ada.ok(connect).await;
        let mut bob = node.welcomed(user("bob")).await;
        let before = node.commands();
        // All but one are lost, each after all patterns were tried.
        let mut others: Vec<_> = (0..COUNT).map(|n| format!("other:{n}")).collect();
        others.push(patterns[0].clone());
        let refresh = json!({"type": "refresh", "token": with(&others)});
        let kept = ada.command(refresh).await;
        let read = |_: &_| node.commands() > before;
        node.until("the refresh to be read", read).await;
        bob.ok(json!({"type": "ping"})).await;
        assert_eq!(
            node.answered(CommandType::Refresh),
            0,
            "bob waited for all of it"
        );
        // What is lost is told before the answer.
        ada.answer(kept).await;
        let told = ada.passed_over();
        let lost = told.iter().filter(|event| event["type"] == "unsubscribed");
        assert_eq!(lost.count(), COUNT - 1);
        assert_eq!(node.answered(CommandType::Refresh), 1);
    });
}
