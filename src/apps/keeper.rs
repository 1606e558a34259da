//! Who keeps the apps of this node: sets them by the API, and holds what the store and the file say.
//!
//! In: calls of the API, readings ([`super::reading`]), another file on SIGHUP. Out: [`Apps`] is replaced
//! where something differs, and what the log is told. Owner of [`Known`], under a lock that is held for
//! one look. One change or reading after the other, so that a reading that began before a change never
//! undoes it. A change holds here at once, and elsewhere when the others read. Bounds: those of the store;
//! [`NAMESPACES_MAX`](super::stored::NAMESPACES_MAX) namespaces of an app that is set,
//! [`NAMESPACES_ALL_MAX`](super::stored::NAMESPACES_ALL_MAX) of all.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tokio::sync::watch;

use super::progress::Reading;
use super::store::{Before, Mark, Put, Store, StoreError};
use super::stored::{Filed, Judge, Judged, Known, News, StoredApp};
use super::{Apps, Settings};
use crate::config::app_reader::Inherited;
use crate::config::inputs::TryKey;
use crate::telemetry::app_metrics::AppMetrics;
use crate::telemetry::fields::List;
use fanfare_protocol::ids::App;

/// Most names of apps with faults that the health tells.
const NAMED_MAX: usize = 8;

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
    /// All together would have so many namespaces.
    TooManyNamespaces(usize),
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
    pub(super) apps: Arc<Apps>,
    pub(super) store: Store,
    known: Mutex<Known>,
    pub(super) metrics: Arc<AppMetrics>,
    /// Held for a change or a reading.
    pub(super) turn: tokio::sync::Mutex<Reading>,
    /// Why what is stored may not be all that is in force; `None`: it is.
    trouble: Mutex<Option<String>>,
    /// Whether the first reading is waited for: a node that lets somebody in before would know none of
    /// the stored apps.
    awaited: watch::Sender<bool>,
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
        if store.is_shared() {
            apps.are_unread();
        }
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

    pub(super) fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `default` and the apps of the file.
    #[must_use]
    pub fn of_file(&self) -> Settings {
        self.known().filed().settings.clone()
    }

    /// Goes on with the apps of another file: `default` and its own at once, and what is stored as it was
    /// until the next reading has judged it anew, which is made at once.
    pub fn refile(&self, filed: Filed) {
        let mut known = self.known();
        let news = known.refile(filed);
        self.apps.replace(known.merged());
        self.tell(&known, &news);
        drop(known);
        self.apps.ring();
    }

    /// By what the JSON of an app is judged.
    #[must_use]
    pub fn judge(&self) -> Judge {
        self.known().judge()
    }

    /// Stores an app, whose JSON was judged. If it is dropped, it may have been stored.
    ///
    /// # Errors
    /// [`StoreError`]: it may have been stored.
    pub async fn set(&self, app: &App, json: &str, judged: Judged) -> Result<Set, StoreError> {
        let mut reading = self.turn.lock().await;
        if self.is_in_file(app) {
            return Ok(Set::InFile);
        }
        let life = {
            let known = self.known();
            if let Err(all) = known.has_room(app, judged.namespaces_count()) {
                return Ok(Set::TooManyNamespaces(all));
            }
            known.stored().get(app).map(|stored| stored.mark.life)
        };
        let before = Before {
            life,
            read_to: reading.read_to.number,
        };
        // Whatever comes of it, the next reading looks at all.
        reading.number = None;
        let put = self.store.put(app.as_str(), json.as_bytes(), before);
        let (is_changed, mark) = match put.await? {
            Put::TooMany(count) => return Ok(Set::TooMany(count)),
            Put::TooLarge(bytes) => return Ok(Set::TooLarge(bytes)),
            Put::Removed => return Err(StoreError::Unexpected),
            Put::Same(mark) => (false, mark),
            Put::Stored(mark) => (true, mark),
        };
        self.put_here(app, &Bytes::copy_from_slice(json.as_bytes()), mark, judged);
        Ok(Set::Done(is_changed))
    }

    fn put_here(&self, app: &App, json: &Bytes, mark: Mark, judged: Judged) {
        let mut known = self.known();
        let news = known.put(app, json, mark, judged);
        self.take(&known, &news);
    }

    /// Removes an app. If it is dropped, it may have been removed.
    ///
    /// # Errors
    /// [`StoreError`]: it may have been removed.
    pub async fn remove(&self, app: &App) -> Result<Removed, StoreError> {
        let mut reading = self.turn.lock().await;
        let is_in_file = self.is_in_file(app);
        let is_known = self.known().stored().contains_key(app);
        // What the file hides may be removed all the same.
        if is_in_file && !is_known {
            return Ok(Removed::InFile);
        }
        reading.number = None;
        if !self.store.remove(app.as_str(), is_known).await? {
            return Ok(Removed::NotThere);
        }
        let mut known = self.known();
        let news = known.remove(app);
        self.take(&known, &news);
        Ok(Removed::Done)
    }

    fn is_in_file(&self, app: &App) -> bool {
        self.known().filed().settings.contains_key(app)
    }

    /// All that is stored is taken, or why not.
    pub(super) fn set_trouble(&self, trouble: Option<String>) {
        let Some(why) = trouble else {
            *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = None;
            return;
        };
        if self.troubled(why.clone()) {
            tracing::error!(
                event = "stored_apps_refused",
                trouble = why,
                "what is stored of apps is not taken; what is known stays"
            );
        }
    }

    /// Whether that is new.
    pub(super) fn troubled(&self, why: String) -> bool {
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new = trouble.as_ref() != Some(&why);
        *trouble = Some(why);
        is_new
    }

    /// Puts in force what has changed, and tells it.
    pub(super) fn take(&self, known: &Known, news: &News) {
        if news.is_change() {
            self.apps.replace(known.merged());
            tracing::info!(
                event = "stored_apps_changed",
                changed = List::of(&news.changed).value(),
                removed = List::of(&news.removed).value(),
                "apps were set or removed by the API"
            );
        }
        self.tell(known, news);
    }

    fn tell(&self, known: &Known, news: &News) {
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
        if !news.lost.is_empty() {
            tracing::error!(
                event = "stored_apps_lost",
                apps = List::of(&news.lost).value(),
                "Redis has lost these apps, which nobody has removed; they stay and are put back"
            );
        }
        self.count(known);
    }

    fn count(&self, known: &Known) {
        self.metrics.apps.set(self.apps_count() as u64);
        self.metrics.refused.set(known.refused().count() as u64);
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
        let refused: Vec<_> = self.known().refused().collect();
        let faulty = (!refused.is_empty()).then(|| {
            let (count, some) = (refused.len(), refused.iter().take(NAMED_MAX));
            let some: Vec<_> = some.map(String::as_str).collect();
            let more = if count > some.len() { ", ..." } else { "" };
            format!(
                "stored apps with faults: {count} ({}{more})",
                some.join(", ")
            )
        });
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
