//! `[[auth.keys]]`: the keys that tokens may be signed with, and where their material lies.
//!
//! In: the list as the file has it, variables and other files that it names. Out: a [`TokenKey`]
//! each that can be used, or a fault. The text of the material is never part of a fault.

use std::collections::BTreeSet;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::config::Secret;
use crate::config::environment::value_of;
use crate::config::faults::{Faults, did_you_mean};
use crate::config::file_text::{File, in_order};
use crate::config::forms::{EXAMPLE_SECRET, without_line_break};
use crate::config::inputs::{Inputs, UNUSABLE_REMEDY};
use crate::config::issuer::TokenKey;
use crate::config::values::{Origin, Values};

/// Algorithms whose material is a shared secret.
pub const WITH_SECRET: [&str; 3] = ["HS256", "HS384", "HS512"];
/// Algorithms whose material is a public key as PEM.
pub const WITH_PUBLIC_KEY: [&str; 4] = ["RS256", "PS256", "ES256", "EdDSA"];

/// The fields of an entry with what they mean.
pub const FIELDS: [(&str, &str); 8] = [
    (
        "id",
        "Matched against the token's kid, when both are there.",
    ),
    ("algorithm", "The one algorithm that the key allows."),
    ("secret", "The secret itself (HS), at least 32 bytes."),
    ("secret_env", "The name of the variable that holds it."),
    (
        "secret_file",
        "The file that holds it; one newline at its end is left out.",
    ),
    ("public_key", "The public key as PEM (all others)."),
    ("public_key_env", "The name of the variable that holds it."),
    ("public_key_file", "The file that holds it."),
];

/// Reads a secret or a key from a file. One line break at its end is left out.
///
/// # Errors
/// The file cannot be read, or what is in it is no text that both sides would take for the same.
pub fn read_material(path: &Path) -> io::Result<String> {
    let unusable = |why: &'static str| Err(io::Error::new(io::ErrorKind::InvalidData, why));
    let Ok(text) = String::from_utf8(std::fs::read(path)?) else {
        return unusable("it is not UTF-8 text; write bytes as text, by openssl rand -base64 48");
    };
    if text.starts_with('\u{feff}') {
        return unusable("it begins with a byte order mark; save it without");
    }
    let text = without_line_break(&text);
    match text {
        "" => unusable("it is empty"),
        _ if text.ends_with(['\n', '\r']) => {
            unusable("it ends in empty lines, which other programs may take for a part of it")
        }
        _ if text.contains('\0') => unusable("it has a zero byte, so it is no text"),
        _ => Ok(text.to_owned()),
    }
}

/// One entry while it is read.
struct Entry<'a> {
    file: &'a File<'a>,
    place: String,
    /// `auth.keys[0]`, for faults.
    path: String,
    texts: Vec<(&'a str, &'a str, String)>,
}

/// Reads `[[auth.keys]]` and returns the names of the variables that it used.
pub fn read(
    file: &File<'_>,
    list: &Spanned<DeValue<'_>>,
    inputs: &Inputs,
    values: &mut Values,
    faults: &mut Faults,
) -> BTreeSet<String> {
    let faults_before = faults.0.len();
    values.watch_files(files(file, list));
    let at = values.shown("auth.keys");
    let (keys, used) = read_list(file, list, &at, inputs, faults);
    if faults.0.len() > faults_before {
        values.refuse("auth.keys".to_owned());
    }
    for (key, origin) in keys {
        values.add_token_key(key, origin);
    }
    used
}

/// The tables of a list, each with its place; `None` where it is none.
pub(super) fn tables<'a>(
    list: &'a Spanned<DeValue<'a>>,
) -> Option<Vec<(Range<usize>, &'a DeTable<'a>)>> {
    let items = list.get_ref().as_array()?.iter();
    items
        .map(|item| Some((item.span(), item.get_ref().as_table()?)))
        .collect()
}

/// The files that a list of keys names.
pub(super) fn files(file: &File<'_>, list: &Spanned<DeValue<'_>>) -> Vec<PathBuf> {
    if file.is_from_caller() {
        return Vec::new();
    }
    let directory = file.path.parent().unwrap_or(file.path);
    let tables = tables(list).unwrap_or_default().into_iter();
    let names = tables.flat_map(|(_, table)| {
        let fields = ["secret_file", "public_key_file"];
        fields.map(|field| table.get(field).and_then(|value| value.get_ref().as_str()))
    });
    names.flatten().map(|name| directory.join(name)).collect()
}

/// Reads a list of keys that stands at `at`. Returns those that can be used, and the names of the
/// variables that they use.
pub(super) fn read_list(
    file: &File<'_>,
    list: &Spanned<DeValue<'_>>,
    at: &str,
    inputs: &Inputs,
    faults: &mut Faults,
) -> (Vec<(TokenKey, Origin)>, BTreeSet<String>) {
    let (mut keys, mut used) = (Vec::new(), BTreeSet::new());
    let mut ids = BTreeSet::new();
    let Some(tables) = tables(list) else {
        let what = format!("{at} is no list of tables");
        let remedy = format!("write [[{}]] once for each key", without_indices(at));
        faults.push(file.place(list.span()), what, remedy);
        return (keys, used);
    };
    for (index, (span, table)) in tables.into_iter().enumerate() {
        let faults_before = faults.0.len();
        let path = format!("{at}[{index}]");
        let entry = Entry::new(file, file.place(span), path, table, faults);
        let variables = ["secret_env", "public_key_env"].into_iter();
        used.extend(variables.filter_map(|name| entry.text(name).map(str::to_owned)));
        let key = match entry.is_refused_of_caller(faults) {
            true => None,
            false => entry.token_key(inputs, faults),
        };
        if let Some(id) = entry.text("id")
            && !ids.insert(id.to_owned())
        {
            let what = format!("{}.id {id:?} is taken by an earlier key", entry.path);
            faults.push(entry.place_of("id"), what, "give each key its own id");
        }
        if let Some(key) = key
            && faults.0.len() == faults_before
        {
            keys.push((key, Origin::File(entry.place)));
        }
    }
    (keys, used)
}

/// `auth.issuers.keys` for `auth.issuers[0].keys`.
fn without_indices(path: &str) -> String {
    let parts = path
        .split('.')
        .map(|part| part.split('[').next().unwrap_or(part));
    parts.collect::<Vec<_>>().join(".")
}

impl<'a> Entry<'a> {
    fn new(
        file: &'a File<'a>,
        place: String,
        path: String,
        table: &'a DeTable<'_>,
        faults: &mut Faults,
    ) -> Self {
        let mut texts = Vec::new();
        for (name, value) in in_order(table) {
            let name_text = name.get_ref().as_ref();
            let known = FIELDS.iter().any(|(known, _)| *known == name_text);
            match value.get_ref().as_str() {
                _ if !known => {
                    let fields = FIELDS.iter().map(|(known, _)| format!("{path}.{known}"));
                    let what = format!("{path}.{name_text}");
                    let remedy = did_you_mean(&what, fields);
                    faults.push(file.place(name.span()), format!("{what} is no key"), remedy);
                }
                Some(text) if !text.is_empty() => {
                    texts.push((name_text, text, file.place(value.span())));
                }
                _ => {
                    let what = format!("{path}.{name_text} is no text, or empty");
                    faults.push(file.place(value.span()), what, "give text in quotes");
                }
            }
        }
        Self {
            file,
            place,
            path,
            texts,
        }
    }

    /// Where paths in the file are taken from.
    fn directory(&self) -> &Path {
        self.file.path.parent().unwrap_or(self.file.path)
    }

    fn text(&self, name: &str) -> Option<&'a str> {
        let found = self.texts.iter().find(|(known, ..)| *known == name);
        found.map(|(_, text, _)| *text)
    }

    fn place_of(&self, name: &str) -> String {
        let found = self.texts.iter().find(|(known, ..)| *known == name);
        found.map_or_else(|| self.place.clone(), |(.., place)| place.clone())
    }

    /// Whether it names a file or a variable of this machine and came from a caller of the API.
    fn is_refused_of_caller(&self, faults: &mut Faults) -> bool {
        let faults_before = faults.0.len();
        for (name, _, place) in &self.texts {
            let Some((field, _)) = name
                .rsplit_once('_')
                .filter(|(_, end)| self.file.is_from_caller() && matches!(*end, "env" | "file"))
            else {
                continue;
            };
            let what = format!("{}.{name} cannot be given by the API", self.path);
            faults.push(place, what, format!("give the text itself as {field}"));
        }
        faults.0.len() > faults_before
    }

    fn algorithm(&self, faults: &mut Faults) -> Option<&'static str> {
        let mut known = WITH_SECRET.into_iter().chain(WITH_PUBLIC_KEY);
        let given = self.text("algorithm");
        let algorithm = known.find(|known| Some(*known) == given);
        if algorithm.is_none() {
            let what = match given {
                Some(name) => format!("{}.algorithm cannot be {name:?}", self.path),
                None => format!("{} has no algorithm", self.path),
            };
            let all = [WITH_SECRET.join(", "), WITH_PUBLIC_KEY.join(", ")].join(", ");
            faults.push(
                self.place_of("algorithm"),
                what,
                format!("give one of {all}"),
            );
        }
        algorithm
    }

    fn token_key(&self, inputs: &Inputs, faults: &mut Faults) -> Option<TokenKey> {
        let algorithm = self.algorithm(faults)?;
        let (name, place) = self.material_field(algorithm, faults)?;
        let text = self.text(name).unwrap_or_default();
        let material = match name {
            "secret_env" | "public_key_env" => {
                self.read_variable((name, text), place, &inputs.environment, faults)?
            }
            "secret_file" | "public_key_file" => self.read_file(name, text, place, faults)?,
            _ => text.to_owned(),
        };
        if material == EXAMPLE_SECRET {
            let what = format!("{}.{name} cannot be used: this is the example", self.path);
            faults.push(place, what, UNUSABLE_REMEDY);
            return None;
        }
        let key = TokenKey {
            id: self.text("id").map(str::to_owned),
            algorithm: algorithm.to_owned(),
            material: Secret(material),
        };
        if let Err(why) = (inputs.try_key)(&key) {
            let what = format!("{}.{name} cannot be used: {why}", self.path);
            faults.push(place, what, UNUSABLE_REMEDY);
            return None;
        }
        Some(key)
    }

    /// The one field that says where the material is, and its place.
    fn material_field(&self, algorithm: &str, faults: &mut Faults) -> Option<(&'a str, &str)> {
        let (fields, remedy): (&[_], _) = if WITH_SECRET.contains(&algorithm) {
            (
                &["secret", "secret_env", "secret_file"],
                "give one of secret, secret_env, secret_file",
            )
        } else {
            (
                &["public_key", "public_key_env", "public_key_file"],
                "give one of public_key, public_key_env, public_key_file",
            )
        };
        let given: Vec<_> = self
            .texts
            .iter()
            .filter(|(name, ..)| !matches!(*name, "id" | "algorithm"))
            .collect();
        let [(name, _, place)] = given[..] else {
            let count = if given.is_empty() {
                "no"
            } else {
                "more than one"
            };
            let what = format!("{} has {count} key material", self.path);
            faults.push(&self.place, what, remedy);
            return None;
        };
        if !fields.contains(name) {
            let what = format!("{}.{name} does not go with {algorithm}", self.path);
            faults.push(place, what, remedy);
            return None;
        }
        Some((*name, place))
    }

    fn read_variable(
        &self,
        (field, name): (&str, &str),
        place: &str,
        environment: &[(String, String)],
        faults: &mut Faults,
    ) -> Option<String> {
        let fault = match value_of(environment, name) {
            None => format!("{}.{field} names {name}, which is not set", self.path),
            Some(value) if value.contains(char::REPLACEMENT_CHARACTER) => {
                format!("{}.{field} names {name}, which is not UTF-8", self.path)
            }
            Some(value) => return Some(without_line_break(value).to_owned()),
        };
        let what = match field {
            "secret_env" => "the secret",
            _ => "the public key",
        };
        faults.push(place, fault, format!("set {name} to {what}"));
        None
    }

    /// Paths are taken from the directory of the configuration file.
    fn read_file(
        &self,
        field: &str,
        name: &str,
        place: &str,
        faults: &mut Faults,
    ) -> Option<String> {
        let cause = match read_material(&self.directory().join(name)) {
            Ok(text) => return Some(text),
            Err(cause) => cause,
        };
        let what = format!(
            "{}.{field} names {name}, which cannot be read: {cause}",
            self.path
        );
        faults.push(place, what, "name a file that holds the key");
        None
    }
}
