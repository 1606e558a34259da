//! Everything around the dispatcher, moved one small step at a time in any order.
//!
//! In: a seed. Out: the first promise that was broken, and what was met. Two topics, one with history
//! and one without; two workers; three sessions. An answer shows the stream as it stood at some
//! moment between question and answer. Bound: [`ROUNDS_MAX`] rounds to come to rest.

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::super::{config, topic};
use super::Without;
use super::client::{Client, Start, Wanted};
use super::feed::FeedModel;
use super::weather::{Met, Weather};
use crate::broker::memory::{MemoryBroker, clock::Clock};
use crate::broker::model::Stream;
use crate::broker::unavailable::Unavailable;
use crate::broker::{Broker, BrokerError, FeedEvent, HistoryPage, SincePage};
use crate::config::Config;
use crate::dispatcher::Dispatcher;
use crate::dispatcher::asks::{self, About, Answer, Asking, Said};
use crate::dispatcher::sequencer::{Question, RECENT_MAX};
use crate::seeds::Verdict;
use crate::telemetry::metrics::Metrics;
use crate::worker::by_hand::ByHand;
use crate::worker::catchup::Pull;
use crate::worker::outbox::Bound;
use crate::worker::{WorkerInterest, stream};
use fanfare_protocol::ids::{Position, Topic};

pub(super) const TOPICS: usize = 2;
const NAMES: [&str; TOPICS] = ["room", "bare:room"];
const WORKERS: usize = 2;
const CLIENTS: usize = 3;
const START_MS: u64 = 1_732_190_000_000;
/// Longer than any question rests, and than a node waits after a break.
const REST_MAX: Duration = Duration::from_secs(60);
/// More rounds to come to rest than any run needs.
const ROUNDS_MAX: usize = 10_000;

thread_local! {
    /// To read the configuration takes longer than a run.
    static CONFIG: Arc<Config> = config();
}

/// A topic at the broker, its publications numbered from 1.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) topic: Topic,
    stream: Stream,
    /// The position of each number; before the first `0-0`.
    pub(super) positions: Vec<Position>,
}

impl Line {
    pub(super) fn has_history(&self) -> bool {
        self.stream.retention.entries_max > 0
    }

    pub(super) fn number(&self, position: Position) -> Option<usize> {
        self.positions.iter().position(|p| *p == position)
    }
}

#[derive(Debug)]
enum Asked {
    Dispatcher(asks::Asked),
    Client(usize, Wanted),
}

enum Answered {
    Dispatcher(Answer),
    Start(usize, Start, SincePage),
    Page(usize, Pull, Option<SincePage>),
}

/// See the module.
pub(super) struct World {
    rng: StdRng,
    weather: Weather,
    without: Option<Without>,
    lines: [Line; TOPICS],
    feed: FeedModel,
    dispatcher: Dispatcher,
    metrics: Arc<Metrics>,
    workers: Vec<ByHand>,
    clients: Vec<Client>,
    asked: VecDeque<Asked>,
    answers: VecDeque<Answered>,
}

impl World {
    pub(super) fn new(seed: u64, socket: &Rc<stream::Stream>, without: Option<Without>) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let weather = Weather::new(&mut rng);
        let metrics = Arc::new(Metrics::new(0));
        let interest = Arc::new(WorkerInterest::default());
        let bound = Bound {
            messages_max: weather.messages_max,
            bytes_max: 1_000_000,
        };
        let recent_bytes_max = rng.random_range(0..2) * 4_000;
        let (mut workers, handles): (Vec<_>, Vec<_>) = (0..WORKERS)
            .map(|n| ByHand::new(n, bound, recent_bytes_max, weather.queue_max, &interest))
            .unzip();
        let clients = (0..CLIENTS).map(|n| {
            let worker = n % WORKERS;
            Client::new(worker, workers[worker].session(socket))
        });
        let clients = clients.collect();
        // Only for its interest: nobody runs it.
        let (memory, _feed) = MemoryBroker::new(Clock::System, Arc::clone(&metrics));
        let dispatcher = Dispatcher::new(
            Arc::new(Broker::Memory(memory)),
            CONFIG.with(Arc::clone),
            Arc::clone(&metrics),
            interest,
            handles,
            Arc::default(),
        );
        let lines = NAMES.map(|name| {
            let topic = topic(name);
            Line {
                stream: Stream::new(asks::retention(&dispatcher.apps, &topic), START_MS),
                topic,
                positions: vec![Position::ZERO],
            }
        });
        Self {
            rng,
            weather,
            without,
            lines,
            feed: FeedModel::new(),
            dispatcher,
            metrics,
            workers,
            clients,
            asked: VecDeque::new(),
            answers: VecDeque::new(),
        }
    }

    pub(super) fn run(mut self, met: &mut Met) -> Verdict {
        for _ in 0..self.rng.random_range(100..500) {
            match self.rng.random_range(0..30) {
                0..5 => self.publish(),
                5 => self.come_or_go(),
                6 if self.chance(self.weather.cut) => {
                    let read = self.rng.random_range(0..=self.feed.on_connection());
                    self.feed.connect(read);
                }
                7 if self.rng.random_bool(0.1) => {
                    self.sweep();
                }
                _ => {
                    let part = self.rng.random_range(0..PARTS);
                    self.moves(part)?;
                }
            }
        }
        self.rest()?;
        let is_fair = self.weather.is_fair();
        for client in &self.clients {
            client.judge(&self.lines, is_fair, &mut met.told)?;
        }
        self.count(met);
        Ok(())
    }

    fn count(&self, met: &mut Met) {
        let control = &self.metrics.control;
        met.repaired += control.repaired.get();
        met.duplicates += control.duplicates_dropped.get();
        met.owed += control.worker_queue_full.get();
        met.fair_runs += u64::from(self.weather.is_fair());
        for worker in &self.workers {
            let counters = &worker.worker.metrics().counters;
            met.replayed += counters.replayed.get();
            met.taken_back += counters.taken_back.get();
        }
    }

    /// Lets everything arrive that is on its way. No sweep is needed for that.
    fn rest(&mut self) -> Verdict {
        for _ in 0..ROUNDS_MAX {
            for part in 0..PARTS {
                self.moves(part)?;
            }
            if self.is_quiet() {
                return Ok(());
            }
        }
        Err("it never comes to rest".into())
    }

    fn is_quiet(&self) -> bool {
        let dispatcher = &self.dispatcher;
        self.feed.is_quiet()
            && self.asked.is_empty()
            && self.answers.is_empty()
            && dispatcher.topics.values().all(|s| s.asking == Asking::Idle)
            && self.metrics.control.owed.get() == 0
            && self.workers.iter().all(ByHand::is_idle)
            && self
                .clients
                .iter()
                .all(|c| c.is_quiet(&self.workers[c.worker]))
    }

    fn lacks(&self, rule: Without) -> bool {
        self.without == Some(rule)
    }

    fn chance(&mut self, of_one: f64) -> bool {
        self.rng.random_bool(of_one)
    }

    /// Which of so many comes first: mostly the oldest.
    fn place(&mut self, count: usize, reorder: f64) -> usize {
        if self.chance(reorder) {
            self.rng.random_range(0..count.max(1))
        } else {
            0
        }
    }

    fn publish(&mut self) {
        let line = &mut self.lines[self.rng.random_range(0..TOPICS)];
        line.stream.now_ms += self.rng.random_range(0..3);
        if self.rng.random_bool(0.02) {
            // The clock steps back, or that of an old master was ahead.
            line.stream.now_ms -= self.rng.random_range(0..60_000);
        }
        let data = Bytes::from(line.positions.len().to_string());
        let entry = line.stream.publish(self.rng.random(), data);
        line.positions.push(entry.position);
        self.feed.published(&line.topic, &entry);
    }

    fn come_or_go(&mut self) {
        let topic = self.rng.random_range(0..TOPICS);
        let line = &self.lines[topic];
        let since = self.rng.random_bool(0.5);
        let since = since.then(|| self.rng.random_range(0..line.positions.len()));
        let client = &mut self.clients[self.rng.random_range(0..CLIENTS)];
        client.come_or_go(&self.workers[client.worker], topic, line, since);
    }

    /// One part of everything takes its next small step, if it has one.
    fn moves(&mut self, part: usize) -> Verdict {
        match part {
            0 => self.wishes(),
            1 => self.feed.send(),
            2 => self.feed.carry_out(),
            3..6 => self.hear(),
            6..9 => self.feed_event(),
            9..11 => return self.ask(),
            11..13 => return self.answered(),
            13 => self.resting_due(),
            14..16 => {
                let count = self.rng.random_range(1..4);
                let worker = self.rng.random_range(0..WORKERS);
                self.workers[worker].turn(count);
                self.dispatcher.workers.settle();
            }
            _ => self.client_moves(),
        }
        Ok(())
    }

    /// The workers' wishes reach the dispatcher, and its own the feed.
    fn wishes(&mut self) {
        for ((worker, topic), wish) in self.dispatcher.interest.take() {
            let is_new = wish.is_some() && !self.dispatcher.topics.contains_key(&topic);
            self.dispatcher.wish(worker, topic.clone(), wish);
            if is_new && self.lacks(Without::Confirmation) {
                let stay = self.dispatcher.topics[&topic].stay;
                self.dispatcher.confirmed(&topic, stay);
            }
        }
        self.dispatcher.workers.settle();
        for (topic, wish) in self.dispatcher.broker.interest().take() {
            self.feed.wish(topic, wish);
        }
    }

    fn hear(&mut self) {
        let fate = self.weather.fate(&mut self.rng);
        self.feed.hear(fate);
    }

    fn feed_event(&mut self) {
        let mut events = self.feed.events.iter();
        // Deliveries overtake each other, but what a break covers came before it.
        let until = events.position(|event| matches!(event, FeedEvent::Break(_)));
        let until = until.unwrap_or(self.feed.events.len());
        let at = self.place(until, self.weather.reorder);
        let Some(event) = self.feed.events.remove(at) else {
            return;
        };
        if self.lacks(Without::Confirmation) && matches!(event, FeedEvent::Subscribed(_)) {
            return;
        }
        self.dispatcher.feed_event(event);
        self.dispatcher.workers.settle();
    }

    /// Every topic that is live and nothing is asked about is compared.
    fn sweep(&mut self) {
        for line in &self.lines {
            let state = self.dispatcher.topics.get(&line.topic);
            if state.is_some_and(|s| s.asking == Asking::Idle && s.link.is_live()) {
                self.dispatcher.want_asked(&line.topic);
            }
        }
    }

    /// A question reaches the broker.
    fn ask(&mut self) -> Verdict {
        while let Some(question) = self.dispatcher.next_question() {
            let is_open =
                |asked: &asks::Asked| asked.topic == question.topic && asked.stay == question.stay;
            let asked = self.asked.iter().filter_map(|asked| match asked {
                Asked::Dispatcher(asked) => Some(asked),
                Asked::Client(..) => None,
            });
            let answered = self.answers.iter().filter_map(|answer| match answer {
                Answered::Dispatcher(answer) => Some(&answer.asked),
                _ => None,
            });
            if asked.chain(answered).any(is_open) {
                return Err(format!("two questions are open about {}", question.topic));
            }
            if self.lacks(Without::OneQuestion)
                && let Some(state) = self.dispatcher.topics.get_mut(&question.topic)
            {
                state.asking = Asking::Idle;
            }
            self.asked.push_back(Asked::Dispatcher(question));
        }
        let at = self.place(self.asked.len(), 0.3);
        let is_silent = self.chance(self.weather.silence);
        let Some(asked) = self.asked.remove(at) else {
            return Ok(());
        };
        if is_silent && matches!(asked, Asked::Client(_, Wanted::Start(_))) {
            // A session asks until there is an answer.
            self.asked.push_back(asked);
            return Ok(());
        }
        let entries_max = self.rng.random_range(1..6);
        let answer = self.answer(asked, is_silent, entries_max);
        self.answers.push_back(answer);
        Ok(())
    }

    /// The broker answers as its streams stand now, or does not.
    fn answer(&self, asked: Asked, is_silent: bool, entries_max: usize) -> Answered {
        let away = || BrokerError::from(Unavailable::Away("silent".into()));
        match asked {
            Asked::Dispatcher(asked) => {
                let stream = self.stream(&asked.topic);
                let said = match asked.about {
                    About::Last { .. } => Said::Last(match is_silent {
                        true => Err(away()),
                        false => Ok(stream.last()),
                    }),
                    About::Sequencer(Question::Since(since)) => Said::Since(match is_silent {
                        true => Err(away()),
                        false => Ok(stream.since(since, entries_max)),
                    }),
                    About::Sequencer(Question::Newest) => Said::Newest(Ok(HistoryPage {
                        entries: stream.newest(RECENT_MAX),
                        more: false,
                    })),
                };
                Answered::Dispatcher(Answer { asked, said })
            }
            Asked::Client(client, Wanted::Start(start)) => {
                let line = &self.lines[start.topic];
                let page = line.stream.since(line.positions[start.since], 1);
                Answered::Start(client, start, page)
            }
            Asked::Client(client, Wanted::Page(pull)) => {
                let page = self.stream(&pull.topic).since(pull.at, entries_max);
                Answered::Page(client, pull, (!is_silent).then_some(page))
            }
        }
    }

    fn stream(&self, topic: &Topic) -> &Stream {
        let mut lines = self.lines.iter();
        &lines
            .find(|l| l.topic == *topic)
            .expect("one of them")
            .stream
    }

    fn answered(&mut self) -> Verdict {
        let at = self.place(self.answers.len(), 0.3);
        match self.answers.remove(at) {
            None => {}
            Some(Answered::Dispatcher(answer)) => {
                self.dispatcher.answered(answer);
                self.dispatcher.workers.settle();
            }
            Some(Answered::Start(client, start, page)) => {
                let line = &self.lines[start.topic];
                let one = &mut self.clients[client];
                one.started(&self.workers[one.worker], start, line, &page)?;
                self.bend(client);
            }
            Some(Answered::Page(client, pull, page)) => {
                let one = &mut self.clients[client];
                one.page(&self.workers[one.worker], pull, page.as_ref());
                self.bend(client);
            }
        }
        Ok(())
    }

    /// Questions have rested. In fair weather that is longer than any message is on its way.
    fn resting_due(&mut self) {
        if !self.weather.is_fair() || self.feed.is_quiet() {
            self.dispatcher.now += REST_MAX;
            self.dispatcher.wake();
        }
    }

    fn client_moves(&mut self) {
        let at = self.rng.random_range(0..CLIENTS);
        let client = &mut self.clients[at];
        let worker = &self.workers[client.worker];
        let wanted = match self.rng.random_range(0..4) {
            0 => {
                let topic = self.rng.random_range(0..TOPICS);
                client.begin(worker, topic, &self.lines[topic])
            }
            1 => client.catch_up(worker, START_MS),
            2 => {
                client.ask_again(worker);
                None
            }
            _ => {
                client.read(worker, self.rng.random_range(1..250));
                None
            }
        };
        self.asked
            .extend(wanted.map(|wanted| Asked::Client(at, wanted)));
        self.bend(at);
    }

    /// Takes out what is to be taken out of the worker.
    fn bend(&self, client: usize) {
        let client = &self.clients[client];
        let worker = &self.workers[client.worker];
        match self.without {
            Some(Without::Skipping) => worker.forget_pages(client.key),
            Some(Without::Reaching) => worker.go_live_early(client.key),
            _ => {}
        }
    }
}

/// What [`World::moves`] tells apart.
const PARTS: usize = 20;
