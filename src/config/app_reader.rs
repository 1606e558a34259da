//! `[apps.NAME]`: what a file says of an app, and the same as JSON that the API was given.
//!
//! In: the tables of a file; or the text of JSON, which is read as such a table (`app_json`). Out:
//! [`AppSettings`], or every fault with its place. What an app does not say it has from the node, apart
//! from keys, issuers and namespaces. Bounds: [`APPS_MAX`] apps beside `default`,
//! [`JSON_BYTES_MAX`] of JSON. Keeps nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::config::app::AppSettings;
use crate::config::app_json::{self, AsToml};
use crate::config::app_keys::{SECTIONS, offered};
use crate::config::checks::{self, of_app};
use crate::config::faults::{Faults, did_you_mean};
use crate::config::file_text::{File, in_order};
use crate::config::inputs::{Inputs, TryKey};
use crate::config::machine::Machine;
use crate::config::values::Values;
use crate::config::{Auth, Namespace, issuers, keys, sections, token_keys};
use fanfare_protocol::ids::App;

/// Most apps beside `default`.
pub const APPS_MAX: usize = 1_000;
/// Longest JSON of one app.
pub const JSON_BYTES_MAX: usize = 65_536;

/// Reads `[apps]` and returns the names of the variables that its keys used.
pub fn read_all(
    file: &File<'_>,
    all: &DeTable<'_>,
    inputs: &Inputs,
    values: &mut Values,
    faults: &mut Faults,
) -> BTreeSet<String> {
    let mut used = BTreeSet::new();
    if all.len() > APPS_MAX {
        let at = in_order(all).first().map(|(name, _)| name.span());
        let what = format!("apps has {} entries", all.len());
        let remedy = format!("give at most {APPS_MAX}");
        faults.push(file.place(at.unwrap_or_default()), what, remedy);
        return used;
    }
    for (name_at, value) in in_order(all) {
        let name = name_at.get_ref().as_ref();
        let place = file.place(name_at.span());
        let app = match (App::new(name), value.get_ref()) {
            (Ok(app), _) if app == App::default_app() => {
                let what =
                    "apps.default cannot be set: the sections of the node are the app default";
                faults.push(
                    place,
                    what,
                    "write [auth] for [apps.default.auth], and so on",
                );
                continue;
            }
            (Ok(app), DeValue::Table(_)) => app,
            (Ok(_), _) => {
                let what = format!("apps.{name} is no section");
                faults.push(
                    place,
                    what,
                    format!("write its settings under [apps.{name}]"),
                );
                continue;
            }
            (Err(_), _) => {
                let what = format!("{name:?} cannot be the name of an app");
                faults.push(place, what, "give 1 to 32 of a-z 0-9 _ -");
                continue;
            }
        };
        let DeValue::Table(table) = value.get_ref() else {
            continue;
        };
        let mut says =
            Values::new(values.dev(), values.environment()).below(format!("apps.{app}."));
        used.extend(read_one(file, table, inputs, &mut says, faults));
        values.watch_files(says.watched_files().paths());
        values.add_app_draft(app, says);
    }
    used
}

/// Reads the table of an app.
fn read_one(
    file: &File<'_>,
    table: &DeTable<'_>,
    inputs: &Inputs,
    says: &mut Values,
    faults: &mut Faults,
) -> BTreeSet<String> {
    let mut used = BTreeSet::new();
    for (name_at, value) in in_order(table) {
        let name = name_at.get_ref().as_ref();
        match (name, value.get_ref()) {
            ("namespaces", DeValue::Table(all)) => sections::namespaces(file, all, says, faults),
            ("auth", DeValue::Table(auth)) => {
                used.extend(read_auth(file, auth, inputs, says, faults));
            }
            ("inbox" | "everyone", DeValue::Table(options)) => {
                section(file, (name, options), says, faults);
            }
            _ => unknown(file, (name, name_at, value), says, faults),
        }
    }
    used
}

fn read_auth(
    file: &File<'_>,
    auth: &DeTable<'_>,
    inputs: &Inputs,
    says: &mut Values,
    faults: &mut Faults,
) -> BTreeSet<String> {
    let mut used = BTreeSet::new();
    section(file, ("auth", auth), says, faults);
    if let Some(list) = auth.get("keys") {
        used.extend(token_keys::read(file, list, inputs, says, faults));
    }
    if let Some(list) = auth.get("issuers") {
        used.extend(issuers::read(file, list, inputs, says, faults));
    }
    used
}

fn section(
    file: &File<'_>,
    (section, table): (&str, &DeTable<'_>),
    says: &mut Values,
    faults: &mut Faults,
) {
    for (name_at, value) in in_order(table) {
        let name = name_at.get_ref().as_ref();
        if section == "auth" && matches!(name, "keys" | "issuers") {
            continue;
        }
        let path = format!("{section}.{name}");
        let place = file.place(name_at.span());
        if let Some(key) = offered(section).find(|key| key.name == name) {
            sections::set(file, key, path, value, says, faults);
        } else if keys::find(&path).is_some() {
            let what = format!("{} cannot be set for an app", says.shown(&path));
            let remedy = match path.starts_with("auth.hmac_secret") {
                true => {
                    "give it among the keys of the app, with algorithm HS256: that of the node is \
                         of the app default alone"
                        .to_owned()
                }
                false => format!("leave it out: {path} of the node holds for all apps"),
            };
            faults.push(place, what, remedy);
        } else {
            let lists = ["keys", "issuers"].iter().filter(|_| section == "auth");
            let lists = lists.map(|list| says.shown(&format!("{section}.{list}")));
            let known = offered(section).map(|key| says.shown(&key.path()));
            let path = says.shown(&path);
            let remedy = did_you_mean(&path, known.chain(lists).collect::<Vec<_>>());
            faults.push(place, format!("{path} is no key"), remedy);
        }
    }
}

fn unknown(
    file: &File<'_>,
    (name, name_at, value): (
        &str,
        &Spanned<std::borrow::Cow<'_, str>>,
        &Spanned<DeValue<'_>>,
    ),
    says: &Values,
    faults: &mut Faults,
) {
    let path = says.shown(name);
    let place = file.place(name_at.span());
    let is_table = matches!(value.get_ref(), DeValue::Table(_));
    let (what, remedy) = if SECTIONS.contains(&name) {
        let remedy = format!("write its keys under [{path}], or in JSON as an object");
        (format!("{path} is no section"), remedy)
    } else if keys::sections().contains(&name) {
        let remedy = format!("leave it out: [{name}] holds for all apps");
        (format!("{path} cannot be set for an app"), remedy)
    } else if is_table {
        let known = SECTIONS.map(|section| says.shown(section));
        let what = format!("{path} is no section of an app");
        (what, did_you_mean(&path, known))
    } else {
        // The likeliest cause is a key that lost its section, so only the names are compared.
        let known = SECTIONS.into_iter().flat_map(offered);
        let nearest = known.min_by_key(|key| strsim::damerau_levenshtein(name, key.name));
        let nearest = nearest.map_or_else(String::new, |key| says.shown(&key.path()));
        let what = format!("{path} is no key of an app");
        (what, format!("did you mean {nearest}?"))
    };
    faults.push(place, what, remedy);
}

/// Lays what the file says of apps over what the node says, when every source has spoken.
pub fn settle(values: &mut Values, faults: &mut Faults) {
    let drafts = values.app_drafts().clone();
    if drafts.is_empty() {
        return;
    }
    let base = values.for_apps();
    for (app, says) in drafts {
        let mut full = base.clone();
        full.overlay(&says);
        of_app::check(&full, faults);
        let warnings = checks::warnings_of_app(&full).collect();
        values.add_app(app, AppSettings::of(&full), warnings);
    }
}

impl AppSettings {
    /// From values in which nothing is left open.
    fn of(values: &Values) -> Self {
        let namespaces = values.namespaces().into_iter().map(|name| {
            let options = Namespace::from_values(values, &format!("namespaces.{name}"));
            (name, options)
        });
        Self {
            auth: Auth::from_values(values, "auth"),
            namespaces: namespaces.collect(),
            inbox: Namespace::from_values(values, "inbox"),
            everyone: Namespace::from_values(values, "everyone"),
            life: None,
        }
    }
}

/// What an app that is given to the API starts from: what the node sets.
pub struct Inherited {
    values: Values,
    /// With more replicas than this a node has no link for publications that ask for some.
    replicas_min: u32,
}

impl fmt::Debug for Inherited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inherited").finish_non_exhaustive()
    }
}

impl Inherited {
    /// Of a node with these values.
    #[must_use]
    pub fn of(values: &Values) -> Self {
        Self {
            values: values.for_apps(),
            replicas_min: values.replicas_min(),
        }
    }

    /// The same at a node that runs: of what was `read` again only that which may change meanwhile.
    #[must_use]
    pub fn reloaded(&self, read: &Values, is_reloaded: impl Fn(&str) -> bool) -> Self {
        Self {
            values: self.values.reloaded(read, is_reloaded),
            replicas_min: self.replicas_min,
        }
    }

    /// The apps of a file that was read again.
    ///
    /// # Errors
    /// Every fault: an app that is good for a node that starts with this file may ask for what this one
    /// was not started with.
    pub fn apps_of(&self, read: &Values) -> Result<BTreeMap<App, AppSettings>, Faults> {
        let mut faults = Faults::default();
        let mut apps = BTreeMap::new();
        for (app, says) in read.app_drafts() {
            let mut full = self.values.clone();
            full.overlay(says);
            of_app::check(&full, &mut faults);
            self.check_replicas(&full, &mut faults);
            if faults.0.is_empty() {
                apps.insert(app.clone(), AppSettings::of(&full));
            }
        }
        match faults.0.is_empty() {
            true => Ok(apps),
            false => Err(faults),
        }
    }

    /// Reads the JSON of an app: an object with `auth`, `namespaces`, `inbox` and `everyone`, each as the
    /// section of that name below `[apps.NAME]`. What would be read from files and variables of this
    /// machine is refused.
    ///
    /// # Errors
    /// Every fault, with the path of the value as its place.
    pub fn read_json(&self, json: &[u8], try_key: TryKey) -> Result<AppSettings, Faults> {
        let mut faults = Faults::default();
        if json.len() > JSON_BYTES_MAX {
            let what = format!("the settings have {} bytes", json.len());
            faults.push("", what, format!("give at most {JSON_BYTES_MAX}"));
            return Err(faults);
        }
        let AsToml { text, paths } = match app_json::as_toml(json) {
            Ok(read) => read,
            Err(wrong) => {
                faults.push("", wrong.what, wrong.remedy);
                return Err(faults);
            }
        };
        let file = File {
            path: Path::new(""),
            text: &text,
            paths: Some(&paths),
        };
        let (root, errors) = DeTable::parse_recoverable(&text);
        for error in &errors {
            let place = file.place(error.span().unwrap_or_default());
            // The text was written here, so only what JSON allows and TOML does not is left.
            faults.push(
                place,
                format!("cannot be read: {}", error.message()),
                "mend it",
            );
        }
        if errors.is_empty() {
            let mut full = self.values.clone();
            let mut says = Values::new(full.dev(), full.environment());
            read_one(
                &file,
                root.get_ref(),
                &without_sources(try_key),
                &mut says,
                &mut faults,
            );
            full.overlay(&says);
            of_app::check(&full, &mut faults);
            self.check_replicas(&full, &mut faults);
            if faults.0.is_empty() {
                return Ok(AppSettings::of(&full));
            }
        }
        Err(faults)
    }

    fn check_replicas(&self, full: &Values, faults: &mut Faults) {
        let sections: Vec<_> = full.replica_sections().collect();
        for section in sections {
            let path = format!("{section}.replicas_min");
            let asked = full.number(&path);
            if asked > u64::from(self.replicas_min) && !full.is_refused(&path) {
                let most = self.replicas_min;
                let what = format!(
                    "{path} is {asked}, but the file of this node asks for {most} at the most"
                );
                let remedy = "lower it, or set it in the file of every node: it is read at a start";
                faults.push(full.place(&path), what, remedy);
            }
        }
    }
}

/// A caller of the API has no sources but its text.
fn without_sources(try_key: TryKey) -> Inputs {
    Inputs {
        file: None,
        environment: Vec::new(),
        flags: Vec::new(),
        env: None,
        size: None,
        dev: false,
        machine: Machine {
            cores: 1,
            host_name: String::new(),
            file_limit: 0,
            memory_limit: None,
            memory_total: None,
        },
        try_key,
    }
}
