//! A node for the API only (`server.listen = "none"`): what must hold beside it.
//!
//! In: all values. Out: a fault for each key that asks for sessions, which such a node does not take,
//! and one where it would be alone, because then nobody could hear what it publishes.

use super::{text, value};
use crate::config::faults::Faults;
use crate::config::forms::NO_LISTENER;
use crate::config::value::Value;
use crate::config::values::{Origin, Values};

const LISTEN: &str = "server.listen";

/// Keys that ask for sessions. Those that only say how sessions are treated have no effect, and are
/// warned of (`needs`): a file may be shared with nodes that take some.
const ASKING: [&str; 3] = ["server.connections_max", "server.advertise", "server.echo"];

/// Whether this node takes no sessions.
pub(super) fn is_meant(values: &Values) -> bool {
    text(values, LISTEN) == Some(NO_LISTENER) && !values.is_refused(LISTEN)
}

pub(super) fn check(values: &Values, faults: &mut Faults) {
    if !is_meant(values) {
        return;
    }
    for path in ASKING {
        if !asks(values, path) || values.is_refused(path) {
            continue;
        }
        let what = format!("{path} is set, and {LISTEN} is none: this node takes no sessions");
        let remedy = format!("leave out {path}, or give {LISTEN} an address");
        faults.push(values.place(path), what, remedy);
    }
    if text(values, "redis.url").is_none() && !values.is_refused("redis.url") {
        let what = format!(
            "{LISTEN} is none and redis.url is not set, so nobody could hear what this node publishes"
        );
        let remedy = "set redis.url, or give server.listen an address";
        faults.push(values.place(LISTEN), what, remedy);
    }
}

/// Whether somebody has set this key to more than nothing; a size is for nodes of each kind.
fn asks(values: &Values, path: &str) -> bool {
    let is_set = *values.origin(path) >= Origin::File(String::new());
    let is_none = matches!(value(values, path), Some(Value::Flag(false) | Value::Unset));
    is_set && !is_none
}
