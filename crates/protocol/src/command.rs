//! What clients say: one variant per command, its fields already valid in form.
//!
//! In: the codec. Out: the session's state machine, which judges rights and state. Fields that
//! need the app (topics, users) stay text here and become names in the session, so that an
//! `invalid_topic` can carry the command's id.

use super::data::Data;
use super::ids::{Position, Priority};

/// One command with the id under which it is answered. Without an id it gets no `ok`.
#[derive(Debug, Clone, PartialEq)]
pub struct Envelope {
    /// Echoed in exactly one `ok` or `error`.
    pub id: Option<u64>,
    /// The command itself.
    pub command: Command,
}

/// A command of `fanfare.v1`.
#[derive(Debug, Clone, PartialEq)]
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
        after: Option<String>,
        /// Members in the page.
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

/// Fields of `connect`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Connect {
    /// The session's token.
    pub token: Option<String>,
    /// A name the client gives its device; kept for logs only.
    pub device: Option<String>,
    /// What to join at once, each as by `subscribe`.
    pub topics: Vec<Subscribe>,
    /// The short form of the same: where each topic was left.
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
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Subscribe {
    /// Which topic.
    pub topic: String,
    /// Resume after this position.
    pub since: Option<Position>,
    /// Or begin with the newest n retained.
    pub rewind: Option<u32>,
    /// A token for this topic alone.
    pub token: Option<String>,
    /// Be a member and see the members.
    pub presence: bool,
}

/// Fields of `publish`. Exactly one of `topic` and `user` is given.
#[derive(Debug, Clone, PartialEq)]
pub struct Publish {
    /// The topic, or
    pub topic: Option<String>,
    /// the user whose inbox it is.
    pub user: Option<String>,
    /// The message.
    pub data: Data,
    /// How urgent. `None`: the namespace's default.
    pub priority: Option<Priority>,
    /// A repeat with this key answers with the first position.
    pub idempotency_key: Option<String>,
    /// What the message is about.
    pub key: Option<String>,
    /// A newer message of the same key may stand for an older one. `None`: as the namespace says.
    pub conflate: Option<bool>,
    /// Ends by itself after so many milliseconds.
    pub ttl_ms: Option<u64>,
    /// Send it to this session too.
    pub echo: bool,
}

/// Fields of `history`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct History {
    /// Which topic.
    pub topic: String,
    /// After this position (excluded).
    pub since: Option<Position>,
    /// Before this position (excluded).
    pub until: Option<Position>,
    /// Publications in the page.
    pub limit: Option<u32>,
    /// Newest first.
    pub reverse: bool,
}
