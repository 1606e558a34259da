//! `fanfare publish`: one message, or one a line of standard input, through the HTTP API.
//!
//! In: flags and, with `-`, lines read by a thread of its own. Out: a position per message on
//! stdout, refusals on stderr. Order: lines are published in the order read; what was read while
//! one batch was on its way makes the next, so at most one batch is under way.
//! Bounds: [`BATCH_ITEMS_MAX`] lines wait, then reading waits; a line over [`LINE_BYTES_MAX`]
//! ends the command.

use std::io::{BufRead, Read};

use clap::Args;
use serde_json::{Map, Value, json};
use tokio::sync::mpsc;

use super::exit::{Exit, Failure};
use super::http::{Api, ApiArgs, ApiError};
use super::output::{self, Format};
use crate::protocol::ids::Priority;

/// Most messages of one batch: what the contract allows.
const BATCH_ITEMS_MAX: usize = 1_000;
/// A batch takes no further message from here on. With a longest line on top it stays under the
/// 8 MiB that the API takes by default.
const BATCH_BYTES_MAX: usize = 2 << 20;
/// Longest line of standard input.
const LINE_BYTES_MAX: u64 = 4 << 20;

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
  tail -f events.jsonl | fanfare publish events -

Prints the position of each message. With -, empty lines are left out, and
--idempotency-key K becomes K-1, K-2, ... by line."
)]
pub struct PublishArgs {
    /// The topic
    // Without this a negative number as the message is taken for a flag.
    #[arg(group = "target", allow_negative_numbers = true)]
    topic: Option<String>,
    /// The message: JSON, or else text; - reads one message a line
    #[arg(allow_negative_numbers = true)]
    data: String,
    /// Publish to the inbox of this user
    #[arg(long, group = "target", value_name = "NAME")]
    user: Option<String>,
    /// Publish to every session
    #[arg(long, group = "target")]
    everyone: bool,
    /// What may overtake what
    #[arg(long, value_name = "critical|high|normal|low", value_parser = parse_priority)]
    priority: Option<Priority>,
    /// What the message is about
    #[arg(long)]
    key: Option<String>,
    /// Publishing twice with the same key publishes once
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
    /// The message is worth nothing after so many milliseconds
    #[arg(long)]
    ttl_ms: Option<u64>,
    /// How to print positions
    #[arg(long, value_enum, default_value = "auto")]
    format: Format,
    #[command(flatten)]
    api: ApiArgs,
}

/// Why standard input was not read to its end.
#[derive(Debug, thiserror::Error)]
enum InputError {
    #[error("give a TOPIC, --user or --everyone")]
    NoTarget,
    #[error("cannot read standard input")]
    Read(#[source] std::io::Error),
    #[error("line {0} is longer than {LINE_BYTES_MAX} bytes")]
    LineTooLong(u64),
}

/// Publishes and prints positions.
///
/// # Errors
/// [`Failure`] when the call was refused or the node cannot be reached. With `-`, refused lines
/// are told and the rest goes on.
pub async fn run(args: PublishArgs) -> Result<Exit, Failure> {
    if args.topic.is_none() && args.user.is_none() && !args.everyone {
        return Err(Failure::new(Exit::Usage, &InputError::NoTarget)
            .hint("for example: fanfare publish news 'hello'"));
    }
    let api = Api::new(&args.api)?;
    if args.data == "-" {
        return publish_lines(&args, &api).await;
    }
    let body = publication(&args, &args.data, args.idempotency_key.clone());
    let answer = api.post("/v1/publish", &body).await?;
    Ok(print(&args, &answer, None))
}

async fn publish_lines(args: &PublishArgs, api: &Api) -> Result<Exit, Failure> {
    let mut lines = read_lines().map_err(Failure::runtime)?;
    let mut exit = Exit::Done;
    while let Some(first) = lines.recv().await {
        let mut batch = Vec::new();
        let mut numbers = Vec::new();
        let mut bytes = 0;
        let mut next = Some(first);
        while let Some(line) = next.take() {
            let line = line.map_err(|error| Failure::new(Exit::Refused, &error))?;
            let key = args.idempotency_key.as_ref();
            let key = key.map(|key| format!("{key}-{}", line.number));
            let body = publication(args, &line.text, key);
            bytes += body.to_string().len();
            batch.push(body);
            numbers.push(line.number);
            if batch.len() < BATCH_ITEMS_MAX && bytes < BATCH_BYTES_MAX {
                next = lines.try_recv().ok();
            }
        }
        let answer = api.post("/v1/batch", &Value::Array(batch)).await;
        let answer = answer.map_err(|error| lost_batch(error, &numbers))?;
        let results = answer["results"].as_array().map_or(&[][..], Vec::as_slice);
        for (number, result) in numbers.iter().zip(results) {
            let line_exit = print(args, result, Some(*number));
            if exit == Exit::Done {
                exit = line_exit;
            }
        }
    }
    Ok(exit)
}

/// A batch without an answer may have been published or not: say which lines.
fn lost_batch(error: ApiError, numbers: &[u64]) -> Failure {
    let refused = matches!(error, ApiError::Refused { .. });
    if let (false, Some(first), Some(last)) = (refused, numbers.first(), numbers.last()) {
        output::note(&format!(
            "fanfare: lines {first} to {last} may or may not have been published"
        ));
    }
    error.into()
}

/// One line of standard input, counted from 1.
struct Line {
    number: u64,
    text: String,
}

/// Reads lines on a thread of its own, because reading a terminal or a pipe blocks.
fn read_lines() -> std::io::Result<mpsc::Receiver<Result<Line, InputError>>> {
    let (sender, receiver) = mpsc::channel(BATCH_ITEMS_MAX);
    std::thread::Builder::new()
        .name("stdin".to_owned())
        .spawn(move || {
            let mut input = std::io::stdin().lock();
            for number in 1.. {
                let line = match read_line(&mut input, number) {
                    Ok(None) => return,
                    Ok(Some(text)) if text.is_empty() => continue,
                    Ok(Some(text)) => Ok(Line { number, text }),
                    Err(error) => Err(error),
                };
                let is_last = line.is_err();
                // A closed channel means that the command has ended.
                if sender.blocking_send(line).is_err() || is_last {
                    return;
                }
            }
        })?;
    Ok(receiver)
}

fn read_line(input: &mut impl BufRead, number: u64) -> Result<Option<String>, InputError> {
    let mut text = String::new();
    let read = input
        .take(LINE_BYTES_MAX + 1)
        .read_line(&mut text)
        .map_err(InputError::Read)?;
    if read as u64 > LINE_BYTES_MAX {
        return Err(InputError::LineTooLong(number));
    }
    let end = text.trim_end_matches(['\r', '\n']).len();
    text.truncate(end);
    Ok((read > 0).then_some(text))
}

/// The body of one publication.
fn publication(args: &PublishArgs, data: &str, idempotency_key: Option<String>) -> Value {
    let mut body = Map::new();
    if let Some(topic) = &args.topic {
        body.insert("topic".to_owned(), topic.as_str().into());
    } else if let Some(user) = &args.user {
        body.insert("user".to_owned(), user.as_str().into());
    } else {
        body.insert("everyone".to_owned(), true.into());
    }
    let data = serde_json::from_str(data).unwrap_or_else(|_| data.into());
    body.insert("data".to_owned(), data);
    let options = [
        ("priority", args.priority.map(|priority| json!(priority))),
        ("key", args.key.as_deref().map(Value::from)),
        ("idempotency_key", idempotency_key.map(Value::from)),
        ("ttl_ms", args.ttl_ms.map(Value::from)),
    ];
    for (name, value) in options {
        if let Some(value) = value {
            body.insert(name.to_owned(), value);
        }
    }
    Value::Object(body)
}

/// Prints what became of one publication and says which exit code that means.
fn print(args: &PublishArgs, answer: &Value, line: Option<u64>) -> Exit {
    // One target, so one result; an item of a batch that could not be read has only an error.
    let result = answer["results"].get(0).unwrap_or(answer);
    if args.format.is_json() {
        output::line(&result.to_string());
    } else if let Some(position) = result["position"].as_str() {
        let target = target(args);
        let duplicate = if result["duplicate"] == true {
            " (published before)"
        } else {
            ""
        };
        output::line(&format!(
            "{} {}{duplicate}",
            output::printable(&target),
            output::printable(position)
        ));
    }
    let error = &result["error"];
    if error.is_null() {
        return Exit::Done;
    }
    let place = line.map_or(String::new(), |number| format!("line {number}: "));
    let text = |key: &str| output::printable(error[key].as_str().unwrap_or("?")).into_owned();
    output::note(&format!(
        "fanfare: {place}{}: {}",
        text("code"),
        text("message")
    ));
    Exit::by_error_code(error["code"].as_str().unwrap_or_default())
}

fn target(args: &PublishArgs) -> String {
    match (&args.topic, &args.user) {
        (Some(topic), _) => topic.clone(),
        (None, Some(user)) => format!("@{user}"),
        (None, None) => "@".to_owned(),
    }
}

fn parse_priority(text: &str) -> Result<Priority, String> {
    serde_json::from_value(text.into())
        .map_err(|_| "a priority is critical, high, normal or low".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_ends_at_its_break_and_has_a_bound() {
        let mut input = &b"one\r\n\n two \nlast"[..];
        let mut next = || read_line(&mut input, 1).expect("readable");
        assert_eq!(next().as_deref(), Some("one"));
        assert_eq!(next().as_deref(), Some(""));
        assert_eq!(next().as_deref(), Some(" two "));
        assert_eq!(next().as_deref(), Some("last"));
        assert_eq!(next(), None);

        let long = vec![b'x'; usize::try_from(LINE_BYTES_MAX).expect("fits") + 1];
        assert!(matches!(
            read_line(&mut &long[..], 7),
            Err(InputError::LineTooLong(7))
        ));
    }
}
