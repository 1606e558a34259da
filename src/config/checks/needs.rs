//! Keys that need another one: what somebody has set and nothing asks for.
//!
//! In: all values. Out: a warning for each key that a file, the environment or a flag has set and
//! that has no effect beside the values of the others. One table, [`TABLE`]; a test holds each row
//! against both sides.

use super::{api_only, has_callers, lets_in, text, value};
use crate::config::value::Value;
use crate::config::values::{Origin, Values};

/// Keys, and what they need.
struct Row {
    /// Paths; an option of topics without its section.
    keys: &'static [&'static str],
    /// Whether what they need is so. The section is that of the key, for options of topics.
    works: fn(&Values, section: &str) -> bool,
    /// Why they have no effect where it is not.
    why: &'static str,
}

/// The first row of a key that is not met is reported.
const TABLE: [Row; 15] = [
    Row {
        keys: &[
            "redis.prefix",
            "redis.probe_interval_ms",
            "redis.probe_fresh_ms",
            "redis.lease_ms",
            "redis.user",
            "redis.password_file",
            "redis.tls_ca_file",
            "redis.tls_certificate_file",
            "redis.tls_key_file",
            "redis.tls_server_name",
            "rebalance.enabled",
            "rebalance.tolerance_percent",
            "rebalance.sessions_per_s",
            "rebalance.settle_ms",
        ],
        works: |values, _| text(values, "redis.url").is_some(),
        why: "without redis.url",
    },
    Row {
        keys: &[
            "server.workers",
            "server.handshake_timeout_ms",
            "admission.handshakes_per_s",
            "admission.handshakes_burst",
            "drain.window_ms",
            "drain.sessions_per_s",
            "rebalance.enabled",
            "rebalance.tolerance_percent",
            "rebalance.sessions_per_s",
            "rebalance.settle_ms",
        ],
        works: |values, _| !api_only::is_meant(values),
        why: "while server.listen is none: the node takes no sessions",
    },
    Row {
        keys: &["memory.bytes_max"],
        works: |values, _| text(values, "redis.url").is_none(),
        why: "with redis.url: it bounds the broker in the process",
    },
    Row {
        keys: &[
            "rebalance.tolerance_percent",
            "rebalance.sessions_per_s",
            "rebalance.settle_ms",
        ],
        works: |values, _| is_on(values, "rebalance.enabled"),
        why: "while rebalance.enabled is false",
    },
    Row {
        keys: &["telemetry.emf_namespace"],
        works: |values, _| !is_on(values, "telemetry.disabled"),
        why: "while telemetry.disabled is true: no lines are written",
    },
    Row {
        keys: &["session.idle_s"],
        works: |values, _| values.number("session.ping_ms") == 0,
        why: "while session.ping_ms is above 0",
    },
    Row {
        keys: &["session.pong_ms"],
        works: |values, _| values.number("session.ping_ms") > 0,
        why: "while session.ping_ms is 0",
    },
    Row {
        keys: &["admission.handshakes_burst"],
        works: |values, _| values.number("admission.handshakes_per_s") > 0,
        why: "while admission.handshakes_per_s is 0",
    },
    Row {
        keys: &["api.body_bytes_max", "api.targets_max"],
        works: |values, _| has_callers(values),
        why: "without a key or client of the API",
    },
    Row {
        keys: &[
            "auth.issuer",
            "auth.audience",
            "auth.cookie",
            "auth.leeway_s",
            "auth.token_life_max_s",
            "auth.token_bytes_max",
            "auth.expiring_s",
            "auth.expired_grace_s",
            "session.info_bytes_max",
        ],
        works: |values, _| lets_in(values),
        why: "without a token key",
    },
    Row {
        keys: &["session.info_bytes_max"],
        // Base64 needs four bytes for three.
        works: |values, _| {
            let info = values.number("session.info_bytes_max");
            info * 4 <= values.number("auth.token_bytes_max") * 3
        },
        why: "above what a token of auth.token_bytes_max carries",
    },
    Row {
        keys: &["history_age_s", "history"],
        works: |values, section| values.number(&format!("{section}.history_entries_max")) > 0,
        why: "while history_entries_max is 0",
    },
    Row {
        keys: &["presence_allow"],
        works: |values, section| is_on(values, &format!("{section}.presence")),
        why: "while presence is false",
    },
    Row {
        keys: &["replicas_timeout_ms"],
        works: |values, section| values.number(&format!("{section}.replicas_min")) > 0,
        why: "while replicas_min is 0",
    },
    Row {
        keys: &["replicas_min"],
        works: |values, section| {
            values.number(&format!("{section}.replicas_min")) == 0
                || text(values, "redis.url").is_some()
        },
        why: "without redis.url: there are no replicas",
    },
];

fn is_on(values: &Values, path: &str) -> bool {
    value(values, path) == Some(&Value::Flag(true))
}

impl Row {
    /// Whether it speaks of the key at this path, which is `section.name`.
    fn is_of(&self, path: &str, name: &str) -> bool {
        self.keys.contains(&path) || self.keys.contains(&name)
    }
}

/// A warning for each key that somebody has set without effect.
pub(super) fn warnings(values: &Values) -> impl Iterator<Item = String> {
    let paths = values.paths().into_iter().map(|(path, _)| path);
    paths.filter_map(|path| {
        if *values.origin(&path) < Origin::File(String::new()) {
            return None;
        }
        let (section, name) = path.rsplit_once('.')?;
        let mut rows = TABLE.iter().filter(|row| row.is_of(&path, name));
        let row = rows.find(|row| !(row.works)(values, section))?;
        let place = values.place(&path);
        let path = values.shown(&path);
        Some(format!("{place}: {path} has no effect {}", row.why))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::key::Initial;
    use crate::config::keys;
    use crate::config::machine::Machine;
    use crate::config::{Environment, Secret, TokenKey, presets};

    type Settings = &'static [(&'static str, &'static str)];

    const REDIS: (&str, &str) = ("redis.url", "redis://r");
    const REPLICAS: (&str, &str) = ("namespaces.default.replicas_min", "1");

    /// What makes a row tell, and what does not.
    fn sides(why: &str) -> [Settings; 2] {
        match why {
            "without redis.url" => [&[], &[REDIS]],
            "with redis.url: it bounds the broker in the process" => [&[REDIS], &[]],
            "while server.listen is none: the node takes no sessions" => {
                [&[("server.listen", "none")], &[]]
            }
            "while rebalance.enabled is false" => [&[("rebalance.enabled", "false")], &[]],
            "while telemetry.disabled is true: no lines are written" => {
                [&[("telemetry.disabled", "true")], &[]]
            }
            "while session.ping_ms is above 0" => [&[], &[("session.ping_ms", "0")]],
            "while session.ping_ms is 0" => [&[("session.ping_ms", "0")], &[]],
            "while admission.handshakes_per_s is 0" => {
                [&[("admission.handshakes_per_s", "0")], &[]]
            }
            "without a key or client of the API" => [&[], &[("api.keys", "a-key-of-the-api")]],
            "without a token key" => [&[], &[("auth.hmac_secret", "")]],
            "above what a token of auth.token_bytes_max carries" => {
                [&[("auth.token_bytes_max", "256")], &[]]
            }
            "while history_entries_max is 0" => {
                [&[("namespaces.default.history_entries_max", "0")], &[]]
            }
            "while presence is false" => [&[], &[("namespaces.default.presence", "true")]],
            "while replicas_min is 0" => [&[], &[REPLICAS]],
            "without redis.url: there are no replicas" => [&[REPLICAS], &[REPLICAS, REDIS]],
            _ => panic!("no example of a key that has no effect {why}"),
        }
    }

    fn values(key: &str, settings: Settings) -> Values {
        let machine = Machine {
            cores: 2,
            host_name: "host".to_owned(),
            file_limit: 20_000,
            memory_limit: None,
            memory_total: None,
        };
        let mut values = Values::new(false, Environment::Staging);
        presets::apply(&mut values, &machine, None, false);
        let row = keys::find(key).expect(key);
        let (Initial::Is(text) | Initial::Unset(text) | Initial::Found(_, text)) = row.default
        else {
            panic!("{key} has no example");
        };
        let set = |values: &mut Values, path: &str, text: &str| {
            let row = keys::find(path).expect(path);
            values.set_known(path.to_owned(), row, text, Origin::Flag("--set"));
        };
        set(&mut values, key, text);
        for (path, text) in settings {
            match *path {
                "auth.hmac_secret" => {
                    let key = TokenKey {
                        id: None,
                        algorithm: "HS256".to_owned(),
                        material: Secret("0123456789abcdef0123456789abcdef".to_owned()),
                    };
                    values.add_token_key(key, Origin::Flag("--set"));
                }
                path => set(&mut values, path, text),
            }
        }
        values
    }

    #[test]
    fn each_row_tells_of_each_of_its_keys_and_only_where_it_must() {
        for row in &TABLE {
            for key in row.keys {
                let path = match key.contains('.') {
                    true => (*key).to_owned(),
                    false => format!("namespaces.default.{key}"),
                };
                let told = sides(row.why).map(|settings| {
                    let values = values(&path, settings);
                    let (section, _) = path.rsplit_once('.').unwrap();
                    !(row.works)(&values, section)
                });
                assert_eq!(told, [true, false], "{path} {}", row.why);
                let [unmet, _] = sides(row.why);
                let values = values(&path, unmet);
                assert!(warnings(&values).any(|told| told.contains(&path)), "{path}");
            }
        }
    }

    #[test]
    fn a_key_of_redis_is_used_without_redis_or_has_a_row() {
        // Where topics are dealt to, and how long a session that begins waits, are so everywhere;
        // further deployments without a first one are a fault.
        let used = [
            "redis.url",
            "redis.shards",
            "redis.partitions",
            "redis.command_timeout_ms",
        ];
        for key in keys::all().iter().filter(|key| key.section == "redis") {
            let path = key.path();
            let has_row = TABLE.iter().any(|row| row.is_of(&path, key.name));
            assert_ne!(has_row, used.contains(&&*path), "{path}");
        }
    }
}
