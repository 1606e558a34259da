//! How a command ends: its exit code, and for people what failed and what to do next.
//!
//! In: the errors of the other modules of the command line. Out: one line on stderr with the
//! whole chain of causes, a hint below it, and the code. Codes are those of sysexits.h, so that
//! scripts can tell a mistake of their own from a node that is away.

use std::error::Error;
use std::process::ExitCode;

use super::output;
use fanfare_protocol::error::ErrorCode;

/// Exit codes of every command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// It did what was asked.
    Done = 0,
    /// The node understood and refused.
    Refused = 1,
    /// The command line or the configuration is wrong (`EX_USAGE`).
    Usage = 64,
    /// Something of what was read cannot be used (`EX_DATAERR`).
    Data = 65,
    /// The node cannot be reached or cannot serve now (`EX_UNAVAILABLE`).
    Unreachable = 69,
    /// A part of the node has ended without which it is none (`EX_SOFTWARE`).
    Broken = 70,
    /// This machine refused something that cannot fail in practice (`EX_OSERR`).
    System = 71,
    /// Standard input cannot be read, or the output not be written (`EX_IOERR`).
    Io = 74,
    /// Not, or not rightly, authenticated or not allowed (`EX_NOPERM`).
    Denied = 77,
    /// Ended by Ctrl-C.
    Interrupted = 130,
}

impl Exit {
    /// The code that goes with the HTTP status of a refusal.
    #[must_use]
    pub fn by_status(status: u16) -> Self {
        match status {
            401 | 403 => Self::Denied,
            429 | 503 => Self::Unreachable,
            _ => Self::Refused,
        }
    }

    /// The code that goes with an error code of the contract.
    #[must_use]
    pub fn by_error_code(code: &str) -> Self {
        serde_json::from_value::<ErrorCode>(code.into())
            .map_or(Self::Refused, |code| Self::by_status(code.status()))
    }

    /// The code that goes with a session that was closed with this code of the contract.
    #[must_use]
    pub fn by_close_code(code: u16) -> Self {
        match code {
            4000 | 4001 | 4004 => Self::Denied,
            4002..=4099 => Self::Refused,
            _ => Self::Unreachable,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// A command that did not succeed.
#[derive(Debug)]
pub struct Failure {
    exit: Exit,
    text: String,
    hint: Option<String>,
}

impl Failure {
    /// A failure told by an error; the chain of its causes becomes the text.
    #[must_use]
    pub fn new(exit: Exit, error: &dyn Error) -> Self {
        let mut text = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            let part = error.to_string();
            // Some libraries repeat the text of the cause in their own.
            if !text.ends_with(&part) {
                text.push_str(": ");
                text.push_str(&part);
            }
            cause = error.source();
        }
        Self {
            exit,
            text,
            hint: None,
        }
    }

    /// Adds what to do next.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// With which code it ends.
    #[must_use]
    pub fn exit(&self) -> Exit {
        self.exit
    }

    /// The same failure with another code.
    #[must_use]
    pub fn with_exit(mut self, exit: Exit) -> Self {
        self.exit = exit;
        self
    }

    /// The same failure with this in front of its text.
    #[must_use]
    pub fn before(mut self, words: &str) -> Self {
        self.text.insert_str(0, words);
        self
    }

    /// What failed, with its causes.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The runtime of a client command could not be started.
    #[must_use]
    pub fn runtime(error: std::io::Error) -> Self {
        Self::new(Exit::System, &error)
    }

    /// Tells it on stderr and gives the code.
    pub fn report(self) -> Exit {
        output::note(&format!("fanfare: {}", output::printable(&self.text)));
        if let Some(hint) = self.hint {
            output::note(&format!("hint: {hint}"));
        }
        self.exit
    }
}
