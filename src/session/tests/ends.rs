//! How sessions end: each with one reason, told in the close frame, counted once.

use std::time::Duration;

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

use crate::cluster::control::{self, ControlMessage, Request};
use crate::config::Config;
use crate::lifecycle::Lifecycle;
use crate::session::rig::node::{Entrance, Node, nobody, run, user};
use crate::session::rig::{config, token};
use crate::session::state::Now;
use fanfare_protocol::close::CloseReason;
use fanfare_protocol::ids::{App, User};

const SHORT: Duration = Duration::from_millis(300);

fn node(change: impl FnOnce(&mut Config)) -> Node {
    Node::start(config(change))
}

fn now_s() -> u64 {
    Now::read().unix_ms / 1_000
}

#[test]
fn a_session_that_does_not_connect_in_time_ends_with_4004() {
    run(async {
        let node = node(|c| c.auth.timeout = SHORT);
        for entrance in [
            nobody(),
            Entrance {
                waits: true,
                ..user("ada")
            },
        ] {
            let mut client = node.connect(entrance).await;
            assert_eq!(client.close_code().await, Some(4_004));
        }
        node.until_ended(CloseReason::AuthTimeout, 2).await;
        assert_eq!(node.counters().sessions.get(), 0);
    });
}

#[test]
fn ten_unreadable_commands_in_a_row_are_answered_and_end_with_4003() {
    run(async {
        let node = node(|_| {});
        let mut ada = node.welcomed(user("ada")).await;
        for nth in 0..10 {
            let text = ["", "[]", "{}", "{\"type\":7}", "\u{0}"][nth % 5];
            ada.send_message(Message::text(text)).await;
        }
        for _ in 0..10 {
            assert_eq!(ada.event_of("error").await["code"], "bad_request");
        }
        assert_eq!(ada.close_code().await, Some(4_003));
    });
}

#[test]
fn a_user_has_so_many_sessions_and_one_more_ends_with_4006() {
    run(async {
        let node = node(|c| c.session.per_user_max = 2);
        let first = node.welcomed(user("ada")).await;
        let _second = node.welcomed(user("ada")).await;
        let mut third = node.connect(user("ada")).await;
        assert_eq!(third.event_of("error").await["code"], "limit_exceeded");
        assert_eq!(third.close_code().await, Some(4_006));
        node.welcomed(user("bob")).await;
        drop(first);
        node.until("the first is gone", |c| c.sessions.get() == 1)
            .await;
        node.welcomed(user("ada")).await;
    });
}

#[test]
fn a_token_is_announced_before_its_end_and_ends_the_session_behind_it() {
    run(async {
        let node = node(|c| c.auth.expired_grace = Duration::ZERO);
        let mut ada = node.connect(nobody()).await;
        let expires = now_s() + 30;
        let soon = token("ada", json!({"exp": expires}));
        ada.ok(json!({"type": "connect", "token": soon})).await;
        assert_eq!(ada.event_of("expiring").await["expires"], expires);
        let later = token("ada", json!({"exp": expires + 3_600}));
        let ok = ada.ok(json!({"type": "refresh", "token": later})).await;
        assert_eq!(ok["expires"], expires + 3_600);
        // Still within the tolerance of clocks when it is brought, at its end soon after.
        let over = token("ada", json!({"exp": now_s() - 2}));
        ada.ok(json!({"type": "refresh", "token": over})).await;
        assert_eq!(ada.close_code().await, Some(4_001));
    });
}

#[test]
fn silence_ends_with_4200_and_any_frame_is_a_sign_of_life() {
    run(async {
        let node = node(|c| {
            c.session.ping = Some(SHORT);
            c.session.pong = 20 * SHORT;
        });
        // Tungstenite answers pings by itself as long as it is read.
        let mut quiet = node.welcomed(user("quiet")).await;
        let mut app = node
            .welcomed(Entrance {
                app_pings: true,
                ..user("app")
            })
            .await;
        for _ in 0..6 {
            assert_eq!(app.event_of("ping").await, json!({"type": "ping"}));
            assert_eq!(quiet.all().await, [] as [Value; 0]);
            app.send_message(Message::Pong(Default::default())).await;
        }
        drop(quiet);
        node.until("one is left", |c| c.sessions.get() == 1).await;
        assert_eq!(
            app.close_code().await,
            Some(4_200),
            "it has stopped to answer"
        );
    });
}

#[test]
fn where_pings_are_off_silence_ends_with_4201() {
    run(async {
        let node = node(|c| {
            c.session.ping = None;
            c.session.idle = SHORT;
        });
        let mut ada = node.connect(user("ada")).await;
        assert_eq!(ada.event_of("welcome").await["ping_ms"], 0);
        assert_eq!(ada.close_code().await, Some(4_201));
    });
}

#[test]
fn a_close_frame_is_answered_with_its_own_code() {
    run(async {
        let node = node(|_| {});
        for (code, answer) in [(Some(3_000), Some(3_000)), (None, Some(1_005))] {
            let mut ada = node.welcomed(user("ada")).await;
            let frame = code.map(|code: u16| CloseFrame {
                code: code.into(),
                reason: "bye".into(),
            });
            ada.send_message(Message::Close(frame)).await;
            assert_eq!(ada.close_code().await.or(Some(1_005)), answer);
        }
        node.until_ended(CloseReason::Client, 2).await;
    });
}

#[test]
fn a_user_is_disconnected_on_order_one_session_or_all() {
    run(async {
        let node = node(|_| {});
        let mut first = node.connect(user("ada")).await;
        let id = first.event_of("welcome").await["session"].clone();
        let mut second = node.welcomed(user("ada")).await;
        let mut bob = node.welcomed(user("bob")).await;
        let order = async |session| {
            let message = ControlMessage {
                from: "api~1".parse().unwrap(),
                request: Request::Disconnect {
                    app: App::default_app(),
                    user: User::new("ada").unwrap(),
                    session,
                    reason: CloseReason::Disconnected,
                },
            };
            let sent = node.services.broker.control(control::encode(&message));
            sent.await.unwrap();
        };
        order(Some(id.as_str().unwrap().parse().unwrap())).await;
        assert_eq!(first.close_code().await, Some(4_002));
        assert_eq!(second.all().await, [] as [Value; 0]);
        // One whose handshake is done, and which has not said `connect`.
        let waits = Entrance {
            waits: true,
            ..user("ada")
        };
        let mut early = node.connect(waits).await;
        let before = node.worker().disconnects();
        order(None).await;
        assert_eq!(second.close_code().await, Some(4_002));
        assert_eq!(early.close_code().await, Some(4_002));
        assert_eq!(bob.all().await, [] as [Value; 0]);
        // Those whose sessions begin only now, though their handshakes were before.
        for (entrance, ends) in [
            (user("ada"), true),
            (waits, true),
            (user("bob"), false),
            (nobody(), false),
        ] {
            let disconnects = Some(before);
            let late = Entrance {
                disconnects,
                ..entrance
            };
            let mut late = node.connect(late).await;
            if ends {
                assert_eq!(late.close_code().await, Some(4_002));
            } else {
                let id = late.command(json!({"type": "ping"})).await;
                late.answer(id).await;
            }
        }
        node.welcomed(user("ada")).await;
    });
}

#[test]
fn a_leaving_node_tells_every_session_once_answers_until_the_end_and_closes_with_4100() {
    run(async {
        let node = node(|c| c.drain.window = Duration::from_secs(4));
        let mut sessions = Vec::new();
        for name in ["ada", "bob", "carol"] {
            sessions.push(node.welcomed(user(name)).await);
        }
        sessions.push(
            node.connect(Entrance {
                waits: true,
                ..user("early")
            })
            .await,
        );
        node.leave(Lifecycle::Draining);
        let each = sessions.into_iter().map(async |mut client| {
            let drain = client.event_of("drain").await;
            assert!(
                drain["reconnect_after_ms"].as_u64() < Some(4_000),
                "{drain}"
            );
            let id = client.command(json!({"type": "ping"})).await;
            client.answer(id).await;
            assert_eq!(client.next().await, None, "and nothing else");
            assert_eq!(client.close_code().await, Some(4_100));
        });
        futures_util::future::join_all(each).await;
        node.until_ended(CloseReason::Draining, 4).await;
    });
}

#[test]
fn a_closing_node_answers_what_is_at_the_broker_and_closes_at_once() {
    run(async {
        let node = node(|c| c.drain.window = 1_000 * SHORT);
        let mut ada = node.welcomed(user("ada")).await;
        ada.all().await;
        let mut ids = Vec::new();
        for n in 0..20 {
            let publish = json!({"type": "publish", "topic": "open:t", "data": n});
            ids.push(ada.command(publish).await);
        }
        node.until("all are read", |_| node.commands() >= 21).await;
        node.leave(Lifecycle::Closing);
        for id in ids {
            assert_eq!(ada.answer(id).await["type"], "ok");
        }
        assert_eq!(ada.close_code().await, Some(4_100));
    });
}

#[test]
fn nothing_of_a_session_is_left_behind_its_end() {
    run(async {
        let node = node(|_| {});
        let mut watcher = node.welcomed(user("watcher")).await;
        let before = node.counters().subscriptions.get();
        for _ in 0..10 {
            let mut ada = node.welcomed(user("ada")).await;
            let join = json!({"type": "subscribe", "topic": "open:t", "presence": true});
            ada.ok(join).await;
            ada.subscribe("open:u", json!({"since": "0-0"})).await;
            // Some go in the middle of a command.
            ada.command(json!({"type": "subscribe", "topic": "open:v", "presence": true}))
                .await;
        }
        node.until("they are gone", |c| c.sessions.get() == 1).await;
        assert_eq!(node.counters().subscriptions.get(), before);
        for topic in ["open:t", "open:v"] {
            let ask = json!({"type": "presence", "topic": topic});
            while watcher.ok(ask.clone()).await["count"] != 0 {
                tokio::task::yield_now().await;
            }
        }
    });
}

#[test]
fn a_session_whose_task_breaks_off_leaves_nothing_behind() {
    run(async {
        let node = node(|_| {});
        let mut bob = node.welcomed(user("bob")).await;
        bob.subscribe("open:t", json!({"presence": true})).await;
        let (mut ada, task) = node.connect_task(user("ada")).await;
        ada.event_of("welcome").await;
        ada.subscribe("open:t", json!({"presence": true})).await;
        task.abort();
        assert_eq!(ada.close_code().await, Some(4_104));
        let left = loop {
            let change = bob.event_of("presence").await;
            if change["left"] != json!([]) {
                break change["left"].clone();
            }
        };
        assert_eq!(left[0]["user"], "ada");
        node.until_ended(CloseReason::Internal, 1).await;
        assert_eq!(node.counters().sessions.get(), 1);
        let topic = fanfare_protocol::ids::Topic::new(&App::default_app(), "@ada").expect("a name");
        assert_eq!(node.services.registry.count(&topic), 0);
        node.welcomed(user("ada")).await;
    });
}

#[test]
fn a_session_that_is_known_and_not_open_yet_is_disconnected_too() {
    run(async {
        let node = node(|_| {});
        let mut ada = node
            .connect(Entrance {
                waits: true,
                ..user("ada")
            })
            .await;
        node.until("the session is there", |c| c.sessions.get() == 1)
            .await;
        let inbox = fanfare_protocol::ids::Topic::new(&App::default_app(), "@ada").expect("a name");
        node.worker()
            .handle(crate::worker::handle::Inbound::Disconnect {
                inbox,
                session: None,
                reason: CloseReason::Disconnected,
            });
        assert_eq!(ada.close_code().await, Some(4_002));
    });
}
