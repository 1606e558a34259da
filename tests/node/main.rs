//! One node as it is shipped, started as a process: what it answers, refuses, bears and leaves.
//!
//! In: a node of `fanfare_testkit` per test, and clients, good and bad. Out: a module per subject.

mod admission;
mod alerts;
mod api_clients;
mod authorizers;
mod bad_input;
mod bad_positions;
mod bad_tokens;
mod closing;
mod door;
mod echo;
mod handshake;
mod health;
mod impatient;
mod key_sets;
mod logs;
mod member_pages;
mod metrics;
mod operators;
mod orchestrated;
mod otlp;
mod otlp_answers;
mod otlp_bad;
mod otlp_environment;
mod otlp_lines;
mod panics;
mod performance;
mod queue_bad_input;
mod queue_foreign_keys;
mod real_clients;
mod refusals;
mod requirements;
mod rfc6455;
mod slow_redis;
mod stopping;
