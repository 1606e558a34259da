//! How many nodes and masters a load needs, worked out from [`super::costs`].
//!
//! In: what is to be served and the machines that there are. Out: a [`Plan`], or why there is none.
//! For each resource of a node it finds the fewest nodes whose share of it stays below what may be
//! used; the largest of these numbers is the number of nodes, and the same for masters of Redis.
//! Pure: it measures nothing and asks nobody. Bound: [`NODES_MAX`] nodes and [`MASTERS_MAX`] masters.

use serde::Serialize;
use thiserror::Error;

use super::costs;

/// Most nodes that are tried.
pub const NODES_MAX: u64 = 100_000;

/// Most masters: 16,384 partitions, 64 for each.
pub const MASTERS_MAX: u64 = 256;

/// What the most loaded of several masters has, as part of the mean (docs/redis.md).
const UNEVEN: f64 = 1.26;

/// Parts of a machine that a plan uses up; the rest is for what nobody planned. Sessions, CPU and
/// memory of nodes are what the chart scales at.
const SESSIONS_SHARE: f64 = 0.8;
const CPU_SHARE: f64 = 0.7;
const MEMORY_SHARE: f64 = 0.8;
const NETWORK_SHARE: f64 = 0.7;
/// Redis has one thread, and a herd of questions after an outage comes on top.
const REDIS_CPU_SHARE: f64 = 0.5;
/// From 80 % on the durable queue refuses what has low priority.
const REDIS_MEMORY_SHARE: f64 = 0.7;

/// Threads of the control side, however many cores there are.
const CONTROL_THREADS: f64 = 2.0;

/// How long recent publications are kept for slow sessions.
const RECENT_S: f64 = 60.0;

/// One session of so many is slow, and its outbox is full: an assumption.
const SLOW_ONE_OF: f64 = 100.0;

/// The default of `session.outbox_bytes_max`.
const OUTBOX_BYTES: f64 = 1_048_576.0;

/// A ping and a pong in 25 s, each with its headers and an acknowledgement of TCP.
const PING_BYTES_PER_S: f64 = 270.0 / 25.0;

/// Connections of a node to each master: three or four links and the feed.
const LINKS: u64 = 5;

/// Files that a node needs beside its sessions (docs/configuration.md, `server.connections_max`).
const FILES_BESIDE: u64 = 500;

/// What is to be served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Demand {
    /// Users that are connected at once, each with one session.
    pub users: u64,
    /// Topics that are in use at once, beside inboxes.
    pub topics: u64,
    /// Publications a second.
    pub publications_per_s: u64,
    /// Sessions to which a publication goes.
    pub fanout: u64,
    /// Length of its body.
    pub body_bytes: u64,
    /// Publications that a topic keeps, and for how long.
    pub history_entries: u64,
    /// See above, in seconds.
    pub history_age_s: u64,
    /// Messages that an inbox keeps.
    pub inbox_entries: u64,
    /// How long a session lasts, in seconds.
    pub session_s: u64,
    /// Publications of a hundred that go by the durable queue.
    pub queued_percent: u64,
}

/// The machines that there are.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Machines {
    /// `server.connections_max` of a node.
    pub node_sessions_max: u64,
    /// Cores of a node.
    pub node_cores: f64,
    /// Memory of a node.
    pub node_memory_bytes: u64,
    /// `cache.memory_bytes` of a node.
    pub node_cache_bytes: u64,
    /// `maxmemory` of a master.
    pub redis_memory_bytes: u64,
    /// Network of each machine, one way.
    pub network_bits_per_s: u64,
}

/// What a node or a master has only so much of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Resource {
    /// Sessions of a node.
    Sessions,
    /// Places for the sessions of one node that is away.
    Spare,
    /// Cores of a node.
    Cpu,
    /// The threads of a node that take publications and hear them.
    Control,
    /// Memory of a node.
    Memory,
    /// What a node sends.
    Network,
    /// The thread of a master.
    RedisCpu,
    /// Memory of a master.
    RedisMemory,
    /// What a master sends.
    RedisNetwork,
}

impl Resource {
    /// Those of a node.
    pub const NODE: [Self; 6] = [
        Self::Sessions,
        Self::Spare,
        Self::Cpu,
        Self::Control,
        Self::Memory,
        Self::Network,
    ];

    /// Those of a master.
    pub const REDIS: [Self; 3] = [Self::RedisCpu, Self::RedisMemory, Self::RedisNetwork];

    /// For people.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Sessions => "sessions of a node",
            Self::Spare => "places when a node is away",
            Self::Cpu => "CPU of a node",
            Self::Control => "control side of a node",
            Self::Memory => "memory of a node",
            Self::Network => "network of a node",
            Self::RedisCpu => "CPU of Redis",
            Self::RedisMemory => "memory of Redis",
            Self::RedisNetwork => "network of Redis",
        }
    }
}

/// How one resource stands in a plan.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Need {
    /// Which.
    pub resource: Resource,
    /// Fewest nodes, or masters, that have enough of it.
    pub needed: u64,
    /// What each uses of it in this plan: sessions, cores, bytes, or bits a second.
    pub used: f64,
    /// What each has.
    pub has: f64,
    /// `used` as part of what may be used; at most 1.
    pub share: f64,
}

/// What a load needs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Plan {
    /// Nodes.
    pub nodes: u64,
    /// Masters of Redis.
    pub redis_masters: u64,
    /// The least `redis.partitions` for so many masters.
    pub redis_partitions: u64,
    /// The resource that runs out first when all of the load grows.
    pub binds_first: Resource,
    /// Sessions of each node.
    pub sessions_per_node: u64,
    /// Files that each node must be able to open.
    pub files_per_node: u64,
    /// Connections of nodes at each master; `maxclients` must be above.
    pub connections_per_master: u64,
    /// Messages that sessions get a second.
    pub deliveries_per_s: u64,
    /// Sessions that come a second.
    pub connects_per_s: u64,
    /// What nodes send to sessions.
    pub clients_bits_per_s: u64,
    /// What all masters keep together.
    pub redis_bytes: u64,
    /// Every resource.
    pub needs: Vec<Need>,
}

/// Why there is no plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum NoPlan {
    /// See the text.
    #[error("{NODES_MAX} nodes are too few: what is short is the {}", .0.name())]
    Nodes(Resource),
    /// See the text.
    #[error("{MASTERS_MAX} masters of Redis are too few: what is short is the {}", .0.name())]
    Masters(Resource),
    /// See the text.
    #[error("the heartbeats of {0} nodes take more of the first master of Redis than it may use")]
    Heartbeats(u64),
}

/// Works it out.
///
/// # Errors
/// [`NoPlan`] where no number of nodes or masters is enough.
pub fn plan(demand: &Demand, machines: &Machines) -> Result<Plan, NoPlan> {
    let load = Load::new(demand, machines);
    let fewest = |resource: Resource| {
        let fits = |nodes| load.node(resource, nodes).2 <= 1.0;
        smallest(NODES_MAX, fits).ok_or(NoPlan::Nodes(resource))
    };
    let by_node = Resource::NODE.map(fewest);
    let nodes = largest(&by_node)?;
    if load.heartbeats(nodes) >= REDIS_CPU_SHARE {
        return Err(NoPlan::Heartbeats(nodes));
    }
    let fewest = |resource: Resource| {
        let fits = |masters| load.master(resource, nodes, masters).2 <= 1.0;
        smallest(MASTERS_MAX, fits).ok_or(NoPlan::Masters(resource))
    };
    let by_master = Resource::REDIS.map(fewest);
    let masters = largest(&by_master)?;

    let mut needs = Vec::with_capacity(by_node.len() + by_master.len());
    for (resource, needed) in Resource::NODE.into_iter().zip(by_node) {
        needs.push(need(resource, needed?, load.node(resource, nodes)));
    }
    for (resource, needed) in Resource::REDIS.into_iter().zip(by_master) {
        needs.push(need(
            resource,
            needed?,
            load.master(resource, nodes, masters),
        ));
    }
    let first = |best: Need, next: &Need| if next.share > best.share { *next } else { best };
    let binds_first = needs.iter().fold(needs[0], first).resource;
    Ok(Plan {
        nodes,
        redis_masters: masters,
        redis_partitions: partitions(masters),
        binds_first,
        sessions_per_node: demand.users.div_ceil(nodes),
        files_per_node: machines.node_sessions_max + FILES_BESIDE + 8 * masters.saturating_sub(12),
        connections_per_master: nodes * LINKS,
        deliveries_per_s: whole(load.deliveries_per_s),
        connects_per_s: whole(load.connects_per_s),
        clients_bits_per_s: whole(load.clients_bytes_per_s() * 8.0),
        redis_bytes: whole(load.redis_bytes(nodes)),
        needs,
    })
}

fn need(resource: Resource, needed: u64, (used, has, share): (f64, f64, f64)) -> Need {
    Need {
        resource,
        needed,
        used,
        has,
        share,
    }
}

fn largest(needed: &[Result<u64, NoPlan>]) -> Result<u64, NoPlan> {
    needed
        .iter()
        .try_fold(1, |most, needed| needed.map(|needed| most.max(needed)))
}

/// The smallest number up to `most` that fits, where all above one that fits do so too.
fn smallest(most: u64, fits: impl Fn(u64) -> bool) -> Option<u64> {
    if !fits(most) {
        return None;
    }
    let (mut low, mut high) = (1, most);
    while low < high {
        let middle = low + (high - low) / 2;
        if fits(middle) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    Some(low)
}

/// 32 for each master up to 8, and 64 for each of more (docs/redis.md).
fn partitions(masters: u64) -> u64 {
    match masters {
        0..=8 => 256,
        9..=16 => 1024,
        more => (more * 64).next_power_of_two(),
    }
}

/// A number for people and JSON.
fn whole(value: f64) -> u64 {
    value.ceil() as u64
}

/// What is to be served, as numbers to count with.
struct Load {
    users: f64,
    topics: f64,
    rate: f64,
    fanout: f64,
    body: f64,
    queued_per_s: f64,
    deliveries_per_s: f64,
    connects_per_s: f64,
    topics_bytes: f64,
    inboxes_bytes: f64,
    machines: Machines,
}

impl Load {
    fn new(demand: &Demand, machines: &Machines) -> Self {
        let rate = demand.publications_per_s as f64;
        let [users, topics, fanout] =
            [demand.users, demand.topics, demand.fanout].map(|count| count as f64);
        let body = demand.body_bytes as f64;
        // A topic has no more than what was published within the age.
        let kept = (topics * demand.history_entries as f64).min(rate * demand.history_age_s as f64);
        let inboxes = users * demand.inbox_entries as f64;
        let entry = costs::ENTRY_BYTES.value + body;
        let keys = |topics: f64, kept: f64| costs::KEYS_BYTES.value * topics.min(kept);
        Self {
            users,
            topics,
            rate,
            fanout,
            body,
            queued_per_s: rate * demand.queued_percent as f64 / 100.0,
            deliveries_per_s: rate * fanout,
            connects_per_s: users / demand.session_s as f64,
            topics_bytes: kept * entry + keys(topics, kept),
            inboxes_bytes: inboxes * entry + keys(users, inboxes),
            machines: *machines,
        }
    }

    /// On how many of so many nodes a topic has sessions, which are where chance put them.
    fn heard_by(&self, nodes: u64) -> f64 {
        let nodes = nodes as f64;
        // 1 - (1 - 1/n)^f, for n and f of any size.
        nodes * -(self.fanout * (-1.0 / nodes).ln_1p()).exp_m1()
    }

    /// What each of so many nodes uses, what it has, and the first as part of what it may use.
    fn node(&self, resource: Resource, nodes: u64) -> (f64, f64, f64) {
        let (machine, count) = (&self.machines, nodes as f64);
        let cores = machine.node_cores;
        let (used, has, may) = match resource {
            Resource::Sessions => {
                let max = machine.node_sessions_max as f64;
                (self.users / count, max, SESSIONS_SHARE)
            }
            Resource::Spare => {
                let max = machine.node_sessions_max as f64;
                (self.users / (count - 1.0), max, 1.0)
            }
            Resource::Cpu => (self.cores(nodes), cores, CPU_SHARE),
            Resource::Control => {
                let threads = CONTROL_THREADS.min(cores);
                (self.control(nodes), threads, CPU_SHARE)
            }
            Resource::Memory => {
                let memory = machine.node_memory_bytes as f64;
                (self.node_bytes(nodes), memory, MEMORY_SHARE)
            }
            _ => {
                let bits = machine.network_bits_per_s as f64;
                let sent =
                    self.clients_bytes_per_s() + self.rate * (self.body + costs::FRAME_BYTES.value);
                (8.0 * sent / count, bits, NETWORK_SHARE)
            }
        };
        (used, has, used / (has * may))
    }

    fn cores(&self, nodes: u64) -> f64 {
        let count = nodes as f64;
        let hearing = costs::HEARING.value;
        let publication = costs::PUBLICATION.value - hearing
            + hearing * self.heard_by(nodes)
            + costs::DELIVERY.value * (self.fanout - 1.0);
        let all = self.rate * publication
            + self.queued_per_s * costs::QUEUED.value
            + self.users * costs::IDLE.value
            + self.connects_per_s * costs::CONNECT.value;
        costs::RESTING.value + all / count
    }

    fn control(&self, nodes: u64) -> f64 {
        let hearing = costs::HEARING.value;
        let publication = costs::CONTROL.value - hearing + hearing * self.heard_by(nodes);
        let all = self.rate * publication + self.queued_per_s * costs::QUEUED.value;
        all / nodes as f64
    }

    fn node_bytes(&self, nodes: u64) -> f64 {
        let count = nodes as f64;
        let heard = self.heard_by(nodes) / count;
        let recent = self.rate * heard * RECENT_S * self.body * costs::RECENT_COPIES.value;
        costs::NODE_BYTES.value
            + self.users / count * (costs::SESSION_BYTES.value + OUTBOX_BYTES / SLOW_ONE_OF)
            + self.topics * self.fanout / count * costs::MEMBERSHIP_BYTES.value
            + self.topics * heard * costs::TOPIC_BYTES.value
            + recent.min(self.machines.node_cache_bytes as f64)
    }

    fn clients_bytes_per_s(&self) -> f64 {
        self.deliveries_per_s * (self.body + costs::FRAME_BYTES.value)
            + self.users * PING_BYTES_PER_S
    }

    fn heartbeats(&self, nodes: u64) -> f64 {
        nodes as f64 * costs::REDIS_HEARTBEAT.value
    }

    fn redis_bytes(&self, nodes: u64) -> f64 {
        let occupied = self.users + self.topics * self.heard_by(nodes);
        self.topics_bytes + self.inboxes_bytes + occupied * costs::OCCUPIED_BYTES.value
    }

    /// What the most loaded of so many masters uses, what it has, and the first as part of what it
    /// may use.
    fn master(&self, resource: Resource, nodes: u64, masters: u64) -> (f64, f64, f64) {
        let part = if masters == 1 {
            1.0
        } else {
            UNEVEN / masters as f64
        };
        let heard = self.heard_by(nodes);
        let (used, has, may) = match resource {
            Resource::RedisCpu => {
                let publication =
                    costs::REDIS_PUBLICATION.value + costs::REDIS_HEARD.value * (heard - 1.0);
                let all = self.rate * publication
                    + self.queued_per_s * costs::REDIS_QUEUED.value
                    + self.connects_per_s * costs::REDIS_CONNECT.value;
                (all * part + self.heartbeats(nodes), 1.0, REDIS_CPU_SHARE)
            }
            Resource::RedisMemory => {
                let memory = self.machines.redis_memory_bytes as f64;
                (self.redis_bytes(nodes) * part, memory, REDIS_MEMORY_SHARE)
            }
            _ => {
                let bits = self.machines.network_bits_per_s as f64;
                let sent = self.rate * heard * (self.body + costs::FRAME_BYTES.value);
                (8.0 * sent * part, bits, NETWORK_SHARE)
            }
        };
        (used, has, used / (has * may))
    }
}

#[cfg(test)]
mod tests;
