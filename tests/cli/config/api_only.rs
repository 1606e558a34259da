//! A node for the API only, and the line for CloudWatch: what is refused, each with its message.

use super::{fault_lines, loaded, variables};

const LISTEN: (&str, &str) = ("FANFARE_SERVER__LISTEN", "none");
const REDIS: (&str, &str) = ("FANFARE_REDIS__URL", "redis://r.example");

fn inputs(more: &[(&str, &str)]) -> fanfare::config::inputs::Inputs {
    let mut inputs = super::keyless();
    inputs.environment = variables(more);
    inputs
}

#[test]
fn a_node_for_the_api_only_needs_no_token_key_and_no_files_for_sessions() {
    let mut api_only = inputs(&[LISTEN, REDIS]);
    // Of a preset nobody asks that it fits.
    api_only.size = Some("enterprise".to_owned());
    api_only.machine.file_limit = 1_024;
    let loaded = loaded(&api_only);
    assert_eq!(loaded.config.server.listen, None);
    assert_eq!(loaded.config.server.sessions_max(), 0);
    assert_eq!(loaded.warnings.len(), 1, "{:?}", loaded.warnings);
    assert!(loaded.warnings[0].starts_with("api.keys: no key"));
    let row = fanfare::config::show::rows(&loaded.values);
    let row = row.iter().find(|row| row.key == "server.listen");
    assert_eq!(row.expect("it is shown").value, "none");
}

#[test]
fn what_asks_for_sessions_is_a_fault_beside_it() {
    let end = "is set, and server.listen is none: this node takes no sessions; leave out";
    for (name, value, path) in [
        (
            "FANFARE_SERVER__CONNECTIONS_MAX",
            "100",
            "server.connections_max",
        ),
        (
            "FANFARE_SERVER__ADVERTISE",
            "wss://a.example",
            "server.advertise",
        ),
        ("FANFARE_SERVER__ECHO", "true", "server.echo"),
    ] {
        let expected = format!("{name}: {path} {end} {path}, or give server.listen an address");
        assert_eq!(
            fault_lines(&inputs(&[LISTEN, REDIS, (name, value)])),
            [expected]
        );
    }
    loaded(&inputs(&[LISTEN, REDIS, ("FANFARE_SERVER__ECHO", "false")]));
}

#[test]
fn such_a_node_alone_is_a_fault() {
    let expected = "FANFARE_SERVER__LISTEN: server.listen is none and redis.url is not set, so nobody \
                    could hear what this node publishes; set redis.url, or give server.listen an address";
    assert_eq!(fault_lines(&inputs(&[LISTEN])), [expected]);
}

#[test]
fn what_only_says_how_sessions_are_treated_is_warned_of() {
    let loaded = loaded(&inputs(&[
        LISTEN,
        REDIS,
        ("FANFARE_API__KEYS", "0123456789abcdef"),
        ("FANFARE_DRAIN__WINDOW_MS", "4000"),
    ]));
    let end = "while server.listen is none: the node takes no sessions";
    assert_eq!(loaded.warnings.len(), 1, "{:?}", loaded.warnings);
    assert!(loaded.warnings[0].contains("drain.window_ms"));
    assert!(loaded.warnings[0].ends_with(end), "{:?}", loaded.warnings);
}

#[test]
fn nothing_but_the_public_listener_can_be_left_out() {
    for (name, path) in [
        ("FANFARE_API__LISTEN", "api.listen"),
        ("FANFARE_METRICS__LISTEN", "metrics.listen"),
    ] {
        let expected = format!(
            "{name}: {path} cannot be \"none\"; give an address and a port, for example 0.0.0.0:8080"
        );
        let faults = fault_lines(&inputs(&[
            (name, "none"),
            ("FANFARE_AUTH__ANONYMOUS", "true"),
        ]));
        assert_eq!(faults, [expected]);
    }
}

#[test]
fn a_namespace_that_cloudwatch_refuses_is_a_fault() {
    let name = "FANFARE_TELEMETRY__EMF_NAMESPACE";
    let anonymous = ("FANFARE_AUTH__ANONYMOUS", "true");
    for wrong in ["AWS/ECS", "two words", "ü"] {
        let expected = format!(
            "{name}: telemetry.emf_namespace cannot be {wrong:?}; give 1 to 255 characters of A-Z a-z \
             0-9 . _ - / # :, not AWS/ at its begin, for example Fanfare"
        );
        assert_eq!(
            fault_lines(&inputs(&[(name, wrong), anonymous])),
            [expected]
        );
    }
    let fine = loaded(&inputs(&[(name, "Fanfare/Prod"), anonymous])).config;
    assert_eq!(
        fine.telemetry.emf_namespace.as_deref(),
        Some("Fanfare/Prod")
    );
}
