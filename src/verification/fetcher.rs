//! One place where keys are published, and its task: fetched when it is due, or when a key is missing.
//!
//! In: time, and whoever misses a key. Out: the keys in each [`KeySet`] that comes from there, replaced as a
//! whole; an end for all that wait. Issuers that name the same place share it, and each reads the answer by
//! its own rules. Owner: [`super::Checks`]; the task ends with it. Bounds: one fetch at a time;
//! [`WAITING_MAX`] that wait; [`SEEN_MAX`] tokens. A fetch that fails leaves the keys as they are, and is told once in the log, until
//! one is taken again; a day after the last good one they are given up.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use super::fetch::{self, Certificates, Fetched};
use super::schedule::{Answer, Schedule};
use crate::auth::keyset::{KeySet, Reading};
use crate::config::Jwks;
use crate::tasks;
use crate::telemetry::fields::List;
use crate::telemetry::metrics::CheckCounters;

/// Most that wait for one place.
pub const WAITING_MAX: usize = 1_024;
/// Most tokens whose key is missing that are remembered.
const SEEN_MAX: usize = 1_024;
/// How long keys are believed that cannot be fetched again.
pub const STALE_AFTER: Duration = Duration::from_secs(24 * 3_600);

/// See the module.
pub struct Fetcher {
    source: Jwks,
    /// Who is trusted there.
    certificates: Certificates,
    filled: Mutex<Filled>,
    schedule: Mutex<Schedule>,
    /// Why the last fetch failed; `None` where it did not.
    failure: Mutex<Option<String>>,
    asked: Notify,
    /// How many fetches have ended.
    ended: watch::Sender<u64>,
    /// Told of each end, for the readiness of the node.
    readings: watch::Sender<u64>,
    waiting: AtomicUsize,
    /// When tokens whose key is missing were first seen, by their hash.
    seen: Mutex<HashMap<u64, Instant>>,
    names: RandomState,
    counters: Arc<CheckCounters>,
}

/// What is filled from a place. One lock for both, so that no set misses a reading that comes while it is
/// named.
#[derive(Default)]
struct Filled {
    sets: Vec<Arc<KeySet>>,
    /// The last reading that was taken.
    last: Option<Reading>,
}

#[cfg(not(test))]
pub(super) fn now() -> Instant {
    Instant::now()
}

/// The clock, which a test turns on.
#[cfg(test)]
pub(super) fn now() -> Instant {
    Instant::now() + AHEAD.with(std::cell::Cell::get)
}

#[cfg(test)]
thread_local! {
    /// How far the clock of this test is ahead.
    pub(super) static AHEAD: std::cell::Cell<std::time::Duration> = const {
        std::cell::Cell::new(std::time::Duration::ZERO)
    };
}

/// The place of one that waits.
struct Place<'a>(&'a AtomicUsize);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

impl Fetcher {
    /// Fetches for these sets from here on. What one of them has from the same address is read by all.
    #[must_use]
    pub fn start(
        sets: Vec<Arc<KeySet>>,
        source: Jwks,
        counters: Arc<CheckCounters>,
        readings: watch::Sender<u64>,
    ) -> Followed {
        let fetcher = Arc::new(Self {
            source,
            certificates: Certificates::default(),
            filled: Mutex::default(),
            schedule: Mutex::new(Schedule::new(now())),
            failure: Mutex::default(),
            asked: Notify::new(),
            ended: watch::channel(0).0,
            readings,
            waiting: AtomicUsize::new(0),
            seen: Mutex::default(),
            names: RandomState::new(),
            counters,
        });
        let known = sets.iter().filter_map(|set| set.reading());
        fetcher.filled().last = known.max_by_key(|reading| reading.at);
        fetcher.fill(sets);
        let task = tasks::spawn("key_set", run(Arc::clone(&fetcher)));
        Followed { fetcher, task }
    }

    /// Whether it asks there, in that way.
    #[must_use]
    pub fn is_at(&self, source: &Jwks) -> bool {
        self.source == *source
    }

    /// Fills these sets and no other from here on, at once with what was read last.
    pub fn fill(&self, sets: Vec<Arc<KeySet>>) {
        let mut filled = self.filled();
        if let Some(last) = &filled.last {
            for set in &sets {
                if set.read_at().is_none_or(|at| at < last.at) {
                    // A refusal is kept by the set, and told by `trouble`.
                    let _ = set.take(last);
                }
            }
        }
        filled.sets = sets;
        drop(filled);
        // One of them may be given up sooner than those before.
        self.asked.notify_one();
    }

    /// Whether every set has been read.
    #[must_use]
    pub fn is_read(&self) -> bool {
        let filled = self.filled();
        filled.sets.iter().all(|set| set.read_at().is_some())
    }

    /// A key is missing in a set, for this token: waits for a fetch where one may be made.
    /// `Ok`: the set is newer than the first such question, and what is missing in it does not exist.
    /// Cancel-safe.
    ///
    /// # Errors
    /// Nobody knows, and it makes no sense to ask again before so long.
    pub async fn ask(
        &self,
        set: &KeySet,
        token: &str,
        until: tokio::time::Instant,
    ) -> Result<(), Duration> {
        let mut ended = self.ended.subscribe();
        let first = self.first_asked(token);
        let answer = self.schedule().ask(now(), first);
        let known = match answer {
            Answer::Wait => {
                let taken = self.waiting.fetch_add(1, Relaxed);
                let _place = Place(&self.waiting);
                if taken < WAITING_MAX {
                    self.asked.notify_one();
                    // Where it takes too long nobody knows.
                    let _ = tokio::time::timeout_at(until, ended.changed()).await;
                }
                self.schedule().known(now(), first)
            }
            known => known,
        };
        match known {
            Answer::NotThere if set.refused().is_none() => Ok(()),
            Answer::NotThere | Answer::Wait => Err(later(Duration::ZERO)),
            Answer::Later(wait) => Err(later(wait)),
        }
    }

    /// When the key of this token was first asked for, as far as that is remembered. It is the whole token:
    /// by the name of its key alone a stranger could ask beforehand for one that is published later.
    fn first_asked(&self, token: &str) -> Instant {
        let name = self.names.hash_one(token);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        // Who invents names makes others wait for one fetch more, and nothing else.
        if seen.len() >= SEEN_MAX && !seen.contains_key(&name) {
            seen.clear();
        }
        *seen.entry(name).or_insert_with(now)
    }

    /// What is wrong with it.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        let failure = self.failure().clone();
        let filled = self.filled();
        // A set that came with a reload may be refused though the place is well.
        let trouble = filled.sets.iter().find_map(|set| set.trouble());
        let failure = failure.or(trouble);
        let url = self.source.shown();
        // The oldest says most; one that was never read is older than any.
        let oldest = filled.sets.iter().min_by_key(|set| set.read_at())?;
        let age = oldest
            .read_at()
            .map(|at| now().saturating_duration_since(at));
        let known = match (age, oldest.reading()) {
            (None, _) => "it was never read".to_owned(),
            (Some(_), None) => "its keys were given up".to_owned(),
            (Some(age), Some(_)) => format!("its keys are {} s old", age.as_secs()),
        };
        match failure {
            Some(failure) => Some(format!("key set {url}: {failure}; {known}")),
            None if age.is_none() => Some(format!("key set {url}: it was not read yet")),
            None => None,
        }
    }

    fn filled(&self) -> MutexGuard<'_, Filled> {
        self.filled.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn schedule(&self) -> MutexGuard<'_, Schedule> {
        self.schedule.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failure(&self) -> MutexGuard<'_, Option<String>> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When something is to be done next.
    fn next(&self) -> Instant {
        let gone = {
            let filled = self.filled();
            let readings = filled.sets.iter().filter_map(|set| set.reading());
            readings.map(|reading| reading.at + STALE_AFTER).min()
        };
        let due = self.schedule().due();
        due.min(gone.unwrap_or(due))
    }

    async fn fetch(&self) {
        self.schedule().begin(now());
        let fetched = fetch::fetch(&self.source, &self.certificates).await;
        let outcome = fetched.and_then(|fetched| self.take(&fetched));
        let is_taken = outcome.is_ok();
        match outcome {
            Ok(None) => self.tell_taken(),
            Ok(Some(why)) => self.tell_failed(why),
            Err(why) => {
                self.schedule().failed(now(), rand::random());
                self.tell_failed(why);
            }
        }
        let result = match is_taken {
            true => &self.counters.sets_read,
            false => &self.counters.sets_refused,
        };
        result.add(1);
        self.ended.send_modify(|count| *count += 1);
        self.readings.send_modify(|count| *count += 1);
    }

    /// Lets each set take what was fetched. Returns what is wrong with it all the same.
    ///
    /// # Errors
    /// Why none of them can read it.
    fn take(&self, fetched: &Fetched) -> Result<Option<String>, String> {
        let reading = Reading {
            bytes: fetched.bytes.clone(),
            at: now(),
        };
        let mut filled = self.filled();
        let mut refused = None;
        for set in &filled.sets {
            match set.take(&reading) {
                Ok(taken) => {
                    let left_out: Vec<_> = taken.left_out.iter().map(ToString::to_string).collect();
                    tracing::debug!(
                        event = "key_set_read",
                        url = self.source.shown(),
                        keys = taken.keys_count,
                        left_out = List::of(&left_out).value(),
                        "the keys of an issuer were read"
                    );
                }
                Err(error) => refused = Some(error.to_string()),
            }
        }
        // A form that one of them cannot read, none can.
        if let Some(error) = refused {
            return Err(error);
        }
        let useless = filled.sets.iter().find_map(|set| set.trouble());
        filled.last = Some(reading);
        drop(filled);
        self.schedule().taken(now(), fetched.max_age);
        Ok(useless)
    }

    fn tell_taken(&self) {
        if self.failure().take().is_some() {
            self.counters.sets_failing.sub(1);
            tracing::info!(
                event = "key_set_recovered",
                url = self.source.shown(),
                "the keys of an issuer can be read again"
            );
        }
    }

    fn tell_failed(&self, why: String) {
        if self.failure().replace(why.clone()).is_none() {
            self.counters.sets_failing.add(1);
            tracing::warn!(
                event = "key_set_refused",
                url = self.source.shown(),
                reason = why,
                "the keys of an issuer cannot be read; those that are known stay for a day"
            );
        }
    }

    /// Gives up what was not read for too long.
    fn give_up(&self) {
        let is_stale = |at: Instant| now().saturating_duration_since(at) >= STALE_AFTER;
        let mut filled = self.filled();
        filled.last.take_if(|last| is_stale(last.at));
        for set in &filled.sets {
            if set.reading().is_some_and(|reading| is_stale(reading.at)) {
                set.give_up();
            }
        }
    }
}

impl Drop for Fetcher {
    fn drop(&mut self) {
        if self.failure().is_some() {
            self.counters.sets_failing.sub(1);
        }
    }
}

/// When to ask again, up to a quarter later, so that not all come together; at least a second.
fn later(wait: Duration) -> Duration {
    let wait = wait.max(Duration::from_secs(1));
    wait + wait.mul_f64(rand::random::<f64>() / 4.0)
}

async fn run(fetcher: Arc<Fetcher>) {
    loop {
        let next = fetcher.next();
        // A question moves what is due.
        let _ = tokio::time::timeout_at(next.into(), fetcher.asked.notified()).await;
        if fetcher.schedule().due() <= now() {
            fetcher.fetch().await;
        }
        fetcher.give_up();
    }
}

/// A fetcher with its task, which ends with this.
pub struct Followed {
    /// It.
    pub fetcher: Arc<Fetcher>,
    task: JoinHandle<()>,
}

impl Drop for Followed {
    fn drop(&mut self) {
        self.task.abort();
    }
}
