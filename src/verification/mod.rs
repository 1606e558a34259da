//! Checks of tokens that must not be made where they are asked for: the key has to be fetched first, or the
//! check costs more than a worker may be held.
//!
//! In: tokens. Out: each with the outcome of its signature, as [`Checked`]; what the token says is then
//! read where it is used, as ever. Whoever asks waits, and nobody else: a session reads nothing more
//! until the answer is there, and then goes on in order.
//!
//! Owner of: the threads that check ([`pool`]), and a task for each set of keys that an issuer publishes
//! ([`fetcher`]). Bounds: [`LIGHT`] of checks at once on a worker; jobs and their bytes in the pool;
//! [`fetcher::WAITING_MAX`] that wait for a set, each for [`PATIENCE`]. At each bound the token is
//! `unavailable`, which says nothing against it.

pub mod address;
pub mod endpoint;
pub mod fetch;
pub mod fetcher;
pub mod pool;
pub mod schedule;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::auth::keyset::KeySet;
use crate::auth::verifier::{Checked, Verifier};
use crate::telemetry::metrics::CheckCounters;

use fetcher::{Fetcher, Followed};
use pool::Pool;

/// Most that the checks of one command cost where it is carried out.
pub const LIGHT: Duration = Duration::from_micros(50);
/// Longest wait for keys, all tokens of a command together.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// See the module.
pub struct Checks {
    verifier: Arc<Verifier>,
    counters: Arc<CheckCounters>,
    pool: Pool,
    fetchers: Mutex<Vec<Followed>>,
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
        })
    }

    /// Whether these tokens may be checked where they are.
    #[must_use]
    pub fn are_light<'a>(&self, tokens: impl Iterator<Item = &'a str> + Clone) -> bool {
        self.verifier.is_light(tokens, LIGHT)
    }

    /// Fetches the sets that the verifier's issuers publish, from here on; sets that it has no more are let
    /// go. Called at start, and after each reading of the configuration.
    pub fn follow(&self) {
        let sets = self.verifier.key_sets();
        let mut fetchers = self.fetchers();
        fetchers.retain(|one| sets.iter().any(|set| one.fetcher.is_of(set)));
        for set in sets {
            if !fetchers.iter().any(|one| one.fetcher.is_of(&set)) {
                fetchers.push(Fetcher::start(set, Arc::clone(&self.counters)));
            }
        }
    }

    /// What is wrong with sets of keys, for those who look after the node.
    #[must_use]
    pub fn troubles(&self) -> Vec<String> {
        let fetchers = self.fetchers();
        let troubles = fetchers.iter().filter_map(|one| one.fetcher.trouble());
        troubles.collect()
    }

    /// Checks tokens away from the caller's thread, after the keys that they need were asked for. The answers
    /// have the order of the tokens. Cancel-safe: what was begun is finished for nobody.
    pub async fn check(&self, tokens: Vec<String>) -> Vec<Checked> {
        let until = Instant::now() + PATIENCE;
        let mut known = Vec::with_capacity(tokens.len());
        for token in tokens {
            let is_known = match self.verifier.missing(&token) {
                None => true,
                Some(set) => self.ask(&set, until).await,
            };
            known.push((token, is_known));
        }
        let verifier = Arc::clone(&self.verifier);
        let bytes = known.iter().map(|(token, _)| token.len()).sum();
        let spare: Vec<_> = known.iter().map(|(token, _)| token.clone()).collect();
        let checked = self.pool.run(bytes, move || {
            let checked = known.into_iter().map(|(token, is_known)| match is_known {
                true => verifier.check(token),
                false => Checked::unavailable(token),
            });
            checked.collect()
        });
        match checked.await {
            Some(checked) => {
                self.counters.away.add(1);
                checked
            }
            None => {
                self.counters.away_full.add(1);
                spare.into_iter().map(Checked::unavailable).collect()
            }
        }
    }

    async fn ask(&self, set: &Arc<KeySet>, until: Instant) -> bool {
        let fetcher = {
            let fetchers = self.fetchers();
            let found = fetchers.iter().find(|one| one.fetcher.is_of(set));
            found.map(|one| Arc::clone(&one.fetcher))
        };
        match fetcher {
            Some(fetcher) => fetcher.ask(until).await,
            None => false,
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
