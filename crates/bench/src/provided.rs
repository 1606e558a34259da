//! What the program provides that runs a load: the way to the HTTP API, tokens, and files.
//!
//! The flags for these are those of the program's other commands, so it reads them itself.

use std::fmt;

use serde_json::{Map, Value};

/// Why a token was not signed.
pub type SignError = Box<dyn std::error::Error + Send + Sync>;

/// Signs the claims of a token.
pub type Sign = Box<dyn Fn(&Map<String, Value>) -> Result<String, SignError>>;

/// What a load is run with beside its flags.
pub struct Provided {
    /// Address of the server's HTTP API, `http://HOST:PORT`.
    pub api_url: String,
    /// The key of the HTTP API.
    pub api_key: String,
    /// Signs the tokens of the sessions; `None` where there is no key for it.
    pub sign: Option<Sign>,
    /// Files that this process may open.
    pub files_max: u64,
}

impl fmt::Debug for Provided {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without the key, and without what signs.
        f.debug_struct("Provided")
            .field("api_url", &self.api_url)
            .field("files_max", &self.files_max)
            .finish_non_exhaustive()
    }
}
