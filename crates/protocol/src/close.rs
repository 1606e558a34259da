//! The one table of ends: why a session was closed, in every vocabulary that needs it.
//!
//! A session ends with exactly one [`CloseReason`]. From it follow the WebSocket code, the text
//! of the close frame, whether the client should come back, the label in metrics and the word in
//! the log. Codes 4000 to 4099: do not reconnect as you are; 4100 to 4199: reconnect after at
//! least a second; 4200 to 4299: reconnect at once. 1008 and 1012 are never sent.

/// Why a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CloseReason {
    /// The client sent a close frame or closed the connection in order.
    Client,
    /// The connection was lost without a close frame.
    Lost,
    /// A breach of RFC 6455.
    ProtocolViolation,
    /// A binary message in a text session, or the reverse.
    WrongMessageKind,
    /// Text that is not UTF-8.
    InvalidUtf8,
    /// A message over the limit, whole or in fragments.
    MessageTooBig,
    /// No valid token.
    Unauthorized,
    /// The token ended and was not refreshed.
    TokenExpired,
    /// Ended by the server API.
    Disconnected,
    /// Ten unreadable commands in a row.
    BadCommands,
    /// Not authenticated in time.
    AuthTimeout,
    /// The user has too many sessions.
    TooManySessions,
    /// The node is leaving.
    Draining,
    /// The node has more than its share of sessions.
    Rebalanced,
    /// Neither caught up nor shed; or it asks and does not read.
    SlowConsumer,
    /// A broken invariant of this session.
    Internal,
    /// The broker does not answer for what the session needs before it can open.
    Unavailable,
    /// No sign of life within the pong limit.
    PingTimeout,
    /// Nothing arrived for the idle limit (only where pings are off).
    IdleTimeout,
}

impl CloseReason {
    /// Every reason, for tables in metrics and docs.
    pub const ALL: [Self; 19] = [
        Self::Client,
        Self::Lost,
        Self::ProtocolViolation,
        Self::WrongMessageKind,
        Self::InvalidUtf8,
        Self::MessageTooBig,
        Self::Unauthorized,
        Self::TokenExpired,
        Self::Disconnected,
        Self::BadCommands,
        Self::AuthTimeout,
        Self::TooManySessions,
        Self::Draining,
        Self::Rebalanced,
        Self::SlowConsumer,
        Self::Internal,
        Self::Unavailable,
        Self::PingTimeout,
        Self::IdleTimeout,
    ];

    /// The code of the close frame; `None` where no frame is sent because nobody is there.
    #[must_use]
    pub fn code(self) -> Option<u16> {
        Some(match self {
            Self::Client => 1000,
            Self::Lost => return None,
            Self::ProtocolViolation => 1002,
            Self::WrongMessageKind => 1003,
            Self::InvalidUtf8 => 1007,
            Self::MessageTooBig => 1009,
            Self::Unauthorized => 4000,
            Self::TokenExpired => 4001,
            Self::Disconnected => 4002,
            Self::BadCommands => 4003,
            Self::AuthTimeout => 4004,
            Self::TooManySessions => 4006,
            Self::Draining => 4100,
            Self::Rebalanced => 4102,
            Self::SlowConsumer => 4103,
            Self::Internal => 4104,
            Self::Unavailable => 4105,
            Self::PingTimeout => 4200,
            Self::IdleTimeout => 4201,
        })
    }

    /// The text of the close frame.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::Client => "",
            Self::Lost => "connection lost",
            Self::ProtocolViolation => "protocol violation (RFC 6455)",
            Self::WrongMessageKind => "wrong message kind for this subprotocol",
            Self::InvalidUtf8 => "text is not UTF-8",
            Self::MessageTooBig => "message too big",
            Self::Unauthorized => "unauthorized",
            Self::TokenExpired => "token expired",
            Self::Disconnected => "disconnected by the server",
            Self::BadCommands => "too many unreadable commands",
            Self::AuthTimeout => "authentication timeout",
            Self::TooManySessions => "too many sessions of this user",
            Self::Draining => "draining",
            Self::Rebalanced => "rebalanced",
            Self::SlowConsumer => "slow consumer",
            Self::Internal => "internal error",
            Self::Unavailable => "the broker is not available",
            Self::PingTimeout => "ping timeout",
            Self::IdleTimeout => "idle timeout",
        }
    }

    /// The label in metrics and logs.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Lost => "lost",
            Self::ProtocolViolation => "protocol_violation",
            Self::WrongMessageKind => "wrong_message_kind",
            Self::InvalidUtf8 => "invalid_utf8",
            Self::MessageTooBig => "message_too_big",
            Self::Unauthorized => "unauthorized",
            Self::TokenExpired => "token_expired",
            Self::Disconnected => "disconnected",
            Self::BadCommands => "bad_commands",
            Self::AuthTimeout => "auth_timeout",
            Self::TooManySessions => "too_many_sessions",
            Self::Draining => "draining",
            Self::Rebalanced => "rebalanced",
            Self::SlowConsumer => "slow_consumer",
            Self::Internal => "internal",
            Self::Unavailable => "unavailable",
            Self::PingTimeout => "ping_timeout",
            Self::IdleTimeout => "idle_timeout",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_labels_are_unique_and_reserved_codes_are_never_sent() {
        let codes: std::collections::HashSet<_> =
            CloseReason::ALL.iter().map(|r| r.code()).collect();
        let labels: std::collections::HashSet<_> =
            CloseReason::ALL.iter().map(|r| r.label()).collect();
        assert_eq!(codes.len(), CloseReason::ALL.len());
        assert_eq!(labels.len(), CloseReason::ALL.len());
        assert!(!codes.contains(&Some(1008)) && !codes.contains(&Some(1012)));
    }
}
