//! What a publication costs a node in the CPU of its connection: by fred, and by our own.
//!
//! `cargo bench --bench redis_wire -- [PAIRS] [COMMANDS]`. In: a `redis-server` of its own. Out: for
//! each side, by turns, microseconds of this process' CPU per EVALSHA of the publish script, with
//! [`IN_FLIGHT`] in flight and the last of them awaited; then the medians. Everything of a side runs on
//! one thread, so its time is that thread's. Only figures of one run can be compared.

use std::sync::Arc;
use std::time::Duration;

use fanfare::broker::redis::scripts::Scripts;
use fanfare::config;
use fanfare::redis::access::Target;
use fanfare::redis::wire::command::Prepared;
use fanfare::redis::wire::{Connection, Event};
use fanfare::redis::{RedisLink, Script};
use fanfare::telemetry::metrics::Metrics;
use fred::interfaces::ClientLike;
use fred::types::Value;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

use fanfare_testkit::redis_server::RedisServer;

/// Publications that wait for Redis at a time.
const IN_FLIGHT: usize = 64;
const TIMEOUT: Duration = Duration::from_secs(10);
/// As long as a short message in its kept form.
const BODY: [u8; 200] = [b'x'; 200];

fn main() {
    let mut numbers = std::env::args().filter_map(|word| word.parse::<usize>().ok());
    let pairs = numbers.next().unwrap_or(7);
    let commands = numbers.next().unwrap_or(200_000);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let server = RedisServer::start().await;
        // The disk is no part of this.
        server.command(&["CONFIG", "SET", "appendonly", "no"]);
        let settings = settings(server.url());
        let script = Scripts::new(false).publish;
        let (mut by_fred, mut by_wire) = (Vec::new(), Vec::new());
        for pair in 1..=pairs {
            let fred = fred_cost(&settings, &script, commands).await;
            let wire = wire_cost(&settings, &script, commands).await;
            println!("pair {pair}: fred {fred:.2} µs, wire {wire:.2} µs");
            by_fred.push(fred);
            by_wire.push(wire);
        }
        let (fred, wire) = (median(by_fred), median(by_wire));
        println!(
            "median: fred {fred:.2} µs, wire {wire:.2} µs, {:.2} of it",
            wire / fred
        );
    });
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

fn settings(url: String) -> config::Redis {
    config::Redis {
        url: Some(config::Secret(url)),
        command_timeout: TIMEOUT,
        ..config::load::defaults().redis
    }
}

/// Nanoseconds that this thread has run.
fn cpu_ns() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux");
    let first = text.split(' ').next().expect("a figure");
    first.parse().expect("a number")
}

/// The keys of one of a thousand topics, and all else that the script is given.
fn arguments(number: usize) -> [Vec<u8>; 8] {
    let topic = format!("ff:{{160}}{{default:topic-{}}}", number % 1_000);
    let key = |suffix: &str| format!("{topic}{suffix}").into_bytes();
    [
        key(""),
        key(":s"),
        key(":l"),
        BODY.to_vec(),
        number.to_string().into_bytes(),
        b"100".to_vec(),
        b"3600000".to_vec(),
        b"86400000".to_vec(),
    ]
}

/// Microseconds a command, by the client of the crate.
async fn fred_cost(settings: &config::Redis, script: &Script, commands: usize) -> f64 {
    let link = RedisLink::new(settings, Arc::new(Metrics::new(0))).expect("a good URL");
    let client = link.renew().expect("a good URL");
    let running = client.connect();
    client.wait_for_connect().await.expect("a server");
    link.circuit().close();
    link.submit_load(script).await.expect("it is loaded");
    let start = cpu_ns();
    let mut flights = FuturesUnordered::new();
    for number in 0..commands {
        if flights.len() == IN_FLIGHT {
            answered(flights.next().await.expect("one is in flight"));
        }
        let mut values = vec![Value::from(script.sha()), Value::from("3")];
        values.extend(arguments(number).map(|argument| Value::Bytes(argument.into())));
        flights.push(link.submit("EVALSHA", values));
    }
    while let Some(answer) = flights.next().await {
        answered(answer);
    }
    let cost = cpu_ns() - start;
    running.abort();
    cost / commands as f64 / 1_000.0
}

/// The same by the connection of our own.
async fn wire_cost(settings: &config::Redis, script: &Script, commands: usize) -> f64 {
    let target = Target::new(settings).expect("a good URL");
    let opened = Connection::<()>::open(&target, "bench", TIMEOUT).await;
    let mut connection = opened.expect("a server");
    let mut events = Vec::new();
    let sent = connection.send((), 3, |load| {
        load.bytes(b"SCRIPT")
            .bytes(b"LOAD")
            .bytes(script.source().as_bytes());
    });
    sent.expect("there is room");
    connection.turn(&mut events).await.expect("it stands");
    let head = Prepared::new(&[b"EVALSHA", script.sha().as_bytes(), b"3"]);
    let start = cpu_ns();
    let mut number = 0;
    events.clear();
    while number < commands || connection.unanswered_count() > 0 {
        while number < commands && connection.unanswered_count() < IN_FLIGHT {
            let arguments = arguments(number);
            let sent = connection.send((), 3 + arguments.len(), |command| {
                command.prepared(&head);
                for argument in &arguments {
                    command.bytes(argument);
                }
            });
            sent.expect("there is room");
            number += 1;
        }
        connection.turn(&mut events).await.expect("it stands");
        for event in events.drain(..) {
            if let Event::Answered((), answer) = event {
                answered(answer);
            }
        }
    }
    (cpu_ns() - start) / commands as f64 / 1_000.0
}

fn answered(answer: Result<Value, fanfare::redis::RedisError>) {
    let answer = answer.expect("it is published");
    assert!(answer.as_bytes().is_some(), "a position: {answer:?}");
}
