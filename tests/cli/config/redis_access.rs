//! How Redis is got into, and how many replicas are waited for: what goes together.

use super::{fault_lines, faults_of_file, file, inputs, keyless, loaded, variables};
use fanfare::config::inputs::Inputs;

const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
const KEY: &str = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";

/// A file whose paths `/ca.pem`, `/a.pem`, `/a.key` and `/p` stand for files that are there.
fn with_files(text: &str) -> (tempfile::TempDir, std::path::PathBuf) {
    let (directory, path) = file("");
    let mut text = text.to_owned();
    for (name, content) in [
        ("/ca.pem", CERTIFICATE),
        ("/a.pem", CERTIFICATE),
        ("/a.key", KEY),
        ("/p", "word\n"),
    ] {
        let there = format!("{}{name}", directory.path().display());
        std::fs::write(&there, content).unwrap();
        text = text.replace(&format!("\"{name}\""), &format!("\"{there}\""));
    }
    std::fs::write(&path, text).unwrap();
    (directory, path)
}

fn faults_with_files(text: &str) -> Vec<String> {
    let (_directory, path) = with_files(text);
    fault_lines(&Inputs {
        file: Some(path),
        ..inputs()
    })
}

#[test]
fn a_file_that_is_not_there_or_holds_something_else_is_a_fault() {
    for (key, content, why) in [
        (
            "password_file",
            None,
            "No such file or directory (os error 2)",
        ),
        (
            "tls_ca_file",
            None,
            "No such file or directory (os error 2)",
        ),
        ("password_file", Some(&b"\n"[..]), "it is empty"),
        ("password_file", Some(b"\xff"), "it is not UTF-8 text"),
        (
            "password_file",
            Some(b"\xef\xbb\xbfword"),
            "it begins with a byte order mark",
        ),
        (
            "tls_ca_file",
            Some(b"hunter2"),
            "there is no certificate in it",
        ),
    ] {
        let (directory, path) = file("");
        let named = directory.path().join("named");
        if let Some(content) = content {
            std::fs::write(&named, content).unwrap();
        }
        let text = format!("[redis]\nurl = \"rediss://r\"\n{key} = {named:?}\n");
        std::fs::write(&path, text).unwrap();
        let lines = fault_lines(&Inputs {
            file: Some(path),
            ..inputs()
        });
        let says = format!("redis.{key} names named, which cannot be used: {why}; name a file");
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(lines[0].contains(&says), "{lines:?}");
        assert!(!lines[0].contains("hunter2"), "{lines:?}");
    }
    let unused = faults_of_file("[redis]\npassword_file = \"/nope\"\n");
    assert!(
        unused[0].contains("names /nope, which cannot be used"),
        "{unused:?}"
    );
}

#[test]
fn an_address_that_came_to_the_wrong_key_is_not_shown() {
    let lines = faults_of_file("[server]\nlisten = \"redis://u:hunter2@h\"\n");
    assert_eq!(
        lines,
        [
            "fanfare.toml:2:10: server.listen cannot be this value, which is hidden; give an \
             address and a port, for example 0.0.0.0:8080, or none for a node without \
             sessions"
        ]
    );
}

#[test]
fn a_login_without_a_colon_is_a_fault_and_is_never_shown() {
    let mut inputs = inputs();
    inputs
        .environment
        .extend(variables(&[("FANFARE_REDIS__URL", "redis://hunter2@r")]));
    assert_eq!(
        fault_lines(&inputs),
        [
            "FANFARE_REDIS__URL: redis.url has a login without a colon, so it is taken for a user, \
             and there is no password; write USER:PASSWORD@ or :PASSWORD@, or set \
             redis.password_file"
        ]
    );
    let (_directory, path) = with_files("[redis]\npassword_file = \"/p\"\n");
    inputs.file = Some(path);
    let shown = fanfare::config::show::rows(&loaded(&inputs).values);
    let shown = fanfare::config::show::table(&shown);
    assert!(
        shown.contains("redis://***@r") && !shown.contains("hunter2"),
        "{shown}"
    );
}

#[test]
fn each_fault_of_a_url_says_which_part_and_shows_nothing() {
    for (url, what) in [
        ("redis://u:hunter2#x@r", "there is a #"),
        ("redis://u:hunter2/x@r", "there is a /"),
        ("redis://u:hunter2?x@r", "there is a ?"),
        ("redis://u:hunter2%zz@r", "there is a %"),
        (
            "redis-sentinel://u:hunter2@r",
            "which master the sentinels watch",
        ),
        ("redis://u:hunter2@r,s", "several hosts"),
        ("redis://u:hunter2@r:port", "a port is no number"),
        ("redis://u:hunter2@r/x", "the database is no number"),
    ] {
        let mut inputs = keyless();
        inputs.environment = variables(&[
            ("FANFARE_REDIS__URL", url),
            ("FANFARE_AUTH__ANONYMOUS", "true"),
        ]);
        let lines = fault_lines(&inputs);
        let begin = "FANFARE_REDIS__URL: redis.url cannot be used: ";
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(
            lines[0].starts_with(begin) && lines[0].contains(what),
            "{lines:?}"
        );
        assert!(!lines[0].contains("hunter2"), "{lines:?}");
    }
}

/// Where a line of a `[redis]` section goes wrong, and what is told.
#[test]
fn what_would_be_left_out_in_silence_is_a_fault() {
    let table = [
        (
            "url = \"redis://r\"\ntls_ca_file = \"/ca.pem\"",
            "fanfare.toml:3:15: redis.tls_ca_file is set, but redis.url asks for no TLS; begin \
             redis.url with rediss://, or leave it out",
        ),
        (
            "url = \"rediss://r\"\ntls_certificate_file = \"/a.pem\"",
            "fanfare.toml:3:24: redis.tls_certificate_file is set without redis.tls_key_file; set \
             redis.tls_key_file too",
        ),
        (
            "url = \"rediss://r\"\ntls_key_file = \"/a.key\"",
            "fanfare.toml:3:16: redis.tls_key_file is set without redis.tls_certificate_file; set \
             redis.tls_certificate_file too",
        ),
        (
            "url = \"redis://a:b@r\"\nuser = \"c\"",
            "fanfare.toml:3:8: redis.user is set, and redis.url has a user; leave out one of them",
        ),
        (
            "url = \"redis://a:b@r\"\npassword_file = \"/p\"",
            "fanfare.toml:3:17: redis.password_file is set, and redis.url has a password; take \
             the password out of redis.url",
        ),
        (
            "url = \"redis://r\"\nuser = \"c\"",
            "fanfare.toml:3:8: redis.user is set without a password, so it would not be used; set \
             redis.password_file",
        ),
    ];
    for (lines, fault) in table {
        let told = faults_with_files(&format!("[redis]\n{lines}\n"));
        assert_eq!(told, [fault], "{lines}");
    }
}

#[test]
fn replicas_are_waited_for_within_the_time_of_a_command() {
    let text = "[redis]\ncommand_timeout_ms = 900\n[namespaces.orders]\nreplicas_min = 1\n";
    let fault = "fanfare.toml:2:22: redis.command_timeout_ms is 900, but must be above \
                 namespaces.orders.replicas_timeout_ms, which is 1000; raise \
                 redis.command_timeout_ms or lower namespaces.orders.replicas_timeout_ms";
    assert_eq!(faults_of_file(text), [fault]);
}

#[test]
fn one_namespace_that_asks_for_replicas_is_enough_for_a_link_of_its_own() {
    let of = |text: &str| {
        let (_directory, path) = file(text);
        loaded(&Inputs {
            file: Some(path),
            ..inputs()
        })
    };
    let plain = of("[namespaces.orders]\nhistory_entries_max = 5\n");
    assert_eq!(plain.config.redis.replicas_min, 0);
    let url = "[redis]\nurl = \"valkeys://:b@r\"\nuser = \"c\"\n";
    for section in ["namespaces.orders", "inbox", "everyone"] {
        let loaded = of(&format!("{url}[{section}]\nreplicas_min = 2\n"));
        assert_eq!(loaded.config.redis.replicas_min, 2, "{section}");
        let user = loaded.config.redis.access.user;
        assert_eq!(user.as_deref(), Some("c"));
        let warned = loaded.warnings.iter().any(|w| w.contains("replicas_min"));
        assert!(!warned, "{:?}", loaded.warnings);
    }
    let alone = of("[inbox]\nreplicas_min = 1\n");
    let warning = "inbox.replicas_min has no effect without redis.url: there are no replicas";
    let warned = alone.warnings.iter().any(|w| w.ends_with(warning));
    assert!(warned, "{:?}", alone.warnings);
}

#[test]
fn tls_and_logins_are_those_of_every_form_and_of_every_deployment() {
    let ca = "tls_ca_file = \"/ca.pem\"";
    for urls in [
        "url = \"rediss-cluster://r\"",
        "url = \"valkeys-sentinel://r?master=m\"",
        "url = \"redis://r?name=r\"\nshards = [\"rediss://s?name=s\"]",
    ] {
        let (_directory, path) = with_files(&format!("[redis]\n{urls}\n{ca}\n"));
        let loaded = loaded(&Inputs {
            file: Some(path),
            ..inputs()
        });
        let ca_file = loaded.config.redis.access.tls_ca_file.clone();
        assert!(ca_file.is_some(), "{urls}");
    }
    let text = "[redis]\nurl = \"redis://r?name=r\"\nshards = [\"redis://:b@s?name=s\"]\npassword_file = \"/p\"\n";
    let fault = "fanfare.toml:4:17: redis.password_file is set, and redis.shards has a password; \
                 take the password out of redis.shards";
    assert_eq!(faults_with_files(text), [fault]);
}
