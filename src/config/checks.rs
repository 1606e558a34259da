//! What must hold between keys, and what production refuses.
//!
//! In: values that each are of their kind. Out: faults at the place of the value that was set,
//! and warnings. A relation whose key was refused already is left out, because what is there
//! is only the layer below.

use std::net::SocketAddr;

use crate::config::Environment;
use crate::config::app_keys::AUTHORIZE_CONNECT;
use crate::config::authorizer;
use crate::config::client_list;
use crate::config::faults::Faults;
use crate::config::file_shares;
use crate::config::inputs::Flag;
use crate::config::keys;
use crate::config::machine::Machine;
use crate::config::redis_url::RedisUrl;
use crate::config::value::Value;
use crate::config::values::{Origin, Values};

mod api_keys;
mod api_only;
mod authorizing;
pub(super) mod files;
mod issuers;
mod needs;
pub mod of_app;
mod of_topics;
mod telemetry;
mod tried;

/// What one key must be, measured by another.
struct Relation {
    upper: &'static str,
    /// In halves: 2 is at least as much, 5 is two and a half times as much.
    halves: u64,
    lower: &'static str,
}

const fn at_least(upper: &'static str, halves: u64, lower: &'static str) -> Relation {
    Relation {
        upper,
        halves,
        lower,
    }
}

/// What is closer together than this cannot work: one late ping, probe or heartbeat would be taken
/// for an end. And a message has to fit where it waits and travels.
const RELATIONS: [Relation; 7] = [
    at_least("session.pong_ms", 3, "session.ping_ms"),
    at_least("redis.probe_fresh_ms", 4, "redis.probe_interval_ms"),
    at_least("redis.lease_ms", 5, "redis.command_timeout_ms"),
    at_least("session.outbox_bytes_max", 2, "session.message_bytes_max"),
    at_least("session.page_bytes_max", 2, "session.message_bytes_max"),
    at_least("api.body_bytes_max", 2, "session.message_bytes_max"),
    at_least("session.message_bytes_max", 2, "auth.token_bytes_max"),
];

/// So many partitions can be held for each millisecond of their lease: all of them, 16,384, with the
/// default of 5 s, which costs Redis some 2 % of its time, or where each has to be asked for alone a
/// tenth. With a fifth of that lease they would never settle then.
const PARTITIONS_PER_LEASE_MS: u64 = 4;

/// Keys of the API are compared only whole; this is what a generated one has at the least.
const API_KEY_BYTES_MIN: usize = 16;

/// Checks all relations.
pub fn check(values: &Values, machine: &Machine, flags: &[Flag], faults: &mut Faults) {
    for relation in &RELATIONS {
        relation.check(values, faults);
    }
    of_topics::check(values, faults);
    partitions(values, faults);
    listeners(values, faults);
    file_limit(values, machine, faults);
    memory(values, machine, faults);
    files::check(values, faults);
    redis_access(values, faults);
    auth(values, faults);
    authorizing::check(values, faults);
    issuers::check(values, faults);
    tried::check(values, faults);
    shards(values, faults);
    alone(values, faults);
    api_only::check(values, faults);
    api_keys::check(values, faults);
    if values.environment() == Environment::Production {
        production(values, flags, faults);
    }
}

/// What of an app is allowed and still deserves a line.
pub fn warnings_of_app(values: &Values) -> impl Iterator<Item = String> {
    needs::warnings(values)
}

/// What is allowed and still deserves a line.
#[must_use]
pub fn warnings(values: &Values) -> Vec<String> {
    let mut warnings = Vec::new();
    let api_keys = list(values, "api.keys");
    if !has_callers(values) {
        warnings.push("api.keys: no key, so the API answers only health and metrics".to_owned());
    }
    let is_short = |key: &str| key.len() < API_KEY_BYTES_MIN;
    let in_file = values.file_keys();
    for (path, is_weak) in [
        ("api.keys", api_keys.iter().any(|key| is_short(key))),
        ("api.keys_file", in_file.iter().any(|key| is_short(&key.0))),
    ] {
        if is_weak && !values.dev() {
            let place = values.place(path);
            warnings.push(format!(
                "{place}: a key of the API has fewer than {API_KEY_BYTES_MIN} bytes and can be guessed"
            ));
        }
    }
    let public = |path| address(values, path).is_some_and(|address| !address.ip().is_loopback());
    if values.dev() && (public("server.listen") || public("api.listen")) {
        warnings.push("--dev: everybody who reaches this machine may do everything".to_owned());
    }
    let is_production = values.environment() == Environment::Production;
    let anonymous = value(values, "auth.anonymous") == Some(&Value::Flag(true));
    if is_production && anonymous && list(values, "auth.origins").is_empty() {
        let place = values.place("auth.anonymous");
        warnings.push(format!(
            "{place}: with auth.anonymous and without auth.origins any page may use this node"
        ));
    }
    if values.number("drain.window_ms") == 0 && !values.dev() {
        let place = values.place("drain.window_ms");
        warnings.push(format!(
            "{place}: with drain.window_ms 0 all sessions of a node that stops come back at once"
        ));
    }
    if text(values, "redis.url").is_none() && !values.dev() && !is_alone(values) {
        warnings.push(
            "redis.url: not set, so this node is alone: it hears nothing of others, and what it \
             keeps ends with it; cluster.alone = true says that this is meant"
                .to_owned(),
        );
    }
    if value(values, "server.echo") == Some(&Value::Flag(true)) && !values.dev() {
        let place = values.place("server.echo");
        warnings.push(format!(
            "{place}: anybody can make this node hold and send 16 MiB for each connection to /echo"
        ));
    }
    warnings.extend(needs::warnings(values));
    warnings.extend(values.app_warnings().iter().cloned());
    warnings.extend(telemetry::warnings(values));
    warnings
}

impl Relation {
    fn check(&self, values: &Values, faults: &mut Faults) {
        let (upper, lower) = (self.upper, self.lower);
        let (high, low) = (values.number(upper), values.number(lower));
        let holds = high.saturating_mul(2) >= low.saturating_mul(self.halves);
        if holds || values.is_refused(upper) || values.is_refused(lower) {
            return;
        }
        let times = match (self.halves / 2, self.halves % 2) {
            (1, 0) => String::new(),
            (whole, 0) => format!("{whole} times "),
            (whole, _) => format!("{whole}.5 times "),
        };
        let what =
            format!("{upper} is {high}, but must be at least {times}{lower}, which is {low}");
        let remedy = format!("raise {upper} or lower {lower}");
        faults.push(values.place(later(values, upper, lower)), what, remedy);
    }
}

/// The one of two keys that the later source has set.
fn later<'a>(values: &Values, upper: &'a str, lower: &'a str) -> &'a str {
    if values.origin(upper) >= values.origin(lower) {
        upper
    } else {
        lower
    }
}

/// Leases of partitions are renewed in time.
fn partitions(values: &Values, faults: &mut Faults) {
    let (path, lease) = ("redis.partitions", "redis.lease_ms");
    let (partitions, lease_ms) = (values.number(path), values.number(lease));
    let most = lease_ms.saturating_mul(PARTITIONS_PER_LEASE_MS);
    if partitions <= most || values.is_refused(path) || values.is_refused(lease) {
        return;
    }
    let what =
        format!("{path} is {partitions}, but with {lease} {lease_ms} at most {most} can be held");
    let remedy = format!("lower {path} or raise {lease}");
    faults.push(values.place(later(values, path, lease)), what, remedy);
}

/// A budget above what there is ends in the kernel's killing the process. What nobody has set is
/// never above.
fn memory(values: &Values, machine: &Machine, faults: &mut Faults) {
    let Some(most) = machine.memory_max() else {
        return;
    };
    for path in [
        "memory.bytes_max",
        "cache.memory_bytes",
        "admission.memory_bytes_max",
    ] {
        let bytes = values.number(path);
        if bytes > most && *values.origin(path) > Origin::Machine && !values.is_refused(path) {
            let what = format!("{path} is {bytes}, but this process can have {most} bytes");
            faults.push(values.place(path), what, "lower it, or give more memory");
        }
    }
}

fn listeners(values: &Values, faults: &mut Faults) {
    let remedy = "give the API its own port";
    let of_metrics = "give metrics their own port";
    listener(values, ("server.listen", "api.listen"), remedy, faults);
    for other in ["server.listen", "api.listen"] {
        listener(values, (other, "metrics.listen"), of_metrics, faults);
    }
}

/// Two listeners that cannot both be had.
fn listener(values: &Values, (path, other): (&str, &str), remedy: &str, faults: &mut Faults) {
    let (one, two) = (address(values, path), address(values, other));
    if let (Some(one), Some(two)) = (one, two)
        && one.port() == two.port()
        && one.port() != 0
        && (one.ip() == two.ip() || one.ip().is_unspecified() || two.ip().is_unspecified())
    {
        let what = match one == two {
            true => format!("{path} and {other} are both {one}"),
            false => format!("{path} is {one} and {other} {two}, the same port"),
        };
        faults.push(values.place(later(values, other, path)), what, remedy);
    }
}

fn file_limit(values: &Values, machine: &Machine, faults: &mut Faults) {
    let path = "server.connections_max";
    // Nobody takes up the sessions' files of a node that takes none.
    let connections = match api_only::is_meant(values) {
        true => 0,
        false => values.number(path),
    };
    let needed = connections + file_shares::reserved(&redis_urls(values));
    if needed > machine.file_limit && !values.is_refused(path) {
        let what = format!(
            "{path} is {connections}, which needs {needed} open files, but the limit is {}",
            machine.file_limit
        );
        let remedy = format!("lower it, or raise the limit (ulimit -n, LimitNOFILE) to {needed}");
        faults.push(values.place(path), what, remedy);
    }
}

/// What would be left out in silence, or stand against what a URL says.
fn redis_access(values: &Values, faults: &mut Faults) {
    let first = text(values, "redis.url").into_iter();
    let shards = list(values, "redis.shards").iter();
    let first = first.map(|url| ("redis.url", url));
    let urls: Vec<_> = first
        .chain(shards.map(|url| ("redis.shards", url.as_str())))
        .filter_map(|(key, url)| Some((key, RedisUrl::parse(url).ok()?)))
        .collect();
    if urls.is_empty() || values.is_refused("redis.url") || values.is_refused("redis.shards") {
        return;
    }
    let with_user = urls.iter().find(|(_, url)| !url.login().0.is_empty());
    let with_password = urls.iter().find(|(_, url)| !url.login().1.is_empty());
    let are_secret = urls.iter().all(|(_, url)| !url.login().1.is_empty());
    let is_tls = urls.iter().any(|(_, url)| url.is_tls());
    let has = |path| text(values, path).is_some();
    let mut fault = |path: &str, what: &str, remedy: &str| {
        faults.push(values.place(path), format!("{path} {what}"), remedy);
    };
    for path in [
        "redis.tls_ca_file",
        "redis.tls_certificate_file",
        "redis.tls_server_name",
    ] {
        if has(path) && !is_tls {
            let remedy = "begin redis.url with rediss://, or leave it out";
            fault(path, "is set, but redis.url asks for no TLS", remedy);
        }
    }
    for [path, other] in [
        ["redis.tls_certificate_file", "redis.tls_key_file"],
        ["redis.tls_key_file", "redis.tls_certificate_file"],
    ] {
        if has(path) && !has(other) && !values.is_refused(other) {
            let remedy = format!("set {other} too");
            fault(path, &format!("is set without {other}"), &remedy);
        }
    }
    if let (true, Some((key, _))) = (has("redis.user"), with_user) {
        let what = format!("is set, and {key} has a user");
        fault("redis.user", &what, "leave out one of them");
    }
    if let (true, Some((key, _))) = (has("redis.password_file"), with_password) {
        let what = format!("is set, and {key} has a password");
        let remedy = format!("take the password out of {key}");
        fault("redis.password_file", &what, &remedy);
    }
    let has_file = has("redis.password_file") || values.is_refused("redis.password_file");
    let without = urls.iter().find(|(_, url)| {
        let (user, password) = url.login();
        !user.is_empty() && password.is_empty()
    });
    if let (Some((key, _)), false) = (without, has_file) {
        fault(
            key,
            "has a login without a colon, so it is taken for a user, and there is no password",
            "write USER:PASSWORD@ or :PASSWORD@, or set redis.password_file",
        );
    }
    let is_secret = has("redis.password_file") || are_secret;
    if has("redis.user") && !is_secret && !values.is_refused("redis.password_file") {
        fault(
            "redis.user",
            "is set without a password, so it would not be used",
            "set redis.password_file",
        );
    }
}

fn auth(values: &Values, faults: &mut Faults) {
    let cookie = matches!(value(values, "auth.cookie"), Some(Value::Text(_)));
    if cookie && list(values, "auth.origins").is_empty() && !values.is_refused("auth.origins") {
        let what = "auth.cookie is set without auth.origins, so any page could use it";
        let remedy = "list the origins of your pages in auth.origins";
        faults.push(values.place("auth.cookie"), what, remedy);
    }
    let anonymous = value(values, "auth.anonymous") == Some(&Value::Flag(true));
    let refused = [
        authorizer::PATH,
        AUTHORIZE_CONNECT,
        "auth.keys",
        "auth.issuers",
        "auth.hmac_secret",
        "auth.hmac_secret_file",
        "auth.anonymous",
    ]
    .iter()
    .any(|path| values.is_refused(path));
    let mut apps = values.app_drafts().values();
    let of_apps = apps.any(lets_in);
    let keyless = !lets_in(values) && !of_apps;
    if keyless && !anonymous && !refused && !api_only::is_meant(values) {
        let remedy = "set FANFARE_AUTH__HMAC_SECRET or [[auth.keys]], or auth.anonymous = true to \
                      let everybody in; on your own machine start with --dev";
        faults.push(
            "auth.keys",
            "there is no token key, so nobody could connect",
            remedy,
        );
    }
}

/// Whether somebody may come in by a token or an authorizer.
fn lets_in(values: &Values) -> bool {
    values.has_token_keys() || text(values, AUTHORIZE_CONNECT).is_some()
}

/// The deployments, as far as they can be read.
#[must_use]
pub fn redis_urls(values: &Values) -> Vec<RedisUrl> {
    let first = text(values, "redis.url").into_iter();
    let all = first.chain(list(values, "redis.shards").iter().map(String::as_str));
    all.filter_map(|url| RedisUrl::parse(url).ok()).collect()
}

/// Several deployments are told apart by their names, on which all nodes must agree.
fn shards(values: &Values, faults: &mut Faults) {
    let path = "redis.shards";
    let shards = list(values, path);
    if shards.is_empty() || values.is_refused(path) || values.is_refused("redis.url") {
        return;
    }
    let Some(Value::Text(first)) = value(values, "redis.url") else {
        let what = "redis.shards is set without redis.url, where the cluster's own keys would be";
        faults.push(values.place(path), what, "set redis.url to one of them");
        return;
    };
    let urls = std::iter::once(first).chain(shards);
    let urls: Vec<_> = urls.filter_map(|url| RedisUrl::parse(url).ok()).collect();
    if let Some(at) = urls.iter().position(|url| !url.is_named) {
        let path = if at == 0 { "redis.url" } else { path };
        let what = format!(
            "{path}: with several deployments of Redis {} needs a name",
            urls[at].name
        );
        let remedy = "end each with ?name=NAME, the same on every node: where topics are follows from the names";
        faults.push(values.place(path), what, remedy);
    }
    let mut names: Vec<_> = urls.into_iter().map(|url| url.name).collect();
    names.sort_unstable();
    if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
        let what = format!("two deployments of Redis are called {}", twice[0]);
        let remedy = "list each once, or tell them apart by ?name=NAME";
        faults.push(values.place(path), what, remedy);
    }
}

fn is_alone(values: &Values) -> bool {
    value(values, "cluster.alone") == Some(&Value::Flag(true))
}

fn alone(values: &Values, faults: &mut Faults) {
    let has_redis = text(values, "redis.url").is_some() && !values.is_refused("redis.url");
    if is_alone(values) && has_redis {
        let what = "cluster.alone is set, and redis.url too";
        let remedy = "leave out cluster.alone, or take redis.url away";
        faults.push(values.place("cluster.alone"), what, remedy);
    }
}

fn production(values: &Values, flags: &[Flag], faults: &mut Faults) {
    if values.dev() {
        let what = "lets everybody do everything, which production refuses";
        faults.push("--dev", what, "leave --dev out, or choose another --env");
    }
    let refused = ["api.keys", "api.keys_file", client_list::PATH];
    if !has_callers(values) && !refused.iter().any(|path| values.is_refused(path)) {
        let what = "there is no key for the API, which production refuses";
        let remedy = "set FANFARE_API__KEYS; to take out the last key put a new one in its place";
        faults.push("api.keys", what, remedy);
    }
    let is_without_redis = text(values, "redis.url").is_none() && !values.is_refused("redis.url");
    if is_without_redis && !is_alone(values) {
        let what = "redis.url is not set, so every node would be alone and hear nothing of the \
                    others, which production refuses";
        let remedy = "set FANFARE_REDIS__URL, or cluster.alone = true for a single node";
        faults.push("redis.url", what, remedy);
    }
    for flag in flags {
        let Some(key) = keys::find(flag.path) else {
            continue;
        };
        let hide = key.kind.hide();
        let carries_secret = hide.is_some_and(|hide| hide(&flag.value).contains("***"));
        if carries_secret {
            let what = format!(
                "{} has a secret on the command line, where everybody on the machine can read it, \
                 which production refuses",
                key.path()
            );
            faults.push(
                flag.name,
                what,
                format!("set {} instead", key.environment()),
            );
        }
    }
}

/// Whether anybody may call the API.
fn has_callers(values: &Values) -> bool {
    let is_none = list(values, "api.keys").is_empty()
        && values.file_keys().is_empty()
        && values.api_clients_with_origins().is_empty();
    !is_none
}

fn value<'a>(values: &'a Values, path: &str) -> Option<&'a Value> {
    values.get(path).map(|setting| &setting.value)
}

fn text<'a>(values: &'a Values, path: &str) -> Option<&'a str> {
    match value(values, path) {
        Some(Value::Text(text)) => Some(text),
        _ => None,
    }
}

fn list<'a>(values: &'a Values, path: &str) -> &'a [String] {
    match value(values, path) {
        Some(Value::List(items)) => items,
        _ => &[],
    }
}

fn address(values: &Values, path: &str) -> Option<SocketAddr> {
    match value(values, path) {
        Some(Value::Text(text)) => text.parse().ok(),
        _ => None,
    }
}
