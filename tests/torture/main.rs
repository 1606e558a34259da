//! The fault harness: real nodes, a real Redis and real clients, broken in a seeded order while
//! numbered messages are published, and a checker that misses nothing.
//!
//! `cargo test --test torture -- --help`
//!
//! In: the binary that cargo built, `redis-server` from the path. Out: progress on stderr, the
//! figure on stdout, and last a line as libtest prints it. Exit code 1 on any violation. One
//! thread for clients, publishers and links; nodes and Redis are processes, ended with this one.
//! Bounds: every wait has a deadline; the history is kept in memory.

mod backend;
mod checker;
mod client;
mod closing;
mod control;
mod fault;
mod figure;
mod history;
mod kind;
mod link;
mod neighbour;
mod nemesis;
mod options;
mod queue;
mod queue_backend;
mod queue_checker;
mod queue_closing;
mod queue_control;
mod queue_raw;
mod queue_redis;
mod recovery;
mod redis_form;
mod run;
mod speaker;
mod speech;
mod stage;
mod stream;
mod swallow;
mod throng;

use std::process::{Command, ExitCode};
use std::rc::Rc;
use std::time::{Duration, Instant};

use clap::Parser;
use fanfare_bench::socket;
use tokio::task::LocalSet;
use tokio::time::sleep;

use backend::{Backend, Targets};
use checker::{Allowed, Verdict, Wrong};
use client::{Client, user};
use history::{ClientIndex, History, Topic};
use nemesis::{DEAF_FOR, Nemesis};
use options::{Control, Options};
use redis_form::{Form, Redis};
use run::Run;
use speaker::Speaker;
use stage::{NAMESPACE, Plans, Stage};
use throng::Throng;

/// Publishers of each kind.
const PUBLISHERS: u32 = 4;
/// Clients of one topic.
const CLIENTS_PER_TOPIC: u32 = 10;
/// Publications to everyone a second, over all backends.
const EVERYONE_PER_S: u32 = 5;
/// Publishing and joining before the first fault.
const WARM_UP: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let options = Options::parse();
    if !options.is_asked_for() {
        println!("\ntest result: ok. 0 passed; 0 failed; 0 ignored; 0 measured; 1 filtered out");
        return ExitCode::SUCCESS;
    }
    let begun = Instant::now();
    let mut passed = true;
    let forms = options.forms();
    let seconds = options.seconds as f64 / forms.len() as f64;
    for form in forms {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("the system gives a runtime");
        let lasts = Duration::from_secs_f64(seconds);
        passed &= LocalSet::new().block_on(&runtime, torture(&options, form, lasts));
    }
    let (word, ok, failed) = if passed {
        ("ok", 1, 0)
    } else {
        ("FAILED", 0, 1)
    };
    println!(
        "\ntest result: {word}. {ok} passed; {failed} failed; 0 ignored; 0 measured; \
         0 filtered out; finished in {:.2}s",
        begun.elapsed().as_secs_f64()
    );
    ExitCode::from(u8::from(!passed))
}

/// One run over one form of Redis. True when it is as it should be.
async fn torture(options: &Options, form: Form, lasts: Duration) -> bool {
    let swallow = control::swallow(options.control);
    let mut redis = Redis::start(form, options.clocks_behind).await;
    if options.control == Some(Control::LossyFailover) {
        redis.add_replica().await;
    }
    let plans = Plans {
        nodes: options.nodes,
        replicas_min: options.replicas_min,
        swallow: swallow.as_ref(),
    };
    let stage = Rc::new(Stage::start(redis, plans).await);
    let targets = targets(options.clients);
    let run = Rc::new(Run::new(history(options, form, &targets), options.sabotage));
    let scratch = socket::scratch(socket::READ_BYTES);
    let crowd: Vec<_> = (0..options.clients)
        .map(|number| Rc::new(Client::new(number, &run, &stage, &scratch)))
        .collect();
    for client in &crowd {
        tokio::task::spawn_local(Rc::clone(client).live(options.seed));
    }
    let throng = Throng::gather(options.members, &run, &stage, &scratch).await;
    publish(options, &run, &stage, &scratch, &targets);
    if options.has_queue() {
        queue::write(options, &run, &stage);
    }
    let neighbour = (form == Form::Single && options.control.is_none()).then(|| {
        let living = neighbour::live(Rc::clone(&run), Rc::clone(&stage), options.clients);
        tokio::task::spawn_local(living)
    });
    sleep(WARM_UP).await;
    let tormented = match options.control {
        Some(control) => {
            control::run(control, &run, &stage, swallow.as_ref(), lasts).await;
            Ok(())
        }
        None => {
            let choice = (options.kinds(), options.seed);
            let topics_count = targets.topics.len() as u32;
            let nemesis = Nemesis::new(&run, &stage, &crowd, form, topics_count, choice);
            tokio::task::spawn_local(nemesis.torment(lasts)).await
        }
    };
    if let Err(panicked) = tormented {
        run.broken(format!("the nemesis could not go on: {panicked}"));
    }
    closing::close(&run, &stage, &crowd, &targets.topics).await;
    if options.has_queue() {
        queue_closing::close(&run, &stage).await;
    }
    throng.dismiss(&run, &stage).await;
    if let Some(neighbour) = neighbour {
        match neighbour.await {
            Ok(accepted @ 1..) => run.say(&format!("the neighbour had {accepted} accepted")),
            Ok(0) => run.broken("the neighbour had nothing accepted".to_owned()),
            Err(panicked) => run.broken(format!("the neighbour could not go on: {panicked}")),
        }
    }
    judge(options, form, &run, &stage, &targets).await
}

/// Everything that is published to: topics, then inboxes, then everyone.
fn targets(clients: ClientIndex) -> Targets {
    let topics = clients.div_ceil(CLIENTS_PER_TOPIC);
    Targets {
        topics: (0..topics).collect(),
        inboxes: (topics..topics + clients).collect(),
        everyone: topics + clients,
        inboxes_had: Rc::default(),
    }
}

fn history(options: &Options, form: Form, targets: &Targets) -> History {
    let all = || 0..options.clients;
    let count = targets.topics.len() as u32;
    let topics = targets.topics.iter().map(|topic| Topic {
        name: format!("{NAMESPACE}:{topic}"),
        clients: all().filter(|client| client % count == *topic).collect(),
    });
    let inboxes = all().map(|client| Topic {
        name: format!("@{}", user(client)),
        clients: vec![client],
    });
    let everyone = Topic {
        name: "@".to_owned(),
        clients: all().collect(),
    };
    let mut history = History {
        topics: topics.chain(inboxes).chain([everyone]).collect(),
        ..History::default()
    };
    let settings = &mut history.settings;
    settings.insert("seed", options.seed.to_string());
    settings.insert("redis", form.word().to_owned());
    settings.insert(
        "redis_version",
        version(fanfare_testkit::redis_server::program()),
    );
    settings.insert("version", version(fanfare_testkit::program::fanfare()));
    settings.insert(
        "arguments",
        std::env::args().skip(1).collect::<Vec<_>>().join(" "),
    );
    history
}

fn version(program: impl AsRef<std::ffi::OsStr>) -> String {
    let output = Command::new(program).arg("--version").output();
    output.map_or_else(
        |error| error.to_string(),
        |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
    )
}

/// Starts all publishers.
fn publish(
    options: &Options,
    run: &Rc<Run>,
    stage: &Rc<Stage>,
    scratch: &socket::Scratch,
    targets: &Targets,
) {
    let per_publisher = options.rate / (2 * PUBLISHERS);
    let every = Duration::from_secs(1) / per_publisher.max(1);
    for publisher in 0..PUBLISHERS {
        let speaker = Speaker {
            run: Rc::clone(run),
            stage: Rc::clone(stage),
            scratch: Rc::clone(scratch),
            publisher,
            every,
            topics: targets.topics.clone(),
        };
        tokio::task::spawn_local(speaker.publish(options.seed));
        let backend = Backend {
            run: Rc::clone(run),
            stage: Rc::clone(stage),
            publisher: PUBLISHERS + publisher,
            every,
            targets: targets.clone(),
            everyone_one_of: (per_publisher * PUBLISHERS / EVERYONE_PER_S).max(1),
        };
        tokio::task::spawn_local(backend.publish(options.seed));
    }
}

/// Checks the history, prints the figure, and keeps what is needed to understand a failure.
async fn judge(options: &Options, form: Form, run: &Run, stage: &Stage, targets: &Targets) -> bool {
    let is_lossy = options.control == Some(Control::LossyFailover);
    let allowed = Allowed {
        redis_may_lose: is_lossy || form.has_replicas(),
        also_accepted: options.replicas_min == 0,
        deaf_for: DEAF_FOR,
    };
    let logs = stage.logs().await.into_iter();
    for (name, log) in logs.filter(|(name, _)| !name.contains(fault::PLANTED)) {
        // A node that met what it holds to be impossible says so, whatever it did about it.
        for line in log
            .lines()
            .filter(|line| line.contains("\"level\":\"ERROR\""))
        {
            run.broken(format!("{name} says {line}"));
        }
    }
    let history = run.history.take();
    let verdict = checker::check(&history, allowed);
    let head = format!(
        "torture redis={} nodes={} clients={} seed={} {}s",
        form.word(),
        options.nodes,
        options.clients,
        options.seed,
        options.seconds,
    );
    let nodes = stage.figures().await;
    let (lines, answered) = figure::lines(&head, &history, &verdict, &targets.topics, &nodes);
    for line in lines {
        println!("{line}");
    }
    for example in &verdict.examples {
        println!("  {example}");
    }
    let passed = is_as_expected(options, &verdict) && answered >= options.answered;
    if !passed {
        let path = options
            .keep
            .join(format!("{}-{}", form.word(), options.seed));
        match keep(&path, &history, stage).await {
            Ok(()) => println!("  kept: {}", path.display()),
            Err(error) => println!("  the history could not be kept: {error}"),
        }
    }
    passed
}

/// Whether nothing was wrong, or, where something was made wrong, that it was found and nothing
/// else.
fn is_as_expected(options: &Options, verdict: &Verdict) -> bool {
    let expected: &[Wrong] = match (options.sabotage, options.control) {
        (Some(sabotage), _) => sabotage.expected(),
        (None, Some(Control::LossyFailover)) => {
            let is_found = verdict.redis_lost > 0 && verdict.told_gaps > 0;
            println!("  control: losses told: {is_found}");
            return is_found && verdict.is_clean();
        }
        (None, Some(control)) => control.expected(),
        (None, None) => return verdict.is_clean(),
    };
    let is_found = expected.iter().any(|wrong| verdict.count(*wrong) > 0);
    let is_alone = verdict.wrongs.keys().all(|wrong| expected.contains(wrong));
    println!("  control: found: {is_found}, and nothing else: {is_alone}");
    is_found && is_alone
}

async fn keep(path: &std::path::Path, history: &History, stage: &Stage) -> std::io::Result<()> {
    std::fs::create_dir_all(path)?;
    let file = std::fs::File::create(path.join("history.jsonl"))?;
    history.write(std::io::BufWriter::new(file))?;
    for (name, log) in stage.logs().await {
        std::fs::write(path.join(format!("{name}.log")), log)?;
    }
    Ok(())
}
