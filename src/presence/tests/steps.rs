//! Single steps of the machine of memberships, with the time and the answers that a test gives.
//!
//! In: sessions that enter and leave. Out: which call comes next, and what is remembered.

use super::{member, owner, topic};
use crate::broker::{FeedNumber, Place};
use crate::presence::Key;
use crate::presence::left::LEFT_MAX;
use crate::presence::memberships::{Act, Index, LEFT_FOR, Memberships};
use crate::presence::memberships::{Next, Order, Outcome, World};
use fanfare_protocol::ids::{App, Owner, SessionId, Topic};
use std::time::Duration;

const PLACE: Place = Place {
    feed: FeedNumber(0),
    continuity: 0,
};

/// The machine with what surrounds it.
struct Bench {
    machine: Memberships,
    me: Owner,
    place: Place,
    now: Duration,
    /// What was forgotten before its time.
    given_up: Vec<(Key, Index)>,
}

impl Bench {
    fn new() -> Self {
        let mut machine = Memberships::default();
        machine.renew(5);
        Self {
            machine,
            me: owner("a~5"),
            place: PLACE,
            now: Duration::ZERO,
            given_up: Vec::new(),
        }
    }

    fn next(&mut self, session: u128) -> Next {
        self.next_of(&key(session))
    }

    fn next_of(&mut self, key: &Key) -> Next {
        let world = World {
            me: &self.me,
            has_lease: true,
            place: Some(self.place),
            is_indexed: true,
            now: self.now,
        };
        self.machine.next(key, &world)
    }

    fn call(&mut self, session: u128) -> Order {
        self.call_of(&key(session))
    }

    fn call_of(&mut self, key: &Key) -> Order {
        match self.next_of(key) {
            Next::Call(order) => order,
            other => panic!("expected a call, got {other:?}"),
        }
    }

    fn answer(&mut self, order: &Order, outcome: Outcome) -> Index {
        let (index, given_up) = self.machine.answered(order, outcome, self.now);
        self.given_up.extend(given_up);
        index
    }

    fn done(&mut self, session: u128) -> Order {
        let order = self.call(session);
        self.answer(&order, Outcome::Done);
        order
    }

    fn comes_and_goes(&mut self, session: u128) {
        self.comes_and_goes_as(&key(session));
    }

    fn comes_and_goes_as(&mut self, key: &Key) {
        self.machine.enter(key, member(key.1.0));
        let order = self.call_of(key);
        self.answer(&order, Outcome::Done);
        self.machine.leave(key);
        let order = self.call_of(key);
        assert_eq!(order.act, Act::Leave);
        self.answer(&order, Outcome::Done);
    }

    fn due(&self) -> usize {
        self.machine.due(|_| Some(self.place)).count()
    }
}

fn key(session: u128) -> Key {
    (topic(), SessionId(session))
}

#[test]
fn a_leave_is_carried_out_again_where_it_was_lost_and_only_for_a_minute() {
    let mut bench = Bench::new();
    bench.comes_and_goes(1);
    bench.now = LEFT_FOR / 2;
    bench.comes_and_goes(2);
    assert_eq!((bench.due(), bench.machine.expire(bench.now)), (0, None));
    bench.now = LEFT_FOR;
    let forgotten = bench.machine.expire(bench.now);
    assert_eq!(forgotten, Some((key(1), Index::Stays)));
    assert_eq!(bench.machine.expire(bench.now), None);
    bench.place.continuity += 1;
    assert_eq!(bench.due(), 1, "only the younger one");
    assert_eq!(bench.next(1), Next::Nothing);
    assert_eq!(bench.done(2).act, Act::Leave);
    assert_eq!(bench.due(), 0);
}

#[test]
fn of_the_leaves_that_the_broker_took_only_so_many_are_remembered() {
    let mut bench = Bench::new();
    for session in 0..LEFT_MAX as u128 + 5 {
        bench.comes_and_goes(session);
        // Not even for as long as it takes until somebody looks.
        assert!(bench.machine.len() <= LEFT_MAX, "{}", bench.machine.len());
    }
    assert_eq!(bench.given_up.len(), 5);
    assert_eq!(bench.given_up[4], (key(4), Index::Stays));
    assert_eq!(bench.machine.expire(bench.now), None);
    assert_eq!(bench.machine.len(), LEFT_MAX);
}

/// A reaper finds by the index what came late, once the node has ended.
#[test]
fn a_topic_stays_in_the_index_where_a_leave_is_given_up_whose_entering_may_come_late() {
    let mut bench = Bench::new();
    for session in 0..2 {
        bench.machine.enter(&key(session), member(session));
        let entering = bench.call(session);
        bench.answer(&entering, Outcome::Unknown);
        let leaving = bench.call(session);
        assert_eq!(bench.answer(&leaving, Outcome::Done), Index::Stays);
    }
    for session in 2..LEFT_MAX as u128 + 2 {
        bench.comes_and_goes(session);
    }
    let given_up = [(key(0), Index::Stays), (key(1), Index::Unpin)];
    assert_eq!(bench.given_up, given_up, "one hold a topic stays");
}

/// One session comes and goes in topic after topic, the others once.
#[test]
fn a_session_does_not_push_out_the_leaves_of_others() {
    let mut bench = Bench::new();
    for session in 0..10 {
        bench.comes_and_goes(session);
    }
    let noisy = SessionId(1_000);
    let topic_of = |n: usize| Topic::new(&App::default_app(), &format!("noise:{n}")).unwrap();
    for n in 0..2 * LEFT_MAX {
        bench.comes_and_goes_as(&(topic_of(n), noisy));
        assert!(bench.machine.len() <= LEFT_MAX / 2);
    }
    let given_up = &bench.given_up;
    assert!(given_up.iter().all(|(key, _)| key.1 == noisy));
    assert_eq!(bench.machine.len(), LEFT_MAX / 2);
    assert_eq!(given_up.len() + LEFT_MAX / 2, 2 * LEFT_MAX + 10);
    // There is room for everybody else, and again for it when the time is over.
    for session in 2_000..2_000 + LEFT_MAX as u128 / 2 {
        bench.comes_and_goes(session);
    }
    assert_eq!(bench.machine.expire(bench.now), None);
    bench.now = LEFT_FOR;
    while bench.machine.expire(bench.now).is_some() {}
    assert_eq!(bench.machine.len(), 0);
    bench.comes_and_goes_as(&(topic_of(0), noisy));
    assert_eq!(bench.machine.len(), 1);
}

#[test]
fn an_entering_without_an_answer_ends_with_a_last_leave() {
    let mut bench = Bench::new();
    let (generation, index) = bench.machine.enter(&key(1), member(1));
    assert_eq!((generation, index), (1, Index::Pin));
    let order = bench.call(1);
    assert_eq!(bench.answer(&order, Outcome::Unknown), Index::Stays);
    let order = bench.call(1);
    assert_eq!((&order.act, order.generation), (&Act::Leave, 1));
    // The entering may come yet, so the topic stays where a reaper finds it.
    assert_eq!(bench.answer(&order, Outcome::Done), Index::Stays);
    assert_eq!(bench.next(1), Next::Nothing);
    bench.now = LEFT_FOR;
    let due = bench.machine.expire(bench.now);
    assert_eq!(due, Some((key(1), Index::Stays)));
    let order = bench.call(1);
    assert_eq!(bench.answer(&order, Outcome::Done), Index::Unpin);
    assert_eq!(bench.machine.len(), 0);
}

#[test]
fn an_entering_that_was_surely_not_done_leaves_nothing_behind() {
    let mut bench = Bench::new();
    bench.machine.enter(&key(1), member(1));
    let order = bench.call(1);
    assert_eq!(bench.answer(&order, Outcome::NotDone), Index::Unpin);
    assert_eq!((bench.machine.len(), bench.machine.is_settled()), (0, true));
    // Nor does one that was given up before its turn came.
    bench.machine.enter(&key(1), member(1));
    assert_eq!(bench.machine.leave(&key(1)), Index::Unpin);
    assert_eq!(bench.next(1), Next::Nothing);
}

/// A failover brings the entry of before back, and the master refuses the next entering.
#[test]
fn an_entering_that_fails_takes_along_what_a_lost_leave_left() {
    let mut bench = Bench::new();
    bench.comes_and_goes(1);
    bench.place.continuity += 1;
    bench.machine.enter(&key(1), member(1));
    let order = bench.call(1);
    bench.answer(&order, Outcome::NotDone);
    let order = bench.call(1);
    assert_eq!((&order.act, order.generation), (&Act::Leave, 2));
}

#[test]
fn one_that_is_in_stays_in_though_writing_it_again_fails() {
    let mut bench = Bench::new();
    bench.machine.enter(&key(1), member(1));
    bench.done(1);
    bench.place.continuity += 1;
    let order = bench.call(1);
    bench.answer(&order, Outcome::Unknown);
    assert_eq!(bench.call(1).act, Act::Enter(member(1)));
    assert_eq!(bench.machine.inside().count(), 1);
}

#[test]
fn what_may_stand_under_an_earlier_life_is_behind_until_it_is_written_again() {
    let mut bench = Bench::new();
    for session in 1..=2 {
        bench.machine.enter(&key(session), member(session));
    }
    bench.done(1);
    let on_its_way = bench.call(2);
    bench.machine.renew(9);
    bench.me = owner("a~9");
    assert_eq!((bench.machine.all_stand(), bench.due()), (false, 2));
    bench.done(1);
    assert!(!bench.machine.all_stand());
    bench.answer(&on_its_way, Outcome::Done);
    assert!(
        !bench.machine.all_stand(),
        "it was written under the old one"
    );
    bench.done(2);
    assert!(bench.machine.all_stand());
    // Whoever leaves need not stand anywhere.
    bench.machine.renew(12);
    bench.machine.leave(&key(1));
    bench.machine.leave(&key(2));
    assert!(bench.machine.all_stand());
}
