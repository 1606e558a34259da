//! `fanfare plan`: how many nodes and masters of Redis a load needs, before there are any.
//!
//! In: flags. Out: a table for people, one JSON object in a pipe. It asks nobody: [`model`] counts
//! by what [`costs`] measured, and `docs/capacity.md` says how and where that ends.

pub mod costs;
mod input;
pub mod model;
mod text;

use clap::Args;
use serde_json::json;

use self::input::{Input, SIZES};
use super::exit::{Exit, Failure};
use super::output::{self, Format};

const EXAMPLES: &str = "\
Examples:
  fanfare plan --users 10k --topics 500 --rate 200
  fanfare plan --users 1M --topics 20k --rate 5k --fanout 50 --size large
  fanfare plan --users 20M --topics 1M --rate 20k --node-sessions 50k --node-cores 8 --node-memory 16384
  fanfare plan --users 10k --topics 1 --rate 10 --fanout 10k --format json | jq .nodes

A count is a whole number, or one with k, M or G behind it for thousands, millions or billions. The
plan counts with means: users and publications are spread evenly over topics. docs/capacity.md says
what it leaves out.

Exit codes: 0 there is a plan, 1 no number of nodes or masters is enough, 64 usage.";

/// Arguments of `plan`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct PlanArgs {
    /// Users that are connected at once, each with one session and an inbox
    #[arg(long, value_name = "N", value_parser = input::users)]
    users: u64,
    /// Topics in use at once, beside inboxes
    #[arg(long, value_name = "N", value_parser = input::topics)]
    topics: u64,
    /// Publications a second, all topics and inboxes together
    #[arg(long, value_name = "MESSAGES_PER_S", value_parser = input::rate)]
    rate: u64,
    /// Sessions that a publication goes to [default: users divided by topics, rounded up]
    #[arg(long, value_name = "N", value_parser = input::fanout)]
    fanout: Option<u64>,
    /// Length of a publication's data in bytes
    #[arg(long, value_name = "N", default_value = "200", value_parser = input::bytes)]
    bytes: u64,
    /// Publications that a topic keeps (history_entries_max)
    #[arg(long, value_name = "N", default_value = "1000", value_parser = input::entries)]
    history: u64,
    /// How long a topic keeps them: 30s, 15m, 1h, 7d (history_age_s)
    #[arg(long, value_name = "TIME", default_value = "1d", value_parser = input::time)]
    history_age: u64,
    /// Messages that an inbox keeps
    #[arg(long, value_name = "N", default_value = "10", value_parser = input::entries)]
    inbox: u64,
    /// How long a session lasts before it comes anew: 30s, 15m, 1h, 7d
    #[arg(long, value_name = "TIME", default_value = "30m", value_parser = input::time)]
    session: u64,
    /// How many of a hundred publications go by the durable queue
    #[arg(long, value_name = "PERCENT", default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=100))]
    queued: u8,
    /// Nodes of this size of the chart: sessions, cores, memory and cache
    #[arg(long, default_value = "enterprise", value_parser = SIZES.map(|size| size.name))]
    size: String,
    /// Most sessions of a node (server.connections_max), instead of the size's
    #[arg(long, value_name = "N", value_parser = input::node_sessions)]
    node_sessions: Option<u64>,
    /// Cores of a node, instead of the size's: 0.5, 4
    #[arg(long, value_name = "CORES", value_parser = input::cores)]
    node_cores: Option<f64>,
    /// Memory of a node in MiB, instead of the size's
    #[arg(long, value_name = "MIB", value_parser = input::mebibytes)]
    node_memory: Option<u64>,
    /// Memory of a master of Redis in MiB (maxmemory)
    #[arg(long, value_name = "MIB", default_value = "16384", value_parser = input::mebibytes)]
    redis_memory: u64,
    /// Network of each machine in Mbit a second, one way
    #[arg(long, value_name = "MBIT", default_value = "1000", value_parser = input::megabits)]
    network: u64,
    /// How to print
    #[arg(long, value_enum, default_value = "auto")]
    format: Format,
}

/// Prints what the load needs.
///
/// # Errors
/// [`Failure`] where flags contradict each other, and where nothing is enough.
pub fn run(args: &PlanArgs) -> Result<Exit, Failure> {
    let input = Input::of(args).map_err(|error| {
        let failure = Failure::new(Exit::Usage, &error);
        failure.hint(error.hint())
    })?;
    let plan = model::plan(&input.demand, &input.machines).map_err(|error| {
        let failure = Failure::new(Exit::Refused, &error);
        failure.hint(text::hint(error))
    })?;
    let warnings = text::warnings(&input, &plan);
    if args.format.is_json() {
        let all = json!({
            "demand": input.demand,
            "machines": input.machines,
            "plan": plan,
            "warnings": warnings,
        });
        output::line(&all.to_string());
        return Ok(Exit::Done);
    }
    for line in text::lines(&input, &plan, &warnings) {
        output::line(&line);
    }
    Ok(Exit::Done)
}
