//! One side of a comparison, the node or a floor, and what a number of publications costs it.
//!
//! In: a crowd, senders, a pace. Out: a [`Cost`]. Time of the processor is that of the whole
//! process, from the first publication of the measurement to the reading of its last message.
//! Bound: [`PATIENCE`]; what has not come by then is missing.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use fanfare_bench::frames;
use futures_util::future::join_all;

use crate::bare::{Bare, Orders};
use crate::crowd::{Crowd, PUBLISHERS_MAX, Plan, Topics};
use crate::publisher::{Publisher, data};
use crate::stage::Stage;
use crate::{process, relay};

/// The topic of all fan-outs.
pub(crate) const TOPIC: &str = "fan";
/// What the sessions of a fan-out join.
pub(crate) const TOPICS: &[&str] = &[TOPIC];
/// Length of `data`.
pub(crate) const DATA_BYTES: usize = 200;
/// Publications before a measurement.
const WARM_UP_COUNT: u64 = 20;
/// Longest time for one measurement.
const PATIENCE: Duration = Duration::from_secs(300);

/// When the next publication leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pace {
    /// When the one before has reached every session, so that no two can share a write; so many.
    Lockstep(u64),
    /// When the one before was answered; so many.
    Awaited(u64),
    /// So many a second, and in all.
    PerSecond(u32, u64),
    /// As [`Pace::Awaited`], from [`PUBLISHERS_MAX`] publishers, for so long.
    Backlog(Duration),
}

/// Whom a publication reaches.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Aim {
    /// Every session, by this topic.
    Everyone(&'static str),
    /// One session, by its own topic, which is this name and the session's number. Each publisher
    /// goes round among sessions that no other publishes to, so that their order is its own.
    One(&'static str),
}

/// What a measurement cost.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cost {
    /// What sessions should have received of them.
    pub(crate) deliveries: f64,
    /// Processor time of the side a delivery, in µs.
    pub(crate) cpu_us: f64,
    /// From publication to reading, the median, in ms.
    pub(crate) p50_ms: f64,
    /// The same of the slowest hundredth.
    pub(crate) p99_ms: f64,
    /// Deliveries a second.
    pub(crate) per_s: f64,
    /// Processor time of Redis a publication, in µs.
    pub(crate) redis_us: Option<f64>,
    /// Processor time of the load a publication, in µs.
    pub(crate) load_us: f64,
    /// How much of its core the load used, in percent.
    pub(crate) load_percent: f64,
    /// Messages that are missing, doubled or out of order, and sessions that were ended.
    pub(crate) faults: u64,
}

/// How a publication is sent.
#[derive(Debug)]
enum Way {
    Http(Publisher),
    Bare(Rc<Orders>),
}

/// One of the publishers.
#[derive(Debug)]
struct Sender {
    way: Way,
    /// How many it has sent.
    sent_count: usize,
}

/// One side.
#[derive(Debug)]
pub(crate) struct Side {
    /// Who reads.
    pub(crate) crowd: Crowd,
    aim: Aim,
    pid: u32,
    redis_pid: Option<u32>,
    senders: Vec<Sender>,
    data_bytes: usize,
    /// Ends with the side.
    _bare: Option<Bare>,
}

impl Side {
    /// The node, with a crowd that has joined what is aimed at.
    pub(crate) async fn of_node(stage: &Stage, crowd: Crowd, aim: Aim) -> Self {
        Self {
            crowd,
            aim,
            pid: stage.node.pid(),
            redis_pid: stage.redis_pid(),
            senders: Sender::of_http(stage.node.api).await,
            data_bytes: DATA_BYTES,
            _bare: None,
        }
    }

    /// The bare loop over as many sockets as `node` has sessions, with messages of the length
    /// that those have received.
    pub(crate) async fn of_bare(node: &Self) -> Self {
        let sessions = node.crowd.len();
        let bare = Bare::of_loop(sessions);
        process::pin(bare.pid(), process::MEASURED_CORE);
        let orders = Rc::new(Orders::connect(&bare).await);
        let sender = || Sender::new(Way::Bare(Rc::clone(&orders)));
        let plan = Plan::bare(bare.address, sessions, Topics::Common(&[]));
        Self {
            crowd: plan.open().await,
            aim: node.aim,
            pid: bare.pid(),
            redis_pid: None,
            senders: (0..PUBLISHERS_MAX).map(|_| sender()).collect(),
            data_bytes: node.crowd.counts.message_bytes.get(),
            _bare: Some(bare),
        }
    }

    /// The bare relay over the Redis of the stage, with a topic of this name for each of as many
    /// sockets as `node` has sessions.
    pub(crate) async fn of_relay(stage: &Stage, node: &Self, name: &'static str) -> Option<Self> {
        let redis = stage.redis.as_ref()?;
        let sessions = node.crowd.len();
        let bare = relay::start(sessions, name, redis.address());
        process::pin(bare.pid(), process::MEASURED_CORE);
        // Sockets first: the relay takes what comes then for publishers.
        let plan = Plan::bare(bare.address, sessions, Topics::Own(name));
        Some(Self {
            crowd: plan.open().await,
            aim: Aim::One(name),
            pid: bare.pid(),
            redis_pid: Some(redis.pid()),
            senders: Sender::of_relay(bare.address).await,
            data_bytes: DATA_BYTES,
            _bare: Some(bare),
        })
    }

    /// Sends a few publications, so that every part has been used once.
    pub(crate) async fn warm_up(&mut self) {
        self.send(Pace::Lockstep(WARM_UP_COUNT)).await;
    }

    /// Sends publications at a pace, and says what they cost.
    pub(crate) async fn measure(&mut self, pace: Pace) -> Cost {
        let counts = Rc::clone(&self.crowd.counts);
        counts.take_waits();
        let (sent, came) = (counts.sent(), counts.messages.get());
        let faults = counts.faults();
        let (from, used) = (Instant::now(), self.used());
        let in_time = tokio::time::timeout(PATIENCE, self.send(pace)).await;
        let used = self.used().since(used);
        let took = from.elapsed().as_secs_f64();
        let publications = counts.sent() - sent;
        let deliveries = publications * self.reach();
        let missing = match in_time {
            Ok(()) => 0,
            Err(_) => deliveries.saturating_sub(counts.messages.get() - came),
        };
        let waits = counts.take_waits();
        let us_each = |cpu: Duration, count: u64| cpu.as_secs_f64() * 1e6 / count as f64;
        Cost {
            deliveries: deliveries as f64,
            cpu_us: us_each(used.side, deliveries),
            p50_ms: waits.percentile_ms(50),
            p99_ms: waits.percentile_ms(99),
            per_s: deliveries as f64 / took,
            redis_us: used.redis.map(|cpu| us_each(cpu, publications)),
            load_us: us_each(used.load, publications),
            load_percent: used.load.as_secs_f64() * 100.0 / took,
            faults: counts.faults() - faults + missing,
        }
    }

    /// How many sessions a publication reaches.
    fn reach(&self) -> u64 {
        match self.aim {
            Aim::Everyone(_) => self.crowd.len() as u64,
            Aim::One(_) => 1,
        }
    }

    /// What all who take part have used so far.
    fn used(&self) -> Used {
        Used {
            side: process::cpu(self.pid),
            redis: self.redis_pid.map(process::cpu),
            load: process::cpu(std::process::id()),
        }
    }

    /// Sends, and waits until everything has come to whom it was for.
    async fn send(&mut self, pace: Pace) {
        let reach = self.reach();
        let (crowd, aim, bytes) = (&self.crowd, self.aim, self.data_bytes);
        let senders = &mut self.senders;
        let arrived = |sent: u64| crowd.counts.until(sent * reach);
        match pace {
            Pace::Lockstep(publications) => {
                for _ in 0..publications {
                    senders[0].send(crowd, aim, 0, bytes).await;
                    arrived(crowd.counts.sent()).await;
                }
            }
            Pace::Awaited(publications) => {
                for _ in 0..publications {
                    senders[0].send(crowd, aim, 0, bytes).await;
                }
            }
            Pace::PerSecond(rate, publications) => {
                let mut ticks = tokio::time::interval(Duration::from_secs(1) / rate);
                for _ in 0..publications {
                    ticks.tick().await;
                    senders[0].send(crowd, aim, 0, bytes).await;
                }
            }
            Pace::Backlog(lasts) => {
                let from = Instant::now();
                let all = senders.iter_mut().enumerate();
                let all = all.map(async |(at, sender)| {
                    while from.elapsed() < lasts {
                        sender.send(crowd, aim, at, bytes).await;
                    }
                });
                join_all(all).await;
            }
        }
        arrived(crowd.counts.sent()).await;
    }

    /// Ends its sessions.
    pub(crate) async fn close(self) {
        self.crowd.close().await;
    }
}

/// Processor time.
#[derive(Debug)]
struct Used {
    side: Duration,
    redis: Option<Duration>,
    load: Duration,
}

impl Used {
    fn since(self, before: Self) -> Self {
        Self {
            side: self.side - before.side,
            redis: self.redis.zip(before.redis).map(|(now, then)| now - then),
            load: self.load - before.load,
        }
    }
}

impl Aim {
    /// Series and topic of a publisher's next publication, when it has sent so many.
    fn next(self, publisher: usize, sent: usize, sessions: usize) -> (usize, Cow<'static, str>) {
        match self {
            Self::Everyone(topic) => (publisher, topic.into()),
            Self::One(name) => {
                let session = sent % (sessions / PUBLISHERS_MAX) * PUBLISHERS_MAX + publisher;
                (session, format!("{name}{session}").into())
            }
        }
    }
}

impl Sender {
    fn new(way: Way) -> Self {
        Self { way, sent_count: 0 }
    }

    /// All publishers, by HTTP.
    async fn of_http(api: SocketAddr) -> Vec<Self> {
        let connect = (0..PUBLISHERS_MAX).map(|_| Publisher::connect(api));
        let publishers = join_all(connect).await.into_iter();
        publishers.map(|p| Self::new(Way::Http(p))).collect()
    }

    /// All publishers, by HTTP to the relay.
    async fn of_relay(relay: SocketAddr) -> Vec<Self> {
        let connect = (0..PUBLISHERS_MAX).map(|_| Publisher::connect_to_relay(relay));
        let publishers = join_all(connect).await.into_iter();
        publishers.map(|p| Self::new(Way::Http(p))).collect()
    }

    async fn send(&mut self, crowd: &Crowd, aim: Aim, publisher: usize, bytes: usize) {
        let (series, topic) = aim.next(publisher, self.sent_count, crowd.len());
        self.sent_count += 1;
        let data = data(crowd.counts.next(series), bytes);
        match &mut self.way {
            Way::Http(publisher) => publisher.publish(&topic, &data).await,
            Way::Bare(orders) => {
                let frame = frames::unmasked(frames::TEXT, data.as_bytes());
                orders.send(&frame).await;
            }
        }
    }
}
