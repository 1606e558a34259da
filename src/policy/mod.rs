//! The one judge: who may do what. Every door asks here, and none decides by itself.
//!
//! In: who asks ([`Subject`]), what for ([`OnTopic`] or [`Overall`]), the topic and what its namespace
//! says. Out: nothing, or why not ([`Denied`]), which each door tells in its own words. Pure; owns
//! nothing. Whose token may stand for whom is in [`identity`], for which app a call of the API is made
//! in [`calls`]. The rules as tables: `docs/security.md`.
//!
//! Whoever asks has an app, and nobody is let near a topic of another one.
//!
//! A client of the API needs the scope of what it asks for. Where it has `topics`, each topic that it
//! names must match one of them (a user by the inbox), and what speaks of all topics at once is not
//! for it. A client of one app may ask for what is about all apps (the queue's depth, nodes) only while
//! there is no other app, and never for the apps themselves. A namespace's rules are for sessions and do not bind it, but nobody sees members where none
//! are kept.
//!
//! A session is bound by its namespace's rule and its token's `can` (`auth::rights`). The own inbox's
//! history needs no `can`; only `inbox.history = "nobody"` forbids it. A token for one topic is a token
//! for being subscribed to it. It stands in for a matching `can` where a subscriber needs one: to
//! subscribe with it, to be a member and see members, and to read the topic's history, as long as the
//! session stays and until it ends. It never lets anybody publish: who may write is said by the
//! session's own token.

use crate::auth::rights::{Operation, Rights, permitted};
use crate::config::Namespace;
use crate::config::api_clients::{ApiClient, ClientApp, Scope};
use fanfare_protocol::ids::{App, Topic, TopicKind, User};

pub mod calls;
pub mod identity;
#[cfg(test)]
mod model;

/// Who asks.
#[derive(Debug, Clone, Copy)]
pub enum Subject<'a> {
    /// A backend with a key of the API.
    Client {
        /// The app that it speaks of, as [`calls::app_of`] found it.
        app: &'a App,
        /// What the configuration says of it.
        client: &'a ApiClient,
        /// There is no other app, so that what is of all apps tells nothing of others.
        is_only_app: bool,
    },
    /// A session.
    Session {
        /// The app that it lives in.
        app: &'a App,
        /// Its user; `None` for anonymous sessions.
        user: Option<&'a User>,
        /// What its token says, if that restricts it.
        can: Option<&'a Rights>,
        /// It holds a valid token for the topic that is asked about.
        has_topic_token: bool,
    },
}

/// What is asked for with one topic. A user is spoken of by the inbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnTopic {
    /// Join it.
    Subscribe,
    /// Publish on it.
    Publish,
    /// Be a member and see members.
    Presence,
    /// Read what is retained.
    History,
    /// See where it has its home.
    Home,
    /// See how many sessions it has, and where.
    Inspect,
    /// Have something published on it by the durable queue.
    Enqueue,
    /// See the user's sessions.
    SeeUser,
    /// End the user's sessions.
    Disconnect,
    /// Revoke the user's tokens.
    RevokeUser,
}

impl OnTopic {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Subscribe,
        Self::Publish,
        Self::Presence,
        Self::History,
        Self::Home,
        Self::Inspect,
        Self::Enqueue,
        Self::SeeUser,
        Self::Disconnect,
        Self::RevokeUser,
    ];

    /// The scope that a client of the API needs.
    #[must_use]
    pub fn scope(self) -> Scope {
        match self {
            Self::Publish => Scope::Publish,
            Self::Subscribe | Self::Presence | Self::History | Self::Home | Self::Inspect => {
                Scope::Read
            }
            Self::Enqueue => Scope::Queue,
            Self::SeeUser | Self::Disconnect | Self::RevokeUser => Scope::Users,
        }
    }
}

/// What is asked for with no topic, or with all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overall {
    /// List the topics that sessions have joined.
    ListTopics,
    /// See how much the queue has.
    SeeQueue,
    /// Read dead letters, of whichever topic.
    SeeDead,
    /// Make entries of them again.
    RedriveDead,
    /// Drop them.
    DropDead,
    /// Revoke tokens by their names.
    RevokeTokens,
    /// Revoke all tokens; asked besides the other.
    RevokeAll,
    /// See the nodes.
    SeeNodes,
    /// See how this node did.
    SeePerformance,
    /// Drain a node.
    Drain,
    /// Read the audit.
    SeeAudit,
    /// See the apps.
    SeeApps,
    /// Set and remove apps.
    SetApps,
}

impl Overall {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::ListTopics,
        Self::SeeQueue,
        Self::SeeDead,
        Self::RedriveDead,
        Self::DropDead,
        Self::RevokeTokens,
        Self::RevokeAll,
        Self::SeeNodes,
        Self::SeePerformance,
        Self::Drain,
        Self::SeeAudit,
        Self::SeeApps,
        Self::SetApps,
    ];

    /// The scope that a client of the API needs.
    #[must_use]
    pub fn scope(self) -> Scope {
        match self {
            Self::ListTopics => Scope::Read,
            Self::SeeQueue | Self::SeeDead | Self::RedriveDead | Self::DropDead => Scope::Queue,
            Self::RevokeTokens => Scope::Users,
            Self::RevokeAll
            | Self::SeeNodes
            | Self::SeePerformance
            | Self::Drain
            | Self::SeeAudit
            | Self::SeeApps
            | Self::SetApps => Scope::Admin,
        }
    }

    /// Whether it speaks of topics or users, so that a client that has `topics` may not ask for it.
    #[must_use]
    pub fn is_of_all_topics(self) -> bool {
        match self {
            Self::ListTopics
            | Self::SeeDead
            | Self::RedriveDead
            | Self::DropDead
            | Self::RevokeTokens
            | Self::RevokeAll
            | Self::SeeAudit
            | Self::SeeApps
            | Self::SetApps => true,
            Self::SeeQueue | Self::SeeNodes | Self::SeePerformance | Self::Drain => false,
        }
    }

    /// Which clients of one app may ask for it.
    fn of_one_app(self) -> OfOneApp {
        match self {
            Self::ListTopics
            | Self::SeeDead
            | Self::RedriveDead
            | Self::DropDead
            | Self::RevokeTokens
            | Self::RevokeAll
            | Self::SeeAudit => OfOneApp::May,
            Self::SeeQueue | Self::SeeNodes | Self::SeePerformance | Self::Drain => {
                OfOneApp::WhileAlone
            }
            Self::SeeApps | Self::SetApps => OfOneApp::MayNot,
        }
    }
}

/// Whether a client of one app may ask for something.
enum OfOneApp {
    /// It is about that app.
    May,
    /// It is about all apps, and there is no other one.
    WhileAlone,
    /// It is about the apps themselves.
    MayNot,
}

/// Why something may not be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denied {
    /// The namespace keeps no presence.
    NoPresence,
    /// The topic is of a kind that has no members.
    NoMembers,
    /// Only the API does that.
    ApiOnly,
    /// It is another user's inbox.
    OfAnother,
    /// Neither the namespace nor the token permits it.
    NotPermitted,
    /// The topic is one of another app.
    OfAnotherApp,
    /// The client has not this scope.
    NoScope(Scope),
    /// None of the client's `topics` matches.
    NotOfClient,
    /// The client has `topics`, and this speaks of all topics.
    OfAllTopics,
    /// The client is of one app, and this speaks of all apps.
    OfAllApps,
}

/// What can be said before it is known which topic: a client that has not the scope may not do this
/// with any. Whoever passes must be asked of each topic as well ([`may`]).
///
/// # Errors
/// Why it may not.
pub fn may_begin(subject: Subject<'_>, operation: OnTopic) -> Result<(), Denied> {
    match subject {
        Subject::Client { client, .. } => scoped(client, operation.scope()),
        Subject::Session { .. } => is_of_sessions(operation).map(|_| ()),
    }
}

/// Whether `subject` may do this with the topic, whose namespace is given.
///
/// # Errors
/// Why it may not.
pub fn may(
    subject: Subject<'_>,
    operation: OnTopic,
    topic: &Topic,
    namespace: &Namespace,
) -> Result<(), Denied> {
    let (Subject::Client { app, .. } | Subject::Session { app, .. }) = subject;
    if topic.app() != app.as_str() {
        return Err(Denied::OfAnotherApp);
    }
    match subject {
        Subject::Client { client, .. } => {
            scoped(client, operation.scope())?;
            if !client.names(topic.name()) {
                return Err(Denied::NotOfClient);
            }
            let is_kept = namespace.presence || operation != OnTopic::Presence;
            is_kept.then_some(()).ok_or(Denied::NoPresence)
        }
        Subject::Session {
            user,
            can,
            has_topic_token,
            ..
        } => {
            let who = Session {
                user,
                can,
                has_topic_token,
            };
            who.may(is_of_sessions(operation)?, topic, namespace)
        }
    }
}

/// Whether `subject` may do this.
///
/// # Errors
/// Why it may not.
pub fn may_overall(subject: Subject<'_>, operation: Overall) -> Result<(), Denied> {
    let Subject::Client {
        client,
        is_only_app,
        ..
    } = subject
    else {
        return Err(Denied::ApiOnly);
    };
    scoped(client, operation.scope())?;
    let may = match (&client.app, operation.of_one_app()) {
        (ClientApp::Any, _) | (_, OfOneApp::May) => true,
        (ClientApp::One(_), OfOneApp::WhileAlone) => is_only_app,
        (ClientApp::One(_), OfOneApp::MayNot) => false,
    };
    match client.topics {
        _ if !may => Err(Denied::OfAllApps),
        Some(_) if operation.is_of_all_topics() => Err(Denied::OfAllTopics),
        _ => Ok(()),
    }
}

fn scoped(client: &ApiClient, scope: Scope) -> Result<(), Denied> {
    let has = client.scopes.has(scope);
    has.then_some(()).ok_or(Denied::NoScope(scope))
}

/// The operations for which sessions have rights, and the home of the own user.
enum OfSession {
    By(Operation),
    Home,
}

fn is_of_sessions(operation: OnTopic) -> Result<OfSession, Denied> {
    match operation {
        OnTopic::Subscribe => Ok(OfSession::By(Operation::Subscribe)),
        OnTopic::Publish => Ok(OfSession::By(Operation::Publish)),
        OnTopic::Presence => Ok(OfSession::By(Operation::Presence)),
        OnTopic::History => Ok(OfSession::By(Operation::History)),
        OnTopic::Home => Ok(OfSession::Home),
        OnTopic::Inspect
        | OnTopic::Enqueue
        | OnTopic::SeeUser
        | OnTopic::Disconnect
        | OnTopic::RevokeUser => Err(Denied::ApiOnly),
    }
}

/// A session, as far as the rules ask.
struct Session<'a> {
    user: Option<&'a User>,
    can: Option<&'a Rights>,
    has_topic_token: bool,
}

impl Session<'_> {
    fn may(
        &self,
        operation: OfSession,
        topic: &Topic,
        namespace: &Namespace,
    ) -> Result<(), Denied> {
        let is_own = is_own(self.user, topic);
        let OfSession::By(operation) = operation else {
            return is_own.then_some(()).ok_or(Denied::OfAnother);
        };
        let (rule, named) = match (operation, topic.kind()) {
            (Operation::Publish, TopicKind::Everyone) => return Err(Denied::ApiOnly),
            (Operation::Publish, _) => (namespace.publish, false),
            (Operation::Subscribe, TopicKind::Inbox | TopicKind::Presence) if !is_own => {
                return Err(Denied::OfAnother);
            }
            (Operation::Subscribe, _) => (namespace.subscribe, self.has_topic_token),
            (Operation::History, TopicKind::Inbox) if !is_own => return Err(Denied::OfAnother),
            (Operation::History, _) => (namespace.history, is_own || self.has_topic_token),
            (Operation::Presence, TopicKind::Plain) if namespace.presence => {
                (namespace.presence_allow, self.has_topic_token)
            }
            (Operation::Presence, TopicKind::Plain) => return Err(Denied::NoPresence),
            (Operation::Presence, _) => return Err(Denied::NoMembers),
        };
        let is_permitted = permitted(rule, operation, topic, self.user, self.can, named);
        is_permitted.then_some(()).ok_or(Denied::NotPermitted)
    }
}

/// Whether the topic is this user's inbox.
fn is_own(user: Option<&User>, topic: &Topic) -> bool {
    user.is_some_and(|user| topic.inbox_user() == Some(user.as_str()))
}

#[cfg(test)]
mod tests;
