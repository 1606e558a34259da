//! What travels through the broker: the publication, its envelope in bytes, and presence changes.
//!
//! In: sessions and the API make a [`Publication`]. Out: one body of bytes for the stream and the
//! channel, and back. The first byte of a body says its kind and version, so that nodes of two
//! releases can read each other; an unknown one is [`super::FeedEvent::Unreadable`], counted, never
//! guessed at.

use crate::protocol::data::Data;
use crate::protocol::event::Member;
use crate::protocol::ids::{Owner, Priority, SessionId};

/// A message as it was accepted.
#[derive(Debug, Clone, PartialEq)]
pub struct Publication {
    /// The body, in the form in which it came.
    pub data: Data,
    /// Who published it; `None` from the API and from anonymous sessions.
    pub user: Option<String>,
    /// How urgent.
    pub priority: Priority,
    /// What it is about.
    pub key: Option<String>,
    /// A newer one of the same key may stand for this one.
    pub conflate: bool,
    /// The entry of this key is gone (state topics).
    pub removed: bool,
    /// When it was accepted, unix milliseconds.
    pub time_ms: u64,
    /// Not shown to new readers so many milliseconds after `time_ms`.
    pub ttl_ms: Option<u64>,
    /// The session that is left out (the publisher without `echo`, or `exclude_session`).
    pub exclude: Option<SessionId>,
}

/// A change of one topic's members.
#[derive(Debug, Clone, PartialEq)]
pub struct PresenceChange {
    /// Came (true) or left.
    pub joined: bool,
    /// Who.
    pub member: Member,
    /// Which life of which node it belongs to.
    pub owner: Owner,
    /// Member sessions after the change, members of dead nodes included.
    pub count: u64,
}
