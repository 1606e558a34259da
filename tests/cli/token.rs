//! `fanfare token`: what the binary signs is read back with the other half of the key. The key
//! pairs in `tests/keys` protect nothing; they exist for tests only.

use std::io::Write;
use std::process::{Command, Output};
use std::time::{SystemTime, UNIX_EPOCH};

use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde_json::{Value, json};

const SECRET: &str = "a secret of at least thirty-two bytes";
const SECRET_ENV: &str = "from the environment, and of 32 bytes";

fn token(arguments: &[&str]) -> Output {
    Command::new(fanfare_testkit::program::fanfare())
        .args(["token", "--user", "alice"])
        .args(arguments)
        .env("TOKEN_TEST_SECRET", SECRET_ENV)
        .output()
        .expect("the binary starts")
}

fn text(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).expect("UTF-8")
}

/// The claims of a token that the key accepts.
fn claims(output: &Output, algorithm: Algorithm, key: &DecodingKey) -> Value {
    let validation = Validation::new(algorithm);
    jsonwebtoken::decode::<Value>(text(output).trim_end(), key, &validation)
        .expect("a valid token")
        .claims
}

fn key_file(name: &str) -> String {
    format!("{}/tests/keys/{name}.pem", env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn a_token_carries_what_was_asked_for_and_ends_when_it_should() {
    let output = token(&[
        "--secret",
        SECRET,
        "--ttl",
        "15m",
        "--key-id",
        "k1",
        "--topic",
        "orders:7",
        "--can",
        "subscribe=orders:*",
        "--can",
        "subscribe=news",
        "--can",
        "publish=chat:**",
        "--claim",
        r#"info={"name":"Al"}"#,
        "--claim",
        "iss=me",
    ]);
    let key = DecodingKey::from_secret(SECRET.as_bytes());
    let claims = claims(&output, Algorithm::HS256, &key);
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("after 1970")
        .as_secs();
    let issued = claims["iat"].as_u64().expect("iat");
    assert!(issued <= now && now - issued < 60);
    let expected = json!({
        "sub": "alice", "iat": issued, "exp": issued + 900, "topic": "orders:7", "iss": "me",
        "can": {"subscribe": ["orders:*", "news"], "publish": ["chat:**"]},
        "info": {"name": "Al"},
    });
    assert_eq!(claims, expected);
    let header = jsonwebtoken::decode_header(text(&output).trim_end()).expect("a header");
    assert_eq!(header.kid.as_deref(), Some("k1"));
}

#[test]
fn a_claim_on_the_command_line_wins_so_that_refused_tokens_can_be_made() {
    let output = token(&["--secret", SECRET, "--claim", "exp=1000", "--claim", "sub="]);
    let mut validation = Validation::new(Algorithm::HS256);
    validation.validate_exp = false;
    let key = DecodingKey::from_secret(SECRET.as_bytes());
    let token = jsonwebtoken::decode::<Value>(text(&output).trim_end(), &key, &validation);
    let claims = token.expect("signed").claims;
    assert_eq!((&claims["exp"], &claims["sub"]), (&json!(1000), &json!("")));
}

#[test]
fn a_secret_comes_from_the_environment_or_from_a_file_without_its_last_line_break() {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    let in_file = format!(" {SECRET} ");
    write!(file, "{in_file}\r\n").expect("written");
    let path = file.path().to_str().expect("UTF-8");
    for (source, secret, name, algorithm) in [
        (
            ["--secret-env", "TOKEN_TEST_SECRET"],
            SECRET_ENV,
            "HS384",
            Algorithm::HS384,
        ),
        (["--secret-file", path], &in_file, "hs512", Algorithm::HS512),
    ] {
        let output = token(&[source[0], source[1], "--algorithm", name]);
        let key = DecodingKey::from_secret(secret.as_bytes());
        assert_eq!(claims(&output, algorithm, &key)["sub"], "alice");
    }
}

#[test]
fn a_private_key_signs_with_every_algorithm_of_its_kind() {
    let public = |name: &str| std::fs::read(key_file(name)).expect("a key");
    let rsa = DecodingKey::from_rsa_pem(&public("rsa-public")).expect("RSA");
    let ec = DecodingKey::from_ec_pem(&public("ec-public")).expect("EC");
    let ed = DecodingKey::from_ed_pem(&public("ed25519-public")).expect("Ed25519");
    for (private, name, algorithm, key) in [
        ("rsa-private", "RS256", Algorithm::RS256, &rsa),
        ("rsa-private", "PS256", Algorithm::PS256, &rsa),
        ("ec-private", "ES256", Algorithm::ES256, &ec),
        ("ed25519-private", "EdDSA", Algorithm::EdDSA, &ed),
    ] {
        let output = token(&["--key", &key_file(private), "--algorithm", name]);
        assert_eq!(claims(&output, algorithm, key)["sub"], "alice", "{name}");
    }
}

#[test]
fn a_key_that_no_node_could_know_is_refused_with_advice_and_never_shown() {
    for (arguments, says) in [
        (
            &[
                "--key",
                &key_file("ed25519-private"),
                "--algorithm",
                "RS256",
            ][..],
            "no PEM key of the kind that RS256 needs",
        ),
        (&["--key", &key_file("rsa-private")], "give --algorithm"),
        (
            &["--key", "/nowhere.pem", "--algorithm", "ES256"],
            "cannot read /nowhere.pem",
        ),
        (&["--secret-env", "NOT_SET_ANYWHERE"], "NOT_SET_ANYWHERE"),
        (&["--secret", ""], "at least 32 bytes"),
        (&["--secret", &SECRET[..31]], "openssl rand"),
        (&["--secret", SECRET, "--algorithm", "ES256"], "give --key"),
    ] {
        let output = token(arguments);
        assert_eq!(output.status.code(), Some(64), "{arguments:?}");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(text.contains(says), "{text}");
        assert!(!text.contains("-----BEGIN"), "{text}");
    }
}
