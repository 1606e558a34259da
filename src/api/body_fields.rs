//! The fields of one body: each known, there once, and of its kind.
//!
//! In: the bytes of one map, in either form, and the names that a call knows. Out: the values as they
//! stand in it, read when somebody asks for them. Pure. Bounds: those of the body; of a list of targets
//! no more is kept than a request may have.

use std::borrow::Cow;

use serde::de::DeserializeSeed as _;

use super::at_most::AtMost;
use super::query;
use fanfare_protocol::error::{ErrorCode, WireError};
use fanfare_protocol::form::Encoding;
use fanfare_protocol::raw::{self, Raw};

/// The names that a call knows.
#[derive(Debug, Clone, Copy)]
pub(super) struct Known {
    /// Those that a caller is told of.
    pub(super) shown: &'static [&'static str],
    /// Those that are known only to be refused in words of their own.
    pub(super) hidden: &'static [&'static str],
}

/// The fields of one body, as they stand in it.
pub(super) struct BodyFields<'a>(Vec<(&'static str, Raw<'a>)>);

impl<'a> BodyFields<'a> {
    /// Takes the map apart. A field that is not known, or there twice, refuses it: it would be
    /// passed over, and with it a promise that somebody asked for.
    ///
    /// # Errors
    /// What is wrong with the first field that is.
    pub(super) fn read(
        encoding: Encoding,
        bytes: &'a [u8],
        known: Known,
    ) -> Result<Self, WireError> {
        let mut found: Vec<(&'static str, Raw<'a>)> = Vec::with_capacity(4);
        let mut fault = None;
        raw::each_field(encoding, bytes, |name, value| {
            let mut names = known.shown.iter().chain(known.hidden);
            match names.find(|known| **known == name) {
                None => {
                    fault.get_or_insert_with(|| query::unknown("field", name, known.shown));
                }
                Some(name) if found.iter().any(|(before, _)| before == name) => {
                    let text = format!("the field `{name}` is there twice");
                    fault.get_or_insert_with(|| WireError::bad_request(text));
                }
                Some(name) => found.push((name, value)),
            }
        })
        .map_err(|error| WireError::bad_request(error.to_string()))?;
        fault.map_or(Ok(Self(found)), Err)
    }

    /// The bytes of a field, absent or not.
    pub(super) fn raw(&self, name: &str) -> Option<Raw<'a>> {
        let found = self.0.iter().find(|(known, _)| *known == name);
        found.map(|(_, value)| *value)
    }

    /// The field as `read` understands it; `None` where it is absent or null.
    ///
    /// # Errors
    /// `bad_request` with its name and what it must be.
    pub(super) fn get<T>(
        &self,
        name: &str,
        kind: &str,
        read: impl Fn(Raw<'a>) -> Option<T>,
    ) -> Result<Option<T>, WireError> {
        let Some(value) = self.raw(name).filter(|value| !value.is_null()) else {
            return Ok(None);
        };
        let wrong = || WireError::bad_request(format!("the field `{name}` must be {kind}"));
        read(value).ok_or_else(wrong).map(Some)
    }

    /// A field that is text.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub(super) fn text(&self, name: &str) -> Result<Option<String>, WireError> {
        self.get(name, "text", |value| Some(value.text()?.into_owned()))
    }

    /// A field that is text, or else is as one that is empty.
    pub(super) fn lenient_text(&self, name: &str) -> Option<String> {
        let value = self.raw(name).filter(|value| !value.is_null())?;
        Some(value.text().map_or_else(String::new, Cow::into_owned))
    }

    /// A field that is an unsigned integer.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub(super) fn unsigned(&self, name: &str) -> Result<Option<u64>, WireError> {
        self.get(name, "an unsigned integer", Raw::unsigned)
    }

    /// A field that is true or false.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub(super) fn flag(&self, name: &str) -> Result<Option<bool>, WireError> {
        self.get(name, "true or false", Raw::boolean)
    }

    /// A field that is a list of texts, of which there may be `max`; `what` they are called.
    ///
    /// # Errors
    /// As [`Self::get`], and `limit_exceeded` for more.
    pub(super) fn texts(
        &self,
        name: &str,
        what: &str,
        max: usize,
    ) -> Result<Option<Vec<String>>, WireError> {
        let read = |value: Raw<'a>| match value {
            Raw::Json(raw) => {
                let mut json = serde_json::Deserializer::from_str(raw.get());
                AtMost::new(max).deserialize(&mut json).ok()
            }
            Raw::MsgPack(bytes, _) => {
                let mut msgpack = rmp_serde::Deserializer::from_read_ref(bytes);
                AtMost::new(max).deserialize(&mut msgpack).ok()
            }
        };
        let found = self.get(name, "a list of texts", read)?.transpose();
        found.map_err(|count| {
            let text = format!("{count} {what} are more than {max}");
            WireError::new(ErrorCode::LimitExceeded, text)
        })
    }
}
