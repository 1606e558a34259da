//! What is declared in a table must be used: keys of the configuration, and counters.
//!
//! In: all shipped files. Out: a breach for each key whose field nothing outside `src/config`
//! reads, and for each counter that nothing outside its table touches. The first would be a setting
//! that does nothing, the second a figure that is always 0.

use std::collections::HashSet;

use super::source::{Breach, Source, Token};

/// The file, and what lies below it.
const KEYS: &str = "src/config/keys";
const CONFIG: &str = "src/config";
/// The types of the sections, whose methods read fields for everybody.
const TYPES: &str = "src/config/mod.rs";
const COUNTERS: &str = "src/telemetry/metrics.rs";

/// A row of a table.
struct Row<'a> {
    /// The type whose field it is.
    of: &'a str,
    field: &'a str,
    line: usize,
}

/// Keys that nothing reads.
pub(crate) fn unread_keys(sources: &[&Source]) -> Vec<Breach> {
    unused(sources, KEYS, CONFIG, |row| {
        let (of, field) = (row.of, row.field);
        format!("the key {of}.{field} is read by nothing outside {CONFIG}: it does nothing")
    })
}

/// Counters that nothing counts.
pub(crate) fn unused_counters(sources: &[&Source]) -> Vec<Breach> {
    unused(sources, COUNTERS, COUNTERS, |row| {
        format!("the counter {} is counted by nothing", row.field)
    })
}

fn unused(
    sources: &[&Source],
    table: &str,
    own: &str,
    what: impl Fn(&Row<'_>) -> String,
) -> Vec<Breach> {
    let others = sources
        .iter()
        .filter(|source| !source.path.starts_with(own) || source.path == TYPES);
    let others: Vec<_> = others.map(|source| Words::of(source)).collect();
    let tables = sources
        .iter()
        .filter(|source| source.path.starts_with(table));
    let breaches = tables.flat_map(|source| {
        let rows = rows(&source.tokens).into_iter();
        let unused = rows.filter(|row| !others.iter().any(|other| other.touch(row)));
        unused.map(|row| source.breach(row.line, what(&row)))
    });
    breaches.collect()
}

/// What a file says: every word, and the fields that it accesses as `.field`.
struct Words<'a> {
    all: HashSet<&'a str>,
    fields: HashSet<&'a str>,
}

impl<'a> Words<'a> {
    fn of(source: &'a Source) -> Self {
        let text = |token: &'a Token| token.text.as_str();
        let accessed = source.tokens.windows(3).filter_map(|three| {
            let is_access = three[0].text == "." && three[2].text != "(";
            is_access.then(|| text(&three[1]))
        });
        Self {
            all: source.tokens.iter().map(text).collect(),
            fields: accessed.collect(),
        }
    }

    /// Whether the file knows the type, or a field called like it, and accesses the field.
    fn touch(&self, row: &Row<'_>) -> bool {
        let section = row.of.to_ascii_lowercase();
        let is_counter = row.of.ends_with("Counters");
        let knows = is_counter || self.all.contains(row.of) || self.all.contains(&*section);
        knows && self.fields.contains(row.field)
    }
}

/// The rows `field: "…"` of `=> Type { … }`, and of types called `…Counters`.
fn rows(tokens: &[Token]) -> Vec<Row<'_>> {
    let mut rows = Vec::new();
    let mut of = "";
    for four in tokens.windows(4) {
        let [before, first, second, third] = four else {
            continue;
        };
        let is_table = before.text.ends_with('>') || first.text.ends_with("Counters");
        let is_type = first.text.starts_with(|c: char| c.is_ascii_uppercase());
        let is_field = first.text.starts_with(|c: char| c.is_ascii_lowercase());
        if is_type && second.text == "{" {
            of = if is_table { &first.text } else { "" };
        } else if is_field && second.text == ":" && third.text == "\"" && !of.is_empty() {
            rows.push(Row {
                of,
                field: &first.text,
                line: first.line,
            });
        }
    }
    rows
}
