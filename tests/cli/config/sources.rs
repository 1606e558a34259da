//! Which source wins, what the presets set, and that every key can be set by every source.

use std::time::Duration;

use fanfare::config::example::default_in_words;
use fanfare::config::inputs::Inputs;
use fanfare::config::key::Key;
use fanfare::config::keys;
use fanfare::config::value::{Kind, Unit};
use fanfare::config::{Allow, Environment, LogFormat, TokenKey};
use fanfare_protocol::ids::Priority;

use super::{file, flag, inputs, keyless, loaded, variables};

#[test]
fn later_wins_in_the_order_preset_file_environment_flag() {
    let (_directory, path) = file("[server]\nlisten = \"127.0.0.1:2\"\n");
    let mut inputs = Inputs {
        dev: true,
        ..keyless()
    };
    let listens = |inputs: &Inputs| {
        let loaded = loaded(inputs);
        let origin = loaded.values.origin("server.listen").to_string();
        let listen = loaded.config.server.listen.expect("it has sessions");
        (listen.to_string(), origin)
    };
    let is = |address: &str, origin: &str| (address.to_owned(), origin.to_owned());
    assert_eq!(listens(&super::inputs()), is("0.0.0.0:8080", "default"));
    assert_eq!(listens(&inputs), is("127.0.0.1:8080", "--dev"));
    inputs.file = Some(path.clone());
    let place = format!("{}:2:10", path.display());
    assert_eq!(listens(&inputs), is("127.0.0.1:2", &place));
    inputs.environment = variables(&[("FANFARE_SERVER__LISTEN", "127.0.0.1:3")]);
    assert_eq!(
        listens(&inputs),
        is("127.0.0.1:3", "FANFARE_SERVER__LISTEN")
    );
    inputs.flags = vec![flag("--listen", "server.listen", "127.0.0.1:4")];
    assert_eq!(listens(&inputs), is("127.0.0.1:4", "--listen"));
}

#[test]
fn a_size_sets_its_row_and_the_file_limit_sets_connections_without_one() {
    const MIB: u64 = 1 << 20;
    let table = [
        (Some("small"), 100, 128 * MIB),
        (Some("medium"), 1_000, 512 * MIB),
        (Some("large"), 5_000, 1_024 * MIB),
        (Some("enterprise"), 10_000, 2_048 * MIB),
        (None, 19_500, 512 * MIB),
    ];
    for (size, connections, memory) in table {
        let by_flag = Inputs {
            size: size.map(str::to_owned),
            ..inputs()
        };
        let mut by_environment = inputs();
        by_environment
            .environment
            .extend(size.map(|name| ("FANFARE_SIZE".to_owned(), name.to_owned())));
        for inputs in [by_flag, by_environment] {
            let config = loaded(&inputs).config;
            assert_eq!(config.server.connections_max, connections, "{size:?}");
            assert_eq!(config.cache.memory_bytes, memory, "{size:?}");
        }
    }
}

#[test]
fn a_size_can_be_overridden_value_by_value() {
    let (_directory, path) = file("[cache]\nmemory_bytes = 7000000\n");
    let mut inputs = Inputs {
        file: Some(path),
        size: Some("small".to_owned()),
        ..inputs()
    };
    inputs
        .environment
        .extend(variables(&[("FANFARE_SERVER__CONNECTIONS_MAX", "8")]));
    let config = loaded(&inputs).config;
    assert_eq!(config.cache.memory_bytes, 7_000_000);
    assert_eq!(config.server.connections_max, 8);
}

#[test]
fn development_logs_text_and_debug_and_the_others_leave_the_log_alone() {
    let of = |env: Option<&str>, dev| {
        let mut inputs = Inputs {
            env: env.map(str::to_owned),
            dev,
            ..inputs()
        };
        let needed = [
            ("FANFARE_API__KEYS", "0123456789abcdef"),
            ("FANFARE_CLUSTER__ALONE", "true"),
        ];
        inputs.environment.extend(variables(&needed));
        let config = loaded(&inputs).config;
        (
            config.server.environment,
            config.log.format,
            config.log.level,
        )
    };
    let info = || "info".to_owned();
    let debug = "info,fanfare=debug".to_owned();
    let (development, staging) = (Environment::Development, Environment::Staging);
    assert_eq!(
        of(Some("development"), false),
        (development, LogFormat::Text, debug)
    );
    assert_eq!(of(None, true), (development, LogFormat::Auto, info()));
    assert_eq!(
        of(Some("staging"), false),
        (staging, LogFormat::Auto, info())
    );
    assert_eq!(of(None, false), (staging, LogFormat::Auto, info()));
    let production = (Environment::Production, LogFormat::Auto, info());
    assert_eq!(of(Some("production"), false), production);
}

#[test]
fn dev_lets_everybody_do_everything_on_this_machine_only() {
    let inputs = Inputs {
        dev: true,
        ..keyless()
    };
    let (first, second) = (loaded(&inputs).config, loaded(&inputs).config);
    assert!(first.server.dev && first.auth.anonymous);
    let listen = first.server.listen.map(|address| address.to_string());
    assert_eq!(listen.as_deref(), Some("127.0.0.1:8080"));
    assert_eq!(first.api.listen.to_string(), "127.0.0.1:8081");
    assert_eq!(first.api.keys.len(), 1);
    assert_eq!(first.api.keys[0].0, "dev");
    assert_ne!(first.server.node_id, second.server.node_id);
    assert!(first.drain.window.is_zero());
    let namespace = &first.namespaces["default"];
    assert!(namespace.presence && namespace.history_entries_max > 0);
    let allowed = [
        namespace.subscribe,
        namespace.publish,
        namespace.history,
        namespace.presence_allow,
        first.inbox.publish,
    ];
    assert_eq!(allowed, [Allow::Anyone; 5]);
}

#[test]
fn without_dev_nobody_may_do_anything_that_a_token_does_not_allow() {
    let config = loaded(&inputs()).config;
    let namespace = &config.namespaces["default"];
    let allowed = [
        namespace.subscribe,
        namespace.publish,
        namespace.history,
        namespace.presence_allow,
    ];
    assert_eq!(allowed, [Allow::Token; 4]);
    assert!(!config.auth.anonymous && !config.server.dev);
    assert_eq!(config.server.node_id.as_str(), "test-host");
    assert_eq!(config.server.workers, 2);
}

#[test]
fn the_defaults_are_those_of_the_wire_contract() {
    let config = loaded(&inputs()).config;
    let session = &config.session;
    assert_eq!(session.message_bytes_max, 64 << 10);
    assert_eq!(session.fragments_max, 256);
    assert_eq!(config.api.body_bytes_max, 8 << 20);
    assert_eq!(config.api.targets_max, 1_000);
    assert_eq!(session.key_bytes_max, 128);
    assert_eq!(config.auth.token_bytes_max, 8 << 10);
    assert_eq!(session.info_bytes_max, 2 << 10);
    assert_eq!((session.topics_max, session.per_user_max), (128, 100));
    assert_eq!((session.page_max, session.page_bytes_max), (1_000, 1 << 20));
    assert_eq!(
        (session.replies_max, session.replies_bytes_max),
        (256, 64 << 10)
    );
    let hours = |count: u64| Duration::from_secs(count * 3_600);
    let namespace = &config.namespaces["default"];
    assert_eq!(namespace.history_entries_max, 1_000);
    assert_eq!(namespace.history_age, hours(24));
    assert_eq!(config.inbox.history_entries_max, 1_000);
    assert_eq!(config.inbox.history_age, hours(30 * 24));
    assert_eq!(config.everyone.history_entries_max, 0);
    let seconds = Duration::from_secs;
    assert_eq!(session.idempotency, seconds(300));
    assert_eq!(config.auth.timeout, seconds(10));
    assert_eq!(config.auth.leeway, seconds(5));
    assert_eq!(session.ping, Some(seconds(25)));
    assert_eq!(session.pong, seconds(60));
    assert_eq!(session.idle, seconds(1_800));
    assert_eq!(session.replies_timeout, seconds(30));
    assert_eq!(config.auth.expiring, seconds(60));
    assert_eq!(config.auth.expired_grace, seconds(10));
    assert_eq!(config.drain.window, seconds(30));
    assert_eq!(config.drain.commands, seconds(5));
    assert_eq!(config.redis.lease, seconds(5));
    assert_eq!(config.redis.partitions, 256);
    assert!(config.redis.url.is_none());
}

/// A file that is there and holds whatever a key that names one asks for.
fn named_file(key: &Key) -> String {
    static FILE: std::sync::OnceLock<(tempfile::TempDir, String)> = std::sync::OnceLock::new();
    let (_, path) = FILE.get_or_init(|| {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("named.pem");
        let pem = |what: &str| format!("-----BEGIN {what}-----\nAAAA\n-----END {what}-----\n");
        std::fs::write(&path, pem("CERTIFICATE") + &pem("PRIVATE KEY")).unwrap();
        let write = |kind, text| std::fs::write(path.with_extension(kind), text).unwrap();
        write("keys", "a-key-of-the-api\n");
        write("secret", "yet-another-0123456789abcdef0123456789\n");
        write("headers", "x-key=a%20key\n");
        (directory, path.to_str().unwrap().to_owned())
    });
    match key.path().as_str() {
        "api.keys_file" => path.replace(".pem", ".keys"),
        "auth.hmac_secret_file" => path.replace(".pem", ".secret"),
        headers if headers.ends_with("headers_file") => path.replace(".pem", ".headers"),
        _ => path.clone(),
    }
}

/// The authorizer that keys which name one are set to.
const OTHER: &str = "[[authorizers]]\nname = \"other\"\nurl = \"https://other.example/\"\n\
                     secrets = [\"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\"]\n";

/// A value of the key's kind other than its default, as the environment and as TOML write it.
fn other_value(key: &Key) -> (String, String) {
    let quoted = |text: &str| (text.to_owned(), format!("{text:?}"));
    match key.kind {
        Kind::Flag => {
            let other = (default_in_words(key) != "true").to_string();
            (other.clone(), other)
        }
        // Near the end of the range, except where that would break a relation.
        Kind::Number { min, max, unit, .. } => {
            let number = match (key.path().as_str(), unit) {
                ("server.connections_max", _) => 77,
                ("memory.bytes_max" | "cache.memory_bytes" | "admission.memory_bytes_max", _) => {
                    min + 1
                }
                ("session.ping_ms" | "redis.probe_interval_ms", _) => 151,
                ("redis.command_timeout_ms", _) => 1_001,
                ("redis.probe_fresh_ms", _) => 4_999,
                ("auth.token_bytes_max", _) => 1_025,
                ("session.message_bytes_max", _) => 8_193,
                (_, Unit::Count) => min + 3,
                _ => max - 1,
            };
            (number.to_string(), number.to_string())
        }
        Kind::Choice(words) => {
            let other = words
                .iter()
                .find(|word| **word != default_in_words(key).trim_matches('"'));
            quoted(other.expect("a choice has several words"))
        }
        Kind::Ratio => ("0.5".to_owned(), "0.5".to_owned()),
        Kind::List(_) if key.section == "telemetry" => (
            "first=1, second=a%2Cb".to_owned(),
            "[\"first=1\", \"second=a%2Cb\"]".to_owned(),
        ),
        Kind::List(_) if key.name == "origins" => (
            "https://a.example,http://b.example:81".to_owned(),
            "[\"https://a.example\", \"http://b.example:81\"]".to_owned(),
        ),
        Kind::List(_) if key.name == "shards" => (
            "redis://b.example?name=b,redis-cluster://c.example:1,d.example:2?name=c".to_owned(),
            "[\"redis://b.example?name=b\", \"redis-cluster://c.example:1,d.example:2?name=c\"]"
                .to_owned(),
        ),
        Kind::List(_) => (
            "first-key, second-key".to_owned(),
            "[\"first-key\", \"second-key\"]".to_owned(),
        ),
        Kind::Text(_) => quoted(match key.path().as_str() {
            "server.listen" | "api.listen" | "metrics.listen" => "[::1]:7001",
            "server.advertise" => "wss://other.example",
            "redis.url" => "redis://user:word@redis.example:6380/3",
            "log.level" => "warn",
            "auth.hmac_secret" => "another-0123456789abcdef0123456789",
            path if path.ends_with("_file") => return quoted(&named_file(key)),
            path if path.ends_with("endpoint") => "http://other.example:4318",
            _ => "other",
        }),
    }
}

/// What a key asks for in its section, as the file and as a variable say it.
fn companion(key: &Key) -> Option<(&'static str, [(&'static str, &'static str); 1])> {
    match key.path().as_str() {
        "auth.cookie" => Some((
            "origins = [\"https://a.example\"]\n",
            [("FANFARE_AUTH__ORIGINS", "https://a.example")],
        )),
        "redis.shards" => Some((
            "url = \"redis://a.example?name=a\"\n",
            [("FANFARE_REDIS__URL", "redis://a.example?name=a")],
        )),
        _ => None,
    }
}

#[test]
fn every_key_can_be_set_by_file_and_by_environment() {
    let unset = loaded(&inputs());
    for key in keys::all() {
        let (variable, toml) = other_value(key);
        let asked_for = companion(key).map_or("", |(line, _)| line);
        let (section, name) = (key.section, key.name);
        let text = format!("[{section}]\n{name} = {toml}\n{asked_for}{OTHER}");
        let (_directory, path) = file(&text);
        let mut by_file = Inputs {
            file: Some(path),
            ..inputs()
        };
        if key.path() == "auth.hmac_secret" {
            by_file.environment.clear();
        }
        let mut by_environment = by_file.clone();
        let (_empty_directory, empty) = file(&if asked_for.is_empty() {
            OTHER.to_owned()
        } else {
            format!("[{section}]\n{asked_for}{OTHER}")
        });
        by_environment.file = Some(empty);
        by_environment
            .environment
            .retain(|(name, _)| *name != key.environment());
        by_environment
            .environment
            .push((key.environment(), variable));
        let (by_file, by_environment) = (loaded(&by_file), loaded(&by_environment));
        let value = |loaded: &fanfare::config::load::Loaded| {
            loaded.values.get(&key.path()).unwrap().value.clone()
        };
        assert!(value(&by_file) == value(&by_environment), "{}", key.path());
        assert!(value(&by_file) != value(&unset), "{}", key.path());
        let origin = by_environment.values.origin(&key.path()).to_string();
        assert_eq!(origin, key.environment());
    }
}

#[test]
fn every_key_reaches_its_field() {
    let text_of = |inputs: &Inputs| format!("{:?}", loaded(inputs).config);
    let (_directory, path) = file(OTHER);
    let inputs = || Inputs {
        file: Some(path.clone()),
        ..inputs()
    };
    let unset = text_of(&inputs());
    for key in keys::all() {
        // A secret's field prints as `***` whatever it holds; the token keys have their own test.
        if key.path() == "auth.hmac_secret" {
            continue;
        }
        let mut changed = inputs();
        changed
            .environment
            .push((key.environment(), other_value(key).0));
        let mut without = unset.clone();
        if let Some((_, asked_for)) = companion(key) {
            changed.environment.extend(variables(&asked_for));
            let mut others = inputs();
            others.environment.extend(variables(&asked_for));
            without = text_of(&others);
        }
        assert_ne!(text_of(&changed), without, "{}", key.path());
    }
}

#[test]
fn namespaces_have_their_own_options_and_the_defaults_for_the_rest() {
    let (_directory, path) = file(
        "[namespaces.default]\nhistory_entries_max = 5\n\
         [namespaces.chat]\npresence = true\npublish = \"authenticated\"\npriority = \"high\"\n",
    );
    let config = loaded(&Inputs {
        file: Some(path),
        ..inputs()
    })
    .config;
    assert_eq!(config.namespaces["default"].history_entries_max, 5);
    let chat = &config.namespaces["chat"];
    assert!(chat.presence);
    assert_eq!(chat.publish, Allow::Authenticated);
    assert_eq!(chat.subscribe, Allow::Token);
    assert_eq!(chat.priority, Priority::High);
    assert_eq!(chat.history_entries_max, 1_000);
}

#[test]
fn token_keys_take_their_material_from_where_they_say() {
    let pem = |body: &str| format!("-----BEGIN PUBLIC KEY-----\n{body}\n-----END PUBLIC KEY-----");
    let ed25519 = pem("MCowBQYDK2VwAyEAgcL+u6UIXNedL7eBsGQSzq+y82/hBAp+xgv7k3tXITo=");
    let p256 = pem(
        "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE3pNn2AFCdUhMNaiey33mWVUiV3yj\n\
         2kDcWHLmZCz0fNTraua0Rr+/QZSNdA94TqY+7eE4VUtVRTu0okiflV0QVQ==",
    );
    let secret = |word: &str| word.repeat(8);
    let (directory, path) = file(&format!(
        "[[auth.keys]]\nid = \"a\"\nalgorithm = \"HS256\"\nsecret = \"{}\"\n\
         [[auth.keys]]\nid = \"b\"\nalgorithm = \"HS512\"\nsecret_env = \"FANFARE_OWN\"\n\
         [[auth.keys]]\nalgorithm = \"HS384\"\nsecret_file = \"secret\"\n\
         [[auth.keys]]\nalgorithm = \"EdDSA\"\npublic_key = \"\"\"{ed25519}\"\"\"\n\
         [[auth.keys]]\nalgorithm = \"ES256\"\npublic_key_file = \"key.pem\"\n\
         [[auth.keys]]\nid = \"c\"\nalgorithm = \"EdDSA\"\npublic_key_env = \"FANFARE_PUBLIC\"\n",
        secret("in the file")
    ));
    std::fs::write(directory.path().join("secret"), secret("beside it") + "\n").unwrap();
    std::fs::write(directory.path().join("key.pem"), format!("{p256}\n")).unwrap();
    let mut inputs = Inputs {
        file: Some(path),
        ..inputs()
    };
    inputs.environment.extend(variables(&[
        ("FANFARE_OWN", &secret("in a variable")),
        ("FANFARE_PUBLIC", &ed25519),
    ]));
    let keys = loaded(&inputs).config.auth.keys;
    let told = |key: &TokenKey| {
        let id = key.id.clone().unwrap_or_default();
        (id, key.algorithm.clone(), key.material.0.clone())
    };
    let is = |id: &str, algorithm: &str, material: &str| {
        (id.to_owned(), algorithm.to_owned(), material.to_owned())
    };
    assert_eq!(
        keys.iter().map(told).collect::<Vec<_>>(),
        [
            is("a", "HS256", &secret("in the file")),
            is("b", "HS512", &secret("in a variable")),
            is("", "HS384", &secret("beside it")),
            is("", "EdDSA", &ed25519),
            is("", "ES256", &p256),
            is("c", "EdDSA", &ed25519),
            is("", "HS256", "0123456789abcdef0123456789abcdef"),
        ]
    );
}

#[test]
fn names_that_kubernetes_and_clients_use_are_ignored() {
    let mut inputs = inputs();
    inputs.environment.extend(variables(&[
        ("FANFARE_SERVICE_HOST", "10.0.0.1"),
        ("FANFARE_SERVICE_PORT_HTTP", "8080"),
        ("FANFARE_PORT", "tcp://10.0.0.1:8080"),
        ("FANFARE_PORT_8080_TCP_ADDR", "10.0.0.1"),
        ("FANFARE_REDIS_SERVICE_HOST", "10.0.0.2"),
        ("FANFARE_REDIS_PORT_6379_TCP", "tcp://10.0.0.2:6379"),
        ("FANFARE_URL", "ws://localhost:8080"),
        ("FANFARE_API_URL", "http://localhost:8081"),
        ("FANFARE_API_KEY", "k"),
        ("FANFARE_TOKEN", "t"),
        ("OTHER__NAME", "x"),
    ]));
    loaded(&inputs);
}

#[test]
fn the_file_can_be_named_by_the_environment_and_a_flag_goes_before_it() {
    let (_first_directory, first) = file("[redis]\nprefix = \"one\"\n");
    let (_second_directory, second) = file("[redis]\nprefix = \"two\"\n");
    let mut inputs = inputs();
    let name = first.display().to_string();
    inputs.environment.push(("FANFARE_CONFIG".to_owned(), name));
    assert_eq!(loaded(&inputs).config.redis.prefix, "one");
    inputs.file = Some(second);
    assert_eq!(loaded(&inputs).config.redis.prefix, "two");
}

#[test]
fn an_empty_variable_leaves_an_optional_key_out() {
    let (_directory, path) = file("[redis]\nurl = \"redis://redis.example\"\n");
    let mut inputs = Inputs {
        file: Some(path),
        ..inputs()
    };
    assert!(loaded(&inputs).config.redis.url.is_some());
    inputs
        .environment
        .extend(variables(&[("FANFARE_REDIS__URL", "")]));
    assert!(loaded(&inputs).config.redis.url.is_none());
}

#[test]
fn an_advertised_address_without_a_scheme_is_a_websocket_address() {
    let mut inputs = inputs();
    inputs.flags = vec![flag("--advertise", "server.advertise", "10.0.0.5:8080")];
    let advertise = loaded(&inputs).config.server.advertise;
    assert_eq!(advertise.as_deref(), Some("ws://10.0.0.5:8080"));
}
