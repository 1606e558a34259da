//! The spans of requests, publications and the queue, and whether there are any.
//!
//! In: a context, or none, and what is done under it. Out: the context under which it goes on, and a
//! finished [`Span`] for the exporter. Without an exporter there are no spans, and the context of the
//! caller goes on as it came. Owner: the node; any thread asks. Bounds: [`TRACED_MAX`] requests,
//! publications and deliveries a second, each counted by itself and spread over the second, and
//! [`FORCED_MAX`] of clients; [`IN_FLIGHT_MAX`] deliveries at once. What is over a bound is not traced, and
//! is counted. What is dropped before it is over ends its span as given up.

use std::borrow::Cow;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use super::context::{SpanId, TraceContext, TraceId};
use super::metrics::{Ignored, TraceMetrics, Untraced};
use super::sampler::{Caller, Forced, PerSlot, Sampler, Share};
use super::span::{Attribute, Span, SpanKind};
use super::traced::Traced;
use crate::config::telemetry as config;
use crate::telemetry::gate::{Gate, ITEMS_MAX};
use fanfare_protocol::ids::{Topic, TopicKind};

/// Requests, publications and deliveries that are traced in a second, of each so many.
pub const TRACED_MAX: u32 = 1_000;
/// Into so many slots a second is dealt, each with its part of them.
const SLOTS: u32 = 8;
/// Contexts of sessions in a second that are followed because their flag says so; also so many requests
/// of callers without a key.
pub const FORCED_MAX: u32 = 10;
/// Deliveries whose spans are open.
pub const IN_FLIGHT_MAX: usize = 256;

// A request, `publish` or `wait` and `move`, and three spans of a delivery: also where two slots come
// together, the gate takes all.
const _: () = {
    let of_slots = 2 * 6 * (TRACED_MAX / SLOTS) as usize + 2 * FORCED_MAX as usize;
    assert!(of_slots <= ITEMS_MAX && of_slots / 2 + 3 * IN_FLIGHT_MAX <= ITEMS_MAX);
};

/// How the operator wants it.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct TraceSettings {
    /// What is traced.
    pub sampler: Sampler,
    /// Whether spans name topics.
    pub shows_topics: bool,
}

impl From<&config::Traces> for TraceSettings {
    fn from(traces: &config::Traces) -> Self {
        let part = Share::Part(traces.ratio);
        let (share, is_parent_based) = match traces.sampler {
            config::Sampler::AlwaysOn => (Share::All, false),
            config::Sampler::AlwaysOff => (Share::None, false),
            config::Sampler::Ratio => (part, false),
            config::Sampler::ParentOrAll => (Share::All, true),
            config::Sampler::ParentOrNone => (Share::None, true),
            config::Sampler::ParentOrRatio => (part, true),
        };
        Self {
            sampler: Sampler {
                share,
                is_parent_based,
            },
            shows_topics: traces.topics,
        }
    }
}

/// See the module.
#[derive(Debug)]
pub struct Tracer {
    gate: OnceLock<Gate<Span>>,
    settings: TraceSettings,
    metrics: Arc<TraceMetrics>,
    born: Instant,
    requests: PerSlot,
    publications: PerSlot,
    deliveries: PerSlot,
    forced: Forced,
    strangers: PerSlot,
    pub(super) in_flight: AtomicUsize,
}

/// What a publication is to be traced by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// A context that came with it, or none.
    Own(Option<TraceContext>, Caller),
    /// What it is a part of, about which is decided: `None` is not traced.
    Part(Option<TraceContext>),
    /// A context that came with it, and is followed.
    Followed(TraceContext),
}

/// Where a publication goes, as spans tell it.
#[derive(Debug, Clone, Copy)]
pub struct Destination<'a> {
    /// The topic.
    pub topic: &'a Topic,
    /// The namespace whose options it has, which the operator has named.
    pub namespace: &'a str,
}

impl Tracer {
    /// Spans go there, if anywhere.
    #[must_use]
    pub fn new(
        gate: Option<Gate<Span>>,
        settings: TraceSettings,
        metrics: Arc<TraceMetrics>,
    ) -> Self {
        Self {
            gate: gate.map_or_else(OnceLock::new, OnceLock::from),
            settings,
            metrics,
            born: Instant::now(),
            requests: PerSlot::default(),
            publications: PerSlot::default(),
            deliveries: PerSlot::default(),
            forced: Forced::default(),
            strangers: PerSlot::default(),
            in_flight: AtomicUsize::new(0),
        }
    }

    /// Spans go there from now on, if anywhere; where they go is told once.
    pub fn send_to(&self, gate: Option<Gate<Span>>) {
        if let Some(gate) = gate {
            // A node has one exporter in its life.
            let _ = self.gate.set(gate);
        }
    }

    /// Without an exporter: contexts go through.
    #[must_use]
    pub fn without_exporter(metrics: Arc<TraceMetrics>) -> Self {
        Self::new(None, TraceSettings::default(), metrics)
    }

    /// Reads a context that came as a field. What is none is counted, and ignored.
    pub fn read(&self, text: &str) -> Option<TraceContext> {
        let read = TraceContext::parse(text);
        read.map_err(|bad| self.ignore(bad.into())).ok()
    }

    /// Reads the values of the header: one, or it is none. `None` among them is no text.
    pub fn read_header<'a>(
        &self,
        mut values: impl Iterator<Item = Option<&'a str>>,
    ) -> Option<TraceContext> {
        let first = values.next()?;
        if values.next().is_some() {
            self.ignore(Ignored::Doubled);
            return None;
        }
        self.read(first.unwrap_or_default())
    }

    /// Something is not traced that should be.
    pub fn count(&self, why: Untraced) {
        self.metrics.untraced.of(why).add(1);
    }

    fn ignore(&self, why: Ignored) {
        self.metrics.ignored.of(why).add(1);
    }

    /// Whether something with this context of a backend is traced.
    #[must_use]
    pub fn follows(&self, parent: &TraceContext) -> bool {
        self.is_sampled(Some(parent), Caller::Backend, 0)
    }

    /// A request, with the context of its header; it is asked whose it is where that says anything. What
    /// has no room goes on by a context that is believed, without a span of its own.
    pub fn request(
        &self,
        parent: Option<TraceContext>,
        caller: impl FnOnce() -> Caller,
        name: impl FnOnce() -> Cow<'static, str>,
    ) -> Traced {
        let tail = rand::random();
        if parent.is_none() && !self.is_sampled(None, Caller::Backend, tail) {
            return Traced::default();
        }
        let caller = caller();
        if !self.is_sampled(parent.as_ref(), caller, tail) {
            return Traced::default();
        }
        let has_room = match caller {
            Caller::Stranger => self.may_force(caller),
            Caller::Backend | Caller::Client(_) => self.has_room(&self.requests),
        };
        if !has_room {
            let is_believed = |of: &TraceContext| caller == Caller::Backend && of.is_sampled();
            return Traced::without_span(parent.filter(is_believed));
        }
        self.begin((parent, true), tail, SpanKind::Server, name)
    }

    /// A message is handed on: `operation` says how, in a word.
    pub fn publication(
        &self,
        operation: &'static str,
        cause: Cause,
        to: Destination<'_>,
    ) -> Traced {
        let tail = rand::random();
        let (from, is_sampled) = match cause {
            Cause::Own(parent, caller) => {
                let is_sampled = self.is_sampled(parent.as_ref(), caller, tail);
                ((parent, true), is_sampled)
            }
            Cause::Part(parent) => ((parent, false), parent.is_some()),
            Cause::Followed(parent) => ((Some(parent), true), true),
        };
        if !is_sampled || !self.has_room(&self.publications) {
            return Traced::default();
        }
        let mut traced = self.begin(from, tail, SpanKind::Producer, || {
            named(operation, to.namespace)
        });
        traced.describe(|| self.messaging(operation, "send", to));
        traced
    }

    /// How long something waited before it was taken in hand now: in a finished span under this parent,
    /// which may be of another process.
    pub fn waited(
        &self,
        (parent, is_parent_remote): (TraceContext, bool),
        waited: Duration,
        to: Destination<'_>,
    ) {
        let Some(gate) = self.gate.get() else { return };
        let end = SystemTime::now();
        gate.send(Span {
            context: child_of(&parent),
            parent: Some(parent.span),
            is_parent_remote,
            name: named("wait", to.namespace),
            kind: SpanKind::Internal,
            start: end.checked_sub(waited).unwrap_or(end),
            end,
            links: Vec::new(),
            attributes: vec![
                ("messaging.system", SYSTEM),
                ("fanfare.namespace", Attribute::text(to.namespace)),
            ],
            error: None,
        });
    }

    /// Whether a delivery of a publication with this context is traced here, and where its spans go.
    pub(super) fn takes_delivery(&self, context: &TraceContext) -> Option<&Gate<Span>> {
        let gate = self.gate.get().filter(|_| context.is_sampled())?;
        if self.in_flight.load(Relaxed) >= IN_FLIGHT_MAX {
            self.count(Untraced::InFlight);
            return None;
        }
        self.has_room(&self.deliveries).then_some(gate)
    }

    /// `tail` is random: a trace that begins with this gets it.
    fn is_sampled(&self, parent: Option<&TraceContext>, caller: Caller, tail: u64) -> bool {
        if parent.is_none() && self.gate.get().is_none() {
            return false;
        }
        // Of what strangers want it is looked later whether there is room.
        let may_force = || caller == Caller::Stranger || self.may_force(caller);
        let sampler = self.settings.sampler;
        sampler.takes(parent, caller, tail, may_force)
    }

    fn may_force(&self, caller: Caller) -> bool {
        let second = self.born.elapsed().as_secs();
        let may = match caller {
            Caller::Client(session) => self.forced.admits(second, session, FORCED_MAX as usize),
            Caller::Stranger => self.strangers.admits(second, FORCED_MAX),
            Caller::Backend => true,
        };
        if !may {
            self.count(Untraced::Forced);
        }
        may
    }

    fn has_room(&self, of: &PerSlot) -> bool {
        let has_room = of.admits(self.slot(), TRACED_MAX / SLOTS);
        if !has_room {
            self.count(Untraced::Rate);
        }
        has_room
    }

    /// Of this tracer's life: no clock that can be set.
    fn slot(&self) -> u64 {
        let passed = self.born.elapsed().as_millis() * u128::from(SLOTS) / 1_000;
        u64::try_from(passed).unwrap_or(u64::MAX)
    }

    fn begin(
        &self,
        (parent, is_parent_remote): (Option<TraceContext>, bool),
        tail: u64,
        kind: SpanKind,
        name: impl FnOnce() -> Cow<'static, str>,
    ) -> Traced {
        let Some(gate) = self.gate.get() else {
            // As it came: a node that tells nothing of a trace decides nothing about it either.
            return Traced::without_span(parent.filter(TraceContext::is_sampled));
        };
        let context = parent.as_ref().map_or_else(|| root(tail), child_of);
        let start = SystemTime::now();
        let span = Span {
            context,
            parent: parent.map(|parent| parent.span),
            is_parent_remote: is_parent_remote && parent.is_some(),
            name: name(),
            kind,
            start,
            end: start,
            links: Vec::new(),
            attributes: Vec::new(),
            error: None,
        };
        Traced::begun(span, gate.clone())
    }

    /// What the messaging conventions say of every message. An inbox has its user in its name.
    pub(super) fn messaging(
        &self,
        operation: &'static str,
        kind: &'static str,
        to: Destination<'_>,
    ) -> Vec<(&'static str, Attribute)> {
        let word = |word: &'static str| Attribute::Text(Cow::Borrowed(word));
        let mut all = vec![
            ("messaging.system", SYSTEM),
            ("messaging.operation.name", word(operation)),
            ("messaging.operation.type", word(kind)),
            ("fanfare.namespace", Attribute::text(to.namespace)),
        ];
        if self.settings.shows_topics && to.topic.kind() != TopicKind::Inbox {
            let name = Attribute::text(to.topic.name());
            all.push(("messaging.destination.name", name));
        }
        all
    }
}

const SYSTEM: Attribute = Attribute::Text(Cow::Borrowed("fanfare"));

/// `process orders`: an operation and the operator's word for a namespace.
pub(super) fn named(operation: &str, namespace: &str) -> Cow<'static, str> {
    Cow::Owned(format!("{operation} {namespace}"))
}

/// A span of its own under this one.
pub(super) fn child_of(parent: &TraceContext) -> TraceContext {
    let child = TraceContext {
        span: any_span(),
        ..*parent
    };
    child.sampled()
}

/// Its id ends with this.
fn root(tail: u64) -> TraceContext {
    let mut trace = TraceId::default();
    while trace[..8] == [0; 8] {
        trace = rand::random();
    }
    trace[8..].copy_from_slice(&tail.to_be_bytes());
    let root = TraceContext {
        trace,
        span: any_span(),
        flags: 0,
    };
    root.sampled()
}

fn any_span() -> SpanId {
    let mut span = SpanId::default();
    while span == SpanId::default() {
        span = rand::random();
    }
    span
}

#[cfg(test)]
mod tests;
