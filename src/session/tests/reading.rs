//! `history` over a session.

use serde_json::json;

use crate::session::rig::config;
use crate::session::rig::node::{Node, run, user};

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
