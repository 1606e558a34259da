//! Pages and sources as text: sections, tables, code blocks, and what stands between backticks.

use std::path::{Path, PathBuf};

pub(crate) const ROOT: &str = env!("CARGO_MANIFEST_DIR");

pub(crate) fn read(path: &str) -> String {
    text_of(&Path::new(ROOT).join(path))
}

pub(crate) fn text_of(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every page: the README and what stands in `docs`.
pub(crate) fn pages() -> Vec<(String, String)> {
    let mut paths = vec!["README.md".to_owned()];
    for entry in std::fs::read_dir(Path::new(ROOT).join("docs")).expect("the folder docs") {
        let name = entry.expect("an entry of docs").file_name();
        let name = name.to_string_lossy();
        if name.ends_with(".md") {
            paths.push(format!("docs/{name}"));
        }
    }
    assert!(paths.len() > 5, "{paths:?}");
    paths.into_iter().map(|p| (p.clone(), read(&p))).collect()
}

/// The text of a section, up to the next heading of the same or a higher level.
pub(crate) fn section<'a>(page: &'a str, heading: &str) -> &'a str {
    let level = heading.chars().take_while(|c| *c == '#').count();
    let start = page
        .find(&format!("\n{heading}\n"))
        .unwrap_or_else(|| panic!("no section {heading}"));
    let body = &page[start + heading.len() + 2..];
    let end = (1..=level)
        .filter_map(|level| body.find(&format!("\n{} ", "#".repeat(level))))
        .min();
    &body[..end.unwrap_or(body.len())]
}

/// The bodies of the code blocks with this info string.
pub(crate) fn blocks<'a>(page: &'a str, info: &str) -> Vec<&'a str> {
    let opening = format!("```{info}\n");
    let bodies = page.split(opening.as_str()).skip(1);
    bodies
        .map(|rest| rest.split("\n```").next().unwrap_or(rest))
        .collect()
}

/// The cells of the rows of the tables in a text, heads and rules left out.
pub(crate) fn rows(text: &str) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    let mut in_table = false;
    for line in text.lines() {
        let Some(inner) = line.strip_prefix("| ").or_else(|| line.strip_prefix("|")) else {
            in_table = false;
            continue;
        };
        if inner.starts_with("---") {
            in_table = true;
        } else if in_table {
            let inner = inner.strip_suffix('|').unwrap_or(inner);
            rows.push(
                inner
                    .split('|')
                    .map(|cell| cell.trim().to_owned())
                    .collect(),
            );
        }
    }
    rows
}

/// What stands between backticks, code blocks left out.
pub(crate) fn quoted(page: &str) -> Vec<&str> {
    let parts = page.split("```").step_by(2);
    parts
        .flat_map(|text| text.split('`').skip(1).step_by(2))
        .collect()
}

pub(crate) fn unquote(cell: &str) -> &str {
    cell.trim_matches('`')
}

/// The files of a folder and what is below it.
pub(crate) fn files_below(folder: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![Path::new(ROOT).join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry of a folder").path();
            if path.is_dir() {
                folders.push(path);
            } else {
                files.push(path);
            }
        }
    }
    files
}

/// All text of the repository in Rust and Terraform but this file.
pub(crate) fn code_text() -> String {
    let files = ["src", "crates", "clients", "tests", "terraform"]
        .into_iter()
        .flat_map(files_below);
    let code = files.filter(|p| p.extension().is_some_and(|e| e == "rs" || e == "tf"));
    let others = code.filter(|p| !p.ends_with("tests/house/docs.rs"));
    others.map(|p| text_of(&p)).collect()
}
