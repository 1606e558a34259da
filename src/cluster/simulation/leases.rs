//! The scripts `heartbeat.lua`, `leave.lua` and `own_lease.lua` in a few lines, over leases in memory.
//!
//! In: a heartbeat, and the time by Redis' clock. Out: what the script answers. That they do is a
//! test over a real Redis, `tests/cluster/lease_scripts.rs`, which includes this file. Processes of the
//! release before run the scripts of that release over the same leases. Bound: one lease a name; none
//! is forgotten for its age, because no run lasts so long. One of its rules may be missing.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::cluster::own_lease::OwnLease;
use crate::cluster::roster::{Answer, End, Numbers, Told};
use crate::cluster::view::{NodeDetails, NodeInfo};
use fanfare_protocol::ids::{NodeId, Owner};

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
    /// A new incarnation is a change.
    NewLives,
    /// That a node says something else of itself is one.
    NewDetails,
    /// The end of a lease is one.
    NewEnds,
    /// A lease that is given back is one.
    NewLeaves,
    /// Changes alone are told only to who has taken in the answer before.
    Numbers,
    /// A heartbeat by the script of the release before is noticed.
    OldBeats,
    /// So is a leave by it.
    OldLeaves,
}

impl Rule {
    /// All of them.
    pub(crate) const ALL: [Self; 18] = [
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
        Self::NewLives,
        Self::NewDetails,
        Self::NewEnds,
        Self::NewLeaves,
        Self::Numbers,
        Self::OldBeats,
        Self::OldLeaves,
    ];
}

/// Who holds a name.
#[derive(Debug, Clone)]
struct Lease {
    end_ms: u64,
    /// Somebody was told that it has ended.
    is_over: bool,
    /// It was given back.
    has_left: bool,
    incarnation: u64,
    holder: u64,
    sessions: u64,
    /// The number of its holder's last heartbeat, and the time that was told in answer; 0 by the
    /// script of the release before.
    beat: u64,
    told_us: u64,
    /// The time that was told when it changed last.
    changed_us: u64,
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
    pub(crate) numbers: Numbers,
    /// What the node says of itself.
    pub(crate) sessions: u64,
    /// By the script of the release before.
    pub(crate) is_old: bool,
}

/// What the last heartbeat leaves, unless it was one by the script of the release before.
#[derive(Debug, Clone, Copy)]
struct Record {
    lasting_count: usize,
    since_us: u64,
}

/// See the module.
#[derive(Debug, Clone)]
pub(crate) struct Leases {
    by_name: BTreeMap<NodeId, Lease>,
    /// When the last heartbeat was answered, by the clock of then.
    last_ms: Option<u64>,
    /// The time that was told with it.
    told_us: u64,
    record: Option<Record>,
    without: Option<Rule>,
}

impl Leases {
    pub(crate) fn new(without: Option<Rule>) -> Self {
        Self {
            by_name: BTreeMap::new(),
            last_ms: None,
            told_us: 0,
            record: None,
            without,
        }
    }

    fn lacks(&self, rule: Rule) -> bool {
        self.without == Some(rule)
    }

    pub(crate) fn heartbeat(&mut self, beat: &Heartbeat, now_us: u64, lease: Duration) -> Answer {
        let (now_ms, lease_ms) = (now_us / 1_000, ms(lease));
        let known = self.by_name.get(&beat.node).cloned();
        let known = known.as_ref();
        let is_mine = known.is_some_and(|k| k.holder == beat.holder) || self.lacks(Rule::Holders);
        let mine = beat.mine.filter(|_| !self.lacks(Rule::Membership));
        let before = mine.unwrap_or_default();
        let newest = known.map_or(0, |known| known.incarnation);
        if !is_mine && mine.is_some() && (newest > before || self.lacks(Rule::Comparison)) {
            return Answer::Superseded { newest };
        }
        let record = self.record.filter(|record| self.is_true(*record));
        self.move_on(now_ms, lease_ms);
        let lasts = self
            .by_name
            .get(&beat.node)
            .is_some_and(|k| k.lasts(now_ms));
        let keeps = lasts || self.lacks(Rule::NewIncarnations);
        let is_new = !(is_mine && keeps && newest >= before && newest > 0);
        let mut time_us = now_us.max(self.told_us + 1);
        let incarnation = if is_new {
            let highest = self.told_us.max(newest).max(before);
            let is_behind = now_us <= highest && !self.lacks(Rule::Rising);
            time_us = if is_behind {
                highest + 1 + beat.random
            } else {
                now_us
            };
            time_us
        } else {
            newest
        };
        if self.lacks(Rule::ToldTime) {
            time_us = now_us;
        }
        (self.last_ms, self.told_us) = (Some(now_ms), time_us);
        let held = Lease {
            end_ms: now_ms + lease_ms,
            is_over: false,
            has_left: false,
            incarnation,
            holder: beat.holder,
            sessions: beat.sessions,
            beat: if beat.is_old { 0 } else { beat.numbers.beat },
            told_us: if beat.is_old { 0 } else { time_us },
            changed_us: self.changed_us(beat, known, is_new, time_us),
        };
        self.by_name.insert(beat.node.clone(), held);
        self.mark_ended(now_ms, (!beat.is_old).then_some(time_us));
        self.keep_record(beat.is_old, record, time_us);
        let from_us = known.filter(|known| is_mine && self.knows(beat, known));
        let told = self.told(from_us.map(|known| known.told_us), now_ms);
        Answer::Held {
            incarnation,
            time_us,
            gone: self.gone(&told),
            told,
        }
    }

    /// How those ended that are told to be gone.
    fn gone(&self, told: &Told) -> Vec<(NodeId, End)> {
        let Told::Changed(nodes) = told else {
            return Vec::new();
        };
        let gone = nodes.iter().filter(|(_, node)| node.is_none());
        let end = |name| match self.by_name[name].has_left {
            true => End::Left,
            false => End::Lapsed,
        };
        gone.map(|(name, _)| (name.clone(), end(name))).collect()
    }

    /// Whether all that changed since the last heartbeat was recorded.
    fn is_true(&self, record: Record) -> bool {
        record.lasting_count == self.lasting_count() || self.lacks(Rule::OldLeaves)
    }

    fn lasting_count(&self) -> usize {
        self.by_name.values().filter(|lease| !lease.is_over).count()
    }

    /// When the node of this heartbeat changed last.
    fn changed_us(
        &self,
        beat: &Heartbeat,
        known: Option<&Lease>,
        is_new: bool,
        time_us: u64,
    ) -> u64 {
        let says_else = known.is_none_or(|known| known.sessions != beat.sessions);
        let is_changed =
            (is_new && !self.lacks(Rule::NewLives)) || (says_else && !self.lacks(Rule::NewDetails));
        if is_changed && !beat.is_old {
            time_us
        } else {
            known.map_or(0, |known| known.changed_us)
        }
    }

    fn mark_ended(&mut self, now_ms: u64, recorded_us: Option<u64>) {
        if self.lacks(Rule::Over) {
            return;
        }
        let recorded_us = recorded_us.filter(|_| !self.lacks(Rule::NewEnds));
        let ended = |lease: &&mut Lease| !lease.is_over && lease.end_ms <= now_ms;
        for lease in self.by_name.values_mut().filter(ended) {
            lease.is_over = true;
            lease.changed_us = recorded_us.unwrap_or(lease.changed_us);
        }
    }

    fn keep_record(&mut self, is_old: bool, record: Option<Record>, time_us: u64) {
        if !is_old {
            self.record = Some(Record {
                lasting_count: self.lasting_count(),
                since_us: record.map_or(time_us, |record| record.since_us),
            });
        } else if !self.lacks(Rule::OldBeats) {
            self.record = None;
        }
    }

    /// Whether the sender of this heartbeat knows all up to its last one, of which `known` tells.
    fn knows(&self, beat: &Heartbeat, known: &Lease) -> bool {
        let has_taken = beat.numbers.taken > 0 && beat.numbers.taken == known.beat;
        let is_recorded = self.record.is_some_and(|r| known.told_us >= r.since_us);
        !beat.is_old && is_recorded && (has_taken || self.lacks(Rule::Numbers))
    }

    /// All nodes, or those that changed after this time.
    fn told(&self, from_us: Option<u64>, now_ms: u64) -> Told {
        let Some(from_us) = from_us else {
            return Told::All(self.live(now_ms));
        };
        let changed = self.by_name.iter();
        let changed = changed.filter(|(_, lease)| lease.changed_us > from_us);
        let change = |(node, lease): (&NodeId, &Lease)| {
            let info = self.is_shown(lease, now_ms).then(|| info(node, lease));
            (node.clone(), info)
        };
        Told::Changed(changed.map(change).collect())
    }

    fn is_shown(&self, lease: &Lease, now_ms: u64) -> bool {
        self.lacks(Rule::Ends) || lease.lasts(now_ms)
    }

    /// All that have a lease.
    pub(crate) fn live(&self, now_ms: u64) -> Vec<NodeInfo> {
        let live = self.by_name.iter();
        let live = live.filter(|(_, lease)| self.is_shown(lease, now_ms));
        live.map(|(node, lease)| info(node, lease)).collect()
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

    /// Whether this process held the name and has given it back, by which release's script.
    pub(crate) fn leave(
        &mut self,
        node: &NodeId,
        holder: u64,
        now_us: u64,
        is_old: bool,
        is_bare: bool,
    ) -> bool {
        let leaves_no_trace = self.lacks(Rule::NewLeaves);
        let mut held = self.by_name.get_mut(node).filter(|k| k.holder == holder);
        if let Some(lease) = &mut held {
            if let Some(record) = self.record.as_mut().filter(|_| !is_old && !lease.is_over) {
                self.told_us = now_us.max(self.told_us + 1);
                record.lasting_count = record.lasting_count.saturating_sub(1);
                if !leaves_no_trace {
                    lease.changed_us = self.told_us;
                }
            }
            lease.end_ms = now_us / 1_000;
            lease.is_over = true;
            lease.has_left |= is_old || is_bare;
        }
        held.is_some()
    }

    /// When the lease of each name ends; negative where it is over.
    #[allow(dead_code, reason = "the test over a real Redis compares it")]
    pub(crate) fn ends(&self) -> impl Iterator<Item = (&NodeId, i64)> {
        self.by_name.iter().map(|(node, lease)| {
            let end_ms = lease.end_ms.cast_signed();
            (node, if lease.is_over { -end_ms } else { end_ms })
        })
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

fn info(node: &NodeId, lease: &Lease) -> NodeInfo {
    NodeInfo {
        owner: Owner {
            node: node.clone(),
            incarnation: lease.incarnation,
        },
        details: NodeDetails {
            sessions: lease.sessions,
            ..NodeDetails::default()
        },
    }
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).expect("short")
}
