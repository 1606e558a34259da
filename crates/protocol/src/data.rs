//! The body of a message: bytes that came as JSON or as MessagePack and stay as they came.
//!
//! In: the codec and the API, after the checks that make every body expressible in both forms.
//! Out: the broker stores the bytes as they are; serializing a [`Data`] gives the same form back
//! (JSON byte for byte), or transcodes it as a stream (MessagePack `bin` becomes padded standard
//! base64 in JSON). Bounded by the size of the message it came in and by [`DEPTH_MAX`](super::rules::DEPTH_MAX); what
//! breaks a rule is refused with [`DataError`].

use bytes::Bytes;
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

use super::error::WireError;
use super::rules::DataError;
use super::{json, msgpack};

/// A checked body in the form in which it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Data {
    /// One JSON value.
    Json(Bytes),
    /// One MessagePack value.
    MsgPack(Bytes),
}

impl Data {
    /// Checks one JSON value and takes its bytes, without the white space around it.
    ///
    /// # Errors
    /// `bad_request` when it is not JSON, nests deeper than [`DEPTH_MAX`](super::rules::DEPTH_MAX), has an integer beyond
    /// 64 bits, a number that is infinite as a double, or a lone surrogate.
    pub fn from_json(bytes: &[u8]) -> Result<Self, WireError> {
        Ok(Self::from_raw_json(raw_json(bytes)?)?)
    }

    /// Checks a JSON value whose syntax a parser has already accepted.
    ///
    /// # Errors
    /// [`DataError`] for the rules beyond JSON's own.
    pub fn from_raw_json(raw: &RawValue) -> Result<Self, DataError> {
        json::check(raw.get())?;
        Ok(Self::Json(Bytes::copy_from_slice(raw.get().as_bytes())))
    }

    /// Checks one MessagePack value and takes its bytes.
    ///
    /// # Errors
    /// `bad_request` when it is not MessagePack or JSON could not express it: a map key that is
    /// not a string, an extension type, NaN or infinity, invalid UTF-8, too deep.
    pub fn from_msgpack(bytes: &[u8]) -> Result<Self, WireError> {
        check_msgpack(bytes)?;
        Ok(Self::MsgPack(Bytes::copy_from_slice(bytes)))
    }

    /// Checks it again, where it comes from a place into which others write too. What passes can be
    /// said in both forms.
    ///
    /// # Errors
    /// [`DataError`] for the first rule that is broken.
    pub fn check(&self) -> Result<(), DataError> {
        match self {
            Self::Json(bytes) => json::check(raw_json(bytes)?.get()),
            Self::MsgPack(bytes) => check_msgpack(bytes),
        }
    }

    /// The bytes as they came.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        match self {
            Self::Json(bytes) | Self::MsgPack(bytes) => bytes,
        }
    }
}

fn raw_json(bytes: &[u8]) -> Result<&RawValue, DataError> {
    serde_json::from_slice(bytes).map_err(|_| DataError::NotJson)
}

fn check_msgpack(bytes: &[u8]) -> Result<(), DataError> {
    let measured = msgpack::measure(bytes)?;
    match measured.fault {
        Some(fault) => Err(fault),
        None if measured.bytes != bytes.len() => Err(DataError::NotMsgPack),
        None => Ok(()),
    }
}

impl Serialize for Data {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Json(bytes) if serializer.is_human_readable() => {
                let raw: &RawValue =
                    serde_json::from_slice(bytes).map_err(serde::ser::Error::custom)?;
                raw.serialize(serializer)
            }
            Self::Json(bytes) => {
                let mut json = serde_json::Deserializer::from_slice(bytes);
                serde_transcode::transcode(&mut json, serializer)
            }
            Self::MsgPack(bytes) => msgpack::Streamed::new(bytes).serialize(serializer),
        }
    }
}
