//! Secrets and keys: which are taken, what is told of the others, and that none is ever shown.

use fanfare::config::inputs::Inputs;

use super::{fault_lines, faults_of_file, file, inputs, keyless, loaded, variables};

#[test]
fn what_is_no_utf8_or_the_example_is_no_secret() {
    let bad = "caf\u{fffd} 0123456789abcdef0123456789abcdef";
    let not_text = "it has bytes that are not UTF-8; give text; bytes can be written as base64 or \
                    hex";
    for (name, key) in [
        ("FANFARE_AUTH__HMAC_SECRET", "auth.hmac_secret"),
        ("FANFARE_API__KEYS", "api.keys"),
        ("FANFARE_REDIS__URL", "redis.url"),
        ("FANFARE_AUTH__ISSUER", "auth.issuer"),
    ] {
        let mut inputs = keyless();
        inputs.environment = variables(&[("FANFARE_AUTH__ANONYMOUS", "true"), (name, bad)]);
        let fault = format!("{name}: {key} cannot be used: {not_text}");
        assert_eq!(fault_lines(&inputs), [fault]);
    }
    let example = fanfare::config::forms::EXAMPLE_SECRET;
    let mut inputs = keyless();
    inputs.environment = variables(&[("FANFARE_AUTH__HMAC_SECRET", example)]);
    assert_eq!(
        fault_lines(&inputs),
        [
            "FANFARE_AUTH__HMAC_SECRET: auth.hmac_secret cannot be used: this is the example, \
             which everybody knows; give one of your own, for example by: openssl rand -base64 48"
        ]
    );
    let lines = faults_of_file(&format!(
        "[[auth.keys]]\nalgorithm = \"HS256\"\nsecret = {example:?}\n"
    ));
    assert!(lines[0].contains("this is the example"), "{lines:?}");
}

/// What a secret file may hold, and what is told of it otherwise.
#[test]
fn a_secret_file_is_text_that_everybody_reads_alike() {
    let secret = "0123456789abcdef0123456789abcdef";
    let of = |content: &[u8]| {
        let (directory, path) =
            file("[[auth.keys]]\nalgorithm = \"HS256\"\nsecret_file = \"secret\"\n");
        std::fs::write(directory.path().join("secret"), content).unwrap();
        let inputs = Inputs {
            file: Some(path),
            ..keyless()
        };
        match fanfare::config::load::load(&inputs) {
            Ok(loaded) => Ok(loaded.config.auth.keys[0].material.0.clone()),
            Err(faults) => Err(faults.to_string()),
        }
    };
    for end in ["", "\n", "\r\n"] {
        assert_eq!(
            of(format!("{secret}{end}").as_bytes()).as_deref(),
            Ok(secret)
        );
    }
    for (content, why) in [
        (&b""[..], "it is empty"),
        (b"\r\n", "it is empty"),
        (
            b"\xff\xfe0123456789abcdef0123456789abcdef",
            "it is not UTF-8 text",
        ),
        (
            "\u{feff}0123456789abcdef0123456789abcdef".as_bytes(),
            "a byte order mark",
        ),
        (
            b"0123456789abcdef0123456789abcdef\n\n",
            "it ends in empty lines",
        ),
        (
            b"0123456789abcdef\x000123456789abcdef",
            "it has a zero byte",
        ),
        (b"too short", "at least 32 bytes"),
    ] {
        let told = of(content).unwrap_err();
        assert!(told.contains(why), "{told}");
        assert!(told.contains("fanfare.toml:3:15"), "{told}");
    }
}

/// The first fault of each entry of `[[auth.keys]]`. No secret may be in it.
const ENTRIES: &[(&str, &str)] = &[
    (
        "secret = \"hunter2\"",
        "fanfare.toml:1:1: auth.keys[0] has no algorithm; give one of HS256, HS384, HS512, \
         RS256, PS256, ES256, EdDSA",
    ),
    (
        "algorithm = \"none\"\nsecret = \"hunter2\"",
        "fanfare.toml:2:13: auth.keys[0].algorithm cannot be \"none\"; give one of HS256, \
         HS384, HS512, RS256, PS256, ES256, EdDSA",
    ),
    (
        "algorithm = \"HS256\"",
        "fanfare.toml:1:1: auth.keys[0] has no key material; give one of secret, secret_env, \
         secret_file",
    ),
    (
        "algorithm = \"HS256\"\nsecret = \"hunter2\"\nsecret_env = \"X\"",
        "fanfare.toml:1:1: auth.keys[0] has more than one key material; give one of secret, \
         secret_env, secret_file",
    ),
    (
        "algorithm = \"RS256\"\nsecret = \"hunter2\"",
        "fanfare.toml:3:10: auth.keys[0].secret does not go with RS256; give one of \
         public_key, public_key_env, public_key_file",
    ),
    (
        "algorithm = \"HS256\"\nsecret_env = \"TOKEN_SECRET\"",
        "fanfare.toml:3:14: auth.keys[0].secret_env names TOKEN_SECRET, which is not set; set \
         TOKEN_SECRET to the secret",
    ),
    (
        "algorithm = \"ES256\"\npublic_key_env = \"TOKEN_KEY\"",
        "fanfare.toml:3:18: auth.keys[0].public_key_env names TOKEN_KEY, which is not set; set \
         TOKEN_KEY to the public key",
    ),
    (
        "algorithm = \"HS256\"\nsecret_file = \"absent\"",
        "fanfare.toml:3:15: auth.keys[0].secret_file names absent, which cannot be read: No \
         such file or directory (os error 2); name a file that holds the key",
    ),
    (
        "algorithm = \"EdDSA\"\npublic_key = \"-----BEGIN PRIVATE KEY-----hunter2\"",
        "fanfare.toml:3:14: auth.keys[0].public_key cannot be used: this is a private key: give \
         the public one (openssl pkey -pubout); give another one; docs/configuration.md names the \
         forms",
    ),
    (
        "algorithm = \"HS256\"\nsecret = \"hunter2\"\nkid = \"a\"",
        "fanfare.toml:4:1: auth.keys[0].kid is no key; did you mean auth.keys[0].id?",
    ),
    (
        "algorithm = \"HS256\"\nsecret = 5",
        "fanfare.toml:3:10: auth.keys[0].secret is no text, or empty; give text in quotes",
    ),
    (
        "algorithm = \"HS256\"\nsecret = \"hunter2\"",
        "fanfare.toml:3:10: auth.keys[0].secret cannot be used: the secret must have at least 32 \
         bytes; give another one; docs/configuration.md names the forms",
    ),
];

#[test]
fn token_keys_are_judged_one_by_one() {
    let head = "[[auth.keys]]\n";
    for (entry, fault) in ENTRIES {
        let lines = faults_of_file(&format!("{head}{entry}\n"));
        assert_eq!(lines.first().map(String::as_str), Some(*fault), "{entry}");
        assert!(!lines.join("\n").contains("hunter2"), "{lines:?}");
    }
    let good = "algorithm = \"HS256\"\nsecret = \"0123456789abcdef0123456789abcdef\"\nid = \"a\"\n";
    assert_eq!(
        faults_of_file(&format!("{head}{good}{head}{good}")),
        [
            "fanfare.toml:8:6: auth.keys[1].id \"a\" is taken by an earlier key; give each key its own id"
        ]
    );
    assert_eq!(
        faults_of_file("[auth]\nkeys = \"hunter2\"\n"),
        ["fanfare.toml:2:8: auth.keys is no list of tables; write [[auth.keys]] once for each key"]
    );
}

#[test]
fn more_keys_without_an_id_than_are_tried_are_a_fault() {
    const SECRET: &str = "secret = \"0123456789abcdef0123456789abcdef\"\n";
    let key = |list: &str, algorithm: &str, id: &str| {
        format!("[[{list}]]\nalgorithm = \"{algorithm}\"\n{id}{SECRET}")
    };
    let remedy = "without an id; give ids: at most 4 keys are tried for a token";
    let own = |algorithm: &str, count| key("auth.keys", algorithm, "").repeat(count);
    let fifth = format!("fanfare.toml:13:1: auth.keys has 5 keys of HS384 {remedy}");
    assert_eq!(faults_of_file(&own("HS384", 5)), [fifth]);
    // The key in the environment is one of them.
    let fifth = format!("FANFARE_AUTH__HMAC_SECRET: auth.keys has 5 keys of HS256 {remedy}");
    assert_eq!(faults_of_file(&own("HS256", 4)), [fifth]);
    let issuer = "[[auth.issuers]]\nissuer = \"a\"\n";
    let keys = key("auth.issuers.keys", "HS512", "").repeat(5);
    let line = format!("fanfare.toml:1:1: auth.issuers.keys of \"a\" has 5 keys of HS512 {remedy}");
    assert_eq!(faults_of_file(&[issuer, &keys].concat()), [line]);
    // No token is tried by keys of another algorithm, or by all that have an id.
    let with_id = key("auth.keys", "HS384", "id = \"a\"\n");
    let (_directory, path) = file(&[own("HS384", 4), own("HS512", 4), with_id].concat());
    let fine = loaded(&Inputs {
        file: Some(path),
        ..inputs()
    });
    assert_eq!(fine.config.auth.keys.len(), 10);
}

#[test]
fn a_short_secret_in_the_environment_is_a_fault_that_hides_it() {
    let mut inputs = keyless();
    inputs.environment = variables(&[("FANFARE_AUTH__HMAC_SECRET", "hunter2")]);
    assert_eq!(
        fault_lines(&inputs),
        [
            "FANFARE_AUTH__HMAC_SECRET: auth.hmac_secret cannot be used: the secret must have at \
             least 32 bytes; give another one; docs/configuration.md names the forms"
        ]
    );
}
