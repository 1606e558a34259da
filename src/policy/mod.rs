//! Who may do what with a topic: asked at every door, answered here.
//!
//! In: who asks ([`Subject`]), what for ([`Operation`]), the topic and what its namespace says. Out:
//! nothing, or why not ([`Denied`]), which each door tells in its own words. Pure; owns nothing.
//!
//! A backend with a key of the API may do everything that a topic can do. A session is bound by its
//! namespace's rule and its token's `can` (`auth::rights`). The own inbox's history needs no `can`;
//! only `inbox.history = "nobody"` forbids it.
//!
//! A token for one topic is a token for being subscribed to it. It stands in for a matching `can`
//! where a subscriber needs one: to subscribe with it, to be a member and see members, and to read
//! the topic's history, as long as the session stays and until it ends. It never lets anybody
//! publish: who may write is said by the session's own token.

use crate::auth::rights::{Operation, Rights, permitted};
use crate::config::Namespace;
use fanfare_protocol::ids::{Topic, TopicKind, User};

/// Who asks.
#[derive(Debug, Clone, Copy)]
pub enum Subject<'a> {
    /// A backend with a key of the API.
    Api,
    /// A session.
    Session {
        /// Its user; `None` for anonymous sessions.
        user: Option<&'a User>,
        /// What its token says, if that restricts it.
        can: Option<&'a Rights>,
        /// It holds a valid token for the topic that is asked about.
        has_topic_token: bool,
    },
}

/// Why something may not be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denied {
    /// The namespace keeps no presence.
    NoPresence,
    /// The topic is of a kind that has no members.
    NoMembers,
    /// Only the API publishes there.
    ApiOnly,
    /// It is another user's inbox.
    OfAnother,
    /// Neither the namespace nor the token permits it.
    NotPermitted,
}

/// Whether `subject` may do this with the topic, whose namespace is given.
///
/// # Errors
/// Why it may not.
pub fn may(
    subject: Subject<'_>,
    operation: Operation,
    topic: &Topic,
    namespace: &Namespace,
) -> Result<(), Denied> {
    let Subject::Session {
        user,
        can,
        has_topic_token,
    } = subject
    else {
        let is_kept = namespace.presence || operation != Operation::Presence;
        return is_kept.then_some(()).ok_or(Denied::NoPresence);
    };
    let is_own = is_own(user, topic);
    let (rule, named) = match (operation, topic.kind()) {
        (Operation::Publish, TopicKind::Everyone) => return Err(Denied::ApiOnly),
        (Operation::Publish, _) => (namespace.publish, false),
        (Operation::Subscribe, TopicKind::Inbox | TopicKind::Presence) if !is_own => {
            return Err(Denied::OfAnother);
        }
        (Operation::Subscribe, _) => (namespace.subscribe, has_topic_token),
        (Operation::History, TopicKind::Inbox) if !is_own => return Err(Denied::OfAnother),
        (Operation::History, _) => (namespace.history, is_own || has_topic_token),
        (Operation::Presence, TopicKind::Plain) if namespace.presence => {
            (namespace.presence_allow, has_topic_token)
        }
        (Operation::Presence, TopicKind::Plain) => return Err(Denied::NoPresence),
        (Operation::Presence, _) => return Err(Denied::NoMembers),
    };
    let is_permitted = permitted(rule, operation, topic, user, can, named);
    is_permitted.then_some(()).ok_or(Denied::NotPermitted)
}

/// Whether the topic is this user's inbox.
fn is_own(user: Option<&User>, topic: &Topic) -> bool {
    user.is_some_and(|user| topic.inbox_user() == Some(user.as_str()))
}

#[cfg(test)]
mod tests;
