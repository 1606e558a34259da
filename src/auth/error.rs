//! Why a token or a key is refused: what the client is told, how a session ends, what is counted.

use super::keys::KeyFault;
use crate::config::issuer::TRIED_MAX;
use crate::telemetry::token_metrics::TokenRefusal;
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
    /// Too many checks wait. Nothing is said against the token.
    #[error("the token cannot be checked at present; try again")]
    Unavailable,
    /// No key that is known fits, and its issuer may have it: the keys are asked for again in so many
    /// milliseconds. Nothing is said against the token.
    #[error("the token's key cannot be had at present; try again")]
    KeyAway(u32),
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
    /// It is one of another app than it is used for. Nothing else of it was looked at.
    #[error(
        "the token is one of another app than this connection: put `?app=` with the token's app into \
         the URL, or leave both away for `default`"
    )]
    OtherApp,
    /// There is no such app, or there is no more.
    #[error("the token is one of an app that is not known here")]
    UnknownApp,
    /// There may be such an app: which ones are stored was not read yet.
    #[error("whether there is an app as the token names it is not known yet: try again")]
    AppsUnread,
    /// `nbf` lies ahead.
    #[error("the token is not valid yet (`nbf`)")]
    NotYetValid,
    /// `iat` lies ahead.
    #[error("the token was issued in the future (`iat`)")]
    IssuedInFuture,
    /// `exp` lies further ahead than `auth.token_life_max_s`, of the present time or of `iat`.
    #[error(
        "the token's `exp` may be at most {0} seconds after its `iat` and after now \
         (`auth.token_life_max_s`): issue tokens for a shorter time"
    )]
    LivesTooLong(u64),
    /// `topic` in a session's token: it opens one topic, not a session.
    #[error("the token is for one topic and opens no session")]
    ForOneTopic,
    /// It was revoked: itself, all of its user, or all of the app.
    #[error("the token was revoked: get a new one")]
    Revoked,
    /// Whether it was revoked cannot be said.
    #[error("whether the token was revoked is not known at the moment: try again")]
    RevocationsUnread,
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
            Self::Unavailable | Self::KeyAway(_) | Self::AppsUnread | Self::RevocationsUnread => {
                ErrorCode::Unavailable
            }
            _ => ErrorCode::Unauthorized,
        }
    }

    /// When the token may be tried again, in milliseconds, where that is known.
    #[must_use]
    pub fn retry_after_ms(self) -> Option<u64> {
        match self {
            Self::KeyAway(wait_ms) => Some(wait_ms.into()),
            _ => None,
        }
    }

    /// How a session ends that came with such a token.
    #[must_use]
    pub fn close(self) -> CloseReason {
        match self {
            Self::Expired => CloseReason::TokenExpired,
            Self::Revoked => CloseReason::Disconnected,
            Self::Unavailable | Self::KeyAway(_) | Self::AppsUnread | Self::RevocationsUnread => {
                CloseReason::Unavailable
            }
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
    pub fn reason(self) -> TokenRefusal {
        match self {
            Self::TooLong(_) => TokenRefusal::TooLong,
            Self::NotJwt => TokenRefusal::NotJwt,
            Self::Critical => TokenRefusal::Critical,
            Self::Algorithm => TokenRefusal::Algorithm,
            Self::UnknownKey => TokenRefusal::UnknownKey,
            Self::Issuer => TokenRefusal::Issuer,
            Self::Type => TokenRefusal::Type,
            Self::ManyKeys => TokenRefusal::ManyKeys,
            Self::Unavailable | Self::KeyAway(_) | Self::AppsUnread => TokenRefusal::Unavailable,
            Self::Signature => TokenRefusal::Signature,
            Self::ClaimsNotMap
            | Self::Twice(_)
            | Self::Missing(_)
            | Self::Claim { .. }
            | Self::NoUser
            | Self::InfoTooLarge(_) => TokenRefusal::Claims,
            Self::OtherApp => TokenRefusal::OtherApp,
            Self::UnknownApp => TokenRefusal::UnknownApp,
            Self::NotYetValid => TokenRefusal::NotYetValid,
            Self::IssuedInFuture => TokenRefusal::IssuedInFuture,
            Self::LivesTooLong(_) => TokenRefusal::LivesTooLong,
            Self::ForOneTopic => TokenRefusal::ForOneTopic,
            Self::Revoked => TokenRefusal::Revoked,
            Self::RevocationsUnread => TokenRefusal::RevocationsUnread,
            Self::Expired => TokenRefusal::Expired,
        }
    }
}
