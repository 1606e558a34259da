//! What an error of fred says about the command: not done, unknown, or failed.
//!
//! In: errors as fred reports them, and our own connections (`wire`), which report in the same form.
//! Out: [`RedisError`], by the first word of the server's answer and, where there was none, by what
//! was done with the command. Pure.

use fred::error::{Error, ErrorKind};

use super::RedisError;
use super::refusal::{Effect, Refusal};

/// What the server answered, in the form in which fred reports it.
#[must_use]
pub(super) fn answered(text: &str) -> Error {
    let kind = match text.split(' ').next() {
        Some("NOAUTH" | "WRONGPASS") => ErrorKind::Auth,
        Some("MOVED" | "ASK" | "CLUSTERDOWN") => ErrorKind::Cluster,
        _ => ErrorKind::Unknown,
    };
    Error::new(kind, text.to_owned())
}

/// No answer came in time. It is reported in fred's words, by which `access` knows it.
#[must_use]
pub(super) fn timed_out() -> Error {
    Error::new(ErrorKind::Timeout, "Request timed out.")
}

/// The server closed the connection.
#[must_use]
pub(super) fn closed() -> Error {
    Error::new(ErrorKind::IO, "Connection closed.")
}

impl RedisError {
    /// Sorts what fred reports by what it says about the outcome.
    #[must_use]
    pub fn of(error: Error) -> Self {
        let code = first_word(&error);
        match code {
            "NOSCRIPT" => return Self::NoScript(error),
            "READONLY" | "MASTERDOWN" => return Self::NotMaster(error),
            "MOVED" => return Self::Moved(error),
            // fred gives one such answer to all that is in flight, done or not.
            "CLUSTERDOWN" => return Self::Unknown(error),
            "ASK" | "TRYAGAIN" => return Self::NotDone(error),
            _ => {}
        }
        match Refusal::of(error.details()).map(|refusal| refusal.effect) {
            Some(Effect::ReadOnly) => return Self::ReadOnly(error),
            // Without a word in front it may come out of the middle of a script.
            Some(Effect::Away) if code != "ERR" => return Self::NotDone(error),
            _ => {}
        }
        match code {
            "ERR" | "WRONGTYPE" | "CROSSSLOT" | "EXECABORT" => return Self::Failed(error),
            _ => {}
        }
        // fred has no kind for what it did not even write to a connection.
        let unwritten = matches!(
            error.details(),
            "Failed to route command."
                | "Failed to send command to router."
                | "Client is not initialized."
        );
        match error.kind() {
            ErrorKind::Canceled | ErrorKind::Backpressure | ErrorKind::Auth => Self::NotDone(error),
            _ if unwritten => Self::NotDone(error),
            _ => Self::Unknown(error),
        }
    }

    /// The same of an answer that is surely that of this command alone.
    #[must_use]
    pub fn of_answer(error: Error) -> Self {
        match first_word(&error) {
            "CLUSTERDOWN" => Self::NotDone(error),
            _ => Self::of(error),
        }
    }

    /// The same, with the server that did not answer. What a server answers is left in its words, by
    /// the first of which it is known.
    #[must_use]
    pub(crate) fn of_server(self, server: impl FnOnce() -> String) -> Self {
        match self {
            Self::Unknown(error) if Refusal::of(error.details()).is_none() => {
                let details = format!("Redis at {}: {}", server(), error.details());
                Self::Unknown(Error::new(error.kind().clone(), details))
            }
            other => other,
        }
    }

    /// The same of an error that a script met and tells.
    #[must_use]
    pub fn told(text: &str) -> Self {
        Self::of(answered(text))
    }

    /// What was reported, without what it says of the command.
    #[must_use]
    pub fn into_reported(self) -> Error {
        match self {
            Self::Url(error)
            | Self::NoScript(error)
            | Self::NotMaster(error)
            | Self::ReadOnly(error)
            | Self::Moved(error)
            | Self::NotDone(error)
            | Self::Unknown(error)
            | Self::Failed(error) => error,
            other => Error::new(ErrorKind::Unknown, other.to_string()),
        }
    }

    /// In which word the server refused, if it did.
    #[must_use]
    pub fn refusal(&self) -> Option<&'static Refusal> {
        match self {
            Self::Circuit(away) => away.refusal,
            Self::Nowhere(nowhere) => nowhere.refusal,
            Self::NotMaster(error)
            | Self::ReadOnly(error)
            | Self::NotDone(error)
            | Self::Unknown(error)
            | Self::Failed(error) => Refusal::of(error.details()),
            _ => None,
        }
    }

    /// Whether the server answers and only takes no writes.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        matches!(self, Self::ReadOnly(_))
    }

    /// Whether it is certain that nothing was executed.
    #[must_use]
    pub fn is_not_done(&self) -> bool {
        !matches!(self, Self::Unknown(_) | Self::Failed(_))
    }

    /// Whether the key, or the master, may be somewhere else now.
    #[must_use]
    pub fn is_misplaced(&self) -> bool {
        match self {
            Self::Moved(_) | Self::NotMaster(_) => true,
            Self::Unknown(error) | Self::NotDone(error) => first_word(error) == "CLUSTERDOWN",
            _ => false,
        }
    }

    /// Whether the slot of the key is on its way to another master.
    #[must_use]
    pub fn is_moving(&self) -> bool {
        let word = |error: &Error| matches!(first_word(error), "ASK" | "TRYAGAIN");
        matches!(self, Self::Moved(_)) || matches!(self, Self::NotDone(error) if word(error))
    }

    /// Whether the client had no room for one more command.
    #[must_use]
    pub fn is_crowded(&self) -> bool {
        matches!(self, Self::NotDone(error) if *error.kind() == ErrorKind::Backpressure)
    }

    /// Whether no answer came in time.
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        matches!(self, Self::Unknown(error) if *error.kind() == ErrorKind::Timeout)
    }
}

fn first_word(error: &Error) -> &str {
    error.details().split([' ', ':']).next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::fields::causes;

    #[test]
    fn what_is_not_answered_names_its_server_and_is_told_once() {
        let at = || "10.0.0.1:6379".to_owned();
        let error = RedisError::of(timed_out()).of_server(at);
        assert!(error.is_timeout());
        let told = "the outcome is unknown: Redis at 10.0.0.1:6379: Request timed out.";
        assert_eq!(causes(&error), told);
        let down = RedisError::of(answered("CLUSTERDOWN Hash slot not served")).of_server(at);
        assert!(down.is_misplaced() && down.refusal().is_some());
        let moved = RedisError::of(answered("MOVED 7 10.0.0.2:6379")).of_server(at);
        assert!(moved.is_moving());
    }
}
