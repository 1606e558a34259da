//! Reads what the scripts answer, and what they tell.
//!
//! In: fred's values. Out: positions, pages and numbers, or [`BrokerError::Unexpected`] where an
//! answer is not what these scripts give. Owns nothing.

use bytes::Bytes;
use fred::types::Value;

use crate::broker::unavailable::Unavailable;
use crate::broker::{Body, BrokerError, Entry, FeedEvent, publication};
use crate::protocol::event::GapReason;
use crate::protocol::ids::{Position, SessionId, Topic};
use crate::redis::RedisError;
use crate::telemetry::metrics::Metrics;

impl From<RedisError> for BrokerError {
    fn from(error: RedisError) -> Self {
        match &error {
            RedisError::Failed(_) => Self::Unexpected(error.to_string()),
            _ if error.is_not_done() && error.refusal().is_some() => {
                Self::Refused(error.refusal().expect("asked just before"))
            }
            RedisError::NoScript(_) => Unavailable::Scripts.into(),
            RedisError::Moved(_) => Unavailable::Elsewhere.into(),
            _ if error.is_not_done() => Unavailable::Away(error.to_string()).into(),
            _ => Self::Unknown(error.to_string()),
        }
    }
}

/// One entry as it stands in the stream, its body not yet read.
#[derive(Debug)]
pub struct RawEntry {
    /// Where it stands.
    pub position: Position,
    /// What stood before it.
    pub prev: Position,
    /// Its bytes.
    pub body: Bytes,
}

/// The answer of the since script.
#[derive(Debug)]
pub struct RawPage {
    /// Why something is gone, if so.
    pub gap: Option<GapReason>,
    /// The position after which the page begins.
    pub start: Position,
    /// The newest position.
    pub last: Position,
    /// The page.
    pub entries: Vec<RawEntry>,
}

/// Exactly so many parts.
///
/// # Errors
/// [`BrokerError::Unexpected`].
pub fn parts<const N: usize>(value: Value) -> Result<[Value; N], BrokerError> {
    list(value)?
        .try_into()
        .map_err(|parts: Vec<Value>| unexpected("list", &Value::Array(parts)))
}

/// Any number of parts.
///
/// # Errors
/// [`BrokerError::Unexpected`].
pub fn list(value: Value) -> Result<Vec<Value>, BrokerError> {
    match value {
        Value::Array(values) => Ok(values),
        other => Err(unexpected("list", &other)),
    }
}

/// Bytes, also where fred took them for text.
///
/// # Errors
/// [`BrokerError::Unexpected`].
pub fn bytes(value: Value) -> Result<Bytes, BrokerError> {
    match value {
        Value::String(text) => Ok(text.into_inner()),
        Value::Bytes(bytes) => Ok(bytes),
        other => Err(unexpected("text", &other)),
    }
}

/// A number that is not negative.
///
/// # Errors
/// [`BrokerError::Unexpected`].
pub fn number(value: &Value) -> Result<u64, BrokerError> {
    value.as_u64().ok_or_else(|| unexpected("number", value))
}

/// Whether the answer is the text `1`.
#[must_use]
pub fn is_one(value: &Value) -> bool {
    value.as_bytes() == Some(b"1")
}

/// A position.
///
/// # Errors
/// [`BrokerError::Unexpected`].
pub fn position(value: &Value) -> Result<Position, BrokerError> {
    value
        .as_bytes()
        .and_then(position_of)
        .ok_or_else(|| unexpected("position", value))
}

/// A position, or none.
///
/// # Errors
/// [`BrokerError::Unexpected`].
pub fn optional_position(value: &Value) -> Result<Option<Position>, BrokerError> {
    match value {
        Value::Null => Ok(None),
        value => position(value).map(Some),
    }
}

/// A position as bytes of text.
#[must_use]
pub fn position_of(bytes: &[u8]) -> Option<Position> {
    std::str::from_utf8(bytes).ok()?.parse().ok()
}

/// A session's name.
///
/// # Errors
/// [`BrokerError::Unexpected`].
pub fn session(value: &Value) -> Result<SessionId, BrokerError> {
    let text = value.as_bytes().and_then(|b| std::str::from_utf8(b).ok());
    text.and_then(|text| text.parse().ok())
        .ok_or_else(|| unexpected("session", value))
}

/// A list of `{id, prev, body}`.
///
/// # Errors
/// [`BrokerError::Unexpected`].
pub fn entries(value: Value) -> Result<Vec<RawEntry>, BrokerError> {
    let entry = |value| {
        let [position, prev, body] = parts(value)?;
        Ok(RawEntry {
            position: self::position(&position)?,
            prev: self::position(&prev)?,
            body: bytes(body)?,
        })
    };
    list(value)?.into_iter().map(entry).collect()
}

/// Reads a body. One that cannot be read is counted by its reason, and the first of each reason
/// is logged as a warning, the others for debugging.
#[must_use]
pub fn body(bytes: &[u8], topic: &Topic, position: Position, metrics: &Metrics) -> Body {
    let error = match publication::decode(bytes) {
        Ok(body) => return body,
        Err(error) => error,
    };
    let counter = if error.is_newer_kind() {
        &metrics.control.unreadable_newer
    } else {
        &metrics.control.unreadable_damaged
    };
    if counter.get() == 0 {
        tracing::warn!(event = "body_misread", %topic, %position, error = &error as &(dyn std::error::Error + 'static), "a body cannot be read; sessions are told of it as a gap");
    } else {
        tracing::debug!(event = "body_misread", %topic, %position, error = &error as &(dyn std::error::Error + 'static), "a body cannot be read");
    }
    counter.add(1);
    Body::Unreadable
}

/// What a message on a topic's channel says; `None` if nothing that a node would have said.
#[must_use]
pub fn event(topic: &Topic, payload: &[u8], metrics: &Metrics) -> Option<FeedEvent> {
    let mut parts = payload.splitn(3, |byte| *byte == b' ');
    let (first, second, rest) = (parts.next()?, parts.next()?, parts.next()?);
    let topic = topic.clone();
    if first == b"a" {
        // A newer release may say more behind it.
        let session = rest.split(|byte| *byte == b' ').next()?;
        let session: SessionId = std::str::from_utf8(session).ok()?.parse().ok()?;
        return Some(FeedEvent::Acked {
            topic,
            position: position_of(second)?,
            session,
        });
    }
    let position = position_of(first)?;
    let prev = position_of(second)?;
    let body = self::body(rest, &topic, position, metrics);
    Some(FeedEvent::Delivery {
        topic,
        entry: Entry {
            position,
            prev,
            body,
        },
    })
}

/// The answer of the since script.
///
/// # Errors
/// [`BrokerError::Unexpected`].
pub fn since(value: Value) -> Result<RawPage, BrokerError> {
    let [recovered, reason, start, last, page] = parts(value)?;
    let gap = match reason.as_bytes() {
        _ if is_one(&recovered) => None,
        Some(b"retention") => Some(GapReason::Retention),
        Some(b"failover") => Some(GapReason::Failover),
        _ => return Err(unexpected("reason", &reason)),
    };
    Ok(RawPage {
        gap,
        start: position(&start)?,
        last: position(&last)?,
        entries: entries(page)?,
    })
}

/// Says what was expected, and what kind of thing came (never its content).
#[must_use]
pub fn unexpected(expected: &str, value: &Value) -> BrokerError {
    BrokerError::Unexpected(format!("expected a {expected}, got {}", value.kind()))
}
