//! Sessions that come, leave, fall behind, read slowly and catch up at any time, over one worker,
//! by a seed.
//!
//! In: a seed. Out: nothing, or the first client that did not read exactly what it should, with the
//! seed. The dispatcher is played: its deliveries continue one another, now and then a full queue
//! turns some into one [`Inbound::Behind`], and now and then the broker loses its newest entries.
//! Pages show the stream as it stood between question and answer, sometimes a little behind. What the
//! broker loses, the dispatcher tells, unless it had not heard of it. In three of four runs outboxes
//! are small and sockets take little, so that sessions shed. Marks among the frames say where each
//! stay begins and ends; [`check`] judges what came between.

mod check;

use std::collections::VecDeque;
use std::task::{Context, Waker};
use std::time::Instant;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::io::AsyncReadExt as _;
use tokio::sync::oneshot::Receiver;

use super::rig::{BOUND, Client, Rig, Source, events, short};
use crate::broker::{Entry, SincePage};
use crate::worker::Join;
use crate::worker::catchup::{Pull, ReadPage};
use crate::worker::handle::Inbound;
use crate::worker::lead::PATIENCE;
use crate::worker::outbox::Bound;
use fanfare_protocol::event::GapReason;
use fanfare_protocol::ids::{Position, Priority};

use check::{BEGUN, Kind, LEFT, Published, Topic, mark};

const RUNS: u64 = 400;
const CLIENTS: usize = 3;
/// How many entries each topic's stream keeps: the last one is without history.
const TOPICS: [u32; 4] = [10_000, 10_000, 10_000, 0];
/// More steps to come to rest than any run needs.
const STEPS_MAX: usize = 100_000;
const PRIORITIES: [Priority; 4] = [
    Priority::Low,
    Priority::Normal,
    Priority::High,
    Priority::Critical,
];

enum Stay {
    Out,
    /// Joined, and where it wants to begin.
    Waiting(Option<Receiver<()>>, Option<usize>),
    In,
}

struct Session {
    client: Client,
    /// One for each topic.
    stays: Vec<Stay>,
    asked: VecDeque<Pull>,
    read: VecDeque<(Pull, SincePage)>,
    rests: Vec<Pull>,
    /// What the client has read from its socket.
    bytes: Vec<u8>,
}

/// A topic, and how far the dispatcher is with it.
struct Line {
    source: Source,
    /// What became of each number.
    published: Vec<Published>,
    /// Published, and not dispatched yet.
    feed: VecDeque<Entry>,
    /// What the dispatcher has delivered last.
    last: Position,
    /// The worker's queue was full: so many were left out.
    owed: Option<u64>,
}

struct World {
    rng: StdRng,
    rig: Rig,
    lines: Vec<Line>,
    queue: VecDeque<Inbound>,
    sessions: Vec<Session>,
    /// Outboxes are small, and sockets take little.
    is_narrow: bool,
    /// How often the queue is full.
    full: f64,
    /// How often a publication may stand for older ones of its key.
    conflating: f64,
    /// How often the broker loses something.
    failing: f64,
}

impl World {
    async fn new(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let is_narrow = !seed.is_multiple_of(4);
        let small = Bound {
            messages_max: rng.random_range(2..12),
            ..BOUND
        };
        let bound = if is_narrow { small } else { BOUND };
        let recent_bytes_max = rng.random_range(0..3) * 8_000;
        let mut rig = Rig::with(bound, recent_bytes_max).await;
        if is_narrow {
            rig.narrow(4_096);
        }
        let mut sessions = Vec::new();
        for _ in 0..CLIENTS {
            sessions.push(Session {
                client: rig.client().await,
                stays: TOPICS.iter().map(|_| Stay::Out).collect(),
                asked: VecDeque::new(),
                read: VecDeque::new(),
                rests: Vec::new(),
                bytes: Vec::new(),
            });
        }
        let lines = (0..).zip(TOPICS).map(|(n, entries_max): (usize, _)| Line {
            source: Source::named(&n.to_string(), entries_max),
            published: vec![Published::default()],
            feed: VecDeque::new(),
            last: Position::ZERO,
            owed: None,
        });
        Self {
            full: rng.random_range(0.0..0.3),
            conflating: f64::from(rng.random_range(0..2)) * 0.4,
            failing: f64::from(rng.random_range(0..2)) * 0.3,
            is_narrow,
            rng,
            rig,
            lines: lines.collect(),
            queue: VecDeque::new(),
            sessions,
        }
    }

    /// Returns what each client read.
    async fn run(&mut self) -> Vec<Vec<serde_json::Value>> {
        for _ in 0..self.rng.random_range(100..500) {
            match self.rng.random_range(0..16) {
                0..5 => (0..self.rng.random_range(1..5)).for_each(|_| self.publish()),
                5 => self.come_or_go(),
                6 if self.rng.random_bool(self.failing) => match self.rng.random() {
                    true => self.fail_over(),
                    false => self.fail_over_unseen(),
                },
                8 => self.time_passes(),
                7 if self.is_narrow => {
                    let at = self.rng.random_range(0..CLIENTS);
                    self.rig.stall(&self.sessions[at].client);
                }
                _ => self.something_moves().await,
            }
        }
        self.full = 0.0;
        let mut steps = 0;
        while !self.is_quiet() {
            assert!(steps < STEPS_MAX, "it never comes to rest");
            self.something_moves().await;
            steps += 1;
            if steps.is_multiple_of(STEPS_MAX / 100) {
                self.sockets_move().await;
            }
        }
        let mut read = Vec::new();
        for session in &mut self.sessions {
            self.rig.worker.remove(session.client.key);
            let rest = session.client.end.read_to_end(&mut session.bytes).await;
            rest.expect("the socket is closed in order");
            read.push(events(&session.bytes));
        }
        read
    }

    /// As much of it as the feed may take.
    fn time_passes(&self) {
        let worker = &self.rig.worker;
        let state = &mut *worker.state.borrow_mut();
        worker.doubt_leads(state, Instant::now() + PATIENCE);
    }

    /// Whether nothing is left to be done, not even a page to be asked for.
    fn is_quiet(&mut self) -> bool {
        self.time_passes();
        let worker = &self.rig.worker;
        for session in &mut self.sessions {
            session.asked.extend(self.rig.pull(&session.client));
            worker.flush(session.client.key);
        }
        let is_settled = |s: &Session| {
            let is_idle = s.asked.is_empty() && s.read.is_empty() && s.rests.is_empty();
            let is_waiting = |s: &Stay| matches!(s, Stay::Waiting(..));
            let is_behind = worker.state.borrow().sessions[s.client.key].catching_up;
            let is_idle = is_idle && !is_behind && !s.stays.iter().any(is_waiting);
            is_idle && worker.is_flushed(s.client.key)
        };
        let is_dispatched = |l: &Line| l.feed.is_empty() && l.owed.is_none();
        self.queue.is_empty()
            && self.lines.iter().all(is_dispatched)
            && self.sessions.iter().all(is_settled)
    }

    /// A full socket has something for its client, or room again, however long the system takes.
    async fn sockets_move(&self) {
        for session in &self.sessions {
            let (worker, key) = (&self.rig.worker, session.client.key);
            let stream = std::rc::Rc::clone(&worker.state.borrow().sessions[key].stream);
            if worker.is_blocked(key) {
                let moved = tokio::select! {
                    readable = session.client.end.readable() => readable,
                    writable = stream.writable() => writable,
                };
                moved.expect("an open socket");
            }
        }
    }

    async fn something_moves(&mut self) {
        let at = self.rng.random_range(0..CLIENTS);
        match self.rng.random_range(0..9) {
            0..2 => self.dispatch(),
            2 => {
                let count = self.rng.random_range(0..=self.queue.len());
                let turn: Vec<_> = self.queue.drain(..count).collect();
                self.rig.turn(turn);
            }
            3 => self.begin(at),
            4 => {
                let session = &mut self.sessions[at];
                session.asked.extend(self.rig.pull(&session.client));
            }
            5 => self.read_page(at),
            6 => {
                let session = &mut self.sessions[at];
                if let Some((pull, page)) = session.read.pop_front() {
                    let key = session.client.key;
                    // Its socket is not asked: a page may find it full.
                    let page = ReadPage::new(&pull.topic, page, self.rig.worker.page_bytes_max());
                    if !self.rig.worker.page(key, &pull, &page, 0) {
                        session.rests.push(pull);
                    }
                }
            }
            7 => self.client_reads(at).await,
            _ => {
                let Session { client, rests, .. } = &mut self.sessions[at];
                if let Some(pull) = rests.pop() {
                    self.rig.worker.pull_again(client.key, &pull);
                }
            }
        }
    }

    fn publish(&mut self) {
        let at = self.rng.random_range(0..self.lines.len());
        let line = &mut self.lines[at];
        // Each topic has its own mix, the first mostly urgent ones.
        let priority = PRIORITIES[(3 - at + self.rng.random_range(0..=at)) % 4];
        let key = self.rng.random_bool(self.conflating);
        let key = key.then(|| self.rng.random_range(0..3).to_string());
        let entry = line.source.publish_with(|p| {
            p.priority = priority;
            p.conflate = key.is_some();
            p.key.clone_from(&key);
            // So that a socket is soon full.
            p.user = Some("u".repeat(600));
        });
        line.published.push(Published {
            key,
            position: entry.position,
            is_lost: false,
        });
        line.feed.push_back(entry);
    }

    /// The broker loses its newest entries before the dispatcher has heard of them: nobody says so.
    fn fail_over_unseen(&mut self) {
        let at = self.rng.random_range(0..self.lines.len());
        let line = &mut self.lines[at];
        let lost = self.rng.random_range(0..=line.feed.len());
        line.feed.truncate(line.feed.len() - lost);
        let alive = line.published[1..].iter_mut().filter(|p| !p.is_lost);
        let alive: Vec<_> = alive.collect();
        for published in alive.into_iter().rev().take(lost) {
            published.is_lost = true;
        }
        let stream = &mut line.source.stream;
        let before_ms = stream.now_ms - self.rng.random_range(0..8);
        stream.lose_newest(lost, before_ms);
    }

    /// The broker loses its newest entries, and the dispatcher, which had delivered all, says so.
    fn fail_over(&mut self) {
        let at = self.rng.random_range(0..self.lines.len());
        while !self.lines[at].feed.is_empty() {
            self.dispatch_of(at);
        }
        let line = &mut self.lines[at];
        if let Some(dropped) = line.owed.take() {
            let behind = line.source.behind(line.last, dropped);
            self.queue.push_back(behind);
        }
        let alive = line.published[1..].iter_mut().filter(|p| !p.is_lost);
        let mut alive: Vec<_> = alive.collect();
        let lost = self.rng.random_range(0..6).min(alive.len());
        for published in alive.iter_mut().rev().take(lost) {
            published.is_lost = true;
        }
        let stream = &mut line.source.stream;
        let before_ms = stream.now_ms - self.rng.random_range(0..8);
        stream.lose_newest(lost, before_ms);
        let common = line.source.newest();
        line.last = common;
        let gap = line.source.gap(common, common, GapReason::Failover);
        self.queue.push_back(gap);
    }

    /// The broker reads the page; from here on it grows old.
    fn read_page(&mut self, at: usize) {
        let session = &mut self.sessions[at];
        let Some(pull) = session.asked.pop_front() else {
            return;
        };
        let mut lines = self.lines.iter();
        let line = lines.find(|l| l.source.topic == pull.topic);
        let stream = &line.expect("one of them").source.stream;
        let mut page = stream.since(pull.at, 100);
        page.entries.truncate(self.rng.random_range(0..6));
        session.read.push_back((pull, page));
    }

    /// The client takes some of what its socket has; the worker writes when that has room again.
    async fn client_reads(&mut self, at: usize) {
        // The runtime looks at its sockets.
        tokio::task::yield_now().await;
        let Session { client, bytes, .. } = &mut self.sessions[at];
        let mut some = vec![0; self.rng.random_range(1..4_000)];
        if let Ok(count) = client.end.try_read(&mut some) {
            bytes.extend_from_slice(&some[..count]);
        }
        tokio::task::yield_now().await;
        let worker = &self.rig.worker;
        let stream = std::rc::Rc::clone(&worker.state.borrow().sessions[client.key].stream);
        let mut context = Context::from_waker(Waker::noop());
        if worker.is_blocked(client.key) && stream.poll_write_ready(&mut context).is_ready() {
            worker.flush(client.key);
        }
    }

    fn dispatch(&mut self) {
        let at = self.rng.random_range(0..self.lines.len());
        self.dispatch_of(at);
    }

    /// The dispatcher delivers the next publication of a topic, or owes it.
    fn dispatch_of(&mut self, at: usize) {
        let is_full = self.rng.random_bool(self.full);
        let line = &mut self.lines[at];
        if !is_full && let Some(dropped) = line.owed.take() {
            let behind = line.source.behind(line.last, dropped);
            self.queue.push_back(behind);
        }
        let Some(entry) = line.feed.pop_front() else {
            return;
        };
        line.last = entry.position;
        match line.owed {
            Some(dropped) => line.owed = Some(dropped + 1),
            None if is_full => line.owed = Some(1),
            None => self.queue.push_back(line.source.deliver(&entry)),
        }
    }

    /// A session joins, or leaves.
    fn come_or_go(&mut self) {
        let at = self.rng.random_range(0..CLIENTS);
        let topic = self.rng.random_range(0..self.lines.len());
        let line = &mut self.lines[topic];
        let since = self.rng.random_bool(0.6);
        let since = since.then(|| self.rng.random_range(0..line.published.len()));
        // Where it comes from is not lost yet.
        let since = since.filter(|n| !line.published[*n].is_lost);
        let Session { client, stays, .. } = &mut self.sessions[at];
        stays[topic] = match stays[topic] {
            Stay::Out => match self.rig.join(client, &line.source) {
                Join::Live => Stay::Waiting(None, since),
                Join::Waiting(answer) => {
                    line.owed = None;
                    let joined = self.rig.joined(&line.source, line.last);
                    self.queue.push_back(joined);
                    Stay::Waiting(Some(answer), since)
                }
            },
            _ => {
                self.rig.worker.leave(client.key, &line.source.topic);
                self.rig.mark(client, mark(topic, LEFT));
                Stay::Out
            }
        };
    }

    /// A session whose topic is live answers its client, and begins.
    fn begin(&mut self, at: usize) {
        let topic = self.rng.random_range(0..self.lines.len());
        let Session { client, stays, .. } = &mut self.sessions[at];
        let Stay::Waiting(answer, since) = &mut stays[topic] else {
            return;
        };
        if answer.as_mut().is_some_and(|a| a.try_recv().is_err()) {
            return;
        }
        let Line {
            source, published, ..
        } = &self.lines[topic];
        let worker = &self.rig.worker;
        let begins = match *since {
            None => worker.begin_live(client.key, &source.topic),
            Some(number) => {
                let at = source.positions[number];
                Some(worker.begin_after(client.key, &source.topic, at))
            }
        };
        let begins = begins.expect("it joined");
        let number = published.iter().position(|p| p.position == begins);
        let number = number.expect("every position has a number") as u64;
        self.rig.mark(client, mark(topic, BEGUN + number));
        stays[topic] = Stay::In;
    }

    fn topics(&self) -> Vec<Topic<'_>> {
        let topic = |line: &'_ Line| line.source.stream.retention.entries_max;
        let lines = self.lines.iter();
        lines
            .map(|line| Topic {
                kind: if topic(line) > 0 {
                    Kind::History
                } else {
                    Kind::Bare
                },
                published: &line.published,
            })
            .collect()
    }
}

#[tokio::test]
async fn every_client_reads_everything_once_and_in_order_whatever_meets() {
    let mut seen = check::Seen::default();
    let mut counted = [0; 6];
    for seed in 0..RUNS {
        let mut world = World::new(seed).await;
        let read = world.run().await;
        let topics = world.topics();
        for events in read {
            if let Err(what) = check::check(&events, &topics, &mut seen) {
                panic!("seed {seed}: {what}\n{:?}", short(&events));
            }
        }
        let counters = world.rig.counters();
        let more = [
            &counters.replayed,
            &counters.taken_back,
            &counters.dropped_slow,
            &counters.conflated,
            &counters.recent_hits,
            &counters.dropped_behind,
        ];
        for (sum, counter) in counted.iter_mut().zip(more) {
            *sum += counter.get();
        }
        for session in &world.sessions {
            assert_eq!(world.rig.end_reason(&session.client), None, "seed {seed}");
        }
    }
    assert!(counted.iter().all(|sum| *sum > 100), "{counted:?} met");
    let pushed = seen.messages - counted[0];
    assert!(pushed > 5_000, "{pushed} live messages are too few");
    assert!(seen.failovers > 100 && seen.gaps > 100, "{seen:?}");
}
