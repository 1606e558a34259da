//! Redis as the crate speaks to it: key names, scripts, the command link, and fred's options.
//!
//! In: `config::Redis`. Out: [`RedisLink`] (commands and scripts with errors that say whether they
//! were executed) and [`feed_client`] for the broker's feed. The only file that builds a fred
//! client. Owner of the link's client: its supervisor, `broker::redis::link`, which replaces it.
//! Bounds: [`COMMANDS_MAX`] commands wait in a client, beyond that they are refused as not done;
//! every command ends after the configured timeout.
//!
//! What fred 10.1 does otherwise than one would think, and what answers it here:
//! - it sends a command in flight again after a reconnect: one attempt, no redirections;
//! - without a connection commands wait in a queue: `fail_fast` refuses them at once;
//! - with reconnect errors set, one READONLY answer is handed to every command in flight as if
//!   none had been executed: the command link sets none and is reconnected by its supervisor;
//! - `with_options(..).evalsha(..)` ignores the options, `.custom(..)` heeds them: only `custom`;
//! - the detection of unresponsive connections is reset by every write: at most one heartbeat is
//!   in flight (see `broker::feed`), and the command link is watched by its probe instead.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use fred::clients::Client;
use fred::error::Error;
use fred::interfaces::ClientLike;
use fred::types::config::{
    Blocking, Config, ConnectionConfig, Options, PerformanceConfig, ReconnectError,
    ReconnectPolicy, TcpConfig, UnresponsiveConfig,
};
use fred::types::{ClusterHash, CustomCommand, RespVersion, Value};
use futures_util::future::BoxFuture;
use tokio::sync::Notify;

use crate::config;
use crate::protocol::ids::{SessionId, Topic};

pub mod keyspace;
mod outcome;

/// Commands that may wait inside a client. fred's default is no bound at all.
pub const COMMANDS_MAX: usize = 20_000;
/// Messages between a feed's socket and its reader. Measured: none of 1.5 million was lost at
/// 580,000 a second; each slot costs some 1.5 KB once used.
pub const FEED_BUFFER_MESSAGES: usize = 8_192;
/// The same buffer of the command link, which carries only its connection events.
const COMMAND_BUFFER_MESSAGES: usize = 64;
/// Longest wait for a connection to stand, and for fred's own commands on it.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// How long sent bytes may stay unacknowledged before the kernel closes the connection. It ends
/// a busy connection to a vanished host, which the detection of unresponsive ones never does.
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(2);
/// A feed whose heartbeat is unanswered for so long is connected anew.
const FEED_UNRESPONSIVE: Duration = Duration::from_secs(1);
/// How often a feed looks for that.
const FEED_UNRESPONSIVE_CHECK: Duration = Duration::from_millis(200);
/// First and longest wait before a new attempt to connect, and the scatter, in milliseconds.
const RECONNECT_MIN_MS: u32 = 50;
const RECONNECT_MAX_MS: u32 = 500;
const RECONNECT_JITTER_MS: u32 = 20;

/// Why a command failed, by what the caller can conclude from it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RedisError {
    /// There is no URL in the configuration.
    #[error("no Redis URL is configured")]
    NoUrl,
    /// The URL is of no known form.
    #[error("the Redis URL must begin with redis://, redis-sentinel:// or redis-cluster://")]
    Scheme,
    /// The URL cannot be read.
    #[error("the Redis URL cannot be used: {}", .0.details())]
    Url(#[source] Error),
    /// The script is not loaded; nothing was executed.
    #[error("the script is not loaded: {}", .0.details())]
    NoScript(#[source] Error),
    /// The server is a replica now; nothing was executed, and a new connection may find the master.
    #[error("the server is no master: {}", .0.details())]
    NotMaster(#[source] Error),
    /// The server has not the key's slot; nothing was executed.
    #[error("the key is on another server (a Redis Cluster is given as redis-cluster://): {}", .0.details())]
    Moved(#[source] Error),
    /// Surely not executed: no server has the key at the moment.
    #[error("{0}")]
    Nowhere(String),
    /// Surely not executed: not connected, refused, not permitted.
    #[error("not done: {}", .0.details())]
    NotDone(#[source] Error),
    /// The answer was lost; it may have been executed, or may be executed yet.
    #[error("the outcome is unknown: {}", .0.details())]
    Unknown(#[source] Error),
    /// The command or script failed: a bug, or a key that another program wrote.
    #[error("failed: {}", .0.details())]
    Failed(#[source] Error),
}

/// A Lua script and the name by which Redis knows it.
#[derive(Debug, Clone)]
pub struct Script {
    source: &'static str,
    sha: String,
}

impl Script {
    /// Names a script by the SHA-1 of its source.
    #[must_use]
    pub fn new(source: &'static str) -> Self {
        Self {
            source,
            sha: fred::util::sha1_hash(source),
        }
    }

    /// The SHA-1 of the source in lower-case hex, as EVALSHA wants it.
    #[must_use]
    pub fn sha(&self) -> &str {
        &self.sha
    }
}

/// Names of keys and channels. Everything of one topic stands under the tag `{app:topic}`, so
/// that no command and no script crosses slots.
#[derive(Debug, Clone)]
pub struct Keys {
    prefix: String,
}

impl Keys {
    /// Keys that begin with this prefix.
    #[must_use]
    pub fn new(prefix: &str) -> Self {
        Self {
            prefix: prefix.to_owned(),
        }
    }

    /// The topic's channel, and what every key of the topic begins with.
    #[must_use]
    pub fn channel(&self, topic: &Topic) -> String {
        format!("{}:{{{}}}", self.prefix, topic.qualified())
    }

    /// The `app:topic` that a channel carries; `None` for other channels.
    #[must_use]
    pub fn qualified_of<'a>(&self, channel: &'a str) -> Option<&'a str> {
        channel
            .strip_prefix(self.prefix.as_str())?
            .strip_prefix(":{")?
            .strip_suffix('}')
    }

    /// The `app:topic` to which a key belongs; `None` for the cluster's own keys.
    #[must_use]
    pub fn topic_of<'a>(&self, key: &'a str) -> Option<&'a str> {
        let tagged = key.strip_prefix(self.prefix.as_str())?.strip_prefix(":{")?;
        Some(tagged.split_once('}')?.0)
    }

    /// The topic's stream.
    #[must_use]
    pub fn stream(&self, topic: &Topic) -> String {
        self.of(topic, "s")
    }

    /// The topic's last id.
    #[must_use]
    pub fn last(&self, topic: &Topic) -> String {
        self.of(topic, "l")
    }

    /// The position that an idempotency key was given.
    #[must_use]
    pub fn idempotency(&self, topic: &Topic, key: &str) -> String {
        format!("{}:k:{key}", self.channel(topic))
    }

    /// The hash of members (of a `%T` topic).
    #[must_use]
    pub fn hash(&self, topic: &Topic) -> String {
        self.of(topic, "h")
    }

    /// The cursor (of an inbox).
    #[must_use]
    pub fn cursor(&self, topic: &Topic) -> String {
        self.of(topic, "c")
    }

    /// Occupancy: incarnation to local sessions.
    #[must_use]
    pub fn occupancy(&self, topic: &Topic) -> String {
        self.of(topic, "o")
    }

    /// The lease of a partition.
    #[must_use]
    pub fn partition(&self, partition: u32) -> String {
        format!("{}:part:{{{partition}}}", self.prefix)
    }

    /// Where in a partition nodes have members or occupancy.
    #[must_use]
    pub fn node_presence(&self, partition: u32) -> String {
        format!("{}:np:{{{partition}}}", self.prefix)
    }

    /// Leases of nodes, a sorted set by their end. One script uses it with the two that follow,
    /// so the three share a tag.
    #[must_use]
    pub fn nodes(&self) -> String {
        format!("{{{}:nodes}}", self.prefix)
    }

    /// The newest incarnation by node name.
    #[must_use]
    pub fn node_incarnations(&self) -> String {
        format!("{{{}:nodes}}:i", self.prefix)
    }

    /// What nodes tell of themselves: JSON by node name.
    #[must_use]
    pub fn node_details(&self) -> String {
        format!("{{{}:nodes}}:d", self.prefix)
    }

    /// The cluster's control channel.
    #[must_use]
    pub fn control(&self) -> String {
        format!("{}:ctl", self.prefix)
    }

    /// The number of partitions.
    #[must_use]
    pub fn partitions(&self) -> String {
        format!("{}:p", self.prefix)
    }

    /// The channel on which one process hears its own probes.
    #[must_use]
    pub fn probe(&self, process: SessionId) -> String {
        format!("{}:probe:{process}", self.prefix)
    }

    fn of(&self, topic: &Topic, suffix: &str) -> String {
        format!("{}:{suffix}", self.channel(topic))
    }
}

/// The connection for commands. Its client is replaced by the supervisor when it is dead;
/// calls in flight then end with [`RedisError::Unknown`].
pub struct RedisLink {
    config: config::Redis,
    client: RwLock<Client>,
    options: Options,
    /// Told of answers which say that the key may be somewhere else.
    misplaced: Arc<Notify>,
}

impl std::fmt::Debug for RedisLink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RedisLink").finish_non_exhaustive()
    }
}

impl RedisLink {
    /// A link that is not connected; its supervisor does that.
    ///
    /// # Errors
    /// [`RedisError::NoUrl`], [`RedisError::Scheme`], [`RedisError::Url`].
    pub fn new(config: &config::Redis) -> Result<Self, RedisError> {
        Ok(Self {
            client: RwLock::new(command_client(config)?),
            options: Options {
                max_attempts: Some(1),
                max_redirections: Some(0),
                timeout: Some(config.command_timeout),
                fail_fast: true,
                ..Options::default()
            },
            config: config.clone(),
            misplaced: Arc::default(),
        })
    }

    /// The same link, which tells of each answer that is [`RedisError::is_misplaced`].
    #[must_use]
    pub fn telling(self, misplaced: Arc<Notify>) -> Self {
        Self { misplaced, ..self }
    }

    /// Runs a script, and loads it first where Redis does not know it. Only for scripts whose
    /// order against others of the same caller does not matter, because loading reorders.
    ///
    /// # Errors
    /// [`RedisError`]. Cancel safety: a dropped call may still be executed.
    pub async fn eval(
        &self,
        script: &Script,
        keys: &[String],
        args: &[Vec<u8>],
    ) -> Result<Value, RedisError> {
        let mut values = Vec::with_capacity(2 + keys.len() + args.len());
        values.push(Value::from(script.sha()));
        values.push(count(keys.len()));
        values.extend(keys.iter().map(|key| Value::from(key.as_str())));
        values.extend(args.iter().map(|arg| bytes(arg)));
        match self.submit("EVALSHA", values.clone()).await {
            Err(RedisError::NoScript(_)) => {
                self.load(script).await?;
                self.submit("EVALSHA", values).await
            }
            answer => answer,
        }
    }

    /// Sends one plain command with a key and further arguments.
    ///
    /// # Errors
    /// [`RedisError`]. Cancel safety: a dropped call may still be executed.
    pub async fn command(
        &self,
        name: &'static str,
        key: &str,
        args: &[Vec<u8>],
    ) -> Result<Value, RedisError> {
        let mut values = Vec::with_capacity(1 + args.len());
        values.push(Value::from(key));
        values.extend(args.iter().map(|arg| bytes(arg)));
        self.submit(name, values).await
    }

    /// Loads a script.
    ///
    /// # Errors
    /// [`RedisError`].
    pub async fn load(&self, script: &Script) -> Result<(), RedisError> {
        self.submit_load(script).await
    }

    /// As [`Self::load`], as a future that is written to the connection at its first poll.
    pub fn submit_load(&self, script: &Script) -> BoxFuture<'static, Result<(), RedisError>> {
        let args = vec![Value::from_static_str("LOAD"), script.source.into()];
        let answer = self.submit("SCRIPT", args);
        Box::pin(async move { answer.await.map(drop) })
    }

    /// One command as a future that is written to the connection at its first poll, so that the
    /// order of first polls is the order on the wire.
    pub fn submit(
        &self,
        name: &'static str,
        args: Vec<Value>,
    ) -> BoxFuture<'static, Result<Value, RedisError>> {
        let client = self.client().with_options(&self.options);
        let command = CustomCommand::new_static(name, ClusterHash::Random, false);
        let misplaced = Arc::clone(&self.misplaced);
        Box::pin(async move {
            let answer = client.custom(command, args).await.map_err(RedisError::of);
            if answer.as_ref().is_err_and(RedisError::is_misplaced) {
                misplaced.notify_one();
            }
            answer
        })
    }

    /// Replaces the client by a new one, which connects when its `connect` is called, and
    /// returns it. For the supervisor only.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn renew(&self) -> Result<Client, RedisError> {
        let client = command_client(&self.config)?;
        *self.client.write().unwrap_or_else(PoisonError::into_inner) = client.clone();
        Ok(client)
    }

    /// Told when keys may be somewhere else.
    #[must_use]
    pub fn misplaced(&self) -> &Notify {
        &self.misplaced
    }

    /// `host:port` of the server, for people.
    #[must_use]
    pub fn server(&self) -> String {
        let hosts = self.client().client_config().server.hosts();
        hosts.first().map_or_else(String::new, ToString::to_string)
    }

    fn client(&self) -> Client {
        self.client
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

fn count(n: usize) -> Value {
    Value::from(n.to_string())
}

fn bytes(arg: &[u8]) -> Value {
    Value::Bytes(Bytes::copy_from_slice(arg))
}

/// A client for a feed: it subscribes and pings, nothing else. Not connected yet.
///
/// # Errors
/// As [`RedisLink::new`].
pub fn feed_client(config: &config::Redis) -> Result<Client, RedisError> {
    let unresponsive = UnresponsiveConfig {
        max_timeout: Some(FEED_UNRESPONSIVE),
        interval: FEED_UNRESPONSIVE_CHECK,
    };
    let reconnect_errors = vec![
        ReconnectError::ReadOnly,
        ReconnectError::Loading,
        ReconnectError::MasterDown,
    ];
    client(config, FEED_BUFFER_MESSAGES, unresponsive, reconnect_errors)
}

/// A client for commands. Not connected yet.
///
/// # Errors
/// As [`RedisLink::new`].
pub fn command_client(config: &config::Redis) -> Result<Client, RedisError> {
    let unresponsive = UnresponsiveConfig {
        max_timeout: None,
        interval: FEED_UNRESPONSIVE_CHECK,
    };
    client(config, COMMAND_BUFFER_MESSAGES, unresponsive, Vec::new())
}

/// Every option is set here, none left to a default that an update could move.
fn client(
    config: &config::Redis,
    buffer_messages: usize,
    unresponsive: UnresponsiveConfig,
    reconnect_errors: Vec<ReconnectError>,
) -> Result<Client, RedisError> {
    let url = &config.url.as_ref().ok_or(RedisError::NoUrl)?.0;
    if !url.starts_with("redis://") && !url.starts_with("valkey://") {
        return Err(RedisError::Scheme);
    }
    let parsed = Config::from_url_centralized(url).map_err(RedisError::Url)?;
    let server = Config {
        fail_fast: false,
        blocking: Blocking::Block,
        version: RespVersion::RESP3,
        username: parsed.username,
        password: parsed.password,
        server: parsed.server,
        database: parsed.database,
    };
    let performance = PerformanceConfig {
        default_command_timeout: config.command_timeout,
        max_feed_count: 200,
        broadcast_channel_capacity: buffer_messages,
    };
    let connection = ConnectionConfig {
        connection_timeout: CONNECT_TIMEOUT,
        internal_command_timeout: CONNECT_TIMEOUT,
        cluster_cache_update_delay: Duration::ZERO,
        max_command_attempts: 1,
        max_redirections: 0,
        unresponsive,
        reconnect_on_auth_error: false,
        auto_client_setname: false,
        max_command_buffer_len: COMMANDS_MAX,
        disable_cluster_health_check: true,
        tcp: TcpConfig {
            nodelay: Some(true),
            linger: None,
            ttl: None,
            keepalive: None,
            user_timeout: Some(TCP_USER_TIMEOUT),
        },
        reconnect_errors,
    };
    let mut policy = ReconnectPolicy::new_exponential(0, RECONNECT_MIN_MS, RECONNECT_MAX_MS, 2);
    policy.set_jitter(RECONNECT_JITTER_MS);
    Ok(Client::new(
        server,
        Some(performance),
        Some(connection),
        Some(policy),
    ))
}
