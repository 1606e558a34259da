//! The dispatcher's questions to the broker: asked a few at a time, answered in any order.
//!
//! In: what links and the sweep want to know. Out: answers, handed to the topic's link, or for a
//! joining topic the place where it goes live. Bounds: [`ASKS_MAX`] questions at the broker; those
//! that wait are bounded by topics, because a link has one open question. A question that was not
//! answered rests for [`RETRY`] and is asked again as the link stands then, for ever.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::link::{self, Link, Question};
use super::{Dispatcher, Stage};
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
    Link(Topic, Question),
    Last(Vec<Topic>),
}

pub(super) enum Answer {
    Since(Topic, Position, Result<SincePage, BrokerError>),
    Newest(Topic, Result<HistoryPage, BrokerError>),
    Last(Vec<Topic>, Result<Vec<Option<Position>>, BrokerError>),
}

/// A question that rests for [`RETRY`].
pub(super) fn later(ask: Ask) -> (Instant, Ask) {
    (Instant::now() + RETRY, ask)
}

impl Dispatcher {
    pub(super) fn read_last(&mut self, topics: Vec<Topic>) {
        for chunk in topics.chunks(TOPICS_PER_ASK) {
            self.to_ask.push_back(Ask::Last(chunk.to_vec()));
        }
    }

    /// Sends questions to the broker while there are places.
    pub(super) fn ask(&mut self) {
        while self.asking.len() < ASKS_MAX
            && let Some(ask) = self.to_ask.pop_front()
        {
            let broker = Arc::clone(&self.broker);
            match ask {
                Ask::Link(topic, question) => {
                    let Some(state) = self.topics.get(&topic) else {
                        continue;
                    };
                    let retention = state.retention;
                    self.asking.push(Box::pin(async move {
                        match question {
                            Question::Since(since) => {
                                let page = broker.since(&topic, since, retention, PAGE).await;
                                Answer::Since(topic, since, page)
                            }
                            Question::Newest => {
                                let query = newest_query(&topic, retention);
                                Answer::Newest(topic, broker.history(query).await)
                            }
                        }
                    }));
                }
                Ask::Last(topics) => {
                    let with: Vec<_> = topics
                        .iter()
                        .filter_map(|t| Some((t.clone(), self.topics.get(t)?.retention)))
                        .collect();
                    if with.is_empty() {
                        continue;
                    }
                    self.asking.push(Box::pin(async move {
                        let last = broker.last(&with).await;
                        Answer::Last(with.into_iter().map(|(t, _)| t).collect(), last)
                    }));
                }
            }
        }
    }

    pub(super) fn answered(&mut self, answer: Answer) {
        match answer {
            Answer::Since(topic, since, Ok(page)) => {
                self.step(&topic, |link, steps| link.answered(since, page, steps));
            }
            Answer::Newest(topic, Ok(page)) => {
                self.step(&topic, |link, steps| link.newest(page.entries, steps));
            }
            Answer::Since(topic, since, Err(_)) => {
                let question = Question::Since(since);
                self.step(&topic, |link, steps| link.unanswered(question, steps));
            }
            Answer::Newest(topic, Err(_)) => {
                let question = Question::Newest;
                self.step(&topic, |link, steps| link.unanswered(question, steps));
            }
            Answer::Last(topics, Ok(last)) => {
                for (topic, last) in topics.iter().zip(last) {
                    self.last_is(topic, last);
                }
            }
            Answer::Last(topics, Err(_)) => self.resting.push(later(Ask::Last(topics))),
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
            Stage::Joining { early, overflowed } => {
                let (early, overflowed) = (std::mem::take(early), *overflowed);
                state.stage = Stage::Live(Link::new(newest, state.retention));
                for worker in &state.workers {
                    self.workers.send_joined(*worker, topic, newest);
                }
                self.step(topic, |link, steps| {
                    for entry in early.into_iter().filter(|e| e.position > newest) {
                        link.arrived(entry, steps);
                    }
                    if overflowed {
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
