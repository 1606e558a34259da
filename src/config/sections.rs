//! Tables of a file, key by key: the options of namespaces, and a single value.
//!
//! In: tables of the file, of the node or of an app. Out: values with their places, and a fault for each
//! name and value that cannot be.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::config::faults::{Faults, did_you_mean};
use crate::config::file_text::{File, in_order};
use crate::config::inputs::refuse;
use crate::config::key::Key;
use crate::config::keys;
use crate::config::presets;
use crate::config::values::{Origin, Values};
use fanfare_protocol::ids::{App, Topic};

/// Reads the tables of namespaces of a node or an app.
pub(super) fn namespaces(
    file: &File<'_>,
    all: &DeTable<'_>,
    values: &mut Values,
    faults: &mut Faults,
) {
    for (name_at, value) in in_order(all) {
        let name = name_at.get_ref().as_ref();
        let DeValue::Table(options) = value.get_ref() else {
            let path = values.shown(&format!("namespaces.{name}"));
            let what = format!("{path} is no section");
            let remedy = format!("write its options under [{path}]");
            faults.push(file.place(name_at.span()), what, remedy);
            continue;
        };
        if name.contains(':')
            || Topic::new(&App::default_app(), name).is_err()
            || name.contains('@')
        {
            let what = format!("{name:?} cannot be the name of a namespace");
            let remedy = "give what stands before the first : of a topic, \
                          of A-Z a-z 0-9 _ - . / = , ~ #";
            faults.push(file.place(name_at.span()), what, remedy);
            continue;
        }
        presets::add_namespace(values, name);
        for (option, value) in in_order(options) {
            let path = format!("namespaces.{name}.{}", option.get_ref());
            match keys::namespace_options()
                .iter()
                .find(|key| key.name == option.get_ref().as_ref())
            {
                Some(key) => set(file, key, path, value, values, faults),
                None => {
                    let path = values.shown(&path);
                    let known = keys::namespace_options()
                        .iter()
                        .map(|key| values.shown(&format!("namespaces.{name}.{}", key.name)));
                    let remedy = did_you_mean(&path, known);
                    let place = file.place(option.span());
                    faults.push(place, format!("{path} is no key"), remedy);
                }
            }
        }
    }
}

/// Sets the key at this path to a value of the file.
pub(super) fn set(
    file: &File<'_>,
    key: &Key,
    path: String,
    value: &Spanned<DeValue<'_>>,
    values: &mut Values,
    faults: &mut Faults,
) {
    let place = file.place(value.span());
    match key.read_toml(value.get_ref()) {
        Ok(read) => values.set(path, read, Origin::File(place)),
        Err(unfit) => {
            let shown = &file.text[value.span()];
            refuse((key, path), unfit, shown, &place, values, faults);
        }
    }
}
