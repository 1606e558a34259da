//! What the server says: one struct per event, the same for both codecs.
//!
//! In: session, worker and presence. Out: the codec, which turns an [`Event`] into one complete
//! frame. Optional fields are left out of the wire, never sent as null.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::data::Data;
use super::error::{ErrorCode, WireError};
use super::ids::{Position, Priority, SessionId, Topic};
use super::info::Info;

/// Why a session will not get what lies between two positions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GapReason {
    /// This session or its node was too slow and the topic keeps no history.
    Slow,
    /// Older than what is retained.
    Retention,
    /// Redis lost acknowledged writes in a failover.
    Failover,
    /// Lost between the broker and this node, on a topic without history.
    Lost,
}

impl GapReason {
    /// The reason as it is written on the wire and in logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Slow => "slow",
            Self::Retention => "retention",
            Self::Failover => "failover",
            Self::Lost => "lost",
        }
    }

    /// The bounds (`from` and `to`) of a gap before `start`, where a session begins that had come
    /// to `left`. After a failover `left` may itself be of what was lost, and there is no upper
    /// bound: positions may begin again below it.
    #[must_use]
    pub fn bounds(self, left: Position, start: Position) -> (Position, Option<Position>) {
        match self {
            Self::Failover => (left.min(start), None),
            Self::Slow | Self::Retention | Self::Lost => (left, Some(start)),
        }
    }
}

/// One event, tagged by `type`.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Event {
    /// The session is authenticated and its inbox joined.
    Welcome(Box<Welcome>),
    /// A command succeeded.
    Ok(Ok),
    /// A command failed.
    Error(Error),
    /// A publication.
    Message(Message),
    /// Members came and went.
    Presence(Presence),
    /// Something will not come.
    Gap(Gap),
    /// Another session of the user moved the cursor.
    Acked {
        /// The cursor.
        position: Position,
    },
    /// The server took a subscription away.
    Unsubscribed {
        /// From which topic.
        topic: Topic,
        /// Why, for programs.
        code: ErrorCode,
        /// Why, for people.
        message: String,
    },
    /// The session's token, or the one for a topic, is about to end.
    Expiring {
        /// The topic whose token it is; absent for the session's own.
        #[serde(skip_serializing_if = "Option::is_none")]
        topic: Option<Topic>,
        /// Unix seconds.
        expires: u64,
    },
    /// This node is leaving.
    Drain {
        /// When to reconnect.
        reconnect_after_ms: u64,
    },
    /// Sent to sessions that asked for `heartbeat=app`.
    Ping {},
}

/// `welcome`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Welcome {
    /// The id of the `connect` that it answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<u64>,
    /// This session.
    pub session: SessionId,
    /// Whose it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The node that serves it.
    pub node: String,
    /// The node that the ring names for the user (for anonymous sessions: this node).
    pub home: Home,
    /// How often the server pings, in milliseconds; 0 where pings are off.
    pub ping_ms: u64,
    /// End of the token, in unix seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires: Option<u64>,
    /// The user's inbox.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inbox: Option<InboxState>,
    /// What became of `connect.topics` and `connect.positions`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub topics: Option<BTreeMap<String, Resumed>>,
}

/// The home of a user or topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Home {
    /// Node name.
    pub node: String,
    /// Its public address, where it advertises one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
}

/// `welcome.inbox`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct InboxState {
    /// `@USER`.
    pub topic: String,
    /// The cursor; `0-0` when nothing was acknowledged yet.
    pub position: Position,
    /// Retained messages above the cursor, counted up to 1,000.
    pub pending: u64,
}

/// One entry of `welcome.topics`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Resumed {
    /// Joined.
    Joined {
        /// Whether everything after the given position follows.
        recovered: bool,
        /// The place after which the following messages begin.
        position: Position,
        /// What is gone, when not recovered.
        #[serde(skip_serializing_if = "Option::is_none")]
        gap_reason: Option<GapReason>,
        /// Member sessions, with `presence`.
        #[serde(skip_serializing_if = "Option::is_none")]
        count: Option<u64>,
        /// End of the token for this topic, in unix seconds.
        #[serde(skip_serializing_if = "Option::is_none")]
        expires: Option<u64>,
    },
    /// Not joined.
    Refused {
        /// Why.
        error: ErrorBody,
    },
}

/// A code and a sentence, as they stand in `welcome.topics` and in HTTP answers.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ErrorBody {
    /// For programs.
    pub code: ErrorCode,
    /// For people.
    pub message: String,
}

/// `ok`: the id and whichever results the command has.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Ok {
    /// The command's id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<u64>,
    /// `subscribe`: whether everything after `since` follows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recovered: Option<bool>,
    /// `subscribe`: what is gone, when not recovered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gap_reason: Option<GapReason>,
    /// `subscribe`, `publish`, `ack`, `presence`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub position: Option<Position>,
    /// `publish`: this was a repeat.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub duplicate: bool,
    /// `subscribe` with presence, `presence`: member sessions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// `presence`: a page of members.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub members: Option<Vec<Member>>,
    /// `history`: a page of publications.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub publications: Option<Vec<Message>>,
    /// `history`, `presence`: there is another page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub more: Option<bool>,
    /// `refresh`, and `subscribe` with a token: end of the token, unix seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires: Option<u64>,
}

/// `error`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Error {
    /// The command's id, where one could be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<u64>,
    /// For programs.
    pub code: ErrorCode,
    /// For people.
    pub message: String,
    /// Whether repeating may help.
    pub retry: bool,
    /// When to repeat.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
}

impl Error {
    /// The event that answers command `id` with `error`.
    #[must_use]
    pub fn answer(id: Option<u64>, error: WireError) -> Event {
        Event::Error(Self {
            id,
            code: error.code,
            retry: error.code.retry(),
            message: error.message.into_owned(),
            retry_after_ms: error.retry_after_ms,
        })
    }
}

/// `message`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Message {
    /// Where it was published.
    #[serde(deserialize_with = "crate::client::topic")]
    pub topic: Topic,
    /// What was published.
    pub data: Data,
    /// Where it stands; absent on topics without history.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(nullable = false))]
    pub position: Option<Position>,
    /// Who published it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(nullable = false))]
    pub user: Option<String>,
    /// How urgent, when not normal.
    #[serde(default, skip_serializing_if = "Priority::is_normal")]
    pub priority: Priority,
    /// What it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(nullable = false))]
    pub key: Option<String>,
    /// The entry of this key is gone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub removed: bool,
    /// When it was accepted, unix milliseconds.
    pub time: u64,
    /// By which a receiver goes on with its trace, where the namespace tells it and it is traced; never
    /// in a page of history.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(nullable = false))]
    pub traceparent: Option<String>,
}

/// `presence`: changes of a topic's members.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Presence {
    /// Whose members.
    #[serde(deserialize_with = "crate::client::topic")]
    pub topic: Topic,
    /// Who came.
    pub joined: Vec<Member>,
    /// Who left.
    pub left: Vec<Member>,
    /// Sessions after the change.
    pub count: u64,
    /// Where the change stands among the topic's changes.
    pub position: Position,
}

/// One member session.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Member {
    /// Whose session; absent for anonymous ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(nullable = false))]
    pub user: Option<String>,
    /// Which session.
    pub session: SessionId,
    /// The token's `info`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<serde_json::Value>, nullable = false))]
    pub info: Option<Info>,
}

/// What a gap is about, where it is not the topic's messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GapOf {
    /// Changes of the topic's members.
    Presence,
}

/// `gap`: what this session will not get, above `from`, at or below `to`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Gap {
    /// In which topic.
    #[serde(deserialize_with = "crate::client::topic")]
    pub topic: Topic,
    /// Of what; absent: of messages. Positions of messages and of changes of members have nothing
    /// to do with each other.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub of: Option<GapOf>,
    /// The last position before the gap.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<Position>,
    /// The last position in the gap.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<Position>,
    /// Why.
    pub reason: GapReason,
    /// How many, where counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dropped: Option<u64>,
}
