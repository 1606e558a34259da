//! Why a load was not run, or not to its end.
//!
//! In: what the parts of the bench meet. Out: a [`Failure`] with an exit code and what to do.

use std::path::PathBuf;

use fanfare_client::connection::ConnectionError;
use fanfare_client::http::ApiError;
use fanfare_client::resuming::CommandError;

use super::publisher::PublishError;
use super::socket::SocketError;
use crate::auth::mint::MintError;
use crate::cli::exit::{Exit, Failure};
use crate::cli::token::TokenError;

/// Why there are no figures.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// The command line asks for something that does not go together.
    #[error("{0}")]
    Usage(&'static str),
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
    /// An address is none.
    #[error("{url} is not an address of the form {scheme}://HOST:PORT")]
    Address {
        /// As given.
        url: String,
        /// What it should begin with.
        scheme: &'static str,
    },
    /// The host's name leads nowhere.
    #[error("cannot find the address of {host}")]
    Name {
        /// Host and port.
        host: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A session could not be opened.
    #[error("session {number} of {sessions} could not be opened: {text}")]
    Open {
        /// Counted from 1.
        number: usize,
        /// How many there were to be.
        sessions: usize,
        /// Why, in words.
        text: String,
        /// Which exit code goes with it.
        exit: Exit,
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
    /// The key for tokens cannot be read.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// A token cannot be signed.
    #[error(transparent)]
    Mint(#[from] MintError),
    /// The HTTP API is out of reach.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// A session of `mixed` has no connection.
    #[error(transparent)]
    Connection(#[from] ConnectionError),
    /// A command of `mixed` was refused.
    #[error("a session's command failed")]
    Command(#[from] CommandError),
}

impl From<BenchError> for Failure {
    fn from(error: BenchError) -> Self {
        let (exit, hint) = match &error {
            BenchError::Files { needed, .. } => (
                Exit::Usage,
                Some(format!(
                    "raise the limit with `ulimit -n {needed}` (as root, or in limits.conf), or \
                     lower --sessions"
                )),
            ),
            BenchError::Process { .. } => (
                Exit::Usage,
                Some("--pid is the id of a running process, for example of `pgrep fanfare`".into()),
            ),
            BenchError::Usage(_)
            | BenchError::Address { .. }
            | BenchError::Plot { .. }
            | BenchError::Token(_)
            | BenchError::Mint(_) => (Exit::Usage, None),
            BenchError::Open { exit, .. } => (*exit, hint_for(*exit)),
            BenchError::Publish(PublishError::Refused { status, .. }) => {
                let exit = Exit::by_status(*status);
                (exit, hint_for(exit))
            }
            BenchError::Name { .. } | BenchError::Publish(_) => {
                (Exit::Unreachable, hint_for(Exit::Unreachable))
            }
            BenchError::Command(CommandError::Refused { code, .. }) => {
                (Exit::by_error_code(code), None)
            }
            BenchError::Command(_) => (Exit::Unreachable, None),
            BenchError::Api(_) | BenchError::Connection(_) => return inner(error),
        };
        let failure = Self::new(exit, &error);
        match hint {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}

/// Errors that have a failure of their own.
fn inner(error: BenchError) -> Failure {
    match error {
        BenchError::Api(error) => error.into(),
        BenchError::Connection(error) => error.into(),
        other => Failure::new(Exit::Refused, &other),
    }
}

fn hint_for(exit: Exit) -> Option<String> {
    let text = match exit {
        Exit::Unreachable => "is the node running? Start one with: fanfare serve --dev",
        Exit::Denied => {
            "give tokens with --token or --secret-env, and the API's key with --api-key"
        }
        _ => return None,
    };
    Some(text.to_owned())
}

/// A socket that could not be opened, as a failure of the whole.
#[must_use]
pub fn open(number: usize, sessions: usize, error: &SocketError) -> BenchError {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    BenchError::Open {
        number: number + 1,
        sessions,
        text,
        exit: error.exit(),
    }
}
