//! Redis as the crate speaks to it: key names, scripts, and the command link.
//!
//! In: `config::Redis`. Out: [`RedisLink`]: commands and scripts with errors that say whether they
//! were executed. Owner of the link's client and circuit: its supervisor, `broker::redis::supervisor`.
//! Bounds: while the circuit is not closed commands are refused at once; so many wait in a client as
//! `clients` says; every command ends after the configured timeout.
//!
//! What fred 10.1 does otherwise than one would think, and what answers it here:
//! - it sends a command in flight again after a reconnect: one attempt, no redirections;
//! - without a connection commands wait in a queue: `fail_fast` refuses them at once;
//! - with reconnect errors set, one READONLY answer is handed to every command in flight as if
//!   none had been executed: the command link sets none and is reconnected by its supervisor;
//! - `with_options(..).evalsha(..)` ignores the options, `.custom(..)` heeds them: only `custom`;
//! - the detection of unresponsive connections is reset by every write: it is off, and the command link
//!   is watched by its probe instead.

use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;
use fred::types::{ClusterHash, CustomCommand, Value, config::Options};
use fred::{clients::Client, error::Error, interfaces::ClientLike};
use futures_util::future::{BoxFuture, join};
use tokio::sync::Notify;

use crate::config;
use crate::telemetry::metrics::Metrics;
use fanfare_protocol::ids::{SessionId, Topic};

pub mod access;
mod certificates;
pub mod circuit;
pub mod clients;
pub mod detour;
pub mod holders;
pub mod keyspace;
mod member_keys;
pub mod nowhere;
mod outcome;
pub mod publication_keys;
pub mod refusal;
pub mod script;
pub mod wire;

use circuit::{Away, Circuit};
use nowhere::Nowhere;
pub use script::Script;

/// So often a script is loaded for one call, should somebody take it away each time.
const LOADS_MAX: usize = 16;

/// Why a command failed, by what the caller can conclude. Its text holds the cause, so no source does.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RedisError {
    /// There is no URL in the configuration.
    #[error("no Redis URL is configured")]
    NoUrl,
    /// The URL is of no known form.
    #[error(
        "the Redis URL must begin with redis:// or rediss://, with -sentinel or -cluster in it"
    )]
    Scheme,
    /// The URL cannot be read.
    #[error("the Redis URL cannot be used: {}", .0.details())]
    Url(Error),
    /// A file that the configuration names cannot be used.
    #[error("{key} {path} cannot be used: {reason}")]
    File {
        /// Which key names it.
        key: &'static str,
        /// Where it is.
        path: String,
        /// Why not.
        reason: String,
    },
    /// Certificate and key do not fit together, or cannot be used for TLS at all.
    #[error("TLS to Redis cannot be set up: {0}")]
    Tls(fred::rustls::Error),
    /// Not even tried: Redis is known to be away, and why.
    #[error("not done: {}", .0.reason)]
    Circuit(Away),
    /// The script is not loaded; nothing was executed.
    #[error("the script is not loaded: {}", .0.details())]
    NoScript(Error),
    /// The server is a replica now; nothing was executed, and a new connection may find the master.
    #[error("the server is no master: {}", access::explain(.0))]
    NotMaster(Error),
    /// The server takes no writes at the moment; nothing was executed, and reading goes on.
    #[error("it takes no writes: {}", access::explain(.0))]
    ReadOnly(Error),
    /// The server has not the key's slot; nothing was executed.
    #[error("the key is on another server (a Redis Cluster is given as redis-cluster://): {}", .0.details())]
    Moved(Error),
    /// Surely not executed: no server may be asked for the key at the moment.
    #[error("{0}")]
    Nowhere(Nowhere),
    /// Surely not executed: not connected, refused, not permitted.
    #[error("not done: {}", access::explain(.0))]
    NotDone(Error),
    /// The answer was lost; it may have been executed, or may be executed yet.
    #[error("the outcome is unknown: {}", .0.details())]
    Unknown(Error),
    /// The command or script failed: a bug, or a key that another program wrote.
    #[error("failed: {}", access::explain(.0))]
    Failed(Error),
}

/// Names of keys and channels. Everything of one topic is under the tag `{app:topic}`, so
/// that no command and no script crosses slots.
///
/// Channels know no databases: one that is published in a database is heard from all of them. So
/// the number of any but the first is in their names, between colons, which no prefix holds:
/// no prefix and database have the channel of others.
#[derive(Debug, Clone)]
pub struct Keys {
    prefix: String,
    /// What every channel begins with: the prefix, and the database if it is not the first.
    channels: String,
}

impl Keys {
    /// Keys that begin with this prefix.
    #[must_use]
    pub fn new(prefix: &str) -> Self {
        Self::of_database(prefix, 0)
    }

    /// The same with the channels of this database.
    #[must_use]
    pub fn of_database(prefix: &str, database: u16) -> Self {
        Self {
            prefix: prefix.to_owned(),
            channels: match database {
                0 => prefix.to_owned(),
                number => format!("{prefix}:{number}"),
            },
        }
    }

    /// The topic's channel. It has the slot of the topic's keys, and scripts declare it as one.
    #[must_use]
    pub fn channel(&self, topic: &Topic) -> String {
        format!("{}:{{{}}}", self.channels, topic.qualified())
    }

    /// The `app:topic` that a channel carries; `None` for other channels.
    #[must_use]
    pub fn qualified_of<'a>(&self, channel: &'a str) -> Option<&'a str> {
        channel
            .strip_prefix(self.channels.as_str())?
            .strip_prefix(":{")?
            .strip_suffix('}')
    }

    /// The `app:topic` to which a key or a channel of any database belongs; `None` for the
    /// cluster's own keys.
    #[must_use]
    pub fn topic_of<'a>(&self, key: &'a str) -> Option<&'a str> {
        let rest = key.strip_prefix(self.prefix.as_str())?.strip_prefix(':')?;
        let (database, tagged) = rest.split_once('{')?;
        let number = database.strip_suffix(':').unwrap_or(database);
        if !number.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
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
        format!("{}:k:{key}", self.base(topic))
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

    /// The topics of a partition in which nodes have members or occupancy.
    #[must_use]
    pub fn topics_index(&self, partition: u32) -> String {
        format!("{}:ti:{{{partition}}}", self.prefix)
    }

    /// Leases of nodes, a sorted set by their end. One script uses it with those that follow,
    /// so they share a tag.
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

    /// Names whose node was to be told that another process had them: names of nodes.
    #[must_use]
    pub fn node_contests(&self) -> String {
        format!("{{{}:nodes}}:k", self.prefix)
    }

    /// When the last heartbeat of all was answered.
    #[must_use]
    pub fn node_heartbeat(&self) -> String {
        format!("{{{}:nodes}}:t", self.prefix)
    }

    /// The names of nodes by the time at which they changed last, a sorted set.
    #[must_use]
    pub fn node_changes(&self) -> String {
        format!("{{{}:nodes}}:c", self.prefix)
    }

    /// The cluster's control channel.
    #[must_use]
    pub fn control(&self) -> String {
        format!("{}:ctl", self.channels)
    }

    /// What all nodes must have in common. It has the tag of the nodes' keys, so that a node which
    /// starts needs no master but theirs.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        format!("{{{}:nodes}}:fp", self.prefix)
    }

    /// Where earlier releases have it alone.
    #[must_use]
    pub fn fingerprint_before(&self) -> String {
        format!("{}:fp", self.prefix)
    }

    /// The channel on which one process hears its probes; in a cluster one of this tag's slot.
    #[must_use]
    pub fn probe(&self, process: SessionId, tag: Option<u32>) -> String {
        let tag = tag.map_or_else(String::new, |tag| format!("{{{tag}}}:"));
        format!("{}:probe:{tag}{process}", self.channels)
    }

    fn base(&self, topic: &Topic) -> String {
        format!("{}:{{{}}}", self.prefix, topic.qualified())
    }

    fn of(&self, topic: &Topic, suffix: &str) -> String {
        format!("{}:{suffix}", self.base(topic))
    }
}

/// The connection for commands. Its client is replaced by the supervisor when it is dead;
/// calls in flight then end with [`RedisError::Unknown`].
pub struct RedisLink {
    config: config::Redis,
    client: RwLock<Client>,
    options: Options,
    circuit: Circuit,
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
    /// [`RedisError`] for a URL that cannot be used and a file that cannot be read.
    pub fn new(config: &config::Redis, metrics: Arc<Metrics>) -> Result<Self, RedisError> {
        Ok(Self {
            circuit: Circuit::new(metrics),
            client: RwLock::new(clients::command_client(config)?),
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
        self.circuit.pass()?;
        let answer = self.probe(script, keys, args).await;
        answer.map_err(|error| error.of_server(|| self.server()))
    }

    /// As [`Self::eval`], whatever the circuit says. For the supervisor only.
    ///
    /// # Errors
    /// [`RedisError`].
    pub async fn probe(
        &self,
        script: &Script,
        keys: &[String],
        args: &[Vec<u8>],
    ) -> Result<Value, RedisError> {
        let mut values = Vec::with_capacity(2 + keys.len() + args.len());
        values.extend([script.sha().into(), keys.len().to_string().into()]);
        values.extend(keys.iter().map(|key| Value::from(key.as_str())));
        values.extend(args.iter().map(|arg| bytes(arg)));
        let mut answer = self.ask("EVALSHA", values.clone()).await;
        for _ in 0..LOADS_MAX {
            if !matches!(answer, Err(RedisError::NoScript(_))) {
                break;
            }
            let again = self.ask("EVALSHA", values.clone());
            // One after the other, so that hardly anybody can take it away in between.
            let (loaded, again) = join(self.submit_load(script), again).await;
            answer = match (loaded, again) {
                (Err(error), Err(RedisError::NoScript(_))) => return Err(error),
                (_, again) => again,
            };
        }
        answer
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
        let values = std::iter::once(Value::from(key)).chain(args.iter().map(|arg| bytes(arg)));
        self.submit(name, values.collect()).await
    }

    /// Loads a script, by a future that is written to the connection at its first poll.
    pub fn submit_load(&self, script: &Script) -> BoxFuture<'static, Result<(), RedisError>> {
        let answer = self.ask("SCRIPT", script.load_args());
        Box::pin(async move { answer.await.map(drop) })
    }

    /// One command as a future that is written to the connection at its first poll, so that the
    /// order of first polls is the order on the wire.
    pub fn submit(
        &self,
        name: &'static str,
        args: Vec<Value>,
    ) -> BoxFuture<'static, Result<Value, RedisError>> {
        if let Err(error) = self.circuit.pass() {
            return Box::pin(std::future::ready(Err(error)));
        }
        let (answer, client) = (self.ask(name, args), self.client());
        Box::pin(async move {
            let answer = answer.await;
            answer.map_err(|error| error.of_server(|| clients::server_of(&client)))
        })
    }

    /// As [`Self::submit`], whatever the circuit says. For the supervisor only.
    pub fn ask(
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
        self.renew_around(None)
    }

    /// Told when keys may be somewhere else.
    #[must_use]
    pub fn misplaced(&self) -> &Notify {
        &self.misplaced
    }

    /// `host:port` of the server, or the path of its socket, for people.
    #[must_use]
    pub fn server(&self) -> String {
        clients::server_of(&self.client())
    }

    /// Whether commands are sent at all.
    #[must_use]
    pub fn circuit(&self) -> &Circuit {
        &self.circuit
    }

    fn client(&self) -> Client {
        self.client
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

fn bytes(arg: &[u8]) -> Value {
    Value::Bytes(Bytes::copy_from_slice(arg))
}

#[cfg(test)]
mod tests {
    use super::*;
    use fanfare_protocol::ids::App;

    #[test]
    fn channels_of_other_databases_have_names_of_their_own() {
        let topic = Topic::new(&App::default_app(), "t").unwrap();
        let [zero, one, eleven] = [0, 1, 11].map(|n| Keys::of_database("ff", n));
        assert_eq!(zero.channel(&topic), "ff:{default:t}");
        assert_eq!(zero.control(), "ff:ctl");
        assert_eq!(one.channel(&topic), "ff:1:{default:t}");
        assert_eq!(eleven.control(), "ff:11:ctl");
        let process = SessionId(1);
        assert_eq!(one.probe(process, None), format!("ff:1:probe:{process}"));
        for (keys, channel) in [(&zero, "ff:{default:t}"), (&one, "ff:1:{default:t}")] {
            assert_eq!(keys.qualified_of(channel), Some("default:t"));
            assert_eq!(keys.topic_of(channel), Some("default:t"));
        }
        assert_eq!(one.qualified_of("ff:{default:t}"), None);
        assert_eq!(one.qualified_of("ff:11:{default:t}"), None);
        assert_eq!(zero.qualified_of("ff:1:{default:t}"), None);
        // Databases separate keys by themselves.
        assert_eq!(one.stream(&topic), zero.stream(&topic));
        assert_eq!(one.topic_of(&one.stream(&topic)), Some("default:t"));
        for own in [
            one.nodes(),
            one.partition(1),
            one.topics_index(1),
            one.control(),
        ] {
            assert_eq!(one.topic_of(&own), None, "{own}");
        }
    }
}
