//! Pages of `history` and `presence` over a session.

use serde_json::{Value, json};

use crate::broker::publication::Publication;
use crate::session::rig::config;
use crate::session::rig::node::{Entrance, Node, run, user};
use fanfare_protocol::data::Data;
use fanfare_protocol::event::Member;
use fanfare_protocol::form::Encoding;
use fanfare_protocol::ids::{SessionId, Topic};
use fanfare_protocol::info::Info;
use fanfare_testkit::talk::Talk;

#[test]
fn a_page_of_history_is_never_empty_while_there_is_more() {
    run(async {
        let node = Node::start(config(|_| {}));
        for _ in 0..150 {
            // Accepted in 1970, so it ended long ago.
            node.publish_as("open:a", "0", |p| p.ttl_ms = Some(1)).await;
        }
        let first = node.publish("open:a", "1").await;
        node.publish("open:a", "2").await;
        let mut ada = node.welcomed(user("ada")).await;
        let mut ask = json!({"type": "history", "topic": "open:a", "limit": 1});
        let page = ada.ok(ask.clone()).await;
        let shown = &page["publications"];
        assert_eq!(
            (&shown[0]["data"], &page["more"]),
            (&json!(1), &json!(true))
        );
        ask["since"] = json!(first);
        let page = ada.ok(ask).await;
        let shown = &page["publications"];
        assert_eq!(
            (&shown[0]["data"], &page["more"]),
            (&json!(2), &json!(false))
        );
    });
}

/// All of a topic, page by page; of each page how long it is as JSON, and whether it is the last.
async fn read_all(client: &mut Talk, reverse: bool) -> (Vec<Value>, Vec<usize>) {
    let mut ask = json!({"type": "history", "topic": "open:a", "limit": 100, "reverse": reverse});
    let (mut all, mut lengths) = (Vec::new(), Vec::new());
    loop {
        let page = client.ok(ask.clone()).await;
        lengths.push(page.to_string().len());
        let shown = page["publications"].as_array().expect("a list");
        all.extend(shown.iter().cloned());
        if page["more"] == false {
            return (all, lengths);
        }
        let last = shown.last().expect("there is more after it");
        ask[if reverse { "until" } else { "since" }] = last["position"].clone();
    }
}

/// Text of control characters is six times as long in JSON, a list of `-0` three times as long in
/// MessagePack.
#[test]
fn a_page_of_history_is_bounded_in_the_bytes_that_are_sent() {
    const PAGE_BYTES: usize = 64 << 10;
    run(async {
        let node = Node::start(config(|c| c.session.page_bytes_max = PAGE_BYTES));
        let controls = rmp_serde::to_vec(&"\u{1}".repeat(2_000)).expect("text");
        let zeros = format!("[{}]", vec!["-0"; 2_000].join(","));
        for at in 0..40 {
            let data = Data::from_msgpack(&controls).expect("a body");
            let body = if at % 4 == 0 { &zeros } else { "0" };
            let replaced = |p: &mut Publication| {
                if at % 4 != 0 {
                    p.data = data;
                }
            };
            node.publish_as("open:a", body, replaced).await;
        }
        let mut first_read = None;
        for encoding in [Encoding::Json, Encoding::MsgPack] {
            for reverse in [false, true] {
                let entrance = Entrance {
                    encoding,
                    ..user("ada")
                };
                let mut ada = node.welcomed(entrance).await;
                let (all, lengths) = read_all(&mut ada, reverse).await;
                assert_eq!(all.len(), 40, "each is shown once");
                let mut positions: Vec<_> = all.iter().map(|m| m["position"].clone()).collect();
                if reverse {
                    positions.reverse();
                }
                assert_eq!(*first_read.get_or_insert(positions.clone()), positions);
                let longest = lengths.iter().max().expect("a page");
                assert!(*longest <= PAGE_BYTES, "{longest} with {encoding:?}");
            }
        }
    });
}

#[test]
fn a_page_of_members_is_bounded_in_bytes() {
    const PAGE_BYTES: usize = 64 << 10;
    run(async {
        let node = Node::start(config(|c| c.session.page_bytes_max = PAGE_BYTES));
        let topic =
            Topic::new(&fanfare_protocol::ids::App::default_app(), "open:a").expect("a topic");
        let info = Info::from(&json!("\u{1}".repeat(300)));
        for session in 1..=100 {
            let member = Member {
                user: None,
                session: SessionId(session),
                info: Some(info.clone()),
            };
            let entered = node.services.presence.enter(&topic, member).await;
            entered.expect("the broker is here");
        }
        let mut ada = node.welcomed(user("ada")).await;
        let mut ask = json!({"type": "presence", "topic": "open:a", "limit": 1_000});
        let mut shown = Vec::new();
        loop {
            let page = ada.ok(ask.clone()).await;
            assert!(page.to_string().len() <= PAGE_BYTES, "{page}");
            assert_eq!(page["count"], 100);
            let members = page["members"].as_array().expect("a list");
            shown.extend(members.iter().map(|m| m["session"].clone()));
            if page["more"] == false {
                break;
            }
            ask["after"] = shown.last().expect("there is more after it").clone();
        }
        let all = (1..=100_u128).map(|n| json!(SessionId(n)));
        assert_eq!(shown, Vec::from_iter(all));
    });
}
