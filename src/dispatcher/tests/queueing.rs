//! What full queues are owed, without a dispatcher around it.
//!
//! In: deliveries, joins, gaps and orders for workers whose queues the test fills and empties. Out:
//! what the queues carry, and what the gauge says.

use std::sync::Arc;

use tokio::sync::mpsc::Receiver;

use super::{publication, topic};
use crate::broker::interest::WishNumber;
use crate::broker::{Body, Entry};
use crate::dispatcher::worker_queues::WorkerQueues;
use crate::telemetry::metrics::Metrics;
use crate::worker::handle::{INBOUND_MAX, Inbound, WorkerHandle};
use crate::worker::outgoing::Outgoing;
use fanfare_protocol::close::CloseReason;
use fanfare_protocol::event::GapReason;
use fanfare_protocol::ids::{Position, Priority, SessionId, Topic};

const WISH: WishNumber = WishNumber(1);

fn at(ms: u64) -> Position {
    Position { ms, seq: 7 }
}

fn delivery(topic: &Topic, ms: u64) -> Arc<Outgoing> {
    let entry = Entry {
        position: at(ms),
        prev: at(ms - 1),
        body: Body::Publication(Arc::new(publication())),
    };
    Outgoing::new(topic.clone(), entry, true)
}

/// One line per message: what it is, of which topic, where.
fn line(message: &Inbound) -> String {
    match message {
        Inbound::Deliver(o) | Inbound::Traced(o, _) => {
            format!("deliver {} {}", o.topic.name(), o.position.ms)
        }
        Inbound::Joined {
            topic, position, ..
        } => format!("joined {} {}", topic.name(), position.ms),
        Inbound::Behind {
            topic,
            newest,
            dropped,
            urgency,
            void_above,
        } => {
            let urgency = if urgency.is_normal() { "" } else { " urgent" };
            let void = void_above.map(|from| format!(" void above {}", from.ms));
            let void = void.unwrap_or_default();
            let (name, newest) = (topic.name(), newest.ms);
            format!("behind {name} {newest} {dropped}{urgency}{void}")
        }
        Inbound::Gap { topic, to, .. } => format!("gap {} {}", topic.name(), to.ms),
        Inbound::Acked {
            topic, position, ..
        } => format!("acked {} {}", topic.name(), position.ms),
        Inbound::Disconnect { .. } => "disconnect".to_owned(),
        Inbound::Shed(_) => "shed".to_owned(),
        Inbound::Revoked(_) => "revoked".to_owned(),
        Inbound::AppsChanged(_) => "apps_changed".to_owned(),
    }
}

fn lines(queue: &mut Receiver<Inbound>) -> Vec<String> {
    std::iter::from_fn(|| queue.try_recv().ok())
        .map(|message| line(&message))
        .collect()
}

/// One worker whose queue has been filled with deliveries of another topic.
struct Rig {
    workers: WorkerQueues,
    queue: Receiver<Inbound>,
    metrics: Arc<Metrics>,
}

impl Rig {
    fn full() -> Self {
        let metrics = Arc::new(Metrics::new(1));
        let (handle, queue) = WorkerHandle::new(Arc::default());
        let mut workers = WorkerQueues::new(vec![handle], Arc::clone(&metrics));
        let filler = delivery(&topic("filler"), 1);
        for _ in 0..INBOUND_MAX {
            workers.deliver(&[0], &filler, None);
        }
        assert_eq!(metrics.control.worker_queue_full.get(), 0);
        Self {
            workers,
            queue,
            metrics,
        }
    }

    fn deliver(&mut self, topic: &Topic, positions: std::ops::RangeInclusive<u64>) {
        for ms in positions {
            self.workers.deliver(&[0], &delivery(topic, ms), None);
        }
    }

    /// Empties the queue of what filled it.
    fn make_room(&mut self) {
        assert_eq!(lines(&mut self.queue).len(), INBOUND_MAX);
    }

    /// What is paid once there is room for everything.
    fn paid(&mut self) -> Vec<String> {
        self.make_room();
        self.workers.settle();
        let paid = lines(&mut self.queue);
        assert_eq!(self.metrics.control.owed.get(), 0);
        paid
    }

    fn owed(&mut self) -> u64 {
        self.workers.settle();
        self.metrics.control.owed.get()
    }
}

#[test]
fn a_full_queue_is_owed_the_newest_and_how_many_were_left_out() {
    let mut rig = Rig::full();
    rig.deliver(&topic("a"), 1..=5);
    assert_eq!(rig.owed(), 1);
    assert_eq!(rig.metrics.control.worker_queue_full.get(), 1);
    assert_eq!(rig.paid(), ["behind a 5 5"]);
    rig.deliver(&topic("a"), 6..=6);
    assert_eq!(lines(&mut rig.queue), ["deliver a 6"]);
}

#[test]
fn a_full_queue_is_told_how_urgent_the_most_urgent_was_that_was_left_out() {
    let mut rig = Rig::full();
    let topic = topic("a");
    rig.deliver(&topic, 1..=2);
    let mut urgent = publication();
    urgent.priority = Priority::Critical;
    let entry = Entry {
        position: at(3),
        prev: at(2),
        body: Body::Publication(Arc::new(urgent)),
    };
    let urgent = Outgoing::new(topic.clone(), entry, true);
    rig.workers.deliver(&[0], &urgent, None);
    rig.deliver(&topic, 4..=4);
    assert_eq!(rig.paid(), ["behind a 4 4 urgent"]);
}

#[test]
fn nothing_of_a_topic_passes_what_is_owed_of_it() {
    let mut rig = Rig::full();
    rig.deliver(&topic("a"), 1..=2);
    rig.make_room();
    rig.deliver(&topic("b"), 8..=8);
    rig.deliver(&topic("a"), 3..=3);
    let paid = ["behind a 2 2", "deliver b 8", "deliver a 3"];
    assert_eq!(lines(&mut rig.queue), paid);
}

#[test]
fn no_topic_starves_at_a_worker_that_stays_behind() {
    let mut rig = Rig::full();
    let names = ["a", "b", "c", "d", "e"];
    for ms in 1..=10 {
        // Each turn brings something of every topic, and the worker takes one message.
        for name in names {
            rig.deliver(&topic(name), ms..=ms);
        }
        rig.queue.try_recv().expect("a full queue");
        rig.workers.settle();
        assert_eq!(rig.queue.len(), INBOUND_MAX);
    }
    let paid = lines(&mut rig.queue).split_off(INBOUND_MAX - 10);
    let expected = [
        "behind a 1 1",
        "behind b 2 2",
        "behind c 3 3",
        "behind d 4 4",
        "behind e 5 5",
        "behind a 6 5",
        "behind b 7 5",
        "behind c 8 5",
        "behind d 9 5",
        "behind e 10 5",
    ];
    assert_eq!(paid, expected);
}

#[test]
fn topics_that_come_and_go_at_a_full_worker_leave_nothing_behind() {
    let mut rig = Rig::full();
    rig.deliver(&topic("stays"), 1..=1);
    for _ in 0..10_000 {
        rig.deliver(&topic("blinks"), 1..=1);
        rig.workers.forget(0, &topic("blinks"));
    }
    assert!(rig.workers.places() < 1_000, "{}", rig.workers.places());
    assert_eq!(rig.paid(), ["behind stays 1 1"]);
}

#[test]
fn a_failover_that_was_left_out_is_told_from_its_lowest() {
    let mut rig = Rig::full();
    let topic = topic("a");
    let failover = |rig: &mut Rig, from, to| {
        let gap = Inbound::Gap {
            topic: topic.clone(),
            from: at(from),
            to: at(to),
            reason: GapReason::Failover,
        };
        rig.workers.send_gap(0, gap);
    };
    rig.deliver(&topic, 9..=9);
    failover(&mut rig, 5, 5);
    failover(&mut rig, 3, 4);
    failover(&mut rig, 6, 6);
    rig.deliver(&topic, 7..=7);
    assert_eq!(rig.paid(), ["behind a 7 2 void above 3"]);
    rig.deliver(&topic, 8..=8);
    assert_eq!(lines(&mut rig.queue), ["deliver a 8"]);
}

#[test]
fn each_topic_is_paid_as_far_as_there_is_room() {
    let mut rig = Rig::full();
    for name in ["a", "b", "c"] {
        rig.deliver(&topic(name), 4..=4);
    }
    assert_eq!(rig.owed(), 3);
    rig.queue.try_recv().expect("a full queue");
    assert_eq!(rig.owed(), 2);
    rig.queue.try_recv().expect("a full queue");
    assert_eq!(rig.owed(), 1);
    rig.make_room();
    assert_eq!(rig.owed(), 0);
}

#[test]
fn an_owed_join_is_answered_with_the_newest_and_nothing_before_it_is_missed() {
    let mut rig = Rig::full();
    rig.deliver(&topic("a"), 3..=3);
    rig.workers.send_joined(0, &topic("a"), at(4), WISH);
    rig.deliver(&topic("a"), 5..=6);
    assert_eq!(rig.paid(), ["joined a 6"]);
}

#[test]
fn an_owed_join_at_the_beginning_of_an_empty_topic_is_answered() {
    let mut rig = Rig::full();
    rig.workers
        .send_joined(0, &topic("a"), Position::ZERO, WISH);
    assert_eq!(rig.paid(), ["joined a 0"]);
}

#[test]
fn an_owed_gap_is_told_by_where_the_topic_stands() {
    let mut rig = Rig::full();
    let gap = Inbound::Gap {
        topic: topic("a"),
        from: at(3),
        to: at(9),
        reason: GapReason::Retention,
    };
    rig.workers.send_gap(0, gap);
    assert_eq!(rig.paid(), ["behind a 9 0"]);
}

#[test]
fn of_the_cursor_only_the_latest_move_is_owed_and_it_comes_behind_the_rest() {
    let mut rig = Rig::full();
    for ms in [2, 3] {
        rig.workers
            .send_acked(0, &topic("a"), at(ms), SessionId(ms.into()));
    }
    rig.deliver(&topic("a"), 8..=8);
    assert_eq!(rig.paid(), ["behind a 8 1", "acked a 3"]);
}

#[test]
fn a_cursor_alone_does_not_make_a_topic_fall_behind() {
    let mut rig = Rig::full();
    rig.workers.send_acked(0, &topic("a"), at(2), SessionId(1));
    assert_eq!(rig.paid(), ["acked a 2"]);
}

#[test]
fn whoever_left_the_topic_is_owed_nothing_more_of_it() {
    let mut rig = Rig::full();
    rig.deliver(&topic("a"), 1..=5);
    rig.deliver(&topic("b"), 1..=5);
    rig.workers.forget(0, &topic("a"));
    assert_eq!(rig.paid(), ["behind b 5 5"]);
    rig.workers.send_joined(0, &topic("a"), at(9), WISH);
    assert_eq!(lines(&mut rig.queue), ["joined a 9"]);
}

#[test]
fn orders_wait_for_room_and_are_all_carried_out() {
    let mut rig = Rig::full();
    for _ in 0..3 {
        rig.workers.broadcast(|| Inbound::Disconnect {
            inbox: topic("a"),
            session: None,
            reason: CloseReason::Disconnected,
        });
    }
    rig.workers.settle();
    assert_eq!(rig.paid(), ["disconnect"; 3]);
}

#[test]
fn an_order_that_is_dropped_is_counted() {
    let mut rig = Rig::full();
    for n in 0..1_030 {
        rig.workers.broadcast(|| Inbound::Disconnect {
            inbox: topic("a"),
            session: Some(SessionId(n)),
            reason: CloseReason::Disconnected,
        });
    }
    assert_eq!(rig.metrics.control.orders_dropped.get(), 6);
    assert_eq!(rig.paid().len(), 1_024);
}

#[test]
fn a_full_worker_does_not_keep_anything_from_another() {
    let metrics = Arc::new(Metrics::new(2));
    let (slow, _full) = WorkerHandle::new(Arc::default());
    let (fast, mut queue) = WorkerHandle::new(Arc::default());
    let mut workers = WorkerQueues::new(vec![slow, fast], metrics);
    for ms in 1..=INBOUND_MAX as u64 + 5 {
        workers.deliver(&[0, 1], &delivery(&topic("a"), ms), None);
        workers.settle();
        assert_eq!(lines(&mut queue), [format!("deliver a {ms}")]);
    }
}
