//! Clients that read slowly, or not at all: what waits for them is bounded, and nobody else waits.

use std::time::Duration;

use serde_json::{Value, json};

use crate::config::Config;
use crate::session::rig::config;
use crate::session::rig::node::{Entrance, Node, nobody, run, user};

fn narrow(name: &'static str) -> Entrance {
    Entrance {
        narrow: true,
        ..user(name)
    }
}

fn node(change: impl FnOnce(&mut Config)) -> Node {
    Node::start(config(|c| {
        let open = c.namespaces.get_mut("open").unwrap();
        open.history_entries_max = 10_000;
        change(c);
    }))
}

/// JSON text of about so many bytes that begins with a number.
fn body(number: u64, bytes: usize) -> String {
    format!("[{number},\"{}\"]", "x".repeat(bytes))
}

fn number(event: &Value) -> u64 {
    assert_eq!(event["type"], "message", "{event}");
    event["data"][0].as_u64().expect("a number")
}

#[test]
fn a_replay_of_5000_messages_goes_through_a_small_outbox_as_fast_as_it_is_read() {
    run(async {
        let node = node(|_| {});
        const COUNT: u64 = 5_000;
        for n in 0..COUNT {
            node.publish("open:t", &body(n, 1_000)).await;
        }
        let mut ada = node.welcomed(narrow("ada")).await;
        ada.subscribe("open:t", json!({"since": "0-0"})).await;
        // Half of the outbox, a page, and what the two sockets and the client's buffer hold.
        const AHEAD_MAX: u64 = 512 + 100 + 400;
        for n in 0..COUNT {
            let message = ada.next().await.expect("no end for being slow");
            assert_eq!(number(&message), n);
            let ahead = node.counters().replayed.get() - n;
            assert!(ahead <= AHEAD_MAX, "{ahead} messages wait");
            if n % 1_000 == 0 {
                node.publish("open:t", &body(COUNT + n / 1_000, 10)).await;
            }
        }
        for n in COUNT..COUNT + 5 {
            let message = ada.next().await.expect("an open session");
            assert_eq!(number(&message), n, "the live ones follow");
        }
    });
}

#[test]
fn many_resumes_at_once_share_one_outbox() {
    run(async {
        let node = node(|_| {});
        const TOPICS: u64 = 20;
        for topic in 0..TOPICS {
            for n in 0..200 {
                node.publish(&format!("open:{topic}"), &body(n, 1_000))
                    .await;
            }
        }
        let all: serde_json::Map<_, _> = (0..TOPICS)
            .map(|topic| (format!("open:{topic}"), json!("0-0")))
            .collect();
        let entrance = Entrance {
            waits: true,
            ..narrow("ada")
        };
        let mut ada = node.connect(entrance).await;
        ada.ok(json!({"type": "connect", "positions": all})).await;
        let mut received = vec![0; TOPICS as usize];
        for nth in 0..TOPICS * 200 {
            let ahead = node.counters().replayed.get() - nth;
            assert!(ahead <= 512 + 100 + 400, "{ahead} messages wait");
            let message = ada.next().await.expect("an open session");
            let topic = message["topic"].as_str().unwrap();
            let topic: usize = topic.strip_prefix("open:").unwrap().parse().unwrap();
            assert_eq!(number(&message), received[topic], "{topic}");
            received[topic] += 1;
        }
    });
}

#[test]
fn subscribing_again_and_again_without_reading_does_not_fill_the_outbox() {
    run(async {
        let node = node(|_| {});
        for n in 0..100 {
            node.publish("open:t", &body(n, 10_000)).await;
        }
        let mut ada = node.welcomed(narrow("ada")).await;
        let subscribe = json!({"type": "subscribe", "topic": "open:t", "since": "0-0"});
        let unsubscribe = json!({"type": "unsubscribe", "topic": "open:t"});
        for _ in 0..100 {
            for command in [&subscribe, &unsubscribe] {
                let sent = ada.send(command);
                let sent = tokio::time::timeout(Duration::from_secs(5), sent).await;
                assert!(
                    sent.is_ok(),
                    "commands without an id have no reply to wait for"
                );
            }
        }
        node.until("all commands read", |_| node.commands() >= 200)
            .await;
        // What was left is not sent any more, whatever was queued: the socket's own memory and
        // the message that it had begun to take.
        let mut bytes = 0;
        for event in ada.all().await {
            bytes += event.to_string().len();
        }
        assert!(bytes < 256 * 1024, "{bytes} bytes were sent");
    });
}

#[test]
fn a_reader_that_stalls_is_caught_up_from_history_and_nobody_else_notices() {
    run(async {
        let node = node(|_| {});
        let mut slow = node.welcomed(narrow("slow")).await;
        let mut fast = node.welcomed(user("fast")).await;
        for client in [&mut slow, &mut fast] {
            client.subscribe("open:t", json!({})).await;
        }
        for n in 0..2_000 {
            node.publish("open:t", &body(n, 1_000)).await;
            assert_eq!(number(&fast.next().await.expect("an open session")), n);
        }
        assert!(
            node.counters().taken_back.get() > 0,
            "it was over its bound"
        );
        for n in 0..2_000 {
            let message = slow.next().await.expect("an open session");
            assert_eq!(number(&message), n);
        }
        assert_eq!(node.counters().dropped_slow.get(), 0);
    });
}

#[test]
fn without_history_a_reader_that_stalls_is_told_what_it_missed() {
    run(async {
        let node = node(|_| {});
        let mut slow = node.welcomed(narrow("slow")).await;
        let mut fast = node.welcomed(user("fast")).await;
        for client in [&mut slow, &mut fast] {
            client.subscribe("bare:t", json!({})).await;
        }
        for n in 0..3_000 {
            node.publish("bare:t", &body(n, 1_000)).await;
            assert_eq!(number(&fast.next().await.expect("an open session")), n);
        }
        let mut next = 0;
        let mut gaps = 0;
        while next < 3_000 {
            let event = slow.next().await.expect("an open session");
            if event["type"] == "gap" {
                assert_eq!(event["reason"], "slow");
                next += event["dropped"].as_u64().expect("a count");
                gaps += 1;
            } else {
                assert_eq!(number(&event), next);
                next += 1;
            }
        }
        // Now and then the socket takes a little more, and with it a gap.
        assert!(
            (1..10).contains(&gaps),
            "{gaps} gaps tell of 2,000 messages"
        );
    });
}

#[test]
fn a_slow_reader_that_catches_up_is_not_closed_for_what_is_published_meanwhile() {
    run(async {
        let node = node(|_| {});
        for n in 0..1_000 {
            node.publish("open:t", &body(n, 1_000)).await;
        }
        let mut slow = node.welcomed(narrow("slow")).await;
        slow.subscribe("open:t", json!({"since": "0-0"})).await;
        for n in 1_000..4_000 {
            node.publish("open:t", &body(n, 1_000)).await;
            tokio::task::yield_now().await;
        }
        for n in 0..4_000 {
            let message = slow.next().await.expect("it only catches up");
            assert_eq!(number(&message), n);
        }
    });
}

/// Many messages of one turn of the worker are no backlog: nobody has tried to write them yet.
#[test]
fn a_burst_beyond_the_bound_does_not_close_a_reader_whose_socket_takes_it() {
    run(async {
        let node = node(|c| c.session.outbox_bytes_max = 16 * 1024);
        let mut ada = node.welcomed(user("ada")).await;
        ada.subscribe("bare:t", json!({})).await;
        for n in 0..40 {
            node.publish("bare:t", &body(n, 1_000)).await;
        }
        for n in 0..40 {
            let message = ada.next().await.expect("an open session");
            assert_eq!(number(&message), n);
        }
        assert_eq!(ada.all().await, [] as [Value; 0], "and it goes on");
    });
}

#[test]
fn who_asks_and_does_not_read_is_not_read_and_goes_on_when_it_reads() {
    run(async {
        let node = node(|_| {});
        let mut ada = node.welcomed(narrow("ada")).await;
        let asked = ada.flood(&json!({"type": "ping"})).await;
        // 256 replies, and what two sockets of some 4 KiB hold at some 20 bytes a reply.
        let read = node.commands();
        assert!(read < 256 + 3_000, "{read} commands were read");
        assert!(read < asked, "reading has stopped before {asked}");
        assert_eq!(
            ada.replies_until(asked).await,
            (1..=asked).collect::<Vec<_>>()
        );
        assert_eq!(node.commands(), asked);
    });
}

#[test]
fn who_asks_and_does_not_read_for_too_long_ends_with_4103() {
    run(async {
        let node = node(|c| c.session.replies_timeout = Duration::from_millis(300));
        let mut ada = node.welcomed(narrow("ada")).await;
        // It reads when it has asked everything, which it can because the node, at the end, reads on.
        for _ in 0..5_000 {
            ada.command(json!({"type": "ping"})).await;
        }
        assert_eq!(ada.close_code().await, Some(4_103));
        assert!(node.commands() < 5_000);
    });
}

#[test]
fn long_pages_are_brought_one_at_a_time() {
    run(async {
        let node = node(|c| c.auth.anonymous = true);
        for n in 0..100 {
            node.publish("open:t", &body(n, 5_000)).await;
        }
        let mut client = node
            .connect(Entrance {
                narrow: true,
                ..nobody()
            })
            .await;
        client.ok(json!({"type": "connect"})).await;
        let before = node.commands();
        for _ in 0..50 {
            client
                .command(json!({"type": "history", "topic": "open:t"}))
                .await;
        }
        // A page has half a megabyte, which is over the bound of replies by itself.
        for id in 2..=51 {
            let read = node.commands() - before;
            assert!(read < id, "{read} pages were asked for, {id} is awaited");
            let page = client.answer(id).await;
            assert_eq!(page["publications"].as_array().unwrap().len(), 100);
        }
    });
}
