//! The values on their way from the sources to [`crate::config::Config`], each with its origin.
//!
//! In: layers in rising precedence; a later value replaces an earlier one. Out: the fields of the
//! configuration, and for `config show` every value with where it came from. Owner: the one call
//! of [`crate::config::load::load`]. Bounded by the table of keys and the size of the file.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;

use crate::config::api_clients::ApiClient;
use crate::config::app::AppSettings;
use crate::config::app_keys::{ANONYMOUS, AUTHORIZE_CONNECT, NODE_TOKEN_LIFE, is_inherited};
use crate::config::authorizer;
use crate::config::key::Key;
use crate::config::keys;
use crate::config::value::{Field, Kind, Value};
use crate::config::watched::WatchedFiles;
use crate::config::{Authorizer, Environment, Issuer, Secret, TokenKey};
use fanfare_protocol::ids::App;

/// Where a value came from. The order is the precedence, lowest first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// The table of keys.
    Default,
    /// Found out at start.
    Machine,
    /// A preset, by the flag that names it.
    Preset(String),
    /// `FILE:LINE:COLUMN`.
    File(String),
    /// The name of a variable.
    Environment(String),
    /// The name of a flag.
    Flag(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Default => "default",
            Self::Machine => "this machine",
            Self::Preset(flag) => flag,
            Self::File(place) => place,
            Self::Environment(name) => name,
            Self::Flag(flag) => flag,
        })
    }
}

/// A value and where it came from.
#[derive(Clone)]
pub struct Setting {
    /// The value.
    pub value: Value,
    /// Its source.
    pub origin: Origin,
}

/// All values by path, for example `server.listen` or `namespaces.chat.history`.
#[derive(Clone)]
pub struct Values {
    /// What stands before every path here: nothing, or `apps.NAME.`.
    prefix: String,
    settings: BTreeMap<String, Setting>,
    token_keys: Vec<(TokenKey, Origin)>,
    api_clients: Vec<(ApiClient, Origin)>,
    file_keys: Vec<Secret>,
    files: WatchedFiles,
    issuers: Vec<Issuer>,
    issuer_origins: Vec<Origin>,
    authorizers: Vec<(Authorizer, Origin)>,
    app_drafts: BTreeMap<App, Self>,
    apps: BTreeMap<App, AppSettings>,
    app_warnings: Vec<String>,
    refused: BTreeSet<String>,
    dev: bool,
    environment: Environment,
}

impl Values {
    /// No values yet.
    #[must_use]
    pub fn new(dev: bool, environment: Environment) -> Self {
        Self {
            prefix: String::new(),
            settings: BTreeMap::new(),
            token_keys: Vec::new(),
            api_clients: Vec::new(),
            file_keys: Vec::new(),
            files: WatchedFiles::default(),
            issuers: Vec::new(),
            issuer_origins: Vec::new(),
            authorizers: Vec::new(),
            app_drafts: BTreeMap::new(),
            apps: BTreeMap::new(),
            app_warnings: Vec::new(),
            refused: BTreeSet::new(),
            dev,
            environment,
        }
    }

    /// The same for an app: every path stands below this prefix.
    #[must_use]
    pub fn below(mut self, prefix: String) -> Self {
        self.prefix = prefix;
        self
    }

    /// A path as the operator reads it.
    #[must_use]
    pub fn shown(&self, path: &str) -> String {
        format!("{}{path}", self.prefix)
    }

    /// Sets a value over whatever stood there.
    pub fn set(&mut self, path: String, value: Value, origin: Origin) {
        self.settings.insert(path, Setting { value, origin });
    }

    /// Sets a value that this program itself writes down: a default or a preset.
    ///
    /// # Panics
    /// When the text is not of the key's kind; a test loads every default and preset.
    pub fn set_known(&mut self, path: String, key: &Key, text: &str, origin: Origin) {
        let value = key
            .read_text(text)
            .expect("defaults and presets are of their key's kind");
        self.set(path, value, origin);
    }

    /// Adds a token key.
    pub fn add_token_key(&mut self, key: TokenKey, origin: Origin) {
        self.token_keys.push((key, origin));
    }

    /// Adds a client of the API.
    pub fn add_api_client(&mut self, client: ApiClient, origin: Origin) {
        self.api_clients.push((client, origin));
    }

    /// Adds keys of the API that stood in a file of their own.
    pub fn add_file_keys(&mut self, keys: Vec<Secret>) {
        self.file_keys.extend(keys);
    }

    /// Remembers files that hold secrets, before they are read: they are read again when one has changed.
    pub fn watch_files(&mut self, paths: impl IntoIterator<Item = PathBuf>) {
        for path in paths {
            self.files.add(path);
        }
    }

    /// The files that hold secrets.
    #[must_use]
    pub fn watched_files(&self) -> &WatchedFiles {
        &self.files
    }

    /// The clients of the API with their origins.
    #[must_use]
    pub fn api_clients_with_origins(&self) -> &[(ApiClient, Origin)] {
        &self.api_clients
    }

    /// The clients of the API.
    #[must_use]
    pub fn api_clients(&self) -> Vec<ApiClient> {
        let clients = self.api_clients.iter();
        clients.map(|(client, _)| client.clone()).collect()
    }

    /// The keys of the API that stood in a file of their own.
    #[must_use]
    pub fn file_keys(&self) -> Vec<Secret> {
        self.file_keys.clone()
    }

    /// Adds an issuer of tokens.
    pub fn add_issuer(&mut self, issuer: Issuer, origin: Origin) {
        self.issuers.push(issuer);
        self.issuer_origins.push(origin);
    }

    /// Adds an authorizer.
    pub fn add_authorizer(&mut self, authorizer: Authorizer, origin: Origin) {
        self.authorizers.push((authorizer, origin));
    }

    /// The authorizers with their origins, in the order of the file.
    #[must_use]
    pub fn authorizers_with_origins(&self) -> &[(Authorizer, Origin)] {
        &self.authorizers
    }

    /// The authorizers.
    #[must_use]
    pub fn authorizers(&self) -> Vec<Authorizer> {
        let all = self.authorizers.iter();
        all.map(|(authorizer, _)| authorizer.clone()).collect()
    }

    /// Remembers that a source gave a value that was refused, so that no check speaks of the one
    /// that stands in its place.
    pub fn refuse(&mut self, path: String) {
        self.refused.insert(path);
    }

    /// Whether a source gave a value for this path that was refused.
    #[must_use]
    pub fn is_refused(&self, path: &str) -> bool {
        self.refused.contains(path)
    }

    /// The setting at a path.
    #[must_use]
    pub fn get(&self, path: &str) -> Option<&Setting> {
        self.settings.get(path)
    }

    /// The number at a path; 0 for a path without one.
    #[must_use]
    pub fn number(&self, path: &str) -> u64 {
        match self.get(path) {
            Some(Setting {
                value: Value::Number(number),
                ..
            }) => *number,
            _ => 0,
        }
    }

    /// The origin of a path's value; the default's for a path without one.
    #[must_use]
    pub fn origin(&self, path: &str) -> &Origin {
        self.get(path)
            .map_or(&Origin::Default, |setting| &setting.origin)
    }

    /// Where to look for the value of this path: its origin, or the path itself when no source
    /// has set it.
    #[must_use]
    pub fn place(&self, path: &str) -> String {
        match self.origin(path) {
            Origin::Default => self.shown(path),
            origin => origin.to_string(),
        }
    }

    /// The value at a place as the type of the field that it sets.
    ///
    /// # Panics
    /// When no layer has set it or the kind does not fit the field; a test builds every section.
    #[must_use]
    pub fn field<T: Field>(&self, at: &str, name: &str, kind: &Kind) -> T {
        self.get(&format!("{at}.{name}"))
            .and_then(|setting| kind.field(&setting.value))
            .expect("every key has a default, and a kind that fits its field")
    }

    /// The names of the namespaces that have options.
    #[must_use]
    pub fn namespaces(&self) -> Vec<String> {
        let names = self.settings.keys().filter_map(|path| {
            let (name, _) = path.strip_prefix("namespaces.")?.rsplit_once('.')?;
            Some(name.to_owned())
        });
        names.collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// Whether some namespace asks for replicas.
    #[must_use]
    pub fn is_replicated(&self) -> bool {
        self.replicas_min() > 0
    }

    /// The most replicas that a namespace asks for.
    #[must_use]
    pub fn replicas_min(&self) -> u32 {
        let sections = self.replica_sections();
        let most = sections.map(|section| self.number(&format!("{section}.replicas_min")));
        let own = u32::try_from(most.max().unwrap_or_default()).unwrap_or(u32::MAX);
        let apps = self.app_drafts.values();
        let of_apps = apps.map(Self::replicas_min).max();
        own.max(of_apps.unwrap_or_default())
    }

    /// The sections that may ask for replicas.
    pub fn replica_sections(&self) -> impl Iterator<Item = String> {
        let namespaces = self.namespaces().into_iter();
        let own = super::own_topics::OWN_TOPICS
            .iter()
            .map(|own| own.section.to_owned());
        namespaces
            .map(|name| format!("namespaces.{name}"))
            .chain(own)
    }

    /// Every path that can be set, with its key, in the order of the table and then by namespace.
    #[must_use]
    pub fn paths(&self) -> Vec<(String, Key)> {
        let fixed = keys::all().iter().map(|key| (key.path(), *key));
        let namespaces = self.namespaces();
        let options = namespaces.iter().flat_map(|name| {
            keys::namespace_options()
                .iter()
                .map(move |key| (format!("namespaces.{name}.{}", key.name), *key))
        });
        fixed.chain(options).collect()
    }

    /// The token keys with their origins, those of the file first.
    #[must_use]
    pub fn token_keys_with_origins(&self) -> &[(TokenKey, Origin)] {
        &self.token_keys
    }

    /// The token keys.
    #[must_use]
    pub fn token_keys(&self) -> Vec<TokenKey> {
        self.token_keys.iter().map(|(key, _)| key.clone()).collect()
    }

    /// Whether tokens can be valid.
    #[must_use]
    pub fn has_token_keys(&self) -> bool {
        !self.token_keys.is_empty() || !self.issuers.is_empty()
    }

    /// The issuers of tokens, in the order of the file.
    #[must_use]
    pub fn issuers(&self) -> Vec<Issuer> {
        self.issuers.clone()
    }

    /// Adds what a file says of an app.
    pub fn add_app_draft(&mut self, app: App, says: Self) {
        self.app_drafts.insert(app, says);
    }

    /// What the file says of apps.
    #[must_use]
    pub fn app_drafts(&self) -> &BTreeMap<App, Self> {
        &self.app_drafts
    }

    /// Adds an app whose settings are complete, and what is worth a line about it.
    pub fn add_app(&mut self, app: App, settings: AppSettings, warnings: Vec<String>) {
        self.apps.insert(app, settings);
        self.app_warnings.extend(warnings);
    }

    /// What is worth a line about the apps.
    #[must_use]
    pub fn app_warnings(&self) -> &[String] {
        &self.app_warnings
    }

    /// What an app of this node starts from: what can be set for an app, without keys and issuers, and
    /// what it is measured by.
    #[must_use]
    pub fn for_apps(&self) -> Self {
        let mut base = Self::new(self.dev, self.environment);
        for (path, setting) in &self.settings {
            if is_inherited(path) {
                base.set(path.clone(), setting.value.clone(), Origin::Default);
            }
        }
        let node_life = self.settings.get("auth.token_life_max_s");
        if let Some(setting) = node_life {
            let path = NODE_TOKEN_LIFE.to_owned();
            base.set(path, setting.value.clone(), Origin::Default);
        }
        base.set(AUTHORIZE_CONNECT.to_owned(), Value::Unset, Origin::Default);
        base.set(ANONYMOUS.to_owned(), Value::Flag(false), Origin::Default);
        base.authorizers.clone_from(&self.authorizers);
        if self.is_refused(authorizer::PATH) {
            base.refuse(authorizer::PATH.to_owned());
        }
        base
    }

    /// The same at a node that runs: what is read again is of `read`, the rest as it was at the start.
    #[must_use]
    pub fn reloaded(&self, read: &Self, is_reloaded: impl Fn(&str) -> bool) -> Self {
        let mut base = self.clone();
        let read = read.for_apps();
        for (path, setting) in &read.settings {
            if is_reloaded(path) || path == NODE_TOKEN_LIFE {
                base.settings.insert(path.clone(), setting.clone());
            }
        }
        base
    }

    /// Lays what an app says over what it starts from.
    pub fn overlay(&mut self, says: &Self) {
        self.prefix.clone_from(&says.prefix);
        for (path, setting) in &says.settings {
            // The defaults of a namespace hold where the node has none of that name.
            if setting.origin >= Origin::File(String::new()) || !self.settings.contains_key(path) {
                self.settings.insert(path.clone(), setting.clone());
            }
        }
        self.token_keys.clone_from(&says.token_keys);
        self.issuers.clone_from(&says.issuers);
        self.issuer_origins.clone_from(&says.issuer_origins);
        self.refused.extend(says.refused.iter().cloned());
    }

    /// The paths that a file has set, with value and origin, in the order of their names.
    pub fn said(&self) -> impl Iterator<Item = (&String, &Setting)> {
        let settings = self.settings.iter();
        settings.filter(|(_, setting)| setting.origin >= Origin::File(String::new()))
    }

    /// The apps beside `default`.
    #[must_use]
    pub fn apps(&self) -> BTreeMap<App, AppSettings> {
        self.apps.clone()
    }

    /// Where each of them stands.
    #[must_use]
    pub fn issuer_origins(&self) -> &[Origin] {
        &self.issuer_origins
    }

    /// Whether `--dev` is given.
    #[must_use]
    pub fn dev(&self) -> bool {
        self.dev
    }

    /// Where the node runs.
    #[must_use]
    pub fn environment(&self) -> Environment {
        self.environment
    }
}
