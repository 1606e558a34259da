//! Tokens: from text that anybody may have written to claims that can be relied on.
//!
//! In: a token, the time, and the keys and rules of `[auth]`. Out: [`Claims`], or a
//! [`TokenError`]. [`verifier::Verifier`] is shared by all workers and judges by [`Rules`], which make
//! no request and read no clock; all that changes in them is which rights they have seen, so that
//! tokens that may do the same hold them once. A session keeps its claims as long as it lives, so
//! they take no more memory than their text. Bounds: `token_bytes_max`, checked before
//! anything of the token is read; `info_bytes_max`; one signature check per configured key of the
//! token's algorithm and `kid`.
//!
//! A token is a JWT in the compact form of RFC 7515, and the checks are ordered so that nothing
//! of an unsigned claim is believed: length, form, algorithm, key, signature, then the claims,
//! and its end last, so that "expired" means that nothing else was wrong with it. The key's
//! algorithm decides, not the token's: the token's must equal it. Headers that name a key's place
//! or bring one (`jku`, `x5u`, `x5c`, `jwk`) are not read; `crit` is refused because no extension
//! is known. A claim that is read must have its type (null is no type, except that `info` may be
//! null, which shows nothing), and a header or claim that is there twice refuses the token.

pub mod keys;
pub mod mint;
pub mod rights;
#[cfg(test)]
mod test_keys;
pub mod verifier;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey};
use serde_json::Value;

use keys::KeyFault;
use rights::{KnownRights, Rights, RightsError};

use crate::config;
use fanfare_protocol::close::CloseReason;
use fanfare_protocol::error::ErrorCode;
use fanfare_protocol::form::Encoding;
use fanfare_protocol::ids::{App, Topic, TopicKind, User};
use fanfare_protocol::info::Info;
use fanfare_protocol::raw::{Fields, Raw};

/// The header's parts that are read.
const HEADERS: [&str; 3] = ["alg", "kid", "crit"];

/// The claims that are read.
const CLAIMS: [&str; 11] = [
    "sub", "exp", "nbf", "iat", "jti", "iss", "aud", "app", "info", "can", "topic",
];

/// The last second of the year 9999. A larger number is no time in seconds (milliseconds are
/// the usual mistake) and would overflow in arithmetic.
const SECONDS_MAX: f64 = 253_402_300_799.0;

/// Longest `jti`, in bytes. Nodes keep those of revoked tokens in memory.
pub const ID_BYTES_MAX: usize = 128;

/// What a valid token says.
#[derive(Debug, Clone, PartialEq)]
pub struct Claims {
    /// `app`, or the first app.
    pub app: App,
    /// `sub`.
    pub user: User,
    /// `exp`, in unix seconds.
    pub expires: u64,
    /// `iat`, in unix seconds; 0 where the token does not say.
    pub issued: u64,
    /// `jti`, by which the token can be revoked. At most [`ID_BYTES_MAX`].
    pub id: Option<Box<str>>,
    /// `info`, shown in presence.
    pub info: Option<Info>,
    /// `can`, which all tokens that say the same share.
    pub can: Option<Arc<Rights>>,
}

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
            Self::RevocationsUnread => ErrorCode::Unavailable,
            _ => ErrorCode::Unauthorized,
        }
    }

    /// How a session ends that came with such a token.
    #[must_use]
    pub fn close(self) -> CloseReason {
        match self {
            Self::Expired => CloseReason::TokenExpired,
            Self::Revoked => CloseReason::Disconnected,
            Self::RevocationsUnread => CloseReason::Unavailable,
            _ => CloseReason::Unauthorized,
        }
    }
}

/// Every configured key that cannot be used, by its place in `auth.keys`.
#[derive(Debug)]
pub struct KeyError {
    /// Index and fault, in the order of the configuration; never empty.
    pub faults: Vec<(usize, KeyFault)>,
}

impl std::fmt::Display for KeyError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (place, (index, fault)) in self.faults.iter().enumerate() {
            let separator = if place == 0 { "" } else { "; " };
            write!(f, "{separator}auth.keys[{index}]: {fault}")?;
        }
        Ok(())
    }
}

impl std::error::Error for KeyError {}

struct Key {
    id: Option<String>,
    algorithm: Algorithm,
    decoding: DecodingKey,
}

/// The configured keys and rules.
pub struct Rules {
    keys: Vec<Key>,
    issuer: Option<String>,
    audience: Option<String>,
    leeway: Duration,
    token_life_max: Duration,
    token_bytes_max: usize,
    info_bytes_max: usize,
    known_rights: KnownRights,
}

impl Rules {
    fn new(auth: &config::Auth, info_bytes_max: usize) -> Result<Self, KeyError> {
        let mut keys = Vec::with_capacity(auth.keys.len());
        let mut faults = Vec::new();
        for (index, key) in auth.keys.iter().enumerate() {
            match keys::verifying(key) {
                Ok((algorithm, decoding)) => keys.push(Key {
                    id: key.id.clone(),
                    algorithm,
                    decoding,
                }),
                Err(fault) => faults.push((index, fault)),
            }
        }
        if !faults.is_empty() {
            return Err(KeyError { faults });
        }
        Ok(Self {
            keys,
            issuer: auth.issuer.clone(),
            audience: auth.audience.clone(),
            leeway: auth.leeway,
            token_life_max: auth.token_life_max,
            token_bytes_max: auth.token_bytes_max,
            info_bytes_max,
            known_rights: KnownRights::default(),
        })
    }

    fn session(&self, token: &str, now: SystemTime) -> Result<Claims, TokenError> {
        let payload = self.signed_payload(token)?;
        let fields = ClaimFields::read(&payload)?;
        if fields.get("topic").is_some() {
            return Err(TokenError::ForOneTopic);
        }
        self.claims(&fields, now)
    }

    fn topic(&self, token: &str, now: SystemTime) -> Result<(Claims, String), TokenError> {
        let payload = self.signed_payload(token)?;
        let fields = ClaimFields::read(&payload)?;
        let name = fields
            .text("topic")?
            .ok_or(TokenError::Missing("topic"))?
            .into_owned();
        let claims = self.claims(&fields, now)?;
        match Topic::new(&claims.app, &name).map(|topic| topic.kind()) {
            Ok(TopicKind::Plain) => Ok((claims, name)),
            _ => Err(TokenError::Claim {
                claim: "topic",
                must: "the name of a topic, and no inbox",
            }),
        }
    }

    /// The middle part of a token whose signature is valid.
    fn signed_payload(&self, token: &str) -> Result<Vec<u8>, TokenError> {
        if token.len() > self.token_bytes_max {
            return Err(TokenError::TooLong(self.token_bytes_max));
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(TokenError::NotJwt)?;
        let (header, payload) = signed.split_once('.').ok_or(TokenError::NotJwt)?;
        let header = decode_part(header)?;
        let header =
            Fields::read(Encoding::Json, &header, &HEADERS).map_err(|_| TokenError::NotJwt)?;
        if let Some(name) = header.repeated().first() {
            return Err(TokenError::Twice(name));
        }
        if header.get("crit").is_some() {
            return Err(TokenError::Critical);
        }
        let kid = match header.get("kid") {
            Some(kid) => Some(kid.text().ok_or(TokenError::UnknownKey)?),
            None => None,
        };
        let algorithm = header
            .get("alg")
            .and_then(Raw::text)
            .and_then(|name| keys::algorithm(&name))
            .ok_or(TokenError::Algorithm)?;
        let payload = decode_part(payload)?;
        self.check_signature(algorithm, kid.as_deref(), signed, signature)?;
        Ok(payload)
    }

    fn check_signature(
        &self,
        algorithm: Algorithm,
        kid: Option<&str>,
        signed: &str,
        signature: &str,
    ) -> Result<(), TokenError> {
        let mut refusal = TokenError::Algorithm;
        for key in self.keys.iter().filter(|key| key.algorithm == algorithm) {
            if let (Some(kid), Some(id)) = (kid, &key.id)
                && kid != id
            {
                if refusal == TokenError::Algorithm {
                    refusal = TokenError::UnknownKey;
                }
                continue;
            }
            let message = signed.as_bytes();
            let valid = jsonwebtoken::crypto::verify(signature, message, &key.decoding, algorithm);
            if matches!(valid, Ok(true)) {
                return Ok(());
            }
            refusal = TokenError::Signature;
        }
        Err(refusal)
    }

    fn claims(&self, fields: &ClaimFields<'_>, now: SystemTime) -> Result<Claims, TokenError> {
        let app = app(fields)?;
        let user = fields.text("sub")?.ok_or(TokenError::Missing("sub"))?;
        let user = User::new(&user).map_err(|_| TokenError::Claim {
            claim: "sub",
            must: "1 to 199 printable ASCII characters without space, `{` and `}`",
        })?;
        self.check_origin(fields)?;
        let claims = Claims {
            app,
            user,
            expires: fields.seconds("exp")?.ok_or(TokenError::Missing("exp"))?,
            issued: fields.seconds("iat")?.unwrap_or_default(),
            id: id(fields)?,
            info: self.info(fields)?,
            can: self.can(fields)?,
        };
        self.check_times(fields, claims.expires, now)?;
        Ok(claims)
    }

    /// `iss` and `aud`, where the configuration asks for them.
    fn check_origin(&self, fields: &ClaimFields<'_>) -> Result<(), TokenError> {
        if let Some(wanted) = &self.issuer
            && fields.text("iss")?.as_deref() != Some(wanted)
        {
            return Err(TokenError::Claim {
                claim: "iss",
                must: "the issuer that is configured",
            });
        }
        if let Some(wanted) = &self.audience {
            let names = match fields.json::<Value>("aud") {
                Some(Ok(Value::String(name))) => vec![Value::String(name)],
                Some(Ok(Value::Array(names))) => names,
                _ => Vec::new(),
            };
            if !names.iter().any(|name| name == wanted) {
                return Err(TokenError::Claim {
                    claim: "aud",
                    must: "or contain the audience that is configured",
                });
            }
        }
        Ok(())
    }

    fn check_times(
        &self,
        fields: &ClaimFields<'_>,
        expires: u64,
        now: SystemTime,
    ) -> Result<(), TokenError> {
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let ahead = |seconds: u64| Duration::from_secs(seconds) > now + self.leeway;
        if fields.seconds("nbf")?.is_some_and(ahead) {
            return Err(TokenError::NotYetValid);
        }
        let issued = fields.seconds("iat")?;
        if issued.is_some_and(ahead) {
            return Err(TokenError::IssuedInFuture);
        }
        // A revocation is kept for as long as a token may live: one that lived longer would come
        // back to life.
        let life_max = self.token_life_max;
        let outlives = |issued| expires > issued + life_max.as_secs();
        let latest = now + life_max + self.leeway;
        if Duration::from_secs(expires) > latest || issued.is_some_and(outlives) {
            return Err(TokenError::LivesTooLong(life_max.as_secs()));
        }
        // RFC 7519, section 4.1.4: not accepted on or after that time.
        if now >= Duration::from_secs(expires) + self.leeway {
            return Err(TokenError::Expired);
        }
        Ok(())
    }

    fn info(&self, fields: &ClaimFields<'_>) -> Result<Option<Info>, TokenError> {
        let Some(raw) = fields.get("info").filter(|raw| !raw.is_null()) else {
            return Ok(None);
        };
        let info = Info::from_raw(raw).map_err(|_| TokenError::Claim {
            claim: "info",
            must: "JSON that `data` may be",
        })?;
        if info.bytes_count() > self.info_bytes_max {
            return Err(TokenError::InfoTooLarge(self.info_bytes_max));
        }
        Ok(Some(info))
    }

    fn can(&self, fields: &ClaimFields<'_>) -> Result<Option<Arc<Rights>>, TokenError> {
        let Some(json) = fields.get("can").and_then(Raw::json) else {
            return Ok(None);
        };
        let rights = Rights::from_json(json).map_err(|fault| TokenError::Claim {
            claim: "can",
            must: match fault {
                RightsError::Form => "a map from operations to lists of patterns",
                RightsError::Pattern => {
                    "made of patterns with `*` for a segment or `**` at the end"
                }
            },
        })?;
        Ok(Some(self.known_rights.shared(rights)))
    }
}

fn app(fields: &ClaimFields<'_>) -> Result<App, TokenError> {
    let app = App::default_app();
    match fields.text("app")? {
        Some(name) if name != app.as_str() => Err(TokenError::Claim {
            claim: "app",
            must: "an app of this server",
        }),
        _ => Ok(app),
    }
}

fn id(fields: &ClaimFields<'_>) -> Result<Option<Box<str>>, TokenError> {
    match fields.text("jti")? {
        Some(id) if id.len() > ID_BYTES_MAX => Err(TokenError::Claim {
            claim: "jti",
            must: "text of at most 128 bytes",
        }),
        id => Ok(id.map(|id| id.into_owned().into_boxed_str())),
    }
}

fn decode_part(part: &str) -> Result<Vec<u8>, TokenError> {
    URL_SAFE_NO_PAD.decode(part).map_err(|_| TokenError::NotJwt)
}

/// The claims of a token whose signature is valid.
struct ClaimFields<'a>(Fields<'a>);

impl<'a> ClaimFields<'a> {
    fn read(payload: &'a [u8]) -> Result<Self, TokenError> {
        let fields =
            Fields::read(Encoding::Json, payload, &CLAIMS).map_err(|_| TokenError::ClaimsNotMap)?;
        match fields.repeated().first() {
            Some(name) => Err(TokenError::Twice(name)),
            None => Ok(Self(fields)),
        }
    }

    fn get(&self, claim: &'static str) -> Option<Raw<'a>> {
        self.0.get(claim)
    }

    fn text(&self, claim: &'static str) -> Result<Option<std::borrow::Cow<'a, str>>, TokenError> {
        let must = "text";
        self.get(claim)
            .map(|value| value.text().ok_or(TokenError::Claim { claim, must }))
            .transpose()
    }

    /// A time. A fraction of a second is cut off, because RFC 7519 allows one.
    fn seconds(&self, claim: &'static str) -> Result<Option<u64>, TokenError> {
        let must = "a number of seconds since 1970";
        let Some(number) = self.json::<f64>(claim) else {
            return Ok(None);
        };
        match number {
            Ok(seconds) if (0.0..=SECONDS_MAX).contains(&seconds) => Ok(Some(seconds as u64)),
            _ => Err(TokenError::Claim { claim, must }),
        }
    }

    fn json<T: serde::Deserialize<'a>>(
        &self,
        claim: &'static str,
    ) -> Option<Result<T, serde_json::Error>> {
        let json = self.get(claim)?.json()?;
        Some(serde_json::from_str(json))
    }
}

#[cfg(test)]
mod claim_tests;
#[cfg(test)]
mod tests;
