//! How many sessions this node sends away because it has more than its share: pure, with time as a
//! value.
//!
//! In: the cluster's view, and how many sessions are here. Out: how many of them to tell to go now.
//! Sockets do not move by themselves, so a node that was added stays empty until others send
//! sessions away. Bounds: `rebalance.sessions_per_s`, and a quarter of what is too much at once, so
//! that the end is approached ever more slowly, while the others tell of theirs once a second.
//!
//! Shares are equal, but no larger than a node has room for: what a small node cannot take is shared
//! by the others. Else these would send sessions away for ever to one that refuses them.
//!
//! It never swings: a node begins above the tolerance and ends half of it above its share, and
//! never below; nodes that send away at the same time all come down to that, whoever gets their
//! sessions. Nothing is sent away while nodes come, go or leave, or the view is old. Those who are sent
//! away go in batches ([`trial`]): where they come back, it pauses. Nodes for the API only have no part in it.

use std::time::{Duration, Instant};

use self::trial::{Allowed, Around, Trial};
use super::view::{NodeDetails, View};
use crate::config::Rebalance;
use fanfare_protocol::ids::Owner;

mod trial;

/// Less than this above the share is no reason to send anybody away.
const EXCESS_MIN: u64 = 10;
/// What is told at once is at most this part of what is too much.
const PART: u64 = 4;
/// What a node says of itself when it takes sessions.
const READY: &str = "ready";

/// The sessions of this node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Here {
    /// All of them.
    pub sessions: u64,
    /// Those that were told to go and have not gone yet.
    pub told: u64,
    /// What became of the batch at hand.
    pub batch: Batch,
}

/// Sessions that were told to go one after the other, and what became of them. Those are known whose
/// user has few other sessions here; of the others nobody can say whether they came back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Batch {
    /// All of them.
    pub told: u64,
    /// Those who are known.
    pub known: u64,
    /// Those of the known who opened a session here again.
    pub returned: u64,
}

/// That it did not help, as it was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Futile {
    /// What became of the last batch.
    pub batch: Batch,
    /// By how many this node's sessions fell, measured by what all nodes have, where those who were told
    /// are not known. Below zero: they rose.
    pub fell: Option<i64>,
}

/// What to do now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Plan {
    /// How many sessions are too much.
    pub excess: u64,
    /// How many of them to tell now.
    pub tell: u64,
    /// Those whom to tell now are the first of a batch.
    pub begins: bool,
    /// Said once: those who were sent away came back, and nobody is for [`Plan::pause`].
    pub futile: Option<Futile>,
}

impl Plan {
    /// How long nobody is sent away where it did not help.
    #[must_use]
    pub fn pause() -> Duration {
        trial::PAUSE
    }
}

/// See the module. One a node, asked once a second.
#[derive(Debug)]
pub struct Rebalancer {
    config: Rebalance,
    /// The nodes that took sessions when it was last asked, sorted.
    ready: Vec<Owner>,
    settled_at: Option<Instant>,
    is_shedding: bool,
    trial: Trial,
}

impl Rebalancer {
    /// Sends nobody away yet.
    #[must_use]
    pub fn new(config: Rebalance) -> Self {
        Self {
            trial: Trial::new(u64::from(config.sessions_per_s)),
            config,
            ready: Vec::new(),
            settled_at: None,
            is_shedding: false,
        }
    }

    /// What to do in this second.
    pub fn plan(&mut self, view: &View, here: Here, now: Instant) -> Plan {
        let others = view.nodes.iter().filter(|node| node.owner != view.me);
        let others: Vec<_> = others
            .map(|node| &node.details)
            .filter(|details| takes_sessions(details))
            .collect();
        if !self.is_settled(view, now) || others.is_empty() {
            self.is_shedding = false;
            self.trial.nodes_changed();
            return Plan::default();
        }
        let room_here = view
            .node(&view.me.node)
            .map_or(u64::MAX, |n| room(&n.details));
        let excess = self.excess(here, room_here, &others);
        let most = u64::from(self.config.sessions_per_s);
        let wanted = excess.div_ceil(PART).min(most);
        let around = Around {
            here,
            all: here.sessions + others.iter().map(|o| o.sessions).sum::<u64>(),
            nodes_count: others.len() as u64 + 1,
        };
        let Allowed {
            tell,
            begins,
            futile,
        } = self.trial.allow(wanted, &around, now);
        Plan {
            excess,
            tell,
            begins,
            futile,
        }
    }

    /// Whether the nodes have been the same for long enough, this one among them.
    fn is_settled(&mut self, view: &View, now: Instant) -> bool {
        let is_ready = |node: &&super::view::NodeInfo| takes_sessions(&node.details);
        let ready = view.nodes.iter().filter(is_ready);
        let ready: Vec<_> = ready.map(|node| node.owner.clone()).collect();
        if !view.fresh || ready != self.ready {
            self.ready = ready;
            self.settled_at = view.fresh.then_some(now);
            return false;
        }
        let since = *self.settled_at.get_or_insert(now);
        now.duration_since(since) >= self.config.settle && self.ready.contains(&view.me)
    }

    /// How many of those who stay are above what this node should have.
    fn excess(&mut self, here: Here, room_here: u64, others: &[&NodeDetails]) -> u64 {
        let all = here.sessions + others.iter().map(|o| o.sessions).sum::<u64>();
        let rooms = others.iter().map(|o| room(o)).chain([room_here]);
        let Some(share) = share(all, rooms.collect()) else {
            self.is_shedding = false;
            return 0;
        };
        let tolerated = share * u64::from(self.config.tolerance_percent) / 100;
        let stay = here.sessions.saturating_sub(here.told);
        if !self.is_shedding {
            self.is_shedding = stay > share + tolerated.max(EXCESS_MIN);
        }
        let excess = stay.saturating_sub(share + tolerated / 2);
        self.is_shedding &= excess > 0;
        if self.is_shedding { excess } else { 0 }
    }
}

fn takes_sessions(details: &NodeDetails) -> bool {
    details.state == READY && !details.api_only
}

fn room(details: &NodeDetails) -> u64 {
    match details.sessions_max {
        0 => u64::MAX,
        sessions_max => sessions_max,
    }
}

/// How many sessions a node has that is not full, when `all` are shared equally by nodes with so
/// much room; `None`: all are full, and nobody could take any.
fn share(all: u64, mut rooms: Vec<u64>) -> Option<u64> {
    rooms.sort_unstable();
    let (mut left, mut nodes_count) = (all, rooms.len() as u64);
    for room in rooms {
        let share = left.div_ceil(nodes_count);
        if share <= room {
            return Some(share);
        }
        left -= room;
        nodes_count -= 1;
    }
    None
}

/// How often a node asks its [`Rebalancer`].
pub const ASK_EVERY: Duration = Duration::from_secs(1);

#[cfg(test)]
mod churn;
#[cfg(test)]
mod tests;
