//! The scripts `heartbeat.lua` and `leave.lua` in a few lines, over leases in memory.
//!
//! In: a heartbeat, and the time by Redis' clock. Out: what the script answers. Bound: one lease a
//! name; none is forgotten for its age, because no run lasts so long. One of its rules may be missing.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Without;
use crate::cluster::lease_store::Beat;
use crate::cluster::view::{NodeDetails, NodeInfo};
use crate::protocol::ids::{NodeId, Owner};

/// Who holds a name.
#[derive(Debug, Clone)]
struct Lease {
    end_ms: u64,
    /// Somebody was told that it has ended.
    is_over: bool,
    incarnation: u64,
    holder: u64,
}

impl Lease {
    fn lasts(&self, now_ms: u64) -> bool {
        !self.is_over && self.end_ms > now_ms
    }
}

/// A heartbeat on its way.
#[derive(Debug, Clone)]
pub(super) struct Heartbeat {
    pub(super) node: NodeId,
    pub(super) holder: u64,
    /// The incarnation that this process has.
    pub(super) mine: Option<u64>,
}

/// See the module.
#[derive(Debug, Clone)]
pub(super) struct Leases {
    by_name: BTreeMap<NodeId, Lease>,
    without: Option<Without>,
}

impl Leases {
    pub(super) fn new(without: Option<Without>) -> Self {
        Self {
            by_name: BTreeMap::new(),
            without,
        }
    }

    fn lacks(&self, rule: Without) -> bool {
        self.without == Some(rule)
    }

    pub(super) fn heartbeat(&mut self, beat: &Heartbeat, now_us: u64, lease: Duration) -> Beat {
        let now_ms = now_us / 1_000;
        let known = self.by_name.get(&beat.node);
        let is_mine =
            known.is_some_and(|k| k.holder == beat.holder) || self.lacks(Without::Holders);
        let mine = beat.mine.filter(|_| !self.lacks(Without::Membership));
        let before = mine.unwrap_or_default();
        let incarnation = match known {
            Some(known)
                if !is_mine
                    && mine.is_some()
                    && (known.incarnation > before || self.lacks(Without::Comparison)) =>
            {
                return Beat::Superseded {
                    newest: known.incarnation,
                };
            }
            Some(known) if is_mine && known.lasts(now_ms) && known.incarnation >= before => {
                known.incarnation
            }
            Some(known) if is_mine && self.lacks(Without::NewIncarnations) => known.incarnation,
            _ if self.lacks(Without::Rising) => now_us,
            known => {
                let newest = known.map_or(0, |known| known.incarnation);
                now_us.max(newest + 1).max(before + 1)
            }
        };
        let held = Lease {
            end_ms: now_ms + ms(lease),
            is_over: false,
            incarnation,
            holder: beat.holder,
        };
        self.by_name.insert(beat.node.clone(), held);
        if !self.lacks(Without::Over) {
            for lease in self.by_name.values_mut() {
                lease.is_over |= lease.end_ms <= now_ms;
            }
        }
        let shows_all = self.lacks(Without::Ends);
        let live = self.by_name.iter();
        let live = live.filter(|(_, lease)| shows_all || lease.lasts(now_ms));
        Beat::Held {
            incarnation,
            time_us: now_us,
            nodes: live
                .map(|(node, lease)| info(node, lease, now_ms))
                .collect(),
        }
    }

    /// Whether this process held the name and has given it back.
    pub(super) fn leave(&mut self, node: &NodeId, holder: u64, now_us: u64) -> bool {
        let mut held = self.by_name.get_mut(node).filter(|k| k.holder == holder);
        if let Some(lease) = &mut held {
            lease.end_ms = now_us / 1_000;
            lease.is_over = true;
        }
        held.is_some()
    }

    pub(super) fn forget_everything(&mut self) {
        self.by_name.clear();
    }

    /// All lives whose lease nobody has seen to end.
    pub(super) fn living(&self) -> impl Iterator<Item = Owner> {
        let living = self.by_name.iter().filter(|(_, lease)| !lease.is_over);
        living.map(|(node, lease)| Owner {
            node: node.clone(),
            incarnation: lease.incarnation,
        })
    }

    /// Whether this process has a lease of the name that lasts.
    pub(super) fn is_held(&self, node: &NodeId, holder: u64, now_ms: u64) -> bool {
        let lease = self.by_name.get(node);
        lease.is_some_and(|lease| lease.holder == holder && lease.lasts(now_ms))
    }

    /// The newest life of a name, and the process that has it.
    pub(super) fn newest(&self, node: &NodeId) -> Option<(u64, u64)> {
        let lease = self.by_name.get(node)?;
        Some((lease.incarnation, lease.holder))
    }
}

fn info(node: &NodeId, lease: &Lease, now_ms: u64) -> NodeInfo {
    NodeInfo {
        owner: Owner {
            node: node.clone(),
            incarnation: lease.incarnation,
        },
        lease_left: Duration::from_millis(lease.end_ms.saturating_sub(now_ms)),
        details: NodeDetails::default(),
    }
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).expect("short")
}
