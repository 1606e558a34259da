//! The name under which the queue remembers an idempotency key.
//!
//! In: who enqueues, the key that was given, the target. Out: 22 characters of SHA-256 over all three,
//! each with its length, so that none can stand for another. Pure.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};

use fanfare_protocol::ids::Topic;

/// Bytes of the hash that are kept: two of 10^15 keys meet with a chance of one in a hundred million.
const BYTES: usize = 16;

/// The name of a key of this publisher (`broker::idempotency::Publisher` or another text of its own)
/// for this target.
#[must_use]
pub fn digest(publisher: &str, key: &str, target: &Topic) -> String {
    let mut hash = Sha256::new();
    for part in [publisher, key, target.qualified()] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part.as_bytes());
    }
    URL_SAFE_NO_PAD.encode(&hash.finalize()[..BYTES])
}

#[cfg(test)]
mod tests {
    use super::*;
    use fanfare_protocol::ids::App;

    #[test]
    fn no_part_can_stand_for_another() {
        let topic = |name: &str| Topic::new(&App::default_app(), name).unwrap();
        let names = [
            digest("api", "ab", &topic("t")),
            digest("apia", "b", &topic("t")),
            digest("api", "a", &topic("bt")),
            digest("api", "ab", &topic("u")),
            digest("", "apiab", &topic("t")),
        ];
        let distinct: std::collections::BTreeSet<_> = names.iter().collect();
        assert_eq!(distinct.len(), names.len());
        assert!(names.iter().all(|name| name.len() == 22));
        assert_eq!(digest("api", "ab", &topic("t")), names[0]);
    }
}
