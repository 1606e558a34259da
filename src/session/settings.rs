//! The app of a session, what that sets, and what a change of it means.
//!
//! In: the app of the handshake or of the token of `connect`; that the app has changed or is gone. Out:
//! the options of a topic; which topics the session may not stay in any more and with which it may be
//! caught up otherwise; or its end. The claims stay: no key is tried again. A session may choose its
//! app once, with its first `connect`, before it has joined anything or is anybody. Pure in
//! [`Machine`]. Bound: topics are judged for [`JUDGED_FOR`] in one go, because a token may have a thousand
//! patterns and a session many topics, and a client may ask for it again and again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::auth::error::TokenError;
use crate::auth::rights::Rights;
use crate::config::Namespace;
use crate::config::app::AppSettings;
use crate::policy::OnTopic;
use crate::telemetry::labels::CommandType;
use fanfare_protocol::close::CloseReason;
use fanfare_protocol::command::{Command, Connect};
use fanfare_protocol::error::ErrorCode;
use fanfare_protocol::event::Ok as Answer;
use fanfare_protocol::ids::{App, Topic, TopicKind};

use super::Session;
use super::state::{Machine, Now, Phase};

/// How long topics are judged before the other sessions of the worker have their turn.
const JUDGED_FOR: Duration = Duration::from_micros(500);

/// What another token, or another setting of the app, changes in one topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Judged {
    /// Nothing.
    Stays,
    /// It is no longer allowed, and is left. True: the session was a member.
    Lost(bool),
    /// The session may be caught up otherwise than before: whether it may not read all.
    Limited(bool),
}

/// Topics that are still to be judged, since the session may do something else than before.
#[derive(Debug)]
pub(super) struct Rejudging {
    /// What the token said before.
    can: Option<Arc<Rights>>,
    /// What the app set before.
    settings: Arc<AppSettings>,
    /// `@` is still to be judged.
    is_everyone_left: bool,
    /// The last of them in `joined` are judged, these at its beginning are not.
    left: usize,
}

/// What is done with each topic that is judged, and when all are.
#[derive(Debug)]
pub(super) struct Obeying {
    /// What a client is told of a topic that it loses.
    text: &'static str,
    /// Whether topics have history is told to the worker too.
    sets_history: bool,
    /// The `refresh` that is answered then: its id, the end of the token, and when it was read.
    answers: Option<(Option<u64>, u64, Now)>,
}

impl Machine {
    /// The options of a topic of the session's app.
    pub(super) fn namespace(&self, topic: &Topic) -> &Namespace {
        self.settings.namespace(topic)
    }

    /// The app whose keys are tried for a token; `None`: the token's own claim chooses.
    pub(super) fn chosen_app(&self) -> Option<&App> {
        self.is_app_chosen.then_some(&self.app)
    }

    /// The same for all tokens of a command: those of a `connect` are of the app that its own token
    /// chooses.
    pub(super) fn asked_app(&self, command: &Command) -> Option<App> {
        match command {
            Command::Connect(Connect {
                token: Some(token), ..
            }) if !self.is_app_chosen => self.verifier.claimed_app(token),
            _ => Some(self.app.clone()),
        }
    }

    /// Takes the app of the token of `connect`, where nothing has said which.
    ///
    /// # Errors
    /// [`TokenError::UnknownApp`]: it is gone since the token was checked.
    pub(super) fn choose_app(&mut self, app: &App) -> Result<(), TokenError> {
        if !self.is_app_chosen {
            self.settings = self.apps.get(app).ok_or(TokenError::UnknownApp)?;
            self.app = app.clone();
            self.is_app_chosen = true;
        }
        Ok(())
    }

    /// Carries out a change of what the session may do. Its topics are to be judged then, by
    /// [`Self::judge_next`]. None may be left of an earlier change.
    pub(super) fn rejudge(&mut self, change: impl FnOnce(&mut Self)) {
        let claims = self.identity.claims.as_ref();
        let rejudging = Rejudging {
            can: claims.and_then(|claims| claims.can.clone()),
            settings: Arc::clone(&self.settings),
            is_everyone_left: true,
            left: self.joined.len(),
        };
        change(self);
        self.rejudging = Some(Box::new(rejudging));
    }

    /// Judges one more topic, and leaves it where it is not allowed any more. `None`: all are judged.
    ///
    /// From the last to the first: what is joined meanwhile is judged by what holds already, and
    /// one that is left makes room for a later one.
    pub(super) fn judge_next(&mut self) -> Option<(Topic, Judged)> {
        let mut rejudging = self.rejudging.take()?;
        if std::mem::take(&mut rejudging.is_everyone_left) {
            let topic = Topic::everyone(&self.app);
            let judged = self.judge_limit(&topic, false, &rejudging);
            self.rejudging = Some(rejudging);
            return Some((topic, judged));
        }
        let at = rejudging.left.min(self.joined.len()).checked_sub(1)?;
        rejudging.left = at;
        let joined = &self.joined[at];
        let (topic, presence) = (joined.topic.clone(), joined.presence);
        let by_token = joined.token.is_some();
        let judged = match self.may_stay(&topic, presence, by_token) {
            Ok(()) => self.judge_limit(&topic, by_token, &rejudging),
            Err(_) => {
                self.joined.swap_remove(at);
                Judged::Lost(presence)
            }
        };
        self.rejudging = Some(rejudging);
        Some((topic, judged))
    }

    fn judge_limit(&self, topic: &Topic, by_token: bool, before: &Rejudging) -> Judged {
        let is_limited = self.may(OnTopic::History, topic, by_token).is_err();
        let by = (before.can.as_deref(), &*before.settings);
        let was_limited = self.may_by(by, OnTopic::History, topic, by_token).is_err();
        match is_limited == was_limited {
            true => Judged::Stays,
            false => Judged::Limited(is_limited),
        }
    }

    /// The app sets something else; `None`: it is gone. One that was made anew under its name is another.
    /// Returns whether topics are to be judged for it.
    ///
    /// # Errors
    /// The session ends for this.
    pub(super) fn take_settings(
        &mut self,
        settings: Option<Arc<AppSettings>>,
    ) -> Result<bool, CloseReason> {
        let settings = settings.filter(|settings| !settings.is_other_than(&self.settings));
        let settings = settings.ok_or(CloseReason::Disconnected)?;
        if Arc::ptr_eq(&settings, &self.settings) {
            return Ok(false);
        }
        let is_in = self.phase != Phase::Unauthenticated;
        if is_in && self.identity.user.is_none() && !settings.auth.anonymous {
            return Err(CloseReason::Unauthorized);
        }
        self.rejudge(|machine| machine.settings = settings);
        Ok(true)
    }

    /// Whether the topic has history now.
    fn has_history(&self, topic: &Topic) -> bool {
        self.namespace(topic).history_entries_max > 0
    }
}

impl Session {
    /// Looks at what the app sets now, and obeys.
    pub(super) fn obey_app(&mut self) {
        let settings = self.calls.services.apps.get(self.machine.app());
        self.judge_all();
        match self.machine.take_settings(settings) {
            Ok(false) => {}
            Ok(true) => {
                if let Some(inbox) = self.machine.inbox() {
                    let has_history = self.machine.has_history(&inbox);
                    self.calls.worker.set_history(&inbox, has_history);
                }
                self.obeying = Some(Box::new(Obeying {
                    text: "the settings of the app do not permit this topic any more",
                    sets_history: true,
                    answers: None,
                }));
            }
            Err(reason) => {
                let (session, app) = (self.calls.session, self.machine.app().as_str());
                let word = reason.label();
                tracing::debug!(event = "session_dismissed", %session, app, reason = word, "the app of a session has changed or is gone");
                self.end(reason);
            }
        }
    }

    /// The token was renewed: the topics are judged by it, and then the client is answered.
    pub(super) fn renewed(&mut self, id: Option<u64>, expires: u64, read: Now) {
        self.obeying = Some(Box::new(Obeying {
            text: "the new token does not permit this topic",
            sets_history: false,
            answers: Some((id, expires, read)),
        }));
        self.judge_some();
    }

    /// Judges topics for a moment: there may be many, and each may be judged by many patterns. The
    /// session reads nothing until all are judged, and the others have their turn in between.
    pub(super) fn judge_some(&mut self) {
        let until = Instant::now() + JUDGED_FOR;
        while self.judge_one() {
            if Instant::now() >= until {
                self.has_checked = true;
                return;
            }
        }
    }

    /// The same without a pause, before there is another change: who sets apps makes few of them.
    fn judge_all(&mut self) {
        while self.judge_one() {}
    }

    /// Judges the next topic and obeys. False: there was none left.
    fn judge_one(&mut self) -> bool {
        let Some(obeying) = self.obeying.take() else {
            return false;
        };
        let Some((topic, judged)) = self.machine.judge_next() else {
            self.judged_all(*obeying);
            return false;
        };
        if obeying.sets_history && topic.kind() != TopicKind::Presence {
            let has_history = self.machine.has_history(&topic);
            self.calls.worker.set_history(&topic, has_history);
        }
        match judged {
            Judged::Stays => {}
            Judged::Limited(is_limited) => {
                self.calls.worker.limit(self.calls.key, &topic, is_limited);
            }
            Judged::Lost(was_member) => {
                self.unsubscribe(topic, was_member, ErrorCode::Forbidden, obeying.text);
            }
        }
        self.obeying = Some(obeying);
        true
    }

    fn judged_all(&mut self, obeying: Obeying) {
        let Some((id, expires, read)) = obeying.answers else {
            return;
        };
        self.ok(Answer {
            id,
            expires: Some(expires),
            ..Answer::default()
        });
        self.schedule(Now::read());
        self.answered(CommandType::Refresh, read.instant);
    }
}

#[cfg(test)]
mod tests;
