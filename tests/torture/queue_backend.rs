//! Hands entries to the durable queue by the HTTP API, in lists.
//!
//! In: a rate. Out: lists of 1 to [`LIST_MAX`] entries of any target and priority, some delayed, each
//! entry with an idempotency key. A list begins when everything of the one before has ended. What was
//! not answered with 202 is repeated on another node under its key, in its order, until it is, or
//! [`TRIES_AFTER_END`] after the end of the run. Where Redis loses nothing, some lists are handed over
//! once more afterwards: each entry must be answered as the first time.

use std::rc::Rc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::app::App;
use super::backend::Attempt;
use super::calls;
use super::history::{EntryName, Taken};
use super::queue::{Numbers, body};
use super::run::Run;
use super::stage::Stage;
use fanfare_protocol::ids::Position;

/// Most entries of a list.
const LIST_MAX: u32 = 50;
/// Longest wait for an answer; a node gives up on Redis after two seconds.
const ANSWER_PATIENCE: Duration = Duration::from_secs(4);
/// Between two attempts at first, and at most.
const REST: Duration = Duration::from_millis(100);
const REST_MAX: Duration = Duration::from_millis(1_000);
/// How long an entry is tried when the run is over.
pub(crate) const TRIES_AFTER_END: Duration = Duration::from_secs(15);
/// How far ahead delayed entries are due, in milliseconds.
const DUE_IN_MS: std::ops::Range<u64> = 200..3_000;

/// See the module.
pub(crate) struct QueueBackend {
    pub(crate) run: Rc<Run>,
    pub(crate) stage: Rc<Stage>,
    pub(crate) app: App,
    pub(crate) numbers: Numbers,
    /// Between two entries, in the mean.
    pub(crate) every: Duration,
    pub(crate) may_delay: bool,
    /// Whether lists that were taken are handed over again.
    pub(crate) repeats: bool,
}

/// An entry that was not taken yet.
struct Open {
    name: EntryName,
    body: Value,
    is_doubtful: bool,
}

/// What an answer says of an entry.
enum Answered {
    /// The queue has it, under this name.
    Taken(String),
    Not(Attempt),
}

impl QueueBackend {
    /// Hands over until the run is over.
    pub(crate) async fn write(mut self, seed: u64) {
        let mut random = StdRng::seed_from_u64(seed);
        let mut next = Instant::now();
        loop {
            sleep_until(next).await;
            if self.run.is_over.get() {
                return;
            }
            let count = random.random_range(1..=LIST_MAX);
            // What an outage held up is not made up for.
            next = Instant::now() + self.every * count;
            let list: Vec<_> = (0..count)
                .map(|_| {
                    let name = self.numbers.any(&mut random, self.app, self.may_delay);
                    let body = body(name, random.random_range(DUE_IN_MS));
                    let is_doubtful = false;
                    Open {
                        name,
                        body,
                        is_doubtful,
                    }
                })
                .collect();
            self.list(list, &mut random).await;
        }
    }

    async fn list(&self, mut open: Vec<Open>, random: &mut StdRng) {
        let bodies: Vec<_> = open.iter().map(|one| one.body.clone()).collect();
        let mut first = Vec::new();
        self.run.queue_begun(open.iter().map(|one| one.name), false);
        let mut node = random.random_range(0..self.stage.nodes_count());
        let (mut rest, mut over) = (REST, None);
        while !open.is_empty() {
            let bodies: Vec<_> = open.iter().map(|one| &one.body).collect();
            let answers = self.attempt(node, &bodies).await;
            let mut left = Vec::new();
            for (mut one, answer) in open.into_iter().zip(answers) {
                match answer {
                    Answered::Taken(entry) => {
                        let since = entry.parse().ok().map(|at: Position| at.ms);
                        self.run.queue_ended(one.name, Taken::Ok(since));
                        first.push(entry);
                    }
                    Answered::Not(attempt) => {
                        one.is_doubtful |= attempt == Attempt::Doubtful;
                        left.push(one);
                    }
                }
            }
            open = left;
            node = (node + 1) % self.stage.nodes_count();
            if self.run.is_over.get() {
                let since = *over.get_or_insert_with(Instant::now);
                if since.elapsed() > TRIES_AFTER_END {
                    break;
                }
            }
            if !open.is_empty() {
                sleep(rest).await;
                rest = (rest * 2).min(REST_MAX);
            }
        }
        for one in open {
            let taken = if one.is_doubtful {
                Taken::Unknown
            } else {
                Taken::Fail
            };
            self.run.queue_ended(one.name, taken);
        }
        if self.repeats && first.len() == bodies.len() && random.random_ratio(1, 8) {
            self.again(node, &bodies, first).await;
        }
    }

    /// What is handed over again is answered with the entries of the first time, in some order of
    /// attempts.
    async fn again(&self, node: usize, bodies: &[Value], mut first: Vec<String>) {
        let bodies: Vec<_> = bodies.iter().collect();
        let mut again = Vec::new();
        for answer in self.attempt(node, &bodies).await {
            match answer {
                Answered::Taken(entry) => again.push(entry),
                // Nobody was there to answer.
                Answered::Not(_) => return,
            }
        }
        first.sort();
        again.sort();
        if first != again {
            let what = format!("a list was taken as {first:?}, and repeated as {again:?}");
            self.run.broken(what);
        }
    }

    /// What became of each entry.
    async fn attempt(&self, node: usize, bodies: &[&Value]) -> Vec<Answered> {
        let list = json!(bodies);
        let sent = calls::post(self.app, self.stage.api(node), "/v1/queue", &list);
        let none = |attempt| (0..bodies.len()).map(|_| Answered::Not(attempt)).collect();
        let Ok(Some(answer)) = timeout(ANSWER_PATIENCE, sent).await else {
            return none(Attempt::Doubtful);
        };
        let answer = answer.json();
        match answer["results"].as_array() {
            Some(results) if results.len() == bodies.len() => {
                results.iter().map(Answered::of).collect()
            }
            _ => none(Attempt::of(&answer)),
        }
    }
}

impl Answered {
    fn of(result: &Value) -> Self {
        let target = result["results"].get(0).unwrap_or(result);
        match target["entry"].as_str() {
            Some(entry) => Self::Taken(entry.to_owned()),
            None => Self::Not(Attempt::of(target)),
        }
    }
}
