//! One table of a list in the file, read field by field.
//!
//! In: a table and where it stands. Out: its fields as values, and a fault with its place for each that is
//! none. Pure.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::config::faults::{Faults, did_you_mean};
use crate::config::file_text::{File, in_order};

/// See the module.
pub(super) struct Entry<'a> {
    /// The file that it stands in.
    pub(super) file: &'a File<'a>,
    /// What it says.
    pub(super) table: &'a DeTable<'a>,
    /// Where it begins.
    pub(super) place: String,
    /// `authorizers[0]`, for faults.
    pub(super) path: String,
}

impl Entry<'_> {
    /// A fault of one of its fields.
    pub(super) fn fault(
        &self,
        name: &str,
        why: &str,
        remedy: impl Into<String>,
        faults: &mut Faults,
    ) {
        let what = format!("{}.{name} {why}", self.path);
        faults.push(self.place_of(name), what, remedy);
    }

    /// Names that are no fields.
    pub(super) fn check_names(&self, fields: &[(&str, &str)], faults: &mut Faults) {
        for (name, _) in in_order(self.table) {
            let name_text = name.get_ref().as_ref();
            if !fields.iter().any(|(known, _)| *known == name_text) {
                let what = format!("{}.{name_text}", self.path);
                let fields = fields.iter();
                let fields = fields.map(|(known, _)| format!("{}.{known}", self.path));
                let remedy = did_you_mean(&what, fields);
                let place = self.file.place(name.span());
                faults.push(place, format!("{what} is no key"), remedy);
            }
        }
    }

    pub(super) fn text(&self, name: &str, faults: &mut Faults) -> Option<String> {
        let value = self.table.get(name)?;
        match value.get_ref().as_str() {
            Some(text) if !text.is_empty() => Some(text.to_owned()),
            _ => {
                self.fault(name, "is no text, or empty", "give text in quotes", faults);
                None
            }
        }
    }

    pub(super) fn texts(&self, name: &str, faults: &mut Faults) -> Option<Vec<String>> {
        let value = self.table.get(name)?;
        let items = value.get_ref().as_array();
        let texts = items.and_then(|items| {
            let texts = items.iter().map(|item| item.get_ref().as_str());
            texts
                .map(|text| text.map(str::to_owned))
                .collect::<Option<Vec<_>>>()
        });
        if texts.is_none() {
            let remedy = "give texts in quotes, in brackets";
            self.fault(name, "is no list of texts", remedy, faults);
        }
        texts
    }

    pub(super) fn flag(&self, name: &str, faults: &mut Faults) -> bool {
        match self.table.get(name).map(Spanned::get_ref) {
            None => false,
            Some(DeValue::Boolean(flag)) => *flag,
            Some(_) => {
                self.fault(name, "is no true or false", "give true or false", faults);
                false
            }
        }
    }

    pub(super) fn number(
        &self,
        name: &str,
        (least, most): (u64, u64),
        default: u64,
        faults: &mut Faults,
    ) -> u64 {
        let Some(value) = self.table.get(name) else {
            return default;
        };
        let number = match value.get_ref() {
            DeValue::Integer(number) => u64::from_str_radix(number.as_str(), number.radix()).ok(),
            _ => None,
        };
        match number {
            Some(number) if (least..=most).contains(&number) => number,
            _ => {
                let remedy = format!("give a whole number from {least} to {most}");
                self.fault(name, "cannot be this", remedy, faults);
                default
            }
        }
    }

    /// Where a field stands; without it, the entry.
    pub(super) fn place_of(&self, name: &str) -> String {
        let value = self.table.get(name);
        value.map_or_else(|| self.place.clone(), |value| self.file.place(value.span()))
    }
}
