//! Maps of named fields in either wire form, read without being copied.
//!
//! In: one message. Out: each field's name and its [`Raw`] value, which is looked at only when
//! somebody asks for it, so that a fault in one field hides no other. Bounded by the message.
//! A value is never partly trusted: text is UTF-8 or no text, an integer is exact or none.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer as _, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::data::Data;
use super::form::Encoding;
use super::msgpack::{self, Reader, Value};
use super::rules::DataError;

/// Why a message could not be read as a map.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RawError {
    /// Not JSON.
    #[error("the message is not JSON (line {line}, column {column})")]
    NotJson {
        /// Where, counted from 1.
        line: usize,
        /// Where in the line, counted from 1.
        column: usize,
    },
    /// Not MessagePack.
    #[error("the message is not MessagePack")]
    NotMsgPack,
    /// Another value than a map.
    #[error("the message is not a map")]
    NotMap,
}

/// One value of a map, still as it stands in the message.
#[derive(Debug, Clone, Copy)]
pub enum Raw<'a> {
    /// Text whose syntax was checked.
    Json(&'a RawValue),
    /// Bytes whose extent was checked, and the first rule of `data` that they break.
    MsgPack(&'a [u8], Option<DataError>),
}

/// Text that borrows from the message where it has no escapes.
#[derive(Deserialize)]
#[serde(transparent)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'a> Raw<'a> {
    /// Whether the value is null, which means absent for every field but `data`.
    #[must_use]
    pub fn is_null(self) -> bool {
        match self {
            Self::Json(raw) => raw.get() == "null",
            Self::MsgPack(..) => self.value() == Some(Value::Null),
        }
    }

    /// The value as text.
    #[must_use]
    pub fn text(self) -> Option<Cow<'a, str>> {
        match (self, self.value()) {
            (Self::Json(raw), _) => serde_json::from_str(raw.get()).ok().map(|Text(text)| text),
            (_, Some(Value::Text(text))) => std::str::from_utf8(text).ok().map(Cow::Borrowed),
            _ => None,
        }
    }

    /// The value as an unsigned integer; a float is none, even without a fraction.
    #[must_use]
    pub fn unsigned(self) -> Option<u64> {
        match (self, self.value()) {
            (Self::Json(raw), _) => serde_json::from_str(raw.get()).ok(),
            (_, Some(Value::Unsigned(number))) => Some(number),
            _ => None,
        }
    }

    /// The value as a boolean.
    #[must_use]
    pub fn boolean(self) -> Option<bool> {
        match (self, self.value()) {
            (Self::Json(raw), _) => serde_json::from_str(raw.get()).ok(),
            (_, Some(Value::Boolean(value))) => Some(value),
            _ => None,
        }
    }

    /// The value as a map, in the order of the message: its first `most` pairs, and how many there
    /// are.
    #[must_use]
    pub fn map(self, most: usize) -> Option<(Vec<(String, Raw<'a>)>, usize)> {
        let (mut pairs, mut count) = (Vec::new(), 0);
        let take = |name: &str, value: Raw<'a>| {
            if count < most {
                pairs.push((name.to_owned(), value));
            }
            count += 1;
        };
        let (encoding, bytes) = self.bytes();
        each_field(encoding, bytes, take).ok()?;
        Some((pairs, count))
    }

    /// The value as a list: its first `most` items, and how many there are.
    #[must_use]
    pub fn list(self, most: usize) -> Option<(Vec<Raw<'a>>, usize)> {
        let (mut items, mut count) = (Vec::new(), 0);
        let take = |item: Raw<'a>| {
            if count < most {
                items.push(item);
            }
            count += 1;
        };
        match self {
            Self::Json(raw) => {
                let mut json = serde_json::Deserializer::from_str(raw.get());
                json.deserialize_seq(VisitItems(take)).ok()?;
            }
            Self::MsgPack(bytes, _) => each_msgpack_item(bytes, take)?,
        }
        Some((items, count))
    }

    /// The form and the bytes as they stand in the message.
    fn bytes(self) -> (Encoding, &'a [u8]) {
        match self {
            Self::Json(raw) => (Encoding::Json, raw.get().as_bytes()),
            Self::MsgPack(bytes, _) => (Encoding::MsgPack, bytes),
        }
    }

    /// The value as a body.
    ///
    /// # Errors
    /// [`DataError`] when it breaks one of the rules of [`Data`].
    pub fn data(self) -> Result<Data, DataError> {
        match self {
            Self::Json(raw) => Data::from_raw_json(raw),
            Self::MsgPack(_, Some(fault)) => Err(fault),
            Self::MsgPack(bytes, None) => Ok(Data::MsgPack(bytes::Bytes::copy_from_slice(bytes))),
        }
    }

    /// The value's JSON text; `None` for MessagePack.
    #[must_use]
    pub fn json(self) -> Option<&'a str> {
        match self {
            Self::Json(raw) => Some(raw.get()),
            Self::MsgPack(..) => None,
        }
    }

    /// The MessagePack value or its head; `None` for JSON.
    fn value(self) -> Option<Value<'a>> {
        match self {
            Self::Json(_) => None,
            Self::MsgPack(bytes, _) => Reader::new(bytes).value().ok(),
        }
    }
}

/// The fields of a map that somebody knows; all others are passed over. Bounded by the number of
/// known names.
#[derive(Debug)]
pub struct Fields<'a> {
    found: Vec<(&'static str, Raw<'a>)>,
    repeated: Vec<&'static str>,
}

impl<'a> Fields<'a> {
    /// Reads one map.
    ///
    /// # Errors
    /// [`RawError`] when the message is not exactly one map.
    pub fn read(
        encoding: Encoding,
        message: &'a [u8],
        known: &[&'static str],
    ) -> Result<Self, RawError> {
        let mut fields = Self {
            found: Vec::with_capacity(known.len().min(8)),
            repeated: Vec::new(),
        };
        each_field(encoding, message, |name, value| {
            let Some(name) = known.iter().find(|known| **known == name) else {
                return;
            };
            if fields.get(name).is_none() {
                fields.found.push((name, value));
            } else if !fields.repeated.contains(name) {
                fields.repeated.push(name);
            }
        })?;
        Ok(fields)
    }

    /// Reads a map that is a value of another one.
    ///
    /// # Errors
    /// [`RawError`] when the value is no map.
    pub fn of(value: Raw<'a>, known: &[&'static str]) -> Result<Self, RawError> {
        let (encoding, bytes) = value.bytes();
        Self::read(encoding, bytes, known)
    }

    /// The field of this name; the first, where it is there again.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Raw<'a>> {
        let found = self.found.iter().find(|(known, _)| *known == name);
        found.map(|(_, value)| *value)
    }

    /// Known fields that are there more than once. Two readers could take different ones.
    #[must_use]
    pub fn repeated(&self) -> &[&'static str] {
        &self.repeated
    }
}

/// Calls `take` with each field of the map that `message` holds, in order. MessagePack keys that
/// are not text are passed over: no field has such a name.
///
/// # Errors
/// [`RawError`] when the message is not exactly one map. Fields before the fault were taken.
pub fn each_field<'a>(
    encoding: Encoding,
    message: &'a [u8],
    take: impl FnMut(&str, Raw<'a>),
) -> Result<(), RawError> {
    match encoding {
        Encoding::Json => each_json_field(message, take),
        Encoding::MsgPack => each_msgpack_field(message, take),
    }
}

fn each_json_field<'a>(message: &'a [u8], take: impl FnMut(&str, Raw<'a>)) -> Result<(), RawError> {
    let mut json = serde_json::Deserializer::from_slice(message);
    json.deserialize_any(Visit(take))
        .and_then(|()| json.end())
        .map_err(|error| {
            if error.is_data() {
                return RawError::NotMap;
            }
            RawError::NotJson {
                line: error.line(),
                column: error.column(),
            }
        })
}

fn each_msgpack_field<'a>(
    message: &'a [u8],
    mut take: impl FnMut(&str, Raw<'a>),
) -> Result<(), RawError> {
    let mut reader = Reader::new(message);
    let pairs = match reader.value() {
        Ok(Value::Map(pairs)) => pairs,
        Ok(_) => return Err(RawError::NotMap),
        Err(_) => return Err(RawError::NotMsgPack),
    };
    let mut rest = reader.rest();
    let mut next = || -> Result<Raw<'a>, RawError> {
        let measured = msgpack::measure(rest).map_err(|_| RawError::NotMsgPack)?;
        let (value, behind) = rest.split_at(measured.bytes);
        rest = behind;
        Ok(Raw::MsgPack(value, measured.fault))
    };
    for _ in 0..pairs {
        let (name, value) = (next()?, next()?);
        if let Some(name) = name.text() {
            take(&name, value);
        }
    }
    if rest.is_empty() {
        Ok(())
    } else {
        Err(RawError::NotMsgPack)
    }
}

/// Calls `take` with each item of a list whose extent was checked; `None` where it is no list.
fn each_msgpack_item<'a>(bytes: &'a [u8], mut take: impl FnMut(Raw<'a>)) -> Option<()> {
    let mut reader = Reader::new(bytes);
    let Ok(Value::List(items)) = reader.value() else {
        return None;
    };
    let mut rest = reader.rest();
    for _ in 0..items {
        let measured = msgpack::measure(rest).ok()?;
        let (value, behind) = rest.split_at(measured.bytes);
        rest = behind;
        take(Raw::MsgPack(value, measured.fault));
    }
    Some(())
}

struct VisitItems<F>(F);

impl<'de, F: FnMut(Raw<'de>)> Visitor<'de> for VisitItems<F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut list: A) -> Result<(), A::Error> {
        while let Some(item) = list.next_element()? {
            (self.0)(Raw::Json(item));
        }
        Ok(())
    }
}

struct Visit<F>(F);

impl<'de, F: FnMut(&str, Raw<'de>)> Visitor<'de> for Visit<F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        while let Some(Text(name)) = map.next_key()? {
            (self.0)(&name, Raw::Json(map.next_value()?));
        }
        Ok(())
    }
}
