//! The error codes of the wire and of the HTTP API, with what each asks of the caller.

use serde::{Deserialize, Serialize};

/// What went wrong, as the client sees it. Codes that say `retry` may succeed when repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// The command or request cannot be understood or contradicts itself.
    BadRequest,
    /// No such command.
    UnknownCommand,
    /// Not (or not rightly) authenticated.
    Unauthorized,
    /// Authenticated, but not allowed.
    Forbidden,
    /// The token is past its end.
    TokenExpired,
    /// The topic's name is not one.
    InvalidTopic,
    /// The session has not joined that topic.
    NotSubscribed,
    /// The session has joined that topic already.
    AlreadySubscribed,
    /// Over a limit of size.
    TooLarge,
    /// Over a limit of number.
    LimitExceeded,
    /// The entry does not stand where `if_position` says.
    Conflict,
    /// Too fast; wait and repeat.
    RateLimited,
    /// The broker is away or its answer was lost; repeat with the same idempotency key.
    Unavailable,
    /// Our fault.
    Internal,
    /// No such thing (HTTP only).
    NotFound,
    /// The path is known, but not with this method (HTTP only).
    MethodNotAllowed,
    /// The body's content type is not spoken (HTTP only).
    UnsupportedMediaType,
    /// The request, or the rest of it, did not arrive in time (HTTP only).
    RequestTimeout,
    /// The path opens a WebSocket and the request asks for none (HTTP only).
    UpgradeRequired,
}

impl ErrorCode {
    /// Whether repeating the same command may succeed.
    #[must_use]
    pub fn retry(self) -> bool {
        matches!(
            self,
            Self::RateLimited | Self::Unavailable | Self::Internal | Self::RequestTimeout
        )
    }

    /// The code as it is written on the wire and in logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::BadRequest => "bad_request",
            Self::UnknownCommand => "unknown_command",
            Self::Unauthorized => "unauthorized",
            Self::Forbidden => "forbidden",
            Self::TokenExpired => "token_expired",
            Self::InvalidTopic => "invalid_topic",
            Self::NotSubscribed => "not_subscribed",
            Self::AlreadySubscribed => "already_subscribed",
            Self::TooLarge => "too_large",
            Self::LimitExceeded => "limit_exceeded",
            Self::Conflict => "conflict",
            Self::RateLimited => "rate_limited",
            Self::Unavailable => "unavailable",
            Self::Internal => "internal",
            Self::NotFound => "not_found",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::UnsupportedMediaType => "unsupported_media_type",
            Self::RequestTimeout => "request_timeout",
            Self::UpgradeRequired => "upgrade_required",
        }
    }

    /// The HTTP status that goes with the code.
    #[must_use]
    pub fn status(self) -> u16 {
        match self {
            Self::BadRequest
            | Self::UnknownCommand
            | Self::InvalidTopic
            | Self::NotSubscribed
            | Self::AlreadySubscribed
            | Self::LimitExceeded => 400,
            Self::Unauthorized | Self::TokenExpired => 401,
            Self::Forbidden => 403,
            Self::NotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::RequestTimeout => 408,
            Self::Conflict => 409,
            Self::TooLarge => 413,
            Self::UnsupportedMediaType => 415,
            Self::UpgradeRequired => 426,
            Self::RateLimited => 429,
            Self::Unavailable => 503,
            Self::Internal => 500,
        }
    }
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
