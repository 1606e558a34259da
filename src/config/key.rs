//! One row of the table of keys, and how a section is made of rows.
//!
//! In: what `keys` and `telemetry_keys` write down. Out: [`Key`]s; and by `section!` the rows of a
//! section together with the function that makes it from [`crate::config::values::Values`]. Pure.

use toml::de::DeValue;

use crate::config::forms::Unfit;
use crate::config::value::{Kind, Value};

/// What a key is when no source sets it.
#[derive(Debug, Clone, Copy)]
pub enum Initial {
    /// This value, written as in the environment.
    Is(&'static str),
    /// Nothing; the example says what it could be.
    Unset(&'static str),
    /// Found out at start, as this text says; the example says what it could be.
    Found(&'static str, &'static str),
    /// By size, as [`crate::config::presets::SIZES`] says; without one as `medium`.
    BySize,
}

/// One row of the table.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// The section of the file.
    pub section: &'static str,
    /// The name inside the section. A time ends in its unit, `_ms` or `_s`.
    pub name: &'static str,
    /// What it can be set to.
    pub kind: Kind,
    /// What it is when nobody sets it.
    pub default: Initial,
    /// What it means, in sentences.
    pub doc: &'static str,
}

impl Key {
    /// `section.name`.
    #[must_use]
    pub fn path(&self) -> String {
        format!("{}.{}", self.section, self.name)
    }

    /// `FANFARE_SECTION__NAME`.
    #[must_use]
    pub fn environment(&self) -> String {
        format!("FANFARE_{}__{}", self.section, self.name).to_ascii_uppercase()
    }

    /// Reads text of the environment, a flag or this table. Empty text leaves an optional key
    /// out.
    ///
    /// # Errors
    /// Why the text is not of the key's kind.
    pub fn read_text(&self, text: &str) -> Result<Value, Unfit> {
        if text.trim().is_empty() && matches!(self.default, Initial::Unset(_)) {
            return Ok(Value::Unset);
        }
        self.kind.read_text(text)
    }

    /// The same for a value of the file.
    ///
    /// # Errors
    /// Why the value is not of the key's kind.
    pub fn read_toml(&self, value: &DeValue<'_>) -> Result<Value, Unfit> {
        match value {
            DeValue::String(text) if text.is_empty() => self.read_text(text),
            _ => self.kind.read_toml(value),
        }
    }
}

/// Makes the rows of a section and, from its values, the section.
macro_rules! section {
    ($rows:ident, $section:literal => $type:ident {
        $($field:ident: $name:literal, $kind:expr, $default:expr, $doc:literal;)*
    } $(and { $($own:ident: $from:expr),* })?) => {
        pub(in crate::config) const $rows: &[Key] = &[$(Key {
            section: $section, name: $name, kind: $kind, default: $default, doc: $doc,
        }),*];
        impl $type {
            /// Makes the section from the values below `at`, its place in the file.
            pub(in crate::config) fn from_values(values: &Values, at: &str) -> Self {
                Self {
                    $($field: values.field(at, $name, &$kind),)*
                    $($($own: $from(values),)*)?
                }
            }
        }
    };
}

pub(in crate::config) use section;
