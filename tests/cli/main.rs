//! The command line as a user meets it: every command, the configuration, and `fanfare bench`.
//!
//! In: the binary, the environment and files of a test's own. Out: a module per subject.

mod apps;
mod bench;
mod commands;
mod config;
mod health;
mod plan;
mod queue;
mod revoke;
mod roundtrip;
mod sessions;
mod token;
mod tools;
