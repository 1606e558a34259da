//! Why a load was not run, or not to its end.
//!
//! In: what the parts of the generator meet. Out: a [`BenchError`], its [`Class`], and what to do
//! where a flag can mend it.

use std::path::PathBuf;

use fanfare_client::error::ConnectionError;
use fanfare_client::resuming::CommandError;

use super::class::Class;
use super::publisher::PublishError;
use super::socket::SocketError;
use super::target::TargetError;

/// Why there are no figures.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// More sockets than files may be open.
    #[error("{sessions} sessions need {needed} open files, and this process may open {limit}")]
    Files {
        /// What was asked for.
        sessions: usize,
        /// Sessions and what the bench itself opens.
        needed: u64,
        /// The hard limit.
        limit: u64,
    },
    /// The load has nowhere to go, or nobody who goes there.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// A session could not be opened.
    #[error("session {number} of {sessions} could not be opened")]
    Open {
        /// Counted from 1.
        number: usize,
        /// How many there were to be.
        sessions: usize,
        /// Why.
        #[source]
        source: SocketError,
    },
    /// A publication failed for good.
    #[error("cannot publish")]
    Publish(#[from] PublishError),
    /// There is no such process.
    #[error("cannot read the figures of process {pid}")]
    Process {
        /// As given.
        pid: u32,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The curves could not be written.
    #[error("cannot write {}: {text}", path.display())]
    Plot {
        /// As given.
        path: PathBuf,
        /// Why.
        text: String,
    },
    /// A session of `mixed` has no connection.
    #[error(transparent)]
    Connection(#[from] ConnectionError),
    /// A command of `mixed` was refused.
    #[error("a session's command failed")]
    Command(#[from] CommandError),
}

impl BenchError {
    /// What kind of failure it is.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Self::Files { .. } | Self::Process { .. } | Self::Plot { .. } => Class::Usage,
            Self::Target(error) => error.class(),
            Self::Open { source, .. } => source.class(),
            Self::Publish(PublishError::Refused { status, .. }) => Class::Status(*status),
            Self::Publish(_) => Class::Unreachable,
            Self::Connection(error) | Self::Command(CommandError::Ended(error)) => {
                of_connection(error)
            }
            Self::Command(CommandError::Refused { code, .. }) => Class::Code(code.clone()),
            Self::Command(CommandError::Lost { .. }) => Class::Unreachable,
            Self::Command(CommandError::TooBig { .. }) => Class::Usage,
        }
    }

    /// What to do, where it is a flag or this machine.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Files { needed, .. } => Some(format!(
                "raise the limit with `ulimit -n {needed}` (as root, or in limits.conf), or lower \
                 --sessions"
            )),
            Self::Process { .. } => {
                Some("--pid is the id of a running process, for example of `pgrep fanfare`".into())
            }
            _ => None,
        }
    }
}

fn of_connection(error: &ConnectionError) -> Class {
    match error {
        ConnectionError::Address { .. } | ConnectionError::Trust(_) => Class::Usage,
        ConnectionError::Rejected { status, .. } => Class::Status(*status),
        ConnectionError::Refused { code, .. } => Class::Code(code.clone()),
        ConnectionError::Closed { code, .. } => Class::Close(*code),
        _ => Class::Unreachable,
    }
}
