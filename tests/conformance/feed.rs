//! What the feed brings: wanted topics only, in the order of ids, and never a silent loss.

use std::sync::Arc;

use bytes::Bytes;
use fanfare::broker::{Broker, Entry, FEED_EVENTS_MAX, FeedEvent, Page};
use fanfare::telemetry::trace::context::TraceContext;
use fanfare_protocol::ids::{Position, Topic};
use futures_util::future::join_all;
use tokio::task::JoinSet;

use crate::rig::{HISTORY, Rig, WHOLE, assert_linked, message, positions, request, topic};
use crate::rig::{NO_HISTORY, publication};
use fanfare_testkit::wait;

pub(crate) async fn what_is_published_after_the_confirmation_arrives(mut rig: Rig) {
    let topic = topic("chat:heard");
    let unheard = rig.publish(&topic, HISTORY, "1").await;
    rig.hear(&topic).await;
    let position = rig.publish(&topic, HISTORY, "2").await;
    let (delivered_on, entry) = rig.delivery().await;
    assert_eq!(delivered_on, topic);
    assert_eq!((entry.prev, entry.position), (unheard, position));
    assert_eq!(message(&entry), &publication("2"));
}

pub(crate) async fn a_context_comes_with_its_publication_and_is_kept_nowhere(mut rig: Rig) {
    let (topic, inbox) = (topic("chat:traced"), topic("@traced"));
    rig.hear(&topic).await;
    rig.hear(&inbox).await;
    let context = TraceContext {
        trace: [0xff; 16],
        span: [0, 1, 2, 3, 4, 0x20, 0x0a, 0xff],
        flags: 1,
    };
    // Where a node reads it that this one does not know of, it is not sent; the engine inside the
    // process has no other reader.
    let is_alone = matches!(&*rig.broker, Broker::Memory(_));
    let mut stored = Vec::new();
    for (is_read_by_all, keep, key) in [
        (false, HISTORY, None),
        (true, HISTORY, None),
        (true, HISTORY, Some("key")),
        (true, NO_HISTORY, None),
        (false, HISTORY, Some("other")),
    ] {
        rig.carry_context(is_read_by_all);
        for topic in [&topic, &inbox] {
            let mut traced = request(topic, keep, "1");
            traced.trace = Some(context);
            traced.idempotency = key.map(|key| (key.to_owned(), 60_000));
            rig.broker.publish(traced).await.expect("the broker is up");
            let FeedEvent::Delivery { entry, trace, .. } = rig.next().await else {
                panic!("expected a delivery");
            };
            let expected = (is_read_by_all || is_alone).then_some(context);
            assert_eq!((trace, message(&entry)), (expected, &publication("1")));
            if keep == NO_HISTORY {
                stored.clear();
            } else if topic.name() == "chat:traced" {
                stored.push(entry);
            }
        }
    }
    assert_eq!(rig.retained(&topic, HISTORY).await, stored);
    // One that was published under the key before is published no more.
    rig.carry_context(true);
    let mut again = request(&topic, HISTORY, "2");
    again.trace = Some(context);
    again.idempotency = Some(("other".to_owned(), 60_000));
    let again = rig.broker.publish(again).await.expect("the broker is up");
    assert!(again.duplicate);
    rig.publish(&topic, HISTORY, "3").await;
    let FeedEvent::Delivery { entry, trace, .. } = rig.next().await else {
        panic!("expected a delivery");
    };
    assert_eq!((trace, message(&entry)), (None, &publication("3")));
}

pub(crate) async fn only_wanted_topics_are_heard(mut rig: Rig) {
    let (wanted, other) = (topic("chat:wanted"), topic("chat:wanted-not"));
    let inbox = topic("@anna");
    rig.hear(&wanted).await;
    for round in ["1", "2"] {
        rig.publish(&other, HISTORY, "0").await;
        rig.publish(&inbox, HISTORY, "0").await;
        rig.publish(&wanted, HISTORY, round).await;
        let (delivered_on, entry) = rig.delivery().await;
        assert_eq!(delivered_on, wanted);
        assert_eq!(message(&entry), &publication(round));
    }
}

pub(crate) async fn a_topic_that_is_wanted_again_is_confirmed_again(mut rig: Rig) {
    let (topic, other) = (topic("chat:again"), topic("chat:other"));
    rig.hear(&topic).await;
    rig.hear(&topic).await;
    // A wish that was taken back and made anew before anybody looked is confirmed, too.
    rig.broker.interest().unwant(topic.clone());
    rig.hear(&topic).await;
    rig.hear(&other).await;
    rig.publish(&topic, NO_HISTORY, "1").await;
    assert_eq!(rig.delivery().await.0, topic);
}

pub(crate) async fn a_topic_that_is_wanted_no_more_falls_silent(mut rig: Rig) {
    let (kept, dropped) = (topic("chat:kept"), topic("chat:dropped"));
    rig.hear(&kept).await;
    rig.hear(&dropped).await;
    rig.broker.interest().unwant(dropped.clone());
    // Nothing confirms the end, so publish until the pair arrives without its first half.
    wait::until("the topic to fall silent", async || {
        rig.publish(&dropped, NO_HISTORY, "1").await;
        rig.publish(&kept, NO_HISTORY, "2").await;
        let is_silent = rig.delivery().await.0 == kept;
        if !is_silent {
            assert_eq!(rig.delivery().await.0, kept);
        }
        is_silent
    })
    .await;
}

pub(crate) async fn concurrent_publications_arrive_in_the_order_of_their_ids(mut rig: Rig) {
    const PUBLISHERS: usize = 8;
    const EACH: usize = 100;
    let topic = topic("chat:busy");
    rig.hear(&topic).await;
    let mut publishers = JoinSet::new();
    for publisher in 0..PUBLISHERS {
        let (broker, topic) = (Arc::clone(&rig.broker), topic.clone());
        publishers.spawn(async move {
            let mut mine = Vec::new();
            for n in 0..EACH {
                let request = request(&topic, HISTORY, &format!("[{publisher},{n}]"));
                mine.push(
                    broker
                        .publish(request)
                        .await
                        .expect("the broker is up")
                        .position,
                );
            }
            assert!(mine.is_sorted(), "one publisher's order is kept");
            mine
        });
    }
    let mut published: Vec<Position> = publishers.join_all().await.concat();
    published.sort_unstable();
    let mut heard = Vec::new();
    while heard.len() < PUBLISHERS * EACH {
        heard.push(rig.delivery().await.1);
    }
    assert_eq!(positions(&heard), published);
    assert_linked(Position::ZERO, &heard);
    assert_eq!(rig.retained(&topic, HISTORY).await, heard);
}

pub(crate) async fn a_control_message_comes_back_on_the_own_feed(mut rig: Rig) {
    let message = Bytes::from_static(b"\x01any bytes\x00\xff");
    let sent = rig.broker.control(message.clone()).await;
    assert_eq!(sent, Ok(()));
    assert_eq!(rig.next().await, FeedEvent::Control(message));
}

pub(crate) async fn a_feed_that_nobody_reads_breaks_and_then_goes_on(mut rig: Rig) {
    const COUNT: usize = 20_000;
    const AT_ONCE: usize = 200;
    const { assert!(COUNT > 2 * FEED_EVENTS_MAX) };
    let topic = topic("chat:flood");
    let keep = fanfare::config::Retention {
        entries_max: 2 * COUNT as u32,
        ..HISTORY
    };
    rig.hear(&topic).await;
    for _ in 0..COUNT / AT_ONCE {
        let broker = &rig.broker;
        let publish = |_| broker.publish(request(&topic, keep, "1"));
        for published in join_all((0..AT_ONCE).map(publish)).await {
            published.expect("the broker is up");
        }
    }
    let before = deliveries_before_loss(&mut rig, &topic).await;
    assert!(before.len() < COUNT, "the feed has a bound");
    assert_linked(Position::ZERO, &before);
    let reached = before.last().map_or(Position::ZERO, |entry| entry.position);
    let missed = catch_up(&rig, &topic, reached, keep).await;
    assert_eq!(before.len() + missed.len(), COUNT);
    assert_linked(reached, &missed);

    // While the stream was read nobody read the feed. Where the machine is loaded its rest comes
    // only now, and may have filled the feed again: then there is word of another loss, and no silence.
    let mut reached = missed.last().map_or(reached, |entry| entry.position);
    wait::until("the feed to go on", async || {
        let marker = rig.publish(&topic, keep, "2").await;
        let is_delivered = is_delivered(&mut rig, &topic, reached, marker).await;
        if !is_delivered {
            let missed = catch_up(&rig, &topic, reached, keep).await;
            assert_linked(reached, &missed);
            reached = missed.last().map_or(reached, |entry| entry.position);
        }
        is_delivered
    })
    .await;
}

/// Whether the feed brings everything above `reached` up to `marker`, or word of a loss comes first.
async fn is_delivered(
    rig: &mut Rig,
    topic: &Topic,
    mut reached: Position,
    marker: Position,
) -> bool {
    while reached < marker {
        match rig.next().await {
            // The stream brought it already.
            FeedEvent::Delivery { entry, .. } if entry.position <= reached => {}
            // After a break it is heard again.
            FeedEvent::Subscribed(_) => {}
            FeedEvent::Delivery { entry, .. } => {
                assert_eq!(entry.prev, reached, "a silent loss");
                reached = entry.position;
            }
            event if tells_of_loss(&event, topic) => return false,
            other => panic!("expected a delivery or word of a loss, got {other:?}"),
        }
    }
    true
}

/// The queue to the dispatcher names the topic; the Redis client's own buffer names none.
fn tells_of_loss(event: &FeedEvent, topic: &Topic) -> bool {
    match event {
        FeedEvent::Doubt(topics) => *topics == [topic.clone()],
        FeedEvent::Break(_) => true,
        _ => false,
    }
}

async fn deliveries_before_loss(rig: &mut Rig, topic: &Topic) -> Vec<Entry> {
    let mut entries = Vec::new();
    loop {
        match rig.next().await {
            FeedEvent::Delivery { entry, .. } => entries.push(entry),
            // A link that broke while nobody read is heard again; the word of its loss may come behind.
            FeedEvent::Subscribed(_) => {}
            event if tells_of_loss(&event, topic) => return entries,
            other => panic!("expected a delivery or word of a loss, got {other:?}"),
        }
    }
}

async fn catch_up(
    rig: &Rig,
    topic: &Topic,
    mut reached: Position,
    keep: fanfare::config::Retention,
) -> Vec<Entry> {
    let thousand = Page {
        entries_max: 1_000,
        ..WHOLE
    };
    let mut missed = Vec::new();
    loop {
        let page = rig.since_page(topic, reached, keep, thousand).await;
        assert_eq!(page.gap, None);
        missed.extend(page.entries);
        reached = missed
            .last()
            .map_or(reached, |entry: &Entry| entry.position);
        if reached == page.last {
            return missed;
        }
    }
}
