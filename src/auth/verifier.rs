//! The verifier that all workers share: rules of all apps that can be replaced, and a trace of each
//! refusal.
//!
//! In: tokens, and other rules on SIGHUP. Out: claims, or a [`TokenError`] that is counted by its
//! reason and told in the log. The lock is held for one look or one replacement.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use super::error::{KeyError, TokenError};
use super::fields::decode_part;
use super::keyset::KeySet;
use super::rulebook::Rulebook;
use super::{Claims, Signed};
use crate::config;
use crate::revocation::known::{Judgement, Revocations};
use crate::revocation::table::Bearer;
use crate::telemetry::family::Label as _;
use crate::telemetry::token_metrics::TokenMetrics;
use fanfare_protocol::form::Encoding;
use fanfare_protocol::ids::App;
use fanfare_protocol::raw::Fields;

/// Checks tokens against the configured keys and rules, which can be replaced while it is used.
pub struct Verifier {
    rules: RwLock<Arc<Rulebook>>,
    refused: Arc<TokenMetrics>,
    revocations: Revocations,
    /// Set while apps may be missing here that there are.
    apps_unread: Arc<AtomicBool>,
}

/// A token whose signature was checked, or could not be.
pub struct Checked {
    token: String,
    outcome: Result<Signed, TokenError>,
}

impl Checked {
    /// A token that cannot be checked at present.
    #[must_use]
    pub fn unavailable(token: String) -> Self {
        Self {
            token,
            outcome: Err(TokenError::Unavailable),
        }
    }

    /// A token whose key is asked for again in so long.
    #[must_use]
    pub fn away(token: String, wait: Duration) -> Self {
        let wait_ms = u32::try_from(wait.as_millis()).unwrap_or(u32::MAX);
        Self {
            token,
            outcome: Err(TokenError::KeyAway(wait_ms)),
        }
    }

    /// Which.
    #[must_use]
    pub fn token(&self) -> &str {
        &self.token
    }
}

impl std::fmt::Debug for Checked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Checked({:?})", self.outcome.as_ref().err())
    }
}

impl Verifier {
    /// Takes the keys and rules of the app `default` alone; `info_bytes_max` is
    /// `session.info_bytes_max`. Without keys every token is refused.
    ///
    /// # Errors
    /// [`KeyError`] with every key that cannot be used.
    pub fn new(auth: &config::Auth, info_bytes_max: usize) -> Result<Self, KeyError> {
        let default = App::default_app();
        Self::of_apps([(&default, auth)].into_iter(), info_bytes_max)
    }

    /// Takes the keys and rules of these apps.
    ///
    /// # Errors
    /// [`KeyError`] with every key that cannot be used, of all apps.
    pub fn of_apps<'a>(
        apps: impl Iterator<Item = (&'a App, &'a config::Auth)>,
        info_bytes_max: usize,
    ) -> Result<Self, KeyError> {
        Ok(Self {
            rules: RwLock::new(Arc::new(Rulebook::new(apps, info_bytes_max)?)),
            refused: Arc::default(),
            revocations: Revocations::default(),
            apps_unread: Arc::default(),
        })
    }

    /// The same, which says of no app that there is none while this is set.
    #[must_use]
    pub fn unread_while(mut self, apps_unread: Arc<AtomicBool>) -> Self {
        self.apps_unread = apps_unread;
        self
    }

    /// The same, counting refusals here.
    #[must_use]
    pub fn counting(mut self, refused: Arc<TokenMetrics>) -> Self {
        self.refused = refused;
        self
    }

    /// The same, refusing what is revoked by these.
    #[must_use]
    pub fn revoking(mut self, revocations: Revocations) -> Self {
        self.revocations = revocations;
        self
    }

    /// What is known of revocations.
    #[must_use]
    pub fn revocations(&self) -> &Revocations {
        &self.revocations
    }

    /// Whether a token that may be used otherwise is used now. Every use of a token asks this.
    fn check_revoked(&self, claims: &Claims) -> Result<(), TokenError> {
        match self.revocations.judge(claims.bearer()) {
            Judgement::Valid => Ok(()),
            Judgement::Revoked => Err(TokenError::Revoked),
            Judgement::Unread => Err(TokenError::RevocationsUnread),
        }
    }

    /// Goes on with the keys and rules of another one. Claims that were verified before stay what
    /// they are until their token is refreshed.
    /// Sets of keys that are published at the same address as before are gone on with.
    pub fn take_over(&self, other: Self) {
        let rules = other.rules.into_inner();
        let mut rules = rules.unwrap_or_else(PoisonError::into_inner);
        if let Some(rules) = Arc::get_mut(&mut rules) {
            rules.adopt(&self.rules());
        }
        *self.rules.write().unwrap_or_else(PoisonError::into_inner) = rules;
    }

    /// Goes on with the keys and rules of these apps. Those that are the same as before keep what they
    /// have: nothing of them is read again. An app with a key that cannot be used has no rules.
    ///
    /// # Errors
    /// [`KeyError`] with the keys that cannot be used, each once; the others are taken all the same.
    pub fn follow<'a>(
        &self,
        apps: impl Iterator<Item = (&'a App, &'a config::Auth)>,
        is_same: impl Fn(&App) -> bool,
        info_bytes_max: usize,
    ) -> Result<(), KeyError> {
        let before = self.rules();
        let (now, error) = Rulebook::after(&before, apps, is_same, info_bytes_max);
        *self.rules.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(now);
        error.map_or(Ok(()), Err)
    }

    fn rules(&self) -> Arc<Rulebook> {
        Arc::clone(&self.rules.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether any token can be valid.
    #[must_use]
    pub fn has_keys(&self) -> bool {
        self.rules().has_keys()
    }

    /// The sets of keys that issuers publish.
    #[must_use]
    pub fn key_sets(&self) -> Vec<Arc<KeySet>> {
        self.rules().sets().cloned().collect()
    }

    /// The app in which a token is used where nothing else says it: the one that it claims, else
    /// `default`. Nothing of it is verified. `None`: it has no form of which that can be said.
    #[must_use]
    pub fn claimed_app(&self, token: &str) -> Option<App> {
        self.rules().claimed_app(token)
    }

    /// Whether these tokens can be checked where they are, together in about `most`: no key has to be
    /// waited for. `app` as for [`Self::session`].
    #[must_use]
    pub fn is_light<'a>(
        &self,
        tokens: impl Iterator<Item = &'a str> + Clone,
        app: Option<&App>,
        most: Duration,
    ) -> bool {
        let count = u32::try_from(tokens.clone().count()).unwrap_or(u32::MAX);
        if count == 0 {
            return true;
        }
        let rules = self.rules();
        // Where every token is light, none is read twice.
        let dearest = rules.cost_max(app);
        if dearest.is_some_and(|dearest| dearest.saturating_mul(count) <= most) {
            return true;
        }
        let mut sum = Duration::ZERO;
        for token in tokens {
            let Some(cost) = rules.cost(token, app) else {
                return false;
            };
            sum += cost;
            // What comes behind is not even looked at.
            if sum > most {
                return false;
            }
        }
        true
    }

    /// The set that may have the key of this token, where none that is known fits. `app` as for
    /// [`Self::session`].
    #[must_use]
    pub fn missing(&self, token: &str, app: Option<&App>) -> Option<Arc<KeySet>> {
        self.rules().missing(token, app)
    }

    /// Checks the signature of a token, by the keys that are known now. `app` as for
    /// [`Self::session`].
    #[must_use]
    pub fn check(&self, token: String, app: Option<&App>) -> Checked {
        Checked {
            outcome: self.rules().check(&token, app),
            token,
        }
    }

    /// Whether a token whose signature was checked could open or refresh a session. A refusal is
    /// counted where the token is used.
    #[must_use]
    pub fn would_open(&self, checked: &Checked, now: SystemTime) -> bool {
        let claims = checked.outcome.as_ref().map_err(|error| *error);
        let claims = claims.and_then(|signed| signed.rules.session(signed, now));
        claims.is_ok_and(|claims| self.check_revoked(&claims).is_ok())
    }

    /// Checks a token that opens or refreshes a session, by the keys of `app`; `None`: nothing says yet
    /// which app it is used in, and its claim chooses.
    ///
    /// # Errors
    /// [`TokenError`]. A token for one topic is refused: it would open more than it names.
    pub fn session(
        &self,
        token: &str,
        app: Option<&App>,
        now: SystemTime,
    ) -> Result<Claims, TokenError> {
        self.session_by(token, self.rules().check(token, app), now)
    }

    /// The same for a token whose signature was checked elsewhere.
    ///
    /// # Errors
    /// As [`Self::session`].
    pub fn checked_session(&self, checked: Checked, now: SystemTime) -> Result<Claims, TokenError> {
        self.session_by(&checked.token, checked.outcome, now)
    }

    fn session_by(
        &self,
        token: &str,
        outcome: Result<Signed, TokenError>,
        now: SystemTime,
    ) -> Result<Claims, TokenError> {
        let outcome = outcome.map_err(|error| self.as_read(error));
        let claims = outcome.and_then(|signed| signed.rules.session(&signed, now));
        let claims = claims.and_then(|claims| {
            self.check_revoked(&claims)?;
            Ok(claims)
        });
        claims.inspect_err(|error| self.refuse(token, *error))
    }

    /// Checks a token for one topic and returns that topic's name, a plain topic of the app. That
    /// `sub` is the session's user is for the caller to see. `app` as for [`Self::session`].
    ///
    /// # Errors
    /// [`TokenError`]. A session's token is refused: it names no topic.
    pub fn topic(
        &self,
        token: &str,
        app: Option<&App>,
        now: SystemTime,
    ) -> Result<(Claims, String), TokenError> {
        self.topic_by(token, self.rules().check(token, app), now)
    }

    /// The same for a token whose signature was checked elsewhere.
    ///
    /// # Errors
    /// As [`Self::topic`].
    pub fn checked_topic(
        &self,
        checked: Checked,
        now: SystemTime,
    ) -> Result<(Claims, String), TokenError> {
        self.topic_by(&checked.token, checked.outcome, now)
    }

    fn topic_by(
        &self,
        token: &str,
        outcome: Result<Signed, TokenError>,
        now: SystemTime,
    ) -> Result<(Claims, String), TokenError> {
        let outcome = outcome.map_err(|error| self.as_read(error));
        let claims = outcome.and_then(|signed| signed.rules.topic(&signed, now));
        let claims = claims.and_then(|(claims, topic)| {
            self.check_revoked(&claims)?;
            Ok((claims, topic))
        });
        claims.inspect_err(|error| self.refuse(token, *error))
    }

    /// The same, unless there may be apps that were not read yet.
    fn as_read(&self, error: TokenError) -> TokenError {
        match error {
            TokenError::UnknownApp if self.apps_unread.load(Ordering::Acquire) => {
                TokenError::AppsUnread
            }
            other => other,
        }
    }

    /// Counts a refusal and says why in the log: never the token, of which only the names of its
    /// key and its issuer are told, as it claims them itself.
    fn refuse(&self, token: &str, error: TokenError) {
        let reason = error.reason();
        self.refused.refused.of(reason).add(1);
        if tracing::enabled!(tracing::Level::DEBUG) {
            let mut parts = token.split('.').map(|part| decode_part(part).ok());
            let kid = parts.next().flatten().and_then(|head| told(&head, "kid"));
            let iss = parts
                .next()
                .flatten()
                .and_then(|claims| told(&claims, "iss"));
            tracing::debug!(
                event = "token_refused",
                reason = reason.word(),
                kid,
                iss,
                "{error}"
            );
        }
    }
}

impl Claims {
    /// What revocations know it by.
    #[must_use]
    pub fn bearer(&self) -> Bearer<'_> {
        Bearer {
            app: &self.app,
            user: &self.user,
            id: self.id.as_deref(),
            issued: self.issued,
        }
    }
}

/// A short text that an unverified part of a token names.
fn told(part: &[u8], name: &'static str) -> Option<String> {
    const CHARS_MAX: usize = 64;
    let fields = Fields::read(Encoding::Json, part, &[name]).ok()?;
    let text = fields.get(name)?.text()?;
    Some(text.chars().take(CHARS_MAX).collect())
}
