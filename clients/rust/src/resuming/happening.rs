//! What happens to a resuming connection, in its order: what the server says, answers to commands,
//! breaks and returns.
//!
//! In: the connection. Out: [`Happening`]s, to the task of a client one by one; to others as
//! [`Event`](super::Event)s. Bounds: [`WAITING_MAX`] and [`WAITING_BYTES_MAX`], beyond which
//! [`Waiting::is_full`].

use std::collections::VecDeque;
use std::time::Duration;

use serde_json::Value;

use super::told::CommandError;
use crate::error::ConnectionError;
use crate::frame::Frame;

/// Most that waits for the caller while a command waits for its answer.
const WAITING_MAX: usize = 10_000;
/// Most bytes of it.
const WAITING_BYTES_MAX: usize = 16 << 20;

/// See the module.
#[derive(Debug)]
pub(crate) enum Happening {
    /// An event of the server.
    Said(Frame),
    /// An event that the client makes of the answer to a resume.
    Made(Value),
    /// The session has a topic again.
    Resumed(String),
    /// The answer to a command.
    Answered {
        id: u64,
        result: Result<Frame, CommandError>,
    },
    /// The connection is gone; all commands were answered before.
    Away {
        cause: ConnectionError,
        again_after: Duration,
    },
    /// It is back.
    Back { welcome: Value },
}

/// What has happened and was not taken yet.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    happenings: VecDeque<Happening>,
    bytes: usize,
}

impl Waiting {
    pub(super) fn push(&mut self, happening: Happening) {
        self.bytes += bytes_of(&happening);
        self.happenings.push_back(happening);
    }

    pub(super) fn pop(&mut self) -> Option<Happening> {
        let happening = self.happenings.pop_front()?;
        self.bytes -= bytes_of(&happening);
        Some(happening)
    }

    pub(super) fn is_full(&self) -> bool {
        self.happenings.len() >= WAITING_MAX || self.bytes >= WAITING_BYTES_MAX
    }
}

fn bytes_of(happening: &Happening) -> usize {
    match happening {
        Happening::Said(frame) => frame.text.len(),
        _ => 0,
    }
}
