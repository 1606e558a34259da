//! `fanfare revoke`: tokens that no node takes any more, through the HTTP API.
//!
//! In: a user, names of tokens, or all. Out: what is refused and which nodes have not said so yet, for
//! people as text and in a pipe as the node's own object. Bound: one call.

use clap::Args;
use fanfare_client::http::{Api, percent_encode};
use serde_json::{Map, Value};

use super::access::{ApiArgs, AppArgs, TlsArgs};
use super::exit::{Exit, Failure};
use super::output::{self, Format};

/// Arguments of `revoke`.
#[derive(Debug, Args)]
#[command(
    after_help = "\
Examples:
  fanfare revoke --user alice
  fanfare revoke --user alice --issued-before 1732190000
  fanfare revoke --jti 4f1c --jti 77ab
  fanfare revoke --user alice --app shop
  fanfare revoke --all --api-url https://api.example.com --api-key KEY

Sessions that were opened with such a token end (4002), and topics that were joined with one are
left. Tokens that are issued later are taken: whoever must not get one must be refused where tokens
are issued. What was revoked is never taken back.

Exit code 0 also where some nodes have not said yet that they refuse the tokens; they are named on
stderr. They do as soon as they reach Redis. One that does not reach it takes no token from some
seconds on, and one of a release without revocation goes on taking them.",
    group(clap::ArgGroup::new("which").required(true))
)]
pub struct RevokeArgs {
    /// All tokens of this user
    #[arg(long, value_name = "NAME", group = "which")]
    user: Option<String>,
    /// The token of this name (claim "jti"); may be repeated, up to 100 times
    #[arg(long, value_name = "JTI", group = "which")]
    jti: Vec<String>,
    /// All tokens of everybody in the app
    #[arg(long, group = "which")]
    all: bool,
    /// Of these, those issued (claim "iat") before this unix second; by default all that may have
    /// been so far, with --jti whenever it was
    #[arg(long, value_name = "SECONDS")]
    issued_before: Option<u64>,
    /// How to print
    #[arg(long, value_enum, default_value = "auto")]
    format: Format,
    #[command(flatten)]
    app: AppArgs,
    #[command(flatten)]
    api: ApiArgs,
    #[command(flatten)]
    tls: TlsArgs,
}

/// Revokes and prints what is refused.
///
/// # Errors
/// [`Failure`] when the node cannot be reached or refuses.
pub async fn run(args: RevokeArgs) -> Result<Exit, Failure> {
    let tls = args.tls.of(&args.api.api_url);
    let mut api = args.app.of(Api::new(&args.api.options(), &tls)?)?;
    let mut body = Map::new();
    if let Some(second) = args.issued_before {
        body.insert("issued_before".to_owned(), second.into());
    }
    let path = match &args.user {
        Some(user) => format!("/v1/users/{}/revoke", percent_encode(user)),
        None => "/v1/revoke".to_owned(),
    };
    if args.all {
        body.insert("all".to_owned(), true.into());
    } else if !args.jti.is_empty() {
        body.insert("jti".to_owned(), args.jti.clone().into());
    }
    let answer = api.post(&path, Value::Object(body).to_string()).await?;
    let waiting = answer["waiting"].as_array().map_or(&[][..], Vec::as_slice);
    if args.format.is_json() {
        output::line(&answer.to_string());
    } else {
        output::line(&told(&args, &answer));
    }
    if !waiting.is_empty() {
        let nodes: Vec<_> = waiting.iter().filter_map(Value::as_str).collect();
        let nodes = nodes.join(", ");
        output::note(&format!(
            "not read yet by: {}; within some seconds they refuse these, or take no token until they have read",
            output::printable(&nodes)
        ));
    }
    Ok(Exit::Done)
}

fn told(args: &RevokeArgs, answer: &Value) -> String {
    let which = match (&args.user, args.all) {
        (Some(user), _) => format!("tokens of {}", output::printable(user)),
        (None, true) => "all tokens".to_owned(),
        (None, false) => format!("tokens by name: {}", args.jti.len()),
    };
    let before = answer["issued_before"].as_u64();
    let before = before.map_or_else(String::new, |at| format!(" issued before {at}"));
    let sessions = answer["sessions"].as_u64();
    let sessions = sessions.map_or_else(String::new, |count| format!(", sessions: {count}"));
    format!("revoked {which}{before}{sessions}")
}
