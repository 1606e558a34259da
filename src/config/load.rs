//! From the sources to one checked configuration: preset, file, environment, flags, checks.
//!
//! In: [`Inputs`], which hold all that is read apart from the file. Out: [`Loaded`], or every
//! fault at once. The caller exits with 64 on faults; nothing here ends the process.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use crate::config::alerts::Alerts;
use crate::config::app_reader::Inherited;
use crate::config::environment::{self, value_of};
use crate::config::faults::{Faults, did_you_mean};
use crate::config::forms;
use crate::config::headers_file;
use crate::config::inputs::{Flag, Inputs, TryKey, UNUSABLE_REMEDY, refuse};
use crate::config::key::Key;
use crate::config::key_file;
use crate::config::keys;
use crate::config::machine::Machine;
use crate::config::otel::{self, Ignored};
use crate::config::presets::{self, ENVIRONMENTS, SIZES, Size};
use crate::config::queue::Queue;
use crate::config::telemetry::Telemetry;
use crate::config::token_keys;
use crate::config::value::Value;
use crate::config::values::{Origin, Values};
use crate::config::{
    Admission, Api, Auth, Cache, Cluster, Config, Drain, Environment, Health, Log, Memory, Metrics,
    Namespace, Rebalance, Redis, Secret, Server, Session, TokenKey, app_reader, checks, file,
};

/// A configuration without faults.
pub struct Loaded {
    /// What the node uses.
    pub config: Config,
    /// Every value with its origin, for [`crate::config::show`].
    pub values: Values,
    /// What is allowed and still worth a line in the log.
    pub warnings: Vec<String>,
}

/// Merges all sources and checks the outcome.
///
/// # Errors
/// Every fault of every source and check, with its place.
pub fn load(inputs: &Inputs) -> Result<Loaded, Faults> {
    let mut faults = Faults::default();
    let variables = &inputs.environment;
    let env = chosen(inputs.env.as_deref(), "--env", variables, "FANFARE_ENV");
    let size = chosen(inputs.size.as_deref(), "--size", variables, "FANFARE_SIZE");
    let named = env.is_some();
    let environment = env
        .and_then(|choice| {
            let found = ENVIRONMENTS.iter().find(|(name, _)| *name == choice.value);
            let names = ENVIRONMENTS.iter().map(|(name, _)| *name);
            choice.known(found, names, &mut faults)
        })
        .map_or(default_environment(inputs.dev), |(_, environment)| {
            *environment
        });
    let size = size.and_then(|choice| {
        let found = SIZES.iter().find(|size| size.name == choice.value);
        choice.known(
            found,
            SIZES.iter().map(|size: &Size| size.name),
            &mut faults,
        )
    });

    let mut values = Values::new(inputs.dev, environment);
    presets::apply(&mut values, &inputs.machine, size, named);
    let (used, ignored) = sources(inputs, &mut values, &mut faults);
    read_flags(&inputs.flags, &mut values, &mut faults);
    add_hmac_keys(inputs.try_key, &mut values, &mut faults);
    key_file::read(&mut values, &mut faults);
    headers_file::read(&mut values, &mut faults);
    presets::leave_files_to(&checks::redis_urls(&values), &mut values, &inputs.machine);
    // Of a file that could not be read nobody knows what goes together with the rest.
    if used.is_some() {
        checks::check(&values, &inputs.machine, &inputs.flags, &mut faults);
        app_reader::settle(&mut values, &mut faults);
    }
    if faults.0.is_empty() {
        Ok(Loaded {
            config: build(&values),
            warnings: checks::warnings(&values)
                .into_iter()
                .chain(ignored.iter().map(|ignored| ignored.told(&values)))
                .collect(),
            values,
        })
    } else {
        Err(faults)
    }
}

/// Where the API of a node listens by its file and its environment, whatever else is wrong with them:
/// for who asks a node that runs.
///
/// # Errors
/// The faults of both sources, where that cannot be told for them.
pub fn api_listen(inputs: &Inputs) -> Result<SocketAddr, Faults> {
    let mut faults = Faults::default();
    let mut values = Values::new(inputs.dev, default_environment(inputs.dev));
    presets::apply(&mut values, &inputs.machine, None, false);
    let (used, _) = sources(inputs, &mut values, &mut faults);
    let key = keys::find("api.listen").expect("the key stands in the table");
    match used.is_none() || values.is_refused(&key.path()) {
        true => Err(faults),
        false => Ok(values.field(key.section, key.name, &key.kind)),
    }
}

/// Reads the file and the environment over what is in `values`. Returns the names of the variables
/// that the file takes secrets from (`None` where it could not be read), and what of OpenTelemetry was
/// not taken.
fn sources(
    inputs: &Inputs,
    values: &mut Values,
    faults: &mut Faults,
) -> (Option<BTreeSet<String>>, Vec<Ignored>) {
    let variables = &inputs.environment;
    let named_file = value_of(variables, "FANFARE_CONFIG").map(PathBuf::from);
    let used = match inputs.file.clone().or(named_file) {
        Some(path) => file::read(&path, inputs, values, faults),
        None => Some(BTreeSet::new()),
    };
    let ignored = otel::read(variables, values);
    environment::read(variables, used.as_ref(), values, faults);
    (used, ignored)
}

/// A preset that somebody asked for.
struct Choice<'a> {
    place: &'static str,
    value: &'a str,
}

impl Choice<'_> {
    fn known<T>(
        &self,
        found: Option<T>,
        names: impl Iterator<Item = &'static str>,
        faults: &mut Faults,
    ) -> Option<T> {
        if found.is_none() {
            let what = format!("cannot be {:?}", self.value);
            let remedy = did_you_mean(self.value, names.map(str::to_owned));
            faults.push(self.place, what, remedy);
        }
        found
    }
}

fn chosen<'a>(
    flag: Option<&'a str>,
    flag_name: &'static str,
    environment: &'a [(String, String)],
    variable: &'static str,
) -> Option<Choice<'a>> {
    let by_flag = flag.map(|value| Choice {
        place: flag_name,
        value,
    });
    by_flag.or_else(|| {
        value_of(environment, variable).map(|value| Choice {
            place: variable,
            value,
        })
    })
}

/// The configuration of a node that was told nothing, on a small machine: for what runs a part of
/// a node by itself, as tests and benches do.
#[must_use]
pub fn defaults() -> Config {
    let machine = Machine {
        cores: 1,
        host_name: "alone".to_owned(),
        file_limit: 20_000,
        memory_limit: None,
        memory_total: None,
    };
    let mut values = Values::new(false, default_environment(false));
    presets::apply(&mut values, &machine, None, false);
    build(&values)
}

/// Nobody who says nothing gets the looseness of development, except by `--dev`.
fn default_environment(dev: bool) -> Environment {
    if dev {
        Environment::Development
    } else {
        Environment::Staging
    }
}

fn read_flags(flags: &[Flag], values: &mut Values, faults: &mut Faults) {
    for flag in flags {
        let key = keys::find(flag.path).expect("flags name keys of the table");
        let path = flag.path.to_owned();
        match key.read_text(&flag.value) {
            Ok(value) => values.set(path, value, Origin::Flag(flag.name)),
            Err(unfit) => {
                let shown = format!("{:?}", flag.value);
                refuse((key, path), unfit, &shown, flag.name, values, faults);
            }
        }
    }
}

/// The HS256 keys that have keys of their own in the table, beside the list.
fn add_hmac_keys(try_key: TryKey, values: &mut Values, faults: &mut Faults) {
    let secret: Option<Secret> = values.field("auth", "hmac_secret", &keys::HMAC_SECRET.kind);
    if let Some(secret) = secret {
        add_hmac_key(&keys::HMAC_SECRET, secret, try_key, values, faults);
    }
    let key = &keys::HMAC_SECRET_FILE;
    let Some(Value::Text(name)) = values.get(&key.path()).map(|setting| &setting.value) else {
        return;
    };
    let name = PathBuf::from(name);
    values.watch_files([name.clone()]);
    match token_keys::read_material(&name) {
        Ok(text) => add_hmac_key(key, Secret(text), try_key, values, faults),
        Err(error) => {
            let (path, name) = (key.path(), name.display());
            let what = format!("{path} names {name}, which cannot be read: {error}");
            let remedy = "name a file with one secret of at least 32 bytes";
            faults.push(values.place(&path), what, remedy);
            values.refuse(path);
        }
    }
}

fn add_hmac_key(
    row: &Key,
    material: Secret,
    try_key: TryKey,
    values: &mut Values,
    faults: &mut Faults,
) {
    let path = row.path();
    let key = TokenKey {
        id: None,
        algorithm: "HS256".to_owned(),
        material,
    };
    let tried = match key.material.0 == forms::EXAMPLE_SECRET {
        true => Err("this is the example".to_owned()),
        false => try_key(&key),
    };
    match tried {
        Ok(()) => {
            let origin = values.origin(&path).clone();
            values.add_token_key(key, origin);
        }
        Err(why) => {
            let what = format!("{path} cannot be used: {why}");
            faults.push(values.place(&path), what, UNUSABLE_REMEDY);
            values.refuse(path);
        }
    }
}

fn build(values: &Values) -> Config {
    let namespaces = values.namespaces().into_iter().map(|name| {
        let options = Namespace::from_values(values, &format!("namespaces.{name}"));
        (name, options)
    });
    Config {
        server: Server::from_values(values, "server"),
        api: Api::from_values(values, "api"),
        metrics: Metrics::from_values(values, "metrics"),
        redis: Redis::from_values(values, "redis"),
        cluster: Cluster::from_values(values, "cluster"),
        memory: Memory::from_values(values, "memory"),
        auth: Auth::from_values(values, "auth"),
        authorizers: values.authorizers(),
        session: Session::from_values(values, "session"),
        admission: Admission::from_values(values, "admission"),
        drain: Drain::from_values(values, "drain"),
        rebalance: Rebalance::from_values(values, "rebalance"),
        queue: Queue::from_values(values, "queue"),
        cache: Cache::from_values(values, "cache"),
        health: Health::from_values(values, "health"),
        alerts: Alerts::from_values(values, "alerts"),
        log: Log::from_values(values, "log"),
        telemetry: Telemetry::from_values(values, "telemetry"),
        namespaces: namespaces.collect(),
        inbox: Namespace::from_values(values, "inbox"),
        everyone: Namespace::from_values(values, "everyone"),
        apps: values.apps(),
        inherited: Arc::new(Inherited::of(values)),
    }
}
