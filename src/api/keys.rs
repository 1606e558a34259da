//! The callers of the API, found by the key that they present, and how each behaves.
//!
//! In: the configuration, and again when it was read again. Out: whose key it is, whether its client may
//! act once more, and whether a refusal of it is to be told. Owner of the list that is in force. Bounds:
//! those of the configuration (`src/config/api_clients.rs`, `src/config/key_file.rs`), and one small entry
//! for each name of the list; the locks are held for one look, or one replacement.
//!
//! A key is found by its SHA-256, in the same time among 1,000 clients as among one. Hashes are compared to
//! the end; where one is looked for tells nothing, because nobody can compute a key from its hash.

use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use subtle::ConstantTimeEq as _;

use crate::config::api_clients::{ApiClient, KeyHash, hash_of};
use crate::config::{Api, Secret};

/// The clients by the hashes of their keys.
type Clients = HashMap<Known, Arc<ApiClient>>;

/// A key's hash in the list.
#[derive(Debug, Clone, Copy)]
struct Known(KeyHash);

impl PartialEq for Known {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for Known {}

impl Hash for Known {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

/// Acts that one client may ask of a node at once. Whoever ends sessions in a loop has them in a moment.
pub(super) const ACTS_MAX: u32 = 500;
/// One more after each of these: 100 a second, so that no client fills the log of the others' acts.
const ACT_EVERY: Duration = Duration::from_millis(10);
/// Refusals of one client are told once in this time.
const TOLD_EVERY: Duration = Duration::from_secs(60);

/// The callers that are known, which can be replaced while the API serves.
#[derive(Debug)]
pub struct ApiKeys {
    clients: RwLock<Arc<Clients>>,
    conduct: Mutex<HashMap<String, Conduct>>,
}

/// How a client behaved.
#[derive(Debug, Default)]
struct Conduct {
    /// When all its acts are paid for.
    paid_at: Option<Instant>,
    refusal_told: Option<Instant>,
}

impl ApiKeys {
    /// Those of this configuration.
    #[must_use]
    pub fn new(api: &Api) -> Self {
        Self {
            clients: RwLock::new(Arc::new(clients(api))),
            conduct: Mutex::default(),
        }
    }

    /// Goes on with those of this configuration.
    pub fn replace(&self, api: &Api) {
        let clients = Arc::new(clients(api));
        let is_known = |name: &String| clients.values().any(|client| client.name == *name);
        self.conduct().retain(|name, _| is_known(name));
        *self.clients.write().unwrap_or_else(PoisonError::into_inner) = clients;
    }

    /// The client of this key, with the key's hash. An empty key is nobody's, whatever was configured.
    pub(super) fn find(&self, presented: &[u8]) -> Option<(KeyHash, Arc<ApiClient>)> {
        if presented.is_empty() {
            return None;
        }
        let hash = hash_of(presented);
        Some((hash, self.of_hash(&hash)?))
    }

    /// Whether a key of this hash opens anything.
    #[cfg(test)]
    pub(crate) fn has(&self, hash: &KeyHash) -> bool {
        self.of_hash(hash).is_some()
    }

    /// The client that has a key of this hash now.
    pub(super) fn of_hash(&self, hash: &KeyHash) -> Option<Arc<ApiClient>> {
        let clients = self.clients.read().unwrap_or_else(PoisonError::into_inner);
        clients.get(&Known(*hash)).cloned()
    }

    /// Counts an act of this client that the audit has.
    ///
    /// # Errors
    /// It asked for too many: how long until it may ask again.
    pub(super) fn act(&self, name: &str, now: Instant) -> Result<(), Duration> {
        let mut conduct = self.conduct();
        let paid_at = &mut conduct.entry(name.to_owned()).or_default().paid_at;
        let paid = paid_at.map_or(now, |at| at.max(now)) + ACT_EVERY;
        match (paid - now).checked_sub(ACT_EVERY * ACTS_MAX) {
            Some(wait) if !wait.is_zero() => Err(wait),
            _ => {
                *paid_at = Some(paid);
                Ok(())
            }
        }
    }

    /// Whether a refusal of this client is to be told: once in [`TOLD_EVERY`].
    pub(super) fn tells_refusal(&self, name: &str, now: Instant) -> bool {
        let mut conduct = self.conduct();
        let told = &mut conduct.entry(name.to_owned()).or_default().refusal_told;
        let is_due = told.is_none_or(|told| now.saturating_duration_since(told) >= TOLD_EVERY);
        if is_due {
            *told = Some(now);
        }
        is_due
    }

    fn conduct(&self) -> std::sync::MutexGuard<'_, HashMap<String, Conduct>> {
        // Where a holder of the lock panicked, nothing was half done.
        self.conduct.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Of a key that is there twice the last one counts: the client, whose bounds hold then.
fn clients(api: &Api) -> Clients {
    let keys = api.keys.iter().chain(&api.file_keys);
    let of_keys = keys.map(|Secret(key)| ApiClient::with_key(key));
    let all = of_keys.chain(api.clients.iter().cloned());
    let rows = all.flat_map(|client| {
        let client = Arc::new(client);
        let hashes = client.hashes.clone().into_iter();
        hashes.map(move |hash| (Known(hash), Arc::clone(&client)))
    });
    rows.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::api_clients::KEYS_NAME;
    use crate::config::load::defaults;

    fn api() -> Api {
        let client = |name: &str, keys: [&str; 2]| ApiClient {
            name: name.into(),
            hashes: keys.map(|key| hash_of(key.as_bytes())).to_vec(),
            ..ApiClient::with_key("")
        };
        Api {
            keys: ["one", "", "two"].map(|key| Secret(key.into())).to_vec(),
            file_keys: vec![Secret("three".into())],
            clients: vec![client("a", ["four", "five"]), client("b", ["six", "seven"])],
            ..defaults().api
        }
    }

    #[test]
    fn each_key_is_its_clients_and_nothing_else_is_one() {
        let keys = ApiKeys::new(&api());
        let name = |key: &str| {
            keys.find(key.as_bytes())
                .map(|(_, client)| client.name.clone())
        };
        for key in ["one", "two", "three"] {
            assert_eq!(name(key).as_deref(), Some(KEYS_NAME), "{key}");
        }
        for (key, of) in [("four", "a"), ("five", "a"), ("six", "b"), ("seven", "b")] {
            assert_eq!(name(key).as_deref(), Some(of), "{key}");
        }
        for bad in ["", "on", "onee", "ONE", "eight"] {
            assert_eq!(name(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn what_was_replaced_is_known_no_longer() {
        let keys = ApiKeys::new(&api());
        keys.replace(&Api {
            keys: vec![Secret("new".into())],
            ..defaults().api
        });
        assert!(keys.find(b"new").is_some());
        for old in ["one", "three", "four"] {
            assert!(keys.find(old.as_bytes()).is_none(), "{old}");
        }
    }

    #[test]
    fn an_empty_key_is_nobodys_in_any_list() {
        let of_empty = ApiClient {
            name: "unset".into(),
            hashes: vec![hash_of(b"")],
            ..ApiClient::with_key("")
        };
        let keys = ApiKeys::new(&Api {
            keys: vec![Secret(String::new())],
            file_keys: vec![Secret(String::new())],
            clients: vec![of_empty],
            ..defaults().api
        });
        assert!(keys.find(b"").is_none());
    }

    #[test]
    fn each_client_has_acts_of_its_own() {
        let (keys, now) = (ApiKeys::new(&api()), Instant::now());
        for n in 0..ACTS_MAX {
            assert_eq!(keys.act("a", now), Ok(()), "{n}");
        }
        assert_eq!(keys.act("a", now), Err(ACT_EVERY));
        assert_eq!(keys.act("b", now), Ok(()));
        assert_eq!(keys.act("a", now + ACT_EVERY), Ok(()));
        assert_eq!(keys.act("a", now + ACT_EVERY), Err(ACT_EVERY));
    }

    #[test]
    fn a_clients_refusals_are_told_once_a_minute() {
        let (keys, now) = (ApiKeys::new(&api()), Instant::now());
        assert!(keys.tells_refusal("a", now));
        assert!(!keys.tells_refusal("a", now + TOLD_EVERY / 2));
        assert!(keys.tells_refusal("b", now));
        assert!(keys.tells_refusal("a", now + TOLD_EVERY));
        assert_eq!(keys.conduct().len(), 2);
        keys.replace(&defaults().api);
        assert_eq!(keys.conduct().len(), 0, "nobody is left");
    }
}
