//! Who keeps the apps of this node: sets them by the API, and holds what the store and the file say.
//!
//! In: calls of the API, readings of [`super::runner`], another file on SIGHUP. Out: [`Apps`] is replaced
//! where something differs, and what the log is told. Owner of [`Known`], under a lock that is held for
//! one look or one reading. One change or reading after the other, so that a reading that began before a
//! change never undoes it. A change holds here at once, and elsewhere when the others read.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use tokio::sync::watch;

use super::store::{Page, Put, Store, StoreError};
use super::stored::{Filed, Known, News, StoredApp};
use super::{Apps, Settings};
use crate::config::app::AppSettings;
use crate::config::app_reader::Inherited;
use crate::config::faults::Faults;
use crate::config::inputs::TryKey;
use crate::telemetry::app_metrics::AppMetrics;
use crate::telemetry::fields::List;
use fanfare_protocol::ids::App;

/// From where an app has its settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// It is `default`: from the sections of the node.
    Node,
    /// From the file.
    File,
    /// From the store.
    Api,
}

/// An app, as the API shows it.
#[derive(Debug, Clone)]
pub struct Shown {
    /// Its name.
    pub app: App,
    /// From where it has its settings. A stored one with faults that was never in force is of the API
    /// too.
    pub source: Source,
    /// What is stored of it.
    pub stored: Option<StoredApp>,
}

/// What came of setting an app.
#[derive(Debug)]
pub enum Set {
    /// It is in force here. Whether it differs from what was stored.
    Done(bool),
    /// The file has it.
    InFile,
    /// So many are stored, and no more can be.
    TooMany(u64),
    /// All together would have so many bytes.
    TooLarge(u64),
}

/// What came of removing an app.
#[derive(Debug, PartialEq, Eq)]
pub enum Removed {
    /// It is not in force here any more.
    Done,
    /// The file has it.
    InFile,
    /// Nothing is stored of it.
    NotThere,
}

/// See the module.
pub struct Keeper {
    apps: Arc<Apps>,
    store: Store,
    known: Mutex<Known>,
    metrics: Arc<AppMetrics>,
    /// Held for a change or a reading.
    turn: tokio::sync::Mutex<Reading>,
    /// Why what is stored may not be all that is in force; `None`: it is.
    trouble: Mutex<Option<String>>,
    /// Whether the first reading is waited for: a node that lets somebody in before would know none of
    /// the stored apps.
    awaited: watch::Sender<bool>,
}

/// How far was read.
#[derive(Debug, Default)]
struct Reading {
    number: Option<Box<str>>,
    at: Option<Instant>,
}

impl std::fmt::Debug for Keeper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keeper").finish_non_exhaustive()
    }
}

impl Keeper {
    /// Over the apps of the node, which are those of its file so far.
    #[must_use]
    pub fn new(
        apps: Arc<Apps>,
        store: Store,
        (inherited, try_key): (Arc<Inherited>, TryKey),
        metrics: Arc<AppMetrics>,
    ) -> Self {
        let filed = Filed {
            settings: (*apps.all()).clone(),
            inherited,
        };
        let keeper = Self {
            apps,
            store,
            known: Mutex::new(Known::new(filed, try_key)),
            metrics,
            turn: tokio::sync::Mutex::default(),
            trouble: Mutex::new(Some("what is stored was not read yet".to_owned())),
            awaited: watch::Sender::new(true),
        };
        keeper.count(&keeper.known());
        keeper
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `default` and the apps of the file.
    #[must_use]
    pub fn of_file(&self) -> Settings {
        self.known().filed().settings.clone()
    }

    /// Goes on with the apps of another file: `default` and its own.
    pub fn refile(&self, filed: Filed) {
        let mut known = self.known();
        known.refile(filed);
        self.apps.replace(known.merged());
        self.count(&known);
    }

    /// Reads the settings of an app as [`Self::set`] wants them.
    ///
    /// # Errors
    /// Every fault.
    pub fn judge(&self, json: &[u8]) -> Result<AppSettings, Faults> {
        self.known().judge(json)
    }

    /// Stores an app, whose JSON was judged. If it is dropped, it may have been stored.
    ///
    /// # Errors
    /// [`StoreError`]: it may have been stored.
    pub async fn set(&self, app: &App, json: &str) -> Result<Set, StoreError> {
        let mut reading = self.turn.lock().await;
        if self.is_in_file(app) {
            return Ok(Set::InFile);
        }
        // Whatever comes of it, the next reading reads all.
        reading.number = None;
        match self.store.put(app.as_str(), json).await? {
            Put::TooMany(count) => Ok(Set::TooMany(count)),
            Put::TooLarge(bytes) => Ok(Set::TooLarge(bytes)),
            Put::Same => {
                self.put_here(app, Some(json));
                Ok(Set::Done(false))
            }
            Put::Stored => {
                self.put_here(app, Some(json));
                Ok(Set::Done(true))
            }
        }
    }

    /// Removes an app. If it is dropped, it may have been removed.
    ///
    /// # Errors
    /// [`StoreError`]: it may have been removed.
    pub async fn remove(&self, app: &App) -> Result<Removed, StoreError> {
        let mut reading = self.turn.lock().await;
        let is_in_file = self.is_in_file(app);
        // What the file hides may be removed all the same.
        if is_in_file && !self.known().stored().contains_key(app) {
            return Ok(Removed::InFile);
        }
        reading.number = None;
        if !self.store.remove(app.as_str()).await? {
            return Ok(Removed::NotThere);
        }
        self.put_here(app, None);
        Ok(Removed::Done)
    }

    /// Puts a change in force here.
    fn put_here(&self, app: &App, json: Option<&str>) {
        let mut known = self.known();
        let stored = known.stored().iter();
        let others = stored.filter(|(other, _)| *other != app);
        let row = |app: &App, json: &str| (app.to_string().into_bytes(), json.as_bytes().to_vec());
        let mut rows: Vec<_> = others.map(|(app, one)| row(app, &one.json)).collect();
        rows.extend(json.map(|json| row(app, json)));
        let news = known.take(&rows);
        self.tell(&mut known, news);
    }

    fn is_in_file(&self, app: &App) -> bool {
        self.known().filed().settings.contains_key(app)
    }

    /// Reads the store, whole where nothing was read for `whole_after`.
    ///
    /// # Errors
    /// [`StoreError`]: what is known stays.
    pub(super) async fn read(&self, whole_after: std::time::Duration) -> Result<(), StoreError> {
        let mut reading = self.turn.lock().await;
        let is_due = reading.at.is_none_or(|at| at.elapsed() >= whole_after);
        let number = reading.number.clone().filter(|_| !is_due);
        let page = match self.store.read(number.as_deref()).await {
            Ok(page) => page,
            Err(error) => {
                self.metrics.failed.add(1);
                self.troubled("what is stored cannot be read".to_owned());
                return Err(error);
            }
        };
        self.take(page, &mut reading);
        self.wait_no_longer();
        Ok(())
    }

    fn take(&self, page: Page, reading: &mut Reading) {
        let trouble = match page {
            Page::Same => None,
            Page::All { number, rows } => {
                *reading = Reading {
                    number: Some(number),
                    at: Some(Instant::now()),
                };
                let mut known = self.known();
                let news = known.take(&rows);
                self.tell(&mut known, news);
                None
            }
            // What was stored once leaves its number behind: Redis has lost it, and nobody has
            // removed these apps.
            Page::Nothing => match self.known().stored().len() {
                0 => None,
                count => Some(format!(
                    "Redis has lost the {count} stored apps; they stay until this node ends: put them again"
                )),
            },
            Page::TooMany(count) => Some(format!("{count} apps are stored, too many to be read")),
            Page::TooLarge(bytes) => Some(format!(
                "the stored apps have {bytes} bytes, too many to be read"
            )),
        };
        match trouble {
            Some(trouble) => {
                reading.number = None;
                self.refuse_reading(trouble);
            }
            None => *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = None,
        }
    }

    fn troubled(&self, why: String) -> bool {
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new = trouble.as_ref() != Some(&why);
        *trouble = Some(why);
        is_new
    }

    /// What lies in the store cannot be taken: told once.
    fn refuse_reading(&self, trouble: String) {
        if self.troubled(trouble.clone()) {
            tracing::error!(
                event = "stored_apps_refused",
                trouble,
                "what is stored of apps is not taken; what is known stays"
            );
        }
    }

    /// Puts in force what has changed, and tells it.
    fn tell(&self, known: &mut Known, news: News) {
        if news.is_change() {
            self.apps.replace(known.merged());
            tracing::info!(
                event = "stored_apps_changed",
                changed = List::of(&news.changed).value(),
                removed = List::of(&news.removed).value(),
                "apps were set or removed by the API"
            );
        }
        for (app, faults) in &news.refused {
            tracing::error!(
                event = "stored_app_refused",
                app,
                faults = List::of(faults).value(),
                "a stored app has faults; what was in force before stays"
            );
        }
        if !news.overridden.is_empty() {
            tracing::warn!(
                event = "stored_apps_ignored",
                apps = List::of(&news.overridden).value(),
                "these stored apps are in the file of this node too, which wins"
            );
        }
        self.count(known);
    }

    fn count(&self, known: &Known) {
        self.metrics.apps.set(known.merged().len() as u64);
        self.metrics.refused.set(known.refused_count() as u64);
    }

    /// All apps by name, those that are stored and not in force too.
    #[must_use]
    pub fn list(&self) -> Vec<Shown> {
        let known = self.known();
        let filed = &known.filed().settings;
        let stored = known
            .stored()
            .keys()
            .filter(|app| !filed.contains_key(*app));
        let mut apps: Vec<_> = filed.keys().chain(stored).cloned().collect();
        apps.sort_unstable();
        apps.into_iter().map(|app| shown(&known, app)).collect()
    }

    /// One app; `None` where nobody has it.
    #[must_use]
    pub fn show(&self, app: &App) -> Option<Shown> {
        let known = self.known();
        let is_there = known.filed().settings.contains_key(app) || known.stored().contains_key(app);
        is_there.then(|| shown(&known, app.clone()))
    }

    /// Why not all that is stored is in force; `None`: it is.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        let trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        let refused = self.known().refused_count();
        let faulty = (refused > 0).then(|| format!("stored apps with faults: {refused}"));
        trouble.clone().or(faulty)
    }

    /// Whether the first reading is waited for.
    #[must_use]
    pub fn awaited(&self) -> watch::Receiver<bool> {
        self.awaited.subscribe()
    }

    /// Whether that is so now.
    pub(super) fn is_awaited(&self) -> bool {
        *self.awaited.borrow()
    }

    /// It was read, or was waited for long enough: where Redis is away the node gets ready without.
    pub(super) fn wait_no_longer(&self) {
        let goes_on = |is_awaited: &mut bool| std::mem::take(is_awaited);
        self.awaited.send_if_modified(goes_on);
    }

    /// How many apps there are.
    #[must_use]
    pub fn apps_count(&self) -> usize {
        self.apps.all().len()
    }
}

fn shown(known: &Known, app: App) -> Shown {
    let source = match known.filed().settings.contains_key(&app) {
        _ if app == App::default_app() => Source::Node,
        true => Source::File,
        false => Source::Api,
    };
    Shown {
        source,
        stored: known.stored().get(&app).cloned(),
        app,
    }
}
