//! The one table of ends: why a session was closed, in every vocabulary that needs it.
//!
//! A session ends with exactly one [`CloseReason`]. From it follow the WebSocket code, the text
//! of the close frame, whether the client should come back, the label in metrics and the word in
//! the log. Codes 4000 to 4099: do not reconnect as you are; 4100 to 4199: reconnect after at
//! least a second; 4200 to 4299: reconnect at once. 1008 and 1012 are never sent.

/// Makes the reasons and all that is known of them out of one list.
macro_rules! close_reasons {
    ($($(#[$doc:meta])* $reason:ident: $code:expr, $label:literal, $text:literal;)+) => {
        /// Why a session ended.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum CloseReason {
            $($(#[$doc])* $reason,)+
        }

        impl CloseReason {
            /// Every reason, for tables in metrics and docs.
            pub const ALL: [Self; [$($label),+].len()] = [$(Self::$reason),+];

            /// The code of the close frame; `None` where no frame is sent because nobody is there.
            #[must_use]
            pub fn code(self) -> Option<u16> {
                match self {
                    $(Self::$reason => $code,)+
                }
            }

            /// The label in metrics and logs.
            #[must_use]
            pub fn label(self) -> &'static str {
                match self {
                    $(Self::$reason => $label,)+
                }
            }

            /// The text of the close frame.
            #[must_use]
            pub fn text(self) -> &'static str {
                match self {
                    $(Self::$reason => $text,)+
                }
            }
        }
    };
}

// Of each reason: the code, the label, the text.
close_reasons! {
    /// The client sent a close frame or closed the connection in order.
    Client: Some(1000), "client", "";
    /// The connection was lost without a close frame.
    Lost: None, "lost", "connection lost";
    /// A breach of RFC 6455.
    ProtocolViolation: Some(1002), "protocol_violation", "protocol violation (RFC 6455)";
    /// A binary message in a text session, or the reverse.
    WrongMessageKind: Some(1003), "wrong_message_kind", "wrong message kind for this subprotocol";
    /// Text that is not UTF-8.
    InvalidUtf8: Some(1007), "invalid_utf8", "text is not UTF-8";
    /// A message over the limit, whole or in fragments.
    MessageTooBig: Some(1009), "message_too_big", "message too big";
    /// No valid token.
    Unauthorized: Some(4000), "unauthorized", "unauthorized";
    /// The token ended and was not refreshed.
    TokenExpired: Some(4001), "token_expired", "token expired";
    /// Ended by the server API.
    Disconnected: Some(4002), "disconnected", "disconnected by the server";
    /// Ten unreadable commands in a row.
    BadCommands: Some(4003), "bad_commands", "too many unreadable commands";
    /// Not authenticated in time.
    AuthTimeout: Some(4004), "auth_timeout", "authentication timeout";
    /// The user has too many sessions.
    TooManySessions: Some(4006), "too_many_sessions", "too many sessions of this user";
    /// The node is leaving.
    Draining: Some(4100), "draining", "draining";
    /// The node has more than its share of sessions.
    Rebalanced: Some(4102), "rebalanced", "rebalanced";
    /// Neither caught up nor shed; or it asks and does not read.
    SlowConsumer: Some(4103), "slow_consumer", "slow consumer";
    /// A broken invariant of this session.
    Internal: Some(4104), "internal", "internal error";
    /// What the session needs before it can open cannot be had: the broker's answer, or a check of its
    /// token. The `error` before it says which.
    Unavailable: Some(4105), "unavailable", "the session cannot be opened at present";
    /// No sign of life within the pong limit.
    PingTimeout: Some(4200), "ping_timeout", "ping timeout";
    /// Nothing arrived for the idle limit (only where pings are off).
    IdleTimeout: Some(4201), "idle_timeout", "idle timeout";
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
