//! The dispatcher's questions to the broker: asked a few at a time, answered in any order.
//!
//! In: what links and the sweep want to know. Out: answers, handed to the topic's link, or for a
//! joining topic the place where it goes live; an answer to a question of an earlier stay is
//! dropped. Bounds: [`ASKS_MAX`] questions at the broker; those
//! that wait are bounded by topics, because a link has one open question. A question that was not
//! answered rests for [`RETRY`] and is asked again as the link stands then, for ever.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::link::{self, Link, Question};
use super::{Dispatcher, Stage};
use crate::broker::interest::WishNumber;
use crate::broker::{BrokerError, HistoryPage, HistoryQuery, Page, SincePage};
use crate::config::Retention;
use crate::protocol::ids::{Position, Topic};

/// Questions at the broker at once. 32 full streams a call are the sweet spot of reading many
/// streams (2.3 µs an entry; 256 of them hold Redis for 12 ms).
pub(super) const ASKS_MAX: usize = 32;
/// How long a question rests after the broker did not answer it.
const RETRY: Duration = Duration::from_millis(200);
/// Topics whose last ids are asked for together.
const TOPICS_PER_ASK: usize = 256;
/// Entries of one repair page.
const PAGE: Page = Page {
    entries_max: 256,
    bytes_max: 1024 * 1024,
};
/// Bytes read to find where two timelines part. What does not fit is told as a gap.
const REWIND_BYTES_MAX: usize = 4 * 1024 * 1024;

/// A question for the broker.
#[derive(Debug, Clone)]
pub(super) enum Ask {
    Link(Topic, WishNumber, Question),
    Last(Vec<(Topic, WishNumber)>),
}

pub(super) enum Answer {
    Since(Topic, WishNumber, Position, Result<SincePage, BrokerError>),
    Newest(Topic, WishNumber, Result<HistoryPage, BrokerError>),
    Last(
        Vec<(Topic, WishNumber)>,
        Result<Vec<Option<Position>>, BrokerError>,
    ),
}

/// A question that rests for [`RETRY`].
pub(super) fn later(ask: Ask) -> (Instant, Ask) {
    (Instant::now() + RETRY, ask)
}

impl Dispatcher {
    /// Whether this stay in the topic is the present one.
    pub(super) fn is_staying(&self, topic: &Topic, stay: WishNumber) -> bool {
        self.topics.get(topic).is_some_and(|s| s.stay == stay)
    }

    pub(super) fn read_last(&mut self, stays: &[(Topic, WishNumber)]) {
        for chunk in stays.chunks(TOPICS_PER_ASK) {
            self.to_ask.push_back(Ask::Last(chunk.to_vec()));
        }
    }

    /// Compares the last ids of those topics that are live. For one that is not, the id would say
    /// too early where it begins: its subscription may not stand yet.
    pub(super) fn compare_last(&mut self, topics: Vec<Topic>) {
        let live = |topic: Topic| {
            let state = self.topics.get(&topic)?;
            matches!(state.stage, Stage::Live(_)).then_some((topic, state.stay))
        };
        let stays: Vec<_> = topics.into_iter().filter_map(live).collect();
        self.read_last(&stays);
    }

    /// Sends questions to the broker while there are places.
    pub(super) fn ask(&mut self) {
        while self.asking.len() < ASKS_MAX
            && let Some(ask) = self.to_ask.pop_front()
        {
            let broker = Arc::clone(&self.broker);
            match ask {
                Ask::Link(topic, stay, question) => {
                    let present = self.topics.get(&topic).filter(|s| s.stay == stay);
                    let Some(state) = present else {
                        continue;
                    };
                    let retention = state.retention;
                    self.asking.push(Box::pin(async move {
                        match question {
                            Question::Since(since) => {
                                let page = broker.since(&topic, since, retention, PAGE).await;
                                Answer::Since(topic, stay, since, page)
                            }
                            Question::Newest => {
                                let query = newest_query(&topic, retention);
                                Answer::Newest(topic, stay, broker.history(query).await)
                            }
                        }
                    }));
                }
                Ask::Last(mut stays) => {
                    stays.retain(|(topic, stay)| self.is_staying(topic, *stay));
                    let Some((first, _)) = stays.first() else {
                        continue;
                    };
                    // Each master is asked for its own: one that is away holds up no other.
                    let feed = self.broker.feed_of(first);
                    let is_of_it = |(topic, _): &(Topic, _)| self.broker.feed_of(topic) == feed;
                    let (stays, others): (Vec<_>, Vec<_>) = stays.into_iter().partition(is_of_it);
                    if !others.is_empty() {
                        self.to_ask.push_back(Ask::Last(others));
                    }
                    let with: Vec<_> = stays
                        .iter()
                        .filter_map(|(t, _)| Some((t.clone(), self.topics.get(t)?.retention)))
                        .collect();
                    self.asking.push(Box::pin(async move {
                        let last = broker.last(&with).await;
                        Answer::Last(stays, last)
                    }));
                }
            }
        }
    }

    pub(super) fn answered(&mut self, answer: Answer) {
        match answer {
            Answer::Since(topic, stay, ..) | Answer::Newest(topic, stay, _)
                if !self.is_staying(&topic, stay) => {}
            Answer::Since(topic, _, since, Ok(page)) => {
                self.step(&topic, |link, steps| link.answered(since, page, steps));
            }
            Answer::Newest(topic, _, Ok(page)) => {
                self.step(&topic, |link, steps| link.newest(page.entries, steps));
            }
            Answer::Since(topic, _, since, Err(_)) => {
                let question = Question::Since(since);
                self.step(&topic, |link, steps| link.unanswered(question, steps));
            }
            Answer::Newest(topic, _, Err(_)) => {
                let question = Question::Newest;
                self.step(&topic, |link, steps| link.unanswered(question, steps));
            }
            Answer::Last(stays, Ok(last)) => {
                for ((topic, stay), last) in stays.iter().zip(last) {
                    if self.is_staying(topic, *stay) {
                        self.last_is(topic, last);
                    }
                }
            }
            Answer::Last(stays, Err(_)) => self.resting.push(later(Ask::Last(stays))),
        }
    }

    /// The broker's newest id of a topic: a joining topic goes live there, a live one whose last
    /// delivery differs is checked.
    fn last_is(&mut self, topic: &Topic, newest: Option<Position>) {
        let Some(state) = self.topics.get_mut(topic) else {
            return;
        };
        let newest = newest.unwrap_or(Position::ZERO);
        match &mut state.stage {
            Stage::Live(link) => {
                if link.last() != newest {
                    self.step(topic, |link, steps| link.check(steps));
                }
            }
            Stage::Joining {
                waiting,
                early,
                in_doubt,
            } => {
                let (early, in_doubt) = (std::mem::take(early), *in_doubt);
                for (worker, wish) in std::mem::take(waiting) {
                    self.workers.send_joined(worker, topic, newest, wish);
                }
                state.stage = Stage::Live(Link::new(newest, state.retention));
                self.step(topic, |link, steps| {
                    for entry in early.into_iter().filter(|e| e.position > newest) {
                        link.arrived(entry, steps);
                    }
                    if in_doubt {
                        link.check(steps);
                    }
                });
            }
        }
    }
}

fn newest_query(topic: &Topic, retention: Retention) -> HistoryQuery {
    HistoryQuery {
        topic: topic.clone(),
        retention,
        since: None,
        until: None,
        limit: u32::try_from(link::RECENT_MAX).expect("a small constant"),
        bytes_max: REWIND_BYTES_MAX,
        reverse: true,
    }
}
