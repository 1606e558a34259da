//! Authorizers: backends that are asked whether a session may be, join or publish.
//!
//! In: a [`Enquiry`] for the authorizer of a name. Out: what it grants, or what the client is told: `forbidden`
//! where it says no, `unavailable` for all else. They narrow what the rules permit; only `connect` may say who
//! somebody is. Nothing is cached: each time is an enquiry of its own.
//!
//! Whoever asks waits, and nobody else: the exchange is a task of the control side, so that a worker does
//! neither TLS nor JSON of other people. An enquiry that nobody waits for any more is given up.
//!
//! Owner: the node. Bounds, for each authorizer: its `concurrency` of enquiries at once, [`WAITING_MAX`] that
//! wait for a place, with [`WAITING_BYTES_MAX`], each as long as its `timeout_ms`; then as long again for the answer, of
//! [`answer::BYTES_MAX`]. At each bound the outcome is `unavailable`. One that fails again and again is not asked
//! for a while ([`breaker`]).

pub mod answer;
pub mod breaker;
mod connections;
pub mod enquiry;
pub mod signature;

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::task::JoinHandle;

use crate::config::{Authorizer as Settings, Config};
use crate::tasks;
use crate::telemetry::authorizer_metrics::{Authorization, AuthorizerMetrics};
use crate::telemetry::counter::Counter;
use fanfare_protocol::error::WireError;

use answer::{Answer, Granted, Limits, Unusable};
use breaker::{Breaker, Pass, Turn};
use connections::{Connections, Fault};
use enquiry::Enquiry;
use signature::SigningKeys;

/// Most enquiries that wait for a place at one authorizer.
pub const WAITING_MAX: usize = 1_024;
/// Most bytes of them.
pub const WAITING_BYTES_MAX: usize = 16 * 1024 * 1024;
/// When a client is told to try again, in milliseconds.
const RETRY_MS: u64 = 1_000;
/// How often it is told in the log at the most that an authorizer fails, or lies.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// What an authorizer grants, or what the client is told.
pub type Verdict = Result<Granted, WireError>;

/// All authorizers of the configuration.
pub struct Authorizers {
    all: Vec<Arc<Authorizer>>,
    /// Where exchanges run.
    runtime: Handle,
}

/// One of them.
struct Authorizer {
    name: String,
    timeout: Duration,
    limits: Limits,
    /// What each enquiry is signed with, and its headers; replaced when the configuration is read again.
    signing: Mutex<Arc<Signing>>,
    connections: Connections,
    places: Arc<Semaphore>,
    waiting: AtomicUsize,
    waiting_bytes: AtomicUsize,
    breaker: Mutex<Breaker>,
    told: Mutex<Told>,
    /// Its enquiries without an answer that could be used.
    failures: Arc<Counter>,
    metrics: Arc<AuthorizerMetrics>,
}

struct Signing {
    keys: SigningKeys,
    headers: HeaderMap,
}

/// What of its failures was told in the log.
#[derive(Default)]
struct Told {
    failed_at: Option<Instant>,
    lied_at: Option<Instant>,
    /// Why it failed last; `None` where it did not.
    failure: Option<String>,
}

impl Authorizers {
    /// The authorizers of a configuration. Called on the runtime on which they are to be asked.
    #[must_use]
    pub fn new(config: &Config, metrics: &Arc<AuthorizerMetrics>) -> Arc<Self> {
        let names = config.authorizers.iter().map(|one| one.name.clone());
        let failures = metrics.named(names);
        let limits = Limits::from(config);
        let all = config.authorizers.iter().zip(failures);
        let all = all.map(|(settings, failures)| {
            Arc::new(Authorizer {
                name: settings.name.clone(),
                timeout: settings.timeout,
                limits: limits.clone(),
                signing: Mutex::new(Arc::new(Signing::new(settings))),
                connections: Connections::new(settings.clone()),
                places: Arc::new(Semaphore::new(settings.concurrency)),
                waiting: AtomicUsize::new(0),
                waiting_bytes: AtomicUsize::new(0),
                breaker: Mutex::default(),
                told: Mutex::default(),
                failures,
                metrics: Arc::clone(metrics),
            })
        });
        Arc::new(Self {
            all: all.collect(),
            runtime: Handle::current(),
        })
    }

    /// Signs by the secrets that a configuration has now, and sends its headers. Everything else of an
    /// authorizer is read at a start only, and so is which there are.
    pub fn take_over(&self, settings: &[Settings]) {
        for one in &self.all {
            if let Some(settings) = settings.iter().find(|known| known.name == one.name) {
                *lock(&one.signing) = Arc::new(Signing::new(settings));
            }
        }
    }

    /// Asks the authorizer of this name. Cancel-safe: the enquiry is given up.
    ///
    /// # Errors
    /// What the client is told: `forbidden` or `unavailable`.
    pub async fn ask(&self, name: &str, enquiry: Enquiry) -> Verdict {
        let Some(one) = self.all.iter().find(|one| one.name == name) else {
            // The configuration was refused where that is so; whoever is not there permits nothing.
            return Err(unavailable(
                format!("there is no authorizer `{name}`"),
                RETRY_MS,
            ));
        };
        one.suspended(lock(&one.breaker).check(Instant::now()))?;
        let Some(place) = one.place(enquiry.body.len()).await else {
            one.count(Authorization::Busy);
            let text = format!("too many enquiries wait for the authorizer `{name}`; try again");
            return Err(unavailable(text, RETRY_MS));
        };
        let (told, answer) = oneshot::channel();
        let asked = Arc::clone(one);
        let task = {
            let _entered = self.runtime.enter();
            tasks::spawn_alone("authorizer_enquiry", async move {
                let verdict = asked.asked(enquiry, place).await;
                let _ = told.send(verdict);
            })
        };
        let _given_up_with = Abandoned(task);
        answer.await.unwrap_or_else(|_| Err(one.useless()))
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.all.len()
    }

    /// Those that are not asked for a moment, and why, for those who look after the node.
    #[must_use]
    pub fn troubles(&self) -> Vec<String> {
        let open = self.all.iter().filter(|one| lock(&one.breaker).is_open());
        let troubles = open.map(|one| {
            let failure = lock(&one.told).failure.clone();
            format!("authorizer {}: {}", one.name, failure.unwrap_or_default())
        });
        troubles.collect()
    }

    /// Enquiries that wait for a place.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.all.iter().map(|one| one.waiting.load(Relaxed)).sum()
    }
}

impl std::fmt::Debug for Authorizers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<_> = self.all.iter().map(|one| &one.name).collect();
        f.debug_tuple("Authorizers").field(&names).finish()
    }
}

impl Signing {
    fn new(settings: &Settings) -> Self {
        let headers = settings.headers.iter().filter_map(|(name, value)| {
            let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
            let mut value = HeaderValue::from_str(&value.0).ok()?;
            value.set_sensitive(true);
            Some((name, value))
        });
        Self {
            keys: SigningKeys::new(&settings.secrets),
            headers: headers.collect(),
        }
    }

    fn headers(&self, body: &[u8]) -> HeaderMap {
        let id = format!("msg_{:032x}", rand::random::<u128>());
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let timestamp = now.unwrap_or_default().as_secs();
        let signature = self.keys.sign(&id, timestamp, body);
        let mut headers = self.headers.clone();
        for (name, value) in [
            ("webhook-id", id),
            ("webhook-timestamp", timestamp.to_string()),
            ("webhook-signature", signature),
        ] {
            if let Ok(value) = HeaderValue::from_str(&value) {
                headers.insert(name, value);
            }
        }
        headers
    }
}

/// A task that ends with whoever waits for it.
struct Abandoned(JoinHandle<()>);

impl Drop for Abandoned {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// One more that waits, until it does not.
struct Waiting<'a>(&'a Authorizer, usize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Relaxed);
        self.0.waiting_bytes.fetch_sub(self.1, Relaxed);
        self.0.metrics.waiting.sub(1);
    }
}

/// An enquiry that was begun: dropped without an outcome, it says nothing.
struct Begun<'a>(&'a Authorizer, Option<Pass>);

impl Begun<'_> {
    fn end(mut self, is_answered: bool) {
        if let Some(pass) = self.1.take() {
            let turn = lock(&self.0.breaker).end(pass, is_answered, Instant::now(), rand::random());
            self.0.turned(turn);
        }
    }
}

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        if let Some(pass) = self.1.take() {
            lock(&self.0.breaker).give_up(pass, Instant::now());
        }
    }
}

impl Authorizer {
    /// A place to ask; `None` where too many wait, or it took too long.
    async fn place(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        if let Ok(place) = Arc::clone(&self.places).try_acquire_owned() {
            return Some(place);
        }
        let count = self.waiting.fetch_add(1, Relaxed);
        let all_bytes = self.waiting_bytes.fetch_add(bytes, Relaxed) + bytes;
        self.metrics.waiting.add(1);
        let _waiting = Waiting(self, bytes);
        if count >= WAITING_MAX || all_bytes > WAITING_BYTES_MAX {
            return None;
        }
        let place = Arc::clone(&self.places).acquire_owned();
        tokio::time::timeout(self.timeout, place).await.ok()?.ok()
    }

    /// Asks, from a place.
    async fn asked(&self, enquiry: Enquiry, _place: OwnedSemaphorePermit) -> Verdict {
        let pass = lock(&self.breaker).begin(Instant::now());
        let begun = match pass {
            Ok(pass) => Begun(self, Some(pass)),
            Err(rest) => {
                self.suspended(Err(rest))?;
                return Err(self.useless());
            }
        };
        let began = Instant::now();
        let signing = Arc::clone(&lock(&self.signing));
        let headers = signing.headers(&enquiry.body);
        let exchange = self.connections.exchange(headers, enquiry.body.clone());
        let answered = tokio::time::timeout(self.timeout, exchange).await;
        self.metrics.time.add(began.elapsed());
        let body = match answered {
            Ok(Ok(body)) => body,
            Ok(Err(Fault::Away(why))) => {
                return Err(self.failed(begun, Authorization::Failed, why));
            }
            Ok(Err(Fault::Declined(why))) => return Err(self.declined(begun, why)),
            Err(_) => {
                let why = format!("there was no answer in {} ms", self.timeout.as_millis());
                return Err(self.failed(begun, Authorization::TimedOut, why));
            }
        };
        match answer::read(&body, &enquiry, &self.limits, SystemTime::now()) {
            Ok(answer) => {
                begun.end(true);
                lock(&self.told).failure = None;
                self.said(answer)
            }
            Err(Unusable::Garbage(why)) => Err(self.declined(begun, why.to_owned())),
            Err(Unusable::Lying(why)) => {
                // It answers, and in time. That one answer is a lie is no reason to ask it nothing else.
                begun.end(true);
                self.lied(why);
                Err(self.useless())
            }
        }
    }

    fn count(&self, result: Authorization) {
        self.metrics.results.of(result).add(1);
        if !matches!(result, Authorization::Allowed | Authorization::Denied) {
            self.failures.add(1);
        }
    }

    fn said(&self, answer: Answer) -> Verdict {
        match answer {
            Answer::Allowed(granted) => {
                self.count(Authorization::Allowed);
                Ok(*granted)
            }
            Answer::Denied(reason) => {
                self.count(Authorization::Denied);
                let name = &self.name;
                Err(WireError::forbidden(match reason {
                    Some(reason) => format!("refused by the authorizer `{name}`: {reason}"),
                    None => format!("refused by the authorizer `{name}`"),
                }))
            }
        }
    }

    fn failed(&self, begun: Begun<'_>, result: Authorization, why: String) -> WireError {
        self.tell_failed(result, why);
        begun.end(false);
        self.useless()
    }

    /// It answers, and in time. What is wrong with the answer may be the doing of who sent the enquiry, who must
    /// not be able to stop those of all others.
    fn declined(&self, begun: Begun<'_>, why: String) -> WireError {
        self.tell_failed(Authorization::Failed, why);
        begun.end(true);
        self.useless()
    }

    fn tell_failed(&self, result: Authorization, why: String) {
        self.count(result);
        let may_tell = {
            let mut told = lock(&self.told);
            told.failure = Some(why.clone());
            is_time(&mut told.failed_at)
        };
        if may_tell {
            tracing::warn!(
                event = "authorizer_failed",
                authorizer = self.name,
                reason = why,
                "an authorizer gives no answer that can be used"
            );
        }
    }

    fn lied(&self, why: &'static str) {
        self.count(Authorization::Lied);
        if is_time(&mut lock(&self.told).lied_at) {
            tracing::warn!(
                event = "authorizer_disbelieved",
                authorizer = self.name,
                reason = why,
                "an authorizer grants what it must not"
            );
        }
    }

    fn turned(&self, turn: Option<Turn>) {
        match turn {
            None => {}
            Some(Turn::Opened(rest, was_asked)) => {
                if was_asked {
                    self.metrics.suspended.add(1);
                }
                let failure = lock(&self.told).failure.clone();
                let rest_ms = u64::try_from(rest.as_millis()).unwrap_or(u64::MAX);
                tracing::warn!(
                    event = "authorizer_suspended",
                    authorizer = self.name,
                    reason = failure,
                    rest_ms,
                    "an authorizer failed too often and is not asked for a moment"
                );
            }
            Some(Turn::Closed) => {
                self.metrics.suspended.sub(1);
                tracing::info!(
                    event = "authorizer_resumed",
                    authorizer = self.name,
                    "an authorizer is asked again"
                );
            }
        }
    }

    /// Goes on where it may be asked.
    fn suspended(&self, checked: Result<(), Duration>) -> Result<(), WireError> {
        checked.map_err(|rest| {
            self.count(Authorization::Suspended);
            let name = &self.name;
            let text =
                format!("the authorizer `{name}` failed too often and is not asked for a moment");
            let rest_ms = u64::try_from(rest.as_millis()).unwrap_or(u64::MAX);
            unavailable(text, rest_ms.max(RETRY_MS))
        })
    }

    /// What a client is told where there is no answer that could be used.
    fn useless(&self) -> WireError {
        let name = &self.name;
        let text = format!("the authorizer `{name}` gave no answer that can be used; try again");
        unavailable(text, RETRY_MS)
    }
}

/// Whether it is time for a line of this kind; then it was told now.
fn is_time(told: &mut Option<Instant>) -> bool {
    let is_time = told.is_none_or(|at| at.elapsed() >= TELL_EVERY);
    if is_time {
        *told = Some(Instant::now());
    }
    is_time
}

fn unavailable(text: String, retry_after_ms: u64) -> WireError {
    WireError {
        retry_after_ms: Some(retry_after_ms),
        ..WireError::unavailable(text)
    }
}

/// Where a holder of a lock panicked, nothing was half done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
