//! What a session has joined, and what it asks to join: by `subscribe`, or with `connect`.
//!
//! In: the fields of `subscribe`. Out: a [`Joining`] to carry out, an [`Amendment`] of what is
//! joined already, or the error to tell. Pure, and a part of [`super::state`]. Each stay in a topic
//! has a number, so that an answer to an earlier one is recognised. Bound: `session.topics_max`.

use std::time::Duration;

use fanfare_protocol::command::Subscribe;
use fanfare_protocol::error::{ErrorCode, WireError};
use fanfare_protocol::ids::{Position, Topic};

use super::authorizing::Authorized;
use super::clock::Due;
use super::permission::already_subscribed;
use super::state::{Machine, Now, Request};

/// One joined topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Joined {
    pub(super) topic: Topic,
    pub(super) presence: bool,
    /// The token for this topic by which it was joined, as long as that has not ended.
    pub(super) token: Option<TopicToken>,
    /// Until when an authorizer lets it stay, where it said so.
    pub(super) authorized: Option<Authorized>,
    stay: u64,
}

/// A token for one topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TopicToken {
    /// Its end, in unix seconds.
    pub(super) expires: u64,
    /// The client was told that it ends.
    pub(super) is_told: bool,
    /// When it was issued, in unix seconds; 0 where it does not say.
    pub(super) issued: u64,
    /// Its `jti`.
    pub(super) id: Option<Box<str>>,
}

/// Where a topic is to begin.
#[derive(Debug, Clone, Copy, Default)]
pub struct Begin {
    /// After this position.
    pub since: Option<Position>,
    /// Or with the newest so many.
    pub rewind: Option<u32>,
    /// How far back it may be caught up; `None`: as far as is retained.
    pub reach: Option<Duration>,
}

/// A topic that the session has joined, and how it begins.
#[derive(Debug)]
pub struct Joining {
    /// Which.
    pub topic: Topic,
    /// The number of the stay that begins.
    pub stay: u64,
    /// Where it begins.
    pub begin: Begin,
    /// Become a member.
    pub presence: bool,
    /// End of the token for this topic, in unix seconds, where one was given.
    pub expires: Option<u64>,
    /// The authorizer that is asked first.
    pub asks: Option<Box<str>>,
}

/// What was added to a topic that is joined already.
#[derive(Debug)]
pub struct Amendment {
    /// Which.
    pub topic: Topic,
    /// The number of the stay.
    pub stay: u64,
    /// Become a member.
    pub presence: bool,
    /// End of the new token for this topic, in unix seconds, where one was given.
    pub expires: Option<u64>,
    /// The session may be caught up with all that is retained, and could not before.
    pub unlimited: bool,
    /// The authorizer that is asked first, where it becomes a member.
    pub asks: Option<Box<str>>,
}

/// How a topic begins to which the session belongs unasked: its inbox, and `@`.
#[derive(Debug)]
pub struct OwnTopic {
    /// Which.
    pub topic: Topic,
    /// What `connect` says of it; `None`: nothing.
    pub named: Option<Result<Begin, WireError>>,
}

impl Machine {
    /// `subscribe`: joins a topic, or adds a membership or a newer token to one that is joined.
    pub(super) fn subscribe(
        &mut self,
        subscribe: &Subscribe,
        now: Now,
    ) -> Result<Request, WireError> {
        let topic = Topic::new(self.app(), &subscribe.topic)?;
        let token = self.topic_token(subscribe, &topic, now)?;
        let begins = subscribe.since.is_some() || subscribe.rewind.is_some();
        if !begins && (subscribe.presence || token.is_some()) && self.has_joined(&topic) {
            let amended = self.amend(topic, subscribe.presence, token);
            return amended.map(Request::Amend);
        }
        let joining = self.join_by(topic, subscribe, token);
        joining.map(Request::Subscribe)
    }

    /// The same for an entry of `connect`.
    ///
    /// # Errors
    /// What the client is told of it.
    pub fn joining(&mut self, subscribe: &Subscribe, now: Now) -> Result<Joining, WireError> {
        let topic = Topic::new(self.app(), &subscribe.topic)?;
        let token = self.topic_token(subscribe, &topic, now)?;
        self.join_by(topic, subscribe, token)
    }

    /// How the own inbox or `@` begins, where `connect` may have named it. It is joined whatever
    /// that says.
    #[must_use]
    pub fn own_topic(&self, topic: Topic, named: Option<&Subscribe>) -> OwnTopic {
        let named = named.map(|subscribe| {
            let Subscribe {
                since,
                rewind,
                token,
                presence,
                ..
            } = subscribe;
            if rewind.is_some() || token.is_some() || *presence {
                let text =
                    "the own inbox and `@` are joined by themselves; only `since` goes with them";
                return Err(WireError::bad_request(text));
            }
            Ok(Begin {
                since: *since,
                rewind: None,
                reach: self.reach(&topic, *since, None, false)?,
            })
        });
        OwnTopic { topic, named }
    }

    fn join_by(
        &mut self,
        topic: Topic,
        subscribe: &Subscribe,
        token: Option<TopicToken>,
    ) -> Result<Joining, WireError> {
        let (since, rewind) = (subscribe.since, subscribe.rewind);
        self.may_subscribe(&topic, subscribe.presence, token.is_some())?;
        let reach = self.reach(&topic, since, rewind, token.is_some())?;
        self.stays += 1;
        let expires = token.as_ref().map(|token| token.expires);
        self.joined.push(Joined {
            topic: topic.clone(),
            presence: subscribe.presence,
            token,
            authorized: None,
            stay: self.stays,
        });
        Ok(Joining {
            asks: self.asks_to_join(&topic),
            topic,
            stay: self.stays,
            begin: Begin {
                since,
                rewind,
                reach,
            },
            presence: subscribe.presence,
            expires,
        })
    }

    fn amend(
        &mut self,
        topic: Topic,
        presence: bool,
        token: Option<TopicToken>,
    ) -> Result<Amendment, WireError> {
        let known = self.joined.iter().find(|j| j.topic == topic);
        let (is_member, has_token) =
            known.map_or((false, false), |j| (j.presence, j.token.is_some()));
        if is_member && token.is_none() {
            return Err(already_subscribed(&topic));
        }
        let has_token = has_token || token.is_some();
        let was_limited = self.is_limited(&topic);
        self.may_stay(&topic, is_member || presence, has_token)?;
        let enters = presence && !is_member;
        let asks = enters.then(|| self.asks_to_join(&topic)).flatten();
        let joined = self.joined.iter_mut().find(|j| j.topic == topic);
        let joined = joined.ok_or_else(not_joined)?;
        joined.presence |= presence;
        let expires = token.as_ref().map(|token| token.expires);
        joined.token = token.or(joined.token.take());
        Ok(Amendment {
            stay: joined.stay,
            unlimited: was_limited && !self.is_limited(&topic),
            presence: enters,
            expires,
            asks,
            topic,
        })
    }

    /// The token for a topic has ended. Where the session may not stay without, it leaves. `None`:
    /// it stays as it was.
    pub(super) fn end_topic_token(&mut self, topic: Topic) -> Option<Due> {
        let was_limited = self.is_limited(&topic);
        let joined = self.joined.iter_mut().find(|j| j.topic == topic)?;
        joined.token = None;
        let presence = joined.presence;
        if self.may_stay(&topic, presence, false).is_err() {
            let was_member = self.leave(&topic)?;
            return Some(Due::Left(topic, was_member));
        }
        (!was_limited && self.is_limited(&topic)).then_some(Due::Limited(topic))
    }

    /// A membership that was asked for did not come about.
    pub fn is_no_member(&mut self, topic: &Topic) {
        if let Some(joined) = self.joined.iter_mut().find(|j| j.topic == *topic) {
            joined.presence = false;
        }
    }

    /// The number of the present stay in a topic; `None` when it is not joined. An answer that
    /// belongs to an earlier stay is recognised by it: the client may have left, and joined
    /// again, while it was on its way.
    #[must_use]
    pub fn stay(&self, topic: &Topic) -> Option<u64> {
        let joined = self.joined.iter().find(|j| j.topic == *topic)?;
        Some(joined.stay)
    }

    /// Forgets a topic. Returns whether the session was a member there; `None` when it had not
    /// joined.
    pub fn leave(&mut self, topic: &Topic) -> Option<bool> {
        let at = self.joined.iter().position(|j| j.topic == *topic)?;
        Some(self.joined.swap_remove(at).presence)
    }

    /// The topics in which the session is a member.
    pub fn memberships(&self) -> impl Iterator<Item = &Topic> {
        self.joined.iter().filter(|j| j.presence).map(|j| &j.topic)
    }

    /// Whether the session has joined the topic by command.
    #[must_use]
    pub fn has_joined(&self, topic: &Topic) -> bool {
        self.joined.iter().any(|j| j.topic == *topic)
    }
}

/// What a client is told of a topic that it would have to have joined.
#[must_use]
pub fn not_joined() -> WireError {
    let text = "the session has not joined that topic";
    WireError::new(ErrorCode::NotSubscribed, text)
}
