//! The rules of all apps, and a token opened by those of its app.
//!
//! In: a token, and the app that it is used for, where that is known. Out: the rules by which it is
//! judged and the keys that may have signed it; or its signature checked. Only the keys of one app are
//! ever tried: the one that is known, else the one that the token claims, else `default`. A token that
//! claims another one than the known is refused before any key is looked at. Pure. Bound: as many apps
//! as the node has.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::error::{KeyError, TokenError};
use super::fields::{Origin, decode_part};
use super::keyring::{Claimed, Found, fitting};
use super::keyset::KeySet;
use super::signature::{Algorithm, VerifyKey};
use super::{Rules, Signed};
use crate::config;
use fanfare_protocol::form::Encoding;
use fanfare_protocol::ids::App;
use fanfare_protocol::raw::{Fields, Raw};

/// The header's parts that are read.
const HEADERS: [&str; 4] = ["alg", "kid", "crit", "typ"];

/// See the module.
pub(super) struct Rulebook {
    by_app: BTreeMap<App, Arc<Rules>>,
    /// That of the node: `auth.token_bytes_max`.
    token_bytes_max: usize,
    /// The most that the check of one token costs, of whichever app; `None` where that depends on the
    /// token or has to wait.
    cost_max: Option<Duration>,
}

/// A token whose parts are read and whose keys are found, and of which nothing is verified.
struct Opened<'a> {
    rules: Arc<Rules>,
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

impl Rulebook {
    /// The rules of these apps.
    ///
    /// # Errors
    /// [`KeyError`] with every key that cannot be used, of all apps.
    pub(super) fn new<'a>(
        apps: impl Iterator<Item = (&'a App, &'a config::Auth)>,
        info_bytes_max: usize,
    ) -> Result<Self, KeyError> {
        let (mut by_app, mut faults, mut token_bytes_max) = (BTreeMap::new(), Vec::new(), 0);
        for (app, auth) in apps {
            token_bytes_max = token_bytes_max.max(auth.token_bytes_max);
            match Rules::new(app, auth, info_bytes_max) {
                Ok(rules) => {
                    by_app.insert(app.clone(), Arc::new(rules));
                }
                Err(mut error) => faults.append(&mut error.faults),
            }
        }
        if !faults.is_empty() {
            return Err(KeyError { faults });
        }
        Ok(Self::of(by_app, token_bytes_max))
    }

    /// The rules of these apps, where those that are the same keep theirs. An app with a key that cannot
    /// be used has none, and its keys are told, where it is not the same.
    pub(super) fn after<'a>(
        before: &Self,
        apps: impl Iterator<Item = (&'a App, &'a config::Auth)>,
        is_same: impl Fn(&App) -> bool,
        info_bytes_max: usize,
    ) -> (Self, Option<KeyError>) {
        let (mut by_app, mut faults, mut token_bytes_max) = (BTreeMap::new(), Vec::new(), 0);
        for (app, auth) in apps {
            token_bytes_max = token_bytes_max.max(auth.token_bytes_max);
            let known = before.by_app.get(app);
            if is_same(app) {
                by_app.extend(known.map(|rules| (app.clone(), Arc::clone(rules))));
                continue;
            }
            match Rules::new(app, auth, info_bytes_max) {
                Ok(mut rules) => {
                    if let Some(known) = known {
                        rules.keyring.adopt(&known.keyring);
                    }
                    by_app.insert(app.clone(), Arc::new(rules));
                }
                Err(mut error) => faults.append(&mut error.faults),
            }
        }
        let error = (!faults.is_empty()).then_some(KeyError { faults });
        (Self::of(by_app, token_bytes_max), error)
    }

    fn of(by_app: BTreeMap<App, Arc<Rules>>, token_bytes_max: usize) -> Self {
        let mut costs = by_app.values().map(|rules| rules.keyring.cost_max());
        Self {
            cost_max: costs.try_fold(Duration::ZERO, |most, cost| Some(most.max(cost?))),
            by_app,
            token_bytes_max,
        }
    }

    /// Goes on with sets of keys that come from where they came from before, app by app.
    pub(super) fn adopt(&mut self, before: &Self) {
        for (app, rules) in &mut self.by_app {
            if let (Some(rules), Some(before)) = (Arc::get_mut(rules), before.by_app.get(app)) {
                rules.keyring.adopt(&before.keyring);
            }
        }
    }

    /// Whether any token can be valid.
    pub(super) fn has_keys(&self) -> bool {
        let mut all = self.by_app.values();
        all.any(|rules| rules.keyring.has_keys())
    }

    /// The sets that issuers of all apps publish.
    pub(super) fn sets(&self) -> impl Iterator<Item = &Arc<KeySet>> {
        self.by_app.values().flat_map(|rules| rules.keyring.sets())
    }

    /// The most that the check of one token costs; `None` where that depends on the token.
    pub(super) fn cost_max(&self, app: Option<&App>) -> Option<Duration> {
        match app.and_then(|app| self.by_app.get(app)) {
            Some(rules) => rules.keyring.cost_max(),
            None => self.cost_max,
        }
    }

    /// The rules for a token that claims this app.
    fn rules(&self, known: Option<&App>, claimed: Option<&str>) -> Result<&Arc<Rules>, TokenError> {
        let name = match (known, claimed) {
            (Some(known), Some(claimed)) if known.as_str() != claimed => {
                return Err(TokenError::OtherApp);
            }
            (Some(known), _) => known.as_str(),
            (None, Some(claimed)) => claimed,
            (None, None) => return self.default_rules(),
        };
        self.by_app.get(name).ok_or(TokenError::UnknownApp)
    }

    fn default_rules(&self) -> Result<&Arc<Rules>, TokenError> {
        let default = self.by_app.get(&App::default_app());
        default.ok_or(TokenError::UnknownApp)
    }

    /// The parts of a token, and the keys that may have signed it.
    fn open<'a>(&self, token: &'a str, app: Option<&App>) -> Result<Opened<'a>, TokenError> {
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
        let origin = Origin::read(&payload)?;
        let rules = self.rules(app, origin.app.as_deref())?;
        let issuer = origin.issuer.filter(|_| rules.keyring.has_issuers());
        let issuer = issuer.map(Cow::into_owned);
        let kind = header.get("typ").and_then(Raw::text);
        let found = rules.issuer(issuer.as_deref())?.find(Claimed {
            names_issuer: issuer.is_some(),
            algorithm,
            kid: kid.as_deref(),
            kind: kind.as_deref(),
        })?;
        Ok(Opened {
            rules: Arc::clone(rules),
            message,
            signature,
            payload,
            algorithm,
            kid,
            issuer,
            found,
        })
    }

    /// Checks the signature of a token by the keys that are known now.
    pub(super) fn check(&self, token: &str, app: Option<&App>) -> Result<Signed, TokenError> {
        let opened = self.open(token, app)?;
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
                rules: opened.rules,
            }),
            false => Err(TokenError::Signature),
        }
    }

    /// What the check of a token costs about; `None` where its key must be waited for.
    pub(super) fn cost(&self, token: &str, app: Option<&App>) -> Option<Duration> {
        let Ok(opened) = self.open(token, app) else {
            return Some(Duration::ZERO);
        };
        match &opened.found {
            Found::Published(_) => None,
            Found::Keys(keys) => {
                let keys = fitting(keys, opened.algorithm, opened.kid.as_deref());
                Some(keys.map(VerifyKey::cost).sum())
            }
        }
    }

    /// The set that may have the key of this token, where none that is known fits.
    pub(super) fn missing(&self, token: &str, app: Option<&App>) -> Option<Arc<KeySet>> {
        match self.open(token, app).ok()?.found {
            Found::Published(set) => Some(set),
            Found::Keys(_) => None,
        }
    }

    /// The app in which a token without a known one is used: what it claims, else `default`. `None`:
    /// it has no form of which that can be said.
    pub(super) fn claimed_app(&self, token: &str) -> Option<App> {
        if token.len() > self.token_bytes_max {
            return None;
        }
        let payload = decode_part(token.split('.').nth(1)?).ok()?;
        let origin = Origin::read(&payload).ok()?;
        match origin.app {
            Some(name) => App::new(&name).ok(),
            None => Some(App::default_app()),
        }
    }
}
