//! Why a client has no connection, and what to do after it.

use std::time::Duration;

use fanfare_protocol::close::CloseReason;
use tokio_tungstenite::tungstenite::error::Error as SocketError;

use crate::dial::{DialError, SUBPROTOCOL, TrustError};
use crate::reconnect::{ASKED_MAX, Again};
use crate::token::TokenError;

/// Least wait after a refused handshake that names none.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Why there is no connection, or no more.
#[derive(Debug, thiserror::Error)]
pub enum ConnectionError {
    /// There is no address to connect to.
    #[error("no address was given; give one such as ws://HOST:PORT")]
    NoAddress,
    /// The token function gave no token.
    #[error("the token function failed")]
    Token(#[source] TokenError),
    /// The address is none.
    #[error("{url} is not an address of the form ws://HOST:PORT or wss://HOST")]
    Address {
        /// As given.
        url: String,
    },
    /// Whom to trust is not to be found out.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// No connection.
    #[error("cannot reach {url}")]
    Unreachable {
        /// What was dialled.
        url: String,
        /// Why.
        #[source]
        source: DialError,
    },
    /// The other side speaks no WebSocket, or not the subprotocol.
    #[error("{url} does not speak {SUBPROTOCOL}")]
    Handshake {
        /// What was dialled.
        url: String,
        /// Why.
        #[source]
        source: SocketError,
    },
    /// The handshake was refused.
    #[error("{url} answered {status}{}", reason(message))]
    Rejected {
        /// What was dialled.
        url: String,
        /// The HTTP status.
        status: u16,
        /// The body of the answer.
        message: String,
        /// What `Retry-After` says.
        retry_after: Option<Duration>,
    },
    /// Something took longer than it may.
    #[error("no answer from {url} in time")]
    TimedOut {
        /// What was dialled.
        url: String,
    },
    /// The `connect` or a resume was refused.
    #[error("{code}: {message}")]
    Refused {
        /// The error code of the contract.
        code: String,
        /// The server's sentence.
        message: String,
        /// What the server asks for.
        again: Again,
    },
    /// The server closed the connection.
    #[error("closed by the server with {code}{}", reason(reason_text))]
    Closed {
        /// The close code; 1005 when there was none.
        code: u16,
        /// The text of the close frame.
        reason_text: String,
        /// What the code asks for.
        again: Again,
    },
    /// This side left because the server asked for it with `drain`.
    #[error("left, because the node is draining")]
    Drained,
    /// No frame arrived for more than two pings.
    #[error("nothing heard for {} s", .0.as_secs())]
    Silent(Duration),
    /// The connection broke.
    #[error("the connection broke")]
    Broken(#[source] SocketError),
    /// The server sent something that is not JSON.
    #[error("the server sent something that is not JSON")]
    Unreadable(#[source] serde_json::Error),
    /// Too many events wait for the caller.
    #[error("too many events wait to be taken")]
    Backlog,
}

impl ConnectionError {
    /// What to do after it.
    #[must_use]
    pub fn again(&self) -> Again {
        match self {
            Self::NoAddress | Self::Address { .. } | Self::Trust(_) => Again::Never,
            Self::Refused { again, .. } | Self::Closed { again, .. } => *again,
            Self::Rejected {
                status: 429 | 503,
                retry_after,
                ..
            } => Again::After(retry_after.unwrap_or(RETRY_AFTER).min(ASKED_MAX)),
            // The token is no good, see `is_of_token`. Any other status may be that of something
            // between the client and a node, and passes.
            Self::Rejected { status: 401, .. } => Again::Never,
            Self::Drained | Self::Backlog => Again::AtOnce,
            Self::Rejected { .. }
            | Self::Unreachable { .. }
            | Self::Token(_)
            | Self::Handshake { .. }
            | Self::TimedOut { .. }
            | Self::Silent(_)
            | Self::Broken(_)
            | Self::Unreadable(_) => Again::BackOff,
        }
    }

    /// The code with which the server closed the connection.
    pub(crate) fn close_code(&self) -> Option<u16> {
        match self {
            Self::Closed { code, .. } => Some(*code),
            _ => None,
        }
    }

    /// Whether the server refuses the token, so that another one may be better.
    pub(crate) fn is_of_token(&self) -> bool {
        match self {
            Self::Rejected { status, .. } => *status == 401,
            Self::Closed { code, .. } => [CloseReason::Unauthorized, CloseReason::TokenExpired]
                .iter()
                .any(|reason| reason.code() == Some(*code)),
            Self::Refused { code, .. } => code == "unauthorized" || code == "token_expired",
            _ => false,
        }
    }
}

fn reason(text: &str) -> String {
    if text.is_empty() {
        String::new()
    } else {
        format!(" ({})", text.trim())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_handshake_says_whether_to_come_back() {
        let rejected = |status, retry_after| ConnectionError::Rejected {
            url: String::new(),
            status,
            message: String::new(),
            retry_after,
        };
        assert_eq!(rejected(401, None).again(), Again::Never);
        for passing in [400, 403, 404, 408, 500] {
            assert_eq!(rejected(passing, None).again(), Again::BackOff);
        }
        let five = Duration::from_secs(5);
        assert_eq!(rejected(503, Some(five)).again(), Again::After(five));
        assert_eq!(rejected(503, None).again(), Again::After(RETRY_AFTER));
        let for_ever = Duration::from_secs(u64::MAX);
        assert_eq!(
            rejected(503, Some(for_ever)).again(),
            Again::After(ASKED_MAX)
        );
    }
}
