//! Sessions that have come further than their worker, and a broker that loses just that.
//!
//! In: a page that runs ahead of the feed, or a position of a client; a failover of which the
//! dispatcher knows nothing. Out: what the client reads.

use std::time::Instant;

use super::rig::{Client, Rig, Source};
use crate::worker::lead::PATIENCE;
use fanfare_protocol::ids::Position;

impl Rig {
    /// Time passes in which the feed could have brought what it has.
    fn wait_for_feed(&self) {
        let state = &mut *self.worker.state.borrow_mut();
        self.worker.doubt_leads(state, Instant::now() + PATIENCE);
    }

    /// A client that was brought by a page what no delivery has.
    async fn ahead(&mut self, source: &mut Source) -> Client {
        source.publish();
        let client = self.after(source, Position::ZERO).await;
        source.stream.now_ms += 100;
        source.publish_many(2);
        self.catch_up(&client, source);
        client
    }
}

/// The broker loses the newest two, and its clock is behind.
fn lose_two(source: &mut Source) {
    let before_ms = source.stream.now_ms - 50;
    source.stream.lose_newest(2, before_ms);
}

#[tokio::test]
async fn a_lead_that_was_lost_is_told_and_what_is_new_below_it_read() {
    let mut rig = Rig::new().await;
    let mut source = Source::new(100);
    let client = rig.ahead(&mut source).await;
    lose_two(&mut source);
    let new = source.publish();
    assert!(new.position < source.positions[3]);
    rig.turn([source.deliver(&new)]);
    rig.wait_for_feed();
    rig.catch_up(&client, &source);
    let new = source.publish();
    rig.turn([source.deliver(&new)]);
    let read = rig.read(client).await;
    assert_eq!(read, ["1", "2", "3", "gap:failover", "4", "5"]);
}

#[tokio::test]
async fn a_lead_that_was_lost_is_told_on_a_quiet_topic() {
    let mut rig = Rig::new().await;
    let mut source = Source::new(100);
    let client = rig.ahead(&mut source).await;
    lose_two(&mut source);
    rig.wait_for_feed();
    rig.catch_up(&client, &source);
    assert_eq!(rig.read(client).await, ["1", "2", "3", "gap:failover"]);
}

#[tokio::test]
async fn a_new_id_above_a_lost_lead_hides_none_below_it() {
    let mut rig = Rig::new().await;
    let mut source = Source::new(100);
    let client = rig.ahead(&mut source).await;
    lose_two(&mut source);
    let below = source.publish();
    source.stream.now_ms += 100;
    let above = source.publish();
    rig.turn([source.deliver(&below), source.deliver(&above)]);
    rig.catch_up(&client, &source);
    let read = rig.read(client).await;
    assert_eq!(read, ["1", "2", "3", "gap:failover", "4", "5"]);
}

#[tokio::test]
async fn a_lead_that_the_feed_only_has_not_brought_is_kept() {
    let mut rig = Rig::new().await;
    let mut source = Source::new(100);
    let client = rig.ahead(&mut source).await;
    for _ in 0..3 {
        rig.wait_for_feed();
        rig.catch_up(&client, &source);
    }
    let entries = source.stream.since(source.positions[1], 10).entries;
    rig.turn(entries.iter().map(|entry| source.deliver(entry)));
    rig.wait_for_feed();
    assert_eq!(rig.pull(&client), None, "nothing is doubtful any more");
    let new = source.publish();
    rig.turn([source.deliver(&new)]);
    assert_eq!(rig.read(client).await, ["1", "2", "3", "4"]);
}

#[tokio::test]
async fn a_client_comes_back_with_what_is_lost_before_the_feed_brings_it() {
    for entries_max in [100, 0] {
        let mut rig = Rig::new().await;
        let mut source = Source::new(entries_max);
        source.publish();
        let _other = rig.live(&source).await;
        source.stream.now_ms += 100;
        let lost = source.publish_many(2);
        let client = rig.after(&source, lost[1].position).await;
        lose_two(&mut source);
        let new = source.publish();
        rig.turn([source.deliver(&new)]);
        rig.wait_for_feed();
        if entries_max > 0 {
            rig.catch_up(&client, &source);
        }
        let new = source.publish();
        rig.turn([source.deliver(&new)]);
        let read = rig.read(client).await;
        let expected: &[&str] = match entries_max {
            0 => &["gap:failover", "5"],
            _ => &["gap:failover", "4", "5"],
        };
        assert_eq!(read, expected);
    }
}
