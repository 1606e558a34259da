//! One set of keys and its task: fetched when it is due, or when a key is missing.
//!
//! In: time, and whoever misses a key. Out: the keys in their [`KeySet`], replaced as a whole; an end for all
//! that wait. Owner: [`super::Checks`]; the task ends with it. Bounds: one fetch at a time;
//! [`WAITING_MAX`] that wait. A fetch that fails leaves the keys as they are, and is told once in the log, until
//! one is taken again; a day after the last good one they are given up.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use super::fetch::{self, Fetched};
use super::schedule::{Answer, Schedule};
use crate::auth::keyset::KeySet;
use crate::tasks;
use crate::telemetry::fields::List;
use crate::telemetry::metrics::CheckCounters;

/// Most that wait for one set.
pub const WAITING_MAX: usize = 1_024;

/// See the module.
pub struct Fetcher {
    set: Arc<KeySet>,
    schedule: Mutex<Schedule>,
    /// Why the last fetch failed; `None` where it did not.
    failure: Mutex<Option<String>>,
    asked: Notify,
    /// How many fetches have ended, and whether the last was taken.
    ended: watch::Sender<(u64, bool)>,
    waiting: AtomicUsize,
    counters: Arc<CheckCounters>,
}

#[cfg(not(test))]
fn now() -> Instant {
    Instant::now()
}

/// The clock, which a test turns on.
#[cfg(test)]
fn now() -> Instant {
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
    /// Fetches a set from here on.
    #[must_use]
    pub fn start(set: Arc<KeySet>, counters: Arc<CheckCounters>) -> Followed {
        let fetcher = Arc::new(Self {
            set,
            schedule: Mutex::new(Schedule::new(now())),
            failure: Mutex::default(),
            asked: Notify::new(),
            ended: watch::channel((0, false)).0,
            waiting: AtomicUsize::new(0),
            counters,
        });
        let task = tasks::spawn("key_set", run(Arc::clone(&fetcher)));
        Followed { fetcher, task }
    }

    /// Whether it fetches this very set.
    #[must_use]
    pub fn is_of(&self, set: &Arc<KeySet>) -> bool {
        Arc::ptr_eq(&self.set, set)
    }

    /// A key is missing: waits for a fetch where one may be made. True: the set is as new as it may be,
    /// and what is missing in it does not exist. False: nobody knows. Cancel-safe.
    pub async fn ask(&self, until: tokio::time::Instant) -> bool {
        let mut ended = self.ended.subscribe();
        match self.schedule().ask(now()) {
            Answer::NotThere => return true,
            Answer::Unknown => return false,
            Answer::Wait => {}
        }
        let taken = self.waiting.fetch_add(1, Relaxed);
        let _place = Place(&self.waiting);
        if taken >= WAITING_MAX {
            return false;
        }
        self.asked.notify_one();
        let changed = tokio::time::timeout_at(until, ended.changed()).await;
        matches!(changed, Ok(Ok(()))) && ended.borrow().1
    }

    /// What is wrong with it.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        let failure = self.failure().clone()?;
        let url = &self.set.source().url;
        let schedule = self.schedule();
        let known = match schedule
            .taken_at()
            .map(|taken| now().saturating_duration_since(taken).as_secs())
        {
            None => "it was never read".to_owned(),
            Some(_) if schedule.is_stale(now()) => "its keys were given up".to_owned(),
            Some(age) => format!("its keys are {age} s old"),
        };
        Some(format!("key set {url}: {failure}; {known}"))
    }

    fn schedule(&self) -> std::sync::MutexGuard<'_, Schedule> {
        self.schedule.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failure(&self) -> std::sync::MutexGuard<'_, Option<String>> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When something is to be done next.
    fn next(&self) -> Instant {
        let schedule = self.schedule();
        let gone = schedule.stale_at().filter(|at| *at > now());
        schedule.due().min(gone.unwrap_or_else(|| schedule.due()))
    }

    async fn fetch(&self) {
        self.schedule().begin(now());
        let fetched = fetch::fetch(self.set.source()).await;
        let outcome = fetched.and_then(|fetched| self.take(&fetched));
        let is_taken = outcome.is_ok();
        match outcome {
            Ok(()) => self.tell_taken(),
            Err(why) => self.tell_failed(why),
        }
        self.ended.send_modify(|(count, last)| {
            *count += 1;
            *last = is_taken;
        });
    }

    fn take(&self, fetched: &Fetched) -> Result<(), String> {
        let parsed = self.set.parse(&fetched.bytes);
        let parsed = parsed.map_err(|error| error.to_string())?;
        let left_out: Vec<_> = parsed.left_out.iter().map(ToString::to_string).collect();
        tracing::debug!(
            event = "key_set_read",
            url = self.set.source().url,
            keys = parsed.keys.len(),
            left_out = List::of(&left_out).value(),
            "the keys of an issuer were read"
        );
        self.set.replace(Some(parsed.keys));
        self.schedule().taken(now(), fetched.max_age);
        Ok(())
    }

    fn tell_taken(&self) {
        self.counters.sets_read.add(1);
        if self.failure().take().is_some() {
            self.counters.sets_failing.sub(1);
            tracing::info!(
                event = "key_set_recovered",
                url = self.set.source().url,
                "the keys of an issuer can be read again"
            );
        }
    }

    fn tell_failed(&self, why: String) {
        self.counters.sets_refused.add(1);
        self.schedule().failed(now(), rand::random());
        if self.failure().replace(why.clone()).is_none() {
            self.counters.sets_failing.add(1);
            tracing::warn!(
                event = "key_set_refused",
                url = self.set.source().url,
                reason = why,
                "the keys of an issuer cannot be read; those that are known stay for a day"
            );
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

async fn run(fetcher: Arc<Fetcher>) {
    loop {
        let next = fetcher.next();
        // A question moves what is due.
        let _ = tokio::time::timeout_at(next.into(), fetcher.asked.notified()).await;
        if fetcher.schedule().due() <= now() {
            fetcher.fetch().await;
        }
        if fetcher.schedule().is_stale(now()) {
            fetcher.set.replace(None);
        }
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
