//! SIGHUP, and files with secrets that have changed: keys and clients of the API, keys and rules of
//! tokens, and the log's level are read again.
//!
//! In: the signal, every [`LOOK_EVERY`] a look at those files, and how the configuration was loaded. Out: what may change while the node runs is
//! replaced as a whole; of the rest, what differs from the start is named in the log and waits for
//! one. A configuration with a fault changes nothing. Sessions stay: their tokens were verified, and
//! the next one is judged by the new keys. Owner: one task. Bounds: one reading after the other;
//! signals that come meanwhile are one.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::MissedTickBehavior;

use crate::api::keys::ApiKeys;
use crate::auth::verifier::Verifier;
use crate::authorizer::Authorizers;
use crate::config::faults::Faults;
use crate::config::load::Loaded;
use crate::config::show::{Row, rows};
use crate::config::watched::WatchedFiles;
use crate::tasks;
use crate::telemetry::fields::List;
use crate::telemetry::logs;
use crate::telemetry::metrics::Metrics;
use crate::verification::Checks;

/// What may change while the node runs: whole keys, and sections that end in a dot or bracket.
pub const RELOADED: &[&str] = &[
    "api.keys",
    "api.keys_file",
    "api.clients",
    "auth.keys",
    "auth.issuers",
    "auth.hmac_secret",
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

/// What can be replaced.
pub(super) struct Replaced {
    /// The keys of the API.
    pub(super) keys: Arc<ApiKeys>,
    /// The keys and rules of tokens.
    pub(super) verifier: Arc<Verifier>,
    /// What fetches the keys of issuers.
    pub(super) checks: Arc<Checks>,
    /// What signs enquiries.
    pub(super) authorizers: Arc<Authorizers>,
    /// `session.info_bytes_max`, which stays.
    pub(super) info_bytes_max: usize,
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
            tasks::spawn("reload", run((signals, files), (load, rows), replaced));
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

async fn run(
    (mut signals, mut files): (Signal, WatchedFiles),
    reload: (Load, Vec<Row>),
    replaced: Replaced,
) {
    let mut looks = tokio::time::interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        // Both are cancel-safe: a signal or a tick is taken whole or not at all.
        tokio::select! {
            signal = signals.recv() => match signal {
                Some(()) => {}
                None => return,
            },
            _ = looks.tick() => {
                let now = files.now();
                if now == files {
                    continue;
                }
                // What is wrong with it is told once, until it changes again.
                files = now;
            }
        }
        let counters = &replaced.metrics.control;
        match replaced.read(&reload) {
            Ok(read) => {
                files = read;
                counters.reloads_taken.add(1);
                tracing::info!(
                    event = "configuration_reloaded",
                    "keys and level were read again"
                );
            }
            Err(faults) => {
                counters.reloads_refused.add(1);
                for fault in faults {
                    tracing::error!(
                        event = "configuration_refused",
                        fault,
                        "the configuration was read again and has a fault; the old one stays"
                    );
                }
            }
        }
    }
}

impl Replaced {
    /// Reads it all, and replaces only then. Returns the files with secrets that it names now.
    fn read(&self, (load, before): &(Load, Vec<Row>)) -> Result<WatchedFiles, Vec<String>> {
        let loaded = load().map_err(|faults| {
            let faults = faults.0.iter();
            faults.map(ToString::to_string).collect::<Vec<_>>()
        })?;
        let config = &loaded.config;
        let verifier = Verifier::new(&config.auth, self.info_bytes_max)
            .map_err(|error| vec![error.to_string()])?;
        logs::set_level(&config.log.level).map_err(|error| vec![error.to_string()])?;
        self.verifier.take_over(verifier);
        self.checks.follow();
        self.authorizers.take_over(&config.authorizers);
        self.keys.replace(&config.api);
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

/// The keys whose values differ from those at the start and that are read at a start only.
fn ignored(before: &[Row], now: &[Row]) -> Vec<String> {
    let is_reloaded = |key: &str| {
        let name = key.split('[').next().unwrap_or(key);
        RELOADED.contains(&name)
    };
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
mod tests {
    use super::*;

    #[test]
    fn only_keys_that_wait_for_a_start_are_named() {
        let row = |key: &str, value: &str| Row {
            key: key.into(),
            value: value.into(),
            origin: "default".into(),
        };
        let before = [
            row("server.listen", "a"),
            row("log.level", "info"),
            row("auth.keys[0]", "a HS256 ***"),
            row("authorizers[0]", "a https://a/ ***"),
            row("authorizers.headers[0]", "a ***"),
            row("namespaces.a.presence", "true"),
        ];
        let now = [
            row("server.listen", "b"),
            row("log.level", "debug"),
            row("auth.keys[0]", "b HS256 ***"),
            row("auth.keys[1]", "c HS256 ***"),
            row("authorizers[0]", "a https://b/ ***"),
            row("authorizers.headers[0]", "b ***"),
            row("drain.window_ms", "5"),
        ];
        let named = [
            "authorizers[0]",
            "drain.window_ms",
            "namespaces.a.presence",
            "server.listen",
        ];
        assert_eq!(ignored(&before, &now), named);
        assert!(ignored(&before, &before).is_empty());
    }
}
