//! The fault harness: real nodes, a real Redis and real clients, broken in a seeded order while
//! numbered messages are published, and a checker that misses nothing.
//!
//! `cargo test --test torture -- --help`
//!
//! In: the binary that cargo built, `redis-server` from the path. Out: progress on stderr, the
//! figure on stdout, and last a line as libtest prints it. Exit code 1 on any violation. One
//! thread for clients, publishers and links; nodes and Redis are processes, ended with this one.
//! Bounds: every wait has a deadline; the history is kept in memory.

mod app;
mod app_control;
mod backend;
mod calls;
mod checker;
mod client;
mod closing;
mod control;
mod fault;
mod figure;
mod history;
mod kind;
mod link;
mod lists;
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
mod retained;
mod run;
mod speaker;
mod speech;
mod stage;
mod stream;
mod swallow;
mod third;
mod throng;

use std::ops::Range;
use std::process::{Command, ExitCode};
use std::rc::Rc;
use std::time::{Duration, Instant};

use clap::Parser;
use fanfare_bench::socket;
use tokio::task::{JoinHandle, LocalSet};
use tokio::time::sleep;

use app::App;
use backend::{Backend, PUBLISHERS_APART, Targets};
use checker::{Allowed, Verdict, Wrong};
use client::{Client, user};
use history::{ClientIndex, History, Topic, TopicIndex};
use nemesis::{DEAF_FOR, Nemesis};
use options::{Control, Options};
use redis_form::{Form, Redis};
use run::Run;
use speaker::Speaker;
use stage::{NAMESPACE, Plans, Stage};
use third::Third;
use throng::Throng;

/// Publishers of each kind.
const PUBLISHERS: u32 = 4;
/// Clients of one topic.
const CLIENTS_PER_TOPIC: u32 = 10;
/// Clients of the first app for each of the other.
const CLIENTS_PER_OTHER: u32 = 4;
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
    let parts = parts(options.clients);
    let run = Rc::new(Run::new(history(options, form, &parts), options.sabotage));
    let scratch = socket::scratch(socket::READ_BYTES);
    let crowds = parts
        .each_ref()
        .map(|part| part.crowd(&run, &stage, &scratch));
    for client in crowds.iter().flatten() {
        tokio::task::spawn_local(Rc::clone(client).live(options.seed));
    }
    let [crowd, others] = crowds;
    let throng = Throng::gather(options.members, &run, &stage, &scratch).await;
    for part in &parts {
        publish(options, &run, &stage, &scratch, part);
    }
    if options.has_queue() {
        queue::write(options, &run, &stage);
    }
    let neighbour = (form == Form::Single && options.control.is_none()).then(|| {
        let living = neighbour::live(Rc::clone(&run), Rc::clone(&stage), options.clients);
        tokio::task::spawn_local(living)
    });
    let third = options.control.is_none().then(|| {
        let third = Third::new(&run, &stage, &scratch);
        tokio::task::spawn_local(third.live())
    });
    sleep(WARM_UP).await;
    let tormented = match options.control {
        Some(control) => {
            control::run(control, &run, &stage, swallow.as_ref(), lasts).await;
            Ok(())
        }
        None => {
            let choice = (options.kinds(), options.seed);
            let topics_count = parts[0].targets.topics.len() as u32;
            let nemesis = Nemesis::new(&run, &stage, &crowd, form, topics_count, choice);
            tokio::task::spawn_local(nemesis.torment(lasts)).await
        }
    };
    if let Err(panicked) = tormented {
        run.broken(format!("the nemesis could not go on: {panicked}"));
    }
    let everybody: Vec<_> = crowd.iter().chain(&others).cloned().collect();
    let topics = parts.iter().flat_map(|part| &part.targets.topics);
    let topics: Vec<_> = topics.copied().collect();
    closing::close(&run, &stage, &everybody, &topics).await;
    if options.has_queue() {
        queue_closing::close(&run, &stage).await;
    }
    throng.dismiss(&run, &stage).await;
    beside(&run, neighbour, third).await;
    judge(options, form, &run, &stage, &parts[0].targets).await
}

/// Waits for what goes on beside the run.
async fn beside(run: &Run, neighbour: Option<JoinHandle<u64>>, third: Option<JoinHandle<()>>) {
    if let Some(neighbour) = neighbour {
        match neighbour.await {
            Ok(accepted @ 1..) => run.say(&format!("the neighbour had {accepted} accepted")),
            Ok(0) => run.broken("the neighbour had nothing accepted".to_owned()),
            Err(panicked) => run.broken(format!("the neighbour could not go on: {panicked}")),
        }
    }
    if let Some(third) = third
        && let Err(panicked) = third.await
    {
        run.broken(format!("the third app could not go on: {panicked}"));
    }
}

/// An app's part of a run.
struct Part {
    app: App,
    clients: Range<ClientIndex>,
    targets: Targets,
}

/// The parts of both apps: the other has a client for [`CLIENTS_PER_OTHER`] of the first.
fn parts(clients: ClientIndex) -> [Part; 2] {
    let others = clients..clients + clients.div_ceil(CLIENTS_PER_OTHER);
    let first = Part::new(App::Default, 0..clients, 0);
    let other = Part::new(App::Other, others, first.targets.everyone + 1);
    [first, other]
}

impl Part {
    /// Everything that is published to, from the topic of that index on: topics, then inboxes, then
    /// everyone.
    fn new(app: App, clients: Range<ClientIndex>, from: TopicIndex) -> Self {
        let count = clients.len() as ClientIndex;
        let inboxes_from = from + count.div_ceil(CLIENTS_PER_TOPIC);
        let targets = Targets {
            topics: (from..inboxes_from).collect(),
            inboxes: (inboxes_from..inboxes_from + count).collect(),
            everyone: inboxes_from + count,
            inboxes_had: Rc::default(),
        };
        Self {
            app,
            clients,
            targets,
        }
    }

    fn crowd(
        &self,
        run: &Rc<Run>,
        stage: &Rc<Stage>,
        scratch: &socket::Scratch,
    ) -> Vec<Rc<Client>> {
        let of = (self.app, self.clients.start);
        let clients = self.clients.clone();
        let new = |number| Rc::new(Client::new(number, of, run, stage, scratch));
        clients.map(new).collect()
    }

    /// Names and readers, in the order of the targets.
    fn topics(&self) -> impl Iterator<Item = Topic> {
        let (app, all) = (self.app, || self.clients.clone());
        let first = self.clients.start;
        let count = self.targets.topics.len() as u32;
        let topics = (0..count).map(move |topic| Topic {
            app,
            name: format!("{NAMESPACE}:{topic}"),
            clients: all().filter(|c| (c - first) % count == topic).collect(),
        });
        let inboxes = all().map(move |client| Topic {
            app,
            name: format!("@{}", user(client - first)),
            clients: vec![client],
        });
        let everyone = Topic {
            app,
            name: "@".to_owned(),
            clients: all().collect(),
        };
        topics.chain(inboxes).chain([everyone])
    }
}

fn history(options: &Options, form: Form, parts: &[Part]) -> History {
    let mut history = History {
        topics: parts.iter().flat_map(Part::topics).collect(),
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

/// Starts the publishers of an app: [`PUBLISHERS`] of each kind, or one of each of the other app, with
/// the users and keys of the first ones.
fn publish(
    options: &Options,
    run: &Rc<Run>,
    stage: &Rc<Stage>,
    scratch: &socket::Scratch,
    part: &Part,
) {
    let (app, targets) = (part.app, &part.targets);
    let (from, count) = match app {
        App::Default => (0, PUBLISHERS),
        App::Other | App::Third => (PUBLISHERS_APART, 1),
    };
    let per_publisher = options.rate / (2 * PUBLISHERS);
    let every = Duration::from_secs(1) / per_publisher.max(1);
    for publisher in from..from + count {
        let speaker = Speaker {
            run: Rc::clone(run),
            stage: Rc::clone(stage),
            scratch: Rc::clone(scratch),
            app,
            publisher,
            every,
            topics: targets.topics.clone(),
        };
        tokio::task::spawn_local(speaker.publish(options.seed));
        let backend = Backend {
            run: Rc::clone(run),
            stage: Rc::clone(stage),
            app,
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
    run.judge_shown();
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
