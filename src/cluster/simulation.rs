//! Leases, incarnations, standing and ring, with nodes that are killed, restarted, paused, cut off
//! and named twice, and a Redis that is away, forgets, or turns its clock back: thousands of seeds.
//!
//! In: a seed. Out: nothing, or the first promise that was broken. [`world`] moves the processes,
//! each with the real [`super::standing::Course`], and what is on its way between them and Redis;
//! [`leases`] answers as the two scripts do; [`checker`] knows who was ever whom. What a process
//! does with its standing beyond heartbeats (leases of partitions, say) has its place in
//! `World::answered`, and its promises in the checker.

mod checker;
mod leases;
mod world;

use crate::seeds;
use world::{Met, World};

/// A rule that is taken out: of the scripts, or of what a node makes of their answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Without {
    /// Two processes of one name are told apart.
    Holders,
    /// A process says whether it had the name before.
    Membership,
    /// Whose lease has ended takes a new incarnation.
    NewIncarnations,
    /// An incarnation is above the one before also when the clock stepped back.
    Rising,
    /// Only nodes whose lease has not ended are shown.
    Ends,
    /// A lease that was seen to end is over, also when the clock steps back.
    Over,
    /// A view that Redis has not confirmed for a lease is stale.
    Staleness,
    /// The ring is dealt anew when names came or went.
    Dealing,
}

fn run(seed: u64, without: Option<Without>, met: &mut Met) -> seeds::Verdict {
    World::new(seed, without).run(met)
}

#[test]
fn one_process_holds_a_name_and_all_agree_about_the_ring_once_they_see_the_same() {
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
    for without in [
        Without::Holders,
        Without::Membership,
        Without::NewIncarnations,
        Without::Rising,
        Without::Ends,
        Without::Over,
        Without::Staleness,
        Without::Dealing,
    ] {
        let failed = seeds::first_failure(|seed| run(seed, Some(without), &mut Met::default()));
        assert!(failed.is_some(), "{without:?} is not missed");
    }
}
