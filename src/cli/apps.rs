//! `fanfare apps`: apps that are set without a file, through the HTTP API.
//!
//! In: an app's name, and its settings as JSON from a file or standard input. Out: text for people, the
//! node's own objects as JSON lines in a pipe. Bounds: pages of [`PAGE_MAX`] apps, one call each.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use fanfare_client::http::{Api, percent_encode};
use serde_json::Value;

use super::access::{ApiArgs, TlsArgs};
use super::exit::{Exit, Failure};
use super::output::{self, Format};
use crate::config::app_reader::JSON_BYTES_MAX;

/// Apps of one page.
const PAGE_MAX: usize = 1_000;

/// Arguments of `apps`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct AppsArgs {
    #[command(subcommand)]
    command: AppsCommand,
}

#[derive(Debug, Subcommand)]
enum AppsCommand {
    /// List the apps that a node knows
    #[command(after_help = EXAMPLES)]
    List(CallArgs),
    /// Show an app: from where it has its settings, and what is stored, without secrets
    #[command(after_help = EXAMPLES)]
    Show(OneArgs),
    /// Store the settings of an app, in place of those that are stored
    #[command(after_help = PUT_EXAMPLES)]
    Put(PutArgs),
    /// Remove an app that is stored, and close its sessions
    #[command(after_help = EXAMPLES)]
    Remove(OneArgs),
}

const EXAMPLES: &str = "\
Examples:
  fanfare apps list
  fanfare apps show shop
  fanfare apps put shop shop.json
  fanfare apps remove shop --api-url https://api.example.com --api-key KEY

Needs a key of api.keys, or a client with app = \"*\" and the scope admin. Apps of the file are listed
and shown, and changed in the file alone.";

const PUT_EXAMPLES: &str = "\
Examples:
  fanfare apps put shop shop.json
  echo '{\"auth\":{\"anonymous\":true}}' | fanfare apps put shop -

The settings are JSON with the sections auth, namespaces, inbox and everyone, as [apps.NAME] of the
file has them. With any fault in them nothing changes, and each fault is told with its path. They hold
at once on the node that is asked, and within 5 seconds on all.";

#[derive(Debug, Args)]
struct CallArgs {
    /// How to print
    #[arg(long, value_enum, default_value = "auto")]
    format: Format,
    #[command(flatten)]
    api: ApiArgs,
    #[command(flatten)]
    tls: TlsArgs,
}

#[derive(Debug, Args)]
struct OneArgs {
    /// The app
    #[arg(value_name = "NAME")]
    app: String,
    #[command(flatten)]
    call: CallArgs,
}

#[derive(Debug, Args)]
struct PutArgs {
    /// The app
    #[arg(value_name = "NAME")]
    app: String,
    /// File with its settings as JSON; - reads standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    call: CallArgs,
}

/// Why nothing was stored.
#[derive(Debug, thiserror::Error)]
enum PutError {
    #[error("cannot read {file}")]
    Unreadable {
        file: String,
        #[source]
        source: std::io::Error,
    },
    #[error("{file} has more than {JSON_BYTES_MAX} bytes")]
    TooLong { file: String },
}

impl CallArgs {
    fn api(&self) -> Result<Api, Failure> {
        let tls = self.tls.of(&self.api.api_url);
        Ok(Api::new(&self.api.options(), &tls)?)
    }

    /// Prints the node's object, or for people these words.
    fn print(&self, answer: &Value, words: &str) {
        match self.format.is_json() {
            true => output::line(&answer.to_string()),
            false => output::line(words),
        }
    }
}

/// Carries out one of them.
///
/// # Errors
/// [`Failure`] when the node cannot be reached or refuses, or the file cannot be read.
pub async fn run(args: AppsArgs) -> Result<Exit, Failure> {
    match args.command {
        AppsCommand::List(args) => list(&args).await,
        AppsCommand::Show(args) => show(&args).await,
        AppsCommand::Put(args) => put(&args).await,
        AppsCommand::Remove(args) => remove(&args).await,
    }
}

fn path_of(app: &str) -> String {
    format!("/v1/apps/{}", percent_encode(app))
}

async fn list(args: &CallArgs) -> Result<Exit, Failure> {
    let mut api = args.api()?;
    let (mut apps, mut after) = (Vec::new(), String::new());
    loop {
        let page = api
            .get(&format!("/v1/apps?limit={PAGE_MAX}{after}"))
            .await?;
        apps.extend(page["apps"].as_array().cloned().unwrap_or_default());
        match page["next"].as_str() {
            Some(next) => after = format!("&after={}", percent_encode(next)),
            None => break,
        }
    }
    if args.format.is_json() {
        apps.iter().for_each(|app| output::line(&app.to_string()));
        return Ok(Exit::Done);
    }
    let rows: Vec<Vec<String>> = apps.iter().map(row).collect();
    for line in output::table(&["app", "from", "stored"], &rows) {
        output::line(&line);
    }
    Ok(Exit::Done)
}

fn row(app: &Value) -> Vec<String> {
    let stored = match (app["stored"].as_bool(), app["faulty"].as_bool()) {
        (_, Some(true)) => "with faults",
        (Some(true), _) => "yes",
        _ => "no",
    };
    let cell = |key: &str| output::printable(app[key].as_str().unwrap_or("-")).into_owned();
    vec![cell("app"), cell("source"), stored.to_owned()]
}

async fn show(args: &OneArgs) -> Result<Exit, Failure> {
    let answer = args.call.api()?.get(&path_of(&args.app)).await?;
    let settings = match &answer["settings"] {
        Value::Null => String::new(),
        settings => format!("\n{settings:#}"),
    };
    let faults = answer["faults"].as_array().into_iter().flatten();
    let faults: String = faults
        .filter_map(Value::as_str)
        .map(|fault| format!("\nfault: {}", output::printable(fault)))
        .collect();
    let from = output::printable(answer["source"].as_str().unwrap_or("-")).into_owned();
    let words = format!("{} from {from}{settings}{faults}", args.app);
    args.call.print(&answer, &words);
    Ok(Exit::Done)
}

async fn put(args: &PutArgs) -> Result<Exit, Failure> {
    let json = read(&args.file)?;
    let answer = args.call.api()?.put(&path_of(&args.app), json).await?;
    let what = match answer["changed"].as_bool() {
        Some(false) => "is stored already",
        _ => "stored",
    };
    args.call.print(&answer, &format!("{} {what}", args.app));
    Ok(Exit::Done)
}

async fn remove(args: &OneArgs) -> Result<Exit, Failure> {
    let answer = args.call.api()?.delete(&path_of(&args.app)).await?;
    args.call.print(&answer, &format!("{} removed", args.app));
    Ok(Exit::Done)
}

/// The settings, as long as a node takes them.
fn read(path: &Path) -> Result<String, Failure> {
    let file = match path.as_os_str() == "-" {
        true => "standard input".to_owned(),
        false => path.display().to_string(),
    };
    let most = JSON_BYTES_MAX as u64 + 1;
    let mut json = String::new();
    let read = match path.as_os_str() == "-" {
        true => std::io::stdin().take(most).read_to_string(&mut json),
        false => {
            std::fs::File::open(path).and_then(|opened| opened.take(most).read_to_string(&mut json))
        }
    };
    match read {
        Err(source) => {
            let error = PutError::Unreadable { file, source };
            Err(Failure::new(Exit::Io, &error))
        }
        Ok(bytes) if bytes > JSON_BYTES_MAX => {
            Err(Failure::new(Exit::Data, &PutError::TooLong { file }))
        }
        Ok(_) => Ok(json),
    }
}
