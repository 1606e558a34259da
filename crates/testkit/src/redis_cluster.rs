//! A real Redis Cluster on free ports: masters, a replica each or none, slots in even parts.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::certificates::Encryption;
use crate::redis_server::{self, RedisServer};
use crate::wait;

/// Longest wait for the nodes to agree, some times what a loaded machine takes.
const AGREE_MAX: Duration = Duration::from_secs(60);
/// Also the longest handshake of two nodes: both forget one that takes longer.
const NODE_TIMEOUT: Duration = Duration::from_secs(2);
const MASTERS_COUNT: usize = 3;
const SLOTS_COUNT: usize = 16_384;

/// See the module.
#[derive(Debug)]
pub struct RedisCluster {
    /// The masters at first, then a replica of each in the same order, if there are any.
    pub servers: Vec<RedisServer>,
}

impl RedisCluster {
    /// A cluster whose nodes agree and take writes, and whose masters have a replica each.
    pub async fn start() -> Self {
        Self::of(2 * MASTERS_COUNT, None).await
    }

    /// The same without replicas.
    pub async fn masters_only() -> Self {
        Self::of(MASTERS_COUNT, None).await
    }

    /// As [`Self::start`] with TLS for nodes and among the servers, and without CONFIG, which
    /// managed services do not offer.
    pub async fn encrypted(encryption: &Encryption) -> Self {
        Self::of(2 * MASTERS_COUNT, Some(encryption)).await
    }

    async fn of(count: usize, encryption: Option<&Encryption>) -> Self {
        let node_timeout = NODE_TIMEOUT.as_millis().to_string();
        let mut servers = Vec::new();
        let mut buses = Vec::new();
        for _ in 0..count {
            let bus = redis_server::free_address().port().to_string();
            let mut options = vec![
                "--cluster-enabled",
                "yes",
                "--cluster-port",
                &bus,
                "--cluster-node-timeout",
                &node_timeout,
                "--cluster-replica-validity-factor",
                "0",
                "--cluster-require-full-coverage",
                "no",
                "--repl-diskless-sync-delay",
                "0",
            ];
            if encryption.is_some() {
                options.extend(["--rename-command", "CONFIG", ""]);
            }
            let mut server = RedisServer::encrypted(&options, encryption);
            server.restart().await;
            servers.push(server);
            buses.push(bus);
        }
        let cluster = Self { servers };
        for (at, bus) in buses.iter().enumerate().skip(1) {
            cluster.meet(at, bus).await;
        }
        for (at, master) in cluster.servers[..MASTERS_COUNT].iter().enumerate() {
            let begin = (SLOTS_COUNT * at / MASTERS_COUNT).to_string();
            let end = (SLOTS_COUNT * (at + 1) / MASTERS_COUNT - 1).to_string();
            master
                .ask(&["CLUSTER", "ADDSLOTSRANGE", &begin, &end])
                .expect("the server runs");
        }
        cluster.agree(0).await;
        for (at, replica) in cluster.servers[MASTERS_COUNT..].iter().enumerate() {
            let master = id(&cluster.servers[at]);
            replica
                .ask(&["CLUSTER", "REPLICATE", &master])
                .expect("the server runs");
        }
        for replica in &cluster.servers[MASTERS_COUNT..] {
            wait::until_within(AGREE_MAX, "a replica to be in step", async || {
                let role = replica.ask(&["ROLE"])?;
                (role.get(3).map(String::as_str) == Some("connected")).then_some(())
            })
            .await;
        }
        cluster.agree(count - MASTERS_COUNT).await;
        cluster
    }

    /// Makes a server known to the first one, which tells the others. On a machine so loaded that
    /// the handshake is forgotten it is begun again, which Redis itself never does.
    async fn meet(&self, at: usize, bus: &str) {
        let (first, server) = (&self.servers[0], &self.servers[at]);
        let port = server.offered().port().to_string();
        let mut begun: Option<Instant> = None;
        wait::until_within(AGREE_MAX, "two nodes to know each other", async || {
            if begun.is_none_or(|begun| begun.elapsed() > 2 * NODE_TIMEOUT) {
                first.ask(&["CLUSTER", "MEET", "127.0.0.1", &port, bus])?;
                begun = Some(Instant::now());
            }
            let nodes = first.ask(&["CLUSTER", "NODES"])?.join("");
            let known = nodes.lines().find(|line| line.starts_with(&id(server)))?;
            (!known.contains("handshake")).then_some(())
        })
        .await;
    }

    /// Waits until every node knows every other, all slots and so many replicas, and takes writes.
    /// A master that does not know its replica as such ignores its wish to fail over.
    async fn agree(&self, replicas_count: usize) {
        for server in &self.servers {
            wait::until_within(AGREE_MAX, "the cluster to agree", async || {
                let info = server.ask(&["CLUSTER", "INFO"])?.join("");
                let has = |what: &str| info.contains(what);
                let known = format!("cluster_known_nodes:{}\r", self.servers.len());
                let masters = format!("cluster_size:{MASTERS_COUNT}\r");
                let nodes = server.ask(&["CLUSTER", "NODES"])?.join("");
                let is_replica = |line: &&str| line.contains("slave ");
                let is_all = nodes.lines().filter(is_replica).count() == replicas_count;
                (has("cluster_state:ok") && has(&known) && has(&masters) && is_all).then_some(())
            })
            .await;
        }
    }

    /// For `--redis`.
    pub fn url(&self) -> String {
        format!("redis-cluster://{}", self.hosts())
    }

    /// The same by TLS as the user that docs/redis.md tells operators to make, who is made at
    /// every server.
    pub fn tls_url_of_user(&self) -> String {
        for server in &self.servers {
            redis_server::make_user(server.address(), "fanfare");
        }
        format!("rediss-cluster://fanfare:secret@{}", self.hosts())
    }

    fn hosts(&self) -> String {
        let hosts = self.servers.iter().map(|s| s.offered().to_string());
        hosts.collect::<Vec<_>>().join(",")
    }

    /// The slot of a key.
    pub fn slot(&self, key: &str) -> usize {
        let slot = self.servers[0].ask(&["CLUSTER", "KEYSLOT", key]);
        slot.expect("the server runs")[0].parse().expect("a number")
    }

    /// Which server has a slot, as one that runs sees it.
    pub fn owner(&self, slot: usize) -> Option<usize> {
        let running = self.servers.iter().find(|server| server.pid() != 0)?;
        let text = running.ask(&["CLUSTER", "NODES"])?.join("");
        let line = text.lines().find(|line| has_slot(line, slot))?;
        let address = line.split(' ').nth(1)?.split('@').next()?;
        let is_it = |server: &RedisServer| server.address().to_string() == address;
        self.servers.iter().position(is_it)
    }

    /// Moves a slot with all its keys from one server to another, step by step as redis-cli does.
    /// The two know it then; the others hear of it.
    pub fn move_slot(&self, slot: usize, from: usize, to: usize) {
        self.begin_to_move_slot(slot, from, to);
        self.end_move_of_slot(slot, from, to);
    }

    /// Moves the keys of a slot, which still is the first server's.
    pub fn begin_to_move_slot(&self, slot: usize, from: usize, to: usize) {
        let (source, target) = (&self.servers[from], &self.servers[to]);
        let (source_id, target_id) = (id(source), id(target));
        let text = slot.to_string();
        let runs = "the server runs";
        let importing = ["CLUSTER", "SETSLOT", &text, "IMPORTING", &source_id];
        target.ask(&importing).expect(runs);
        let migrating = ["CLUSTER", "SETSLOT", &text, "MIGRATING", &target_id];
        source.ask(&migrating).expect(runs);
        let port = target.offered().port().to_string();
        loop {
            let keys = source
                .ask(&["CLUSTER", "GETKEYSINSLOT", &text, "100"])
                .expect(runs);
            if keys.is_empty() {
                break;
            }
            let mut migrate = vec!["MIGRATE", "127.0.0.1", &port, "", "0", "5000", "KEYS"];
            migrate.extend(keys.iter().map(String::as_str));
            source.ask(&migrate).expect(runs);
        }
    }

    /// The slot is the other server's from now on.
    pub fn end_move_of_slot(&self, slot: usize, from: usize, to: usize) {
        let (source, target) = (&self.servers[from], &self.servers[to]);
        let (text, target_id) = (slot.to_string(), id(target));
        let owner = ["CLUSTER", "SETSLOT", &text, "NODE", &target_id];
        target.ask(&owner).expect("the server runs");
        source.ask(&owner).expect("the server runs");
    }

    /// Waits until a server has a slot and all that run know it.
    pub async fn is_at(&self, slot: usize, at: usize) {
        let wanted = self.servers[at].address().to_string();
        for server in self.servers.iter().filter(|server| server.pid() != 0) {
            wait::until_within(AGREE_MAX, "the slot to be where it should", async || {
                let text = server.ask(&["CLUSTER", "NODES"])?.join("");
                let line = text.lines().find(|line| has_slot(line, slot))?.to_owned();
                line.contains(&wanted).then_some(())
            })
            .await;
        }
    }

    /// Lets the process that outlives this one end the servers, for a cluster that many tests
    /// share and that therefore nobody drops.
    pub fn ends_with_this_process(&self) {
        let mut command = String::from("cat >/dev/null; kill -9");
        for server in &self.servers {
            command.push_str(&format!(" {}", server.pid()));
        }
        command.push_str("; rm -rf");
        for server in &self.servers {
            command.push_str(&format!(" '{}'", server.directory().display()));
        }
        let guard = Command::new("sh")
            .args(["-c", &command])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("a shell");
        // Its input ends with this process.
        std::mem::forget(guard);
    }
}

fn id(server: &RedisServer) -> String {
    server
        .ask(&["CLUSTER", "MYID"])
        .expect("the server runs")
        .remove(0)
}

/// Whether a line of `CLUSTER NODES` lists the slot as its node's own.
fn has_slot(line: &str, slot: usize) -> bool {
    line.split(' ').skip(8).any(|range| {
        let (begin, end) = range.split_once('-').unwrap_or((range, range));
        match (begin.parse::<usize>(), end.parse::<usize>()) {
            (Ok(begin), Ok(end)) => (begin..=end).contains(&slot),
            _ => false,
        }
    })
}
