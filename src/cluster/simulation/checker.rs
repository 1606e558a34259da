//! What must hold of names, lives, views and rings, whatever happens to processes and Redis.
//!
//! In: what each script answered when it ran, and each process after it took an answer. Out: the
//! first broken promise. Promised is: a life of a node belongs to one process, later lives of a name
//! are higher, a life that a view did not show never comes back; a view shows those that had a lease
//! when it was answered; its ring is that of its names,
//! so that equal views have equal homes; a change of one name moves at most twice the ideal; and
//! when everything has been calm for longer than a lease, one process holds each name and all see
//! the same.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::leases::{Heartbeat, Leases};
use super::process::{PARTITIONS, Process, ring};
use super::weather::Weather;
use crate::cluster::membership_machine::MembershipState;
use crate::cluster::ring::Ring;
use crate::cluster::roster::Beat;
use crate::cluster::roster::{Answer, Told};
use crate::cluster::view::{NodeInfo, View};
use crate::seeds::Verdict;
use fanfare_protocol::ids::{NodeId, Owner};

/// What a server that forgot some lives may show below their births: by then none of them is too
/// young to be called abandoned.
const LATER_US: u64 = 200_000_000;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Checker {
    /// Which process each life belongs to.
    holders: BTreeMap<Owner, u64>,
    newest: BTreeMap<NodeId, u64>,
    /// Lives that were not shown any more.
    gone: BTreeSet<Owner>,
}

fn must(holds: bool, what: impl FnOnce() -> String) -> Verdict {
    if holds { Ok(()) } else { Err(what()) }
}

fn names(view: &View) -> Vec<NodeId> {
    view.nodes.iter().map(|n| n.owner.node.clone()).collect()
}

impl Checker {
    /// A heartbeat was carried out.
    pub(super) fn beat(&mut self, beat: &Heartbeat, answer: &Answer, live: &[NodeInfo]) -> Verdict {
        let Answer::Held { incarnation, .. } = answer else {
            return Ok(());
        };
        let owner = Owner {
            node: beat.node.clone(),
            incarnation: *incarnation,
        };
        let newest = self.newest.entry(beat.node.clone()).or_default();
        must(*incarnation >= *newest, || {
            format!("{owner} was taken after {newest}")
        })?;
        *newest = *incarnation;
        let holder = *self.holders.entry(owner.clone()).or_insert(beat.holder);
        must(holder == beat.holder, || {
            format!("{owner} is held by {holder:x} and by {:x}", beat.holder)
        })?;
        let shown: BTreeSet<_> = live.iter().map(|n| &n.owner).collect();
        must(shown.contains(&owner), || format!("{owner} is not shown"))?;
        for owner in self.holders.keys() {
            if !shown.contains(owner) && !self.gone.contains(owner) {
                self.gone.insert(owner.clone());
            }
        }
        let mut back = shown.iter().filter(|owner| self.gone.contains(**owner));
        let back = back.next();
        must(back.is_none(), || format!("{back:?} came back to life"))
    }

    /// An answer tells only what changed.
    pub(super) fn tells_changes(answer: &Answer) -> bool {
        let Answer::Held { told, .. } = answer else {
            return false;
        };
        matches!(told, Told::Changed(_))
    }

    /// What a process makes of its answers is what Redis had when it gave the last one.
    pub(super) fn shows(beat: &Beat, live: &[NodeInfo]) -> Verdict {
        match beat {
            Beat::Held { nodes, .. } => must(nodes == live, || {
                format!("{nodes:?} are shown, {live:?} had a lease")
            }),
            Beat::Superseded { .. } => Ok(()),
        }
    }

    /// Redis has lost what it was told last: what had ended may live on, and lives rise from here.
    pub(super) fn forgotten(&mut self, leases: &Leases) {
        for owner in leases.living() {
            self.gone.remove(&owner);
        }
        self.newest.retain(|node, newest| {
            let known = leases.newest(node);
            *newest = known.map_or(0, |(incarnation, _)| incarnation);
            known.is_some()
        });
    }

    /// This process has a new view, in which nobody who lives is taken for dead.
    pub(super) fn none_living_is_dead(processes: &[Process], at: usize) -> Verdict {
        let view = &processes[at].course.view;
        let members = processes.iter().filter(|p| p.is_running());
        let mut lives = members.map(|p| &p.course.view.me);
        let dead = lives.find(|me| me.incarnation > 0 && view.is_dead(me));
        must(dead.is_none(), || {
            format!("{dead:?} lives and is dead for {}", view.me)
        })
    }

    /// A process has taken an answer; its view was `before`.
    pub(super) fn answered(&self, process: &Process, before: &View) -> Verdict {
        let course = &process.course;
        let view = &course.view;
        match &course.standing {
            MembershipState::Member(owner) => {
                must(view.me == *owner && view.is_live(owner), || {
                    format!("{owner} is a member, and not in its view")
                })?;
            }
            MembershipState::Superseded { newest } if *newest <= before.me.incarnation => {
                return Err(format!("{} gave up its name to {newest}", before.me));
            }
            _ => must(!view.fresh, || "a view is fresh at the end".into())?,
        }
        must(view.ring == ring(&names(view)), || {
            format!("not the ring of {:?}", names(view))
        })?;
        if Arc::ptr_eq(&view.ring, &before.ring) {
            Ok(())
        } else {
            few_moved(before, view)
        }
    }

    /// It has been calm for longer than a lease lasts.
    pub(super) fn at_rest(
        &self,
        processes: &[Process],
        leases: &Leases,
        redis_ms: u64,
        weather: Weather,
    ) -> Verdict {
        let running: Vec<_> = processes.iter().filter(|p| p.is_running()).collect();
        let mut members = BTreeMap::new();
        for process in &running {
            let MembershipState::Member(owner) = &process.course.standing else {
                return Err(format!("{process:?} has not come to an end"));
            };
            let twice = members.insert(owner.node.clone(), owner.clone());
            must(twice.is_none(), || format!("{twice:?} and {owner} at once"))?;
            let newest = leases.newest(&owner.node);
            must(newest == Some((owner.incarnation, process.holder)), || {
                format!("{owner} of {:x} runs, {newest:?} holds", process.holder)
            })?;
        }
        // Where nobody runs, a lease that a failover brought back lasts by a clock that is behind.
        let is_watched = |p: &&Process| p.was_superseded() && !running.is_empty();
        for process in processes.iter().filter(is_watched) {
            let node = &process.course.view.me.node;
            must(!leases.is_held(node, process.holder, redis_ms), || {
                format!("{:x}, which holds {node}, gave up", process.holder)
            })?;
        }
        let live: Vec<_> = members.values().cloned().collect();
        for process in running {
            let view = &process.course.view;
            let shown: Vec<_> = view.nodes.iter().map(|n| n.owner.clone()).collect();
            must(view.fresh && shown == live, || {
                format!("{} sees {shown:?}, alive are {live:?}", view.me)
            })?;
            self.abandoned(view, &live, weather)?;
        }
        Ok(())
    }

    /// All that is dead may be removed, at once where Redis knows of it, and nothing that lives.
    fn abandoned(&self, view: &View, live: &[Owner], weather: Weather) -> Verdict {
        let may_be_unknown = weather == Weather::Forgetful;
        let later = View {
            time_us: view.time_us + if may_be_unknown { LATER_US } else { 0 },
            ..view.clone()
        };
        for owner in self.holders.keys() {
            must(later.is_dead(owner) != live.contains(owner), || {
                format!("{owner} is taken for what it is not by {}", view.me)
            })?;
        }
        Ok(())
    }
}

/// When one node came or went, at most twice the ideal has another home.
fn few_moved(before: &View, after: &View) -> Verdict {
    let (old, new): (BTreeSet<_>, BTreeSet<_>) = (
        names(before).into_iter().collect(),
        names(after).into_iter().collect(),
    );
    let (least, most) = (old.len().min(new.len()), old.len().max(new.len()));
    if old.symmetric_difference(&new).count() != 1 || least < 2 {
        return Ok(());
    }
    let moved = moved(&before.ring, &after.ring);
    must(moved * most <= 2 * PARTITIONS as usize, || {
        format!("{moved} moved between {old:?} and {new:?}")
    })
}

fn moved(a: &Ring, b: &Ring) -> usize {
    let differs = |p: &u32| a.home_of_partition(*p) != b.home_of_partition(*p);
    (0..PARTITIONS).filter(differs).count()
}
