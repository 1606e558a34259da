//! From the upgrade to `welcome`, and what `connect` resumes.

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::session::rig::node::{Entrance, Node, nobody, run, user};
use crate::session::rig::{config, token};
use fanfare_protocol::form::Encoding;

fn waiting(name: &'static str) -> Entrance {
    Entrance {
        waits: true,
        ..user(name)
    }
}

#[test]
fn welcome_comes_unasked_to_a_known_user_and_a_connect_after_it_is_the_second() {
    run(async {
        let node = Node::start(config(|_| {}));
        for encoding in [Encoding::Json, Encoding::MsgPack] {
            let mut ada = node
                .connect(Entrance {
                    encoding,
                    ..user("ada")
                })
                .await;
            let welcome = ada.event_of("welcome").await;
            assert_eq!(welcome["user"], "ada");
            assert_eq!(welcome["node"], "rig");
            assert_eq!(welcome["home"], json!({"node": "rig"}));
            assert_eq!(welcome["ping_ms"], 25_000);
            let inbox = json!({"topic": "@ada", "position": "0-0", "pending": 0});
            assert_eq!(welcome["inbox"], inbox);
            for absent in ["id", "expires", "topics"] {
                assert_eq!(welcome.get(absent), None, "{absent}");
            }
            ada.refused(json!({"type": "connect"}), "bad_request").await;
        }
    });
}

#[test]
fn with_wait_welcome_answers_connect_and_carries_its_id() {
    run(async {
        let node = Node::start(config(|_| {}));
        let mut ada = node.connect(waiting("ada")).await;
        ada.refused(json!({"type": "ping"}), "unauthorized").await;
        let welcome = ada.ok(json!({"type": "connect", "device": "phone"})).await;
        assert_eq!(welcome["type"], "welcome");
        assert_eq!(ada.all().await, [] as [Value; 0], "no `ok` beside it");
    });
}

#[test]
fn an_anonymous_session_asks_for_its_welcome_and_has_no_inbox() {
    run(async {
        let node = Node::start(config(|c| c.auth.anonymous = true));
        let mut client = node.connect(nobody()).await;
        let welcome = client.ok(json!({"type": "connect"})).await;
        for absent in ["user", "inbox"] {
            assert_eq!(welcome.get(absent), None, "{absent}");
        }
        assert_eq!(welcome["home"], json!({"node": "rig"}));
    });
}

#[test]
fn connect_brings_a_token_and_welcome_says_when_it_ends() {
    run(async {
        let node = Node::start(config(|_| {}));
        let mut client = node.connect(nobody()).await;
        let exp = 4_000_000_000_u64;
        let token = token("ada", json!({"exp": exp}));
        let welcome = client.ok(json!({"type": "connect", "token": token})).await;
        assert_eq!(
            (&welcome["user"], &welcome["expires"]),
            (&json!("ada"), &json!(exp))
        );
    });
}

#[test]
fn connect_resumes_every_position_and_says_what_became_of_each() {
    run(async {
        let node = Node::start(config(|c| c.session.topics_max = 5));
        let seen = node.publish("open:a", "1").await;
        node.publish("open:a", "2").await;
        node.publish("open:a", "3").await;
        let newest = node.publish("open:b", "4").await;
        let unretained = node.publish("bare:c", "5").await;
        let missed = node.publish("bare:d", "6").await;
        let newest_d = node.publish("bare:d", "7").await;
        let mut ada = node.connect(waiting("ada")).await;
        let welcome = ada
            .ok(json!({"type": "connect", "positions": {
                "open:a": seen,
                "open:b": newest,
                "bare:c": unretained,
                "bare:d": missed,
                "nobody:e": "0-0",
                "@bob": "0-0",
                "a b": "0-0",
            }}))
            .await;
        let topics = &welcome["topics"];
        assert_eq!(
            topics["open:a"],
            json!({"recovered": true, "position": seen})
        );
        assert_eq!(
            topics["open:b"],
            json!({"recovered": true, "position": newest})
        );
        assert_eq!(
            topics["bare:c"],
            json!({"recovered": true, "position": unretained})
        );
        assert_eq!(
            topics["bare:d"],
            json!({"recovered": false, "position": newest_d, "gap_reason": "retention"})
        );
        let code = |topic: &str| topics[topic]["error"]["code"].clone();
        assert_eq!(code("nobody:e"), "forbidden");
        assert_eq!(code("@bob"), "forbidden");
        assert_eq!(code("a b"), "invalid_topic");
        assert_eq!(ada.data(2).await, [2, 3]);
        node.publish("open:b", "8").await;
        assert_eq!(ada.data(1).await, [8]);
        // Four are joined; what was refused is not.
        ada.subscribe("open:f", json!({})).await;
        let one_more = json!({"type": "subscribe", "topic": "open:g"});
        ada.refused(one_more, "limit_exceeded").await;
    });
}

#[test]
fn more_positions_than_topics_are_refused_one_by_one() {
    run(async {
        let node = Node::start(config(|c| c.session.topics_max = 3));
        let mut ada = node.connect(waiting("ada")).await;
        let positions: serde_json::Map<_, _> = (0..5)
            .map(|n| (format!("open:{n}"), json!("0-0")))
            .collect();
        let connect = json!({"type": "connect", "positions": positions});
        let welcome = ada.ok(connect).await;
        let topics = welcome["topics"].as_object().unwrap().values();
        let (joined, refused): (Vec<_>, Vec<_>) =
            topics.partition(|topic| topic.get("error").is_none());
        assert_eq!((joined.len(), refused.len()), (3, 2));
        assert!(
            refused
                .iter()
                .all(|r| r["error"]["code"] == "limit_exceeded")
        );
    });
}

#[test]
fn everyone_reaches_every_session_from_its_welcome_on_and_its_loss_is_told_by_a_gap() {
    run(async {
        let node = Node::start(config(|_| {}));
        let left = node.publish("@", "1").await;
        let missed = node.publish("@", "2").await;
        let mut ada = node.connect(waiting("ada")).await;
        let connect = json!({"type": "connect", "positions": {"@": left}});
        let resumed = json!({"recovered": false, "position": missed, "gap_reason": "retention"});
        assert_eq!(ada.ok(connect).await["topics"], json!({"@": resumed}));
        let gap = ada.next().await.unwrap();
        assert_eq!(gap["type"], "gap");
        assert_eq!(
            [&gap["topic"], &gap["from"], &gap["to"], &gap["reason"]],
            [
                &json!("@"),
                &json!(left),
                &json!(missed),
                &json!("retention")
            ]
        );
        let mut bob = node.connect(waiting("bob")).await;
        let connect = json!({"type": "connect", "positions": {"@": missed}});
        let resumed = json!({"recovered": true, "position": missed});
        assert_eq!(bob.ok(connect).await["topics"], json!({"@": resumed}));
        node.publish("@", "3").await;
        for client in [&mut ada, &mut bob] {
            let message = client.next().await.unwrap();
            assert_eq!(
                (&message["topic"], &message["data"]),
                (&json!("@"), &json!(3))
            );
            assert_eq!(message.get("position"), None, "no history, no position");
        }
    });
}

#[test]
fn everyone_with_history_is_resumed() {
    run(async {
        let node = Node::start(config(|c| c.everyone.history_entries_max = 2));
        let left = node.publish("@", "1").await;
        for n in ["2", "3", "4"] {
            node.publish("@", n).await;
        }
        let mut ada = node.connect(waiting("ada")).await;
        let welcome = ada
            .ok(json!({"type": "connect", "positions": {"@": left}}))
            .await;
        let gap = ada.next().await.unwrap();
        assert_eq!(gap["type"], "gap");
        assert_eq!(
            (&gap["from"], &gap["reason"]),
            (&json!(left), &json!("retention"))
        );
        let resumed = json!({"recovered": false, "position": gap["to"], "gap_reason": "retention"});
        assert_eq!(welcome["topics"], json!({"@": resumed}));
        assert_eq!(ada.data(2).await, [3, 4]);
        let mut bob = node.connect(waiting("bob")).await;
        let welcome = bob
            .ok(json!({"type": "connect", "positions": {"@": gap["to"]}}))
            .await;
        let resumed = json!({"recovered": true, "position": gap["to"]});
        assert_eq!(welcome["topics"], json!({"@": resumed}));
        assert_eq!(bob.data(2).await, [3, 4]);
    });
}

#[test]
fn a_message_of_the_other_kind_ends_with_1003_even_when_it_is_empty() {
    run(async {
        let node = Node::start(config(|_| {}));
        let cases = [
            (Encoding::Json, Message::binary(&b"{}"[..])),
            (Encoding::Json, Message::binary(&b""[..])),
            (Encoding::MsgPack, Message::text("{}")),
            (Encoding::MsgPack, Message::text("")),
        ];
        for (encoding, message) in cases {
            let mut ada = node
                .welcomed(Entrance {
                    encoding,
                    ..user("ada")
                })
                .await;
            ada.send_message(message).await;
            assert_eq!(ada.close_code().await, Some(1_003));
        }
        let mut ada = node.welcomed(user("ada")).await;
        ada.send_message(Message::text("")).await;
        let error = ada.event_of("error").await;
        assert_eq!(
            (&error["code"], error.get("id")),
            (&json!("bad_request"), None)
        );
    });
}
