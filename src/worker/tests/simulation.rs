//! Sessions that come, leave, fall behind and catch up at any time, over one worker, by a seed.
//!
//! In: a seed. Out: nothing, or the first client that did not read exactly what it should, with the
//! seed. The dispatcher is played: its deliveries continue one another, now and then a full queue
//! turns some into one [`Inbound::Behind`]. Pages show the stream as it stood between question and
//! answer, sometimes a little behind. Marks among the frames say where each stay begins and ends.

use std::collections::VecDeque;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::Value;
use tokio::sync::oneshot::Receiver;

use super::rig::{BOUND, Client, Rig, Source, short};
use crate::broker::{Entry, SincePage};
use crate::protocol::ids::Position;
use crate::worker::Join;
use crate::worker::catchup::Pull;
use crate::worker::handle::Inbound;

const RUNS: u64 = 600;
const CLIENTS: usize = 3;
/// More steps to come to rest than any run needs.
const STEPS_MAX: usize = 20_000;
/// The mark at the end of a stay.
const LEFT: u64 = 1;
/// Marks from here on begin a stay after the publication whose number is added.
const BEGUN: u64 = 1_000;

enum Stay {
    Out,
    /// Joined, and where it wants to begin.
    Waiting(Option<Receiver<()>>, Option<usize>),
    In,
}

struct Session {
    client: Client,
    stay: Stay,
    asked: VecDeque<Pull>,
    read: VecDeque<(Pull, SincePage)>,
    rests: Vec<Pull>,
}

struct World {
    rng: StdRng,
    rig: Rig,
    source: Source,
    /// Published, and not dispatched yet.
    feed: VecDeque<Entry>,
    /// What the dispatcher has delivered last.
    last: Position,
    /// The worker's queue was full: so many were left out.
    owed: Option<u64>,
    queue: VecDeque<Inbound>,
    sessions: Vec<Session>,
    /// How often the queue is full.
    full: f64,
}

impl World {
    async fn new(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        // Every other run has a window of recent publications that reaches back a little.
        let recent_bytes_max = (seed % 2) as usize * 4_000;
        let mut rig = Rig::with(BOUND, recent_bytes_max).await;
        let mut sessions = Vec::new();
        for _ in 0..CLIENTS {
            sessions.push(Session {
                client: rig.client().await,
                stay: Stay::Out,
                asked: VecDeque::new(),
                read: VecDeque::new(),
                rests: Vec::new(),
            });
        }
        Self {
            full: rng.random_range(0.0..0.5),
            rng,
            rig,
            source: Source::new(10_000),
            feed: VecDeque::new(),
            last: Position::ZERO,
            owed: None,
            queue: VecDeque::new(),
            sessions,
        }
    }

    /// Returns what each client read, and how many were published.
    async fn run(mut self) -> (Vec<Vec<Value>>, usize) {
        for _ in 0..self.rng.random_range(50..300) {
            match self.rng.random_range(0..12) {
                0..3 => {
                    let entry = self.source.publish();
                    self.feed.push_back(entry);
                }
                3 => self.come_or_go(),
                _ => self.something_moves(),
            }
        }
        self.full = 0.0;
        let mut steps = 0;
        while !self.is_quiet() {
            assert!(steps < STEPS_MAX, "it never comes to rest");
            self.something_moves();
            steps += 1;
        }
        let mut read = Vec::new();
        for session in self.sessions {
            read.push(self.rig.close(session.client).await);
        }
        (read, self.source.positions.len() - 1)
    }

    /// Whether nothing is left to be done, not even a page to be asked for.
    fn is_quiet(&mut self) -> bool {
        for session in &mut self.sessions {
            session.asked.extend(self.rig.pull(&session.client));
        }
        let is_settled = |s: &Session| {
            let is_idle = s.asked.is_empty() && s.read.is_empty() && s.rests.is_empty();
            is_idle && !matches!(s.stay, Stay::Waiting(..))
        };
        self.queue.is_empty()
            && self.feed.is_empty()
            && self.owed.is_none()
            && self.sessions.iter().all(is_settled)
    }

    fn something_moves(&mut self) {
        let at = self.rng.random_range(0..CLIENTS);
        match self.rng.random_range(0..7) {
            0 => self.dispatch(),
            1 => {
                let count = self.rng.random_range(0..=self.queue.len());
                let turn: Vec<_> = self.queue.drain(..count).collect();
                self.rig.turn(turn);
            }
            2 => self.begin(at),
            3 => {
                let session = &mut self.sessions[at];
                session.asked.extend(self.rig.pull(&session.client));
            }
            4 => self.read_page(at),
            5 => {
                let session = &mut self.sessions[at];
                if let Some((pull, page)) = session.read.pop_front()
                    && !self.rig.page(&session.client, &pull, &page)
                {
                    session.rests.push(pull);
                }
            }
            _ => {
                let Session { client, rests, .. } = &mut self.sessions[at];
                if let Some(pull) = rests.pop() {
                    self.rig.worker.pull_again(client.key, &pull);
                }
            }
        }
    }

    /// The broker reads the page; from here on it grows old.
    fn read_page(&mut self, at: usize) {
        let session = &mut self.sessions[at];
        let Some(pull) = session.asked.pop_front() else {
            return;
        };
        let mut page = self.source.stream.since(pull.at, 100);
        page.entries.truncate(self.rng.random_range(0..6));
        session.read.push_back((pull, page));
    }

    /// The dispatcher delivers the next publication, or owes it.
    fn dispatch(&mut self) {
        let is_full = self.rng.random_bool(self.full);
        if !is_full && let Some(dropped) = self.owed.take() {
            self.queue.push_back(self.source.behind(self.last, dropped));
        }
        let Some(entry) = self.feed.pop_front() else {
            return;
        };
        self.last = entry.position;
        match self.owed {
            Some(dropped) => self.owed = Some(dropped + 1),
            None if is_full => self.owed = Some(1),
            None => self.queue.push_back(self.source.deliver(&entry)),
        }
    }

    /// A session joins, or leaves.
    fn come_or_go(&mut self) {
        let at = self.rng.random_range(0..CLIENTS);
        let numbers = self.source.positions.len();
        let since = self.rng.random_bool(0.6);
        let since = since.then(|| self.rng.random_range(0..numbers));
        let Session { client, stay, .. } = &mut self.sessions[at];
        *stay = match stay {
            Stay::Out => match self.rig.join(client, &self.source) {
                Join::Live => Stay::Waiting(None, since),
                Join::Waiting(answer) => {
                    self.owed = None;
                    self.queue.push_back(self.source.joined(self.last));
                    Stay::Waiting(Some(answer), since)
                }
            },
            _ => {
                self.rig.worker.leave(client.key, &self.source.topic);
                self.rig.mark(client, LEFT);
                Stay::Out
            }
        };
    }

    /// A session whose topic is live answers its client, and begins.
    fn begin(&mut self, at: usize) {
        let Session { client, stay, .. } = &mut self.sessions[at];
        let Stay::Waiting(answer, since) = stay else {
            return;
        };
        if answer.as_mut().is_some_and(|a| a.try_recv().is_err()) {
            return;
        }
        let (worker, source) = (&self.rig.worker, &self.source);
        let begins = match *since {
            None => worker.begin_live(client.key, &source.topic),
            Some(number) => {
                let at = source.positions[number];
                Some(worker.begin_after(client.key, &source.topic, at))
            }
        };
        let begins = begins.expect("it joined");
        let number = source.positions.iter().position(|p| *p == begins);
        let number = number.expect("every position has a number");
        assert!(since.is_none_or(|since| since == number));
        self.rig.mark(client, BEGUN + number as u64);
        *stay = Stay::In;
    }
}

/// Each stay brings what follows its beginning, one after the other; the last one, everything.
fn check(events: &[Value], published: u64) -> Result<u64, String> {
    let mut messages = 0;
    let mut reached = None;
    for event in events {
        match (event["type"].as_str(), event["id"].as_u64()) {
            (Some("ok"), Some(LEFT)) => reached = None,
            (Some("ok"), Some(id)) => reached = Some(id - BEGUN),
            (Some("message"), _) => {
                let last = reached.ok_or(format!("{event} outside of a stay"))?;
                if event["data"] != last + 1 {
                    return Err(format!("{event} after {last}"));
                }
                reached = Some(last + 1);
                messages += 1;
            }
            _ => return Err(format!("{event} was not expected")),
        }
    }
    match reached {
        Some(last) if last != published => Err(format!("only {last} of {published}")),
        _ => Ok(messages),
    }
}

#[tokio::test]
async fn every_client_reads_everything_once_and_in_order_whatever_meets() {
    let mut messages = 0;
    let mut replayed = 0;
    for seed in 0..RUNS {
        let world = World::new(seed).await;
        let worker = std::rc::Rc::clone(&world.rig.worker);
        let (read, published) = world.run().await;
        replayed += worker.metrics.counters.replayed.get();
        for events in read {
            match check(&events, published as u64) {
                Ok(count) => messages += count,
                Err(what) => panic!("seed {seed}: {what}\n{:?}", short(&events)),
            }
        }
    }
    let pushed = messages - replayed;
    assert!(pushed > 5_000, "{pushed} live messages are too few");
    assert!(replayed > 5_000, "{replayed} from pages are too few");
}
