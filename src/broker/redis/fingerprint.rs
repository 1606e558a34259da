//! What the nodes of a cluster must have in common: where topics are, and how nodes speak.
//!
//! In: the configuration, and what lies in Redis. Out: a [`Fingerprint`], and where two of them
//! differ, in words. Pure; owns nothing. One lies in each deployment, as JSON, so that two clusters
//! which share any of them notice. Readers skip fields that they do not know.
//!
//! A deployment that has a fingerprint is known by it and not by its hosts: these may be spelt in
//! many ways, sentinels come and go, and data moves to other machines. Only where a deployment has
//! none although the cluster exists, its hosts decide: those of one that lost its data are the ones
//! that the cluster knows, any others are a second deployment under the first one's name.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::control;
use crate::config::redis_url::{RedisForm, RedisUrl};

/// The form of all keys and channels in Redis. Raised by a release that keeps something otherwise:
/// its nodes cannot run beside older ones.
const LAYOUT: u32 = 3;

/// What it is called where it differs.
const KEY_LAYOUT: &str = "key layout";

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fingerprint {
    layout: u32,
    control: u32,
    prefix: String,
    partitions: u32,
    /// The name of the deployment that has the cluster's own keys.
    first: String,
    /// All of them, by name.
    deployments: Vec<Mark>,
    /// The name of the deployment in which this one lies.
    here: String,
}

/// One deployment as all nodes must see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Mark {
    name: String,
    /// A Redis Cluster, whose channels are sharded, or anything else.
    is_cluster: bool,
    database: u16,
    /// As `host:port` in lower case, sorted.
    hosts: Vec<String>,
}

/// Something that the cluster and this node see differently.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// What: a key of the configuration, or a property of the release.
    pub what: &'static str,
    /// As the cluster has it.
    pub theirs: String,
    /// As this node has it.
    pub mine: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, theirs, mine } = self;
        write!(f, "{what}: the cluster has {theirs}, this node has {mine}")
    }
}

impl Fingerprint {
    /// This node's, as it lies in the deployment at `here` of the list.
    #[must_use]
    pub fn new(prefix: &str, partitions: u32, urls: &[&RedisUrl], here: usize) -> Self {
        let mut deployments: Vec<_> = urls.iter().map(|url| Mark::of(url)).collect();
        deployments.sort_by(|a, b| a.name.cmp(&b.name));
        Self {
            layout: LAYOUT,
            control: control::PROTOCOL,
            prefix: prefix.to_owned(),
            partitions,
            first: urls
                .first()
                .map_or_else(String::new, |url| url.name.clone()),
            deployments,
            here: urls
                .get(here)
                .map_or_else(String::new, |url| url.name.clone()),
        }
    }

    /// As it lies in Redis.
    #[must_use]
    pub fn text(&self) -> String {
        serde_json::to_string(self).expect("text and numbers always serialize")
    }

    /// Where `stored`, which lies in the same deployment, differs from this one.
    #[must_use]
    pub fn differences(&self, stored: &str) -> Vec<Difference> {
        let Ok(theirs) = serde_json::from_str::<Self>(stored) else {
            return vec![Difference {
                what: KEY_LAYOUT,
                theirs: format!("one that this release cannot read: {stored:?}"),
                mine: LAYOUT.to_string(),
            }];
        };
        let mut found = Differences(Vec::new());
        found.compare(KEY_LAYOUT, &theirs.layout, &self.layout);
        found.compare("control protocol", &theirs.control, &self.control);
        found.compare("redis.prefix", &theirs.prefix, &self.prefix);
        found.compare("redis.partitions", &theirs.partitions, &self.partitions);
        // What a single deployment is called places nothing.
        let are_single = theirs.deployments.len() == 1 && self.deployments.len() == 1;
        if !are_single {
            found.compare("redis.shards", &theirs.names(), &self.names());
            found.compare(
                "redis.url, the first deployment",
                &theirs.first,
                &self.first,
            );
            found.compare("the name of this deployment", &theirs.here, &self.here);
        }
        for mine in &self.deployments {
            let is_it = |mark: &&Mark| are_single || mark.name == mine.name;
            if let Some(theirs) = theirs.deployments.iter().find(is_it) {
                // The names in what is reported may differ, where there is one only.
                if theirs.is_cluster != mine.is_cluster {
                    found.compare("the form of a deployment", &theirs.form(), &mine.form());
                }
                if theirs.database != mine.database {
                    found.compare(
                        "the database of a deployment",
                        &theirs.place(),
                        &mine.place(),
                    );
                }
            }
        }
        found.0
    }

    /// That `stored` is of a release with another layout of keys, which has its own keys under the
    /// prefix.
    #[must_use]
    pub fn other_layout(&self, stored: &str) -> Option<Difference> {
        let theirs: Self = serde_json::from_str(stored).ok()?;
        let mut found = Differences(Vec::new());
        found.compare(KEY_LAYOUT, &theirs.layout, &self.layout);
        found.0.pop()
    }

    /// Where `other`, which lies in another deployment and does not differ, knows other hosts for
    /// the deployment of this one.
    #[must_use]
    pub fn moved_from(&self, other: &str) -> Option<Difference> {
        let theirs: Self = serde_json::from_str(other).ok()?;
        let of = |print: &Self| {
            let mut marks = print.deployments.iter();
            marks.find(|mark| mark.name == self.here).cloned()
        };
        let (theirs, mine) = (of(&theirs)?, of(self)?);
        if theirs.hosts.iter().any(|host| mine.hosts.contains(host)) {
            return None;
        }
        Some(Difference {
            what: "the hosts of a deployment, of which nothing is found where this node looks",
            theirs: theirs.at(),
            mine: mine.at(),
        })
    }

    /// The name and the hosts of the deployment that has the cluster's own keys; `None` where that
    /// is the one in which `stored` lies.
    #[must_use]
    pub fn first_elsewhere(stored: &str) -> Option<(String, Vec<String>)> {
        let print: Self = serde_json::from_str(stored).ok()?;
        let mut marks = print.deployments.into_iter();
        let first = marks.find(|mark| mark.name == print.first)?;
        (print.here != print.first).then_some((first.name, first.hosts))
    }

    fn names(&self) -> String {
        let names: Vec<_> = self.deployments.iter().map(|mark| &*mark.name).collect();
        names.join(", ")
    }
}

impl Mark {
    fn of(url: &RedisUrl) -> Self {
        let hosts: BTreeSet<_> = url.hosts.iter().map(|h| h.to_ascii_lowercase()).collect();
        Self {
            name: url.name.clone(),
            is_cluster: url.form == RedisForm::Cluster,
            database: url.database,
            hosts: hosts.into_iter().collect(),
        }
    }

    fn form(&self) -> String {
        let form = if self.is_cluster {
            "a Redis Cluster (redis-cluster://)"
        } else {
            "no Redis Cluster"
        };
        format!("{}: {form}", self.name)
    }

    fn place(&self) -> String {
        format!("{}: {}", self.name, self.database)
    }

    fn at(&self) -> String {
        format!("{}: {}", self.name, self.hosts.join(", "))
    }
}

struct Differences(Vec<Difference>);

impl Differences {
    fn compare<T: PartialEq + fmt::Display>(&mut self, what: &'static str, theirs: &T, mine: &T) {
        if theirs != mine {
            self.0.push(Difference {
                what,
                theirs: theirs.to_string(),
                mine: mine.to_string(),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn print(partitions: u32, urls: &[&str], here: usize) -> Fingerprint {
        let urls: Vec<_> = urls
            .iter()
            .map(|url| RedisUrl::parse(url).unwrap())
            .collect();
        let urls: Vec<_> = urls.iter().collect();
        Fingerprint::new("ff", partitions, &urls, here)
    }

    fn told(mine: &Fingerprint, stored: &Fingerprint) -> Vec<String> {
        let differences = mine.differences(&stored.text());
        differences.iter().map(ToString::to_string).collect()
    }

    const EAST: &str = "redis://h1?name=east";
    const WEST: &str = "redis://h2:7000/1?name=west";

    #[test]
    fn spelling_does_not_divide_one_deployment() {
        for (a, b) in [
            ("redis://localhost", "valkey://u:p@127.0.0.1:6379/0?name=x"),
            (
                "redis-sentinel://s1,s2?master=m",
                "redis-sentinel://S2:26379,s3?master=m",
            ),
            ("redis://h", "redis-sentinel://s?master=m"),
            ("redis-cluster://a,b", "rediss-cluster://c"),
        ] {
            assert_eq!(told(&print(256, &[a], 0), &print(256, &[b], 0)), [""; 0]);
        }
    }

    #[test]
    fn each_difference_is_named_with_both_sides() {
        let mine = print(256, &[EAST, WEST], 0);
        for (stored, what) in [
            (
                print(64, &[EAST, WEST], 0),
                "redis.partitions: the cluster has 64, this node has 256",
            ),
            (
                print(256, &[EAST], 0),
                "redis.shards: the cluster has east, this node has east, west",
            ),
            (
                print(256, &[WEST, EAST], 1),
                "redis.url, the first deployment: the cluster has west, this node has east",
            ),
            (
                print(256, &[EAST, WEST], 1),
                "the name of this deployment: the cluster has west, this node has east",
            ),
            (
                print(256, &[EAST, "redis-cluster://h2?name=west"], 0),
                "the form of a deployment: the cluster has west: a Redis Cluster (redis-cluster://), \
                 this node has west: no Redis Cluster",
            ),
            (
                print(256, &[EAST, "redis://h2:7000/2?name=west"], 0),
                "the database of a deployment: the cluster has west: 2, this node has west: 1",
            ),
        ] {
            assert_eq!(told(&mine, &stored)[0], what);
        }
        assert_eq!(mine.differences("256")[0].what, "key layout");
        assert_eq!(mine.other_layout("256"), None);
    }

    /// As the release before wrote it, whose nodes read it with these fields.
    const LAYOUT_2: &str = r#"{"layout":2,"control":1,"prefix":"ff","partitions":256,"first":"east","deployments":[{"name":"east","is_cluster":false,"database":0,"hosts":["h1:6379"]}],"here":"east"}"#;

    #[test]
    fn releases_of_two_layouts_tell_each_other_so() {
        let mine = print(256, &[EAST], 0);
        let expected = "key layout: the cluster has 2, this node has 3";
        let told: Vec<_> = mine.differences(LAYOUT_2);
        assert_eq!(told[0].to_string(), expected);
        let other = mine.other_layout(LAYOUT_2).expect("it has another one");
        assert_eq!(other.to_string(), expected);
        assert_eq!(mine.other_layout(&mine.text()), None);
        // The release before reads this one's, and finds no field missing or of another kind.
        let fields = |text: &str| {
            let read: serde_json::Value = serde_json::from_str(text).expect("JSON");
            let kind = |value: &serde_json::Value| std::mem::discriminant(value);
            let fields = read.as_object().expect("an object").clone();
            let first = fields["deployments"][0].as_object().expect("one").clone();
            let both = fields.into_iter().chain(first);
            both.map(|(name, value)| (name, kind(&value)))
                .collect::<Vec<_>>()
        };
        assert_eq!(fields(&mine.text()), fields(LAYOUT_2));
    }

    #[test]
    fn fields_of_a_newer_release_are_skipped() {
        let mine = print(256, &[EAST, WEST], 1);
        let text = mine.text();
        assert_eq!(mine.differences(&text), []);
        let grown = text.replace("{\"", "{\"added\":[1],\"");
        assert_ne!(grown, text);
        assert_eq!(mine.differences(&grown), []);
    }

    #[test]
    fn an_empty_deployment_is_known_by_its_hosts() {
        let stored = print(256, &[EAST, WEST], 0).text();
        assert_eq!(print(256, &[EAST, WEST], 1).moved_from(&stored), None);
        let elsewhere = print(256, &[EAST, "redis://h3/1?name=west"], 1);
        let moved = elsewhere.moved_from(&stored).expect("other hosts");
        assert_eq!(
            (&*moved.theirs, &*moved.mine),
            ("west: h2:7000", "west: h3:6379")
        );
        assert_eq!(Fingerprint::first_elsewhere(&stored), None);
        let first = Fingerprint::first_elsewhere(&print(256, &[EAST, WEST], 1).text());
        assert_eq!(first, Some(("east".to_owned(), vec!["h1:6379".to_owned()])));
    }
}
