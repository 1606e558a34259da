//! `fanfare roundtrip`: whether a message gets through, from a backend to a session, and how fast.
//!
//! In: the address of a node's sockets, that of an API, of the same node or of another one, and who may.
//! Out: the time of each step, or the step that failed. Exit codes: 0 the message came back, 1 something
//! was refused or it did not come back, 69 nobody answered. Bound: [`PATIENCE`] for all of it. The message
//! is one like any other, and is kept as long as the topic's history says.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clap::Args;
use fanfare_client::http::Api;
use fanfare_client::resuming::{Event, Options, ResumingConnection};
use serde_json::{Map, Value, json};

use super::access::{ApiArgs, TlsArgs};
use super::exit::{Exit, Failure};
use super::output::{self, Format};
use super::token::{self, SigningArgs};
use crate::auth::mint;

/// Longest wait from the first step to the message's arrival.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a token is valid that is made for this.
const TOKEN_TTL: Duration = Duration::from_secs(60);
/// What to do where the session is not let in: there is no flag for a user here.
const TOKEN_HINT: &str = "give a token that may join the topic with --token or FANFARE_TOKEN, or the \
                          nodes' secret with --secret-env, by which one is made";
/// Whose token that is.
const USER: &str = "roundtrip";

/// Arguments of `roundtrip`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  fanfare roundtrip
  fanfare roundtrip --url wss://realtime.example.com --api-url http://10.0.0.7:8081
  fanfare roundtrip --secret-env FANFARE_AUTH__HMAC_SECRET --topic orders:probe

It connects, joins the topic, publishes to it through the API and waits for the message: 10 s for
all of it. Where the secret of the nodes is at hand, no token is needed: one is made that is valid
for a minute and for this topic.

Exit codes: 0 the message came back, 1 refused or not come back, 64 usage, 69 cannot reach the node.")]
pub struct RoundtripArgs {
    /// The topic
    #[arg(long, default_value = "roundtrip", value_name = "TOPIC")]
    topic: String,
    /// Address of a node's sockets
    #[arg(
        long,
        env = "FANFARE_URL",
        default_value = "ws://127.0.0.1:8080/v1/connect"
    )]
    url: String,
    #[command(flatten)]
    api: ApiArgs,
    /// Token of the session; it must allow to join the topic
    #[arg(long, env = "FANFARE_TOKEN", hide_env_values = true)]
    token: Option<String>,
    #[command(flatten)]
    signing: SigningArgs,
    /// A further claim of the token that is made, as `fanfare token` has it
    #[arg(long, value_name = "NAME=VALUE", value_parser = token::parse_claim)]
    claim: Vec<(String, Value)>,
    #[command(flatten)]
    tls: TlsArgs,
    /// How to print
    #[arg(long, value_enum, default_value = "auto")]
    format: Format,
}

/// Why there was no round trip, though everybody answered.
#[derive(Debug, thiserror::Error)]
enum Missing {
    #[error("the message did not come back within {} s", PATIENCE.as_secs())]
    Message,
    #[error("no answer within {} s", PATIENCE.as_secs())]
    Answer,
    #[error("the node ended the subscription: {0}")]
    Subscription(String),
}

/// The steps, each with its name in what is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Connect,
    Subscribe,
    Publish,
    Receive,
}

impl Step {
    fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Subscribe => "subscribe",
            Self::Publish => "publish",
            Self::Receive => "receive",
        }
    }
}

/// What a round trip brought.
#[derive(Debug)]
struct Trip {
    node: String,
    position: Value,
    /// Of each step; `receive` is from when the message was handed in to when it came.
    times: [(Step, Duration); 4],
}

/// Sends a message and waits for it.
///
/// # Errors
/// [`Failure`] of the first step that failed.
pub async fn run(args: RoundtripArgs) -> Result<Exit, Failure> {
    let token = token_of(&args)?;
    let began = Instant::now();
    let mut step = Step::Connect;
    let travelled = tokio::time::timeout(PATIENCE, travel(&args, token, &mut step)).await;
    let travelled = travelled.unwrap_or_else(|_| {
        Err(match step {
            // Everybody has answered.
            Step::Receive => Failure::new(Exit::Refused, &Missing::Message),
            // The API's own patience is longer, and is not waited for.
            Step::Connect | Step::Subscribe | Step::Publish => {
                Failure::new(Exit::Unreachable, &Missing::Answer)
            }
        })
    });
    match travelled {
        Ok(trip) => {
            tell(&args, &trip, began.elapsed());
            Ok(Exit::Done)
        }
        Err(failure) => {
            if args.format.is_json() {
                let text = failure.text();
                let line = json!({"ok": false, "step": step.name(), "error": text});
                output::line(&line.to_string());
            }
            Err(as_verdict(failure, step))
        }
    }
}

/// For who asks by script there are three answers, whatever was refused; a wrong command line is none.
fn as_verdict(failure: Failure, step: Step) -> Failure {
    let exit = match failure.exit() {
        exit @ (Exit::Usage | Exit::Unreachable) => exit,
        _ => Exit::Refused,
    };
    let failure = match (failure.exit(), step) {
        (Exit::Denied, Step::Connect | Step::Subscribe) => failure.hint(TOKEN_HINT),
        _ => failure,
    };
    failure
        .before(&format!("{} failed: ", step.name()))
        .with_exit(exit)
}

/// The token of the session: one that is made here, or the one that was given.
fn token_of(args: &RoundtripArgs) -> Result<Option<String>, Failure> {
    let key = args.signing.key().map_err(|error| token::failure(&error))?;
    let Some(key) = key else {
        return Ok(args.token.clone());
    };
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = since_1970.unwrap_or_default();
    let mut claims = Map::new();
    claims.insert("sub".to_owned(), USER.into());
    claims.insert("iat".to_owned(), now.as_secs().into());
    claims.insert("exp".to_owned(), (now + TOKEN_TTL).as_secs().into());
    claims.insert("can".to_owned(), json!({"subscribe": [args.topic]}));
    claims.extend(args.claim.iter().cloned());
    let token = mint::mint(&key, &claims);
    token
        .map(Some)
        .map_err(|error| token::failure(&error.into()))
}

async fn travel(
    args: &RoundtripArgs,
    token: Option<String>,
    step: &mut Step,
) -> Result<Trip, Failure> {
    let mut api = Api::new(&args.api.options(), &args.tls.of(&args.api.api_url))?;
    let began = Instant::now();
    let options = Options {
        urls: vec![args.url.clone()],
        token: token.into(),
        tls: args.tls.of(&args.url),
        ..Options::default()
    };
    let mut client = ResumingConnection::connect(options).await?;
    let connected = Instant::now();
    *step = Step::Subscribe;
    let subscribe = json!({"type": "subscribe", "topic": args.topic});
    client.command(subscribe).await?;
    let subscribed = Instant::now();
    *step = Step::Publish;
    // Others may probe the same topic.
    let mark = format!("{:032x}", rand::random::<u128>());
    let body = json!({"topic": args.topic, "data": {"roundtrip": mark}}).to_string();
    let publish = async {
        let answer = api.post("/v1/publish", body).await?;
        *step = Step::Receive;
        let position = answer["results"][0]["position"].clone();
        Ok::<_, Failure>((position, Instant::now()))
    };
    let receive = async {
        received(&mut client, &args.topic, &mark).await?;
        Ok::<_, Failure>(Instant::now())
    };
    let ((position, published), arrived) = tokio::try_join!(publish, receive)?;
    let node = output::body(&client.welcome()["node"]);
    client.close().await;
    Ok(Trip {
        node,
        position,
        times: [
            (Step::Connect, connected - began),
            (Step::Subscribe, subscribed - connected),
            (Step::Publish, published - subscribed),
            (Step::Receive, arrived - subscribed),
        ],
    })
}

/// Waits for the message with this mark.
async fn received(client: &mut ResumingConnection, topic: &str, mark: &str) -> Result<(), Failure> {
    loop {
        let Event::Server(event) = client.next_event().await? else {
            continue;
        };
        if event["topic"] != topic {
            continue;
        }
        match event["type"].as_str() {
            Some("message") if event["data"]["roundtrip"] == mark => return Ok(()),
            Some("unsubscribed") => {
                let why = output::body(&event["code"]);
                return Err(Failure::new(Exit::Refused, &Missing::Subscription(why)));
            }
            _ => {}
        }
    }
}

fn tell(args: &RoundtripArgs, trip: &Trip, total: Duration) {
    let ms = |time: Duration| (time.as_secs_f64() * 10_000.0).round() / 10.0;
    if args.format.is_json() {
        let mut line = json!({
            "ok": true,
            "node": trip.node,
            "topic": args.topic,
            "position": trip.position,
            "total_ms": ms(total),
        });
        for (step, time) in trip.times {
            line[format!("{}_ms", step.name())] = ms(time).into();
        }
        output::line(&line.to_string());
        return;
    }
    let topic = output::printable(&args.topic);
    output::line(&format!(
        "ok: a message to {topic} came back through {} in {:.1} ms",
        trip.node,
        ms(total)
    ));
    for (step, time) in trip.times {
        output::line(&format!("{:<9}  {:>8.1} ms", step.name(), ms(time)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_three_verdicts_and_a_wrong_command_line() {
        let rows = [
            (Exit::Refused, Exit::Refused),
            (Exit::Denied, Exit::Refused),
            (Exit::Data, Exit::Refused),
            (Exit::Unreachable, Exit::Unreachable),
            (Exit::Usage, Exit::Usage),
        ];
        for (exit, verdict) in rows {
            let failure = as_verdict(Failure::new(exit, &Missing::Message), Step::Subscribe);
            assert_eq!(failure.exit(), verdict, "{exit:?}");
            let text = "subscribe failed: the message did not come back within 10 s";
            assert_eq!(failure.text(), text);
        }
    }
}
