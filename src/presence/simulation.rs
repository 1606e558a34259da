//! Memberships against masters that fail over, forget, and carry out commands late or twice, on a
//! node whose lives end: thousands of seeds.
//!
//! In: a seed. Out: nothing, or the first promise that was broken: when all is quiet each master
//! has exactly the sessions that are in, once each and under the present life, and nothing is
//! remembered of the others; whoever stayed was never told as left by a reaper; and no entry ever
//! stands where a reaper would not look. [`world`] moves the real [`super::memberships`] and plays
//! sessions, wire and reaper; [`server`] answers as the scripts do.

mod server;
mod world;

use crate::seeds;
use world::{Met, World};

/// A rule that is taken out: of the scripts, or of what surrounds the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Without {
    /// An entering that is older than the entry changes nothing.
    EnterComparison,
    /// Of the same entering, an earlier life changes nothing.
    LifeComparison,
    /// A leave removes no later entering.
    LeaveComparison,
    /// Each entering has a generation of its own.
    Generations,
    /// Members are written again under a new life.
    Lives,
    /// Members are written again where the place has lost them.
    WritingAgain,
    /// Leaves are carried out again where the place has lost them.
    LeavingAgain,
    /// Behind an entering without an answer comes a last leave.
    LastLeaves,
    /// A reaper waits until all stands under the new life.
    Report,
    /// What failed is tried again.
    Trying,
}

const ALL: [Without; 10] = [
    Without::EnterComparison,
    Without::LifeComparison,
    Without::LeaveComparison,
    Without::Generations,
    Without::Lives,
    Without::WritingAgain,
    Without::LeavingAgain,
    Without::LastLeaves,
    Without::Report,
    Without::Trying,
];

fn run(seed: u64, without: Option<Without>, met: &mut Met) -> seeds::Verdict {
    World::new(seed, without).run(met)
}

#[test]
fn when_all_is_quiet_exactly_those_who_are_in_are_members() {
    let mut met = Met::default();
    if seeds::each(seeds::COUNT, |seed| run(seed, None, &mut met)) {
        // The weather was bad enough to mean something.
        for (what, count) in met.counts() {
            assert!(count > 2_000, "{what} was met {count} times only: {met:?}");
        }
    }
}

#[test]
fn the_simulation_notices_when_a_rule_is_missing() {
    for without in ALL {
        let failed = seeds::first_failure(|seed| run(seed, Some(without), &mut Met::default()));
        assert!(failed.is_some(), "{without:?} is not missed");
    }
}
