//! Who is asked where the masters are: one sentinel, or one node of a cluster.
//!
//! In: an address, questions. Out: answers, or what ended the connection. Owner of one connection,
//! which ends with the [`Guide`]. Bounds: one question at a time, each within [`ANSWER_TIMEOUT`].

use std::time::Duration;

use fred::clients::Client;
use fred::error::Error;
use fred::interfaces::{ClientLike, EventInterface};
use fred::types::config::Server;
use fred::types::{ClusterHash, ConnectHandle, CustomCommand, Value};
use tokio::sync::broadcast;

use super::topology::LayoutError;
use crate::config::redis_url::{RedisForm, RedisUrl};
use crate::config::{self, Secret};
use crate::redis::refusal::Refusal;
use crate::redis::{RedisError, access, clients, detour};

/// Longest wait for a connection and an answer.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);

/// Why a host did not say where the masters are.
#[derive(Debug, thiserror::Error)]
pub(super) enum AskError {
    #[error("no answer within {ANSWER_TIMEOUT:?}")]
    Timeout,
    #[error("{}", access::explain(.0))]
    Connection(Error),
    #[error(transparent)]
    Redis(#[from] RedisError),
    #[error(transparent)]
    Topology(#[from] LayoutError),
}

impl AskError {
    /// In which word the host refused, if it did.
    pub(super) fn refusal(&self) -> Option<&'static Refusal> {
        match self {
            Self::Connection(error) => Refusal::of(error.details()),
            Self::Redis(error) => error.refusal(),
            Self::Timeout | Self::Topology(_) => None,
        }
    }
}

/// See the module.
pub(super) struct Guide {
    /// Where it is.
    pub(super) host: String,
    client: Client,
    task: ConnectHandle,
    errors: broadcast::Receiver<(Error, Option<Server>)>,
}

impl Drop for Guide {
    fn drop(&mut self) {
        // Dropping a client does not end its task; aborting it closes the socket.
        self.task.abort();
    }
}

impl Guide {
    /// Begins to connect. Cancel safety: safe.
    pub(super) async fn connect(
        url: &RedisUrl,
        host: String,
        settings: &config::Redis,
    ) -> Result<Self, RedisError> {
        let mut settings = config::Redis {
            url: Some(Secret(url.guide(&host))),
            ..settings.clone()
        };
        if matches!(url.form, RedisForm::Sentinel { .. }) {
            // A sentinel has users of its own, which its URL names.
            settings.access.user = None;
            settings.access.password_file = None;
        }
        let around = detour::find(&settings).await;
        let client = clients::client_around(&settings, around)?;
        Ok(Self {
            host,
            errors: client.error_rx(),
            task: client.connect(),
            client,
        })
    }

    /// The first question waits for the connection, or for why there is none.
    pub(super) async fn ask(
        &mut self,
        name: &'static str,
        words: &[&str],
    ) -> Result<Value, AskError> {
        let command = CustomCommand::new_static(name, ClusterHash::Random, false);
        let words: Vec<Value> = words.iter().map(|word| Value::from(*word)).collect();
        tokio::select! {
            // What ended the connection says more than that the question was not answered.
            biased;
            Ok((error, _)) = self.errors.recv() => Err(AskError::Connection(error)),
            answer = self.client.custom(command, words) => Ok(answer.map_err(RedisError::of)?),
        }
    }
}
