//! The durable queue: what is enqueued is fetched, and moved once, in order, into its topic.

use fanfare::broker::queue::bells::Ring;
use fanfare::broker::queue::{
    Depths, End, FETCH_OF_STREAM_MAX, PRIORITIES, PartitionState, Verdict, Why, rank,
};
use fanfare::broker::{Broker, FeedEvent};
use fanfare::telemetry::trace::context::TraceContext;
use fanfare_protocol::ids::{Position, Priority};

use crate::queue_rig::{
    bury, depths_of, json_of, message_of, only, partition, publish, queued, queued_count,
    topics_apart,
};
use crate::rig::{HISTORY, Rig, assert_linked, message, positions, topic};
use fanfare_testkit::wait::{self, PATIENCE};

const LONG_MS: u64 = 300_000;

pub(crate) async fn a_partition_into_which_nothing_was_put_is_empty(rig: Rig) {
    let held = rig.hold(&[7]).await;
    let fetched = only(rig.fetch(&held, 0).await);
    let empty = Depths::default();
    assert_eq!(fetched.partitions, [PartitionState::Held(empty)]);
    assert_eq!(fetched.entries, []);
    assert_eq!(rig.depths(7).await, empty);
    let letters = rig.broker.dead_letters(7, None, 10).await;
    assert_eq!(letters, Ok(Vec::new()));
    let dropped = rig.broker.drop_dead(7, &[Position::UNWRITTEN]).await;
    assert_eq!(dropped, Ok(0));
}

pub(crate) async fn what_is_enqueued_is_fetched_as_it_was_until_it_is_moved(rig: Rig) {
    let topic = topic("queue:whole");
    let held = rig.hold(&[partition(&topic)]).await;
    let mut request = queued(&topic, Priority::High, "{\"n\":[1,2]}");
    request.message.publication.user = Some("anna".to_owned());
    request.message.publication.key = Some("k".to_owned());
    request.message.publication.conflate = true;
    request.message.publication.ttl_ms = Some(LONG_MS);
    request.message.expires_ms = Some(1_900_000_000_000);
    request.message.traceparent = Some("00-aa-bb-01".to_owned());
    let enqueued = rig.enqueue_one(request.clone()).await;
    assert!(!enqueued.duplicate);

    // A fetch takes nothing out, and the same home has it at the head as often as it looks.
    for from in [0, 1] {
        let fetched = only(rig.fetch(&held, from).await);
        assert_eq!(fetched.entries.len(), 1);
        let entry = &fetched.entries[0];
        assert_eq!(message_of(entry), request.message);
        assert_eq!((entry.partition, entry.starts), (held[0].partition, 1));
        assert_eq!(entry.priority, Priority::High);
        assert_eq!(entry.id.to_string(), enqueued.entry);
        assert!(entry.id.ms <= fetched.now_ms);
    }
    let fetched = only(rig.fetch(&held, 2).await);
    let position = rig.publish_all(&held, &fetched).await;
    let retained = rig.retained(&topic, HISTORY).await;
    assert_eq!(positions(&retained), position);
    assert_eq!(message(&retained[0]), &request.message.publication);
    assert_eq!(only(rig.fetch(&held, 3).await).entries, []);
}

pub(crate) async fn an_entry_that_is_moved_brings_its_context(mut rig: Rig) {
    let (plain, inbox) = (topic("queue:traced"), topic("@traced"));
    let context = TraceContext {
        trace: [0xff; 16],
        span: [0, 0x20, 0x25, 3, 4, 5, 0x0a, 0xff],
        flags: 1,
    };
    let is_alone = matches!(&*rig.broker, Broker::Memory(_));
    for topic in [&plain, &inbox] {
        rig.hear(topic).await;
        let held = rig.hold(&[partition(topic)]).await;
        for (is_read_by_all, of_entry) in
            [(true, Some(context)), (false, Some(context)), (true, None)]
        {
            rig.carry_context(is_read_by_all);
            let request = queued(topic, Priority::Normal, "1");
            rig.enqueue_one(request.clone()).await;
            let fetched = only(rig.fetch(&held, 0).await);
            let mut judged = publish(&fetched.entries[0]);
            let Verdict::Publish { trace, .. } = &mut judged.verdict else {
                panic!("it is published");
            };
            *trace = of_entry;
            rig.move_all(fetched.place, &held, vec![judged]).await;
            let FeedEvent::Delivery { entry, trace, .. } = rig.next().await else {
                panic!("expected a delivery");
            };
            let expected = of_entry.filter(|_| is_read_by_all || is_alone);
            assert_eq!(trace, expected);
            assert_eq!(message(&entry), &request.message.publication);
            let retained = rig.retained(topic, HISTORY).await;
            assert_eq!(retained.last(), Some(&entry), "it is stored without");
        }
    }
}

pub(crate) async fn entries_of_a_target_are_moved_in_their_order(rig: Rig) {
    let topic = topic("queue:order");
    let held = rig.hold(&[partition(&topic)]).await;
    let enqueued = rig
        .enqueue(queued_count(&topic, Priority::Normal, 40))
        .await;
    let names: Vec<_> = enqueued.into_iter().map(|one| one.entry).collect();
    let (mut fetched_names, mut moved) = (Vec::new(), Vec::new());
    for count in [FETCH_OF_STREAM_MAX, 40 - FETCH_OF_STREAM_MAX] {
        let fetched = only(rig.fetch(&held, 0).await);
        assert_eq!(fetched.entries.len(), count);
        let at_head: Vec<_> = fetched.entries.iter().map(|entry| entry.starts).collect();
        assert_eq!((at_head[0], at_head[1..].iter().max()), (1, Some(&0)));
        fetched_names.extend(fetched.entries.iter().map(|entry| entry.id.to_string()));
        moved.extend(rig.publish_all(&held, &fetched).await);
    }
    assert_eq!(fetched_names, names);
    let ids: Vec<Position> = names
        .iter()
        .map(|name| name.parse().expect("an id"))
        .collect();
    assert!(ids.is_sorted_by(|one, next| one < next));
    let retained = rig.retained(&topic, HISTORY).await;
    assert_eq!(positions(&retained), moved);
    assert_linked(Position::ZERO, &retained);
    for (entry, n) in retained.iter().zip(1..) {
        let expected = queued(&topic, Priority::Normal, &n.to_string());
        assert_eq!(message(entry), &expected.message.publication);
    }
}

pub(crate) async fn what_is_moved_is_heard_between_direct_publications(mut rig: Rig) {
    let topic = topic("queue:heard");
    let held = rig.hold(&[partition(&topic)]).await;
    rig.hear(&topic).await;
    let mut at = vec![rig.publish(&topic, HISTORY, "1").await];
    rig.enqueue(vec![
        queued(&topic, Priority::Normal, "2"),
        queued(&topic, Priority::Normal, "3"),
    ])
    .await;
    let fetched = only(rig.fetch(&held, 0).await);
    at.extend(rig.publish_all(&held, &fetched).await);
    at.push(rig.publish(&topic, HISTORY, "4").await);
    let mut entries = Vec::new();
    for json in ["1", "2", "3", "4"] {
        let (heard_on, entry) = rig.delivery().await;
        assert_eq!(heard_on, topic);
        assert_eq!(message(&entry), &crate::rig::publication(json));
        entries.push(entry);
    }
    assert_eq!(positions(&entries), at);
    assert_linked(Position::ZERO, &entries);
    assert_eq!(rig.retained(&topic, HISTORY).await, entries);
}

pub(crate) async fn a_move_that_is_repeated_finds_nothing_and_doubles_nothing(rig: Rig) {
    let topic = topic("queue:repeat");
    let held = rig.hold(&[partition(&topic)]).await;
    rig.enqueue(queued_count(&topic, Priority::Normal, 3)).await;
    let fetched = only(rig.fetch(&held, 0).await);
    let [first, second, third] = [0, 1, 2].map(|n| publish(&fetched.entries[n]));
    // The middle one first, so that a repeat has both sorts.
    let moved = rig
        .move_all(fetched.place, &held, vec![second.clone()])
        .await;
    let End::Published(at) = moved[0].ends[0] else {
        panic!("expected a publication, got {moved:?}");
    };
    let again = vec![
        first.clone(),
        second.clone(),
        bury(&fetched.entries[1], Why::Failed, "late"),
        third.clone(),
    ];
    let ends = rig
        .move_all(fetched.place, &held, again)
        .await
        .remove(0)
        .ends;
    let [
        End::Published(next),
        End::Gone,
        End::Gone,
        End::Published(last),
    ] = ends[..]
    else {
        panic!("expected what was not moved yet to be, got {ends:?}");
    };
    let late = vec![first, second, third];
    let moved = rig.move_all(fetched.place, &held, late).await.remove(0);
    assert_eq!(moved.ends, [End::Gone; 3]);
    assert_eq!(moved.partitions, [PartitionState::Held(Depths::default())]);
    assert_eq!(
        positions(&rig.retained(&topic, HISTORY).await),
        [at, next, last]
    );
}

pub(crate) async fn a_repeated_key_of_a_target_answers_the_first_entry(rig: Rig) {
    // Of one partition or not: a digest stands for one target.
    let (one, other) = (topic("queue:keys"), topic("queue:other"));
    let keyed = |topic, json: &str, digest: &str| {
        let mut request = queued(topic, Priority::Normal, json);
        request.idempotency = Some((digest.to_owned(), LONG_MS));
        request
    };
    let digest = |topic| fanfare::broker::queue::once::digest("api", "k", topic);
    let (at_one, at_other) = (digest(&one), digest(&other));
    let first = rig.enqueue_one(keyed(&one, "1", &at_one)).await;
    let requests = vec![
        keyed(&one, "2", &at_one),
        keyed(&other, "3", &at_other),
        keyed(&one, "4", "another"),
        keyed(&other, "5", &at_other),
    ];
    let answers = rig.enqueue(requests).await;
    let duplicates: Vec<_> = answers.iter().map(|answer| answer.duplicate).collect();
    assert_eq!(duplicates, [true, false, false, true]);
    assert_eq!(answers[0].entry, first.entry);
    assert_eq!(answers[3].entry, answers[1].entry);

    // It is known after the entry has left the queue, too.
    let held = rig.hold(&[partition(&one)]).await;
    let fetched = only(rig.fetch(&held, 0).await);
    rig.publish_all(&held, &fetched).await;
    let late = rig.enqueue_one(keyed(&one, "6", &at_one)).await;
    assert_eq!((late.entry, late.duplicate), (first.entry, true));
    let retained = rig.retained(&one, HISTORY).await;
    let expected = ["1", "4"].map(crate::rig::publication);
    let published: Vec<_> = retained
        .iter()
        .map(|entry| message(entry).clone())
        .collect();
    assert_eq!(published, expected);
}

pub(crate) async fn a_key_of_the_queue_is_forgotten_after_its_time(rig: Rig) {
    let topic = topic("queue:short");
    let enqueue = async || {
        let mut request = queued(&topic, Priority::Normal, "1");
        request.idempotency = Some(("digest".to_owned(), 100));
        rig.enqueue_one(request).await
    };
    let first = enqueue().await;
    let later = wait::until("the key is forgotten", async || {
        let enqueued = enqueue().await;
        (!enqueued.duplicate).then_some(enqueued)
    })
    .await;
    // The repeats in between did not prolong it.
    assert_ne!(later.entry, first.entry);
    assert_eq!(rig.depths(partition(&topic)).await.due, [0, 0, 2, 0]);
}

pub(crate) async fn a_key_of_the_queue_lives_from_the_time_of_its_entry_on(rig: Rig) {
    let topic = topic("queue:patient");
    let held = rig.hold(&[partition(&topic)]).await;
    let due_ms = only(rig.fetch(&held, 0).await).now_ms + 1_000;
    let enqueue = async || {
        let mut request = queued(&topic, Priority::Normal, "1");
        request.idempotency = Some(("digest".to_owned(), 100));
        request.not_before_ms = Some(due_ms);
        rig.enqueue_one(request).await
    };
    let first = enqueue().await;
    wait::until("it to be due", async || {
        let again = enqueue().await;
        let fetched = only(rig.fetch(&held, 0).await);
        assert!(
            again.duplicate || fetched.now_ms >= due_ms,
            "forgotten early"
        );
        (!fetched.entries.is_empty()).then_some(())
    })
    .await;
    let later = wait::until("the key is forgotten", async || {
        let enqueued = enqueue().await;
        (!enqueued.duplicate).then_some(enqueued)
    })
    .await;
    assert_ne!(later.entry, first.entry);
}

pub(crate) async fn what_is_to_come_later_comes_in_the_order_of_its_time(rig: Rig) {
    const BEFORE_MS: u64 = 300;
    let topic = topic("queue:later");
    let held = rig.hold(&[partition(&topic)]).await;
    let begin_ms = only(rig.fetch(&held, 0).await).now_ms;
    let due_ms = [900, 600, 600, 600].map(|after| begin_ms + after);
    let mut requests = queued_count(&topic, Priority::Low, 4);
    for (request, due_ms) in requests.iter_mut().zip(due_ms) {
        request.not_before_ms = Some(due_ms);
    }
    // The same time keeps the order of acceptance, also over several calls.
    let last = requests.split_off(3);
    let mut names: Vec<_> = rig.enqueue(requests).await;
    names.extend(rig.enqueue(last).await);
    let distinct: std::collections::BTreeSet<_> = names.iter().map(|one| &one.entry).collect();
    assert_eq!(distinct.len(), 4);
    let depths = rig.depths(held[0].partition).await;
    if rig_is_before(&rig, &held, begin_ms + BEFORE_MS).await {
        assert_eq!((depths.later, depths.due), (4, [0; 4]));
        assert_eq!(depths.next_due_ms, Some(due_ms[1]));
    }
    let fetched = wait::until("all of them to be due", async || {
        let fetched = only(rig.fetch(&held, 0).await);
        for entry in &fetched.entries {
            let n: usize = json_of(entry).parse().expect("a number");
            assert!(fetched.now_ms >= due_ms[n - 1], "{n} is early");
        }
        let waiting = depths_of(&fetched.partitions[0]).later;
        assert_eq!(fetched.entries.len() as u64 + waiting, 4);
        (waiting == 0).then_some(fetched)
    })
    .await;
    let order: Vec<_> = fetched.entries.iter().map(json_of).collect();
    assert_eq!(order, ["2", "3", "4", "1"]);
    assert!(depths_of(&fetched.partitions[0]).next_due_ms.is_none());
    rig.publish_all(&held, &fetched).await;
    assert_eq!(rig.retained(&topic, HISTORY).await.len(), 4);
}

/// Whether it is still before a time, by the broker's clock.
async fn rig_is_before(rig: &Rig, held: &[fanfare::broker::queue::HeldPartition], ms: u64) -> bool {
    only(rig.fetch(held, 0).await).now_ms < ms
}

pub(crate) async fn what_was_due_before_it_was_enqueued_is_fetched_at_once(rig: Rig) {
    let topic = topic("queue:past");
    let held = rig.hold(&[partition(&topic)]).await;
    let mut request = queued(&topic, Priority::Critical, "1");
    request.not_before_ms = Some(1);
    rig.enqueue_one(request).await;
    let fetched = only(rig.fetch(&held, 0).await);
    assert_eq!(fetched.entries.len(), 1);
    assert_eq!(rig.publish_all(&held, &fetched).await.len(), 1);
}

pub(crate) async fn times_that_are_over_keep_the_order_of_acceptance(rig: Rig) {
    let topic = topic("queue:over");
    let held = rig.hold(&[partition(&topic)]).await;
    let now_ms = only(rig.fetch(&held, 0).await).now_ms;
    let mut requests = queued_count(&topic, Priority::Normal, 5);
    for (request, before) in
        requests
            .iter_mut()
            .zip([Some(500), None, Some(100), None, Some(59_000)])
    {
        request.not_before_ms = before.map(|before_ms| now_ms - before_ms);
    }
    rig.enqueue(requests).await;
    rig.enqueue_one(queued(&topic, Priority::Normal, "6")).await;
    let fetched = only(rig.fetch(&held, 0).await);
    let order: Vec<_> = fetched.entries.iter().map(json_of).collect();
    assert_eq!(order, ["1", "2", "3", "4", "5", "6"]);
}

pub(crate) async fn what_is_to_come_at_once_follows_what_became_due_before_it(rig: Rig) {
    let topics = topics_apart(2);
    let [topic, other] = &topics[..] else {
        panic!("expected two, got {topics:?}");
    };
    let held = rig.hold(&[partition(topic)]).await;
    let clock = rig.hold(&[partition(other)]).await;
    let due_ms = only(rig.fetch(&clock, 0).await).now_ms + 300;
    let mut requests = queued_count(topic, Priority::Normal, 2);
    requests[0].not_before_ms = Some(due_ms);
    requests[1].not_before_ms = Some(due_ms + 1);
    rig.enqueue(requests).await;
    // Nobody looks into their partition meanwhile.
    wait::until("their time to be over", async || {
        (!rig_is_before(&rig, &clock, due_ms + 10).await).then_some(())
    })
    .await;
    let mut over = queued(topic, Priority::Normal, "4");
    over.not_before_ms = Some(due_ms - 100);
    rig.enqueue(vec![queued(topic, Priority::Normal, "3"), over])
        .await;
    let fetched = only(rig.fetch(&held, 0).await);
    let order: Vec<_> = fetched.entries.iter().map(json_of).collect();
    assert_eq!(order, ["1", "2", "3", "4"]);
}

pub(crate) async fn depths_say_what_waits_and_since_when(rig: Rig) {
    let topic = topic("queue:depth");
    let number = partition(&topic);
    let held = rig.hold(&[number]).await;
    let mut requests = Vec::new();
    for (priority, count) in PRIORITIES.into_iter().zip([1, 2, 0, 4]) {
        requests.extend(queued_count(&topic, priority, count));
    }
    let mut later = queued(&topic, Priority::High, "9");
    let due_ms = only(rig.fetch(&held, 0).await).now_ms + LONG_MS;
    later.not_before_ms = Some(due_ms);
    requests.push(later);
    rig.enqueue(requests).await;
    let fetched = only(rig.fetch(&held, 0).await);
    let depths = depths_of(&fetched.partitions[0]);
    assert_eq!(depths.due, [1, 2, 0, 4]);
    assert_eq!((depths.later, depths.dead), (1, 0));
    assert_eq!(depths.next_due_ms, Some(due_ms));
    for priority in PRIORITIES {
        let mut of = fetched.entries.iter().filter(|e| e.priority == priority);
        let oldest_ms = of.next().map(|head| head.id.ms);
        assert_eq!(depths.oldest_ms[rank(priority)], oldest_ms);
    }
    assert_eq!(rig.depths(number).await, depths);
    // After a move it says what is left.
    let first = vec![publish(&fetched.entries[0])];
    let moved = rig.move_all(fetched.place, &held, first).await.remove(0);
    assert_eq!(depths_of(&moved.partitions[0]).due, [0, 2, 0, 4]);
    assert_eq!(depths_of(&moved.partitions[0]).oldest_ms[0], None);
}

pub(crate) async fn a_glance_says_where_something_is(rig: Rig) {
    let topics = topics_apart(4);
    let numbers: Vec<_> = topics.iter().map(partition).collect();
    let held = rig.hold(&numbers).await;
    assert!(rig.glance(&held).await.is_empty());
    let mut later = queued(&topics[1], Priority::Normal, "1");
    later.not_before_ms = Some(only(rig.fetch(&held[1..2], 0).await).now_ms + LONG_MS);
    rig.enqueue_one(later).await;
    assert_eq!(rig.glance(&held).await, [numbers[1]]);
    let low = rig
        .enqueue_one(queued(&topics[3], Priority::Low, "2"))
        .await;
    assert!(!low.duplicate);
    assert_eq!(rig.glance(&held).await, [numbers[1], numbers[3]]);
    let fetched = only(rig.fetch(&held[3..], 0).await);
    rig.publish_all(&held[3..], &fetched).await;
    assert_eq!(rig.glance(&held).await, [numbers[1]]);
}

pub(crate) async fn a_bell_rings_when_something_new_waits(rig: Rig) {
    let topic = topic("queue:bell");
    let number = partition(&topic);
    let held = rig.hold(&[number]).await;
    let bells = rig.broker.bells();
    let rung = async |priority| {
        let heard = async {
            loop {
                let ring = bells.heard().await.get(&number).copied();
                match (ring, priority) {
                    (Some(Ring::Critical), Priority::Critical) => break,
                    (Some(Ring::Critical), _) => panic!("nothing of it is critical"),
                    (Some(_), Priority::Critical) | (None, _) => {}
                    (Some(_), _) => break,
                }
            }
        };
        let in_time = tokio::time::timeout(PATIENCE, heard).await;
        in_time.expect("the bell rings");
    };
    rig.broker.hear_bell(number, true);
    rig.enqueue_one(queued(&topic, Priority::Low, "1")).await;
    rung(Priority::Low).await;
    let fetched = only(rig.fetch(&held, 0).await);
    rig.publish_all(&held, &fetched).await;
    rig.enqueue_one(queued(&topic, Priority::Low, "2")).await;
    rung(Priority::Low).await;
    for after_ms in [2 * LONG_MS, LONG_MS] {
        let mut later = queued(&topic, Priority::Low, "3");
        later.not_before_ms = Some(fetched.now_ms + after_ms);
        rig.enqueue_one(later).await;
        rung(Priority::Low).await;
    }
    // In the stream of its priority, and as the first of those that come later.
    let critical = queued(&topic, Priority::Critical, "4");
    let mut critical_later = critical.clone();
    critical_later.not_before_ms = Some(fetched.now_ms + LONG_MS / 2);
    for request in [critical_later, critical] {
        rig.enqueue_one(request).await;
        rung(Priority::Critical).await;
    }
    rig.broker.hear_bell(number, false);
}
