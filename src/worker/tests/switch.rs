//! The way between live deliveries and pages: one test for each rule.
//!
//! In: a worker, a stream, and a page that comes when it pleases. Out: what the client reads.

use super::rig::{BOUND, Rig, Source};
use crate::broker::SincePage;
use crate::worker::Join;
use crate::worker::outbox::Bound;
use fanfare_protocol::event::GapReason;
use fanfare_protocol::ids::Position;

#[tokio::test]
async fn deliveries_begin_above_the_position_at_which_the_topic_was_joined() {
    let mut rig = Rig::new().await;
    let mut source = Source::new(100);
    let client = rig.client().await;
    let Join::Waiting(mut answer) = rig.join(&client, &source) else {
        panic!("nobody had joined");
    };
    let entries = source.publish_many(3);
    // Of an earlier stay of this worker in the topic.
    rig.turn([source.deliver(&entries[0])]);
    rig.turn([source.behind(entries[1].position, 1)]);
    assert!(answer.try_recv().is_err(), "not joined yet");
    rig.turn([rig.joined(&source, entries[1].position)]);
    assert!(answer.try_recv().is_ok());
    let begins = rig.worker.begin_live(client.key, &source.topic);
    assert_eq!(begins, Some(entries[1].position));
    rig.turn([source.deliver(&entries[2])]);
    assert_eq!(rig.read(client).await, ["3"]);
}

#[tokio::test]
async fn nothing_is_pushed_before_the_session_has_answered_its_client() {
    let mut rig = Rig::new().await;
    let mut source = Source::new(100);
    let first = rig.live(&source).await;
    let second = rig.client().await;
    assert!(matches!(rig.join(&second, &source), Join::Live));
    let entry = source.publish();
    rig.turn([source.deliver(&entry)]);
    rig.worker.begin_live(second.key, &source.topic);
    let entry = source.publish();
    rig.turn([source.deliver(&entry)]);
    assert_eq!(rig.read(first).await, ["1", "2"]);
    assert_eq!(rig.read(second).await, ["2"]);
}

#[tokio::test]
async fn a_session_is_not_live_before_its_pages_reach_the_last_delivery() {
    let mut rig = Rig::new().await;
    let mut source = Source::new(100);
    source.publish_many(3);
    let client = rig.after(&source, Position::ZERO).await;
    let pull = rig.pull(&client).expect("it catches up");
    let page = source.stream.since(pull.at, 1);
    assert!(rig.page(&client, &pull, &page));
    let entry = source.publish();
    rig.turn([source.deliver(&entry)]);
    rig.catch_up(&client, &source);
    let entry = source.publish();
    rig.turn([source.deliver(&entry)]);
    assert_eq!(rig.pull(&client), None, "it is live again");
    assert_eq!(rig.read(client).await, ["1", "2", "3", "4", "5"]);
}

#[tokio::test]
async fn what_a_page_brought_before_the_feed_did_is_not_pushed_again() {
    let mut rig = Rig::new().await;
    let mut source = Source::new(100);
    let joined = source.publish();
    let client = rig.after(&source, Position::ZERO).await;
    let entries = source.publish_many(2);
    // The page is ahead of this worker, which has seen only the first.
    rig.catch_up(&client, &source);
    assert_eq!(entries[0].prev, joined.position);
    rig.turn(entries.iter().map(|e| source.deliver(e)));
    let entry = source.publish();
    rig.turn([source.deliver(&entry)]);
    assert_eq!(rig.read(client).await, ["1", "2", "3", "4"]);
}

#[tokio::test]
async fn a_session_that_fell_behind_does_not_read_again_what_a_page_had_brought() {
    let mut rig = Rig::new().await;
    let mut source = Source::new(100);
    source.publish();
    let client = rig.after(&source, Position::ZERO).await;
    let entries = source.publish_many(3);
    rig.catch_up(&client, &source);
    // The worker comes to know of them only now, and not one by one.
    rig.turn([source.behind(entries[1].position, 2)]);
    rig.catch_up(&client, &source);
    rig.turn([source.deliver(&entries[2])]);
    assert_eq!(rig.read(client).await, ["1", "2", "3", "4"]);
}

#[tokio::test]
async fn a_delivery_that_passes_by_while_a_page_is_on_its_way_is_pulled() {
    let mut rig = Rig::new().await;
    let mut source = Source::new(100);
    source.publish_many(2);
    let client = rig.after(&source, Position::ZERO).await;
    let pull = rig.pull(&client).expect("it catches up");
    let page = source.page(pull.at);
    let entry = source.publish();
    rig.turn([source.deliver(&entry)]);
    assert!(rig.page(&client, &pull, &page));
    let pull = rig.pull(&client).expect("the third is still missing");
    assert_eq!(pull.at, source.positions[2]);
    assert!(rig.page(&client, &pull, &source.page(pull.at)));
    assert_eq!(rig.pull(&client), None);
    assert_eq!(rig.read(client).await, ["1", "2", "3"]);
}

#[tokio::test]
async fn deliveries_that_were_left_out_are_pulled() {
    let mut rig = Rig::new().await;
    let mut source = Source::new(100);
    let client = rig.live(&source).await;
    let entries = source.publish_many(5);
    rig.turn([source.deliver(&entries[0])]);
    rig.turn([source.behind(entries[2].position, 2)]);
    rig.turn([source.deliver(&entries[3])]);
    rig.catch_up(&client, &source);
    rig.turn([source.deliver(&entries[4])]);
    assert_eq!(rig.pull(&client), None);
    assert_eq!(rig.read(client).await, ["1", "2", "3", "4", "5"]);
}

#[tokio::test]
async fn a_delivery_that_does_not_follow_the_last_one_is_pulled_with_what_is_missing() {
    let mut rig = Rig::new().await;
    let mut source = Source::new(100);
    let client = rig.live(&source).await;
    let entries = source.publish_many(3);
    rig.turn([source.deliver(&entries[0]), source.deliver(&entries[2])]);
    rig.catch_up(&client, &source);
    assert_eq!(rig.read(client).await, ["1", "2", "3"]);
}

#[tokio::test]
async fn a_page_that_was_asked_for_in_an_earlier_stay_is_dropped() {
    let mut rig = Rig::new().await;
    let mut source = Source::new(100);
    source.publish_many(4);
    let client = rig.after(&source, Position::ZERO).await;
    let stale = rig.pull(&client).expect("it catches up");
    // It left and came back with a newer position while the page was on its way.
    rig.worker.leave(client.key, &source.topic);
    rig.enter(&client, &source);
    let at = source.positions[2];
    rig.worker.begin_after(client.key, &source.topic, at);
    assert!(rig.page(&client, &stale, &source.page(stale.at)));
    let pull = rig.pull(&client).expect("it catches up again");
    assert!(rig.page(&client, &stale, &source.page(stale.at)));
    assert!(rig.page(&client, &pull, &source.page(pull.at)));
    assert_eq!(rig.read(client).await, ["3", "4"]);
}

#[tokio::test]
async fn a_session_has_one_page_on_its_way_and_its_topics_take_turns() {
    let mut rig = Rig::new().await;
    let mut sources = ["a", "b"].map(|name| Source::named(name, 100));
    let client = rig.client().await;
    for source in &mut sources {
        source.publish_many(3);
        rig.enter(&client, source);
        rig.worker
            .begin_after(client.key, &source.topic, Position::ZERO);
    }
    let first = rig.pull(&client).expect("one topic");
    assert_eq!(rig.pull(&client), None, "one page at a time");
    let page = sources[0].stream.since(first.at, 1);
    assert!(rig.page(&client, &first, &page));
    let second = rig.pull(&client).expect("the other topic");
    assert_eq!(second.topic, sources[1].topic);
    assert_eq!(rig.pull(&client), None, "one page at a time");
    let page = sources[1].stream.since(second.at, 1);
    assert!(rig.page(&client, &second, &page));
    let third = rig.pull(&client).expect("the first topic again");
    assert_eq!(
        (third.topic, third.at),
        (first.topic, sources[0].positions[1])
    );
}

#[tokio::test]
async fn a_page_is_asked_for_only_when_the_outbox_has_room() {
    let narrow = Bound {
        messages_max: 1,
        ..BOUND
    };
    let mut rig = Rig::with_bound(narrow).await;
    let mut source = Source::new(100);
    source.publish();
    let client = rig.after(&source, Position::ZERO).await;
    let frame = bytes::Bytes::from_static(b"\x81\x02{}");
    rig.worker.push(client.key, frame);
    assert_eq!(rig.pull(&client), None);
    rig.worker.flush(client.key);
    assert!(rig.pull(&client).is_some());
}

#[tokio::test]
async fn a_page_that_brought_nothing_rests_until_it_is_asked_for_again() {
    let mut rig = Rig::new().await;
    let mut source = Source::new(100);
    let client = rig.live(&source).await;
    let entry = source.publish();
    rig.turn([source.behind(entry.position, 1)]);
    let pull = rig.pull(&client).expect("it fell behind");
    // Read from a history that has not heard of it yet.
    let nothing = SincePage {
        gap: None,
        start: pull.at,
        last: pull.at,
        entries: Vec::new(),
    };
    assert!(!rig.page(&client, &pull, &nothing));
    assert_eq!(rig.pull(&client), None, "it rests");
    rig.worker.pull_again(client.key, &pull);
    rig.catch_up(&client, &source);
    assert_eq!(rig.read(client).await, ["1"]);
}

#[tokio::test]
async fn an_empty_page_ends_a_catch_up_that_has_reached_the_last_delivery() {
    let mut rig = Rig::new().await;
    let mut source = Source::new(100);
    let client = rig.live(&source).await;
    let entries = source.publish_many(2);
    rig.turn([source.deliver(&entries[0])]);
    rig.turn([source.behind(entries[0].position, 0)]);
    let pull = rig.pull(&client).expect("it may be behind");
    let page = source.stream.since(pull.at, 0);
    assert!(rig.page(&client, &pull, &page));
    rig.turn([source.deliver(&entries[1])]);
    assert_eq!(rig.pull(&client), None);
    assert_eq!(rig.read(client).await, ["1", "2"]);
}

#[tokio::test]
async fn a_page_of_before_a_failover_is_dropped_and_read_again() {
    let mut rig = Rig::new().await;
    let mut source = Source::new(100);
    let common = source.publish();
    let client = rig.live(&source).await;
    rig.turn([source.behind(common.position, 0)]);
    let pull = rig.pull(&client).expect("it may be behind");
    source.stream.now_ms += 100;
    let lost = source.publish();
    let stale = source.page(pull.at);
    let before_ms = source.stream.now_ms - 50;
    source.stream.lose_newest(1, before_ms);
    let entry = source.publish();
    assert!(entry.position < lost.position);
    let at = common.position;
    let gap = source.gap(at, at, GapReason::Failover);
    rig.turn([gap, source.deliver(&entry)]);
    assert!(rig.page(&client, &pull, &stale), "nobody waits for it");
    rig.catch_up(&client, &source);
    let entry = source.publish();
    rig.turn([source.deliver(&entry)]);
    assert_eq!(rig.read(client).await, ["gap:failover", "3", "4"]);
}

#[tokio::test]
async fn a_session_that_catches_up_goes_back_to_where_a_failover_began() {
    let mut rig = Rig::new().await;
    let mut source = Source::new(100);
    let common = source.publish().position;
    source.stream.now_ms += 100;
    let lost = source.publish_many(2);
    let client = rig.after(&source, lost[0].position).await;
    let stale = rig.pull(&client).expect("it catches up");
    let page = source.page(stale.at);
    let before_ms = source.stream.now_ms - 50;
    source.stream.lose_newest(2, before_ms);
    let entry = source.publish();
    let gap = source.gap(common, common, GapReason::Failover);
    rig.turn([gap, source.deliver(&entry)]);
    assert!(rig.page(&client, &stale, &page));
    rig.catch_up(&client, &source);
    assert_eq!(rig.read(client).await, ["gap:failover", "4"]);
}

/// A worker with a full queue was told only where the topic stands; its sessions then skipped new
/// ids below those that were lost.
#[tokio::test]
async fn a_failover_among_what_was_left_out_is_told_and_read_across() {
    let mut rig = Rig::new().await;
    let mut source = Source::new(100);
    let common = source.publish().position;
    let client = rig.live(&source).await;
    source.stream.now_ms += 100;
    let lost = source.publish();
    rig.turn([source.deliver(&lost)]);
    let before_ms = source.stream.now_ms - 50;
    source.stream.lose_newest(1, before_ms);
    let missed = source.publish();
    assert!(missed.position < lost.position);
    rig.turn([source.behind_failover(common, missed.position, 1)]);
    let next = source.publish();
    rig.turn([source.deliver(&next)]);
    rig.catch_up(&client, &source);
    let read = rig.read(client).await;
    assert_eq!(read, ["2", "gap:failover", "3", "4"]);
}

#[tokio::test]
async fn what_was_left_out_before_a_failover_and_survived_is_read() {
    let mut rig = Rig::new().await;
    let mut source = Source::new(100);
    let client = rig.live(&source).await;
    let kept = source.publish();
    source.publish();
    let before_ms = source.stream.now_ms;
    source.stream.lose_newest(1, before_ms);
    let newest = source.publish().position;
    rig.turn([source.behind_failover(kept.position, newest, 3)]);
    rig.catch_up(&client, &source);
    let read = rig.read(client).await;
    assert_eq!(read, ["gap:failover", "1", "3"]);
}

#[tokio::test]
async fn without_history_a_failover_that_was_left_out_is_told_as_one() {
    let mut rig = Rig::new().await;
    let mut source = Source::new(0);
    let common = source.publish().position;
    let client = rig.live(&source).await;
    source.stream.now_ms += 100;
    let lost = source.publish();
    rig.turn([source.deliver(&lost)]);
    let before_ms = source.stream.now_ms - 50;
    source.stream.lose_newest(1, before_ms);
    let missed = source.publish();
    let next = source.publish();
    rig.turn([
        source.behind_failover(common, missed.position, 1),
        source.deliver(&next),
    ]);
    let read = rig.read(client).await;
    assert_eq!(read, ["2", "gap:failover", "4"]);
}
