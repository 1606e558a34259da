//! Both wire forms: bytes to commands, events to complete frames.
//!
//! In: one whole WebSocket message, or an event. Out: a typed [`Envelope`], or one frame that is
//! the same for every receiver. Holds no state. Bounded by the size of the message; the number of
//! fields kept is that of the known names. What cannot be read becomes [`Malformed`], with the
//! command's id wherever the map can be read. What names mean and who may do what is judged by
//! the session.
//!
//! A field that is null counts as absent, except `data`. A known field that is there twice is
//! refused, because two readers could take different ones.

use bytes::Bytes;
use serde::Serialize;

use super::command::{Command, Connect, Envelope, History, Publish, Subscribe};
use super::error::{ErrorCode, WireError};
use super::event::Event;
use super::form::{Encoding, Framing, WireForm};
use super::frame::{self, Opcode};
use super::ids::{Position, Priority};
use super::raw::{Fields, Raw};

/// Most of the newest publications that `rewind` may ask for. Part of the wire contract.
pub const REWIND_MAX: u32 = 100;

/// Bytes of an event beside its `data`, for the first allocation: names, position and time of a
/// usual message. A longer event lets the buffer grow.
const EVENT_BYTES_USUAL: usize = 192;

/// A command that could not be read, with its id where one could.
#[derive(Debug, Clone, PartialEq)]
pub struct Malformed {
    /// The id, if the map had a valid one.
    pub id: Option<u64>,
    /// What to tell the client.
    pub error: WireError,
}

/// A value that its form cannot express: a bug of this program, or a body that was damaged where
/// it was stored.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    /// As JSON.
    #[error("not expressible as JSON")]
    Json(#[source] serde_json::Error),
    /// As MessagePack.
    #[error("not expressible as MessagePack")]
    MsgPack(#[source] rmp_serde::encode::Error),
}

/// Reads one command.
///
/// # Errors
/// [`Malformed`] when the message is no map, has no `type`, an unknown one, a field of the wrong
/// type, or fields that contradict each other.
pub fn decode(encoding: Encoding, message: &[u8]) -> Result<Envelope, Malformed> {
    decode_within(encoding, message, usize::MAX)
}

/// [`decode`] for a session, whose `connect` may name so many topics. One that names more is
/// refused before anything is done for any of them.
///
/// # Errors
/// As [`decode`]; `limit_exceeded` for too many topics.
pub fn decode_within(
    encoding: Encoding,
    message: &[u8],
    topics_max: usize,
) -> Result<Envelope, Malformed> {
    let without_id = |error| Malformed { id: None, error };
    let fields = Fields::read(encoding, message, &NAMES)
        .map(CommandFields)
        .map_err(|error| without_id(bad(error.to_string())))?;
    let id = fields
        .get("id", Raw::unsigned, "an unsigned integer")
        .map_err(without_id)?;
    if fields.0.repeated().contains(&"id") {
        return Err(without_id(bad("the field `id` is there twice")));
    }
    match fields.command(topics_max) {
        Ok(command) => Ok(Envelope { id, command }),
        Err(error) => Err(Malformed { id, error }),
    }
}

/// Turns an event into what is sent for it: encoded, and framed.
///
/// # Errors
/// [`EncodeError`].
pub fn encode(form: WireForm, event: &Event) -> Result<Bytes, EncodeError> {
    let body_bytes = match event {
        Event::Message(message) => message.data.bytes().len(),
        _ => 0,
    };
    let bytes_usual = EVENT_BYTES_USUAL + body_bytes;
    match form.framing {
        Framing::WebSocket => {
            let mut buffer = frame::begin(bytes_usual);
            write(form.encoding, &mut buffer, event)?;
            Ok(frame::finish(Opcode::of(form.encoding), buffer))
        }
    }
}

/// A value in an encoding, without a frame: the body of an HTTP answer.
///
/// # Errors
/// [`EncodeError`].
pub fn payload(encoding: Encoding, value: &impl Serialize) -> Result<Vec<u8>, EncodeError> {
    let mut buffer = Vec::with_capacity(EVENT_BYTES_USUAL);
    write(encoding, &mut buffer, value)?;
    Ok(buffer)
}

fn write(
    encoding: Encoding,
    buffer: &mut Vec<u8>,
    value: &impl Serialize,
) -> Result<(), EncodeError> {
    match encoding {
        Encoding::Json => serde_json::to_writer(buffer, value).map_err(EncodeError::Json),
        Encoding::MsgPack => {
            rmp_serde::encode::write_named(buffer, value).map_err(EncodeError::MsgPack)
        }
    }
}

/// Every field that some command has.
const NAMES: [&str; 26] = [
    "type",
    "id",
    "topic",
    "data",
    "user",
    "token",
    "position",
    "since",
    "key",
    "idempotency_key",
    "priority",
    "conflate",
    "echo",
    "ttl_ms",
    "remove",
    "if_position",
    "rewind",
    "presence",
    "until",
    "limit",
    "reverse",
    "after",
    "device",
    "topics",
    "positions",
    "traceparent",
];

/// The fields of `subscribe`, which are those of each entry of `connect.topics`.
const SUBSCRIBE_NAMES: [&str; 5] = ["topic", "since", "rewind", "token", "presence"];

/// The fields of one command.
struct CommandFields<'a>(Fields<'a>);

impl<'a> CommandFields<'a> {
    /// The field as `read` understands it; `None` when it is absent or null.
    fn get<T>(
        &self,
        name: &'static str,
        read: impl Fn(Raw<'a>) -> Option<T>,
        kind: &str,
    ) -> Result<Option<T>, WireError> {
        match self.0.get(name) {
            Some(value) if !value.is_null() => match read(value) {
                Some(value) => Ok(Some(value)),
                None => Err(bad(format!("the field `{name}` must be {kind}"))),
            },
            _ => Ok(None),
        }
    }

    fn text(&self, name: &'static str) -> Result<Option<String>, WireError> {
        let read = |value: Raw<'a>| value.text().map(std::borrow::Cow::into_owned);
        self.get(name, read, "text")
    }

    fn flag(&self, name: &'static str) -> Result<Option<bool>, WireError> {
        self.get(name, Raw::boolean, "true or false")
    }

    fn position(&self, name: &'static str) -> Result<Option<Position>, WireError> {
        let read = |value: Raw<'a>| value.text()?.parse().ok();
        let kind = "a position: MILLISECONDS-SEQUENCE, for example 1732190000000-7";
        self.get(name, read, kind)
    }

    /// A page length. What is beyond 32 bits is beyond every page and is cut here.
    fn limit(&self) -> Result<Option<u32>, WireError> {
        let read = |value: Raw<'a>| {
            let limit = value.unsigned().filter(|limit| *limit > 0)?;
            Some(u32::try_from(limit).unwrap_or(u32::MAX))
        };
        self.get("limit", read, "an integer above 0")
    }

    fn not_twice(&self) -> Result<(), WireError> {
        match self.0.repeated().first() {
            Some(name) => Err(bad(format!("the field `{name}` is there twice"))),
            None => Ok(()),
        }
    }

    fn command(&self, topics_max: usize) -> Result<Command, WireError> {
        self.not_twice()?;
        let kind = required("type", self.get("type", Raw::text, "text")?)?;
        let command = match &*kind {
            "connect" => Command::Connect(self.connect(topics_max)?),
            "subscribe" => Command::Subscribe(self.subscribe()?),
            "unsubscribe" => Command::Unsubscribe {
                topic: required("topic", self.text("topic")?)?,
            },
            "publish" => Command::Publish(self.publish()?),
            "ack" => Command::Ack {
                position: required("position", self.position("position")?)?,
            },
            "history" => Command::History(History {
                topic: required("topic", self.text("topic")?)?,
                since: self.position("since")?,
                until: self.position("until")?,
                limit: self.limit()?,
                reverse: self.flag("reverse")?.unwrap_or(false),
            }),
            "presence" => Command::Presence {
                topic: required("topic", self.text("topic")?)?,
                after: self.text("after")?,
                limit: self.limit()?,
            },
            "refresh" => Command::Refresh {
                token: required("token", self.text("token")?)?,
            },
            "ping" => Command::Ping,
            unknown => return Err(unknown_command(unknown)),
        };
        Ok(command)
    }

    fn connect(&self, topics_max: usize) -> Result<Connect, WireError> {
        let kind = "a list of maps, each with the fields of `subscribe`";
        let listed = self.get("topics", |value| value.list(topics_max), kind)?;
        let (listed, listed_count) = listed.unwrap_or_default();
        let kind = "a map from topics to positions, each MILLISECONDS-SEQUENCE";
        let resumed = self.get("positions", |value| value.map(topics_max), kind)?;
        let (resumed, resumed_count) = resumed.unwrap_or_default();
        if listed_count.saturating_add(resumed_count) > topics_max {
            let text = format!("a `connect` names at most {topics_max} topics");
            return Err(WireError::new(ErrorCode::LimitExceeded, text));
        }
        let topics = listed.into_iter().map(listed_topic);
        let connect = Connect {
            token: self.text("token")?,
            device: self.text("device")?,
            topics: topics.collect::<Result<_, _>>()?,
            positions: resumed
                .into_iter()
                .map(|(topic, position)| Some((topic, position.text()?.parse().ok()?)))
                .collect::<Option<_>>()
                .ok_or_else(|| bad(format!("the field `positions` must be {kind}")))?,
        };
        let listed = connect.topics.iter().map(|subscribe| &*subscribe.topic);
        let resumed = connect.positions.iter().map(|(topic, _)| &**topic);
        let mut names: Vec<&str> = listed.chain(resumed).collect();
        names.sort_unstable();
        if names.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(bad("`topics` and `positions` name a topic twice"));
        }
        Ok(connect)
    }

    fn subscribe(&self) -> Result<Subscribe, WireError> {
        let read = |value: Raw<'a>| {
            let rewind = u32::try_from(value.unsigned()?).ok()?;
            (rewind <= REWIND_MAX).then_some(rewind)
        };
        let rewind = self.get("rewind", read, "an integer from 0 to 100")?;
        let since = self.position("since")?;
        if since.is_some() && rewind.is_some() {
            return Err(bad("`since` and `rewind` exclude each other"));
        }
        Ok(Subscribe {
            topic: required("topic", self.text("topic")?)?,
            since,
            rewind,
            token: self.text("token")?,
            presence: self.flag("presence")?.unwrap_or(false),
        })
    }

    fn publish(&self) -> Result<Publish, WireError> {
        if self.flag("remove")? == Some(true) || self.position("if_position")?.is_some() {
            return Err(bad(
                "`remove` and `if_position` need a namespace that keeps state, and this one keeps none",
            ));
        }
        let (topic, user) = (self.text("topic")?, self.text("user")?);
        if topic.is_some() == user.is_some() {
            return Err(bad("exactly one of `topic` and `user` must be given"));
        }
        let kind = "one of `critical`, `high`, `normal` and `low`";
        Ok(Publish {
            topic,
            user,
            data: required("data", self.0.get("data"))?.data()?,
            priority: self.get("priority", priority, kind)?,
            idempotency_key: self.text("idempotency_key")?,
            key: self.text("key")?,
            conflate: self.flag("conflate")?,
            ttl_ms: self.get("ttl_ms", Raw::unsigned, "an unsigned integer")?,
            echo: self.flag("echo")?.unwrap_or(false),
            traceparent: self.get("traceparent", traceparent, "text")?,
        })
    }
}

/// One entry of `connect.topics`.
fn listed_topic(entry: Raw<'_>) -> Result<Subscribe, WireError> {
    let read = || {
        let fields = Fields::of(entry, &SUBSCRIBE_NAMES)
            .map_err(|_| bad("each must be a map with the fields of `subscribe`"))?;
        let fields = CommandFields(fields);
        fields.not_twice()?;
        fields.subscribe()
    };
    read().map_err(|error| bad(format!("in `topics`: {error}")))
}

/// What is no text is as an empty one, which is no `traceparent`: it is for the node to ignore.
#[expect(clippy::unnecessary_wraps, reason = "the form of a reader")]
fn traceparent(value: Raw<'_>) -> Option<String> {
    Some(
        value
            .text()
            .map_or_else(String::new, std::borrow::Cow::into_owned),
    )
}

fn priority(value: Raw<'_>) -> Option<Priority> {
    Some(match &*value.text()? {
        "critical" => Priority::Critical,
        "high" => Priority::High,
        "normal" => Priority::Normal,
        "low" => Priority::Low,
        _ => return None,
    })
}

fn required<T>(name: &str, value: Option<T>) -> Result<T, WireError> {
    value.ok_or_else(|| bad(format!("the field `{name}` is missing")))
}

fn bad(message: impl Into<std::borrow::Cow<'static, str>>) -> WireError {
    WireError::bad_request(message)
}

/// The name is repeated to the client, escaped and cut, so that its log stays readable.
fn unknown_command(name: &str) -> WireError {
    let shown: String = name.chars().take(32).collect();
    WireError::new(
        ErrorCode::UnknownCommand,
        format!("there is no command {shown:?}"),
    )
}

#[cfg(test)]
mod body_tests;
#[cfg(test)]
mod tests;
