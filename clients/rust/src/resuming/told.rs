//! What a resuming connection is told, and what it tells: options, events, errors of commands.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use crate::dial::Tls;
use crate::error::ConnectionError;
use crate::token::Token;

/// Where to connect, as whom, and from where to resume.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// `ws://HOST:PORT` or `wss://HOST`, with or without `/v1/connect`. After a failure the next
    /// one is tried, and after the last the first.
    pub urls: Vec<String>,
    /// Whom to trust at a `wss` address.
    pub tls: Tls,
    /// Sent in the `Authorization` header.
    pub token: Token,
    /// Sent as `?user=`, for nodes in development mode.
    pub user: Option<String>,
    /// Topics that `connect` joins, and where inbox and `@` begin: after these positions.
    pub positions: BTreeMap<String, String>,
}

/// What [`ResumingConnection::next_event`] gives.
#[derive(Debug)]
pub enum Event {
    /// An event of the server as it came, or one of the same form that the client makes of the
    /// answer to a resume: `gap` for what could not be recovered, `unsubscribed` for a refusal.
    Server(Value),
    /// The connection is gone, or a try to restore it failed; the next try follows by itself.
    Disconnected {
        /// Why.
        cause: ConnectionError,
        /// When it will try again.
        again_after: Duration,
    },
    /// The connection is back and every topic was asked for again.
    Reconnected {
        /// The new session's `welcome`.
        welcome: Value,
    },
}

/// Why a command has no result.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// The server answered `error`.
    #[error("{code}: {message}")]
    Refused {
        /// The error code of the contract.
        code: String,
        /// The server's sentence.
        message: String,
        /// Whether repeating may succeed.
        retry: bool,
        /// After how long to repeat, where the server says it.
        retry_after: Option<Duration>,
    },
    /// The connection broke before the answer: it is unknown whether the command was done. The
    /// next call connects again.
    #[error(
        "the connection broke before the answer: it is unknown whether the command was done; \
         repeat it, a publication with an idempotency key"
    )]
    Lost {
        /// The session had a user, so that an idempotency key holds for the next one too.
        has_user: bool,
    },
    /// The connection ended and the client does not come back.
    #[error(transparent)]
    Ended(ConnectionError),
}
