//! Who signs tokens, as the configuration says it: keys, and issuers that have keys of their own.
//!
//! Values only; `token_keys` and `issuers` read them.

use crate::config::Secret;

/// Most keys that are tried for one token: each costs a check, and only one is the right one.
pub const TRIED_MAX: usize = 4;

/// One configured token key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenKey {
    /// Matched against the token's `kid`, when both are present.
    pub id: Option<String>,
    /// The one algorithm that this key allows: `HS256`, `HS384`, `HS512`, `RS256`, `PS256`,
    /// `ES256`, `EdDSA`.
    pub algorithm: String,
    /// The secret (HS) or the public key as PEM (all others).
    pub material: Secret,
}

/// Where an issuer publishes its keys.
#[derive(Clone, PartialEq, Eq)]
pub struct Jwks {
    /// The address, `https`. Its query may be a secret: show [`Self::shown`] instead.
    pub url: String,
    /// Certificates that it is trusted by; `None`: the system's.
    pub ca_file: Option<String>,
    /// Whether it may lead to a private address.
    pub allow_private: bool,
}

impl Jwks {
    /// The address for people: `?***` stands for a query.
    #[must_use]
    pub fn shown(&self) -> String {
        match self.url.split_once('?') {
            Some((place, _)) => format!("{place}?***"),
            None => self.url.clone(),
        }
    }
}

impl std::fmt::Debug for Jwks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Jwks")
            .field("url", &self.shown())
            .field("ca_file", &self.ca_file)
            .field("allow_private", &self.allow_private)
            .finish()
    }
}

/// One entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issuer {
    /// `iss`.
    pub issuer: String,
    /// Required `aud`, when set.
    pub audience: Option<String>,
    /// Where its keys are, when it publishes them.
    pub jwks: Option<Jwks>,
    /// Its keys, when they are written down.
    pub keys: Vec<TokenKey>,
    /// Allowed algorithms; empty: those of its keys.
    pub algorithms: Vec<String>,
    /// Allowed `typ`; empty: any, and none.
    pub types: Vec<String>,
    /// The claim that names the user.
    pub user_claim: String,
}
