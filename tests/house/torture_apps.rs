//! What the checker of the fault harness says of what went astray: to somebody else, to another topic,
//! to another app.

use fanfare_protocol::ids::Position;

use super::app::App;
use super::checker::Wrong;
use super::history::{EntryName, Event, Taken, Topic};
use super::{INBOX, Pen, SHARED, STRICT, at, checker, id, three};

/// The topic of the other app that has the name of [`SHARED`].
const TWIN: u32 = 2;

#[test]
fn a_message_for_somebody_else_or_of_another_topic_has_a_wrong_recipient() {
    let mut pen = three();
    pen.accepted(4, INBOX)
        .received(1, INBOX, 4)
        .received(0, INBOX, 4);
    pen.received(1, SHARED, 4);
    pen.retained(&[1, 2, 3]);
    pen.push(Event::Retained {
        node: "a".into(),
        topic: INBOX,
        entries: vec![(at(4), id(4))],
    });
    pen.finds(STRICT, &[(Wrong::Misdirected, 2)]);
}

/// Client 2 is of the other app, and reads the topic of the same name there.
fn with_twin() -> Pen {
    with_twin_that_has(&[(4, 4)])
}

/// The same, with positions and numbers that the topic has at the end.
fn with_twin_that_has(entries: &[(u64, u32)]) -> Pen {
    let entries = entries.iter().map(|(to, number)| (at(*to), id(*number)));
    let mut pen = three();
    pen.history.topics.push(Topic {
        app: App::Other,
        name: "shared".into(),
        clients: vec![2],
    });
    pen.joined(2, TWIN, 0, true, 0);
    pen.retained(&[1, 2, 3]);
    pen.push(Event::Retained {
        node: "a".into(),
        topic: TWIN,
        entries: entries.collect(),
    });
    pen.accepted(4, TWIN).received(2, TWIN, 4);
    pen
}

#[test]
fn what_another_app_published_under_the_same_name_is_a_leak() {
    with_twin().finds(STRICT, &[]);
    let mut pen = with_twin();
    pen.received(2, TWIN, 2);
    pen.finds(STRICT, &[(Wrong::BetweenApps, 1)]);
    let mut pen = with_twin();
    pen.received(0, SHARED, 4);
    pen.finds(STRICT, &[(Wrong::BetweenApps, 1)]);
}

#[test]
fn what_another_app_published_and_a_topic_retains_is_a_leak_there_and_at_its_reader() {
    let mut pen = with_twin_that_has(&[(4, 4), (5, 2)]);
    pen.received_at(2, TWIN, 2, 5);
    pen.finds(STRICT, &[(Wrong::BetweenApps, 2)]);
}

#[test]
fn an_answer_with_the_place_of_the_other_apps_publication_of_that_number_is_a_leak() {
    let mut pen = with_twin();
    pen.accepted(4, SHARED);
    pen.finds(STRICT, &[(Wrong::Lost, 1), (Wrong::BetweenApps, 1)]);
}

#[test]
fn an_entry_that_the_queue_moved_into_the_other_app_is_a_leak() {
    let entry = EntryName {
        writer: 1,
        target: 3,
        lane: 1,
        number: 1,
    };
    let mut pen = Pen::new();
    pen.push(Event::EntryBegun {
        entry,
        is_raw: false,
    });
    pen.push(Event::EntryEnded {
        entry,
        taken: Taken::Ok(Some(1)),
    });
    let entries = vec![(Position { ms: 5, seq: 1 }, entry)];
    let target = App::Other.targets().start + 3;
    for target in [3, target] {
        let (node, entries) = ("a".into(), entries.clone());
        pen.push(Event::Moved {
            node,
            target,
            entries,
        });
    }
    let verdict = checker::check(&pen.history, STRICT);
    assert_eq!(verdict.count(Wrong::BetweenApps), 1);
    assert_eq!(verdict.count(Wrong::QueueDoubled), 0);
}
