//! Who may call the API, and what each caller may do there.
//!
//! In: nothing; these are the values that `[[api.clients]]` and `api.keys` set. Out: they are read by
//! the judge (`crate::policy`) and by the API. A key itself is not among them: only its SHA-256 is
//! kept. Bounds: [`CLIENTS_MAX`] clients, [`HASHES_MAX`] keys of one, [`PATTERNS_MAX`] patterns of one.

use std::net::SocketAddr;

use sha2::{Digest as _, Sha256};

use crate::config::Secret;
use fanfare_protocol::ids::App;
use fanfare_protocol::pattern;

/// `[api]`
#[derive(Debug, Clone)]
pub struct Api {
    /// The API's listener.
    pub listen: SocketAddr,
    /// Keys that callers present. Whoever has one may do everything.
    pub keys: Vec<Secret>,
    /// More of them, from `api.keys_file`.
    pub file_keys: Vec<Secret>,
    /// Callers that may do a part of it. Without any, and without keys, only health and metrics answer.
    pub clients: Vec<ApiClient>,
    /// Longest body, in bytes. Default 8 MiB.
    pub body_bytes_max: usize,
    /// Most targets of one publication and items of one batch. Default 1,000.
    pub targets_max: usize,
}

/// Most clients. Each request compares its key with all of them.
pub const CLIENTS_MAX: usize = 1_000;
/// Most keys of one client: the one in force, and the next while it is rotated.
pub const HASHES_MAX: usize = 2;
/// Most patterns of one client.
pub const PATTERNS_MAX: usize = 100;
/// Longest name of a client.
pub const NAME_BYTES_MAX: usize = 64;
/// The name that callers with a key of `api.keys` have in the audit.
pub const KEYS_NAME: &str = "api.keys";

/// The SHA-256 of a key.
pub type KeyHash = [u8; 32];

/// The SHA-256 of this key, as `key_sha256` has it.
#[must_use]
pub fn hash_of(key: &[u8]) -> KeyHash {
    Sha256::digest(key).into()
}

/// What a caller may ask for. Source: `docs/api-clients.md`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Publish at once.
    Publish,
    /// Read topics, their history and members, inboxes, and where something has its home.
    Read,
    /// See a user's sessions, end them, revoke tokens.
    Users,
    /// Hand to the durable queue, see its depth, and deal with dead letters.
    Queue,
    /// Nodes, how they did, draining, the audit.
    Admin,
}

impl Scope {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Publish,
        Self::Read,
        Self::Users,
        Self::Queue,
        Self::Admin,
    ];

    /// As `scopes` has it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Read => "read",
            Self::Users => "users",
            Self::Queue => "queue",
            Self::Admin => "admin",
        }
    }

    /// The scope of this word.
    #[must_use]
    pub fn of(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scope| scope.word() == word)
    }
}

/// A set of scopes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Scopes(u8);

impl Scopes {
    /// Every scope.
    #[must_use]
    pub fn all() -> Self {
        Scope::ALL.into_iter().collect()
    }

    /// Whether this one is in it.
    #[must_use]
    pub fn has(self, scope: Scope) -> bool {
        self.0 & (1 << scope as u8) != 0
    }

    /// Those that are in it, in their order.
    pub fn iter(self) -> impl Iterator<Item = Scope> {
        let all = Scope::ALL.into_iter();
        all.filter(move |scope| self.has(*scope))
    }
}

impl FromIterator<Scope> for Scopes {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Self {
        let add = |set: u8, scope| set | (1 << scope as u8);
        Self(scopes.into_iter().fold(0, add))
    }
}

/// Whose topics and users a caller speaks of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientApp {
    /// Those of this app.
    One(App),
    /// Those of the app that the header `Fanfare-App` names; `default` without it.
    Any,
}

/// A caller of the API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiClient {
    /// As the audit names it.
    pub name: String,
    /// The SHA-256 of its keys.
    pub hashes: Vec<KeyHash>,
    /// Its app.
    pub app: ClientApp,
    /// What it may ask for.
    pub scopes: Scopes,
    /// Which topics it may name, as patterns; an inbox by `@USER`. `None`: all of its app.
    pub topics: Option<Vec<String>>,
    /// From when on its keys are refused, in unix seconds. `None`: never.
    pub expires: Option<u64>,
}

impl ApiClient {
    /// A caller with this key of `api.keys`: it may do everything in every app.
    #[must_use]
    pub fn with_key(key: &str) -> Self {
        Self {
            name: KEYS_NAME.to_owned(),
            hashes: vec![hash_of(key.as_bytes())],
            app: ClientApp::Any,
            scopes: Scopes::all(),
            topics: None,
            expires: None,
        }
    }

    /// Whether it may name this topic of its app.
    #[must_use]
    pub fn names(&self, topic_name: &str) -> bool {
        let Some(patterns) = &self.topics else {
            return true;
        };
        let mut patterns = patterns.iter();
        patterns.any(|one| pattern::matches(one, topic_name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_of_scopes_has_those_that_it_was_made_of() {
        for scope in Scope::ALL {
            let one: Scopes = [scope].into_iter().collect();
            for other in Scope::ALL {
                assert_eq!(one.has(other), scope == other, "{scope:?} {other:?}");
            }
            assert!(Scopes::all().has(scope));
            assert!(!Scopes::default().has(scope));
            assert_eq!(Scope::of(scope.word()), Some(scope));
        }
        assert_eq!(Scopes::all().iter().count(), Scope::ALL.len());
        assert_eq!(Scope::of("Publish"), None);
    }

    #[test]
    fn a_key_is_hashed_as_other_programs_do_it() {
        // printf abc | sha256sum
        let hash: Vec<_> = hash_of(b"abc")
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let wanted = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(hash.concat(), wanted);
    }
}
