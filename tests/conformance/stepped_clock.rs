//! What only a clock that can be set shows, for the in-process broker: steps backwards, exact
//! ages, and how long a position is remembered.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use fanfare::broker::memory::clock::Clock;
use fanfare::broker::{Acked, InboxSummary};
use fanfare::config::Retention;
use fanfare_protocol::event::GapReason;
use fanfare_protocol::ids::{Position, SessionId};

use crate::rig::{
    HISTORY, NO_HISTORY, Rig, assert_linked, positions, request, start_memory_at, topic,
};

const BEGIN_MS: u64 = 1_732_190_000_000;
const MINUTE_MS: u64 = 60_000;
const HOUR_MS: u64 = 60 * MINUTE_MS;

const HOUR: Retention = Retention {
    entries_max: 100,
    age_ms: HOUR_MS,
};

/// A broker, and its clock at [`BEGIN_MS`].
fn start() -> (Rig, Arc<AtomicU64>) {
    let now_ms = Arc::new(AtomicU64::new(BEGIN_MS));
    let rig = start_memory_at(Clock::Manual(Arc::clone(&now_ms)));
    (rig, now_ms)
}

fn advance(now_ms: &AtomicU64, by_ms: u64) {
    now_ms.fetch_add(by_ms, Ordering::Relaxed);
}

#[tokio::test]
async fn ids_count_up_within_a_millisecond_and_follow_the_clock() {
    let (rig, now_ms) = start();
    let topic = topic("chat:clock");
    let first = rig.publish(&topic, HISTORY, "1").await;
    let second = rig.publish(&topic, HISTORY, "2").await;
    assert_eq!(first.ms, BEGIN_MS);
    assert_eq!((second.ms, second.seq), (BEGIN_MS, first.seq + 1));
    advance(&now_ms, 1);
    let third = rig.publish(&topic, HISTORY, "3").await;
    assert_eq!(third.ms, BEGIN_MS + 1);
}

#[tokio::test]
async fn ids_rise_while_the_clock_steps_backwards() {
    let (rig, now_ms) = start();
    let topic = topic("chat:clock");
    let mut at = rig.publish_count(&topic, HISTORY, 3).await;
    now_ms.store(BEGIN_MS - HOUR_MS / 2, Ordering::Relaxed);
    at.extend(rig.publish_count(&topic, HISTORY, 3).await);
    let left_out = at[3].seq - at[2].seq;
    assert_eq!(at[3].ms, BEGIN_MS);
    assert!((1..=1 << 20).contains(&left_out), "{left_out}");
    assert!(at.is_sorted());
    // Nothing is lost by the step, and readers catch up across it.
    let page = rig.since(&topic, at[0], HISTORY).await;
    assert_eq!((page.gap, page.last), (None, at[5]));
    assert_eq!(positions(&page.entries), at[1..]);
    now_ms.store(BEGIN_MS + 1, Ordering::Relaxed);
    let next = rig.publish(&topic, HISTORY, "7").await;
    assert_eq!(next.ms, BEGIN_MS + 1);
    assert_linked(Position::ZERO, &rig.retained(&topic, HISTORY).await);
}

#[tokio::test]
async fn entries_are_kept_to_the_millisecond_of_their_age() {
    let (rig, now_ms) = start();
    let topic = topic("chat:age");
    let old = rig.publish(&topic, HOUR, "1").await;
    advance(&now_ms, MINUTE_MS);
    let young = rig.publish(&topic, HOUR, "2").await;
    now_ms.store(BEGIN_MS + HOUR_MS, Ordering::Relaxed);
    assert_eq!(positions(&rig.retained(&topic, HOUR).await), [old, young]);
    assert_eq!(rig.since(&topic, Position::ZERO, HOUR).await.gap, None);
    advance(&now_ms, 1);
    assert_eq!(positions(&rig.retained(&topic, HOUR).await), [young]);
    let page = rig.since(&topic, Position::ZERO, HOUR).await;
    assert_eq!((page.gap, page.start), (Some(GapReason::Retention), old));
    assert_eq!(positions(&page.entries), [young]);
    // Over age, but the oldest entry still links to it.
    assert_eq!(rig.since(&topic, old, HOUR).await.gap, None);
    // A publication trims what is over age for good, however long the next reader looks back.
    let day = Retention {
        age_ms: 24 * HOUR_MS,
        ..HOUR
    };
    let new = rig.publish(&topic, HOUR, "3").await;
    assert_eq!(positions(&rig.retained(&topic, day).await), [young, new]);
}

#[tokio::test]
async fn entries_ahead_of_the_clock_live_no_longer_than_others() {
    let (rig, now_ms) = start();
    let topic = topic("chat:ahead");
    rig.publish(&topic, HOUR, "1").await;
    now_ms.store(BEGIN_MS - 6 * HOUR_MS, Ordering::Relaxed);
    let ahead = rig.publish(&topic, HOUR, "2").await;
    advance(&now_ms, HOUR_MS);
    assert_eq!(rig.retained(&topic, HOUR).await.len(), 2);
    advance(&now_ms, 1);
    assert!(rig.retained(&topic, HOUR).await.is_empty());
    assert_eq!(rig.last(&topic, HOUR).await, Some(ahead));
}

#[tokio::test]
async fn nothing_shortens_the_life_of_a_last_id_ahead_of_the_clock() {
    let (rig, now_ms) = start();
    let inbox = topic("@anna");
    let first = rig.publish(&inbox, HOUR, "1").await;
    now_ms.store(BEGIN_MS - 6 * HOUR_MS, Ordering::Relaxed);
    let ack = async |keep| rig.broker.ack(&inbox, first, SessionId(1), keep).await;
    assert_eq!(ack(HOUR).await, Ok(Acked::Cursor(first)));
    assert_eq!(ack(NO_HISTORY).await, Ok(Acked::Cursor(first)));
    assert_eq!(rig.last(&inbox, NO_HISTORY).await, Some(first));
    now_ms.store(BEGIN_MS + HOUR.last_life_ms(), Ordering::Relaxed);
    let summary = rig.broker.inbox(&inbox, HOUR).await.expect("it is up");
    assert_eq!((summary.cursor, summary.last), (Some(first), first));
}

#[tokio::test]
async fn the_last_id_outlives_the_newest_publication_by_its_life_and_no_longer() {
    for keep in [HOUR, NO_HISTORY] {
        let (rig, now_ms) = start();
        let topic = topic("chat:life");
        let last = rig.publish(&topic, keep, "1").await;
        advance(&now_ms, keep.last_life_ms());
        assert_eq!(rig.since(&topic, last, keep).await.gap, None);
        // Asking for it renews it by as much again.
        assert_eq!(rig.last(&topic, keep).await, Some(last));
        advance(&now_ms, keep.last_life_ms());
        assert_eq!(rig.since(&topic, last, keep).await.gap, None);
        advance(&now_ms, 1);
        assert_eq!(rig.last(&topic, keep).await, None);
        let page = rig.since(&topic, last, keep).await;
        assert_eq!(page.gap, Some(GapReason::Retention));
        assert_eq!((page.start, page.last), (Position::ZERO, Position::ZERO));
        let next = rig.publish(&topic, HISTORY, "2").await;
        assert!(next > last);
        assert_eq!(rig.retained(&topic, HISTORY).await[0].prev, Position::ZERO);
    }
}

#[tokio::test]
async fn a_cursor_lives_as_long_as_the_last_id() {
    let (rig, now_ms) = start();
    let inbox = topic("@anna");
    let first = rig.publish(&inbox, HOUR, "1").await;
    let ack = async |position| {
        let answer = rig.broker.ack(&inbox, position, SessionId(1), HOUR).await;
        answer.expect("the broker is up")
    };
    let summary = async || {
        let answer = rig.broker.inbox(&inbox, HOUR).await;
        answer.expect("the broker is up")
    };
    assert_eq!(ack(first).await, Acked::Cursor(first));
    // A publication, an acknowledgement and a look at the last id renew both.
    advance(&now_ms, HOUR.last_life_ms());
    assert_eq!(rig.last(&inbox, HOUR).await, Some(first));
    advance(&now_ms, HOUR.last_life_ms());
    let second = rig.publish(&inbox, HOUR, "2").await;
    advance(&now_ms, HOUR.last_life_ms());
    assert_eq!(summary().await.cursor, Some(first));
    assert_eq!(ack(second).await, Acked::Cursor(second));
    advance(&now_ms, HOUR.last_life_ms());
    let alive = InboxSummary {
        cursor: Some(second),
        last: second,
        pending: 0,
    };
    assert_eq!(summary().await, alive);
    advance(&now_ms, 1);
    assert_eq!(summary().await, InboxSummary::default());
}

#[tokio::test]
async fn ids_of_an_inbox_stay_above_the_cursor_while_the_clock_steps_backwards() {
    let (rig, now_ms) = start();
    let inbox = topic("@anna");
    let acknowledged = rig.publish(&inbox, HISTORY, "1").await;
    let answer = rig.broker.ack(&inbox, acknowledged, SessionId(1), HISTORY);
    assert_eq!(answer.await, Ok(Acked::Cursor(acknowledged)));
    now_ms.store(BEGIN_MS - HOUR_MS / 2, Ordering::Relaxed);
    let next = rig.publish(&inbox, HISTORY, "2").await;
    assert_eq!(next.ms, acknowledged.ms + 1);
}

#[tokio::test]
async fn an_idempotency_key_lives_exactly_as_long_as_asked() {
    let (rig, now_ms) = start();
    let mut repeated = request(&topic("chat:keys"), HISTORY, "1");
    repeated.idempotency = Some(("anna:k".into(), MINUTE_MS));
    let first = rig.submit(repeated.clone()).await;
    advance(&now_ms, MINUTE_MS);
    let repeat = rig.submit(repeated.clone()).await;
    assert_eq!((repeat.position, repeat.duplicate), (first.position, true));
    advance(&now_ms, 1);
    assert!(!rig.submit(repeated).await.duplicate);
}
