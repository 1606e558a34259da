//! What came after a position, and whether that is all: every answer of the `since` judgement.

use fanfare::broker::{Page, SincePage};
use fanfare::config::Retention;
use fanfare_protocol::event::GapReason;
use fanfare_protocol::ids::Position;

use crate::rig::{HISTORY, NO_HISTORY, Rig, WHOLE, assert_linked, positions, topic};
use fanfare_testkit::wait;

const THREE: Retention = Retention {
    entries_max: 3,
    ..HISTORY
};

/// An answer without entries.
fn empty(gap: Option<GapReason>, at: Position) -> SincePage {
    SincePage {
        gap,
        start: at,
        last: at,
        entries: Vec::new(),
    }
}

/// The position after `position` in its millisecond.
fn successor(position: Position) -> Position {
    Position {
        seq: position.seq + 1,
        ..position
    }
}

pub(crate) async fn a_caught_up_reader_has_missed_nothing(rig: Rig) {
    let topic = topic("chat:newest");
    let newest = rig.publish_count(&topic, HISTORY, 3).await[2];
    let page = rig.since(&topic, newest, HISTORY).await;
    assert_eq!(page, empty(None, newest));
}

pub(crate) async fn a_position_in_the_range_gets_what_came_after_it(rig: Rig) {
    let topic = topic("chat:range");
    let at = rig.publish_count(&topic, HISTORY, 5).await;
    for known in 0..4 {
        let page = rig.since(&topic, at[known], HISTORY).await;
        assert_eq!((page.gap, page.start, page.last), (None, at[known], at[4]));
        assert_eq!(positions(&page.entries), at[known + 1..]);
        assert_linked(at[known], &page.entries);
    }
}

pub(crate) async fn a_link_to_the_oldest_entry_is_enough(rig: Rig) {
    let topic = topic("chat:link");
    let at = rig.publish_count(&topic, THREE, 5).await;
    let page = rig.since(&topic, at[1], THREE).await;
    assert_eq!((page.gap, page.start, page.last), (None, at[1], at[4]));
    assert_eq!(positions(&page.entries), at[2..]);
}

pub(crate) async fn below_the_oldest_link_is_gone_by_retention(rig: Rig) {
    let topic = topic("chat:below");
    let at = rig.publish_count(&topic, THREE, 5).await;
    let long_ago = Position { ms: 1, seq: 1 };
    for since in [Position::ZERO, long_ago, at[0]] {
        let page = rig.since(&topic, since, THREE).await;
        assert_eq!(page.gap, Some(GapReason::Retention), "since {since}");
        assert_eq!((page.start, page.last), (at[1], at[4]));
        assert_eq!(positions(&page.entries), at[2..]);
        assert_linked(at[1], &page.entries);
    }
}

/// What was lost had grown beside what is there: nobody knows from where on. So it begins with the
/// oldest retained, which the next page brings.
pub(crate) async fn above_the_newest_is_a_failover(rig: Rig) {
    let topic = topic("chat:above");
    let at = rig.publish_count(&topic, THREE, 5).await;
    let newest = at[4];
    let later = Position {
        ms: newest.ms + 60_000,
        seq: 0,
    };
    let last_possible = Position {
        ms: u64::MAX,
        seq: u64::MAX,
    };
    for since in [successor(newest), later, last_possible] {
        let page = rig.since(&topic, since, THREE).await;
        assert_eq!(page.gap, Some(GapReason::Failover), "since {since}");
        assert_eq!((page.start, page.last), (at[1], newest));
        assert_eq!(page.entries, []);
    }
    let page = rig.since(&topic, at[1], THREE).await;
    assert_eq!(page.gap, None);
    assert_eq!(positions(&page.entries), at[2..]);
}

pub(crate) async fn a_hole_inside_the_range_is_a_failover(rig: Rig) {
    let topic = topic("chat:hole");
    let mut before = rig.publish(&topic, HISTORY, "1").await;
    let mut after = rig.publish(&topic, HISTORY, "2").await;
    // Only where a millisecond ends is there room for an id that was never given.
    while after.ms == before.ms {
        before = after;
        after = rig.publish(&topic, HISTORY, "3").await;
    }
    let newest = rig.publish(&topic, HISTORY, "4").await;
    let page = rig.since(&topic, successor(before), HISTORY).await;
    assert_eq!(page.gap, Some(GapReason::Failover));
    assert_eq!((page.start, page.last), (Position::ZERO, newest));
    assert_eq!(page.entries, []);
    let page = rig.since(&topic, page.start, HISTORY).await;
    assert_eq!(page.gap, None);
    assert!(positions(&page.entries).ends_with(&[before, after, newest]));
}

pub(crate) async fn zero_stands_before_everything_that_is_retained(rig: Rig) {
    let topic = topic("chat:zero");
    let unused = rig.since(&topic, Position::ZERO, HISTORY).await;
    assert_eq!(unused, empty(None, Position::ZERO));
    let at = rig.publish_count(&topic, THREE, 3).await;
    let page = rig.since(&topic, Position::ZERO, THREE).await;
    assert_eq!(
        (page.gap, page.start, page.last),
        (None, Position::ZERO, at[2])
    );
    assert_eq!(positions(&page.entries), at);
}

pub(crate) async fn an_unknown_topic_is_judged_by_the_age_of_the_position(rig: Rig) {
    let (used, unknown) = (topic("chat:used"), topic("chat:unknown"));
    let young = rig.publish(&used, HISTORY, "1").await;
    let page = rig.since(&unknown, young, HISTORY).await;
    assert_eq!(page, empty(Some(GapReason::Failover), Position::ZERO));
    let old = Position { ms: 1, seq: 1 };
    let page = rig.since(&unknown, old, HISTORY).await;
    assert_eq!(page, empty(Some(GapReason::Retention), Position::ZERO));
}

pub(crate) async fn a_topic_without_history_compares_with_the_newest_only(rig: Rig) {
    let topic = topic("chat:plain");
    let at = rig.publish_count(&topic, NO_HISTORY, 3).await;
    let gone = empty(Some(GapReason::Retention), at[2]);
    for (since, expected) in [
        (at[2], empty(None, at[2])),
        (at[1], gone.clone()),
        (Position::ZERO, gone),
        (successor(at[2]), empty(Some(GapReason::Failover), at[2])),
    ] {
        assert_eq!(
            rig.since(&topic, since, NO_HISTORY).await,
            expected,
            "since {since}"
        );
    }
}

pub(crate) async fn nothing_within_age_is_gone_by_retention(rig: Rig) {
    let topic = topic("chat:brief");
    let brief = Retention {
        entries_max: 100,
        age_ms: 200,
    };
    let at = rig.publish_count(&topic, brief, 3).await;
    let (rig, topic) = (&rig, &topic);
    let page = wait::until("the entries are over age", || async move {
        let page = rig.since(topic, Position::ZERO, brief).await;
        page.entries.is_empty().then_some(page)
    })
    .await;
    assert_eq!(page, empty(Some(GapReason::Retention), at[2]));
    // A reader that has the newest missed nothing, however old that is.
    assert_eq!(rig.since(topic, at[2], brief).await, empty(None, at[2]));
}

pub(crate) async fn pages_until_caught_up_give_everything_once_and_in_order(rig: Rig) {
    let topic = topic("chat:many");
    let at = rig.publish_count(&topic, HISTORY, 500).await;
    let hundred = Page {
        entries_max: 100,
        ..WHOLE
    };
    let mut read = Vec::new();
    let mut reached = Position::ZERO;
    while reached != at[499] {
        let page = rig.since_page(&topic, reached, HISTORY, hundred).await;
        assert_eq!((page.gap, page.start, page.last), (None, reached, at[499]));
        assert_eq!(page.entries.len(), 100);
        assert_linked(reached, &page.entries);
        read.extend(positions(&page.entries));
        reached = page.entries[99].position;
    }
    assert_eq!(read, at);
}

pub(crate) async fn a_replay_page_is_bounded_by_bytes_but_never_empty(rig: Rig) {
    let topic = topic("chat:heavy");
    let at = rig.publish_heavy(&topic).await;
    let bounded = |bytes_max| Page { bytes_max, ..WHOLE };
    let some = rig.since_page(&topic, at[0], HISTORY, bounded(5_000)).await;
    let count = some.entries.len();
    assert!((2..=5).contains(&count), "{count} bodies of 1,000 bytes");
    assert_eq!(positions(&some.entries), at[1..=count]);
    assert_eq!((some.gap, some.start, some.last), (None, at[0], at[9]));
    for bytes_max in [0, 1] {
        let one = rig
            .since_page(&topic, at[0], HISTORY, bounded(bytes_max))
            .await;
        assert_eq!(positions(&one.entries), [at[1]]);
    }
}
