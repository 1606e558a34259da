//! `fanfare redis`: what is kept in Redis about the cluster itself.
//!
//! In: the flags of `serve`, the environment, the file. Out: one line of text or JSON on standard
//! output; what was refused, and why, on standard error.

use clap::{Args, Subcommand};
use serde_json::json;

use super::exit::{Exit, Failure};
use super::output::{self, Format};
use super::serve_flags::ServeFlags;
use crate::broker::redis::adoption::{self, AdoptError, Adopted};
use crate::config::load::load;

/// Arguments of `fanfare redis`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct RedisArgs {
    #[command(subcommand)]
    command: RedisCommand,
}

#[derive(Debug, Subcommand)]
enum RedisCommand {
    /// Make this configuration the one that all nodes must have, while no node runs
    #[command(after_help = EXAMPLES)]
    Adopt(AdoptArgs),
}

#[derive(Debug, Args)]
struct AdoptArgs {
    #[command(flatten)]
    serve: ServeFlags,
    /// How to print
    #[arg(long, value_enum, default_value = "auto")]
    format: Format,
    /// No node runs, although the deployment that could show it is not listed any more
    #[arg(long)]
    all_stopped: bool,
}

const EXAMPLES: &str = "\
Examples:
  fanfare redis adopt --config fanfare.toml
  fanfare redis adopt --config fanfare.toml --all-stopped

Where topics are follows from redis.url, redis.shards and redis.partitions, so all nodes must have
the same; a node that differs exits 64. To change them: stop all nodes, run this with the new
configuration, start them with it. Topics that have another partition or deployment then begin anew
there, without their history.

Exit codes: 0 done, 1 nodes are running, 64 configuration, 69 Redis cannot be used.";

/// Runs the command.
///
/// # Errors
/// [`Failure`]: nodes live, Redis is away, or the configuration is wrong.
pub async fn run(args: RedisArgs) -> Result<Exit, Failure> {
    let RedisCommand::Adopt(args) = args.command;
    let loaded = match load(&args.serve.into_inputs()) {
        Ok(loaded) => loaded,
        Err(faults) => {
            output::note(&faults.to_string());
            return Ok(Exit::Usage);
        }
    };
    if loaded.config.redis.url.is_none() {
        output::note("fanfare: redis.url is not set, so there is nothing to agree on");
        return Ok(Exit::Usage);
    }
    let adopted = adoption::adopt(&loaded.config.redis, args.all_stopped).await;
    let adopted = adopted.map_err(failure)?;
    output::line(&if args.format.is_json() {
        json(&adopted)
    } else {
        text(&adopted)
    });
    Ok(Exit::Done)
}

fn failure(error: AdoptError) -> Failure {
    match &error {
        AdoptError::Living(_) => Failure::new(Exit::Refused, &error)
            .hint("stop them first; then every node is started anew"),
        AdoptError::Elsewhere { .. } => Failure::new(Exit::Refused, &error)
            .hint("make sure that all are stopped, and repeat it with --all-stopped"),
        AdoptError::Layout { .. } => Failure::new(Exit::Usage, &error)
            .hint("give the nodes of this release another redis.prefix"),
        AdoptError::Start(_) => Failure::new(Exit::Usage, &error),
        AdoptError::Away(_) | AdoptError::Redis(_) => Failure::new(Exit::Unreachable, &error),
    }
}

fn json(adopted: &Adopted) -> String {
    json!({
        "deployments": adopted.deployments,
        "changed": !adopted.is_unchanged,
        "differences": adopted.differences,
    })
    .to_string()
}

fn text(adopted: &Adopted) -> String {
    let names = adopted.deployments.join(", ");
    if adopted.is_unchanged {
        return format!("unchanged: {names}");
    }
    let mut text = format!("adopted: {names}");
    for difference in &adopted.differences {
        text.push_str(&format!("\n  before, {difference}"));
    }
    text
}
