//! `publish`: who gets it, in which order, in which form, and what a repeat answers.

use serde_json::{Value, json};

use crate::session::rig::config;
use crate::session::rig::node::{Entrance, Node, nobody, run, user};
use fanfare_protocol::form::Encoding;

fn node() -> Node {
    Node::start(config(|c| c.auth.anonymous = true))
}

fn publish(topic: &str, data: Value) -> Value {
    json!({"type": "publish", "topic": topic, "data": data})
}

fn with(mut command: Value, field: &str, value: Value) -> Value {
    command[field] = value;
    command
}

#[test]
fn a_publisher_is_left_out_live_and_in_its_own_catch_up_unless_it_wants_the_echo() {
    run(async {
        let node = node();
        let mut ada = node.welcomed(user("ada")).await;
        let mut other_device = node.welcomed(user("ada")).await;
        for client in [&mut ada, &mut other_device] {
            client.subscribe("open:t", json!({})).await;
        }
        let quiet = ada.ok(publish("open:t", json!("quiet"))).await;
        let echoed = with(publish("open:t", json!("echoed")), "echo", json!(true));
        let echoed = ada.ok(echoed).await;
        let message = ada.event_of("message").await;
        assert_eq!(message["data"], "echoed");
        assert_eq!(message["position"], echoed["position"]);
        assert_eq!(message["user"], "ada");
        let first = other_device.event_of("message").await;
        assert_eq!(
            (&first["data"], &first["position"]),
            (&json!("quiet"), &quiet["position"])
        );
        assert_eq!(other_device.data(1).await, ["echoed"]);

        ada.ok(json!({"type": "unsubscribe", "topic": "open:t"}))
            .await;
        ada.subscribe("open:t", json!({"since": "0-0"})).await;
        assert_eq!(ada.data(1).await, ["echoed"]);
        assert_eq!(ada.all().await, [] as [Value; 0]);
        let mut later = node.welcomed(user("ada")).await;
        later.subscribe("open:t", json!({"since": "0-0"})).await;
        assert_eq!(later.data(2).await, ["quiet", "echoed"], "another session");
    });
}

#[test]
fn publishes_of_one_session_keep_their_order_without_waiting_for_answers() {
    run(async {
        let node = node();
        let mut reader = node.welcomed(user("bob")).await;
        for topic in ["open:t", "bare:t"] {
            reader.subscribe(topic, json!({})).await;
            let mut ada = node.welcomed(user("ada")).await;
            let mut ids = Vec::new();
            for n in 0..200 {
                ids.push(ada.command(publish(topic, json!(n))).await);
            }
            let mut positions = Vec::new();
            for id in ids {
                let ok = ada.answer(id).await;
                let position = ok["position"].as_str().unwrap().parse();
                positions.push(position.expect("also without history"));
            }
            let is_rising = positions.is_sorted_by(|a: &fanfare_protocol::ids::Position, b| a < b);
            assert!(is_rising, "{positions:?}");
            assert_eq!(reader.data(200).await, (0..200).collect::<Vec<_>>());
        }
    });
}

#[test]
fn a_repeat_with_the_same_key_answers_with_the_first_position() {
    run(async {
        let node = node();
        let keyed = |data| with(publish("open:t", data), "idempotency_key", json!("k"));
        let mut ada = node.welcomed(user("ada")).await;
        let mut reader = node.welcomed(user("bob")).await;
        reader.subscribe("open:t", json!({})).await;
        let first = ada.ok(keyed(json!(1))).await;
        assert_eq!(first.get("duplicate"), None);
        let repeat = ada.ok(keyed(json!(2))).await;
        assert_eq!(repeat["position"], first["position"]);
        assert_eq!(repeat["duplicate"], true);
        // It is the user's key, on this topic.
        let mut same_user = node.welcomed(user("ada")).await;
        assert_eq!(same_user.ok(keyed(json!(3))).await["duplicate"], true);
        let elsewhere = with(keyed(json!(4)), "topic", json!("open:other"));
        assert_eq!(ada.ok(elsewhere).await.get("duplicate"), None);
        let mut carol = node.welcomed(user("carol")).await;
        assert_eq!(carol.ok(keyed(json!(5))).await.get("duplicate"), None);
        // Of an anonymous session it is the session's.
        for n in [6, 7] {
            let mut anonymous = node.connect(nobody()).await;
            anonymous.ok(json!({"type": "connect"})).await;
            assert_eq!(anonymous.ok(keyed(json!(n))).await.get("duplicate"), None);
            assert_eq!(anonymous.ok(keyed(json!(n))).await["duplicate"], true);
        }
        assert_eq!(reader.data(4).await, [1, 5, 6, 7]);
        assert_eq!(reader.all().await, [] as [Value; 0]);
    });
}

#[test]
fn keys_of_users_with_colons_in_their_names_never_meet() {
    run(async {
        let node = node();
        let keyed = |data, key| with(publish("open:t", data), "idempotency_key", json!(key));
        let mut reader = node.welcomed(user("bob")).await;
        reader.subscribe("open:t", json!({})).await;
        for (n, (name, key)) in [("a", "b:c"), ("a:b", "c"), ("1:a", "b:c"), ("u3", "a:b:c")]
            .into_iter()
            .enumerate()
        {
            let mut client = node.welcomed(user(name)).await;
            let ok = client.ok(keyed(json!(n), key)).await;
            assert_eq!(ok.get("duplicate"), None, "{name} {key}");
        }
        assert_eq!(reader.data(4).await, [0, 1, 2, 3]);
    });
}

#[test]
fn a_message_says_what_its_publication_said_in_either_form() {
    run(async {
        let node = node();
        let mut readers = Vec::new();
        for encoding in [Encoding::Json, Encoding::MsgPack] {
            let mut reader = node
                .welcomed(Entrance {
                    encoding,
                    ..user("bob")
                })
                .await;
            reader.subscribe("bare:t", json!({})).await;
            readers.push(reader);
        }
        for encoding in [Encoding::Json, Encoding::MsgPack] {
            let mut anonymous = node
                .connect(Entrance {
                    encoding,
                    ..nobody()
                })
                .await;
            anonymous.ok(json!({"type": "connect"})).await;
            let data = json!({"list": [1, -2, 3.5, null, true], "text": "é€😀", "big": u64::MAX});
            let mut command = publish("bare:t", data.clone());
            for (field, value) in [("priority", json!("high")), ("key", json!("about"))] {
                command[field] = value;
            }
            anonymous.ok(command).await;
            for reader in &mut readers {
                let mut message = reader.next().await.unwrap();
                let time = message.as_object_mut().unwrap().remove("time");
                assert!(time.is_some_and(|t| t.as_u64() > Some(1_700_000_000_000)));
                let expected = json!({
                    "type": "message", "topic": "bare:t", "data": data,
                    "priority": "high", "key": "about",
                });
                assert_eq!(message, expected);
            }
        }
    });
}

#[test]
fn history_is_paged_in_both_directions_by_the_last_position_received() {
    run(async {
        let node = node();
        let mut ada = node.welcomed(user("ada")).await;
        for n in 0..250_u64 {
            node.publish("open:t", &n.to_string()).await;
        }
        for (reverse, edge) in [(false, "since"), (true, "until")] {
            let mut expected: Vec<u64> = (0..250).collect();
            if reverse {
                expected.reverse();
            }
            let mut got = Vec::new();
            let mut command = json!({"type": "history", "topic": "open:t", "reverse": reverse});
            let mut pages = Vec::new();
            loop {
                let ok = ada.ok(command.clone()).await;
                let page = ok["publications"].as_array().unwrap().clone();
                pages.push(page.len());
                got.extend(page.iter().map(|p| p["data"].as_u64().unwrap()));
                if ok["more"] == false {
                    break;
                }
                command[edge] = page.last().unwrap()["position"].clone();
            }
            assert_eq!(pages, [100, 100, 50]);
            assert_eq!(got, expected);
        }
        let between = json!({
            "type": "history", "topic": "open:t", "limit": 1_000,
            "since": ada.ok(json!({"type": "history", "topic": "open:t", "limit": 3})).await
                ["publications"][2]["position"],
        });
        let page = ada.ok(between).await;
        assert_eq!(page["publications"].as_array().unwrap().len(), 247);
        node.publish("bare:t", "1").await;
        let nothing = ada.ok(json!({"type": "history", "topic": "bare:t"})).await;
        assert_eq!(
            (&nothing["publications"], &nothing["more"]),
            (&json!([]), &json!(false))
        );
    });
}

#[test]
fn an_answer_to_a_publisher_waits_while_the_worker_is_behind() {
    run(async {
        let node = node();
        let mut ada = node.welcomed(user("ada")).await;
        ada.ok(publish("open:t", json!("at once"))).await;
        assert_eq!(node.control().publish_held.get(), 0);
        node.counters().queued.add(1_000);
        ada.ok(publish("open:t", json!("held"))).await;
        assert_eq!(node.control().publish_held.get(), 1);
    });
}
