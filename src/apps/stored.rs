//! What the file and the API say of apps, put together: decides, and carries nothing out.
//!
//! In: the apps of the file, and rows of the store. Out: the settings of all apps ([`Known::merged`]), and
//! what is to be told. Where both have an app of one name the file wins. A row with a fault leaves the
//! app as it was: one that was never read is not there. Pure. Bounds: those of the store and the file;
//! of the faults of a row [`FAULTS_MAX`] are kept.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Settings;
use crate::config::Config;
use crate::config::app::AppSettings;
use crate::config::app_reader::Inherited;
use crate::config::faults::Faults;
use crate::config::inputs::TryKey;
use fanfare_protocol::ids::App;

/// Most faults of a row that are kept.
const FAULTS_MAX: usize = 8;

/// An app that is stored.
#[derive(Debug, Clone)]
pub struct StoredApp {
    /// What lies in the store.
    pub json: Arc<str>,
    /// Its settings; where it has faults, those of before.
    settings: Option<Arc<AppSettings>>,
    /// What is wrong with it, one line each.
    pub faults: Vec<String>,
}

/// What the file says.
#[derive(Debug, Clone)]
pub struct Filed {
    /// `default` and the apps of the file.
    pub settings: Settings,
    /// What a stored app starts from.
    pub inherited: Arc<Inherited>,
}

impl Filed {
    /// What this configuration says.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        Self {
            settings: super::settings_of(config),
            inherited: Arc::clone(&config.inherited),
        }
    }
}

/// What there is to tell of a reading. Names only.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct News {
    /// Apps that were added or have other settings.
    pub changed: Vec<String>,
    /// Apps that are gone.
    pub removed: Vec<String>,
    /// Rows with faults that were not told before, and the faults.
    pub refused: Vec<(String, Vec<String>)>,
    /// Stored apps that are in the file too, and were not told before.
    pub overridden: Vec<String>,
}

impl News {
    /// Whether other settings hold now.
    #[must_use]
    pub fn is_change(&self) -> bool {
        !self.changed.is_empty() || !self.removed.is_empty()
    }
}

/// See the module.
#[derive(Debug)]
pub struct Known {
    filed: Filed,
    stored: BTreeMap<App, StoredApp>,
    /// Rows whose names are none of an app, told once each.
    foreign: Vec<String>,
    try_key: TryKey,
}

impl Known {
    /// What the file says, and nothing stored.
    #[must_use]
    pub fn new(filed: Filed, try_key: TryKey) -> Self {
        Self {
            filed,
            stored: BTreeMap::new(),
            foreign: Vec::new(),
            try_key,
        }
    }

    /// What the file says.
    #[must_use]
    pub fn filed(&self) -> &Filed {
        &self.filed
    }

    /// What is stored.
    #[must_use]
    pub fn stored(&self) -> &BTreeMap<App, StoredApp> {
        &self.stored
    }

    /// How many rows are in force not as they are stored.
    #[must_use]
    pub fn refused_count(&self) -> usize {
        let faulty = self.stored.values().filter(|app| !app.faults.is_empty());
        faulty.count() + self.foreign.len()
    }

    /// Reads the JSON of an app as a row is read.
    ///
    /// # Errors
    /// Every fault.
    pub fn judge(&self, json: &[u8]) -> Result<AppSettings, Faults> {
        self.filed.inherited.read_json(json, self.try_key)
    }

    /// Goes on with another file, by which stored apps are judged anew.
    pub fn refile(&mut self, filed: Filed) {
        self.filed = filed;
        for stored in self.stored.values_mut() {
            let judged = self
                .filed
                .inherited
                .read_json(stored.json.as_bytes(), self.try_key);
            stored.take(judged);
        }
    }

    /// Takes all rows of the store.
    pub fn take(&mut self, rows: &[(Vec<u8>, Vec<u8>)]) -> News {
        let mut news = News::default();
        let mut before = std::mem::take(&mut self.stored);
        let told = std::mem::take(&mut self.foreign);
        for (name, json) in rows {
            let shown: String = String::from_utf8_lossy(name).chars().take(64).collect();
            let app = std::str::from_utf8(name)
                .ok()
                .and_then(|name| App::new(name).ok());
            let Some(app) = app.filter(|app| *app != App::default_app()) else {
                if !told.contains(&shown) {
                    let fault = "this is no name that a stored app can have".to_owned();
                    news.refused.push((shown.clone(), vec![fault]));
                }
                self.foreign.push(shown);
                continue;
            };
            let (stored, is_new) = match before.remove(&app) {
                Some(stored) if stored.json.as_bytes() == json.as_slice() => (stored, false),
                other => (self.read(json, other), true),
            };
            if is_new {
                self.tell(&app, &stored, &mut news);
            }
            self.stored.insert(app, stored);
        }
        let in_force = before
            .iter()
            .filter(|(_, stored)| stored.settings.is_some());
        let in_force = in_force.filter(|(app, _)| !self.filed.settings.contains_key(*app));
        news.removed
            .extend(in_force.map(|(app, _)| app.to_string()));
        news
    }

    fn read(&self, json: &[u8], before: Option<StoredApp>) -> StoredApp {
        let mut stored = StoredApp {
            json: String::from_utf8_lossy(json).into(),
            settings: before.and_then(|before| before.settings),
            faults: Vec::new(),
        };
        stored.take(self.judge(json));
        stored
    }

    fn tell(&self, app: &App, stored: &StoredApp, news: &mut News) {
        if self.filed.settings.contains_key(app) {
            news.overridden.push(app.to_string());
        } else if stored.faults.is_empty() {
            news.changed.push(app.to_string());
        }
        if !stored.faults.is_empty() {
            news.refused.push((app.to_string(), stored.faults.clone()));
        }
    }

    /// The settings of all apps.
    #[must_use]
    pub fn merged(&self) -> Settings {
        let stored = self.stored.iter();
        let stored = stored.filter_map(|(app, one)| Some((app.clone(), one.settings.clone()?)));
        let filed = self.filed.settings.iter();
        let filed = filed.map(|(app, settings)| (app.clone(), Arc::clone(settings)));
        stored.chain(filed).collect()
    }
}

impl StoredApp {
    fn take(&mut self, judged: Result<AppSettings, Faults>) {
        self.faults.clear();
        match judged {
            Ok(settings) => self.settings = Some(Arc::new(settings)),
            Err(faults) => {
                let lines = faults.0.iter().take(FAULTS_MAX);
                self.faults.extend(lines.map(ToString::to_string));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load::defaults;

    fn filed(apps: &[&str]) -> Filed {
        let config = defaults();
        let of_default = Arc::new(AppSettings::of_default(&config));
        let names = apps.iter().chain(&["default"]);
        let settings = names.map(|name| (App::new(name).unwrap(), Arc::clone(&of_default)));
        Filed {
            settings: settings.collect(),
            inherited: config.inherited,
        }
    }

    fn rows(rows: &[(&str, &str)]) -> Vec<(Vec<u8>, Vec<u8>)> {
        let bytes = |text: &str| text.as_bytes().to_vec();
        rows.iter()
            .map(|(name, json)| (bytes(name), bytes(json)))
            .collect()
    }

    fn known(apps: &[&str]) -> Known {
        Known::new(filed(apps), |_| Ok(()))
    }

    const HISTORY_5: &str = r#"{"namespaces":{"default":{"history_entries_max":5}}}"#;
    const HISTORY_6: &str = r#"{"namespaces":{"default":{"history_entries_max":6}}}"#;
    const FAULTY: &str = r#"{"namespaces":{"default":{"history_entries_max":"x"}}}"#;

    fn kept(known: &Known, app: &str) -> Option<u32> {
        let merged = known.merged();
        let settings = merged.get(&App::new(app).unwrap())?;
        Some(settings.namespaces["default"].history_entries_max)
    }

    #[test]
    fn what_is_stored_is_in_force_and_told_once() {
        let mut known = known(&[]);
        let news = known.take(&rows(&[("shop", HISTORY_5), ("b", "{}")]));
        assert_eq!(news.changed, ["shop", "b"]);
        assert_eq!(kept(&known, "shop"), Some(5));
        assert_eq!(known.merged().len(), 3, "and default");
        let same = known.take(&rows(&[("shop", HISTORY_5), ("b", "{}")]));
        assert_eq!(same, News::default());
        let news = known.take(&rows(&[("shop", HISTORY_6)]));
        assert_eq!(
            (&*news.changed, &*news.removed),
            (&["shop".to_owned()][..], &["b".to_owned()][..])
        );
        assert_eq!(kept(&known, "shop"), Some(6));
        assert_eq!(kept(&known, "b"), None);
    }

    #[test]
    fn a_row_with_faults_leaves_the_app_as_it_was_and_is_told_once() {
        let mut known = known(&[]);
        known.take(&rows(&[("shop", HISTORY_5)]));
        let faulty = rows(&[
            ("shop", FAULTY),
            ("new", "{"),
            ("Not An App", "{}"),
            ("default", "{}"),
        ]);
        let news = known.take(&faulty);
        let told: Vec<_> = news.refused.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(told, ["shop", "new", "Not An App", "default"]);
        assert!(news.refused[0].1[0].starts_with("namespaces.default.history_entries_max: "));
        assert!(!news.is_change(), "{news:?}");
        assert_eq!(kept(&known, "shop"), Some(5));
        assert_eq!(kept(&known, "new"), None);
        assert_eq!(known.refused_count(), 4);
        assert_eq!(known.take(&faulty), News::default(), "told before");
        let mended = known.take(&rows(&[("shop", HISTORY_6)]));
        assert_eq!(mended.changed, ["shop"]);
        assert_eq!(known.refused_count(), 0);
    }

    #[test]
    fn the_file_wins_and_what_was_stored_comes_back_when_the_file_drops_it() {
        let mut known = known(&["shop"]);
        let news = known.take(&rows(&[("shop", HISTORY_5)]));
        assert_eq!(news.overridden, ["shop"]);
        assert!(!news.is_change());
        assert_eq!(kept(&known, "shop"), Some(1_000));
        known.refile(filed(&[]));
        assert_eq!(kept(&known, "shop"), Some(5));
        known.refile(filed(&["shop"]));
        assert_eq!(kept(&known, "shop"), Some(1_000));
        let news = known.take(&rows(&[]));
        assert!(news.removed.is_empty(), "the file still has it");
        assert_eq!(kept(&known, "shop"), Some(1_000));
    }

    #[test]
    fn bytes_that_are_no_text_are_a_fault() {
        let mut known = known(&[]);
        let news = known.take(&[
            (b"a".to_vec(), b"{\xff}".to_vec()),
            (b"\xff".to_vec(), Vec::new()),
        ]);
        assert_eq!(news.refused.len(), 2, "{news:?}");
        assert_eq!(known.merged().len(), 1);
    }
}
