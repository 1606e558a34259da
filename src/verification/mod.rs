//! Checks of tokens that must not be made where they are asked for: the key has to be fetched first, or the
//! check costs more than a worker may be held.
//!
//! In: tokens. Out: each with the outcome of its signature, as [`Checked`]; what the token says is then
//! read where it is used, as ever. Whoever asks waits, and nobody else: a session reads nothing more
//! until the answer is there, and then goes on in order.
//!
//! Who is not known yet has at most one check here: the token that says who it is. Only when that is good are
//! the others of its command looked at, in a lane of their own ([`pool::Lane`]).
//!
//! Owner of: the threads that check ([`pool`]), and a task for each place where issuers publish keys
//! ([`fetcher`]). Bounds: [`LIGHT`] of checks at once on a worker; jobs and their bytes in the pool, of
//! [`TOKENS_AT_ONCE`] each; [`fetcher::WAITING_MAX`] that wait for a set; [`WAITING_BYTES_MAX`] of tokens and [`PATIENCE`] for all
//! of it. At each
//! bound the token is `unavailable`, which says nothing against it.

pub mod address;
pub mod endpoint;
pub mod fetch;
pub mod fetcher;
pub mod pool;
pub mod schedule;
pub mod trusted;

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

use futures_util::future::join_all;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::auth::keyset::KeySet;
use crate::auth::verifier::{Checked, Verifier};
use crate::config::Jwks;
use crate::telemetry::metrics::CheckCounters;
use fanfare_protocol::ids::App;

use fetcher::{Fetcher, Followed};
use pool::{Lane, Pool, Refused};

/// Most that the checks of one command cost where it is carried out.
pub const LIGHT: Duration = Duration::from_micros(50);
/// Longest wait for keys and for the pool, all tokens of a command together.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// Longest wait for keys of tokens for topics that come with the token of a login: one issuer that is away must
/// not hold up who comes by another.
pub const OTHERS_PATIENCE: Duration = Duration::from_secs(1);
/// Most bytes of tokens that are checked here or wait for their keys, of all sessions together.
pub const WAITING_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Most tokens of one job of the pool, so that a command with many has its turn with others between.
pub const TOKENS_AT_ONCE: usize = 8;
/// For so long a node is not ready because of keys that it has not read yet, at the most.
pub const FIRST_WITHIN: Duration = Duration::from_secs(3);

/// Bytes of tokens, until they are checked or nobody waits any more.
struct Place<'a>(&'a AtomicUsize, usize);

impl<'a> Place<'a> {
    /// `None`: there is no room.
    fn take(all: &'a AtomicUsize, bytes: usize) -> Option<Self> {
        let taken = all.fetch_add(bytes, Relaxed);
        let place = Self(all, bytes);
        (taken + bytes <= WAITING_BYTES_MAX).then_some(place)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(self.1, Relaxed);
    }
}

/// Until when tokens wait.
#[derive(Clone, Copy)]
struct Until {
    /// For their keys.
    keys: Instant,
    /// For the pool.
    checked: Instant,
}

/// The tokens of one command, as they are to be checked.
#[derive(Debug, Default)]
pub struct Asked {
    /// The one that says who somebody is.
    pub own: Option<String>,
    /// Those for topics, which are looked at only where that one is good.
    pub others: Vec<String>,
    /// Whether somebody is known already without that one.
    pub is_known: bool,
    /// Whether a session opens with them.
    pub opens: bool,
    /// In which app, as for [`Verifier::session`].
    pub app: Option<App>,
}

/// See the module.
pub struct Checks {
    verifier: Arc<Verifier>,
    counters: Arc<CheckCounters>,
    pool: Pool,
    fetchers: Mutex<Vec<Followed>>,
    /// Of tokens that are checked or wait for it.
    waiting_bytes: AtomicUsize,
    /// When sets were followed first.
    begun: OnceLock<std::time::Instant>,
    /// Counts the ends of fetches.
    readings: watch::Sender<u64>,
}

impl Checks {
    /// Checks by this verifier. No task and no thread runs until one is needed.
    #[must_use]
    pub fn new(verifier: Arc<Verifier>, counters: Arc<CheckCounters>) -> Arc<Self> {
        Arc::new(Self {
            verifier,
            counters,
            pool: Pool::default(),
            fetchers: Mutex::default(),
            waiting_bytes: AtomicUsize::new(0),
            begun: OnceLock::new(),
            readings: watch::Sender::default(),
        })
    }

    /// Whether these tokens may be checked where they are. `app` as for [`Verifier::session`].
    #[must_use]
    pub fn are_light<'a>(
        &self,
        tokens: impl Iterator<Item = &'a str> + Clone,
        app: Option<&App>,
    ) -> bool {
        self.verifier.is_light(tokens, app, LIGHT)
    }

    /// Fetches the sets that the verifier's issuers publish, from here on: once for all that name the same
    /// place. Sets that it has no more are let go. Called at start, and after each reading of the configuration.
    pub fn follow(&self) {
        self.begun.get_or_init(fetcher::now);
        let mut places: Vec<(Jwks, Vec<Arc<KeySet>>)> = Vec::new();
        for set in self.verifier.key_sets() {
            match places.iter_mut().find(|(source, _)| source == set.source()) {
                // Issuers that were adopted may share one.
                Some((_, sets)) if sets.iter().any(|one| Arc::ptr_eq(one, &set)) => {}
                Some((_, sets)) => sets.push(set),
                None => places.push((set.source().clone(), vec![set])),
            }
        }
        let mut fetchers = self.fetchers();
        fetchers.retain(|one| places.iter().any(|(source, _)| one.fetcher.is_at(source)));
        for (source, sets) in places {
            match fetchers.iter().find(|one| one.fetcher.is_at(&source)) {
                Some(one) => one.fetcher.fill(sets),
                None => {
                    let (counters, readings) = (Arc::clone(&self.counters), self.readings.clone());
                    fetchers.push(Fetcher::start(sets, source, counters, readings));
                }
            }
        }
    }

    /// Why the node is not ready yet: a set was not read, and its first reading is waited for. Never told
    /// later than [`FIRST_WITHIN`] after the start; then it is one of [`Self::troubles`].
    #[must_use]
    pub fn unread(&self) -> Option<String> {
        let begun = self.begun.get()?;
        if fetcher::now().saturating_duration_since(*begun) >= FIRST_WITHIN {
            return None;
        }
        let fetchers = self.fetchers();
        let unread = fetchers.iter().filter(|one| !one.fetcher.is_read());
        unread.filter_map(|one| one.fetcher.trouble()).next()
    }

    /// Told whenever a fetch has ended.
    #[must_use]
    pub fn readings(&self) -> watch::Receiver<u64> {
        self.readings.subscribe()
    }

    /// What is wrong with sets of keys, for those who look after the node.
    #[must_use]
    pub fn troubles(&self) -> Vec<String> {
        let fetchers = self.fetchers();
        let troubles = fetchers.iter().filter_map(|one| one.fetcher.trouble());
        troubles.collect()
    }

    /// Checks the tokens of one command away from the caller's thread, after the keys that they need were
    /// asked for: first the one that says who somebody is, and the others only where that is good. Each answer
    /// has its token. Cancel-safe: what was begun is finished for nobody.
    pub async fn check(&self, asked: Asked) -> Vec<Checked> {
        let now = Instant::now();
        let until = Until {
            keys: now + PATIENCE,
            checked: now + PATIENCE,
        };
        let others_until = Until {
            keys: match asked.opens {
                true => now + OTHERS_PATIENCE,
                false => until.keys,
            },
            ..until
        };
        let tokens = || asked.own.iter().chain(&asked.others);
        let bytes = tokens().map(String::len).sum();
        let _place = match Place::take(&self.waiting_bytes, bytes) {
            Some(place) => place,
            None => {
                self.count(Err(Refused::Full));
                return tokens().cloned().map(Checked::unavailable).collect();
            }
        };
        let mut checked = Vec::with_capacity(asked.others.len() + 1);
        let app = &asked.app;
        let mut result = Ok(());
        let mut lane = match asked.is_known {
            true => Lane::Known,
            false => Lane::Stranger,
        };
        if let Some(own) = asked.own {
            result = self
                .check_some(vec![own], app, (lane, until), &mut checked)
                .await;
            let now = SystemTime::now();
            if !checked.iter().all(|own| self.verifier.would_open(own, now)) {
                self.count(result);
                return checked;
            }
            lane = Lane::Known;
        }
        if result.is_ok() {
            result = self
                .check_some(asked.others, app, (lane, others_until), &mut checked)
                .await;
        } else {
            // What did not get a place would not get one at once.
            checked.extend(asked.others.into_iter().map(Checked::unavailable));
        }
        self.count(result);
        checked
    }

    /// First those whose keys are here, so that they wait for nobody else's; then those whose keys have come.
    async fn check_some(
        &self,
        tokens: Vec<String>,
        app: &Option<App>,
        (lane, until): (Lane, Until),
        checked: &mut Vec<Checked>,
    ) -> Result<(), Refused> {
        let mut known = Vec::with_capacity(tokens.len());
        let mut missing: Vec<(Arc<KeySet>, Vec<String>)> = Vec::new();
        for token in tokens {
            let Some(set) = self.verifier.missing(&token, app.as_ref()) else {
                known.push(token);
                continue;
            };
            match missing.iter_mut().find(|(one, _)| Arc::ptr_eq(one, &set)) {
                Some((_, tokens)) => tokens.push(token),
                None => missing.push((set, vec![token])),
            }
        }
        let pool_until = (lane, until.checked);
        let first = self.run(known, app, pool_until, checked).await;
        let asked = missing
            .into_iter()
            .map(|(set, tokens)| self.come(set, tokens, app, until.keys));
        let mut come = Vec::new();
        for (tokens, away) in join_all(asked).await {
            come.extend(tokens);
            checked.extend(away);
        }
        match first {
            Ok(()) => self.run(come, app, pool_until, checked).await,
            Err(refused) => {
                checked.extend(come.into_iter().map(Checked::unavailable));
                Err(refused)
            }
        }
    }

    /// Asks for the keys of tokens that are missing in one set: those that can be checked now, and the others.
    /// One after the other, because the end of one fetch is the answer to all of them.
    async fn come(
        &self,
        set: Arc<KeySet>,
        tokens: Vec<String>,
        app: &Option<App>,
        until: Instant,
    ) -> (Vec<String>, Vec<Checked>) {
        let (mut come, mut away) = (Vec::new(), Vec::new());
        for token in tokens {
            match self.ask(&set, &token, until).await {
                Ok(()) => come.push(token),
                // It came with a fetch that was begun before it was asked for.
                Err(_) if self.verifier.missing(&token, app.as_ref()).is_none() => come.push(token),
                Err(wait) => away.push(Checked::away(token, wait)),
            }
        }
        (come, away)
    }

    /// Checks tokens in the pool, [`TOKENS_AT_ONCE`] a job.
    async fn run(
        &self,
        tokens: Vec<String>,
        app: &Option<App>,
        (lane, until): (Lane, Instant),
        checked: &mut Vec<Checked>,
    ) -> Result<(), Refused> {
        let mut result = Ok(());
        let mut tokens = tokens.into_iter();
        loop {
            let some: Vec<_> = tokens.by_ref().take(TOKENS_AT_ONCE).collect();
            if some.is_empty() {
                return result;
            }
            if result.is_err() {
                // What did not get a place would not get one at once.
                checked.extend(some.into_iter().map(Checked::unavailable));
                continue;
            }
            let verifier = Arc::clone(&self.verifier);
            let app = app.clone();
            let bytes = some.iter().map(String::len).sum();
            let spare = some.clone();
            let work = move || -> Vec<_> {
                let some = some.into_iter();
                some.map(|token| verifier.check(token, app.as_ref()))
                    .collect()
            };
            match self.pool.run(lane, bytes, until, work).await {
                Ok(done) => checked.extend(done),
                Err(refused) => {
                    checked.extend(spare.into_iter().map(Checked::unavailable));
                    result = Err(refused);
                }
            }
        }
    }

    fn count(&self, result: Result<(), Refused>) {
        let counter = match result {
            Ok(()) => &self.counters.away,
            Err(Refused::Full) => &self.counters.away_full,
            Err(Refused::Late) => &self.counters.away_late,
        };
        counter.add(1);
    }

    async fn ask(&self, set: &Arc<KeySet>, token: &str, until: Instant) -> Result<(), Duration> {
        let fetcher = {
            let fetchers = self.fetchers();
            let found = fetchers.iter().find(|one| one.fetcher.is_at(set.source()));
            found.map(|one| Arc::clone(&one.fetcher))
        };
        match fetcher {
            Some(fetcher) => fetcher.ask(set, token, until).await,
            None => Err(Duration::from_secs(1)),
        }
    }

    fn fetchers(&self) -> std::sync::MutexGuard<'_, Vec<Followed>> {
        self.fetchers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Checks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Checks").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
