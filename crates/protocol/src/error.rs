//! The error codes of the wire and of the HTTP API, with what each asks of the caller.

use serde::{Deserialize, Serialize};

/// Makes the codes and all that is known of them out of one list.
macro_rules! error_codes {
    ($($(#[$doc:meta])* $code:ident: $name:literal, $status:literal, $retry:literal;)+) => {
        /// What went wrong, as the client sees it. Codes that say `retry` may succeed when repeated.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
        #[serde(rename_all = "snake_case")]
        pub enum ErrorCode {
            $($(#[$doc])* $code,)+
        }

        impl ErrorCode {
            /// Every code.
            pub const ALL: [Self; [$($name),+].len()] = [$(Self::$code),+];

            /// The code as it is written on the wire and in logs.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$code => $name,)+
                }
            }

            /// The HTTP status that goes with the code.
            #[must_use]
            pub fn status(self) -> u16 {
                match self {
                    $(Self::$code => $status,)+
                }
            }

            /// Whether repeating the same command may succeed.
            #[must_use]
            pub fn retry(self) -> bool {
                match self {
                    $(Self::$code => $retry,)+
                }
            }
        }
    };
}

// Of each code: its name, the status in HTTP, whether to retry.
error_codes! {
    /// The command or request cannot be understood or contradicts itself.
    BadRequest: "bad_request", 400, false;
    /// No such command.
    UnknownCommand: "unknown_command", 400, false;
    /// Not (or not rightly) authenticated.
    Unauthorized: "unauthorized", 401, false;
    /// Authenticated, but not allowed.
    Forbidden: "forbidden", 403, false;
    /// The token is past its end.
    TokenExpired: "token_expired", 401, false;
    /// The topic's name is not one.
    InvalidTopic: "invalid_topic", 400, false;
    /// The session has not joined that topic.
    NotSubscribed: "not_subscribed", 400, false;
    /// The session has joined that topic already.
    AlreadySubscribed: "already_subscribed", 400, false;
    /// Over a limit of size.
    TooLarge: "too_large", 413, false;
    /// Over a limit of number.
    LimitExceeded: "limit_exceeded", 400, false;
    /// The entry does not stand where `if_position` says.
    Conflict: "conflict", 409, false;
    /// Too fast; wait and repeat.
    RateLimited: "rate_limited", 429, true;
    /// The broker is away or its answer was lost; repeat with the same idempotency key.
    Unavailable: "unavailable", 503, true;
    /// Our fault.
    Internal: "internal", 500, true;
    /// No such thing (HTTP only).
    NotFound: "not_found", 404, false;
    /// The path is known, but not with this method (HTTP only).
    MethodNotAllowed: "method_not_allowed", 405, false;
    /// The body's content type is not spoken (HTTP only).
    UnsupportedMediaType: "unsupported_media_type", 415, false;
    /// The request, or the rest of it, did not arrive in time (HTTP only).
    RequestTimeout: "request_timeout", 408, true;
    /// The path opens a WebSocket and the request asks for none (HTTP only).
    UpgradeRequired: "upgrade_required", 426, false;
}

/// An error that a client or API caller is told: a code and a sentence that says what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct WireError {
    /// The code.
    pub code: ErrorCode,
    /// The sentence for the person who reads the client's log.
    pub message: std::borrow::Cow<'static, str>,
    /// After how many milliseconds to repeat, where known.
    pub retry_after_ms: Option<u64>,
}

impl WireError {
    /// An error with a code and a sentence.
    #[must_use]
    pub fn new(code: ErrorCode, message: impl Into<std::borrow::Cow<'static, str>>) -> Self {
        Self {
            code,
            message: message.into(),
            retry_after_ms: None,
        }
    }

    /// Shorthand for [`ErrorCode::BadRequest`].
    #[must_use]
    pub fn bad_request(message: impl Into<std::borrow::Cow<'static, str>>) -> Self {
        Self::new(ErrorCode::BadRequest, message)
    }

    /// Shorthand for [`ErrorCode::Forbidden`].
    #[must_use]
    pub fn forbidden(message: impl Into<std::borrow::Cow<'static, str>>) -> Self {
        Self::new(ErrorCode::Forbidden, message)
    }

    /// Shorthand for [`ErrorCode::Unavailable`].
    #[must_use]
    pub fn unavailable(message: impl Into<std::borrow::Cow<'static, str>>) -> Self {
        Self::new(ErrorCode::Unavailable, message)
    }
}

impl From<super::ids::NameError> for WireError {
    fn from(error: super::ids::NameError) -> Self {
        Self::new(ErrorCode::InvalidTopic, format!("invalid topic: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_named_as_it_is_written() {
        for code in ErrorCode::ALL {
            let written = serde_json::to_value(code).expect("a word");
            assert_eq!(written, code.name());
        }
    }
}
