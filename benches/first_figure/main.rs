//! The first figures: what an idle session holds, what a delivery costs, how fast 100 connect.
//!
//! `cargo bench --bench first_figure -- [--runs COUNT] [memory] [embedded] [redis]`
//!
//! In: the release binary, started here on free ports of the loopback, and a `redis-server` from
//! the path. Out: a table for people and one line of JSON. The node is pinned to core 0, this
//! program (one thread of load) and Redis to core 1. In the same run and pinned like the node, a
//! process that only calls `send()` shows where the floor is. Everything that was started ends
//! with this program. Bounds: every wait has a deadline.

mod bare;
mod crowd;
mod fanout;
mod frames;
mod process;
mod report;
mod scenario;
#[path = "../../tests/support/mod.rs"]
mod support;

use report::Figures;
use support::redis_server::RedisServer;

/// The API key of `--dev`.
const API_KEY: &str = support::http::DEV_KEY;
/// Runs without `--runs`.
const RUNS_COUNT: usize = 3;
/// The parts that can be asked for alone.
const PARTS: [&str; 3] = ["memory", "embedded", "redis"];

fn main() -> std::io::Result<()> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    if let [mode, count] = &arguments[..]
        && mode == bare::MODE
    {
        let count = count.parse().map_err(std::io::Error::other)?;
        return bare::run(count);
    }
    let runs = arguments.iter().position(|a| a == "--runs");
    let runs = runs
        .and_then(|at| arguments.get(at + 1)?.parse().ok())
        .unwrap_or(RUNS_COUNT);
    let named = |part: &str| arguments.iter().any(|a| a == part);
    let all = !PARTS.into_iter().any(named);
    if !process::pin(std::process::id(), process::LOAD_CORE) {
        println!("taskset does not work here: nothing is pinned, the figures mean little");
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let mut figures = Figures::default();
    let parts = PARTS.map(|part| all || named(part));
    let run = run(&mut figures, runs, parts);
    tokio::task::LocalSet::new().block_on(&runtime, run);
    println!("{}\n\n{}", figures.table(), figures.json());
    Ok(())
}

async fn run(figures: &mut Figures, runs: usize, [memory, embedded, redis]: [bool; 3]) {
    for number in 1..=runs {
        eprintln!("run {number} of {runs}, load averages {}", process::load());
        if memory {
            figures.part("memory");
            scenario::memory(figures).await;
        }
        if embedded {
            figures.part("embedded");
            scenario::whole(figures, None).await;
        }
        if redis {
            figures.part("redis");
            let server = RedisServer::start().await;
            process::pin(server.pid(), process::LOAD_CORE);
            scenario::whole(figures, Some(&server)).await;
        }
    }
}
