//! What a process does about partitions: rounds of leases, and acting by them.
//!
//! In: views that were told, answers, time. Out: commands. What is asked and what an answer means is
//! the product's [`PartitionLeases`]; the order of a round (give up, then give back and bid, show) is played
//! here as the task of `partitions` has it, with its patience. What that asks for in one call goes
//! here by itself: that all of it is late, lost or refused together is one of the cases. One of the
//! rules may be missing. Bound: a call a watched partition at once.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use rand::RngExt as _;
use rand::seq::IndexedRandom as _;
use tokio::time::Instant;

use super::Without;
use super::fencing::Fencing;
use super::met::Met;
use super::process::{LEASE, Process};
use super::wire::What;
use super::world::{PATIENCE_MS, World};
use crate::cluster::partition_leases::{Held, PartitionLeases, Round};
use crate::cluster::partition_store::LeaseAnswer;
use crate::cluster::view::View;
use crate::seeds::Verdict;
use fanfare_protocol::ids::Owner;

/// How likely a process acts in a step.
const ACTS: f64 = 0.5;

/// Of a partition.
#[derive(Debug, Clone)]
pub(super) enum Ask {
    /// The lease.
    Lead { partition: u32, owner: Owner },
    /// To have it back.
    Release { partition: u32, token: u64 },
    /// To act by it: to read its index, say.
    Act { partition: u32, token: u64 },
}

/// A question that waits for its answer.
#[derive(Debug)]
struct Call {
    number: u64,
    partition: u32,
    asked_ms: u64,
}

#[derive(Debug)]
enum Phase {
    Idle,
    Waiting,
}

/// The part of a process that leads its partitions.
#[derive(Debug)]
pub(super) struct Duty {
    pub(super) leases: PartitionLeases,
    /// What all that acts for partitions sees.
    pub(super) shown: Held,
    /// The view was told since the last round began.
    is_told: bool,
    phase: Phase,
    /// When the phase began, and what of it waits.
    since_ms: u64,
    calls: Vec<Call>,
    calls_count: u64,
}

impl Duty {
    pub(super) fn new(me: Owner) -> Self {
        Self {
            leases: PartitionLeases::new(me, LEASE),
            shown: Held::default(),
            is_told: false,
            phase: Phase::Idle,
            since_ms: 0,
            calls: Vec::new(),
            calls_count: 0,
        }
    }

    /// The membership has something to say.
    pub(super) fn tell(&mut self) {
        self.is_told = true;
    }

    fn show(&mut self, now: Instant) {
        self.shown = self.leases.held(now);
    }

    fn is_due(&self, now: Instant, now_ms: u64) -> bool {
        match self.phase {
            Phase::Idle => self.is_told || self.leases.next_at().is_some_and(|at| at <= now),
            _ => self.calls.is_empty() || self.since_ms + PATIENCE_MS <= now_ms,
        }
    }
}

impl World {
    /// Goes on with the round of a process as far as it can, and acts.
    pub(super) fn attend(&mut self, at: usize, met: &mut Met) -> Verdict {
        let (now, now_ms) = (self.now(), self.now_ms);
        while self.processes[at].duty.is_due(now, now_ms) {
            let duty = &mut self.processes[at].duty;
            met.rounds_given_up += u64::from(!duty.calls.is_empty());
            duty.calls.clear();
            duty.since_ms = now_ms;
            match std::mem::replace(&mut duty.phase, Phase::Idle) {
                Phase::Idle => self.begin(at, now, met),
                Phase::Waiting => duty.show(now),
            }
        }
        self.act_by_leases(at, now, met)
    }

    fn begin(&mut self, at: usize, now: Instant, met: &mut Met) {
        let (without, partitions) = (self.without, self.partitions);
        let Process { duty, course, .. } = &mut self.processes[at];
        duty.is_told = false;
        let mut view = Arc::clone(&course.view);
        if without == Some(Without::Members) {
            view = taken_for_a_member(&view);
        }
        if without == Some(Without::Lives) {
            duty.leases.me = view.me.clone();
        }
        let is_mine = |p: &u32| view.ring.home_of_partition(*p) == Some(&view.me.node);
        let mine = partitions.into_iter().filter(is_mine).collect();
        let round = duty.leases.begin(&view, mine, now);
        let keeps = match without {
            Some(Without::GivingUp) => !round.given.is_empty(),
            Some(Without::TellingAtOnce) => round.given.is_empty(),
            _ => false,
        };
        if round.is_less && !keeps {
            duty.show(now);
        }
        let Round { given, wanted, .. } = round;
        duty.phase = Phase::Waiting;
        self.give_back(at, given, met);
        self.bid(at, wanted, met);
    }

    fn give_back(&mut self, at: usize, given: Vec<(u32, u64)>, met: &mut Met) {
        if self.without != Some(Without::GivingBack) {
            for (partition, token) in given {
                self.call(at, partition, Ask::Release { partition, token }, met);
            }
        }
    }

    fn bid(&mut self, at: usize, wanted: BTreeSet<u32>, met: &mut Met) {
        let (now, leaves) = (self.now(), self.lacks(Without::Extending));
        let Duty { leases, shown, .. } = &self.processes[at].duty;
        let owner = leases.me.clone();
        let is_left = |p: &u32| leaves && shown.token_at(*p, now).is_some();
        let wanted: Vec<_> = wanted.into_iter().filter(|p| !is_left(p)).collect();
        for partition in wanted {
            let owner = owner.clone();
            self.call(at, partition, Ask::Lead { partition, owner }, met);
        }
    }

    fn call(&mut self, at: usize, partition: u32, ask: Ask, met: &mut Met) {
        let duty = &mut self.processes[at].duty;
        duty.calls_count += 1;
        let number = duty.calls_count;
        duty.calls.push(Call {
            number,
            partition,
            asked_ms: self.now_ms,
        });
        self.carry(at, number, What::Ask(ask), met);
    }

    /// A process ends in order, or because its name was taken: it gives all back.
    pub(super) fn end_duties(&mut self, at: usize, met: &mut Met) {
        let duty = &mut self.processes[at].duty;
        let given = duty.leases.end();
        duty.shown = Held::default();
        self.give_back(at, given, met);
    }

    /// Acts for a partition, if the process believes to hold it.
    fn act_by_leases(&mut self, at: usize, now: Instant, met: &mut Met) -> Verdict {
        if !self.rng.random_bool(ACTS) {
            return Ok(());
        }
        let partition = *self.partitions.choose(&mut self.rng).expect("some");
        let its_clock = match self.without {
            // It looks at none.
            Some(Without::OwnEnds) => self.start,
            _ => now,
        };
        let process = &self.processes[at];
        let shown = &process.duty.shown;
        let Some(token) = shown.token_at(partition, its_clock) else {
            met.ended += u64::from(shown.token_at(partition, self.start).is_some());
            return Ok(());
        };
        self.fencing.acts(process, partition, token, now)?;
        if self.is_undisturbed {
            let redis = (&self.tokens, &self.leases);
            Fencing::holds(process, partition, token, redis, self.clocks())?;
            met.judged += 1;
        }
        self.carry(at, 0, What::Ask(Ask::Act { partition, token }), met);
        Ok(())
    }

    /// Something about a partition has reached Redis.
    pub(super) fn asked(&mut self, at: usize, number: u64, ask: Ask, met: &mut Met) -> Verdict {
        let answer = match ask {
            Ask::Lead { partition, owner } => {
                let now_us = self.redis_us();
                let random = self.rng.random_range(0..1 << 20);
                let bid = self.tokens.lead(partition, &owner, LEASE, now_us, random);
                let holder = self.processes[at].holder;
                let is_moved = self.fencing.led(partition, &owner, holder, bid)?;
                met.handed_over += u64::from(is_moved);
                Some(bid)
            }
            Ask::Release { partition, token } => {
                let is_done = self.tokens.release(partition, token);
                met.given_back += u64::from(is_done);
                met.refused_back += u64::from(!is_done);
                None
            }
            Ask::Act { partition, token } => {
                if self.tokens.admits(partition, token) {
                    self.fencing.admitted(partition, token)?;
                    met.admitted += 1;
                } else {
                    met.refused += 1;
                }
                return Ok(());
            }
        };
        self.carry(at, number, What::Told(answer), met);
        Ok(())
    }

    /// An answer about a partition has reached its process.
    pub(super) fn told(&mut self, at: usize, number: u64, bid: Option<LeaseAnswer>, met: &mut Met) {
        let now = self.now();
        let process = &mut self.processes[at];
        let mut calls = process.duty.calls.iter();
        // What was given up is answered to nobody.
        let known = calls.position(|call| call.number == number);
        let Some(known) = known.filter(|_| process.is_running()) else {
            return;
        };
        let Call {
            partition,
            asked_ms,
            ..
        } = process.duty.calls.swap_remove(known);
        let Some(bid) = bid else {
            return;
        };
        let asked_at = self.start + Duration::from_millis(asked_ms);
        self.fencing.heard(process.holder, partition, asked_at, bid);
        let asked_at = match self.without {
            Some(Without::CountingFromBefore) => now,
            _ => asked_at,
        };
        let duty = &mut process.duty;
        if duty.leases.answered(partition, asked_at, bid) {
            met.taken_away += 1;
            if self.without != Some(Without::TellingAtOnce) {
                duty.show(now);
            }
        }
    }
}

/// A process that has never been answered, or not for a lease, as if it had been just now.
fn taken_for_a_member(view: &View) -> Arc<View> {
    let mut view = View::clone(view);
    view.me.incarnation = view.me.incarnation.max(1);
    (view.fresh, view.until) = (true, None);
    Arc::new(view)
}
