//! When what is written of a topic, and what is known of it in between.

use super::*;
use fanfare_protocol::ids::App;

fn topic(name: &str) -> Topic {
    Topic::new(&App::default_app(), name).unwrap()
}

fn owner(text: &str) -> Owner {
    text.parse().unwrap()
}

fn levels(counts: &[(&str, u64)]) -> OccupancyBuffer {
    let mut levels = OccupancyBuffer::new(256, true);
    for (name, n) in counts {
        levels.set(topic(name), *n);
    }
    levels
}

fn kinds(changes: &[Change]) -> Vec<ChangeKind> {
    changes.iter().map(|c| c.kind).collect()
}

fn write_all(levels: &mut OccupancyBuffer) -> Vec<ChangeKind> {
    let changes = levels.take(&Lane::default(), 100);
    let kinds = kinds(&changes);
    for change in changes {
        levels.wrote(change);
    }
    kinds
}

#[test]
fn the_first_session_and_the_last_are_due_at_once_and_counts_once_a_tick() {
    let mut levels = levels(&[("a", 1)]);
    assert_eq!(write_all(&mut levels), [ChangeKind::Appear(1)]);
    levels.set(topic("a"), 2);
    levels.set(topic("a"), 3);
    assert_eq!(write_all(&mut levels), []);
    assert!(!levels.is_settled(), "a count waits");
    levels.tick();
    assert_eq!(write_all(&mut levels), [ChangeKind::Count(3)]);
    levels.set(topic("a"), 0);
    assert_eq!(write_all(&mut levels), [ChangeKind::Vanish]);
    assert!(levels.is_settled());
}

#[test]
fn changes_that_cancel_out_are_not_written() {
    let mut levels = levels(&[("a", 1), ("a", 0), ("b", 2)]);
    assert_eq!(write_all(&mut levels), [ChangeKind::Appear(2)]);
    levels.set(topic("b"), 0);
    levels.set(topic("b"), 2);
    assert!(levels.is_settled());
}

#[test]
fn a_change_during_a_write_follows_it_by_the_latest_level() {
    let mut levels = levels(&[("a", 1)]);
    let taken = levels.take(&Lane::default(), 100);
    assert!(!levels.is_settled(), "a change is on its way");
    levels.set(topic("a"), 0);
    for change in taken {
        levels.wrote(change);
    }
    assert_eq!(write_all(&mut levels), [ChangeKind::Vanish]);
    assert!(levels.is_settled());
}

#[test]
fn what_failed_is_tried_at_the_tick_whole_and_by_the_latest_level() {
    let mut levels = levels(&[("a", 1)]);
    let fail = |levels: &mut OccupancyBuffer| {
        for change in levels.take(&Lane::default(), 100) {
            levels.failed(change.topic, None);
        }
    };
    fail(&mut levels);
    levels.set(topic("a"), 4);
    assert!(!levels.is_due(), "it waits for the tick");
    levels.tick();
    assert_eq!(
        kinds(&levels.take(&Lane::default(), 100)),
        [ChangeKind::Appear(4)]
    );
    levels.failed(topic("a"), None);
    // The failed write may have been done, so its absence is written too.
    levels.set(topic("a"), 0);
    levels.tick();
    assert_eq!(write_all(&mut levels), [ChangeKind::Vanish]);
    assert!(levels.is_settled());
}

#[test]
fn a_failure_is_old_for_a_member_that_comes_after_it() {
    let mut levels = OccupancyBuffer::new(256, true);
    levels.pin(topic("a"));
    let is_new = |levels: &OccupancyBuffer| levels.failure(&topic("a")).map(|f| f.is_new);
    assert_eq!(is_new(&levels), None);
    let fail = |levels: &mut OccupancyBuffer| {
        for change in levels.take(&Lane::default(), 100) {
            levels.failed(change.topic, Some(RedisError::NoUrl));
        }
    };
    fail(&mut levels);
    assert_eq!(is_new(&levels), Some(true));
    levels.pin(topic("a"));
    assert_eq!(is_new(&levels), Some(false));
    levels.tick();
    fail(&mut levels);
    assert_eq!(is_new(&levels), Some(true));
    levels.tick();
    write_all(&mut levels);
    assert_eq!(is_new(&levels), None);
}

#[test]
fn under_a_new_incarnation_everything_is_written_again_and_nothing_is_taken_away() {
    let mut levels = levels(&[("a", 1), ("b", 2)]);
    write_all(&mut levels);
    levels.set(topic("b"), 0);
    levels.start_over(owner("n~2"));
    assert_eq!(write_all(&mut levels), [ChangeKind::Appear(1)]);
    assert!(levels.is_settled());
}

#[test]
fn what_redis_may_have_lost_is_written_again_and_what_should_be_gone_taken_away() {
    let mut levels = levels(&[("a", 1), ("b", 2), ("c", 0)]);
    levels.start_over(owner("n~1"));
    write_all(&mut levels);
    levels.set(topic("b"), 0);
    levels.write_again();
    assert!(!levels.is_indexed(&topic("a"), &owner("n~1")));
    let mut kinds = write_all(&mut levels);
    kinds.sort_unstable_by_key(|kind| *kind == ChangeKind::Vanish);
    assert_eq!(kinds, [ChangeKind::Appear(1), ChangeKind::Vanish]);
    assert!(levels.is_settled() && levels.is_indexed(&topic("a"), &owner("n~1")));
    levels.stop();
    levels.write_again();
    assert!(levels.is_settled(), "nothing is written any more");
}

#[test]
fn an_answer_from_before_redis_lost_what_it_had_stands_for_nothing() {
    let me = owner("n~1");
    let mut levels = levels(&[("a", 1), ("b", 2)]);
    levels.start_over(me.clone());
    write_all(&mut levels);
    levels.set(topic("a"), 0);
    levels.set(topic("b"), 3);
    levels.set(topic("c"), 4);
    levels.tick();
    let taken = levels.take(&Lane::default(), 100);
    assert_eq!(taken.len(), 3);
    // The answers are on their way.
    levels.write_again();
    for change in taken {
        levels.wrote(change);
    }
    assert!(!levels.is_settled() && !levels.is_bare());
    assert!(!levels.is_indexed(&topic("b"), &me));
    assert!(!levels.is_indexed(&topic("c"), &me));
    let mut again = levels.take(&Lane::default(), 100);
    again.sort_by(|one, other| one.topic.name().cmp(other.topic.name()));
    let (appear, vanish) = (ChangeKind::Appear, ChangeKind::Vanish);
    assert_eq!(kinds(&again), [vanish, appear(3), appear(4)]);
    for change in again {
        levels.wrote(change);
    }
    assert!(levels.is_settled() && levels.is_indexed(&topic("b"), &me));
    assert_eq!(write_all(&mut levels), []);
}

#[test]
fn a_topic_stays_in_the_index_until_its_last_member_is_gone() {
    let mut levels = OccupancyBuffer::new(256, true);
    let me = owner("n~1");
    levels.start_over(me.clone());
    levels.pin(topic("a"));
    assert!(!levels.is_indexed(&topic("a"), &me), "it is due");
    levels.set(topic("a"), 1);
    assert_eq!(write_all(&mut levels), [ChangeKind::Appear(1)]);
    assert!(levels.is_indexed(&topic("a"), &me));
    levels.set(topic("a"), 0);
    levels.tick();
    assert_eq!(write_all(&mut levels), [ChangeKind::Count(0)]);
    assert_eq!(levels.after(None).count(), 0, "it is not occupied");
    levels.pin(topic("a"));
    levels.unpin(topic("a"));
    assert!(levels.is_settled() && levels.is_indexed(&topic("a"), &me));
    levels.unpin(topic("a"));
    assert_eq!(write_all(&mut levels), [ChangeKind::Vanish]);
    assert!(!levels.is_indexed(&topic("a"), &me));
    levels.pin(topic("a"));
    assert_eq!(write_all(&mut levels), [ChangeKind::Appear(0)]);
    levels.start_over(owner("n~2"));
    assert!(!levels.is_indexed(&topic("a"), &me), "nor under a new name");
    assert!(!levels.is_indexed(&topic("a"), &owner("n~2")));
}

#[test]
fn what_is_on_its_way_out_of_the_index_is_not_relied_on() {
    let mut levels = levels(&[("a", 1)]);
    levels.start_over(owner("n~1"));
    write_all(&mut levels);
    levels.set(topic("a"), 0);
    let taken = levels.take(&Lane::default(), 100);
    levels.pin(topic("a"));
    assert!(!levels.is_indexed(&topic("a"), &owner("n~1")));
    for change in taken {
        levels.wrote(change);
    }
    assert_eq!(write_all(&mut levels), [ChangeKind::Appear(0)]);
    assert!(levels.is_indexed(&topic("a"), &owner("n~1")));
}

#[test]
fn what_is_not_written_any_more_is_settled_and_still_counted() {
    let mut levels = levels(&[("a", 1)]);
    levels.stop();
    levels.set(topic("a"), 2);
    assert!(levels.is_settled() && !levels.is_due());
    assert_eq!(levels.sessions(&topic("a")), 2);
}

#[test]
fn a_batch_is_bounded_and_the_rest_stays_due() {
    let mut levels = levels(&[("a", 1), ("b", 1), ("c", 1)]);
    assert_eq!(levels.take(&Lane::default(), 2).len(), 2);
    assert!(levels.is_due());
    assert_eq!(levels.take(&Lane::default(), 2).len(), 1);
    assert!(!levels.is_due());
}

#[test]
fn pages_go_by_partition_and_topic_and_continue_after_any_topic() {
    let levels = levels(&[("a", 1), ("b", 2), ("c", 3), ("d", 4)]);
    let all: Vec<_> = levels.after(None).map(|(t, n)| (t.clone(), n)).collect();
    assert_eq!(all.len(), 4);
    assert!(all.is_sorted_by_key(|(t, _)| (t.partition(256), t.clone())));
    let rest: Vec<_> = levels.after(Some(&all[1].0)).collect();
    assert_eq!(rest, [(&all[2].0, all[2].1), (&all[3].0, all[3].1)]);
}
