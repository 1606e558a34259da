//! One side of a comparison, the node or the bare loop, and what a number of publications costs
//! it.
//!
//! In: a crowd, senders, a pace. Out: a [`Cost`]. Time of the processor is that of the whole
//! process, from the first publication of the measurement to the reading of its last message.
//! Bound: [`PATIENCE`]; what has not come by then is missing.

use std::rc::Rc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;

use crate::bare::{Bare, Orders};
use crate::crowd::{Crowd, PUBLISHERS_MAX, Plan, Who};
use crate::publisher::{Publisher, data};
use crate::stage::Stage;
use crate::{frames, process};

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

/// What a measurement cost.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cost {
    /// Publications.
    pub(crate) publications: f64,
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
    /// How much of its core the load used, in percent.
    pub(crate) load_percent: f64,
    /// Messages that are missing, doubled or out of order, and sessions that were ended.
    pub(crate) faults: u64,
}

/// What sends a publication to everybody.
#[derive(Debug)]
enum Sender {
    Node(Publisher, &'static str),
    Bare(Rc<Orders>),
}

/// One side.
#[derive(Debug)]
pub(crate) struct Side {
    /// Who reads.
    pub(crate) crowd: Crowd,
    pid: u32,
    senders: Vec<Sender>,
    data_bytes: usize,
    /// Ends with the side.
    _bare: Option<Bare>,
}

impl Side {
    /// The node, with a crowd that has joined this topic.
    pub(crate) async fn of_node(stage: &Stage, crowd: Crowd, topic: &'static str) -> Self {
        let connect = (0..PUBLISHERS_MAX).map(|_| Publisher::connect(stage.node.api));
        let publishers = join_all(connect).await;
        Self {
            crowd,
            pid: stage.node.pid(),
            senders: publishers
                .into_iter()
                .map(|publisher| Sender::Node(publisher, topic))
                .collect(),
            data_bytes: DATA_BYTES,
            _bare: None,
        }
    }

    /// The bare loop over as many sockets as `node` has sessions, with messages of the length
    /// that those have received.
    pub(crate) async fn of_bare(node: &Self) -> Self {
        let sessions = node.crowd.len();
        let bare = Bare::start(sessions);
        process::pin(bare.pid(), process::MEASURED_CORE);
        let orders = Rc::new(Orders::connect(&bare).await);
        let plan = Plan {
            to: bare.address,
            at_once: 1,
            who: Who::Bare(sessions),
            topics: &[],
        };
        let sender = || Sender::Bare(Rc::clone(&orders));
        Self {
            crowd: plan.open().await,
            pid: bare.pid(),
            senders: (0..PUBLISHERS_MAX).map(|_| sender()).collect(),
            data_bytes: node.crowd.counts.message_bytes.get(),
            _bare: Some(bare),
        }
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
        let own = std::process::id();
        let (from, cpu, load) = (Instant::now(), process::cpu(self.pid), process::cpu(own));
        let in_time = tokio::time::timeout(PATIENCE, self.send(pace)).await;
        let (cpu, load) = (process::cpu(self.pid) - cpu, process::cpu(own) - load);
        let took = from.elapsed().as_secs_f64();
        let publications = counts.sent() - sent;
        let deliveries = publications * self.crowd.len() as u64;
        let missing = match in_time {
            Ok(()) => 0,
            Err(_) => deliveries.saturating_sub(counts.messages.get() - came),
        };
        let waits = counts.take_waits();
        Cost {
            publications: publications as f64,
            deliveries: deliveries as f64,
            cpu_us: cpu.as_secs_f64() * 1e6 / deliveries as f64,
            p50_ms: waits.percentile_ms(50),
            p99_ms: waits.percentile_ms(99),
            per_s: deliveries as f64 / took,
            load_percent: load.as_secs_f64() * 100.0 / took,
            faults: counts.faults() - faults + missing,
        }
    }

    /// Sends, and waits until every session has everything.
    async fn send(&mut self, pace: Pace) {
        let Self { crowd, senders, .. } = self;
        let sessions = crowd.len() as u64;
        let (crowd, bytes) = (&*crowd, self.data_bytes);
        let arrived = |sent: u64| crowd.counts.until(sent * sessions);
        match pace {
            Pace::Lockstep(publications) => {
                for _ in 0..publications {
                    senders[0].send(crowd, 0, bytes).await;
                    arrived(crowd.counts.sent()).await;
                }
            }
            Pace::Awaited(publications) => {
                for _ in 0..publications {
                    senders[0].send(crowd, 0, bytes).await;
                }
            }
            Pace::PerSecond(rate, publications) => {
                let mut ticks = tokio::time::interval(Duration::from_secs(1) / rate);
                for _ in 0..publications {
                    ticks.tick().await;
                    senders[0].send(crowd, 0, bytes).await;
                }
            }
            Pace::Backlog(lasts) => {
                let from = Instant::now();
                let all = senders.iter_mut().enumerate();
                let all = all.map(async |(at, sender)| {
                    while from.elapsed() < lasts {
                        sender.send(crowd, at, bytes).await;
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

impl Sender {
    async fn send(&mut self, crowd: &Crowd, publisher: usize, bytes: usize) {
        let data = data(crowd.counts.next(publisher), bytes);
        match self {
            Self::Node(publisher, topic) => publisher.publish(topic, &data).await,
            Self::Bare(orders) => orders.send(&frames::text_of_server(data.as_bytes())).await,
        }
    }
}
