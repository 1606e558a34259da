//! The HTTP API from outside: every call, every refusal, and the document that describes them.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod allocations;
mod apps;
mod audit;
mod clients;
mod dead_letters;
mod document;
mod fixture;
mod guide;
mod health;
mod heavy;
mod metrics;
mod performance;
mod publish;
mod queue;
mod queue_document;
mod reads;
mod recorded;
mod refusals;
mod revoke;
