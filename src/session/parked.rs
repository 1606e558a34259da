//! A command that waits until its tokens are checked elsewhere, its authorizer has answered, or
//! revocations were read.
//!
//! In: what was read of it. Out: the same with what was found out, for [`super::checking`] and
//! [`super::authorizing`]. Owner: the session's work that asks. Bound: one a session.

use fanfare_protocol::command::Command;

use super::state::{Asking, Now};
use crate::auth::verifier::Checked;
use crate::authorizer::Verdict;

/// See the module.
#[derive(Debug)]
pub struct Parked {
    /// The command's id.
    pub(super) id: Option<u64>,
    /// The command.
    pub(super) command: Command,
    /// Its tokens.
    pub(super) checked: Vec<Checked>,
    /// When it was read.
    pub(super) read: Now,
}

/// A command that is held back until revocations were read.
#[derive(Debug)]
pub struct Held {
    /// The command's id.
    pub(super) id: Option<u64>,
    /// The command.
    pub(super) command: Command,
    /// When it was read.
    pub(super) read: Now,
}

/// A command with what the authorizer of sessions said.
#[derive(Debug)]
pub struct Asked {
    /// The command's id.
    pub(super) id: Option<u64>,
    /// What waits.
    pub(super) asking: Asking,
    /// The answer.
    pub(super) verdict: Verdict,
    /// [`Worker::disconnects`](crate::worker::Worker::disconnects) when it was asked.
    pub(super) disconnects: u64,
    /// When it was read.
    pub(super) read: Now,
}
