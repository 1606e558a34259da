//! Why a call of a client has no result.

use fanfare_protocol::error::WireError;

use crate::resuming::CommandError;
use crate::subscription::Ended;

/// Why a call has no result.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The server refused, or its answer was lost.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// The data cannot be published.
    #[error("the data cannot be published: {0}")]
    Data(WireError),
    /// The answer is none of the contract.
    #[error("the server's answer cannot be read; is it a newer one than this client knows?")]
    Answer(#[source] serde_json::Error),
    /// The session has no user, and so no inbox.
    #[error("an anonymous session has no inbox; connect with a token")]
    NoInbox,
    /// There is no client any more.
    #[error(transparent)]
    Ended(#[from] Ended),
}
