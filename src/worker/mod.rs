//! A worker: one thread that owns sockets, outboxes and the hub, and shares nothing.
//!
//! In: [`handle::Inbound`] from the dispatcher (see [`turn`]); joins, replies and pages from the
//! sessions on the same thread. Out: one vectored write per dirty socket at the end of a turn; a
//! wake-up for a session that must do something itself. Owner of: every session's socket for
//! writing, its outbox, its memberships and modes; the timer wheel; the window of recent
//! publications. Bounds: the inbound queue, each outbox (see [`overflow`] for what happens at its
//! bound), the window. Does not: understand commands, know users or tokens, or wait for anything.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use slotmap::SlotMap;
use tokio::sync::{Notify, oneshot};

use crate::broker::interest::Interest;
use crate::revocation::news::Marks;
use crate::telemetry::metrics::WorkerMetrics;
use fanfare_protocol::close::CloseReason;
use fanfare_protocol::event::Event;
use fanfare_protocol::form::WireForm;
use fanfare_protocol::ids::{SessionId, Topic, TopicKind};

pub mod batch_told;
#[cfg(test)]
pub(crate) mod by_hand;
pub mod catchup;
mod delay;
mod disconnects;
mod encode;
pub mod handle;
pub mod hub;
mod lead;
mod limit;
pub mod outbox;
pub mod outgoing;
mod overflow;
mod rebalance_out;
pub mod recent;
mod revoked;
mod slot;
pub mod stream;
mod traced;
pub mod turn;
mod waiting;
pub mod wheel;

use batch_told::BatchTold;
use disconnects::Disconnects;
use hub::{Hub, SessionKey, TopicKey};
use lead::Leads;
use outbox::{Bound, LanePool, Outbox, Waiting};
use recent::Recent;
pub use slot::SessionSignals;
use slot::SessionSlot;
use stream::Stream;
use wheel::Wheel;

/// The workers' wishes to the dispatcher: worker index and topic.
pub type WorkerInterest = Interest<(usize, Topic)>;

/// How a join stands.
#[derive(Debug)]
pub enum Join {
    /// The topic is live here.
    Live,
    /// The receiver is told when it is. It errs when the session left before.
    Waiting(oneshot::Receiver<()>),
}

struct State {
    sessions: SlotMap<SessionKey, SessionSlot>,
    hub: Hub,
    wheel: Wheel<SessionKey>,
    /// Sockets that something waits for.
    dirty: Vec<SessionKey>,
    /// Sessions whose outbox had no room for the delivery at hand.
    crowded: Vec<SessionKey>,
    spares: LanePool,
    recent: Recent,
    leads: Leads,
    disconnects: Disconnects,
    /// Those who were told to go last.
    batch: Option<Arc<BatchTold>>,
    /// Failovers of topics so far.
    failovers: u64,
    draining: bool,
}

/// See the module. Its methods borrow its state for their own length only, so sessions call them
/// freely between awaits.
pub struct Worker {
    index: usize,
    bound: Bound,
    interest: Arc<WorkerInterest>,
    metrics: Arc<WorkerMetrics>,
    /// Tells the turns that there is a session, where there was none.
    inhabited: Notify,
    /// See [`Self::awake_since`].
    awake_since: Cell<Instant>,
    state: RefCell<State>,
}

impl Worker {
    /// A worker without sessions. `bound` is that of each outbox, `recent_bytes_max` that of the
    /// window of recent publications.
    #[must_use]
    pub fn new(
        index: usize,
        bound: Bound,
        recent_bytes_max: usize,
        interest: Arc<WorkerInterest>,
        metrics: Arc<WorkerMetrics>,
    ) -> Rc<Self> {
        Rc::new(Self {
            index,
            bound,
            interest,
            metrics,
            inhabited: Notify::new(),
            awake_since: Cell::new(Instant::now()),
            state: RefCell::new(State {
                sessions: SlotMap::default(),
                hub: Hub::default(),
                wheel: Wheel::new(Instant::now()),
                dirty: Vec::new(),
                crowded: Vec::new(),
                spares: LanePool::default(),
                recent: Recent::new(recent_bytes_max),
                leads: Leads::default(),
                disconnects: Disconnects::default(),
                batch: None,
                failovers: 0,
                draining: false,
            }),
        })
    }

    /// What this worker counts.
    #[must_use]
    pub fn metrics(&self) -> &WorkerMetrics {
        &self.metrics
    }

    /// Takes over the writing side of a session's socket.
    pub fn add(&self, id: SessionId, form: WireForm, stream: Rc<Stream>) -> SessionKey {
        let state = &mut *self.state.borrow_mut();
        let notices = SessionSignals {
            drain: state.draining,
            ..SessionSignals::default()
        };
        let key = state.sessions.insert(SessionSlot {
            id,
            number: self.metrics.counters.sessions_opened.get(),
            form,
            stream,
            outbox: Outbox::new(form),
            references: Vec::new(),
            catching_up: false,
            next_pull: 0,
            pulls: 0,
            written_bytes: 0,
            waker: None,
            notices,
            dirty: false,
            blocked: false,
            is_told_to_move: false,
            marks: Marks::default(),
        });
        self.metrics.counters.sessions_opened.add_owned(1);
        self.metrics
            .counters
            .sessions
            .set(state.sessions.len() as u64);
        if state.sessions.len() == 1 {
            self.inhabited.notify_one();
        }
        key
    }

    /// Forgets a session: its memberships, its outbox, its socket.
    pub fn remove(&self, key: SessionKey) {
        self.leave_all(key);
        let state = &mut *self.state.borrow_mut();
        if let Some(removed) = state.sessions.remove(key) {
            let counters = &self.metrics.counters;
            let gauges = [
                (removed.is_told_to_move, &counters.rebalancing),
                (removed.blocked, &counters.slow),
            ];
            for (_, gauge) in gauges.into_iter().filter(|(was_in_it, _)| *was_in_it) {
                gauge.set(gauge.get().saturating_sub(1));
            }
        }
        self.metrics
            .counters
            .sessions
            .set(state.sessions.len() as u64);
    }

    /// Ends all memberships of a session. What waits in its outbox is still sent.
    pub fn leave_all(&self, key: SessionKey) {
        let state = &mut *self.state.borrow_mut();
        while let Some(reference) = state.sessions.get(key).and_then(|e| e.references.last()) {
            let topic_key = reference.topic;
            self.end_membership(state, key, topic_key);
        }
    }

    /// Drops what waits for a socket that takes nothing, so that a close frame can follow what
    /// is partly written. Counted as dropped.
    pub fn drop_backlog(&self, key: SessionKey) {
        if let Some(entry) = self.state.borrow_mut().sessions.get_mut(key) {
            let dropped = entry.outbox.drop_unsent();
            self.metrics.counters.dropped_slow.add_owned(dropped);
        }
    }

    /// How many failovers of topics this worker was told of so far. What was read before one may
    /// be void.
    #[must_use]
    pub fn failovers(&self) -> u64 {
        self.state.borrow().failovers
    }

    /// Sessions on this worker now.
    #[must_use]
    pub fn sessions_count(&self) -> usize {
        self.state.borrow().sessions.len()
    }

    /// What the session must look at; registers the task to be woken when there is something.
    pub fn poll_notices(&self, key: SessionKey, cx: &mut Context<'_>) -> Poll<SessionSignals> {
        let state = &mut *self.state.borrow_mut();
        let Some(entry) = state.sessions.get_mut(key) else {
            return Poll::Pending;
        };
        if entry.notices != SessionSignals::default() {
            return Poll::Ready(std::mem::take(&mut entry.notices));
        }
        if !entry
            .waker
            .as_ref()
            .is_some_and(|w| w.will_wake(cx.waker()))
        {
            entry.waker = Some(cx.waker().clone());
        }
        Poll::Pending
    }

    /// Since when this thread has run without a stall ([`turn::STALL_MIN`]): what a client sent in
    /// one may not have been read yet.
    #[must_use]
    pub fn awake_since(&self) -> Instant {
        self.awake_since.get()
    }

    /// Asks to be looked at ([`SessionSignals::due`]) at about `at`.
    pub fn schedule(&self, key: SessionKey, at: Instant) {
        self.state.borrow_mut().wheel.schedule(key, at);
    }

    /// Makes the session a member of a topic in [`hub::Mode::Starting`], unless it is one already.
    pub fn join(&self, key: SessionKey, topic: &Topic, has_history: bool) -> Join {
        let (sender, receiver) = oneshot::channel();
        let state = &mut *self.state.borrow_mut();
        let Some(entry) = state.sessions.get_mut(key) else {
            return Join::Waiting(receiver);
        };
        let is_member = |t: &TopicKey| entry.references.iter().any(|r| r.topic == *t);
        let topic_key = match state.hub.find(topic).filter(is_member) {
            Some(topic_key) => topic_key,
            None => {
                let references = &mut entry.references;
                let (topic_key, new) = state.hub.join(topic, has_history, key, references);
                self.count_subscriptions(1);
                if let Some(batch) = state
                    .batch
                    .as_ref()
                    .filter(|_| topic.kind() == TopicKind::Inbox)
                {
                    batch.joined(topic);
                }
                if new && let Some(joined) = state.hub.get_mut(topic_key) {
                    let wish = self.interest.want((self.index, topic.clone()));
                    joined.wish = Some(wish);
                }
                topic_key
            }
        };
        let joined = state.hub.get_mut(topic_key).expect("a member's topic");
        if let Some(last) = joined.last {
            state.leads.begin(key, topic_key, last);
            return Join::Live;
        }
        if joined.waiting.len() == joined.waiting.capacity() {
            // Before it grows: those who wait no more.
            joined.waiting.retain(|waiting| !waiting.is_closed());
        }
        joined.waiting.push(sender);
        Join::Waiting(receiver)
    }

    /// Ends a membership. Nothing more of the topic is sent, unless a part of it is on the wire.
    pub fn leave(&self, key: SessionKey, topic: &Topic) {
        let state = &mut *self.state.borrow_mut();
        if let Some(topic_key) = state.hub.find(topic)
            && self.end_membership(state, key, topic_key)
        {
            state.sessions[key].outbox.forget(topic_key);
        }
    }

    /// Returns whether there was one.
    fn end_membership(&self, state: &mut State, key: SessionKey, topic_key: TopicKey) -> bool {
        let Some(entry) = state.sessions.get_mut(key) else {
            return false;
        };
        let Some(at) = entry.references.iter().position(|r| r.topic == topic_key) else {
            return false;
        };
        state.leads.forget(key, topic_key);
        let (left, emptied) = state.hub.leave(&mut entry.references, at);
        if let Some(moved) = left.moved_session() {
            left.settle(&mut state.sessions[moved].references);
        }
        self.count_subscriptions(-1);
        if let Some(topic) = emptied {
            self.interest.unwant((self.index, topic));
        }
        true
    }

    /// Queues an event as a reply: an answer, a notice to the session itself.
    pub fn reply(&self, key: SessionKey, event: &Event) {
        let form = match self.state.borrow().sessions.get(key) {
            Some(entry) => entry.form,
            None => return,
        };
        self.push(key, encode::frame(form, event));
    }

    /// Queues a complete frame among the replies. It leaves with the next [`Self::flush`].
    pub fn push(&self, key: SessionKey, frame: Bytes) {
        let state = &mut *self.state.borrow_mut();
        if let Some(entry) = state.sessions.get_mut(key) {
            entry.outbox.push_reply(frame, &mut state.spares);
        }
    }

    /// Queues the last frame: it leaves behind everything that waits.
    pub fn push_last(&self, key: SessionKey, frame: Bytes) {
        let state = &mut *self.state.borrow_mut();
        if let Some(entry) = state.sessions.get_mut(key) {
            entry.outbox.push_last(frame, &mut state.spares);
        }
    }

    /// Queues an event in the order of its topic; without a membership, among the replies.
    pub fn notice(&self, key: SessionKey, topic: &Topic, event: &Event) {
        let state = &mut *self.state.borrow_mut();
        let Some(entry) = state.sessions.get_mut(key) else {
            return;
        };
        let frame = encode::frame(entry.form, event);
        match state.hub.find(topic) {
            Some(topic) => entry.outbox.push_notice(topic, frame, &mut state.spares),
            None => entry.outbox.push_reply(frame, &mut state.spares),
        }
    }

    /// How many replies wait for the session's socket.
    #[must_use]
    pub fn replies(&self, key: SessionKey) -> Waiting {
        let state = self.state.borrow();
        let entry = state.sessions.get(key);
        entry.map_or(Waiting::default(), |e| e.outbox.replies())
    }

    /// Bytes that the session's socket has taken since it was opened.
    #[must_use]
    pub fn written_bytes(&self, key: SessionKey) -> u64 {
        let state = self.state.borrow();
        state.sessions.get(key).map_or(0, |e| e.written_bytes)
    }

    /// Whether nothing waits for the session's socket.
    #[must_use]
    pub fn is_flushed(&self, key: SessionKey) -> bool {
        let state = self.state.borrow();
        state.sessions.get(key).is_none_or(|e| e.outbox.is_empty())
    }

    /// Whether the session waits for its socket to become writable.
    #[must_use]
    pub fn is_blocked(&self, key: SessionKey) -> bool {
        self.state
            .borrow()
            .sessions
            .get(key)
            .is_some_and(|e| e.blocked)
    }

    /// Writes what waits for the session's socket, as much as it takes now.
    pub fn flush(&self, key: SessionKey) {
        let state = &mut *self.state.borrow_mut();
        if let Some(entry) = state.sessions.get_mut(key) {
            if std::mem::take(&mut entry.blocked) {
                let slow = &self.metrics.counters.slow;
                slow.set(slow.get().saturating_sub(1));
            }
            self.write(entry, &mut state.spares);
        }
    }

    /// HOT: one vectored write per dirty socket and turn; no allocation, no lock.
    fn write(&self, entry: &mut SessionSlot, spares: &mut LanePool) {
        if entry.blocked || entry.outbox.is_empty() {
            return;
        }
        let stream = &entry.stream;
        let written = entry.outbox.write(spares, |slices| match slices {
            [one] => stream.send(one),
            several => stream.try_write_vectored(several),
        });
        match written {
            Ok(written) => {
                let counters = &self.metrics.counters;
                counters.frames_written.add_owned(written.frames);
                counters.bytes_written.add_owned(written.bytes);
                counters.writes.add_owned(written.calls);
                counters.gaps_told.add_owned(written.gaps);
                entry.written_bytes += written.bytes;
                if written.blocked {
                    // The session's task waits for the socket and flushes again.
                    entry.blocked = true;
                    counters.slow.add_owned(1);
                    entry.notify(|_| {});
                } else if entry.catching_up {
                    entry.notify(|n| n.room = true);
                }
            }
            Err(_) => entry.end(CloseReason::Lost),
        }
    }

    fn count_subscriptions(&self, change: i64) {
        let gauge = &self.metrics.counters.subscriptions;
        gauge.set(gauge.get().wrapping_add_signed(change));
    }
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker")
            .field("index", &self.index)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
