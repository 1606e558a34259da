//! Processes, Redis, and what is on its way between them, moved in steps of a fake clock.
//!
//! In: a seed. Out: the checker's verdict, and what was met. A storm of [`STORM_MS`], then calm for
//! longer than a lease lasts by any clock. What a process sends arrives in its order, late, or never;
//! so do answers. What a killed process had sent is carried out at once or never: a heartbeat that
//! arrives when its sender has long been dead, and that was sent before the sender had ever been
//! answered, would take the name from its successor. Bound: [`PROCESSES_MAX`] processes.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};
use tokio::time::Instant;

use super::Without;
use super::checker::Checker;
use super::leases::{Heartbeat, Leases};
use crate::cluster::lease_store::Beat;
use crate::cluster::ring::Ring;
use crate::cluster::standing::{Answer, Course, Standing};
use crate::cluster::view::{NodeDetails, NodeInfo, View};
use crate::protocol::ids::{NodeId, Owner};
use crate::seeds::Verdict;

/// As a cluster has them by default.
pub(super) const PARTITIONS: u32 = 256;
const LEASE: Duration = Duration::from_secs(5);
const BEAT_MS: u64 = 1_000;
/// How long a heartbeat waits for its answer.
const PATIENCE_MS: u64 = 2_000;

const STEP_MS: u64 = 200;
const STORM_MS: u64 = 24_000;
/// A lease, the largest step of the clock, and a few heartbeats.
const CALM_MS: u64 = 5_000 + CLOCK_STEP_MAX_MS + 4 * BEAT_MS;
const CLOCK_STEP_MAX_MS: u64 = 3_000;
const START_MS: u64 = 1_732_190_000_000;

const PROCESSES_MAX: usize = 8;
/// Names as people and orchestrators give them.
static NAMES: [&str; 6] = ["fanfare-0", "fanfare-1", "fanfare-2", "a", "eu-west", "x9"];

thread_local! {
    /// Rings that were dealt already: there are few sets of so few names.
    static RINGS: RefCell<HashMap<Vec<NodeId>, Arc<Ring>>> = RefCell::default();
}

/// The ring of these names.
pub(super) fn ring(names: &[NodeId]) -> Arc<Ring> {
    RINGS.with_borrow_mut(|rings| {
        let known = rings.entry(names.to_vec());
        Arc::clone(known.or_insert_with(|| Arc::new(Ring::new(names, PARTITIONS))))
    })
}

/// How often what was met.
#[derive(Debug, Default)]
pub(super) struct Met {
    kills: u64,
    twins: u64,
    superseded: u64,
    pauses: u64,
    cuts: u64,
    losses: u64,
    steps_back: u64,
    leaves: u64,
    ended_leases: u64,
    lost_messages: u64,
    given_up: u64,
    stale: u64,
}

impl Met {
    pub(super) fn counts(&self) -> [(&'static str, u64); 12] {
        [
            ("a kill", self.kills),
            ("a second process of a name", self.twins),
            ("a process that gave up its name", self.superseded),
            ("a pause", self.pauses),
            ("a cut", self.cuts),
            ("a Redis that forgot all", self.losses),
            ("a clock that stepped back", self.steps_back),
            ("a lease given back", self.leaves),
            ("a new life after a lease had ended", self.ended_leases),
            ("a lost message", self.lost_messages),
            ("a heartbeat that was given up", self.given_up),
            ("a view that grew stale", self.stale),
        ]
    }
}

/// One process, as far as its membership goes.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) holder: u64,
    pub(super) course: Course,
    is_dead: bool,
    paused_until_ms: u64,
    cut_until_ms: u64,
    /// The number of the heartbeat that waits for its answer, and when it was sent.
    waits: Option<(u64, u64)>,
    sent: u64,
    next_beat_ms: u64,
    answered_at_ms: Option<u64>,
    /// When what it sent last reaches Redis, and the last answer to it arrives.
    reaches_ms: [u64; 2],
}

impl Process {
    /// It lives and has not given up.
    pub(super) fn is_running(&self) -> bool {
        !self.is_dead && !self.course.standing.is_final()
    }

    pub(super) fn was_superseded(&self) -> bool {
        matches!(self.course.standing, Standing::Superseded { .. })
    }

    fn name(&self) -> &NodeId {
        &self.course.view.me.node
    }

    fn acts(&self, now_ms: u64) -> bool {
        self.is_running() && self.paused_until_ms <= now_ms
    }
}

/// Between a process and Redis.
#[derive(Debug)]
struct OnWire {
    at_ms: u64,
    process: usize,
    number: u64,
    what: What,
}

#[derive(Debug)]
enum What {
    Question(Heartbeat),
    Answer(Beat),
}

/// See the module.
#[derive(Debug)]
pub(super) struct World {
    rng: StdRng,
    now_ms: u64,
    start: Instant,
    /// What the clock of Redis shows beyond the true time: it steps to and fro.
    clock_ms: i64,
    /// Scripts that Redis has run: each at a microsecond of its own.
    scripts: u64,
    leases: Leases,
    processes: Vec<Process>,
    wire: Vec<OnWire>,
    checker: Checker,
    without: Option<Without>,
    /// Redis forgets in one half of all runs, its clock steps in the other: what it can promise
    /// after both together is nothing.
    forgets: bool,
    lose: f64,
    late: f64,
}

impl World {
    pub(super) fn new(seed: u64, without: Option<Without>) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let forgets = rng.random_bool(0.5);
        let mut world = Self {
            now_ms: 0,
            start: Instant::now(),
            clock_ms: 0,
            scripts: 0,
            leases: Leases::new(without),
            processes: Vec::new(),
            wire: Vec::new(),
            checker: Checker::default(),
            without,
            forgets,
            lose: rng.random_range(0.0..0.15),
            late: rng.random_range(0.0..0.15),
            rng,
        };
        let count = world.rng.random_range(1..=3);
        let names: Vec<_> = NAMES.choose_multiple(&mut world.rng, count).collect();
        for name in names {
            world.launch(name);
        }
        world
    }

    pub(super) fn run(mut self, met: &mut Met) -> Verdict {
        while self.now_ms < STORM_MS {
            if self.rng.random_bool(0.15) {
                self.misfortune(met);
            }
            self.step(met)?;
        }
        self.calm();
        while self.now_ms < STORM_MS + CALM_MS {
            self.step(met)?;
        }
        self.checker.at_rest(&self.processes, &self.leases)
    }

    fn calm(&mut self) {
        (self.lose, self.late) = (0.0, 0.0);
        for process in &mut self.processes {
            process.paused_until_ms = process.paused_until_ms.min(self.now_ms);
            process.cut_until_ms = process.cut_until_ms.min(self.now_ms);
        }
    }

    fn redis_us(&mut self) -> u64 {
        self.scripts += 1;
        let now_ms = (START_MS + self.now_ms).saturating_add_signed(self.clock_ms);
        now_ms * 1_000 + self.scripts
    }

    fn lacks(&self, rule: Without) -> bool {
        self.without == Some(rule)
    }

    /// A process comes up under this name.
    fn launch(&mut self, name: &str) {
        if self.processes.len() == PROCESSES_MAX {
            return;
        }
        let node = NodeId::new(name).expect("a valid name");
        let me = Owner {
            node: node.clone(),
            incarnation: 0,
        };
        let view = View {
            nodes: vec![NodeInfo {
                owner: me.clone(),
                lease_left: LEASE,
                details: NodeDetails::default(),
            }],
            ring: ring(&[node]),
            fresh: true,
            time_us: 0,
            until: None,
            me,
        };
        let mut course = Course::new(view, LEASE);
        course.deal = |names, _| ring(names);
        self.processes.push(Process {
            holder: self.rng.random(),
            course,
            is_dead: false,
            paused_until_ms: 0,
            cut_until_ms: 0,
            waits: None,
            sent: 0,
            next_beat_ms: self.now_ms,
            answered_at_ms: None,
            reaches_ms: [self.now_ms; 2],
        });
    }

    fn misfortune(&mut self, met: &mut Met) {
        let at = self.rng.random_range(0..self.processes.len());
        let for_ms = self.rng.random_range(0..12_000);
        let until_ms = self.now_ms + for_ms;
        match self.rng.random_range(0..10) {
            0..2 => {
                self.kill(at);
                met.kills += 1;
            }
            // Beside one that lives, or in the place of a dead one.
            2..5 => {
                let name = self.processes[at].name().clone();
                met.twins += u64::from(self.processes[at].is_running());
                self.launch(name.as_str());
            }
            5..7 => {
                self.processes[at].paused_until_ms = until_ms;
                met.pauses += 1;
            }
            7 => {
                let everybody = self.rng.random_bool(0.3);
                for (other, process) in self.processes.iter_mut().enumerate() {
                    if other == at || everybody {
                        process.cut_until_ms = until_ms;
                    }
                }
                met.cuts += 1;
            }
            8 if self.forgets => {
                self.leases.forget_everything();
                met.losses += 1;
            }
            8 => {
                let by_ms = self.rng.random_range(1..=CLOCK_STEP_MAX_MS / 2);
                let by_ms = by_ms.cast_signed();
                self.clock_ms = if self.clock_ms > 0 { -by_ms } else { by_ms };
                met.steps_back += u64::from(self.clock_ms < 0);
            }
            _ if self.processes[at].acts(self.now_ms) => {
                self.leave(at);
                met.leaves += 1;
            }
            _ => {}
        }
    }

    fn kill(&mut self, at: usize) {
        self.processes[at].is_dead = true;
        self.wire.retain(|w| w.process != at);
    }

    /// In order: the lease is given back, and the process ends whether Redis answers or not.
    fn leave(&mut self, at: usize) {
        let now_us = self.redis_us();
        let is_lost = self.rng.random_bool(self.lose);
        let process = &mut self.processes[at];
        let is_cut = process.cut_until_ms > self.now_ms;
        if !is_lost && !is_cut {
            let node = process.name().clone();
            self.leases.leave(&node, process.holder, now_us);
        }
        process.course.standing = Standing::Left;
        self.wire.retain(|w| w.process != at);
    }

    fn step(&mut self, met: &mut Met) -> Verdict {
        self.now_ms += STEP_MS;
        self.deliver(met)?;
        for at in 0..self.processes.len() {
            if self.processes[at].acts(self.now_ms) {
                self.act(at, met)?;
            }
        }
        Ok(())
    }

    /// What a process does by itself: gives up a heartbeat, sends one.
    fn act(&mut self, at: usize, met: &mut Met) -> Verdict {
        let now = self.start + Duration::from_millis(self.now_ms);
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
            let lease_ms = u64::try_from(LEASE.as_millis()).expect("short");
            let is_old = |at: u64| at + lease_ms <= self.now_ms;
            let is_stale = process.answered_at_ms.is_none_or(is_old);
            met.stale += u64::from(is_stale);
            if is_stale && process.course.view.fresh {
                let who = &process.course.view.me;
                return Err(format!("the view of {who} is fresh after {}", self.now_ms));
            }
        }
        if process.waits.is_none() && process.next_beat_ms <= self.now_ms {
            self.send(at, met);
        }
        Ok(())
    }

    fn send(&mut self, at: usize, met: &mut Met) {
        let process = &mut self.processes[at];
        process.sent += 1;
        process.waits = Some((process.sent, self.now_ms));
        process.next_beat_ms = self.now_ms + BEAT_MS;
        let beat = Heartbeat {
            node: process.name().clone(),
            holder: process.holder,
            mine: process.course.standing.incarnation(),
        };
        let number = process.sent;
        self.carry(at, number, What::Question(beat), met);
    }

    /// Takes something to the other side: in its order, late, or never.
    fn carry(&mut self, process: usize, number: u64, what: What, met: &mut Met) {
        let is_cut = self.processes[process].cut_until_ms > self.now_ms;
        if is_cut || self.rng.random_bool(self.lose) {
            met.lost_messages += 1;
            return;
        }
        let late_ms = match self.rng.random_bool(self.late) {
            true => self.rng.random_range(0..4_000),
            false => self.rng.random_range(0..STEP_MS),
        };
        let way = usize::from(matches!(what, What::Answer(_)));
        let reaches_ms = &mut self.processes[process].reaches_ms[way];
        *reaches_ms = (*reaches_ms).max(self.now_ms + late_ms);
        self.wire.push(OnWire {
            at_ms: *reaches_ms,
            process,
            number,
            what,
        });
    }

    /// Lets everything arrive whose time has come, in any order that keeps that of each process.
    fn deliver(&mut self, met: &mut Met) -> Verdict {
        let now_ms = self.now_ms;
        let is_due = |process: &Process, wire: &OnWire| match wire.what {
            // What waits for a paused process waits in its socket.
            What::Answer(_) => wire.at_ms <= now_ms && process.paused_until_ms <= now_ms,
            What::Question(_) => wire.at_ms <= now_ms,
        };
        let mut at = 0;
        while at < self.wire.len() {
            if !is_due(&self.processes[self.wire[at].process], &self.wire[at]) {
                at += 1;
                continue;
            }
            let OnWire {
                process,
                number,
                what,
                ..
            } = self.wire.remove(at);
            match what {
                What::Question(beat) => {
                    let now_us = self.redis_us();
                    let answer = self.leases.heartbeat(&beat, now_us, LEASE);
                    self.checker.beat(&beat, &answer)?;
                    self.carry(process, number, What::Answer(answer), met);
                }
                What::Answer(answer) => self.answered(process, number, answer, met)?,
            }
        }
        Ok(())
    }

    fn answered(&mut self, at: usize, number: u64, beat: Beat, met: &mut Met) -> Verdict {
        let keeps_ring = self.lacks(Without::Dealing);
        let process = &mut self.processes[at];
        // One that was given up is answered to nobody.
        let Some((_, sent_ms)) = process.waits.filter(|w| w.0 == number) else {
            return Ok(());
        };
        process.waits = None;
        process.answered_at_ms = Some(sent_ms);
        let before = Arc::clone(&process.course.view);
        let sent_at = self.start + Duration::from_millis(sent_ms);
        process.course.answered(Answer::Beat(beat), sent_at);
        let course = &mut process.course;
        if keeps_ring {
            course.view = Arc::new(View {
                ring: Arc::clone(&before.ring),
                ..View::clone(&course.view)
            });
        }
        let is_new = course.view.me != before.me && before.me.incarnation > 0;
        met.ended_leases += u64::from(is_new);
        met.superseded += u64::from(process.was_superseded());
        self.checker
            .answered(&self.processes[at], &before, &self.leases)
    }
}
