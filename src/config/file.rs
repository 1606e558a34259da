//! The file as a source: one TOML file whose sections and keys are those of the table.
//!
//! In: the file's text. Out: values with the place of each, and a fault with file, line and column
//! for all that is no key, has the wrong type or is out of range. A file that is no TOML yields
//! the faults of its syntax and no values. A message about TOML never quotes the file, which may
//! hold secrets.

use std::collections::BTreeSet;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::config::app_reader;
use crate::config::authorizer;
use crate::config::authorizers;
use crate::config::client_list;
use crate::config::faults::{Faults, did_you_mean};
use crate::config::file_text::{File, in_order};
use crate::config::inputs::Inputs;
use crate::config::issuers;
use crate::config::key::Key;
use crate::config::keys;
use crate::config::sections;
use crate::config::token_keys;
use crate::config::values::Values;

/// Reads a file over what is in `values`. Returns the names of the variables that it takes
/// secrets from; `None` where it could not be read.
pub fn read(
    path: &Path,
    inputs: &Inputs,
    values: &mut Values,
    faults: &mut Faults,
) -> Option<BTreeSet<String>> {
    let mut used = BTreeSet::new();
    let text = text_of(path, faults)?;
    let file = File {
        path,
        text: &text,
        paths: None,
    };
    let (root, errors) = DeTable::parse_recoverable(&text);
    for error in &errors {
        let place = file.place(error.span().unwrap_or_default());
        let what = format!("not TOML: {}", error.message());
        faults.push(place, what, "mend the line");
    }
    if !errors.is_empty() {
        return None;
    }
    for (name, value) in in_order(root.get_ref()) {
        match (name.get_ref().as_ref(), value.get_ref()) {
            ("namespaces", DeValue::Table(all)) => sections::namespaces(&file, all, values, faults),
            (authorizer::PATH, _) => {
                used.extend(authorizers::read(&file, value, inputs, values, faults));
            }
            ("apps", DeValue::Table(all)) => {
                used.extend(app_reader::read_all(&file, all, inputs, values, faults));
            }
            (section, DeValue::Table(table)) if keys::sections().contains(&section) => {
                section_of(&file, section, table, values, faults);
                let list = |of: &str, name| (section == of).then(|| table.get(name)).flatten();
                if let Some(list) = list("auth", "keys") {
                    used.extend(token_keys::read(&file, list, inputs, values, faults));
                }
                if let Some(list) = list("auth", "issuers") {
                    used.extend(issuers::read(&file, list, inputs, values, faults));
                }
                if let Some(list) = list("api", "clients") {
                    client_list::read(&file, list, values, faults);
                }
            }
            (name_text, _) => unknown_section(&file, name_text, name, value, faults),
        }
    }
    Some(used)
}

fn text_of(path: &Path, faults: &mut Faults) -> Option<String> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(cause) => {
            let what = format!("cannot be read: {cause}");
            let remedy = "name a file that can be read, or leave --config and FANFARE_CONFIG out";
            faults.push(path.display().to_string(), what, remedy);
            return None;
        }
    };
    let error = match String::from_utf8(bytes) {
        Ok(text) => return Some(text),
        Err(error) => error,
    };
    let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
    let line = good.iter().filter(|byte| **byte == b'\n').count() + 1;
    let place = format!("{}:{line}", path.display());
    faults.push(
        place,
        "there are bytes that are not UTF-8",
        "save the file as UTF-8",
    );
    None
}

fn section_of(
    file: &File<'_>,
    section: &str,
    table: &DeTable<'_>,
    values: &mut Values,
    faults: &mut Faults,
) {
    for (name, value) in in_order(table) {
        let path = format!("{section}.{}", name.get_ref());
        if path == "auth.keys" || path == "auth.issuers" || path == client_list::PATH {
            continue;
        }
        match keys::find(&path) {
            Some(key) => sections::set(file, key, path, value, values, faults),
            None => {
                let remedy = did_you_mean(&path, keys::all().iter().map(Key::path));
                let place = file.place(name.span());
                faults.push(place, format!("{path} is no key"), remedy);
            }
        }
    }
}

fn unknown_section(
    file: &File<'_>,
    name: &str,
    name_at: &Spanned<std::borrow::Cow<'_, str>>,
    value: &Spanned<DeValue<'_>>,
    faults: &mut Faults,
) {
    let place = file.place(name_at.span());
    if matches!(value.get_ref(), DeValue::Table(_) | DeValue::Array(_)) {
        let known = keys::sections().into_iter().chain(["namespaces", "apps"]);
        let remedy = did_you_mean(
            &format!("[{name}]"),
            known.map(|known| format!("[{known}]")),
        );
        faults.push(place, format!("[{name}] is no section"), remedy);
    } else {
        // The likeliest cause is a key that lost its section, so only the names are compared.
        let nearest = keys::all()
            .iter()
            .min_by_key(|key| strsim::damerau_levenshtein(name, key.name))
            .map_or_else(String::new, Key::path);
        let what = format!("{name} stands in no section");
        faults.push(place, what, format!("did you mean {nearest}?"));
    }
}
