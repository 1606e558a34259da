//! The rota by examples ([`urgent`]: what is critical in a backlog), and by a random run in which nothing that rang is forgotten.

use super::*;
use crate::broker::FeedNumber;

mod urgent;

const A: CallOf = CallOf {
    feed: FeedNumber(1),
    alone: None,
};

fn looked(has_come: bool, is_more: bool) -> Seen {
    left(has_come, u64::from(is_more))
}

fn left(has_come: bool, left: u64) -> Seen {
    Seen::Looked {
        has_come,
        left,
        next_due: None,
    }
}

fn held(partitions: std::ops::Range<u32>) -> BTreeMap<u32, u64> {
    partitions.map(|partition| (partition, 7)).collect()
}

/// A rota whose partitions were all looked at just now, and found empty.
fn rested(partitions: std::ops::Range<u32>, now: Instant) -> Rota {
    let mut rota = Rota::default();
    rota.note(&held(partitions), now);
    while let Some(pass) = all(&mut rota, now) {
        end(&mut rota, &pass, looked(false, false), now);
    }
    rota
}

fn all(rota: &mut Rota, now: Instant) -> Option<Pass> {
    rota.take(now, |_| Some(A), |_| true)
}

fn end(rota: &mut Rota, pass: &Pass, seen: Seen, now: Instant) {
    for held in &pass.held {
        rota.ended(*held, seen, now, 0.0);
    }
}

fn partitions(pass: &Pass) -> Vec<u32> {
    pass.held.iter().map(|held| held.partition).collect()
}

#[test]
fn what_was_taken_is_looked_at_at_once_and_then_once_a_second_in_few_calls() {
    let now = Instant::now();
    let mut rota = Rota::default();
    assert_eq!(rota.note(&held(0..40), now).0.len(), 40);
    let counts: Vec<_> = std::iter::from_fn(|| all(&mut rota, now))
        .map(|pass| pass.held.len())
        .collect();
    assert_eq!(counts, [PARTITIONS_PER_CALL, 8]);
    let mut rota = rested(0..40, now);
    assert_eq!(rota.next_at(now), Some(now + POLL));
    assert_eq!(all(&mut rota, now + POLL / 2), None);
    // One that rang is looked at alone, and joins the others again with its next poll.
    rota.ring(3, Ring::Lower, now + POLL / 4);
    let pass = all(&mut rota, now + POLL / 4).unwrap();
    assert_eq!(partitions(&pass), [3]);
    end(&mut rota, &pass, looked(true, false), now + POLL / 4);
    let polls: Vec<_> = std::iter::from_fn(|| all(&mut rota, now + POLL)).collect();
    assert_eq!(polls.len(), 2);
    assert!(polls.iter().any(|pass| partitions(pass).contains(&3)));
}

#[test]
fn a_partition_is_in_one_pass_at_a_time_and_a_ring_meanwhile_is_not_forgotten() {
    let now = Instant::now();
    let mut rota = rested(0..1, now);
    rota.ring(0, Ring::Lower, now);
    let pass = all(&mut rota, now).unwrap();
    rota.ring(0, Ring::Lower, now);
    assert_eq!(all(&mut rota, now), None);
    end(&mut rota, &pass, looked(true, false), now);
    assert!(all(&mut rota, now).is_some(), "it rang meanwhile");
}

#[test]
fn a_pass_has_no_more_partitions_than_fill_a_fetch_and_the_others_follow() {
    let now = Instant::now();
    let mut rota = Rota::default();
    rota.note(&held(0..8), now);
    let pass = all(&mut rota, now).unwrap();
    assert_eq!(pass.held.len(), 8, "nothing is known of them");
    end(&mut rota, &pass, left(true, FETCH_MAX as u64 / 2 - 1), now);
    let passes: Vec<_> = std::iter::from_fn(|| all(&mut rota, now)).collect();
    let sizes: Vec<_> = passes.iter().map(|pass| pass.held.len()).collect();
    assert_eq!(sizes, [3, 3, 2]);
    let all: std::collections::BTreeSet<_> = passes.iter().flat_map(partitions).collect();
    assert_eq!(all.len(), 8);
}

#[test]
fn more_is_looked_at_at_once_and_what_is_due_then() {
    let now = Instant::now();
    let mut rota = rested(0..1, now);
    rota.ring(0, Ring::Lower, now);
    let pass = all(&mut rota, now).unwrap();
    end(&mut rota, &pass, looked(true, true), now);
    let pass = all(&mut rota, now).unwrap();
    let soon = Duration::from_millis(40);
    let later = Seen::Looked {
        has_come: false,
        left: 0,
        next_due: Some(soon),
    };
    end(&mut rota, &pass, later, now);
    assert_eq!(rota.next_at(now), Some(now + soon));
    assert_eq!(all(&mut rota, now), None);
    assert!(all(&mut rota, now + soon).is_some());
}

#[test]
fn where_entries_come_without_a_bell_it_is_looked_often_for_a_minute() {
    let now = Instant::now();
    let mut rota = rested(0..1, now);
    let at = now + POLL;
    let pass = all(&mut rota, at).unwrap();
    end(&mut rota, &pass, looked(true, false), at);
    assert_eq!(rota.next_at(at), Some(at + POLL_OFTEN));
    let pass = all(&mut rota, at + POLL_OFTEN).unwrap();
    end(&mut rota, &pass, looked(false, false), at + POLL_OFTEN);
    assert_eq!(rota.next_at(at), Some(at + POLL_OFTEN * 2));
    let over = at + UNRUNG_FOR;
    let pass = all(&mut rota, over).unwrap();
    end(&mut rota, &pass, looked(false, false), over);
    assert_eq!(rota.next_at(over), Some(over + POLL));
    // What rang came by its bell.
    rota.ring(0, Ring::Lower, over);
    let pass = all(&mut rota, over).unwrap();
    end(&mut rota, &pass, looked(true, false), over);
    assert_eq!(rota.next_at(over), Some(over + POLL));
}

#[test]
fn failures_wait_longer_each_time_and_a_ring_hurries_them_to_a_second() {
    let now = Instant::now();
    let mut rota = rested(0..1, now);
    let mut at = now + POLL;
    let mut waits = Vec::new();
    for _ in 0..10 {
        let pass = all(&mut rota, at).unwrap();
        end(&mut rota, &pass, Seen::Failed, at);
        let next = rota.next_at(at).unwrap();
        waits.push((next - at).as_millis());
        at = next;
    }
    assert_eq!(
        waits,
        [50, 100, 200, 400, 800, 1_600, 3_200, 5_000, 5_000, 5_000]
    );
    let pass = all(&mut rota, at).unwrap();
    end(&mut rota, &pass, Seen::Failed, at);
    rota.ring(0, Ring::Lower, at);
    assert_eq!(rota.next_at(at), Some(at + POLL), "it may be well again");
    let pass = all(&mut rota, at + POLL).unwrap();
    end(&mut rota, &pass, looked(false, false), at + POLL);
    rota.ring(0, Ring::Lower, at + POLL);
    assert!(all(&mut rota, at + POLL).is_some());
}

#[test]
fn masters_without_room_hold_up_no_other_and_what_has_none_waits_for_a_poll() {
    let now = Instant::now();
    let mut rota = Rota::default();
    rota.note(&held(0..3), now);
    let call_of = |partition| match partition {
        0 => None,
        n => Some(CallOf {
            feed: FeedNumber(n),
            alone: Some(n),
        }),
    };
    let pass = rota.take(now, call_of, |call| call.feed != FeedNumber(1));
    assert_eq!(partitions(&pass.unwrap()), [2]);
    assert_eq!(rota.take(now, call_of, |_| false), None);
    let pass = rota.take(now, call_of, |_| true);
    assert_eq!(partitions(&pass.unwrap()), [1]);
    assert_eq!(rota.next_at(now), Some(now + POLL));
}

#[test]
fn what_is_due_and_finds_no_room_waits_for_a_pass_to_end_and_not_for_a_time() {
    // A consumer that waited for it until a time that is over would never rest.
    let now = Instant::now();
    let mut rota = rested(0..2, now);
    rota.ring(0, Ring::Lower, now);
    assert_eq!(rota.take(now, |_| Some(A), |_| false), None);
    assert_eq!(rota.next_at(now), Some(now + POLL), "when the other is due");
    assert_eq!(partitions(&all(&mut rota, now).unwrap()), [0]);
}

#[test]
fn where_nothing_was_all_of_a_usual_cluster_is_glanced_at_in_one_call() {
    let now = Instant::now();
    let mut rota = rested(0..300, now);
    (0..300).for_each(|partition| rota.found(partition, &Depths::default()));
    let polls: Vec<_> = std::iter::from_fn(|| all(&mut rota, now + POLL)).collect();
    let counts = polls.iter().map(|pass| (pass.held.len(), pass.is_glance));
    assert_eq!(counts.collect::<Vec<_>>(), [(GLANCE_MAX, true), (44, true)]);
}

#[test]
fn a_glance_has_only_those_that_had_nothing_and_for_which_nobody_rang() {
    let now = Instant::now();
    let mut rota = rested(0..4, now);
    (0..3).for_each(|partition| rota.found(partition, &Depths::default()));
    rota.ring(2, Ring::Lower, now);
    let pass = all(&mut rota, now).unwrap();
    assert_eq!((partitions(&pass), pass.is_glance), (vec![2], false));
    let polls: Vec<_> = std::iter::from_fn(|| all(&mut rota, now + POLL)).collect();
    let seen = polls.iter().map(|pass| (partitions(pass), pass.is_glance));
    assert_eq!(
        seen.collect::<Vec<_>>(),
        [(vec![0, 1], true), (vec![3], false)]
    );
}

#[test]
fn what_a_glance_finds_is_fetched_by_a_pass_of_its_own_and_the_others_are_free() {
    let now = Instant::now();
    let mut rota = rested(0..256, now);
    (0..256).for_each(|partition| rota.found(partition, &Depths::default()));
    let now = now + POLL;
    let glance = all(&mut rota, now).unwrap();
    assert_eq!((glance.held.len(), glance.is_glance), (256, true));
    rota.ring(200, Ring::Critical, now);
    for held in &glance.held {
        let seen = match held.partition {
            7 => Seen::Something,
            9 => Seen::Unsaid,
            _ => looked(false, false),
        };
        rota.ended(*held, seen, now, 0.0);
    }
    // What rang comes with the next call, not after what was found; all of it at once.
    let pass = all(&mut rota, now).unwrap();
    assert_eq!(
        (partitions(&pass), pass.is_glance),
        (vec![200, 7, 9], false)
    );
    end(&mut rota, &pass, looked(true, false), now);
    assert_eq!(all(&mut rota, now), None);
    // Entries that came without a bell are looked for more often, and not what nobody spoke of.
    let pass = all(&mut rota, now + POLL_OFTEN).unwrap();
    assert_eq!(partitions(&pass), [7]);
}

#[test]
fn each_partition_is_the_first_of_a_pass_in_its_turn() {
    // Those of one pass stay together: a place by the number of the pass would come back to the same.
    let mut now = Instant::now();
    let mut rota = Rota::default();
    rota.note(&held(0..256), now);
    let mut led = BTreeMap::<u32, usize>::new();
    for _ in 0..256 {
        let pass = all(&mut rota, now).unwrap();
        let at = usize::try_from(pass.from).unwrap();
        *led.entry(pass.held[at].partition).or_default() += 1;
        now += Duration::from_millis(4);
        end(&mut rota, &pass, looked(true, true), now);
    }
    assert_eq!(led.len(), 256);
    assert!(led.values().all(|count| *count == 1), "{led:?}");
}

#[test]
fn a_poll_and_what_is_due_later_wait_in_line_with_the_work_of_others() {
    let mut now = Instant::now();
    let mut rota = rested(0..300, now);
    rota.found(0, &Depths::default());
    (1..300).for_each(|partition| rota.ring(partition, Ring::Lower, now));
    let mut seen = None;
    for number in 0..2_000_u32 {
        let Some(pass) = all(&mut rota, now) else {
            panic!("there is always work");
        };
        if partitions(&pass).contains(&0) {
            seen = Some(number);
            break;
        }
        now += Duration::from_millis(4);
        end(&mut rota, &pass, looked(true, true), now);
    }
    let round = 300 / u32::try_from(PARTITIONS_PER_CALL).unwrap() + 1;
    let polled = u32::try_from(POLL.as_millis()).unwrap() / 4;
    assert!(seen.is_some_and(|seen| seen <= polled + round), "{seen:?}");
}

#[test]
fn what_failed_goes_alone() {
    let now = Instant::now();
    let mut rota = rested(0..3, now);
    (0..3).for_each(|partition| rota.ring(partition, Ring::Lower, now));
    let pass = all(&mut rota, now).unwrap();
    assert_eq!(pass.held.len(), 3);
    for held in &pass.held {
        let seen = match held.partition {
            1 => Seen::Failed,
            _ => looked(true, true),
        };
        rota.ended(*held, seen, now, 0.0);
    }
    let passes: Vec<_> = std::iter::from_fn(|| all(&mut rota, now + RETRY_MIN)).collect();
    let passes: Vec<_> = passes.iter().map(partitions).collect();
    assert_eq!(passes, [vec![0, 2], vec![1]]);
}

#[test]
fn what_has_nothing_is_fetched_whole_once_a_minute() {
    let mut now = Instant::now();
    let mut rota = rested(0..1, now);
    rota.found(0, &Depths::default());
    let mut whole = 0;
    for _ in 0..180 {
        now += POLL;
        let pass = all(&mut rota, now).unwrap();
        whole += usize::from(!pass.is_glance);
        end(&mut rota, &pass, looked(false, false), now);
        rota.found(0, &Depths::default());
    }
    assert_eq!(whole, 3);
}

#[test]
fn what_another_holds_is_left_alone_until_it_is_taken_anew() {
    let now = Instant::now();
    let mut rota = rested(0..1, now);
    rota.ring(0, Ring::Lower, now);
    let pass = all(&mut rota, now).unwrap();
    assert_eq!(rota.note(&BTreeMap::new(), now).1, [0]);
    end(&mut rota, &pass, looked(true, true), now);
    assert_eq!(rota.next_at(now), None);
    assert_eq!(rota.note(&BTreeMap::from([(0, 9)]), now).0, [0]);
    let pass = all(&mut rota, now).unwrap();
    assert_eq!(pass.held[0].token, 9);
    end(&mut rota, &pass, Seen::Refused, now);
    assert_eq!(rota.next_at(now), Some(now + POLL));
    // A new token without a loss in between: at once.
    rota.note(&BTreeMap::from([(0, 11)]), now);
    assert_eq!(all(&mut rota, now).unwrap().held[0].token, 11);
}

#[test]
fn nothing_that_rang_waits_longer_than_a_pass_however_passes_end() {
    use rand::rngs::StdRng;
    use rand::{RngExt as _, SeedableRng as _};
    for seed in 0..500 {
        let mut random = StdRng::seed_from_u64(seed);
        let mut now = Instant::now();
        let mut rota = rested(0..6, now);
        let mut running: Vec<Pass> = Vec::new();
        let mut rung = std::collections::BTreeSet::new();
        for _ in 0..200 {
            now += Duration::from_millis(random.random_range(0..40));
            match random.random_range(0..3) {
                0 => {
                    let partition = random.random_range(0..6);
                    rota.ring(partition, Ring::Lower, now);
                    rung.insert(partition);
                }
                1 => {
                    while let Some(pass) = all(&mut rota, now) {
                        for held in &pass.held {
                            let is_busy = |other: &Pass| other.held.contains(held);
                            assert!(!running.iter().any(is_busy), "{seed}: twice");
                            rung.remove(&held.partition);
                        }
                        running.push(pass);
                    }
                }
                _ if !running.is_empty() => {
                    let at = random.random_range(0..running.len());
                    let pass = running.swap_remove(at);
                    let (come, more) = (random.random(), random.random());
                    end(&mut rota, &pass, looked(come, more), now);
                }
                _ => {}
            }
        }
        for pass in std::mem::take(&mut running) {
            end(&mut rota, &pass, looked(false, false), now);
        }
        while let Some(pass) = all(&mut rota, now) {
            for held in &pass.held {
                rung.remove(&held.partition);
            }
        }
        assert!(rung.is_empty(), "{seed}: {rung:?} are forgotten");
    }
}
