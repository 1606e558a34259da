//! `fanfare subscribe`: prints the messages of a topic, an inbox or those for everyone, as they
//! come.
//!
//! In: events of a [`ResumingConnection`], which resumes by itself after a break. Out: messages on stdout;
//! gaps, breaks and drains on stderr for people, as JSON lines on stdout in a pipe. Ends after
//! `--count` messages, by Ctrl-C (130), or when the server sends it away.

use std::io::IsTerminal as _;
use std::time::Duration;

use clap::Args;
use fanfare_client::error::ConnectionError;
use fanfare_client::resuming::{Event, Options, ResumingConnection};
use serde_json::{Map, Value, json};

use super::access::{TlsArgs, parse_app};
use super::exit::{Exit, Failure};
use super::output::{self, Format};
use super::transcript;
use fanfare_protocol::ids::App;

/// Arguments of `subscribe`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  fanfare subscribe news
  fanfare subscribe orders:eu --rewind 10
  fanfare subscribe orders:eu --since 1732190000000-7 --count 100 > missed.jsonl
  fanfare subscribe --inbox --user alice
  fanfare subscribe news --app shop
  FANFARE_TOKEN=... fanfare subscribe --inbox --since 0-0
  fanfare subscribe news --url wss://realtime.example.com

With --format json, and in a pipe, each event is one line, byte for byte as the node sent it but for
line breaks. As text, and on a terminal, control characters are shown as escapes.

After a break it connects again and goes on where it was. An inbox begins at its acknowledged
position, and reading it here acknowledges nothing.")]
pub struct SubscribeArgs {
    #[command(flatten)]
    target: Target,
    /// Begin after this position; 0-0 for everything that is kept
    #[arg(long, value_name = "POSITION")]
    since: Option<String>,
    /// Begin with the newest N messages that are kept
    #[arg(long, value_name = "N", conflicts_with_all = ["since", "inbox", "everyone"])]
    rewind: Option<u32>,
    /// End after N messages
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Be a member of the topic and see members come and go
    #[arg(long, conflicts_with_all = ["inbox", "everyone"])]
    presence: bool,
    /// Connect as this user, without a token, to a node started with --dev
    #[arg(long, value_name = "NAME", conflicts_with = "token")]
    user: Option<String>,
    /// The app that is meant; by default that of the token, or "default"
    #[arg(long, value_name = "NAME", value_parser = parse_app)]
    app: Option<App>,
    /// Token of the session
    #[arg(long, env = "FANFARE_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// Address of a node's sockets
    #[arg(
        long,
        env = "FANFARE_URL",
        default_value = "ws://127.0.0.1:8080/v1/connect"
    )]
    url: String,
    #[command(flatten)]
    tls: TlsArgs,
    /// How to print
    #[arg(long, value_enum, default_value = "auto")]
    format: Format,
}

/// What to listen to: exactly one of these.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Target {
    /// The topic
    topic: Option<String>,
    /// The own inbox
    #[arg(long)]
    inbox: bool,
    /// What is published to every session
    #[arg(long)]
    everyone: bool,
}

/// Why there is nothing to listen to.
#[derive(Debug, thiserror::Error)]
enum TargetError {
    #[error("an anonymous session has no inbox")]
    NoInbox,
    #[error("the server took the subscription away: {code}: {message}")]
    Unsubscribed { code: String, message: String },
}

/// Prints events until its end.
///
/// # Errors
/// [`Failure`] when the node cannot be reached at first, refuses, or sends the client away.
pub async fn run(args: SubscribeArgs) -> Result<Exit, Failure> {
    tokio::select! {
        result = listen(&args) => result,
        signal = tokio::signal::ctrl_c() => match signal {
            Ok(()) => Ok(Exit::Interrupted),
            Err(error) => Err(Failure::runtime(error)),
        },
    }
}

async fn listen(args: &SubscribeArgs) -> Result<Exit, Failure> {
    let (mut client, topic) = join(args).await?;
    let mut left = args.count;
    loop {
        match client.next_event().await? {
            Event::Server(event) => {
                if event["topic"].as_str().is_some_and(|of| of != topic) {
                    continue;
                }
                show(args, &event, client.last_text());
                match event["type"].as_str() {
                    Some("message") => left = left.map(|left| left - 1),
                    Some("unsubscribed") => return Err(unsubscribed(&event)),
                    _ => {}
                }
            }
            Event::Disconnected { cause, again_after } => {
                show(args, &disconnected(cause, again_after), None);
            }
            Event::Reconnected { welcome } => {
                let event = json!({"type": "reconnected", "node": welcome["node"]});
                show(args, &event, None);
            }
        }
        if left == Some(0) {
            client.close().await;
            return Ok(Exit::Done);
        }
    }
}

/// Connects and joins; gives the name of the topic whose events are wanted.
/// The address with the app, where one is named.
fn address(args: &SubscribeArgs) -> String {
    let Some(app) = &args.app else {
        return args.url.clone();
    };
    let mark = if args.url.contains('?') { '&' } else { '?' };
    format!("{}{mark}app={app}", args.url)
}

async fn join(args: &SubscribeArgs) -> Result<(ResumingConnection, String), Failure> {
    let mut options = Options {
        urls: vec![address(args)],
        // A token in the environment does not stand against `--user` on the command line.
        token: args.token.clone().filter(|_| args.user.is_none()).into(),
        user: args.user.clone(),
        tls: args.tls.of(&args.url),
        ..Options::default()
    };
    if args.target.everyone {
        let since = args.since.iter().cloned();
        options.positions = since.map(|since| ("@".to_owned(), since)).collect();
        let mut client = ResumingConnection::connect(options).await?;
        client.attend("@");
        return Ok((client, "@".to_owned()));
    }
    if let Some(topic) = &args.target.topic {
        let mut client = ResumingConnection::connect(options).await?;
        let result = client.command(subscribe_command(args, topic)).await?;
        show(args, &subscribed(topic, result), None);
        return Ok((client, topic.clone()));
    }
    join_inbox(args, options).await
}

/// The server says by `welcome` whose inbox it is; a position for it must be in `connect`, which
/// comes before. So with `--since` and a token the inbox is asked for first.
async fn join_inbox(
    args: &SubscribeArgs,
    mut options: Options,
) -> Result<(ResumingConnection, String), Failure> {
    let client = ResumingConnection::connect(options.clone()).await?;
    let Some(inbox) = client.welcome()["inbox"]["topic"].as_str() else {
        return Err(Failure::new(Exit::Usage, &TargetError::NoInbox)
            .hint("say who you are with --token, or with --user on a node started with --dev"));
    };
    let inbox = inbox.to_owned();
    let Some(since) = &args.since else {
        return Ok((client, inbox));
    };
    client.close().await;
    options.positions.insert(inbox.clone(), since.clone());
    Ok((ResumingConnection::connect(options).await?, inbox))
}

fn subscribe_command(args: &SubscribeArgs, topic: &str) -> Value {
    let mut command = Map::new();
    command.insert("type".to_owned(), "subscribe".into());
    command.insert("topic".to_owned(), topic.into());
    if let Some(since) = &args.since {
        command.insert("since".to_owned(), since.as_str().into());
    }
    if let Some(rewind) = args.rewind {
        command.insert("rewind".to_owned(), rewind.into());
    }
    if args.presence {
        command.insert("presence".to_owned(), true.into());
    }
    Value::Object(command)
}

/// The result of the `subscribe`, as an event to print.
fn subscribed(topic: &str, mut result: Value) -> Value {
    result["type"] = "subscribed".into();
    result["topic"] = topic.into();
    if let Some(result) = result.as_object_mut() {
        result.remove("id");
    }
    result
}

fn disconnected(cause: ConnectionError, again_after: Duration) -> Value {
    let mut event = json!({
        "type": "disconnected",
        "again_after_ms": u64::try_from(again_after.as_millis()).unwrap_or(u64::MAX),
    });
    if let ConnectionError::Closed { code, .. } = &cause {
        event["code"] = (*code).into();
    }
    event["message"] = Failure::from(cause).text().into();
    event
}

/// Prints one event in the wanted form. `text` is the event as the node sent it, where it did.
fn show(args: &SubscribeArgs, event: &Value, text: Option<&str>) {
    if args.format.is_json() {
        let own;
        let text = match text {
            Some(text) => text,
            None => {
                own = event.to_string();
                &own
            }
        };
        output::line(&output::json_line(text, std::io::stdout().is_terminal()));
    } else if event["type"] == "message" {
        output::line(&transcript::message(event, text.unwrap_or_default()));
    } else if let Some(text) = transcript::remark(event) {
        output::note(&text);
    }
}

fn unsubscribed(event: &Value) -> Failure {
    let text = |field: &str| event[field].as_str().unwrap_or_default().to_owned();
    let exit = Exit::by_error_code(&text("code"));
    let error = TargetError::Unsubscribed {
        code: text("code"),
        message: text("message"),
    };
    Failure::new(exit, &error)
}
