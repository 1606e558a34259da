//! The keys of the API's callers.

use std::sync::{PoisonError, RwLock};

use subtle::{Choice, ConstantTimeEq as _};

use crate::config::Secret;

/// The keys in force, which can be replaced while the API serves. The lock is held for one look or
/// one replacement.
#[derive(Debug)]
pub struct ApiKeys(RwLock<Vec<Secret>>);

impl ApiKeys {
    /// These keys.
    #[must_use]
    pub fn new(keys: &[Secret]) -> Self {
        Self(RwLock::new(keys.to_vec()))
    }

    /// Goes on with these keys.
    pub fn replace(&self, keys: &[Secret]) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = keys.to_vec();
    }

    pub(super) fn have(&self, presented: &[u8]) -> bool {
        let keys = self.0.read().unwrap_or_else(PoisonError::into_inner);
        is_valid(&keys, presented)
    }
}

/// Compares with every key to the end, so that the time tells nothing about which or how much
/// of one was right (their lengths apart).
fn is_valid(keys: &[Secret], presented: &[u8]) -> bool {
    let mut found = Choice::from(0);
    for Secret(key) in keys {
        // An empty key can never be presented rightly, whatever was configured.
        found |= key.as_bytes().ct_eq(presented) & Choice::from(u8::from(!key.is_empty()));
    }
    found.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_configured_key_is_valid_and_nothing_else() {
        let keys = [
            Secret("one".into()),
            Secret(String::new()),
            Secret("two".into()),
        ];
        for good in ["one", "two"] {
            assert!(is_valid(&keys, good.as_bytes()));
        }
        for bad in ["", "on", "onee", "ONE", "three"] {
            assert!(!is_valid(&keys, bad.as_bytes()), "{bad:?}");
        }
        assert!(!is_valid(&[], b"one"));
    }
}
