//! `fanfare token`: makes a signed token, so that rights can be tried without an identity
//! provider.
//!
//! In: flags, a secret or a private key from a file. Out: the token, alone on stdout. The clock
//! of this machine gives `iat` and `exp`. The key is held to what a node asks of it; the claims
//! are not: one given by `--claim` wins, so that refused tokens can be made too.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use serde_json::{Map, Value};

use super::access::parse_app;
use super::exit::{Exit, Failure};
use super::output;
use crate::auth::keys::KeyFault;
use crate::auth::mint::{self, MintError, MintKey};
use crate::config::Secret;
use crate::config::token_keys::{self, WITH_PUBLIC_KEY, WITH_SECRET};
use fanfare_protocol::ids::App;

/// Arguments of `token`.
#[derive(Debug, Args)]
#[command(
    after_help = "\
Examples:
  fanfare token --user alice --secret-env APP_SECRET
  fanfare token --user alice --ttl 15m --secret-file secret.txt \\
      --can 'subscribe=orders:*' --can 'publish=chat:**'
  fanfare token --user alice --key private.pem --algorithm ES256 --claim 'info={\"name\":\"Al\"}'
  fanfare token --user alice --app shop --secret-env SHOP_SECRET
  FANFARE_TOKEN=$(fanfare token --user alice --secret-env APP_SECRET) fanfare subscribe --inbox

--can may be repeated; without it the token restricts nothing by itself.",
    mut_group("KeySource", |group| group.required(true)))]
pub struct TokenArgs {
    /// Whose token it is (claim "sub")
    #[arg(long, value_name = "NAME")]
    user: String,
    /// How long it is valid: 30s, 15m, 1h, 7d
    #[arg(long, default_value = "1h", value_parser = parse_ttl)]
    ttl: Duration,
    #[command(flatten)]
    signing: SigningArgs,
    /// A right: OPERATION=PATTERN with subscribe, publish, presence or history
    #[arg(long, value_name = "OP=PATTERN", value_parser = parse_right)]
    can: Vec<(String, String)>,
    /// The app that it is for (claim "app"); without it a node takes it for "default"
    #[arg(long, value_name = "NAME", value_parser = parse_app)]
    app: Option<App>,
    /// Make it a token for this one topic
    #[arg(long, value_name = "TOPIC")]
    topic: Option<String>,
    /// A further claim; a value that is not JSON is text
    #[arg(long, value_name = "NAME=VALUE", value_parser = parse_claim)]
    claim: Vec<(String, Value)>,
}

/// With what to sign; `fanfare bench` makes its tokens with the same.
#[derive(Debug, Clone, Args)]
pub struct SigningArgs {
    #[command(flatten)]
    source: KeySource,
    /// How to sign
    #[arg(long, ignore_case = true, default_value = "HS256", value_parser = algorithms())]
    algorithm: &'static str,
    /// Name of the key (header "kid")
    #[arg(long, value_name = "KID")]
    key_id: Option<String>,
}

impl SigningArgs {
    /// The key, where one was named.
    ///
    /// # Errors
    /// [`TokenError`] where it cannot be read or does not fit the algorithm.
    pub fn key(&self) -> Result<Option<MintKey>, TokenError> {
        let material = match (&self.source.key, WITH_SECRET.contains(&self.algorithm)) {
            _ if !self.source.is_given() => return Ok(None),
            (Some(_), true) => return Err(TokenError::PemForSecret),
            (None, false) => return Err(TokenError::SecretForPem),
            (Some(path), false) => read(path)?,
            (None, true) => read_secret(&self.source)?,
        };
        Ok(Some(MintKey {
            id: self.key_id.clone(),
            algorithm: self.algorithm.to_owned(),
            material: Secret(material),
        }))
    }
}

/// Where the key comes from: at most one of these.
#[derive(Debug, Clone, Args)]
#[group(multiple = false)]
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

impl KeySource {
    fn is_given(&self) -> bool {
        let Self {
            secret,
            secret_env,
            secret_file,
            key,
        } = self;
        secret.is_some() || secret_env.is_some() || secret_file.is_some() || key.is_some()
    }
}

/// Why no token was made.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// Nothing to sign with.
    #[error("give one of --secret, --secret-env, --secret-file and --key")]
    NoKey,
    /// The variable that was named is not set.
    #[error("the environment has no {0}")]
    NoVariable(String),
    /// The file that was named cannot be read.
    #[error("cannot read {}", path.display())]
    File {
        /// As given.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A private key, and an algorithm for secrets.
    #[error("a PEM key cannot sign with HS256, HS384 or HS512: give --algorithm")]
    PemForSecret,
    /// A secret, and an algorithm for private keys.
    #[error("a shared secret signs only with HS256, HS384 or HS512: give --key")]
    SecretForPem,
    /// The key does not fit.
    #[error(transparent)]
    Mint(#[from] MintError),
}

/// Prints the token.
///
/// # Errors
/// [`Failure`] with the code for usage, when the key cannot be read or does not fit.
pub fn run(args: &TokenArgs) -> Result<Exit, Failure> {
    let token = mint(args).map_err(|error| failure(&error))?;
    output::line(&token);
    Ok(Exit::Done)
}

/// A key or token that cannot be had, as a failure of the command that needs it.
#[must_use]
pub fn failure(error: &TokenError) -> Failure {
    let failure = Failure::new(Exit::Usage, error);
    match error {
        TokenError::Mint(MintError::Key(KeyFault::ShortSecret)) => failure.hint(
            "a node takes no shorter one; `openssl rand -hex 32` makes one that cannot be guessed",
        ),
        _ => failure,
    }
}

fn mint(args: &TokenArgs) -> Result<String, TokenError> {
    let key = args.signing.key()?.ok_or(TokenError::NoKey)?;
    Ok(mint::mint(&key, &claims(args))?)
}

fn claims(args: &TokenArgs) -> Map<String, Value> {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let mut claims = Map::new();
    claims.insert("sub".to_owned(), args.user.as_str().into());
    claims.insert("iat".to_owned(), now.as_secs().into());
    claims.insert("exp".to_owned(), (now + args.ttl).as_secs().into());
    if let Some(app) = &args.app {
        claims.insert("app".to_owned(), app.as_str().into());
    }
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

fn read_secret(source: &KeySource) -> Result<String, TokenError> {
    if let Some(name) = &source.secret_env {
        return std::env::var(name).map_err(|_| TokenError::NoVariable(name.clone()));
    }
    if let Some(path) = &source.secret_file {
        return read(path);
    }
    Ok(source.secret.clone().unwrap_or_default())
}

fn read(path: &Path) -> Result<String, TokenError> {
    token_keys::read_material(path).map_err(|source| TokenError::File {
        path: path.to_owned(),
        source,
    })
}

/// One of the contract's algorithms, in whatever case it is written.
fn algorithms() -> impl TypedValueParser<Value = &'static str> {
    let names = || WITH_SECRET.into_iter().chain(WITH_PUBLIC_KEY);
    PossibleValuesParser::new(names()).try_map(move |given| {
        names()
            .find(|name| name.eq_ignore_ascii_case(&given))
            .ok_or("no algorithm of the contract")
    })
}

/// Reads `30s`, `15m`, `1h`, `7d`, or seconds without a unit.
///
/// # Errors
/// What is wrong with it.
pub fn parse_ttl(text: &str) -> Result<Duration, String> {
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

pub(super) fn parse_claim(text: &str) -> Result<(String, Value), String> {
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
