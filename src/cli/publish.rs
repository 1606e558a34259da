//! `fanfare publish`: one message, or one a line of standard input, through the HTTP API.
//!
//! In: flags and, with `-`, lines. Out: a position per message. How messages are read, sent and told
//! stands in [`super::messages`].

use clap::Args;

use super::exit::{Exit, Failure};
use super::messages::{self, Call, MessageArgs, Times};

/// Arguments of `publish`.
#[derive(Debug, Args)]
#[command(
    allow_missing_positional = true,
    after_help = "\
Examples:
  fanfare publish news 'hello'
  fanfare publish orders:eu '{\"id\":7,\"state\":\"paid\"}' --key order-7 --priority high
  fanfare publish --user alice 'your report is ready'
  fanfare publish --everyone 'maintenance at 18:00'
  fanfare publish news 'hello' --app shop
  tail -f events.jsonl | fanfare publish events -
  fanfare publish news 'hello' --api-url https://api.example.com --api-key KEY

The message is JSON where it can be read as such, and goes out byte for byte; else it is text and
goes out as a JSON string. --json refuses what is no JSON, --text makes a string of everything.

Prints the position of each message. With -, empty lines are left out, --idempotency-key K
becomes K-1, K-2, ... by line, and a line that is not UTF-8, too long or refused is told by its
number: the others are published, and the exit code is 65 or that of the first refusal."
)]
pub struct PublishArgs {
    #[command(flatten)]
    message: MessageArgs,
}

const CALL: Call = Call {
    one: "/v1/publish",
    many: "/v1/batch",
    place: "position",
    done: "published",
    example: "fanfare publish news 'hello'",
};

/// Publishes and prints positions.
///
/// # Errors
/// [`Failure`] when the call was refused or the node cannot be reached. With `-`, refused lines
/// are told and the rest goes on.
pub async fn run(args: PublishArgs) -> Result<Exit, Failure> {
    messages::send(&args.message, CALL, Times::default()).await
}
