//! What a node keeps in Redis and promises by its configuration, as a text by which nodes that differ
//! notice: pure.
//!
//! In: the configuration, and the texts of others (`texts`). Out: a text, and where two of them
//! differ. A node whose namespace has no history deletes what others keep, one without `replicas_min`
//! answers `ok` too early for those that have it, one with a longer lease does not see an outage that
//! others need to be seen, and one with shorter messages buries what others took into the queue; none is
//! a fault while settings are rolled out.
//! Owns nothing. Bounds: [`LISTED_MAX`] namespaces one by one, one digest over the others.
//!
//! The text is `NAME:VALUE,VALUE,…` for each namespace that differs from `default`, separated by
//! spaces. Names that begin with `@` are of no namespace. What only one of two texts has is not
//! compared: a later release may append values and names, and an earlier one says nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::Duration;

use crate::config::{Config, Namespace};

/// Most namespaces that are listed one by one.
const LISTED_MAX: usize = 32;

/// The values of a namespace, in their order. What a publication does not say itself is written
/// with it by the node that takes it, so `conflate` and `priority` are among them.
const OF_NAMESPACE: [&str; 6] = [
    "history_entries_max",
    "history_age_s",
    "presence",
    "replicas_min",
    "conflate",
    "priority",
];
const OF_SESSION: [&str; 2] = ["idempotency_s", "message_bytes_max"];
const OF_REDIS: [&str; 1] = ["lease_ms"];
const OF_QUEUE: [&str; 2] = ["capacity", "idempotency_s"];

const SESSION: &str = "@session";
const REDIS: &str = "@redis";
const QUEUE: &str = "@queue";
const INBOX: &str = "@inbox";
const EVERYONE: &str = "@everyone";
/// How many namespaces are not listed, and the digest over them.
const REST: &str = "@rest";
const DEFAULT: &str = "default";

/// What this node says of itself.
#[must_use]
pub fn said(config: &Config) -> String {
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
    };
    text(&head, own, &config.namespaces)
}

/// The values that are of no namespace.
struct Head {
    idempotency: Duration,
    message_bytes_max: usize,
    lease: Duration,
    queue_capacity: u64,
    queue_idempotency: Duration,
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
        ..
    } = namespace;
    let priority = format!("{priority:?}").to_lowercase();
    format!("{entries_max},{age_s},{presence},{replicas_min},{conflate},{priority}")
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
        self.0.get(REST).copied().unwrap_or("none")
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
            INBOX => ("inbox".to_owned(), &OF_NAMESPACE[..]),
            EVERYONE => ("everyone".to_owned(), &OF_NAMESPACE[..]),
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
    if mine.has_rest_like(&theirs) && mine.rest() != theirs.rest() {
        found.push(Difference {
            what: format!("namespaces after the first {LISTED_MAX} (how many, digest)"),
            mine: mine.rest(),
            theirs: theirs.rest(),
        });
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Allow;
    use fanfare_protocol::ids::Priority;

    fn namespace(history_entries_max: u32) -> Namespace {
        Namespace {
            history_entries_max,
            history_age: Duration::from_secs(60),
            presence: false,
            priority: Priority::Normal,
            conflate: false,
            trace: false,
            subscribe: Allow::Token,
            publish: Allow::Token,
            history: Allow::Token,
            presence_allow: Allow::Token,
            replicas_min: 0,
            authorize_subscribe: None,
            authorize_publish: None,
            replicas_timeout: Duration::from_secs(1),
        }
    }

    /// What a node with these namespaces says; `default` has 10 entries.
    fn saying(namespaces: &[(&str, Namespace)]) -> String {
        let default = [("default", namespace(10))];
        let all = default.iter().chain(namespaces);
        let all = all.map(|(name, n)| ((*name).to_owned(), n.clone()));
        let own = namespace(5);
        let own = [(INBOX, &own), (EVERYONE, &own)];
        let head = Head {
            idempotency: Duration::from_secs(300),
            message_bytes_max: 65_536,
            lease: Duration::from_secs(5),
            queue_capacity: 50_000,
            queue_idempotency: Duration::from_secs(86_400),
        };
        text(&head, own, &all.collect())
    }

    fn told(mine: &str, theirs: &str) -> Vec<String> {
        let differences = differences(mine, theirs).into_iter();
        let told = differences.map(|d| format!("{}: {}, {}", d.what, d.mine, d.theirs));
        told.collect()
    }

    /// So many namespaces with a history of 1.
    fn many(count: usize) -> Vec<(String, Namespace)> {
        let name = |nth| (format!("n{nth:03}"), namespace(1));
        (0..count).map(name).collect()
    }

    fn saying_of(namespaces: &[(String, Namespace)]) -> String {
        let named = namespaces
            .iter()
            .map(|(name, n)| (name.as_str(), n.clone()));
        saying(&named.collect::<Vec<_>>())
    }

    #[test]
    fn what_is_kept_and_promised_is_said_in_few_words() {
        let orders = Namespace {
            presence: true,
            replicas_min: 2,
            conflate: true,
            priority: Priority::High,
            ..namespace(7)
        };
        assert_eq!(
            saying(&[("orders", orders), ("ticks", namespace(0))]),
            "@session:300,65536 @redis:5000 @queue:50000,86400 \
             @inbox:5,60,false,0,false,normal @everyone:5,60,false,0,false,normal \
             default:10,60,false,0,false,normal orders:7,60,true,2,true,high \
             ticks:0,0,false,0,false,normal"
        );
    }

    #[test]
    fn each_setting_that_differs_is_named_with_both_sides() {
        let mine = saying(&[("a=b,c", namespace(7))]);
        assert_eq!(told(&mine, &mine), [""; 0]);
        let theirs = saying(&[("a=b,c", namespace(0))]);
        let both = [
            "namespaces.a=b,c.history_age_s: 60, 0",
            "namespaces.a=b,c.history_entries_max: 7, 0",
        ];
        let mut found = told(&mine, &theirs);
        found.sort_unstable();
        assert_eq!(found, both);
        let theirs = mine.replace("@session:300", "@session:60");
        assert_eq!(told(&mine, &theirs), ["session.idempotency_s: 300, 60"]);
        let theirs = mine.replace("300,65536", "300,300000");
        let message_bytes_max = ["session.message_bytes_max: 65536, 300000"];
        assert_eq!(told(&mine, &theirs), message_bytes_max);
        let theirs = mine.replace("@queue:50000,86400", "@queue:10,5");
        let queue = ["queue.capacity: 50000, 10", "queue.idempotency_s: 86400, 5"];
        assert_eq!(told(&mine, &theirs), queue);
        let theirs = mine.replace("@redis:5000", "@redis:20000");
        assert_eq!(told(&mine, &theirs), ["redis.lease_ms: 5000, 20000"]);
        let theirs = mine.replace("@everyone:5", "@everyone:6");
        assert_eq!(told(&mine, &theirs), ["everyone.history_entries_max: 5, 6"]);
    }

    #[test]
    fn a_namespace_that_only_one_has_is_compared_with_the_default_of_the_other() {
        let chat = namespace(7);
        let (with, without) = (saying(&[("chat", chat)]), saying(&[]));
        let what = "namespaces.chat.history_entries_max";
        assert_eq!(told(&with, &without), [format!("{what}: 7, 10")]);
        assert_eq!(told(&without, &with), [format!("{what}: 10, 7")]);
        let like_default = saying(&[("chat", namespace(10))]);
        assert_eq!(told(&like_default, &without), [""; 0]);
        // And where the defaults differ, by what holds.
        let theirs = without.replace("default:10", "default:7");
        let default = "namespaces.default.history_entries_max: 10, 7";
        assert_eq!(told(&with, &theirs), [default]);
    }

    #[test]
    fn what_another_release_says_more_or_less_is_no_difference() {
        let mine = saying(&[("chat", namespace(7))]);
        for theirs in [
            String::new(),
            "from another planet".to_owned(),
            mine.replace("normal", "normal,12") + " @more:3",
            mine.replace(",normal", ""),
            mine.replace("@redis:5000 ", ""),
            mine.replace(",65536", ""),
            mine.replace("@queue:50000,86400 ", ""),
        ] {
            assert_eq!(told(&mine, &theirs), [""; 0], "{theirs}");
            assert_eq!(told(&theirs, &mine), [""; 0], "{theirs}");
        }
    }

    #[test]
    fn beyond_the_bound_one_digest_is_compared_and_nothing_is_told_twice() {
        let mine = many(LISTED_MAX + 3);
        let said = saying_of(&mine);
        assert!(said.contains(" @rest:3,"), "{said}");
        assert_eq!(told(&said, &said), [""; 0]);
        let mut theirs = mine.clone();
        theirs[LISTED_MAX + 1].1.history_entries_max = 2;
        let found = told(&said, &saying_of(&theirs));
        assert_eq!(found.len(), 1);
        assert!(
            found[0].starts_with("namespaces after the first 32"),
            "{found:?}"
        );
        let found = told(&said, &saying_of(&mine[..LISTED_MAX]));
        assert!(found[0].ends_with(", none"), "{found:?}");
        // One of the first is missing, so that others are listed.
        theirs = mine.clone();
        theirs.remove(5);
        let missing = "namespaces.n005.history_entries_max: 1, 10";
        assert_eq!(told(&said, &saying_of(&theirs)), [missing]);
        // The rest of a release with more settings is another digest over the same.
        let later = said
            .replace("normal", "normal,1")
            .replace("@rest:3,", "@rest:3,0");
        assert_eq!(told(&said, &later), [""; 0]);
    }
}
