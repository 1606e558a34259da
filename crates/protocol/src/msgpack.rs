//! Reads MessagePack where it lies: heads of values, their extent, and what JSON cannot say.
//!
//! In: raw bytes from a client. Out: where a value ends and the first rule it breaks
//! ([`measure`]), single values ([`Reader::value`]), the value streamed into any serializer
//! ([`Streamed`]), or how long that would be as JSON ([`json_bytes_max`]). Nothing is allocated for an announced length, and no announced length is
//! believed that the remaining bytes cannot hold. [`measure`] keeps [`DEPTH_MAX`] open containers
//! in an array and skips what lies deeper by counting, so nesting costs no stack.

use std::cell::RefCell;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rmp::Marker;
use serde::ser::{Error as _, SerializeMap as _, SerializeSeq as _};
use serde::{Serialize, Serializer};

use super::json;
use super::rules::{DEPTH_MAX, DataError};

/// One value, or the head of a container whose children follow.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Value<'a> {
    /// `nil`.
    Null,
    /// `true` or `false`.
    Boolean(bool),
    /// Any integer that is not negative, however it was written.
    Unsigned(u64),
    /// A negative integer.
    Negative(i64),
    /// A float of 32 bits.
    Float32(f32),
    /// A float of 64 bits.
    Float64(f64),
    /// `str`, not yet known to be UTF-8.
    Text(&'a [u8]),
    /// `bin`.
    Binary(&'a [u8]),
    /// Any extension type.
    Extension,
    /// A list of so many values.
    List(usize),
    /// A map of so many pairs.
    Map(usize),
}

impl Value<'_> {
    /// How many values follow that belong to this one.
    fn children(&self) -> usize {
        match self {
            Self::List(values) => *values,
            Self::Map(pairs) => pairs.saturating_mul(2),
            _ => 0,
        }
    }

    /// Which rule the value breaks by itself.
    fn fault(&self, is_key: bool) -> Option<DataError> {
        match self {
            Self::Text(text) => std::str::from_utf8(text).err().map(|_| DataError::Utf8),
            _ if is_key => Some(DataError::KeyNotText),
            Self::Extension => Some(DataError::Extension),
            Self::Float32(number) if !number.is_finite() => Some(DataError::NotFinite),
            Self::Float64(number) if !number.is_finite() => Some(DataError::NotFinite),
            _ => None,
        }
    }
}

/// A place in MessagePack bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Begins at the first byte.
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// What was not read yet.
    pub(super) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Reads one scalar whole, or the head of one container.
    ///
    /// # Errors
    /// [`DataError::NotMsgPack`] when the bytes end too early or announce more than they hold,
    /// or at the reserved marker 0xc1.
    pub(super) fn value(&mut self) -> Result<Value<'a>, DataError> {
        let [marker] = self.fixed()?;
        let value = match Marker::from_u8(marker) {
            Marker::Null => Value::Null,
            Marker::True => Value::Boolean(true),
            Marker::False => Value::Boolean(false),
            Marker::FixPos(number) => Value::Unsigned(number.into()),
            Marker::U8 => Value::Unsigned(u8::from_be_bytes(self.fixed()?).into()),
            Marker::U16 => Value::Unsigned(u16::from_be_bytes(self.fixed()?).into()),
            Marker::U32 => Value::Unsigned(u32::from_be_bytes(self.fixed()?).into()),
            Marker::U64 => Value::Unsigned(u64::from_be_bytes(self.fixed()?)),
            Marker::FixNeg(number) => signed(number.into()),
            Marker::I8 => signed(i8::from_be_bytes(self.fixed()?).into()),
            Marker::I16 => signed(i16::from_be_bytes(self.fixed()?).into()),
            Marker::I32 => signed(i32::from_be_bytes(self.fixed()?).into()),
            Marker::I64 => signed(i64::from_be_bytes(self.fixed()?)),
            Marker::F32 => Value::Float32(f32::from_be_bytes(self.fixed()?)),
            Marker::F64 => Value::Float64(f64::from_be_bytes(self.fixed()?)),
            Marker::FixStr(length) => Value::Text(self.take(length.into())?),
            Marker::Str8 => Value::Text(self.sized::<1>()?),
            Marker::Str16 => Value::Text(self.sized::<2>()?),
            Marker::Str32 => Value::Text(self.sized::<4>()?),
            Marker::Bin8 => Value::Binary(self.sized::<1>()?),
            Marker::Bin16 => Value::Binary(self.sized::<2>()?),
            Marker::Bin32 => Value::Binary(self.sized::<4>()?),
            Marker::FixArray(values) => Value::List(values.into()),
            Marker::Array16 => Value::List(self.length::<2>()?),
            Marker::Array32 => Value::List(self.length::<4>()?),
            Marker::FixMap(pairs) => Value::Map(pairs.into()),
            Marker::Map16 => Value::Map(self.length::<2>()?),
            Marker::Map32 => Value::Map(self.length::<4>()?),
            extension => self.extension(extension)?,
        };
        // Every child takes a byte at least.
        if value.children() > self.rest.len() {
            return Err(DataError::NotMsgPack);
        }
        Ok(value)
    }

    /// Skips the type byte and the content of an extension.
    fn extension(&mut self, marker: Marker) -> Result<Value<'a>, DataError> {
        let content = match marker {
            Marker::FixExt1 => 1,
            Marker::FixExt2 => 2,
            Marker::FixExt4 => 4,
            Marker::FixExt8 => 8,
            Marker::FixExt16 => 16,
            Marker::Ext8 => self.length::<1>()?,
            Marker::Ext16 => self.length::<2>()?,
            Marker::Ext32 => self.length::<4>()?,
            _ => return Err(DataError::NotMsgPack),
        };
        self.take(content.saturating_add(1))?;
        Ok(Value::Extension)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], DataError> {
        let (taken, rest) = self
            .rest
            .split_at_checked(length)
            .ok_or(DataError::NotMsgPack)?;
        self.rest = rest;
        Ok(taken)
    }

    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], DataError> {
        let (taken, rest) = self
            .rest
            .split_first_chunk::<N>()
            .ok_or(DataError::NotMsgPack)?;
        self.rest = rest;
        Ok(*taken)
    }

    /// A big-endian length of `N` bytes.
    fn length<const N: usize>(&mut self) -> Result<usize, DataError> {
        let bytes: [u8; N] = self.fixed()?;
        Ok(bytes.iter().fold(0, |sum, b| sum << 8 | usize::from(*b)))
    }

    fn sized<const N: usize>(&mut self) -> Result<&'a [u8], DataError> {
        let length = self.length::<N>()?;
        self.take(length)
    }
}

fn signed(number: i64) -> Value<'static> {
    u64::try_from(number).map_or(Value::Negative(number), Value::Unsigned)
}

/// The first value of some bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Measured {
    /// Its length.
    pub(super) bytes: usize,
    /// The first rule it breaks. Its extent is known all the same, so that the rest of a map
    /// can be read and an error can carry the command's id.
    pub(super) fault: Option<DataError>,
}

/// An open container: what is left of it. Four bytes, because a place for each level is cleared
/// for every container that is measured.
#[derive(Clone, Copy, Default)]
struct Open {
    /// Values, times two; one more for a map.
    packed: u32,
}

impl Open {
    fn new(value: &Value<'_>) -> Result<Self, DataError> {
        // More than this no message can hold.
        let values = u32::try_from(value.children()).map_err(|_| DataError::NotMsgPack)?;
        let twice = values.checked_mul(2).ok_or(DataError::NotMsgPack)?;
        Ok(Self {
            packed: twice | u32::from(matches!(value, Value::Map(_))),
        })
    }

    fn is_done(self) -> bool {
        self.packed < 2
    }

    /// Takes one value off. Returns whether it is the key of a pair.
    fn take(&mut self) -> bool {
        let is_key = self.packed & 1 == 1 && (self.packed >> 1).is_multiple_of(2);
        self.packed -= 2;
        is_key
    }

    /// Adds what another container holds.
    fn add(&mut self, other: Self) -> Result<(), DataError> {
        let more = other.packed & !1;
        self.packed = self.packed.checked_add(more).ok_or(DataError::NotMsgPack)?;
        Ok(())
    }
}

/// Finds the end of the first value and checks everything on the way.
///
/// # Errors
/// [`DataError::NotMsgPack`] where no end can be found.
pub(super) fn measure(bytes: &[u8]) -> Result<Measured, DataError> {
    let mut reader = Reader::new(bytes);
    let first = reader.value()?;
    let mut fault = first.fault(false);
    // Most values are no containers, and nothing is cleared for them.
    if first.children() > 0 {
        measure_children(&mut reader, &first, &mut fault)?;
    }
    Ok(Measured {
        bytes: bytes.len() - reader.rest().len(),
        fault,
    })
}

/// Reads what belongs to a container.
fn measure_children(
    reader: &mut Reader<'_>,
    container: &Value<'_>,
    fault: &mut Option<DataError>,
) -> Result<(), DataError> {
    let mut open = [Open::default(); DEPTH_MAX];
    open[0] = Open::new(container)?;
    let mut depth = 1_usize;
    while depth > 0 {
        let value = reader.value()?;
        let is_key = open[depth - 1].take();
        *fault = fault.or_else(|| value.fault(is_key));
        if let Value::List(_) | Value::Map(_) = value {
            let opened = Open::new(&value)?;
            if depth < DEPTH_MAX {
                open[depth] = opened;
                depth += 1;
            } else {
                // Too deep: its children are counted as the parent's, which finds the end too.
                *fault = fault.or(Some(DataError::TooDeep));
                open[DEPTH_MAX - 1].add(opened)?;
            }
        }
        while depth > 0 && open[depth - 1].is_done() {
            depth -= 1;
        }
    }
    Ok(())
}

/// Checked MessagePack that serializes by being read once, into any form. In forms for people
/// `bin` becomes padded standard base64.
pub(super) struct Streamed<'a>(RefCell<Reader<'a>>);

impl<'a> Streamed<'a> {
    /// Takes bytes that [`measure`] found without fault.
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(RefCell::new(Reader::new(bytes)))
    }
}

impl Serialize for Streamed<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let value = self.0.borrow_mut().value().map_err(S::Error::custom)?;
        match value {
            Value::Null => serializer.serialize_unit(),
            Value::Boolean(value) => serializer.serialize_bool(value),
            Value::Unsigned(number) => serializer.serialize_u64(number),
            Value::Negative(number) => serializer.serialize_i64(number),
            Value::Float32(number) => serializer.serialize_f32(number),
            Value::Float64(number) => serializer.serialize_f64(number),
            Value::Text(text) => {
                serializer.serialize_str(std::str::from_utf8(text).map_err(S::Error::custom)?)
            }
            Value::Binary(bytes) if serializer.is_human_readable() => {
                serializer.serialize_str(&STANDARD.encode(bytes))
            }
            Value::Binary(bytes) => serializer.serialize_bytes(bytes),
            Value::Extension => Err(S::Error::custom(DataError::Extension)),
            Value::List(values) => {
                let mut list = serializer.serialize_seq(Some(values))?;
                for _ in 0..values {
                    list.serialize_element(self)?;
                }
                list.end()
            }
            Value::Map(pairs) => {
                let mut map = serializer.serialize_map(Some(pairs))?;
                for _ in 0..pairs {
                    map.serialize_key(self)?;
                    map.serialize_value(self)?;
                }
                map.end()
            }
        }
    }
}

/// How long a checked value is as JSON, as [`Streamed`] writes it: exactly, but for floats, which
/// count as the longest. What the commas, colons and brackets take is known from the heads, so no
/// value needs to know where it stands.
pub(super) fn json_bytes_max(bytes: &[u8]) -> usize {
    const FLOAT32_BYTES: usize = "-1.17549435e-38".len();
    const FLOAT64_BYTES: usize = "-2.2250738585072014e-308".len();
    let mut reader = Reader::new(bytes);
    let mut count = 0;
    while !reader.rest().is_empty() {
        let Ok(value) = reader.value() else {
            break;
        };
        count += match value {
            Value::Null | Value::Boolean(true) => 4,
            Value::Boolean(false) => 5,
            Value::Unsigned(number) => digits(number),
            Value::Negative(number) => 1 + digits(number.unsigned_abs()),
            Value::Float32(_) => FLOAT32_BYTES,
            Value::Float64(_) => FLOAT64_BYTES,
            Value::Text(text) => 2 + text.len() + json::escaped(text),
            Value::Binary(bytes) => 2 + bytes.len().div_ceil(3) * 4,
            Value::Extension => 0,
            Value::List(values) => 2 + values.saturating_sub(1),
            Value::Map(pairs) => 2 + pairs + pairs.saturating_sub(1),
        };
    }
    count
}

fn digits(number: u64) -> usize {
    number.checked_ilog10().map_or(1, |log| log as usize + 1)
}
