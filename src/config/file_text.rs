//! The text of a configuration file, and the places in it that faults name.

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
}

impl File<'_> {
    /// `FILE:LINE:COLUMN` of where a span begins; columns count characters.
    #[must_use]
    pub fn place(&self, span: Range<usize>) -> String {
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
