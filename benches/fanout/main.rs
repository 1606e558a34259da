//! The bars of the data plane, each measured in one run beside its floor.
//!
//! `cargo bench --bench fanout -- [SCENARIO…] [--runs 5] [--quick] [--engine ENGINE] [--json]`
//!
//! In: the release binary, started here on free ports of the loopback, and a `redis-server` from
//! the path. Out: a table for people or JSON on stdout; what is going on, on stderr. The node is
//! pinned to core 0, this program (one thread: publishers and readers) and Redis to core 1. In the
//! same minutes and pinned like the node, a process that only calls `send()` shows where the floor
//! is. A missed bar is told and fails nothing. Everything that was started ends with this program.
//! Bounds: every wait has a deadline; 20,000 open files.

mod bare;
mod crowd;
mod frames;
mod measure;
mod process;
mod publisher;
mod report;
mod scenario;
mod session;
mod stage;
#[path = "../../tests/support/mod.rs"]
mod support;
#[path = "../../src/auth/test_keys.rs"]
#[allow(dead_code, reason = "not every key of the tests is needed")]
mod test_keys;

use std::process::Command;

use clap::{Parser, ValueEnum};

use report::Report;
use scenario::{Effort, connect, fan, idle, inbox, lanes, slow};
use stage::Engine;

/// The bars of the data plane, each in one run beside its floor.
#[derive(Debug, Parser)]
struct Arguments {
    /// What to measure; everything when nothing is named.
    scenarios: Vec<Scenario>,
    /// How often each figure is taken; the median counts. [default: 5, with --quick 1]
    #[arg(long)]
    runs: Option<usize>,
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
}

fn main() -> std::io::Result<()> {
    let arguments = Arguments::parse();
    if let Some(sockets) = arguments.bare_loop {
        return bare::run(sockets);
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
    let versions = versions();
    eprintln!("{machine}\n{versions}");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let mut report = Report::default();
    let measured = measure(&mut report, &arguments);
    tokio::task::LocalSet::new().block_on(&runtime, measured);
    if arguments.json {
        println!("{}", report.json(&machine, &versions));
    } else {
        println!("{machine}\n{versions}\n\n{}", report.table());
    }
    Ok(())
}

async fn measure(report: &mut Report, arguments: &Arguments) {
    let runs = arguments
        .runs
        .unwrap_or(if arguments.quick { 1 } else { 5 });
    let effort = Effort {
        runs,
        quick: arguments.quick,
        engines: match arguments.engine {
            Some(engine) => vec![engine],
            None => Engine::value_variants().to_vec(),
        },
    };
    let scenarios = match &arguments.scenarios[..] {
        [] => Scenario::value_variants(),
        named => named,
    };
    for scenario in scenarios {
        match scenario {
            Scenario::One => fan::one(report, &effort).await,
            Scenario::Paced => fan::paced(report, &effort).await,
            Scenario::Backlog => fan::backlog(report, &effort).await,
            Scenario::Idle => idle::idle(report, &effort).await,
            Scenario::Connect => connect::connect(report, &effort).await,
            Scenario::Slow => slow::slow(report, &effort).await,
            Scenario::Lanes => lanes::lanes(report, &effort).await,
            Scenario::Inbox => inbox::inbox(report, &effort).await,
        }
    }
}

/// What was measured: the node's version, and that of Redis.
fn versions() -> String {
    let says = |program: &str| {
        let output = Command::new(program).arg("--version").output();
        output.map_or_else(
            |error| format!("{program}: {error}"),
            |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        )
    };
    let node = says(env!("CARGO_BIN_EXE_fanfare"));
    format!("{node}; {}", says("redis-server"))
}
