//! Presence: snapshot and changes joined by position, and members that never outlive their stay.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::session::rig::config;
use crate::session::rig::node::{Node, run, user};
use fanfare_protocol::ids::Position;
use fanfare_testkit::talk::Talk;
use fanfare_testkit::wait;

const TOPIC: &str = "open:room";

fn node() -> Node {
    Node::start(config(|_| {}))
}

fn join() -> Value {
    json!({"type": "subscribe", "topic": TOPIC, "presence": true})
}

fn leave() -> Value {
    json!({"type": "unsubscribe", "topic": TOPIC})
}

fn snapshot() -> Value {
    json!({"type": "presence", "topic": TOPIC, "limit": 1_000})
}

fn sessions(members: &Value) -> BTreeSet<String> {
    let members = members.as_array().expect("a list").iter();
    members
        .map(|m| m["session"].as_str().expect("an id").to_owned())
        .collect()
}

fn position(event: &Value) -> Position {
    let text = event["position"].as_str().expect("a position");
    text.parse().expect("a position")
}

/// Members as a client knows them: its snapshot, and every change above it.
fn known(snapshot: &Value, events: &[Value]) -> BTreeSet<String> {
    let mut known = sessions(&snapshot["members"]);
    for event in events.iter().filter(|e| e["type"] == "presence") {
        if position(event) > position(snapshot) {
            known.extend(sessions(&event["joined"]));
            for left in sessions(&event["left"]) {
                known.remove(&left);
            }
            assert_eq!(event["count"], known.len(), "{event}");
        }
    }
    known
}

async fn until_count(client: &mut Talk, count: u64) -> Value {
    wait::until("so many members", async || {
        let page = client.ok(snapshot()).await;
        if page["count"] == count {
            Ok(page)
        } else {
            Err(page)
        }
    })
    .await
}

#[test]
fn members_see_who_is_in_who_comes_and_who_goes() {
    run(async {
        let node = node();
        let mut ada = node.welcomed(user("ada")).await;
        assert_eq!(ada.ok(join()).await["count"], 1);
        let page = ada.ok(snapshot()).await;
        assert_eq!((&page["count"], &page["more"]), (&json!(1), &json!(false)));
        assert_eq!(page["members"][0]["user"], "ada");
        let mut bob = node.welcomed(user("bob")).await;
        assert_eq!(bob.ok(join()).await["count"], 2);
        let change = ada.next().await.unwrap();
        assert_eq!(
            (&change["type"], &change["topic"]),
            (&json!("presence"), &json!(TOPIC))
        );
        assert_eq!(change["joined"][0]["user"], "bob");
        assert_eq!((&change["left"], &change["count"]), (&json!([]), &json!(2)));
        assert!(position(&change) > position(&page));
        bob.ok(leave()).await;
        let change = ada.next().await.unwrap();
        assert_eq!(change["left"][0]["user"], "bob");
        assert_eq!(
            (&change["joined"], &change["count"]),
            (&json!([]), &json!(1))
        );
        bob.ok(join()).await;
        assert_eq!(ada.next().await.unwrap()["joined"][0]["user"], "bob");
        drop(bob);
        assert_eq!(ada.next().await.unwrap()["left"][0]["user"], "bob");
        // A subscriber that did not ask is no member and sees no changes, but may look.
        let mut carol = node.welcomed(user("carol")).await;
        let ok = carol.subscribe(TOPIC, json!({})).await;
        assert_eq!(ok.get("count"), None);
        assert_eq!(carol.ok(snapshot()).await["count"], 1);
        ada.ok(leave()).await;
        until_count(&mut carol, 0).await;
        assert_eq!(carol.all().await, [] as [Value; 0]);
    });
}

#[test]
fn a_snapshot_asked_for_without_waiting_misses_no_change() {
    run(async {
        let node = node();
        let mut others = Vec::new();
        for _ in 0..12 {
            others.push(node.welcomed(user("other")).await);
        }
        for round in 0..12 {
            let mut ada = node.welcomed(user("ada")).await;
            // Joins and leaves run beside the subscribe and the snapshot, in another order each
            // round.
            for (at, other) in others.iter_mut().enumerate() {
                let command = if (at + round) % 3 == 0 {
                    leave()
                } else {
                    join()
                };
                if at == round {
                    ada.command(join()).await;
                    ada.command(snapshot()).await;
                }
                other.command(command).await;
            }
            let joined = ada.answer(1).await;
            assert_eq!(joined["type"], "ok", "{joined}");
            let page = ada.answer(2).await;
            for other in &mut others {
                other.all().await;
            }
            let mut events = ada.passed_over();
            let now = loop {
                let now = ada.ok(snapshot()).await;
                events.extend(ada.all().await);
                // A leave is carried out behind the client's back; it is there when it is seen.
                let again = ada.ok(snapshot()).await;
                if position(&now) == position(&again) {
                    break again;
                }
            };
            assert_eq!(known(&page, &events), sessions(&now["members"]), "{round}");
        }
    });
}

#[test]
fn a_member_that_left_before_its_join_was_answered_is_no_member() {
    run(async {
        let node = node();
        let mut watcher = node.welcomed(user("watcher")).await;
        let mut ada = node.welcomed(user("ada")).await;
        for _ in 0..20 {
            let joined = ada.command(join()).await;
            let left = ada.command(leave()).await;
            ada.answer(joined).await;
            assert_eq!(ada.answer(left).await["type"], "ok");
        }
        until_count(&mut watcher, 0).await;
        // And one that has come back is one, whatever of its past is still on its way.
        for _ in 0..20 {
            let joined = ada.command(join()).await;
            ada.answer(joined).await;
            ada.command(leave()).await;
            let back = ada.command(join()).await;
            assert_eq!(ada.answer(back).await["type"], "ok");
            ada.all().await;
            assert_eq!(watcher.ok(snapshot()).await["count"], 1);
            let left = ada.command(leave()).await;
            ada.answer(left).await;
            until_count(&mut watcher, 0).await;
        }
    });
}

/// Two sessions wait for the same topic to become live, and one of them leaves meanwhile.
#[test]
fn a_member_that_left_while_others_wait_with_it_is_no_member() {
    run(async {
        let node = node();
        let mut ada = node.welcomed(user("ada")).await;
        let mut bob = node.welcomed(user("bob")).await;
        for round in 0..20 {
            let with_topic = |mut command: Value| {
                command["topic"] = format!("open:{round}").into();
                command
            };
            bob.command(with_topic(join())).await;
            ada.command(with_topic(join())).await;
            ada.command(with_topic(leave())).await;
            bob.all().await;
            ada.all().await;
            wait::until("bob to be alone", async || {
                let page = bob.ok(with_topic(snapshot())).await;
                let members = page["members"].as_array().unwrap();
                let is_alone = members.len() == 1 && members[0]["user"] == "bob";
                if is_alone { Ok(()) } else { Err(page) }
            })
            .await;
        }
    });
}

#[test]
fn members_come_in_pages_that_go_on_after_the_last_session() {
    run(async {
        let node = node();
        let mut members = Vec::new();
        for _ in 0..25 {
            let mut member = node.welcomed(user("ada")).await;
            member.ok(join()).await;
            members.push(member);
        }
        let mut seen = Vec::new();
        let mut command = json!({"type": "presence", "topic": TOPIC, "limit": 10});
        let last = loop {
            let page = members[0].ok(command.clone()).await;
            assert_eq!(page["count"], 25);
            let sessions: Vec<_> = sessions(&page["members"]).into_iter().collect();
            command["after"] = sessions
                .last()
                .expect("never an empty page")
                .as_str()
                .into();
            seen.extend(sessions);
            if page["more"] == false {
                break page;
            }
        };
        assert_eq!(last["members"].as_array().unwrap().len(), 5);
        assert!(seen.is_sorted() && seen.len() == 25);
        command["after"] = "no session".into();
        members[0].refused(command, "bad_request").await;
    });
}
