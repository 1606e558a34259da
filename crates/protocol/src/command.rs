//! What clients say: one variant per command, its fields already valid in form.
//!
//! In: the codec. Out: the session's state machine, which judges rights and state. Fields that
//! need the app (topics, users) stay text here and become names in the session, so that an
//! `invalid_topic` can carry the command's id.

use serde::Serialize;

use super::data::Data;
use super::ids::{Position, Priority};

/// One command with the id under which it is answered. Without an id it gets no `ok`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Envelope {
    /// Echoed in exactly one `ok` or `error`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<u64>,
    /// The command itself.
    #[serde(flatten)]
    pub command: Command,
}

/// A command of `fanfare.v1`.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Command {
    /// Authenticate, name the device, and take up old positions.
    Connect(Connect),
    /// Join a topic.
    Subscribe(Subscribe),
    /// Leave a topic.
    Unsubscribe {
        /// Which.
        topic: String,
    },
    /// Publish to a topic or to a user's inbox.
    Publish(Publish),
    /// Move the cursor of the own inbox.
    Ack {
        /// Everything up to here was taken.
        position: Position,
    },
    /// Read what is retained.
    History(History),
    /// Read a page of members.
    Presence {
        /// Of which topic.
        topic: String,
        /// Session id after which the page begins.
        #[serde(skip_serializing_if = "Option::is_none")]
        after: Option<String>,
        /// Members in the page.
        #[serde(skip_serializing_if = "Option::is_none")]
        limit: Option<u32>,
    },
    /// Bring a newer token.
    Refresh {
        /// The token.
        token: String,
    },
    /// A sign of life.
    Ping,
}

impl Command {
    /// The tokens that it brings, in the order in which they are looked at.
    pub fn tokens(&self) -> impl Iterator<Item = &str> + Clone {
        let (own, topics): (Option<&String>, &[Subscribe]) = match self {
            Self::Connect(connect) => (connect.token.as_ref(), &connect.topics),
            Self::Refresh { token } => (Some(token), &[]),
            Self::Subscribe(subscribe) => (None, std::slice::from_ref(subscribe)),
            _ => (None, &[]),
        };
        let of_topics = topics.iter().filter_map(|one| one.token.as_ref());
        own.into_iter().chain(of_topics).map(String::as_str)
    }
}

/// Fields of `connect`.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Connect {
    /// The session's token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// A name the client gives its device; kept for logs only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// What to join at once, each as by `subscribe`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub topics: Vec<Subscribe>,
    /// The short form of the same: where each topic was left.
    #[serde(
        serialize_with = "crate::client::positions",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub positions: Vec<(String, Position)>,
}

impl Connect {
    /// All that is to be joined, each topic once.
    #[must_use]
    pub fn into_subscribes(self) -> Vec<Subscribe> {
        let positions = self.positions.into_iter();
        let resumed = positions.map(|(topic, since)| Subscribe {
            topic,
            since: Some(since),
            ..Subscribe::default()
        });
        self.topics.into_iter().chain(resumed).collect()
    }
}

/// Fields of `subscribe`.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Subscribe {
    /// Which topic.
    pub topic: String,
    /// Resume after this position.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Position>,
    /// Or begin with the newest n retained.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rewind: Option<u32>,
    /// A token for this topic alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// Be a member and see the members.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub presence: bool,
}

/// Fields of `publish`. Exactly one of `topic` and `user` is given.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Publish {
    /// The topic, or
    #[serde(skip_serializing_if = "Option::is_none")]
    pub topic: Option<String>,
    /// the user whose inbox it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The message.
    pub data: Data,
    /// How urgent. `None`: the namespace's default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<Priority>,
    /// A repeat with this key answers with the first position.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<String>,
    /// What the message is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// A newer message of the same key may stand for an older one. `None`: as the namespace says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub conflate: Option<bool>,
    /// Ends by itself after so many milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl_ms: Option<u64>,
    /// Send it to this session too.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub echo: bool,
    /// The trace that it belongs to, as the header of that name. One that is none is ignored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
}

/// Fields of `history`.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct History {
    /// Which topic.
    pub topic: String,
    /// After this position (excluded).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Position>,
    /// Before this position (excluded).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<Position>,
    /// Publications in the page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// Newest first.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub reverse: bool,
}
