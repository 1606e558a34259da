//! What a session may do, as [`crate::policy`] says, with what it has joined and for how long.
//!
//! In: an operation on a topic. Out: nothing, or the error to tell. Pure, and a part of
//! [`super::state`]. To belong to the own inbox and to `@` is no right: every session does, nobody
//! joins or leaves them.
//!
//! Catching up is reading history, as soon as it is more than a reconnect. Without that right a
//! session is caught up for `session.resume_s` and no further: what is older counts as not
//! retained, and what asks for no position that it was told (`rewind`, `0-0`) is forbidden.

use std::time::Duration;

use crate::auth::error::TokenError;
use crate::auth::rights::Rights;
use crate::config::app::AppSettings;
use crate::policy::identity::{self, Holder, Mismatch};
use crate::policy::{self, Denied, OnTopic, Subject};
use fanfare_protocol::command::Subscribe;
use fanfare_protocol::error::{ErrorCode, WireError};
use fanfare_protocol::ids::{Position, Topic, TopicKind};

use super::joining::TopicToken;
use super::state::{Machine, Now, token_error};

impl Machine {
    /// Whether the session may join a topic that stands in `connect` or `subscribe`.
    ///
    /// # Errors
    /// What the client is told.
    pub fn may_subscribe(
        &self,
        topic: &Topic,
        presence: bool,
        topic_token: bool,
    ) -> Result<(), WireError> {
        let is_own = self.inbox().as_ref() == Some(topic);
        match topic.kind() {
            TopicKind::Plain if !self.has_joined(topic) => {}
            // Nobody may, whatever else there is to say.
            TopicKind::Inbox | TopicKind::Presence if !is_own => {
                return self.may_stay(topic, presence, topic_token);
            }
            _ => return Err(already_subscribed(topic)),
        }
        let most = self.config.session.topics_max;
        if self.joined.len() >= most {
            let text = format!("a session joins at most {most} topics");
            return Err(WireError::new(ErrorCode::LimitExceeded, text));
        }
        self.may_stay(topic, presence, topic_token)
    }

    /// Whether the rights for a subscription are there (still, after a refresh).
    pub(super) fn may_stay(
        &self,
        topic: &Topic,
        presence: bool,
        topic_token: bool,
    ) -> Result<(), WireError> {
        self.may(OnTopic::Subscribe, topic, topic_token)?;
        match presence {
            true => self.may(OnTopic::Presence, topic, topic_token),
            false => Ok(()),
        }
    }

    /// Whether the session may see who is in the topic.
    pub(super) fn may_see_members(&self, topic: &Topic) -> Result<(), WireError> {
        self.may(OnTopic::Presence, topic, self.has_joined_by_token(topic))
    }

    /// Whether the session may publish on the topic.
    pub(super) fn may_publish(&self, topic: &Topic) -> Result<(), WireError> {
        self.may(OnTopic::Publish, topic, false)
    }

    /// Whether the session may read what the topic retains.
    pub(super) fn may_read_history(&self, topic: &Topic) -> Result<(), WireError> {
        self.may(OnTopic::History, topic, self.has_joined_by_token(topic))
    }

    /// How far back the session may be caught up, where a topic begins like that; `None`: as far as
    /// is retained. The own inbox is one's own.
    pub(super) fn reach(
        &self,
        topic: &Topic,
        since: Option<Position>,
        rewind: Option<u32>,
        topic_token: bool,
    ) -> Result<Option<Duration>, WireError> {
        let rewinds = rewind.is_some_and(|count| count > 0);
        let is_own = self.inbox().as_ref() == Some(topic);
        if is_own || (since.is_none() && !rewinds) {
            return Ok(None);
        }
        if self.may(OnTopic::History, topic, topic_token).is_ok() {
            return Ok(None);
        }
        if rewinds || since == Some(Position::ZERO) {
            let text =
                "`rewind` and `0-0` need the right `history`; a position that was told does not";
            return Err(WireError::forbidden(text));
        }
        Ok(Some(self.config.session.resume))
    }

    /// Whether the session, as it is now, is caught up with a topic only so far back.
    #[must_use]
    pub fn is_limited(&self, topic: &Topic) -> bool {
        let is_own = self.inbox().as_ref() == Some(topic);
        !is_own && self.may_read_history(topic).is_err()
    }

    /// The place that the client is told where a topic begins: one that it may come back with.
    #[must_use]
    pub fn told_place(&self, topic: &Topic, position: Position) -> Position {
        let is_unwritten = position == Position::ZERO && topic.kind() == TopicKind::Plain;
        if is_unwritten && self.may_read_history(topic).is_err() {
            return Position::UNWRITTEN;
        }
        position
    }

    /// Checks the token for one topic that came with a `subscribe`, if any: of the same user, for
    /// that very topic.
    pub(super) fn topic_token(
        &mut self,
        subscribe: &Subscribe,
        topic: &Topic,
        now: Now,
    ) -> Result<Option<TopicToken>, WireError> {
        let Some(token) = &subscribe.token else {
            return Ok(None);
        };
        if self.holder().user.is_none() {
            // It is somebody else's whatever it says, so nobody makes the node check its signature.
            return Err(WireError::forbidden(OTHER_TOPIC_TOKEN));
        }
        let (claims, named) = self.topic_claims(token, now).map_err(used_error)?;
        identity::may_open_topic(self.holder(), (&claims, named.as_str()), topic).map_err(
            |why| {
                WireError::forbidden(match why {
                    Mismatch::OtherApp => OTHER_APP,
                    _ => OTHER_TOPIC_TOKEN,
                })
            },
        )?;
        Ok(Some(TopicToken {
            expires: claims.expires,
            is_told: false,
            issued: claims.issued,
            id: claims.id,
        }))
    }

    fn has_joined_by_token(&self, topic: &Topic) -> bool {
        let mut joined = self.joined.iter();
        joined.any(|j| j.topic == *topic && j.token.is_some())
    }

    /// Who the session is, as the judge wants it.
    pub(super) fn holder(&self) -> Holder<'_> {
        Holder {
            app: self.app(),
            user: self.identity.user.as_ref(),
        }
    }

    pub(super) fn may(
        &self,
        operation: OnTopic,
        topic: &Topic,
        has_topic_token: bool,
    ) -> Result<(), WireError> {
        let can = self.identity.claims.as_ref().and_then(|c| c.can.as_deref());
        self.may_by((can, &self.settings), operation, topic, has_topic_token)
            .map_err(|denied| WireError::forbidden(told(denied, operation)))
    }

    /// The same by what the token and the app say, or said before.
    pub(super) fn may_by(
        &self,
        (can, settings): (Option<&Rights>, &AppSettings),
        operation: OnTopic,
        topic: &Topic,
        has_topic_token: bool,
    ) -> Result<(), Denied> {
        let subject = Subject::Session {
            app: self.app(),
            user: self.identity.user.as_ref(),
            can,
            has_topic_token,
        };
        policy::may(subject, operation, topic, settings.namespace(topic))
    }
}

/// What a client is told whose token for a topic is another one's.
const OTHER_TOPIC_TOKEN: &str = "the token is for another user or topic";

/// What a client is told of a bad token that comes with another command than `connect`.
pub(super) fn used_error(error: TokenError) -> WireError {
    match error {
        TokenError::OtherApp => WireError::forbidden(OTHER_APP),
        error => token_error(error),
    }
}

/// What a client is told whose token is one of another app.
pub(super) const OTHER_APP: &str = "the token belongs to another app";

/// What a client is told that may not do something.
fn told(denied: Denied, operation: OnTopic) -> &'static str {
    match (denied, operation) {
        (Denied::NoPresence, _) => "this namespace keeps no presence",
        (Denied::NoMembers, _) => "inboxes and `@` have no members to show",
        (Denied::ApiOnly, _) => "`@` is published by the API only",
        (Denied::OfAnotherApp, _) => "the topic is one of another app",
        (Denied::OfAnother, OnTopic::Subscribe) => "another user's inbox cannot be joined",
        (Denied::OfAnother, _) => "another user's inbox cannot be read",
        (
            Denied::NotPermitted
            | Denied::NoScope(_)
            | Denied::NotOfClient
            | Denied::OfAllTopics
            | Denied::OfAllApps,
            _,
        ) => "not allowed here: neither the namespace nor the token permits it",
    }
}

/// What a client is told that joins a topic which it has joined.
pub(super) fn already_subscribed(topic: &Topic) -> WireError {
    WireError::new(
        ErrorCode::AlreadySubscribed,
        format!("the session belongs to `{topic}` already"),
    )
}
