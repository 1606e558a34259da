//! What one stage did for one publication, when it is over.
//!
//! In: a stage fills in a span by hand. Out: a value that an exporter can send. Pure. Bounds: names and
//! keys are words of ours; a text is at most [`TEXT_BYTES_MAX`] long.

use std::borrow::Cow;
use std::time::SystemTime;

use super::context::{SpanId, TraceContext};
use crate::telemetry::fields::cut;

/// Longest text in an attribute or a status, in bytes; what is longer is cut by [`Attribute::text`].
pub const TEXT_BYTES_MAX: usize = 256;

/// The role of a span, as OpenTelemetry has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpanKind {
    /// A request that came in.
    Server,
    /// A message was handed on.
    Producer,
    /// A message was worked off.
    Consumer,
    /// A part of the work.
    Internal,
}

/// The value of an attribute.
#[derive(Debug, Clone, PartialEq)]
pub enum Attribute {
    /// Text, at most [`TEXT_BYTES_MAX`] bytes.
    Text(Cow<'static, str>),
    /// A number of things.
    Whole(i64),
    /// A measure.
    Real(f64),
    /// Yes or no.
    Flag(bool),
}

impl Attribute {
    /// A text, cut at its bound.
    #[must_use]
    pub fn text(text: &str) -> Self {
        Self::Text(Cow::Owned(cut(text, TEXT_BYTES_MAX).to_owned()))
    }
}

/// A finished span.
#[derive(Debug, Clone, PartialEq)]
pub struct Span {
    /// Its trace, its own id and flags.
    pub context: TraceContext,
    /// The span that caused it; `None` for the first of a trace.
    pub parent: Option<SpanId>,
    /// Whether the parent came from another process.
    pub is_parent_remote: bool,
    /// `publish NAMESPACE`: never a topic, which would make names without end.
    pub name: Cow<'static, str>,
    /// Its role.
    pub kind: SpanKind,
    /// By the clock of this machine.
    pub start: SystemTime,
    /// Not before the start.
    pub end: SystemTime,
    /// Spans that it also belongs to.
    pub links: Vec<TraceContext>,
    /// By the names of the semantic conventions.
    pub attributes: Vec<(&'static str, Attribute)>,
    /// Why it failed; `None` where it did not.
    pub error: Option<Cow<'static, str>>,
}
