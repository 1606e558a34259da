//! What a node keeps in Redis and promises by its configuration, as a text by which nodes that differ
//! notice: pure.
//!
//! In: the configuration, and the texts of others (`texts`). Out: a text, and where two of them
//! differ. A node whose namespace has no history deletes what others keep, one without `replicas_min`
//! answers `ok` too early for those that have it, one with a longer lease does not see an outage that
//! others need to be seen, and one with shorter messages buries what others took into the queue. One that
//! takes other tokens, other keys of the API, or gives other rights is a door that others have closed. None
//! is a fault while settings are rolled out.
//! Owns nothing. Bounds: [`LISTED_MAX`] namespaces one by one, one digest over the others.
//!
//! The text is `NAME:VALUE,VALUE,…` for each namespace that differs from `default`, separated by
//! spaces. What may hold any character, or is secret, stands there as the first 32 bits of its SHA-256:
//! enough to see a difference, and no help to whoever guesses a long secret. Names that begin with `@`
//! are of no namespace; of the apps of the file beside `default` there is one digest each. What only one
//! of two texts has is not
//! compared: a later release may append values and names, and an earlier one says nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use crate::config::app::AppSettings;
use crate::config::{Config, Namespace};
use fanfare_protocol::ids::App;

mod access;

/// Most namespaces that are listed one by one.
const LISTED_MAX: usize = 32;

/// The values of a namespace, in their order. What a publication does not say itself is written
/// with it by the node that takes it, so `conflate` and `priority` are among them.
const OF_NAMESPACE: [&str; 10] = [
    "history_entries_max",
    "history_age_s",
    "presence",
    "replicas_min",
    "conflate",
    "priority",
    "subscribe",
    "publish",
    "history",
    "presence_allow",
];
const OF_SESSION: [&str; 2] = ["idempotency_s", "message_bytes_max"];
const OF_REDIS: [&str; 1] = ["lease_ms"];
const OF_QUEUE: [&str; 2] = ["capacity", "idempotency_s"];
const OF_AUTH: [&str; 8] = [
    "token_life_max_s",
    "leeway_s",
    "anonymous",
    "keys (digest)",
    "issuers (digest)",
    "issuer (digest)",
    "audience (digest)",
    "origins (digest)",
];
const OF_API: [&str; 2] = ["keys (digest)", "clients (digest)"];

const SESSION: &str = "@session";
const REDIS: &str = "@redis";
const QUEUE: &str = "@queue";
const AUTH: &str = "@auth";
const API: &str = "@api";
const CONNECT: &str = "@connect";
const INBOX: &str = "@inbox";
const EVERYONE: &str = "@everyone";
/// How many namespaces are not listed, and the digest over them.
const REST: &str = "@rest";
const DEFAULT: &str = "default";
/// How many apps there are beside `default`, and the digest over them.
const APPS: &str = "@apps";
/// With the name of an app behind it: the digest of what that keeps and whom it lets in.
const APP: &str = "@app/";
/// What a node says of an app that it does not have.
const NONE: &str = "none";

/// What this node says of itself: what it was started with, and what of it was read again since.
#[must_use]
pub fn said<'a>(
    config: &Config,
    read: &Config,
    apps: impl Iterator<Item = (&'a App, &'a Arc<AppSettings>)>,
) -> String {
    let own = [(INBOX, &config.inbox), (EVERYONE, &config.everyone)];
    let Config {
        session,
        redis,
        queue,
        ..
    } = config;
    let head = Head {
        idempotency: session.idempotency,
        message_bytes_max: session.message_bytes_max,
        lease: redis.lease,
        queue_capacity: queue.capacity,
        queue_idempotency: queue.idempotency,
        auth: access::of_auth(&config.auth, &read.auth),
        api: access::of_api(&read.api),
    };
    text(&head, own, &config.namespaces) + &text_of_apps(apps)
}

/// How many apps there are beside `default` and a digest over what all of them keep and whom they let in;
/// then a digest for each of the first.
fn text_of_apps<'a>(apps: impl Iterator<Item = (&'a App, &'a Arc<AppSettings>)>) -> String {
    let apps = apps.filter(|(app, _)| app.as_str() != DEFAULT);
    let (mut listed, mut all, mut count) = (String::new(), String::new(), 0_usize);
    for (app, settings) in apps {
        // Whatever is added to it is compared too.
        let AppSettings {
            auth,
            namespaces,
            inbox,
            everyone,
            // It says which of the stored ones it is, not what is kept.
            life: _,
        } = &**settings;
        let mut kept = String::new();
        push(&mut kept, AUTH, &access::of_auth(auth, auth));
        push(&mut kept, CONNECT, &format!("{:?}", auth.authorize_connect));
        push(&mut kept, INBOX, &values(inbox));
        push(&mut kept, EVERYONE, &values(everyone));
        for (name, namespace) in namespaces {
            push(&mut kept, name, &values(namespace));
        }
        let digest = format!("{:08x}", crc32fast::hash(kept.as_bytes()));
        let name = format!("{APP}{app}");
        push(&mut all, &name, &digest);
        if count < LISTED_MAX {
            push(&mut listed, &name, &digest);
        }
        count += 1;
    }
    let digest = crc32fast::hash(all.as_bytes());
    format!(" {APPS}:{count},{digest:08x}{listed}")
}

/// The values that are of no namespace.
struct Head {
    idempotency: Duration,
    message_bytes_max: usize,
    lease: Duration,
    queue_capacity: u64,
    queue_idempotency: Duration,
    auth: String,
    api: String,
}

fn text(
    head: &Head,
    own: [(&str, &Namespace); 2],
    namespaces: &BTreeMap<String, Namespace>,
) -> String {
    let idempotency_s = head.idempotency.as_secs();
    let mut text = format!("{SESSION}:{idempotency_s},{}", head.message_bytes_max);
    push(&mut text, REDIS, &head.lease.as_millis().to_string());
    let queue_idempotency_s = head.queue_idempotency.as_secs();
    let queue = format!("{},{queue_idempotency_s}", head.queue_capacity);
    push(&mut text, QUEUE, &queue);
    push(&mut text, AUTH, &head.auth);
    push(&mut text, API, &head.api);
    for (name, namespace) in own {
        push(&mut text, name, &values(namespace));
    }
    let default = namespaces.get(DEFAULT).map(values);
    if let Some(default) = &default {
        push(&mut text, DEFAULT, default);
    }
    let others = namespaces.iter().map(|(name, n)| (name, values(n)));
    // An unknown namespace has the options of `default`, so one with the same options is none.
    let others = others.filter(|(_, values)| Some(values) != default.as_ref());
    let (mut rest, mut rest_count) = (String::new(), 0);
    for (at, (name, values)) in others.enumerate() {
        if at < LISTED_MAX {
            push(&mut text, name, &values);
        } else {
            push(&mut rest, name, &values);
            rest_count += 1;
        }
    }
    if rest_count > 0 {
        let digest = crc32fast::hash(rest.as_bytes());
        push(&mut text, REST, &format!("{rest_count},{digest:08x}"));
    }
    text
}

fn push(text: &mut String, name: &str, values: &str) {
    // Writing to a String cannot fail.
    let _ = write!(text, " {name}:{values}");
}

fn values(namespace: &Namespace) -> String {
    let entries_max = namespace.history_entries_max;
    let age_s = match entries_max {
        // Nothing has an age.
        0 => 0,
        _ => namespace.history_age.as_secs(),
    };
    let Namespace {
        presence,
        replicas_min,
        conflate,
        priority,
        subscribe,
        publish,
        history,
        presence_allow,
        ..
    } = namespace;
    let rest = format!("{priority:?},{subscribe:?},{publish:?},{history:?},{presence_allow:?}");
    let rest = rest.to_lowercase();
    format!("{entries_max},{age_s},{presence},{replicas_min},{conflate},{rest}")
}

/// What a node said, the values of a name in one text.
struct Said<'a>(BTreeMap<&'a str, &'a str>);

impl<'a> Said<'a> {
    fn read(text: &'a str) -> Self {
        let entries = text.split(' ').filter_map(|entry| entry.split_once(':'));
        Self(entries.collect())
    }

    /// The values that hold for this name; `None`: not said, or only as a part of the rest.
    fn of(&self, name: &str) -> Option<&'a str> {
        let listed = self.0.get(name).copied();
        listed.or_else(|| {
            let is_in_rest = self.0.contains_key(REST) && Some(name) > self.listed().last();
            let is_known = !name.starts_with('@') && !is_in_rest;
            self.0.get(DEFAULT).copied().filter(|_| is_known)
        })
    }

    /// The namespaces that are listed beside `default`, sorted.
    fn listed(&self) -> impl Iterator<Item = &'a str> {
        let names = self.0.keys().copied();
        names.filter(|name| !name.starts_with('@') && *name != DEFAULT)
    }

    fn rest(&self) -> &'a str {
        self.0.get(REST).copied().unwrap_or(NONE)
    }

    /// The digest of what an app keeps; `None`: it is not known whether there is such an app.
    fn of_app(&self, name: &str) -> Option<&'a str> {
        let count: usize = self.0.get(APPS)?.split(',').next()?.parse().ok()?;
        let are_all_listed = count <= LISTED_MAX;
        let listed = self.0.get(name).copied();
        listed.or_else(|| are_all_listed.then_some(NONE))
    }

    /// Whether two digests are of the same namespaces, and of the same settings. Where others are
    /// listed, one of these differs.
    fn has_rest_like(&self, other: &Self) -> bool {
        let values_count = |said: &Self| said.0.get(DEFAULT).map(|v| v.split(',').count());
        self.listed().eq(other.listed()) && values_count(self) == values_count(other)
    }
}

/// A setting that two nodes have otherwise.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Difference<'a> {
    pub(super) what: String,
    pub(super) mine: &'a str,
    pub(super) theirs: &'a str,
}

/// Where `theirs` differs from `mine`.
pub(super) fn differences<'a>(mine: &'a str, theirs: &'a str) -> Vec<Difference<'a>> {
    if mine == theirs || mine.is_empty() || theirs.is_empty() {
        return Vec::new();
    }
    let (mine, theirs) = (Said::read(mine), Said::read(theirs));
    let names: BTreeSet<_> = mine.0.keys().chain(theirs.0.keys()).copied().collect();
    let mut found = Vec::new();
    for name in names {
        let (section, settings) = match name {
            SESSION => ("session".to_owned(), &OF_SESSION[..]),
            REDIS => ("redis".to_owned(), &OF_REDIS[..]),
            QUEUE => ("queue".to_owned(), &OF_QUEUE[..]),
            AUTH => ("auth".to_owned(), &OF_AUTH[..]),
            API => ("api".to_owned(), &OF_API[..]),
            INBOX => ("inbox".to_owned(), &OF_NAMESPACE[..]),
            EVERYONE => ("everyone".to_owned(), &OF_NAMESPACE[..]),
            _ if name.starts_with(APP) => {
                found.extend(of_app(name, &mine, &theirs));
                continue;
            }
            _ if name.starts_with('@') => continue,
            _ => (format!("namespaces.{name}"), &OF_NAMESPACE[..]),
        };
        let (Some(mine), Some(theirs)) = (mine.of(name), theirs.of(name)) else {
            continue;
        };
        let values = mine.split(',').zip(theirs.split(','));
        for (setting, (mine, theirs)) in settings.iter().zip(values) {
            if mine != theirs {
                let what = format!("{section}.{setting}");
                found.push(Difference { what, mine, theirs });
            }
        }
    }
    let (of_mine, of_theirs) = (mine.0.get(APPS), theirs.0.get(APPS));
    if let (Some(mine), Some(theirs)) = (of_mine, of_theirs)
        && mine != theirs
        && !found.iter().any(|found| found.what.starts_with("apps."))
    {
        found.push(Difference {
            what: format!("apps after the first {LISTED_MAX} (how many in all, digest)"),
            mine,
            theirs,
        });
    }
    if mine.has_rest_like(&theirs) && mine.rest() != theirs.rest() {
        found.push(Difference {
            what: format!("namespaces after the first {LISTED_MAX} (how many, digest)"),
            mine: mine.rest(),
            theirs: theirs.rest(),
        });
    }
    found
}

/// Whether an app of the file is another one there.
fn of_app<'a>(name: &str, mine: &Said<'a>, theirs: &Said<'a>) -> Option<Difference<'a>> {
    let (mine, theirs) = (mine.of_app(name)?, theirs.of_app(name)?);
    let app = name.strip_prefix(APP)?;
    (mine != theirs).then(|| Difference {
        what: format!("apps.{app} (digest)"),
        mine,
        theirs,
    })
}

#[cfg(test)]
mod tests;
