//! `[[auth.keys]]`: the keys that tokens may be signed with, and where their material lies.
//!
//! In: the list as the file has it, variables and other files that it names. Out: a [`TokenKey`]
//! each that can be used, or a fault. The text of the material is never part of a fault.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::config::environment::value_of;
use crate::config::faults::{Faults, did_you_mean};
use crate::config::file::{File, in_order};
use crate::config::load::{Inputs, UNUSABLE_REMEDY};
use crate::config::values::{Origin, Values};
use crate::config::{Secret, TokenKey};

/// Algorithms whose material is a shared secret.
pub const WITH_SECRET: [&str; 3] = ["HS256", "HS384", "HS512"];
/// Algorithms whose material is a public key as PEM.
pub const WITH_PUBLIC_KEY: [&str; 4] = ["RS256", "PS256", "ES256", "EdDSA"];

/// The fields of an entry with what they mean.
pub const FIELDS: [(&str, &str); 7] = [
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
    ("public_key_file", "The file that holds it."),
];

/// Reads a secret or a key. Editors end a file with a line break that nobody means as part of
/// the secret, so one at the end is left out.
///
/// # Errors
/// The file cannot be read, or is not UTF-8.
pub fn read_material(path: &Path) -> io::Result<String> {
    let text = std::fs::read_to_string(path)?;
    let text = text.strip_suffix('\n').unwrap_or(&text);
    Ok(text.strip_suffix('\r').unwrap_or(text).to_owned())
}

/// One entry while it is read.
struct Entry<'a> {
    file: &'a File<'a>,
    place: String,
    /// `auth.keys[0]`, for faults.
    path: String,
    texts: Vec<(&'a str, &'a str, String)>,
}

/// Reads the list and returns the names of the variables that it used.
pub fn read(
    file: &File<'_>,
    list: &Spanned<DeValue<'_>>,
    inputs: &Inputs,
    values: &mut Values,
    faults: &mut Faults,
) -> BTreeSet<String> {
    let mut used = BTreeSet::new();
    let mut ids = BTreeSet::new();
    let tables = list.get_ref().as_array().map(|items| {
        items
            .iter()
            .map(|item| Some((item.span(), item.get_ref().as_table()?)))
            .collect::<Option<Vec<_>>>()
    });
    let Some(Some(tables)) = tables else {
        let what = "auth.keys is no list of tables";
        let remedy = "write [[auth.keys]] once for each key";
        faults.push(file.place(list.span()), what, remedy);
        values.refuse("auth.keys".to_owned());
        return used;
    };
    for (index, (span, table)) in tables.into_iter().enumerate() {
        let faults_before = faults.0.len();
        let entry = Entry::new(file, file.place(span), index, table, faults);
        used.extend(entry.text("secret_env").map(str::to_owned));
        let key = entry.token_key(inputs, faults);
        if let Some(id) = entry.text("id")
            && !ids.insert(id.to_owned())
        {
            let what = format!("{}.id {id:?} is taken by an earlier key", entry.path);
            faults.push(entry.place_of("id"), what, "give each key its own id");
        }
        match key {
            Some(key) if faults.0.len() == faults_before => {
                values.add_token_key(key, Origin::File(entry.place));
            }
            _ => values.refuse("auth.keys".to_owned()),
        }
    }
    used
}

impl<'a> Entry<'a> {
    fn new(
        file: &'a File<'a>,
        place: String,
        index: usize,
        table: &'a DeTable<'_>,
        faults: &mut Faults,
    ) -> Self {
        let path = format!("auth.keys[{index}]");
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

    fn text(&self, name: &str) -> Option<&'a str> {
        let found = self.texts.iter().find(|(known, ..)| *known == name);
        found.map(|(_, text, _)| *text)
    }

    fn place_of(&self, name: &str) -> String {
        let found = self.texts.iter().find(|(known, ..)| *known == name);
        found.map_or_else(|| self.place.clone(), |(.., place)| place.clone())
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
            "secret_env" => self.read_variable(text, place, &inputs.environment, faults)?,
            "secret_file" | "public_key_file" => self.read_file(name, text, place, faults)?,
            _ => text.to_owned(),
        };
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
                &["public_key", "public_key_file"],
                "give one of public_key, public_key_file",
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
        name: &str,
        place: &str,
        environment: &[(String, String)],
        faults: &mut Faults,
    ) -> Option<String> {
        let value = value_of(environment, name);
        if value.is_none() {
            let what = format!("{}.secret_env names {name}, which is not set", self.path);
            faults.push(place, what, format!("set {name} to the secret"));
        }
        value.map(str::to_owned)
    }

    /// Paths are taken from the directory of the configuration file.
    fn read_file(
        &self,
        field: &str,
        name: &str,
        place: &str,
        faults: &mut Faults,
    ) -> Option<String> {
        let directory = self.file.path.parent().unwrap_or(self.file.path);
        let cause = match read_material(&directory.join(name)) {
            Ok(text) if !text.is_empty() => return Some(text),
            Ok(_) => "it is empty".to_owned(),
            Err(cause) => cause.to_string(),
        };
        let what = format!(
            "{}.{field} names {name}, which cannot be read: {cause}",
            self.path
        );
        faults.push(place, what, "name a file that holds the key");
        None
    }
}
