//! `fanfare token`: makes a signed token, so that rights can be tried without an identity
//! provider.
//!
//! In: flags, a secret or a private key from a file. Out: the token, alone on stdout. The clock
//! of this machine gives `iat` and `exp`. Nothing is checked against a node: a claim given by
//! `--claim` wins, so that refused tokens can be made too.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::{Args, ValueEnum};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Map, Value};

use super::exit::{Exit, Failure};
use super::output;

/// Arguments of `token`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  fanfare token --user alice --secret-env APP_SECRET
  fanfare token --user alice --ttl 15m --secret-file secret.txt \\
      --can 'subscribe=orders:*' --can 'publish=chat:**'
  fanfare token --user alice --key private.pem --algorithm ES256 --claim 'info={\"name\":\"Al\"}'
  FANFARE_TOKEN=$(fanfare token --user alice --secret-env APP_SECRET) fanfare subscribe --inbox

--can may be repeated; without it the token restricts nothing by itself.")]
pub struct TokenArgs {
    /// Whose token it is (claim "sub")
    #[arg(long, value_name = "NAME")]
    user: String,
    /// How long it is valid: 30s, 15m, 1h, 7d
    #[arg(long, default_value = "1h", value_parser = parse_ttl)]
    ttl: Duration,
    #[command(flatten)]
    source: KeySource,
    /// How to sign
    #[arg(long, value_enum, ignore_case = true, default_value = "HS256")]
    algorithm: Signature,
    /// Name of the key (header "kid")
    #[arg(long, value_name = "KID")]
    key_id: Option<String>,
    /// A right: OPERATION=PATTERN with subscribe, publish, presence or history
    #[arg(long, value_name = "OP=PATTERN", value_parser = parse_right)]
    can: Vec<(String, String)>,
    /// Make it a token for this one topic
    #[arg(long, value_name = "TOPIC")]
    topic: Option<String>,
    /// A further claim; a value that is not JSON is text
    #[arg(long, value_name = "NAME=VALUE", value_parser = parse_claim)]
    claim: Vec<(String, Value)>,
}

/// Where the key comes from: exactly one of these.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct KeySource {
    /// The shared secret itself; other users of this machine can see it
    #[arg(long, value_name = "TEXT")]
    secret: Option<String>,
    /// Name of an environment variable with the shared secret
    #[arg(long, value_name = "NAME")]
    secret_env: Option<String>,
    /// File with the shared secret; one line break at its end is left out
    #[arg(long, value_name = "FILE")]
    secret_file: Option<PathBuf>,
    /// File with a private key as PEM
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
}

/// The algorithms of the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "verbatim")]
#[allow(clippy::upper_case_acronyms)]
enum Signature {
    HS256,
    HS384,
    HS512,
    RS256,
    PS256,
    ES256,
    EdDSA,
}

impl Signature {
    fn algorithm(self) -> Algorithm {
        match self {
            Self::HS256 => Algorithm::HS256,
            Self::HS384 => Algorithm::HS384,
            Self::HS512 => Algorithm::HS512,
            Self::RS256 => Algorithm::RS256,
            Self::PS256 => Algorithm::PS256,
            Self::ES256 => Algorithm::ES256,
            Self::EdDSA => Algorithm::EdDSA,
        }
    }

    fn is_shared_secret(self) -> bool {
        matches!(self, Self::HS256 | Self::HS384 | Self::HS512)
    }
}

/// Why no token was made.
#[derive(Debug, thiserror::Error)]
enum TokenError {
    #[error("the environment has no {0}")]
    NoVariable(String),
    #[error("cannot read {}", path.display())]
    File {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("the secret is empty")]
    EmptySecret,
    #[error("a PEM key cannot sign with HS256, HS384 or HS512: give --algorithm")]
    PemForSecret,
    #[error("a shared secret signs only with HS256, HS384 or HS512: give --key")]
    SecretForPem,
    #[error("the key in {} does not fit the algorithm", path.display())]
    Pem {
        path: PathBuf,
        #[source]
        source: jsonwebtoken::errors::Error,
    },
    #[error("the token cannot be signed")]
    Sign(#[source] jsonwebtoken::errors::Error),
}

/// Prints the token.
///
/// # Errors
/// [`Failure`] with the code for usage, when the key cannot be read or does not fit.
pub fn run(args: &TokenArgs) -> Result<Exit, Failure> {
    let token = mint(args).map_err(|error| Failure::new(Exit::Usage, &error))?;
    output::line(&token);
    Ok(Exit::Done)
}

fn mint(args: &TokenArgs) -> Result<String, TokenError> {
    let key = read_key(&args.source, args.algorithm)?;
    let mut header = Header::new(args.algorithm.algorithm());
    header.kid.clone_from(&args.key_id);
    jsonwebtoken::encode(&header, &claims(args), &key).map_err(TokenError::Sign)
}

fn claims(args: &TokenArgs) -> Map<String, Value> {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let mut claims = Map::new();
    claims.insert("sub".to_owned(), args.user.as_str().into());
    claims.insert("iat".to_owned(), now.as_secs().into());
    claims.insert("exp".to_owned(), (now + args.ttl).as_secs().into());
    if let Some(topic) = &args.topic {
        claims.insert("topic".to_owned(), topic.as_str().into());
    }
    if !args.can.is_empty() {
        let mut can: Map<String, Value> = Map::new();
        for (operation, pattern) in &args.can {
            let patterns = can
                .entry(operation.as_str())
                .or_insert_with(|| Value::Array(Vec::new()));
            if let Value::Array(patterns) = patterns {
                patterns.push(pattern.as_str().into());
            }
        }
        claims.insert("can".to_owned(), can.into());
    }
    claims.extend(args.claim.iter().cloned());
    claims
}

fn read_key(source: &KeySource, signature: Signature) -> Result<EncodingKey, TokenError> {
    if let Some(path) = &source.key {
        if signature.is_shared_secret() {
            return Err(TokenError::PemForSecret);
        }
        let pem = read(path)?;
        let key = match signature {
            Signature::RS256 | Signature::PS256 => EncodingKey::from_rsa_pem(pem.as_bytes()),
            Signature::ES256 => EncodingKey::from_ec_pem(pem.as_bytes()),
            _ => EncodingKey::from_ed_pem(pem.as_bytes()),
        };
        return key.map_err(|source| TokenError::Pem {
            path: path.clone(),
            source,
        });
    }
    if !signature.is_shared_secret() {
        return Err(TokenError::SecretForPem);
    }
    let secret = read_secret(source)?;
    if secret.is_empty() {
        return Err(TokenError::EmptySecret);
    }
    Ok(EncodingKey::from_secret(secret.as_bytes()))
}

fn read_secret(source: &KeySource) -> Result<String, TokenError> {
    if let Some(name) = &source.secret_env {
        return std::env::var(name).map_err(|_| TokenError::NoVariable(name.clone()));
    }
    if let Some(path) = &source.secret_file {
        // Editors end a file with a line break that nobody means as part of the secret. The
        // node's configuration reads `secret_file` in the same way.
        let text = read(path)?;
        let text = text.strip_suffix('\n').unwrap_or(&text);
        return Ok(text.strip_suffix('\r').unwrap_or(text).to_owned());
    }
    Ok(source.secret.clone().unwrap_or_default())
}

fn read(path: &Path) -> Result<String, TokenError> {
    std::fs::read_to_string(path).map_err(|source| TokenError::File {
        path: path.to_owned(),
        source,
    })
}

/// Reads `30s`, `15m`, `1h`, `7d`, or seconds without a unit.
fn parse_ttl(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit_seconds = match &text[digits.len()..] {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        other => return Err(format!("unknown unit {other:?}: use s, m, h or d")),
    };
    digits
        .parse::<u32>()
        .map(|count| Duration::from_secs(u64::from(count) * unit_seconds))
        .map_err(|_| "a duration is a number and a unit, for example 15m".to_owned())
}

fn parse_right(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((operation @ ("subscribe" | "publish" | "presence" | "history"), pattern))
            if !pattern.is_empty() =>
        {
            Ok((operation.to_owned(), pattern.to_owned()))
        }
        _ => Err(
            "a right is subscribe, publish, presence or history, then = and a topic pattern"
                .to_owned(),
        ),
    }
}

fn parse_claim(text: &str) -> Result<(String, Value), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((
            name.to_owned(),
            serde_json::from_str(value).unwrap_or_else(|_| value.into()),
        )),
        _ => Err("a claim is NAME=VALUE".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ttl_is_a_number_with_a_unit() {
        assert_eq!(parse_ttl("90"), Ok(Duration::from_secs(90)));
        assert_eq!(parse_ttl("15m"), Ok(Duration::from_secs(900)));
        assert_eq!(parse_ttl("7d"), Ok(Duration::from_secs(604_800)));
        for wrong in ["", "h", "1y", "-1h", "1.5h", "1h30m"] {
            assert!(parse_ttl(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_claim_is_json_where_it_can_be() {
        assert_eq!(parse_claim("n=1"), Ok(("n".to_owned(), 1.into())));
        assert_eq!(
            parse_claim("iss=me=you"),
            Ok(("iss".to_owned(), "me=you".into()))
        );
        assert!(parse_claim("=1").is_err());
    }
}
