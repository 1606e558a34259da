//! After a break nothing is delivered until revocations were read and told to the workers.
//!
//! In: word that a feed is down, publications behind it, and readings that the test makes. Out: when
//! the worker's queue gets them.

use super::*;
use crate::dispatcher::held_back::WINDOW_MAX;
use crate::revocation::reader::Reader;
use crate::telemetry::revocation_metrics::WaitEnd;

fn known() -> Revocations {
    let known = Revocations::clustered(Duration::from_secs(60));
    known.settled(Instant::now(), &Reader::default());
    known.tell(known.read_at());
    known
}

impl Rig {
    async fn event(&self, event: FeedEvent) {
        self.feed.send(event).await.expect("it runs");
    }

    /// Long enough for what would come.
    async fn gets_nothing(&mut self) {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let got = self.workers[0].try_recv();
        assert!(got.is_err(), "{got:?} came before revocations were read");
    }
}

/// Waits until something is held back.
async fn held(known: &Revocations) {
    wait::until("it to be held back", async || {
        known.is_awaited().then_some(())
    })
    .await;
}

fn ends(known: &Revocations) -> [u64; 2] {
    [WaitEnd::Read, WaitEnd::Late].map(|end| known.metrics().waits.of(end).get())
}

#[tokio::test]
async fn what_comes_after_a_feed_was_down_comes_behind_a_reading_that_was_begun_then() {
    let known = known();
    let mut rig = Rig::revoking(known.clone());
    let room = topic(ROOM);
    let start = rig.join(0, &room).await;
    let before = rig.publish(&room).await;
    rig.gets(0, start, before).await;
    let read_before = known.read_at();
    rig.event(FeedEvent::Down(FeedNumber::default())).await;
    let first = rig.publish(&room).await;
    let second = rig.publish(&room).await;
    held(&known).await;
    known.tell(read_before);
    rig.gets_nothing().await;
    known.settled(Instant::now(), &Reader::default());
    known.tell(known.read_at());
    rig.gets_all(0, before, &[first, second]).await;
    let next = rig.publish(&room).await;
    rig.gets(0, second, next).await;
    assert_eq!(ends(&known), [1, 0]);
    assert!(!known.is_awaited());
}

#[tokio::test]
async fn what_the_break_lost_is_held_back_too() {
    let known = known();
    let mut rig = Rig::revoking(known.clone());
    let room = topic(ROOM);
    let start = rig.join(0, &room).await;
    let lost = rig.lose(&room, 3).await;
    rig.event(FeedEvent::Down(FeedNumber::default())).await;
    rig.event(FeedEvent::Break(FeedNumber::default())).await;
    held(&known).await;
    rig.gets_nothing().await;
    known.settled(Instant::now(), &Reader::default());
    known.tell(known.read_at());
    rig.gets_all(0, start, &lost).await;
}

#[tokio::test]
async fn nothing_is_held_back_for_longer_than_a_second() {
    let known = known();
    let mut rig = Rig::revoking(known.clone());
    let room = topic(ROOM);
    let start = rig.join(0, &room).await;
    rig.event(FeedEvent::Down(FeedNumber::default())).await;
    let first = rig.publish(&room).await;
    held(&known).await;
    let since = Instant::now();
    rig.gets(0, start, first).await;
    let took = since.elapsed();
    assert!(took > WINDOW_MAX / 2, "{took:?}");
    let next = rig.publish(&room).await;
    rig.gets(0, first, next).await;
    assert_eq!(ends(&known), [0, 1]);
}

#[tokio::test]
async fn a_node_that_stood_still_for_too_long_holds_back_though_no_feed_broke() {
    let known = known();
    let mut rig = Rig::revoking(known.clone());
    let room = topic(ROOM);
    let start = rig.join(0, &room).await;
    known.settled(Instant::now() - Duration::from_secs(60), &Reader::default());
    let first = rig.publish(&room).await;
    held(&known).await;
    rig.gets_nothing().await;
    known.settled(Instant::now(), &Reader::default());
    known.tell(known.read_at());
    rig.gets(0, start, first).await;
    assert_eq!(ends(&known), [1, 0]);
}

#[tokio::test]
async fn what_was_read_and_not_told_to_the_workers_does_not_count() {
    let known = known();
    let mut rig = Rig::revoking(known.clone());
    let room = topic(ROOM);
    let start = rig.join(0, &room).await;
    // The node stands still, and its reader goes on before anybody else.
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    known.settled(Instant::now(), &Reader::default());
    assert_eq!(known.unread(), None);
    let first = rig.publish(&room).await;
    held(&known).await;
    rig.gets_nothing().await;
    known.settled(Instant::now(), &Reader::default());
    known.tell(known.read_at());
    rig.gets(0, start, first).await;
    assert_eq!(ends(&known), [1, 0]);
}

#[tokio::test]
async fn nothing_is_held_back_for_another_feed_or_without_a_store() {
    let shared = known();
    for (known, feed) in [
        (shared, FeedNumber(9)),
        (Revocations::default(), FeedNumber::default()),
    ] {
        let mut rig = Rig::revoking(known.clone());
        let room = topic(ROOM);
        let start = rig.join(0, &room).await;
        rig.event(FeedEvent::Down(feed)).await;
        let first = rig.publish(&room).await;
        rig.gets(0, start, first).await;
        assert!(!known.is_awaited());
        assert_eq!(ends(&known), [0, 0]);
    }
}
