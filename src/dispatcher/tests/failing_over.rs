//! Failovers that meet a worker with a full queue: by a seed, one session reads all that is left.
//!
//! In: publications, failovers to clocks that are behind, and a worker that takes its queue now and
//! then. Out: what the session's client has in the end: exactly what the broker still has. A
//! failover gap makes what the client has above its `from` void.

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde::Deserialize;
use tokio::net::{TcpListener, TcpStream};

use super::topic;
use crate::broker::ids::position_after;
use crate::broker::interest::WishNumber;
use crate::broker::model::Stream;
use crate::config::Retention;
use crate::dispatcher::worker_queues::WorkerQueues;
use crate::seeds::{self, Verdict};
use crate::telemetry::metrics::Metrics;
use crate::worker::by_hand::ByHand;
use crate::worker::catchup::ReadPage;
use crate::worker::handle::Inbound;
use crate::worker::hub::SessionKey;
use crate::worker::outbox::Bound;
use crate::worker::{Join, WorkerInterest, stream};
use fanfare_protocol::event::GapReason;
use fanfare_protocol::ids::{Position, Topic};

const START_MS: u64 = 1_732_190_000_000;
const KEEP: Retention = Retention {
    entries_max: 10_000,
    age_ms: 3_600_000,
};

/// More rounds to come to rest than any run needs.
const ROUNDS_MAX: usize = 1_000;

struct World {
    rng: StdRng,
    topic: Topic,
    stream: Stream,
    positions: Vec<Position>,
    workers: WorkerQueues,
    metrics: Arc<Metrics>,
    worker: ByHand,
    session: SessionKey,
    /// Whether a failover that a full queue left out is forgotten.
    forgets: bool,
    bytes: Vec<u8>,
}

#[derive(Debug, Deserialize)]
struct Frame {
    data: Option<usize>,
    from: Option<Position>,
    reason: Option<String>,
}

impl World {
    fn new(seed: u64, socket: &Rc<stream::Stream>, forgets: bool) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let bound = Bound {
            messages_max: 10_000,
            bytes_max: 1_000_000,
        };
        let interest = Arc::new(WorkerInterest::default());
        let window = rng.random_range(0..2) * 4_000;
        let queue_max = rng.random_range(1..4);
        let (mut worker, handle) = ByHand::new(0, bound, window, queue_max, &interest);
        let session = worker.session(socket);
        let topic = topic("room");
        let joined = worker.worker.join(session, &topic, true);
        assert!(matches!(joined, Join::Waiting(_)));
        let wishes = interest.take();
        let wish = wishes.values().next().copied().flatten();
        let metrics = Arc::new(Metrics::new(0));
        let mut world = Self {
            rng,
            stream: Stream::new(KEEP, START_MS),
            positions: vec![Position::ZERO],
            workers: WorkerQueues::new(vec![handle], Arc::clone(&metrics)),
            metrics,
            worker,
            session,
            forgets,
            bytes: Vec::new(),
            topic,
        };
        world.begin(wish.expect("it joined"));
        world
    }

    fn begin(&mut self, wish: WishNumber) {
        self.workers
            .send_joined(0, &self.topic, Position::ZERO, wish);
        self.worker.turn(1);
        let begun = self.worker.worker.begin_live(self.session, &self.topic);
        assert_eq!(begun, Some(Position::ZERO));
    }

    fn run(mut self) -> Verdict {
        for _ in 0..self.rng.random_range(20..120) {
            match self.rng.random_range(0..10) {
                0..5 => self.publish(),
                5 => self.fail_over(),
                6..8 => {
                    let count = self.rng.random_range(1..4);
                    self.worker.turn(count);
                    self.settle();
                }
                8 => self.catch_up(),
                _ => self.worker.read(self.session, 100, &mut self.bytes),
            }
        }
        for _ in 0..ROUNDS_MAX {
            self.settle();
            self.worker.turn(4);
            self.catch_up();
            self.worker.read(self.session, usize::MAX, &mut self.bytes);
            let is_idle = self.worker.is_idle() && !self.worker.is_catching_up(self.session);
            if is_idle && self.metrics.control.owed.get() == 0 {
                return self.judge();
            }
        }
        Err("it never comes to rest".into())
    }

    fn settle(&mut self) {
        if self.forgets {
            self.workers.forget_failovers();
        }
        self.workers.settle();
    }

    fn publish(&mut self) {
        self.stream.now_ms += self.rng.random_range(0..3);
        let random = loop {
            let random = self.rng.random();
            let last = self.stream.last().unwrap_or_default();
            let next = position_after(last, self.stream.now_ms, random);
            if !self.positions.contains(&next) {
                break random;
            }
            self.stream.now_ms += u64::from(self.stream.now_ms == last.ms);
        };
        let data = Bytes::from(self.positions.len().to_string());
        let entry = self.stream.publish(random, data);
        self.positions.push(entry.position);
        let outgoing = crate::worker::outgoing::Outgoing::new(self.topic.clone(), entry, true);
        self.workers.deliver(&[0], &outgoing, None);
        self.settle();
    }

    /// The newest are lost; the node tells where it goes on.
    fn fail_over(&mut self) {
        let lost = self.rng.random_range(1..5);
        let back_ms = self.rng.random_range(0..60_000);
        let before = self.stream.ids().len();
        self.stream.lose_newest(lost, self.stream.now_ms - back_ms);
        if before == 0 {
            return;
        }
        let base = self.stream.last().unwrap_or_default();
        let gap = Inbound::Gap {
            topic: self.topic.clone(),
            from: base,
            to: base,
            reason: GapReason::Failover,
        };
        self.workers.send_gap(0, gap);
        self.settle();
    }

    fn catch_up(&mut self) {
        while let Some(pull) = self.worker.worker.catch_up(self.session, START_MS) {
            let page = self.stream.since(pull.at, 3);
            let page = ReadPage::new(&pull.topic, page, usize::MAX);
            if !self.worker.worker.page(self.session, &pull, &page, 0) {
                self.worker.worker.pull_again(self.session, &pull);
                return;
            }
        }
    }

    fn judge(&self) -> Verdict {
        let mut has: Vec<usize> = Vec::new();
        for frame in super::simulation::frames(&self.bytes) {
            let frame: Frame = serde_json::from_slice(frame).map_err(|e| e.to_string())?;
            match (frame.data, frame.from) {
                (Some(number), _) => has.push(number),
                (None, Some(from)) if frame.reason.as_deref() == Some("failover") => {
                    has.retain(|number| self.positions[*number] <= from);
                }
                _ => {
                    return Err(format!(
                        "{frame:?} was told, and nothing but failovers happened"
                    ));
                }
            }
        }
        let left = self.stream.ids().iter();
        let left: Vec<_> = left
            .filter_map(|id| self.positions.iter().position(|p| p == id))
            .collect();
        match has == left {
            true => Ok(()),
            false => Err(format!("the client has {has:?}, the broker {left:?}")),
        }
    }
}

async fn socket() -> Rc<stream::Stream> {
    let listener = TcpListener::bind("127.0.0.1:0").await;
    let listener = listener.expect("a port");
    let address = listener.local_addr().expect("bound");
    let (socket, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
    accepted.expect("a connection");
    Rc::new(socket.expect("a connection").into())
}

#[tokio::test]
async fn a_full_worker_misses_no_failover() {
    let socket = socket().await;
    seeds::each(2_000, |seed| World::new(seed, &socket, false).run());
}

#[tokio::test]
async fn the_simulation_notices_a_failover_that_a_full_worker_forgets() {
    let socket = socket().await;
    let failed = seeds::first_failure(|seed| World::new(seed, &socket, true).run());
    assert!(
        failed.is_some(),
        "a failover that is forgotten is not missed"
    );
}
