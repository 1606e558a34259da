//! A cluster that works off its queue, second by second, while an HPA adds and takes away nodes.
//!
//! In: the chart and a load. Out: a [`Series`]. Each node is as it was measured (docs/performance.md,
//! the durable queue), and tells pressure by the node's own [`Pressure`]. Metrics are as old as the
//! scrape: both it and the HPA come every 15 s, each at its own moment.

use fanfare::queue::pressure::Pressure;

use super::chart::Chart;
use super::formula::{Autoscaler, Reading, Told};

/// Entries a second that a node moves: 9,188 with two feeders.
const CAPACITY: f64 = 9_188.0;
/// What one costs the node: 68.1 µs.
const ENTRY_S: f64 = 68.1e-6;
/// What a node uses beside: at rest, and for a session each second.
const RESTING: f64 = 0.005;
const SESSION_S: f64 = 1.38e-6;
/// What it uses where Redis is slow: 0.16 to 0.22 of a core.
const WAITING: f64 = 0.22;
/// Memory of a node with few sessions.
const NODE_BYTES: f64 = 60e6;
/// Scrapes, and decisions.
const PERIOD_S: u64 = 15;
/// From the decision to a node that moves entries: its start, its readiness, and a lease of 5 s until
/// it has partitions.
const START_S: u64 = 12;

/// What comes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    /// Entries a second before the step and from its end on, and between.
    pub(crate) quiet: f64,
    pub(crate) loud: f64,
    /// How far `loud` swings up and down within a minute, as a part of it.
    pub(crate) swing: f64,
    pub(crate) step_at: u64,
    pub(crate) step_end: u64,
    /// Entries that come at once with the step.
    pub(crate) burst: f64,
    pub(crate) sessions: f64,
    /// What Redis takes a second, of all nodes.
    pub(crate) redis: f64,
}

impl Load {
    fn at(&self, second: u64) -> f64 {
        if !(self.step_at..self.step_end).contains(&second) {
            return self.quiet;
        }
        let burst = if second == self.step_at {
            self.burst
        } else {
            0.0
        };
        let turn = (second - self.step_at) as f64 / 60.0 * std::f64::consts::TAU;
        burst + self.loud * (1.0 + self.swing * turn.sin())
    }
}

/// Where the cluster runs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    /// Cores of the machine, which a node without a limit of CPU may all use.
    pub(crate) cores: f64,
    /// When within 15 s scrapes and decisions fall.
    pub(crate) scrape_at: u64,
    pub(crate) decide_at: u64,
}

/// One second of the cluster.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Second {
    pub(crate) pods: u64,
    /// Those that move entries.
    pub(crate) ready: u64,
    pub(crate) depth: f64,
}

pub(crate) type Series = Vec<Second>;

struct Node {
    ready_at: u64,
    cpu_s: f64,
    pressure: Pressure,
    /// At the last scrape: depth, pressure, and the processor time of then.
    scraped: Option<(f64, f64)>,
    cpu_at_scrape: f64,
    /// Cores between the last two scrapes.
    busy: Option<f64>,
}

impl Node {
    fn new(ready_at: u64, cores: f64) -> Self {
        Self {
            ready_at,
            cpu_s: 0.0,
            pressure: Pressure::new(cores),
            scraped: None,
            cpu_at_scrape: 0.0,
            busy: None,
        }
    }

    fn told(&self, now: u64, value: Option<f64>) -> Told {
        match value {
            _ if now < self.ready_at => Told::Pending,
            Some(value) => Told::Value(value),
            None => Told::Silent,
        }
    }
}

/// Lets so many seconds pass.
pub(crate) fn run(chart: &Chart, load: &Load, place: &Place, seconds: u64) -> Series {
    let mut nodes: Vec<Node> = (0..chart.rules.pods_min)
        .map(|_| Node::new(0, place.cores))
        .collect();
    let mut scaler = Autoscaler::new(chart.rules.clone());
    let mut depth = 0.0;
    let mut series = Series::new();
    for now in 0..seconds {
        let ready = nodes.iter().filter(|node| node.ready_at <= now).count() as f64;
        depth = pass(&mut nodes, now, ready, depth + load.at(now), load);
        if now % PERIOD_S == place.scrape_at {
            scrape(&mut nodes, now, depth / ready);
        }
        if now % PERIOD_S == place.decide_at {
            let pods = nodes.len() as u64;
            let wanted = scaler.decide(now, pods, &readings(chart, &nodes, now, load.sessions));
            // What goes is told to go at once: the youngest, whose work the others take over.
            nodes.truncate(wanted as usize);
            nodes.extend((pods..wanted).map(|_| Node::new(now + START_S, place.cores)));
        }
        series.push(Second {
            pods: nodes.len() as u64,
            ready: ready as u64,
            depth,
        });
    }
    series
}

/// One second of work; gives what is left.
fn pass(nodes: &mut [Node], now: u64, ready: f64, depth: f64, load: &Load) -> f64 {
    let moved = depth.min(ready * CAPACITY).min(load.redis);
    let is_waiting = moved < depth && moved < ready * CAPACITY;
    let work = match is_waiting {
        true => WAITING,
        false => moved / ready * ENTRY_S,
    };
    for node in nodes.iter_mut().filter(|node| node.ready_at <= now) {
        node.cpu_s += RESTING + load.sessions / ready * SESSION_S + work;
        node.pressure.sample(node.cpu_s);
    }
    depth - moved
}

fn scrape(nodes: &mut [Node], now: u64, depth: f64) {
    for node in nodes.iter_mut().filter(|node| node.ready_at <= now) {
        if node.scraped.is_some() {
            node.busy = Some((node.cpu_s - node.cpu_at_scrape) / PERIOD_S as f64);
        }
        node.cpu_at_scrape = node.cpu_s;
        node.scraped = Some((depth, depth * node.pressure.part()));
    }
}

/// Every metric of the chart's HPA.
fn readings(chart: &Chart, nodes: &[Node], now: u64, sessions: f64) -> Vec<Reading> {
    let of = |target: f64, value: &dyn Fn(&Node) -> Option<f64>| Reading {
        target,
        pods: nodes
            .iter()
            .map(|node| node.told(now, value(node)))
            .collect(),
    };
    let each = sessions / nodes.len() as f64;
    let mut readings = Vec::new();
    if let Some((name, target)) = &chart.queue {
        let is_pressure = name == "fanfare_queue_pressure";
        readings.push(of(*target, &|node| {
            let (depth, pressure) = node.scraped?;
            Some(if is_pressure { pressure } else { depth })
        }));
    }
    if let Some(target) = chart.sessions {
        readings.push(of(target, &|node| node.scraped.map(|_| each)));
    }
    if let Some(target) = chart.cpu {
        readings.push(of(target, &|node| Some(node.busy? / chart.cores)));
    }
    if let Some(target) = chart.memory {
        readings.push(of(target, &|node| {
            node.scraped.map(|_| NODE_BYTES / chart.bytes)
        }));
    }
    readings
}
