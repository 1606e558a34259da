//! The scripts `heartbeat.lua`, `leave.lua` and `own_lease.lua` in a few lines, over leases in memory.
//!
//! In: a heartbeat, and the time by Redis' clock. Out: what the script answers. That they do is a
//! test over a real Redis, `tests/cluster/lease_scripts.rs`, which includes this file. Bound: one lease a
//! name; none is forgotten for its age, because no run lasts so long. One of its rules may be missing.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::cluster::lease_store::Beat;
use crate::cluster::own_lease::OwnLease;
use crate::cluster::view::{NodeDetails, NodeInfo};
use crate::protocol::ids::{NodeId, Owner};

/// A rule of the scripts that can be taken out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rule {
    /// Two processes of one name are told apart.
    Holders,
    /// A process says whether it had the name before.
    Membership,
    /// Only a later life takes the name from one that has it.
    Comparison,
    /// Whose lease has ended takes a new incarnation.
    NewIncarnations,
    /// An incarnation is above all that was told before also when the clock stepped back.
    Rising,
    /// The time that is told rises also when the clock stepped back.
    ToldTime,
    /// Only nodes whose lease has not ended are shown.
    Ends,
    /// A lease that was seen to end is over, also when the clock steps back.
    Over,
    /// After an outage or a step forward leases move on by the time in which nobody was answered.
    MovingOn,
    /// They last at least one lease from then on.
    WholeLeases,
    /// They move back where the clock steps back.
    MovingBack,
}

impl Rule {
    /// All of them.
    pub(crate) const ALL: [Self; 11] = [
        Self::Holders,
        Self::Membership,
        Self::Comparison,
        Self::NewIncarnations,
        Self::Rising,
        Self::ToldTime,
        Self::Ends,
        Self::Over,
        Self::MovingOn,
        Self::WholeLeases,
        Self::MovingBack,
    ];
}

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
pub(crate) struct Heartbeat {
    pub(crate) node: NodeId,
    pub(crate) holder: u64,
    /// The incarnation that this process has.
    pub(crate) mine: Option<u64>,
    /// Below 2^20.
    pub(crate) random: u64,
}

/// See the module.
#[derive(Debug, Clone)]
pub(crate) struct Leases {
    by_name: BTreeMap<NodeId, Lease>,
    /// When the last heartbeat was answered, by the clock of then.
    last_ms: Option<u64>,
    /// The time that was told with it.
    told_us: u64,
    without: Option<Rule>,
}

impl Leases {
    pub(crate) fn new(without: Option<Rule>) -> Self {
        Self {
            by_name: BTreeMap::new(),
            last_ms: None,
            told_us: 0,
            without,
        }
    }

    fn lacks(&self, rule: Rule) -> bool {
        self.without == Some(rule)
    }

    pub(crate) fn heartbeat(&mut self, beat: &Heartbeat, now_us: u64, lease: Duration) -> Beat {
        let (now_ms, lease_ms) = (now_us / 1_000, ms(lease));
        let known = self.by_name.get(&beat.node).cloned();
        let known = known.as_ref();
        let is_mine = known.is_some_and(|k| k.holder == beat.holder) || self.lacks(Rule::Holders);
        let mine = beat.mine.filter(|_| !self.lacks(Rule::Membership));
        let before = mine.unwrap_or_default();
        let newest = known.map_or(0, |known| known.incarnation);
        if !is_mine && mine.is_some() && (newest > before || self.lacks(Rule::Comparison)) {
            return Beat::Superseded { newest };
        }
        self.move_on(now_ms, lease_ms);
        let known = self.by_name.get(&beat.node);
        let lasts = known.is_some_and(|known| known.lasts(now_ms));
        let keeps = lasts || self.lacks(Rule::NewIncarnations);
        let rises = !self.lacks(Rule::Rising);
        let mut time_us = now_us.max(self.told_us + 1);
        let incarnation = if is_mine && keeps && newest >= before && newest > 0 {
            newest
        } else {
            let highest = self.told_us.max(newest).max(before);
            let is_behind = now_us <= highest && rises;
            time_us = if is_behind {
                highest + 1 + beat.random
            } else {
                now_us
            };
            time_us
        };
        if self.lacks(Rule::ToldTime) {
            time_us = now_us;
        }
        (self.last_ms, self.told_us) = (Some(now_ms), time_us);
        let held = Lease {
            end_ms: now_ms + lease_ms,
            is_over: false,
            incarnation,
            holder: beat.holder,
        };
        self.by_name.insert(beat.node.clone(), held);
        if !self.lacks(Rule::Over) {
            for lease in self.by_name.values_mut() {
                lease.is_over |= lease.end_ms <= now_ms;
            }
        }
        let shows_all = self.lacks(Rule::Ends);
        let live = self.by_name.iter();
        let live = live.filter(|(_, lease)| shows_all || lease.lasts(now_ms));
        Beat::Held {
            incarnation,
            time_us,
            nodes: live
                .map(|(node, lease)| info(node, lease, now_ms))
                .collect(),
        }
    }

    /// Leases that nobody was told to have ended last on where nobody was answered.
    fn move_on(&mut self, now_ms: u64, lease_ms: u64) {
        let last_ms = self.last_ms.unwrap_or(now_ms);
        let gap_ms = now_ms.cast_signed() - last_ms.cast_signed();
        let is_long = gap_ms.unsigned_abs() * 2 > lease_ms;
        let moves = match gap_ms {
            ..0 => !self.lacks(Rule::MovingBack),
            _ => is_long && !self.lacks(Rule::MovingOn),
        };
        if !moves {
            return;
        }
        let is_whole = is_long && !self.lacks(Rule::WholeLeases);
        let least_ms = if is_whole { now_ms + lease_ms } else { 0 };
        for lease in self.by_name.values_mut().filter(|lease| !lease.is_over) {
            lease.end_ms = lease.end_ms.saturating_add_signed(gap_ms).max(least_ms);
        }
    }

    /// Whether this process held the name and has given it back.
    pub(crate) fn leave(&mut self, node: &NodeId, holder: u64, now_us: u64) -> bool {
        let mut held = self.by_name.get_mut(node).filter(|k| k.holder == holder);
        if let Some(lease) = &mut held {
            lease.end_ms = now_us / 1_000;
            lease.is_over = true;
        }
        held.is_some()
    }

    /// The lease of this life, `None` where the name is another's; of whoever has the name, if
    /// `of_anybody`.
    pub(crate) fn own_lease(
        &self,
        me: &Owner,
        holder: u64,
        now_us: u64,
        of_anybody: bool,
    ) -> Option<OwnLease> {
        let lease = self.by_name.get(&me.node)?;
        let is_own = lease.holder == holder && lease.incarnation == me.incarnation;
        (is_own || of_anybody).then(|| OwnLease {
            now_ms: now_us / 1_000,
            end_ms: Some(lease.end_ms).filter(|_| !lease.is_over),
            last_ms: self.last_ms.unwrap_or_default(),
        })
    }

    /// Whether somebody was told that this life of a process has ended.
    pub(crate) fn is_over(&self, me: &Owner, holder: u64) -> bool {
        let lease = self.by_name.get(&me.node);
        let own = lease.filter(|lease| lease.holder == holder);
        own.is_some_and(|lease| lease.is_over || lease.incarnation > me.incarnation)
    }

    pub(crate) fn forget_everything(&mut self) {
        *self = Self::new(self.without);
    }

    /// All lives whose lease nobody has seen to end.
    pub(crate) fn living(&self) -> impl Iterator<Item = Owner> {
        let living = self.by_name.iter().filter(|(_, lease)| !lease.is_over);
        living.map(|(node, lease)| Owner {
            node: node.clone(),
            incarnation: lease.incarnation,
        })
    }

    /// Whether this process has a lease of the name that lasts.
    pub(crate) fn is_held(&self, node: &NodeId, holder: u64, now_ms: u64) -> bool {
        let lease = self.by_name.get(node);
        lease.is_some_and(|lease| lease.holder == holder && lease.lasts(now_ms))
    }

    /// The newest life of a name, and the process that has it.
    pub(crate) fn newest(&self, node: &NodeId) -> Option<(u64, u64)> {
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
