//! The worker's turn: take what is queued, push it to outboxes, write once per dirty socket.
//!
//! In: the inbound queue and the timer wheel. Out: frames in outboxes and one write for each
//! socket that got some. Coalescing grows by itself: the more has queued up since the last turn,
//! the more leaves with one write; when idle a message is written at once. Bounds: [`PUSHES_MAX`]
//! deliveries a turn, [`WRITES_MAX`] sockets before other tasks of the thread run. Deliveries of
//! one topic keep their order because the queue does.

use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::delay::Delay;
use super::encode::FramesOf;
use super::handle::Inbound;
use super::hub::{Mode, SessionKey, TopicKey};
use super::lead::fail_over;
use super::outgoing::{self, Outgoing};
use super::traced::TracedTurn;
use super::{State, Worker, wheel};
use crate::broker::interest::WishNumber;
use crate::lifecycle::{Lifecycle, LifecycleReceiver};
use crate::tasks::turns::{self, Stamp};
use crate::telemetry::metrics::{Counter, WorkerCounters};
use fanfare_protocol::close::CloseReason;
use fanfare_protocol::event::{Event, Gap, GapReason};
use fanfare_protocol::ids::{Position, Priority, SessionId, Topic};

/// How often a worker without sessions looks at the time.
const IDLE_TICK: Duration = turns::IDLE_TURN;
/// The thread did not run for so long, which is no silence of its clients: the process or its machine
/// was paused, or had far too much to do.
pub const STALL_MIN: Duration = Duration::from_secs(1);
/// Messages taken from the queue at once.
const BATCH_MAX: usize = 256;
/// Deliveries pushed to outboxes before they are written: what is merged into one write at the
/// most, and a few milliseconds of work.
const PUSHES_MAX: u64 = 65_536;
/// Sockets written before reads and timers have their turn.
const WRITES_MAX: usize = 512;

impl Worker {
    /// Takes turns until the process is closing and the last session has ended.
    pub async fn run(
        self: Rc<Self>,
        mut inbound: mpsc::Receiver<Inbound>,
        mut lifecycle: LifecycleReceiver,
    ) {
        let mut batch = Vec::with_capacity(BATCH_MAX);
        let mut tick = pin!(tokio::time::sleep(wheel::TICK));
        let stamp = turns::stamp(format!("worker {}", self.index));
        loop {
            stamp.turned();
            tokio::select! {
                count = inbound.recv_many(&mut batch, BATCH_MAX) => {
                    if count == 0 {
                        return;
                    }
                    self.take_turns(&mut batch, &stamp).await;
                }
                () = &mut tick => {
                    let now = Instant::now();
                    if now.saturating_duration_since(tick.deadline().into_std()) >= STALL_MIN {
                        self.awake_since.set(now);
                    }
                    self.tick(now);
                    let next = match self.sessions_count() {
                        0 => IDLE_TICK,
                        _ => wheel::TICK,
                    };
                    tick.as_mut().reset((now + next).into());
                }
                () = self.inhabited.notified() => {
                    // Only brought forward: short sessions, one at a time, would push it away for ever.
                    let soon = (Instant::now() + wheel::TICK).into();
                    if soon < tick.deadline() {
                        tick.as_mut().reset(soon);
                    }
                }
                _ = lifecycle.changed() => self.lifecycle_changed(*lifecycle.borrow_and_update()),
            }
            if *lifecycle.borrow() >= Lifecycle::Closing && self.sessions_count() == 0 {
                return;
            }
        }
    }

    /// Handles a batch in as many turns as it takes; others of the thread run in between.
    async fn take_turns(&self, batch: &mut Vec<Inbound>, stamp: &Stamp) {
        let counters = &self.metrics.counters;
        let mut batch = batch.drain(..);
        while batch.len() > 0 {
            let waiting = batch.len();
            let (mut delay, mut bytes) = (Delay::default(), 0);
            let mut traced = TracedTurn::default();
            let begun = counters.deliveries.get();
            while counters.deliveries.get() - begun < PUSHES_MAX
                && let Some(message) = batch.next()
            {
                delay.note(&message);
                bytes += message.bytes_count();
                let (before, delivery) = (counters.deliveries.get(), TracedTurn::of(&message));
                let is_news = matches!(message, Inbound::Revoked(_));
                self.handle(message);
                if let Some(delivery) = delivery.filter(|_| counters.deliveries.get() > before) {
                    traced.reached(delivery);
                }
                if is_news {
                    // Sessions look at their tokens before anything that stands behind is theirs.
                    break;
                }
            }
            if !traced.is_empty() {
                self.write_timed(traced, WRITES_MAX, stamp).await;
            }
            while !self.flush_dirty(WRITES_MAX) {
                stamp.turned();
                tokio::task::yield_now().await;
            }
            delay.tell(&self.metrics);
            self.metrics.done((waiting - batch.len()) as u64, bytes);
            stamp.turned();
            tokio::task::yield_now().await;
        }
    }

    /// One message of the dispatcher; what it queues leaves at the end of the turn.
    pub(crate) fn handle(&self, message: Inbound) {
        match message {
            Inbound::Deliver(outgoing) => self.deliver(&outgoing),
            Inbound::Traced(outgoing, delivery) => self.deliver_traced(&outgoing, &delivery),
            Inbound::Joined {
                topic,
                position,
                wish,
            } => self.joined(&topic, position, wish),
            Inbound::Behind {
                topic,
                newest,
                dropped,
                urgency,
                void_above,
            } => {
                let missed = Missed {
                    newest,
                    dropped,
                    urgency,
                    void_above,
                };
                self.behind(&topic, missed);
            }
            Inbound::Gap {
                topic,
                from,
                to,
                reason,
            } => self.gap(&topic, from, to, reason),
            Inbound::Acked {
                topic,
                position,
                session,
            } => self.acked(&topic, position, session),
            Inbound::Disconnect {
                inbox,
                session,
                reason,
            } => self.disconnect(&inbox, session, reason),
            Inbound::Shed(order) => self.shed(order),
            Inbound::Revoked(news) => self.revoked(&news),
            Inbound::AppsChanged(apps) => self.apps_changed(&apps),
        }
    }

    /// HOT: pushes one delivery to every session that takes this topic live. No allocation beyond
    /// the outbox's growth, no lock beyond the first encoding.
    pub(super) fn deliver(&self, outgoing: &Arc<Outgoing>) {
        let state = &mut *self.state.borrow_mut();
        let Some(key) = state.hub.find(&outgoing.topic) else {
            return;
        };
        // Before `Joined`, deliveries belong to an earlier stay of this worker in the topic.
        let Some(last) = state.hub.get(key).and_then(|t| t.last) else {
            return;
        };
        if outgoing.prev != last {
            let missed = Missed {
                newest: outgoing.position,
                dropped: 1,
                urgency: outgoing.priority(),
                void_above: None,
            };
            self.fall_behind(state, key, missed);
            return;
        }
        let State {
            hub,
            sessions,
            dirty,
            crowded,
            spares,
            recent,
            ..
        } = state;
        let topic = hub.get_mut(key).expect("found above");
        topic.last = Some(outgoing.position);
        let has_history = topic.has_history;
        let mut deliveries = 0;
        for member in &mut topic.members {
            let Some(entry) = sessions.get_mut(member.session) else {
                continue;
            };
            if !entry.takes(member, outgoing, has_history) {
                continue;
            }
            if !entry.outbox.has_room_for(outgoing, self.bound) {
                // What came in one turn is no backlog before the socket has refused it.
                self.write(entry, spares);
                if !entry.outbox.has_room_for(outgoing, self.bound) {
                    crowded.push(member.session);
                    continue;
                }
            }
            entry.outbox.push_message(key, Arc::clone(outgoing), spares);
            deliveries += 1;
            mark_dirty(&mut entry.dirty, dirty, member.session);
        }
        self.count(outgoing, deliveries, |counters| &counters.deliveries);
        if has_history {
            recent.keep(hub, key, outgoing, Instant::now());
        }
        if !state.crowded.is_empty() {
            self.make_room(state, key, outgoing);
        }
    }

    /// Counts what was queued for sessions: under `sent`, or as told and dropped where it is
    /// something that nobody here can read.
    pub(super) fn count(
        &self,
        outgoing: &Outgoing,
        count: u64,
        sent: fn(&WorkerCounters) -> &Counter,
    ) {
        let counters = &self.metrics.counters;
        if outgoing.is_unreadable() {
            counters.dropped_unreadable.add_owned(count);
            counters.gaps_told.add_owned(count);
        } else {
            sent(counters).add_owned(count);
        }
    }

    /// The topic is live. What answers an earlier wish of this worker says nothing of this stay:
    /// the dispatcher may have delivered nothing between the two.
    fn joined(&self, topic: &Topic, position: Position, wish: WishNumber) {
        let state = &mut *self.state.borrow_mut();
        let Some(key) = state.hub.find(topic) else {
            return;
        };
        let joined = state.hub.get_mut(key).expect("found above");
        if joined.wish == Some(wish) && joined.last.is_none() {
            joined.last = Some(position);
            for member in &joined.members {
                state.leads.begin(member.session, key, position);
            }
            for waiting in std::mem::take(&mut joined.waiting) {
                // The session may have ended while it waited.
                let _ = waiting.send(());
            }
        }
    }

    fn behind(&self, topic: &Topic, missed: Missed) {
        let state = &mut *self.state.borrow_mut();
        if let Some(key) = state.hub.find(topic) {
            self.fall_behind(state, key, missed);
        }
    }

    /// Deliveries between the topic's last position and the newest did not come to this worker.
    /// With history every session fetches them; without, they are lost and told. A failover among
    /// them is told in any case.
    fn fall_behind(&self, state: &mut State, key: TopicKey, missed: Missed) {
        let topic = state.hub.get_mut(key).expect("the caller found it");
        // Before `Joined` this belongs to an earlier stay of this worker in the topic.
        let Some(last) = topic.last else { return };
        topic.last = Some(missed.newest);
        let from = missed.void_above.map_or(last, |above| above.min(last));
        let failed_over = missed.void_above.is_some();
        if failed_over {
            fail_over(state, key, from);
        }
        let topic = state.hub.get_mut(key).expect("found above");
        let has_history = topic.has_history;
        if has_history {
            for member in &mut topic.members {
                match &mut member.mode {
                    Mode::Starting { .. } => continue,
                    Mode::Push { after } => {
                        let urgency = missed.urgency.max(Priority::default());
                        member.mode = Mode::pull(from.max(*after), urgency);
                    }
                    Mode::Pull { urgency, .. } => *urgency = missed.urgency.max(*urgency),
                }
                if let Some(entry) = state.sessions.get_mut(member.session) {
                    entry.catch_up();
                }
            }
            if !failed_over {
                return;
            }
        } else {
            let members = topic.members.len() as u64;
            let dropped = &self.metrics.counters.dropped_behind;
            dropped.add_owned(missed.dropped * members);
        }
        let (to, reason) = match failed_over {
            true => (None, GapReason::Failover),
            false => (Some(missed.newest), GapReason::Slow),
        };
        let dropped = (!has_history && missed.dropped > 0).then_some(missed.dropped);
        let gap = outgoing::gap(&topic.name, (from, to), reason, dropped);
        self.tell(state, key, gap);
    }

    fn gap(&self, topic: &Topic, from: Position, to: Position, reason: GapReason) {
        let state = &mut *self.state.borrow_mut();
        let Some(key) = state.hub.find(topic) else {
            return;
        };
        let gone = state.hub.get_mut(key).expect("found above");
        if gone.last.is_none() {
            return;
        }
        gone.last = Some(to);
        let failed_over = reason == GapReason::Failover;
        if failed_over {
            fail_over(state, key, from);
        }
        let bounds = (from, (!failed_over).then_some(to));
        let gap = outgoing::gap(topic, bounds, reason, None);
        self.tell(state, key, gap);
    }

    /// Tells every session that takes the topic live and has not got further by itself. One that
    /// catches up meets the same gap in its pages, except that a failover left no trace there.
    fn tell(&self, state: &mut State, key: TopicKey, gap: Gap) {
        let to = gap.to;
        let event = Event::Gap(gap);
        let mut frames = FramesOf::new(&event);
        let State {
            hub,
            sessions,
            dirty,
            spares,
            ..
        } = state;
        let Some(topic) = hub.get(key) else { return };
        for member in &topic.members {
            let is_missed = match member.mode {
                Mode::Starting { .. } => false,
                Mode::Push { after } => to.is_none_or(|to| after < to),
                Mode::Pull { .. } => to.is_none(),
            };
            if let Some(entry) = sessions.get_mut(member.session).filter(|_| is_missed) {
                let frame = frames.get(entry.form);
                entry.outbox.push_notice(key, frame, spares);
                self.metrics.counters.gaps_told.add_owned(1);
                mark_dirty(&mut entry.dirty, dirty, member.session);
                if entry.outbox.is_past_help(self.bound) {
                    entry.end(CloseReason::SlowConsumer);
                }
            }
        }
    }

    fn acked(&self, inbox: &Topic, position: Position, by: SessionId) {
        let state = &mut *self.state.borrow_mut();
        let Some(key) = state.hub.find(inbox) else {
            return;
        };
        let event = Event::Acked { position };
        let mut frames = FramesOf::new(&event);
        let State {
            hub,
            sessions,
            dirty,
            spares,
            ..
        } = state;
        let Some(topic) = hub.get(key) else { return };
        for member in &topic.members {
            if matches!(member.mode, Mode::Starting { .. }) {
                continue;
            }
            if let Some(entry) = sessions.get_mut(member.session)
                && entry.id != by
            {
                entry.outbox.push_acked(frames.get(entry.form), spares);
                mark_dirty(&mut entry.dirty, dirty, member.session);
            }
        }
    }

    /// Writes once to each socket that got something in this turn, to `most` of them at once.
    /// Returns whether all are written.
    pub(super) fn flush_dirty(&self, most: usize) -> bool {
        self.flush_each(most, |_| ())
    }

    /// The same, telling of each socket how many bytes it took.
    pub(super) fn flush_each(&self, most: usize, mut written: impl FnMut(u64)) -> bool {
        let state = &mut *self.state.borrow_mut();
        let count = state.dirty.len().min(most);
        for key in state.dirty.drain(..count) {
            if let Some(entry) = state.sessions.get_mut(key) {
                entry.dirty = false;
                let before = entry.written_bytes;
                self.write(entry, &mut state.spares);
                written(entry.written_bytes - before);
            }
        }
        state.dirty.is_empty()
    }

    fn tick(&self, now: Instant) {
        let state = &mut *self.state.borrow_mut();
        for key in state.wheel.tick(now) {
            if let Some(entry) = state.sessions.get_mut(key) {
                entry.notify(|n| n.due = true);
            }
        }
        state.spares.shrink();
        state.recent.age(&mut state.hub, now);
        self.doubt_leads(state, now);
        self.tell_waiting(state);
        let bytes = state.recent.bytes() as u64;
        self.metrics.counters.recent_bytes.set(bytes);
    }

    fn lifecycle_changed(&self, now: Lifecycle) {
        let state = &mut *self.state.borrow_mut();
        if now >= Lifecycle::Draining && !state.draining {
            state.draining = true;
            for entry in state.sessions.values_mut() {
                entry.notify(|n| n.drain = true);
            }
        }
        if now >= Lifecycle::Closing {
            for entry in state.sessions.values_mut() {
                entry.end(CloseReason::Draining);
            }
        }
    }
}

/// Deliveries that did not come to this worker.
struct Missed {
    newest: Position,
    /// How many.
    dropped: u64,
    /// Of the most urgent, as far as that is known.
    urgency: Priority,
    /// See [`Inbound::Behind`].
    void_above: Option<Position>,
}

fn mark_dirty(is_dirty: &mut bool, dirty: &mut Vec<SessionKey>, key: SessionKey) {
    if !std::mem::replace(is_dirty, true) {
        dirty.push(key);
    }
}
