//! `fanfare api-key new`: makes a key of the HTTP API, and the section by which a node knows it.
//!
//! In: flags. Out: the key, which is shown once and kept nowhere, and the `[[api.clients]]` to paste,
//! which has its SHA-256 only. The key has 256 random bits of the system's generator, so that nobody need
//! stretch its hash. No node is asked.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clap::{Args, Subcommand, ValueEnum};
use serde_json::json;

use super::exit::{Exit, Failure};
use super::output::{self, Format};
use super::token::parse_ttl;
use crate::config::api_clients::{KEYS_NAME, NAME_BYTES_MAX, PATTERNS_MAX, Scope, hash_of};
use fanfare_protocol::ids::{App, NodeId};
use fanfare_protocol::pattern;

/// What every key begins with, so that tools which look for secrets find one.
const PREFIX: &str = "ffk_";

/// The same below `api-key` and below `api-key new`, where they are looked for.
const EXAMPLES: &str = "\
Examples:
  fanfare api-key new --name billing --scope publish --topic 'orders:**' --topic '@*'
  fanfare api-key new --name support --scope read --scope users --expires 90d
  fanfare api-key new --name billing --scope publish | jq -r .key";

/// Arguments of `api-key`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct ApiKeyArgs {
    #[command(subcommand)]
    command: ApiKeyCommand,
}

#[derive(Debug, Subcommand)]
enum ApiKeyCommand {
    /// Make a key, and print it with the section to paste into the configuration
    New(NewArgs),
}

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
struct NewArgs {
    /// The client's name, as the audit shows it
    #[arg(long, value_name = "NAME", value_parser = parse_name)]
    name: String,
    /// What it may ask for; may be repeated
    #[arg(long, value_name = "SCOPE", required = true, value_enum)]
    scope: Vec<ScopeArg>,
    /// A pattern of topics that it may name, a user as @USER; may be repeated. Without it: all
    #[arg(long, value_name = "PATTERN", value_parser = parse_pattern)]
    topic: Vec<String>,
    /// Its app; * for all
    #[arg(long, value_name = "APP", default_value = "default", value_parser = parse_app)]
    app: String,
    /// When the key ends: 12h, 90d. Without it: never
    #[arg(long, value_name = "TIME", value_parser = parse_ttl)]
    expires: Option<Duration>,
    /// How to print
    #[arg(long, value_enum, default_value = "auto")]
    format: Format,
}

/// As `--scope` has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ScopeArg {
    /// Publish at once
    Publish,
    /// Read topics, their history and members, and inboxes
    Read,
    /// See users' sessions, end them, revoke tokens
    Users,
    /// The durable queue and its dead letters
    Queue,
    /// Nodes, draining, the audit
    Admin,
}

impl From<ScopeArg> for Scope {
    fn from(scope: ScopeArg) -> Self {
        match scope {
            ScopeArg::Publish => Self::Publish,
            ScopeArg::Read => Self::Read,
            ScopeArg::Users => Self::Users,
            ScopeArg::Queue => Self::Queue,
            ScopeArg::Admin => Self::Admin,
        }
    }
}

/// Why no key was made.
#[derive(Debug, thiserror::Error)]
enum ApiKeyError {
    #[error("a client has at most {PATTERNS_MAX} patterns: give fewer --topic")]
    Patterns,
    #[error("the key would end beyond the year 9999: give a nearer --expires")]
    Far,
}

/// Makes and prints a key.
///
/// # Errors
/// [`Failure`] with the code for usage, where the end lies beyond what a date can say.
pub fn run(args: &ApiKeyArgs) -> Result<Exit, Failure> {
    let ApiKeyCommand::New(args) = &args.command;
    if args.topic.len() > PATTERNS_MAX {
        return Err(Failure::new(Exit::Usage, &ApiKeyError::Patterns));
    }
    let key = new_key();
    let hash = hex(&hash_of(key.as_bytes()));
    let section = section(args, &hash)?;
    if args.format.is_json() {
        let told = json!({"key": key, "key_sha256": hash, "section": section});
        output::line(&told.to_string());
        return Ok(Exit::Done);
    }
    output::line(&format!(
        "The key, which is shown this once; give it to the client:\n\n  {key}\n\n\
         Paste this into the configuration of every node, and reload (SIGHUP):\n\n{section}"
    ));
    Ok(Exit::Done)
}

fn new_key() -> String {
    let bits: [u8; 32] = rand::random();
    PREFIX.to_owned() + &URL_SAFE_NO_PAD.encode(bits)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn section(args: &NewArgs, hash: &str) -> Result<String, Failure> {
    let mut scopes: Vec<Scope> = args.scope.iter().map(|scope| (*scope).into()).collect();
    scopes.sort_unstable_by_key(|scope| *scope as u8);
    scopes.dedup();
    let scopes: Vec<_> = scopes.iter().map(|scope| scope.word()).collect();
    // A text of JSON is one of TOML where it has no escapes, which names and patterns have not.
    let list = |items: &[&str]| json!(items).to_string().replace(',', ", ");
    let mut lines = vec![
        "[[api.clients]]".to_owned(),
        format!("name = {:?}", args.name),
        format!("key_sha256 = {hash:?}"),
        format!("app = {:?}", args.app),
        format!("scopes = {}", list(&scopes)),
    ];
    if !args.topic.is_empty() {
        let topics: Vec<_> = args.topic.iter().map(String::as_str).collect();
        lines.push(format!("topics = {}", list(&topics)));
    }
    if let Some(life) = args.expires {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let end = now.unwrap_or_default() + life;
        lines.push(format!("expires = {}", date(end.as_secs())?));
    }
    Ok(lines.join("\n"))
}

/// A unix second as TOML has dates.
fn date(unix_s: u64) -> Result<String, Failure> {
    let far = || Failure::new(Exit::Usage, &ApiKeyError::Far);
    let seconds = i64::try_from(unix_s).map_err(|_| far())?;
    let date = time::OffsetDateTime::from_unix_timestamp(seconds).map_err(|_| far())?;
    let (year, month, day) = date.to_calendar_date();
    let (hour, minute, second) = date.to_hms();
    let month = u8::from(month);
    Ok(format!(
        "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z"
    ))
}

fn parse_name(text: &str) -> Result<String, String> {
    match NodeId::new(text).is_ok() && text.len() <= NAME_BYTES_MAX && text != KEYS_NAME {
        true => Ok(text.to_owned()),
        false => Err(format!(
            "a name is 1 to {NAME_BYTES_MAX} characters of A-Z a-z 0-9 . _ -, and not {KEYS_NAME}"
        )),
    }
}

fn parse_app(text: &str) -> Result<String, String> {
    match text == "*" || App::new(text).is_ok() {
        true => Ok(text.to_owned()),
        false => Err("an app is 1 to 32 characters of a-z 0-9 _ -, or * for all".to_owned()),
    }
}

fn parse_pattern(text: &str) -> Result<String, String> {
    let is_plain = text
        .bytes()
        .all(|b| b.is_ascii_graphic() && !b"\"\\,".contains(&b));
    match is_plain && !text.is_empty() && pattern::is_sound(text) {
        true => Ok(text.to_owned()),
        false => Err(format!(
            "a pattern has a topic's characters, and {}",
            pattern::SOUND
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_differ_and_are_of_256_bits() {
        let (one, other) = (new_key(), new_key());
        assert_ne!(one, other);
        let bits = URL_SAFE_NO_PAD.decode(&one[PREFIX.len()..]).unwrap();
        assert_eq!(bits.len(), 32);
    }

    #[test]
    fn a_second_is_written_as_toml_has_it() {
        assert_eq!(date(1_798_761_600).unwrap(), "2027-01-01T00:00:00Z");
        assert!(date(1 << 60).is_err());
    }
}
