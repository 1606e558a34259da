//! The environment as a source: `FANFARE_SECTION__NAME`, and the few names without `__`.
//!
//! In: every variable of the process. Out: values, and a fault for each `FANFARE_` name that sets
//! nothing, apart from those that Kubernetes injects for a Service called fanfare or
//! fanfare-something. Other names are not looked at.

use std::collections::BTreeSet;

use crate::config::faults::{Faults, did_you_mean};
use crate::config::inputs::refuse;
use crate::config::key::Key;
use crate::config::keys;
use crate::config::values::{Origin, Values};

/// Names that choose the file and the presets.
pub const FRAME_NAMES: [&str; 3] = ["FANFARE_CONFIG", "FANFARE_ENV", "FANFARE_SIZE"];

/// Names that the client commands read. A node ignores them.
pub const CLIENT_NAMES: [&str; 4] = [
    "FANFARE_URL",
    "FANFARE_API_URL",
    "FANFARE_API_KEY",
    "FANFARE_TOKEN",
];

const PREFIX: &str = "FANFARE_";

/// The value of a variable, unless it is missing or empty.
#[must_use]
pub fn value_of<'a>(environment: &'a [(String, String)], name: &str) -> Option<&'a str> {
    let found = environment.iter().find(|(known, _)| known == name);
    found
        .map(|(_, value)| value.as_str())
        .filter(|value| !value.is_empty())
}

/// Reads the environment over what is in `values`. Names that `[[auth.keys]]` takes its
/// secrets from are `used` and no fault; `None` where the file could not be read, so that a name
/// which is unknown may be one of them.
pub fn read(
    environment: &[(String, String)],
    used: Option<&BTreeSet<String>>,
    values: &mut Values,
    faults: &mut Faults,
) {
    let mut named: Vec<_> = environment
        .iter()
        .filter(|(name, _)| is_ours(name) && !used.is_some_and(|used| used.contains(name)))
        .collect();
    named.sort();
    for (name, text) in named {
        if let Some(key) = keys::all().iter().find(|key| key.environment() == *name) {
            match key.read_text(text) {
                Ok(value) => {
                    values.set(key.path(), value, Origin::Environment(name.clone()));
                }
                Err(unfit) => {
                    let shown = format!("{text:?}");
                    refuse((key, key.path()), unfit, &shown, name, values, faults);
                }
            }
        } else if used.is_some() && !is_known_without_key(name) {
            let (what, remedy) = unknown(name);
            faults.push(name, what, remedy);
        }
    }
}

/// Whether a name is meant for this program: it begins as ours do, or is one of ours in small
/// letters, which the system tells apart and people do not.
fn is_ours(name: &str) -> bool {
    let capital = name.to_ascii_uppercase();
    name.starts_with(PREFIX)
        || (capital.starts_with(PREFIX)
            && keys::all().iter().any(|key| key.environment() == capital))
}

fn is_known_without_key(name: &str) -> bool {
    FRAME_NAMES.contains(&name) || CLIENT_NAMES.contains(&name) || is_injected(name)
}

/// Whether Kubernetes makes this name for a Service:
/// `FANFARE_([A-Z0-9_]+_)?(SERVICE_(HOST|PORT)(_.*)?|PORT(_.*)?)` without `__`.
fn is_injected(name: &str) -> bool {
    let Some(rest) = name.strip_prefix(PREFIX) else {
        return false;
    };
    let words: Vec<_> = rest.split('_').collect();
    let plain = |word: &&str| {
        let allowed = |b: u8| b.is_ascii_uppercase() || b.is_ascii_digit();
        !word.is_empty() && word.bytes().all(allowed)
    };
    let end = words.iter().enumerate().position(|(index, word)| {
        *word == "PORT" || (*word == "SERVICE" && words.get(index + 1) == Some(&"HOST"))
    });
    !rest.contains("__") && end.is_some_and(|end| words[..end].iter().all(plain))
}

fn unknown(name: &str) -> (&'static str, String) {
    const WHAT: &str = "is no setting";
    match name
        .strip_prefix(PREFIX)
        .and_then(|rest| rest.split_once("__"))
    {
        Some(("NAMESPACES", _)) => (
            WHAT,
            "namespaces are set in the file only, as [namespaces.NAME]".to_owned(),
        ),
        Some(("APPS", _)) => (
            WHAT,
            "apps are set in the file, as [apps.NAME], or by PUT /v1/apps/NAME".to_owned(),
        ),
        Some(("AUTH", "ISSUERS")) => (
            WHAT,
            "issuers are set in the file only, as [[auth.issuers]]".to_owned(),
        ),
        Some(("AUTHORIZERS", _)) => (
            WHAT,
            "authorizers are set in the file only, as [[authorizers]]".to_owned(),
        ),
        Some(("AUTH", "KEYS")) => (
            WHAT,
            "token keys are set in the file as [[auth.keys]], or one by FANFARE_AUTH__HMAC_SECRET"
                .to_owned(),
        ),
        Some(("API", "CLIENTS")) => (
            WHAT,
            "clients of the API are set in the file only, as [[api.clients]]".to_owned(),
        ),
        _ => {
            let known = FRAME_NAMES
                .iter()
                .chain(&CLIENT_NAMES)
                .map(ToString::to_string);
            let keys = keys::all().iter().map(Key::environment);
            let capital = name.to_ascii_uppercase();
            (WHAT, did_you_mean(&capital, keys.chain(known)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_kubernetes_injects_are_told_from_misspelt_ones() {
        for injected in [
            "FANFARE_SERVICE_HOST",
            "FANFARE_SERVICE_PORT",
            "FANFARE_SERVICE_PORT_HTTP",
            "FANFARE_PORT",
            "FANFARE_PORT_8080_TCP",
            "FANFARE_PORT_8080_TCP_ADDR",
            "FANFARE_REDIS_SERVICE_HOST",
            "FANFARE_REDIS_PORT_6379_TCP_PROTO",
            "FANFARE_REDIS_2_SERVICE_PORT_REDIS",
        ] {
            assert!(is_injected(injected), "{injected}");
        }
        for other in [
            "FANFARE_SERVICE",
            "FANFARE_SERVICE_HOSTS",
            "FANFARE_PORTS",
            "FANFARE_HOST",
            "FANFARE_SERVER__PORT",
            "FANFARE__PORT",
            "FANFARE_redis_PORT",
            "FANFARE_",
        ] {
            assert!(!is_injected(other), "{other}");
        }
    }
}
