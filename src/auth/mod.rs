//! Tokens: from text that anybody may have written to claims that can be relied on.
//!
//! In: a token, the time, and the keys and rules of each app. Out: [`Claims`], or a
//! [`error::TokenError`]. [`verifier::Verifier`] is shared by all workers and judges by [`Rules`], which make
//! no request and read no clock; all that changes in them is which rights they have seen, so that
//! tokens that may do the same hold them once. A session keeps its claims as long as it lives, so
//! they take no more memory than their text. Bounds: `token_bytes_max`, checked before
//! anything of the token is read; `info_bytes_max`; [`TRIED_MAX`](crate::config::issuer::TRIED_MAX) signature checks a token.
//!
//! A token is a JWT in the compact form of RFC 7515, and the checks are ordered so that nothing
//! of an unsigned claim is believed (`app` and `iss` choose the keys): length, form, algorithm, key, signature,
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
mod rulebook;
pub mod signature;
#[cfg(test)]
mod test_keys;
pub mod verifier;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use error::{KeyError, TokenError};
use fields::{ClaimFields, other_text};
use keyring::{Issuer, Keyring};
use rights::{KnownRights, Rights, RightsError};

use crate::config;
use fanfare_protocol::ids::{App, Topic, TopicKind, User};
use fanfare_protocol::info::Info;
use fanfare_protocol::raw::Raw;

/// Longest `jti`, in bytes. Nodes keep those of revoked tokens in memory.
pub const ID_BYTES_MAX: usize = 128;

/// What a valid token says.
#[derive(Debug, Clone, PartialEq)]
pub struct Claims {
    /// The app whose keys have verified it: `app`, or that in which it was used.
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

/// The configured keys and rules of one app.
pub struct Rules {
    app: App,
    keyring: Keyring,
    /// Required `iss` of tokens of `[auth]` itself, when set.
    issuer: Option<String>,
    leeway: Duration,
    token_life_max: Duration,
    info_bytes_max: usize,
    known_rights: KnownRights,
}

/// A token whose signature is right; its claims are still to be read, by the same rules.
pub(crate) struct Signed {
    rules: Arc<Rules>,
    payload: Vec<u8>,
    issuer: Option<String>,
}

impl Rules {
    fn new(app: &App, auth: &config::Auth, info_bytes_max: usize) -> Result<Self, KeyError> {
        Ok(Self {
            keyring: Keyring::new(app, auth)?,
            app: app.clone(),
            issuer: auth.issuer.clone(),
            leeway: auth.leeway,
            token_life_max: auth.token_life_max,
            info_bytes_max,
            known_rights: KnownRights::default(),
        })
    }

    fn issuer(&self, name: Option<&str>) -> Result<&Issuer, TokenError> {
        self.keyring.issuer(name).ok_or(TokenError::Issuer)
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
        let app = self.app(fields)?;
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

    /// `app`, which must be the one whose keys have verified the token.
    fn app(&self, fields: &ClaimFields<'_>) -> Result<App, TokenError> {
        match fields.text("app")? {
            Some(name) if name != self.app.as_str() => Err(TokenError::OtherApp),
            _ => Ok(self.app.clone()),
        }
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

#[cfg(test)]
mod claim_tests;
#[cfg(test)]
mod tests;
