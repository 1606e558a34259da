//! The node's part in apps: the rules of tokens follow them, and sessions look again when they change.
//!
//! In: changes of [`Apps`], from the file or the API. Out: other rules for the verifier and keys that
//! are fetched or no more, at once; then what this node says that it keeps, and one message a change to
//! each worker, which tells the sessions of the apps that have changed. Bounds: what a worker with a full queue is still to be told waits as hashes, one
//! an app, and is tried again every [`AGAIN_AFTER`].

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use crate::apps::keeper::Keeper;
use crate::apps::{self, Apps, Settings};
use crate::auth::error::KeyError;
use crate::auth::verifier::Verifier;
use crate::cluster::keeping;
use crate::cluster::texts::Texts;
use crate::config::{Auth, Config};
use crate::revocation::news::News;
use crate::tasks;
use crate::verification::Checks;
use crate::worker::handle::{Inbound, WorkerHandle};
use fanfare_protocol::ids::App;

/// How long it rests before a worker with a full queue is told again.
const AGAIN_AFTER: Duration = Duration::from_millis(100);

/// Verifies tokens of these apps.
///
/// # Errors
/// [`KeyError`] with every key that cannot be used.
pub(super) fn verifier(apps: &Settings, info_bytes_max: usize) -> Result<Verifier, KeyError> {
    let rules = apps.iter().map(|(app, settings)| (app, &settings.auth));
    Verifier::of_apps(rules, info_bytes_max)
}

/// How long tokens of these apps may live, and how far ahead of their use they may be issued, at the most.
pub(super) fn longest(apps: &Settings) -> (Duration, Duration) {
    let auth = |of: fn(&Auth) -> Duration| apps.values().map(|one| of(&one.auth)).max();
    let life = auth(|auth| auth.token_life_max).unwrap_or_default();
    (life, auth(|auth| auth.leeway).unwrap_or_default())
}

/// What judges tokens by the apps.
pub(super) struct TokenRules {
    verifier: Arc<Verifier>,
    checks: Arc<Checks>,
    /// `session.info_bytes_max`.
    info_bytes_max: usize,
    /// The apps whose rules are in force: those that are the same next time keep theirs.
    taken: Mutex<Settings>,
}

/// Who is told of changes.
pub(super) struct Followers {
    pub(super) apps: Arc<Apps>,
    pub(super) keeper: Arc<Keeper>,
    pub(super) config: Arc<Config>,
    /// What this node says that it keeps, to the others.
    pub(super) texts: Texts,
    /// The configuration as it was read last.
    pub(super) read: watch::Receiver<Arc<Config>>,
    pub(super) workers: Vec<WorkerHandle>,
}

impl Followers {
    /// Follows, for as long as the node runs. `told` are the apps that sessions know at first.
    pub(super) fn follow(self, told: Settings) {
        tasks::vital("apps", self.run(Arc::new(told)));
    }

    async fn run(mut self, mut told: Arc<Settings>) {
        let mut changes = self.apps.changes();
        // One that was replaced before this began counts as a change.
        let mut read = Arc::clone(&self.config);
        // What each worker is still to be told.
        let mut owed = vec![News::default(); self.workers.len()];
        loop {
            let now = self.apps.all();
            let changed = apps::changed(&told, &now);
            let read_now = Arc::clone(&self.read.borrow_and_update());
            if !changed.is_empty() || !Arc::ptr_eq(&read, &read_now) {
                // What the API has set is the same for all nodes, within seconds.
                let of_file = self.keeper.of_file();
                let said = keeping::said(&self.config, &read_now, of_file.iter());
                self.texts.say(&said);
                read = read_now;
            }
            if !changed.is_empty() {
                let count = changed.len();
                tracing::info!(
                    event = "apps_changed",
                    count,
                    "apps were set, changed or removed"
                );
                for owed in &mut owed {
                    owed.merge(News::of_apps(changed.iter()));
                }
                told = now;
            }
            let mut is_owed = false;
            for (worker, owed) in self.workers.iter().zip(&mut owed) {
                is_owed |= !tell(worker, owed);
            }
            // Both waits are cancel-safe, and it is looked again whichever ends.
            let change = async {
                tokio::select! {
                    changed = changes.changed() => changed,
                    changed = self.read.changed() => changed,
                }
            };
            match is_owed {
                true => {
                    let _ = tokio::time::timeout(AGAIN_AFTER, change).await;
                }
                false if change.await.is_err() => return,
                false => {}
            }
        }
    }
}

impl TokenRules {
    pub(super) fn new(
        verifier: &Arc<Verifier>,
        checks: &Arc<Checks>,
        info_bytes_max: usize,
    ) -> Self {
        Self {
            verifier: Arc::clone(verifier),
            checks: Arc::clone(checks),
            info_bytes_max,
            taken: Mutex::default(),
        }
    }

    /// Judges tokens by what these apps set. An app with a key that cannot be used has none: its tokens
    /// are refused, and those of the others are not.
    pub(super) fn take(&self, apps: &Settings) {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let is_same = |app: &App| match (taken.get(app), apps.get(app)) {
            (Some(before), Some(now)) => Arc::ptr_eq(before, now),
            _ => false,
        };
        // Neither order may let a token live longer than what revokes it.
        let revocations = self.verifier.revocations();
        let (life, leeway) = longest(apps);
        revocations.set_token_life(life.max(revocations.token_life()));
        revocations.set_leeway(leeway);
        let rules = apps.iter().map(|(app, settings)| (app, &settings.auth));
        let followed = self.verifier.follow(rules, is_same, self.info_bytes_max);
        revocations.set_token_life(life);
        taken.clone_from(apps);
        drop(taken);
        if let Err(error) = followed {
            tracing::error!(
                event = "app_keys_refused",
                error = &error as &(dyn std::error::Error + 'static),
                "keys of an app cannot be used, so its tokens are refused"
            );
        }
        self.checks.follow();
    }
}

/// Whether the worker knows all now.
fn tell(worker: &WorkerHandle, owed: &mut News) -> bool {
    if owed.is_empty() {
        return true;
    }
    let message = Inbound::AppsChanged(std::mem::take(owed).into());
    match worker.send(message) {
        Err(Inbound::AppsChanged(back)) => {
            *owed = News::clone(&back);
            false
        }
        _ => true,
    }
}
