//! `fanfare queue`: hand messages to the durable queue, see how it stands, look after dead letters.
//!
//! In: flags and the answers of a node's HTTP API. Out: text for people, one JSON object a line in a
//! pipe; what failed on stderr.

mod call;
mod letters;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::{Args, Subcommand};
use fanfare_client::http::percent_encode;
use serde_json::Value;

use self::call::CallArgs;
use self::letters::{Act, Letters, LettersArgs};
use super::exit::{Exit, Failure};
use super::messages::{self, Call, MessageArgs, Times};
use super::output;
use super::token::parse_ttl;

/// Most letters of one page: what the contract allows.
const PAGE_MAX: u64 = 1_000;

/// Arguments of `queue`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct QueueArgs {
    #[command(subcommand)]
    command: QueueCommand,
}

#[derive(Debug, Subcommand)]
enum QueueCommand {
    /// Have a message published once and in order, or every line of standard input
    #[command(allow_missing_positional = true, after_help = ADD_EXAMPLES)]
    Add(AddArgs),
    /// Show how much waits
    #[command(after_help = DEPTH_EXAMPLES)]
    Depth(DepthArgs),
    /// List what could not be published, with why
    #[command(after_help = DEAD_EXAMPLES)]
    Dead(DeadArgs),
    /// Make entries of dead letters again
    #[command(after_help = REDRIVE_EXAMPLES, override_usage = REDRIVE_USAGE)]
    Redrive(LettersArgs),
    /// Drop dead letters for good
    #[command(after_help = DROP_EXAMPLES, override_usage = DROP_USAGE)]
    Drop(LettersArgs),
}

const EXAMPLES: &str = "\
Examples:
  fanfare queue add orders:7 '{\"state\":\"paid\"}'
  fanfare queue depth
  fanfare queue dead --why expired
  fanfare queue redrive --why failed
  fanfare queue drop --id 45:1732190000000-0";

const ADD_EXAMPLES: &str = "\
Examples:
  fanfare queue add orders:7 '{\"state\":\"paid\"}' --priority high
  fanfare queue add --user alice 'your trial ends' --delay 7d --idempotency-key alice-trial
  fanfare queue add news 'doors open' --expires-at 4102444800000
  tail -f events.jsonl | fanfare queue add events -

The message is JSON where it can be read as such, else text, as with fanfare publish. Prints the name
of each entry. With -, --idempotency-key K becomes K-1, K-2, ... by line, --delay counts from when a
line was read, and a line that is refused is told by its number while the others go on. Lines for
which the queue has no room are sent again, in their order and before later ones, until none was taken
for --wait.";

const DEPTH_EXAMPLES: &str = "\
Examples:
  fanfare queue depth
  fanfare queue depth --partitions
  fanfare queue depth --format json | jq .pressure";

const DEAD_EXAMPLES: &str = "\
Examples:
  fanfare queue dead
  fanfare queue dead --why expired --limit 20
  fanfare queue dead --format json | jq -r .topic";

// With variables of the environment set, those would be told as if the call needed them.
const REDRIVE_USAGE: &str = "fanfare queue redrive <--id <ID>|--why <WHY>|--all> [OPTIONS]";
const DROP_USAGE: &str = "fanfare queue drop <--id <ID>|--why <WHY>|--all> [OPTIONS]";

const REDRIVE_EXAMPLES: &str = "\
Examples:
  fanfare queue redrive --id 45:1732190000000-0
  fanfare queue redrive --why failed
  fanfare queue redrive --all --api-url http://10.0.0.7:8081

A letter that is an entry again stands at the end of its queue, and is no letter any more. Repeating
the command after it was interrupted adds nothing twice.";

const DROP_EXAMPLES: &str = "\
Examples:
  fanfare queue drop --id 45:1732190000000-0 --id 45:1732190000000-1
  fanfare queue drop --why expired
  fanfare queue drop --all

What was dropped cannot be had back.";

#[derive(Debug, Args)]
struct AddArgs {
    #[command(flatten)]
    message: MessageArgs,
    /// Not published before this time, unix milliseconds
    #[arg(long, value_name = "MS", conflicts_with = "delay")]
    not_before: Option<u64>,
    /// Not published before so long from now: 30s, 15m, 1h, 7d
    #[arg(long, value_name = "TIME", value_parser = parse_ttl)]
    delay: Option<Duration>,
    /// Published before this time, unix milliseconds, or not at all
    #[arg(long, value_name = "MS")]
    expires_at: Option<u64>,
    /// With -: how long lines wait for room in the queue while none is taken: 30s, 15m, 0s
    #[arg(long, value_name = "TIME", value_parser = parse_ttl, default_value = "60s")]
    wait: Duration,
}

#[derive(Debug, Args)]
struct DepthArgs {
    /// Ask Redis, and list every partition in which anything is
    #[arg(long)]
    partitions: bool,
    #[command(flatten)]
    call: CallArgs,
}

#[derive(Debug, Args)]
struct DeadArgs {
    /// Only those that died of this
    #[arg(long, value_parser = call::WHY)]
    why: Option<String>,
    /// Most letters to list; without it all
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    #[command(flatten)]
    call: CallArgs,
}

const ADD: Call = Call {
    one: "/v1/queue",
    many: "/v1/queue",
    place: "entry",
    done: "enqueued",
    example: "fanfare queue add orders:7 'hello'",
};

/// Runs the command.
///
/// # Errors
/// [`Failure`] when the node cannot be reached or refuses.
pub async fn run(args: QueueArgs) -> Result<Exit, Failure> {
    match args.command {
        QueueCommand::Add(args) => {
            let times = Times {
                not_before: args.not_before,
                delay: args.delay,
                expires_at: args.expires_at,
                patience: Some(args.wait).filter(|wait| !wait.is_zero()),
            };
            messages::send(&args.message, ADD, times).await
        }
        QueueCommand::Depth(args) => depth(&args).await,
        QueueCommand::Dead(args) => dead(&args).await,
        QueueCommand::Redrive(args) => Letters::new(&args, Act::Redrive)?.run().await,
        QueueCommand::Drop(args) => Letters::new(&args, Act::Drop)?.run().await,
    }
}

async fn depth(args: &DepthArgs) -> Result<Exit, Failure> {
    let path = match args.partitions {
        true => "/v1/queue?partitions=true",
        false => "/v1/queue",
    };
    let answer = args.call.api()?.get(path).await?;
    if args.call.format.is_json() {
        output::line(&answer.to_string());
        return Ok(call::told_partitions(&answer));
    }
    let rows = [
        ("due", output::body(&answer["depth"])),
        ("  critical", output::body(&answer["due"]["critical"])),
        ("  high", output::body(&answer["due"]["high"])),
        ("  normal", output::body(&answer["due"]["normal"])),
        ("  low", output::body(&answer["due"]["low"])),
        ("delayed", output::body(&answer["delayed"])),
        ("dead", output::body(&answer["dead"])),
        ("oldest", age(&answer["oldest_ms"])),
        ("capacity", output::body(&answer["capacity"])),
        ("pressure", output::body(&answer["pressure"])),
        ("durable", output::body(&answer["durable"])),
    ];
    let rows = rows.map(|(name, value)| vec![name.to_owned(), value]);
    for line in output::table(&["queue", ""], &rows) {
        output::line(&line);
    }
    if let Some(partitions) = answer["partitions"].as_array() {
        output::line("");
        let rows: Vec<Vec<String>> = partitions.iter().map(partition_row).collect();
        for line in output::table(&PARTITION_HEAD, &rows) {
            output::line(&line);
        }
    }
    Ok(call::told_partitions(&answer))
}

const PARTITION_HEAD: [&str; 9] = [
    "partition",
    "due",
    "critical",
    "high",
    "normal",
    "low",
    "delayed",
    "dead",
    "oldest",
];

fn partition_row(partition: &Value) -> Vec<String> {
    let due = &partition["due"];
    vec![
        output::body(&partition["partition"]),
        output::body(&partition["depth"]),
        output::body(&due["critical"]),
        output::body(&due["high"]),
        output::body(&due["normal"]),
        output::body(&due["low"]),
        output::body(&partition["delayed"]),
        output::body(&partition["dead"]),
        age(&partition["oldest_ms"]),
    ]
}

fn age(ms: &Value) -> String {
    ms.as_u64().map_or_else(|| "-".to_owned(), age_of)
}

/// In the unit that people would take.
fn age_of(ms: u64) -> String {
    match ms / 1_000 {
        seconds @ 0..60 => format!("{seconds}.{} s", ms % 1_000 / 100),
        seconds @ 60..3_600 => format!("{} min", seconds / 60),
        seconds @ 3_600..86_400 => format!("{} h", seconds / 3_600),
        seconds => format!("{} d", seconds / 86_400),
    }
}

const DEAD_HEAD: [&str; 6] = ["id", "why", "priority", "topic", "age", "error"];

async fn dead(args: &DeadArgs) -> Result<Exit, Failure> {
    let mut api = args.call.api()?;
    let is_json = args.call.format.is_json();
    let mut left = args.limit.unwrap_or(u64::MAX);
    let mut after: Option<String> = None;
    let mut exit = Exit::Done;
    while left > 0 {
        let mut path = format!("/v1/queue/dead?limit={}", left.min(PAGE_MAX));
        if let Some(why) = &args.why {
            path.push_str(&format!("&why={why}"));
        }
        if let Some(after) = &after {
            path.push_str(&format!("&after={}", percent_encode(after)));
        }
        let page = api.get(&path).await?;
        let told = call::told_partitions(&page);
        if exit == Exit::Done {
            exit = told;
        }
        if page["durable"] == false && after.is_none() {
            output::note(messages::FLEETING);
        }
        let letters = page["letters"].as_array().map_or(&[][..], Vec::as_slice);
        if is_json {
            letters
                .iter()
                .for_each(|one| output::line(&one.to_string()));
        } else if !letters.is_empty() || after.is_none() {
            let rows: Vec<Vec<String>> = letters.iter().map(letter_row).collect();
            let lines = output::table(&DEAD_HEAD, &rows);
            lines.iter().for_each(|line| output::line(line));
        }
        left = left.saturating_sub(letters.len() as u64);
        // A node of an older release has no `next`.
        let last = letters.last().map(|last| &last["id"]);
        let next = page["next"].as_str().or_else(|| last?.as_str());
        after = next.map(str::to_owned);
        if page["more"] != true || after.is_none() {
            break;
        }
    }
    Ok(exit)
}

fn letter_row(letter: &Value) -> Vec<String> {
    let cell = |key: &str| match &letter[key] {
        Value::Null => "-".to_owned(),
        value => output::body(value),
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now_ms = now.map_or(0, |now| u64::try_from(now.as_millis()).unwrap_or(u64::MAX));
    let accepted = letter["accepted"].as_u64();
    let age_ms = accepted.map(|accepted| now_ms.saturating_sub(accepted));
    vec![
        cell("id"),
        cell("why"),
        cell("priority"),
        cell("topic"),
        age_ms.map_or_else(|| "-".to_owned(), age_of),
        cell("error"),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_is_told_in_the_unit_that_people_would_take() {
        let rows = [
            (0, "0.0 s"),
            (59_999, "59.9 s"),
            (60_000, "1 min"),
            (7_199_999, "1 h"),
            (172_800_000, "2 d"),
        ];
        for (ms, told) in rows {
            assert_eq!(age_of(ms), told);
        }
    }
}
