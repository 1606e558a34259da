//! The session's state machine: who it is, what it has joined, what it may do, when it must end.
//!
//! In: commands, frames and time, all as values. Out: a [`Request`] to carry out, or an error to
//! answer; and on the clock, [`Due`]s. Pure: no socket, no broker, no clock of its own, so every
//! rule can be tested by values. Owned by the session's task. Bounds: the topics of one session.
//!
//! ```text
//!   Unauthenticated ── connect, or a token at the handshake ──▶ Opening ── inbox joined ──▶ Open
//!        │ auth.timeout: 4004                                     every end ──▶ one CloseReason
//! ```

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::apps::Apps;
use crate::auth::Claims;
use crate::auth::error::TokenError;
use crate::auth::verifier::{Checked, Verifier};
use crate::config::Config;
use crate::config::app::AppSettings;
use crate::policy::identity::{self, Holder, Mismatch};
use fanfare_protocol::close::CloseReason;
use fanfare_protocol::command::{Command, Connect, History, Publish};
use fanfare_protocol::error::{ErrorCode, WireError};
use fanfare_protocol::ids::{App, NameError, Position, Topic, TopicKind, User};

use super::clock::DrainPlan;
use super::joining::{Amendment, Joined, Joining, not_joined};
use super::permission::{OTHER_APP, used_error};
use super::settings::Rejudging;

/// Unreadable commands in a row that end the session.
const BAD_IN_A_ROW_MAX: u32 = 10;

/// The two clocks that a session lives by.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// For intervals and deadlines.
    pub instant: Instant,
    /// For tokens and messages, unix milliseconds.
    pub unix_ms: u64,
}

impl Now {
    /// What the two clocks show.
    #[must_use]
    pub fn read() -> Self {
        let unix = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Self {
            instant: Instant::now(),
            unix_ms: u64::try_from(unix.as_millis()).unwrap_or(u64::MAX),
        }
    }

    pub(super) fn wall(self) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(self.unix_ms)
    }
}

/// Why a command is not carried out.
#[derive(Debug)]
pub struct Refusal {
    /// What the client is told.
    pub error: WireError,
    /// The session ends after that.
    pub end: Option<CloseReason>,
}

impl From<WireError> for Refusal {
    fn from(error: WireError) -> Self {
        Self { error, end: None }
    }
}

impl From<NameError> for Refusal {
    fn from(error: NameError) -> Self {
        WireError::from(error).into()
    }
}

/// Who a session belongs to.
#[derive(Debug, Clone, Default)]
pub struct Identity {
    /// The user; `None` for anonymous sessions.
    pub user: Option<User>,
    /// The token's claims; `None` for anonymous sessions and for `?user=` in development.
    pub claims: Option<Claims>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Unauthenticated,
    Opening,
    Open,
}

/// A command that waits for the authorizer of sessions.
#[derive(Debug)]
pub enum Asking {
    /// `connect`, and what is known by a token.
    Connect(Connect, Option<Claims>),
    /// `refresh`, by what its token says.
    Refresh(Claims),
}

/// What a command asks for, after all checks that need no broker.
#[derive(Debug)]
pub enum Request {
    /// Open the session for its identity.
    Open(Connect),
    /// Join a topic.
    Subscribe(Joining),
    /// Add to what was asked for a topic that is joined.
    Amend(Amendment),
    /// Leave a topic; true: it was also a member.
    Unsubscribe(Topic, bool),
    /// Publish.
    Publish(Topic, Box<Publish>),
    /// Move the cursor of the own inbox.
    Ack(Topic, Position),
    /// Read history.
    History(Topic, History),
    /// Read members.
    Presence(Topic, Option<String>, u32),
    /// The token was renewed: the new end, in unix seconds. The topics are to be judged by it.
    Refreshed(u64),
    /// Nothing but an `ok`.
    Ping,
    /// Ask the authorizer of sessions, and come back with what it says: [`Machine::answered`]. Nothing behind it
    /// is carried out before.
    Ask(Box<Asking>),
    /// Check the tokens of the command elsewhere, and come back with it: [`Machine::checked`]. Nothing
    /// behind it is carried out before.
    Check(Box<Command>),
}

/// See the module.
pub struct Machine {
    pub(super) config: Arc<Config>,
    pub(super) verifier: Arc<Verifier>,
    pub(super) apps: Arc<Apps>,
    pub(super) app: App,
    /// The request, or a token, has said which app; `false`: the token of `connect` may.
    pub(super) is_app_chosen: bool,
    /// What the app sets, as the session knows it.
    pub(super) settings: Arc<AppSettings>,
    pub(super) phase: Phase,
    pub(super) identity: Identity,
    pub(super) joined: Vec<Joined>,
    /// What is still to be judged of them.
    pub(super) rejudging: Option<Box<Rejudging>>,
    pub(super) stays: u64,
    bad_in_a_row: u32,
    /// When the upgrade was done, or when opening began: the deadline counts from there.
    pub(super) phase_since: Instant,
    pub(super) seen_at: Instant,
    /// Nothing is read from the client at present, so that it cannot be heard.
    pub(super) is_deaf: bool,
    pub(super) pinged_at: Instant,
    /// Since when replies wait unread over their bound, and what the client had taken by then.
    pub(super) unread_since: Option<(Instant, u64)>,
    pub(super) told_expiring: bool,
    pub(super) drain: Option<DrainPlan>,
    /// Tokens of the present command that were checked elsewhere.
    pub(super) checked: Vec<Checked>,
}

impl Machine {
    /// A session that has completed the upgrade and nothing else. `app` is the one that the request
    /// is for; `None`: nothing in it says, so that the token of `connect` may, and without one it is
    /// `default`.
    #[must_use]
    pub fn new(
        config: Arc<Config>,
        verifier: Arc<Verifier>,
        apps: Arc<Apps>,
        app: Option<App>,
        now: Now,
    ) -> Self {
        let is_app_chosen = app.is_some();
        let app = app.unwrap_or_else(App::default_app);
        Self {
            config,
            verifier,
            settings: apps.or_nobody(&app),
            apps,
            app,
            is_app_chosen,
            phase: Phase::Unauthenticated,
            identity: Identity::default(),
            joined: Vec::new(),
            rejudging: None,
            stays: 0,
            bad_in_a_row: 0,
            phase_since: now.instant,
            seen_at: now.instant,
            is_deaf: false,
            pinged_at: now.instant,
            unread_since: None,
            told_expiring: false,
            drain: None,
            checked: Vec::new(),
        }
    }

    /// The app that the session lives in.
    #[must_use]
    pub fn app(&self) -> &App {
        &self.app
    }

    /// Whose session it is, once known.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Whether the session is between `connect` and `welcome`.
    #[must_use]
    pub fn is_opening(&self) -> bool {
        self.phase == Phase::Opening
    }

    /// The user's inbox.
    #[must_use]
    pub fn inbox(&self) -> Option<Topic> {
        Some(Topic::inbox(&self.app, self.identity.user.as_ref()?))
    }

    /// Takes an identity that the handshake found. The session opens with it, at once or by
    /// `connect`.
    pub fn identify(&mut self, identity: Identity) {
        self.is_app_chosen |= identity.user.is_some();
        self.identity = identity;
    }

    /// Begins to open for the identity of the handshake, without a `connect`.
    ///
    /// # Errors
    /// Its token is not one of the app that the request is for.
    pub fn open_known(&mut self, now: Now) -> Result<(), Refusal> {
        self.judge_known()?;
        self.opening(now);
        Ok(())
    }

    /// Whether the identity of the handshake may open a session here.
    pub(super) fn judge_known(&self) -> Result<(), Refusal> {
        let holder = Holder {
            app: &self.app,
            user: None,
        };
        // `?user=` of a node for development has no token.
        let is_known = self.identity.user.is_some();
        let judged = identity::may_open(holder, self.identity.claims.as_ref(), is_known);
        judged.map_err(|why| Refusal {
            error: not_opened(why),
            end: Some(CloseReason::Unauthorized),
        })
    }

    /// Begins to open: no second `connect` from here on.
    pub fn opening(&mut self, now: Now) {
        self.phase = Phase::Opening;
        self.phase_since = now.instant;
    }

    /// `welcome` is on its way.
    pub fn opened(&mut self) {
        self.phase = Phase::Open;
    }

    /// A command that could not be read. After ten in a row the session must end.
    pub fn malformed(&mut self) -> Option<CloseReason> {
        self.bad_in_a_row += 1;
        (self.bad_in_a_row >= BAD_IN_A_ROW_MAX).then_some(CloseReason::BadCommands)
    }

    /// Judges a command.
    ///
    /// # Errors
    /// What the client is told, and whether the session ends.
    pub fn command(&mut self, command: Command, now: Now) -> Result<Request, Refusal> {
        if self.needs_check(&command) {
            return Ok(Request::Check(Box::new(command)));
        }
        self.judge(command, now)
    }

    /// The same for a command whose tokens, if they had to, were checked elsewhere.
    pub(super) fn judge(&mut self, command: Command, now: Now) -> Result<Request, Refusal> {
        if let Command::Connect(connect) = command {
            return self.connect(connect, now);
        }
        self.bad_in_a_row = 0;
        if self.phase != Phase::Open {
            let text = "send `connect` first and wait for `welcome`";
            return Err(WireError::new(ErrorCode::Unauthorized, text).into());
        }
        let request = match command {
            Command::Connect(_) => unreachable!("handled above"),
            Command::Subscribe(subscribe) => self.subscribe(&subscribe, now),
            Command::Unsubscribe { topic } => self.unsubscribe(&topic),
            Command::Publish(publish) => self.publish(publish),
            Command::Ack { position } => match self.inbox() {
                Some(inbox) => Ok(Request::Ack(inbox, position)),
                None => Err(WireError::forbidden("an anonymous session has no inbox")),
            },
            Command::History(history) => self.history(history),
            Command::Presence {
                topic,
                after,
                limit,
            } => self.presence(&topic, after, limit),
            Command::Refresh { token } => self.refresh(&token, now),
            Command::Ping => Ok(Request::Ping),
        };
        request.map_err(Refusal::from)
    }

    fn connect(&mut self, mut connect: Connect, now: Now) -> Result<Request, Refusal> {
        if self.phase != Phase::Unauthenticated {
            let text = "a second `connect`: the session is open already";
            return Err(Refusal {
                error: WireError::bad_request(text),
                end: self.malformed(),
            });
        }
        let token = connect.token.take();
        let claims = token.map(|token| self.session_claims(&token, now));
        let claims = claims.transpose().map_err(refused_token)?;
        if let Some(claims) = &claims {
            self.choose_app(&claims.app).map_err(refused_token)?;
        }
        // An authorizer may say who comes without a token.
        let asks = self.settings.auth.authorize_connect.is_some();
        let anonymous = self.settings.auth.anonymous || asks;
        identity::may_open(self.holder(), claims.as_ref(), anonymous).map_err(not_opened)?;
        if asks {
            let claims = claims.or_else(|| self.identity.claims.clone());
            return Ok(Request::Ask(Box::new(Asking::Connect(connect, claims))));
        }
        let identity = match claims {
            Some(claims) => Identity {
                user: Some(claims.user.clone()),
                claims: Some(claims),
            },
            None => std::mem::take(&mut self.identity),
        };
        Ok(self.opens(identity, connect, now))
    }

    /// The session opens as this.
    pub(super) fn opens(&mut self, identity: Identity, connect: Connect, now: Now) -> Request {
        self.identity = identity;
        self.bad_in_a_row = 0;
        self.is_app_chosen = true;
        self.opening(now);
        Request::Open(connect)
    }

    fn unsubscribe(&mut self, name: &str) -> Result<Request, WireError> {
        let topic = Topic::new(&self.app, name)?;
        if topic.kind() == TopicKind::Everyone || self.inbox().as_ref() == Some(&topic) {
            return Err(WireError::forbidden("the own inbox and `@` cannot be left"));
        }
        match self.leave(&topic) {
            Some(presence) => Ok(Request::Unsubscribe(topic, presence)),
            None => Err(not_joined()),
        }
    }

    fn publish(&self, publish: Publish) -> Result<Request, WireError> {
        let topic = match (&publish.topic, &publish.user) {
            (Some(name), _) => Topic::new(&self.app, name)?,
            (None, Some(user)) => Topic::inbox(&self.app, &User::new(user)?),
            (None, None) => return Err(WireError::bad_request("`topic` or `user` is missing")),
        };
        let longest = self.config.session.key_bytes_max;
        for (name, key) in [
            ("key", &publish.key),
            ("idempotency_key", &publish.idempotency_key),
        ] {
            match key.as_ref().map(String::len) {
                Some(0) => return Err(WireError::bad_request(format!("`{name}` is empty"))),
                Some(n) if n > longest => {
                    let text = format!("`{name}` is longer than {longest} bytes");
                    return Err(WireError::new(ErrorCode::TooLarge, text));
                }
                _ => {}
            }
        }
        self.may_publish(&topic)?;
        Ok(Request::Publish(topic, Box::new(publish)))
    }

    fn history(&self, history: History) -> Result<Request, WireError> {
        let topic = Topic::new(&self.app, &history.topic)?;
        self.may_read_history(&topic)?;
        check_limit(history.limit, self.config.session.page_max)?;
        Ok(Request::History(topic, history))
    }

    fn presence(
        &self,
        name: &str,
        after: Option<String>,
        limit: Option<u32>,
    ) -> Result<Request, WireError> {
        let topic = Topic::new(&self.app, name)?;
        self.may_see_members(&topic)?;
        let limit = check_limit(limit, self.config.session.page_max)?;
        Ok(Request::Presence(topic, after, limit))
    }

    fn refresh(&mut self, token: &str, now: Now) -> Result<Request, WireError> {
        let claims = self.session_claims(token, now).map_err(used_error)?;
        identity::may_go_on(self.holder(), &claims).map_err(|why| {
            WireError::forbidden(match why {
                Mismatch::OtherApp => OTHER_APP,
                _ => "the token belongs to another user",
            })
        })?;
        if self.settings.auth.authorize_connect.is_some() {
            return Ok(Request::Ask(Box::new(Asking::Refresh(claims))));
        }
        Ok(self.renew(claims))
    }

    /// Goes on by these claims. The topics are to be judged by them.
    pub(super) fn renew(&mut self, claims: Claims) -> Request {
        let expires = claims.expires;
        self.told_expiring = false;
        self.rejudge(|machine| machine.identity.claims = Some(claims));
        Request::Refreshed(expires)
    }
}

impl std::fmt::Debug for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Machine")
            .field("phase", &self.phase)
            .finish_non_exhaustive()
    }
}

/// What a client is told whose `connect` opens no session, though its token is a valid one.
pub(super) fn not_opened(why: Mismatch) -> WireError {
    match why {
        Mismatch::NoToken => {
            let text = "`connect` needs a `token`: this server lets no anonymous sessions in";
            WireError::new(ErrorCode::Unauthorized, text)
        }
        Mismatch::OtherApp => WireError::forbidden(OTHER_APP),
        Mismatch::OtherUser | Mismatch::OtherTopic => {
            WireError::forbidden("the token belongs to another user than that of the handshake")
        }
    }
}

/// What a client is told of a bad token.
#[must_use]
pub fn token_error(error: TokenError) -> WireError {
    let mut told = WireError::new(error.code(), error.to_string());
    told.retry_after_ms = error.retry_after_ms();
    told
}

/// A bad token at the door: the client is told, then the session ends.
#[must_use]
pub fn refused_token(error: TokenError) -> Refusal {
    Refusal {
        error: token_error(error),
        end: Some(error.close()),
    }
}

/// The page's size: 100 unless asked otherwise.
fn check_limit(limit: Option<u32>, most: u32) -> Result<u32, WireError> {
    match limit {
        None => Ok(100.min(most)),
        Some(n) if (1..=most).contains(&n) => Ok(n),
        Some(0) => Err(WireError::bad_request("`limit` must be at least 1")),
        Some(_) => Err(WireError::new(
            ErrorCode::LimitExceeded,
            format!("`limit` must be at most {most}"),
        )),
    }
}

#[cfg(test)]
mod tests;
