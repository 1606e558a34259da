//! Traces: which publication belongs to which trace, and what each stage did for it.
//!
//! In: a `traceparent` from a header, a command or a queue entry ([`context`]). Out: finished [`span`]s,
//! for whoever exports them ([`tracer`] makes them, [`delivery`] those of a node's sockets), as far as
//! the [`sampler`] lets. Topics are never in a span unless the operator asks for them, and users never.

pub mod context;
pub mod delivery;
pub mod metrics;
pub mod sampler;
pub mod span;
pub mod traced;
pub mod tracer;
