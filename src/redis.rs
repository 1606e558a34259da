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

pub mod access;
mod certificates;
pub mod circuit;
pub mod clients;
pub mod detour;
pub mod holders;
mod keys;
pub mod keyspace;
pub mod nowhere;
mod outcome;
pub mod publication_keys;
pub mod refusal;
pub mod script;
pub mod wire;

use circuit::{Away, Circuit};
pub use keys::Keys;
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
