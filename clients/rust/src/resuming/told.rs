//! What a resuming connection is told, and what it tells: options, events, errors of commands.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use crate::dial::Tls;
use crate::error::ConnectionError;
use crate::token::Token;

/// Where to connect, as whom, and from where to resume.
#[derive(Debug, Clone)]
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
    /// Where topics were left: after these positions inbox and `@` begin. Other topics are joined
    /// there by `connect`; those of a [`Client`](crate::Client) when they are subscribed to without
    /// another beginning. Default: none.
    pub positions: BTreeMap<String, String>,
    /// Longest command in bytes, as the nodes have it in `session.message_bytes_max`. A longer one
    /// is not sent, because a node closes the connection at it. Default: 65,536.
    pub message_bytes_max: usize,
    /// Longest frame of a server in bytes; at a longer one the connection ends. Default:
    /// 117,440,512, more than any configuration of a node allows for.
    pub frame_bytes_max: usize,
    /// How long after it was first sent a publication with an idempotency key is repeated by a
    /// [`Client`](crate::Client) itself. It must be less than the nodes' `session.idempotency_s`,
    /// after which they have forgotten the key. Default: 60 s.
    pub repeat_within: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            urls: Vec::new(),
            tls: Tls::default(),
            token: Token::default(),
            user: None,
            positions: BTreeMap::new(),
            message_bytes_max: 64 << 10,
            frame_bytes_max: 112 << 20,
            repeat_within: Duration::from_secs(60),
        }
    }
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
    /// It is longer than the server takes, and was not sent.
    #[error("the command has {bytes} bytes, and the server takes {limit} at most; it was not sent")]
    TooBig {
        /// Its length.
        bytes: usize,
        /// [`Options::message_bytes_max`].
        limit: usize,
    },
    /// The connection broke before the answer: it is unknown whether the command was done. The
    /// next call connects again.
    #[error(
        "the connection broke before the answer ({cause}): it is unknown whether the command was \
         done; repeat it, a publication with an idempotency key"
    )]
    Lost {
        /// The session had a user, so that an idempotency key holds for the next one too.
        has_user: bool,
        /// The close code, if the server closed the connection. 1009 says that this command, or
        /// another one at the same time, was too long.
        close_code: Option<u16>,
        /// Why the connection broke.
        cause: String,
    },
    /// The connection ended and the client does not come back.
    #[error(transparent)]
    Ended(ConnectionError),
}

impl CommandError {
    /// Whether the server closed the connection because of what it was sent, so that to repeat it
    /// would be to be closed again.
    pub(crate) fn is_of_what_was_sent(&self) -> bool {
        let code = match self {
            Self::Lost { close_code, .. } => *close_code,
            _ => None,
        };
        matches!(code, Some(1002 | 1003 | 1007 | 1009 | 4003))
    }
}
