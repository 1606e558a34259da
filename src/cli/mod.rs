//! The command line: one file a command.
//!
//! In: arguments. Out: exit codes, text for people on a terminal, JSON lines in a pipe.

pub mod config;
pub mod serve_flags;
