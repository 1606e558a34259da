//! `[[authorizers]]` as values: which backends are asked whether a session may do something.
//!
//! Values only; `authorizers` reads them. Bounds: [`AUTHORIZERS_MAX`] of them, [`SECRETS_MAX`] secrets and
//! [`HEADERS_MAX`] headers of each.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::config::Secret;

/// The list's place in the file.
pub const PATH: &str = "authorizers";
/// Most authorizers: each has series of its own in the metrics.
pub const AUTHORIZERS_MAX: usize = 16;
/// Most secrets of one: the one in force, and the next while it is rotated.
pub const SECRETS_MAX: usize = 2;
/// Most headers of one.
pub const HEADERS_MAX: usize = 16;
/// How a secret begins (Standard Webhooks 1.0).
pub const SECRET_PREFIX: &str = "whsec_";

/// One entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authorizer {
    /// As `auth.authorize_connect` and namespaces name it.
    pub name: String,
    /// Where it is asked.
    pub url: String,
    /// Enquiries are signed with each of them. As text, `whsec_` and base64.
    pub secrets: Vec<Secret>,
    /// Longest time for an answer, from the enquiry on; as long again for a place to ask. Default 2 s.
    pub timeout: Duration,
    /// Most enquiries at once. Default 64.
    pub concurrency: usize,
    /// Sent with each enquiry. Values may be secrets.
    pub headers: Vec<(String, Secret)>,
    /// Certificates that it is trusted by; `None`: the system's.
    pub ca_file: Option<String>,
    /// Whether it may lead to a private address, and be `http`.
    pub allow_private: bool,
}

/// Whether this can be the name of an authorizer.
#[must_use]
pub fn is_name(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-';
    (1..=32).contains(&text.len()) && text.bytes().all(allowed)
}

/// The bytes of a secret.
///
/// # Errors
/// Why it is none, in words that do not repeat it.
pub fn secret_bytes(text: &str) -> Result<Vec<u8>, &'static str> {
    let encoded = text
        .strip_prefix(SECRET_PREFIX)
        .ok_or("does not begin with whsec_")?;
    let bytes = STANDARD
        .decode(encoded)
        .map_err(|_| "is no base64 behind whsec_")?;
    match bytes.len() {
        24..=64 => Ok(bytes),
        _ => Err("has not 24 to 64 bytes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_has_its_prefix_and_24_to_64_bytes() {
        let of = |count: usize| format!("whsec_{}", STANDARD.encode(vec![7; count]));
        for count in [24, 32, 64] {
            assert_eq!(secret_bytes(&of(count)), Ok(vec![7; count]));
        }
        for count in [0, 23, 65] {
            assert_eq!(secret_bytes(&of(count)), Err("has not 24 to 64 bytes"));
        }
        assert!(secret_bytes("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").is_err());
        assert!(secret_bytes("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaS").is_err());
    }
}
