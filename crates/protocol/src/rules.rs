//! What a body must keep so that both encodings can say it, and the words for what breaks it.

use super::error::WireError;

/// Deepest nesting of lists and maps in a body. Part of the wire contract.
pub const DEPTH_MAX: usize = 64;

/// Why bytes are no body. The text is meant for the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DataError {
    /// Not one JSON value in UTF-8.
    #[error("it is not one JSON value in UTF-8")]
    NotJson,
    /// Not one MessagePack value.
    #[error("it is not one MessagePack value")]
    NotMsgPack,
    /// Nested deeper than [`DEPTH_MAX`].
    #[error("it is nested deeper than {DEPTH_MAX} lists and maps")]
    TooDeep,
    /// An integer beyond 64 bits.
    #[error("it has an integer beyond 64 bits")]
    IntegerTooLarge,
    /// NaN, infinity, or a number too large for a double.
    #[error("it has a number that is not finite as a double")]
    NotFinite,
    /// Half of a surrogate pair, which no UTF-8 can carry.
    #[error("it has a lone surrogate escape")]
    Surrogate,
    /// A map key that is not text.
    #[error("it has a map key that is not text")]
    KeyNotText,
    /// A MessagePack extension type.
    #[error("it has a MessagePack extension type")]
    Extension,
    /// Text that is not UTF-8.
    #[error("it has text that is not UTF-8")]
    Utf8,
}

impl From<DataError> for WireError {
    fn from(error: DataError) -> Self {
        Self::bad_request(format!("`data` cannot be taken: {error}"))
    }
}
