//! Reads what the scripts answer, and what they publish on channels.
//!
//! In: fred's values. Out: events, positions, pages and numbers, or [`BrokerError::Unexpected`] where an
//! answer is not what these scripts give. Owns nothing.

use bytes::Bytes;
use fred::types::Value;

use crate::broker::{Body, BrokerError, Entry, FeedEvent, channel_context, publication};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::trace::metrics::Ignored;
use fanfare_protocol::event::GapReason;
use fanfare_protocol::ids::{Position, SessionId, Topic};

/// One entry as it is in the stream, its body not yet read.
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
        // A newer release may say more after it.
        let session = rest.split(|byte| *byte == b' ').next()?;
        let session: SessionId = std::str::from_utf8(session).ok()?.parse().ok()?;
        return Some(FeedEvent::Acked {
            topic,
            position: position_of(second)?,
            session,
        });
    }
    let position: Position = position_of(first)?;
    let prev = position_of(second)?;
    let (trace, body) = channel_context::split(rest);
    if trace.is_none() && body.len() < rest.len() {
        metrics.trace.ignored.of(Ignored::ZeroId).add(1);
    }
    let body = self::body(body, &topic, position, metrics);
    Some(FeedEvent::Delivery {
        topic,
        entry: Entry {
            position,
            prev,
            body,
        },
        trace,
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

/// What callers are told of an error of Redis, whatever it was.
#[cfg(test)]
mod tests {
    use fred::error::{Error, ErrorKind};

    use super::*;
    use crate::broker::unavailable::Unavailable;
    use crate::redis::RedisError;
    use crate::redis::nowhere::{KINDS, Kind, Nowhere};
    use crate::redis::refusal::{REFUSALS, Refusal};
    use fanfare_protocol::error::ErrorCode;

    /// What Redis answers where it refuses in the word of a row.
    fn refused(refusal: &Refusal) -> RedisError {
        let text = match refusal.word {
            "MAXCLIENTS" => "ERR max number of clients reached",
            "DATABASE" => "ERR DB index is out of range",
            "NOCLUSTER" => "ERR This instance has cluster support disabled",
            "NOSENTINEL" => "ERR unknown command 'SENTINEL', with args beginning with: ",
            word => return RedisError::of(Error::new(ErrorKind::Unknown, format!("{word} x"))),
        };
        RedisError::of(Error::new(ErrorKind::Unknown, text))
    }

    #[test]
    fn whatever_kept_a_deployment_from_use_its_word_reaches_callers() {
        for refusal in REFUSALS {
            let error = refused(refusal);
            // Two rows may have one word.
            let refusal = error.refusal().filter(|found| *found == refusal);
            let refusal = refusal.expect("the same word");
            let uncompared = Nowhere::uncompared("east at 10.0.0.1", &error);
            for kind in KINDS {
                let nowhere = match kind {
                    Kind::Uncompared => uncompared.clone(),
                    kind => Nowhere::new(kind, "east").because("10.0.0.1", error.refusal()),
                };
                let told = BrokerError::from(RedisError::Nowhere(nowhere)).told();
                assert_eq!(told.code, ErrorCode::Unavailable);
                let message = told.message;
                assert!(message.contains(refusal.word), "{message}");
                assert!(message.contains(refusal.advice), "{message}");
                assert!(!message.contains("10.0.0.1"), "{message}");
            }
        }
    }

    #[test]
    fn what_the_client_of_redis_says_reaches_callers_in_the_words_that_fit() {
        let not_done = |kind, text: &'static str| {
            let error = RedisError::of(Error::new(kind, text));
            assert!(error.is_not_done(), "{text}");
            BrokerError::from(error)
        };
        for text in ["ASK 7 10.0.0.1:6379", "TRYAGAIN Multiple keys", "MOVED 7 x"] {
            let expected = Unavailable::Elsewhere.into();
            assert_eq!(not_done(ErrorKind::Cluster, text), expected, "{text}");
        }
        let crowded = not_done(ErrorKind::Backpressure, "Max in-flight commands reached.");
        assert_eq!(crowded, Unavailable::CommandsFull.into());
        let away = not_done(ErrorKind::Canceled, "Canceled.");
        assert!(matches!(
            away,
            BrokerError::Unavailable(Unavailable::Away(_))
        ));
        // What waited for a call whose outcome is not known was not done all the same.
        let lost = RedisError::of(Error::new(ErrorKind::Timeout, "Request timed out."));
        let lost = BrokerError::not_done(&lost);
        assert!(matches!(
            lost,
            BrokerError::Unavailable(Unavailable::Away(_))
        ));
    }
}
