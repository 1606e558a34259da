//! What must hold between `[[authorizers]]` and the keys that name one.
//!
//! In: all values of a node, or those of an app laid over them. Out: a fault for each name that is none, and for an authorizer that may take longer than
//! a session has to come in.

use super::text;
use crate::config::app_keys::AUTHORIZE_CONNECT;
use crate::config::authorizer::PATH;
use crate::config::faults::{Faults, did_you_mean};
use crate::config::values::{Origin, Values};

/// The keys that name an authorizer, without their sections.
const NAMES: [&str; 3] = [
    "authorize_connect",
    "authorize_subscribe",
    "authorize_publish",
];

pub(super) fn check(values: &Values, faults: &mut Faults) {
    if values.is_refused(PATH) {
        return;
    }
    let known = values.authorizers();
    for (path, key) in values.paths() {
        // What an app has from the node was checked there.
        if !NAMES.contains(&key.name) || *values.origin(&path) == Origin::Default {
            continue;
        }
        let Some(name) = text(values, &path) else {
            continue;
        };
        if known.iter().any(|authorizer| authorizer.name == name) {
            continue;
        }
        let shown = values.shown(&path);
        let what = format!("{shown} names {name:?}, which is none of [[authorizers]]");
        let remedy = match known.is_empty() {
            true => format!("write [[authorizers]] with name = {name:?}"),
            false => did_you_mean(name, known.iter().map(|one| one.name.clone())),
        };
        faults.push(values.place(&path), what, remedy);
    }
    let Some(name) = text(values, AUTHORIZE_CONNECT) else {
        return;
    };
    let asked = known.iter().find(|authorizer| authorizer.name == name);
    let Some(timeout) = asked.map(|authorizer| authorizer.timeout) else {
        return;
    };
    let patience_ms = values.number("auth.timeout_ms");
    // It is waited as long again for a place to ask.
    if timeout.as_millis() * 2 >= u128::from(patience_ms) {
        let what = format!(
            "the timeout_ms of the authorizer {name} is {}, and a session must be in by \
             auth.timeout_ms, {patience_ms}",
            timeout.as_millis()
        );
        let remedy = "give it less than half of auth.timeout_ms";
        faults.push(values.place(AUTHORIZE_CONNECT), what, remedy);
    }
}
