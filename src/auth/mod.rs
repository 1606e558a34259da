//! Tokens: from text that anybody may have written to claims that can be relied on.
//!
//! In: a token, the time, and the keys and rules of `[auth]`. Out: [`Claims`], or a
//! [`error::TokenError`]. [`verifier::Verifier`] is shared by all workers and judges by [`Rules`], which make
//! no request and read no clock; all that changes in them is which rights they have seen, so that
//! tokens that may do the same hold them once. A session keeps its claims as long as it lives, so
//! they take no more memory than their text. Bounds: `token_bytes_max`, checked before
//! anything of the token is read; `info_bytes_max`; [`TRIED_MAX`](crate::config::issuer::TRIED_MAX) signature checks a token.
//!
//! A token is a JWT in the compact form of RFC 7515, and the checks are ordered so that nothing
//! of an unsigned claim is believed (`iss` chooses the keys): length, form, algorithm, key, signature,
//! then the claims, and its end last, so that "expired" means that nothing else was wrong with it. The key's
//! algorithm decides, not the token's: the token's must equal it. Headers that name a key's place
//! or bring one (`jku`, `x5u`, `x5c`, `jwk`) are not read; `crit` is refused because no extension
//! is known. A claim that is read must have its type (null is no type, except that `info` may be
//! null, which shows nothing), and a header or claim that is there twice refuses the token.

pub mod error;
mod fields;
pub mod keyring;
pub mod keys;
pub mod keyset;
pub mod mint;
pub mod rights;
pub mod signature;
#[cfg(test)]
mod test_keys;
pub mod verifier;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use error::{KeyError, TokenError};
use fields::{ClaimFields, claimed_issuer, decode_part, other_text};
use keyring::{Claimed, Found, Issuer, Keyring, fitting};
use keyset::KeySet;
use rights::{KnownRights, Rights, RightsError};
use signature::Algorithm;

use crate::config;
use fanfare_protocol::form::Encoding;
use fanfare_protocol::ids::{App, Topic, TopicKind, User};
use fanfare_protocol::info::Info;
use fanfare_protocol::raw::{Fields, Raw};

/// The header's parts that are read.
const HEADERS: [&str; 4] = ["alg", "kid", "crit", "typ"];

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

/// The configured keys and rules.
pub struct Rules {
    keyring: Keyring,
    /// Required `iss` of tokens of `[auth]` itself, when set.
    issuer: Option<String>,
    leeway: Duration,
    token_life_max: Duration,
    token_bytes_max: usize,
    info_bytes_max: usize,
    known_rights: KnownRights,
}

/// A token whose parts are read and whose keys are found, and of which nothing is verified.
struct Opened<'a> {
    /// The parts that are signed.
    message: &'a str,
    signature: &'a str,
    payload: Vec<u8>,
    algorithm: Algorithm,
    kid: Option<String>,
    /// `iss`, where it chose the issuer.
    issuer: Option<String>,
    found: Found,
}

/// A token whose signature is right; its claims are still to be read, by the same rules.
pub struct Signed {
    rules: Arc<Rules>,
    payload: Vec<u8>,
    issuer: Option<String>,
}

impl Rules {
    fn new(auth: &config::Auth, info_bytes_max: usize) -> Result<Self, KeyError> {
        Ok(Self {
            keyring: Keyring::new(&App::default_app(), auth)?,
            issuer: auth.issuer.clone(),
            leeway: auth.leeway,
            token_life_max: auth.token_life_max,
            token_bytes_max: auth.token_bytes_max,
            info_bytes_max,
            known_rights: KnownRights::default(),
        })
    }

    /// The parts of a token, and the keys that may have signed it.
    fn open<'a>(&self, token: &'a str) -> Result<Opened<'a>, TokenError> {
        if token.len() > self.token_bytes_max {
            return Err(TokenError::TooLong(self.token_bytes_max));
        }
        let (message, signature) = token.rsplit_once('.').ok_or(TokenError::NotJwt)?;
        let (header, payload) = message.split_once('.').ok_or(TokenError::NotJwt)?;
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
            Some(kid) => Some(kid.text().ok_or(TokenError::UnknownKey)?.into_owned()),
            None => None,
        };
        let algorithm = header.get("alg").and_then(Raw::text);
        let algorithm = algorithm.and_then(|name| Algorithm::of(&name));
        let algorithm = algorithm.ok_or(TokenError::Algorithm)?;
        let payload = decode_part(payload)?;
        let issuer = match self.keyring.has_issuers() {
            true => claimed_issuer(&payload),
            false => None,
        };
        let kind = header.get("typ").and_then(Raw::text);
        let found = self.issuer(issuer.as_deref())?.find(Claimed {
            names_issuer: issuer.is_some(),
            algorithm,
            kid: kid.as_deref(),
            kind: kind.as_deref(),
        })?;
        Ok(Opened {
            message,
            signature,
            payload,
            algorithm,
            kid,
            issuer,
            found,
        })
    }

    fn issuer(&self, name: Option<&str>) -> Result<&Issuer, TokenError> {
        let app = App::default_app();
        self.keyring.issuer(&app, name).ok_or(TokenError::Issuer)
    }

    /// Checks the signature of a token by the keys that are known now.
    fn check(self: Arc<Self>, token: &str) -> Result<Signed, TokenError> {
        let opened = self.open(token)?;
        let Found::Keys(keys) = &opened.found else {
            return Err(TokenError::UnknownKey);
        };
        let Ok(signature) = URL_SAFE_NO_PAD.decode(opened.signature) else {
            return Err(TokenError::Signature);
        };
        let message = opened.message.as_bytes();
        let mut keys = fitting(keys, opened.algorithm, opened.kid.as_deref());
        match keys.any(|key| key.verifies(message, &signature)) {
            true => Ok(Signed {
                payload: opened.payload,
                issuer: opened.issuer,
                rules: self,
            }),
            false => Err(TokenError::Signature),
        }
    }

    /// What the check of a token costs about; `None` where its key must be waited for.
    fn cost(&self, token: &str) -> Option<Duration> {
        let Ok(opened) = self.open(token) else {
            return Some(Duration::ZERO);
        };
        match &opened.found {
            Found::Published(_) => None,
            Found::Keys(keys) => {
                let keys = fitting(keys, opened.algorithm, opened.kid.as_deref());
                Some(keys.map(signature::VerifyKey::cost).sum())
            }
        }
    }

    /// The set that may have the key of this token, where none that is known fits.
    fn missing(&self, token: &str) -> Option<Arc<KeySet>> {
        match self.open(token).ok()?.found {
            Found::Published(set) => Some(set),
            Found::Keys(_) => None,
        }
    }

    fn session(&self, signed: &Signed, now: SystemTime) -> Result<Claims, TokenError> {
        let fields = ClaimFields::read(&signed.payload)?;
        if fields.get("topic").is_some() {
            return Err(TokenError::ForOneTopic);
        }
        self.claims(&fields, signed, now)
    }

    fn topic(&self, signed: &Signed, now: SystemTime) -> Result<(Claims, String), TokenError> {
        let fields = ClaimFields::read(&signed.payload)?;
        let name = fields
            .text("topic")?
            .ok_or(TokenError::Missing("topic"))?
            .into_owned();
        let claims = self.claims(&fields, signed, now)?;
        match Topic::new(&claims.app, &name).map(|topic| topic.kind()) {
            Ok(TopicKind::Plain) => Ok((claims, name)),
            _ => Err(TokenError::Claim {
                claim: "topic",
                must: "the name of a topic, and no inbox",
            }),
        }
    }

    fn claims(
        &self,
        fields: &ClaimFields<'_>,
        signed: &Signed,
        now: SystemTime,
    ) -> Result<Claims, TokenError> {
        let app = app(fields)?;
        let issuer = self.issuer(signed.issuer.as_deref())?;
        let user = match issuer.user_claim.as_str() {
            "sub" => fields.text("sub")?.ok_or(TokenError::Missing("sub"))?,
            name => other_text(&signed.payload, name)?.into(),
        };
        let user = User::new(&user).map_err(|_| TokenError::Claim {
            claim: "sub",
            must: "1 to 199 printable ASCII characters without space, `{` and `}`",
        })?;
        self.check_origin(fields, issuer)?;
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
    fn check_origin(&self, fields: &ClaimFields<'_>, issuer: &Issuer) -> Result<(), TokenError> {
        if let Some(wanted) = self.issuer.as_ref().filter(|_| issuer.is_default())
            && fields.text("iss")?.as_deref() != Some(wanted)
        {
            return Err(TokenError::Claim {
                claim: "iss",
                must: "the issuer that is configured",
            });
        }
        if let Some(wanted) = &issuer.audience {
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

fn id(fields: &ClaimFields<'_>) -> Result<Option<Box<str>>, TokenError> {
    match fields.text("jti")? {
        Some(id) if id.len() > ID_BYTES_MAX => Err(TokenError::Claim {
            claim: "jti",
            must: "text of at most 128 bytes",
        }),
        id => Ok(id.map(|id| id.into_owned().into_boxed_str())),
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

#[cfg(test)]
mod claim_tests;
#[cfg(test)]
mod tests;
