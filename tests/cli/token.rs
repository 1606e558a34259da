//! `fanfare token`: what the binary signs is read back with the other half of the key. The key
//! pairs in `tests/keys` protect nothing; they exist for tests only.

use std::io::Write;
use std::process::{Command, Output};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::hmac;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256, RSA_PSS_2048_8192_SHA256,
    UnparsedPublicKey, VerificationAlgorithm,
};
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

/// A part of a token as JSON.
fn part(output: &Output, index: usize) -> Value {
    let token = text(output);
    let part = token.trim_end().split('.').nth(index).expect("three parts");
    let bytes = URL_SAFE_NO_PAD.decode(part).expect("base64url");
    serde_json::from_slice(&bytes).expect("JSON")
}

/// The claims of a token of this algorithm that `verify` says is signed rightly.
fn claims(output: &Output, algorithm: &str, verify: impl Fn(&[u8], &[u8]) -> bool) -> Value {
    let token = text(output);
    let (message, signature) = token.trim_end().rsplit_once('.').expect("three parts");
    let signature = URL_SAFE_NO_PAD.decode(signature).expect("base64url");
    assert!(verify(message.as_bytes(), &signature), "{token}");
    assert_eq!(part(output, 0)["alg"], algorithm);
    part(output, 1)
}

/// Verifies by this secret.
fn by_secret(form: hmac::Algorithm, secret: &str) -> impl Fn(&[u8], &[u8]) -> bool {
    let key = hmac::Key::new(form, secret.as_bytes());
    move |message, signature| hmac::verify(&key, message, signature).is_ok()
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
    let claims = claims(&output, "HS256", by_secret(hmac::HMAC_SHA256, SECRET));
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
    assert_eq!(part(&output, 0)["kid"], "k1");
}

#[test]
fn a_claim_on_the_command_line_wins_so_that_refused_tokens_can_be_made() {
    let output = token(&["--secret", SECRET, "--claim", "exp=1000", "--claim", "sub="]);
    let claims = claims(&output, "HS256", by_secret(hmac::HMAC_SHA256, SECRET));
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
            hmac::HMAC_SHA384,
        ),
        (
            ["--secret-file", path],
            &in_file,
            "hs512",
            hmac::HMAC_SHA512,
        ),
    ] {
        let output = token(&[source[0], source[1], "--algorithm", name]);
        let claims = claims(&output, &name.to_uppercase(), by_secret(algorithm, secret));
        assert_eq!(claims["sub"], "alice");
    }
}

#[test]
fn a_private_key_signs_with_every_algorithm_of_its_kind() {
    type Form = &'static dyn VerificationAlgorithm;
    // What stands in front of the key itself in a SubjectPublicKeyInfo of its kind.
    let rows: [(&str, &str, &str, Form, usize); 4] = [
        (
            "rsa-private",
            "rsa-public",
            "RS256",
            &RSA_PKCS1_2048_8192_SHA256,
            24,
        ),
        (
            "rsa-private",
            "rsa-public",
            "PS256",
            &RSA_PSS_2048_8192_SHA256,
            24,
        ),
        (
            "ec-private",
            "ec-public",
            "ES256",
            &ECDSA_P256_SHA256_FIXED,
            26,
        ),
        ("ed25519-private", "ed25519-public", "EdDSA", &ED25519, 12),
    ];
    for (private, public, name, form, head_bytes) in rows {
        let output = token(&["--key", &key_file(private), "--algorithm", name]);
        let pem = std::fs::read_to_string(key_file(public)).expect("a key");
        let lines = pem.lines().filter(|line| !line.starts_with("-----"));
        let der = STANDARD.decode(lines.collect::<String>()).expect("base64");
        let key = UnparsedPublicKey::new(form, &der[head_bytes..]);
        let claims = claims(&output, name, |message, signature| {
            key.verify(message, signature).is_ok()
        });
        assert_eq!(claims["sub"], "alice", "{name}");
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
