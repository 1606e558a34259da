//! Something that may be traced, while it is done.
//!
//! In: a span that was begun, or none, and what becomes known of it. Out: the context under which it
//! goes on, and the finished span. Owner: whoever does it. What is dropped before it is over ends its
//! span as given up, so that what it caused has a parent. Bound: one span.

use std::borrow::Cow;
use std::fmt::Display;
use std::time::Instant;

use super::context::TraceContext;
use super::span::{Attribute, Span};
use crate::telemetry::gate::Gate;

/// The `error.type` of what was given up before it was over.
const GIVEN_UP: &str = "given_up";

/// See the module.
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

impl Traced {
    /// It goes on by this, and nothing is told of it here.
    pub(super) fn without_span(context: Option<TraceContext>) -> Self {
        Self {
            context,
            open: None,
        }
    }

    /// Its span was begun, and goes there.
    pub(super) fn begun(span: Span, gate: Gate<Span>) -> Self {
        let context = Some(span.context);
        let begun = Instant::now();
        let open = Some(Box::new(Open { span, begun, gate }));
        Self { context, open }
    }

    /// Whether it has a span here.
    #[must_use]
    pub fn has_span(&self) -> bool {
        self.open.is_some()
    }

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

    /// Adds all these to the span, if there is one.
    pub(super) fn describe(&mut self, all: impl FnOnce() -> Vec<(&'static str, Attribute)>) {
        if let Some(open) = &mut self.open {
            open.span.attributes.extend(all());
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
    pub fn end(mut self) {
        self.finish();
    }

    fn finish(&mut self) {
        if let Some(open) = self.open.take() {
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

/// Whoever it was done for went away, or it panicked: what it caused has a parent all the same.
impl Drop for Traced {
    fn drop(&mut self) {
        self.fail(GIVEN_UP);
        self.finish();
    }
}
