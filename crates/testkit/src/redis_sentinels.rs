//! A real master with a replica, watched by three sentinels, on free ports.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::certificates::Encryption;
use crate::redis_server::{self, RedisServer};
use crate::wait;

/// Longest wait for the sentinels to agree, some times what a loaded machine takes.
const AGREE_MAX: Duration = Duration::from_secs(60);
const SENTINELS_COUNT: usize = 3;
/// What the sentinels call the master.
pub const MASTER: &str = "main";

/// See the module.
#[derive(Debug)]
pub struct RedisSentinels {
    /// The master at first, then its replica.
    pub servers: [RedisServer; 2],
    /// Who watches them.
    pub sentinels: Vec<Sentinel>,
}

/// One sentinel. Dropping it kills it.
#[derive(Debug)]
pub struct Sentinel {
    /// Where it answers.
    pub address: SocketAddr,
    tls_address: Option<SocketAddr>,
    child: Child,
    _directory: tempfile::TempDir,
}

impl RedisSentinels {
    /// A master and a replica in step, and sentinels that know each other and both.
    pub async fn start() -> Self {
        Self::of(None).await
    }

    /// The same with TLS for nodes and among servers and sentinels.
    pub async fn encrypted(encryption: &Encryption) -> Self {
        Self::of(Some(encryption)).await
    }

    async fn of(encryption: Option<&Encryption>) -> Self {
        let options = ["--repl-diskless-sync-delay", "0"];
        let mut master = RedisServer::encrypted(&options, encryption);
        master.restart().await;
        let port = master.offered().port().to_string();
        let follow = ["--replicaof", "127.0.0.1", &port];
        let options = [&options[..], &follow[..]].concat();
        let mut replica = RedisServer::encrypted(&options, encryption);
        replica.restart().await;
        let sentinels = (0..SENTINELS_COUNT)
            .map(|_| Sentinel::encrypted(&port, encryption))
            .collect();
        let all = Self {
            servers: [master, replica],
            sentinels,
        };
        all.agree().await;
        all
    }

    /// Waits until a replica is in step and every sentinel could fail over to it.
    pub async fn agree(&self) {
        for sentinel in &self.sentinels {
            wait::until_within(AGREE_MAX, "the sentinels to agree", async || {
                let of = |what| redis_server::ask(sentinel.address, &["SENTINEL", what, MASTER]);
                let master = of("MASTER")?;
                let value = |name: &str| {
                    let at = master.iter().position(|word| word == name)?;
                    master.get(at + 1).cloned()
                };
                let others = (SENTINELS_COUNT - 1).to_string();
                let is_known = value("num-other-sentinels") == Some(others);
                let is_well = value("flags").as_deref() == Some("master");
                let replicas = of("REPLICAS")?;
                let is_ready = replicas
                    .windows(2)
                    .any(|pair| pair[0] == "master-link-status" && pair[1] == "ok");
                (is_known && is_well && is_ready).then_some(())
            })
            .await;
        }
    }

    /// For `--redis`.
    pub fn url(&self) -> String {
        format!("redis-sentinel://{}?master={MASTER}", self.hosts())
    }

    /// The same by TLS as the users that docs/redis.md tells operators to make, who are made at
    /// every server and sentinel. The password of the user at the servers is not in it.
    pub fn tls_url_of_users(&self) -> String {
        for server in &self.servers {
            redis_server::make_user(server.address(), "fanfare");
        }
        for sentinel in &self.sentinels {
            redis_server::make_user(sentinel.address, "guide");
        }
        let hosts = self.hosts();
        format!("rediss-sentinel://{hosts}?master={MASTER}&sentinel=guide:secret")
    }

    fn hosts(&self) -> String {
        let offered = |s: &Sentinel| s.tls_address.unwrap_or(s.address).to_string();
        let hosts = self.sentinels.iter().map(offered);
        hosts.collect::<Vec<_>>().join(",")
    }

    /// Which server the sentinels call the master.
    pub fn master(&self) -> Option<usize> {
        let words = ["SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER];
        let answer = redis_server::ask(self.sentinels[0].address, &words)?;
        let port = answer.get(1)?.parse::<u16>().ok()?;
        let is_it = |server: &RedisServer| server.offered().port() == port;
        self.servers.iter().position(is_it)
    }

    /// Tells the sentinels to make the other server the master, and waits until they say so.
    pub async fn fail_over(&self) {
        let before = self.master().expect("the sentinel runs");
        redis_server::ask(self.sentinels[0].address, &["SENTINEL", "FAILOVER", MASTER])
            .expect("the sentinel runs");
        self.is_not(before).await;
    }

    /// Waits until another server is the master.
    pub async fn is_not(&self, before: usize) {
        wait::until_within(AGREE_MAX, "another master", async || {
            (self.master()? != before).then_some(())
        })
        .await;
    }
}

impl Sentinel {
    /// Watches the master on this port.
    pub fn start(master_port: &str) -> Self {
        Self::encrypted(master_port, None)
    }

    fn encrypted(master_port: &str, encryption: Option<&Encryption>) -> Self {
        let tls_address = encryption.map(|_| redis_server::free_address());
        let address = redis_server::free_address();
        let directory = tempfile::tempdir().expect("a temporary directory");
        let file = directory.path().join("sentinel.conf");
        let mut text = format!(
            "port {}\nbind 127.0.0.1\ndir {}\n\
             sentinel monitor {MASTER} 127.0.0.1 {master_port} 2\n\
             sentinel down-after-milliseconds {MASTER} 1000\n\
             sentinel failover-timeout {MASTER} 3000\n",
            address.port(),
            directory.path().display(),
        );
        if let (Some(encryption), Some(address)) = (encryption, tls_address) {
            for (name, value) in encryption.options(address.port()) {
                text.push_str(&format!("{name} {value}\n"));
            }
        }
        std::fs::write(&file, text).expect("a file in the temporary directory");
        let child = Command::new(redis_server::program())
            .arg(&file)
            .arg("--sentinel")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("redis-server is installed: scripts/test does that");
        Self {
            address,
            tls_address,
            child,
            _directory: directory,
        }
    }
}

impl Drop for Sentinel {
    fn drop(&mut self) {
        // An error means that the process is gone, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
