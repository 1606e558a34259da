//! The instruments of tokens: why they are refused.
//!
//! In: each refusal, from where tokens are verified. Out: families. Any thread counts.

use super::counter::Counter;
use super::family::{Family, Kind, Table};
use super::labels::label;

label! {
    /// Why a token is refused.
    TokenRefusal, "reason" {
        /// It has too many bytes.
        TooLong: "too_long",
        /// It has not the form of one.
        NotJwt: "not_jwt",
        /// It asks for an extension.
        Critical: "critical",
        /// No key has its algorithm.
        Algorithm: "algorithm",
        /// No key has its name.
        UnknownKey: "unknown_key",
        /// It names an issuer that nobody configured.
        Issuer: "issuer",
        /// Its `typ` is not the issuer's.
        Type: "type",
        /// It names no key, and too many would have to be tried.
        ManyKeys: "many_keys",
        /// Its issuer's keys cannot be had, or too many checks wait.
        Unavailable: "unavailable",
        /// Its signature is not valid.
        Signature: "signature",
        /// A claim is not what it must be.
        Claims: "claims",
        /// It is one of another app than it is used for.
        OtherApp: "other_app",
        /// It is one of an app that is not known.
        UnknownApp: "unknown_app",
        /// `nbf` lies ahead.
        NotYetValid: "not_yet_valid",
        /// `iat` lies ahead.
        IssuedInFuture: "issued_in_future",
        /// `exp` lies too far ahead.
        LivesTooLong: "lives_too_long",
        /// It opens one topic and no session.
        ForOneTopic: "for_one_topic",
        /// It was revoked.
        Revoked: "revoked",
        /// Whether it was revoked could not be read.
        RevocationsUnread: "revocations_unread",
        /// It has ended.
        Expired: "expired",
    }
}

/// See the module.
#[derive(Debug, Default)]
pub struct TokenMetrics {
    /// Tokens that were refused.
    pub refused: Table<TokenRefusal, Counter>,
}

impl TokenMetrics {
    /// All of them.
    #[must_use]
    pub fn families(&self) -> Vec<Family> {
        vec![Family::of(
            Kind::Counter,
            "fanfare_tokens_refused_total",
            "Tokens that were refused, wherever they came, by reason.",
            &self.refused,
        )]
    }
}
