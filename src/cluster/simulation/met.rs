//! How often the simulation met what: good weather proves nothing.
//!
//! In: what happened in each run. Out: names and counts. Owner: the test, over all seeds.

macro_rules! met {
    ($($name:ident: $what:literal,)*) => {
        /// See the module.
        #[derive(Debug, Default)]
        pub(super) struct Met {
            $(pub(super) $name: u64,)*
        }

        impl Met {
            pub(super) fn counts(&self) -> Vec<(&'static str, u64)> {
                vec![$(($what, self.$name),)*]
            }
        }
    };
}

met! {
    kills: "a kill",
    twins: "a second process of a name",
    superseded: "a process that gave up its name",
    pauses: "a pause",
    cuts: "a cut",
    losses: "a Redis that forgot all",
    failovers: "a Redis that lost the last leases",
    steps_back: "a clock that stepped back",
    steps_forward: "a clock that stepped forward",
    outages: "an outage of Redis",
    long_outages: "an outage of Redis that was longer than a lease",
    read_only: "a Redis that took no writes",
    refused_beats: "a heartbeat that was refused",
    refreshed: "a stale view that a refusal showed to be fresh",
    leaves: "a lease given back",
    ended_leases: "a new life after a lease had ended",
    changes_only: "an answer that told only what had changed",
    old_beats: "a heartbeat by the script of the release before",
    lost_messages: "a lost message",
    given_up: "a heartbeat that was given up",
    stale: "a view that grew stale",
    handed_over: "a partition that went to another node",
    given_back: "a partition that was given back",
    refused_back: "a partition that was given back by an old token",
    taken_away: "a partition that was heard to be another's by who held it",
    ended: "a partition whose lease ended in its holder's eyes",
    rounds_given_up: "a round of partitions that was not answered in time",
    doubled: "a command or answer that came twice",
    overtaken: "a command or answer that was overtaken",
    admitted: "an act by the token of the lease",
    refused: "an act by an old token",
    judged: "an act while nothing had disturbed clocks, memory and order",
    last_changes: "a change in calm weather",
}
