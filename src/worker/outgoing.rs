//! One delivery on its way to sockets: encoded at most once per wire form, shared by everyone.
//!
//! In: the dispatcher makes an [`Outgoing`] from an entry. Out: [`Outgoing::frame`] gives the
//! complete WebSocket frame, made on first use on whichever worker needs that form first. Owned by
//! reference count; gone when the last outbox has written it.

use std::sync::{Arc, OnceLock};
use std::time::Instant;

use bytes::Bytes;

use super::encode;
use crate::broker::{Body, Entry};
use crate::telemetry::trace::context::TraceContext;
use fanfare_protocol::event::{Event, Gap, GapOf, GapReason, Message, Presence};
use fanfare_protocol::form::{PerForm, WireForm};
use fanfare_protocol::ids::{Position, Priority, SessionId, Topic, TopicKind};
use fanfare_protocol::size::FrameSize;

/// A publication or a change of members, ready to be pushed to any number of sessions.
#[derive(Debug)]
pub struct Outgoing {
    /// Where it was published (a `%T` topic for changes of members).
    pub topic: Topic,
    /// Where it stands.
    pub position: Position,
    /// What this node delivered before it on the topic. A worker whose last id differs has
    /// missed something.
    pub prev: Position,
    /// What it carries.
    body: Body,
    /// Whether sessions are told the position.
    has_history: bool,
    /// What clients are told of its trace, if anything.
    trace: Option<TraceContext>,
    /// When it was made: as soon as it was taken from the feed.
    arrived_at: Instant,
    size: FrameSize,
    frames: PerForm<OnceLock<Bytes>>,
}

impl Outgoing {
    /// Wraps an entry. `has_history` decides whether the position is shown.
    #[must_use]
    pub fn new(topic: Topic, entry: Entry, has_history: bool) -> Arc<Self> {
        Self::with_trace(topic, entry, has_history, None)
    }

    /// The same, of which clients are told by what they go on with its trace.
    #[must_use]
    pub fn with_trace(
        topic: Topic,
        entry: Entry,
        has_history: bool,
        trace: Option<TraceContext>,
    ) -> Arc<Self> {
        let mut size = entry.body.frame_size(&topic);
        if trace.is_some() {
            size = size.with_traceparent();
        }
        Arc::new(Self {
            size,
            trace,
            topic,
            position: entry.position,
            prev: entry.prev,
            body: entry.body,
            has_history,
            arrived_at: Instant::now(),
            frames: PerForm::default(),
        })
    }

    /// When it was taken from the feed.
    #[must_use]
    pub fn arrived_at(&self) -> Instant {
        self.arrived_at
    }

    /// The session that must not get it, if any.
    #[must_use]
    pub fn exclude(&self) -> Option<SessionId> {
        match &self.body {
            Body::Publication(publication) => publication.exclude,
            Body::Presence(_) | Body::Unreadable => None,
        }
    }

    /// How urgent it is. Changes of members are normal, and so is what nobody here can read.
    #[must_use]
    pub fn priority(&self) -> Priority {
        match &self.body {
            Body::Publication(publication) => publication.priority,
            Body::Presence(_) | Body::Unreadable => Priority::Normal,
        }
    }

    /// What it is about, if a newer message about the same may stand for it.
    #[must_use]
    pub fn conflation_key(&self) -> Option<&str> {
        match &self.body {
            Body::Publication(publication) if publication.conflate => publication.key.as_deref(),
            _ => None,
        }
    }

    /// Whether it is past its own end and no longer shown to those who catch up.
    #[must_use]
    pub fn has_ended(&self, now_ms: u64) -> bool {
        match &self.body {
            Body::Publication(publication) => publication.has_ended(now_ms),
            Body::Presence(_) | Body::Unreadable => false,
        }
    }

    /// The most memory that it holds: the body as it came, and the frames of all forms.
    #[must_use]
    pub fn bytes_count(&self) -> usize {
        size_of::<Self>() + self.body.bytes_count() + self.size.both
    }

    /// The length of the longer of its two frames, at most.
    #[must_use]
    pub fn longest(&self) -> usize {
        self.size.longest
    }

    /// Whether sessions are told that they do not get it, instead of getting it.
    #[must_use]
    pub fn is_unreadable(&self) -> bool {
        self.body == Body::Unreadable
    }

    /// The complete frame in this form. Encodes on first use, then shares the bytes. What the form
    /// cannot express is told as what cannot be read is.
    #[must_use]
    pub fn frame(&self, form: WireForm) -> &Bytes {
        self.frames[form].get_or_init(|| encode::frame_or(form, &self.event(), || self.lost()))
    }

    /// What clients are told: a `message`, a `presence` change, or a `gap`.
    fn event(&self) -> Event {
        match &self.body {
            Body::Publication(publication) => {
                let position = self.has_history.then_some(self.position);
                Event::Message(Message {
                    traceparent: self.trace.map(|context| context.to_string()),
                    ..publication.message(&self.topic, position)
                })
            }
            Body::Presence(change) => {
                let mut event = Presence {
                    topic: shown(&self.topic),
                    joined: Vec::new(),
                    left: Vec::new(),
                    count: change.count,
                    position: self.position,
                };
                let side = if change.joined {
                    &mut event.joined
                } else {
                    &mut event.left
                };
                side.push(change.member.clone());
                Event::Presence(event)
            }
            Body::Unreadable => self.lost(),
        }
    }

    /// The gap that stands for it.
    fn lost(&self) -> Event {
        let bounds = (self.prev, Some(self.position));
        Event::Gap(gap(&self.topic, bounds, GapReason::Lost, Some(1)))
    }
}

/// The gap that clients are told of in a topic: where it is one of changes of members, it says so.
#[must_use]
pub fn gap(
    topic: &Topic,
    (from, to): (Position, Option<Position>),
    reason: GapReason,
    dropped: Option<u64>,
) -> Gap {
    let is_presence = topic.kind() == TopicKind::Presence;
    Gap {
        topic: shown(topic),
        of: is_presence.then_some(GapOf::Presence),
        from: Some(from),
        to,
        reason,
        dropped,
    }
}

/// The topic as clients know it: changes of members belong to the topic whose members they are.
fn shown(topic: &Topic) -> Topic {
    topic.presence_of().unwrap_or_else(|| topic.clone())
}

#[cfg(test)]
mod tests {
    use fanfare_protocol::data::Data;
    use fanfare_protocol::form::Encoding;
    use fanfare_protocol::ids::App;
    use serde_json::{Value, json};

    use super::*;
    use crate::broker::publication::Publication;

    #[test]
    fn what_a_form_cannot_express_is_told_as_a_gap_of_one() {
        let topic = Topic::new(&App::default_app(), "a").unwrap();
        let at = |ms| Position { ms, seq: 0 };
        let deep = format!("{}{}", "[".repeat(30_000), "]".repeat(30_000));
        for data in ["\"\\ud800\"", "1e999", &deep] {
            let data = Data::Json(data.to_owned().into());
            let entry = Entry {
                position: at(9),
                prev: at(4),
                body: Body::Publication(Arc::new(Publication::new(data, 1))),
            };
            let outgoing = Outgoing::new(topic.clone(), entry, true);
            let frame = outgoing.frame(WireForm::websocket(Encoding::MsgPack));
            // Two bytes of header stand before so short a payload.
            let told: Value = rmp_serde::from_slice(&frame[2..]).unwrap();
            let gap = json!({"type": "gap", "topic": "a", "from": "4-0", "to": "9-0", "reason": "lost", "dropped": 1});
            assert_eq!(told, gap);
        }
    }
}
