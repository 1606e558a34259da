//! One publication as a caller describes it: read, checked, and turned into requests.
//!
//! In: the bytes of one body, in either form. Out: an [`Item`], one request or refusal per target
//! in the order of the body. `data` is taken as the bytes that it is, in the caller's form.
//! Bounds: `api.targets_max` targets, `session.message_bytes_max` of `data`,
//! `session.key_bytes_max` of each key; beyond them the publication is refused.

use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::state::ApiState;
use crate::broker::PublishRequest;
use crate::broker::idempotency::Publisher;
use crate::broker::publication::Publication;
use crate::protocol::codec::Wire;
use crate::protocol::data::{Data, DataError};
use crate::protocol::error::{ErrorCode, WireError};
use crate::protocol::ids::{App, NameError, Priority, SessionId, Topic, User};
use crate::protocol::raw;

/// What to publish and where. Exactly one of `topic`, `topics`, `user`, `users` and
/// `everyone: true` says where.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default)]
pub struct PublishBody {
    /// One topic.
    topic: Option<String>,
    /// Several topics, at most 1,000 by default.
    topics: Option<Vec<String>>,
    /// The inbox of one user.
    user: Option<String>,
    /// The inboxes of several users, at most 1,000 by default.
    users: Option<Vec<String>>,
    /// Every session.
    everyone: Option<bool>,
    /// The message, any value; at most 64 KiB by default.
    #[serde(deserialize_with = "pass_over")]
    #[schema(required, value_type = Value)]
    data: (),
    /// How urgent. Absent: the namespace's default.
    priority: Option<Priority>,
    /// A repeat with this key, to the same topic within 5 minutes by default, is not published
    /// again and answers with the first position. 1 to 128 bytes.
    idempotency_key: Option<String>,
    /// What the message is about. 1 to 128 bytes.
    key: Option<String>,
    /// A newer message of the same key may stand for this one. Absent: as the namespace says.
    conflate: Option<bool>,
    /// After so many milliseconds the message is not shown to new readers.
    ttl_ms: Option<u64>,
    /// A session that does not get it.
    exclude_session: Option<SessionId>,
    /// Belongs to state topics, of which there are none.
    #[schema(ignore)]
    remove: Option<IgnoredAny>,
    /// As `remove`.
    #[schema(ignore)]
    if_position: Option<IgnoredAny>,
}

/// Accepts anything: the value is read where it lies, by [`Item::read`].
fn pass_over<'de, D: Deserializer<'de>>(deserializer: D) -> Result<(), D::Error> {
    IgnoredAny::deserialize(deserializer).map(|_| ())
}

/// A publication with its targets in order.
#[derive(Debug)]
pub(super) struct Item {
    /// What goes to each of them, or why it does not.
    pub(super) targets: Vec<Target>,
}

/// One target of a publication.
#[derive(Debug)]
pub(super) struct Target {
    /// Its topic as the answer names it.
    pub(super) topic: String,
    /// What is asked of the broker.
    pub(super) request: Result<PublishRequest, WireError>,
}

impl Item {
    /// Reads and checks one body.
    ///
    /// # Errors
    /// What is wrong with the publication as a whole. A target that is no name is refused alone.
    pub(super) fn read(state: &ApiState, wire: Wire, bytes: &[u8]) -> Result<Self, WireError> {
        let mut data = None;
        raw::each_field(wire, bytes, |name, value| {
            if name == "data" {
                data = Some(value.data());
            }
        })
        .map_err(|error| WireError::bad_request(error.to_string()))?;
        let body: PublishBody = read_fields(wire, bytes)?;
        if body.remove.is_some() || body.if_position.is_some() {
            return Err(WireError::bad_request(
                "`remove` and `if_position` belong to state topics, which this node does not have",
            ));
        }
        let data = data.ok_or_else(|| WireError::bad_request("`data` is missing"))?;
        let content = Content::new(state, &body, data)?;
        let names = body.targets(&state.app, state.config.api.targets_max)?;
        let targets = names
            .into_iter()
            .map(|name| Target {
                topic: name.shown,
                request: name.topic.map(|topic| content.request(state, topic)),
            })
            .collect();
        Ok(Self { targets })
    }
}

fn read_fields(wire: Wire, bytes: &[u8]) -> Result<PublishBody, WireError> {
    match wire {
        Wire::Json => {
            serde_json::from_slice(bytes).map_err(|error| WireError::bad_request(error.to_string()))
        }
        Wire::MsgPack => {
            rmp_serde::from_slice(bytes).map_err(|error| WireError::bad_request(error.to_string()))
        }
    }
}

/// Splits a list of bodies into the bytes of each.
///
/// # Errors
/// `bad_request` when the bytes are not exactly one list.
pub(super) fn list(wire: Wire, bytes: &[u8]) -> Result<Vec<&[u8]>, WireError> {
    match wire {
        Wire::Json => serde_json::from_slice::<Vec<&RawValue>>(bytes)
            .map(|items| items.iter().map(|item| item.get().as_bytes()).collect())
            .map_err(|error| WireError::bad_request(format!("the body is not a list: {error}"))),
        Wire::MsgPack => msgpack_list(bytes)
            .ok_or_else(|| WireError::bad_request("the body is not one MessagePack list")),
    }
}

fn msgpack_list(bytes: &[u8]) -> Option<Vec<&[u8]>> {
    let mut rest = bytes;
    let count = rmp::decode::read_array_len(&mut rest).ok()?;
    // The announced length is not believed: the vector grows by what is there.
    let mut items = Vec::new();
    for _ in 0..count {
        let item = rest;
        IgnoredAny::deserialize(&mut rmp_serde::Deserializer::new(&mut rest)).ok()?;
        items.push(&item[..item.len() - rest.len()]);
    }
    rest.is_empty().then_some(items)
}

/// A target's name as given, and what became of it.
struct Name {
    shown: String,
    topic: Result<Topic, WireError>,
}

impl Name {
    fn topic(app: &App, name: String) -> Self {
        let topic = Topic::new(app, &name).map_err(WireError::from);
        Self { shown: name, topic }
    }

    fn inbox(app: &App, name: &str) -> Self {
        Self {
            shown: format!("@{name}"),
            topic: User::new(name)
                .map(|user| Topic::inbox(app, &user))
                .map_err(invalid_user),
        }
    }
}

/// What a caller is told of a user's name that is none.
pub(super) fn invalid_user(error: NameError) -> WireError {
    // The code of an invalid topic, because what a user names here is an inbox.
    WireError::new(ErrorCode::InvalidTopic, format!("invalid user: {error}"))
}

impl PublishBody {
    /// The names that the body targets, in its order.
    fn targets(self, app: &App, targets_max: usize) -> Result<Vec<Name>, WireError> {
        let everyone = self.everyone == Some(true);
        let (topics, inboxes) = match (self.topic, self.topics, self.user, self.users, everyone) {
            (Some(topic), None, None, None, false) => (vec![topic], vec![]),
            (None, Some(topics), None, None, false) => (topics, vec![]),
            (None, None, Some(user), None, false) => (vec![], vec![user]),
            (None, None, None, Some(users), false) => (vec![], users),
            (None, None, None, None, true) => (vec!["@".to_owned()], vec![]),
            _ => {
                return Err(WireError::bad_request(
                    "exactly one of `topic`, `topics`, `user`, `users` and `everyone: true` is \
                     needed",
                ));
            }
        };
        let count = topics.len() + inboxes.len();
        if count == 0 {
            return Err(WireError::bad_request("the list of targets is empty"));
        }
        if count > targets_max {
            return Err(WireError::new(
                ErrorCode::LimitExceeded,
                format!("{count} targets are more than {targets_max}"),
            ));
        }
        let topics = topics.into_iter().map(|name| Name::topic(app, name));
        let inboxes = inboxes.iter().map(|name| Name::inbox(app, name));
        Ok(topics.chain(inboxes).collect())
    }
}

/// What is the same for every target.
struct Content {
    data: Data,
    priority: Option<Priority>,
    idempotency: Option<(String, u64)>,
    key: Option<String>,
    conflate: Option<bool>,
    ttl_ms: Option<u64>,
    exclude: Option<SessionId>,
    time_ms: u64,
}

impl Content {
    fn new(
        state: &ApiState,
        body: &PublishBody,
        data: Result<Data, DataError>,
    ) -> Result<Self, WireError> {
        let limits = &state.config.session;
        let data = data?;
        if data.bytes().len() > limits.message_bytes_max {
            return Err(WireError::new(
                ErrorCode::TooLarge,
                format!("`data` is longer than {} bytes", limits.message_bytes_max),
            ));
        }
        check_key("key", body.key.as_deref(), limits.key_bytes_max)?;
        let idempotency_key = body.idempotency_key.as_deref();
        check_key("idempotency_key", idempotency_key, limits.key_bytes_max)?;
        let kept_ms = u64::try_from(limits.idempotency.as_millis()).unwrap_or(u64::MAX);
        Ok(Self {
            data,
            priority: body.priority,
            idempotency: idempotency_key
                .map(|key| (Publisher::Api(&state.app).remembered(key), kept_ms)),
            key: body.key.clone(),
            conflate: body.conflate,
            ttl_ms: body.ttl_ms,
            exclude: body.exclude_session,
            time_ms: super::unix_ms(),
        })
    }

    fn request(&self, state: &ApiState, topic: Topic) -> PublishRequest {
        let namespace = state.config.namespace(&topic);
        PublishRequest {
            publication: Publication {
                data: self.data.clone(),
                user: None,
                priority: self.priority.unwrap_or(namespace.priority),
                key: self.key.clone(),
                conflate: self.conflate.unwrap_or(namespace.conflate),
                removed: false,
                time_ms: self.time_ms,
                ttl_ms: self.ttl_ms,
                exclude: self.exclude,
            },
            retention: namespace.retention(),
            replicas: namespace.replicas(),
            idempotency: self.idempotency.clone(),
            topic,
        }
    }
}

fn check_key(field: &str, key: Option<&str>, bytes_max: usize) -> Result<(), WireError> {
    match key.map(str::len) {
        Some(0) => Err(WireError::bad_request(format!("`{field}` is empty"))),
        Some(length) if length > bytes_max => Err(WireError::new(
            ErrorCode::TooLarge,
            format!("`{field}` is longer than {bytes_max} bytes"),
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_split_into_the_bytes_of_its_items() {
        let json = br#" [ {"a":1} , 2,"x"] "#;
        let items = list(Wire::Json, json).unwrap();
        assert_eq!(items, [&br#"{"a":1}"#[..], b"2", br#""x""#]);
        // [{"a": 1}, bin of two bytes, ext, nil]
        let msgpack = b"\x94\x81\xa1a\x01\xc4\x02\xff\xfe\xd4\x05\x00\xc0";
        let items = list(Wire::MsgPack, msgpack).unwrap();
        let wanted = [
            &b"\x81\xa1a\x01"[..],
            b"\xc4\x02\xff\xfe",
            b"\xd4\x05\x00",
            b"\xc0",
        ];
        assert_eq!(items, wanted);
    }

    #[test]
    fn what_is_not_exactly_one_list_is_refused() {
        for json in ["{}", "[1", "[1] 2", ""] {
            assert!(list(Wire::Json, json.as_bytes()).is_err(), "{json:?}");
        }
        let huge_count = b"\xdd\xff\xff\xff\xff\x01";
        let msgpack: [&[u8]; 5] = [b"\x80", b"\x91", b"\x91\x01\x02", b"", huge_count];
        for bytes in msgpack {
            assert!(list(Wire::MsgPack, bytes).is_err(), "{bytes:x?}");
        }
    }
}
