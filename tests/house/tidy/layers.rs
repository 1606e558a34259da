//! Which top module of the server may import which: imports run one way, from the command line to the ground.
//!
//! In: the paths in code outside tests (`use` trees opened, `super` resolved). Out: a breach for
//! each import that the table does not name.

use super::source::{Breach, Source};

/// A module of `src/` and the modules that it may import. Read from the bottom it is the way of a
/// message from the client to the ground.
#[rustfmt::skip]
pub(crate) const ALLOWED: &[(&str, &[&str])] = &[
    // The ground: imported by all, importing none of what stands below it here.
    ("fixed_hash", &[]),
    ("config", &[]),
    ("telemetry", &["config"]),
    ("lifecycle", &["config", "telemetry"]),
    ("tasks", &["config", "telemetry"]),
    ("redis", &["config", "telemetry"]),
    ("http", &["config", "telemetry"]),
    // The seeds of simulations, in builds for tests.
    ("seeds", &[]),
    // Which apps there are, and what each sets for itself.
    ("apps", &["redis", "tasks", "config", "telemetry"]),
    // Who somebody is and what they may do; pure.
    ("revocation", &["redis", "tasks", "config", "telemetry"]),
    ("auth", &["revocation", "config", "telemetry"]),
    ("policy", &["auth", "config", "telemetry"]),
    // Checks of tokens that wait, or cost too much for a worker.
    ("verification", &["auth", "tasks", "config", "telemetry"]),
    // Backends that are asked.
    ("authorizer", &["verification", "auth", "tasks", "config", "telemetry"]),
    // The control side.
    ("broker", &["fixed_hash", "redis", "tasks", "lifecycle", "telemetry", "config"]),
    ("cluster", &["fixed_hash", "broker", "redis", "tasks", "lifecycle", "telemetry", "config"]),
    ("presence", &["cluster", "broker", "redis", "tasks", "lifecycle", "telemetry", "config"]),
    ("queue", &["apps", "cluster", "broker", "redis", "tasks", "lifecycle", "telemetry", "config"]),
    ("worker", &["broker", "revocation", "redis", "tasks", "lifecycle", "telemetry", "config"]),
    ("dispatcher", &["apps", "worker", "cluster", "broker", "revocation", "redis", "tasks", "lifecycle", "telemetry", "config"]),
    // What clients and backends speak to.
    ("session", &["apps", "worker", "presence", "cluster", "broker", "policy", "authorizer", "verification", "auth", "revocation", "redis", "tasks", "lifecycle",
        "telemetry", "config"]),
    ("api", &["apps", "http", "presence", "cluster", "broker", "policy", "auth", "revocation", "redis", "tasks", "lifecycle", "telemetry", "config"]),
    ("ingress", &["apps", "http", "policy", "session", "worker", "presence", "cluster", "broker", "verification", "auth", "redis",
        "tasks", "lifecycle", "telemetry", "config"]),
    // What puts it together.
    ("node", &["apps", "ingress", "api", "http", "session", "dispatcher", "worker", "queue", "presence", "cluster",
        "broker", "authorizer", "verification", "auth", "revocation", "redis", "tasks", "lifecycle", "telemetry", "config"]),
    ("cli", &["apps", "node", "ingress", "api", "http", "session", "dispatcher", "worker", "queue", "presence", "cluster",
        "broker", "verification", "auth", "revocation", "redis", "tasks", "lifecycle", "telemetry", "config"]),
    ("main", &["cli"]),
];

/// Imports that the table does not allow, and modules that it does not know.
pub(crate) fn layering(source: &Source) -> Vec<Breach> {
    if !source.path.starts_with("src/") {
        return Vec::new();
    }
    let module = source.module();
    let Some(from) = module.first() else {
        return Vec::new();
    };
    let Some((_, allowed)) = ALLOWED.iter().find(|(name, _)| name == from) else {
        let what = format!("the module `{from}` has no place in the table of layers");
        return vec![source.breach(1, what)];
    };
    let mut breaches = Vec::new();
    for path in source.code_paths() {
        if let Some(to) = top_module(&module, &path.segments)
            && to != *from
            && !allowed.contains(&to)
        {
            let what = format!(
                "`{from}` may not import `{to}` (see ALLOWED in tests/house/tidy/layers.rs)"
            );
            breaches.push(source.breach(path.line, what));
        }
    }
    breaches
}

/// The module under the crate's root that a path leads to; `None` for other crates and for names
/// in scope.
fn top_module<'a>(module: &[&'a str], path: &'a [String]) -> Option<&'a str> {
    let first = path.first()?.as_str();
    if matches!(first, "crate" | "fanfare") {
        return path.get(1).map(String::as_str);
    }
    let supers_count = path
        .iter()
        .take_while(|segment| *segment == "super")
        .count();
    if supers_count == 0 {
        return None;
    }
    match module.len().checked_sub(supers_count)? {
        0 => path.get(supers_count).map(String::as_str),
        _ => module.first().copied(),
    }
}
