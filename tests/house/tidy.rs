//! The rules of the house that a machine can hold: head docs, lengths, names, layers, wrapped
//! dependencies, and nothing that belongs to one machine.
//!
//! The first test reads the repository and must find nothing. Each other test plants a breach of
//! one rule, which must be found, and a near miss, which must pass: a rule that finds nothing
//! anywhere would otherwise look like a clean repository.

mod circles;
mod layers;
mod rules;
mod source;
mod used;

use std::path::{Path, PathBuf};

use source::{Breach, Source};

type Rule = fn(&Source) -> Vec<Breach>;

/// For every Rust file of the repository.
const FOR_RUST: &[Rule] = &[
    rules::head_doc,
    rules::file_length,
    rules::function_length,
    rules::names,
    rules::nothing_undone,
];

/// For what is shipped.
const FOR_SHIPPED: &[Rule] = &[
    rules::no_unwrap,
    rules::spawning,
    rules::fastwebsockets,
    rules::session_sockets,
    rules::fred,
    rules::otlp,
    rules::log_events,
    rules::logged_errors,
    layers::layering,
];

/// For everything that is text.
const FOR_TEXT: &[fn(&str, &str) -> Vec<Breach>] =
    &[rules::no_machine_paths, rules::no_registry_hosts];

/// Written by tools, which name where a package comes from.
const LOCK_FILES: &[&str] = &["Cargo.lock", "package-lock.json"];

/// Not part of the repository.
const FOREIGN_DIRECTORIES: &[&str] = &[".git", "target", "node_modules", ".venv"];

#[test]
fn the_repository_keeps_the_rules_of_the_house() {
    let files = text_files(Path::new(env!("CARGO_MANIFEST_DIR")));
    assert!(files.iter().any(|(path, _)| path == "src/lib.rs"));
    let mut breaches = Vec::new();
    let mut sources = Vec::new();
    for (path, text) in &files {
        let name = path.rsplit('/').next().unwrap_or(path);
        if !LOCK_FILES.contains(&name) {
            breaches.extend(FOR_TEXT.iter().flat_map(|rule| rule(path, text)));
        }
        if !path.ends_with(".rs") {
            breaches.extend(rules::undone_marks(path, text));
            continue;
        }
        match Source::read(path, text) {
            Ok(source) => sources.push(source),
            Err(breach) => breaches.push(breach),
        }
    }
    let test_files: Vec<_> = sources.iter().flat_map(test_module_files).collect();
    for source in &sources {
        breaches.extend(FOR_RUST.iter().flat_map(|rule| rule(source)));
        if is_shipped(&source.path) && !is_test_file(&source.path, &test_files) {
            breaches.extend(FOR_SHIPPED.iter().flat_map(|rule| rule(source)));
        }
    }
    let shipped =
        |source: &&Source| is_shipped(&source.path) && !is_test_file(&source.path, &test_files);
    let shipped: Vec<_> = sources.iter().filter(shipped).collect();
    breaches.extend(circles::circles(&shipped));
    let shipped: Vec<_> = shipped
        .into_iter()
        .filter(|source| source.path.starts_with("src/"))
        .collect();
    breaches.extend(used::unread_keys(&shipped));
    breaches.extend(used::unused_counters(&shipped));
    breaches.sort();
    let report: Vec<_> = breaches
        .iter()
        .map(|breach| format!("{}:{}: {}", breach.path, breach.line, breach.what))
        .collect();
    assert!(
        report.is_empty(),
        "{} breaches:\n{}",
        report.len(),
        report.join("\n")
    );
}

/// Whether a file is part of what users get: the server, the client and the crates that they are of.
fn is_shipped(path: &str) -> bool {
    ["src/", "crates/protocol/src/", "clients/rust/src/"]
        .iter()
        .any(|shipped| path.starts_with(shipped))
}

/// Whether a file is a module for tests, or below one.
fn is_test_file(path: &str, test_files: &[String]) -> bool {
    test_files.iter().any(|file| {
        let module = file.strip_suffix("/mod.rs").or(file.strip_suffix(".rs"));
        let below = module.and_then(|module| path.strip_prefix(module));
        path == file || below.is_some_and(|rest| rest.starts_with('/'))
    })
}

#[test]
fn what_lies_below_a_module_for_tests_is_a_test_file() {
    let test_files = ["src/a/tests.rs".to_owned(), "src/a/rig/mod.rs".to_owned()];
    for test in ["src/a/tests.rs", "src/a/tests/b.rs", "src/a/rig/c/d.rs"] {
        assert!(is_test_file(test, &test_files), "{test}");
    }
    for shipped in [
        "src/a.rs",
        "src/a/tests_of.rs",
        "src/a/rigging/c.rs",
        "src/b/tests/b.rs",
    ] {
        assert!(!is_test_file(shipped, &test_files), "{shipped}");
    }
}

/// Where the modules live that a file declares for tests only.
fn test_module_files(source: &Source) -> Vec<String> {
    let path = source.path.as_str();
    let root = ["/mod.rs", "/lib.rs", ".rs"];
    let directory = root.iter().find_map(|end| path.strip_suffix(end));
    let directory = directory.unwrap_or(path);
    let files = |name: &String| {
        [
            format!("{directory}/{name}.rs"),
            format!("{directory}/{name}/mod.rs"),
        ]
    };
    source.test_modules.iter().flat_map(files).collect()
}

/// Every file of the repository that is UTF-8, with its path from the root.
fn text_files(root: &Path) -> Vec<(String, String)> {
    let mut files = Vec::new();
    let mut directories: Vec<PathBuf> = vec![root.into()];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(&directory).expect("a directory of the repository") {
            let path = entry.expect("an entry of a directory").path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if path.is_dir() {
                if !FOREIGN_DIRECTORIES.contains(&&*name) {
                    directories.push(path);
                }
            } else if &*name != ".git"
                && let Ok(text) = std::fs::read_to_string(&path)
            {
                let inside = path.strip_prefix(root).expect("found under the root");
                files.push((inside.to_string_lossy().into_owned(), text));
            }
        }
    }
    files
}

/// The lines on which a rule finds a breach.
fn lines(rule: Rule, path: &str, text: &str) -> Vec<usize> {
    let source = Source::read(path, text).expect("the planted text is Rust");
    rule(&source)
        .into_iter()
        .map(|breach| breach.line)
        .collect()
}

#[test]
fn a_key_that_nothing_reads_is_found() {
    let table = "section!(DRAIN, \"drain\" => Drain {\n window: \"window_ms\", ms(0, 1), \"\";\n \
                 delay: \"delay_ms\", ms(0, 1), \"\";\n});";
    let found = |user: &str| {
        let read = |path, text| Source::read(path, text).expect("Rust");
        let sources = [
            read("src/config/keys.rs", table),
            read(
                "src/config/load.rs",
                "fn f(c: &Drain) { c.window; c.delay; }",
            ),
            read("src/node/leaving.rs", user),
        ];
        let sources: Vec<_> = sources.iter().collect();
        let lines = used::unread_keys(&sources).into_iter();
        lines.map(|breach| breach.line).collect::<Vec<_>>()
    };
    let both = "fn f(c: &Config) { c.drain.window; c.drain.delay; }";
    assert_eq!(found(both), [] as [usize; 0]);
    assert_eq!(found("fn f(c: &Drain) { c.delay; }"), [2]);
    assert_eq!(found("fn f(c: &Drain) { c.window(); c.delay; }"), [2]);
    assert_eq!(found("fn f(c: &Other) { c.window; c.delay; }"), [2, 3]);
}

#[test]
fn a_counter_that_nothing_counts_is_found() {
    let table = "instruments! { ControlCounters {\n ready: \"gauge\" \"r\" \"\",\n gaps: \
                 \"counter\" \"g\" \"\",\n} }";
    let read = |path, text| Source::read(path, text).expect("Rust");
    let sources = [
        read("src/telemetry/metrics.rs", table),
        read(
            "src/node/readiness.rs",
            "fn f(m: &M) { m.control.ready.set(1); }",
        ),
    ];
    let sources: Vec<_> = sources.iter().collect();
    let lines = used::unused_counters(&sources).into_iter();
    assert_eq!(lines.map(|breach| breach.line).collect::<Vec<_>>(), [3]);
}

#[test]
fn a_file_without_a_head_doc_is_found() {
    for planted in [
        "use std::fmt;\n",
        "/// A doc of the first item.\nfn a() {}\n",
        "//!\n",
    ] {
        assert_eq!(
            lines(rules::head_doc, "src/api/a.rs", planted),
            [1],
            "{planted:?}"
        );
    }
    let near_miss = "//! What this is for.\nfn a() {}\n";
    assert!(lines(rules::head_doc, "src/api/a.rs", near_miss).is_empty());
}

#[test]
fn a_file_that_is_too_long_is_found() {
    let planted = "\n".repeat(rules::FILE_LINES_MAX + 1);
    assert_eq!(lines(rules::file_length, "src/api/a.rs", &planted).len(), 1);
    let near_miss = "\n".repeat(rules::FILE_LINES_MAX);
    assert!(lines(rules::file_length, "src/api/a.rs", &near_miss).is_empty());
}

#[test]
fn a_function_that_is_too_long_is_found_wherever_it_stands() {
    let body = |lines_count: usize| "let _ = '{';\n".repeat(lines_count - 2);
    let around = [
        ("", ""),
        ("impl A {\n", "}\n"),
        ("trait T {\n", "}\n"),
        ("mod m {\n", "}\n"),
    ];
    for (before, after) in around {
        let function = |count| {
            format!(
                "{before}/// Doc.\n#[inline]\nfn long() {{\n{}}}\n{after}",
                body(count)
            )
        };
        let planted = function(rules::FUNCTION_LINES_MAX + 1);
        assert_eq!(
            lines(rules::function_length, "src/a.rs", &planted).len(),
            1,
            "{before}"
        );
        let near_miss = function(rules::FUNCTION_LINES_MAX);
        assert!(
            lines(rules::function_length, "src/a.rs", &near_miss).is_empty(),
            "{before}"
        );
    }
}

#[test]
fn an_unwrap_outside_tests_is_found() {
    let planted =
        "fn a() {\n    b().unwrap();\n    c! { d.unwrap() };\n    x.map(Option::unwrap(y));\n}\n";
    assert_eq!(lines(rules::no_unwrap, "src/a.rs", planted), [2, 3, 4]);
    let near_miss = "fn a() {\n    // .unwrap()\n    b(\".unwrap()\").unwrap_or(1);\n}\n\
        #[cfg(test)]\nmod tests {\n    fn a() { b().unwrap(); }\n}\n\
        #[cfg(test)]\nimpl A {\n    fn a() { b().unwrap(); }\n}\n\
        #[test]\nfn t() { b().unwrap(); }\n";
    assert!(lines(rules::no_unwrap, "src/a.rs", near_miss).is_empty());
    let shipped = "#[cfg(not(test))]\nmod a {\n    fn a() { b().unwrap(); }\n}\n";
    assert_eq!(lines(rules::no_unwrap, "src/a.rs", shipped), [3]);
}

#[test]
fn a_log_line_without_its_event_is_found() {
    let planted = "fn a() {\n    tracing::warn!(x, \"y\");\n    info!(\"z\");\n    debug!(%e, event = \"a\");\n}\n";
    assert_eq!(lines(rules::log_events, "src/a.rs", planted), [2, 3, 4]);
    let near_miss = "fn a() {\n    tracing::warn!(event = \"thing_happened\", x);\n    error(\"x\");\n\
        // warn!(\"x\")\n}\n#[cfg(test)]\nmod tests {\n    fn a() { info!(\"x\"); }\n}\n";
    assert!(lines(rules::log_events, "src/a.rs", near_miss).is_empty());
}

#[test]
fn an_error_that_is_logged_without_its_causes_is_found() {
    let planted = "fn a() {\n    warn!(event = \"a\", %error, \"b\");\n    info!(event = \"a\", why = %error);\n}\n";
    assert_eq!(lines(rules::logged_errors, "src/a.rs", planted), [2, 3]);
    let near_miss = "fn a() {\n    warn!(event = \"a\", error = &error as &(dyn Error + 'static));\n    warn!(event = \"a\", %errors);\n}\n";
    assert!(lines(rules::logged_errors, "src/a.rs", near_miss).is_empty());
}

#[test]
fn a_name_that_says_nothing_is_found() {
    let planted = "mod retry_helpers {}\nstruct TopicManager;\nenum Core {}\ntype BaseId = u8;\n";
    assert_eq!(lines(rules::names, "src/a.rs", planted), [1, 2, 3, 4]);
    for path in ["src/util.rs", "src/misc/a.rs", "src/api/http_utils.rs"] {
        assert_eq!(lines(rules::names, path, "").len(), 1, "{path}");
    }
    let near_miss = "struct Database;\nmod score {}\nfn base() {}\nstruct Basement;\n";
    assert!(lines(rules::names, "src/utility.rs", near_miss).is_empty());
}

#[test]
fn work_left_undone_is_found() {
    let marks = [
        concat!("// TO", "DO: later"),
        concat!("// FIX", "ME"),
        concat!("// XX", "X "),
    ];
    for mark in marks {
        assert_eq!(
            lines(rules::nothing_undone, "src/a.rs", mark),
            [1],
            "{mark}"
        );
    }
    let planted = concat!(
        "fn a() {\n    to",
        "do!()\n}\nfn b() { unimple",
        "mented!(\"x\") }\n"
    );
    assert_eq!(lines(rules::nothing_undone, "src/a.rs", planted), [2, 4]);
    let near_miss = concat!(
        "// mktemp fan.X",
        "XXXXX, a to",
        "do list, TO",
        "DOS\nfn to",
        "do() {}\n"
    );
    assert!(lines(rules::nothing_undone, "src/a.rs", near_miss).is_empty());
}

#[test]
fn a_task_or_thread_started_by_hand_is_found() {
    let planted = [
        "fn a() { tokio::spawn(b()); }",
        "fn a() { tokio::task::spawn(b()); }",
        "fn a() { local.spawn_local(b()); }",
        "use tokio::task::{JoinHandle, spawn_blocking};",
        "use tokio::{select, spawn};",
        "fn a() { std::thread::spawn(b); }",
        "fn a() { thread::Builder::new().name(n).spawn(b); }",
        "use std::thread::Builder as Thread;",
    ];
    for text in planted {
        assert_eq!(
            lines(rules::spawning, "src/worker/mod.rs", text),
            [1],
            "{text}"
        );
        assert!(
            lines(rules::spawning, "src/tasks.rs", text).is_empty(),
            "{text}"
        );
    }
    let near_miss = "fn a(tasks: &Tasks) { tasks.spawn(\"feed\", b()); }\n// tokio::spawn(b())\n\
        use tokio::task::JoinHandle;\nuse crate::tasks::{spawn_local, thread};\n\
        fn b() { tasks::spawn_local(\"session\", c()); spawn_local(\"session\", c()); }\n";
    assert!(lines(rules::spawning, "src/worker/mod.rs", near_miss).is_empty());
}

#[test]
fn a_second_user_of_the_websocket_codec_is_found() {
    let planted = "use fastwebsockets::Frame;\n";
    assert_eq!(
        lines(rules::fastwebsockets, "src/session/mod.rs", planted),
        [1]
    );
    assert!(lines(rules::fastwebsockets, "src/session/socket.rs", planted).is_empty());
    let near_miss = "//! Not through fastwebsockets.\nconst A: &str = \"fastwebsockets\";\n";
    assert!(lines(rules::fastwebsockets, "src/session/mod.rs", near_miss).is_empty());
}

#[test]
fn a_second_builder_of_redis_clients_is_found() {
    let planted = "use fred::clients::Client;\n";
    assert_eq!(lines(rules::fred, "src/session/mod.rs", planted), [1]);
    for path in ["src/redis.rs", "src/broker/redis/feed.rs"] {
        assert!(lines(rules::fred, path, planted).is_empty(), "{path}");
    }
    let builds = "use fred::types::Builder;\nfn a() { SubscriberClient::new(c); }\n";
    assert_eq!(
        lines(rules::fred, "src/broker/redis/feed.rs", builds),
        [1, 2]
    );
    assert!(lines(rules::fred, "src/redis/clients.rs", builds).is_empty());
    let near_miss = "fn a() { let fredo = RedisBroker::new(c); }\n";
    assert!(lines(rules::fred, "src/broker/redis/feed.rs", near_miss).is_empty());
}

#[test]
fn an_import_against_the_layers_is_found() {
    let planted = [
        ("src/config/value.rs", "use crate::telemetry::logs;"),
        ("src/session/state.rs", "use crate::ingress::auth::Claims;"),
        (
            "src/broker/mod.rs",
            "use crate::{config::Retention, worker::Worker};",
        ),
        ("src/broker/memory.rs", "fn a() { crate::worker::b() }"),
        ("src/broker/memory.rs", "use super::super::worker::Worker;"),
        ("src/worker/mod.rs", "fn a() { b!(crate::session::C) }"),
        ("src/main.rs", "fn main() { fanfare::node::run() }"),
        ("src/newcomer.rs", ""),
    ];
    for (path, text) in planted {
        assert_eq!(lines(layers::layering, path, text), [1], "{path} {text}");
    }
    let near_misses = [
        ("src/session/state.rs", "use crate::worker::outbox::Outbox;"),
        (
            "src/broker/memory.rs",
            "use super::{Entry, interest::Interest};",
        ),
        (
            "src/broker/memory.rs",
            "use crate::broker::Entry; // crate::worker",
        ),
        ("src/main.rs", "fn main() { fanfare::cli::main() }"),
        (
            "src/config/value.rs",
            "#[cfg(test)]\nmod tests {\n    use crate::worker::Worker;\n}",
        ),
        ("src/lib.rs", "pub mod worker;"),
    ];
    for (path, text) in near_misses {
        assert!(
            lines(layers::layering, path, text).is_empty(),
            "{path} {text}"
        );
    }
}

#[test]
fn the_table_of_layers_has_no_circle() {
    // Each module may only import what stands above it in the table.
    for (index, (module, imports)) in layers::ALLOWED.iter().enumerate() {
        for import in *imports {
            let above = layers::ALLOWED[..index]
                .iter()
                .any(|(name, _)| name == import);
            assert!(
                above,
                "{module} imports {import}, which does not stand above it"
            );
        }
    }
}

#[test]
fn a_place_on_one_machine_is_found() {
    for place in [
        concat!("/wo", "rk/main"),
        concat!("/ro", "ot/.cargo"),
        concat!("../sh", "ared/x"),
    ] {
        let planted = format!("first\nsee {place}\n");
        assert_eq!(
            rules::no_machine_paths("README.md", &planted)[0].line,
            2,
            "{place}"
        );
    }
    let near_miss = concat!(
        "src/wo",
        "rk/x, $HOME/ho",
        "me/x, /etc/fanfare, {dir}/ro",
        "ot/x"
    );
    assert!(rules::no_machine_paths("README.md", near_miss).is_empty());
}

#[test]
fn the_host_of_a_registry_is_found() {
    let planted = concat!("https://registry.npmjs", ".org/ws");
    assert_eq!(rules::no_registry_hosts("scripts/test", planted).len(), 1);
    assert!(rules::no_registry_hosts("scripts/test", "npm install ws").is_empty());
}
