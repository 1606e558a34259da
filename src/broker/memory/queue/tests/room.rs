//! What makes room for entries, and what is told where there is none.

use super::*;
use crate::broker::interest::WishNumber;
use crate::broker::{BrokerHealth, PublishRequest};

#[tokio::test]
async fn where_the_queue_has_its_half_of_the_memory_entries_are_refused_and_none_is_forgotten() {
    const BOUND: usize = 1 << 20;
    let rig = Rig::bounded(BOUND);
    let one = topic("one");
    let mut accepted = 0;
    while rig.enqueue(request(&one, 1_000)).await.is_ok() {
        accepted += 1;
    }
    let bytes = rig.bytes();
    assert!(bytes <= BOUND / 2 && bytes > BOUND / 2 - 2_000, "{bytes}");
    let full = BrokerHealth::Partly(Unavailable::QueueMemoryFull.to_string());
    assert_eq!(*rig.broker.health().borrow(), full);
    // Of the same target none overtakes the one that was refused, also where it would fit.
    let answers = rig.broker.enqueue(vec![
        request(&one, 1_000),
        request(&one, 1),
        request(&topic("two"), 1),
    ]);
    let answers = answers.await;
    let is_taken: Vec<_> = answers.iter().map(Result::is_ok).collect();
    assert_eq!(is_taken, [false, false, true]);
    assert_eq!(answers[0], Err(Unavailable::QueueMemoryFull.into()));
    assert_eq!(answers[1], Err(Unavailable::NotTried.into()));
    // Publications without end forget each other, and nothing that waits.
    for n in 0..2_000 {
        let message = message(&topic(&format!("t{n}")), 1_000);
        let request = PublishRequest::new(message.topic, message.publication, KEEP);
        rig.broker.publish(request).await.expect("there is room");
    }
    assert_eq!(rig.depths(&one).await.due[2], accepted);
    assert!(rig.metrics.control.forgotten_topics.get() > 0);
    // It drains, and what it took up is free again.
    let mut moved_count = 0;
    while rig.depths(&one).await.due[2] > 0 {
        let moved = rig.move_head(&one, publish).await;
        let is_published = |end: &End| matches!(end, End::Published(_));
        assert!(moved.ends.iter().all(is_published));
        moved_count += moved.ends.len() as u64;
        assert!(rig.broker.lock().room.bytes() <= BOUND);
    }
    assert_eq!(moved_count, accepted);
    rig.move_head(&topic("two"), publish).await;
    assert_eq!(rig.bytes(), 0);
    rig.enqueue(request(&one, 1_000))
        .await
        .expect("there is room again");
}

#[tokio::test]
async fn letters_and_then_keys_make_room_for_entries_the_oldest_first_and_are_counted() {
    const BOUND: usize = 1 << 20;
    let rig = Rig::bounded(BOUND);
    // Keys have a half of the queue's memory, letters the rest and more.
    let one = topic("one");
    for n in 0..1_000 {
        let enqueued = rig.enqueue(keyed(&one, &format!("digest-{n}"))).await;
        enqueued.expect("there is room");
        rig.now_ms.fetch_add(1, Ordering::Relaxed);
    }
    while rig.depths(&one).await.due[2] > 0 {
        rig.move_head(&one, publish).await;
    }
    for n in 0..20 {
        let of = topic(&format!("dead-{n}"));
        let enqueued = rig.enqueue(request(&of, 10_000)).await;
        enqueued.expect("there is room");
        rig.move_head(&of, bury).await;
        rig.now_ms.fetch_add(1, Ordering::Relaxed);
    }
    let counters = &rig.metrics;
    let counts = || {
        (
            counters.queue.dead_dropped.get(),
            counters.control.forgotten_keys.get(),
        )
    };
    assert_eq!(counts(), (0, 0));
    let dead = async |n: u32| rig.depths(&topic(&format!("dead-{n}"))).await.dead;
    let mut accepted = 0;
    while counts().0 < 20 {
        rig.enqueue(request(&one, 10_000))
            .await
            .expect("there is room");
        accepted += 1;
        assert!(rig.bytes() <= BOUND / 2);
        let (dropped, _) = counts();
        assert_eq!(dead(19).await, u64::from(dropped < 20));
        assert_eq!(dead(0).await, u64::from(dropped == 0));
    }
    assert_eq!(counts().1, 0);
    while counts().1 == 0 {
        rig.enqueue(request(&one, 10_000))
            .await
            .expect("there is room");
        accepted += 1;
    }
    // The one that ends last is still known, the one that ends first is not.
    let last = rig.enqueue(keyed(&one, "digest-999")).await;
    assert!(last.expect("it is known").duplicate);
    assert_eq!(rig.depths(&one).await.due[2], accepted);
    while rig.enqueue(request(&one, 10_000)).await.is_ok() {
        accepted += 1;
    }
    assert!(counts().1 > 900);
    assert_eq!(rig.depths(&one).await.due[2], accepted);
    assert!(rig.bytes() <= BOUND / 2);
}

#[tokio::test]
async fn topics_that_leave_no_room_for_an_entry_are_told_as_such() {
    let rig = Rig::bounded(1 << 20);
    let wishes = (0..5_000).map(|n| (topic(&format!("w{n}")), Some(WishNumber(n))));
    rig.broker.apply(wishes.collect());
    let refused = rig.enqueue(request(&topic("one"), 1)).await;
    assert_eq!(refused, Err(Unavailable::QueueMemoryTaken.into()));
}

#[tokio::test]
async fn older_history_makes_room_for_entries() {
    const BOUND: usize = 1 << 20;
    let rig = Rig::bounded(BOUND);
    for n in 0..2_000 {
        let message = message(&topic(&format!("t{n}")), 1_000);
        let request = PublishRequest::new(message.topic, message.publication, KEEP);
        rig.broker.publish(request).await.expect("there is room");
    }
    let before = rig.metrics.control.forgotten_topics.get();
    for _ in 0..100 {
        let enqueued = rig.enqueue(request(&topic("one"), 1_000)).await;
        enqueued.expect("history makes room");
    }
    assert!(rig.metrics.control.forgotten_topics.get() > before);
    let room_bytes = rig.broker.lock().room.bytes();
    assert!(room_bytes <= BOUND, "{room_bytes}");
    let told = rig.metrics.control.embedded_bytes.get();
    assert!(told <= BOUND as u64);
}
