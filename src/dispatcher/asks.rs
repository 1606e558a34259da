//! The dispatcher's questions to the broker: at most one a topic, at the pace of its master.
//!
//! In: joins, breaks, confirmations, the sweep and links, which all want a topic to be asked about.
//! Out: answers, handed to the topic's link, or for a joining topic the place where it goes live.
//! What is asked is decided when it is the topic's turn, as the topic stands then: so what wants to
//! know while a question waits is served by that one, and while it is open by one more behind it. An
//! answer to a question of an earlier stay is dropped. Bounds: one question or one rest a topic, and
//! those of the lanes (`pace.rs`). A question that was not answered rests, longer each time up to
//! [`REST_MAX`] and by chance; then the topic waits for its turn again, and for as long as its master
//! is away. One topic that cannot be asked keeps no other from its answer.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use rustc_hash::FxHashMap;

use super::pace::{Ended, Lane, Need, Place};
use super::sequencer::{self, Question};
use super::{Dispatcher, TopicState};
use crate::apps::Apps;
use crate::broker::interest::WishNumber;
use crate::broker::{Broker, BrokerError, FeedNumber, HistoryPage, HistoryQuery, Page, SincePage};
use crate::config::Retention;
use fanfare_protocol::ids::{Position, Topic, TopicKind};

/// How long a question rests after the broker did not answer it for the first time, or where the
/// link wants to wait for what may still be on its way.
const REST: Duration = Duration::from_millis(200);
/// How often it is told that a question is refused.
const TELL_EVERY: Duration = Duration::from_secs(1);
/// The longest rest, about.
const REST_MAX: Duration = Duration::from_secs(10);
/// Entries of one repair page.
const PAGE: Page = Page {
    entries_max: 256,
    bytes_max: 1024 * 1024,
};
/// Bytes read to find where two timelines part. What does not fit is told as a gap.
const REWIND_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Where a topic's question is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asking {
    /// There is none.
    Idle,
    /// It waits for its turn.
    Waiting {
        ticket: u64,
        feed: FeedNumber,
        need: Need,
    },
    /// It was not answered and rests, or a link wants to wait.
    Resting { ticket: u64 },
    /// It is at the broker.
    Open,
}

/// A question of this module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum About {
    /// The newest id, which was there when it was last looked at, or not.
    Last { was_there: bool },
    /// What the topic's link asks.
    Sequencer(Question),
}

/// A question on its way to the broker.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) topic: Topic,
    pub(super) stay: WishNumber,
    pub(super) about: About,
    pub(super) retention: Retention,
    feed: FeedNumber,
    at: Instant,
}

/// What the broker says.
pub(super) enum Said {
    Last(Result<Option<Position>, BrokerError>),
    Since(Result<SincePage, BrokerError>),
    Newest(Result<HistoryPage, BrokerError>),
}

pub(super) struct Answer {
    pub(super) asked: Asked,
    pub(super) said: Said,
}

/// What waits for its turn, and what rests.
#[derive(Debug, Default)]
pub(super) struct Asks {
    pub(super) lanes: FxHashMap<FeedNumber, Lane>,
    resting: BinaryHeap<Reverse<(Instant, u64, RestingTopic)>>,
    tickets: u64,
    /// When it was told last that one is refused.
    told_at: Option<Instant>,
}

/// Tickets differ, so that topics are never compared.
#[derive(Debug)]
struct RestingTopic(Topic);

impl PartialEq for RestingTopic {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for RestingTopic {}

impl PartialOrd for RestingTopic {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for RestingTopic {
    fn cmp(&self, _: &Self) -> std::cmp::Ordering {
        std::cmp::Ordering::Equal
    }
}

impl Asks {
    fn ticket(&mut self) -> u64 {
        self.tickets += 1;
        self.tickets
    }

    /// Tells that a topic cannot be asked about though its master answers, once a second at most.
    fn tell_refused(&mut self, topic: &Topic, error: &BrokerError, now: Instant) {
        let is_refusal = matches!(
            error,
            BrokerError::Refused(_) | BrokerError::Broken(_) | BrokerError::Unexpected(_)
        );
        let is_over = |at: Instant| now.saturating_duration_since(at) >= TELL_EVERY;
        if is_refusal && self.told_at.is_none_or(is_over) {
            self.told_at = Some(now);
            tracing::warn!(
                event = "question_refused",
                topic = topic.name(),
                error = error as &(dyn std::error::Error + 'static),
                "a topic cannot be asked about; who joins it waits, and it is asked again"
            );
        }
    }

    /// How many topics wait or rest, places that were left included.
    pub(super) fn waiting(&self) -> usize {
        let waiting = self.lanes.values().map(Lane::waiting);
        waiting.sum::<usize>() + self.resting.len()
    }
}

impl TopicState {
    fn need(&self) -> Need {
        match self.link.open_question() {
            _ if self.link.is_joining() => Need::Join,
            Some(_) => Need::Repair,
            None => Need::Compare,
        }
    }

    fn about(&self) -> About {
        match self.link.open_question() {
            Some(question) => About::Sequencer(question),
            None => About::Last {
                was_there: self.link.last() > Position::ZERO,
            },
        }
    }
}

impl Asked {
    fn is_page(&self) -> bool {
        matches!(self.about, About::Sequencer(_))
    }

    async fn ask(self, broker: Arc<Broker>) -> Answer {
        let Self {
            topic, retention, ..
        } = &self;
        let said = match self.about {
            About::Last { was_there } => {
                Said::Last(broker.last(topic, *retention, was_there).await)
            }
            About::Sequencer(Question::Since(since)) => {
                Said::Since(broker.since(topic, since, *retention, PAGE).await)
            }
            About::Sequencer(Question::Newest) => {
                let query = newest_query(topic, *retention);
                Said::Newest(broker.history(query).await)
            }
        };
        Answer { asked: self, said }
    }
}

impl Answer {
    /// The feed whose master answered; `None`: it did not.
    pub(super) fn answered_by(&self) -> Option<FeedNumber> {
        (self.said.ended() == Ended::Answered).then_some(self.asked.feed)
    }
}

impl Said {
    fn error(&self) -> Option<&BrokerError> {
        match self {
            Self::Last(said) => said.as_ref().err(),
            Self::Since(said) => said.as_ref().err(),
            Self::Newest(said) => said.as_ref().err(),
        }
    }

    fn ended(&self) -> Ended {
        match self.error() {
            None => Ended::Answered,
            Some(BrokerError::Unknown(_)) => Ended::Unanswered,
            Some(_) => Ended::Refused,
        }
    }
}

impl Dispatcher {
    /// These subscriptions stand. A topic that was live is heard elsewhere since then.
    pub(super) fn confirmed(&mut self, topic: &Topic, stay: WishNumber) {
        let Some(state) = self.topics.get_mut(topic).filter(|s| s.stay == stay) else {
            return;
        };
        state.is_confirmed = true;
        if state.link.is_joining() {
            self.want_asked(topic);
        } else {
            self.doubt(topic);
        }
    }

    /// Something of this topic may be missing. For one that is not live yet the newest id would say
    /// too early where it begins: its subscription may not stand.
    pub(super) fn doubt(&mut self, topic: &Topic) {
        let Some(state) = self.topics.get_mut(topic) else {
            return;
        };
        let is_live = state.link.is_live();
        state.fails = 0;
        if !is_live {
            self.step(topic, |link, steps| link.check(steps));
        }
        let Some(state) = self.topics.get(topic) else {
            return;
        };
        // What rests has waited for Redis to come back.
        let rests = matches!(state.asking, Asking::Resting { .. });
        if is_live || rests {
            self.want_asked(topic);
        }
    }

    /// Lets the topic be asked about, if it may be: by the question that waits, by one behind the
    /// one that is open, or by a new one.
    pub(super) fn want_asked(&mut self, topic: &Topic) {
        let Some(state) = self.topics.get_mut(topic) else {
            return;
        };
        if state.link.is_joining() && !state.is_confirmed {
            return;
        }
        if state.asking == Asking::Open {
            state.ask_again = true;
            return;
        }
        let needed = state.need();
        let Some(here) = self.broker.feed_of(topic) else {
            return self.rest(topic);
        };
        if let Asking::Waiting { feed, need, .. } = state.asking
            && feed == here
            && need <= needed
        {
            return;
        }
        let ticket = self.asks.ticket();
        state.asking = Asking::Waiting {
            ticket,
            feed: here,
            need: needed,
        };
        let place = Place {
            topic: topic.clone(),
            ticket,
        };
        self.lane(here).wait(needed, place);
    }

    /// The way to the master of this feed.
    pub(super) fn lane(&mut self, feed: FeedNumber) -> &mut Lane {
        let broker = &self.broker;
        let is_up = || broker.takes_questions(feed) == Some(true);
        let lane = self.asks.lanes.entry(feed);
        lane.or_insert_with(|| Lane::new(is_up()))
    }

    /// Lets the topic be asked about in a while.
    pub(super) fn rest(&mut self, topic: &Topic) {
        let Some(state) = self.topics.get_mut(topic) else {
            return;
        };
        if state.asking == Asking::Open {
            state.ask_again = true;
            return;
        }
        let ticket = self.asks.ticket();
        state.asking = Asking::Resting { ticket };
        let rest = REST
            .saturating_mul(1 << state.fails.min(16))
            .min(REST_MAX)
            .mul_f64(1.0 + rand::random::<f64>() / 2.0);
        let place = (self.now + rest, ticket, RestingTopic(topic.clone()));
        self.asks.resting.push(Reverse(place));
    }

    /// Whoever has rested waits for its turn.
    pub(super) fn wake(&mut self) {
        let now = self.now;
        while let Some(Reverse((at, ..))) = self.asks.resting.peek()
            && *at <= now
            && let Some(Reverse((_, ticket, RestingTopic(topic)))) = self.asks.resting.pop()
        {
            let asking = self.topics.get(&topic).map(|state| state.asking);
            if asking == Some(Asking::Resting { ticket }) {
                self.want_asked(&topic);
            }
        }
    }

    /// Looks which masters can be asked. What waits for one that is used no more waits elsewhere.
    pub(super) fn look_at_masters(&mut self) {
        let mut gone = Vec::new();
        let broker = &self.broker;
        self.asks.lanes.retain(|feed, lane| {
            let takes = broker.takes_questions(*feed);
            lane.is_up = takes == Some(true);
            if takes.is_none() {
                gone.extend(lane.drain());
            }
            takes.is_some()
        });
        for Place { topic, ticket } in gone {
            self.place_again(&topic, ticket);
        }
    }

    fn place_again(&mut self, topic: &Topic, ticket: u64) {
        let Some(state) = self.topics.get_mut(topic) else {
            return;
        };
        if matches!(state.asking, Asking::Waiting { ticket: own, .. } if own == ticket) {
            state.asking = Asking::Idle;
            self.want_asked(topic);
        }
    }

    /// The next question, which is open from now on, if one may be asked.
    pub(super) fn next_question(&mut self) -> Option<Asked> {
        let now = self.now;
        loop {
            let mut lanes = self.asks.lanes.iter_mut();
            let (feed, place) = lanes.find_map(|(feed, lane)| Some((*feed, lane.next(now)?)))?;
            let Place { topic, ticket } = place;
            let Some(state) = self.topics.get_mut(&topic) else {
                continue;
            };
            if !matches!(state.asking, Asking::Waiting { ticket: own, .. } if own == ticket) {
                continue;
            }
            if self.broker.feed_of(&topic) != Some(feed) {
                self.place_again(&topic, ticket);
                continue;
            }
            state.asking = Asking::Open;
            // Its app may have changed since it was joined.
            state.retention = retention(&self.apps, &topic);
            state.link.keep(state.retention);
            let asked = Asked {
                about: state.about(),
                stay: state.stay,
                retention: state.retention,
                topic,
                feed,
                at: now,
            };
            let lane = self.asks.lanes.get_mut(&feed).expect("found there");
            lane.opened(&asked.topic, asked.is_page());
            self.metrics.control.questions.add(1);
            return Some(asked);
        }
    }

    /// Sends questions to the broker while there is room.
    pub(super) fn ask(&mut self) {
        while let Some(asked) = self.next_question() {
            let asking: BoxFuture<'static, _> = Box::pin(asked.ask(Arc::clone(&self.broker)));
            self.asking.push(asking);
        }
    }

    pub(super) fn answered(&mut self, answer: Answer) {
        let Answer { asked, said } = answer;
        let now = self.now;
        let ended = said.ended();
        // A lane that is gone has no window.
        if let Some(lane) = self.asks.lanes.get_mut(&asked.feed) {
            lane.ended(asked.at, now, asked.is_page(), ended);
        }
        if ended != Ended::Answered {
            self.metrics.control.question_errors.add(1);
        }
        let topic = &asked.topic;
        let Some(state) = self.topics.get_mut(topic).filter(|s| s.stay == asked.stay) else {
            return;
        };
        state.asking = Asking::Idle;
        let again = std::mem::take(&mut state.ask_again);
        if ended == Ended::Answered {
            state.fails = 0;
            state.checked_at = Some(now);
        } else {
            state.fails = state.fails.saturating_add(1);
        }
        if let (1, Some(error)) = (state.fails, said.error()) {
            self.asks.tell_refused(topic, error, now);
        }
        match (said, asked.about) {
            (Said::Last(Ok(last)), _) => self.last_is(topic, last.unwrap_or(Position::ZERO)),
            (Said::Since(Ok(page)), About::Sequencer(Question::Since(since))) => {
                self.step(topic, |link, steps| link.answered(since, page, steps));
            }
            (Said::Newest(Ok(page)), _) => {
                self.step(topic, |link, steps| link.newest(page.entries, steps));
            }
            (_, About::Sequencer(question)) => {
                self.step(topic, |link, steps| link.unanswered(question, steps));
            }
            (_, About::Last { .. }) => self.rest(topic),
        }
        if again {
            self.want_asked_unless_it_rests(topic);
        }
    }

    /// A doubt that came while a question was open which then failed is served by the next one.
    fn want_asked_unless_it_rests(&mut self, topic: &Topic) {
        let asking = self.topics.get(topic).map(|state| state.asking);
        if !matches!(asking, Some(Asking::Resting { .. })) {
            self.want_asked(topic);
        }
    }

    /// The broker's newest id of a topic: a joining topic goes live there, a live one whose last
    /// delivery differs is checked.
    fn last_is(&mut self, topic: &Topic, newest: Position) {
        let Some(state) = self.topics.get_mut(topic) else {
            return;
        };
        if state.link.is_joining() {
            for (worker, wish) in std::mem::take(&mut state.waiting) {
                self.workers.send_joined(worker, topic, newest, wish);
            }
            self.step(topic, |link, steps| link.begin(newest, steps));
        } else if state.link.is_live() && state.link.last() != newest {
            self.step(topic, |link, steps| link.check(steps));
        }
    }
}

/// What its app says of a topic.
pub(super) fn retention(apps: &Apps, topic: &Topic) -> Retention {
    match topic.kind() {
        TopicKind::Presence => crate::broker::member::PRESENCE_RETENTION,
        _ => apps.of_topic(topic).namespace(topic).retention(),
    }
}

fn newest_query(topic: &Topic, retention: Retention) -> HistoryQuery {
    HistoryQuery {
        topic: topic.clone(),
        retention,
        since: None,
        until: None,
        limit: u32::try_from(sequencer::RECENT_MAX).expect("a small constant"),
        bytes_max: REWIND_BYTES_MAX,
        reverse: true,
    }
}
