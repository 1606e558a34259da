//! Why a token or a key is refused: what the client is told, how a session ends, what is counted.

use super::keys::KeyFault;
use crate::config::issuer::TRIED_MAX;
use crate::telemetry::metrics::{Counter, TokenCounters};
use fanfare_protocol::close::CloseReason;
use fanfare_protocol::error::ErrorCode;

/// Why a token is refused. The texts are meant for the client and repeat nothing of the token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Over `auth.token_bytes_max`.
    #[error("the token is longer than {0} bytes")]
    TooLong(usize),
    /// Not three parts of base64url, or the first is no JSON map.
    #[error("the token is no signed JWT")]
    NotJwt,
    /// `crit` asks for an extension.
    #[error("the token's header has `crit`, and no extension is known here")]
    Critical,
    /// No configured key has this algorithm.
    #[error("the token's algorithm is not allowed here")]
    Algorithm,
    /// No configured key of the algorithm has this `kid`.
    #[error("the token's `kid` names no key of its algorithm that is known here")]
    UnknownKey,
    /// `iss` is none that is configured.
    #[error("the token's `iss` names no issuer that is known here")]
    Issuer,
    /// `typ` is none that its issuer's tokens may have.
    #[error("the token's `typ` is not allowed here")]
    Type,
    /// More keys would have to be tried than may be.
    #[error(
        "more than {} keys may be the token's: give tokens and keys a `kid`",
        TRIED_MAX
    )]
    ManyKeys,
    /// Its issuer's keys cannot be had, or too many checks wait. Nothing is said against the token.
    #[error("the token cannot be checked at present; try again")]
    Unavailable,
    /// The claim that `user_claim` names.
    #[error("the token has no claim, once and as text, that names its user (`user_claim`)")]
    NoUser,
    /// Signed with another key, or changed afterwards.
    #[error("the token's signature is not valid")]
    Signature,
    /// Signed rightly, but the middle part is no JSON map.
    #[error("the token's claims are no JSON map")]
    ClaimsNotMap,
    /// A header or claim is there twice.
    #[error("`{0}` is there twice in the token")]
    Twice(&'static str),
    /// A required claim is absent.
    #[error("the token has no claim `{0}`")]
    Missing(&'static str),
    /// A claim that is not what it must be.
    #[error("the token's claim `{claim}` must be {must}")]
    Claim {
        /// Which.
        claim: &'static str,
        /// What it must be.
        must: &'static str,
    },
    /// `info` over `session.info_bytes_max`.
    #[error("the token's claim `info` is larger than {0} bytes")]
    InfoTooLarge(usize),
    /// `nbf` lies ahead.
    #[error("the token is not valid yet (`nbf`)")]
    NotYetValid,
    /// `iat` lies ahead.
    #[error("the token was issued in the future (`iat`)")]
    IssuedInFuture,
    /// `topic` in a session's token: it opens one topic, not a session.
    #[error("the token is for one topic and opens no session")]
    ForOneTopic,
    /// Everything else is right, but it has ended.
    #[error("the token has expired")]
    Expired,
}

impl TokenError {
    /// The code of the `error` event or HTTP answer.
    #[must_use]
    pub fn code(self) -> ErrorCode {
        match self {
            Self::Expired => ErrorCode::TokenExpired,
            Self::Unavailable => ErrorCode::Unavailable,
            _ => ErrorCode::Unauthorized,
        }
    }

    /// How a session ends that came with such a token.
    #[must_use]
    pub fn close(self) -> CloseReason {
        match self {
            Self::Expired => CloseReason::TokenExpired,
            Self::Unavailable => CloseReason::Unavailable,
            _ => CloseReason::Unauthorized,
        }
    }
}

/// Every configured key that cannot be used, by its place in the configuration.
#[derive(Debug)]
pub struct KeyError {
    /// Place (`auth.keys[0]`) and fault; never empty.
    pub faults: Vec<(String, KeyFault)>,
}

impl std::fmt::Display for KeyError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, (place, fault)) in self.faults.iter().enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            write!(f, "{separator}{place}: {fault}")?;
        }
        Ok(())
    }
}

impl std::error::Error for KeyError {}

impl TokenError {
    /// The reason as it is counted and logged.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::TooLong(_) => "too_long",
            Self::NotJwt => "not_jwt",
            Self::Critical => "critical",
            Self::Algorithm => "algorithm",
            Self::UnknownKey => "unknown_key",
            Self::Issuer => "issuer",
            Self::Type => "type",
            Self::ManyKeys => "many_keys",
            Self::Unavailable => "unavailable",
            Self::Signature => "signature",
            Self::ClaimsNotMap
            | Self::Twice(_)
            | Self::Missing(_)
            | Self::Claim { .. }
            | Self::NoUser
            | Self::InfoTooLarge(_) => "claims",
            Self::NotYetValid => "not_yet_valid",
            Self::IssuedInFuture => "issued_in_future",
            Self::ForOneTopic => "for_one_topic",
            Self::Expired => "expired",
        }
    }

    pub(super) fn counter(self, counters: &TokenCounters) -> &Counter {
        match self.reason() {
            "too_long" => &counters.too_long,
            "not_jwt" => &counters.not_jwt,
            "critical" => &counters.critical,
            "algorithm" => &counters.algorithm,
            "unknown_key" => &counters.unknown_key,
            "issuer" => &counters.issuer,
            "type" => &counters.kind,
            "many_keys" => &counters.many_keys,
            "unavailable" => &counters.unavailable,
            "signature" => &counters.signature,
            "not_yet_valid" => &counters.not_yet_valid,
            "issued_in_future" => &counters.issued_in_future,
            "for_one_topic" => &counters.for_one_topic,
            "expired" => &counters.expired,
            _ => &counters.claims,
        }
    }
}
