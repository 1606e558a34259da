//! The inbox: replay from the cursor, acknowledgements, and what is told when something is gone.

use serde_json::{Value, json};

use crate::session::rig::config;
use crate::session::rig::node::{Entrance, Node, run, user};
use fanfare_protocol::ids::Position;

async fn node_with(count: u64) -> (Node, Vec<Position>) {
    let node = Node::start(config(|c| c.inbox.history_entries_max = 5));
    let mut positions = Vec::new();
    for n in 1..=count {
        positions.push(node.publish("@ada", &n.to_string()).await);
    }
    (node, positions)
}

fn ack(position: impl serde::Serialize) -> Value {
    json!({"type": "ack", "position": position})
}

#[test]
fn the_inbox_is_replayed_from_the_cursor_and_goes_on_live() {
    run(async {
        let (node, positions) = node_with(3).await;
        let mut first = node.connect(user("ada")).await;
        let welcome = first.event_of("welcome").await;
        let inbox = json!({"topic": "@ada", "position": "0-0", "pending": 3});
        assert_eq!(welcome["inbox"], inbox);
        assert_eq!(first.data(3).await, [1, 2, 3]);
        assert_eq!(
            first.ok(ack(positions[1])).await["position"],
            json!(positions[1])
        );

        let mut second = node.connect(user("ada")).await;
        let welcome = second.event_of("welcome").await;
        let inbox = json!({"topic": "@ada", "position": positions[1], "pending": 1});
        assert_eq!(welcome["inbox"], inbox);
        assert_eq!(second.data(1).await, [3]);
        node.publish("@ada", "4").await;
        for client in [&mut first, &mut second] {
            let message = client.next().await.unwrap();
            assert_eq!(
                (&message["topic"], &message["data"]),
                (&json!("@ada"), &json!(4))
            );
        }
        let mut bob = node.welcomed(user("bob")).await;
        assert_eq!(bob.all().await, [] as [Value; 0]);
    });
}

#[test]
fn the_client_may_say_from_where_its_inbox_goes_on() {
    run(async {
        let (node, positions) = node_with(3).await;
        let entrance = Entrance {
            waits: true,
            ..user("ada")
        };
        for (seen, position) in positions.iter().enumerate() {
            let mut ada = node.connect(entrance).await;
            let connect = json!({"type": "connect", "positions": {"@ada": position}});
            let welcome = ada.ok(connect).await;
            let resumed = json!({"recovered": true, "position": position});
            assert_eq!(welcome["topics"], json!({"@ada": resumed}));
            assert_eq!(welcome["inbox"]["position"], "0-0", "the cursor stays");
            let expected: Vec<_> = (seen as u64 + 2..=3).collect();
            assert_eq!(ada.data(expected.len()).await, expected);
            assert_eq!(ada.all().await, [] as [Value; 0]);
        }
    });
}

#[test]
fn what_the_inbox_no_longer_has_is_told_by_a_gap() {
    run(async {
        let (node, positions) = node_with(8).await;
        let mut ada = node.welcomed(user("ada")).await;
        let gap = ada.next().await.unwrap();
        let expected = json!({
            "type": "gap", "topic": "@ada", "from": "0-0", "to": positions[2],
            "reason": "retention",
        });
        assert_eq!(gap, expected);
        assert_eq!(ada.data(5).await, [4, 5, 6, 7, 8]);
        let entrance = Entrance {
            waits: true,
            ..user("ada")
        };
        let mut ahead = node.connect(entrance).await;
        let positions_ahead = json!({"@ada": "99999999999999-0"});
        let welcome = ahead
            .ok(json!({"type": "connect", "positions": positions_ahead}))
            .await;
        let resumed =
            json!({"recovered": false, "position": positions[2], "gap_reason": "failover"});
        assert_eq!(welcome["topics"], json!({"@ada": resumed}));
        let gap = ahead.next().await.unwrap();
        let expected = json!({
            "type": "gap", "topic": "@ada", "from": positions[2], "reason": "failover",
        });
        assert_eq!(gap, expected);
        node.publish("@ada", "9").await;
        assert_eq!(ahead.data(6).await, [4, 5, 6, 7, 8, 9]);
    });
}

#[test]
fn what_was_not_acknowledged_and_is_gone_is_told_once_wherever_its_reader_begins() {
    run(async {
        let node = Node::start(config(|c| c.inbox.history_entries_max = 2));
        let mut ada = node.welcomed(user("ada")).await;
        let seen = node.publish("@ada", "1").await;
        assert_eq!(ada.data(1).await, [1]);
        ada.ok(json!({"type": "ack", "position": seen})).await;
        let gone = node.publish("@ada", "2").await;
        for json in ["3", "4"] {
            node.publish("@ada", json).await;
        }
        let resumed = json!({"recovered": false, "position": gone, "gap_reason": "retention"});
        let by_position = json!({"type": "connect", "positions": {"@ada": seen}});
        let by_cursor = json!({"type": "connect"});
        let entrance = Entrance {
            waits: true,
            ..user("ada")
        };
        for (connect, topics) in [
            (by_position, Some(json!({"@ada": resumed}))),
            (by_cursor, None),
        ] {
            let mut ada = node.connect(entrance).await;
            let welcome = ada.ok(connect).await;
            assert_eq!(welcome.get("topics"), topics.as_ref());
            assert_eq!(welcome["inbox"]["position"], json!(seen));
            let gap = ada.next().await.unwrap();
            let told = json!({"type": "gap", "topic": "@ada", "from": seen, "to": gone,
                "reason": "retention"});
            assert_eq!(gap, told);
            assert_eq!(ada.data(2).await, [3, 4]);
            assert_eq!(ada.all().await, [] as [Value; 0], "the gap is told once");
        }
    });
}

#[test]
fn an_ack_moves_only_forward_and_the_users_other_sessions_are_told() {
    run(async {
        let (node, positions) = node_with(3).await;
        let mut acking = node.welcomed(user("ada")).await;
        let mut other = node.welcomed(user("ada")).await;
        let mut bob = node.welcomed(user("bob")).await;
        acking.data(3).await;
        other.data(3).await;
        assert_eq!(
            acking.ok(ack(positions[1])).await["position"],
            json!(positions[1])
        );
        let acked = other.next().await.unwrap();
        assert_eq!(acked, json!({"type": "acked", "position": positions[1]}));
        for lower in [positions[0], positions[1], Position::ZERO] {
            let ok = acking.ok(ack(lower)).await;
            assert_eq!(ok["position"], json!(positions[1]), "unchanged");
        }
        let above = Position {
            seq: positions[2].seq + 1,
            ..positions[2]
        };
        acking.refused(ack(above), "bad_request").await;
        for client in [&mut acking, &mut other, &mut bob] {
            assert_eq!(client.all().await, [] as [Value; 0]);
        }
    });
}
