//! What the checker of the fault harness says of the durable queue: hand-written histories, each with
//! one thing wrong, and clean ones that look like it.

use std::time::Duration;

use fanfare_protocol::ids::Position;

use super::checker::{Verdict, Wrong};
use super::history::{EntryName, Event, History, Taken};
use super::{CONFIRMED, LOSSY, STRICT, checker};

/// Writes histories: one step of its clock for each event.
#[derive(Default)]
struct Pen {
    history: History,
    now: Duration,
}

fn name(writer: u16, number: u32) -> EntryName {
    EntryName {
        writer,
        target: 3,
        lane: 1,
        number,
    }
}

impl Pen {
    fn push(&mut self, event: Event) -> &mut Self {
        self.now += Duration::from_millis(1);
        self.history.push(self.now, event);
        self
    }

    fn begun(&mut self, entry: EntryName) -> &mut Self {
        let is_raw = entry.writer > 8;
        self.push(Event::EntryBegun { entry, is_raw })
    }

    fn ended(&mut self, entry: EntryName, taken: Taken) -> &mut Self {
        self.push(Event::EntryEnded { entry, taken })
    }

    fn accepted(&mut self, entry: EntryName) -> &mut Self {
        self.begun(entry).ended(entry, Taken::Ok(Some(1)))
    }

    /// What both nodes have of the target, in this order.
    fn moved(&mut self, entries: &[EntryName]) -> &mut Self {
        for node in ["a", "b"] {
            self.moved_by(node, entries);
        }
        self
    }

    fn moved_by(&mut self, node: &str, entries: &[EntryName]) -> &mut Self {
        let at = |seq| Position { ms: 5, seq };
        let entries = (1..).map(at).zip(entries.iter().copied()).collect();
        self.push(Event::Moved {
            node: node.to_owned(),
            target: 3,
            entries,
        })
    }

    fn verdict(&self) -> Verdict {
        checker::check(&self.history, STRICT)
    }

    fn wrong(&self, wrong: Wrong) {
        let verdict = self.verdict();
        assert_eq!(verdict.count(wrong), 1, "{:?}", verdict.examples);
        assert_eq!(verdict.wrongs.len(), 1, "{:?}", verdict.examples);
    }
}

/// Two writers, three entries.
fn taken() -> Pen {
    let mut pen = Pen::default();
    pen.accepted(name(1, 1)).accepted(name(2, 1));
    pen.accepted(name(1, 2));
    pen
}

#[test]
fn what_was_taken_and_stands_in_order_is_well() {
    let mut pen = taken();
    pen.moved(&[name(1, 1), name(2, 1), name(1, 2)]);
    let verdict = pen.verdict();
    assert!(verdict.is_clean(), "{:?}", verdict.examples);
    let moves = &verdict.queue;
    assert_eq!((moves.accepted, moves.published), (3, 3));
    assert_eq!(moves.waits_ms, [4, 4, 4]);
}

#[test]
fn one_that_is_not_there_is_lost() {
    let mut pen = taken();
    pen.moved(&[name(1, 1), name(1, 2)]);
    pen.wrong(Wrong::QueueLost);
}

#[test]
fn one_that_redis_lost_is_excused_where_no_replica_had_to_have_it() {
    let mut pen = taken();
    pen.accepted(name(9, 1));
    pen.moved(&[name(1, 1), name(1, 2)]);
    for (allowed, lost, redis_lost) in [(STRICT, 2, 0), (LOSSY, 0, 2), (CONFIRMED, 1, 1)] {
        let verdict = checker::check(&pen.history, allowed);
        assert_eq!(verdict.count(Wrong::QueueLost), lost, "{allowed:?}");
        assert_eq!(verdict.queue.redis_lost, redis_lost, "{allowed:?}");
    }
}

#[test]
fn one_that_stands_twice_is_doubled() {
    let mut pen = taken();
    pen.moved(&[name(1, 1), name(2, 1), name(1, 1), name(1, 2)]);
    pen.wrong(Wrong::QueueDoubled);
}

#[test]
fn numbers_of_a_writer_that_fall_are_reordered() {
    let mut pen = Pen::default();
    // One list: neither was taken before the other was handed over.
    pen.begun(name(1, 1)).begun(name(1, 2));
    pen.ended(name(1, 1), Taken::Ok(None));
    pen.ended(name(1, 2), Taken::Ok(None));
    pen.moved(&[name(1, 2), name(1, 1)]);
    pen.wrong(Wrong::QueueReordered);
}

#[test]
fn what_was_taken_before_another_writer_began_stands_first() {
    let mut pen = taken();
    pen.moved(&[name(2, 1), name(1, 1), name(1, 2)]);
    pen.wrong(Wrong::QueueReordered);
    let mut pen = Pen::default();
    pen.begun(name(1, 1)).accepted(name(2, 1));
    pen.ended(name(1, 1), Taken::Ok(None));
    pen.moved(&[name(2, 1), name(1, 1)]);
    assert!(pen.verdict().is_clean());
}

#[test]
fn what_nobody_knows_may_stand_there_once_or_not() {
    let mut pen = taken();
    pen.begun(name(2, 2)).ended(name(2, 2), Taken::Unknown);
    pen.moved(&[name(2, 2), name(1, 1), name(2, 1), name(1, 2)]);
    let verdict = pen.verdict();
    assert!(verdict.is_clean(), "{:?}", verdict.examples);
    assert_eq!(verdict.queue.unknown, 1);
}

#[test]
fn what_was_refused_or_never_handed_over_is_a_phantom() {
    let mut pen = taken();
    pen.moved(&[name(1, 1), name(2, 1), name(1, 2), name(7, 1)]);
    pen.wrong(Wrong::QueuePhantom);
    let mut pen = taken();
    pen.begun(name(2, 2)).ended(name(2, 2), Taken::Fail);
    pen.moved(&[name(1, 1), name(2, 1), name(1, 2), name(2, 2)]);
    pen.wrong(Wrong::QueuePhantom);
}

#[test]
fn nodes_that_tell_different_histories_are_found() {
    let mut pen = taken();
    pen.moved_by("a", &[name(1, 1), name(2, 1), name(1, 2)]);
    pen.moved_by("b", &[name(1, 1), name(2, 1)]);
    pen.wrong(Wrong::QueueReordered);
}

#[test]
fn names_are_read_as_they_are_written() {
    let name = name(12, 345);
    assert_eq!(name.to_string(), "12.3.1.345");
    assert_eq!("12.3.1.345".parse(), Ok(name));
    assert!("12.3.1".parse::<EntryName>().is_err());
}
