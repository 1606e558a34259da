//! Processes, Redis, and what is on its way between them, moved in steps of a fake clock.
//!
//! In: a seed. Out: the checkers' verdict, and what was met. A storm of [`STORM_MS`], then calm for
//! longer than a lease lasts by any clock, then one more change in calm weather. What a process
//! sends to keep its name arrives in its order, late, or never; so do answers. What a killed process
//! had sent for it is carried out at once or never: a heartbeat that arrives when its sender has
//! long been dead, and that was sent before the sender had ever been answered, would take the name
//! from its successor. What it had sent about partitions may come at any time. Bound:
//! [`PROCESSES_MAX`] processes, and one that comes with the last change.

use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use tokio::time::Instant;

use super::Without;
use super::checker::Checker;
use super::fencing::{Fencing, Now};
use super::leases::{Heartbeat, Leases};
use super::met::Met;
use super::process::{LEASE, PARTITIONS, Process, ring};
use super::tokens::Tokens;
use super::weather::{LEASE_MS, Sky, Weather};
use super::wire::{LATE_MAX_MS, OnWire, What};
use crate::cluster::membership_machine::MembershipState;
use crate::cluster::roster::Answer;
use crate::cluster::view::{NodeInfo, View};
use crate::seeds::Verdict;

pub(super) const BEAT_MS: u64 = 1_000;
/// How long a heartbeat, and each part of a round of partitions, waits for its answer.
pub(super) const PATIENCE_MS: u64 = 2_000;

pub(super) const STEP_MS: u64 = 200;
const STORM_MS: u64 = 24_000;
/// What was late when it began, after which the first heartbeat comes, a lease of nodes, one of
/// partitions, and a few heartbeats, however far the clock has stepped.
const CALM_MS: u64 = LATE_MAX_MS + 2 * 5_000 + 5 * BEAT_MS;
/// A change takes a heartbeat of every node and two rounds of calls, and does not wait for the end
/// of a lease.
const CHANGE_MS: u64 = 4_200;
const START_MS: u64 = 1_732_190_000_000;

pub(super) const PROCESSES_MAX: usize = 8;
/// So many of all partitions are led in a run.
const WATCHED_COUNT: usize = 4;
/// A node says something else of itself with one of so many heartbeats.
const SAYS_ELSE_OF: u64 = 5;
/// How likely a replica has caught up in a step.
const REPLICATED: f64 = 0.2;
/// Names as people and orchestrators give them.
pub(super) static NAMES: [&str; 6] = ["fanfare-0", "fanfare-1", "fanfare-2", "a", "eu-west", "x9"];

/// See the module.
#[derive(Debug)]
pub(super) struct World {
    pub(super) rng: StdRng,
    pub(super) now_ms: u64,
    pub(super) start: Instant,
    /// What the clock of Redis shows beyond the true time: it steps to and fro.
    pub(super) clock_ms: i64,
    pub(super) weather: Weather,
    pub(super) sky: Sky,
    /// How long it storms, outages included.
    pub(super) storm_ms: u64,
    /// Scripts that Redis has run: each at a microsecond of its own.
    scripts: u64,
    pub(super) leases: Leases,
    pub(super) tokens: Tokens,
    /// What a replica has of both: it may be promoted before it has the rest.
    replica: (Leases, Tokens),
    /// The partitions that are led.
    pub(super) partitions: [u32; WATCHED_COUNT],
    pub(super) processes: Vec<Process>,
    pub(super) wire: Vec<OnWire>,
    checker: Checker,
    pub(super) fencing: Fencing,
    pub(super) without: Option<Without>,
    /// What is sent about partitions may come twice and in another order.
    pub(super) disorder: bool,
    /// Some processes run the scripts of the release before.
    is_mixed: bool,
    /// All clocks run alike, and nothing was forgotten, doubled or overtaken.
    pub(super) is_undisturbed: bool,
    /// No clock has stepped, and nothing was forgotten.
    pub(super) is_steady: bool,
    pub(super) lose: f64,
    pub(super) late: f64,
}

impl World {
    pub(super) fn new(seed: u64, without: Option<Without>) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let kinds = [Weather::Gentle, Weather::Stepping, Weather::Forgetful];
        let weather = *kinds.choose(&mut rng).expect("some");
        let disorder = rng.random_bool(0.5);
        let (of_leases, of_tokens) = match without {
            Some(Without::Lease(rule)) => (Some(rule), None),
            Some(Without::Token(rule)) => (None, Some(rule)),
            _ => (None, None),
        };
        let redis = (Leases::new(of_leases), Tokens::new(of_tokens));
        let worst = if weather == Weather::Gentle {
            f64::MIN_POSITIVE
        } else {
            0.15
        };
        let mut world = Self {
            now_ms: 0,
            start: Instant::now(),
            clock_ms: 0,
            weather,
            sky: Sky::default(),
            storm_ms: STORM_MS,
            scripts: 0,
            replica: redis.clone(),
            leases: redis.0,
            tokens: redis.1,
            partitions: std::array::from_fn(|_| rng.random_range(0..PARTITIONS)),
            processes: Vec::new(),
            wire: Vec::new(),
            checker: Checker::default(),
            fencing: Fencing::default(),
            without,
            disorder,
            is_mixed: seed.is_multiple_of(3),
            is_undisturbed: !disorder,
            is_steady: true,
            lose: rng.random_range(0.0..worst),
            late: rng.random_range(0.0..worst),
            rng,
        };
        let count = world.rng.random_range(1..=3);
        let names: Vec<_> = NAMES.sample(&mut world.rng, count).collect();
        for name in names {
            world.launch(name);
        }
        world
    }

    pub(super) fn run(mut self, met: &mut Met) -> Verdict {
        while self.now_ms < self.storm_ms {
            if self.rng.random_bool(0.15) {
                self.misfortune(met);
            }
            self.step(met)?;
        }
        self.calm();
        self.steps(CALM_MS, met)?;
        self.at_rest()?;
        self.last_change(met);
        self.steps(CHANGE_MS, met)?;
        self.at_rest()
    }

    fn steps(&mut self, for_ms: u64, met: &mut Met) -> Verdict {
        for _ in 0..for_ms / STEP_MS {
            self.step(met)?;
        }
        Ok(())
    }

    /// All is as it should be.
    fn at_rest(&self) -> Verdict {
        let redis_ms = self.redis_ms();
        self.checker
            .at_rest(&self.processes, &self.leases, redis_ms, self.weather)?;
        let running = self.processes.iter().filter(|p| p.is_running());
        let mut names: Vec<_> = running.map(|p| p.name().clone()).collect();
        names.sort_unstable();
        let (ring, now) = (ring(&names), self.clocks());
        Fencing::at_rest(&self.processes, &self.partitions, &ring, &self.tokens, now)
    }

    fn calm(&mut self) {
        (self.lose, self.late) = (0.0, 0.0);
        let Sky {
            away_until_ms,
            read_only_until_ms,
            ..
        } = &mut self.sky;
        for until_ms in [away_until_ms, read_only_until_ms] {
            *until_ms = (*until_ms).min(self.now_ms);
        }
        for process in &mut self.processes {
            process.paused_until_ms = process.paused_until_ms.min(self.now_ms);
            process.cut_until_ms = process.cut_until_ms.min(self.now_ms);
        }
    }

    /// A node comes, goes in order, or is killed and started again.
    fn last_change(&mut self, met: &mut Met) {
        let running = (0..self.processes.len()).filter(|at| self.processes[*at].is_running());
        let running: Vec<_> = running.collect();
        let Some(at) = running.choose(&mut self.rng).copied() else {
            return;
        };
        met.last_changes += 1;
        let name = self.processes[at].name().clone();
        match self.rng.random_range(0..3) {
            0 => {
                let names = running.iter().map(|at| self.processes[*at].name().as_str());
                let names: Vec<_> = names.collect();
                let new = NAMES.iter().find(|name| !names.contains(name));
                self.launch(new.expect("there are more names than nodes"));
            }
            1 if running.len() > 1 => self.leave(at, met),
            _ => {
                self.kill(at);
                self.launch(name.as_str());
            }
        }
    }

    /// The present instant by the clock that all processes share.
    pub(super) fn now(&self) -> Instant {
        self.start + Duration::from_millis(self.now_ms)
    }

    pub(super) fn clocks(&self) -> Now {
        Now {
            own: self.now(),
            redis_ms: self.redis_ms(),
        }
    }

    fn redis_ms(&self) -> u64 {
        (START_MS + self.now_ms).saturating_add_signed(self.clock_ms)
    }

    pub(super) fn redis_us(&mut self) -> u64 {
        self.scripts += 1;
        self.redis_ms() * 1_000 + self.scripts
    }

    pub(super) fn lacks(&self, rule: Without) -> bool {
        self.without == Some(rule)
    }

    /// A process comes up under this name.
    pub(super) fn launch(&mut self, name: &str) {
        let holder = self.rng.random();
        let mut process = Process::new(name, holder, self.now_ms);
        process.is_old = self.is_mixed && holder.is_multiple_of(2);
        self.processes.push(process);
    }

    pub(super) fn forget_everything(&mut self) {
        self.leases.forget_everything();
        for partition in self.partitions {
            self.tokens.forget(partition);
        }
        self.replica = (self.leases.clone(), self.tokens.clone());
        self.forgotten();
    }

    /// A replica takes over that has not heard of everything.
    pub(super) fn fall_back(&mut self) {
        (self.leases, self.tokens) = self.replica.clone();
        self.forgotten();
    }

    fn forgotten(&mut self) {
        self.is_steady = false;
        self.checker.forgotten(&self.leases);
        self.fencing.forgotten(&self.tokens);
    }

    pub(super) fn kill(&mut self, at: usize) {
        self.processes[at].is_dead = true;
        self.forget_wire(at);
    }

    fn forget_wire(&mut self, at: usize) {
        let stays = |wire: &OnWire| wire.process != at || wire.outlives_its_process();
        self.wire.retain(stays);
    }

    /// In order: the leases are given back, and the process ends whether Redis answers or not.
    pub(super) fn leave(&mut self, at: usize, met: &mut Met) {
        self.end_duties(at, met);
        let now_us = self.redis_us();
        let is_lost = self.rng.random_bool(self.lose);
        let process = &mut self.processes[at];
        let is_cut = process.cut_until_ms > self.now_ms || !self.sky.takes_writes(self.now_ms);
        if !is_lost && !is_cut {
            let node = process.name().clone();
            let is_old = process.is_old;
            self.leases
                .leave(&node, process.holder, now_us, is_old, true);
        }
        process.course.standing = MembershipState::Left;
        self.forget_wire(at);
    }

    fn step(&mut self, met: &mut Met) -> Verdict {
        self.now_ms += STEP_MS;
        if self.rng.random_bool(REPLICATED) {
            self.replica = (self.leases.clone(), self.tokens.clone());
        }
        self.deliver(met)?;
        for at in 0..self.processes.len() {
            if self.processes[at].acts(self.now_ms) {
                self.act(at, met)?;
            }
        }
        if self.is_steady {
            self.believe_no_lease_that_is_over()?;
        }
        Ok(())
    }

    /// Nobody believes to have a lease of which somebody was told that it has ended, or a name that
    /// another process has had for a lease.
    fn believe_no_lease_that_is_over(&self) -> Verdict {
        let (now, now_ms) = (self.now(), self.now_ms);
        for process in self.processes.iter().filter(|p| p.is_running()) {
            let (view, holder) = (&process.course.view, process.holder);
            let is_long_taken = process.taken_ms.is_some_and(|at| at + LEASE_MS <= now_ms);
            let is_over = is_long_taken || self.leases.is_over(&view.me, holder);
            if is_over && view.has_lease_at(now) {
                return Err(format!("the lease of {} is over at {now_ms}", view.me));
            }
        }
        Ok(())
    }

    /// What a process does by itself: gives up a heartbeat, sends one, leads its partitions.
    fn act(&mut self, at: usize, met: &mut Met) -> Verdict {
        let now = self.now();
        let keeps_fresh = self.lacks(Without::Staleness);
        let process = &mut self.processes[at];
        if let Some((_, sent_ms)) = process.waits
            && sent_ms + PATIENCE_MS <= self.now_ms
        {
            process.waits = None;
            met.given_up += 1;
            if !keeps_fresh {
                process.course.unanswered(now);
            }
            process.duty.tell();
            let is_over = |until: u64| until <= self.now_ms;
            let is_stale = process.shown_until_ms.is_none_or(is_over);
            met.stale += u64::from(is_stale);
            if is_stale && process.course.view.fresh {
                let who = &process.course.view.me;
                return Err(format!("the view of {who} is fresh after {}", self.now_ms));
            }
        }
        if process.waits.is_none() && process.next_beat_ms <= self.now_ms {
            self.send(at, met);
        }
        self.attend(at, met)
    }

    fn send(&mut self, at: usize, met: &mut Met) {
        let now = self.now();
        let process = &mut self.processes[at];
        if self.weather == Weather::Gentle && process.cut_until_ms > self.now_ms {
            // Refused at once, as where a connection is known to be lost.
            process.next_beat_ms = self.now_ms + BEAT_MS;
            process.course.unanswered(now);
            process.duty.tell();
            return;
        }
        let numbers = process.roster.numbers();
        process.waits = Some((numbers.beat, self.now_ms));
        let says_else = process
            .holder
            .wrapping_add(numbers.beat)
            .is_multiple_of(SAYS_ELSE_OF);
        process.sessions += u64::from(says_else);
        process.next_beat_ms = self.now_ms + BEAT_MS;
        let beat = Heartbeat {
            node: process.name().clone(),
            holder: process.holder,
            mine: process.course.standing.incarnation(),
            random: self.rng.random_range(0..1 << 20),
            numbers,
            sessions: process.sessions,
            is_old: process.is_old,
        };
        self.carry(at, numbers.beat, What::Question(beat), met);
    }

    /// A heartbeat has reached Redis.
    pub(super) fn beat(
        &mut self,
        process: usize,
        number: u64,
        beat: &Heartbeat,
        met: &mut Met,
    ) -> Verdict {
        let now_us = self.redis_us();
        let answer = self.leases.heartbeat(beat, now_us, LEASE);
        if matches!(answer, Answer::Held { .. }) {
            let now_ms = self.now_ms;
            for other in self.processes.iter_mut().filter(|p| *p.name() == beat.node) {
                let is_taken = other.holder != beat.holder;
                other.taken_ms = is_taken.then(|| other.taken_ms.unwrap_or(now_ms));
            }
        }
        let live = self.leases.live(now_us / 1_000);
        self.checker.beat(beat, &answer, &live)?;
        met.old_beats += u64::from(beat.is_old);
        self.carry(process, number, What::Answer(answer, live), met);
        Ok(())
    }

    /// The answer to a heartbeat has reached its process.
    pub(super) fn answered(
        &mut self,
        at: usize,
        number: u64,
        answer: Answer,
        live: &[NodeInfo],
        met: &mut Met,
    ) -> Verdict {
        let keeps_ring = self.lacks(Without::Dealing);
        let process = &mut self.processes[at];
        // One that was given up is answered to nobody.
        let Some((_, sent_ms)) = process.waits.filter(|w| w.0 == number) else {
            return Ok(());
        };
        process.waits = None;
        process.shown_until_ms = Some(sent_ms + LEASE_MS);
        let before = Arc::clone(&process.course.view);
        let sent_at = self.start + Duration::from_millis(sent_ms);
        met.changes_only += u64::from(Checker::tells_changes(&answer));
        let beat = process.roster.take(number, answer);
        Checker::shows(&beat, live)?;
        process.course.answered(beat, sent_at);
        let course = &mut process.course;
        if keeps_ring {
            course.view = Arc::new(View {
                ring: Arc::clone(&before.ring),
                ..View::clone(&course.view)
            });
        }
        let is_new = course.view.me != before.me && before.me.incarnation > 0;
        met.ended_leases += u64::from(is_new);
        if is_new && self.weather == Weather::Gentle {
            let now = &course.view.me;
            return Err(format!("{} lives and had to become {now}", before.me));
        }
        process.duty.tell();
        if process.was_superseded() {
            met.superseded += 1;
            self.end_duties(at, met);
        }
        if self.weather == Weather::Gentle {
            Checker::none_living_is_dead(&self.processes, at)?;
        }
        self.checker.answered(&self.processes[at], &before)
    }
}
