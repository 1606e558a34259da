//! Which apps there are, and what each sets for itself: one value, replaced as a whole.
//!
//! In: the apps of the file, and those that the API was given. Out: the settings of an app, to
//! whoever judges, keeps or delivers; and a change, to whoever judges again. The app `default` is
//! always there. Bound: [`APPS_MAX`](crate::config::app_reader::APPS_MAX) of the file and as many that
//! are stored. Owner of nothing else.

pub mod keeper;
mod progress;
mod reading;
pub mod runner;
pub mod store;
pub mod stored;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::time::Instant;

use tokio::sync::{Notify, watch};

use crate::config::Config;
use crate::config::app::AppSettings;
use fanfare_protocol::ids::{App, Topic};

/// All apps with their settings.
pub type Settings = BTreeMap<App, Arc<AppSettings>>;

/// What takes other settings at once, before whoever has set them goes on.
type Take = Box<dyn Fn(&Settings) + Send + Sync>;

/// The apps of the node, which can be replaced while they are used.
pub struct Apps {
    current: RwLock<Arc<Settings>>,
    /// What holds for the topics of an app that is not known.
    nobody: Arc<AppSettings>,
    take: OnceLock<Take>,
    /// Held for a change: one after the other.
    turn: Mutex<()>,
    /// How often they were replaced.
    changes: watch::Sender<u64>,
    /// How far what is stored was read.
    reach: watch::Sender<Reach>,
    /// Whether that is not at all.
    are_unread: Arc<AtomicBool>,
    /// A reading of what is stored is wanted.
    bell: Notify,
}

/// How far what is stored of apps was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reach {
    /// Nothing is stored anywhere but here.
    All,
    /// Not yet.
    Unread,
    /// When the last reading began.
    Read(Instant),
}

impl std::fmt::Debug for Apps {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Apps").finish_non_exhaustive()
    }
}

impl Apps {
    /// These. `default` must be among them.
    ///
    /// # Panics
    /// Where it is not.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        let default = settings.get(&App::default_app());
        let default = default.expect("`default` is among them");
        Self {
            nobody: Arc::new(AppSettings::of_nobody(default)),
            current: RwLock::new(Arc::new(settings)),
            take: OnceLock::new(),
            turn: Mutex::default(),
            changes: watch::Sender::new(0),
            reach: watch::Sender::new(Reach::All),
            are_unread: Arc::default(),
            bell: Notify::new(),
        }
    }

    /// There are more that are stored, and none of them was read yet.
    pub fn are_unread(&self) {
        self.reach.send_replace(Reach::Unread);
        self.are_unread.store(true, Ordering::Release);
    }

    /// A reading that began then has brought what is stored.
    pub fn were_read(&self, begun_at: Instant) {
        let goes_on = |reach: &mut Reach| match reach {
            Reach::All => false,
            Reach::Unread | Reach::Read(_) => {
                *reach = Reach::Read(begun_at);
                true
            }
        };
        if self.reach.send_if_modified(goes_on) {
            self.are_unread.store(false, Ordering::Release);
        }
    }

    /// Set as long as [`Self::are_read`] is false.
    #[must_use]
    pub fn unread(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.are_unread)
    }

    /// Whether an app that is not here is none: what is stored was read once at least. Until then
    /// nobody may be told that there is no such app.
    #[must_use]
    pub fn are_read(&self) -> bool {
        !self.are_unread.load(Ordering::Acquire)
    }

    /// Waits for a reading that begins at this time or later, and asks for one. For ever, where what is
    /// stored cannot be read. Cancel-safe.
    pub async fn read_after(&self, at: Instant) {
        let is_read = |reach: &Reach| match reach {
            Reach::All => true,
            Reach::Unread => false,
            Reach::Read(begun_at) => *begun_at >= at,
        };
        let mut reach = self.reach.subscribe();
        if !is_read(&reach.borrow_and_update()) {
            self.ring();
        }
        // The sender is here, so this is no error.
        let _ = reach.wait_for(is_read).await;
    }

    /// Asks for a reading of what is stored.
    pub fn ring(&self) {
        self.bell.notify_one();
    }

    /// Until that was asked for. Cancel-safe.
    pub async fn rung(&self) {
        self.bell.notified().await;
    }

    /// What there is now is taken by this, and each change before [`Self::replace`] returns: with its
    /// answer an app is in force. Only the first one counts.
    pub fn taken_by(&self, take: impl Fn(&Settings) + Send + Sync + 'static) {
        // No change may come between.
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        take(&self.all());
        let _ = self.take.set(Box::new(take));
    }

    /// Those of the configuration.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        Self::new(settings_of(config))
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

    /// The settings that hold for a topic: those of its app. Where there is no such app, or this node
    /// has not heard of it yet, nobody may do anything with the topic and nothing is kept.
    #[must_use]
    pub fn of_topic(&self, topic: &Topic) -> Arc<AppSettings> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(current.get(topic.app()).unwrap_or(&self.nobody))
    }

    /// The same for who writes by them; `None` where there is no such app. What holds for nobody may deny, and
    /// must decide nothing else: kept by it, a publication would take what its topic has kept along.
    #[must_use]
    pub fn known(&self, topic: &Topic) -> Option<Arc<AppSettings>> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        current.get(topic.app()).cloned()
    }

    /// The same for an app.
    #[must_use]
    pub fn or_nobody(&self, app: &App) -> Arc<AppSettings> {
        self.get(app).unwrap_or_else(|| Arc::clone(&self.nobody))
    }

    /// Whether the app of a topic is known.
    #[must_use]
    pub fn has(&self, topic: &Topic) -> bool {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        current.contains_key(topic.app())
    }

    /// Goes on with others, and tells it. An app whose settings are equal keeps the very value that
    /// it had, so that who compares two of them finds only what has changed. `default` stays, also
    /// where it is not among them.
    pub fn replace(&self, mut settings: Settings) {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.all();
        for (app, value) in &mut settings {
            if let Some(before) = before.get(app).filter(|before| *before == value) {
                *value = Arc::clone(before);
            }
        }
        let default = App::default_app();
        if let Some(before) = before.get(&default) {
            settings
                .entry(default)
                .or_insert_with(|| Arc::clone(before));
        }
        let settings = Arc::new(settings);
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        *current = Arc::clone(&settings);
        drop(current);
        if let Some(take) = self.take.get() {
            take(&settings);
        }
        self.changes.send_modify(|count| *count += 1);
    }

    /// Told at each change.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}

/// The apps of the configuration: `default`, which has the sections of the node, and the others.
#[must_use]
pub fn settings_of(config: &Config) -> Settings {
    let others = config.apps.iter();
    let others = others.map(|(app, settings)| (app.clone(), Arc::new(settings.clone())));
    let default = Arc::new(AppSettings::of_default(config));
    others.chain([(App::default_app(), default)]).collect()
}

/// The apps that are in one of them and not, or otherwise, in the other.
#[must_use]
pub fn changed(before: &Settings, now: &Settings) -> BTreeSet<App> {
    let differs = |app: &App| match (before.get(app), now.get(app)) {
        (Some(before), Some(now)) => !Arc::ptr_eq(before, now) && before != now,
        _ => true,
    };
    let all = before.keys().chain(now.keys());
    all.filter(|app| differs(app)).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Allow;
    use crate::config::load::defaults;

    fn app(name: &str) -> App {
        App::new(name).unwrap()
    }

    /// The defaults and these apps, each with so much history.
    fn settings(apps: &[(&str, u32)]) -> Settings {
        let mut config = defaults();
        for (name, history_entries_max) in apps {
            let mut of_app = AppSettings::of_default(&config);
            let namespace = of_app.namespaces.get_mut("default").unwrap();
            namespace.history_entries_max = *history_entries_max;
            config.apps.insert(app(name), of_app);
        }
        settings_of(&config)
    }

    #[test]
    fn each_topic_has_the_options_of_its_own_app_and_an_unknown_one_those_of_nobody() {
        let apps = Apps::new(settings(&[("shop", 7)]));
        let kept = |app_name: &str, name: &str| {
            let topic = Topic::new(&app(app_name), name).unwrap();
            let of_app = apps.of_topic(&topic);
            let options = of_app.namespace(&topic);
            (
                options.history_entries_max,
                options.subscribe,
                apps.has(&topic),
            )
        };
        assert_eq!(kept("shop", "t").0, 7);
        assert_ne!(kept("default", "t").0, 7);
        assert!(kept("shop", "t").2 && kept("default", "t").2);
        for name in ["t", "chat:1", "@", "@ada"] {
            assert_eq!(kept("gone", name), (0, Allow::Nobody, false), "{name}");
            let topic = Topic::new(&app("gone"), name).unwrap();
            assert!(apps.known(&topic).is_none(), "nobody writes by that");
        }
    }

    #[test]
    fn only_what_differs_has_changed_and_default_is_never_removed() {
        let apps = Apps::new(settings(&[("shop", 7), ("same", 5), ("gone", 1)]));
        let (before, told) = (apps.all(), apps.changes());
        apps.replace(settings(&[("shop", 8), ("same", 5), ("new", 1)]));
        assert!(told.has_changed().unwrap());
        let differ = [app("gone"), app("new"), app("shop")];
        assert_eq!(changed(&before, &apps.all()), differ.into());
        let before = apps.all();
        apps.replace(Settings::new());
        assert!(apps.get(&App::default_app()).is_some() && apps.get(&app("shop")).is_none());
        assert_eq!(changed(&before, &apps.all()).len(), 3);
    }

    #[tokio::test]
    async fn a_reading_that_is_waited_for_is_asked_for_and_must_begin_later() {
        let apps = Apps::new(settings(&[]));
        let at = Instant::now();
        apps.read_after(at).await;
        assert!(apps.are_read(), "nothing is stored elsewhere");
        apps.are_unread();
        assert!(!apps.are_read() && apps.unread().load(Ordering::Acquire));
        let waits = async || {
            let waiting = apps.read_after(at);
            tokio::time::timeout(std::time::Duration::from_millis(50), waiting)
                .await
                .is_err()
        };
        assert!(waits().await);
        apps.rung().await;
        let before = at.checked_sub(std::time::Duration::from_millis(1)).unwrap();
        apps.were_read(before);
        assert!(apps.are_read() && waits().await, "it began before");
        apps.were_read(at);
        assert!(!waits().await);
    }

    #[test]
    fn what_there_is_is_taken_and_each_change_before_the_call_returns() {
        let apps = Apps::new(settings(&[]));
        let seen = Arc::new(Mutex::new(Vec::new()));
        let sees = Arc::clone(&seen);
        apps.taken_by(move |settings| sees.lock().unwrap().push(settings.len()));
        apps.replace(settings(&[("shop", 7)]));
        apps.replace(settings(&[]));
        assert_eq!(*seen.lock().unwrap(), [1, 2, 1]);
    }
}
