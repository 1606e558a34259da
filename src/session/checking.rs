//! Commands as they are read, and tokens whose check must be waited for.
//!
//! In: the bytes of a command. Out: what the state machine makes of it; a command whose tokens need a key
//! that has to be fetched, or cost more than a worker may be held, is parked: its tokens go to
//! [`crate::verification`], the session's own before those for topics, nothing more is read, and with the answer it is judged as if it had just come. So the
//! order of a session's commands stays. What is checked here costs at most [`LIGHT`] a command, and behind it
//! the session lets the others have their turn. Bound: one parked command a session.

use std::time::Instant;

use fanfare_protocol::codec;
use fanfare_protocol::command::Command;
use fanfare_protocol::error::ErrorCode;

use super::Session;
use super::broker_calls::Completion;
use super::parked::{Held, Parked};
use super::state::{Machine, Now, Phase, Refusal, Request};
use crate::auth::Claims;
use crate::auth::error::TokenError;
use crate::auth::verifier::Checked;
use crate::telemetry::labels::CommandType;
use crate::verification::{Asked, LIGHT};

impl Machine {
    /// Whether the command comes when it may, with tokens that are looked at and must be checked elsewhere.
    pub(super) fn needs_check(&self, command: &Command) -> bool {
        let is_due = match command {
            Command::Connect(_) => self.phase == Phase::Unauthenticated,
            _ => self.phase == Phase::Open,
        };
        // Without a user no token for a topic is the session's own.
        let is_looked_at = self.has_user() || own_token(command).is_some();
        let app = self.asked_app(command);
        let app = app.as_ref();
        is_due && is_looked_at && !self.verifier.is_light(command.tokens(), app, LIGHT)
    }

    /// The tokens of a command, as they are to be checked elsewhere.
    fn asked(&self, command: &Command) -> Asked {
        let own = own_token(command);
        let others = command.tokens().skip(usize::from(own.is_some()));
        Asked {
            own: own.map(str::to_owned),
            others: others.map(str::to_owned).collect(),
            is_known: self.has_user(),
            opens: matches!(command, Command::Connect(_)),
            app: self.asked_app(command),
        }
    }

    fn has_user(&self) -> bool {
        self.identity().user.is_some()
    }

    /// Judges a command whose tokens were checked elsewhere.
    ///
    /// # Errors
    /// As [`Self::command`].
    pub fn checked(
        &mut self,
        command: Command,
        checked: Vec<Checked>,
        now: Now,
    ) -> Result<Request, Refusal> {
        self.checked = checked;
        self.judge(command, now)
    }

    /// Forgets what was checked for the last command.
    pub(super) fn forget_checked(&mut self) {
        self.checked = Vec::new();
    }

    /// What a session's token says, checked here or elsewhere.
    pub(super) fn session_claims(&mut self, token: &str, now: Now) -> Result<Claims, TokenError> {
        match self.take_checked(token) {
            Some(checked) => self.verifier.checked_session(checked, now.wall()),
            None => self.verifier.session(token, self.chosen_app(), now.wall()),
        }
    }

    /// What a token for one topic says, checked here or elsewhere.
    pub(super) fn topic_claims(
        &mut self,
        token: &str,
        now: Now,
    ) -> Result<(Claims, String), TokenError> {
        match self.take_checked(token) {
            Some(checked) => self.verifier.checked_topic(checked, now.wall()),
            None => self.verifier.topic(token, self.chosen_app(), now.wall()),
        }
    }

    fn take_checked(&mut self, token: &str) -> Option<Checked> {
        let at = self.checked.iter().position(|one| one.token() == token)?;
        Some(self.checked.remove(at))
    }
}

/// The token that says whose the session is or stays, which comes first of all.
fn own_token(command: &Command) -> Option<&str> {
    match command {
        Command::Connect(connect) => connect.token.as_deref(),
        Command::Refresh { token } => Some(token),
        _ => None,
    }
}

impl Session {
    pub(super) fn command(&mut self, bytes: &[u8], now: Now) {
        let bytes_count = bytes.len() as u64;
        self.bytes_read += bytes_count;
        let counters = &self.calls.worker.metrics().counters;
        counters.bytes_read.add_owned(bytes_count);
        // The own inbox and `@` may be named beside as many topics as a session may join.
        let topics_max = self.calls.services.config.session.topics_max + 2;
        match codec::decode_within(self.form.encoding, bytes, topics_max) {
            Err(malformed) => {
                self.count_command(CommandType::Other);
                let unreadable = malformed.error.code == ErrorCode::BadRequest;
                let end = unreadable.then(|| self.machine.malformed()).flatten();
                let error = malformed.error;
                self.refuse(malformed.id, Refusal { error, end });
                self.answered(CommandType::Other, now.instant);
            }
            Ok(envelope) => {
                let kind = CommandType::from(&envelope.command);
                self.count_command(kind);
                self.obey_unheard(now);
                match self.held_since(now) {
                    _ if self.ending.is_some() => {}
                    Some(since) => self.hold((envelope.id, envelope.command, now), since),
                    None => self.command_read(envelope.id, envelope.command, now),
                }
            }
        }
    }

    fn command_read(&mut self, id: Option<u64>, command: Command, now: Now) {
        let kind = CommandType::from(&command);
        self.has_checked = command.tokens().next().is_some();
        let judged = self.machine.command(command, now);
        self.judged(kind, id, judged, now);
    }

    /// Ends a session whose token is revoked, where it may not have been told yet.
    fn obey_unheard(&mut self, now: Now) {
        let is_told = self.machine.verifier.revocations().is_told(now.instant);
        if !is_told && self.machine.is_revoked() {
            self.obey_revocations();
        }
    }

    /// Since when commands wait for a reading of revocations, as deliveries do. A session without a token
    /// cannot be revoked.
    fn held_since(&self, now: Now) -> Option<Instant> {
        self.machine.identity().claims.as_ref()?;
        self.machine.verifier.revocations().holds(now.instant)
    }

    fn hold(&mut self, (id, command, read): (Option<u64>, Command, Now), since: Instant) {
        self.alone = true;
        let revocations = self.machine.verifier.revocations().clone();
        revocations.metrics().commands_held.add(1);
        self.work(async move {
            revocations.released(since).await;
            let held = Held { id, command, read };
            Completion::Alone(Box::new(Completion::Held(Box::new(held))))
        });
    }

    /// A command that waited goes on, unless its session was revoked meanwhile: the workers are told of
    /// that a little later.
    pub(super) fn released(&mut self, held: Held) {
        self.obey_revocations();
        if self.ending.is_none() {
            let now = Now {
                instant: held.read.instant,
                ..Now::read()
            };
            self.command_read(held.id, held.command, now);
        }
    }

    /// Carries out what was judged, or parks it. `read` is when it came.
    pub(super) fn judged(
        &mut self,
        kind: CommandType,
        id: Option<u64>,
        judged: Result<Request, Refusal>,
        read: Now,
    ) {
        let waiting = self.waiting();
        let is_answered_later = matches!(judged, Ok(Request::Refreshed(_)));
        match judged {
            Ok(Request::Check(command)) => return self.park(id, *command, read),
            // What was checked of it is needed again.
            Ok(Request::Ask(asking)) => return self.ask(id, *asking, read),
            Ok(request) => self.carry_out(id, request, read),
            Err(refusal) => self.refuse(id, refusal),
        }
        self.machine.forget_checked();
        if self.waiting() == waiting && !is_answered_later {
            self.answered(kind, read.instant);
        }
    }

    pub(super) fn count_command(&self, kind: CommandType) {
        let metrics = self.calls.worker.metrics();
        metrics.commands.of(kind).add_owned(1);
    }

    /// A command of this time has its answer.
    pub(super) fn answered(&self, kind: CommandType, read_at: Instant) {
        let metrics = self.calls.worker.metrics();
        let seconds = metrics.command_seconds.of(kind);
        seconds.count_owned(read_at.elapsed());
    }

    fn park(&mut self, id: Option<u64>, command: Command, read: Now) {
        self.alone = true;
        let checks = self.calls.services.checks.clone();
        let asked = self.machine.asked(&command);
        self.work(async move {
            let checked = checks.check(asked).await;
            let parked = Parked {
                id,
                command,
                checked,
                read,
            };
            Completion::Alone(Box::new(Completion::Checked(Box::new(parked))))
        });
    }

    /// The tokens of a parked command are checked.
    pub(super) fn unparked(&mut self, parked: Parked) {
        let kind = CommandType::from(&parked.command);
        let now = Now::read();
        let judged = self.machine.checked(parked.command, parked.checked, now);
        // Its time counts from when it was read; its publications and deadlines are of now.
        let read = Now {
            instant: parked.read.instant,
            unix_ms: now.unix_ms,
        };
        self.judged(kind, parked.id, judged, read);
    }
}

#[cfg(test)]
mod tests;
