//! What is on its way between processes and Redis: late, lost, and for partitions also twice and in
//! another order.
//!
//! In: questions and answers. Out: each at its time, to Redis or to its process. A connection keeps
//! order, and in half of all runs what goes over it does. In the other half what is asked and
//! answered about partitions may be doubled and overtaken, as where connections are replaced. Acts
//! for a partition keep no order in any run: other tasks send them. Bound: what the processes send
//! in a few seconds.

use rand::RngExt as _;

use super::duties::Ask;
use super::leases::Heartbeat;
use super::met::Met;
use super::world::{STEP_MS, World};
use crate::cluster::own_lease::OwnLease;
use crate::cluster::partition_store::LeaseAnswer;
use crate::cluster::roster::Answer;
use crate::cluster::view::NodeInfo;
use crate::seeds::Verdict;

/// The longest that an answer is late.
pub(super) const LATE_MAX_MS: u64 = 4_000;

/// A message is rarely late, or with so many of them a connection always were.
const LATE_PARTS: f64 = 8.0;
/// An act may come later than its lease has ended: its process was paused in the middle of it.
const ACT_LATE_MAX_MS: u64 = 9_000;
const ACT_LATE: f64 = 0.15;

/// Between a process and Redis.
#[derive(Debug)]
pub(super) struct OnWire {
    at_ms: u64,
    pub(super) process: usize,
    number: u64,
    what: What,
}

#[derive(Debug, Clone)]
pub(super) enum What {
    Question(Heartbeat),
    /// With all nodes that had a lease when it was given.
    Answer(Answer, Vec<NodeInfo>),
    /// Redis takes no writes; the sender's lease.
    Refusal(Option<OwnLease>),
    /// About a partition.
    Ask(Ask),
    /// What became of it, where that is more than that it was done.
    Told(Option<LeaseAnswer>),
}

impl OnWire {
    /// A process that ends may leave this behind.
    pub(super) fn outlives_its_process(&self) -> bool {
        matches!(self.what, What::Ask(_))
    }
}

impl What {
    fn is_to_process(&self) -> bool {
        matches!(self, What::Answer(..) | What::Refusal(_) | What::Told(_))
    }

    fn is_act(&self) -> bool {
        matches!(self, What::Ask(Ask::Act { .. }))
    }

    fn is_of_membership(&self) -> bool {
        matches!(
            self,
            What::Question(_) | What::Answer(..) | What::Refusal(_)
        )
    }
}

impl World {
    /// Takes something to the other side, or loses it.
    pub(super) fn carry(&mut self, process: usize, number: u64, what: What, met: &mut Met) {
        let is_cut = self.processes[process].cut_until_ms > self.now_ms;
        if is_cut || self.rng.random_bool(self.lose) {
            met.lost_messages += 1;
            return;
        }
        let may_double = self.disorder && !what.is_of_membership();
        if may_double && self.rng.random_bool(self.late) {
            met.doubled += 1;
            self.send_off(process, number, what.clone(), met);
        }
        self.send_off(process, number, what, met);
    }

    fn send_off(&mut self, process: usize, number: u64, what: What, met: &mut Met) {
        let late_ms = self.late_ms(&what);
        let mut at_ms = self.now_ms + late_ms;
        let reaches_ms = &mut self.processes[process].reaches_ms[usize::from(what.is_to_process())];
        if what.is_of_membership() || !(self.disorder || what.is_act()) {
            *reaches_ms = (*reaches_ms).max(at_ms);
            at_ms = *reaches_ms;
        } else {
            let is_later = |w: &OnWire| w.process == process && w.at_ms > at_ms + STEP_MS;
            met.overtaken += u64::from(self.wire.iter().any(is_later));
        }
        self.wire.push(OnWire {
            at_ms,
            process,
            number,
            what,
        });
    }

    fn late_ms(&mut self, what: &What) -> u64 {
        let (late, most_ms) = match what {
            _ if self.late == 0.0 => (0.0, 1),
            _ if what.is_of_membership() => (self.late, LATE_MAX_MS),
            _ if what.is_act() => (ACT_LATE, ACT_LATE_MAX_MS),
            _ if self.disorder => (self.late, LATE_MAX_MS),
            _ => (self.late / LATE_PARTS, LATE_MAX_MS),
        };
        match self.rng.random_bool(late) {
            true => self.rng.random_range(0..most_ms),
            false => self.rng.random_range(0..STEP_MS),
        }
    }

    /// Lets everything arrive whose time has come, in any order that keeps that of each process.
    pub(super) fn deliver(&mut self, met: &mut Met) -> Verdict {
        let mut at = 0;
        while at < self.wire.len() {
            let wire = &self.wire[at];
            // What waits for a paused process waits in its socket.
            let waits = wire.what.is_to_process()
                && self.processes[wire.process].paused_until_ms > self.now_ms;
            let is_unheard = !wire.what.is_to_process() && self.sky.is_away(self.now_ms);
            if wire.at_ms > self.now_ms || waits || (is_unheard && self.sky.is_stopped) {
                at += 1;
                continue;
            }
            let wire = self.wire.remove(at);
            if is_unheard {
                met.lost_messages += 1;
                continue;
            }
            let (process, number) = (wire.process, wire.number);
            let takes_writes = self.sky.takes_writes(self.now_ms);
            match wire.what {
                What::Question(beat) if !takes_writes => self.refuse(process, number, &beat, met),
                // Refused. What that means to the process is told by its heartbeats.
                What::Ask(_) if !takes_writes => met.lost_messages += 1,
                What::Refusal(own) => self.refused(process, number, own, met)?,
                What::Question(beat) => self.beat(process, number, &beat, met)?,
                What::Answer(answer, live) => {
                    self.answered(process, number, answer, &live, met)?;
                }
                What::Ask(ask) => self.asked(process, number, ask, met)?,
                What::Told(bid) => self.told(process, number, bid, met),
            }
        }
        Ok(())
    }
}
