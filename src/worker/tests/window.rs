//! The window of recent publications: what it serves, what bounds it, and when it is no use.
//!
//! In: deliveries, and sessions that come late. Out: what they read, and whether a page was asked
//! from the broker.

use std::time::{Duration, Instant};

use super::rig::{BOUND, Rig, Source};
use crate::broker::Entry;
use crate::worker::catchup::ReadPage;
use crate::worker::outbox::Bound;
use crate::worker::recent::AGE;
use fanfare_protocol::data::Data;
use fanfare_protocol::event::GapReason;
use fanfare_protocol::form::{Encoding, WireForm};
use fanfare_protocol::ids::Position;

const WIDE: usize = 1_000_000;

/// A worker with such a window, and a live session that keeps the topic there.
async fn rig(recent_bytes_max: usize, source: &Source) -> Rig {
    let mut rig = Rig::with(BOUND, recent_bytes_max).await;
    rig.live(source).await;
    rig
}

fn deliver(rig: &Rig, source: &mut Source, count: usize) {
    for entry in source.publish_many(count) {
        rig.turn([source.deliver(&entry)]);
    }
}

fn hits_and_misses(rig: &Rig) -> (u64, u64) {
    let counters = rig.counters();
    (counters.recent_hits.get(), counters.recent_misses.get())
}

#[tokio::test]
async fn a_session_is_caught_up_from_the_window_without_asking_the_broker() {
    let mut source = Source::new(1_000);
    let mut rig = rig(WIDE, &source).await;
    deliver(&rig, &mut source, 250);
    let client = rig.after(&source, source.positions[20]).await;
    assert_eq!(rig.pull(&client), None, "no page is asked for");
    assert_eq!(hits_and_misses(&rig), (3, 0), "a hundred a page");
    assert_eq!(rig.counters().replayed.get(), 230);
    deliver(&rig, &mut source, 1);
    let expected: Vec<_> = (21..=251).map(|n| n.to_string()).collect();
    assert_eq!(rig.read(client).await, expected);
}

#[tokio::test]
async fn what_is_older_than_the_window_comes_from_the_broker_and_the_rest_from_the_window() {
    let mut source = Source::new(1_000);
    source.publish_many(3);
    let mut rig = rig(WIDE, &source).await;
    deliver(&rig, &mut source, 3);
    let client = rig.after(&source, Position::ZERO).await;
    let pull = rig.pull(&client).expect("the window does not reach so far");
    assert_eq!(hits_and_misses(&rig), (0, 1));
    let page = source.stream.since(pull.at, 3);
    assert!(rig.page(&client, &pull, &page));
    assert_eq!(rig.pull(&client), None);
    assert_eq!(hits_and_misses(&rig), (1, 1));
    assert_eq!(rig.read(client).await, ["1", "2", "3", "4", "5", "6"]);
}

#[tokio::test]
async fn the_window_of_all_topics_is_bounded_in_bytes_and_the_oldest_goes() {
    let mut sources = ["a", "b"].map(|n| Source::named(n, 1_000));
    // The least that an entry counts is 256.
    let bytes_max = 40 * 1_000;
    let mut rig = rig(bytes_max, &sources[0]).await;
    rig.live(&sources[1]).await;
    for _ in 0..200 {
        for source in &mut sources {
            deliver(&rig, source, 1);
        }
        let state = rig.worker.state.borrow();
        let kept: usize = state.hub.iter().map(|t| t.recent.len()).sum();
        assert!(kept * 256 <= bytes_max && state.recent.bytes() <= bytes_max);
    }
    let kept = |rig: &Rig| {
        let state = rig.worker.state.borrow();
        let counts = state.hub.iter().map(|t| t.recent.len());
        counts.collect::<Vec<_>>()
    };
    let [a, b] = kept(&rig)[..] else { panic!() };
    assert!(a.abs_diff(b) <= 1 && a > 10, "{a} and {b}");
    let near = rig.after(&sources[0], sources[0].positions[201 - a]).await;
    assert_eq!(rig.pull(&near), None, "it reaches back so far");
    let far = rig.after(&sources[0], sources[0].positions[199 - a]).await;
    assert!(rig.pull(&far).is_some(), "and no further");
}

/// Text of control characters that came as MessagePack: six times as long in JSON.
fn publish_controls(source: &mut Source, count: usize) -> Vec<Entry> {
    let text = "\u{1}".repeat(2_000);
    let data = rmp_serde::to_vec(&text).expect("text");
    let data = Data::from_msgpack(&data).expect("a body");
    let publish = |_| source.publish_with(|p| p.data = data.clone());
    (0..count).map(publish).collect()
}

#[tokio::test]
async fn the_window_counts_the_frames_of_both_forms() {
    let bytes_max = 300_000;
    let mut source = Source::new(1_000);
    let rig = rig(bytes_max, &source).await;
    for entry in publish_controls(&mut source, 100) {
        rig.turn([source.deliver(&entry)]);
        let state = rig.worker.state.borrow();
        let recent: Vec<_> = state.hub.iter().flat_map(|t| t.recent.iter()).collect();
        let held = |wire| recent.iter().map(|o| o.frame(wire).len()).sum::<usize>();
        let held = held(WireForm::websocket(Encoding::Json))
            + held(WireForm::websocket(Encoding::MsgPack));
        let stored = 2_000 * recent.len();
        assert!(held + stored <= state.recent.bytes(), "{held} and {stored}");
        assert!(state.recent.bytes() <= bytes_max && !recent.is_empty());
    }
}

#[tokio::test]
async fn pages_are_bounded_by_what_their_frames_have() {
    let bytes_max = 200_000;
    let bound = Bound { bytes_max, ..BOUND };
    for recent_bytes_max in [0, 10 * bytes_max] {
        let mut source = Source::new(1_000);
        let mut rig = Rig::with(bound, recent_bytes_max).await;
        let stays = rig.live(&source).await;
        rig.stall(&stays);
        for entry in publish_controls(&mut source, 60) {
            rig.turn([source.deliver(&entry)]);
        }
        let client = rig.after(&source, Position::ZERO).await;
        while let Some(pull) = rig.pull(&client) {
            let page = source.page(pull.at);
            let page = ReadPage::new(&pull.topic, page, rig.worker.page_bytes_max());
            // Its socket takes nothing.
            assert!(rig.worker.page(client.key, &pull, &page, 0));
        }
        let waiting = {
            let state = rig.worker.state.borrow();
            state.sessions[client.key].outbox.messages().bytes
        };
        // The last page came while less than half waited.
        let most = bytes_max / 2 + rig.worker.page_bytes_max();
        assert!((bytes_max / 2..=most).contains(&waiting), "{waiting}");
    }
}

#[tokio::test]
async fn what_is_too_old_leaves_the_window() {
    let mut source = Source::new(1_000);
    let mut rig = rig(WIDE, &source).await;
    let before = Instant::now();
    deliver(&rig, &mut source, 3);
    let later = Instant::now();
    let age = |rig: &Rig, now: Instant| {
        let state = &mut *rig.worker.state.borrow_mut();
        state.recent.age(&mut state.hub, now);
        state.recent.bytes()
    };
    assert!(age(&rig, before + AGE - Duration::from_millis(1)) > 0);
    assert_eq!(age(&rig, later + AGE), 0);
    let client = rig.after(&source, Position::ZERO).await;
    assert!(rig.pull(&client).is_some());
}

#[tokio::test]
async fn the_window_ends_before_a_hole_and_the_broker_fills_it() {
    let mut source = Source::new(1_000);
    let mut rig = rig(WIDE, &source).await;
    deliver(&rig, &mut source, 2);
    let entries = source.publish_many(3);
    rig.turn([source.behind(entries[1].position, 2)]);
    rig.turn([source.deliver(&entries[2])]);
    let client = rig.after(&source, Position::ZERO).await;
    let pull = rig.pull(&client).expect("the window has a hole");
    assert_eq!(pull.at, source.positions[2], "up to it the window serves");
    let page = source.stream.since(pull.at, 2);
    assert!(rig.page(&client, &pull, &page));
    assert_eq!(rig.pull(&client), None, "and behind it again");
    assert_eq!(rig.read(client).await, ["1", "2", "3", "4", "5"]);
}

#[tokio::test]
async fn after_a_failover_the_window_shows_nothing_of_what_was_lost() {
    let mut source = Source::new(1_000);
    let mut rig = rig(WIDE, &source).await;
    deliver(&rig, &mut source, 4);
    let common = source.positions[2];
    let before_ms = source.stream.now_ms + 1;
    source.stream.lose_newest(2, before_ms);
    rig.turn([source.gap(common, common, GapReason::Failover)]);
    deliver(&rig, &mut source, 1);
    let client = rig.after(&source, Position::ZERO).await;
    let pull = rig.pull(&client).expect("the window begins anew");
    assert!(rig.page(&client, &pull, &source.stream.since(pull.at, 2)));
    assert_eq!(rig.pull(&client), None);
    assert_eq!(rig.read(client).await, ["1", "2", "5"]);
}

/// Only the topic's own list was cleared: each place of a lost entry in the common order then let
/// a newer one of the same topic go, and the bytes of lost ones stayed counted.
#[tokio::test]
async fn what_a_failover_took_from_the_window_takes_nothing_newer_with_it() {
    let mut source = Source::new(1_000);
    let mut rig = rig(WIDE, &source).await;
    deliver(&rig, &mut source, 3);
    let began = Instant::now();
    let common = source.newest();
    rig.turn([source.gap(common, common, GapReason::Failover)]);
    assert_eq!(rig.worker.state.borrow().recent.bytes(), 0);
    while Instant::now() <= began {
        std::hint::spin_loop();
    }
    deliver(&rig, &mut source, 3);
    {
        let state = &mut *rig.worker.state.borrow_mut();
        state.recent.age(&mut state.hub, began + AGE);
    }
    let client = rig.after(&source, common).await;
    assert_eq!(rig.pull(&client), None, "the newer ones are there");
    assert_eq!(rig.read(client).await, ["4", "5", "6"]);
}

#[tokio::test]
async fn a_topic_without_history_has_no_part_in_the_window() {
    let mut source = Source::new(0);
    let rig = rig(WIDE, &source).await;
    deliver(&rig, &mut source, 3);
    assert_eq!(rig.worker.state.borrow().recent.bytes(), 0);
}
