//! The client against a server that the test plays by hand: what it must bear, and what it must
//! tell.
//!
//! In: [`played`], whose every word is in the test. Out: a module per subject.

mod commands;
mod delivery;
mod inboxes;
mod played;
mod returning;
mod tokens;
