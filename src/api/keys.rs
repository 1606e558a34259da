//! The callers of the API, found by the key that they present.
//!
//! In: the configuration, and again when it was read again. Out: whose key it is. Owner of the list that
//! is in force. Bounds: those of the configuration (`src/config/api_clients.rs`, `src/config/key_file.rs`);
//! the lock is held for one look at a pointer, or one replacement.

use std::sync::{Arc, PoisonError, RwLock};

use subtle::{ConditionallySelectable as _, ConstantTimeEq as _};

use crate::config::api_clients::{ApiClient, KeyHash, hash_of};
use crate::config::{Api, Secret};

/// A key's hash, and whose it is.
type Row = (KeyHash, Arc<ApiClient>);

/// The callers that are known, which can be replaced while the API serves.
#[derive(Debug)]
pub struct ApiKeys(RwLock<Arc<[Row]>>);

impl ApiKeys {
    /// Those of this configuration.
    #[must_use]
    pub fn new(api: &Api) -> Self {
        Self(RwLock::new(rows(api)))
    }

    /// Goes on with those of this configuration.
    pub fn replace(&self, api: &Api) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = rows(api);
    }

    pub(super) fn find(&self, presented: &[u8]) -> Option<Arc<ApiClient>> {
        let rows = Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner));
        find(&rows, &hash_of(presented)).cloned()
    }
}

fn rows(api: &Api) -> Arc<[Row]> {
    let keys = api.keys.iter().chain(&api.file_keys);
    // An empty key can never be presented rightly, whatever was configured.
    let keys = keys.filter(|Secret(key)| !key.is_empty());
    let of_keys = keys.map(|Secret(key)| ApiClient::with_key(key));
    let clients = of_keys.chain(api.clients.iter().cloned());
    let rows = clients.flat_map(|client| {
        let client = Arc::new(client);
        let hashes = client.hashes.clone().into_iter();
        hashes.map(move |hash| (hash, Arc::clone(&client)))
    });
    rows.collect()
}

/// Compares with every hash to the end, so that the time tells nothing about which was right. Of a key
/// that stands there twice the last one counts.
fn find<'a>(rows: &'a [Row], presented: &KeyHash) -> Option<&'a Arc<ApiClient>> {
    let mut found = u64::MAX;
    for (at, (hash, _)) in (0_u64..).zip(rows) {
        found = u64::conditional_select(&found, &at, hash.ct_eq(presented));
    }
    let (_, client) = rows.get(usize::try_from(found).ok()?)?;
    Some(client)
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
        let name = |key: &str| keys.find(key.as_bytes()).map(|client| client.name.clone());
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
}
