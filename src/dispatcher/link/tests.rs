//! The link's judgement, one row of the table in `docs/architecture.md` at a time.
//!
//! In: arrivals and answers at positions that a test names by one small number. Out: the steps,
//! compared whole. The same rules against chance are in `simulation`.

use std::sync::Arc;

use bytes::Bytes;

use super::*;
use crate::broker::Body;
use crate::broker::publication::Publication;
use crate::protocol::data::Data;
use crate::protocol::ids::Priority;

const HISTORY: Retention = Retention {
    entries_max: 100,
    age_ms: 60_000,
};

const NO_HISTORY: Retention = Retention {
    entries_max: 0,
    age_ms: 60_000,
};

fn at(ms: u64) -> Position {
    Position { ms, seq: 7 }
}

fn entry(prev: u64, position: u64) -> Entry {
    sized(prev, position, 1)
}

fn sized(prev: u64, position: u64, bytes: usize) -> Entry {
    let prev = if prev == 0 { Position::ZERO } else { at(prev) };
    Entry {
        position: at(position),
        prev,
        body: Body::Publication(Arc::new(Publication {
            data: Data::Json(Bytes::from(vec![b'1'; bytes])),
            user: None,
            priority: Priority::Normal,
            key: None,
            conflate: false,
            removed: false,
            time_ms: 1,
            ttl_ms: None,
            exclude: None,
        })),
    }
}

/// An answer that begins at `start`; the entries follow each other from there.
fn page(gap: Option<GapReason>, start: u64, entries: &[u64], last: u64) -> SincePage {
    let mut prev = start;
    let entries = entries.iter().map(|position| {
        let entry = entry(prev, *position);
        prev = *position;
        entry
    });
    SincePage {
        gap,
        entries: entries.collect(),
        start: at(start),
        last: at(last),
    }
}

fn deliver(prev: u64, position: u64) -> Step {
    Step::Deliver(entry(prev, position))
}

fn gap(from: u64, to: u64, reason: GapReason) -> Step {
    Step::Gap {
        from: at(from),
        to: at(to),
        reason,
    }
}

/// A link that stands at 10, and what it says.
struct Rig(Link);

impl Rig {
    fn new(retention: Retention) -> Self {
        Self(Link::new(at(10), retention))
    }

    fn steps(&mut self, judge: impl FnOnce(&mut Link, &mut Vec<Step>)) -> Vec<Step> {
        let mut steps = Vec::new();
        judge(&mut self.0, &mut steps);
        steps
    }

    fn arrived(&mut self, prev: u64, position: u64) -> Vec<Step> {
        self.steps(|link, steps| link.arrived(entry(prev, position), steps))
    }

    fn check(&mut self) -> Vec<Step> {
        self.steps(Link::check)
    }

    fn answered(&mut self, question: Question, page: SincePage) -> Vec<Step> {
        self.steps(|link, steps| link.answered(question, page, steps))
    }

    fn newest(&mut self, question: Question, entries: Vec<Entry>) -> Vec<Step> {
        self.steps(|link, steps| link.newest(question, entries, steps))
    }

    /// Live, and standing there.
    fn is_live_at(&self, position: u64) -> bool {
        self.0.is_live() && self.0.last() == at(position)
    }
}

/// The question that is all these steps say.
fn asked(steps: &[Step]) -> Question {
    match steps {
        [Step::Ask(question)] => *question,
        other => panic!("expected one question, got {other:?}"),
    }
}

fn asked_later(steps: &[Step]) -> Question {
    match steps {
        [Step::AskLater(question)] => *question,
        other => panic!("expected one question for later, got {other:?}"),
    }
}

#[test]
fn what_follows_on_the_last_is_delivered() {
    let mut rig = Rig::new(HISTORY);
    assert_eq!(rig.arrived(10, 11), [deliver(10, 11)]);
    assert_eq!(rig.arrived(11, 15), [deliver(11, 15)]);
    assert!(rig.is_live_at(15));
}

#[test]
fn an_id_that_was_delivered_is_a_duplicate() {
    let mut rig = Rig::new(HISTORY);
    rig.arrived(10, 11);
    rig.arrived(11, 12);
    assert_eq!(rig.arrived(10, 11), [Step::Duplicate]);
    assert_eq!(rig.arrived(11, 12), [Step::Duplicate]);
    assert_eq!(rig.arrived(9, 10), [Step::Duplicate]);
    assert!(rig.is_live_at(12));
}

#[test]
fn a_hole_is_repaired_from_several_pages_and_then_follows_what_was_held() {
    let mut rig = Rig::new(HISTORY);
    let first = asked(&rig.arrived(14, 15));
    assert_eq!(first.since, Some(at(10)));
    assert_eq!(rig.arrived(15, 16), []);

    let steps = rig.answered(first, page(None, 10, &[11, 12], 16));
    assert_eq!(steps[..2], [deliver(10, 11), deliver(11, 12)]);
    let second = asked(&steps[2..]);
    assert_eq!(second.since, Some(at(12)));
    assert_eq!(rig.arrived(16, 17), []);

    let steps = rig.answered(second, page(None, 12, &[13, 14, 15, 16], 16));
    assert_eq!(steps[..2], [deliver(12, 13), deliver(13, 14)]);
    assert_eq!(steps[2..4], [deliver(14, 15), deliver(15, 16)]);
    let held = [Step::Duplicate, Step::Duplicate, deliver(16, 17)];
    assert_eq!(steps[4..], held);
    assert!(rig.is_live_at(17));
}

#[test]
fn what_a_page_brought_and_the_feed_brings_again_is_a_duplicate() {
    let mut rig = Rig::new(HISTORY);
    let question = asked(&rig.check());
    let steps = rig.answered(question, page(None, 10, &[11, 12], 12));
    assert_eq!(steps, [deliver(10, 11), deliver(11, 12)]);
    assert_eq!(rig.arrived(10, 11), [Step::Duplicate]);
    assert_eq!(rig.arrived(11, 12), [Step::Duplicate]);
    assert_eq!(rig.arrived(12, 13), [deliver(12, 13)]);
}

#[test]
fn a_break_with_nothing_missing_delivers_nothing() {
    for retention in [HISTORY, NO_HISTORY] {
        let mut rig = Rig::new(retention);
        let question = asked(&rig.check());
        assert_eq!(rig.answered(question, page(None, 10, &[], 10)), []);
        assert!(rig.is_live_at(10));
        assert_eq!(rig.arrived(10, 11), [deliver(10, 11)]);
    }
}

#[test]
fn a_second_break_while_a_question_is_open_is_looked_into_afterwards() {
    let mut rig = Rig::new(HISTORY);
    let first = asked(&rig.check());
    assert_eq!(rig.check(), []);
    let second = asked(&rig.answered(first, page(None, 10, &[], 10)));
    assert_eq!(
        rig.answered(second, page(None, 10, &[11], 11)),
        [deliver(10, 11)]
    );
    assert!(rig.is_live_at(11));
}

#[test]
fn what_retention_took_is_told_up_to_where_the_page_begins() {
    let mut rig = Rig::new(HISTORY);
    let question = asked(&rig.arrived(21, 22));
    let answer = page(Some(GapReason::Retention), 20, &[21, 22], 22);
    let told = gap(10, 20, GapReason::Retention);
    let steps = rig.answered(question, answer);
    let expected = [told, deliver(20, 21), deliver(21, 22), Step::Duplicate];
    assert_eq!(steps, expected);
    assert!(rig.is_live_at(22));
}

#[test]
fn a_topic_that_was_idle_until_it_was_forgotten_has_no_gap() {
    let mut rig = Rig::new(HISTORY);
    let question = asked(&rig.arrived(0, 9_000_000));
    let mut answer = page(Some(GapReason::Retention), 0, &[9_000_000], 9_000_000);
    answer.start = Position::ZERO;
    let steps = rig.answered(question, answer);
    assert_eq!(steps, [deliver(10, 9_000_000), Step::Duplicate]);
}

#[test]
fn a_failover_goes_back_to_the_newest_id_that_both_timelines_have() {
    let mut rig = Rig::new(HISTORY);
    for position in 11..=14 {
        rig.arrived(position - 1, position);
    }
    // The broker lost 13 and 14 and made 15 and 16 upon 12.
    let doubt = asked(&rig.arrived(15, 16));
    let answer = page(Some(GapReason::Failover), 15, &[16], 16);
    let rewind = asked(&rig.answered(doubt, answer));
    assert_eq!(rewind.since, None);

    let newest = vec![entry(15, 16), entry(12, 15), entry(11, 12), entry(10, 11)];
    let steps = rig.newest(rewind, newest);
    let told = gap(12, 12, GapReason::Failover);
    let expected = [told, deliver(12, 15), deliver(15, 16), Step::Duplicate];
    assert_eq!(steps, expected);
    assert!(rig.is_live_at(16));
    assert_eq!(rig.arrived(16, 17), [deliver(16, 17)]);
}

#[test]
fn after_a_failover_a_lost_id_is_no_duplicate() {
    let mut rig = Rig::new(HISTORY);
    rig.arrived(10, 11);
    let doubt = asked(&rig.check());
    let answer = page(Some(GapReason::Failover), 10, &[], 10);
    let rewind = asked(&rig.answered(doubt, answer));
    let steps = rig.newest(rewind, vec![entry(9, 10)]);
    assert_eq!(steps, [gap(10, 10, GapReason::Failover)]);
    assert_eq!(rig.arrived(10, 11), [deliver(10, 11)]);
}

#[test]
fn a_failover_to_a_stream_without_a_common_id_delivers_all_of_it() {
    let mut rig = Rig::new(HISTORY);
    let doubt = asked(&rig.check());
    let rewind = asked(&rig.answered(doubt, page(Some(GapReason::Failover), 20, &[21], 22)));
    let steps = rig.newest(rewind, vec![entry(21, 22), entry(20, 21)]);
    let told = gap(10, 20, GapReason::Failover);
    assert_eq!(steps, [told, deliver(20, 21), deliver(21, 22)]);
}

#[test]
fn what_was_held_before_the_question_and_is_above_the_answer_tells_a_failover() {
    let mut rig = Rig::new(HISTORY);
    let question = asked(&rig.arrived(14, 15));
    let steps = rig.answered(question, page(None, 10, &[11], 11));
    assert_eq!(
        steps,
        [gap(10, 10, GapReason::Failover), deliver(10, 11)],
        "15 is not delivered: the broker does not have it"
    );
    assert!(rig.is_live_at(11));
}

#[test]
fn without_history_a_held_entry_tells_exactly_what_is_lost() {
    let mut rig = Rig::new(NO_HISTORY);
    let question = asked(&rig.arrived(14, 15));
    let steps = rig.answered(question, page(Some(GapReason::Retention), 15, &[], 15));
    assert_eq!(steps, [gap(10, 14, GapReason::Lost), deliver(14, 15)]);
    assert!(rig.is_live_at(15));
}

#[test]
fn without_history_and_with_nothing_held_a_loss_is_told_after_the_second_question() {
    let mut rig = Rig::new(NO_HISTORY);
    let answer = || page(Some(GapReason::Retention), 12, &[], 12);
    let first = asked(&rig.check());
    let second = asked_later(&rig.answered(first, answer()));
    let steps = rig.answered(second, answer());
    assert_eq!(steps, [gap(10, 12, GapReason::Lost)]);
    assert!(rig.is_live_at(12));
}

#[test]
fn without_history_what_was_only_on_its_way_is_no_loss() {
    let mut rig = Rig::new(NO_HISTORY);
    let first = asked(&rig.check());
    let second = asked_later(&rig.answered(first, page(Some(GapReason::Retention), 12, &[], 12)));
    assert_eq!(rig.arrived(10, 11), [deliver(10, 11)]);
    assert_eq!(rig.arrived(11, 12), [deliver(11, 12)]);
    assert!(rig.is_live_at(12));
    let late = rig.answered(second, page(Some(GapReason::Retention), 12, &[], 12));
    assert_eq!(late, [], "nobody waits for this answer any more");
}

#[test]
fn without_history_a_topic_that_goes_on_below_the_last_was_failed_over() {
    let mut rig = Rig::new(NO_HISTORY);
    for position in 11..=14 {
        rig.arrived(position - 1, position);
    }
    let doubt = asked(&rig.check());
    let steps = rig.answered(doubt, page(Some(GapReason::Failover), 12, &[], 12));
    assert_eq!(steps, [gap(12, 12, GapReason::Failover)]);
    assert_eq!(rig.arrived(12, 15), [deliver(12, 15)]);
}

#[test]
fn a_doubtful_duplicate_is_settled_by_a_question() {
    let mut rig = Rig::new(HISTORY);
    // Older than all that is remembered: delivered long ago, or not at all.
    let question = asked(&rig.arrived(4, 5));
    let steps = rig.answered(question, page(None, 10, &[], 10));
    assert_eq!(steps, [Step::Duplicate]);
    assert!(rig.is_live_at(10));
}

#[test]
fn memory_is_bounded_and_what_fell_out_of_it_is_doubtful() {
    let mut rig = Rig::new(HISTORY);
    let many = RECENT_MAX as u64;
    for position in 11..=10 + many {
        rig.arrived(position - 1, position);
    }
    assert_eq!(rig.arrived(10, 11), [Step::Duplicate]);
    asked(&rig.arrived(9, 10));
}

#[test]
fn a_held_queue_at_its_bound_is_thrown_away_and_the_stream_is_asked_again() {
    let mut rig = Rig::new(HISTORY);
    let question = asked(&rig.arrived(11, 12));
    let newest = 12 + HELD_MAX as u64;
    for position in 13..newest {
        assert_eq!(rig.arrived(position - 1, position), [], "{position}");
    }
    assert_eq!(rig.arrived(newest - 1, newest), [Step::Overflow]);
    let steps = rig.answered(question, page(None, 10, &[11], 11));
    assert_eq!(steps[..1], [deliver(10, 11)]);
    assert_eq!(asked(&steps[1..]).since, Some(at(11)));
}

#[test]
fn a_held_queue_is_bounded_by_bytes_as_well() {
    let mut rig = Rig::new(HISTORY);
    asked(&rig.arrived(11, 12));
    let half = HELD_BYTES_MAX / 2;
    let mut held =
        |prev, position| rig.steps(|link, steps| link.arrived(sized(prev, position, half), steps));
    assert_eq!(held(12, 13), []);
    assert_eq!(held(13, 14), [Step::Overflow]);
    assert_eq!(held(14, 15), [], "the count begins anew");
}

#[test]
fn a_question_that_was_not_answered_is_asked_again() {
    let mut rig = Rig::new(HISTORY);
    let first = asked(&rig.arrived(11, 12));
    let again = asked_later(&rig.steps(|link, steps| link.unanswered(first, steps)));
    assert_eq!(again.since, first.since);
    assert_ne!(again, first);
    let stale = rig.answered(first, page(None, 10, &[11, 12], 12));
    assert_eq!(stale, [], "only the question asked last is open");
    let twice = rig.steps(|link, steps| link.unanswered(first, steps));
    assert_eq!(twice, [], "one question is open, not two");
    let steps = rig.answered(again, page(None, 10, &[11, 12], 12));
    assert_eq!(steps, [deliver(10, 11), deliver(11, 12), Step::Duplicate]);
}
