//! Every kind of fault, with its exact text and place.

use fanfare::config::inputs::Inputs;

use super::{fault_lines, faults_of_file, file, flag, inputs, keyless, variables};

/// The faults of one variable beside those of [`inputs`].
fn faults_of_variable(name: &str, value: &str) -> Vec<String> {
    let mut inputs = inputs();
    inputs.environment.extend(variables(&[(name, value)]));
    fault_lines(&inputs)
}

/// One fault each: the file and its line.
const FILES: &[(&str, &str)] = &[
    (
        "[session]\nping_ms = 5\n",
        "fanfare.toml:2:11: session.ping_ms cannot be 5; give a whole number from 100 to \
         3600000 milliseconds, or 0 for no pings",
    ),
    (
        "[session]\n  ping_ms = \"25000\"\n",
        "fanfare.toml:2:13: session.ping_ms cannot be \"25000\"; give a whole number from 100 \
         to 3600000 milliseconds, or 0 for no pings",
    ),
    (
        "[session]\ntopics_max = -1\n",
        "fanfare.toml:2:14: session.topics_max cannot be -1; give a whole number from 1 to \
         100000",
    ),
    (
        "[server]\nlisten = \"here\"\n",
        "fanfare.toml:2:10: server.listen cannot be \"here\"; give an address and a port, for \
         example 0.0.0.0:8080, or none for a node without sessions",
    ),
    (
        "[log]\nformat = \"xml\"\n",
        "fanfare.toml:2:10: log.format cannot be \"xml\"; give auto or text or json",
    ),
    (
        "[auth]\nanonymous = 1\n",
        "fanfare.toml:2:13: auth.anonymous cannot be 1; give true or false",
    ),
    (
        "[auth]\norigins = [\"https://a.example/path\"]\n",
        "fanfare.toml:2:11: auth.origins cannot be used: https://a.example/path has more than an \
         origin has; end it behind the host or the port",
    ),
    (
        "[session]\npingms = 5\n",
        "fanfare.toml:2:1: session.pingms is no key; did you mean session.ping_ms?",
    ),
    (
        "[sesion]\nping_ms = 25000\n",
        "fanfare.toml:1:2: [sesion] is no section; did you mean [session]?",
    ),
    (
        "listen = \"127.0.0.1:1\"\n",
        "fanfare.toml:1:1: listen stands in no section; did you mean server.listen?",
    ),
    (
        "[namespaces.chat]\nhistory_max = 5\n",
        "fanfare.toml:2:1: namespaces.chat.history_max is no key; did you mean \
         namespaces.chat.history?",
    ),
    (
        "[namespaces.chat]\npublish = \"everybody\"\n",
        "fanfare.toml:2:11: namespaces.chat.publish cannot be \"everybody\"; give anyone or \
         authenticated or token or nobody",
    ),
    (
        "[namespaces.\"a:b\"]\n",
        "fanfare.toml:1:13: \"a:b\" cannot be the name of a namespace; give what stands before \
         the first : of a topic, of A-Z a-z 0-9 _ - . / = , ~ #",
    ),
    (
        "[everyone]\npublish = \"anyone\"\n",
        "fanfare.toml:2:1: everyone.publish is no key; did you mean everyone.priority?",
    ),
    (
        "[redis]\nurl = \"redis://a,b\"\n",
        "fanfare.toml:2:7: redis.url cannot be used: it names several hosts, but this form is one \
         server; write redis-cluster://, or redis-sentinel:// with ?master=NAME",
    ),
    (
        "[redis]\nshards = [\"redis://a\"]\n",
        "fanfare.toml:2:10: redis.shards is set without redis.url, where the cluster's own keys \
         would be; set redis.url to one of them",
    ),
    (
        "[redis]\nurl = \"redis://a?name=a\"\nshards = [\"redis://b?name=b\", \"redis://c?name=a\"]\n",
        "fanfare.toml:3:10: two deployments of Redis are called a; list each once, or tell them \
         apart by ?name=NAME",
    ),
    (
        "[redis]\nurl = \"redis://a?name=a\"\nshards = [\"redis://b:7000\"]\n",
        "fanfare.toml:3:10: redis.shards: with several deployments of Redis b:7000 needs a name; \
         end each with ?name=NAME, the same on every node: where topics are follows from the names",
    ),
    (
        "[redis]\nurl = \"redis://a\"\nshards = [\"redis://b?name=b\"]\n",
        "fanfare.toml:2:7: redis.url: with several deployments of Redis a:6379 needs a name; \
         end each with ?name=NAME, the same on every node: where topics are follows from the names",
    ),
    (
        "[inbox]\nhistory_entries_max = 0\n",
        "fanfare.toml:2:23: inbox.history_entries_max is 0, but an inbox keeps history; give \
         at least 1",
    ),
];

#[test]
fn a_file_fault_names_line_and_column() {
    for (text, fault) in FILES {
        assert_eq!(faults_of_file(text), [*fault], "{text}");
    }
}

#[test]
fn a_file_that_is_no_toml_or_not_there_says_so() {
    let lines = faults_of_file("[session]\nping_ms = = 5\n[auth\n");
    assert!(
        lines[0].starts_with("fanfare.toml:2:11: not TOML: "),
        "{lines:?}"
    );
    assert!(
        lines
            .iter()
            .any(|line| line.starts_with("fanfare.toml:3:6: not TOML: ")),
        "{lines:?}"
    );
    let missing = Inputs {
        file: Some("/nowhere/fanfare.toml".into()),
        ..inputs()
    };
    assert_eq!(
        fault_lines(&missing),
        [
            "fanfare.toml: cannot be read: No such file or directory (os error 2); name a file \
             that can be read, or leave --config and FANFARE_CONFIG out"
        ]
    );
}

#[test]
fn a_file_that_cannot_be_read_is_the_only_fault() {
    // Without the file there is no token key, and nobody knows that it takes a variable's secret.
    let missing = Inputs {
        file: Some("/nowhere/fanfare.toml".into()),
        environment: variables(&[("FANFARE_OWN_SECRET", "x"), ("FANFARE_API__LISTEN", "")]),
        ..keyless()
    };
    let lines = fault_lines(&missing);
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines[0].starts_with("fanfare.toml: cannot be read"));
    assert!(lines[1].starts_with("FANFARE_API__LISTEN: api.listen cannot be"));
    let (_directory, path) = file("");
    std::fs::write(&path, b"[log]\nlevel = \"info\" # \xff\n").unwrap();
    let lines = fault_lines(&Inputs {
        file: Some(path),
        ..keyless()
    });
    let what = "fanfare.toml:2: there are bytes that are not UTF-8; save the file as UTF-8";
    assert_eq!(lines, [what]);
}

#[test]
fn a_key_that_stands_twice_is_a_fault_of_the_second() {
    let lines = faults_of_file("[log]\nlevel = \"info\"\nlevel = \"warn\"\n");
    assert!(
        lines[0].starts_with("fanfare.toml:3:1: not TOML"),
        "{lines:?}"
    );
}

#[test]
fn a_name_in_small_letters_is_told_apart_as_the_system_does() {
    assert_eq!(
        faults_of_variable("fanfare_redis__url", "redis://r"),
        ["fanfare_redis__url: is no setting; did you mean FANFARE_REDIS__URL?"]
    );
    assert_eq!(
        faults_of_variable("FANFARE_REDIS_URL", "redis://r"),
        ["FANFARE_REDIS_URL: is no setting; did you mean FANFARE_REDIS__URL?"]
    );
}

#[test]
fn an_environment_fault_names_the_variable() {
    let table = [
        (
            ("FANFARE_SESSION__PING_MS", "fast"),
            "FANFARE_SESSION__PING_MS: session.ping_ms cannot be \"fast\"; give a whole number \
             from 100 to 3600000 milliseconds, or 0 for no pings",
        ),
        (
            ("FANFARE_SESION__PING_MS", "1"),
            "FANFARE_SESION__PING_MS: is no setting; did you mean FANFARE_SESSION__PING_MS?",
        ),
        (
            ("FANFARE_CONFG", "x"),
            "FANFARE_CONFG: is no setting; did you mean FANFARE_CONFIG?",
        ),
        (
            ("FANFARE_SERVER_LISTEN", "x"),
            "FANFARE_SERVER_LISTEN: is no setting; did you mean FANFARE_SERVER__LISTEN?",
        ),
        (
            ("FANFARE_NAMESPACES__CHAT__PUBLISH", "anyone"),
            "FANFARE_NAMESPACES__CHAT__PUBLISH: is no setting; namespaces are set in the file \
             only, as [namespaces.NAME]",
        ),
        (
            ("FANFARE_AUTH__KEYS", "x"),
            "FANFARE_AUTH__KEYS: is no setting; token keys are set in the file as [[auth.keys]], \
             or one by FANFARE_AUTH__HMAC_SECRET",
        ),
        (
            ("FANFARE_ENV", "prod"),
            "FANFARE_ENV: cannot be \"prod\"; did you mean production?",
        ),
        (
            ("FANFARE_SIZE", "larg"),
            "FANFARE_SIZE: cannot be \"larg\"; did you mean large?",
        ),
    ];
    for ((name, value), fault) in table {
        assert_eq!(faults_of_variable(name, value), [fault], "{name}");
    }
}

#[test]
fn a_flag_fault_names_the_flag() {
    let mut inputs = inputs();
    inputs.flags = vec![
        flag("--listen", "server.listen", "8080"),
        flag("--workers", "server.workers", "0"),
        flag("--node-id", "server.node_id", "a b"),
    ];
    assert_eq!(
        fault_lines(&inputs),
        [
            "--listen: server.listen cannot be \"8080\"; give an address and a port, for example \
             0.0.0.0:8080, or none for a node without sessions",
            "--workers: server.workers cannot be \"0\"; give a whole number from 1 to 1024",
            "--node-id: server.node_id cannot be \"a b\"; give 1 to 64 characters of A-Z a-z 0-9 \
             . _ -, for example fanfare-0",
        ]
    );
}

#[test]
fn values_that_do_not_go_together_are_faults_where_the_later_one_was_set() {
    let table = [
        (
            ("FANFARE_SESSION__PONG_MS", "25000"),
            "FANFARE_SESSION__PONG_MS: session.pong_ms is 25000, but must be at least 1.5 times \
             session.ping_ms, which is 25000; raise session.pong_ms or lower session.ping_ms",
        ),
        (
            ("FANFARE_SESSION__PING_MS", "60000"),
            "FANFARE_SESSION__PING_MS: session.pong_ms is 60000, but must be at least 1.5 times \
             session.ping_ms, which is 60000; raise session.pong_ms or lower session.ping_ms",
        ),
        (
            ("FANFARE_REDIS__PROBE_INTERVAL_MS", "5000"),
            "FANFARE_REDIS__PROBE_INTERVAL_MS: redis.probe_fresh_ms is 5000, but must be at least \
             2 times redis.probe_interval_ms, which is 5000; raise redis.probe_fresh_ms or lower \
             redis.probe_interval_ms",
        ),
        (
            ("FANFARE_REDIS__LEASE_MS", "1500"),
            "FANFARE_REDIS__LEASE_MS: redis.lease_ms is 1500, but must be at least 2.5 times \
             redis.command_timeout_ms, which is 2000; raise redis.lease_ms or lower \
             redis.command_timeout_ms",
        ),
        (
            ("FANFARE_AUTH__COOKIE", "token"),
            "FANFARE_AUTH__COOKIE: auth.cookie is set without auth.origins, so any page could use \
             it; list the origins of your pages in auth.origins",
        ),
        (
            ("FANFARE_API__LISTEN", "0.0.0.0:8080"),
            "FANFARE_API__LISTEN: server.listen and api.listen are both 0.0.0.0:8080; give the \
             API its own port",
        ),
        (
            ("FANFARE_API__LISTEN", "127.0.0.1:8080"),
            "FANFARE_API__LISTEN: server.listen is 0.0.0.0:8080 and api.listen 127.0.0.1:8080, \
             the same port; give the API its own port",
        ),
        (
            ("FANFARE_METRICS__LISTEN", "[::]:8081"),
            "FANFARE_METRICS__LISTEN: api.listen is 127.0.0.1:8081 and metrics.listen [::]:8081, \
             the same port; give metrics their own port",
        ),
        (
            ("FANFARE_SERVER__CONNECTIONS_MAX", "19501"),
            "FANFARE_SERVER__CONNECTIONS_MAX: server.connections_max is 19501, which needs 20001 \
             open files, but the limit is 20000; lower it, or raise the limit (ulimit -n, \
             LimitNOFILE) to 20001",
        ),
    ];
    for ((name, value), fault) in table {
        assert_eq!(faults_of_variable(name, value), [fault], "{name}");
    }
}

#[test]
fn more_partitions_than_a_lease_can_hold_are_a_fault() {
    let set = |partitions: &str| {
        let mut inputs = inputs();
        inputs.environment.extend(variables(&[
            ("FANFARE_REDIS__COMMAND_TIMEOUT_MS", "400"),
            ("FANFARE_REDIS__LEASE_MS", "1000"),
            ("FANFARE_REDIS__PARTITIONS", partitions),
        ]));
        inputs
    };
    let fault = "FANFARE_REDIS__PARTITIONS: redis.partitions is 4001, but with redis.lease_ms 1000 \
                 at most 4000 can be held; lower redis.partitions or raise redis.lease_ms";
    assert_eq!(fault_lines(&set("4001")), [fault]);
    super::loaded(&set("4000"));
    let mut inputs = inputs();
    let most = ("FANFARE_REDIS__PARTITIONS", "16384");
    inputs.environment.extend(variables(&[most]));
    super::loaded(&inputs);
}

#[test]
fn a_budget_above_the_memory_is_a_fault_and_the_default_is_not() {
    let mut inputs = inputs();
    inputs.machine.memory_total = Some(64 << 20);
    let config = super::loaded(&inputs).config;
    assert_eq!(config.cache.memory_bytes, 16 << 20);
    let over = "67108865";
    inputs.environment.extend(variables(&[
        ("FANFARE_CACHE__MEMORY_BYTES", over),
        ("FANFARE_ADMISSION__MEMORY_BYTES_MAX", over),
    ]));
    let fault = |variable: &str, key: &str| {
        format!(
            "{variable}: {key} is 67108865, but this process can have 67108864 bytes; lower it, \
             or give more memory"
        )
    };
    assert_eq!(
        fault_lines(&inputs),
        [
            fault("FANFARE_CACHE__MEMORY_BYTES", "cache.memory_bytes"),
            fault(
                "FANFARE_ADMISSION__MEMORY_BYTES_MAX",
                "admission.memory_bytes_max"
            ),
        ]
    );
}

#[test]
fn an_outbox_that_holds_no_whole_message_is_a_fault() {
    let lines = faults_of_file("[session]\nmessage_bytes_max = 2097152\n");
    let fault = |upper: &str| {
        format!(
            "fanfare.toml:2:21: {upper} is 1048576, but must be at least \
             session.message_bytes_max, which is 2097152; raise {upper} or lower \
             session.message_bytes_max"
        )
    };
    assert_eq!(
        lines,
        [
            fault("session.outbox_bytes_max"),
            fault("session.page_bytes_max")
        ]
    );
}

#[test]
fn without_pings_any_pong_time_will_do() {
    let mut inputs = inputs();
    inputs.environment.extend(variables(&[
        ("FANFARE_SESSION__PING_MS", "0"),
        ("FANFARE_SESSION__PONG_MS", "200"),
    ]));
    assert_eq!(super::loaded(&inputs).config.session.ping, None);
}

#[test]
fn a_size_over_the_file_limit_is_a_fault_of_the_size() {
    let mut inputs = Inputs {
        size: Some("medium".to_owned()),
        ..inputs()
    };
    inputs.machine.file_limit = 1_024;
    assert_eq!(
        fault_lines(&inputs),
        [
            "--size medium: server.connections_max is 1000, which needs 1500 open files, but the \
             limit is 1024; lower it, or raise the limit (ulimit -n, LimitNOFILE) to 1500"
        ]
    );
}

#[test]
fn a_node_that_nobody_could_reach_does_not_start() {
    let fault = "auth.keys: there is no token key, so nobody could connect; set \
                 FANFARE_AUTH__HMAC_SECRET or [[auth.keys]], or auth.anonymous = true to let \
                 everybody in; on your own machine start with --dev";
    assert_eq!(fault_lines(&keyless()), [fault]);
    let mut anonymous = keyless();
    anonymous.environment = variables(&[("FANFARE_AUTH__ANONYMOUS", "true")]);
    super::loaded(&anonymous);
}

#[test]
fn production_refuses_what_is_unsafe_there() {
    let mut inputs = Inputs {
        env: Some("production".to_owned()),
        dev: true,
        ..keyless()
    };
    inputs.environment = variables(&[("FANFARE_API__KEYS", "")]);
    inputs.flags = vec![flag(
        "--redis",
        "redis.url",
        "redis://u:hunter2@redis.example",
    )];
    assert_eq!(
        fault_lines(&inputs),
        [
            "--dev: lets everybody do everything, which production refuses; leave --dev out, or \
             choose another --env",
            "api.keys: there is no key for the API, which production refuses; set \
             FANFARE_API__KEYS; to take out the last key put a new one in its place",
            "--redis: redis.url has a secret on the command line, where everybody on the machine \
             can read it, which production refuses; set FANFARE_REDIS__URL instead",
        ]
    );
    let mut sound = super::inputs();
    sound.environment.extend(variables(&[
        ("FANFARE_ENV", "production"),
        ("FANFARE_API__KEYS", "0123456789abcdef"),
        ("FANFARE_REDIS__URL", "redis://u:hunter2@redis.example"),
    ]));
    sound.flags = vec![flag("--redis", "redis.url", "redis://redis.example")];
    super::loaded(&sound);
}

#[test]
fn faults_of_all_sources_are_told_at_once_and_none_because_of_another() {
    let (_directory, path) = file("[session]\nping_ms = 5\npong = 1\n[nowhere]\n");
    let mut inputs = Inputs {
        file: Some(path),
        size: Some("tiny".to_owned()),
        ..keyless()
    };
    inputs.environment = variables(&[
        ("FANFARE_LOG__LEVL", "x"),
        ("FANFARE_API__TARGETS_MAX", "0"),
    ]);
    inputs.flags = vec![flag("--redis", "redis.url", "http://u:hunter2@x")];
    let lines = fault_lines(&inputs);
    let places: Vec<_> = lines
        .iter()
        .map(|line| line.split(": ").next().unwrap())
        .collect();
    assert_eq!(
        places,
        [
            "--size",
            "fanfare.toml:2:11",
            "fanfare.toml:3:1",
            "fanfare.toml:4:2",
            "FANFARE_API__TARGETS_MAX",
            "FANFARE_LOG__LEVL",
            "--redis",
            "auth.keys"
        ]
    );
    assert!(!lines.join("\n").contains("hunter2"));
}

#[test]
fn columns_count_characters() {
    let lines = faults_of_file("[auth]\nissuer = \"ä\" # ü\n\"ö\" = 1\n");
    assert!(
        lines[0].starts_with("fanfare.toml:3:1: auth.ö is no key"),
        "{lines:?}"
    );
    let lines = faults_of_file("auth = { issuer = \"äöü\", leeway_s = -1 }\n");
    assert!(
        lines[0].starts_with("fanfare.toml:1:37: auth.leeway_s"),
        "{lines:?}"
    );
}
