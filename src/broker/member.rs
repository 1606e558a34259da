//! Members of a topic as the broker keeps them.
//!
//! In: what `presence` has entered. Out: entries, counts and pages, the same from both engines.
//! Values only; how much the stream of changes keeps is here too.

use crate::config::Retention;
use fanfare_protocol::event::Member;
use fanfare_protocol::ids::{Owner, Position, SessionId};

/// What the stream of a topic's changes of members keeps.
pub const PRESENCE_RETENTION: Retention = Retention {
    entries_max: 1_000,
    age_ms: 3_600_000,
};

/// A member as the broker keeps it.
#[derive(Debug, Clone, PartialEq)]
pub struct MemberEntry {
    /// Who.
    pub member: Member,
    /// Which life of which node it belongs to.
    pub owner: Owner,
    /// By which entering of its session it is there. They are numbered upwards by the process
    /// that has the session; a late command of an older one changes nothing.
    pub generation: u64,
    /// When it came, unix milliseconds of the broker's clock.
    pub since_ms: u64,
}

/// How many members each life of a node has in a topic, in no order; none with 0.
pub type MemberCounts = Vec<(Owner, u64)>;

/// A session is a member.
#[derive(Debug, Clone, PartialEq)]
pub struct Entered {
    /// How many there are.
    pub counts: MemberCounts,
    /// The newest position of `%topic`.
    pub position: Position,
}

/// A page of a topic's members.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct MemberPage {
    /// In the order of their sessions. May be fewer than asked for though there are more: what
    /// cannot be read is left out and counted.
    pub entries: Vec<MemberEntry>,
    /// After which session to go on; `None`: this was the last page.
    pub next: Option<SessionId>,
    /// How many there are.
    pub counts: MemberCounts,
    /// The newest position of `%topic`, to which list and counts belong.
    pub position: Position,
}
