//! What a client's callers wait for: commands to be sent, and those that were sent, by their id.
//!
//! In: [`Call`]s. Out: texts to send, answers. Owner: the client's task. Bounds: [`CALLS_MAX`] and
//! [`CALLS_BYTES_MAX`], sent and unsent together; beyond, no further request is taken.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use fanfare_protocol::client::encode_command;
use fanfare_protocol::command::{Command, Envelope, Subscribe};
use fanfare_protocol::form::Encoding;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::client_error::ClientError;
use crate::frame::Frame;
use crate::resuming::CommandError;

/// Most calls that wait for the server.
const CALLS_MAX: usize = 256;
/// Most bytes of them.
const CALLS_BYTES_MAX: usize = 8 << 20;

/// Whose a call is.
#[derive(Debug)]
pub(super) enum Asker {
    /// A caller, who is given the text of the answer.
    Caller(oneshot::Sender<Result<String, ClientError>>),
    /// The subscription of a topic, with its options.
    Join(Subscribe),
    /// A topic that is left.
    Leave(String),
    /// A page of a topic that cannot be left.
    Page(String),
}

/// A command.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) command: Command,
    pub(super) asker: Asker,
    /// When it was sent first, and as whom.
    first_sent: Option<(Instant, Option<String>)>,
    bytes: usize,
}

impl Call {
    pub(super) fn new(command: Command, asker: Asker) -> Self {
        let bytes = match &command {
            Command::Publish(publish) => publish.data.bytes().len(),
            _ => 0,
        };
        Self {
            command,
            asker,
            first_sent: None,
            bytes: bytes + 256,
        }
    }

    /// Nobody waits for it any more.
    pub(super) fn is_given_up(&self) -> bool {
        matches!(&self.asker, Asker::Caller(answer) if answer.is_closed())
    }

    /// Whether a publication was sent first so lately that the server knows its key.
    fn is_young(&self, within: Duration) -> bool {
        match (&self.first_sent, &self.command) {
            (Some((at, _)), Command::Publish(_)) => at.elapsed() < within,
            _ => true,
        }
    }

    /// Whether it can be sent as this user: a key is one of the user who sent it first.
    pub(super) fn is_of(&self, user: Option<&str>) -> bool {
        match (&self.first_sent, &self.command) {
            (Some((_, as_user)), Command::Publish(_)) => as_user.as_deref() == user,
            _ => true,
        }
    }

    /// Whether it may be sent again after its answer was lost in this way.
    pub(super) fn is_to_be_repeated(&self, error: &CommandError) -> bool {
        let CommandError::Lost { has_user, .. } = error else {
            return false;
        };
        let is_safe = match &self.command {
            // For an anonymous session a key holds no longer than the session.
            Command::Publish(publish) => publish.idempotency_key.is_some() && *has_user,
            command => matches!(command, Command::Subscribe(_)),
        };
        is_safe && !error.is_of_what_was_sent()
    }

    /// Its text under an id.
    pub(super) fn text(&self, id: u64) -> Result<String, ClientError> {
        let envelope = Envelope {
            id: Some(id),
            command: self.command.clone(),
        };
        let bytes = encode_command(Encoding::Json, &envelope);
        let bytes = bytes.map_err(|error| ClientError::Command(unencodable(&error)))?;
        String::from_utf8(bytes).map_err(|error| ClientError::Command(unencodable(&error)))
    }
}

/// The answer to a publication that was sent and may not be repeated.
pub(super) fn too_late() -> CommandError {
    CommandError::Lost {
        has_user: true,
        close_code: None,
        cause: "and was not back in time to repeat it".to_owned(),
    }
}

fn unencodable(error: &dyn std::error::Error) -> CommandError {
    CommandError::Refused {
        code: "bad_request".to_owned(),
        message: format!("the command cannot be written as JSON: {error}"),
        retry: false,
        retry_after: None,
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Calls {
    waiting: VecDeque<Call>,
    sent: BTreeMap<u64, Call>,
    bytes: usize,
}

impl Calls {
    pub(super) fn has_room(&self) -> bool {
        self.waiting.len() + self.sent.len() < CALLS_MAX && self.bytes < CALLS_BYTES_MAX
    }

    /// Has a call wait behind all others.
    pub(super) fn push(&mut self, call: Call) {
        self.bytes += call.bytes;
        self.waiting.push_back(call);
    }

    /// The next call that is to be sent.
    pub(super) fn pop(&mut self) -> Option<Call> {
        let call = self.waiting.pop_front()?;
        self.bytes -= call.bytes;
        Some(call)
    }

    /// Calls that nobody waits for any more are not sent, and those that are too old to be repeated
    /// are told so.
    pub(super) fn sweep(&mut self, within: Duration) {
        for call in std::mem::take(&mut self.waiting) {
            if !call.is_given_up() && call.is_young(within) {
                self.waiting.push_back(call);
                continue;
            }
            self.bytes -= call.bytes;
            if let Asker::Caller(answer) = call.asker {
                tell(answer, Err(too_late()));
            }
        }
    }

    /// A call was sent.
    pub(super) fn sent(&mut self, id: u64, mut call: Call, user: Option<&str>) {
        let now = || (Instant::now(), user.map(str::to_owned));
        call.first_sent.get_or_insert_with(now);
        self.bytes += call.bytes;
        self.sent.insert(id, call);
    }

    /// Its answer has come, or was lost.
    pub(super) fn answered(&mut self, id: u64) -> Option<Call> {
        let call = self.sent.remove(&id)?;
        self.bytes -= call.bytes;
        Some(call)
    }

    /// Has calls whose answers were lost wait before all others, in their order.
    pub(super) fn repeat(&mut self, calls: Vec<Call>) {
        for call in calls.into_iter().rev() {
            self.bytes += call.bytes;
            self.waiting.push_front(call);
        }
    }
}

/// Gives a caller the answer.
pub(super) fn tell(
    answer: oneshot::Sender<Result<String, ClientError>>,
    result: Result<Frame, CommandError>,
) {
    // Whoever asked may have gone.
    let _ = answer.send(result.map(|frame| frame.text).map_err(Into::into));
}
