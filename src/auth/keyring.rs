//! Which keys may have signed a token: found by app, `iss`, `kid` and `alg`, so that equal `kid`s of two
//! issuers never meet.
//!
//! In: the issuers of the configuration, and the header and `iss` of a token, which nobody has verified
//! and which choose a key and nothing else. Out: at most [`TRIED_MAX`] keys, or why there are none. Pure;
//! the keys of an issuer that publishes them lie in a [`KeySet`], which is filled from outside.
//! `[auth]` itself is the issuer of every token whose `iss` no other one has.

use std::sync::Arc;
use std::time::Duration;

use super::error::{KeyError, TokenError};
use super::keys::{self, KeyFault};
use super::keyset::KeySet;
use super::signature::{Algorithm, Key, VerifyKey};
use crate::config;
use crate::config::issuer::TRIED_MAX;
use fanfare_protocol::ids::App;

/// Who signs tokens, and by what they are known.
#[derive(Debug)]
pub(super) struct Issuer {
    /// `iss`; `None` is `[auth]` itself.
    name: Option<String>,
    /// Required `aud`, when set.
    pub(super) audience: Option<String>,
    /// Allowed algorithms; empty: those of its keys.
    algorithms: Vec<Algorithm>,
    /// Allowed `typ` of the header, in lower case without `application/`; empty: any, and none.
    types: Vec<String>,
    /// The claim that names the user.
    pub(super) user_claim: String,
    keys: Arc<[Key]>,
    /// The most that the check of one token costs by `keys`, of whichever algorithm it is.
    cost_max: Duration,
    /// Its keys, where it publishes them.
    set: Option<Arc<KeySet>>,
}

/// The header and the issuer of a token, as it claims them itself.
#[derive(Debug, Clone, Copy)]
pub(super) struct Claimed<'a> {
    /// It has an `iss`, and other issuers than `[auth]` are known.
    pub(super) names_issuer: bool,
    pub(super) algorithm: Algorithm,
    pub(super) kid: Option<&'a str>,
    pub(super) kind: Option<&'a str>,
}

/// The keys that a token may be signed with.
#[derive(Debug)]
pub(super) enum Found {
    /// All that are known of its issuer, of which at least one fits.
    Keys(Arc<[Key]>),
    /// None fits, and the issuer publishes its keys: it may have a new one.
    Published(Arc<KeySet>),
}

/// All issuers of an app.
#[derive(Debug, Default)]
pub(super) struct Keyring {
    issuers: Vec<Issuer>,
}

impl Keyring {
    /// From the configuration.
    ///
    /// # Errors
    /// [`KeyError`] with every key that cannot be used.
    pub(super) fn new(app: &App, auth: &config::Auth) -> Result<Self, KeyError> {
        let section = match *app == App::default_app() {
            true => "auth".to_owned(),
            false => format!("apps.{app}.auth"),
        };
        let mut faults = Vec::new();
        let mut issuers = Vec::with_capacity(auth.issuers.len() + 1);
        for (index, issuer) in auth.issuers.iter().enumerate() {
            let path = format!("{section}.issuers[{index}].keys");
            let all = issuer.algorithms.iter();
            let algorithms: Vec<_> = all.filter_map(|name| Algorithm::of(name)).collect();
            let set = issuer.jwks.as_ref();
            let keys = read(&path, &issuer.keys, &mut faults);
            issuers.push(Issuer {
                name: Some(issuer.issuer.clone()),
                audience: issuer.audience.clone(),
                types: issuer.types.iter().map(|kind| plain_type(kind)).collect(),
                user_claim: issuer.user_claim.clone(),
                cost_max: cost_max(&keys),
                keys,
                set: set.map(|source| Arc::new(KeySet::new(source, &algorithms))),
                algorithms,
            });
        }
        let keys = read(&format!("{section}.keys"), &auth.keys, &mut faults);
        issuers.push(Issuer {
            name: None,
            audience: auth.audience.clone(),
            algorithms: Vec::new(),
            types: Vec::new(),
            user_claim: "sub".to_owned(),
            cost_max: cost_max(&keys),
            keys,
            set: None,
        });
        match faults.is_empty() {
            true => Ok(Self { issuers }),
            false => Err(KeyError { faults }),
        }
    }

    /// Whether any token can be valid.
    pub(super) fn has_keys(&self) -> bool {
        let mut issuers = self.issuers.iter();
        issuers.any(|issuer| issuer.set.is_some() || !issuer.keys.is_empty())
    }

    /// Whether an issuer beside `[auth]` is known, so that `iss` must be looked at.
    pub(super) fn has_issuers(&self) -> bool {
        self.issuers.len() > 1
    }

    /// The sets that issuers publish.
    pub(super) fn sets(&self) -> impl Iterator<Item = &Arc<KeySet>> {
        self.issuers.iter().filter_map(|issuer| issuer.set.as_ref())
    }

    /// Goes on with what is known of sets that were published at the same address before. Where they are
    /// asked for or read in another way now, that is done with the next reading, and until then the last
    /// one counts, read by the new rules.
    pub(super) fn adopt(&mut self, before: &Self) {
        for set in self
            .issuers
            .iter_mut()
            .filter_map(|issuer| issuer.set.as_mut())
        {
            if let Some(known) = before.sets().find(|known| known.is_like(set)) {
                *set = Arc::clone(known);
                continue;
            }
            let at_same = before
                .sets()
                .filter(|known| known.source().url == set.source().url);
            let readings = at_same.filter_map(|known| known.reading());
            if let Some(reading) = readings.max_by_key(|reading| reading.at) {
                // A refusal is kept by the set, and told with its next reading.
                let _ = set.take(&reading);
            }
        }
    }

    /// The most that the check of one token may cost; `None` where that depends on the token or may
    /// have to wait.
    pub(super) fn cost_max(&self) -> Option<Duration> {
        if self.sets().next().is_some() {
            return None;
        }
        let dearest = self.issuers.iter().map(|issuer| issuer.cost_max).max();
        Some(dearest.unwrap_or_default())
    }

    /// The issuer of a token that names this one.
    pub(super) fn issuer(&self, name: Option<&str>) -> Option<&Issuer> {
        let all = || self.issuers.iter();
        let named = all().find(|issuer| issuer.name.is_some() && issuer.name.as_deref() == name);
        named.or_else(|| all().find(|issuer| issuer.name.is_none()))
    }
}

impl Issuer {
    /// Whether it is `[auth]` itself.
    pub(super) fn is_default(&self) -> bool {
        self.name.is_none()
    }

    /// Its keys, if one of them may have signed such a token.
    ///
    /// # Errors
    /// [`TokenError`] where there can be none.
    pub(super) fn find(&self, claimed: Claimed<'_>) -> Result<Found, TokenError> {
        let is_allowed = |kind: &str| self.types.contains(&plain_type(kind));
        if !self.types.is_empty() && !claimed.kind.is_some_and(is_allowed) {
            return Err(TokenError::Type);
        }
        let algorithm = claimed.algorithm;
        let is_allowed = self.algorithms.is_empty() || self.algorithms.contains(&algorithm);
        // No secret is ever published, so there is nothing to ask for.
        if !is_allowed || (self.set.is_some() && algorithm.is_symmetric()) {
            return Err(TokenError::Algorithm);
        }
        let published = self.set.as_ref().map(|set| set.keys());
        let keys = published
            .flatten()
            .unwrap_or_else(|| Arc::clone(&self.keys));
        let fitting = fitting(&keys, algorithm, claimed.kid).count();
        match (fitting, &self.set) {
            (0, Some(set)) => Ok(Found::Published(Arc::clone(set))),
            (0, None) if keys.iter().any(|key| key.verify.algorithm() == algorithm) => {
                Err(TokenError::UnknownKey)
            }
            (0, None) if claimed.names_issuer && keys.is_empty() => Err(TokenError::Issuer),
            (0, None) => Err(TokenError::Algorithm),
            (1..=TRIED_MAX, _) => Ok(Found::Keys(keys)),
            _ => Err(TokenError::ManyKeys),
        }
    }
}

/// The keys of this algorithm that have this `kid`. Where none has it, those that have none may be meant;
/// without a `kid` all of the algorithm.
pub(super) fn fitting<'a>(
    keys: &'a [Key],
    algorithm: Algorithm,
    kid: Option<&'a str>,
) -> impl Iterator<Item = &'a VerifyKey> {
    let of_algorithm = move || {
        let keys = keys.iter();
        keys.filter(move |key| key.verify.algorithm() == algorithm)
    };
    let has_it = move |key: &&Key| key.id.as_deref() == kid;
    let is_named = kid.is_some() && of_algorithm().any(|key| has_it(&key));
    let is_meant = move |key: &&Key| match kid {
        Some(_) if is_named => has_it(key),
        Some(_) => key.id.is_none(),
        None => true,
    };
    of_algorithm().filter(is_meant).map(|key| &key.verify)
}

fn read(path: &str, list: &[config::TokenKey], faults: &mut Vec<(String, KeyFault)>) -> Arc<[Key]> {
    let mut made = Vec::with_capacity(list.len());
    for (index, key) in list.iter().enumerate() {
        match keys::verifying(key) {
            Ok(verify) => made.push(Key {
                id: key.id.clone(),
                verify,
            }),
            Err(fault) => faults.push((format!("{path}[{index}]"), fault)),
        }
    }
    made.into()
}

/// The most that the checks of one token cost by these keys, where none of them is ruled out by its `kid`.
fn cost_max(keys: &[Key]) -> Duration {
    let costs = Algorithm::ALL.into_iter().map(|algorithm| {
        let mut costs: Vec<_> = fitting(keys, algorithm, None)
            .map(VerifyKey::cost)
            .collect();
        costs.sort_unstable_by(|a, b| b.cmp(a));
        costs.into_iter().take(TRIED_MAX).sum::<Duration>()
    });
    costs.max().unwrap_or_default()
}

/// A media type without what RFC 7515, section 4.1.9, lets everybody leave out.
fn plain_type(kind: &str) -> String {
    let kind = kind.to_ascii_lowercase();
    kind.strip_prefix("application/")
        .map_or(kind.clone(), str::to_owned)
}

#[cfg(test)]
mod tests;
