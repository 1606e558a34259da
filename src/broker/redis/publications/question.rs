//! What the link for publications asks for itself.
//!
//! In: the scripts of a master, and when a probe is sent. Out: commands. Pure.

use crate::broker::redis::link::Shared;
use crate::redis::wire::command::Arguments;

/// A question; its answer is judged in `publications.rs`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Question {
    /// ROLE: is it a master?
    Role,
    /// SCRIPT LOAD of a script.
    Load,
    /// What the feed must hear, through the gate that publications pass.
    Probe,
    /// The same past the gate.
    Past,
    /// CLUSTER INFO: does the cluster serve its slots?
    Whole,
}

impl Question {
    /// How many arguments it has.
    #[must_use]
    pub(super) fn count(self) -> usize {
        match self {
            Self::Role => 1,
            Self::Whole => 2,
            Self::Load | Self::Past => 3,
            Self::Probe => 5,
        }
    }

    /// Writes them; the script that is loaded is that of probes.
    pub(super) fn write(self, command: &mut Arguments<'_>, shared: &Shared) {
        let probe = &shared.scripts.probe;
        let channel = shared.probe_channel();
        let (channel, stamp) = (channel.as_bytes(), shared.probes.stamp());
        match self {
            Self::Role => command.bytes(b"ROLE"),
            Self::Whole => command.bytes(b"CLUSTER").bytes(b"INFO"),
            Self::Load => {
                let load = command.bytes(b"SCRIPT").bytes(b"LOAD");
                load.bytes(probe.source().as_bytes())
            }
            Self::Past => {
                let spread: &[u8] = match shared.owned {
                    Some(_) => b"SPUBLISH",
                    None => b"PUBLISH",
                };
                command.bytes(spread).bytes(channel).number(stamp)
            }
            Self::Probe => {
                let run = command.bytes(b"EVALSHA").bytes(probe.sha().as_bytes());
                run.number(0).bytes(channel).number(stamp)
            }
        };
    }
}
