//! Tokens, right and wrong, and a configuration that knows the key they are signed with.

use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use serde_json::{Value, json};

use crate::kept;

/// The secret that [`config_file`] configures for HS256.
pub const SECRET: &str = "a-secret-of-the-tests-that-is-long-enough";

/// Unix seconds, so many from now.
pub fn seconds_from_now(seconds: i64) -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    i64::try_from(now.expect("after 1970").as_secs()).expect("before the year 292e9") + seconds
}

/// A good token for a user.
pub fn token(user: &str) -> String {
    signed(&json!({"sub": user, "exp": seconds_from_now(600)}))
}

/// These claims, signed as configured.
pub fn signed(claims: &Value) -> String {
    signed_with(claims, "HS256", SECRET)
}

/// These claims, signed by HS256 or HS512 with another secret.
pub fn signed_with(claims: &Value, algorithm: &str, secret: &str) -> String {
    let form = match algorithm {
        "HS256" => hmac::HMAC_SHA256,
        "HS512" => hmac::HMAC_SHA512,
        other => panic!("{other} is not made here"),
    };
    let key = hmac::Key::new(form, secret.as_bytes());
    signed_by(
        &json!({"typ": "JWT", "alg": algorithm}),
        claims,
        |message| hmac::sign(&key, message).as_ref().to_vec(),
    )
}

/// These claims under any header, signed by what is given.
pub fn signed_by(header: &Value, claims: &Value, sign: impl FnOnce(&[u8]) -> Vec<u8>) -> String {
    let message = put_together(header, claims, "");
    let message = message.trim_end_matches('.');
    let signature = URL_SAFE_NO_PAD.encode(sign(message.as_bytes()));
    let token = format!("{message}.{signature}");
    kept::token(&token);
    token
}

/// These claims under any header, with any signature.
pub fn put_together(header: &Value, claims: &Value, signature: &str) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let token = format!("{}.{}.{signature}", part(header), part(claims));
    kept::token(&token);
    token
}

/// Writes a configuration for a node outside development into a directory: the development key
/// for the API, one secret for tokens, and topics that every user may join and publish to.
pub fn config_file(directory: &tempfile::TempDir) -> PathBuf {
    let path = directory.path().join("fanfare.toml");
    let text = format!(
        "[api]\nkeys = [\"{api_key}\"]\n\n\
         [auth]\nhmac_secret = \"{SECRET}\"\n\n\
         [namespaces.default]\nsubscribe = \"authenticated\"\npublish = \"authenticated\"\n\
         history = \"authenticated\"\n",
        api_key = crate::http::DEV_KEY,
    );
    std::fs::write(&path, text).expect("the directory can be written");
    path
}
