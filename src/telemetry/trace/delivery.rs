//! What a node did with one traced publication: the span of its way to sockets.
//!
//! In: the dispatcher begins it, each worker that has the publication says whom it reached and when it
//! wrote. Out: when the last of them has let go of it, one span `process NAMESPACE` with the publication
//! as parent and link, and two below it, for the first and the last write to a socket of the turns that
//! delivered it. Owned by reference count. Bounds: those of the tracer. Of a publication that is not
//! traced there is nothing of this.

use std::borrow::Cow;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime};

use super::context::{SpanId, TraceContext};
use super::span::{Attribute, Span, SpanKind};
use super::tracer::{Destination, Tracer, child_of, named};
use crate::telemetry::gate::Gate;

/// Sessions of a topic, by what became of a publication for them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reach {
    /// It was queued for their sockets.
    pub reached: u64,
    /// Their sockets took nothing, or they read what they missed: they get it later.
    pub slow: u64,
    /// They do not get it, or another one has to make room for it.
    pub dropped: u64,
}

/// When writes of one worker began and ended.
#[derive(Debug, Clone, Copy)]
pub struct Writes {
    /// The first of the turn.
    pub first: (Instant, Instant),
    /// The last of the turn, which may be the same.
    pub last: (Instant, Instant),
}

/// See the module.
#[derive(Debug)]
pub struct Delivery {
    tracer: Arc<Tracer>,
    gate: Gate<Span>,
    producer: TraceContext,
    context: TraceContext,
    name: Cow<'static, str>,
    attributes: Vec<(&'static str, Attribute)>,
    start: SystemTime,
    begun: Instant,
    done: Mutex<Done>,
}

/// What workers have said so far.
#[derive(Debug, Default)]
struct Done {
    reach: Reach,
    writes: Option<Writes>,
}

impl Delivery {
    /// A publication with this context is handed to workers; `None` where that is not traced.
    #[must_use]
    pub fn begin(
        tracer: &Arc<Tracer>,
        producer: TraceContext,
        to: Destination<'_>,
        (position, is_repaired): (String, bool),
    ) -> Option<Arc<Self>> {
        let gate = tracer.takes_delivery(&producer)?.clone();
        let mut attributes = tracer.messaging("process", "process", to);
        let position = Attribute::Text(Cow::Owned(position));
        attributes.push(("messaging.message.id", position));
        attributes.push(("fanfare.repaired", Attribute::Flag(is_repaired)));
        tracer.in_flight.fetch_add(1, Relaxed);
        Some(Arc::new(Self {
            tracer: Arc::clone(tracer),
            gate,
            producer,
            context: child_of(&producer),
            name: named("process", to.namespace),
            attributes,
            start: SystemTime::now(),
            begun: Instant::now(),
            done: Mutex::default(),
        }))
    }

    /// Its own context: what clients of this node are told.
    #[must_use]
    pub fn context(&self) -> TraceContext {
        self.context
    }

    /// So many sessions of a worker got it, or did not.
    pub fn reached(&self, reach: Reach) {
        let sum = &mut self.done().reach;
        sum.reached += reach.reached;
        sum.slow += reach.slow;
        sum.dropped += reach.dropped;
    }

    /// A worker has written the turn in which it was.
    pub fn written(&self, writes: Writes) {
        let known = &mut self.done().writes;
        *known = Some(known.map_or(writes, |known| Writes {
            first: earlier(known.first, writes.first),
            last: later(known.last, writes.last),
        }));
    }

    fn done(&self) -> MutexGuard<'_, Done> {
        self.done.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A span of this one's process that ends at an instant.
    fn span(
        &self,
        (context, parent): (TraceContext, SpanId),
        name: Cow<'static, str>,
        kind: SpanKind,
        (begun, ended): (Instant, Instant),
    ) -> Span {
        let at = |instant: Instant| self.start + instant.saturating_duration_since(self.begun);
        Span {
            context,
            parent: Some(parent),
            is_parent_remote: false,
            name,
            kind,
            start: at(begun),
            end: at(ended),
            links: Vec::new(),
            attributes: Vec::new(),
            error: None,
        }
    }
}

type Write = (Instant, Instant);

fn earlier(one: Write, other: Write) -> Write {
    if other.0 < one.0 { other } else { one }
}

fn later(one: Write, other: Write) -> Write {
    if other.1 > one.1 { other } else { one }
}

/// The last worker has let go of it.
impl Drop for Delivery {
    fn drop(&mut self) {
        self.tracer.in_flight.fetch_sub(1, Relaxed);
        let Done { reach, writes } = *self.done();
        let writes = writes.filter(|_| reach.reached > 0);
        let ended = writes.map_or_else(Instant::now, |writes| writes.last.1);
        let mut attributes = std::mem::take(&mut self.attributes);
        for (key, count) in [
            ("fanfare.sessions.reached", reach.reached),
            ("fanfare.sessions.slow", reach.slow),
            ("fanfare.sessions.dropped", reach.dropped),
        ] {
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            attributes.push((key, Attribute::Whole(count)));
        }
        let of = (self.context, self.producer.span);
        let whole = (self.begun, ended);
        let name = std::mem::take(&mut self.name);
        self.gate.send(Span {
            is_parent_remote: true,
            links: vec![self.producer],
            attributes,
            ..self.span(of, name, SpanKind::Consumer, whole)
        });
        for (name, write) in writes
            .iter()
            .flat_map(|writes| [("write first", writes.first), ("write last", writes.last)])
        {
            let of = (child_of(&self.context), self.context.span);
            self.gate
                .send(self.span(of, name.into(), SpanKind::Internal, write));
        }
    }
}
