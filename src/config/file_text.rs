//! The text of a configuration file, and the places in it that faults name.
//!
//! The settings of an app that a caller of the API gave are such a text too (`app_json`): there a place
//! is the path of a value, and what is given leads to no file or variable of this machine.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// A file while it is read.
pub struct File<'a> {
    /// Its path as it was given.
    pub path: &'a Path,
    /// Its content.
    pub text: &'a str,
    /// Of what came from a caller: the path of each value, by where it begins in the text. `None`: this is
    /// a file.
    pub paths: Option<&'a BTreeMap<usize, String>>,
}

impl File<'_> {
    /// Whether a caller of the API gave it, who must not read files and variables of this machine.
    #[must_use]
    pub fn is_from_caller(&self) -> bool {
        self.paths.is_some()
    }

    /// `FILE:LINE:COLUMN` of where a span begins; columns count characters. Of what a caller gave the
    /// path of the value.
    #[must_use]
    pub fn place(&self, span: Range<usize>) -> String {
        if let Some(paths) = self.paths {
            let nearest = paths.range(..=span.start).next_back();
            return nearest.map_or_else(String::new, |(_, path)| path.clone());
        }
        let before = self.text.get(..span.start).unwrap_or(self.text);
        let line = before.matches('\n').count() + 1;
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let column = before[line_start..].chars().count() + 1;
        format!("{}:{line}:{column}", self.path.display())
    }
}

/// The entries of a table as they stand in the file; the parser sorts them by name.
pub fn in_order<'t, 'i>(
    table: &'t DeTable<'i>,
) -> Vec<(
    &'t Spanned<std::borrow::Cow<'i, str>>,
    &'t Spanned<DeValue<'i>>,
)> {
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(name, _)| name.span().start);
    entries
}
