//! Traces: which publication belongs to which trace, and what each stage did for it.
//!
//! In: a `traceparent` from a header, a command or a queue entry ([`context`]). Out: finished [`span`]s,
//! for whoever exports them. Topics and users are never in a span unless the operator asks for topics.

pub mod context;
pub mod span;
