//! The command line of the harness.
//!
//! In: arguments, those of `cargo test` included, which come to every test binary. Out: what is to
//! be run. Outside of [`Options`] nothing knows about arguments.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};

use super::checker::Wrong;
use super::kind::Kind;
use super::redis_form::Form;
use super::run::Sabotage;

/// Breaks a cluster of real nodes on purpose and checks that nothing was lost, doubled, reordered,
/// invented, misled or left untold.
#[derive(Debug, Clone, Parser)]
#[allow(
    dead_code,
    reason = "some arguments of cargo test are taken and change nothing"
)]
#[command(
    name = "torture",
    after_help = "\
Examples:
  cargo test --test torture
  cargo test --test torture -- --seconds 600 --redis cluster --clients 200 --rate 300 --seed 7
  FANFARE_TEST_REDIS=./valkey-server cargo test --test torture -- --seconds 120 --redis single
  cargo test --test torture -- --seconds 20 --redis single --fault redis-kill,node-kill
  cargo test --test torture -- --seconds 10 --redis single --sabotage drop
  cargo test --test torture -- --seconds 20 --redis single --control lossy-failover

Progress goes to stderr, the figure to stdout. Exit code 1: a violation, or a control that was not
found. The history of a failed run is kept (--keep). docs/reliability.md says what is promised and
how to read the figure."
)]
pub(crate) struct Options {
    /// How long windows of faults go on, over all forms together
    #[arg(long, default_value_t = 40)]
    pub(crate) seconds: u64,
    /// Forms of Redis, one run for each [default: single,sentinel]
    #[arg(long, value_delimiter = ',')]
    redis: Vec<Form>,
    /// Nodes
    #[arg(long, default_value_t = 3)]
    pub(crate) nodes: usize,
    /// WebSocket clients that read
    #[arg(long, default_value_t = 60)]
    pub(crate) clients: u32,
    /// Publications a second, one half by WebSocket, one by HTTP (some of those to two targets)
    #[arg(long, default_value_t = 200)]
    pub(crate) rate: u32,
    /// Entries a second for the durable queue, three of four by HTTP in lists, the others by XADD;
    /// 0: none
    #[arg(long, default_value_t = 60)]
    pub(crate) queue_rate: u32,
    /// Decides the order of faults, their places and lengths
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Replicas that must have a publication before it is answered (WAIT)
    #[arg(long, default_value_t = 0)]
    pub(crate) replicas_min: u32,
    /// Members: sessions of a hundred topics each, in pairs, who must never be told as gone
    #[arg(long, default_value_t = 400)]
    pub(crate) members: u32,
    /// Replicas whose clocks are so many seconds behind the first master's (sentinel only)
    #[arg(long, default_value_t = 0)]
    pub(crate) clocks_behind: u32,
    /// So many of a hundred publications outside of windows must be answered within a second, on a
    /// machine that does nothing else
    #[arg(long, default_value_t = 0.0)]
    pub(crate) answered: f64,
    /// Only these kinds of fault [default: all that the form has]
    #[arg(long = "fault", value_delimiter = ',', value_parser = kind)]
    faults: Vec<Kind>,
    /// Falsify what clients receive; the checker must find it
    #[arg(long)]
    pub(crate) sabotage: Option<Sabotage>,
    /// Break a rule that the product stands on; the checker must find it (one Redis only)
    #[arg(long, conflicts_with = "sabotage")]
    pub(crate) control: Option<Control>,
    /// Where the history and the nodes' logs of a failed run are kept
    #[arg(long, default_value = "target/torture")]
    pub(crate) keep: PathBuf,
    /// What cargo test passes to every binary: run only tests whose name contains this
    #[arg(hide = true)]
    filter: Vec<String>,
    #[arg(long, hide = true)]
    ignored: bool,
    #[arg(long, hide = true)]
    list: bool,
    #[arg(long, hide = true)]
    include_ignored: bool,
    #[arg(long, hide = true)]
    exact: bool,
    #[arg(long, hide = true)]
    nocapture: bool,
    #[arg(long, short, hide = true)]
    quiet: bool,
    #[arg(long, hide = true)]
    test_threads: Option<usize>,
}

/// A rule that is taken out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Control {
    /// A replica that is behind takes over without WAIT
    LossyFailover,
    /// One node's holes are hidden from it, as if it did not repair
    RepairOff,
    /// One node's feed goes deaf and its probes are answered, as if it did not probe
    ProbeOff,
    /// Somebody publishes entries of the queue and leaves them in it, as a move without a claim
    QueueNoClaim,
    /// Somebody takes entries out of the queue and dies before they are published
    QueueTwoCalls,
    /// Somebody publishes in one app what is of another, as if apps were told apart by nobody
    AppsMixed,
}

impl Control {
    /// What must be found, any of these; nothing where losses that are told are the finding.
    pub(crate) fn expected(self) -> &'static [Wrong] {
        match self {
            Self::LossyFailover => &[],
            Self::RepairOff => &[Wrong::SilentGap, Wrong::Lost],
            Self::ProbeOff => &[Wrong::Deaf],
            Self::QueueNoClaim => &[Wrong::QueueDoubled],
            Self::QueueTwoCalls => &[Wrong::QueueLost],
            Self::AppsMixed => &[Wrong::BetweenApps],
        }
    }
}

impl Options {
    /// Whether `cargo test` asks for this test at all.
    pub(crate) fn is_asked_for(&self) -> bool {
        let fits = |filter: &String| {
            if self.exact {
                filter == "torture"
            } else {
                "torture".contains(filter.as_str())
            }
        };
        !self.ignored && !self.list && (self.filter.is_empty() || self.filter.iter().any(fits))
    }

    /// The forms, in the order of the runs.
    pub(crate) fn forms(&self) -> Vec<Form> {
        match (&self.redis[..], self.control) {
            ([], None) => vec![Form::Single, Form::Sentinel],
            (_, Some(_)) => vec![Form::Single],
            (forms, _) => forms.to_vec(),
        }
    }

    /// Whether anything is handed to the queue: not where another control is at work, which leads
    /// nodes to another Redis than writers of their own.
    pub(crate) fn has_queue(&self) -> bool {
        let is_of_queue = |control| {
            matches!(
                control,
                Control::QueueNoClaim | Control::QueueTwoCalls | Control::AppsMixed
            )
        };
        self.queue_rate > 0 && self.control.is_none_or(is_of_queue)
    }

    /// The kinds of fault to choose from.
    pub(crate) fn kinds(&self) -> &[Kind] {
        match (&self.faults[..], self.control) {
            (_, Some(_)) => &[],
            ([], None) => &Kind::ALL,
            (kinds, None) => kinds,
        }
    }
}

fn kind(word: &str) -> Result<Kind, String> {
    let found = Kind::ALL.into_iter().find(|kind| kind.word() == word);
    found.ok_or_else(|| {
        let words: Vec<_> = Kind::ALL.into_iter().map(Kind::word).collect();
        format!("no such fault; there are {}", words.join(", "))
    })
}
