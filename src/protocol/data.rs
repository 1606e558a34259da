//! The body of a message: bytes that came as JSON or as MessagePack and stay as they came.
//!
//! In: the codec, after the checks that make every body expressible in both forms. Out: the
//! broker stores the bytes as they are; serializing a [`Data`] gives the same form back byte for
//! byte, or transcodes it (MessagePack `bin` becomes padded standard base64 in JSON).

use bytes::Bytes;
use serde::{Serialize, Serializer};

use super::error::WireError;

/// Deepest nesting of lists and maps in a body. Part of the wire contract.
pub const DEPTH_MAX: usize = 64;

/// A checked body in the form in which it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Data {
    /// One JSON value.
    Json(Bytes),
    /// One MessagePack value.
    MsgPack(Bytes),
}

impl Data {
    /// Checks one JSON value and takes its bytes.
    ///
    /// # Errors
    /// `bad_request` when it is not JSON, nests deeper than [`DEPTH_MAX`], has an integer beyond
    /// 64 bits, a number that is infinite as a double, or a lone surrogate.
    pub fn from_json(bytes: &[u8]) -> Result<Self, WireError> {
        let _ = bytes;
        todo!()
    }

    /// Checks one MessagePack value and takes its bytes.
    ///
    /// # Errors
    /// `bad_request` when it is not MessagePack or JSON could not express it: a map key that is
    /// not a string, an extension type, NaN or infinity, invalid UTF-8, too deep.
    pub fn from_msgpack(bytes: &[u8]) -> Result<Self, WireError> {
        let _ = bytes;
        todo!()
    }
}

impl Serialize for Data {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let _ = serializer;
        todo!()
    }
}
