//! What the tests of this module share: a configuration, tokens, a time that stands still.
//!
//! In: what a test wants to be otherwise. Out: values; [`node`] adds a node in this process.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use super::state::{Machine, Now};
use crate::apps::{self, Apps};
use crate::auth::mint::{MintKey, mint};
use crate::auth::verifier::Verifier;
use crate::config::load::defaults;
use crate::config::{Allow, Config, Namespace, Secret, TokenKey};
use fanfare_protocol::ids::App;

pub(crate) mod node;

const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// When the tests' clocks begin, in unix seconds.
pub(crate) const START_S: u64 = 1_800_000_000;

/// Defaults, one token key, and these namespaces, all with history and presence: `default` and
/// `open` (anyone may do everything), `bare` (the same without history and presence), and
/// `users`, `token`, `nobody` (what their names say). Inboxes are written by whose token says so.
pub(crate) fn config(change: impl FnOnce(&mut Config)) -> Arc<Config> {
    let mut config = defaults();
    config.auth.keys = vec![TokenKey {
        id: None,
        algorithm: "HS256".into(),
        material: Secret(SECRET.into()),
    }];
    let open = namespace(&config, Allow::Anyone);
    let bare = Namespace {
        history_entries_max: 0,
        presence: false,
        ..open.clone()
    };
    config.namespaces = BTreeMap::from([
        ("default".to_owned(), open.clone()),
        ("open".to_owned(), open),
        ("bare".to_owned(), bare),
        ("users".to_owned(), namespace(&config, Allow::Authenticated)),
        ("token".to_owned(), namespace(&config, Allow::Token)),
        ("nobody".to_owned(), namespace(&config, Allow::Nobody)),
    ]);
    // Clocks of tests stand still, and some tokens end far ahead.
    config.auth.token_life_max = Duration::from_secs(10_000_000_000);
    config.inbox.publish = Allow::Token;
    change(&mut config);
    Arc::new(config)
}

fn namespace(config: &Config, allow: Allow) -> Namespace {
    Namespace {
        history_entries_max: 1_000,
        presence: true,
        subscribe: allow,
        publish: allow,
        history: allow,
        presence_allow: allow,
        ..config.namespaces["default"].clone()
    }
}

pub(crate) fn verifier(config: &Config) -> Arc<Verifier> {
    let apps = apps::settings_of(config);
    let apps = apps.iter().map(|(app, settings)| (app, &settings.auth));
    let verifier = Verifier::of_apps(apps, config.session.info_bytes_max);
    Arc::new(verifier.expect("the rig's keys are some"))
}

/// A token of `user` that lives for an hour from [`START_S`], with more claims, or other ones.
pub(crate) fn token(user: &str, more: Value) -> String {
    let Value::Object(mut claims) = json!({"sub": user, "exp": START_S + 3_600}) else {
        unreachable!("a map")
    };
    let more: Map<_, _> = serde_json::from_value(more).expect("a map of claims");
    claims.extend(more);
    let key = MintKey {
        id: None,
        algorithm: "HS256".into(),
        material: Secret(SECRET.into()),
    };
    mint(&key, &claims).expect("the rig's key signs")
}

/// The tests' time: both clocks, so long after the start.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clocks(Instant);

impl Clocks {
    pub(crate) fn new() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn after(self, passed: Duration) -> Now {
        Now {
            instant: self.0 + passed,
            unix_ms: START_S * 1_000 + u64::try_from(passed.as_millis()).expect("short"),
        }
    }

    pub(crate) fn start(self) -> Now {
        self.after(Duration::ZERO)
    }
}

pub(crate) fn machine(config: &Arc<Config>, now: Now) -> Machine {
    machine_of(config, None, now)
}

/// A session of a request for this app.
pub(crate) fn machine_of(config: &Arc<Config>, app: Option<&str>, now: Now) -> Machine {
    let app = app.map(|name| App::new(name).expect("a name"));
    let apps = Arc::new(Apps::of(config));
    Machine::new(Arc::clone(config), verifier(config), apps, app, now)
}
