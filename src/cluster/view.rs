//! The cluster as this node sees it: one immutable value that anybody may hold.
//!
//! In: the answers to heartbeats (`membership`). Out: homes for `welcome` and the API, and the
//! question whether an owner still lives, for members and occupancy. Bound: one entry per node
//! with a lease. A view may be old, when Redis is away it stays what it was and is no longer
//! `fresh`: that may send a client to a node that is gone, but it loses no message, because no
//! delivery asks the view.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::load_told::LoadTold;
use super::queue_told::QueueTold;
use super::ring::Ring;
use fanfare_protocol::event::Home;
use fanfare_protocol::ids::{NodeId, Owner, Topic};

/// What a node says of itself with each heartbeat. Nodes of another release may leave fields
/// out or add some.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NodeDetails {
    /// Its public address, where it advertises one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// The state of its life, for example `ready` or `draining`.
    pub state: String,
    /// Open sessions.
    pub sessions: u64,
    /// How many it has room for; 0: its release does not say. A node for the API only says 1, so that
    /// nodes of the release before, which do not know `api_only`, count on it for no more.
    pub sessions_max: u64,
    /// Sessions that were open when it began to leave.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drain_sessions: Option<u64>,
    /// Its release.
    pub version: String,
    /// When the process started, unix milliseconds.
    pub started_ms: u64,
    /// The incarnation under which all its members stand; 0: none yet, or its release does not say.
    pub settled: u64,
    /// For how many partitions it may act.
    pub partitions: u32,
    /// Which these are, as ranges: `0-3,7`.
    pub partition_ranges: String,
    /// What it keeps and promises by its configuration, as `keeping` reads it: said by the release
    /// that knows no `keeps_digest`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub keeps: String,
    /// The digest of that, whose text lies apart (`texts`). Empty like the other: its release does
    /// not say.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub keeps_digest: String,
    /// What waits in the queues of the partitions whose home it is.
    pub queue: QueueTold,
    /// What it does and takes up; `None`: nothing yet, or its release does not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub load: Option<LoadTold>,
    /// Up to which change it has read what was revoked; 0: nothing, or its release does not say.
    #[serde(skip_serializing_if = "is_zero")]
    pub revoked: u64,
    /// Whether it looks beside heartbeats for what others have read of that (`ff:{rv}:r:NODE`); false:
    /// its release does not, and waits for a heartbeat that says it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub looks_beside: bool,
    /// Whether it reads the context of a trace in front of a body on a channel; false: its release
    /// does not, and tells its sessions of a gap.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub reads_context: bool,
    /// Whether it has no public listener and takes no sessions; false: it does, or its release does
    /// not say.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub api_only: bool,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// One node with a lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeInfo {
    /// Its name and present incarnation.
    pub owner: Owner,
    /// What it said of itself last.
    pub details: NodeDetails,
}

/// The live nodes and the ring over them.
#[derive(Debug, Clone)]
pub struct View {
    /// This node. Its incarnation is 0 until Redis gave it one; nothing may be written under 0.
    pub me: Owner,
    /// All nodes with a lease, sorted by name, this one included.
    pub nodes: Vec<NodeInfo>,
    /// The homes that follow from `nodes`.
    pub ring: Arc<Ring>,
    /// Whether Redis confirmed this within the last lease. Nothing of others is removed by a
    /// view that is not fresh.
    pub fresh: bool,
    /// Redis time when the view was made, in microseconds.
    pub time_us: u64,
    /// Until when this node's own lease surely lasts, by its own clock; `None`: for ever.
    pub until: Option<Instant>,
    /// When the heartbeat was sent whose answer told last who lives; before the first one, when
    /// the node began.
    pub told_at: Instant,
    /// Lives that were in the view before and are over, and left nothing behind. Of others that are
    /// not in this view it is not known.
    pub bare: Vec<Owner>,
    /// From when on publications may bring contexts of traces, because every node that may hear them
    /// reads them; `None`: not as far as is known (`context_readers`).
    pub contexts_from: Option<Instant>,
}

impl View {
    /// What all nodes say of the queue together.
    #[must_use]
    pub fn queue(&self) -> QueueTold {
        let told = self.nodes.iter().map(|node| node.details.queue);
        told.fold(QueueTold::default(), |all, one| all.and(&one))
    }

    /// Whether every node looks beside heartbeats for what others have read of revocations.
    #[must_use]
    pub fn all_look_beside(&self) -> bool {
        self.nodes.iter().all(|node| node.details.looks_beside)
    }

    /// The view of a node that has no cluster: it is the home of everything.
    #[must_use]
    pub fn alone(me: Owner, details: NodeDetails, partitions_count: u32) -> Self {
        let ring = Arc::new(Ring::new(std::slice::from_ref(&me.node), partitions_count));
        Self {
            nodes: vec![NodeInfo {
                owner: me.clone(),
                details,
            }],
            ring,
            fresh: true,
            time_us: me.incarnation,
            until: None,
            told_at: Instant::now(),
            bare: Vec::new(),
            contexts_from: None,
            me,
        }
    }

    /// How old at this instant is what is known of all nodes: every answer confirms them all, also
    /// one that tells only of those that changed.
    #[must_use]
    pub fn age_at(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.told_at)
    }

    /// Whether that is younger than a lease. While Redis takes no writes a view may be `fresh` and
    /// not recent: nobody's lease ends then, and nobody is told who died.
    #[must_use]
    pub fn is_recent_at(&self, now: Instant, lease: Duration) -> bool {
        self.fresh && (self.until.is_none() || self.age_at(now) < lease)
    }

    /// The home of a topic (of a user: of the inbox).
    #[must_use]
    pub fn home(&self, topic: &Topic) -> Home {
        // The ring is never empty, because it contains this node.
        self.address(self.ring.home(topic).unwrap_or(&self.me.node))
    }

    fn address(&self, id: &NodeId) -> Home {
        Home {
            node: id.to_string(),
            url: self.node(id).and_then(|node| node.details.url.clone()),
        }
    }

    /// The node of this name, if it has a lease.
    #[must_use]
    pub fn node(&self, id: &NodeId) -> Option<&NodeInfo> {
        let found = self.nodes.binary_search_by(|node| node.owner.node.cmp(id));
        found.ok().map(|at| &self.nodes[at])
    }

    /// This node, as an address: the home of those who have none of their own.
    #[must_use]
    pub fn here(&self) -> Home {
        self.address(&self.me.node)
    }

    /// Whether this node may write under its present incarnation: it has one, and its lease lasts.
    /// A process that was paused finds by this that its life may be over, before Redis says so.
    #[must_use]
    pub fn has_lease(&self) -> bool {
        self.has_lease_at(Instant::now())
    }

    /// The same at this instant.
    pub(super) fn has_lease_at(&self, now: Instant) -> bool {
        let lasts = self.until.is_none_or(|until| now < until);
        self.fresh && lasts && self.me.incarnation > 0
    }

    /// Whether this life of that node has a lease.
    #[must_use]
    pub fn is_live(&self, owner: &Owner) -> bool {
        self.node(&owner.node)
            .is_some_and(|node| node.owner.incarnation == owner.incarnation)
    }

    /// Whether this life of that node may have a lease: it has one in this view, or it began after
    /// the view was made. An incarnation is the time at which its first lease was taken, and one
    /// whose lease ended never comes back; so what it wrote is shown as long as this holds.
    #[must_use]
    pub fn may_live(&self, owner: &Owner) -> bool {
        self.is_live(owner) || owner.incarnation >= self.time_us
    }

    /// Whether this life of that node is surely over, so that what it left may be removed.
    #[must_use]
    pub fn is_dead(&self, owner: &Owner) -> bool {
        self.fresh && !self.may_live(owner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fanfare_protocol::ids::App;

    fn owner(text: &str) -> Owner {
        text.parse().unwrap()
    }

    fn view(time_us: u64) -> View {
        let details = NodeDetails {
            url: Some("wss://a.example".into()),
            ..NodeDetails::default()
        };
        View {
            time_us,
            ..View::alone(owner("a~5"), details, 256)
        }
    }

    #[test]
    fn a_node_alone_is_the_home_of_everything() {
        let topic = Topic::new(&App::default_app(), "orders:7").unwrap();
        let home = view(5).home(&topic);
        assert_eq!(home.node, "a");
        assert_eq!(home.url.as_deref(), Some("wss://a.example"));
    }

    #[test]
    fn only_the_present_incarnation_of_a_node_is_live() {
        let view = view(5);
        assert!(view.is_live(&owner("a~5")));
        assert!(!view.is_live(&owner("a~4")));
        assert!(!view.is_live(&owner("b~5")));
    }

    #[test]
    fn who_began_before_the_view_and_has_no_lease_in_it_is_dead() {
        assert!(view(8).is_dead(&owner("b~7")));
        assert!(view(8).may_live(&owner("b~8")), "it may have joined since");
        assert!(!view(8).is_dead(&owner("b~8")));
        assert!(!view(8).is_dead(&owner("a~5")), "it lives");
        assert!(view(8).is_dead(&owner("a~4")), "an old life");
        let stale = View {
            fresh: false,
            ..view(8)
        };
        assert!(!stale.is_dead(&owner("b~7")));
    }

    #[test]
    fn a_lease_is_over_by_the_nodes_own_clock_before_anybody_says_so() {
        let now = Instant::now();
        let until = |until| View {
            until: Some(until),
            ..view(8)
        };
        assert!(until(now + Duration::from_secs(3_600)).has_lease());
        assert!(!until(now).has_lease());
        assert!(view(8).has_lease(), "without a cluster it has no end");
        let joining = View::alone(owner("a~0"), NodeDetails::default(), 256);
        assert!(!joining.has_lease());
    }

    #[test]
    fn what_is_known_of_nodes_is_recent_for_a_lease_also_where_their_leases_last_longer() {
        let (now, lease) = (Instant::now(), Duration::from_secs(5));
        let told = |seconds| View {
            told_at: now.checked_sub(Duration::from_secs(seconds)).unwrap(),
            until: Some(now + lease),
            ..view(8)
        };
        assert_eq!(told(4).age_at(now), Duration::from_secs(4));
        assert!(told(4).is_recent_at(now, lease));
        assert!(!told(5).is_recent_at(now, lease));
        assert!(told(5).has_lease_at(now), "Redis takes no writes");
        let alone = View {
            until: None,
            ..told(5)
        };
        assert!(alone.is_recent_at(now, lease), "a node alone knows itself");
    }

    #[test]
    fn details_of_another_release_can_be_read() {
        let details: NodeDetails =
            serde_json::from_str(r#"{"sessions":3,"altitude":"high"}"#).unwrap();
        assert_eq!(details.sessions, 3);
        let empty = [&details.state, &details.keeps, &details.keeps_digest];
        assert_eq!(empty, [""; 3]);
    }
}
