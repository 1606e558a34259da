//! Dead letters of the queue: what cannot be moved is kept, read in pages, and dropped.

use fanfare::broker::queue::{DEAD_MAX, DeadLetter, Depths, End, MOVE_MAX, Why};
use fanfare_protocol::ids::{Position, Priority};

use crate::queue_rig::{bury, depths_of, message_of, only, partition, publish, queued_count};
use crate::rig::{HISTORY, Rig, positions, topic};
use fanfare_testkit::wait;

async fn letters(rig: &Rig, of: u32, after: Option<Position>, limit: usize) -> Vec<DeadLetter> {
    let letters = rig.broker.dead_letters(of, after, limit).await;
    letters.expect("the broker is up")
}

pub(crate) async fn each_entry_of_a_batch_has_its_own_end(rig: Rig) {
    let topic = topic("queue:mixed");
    let number = partition(&topic);
    let held = rig.hold(&[number]).await;
    rig.enqueue(queued_count(&topic, Priority::High, 3)).await;
    let fetched = only(rig.fetch(&held, 0).await);
    let entries = vec![
        publish(&fetched.entries[0]),
        bury(&fetched.entries[1], Why::Expired, "too late by 3 s"),
        publish(&fetched.entries[2]),
    ];
    let moved = rig.move_all(fetched.place, &held, entries).await.remove(0);
    let [End::Published(first), End::Buried, End::Published(last)] = moved.ends[..] else {
        panic!("expected two publications around a dead letter, got {moved:?}");
    };
    assert_eq!(moved.dead_dropped, 0);
    let one_dead = Depths {
        dead: 1,
        ..Depths::default()
    };
    assert_eq!(depths_of(&moved.partitions[0]), one_dead);
    assert_eq!(rig.depths(number).await, one_dead);
    assert_eq!(
        positions(&rig.retained(&topic, HISTORY).await),
        [first, last]
    );

    let [letter] = &letters(&rig, number, None, 10).await[..] else {
        panic!("expected one dead letter");
    };
    let buried = &fetched.entries[1];
    assert_eq!(
        (letter.partition, letter.priority),
        (number, Priority::High)
    );
    assert_eq!(letter.entry, buried.id.to_string());
    assert_eq!(
        (letter.why, &*letter.error),
        (Why::Expired, "too late by 3 s")
    );
    let kept = fanfare::broker::queue::entry::decode(&letter.kept);
    assert_eq!(kept.expect("what was enqueued"), message_of(buried));
}

pub(crate) async fn a_letter_has_the_name_that_its_entry_was_given(rig: Rig) {
    let topic = topic("queue:named");
    let held = rig.hold(&[partition(&topic)]).await;
    let mut requests = queued_count(&topic, Priority::Normal, 1);
    requests[0].not_before_ms = Some(only(rig.fetch(&held, 0).await).now_ms + 100);
    let enqueued = rig.enqueue(requests).await.remove(0);
    let fetched = wait::until("it to be due", async || {
        let fetched = only(rig.fetch(&held, 0).await);
        (!fetched.entries.is_empty()).then_some(fetched)
    })
    .await;
    let entries = vec![bury(&fetched.entries[0], Why::Expired, "late")];
    rig.move_all(fetched.place, &held, entries).await;
    let letter = letters(&rig, held[0].partition, None, 1).await.remove(0);
    assert_eq!(letter.entry, enqueued.entry);
}

pub(crate) async fn dead_letters_are_read_in_pages_and_dropped_by_their_ids(rig: Rig) {
    let topic = topic("queue:dead");
    let number = partition(&topic);
    let held = rig.hold(&[number]).await;
    rig.enqueue(queued_count(&topic, Priority::Low, 7)).await;
    let fetched = only(rig.fetch(&held, 0).await);
    let entries = fetched.entries.iter().zip(Why::ALL);
    let entries = entries.map(|(entry, why)| bury(entry, why, why.as_str()));
    let moved = rig.move_all(fetched.place, &held, entries.collect()).await;
    assert_eq!(moved[0].ends, [End::Buried; 7]);

    let all = letters(&rig, number, None, 100).await;
    let whys: Vec<_> = all.iter().map(|letter| letter.why).collect();
    assert_eq!(whys, Why::ALL);
    assert!(all.is_sorted_by(|one, next| one.id < next.id));
    let (mut read, mut after) = (Vec::new(), None);
    loop {
        let page = letters(&rig, number, after, 4).await;
        assert!(page.len() <= 4);
        let Some(last) = page.last() else {
            break;
        };
        after = Some(last.id);
        read.extend(page);
    }
    assert_eq!(read, all);

    let some = [all[4].id, all[0].id, Position::UNWRITTEN];
    assert_eq!(rig.broker.drop_dead(number, &some).await, Ok(2));
    assert_eq!(rig.broker.drop_dead(number, &some).await, Ok(0));
    let left = letters(&rig, number, None, 100).await;
    assert_eq!(left, [1, 2, 3, 5, 6].map(|n| all[n].clone()));
    assert_eq!(rig.depths(number).await.dead, 5);
    // One that was dropped is a place to go on from, as any other is.
    assert_eq!(letters(&rig, number, Some(all[4].id), 9).await, left[3..]);
    assert!(rig.retained(&topic, HISTORY).await.is_empty());
}

pub(crate) async fn the_oldest_dead_letters_make_room_and_are_counted(rig: Rig) {
    const TOO_MANY: usize = 7;
    let topic = topic("queue:full-of-dead");
    let number = partition(&topic);
    let held = rig.hold(&[number]).await;
    let count = u32::try_from(DEAD_MAX + TOO_MANY).expect("a small number");
    let enqueued = rig
        .enqueue(queued_count(&topic, Priority::Normal, count))
        .await;
    let (mut dropped, mut buried_count) = (0, 0);
    while buried_count < enqueued.len() {
        let fetched = only(rig.fetch(&held, 0).await);
        let each = |entry| bury(entry, Why::BadEntry, "no");
        let entries: Vec<_> = fetched.entries.iter().map(each).collect();
        assert!((1..=MOVE_MAX).contains(&entries.len()));
        let moved = rig.move_all(fetched.place, &held, entries).await.remove(0);
        assert!(moved.ends.iter().all(|end| *end == End::Buried));
        buried_count += moved.ends.len();
        dropped += moved.dead_dropped;
    }
    assert_eq!(dropped, TOO_MANY as u64);
    assert_eq!(rig.depths(number).await.dead, DEAD_MAX as u64);
    let left = letters(&rig, number, None, 2 * DEAD_MAX).await;
    let left = left.iter().map(|letter| &letter.entry);
    let newest = enqueued[TOO_MANY..].iter().map(|enqueued| &enqueued.entry);
    assert!(left.eq(newest));
}
