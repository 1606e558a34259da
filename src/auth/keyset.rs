//! The keys that an issuer publishes: a JSON Web Key Set (RFC 7517), read strictly.
//!
//! In: the bytes of a set, from [`crate::verification`]. Out: keys for [`super::keyring`]. Owner: the issuer's
//! entry; all workers look at it, the fetcher replaces it as a whole, so that a key which is taken out
//! of the set is gone with the next one. The bytes stay beside the keys: where the issuer is written
//! otherwise after a reload, they are read anew by its new rules. Bounds: [`BYTES_MAX`], [`KEYS_MAX`].
//!
//! A key that is no use here is left out and told with its reason, because sets have keys for other
//! purposes too: a secret (`oct`), one that encrypts (`use`), one of another curve, one with its private
//! half. A set that is too large or has too many keys is refused whole. One that is well formed and has no
//! usable key is taken: a key that was stolen is taken out like that.

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use serde::Deserialize;

use super::signature::{Algorithm, Key, KeyBytesError, P256_POINT_BYTES, VerifyKey};
use crate::config::Jwks;

/// Longest set, in bytes.
pub const BYTES_MAX: usize = 256 * 1024;
/// Most keys of a set.
pub const KEYS_MAX: usize = 64;
/// Longest `kid` that is kept, in bytes.
const KID_BYTES_MAX: usize = 256;

/// See the module.
#[derive(Debug)]
pub struct KeySet {
    source: Jwks,
    /// Allowed algorithms; empty: all that sets may have.
    algorithms: Vec<Algorithm>,
    held: RwLock<Held>,
}

/// What is known of a set.
#[derive(Debug, Default)]
struct Held {
    keys: Option<Arc<[Key]>>,
    /// Where the keys come from; it stays when they are given up, so that their age can be told.
    reading: Option<Reading>,
    /// Why the last reading was not taken.
    refused: Option<SetError>,
    /// The last that was taken has no key for this issuer.
    useless: Option<Useless>,
}

/// One answer of the place where a set is published.
#[derive(Debug, Clone)]
pub struct Reading {
    /// Its body.
    pub bytes: Bytes,
    /// When it came.
    pub at: Instant,
}

/// Why a set is refused. Nothing of it is repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SetError {
    /// No JSON, or no list `keys`.
    #[error("it is no JSON Web Key Set: a JSON map with the list `keys`")]
    Form,
    /// Too long.
    #[error("it is longer than {BYTES_MAX} bytes")]
    TooLong,
    /// Too many keys.
    #[error("it has {0} keys, and at most {KEYS_MAX} are read")]
    TooMany(usize),
}

/// A set that is well formed and has no usable key. It is taken: who publishes it says that the keys
/// before are none any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Useless {
    count: usize,
    last: Option<Unusable>,
}

impl std::fmt::Display for Useless {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self { count: 0, .. } => write!(f, "it has no keys, so no token is taken by it"),
            Self { count, last } => {
                write!(f, "none of its {count} keys can be used here")?;
                let mut last = last.iter();
                last.try_for_each(|why| write!(f, "; the last: {why}"))
            }
        }
    }
}

/// Why a key of a set is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// `kty` is `oct`.
    #[error("a symmetric key (`oct`) is no public key")]
    Symmetric,
    /// It has its private half.
    #[error("it has its private half (`d`), which must not be published")]
    Private,
    /// `use` or `key_ops` name something else.
    #[error("it is not for signatures (`use`, `key_ops`)")]
    Use,
    /// Another kind, curve or algorithm.
    #[error("no algorithm that is allowed here goes with it (`kty`, `crv`, `alg`)")]
    Kind,
    /// Its numbers are no key.
    #[error("its numbers are no key of its kind")]
    Numbers,
    /// RSA of another size.
    #[error("the RSA key has not 2048 to 8192 bits")]
    RsaSize,
    /// A `kid` that nobody needs.
    #[error("its `kid` is longer than {KID_BYTES_MAX} bytes")]
    Kid,
}

/// What a set has.
#[derive(Debug)]
pub struct Parsed {
    /// The keys that can be used.
    pub keys: Vec<Key>,
    /// Why others are left out.
    pub left_out: Vec<Unusable>,
}

/// What was taken of a reading.
#[derive(Debug)]
pub struct Taken {
    /// How many keys.
    pub keys_count: usize,
    /// Why others are left out.
    pub left_out: Vec<Unusable>,
}

#[derive(Deserialize)]
struct Set {
    keys: Vec<serde_json::Value>,
}

#[derive(Deserialize)]
struct Jwk {
    kty: String,
    #[serde(rename = "use")]
    purpose: Option<String>,
    key_ops: Option<Vec<String>>,
    alg: Option<String>,
    kid: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
    d: Option<serde_json::Value>,
}

impl KeySet {
    /// A set that nobody has read yet.
    #[must_use]
    pub fn new(source: &Jwks, algorithms: &[Algorithm]) -> Self {
        Self {
            source: source.clone(),
            algorithms: algorithms.to_vec(),
            held: RwLock::default(),
        }
    }

    /// Where it is published.
    #[must_use]
    pub fn source(&self) -> &Jwks {
        &self.source
    }

    /// Whether another one comes from the same place and is read by the same rules.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        self.source == other.source && self.algorithms == other.algorithms
    }

    /// Its keys; `None` until it was read, and after it was given up.
    pub(super) fn keys(&self) -> Option<Arc<[Key]>> {
        self.held().keys.clone()
    }

    /// What its keys come from; `None` where it has none.
    #[must_use]
    pub fn reading(&self) -> Option<Reading> {
        let held = self.held();
        held.reading.clone().filter(|_| held.keys.is_some())
    }

    /// When its keys were read; it is told of keys that were given up too.
    #[must_use]
    pub fn read_at(&self) -> Option<Instant> {
        self.held().reading.as_ref().map(|reading| reading.at)
    }

    /// Why the last reading was not taken.
    #[must_use]
    pub fn refused(&self) -> Option<SetError> {
        self.held().refused
    }

    /// What is wrong with the last reading, taken or not.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        let held = self.held();
        let useless = held.useless.map(|useless| useless.to_string());
        held.refused.map(|error| error.to_string()).or(useless)
    }

    /// Takes a reading in the place of the one before, as a whole.
    ///
    /// # Errors
    /// [`SetError`] where none of it may be used; then the keys stay as they are.
    pub fn take(&self, reading: &Reading) -> Result<Taken, SetError> {
        let parsed = self.parse(&reading.bytes);
        let mut held = self.held.write().unwrap_or_else(PoisonError::into_inner);
        held.refused = parsed.as_ref().err().copied();
        let parsed = parsed?;
        let taken = Taken {
            keys_count: parsed.keys.len(),
            left_out: parsed.left_out,
        };
        held.useless = parsed.keys.is_empty().then(|| Useless {
            count: taken.left_out.len(),
            last: taken.left_out.last().copied(),
        });
        held.keys = Some(parsed.keys.into());
        held.reading = Some(reading.clone());
        Ok(taken)
    }

    /// Gives up its keys.
    pub fn give_up(&self) {
        let mut held = self.held.write().unwrap_or_else(PoisonError::into_inner);
        held.keys = None;
        if let Some(reading) = &mut held.reading {
            reading.bytes = Bytes::new();
        }
    }

    fn held(&self) -> RwLockReadGuard<'_, Held> {
        self.held.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads a set.
    ///
    /// # Errors
    /// [`SetError`] where none of it may be used.
    pub fn parse(&self, bytes: &[u8]) -> Result<Parsed, SetError> {
        if bytes.len() > BYTES_MAX {
            return Err(SetError::TooLong);
        }
        let set: Set = serde_json::from_slice(bytes).map_err(|_| SetError::Form)?;
        let count = set.keys.len();
        if count > KEYS_MAX {
            return Err(SetError::TooMany(count));
        }
        let mut parsed = Parsed {
            keys: Vec::new(),
            left_out: Vec::new(),
        };
        for value in set.keys {
            match self.key(value) {
                Ok(keys) => parsed.keys.extend(keys),
                Err(why) => parsed.left_out.push(why),
            }
        }
        Ok(parsed)
    }

    /// One key, once for each algorithm that goes with it.
    fn key(&self, value: serde_json::Value) -> Result<Vec<Key>, Unusable> {
        let jwk: Jwk = serde_json::from_value(value).map_err(|_| Unusable::Numbers)?;
        if jwk.kty == "oct" {
            return Err(Unusable::Symmetric);
        }
        if jwk.d.is_some() {
            return Err(Unusable::Private);
        }
        let signs = jwk
            .purpose
            .as_deref()
            .is_none_or(|purpose| purpose == "sig");
        let verifies = |ops: &Vec<String>| ops.iter().any(|op| op == "verify");
        if !signs || !jwk.key_ops.as_ref().is_none_or(verifies) {
            return Err(Unusable::Use);
        }
        if jwk
            .kid
            .as_ref()
            .is_some_and(|kid| kid.len() > KID_BYTES_MAX)
        {
            return Err(Unusable::Kid);
        }
        let goes: &[Algorithm] = match (jwk.kty.as_str(), jwk.crv.as_deref()) {
            ("RSA", _) => &[Algorithm::Rs256, Algorithm::Ps256],
            ("EC", Some("P-256")) => &[Algorithm::Es256],
            ("OKP", Some("Ed25519")) => &[Algorithm::EdDsa],
            _ => return Err(Unusable::Kind),
        };
        let is_allowed = |algorithm: &Algorithm| {
            let named = jwk.alg.as_deref();
            (self.algorithms.is_empty() || self.algorithms.contains(algorithm))
                && named.is_none_or(|name| name == algorithm.name() || is_ed25519(name, *algorithm))
        };
        let algorithms: Vec<_> = goes.iter().copied().filter(is_allowed).collect();
        if algorithms.is_empty() {
            return Err(Unusable::Kind);
        }
        let made = algorithms.into_iter().map(|algorithm| {
            let verify = jwk.verifying(algorithm)?;
            Ok::<_, Unusable>(Key {
                id: jwk.kid.clone(),
                verify,
            })
        });
        made.collect()
    }
}

/// RFC 9864 gives EdDSA with Ed25519 a name of its own.
fn is_ed25519(name: &str, algorithm: Algorithm) -> bool {
    algorithm == Algorithm::EdDsa && name == "Ed25519"
}

impl Jwk {
    fn verifying(&self, algorithm: Algorithm) -> Result<VerifyKey, Unusable> {
        let number = |text: &Option<String>| {
            let text = text.as_deref().ok_or(Unusable::Numbers)?;
            URL_SAFE_NO_PAD.decode(text).map_err(|_| Unusable::Numbers)
        };
        let made = match algorithm {
            Algorithm::Rs256 | Algorithm::Ps256 => {
                VerifyKey::from_rsa(algorithm, &number(&self.n)?, &number(&self.e)?)
            }
            Algorithm::Es256 => {
                let (x, y) = (number(&self.x)?, number(&self.y)?);
                // RFC 7518, section 6.2.1.2: as long as the field, zeros in front included.
                if x.len() != y.len() || x.len() * 2 + 1 != P256_POINT_BYTES {
                    return Err(Unusable::Numbers);
                }
                VerifyKey::from_p256(&[&[4], &x[..], &y[..]].concat())
            }
            Algorithm::EdDsa => VerifyKey::from_ed25519(&number(&self.x)?),
            Algorithm::Hs256 | Algorithm::Hs384 | Algorithm::Hs512 => Err(KeyBytesError::Unfit),
        };
        made.map_err(|error| match error {
            KeyBytesError::Unfit => Unusable::Numbers,
            KeyBytesError::SmallRsa | KeyBytesError::LargeRsa => Unusable::RsaSize,
        })
    }
}

#[cfg(test)]
mod tests;
