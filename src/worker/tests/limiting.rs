//! Sessions that lose the right to read history, or get it, while they are caught up.
//!
//! In: a catch-up, and the word that it is limited from now on. Out: which pages are asked for, and
//! what of the old still leaves.

use super::rig::{BOUND, Rig, Source};
use crate::broker::SincePage;
use fanfare_protocol::event::GapReason;
use fanfare_protocol::ids::Position;

/// What the broker answers where everything up to `start` is too old.
fn page_from(source: &Source, start: Position) -> SincePage {
    SincePage {
        gap: Some(GapReason::Retention),
        start,
        ..source.page(start)
    }
}

#[tokio::test]
async fn a_catch_up_that_is_limited_takes_nothing_of_what_was_on_its_way() {
    let mut rig = Rig::new().await;
    let mut source = Source::new(100);
    source.publish_many(5);
    let client = rig.after(&source, Position::ZERO).await;
    let pull = rig.pull(&client).expect("it catches up");
    assert!(rig.page(&client, &pull, &source.stream.since(pull.at, 1)));
    let stale = rig.pull(&client).expect("four are missing");
    assert!(!stale.is_limited);
    rig.worker.limit(client.key, &source.topic, true);
    assert!(rig.page(&client, &stale, &source.page(stale.at)));
    let pull = rig.pull(&client).expect("it is asked for again");
    assert!(pull.is_limited);
    assert!(rig.page(&client, &pull, &page_from(&source, source.positions[4])));
    let new = source.publish();
    rig.turn([source.deliver(&new)]);
    let missed = source.publish().position;
    rig.turn([source.behind(missed, 1)]);
    let pull = rig.pull(&client).expect("it fell behind");
    assert!(!pull.is_limited, "what follows is new");
    assert!(rig.page(&client, &pull, &source.page(pull.at)));
    let read = rig.read(client).await;
    assert_eq!(read, ["1", "gap:retention", "5", "6", "7"]);
}

#[tokio::test]
async fn what_waits_for_a_socket_is_taken_back_where_it_is_limited() {
    let mut rig = Rig::with(BOUND, 100_000).await;
    let mut source = Source::new(100);
    let client = rig.live(&source).await;
    rig.stall(&client);
    let entries = source.publish_many(3);
    rig.turn(entries.iter().map(|entry| source.deliver(entry)));
    assert_eq!(rig.waiting(&client), 3);
    rig.worker.limit(client.key, &source.topic, true);
    assert_eq!(rig.waiting(&client), 0);
    // Not from the window: how old it is, the broker knows.
    let pull = rig.pull(&client).expect("it reads again");
    assert_eq!((pull.at, pull.is_limited), (Position::ZERO, true));
    assert!(rig.page(&client, &pull, &page_from(&source, source.positions[2])));
    assert_eq!(rig.read(client).await, ["gap:retention", "3"]);
}

#[tokio::test]
async fn a_catch_up_that_is_limited_no_more_reads_on_as_before() {
    let mut rig = Rig::new().await;
    let mut source = Source::new(100);
    source.publish_many(3);
    let client = rig.after(&source, Position::ZERO).await;
    rig.worker.limit(client.key, &source.topic, true);
    let stale = rig.pull(&client).expect("it catches up");
    assert!(stale.is_limited);
    rig.worker.limit(client.key, &source.topic, false);
    assert!(rig.page(&client, &stale, &page_from(&source, source.positions[2])));
    let pull = rig.pull(&client).expect("it is asked for again");
    assert!(!pull.is_limited);
    assert!(rig.page(&client, &pull, &source.page(pull.at)));
    assert_eq!(rig.read(client).await, ["1", "2", "3"]);
}

#[tokio::test]
async fn a_session_that_is_live_is_not_read_anything_for_a_limit() {
    let mut rig = Rig::new().await;
    let mut source = Source::new(100);
    let client = rig.live(&source).await;
    rig.worker.limit(client.key, &source.topic, true);
    assert_eq!(rig.pull(&client), None);
    let new = source.publish();
    rig.turn([source.deliver(&new)]);
    assert_eq!(rig.read(client).await, ["1"]);
}
