//! How a stay begins, and what those are told who have not begun yet.
//!
//! In: joins, and what the dispatcher says meanwhile. Out: what each client reads.

use std::sync::Arc;

use super::rig::{BOUND, Rig, Source, short};
use crate::broker::publication::PresenceChange;
use crate::broker::{Body, Entry, SincePage};
use crate::worker::Join;
use fanfare_protocol::event::{GapReason, Member};
use fanfare_protocol::ids::{Position, SessionId};

#[tokio::test]
async fn a_second_join_of_a_topic_that_is_not_live_waits_too() {
    let mut rig = Rig::new().await;
    let mut source = Source::new(100);
    let client = rig.client().await;
    let joins = [(); 2].map(|()| rig.join(&client, &source));
    source.publish();
    rig.turn([rig.joined(&source, source.newest())]);
    for join in joins {
        let Join::Waiting(answer) = join else {
            panic!("nothing is live");
        };
        assert_eq!(answer.await, Ok(()));
    }
    assert!(matches!(rig.join(&client, &source), Join::Live));
    assert_eq!(rig.counters().subscriptions.get(), 1);
    rig.worker.remove(client.key);
    assert_eq!(rig.counters().subscriptions.get(), 0);
    let Join::Waiting(never) = rig.join(&client, &source) else {
        panic!("no such session");
    };
    assert!(never.await.is_err());
}

/// Found by a simulation: the earlier answer let the session begin before the dispatcher delivered
/// to this worker again, and what was published in between was told as a gap.
#[tokio::test]
async fn the_answer_to_an_earlier_wish_does_not_begin_a_later_stay() {
    let mut rig = Rig::new().await;
    let mut source = Source::new(0);
    let client = rig.client().await;
    rig.join(&client, &source);
    let early = rig.joined(&source, source.newest());
    rig.worker.leave(client.key, &source.topic);
    let Join::Waiting(mut answer) = rig.join(&client, &source) else {
        panic!("nothing is live");
    };
    rig.turn([early]);
    assert!(answer.try_recv().is_err(), "that was the answer to another");
    let missed = source.publish();
    rig.turn([rig.joined(&source, missed.position)]);
    assert_eq!(answer.await, Ok(()));
    let begins = rig.worker.begin_live(client.key, &source.topic);
    assert_eq!(begins, Some(missed.position));
    let entry = source.publish();
    rig.turn([source.deliver(&entry)]);
    assert_eq!(rig.read(client).await, ["2"]);
}

#[tokio::test]
async fn without_history_what_has_passed_by_is_not_promised() {
    let mut rig = Rig::new().await;
    let mut source = Source::new(0);
    let _keeps_it_live = rig.live(&source).await;
    let entries = source.publish_many(6);
    rig.turn(entries[..3].iter().map(|e| source.deliver(e)));
    let (behind, ahead) = (rig.client().await, rig.client().await);
    for (client, since, begins) in [(&behind, 1, 3), (&ahead, 5, 5)] {
        rig.enter(client, &source);
        let since = source.positions[since];
        let begun = rig.worker.begin_after(client.key, &source.topic, since);
        assert_eq!(begun, source.positions[begins]);
        assert_eq!(rig.pull(client), None);
    }
    rig.turn(entries[3..].iter().map(|e| source.deliver(e)));
    assert_eq!(rig.read(behind).await, ["4", "5", "6"]);
    assert_eq!(rig.read(ahead).await, ["6"]);
}

#[tokio::test]
async fn without_history_a_full_worker_is_told_to_nobody_who_is_ahead_or_has_not_begun() {
    let mut rig = Rig::new().await;
    let mut source = Source::new(0);
    let (ahead, starting) = (rig.client().await, rig.client().await);
    rig.enter(&ahead, &source);
    rig.enter(&starting, &source);
    let entries = source.publish_many(4);
    let since = entries[2].position;
    rig.worker.begin_after(ahead.key, &source.topic, since);
    rig.turn([source.behind(since, 3), source.deliver(&entries[3])]);
    assert_eq!(rig.read(ahead).await, ["4"]);
    assert!(rig.read(starting).await.is_empty());
    assert_eq!(rig.counters().gaps_told.get(), 0);
}

#[tokio::test]
async fn who_catches_up_meets_a_lost_range_in_its_pages_and_is_told_once() {
    let mut rig = Rig::new().await;
    let mut source = Source::new(2);
    source.publish_many(5);
    let client = rig.after(&source, source.positions[1]).await;
    let (from, to) = (source.positions[2], source.positions[3]);
    rig.turn([source.gap(from, to, GapReason::Retention)]);
    let pull = rig.pull(&client).expect("it catches up");
    assert!(rig.page(&client, &pull, &source.page(pull.at)));
    let events = rig.close(client).await;
    assert_eq!(short(&events), ["gap:retention", "4", "5"]);
    assert_eq!(events[0]["from"], source.positions[1].to_string());
    assert_eq!(events[0]["to"], to.to_string());
    assert_eq!(rig.counters().gaps_told.get(), 1);
}

#[tokio::test]
async fn a_gap_of_the_changes_of_members_says_what_it_is_of() {
    let mut rig = Rig::new().await;
    let mut source = Source::named("room", 100);
    source.topic = source.topic.presence();
    let client = rig.live(&source).await;
    let at = |ms| Position { ms, seq: 0 };
    rig.turn([source.gap(Position::ZERO, at(8), GapReason::Retention)]);
    let member = Member {
        user: None,
        session: SessionId(7),
        info: None,
    };
    let change = Entry {
        position: at(9),
        prev: at(8),
        body: Body::Presence(Arc::new(PresenceChange {
            joined: true,
            member,
            owner: "a~5".parse().expect("an owner"),
            count: 1,
        })),
    };
    rig.turn([source.deliver(&change)]);
    let events = rig.close(client).await;
    assert_eq!(short(&events), ["gap:retention", "presence"]);
    assert_eq!(
        (&events[0]["topic"], &events[0]["of"]),
        (&"room".into(), &"presence".into())
    );
    assert_eq!(events[1]["topic"], "room");
}

/// Its position is of what a failover has lost between the broker's answer and the beginning.
#[tokio::test]
async fn a_session_that_begins_after_a_failover_is_told_and_begins_where_that_began() {
    for entries_max in [0, 100] {
        let mut rig = Rig::new().await;
        let mut source = Source::new(entries_max);
        let live = rig.live(&source).await;
        let entry = source.publish();
        rig.turn([source.deliver(&entry)]);
        let common = entry.position;
        source.stream.now_ms += 100;
        let lost = source.publish();
        let client = rig.client().await;
        rig.enter(&client, &source);
        let before_ms = source.stream.now_ms - 50;
        source.stream.lose_newest(1, before_ms);
        rig.turn([source.gap(common, common, GapReason::Failover)]);
        let entry = source.publish();
        rig.turn([source.deliver(&entry)]);
        rig.worker
            .begin_after(client.key, &source.topic, lost.position);
        rig.drain(&client, &[&source]);
        let entry = source.publish();
        assert!(entry.position < lost.position);
        rig.turn([source.deliver(&entry)]);
        let events = rig.close(client).await;
        let mut expected = vec!["gap:failover", "3", "4"];
        if entries_max == 0 {
            expected.remove(1);
        }
        assert_eq!(short(&events), expected);
        assert_eq!(events[0]["from"], common.to_string());
        assert!(events[0].get("to").is_none());
        assert_eq!(rig.read(live).await, ["1", "gap:failover", "3", "4"]);
    }
}

#[tokio::test]
async fn a_failover_above_a_sessions_beginning_is_not_told_to_it() {
    let mut rig = Rig::new().await;
    let mut source = Source::new(100);
    source.publish_many(2);
    let client = rig.client().await;
    rig.enter(&client, &source);
    let common = source.newest();
    rig.turn([source.gap(common, common, GapReason::Failover)]);
    let since = source.positions[1];
    let begins = rig.worker.begin_after(client.key, &source.topic, since);
    assert_eq!(begins, since);
    rig.drain(&client, &[&source]);
    assert_eq!(rig.read(client).await, ["2"]);
}

#[tokio::test]
async fn of_several_failovers_before_its_beginning_the_lowest_counts() {
    let mut rig = Rig::new().await;
    let mut source = Source::new(100);
    source.publish_many(4);
    let client = rig.client().await;
    rig.enter(&client, &source);
    let [_, one, two, three, four] = source.positions[..] else {
        panic!("four publications");
    };
    for from in [two, one, three] {
        rig.turn([source.gap(from, from, GapReason::Failover)]);
    }
    rig.worker.begin_after(client.key, &source.topic, four);
    let pull = rig.pull(&client).expect("it begins before the last one");
    assert_eq!(pull.at, one);
}

#[tokio::test]
async fn pages_take_turns_among_topics_and_a_failing_one_rests_alone() {
    let mut rig = Rig::with(BOUND, 0).await;
    let mut sources = ["a", "b", "c"].map(|n| Source::named(n, 100));
    let client = rig.client().await;
    for source in &mut sources {
        source.publish_many(2);
        rig.enter(&client, source);
        rig.worker
            .begin_after(client.key, &source.topic, Position::ZERO);
    }
    let mut turns = Vec::new();
    for _ in 0..6 {
        let pull = rig.pull(&client).expect("behind");
        let mut of = sources.iter().filter(|s| s.topic == pull.topic);
        let source = of.next().expect("one of them");
        assert!(rig.page(&client, &pull, &source.stream.since(pull.at, 1)));
        turns.push(source.topic.name().to_owned());
    }
    assert_eq!(turns, ["a", "b", "c", "a", "b", "c"]);
    assert_eq!(rig.pull(&client), None);
    assert_eq!(rig.read(client).await, ["1", "1", "1", "2", "2", "2"]);
}

#[tokio::test]
async fn a_gap_in_a_page_is_told_before_what_follows_it_and_once() {
    let mut rig = Rig::new().await;
    let mut source = Source::new(2);
    source.publish_many(5);
    let client = rig.after(&source, source.positions[1]).await;
    rig.drain(&client, &[&source]);
    let events = rig.close(client).await;
    assert_eq!(short(&events), ["gap:retention", "4", "5"]);
    assert_eq!(events[0]["to"], source.positions[3].to_string());
    assert_eq!(rig.counters().gaps_told.get(), 1);
}

/// What the session had when it asked was of what was lost.
#[tokio::test]
async fn a_failover_in_a_page_is_told_from_where_the_page_begins() {
    let mut rig = Rig::new().await;
    let mut source = Source::new(100);
    source.publish_many(5);
    let client = rig.after(&source, source.positions[2]).await;
    let pull = rig.pull(&client).expect("it catches up");
    let page = SincePage {
        gap: Some(GapReason::Failover),
        ..source.page(source.positions[1])
    };
    assert!(rig.page(&client, &pull, &page));
    let events = rig.close(client).await;
    assert_eq!(short(&events), ["gap:failover", "2", "3", "4", "5"]);
    assert_eq!(events[0]["from"], source.positions[1].to_string());
    assert_eq!(events[0].get("to"), None);
}

/// Nothing is to be judged from a page that nobody waits for, its gap included.
#[tokio::test]
async fn the_gap_of_a_page_that_is_dropped_is_not_told() {
    let mut rig = Rig::new().await;
    let mut source = Source::new(100);
    source.publish_many(3);
    let client = rig.after(&source, Position::ZERO).await;
    let pull = rig.pull(&client).expect("it catches up");
    rig.worker.leave(client.key, &source.topic);
    let page = SincePage {
        gap: Some(GapReason::Failover),
        ..source.page(pull.at)
    };
    assert!(rig.page(&client, &pull, &page));
    rig.enter(&client, &source);
    rig.worker.begin_live(client.key, &source.topic);
    assert!(rig.page(&client, &pull, &page));
    assert!(rig.read(client).await.is_empty());
}
