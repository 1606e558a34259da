//! What happened in a run: publications, deliveries, joins, gaps, faults, and what was there at the
//! end. The checker judges this and nothing else.
//!
//! In: one entry for each thing that a publisher, a client or the nemesis did or saw, in the order
//! in which it happened. Out: the list, and the same as JSON lines. Owner: the run, on one thread.
//! Bound: a run's length times its rate; 64 bytes an entry.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Write};
use std::str::FromStr;
use std::time::Duration;

use fanfare_protocol::ids::Position;
use serde::{Serialize, Serializer};

use super::app::App;

/// A publication, by publisher and running number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Id {
    pub(crate) publisher: u32,
    pub(crate) number: u32,
}

impl Serialize for Id {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{}.{}", self.publisher, self.number))
    }
}

/// An entry of the durable queue: who hands it over, to which of the queue's targets, in which lane,
/// and its running number among those. Within a lane of a priority their order is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct EntryName {
    pub(crate) writer: u16,
    pub(crate) target: u16,
    /// 0 to 3: the priority, the most urgent first; 4 more: of that priority and delayed.
    pub(crate) lane: u8,
    pub(crate) number: u32,
}

impl fmt::Display for EntryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            writer,
            target,
            lane,
            number,
        } = self;
        write!(f, "{writer}.{target}.{lane}.{number}")
    }
}

impl FromStr for EntryName {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut parts = text.split('.');
        let mut next = || parts.next().unwrap_or_default();
        Ok(Self {
            writer: next().parse()?,
            target: next().parse()?,
            lane: next().parse()?,
            number: next().parse()?,
        })
    }
}

impl Serialize for EntryName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// What became of handing an entry over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Taken {
    /// The queue has it, since this time of Redis' clock where the answer says it.
    Ok(Option<u64>),
    /// Surely not done.
    Fail,
    /// Nobody knows.
    Unknown,
}

/// A topic, by its place in [`History::topics`].
pub(crate) type TopicIndex = u32;

/// A client, by its place among the clients.
pub(crate) type ClientIndex = u32;

/// A topic of the run.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Topic {
    pub(crate) app: App,
    /// Within its app.
    pub(crate) name: String,
    /// Who joins it, to the end of the run.
    pub(crate) clients: Vec<ClientIndex>,
}

/// How a publication to one topic ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Outcome {
    /// Accepted at this position.
    Ok(Position),
    /// Surely not done.
    Fail,
    /// Nobody knows.
    Unknown,
}

/// One thing that happened.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "f", rename_all = "snake_case")]
pub(crate) enum Event {
    /// A publisher tries for the first time.
    Begun { id: Id, topic: TopicIndex },
    /// A publisher tries no more.
    Ended {
        id: Id,
        topic: TopicIndex,
        outcome: Outcome,
        /// The connection on which the first attempt already succeeded, if it was a session's.
        lane: Option<u32>,
    },
    /// A client has joined a topic from a position.
    Joined {
        client: ClientIndex,
        topic: TopicIndex,
        since: Position,
        recovered: bool,
        /// After which messages begin.
        position: Position,
    },
    /// A client got a message.
    Received {
        client: ClientIndex,
        topic: TopicIndex,
        id: Id,
        position: Position,
    },
    /// A client was told a gap.
    Gap {
        client: ClientIndex,
        topic: TopicIndex,
        from: Option<Position>,
        to: Option<Position>,
        is_failover: bool,
    },
    /// A window of faults is over.
    Window(Window),
    /// A node's members of a topic beside the sessions that are truly there.
    Members {
        node: String,
        topic: TopicIndex,
        ghosts: Vec<String>,
        missing: Vec<String>,
    },
    /// A node's history of a topic at the end.
    Retained {
        node: String,
        topic: TopicIndex,
        entries: Vec<(Position, Id)>,
    },
    /// A writer hands an entry to the queue for the first time.
    EntryBegun {
        entry: EntryName,
        /// By an `XADD` of its own, which no replica confirms.
        is_raw: bool,
    },
    /// A writer tries no more.
    EntryEnded { entry: EntryName, taken: Taken },
    /// A node's history of a target of the queue at the end.
    Moved {
        node: String,
        target: u16,
        entries: Vec<(Position, EntryName)>,
    },
    /// What the queue still has at the end.
    QueueLeft { what: String },
    /// A dead letter at the end.
    QueueDead { what: String },
    /// Something of one app was shown in another.
    BetweenApps { what: String },
    /// A session was told as left while it was there.
    FalseLeave { session: String, topic: String },
    /// Anything else that must not be.
    Broken { what: String },
}

/// A window in which something was broken on purpose.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Window {
    /// What, in words that stay the same from run to run.
    pub(crate) kinds: Vec<&'static str>,
    #[serde(serialize_with = "as_micros")]
    pub(crate) begun: Duration,
    /// Everything is as it should be again.
    #[serde(serialize_with = "as_micros")]
    pub(crate) healed: Duration,
    /// Where recovery is measured from: the begin of what needs no healing, else the heal.
    #[serde(serialize_with = "as_micros")]
    pub(crate) measured_from: Duration,
}

/// When, since the begin of the run, and what.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Entry {
    #[serde(serialize_with = "as_micros")]
    pub(crate) at: Duration,
    #[serde(flatten)]
    pub(crate) event: Event,
}

/// A run.
#[derive(Debug, Default, Serialize)]
pub(crate) struct History {
    /// Seed, flags, versions.
    pub(crate) settings: BTreeMap<&'static str, String>,
    pub(crate) topics: Vec<Topic>,
    #[serde(skip)]
    pub(crate) entries: Vec<Entry>,
}

impl History {
    /// Adds what happened just now.
    pub(crate) fn push(&mut self, at: Duration, event: Event) {
        self.entries.push(Entry { at, event });
    }

    /// Writes settings and topics as the first line, then one line for each entry.
    ///
    /// # Errors
    /// Those of the writer.
    pub(crate) fn write(&self, mut into: impl Write) -> io::Result<()> {
        serde_json::to_writer(&mut into, self)?;
        for entry in &self.entries {
            into.write_all(b"\n")?;
            serde_json::to_writer(&mut into, entry)?;
        }
        into.write_all(b"\n")
    }
}

fn as_micros<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&time.as_micros())
}
