//! Which keys an app may set, and which values it has from the node.
//!
//! In: the table of keys. Out: a part of it. Pure.

use crate::config::key::Key;
use crate::config::keys;

/// The sections of an app.
pub const SECTIONS: [&str; 4] = ["auth", "namespaces", "inbox", "everyone"];
/// What of `[auth]` an app may set, beside keys and issuers.
const AUTH: [&str; 5] = [
    "issuer",
    "audience",
    "anonymous",
    "token_life_max_s",
    "authorize_connect",
];
/// Who is asked about each session. As keys are, it is only the app's own.
pub const AUTHORIZE_CONNECT: &str = "auth.authorize_connect";
/// Whether sessions without a token get in. The same: who gets in is said in one place, and an app that had
/// this from the node without its authorizer would be open to anybody.
pub const ANONYMOUS: &str = "auth.anonymous";
/// Where the values of an app have the life of tokens that the node sets.
pub const NODE_TOKEN_LIFE: &str = "node.token_life_max_s";

/// The keys of a section that an app may set, without the options of namespaces.
pub fn offered(section: &str) -> impl Iterator<Item = &'static Key> {
    let keys = keys::all().iter().filter(move |key| key.section == section);
    keys.filter(|key| key.section != "auth" || AUTH.contains(&key.name))
}

/// Whether an app has the value of this path from the node. What it cannot set stands in its settings
/// too, and is what checks and warnings ask for.
#[must_use]
pub fn is_inherited(path: &str) -> bool {
    let of_topics = ["namespaces.default.", "inbox.", "everyone."];
    let is_secret = [&keys::HMAC_SECRET, &keys::HMAC_SECRET_FILE]
        .iter()
        .any(|key| key.path() == path);
    path.starts_with("auth.") && !is_secret && ![AUTHORIZE_CONNECT, ANONYMOUS].contains(&path)
        || of_topics.iter().any(|prefix| path.starts_with(prefix))
        || matches!(path, "redis.url" | "redis.command_timeout_ms")
}
