//! Publishes through the HTTP API as backends do: open loop, to topics, inboxes and everyone.
//!
//! In: a rate. Out: publications, and how each ended. Every publication is a task of its own, so
//! that an answer that does not come delays no other. An attempt that failed is repeated on
//! another node with the same idempotency key, for [`TRIES_FOR`] at most.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use super::app::App;
use super::calls;
use super::history::{Event, Id, Outcome, TopicIndex};
use super::run::{DATA_BYTES, Run};
use super::speech::data;
use super::stage::Stage;

/// Longest wait for one answer; a node gives up on Redis after two seconds.
const ANSWER_PATIENCE: Duration = Duration::from_secs(4);
/// Between the numbers of a publisher and of the one of the other app that has its user and its
/// idempotency keys.
pub(crate) const PUBLISHERS_APART: u32 = 8;
/// How long a publication is tried.
pub(crate) const TRIES_FOR: Duration = Duration::from_secs(12);
/// Between two attempts; a backend's rests grow.
pub(crate) const BETWEEN_TRIES: Duration = Duration::from_millis(150);
const BETWEEN_TRIES_MAX: Duration = Duration::from_millis(1_200);

/// What a publisher may publish to.
#[derive(Debug, Clone, Default)]
pub(crate) struct Targets {
    pub(crate) topics: Vec<TopicIndex>,
    pub(crate) inboxes: Vec<TopicIndex>,
    pub(crate) everyone: TopicIndex,
    /// How many inboxes all backends together have had.
    pub(crate) inboxes_had: Rc<Cell<usize>>,
}

impl Targets {
    /// Inboxes in turn, so that each gets something again soon after every heal.
    fn next_inbox(&self) -> TopicIndex {
        let had = self.inboxes_had.get();
        self.inboxes_had.set(had + 1);
        self.inboxes[had % self.inboxes.len()]
    }
}

/// See the module.
pub(crate) struct Backend {
    pub(crate) run: Rc<Run>,
    pub(crate) stage: Rc<Stage>,
    pub(crate) app: App,
    pub(crate) publisher: u32,
    pub(crate) every: Duration,
    pub(crate) targets: Targets,
    /// One of so many publications goes to everyone.
    pub(crate) everyone_one_of: u32,
}

/// How one attempt went, for one target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Attempt {
    Ok(fanfare_protocol::ids::Position),
    Not,
    Doubtful,
}

impl Attempt {
    /// What an answer with a `position` or an `error` says.
    pub(crate) fn of(answer: &Value) -> Self {
        if let Some(position) = super::speech::position(answer, "position") {
            return Self::Ok(position);
        }
        let error = answer.get("error").unwrap_or(answer);
        match (error["code"].as_str(), error["message"].as_str()) {
            (Some(code), Some(words)) if code != "internal" && !words.contains("unknown") => {
                Self::Not
            }
            _ => Self::Doubtful,
        }
    }

    /// How a publication ended whose attempts came to this.
    pub(crate) fn outcome(self) -> Outcome {
        match self {
            Self::Ok(position) => Outcome::Ok(position),
            Self::Not => Outcome::Fail,
            Self::Doubtful => Outcome::Unknown,
        }
    }
}

impl Backend {
    /// Publishes until the run is over.
    pub(crate) async fn publish(self, seed: u64) {
        let this = Rc::new(self);
        let mut random = StdRng::seed_from_u64(seed ^ u64::from(this.publisher));
        let mut ticks = interval(this.every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
        for number in 1_u32.. {
            ticks.tick().await;
            if this.run.is_over.get() {
                return;
            }
            let id = Id {
                publisher: this.publisher,
                number,
            };
            let next = || this.targets.next_inbox();
            let targets = if number.is_multiple_of(this.everyone_one_of) {
                vec![this.targets.everyone]
            } else {
                match random.random_range(0..4) {
                    0 => vec![next()],
                    1 => vec![next(), next()],
                    2 => this
                        .targets
                        .topics
                        .sample(&mut random, 2)
                        .copied()
                        .collect(),
                    _ => this
                        .targets
                        .topics
                        .choose(&mut random)
                        .copied()
                        .into_iter()
                        .collect(),
                }
            };
            let first_node = random.random_range(0..this.stage.nodes_count());
            let publishing = Rc::clone(&this).one(id, targets, first_node);
            tokio::task::spawn_local(publishing);
        }
    }

    /// One publication from its first attempt to its end.
    async fn one(self: Rc<Self>, id: Id, targets: Vec<TopicIndex>, mut node: usize) {
        let open = &self.run.open_publications;
        open.set(open.get() + 1);
        let begun = self.run.now();
        for topic in &targets {
            self.run.push(Event::Begun { id, topic: *topic });
        }
        let body = self.body(id, &targets, begun);
        let mut state = vec![Attempt::Not; targets.len()];
        let mut rest = BETWEEN_TRIES;
        while self.run.now() < begun + TRIES_FOR {
            let attempts = self.attempt(node, &body, targets.len()).await;
            for (state, attempt) in state.iter_mut().zip(attempts) {
                match (*state, attempt) {
                    (Attempt::Ok(_), _) | (Attempt::Doubtful, Attempt::Not) => {}
                    _ => *state = attempt,
                }
            }
            if state.iter().all(|state| matches!(state, Attempt::Ok(_))) {
                break;
            }
            node = (node + 1) % self.stage.nodes_count();
            sleep(rest).await;
            rest = (rest * 2).min(BETWEEN_TRIES_MAX);
        }
        for (topic, state) in targets.into_iter().zip(state) {
            self.run.push(Event::Ended {
                id,
                topic,
                outcome: state.outcome(),
                lane: None,
            });
        }
        open.set(open.get() - 1);
    }

    fn body(&self, id: Id, targets: &[TopicIndex], begun: Duration) -> Value {
        let names: Vec<_> = targets.iter().map(|topic| self.run.name(*topic)).collect();
        let mut body = json!({
            "data": data(id, begun, DATA_BYTES),
            "idempotency_key": format!("{}.{}", id.publisher % PUBLISHERS_APART, id.number),
        });
        match &names[..] {
            [everyone] if everyone == "@" => body["everyone"] = true.into(),
            _ => {
                let users: Option<Vec<_>> = names.iter().map(|n| n.strip_prefix('@')).collect();
                match users {
                    Some(users) => body["users"] = json!(users),
                    None => body["topics"] = json!(names),
                }
            }
        }
        body
    }

    /// What became of each target.
    async fn attempt(&self, node: usize, body: &Value, count: usize) -> Vec<Attempt> {
        let sent = calls::post(self.app, self.stage.api(node), "/v1/publish", body);
        let Ok(Some(answer)) = timeout(ANSWER_PATIENCE, sent).await else {
            return vec![Attempt::Doubtful; count];
        };
        let answer = answer.json();
        match answer["results"].as_array() {
            Some(results) if results.len() == count => results.iter().map(Attempt::of).collect(),
            _ => vec![Attempt::of(&answer); count],
        }
    }
}
