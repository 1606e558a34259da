//! Names of keys and channels in Redis.
//!
//! In: topics, partitions. Out: their names, and back from a name to its topic and its partition. Owns
//! a table: what the names of each partition begin with, so that none of them needs its number written
//! again. Bounds: as many entries as there are partitions.
//!
//! A partition is a slot of a Redis Cluster. Every key of a topic begins `PREFIX:{N}{app:topic}`, N the
//! topic's partition, and every other key of the partition has `{N}` for its first braces too. Only the
//! first braces are the tag by which a key finds its slot, so one script can have any keys of a
//! partition. Topics and users hold no brace, and the prefix none either.
//!
//! Channels know no databases: one that is published in a database is heard from all of them. So
//! the number of any but the first is in their names, between colons, which no prefix holds:
//! no prefix and database have the channel of others.

use std::sync::Arc;

use fanfare_protocol::ids::{NodeId, Priority, SessionId, Topic};

/// See the module.
#[derive(Debug, Clone)]
pub struct Keys {
    prefix: String,
    /// What every channel begins with: the prefix, and the database if it is not the first.
    channels: String,
    /// By partition, what the keys of its topics begin with: `PREFIX:{N}{`.
    topic_keys: Begins,
    /// The same for their channels.
    topic_channels: Begins,
}

/// One beginning for each partition.
type Begins = Arc<[Box<str>]>;

impl Keys {
    /// Keys that begin with this prefix, of so many partitions.
    #[must_use]
    pub fn new(prefix: &str, partitions_count: u32) -> Self {
        Self::of_database(prefix, partitions_count, 0)
    }

    /// The same with the channels of this database.
    #[must_use]
    pub fn of_database(prefix: &str, partitions_count: u32, database: u16) -> Self {
        let topic_keys = begins(prefix, partitions_count);
        let (channels, topic_channels) = match database {
            0 => (prefix.to_owned(), Arc::clone(&topic_keys)),
            number => {
                let channels = format!("{prefix}:{number}");
                let begins = begins(&channels, partitions_count);
                (channels, begins)
            }
        };
        Self {
            prefix: prefix.to_owned(),
            channels,
            topic_keys,
            topic_channels,
        }
    }

    /// How many partitions there are.
    #[must_use]
    pub fn partitions_count(&self) -> u32 {
        u32::try_from(self.topic_keys.len()).unwrap_or(u32::MAX)
    }

    /// The partition of a topic, by which its keys are named.
    #[must_use]
    pub fn partition_of(&self, topic: &Topic) -> u32 {
        topic.partition(self.partitions_count())
    }

    /// The partition to which a key or a channel of any database belongs; `None` for the cluster's
    /// own and for those of a master's probes.
    #[must_use]
    pub fn partition_of_key(&self, key: &str) -> Option<u32> {
        let rest = key.strip_prefix(self.prefix.as_str())?.strip_prefix(':')?;
        let (kind, tagged) = rest.split_once('{')?;
        let number = tagged.split_once('}')?.0;
        if kind.ends_with("probe:") || !number.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let partition = number.parse().ok()?;
        (partition < self.partitions_count()).then_some(partition)
    }

    /// The topic's channel. It has the slot of the topic's keys, and scripts declare it as one.
    #[must_use]
    pub fn channel(&self, topic: &Topic) -> String {
        if topic.bell_of().is_some() {
            return [&self.channels, ":", topic.qualified()].concat();
        }
        let begin = self.channel_begin(self.partition_of(topic));
        [begin, topic.qualified(), "}"].concat()
    }

    /// The `app:topic` that a channel carries, or the bell; `None` for other channels.
    #[must_use]
    pub fn qualified_of<'a>(&self, channel: &'a str) -> Option<&'a str> {
        let named = channel
            .strip_prefix(self.channels.as_str())?
            .strip_prefix(':')?;
        let (_, of) = named.strip_prefix('{')?.split_once('}')?;
        if of == ":bell" {
            return Some(named);
        }
        of.strip_prefix('{')?.strip_suffix('}')
    }

    /// The topic's stream.
    #[must_use]
    pub fn stream(&self, topic: &Topic) -> String {
        self.of(topic, "}:s")
    }

    /// The topic's last id.
    #[must_use]
    pub fn last(&self, topic: &Topic) -> String {
        self.of(topic, "}:l")
    }

    /// The position that an idempotency key was given.
    #[must_use]
    pub fn idempotency(&self, topic: &Topic, key: &str) -> String {
        self.of(topic, "}:k:") + key
    }

    /// The cursor (of an inbox).
    #[must_use]
    pub fn cursor(&self, topic: &Topic) -> String {
        self.of(topic, "}:c")
    }

    /// Occupancy: incarnation to local sessions.
    #[must_use]
    pub fn occupancy(&self, topic: &Topic) -> String {
        self.of(topic, "}:o")
    }

    /// The hash of members (of a `%T` topic).
    #[must_use]
    pub fn hash(&self, topic: &Topic) -> String {
        self.of(topic, "}:h")
    }

    /// The sessions of the members in their order (of a `%T` topic).
    #[must_use]
    pub fn member_names(&self, topic: &Topic) -> String {
        self.of(topic, "}:n")
    }

    /// How many members each owner has (of a `%T` topic).
    #[must_use]
    pub fn member_counts(&self, topic: &Topic) -> String {
        self.of(topic, "}:o")
    }

    /// The lease of a partition.
    #[must_use]
    pub fn partition(&self, partition: u32) -> String {
        format!("{}:part:{{{partition}}}", self.prefix)
    }

    /// The topics of a partition in which nodes have members or occupancy.
    #[must_use]
    pub fn topics_index(&self, partition: u32) -> String {
        format!("{}:ti:{{{partition}}}", self.prefix)
    }

    /// The queue of a partition: the stream of those of this priority.
    #[must_use]
    pub fn queue(&self, partition: u32, priority: Priority) -> String {
        let priority = match priority {
            Priority::Critical => "critical",
            Priority::High => "high",
            Priority::Normal => "normal",
            Priority::Low => "low",
        };
        self.of_queue(partition, priority)
    }

    /// Entries of a queue that are not due yet, a sorted set by that time.
    #[must_use]
    pub fn queue_later(&self, partition: u32) -> String {
        self.of_queue(partition, "later")
    }

    /// Dead letters of a queue, a stream.
    #[must_use]
    pub fn queue_dead(&self, partition: u32) -> String {
        self.of_queue(partition, "dead")
    }

    /// Which homes had which entry at the head of a stream without moving it, a hash by priority.
    #[must_use]
    pub fn queue_heads(&self, partition: u32) -> String {
        self.of_queue(partition, "heads")
    }

    /// The entry that an idempotency key was given, by the digest of that key.
    #[must_use]
    pub fn queue_once(&self, partition: u32, digest: &str) -> String {
        self.of_queue(partition, "k:") + digest
    }

    fn of_queue(&self, partition: u32, end: &str) -> String {
        format!("{}:q:{{{partition}}}:{end}", self.prefix)
    }

    /// Leases of nodes, a sorted set by their end. One script uses it with those that follow,
    /// so they share a tag.
    #[must_use]
    pub fn nodes(&self) -> String {
        format!("{{{}:nodes}}", self.prefix)
    }

    /// The newest incarnation by node name.
    #[must_use]
    pub fn node_incarnations(&self) -> String {
        format!("{{{}:nodes}}:i", self.prefix)
    }

    /// What nodes tell of themselves: JSON by node name.
    #[must_use]
    pub fn node_details(&self) -> String {
        format!("{{{}:nodes}}:d", self.prefix)
    }

    /// Names whose node was to be told that another process had them: names of nodes.
    #[must_use]
    pub fn node_contests(&self) -> String {
        format!("{{{}:nodes}}:k", self.prefix)
    }

    /// When the last heartbeat of all was answered.
    #[must_use]
    pub fn node_heartbeat(&self) -> String {
        format!("{{{}:nodes}}:t", self.prefix)
    }

    /// The names of nodes by the time at which they changed last, a sorted set.
    #[must_use]
    pub fn node_changes(&self) -> String {
        format!("{{{}:nodes}}:c", self.prefix)
    }

    /// Revocations: entries, names by change, names by end, and what is known of all. One tag, and of no
    /// partition.
    #[must_use]
    pub fn revocations(&self) -> [String; 4] {
        ["h", "at", "u", "m"].map(|part| format!("{}:{{rv}}:{part}", self.prefix))
    }

    /// How far a node has read revocations. In the same slot, so that one command reads those of all nodes.
    #[must_use]
    pub fn revocations_read(&self, node: &NodeId) -> String {
        format!("{}:{{rv}}:r:{node}", self.prefix)
    }

    /// The apps that the API was given: name to JSON, the number of the last change, the lives of apps,
    /// removals, and what is said of all. One tag, and of no partition.
    #[must_use]
    pub fn apps(&self) -> [String; 5] {
        ["", ":v", ":l", ":r", ":a"].map(|part| format!("{}:{{apps}}{part}", self.prefix))
    }

    /// The cluster's control channel.
    #[must_use]
    pub fn control(&self) -> String {
        format!("{}:ctl", self.channels)
    }

    /// The audit, a stream.
    #[must_use]
    pub fn audit(&self) -> String {
        format!("{}:audit", self.prefix)
    }

    /// The audit, its entries by client, and how many each client has; all in one slot.
    #[must_use]
    pub fn audits(&self) -> [String; 3] {
        let audit = self.audit();
        let [by_client, counts] = ["c", "n"].map(|part| format!("{{{audit}}}:{part}"));
        [audit, by_client, counts]
    }

    /// What all nodes must have in common. It has the tag of the nodes' keys, so that a node which
    /// starts needs no master but theirs.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        format!("{{{}:nodes}}:fp", self.prefix)
    }

    /// Where earlier releases have it alone.
    #[must_use]
    pub fn fingerprint_before(&self) -> String {
        format!("{}:fp", self.prefix)
    }

    /// The channel on which one process hears its probes; in a cluster one of this tag's slot.
    #[must_use]
    pub fn probe(&self, process: SessionId, tag: Option<u32>) -> String {
        let tag = tag.map_or_else(String::new, |tag| format!("{{{tag}}}:"));
        format!("{}:probe:{tag}{process}", self.channels)
    }

    /// What the keys of a partition's topics begin with, up to the name of the topic.
    pub(super) fn begin(&self, partition: u32) -> &str {
        &self.topic_keys[partition as usize]
    }

    /// The same for their channels.
    pub(super) fn channel_begin(&self, partition: u32) -> &str {
        &self.topic_channels[partition as usize]
    }

    /// The key of a topic that ends so.
    fn of(&self, topic: &Topic, end: &str) -> String {
        [self.begin(self.partition_of(topic)), topic.qualified(), end].concat()
    }
}

fn begins(prefix: &str, partitions_count: u32) -> Begins {
    let begin = |partition| format!("{prefix}:{{{partition}}}{{").into_boxed_str();
    (0..partitions_count.max(1)).map(begin).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use fanfare_protocol::ids::App;

    fn topic(name: &str) -> Topic {
        Topic::new(&App::default_app(), name).unwrap()
    }

    #[test]
    fn channels_of_other_databases_have_names_of_their_own() {
        let topic = topic("t");
        let [zero, one, eleven] = [0, 1, 11].map(|n| Keys::of_database("ff", 256, n));
        assert_eq!(zero.channel(&topic), "ff:{45}{default:t}");
        assert_eq!(zero.control(), "ff:ctl");
        assert_eq!(one.channel(&topic), "ff:1:{45}{default:t}");
        assert_eq!(eleven.control(), "ff:11:ctl");
        let process = SessionId(1);
        assert_eq!(one.probe(process, None), format!("ff:1:probe:{process}"));
        for (keys, channel) in [
            (&zero, "ff:{45}{default:t}"),
            (&one, "ff:1:{45}{default:t}"),
        ] {
            assert_eq!(keys.qualified_of(channel), Some("default:t"));
            assert_eq!(keys.partition_of_key(channel), Some(45));
        }
        assert_eq!(one.qualified_of("ff:{45}{default:t}"), None);
        assert_eq!(one.qualified_of("ff:11:{45}{default:t}"), None);
        assert_eq!(zero.qualified_of("ff:1:{45}{default:t}"), None);
        // As a release before this layout named them, and what no node says.
        for strange in ["ff:{default:t}", "ff:{45}", "ff:{45}:{default:t}", "ff:{"] {
            assert_eq!(zero.qualified_of(strange), None, "{strange}");
        }
        // Databases separate keys by themselves.
        assert_eq!(one.stream(&topic), zero.stream(&topic));
    }

    #[test]
    fn bells_have_channels_of_their_own_in_the_slot_of_their_partition() {
        for (database, channel) in [(0, "ff:{45}:bell"), (3, "ff:3:{45}:bell")] {
            let keys = Keys::of_database("ff", 256, database);
            let bell = Topic::bell(45);
            assert_eq!(keys.channel(&bell), channel);
            assert_eq!(keys.qualified_of(channel), Some(bell.qualified()));
            assert_eq!(keys.partition_of(&bell), 45);
            assert_eq!(keys.partition_of_key(channel), Some(45));
        }
        assert_eq!(topic("bell").bell_of(), None);
        assert!(Topic::from_qualified(Topic::bell(45).qualified()).is_none());
    }

    #[test]
    fn a_key_tells_its_partition_and_those_of_the_cluster_have_none() {
        let keys = Keys::of_database("ff", 256, 1);
        let topic = topic("t");
        for (key, partition) in [
            (keys.stream(&topic), 45),
            (keys.hash(&topic.presence()), 45),
            (keys.idempotency(&topic, "u3:ada:{7}"), 45),
            (keys.partition(7), 7),
            (keys.topics_index(255), 255),
            (keys.queue(9, Priority::Critical), 9),
            (keys.queue_later(9), 9),
            (keys.queue_once(9, "digest"), 9),
        ] {
            assert_eq!(keys.partition_of_key(&key), Some(partition), "{key}");
        }
        for own in [
            keys.nodes(),
            keys.node_details(),
            keys.fingerprint(),
            keys.fingerprint_before(),
            keys.apps()[0].clone(),
            keys.apps()[1].clone(),
            keys.apps()[4].clone(),
            keys.control(),
            keys.probe(SessionId(1), None),
            keys.probe(SessionId(1), Some(7)),
            keys.partition(256),
            "ff:{default:t}:s".to_owned(),
            "ff:{}{default:t}:s".to_owned(),
            "gg:{7}{default:t}:s".to_owned(),
        ] {
            assert_eq!(keys.partition_of_key(&own), None, "{own}");
        }
        // A prefix of digits is no partition.
        let digits = Keys::new("7", 256);
        assert_eq!(digits.partition_of_key(&digits.nodes()), None);
    }
}
