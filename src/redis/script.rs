//! A Lua script, and the name by which Redis knows it.
//!
//! In: its source. Out: the source and its SHA-1. Pure.

/// A Lua script and the name by which Redis knows it.
#[derive(Debug, Clone)]
pub struct Script {
    source: &'static str,
    sha: String,
}

impl Script {
    /// Names a script by the SHA-1 of its source.
    #[must_use]
    pub fn new(source: &'static str) -> Self {
        Self {
            source,
            sha: fred::util::sha1_hash(source),
        }
    }

    /// The SHA-1 of the source in lower-case hex, as EVALSHA wants it.
    #[must_use]
    pub fn sha(&self) -> &str {
        &self.sha
    }

    /// The source.
    pub(super) fn source(&self) -> &'static str {
        self.source
    }
}
