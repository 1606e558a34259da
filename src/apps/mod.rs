//! Which apps there are, and what each sets for itself: one value, replaced as a whole.
//!
//! In: the apps of the file, and those that the API was given. Out: the settings of an app, to
//! whoever judges, keeps or delivers; and a change, to whoever judges again. The app `default` is
//! always there. Bound: [`APPS_MAX`]. Owner of nothing else.

pub mod keeper;
pub mod runner;
pub mod store;
pub mod stored;

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::watch;

use crate::config::app::AppSettings;
use fanfare_protocol::ids::App;

/// Most apps of a node, those of the file and of the API together.
pub const APPS_MAX: usize = 1_000;

/// All apps with their settings.
pub type Settings = BTreeMap<App, Arc<AppSettings>>;

/// The apps of the node, which can be replaced while they are used.
#[derive(Debug)]
pub struct Apps {
    current: RwLock<Arc<Settings>>,
    /// How often they were replaced.
    changes: watch::Sender<u64>,
}

impl Apps {
    /// These. `default` must be among them.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self {
            current: RwLock::new(Arc::new(settings)),
            changes: watch::Sender::new(0),
        }
    }

    /// All of them as they are now.
    #[must_use]
    pub fn all(&self) -> Arc<Settings> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The settings of an app; `None` where there is no such app.
    #[must_use]
    pub fn get(&self, app: &App) -> Option<Arc<AppSettings>> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        current.get(app).cloned()
    }

    /// Goes on with others, and tells it.
    pub fn replace(&self, settings: Settings) {
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(settings);
        self.changes.send_modify(|count| *count += 1);
    }

    /// Told at each change.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}
