//! A command that waits until its tokens are checked elsewhere.
//!
//! In: what was read of it. Out: the same with its tokens checked, for [`super::checking`]. Owner: the session's
//! work that asks for the checks. Bound: one a session.

use fanfare_protocol::command::Command;

use super::state::Now;
use crate::auth::verifier::Checked;

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
