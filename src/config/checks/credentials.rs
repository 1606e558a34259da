//! What must hold between the keys of callers, and between who signs tokens.
//!
//! In: values that each are of their kind. Out: faults at their place. No key is repeated in one.

use crate::config::Environment;
use crate::config::api_clients::hash_of;
use crate::config::client_list;
use crate::config::faults::Faults;
use crate::config::values::{Origin, Values};

use super::{API_KEY_BYTES_MIN, list, text};

/// Checks them.
pub(super) fn check(values: &Values, faults: &mut Faults) {
    plain_keys(values, faults);
    clients(values, faults);
    own_issuer(values, faults);
}

/// The keys that may do everything, each with its path.
fn keys(values: &Values) -> Vec<(&'static str, String)> {
    let in_list = list(values, "api.keys").iter();
    let in_list = in_list.map(|key| ("api.keys", key.clone()));
    let in_file = values.file_keys().into_iter();
    in_list
        .chain(in_file.map(|key| ("api.keys_file", key.0)))
        .collect()
}

/// The paths with a key that can be guessed.
pub(super) fn weak_paths(values: &Values) -> Vec<&'static str> {
    let mut paths: Vec<_> = keys(values)
        .into_iter()
        .filter(|(_, key)| key.len() < API_KEY_BYTES_MIN)
        .map(|(path, _)| path)
        .collect();
    paths.dedup();
    paths
}

fn plain_keys(values: &Values, faults: &mut Faults) {
    if values.environment() != Environment::Production || values.dev() {
        return;
    }
    for path in weak_paths(values) {
        let what = format!(
            "{path} has a key of fewer than {API_KEY_BYTES_MIN} bytes, which can be guessed and which \
             production refuses"
        );
        let remedy = "make one by openssl rand -hex 32, or a client by fanfare api-key new";
        faults.push(values.place(path), what, remedy);
    }
}

/// A key that is a client's and stands in `api.keys` too would be the client's until that is taken out, and
/// may do everything then.
fn clients(values: &Values, faults: &mut Faults) {
    let keys = keys(values);
    if keys.is_empty() {
        return;
    }
    let hashes: Vec<_> = keys
        .iter()
        .map(|(path, key)| (path, hash_of(key.as_bytes())))
        .collect();
    let clients = values.api_clients_with_origins().iter().enumerate();
    for (index, (client, origin)) in clients {
        let same = hashes.iter().find(|(_, hash)| client.hashes.contains(hash));
        if let Some((path, _)) = same {
            let what = format!(
                "{}[{index}].key_sha256 is that of a key in {path}, which may do everything",
                client_list::PATH
            );
            let remedy =
                format!("give the client a key of its own, or take that one out of {path}");
            faults.push(Origin::to_string(origin), what, remedy);
        }
    }
}

/// A token whose `iss` an entry of the list has is never one of `[auth]` itself, which would ask for that
/// very `iss`.
fn own_issuer(values: &Values, faults: &mut Faults) {
    let Some(own) = text(values, "auth.issuer") else {
        return;
    };
    let issuers = values.issuers();
    if let Some(index) = issuers.iter().position(|issuer| issuer.issuer == *own) {
        let what = format!(
            "auth.issuer is that of auth.issuers[{index}], so no token could be one of [auth] itself"
        );
        let remedy = "leave auth.issuer out, or the entry";
        faults.push(values.place("auth.issuer"), what, remedy);
    }
}
