//! The bars of the data plane, each measured in one run beside its floor.
//!
//! `cargo bench --bench fanout -- [SCENARIO…] [--runs 5] [--quick] [--engine ENGINE]
//! [--before BINARY] [--observed] [--json]`
//!
//! In: the release binary, started here on free ports of the loopback, and a `redis-server` from
//! the path. Out: a table for people or JSON on stdout; what is going on, on stderr. The node is
//! pinned to core 0, this program (one thread: publishers and readers) and Redis to core 1. In the
//! same minutes and pinned like the node, a process that only calls `send()` shows where the floor
//! is. A missed bar is told and fails nothing. Everything that was started ends with this program.
//! Bounds: every wait has a deadline; 20,000 open files.

mod bare;
mod crowd;
mod measure;
mod process;
mod publisher;
mod relay;
mod report;
mod scenario;
mod session;
mod stage;
#[path = "../../src/auth/test_keys.rs"]
#[allow(dead_code, reason = "not every key of the tests is needed")]
mod test_keys;

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use fanfare_testkit::collector::Collector;

use report::{Build, Report};
use scenario::{Effort, connect, fan, idle, inbox, lanes, redis, slow, unicast};
use stage::Engine;

/// The bars of the data plane, each in one run beside its floor.
#[derive(Debug, Parser)]
struct Arguments {
    /// What to measure; everything when nothing is named.
    scenarios: Vec<Scenario>,
    /// How often each figure is taken; the median counts. [default: 5, with --before 7, with
    /// --quick 1]
    #[arg(long)]
    runs: Option<usize>,
    /// Another `fanfare`, as of the commit before: measured by turns with this build's, in pairs.
    #[arg(long, value_name = "BINARY")]
    before: Option<PathBuf>,
    /// This build's node sends traces (one of 100), metrics and its log to a collector, and is
    /// measured by turns with one that does not: that of --before, or else of this build. Needs
    /// target/clients/venv, which scripts/test makes.
    #[arg(long)]
    observed: bool,
    /// How long `backlog` is kept up, in seconds.
    #[arg(long, default_value_t = 4)]
    seconds: u64,
    /// Less of everything: to see that it works, not how fast.
    #[arg(long)]
    quick: bool,
    /// Over what; both when not named.
    #[arg(long)]
    engine: Option<Engine>,
    /// JSON instead of the table.
    #[arg(long)]
    json: bool,
    /// What cargo adds.
    #[arg(long, hide = true)]
    bench: bool,
    /// Be the bare loop with so many sockets.
    #[arg(long, hide = true)]
    bare_loop: Option<usize>,
    /// Be the bare relay with so many sockets, for topics of this name, over this Redis.
    #[arg(long, hide = true, requires_all = ["relay_name", "relay_redis"])]
    bare_relay: Option<usize>,
    #[arg(long, hide = true)]
    relay_name: Option<String>,
    #[arg(long, hide = true)]
    relay_redis: Option<SocketAddr>,
}

/// What can be asked for alone.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Scenario {
    /// One publication at a time, 1,000 and 5,000 sessions.
    One,
    /// 40 publications a second, 1,000 sessions.
    Paced,
    /// 8 publishers each waiting for its answer, 1,000 sessions.
    Backlog,
    /// Memory and processor time of sessions that do nothing.
    Idle,
    /// Processor time of a connect.
    Connect,
    /// A stalled reader among 1,000.
    Slow,
    /// Critical against low under the same backlog.
    Lanes,
    /// 10,000 users, one message each.
    Inbox,
    /// One message to one session, 8 publishers.
    Unicast,
    /// What a node without sessions costs itself and Redis.
    Resting,
    /// Memory of Redis for an inbox with one message.
    Stored,
}

fn main() -> std::io::Result<()> {
    let arguments = Arguments::parse();
    if let Some(sockets) = arguments.bare_loop {
        return bare::run(sockets);
    }
    if let (Some(sockets), Some(name), Some(redis)) = (
        arguments.bare_relay,
        &arguments.relay_name,
        arguments.relay_redis,
    ) {
        return relay::run(sockets, name, redis);
    }
    if let Some(before) = arguments.before.as_ref().filter(|path| !path.is_file()) {
        let why = format!("there is no program {}", before.display());
        return Err(std::io::Error::new(std::io::ErrorKind::NotFound, why));
    }
    let files = fanfare::config::machine::file_limit();
    if files < 20_000 {
        eprintln!("only {files} open files are allowed: the larger scenarios will not fit");
    }
    // Before the pinning, which takes all cores but one from sight.
    let machine = process::machine();
    if !process::pin(std::process::id(), process::LOAD_CORE) {
        eprintln!("taskset does not work here: nothing is pinned, the figures mean little");
    }
    let versions = versions(&arguments);
    eprintln!("{machine}\n{versions}");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let mut report = Report::default();
    let measured = async {
        let collector = match arguments.observed {
            true => Some(Collector::start("http", "take").await),
            false => None,
        };
        measure(&mut report, &arguments, collector.as_ref()).await;
        if let Some(collector) = &collector {
            eprintln!("the collector has {}", had(collector));
        }
    };
    tokio::task::LocalSet::new().block_on(&runtime, measured);
    if arguments.json {
        println!("{}", report.json(&machine, &versions));
    } else {
        println!("{machine}\n{versions}\n\n{}", report.table());
    }
    Ok(())
}

/// How many requests of each signal came to a collector.
fn had(collector: &Collector) -> String {
    let count = |signal| format!("{} of {signal}", collector.taken(signal).len());
    ["traces", "metrics", "logs"].map(count).join(", ")
}

async fn measure(report: &mut Report, arguments: &Arguments, collector: Option<&Collector>) {
    let this = || PathBuf::from(env!("CARGO_BIN_EXE_fanfare"));
    let before = arguments.before.clone();
    let before = before.or_else(|| collector.map(|_| this()));
    let runs = match (arguments.runs, arguments.quick, &before) {
        (Some(runs), _, _) => runs,
        (None, true, _) => 1,
        (None, false, Some(_)) => 7,
        (None, false, None) => 5,
    };
    let scenarios = match &arguments.scenarios[..] {
        [] => Scenario::value_variants(),
        named => named,
    };
    let mut effort = Effort {
        runs: 0..runs,
        quick: arguments.quick,
        engines: match arguments.engine {
            Some(engine) => vec![engine],
            None => Engine::value_variants().to_vec(),
        },
        backlog: Duration::from_secs(arguments.seconds),
        program: None,
        collector: None,
    };
    for scenario in scenarios {
        let Some(before) = &before else {
            scenario.run(report, &effort).await;
            continue;
        };
        // Each build has a stage of its own in each pair, and who begins changes.
        for pair in 0..runs {
            let mut builds = [Build::Now, Build::Before];
            builds.rotate_left(pair % 2);
            for build in builds {
                report.build = build;
                effort.runs = pair..pair + 1;
                let is_before = build == Build::Before;
                effort.program = is_before.then(|| before.clone());
                effort.collector = collector.filter(|_| !is_before).map(Collector::url);
                scenario.run(report, &effort).await;
            }
        }
    }
}

impl Scenario {
    async fn run(self, report: &mut Report, effort: &Effort) {
        match self {
            Self::One => fan::one(report, effort).await,
            Self::Paced => fan::paced(report, effort).await,
            Self::Backlog => fan::backlog(report, effort).await,
            Self::Idle => idle::idle(report, effort).await,
            Self::Connect => connect::connect(report, effort).await,
            Self::Slow => slow::slow(report, effort).await,
            Self::Lanes => lanes::lanes(report, effort).await,
            Self::Inbox => inbox::inbox(report, effort).await,
            Self::Unicast => unicast::unicast(report, effort).await,
            Self::Resting => redis::resting(report, effort).await,
            Self::Stored => redis::stored(report, effort).await,
        }
    }
}

/// What was measured: the node's version, that of the build before, and that of Redis.
fn versions(arguments: &Arguments) -> String {
    let says = |program: &OsStr| {
        let output = Command::new(program).arg("--version").output();
        output.map_or_else(
            |error| format!("{}: {error}", program.display()),
            |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        )
    };
    let node = says(env!("CARGO_BIN_EXE_fanfare").as_ref());
    let redis = says("redis-server".as_ref());
    match &arguments.before {
        None => format!("{node}; {redis}"),
        Some(before) => format!("{node}, before: {}; {redis}", says(before.as_ref())),
    }
}
