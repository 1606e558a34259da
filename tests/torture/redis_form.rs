//! Redis in the form that a run is about: one server, Sentinel, or Cluster, with what can be done
//! to each.
//!
//! In: `redis-server`, or the program that `FANFARE_TEST_REDIS` names. Out: the URL for
//! nodes, and faults. All servers write to disk before they answer, so that a kill alone loses
//! nothing; a failover may. Questions go through `redis-cli`, each with a deadline. Owner: the run;
//! dropping it ends all servers.

use std::process::{Command, Stdio};
use std::time::Duration;

use clap::ValueEnum;
use tokio::time::{Instant, sleep};

use super::queue_redis::Doors;
use fanfare_testkit::redis_cluster::RedisCluster;
use fanfare_testkit::redis_sentinels::{MASTER, Sentinel};
use fanfare_testkit::redis_server::RedisServer;
use fanfare_testkit::wait;

/// Longest wait for a failover or for a server to be a replica again.
const FAILOVER_PATIENCE: Duration = Duration::from_secs(60);
/// Deployments over which topics are spread.
const SHARDS_COUNT: usize = 3;
/// How long Cluster takes for a failover that is asked for, with room.
const FAILOVER_TIME: Duration = Duration::from_secs(1);

/// The form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Form {
    /// One server
    Single,
    /// A master, two replicas, three sentinels
    Sentinel,
    /// Three masters, three replicas
    Cluster,
    /// Three servers that know nothing of each other, over which topics are spread
    Shards,
}

impl Form {
    /// As it is named on the command line.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Single => "single",
            Self::Sentinel => "sentinel",
            Self::Cluster => "cluster",
            Self::Shards => "shards",
        }
    }

    /// Whether another server takes over from a master that is lost.
    pub(crate) fn has_replicas(self) -> bool {
        matches!(self, Self::Sentinel | Self::Cluster)
    }
}

/// See the module.
pub(crate) struct Redis {
    pub(crate) form: Form,
    servers: Vec<RedisServer>,
    sentinels: Vec<Sentinel>,
    /// How many seconds the clocks of replicas are behind.
    clocks_behind: u32,
}

impl Redis {
    /// Starts all servers of a form and waits until they are one. Those that begin as a replica
    /// behind sentinels have clocks that are so many seconds behind.
    pub(crate) async fn start(form: Form, clocks_behind: u32) -> Self {
        let mut redis = Self {
            form,
            servers: Vec::new(),
            sentinels: Vec::new(),
            clocks_behind,
        };
        match form {
            Form::Single => redis.serve(&[]).await,
            Form::Sentinel => redis.start_sentinel().await,
            Form::Cluster => redis.servers = RedisCluster::start().await.servers,
            Form::Shards => {
                for _ in 0..SHARDS_COUNT {
                    redis.serve(&[]).await;
                }
            }
        }
        redis
    }

    /// Adds a replica of the first server, for the control with the lossy failover.
    pub(crate) async fn add_replica(&mut self) {
        let master = self.servers[0].port().to_string();
        let options = [
            "--replicaof",
            "127.0.0.1",
            &master,
            "--repl-diskless-sync-delay",
            "0",
        ];
        let mut server = RedisServer::with(&options).clock_behind(self.clocks_behind);
        server.restart().await;
        self.servers.push(server);
        let replica = self.servers.len() - 1;
        self.is_synchronized(replica).await;
    }

    /// Where nodes are to connect, if not through links of their own.
    pub(crate) fn url(&self) -> String {
        let ports: Vec<_> = match self.form {
            Form::Sentinel => self
                .sentinels
                .iter()
                .map(|sentinel| sentinel.address.port())
                .collect(),
            Form::Cluster => self.servers.iter().map(RedisServer::port).collect(),
            Form::Single | Form::Shards => vec![self.port(0)],
        };
        let hosts: Vec<_> = ports
            .iter()
            .map(|port| format!("127.0.0.1:{port}"))
            .collect();
        let hosts = hosts.join(",");
        match self.form {
            Form::Single => format!("redis://{hosts}"),
            Form::Shards => format!("redis://{hosts}?name=first"),
            Form::Sentinel => format!("redis-sentinel://{hosts}/0?master={MASTER}"),
            Form::Cluster => format!("redis-cluster://{hosts}"),
        }
    }

    /// The URLs of further deployments, as a list in the configuration.
    pub(crate) fn shards(&self) -> Option<String> {
        let others = self.servers[1..].iter().enumerate();
        let urls: Vec<_> = others
            .map(|(at, server)| format!("{}?name=further-{at}", server.url()))
            .collect();
        (self.form == Form::Shards).then(|| urls.join(","))
    }

    /// Where its servers are.
    pub(crate) fn doors(&self) -> Doors {
        let further = (0..self.servers.len().saturating_sub(1)).map(|at| format!("further-{at}"));
        let sentinels = self.sentinels.iter();
        Doors {
            form: self.form,
            ports: self.servers.iter().map(RedisServer::port).collect(),
            sentinels: sentinels.map(|one| one.address.port()).collect(),
            names: std::iter::once("first".to_owned()).chain(further).collect(),
        }
    }

    /// The port of a server.
    pub(crate) fn port(&self, server: usize) -> u16 {
        self.servers[server].port()
    }

    /// Ends a server without a word.
    pub(crate) fn kill(&mut self, server: usize) {
        self.servers[server].kill();
    }

    /// Starts a killed server again; it has what it had written.
    pub(crate) async fn restart(&mut self, server: usize) {
        self.servers[server].restart().await;
    }

    /// SIGSTOP or SIGCONT.
    pub(crate) fn signal(&self, server: usize, name: &str) {
        self.servers[server].signal(name);
    }

    /// The servers that are masters now. A master that Sentinel has replaced and not yet told so
    /// is none.
    pub(crate) async fn masters(&self) -> Vec<usize> {
        let named = self.named_master().await;
        let mut masters = Vec::new();
        for (index, server) in self.servers.iter().enumerate() {
            let is_named = named.is_none_or(|port| port == server.port());
            if is_named && server.pid() != 0 && role(server.port()).await == "master" {
                masters.push(index);
            }
        }
        masters
    }

    /// Kills the connections of a type at every master.
    pub(crate) async fn kill_connections(&self, kind: &str) {
        for master in self.masters().await {
            ask(self.port(master), &["CLIENT", "KILL", "TYPE", kind]).await;
        }
    }

    /// Where a node of another cluster beside this one is to connect.
    pub(crate) fn url_of_database(&self, database: u32) -> String {
        format!("redis://127.0.0.1:{}/{database}", self.port(0))
    }

    /// Sets a parameter at every server that runs.
    pub(crate) async fn configure(&self, parameter: &str, value: &str) {
        for server in self.servers.iter().filter(|server| server.pid() != 0) {
            ask(server.port(), &["CONFIG", "SET", parameter, value]).await;
        }
    }

    /// A command to one server.
    pub(crate) async fn ask(&self, server: usize, words: &[&str]) -> String {
        ask(self.port(server), words).await
    }

    /// Waits until another server has taken over from a killed or demoted master.
    pub(crate) async fn is_replaced(&self, master: usize) {
        let others = self.servers.len();
        let enough = if self.form == Form::Cluster {
            others / 2
        } else {
            1
        };
        wait::until_within(FAILOVER_PATIENCE, "a new master", async || {
            let masters = self.masters().await;
            let others = masters.iter().filter(|index| **index != master);
            (others.count() >= enough).then_some(())
        })
        .await;
    }

    /// Waits until a server is a replica that has all that its master has, or the master once more:
    /// sentinels on a loaded machine may fail over again and again.
    pub(crate) async fn is_synchronized(&self, server: usize) {
        wait::until_within(FAILOVER_PATIENCE, "a replica in step", async || {
            self.has_settled(server).await.then_some(())
        })
        .await;
    }

    async fn has_settled(&self, server: usize) -> bool {
        let told = self.ask(server, &["INFO", "replication"]).await;
        let is_in_step = told.contains("role:slave") && told.contains("master_link_status:up");
        is_in_step || self.named_master().await == Some(self.port(server))
    }

    /// Makes a restarted master a replica of its successor, which Sentinel would do some ten
    /// seconds later and Cluster does by itself. The order is repeated, as the successor may be
    /// another one by then.
    pub(crate) async fn follow(&self, server: usize) {
        wait::until_within(FAILOVER_PATIENCE, "a replica in step", async || {
            if let Some(master) = self.named_master().await
                && master != self.port(server)
            {
                let words = ["REPLICAOF", "127.0.0.1", &master.to_string()];
                self.ask(server, &words).await;
            }
            self.has_settled(server).await.then_some(())
        })
        .await;
    }

    /// The port of the master that the first sentinel names, where there are any.
    async fn named_master(&self) -> Option<u16> {
        let sentinel = self.sentinels.first()?.address.port();
        let words = ["SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER];
        ask(sentinel, &words).await.lines().nth(1)?.parse().ok()
    }

    /// Asks for a failover without a crash, and waits until it is done.
    pub(crate) async fn fail_over(&self, chosen: usize) {
        match self.form {
            Form::Sentinel => {
                let master = self.masters().await[0];
                // Refused while the last one has not settled.
                wait::until_within(FAILOVER_PATIENCE, "SENTINEL FAILOVER", async || {
                    let port = self.sentinels[0].address.port();
                    let told = ask(port, &["SENTINEL", "FAILOVER", MASTER]).await;
                    (told == "OK").then_some(())
                })
                .await;
                self.is_replaced(master).await;
                self.is_synchronized(master).await;
            }
            Form::Cluster => {
                let masters = self.masters().await;
                let all = 0..self.servers.len();
                let replicas: Vec<_> = all.filter(|index| !masters.contains(index)).collect();
                let replica = replicas[chosen % replicas.len()];
                let deadline = Instant::now() + FAILOVER_PATIENCE;
                // One that could not be had in time is given up by Redis without a word.
                while role(self.port(replica)).await != "master" {
                    assert!(Instant::now() < deadline, "waited for CLUSTER FAILOVER");
                    self.ask(replica, &["CLUSTER", "FAILOVER"]).await;
                    sleep(FAILOVER_TIME).await;
                }
            }
            Form::Single | Form::Shards => {}
        }
    }

    /// Moves so many slots with all their keys from one master to another.
    pub(crate) async fn move_slots(&self, chosen: usize, count: usize) {
        let masters = self.masters().await;
        let from = masters[chosen % masters.len()];
        let to = masters[(chosen + 1) % masters.len()];
        let address = format!("127.0.0.1:{}", self.port(from));
        let (from, to) = (self.id(from).await, self.id(to).await);
        let count = count.to_string();
        let words = [
            "--cluster",
            "reshard",
            &address,
            "--cluster-from",
            &from,
            "--cluster-to",
            &to,
            "--cluster-slots",
            &count,
            "--cluster-yes",
        ];
        redis_cli(&words, "60").await;
    }

    async fn id(&self, server: usize) -> String {
        self.ask(server, &["CLUSTER", "MYID"]).await
    }

    async fn serve(&mut self, options: &[&str]) {
        let mut server = RedisServer::with(options);
        server.restart().await;
        self.servers.push(server);
    }

    async fn start_sentinel(&mut self) {
        self.serve(&["--repl-diskless-sync-delay", "0"]).await;
        self.add_replica().await;
        self.add_replica().await;
        for _ in 0..3 {
            let sentinel = Sentinel::start(&self.port(0).to_string());
            self.sentinels.push(sentinel);
        }
        for sentinel in &self.sentinels {
            wait::until_within(FAILOVER_PATIENCE, "the sentinels to know all", async || {
                let told = ask(sentinel.address.port(), &["SENTINEL", "MASTER", MASTER]).await;
                let words: Vec<_> = told.lines().collect();
                let is = |name, value| words.windows(2).any(|pair| pair == [name, value]);
                (is("num-slaves", "2") && is("num-other-sentinels", "2")).then_some(())
            })
            .await;
        }
    }
}

async fn role(port: u16) -> String {
    let told = ask(port, &["ROLE"]).await;
    told.lines().next().unwrap_or_default().to_owned()
}

async fn ask(port: u16, words: &[&str]) -> String {
    let port = port.to_string();
    let mut all = vec!["-p", &port];
    all.extend(words);
    redis_cli(&all, "2").await
}

/// What `redis-cli` prints within so many seconds.
async fn redis_cli(words: &[&str], seconds: &str) -> String {
    let words: Vec<_> = words.iter().map(ToString::to_string).collect();
    let mut command = Command::new("timeout");
    command.args([seconds, "redis-cli"]).args(words);
    let output = tokio::task::spawn_blocking(move || command.stdin(Stdio::null()).output());
    let output = output.await.expect("no panic there");
    let output = output.expect("redis-cli is installed: scripts/test does that");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}
