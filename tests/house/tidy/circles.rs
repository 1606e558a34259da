//! No circles between files: of two concepts one stands on the other, or both on a third.
//!
//! In: the paths in code outside tests of all shipped files of a crate. Out: a breach for each set
//! of files that import each other, by whatever way. Looked at are the files inside one top module,
//! because [`super::layers`] holds the top modules of the server, and all files of another crate. A
//! module and what lies below it are one concept, and so is what [`ONE_CONCEPT`] names.

use std::collections::{BTreeMap, BTreeSet};

use super::source::{Breach, Source};

/// Files that are one concept over several files, by the beginnings of their modules, and why.
#[rustfmt::skip]
const ONE_CONCEPT: &[(&[&str], &str)] = &[
    (&["config::key", "config::keys", "config::telemetry_keys", "config::values"],
        "the table makes the sections out of values, which know their keys by the table"),
    (&["session::state", "session::clock", "session::joining", "session::permission",
        "session::authorizing", "session::settings"],
        "one state machine: each adds methods to it"),
    (&["session::broker_calls", "session::opening"],
        "to open a session is one of its calls, made of others"),
    (&["broker::memory::topic", "broker::memory::presence"],
        "a topic has members, which are those of a topic"),
    (&["broker::redis::master", "broker::redis::feed", "broker::redis::link", "broker::redis::publications",
        "broker::redis::publisher", "broker::redis::supervisor"],
        "a master and its connections"),
    (&["cli::exit", "cli::output"],
        "what the command line says at its end"),
];

/// A file as a node of the graph.
struct Node<'a> {
    source: &'a Source,
    /// Up to its crate's sources, `src/` included.
    root: &'a str,
    module: Vec<&'a str>,
    /// Which files it imports, and on which line first.
    imports: BTreeMap<usize, usize>,
}

/// Sets of files that import each other.
pub(crate) fn circles(sources: &[&Source]) -> Vec<Breach> {
    let mut nodes: Vec<_> = sources.iter().filter_map(|source| node(source)).collect();
    let known: BTreeMap<_, _> = nodes
        .iter()
        .enumerate()
        .map(|(at, node)| ((node.root, node.module.clone()), at))
        .collect();
    for at in 0..nodes.len() {
        let mut imports = BTreeMap::new();
        for path in nodes[at].source.code_paths() {
            if let Some(to) = file_of(&nodes[at], &path.segments, &known)
                && !are_one_concept(&nodes[at], &nodes[to])
            {
                imports.entry(to).or_insert(path.line);
            }
        }
        nodes[at].imports = imports;
    }
    let reached: Vec<_> = (0..nodes.len()).map(|at| reached(&nodes, at)).collect();
    let mut told = BTreeSet::new();
    let mut breaches = Vec::new();
    for at in 0..nodes.len() {
        let circle: Vec<_> = reached[at]
            .iter()
            .copied()
            .filter(|other| reached[*other].contains(&at))
            .collect();
        if circle.is_empty() || !told.insert(circle.clone()) {
            continue;
        }
        let next = nodes[at].imports.iter().find(|(to, _)| circle.contains(to));
        let line = next.map_or(1, |(_, line)| *line);
        let names: Vec<_> = circle
            .iter()
            .map(|at| nodes[*at].module.join("::"))
            .collect();
        let what = format!(
            "{} import each other: move what both need to a file of its own",
            names.join(", ")
        );
        breaches.push(nodes[at].source.breach(line, what));
    }
    breaches
}

fn node(source: &Source) -> Option<Node<'_>> {
    let root_bytes = source.path.find("src/")? + "src/".len();
    let (root, inside) = source.path.split_at(root_bytes);
    let mut module: Vec<_> = inside.strip_suffix(".rs")?.split('/').collect();
    if matches!(module.last(), Some(&"mod" | &"lib" | &"main")) {
        module.pop();
    }
    Some(Node {
        source,
        root,
        module,
        imports: BTreeMap::new(),
    })
}

/// The file that a path leads to, if that is another one that is looked at together with this one.
fn file_of(
    from: &Node<'_>,
    path: &[String],
    known: &BTreeMap<(&str, Vec<&str>), usize>,
) -> Option<usize> {
    let supers_count = path
        .iter()
        .take_while(|segment| *segment == "super")
        .count();
    let begin = match path.first().map(String::as_str) {
        Some("crate") => &[][..],
        Some("super") => &from.module[..from.module.len().checked_sub(supers_count)?],
        _ => return None,
    };
    let rest = path.iter().skip(supers_count.max(1)).map(String::as_str);
    let mut full: Vec<_> = begin.iter().copied().chain(rest).collect();
    while !full.is_empty() {
        let key = (from.root, full);
        if let Some(at) = known.get(&key) {
            let is_server = from.root == "src/";
            return (!is_server || key.1.first() == from.module.first()).then_some(*at);
        }
        full = key.1;
        full.pop();
    }
    None
}

fn are_one_concept(one: &Node<'_>, other: &Node<'_>) -> bool {
    let is_above = |one: &Node<'_>, other: &Node<'_>| other.module.starts_with(&one.module);
    let belongs = |node: &Node<'_>, group: &[&str]| {
        let name = node.module.join("::");
        group.iter().any(|of| {
            name.strip_prefix(of)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
        })
    };
    let in_one = |(group, _): &(&[&str], &str)| belongs(one, group) && belongs(other, group);
    is_above(one, other)
        || is_above(other, one)
        || (one.root == "src/" && ONE_CONCEPT.iter().any(in_one))
}

/// What a file imports, and what that imports, and so on.
fn reached(nodes: &[Node<'_>], from: usize) -> BTreeSet<usize> {
    let mut reached = BTreeSet::new();
    let mut next: Vec<_> = nodes[from].imports.keys().copied().collect();
    while let Some(at) = next.pop() {
        if reached.insert(at) {
            next.extend(nodes[at].imports.keys());
        }
    }
    reached
}

/// How many circles are found in these files.
fn found(files: &[(&str, &str)]) -> usize {
    let sources: Vec<_> = files
        .iter()
        .map(|(path, text)| Source::read(path, text).expect("Rust"))
        .collect();
    circles(&sources.iter().collect::<Vec<_>>()).len()
}

#[test]
fn files_that_import_each_other_are_found() {
    let planted: [&[(&str, &str)]; 5] = [
        &[
            ("src/api/a.rs", "use super::b::B;"),
            ("src/api/b.rs", "use crate::api::a::A;"),
        ],
        &[
            ("src/api/a.rs", "fn a() { super::b::b() }"),
            ("src/api/b/mod.rs", "use super::c::{self, C};"),
            ("src/api/c.rs", "use crate::api::{a::A, d};"),
            ("src/api/d.rs", ""),
        ],
        &[
            ("src/api/a/one.rs", "use super::super::b::two::Two;"),
            ("src/api/b/two.rs", "use crate::api::a::one::One;"),
        ],
        &[
            ("crates/protocol/src/a.rs", "use super::b::B;"),
            ("crates/protocol/src/b.rs", "use crate::a::A;"),
        ],
        // What is one concept with this one, and that with a third, is no bridge between others.
        &[
            ("src/session/clock.rs", "use super::echo::E;"),
            ("src/session/echo.rs", "use super::clock::C;"),
        ],
    ];
    for files in planted {
        assert_eq!(found(files), 1, "{files:?}");
    }
}

#[test]
fn files_that_stand_on_each_other_or_are_one_concept_pass() {
    let near_misses: [&[(&str, &str)]; 7] = [
        &[
            ("src/api/a.rs", "use super::b::B; use super::c::C;"),
            ("src/api/b.rs", "use super::c::C;"),
            ("src/api/c.rs", ""),
        ],
        &[
            ("src/api/a.rs", "mod b; use b::B; use crate::api::a::b::C;"),
            ("src/api/a/b.rs", "use super::A;"),
        ],
        &[
            ("src/api/mod.rs", "mod a; use a::A;"),
            ("src/api/a.rs", "use super::Api;"),
        ],
        &[
            ("src/api/a.rs", "use super::b::B;"),
            (
                "src/api/b.rs",
                "// use super::a::A;\n#[cfg(test)]\nmod tests {\n    use crate::api::a::A;\n}",
            ),
        ],
        // For the layers to find.
        &[
            ("src/api/a.rs", "use crate::node::b::B;"),
            ("src/node/b.rs", "use crate::api::a::A;"),
        ],
        &[
            ("src/session/clock.rs", "use super::state::S;"),
            ("src/session/state.rs", "use super::clock::C;"),
        ],
        &[
            ("crates/protocol/src/a.rs", "use super::b::B;"),
            ("clients/rust/src/b.rs", "use super::a::A;"),
        ],
    ];
    for files in near_misses {
        assert_eq!(found(files), 0, "{files:?}");
    }
}
