//! What happens to processes and to Redis while it storms.
//!
//! In: the dice of a run, and its kind. Out: misfortunes, done to the world. In *gentle* runs only
//! Redis suffers, and processes die, come and leave in order: there nobody who lives may lose a
//! lease. In *stepping* runs also processes are paused, cut off and named twice; in *forgetful* ones
//! Redis loses in addition what it was told last, or everything. In all of them it is away, also
//! with a time behind it, or without, in which it takes no writes. Its clock steps in all of them, by
//! up to a minute to either side: in forgetful ones with a failover only. Bound: one long outage a
//! run.

use rand::RngExt as _;
use rand::seq::IndexedRandom as _;

use super::met::Met;
use super::process::LEASE;
use super::world::{BEAT_MS, NAMES, PROCESSES_MAX, World};

/// Furthest that the clock of Redis is from the true time.
const CLOCK_OFF_MAX_MS: i64 = 60_000;
/// Redis is away for so many tenths of a lease.
const OUTAGE_TENTHS: std::ops::RangeInclusive<u64> = 5..=400;
/// The most of them after the first long outage.
const NEXT_OUTAGE_TENTHS_MAX: u64 = 20;
/// When Redis was killed, some take longer than others to find it again.
const BACK_WITHIN_MS: u64 = 3_500;
/// It takes no writes for so many.
const READ_ONLY_TENTHS: std::ops::RangeInclusive<u64> = 1..=40;
pub(super) const LEASE_MS: u64 = LEASE.as_millis() as u64;

/// The kind of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Weather {
    Gentle,
    Stepping,
    Forgetful,
}

/// How Redis fares.
#[derive(Debug, Default)]
pub(super) struct Sky {
    /// It answers nobody until then.
    pub(super) away_until_ms: u64,
    /// What is sent to it meanwhile waits, and is not lost.
    pub(super) is_stopped: bool,
    /// It answers and takes no writes until then, where it is not away.
    pub(super) read_only_until_ms: u64,
    /// Nothing else happens to it before.
    steady_from_ms: u64,
    was_long: bool,
}

impl Sky {
    pub(super) fn is_away(&self, now_ms: u64) -> bool {
        self.away_until_ms > now_ms
    }

    pub(super) fn takes_writes(&self, now_ms: u64) -> bool {
        self.away_until_ms.max(self.read_only_until_ms) <= now_ms
    }
}

impl World {
    pub(super) fn misfortune(&mut self, met: &mut Met) {
        if self.weather == Weather::Gentle {
            return self.gentle_misfortune(met);
        }
        let at = self.rng.random_range(0..self.processes.len());
        let until_ms = self.now_ms + self.rng.random_range(0..12_000);
        match self.rng.random_range(0..10) {
            0..2 => self.kill_one(at, met),
            // Beside one that lives, or in the place of a dead one.
            2..5 if self.processes.len() < PROCESSES_MAX => {
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
            8 => self.redis_suffers(met),
            9 if self.processes[at].acts(self.now_ms) => {
                self.leave(at, met);
                met.leaves += 1;
            }
            _ => {}
        }
    }

    /// Nothing that could cost a living process its lease.
    fn gentle_misfortune(&mut self, met: &mut Met) {
        let at = self.rng.random_range(0..self.processes.len());
        match self.rng.random_range(0..10) {
            0..2 => self.kill_one(at, met),
            2..4 if self.processes.len() < PROCESSES_MAX => {
                let name = *NAMES.choose(&mut self.rng).expect("some");
                let running = self.processes.iter().filter(|p| p.is_running());
                let running: Vec<_> = running.map(|p| p.name().as_str()).collect();
                // One is left for the last change.
                if !running.contains(&name) && running.len() < NAMES.len() - 1 {
                    self.launch(name);
                }
            }
            4 if self.processes[at].acts(self.now_ms) => {
                self.leave(at, met);
                met.leaves += 1;
            }
            5.. if self.sky.steady_from_ms <= self.now_ms => self.redis_suffers(met),
            _ => {}
        }
    }

    fn kill_one(&mut self, at: usize, met: &mut Met) {
        self.kill(at);
        met.kills += 1;
    }

    fn redis_suffers(&mut self, met: &mut Met) {
        match (self.weather, self.rng.random_range(0..5)) {
            (Weather::Forgetful, 0) => {
                self.is_undisturbed = false;
                self.forget_everything();
                met.losses += 1;
            }
            (Weather::Forgetful, 1..=2) => {
                self.is_undisturbed = false;
                self.fall_back();
                self.step_clock(met);
                met.failovers += 1;
            }
            (Weather::Gentle, 0) => {
                // To a server that has everything, and another clock.
                let away_ms = self.outage(met);
                self.step_clock_beyond(away_ms, met);
                met.failovers += 1;
            }
            (Weather::Gentle, 1) | (Weather::Stepping, 0..=1) => {
                self.step_clock(met);
                self.sky.steady_from_ms = self.now_ms + 3 * BEAT_MS;
            }
            (_, 3) => self.read_only(self.now_ms, met),
            _ => {
                let away_ms = self.outage(met);
                if self.rng.random_bool(0.5) {
                    self.read_only(self.now_ms + away_ms, met);
                }
            }
        }
    }

    /// Redis takes no writes for some time from then on.
    fn read_only(&mut self, from_ms: u64, met: &mut Met) {
        let for_ms = self.tenths(READ_ONLY_TENTHS) * LEASE_MS / 10;
        let until_ms = from_ms + for_ms;
        self.sky.read_only_until_ms = self.sky.read_only_until_ms.max(until_ms);
        self.sky.steady_from_ms = until_ms + LEASE_MS;
        self.storm_ms += for_ms;
        met.read_only += 1;
    }

    /// As likely one to two of these as ten to twenty.
    fn tenths(&mut self, among: std::ops::RangeInclusive<u64>) -> u64 {
        let (least, most) = among.into_inner();
        let (low, high) = ((least as f64).ln(), (most as f64).ln());
        self.rng.random_range(low..=high).exp().ceil() as u64
    }

    /// Redis is stopped or killed; returns for how long.
    fn outage(&mut self, met: &mut Met) -> u64 {
        let (least, most) = OUTAGE_TENTHS.into_inner();
        let most = if self.sky.was_long {
            NEXT_OUTAGE_TENTHS_MAX
        } else {
            most
        };
        let tenths = self.tenths(least..=most);
        self.sky.was_long |= tenths > NEXT_OUTAGE_TENTHS_MAX;
        let for_ms = tenths * LEASE_MS / 10;
        let until_ms = self.now_ms + for_ms;
        self.sky.away_until_ms = self.sky.away_until_ms.max(until_ms);
        self.sky.is_stopped = self.rng.random_bool(0.5);
        self.sky.steady_from_ms = until_ms + LEASE_MS;
        self.storm_ms += for_ms;
        if !self.sky.is_stopped {
            for process in &mut self.processes {
                let back_ms = until_ms + self.rng.random_range(0..BACK_WITHIN_MS);
                process.cut_until_ms = process.cut_until_ms.max(back_ms);
            }
        }
        met.outages += 1;
        met.long_outages += u64::from(for_ms > LEASE_MS);
        for_ms
    }

    fn step_clock(&mut self, met: &mut Met) {
        let to_ms = self.rng.random_range(-CLOCK_OFF_MAX_MS..=CLOCK_OFF_MAX_MS);
        met.steps_back += u64::from(to_ms < self.clock_ms);
        met.steps_forward += u64::from(to_ms > self.clock_ms);
        self.clock_ms = to_ms;
        self.is_undisturbed = false;
        self.is_steady = false;
    }

    /// The clock of another server, by which it can be seen that Redis was away: an outage and a step
    /// back of the same length look as if nothing had happened.
    fn step_clock_beyond(&mut self, away_ms: u64, met: &mut Met) {
        let before_ms = self.clock_ms;
        let seen_ms = |clock_ms: i64| (clock_ms - before_ms).saturating_add_unsigned(away_ms);
        let doubt_ms = LEASE_MS / 2 + 2 * BEAT_MS;
        loop {
            self.step_clock(met);
            if seen_ms(self.clock_ms).unsigned_abs() > doubt_ms {
                return;
            }
        }
    }
}
