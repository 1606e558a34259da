//! The spans of requests, publications and the queue, and whether there are any.
//!
//! In: a context, or none, and what is done under it. Out: the context under which it goes on, and a
//! finished [`Span`] for the exporter. Without an exporter there are no spans, and the context of the
//! caller goes on as it came. Owner: the node; any thread asks. Bounds: [`TRACED_MAX`] requests,
//! publications and deliveries a second, each counted by itself, and [`FORCED_MAX`] contexts of clients;
//! [`IN_FLIGHT_MAX`] deliveries at once. What is over a bound is not traced, and is counted.

use std::borrow::Cow;
use std::fmt::Display;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use super::context::{SpanId, TraceContext, TraceId};
use super::metrics::{Ignored, TraceMetrics, Untraced};
use super::sampler::{Caller, PerSecond, Sampler, Share};
use super::span::{Attribute, Span, SpanKind};
use crate::config::telemetry as config;
use crate::telemetry::gate::Gate;
use fanfare_protocol::ids::{Topic, TopicKind};

/// Requests, publications and deliveries that are traced in a second, of each so many.
pub const TRACED_MAX: u32 = 1_000;
/// Contexts of clients in a second that are followed because their flag says so.
pub const FORCED_MAX: u32 = 10;
/// Deliveries whose spans are open.
pub const IN_FLIGHT_MAX: usize = 1_024;

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
    requests: PerSecond,
    publications: PerSecond,
    deliveries: PerSecond,
    forced: PerSecond,
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

/// Something that may be traced, while it is done.
#[derive(Debug, Default)]
#[must_use]
pub struct Traced {
    context: Option<TraceContext>,
    open: Option<Box<Open>>,
}

/// A span that has not ended.
#[derive(Debug)]
struct Open {
    span: Span,
    begun: Instant,
    gate: Gate<Span>,
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
            requests: PerSecond::default(),
            publications: PerSecond::default(),
            deliveries: PerSecond::default(),
            forced: PerSecond::default(),
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
        self.is_sampled(Some(parent), Caller::Backend)
    }

    /// A request, with the context of its header.
    pub fn request(
        &self,
        parent: Option<TraceContext>,
        caller: Caller,
        name: impl FnOnce() -> Cow<'static, str>,
    ) -> Traced {
        if !self.is_sampled(parent.as_ref(), caller) || !self.has_room(&self.requests) {
            return Traced::default();
        }
        self.begin(parent, true, SpanKind::Server, name)
    }

    /// A message is handed on: `operation` says how, in a word.
    pub fn publication(
        &self,
        operation: &'static str,
        cause: Cause,
        to: Destination<'_>,
    ) -> Traced {
        let (parent, is_remote, is_sampled) = match cause {
            Cause::Own(parent, caller) => (parent, true, self.is_sampled(parent.as_ref(), caller)),
            Cause::Part(parent) => (parent, false, parent.is_some()),
            Cause::Followed(parent) => (Some(parent), true, true),
        };
        if !is_sampled || !self.has_room(&self.publications) {
            return Traced::default();
        }
        let mut traced = self.begin(parent, is_remote, SpanKind::Producer, || {
            named(operation, to.namespace)
        });
        if let Some(open) = &mut traced.open {
            open.span.attributes = self.messaging(operation, "send", to);
        }
        traced
    }

    /// How long something waited before it was taken in hand now: under `parent`, in a finished span.
    pub fn waited(&self, parent: TraceContext, waited: Duration, to: Destination<'_>) {
        let Some(gate) = self.gate.get() else { return };
        let end = SystemTime::now();
        gate.send(Span {
            context: child_of(&parent),
            parent: Some(parent.span),
            is_parent_remote: true,
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

    fn is_sampled(&self, parent: Option<&TraceContext>, caller: Caller) -> bool {
        if parent.is_none() && self.gate.get().is_none() {
            return false;
        }
        let second = self.second();
        let may_force = || {
            let may = self.forced.admits(second, FORCED_MAX);
            if !may {
                self.count(Untraced::Forced);
            }
            may
        };
        let sampler = self.settings.sampler;
        sampler.takes(parent, caller, rand::random(), may_force)
    }

    fn has_room(&self, of: &PerSecond) -> bool {
        let has_room = of.admits(self.second(), TRACED_MAX);
        if !has_room {
            self.count(Untraced::Rate);
        }
        has_room
    }

    /// Of this tracer's life: no clock that can be set.
    fn second(&self) -> u64 {
        self.born.elapsed().as_secs()
    }

    fn begin(
        &self,
        parent: Option<TraceContext>,
        is_parent_remote: bool,
        kind: SpanKind,
        name: impl FnOnce() -> Cow<'static, str>,
    ) -> Traced {
        let Some(gate) = self.gate.get() else {
            // Its flag says so, or the sampler took it: whoever comes next is to know.
            let context = parent.map(TraceContext::sampled);
            return Traced {
                context,
                open: None,
            };
        };
        let context = parent.as_ref().map_or_else(root, child_of);
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
        let gate = gate.clone();
        let open = Open {
            span,
            begun: Instant::now(),
            gate,
        };
        Traced {
            context: Some(context),
            open: Some(Box::new(open)),
        }
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

impl Traced {
    /// Under which it goes on; `None`: it is not traced.
    #[must_use]
    pub fn context(&self) -> Option<TraceContext> {
        self.context
    }

    /// Adds to the span, if there is one.
    pub fn set(&mut self, key: &'static str, value: impl FnOnce() -> Attribute) {
        if let Some(open) = &mut self.open {
            open.span.attributes.push((key, value()));
        }
    }

    /// Links the span to another one, if there is one.
    pub fn link(&mut self, other: Option<TraceContext>) {
        if let (Some(open), Some(other)) = (&mut self.open, other) {
            open.span.links.push(other);
        }
    }

    /// It is over: it stands at this position, or failed, by a word of ours.
    pub fn published(mut self, outcome: Result<impl Display, &'static str>) {
        match outcome {
            Ok(position) => self.set("messaging.message.id", || {
                Attribute::Text(Cow::Owned(position.to_string()))
            }),
            Err(code) => self.fail(code),
        }
        self.end();
    }

    /// It failed, by a word of ours.
    pub fn fail(&mut self, code: &'static str) {
        if let Some(open) = &mut self.open {
            let word = Attribute::Text(Cow::Borrowed(code));
            open.span.attributes.push(("error.type", word));
            open.span.error = Some(Cow::Borrowed(code));
        }
    }

    /// It is over.
    pub fn end(self) {
        if let Some(open) = self.open {
            let Open {
                mut span,
                begun,
                gate,
            } = *open;
            // By a clock that cannot step back.
            span.end = span.start + begun.elapsed();
            gate.send(span);
        }
    }
}

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

fn root() -> TraceContext {
    let mut trace = TraceId::default();
    while trace == TraceId::default() {
        trace = rand::random();
    }
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
