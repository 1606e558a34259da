//! `fanfare nodes`: the members of the cluster as one node sees them.
//!
//! In: `GET /v1/nodes`. Out: a table for people, the node's own objects as JSON lines in a pipe. What
//! is known of nodes may be old: each says how old, and whether that is less than a lease.

use clap::Args;
use fanfare_client::http::Api;
use serde_json::Value;

use super::access::{ApiArgs, TlsArgs};
use super::exit::{Exit, Failure};
use super::output::{self, Format};

/// Arguments of `nodes`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  fanfare nodes
  fanfare nodes --api-url http://10.0.0.7:8081 --format json
  fanfare nodes --api-url https://api.example.com --ca company-ca.pem")]
pub struct NodesArgs {
    /// How to print
    #[arg(long, value_enum, default_value = "auto")]
    format: Format,
    #[command(flatten)]
    api: ApiArgs,
    #[command(flatten)]
    tls: TlsArgs,
}

/// Prints the nodes.
///
/// # Errors
/// [`Failure`] when the node cannot be reached or refuses.
pub async fn run(args: NodesArgs) -> Result<Exit, Failure> {
    let tls = args.tls.of(&args.api.api_url);
    let mut api = Api::new(&args.api.options(), &tls)?;
    let answer = api.get("/v1/nodes").await?;
    let nodes = answer["nodes"].as_array().map_or(&[][..], Vec::as_slice);
    if args.format.is_json() {
        for node in nodes {
            output::line(&node.to_string());
        }
        return Ok(Exit::Done);
    }
    let rows: Vec<Vec<String>> = nodes.iter().map(row).collect();
    for line in output::table(&HEAD, &rows) {
        output::line(&line);
    }
    Ok(Exit::Done)
}

const HEAD: [&str; 8] = [
    "node",
    "state",
    "sessions",
    "drained",
    "share",
    "partitions",
    "age",
    "url",
];

fn row(node: &Value) -> Vec<String> {
    let cell = |key: &str| match &node[key] {
        Value::Null => "-".to_owned(),
        value => output::body(value),
    };
    let share = node["share"]
        .as_f64()
        .map_or_else(|| "-".to_owned(), |share| format!("{:.1} %", share * 100.0));
    vec![
        cell("node"),
        cell("state"),
        cell("sessions"),
        drained(node),
        share,
        cell("partitions"),
        age(node),
        cell("url"),
    ]
}

/// How long ago the node that was asked heard that this one has a lease.
fn age(node: &Value) -> String {
    let Some(age_ms) = node["age_ms"].as_u64() else {
        return "-".to_owned();
    };
    let old = match node["fresh"] {
        Value::Bool(false) => ", not fresh",
        _ => "",
    };
    format!("{}.{} s{old}", age_ms / 1_000, age_ms % 1_000 / 100)
}

/// How far a leaving node is: sessions that have gone, of those that it had.
fn drained(node: &Value) -> String {
    let numbers = (node["drain_sessions"].as_u64(), node["sessions"].as_u64());
    let (Some(all), Some(left)) = numbers else {
        return "-".to_owned();
    };
    format!("{}/{all}", all.saturating_sub(left))
}
