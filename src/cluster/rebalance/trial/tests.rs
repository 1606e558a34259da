//! The trial by values: what a batch may be, what is seen of it, and what follows.

use super::*;

const S: Duration = Duration::from_secs(1);
const PACE: u64 = 20;

fn around(sessions: u64, told: u64, batch: Batch, nodes_count: u64) -> Around {
    let here = Here {
        sessions,
        told,
        batch,
    };
    Around {
        here,
        all: 10_000,
        nodes_count,
    }
}

/// A batch of known users of whom so many returned.
fn known(told: u64, returned: u64) -> Batch {
    Batch {
        told,
        known: told,
        returned,
    }
}

fn unknown(told: u64) -> Batch {
    Batch {
        told,
        ..Batch::default()
    }
}

fn nothing() -> Allowed {
    Allowed::default()
}

/// Lets a trial tell a whole batch from `now` on, and look at what becomes of it. Returns how many were
/// told, what was found, and when.
fn one_batch(
    trial: &mut Trial,
    after: impl Fn(u64) -> Around,
    now: Instant,
) -> (u64, Option<Futile>, Instant) {
    let before = around(1_000, 0, Batch::default(), 2);
    let (mut told, mut second) = (0, 0);
    loop {
        let allowed = trial.allow(PACE, &before, now + second * S);
        if allowed.tell == 0 {
            break;
        }
        assert_eq!(allowed.begins, told == 0);
        told += allowed.tell;
        second += 1;
    }
    let seen = after(told);
    for look in 0..15 {
        let allowed = trial.allow(PACE, &seen, now + (second + look) * S);
        assert_eq!(allowed, nothing(), "{look}");
    }
    let end = now + (second + 15) * S;
    let allowed = trial.allow(PACE, &seen, end);
    assert_eq!(allowed.tell, 0);
    (told, allowed.futile, end + S)
}

#[test]
fn nobody_more_than_the_batch_is_told_before_it_is_judged() {
    let now = Instant::now();
    let mut trial = Trial::new(PACE);
    let going = around(1_000, 50, unknown(50), 2);
    let told: u64 = (0..60)
        .map(|second| trial.allow(PACE, &going, now + second * S).tell)
        .sum();
    assert_eq!(told, SESSIONS, "as long as one of them is on the way out");
    let gone = around(950, 0, known(50, 0), 2);
    for second in 60..75 {
        assert_eq!(trial.allow(PACE, &gone, now + second * S), nothing());
    }
    assert_eq!(trial.allow(PACE, &gone, now + 75 * S), nothing());
    let next = trial.allow(PACE, &gone, now + 76 * S);
    assert_eq!((next.tell, next.begins), (PACE, true));
}

#[test]
fn batches_that_help_grow_to_twenty_seconds_and_one_that_does_not_is_tried_once_more() {
    let mut now = Instant::now();
    let mut trial = Trial::new(PACE);
    for size in [50, 100, 200, 400, 400] {
        let (told, futile, end) =
            one_batch(&mut trial, |told| around(900, 0, known(told, 0), 2), now);
        assert_eq!((told, futile), (size, None));
        now = end;
    }
    for (size, is_found) in [(400, false), (50, true)] {
        let all_back = |told| around(900, 0, known(told, told), 2);
        let (told, futile, end) = one_batch(&mut trial, all_back, now);
        assert_eq!((told, futile.is_some()), (size, is_found));
        now = end;
    }
}

#[test]
fn users_who_came_back_are_what_counts_whatever_became_of_all_sessions() {
    // Three fifths of the way from one of so many nodes to all: 40 of 50 with two, 32 with ten.
    for (nodes_count, too_many) in [(2, 40), (10, 32)] {
        for (returned, is_futile) in [(too_many, true), (too_many - 1, false)] {
            for sessions in [500, 1_000, 1_500] {
                let mut trial = Trial::new(PACE);
                let after = |told| around(sessions, 0, known(told, returned), nodes_count);
                let (_, futile, _) = one_batch(&mut trial, after, Instant::now());
                let expected = Futile {
                    batch: known(50, returned),
                    fell: None,
                };
                assert_eq!(futile, is_futile.then_some(expected), "{returned}");
            }
        }
    }
}

#[test]
fn where_nobody_is_known_the_part_of_all_sessions_must_fall_by_half_of_a_nodes_part() {
    // 50 ÷ (2 × nodes): 12.5 with two, 2.5 with ten.
    for (nodes_count, enough) in [(2, 13), (10, 3)] {
        for (fell, is_futile) in [(enough, false), (enough - 1, true)] {
            // All nodes together have twice as many meanwhile, or half.
            for (all, here) in [(10_000, 1_000), (20_000, 2_000), (5_000, 500)] {
                let mut trial = Trial::new(PACE);
                let after = |told| Around {
                    all,
                    ..around(here - fell, 0, unknown(told), nodes_count)
                };
                let (_, futile, _) = one_batch(&mut trial, after, Instant::now());
                let fell = i64::try_from(fell).ok();
                let batch = unknown(50);
                let expected = Futile { batch, fell };
                assert_eq!(futile, is_futile.then_some(expected), "{all} {fell:?}");
            }
        }
    }
}

#[test]
fn a_pause_lasts_ten_minutes_whatever_nodes_do_and_then_there_is_one_more_trial() {
    let mut trial = Trial::new(PACE);
    let back = |told| around(1_000, 0, known(told, told), 2);
    let (_, futile, next) = one_batch(&mut trial, back, Instant::now());
    assert!(futile.is_some());
    let found = next.checked_sub(S).expect("a moment ago");
    for second in [1, 60, 599] {
        trial.nodes_changed();
        let allowed = trial.allow(PACE, &back(50), found + second * S);
        assert_eq!(allowed, nothing(), "{second}");
    }
    let told: u64 = (600..700)
        .map(|second| trial.allow(PACE, &around(1_000, 50, unknown(50), 2), found + second * S))
        .map(|allowed| allowed.tell)
        .sum();
    assert_eq!(told, SESSIONS);
}

#[test]
fn trust_ends_when_nodes_change_and_after_a_minute_in_which_nobody_was_to_go() {
    for is_change in [true, false] {
        let mut trial = Trial::new(PACE);
        let gone = |told| around(900, 0, known(told, 0), 2);
        let (_, _, now) = one_batch(&mut trial, gone, Instant::now());
        let later = if is_change {
            trial.nodes_changed();
            now
        } else {
            trial.allow(0, &gone(0), now + 60 * S);
            now + 61 * S
        };
        let (told, ..) = one_batch(&mut trial, gone, later);
        assert_eq!(told, SESSIONS, "{is_change}");
    }
}

#[test]
fn nodes_that_change_every_minute_give_nobody_a_trial_more() {
    let now = Instant::now();
    let mut trial = Trial::new(PACE);
    let back = |told| around(1_000, 0, known(told, told), 2);
    let mut told = 0;
    let mut found = 0;
    for minute in 0..10 {
        // Of each 70 s these are left when nodes have been the same for a minute.
        for second in 60..70 {
            let seen = back(told.min(50));
            let allowed = trial.allow(PACE, &seen, now + (70 * minute + second) * S);
            told += allowed.tell;
            found += u32::from(allowed.futile.is_some());
        }
        trial.nodes_changed();
    }
    assert_eq!((told, found), (SESSIONS, 1));
}

#[test]
fn a_few_again_and_again_are_one_batch() {
    let now = Instant::now();
    let mut trial = Trial::new(PACE);
    let told: u64 = (0..200)
        .map(|second| {
            // Twelve are too many, go and come back within ten seconds.
            let wanted = if second % 10 == 0 { 12 } else { 0 };
            let seen = around(72, 0, known(50, 50), 2);
            trial.allow(wanted, &seen, now + second * S).tell
        })
        .sum();
    assert_eq!(told, SESSIONS);
}

#[test]
fn batches_of_whom_nobody_is_known_stay_small() {
    let mut now = Instant::now();
    let mut trial = Trial::new(PACE);
    for _ in 0..3 {
        let (told, futile, end) =
            one_batch(&mut trial, |told| around(900, 0, unknown(told), 2), now);
        assert_eq!((told, futile), (SESSIONS, None));
        now = end;
    }
}
