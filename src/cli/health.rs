//! `fanfare health`: asks one node how it does, for people, scripts and the probes of a container.
//!
//! In: `GET /health/live`, `/health/ready` or `/health/detailed` of the API's listener, without a key.
//! Out: a few lines for people, the node's own answer as one JSON line in a pipe, and an exit code: 0
//! it is well, 1 it is not, 69 nobody answers who is a node. Bound: [`PATIENCE`] for all of it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use fanfare_client::http::{Api, ApiOptions, without_secrets};
use serde_json::Value;

use super::access::TlsArgs;
use super::exit::{Exit, Failure};
use super::output::{self, Format};
use super::serve_flags::ServeFlags;
use crate::config::load;

/// Longest wait from the first step to the whole answer: less than the three seconds and more that
/// probes of containers are given.
const PATIENCE: Duration = Duration::from_secs(2);
/// Longest answer that is read, in bytes. A probe runs in the node's own bounds of memory.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// Arguments of `health`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  fanfare health
  fanfare health live --config /etc/fanfare/fanfare.toml
  fanfare health detailed --api-url http://10.0.0.7:8081 --format json

Without --api-url the API is asked where the configuration says that it listens (api.listen), as
the probe of a container does. No key is needed. It takes 2 s at most.

Exit codes: 0 well, 1 not well, 64 usage or configuration, 69 cannot reach the node.")]
pub struct HealthArgs {
    /// What to ask
    #[arg(value_enum, default_value = "ready")]
    question: Question,
    /// Address of a node's HTTP API [default: where the configuration says, http://127.0.0.1:8081]
    #[arg(long, alias = "api", env = "FANFARE_API_URL", value_name = "URL")]
    api_url: Option<String>,
    /// Configuration file of the node (FANFARE_CONFIG), read for api.listen alone
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// How to print
    #[arg(long, value_enum, default_value = "auto")]
    format: Format,
    #[command(flatten)]
    tls: TlsArgs,
}

/// What a node is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Question {
    /// Whether it should go on running, or be started anew
    Live,
    /// Whether it should get work
    Ready,
    /// How each of its parts does; well is who is ready
    Detailed,
}

impl Question {
    fn path(self) -> &'static str {
        match self {
            Self::Live => "/health/live",
            Self::Ready => "/health/ready",
            Self::Detailed => "/health/detailed",
        }
    }

    /// The statuses with which a node says so.
    fn statuses(self, is_well: bool) -> &'static [u16] {
        match (self, is_well) {
            (Self::Detailed, _) | (_, true) => &[200],
            (_, false) => &[503],
        }
    }

    /// What the answer says; `None`: it is none of a node.
    fn verdict(self, answer: &Value) -> Option<bool> {
        match self {
            Self::Live => answer["live"].as_bool(),
            Self::Ready => answer["ready"].as_bool(),
            Self::Detailed => match answer["status"].as_str()? {
                "ok" => Some(true),
                "unavailable" => Some(false),
                _ => None,
            },
        }
    }
}

/// Why nothing is known of the node.
#[derive(Debug, thiserror::Error)]
enum Unknown {
    #[error("no answer from {url} within {} s", PATIENCE.as_secs())]
    Late { url: String },
    #[error("{url} answered {status} with something that no node says")]
    Foreign { url: String, status: u16 },
}

/// Asks, and prints the answer.
///
/// # Errors
/// [`Failure`] when nothing is known of the node, or where it is.
pub fn run(args: HealthArgs) -> Result<Exit, Failure> {
    let url = match args.api_url.clone() {
        Some(url) => url,
        None => match configured(args.config.clone()) {
            Ok(url) => url,
            Err(faults) => {
                output::note(&faults.to_string());
                return Ok(Exit::Usage);
            }
        },
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Failure::runtime)?;
    let asked = runtime.block_on(ask(args.question, &url, &args.tls));
    // The system may still look for the name of a host, for much longer.
    runtime.shutdown_background();
    let (is_well, answer) = asked?;
    if args.format.is_json() {
        output::line(&answer.to_string());
    } else {
        let lines = lines(args.question, is_well, &answer);
        lines.iter().for_each(|line| output::line(line));
    }
    Ok(if is_well { Exit::Done } else { Exit::Refused })
}

/// The API of the node whose configuration this is, as it is reached from its own machine.
fn configured(file: Option<PathBuf>) -> Result<String, crate::config::faults::Faults> {
    let flags = ServeFlags {
        config: file,
        ..ServeFlags::default()
    };
    let listen = load::api_listen(&flags.into_inputs())?;
    Ok(format!("http://{}", reached(listen)))
}

/// Who listens everywhere is here, too.
fn reached(listen: SocketAddr) -> SocketAddr {
    let here: IpAddr = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(here, listen.port())
}

async fn ask(question: Question, url: &str, tls: &TlsArgs) -> Result<(bool, Value), Failure> {
    let options = ApiOptions {
        url: url.to_owned(),
        key: String::new(),
    };
    let asked = async {
        let mut api = Api::new(&options, &tls.of(url))?.within(ANSWER_BYTES_MAX);
        Ok::<_, Failure>(api.read(question.path()).await?)
    };
    let url = || format!("{}{}", without_secrets(url), question.path());
    let Ok(answered) = tokio::time::timeout(PATIENCE, asked).await else {
        let late = Unknown::Late { url: url() };
        return Err(Failure::new(Exit::Unreachable, &late));
    };
    let (status, answer) = answered?;
    let status = status.as_u16();
    match question
        .verdict(&answer)
        .filter(|is_well| question.statuses(*is_well).contains(&status))
    {
        Some(is_well) => Ok((is_well, answer)),
        None => {
            let foreign = Unknown::Foreign { url: url(), status };
            let failure = Failure::new(Exit::Unreachable, &foreign);
            Err(failure.hint("is --api-url (FANFARE_API_URL) the address of a node's API?"))
        }
    }
}

/// The answer for people.
fn lines(question: Question, is_well: bool, answer: &Value) -> Vec<String> {
    let mut lines = vec![match (question, is_well) {
        (Question::Live, true) => "live".to_owned(),
        (Question::Live, false) => "not live".to_owned(),
        (Question::Ready, true) => "ready".to_owned(),
        (Question::Ready, false) => "not ready".to_owned(),
        (Question::Detailed, _) => {
            let said = |key: &str| output::body(&answer[key]);
            let (node, state) = (said("node"), said("lifecycle"));
            let (status, version) = (said("status"), said("version"));
            let up = said("uptime_s");
            format!("{node}: {status}, {state}, release {version}, up {up} s")
        }
    }];
    for (key, word) in [
        ("reasons", "not well"),
        ("partial", "in part"),
        ("warnings", "warning"),
    ] {
        let texts = answer[key].as_array().map_or(&[][..], Vec::as_slice);
        lines.extend(
            texts
                .iter()
                .map(|text| format!("{word}: {}", output::body(text))),
        );
    }
    if let Some(components) = answer["components"].as_array() {
        let rows: Vec<_> = components.iter().map(row).collect();
        lines.extend(output::table(&HEAD, &rows));
    }
    lines
}

const HEAD: [&str; 5] = ["part", "state", "since", "figures", "says"];

fn row(component: &Value) -> Vec<String> {
    let cell = |key: &str| match &component[key] {
        Value::Null => "-".to_owned(),
        value => output::body(value),
    };
    let name = match &component["part"] {
        Value::Null => cell("name"),
        _ => format!("{}, {}", cell("name"), cell("part")),
    };
    let since = component["since"].as_u64();
    let figures = component["figures"].as_array();
    let figures: Vec<_> = figures.into_iter().flatten().map(figure).collect();
    vec![
        name,
        cell("state"),
        since.map_or_else(|| "-".to_owned(), output::clock),
        if figures.is_empty() {
            "-".to_owned()
        } else {
            figures.join(", ")
        },
        cell("detail"),
    ]
}

fn figure(figure: &Value) -> String {
    let (name, value) = (
        output::body(&figure["name"]),
        output::body(&figure["value"]),
    );
    match &figure["limit"] {
        Value::Null => format!("{name} {value}"),
        limit => format!("{name} {value} of {}", output::body(limit)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_node_that_listens_everywhere_is_asked_here() {
        let rows = [
            ("0.0.0.0:8081", "127.0.0.1:8081"),
            ("[::]:8081", "[::1]:8081"),
            ("10.0.0.7:9", "10.0.0.7:9"),
        ];
        for (listen, here) in rows {
            let listen = listen.parse().expect("an address");
            assert_eq!(reached(listen).to_string(), here);
        }
    }

    #[test]
    fn only_a_node_has_a_verdict() {
        let rows = [
            (Question::Live, json!({"live": true}), Some(true)),
            (Question::Live, json!({"ready": true}), None),
            (
                Question::Ready,
                json!({"ready": false, "reasons": []}),
                Some(false),
            ),
            (Question::Ready, json!({"error": {"code": "x"}}), None),
            (Question::Ready, json!("ready"), None),
            (Question::Detailed, json!({"status": "ok"}), Some(true)),
            (
                Question::Detailed,
                json!({"status": "unavailable"}),
                Some(false),
            ),
            (Question::Detailed, json!({"status": "up"}), None),
        ];
        for (question, answer, verdict) in rows {
            assert_eq!(question.verdict(&answer), verdict, "{answer}");
        }
    }

    #[test]
    fn people_read_why_and_what_a_node_says_steers_no_terminal() {
        let answer = json!({"ready": false, "reasons": ["broker: \u{1b}[31maway"]});
        let shown = lines(Question::Ready, false, &answer);
        assert_eq!(shown, ["not ready", r"not well: broker: \u{1b}[31maway"]);
        let part = json!({
            "name": "turns", "part": "worker 0", "state": "down", "since": 7, "detail": "it hangs",
            "figures": [{"name": "silent_ms", "value": 6000, "limit": 5000}, {"name": "n", "value": 1}],
        });
        let figures = "silent_ms 6000 of 5000, n 1";
        let cells = [
            "turns, worker 0",
            "down",
            "00:00:00.007Z",
            figures,
            "it hangs",
        ];
        assert_eq!(row(&part), cells);
        assert_eq!(row(&json!({}))[2..], ["-", "-", "-"]);
    }
}
