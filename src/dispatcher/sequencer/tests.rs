//! The link's table, row by row: what arrives, what is answered, and what is done.
//!
//! Positions are numbers here: `p(3)` follows `p(2)` by a millisecond. [`super::simulation`] lets
//! everything happen at once.

use std::sync::Arc;

use bytes::Bytes;

use super::*;
use crate::broker::Body;
use crate::broker::publication::Publication;
use fanfare_protocol::data::Data;

const KEEP: Retention = Retention {
    entries_max: 100,
    age_ms: 1_000_000,
};
const KEEP_NOTHING: Retention = Retention {
    entries_max: 0,
    age_ms: 0,
};
const HOUR_MS: u64 = 3_600_000;

fn p(number: u64) -> Position {
    Position { ms: number, seq: 0 }
}

fn entry_of(number: u64, prev: u64, bytes_count: usize) -> Entry {
    let publication = Publication::new(Data::Json(Bytes::from(vec![b'1'; bytes_count])), number);
    Entry {
        position: p(number),
        prev: p(prev),
        body: Body::Publication(Arc::new(publication)),
    }
}

fn e(number: u64, prev: u64) -> Entry {
    entry_of(number, prev, 1)
}

fn page(gap: Option<GapReason>, start: u64, last: u64, entries: &[Entry]) -> SincePage {
    SincePage {
        gap,
        start: p(start),
        last: p(last),
        entries: entries.to_vec(),
    }
}

/// What a step does, in numbers.
#[derive(Debug, PartialEq)]
enum Does {
    Deliver(u64, u64),
    Gap(u64, u64, GapReason),
    Ask(u64),
    AskLater(u64),
    AskNewest,
    Duplicate,
    Overflow,
}

use Does::{Ask, AskLater, AskNewest, Deliver, Duplicate, Gap, Overflow};
use GapReason::{Failover, Lost, Retention as Trimmed};

/// A link and the question that it asked last.
struct Rig {
    link: Sequencer,
    asked: Question,
}

impl Rig {
    fn new(last: u64, retention: Retention) -> Self {
        Self {
            link: Sequencer::new(p(last), retention),
            asked: Question::Newest,
        }
    }

    fn does(&mut self, act: impl FnOnce(&mut Sequencer, &mut Vec<Step>)) -> Vec<Does> {
        let mut steps = Vec::new();
        act(&mut self.link, &mut steps);
        steps.into_iter().map(|s| self.of(s)).collect()
    }

    fn of(&mut self, step: Step) -> Does {
        if let Step::Ask(question) | Step::AskLater(question) = step {
            self.asked = question;
        }
        match step {
            Step::Deliver(entry) => Deliver(entry.position.ms, entry.prev.ms),
            Step::Gap { from, to, reason } => Gap(from.ms, to.ms, reason),
            Step::Ask(Question::Since(since)) => Ask(since.ms),
            Step::AskLater(Question::Since(since)) => AskLater(since.ms),
            Step::Ask(Question::Newest) | Step::AskLater(Question::Newest) => AskNewest,
            Step::Duplicate => Duplicate,
            Step::Overflow => Overflow,
        }
    }

    fn arrives(&mut self, entry: Entry) -> Vec<Does> {
        self.does(|link, steps| link.arrived(entry, steps))
    }

    fn check(&mut self) -> Vec<Does> {
        self.does(Sequencer::check)
    }

    fn answer(&mut self, page: SincePage) -> Vec<Does> {
        let Question::Since(since) = self.asked else {
            panic!("the newest entries were asked for");
        };
        self.does(|link, steps| link.answered(since, page, steps))
    }

    fn newest(&mut self, entries: &[Entry]) -> Vec<Does> {
        assert_eq!(self.asked, Question::Newest);
        let entries = entries.to_vec();
        self.does(|link, steps| link.newest(entries, steps))
    }

    fn no_answer(&mut self) -> Vec<Does> {
        let asked = self.asked;
        self.does(|link, steps| link.unanswered(asked, steps))
    }
}

#[test]
fn an_entry_that_follows_the_last_is_delivered() {
    let mut rig = Rig::new(1, KEEP);
    assert_eq!(rig.arrives(e(2, 1)), [Deliver(2, 1)]);
    assert_eq!(rig.arrives(e(3, 2)), [Deliver(3, 2)]);
    assert_eq!(rig.link.last(), p(3));
}

#[test]
fn an_entry_that_came_before_is_a_duplicate_and_asks_nothing() {
    let mut rig = Rig::new(1, KEEP);
    rig.arrives(e(2, 1));
    rig.arrives(e(3, 2));
    for known in [e(1, 0), e(2, 1), e(3, 2)] {
        assert_eq!(rig.arrives(known), [Duplicate]);
    }
}

#[test]
fn a_hole_is_filled_from_several_pages_and_what_was_held_follows() {
    let mut rig = Rig::new(1, KEEP);
    assert_eq!(rig.arrives(e(5, 4)), [Ask(1)]);
    let first = page(None, 1, 5, &[e(2, 1), e(3, 2)]);
    assert_eq!(rig.answer(first), [Deliver(2, 1), Deliver(3, 2), Ask(3)]);
    assert_eq!(rig.arrives(e(6, 5)), []);
    let second = page(None, 3, 5, &[e(4, 3), e(5, 4)]);
    let done = rig.answer(second);
    // The answer is older than the sixth: that one comes from what was held.
    assert_eq!(
        done,
        [Deliver(4, 3), Deliver(5, 4), Duplicate, Deliver(6, 5)]
    );
    assert!(rig.link.is_live());
}

#[test]
fn an_entry_that_a_page_brought_comes_once_more_on_the_feed_and_is_dropped() {
    let mut rig = Rig::new(1, KEEP);
    assert_eq!(rig.check(), [Ask(1)]);
    rig.answer(page(None, 1, 3, &[e(2, 1), e(3, 2)]));
    assert_eq!(rig.arrives(e(2, 1)), [Duplicate]);
    assert_eq!(rig.arrives(e(3, 2)), [Duplicate]);
    assert_eq!(rig.arrives(e(4, 3)), [Deliver(4, 3)]);
}

#[test]
fn a_check_that_finds_nothing_missing_tells_nothing() {
    for retention in [KEEP, KEEP_NOTHING] {
        let mut rig = Rig::new(4, retention);
        assert_eq!(rig.check(), [Ask(4)]);
        assert_eq!(rig.answer(page(None, 4, 4, &[])), []);
        assert!(rig.link.is_live());
    }
}

#[test]
fn a_doubt_while_a_question_is_open_is_asked_again() {
    let mut rig = Rig::new(4, KEEP);
    rig.check();
    assert_eq!(rig.check(), []);
    assert_eq!(rig.answer(page(None, 4, 4, &[])), [Ask(4)]);
    assert_eq!(rig.answer(page(None, 4, 4, &[])), []);
}

#[test]
fn what_retention_took_is_told_and_what_is_left_is_delivered() {
    let mut rig = Rig::new(1, KEEP);
    rig.arrives(e(9, 8));
    let rest = page(Some(Trimmed), 6, 9, &[e(7, 6), e(8, 7), e(9, 8)]);
    assert_eq!(
        rig.answer(rest),
        [
            Gap(1, 6, Trimmed),
            Deliver(7, 6),
            Deliver(8, 7),
            Deliver(9, 8),
            Duplicate
        ]
    );
    // Nothing is left at all.
    rig.check();
    let nothing = page(Some(Trimmed), 12, 12, &[]);
    assert_eq!(rig.answer(nothing), [Gap(9, 12, Trimmed)]);
    assert_eq!(rig.arrives(e(13, 12)), [Deliver(13, 12)]);
}

#[test]
fn a_topic_that_was_idle_for_so_long_that_the_broker_forgot_it_tells_no_gap() {
    let mut rig = Rig::new(1, KEEP);
    rig.check();
    assert_eq!(rig.answer(page(Some(Trimmed), 0, 0, &[])), []);
    let next = 3 * HOUR_MS;
    rig.arrives(e(next, 0));
    let page = page(Some(Trimmed), 0, next, &[e(next, 0)]);
    // The workers go on from what they have.
    assert_eq!(rig.answer(page), [Deliver(next, 1), Duplicate]);

    let mut rig = Rig::new(1, KEEP_NOTHING);
    assert_eq!(rig.check(), [Ask(1)]);
    let forgotten = super::tests::page(Some(Trimmed), 0, 0, &[]);
    assert_eq!(rig.answer(forgotten), []);
    rig.arrives(e(next, 0));
    let page = super::tests::page(Some(Trimmed), next, next, &[]);
    assert_eq!(rig.answer(page), [Deliver(next, 1)]);
}

#[test]
fn a_failover_goes_back_to_the_newest_delivered_id_that_survived() {
    let mut rig = Rig::new(1, KEEP);
    for number in 2..=6 {
        rig.arrives(e(number, number - 1));
    }
    rig.check();
    // 4, 5 and 6 are lost; then came one with an id below them, and one above.
    let other = e(5, 3);
    let failed_over = page(Some(Failover), 3, 8, &[]);
    assert_eq!(rig.answer(failed_over), [AskNewest]);
    let newest = [e(8, 5), other.clone(), e(3, 2), e(2, 1)];
    // The fifth has the number of a lost one, but then it is known: numbers are not used twice.
    assert_eq!(
        rig.newest(&newest),
        [Gap(5, 5, Failover), Deliver(8, 5)],
        "an id that was delivered is the same entry"
    );
    let mut rig = Rig::new(10, KEEP);
    for number in [20, 40, 50] {
        rig.arrives(e(number, rig.link.last().ms));
    }
    rig.check();
    rig.answer(page(Some(Failover), 30, 30, &[]));
    let newest = [e(35, 30), e(30, 20), e(20, 10), e(10, 0)];
    assert_eq!(
        rig.newest(&newest),
        [Gap(20, 20, Failover), Deliver(30, 20), Deliver(35, 30)]
    );
}

#[test]
fn a_failover_without_a_common_id_sends_nothing_from_before_the_links_memory() {
    // Joined at 50, which was lost.
    let mut rig = Rig::new(50, KEEP);
    rig.check();
    rig.answer(page(Some(Failover), 60, 60, &[]));
    let newest = [e(60, 45), e(45, 40), e(40, 0)];
    assert_eq!(
        rig.newest(&newest),
        [Gap(0, 45, Failover), Deliver(60, 45)],
        "45 may be new: it lies in the gap"
    );
    // More is new than is read at once.
    let mut rig = Rig::new(50, KEEP);
    rig.check();
    rig.answer(page(Some(Failover), 90, 90, &[]));
    assert_eq!(
        rig.newest(&[e(90, 80), e(80, 70)]),
        [Gap(50, 70, Failover), Deliver(80, 70), Deliver(90, 80)]
    );
    // Nothing is left.
    let mut rig = Rig::new(50, KEEP);
    rig.check();
    rig.answer(page(Some(Failover), 0, 0, &[]));
    assert_eq!(rig.newest(&[]), [Gap(0, 0, Failover)]);
    assert_eq!(rig.arrives(e(60, 0)), [Deliver(60, 0)]);
}

#[test]
fn what_was_held_and_is_not_in_the_answer_was_lost_by_the_broker() {
    // Above the newest: the link would otherwise ask for ever.
    let mut rig = Rig::new(1, KEEP);
    assert_eq!(rig.arrives(e(3, 2)), [Ask(1)]);
    let answer = page(None, 1, 1, &[]);
    assert_eq!(rig.answer(answer), [Gap(1, 1, Failover)]);
    assert!(rig.link.is_live());
    // Between: the new timeline went on without it.
    let mut rig = Rig::new(1, KEEP);
    rig.arrives(e(3, 2));
    let answer = page(None, 1, 4, &[e(4, 1)]);
    assert_eq!(rig.answer(answer), [Gap(1, 1, Failover), Deliver(4, 1)]);
    // But what came after the question may be newer than its answer.
    let mut rig = Rig::new(1, KEEP);
    rig.check();
    rig.arrives(e(2, 1));
    assert_eq!(rig.answer(page(None, 1, 1, &[])), [Deliver(2, 1)]);
}

#[test]
fn without_history_what_is_held_says_what_is_lost() {
    let mut rig = Rig::new(1, KEEP_NOTHING);
    assert_eq!(rig.arrives(e(4, 3)), [Ask(1)]);
    let answer = page(Some(Trimmed), 4, 4, &[]);
    assert_eq!(rig.answer(answer), [Gap(1, 3, Lost), Deliver(4, 3)]);
    assert_eq!(rig.arrives(e(3, 2)), [Duplicate], "it was told as lost");
}

#[test]
fn without_history_a_loss_with_nothing_held_is_told_after_a_second_question() {
    let mut rig = Rig::new(1, KEEP_NOTHING);
    rig.check();
    assert_eq!(rig.answer(page(Some(Trimmed), 3, 3, &[])), [AskLater(1)]);
    // Another one was published meanwhile: that one may still be on its way.
    assert_eq!(rig.answer(page(Some(Trimmed), 4, 4, &[])), [AskLater(1)]);
    assert_eq!(
        rig.answer(page(Some(Trimmed), 4, 4, &[])),
        [Gap(1, 4, Lost)]
    );
    assert_eq!(rig.arrives(e(5, 4)), [Deliver(5, 4)]);
}

#[test]
fn without_history_an_entry_that_was_on_its_way_ends_the_wait() {
    let mut rig = Rig::new(1, KEEP_NOTHING);
    rig.check();
    assert_eq!(rig.answer(page(Some(Trimmed), 2, 2, &[])), [AskLater(1)]);
    assert_eq!(rig.arrives(e(2, 1)), [Deliver(2, 1)]);
    assert!(rig.link.is_live());
    // The answer to the second question comes too late to count.
    let mut late = rig;
    assert_eq!(late.answer(page(Some(Trimmed), 2, 2, &[])), []);
}

#[test]
fn without_history_a_doubtful_entry_below_the_newest_is_a_duplicate() {
    let mut rig = Rig::new(9, KEEP_NOTHING);
    assert_eq!(rig.arrives(e(4, 3)), [Ask(9)]);
    assert_eq!(rig.answer(page(None, 9, 9, &[])), [Duplicate]);
    assert!(rig.link.is_live());
}

#[test]
fn without_history_a_newest_id_below_what_was_delivered_is_a_failover() {
    let mut rig = Rig::new(10, KEEP_NOTHING);
    rig.arrives(e(20, 10));
    rig.arrives(e(30, 20));
    // 20 and 30 are lost; 12 and 14 are new.
    assert_eq!(rig.arrives(e(12, 10)), [Ask(30)]);
    assert_eq!(rig.arrives(e(14, 12)), []);
    assert_eq!(
        rig.answer(page(Some(Failover), 14, 14, &[])),
        [Gap(10, 10, Failover), Deliver(12, 10), Deliver(14, 12)]
    );
    // Nothing is held that leads there.
    let mut rig = Rig::new(10, KEEP_NOTHING);
    rig.arrives(e(20, 10));
    rig.check();
    assert_eq!(
        rig.answer(page(Some(Failover), 14, 14, &[])),
        [Gap(10, 14, Failover)]
    );
}

#[test]
fn without_history_a_predecessor_below_what_was_delivered_is_a_failover() {
    let mut rig = Rig::new(10, KEEP_NOTHING);
    rig.arrives(e(20, 10));
    assert_eq!(rig.arrives(e(30, 10)), [Ask(20)]);
    assert_eq!(
        rig.answer(page(Some(Trimmed), 30, 30, &[])),
        [Gap(10, 10, Failover), Deliver(30, 10)]
    );
}

#[test]
fn at_its_bound_the_held_queue_is_thrown_away_and_the_stream_is_asked_again() {
    let mut rig = Rig::new(1, KEEP);
    rig.check();
    let large = HELD_BYTES_MAX / 2 - e(1, 0).body.bytes_count();
    assert_eq!(rig.arrives(entry_of(2, 1, large)), []);
    assert_eq!(rig.arrives(entry_of(3, 2, large)), []);
    assert_eq!(rig.arrives(e(4, 3)), [Overflow]);
    assert_eq!(rig.answer(page(None, 1, 1, &[])), [Ask(1)]);
    let all = page(None, 1, 4, &[e(2, 1), e(3, 2), e(4, 3)]);
    assert_eq!(
        rig.answer(all),
        [Deliver(2, 1), Deliver(3, 2), Deliver(4, 3)]
    );
    assert!(rig.link.is_live());

    let mut rig = Rig::new(0, KEEP);
    rig.check();
    let count = HELD_MAX as u64;
    for number in 1..=count {
        assert_eq!(rig.arrives(e(number, number - 1)), []);
    }
    assert_eq!(rig.arrives(e(count + 1, count)), [Overflow]);
}

#[test]
fn a_question_that_was_not_answered_is_asked_again_as_the_link_then_stands() {
    let mut rig = Rig::new(1, KEEP);
    rig.check();
    assert_eq!(rig.no_answer(), [AskLater(1)]);
    // An answer that a link of an earlier stay in the topic had asked for.
    let asked = std::mem::replace(&mut rig.asked, Question::Since(p(0)));
    assert_eq!(rig.answer(page(None, 0, 2, &[e(1, 0), e(2, 1)])), []);
    rig.asked = asked;
    assert_eq!(rig.answer(page(Some(Failover), 0, 0, &[])), [AskNewest]);
    assert_eq!(rig.no_answer(), [AskNewest]);
    assert_eq!(rig.newest(&[]), [Gap(0, 0, Failover)]);
    assert_eq!(rig.no_answer(), [], "nothing is open any more");
}

#[test]
fn a_joining_link_holds_and_begins_where_the_stream_stands() {
    let mut link = Sequencer::joining(KEEP);
    let mut steps = Vec::new();
    for entry in [e(4, 3), e(5, 4), e(6, 5)] {
        link.arrived(entry, &mut steps);
    }
    assert_eq!(steps, []);
    assert!(link.is_joining() && link.open_question().is_none());
    link.begin(p(5), &mut steps);
    assert_eq!(steps, [Step::Deliver(e(6, 5))]);
    assert!(link.is_live());
}

#[test]
fn a_joining_link_is_bounded_by_number_and_by_bytes() {
    let by_number: Vec<_> = (1..=HELD_MAX as u64 + 1).map(|n| e(n, n - 1)).collect();
    let half = HELD_BYTES_MAX / 2 + 1;
    let by_bytes = vec![entry_of(1, 0, half), entry_of(2, 1, half)];
    for entries in [by_number, by_bytes] {
        let mut link = Sequencer::joining(KEEP);
        let mut steps = Vec::new();
        let newest = entries.len() as u64;
        for entry in entries {
            link.arrived(entry, &mut steps);
        }
        assert_eq!(steps, [Step::Overflow]);
        assert_eq!((link.held.len(), link.held_bytes), (0, 0));
        link.begin(p(newest - 1), &mut steps);
        let asked = Step::Ask(Question::Since(p(newest - 1)));
        assert_eq!(steps.last(), Some(&asked));
    }
}
