//! The scenarios: each its flags, what it does, and what it reports.
//!
//! In: a [`Bench`] that is ready. Out: a [`Report`]. One file per scenario; `fanout` and `latency`
//! are one load with different defaults.

pub mod connect;
pub mod fanout;
pub mod idle;
pub mod inbox;
pub mod mixed;
pub mod queue;
pub mod slow;
pub mod soak;
pub mod storm;

use super::bench::Bench;
use super::error::BenchError;
use super::options::Flags;
use super::report::Report;

/// Which load to run.
#[derive(Debug, clap::Subcommand)]
pub enum Scenario {
    /// Open sessions: how fast, and at what cost
    Connect(connect::ConnectArgs),
    /// Hold sessions that receive nothing: memory and CPU
    Idle(idle::IdleArgs),
    /// One topic, many sessions, as fast as publishers are answered
    Fanout(fanout::FanoutArgs),
    /// One topic at a steady pace: how long from publishing to receiving
    Latency(fanout::LatencyArgs),
    /// Many users, messages to their inboxes
    Inbox(inbox::InboxArgs),
    /// Lists for the durable queue: how fast, at what cost, and who waits for how long
    Queue(queue::QueueArgs),
    /// Subscribe, publish, acknowledge and receive at once, each timed
    Mixed(mixed::MixedArgs),
    /// One reader stalls: what the others notice, and what it gets afterwards
    Slow(slow::SlowArgs),
    /// Everybody is cut off and comes back at once with a position
    Storm(storm::StormArgs),
    /// A constant load for a long time: does memory grow?
    Soak(soak::SoakArgs),
}

impl Scenario {
    /// The flags that it shares with others.
    #[must_use]
    pub fn flags(&self) -> Flags<'_> {
        match self {
            Self::Connect(args) => args.shared.flags(),
            Self::Idle(args) => args.shared.flags(),
            Self::Fanout(args) => args.shared.flags(),
            Self::Latency(args) => args.shared.flags(),
            Self::Inbox(args) => args.shared.flags(),
            Self::Queue(args) => args.shared.flags(),
            Self::Mixed(args) => args.shared.flags(),
            Self::Slow(args) => args.shared.flags(),
            Self::Storm(args) => args.shared.flags(),
            Self::Soak(args) => args.shared.flags(),
        }
    }

    /// How many sockets will be open.
    #[must_use]
    pub fn sessions(&self) -> usize {
        match self {
            Self::Connect(args) => args.sessions,
            Self::Idle(args) => args.sessions,
            Self::Fanout(args) => args.sessions,
            Self::Latency(args) => args.sessions,
            Self::Inbox(args) => args.sessions,
            Self::Queue(args) => args.sessions,
            Self::Mixed(args) => args.sessions + 2 * args.actors,
            Self::Slow(args) => args.sessions + 1,
            Self::Storm(args) => args.sessions,
            Self::Soak(args) => args.sessions,
        }
    }

    /// Runs it.
    ///
    /// # Errors
    /// [`BenchError`] when it could not be run to its end.
    pub async fn run(&self, bench: Bench) -> Result<Report, BenchError> {
        match self {
            Self::Connect(args) => connect::run(args, bench).await,
            Self::Idle(args) => idle::run(args, bench).await,
            Self::Fanout(args) => fanout::run("fanout", &args.shape(), bench).await,
            Self::Latency(args) => fanout::run("latency", &args.shape(), bench).await,
            Self::Inbox(args) => inbox::run(args, bench).await,
            Self::Queue(args) => queue::run(args, bench).await,
            Self::Mixed(args) => mixed::run(args, bench).await,
            Self::Slow(args) => slow::run(args, bench).await,
            Self::Storm(args) => storm::run(args, bench).await,
            Self::Soak(args) => soak::run(args, bench).await,
        }
    }
}
