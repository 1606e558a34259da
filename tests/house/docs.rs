//! The documents against the code: what they show can be read, and what they list is all there is.
//!
//! In: the Markdown files of the repository, and the sources as text and as a library. Out: a
//! failure that names the page and the word. Nothing here starts a node; examples of the HTTP API
//! are run by `tests/api`, and the pages that are made from the code are held there and in
//! `tests/cli/config`.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::path::Path;

use fanfare::telemetry::metrics::Metrics;
use fanfare_protocol::close::CloseReason;
use fanfare_protocol::codec;
use fanfare_protocol::error::ErrorCode;
use fanfare_protocol::form::Encoding;
use fanfare_protocol::ids::Topic;
use serde_json::Value;

mod metric_names;
pub(crate) mod pages;

use pages::{
    ROOT, blocks, code_text, files_below, pages, quoted, read, rows, section, text_of, unquote,
};

fn snake(name: &str) -> String {
    let mut out = String::new();
    for letter in name.chars() {
        if letter.is_uppercase() && !out.is_empty() {
            out.push('_');
        }
        out.extend(letter.to_lowercase());
    }
    out
}

/// The variants of an enum of the protocol, each with the names of its fields. A variant that
/// wraps a struct of the same file has that struct's.
fn variants(name: &str) -> Vec<(String, Vec<String>)> {
    let is_it = |item: &syn::Item| matches!(item, syn::Item::Enum(found) if found.ident == name);
    let files = files_below("crates/protocol/src");
    let rust = files
        .iter()
        .filter(|p| p.extension().is_some_and(|e| e == "rs"));
    let file = rust
        .map(|path| syn::parse_file(&text_of(path)).expect("a source that compiles"))
        .find(|file| file.items.iter().any(is_it))
        .unwrap_or_else(|| panic!("no enum {name} in crates/protocol"));
    let Some(syn::Item::Enum(found)) = file.items.iter().find(|item| is_it(item)) else {
        unreachable!("the file was chosen for it");
    };
    let fields = |fields: &syn::Fields| -> Vec<String> {
        let names = fields.iter().filter_map(|field| field.ident.as_ref());
        names.map(ToString::to_string).collect()
    };
    let of_struct = |name: &str| {
        file.items.iter().find_map(|item| match item {
            syn::Item::Struct(found) if found.ident == name => Some(fields(&found.fields)),
            _ => None,
        })
    };
    let of_variant = |variant: &syn::Variant| match &variant.fields {
        syn::Fields::Unnamed(_) => {
            of_struct(&variant.ident.to_string()).expect("a struct of the same name")
        }
        named => fields(named),
    };
    let all = found.variants.iter();
    all.map(|v| (snake(&v.ident.to_string()), of_variant(v)))
        .collect()
}

fn kind(example: &Value) -> &str {
    example["type"].as_str().expect("an example has a type")
}

#[test]
fn every_command_example_is_read_by_the_codec_and_every_command_has_one() {
    let page = read("docs/protocol.md");
    let mut shown = BTreeSet::new();
    for example in blocks(&page, "json command") {
        let envelope = codec::decode(Encoding::Json, example.as_bytes())
            .unwrap_or_else(|malformed| panic!("{example}: {malformed:?}"));
        assert!(envelope.id.is_some(), "{example}");
        let value: Value = serde_json::from_str(example).unwrap();
        shown.insert(kind(&value).to_owned());
    }
    let commands = variants("Command");
    let known: BTreeSet<_> = commands.iter().map(|(name, _)| name.clone()).collect();
    assert_eq!(shown, known);
}

#[test]
fn the_table_of_commands_names_every_field() {
    let page = read("docs/protocol.md");
    let table = rows(section(&page, "## Commands"));
    for (command, fields) in variants("Command") {
        let row = table
            .iter()
            .find(|row| row[0].contains(&format!("`{command}`")));
        let row = row.unwrap_or_else(|| panic!("no row for {command}"));
        let named: BTreeSet<_> = quoted(&row[1]).into_iter().map(str::to_owned).collect();
        assert_eq!(named, fields.into_iter().collect(), "{command}");
    }
}

#[test]
fn every_event_has_examples_whose_fields_the_code_knows() {
    let page = read("docs/protocol.md");
    let events = variants("Event");
    let mut shown = BTreeSet::new();
    for example in blocks(&page, "json event") {
        let value: Value = serde_json::from_str(example).unwrap();
        let (name, fields) = events
            .iter()
            .find(|(name, _)| name == kind(&value))
            .unwrap_or_else(|| panic!("no such event: {example}"));
        for field in value.as_object().unwrap().keys() {
            let known = field == "type" || fields.contains(field);
            assert!(known, "`{name}` has no field `{field}`");
            shown.insert((name.clone(), field.clone()));
        }
    }
    let text: BTreeSet<_> = quoted(&page).into_iter().collect();
    for (event, fields) in events {
        assert!(shown.contains(&(event.clone(), "type".into())), "{event}");
        for field in fields {
            let is_told = text.contains(&*field) || shown.contains(&(event.clone(), field.clone()));
            assert!(is_told, "nothing tells of `{field}` in `{event}`");
        }
    }
}

#[test]
fn the_reasons_of_gaps_and_the_priorities_are_those_of_the_code() {
    let page = read("docs/protocol.md");
    let table = rows(section(&page, "### gap"));
    let listed: BTreeSet<_> = table
        .iter()
        .map(|row| unquote(&row[0]).to_owned())
        .collect();
    let reasons = variants("GapReason");
    assert_eq!(listed, reasons.into_iter().map(|(name, _)| name).collect());
    for (priority, _) in variants("Priority") {
        assert!(quoted(&page).contains(&&*priority), "{priority}");
    }
}

#[test]
fn the_table_of_error_codes_is_that_of_the_code() {
    let page = read("docs/protocol.md");
    let mut listed = BTreeSet::new();
    for row in rows(section(&page, "## Error codes")) {
        let name = unquote(&row[0]).to_owned();
        let code: ErrorCode = serde_json::from_value(name.clone().into())
            .unwrap_or_else(|_| panic!("there is no code `{name}`"));
        assert_eq!(row[1], code.status().to_string(), "{name}");
        assert_eq!(row[2], if code.retry() { "yes" } else { "no" }, "{name}");
        listed.insert(name);
    }
    let codes = ErrorCode::ALL
        .into_iter()
        .map(|code| code.name().to_owned());
    assert_eq!(listed, codes.collect());
}

#[test]
fn the_table_of_close_codes_is_that_of_the_code() {
    let page = read("docs/protocol.md");
    let listed: BTreeSet<_> = rows(section(&page, "## Close codes"))
        .into_iter()
        .map(|row| (row[0].clone(), row[1].clone()))
        .collect();
    let sent = CloseReason::ALL.into_iter().filter_map(|reason| {
        let code = reason.code()?;
        Some((code.to_string(), reason.text().to_owned()))
    });
    assert_eq!(listed, sent.collect());
}

#[test]
fn the_test_vectors_of_partitions_are_those_of_the_code() {
    let page = read("docs/protocol.md");
    let vectors = rows(section(&page, "## Partitions"));
    assert!(vectors.len() >= 3);
    for row in vectors {
        let name = unquote(&row[0]);
        let topic = Topic::from_qualified(name).unwrap_or_else(|| panic!("no topic: {name}"));
        assert_eq!(
            row[1],
            crc32fast::hash(name.as_bytes()).to_string(),
            "{name}"
        );
        assert_eq!(row[2], topic.partition(256).to_string(), "{name}");
    }
}

#[test]
fn every_dependency_has_its_line_and_no_other() {
    let page = read("docs/dependencies.md");
    let tables = [
        ("dependencies", "## For the program"),
        ("dev-dependencies", "## For the tests"),
    ];
    let [program, tests] = tables.map(|(table, heading)| {
        let listed = section(&page, heading).lines();
        let listed = listed.filter_map(|line| line.strip_prefix("- `")?.split('`').next());
        let listed: Vec<_> = listed.map(str::to_owned).collect();
        let once: BTreeSet<_> = listed.iter().cloned().collect();
        assert_eq!(once.len(), listed.len(), "{heading}: twice");
        (once, dependencies(table))
    });
    assert_eq!(program.0, program.1);
    // What the program has needs no second line.
    let of_tests: BTreeSet<_> = tests.1.difference(&program.1).cloned().collect();
    assert_eq!(tests.0, of_tests);
}

/// What all crates of the repository have in this table, without each other. All that
/// `crates/testkit` needs is for the tests.
fn dependencies(table: &str) -> BTreeSet<String> {
    let manifests = ["crates", "clients"].into_iter().flat_map(files_below);
    let manifests = manifests.filter(|path| path.ends_with("Cargo.toml"));
    let root = Path::new(ROOT).join("Cargo.toml");
    let mut all = BTreeSet::new();
    for path in manifests.chain([root]) {
        let manifest: toml::Table = text_of(&path).parse().expect("a manifest");
        let is_for_tests = path.ends_with("testkit/Cargo.toml");
        let table = match (is_for_tests, table) {
            (false, table) => table,
            (true, "dev-dependencies") => "dependencies",
            (true, _) => continue,
        };
        if let Some(table) = manifest.get(table).and_then(toml::Value::as_table) {
            all.extend(
                table
                    .keys()
                    .filter(|name| !name.starts_with("fanfare"))
                    .cloned(),
            );
        }
    }
    all
}

#[test]
fn every_link_leads_to_a_file_and_a_heading() {
    for (path, page) in pages() {
        let folder = Path::new(ROOT).join(&path);
        let folder = folder.parent().unwrap();
        for target in page
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split(')').next())
        {
            if target.contains("://") {
                continue;
            }
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            let found = match file {
                "" => Path::new(ROOT).join(&path),
                file => folder.join(file),
            };
            assert!(found.exists(), "{path}: {target}");
            if !anchor.is_empty() {
                let text = std::fs::read_to_string(found).unwrap();
                assert!(anchors(&text).contains(anchor), "{path}: {target}");
            }
        }
    }
}

/// The names under which a page's headings can be reached.
fn anchors(page: &str) -> BTreeSet<String> {
    let headings = page.lines().filter(|line| line.starts_with('#'));
    let kept = |c: &char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_');
    let anchor = |line: &str| -> String {
        let text = line.trim_start_matches('#').trim().to_lowercase();
        text.chars()
            .filter(kept)
            .collect::<String>()
            .replace(' ', "-")
    };
    headings.map(anchor).collect()
}

#[test]
fn every_file_that_a_page_names_is_there() {
    let roots = [
        "src/",
        "tests/",
        "docs/",
        "scripts/",
        "examples/",
        "benches/",
        "crates/",
        "helm/",
        "k8s/",
        "terraform/",
    ];
    for (path, page) in pages() {
        for word in quoted(&page) {
            let is_path = roots.iter().any(|root| word.starts_with(root));
            if is_path && !word.contains(['*', ' ', '{', '…']) {
                assert!(Path::new(ROOT).join(word).exists(), "{path}: `{word}`");
            }
        }
    }
}

#[test]
fn every_test_that_a_page_names_is_there() {
    let text = code_text();
    for (path, page) in pages() {
        for word in quoted(&page) {
            let is_name = word
                .bytes()
                .all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_'));
            let is_long = word.matches('_').count() >= 4;
            if !is_name || !is_long || word.starts_with("fanfare_") {
                continue;
            }
            // Names of figures and of Terraform's variables are as long, and stand in the code as text.
            if !text.contains(&format!("\"{word}\"")) {
                assert!(text.contains(&format!("fn {word}(")), "{path}: `{word}`");
            }
        }
    }
}

/// R8: a hundred error scenarios, each handled. That the file of a test also has the words of the
/// answer catches a row whose answer has changed.
#[test]
fn the_table_of_bad_input_has_a_hundred_rows_that_tests_hold() {
    let tests: Vec<_> = files_below("tests")
        .iter()
        // Python keeps what it compiled beside its scripts, and that is no text.
        .filter(|path| path.extension().is_some_and(|is| is == "rs"))
        .map(|path| text_of(path))
        .collect();
    let rows = rows(&read("docs/errors.md"));
    let inputs: BTreeSet<_> = rows.iter().map(|row| &row[0]).collect();
    assert_eq!(inputs.len(), rows.len(), "an input stands there twice");
    assert!(rows.len() >= 100, "{} rows", rows.len());
    for row in &rows {
        let function = format!("async fn {}(", unquote(&row[2]));
        let text = tests.iter().find(|text| text.contains(&function));
        let text = text.unwrap_or_else(|| panic!("no test: {row:?}"));
        let words = quoted(&row[1]);
        // As a word of its own: `4003` is not held by `14003`.
        let is_told = |word: &&str| {
            let is_letter = |c: char| c.is_ascii_alphanumeric() || c == '_';
            text.match_indices(*word).any(|(at, _)| {
                !text[..at].ends_with(is_letter) && !text[at + word.len()..].starts_with(is_letter)
            })
        };
        assert!(words.iter().all(is_told), "not in the test: {row:?}");
        let is_bare = row[1].starts_with("the connection ends");
        assert!(is_bare || !words.is_empty(), "no answer: {row:?}");
    }
}

/// What the shipped code logs, by the text of its macros.
fn logged_events() -> BTreeSet<String> {
    let files = ["src", "crates", "clients"]
        .into_iter()
        .flat_map(files_below);
    let shipped = files.filter(|path| {
        let path = path.to_string_lossy();
        path.ends_with(".rs") && !path.contains("tests") && !path.contains("simulation")
    });
    let mut events = BTreeSet::new();
    for path in shipped {
        let text = text_of(&path);
        let code = text
            .split("#[cfg(test)]\nmod tests {")
            .next()
            .unwrap_or_default();
        let found = code.split("event = \"").skip(1);
        events.extend(found.filter_map(|rest| Some(rest.split('"').next()?.to_owned())));
    }
    events
}

#[test]
fn the_table_of_log_events_is_that_of_the_code() {
    let page = read("docs/development.md");
    let table = rows(section(&page, "### What the log says"));
    let told = table.iter().flat_map(|row| quoted(&row[0]));
    let told: BTreeSet<_> = told.map(str::to_owned).collect();
    assert_eq!(told, logged_events());
}

#[test]
fn every_log_event_is_what_happened_to_something() {
    const IRREGULAR: [&str; 13] = [
        "broke", "broken", "futile", "gone", "left", "lost", "misread", "off", "overran", "read",
        "stuck", "taken", "written",
    ];
    for event in logged_events() {
        let last = event.rsplit('_').next().unwrap_or_default();
        let is_past = last.ends_with("ed") || IRREGULAR.contains(&last);
        assert!(event.contains('_') && is_past, "{event}");
    }
}

/// The page of metrics as the code has it.
fn metrics_page() -> String {
    let mut page = "# Metrics\n\nWhat `GET /metrics` tells, as Prometheus text 0.0.4, or as OpenMetrics 1.0 where \
                    `Accept` asks for it. This page is made from the code; `tests/house/docs.rs` holds the two \
                    together. Labels have fixed words, never a topic or a user.\n\n\
                    | metric | kind | labels | says |\n|---|---|---|---|\n"
        .to_owned();
    for family in Metrics::new(1).families() {
        let mut labels: Vec<String> = Vec::new();
        for (label, value) in family.samples.iter().flat_map(|s| &s.labels) {
            let told = match value {
                Cow::Borrowed(word) => format!("`{label}=\"{word}\"`"),
                // What a node knows when it starts.
                Cow::Owned(_) => format!("`{label}`"),
            };
            if !labels.contains(&told) {
                labels.push(told);
            }
        }
        let (name, kind, help) = (family.name, family.kind.word(), family.help);
        let labels = labels.join(", ");
        page.push_str(&format!("| `{name}` | {kind} | {labels} | {help} |\n"));
    }
    page
}

#[test]
fn the_page_of_metrics_is_that_of_the_code() {
    let path = Path::new(ROOT).join("docs/metrics.md");
    let page = metrics_page();
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&path, &page).expect("the page can be written");
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        kept == page,
        "docs/metrics.md is not what the code says; `BLESS=1 cargo test --test house metric` writes it"
    );
}

/// The words of a line of shell: quotes are taken off, and what follows a pipe, a redirection or
/// a comment is left out.
fn words(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quote = None;
    for letter in line.chars() {
        match (quote, letter) {
            (Some(open), _) if open == letter => quote = None,
            (None, '\'' | '"') => quote = Some(letter),
            (None, '|' | '>' | '#' | '&') => break,
            (None, ' ') => words.push(String::new()),
            _ => words.last_mut().expect("never empty").push(letter),
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

#[test]
fn every_command_line_that_a_page_shows_is_one() {
    let mut shown = 0;
    for (path, page) in pages() {
        for line in blocks(&page, "sh").into_iter().flat_map(str::lines) {
            let of_binary = ["fanfare ", "target/debug/fanfare ", "cargo run -- "]
                .iter()
                .find_map(|start| line.strip_prefix(start));
            let Some(arguments) = of_binary else { continue };
            let arguments = words(arguments);
            let all = std::iter::once("fanfare".to_owned()).chain(arguments);
            if let Err(error) = <fanfare::cli::Cli as clap::Parser>::try_parse_from(all) {
                panic!("{path}: {line}\n{error}");
            }
            shown += 1;
        }
    }
    assert!(shown > 5, "{shown} command lines are shown");
}
