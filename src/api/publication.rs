//! One publication as a caller describes it: read, checked, and turned into requests.
//!
//! In: the bytes of one body, in either form. Out: one request or refusal per target ([`Target`]) in
//! the order of the body. `data` is taken as the bytes that it is, in the caller's form.
//! Bounds: `api.targets_max` targets, `session.message_bytes_max` of `data`,
//! `session.key_bytes_max` of each key; beyond them the publication is refused.

use serde::de::value::{Error as ValueError, StrDeserializer};
use serde::de::{DeserializeSeed as _, IgnoredAny, IntoDeserializer as _};
use serde::{Deserialize as _, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::at_most::{AtMost, Counted};
use super::auth::Caller;
use super::body_fields::{BodyFields, Known};
use super::state::ApiState;
use super::trace::{self, Parent};
use crate::broker::PublishRequest;
use crate::broker::publication::Publication;
use crate::config::Namespace;
use crate::http::error::as_body;
use crate::policy::OnTopic;
use fanfare_protocol::data::Data;
use fanfare_protocol::error::{ErrorCode, WireError};
use fanfare_protocol::event::ErrorBody;
use fanfare_protocol::form::Encoding;
use fanfare_protocol::ids::{App, NameError, Position, Priority, SessionId, Topic, User};
use fanfare_protocol::raw::Raw;

/// What goes to one target, or why it does not.
pub(super) type Target = Result<PublishRequest, TargetResult>;

/// What became of one target.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub enum TargetResult {
    /// The broker has it.
    Published {
        /// Where it was published.
        #[schema(value_type = String)]
        topic: Topic,
        /// Where it stands, also on topics without history.
        position: Position,
        /// It had been published before under the same `idempotency_key`.
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        duplicate: bool,
    },
    /// It was not published, or nobody knows.
    Failed {
        /// Where it should have been published.
        topic: String,
        /// Why it was not.
        error: ErrorBody,
    },
}

impl TargetResult {
    /// What a target is answered with that was refused; `topic` as the caller named it.
    pub(super) fn failed(topic: impl Into<String>, error: &WireError) -> Self {
        Self::Failed {
            topic: topic.into(),
            error: as_body(error),
        }
    }

    pub(super) fn is_published(&self) -> bool {
        matches!(self, Self::Published { .. })
    }
}

/// What to publish and where. Exactly one of `topic`, `topics`, `user`, `users` and
/// `everyone: true` says where.
#[derive(Debug, Default, ToSchema)]
#[schema(example = json!({"topic": "orders:7", "data": {"state": "paid"}, "idempotency_key": "order-7-paid"}))]
pub struct PublishBody {
    /// One topic.
    #[schema(nullable = false)]
    topic: Option<String>,
    /// Several topics, at most 1,000 by default.
    #[schema(nullable = false)]
    topics: Option<Vec<String>>,
    /// The inbox of one user.
    #[schema(nullable = false)]
    user: Option<String>,
    /// The inboxes of several users, at most 1,000 by default.
    #[schema(nullable = false)]
    users: Option<Vec<String>>,
    /// Every session.
    #[schema(nullable = false)]
    everyone: Option<bool>,
    /// The message, any value; at most 64 KiB by default.
    #[schema(required, value_type = Value)]
    data: Option<Data>,
    /// How urgent. Absent: the namespace's default.
    #[schema(nullable = false)]
    priority: Option<Priority>,
    /// A repeat with this key, to the same topic within 5 minutes by default, is not published
    /// again and answers with the first position. 1 to 128 bytes.
    #[schema(nullable = false)]
    idempotency_key: Option<String>,
    /// What the message is about. 1 to 128 bytes.
    #[schema(nullable = false)]
    key: Option<String>,
    /// A newer message of the same key may stand for this one. Absent: as the namespace says.
    #[schema(nullable = false)]
    conflate: Option<bool>,
    /// After so many milliseconds the message is not shown to new readers.
    #[schema(nullable = false)]
    ttl_ms: Option<u64>,
    /// A session that does not get it.
    #[schema(nullable = false)]
    exclude_session: Option<SessionId>,
    /// The trace that the message belongs to, as the header of that name, above which it stands. One
    /// that is none is ignored.
    #[schema(nullable = false)]
    traceparent: Option<String>,
}

/// Every field of a publication. Of state topics, to which the others belong, there are none.
const FIELDS: Known = Known {
    shown: &[
        "topic",
        "topics",
        "user",
        "users",
        "everyone",
        "data",
        "priority",
        "idempotency_key",
        "key",
        "conflate",
        "ttl_ms",
        "exclude_session",
        "traceparent",
    ],
    hidden: STATE_FIELDS,
};

/// The fields of state topics.
pub(super) const STATE_FIELDS: &[&str] = &["remove", "if_position"];

impl PublishBody {
    /// What the fields say.
    ///
    /// # Errors
    /// A field that is not of its kind, and those of state topics.
    pub(super) fn of(fields: &BodyFields<'_>, targets_max: usize) -> Result<Self, WireError> {
        if fields.flag("remove")? == Some(true) || fields.get("if_position", "", Some)?.is_some() {
            return Err(WireError::bad_request(
                "`remove` and `if_position` belong to state topics, which this node does not have",
            ));
        }
        let session = |value: Raw<'_>| value.text()?.parse().ok();
        let priority = |value: Raw<'_>| {
            let text = value.text()?;
            let name: StrDeserializer<'_, ValueError> = (&*text).into_deserializer();
            Priority::deserialize(name).ok()
        };
        let priorities = "one of `critical`, `high`, `normal` and `low`";
        Ok(Self {
            topic: fields.text("topic")?,
            topics: fields.texts("topics", "targets", targets_max)?,
            user: fields.text("user")?,
            users: fields.texts("users", "targets", targets_max)?,
            everyone: fields.flag("everyone")?,
            data: fields.raw("data").map(Raw::data).transpose()?,
            priority: fields.get("priority", priorities, priority)?,
            idempotency_key: fields.text("idempotency_key")?,
            key: fields.text("key")?,
            conflate: fields.flag("conflate")?,
            ttl_ms: fields.unsigned("ttl_ms")?,
            exclude_session: fields.get("exclude_session", "32 hexadecimal digits", session)?,
            traceparent: fields.lenient_text("traceparent"),
        })
    }
}

/// Reads and checks one body: what goes to each of its targets, in their order.
///
/// # Errors
/// What is wrong with the publication as a whole. A target that is no name is refused alone.
pub(super) fn read(
    (state, caller): (&ApiState, &Caller),
    encoding: Encoding,
    bytes: &[u8],
    parent: Parent,
) -> Result<Vec<Target>, WireError> {
    let fields = BodyFields::read(encoding, bytes, FIELDS)?;
    let (content, names) = described(state, &fields)?;
    let trace = trace::of_body(state, content.traceparent.as_deref(), parent);
    let kept = state.config.session.idempotency;
    let kept_ms = u64::try_from(kept.as_millis()).unwrap_or(u64::MAX);
    let key = content.idempotency_key.as_deref();
    let publisher = caller.publisher();
    let idempotency = key.map(|key| (publisher.remembered(key), kept_ms));
    let request = |topic: Topic| {
        // It may have gone since the call was judged.
        let settings = state.apps.known(&topic).ok_or_else(|| {
            let text = format!("there is no app `{}`", topic.app());
            let error = WireError::new(ErrorCode::NotFound, text);
            (topic.name().to_owned(), error)
        })?;
        let namespace = settings.namespace(&topic);
        Ok(PublishRequest {
            publication: content.publication(namespace),
            retention: namespace.retention(),
            replicas: namespace.replicas(),
            idempotency: idempotency.clone(),
            trace,
            topic,
        })
    };
    let topics = names
        .into_iter()
        .map(|name| name.judged(state, caller, OnTopic::Publish));
    let failed = |(name, error): (String, WireError)| TargetResult::failed(name, &error);
    Ok(topics
        .map(|topic| topic.and_then(request).map_err(failed))
        .collect())
}

/// What the fields of a publication say: its content, and the names of its targets.
///
/// # Errors
/// What is wrong with the publication as a whole.
pub(super) fn described(
    state: &ApiState,
    fields: &BodyFields<'_>,
) -> Result<(Content, Vec<Name>), WireError> {
    let mut body = PublishBody::of(fields, state.config.api.targets_max)?;
    let data = body.data.take();
    let data = data.ok_or_else(|| WireError::bad_request("the field `data` is missing"))?;
    let content = Content::new(state, &body, data)?;
    Ok((content, body.names()?))
}

/// The names of a body's targets as far as they can be read, whatever else is wrong with it.
pub(super) fn named(state: &ApiState, fields: &BodyFields<'_>) -> Vec<Name> {
    let max = state.config.api.targets_max;
    let mut names = Vec::new();
    for (one, many, as_name) in [
        ("topic", "topics", Name::Topic as fn(String) -> Name),
        ("user", "users", Name::User),
    ] {
        let all = fields.texts(many, "targets", max).ok().flatten();
        let one = fields.text(one).ok().flatten();
        names.extend(all.into_iter().flatten().chain(one).map(as_name));
    }
    if fields.flag("everyone") == Ok(Some(true)) {
        names.push(Name::Topic("@".to_owned()));
    }
    names
}

/// Splits a list of bodies into the bytes of each; of more than `max` it says how many they are.
///
/// # Errors
/// `bad_request` when the bytes are not exactly one list.
pub(super) fn list(
    encoding: Encoding,
    bytes: &[u8],
    max: usize,
) -> Result<Counted<&[u8]>, WireError> {
    match encoding {
        Encoding::Json => json_list(bytes, max).map_err(|error| {
            WireError::bad_request(format!(
                "the body is not one JSON list (line {}, column {})",
                error.line(),
                error.column()
            ))
        }),
        Encoding::MsgPack => msgpack_list(bytes, max)
            .ok_or_else(|| WireError::bad_request("the body is not one MessagePack list")),
    }
}

fn json_list(bytes: &[u8], max: usize) -> serde_json::Result<Counted<&[u8]>> {
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let items = AtMost::<&RawValue>::new(max).deserialize(&mut json)?;
    json.end()?;
    Ok(items.map(|items| items.iter().map(|item| item.get().as_bytes()).collect()))
}

fn msgpack_list(bytes: &[u8], max: usize) -> Option<Counted<&[u8]>> {
    let mut rest = bytes;
    let count = rmp::decode::read_array_len(&mut rest).ok()?;
    // The announced length is not believed: the vector grows by what is there.
    let mut items = Vec::new();
    for at in 0..count as usize {
        let item = rest;
        IgnoredAny::deserialize(&mut rmp_serde::Deserializer::new(&mut rest)).ok()?;
        if at < max {
            items.push(&item[..item.len() - rest.len()]);
        }
    }
    let all = if count as usize > max {
        Err(count as usize)
    } else {
        Ok(items)
    };
    rest.is_empty().then_some(all)
}

/// A target as the body names it.
pub(super) enum Name {
    Topic(String),
    User(String),
}

impl Name {
    /// The same, if the caller may do this with it.
    pub(super) fn judged(
        &self,
        state: &ApiState,
        caller: &Caller,
        operation: OnTopic,
    ) -> Result<Topic, (String, WireError)> {
        let topic = self.topic(&caller.app)?;
        let judged = caller.may(state, operation, &topic);
        judged.map_err(|error| (topic.name().to_owned(), error))?;
        Ok(topic)
    }

    /// The topic of this name, or what is wrong with it and the name as the caller wrote it.
    pub(super) fn topic(&self, app: &App) -> Result<Topic, (String, WireError)> {
        match self {
            Self::Topic(name) => {
                Topic::new(app, name).map_err(|error| (name.clone(), error.into()))
            }
            Self::User(name) => User::new(name)
                .map(|user| Topic::inbox(app, &user))
                .map_err(|error| (format!("@{name}"), invalid_user(error))),
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
    fn names(self) -> Result<Vec<Name>, WireError> {
        let everyone = self.everyone == Some(true);
        let many = |names: Vec<String>, as_name: fn(String) -> Name| {
            names.into_iter().map(as_name).collect()
        };
        let names: Vec<_> = match (self.topic, self.topics, self.user, self.users, everyone) {
            (Some(topic), None, None, None, false) => vec![Name::Topic(topic)],
            (None, Some(topics), None, None, false) => many(topics, Name::Topic),
            (None, None, Some(user), None, false) => vec![Name::User(user)],
            (None, None, None, Some(users), false) => many(users, Name::User),
            (None, None, None, None, true) => vec![Name::Topic("@".to_owned())],
            _ => {
                return Err(WireError::bad_request(
                    "exactly one of `topic`, `topics`, `user`, `users` and `everyone: true` is \
                     needed",
                ));
            }
        };
        if names.is_empty() {
            return Err(WireError::bad_request("the list of targets is empty"));
        }
        Ok(names)
    }
}

/// What is the same for every target.
pub(super) struct Content {
    data: Data,
    priority: Option<Priority>,
    /// As the caller gave it.
    pub(super) idempotency_key: Option<String>,
    key: Option<String>,
    conflate: Option<bool>,
    ttl_ms: Option<u64>,
    exclude: Option<SessionId>,
    /// As the caller gave it.
    pub(super) traceparent: Option<String>,
    time_ms: u64,
}

impl Content {
    fn new(state: &ApiState, body: &PublishBody, data: Data) -> Result<Self, WireError> {
        let limits = &state.config.session;
        if data.bytes().len() > limits.message_bytes_max {
            return Err(WireError::new(
                ErrorCode::TooLarge,
                format!("`data` is longer than {} bytes", limits.message_bytes_max),
            ));
        }
        check_key("key", body.key.as_deref(), limits.key_bytes_max)?;
        let idempotency_key = body.idempotency_key.as_deref();
        check_key("idempotency_key", idempotency_key, limits.key_bytes_max)?;
        Ok(Self {
            data,
            priority: body.priority,
            idempotency_key: body.idempotency_key.clone(),
            key: body.key.clone(),
            conflate: body.conflate,
            ttl_ms: body.ttl_ms,
            exclude: body.exclude_session,
            traceparent: body.traceparent.clone(),
            time_ms: super::unix_ms(),
        })
    }

    /// The same as a target of this namespace gets it.
    pub(super) fn publication(&self, namespace: &Namespace) -> Publication {
        Publication {
            data: self.data.clone(),
            user: None,
            priority: self.priority.unwrap_or(namespace.priority),
            key: self.key.clone(),
            conflate: self.conflate.unwrap_or(namespace.conflate),
            removed: false,
            time_ms: self.time_ms,
            ttl_ms: self.ttl_ms,
            exclude: self.exclude,
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
        let items = list(Encoding::Json, json, 4).unwrap().unwrap();
        assert_eq!(items, [&br#"{"a":1}"#[..], b"2", br#""x""#]);
        // [{"a": 1}, bin of two bytes, ext, nil]
        let msgpack = b"\x94\x81\xa1a\x01\xc4\x02\xff\xfe\xd4\x05\x00\xc0";
        let items = list(Encoding::MsgPack, msgpack, 4).unwrap().unwrap();
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
            assert!(
                list(Encoding::Json, json.as_bytes(), 4).is_err(),
                "{json:?}"
            );
        }
        let huge_count = b"\xdd\xff\xff\xff\xff\x01";
        let msgpack: [&[u8]; 5] = [b"\x80", b"\x91", b"\x91\x01\x02", b"", huge_count];
        for bytes in msgpack {
            assert!(list(Encoding::MsgPack, bytes, 4).is_err(), "{bytes:x?}");
        }
    }
}
