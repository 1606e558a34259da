//! Leases of nodes and of partitions, incarnations, standing and ring, with nodes that are killed,
//! restarted, paused, cut off and named twice, and a Redis that is away for up to 40 leases, takes no
//! writes, forgets, or steps its clock: thousands of seeds.
//!
//! In: a seed. Out: nothing, or the first promise that was broken. [`weather`] says what happens to
//! whom, and what must hold in each kind of it. [`world`] moves the processes
//! ([`process`]), each with the real [`super::membership_machine::MembershipMachine`] and [`super::partition_leases::PartitionLeases`], by
//! which it leads its partitions in [`duties`]; [`wire`] has what is on its way between them and
//! Redis. [`leases`] and [`tokens`] answer as the scripts do; [`checker`] knows who was ever whom,
//! [`fencing`] who was ever given which partition; [`met`] counts how bad the weather was.

mod checker;
mod duties;
mod fencing;
mod leases;
mod met;
mod process;
mod refusals;
mod tokens;
mod weather;
mod wire;
mod world;

use crate::seeds;
use met::Met;
use world::World;

/// A rule that is taken out: of the scripts, or of what a node makes of their answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Without {
    /// A rule of the scripts that know nodes.
    Lease(leases::Rule),
    /// A view that Redis has not confirmed for a lease is stale.
    Staleness,
    /// Where Redis takes no writes, a view is fresh only for the rest of the lease while others were
    /// answered a moment ago.
    RestsOfLeases,
    /// It is fresh for a whole lease where nobody was answered for long.
    LeasesAfterOutages,
    /// Only the lease of the process itself counts.
    OwnLeases,
    /// The ring is dealt anew when names came or went.
    Dealing,
    /// A rule of the scripts that know partitions.
    Token(tokens::Rule),
    /// A node without a lease of its own asks for no partition.
    Members,
    /// What an earlier life held is not held by the next.
    Lives,
    /// A partition that has another home is given back.
    GivingBack,
    /// It is given up before it is given back.
    GivingUp,
    /// What is held is extended before it ends.
    Extending,
    /// A process that has lost a partition, by an answer or with its life, tells those who act for it
    /// at once.
    TellingAtOnce,
    /// A lease of a partition ends in its holder's eyes, whatever Redis says.
    OwnEnds,
    /// It is counted from before the question.
    CountingFromBefore,
}

fn run(seed: u64, without: Option<Without>, met: &mut Met) -> seeds::Verdict {
    World::new(seed, without).run(met)
}

#[test]
fn one_process_holds_a_name_and_a_partition_and_all_agree_about_the_ring() {
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
    let of_nodes = [
        Without::Staleness,
        Without::RestsOfLeases,
        Without::LeasesAfterOutages,
        Without::OwnLeases,
        Without::Dealing,
    ];
    let of_partitions = [
        Without::Members,
        Without::Lives,
        Without::GivingBack,
        Without::GivingUp,
        Without::Extending,
        Without::TellingAtOnce,
        Without::OwnEnds,
        Without::CountingFromBefore,
    ];
    let of_leases = leases::Rule::ALL.map(Without::Lease);
    let of_tokens = tokens::Rule::ALL.map(Without::Token);
    for without in [&of_nodes[..], &of_partitions, &of_leases, &of_tokens].concat() {
        let failed = seeds::first_failure(|seed| run(seed, Some(without), &mut Met::default()));
        let (seed, what) = failed.unwrap_or_else(|| panic!("{without:?} is not missed"));
        println!("without {without:?}, seed {seed}: {what}");
    }
}
