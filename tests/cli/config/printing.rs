//! What is printed: the values in force, the commented file, the example; and never a secret.

use fanfare::config::example::commented_file;
use fanfare::config::inputs::Inputs;
use fanfare::config::key::{Initial, Key};
use fanfare::config::keys;
use fanfare::config::load::load;
use fanfare::config::show;

use super::{file, flag, inputs, keyless, loaded, variables};

/// Long enough to be one.
const SECRET: &str = "hunter2-hunter2-hunter2-hunter2-hunter2";

/// Every way in for a secret, each with the same word.
fn with_secrets() -> (tempfile::TempDir, Inputs) {
    let (directory, path) = file(&format!(
        "[[auth.keys]]\nid = \"a\"\nalgorithm = \"HS256\"\nsecret = \"{SECRET}\"\n\
         [[auth.keys]]\nid = \"b\"\nalgorithm = \"HS256\"\nsecret_env = \"OWN\"\n\
         [[auth.keys]]\nid = \"c\"\nalgorithm = \"HS256\"\nsecret_file = \"secret\"\n"
    ));
    std::fs::write(directory.path().join("secret"), SECRET).unwrap();
    let inputs = Inputs {
        file: Some(path),
        environment: variables(&[
            ("OWN", SECRET),
            ("FANFARE_AUTH__HMAC_SECRET", SECRET),
            ("FANFARE_API__KEYS", "hunter2,also-hunter2"),
        ]),
        flags: vec![flag(
            "--redis",
            "redis.url",
            "redis://me:hunter2@r.example:1/2",
        )],
        ..keyless()
    };
    (directory, inputs)
}

#[test]
fn no_output_shows_a_secret() {
    let (_directory, inputs) = with_secrets();
    let loaded = loaded(&inputs);
    let rows = show::rows(&loaded.values);
    let all = [
        show::table(&rows),
        show::json_lines(&rows),
        format!("{:?}", loaded.config),
        loaded.warnings.join("\n"),
    ]
    .join("\n");
    assert!(!all.contains("hunter2"), "{all}");
    assert!(all.contains("redis://me:***@r.example:1/2"), "{all}");
    assert!(all.contains("\"auth.keys[3]\""), "{all}");
}

#[test]
fn no_fault_shows_a_secret() {
    let (_directory, mut inputs) = with_secrets();
    inputs
        .environment
        .extend(variables(&[("FANFARE_SIZE", "none")]));
    inputs.flags = vec![flag("--redis", "redis.url", "tcp://me:hunter2@r.example")];
    inputs.env = Some("production".to_owned());
    for (name, value) in &mut inputs.environment {
        if name == "FANFARE_API__KEYS" {
            *value = "hunter2 hunter2".to_owned();
        }
    }
    let faults = load(&inputs).err().unwrap();
    let all = format!("{faults}\n{faults:?}");
    assert!(
        all.contains("api.keys cannot be this value, which is hidden"),
        "{all}"
    );
    assert!(!all.contains("hunter2"), "{all}");
    let broken = "[api]\nkeys = [\"hunter2\"\nredis = hunter2\n";
    let lines = super::faults_of_file(broken);
    assert!(!lines.join("\n").contains("hunter2"), "{lines:?}");
}

#[test]
fn the_rows_tell_value_and_origin_of_every_key() {
    let mut inputs = inputs();
    inputs.size = Some("small".to_owned());
    inputs
        .environment
        .extend(variables(&[("FANFARE_LOG__LEVEL", "warn")]));
    let loaded = loaded(&inputs);
    let rows = show::rows(&loaded.values);
    let of = |key: &str| {
        let row = rows.iter().find(|row| row.key == key).unwrap();
        serde_json::to_string(row).unwrap()
    };
    assert_eq!(
        of("log.level"),
        r#"{"key":"log.level","value":"warn","origin":"FANFARE_LOG__LEVEL"}"#
    );
    assert_eq!(
        of("server.connections_max"),
        r#"{"key":"server.connections_max","value":100,"origin":"--size small"}"#
    );
    assert_eq!(
        of("redis.url"),
        r#"{"key":"redis.url","value":null,"origin":"default"}"#
    );
    assert_eq!(
        of("server.workers"),
        r#"{"key":"server.workers","value":2,"origin":"this machine"}"#
    );
    assert_eq!(
        of("namespaces.default.publish"),
        r#"{"key":"namespaces.default.publish","value":"token","origin":"default"}"#
    );
    let shown = show::json_lines(&rows);
    assert_eq!(shown.lines().count(), rows.len());
    for key in keys::all() {
        assert!(
            rows.iter().any(|row| row.key == key.path()),
            "{}",
            key.path()
        );
    }
    let table = show::table(&rows);
    let line = table
        .lines()
        .find(|line| line.starts_with("log.level "))
        .unwrap();
    let words: Vec<_> = line.split_whitespace().collect();
    assert_eq!(words, ["log.level", "warn", "FANFARE_LOG__LEVEL"]);
}

#[test]
fn the_commented_file_changes_nothing_and_shows_the_defaults() {
    let (_directory, as_printed) = file(&commented_file());
    let values_of = |path| {
        let loaded = loaded(&Inputs {
            file: Some(path),
            ..inputs()
        });
        let paths = loaded.values.paths();
        let value = |(path, _): &(String, Key)| {
            let setting = loaded.values.get(path).unwrap();
            (
                path.clone(),
                setting.value.clone(),
                setting.origin.to_string(),
            )
        };
        paths.iter().map(value).collect::<Vec<_>>()
    };
    let (_empty_directory, empty) = file("");
    let defaults = values_of(empty);
    assert!(values_of(as_printed) == defaults);

    // With the marks taken away every line is a setting again, and its value is the default. A
    // cookie would ask for origins, files must be there, and the example of a secret is refused.
    let bare: String = commented_file()
        .lines()
        .filter(|line| !line.starts_with("# "))
        .map(|line| format!("{}\n", line.strip_prefix('#').unwrap_or(line)))
        .filter(|line| {
            let mut others = [
                "hmac_secret",
                "cookie",
                "tls_",
                "password_file",
                "keys_file",
                "user ",
            ]
            .into_iter();
            let files = ["_tls_ca_file", "headers_file"];
            !others.any(|begin| line.starts_with(begin))
                && !files.iter().any(|name| line.contains(name))
        })
        .collect();
    let (_bare_directory, bare) = file(&bare);
    let mut inputs = inputs();
    inputs.file = Some(bare);
    inputs.environment.extend(variables(&[
        ("TOKEN_SECRET", SECRET),
        (
            "AUTHORIZER_SECRETS",
            "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        ),
    ]));
    let loaded = loaded(&inputs);
    for (path, default, _) in defaults {
        let key = keys::find(&path).unwrap();
        if matches!(key.default, Initial::Unset(_) | Initial::Found(..)) {
            continue;
        }
        assert!(loaded.values.get(&path).unwrap().value == default, "{path}");
        let origin = loaded.values.origin(&path).to_string();
        assert!(origin.contains("fanfare.toml:"), "{path}: {origin}");
    }
}

#[test]
fn the_example_loads_and_has_the_namespaces_that_it_promises() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/fanfare.toml");
    for dev in [false, true] {
        let config = loaded(&Inputs {
            file: Some(path.into()),
            dev,
            ..inputs()
        })
        .config;
        let names: Vec<_> = config.namespaces.keys().map(String::as_str).collect();
        assert_eq!(
            names,
            ["chat", "default", "notification", "presence", "workflow"]
        );
        assert!(config.namespaces["chat"].presence);
        assert!(config.inbox.history_entries_max > 0);
    }
}

#[test]
fn what_is_allowed_but_unwise_is_a_warning() {
    let of = |inputs: &Inputs| loaded(inputs).warnings;
    let inputs = || {
        let mut inputs = inputs();
        let alone = variables(&[("FANFARE_CLUSTER__ALONE", "true")]);
        inputs.environment.extend(alone);
        inputs
    };
    assert_eq!(
        of(&inputs()),
        ["api.keys: no key, so the API answers only health and metrics"]
    );
    let mut short = inputs();
    short
        .environment
        .extend(variables(&[("FANFARE_API__KEYS", "short")]));
    assert_eq!(
        of(&short),
        ["FANFARE_API__KEYS: a key of the API has fewer than 16 bytes and can be guessed"]
    );
    let mut dev = Inputs {
        dev: true,
        ..keyless()
    };
    assert!(of(&dev).is_empty());
    dev.flags = vec![flag("--listen", "server.listen", "0.0.0.0:8080")];
    assert_eq!(
        of(&dev),
        ["--dev: everybody who reaches this machine may do everything"]
    );
    let mut echo = inputs();
    echo.flags = vec![flag("--echo", "server.echo", "true")];
    let what = "anybody can make this node hold and send 16 MiB for each connection to /echo";
    assert!(of(&echo).contains(&format!("--echo: {what}")));
}

#[test]
fn a_setting_without_effect_is_a_warning() {
    let of = |set: &[(&str, &str)]| {
        let mut inputs = inputs();
        inputs.environment.extend(variables(set));
        let warnings = loaded(&inputs).warnings.into_iter();
        let idle = warnings.filter(|warning| warning.contains("no effect"));
        idle.collect::<Vec<_>>()
    };
    let idle = ("FANFARE_SESSION__IDLE_S", "60");
    let prefix = ("FANFARE_REDIS__PREFIX", "mine");
    let memory = ("FANFARE_MEMORY__BYTES_MAX", "67108864");
    let redis = ("FANFARE_REDIS__URL", "redis://127.0.0.1:6379");
    assert_eq!(
        of(&[idle, prefix, memory]),
        [
            "FANFARE_REDIS__PREFIX: redis.prefix has no effect without redis.url",
            "FANFARE_SESSION__IDLE_S: session.idle_s has no effect while session.ping_ms is above 0",
        ]
    );
    let obeyed = [
        ("FANFARE_REDIS__PARTITIONS", "64"),
        ("FANFARE_EVERYONE__HISTORY_AGE_S", "60"),
    ];
    assert_eq!(
        of(&obeyed),
        [
            "FANFARE_EVERYONE__HISTORY_AGE_S: everyone.history_age_s has no effect while \
             history_entries_max is 0"
        ]
    );
    assert_eq!(
        of(&[
            ("FANFARE_SESSION__PING_MS", "0"),
            idle,
            prefix,
            memory,
            redis
        ]),
        [
            "FANFARE_MEMORY__BYTES_MAX: memory.bytes_max has no effect with redis.url: it bounds \
             the broker in the process"
        ]
    );
}
