//! What a node keeps in Redis and promises by its configuration, said with its heartbeats, so that
//! nodes which differ notice: pure.
//!
//! In: the configuration, and what others said. Out: a text, and where two of them differ, in words.
//! A node whose namespace has no history deletes what others keep, and one without `replicas_min`
//! answers `ok` too early for those that have it; neither is a fault while settings are rolled out.
//! Owns nothing. Bounds: [`LISTED_MAX`] namespaces one by one, one digest over the others;
//! [`TOLD_MAX`] differences, with as many names each.
//!
//! The text is `NAME:VALUE,VALUE,…` for each namespace that differs from `default`, separated by
//! spaces. Names that begin with `@` are of no namespace. What only one of two texts has is not
//! compared: a later release may append values and names, and an earlier one says nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write as _};
use std::time::Duration;

use super::view::View;
use crate::config::{Config, Namespace};
use crate::protocol::ids::NodeId;

/// Most namespaces that are listed one by one.
const LISTED_MAX: usize = 32;
/// Most differences that are told, and most nodes that are named for each.
const TOLD_MAX: usize = 8;

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
const OF_SESSION: [&str; 1] = ["idempotency_s"];

const SESSION: &str = "@session";
const INBOX: &str = "@inbox";
const EVERYONE: &str = "@everyone";
/// How many namespaces are not listed, and the digest over them.
const REST: &str = "@rest";
const DEFAULT: &str = "default";

/// What this node says of itself.
#[must_use]
pub fn said(config: &Config) -> String {
    let own = [(INBOX, &config.inbox), (EVERYONE, &config.everyone)];
    text(config.session.idempotency, own, &config.namespaces)
}

fn text(
    idempotency: Duration,
    own: [(&str, &Namespace); 2],
    namespaces: &BTreeMap<String, Namespace>,
) -> String {
    let mut text = format!("{SESSION}:{}", idempotency.as_secs());
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
struct Difference<'a> {
    what: String,
    mine: &'a str,
    theirs: &'a str,
}

/// Where `theirs` differs from `mine`.
fn differences<'a>(mine: &'a str, theirs: &'a str) -> Vec<Difference<'a>> {
    if mine == theirs || mine.is_empty() || theirs.is_empty() {
        return Vec::new();
    }
    let (mine, theirs) = (Said::read(mine), Said::read(theirs));
    let names: BTreeSet<_> = mine.0.keys().chain(theirs.0.keys()).copied().collect();
    let mut found = Vec::new();
    for name in names {
        let (section, settings) = match name {
            SESSION => ("session".to_owned(), &OF_SESSION[..]),
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

/// How the other nodes of a view compare with this one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Comparison {
    /// How many keep and promise the same.
    pub same_count: usize,
    /// How many do not.
    pub differing_count: usize,
    /// How many do not say, because they are of an earlier release.
    pub silent_count: usize,
    /// In what the second differ, for people; empty where none does.
    pub differences: String,
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (same, silent) = (self.same_count, self.silent_count);
        match self.differing_count {
            0 => write!(f, "the same at {same} of {} other nodes", same + silent)?,
            _ => f.write_str(&self.differences)?,
        }
        match silent {
            0 => Ok(()),
            _ => write!(f, "; not said by {silent} of an earlier release"),
        }
    }
}

/// Compares all nodes of a view with this one.
#[must_use]
pub fn compare(view: &View) -> Comparison {
    let mine = view.node(&view.me.node).map(|me| &*me.details.keeps);
    let mine = mine.unwrap_or_default();
    // Nodes mostly say one of few things.
    let mut said: BTreeMap<&str, Vec<&NodeId>> = BTreeMap::new();
    let others = view.nodes.iter().filter(|n| n.owner.node != view.me.node);
    for other in others {
        let names = said.entry(&other.details.keeps).or_default();
        names.push(&other.owner.node);
    }
    let mut comparison = Comparison::default();
    let mut found: BTreeMap<Difference<'_>, Vec<&NodeId>> = BTreeMap::new();
    for (theirs, names) in said {
        let differences = differences(mine, theirs);
        if theirs.is_empty() {
            comparison.silent_count += names.len();
        } else if differences.is_empty() {
            comparison.same_count += names.len();
        } else {
            comparison.differing_count += names.len();
        }
        for difference in differences {
            found.entry(difference).or_default().extend(&names);
        }
    }
    comparison.differences = in_words(&found);
    comparison
}

fn in_words(found: &BTreeMap<Difference<'_>, Vec<&NodeId>>) -> String {
    let one = |(difference, names): (&Difference<'_>, &Vec<&NodeId>)| {
        let Difference { what, mine, theirs } = difference;
        let named: Vec<_> = names.iter().take(TOLD_MAX).map(|n| n.as_str()).collect();
        let more = more_than(names.len(), "more nodes");
        let named = named.join(", ");
        format!("{what}: {theirs} at {named}{more}, {mine} here")
    };
    let told: Vec<_> = found.iter().take(TOLD_MAX).map(one).collect();
    told.join("; ") + &more_than(found.len(), "more settings")
}

/// How many were not told.
fn more_than(count: usize, of: &str) -> String {
    match count.saturating_sub(TOLD_MAX) {
        0 => String::new(),
        more => format!(" and {more} {of}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::view::{NodeDetails, NodeInfo};
    use crate::config::Allow;
    use crate::protocol::ids::Priority;

    fn namespace(history_entries_max: u32) -> Namespace {
        Namespace {
            history_entries_max,
            history_age: Duration::from_secs(60),
            presence: false,
            priority: Priority::Normal,
            conflate: false,
            subscribe: Allow::Token,
            publish: Allow::Token,
            history: Allow::Token,
            presence_allow: Allow::Token,
            replicas_min: 0,
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
        text(Duration::from_secs(300), own, &all.collect())
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
            "@session:300 @inbox:5,60,false,0,false,normal @everyone:5,60,false,0,false,normal \
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

    fn view(keeps: &[String]) -> View {
        let info = |(nth, keeps): (usize, &String)| NodeInfo {
            owner: format!("n{nth:02}~1").parse().unwrap(),
            details: NodeDetails {
                keeps: keeps.clone(),
                ..NodeDetails::default()
            },
        };
        let me = "n00~1".parse().unwrap();
        View {
            nodes: keeps.iter().enumerate().map(info).collect(),
            ..View::alone(me, NodeDetails::default(), 8)
        }
    }

    #[test]
    fn the_nodes_of_a_view_are_counted_and_named() {
        let mine = saying(&[("chat", namespace(7))]);
        let less = saying(&[("chat", namespace(0))]);
        let alone = compare(&view(std::slice::from_ref(&mine)));
        assert_eq!(alone, Comparison::default());
        let seen = [&mine, &mine, &less, &String::new(), &less].map(Clone::clone);
        let comparison = compare(&view(&seen));
        let Comparison {
            same_count,
            differing_count,
            silent_count,
            ..
        } = comparison;
        assert_eq!((same_count, differing_count, silent_count), (1, 2, 1));
        assert_eq!(
            comparison.to_string(),
            "namespaces.chat.history_age_s: 0 at n02, n04, 60 here; \
             namespaces.chat.history_entries_max: 0 at n02, n04, 7 here; \
             not said by 1 of an earlier release"
        );
        let same = compare(&view(&[mine.clone(), mine]));
        assert_eq!(same.to_string(), "the same at 1 of 1 other nodes");
    }

    #[test]
    fn what_is_told_of_many_nodes_and_settings_is_bounded() {
        let mine = saying(&[]);
        let theirs = saying_of(&many(TOLD_MAX + 2));
        let mut all = vec![theirs; TOLD_MAX + 4];
        all[0] = mine;
        let told = compare(&view(&all)).differences;
        assert_eq!(told.matches(" here").count(), TOLD_MAX);
        assert!(told.contains("n08 and 3 more nodes, 10 here"), "{told}");
        assert!(told.ends_with(" and 2 more settings"), "{told}");
    }
}
