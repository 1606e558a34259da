//! The store of revocations: what is added, merged, read and forgotten.

use std::time::{SystemTime, UNIX_EPOCH};

use fanfare::broker::Broker;
use fanfare::revocation::adding::{Added, Adding, Asked, Mending};
use fanfare::revocation::reader::{PAGE, Page};
use fanfare::revocation::store::Store;
use fanfare::revocation::{ANY_TIME, Mark, PRINTS, print_of};
use fanfare_testkit::wait;

use crate::rig::Rig;

const KEPT_MS: u64 = 1_000_000;

fn store(rig: &Rig) -> Store {
    match &*rig.broker {
        Broker::Redis(redis) => Store::redis(redis.urgent(), redis.keys()),
        Broker::Memory(_) => Store::memory(),
    }
}

fn asked(name: &str, issued_before: Option<u64>) -> Asked {
    Asked {
        name: name.into(),
        issued_before,
        until_ms: None,
    }
}

fn adding(asked: Vec<Asked>) -> Adding {
    Adding {
        asked,
        kept_ms: KEPT_MS,
        clock_s: unix_s(),
        leeway_s: 0,
        above: 0,
        most: 5_000,
    }
}

fn unix_s() -> u64 {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH);
    since_1970.expect("it is later than 1970").as_secs()
}

async fn add(store: &Store, name: &str, issued_before: u64) -> Added {
    let adding = adding(vec![asked(name, Some(issued_before))]);
    store.add(&adding).await.expect("an answer")
}

/// What the store holds after a number; its count and sum are those of its rows.
async fn read(store: &Store, since: u64) -> Page {
    let page = store.read(since).await.expect("an answer");
    if since == 0 && page.rows.len() < PAGE {
        let prints = page.rows.iter().map(|row| print_of(&row.name, row.mark));
        let sum = prints.fold(0, |sum, print| (sum + print) % PRINTS);
        assert_eq!((page.count, page.sum), (page.rows.len() as u64, sum));
    }
    page
}

fn names(page: &Page) -> Vec<&str> {
    page.rows.iter().map(|row| &*row.name).collect()
}

pub(crate) async fn changes_are_read_in_their_order_and_only_once(rig: Rig) {
    let store = store(&rig);
    assert!(read(&store, 0).await.rows.is_empty());
    for name in ["u default ada", "t default a b ü", "a default"] {
        add(&store, name, 100).await;
    }
    let page = read(&store, 0).await;
    assert_eq!(
        names(&page),
        ["u default ada", "t default a b ü", "a default"]
    );
    assert!(page.rows.is_sorted_by(|one, other| one.at < other.at));
    let last = page.rows[2].at;
    assert!(read(&store, last).await.rows.is_empty());
    // What changes again moves to the end, and above what whoever asks has read.
    let again = Adding {
        above: last + 1_000_000,
        ..adding(vec![asked("u default ada", Some(200))])
    };
    store.add(&again).await.expect("an answer");
    let page = read(&store, last).await;
    assert_eq!(names(&page), ["u default ada"]);
    assert!(page.rows[0].at > last + 1_000_000);
    assert_eq!(read(&store, 0).await.count, 3);
    let many = (0..PAGE + 5).map(|number| asked(&format!("t default {number}"), Some(1)));
    store.add(&adding(many.collect())).await.expect("an answer");
    let first = read(&store, page.rows[0].at).await;
    assert_eq!(first.rows.len(), PAGE);
    let rest = read(&store, first.rows[PAGE - 1].at).await;
    assert_eq!(rest.rows.len(), 5);
}

pub(crate) async fn nothing_is_ever_weakened(rig: Rig) {
    let store = store(&rig);
    add(&store, "u default ada", 500).await;
    let before = read(&store, 0).await;
    let weaker = add(&store, "u default ada", 400).await;
    assert_eq!(weaker, Added::Stored(500), "it is told what holds");
    let after = read(&store, 0).await;
    assert_eq!(after.rows[0].mark.issued_before, 500);
    assert!(after.rows[0].mark.until_ms >= before.rows[0].mark.until_ms);
    let shorter = Adding {
        kept_ms: 5,
        ..adding(vec![asked("u default ada", Some(600))])
    };
    store.add(&shorter).await.expect("an answer");
    let last = read(&store, 0).await;
    assert_eq!(last.rows[0].mark.issued_before, 600);
    let until_ms = |page: &Page| page.rows[0].mark.until_ms;
    assert!(
        until_ms(&last) >= until_ms(&after),
        "the longest that anybody said holds"
    );
    let same = Asked::from(&last.rows[0]);
    store.add(&adding(vec![same])).await.expect("an answer");
    let same = read(&store, 0).await;
    assert_eq!(same.rows, last.rows, "what changes nothing is no change");
}

pub(crate) async fn the_next_full_second_is_the_default(rig: Rig) {
    let store = store(&rig);
    let adding_one = adding(vec![asked("u default ada", None)]);
    let Ok(Added::Stored(issued_before)) = store.add(&adding_one).await else {
        panic!("there is room");
    };
    let page = read(&store, 0).await;
    let second = page.now_ms / 1_000 + 1;
    assert!((second - 1..=second).contains(&issued_before));
    let mark = page.rows[0].mark;
    assert_eq!(mark.issued_before, issued_before);
    let kept_to = page.now_ms + KEPT_MS;
    assert!(mark.until_ms <= kept_to + 1_000 && mark.until_ms + 10_000 > kept_to);
    // One that lies ahead is kept for as long from then on, and one of any time from now on.
    add(&store, "a default", issued_before + 5_000).await;
    add(&store, "t default x", ANY_TIME).await;
    let page = read(&store, 0).await;
    let until: Vec<_> = page.rows.iter().map(|row| row.mark.until_ms).collect();
    assert_eq!(until[1], (issued_before + 5_000) * 1_000 + KEPT_MS);
    assert!(until[2] <= page.now_ms + KEPT_MS);
}

pub(crate) async fn all_of_a_call_or_nothing_is_added_where_there_is_no_room(rig: Rig) {
    let store = store(&rig);
    let of = |names: &[&str]| {
        let asked = names.iter().map(|name| asked(name, Some(1)));
        Adding {
            most: 3,
            ..adding(asked.collect())
        }
    };
    let two = of(&["t default a", "t default b"]);
    assert_eq!(store.add(&two).await.expect("an answer"), Added::Stored(1));
    let more = of(&["t default b", "t default c", "t default d"]);
    assert_eq!(store.add(&more).await.expect("an answer"), Added::Full(2));
    assert_eq!(read(&store, 0).await.count, 2);
    let third = of(&["t default c", "t default b"]);
    assert_eq!(
        store.add(&third).await.expect("an answer"),
        Added::Stored(1)
    );
    assert_eq!(
        store.add(&of(&["t default e"])).await.expect("an answer"),
        Added::Full(3)
    );
    // What is there can be made stronger all the same.
    let stronger = Adding {
        most: 3,
        ..adding(vec![asked("t default a", Some(9))])
    };
    assert_eq!(
        store.add(&stronger).await.expect("an answer"),
        Added::Stored(9)
    );
}

pub(crate) async fn what_has_ended_is_forgotten_and_told_by_one_time(rig: Rig) {
    let store = store(&rig);
    let short = Adding {
        kept_ms: 50,
        ..adding(vec![
            asked("t default a", Some(1)),
            asked("t default b", Some(1)),
        ])
    };
    store.add(&short).await.expect("an answer");
    add(&store, "t default c", 1).await;
    let ends = read(&store, 0).await.rows[0].mark.until_ms;
    assert_eq!(read(&store, 0).await.forgot_ms, 0);
    let page = wait::until("the first ones to be forgotten", async || {
        store.add(&adding(Vec::new())).await.expect("an answer");
        let page = read(&store, 0).await;
        (page.count == 1).then_some(page)
    })
    .await;
    assert_eq!((names(&page), page.forgot_ms), (vec!["t default c"], ends));
}

pub(crate) async fn a_token_that_is_taken_now_was_issued_before_the_default_time(rig: Rig) {
    let store = store(&rig);
    let of = |name, clock_s| Adding {
        clock_s,
        leeway_s: 5,
        ..adding(vec![asked(name, None)])
    };
    let now_s = read(&store, 0).await.now_ms / 1_000;
    // The clock of the store, of the node, and one that is behind by more than it may be.
    for (name, clock_s, from) in [
        ("u default ada", now_s - 100, now_s + 6),
        ("u default bob", now_s + 100, now_s + 106),
        ("u default cy", now_s - 1_000, now_s - 700 + 6),
    ] {
        let added = store.add(&of(name, clock_s)).await.expect("an answer");
        let Added::Stored(issued_before) = added else {
            panic!("there is room");
        };
        assert!(
            (from..from + 10).contains(&issued_before),
            "{name}: {issued_before}"
        );
    }
}

pub(crate) async fn what_is_there_is_lengthened_once_where_tokens_live_longer(rig: Rig) {
    let store = store(&rig);
    add(&store, "u default ada", 500).await;
    let before = read(&store, 0).await;
    assert_eq!(before.kept_ms, KEPT_MS);
    let mending = Mending {
        kept_ms: KEPT_MS + 7,
        ..Mending::default()
    };
    // Two nodes do it.
    for _ in 0..2 {
        store.mend(&mending).await.expect("an answer");
    }
    let after = read(&store, before.rows[0].at).await;
    assert_eq!((after.kept_ms, after.count), (KEPT_MS + 7, 1));
    assert_eq!(
        after.rows[0].mark.until_ms,
        before.rows[0].mark.until_ms + 7
    );
    assert_eq!(after.rows[0].mark.issued_before, 500);
    // A node that keeps them for less long decides nothing.
    add(&store, "u default bob", 500).await;
    let page = read(&store, after.rows[0].at).await;
    assert!(page.rows[0].mark.until_ms >= page.now_ms + KEPT_MS + 7 - 10_000);
    assert_eq!(page.kept_ms, KEPT_MS + 7);
    read(&store, 0).await;
}

pub(crate) async fn what_is_written_back_is_as_it_was(rig: Rig) {
    let store = store(&rig);
    add(&store, "u default ada", 500).await;
    let row = read(&store, 0).await.rows.remove(0);
    let stronger = Mark {
        issued_before: row.mark.issued_before + 7,
        until_ms: row.mark.until_ms - 7,
    };
    let back = Asked {
        name: row.name.clone(),
        issued_before: Some(stronger.issued_before),
        until_ms: Some(stronger.until_ms),
    };
    let other = Asked {
        name: "u default bob".into(),
        ..Asked::from(&row)
    };
    store
        .add(&adding(vec![back, other]))
        .await
        .expect("an answer");
    let page = read(&store, 0).await;
    assert_eq!(names(&page), ["u default ada", "u default bob"]);
    assert_eq!(page.rows[0].mark, stronger.and(row.mark));
    assert_eq!(page.rows[1].mark, row.mark);
}
