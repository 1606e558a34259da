//! Each rule of the state machine.

use super::*;
use fanfare_protocol::ids::App;

fn topic(n: usize) -> Topic {
    Topic::new(&App::default_app(), &format!("t{n}")).unwrap()
}

fn wish(n: u64) -> Option<WishNumber> {
    Some(WishNumber(n))
}

/// Subscriptions on a first connection, with so many topics standing.
fn standing(count: usize) -> (Subscriptions, Instant) {
    let now = Instant::now();
    let mut subscriptions = Subscriptions::default();
    subscriptions.reset();
    for n in 0..count {
        assert!(!subscriptions.wish(topic(n), wish(1), now));
    }
    while let Some(chunk) = subscriptions.next_chunk(now) {
        assert_eq!(subscriptions.confirm(&chunk).len(), chunk.topics.len());
    }
    (subscriptions, now)
}

#[test]
fn a_new_connection_begins_with_the_fixed_channels_even_without_topics() {
    let (mut subscriptions, now) = standing(0);
    assert_eq!(subscriptions.next_chunk(now), None);
    subscriptions.reset();
    let chunk = subscriptions.next_chunk(now).unwrap();
    assert!(chunk.is_first && chunk.is_last && chunk.topics.is_empty());
    assert_eq!(subscriptions.next_chunk(now), None);
}

#[test]
fn after_a_break_the_last_of_what_stood_before_is_told_and_new_wishes_come_behind() {
    let (mut subscriptions, now) = standing(CHUNK_TOPICS_MAX + 1);
    subscriptions.reset();
    assert!(!subscriptions.wish(topic(9_999), wish(2), now));
    let first = subscriptions.next_chunk(now).unwrap();
    assert!(first.is_first && !first.is_last);
    // Nobody waits for what stood before; only the new wish is confirmed.
    assert!(subscriptions.confirm(&first).is_empty());
    let second = subscriptions.next_chunk(now).unwrap();
    assert!(!second.is_first && second.is_last);
    assert_eq!(
        subscriptions.confirm(&second),
        [(topic(9_999), WishNumber(2))]
    );
    assert_eq!(subscriptions.next_chunk(now), None);
}

#[test]
fn a_failed_chunk_comes_again_as_it_was() {
    let (mut subscriptions, now) = standing(3);
    subscriptions.reset();
    let chunk = subscriptions.next_chunk(now).unwrap();
    let topics = chunk.topics.clone();
    subscriptions.put_back(chunk);
    let again = subscriptions.next_chunk(now).unwrap();
    assert!(again.is_first && again.is_last);
    assert_eq!(again.topics, topics);
    assert!(subscriptions.confirm(&again).is_empty());
    assert!(subscriptions.wish(topic(0), wish(2), Instant::now()));
}

#[test]
fn an_unwanted_topic_is_silent_at_once_and_leaves_after_a_second_unless_wanted_again() {
    let (mut subscriptions, now) = standing(2);
    assert!(!subscriptions.wish(topic(0), None, now));
    assert!(!subscriptions.wish(topic(1), None, now));
    assert_eq!(subscriptions.wanted("default:t0"), None);
    assert!(subscriptions.wish(topic(1), wish(2), now));
    assert_eq!(subscriptions.next_due(), Some(now + LINGER));
    let early = now + LINGER.mul_f32(0.9);
    assert!(subscriptions.due(early).is_empty());
    assert_eq!(subscriptions.due(now + LINGER), [topic(0)]);
    assert_eq!(subscriptions.wanted("default:t1"), Some(&topic(1)));
    // Forgotten: a later wish needs a confirmation of its own.
    assert!(!subscriptions.wish(topic(0), wish(3), now));
    assert_eq!(subscriptions.next_chunk(now).unwrap().topics, [topic(0)]);
}

#[test]
fn what_was_wished_for_anew_while_its_chunk_was_on_its_way_is_confirmed_as_the_later_wish() {
    let (mut subscriptions, now) = standing(0);
    subscriptions.wish(topic(0), wish(1), now);
    let chunk = subscriptions.next_chunk(now).unwrap();
    subscriptions.wish(topic(0), None, now);
    subscriptions.wish(topic(0), wish(2), now);
    let confirmed = subscriptions.confirm(&chunk);
    assert_eq!(confirmed, [(topic(0), WishNumber(2))]);
}

#[test]
fn on_a_master_of_a_cluster_a_wish_for_what_stands_subscribes_again() {
    let now = Instant::now();
    let mut subscriptions = Subscriptions::new(true);
    subscriptions.reset();
    subscriptions.wish(topic(0), wish(1), now);
    let chunk = subscriptions.next_chunk(now).unwrap();
    // While it is on its way and when it stands: what was sent may be void already.
    assert!(!subscriptions.wish(topic(0), wish(1), now));
    assert!(subscriptions.confirm(&chunk).is_empty());
    let again = subscriptions.next_chunk(now).unwrap();
    assert_eq!(subscriptions.confirm(&again), [(topic(0), WishNumber(1))]);
    assert!(!subscriptions.wish(topic(0), wish(1), now));
    let again = subscriptions.next_chunk(now).unwrap();
    assert_eq!(subscriptions.confirm(&again), [(topic(0), WishNumber(1))]);
    assert_eq!(subscriptions.next_chunk(now), None);
}

#[test]
fn a_topic_that_was_refused_is_tried_again_and_confirmed_then_and_holds_up_no_other() {
    let now = Instant::now();
    let mut subscriptions = Subscriptions::new(true);
    subscriptions.reset();
    for n in 0..3 {
        subscriptions.wish(topic(n), wish(n as u64), now);
    }
    let chunk = subscriptions.next_chunk(now).unwrap();
    subscriptions.confirm(&chunk);
    // After a break nobody waits for it, but one that came late is to be looked after.
    subscriptions.reset();
    let chunk = subscriptions.next_chunk(now).unwrap();
    assert!(chunk.is_last);
    subscriptions.refuse(&[topic(1)]);
    assert!(subscriptions.confirm(&chunk).is_empty());
    assert!(subscriptions.stands());
    let again = subscriptions.next_chunk(now).unwrap();
    assert_eq!(again.topics, [topic(1)]);
    assert_eq!(subscriptions.confirm(&again), [(topic(1), WishNumber(1))]);
}

#[test]
fn a_topic_whose_subscription_ended_is_subscribed_again_and_confirmed() {
    let now = Instant::now();
    let mut subscriptions = Subscriptions::new(true);
    subscriptions.reset();
    for n in 0..2 {
        subscriptions.wish(topic(n), wish(n as u64), now);
    }
    let chunk = subscriptions.next_chunk(now).unwrap();
    // One that is told to have ended while others of its chunk are not told yet does not stand by it.
    subscriptions.ended("default:t0");
    assert_eq!(subscriptions.confirm(&chunk), [(topic(1), WishNumber(1))]);
    subscriptions.ended("default:t1");
    subscriptions.ended("default:t1");
    let again = subscriptions.next_chunk(now).unwrap();
    assert_eq!(again.topics, [topic(0), topic(1)]);
    let confirmed = subscriptions.confirm(&again);
    let both = [(topic(0), WishNumber(0)), (topic(1), WishNumber(1))];
    assert_eq!(confirmed, both);
    // Of one that is on its way out, or unknown, nothing follows.
    subscriptions.wish(topic(0), None, now);
    subscriptions.ended("default:t0");
    subscriptions.ended("default:t9");
    assert_eq!(subscriptions.next_chunk(now), None);
}

#[test]
fn a_topic_that_left_while_its_chunk_was_on_its_way_is_not_confirmed_by_it() {
    let (mut subscriptions, now) = standing(0);
    subscriptions.wish(topic(0), wish(1), now);
    let chunk = subscriptions.next_chunk(now).unwrap();
    subscriptions.wish(topic(0), None, now);
    assert_eq!(subscriptions.due(now + LINGER), [topic(0)]);
    subscriptions.wish(topic(0), wish(2), now);
    assert!(subscriptions.confirm(&chunk).is_empty());
    let again = subscriptions.next_chunk(now).unwrap();
    assert_eq!(subscriptions.confirm(&again), [(topic(0), WishNumber(2))]);
}

/// What stands of so many topics when Redis forbids some of them, and the chunks that it took.
fn stands_but(count: usize, forbidden: &[usize]) -> (Subscriptions, usize, Instant) {
    let now = Instant::now();
    let mut subscriptions = Subscriptions::default();
    subscriptions.reset();
    for n in 0..count {
        subscriptions.wish(topic(n), wish(1), now);
    }
    let mut chunks = 0;
    while subscriptions.has_chunk() {
        let chunk = subscriptions.next_chunk(now).unwrap();
        chunks += 1;
        let is_forbidden = |t: &Topic| forbidden.iter().any(|n| *t == topic(*n));
        if !chunk.topics.iter().any(is_forbidden) {
            subscriptions.confirm(&chunk);
        } else if subscriptions.halve(&chunk) {
            subscriptions.put_back(chunk);
        } else {
            subscriptions.forbid(&chunk.topics, now);
            subscriptions.confirm(&chunk);
        }
    }
    (subscriptions, chunks, now)
}

#[test]
fn one_that_is_forbidden_holds_up_no_other_and_is_tried_again_alone() {
    let (mut subscriptions, chunks, now) = stands_but(1_000, &[0, 700]);
    assert!(chunks < 60, "{chunks} chunks");
    let stand = |subscriptions: &Subscriptions| {
        let states = subscriptions.topics.values().map(|known| known.state);
        states.filter(|state| *state == State::Standing).count()
    };
    assert_eq!(stand(&subscriptions), 998);
    assert_eq!(subscriptions.next_chunk(now), None);
    let due = subscriptions.next_retry().unwrap();
    assert_eq!(due, now + FORBIDDEN_RETRY);
    // What is wished for meanwhile goes first.
    subscriptions.wish(topic(1_000), wish(2), now);
    let chunk = subscriptions.next_chunk(due).unwrap();
    assert_eq!(chunk.topics, [topic(1_000)]);
    subscriptions.confirm(&chunk);
    for n in [0, 700] {
        let chunk = subscriptions.next_chunk(due).unwrap();
        assert_eq!(chunk.topics, [topic(n)]);
        let confirmed = subscriptions.confirm(&chunk);
        assert_eq!(confirmed, [(topic(n), WishNumber(1))]);
    }
    assert_eq!(subscriptions.forbidden(None), None);
}

#[test]
fn one_that_is_forbidden_is_so_until_it_is_heard_or_nobody_wants_it() {
    let (mut subscriptions, _, now) = stands_but(3, &[0, 1]);
    let [first, second] = [topic(0), topic(1)];
    assert_eq!(subscriptions.forbidden(Some(&second)), Some(&second));
    subscriptions.wish(second.clone(), None, now);
    assert_eq!(subscriptions.due(now + LINGER).len(), 1);
    assert_eq!(subscriptions.forbidden(Some(&second)), Some(&first));
    // While it is tried again it is not known to be heard.
    let retry = now + FORBIDDEN_RETRY;
    let chunk = subscriptions.next_chunk(retry).unwrap();
    assert_eq!(subscriptions.forbidden(None), Some(&first));
    subscriptions.forbid(&chunk.topics, retry);
    subscriptions.confirm(&chunk);
    assert_eq!(subscriptions.forbidden(None), Some(&first));
    // One that nobody wants is not tried again.
    subscriptions.wish(first.clone(), None, retry);
    assert_eq!(subscriptions.due(retry + LINGER), [first]);
    assert_eq!(subscriptions.forbidden(None), None);
    assert_eq!(subscriptions.next_chunk(retry + FORBIDDEN_RETRY), None);
}
