//! The link for publications: a connection of our own, and by it the question whether the feed hears.
//!
//! In: the publisher's queue (`publisher/ordered.rs`), a clock. Out: a connection on which publications
//! are written and their answers read, the circuit that they pass, its line of
//! [`Health`](super::health::Health), probes that the feed must hear, and the order to build the feed
//! anew when it does not. One task on the thread of the master's feed; owner of the connection and
//! the circuit. Bounds: one check at a time, each step of it within a command timeout; attempts to
//! connect, and checks that failed, wait as `waits.rs` says.
//!
//! ```text
//!  open ── connected ──▶ half-open ── it is a master, probe answered, scripts loaded ──▶ closed
//!    ▲                      │                                                              │ every
//!    └── connection lost ───┴──────── no answer to the probe, or no master ────────────────┘ interval
//!  two time-outs in a row, or a server that is no master: connected anew; its files are read anew
//!  where TLS failed.
//! ```
//!
//! A server that is new is asked step by step, because one that refuses is asked again and again: what it
//! is, then by a small script whether it answers probes, and only then it is given the large one.
//!
//! The probe is a script that the feed hears, and that is refused where publications are. Where only
//! writes are refused the circuit is closed all the same: every publication gets Redis' own word, of
//! which the urgent link's supervisor tells; and what the feed must hear is told to it past the gate.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fred::error::{Error, ErrorKind};
use fred::types::Value;
use tokio::sync::watch;

use super::dialer::Dialer;
use super::health::Line;
use super::link::{Purpose, Shared, stopped};
use super::supervisor::{is_elsewhere, is_master_by, is_whole_by};
use super::waits::Waits;
use crate::broker::redis::publisher::ordered::{Ordered, Sent, Sign};
use crate::config;
use crate::redis::RedisError;
use crate::redis::access;
use crate::redis::circuit::Phase;
use crate::redis::refusal::Refusal;
use crate::redis::wire::{Connection, Event};

mod question;

use question::Question;

/// What Redis calls the connection in CLIENT LIST.
const NAME: &str = "fanfare-publications";
/// How soon a connection is asked again whose scripts were taken away.
const SETTLE: Duration = Duration::from_millis(5);
/// So often in a row; then that is a failure.
pub(super) const LOSSES_MAX: u32 = 3;
/// Time-outs in a row after which the connection is given up.
const TIMEOUTS_MAX: u32 = 2;

type Encoding = Connection<Sent<Question>>;

/// What is known while the questions of one check are out.
#[derive(Debug, Default)]
struct Check {
    open_count: usize,
    /// How far one is that asks a connection that is new.
    step: u8,
    failed: Option<RedisError>,
    /// The probe's slot has gone: the gate is passed, and the feed could hear nothing.
    is_elsewhere: bool,
}

/// Why a connection is given up.
enum End {
    /// The publisher has ended.
    Over,
    /// It broke, or did not come to be.
    Lost(Error),
    /// It stands, and is of no use.
    Useless,
}

/// See the module.
#[derive(Debug)]
pub struct PublicationsLink {
    shared: Arc<Shared>,
    settings: config::Redis,
    ordered: Ordered,
    /// The queue is closed and empty.
    is_drained: bool,
    check: Option<Check>,
    next_check: Instant,
    /// Nothing was asked of this connection yet with success.
    is_fresh: bool,
    /// Redis has the script of probes.
    is_probe_loaded: bool,
    /// The last check found a connection that is of no use.
    is_useless: bool,
    timeouts_in_a_row: u32,
    /// How often in a row the script of probes was not there though it was loaded.
    losses_in_a_row: u32,
    /// Before the next connection, and the next check after one that failed.
    waits: Waits,
    /// Since when Redis takes probes that the feed does not hear.
    unheard_since: Option<Instant>,
    connections: u64,
    is_away: bool,
}

impl PublicationsLink {
    /// A link that is not connected; [`Self::run`] does that.
    #[must_use]
    pub fn new(shared: &Arc<Shared>, settings: &config::Redis, ordered: Ordered) -> Self {
        Self {
            shared: Arc::clone(shared),
            settings: settings.clone(),
            ordered,
            is_drained: false,
            check: None,
            next_check: Instant::now(),
            is_fresh: true,
            is_probe_loaded: false,
            is_useless: false,
            timeouts_in_a_row: 0,
            losses_in_a_row: 0,
            waits: Waits::default(),
            unheard_since: None,
            connections: 0,
            is_away: true,
        }
    }

    /// Sends until `stop` turns true or its sender is gone; what is queued by then is still sent and
    /// answered.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) {
        let shared = Arc::clone(&self.shared);
        let gauge = (Purpose::Publications.gauge())(&shared.metrics.control);
        gauge.add(1);
        let mut dialer = Dialer::new(&self.settings, NAME, self.settings.command_timeout);
        while let Some(opened) = self.meanwhile(dialer.open(), &mut stop).await {
            let end = match opened {
                Ok(connection) => self.serve(connection, &mut stop).await,
                Err(error) => End::Lost(error),
            };
            let wait = match end {
                End::Over => break,
                // The check that found it so has begun to wait.
                End::Useless => self.next_check.saturating_duration_since(Instant::now()),
                End::Lost(error) => {
                    self.lost(&error);
                    dialer.failed(&error);
                    self.waits.next()
                }
            };
            let rest = tokio::time::sleep(wait);
            if self.meanwhile(rest, &mut stop).await.is_none() {
                break;
            }
        }
        // Nobody is to be told of it as of trouble.
        self.refuses(None);
        self.set_away(false);
        shared.publications.open("this link was ended", None);
    }

    /// Waits for this, and refuses what is published meanwhile. `None`: the publisher has ended.
    async fn meanwhile<F: Future>(
        &mut self,
        future: F,
        stop: &mut watch::Receiver<bool>,
    ) -> Option<F::Output> {
        let mut future = pin!(future);
        loop {
            tokio::select! {
                biased;
                () = stopped(stop), if !self.ordered.is_closed() => self.ordered.close(),
                is_more = self.ordered.wait() => match is_more {
                    true => self.ordered.refuse(),
                    false => return None,
                },
                output = &mut future => return Some(output),
            }
        }
    }

    /// Publishes and checks over this connection until it ends.
    async fn serve(&mut self, mut connection: Encoding, stop: &mut watch::Receiver<bool>) -> End {
        self.connected();
        let end = self.turns(&mut connection, stop).await;
        let error = match &end {
            End::Lost(error) => error.clone(),
            End::Useless | End::Over => closed(),
        };
        self.ordered.end(connection.into_unanswered(error));
        self.check = None;
        end
    }

    async fn turns(&mut self, connection: &mut Encoding, stop: &mut watch::Receiver<bool>) -> End {
        let shared = Arc::clone(&self.shared);
        let mut events = Vec::new();
        let mut timer = pin!(tokio::time::sleep_until(self.next_check.into()));
        loop {
            if self.is_drained && self.ordered.is_settled() {
                return End::Over;
            }
            if std::mem::take(&mut self.is_useless) {
                return End::Useless;
            }
            self.ordered.repeat(connection);
            if timer.deadline() != self.next_check.into() {
                timer.as_mut().reset(self.next_check.into());
            }
            let is_idle = self.check.is_none();
            tokio::select! {
                biased;
                () = stopped(stop), if !self.ordered.is_closed() => self.ordered.close(),
                () = shared.probes.now.notified(), if is_idle => self.ask(connection),
                () = &mut timer, if is_idle => self.ask(connection),
                is_more = self.ordered.wait(), if !self.is_drained => match is_more {
                    true => self.ordered.send(connection),
                    false => self.is_drained = true,
                },
                turned = connection.turn(&mut events) => {
                    if let Err(error) = turned {
                        return End::Lost(error);
                    }
                    for event in events.drain(..) {
                        self.take(connection, event);
                    }
                }
            }
        }
    }

    fn take(&mut self, connection: &mut Encoding, event: Event<Sent<Question>>) {
        match event {
            Event::Answered(Sent::Publication(job), result) => {
                let sign = self.ordered.land(job, result);
                self.heed(sign);
            }
            Event::Answered(Sent::Check(question), answer) => {
                self.answered(connection, question, answer);
            }
            // Whether the script was loaded is told by what was sent behind it.
            Event::Answered(Sent::Script, _) | Event::Pushed(_) => {}
        }
    }

    fn heed(&mut self, sign: Sign) {
        let shared = &self.shared;
        match sign {
            Sign::ReadOnly if !shared.health.is_read_only() => shared.urgent.suspect.notify_one(),
            Sign::None | Sign::ReadOnly => {}
            Sign::Misplaced => shared.urgent.link.misplaced().notify_one(),
            Sign::NotMaster => {
                shared.urgent.link.misplaced().notify_one();
                shared.urgent.suspect.notify_one();
                self.next_check = Instant::now();
            }
        }
    }

    /// Asks whether it is of use, and of one that is new also what it is and what it needs.
    fn ask(&mut self, connection: &mut Encoding) {
        if self.shared.publications.phase() == Phase::Open {
            self.shared.publications.half_open();
        }
        self.check = Some(Check::default());
        match self.is_fresh {
            true => self.put(connection, Question::Role),
            false => self.ask_probe(connection),
        }
        self.conclude(connection);
    }

    fn ask_probe(&mut self, connection: &mut Encoding) {
        if !self.is_probe_loaded {
            self.put(connection, Question::Load);
        }
        self.put(connection, Question::Probe);
        if self.shared.owned.is_some() {
            self.put(connection, Question::Whole);
        }
    }

    /// What a connection that is new is asked next, now that all before it was answered well. `false`:
    /// there is no more.
    fn ask_more(&mut self, connection: &mut Encoding) -> bool {
        let Some(check) = self.check.as_mut().filter(|_| self.is_fresh) else {
            return false;
        };
        check.step += 1;
        match check.step {
            1 => self.ask_probe(connection),
            2 => {
                // No publication was let through to this connection yet.
                let is_sent = self.ordered.load(connection, Sent::Check(Question::Load));
                let sent = is_sent.then_some(());
                self.count(sent.ok_or_else(|| RedisError::NotDone(closed())));
            }
            _ => return false,
        }
        true
    }

    /// Sends one of them.
    fn put(&mut self, connection: &mut Encoding, question: Question) {
        let shared = &self.shared;
        let sent = connection.send(Sent::Check(question), question.count(), |arguments| {
            question.write(arguments, shared);
        });
        self.count(sent.map_err(|(_, error)| error));
    }

    fn count(&mut self, sent: Result<(), RedisError>) {
        let check = self.check.get_or_insert_default();
        match sent {
            Ok(()) => check.open_count += 1,
            Err(error) => check.fail(error),
        }
    }

    fn answered(
        &mut self,
        connection: &mut Encoding,
        question: Question,
        answer: Result<Value, RedisError>,
    ) {
        let judged = match (question, answer) {
            (Question::Probe, Err(error)) if error.is_read_only() => {
                self.put(connection, Question::Role);
                self.put(connection, Question::Past);
                Ok(())
            }
            // The topology soon tells of another slot, and the feed asks for a probe.
            (Question::Probe | Question::Past, Err(error))
                if self.shared.owned.is_some() && is_elsewhere(&error) =>
            {
                self.shared.urgent.link.misplaced().notify_one();
                if let Some(check) = &mut self.check {
                    check.is_elsewhere = true;
                }
                Ok(())
            }
            (Question::Role, Ok(role)) => is_master_by(&role),
            (Question::Whole, info) => info.map_or(Ok(()), |info| is_whole_by(&info)),
            (_, answer) => answer.map(drop),
        };
        let Some(check) = &mut self.check else { return };
        check.open_count -= 1;
        if let Err(error) = judged {
            check.fail(error);
        }
        self.conclude(connection);
    }

    /// When all is answered: what follows from it, and when to ask again.
    fn conclude(&mut self, connection: &mut Encoding) {
        let goes_on = |check: &Check| check.open_count == 0 && check.failed.is_none();
        if self.check.as_ref().is_some_and(goes_on)
            && self.ask_more(connection)
            && self
                .check
                .as_ref()
                .is_some_and(|check| check.open_count > 0)
        {
            return;
        }
        let Some(check) = self.check.take_if(|check| check.open_count == 0) else {
            return;
        };
        let now = Instant::now();
        match check.failed {
            None => {
                (self.is_fresh, self.is_probe_loaded) = (false, true);
                (self.timeouts_in_a_row, self.losses_in_a_row) = (0, 0);
                self.waits.over();
                if !check.is_elsewhere {
                    self.unheard_since.get_or_insert(now);
                }
                self.works();
                self.judge_feed();
                self.next_check = now + self.settings.probe_interval;
            }
            Some(RedisError::NoScript(_)) if self.losses_in_a_row < LOSSES_MAX => {
                // It answers; somebody took the scripts away.
                self.losses_in_a_row += 1;
                self.is_probe_loaded = false;
                self.next_check = now + SETTLE;
            }
            Some(error) => {
                self.is_probe_loaded &= !matches!(error, RedisError::NoScript(_));
                if error.is_misplaced() {
                    self.shared.urgent.link.misplaced().notify_one();
                }
                self.timeouts_in_a_row = match error.is_timeout() {
                    true => self.timeouts_in_a_row + 1,
                    false => 0,
                };
                self.is_useless = self.timeouts_in_a_row >= TIMEOUTS_MAX
                    || matches!(error, RedisError::NotMaster(_));
                self.unheard_since = None;
                self.down(&error.to_string(), error.refusal());
                self.next_check = now + self.waits.next();
            }
        }
    }

    fn connected(&mut self) {
        self.connections += 1;
        if self.connections > 1 {
            self.shared.metrics.control.redis_reconnects.add(1);
        }
        (self.is_fresh, self.is_probe_loaded) = (true, false);
        (self.is_useless, self.timeouts_in_a_row) = (false, 0);
        self.check = None;
        self.next_check = Instant::now();
    }

    fn lost(&mut self, error: &Error) {
        self.unheard_since = None;
        self.down(&access::explain(error), Refusal::of(error.details()));
    }

    /// Publications are let through.
    fn works(&mut self) {
        self.refuses(None);
        self.shared.publications.close();
        self.set_away(false);
        self.shared.health.up(Line::Publications);
    }

    /// They are not, and why; `refusal`: that is Redis' own word.
    fn down(&mut self, reason: &str, refusal: Option<&'static Refusal>) {
        self.refuses(refusal);
        let (server, by_which) = (self.shared.server(), Purpose::Publications.by_which());
        let reason = format!("Redis at {server} cannot be used{by_which}: {reason}");
        self.shared.publications.open(&reason, refusal);
        self.set_away(true);
        self.shared.health.down(Line::Publications, reason);
    }

    fn set_away(&mut self, is_away: bool) {
        let gauge = (Purpose::Publications.gauge())(&self.shared.metrics.control);
        match (std::mem::replace(&mut self.is_away, is_away), is_away) {
            (false, true) => gauge.add(1),
            (true, false) => {
                gauge.sub(1);
            }
            _ => {}
        }
    }

    /// Shows in which word the master refuses now.
    fn refuses(&self, refusal: Option<&'static Refusal>) {
        let (refusals, metrics) = (&self.shared.refusals, &self.shared.metrics);
        refusals.set(Line::Publications, refusal, &metrics.control);
    }

    /// A feed that does not hear what Redis takes is built anew, though its socket looks well.
    fn judge_feed(&mut self) {
        let (shared, fresh) = (&self.shared, self.settings.probe_fresh);
        if shared.probes.age() <= fresh {
            self.unheard_since = None;
            return;
        }
        if shared.health.reason(Line::Feed).is_none() {
            let server = shared.server();
            let reason =
                format!("the feed is deaf: no probe of Redis at {server} came back for {fresh:?}");
            shared.health.down(Line::Feed, reason);
        }
        if self
            .unheard_since
            .is_some_and(|since| since.elapsed() > fresh)
        {
            self.unheard_since = None;
            shared.probes.rebuild.notify_one();
        }
    }
}

impl Check {
    /// The first fault is the one that is told, or the first in Redis' own word.
    fn fail(&mut self, error: RedisError) {
        let says_less = |told: &RedisError| told.refusal().is_none() && error.refusal().is_some();
        if self.failed.as_ref().is_none_or(says_less) {
            self.failed = Some(error);
        }
    }
}

fn closed() -> Error {
    Error::new(ErrorKind::IO, "the connection was given up")
}
