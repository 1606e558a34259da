//! The pace at which the dispatcher asks, against a Redis whose speed the test sets, in a time that
//! the test moves.
//!
//! In: thousands of live topics, breaks, a master that is slow or away. Out: how often each topic was
//! asked about, and what waits.

use std::collections::VecDeque;

use super::*;
use crate::broker::BrokerError;
use crate::dispatcher::asks::{About, Answer, Asked, Asking, Said};
use crate::dispatcher::pace::{JITTER, MEMBERS_EVERY, WINDOW_MAX};
use crate::dispatcher::sequencer::Question;
use fanfare_protocol::ids::TopicKind;

const FEED: FeedNumber = FeedNumber(0);
const STEP: Duration = Duration::from_millis(5);
/// What an answer may take, as for every command.
const TIMEOUT: Duration = Duration::from_secs(2);
/// What a script costs a Redis that has a tenth of its speed, and 25 nodes that ask.
const SLOW: Duration = Duration::from_micros(67 * 25);
const FAST: Duration = Duration::from_micros(7);

/// What is taken out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Without {
    Nothing,
    /// At most one question about a topic is open.
    OneQuestion,
}

/// See the module.
struct World {
    dispatcher: Dispatcher,
    topics: Vec<Topic>,
    without: Without,
    /// What one question costs Redis.
    cost: Duration,
    /// When Redis has done all that it was asked.
    busy_until: Instant,
    open: VecDeque<(Instant, Answer)>,
    asked: FxHashMap<Topic, usize>,
    /// How many questions there were when a topic was asked about that brings messages.
    messages_at: Vec<usize>,
    /// The most questions about one topic that were open at once.
    most_open: usize,
    timeouts: usize,
    _workers: Vec<mpsc::Receiver<Inbound>>,
    _feed: Feed,
}

impl World {
    /// So many live topics.
    fn new(topics_count: usize, without: Without) -> Self {
        let topics = (0..topics_count).map(|n| topic(&format!("t{n}")));
        Self::of(topics.collect(), without)
    }

    /// These topics, live.
    fn of(topics: Vec<Topic>, without: Without) -> Self {
        let metrics = Arc::new(Metrics::new(1));
        let (memory, feed) = MemoryBroker::new(Clock::System, Arc::clone(&metrics));
        let (handle, queue) = WorkerHandle::bounded(Arc::default(), 2 * topics.len());
        let mut dispatcher = Dispatcher::new(
            Arc::new(Broker::Memory(memory)),
            config(),
            metrics,
            Arc::default(),
            vec![handle],
            Arc::default(),
        );
        for (topic, n) in topics.iter().zip(1..) {
            dispatcher.wish(0, topic.clone(), Some(WishNumber(n)));
            let stay = dispatcher.topics[topic].stay;
            dispatcher.confirmed(topic, stay);
        }
        let busy_until = dispatcher.now;
        let mut world = Self {
            dispatcher,
            topics,
            without: Without::Nothing,
            cost: FAST,
            busy_until,
            open: VecDeque::new(),
            asked: FxHashMap::default(),
            messages_at: Vec::new(),
            most_open: 0,
            timeouts: 0,
            _workers: vec![queue],
            _feed: feed,
        };
        world.go_on_until_idle();
        assert!(
            world
                .topics
                .iter()
                .all(|t| world.dispatcher.topics[t].link.is_live())
        );
        world.asked.clear();
        world.messages_at.clear();
        world.most_open = 0;
        world.without = without;
        world
    }

    fn break_feed(&mut self) {
        self.dispatcher.feed_event(FeedEvent::Break(FEED));
    }

    fn is_idle(&self) -> bool {
        let mut states = self.dispatcher.topics.values();
        self.open.is_empty() && states.all(|s| s.asking == Asking::Idle)
    }

    /// Time passes.
    fn go_on(&mut self, time: Duration) {
        let until = self.dispatcher.now + time;
        while self.dispatcher.now < until {
            self.step();
        }
    }

    /// Returns how long it took.
    fn go_on_until_idle(&mut self) -> Duration {
        let since = self.dispatcher.now;
        while !self.is_idle() {
            self.step();
            assert!(
                self.dispatcher.now - since < Duration::from_secs(600),
                "never idle"
            );
        }
        self.dispatcher.now - since
    }

    fn step(&mut self) {
        self.dispatcher.now += STEP;
        let now = self.dispatcher.now;
        while self.open.front().is_some_and(|(at, _)| *at <= now) {
            let (_, answer) = self.open.pop_front().expect("there is one");
            self.dispatcher.answered(answer);
        }
        self.dispatcher.wake();
        self.dispatcher.sweep();
        while let Some(asked) = self.dispatcher.next_question() {
            *self.asked.entry(asked.topic.clone()).or_default() += 1;
            if asked.topic.kind() != TopicKind::Presence {
                self.messages_at.push(self.asked.values().sum());
            }
            if self.without == Without::OneQuestion {
                let state = self.dispatcher.topics.get_mut(&asked.topic);
                state.expect("it is asked about").asking = Asking::Idle;
            }
            self.ask(asked);
        }
    }

    /// Redis does one after the other, also what nobody waits for any more.
    fn ask(&mut self, asked: Asked) {
        let now = self.dispatcher.now;
        self.busy_until = self.busy_until.max(now) + self.cost;
        let is_late = self.busy_until > now + TIMEOUT;
        let error = || BrokerError::Unknown("timeout".into());
        let said = match asked.about {
            About::Last { .. } if is_late => Said::Last(Err(error())),
            About::Last { .. } => Said::Last(Ok(None)),
            About::Sequencer(Question::Since(_) | Question::Newest) => {
                panic!("nothing was published")
            }
        };
        self.timeouts += usize::from(is_late);
        let at = self.busy_until.min(now + TIMEOUT);
        let is_of_it = |(_, answer): &&(Instant, Answer)| answer.asked.topic == asked.topic;
        let open = 1 + self.open.iter().filter(is_of_it).count();
        self.most_open = self.most_open.max(open);
        self.open.push_back((at, Answer { asked, said }));
    }

    /// The most questions about one topic.
    fn most(&self) -> usize {
        self.asked.values().copied().max().unwrap_or(0)
    }
}

#[test]
fn a_slow_redis_is_asked_at_its_pace_and_about_each_topic_once() {
    let mut world = World::new(20_000, Without::Nothing);
    world.cost = SLOW;
    world.break_feed();
    world.go_on(Duration::from_secs(45));
    world.cost = FAST;
    world.go_on_until_idle();
    assert_eq!(world.asked.len(), 20_000, "every topic was asked about");
    assert!(
        world.most() <= 2,
        "{} questions about one topic",
        world.most()
    );
    assert_eq!(world.timeouts, 0);
}

#[test]
fn breaks_in_a_row_are_served_by_the_questions_that_wait() {
    let mut world = World::new(20_000, Without::Nothing);
    world.cost = SLOW;
    for _ in 0..3 {
        world.break_feed();
        world.go_on(Duration::from_secs(2));
    }
    world.go_on(Duration::from_secs(39));
    world.cost = FAST;
    world.go_on_until_idle();
    let sum: usize = world.asked.values().sum();
    assert!(sum < 30_000, "{sum} questions about 20,000 topics");
    assert_eq!(world.timeouts, 0);
}

#[test]
fn a_doubt_about_what_is_asked_already_waits_for_the_answer() {
    for (without, most) in [(Without::Nothing, 1), (Without::OneQuestion, 2)] {
        let mut world = World::new(40, without);
        world.cost = STEP;
        let mut topics = world.topics.clone();
        for _ in 0..2 {
            let doubt = FeedEvent::Doubt(topics.clone());
            world.dispatcher.feed_event(doubt);
            world.step();
            topics.reverse();
        }
        world.go_on_until_idle();
        assert_eq!(world.most_open, most, "{without:?}");
        assert_eq!(world.asked.len(), 40);
    }
}

#[test]
fn an_outage_of_ten_minutes_costs_nothing_and_leaves_one_question_a_topic() {
    let mut world = World::new(2_000, Without::Nothing);
    world.dispatcher.lane(FEED).is_up = false;
    // Connections come and go, and Redis does not.
    for _ in 0..10 {
        world.break_feed();
        world.go_on(Duration::from_secs(60));
        assert_eq!(world.dispatcher.asks.waiting(), 2_000);
    }
    assert_eq!(world.most(), 0);
    world.dispatcher.lane(FEED).is_up = true;
    world.go_on_until_idle();
    assert_eq!((world.most(), world.asked.len()), (1, 2_000));
}

#[test]
fn a_swift_redis_answers_everything_within_a_second() {
    let mut world = World::new(20_000, Without::Nothing);
    world.break_feed();
    let took = world.go_on_until_idle();
    assert!(took < JITTER + Duration::from_secs(1), "{took:?}");
    assert_eq!(world.most(), 1);
    let window = world.dispatcher.lane(FEED).window_size();
    assert!(window <= WINDOW_MAX, "{window}");
}

#[test]
fn a_topic_that_cannot_be_asked_about_rests_longer_and_alone() {
    let mut world = World::new(100, Without::Nothing);
    let bad = world.topics[0].clone();
    world.break_feed();
    let until = world.dispatcher.now + Duration::from_secs(55);
    while world.dispatcher.now < until {
        world.step();
        for (_, answer) in &mut world.open {
            if answer.asked.topic == bad {
                let error = BrokerError::Unexpected("WRONGTYPE".into());
                answer.said = Said::Last(Err(error));
            }
        }
    }
    assert!(
        (4..14).contains(&world.asked[&bad]),
        "{}",
        world.asked[&bad]
    );
    world.asked.remove(&bad);
    assert_eq!((world.most(), world.asked.len()), (1, 99));
}

#[test]
fn messages_are_asked_about_before_changes_of_members() {
    let mut topics: Vec<_> = (0..20_000)
        .map(|n| topic(&format!("t{n}")).presence())
        .collect();
    topics.extend((0..300).map(|n| topic(&format!("m{n}"))));
    let mut world = World::of(topics, Without::Nothing);
    world.cost = SLOW;
    world.break_feed();
    while world.messages_at.len() < 300 {
        world.step();
    }
    // All but one of eight were about messages, although both were in doubt at the same time.
    let last = world.messages_at[299];
    let most = 300 * MEMBERS_EVERY / (MEMBERS_EVERY - 1) + 1;
    assert!(last <= most, "{last} questions until the last of messages");
    assert!(last > 300, "members had no share");
    world.cost = FAST;
    world.go_on_until_idle();
    assert_eq!((world.most(), world.asked.len()), (1, 20_300));
}
