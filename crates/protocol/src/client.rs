//! The client's side of the contract: commands to bytes, bytes to events.
//!
//! In: an [`Envelope`], or one whole message of the server. Out: the bytes of one message, or what
//! was [`Heard`]. Unknown fields are passed over, and an event of an unknown type is given as such,
//! so that a client outlives newer servers. What a message carries as `data` is kept as it came and
//! not checked again.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser::SerializeMap};
use serde_json::value::RawValue;

use super::codec::{self, EncodeError};
use super::command::{Envelope, Subscribe};
use super::data::Data;
use super::error::{ErrorCode, WireError};
use super::event::Event;
use super::form::Encoding;
use super::ids::{App, Position, Topic};
use super::raw::{Fields, Raw, RawError};

/// What a message of the server says.
#[derive(Debug, Clone)]
pub enum Heard {
    /// An event of the contract.
    Event(Event),
    /// An event of a newer one.
    Unknown {
        /// Its `type`.
        kind: String,
    },
}

/// Why a message is no event.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// It is not one map in the form of the session.
    #[error("not a map in the form of this session")]
    NoMap(#[source] RawError),
    /// It has no `type` that is text.
    #[error("an event without a type")]
    NoType,
    /// An event whose fields are not those of the contract, as JSON.
    #[error("the event `{kind}` cannot be read")]
    Json {
        /// Its `type`.
        kind: String,
        /// What is wrong.
        #[source]
        source: serde_json::Error,
    },
    /// The same as MessagePack.
    #[error("the event `{kind}` cannot be read")]
    MsgPack {
        /// Its `type`.
        kind: String,
        /// What is wrong.
        #[source]
        source: rmp_serde::decode::Error,
    },
}

/// Turns a command into one message, without a frame.
///
/// # Errors
/// [`EncodeError`].
pub fn encode_command(encoding: Encoding, envelope: &Envelope) -> Result<Vec<u8>, EncodeError> {
    codec::payload(encoding, envelope)
}

/// Reads one event.
///
/// # Errors
/// [`DecodeError`] when the message is no map, has no `type`, or a field that an event of this
/// type does not have in this way.
pub fn decode_event(encoding: Encoding, message: &[u8]) -> Result<Heard, DecodeError> {
    let fields = Fields::read(encoding, message, &["type"]).map_err(DecodeError::NoMap)?;
    let kind = fields.get("type").and_then(Raw::text);
    let kind = &*kind.ok_or(DecodeError::NoType)?;
    Ok(Heard::Event(match kind {
        "welcome" => Event::Welcome(read(encoding, kind, message)?),
        "ok" => Event::Ok(read(encoding, kind, message)?),
        "error" => Event::Error(read(encoding, kind, message)?),
        "message" => Event::Message(read(encoding, kind, message)?),
        "presence" => Event::Presence(read(encoding, kind, message)?),
        "gap" => Event::Gap(read(encoding, kind, message)?),
        "acked" | "unsubscribed" | "expiring" | "drain" | "ping" => {
            read::<Short>(encoding, kind, message)?.into()
        }
        _ => {
            let kind = kind.to_owned();
            return Ok(Heard::Unknown { kind });
        }
    }))
}

fn read<T: DeserializeOwned>(
    encoding: Encoding,
    kind: &str,
    message: &[u8],
) -> Result<T, DecodeError> {
    let kind = || kind.to_owned();
    match encoding {
        Encoding::Json => serde_json::from_slice(message).map_err(|source| DecodeError::Json {
            kind: kind(),
            source,
        }),
        Encoding::MsgPack => {
            rmp_serde::from_slice(message).map_err(|source| DecodeError::MsgPack {
                kind: kind(),
                source,
            })
        }
    }
}

/// The events that are no struct of their own.
#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Short {
    Acked {
        position: Position,
    },
    Unsubscribed {
        #[serde(deserialize_with = "topic")]
        topic: Topic,
        code: ErrorCode,
        message: String,
    },
    Expiring {
        #[serde(default, deserialize_with = "optional_topic")]
        topic: Option<Topic>,
        expires: u64,
    },
    Drain {
        reconnect_after_ms: u64,
    },
    Ping {},
}

impl From<Short> for Event {
    fn from(short: Short) -> Self {
        match short {
            Short::Acked { position } => Self::Acked { position },
            Short::Unsubscribed {
                topic,
                code,
                message,
            } => Self::Unsubscribed {
                topic,
                code,
                message,
            },
            Short::Expiring { topic, expires } => Self::Expiring { topic, expires },
            Short::Drain { reconnect_after_ms } => Self::Drain { reconnect_after_ms },
            Short::Ping {} => Self::Ping {},
        }
    }
}

/// A topic by the name that a client sees. Its app is known to the server alone.
pub(super) fn topic<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Topic, D::Error> {
    let name = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
    Topic::new(&App::default_app(), &name).map_err(de::Error::custom)
}

fn optional_topic<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Topic>, D::Error> {
    topic(deserializer).map(Some)
}

/// `connect.positions`, a map on the wire.
pub(super) fn positions<S: Serializer>(
    positions: &[(String, Position)],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(Some(positions.len()))?;
    for (topic, position) in positions {
        map.serialize_entry(topic, position)?;
    }
    map.end()
}

impl From<&str> for Subscribe {
    /// Joins a topic where it is now.
    fn from(topic: &str) -> Self {
        Self {
            topic: topic.to_owned(),
            ..Self::default()
        }
    }
}

impl Data {
    /// A body made of a value.
    ///
    /// # Errors
    /// `bad_request` where the value is nothing that a body can be: see [`Data::from_json`].
    pub fn of(value: &impl Serialize) -> Result<Self, WireError> {
        let json = serde_json::to_vec(value);
        let json = json.map_err(|error| WireError::bad_request(error.to_string()))?;
        Self::from_json(&json)
    }

    /// The body as a value of the reader's own.
    ///
    /// # Errors
    /// What is wrong, where the body is another value.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, ReadError> {
        match self {
            Self::Json(bytes) => serde_json::from_slice(bytes).map_err(ReadError::Json),
            Self::MsgPack(bytes) => rmp_serde::from_slice(bytes).map_err(ReadError::MsgPack),
        }
    }
}

/// A body is not the value that its reader wants.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// In JSON.
    #[error("the data is not what is wanted here")]
    Json(#[source] serde_json::Error),
    /// In MessagePack.
    #[error("the data is not what is wanted here")]
    MsgPack(#[source] rmp_serde::decode::Error),
}

impl<'de> Deserialize<'de> for Data {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            let raw = Box::<RawValue>::deserialize(deserializer)?;
            return Ok(Self::Json(raw.get().as_bytes().to_vec().into()));
        }
        let mut bytes = Vec::new();
        let mut serializer = rmp_serde::Serializer::new(&mut bytes);
        serde_transcode::transcode(deserializer, &mut serializer).map_err(de::Error::custom)?;
        Ok(Self::MsgPack(bytes.into()))
    }
}

#[cfg(test)]
mod tests;
