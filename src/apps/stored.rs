//! What the file and the API say of apps, put together: decides, and carries nothing out.
//!
//! In: the apps of the file, what is said of all stored apps, and their JSON where that is new. Out: which
//! JSON is to be read ([`Known::compare`]), the settings of all apps ([`Known::merged`]), and what is to be
//! told. Where both have an app of one name the file wins. A row with a fault leaves the app as it was: one
//! that was never read is not there. An app that is missing was removed where something says so; else it
//! is lost, and stays. Pure. Bounds: those of the store and the file; of the faults of a row
//! [`FAULTS_MAX`] are kept.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;

use super::Settings;
use super::store::{Index, Mark};
use crate::config::Config;
use crate::config::app::AppSettings;
use crate::config::app_reader::Inherited;
use crate::config::faults::Faults;
use crate::config::inputs::TryKey;
use fanfare_protocol::ids::App;

/// Most faults of a row that are kept.
const FAULTS_MAX: usize = 8;
/// Most namespaces of an app that is set, with `default`.
pub const NAMESPACES_MAX: usize = 200;
/// Most namespaces of all stored apps together. An app that is there already stays.
pub const NAMESPACES_ALL_MAX: usize = 20_000;
/// Most characters of a name that is none of an app.
const NAME_CHARS_MAX: usize = 64;

/// An app that is stored.
#[derive(Debug, Clone)]
pub struct StoredApp {
    /// What lies in the store.
    pub json: Bytes,
    /// In which life, by which change.
    pub mark: Mark,
    /// Its settings; where it has faults, those of before.
    settings: Option<Arc<AppSettings>>,
    /// What is wrong with it, one line each.
    pub faults: Vec<String>,
    /// Whether the store has lost it.
    pub is_lost: bool,
    /// By what it was judged.
    judged_by: Arc<Inherited>,
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

/// By what JSON is judged: at one moment, wherever that is done.
#[derive(Debug, Clone)]
pub struct Judge {
    inherited: Arc<Inherited>,
    try_key: TryKey,
}

/// What came of it.
#[derive(Debug)]
pub struct Judged {
    by: Arc<Inherited>,
    outcome: Result<AppSettings, Vec<String>>,
}

impl Judge {
    /// Reads the JSON of an app.
    ///
    /// # Errors
    /// Every fault.
    pub fn read(&self, json: &[u8]) -> Result<AppSettings, Faults> {
        self.inherited.read_json(json, self.try_key)
    }

    /// The same for an app that is to be set, which may have [`NAMESPACES_MAX`] namespaces.
    ///
    /// # Errors
    /// Every fault.
    pub fn read_new(&self, json: &[u8]) -> Result<AppSettings, Faults> {
        let settings = self.read(json)?;
        let count = settings.namespaces.len();
        if count <= NAMESPACES_MAX {
            return Ok(settings);
        }
        let mut faults = Faults::default();
        let what = format!("namespaces has {count} of them, with `default`");
        let remedy = format!(
            "give at most {NAMESPACES_MAX}: one namespace is for all topics with the same options"
        );
        faults.push("namespaces", what, remedy);
        Err(faults)
    }

    /// The same as [`Self::read`], with the faults as they are kept.
    #[must_use]
    pub fn judge(self, json: &[u8]) -> Judged {
        let outcome = self.read(json).map_err(|faults| {
            let lines = faults.0.iter().take(FAULTS_MAX);
            lines.map(ToString::to_string).collect()
        });
        self.judged(outcome)
    }

    /// What was judged by this.
    #[must_use]
    pub fn judged(self, outcome: Result<AppSettings, Vec<String>>) -> Judged {
        Judged {
            by: self.inherited,
            outcome,
        }
    }
}

impl Judged {
    /// How many namespaces the app has; 0 where it has faults.
    #[must_use]
    pub fn namespaces_count(&self) -> usize {
        let settings = self.outcome.as_ref();
        settings.map_or(0, |settings| settings.namespaces.len())
    }
}

/// How far the store was read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ReadTo {
    /// The number of the last change that is known.
    pub number: u64,
    /// How many changes by nodes of the release before are known.
    pub others: u64,
}

/// What a reading asks for.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Differences {
    /// The apps whose JSON is to be read, with its length.
    pub wanted: Vec<(App, Mark, usize)>,
    /// The apps that were removed.
    pub removed: Vec<App>,
    /// The apps that the store has lost.
    pub lost: BTreeSet<App>,
    /// Names that are none of an app.
    pub foreign: BTreeSet<Vec<u8>>,
}

/// What there is to tell of a reading. Names only.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct News {
    /// Apps that were added or have other settings.
    pub changed: Vec<String>,
    /// Apps that are gone.
    pub removed: Vec<String>,
    /// Apps that the store has lost, and were not told before.
    pub lost: Vec<String>,
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
    foreign: BTreeSet<Vec<u8>>,
    try_key: TryKey,
}

impl Known {
    /// What the file says, and nothing stored.
    #[must_use]
    pub fn new(filed: Filed, try_key: TryKey) -> Self {
        Self {
            filed,
            stored: BTreeMap::new(),
            foreign: BTreeSet::new(),
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

    /// How many rows there are in the store, as far as it was read.
    #[must_use]
    pub fn rows_count(&self) -> usize {
        let there = self.stored.values().filter(|app| !app.is_lost);
        there.count() + self.foreign.len()
    }

    /// The names of the rows that are in force not as they are stored.
    pub fn refused(&self) -> impl Iterator<Item = String> {
        let faulty = self.stored.iter().filter(|(_, one)| !one.faults.is_empty());
        let faulty = faulty.map(|(app, _)| app.to_string());
        faulty.chain(self.foreign.iter().map(|name| shown(name)))
    }

    /// The apps that the store has lost.
    pub fn lost(&self) -> impl Iterator<Item = (&App, &StoredApp)> {
        self.stored.iter().filter(|(_, one)| one.is_lost)
    }

    /// Whether an app may have so many namespaces. Where all are too many already, one that is there may
    /// be set again with no more than it has.
    ///
    /// # Errors
    /// How many all stored apps would have, above [`NAMESPACES_ALL_MAX`].
    pub fn has_room(&self, app: &App, namespaces: usize) -> Result<(), usize> {
        let of = |one: &StoredApp| {
            let settings = one.settings.as_ref();
            settings.map_or(0, |settings| settings.namespaces.len())
        };
        let own = self.stored.get(app).map_or(0, of);
        let all = self.stored.values().map(of).sum::<usize>() - own + namespaces;
        match all > NAMESPACES_ALL_MAX && namespaces > own {
            true => Err(all),
            false => Ok(()),
        }
    }

    /// By what rows are judged now.
    #[must_use]
    pub fn judge(&self) -> Judge {
        Judge {
            inherited: Arc::clone(&self.filed.inherited),
            try_key: self.try_key,
        }
    }

    /// Goes on with another file. What was judged by the one before is to be judged anew
    /// ([`Self::judged_before`]).
    pub fn refile(&mut self, filed: Filed) -> News {
        let before = std::mem::replace(&mut self.filed, filed);
        let is_new = |app: &&App| {
            self.filed.settings.contains_key(*app) && !before.settings.contains_key(*app)
        };
        let overridden = self.stored.keys().filter(is_new);
        News {
            overridden: overridden.map(ToString::to_string).collect(),
            ..News::default()
        }
    }

    /// The apps that were judged by another file than there is now.
    #[must_use]
    pub fn judged_before(&self) -> Vec<App> {
        let is_old = |one: &StoredApp| !Arc::ptr_eq(&one.judged_by, &self.filed.inherited);
        let old = self.stored.iter().filter(|(_, one)| is_old(one));
        old.map(|(app, _)| app.clone()).collect()
    }

    /// Whether an app is known just as this is said of it.
    #[must_use]
    pub fn is_so(&self, app: &App, mark: Mark, bytes: usize) -> bool {
        let stored = self.stored.get(app);
        stored.is_some_and(|stored| {
            // What is said of lives may have been lost.
            let is_of_life = mark.life == 0 || stored.mark.life == mark.life;
            let is_of_change = stored.mark.number == mark.number && stored.json.len() == bytes;
            is_of_life && is_of_change && !stored.is_lost
        })
    }

    /// What has to be read after this was said of all apps. `whole` reads all of them.
    #[must_use]
    pub fn compare(&self, index: &Index, since: ReadTo, whole: bool) -> Differences {
        // Nodes of the release before leave no numbers.
        let by_others = index.others.saturating_sub(since.others);
        let mut found = Differences::default();
        let mut missing: BTreeSet<_> = self.stored.keys().collect();
        for row in &index.rows {
            let Some(app) = app_of(&row.name) else {
                found.foreign.insert(row.name.clone());
                continue;
            };
            missing.remove(&app);
            if whole || by_others > 0 || !self.is_so(&app, row.mark, row.bytes) {
                found.wanted.push((app, row.mark, row.bytes));
            }
        }
        let is_marked = |app: &App| {
            let mut removed = index.removed.iter();
            removed.any(|(name, _)| name == app.as_str().as_bytes())
        };
        // What is forgotten since may be anything.
        let is_explained = |app: &&App| index.forgot > since.number || is_marked(app);
        let (removed, unexplained): (Vec<_>, Vec<_>) = missing.into_iter().partition(is_explained);
        found.removed.extend(removed.into_iter().cloned());
        let unexplained = unexplained.into_iter().cloned();
        match unexplained.len() as u64 <= by_others {
            true => found.removed.extend(unexplained),
            false => found.lost.extend(unexplained),
        }
        found
    }

    /// Takes what was said of all, apart from the rows that are still to be read.
    pub fn take(&mut self, found: &Differences) -> News {
        let mut news = News::default();
        for app in &found.removed {
            news.removed.extend(self.drop_app(app));
        }
        for (app, stored) in &mut self.stored {
            let was_lost = std::mem::replace(&mut stored.is_lost, found.lost.contains(app));
            if stored.is_lost && !was_lost {
                news.lost.push(app.to_string());
            }
        }
        for name in &found.foreign {
            if !self.foreign.contains(name) {
                let fault = "this is no name that a stored app can have: remove it by HDEL";
                news.refused.push((shown(name), vec![fault.to_owned()]));
            }
        }
        self.foreign.clone_from(&found.foreign);
        news
    }

    /// An app is not stored any more. Its name, where it was in force.
    fn drop_app(&mut self, app: &App) -> Option<String> {
        let stored = self.stored.remove(app)?;
        let is_hidden = self.filed.settings.contains_key(app);
        (stored.settings.is_some() && !is_hidden).then(|| app.to_string())
    }

    /// The same, with what is to be told.
    pub fn remove(&mut self, app: &App) -> News {
        News {
            removed: self.drop_app(app).into_iter().collect(),
            ..News::default()
        }
    }

    /// An app that was lost is stored again.
    pub fn is_back(&mut self, app: &App, mark: Mark) {
        if let Some(stored) = self.stored.get_mut(app) {
            (stored.mark, stored.is_lost) = (mark, false);
        }
    }

    /// Whether the store has lost an app, which was only judged anew.
    pub fn still_lost(&mut self, app: &App, is_lost: bool) {
        if let Some(stored) = self.stored.get_mut(app) {
            stored.is_lost = is_lost;
        }
    }

    /// Takes what is stored of an app.
    pub fn put(&mut self, app: &App, json: &Bytes, mark: Mark, judged: Judged) -> News {
        let before = self.stored.get(app).cloned();
        // A store that lost what it says of lives has not lost the app.
        let life = match &before {
            Some(before) if mark.life == 0 => before.mark.life,
            _ => mark.life,
        };
        let (is_same, was_in_force, told) = match &before {
            Some(before) => (
                before.json == *json && before.mark.life == life,
                before.settings.is_some(),
                before.faults.clone(),
            ),
            None => (false, false, Vec::new()),
        };
        // Of another app of the same name nothing stays.
        let before = before.filter(|before| before.mark.life == life);
        let before = before.and_then(|before| before.settings);
        let (settings, faults) = match judged.outcome {
            Ok(mut settings) => {
                settings.life = Some(life);
                let same = before.as_ref().filter(|before| ***before == settings);
                let same = same.cloned();
                (same.or_else(|| Some(Arc::new(settings))), Vec::new())
            }
            Err(faults) => (before.clone(), faults),
        };
        let mut news = News::default();
        let is_told = is_same && told == faults;
        if self.filed.settings.contains_key(app) {
            let is_new = !is_same;
            news.overridden.extend(is_new.then(|| app.to_string()));
        } else if was_in_force && settings.is_none() {
            news.removed.push(app.to_string());
        } else if faults.is_empty() && (!is_same || settings != before) {
            news.changed.push(app.to_string());
        }
        if !faults.is_empty() && !is_told {
            news.refused.push((app.to_string(), faults.clone()));
        }
        let stored = StoredApp {
            json: json.clone(),
            mark: Mark { life, ..mark },
            settings,
            faults,
            is_lost: false,
            judged_by: judged.by,
        };
        self.stored.insert(app.clone(), stored);
        news
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

impl News {
    /// Tells this too.
    pub fn merge(&mut self, other: Self) {
        self.changed.extend(other.changed);
        self.removed.extend(other.removed);
        self.lost.extend(other.lost);
        self.refused.extend(other.refused);
        self.overridden.extend(other.overridden);
    }
}

/// The app that a row can be of.
fn app_of(name: &[u8]) -> Option<App> {
    let app = App::new(std::str::from_utf8(name).ok()?).ok()?;
    (app != App::default_app()).then_some(app)
}

fn shown(name: &[u8]) -> String {
    let name = String::from_utf8_lossy(name);
    name.chars().take(NAME_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests;
