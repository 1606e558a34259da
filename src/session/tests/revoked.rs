//! Tokens that are revoked while they are used, and before.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::revocation::known::Revocations;
use crate::revocation::memory::Held;
use crate::revocation::reader::Reader;
use crate::revocation::store_rig::{add, read};
use crate::session::rig::node::{Node, nobody, run, user};
use crate::session::rig::{START_S, config, token};
use crate::worker::handle::Inbound;
use fanfare_protocol::close::CloseReason;
use fanfare_testkit::talk::Talk;

/// A node, and a store of revocations that it reads when it is told.
struct Rig {
    node: Node,
    held: Held,
    reader: Reader,
}

impl Rig {
    fn start() -> Self {
        Self::with(Revocations::default())
    }

    fn with(known: Revocations) -> Self {
        Self {
            node: Node::revoking(config(|_| {}), known),
            held: Held::default(),
            reader: Reader::default(),
        }
    }

    fn known(&self) -> &Revocations {
        self.node.services.verifier.revocations()
    }

    /// Revokes and reads, and tells no session.
    fn revoke(&mut self, name: &str, issued_before: u64) {
        add(&mut self.held, name, issued_before);
        let known = self.known().clone();
        read(&known, &mut self.reader, &self.held);
    }

    fn tell(&self) {
        let news = self.known().take_news();
        self.node.worker().handle(Inbound::Revoked(news.into()));
    }

    async fn opened(&self, user: &str, issued: u64, id: &str) -> Talk {
        let mut client = self.node.connect(nobody()).await;
        let claims = json!({"iat": issued, "jti": id});
        let command = json!({"type": "connect", "token": token(user, claims)});
        client.ok(command).await;
        client
    }
}

const ISSUED: u64 = 1_700_000_000;

#[test]
fn sessions_of_a_revoked_user_end_and_nobody_elses() {
    run(async {
        let mut rig = Rig::start();
        let mut old = rig.opened("ada", ISSUED, "1").await;
        let mut new = rig.opened("ada", ISSUED + 1, "2").await;
        let mut bob = rig.opened("bob", ISSUED, "3").await;
        rig.revoke("u default ada", ISSUED + 1);
        rig.tell();
        assert_eq!(old.close_code().await, Some(4002));
        for talk in [&mut new, &mut bob] {
            talk.ok(json!({"type": "ping"})).await;
        }
        rig.node.until_ended(CloseReason::Disconnected, 1).await;
        rig.revoke("t default 3", ISSUED + 9);
        rig.tell();
        assert_eq!(bob.close_code().await, Some(4002));
        rig.revoke("a default", ISSUED + 9);
        rig.tell();
        assert_eq!(new.close_code().await, Some(4002));
        assert_eq!(rig.known().metrics().sessions.get(), 3);
    });
}

#[test]
fn a_revoked_token_opens_and_refreshes_nothing() {
    run(async {
        let mut rig = Rig::start();
        let mut ada = rig.opened("ada", ISSUED + 5, "1").await;
        rig.revoke("u default ada", ISSUED + 5);
        let text = "the token was revoked: get a new one";
        let old = |more| token("ada", more);
        let refresh = json!({"type": "refresh", "token": old(json!({"iat": ISSUED + 4}))});
        assert_eq!(ada.refused(refresh, "unauthorized").await["message"], text);
        let topic = old(json!({"topic": "token:a", "iat": ISSUED}));
        let subscribe = json!({"type": "subscribe", "topic": "token:a", "token": topic});
        assert_eq!(
            ada.refused(subscribe, "unauthorized").await["message"],
            text
        );
        // Without `iat` it counts as issued in 1970.
        let mut client = rig.node.connect(nobody()).await;
        let connect = json!({"type": "connect", "token": old(json!({}))});
        assert_eq!(
            client.refused(connect, "unauthorized").await["message"],
            text
        );
        assert_eq!(client.close_code().await, Some(4002));
        let refresh = json!({"type": "refresh", "token": old(json!({"iat": ISSUED + 5}))});
        ada.ok(refresh).await;
    });
}

#[test]
fn a_token_that_is_revoked_after_it_was_judged_is_found_when_it_is_taken() {
    run(async {
        let mut rig = Rig::start();
        let mut client = rig.node.connect(nobody()).await;
        rig.opened("ada", ISSUED, "1").await;
        // News that come before a session has its token find nobody.
        rig.revoke("u default bob", ISSUED + 1);
        rig.tell();
        let claims = json!({"iat": ISSUED + 1, "exp": START_S + 60});
        client
            .ok(json!({"type": "connect", "token": token("bob", claims)}))
            .await;
        rig.revoke("u default bob", ISSUED + 2);
        // Whatever wakes the session, without news too, it judges its token again.
        rig.tell();
        assert_eq!(client.close_code().await, Some(4002));
    });
}

#[test]
fn a_topic_is_left_whose_token_was_revoked() {
    run(async {
        let mut rig = Rig::start();
        let mut ada = rig.opened("ada", ISSUED, "session").await;
        for (topic, id) in [("token:a", "a"), ("token:b", "b"), ("open:c", "c")] {
            let claims = json!({"topic": topic, "jti": id, "iat": ISSUED});
            ada.subscribe(topic, json!({"token": token("ada", claims)}))
                .await;
        }
        rig.revoke("t default a", ISSUED + 1);
        rig.revoke("t default c", ISSUED + 1);
        rig.tell();
        let left = ada.event_of("unsubscribed").await;
        assert_eq!(
            (&left["topic"], &left["code"], &left["message"]),
            (
                &json!("token:a"),
                &json!("forbidden"),
                &json!("the token for this topic was revoked")
            )
        );
        // It needs no token for this one, and stays.
        rig.node.publish("open:c", "1").await;
        rig.node.publish("token:b", "2").await;
        assert_eq!(ada.data(2).await, [1, 2]);
        assert_eq!(rig.known().metrics().topics.get(), 1);
    });
}

#[test]
fn what_a_session_sends_after_a_break_waits_for_a_reading_and_is_dropped_where_it_was_revoked() {
    run(async {
        let mut rig = Rig::with(Revocations::clustered(Duration::from_secs(60)));
        rig.revoke("u default nobody", 1);
        let mut ada = rig.opened("ada", ISSUED, "1").await;
        let mut eve = rig.opened("eve", ISSUED, "2").await;
        // Nobody can revoke what has no token.
        let mut bob = rig.node.welcomed(user("bob")).await;
        bob.subscribe("open:t", json!({})).await;
        rig.known().await_told(Some(Instant::now()));
        let before = rig.node.commands();
        let publish = |data| json!({"type": "publish", "topic": "open:t", "data": data});
        let of_ada = ada.command(publish(1)).await;
        eve.command(publish(2)).await;
        rig.node
            .until("both to be read", |_| rig.node.commands() == before + 2)
            .await;
        rig.node.publish("open:t", "3").await;
        rig.revoke("u default eve", ISSUED + 1);
        assert_eq!(eve.close_code().await, Some(4002));
        assert!(ada.answer(of_ada).await["position"].is_string());
        rig.node.publish("open:t", "4").await;
        assert_eq!(bob.data(3).await, [3, 1, 4]);
        assert_eq!(rig.known().metrics().commands_held.get(), 2);
    });
}

#[test]
fn nothing_is_held_for_longer_than_a_second() {
    run(async {
        let mut rig = Rig::with(Revocations::clustered(Duration::from_secs(60)));
        rig.revoke("u default nobody", 1);
        let mut ada = rig.opened("ada", ISSUED, "1").await;
        let begun_at = Instant::now();
        rig.known().await_told(Some(begun_at));
        ada.publish("open:t", json!(1)).await;
        assert!(begun_at.elapsed() >= Duration::from_secs(1));
        ada.publish("open:t", json!(2)).await;
        assert_eq!(rig.known().metrics().commands_held.get(), 1);
    });
}

#[test]
fn what_was_read_and_not_told_yet_counts_for_what_a_session_sends() {
    run(async {
        let mut rig = Rig::with(Revocations::clustered(Duration::from_secs(60)));
        rig.revoke("u default nobody", 1);
        let mut eve = rig.opened("eve", ISSUED, "2").await;
        let mut bob = rig.node.welcomed(user("bob")).await;
        bob.subscribe("open:t", json!({})).await;
        // The node stood still: it has read, and its workers hear of that a tenth of a second later.
        rig.revoke("u default eve", ISSUED + 1);
        let publish = json!({"type": "publish", "topic": "open:t", "data": 1});
        eve.command(publish).await;
        assert_eq!(eve.close_code().await, Some(4002));
        rig.node.publish("open:t", "2").await;
        assert_eq!(bob.data(1).await, [2]);
    });
}
