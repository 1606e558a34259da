//! Leases of nodes and of partitions, incarnations, standing and ring, with nodes that are killed,
//! restarted, paused, cut off and named twice, and a Redis that is away, forgets, or turns its clock
//! back: thousands of seeds.
//!
//! In: a seed. Out: nothing, or the first promise that was broken. [`world`] moves the processes
//! ([`process`]), each with the real [`super::standing::Course`] and [`super::tenure::Tenure`], by
//! which it leads its partitions in [`duties`]; [`wire`] has what is on its way between them and
//! Redis. [`leases`] and [`tokens`] answer as the scripts do; [`checker`] knows who was ever whom,
//! [`fencing`] who was ever given which partition; [`met`] counts how bad the weather was.

mod checker;
mod duties;
mod fencing;
mod leases;
mod met;
mod process;
mod tokens;
mod wire;
mod world;

use crate::seeds;
use met::Met;
use tokens::Rule;
use world::World;

/// A rule that is taken out: of the scripts, or of what a node makes of their answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Without {
    /// Two processes of one name are told apart.
    Holders,
    /// A process says whether it had the name before.
    Membership,
    /// Only a later life takes the name from one that has it.
    Comparison,
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
    /// A rule of the scripts that know partitions.
    Script(Rule),
    /// A node without a lease of its own asks for no partition.
    Members,
    /// What an earlier life held is not held by the next.
    Lives,
    /// A partition that has another home is given back.
    GivingBack,
    /// It is given up before it is given back.
    GivingUp,
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
        Without::Holders,
        Without::Membership,
        Without::Comparison,
        Without::NewIncarnations,
        Without::Rising,
        Without::Ends,
        Without::Over,
        Without::Staleness,
        Without::Dealing,
    ];
    let of_partitions = [
        Without::Members,
        Without::Lives,
        Without::GivingBack,
        Without::GivingUp,
        Without::TellingAtOnce,
        Without::OwnEnds,
        Without::CountingFromBefore,
    ];
    let of_scripts = Rule::ALL.map(Without::Script);
    for without in [&of_nodes[..], &of_partitions, &of_scripts].concat() {
        let failed = seeds::first_failure(|seed| run(seed, Some(without), &mut Met::default()));
        assert!(failed.is_some(), "{without:?} is not missed");
    }
}
