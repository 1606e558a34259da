//! What a node knows of revocations, for all who use tokens: the handle.
//!
//! In: pages that the runner read. Out: a judgement of a token; which sessions are to look at theirs;
//! how far this node has read, and how far its workers were told. The table lies under a lock that is
//! held for one judgement or one page. A node that could not read for so long that others may call it
//! dead takes no token: it may have missed a revocation that was promised to hold everywhere. So may one
//! that has not read since it became a member. What sessions send then waits for a reading, [`HELD_MAX`] at most.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};

use super::KEPT_BEYOND_MS;
use super::adding::Asked;
use super::news::News;
use super::own::Own;
use super::planted;
use super::reader::{CHANGES_MAX, Next, Page, Reader};
use super::table::{Bearer, Table};
use crate::telemetry::revocation_metrics::RevocationMetrics;

/// A node that could not read for so long takes no token, or for a shorter time where leases are
/// short.
pub const STALE_AFTER_MAX: Duration = Duration::from_secs(5);

/// The longest that anything is held back until revocations were read: their master may be away while
/// others work.
pub const HELD_MAX: Duration = Duration::from_secs(1);

/// Workers are told of each reading within a tenth of a second, and there are two a second. Where the last
/// that they know of was begun longer ago, what was read since may concern a session that knows nothing of it.
const TOLD_WITHIN: Duration = Duration::from_secs(1);

/// How a token stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Judgement {
    /// It is not revoked.
    Valid,
    /// It is.
    Revoked,
    /// Nobody can say: revocations could not be read.
    Unread,
}

/// See the module. Cheap to clone; by default that of a node which knows of none and needs to read
/// none.
#[derive(Debug, Clone, Default)]
pub struct Revocations {
    shared: Arc<Shared>,
    metrics: Arc<RevocationMetrics>,
}

#[derive(Debug, Default)]
struct Shared {
    table: RwLock<Table>,
    /// After how long without a reading no token is taken; `None`: there is nobody else to read of.
    stale_after: Option<Duration>,
    /// When the last reading was begun that came to its end.
    read_at: Mutex<Option<Instant>>,
    /// When this node became a member, under its present incarnation.
    joined_at: Mutex<Option<Instant>>,
    /// Since when the store says that it has something else than this node, though everything was
    /// read.
    differs_since: Mutex<Option<Instant>>,
    /// How long a token may live, in milliseconds.
    token_life_ms: AtomicU64,
    /// How far ahead it may have been issued, in seconds.
    leeway_s: AtomicU64,
    news: Mutex<News>,
    /// Changes of the present history, read while table and store agreed, in their order.
    changes: Mutex<VecDeque<u64>>,
    /// Up to which change this node says that it has read.
    read_to: AtomicU64,
    /// The first reading was waited for long enough.
    is_waited_for: AtomicBool,
    /// Counts the readings, and the end of waiting for the first.
    readings: watch::Sender<u64>,
    /// When the last reading was begun whose news all workers have.
    told: watch::Sender<Option<Instant>>,
    /// Somebody waits for [`Shared::told`].
    is_awaited: AtomicBool,
    held: Mutex<Holding>,
    own: Mutex<Own>,
    /// Before this nothing that sessions send is held back, unless somebody waits: milliseconds after
    /// [`ORIGIN`].
    fresh_to_ms: AtomicU64,
    /// Before this sessions know what was read, as numbers of the same kind.
    told_to_ms: AtomicU64,
    doorbell: Notify,
}

/// Instants as numbers count from here.
static ORIGIN: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Since when what sessions send is held back, and why.
#[derive(Debug, Default)]
struct Holding {
    /// A feed was down and brings something again.
    after_break: Option<Instant>,
    /// Nothing was read for too long, and nothing was read since.
    unread: Option<Instant>,
}

impl Revocations {
    /// Those of a node in a cluster with leases of this length.
    #[must_use]
    pub fn clustered(lease: Duration) -> Self {
        // A node without a heartbeat for a lease is dead to the others, who then promise without it.
        // It has sent its last one up to a fifth of a lease after its last reading.
        let stale_after = STALE_AFTER_MAX.min(lease * 4 / 5);
        Self {
            shared: Arc::new(Shared {
                stale_after: Some(stale_after),
                ..Shared::default()
            }),
            metrics: Arc::default(),
        }
    }

    /// The same, counting here.
    #[must_use]
    pub fn counting(mut self, metrics: Arc<RevocationMetrics>) -> Self {
        self.metrics = metrics;
        self
    }

    /// Where sessions count what they lost.
    #[must_use]
    pub fn metrics(&self) -> &RevocationMetrics {
        &self.metrics
    }

    /// Judges a token that is used now.
    #[must_use]
    pub fn judge(&self, bearer: Bearer<'_>) -> Judgement {
        if self.refuses(bearer) {
            Judgement::Revoked
        } else if self.unread().is_some() {
            Judgement::Unread
        } else {
            Judgement::Valid
        }
    }

    /// Whether a token is revoked, as far as this node knows.
    #[must_use]
    pub fn refuses(&self, bearer: Bearer<'_>) -> bool {
        let table = self.shared.table.read();
        table
            .unwrap_or_else(PoisonError::into_inner)
            .refuses(bearer)
    }

    /// Why no token is taken, for people; `None`: tokens are taken.
    #[must_use]
    pub fn unread(&self) -> Option<&'static str> {
        let stale_after = self.shared.stale_after?;
        let read_at = *lock(&self.shared.read_at);
        let joined_at = *lock(&self.shared.joined_at);
        match read_at.filter(|at| joined_at.is_none_or(|joined| *at >= joined)) {
            Some(at) if at.elapsed() < stale_after => None,
            Some(_) => Some("revocations could not be read for too long, so no token is taken"),
            None => Some("revocations were not read yet, so no token is taken"),
        }
    }

    /// This node has become a member just now: what it read before may lack what others promised
    /// without it. Asks for a reading.
    pub fn joined(&self) {
        let mut joined_at = lock(&self.shared.joined_at);
        *joined_at = Some(Instant::now());
        self.shared.fresh_to_ms.store(0, Ordering::Release);
        drop(joined_at);
        self.ring();
    }

    /// Whether they lie in a store that other nodes use too.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.shared.stale_after.is_some()
    }

    /// How long a token may live, in any app. From now on entries are kept for as long; those that are
    /// there are lengthened, never shortened. Before it is set: no time, and entries are kept for
    /// [`KEPT_BEYOND_MS`].
    pub fn set_token_life(&self, life: Duration) {
        let life_ms = u64::try_from(life.as_millis()).unwrap_or(u64::MAX);
        self.shared.token_life_ms.store(life_ms, Ordering::Release);
        self.ring();
    }

    /// How far ahead of its use a token may have been issued, in any app.
    pub fn set_leeway(&self, leeway: Duration) {
        self.shared
            .leeway_s
            .store(leeway.as_secs(), Ordering::Release);
    }

    /// The same in seconds, as it was set last; before that 0.
    #[must_use]
    pub fn leeway_s(&self) -> u64 {
        self.shared.leeway_s.load(Ordering::Acquire)
    }

    /// As it was set last.
    #[must_use]
    pub fn token_life(&self) -> Duration {
        Duration::from_millis(self.shared.token_life_ms.load(Ordering::Acquire))
    }

    /// How long an entry is kept, in milliseconds.
    #[must_use]
    pub fn kept_ms(&self) -> u64 {
        let life_ms = self.shared.token_life_ms.load(Ordering::Acquire);
        life_ms.saturating_add(KEPT_BEYOND_MS)
    }

    /// Whether the first reading is still to be waited for before the node is ready.
    #[must_use]
    pub fn is_new(&self) -> bool {
        let is_waited_for = self.shared.is_waited_for.load(Ordering::Acquire);
        self.is_shared() && !is_waited_for
    }

    /// The first reading was waited for long enough: where its master of Redis is away the node gets
    /// ready without, and takes no token.
    pub(super) fn wait_no_longer(&self) {
        self.shared.is_waited_for.store(true, Ordering::Release);
        self.shared.readings.send_modify(|count| *count += 1);
    }

    /// How long ago the last reading was begun; `None`: there was none, or none is needed.
    #[must_use]
    pub fn age(&self) -> Option<Duration> {
        self.shared.stale_after?;
        lock(&self.shared.read_at).map(|at| at.elapsed())
    }

    /// For how long the store has had something else than this node, though everything was read.
    #[must_use]
    pub fn differs_for(&self) -> Option<Duration> {
        lock(&self.shared.differs_since).map(|since| since.elapsed())
    }

    /// How many entries there are, and about how many bytes they take up.
    #[must_use]
    pub fn size(&self) -> (usize, usize) {
        let table = self.shared.table.read();
        let table = table.unwrap_or_else(PoisonError::into_inner);
        (table.len(), table.bytes())
    }

    /// Something was added to the store: read it now.
    pub fn ring(&self) {
        self.shared.doorbell.notify_one();
    }

    /// Somebody here waits for a reading.
    fn ask(&self) {
        if planted::polls() {
            self.ring();
        }
    }

    /// The store has taken these of this node, all of them before this second.
    pub fn stored(&self, names: &[Box<str>], issued_before: u64) {
        if self.is_shared() {
            lock(&self.shared.own).add(names, issued_before, Instant::now());
        }
    }

    /// What this node had stored and the last reading did not bring.
    pub(super) fn lacking(&self) -> Vec<Asked> {
        let mut own = lock(&self.shared.own);
        let Some(read_at) = self.read_at().filter(|_| !own.is_empty()) else {
            return Vec::new();
        };
        let table = self.shared.table.read();
        let table = table.unwrap_or_else(PoisonError::into_inner);
        own.read(read_at, |asked| {
            let issued_before = asked.issued_before.unwrap_or(u64::MAX);
            table.changed_at(&asked.name, issued_before).is_some()
        })
    }

    /// Another node rang.
    pub fn hear(&self) {
        if !planted::is_deaf() {
            self.ring();
        }
    }

    /// Returns when it was rung. Cancel-safe.
    pub async fn rung(&self) {
        self.shared.doorbell.notified().await;
    }

    /// When the last reading was begun whose news all workers have; told whenever there is a later one.
    #[must_use]
    pub fn told(&self) -> watch::Receiver<Option<Instant>> {
        self.shared.told.subscribe()
    }

    /// Somebody waits since then for what is read from then on to be told, or nobody any more. Asks for
    /// a reading.
    pub fn await_told(&self, since: Option<Instant>) {
        lock(&self.shared.held).after_break = since;
        let is_awaited = since.is_some();
        self.shared.is_awaited.store(is_awaited, Ordering::Release);
        if is_awaited {
            self.ask();
        }
    }

    /// Whether sessions know of what was read lately. Where not, as after a node stood still, who sends
    /// something is judged before. HOT: one load.
    #[must_use]
    pub fn is_told(&self, now: Instant) -> bool {
        let told_to_ms = self.shared.told_to_ms.load(Ordering::Acquire);
        self.shared.stale_after.is_none() || ms_of(now) < told_to_ms
    }

    /// Since when what sessions with a token send is held back; `None`: it is not. It is after a break, and
    /// where nothing was read for too long, until a reading that was begun since then has come to its end,
    /// and for [`HELD_MAX`] at the most. HOT: two loads where nothing is held.
    #[must_use]
    pub fn holds(&self, now: Instant) -> Option<Instant> {
        self.shared.stale_after?;
        let fresh_to_ms = self.shared.fresh_to_ms.load(Ordering::Acquire);
        if !self.is_awaited() && ms_of(now) < fresh_to_ms {
            return None;
        }
        let (is_unread, read_at) = (self.unread().is_some(), self.read_at());
        let mut held = lock(&self.shared.held);
        if is_unread && held.unread.is_none() {
            self.ask();
        }
        held.unread = is_unread.then(|| held.unread.unwrap_or(now));
        let since = held.after_break.max(held.unread)?;
        (now < since + HELD_MAX && read_at.is_none_or(|at| at < since)).then_some(since)
    }

    /// Returns when what is held back since then may go on. Cancel-safe.
    pub async fn released(&self, since: Instant) {
        let mut readings = self.readings();
        let read = async {
            while self.read_at().is_none_or(|at| at < since) {
                // It ends with `self` only.
                let _ = readings.changed().await;
            }
        };
        let _ = tokio::time::timeout_at((since + HELD_MAX).into(), read).await;
    }

    /// Whether somebody waits for that.
    #[must_use]
    pub fn is_awaited(&self) -> bool {
        self.shared.is_awaited.load(Ordering::Acquire)
    }

    /// When the last reading was begun: asked for before [`Self::take_news`], which then has all of it.
    #[must_use]
    pub fn read_at(&self) -> Option<Instant> {
        *lock(&self.shared.read_at)
    }

    /// The workers have the news of all readings up to the one that was begun then.
    pub fn tell(&self, read_at: Option<Instant>) {
        self.shared.told.send_if_modified(|told| {
            let is_later = read_at > *told;
            *told = read_at.max(*told);
            let told_to_ms = told.map_or(0, |at| ms_of(at + TOLD_WITHIN));
            self.shared.told_to_ms.store(told_to_ms, Ordering::Release);
            is_later
        });
    }

    /// Which sessions are to look at their tokens since this was asked last.
    #[must_use]
    pub fn take_news(&self) -> News {
        std::mem::take(&mut *lock(&self.shared.news))
    }

    /// Up to which change this node has read; 0: none, or it does not know.
    #[must_use]
    pub fn read_to(&self) -> u64 {
        self.shared.read_to.load(Ordering::Acquire)
    }

    /// Told whenever a reading has come to its end.
    #[must_use]
    pub fn readings(&self) -> watch::Receiver<u64> {
        self.shared.readings.subscribe()
    }

    /// Whether a node that says it has read to this change has the entries of these names as this node
    /// has them, and this node has them as strong as this: the change is of the present history, and
    /// none of theirs came after it.
    #[must_use]
    pub fn covers(&self, read_to: u64, names: &[Box<str>], issued_before: u64) -> bool {
        let table = self.shared.table.read();
        let table = table.unwrap_or_else(PoisonError::into_inner);
        let changed_at = |name: &str| table.changed_at(name, issued_before);
        let has = |name: &str| changed_at(name).is_some_and(|at| at <= read_to);
        let is_known = lock(&self.shared.changes).contains(&read_to);
        is_known && names.iter().all(|name| has(name))
    }

    /// Takes a page into the table.
    pub(super) fn take(&self, page: &Page, reader: &mut Reader) -> Next {
        let mut news = News::default();
        let table = self.shared.table.write();
        let mut table = table.unwrap_or_else(PoisonError::into_inner);
        let next = reader.take(page, &mut table, &mut news);
        // Under the lock of the table: who compares must not see one without the other.
        let mut changes = lock(&self.shared.changes);
        if reader.read_to().is_none() {
            // What was read so far may be of a history that is lost.
            changes.clear();
        } else if next == Next::Settled {
            changes.extend(reader.take_changes());
            let surplus = changes.len().saturating_sub(CHANGES_MAX);
            changes.drain(..surplus);
        }
        drop((changes, table));
        lock(&self.shared.news).merge(news);
        next
    }

    /// How often is read though nothing rings: every `most`, or several times before no token is
    /// taken, where leases are short.
    pub(super) fn read_every(&self, most: Duration) -> Duration {
        let stale_after = self.shared.stale_after;
        stale_after.map_or(most, |stale_after| most.min(stale_after / 6))
    }

    /// The store has gone through everything: it is read once more.
    pub(super) fn mended(&self, reader: &mut Reader) -> Next {
        let table = self.shared.table.write();
        reader.mended(&mut table.unwrap_or_else(PoisonError::into_inner))
    }

    /// A reading that was begun then has come to its end.
    pub(crate) fn settled(&self, begun_at: Instant, reader: &Reader) {
        self.was_read(begun_at);
        if lock(&self.shared.joined_at).is_some_and(|joined| begun_at >= joined) {
            self.shared.is_waited_for.store(true, Ordering::Release);
        }
        let mut differs_since = lock(&self.shared.differs_since);
        let since = differs_since.unwrap_or(begun_at);
        *differs_since = reader.read_to().is_none().then_some(since);
        drop(differs_since);
        if let Some(read_to) = reader.read_to() {
            self.shared.read_to.store(read_to, Ordering::Release);
        }
        self.shared.readings.send_modify(|count| *count += 1);
    }

    fn was_read(&self, begun_at: Instant) {
        *lock(&self.shared.read_at) = Some(begun_at);
        lock(&self.shared.held).unread = None;
        let joined_at = lock(&self.shared.joined_at);
        if let Some(stale_after) = self.shared.stale_after
            && joined_at.is_none_or(|joined| begun_at >= joined)
        {
            let fresh_to_ms = ms_of(begun_at + stale_after);
            let fresh = &self.shared.fresh_to_ms;
            fresh.store(fresh_to_ms, Ordering::Release);
        }
    }
}

fn ms_of(instant: Instant) -> u64 {
    let since = instant.saturating_duration_since(*ORIGIN);
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

mod meanwhile;
#[cfg(test)]
mod tests;
