//! The turn, the catch-up and the outboxes together: what each session's client reads.
//!
//! In: deliveries, gaps and pages in the orders in which they can meet. Out: the frames at the
//! client's end of a real socket. [`switch`] has a test for each rule of the way back to live
//! deliveries, [`slow`] for each of what a full outbox sheds, [`window`] for the window of recent
//! publications, [`joining`] for how a stay begins, [`leading`] for sessions that have come
//! further than their worker, [`limiting`] for a right that goes meanwhile, [`tracing`] for what is
//! told of writes: each fails without its rule. [`simulation`] lets everything happen at any time.

mod joining;
mod leading;
mod limiting;
mod rig;
mod shedding;
mod simulation;
mod slow;
mod switch;
mod ticking;
mod tracing;
mod window;

use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::AsyncReadExt as _;
use tokio::sync::watch;
use tokio::task::{LocalSet, spawn_local};

use rig::{Rig, Source, short};

use super::handle::{Inbound, WorkerHandle};
use super::outbox::Bound;
use super::wheel;
use crate::lifecycle::Lifecycle;
use fanfare_protocol::close::CloseReason;
use fanfare_protocol::event::GapReason;
use fanfare_protocol::ids::{App, Position, Priority, Topic, User};

/// Longest wait for anything, many times what a loaded machine takes.
const DEADLINE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn without_history_what_a_full_worker_missed_is_told_once_with_its_count() {
    let mut rig = Rig::new().await;
    let mut source = Source::new(0);
    let (one, other) = (rig.live(&source).await, rig.live(&source).await);
    let entries = source.publish_many(4);
    rig.turn([source.deliver(&entries[0])]);
    rig.turn([source.behind(entries[2].position, 2)]);
    rig.turn([source.deliver(&entries[3])]);
    assert_eq!(rig.pull(&one), None, "there is nothing to read");
    assert_eq!(rig.counters().gaps_told.get(), 2);
    assert_eq!(rig.counters().dropped_behind.get(), 4, "two for each");
    for client in [one, other] {
        let events = rig.close(client).await;
        assert_eq!(short(&events), ["1", "gap:slow", "4"]);
        assert_eq!(events[1]["from"], entries[0].position.to_string());
        assert_eq!(events[1]["to"], entries[2].position.to_string());
        assert_eq!(events[1]["dropped"], 2);
    }
}

/// Whichever way it shows that something is missing, and also where it is being read already.
#[tokio::test]
async fn what_a_worker_missed_is_read_as_urgently_as_what_is_known_of_it() {
    for (is_told, was_behind) in [(true, false), (true, true), (false, false)] {
        let mut rig = Rig::new().await;
        let mut sources = ["a", "b"].map(|n| Source::named(n, 100));
        let client = rig.live(&sources[0]).await;
        rig.enter(&client, &sources[1]);
        rig.worker.begin_live(client.key, &sources[1].topic);
        let [calm, urgent] = &mut sources;
        let newest = calm.publish().position;
        rig.turn([calm.behind(newest, 1)]);
        if was_behind {
            let newest = urgent.publish().position;
            rig.turn([urgent.behind(newest, 1)]);
        }
        let missed = urgent.publish_as(Priority::Critical);
        rig.turn([if is_told {
            Inbound::Behind {
                topic: urgent.topic.clone(),
                newest: missed.position,
                dropped: 1,
                urgency: Priority::Critical,
                void_above: None,
            }
        } else {
            let next = urgent.publish_as(Priority::Critical);
            urgent.deliver(&next)
        }]);
        let pull = rig.pull(&client).expect("both are behind");
        assert_eq!(pull.topic, urgent.topic, "{is_told} {was_behind}");
    }
}

#[tokio::test]
async fn without_history_a_delivery_that_does_not_follow_the_last_one_is_a_gap() {
    let mut rig = Rig::new().await;
    let mut source = Source::new(0);
    let client = rig.live(&source).await;
    let entries = source.publish_many(4);
    rig.turn([&entries[0], &entries[2], &entries[3]].map(|e| source.deliver(e)));
    let events = rig.close(client).await;
    assert_eq!(short(&events), ["1", "gap:slow", "4"]);
    assert_eq!(events[1]["from"], entries[0].position.to_string());
    assert_eq!(events[1]["to"], entries[2].position.to_string());
}

#[tokio::test]
async fn a_gap_of_retention_is_told_and_deliveries_go_on_behind_it() {
    let mut rig = Rig::new().await;
    let mut source = Source::new(100);
    let behind = rig.live(&source).await;
    let ahead = rig.after(&source, Position::ZERO).await;
    let entries = source.publish_many(4);
    // One of the two has read past the gap before the feed came to it.
    rig.worker
        .begin_after(ahead.key, &source.topic, entries[2].position);
    let to = entries[1].position;
    rig.turn([source.gap(Position::ZERO, to, GapReason::Retention)]);
    rig.turn(entries[2..].iter().map(|e| source.deliver(e)));
    assert_eq!(rig.pull(&behind), None, "nothing is missing any more");
    let events = rig.close(behind).await;
    assert_eq!(short(&events), ["gap:retention", "3", "4"]);
    assert_eq!(events[0]["to"], to.to_string());
    assert_eq!(rig.read(ahead).await, ["4"]);
}

/// Publishes two that are then lost, and one more whose position is below theirs.
fn fail_over(source: &mut Source) -> (crate::broker::Entry, crate::broker::Entry) {
    source.stream.now_ms += 100;
    let lost = source.publish_many(2).remove(0);
    let before_ms = source.stream.now_ms - 50;
    source.stream.lose_newest(2, before_ms);
    let entry = source.publish();
    assert!(entry.position < lost.position);
    (lost, entry)
}

#[tokio::test]
async fn after_a_failover_positions_below_what_was_delivered_are_delivered() {
    let mut rig = Rig::new().await;
    let mut source = Source::new(100);
    let common = source.publish().position;
    let live = rig.live(&source).await;
    let (lost, entry) = fail_over(&mut source);
    // Its pages ran ahead of the feed.
    let ahead = rig.client().await;
    rig.enter(&ahead, &source);
    rig.worker
        .begin_after(ahead.key, &source.topic, lost.position);
    rig.turn([source.deliver(&lost)]);
    let gap = source.gap(common, common, GapReason::Failover);
    rig.turn([gap, source.deliver(&entry)]);
    let events = rig.close(live).await;
    assert_eq!(short(&events), ["2", "gap:failover", "4"]);
    assert!(events[1].get("to").is_none());
    assert_eq!(rig.read(ahead).await, ["gap:failover", "4"]);
}

#[tokio::test]
async fn an_acknowledgement_goes_to_every_session_but_the_one_that_made_it() {
    let mut rig = Rig::new().await;
    let mut source = Source::new(100);
    let (by, other) = (rig.live(&source).await, rig.live(&source).await);
    let position = source.publish().position;
    rig.turn([Inbound::Acked {
        topic: source.topic.clone(),
        position,
        session: by.id,
    }]);
    assert!(rig.close(by).await.is_empty());
    let events = rig.close(other).await;
    assert_eq!(short(&events), ["acked"]);
    assert_eq!(events[0]["position"], position.to_string());
}

#[tokio::test]
async fn the_publisher_that_is_left_out_does_not_get_its_own_message() {
    let mut rig = Rig::new().await;
    let mut source = Source::new(100);
    let (author, reader) = (rig.live(&source).await, rig.live(&source).await);
    let mut entry = source.publish();
    if let crate::broker::Body::Publication(publication) = &mut entry.body {
        std::sync::Arc::make_mut(publication).exclude = Some(author.id);
    }
    let next = source.publish();
    rig.turn([source.deliver(&entry), source.deliver(&next)]);
    assert_eq!(rig.read(author).await, ["2"]);
    assert_eq!(rig.read(reader).await, ["1", "2"]);
}

const NARROW: Bound = Bound {
    messages_max: 4,
    bytes_max: 1_000_000,
};

#[tokio::test]
async fn what_comes_in_one_turn_is_no_backlog_while_the_socket_takes_it() {
    let mut rig = Rig::with_bound(NARROW).await;
    let mut source = Source::new(100);
    let client = rig.live(&source).await;
    let entries = source.publish_many(20);
    rig.turn(entries.iter().map(|e| source.deliver(e)));
    assert_eq!(rig.end_reason(&client), None);
    assert_eq!(rig.read(client).await.len(), 20);
}

#[tokio::test]
async fn a_turn_writes_once_to_each_socket_however_much_it_brought() {
    let all = LocalSet::new();
    all.run_until(async {
        let mut rig = Rig::new().await;
        let mut source = Source::new(100);
        let mut clients = [rig.live(&source).await, rig.live(&source).await];
        let (handle, inbound) = WorkerHandle::new(Arc::clone(&rig.worker.metrics));
        for entry in source.publish_many(30) {
            handle.send(source.deliver(&entry)).expect("room");
        }
        let lifecycle = watch::Sender::new(Lifecycle::Ready);
        let worker = Rc::clone(&rig.worker);
        spawn_local(worker.run(inbound, lifecycle.subscribe()));
        for client in &mut clients {
            let first = tokio::time::timeout(DEADLINE, client.end.read_u8()).await;
            assert_eq!(first.expect("in time").expect("open"), 0x81);
        }
        assert_eq!(rig.counters().frames_written.get(), 60);
        assert_eq!(rig.counters().writes.get(), 2);
    })
    .await;
}

#[tokio::test]
async fn the_timers_of_the_first_session_do_not_wait_for_the_tick_of_an_idle_worker() {
    let all = LocalSet::new();
    all.run_until(async {
        let mut rig = Rig::new().await;
        let (_handle, inbound) = WorkerHandle::new(Arc::clone(&rig.worker.metrics));
        let lifecycle = watch::Sender::new(Lifecycle::Ready);
        spawn_local(Rc::clone(&rig.worker).run(inbound, lifecycle.subscribe()));
        // Its first tick, after which it waits for the idle one.
        tokio::time::sleep(wheel::TICK + Duration::from_millis(20)).await;
        let client = rig.client().await;
        rig.worker.schedule(client.key, Instant::now());
        let due = poll_fn(|cx| rig.worker.poll_notices(client.key, cx));
        // Timers of one thread come in their order, however slow the machine is.
        let too_late = tokio::time::sleep(3 * wheel::TICK);
        tokio::select! {
            biased;
            signals = due => assert!(signals.due),
            () = too_late => panic!("the timer waited for the idle tick"),
        }
    })
    .await;
}

#[tokio::test]
async fn more_users_sent_away_than_are_remembered_are_counted() {
    let rig = Rig::new().await;
    let app = App::default_app();
    let inbox = |n: usize| Topic::inbox(&app, &User::new(&format!("u{n}")).expect("a user"));
    let before = rig.worker.disconnects();
    for n in 0..1_024 {
        rig.worker
            .disconnect(&inbox(n), None, CloseReason::Disconnected);
    }
    let of = |n| rig.worker.disconnected_since(&inbox(n), before);
    let unknown = || rig.counters().disconnects_unknown.get();
    assert_eq!(of(0), Some(CloseReason::Disconnected));
    assert_eq!((of(2_000), unknown()), (None, 0));
    rig.worker
        .disconnect(&inbox(1_024), None, CloseReason::Disconnected);
    assert_eq!(of(1), Some(CloseReason::Disconnected));
    assert_eq!((of(0), unknown()), (None, 1));
}
