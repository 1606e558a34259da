//! The app of a session, what that sets, and what a change of it means.
//!
//! In: the app of the handshake or of the token of `connect`; that the app has changed or is gone. Out:
//! the options of a topic; which topics the session may not stay in any more and with which it may be
//! caught up otherwise; or its end. The claims stay: no key is tried again. A session may choose its
//! app once, with its first `connect`, before it has joined anything or is anybody. Pure in
//! [`Machine`].

use std::sync::Arc;

use crate::auth::error::TokenError;
use crate::config::Namespace;
use crate::config::app::AppSettings;
use fanfare_protocol::close::CloseReason;
use fanfare_protocol::command::{Command, Connect};
use fanfare_protocol::error::ErrorCode;
use fanfare_protocol::ids::{App, Topic, TopicKind};

use super::Session;
use super::permission::Limit;
use super::state::{Machine, Phase};

/// What another token, or another setting of the app, changes for a session.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Rejudged {
    /// The topics that are no longer allowed, which are left. True: the session was a member.
    pub lost: Vec<(Topic, bool)>,
    /// The topics with which the session may be caught up otherwise than before.
    pub limits: Vec<Limit>,
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

    /// Carries out a change of what the session may do, and leaves the topics that it may not stay in.
    pub(super) fn rejudge(&mut self, change: impl FnOnce(&mut Self)) -> Rejudged {
        let before = self.limits();
        change(self);
        let limits = self.limits().into_iter().zip(before);
        let limits = limits.filter(|(now, before)| now != before);
        let limits = limits.map(|(now, _)| now).collect();
        let stays = self.joined.iter().map(|joined| {
            let may_stay = self.may_stay(&joined.topic, joined.presence, joined.token.is_some());
            (joined, may_stay.is_ok())
        });
        let lost = stays.filter(|(_, may_stay)| !may_stay);
        let lost: Vec<_> = lost
            .map(|(joined, _)| (joined.topic.clone(), joined.presence))
            .collect();
        for (topic, _) in &lost {
            self.leave(topic);
        }
        Rejudged { lost, limits }
    }

    /// The app sets something else; `None`: it is gone. One that was made anew under its name is another.
    ///
    /// # Errors
    /// The session ends for this.
    pub(super) fn take_settings(
        &mut self,
        settings: Option<Arc<AppSettings>>,
    ) -> Result<Rejudged, CloseReason> {
        let settings = settings.filter(|settings| !settings.is_other_than(&self.settings));
        let settings = settings.ok_or(CloseReason::Disconnected)?;
        if Arc::ptr_eq(&settings, &self.settings) {
            return Ok(Rejudged::default());
        }
        let is_in = self.phase != Phase::Unauthenticated;
        if is_in && self.identity.user.is_none() && !settings.auth.anonymous {
            return Err(CloseReason::Unauthorized);
        }
        Ok(self.rejudge(|machine| machine.settings = settings))
    }

    /// The topics that the session is in, with whether each has history.
    fn kept(&self) -> impl Iterator<Item = (Topic, bool)> {
        let own = [Some(Topic::everyone(&self.app)), self.inbox()];
        let joined = self.joined.iter().map(|joined| joined.topic.clone());
        own.into_iter().flatten().chain(joined).map(|topic| {
            let has_history = self.namespace(&topic).history_entries_max > 0;
            (topic, has_history)
        })
    }
}

impl Session {
    /// Looks at what the app sets now, and obeys.
    pub(super) fn obey_app(&mut self) {
        let settings = self.calls.services.apps.get(self.machine.app());
        let before = Arc::clone(&self.machine.settings);
        match self.machine.take_settings(settings) {
            Ok(_) if Arc::ptr_eq(&before, &self.machine.settings) => {}
            Ok(rejudged) => {
                for (topic, has_history) in self.machine.kept() {
                    if topic.kind() != TopicKind::Presence {
                        self.calls.worker.set_history(&topic, has_history);
                    }
                }
                self.obey(
                    rejudged,
                    "the settings of the app do not permit this topic any more",
                );
            }
            Err(reason) => {
                let (session, app) = (self.calls.session, self.machine.app().as_str());
                let word = reason.label();
                tracing::debug!(event = "session_dismissed", %session, app, reason = word, "the app of a session has changed or is gone");
                self.end(reason);
            }
        }
    }

    /// Leaves what the session may not stay in, and is caught up as it now may be.
    pub(super) fn obey(&mut self, rejudged: Rejudged, text: &str) {
        for (topic, was_member) in rejudged.lost {
            self.unsubscribe(topic, was_member, ErrorCode::Forbidden, text);
        }
        let (worker, key) = (&self.calls.worker, self.calls.key);
        for limit in rejudged.limits {
            worker.limit(key, &limit.topic, limit.is_limited);
        }
    }
}

#[cfg(test)]
mod tests;
