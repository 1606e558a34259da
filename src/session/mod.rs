//! A session: one parked task that reads a socket, carries out commands and obeys the clock.
//!
//! In: a socket whose handshake is done, with who is behind it. Out: frames in the worker's
//! outbox; requests to the broker; exactly one [`CloseReason`] at the end. Owner of: the state
//! machine ([`state`], [`clock`]), the reading side ([`socket`]), the commands that wait for the
//! broker ([`broker_calls`]). Whatever ends its task, a panic included, it leaves nothing behind. Bounds: commands in flight and unread replies; at either bound nothing more
//! is read. Reading never waits for writing: the worker writes, this task only waits for the
//! socket when it was full.

use std::future::poll_fn;
use std::rc::Rc;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use futures_util::future::LocalBoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _};
use rand::RngExt as _;
use tokio::sync::watch;

use crate::apps::Apps;
use crate::auth::verifier::Verifier;
use crate::authorizer::Authorizers;
use crate::broker::Broker;
use crate::cluster::view::View;
use crate::config::Config;
use crate::presence::Presence;
use crate::tasks::running::Stopwatch;
use crate::telemetry::labels::CommandType;
use crate::telemetry::trace::tracer::Tracer;
use crate::verification::Checks;
use crate::worker::outbox::Bound;
use crate::worker::stream::Stream;
use crate::worker::{SessionSignals, Worker, wheel};
use fanfare_protocol::close::CloseReason;
use fanfare_protocol::event::{Error, Event};
use fanfare_protocol::form::{Encoding, WireForm};
use fanfare_protocol::frame;
use fanfare_protocol::ids::{App, SessionId, Topic};

pub mod authorizing;
pub mod backoff;
pub mod broker_calls;
pub mod checking;
pub mod clock;
pub mod close_handshake;
pub mod commands;
pub mod completions;
pub mod drain_schedule;
pub mod echo;
pub mod ending;
pub mod joining;
pub mod lines;
pub mod opening;
pub mod parked;
pub mod permission;
pub mod registry;
mod revoking;
#[cfg(test)]
pub(crate) mod rig;
mod settings;
pub mod shared_reads;
pub mod socket;
pub mod state;

use broker_calls::{BrokerCalls, Completion};
use clock::Due;
use drain_schedule::DrainSchedule;
use opening::Late;
use registry::Registry;
use shared_reads::SharedReads;
use socket::{Incoming, ReadLimits, Socket};
use state::{Identity, Machine, Now, Refusal};

/// The node's parts that sessions use.
pub struct Services {
    /// The configuration.
    pub config: Arc<Config>,
    /// Which apps there are, and what they set.
    pub apps: Arc<Apps>,
    /// Where publications go.
    pub broker: Arc<Broker>,
    /// Who may come in.
    pub verifier: Arc<Verifier>,
    /// Checks of tokens that must not be made here.
    pub checks: Arc<Checks>,
    /// Backends that are asked.
    pub authorizers: Arc<Authorizers>,
    /// The cluster as this node sees it.
    pub view: watch::Receiver<Arc<View>>,
    /// Members.
    pub presence: Arc<Presence>,
    /// Counts per topic.
    pub registry: Registry,
    /// What is traced.
    pub tracer: Arc<Tracer>,
    /// When sessions go; set before workers are told that the node leaves.
    pub departure: OnceLock<DrainSchedule>,
}

impl std::fmt::Debug for Services {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Services").finish_non_exhaustive()
    }
}

/// A socket that has become a WebSocket.
#[derive(Debug)]
pub struct Accepted {
    /// The socket.
    pub stream: Stream,
    /// Bytes that came behind the handshake.
    pub early: Bytes,
    /// The form that was agreed.
    pub form: WireForm,
    /// The app that the request is for; `None`: nothing in it says, so that the token of `connect`
    /// may.
    pub app: Option<App>,
    /// Who is behind it, as far as the request said.
    pub identity: Identity,
    /// The request had a token or user that is no good: told on the open socket, then closed.
    pub refused: Option<Refusal>,
    /// `welcome` waits for `connect`.
    pub waits: bool,
    /// Pings are events (`?heartbeat=app`).
    pub app_pings: bool,
    /// [`Worker::disconnects`] when it was found out who is behind it.
    pub disconnects: u64,
    /// When its connection was accepted, or the head of its handshake came behind other requests.
    pub accepted_at: Instant,
}

/// Why the loop woke up.
enum Wake {
    SessionSignals(SessionSignals),
    Judging,
    Incoming(Result<Incoming, CloseReason>),
    Completion(Completion),
    Writable,
}

/// A command that was read.
#[derive(Debug, Clone, Copy)]
struct Read {
    kind: CommandType,
    watch: Stopwatch,
}

type Busy = FuturesUnordered<LocalBoxFuture<'static, Completion>>;

/// See the module.
struct Session {
    calls: BrokerCalls,
    form: WireForm,
    machine: Machine,
    socket: Socket,
    stream: Rc<Stream>,
    busy: Option<Box<Busy>>,
    /// `@`, where it was not live in time for `welcome`.
    late: Option<Box<Late>>,
    /// A command is on its way behind which nothing is read.
    alone: bool,
    /// A token was checked in this turn, or topics judged: the worker's other sessions come first.
    has_checked: bool,
    /// Topics are judged by what the session may do now; nothing is read before all are.
    obeying: Option<Box<settings::Obeying>>,
    app_pings: bool,
    /// Topics counted in the registry.
    counted: Vec<Topic>,
    ending: Option<CloseReason>,
    /// What the client calls its device.
    device: Option<Box<str>>,
    begun_at: Instant,
    /// Bytes of what its client sent, without frames' heads.
    bytes_read: u64,
    /// Everything was given back.
    is_over: bool,
    /// Pages of catch-ups in a row that brought nothing.
    failed_pulls: u8,
    /// When the wheel looks next.
    scheduled: Option<Instant>,
    scratch: Scratch,
}

/// Memory into which all sessions of a worker read first, so that none needs its own.
pub type Scratch = Rc<std::cell::RefCell<Vec<u8>>>;

/// How much is read at once: most commands come whole.
pub const SCRATCH_BYTES: usize = 16 * 1024;

/// One session from here to its end, which the returned future is. What is handed in is moved
/// into the session before that future is made, so that a task holds one session and not its
/// parts as well.
pub fn run(
    services: Arc<Services>,
    worker: Rc<Worker>,
    reads: Rc<SharedReads>,
    scratch: Scratch,
    accepted: Accepted,
) -> impl Future<Output = ()> {
    let (now, id) = (Now::read(), SessionId::random());
    let stream = Rc::new(accepted.stream);
    let config = Arc::clone(&services.config);
    let key = worker.add(id, accepted.form, Rc::clone(&stream));
    let mut machine = Machine::new(
        Arc::clone(&config),
        Arc::clone(&services.verifier),
        Arc::clone(&services.apps),
        accepted.app,
        now,
    );
    let known = accepted.identity.user.is_some();
    machine.identify(accepted.identity);
    let asks = machine.settings.auth.authorize_connect.is_some();
    let limits = ReadLimits {
        message_bytes_max: config.session.message_bytes_max,
        fragments_max: config.session.fragments_max,
    };
    let mut session = Session {
        calls: BrokerCalls {
            services,
            worker,
            reads,
            key,
            session: id,
        },
        form: accepted.form,
        machine,
        socket: Socket::new(Rc::clone(&stream), accepted.early, limits),
        stream,
        busy: None,
        late: None,
        alone: false,
        has_checked: false,
        obeying: None,
        app_pings: accepted.app_pings,
        counted: Vec::new(),
        ending: None,
        device: None,
        begun_at: accepted.accepted_at,
        bytes_read: 0,
        is_over: false,
        failed_pulls: 0,
        scheduled: None,
        scratch,
    };
    if let Some(refusal) = accepted.refused {
        session.refuse(None, refusal);
    } else if known && !accepted.waits {
        match asks {
            true => session.ask_unasked(now),
            false => session.open_unasked(now),
        }
    } else {
        session.hold_inbox();
    }
    session.end_if_disconnected(accepted.disconnects);
    async move {
        let reason = session.serve().await;
        // Boxed, because the room for what an end needs would be there all the time.
        Box::pin(session.finish(reason)).await;
    }
}

impl Session {
    /// Serves until there is a reason to end.
    async fn serve(&mut self) -> CloseReason {
        self.schedule(Now::read());
        self.settle_turn();
        while self.ending.is_none() {
            // A client that keeps this loop busy shares the thread with the others.
            tokio::task::coop::consume_budget().await;
            if std::mem::take(&mut self.has_checked) {
                tokio::task::yield_now().await;
            }
            match poll_fn(|cx| self.poll_wake(cx)).await {
                Wake::SessionSignals(notices) => self.noticed(notices),
                Wake::Incoming(Ok(incoming)) => self.incoming(incoming),
                Wake::Incoming(Err(reason)) => self.end(reason),
                Wake::Completion(done) => self.done(done),
                Wake::Judging => self.judge_some(),
                Wake::Writable => {}
            }
            self.settle_turn();
        }
        self.ending.unwrap_or(CloseReason::Internal)
    }

    fn poll_wake(&mut self, cx: &mut Context<'_>) -> Poll<Wake> {
        let worker = &self.calls.worker;
        if let Poll::Ready(notices) = worker.poll_notices(self.calls.key, cx) {
            return Poll::Ready(Wake::SessionSignals(notices));
        }
        if let Some(busy) = &mut self.busy
            && let Poll::Ready(Some(done)) = busy.poll_next_unpin(cx)
        {
            if busy.is_empty() {
                self.busy = None;
            }
            return Poll::Ready(Wake::Completion(done));
        }
        if let Some(late) = &mut self.late
            && let Poll::Ready(own) = late.poll_unpin(cx)
        {
            self.late = None;
            return Poll::Ready(Wake::Completion(Completion::Everyone(Box::new(own))));
        }
        if self.obeying.is_some() {
            return Poll::Ready(Wake::Judging);
        }
        if worker.is_blocked(self.calls.key) && self.stream.poll_write_ready(cx).is_ready() {
            return Poll::Ready(Wake::Writable);
        }
        if self.may_read() {
            let mut scratch = self.scratch.borrow_mut();
            return self.socket.poll_next(cx, &mut scratch).map(Wake::Incoming);
        }
        Poll::Pending
    }

    /// A client that asks faster than it is answered, or than it reads the answers, waits.
    fn may_read(&self) -> bool {
        // What comes between `connect` and `welcome` is carried out after it.
        if self.alone || self.obeying.is_some() || self.machine.is_opening() {
            return false;
        }
        let most = self.calls.services.config.session.commands_in_flight_max;
        self.waiting() < most && !self.has_unread_replies()
    }

    fn has_unread_replies(&self) -> bool {
        let config = &self.calls.services.config.session;
        let bound = Bound {
            messages_max: config.replies_max,
            bytes_max: config.replies_bytes_max,
        };
        bound.exceeded(self.calls.worker.replies(self.calls.key))
    }

    /// After every step: what was queued is written, a catch-up goes on, the clock is set.
    fn settle_turn(&mut self) {
        let (worker, key) = (Rc::clone(&self.calls.worker), self.calls.key);
        let now = Now::read();
        let full_at = worker.is_blocked(key).then(|| worker.written_bytes(key));
        worker.flush(key);
        if let Some(pull) = worker.catch_up(key, now.unix_ms) {
            self.work(self.calls.clone().pull(pull));
        }
        worker.flush(key);
        let (unread, taken_bytes) = (self.has_unread_replies(), worker.written_bytes(key));
        // A socket that was full has room only where the client's end has taken something.
        if full_at.is_some_and(|before| taken_bytes > before) {
            self.machine.seen(now);
        }
        self.machine.hears(self.may_read(), now);
        if self.machine.unread(unread, taken_bytes, now) {
            self.schedule(now);
        }
    }

    fn noticed(&mut self, notices: SessionSignals) {
        let now = Now::read();
        if let Some(reason) = notices.end {
            return self.end(reason);
        }
        if notices.drain
            && let Some(departure) = self.calls.services.departure.get()
        {
            let share = rand::rng().random_range(0.0..=1.0);
            self.machine.drain(departure, share);
        }
        if notices.shed {
            self.machine.shed(now);
        }
        if notices.app_changed {
            self.obey_app();
        }
        if notices.due || notices.drain || notices.shed || notices.revoked {
            self.obey_clock(now);
        }
    }

    fn obey_clock(&mut self, now: Now) {
        self.obey_revocations();
        self.machine.awake_since(self.calls.worker.awake_since());
        for due in self.machine.due(now) {
            match due {
                Due::Ping if self.app_pings => self.reply(&Event::Ping {}),
                Due::Ping => self.push(frame::ping()),
                Due::Expiring(topic, expires) => self.reply(&Event::Expiring { topic, expires }),
                Due::Left(topic, was_member) => self.token_ended(topic, was_member),
                Due::Unauthorized(topic, was_member) => self.authorization_ended(topic, was_member),
                Due::Limited(topic) => self.calls.worker.limit(self.calls.key, &topic, true),
                Due::Drain(reconnect_after_ms) => self.reply(&Event::Drain { reconnect_after_ms }),
                Due::End(reason) => self.end(reason),
            }
        }
        self.schedule(now);
    }

    /// Asks the worker's wheel for the next deadline, unless it will look before that anyway.
    fn schedule(&mut self, now: Now) {
        let next = self.machine.next_due(now).min(now.instant + wheel::HORIZON);
        if self
            .scheduled
            .is_none_or(|at| at <= now.instant || next < at)
        {
            self.scheduled = Some(next);
            self.calls.worker.schedule(self.calls.key, next);
        }
    }

    fn incoming(&mut self, incoming: Incoming) {
        let now = Now::read();
        self.machine.seen(now);
        match incoming {
            Incoming::Text(bytes) if self.form.encoding == Encoding::Json => {
                self.command(&bytes, now);
            }
            Incoming::Binary(bytes) if self.form.encoding == Encoding::MsgPack => {
                self.command(&bytes, now);
            }
            Incoming::Text(_) | Incoming::Binary(_) => self.end(CloseReason::WrongMessageKind),
            Incoming::Ping(payload) => self.push(frame::pong(&payload)),
            Incoming::Pong => {}
            Incoming::Close(code) => self.closed_by_client(code),
        }
    }

    /// Commands and pages that wait for the broker.
    fn waiting(&self) -> usize {
        self.busy.as_ref().map_or(0, |busy| busy.len())
    }

    /// Answers with an error, and ends where the refusal says so.
    fn refuse(&mut self, id: Option<u64>, refusal: Refusal) {
        let metrics = self.calls.worker.metrics();
        metrics.command_errors.of(refusal.error.code).add_owned(1);
        let (session, code) = (self.calls.session, refusal.error.code);
        tracing::debug!(event = "command_refused", %session, code = code.name(), error = %refusal.error, "command refused");
        self.reply(&Error::answer(id, refusal.error));
        if let Some(reason) = refusal.end {
            self.end(reason);
        }
    }

    fn reply(&self, event: &Event) {
        self.calls.worker.reply(self.calls.key, event);
    }

    fn push(&self, frame: Bytes) {
        self.calls.worker.push(self.calls.key, frame);
    }

    fn work(&mut self, future: impl Future<Output = Completion> + 'static) {
        self.busy.get_or_insert_default().push(Box::pin(future));
    }

    /// The same for a command, whose time is counted, and told where it is long.
    fn work_on(&mut self, read: Read, future: impl Future<Output = Completion> + 'static) {
        let timing = lines::Timing {
            worker: Rc::clone(&self.calls.worker),
            session: self.calls.session,
            slow: self.calls.services.config.log.slow,
            read,
        };
        self.work(async move {
            let _timing = timing;
            future.await
        });
    }

    /// The same for a command behind which nothing is read until it is answered: its answer may be
    /// a thousand times as long as itself, so one at a time is enough.
    fn work_alone(&mut self, read: Read, future: impl Future<Output = Completion> + 'static) {
        self.alone = true;
        self.work_on(read, async { Completion::Alone(Box::new(future.await)) });
    }

    /// The first reason counts.
    fn end(&mut self, reason: CloseReason) {
        self.ending.get_or_insert(reason);
    }
}

#[cfg(test)]
mod tests;
