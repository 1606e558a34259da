//! Messages on their way to the HTTP API, to be published at once or by the queue: one, or one a line
//! of standard input.
//!
//! In: flags and, with `-`, lines ([`super::lines`]). Out: a position or an entry per message on
//! stdout, refusals and bad lines on stderr, each with its number. JSON goes out byte for byte as it
//! was given. Order: lines are sent in the order read; what was read while one batch was on its way
//! makes the next, so at most one batch is under way. A line that cannot be sent, or is refused, holds
//! up no other; one for which the queue has no room is sent again before any later one.

use std::io::IsTerminal as _;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clap::Args;
use fanfare_client::http::{Api, ApiError};
use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::access::{ApiArgs, AppArgs, TlsArgs};
use super::exit::{Exit, Failure};
use super::lines::{self, InputError};
use super::output::{self, Format};
use fanfare_protocol::ids::Priority;

/// Most messages of one batch: what the contract allows.
const BATCH_ITEMS_MAX: usize = 1_000;
/// A batch takes no further message from here on. With a longest line on top it stays under the
/// 8 MiB that the API takes by default.
const BATCH_BYTES_MAX: usize = 2 << 20;

/// After so long lines are sent again where the node does not say.
const SOON_MS: u64 = 1_000;
/// What people are told of a queue that ends with its node.
pub const FLEETING: &str =
    "fanfare: this node runs without Redis: its queue ends with it (durable: false)";

/// A message, where it goes, and which node takes it.
#[derive(Debug, Args)]
pub struct MessageArgs {
    /// The topic
    // Without this a negative number as the message is taken for a flag.
    #[arg(group = "target", allow_negative_numbers = true)]
    topic: Option<String>,
    /// The message: JSON, or else text; - reads one message a line
    #[arg(allow_negative_numbers = true)]
    data: String,
    /// The message must be JSON
    #[arg(long, conflicts_with = "text")]
    json: bool,
    /// The message is text, whatever it looks like
    #[arg(long)]
    text: bool,
    /// For the inbox of this user
    #[arg(long, group = "target", value_name = "NAME")]
    user: Option<String>,
    /// For every session
    #[arg(long, group = "target")]
    everyone: bool,
    /// What may overtake what
    #[arg(long, value_name = "critical|high|normal|low", value_parser = parse_priority)]
    priority: Option<Priority>,
    /// What the message is about
    #[arg(long)]
    key: Option<String>,
    /// Sending it twice with the same key publishes it once
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
    /// The message is worth nothing after so many milliseconds
    #[arg(long)]
    ttl_ms: Option<u64>,
    /// How to print what became of it
    #[arg(long, value_enum, default_value = "auto")]
    format: Format,
    #[command(flatten)]
    app: AppArgs,
    #[command(flatten)]
    api: ApiArgs,
    #[command(flatten)]
    tls: TlsArgs,
}

/// What is different between the calls that take messages.
#[derive(Debug, Clone, Copy)]
pub struct Call {
    /// Where one message goes.
    pub one: &'static str,
    /// Where a list of them goes.
    pub many: &'static str,
    /// What the answer calls the place of a message.
    pub place: &'static str,
    /// What became of it, in a word.
    pub done: &'static str,
    /// How it is called, for who names no target.
    pub example: &'static str,
}

/// When the queue publishes a message, and how long a line waits for room in it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Times {
    /// Not before this time, unix milliseconds.
    pub not_before: Option<u64>,
    /// Not before so long after it was read.
    pub delay: Option<Duration>,
    /// Before this time, unix milliseconds.
    pub expires_at: Option<u64>,
    /// So long lines for which there is no room are sent again while none is taken; `None`: once.
    pub patience: Option<Duration>,
}

impl Times {
    fn not_before(&self) -> Option<u64> {
        let delay_ms = self.delay?.as_millis();
        let now_ms = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .ok()?
            .as_millis();
        u64::try_from(now_ms.saturating_add(delay_ms)).ok()
    }
}

/// Why there is nothing to publish.
#[derive(Debug, thiserror::Error)]
enum MessageError {
    #[error("give a TOPIC, --user or --everyone")]
    NoTarget,
    #[error("the message is no JSON")]
    NotJson(#[source] serde_json::Error),
    #[error("no line found room for {0} s")]
    NoRoom(u64),
    #[error("the node answered {answered} of {asked} messages")]
    AnswersMissing { asked: usize, answered: usize },
}

/// Sends what the arguments say and prints what became of it.
///
/// # Errors
/// [`Failure`] when the call was refused or the node cannot be reached. With `-`, refused lines
/// are told and the rest goes on.
pub async fn send(args: &MessageArgs, call: Call, times: Times) -> Result<Exit, Failure> {
    if args.topic.is_none() && args.user.is_none() && !args.everyone {
        return Err(Failure::new(Exit::Usage, &MessageError::NoTarget)
            .hint(format!("for example: {}", call.example)));
    }
    let api = Api::new(&args.api.options(), &args.tls.of(&args.api.api_url))?;
    let mut api = args.app.of(api)?;
    let mut sender = Sender {
        args,
        call,
        times,
        is_read: true,
        is_warned: false,
        is_fleeting: false,
        done: 0,
        exit: Exit::Done,
    };
    if args.data == "-" {
        sender.lines(&mut api).await?;
        return Ok(sender.exit);
    }
    let key = args.idempotency_key.clone();
    let body = sender.body(&args.data, key, None);
    let body = body.map_err(|error| Failure::new(Exit::Data, &error))?;
    let answer = api.post(call.one, body).await?;
    sender.warn_of_fleeting(&answer);
    sender.told(&answer, None);
    Ok(sender.exit)
}

/// One run of the command.
struct Sender<'a> {
    args: &'a MessageArgs,
    call: Call,
    times: Times,
    /// Whether anybody reads what is printed. Whoever reads only the first, as `head` does, stops
    /// no message.
    is_read: bool,
    /// Whether it was told that something which looks like JSON is none.
    is_warned: bool,
    /// Whether it was told that what the node has ends with it.
    is_fleeting: bool,
    /// Lines that the node took.
    done: u64,
    /// The code of the first line that failed.
    exit: Exit,
}

/// A line on its way.
struct Item {
    number: u64,
    body: String,
}

impl Sender<'_> {
    async fn lines(&mut self, api: &mut Api) -> Result<(), Failure> {
        let mut lines = lines::of_stdin().map_err(Failure::runtime)?;
        let mut ended = None;
        while let Some(first) = lines.recv().await {
            let (mut items, mut bytes) = (Vec::new(), 0);
            let mut next = Some(first);
            while let Some(line) = next.take() {
                match line {
                    Ok(line) => {
                        if let Some(body) = self.item(line.number, &line.text) {
                            bytes += body.len();
                            let number = line.number;
                            items.push(Item { number, body });
                        }
                    }
                    Err(error @ InputError::Read(_)) => ended = Some(error),
                    Err(error) => self.bad(&error),
                }
                if items.len() < BATCH_ITEMS_MAX && bytes < BATCH_BYTES_MAX {
                    next = lines.try_recv().ok();
                }
            }
            if !items.is_empty() {
                self.batches(api, items).await?;
            }
        }
        ended.map_or(Ok(()), |error| Err(Failure::new(Exit::Io, &error)))
    }

    /// The body of one line; `None` where it was told that it cannot be published.
    fn item(&mut self, number: u64, text: &str) -> Option<String> {
        let key = self.args.idempotency_key.as_ref();
        let key = key.map(|key| format!("{key}-{number}"));
        match self.body(text, key, Some(number)) {
            Ok(body) => Some(body),
            Err(error) => {
                let failure = Failure::new(Exit::Data, &error);
                output::note(&format!("fanfare: line {number}: {}", failure.text()));
                self.failed(Exit::Data);
                None
            }
        }
    }

    /// Sends lines, and those for which there was no room again, before any later one, so that the
    /// order stays.
    async fn batches(&mut self, api: &mut Api, mut items: Vec<Item>) -> Result<(), Failure> {
        let mut taken_at = Instant::now();
        loop {
            let done = self.done;
            let (again, wait) = self.batch(api, items).await?;
            items = again;
            let Some(first) = items.first() else {
                return Ok(());
            };
            if self.done > done {
                taken_at = Instant::now();
            }
            let patience = self.times.patience.unwrap_or_default();
            if !wait.is_zero() && taken_at.elapsed() + wait > patience {
                output::note(&format!(
                    "fanfare: {} lines were {}; line {} and what follows was not",
                    self.done, self.call.done, first.number
                ));
                let seconds = patience.as_secs();
                return Err(Failure::new(
                    Exit::Unreachable,
                    &MessageError::NoRoom(seconds),
                ));
            }
            if !wait.is_zero() && std::io::stderr().is_terminal() {
                let (done, seconds) = (self.done, wait.as_secs_f64());
                let what = self.call.done;
                output::note(&format!("{what}: {done}, no room, again in {seconds:.0} s"));
            }
            tokio::time::sleep(wait).await;
        }
    }

    /// Sends lines once. Returns those to be sent again, and after how long.
    async fn batch(
        &mut self,
        api: &mut Api,
        items: Vec<Item>,
    ) -> Result<(Vec<Item>, Duration), Failure> {
        let bodies: Vec<_> = items.iter().map(|item| item.body.as_str()).collect();
        let answer = api
            .post(self.call.many, format!("[{}]", bodies.join(",")))
            .await;
        let answer = match answer {
            Err(ApiError::Refused { code, .. })
                if code == "rate_limited" && self.times.patience.is_some() =>
            {
                return Ok((items, jittered(SOON_MS)));
            }
            answer => answer.map_err(|error| lost_batch(error, &items, self.call.done))?,
        };
        self.warn_of_fleeting(&answer);
        let results = answer["results"].as_array().map_or(&[][..], Vec::as_slice);
        if results.len() != items.len() {
            let error = MessageError::AnswersMissing {
                asked: items.len(),
                answered: results.len(),
            };
            return Err(Failure::new(Exit::Unreachable, &error));
        }
        let (mut again, mut wait, mut is_lost) = (Vec::new(), Duration::ZERO, false);
        for (item, result) in items.into_iter().zip(results) {
            let error = &only_result(result)["error"];
            let is_untried = error["not_tried"] == true;
            let has_no_room = error["code"] == "rate_limited";
            if self.times.patience.is_some() && !is_lost && (is_untried || has_no_room) {
                if has_no_room {
                    let ms = error["retry_after_ms"].as_u64().unwrap_or(SOON_MS);
                    wait = wait.max(jittered(ms));
                }
                again.push(item);
                continue;
            }
            // What follows one of which nothing is known is not tried again.
            is_lost |= error["code"] == "unavailable";
            self.told(result, Some(item.number));
        }
        Ok((again, wait))
    }

    /// Says once that the node keeps nothing beyond its own end.
    fn warn_of_fleeting(&mut self, answer: &Value) {
        if answer["durable"] == false && !self.is_fleeting {
            self.is_fleeting = true;
            output::note(FLEETING);
        }
    }

    fn bad(&mut self, error: &InputError) {
        output::note(&format!("fanfare: {error}"));
        self.failed(Exit::Data);
    }

    fn failed(&mut self, exit: Exit) {
        if self.exit == Exit::Done {
            self.exit = exit;
        }
    }

    /// The body of one message.
    fn body(
        &mut self,
        text: &str,
        idempotency_key: Option<String>,
        line: Option<u64>,
    ) -> Result<String, MessageError> {
        let args = self.args;
        let publication = Publication {
            topic: args.topic.as_deref(),
            user: args.user.as_deref(),
            everyone: args.everyone.then_some(true),
            data: self.data(text, line)?,
            priority: args.priority,
            key: args.key.as_deref(),
            idempotency_key,
            ttl_ms: args.ttl_ms,
            not_before: self.times.not_before.or_else(|| self.times.not_before()),
            expires_at: self.times.expires_at,
        };
        Ok(serde_json::to_string(&publication).expect("text, numbers and JSON"))
    }

    /// The message as JSON: byte for byte where it is JSON, a string where it is text.
    fn data(&mut self, text: &str, line: Option<u64>) -> Result<Box<RawValue>, MessageError> {
        if !self.args.text {
            let error = match serde_json::from_str::<Box<RawValue>>(text) {
                Ok(json) => return Ok(json),
                Err(error) => error,
            };
            if self.args.json {
                return Err(MessageError::NotJson(error));
            }
            if text.trim_start().starts_with(['{', '[']) && !self.is_warned {
                self.is_warned = true;
                output::note(&format!(
                    "fanfare: {}this is no JSON ({error}) and is {} as text; --json refuses \
                     it, --text says nothing",
                    place(line),
                    self.call.done
                ));
            }
        }
        let string = serde_json::value::to_raw_value(text);
        Ok(string.expect("text is a string of JSON"))
    }
}

/// What both calls take; the times are the queue's alone.
#[derive(Serialize)]
struct Publication<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    topic: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    everyone: Option<bool>,
    data: Box<RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    priority: Option<Priority>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    idempotency_key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ttl_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    not_before: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<u64>,
}

/// Says what is known of the lines of a batch without an answer, and that nothing follows.
fn lost_batch(error: ApiError, items: &[Item], done: &str) -> Failure {
    let was_sent = !matches!(
        error,
        ApiError::Refused { .. } | ApiError::Unreachable { .. }
    );
    let ends = (items.first(), items.last());
    if let (Some(Item { number: first, .. }), Some(Item { number: last, .. })) = ends {
        output::note(&if was_sent {
            format!(
                "fanfare: lines {first} to {last} may or may not have been {done}, and what \
                 follows was not"
            )
        } else {
            format!("fanfare: line {first} and what follows was not {done}")
        });
    }
    error.into()
}

fn place(line: Option<u64>) -> String {
    line.map_or_else(String::new, |number| format!("line {number}: "))
}

impl Sender<'_> {
    /// Prints what became of one publication.
    fn told(&mut self, answer: &Value, line: Option<u64>) {
        let result = only_result(answer);
        let text = if self.args.format.is_json() {
            Some(result.to_string())
        } else {
            result[self.call.place].as_str().map(|position| {
                let target = target(self.args);
                let duplicate = match result["duplicate"] == true {
                    true => format!(" ({} before)", self.call.done),
                    false => String::new(),
                };
                let (target, position) = (output::printable(&target), output::printable(position));
                format!("{target} {position}{duplicate}")
            })
        };
        if let Some(text) = text.filter(|_| self.is_read) {
            self.is_read = output::line_is_read(&text);
        }
        let error = &result["error"];
        if error.is_null() {
            self.done += 1;
            return;
        }
        let text = |key: &str| output::printable(error[key].as_str().unwrap_or("?")).into_owned();
        let (code, message) = (text("code"), text("message"));
        output::note(&format!("fanfare: {}{code}: {message}", place(line)));
        self.failed(Exit::by_error_code(&code));
    }
}

/// One target, so one result; an item of a batch that could not be read has only an error.
fn only_result(answer: &Value) -> &Value {
    answer["results"].get(0).unwrap_or(answer)
}

/// So many milliseconds and up to a quarter more.
fn jittered(ms: u64) -> Duration {
    Duration::from_millis(ms + rand::random_range(0..=ms / 4))
}

fn target(args: &MessageArgs) -> String {
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
