//! What a topic keeps, and pages of it in both directions.

use fanfare::broker::{HistoryQuery, visible};
use fanfare::config::Retention;
use fanfare_protocol::codec;
use fanfare_protocol::data::Data;
use fanfare_protocol::form::Encoding;
use fanfare_protocol::ids::{Position, Topic};

use crate::rig::{HISTORY, NO_HISTORY, Rig, positions, request, topic, whole_history};
use fanfare_testkit::wait;

pub(crate) async fn an_unknown_topic_has_an_empty_history(rig: Rig) {
    let page = rig
        .history(whole_history(&topic("chat:none"), HISTORY))
        .await;
    assert_eq!(page.entries, []);
    assert!(!page.more);
}

pub(crate) async fn a_topic_keeps_exactly_as_many_entries_as_it_should(rig: Rig) {
    let topic = topic("chat:short");
    let four = Retention {
        entries_max: 4,
        ..HISTORY
    };
    let published = rig.publish_count(&topic, four, 4).await;
    assert_eq!(positions(&rig.retained(&topic, four).await), published);
    let published = rig.publish_count(&topic, four, 150).await;
    let kept = rig.retained(&topic, four).await;
    assert_eq!(positions(&kept), published[146..]);
    assert_eq!(kept[0].prev, published[145]);
    // A smaller bound is kept from the next publication on.
    let one = Retention {
        entries_max: 1,
        ..HISTORY
    };
    let newest = rig.publish(&topic, one, "1").await;
    assert_eq!(positions(&rig.retained(&topic, one).await), [newest]);
}

pub(crate) async fn history_that_is_switched_off_is_gone(rig: Rig) {
    let topic = topic("chat:off");
    let before = rig.publish_count(&topic, HISTORY, 3).await[2];
    let plain = rig.publish(&topic, NO_HISTORY, "4").await;
    assert_eq!(rig.retained(&topic, HISTORY).await, []);
    assert!(plain > before);
    // Switched on again, it begins behind what was not kept, and says so by its link.
    let after = rig.publish(&topic, HISTORY, "5").await;
    let kept = rig.retained(&topic, HISTORY).await;
    assert_eq!(positions(&kept), [after]);
    assert_eq!(kept[0].prev, plain);
}

pub(crate) async fn entries_over_age_are_gone(rig: Rig) {
    let topic = topic("chat:brief");
    let brief = Retention {
        entries_max: 100,
        age_ms: 200,
    };
    let published = rig.publish_count(&topic, brief, 3).await;
    let rig = &rig;
    let topic = &topic;
    wait::until("the entries are over age", || async move {
        rig.retained(topic, brief).await.is_empty().then_some(())
    })
    .await;
    assert_eq!(rig.last(topic, brief).await, Some(published[2]));
    let next = rig.publish(topic, HISTORY, "4").await;
    let kept = rig.retained(topic, HISTORY).await;
    assert_eq!(positions(&kept), [next]);
    assert_eq!(kept[0].prev, published[2]);
}

pub(crate) async fn both_ends_are_excluded_in_both_directions(rig: Rig) {
    let topic = topic("chat:ends");
    let at = rig.publish_count(&topic, HISTORY, 10).await;
    let cases = [
        (None, None, at.clone()),
        (Some(at[2]), None, at[3..].to_vec()),
        (None, Some(at[2]), at[..2].to_vec()),
        (Some(at[2]), Some(at[6]), at[3..6].to_vec()),
        (Some(at[2]), Some(at[3]), Vec::new()),
        (Some(at[6]), Some(at[2]), Vec::new()),
        (Some(at[3]), Some(at[3]), Vec::new()),
        (Some(at[9]), None, Vec::new()),
        (None, Some(at[0]), Vec::new()),
        (Some(Position::ZERO), None, at.clone()),
        (Some(Position::ZERO), Some(Position::ZERO), Vec::new()),
        (None, Some(MAX), at.clone()),
        (Some(MAX), None, Vec::new()),
    ];
    for (since, until, mut expected) in cases {
        for reverse in [false, true] {
            let query = HistoryQuery {
                since,
                until,
                reverse,
                ..whole_history(&topic, HISTORY)
            };
            let page = rig.history(query).await;
            let asked = format!("since {since:?} until {until:?} reverse {reverse}");
            assert_eq!(positions(&page.entries), expected, "{asked}");
            assert!(!page.more, "{asked}");
            expected.reverse();
        }
    }
}

pub(crate) async fn paging_in_either_direction_gives_everything_once(rig: Rig) {
    let topic = topic("chat:pages");
    let mut expected = rig.publish_count(&topic, HISTORY, 25).await;
    for reverse in [false, true] {
        assert_eq!(page_through(&rig, &topic, reverse).await, expected);
        expected.reverse();
    }
}

/// Reads everything by sevens; the last position received continues the page.
async fn page_through(rig: &Rig, topic: &Topic, reverse: bool) -> Vec<Position> {
    let mut read: Vec<Position> = Vec::new();
    loop {
        let reached = read.last().copied();
        let page = rig
            .history(HistoryQuery {
                since: reached.filter(|_| !reverse),
                until: reached.filter(|_| reverse),
                limit: 7,
                reverse,
                ..whole_history(topic, HISTORY)
            })
            .await;
        let rest = 25 - read.len();
        assert_eq!(page.entries.len(), rest.min(7));
        assert_eq!(page.more, rest > 7);
        read.extend(positions(&page.entries));
        if !page.more {
            return read;
        }
    }
}

pub(crate) async fn a_history_page_is_bounded_by_bytes_but_never_empty(rig: Rig) {
    let topic = topic("chat:heavy");
    let at = rig.publish_heavy(&topic).await;
    let whole = whole_history(&topic, HISTORY);
    let some = rig
        .history(HistoryQuery {
            bytes_max: 5_000,
            ..whole.clone()
        })
        .await;
    let count = some.entries.len();
    assert!((2..=5).contains(&count), "{count} bodies of 1,000 bytes");
    assert_eq!(positions(&some.entries), at[..count]);
    assert!(some.more);
    for bytes_max in [0, 1] {
        let newest = rig
            .history(HistoryQuery {
                bytes_max,
                reverse: true,
                ..whole.clone()
            })
            .await;
        assert_eq!(positions(&newest.entries), at[9..]);
        assert!(newest.more);
    }
}

/// Above everything that a broker gives.
const MAX: Position = Position {
    ms: u64::MAX,
    seq: u64::MAX,
};

/// Text of control characters that came as MessagePack is six times as long for readers of JSON.
pub(crate) async fn a_page_for_readers_is_bounded_in_what_is_sent(rig: Rig) {
    const BYTES_MAX: usize = 20_000;
    let topic = topic("chat:controls");
    let body = rmp_serde::to_vec(&"\u{1}".repeat(1_000)).expect("text");
    for _ in 0..10 {
        let mut request = request(&topic, HISTORY, "0");
        request.publication.data = Data::from_msgpack(&body).expect("a body");
        rig.submit(request).await;
    }
    let (mut since, mut count) = (None, 0);
    loop {
        let query = HistoryQuery {
            since,
            bytes_max: BYTES_MAX,
            ..whole_history(&topic, HISTORY)
        };
        let page = visible::history(&rig.broker, query, 0).await;
        let page = page.expect("the broker is up");
        let sent = codec::payload(Encoding::Json, &page.messages).expect("messages");
        assert!(sent.len() <= BYTES_MAX, "{}", sent.len());
        count += page.messages.len();
        since = page.messages.last().and_then(|m| m.position);
        if !page.more {
            break;
        }
        assert_eq!(page.messages.len(), 3, "no more fit");
    }
    assert_eq!(count, 10);
}
