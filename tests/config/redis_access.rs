//! How Redis is got into, and how many replicas are waited for: what goes together.

use crate::{faults_of_file, file, inputs, loaded};
use fanfare::config::load::Inputs;

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
        assert_eq!(
            faults_of_file(&format!("[redis]\n{lines}\n")),
            [fault],
            "{lines}"
        );
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
    assert!(!plain.config.redis.replicated);
    let url = "[redis]\nurl = \"valkeys://:b@r\"\nuser = \"c\"\n";
    for section in ["namespaces.orders", "inbox", "everyone"] {
        let loaded = of(&format!("{url}[{section}]\nreplicas_min = 2\n"));
        assert!(loaded.config.redis.replicated, "{section}");
        let user = loaded.config.redis.access.user;
        assert_eq!(user.as_deref(), Some("c"));
        let warned = loaded.warnings.iter().any(|w| w.contains("replicas_min"));
        assert!(!warned, "{:?}", loaded.warnings);
    }
    let alone = of("[inbox]\nreplicas_min = 1\n");
    let warning = "replicas_min: without redis.url there are no replicas".to_owned();
    assert!(alone.warnings.contains(&warning), "{:?}", alone.warnings);
}

#[test]
fn tls_and_logins_are_those_of_every_form_and_of_every_deployment() {
    let ca = "tls_ca_file = \"/ca.pem\"";
    for urls in [
        "url = \"rediss-cluster://r\"",
        "url = \"valkeys-sentinel://r?master=m\"",
        "url = \"redis://r?name=r\"\nshards = [\"rediss://s?name=s\"]",
    ] {
        let (_directory, path) = file(&format!("[redis]\n{urls}\n{ca}\n"));
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
    assert_eq!(faults_of_file(text), [fault]);
}
