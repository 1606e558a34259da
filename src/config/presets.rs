//! What holds before any source speaks: the defaults, what the machine says, and the presets
//! `--size`, `--env` and `--dev`.
//!
//! In: the table of keys, a [`Machine`], the chosen presets. Out: the lowest layers of
//! [`Values`]. Everything here can be replaced by file, environment and flag.

use crate::config::Environment;
use crate::config::file_shares::{self, FILES_RESERVED};
use crate::config::key::{Initial, Key};
use crate::config::keys;
use crate::config::machine::Machine;
use crate::config::redis_url::RedisUrl;
use crate::config::values::{Origin, Values};
use fanfare_protocol::ids::NODE_BYTES_MAX;

/// Files that are left beside sessions where nobody says how many sessions there may be: a fortieth,
/// from [`FILES_RESERVED`] to 2,500.
#[must_use]
pub fn files_reserved(file_limit: u64) -> u64 {
    (file_limit / 40).clamp(FILES_RESERVED, 2_500)
}

/// The key that a size sets, or without one the file limit.
const CONNECTIONS_MAX: &str = "server.connections_max";
/// The key that a size sets, or without one [`MEDIUM`] and the memory.
const CACHE_MEMORY: &str = "cache.memory_bytes";
/// The keys that a size sets, or without one [`MEDIUM`].
const QUEUE_CAPACITY: &str = "queue.capacity";
/// See [`QUEUE_CAPACITY`].
const QUEUE_WORKERS: &str = "queue.workers";

/// The sizes.
pub const SIZES: [Size; 4] = [
    Size {
        name: "small",
        connections_max: "100",
        cache_memory_bytes: "134217728",
        queue_capacity: "1000",
        queue_workers: "5",
    },
    MEDIUM,
    Size {
        name: "large",
        connections_max: "5000",
        cache_memory_bytes: "1073741824",
        queue_capacity: "100000",
        queue_workers: "50",
    },
    Size {
        name: "enterprise",
        connections_max: "10000",
        cache_memory_bytes: "2147483648",
        queue_capacity: "500000",
        queue_workers: "100",
    },
];

/// The size by which a node goes where none is given.
pub const MEDIUM: Size = Size {
    name: "medium",
    connections_max: "1000",
    cache_memory_bytes: "536870912",
    queue_capacity: "50000",
    queue_workers: "20",
};

/// One size.
pub struct Size {
    /// As `--size` names it.
    pub name: &'static str,
    /// Most connections.
    pub connections_max: &'static str,
    /// Memory of the cache, in bytes.
    pub cache_memory_bytes: &'static str,
    /// Entries that the durable queue takes.
    pub queue_capacity: &'static str,
    /// Calls with which a node works it off.
    pub queue_workers: &'static str,
}

impl Size {
    /// What it sets: the paths of keys and their texts.
    #[must_use]
    pub fn settings(&self) -> [(&'static str, &'static str); 4] {
        [
            (CONNECTIONS_MAX, self.connections_max),
            (CACHE_MEMORY, self.cache_memory_bytes),
            (QUEUE_CAPACITY, self.queue_capacity),
            (QUEUE_WORKERS, self.queue_workers),
        ]
    }
}

/// The environments by name.
pub const ENVIRONMENTS: [(&str, Environment); 3] = [
    ("development", Environment::Development),
    ("staging", Environment::Staging),
    ("production", Environment::Production),
];

/// What `--env development` sets.
pub const DEVELOPMENT: [(&str, &str); 2] =
    [("log.format", "text"), ("log.level", "info,fanfare=debug")];

/// What `--dev` sets, beside a random node name and the options of namespaces.
pub const DEV: [(&str, &str); 6] = [
    ("server.listen", "127.0.0.1:8080"),
    ("api.keys", "dev"),
    ("auth.anonymous", "true"),
    ("inbox.publish", "anyone"),
    ("inbox.history", "anyone"),
    // Ctrl-C ends at once; nobody is there to whom the sessions could go.
    ("drain.window_ms", "0"),
];

/// What `--dev` sets in every namespace.
pub const DEV_NAMESPACE: [(&str, &str); 5] = [
    ("presence", "true"),
    ("subscribe", "anyone"),
    ("publish", "anyone"),
    ("history", "anyone"),
    ("presence_allow", "anyone"),
];

/// Sets every key once: defaults, machine, presets.
pub fn apply(values: &mut Values, machine: &Machine, size: Option<&Size>, named: bool) {
    for key in keys::all() {
        match key.default {
            Initial::Is(text) => values.set_known(key.path(), key, text, Origin::Default),
            Initial::Unset(_) => values.set_known(key.path(), key, "", Origin::Default),
            Initial::Found(..) | Initial::BySize => {}
        }
    }
    apply_settled(values);
    apply_machine(values, machine);
    apply_size(values, size, machine);
    add_namespace(values, "default");
    if named && values.environment() == Environment::Development {
        let origin = Origin::Preset("--env development".to_owned());
        apply_pairs(values, &DEVELOPMENT, &origin);
    }
    if values.dev() {
        let origin = Origin::Preset("--dev".to_owned());
        apply_pairs(values, &DEV, &origin);
        let name = format!("dev-{:08x}", rand::random::<u32>());
        apply_pairs(values, &[("server.node_id", &name)], &origin);
    }
}

/// Gives a namespace its options: the defaults, or with `--dev` everything to anyone.
pub fn add_namespace(values: &mut Values, name: &str) {
    let path = |key: &Key| format!("namespaces.{name}.{}", key.name);
    for key in keys::namespace_options() {
        match key.default {
            Initial::Is(text) => values.set_known(path(key), key, text, Origin::Default),
            Initial::Unset(_) => values.set_known(path(key), key, "", Origin::Default),
            Initial::Found(..) | Initial::BySize => {}
        }
    }
    if values.dev() {
        for (option, text) in DEV_NAMESPACE {
            let key = keys::option(option);
            let origin = Origin::Preset("--dev".to_owned());
            values.set_known(path(key), key, text, origin);
        }
    }
}

/// What a section for Fanfare's own topics does not offer still has a value.
fn apply_settled(values: &mut Values) {
    for own in &super::own_topics::OWN_TOPICS {
        for (name, text) in own.settled {
            let path = format!("{}.{name}", own.section);
            values.set_known(path, keys::option(name), text, Origin::Default);
        }
    }
}

/// Takes from the connections that the machine gives what a Redis of many masters needs, which is
/// known when every source has spoken.
pub fn leave_files_to(redis: &[RedisUrl], values: &mut Values, machine: &Machine) {
    let most = connections(machine, file_shares::reserved(redis));
    let is_found = *values.origin(CONNECTIONS_MAX) == Origin::Machine;
    if is_found && most < values.number(CONNECTIONS_MAX) {
        let most = most.to_string();
        apply_pairs(values, &[(CONNECTIONS_MAX, &most)], &Origin::Machine);
    }
}

/// All files but these.
fn connections(machine: &Machine, reserved: u64) -> u64 {
    let left = machine.file_limit.saturating_sub(reserved);
    left.clamp(1, 10_000_000)
}

fn apply_machine(values: &mut Values, machine: &Machine) {
    let connections = connections(machine, files_reserved(machine.file_limit));
    let found = [
        ("server.workers", machine.cores.clamp(1, 1_024).to_string()),
        ("server.node_id", node_name(&machine.host_name)),
        (CONNECTIONS_MAX, connections.to_string()),
        (
            "admission.memory_bytes_max",
            memory_max(machine).to_string(),
        ),
        ("memory.bytes_max", broker_memory(machine).to_string()),
    ];
    let found = found.each_ref().map(|(path, text)| (*path, text.as_str()));
    apply_pairs(values, &found, &Origin::Machine);
}

/// Nine tenths of what the control group allows: the rest is for what the sessions that are in will
/// still need, and for what the kernel counts beside resident memory. 0 without a limit; a limit
/// too small for the key's range is no limit that this program could live in.
fn memory_max(machine: &Machine) -> u64 {
    let most = machine.memory_limit.map_or(0, |limit| limit / 10 * 9);
    let key = keys::find("admission.memory_bytes_max").expect("presets name keys of the table");
    match key.read_text(&most.to_string()) {
        Ok(_) => most,
        Err(_) => 0,
    }
}

/// A quarter of what the control group allows or, without such a limit, of what the machine has.
fn broker_memory(machine: &Machine) -> u64 {
    /// Of a machine that does not say how much it has.
    const UNKNOWN: u64 = 1 << 30;
    (machine.memory_max().unwrap_or(UNKNOWN) / 4).max(1 << 20)
}

/// Without a size, connections stay as the machine says and the rest is as `medium`, the cache not
/// more than a quarter of the memory.
fn apply_size(values: &mut Values, size: Option<&Size>, machine: &Machine) {
    match size {
        Some(size) => {
            let origin = Origin::Preset(format!("--size {}", size.name));
            apply_pairs(values, &size.settings(), &origin);
        }
        None => {
            let [_connections, rest @ ..] = MEDIUM.settings();
            apply_pairs(values, &rest, &Origin::Default);
            let most = machine.memory_max().map_or(u64::MAX, |bytes| bytes / 4);
            if most < values.number(CACHE_MEMORY) {
                let most = most.max(1 << 20).to_string();
                apply_pairs(values, &[(CACHE_MEMORY, &most)], &Origin::Machine);
            }
        }
    }
}

fn apply_pairs(values: &mut Values, pairs: &[(&str, &str)], origin: &Origin) {
    for (path, text) in pairs {
        let key = keys::find(path).expect("presets name keys of the table");
        values.set_known((*path).to_owned(), key, text, origin.clone());
    }
}

/// The host's name as a node's name: what is not allowed becomes `-`.
fn node_name(host_name: &str) -> String {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let name: String = host_name
        .chars()
        .take(NODE_BYTES_MAX)
        .map(|c| if allowed(c) { c } else { '-' })
        .collect();
    if name.is_empty() {
        return "node".to_owned();
    }
    name
}
