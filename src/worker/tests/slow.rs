//! What a session sheds when its outbox is full: one test for each rule.
//!
//! In: deliveries to a client whose socket takes nothing. Out: what the client reads once it takes
//! everything again, and what was counted meanwhile.

use super::rig::{BOUND, Client, Rig, Source, short};
use crate::broker::SincePage;
use crate::worker::catchup::{Pull, ReadPage};
use crate::worker::outbox::Bound;
use fanfare_protocol::close::CloseReason;
use fanfare_protocol::event::GapReason;
use fanfare_protocol::ids::{Position, Priority};

const FOUR: Bound = Bound {
    messages_max: 4,
    ..BOUND
};
/// Of this one the target, three quarters, is eight less.
const MANY: Bound = Bound {
    messages_max: 32,
    ..BOUND
};

/// A worker with this bound, and a stalled client that takes these topics live.
async fn stalled<const N: usize>(bound: Bound, sources: [&Source; N]) -> (Rig, Client) {
    let mut rig = Rig::with_bound(bound).await;
    let client = rig.client().await;
    for source in sources {
        rig.enter(&client, source);
        let begins = rig.worker.begin_live(client.key, &source.topic);
        begins.expect("it joined");
    }
    rig.stall(&client);
    (rig, client)
}

fn deliver(rig: &Rig, source: &mut Source, priority: Priority, count: usize) {
    for _ in 0..count {
        let entry = source.publish_as(priority);
        rig.turn([source.deliver(&entry)]);
    }
}

#[tokio::test]
async fn messages_of_one_key_all_come_while_there_is_room() {
    let mut source = Source::new(100);
    let (rig, client) = stalled(FOUR, [&source]).await;
    for _ in 0..4 {
        let entry = source.publish_about("k");
        rig.turn([source.deliver(&entry)]);
    }
    assert_eq!(rig.counters().conflated.get(), 0);
    rig.drain(&client, &[&source]);
    assert_eq!(rig.read(client).await, ["1", "2", "3", "4"]);
}

#[tokio::test]
async fn at_the_bound_the_newest_of_each_key_stands_for_the_others_and_nothing_else_goes() {
    for entries_max in [0, 100] {
        let mut source = Source::named("a", entries_max);
        let mut other = Source::named("b", entries_max);
        let (rig, client) = stalled(FOUR, [&source, &other]).await;
        let of_other = other.publish_about("k");
        rig.turn([other.deliver(&of_other)]);
        for key in ["k", "l", "k"] {
            let entry = source.publish_about(key);
            rig.turn([source.deliver(&entry)]);
        }
        let entry = source.publish();
        rig.turn([source.deliver(&entry)]);
        assert_eq!(rig.counters().conflated.get(), 1);
        assert_eq!(rig.pull(&client), None, "that was enough");
        rig.drain(&client, &[]);
        // The key of one topic has nothing to do with that of another.
        assert_eq!(rig.read(client).await, ["1", "2", "3", "4"]);
        assert_eq!(rig.counters().gaps_told.get(), 0);
    }
}

#[tokio::test]
async fn a_full_outbox_of_as_many_keys_goes_on_with_the_newest_of_each() {
    let mut source = Source::new(0);
    let (rig, client) = stalled(FOUR, [&source]).await;
    for key in ["a", "b", "c", "d"].iter().cycle().take(11) {
        let entry = source.publish_about(key);
        rig.turn([source.deliver(&entry)]);
    }
    assert_eq!(rig.counters().conflated.get(), 7);
    assert_eq!(rig.counters().dropped_slow.get(), 0);
    rig.drain(&client, &[]);
    assert_eq!(rig.read(client).await, ["8", "9", "10", "11"]);
}

#[tokio::test]
async fn lower_lanes_are_taken_back_from_the_lowest_up_before_the_topic_at_hand() {
    let [mut low, mut high, mut normal] = ["low", "high", "n"].map(|n| Source::named(n, 100));
    let (rig, client) = stalled(MANY, [&low, &high, &normal]).await;
    deliver(&rig, &mut low, Priority::Low, 10);
    deliver(&rig, &mut normal, Priority::Normal, 12);
    deliver(&rig, &mut high, Priority::High, 10);
    assert_eq!(rig.counters().taken_back.get(), 0);
    deliver(&rig, &mut high, Priority::High, 1);
    assert_eq!(rig.counters().taken_back.get(), 1, "the lowest was enough");
    let pull = rig.pull(&client).expect("one is to be caught up");
    assert_eq!((&pull.topic, pull.at), (&low.topic, Position::ZERO));
    assert_eq!(rig.waiting(&client), 23);
    deliver(&rig, &mut high, Priority::High, 10);
    assert_eq!(rig.counters().taken_back.get(), 2, "now the next one");
    assert_eq!(rig.waiting(&client), 21, "all of the topic at hand");
    deliver(&rig, &mut high, Priority::High, 12);
    assert_eq!(rig.counters().taken_back.get(), 3, "nothing else is left");
    assert!(rig.page(&client, &pull, &low.page(pull.at)));
    rig.drain(&client, &[&low, &normal, &high]);
    let mut numbers = [0; 3];
    for event in rig.close(client).await {
        let topics = ["low", "n", "high"];
        let at = topics.iter().position(|t| event["topic"] == *t);
        let number = &mut numbers[at.expect("a message of one of them")];
        *number += 1;
        assert_eq!(event["data"], *number, "{event}");
    }
    assert_eq!(numbers, [10, 12, 33]);
}

#[tokio::test]
async fn lower_lanes_without_history_are_dropped_before_the_topic_at_hand_and_told() {
    let [mut low, mut normal] = ["low", "normal"].map(|n| Source::named(n, 0));
    let (rig, client) = stalled(FOUR, [&low, &normal]).await;
    deliver(&rig, &mut normal, Priority::Normal, 1);
    deliver(&rig, &mut low, Priority::Low, 3);
    deliver(&rig, &mut normal, Priority::Normal, 1);
    assert_eq!(rig.counters().dropped_slow.get(), 2);
    rig.drain(&client, &[]);
    let events = rig.close(client).await;
    assert_eq!(short(&events), ["1", "2", "gap:slow", "3"]);
    assert_eq!(events[2]["topic"], "low");
    assert_eq!(events[2]["from"], "0-0");
    assert_eq!(events[2]["to"], low.positions[2].to_string());
    assert_eq!(events[2]["dropped"], 2);
}

#[tokio::test]
async fn what_can_be_read_again_is_taken_back_before_anything_is_dropped() {
    let [mut low, mut high] = ["low", "high"].map(|n| Source::named(n, 0));
    let mut normal = Source::named("normal", 100);
    let (rig, client) = stalled(FOUR, [&low, &high, &normal]).await;
    deliver(&rig, &mut low, Priority::Low, 2);
    deliver(&rig, &mut normal, Priority::Normal, 2);
    deliver(&rig, &mut high, Priority::High, 1);
    assert_eq!(rig.counters().taken_back.get(), 1);
    assert_eq!(rig.counters().dropped_slow.get(), 0);
    rig.drain(&client, &[&normal]);
    assert_eq!(rig.read(client).await, ["1", "1", "2", "1", "2"]);
}

#[tokio::test]
async fn higher_lanes_are_left_alone_and_nobody_ends_for_what_is_below_them() {
    let mut critical = Source::named("critical", 100);
    let [mut low, mut lost] = [("low", 100), ("lost", 0)].map(|(n, max)| Source::named(n, max));
    let (rig, client) = stalled(FOUR, [&critical, &low, &lost]).await;
    deliver(&rig, &mut critical, Priority::Critical, 4);
    deliver(&rig, &mut low, Priority::Low, 2);
    assert_eq!(rig.counters().taken_back.get(), 1, "it is not queued");
    deliver(&rig, &mut lost, Priority::Low, 3);
    assert_eq!(rig.end_reason(&client), None);
    rig.drain(&client, &[&critical, &low]);
    deliver(&rig, &mut lost, Priority::Low, 1);
    let events = rig.close(client).await;
    let expected = ["1", "2", "3", "4", "gap:slow", "1", "2", "4"];
    assert_eq!(short(&events), expected);
    assert_eq!(events[4]["dropped"], 3);
}

#[tokio::test]
async fn a_topic_with_history_is_pulled_from_the_first_that_has_no_room_and_goes_live_again() {
    let mut source = Source::new(100);
    let (rig, client) = stalled(FOUR, [&source]).await;
    deliver(&rig, &mut source, Priority::Normal, 9);
    assert_eq!(rig.waiting(&client), 4, "not one over the bound");
    assert_eq!(rig.pull(&client), None, "there is no room");
    rig.worker.flush(client.key);
    let pull = rig.pull(&client).expect("there is room");
    assert_eq!(pull.at, source.positions[4]);
    deliver(&rig, &mut source, Priority::Normal, 1);
    assert!(rig.page(&client, &pull, &source.page(pull.at)));
    deliver(&rig, &mut source, Priority::Normal, 2);
    assert_eq!(rig.pull(&client), None, "it is live again");
    let all: Vec<_> = (1..=12).map(|n| n.to_string()).collect();
    assert_eq!(rig.read(client).await, all);
}

/// The older ones were taken back as a lower lane while the newest, for which the room was made,
/// was queued: the client read it first, then the older ones, and then it again.
#[tokio::test]
async fn a_message_that_is_more_urgent_than_its_own_topic_before_it_keeps_behind_that() {
    for entries_max in [0, 100] {
        let mut other = Source::named("other", 100);
        let mut source = Source::named("t", entries_max);
        let (rig, client) = stalled(MANY, [&source, &other]).await;
        deliver(&rig, &mut other, Priority::Normal, 16);
        deliver(&rig, &mut source, Priority::Low, 16);
        deliver(&rig, &mut source, Priority::Critical, 1);
        assert_eq!(
            rig.waiting(&client),
            17,
            "only the other one was taken back"
        );
        rig.drain(&client, &[&source, &other]);
        let numbers = |count: u32| (1..=count).map(|n| n.to_string());
        let expected: Vec<_> = numbers(17).chain(numbers(16)).collect();
        assert_eq!(rig.read(client).await, expected);
    }
}

#[tokio::test]
async fn without_history_the_oldest_are_dropped_counted_and_told_as_one_gap() {
    let mut source = Source::new(0);
    let (rig, client) = stalled(MANY, [&source]).await;
    deliver(&rig, &mut source, Priority::Normal, 100);
    assert_eq!(rig.end_reason(&client), None);
    assert!(rig.waiting(&client) <= 32);
    let dropped = rig.counters().dropped_slow.get();
    rig.drain(&client, &[]);
    let events = rig.close(client).await;
    assert_eq!(events[0]["type"], "gap");
    assert_eq!(events[0]["reason"], "slow");
    assert_eq!(events[0]["dropped"], dropped);
    assert_eq!(events[0]["from"], "0-0");
    let last = source.positions[dropped as usize].to_string();
    assert_eq!(events[0]["to"], last);
    let newest: Vec<_> = (dropped + 1..=100).map(|n| n.to_string()).collect();
    assert!(newest.len() >= 24, "no more than a quarter goes at once");
    assert_eq!(short(&events[1..]), newest);
}

#[tokio::test]
async fn the_oldest_go_until_a_long_message_fits() {
    let bytes_max = 4_000;
    let bound = Bound { bytes_max, ..BOUND };
    let mut source = Source::new(0);
    let (rig, client) = stalled(bound, [&source]).await;
    deliver(&rig, &mut source, Priority::Normal, 30);
    let long = format!("\"{}\"", "x".repeat(bytes_max - 500));
    let data = bytes::Bytes::from(long.clone());
    let entry = source.publish_with(|p| p.data = fanfare_protocol::data::Data::Json(data));
    rig.turn([source.deliver(&entry)]);
    rig.drain(&client, &[]);
    let read = rig.read(client).await;
    assert_eq!(read.last(), Some(&long), "the newest one came");
    assert_eq!(read[0], "gap:slow");
}

#[tokio::test]
async fn a_gap_over_a_full_outbox_ends_nobody() {
    let [mut live, told] = ["live", "told"].map(|n| Source::named(n, 100));
    let (rig, client) = stalled(FOUR, [&live, &told]).await;
    deliver(&rig, &mut live, Priority::Normal, 4);
    let to = Position { ms: 5, seq: 0 };
    rig.turn([told.gap(Position::ZERO, to, GapReason::Retention)]);
    assert_eq!(rig.end_reason(&client), None);
    rig.drain(&client, &[&live]);
    let read = rig.read(client).await;
    assert_eq!(read, ["1", "2", "3", "4", "gap:retention"]);
}

#[tokio::test]
async fn gaps_that_are_themselves_over_the_bound_end_the_session() {
    let source = Source::new(100);
    let (rig, client) = stalled(FOUR, [&source]).await;
    let at = |ms| Position { ms, seq: 0 };
    for ms in 0..4 {
        rig.turn([source.gap(at(ms), at(ms + 1), GapReason::Retention)]);
    }
    assert_eq!(rig.end_reason(&client), None);
    rig.turn([source.gap(at(4), at(5), GapReason::Retention)]);
    assert_eq!(rig.end_reason(&client), Some(CloseReason::SlowConsumer));
}

#[tokio::test]
async fn dropped_messages_whose_gaps_alone_are_over_the_bound_end_the_session() {
    let mut sources = ["a", "b", "c", "d", "e"].map(|n| Source::named(n, 0));
    let (rig, client) = stalled(FOUR, sources.each_ref()).await;
    for round in 0..2 {
        for source in &mut sources {
            assert_eq!(rig.end_reason(&client), None, "round {round}");
            deliver(&rig, source, Priority::Normal, 1);
        }
        if rig.end_reason(&client) == Some(CloseReason::SlowConsumer) {
            return;
        }
    }
    panic!("five gaps wait where four may");
}

#[tokio::test]
async fn a_critical_delivery_makes_the_catch_up_of_its_topic_the_next_one() {
    let mut sources = ["a", "b"].map(|n| Source::named(n, 100));
    let (rig, client) = stalled(FOUR, sources.each_ref()).await;
    for source in &mut sources {
        deliver(&rig, source, Priority::Low, 6);
    }
    deliver(&rig, &mut sources[1], Priority::Critical, 1);
    rig.worker.flush(client.key);
    let pull = rig.pull(&client).expect("both are behind");
    assert_eq!(pull.topic, sources[1].topic);
}

#[tokio::test]
async fn a_topic_that_is_taken_back_while_it_is_pulled_stays_as_urgent_as_it_was() {
    let [mut first, mut urgent, mut other] = ["a", "b", "c"].map(|n| Source::named(n, 100));
    let (rig, client) = stalled(MANY, [&first, &urgent, &other]).await;
    // Low ones wait, a critical one has not come in.
    deliver(&rig, &mut urgent, Priority::Low, 2);
    deliver(&rig, &mut other, Priority::Critical, 30);
    deliver(&rig, &mut urgent, Priority::Low, 1);
    deliver(&rig, &mut urgent, Priority::Critical, 1);
    // Two of them take the room of the low ones, the third has none.
    deliver(&rig, &mut first, Priority::High, 3);
    assert_eq!(rig.counters().taken_back.get(), 3);
    rig.worker.flush(client.key);
    let pull = rig.pull(&client).expect("two are behind");
    assert_eq!(pull.topic, urgent.topic);
}

#[tokio::test]
async fn a_page_of_a_topic_that_was_taken_back_meanwhile_is_dropped() {
    let mut slow = Source::named("slow", 100);
    let mut urgent = Source::named("urgent", 100);
    for _ in 0..6 {
        slow.publish_as(Priority::Low);
    }
    let mut rig = Rig::with_bound(FOUR).await;
    let client = rig.after(&slow, Position::ZERO).await;
    rig.enter(&client, &urgent);
    rig.worker.begin_live(client.key, &urgent.topic);
    let arrives = |pull: &Pull, page: &SincePage| {
        // Its socket still takes nothing.
        let page = ReadPage::new(&pull.topic, page.clone(), usize::MAX);
        assert!(rig.worker.page(client.key, pull, &page, 0));
    };
    rig.stall(&client);
    let first = rig.pull(&client).expect("it catches up");
    arrives(&first, &slow.stream.since(first.at, 2));
    let second = rig.pull(&client).expect("it goes on");
    let page = slow.page(second.at);
    deliver(&rig, &mut urgent, Priority::Critical, 5);
    assert_eq!(
        rig.counters().taken_back.get(),
        2,
        "and the last of the urgent ones"
    );
    arrives(&second, &page);
    rig.drain(&client, &[&slow, &urgent]);
    let (mut slow, mut urgent) = (0, 0);
    for event in rig.close(client).await {
        let number = if event["topic"] == "slow" {
            &mut slow
        } else {
            &mut urgent
        };
        *number += 1;
        assert_eq!(event["data"], *number, "{event}");
    }
    assert_eq!((slow, urgent), (6, 5));
}

#[tokio::test]
async fn what_is_told_in_a_topics_order_is_not_taken_back_with_what_comes_before_it() {
    let [mut low, mut high] = ["low", "high"].map(|n| Source::named(n, 100));
    let (rig, client) = stalled(MANY, [&low, &high]).await;
    deliver(&rig, &mut low, Priority::Low, 2);
    let from = low.newest();
    low.stream.lose_newest(0, low.stream.now_ms);
    rig.turn([low.gap(from, from, GapReason::Failover)]);
    deliver(&rig, &mut low, Priority::Low, 10);
    deliver(&rig, &mut high, Priority::High, 20);
    assert_eq!(rig.counters().taken_back.get(), 1);
    rig.drain(&client, &[&low, &high]);
    let read = rig.close(client).await;
    let of_low: Vec<_> = read.into_iter().filter(|e| e["topic"] == "low").collect();
    let expected = "1 2 gap:failover 3 4 5 6 7 8 9 10 11 12";
    assert_eq!(short(&of_low).join(" "), expected);
}

#[tokio::test]
async fn a_session_that_fell_quiet_holds_no_memory_of_what_it_sent() {
    let mut sources = ["a", "b", "c"].map(|n| Source::named(n, 100));
    let (rig, client) = stalled(MANY, sources.each_ref()).await;
    for _ in 0..3 {
        for source in &mut sources {
            deliver(&rig, source, Priority::Normal, 20);
        }
        rig.drain(&client, &sources.each_ref());
        rig.stall(&client);
    }
    rig.worker.flush(client.key);
    let state = rig.worker.state.borrow();
    let entry = &state.sessions[client.key];
    assert!(
        entry.outbox.is_empty(),
        "that is, neither lanes nor an item"
    );
    assert!(!entry.catching_up, "and its task is not woken for room");
}
