//! SIGHUP, and files with secrets that have changed: keys and clients of the API, keys and rules of
//! tokens, apps, and the log's level are read again.
//!
//! In: the signal, every [`LOOK_EVERY`] a look at those files, and how the configuration was loaded. Out: what may change while the node runs is
//! replaced as a whole; of the rest, what differs from the start is named in the log and waits for
//! one. A configuration with a fault changes nothing, and is read again at every look until it has none.
//! Sessions stay: their tokens were verified, and the next one is judged by the new keys. Those of an app
//! that has changed or is gone look at what that means for them. Owner: one task. Bounds: one reading after
//! the other, each told as a fault after [`READ_WITHIN`]; signals that come meanwhile are one.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{oneshot, watch};
use tokio::time::MissedTickBehavior;

use crate::api::keys::ApiKeys;
use crate::apps::keeper::Keeper;
use crate::apps::stored::Filed;
use crate::authorizer::Authorizers;
use crate::config::app::AppSettings;
use crate::config::faults::Faults;
use crate::config::load::Loaded;
use crate::config::show::{Row, rows};
use crate::config::watched::WatchedFiles;
use crate::config::{Auth, Config};
use crate::tasks;
use crate::telemetry::fields::List;
use crate::telemetry::logs;
use crate::telemetry::metrics::Metrics;
use fanfare_protocol::ids::App;

/// What may change while the node runs: whole keys, and sections that end in a dot or bracket.
pub const RELOADED: &[&str] = &[
    "api.keys",
    "api.keys_file",
    "api.clients",
    "auth.keys",
    "auth.issuers",
    "auth.hmac_secret",
    "auth.hmac_secret_file",
    "auth.issuer",
    "auth.audience",
    "auth.leeway_s",
    "auth.token_life_max_s",
    "auth.token_bytes_max",
    "authorizers.headers",
    "log.level",
];

/// Loads the configuration from where it came from.
pub type Load = Box<dyn Fn() -> Result<Loaded, Faults> + Send + Sync>;

/// How to load the configuration again.
pub struct Reload {
    /// What [`signals`] gave.
    pub signals: io::Result<Signal>,
    /// Loads it from where it came from.
    pub load: Load,
    /// Its values at the start, without secrets.
    pub rows: Vec<Row>,
    /// The files with secrets that it named.
    pub files: WatchedFiles,
}

/// How often those files are looked at.
pub const LOOK_EVERY: Duration = Duration::from_secs(10);

/// Longest time for a reading. Longer than any disk takes, and a part of [`LOOK_EVERY`].
const READ_WITHIN: Duration = Duration::from_secs(5);

/// How the configuration is read, and its values at the start.
struct Reader {
    load: Load,
    rows: Vec<Row>,
}

/// What can be replaced.
pub(super) struct Replaced {
    /// The keys of the API.
    pub(super) keys: Arc<ApiKeys>,
    /// The apps, with the keys and rules of their tokens.
    pub(super) keeper: Arc<Keeper>,
    /// What was read at the start: what is not read again stays as it is there.
    pub(super) config: Arc<Config>,
    /// What was read last, which other nodes compare.
    pub(super) read: watch::Sender<Arc<Config>>,
    /// What signs enquiries.
    pub(super) authorizers: Arc<Authorizers>,
    /// What counts it.
    pub(super) metrics: Arc<Metrics>,
}

/// Receives SIGHUP from here on, where it would end the process. Signals that come before the node
/// runs are one, and have their turn then.
///
/// # Errors
/// What the system says.
pub fn signals() -> io::Result<Signal> {
    // It is needed for a moment: whichever runtime comes later brings the signals.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    let _context = runtime.enter();
    signal(SignalKind::hangup())
}

/// Starts the task that waits for the signal.
pub(super) fn watch(reload: Reload, replaced: Replaced) {
    let Reload {
        signals,
        load,
        rows,
        files,
    } = reload;
    match signals {
        Ok(signals) => {
            tasks::spawn(
                "reload",
                run((signals, files), Reader { load, rows }, replaced),
            );
        }
        Err(error) => {
            tracing::error!(
                event = "signals_refused",
                error = &error as &(dyn std::error::Error + 'static),
                "SIGHUP cannot be received"
            );
        }
    }
}

async fn run((mut signals, files): (Signal, WatchedFiles), reload: Reader, replaced: Replaced) {
    let mut readings = Readings::new(reload, files);
    let mut looks = tokio::time::interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        // Both are cancel-safe: a signal or a tick is taken whole or not at all.
        let is_asked = tokio::select! {
            signal = signals.recv() => match signal {
                Some(()) => true,
                None => return,
            },
            _ = looks.tick() => false,
        };
        readings.look(is_asked, &replaced).await;
    }
}

/// Readings of the configuration, one after the other.
struct Readings {
    reader: Arc<Reader>,
    /// The files as they were at the last reading.
    files: WatchedFiles,
    /// What was wrong with the last reading. It is tried again at every look, because what was wrong may
    /// be in a file that nobody watches, or away for a moment.
    faults: Vec<String>,
    /// A look that has not ended: the system holds it.
    held: Option<oneshot::Receiver<Option<Read>>>,
    /// [`READ_WITHIN`], which tests shorten.
    within: Duration,
}

/// The files at a reading, and what it gave.
type Read = (WatchedFiles, Result<Loaded, Faults>);

impl Readings {
    fn new(reader: Reader, files: WatchedFiles) -> Self {
        Self {
            reader: Arc::new(reader),
            files,
            faults: Vec::new(),
            held: None,
            within: READ_WITHIN,
        }
    }

    /// Looks at the files, and reads and replaces where that is due.
    async fn look(&mut self, is_asked: bool, replaced: &Replaced) {
        let taken = match self.read(is_asked).await {
            Ok(None) => return,
            Ok(Some((files, read))) => {
                self.files = files;
                match read {
                    Ok(loaded) => replaced.replace(&loaded, &self.reader.rows),
                    Err(faults) => Err(texts(&faults)),
                }
            }
            Err(held) => Err(vec![held]),
        };
        let counters = &replaced.metrics.control;
        match taken {
            Ok(files) => {
                self.files = files;
                self.faults.clear();
                counters.reloads_taken.add(1);
                tracing::info!(
                    event = "configuration_reloaded",
                    "keys and level were read again"
                );
            }
            // What is wrong is told once, until it is something else or somebody asks.
            Err(faults) if faults == self.faults && !is_asked => {}
            Err(faults) => {
                counters.reloads_refused.add(1);
                for fault in &faults {
                    tracing::error!(
                        event = "configuration_refused",
                        fault,
                        "the configuration was read again and has a fault; the old one stays"
                    );
                }
                self.faults = faults;
            }
        }
    }

    /// Reads where somebody asks, a file has changed, or the last reading was refused. A thread of its own
    /// does it, because a file may lie on a volume that hangs; one that hangs is waited for, and no other
    /// begins beside it.
    ///
    /// # Errors
    /// It hangs.
    async fn read(&mut self, is_asked: bool) -> Result<Option<Read>, String> {
        let is_due = is_asked || !self.faults.is_empty();
        let (reader, before) = (Arc::clone(&self.reader), self.files.clone());
        let mut reading = match self.held.take() {
            Some(held) => held,
            None => {
                let (answer, answered) = oneshot::channel();
                // No thread of the runtime: one that hangs would keep the node from ending.
                let begun = tasks::thread("configuration".to_owned(), move || {
                    let now = before.now();
                    let read = (is_due || now != before).then(|| (now, (reader.load)()));
                    let _ = answer.send(read);
                });
                begun.map_err(|error| format!("the system has no thread for it: {error}"))?;
                answered
            }
        };
        match tokio::time::timeout(self.within, &mut reading).await {
            Ok(Ok(read)) => Ok(read),
            Ok(Err(_)) => Err("the reading of the configuration broke off".to_owned()),
            Err(_) => {
                self.held = Some(reading);
                Err(format!(
                    "the configuration could not be read in {} s: look whether each file that it names lies on a volume that answers",
                    self.within.as_secs()
                ))
            }
        }
    }
}

fn texts(faults: &Faults) -> Vec<String> {
    faults.0.iter().map(ToString::to_string).collect()
}

impl Replaced {
    /// Replaces all that may be. Returns the files with secrets that are named now.
    fn replace(&self, loaded: &Loaded, before: &[Row]) -> Result<WatchedFiles, Vec<String>> {
        let config = &loaded.config;
        let filed = self.filed(loaded).map_err(|faults| texts(&faults))?;
        let info_bytes_max = self.config.session.info_bytes_max;
        let judged = super::apps::verifier(&filed.settings, info_bytes_max);
        judged.map_err(|error| vec![error.to_string()])?;
        logs::set_level(&config.log.level).map_err(|error| vec![error.to_string()])?;
        self.authorizers.take_over(&config.authorizers);
        self.keys.replace(&config.api);
        self.keeper.refile(filed);
        self.read.send_replace(Arc::new(config.clone()));
        let ignored = ignored(before, &rows(&loaded.values));
        if !ignored.is_empty() {
            tracing::warn!(
                event = "configuration_ignored",
                keys = List::of(&ignored).value(),
                "these keys have changed and are read at a start only"
            );
        }
        Ok(loaded.values.watched_files().clone())
    }
}

impl Replaced {
    /// The apps of the file as they hold from now on. Of `default` the keys and rules of tokens are read
    /// again; what is kept of its topics stays as it was at the start, because nodes compare it. The
    /// others start from just that, not from what the file says and this node does not do.
    ///
    /// # Errors
    /// An app asks for what this node was not started with.
    fn filed(&self, loaded: &Loaded) -> Result<Filed, Faults> {
        let (start, read) = (&self.config, &loaded.config);
        let default = AppSettings {
            auth: Auth {
                anonymous: start.auth.anonymous,
                authorize_connect: start.auth.authorize_connect.clone(),
                ..read.auth.clone()
            },
            ..AppSettings::of_default(start)
        };
        let inherited = start.inherited.reloaded(&loaded.values, is_reloaded);
        let apps = inherited.apps_of(&loaded.values)?;
        let apps = apps.into_iter().map(|(app, one)| (app, Arc::new(one)));
        let default = (App::default_app(), Arc::new(default));
        Ok(Filed {
            settings: apps.chain([default]).collect(),
            inherited: Arc::new(inherited),
        })
    }
}

/// Whether a key may change while the node runs.
fn is_reloaded(key: &str) -> bool {
    let name = key.split('[').next().unwrap_or(key);
    RELOADED.contains(&name) || name.starts_with("apps.")
}

/// The keys whose values differ from those at the start and that are read at a start only.
fn ignored(before: &[Row], now: &[Row]) -> Vec<String> {
    let value = |rows: &[Row], key: &str| {
        let row = rows.iter().find(|row| row.key == key);
        row.map(|row| row.value.clone())
    };
    let mut keys: Vec<_> = before.iter().chain(now).map(|row| &row.key).collect();
    keys.sort_unstable();
    keys.dedup();
    keys.into_iter()
        .filter(|key| !is_reloaded(key) && value(before, key) != value(now, key))
        .cloned()
        .collect()
}

#[cfg(test)]
mod tests;
