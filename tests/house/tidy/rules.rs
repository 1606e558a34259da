//! The rules that hold for one file, whatever the others say.
//!
//! In: a [`Source`], or path and text of any tracked file. Out: breaches. Each rule is a function
//! of its own; `tests/house/tidy.rs` plants a breach for each of them and a near miss beside it.

use super::source::{Breach, Source};

/// Longest file, in lines.
pub(crate) const FILE_LINES_MAX: usize = 500;

/// Longest function, in lines.
pub(crate) const FUNCTION_LINES_MAX: usize = 70;

/// Parts of names that say nothing about what a thing does.
const NAMES_BANNED: &[&str] = &["util", "helper", "manager", "misc", "core", "base"];

/// Marks of work left undone. Put together here, so that this file does not break its own rule.
const UNDONE_WORDS: &[&str] = &[
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("XX", "X"),
];

/// The same as macros.
const UNDONE_MACROS: &[&str] = &["todo", "unimplemented"];

/// Who may start tasks and threads, and why.
const SPAWNING: &[(&str, &str)] = &[
    (
        "src/tasks.rs",
        "names every task and thread and reports a panic instead of letting it vanish",
    ),
    (
        "clients/rust/src/client.rs",
        "a client's task is missed by its handles and subscriptions, which end with it",
    ),
    (
        "clients/rust/src/http.rs",
        "a connection's task is missed by whoever waits for its answer",
    ),
];

/// Who may name the WebSocket codec, and why.
const FASTWEBSOCKETS: &[(&str, &str)] = &[(
    "src/session/socket.rs",
    "closes the codec's known holes and pins each with a test",
)];

/// Where sessions live, and the one file there that may name what their sockets are.
const SESSION_SOCKETS: &[&str] = &["src/worker/", "src/session/"];
const SESSION_SOCKET_FILE: &str = "src/worker/stream.rs";

/// Who may name the Redis client, and why. An entry that ends in `*` is a prefix.
const FRED: &[(&str, &str)] = &[
    ("src/redis.rs", "sends commands"),
    (
        "src/redis/*",
        "builds every client, sorts errors, finds the server of a key",
    ),
    ("src/broker/redis*", "the broker over Redis"),
    ("src/cluster/lease_store.rs", "leases live in Redis"),
    ("src/cluster/occupancy_store.rs", "so does who is where"),
];

/// The one file that builds clients of Redis.
const FRED_BUILDER: &str = "src/redis/clients.rs";

/// Who may name the messages and calls of OTLP, and why.
const OTLP: &[(&str, &str)] = &[(
    "src/telemetry/otlp/*",
    "speaks to collectors; all others hand in what is ours",
)];

/// The crates by which that is done.
const OTLP_CRATES: &[&str] = &[
    "opentelemetry",
    "opentelemetry_http",
    "opentelemetry_otlp",
    "opentelemetry_proto",
    "opentelemetry_sdk",
    "prost",
    "tonic",
    "hyper_rustls",
    "flate2",
];

/// Directories of machines, which mean nothing on another one, and the neighbours of a checkout.
const MACHINE_PATHS: &[&str] = &[
    concat!("/wo", "rk/"),
    concat!("/ro", "ot/"),
    concat!("/ho", "me/"),
    concat!("/tmp/", "w/"),
    concat!("../sh", "ared"),
];

/// Package registries. Packages are named, not where they come from.
const REGISTRY_HOSTS: &[&str] = &[
    concat!("crates", ".io"),
    concat!("pypi", ".org"),
    concat!("python", "hosted.org"),
    concat!("npmjs", ".org"),
    concat!("npmjs", ".com"),
    concat!("proxy.go", "lang.org"),
    concat!("deb.deb", "ian.org"),
    concat!("maven", ".org"),
];

/// Every file says at its top what it is for.
pub(crate) fn head_doc(source: &Source) -> Vec<Breach> {
    let first = source.text.lines().next().unwrap_or_default();
    match first.strip_prefix("//! ") {
        Some(sentence) if !sentence.trim().is_empty() => Vec::new(),
        _ => vec![source.breach(1, "has no head doc: begin with `//! What this file is for`")],
    }
}

/// A file can be read in one sitting.
pub(crate) fn file_length(source: &Source) -> Vec<Breach> {
    let lines_count = source.text.lines().count();
    if lines_count <= FILE_LINES_MAX {
        return Vec::new();
    }
    let what = format!("has {lines_count} lines, at most {FILE_LINES_MAX}: split it by concept");
    vec![source.breach(lines_count, what)]
}

/// A function fits on a screen.
pub(crate) fn function_length(source: &Source) -> Vec<Breach> {
    let long = |f: &&super::source::Function| f.lines_count > FUNCTION_LINES_MAX;
    let breach = |f: &super::source::Function| {
        let (name, count) = (&f.name, f.lines_count);
        let what = format!("`{name}` has {count} lines, at most {FUNCTION_LINES_MAX}");
        source.breach(f.line, what)
    };
    source.functions.iter().filter(long).map(breach).collect()
}

/// Outside tests nothing panics for want of a thought.
pub(crate) fn no_unwrap(source: &Source) -> Vec<Breach> {
    let words = source.tokens.windows(3);
    words
        .filter(|w| {
            matches!(w[0].text.as_str(), "." | "::") && w[1].text == "unwrap" && w[2].text == "("
        })
        .map(|w| {
            source.breach(
                w[1].line,
                "`unwrap` outside tests: handle it, or say in `expect` why it holds",
            )
        })
        .collect()
}

/// Names of files, modules and types say what the thing does.
pub(crate) fn names(source: &Source) -> Vec<Breach> {
    let of_path = source.path.split('/').flat_map(|part| part.split('.'));
    let of_path = of_path.map(|name| (name, 1));
    let of_code = source.names.iter().map(|n| (n.name.as_str(), n.line));
    of_path
        .chain(of_code)
        .filter(|(name, _)| name_words(name).iter().any(|word| is_banned(word)))
        .map(|(name, line)| source.breach(line, format!("the name `{name}` says nothing")))
        .collect()
}

fn is_banned(word: &str) -> bool {
    NAMES_BANNED.contains(&word) || NAMES_BANNED.contains(&word.trim_end_matches('s'))
}

/// `RetryManager` and `retry_manager` are both `retry`, `manager`.
fn name_words(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    for letter in name.chars() {
        let starts = letter.is_uppercase() || matches!(letter, '_' | '-');
        if starts && words.last().is_some_and(|word| !word.is_empty()) {
            words.push(String::new());
        }
        if letter.is_alphanumeric()
            && let Some(word) = words.last_mut()
        {
            word.extend(letter.to_lowercase());
        }
    }
    words
}

/// Nothing is left undone in a way that only a reader would notice.
pub(crate) fn nothing_undone(source: &Source) -> Vec<Breach> {
    let mut breaches = undone_marks(&source.path, &source.text);
    for pair in source.tokens.windows(2) {
        if UNDONE_MACROS.contains(&pair[0].text.as_str()) && pair[1].text == "!" {
            let what = format!("`{}!` is code that is not written", pair[0].text);
            breaches.push(source.breach(pair[0].line, what));
        }
    }
    breaches
}

/// The marks alone, in any kind of file.
pub(crate) fn undone_marks(path: &str, text: &str) -> Vec<Breach> {
    in_lines(path, text, |line| {
        let mut words = line.split(|c: char| !c.is_alphanumeric() && c != '_');
        let mark = words.find(|word| UNDONE_WORDS.contains(word))?;
        Some(format!("`{mark}`: do it, or file it as an issue"))
    })
}

/// Tasks and threads are started in one place.
pub(crate) fn spawning(source: &Source) -> Vec<Breach> {
    if allowed(SPAWNING, &source.path) {
        return Vec::new();
    }
    let what = "starts a task or thread: go through `tasks`, which names it and reports its end";
    let paths = source.code_paths().into_iter();
    let by_path = paths
        .filter(|path| starts_something(&path.segments))
        .map(|path| path.line);
    let words = source.tokens.windows(2);
    let by_method = words
        .filter(|w| w[0].text == "." && is_spawning_word(&w[1].text))
        .map(|w| w[1].line);
    let lines: std::collections::BTreeSet<_> = by_path.chain(by_method).collect();
    lines
        .into_iter()
        .map(|line| source.breach(line, what))
        .collect()
}

fn starts_something(path: &[String]) -> bool {
    let from = |module: &str| path.iter().any(|segment| segment == module);
    let starts = |segment: &String| segment == "spawn" || is_spawning_word(segment);
    if from("tasks") {
        return false;
    }
    let by_function = path.iter().any(starts) && (from("tokio") || from("task") || from("thread"));
    let by_type = path.windows(2).any(|w| {
        let (module, name) = (w[0].as_str(), w[1].as_str());
        matches!(
            (module, name),
            ("thread", "Builder" | "scope") | ("task", "Builder" | "JoinSet")
        )
    });
    by_function || by_type
}

fn is_spawning_word(word: &str) -> bool {
    matches!(word, "spawn_local" | "spawn_blocking" | "spawn_scoped")
}

/// The WebSocket codec is wrapped once.
pub(crate) fn fastwebsockets(source: &Source) -> Vec<Breach> {
    if allowed(FASTWEBSOCKETS, &source.path) {
        return Vec::new();
    }
    named(
        source,
        "fastwebsockets",
        "only src/session/socket.rs speaks to the codec",
    )
}

/// What the socket of a session is, is known in one file.
pub(crate) fn session_sockets(source: &Source) -> Vec<Breach> {
    let is_near = SESSION_SOCKETS.iter().any(|at| source.path.starts_with(at));
    if !is_near || source.path == SESSION_SOCKET_FILE {
        return Vec::new();
    }
    named(
        source,
        "TcpStream",
        "a session may have another socket than this: go through src/worker/stream.rs",
    )
}

/// The Redis client is wrapped once.
pub(crate) fn fred(source: &Source) -> Vec<Breach> {
    if !allowed(FRED, &source.path) {
        return named(
            source,
            "fred",
            "this file may not speak to Redis: go through the broker",
        );
    }
    if source.path == FRED_BUILDER {
        return Vec::new();
    }
    let builds = |path: &&super::source::CodePath| {
        let last_two = path.segments.windows(2).last();
        let names = |word: &str| path.segments.iter().any(|s| s == word);
        // tokio's runtimes have a builder too.
        (names("Builder") && !names("runtime"))
            || last_two.is_some_and(|w| w[0].ends_with("Client") && w[1] == "new")
    };
    let breach = |path: &super::source::CodePath| {
        source.breach(
            path.line,
            "builds a client of Redis: only src/redis/clients.rs does",
        )
    };
    source
        .code_paths()
        .iter()
        .filter(builds)
        .map(breach)
        .collect()
}

/// What a collector is spoken to with is known in one place.
pub(crate) fn otlp(source: &Source) -> Vec<Breach> {
    if allowed(OTLP, &source.path) {
        return Vec::new();
    }
    let what = "only src/telemetry/otlp speaks to collectors";
    let breaches = OTLP_CRATES.iter().map(|name| named(source, name, what));
    breaches.flatten().collect()
}

/// Macros that write a line to the log.
const LOG_MACROS: &[&str] = &["trace", "debug", "info", "warn", "error"];

/// Each line of the log begins with the stable name of what happened.
pub(crate) fn log_events(source: &Source) -> Vec<Breach> {
    let words = source.tokens.windows(5);
    let is_line = |w: &&[super::source::Token]| {
        LOG_MACROS.contains(&w[0].text.as_str()) && w[1].text == "!" && w[2].text == "("
    };
    words
        .filter(is_line)
        .filter(|w| w[3].text != "event" || w[4].text != "=")
        .map(|w| source.breach(w[0].line, "a line of the log without `event =` at its head"))
        .collect()
}

/// An error goes into the log with what caused it, which its own text may not say.
pub(crate) fn logged_errors(source: &Source) -> Vec<Breach> {
    let words = source.tokens.windows(2);
    let is_text = |w: &&[super::source::Token]| w[0].text == "%" && w[1].text == "error";
    let what = "an error without its causes: `error = &error as &(dyn Error + 'static)`";
    words
        .filter(is_text)
        .map(|w| source.breach(w[0].line, what))
        .collect()
}

fn named(source: &Source, word: &str, what: &str) -> Vec<Breach> {
    let words = source.tokens.iter().filter(|token| token.text == word);
    words.map(|token| source.breach(token.line, what)).collect()
}

fn allowed(list: &[(&str, &str)], path: &str) -> bool {
    list.iter().any(|(entry, _)| match entry.strip_suffix('*') {
        Some(prefix) => path.starts_with(prefix),
        None => path == *entry,
    })
}

/// What is tracked works on any machine.
pub(crate) fn no_machine_paths(path: &str, text: &str) -> Vec<Breach> {
    let begins = |line: &str, at: usize| {
        let before = line[..at].chars().next_back();
        before
            .is_none_or(|c| !c.is_alphanumeric() && !matches!(c, '_' | '-' | '.' | '/' | '$' | '}'))
    };
    in_lines(path, text, |line| {
        let found = MACHINE_PATHS
            .iter()
            .find(|dir| line.match_indices(**dir).any(|(at, _)| begins(line, at)))?;
        Some(format!("`{found}` is a place on one machine"))
    })
}

/// Packages are named, never where they are fetched from.
pub(crate) fn no_registry_hosts(path: &str, text: &str) -> Vec<Breach> {
    in_lines(path, text, |line| {
        let found = REGISTRY_HOSTS.iter().find(|host| line.contains(**host))?;
        Some(format!(
            "`{found}` is the host of a registry: name the package instead"
        ))
    })
}

fn in_lines(path: &str, text: &str, find: impl Fn(&str) -> Option<String>) -> Vec<Breach> {
    let numbered = text.lines().enumerate();
    numbered
        .filter_map(|(index, line)| {
            Some(Breach {
                path: path.into(),
                line: index + 1,
                what: find(line)?,
            })
        })
        .collect()
}

#[test]
fn a_second_place_that_speaks_to_collectors_is_found() {
    let lines = |path, text| otlp(&Source::read(path, text).expect("Rust")).len();
    for planted in [
        "use tonic::Status;\n",
        "use opentelemetry_proto::tonic::trace;\n",
    ] {
        assert!(
            lines("src/telemetry/trace/span.rs", planted) > 0,
            "{planted}"
        );
        assert_eq!(
            lines("src/telemetry/otlp/spans.rs", planted),
            0,
            "{planted}"
        );
    }
    let near_miss = "//! No tonic.\nfn tonics() {}\n";
    assert_eq!(lines("src/node/mod.rs", near_miss), 0);
}

#[test]
fn a_second_file_that_knows_the_socket_of_a_session_is_found() {
    let lines = |path, text| session_sockets(&Source::read(path, text).expect("Rust")).len();
    let planted = "use tokio::net::TcpStream;\n";
    for path in ["src/worker/turn.rs", "src/session/echo.rs"] {
        assert_eq!(lines(path, planted), 1, "{path}");
    }
    assert_eq!(lines(SESSION_SOCKET_FILE, planted), 0);
    assert_eq!(lines("src/ingress/listener.rs", planted), 0);
    let near_miss = "//! No TcpStream.\nuse crate::worker::stream::Stream;\n";
    assert_eq!(lines("src/session/echo.rs", near_miss), 0);
}
