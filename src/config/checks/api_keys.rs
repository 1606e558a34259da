//! Keys of the API: none that is guessed at once in production, and each of one caller.
//!
//! In: all values. Out: a fault at the place of the keys; no key is repeated.

use std::collections::BTreeSet;

use super::{API_KEY_BYTES_MIN, list};
use crate::config::Environment;
use crate::config::api_clients::hash_of;
use crate::config::faults::Faults;
use crate::config::values::Values;

pub(super) fn check(values: &Values, faults: &mut Faults) {
    let in_file = values.file_keys();
    let lists = [
        ("api.keys", list(values, "api.keys").to_vec()),
        (
            "api.keys_file",
            in_file.iter().map(|key| key.0.clone()).collect(),
        ),
    ];
    let is_production = values.environment() == Environment::Production && !values.dev();
    let mut hashes = BTreeSet::new();
    for (path, keys) in lists {
        if is_production && keys.iter().any(|key| key.len() < API_KEY_BYTES_MIN) {
            let what = format!(
                "{path} has a key of fewer than {API_KEY_BYTES_MIN} bytes, which can be guessed and \
                 which production refuses"
            );
            let remedy = "make keys by fanfare api-key new, or openssl rand -hex 32";
            faults.push(values.place(path), what, remedy);
        }
        hashes.extend(keys.iter().map(|key| hash_of(key.as_bytes())));
    }
    for (client, origin) in values.api_clients_with_origins() {
        if client.hashes.iter().any(|hash| hashes.contains(hash)) {
            let what = format!(
                "the API client {} has a key that stands in api.keys or api.keys_file too, where it may \
                 do everything",
                client.name
            );
            let remedy = "give the client a key of its own: fanfare api-key new";
            faults.push(origin.to_string(), what, remedy);
        }
    }
}
