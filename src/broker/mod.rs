//! The broker: one closed enum over Redis and the in-process engine, with one set of semantics.
//!
//! In: publications and questions from sessions and the API. Out: a [`Feed`] of everything that
//! was published on topics with local interest, in broker order per topic. Owner of all that is
//! retained (streams, last ids, cursors, members). Both engines answer the same conformance
//! suite (`tests/conformance/`). What a position is, and how a lost link is judged, is in
//! `docs/architecture.md`.

use std::sync::Arc;

use bytes::Bytes;

use crate::config::{Replicas, Retention};
use crate::redis::refusal::Refusal;
use crate::telemetry::trace::context::TraceContext;
use fanfare_protocol::event::{GapReason, Member};
use fanfare_protocol::ids::{Owner, Position, SessionId, Topic};

pub mod audit;
pub mod channel_context;
pub mod feed_sender;
pub mod idempotency;
pub mod ids;
pub mod interest;
pub mod member;
pub mod memory;
#[cfg(test)]
pub(crate) mod model;
pub mod pressure;
pub mod publication;
pub mod queue;
pub mod redis;
mod size;
pub mod unavailable;
pub mod visible;

use interest::WishNumber;
use member::{Entered, MemberPage};
use publication::Publication;
use unavailable::Unavailable;

/// One publication on its way to the broker.
#[derive(Debug, Clone)]
pub struct PublishRequest {
    /// Where to.
    pub topic: Topic,
    /// What.
    pub publication: Publication,
    /// How much the topic keeps.
    pub retention: Retention,
    /// Who must have it before it is answered.
    pub replicas: Replicas,
    /// [`idempotency::Publisher::remembered`], and how long it is remembered in milliseconds.
    pub idempotency: Option<(String, u64)>,
    /// By which nodes go on with its trace. It goes with what the feed brings, and is kept nowhere.
    pub trace: Option<TraceContext>,
}

/// The broker has the publication.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Published {
    /// Where it stands.
    pub position: Position,
    /// It had been published before under the same idempotency key; this is that position.
    pub duplicate: bool,
}

/// Why the broker did not do it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BrokerError {
    /// Surely not done, and why.
    #[error("{0}; nothing was done")]
    Unavailable(Unavailable),
    /// Surely not done: Redis refuses, in a word of its own.
    #[error("{0}; nothing was done")]
    Refused(&'static Refusal),
    /// Published, but fewer replicas confirmed it in time than were asked for; a failover may take it
    /// back.
    #[error("published, and not confirmed by enough replicas: {0}")]
    Unconfirmed(String),
    /// The answer was lost; it may have been done.
    #[error("the broker's answer was lost, the outcome is unknown: {0}")]
    Unknown(String),
    /// Redis refused a part of it, out of the middle of a script: what stood before that was done.
    #[error("the outcome is unknown, because {0}")]
    Broken(&'static Refusal),
    /// What came back is not what these scripts answer: a bug, or another program's key.
    #[error("the broker answered something unexpected: {0}")]
    Unexpected(String),
}

/// One retained entry.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Where it stands.
    pub position: Position,
    /// What stood before it when it was made.
    pub prev: Position,
    /// What it carries.
    pub body: Body,
}

/// What an entry or a delivery carries.
#[derive(Debug, Clone, PartialEq)]
pub enum Body {
    /// A message.
    Publication(Arc<Publication>),
    /// A change of members (on `%T` topics).
    Presence(Arc<publication::PresenceChange>),
    /// What this release cannot read, by a newer node or another program. It has its place in the
    /// topic all the same, and sessions are told of it as a gap of one.
    Unreadable,
}

/// How far below a position that a failover took the timeline that stands may have parted from the
/// lost one: for so long both masters may have taken publications, by clocks that differ.
pub const OVERLAP_MS: u64 = 300_000;

/// The answer to "what came after `since`?"
#[derive(Debug, Clone, PartialEq)]
pub struct SincePage {
    /// `None`: everything after `since` is retained. Otherwise why something is gone.
    pub gap: Option<GapReason>,
    /// The position after which the page begins: `since` when recovered, else the `prev` of the
    /// oldest retained entry; after a failover that of the oldest that is at most [`OVERLAP_MS`]
    /// older than `since`.
    pub start: Position,
    /// The topic's newest position, `0-0` when none is known.
    pub last: Position,
    /// The entries after `start`, oldest first, at most as many as asked; none after a failover:
    /// whoever wants them asks from `start` on.
    pub entries: Vec<Entry>,
}

/// A page of history.
#[derive(Debug, Clone, PartialEq)]
pub struct HistoryPage {
    /// In the order asked for.
    pub entries: Vec<Entry>,
    /// There is more in that direction.
    pub more: bool,
}

/// What a user's inbox looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct InboxSummary {
    /// The cursor; `None` when nothing was acknowledged, or so long ago that it is forgotten.
    pub cursor: Option<Position>,
    /// The newest position.
    pub last: Position,
    /// Retained entries above the cursor, counted up to 1,000.
    pub pending: u64,
}

/// What became of an acknowledgement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acked {
    /// The cursor after it.
    Cursor(Position),
    /// The position is above the newest; nothing was changed.
    AboveNewest,
}

/// Which of the broker's feeds: one for each master of Redis that is or was used. The engine inside
/// the process has one only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct FeedNumber(pub u32);

/// Where the data of a topic is. Two that are equal: what was written at the one is there at the
/// other, as far as the broker can tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Place {
    /// The master.
    pub feed: FeedNumber,
    /// Another number once that master may have lost something.
    pub continuity: u64,
}

/// How often topics came to other places.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Moves {
    /// Whenever some topic may have another place.
    pub count: u64,
    /// Whenever, besides, a master may have lost something.
    pub losses_count: u64,
}

impl Moves {
    /// Some topics may have another place, where something may have been lost or not.
    pub fn add(&mut self, is_lossy: bool) {
        self.count += 1;
        self.losses_count += u64::from(is_lossy);
    }
}

/// One thing that the feed brings, in broker order per topic.
#[derive(Debug, Clone, PartialEq)]
pub enum FeedEvent {
    /// A publication on a topic with local interest.
    Delivery {
        /// Where.
        topic: Topic,
        /// The entry.
        entry: Entry,
        /// By which its trace goes on, where it is traced.
        trace: Option<TraceContext>,
    },
    /// A session moved its user's cursor. Not part of the stream.
    Acked {
        /// The inbox.
        topic: Topic,
        /// The cursor.
        position: Position,
        /// The session that did it.
        session: SessionId,
    },
    /// These subscriptions stand, each with the number of the wish that it fulfils: all that is
    /// published from now on comes. One that moved to another feed may lack what came meanwhile.
    Subscribed(Vec<(Topic, WishNumber)>),
    /// This feed brings nothing from here on, until it stands again.
    Down(FeedNumber),
    /// Deliveries of this feed may have been lost. It stands again: a check of every topic that it
    /// brings ([`Broker::feed_of`]) against its last id finds what is missing.
    Break(FeedNumber),
    /// Deliveries of these topics alone were lost because the dispatcher's queue was full.
    Doubt(Vec<Topic>),
    /// A message on the cluster's control channel.
    Control(Bytes),
}

/// The receiving end of the feed. Bound: [`FEED_EVENTS_MAX`]. At the bound the broker drops
/// what does not fit and follows it with [`FeedEvent::Doubt`] as soon as there is room
/// ([`feed_sender`]).
pub type Feed = tokio::sync::mpsc::Receiver<FeedEvent>;

/// Events waiting between the broker's feed and the dispatcher.
pub const FEED_EVENTS_MAX: usize = 8_192;

/// What to read of a topic's history.
#[derive(Debug, Clone)]
pub struct HistoryQuery {
    /// Which topic.
    pub topic: Topic,
    /// How much it keeps.
    pub retention: Retention,
    /// After this position, excluded.
    pub since: Option<Position>,
    /// Before this position, excluded.
    pub until: Option<Position>,
    /// Most entries.
    pub limit: u32,
    /// Most bytes as they are kept, of what readers see on the wire ([`visible`]); a page has at
    /// least one entry if there is one.
    pub bytes_max: usize,
    /// Newest first.
    pub reverse: bool,
}

/// Whether the broker can be used, for readiness and for refusing early.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BrokerHealth {
    /// Not reached yet, or lost: why, for people.
    Down(String),
    /// Some things cannot be done, because some of several masters of Redis are away, too few
    /// replicas follow, or memory is full: which and why.
    Partly(String),
    /// All can be read, and some take no writes: which and why.
    ReadOnly(String),
    /// Commands and the feed's probe answer.
    Up,
}

/// The broker, in either engine. Methods may be called from any thread of the node; none of
/// them waits longer than the command timeout. All of them are cancel-safe in the sense that a
/// dropped future leaves the broker consistent, but what it asked for may still be done.
#[derive(Debug)]
pub enum Broker {
    /// One process, nothing outlives it.
    Memory(memory::MemoryBroker),
    /// Redis or Valkey; any number of nodes.
    Redis(redis::RedisBroker),
}

/// Hands a call to the engine.
macro_rules! engine {
    ($self:ident, $broker:ident => $call:expr) => {
        match $self {
            Self::Memory($broker) => $call,
            Self::Redis($broker) => $call,
        }
    };
}

impl Broker {
    /// Appends to the topic and publishes to every node with interest. Publications that one
    /// task submits one after the other to one topic are kept in that order.
    ///
    /// # Errors
    /// [`BrokerError`]; after `Unknown` it may have been published.
    pub async fn publish(&self, request: PublishRequest) -> Result<Published, BrokerError> {
        engine!(self, broker => broker.publish(request).await)
    }

    /// Waits while this node delivers more slowly than it publishes, at most
    /// [`pressure::HELD_MAX`]. Whoever answers a publisher waits here first, once for each answer.
    pub async fn relieved(&self) {
        pressure::relieved(engine!(self, broker => broker.metrics())).await;
    }

    /// A page of what came after `since`, at least one entry if there is one. Readers leave out what is past its end.
    ///
    /// # Errors
    /// [`BrokerError`].
    pub async fn since(
        &self,
        topic: &Topic,
        since: Position,
        retention: Retention,
        page: Page,
    ) -> Result<SincePage, BrokerError> {
        engine!(self, broker => broker.since(topic, since, retention, page).await)
    }

    /// The newest position of a topic, and renews how long it is remembered. `None`: no
    /// publication is remembered. `was_there` says whether there was one when it was last asked
    /// for, and decides only what the answer costs.
    ///
    /// # Errors
    /// [`BrokerError`].
    pub async fn last(
        &self,
        topic: &Topic,
        retention: Retention,
        was_there: bool,
    ) -> Result<Option<Position>, BrokerError> {
        engine!(self, broker => broker.last(topic, retention, was_there).await)
    }

    /// A page of what is retained, in either direction.
    ///
    /// # Errors
    /// [`BrokerError`].
    pub async fn history(&self, query: HistoryQuery) -> Result<HistoryPage, BrokerError> {
        engine!(self, broker => broker.history(query).await)
    }

    /// Cursor, newest position and number of pending messages of an inbox.
    ///
    /// # Errors
    /// [`BrokerError`].
    pub async fn inbox(
        &self,
        inbox: &Topic,
        retention: Retention,
    ) -> Result<InboxSummary, BrokerError> {
        engine!(self, broker => broker.inbox(inbox, retention).await)
    }

    /// Moves the cursor forward, never back, and tells the user's other sessions
    /// ([`FeedEvent::Acked`]) when it moved.
    ///
    /// # Errors
    /// [`BrokerError`].
    pub async fn ack(
        &self,
        inbox: &Topic,
        position: Position,
        session: SessionId,
        retention: Retention,
    ) -> Result<Acked, BrokerError> {
        engine!(self, broker => broker.ack(inbox, position, session, retention).await)
    }

    /// Makes a session a member of `topic` (not of its presence topic) and publishes the change
    /// on `%topic`. Where it is one already, a later generation, or the same under a later life of
    /// the node, takes the entry over and publishes nothing; anything older changes nothing. So the
    /// order in which commands come does not matter. Costs as much as there are owners.
    ///
    /// # Errors
    /// [`BrokerError`].
    pub async fn enter(
        &self,
        topic: &Topic,
        member: &Member,
        owner: &Owner,
        generation: u64,
    ) -> Result<Entered, BrokerError> {
        engine!(self, broker => broker.enter(topic, member, owner, generation).await)
    }

    /// Removes a member that this owner's node entered, in this life or an earlier one, by this
    /// generation or an earlier one, and publishes the change when it was there.
    ///
    /// # Errors
    /// [`BrokerError`].
    pub async fn leave(
        &self,
        topic: &Topic,
        session: SessionId,
        owner: &Owner,
        generation: u64,
    ) -> Result<(), BrokerError> {
        engine!(self, broker => broker.leave(topic, session, owner, generation).await)
    }

    /// Removes every member that this very owner entered, and publishes each change together with
    /// its removal. For owners that are dead: whoever does it, and however often, each member is
    /// told once. Returns how many there were.
    ///
    /// # Errors
    /// [`BrokerError`]: some may be left.
    pub async fn reap(&self, topic: &Topic, owner: &Owner) -> Result<u64, BrokerError> {
        engine!(self, broker => broker.reap(topic, owner).await)
    }

    /// A page of the members of `topic` after a session, whoever has entered them. Costs as much as
    /// the page and the owners, however many members there are.
    ///
    /// # Errors
    /// [`BrokerError`].
    pub async fn members(
        &self,
        topic: &Topic,
        after: Option<SessionId>,
        page: Page,
    ) -> Result<MemberPage, BrokerError> {
        engine!(self, broker => broker.members(topic, after, page).await)
    }

    /// Sends a message to every node's feed ([`FeedEvent::Control`]), this one included.
    ///
    /// # Errors
    /// [`BrokerError`].
    pub async fn control(&self, message: Bytes) -> Result<(), BrokerError> {
        engine!(self, broker => broker.control(message).await)
    }

    /// What this node wants to hear: the latest wish per topic.
    #[must_use]
    pub fn interest(&self) -> &interest::Interest {
        engine!(self, broker => broker.interest())
    }

    /// Whether this topic can be joined now, so that nobody waits for what cannot come.
    ///
    /// # Errors
    /// [`BrokerError::Unavailable`], or [`BrokerError::Refused`] in Redis' own word.
    pub fn check(&self, topic: &Topic) -> Result<(), BrokerError> {
        match self {
            Self::Memory(_) => Ok(()),
            Self::Redis(broker) => broker.check(topic),
        }
    }

    /// Which feed brings a topic; `None` while none does.
    #[must_use]
    pub fn feed_of(&self, topic: &Topic) -> Option<FeedNumber> {
        self.place_of(topic).map(|place| place.feed)
    }

    /// Where a topic's data is; `None` while no master has it.
    #[must_use]
    pub fn place_of(&self, topic: &Topic) -> Option<Place> {
        match self {
            Self::Memory(_) => Some(Place::default()),
            Self::Redis(broker) => broker.place_of(topic),
        }
    }

    /// Whether what this feed brings can be asked about now; `None`: it brings nothing any more.
    #[must_use]
    pub fn takes_questions(&self, feed: FeedNumber) -> Option<bool> {
        match self {
            Self::Memory(_) => Some(true),
            Self::Redis(broker) => broker.takes_questions(feed),
        }
    }

    /// Changes whenever topics may have another place ([`Self::place_of`]): a master was replaced,
    /// was restarted, or has other topics now.
    #[must_use]
    pub fn moves(&self) -> tokio::sync::watch::Receiver<Moves> {
        engine!(self, broker => broker.moves())
    }

    /// Whether the broker can be used now; changes are seen through the receiver.
    #[must_use]
    pub fn health(&self) -> tokio::sync::watch::Receiver<BrokerHealth> {
        engine!(self, broker => broker.health())
    }
}

/// Bounds of one page.
#[derive(Debug, Clone, Copy)]
pub struct Page {
    /// Most entries.
    pub entries_max: u32,
    /// Most bytes as they are kept, at least one entry apart.
    pub bytes_max: usize,
}
