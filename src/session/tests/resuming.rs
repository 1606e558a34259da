//! A client that stores positions loses nothing, whenever it goes away.

use std::collections::BTreeSet;

use proptest::prelude::*;
use serde_json::{Value, json};

use crate::session::rig::config;
use crate::session::rig::node::{Entrance, Node, run, user};
use fanfare_protocol::form::Encoding;

/// What happens next to a reader that keeps its position.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// Somebody else publishes so many.
    Publish(u8),
    /// It publishes one itself and takes the position of the answer.
    PublishOwn,
    /// It reads so many events.
    Read(u8),
    /// It is cut off and comes back.
    Cut,
    /// It leaves the topic in order, and joins it again on the same socket.
    Leave,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1u8..40).prop_map(Step::Publish),
        1 => Just(Step::PublishOwn),
        4 => (0u8..40).prop_map(Step::Read),
        2 => Just(Step::Cut),
        1 => Just(Step::Leave),
    ]
}

/// A reader over several sockets.
struct Reader<'n> {
    node: &'n Node,
    client: fanfare_testkit::talk::Talk,
    position: Value,
    got: Vec<u64>,
}

impl<'n> Reader<'n> {
    async fn new(node: &'n Node, encoding: Encoding) -> Self {
        let mut reader = Self {
            node,
            client: node
                .welcomed(Entrance {
                    encoding,
                    ..user("ada")
                })
                .await,
            position: json!("0-0"),
            got: Vec::new(),
        };
        reader.join().await;
        reader
    }

    async fn join(&mut self) {
        let since = json!({"since": self.position});
        let ok = self.client.subscribe("open:t", since).await;
        assert_eq!(ok["recovered"], true, "{ok}");
        assert_eq!(ok["position"], self.position);
    }

    fn take(&mut self, event: &Value) {
        assert_eq!(event["type"], "message", "{event}");
        self.position = event["position"].clone();
        self.got.push(event["data"].as_u64().expect("a number"));
    }

    async fn step(&mut self, step: Step, next: &mut u64, own: &mut BTreeSet<u64>) {
        match step {
            Step::Publish(count) => {
                for _ in 0..count {
                    self.node.publish("open:t", &next.to_string()).await;
                    *next += 1;
                }
            }
            Step::PublishOwn => {
                // All that came before the answer is read first: a position is stored in order.
                let publish = json!({"type": "publish", "topic": "open:t", "data": *next});
                self.client.ok(publish).await;
                own.insert(*next);
                *next += 1;
                for event in self.client.passed_over() {
                    self.take(&event);
                }
            }
            Step::Read(count) => {
                let mut events = self.client.all().await;
                // What is not taken is as if it had never come.
                events.truncate(count.into());
                let is_cut = events.len() == usize::from(count);
                for event in &events {
                    self.take(event);
                }
                if is_cut {
                    self.cut().await;
                }
            }
            Step::Cut => self.cut().await,
            Step::Leave => {
                let left = json!({"type": "unsubscribe", "topic": "open:t"});
                self.client.ok(left).await;
                for event in self.client.passed_over() {
                    self.take(&event);
                }
                self.join().await;
            }
        }
    }

    async fn cut(&mut self) {
        self.client = self.node.welcomed(user("ada")).await;
        self.join().await;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn every_message_comes_exactly_once_and_in_order_through_any_number_of_cuts(
        steps in prop::collection::vec(step(), 1..40),
        message_pack in any::<bool>(),
    ) {
        let (got, next, own) = run(async {
            let node = Node::start(config(|_| {}));
            let encoding = if message_pack { Encoding::MsgPack } else { Encoding::Json };
            let mut reader = Reader::new(&node, encoding).await;
            let mut next = 0;
            let mut own = BTreeSet::new();
            for step in steps {
                reader.step(step, &mut next, &mut own).await;
            }
            // The end: one more message, and everything up to it.
            node.publish("open:t", &next.to_string()).await;
            while reader.got.last() != Some(&next) {
                let event = reader.client.next().await.expect("an open session");
                reader.take(&event);
            }
            (reader.got, next, own)
        });
        // Its own publications come only in a later session, and then once.
        prop_assert!(got.is_sorted_by(|a, b| a < b), "{:?}", got);
        let missing: Vec<_> = (0..=next).filter(|n| !got.contains(n)).collect();
        prop_assert!(missing.iter().all(|n| own.contains(n)), "missing: {:?}", missing);
    }
}

#[test]
fn a_resume_goes_over_into_live_messages_without_a_seam_while_many_are_published() {
    run(async {
        let node = Node::start(config(|c| {
            let open = c.namespaces.get_mut("open").unwrap();
            open.history_entries_max = 10_000;
        }));
        const COUNT: u64 = 5_000;
        let publish = async {
            for n in 0..COUNT {
                node.publish("open:t", &n.to_string()).await;
                if n % 7 == 0 {
                    tokio::task::yield_now().await;
                }
            }
        };
        let read = async {
            let mut all = Vec::new();
            let mut position = json!("0-0");
            while all.len() < COUNT as usize {
                let mut ada = node.welcomed(user("ada")).await;
                let ok = ada.subscribe("open:t", json!({"since": position})).await;
                assert_eq!(ok["recovered"], true);
                for _ in 0..700.min(COUNT as usize - all.len()) {
                    let message = ada.next().await.expect("an open session");
                    position = message["position"].clone();
                    all.push(message["data"].as_u64().expect("a number"));
                }
            }
            all
        };
        let ((), all) = tokio::join!(publish, read);
        assert!(all.iter().copied().eq(0..COUNT));
    });
}

#[test]
fn two_hundred_sessions_that_resume_from_one_position_cost_the_broker_a_handful_of_reads() {
    const SESSIONS: usize = 200;
    const MISSED: u64 = 250;
    run(async {
        let node = Node::start(config(|c| c.session.per_user_max = SESSIONS));
        let left = node.publish("open:t", "0").await;
        for number in 1..=MISSED {
            node.publish("open:t", &number.to_string()).await;
        }
        let mut clients = Vec::new();
        for nth in 0..SESSIONS {
            let encoding = [Encoding::Json, Encoding::MsgPack][nth % 2];
            let entrance = Entrance {
                encoding,
                ..user("ada")
            };
            clients.push(node.welcomed(entrance).await);
        }
        let before = node.counters().shared_read_misses.get();
        let command = json!({"type": "subscribe", "topic": "open:t", "since": left});
        for client in &mut clients {
            client.command(command.clone()).await;
        }
        for client in &mut clients {
            assert_eq!(client.event_of("ok").await["recovered"], true);
            for number in 1..=MISSED {
                assert_eq!(client.event_of("message").await["data"], number);
            }
        }
        let counters = node.counters();
        let asked = counters.shared_read_misses.get() - before;
        let shared = counters.shared_read_hits.get();
        let all = asked + shared;
        assert!(
            all >= 3 * SESSIONS as u64,
            "the place and two pages each: {all}"
        );
        assert!(asked <= all / 10, "{asked} of {all}");
    });
}
