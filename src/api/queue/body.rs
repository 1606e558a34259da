//! One entry of the queue as a caller describes it: read, checked, and turned into requests.
//!
//! In: the bytes of one body, or of a list of them, in either form. Out: one request or refusal per
//! target, in the order of the bodies. Bounds: those of a publication and of a batch, how full the
//! queue may be ([`Bound`]), and [`LATER_MAX_MS`].

use utoipa::openapi::schema::{ArrayBuilder, OneOfBuilder, Schema};
use utoipa::openapi::{Ref, RefOr};
use utoipa::{PartialSchema, ToSchema};

use super::answers::{EntryResult, Items};
use super::bound::{Bound, NotTaken};
use crate::api::auth::Caller;
use crate::api::body::Sent;
use crate::api::body_fields::{BodyFields, Known};
use crate::api::error::ApiError;
use crate::api::publication::{self, STATE_FIELDS};
use crate::api::publish::{BATCH_TARGETS_FACTOR, too_many};
use crate::api::state::ApiState;
use crate::api::trace::Parent;
use crate::api::unix_ms;
use crate::broker::queue::entry::QueuedMessage;
use crate::broker::queue::once;
use crate::broker::queue::{EnqueueRequest, LATER_MAX_MS, PRIORITIES};
use crate::broker::unavailable::Unavailable;
use crate::policy::OnTopic;
use crate::telemetry::queue_metrics::EntryRefusal;
use fanfare_protocol::error::{ErrorCode, WireError};
use fanfare_protocol::form::Encoding;
use fanfare_protocol::ids::{Priority, SessionId, Topic};

/// So far the clocks of this node and of Redis may differ. What is due that long ago is due by either.
const CLOCKS_DIFFER_MS: u64 = 60_000;

/// Most bytes of `data` that the entries of one request carry together, since each target has its own:
/// a body of a megabyte could else fill Redis.
pub const ENTRIES_BYTES_MAX: usize = 64 << 20;

/// Every field of an entry.
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
        "not_before",
        "expires_at",
        "traceparent",
    ],
    hidden: STATE_FIELDS,
};

/// What to publish, where and when. Exactly one of `topic`, `topics`, `user`, `users` and
/// `everyone: true` says where. This is how it is documented; it is read field by field.
#[derive(Debug, Default, ToSchema)]
#[schema(example = json!({"topic": "orders:7", "data": {"state": "paid"}, "idempotency_key": "order-7-paid", "not_before": 1_732_190_000_000_u64}))]
pub struct QueueBody {
    /// One topic.
    #[schema(nullable = false)]
    pub topic: Option<String>,
    /// Several topics, at most 1,000 by default: an entry for each.
    #[schema(nullable = false)]
    pub topics: Option<Vec<String>>,
    /// The inbox of one user.
    #[schema(nullable = false)]
    pub user: Option<String>,
    /// The inboxes of several users, at most 1,000 by default: an entry for each.
    #[schema(nullable = false)]
    pub users: Option<Vec<String>>,
    /// Every session.
    #[schema(nullable = false)]
    pub everyone: Option<bool>,
    /// The message, any value; at most 64 KiB by default.
    #[schema(value_type = Value)]
    pub data: (),
    /// How urgent: which entries are moved first. Absent: the namespace's default.
    #[schema(nullable = false)]
    pub priority: Option<Priority>,
    /// A repeat with this key, to the same topic within a day by default, is not enqueued again and
    /// answers with the first entry. 1 to 128 bytes.
    #[schema(nullable = false)]
    pub idempotency_key: Option<String>,
    /// What the message is about. 1 to 128 bytes.
    #[schema(nullable = false)]
    pub key: Option<String>,
    /// A newer message of the same key may stand for this one. Absent: as the namespace says.
    #[schema(nullable = false)]
    pub conflate: Option<bool>,
    /// After so many milliseconds the message is not shown to new readers.
    #[schema(nullable = false)]
    pub ttl_ms: Option<u64>,
    /// A session that does not get it.
    #[schema(nullable = false)]
    pub exclude_session: Option<SessionId>,
    /// Not published before this time, unix milliseconds; at most 30 days ahead. Absent: at once.
    #[schema(nullable = false)]
    pub not_before: Option<u64>,
    /// Published before this time, unix milliseconds, or not at all: then it becomes a dead letter.
    #[schema(nullable = false)]
    pub expires_at: Option<u64>,
    /// The trace that the message belongs to, as the header of that name, above which it stands. One
    /// that is none is ignored.
    #[schema(nullable = false)]
    pub traceparent: Option<String>,
}

/// One body, or a list of at most 1,000 by default: either itself, without a name around it.
#[derive(Debug)]
pub enum QueueBodies {
    /// One.
    One(Box<QueueBody>),
    /// A list.
    Many(Vec<QueueBody>),
}

impl PartialSchema for QueueBodies {
    fn schema() -> RefOr<Schema> {
        let body = || Ref::from_schema_name(QueueBody::name());
        let schema = OneOfBuilder::new()
            .item(body())
            .item(ArrayBuilder::new().items(body()))
            .description(Some("One body, or a list of at most 1,000 by default."));
        schema.into()
    }
}

impl ToSchema for QueueBodies {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        schemas.push((QueueBody::name().into_owned(), QueueBody::schema()));
        QueueBody::schemas(schemas);
    }
}

/// What goes into the queue for one target, or why it does not.
pub(super) type Target = Result<EnqueueRequest, EntryResult>;

/// What a request asks for.
pub(super) struct Asked {
    /// Of each body of a list how many targets it has; `None`: it was no list.
    pub(super) items: Option<Items>,
    /// The targets of all bodies, one after the other.
    pub(super) targets: Vec<Target>,
}

/// Reads and checks one body or a list of them.
///
/// # Errors
/// What is wrong with the one body, or with the list as a whole.
pub(super) fn read(
    (state, caller): (&ApiState, &Caller),
    sent: &Sent,
    parent: Parent,
    bound: &mut Bound<'_>,
) -> Result<Asked, ApiError> {
    let mut reading = Reading {
        state,
        caller,
        encoding: sent.encoding,
        parent,
        bound,
        now_ms: unix_ms(),
        size: Size::default(),
    };
    if !is_list(sent.encoding, &sent.bytes) {
        return Ok(Asked {
            targets: reading.body(&sent.bytes)?,
            items: None,
        });
    }
    let items_max = state.config.api.targets_max;
    let bodies = publication::list(sent.encoding, &sent.bytes, items_max)?
        .map_err(|count| too_many("items", count, items_max))?;
    if bodies.is_empty() {
        return Err(WireError::bad_request("the list is empty").into());
    }
    let mut items = Vec::with_capacity(bodies.len());
    let (mut targets, targets_max) = (Vec::new(), items_max * BATCH_TARGETS_FACTOR);
    for bytes in bodies {
        let item = reading.body(bytes).map(|mut more| {
            let count = more.len();
            targets.append(&mut more);
            count
        });
        reading.size.check()?;
        if targets.len() > targets_max {
            return Err(too_many("targets", targets.len(), targets_max));
        }
        if item.is_err() {
            state.metrics.queue.count_refused(EntryRefusal::Invalid, 1);
        }
        items.push(item);
    }
    Ok(Asked {
        items: Some(items),
        targets,
    })
}

/// What all entries of a request carry together.
#[derive(Debug, Default)]
struct Size {
    bytes: usize,
}

impl Size {
    fn add(&mut self, targets: &[Target]) -> Result<(), WireError> {
        let of = |request: &EnqueueRequest| request.message.publication.data.bytes().len();
        self.bytes += targets.iter().flatten().map(of).sum::<usize>();
        self.check()
    }

    fn check(&self) -> Result<(), WireError> {
        if self.bytes <= ENTRIES_BYTES_MAX {
            return Ok(());
        }
        let text = format!(
            "the entries of one request carry more than {} MiB of `data` together, which counts for \
             each target: send them in several requests",
            ENTRIES_BYTES_MAX >> 20
        );
        Err(WireError::new(ErrorCode::TooLarge, text))
    }
}

/// Whether the bytes begin a list.
fn is_list(encoding: Encoding, bytes: &[u8]) -> bool {
    match encoding {
        Encoding::Json => bytes.trim_ascii_start().first() == Some(&b'['),
        // The short form of a list, and the two long ones.
        Encoding::MsgPack => matches!(bytes.first(), Some(0x90..=0x9f | 0xdc | 0xdd)),
    }
}

/// How long an idempotency key is remembered, in milliseconds.
pub(super) fn once_ms(state: &ApiState) -> u64 {
    let kept = state.config.queue.idempotency;
    u64::try_from(kept.as_millis()).unwrap_or(u64::MAX)
}

/// The bodies of one request, one after the other.
struct Reading<'a, 'b> {
    state: &'a ApiState,
    caller: &'a Caller,
    encoding: Encoding,
    parent: Parent,
    bound: &'a mut Bound<'b>,
    now_ms: u64,
    size: Size,
}

impl Reading<'_, '_> {
    /// What goes to each target of one body.
    fn body(&mut self, bytes: &[u8]) -> Result<Vec<Target>, WireError> {
        let fields = BodyFields::read(self.encoding, bytes, FIELDS)?;
        let targets = self.entries(&fields);
        match &targets {
            Ok(targets) => self.size.add(targets)?,
            Err(_) => {
                let names = publication::named(self.state, &fields).into_iter();
                let topics = names.filter_map(|name| name.topic(&self.caller.app).ok());
                for topic in topics {
                    for priority in PRIORITIES {
                        self.bound.stop(&topic, priority);
                    }
                }
            }
        }
        targets
    }

    fn entries(&mut self, fields: &BodyFields<'_>) -> Result<Vec<Target>, WireError> {
        let (state, caller) = (self.state, self.caller);
        let (content, names) = publication::described(state, fields)?;
        let times = Times {
            not_before_ms: fields.unsigned("not_before")?,
            expires_ms: fields.unsigned("expires_at")?,
        };
        let times = times.checked(self.now_ms)?;
        // Whether that is traced is decided when it is moved.
        let own = content.traceparent.as_deref();
        let trace = own.and_then(|text| state.tracer.read(text));
        let trace = trace
            .or(self.parent.context)
            .map(|context| context.to_string());
        let kept_ms = once_ms(state);
        let publisher = caller.publisher().remembered("");
        let once = |topic: &Topic| {
            let key = content.idempotency_key.as_deref()?;
            Some((once::digest(&publisher, key, topic), kept_ms))
        };
        let targets = names.into_iter().map(|name| {
            let judged = name.judged(state, caller, OnTopic::Enqueue);
            let topic = judged.map_err(|(name, error)| {
                state.metrics.queue.count_refused(EntryRefusal::Invalid, 1);
                EntryResult::failed(name, &error)
            })?;
            let settings = state.apps.of_topic(&topic);
            let namespace = settings.namespace(&topic);
            let mut publication = content.publication(namespace);
            // Its `ttl_ms` begins when it may be published.
            publication.time_ms = publication.time_ms.max(times.not_before_ms.unwrap_or(0));
            let taken = self.bound.take(&topic, publication.priority);
            taken.map_err(|why| match why {
                NotTaken::NotTried => EntryResult::of_broker(&topic, &Unavailable::NotTried.into()),
                NotTaken::Full(refused) => EntryResult::failed(topic.name(), &refused),
            })?;
            Ok(EnqueueRequest {
                not_before_ms: times.not_before_ms,
                replicas: namespace.replicas(),
                idempotency: once(&topic),
                message: QueuedMessage {
                    topic,
                    publication,
                    expires_ms: times.expires_ms,
                    traceparent: trace.clone(),
                },
            })
        });
        Ok(targets.collect())
    }
}

/// When an entry may be published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Times {
    not_before_ms: Option<u64>,
    expires_ms: Option<u64>,
}

impl Times {
    /// The same without a beginning that is surely over.
    fn checked(self, now_ms: u64) -> Result<Self, WireError> {
        let begins_ms = self.not_before_ms.unwrap_or(0);
        if begins_ms > now_ms.saturating_add(LATER_MAX_MS) {
            let text = "`not_before` is more than 30 days ahead";
            return Err(WireError::new(ErrorCode::LimitExceeded, text));
        }
        match self.expires_ms {
            Some(ends_ms) if ends_ms <= now_ms => {
                return Err(WireError::bad_request("`expires_at` is in the past"));
            }
            Some(ends_ms) if ends_ms <= begins_ms => {
                let text = "`expires_at` must be after `not_before`";
                return Err(WireError::bad_request(text));
            }
            _ => {}
        }
        let over_ms = now_ms.saturating_sub(CLOCKS_DIFFER_MS);
        Ok(Self {
            not_before_ms: self.not_before_ms.filter(|begin| *begin > over_ms),
            ..self
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_MS: u64 = 1_732_190_000_000;

    fn checked(not_before_ms: Option<u64>, expires_ms: Option<u64>) -> Result<Times, String> {
        let times = Times {
            not_before_ms,
            expires_ms,
        };
        times.checked(NOW_MS).map_err(|error| error.to_string())
    }

    #[test]
    fn times_that_can_never_be_kept_are_refused() {
        let far = Some(NOW_MS + LATER_MAX_MS);
        let rows = [
            (far.map(|ms| ms + 1), None, "30 days"),
            (Some(u64::MAX), None, "30 days"),
            (None, Some(0), "past"),
            (None, Some(NOW_MS), "past"),
            (Some(NOW_MS + 5), Some(NOW_MS + 5), "after `not_before`"),
            (Some(NOW_MS + 5), Some(NOW_MS + 4), "after `not_before`"),
        ];
        for (begin, end, why) in rows {
            let told = checked(begin, end).unwrap_err();
            assert!(told.contains(why), "{told}");
        }
        for (begin, end) in [
            (far, None),
            (far, far.map(|ms| ms + 1)),
            (None, Some(NOW_MS + 1)),
            (None, Some(u64::MAX)),
        ] {
            let times = checked(begin, end).unwrap();
            assert_eq!((times.not_before_ms, times.expires_ms), (begin, end));
        }
    }

    #[test]
    fn a_beginning_is_left_out_only_where_it_is_over_by_every_clock() {
        let left = |ms| checked(Some(ms), None).unwrap().not_before_ms;
        assert_eq!(left(0), None);
        assert_eq!(left(NOW_MS - CLOCKS_DIFFER_MS), None);
        assert_eq!(left(NOW_MS - 500), Some(NOW_MS - 500));
    }

    #[test]
    fn one_body_and_a_list_are_told_apart_by_their_first_byte() {
        for list in ["[]", " \n[{}]", "["] {
            assert!(is_list(Encoding::Json, list.as_bytes()), "{list:?}");
        }
        for other in ["{}", "", " {", "1"] {
            assert!(!is_list(Encoding::Json, other.as_bytes()), "{other:?}");
        }
        for first in [0x90, 0x9f, 0xdc, 0xdd] {
            assert!(is_list(Encoding::MsgPack, &[first]), "{first:x}");
        }
        for first in [0x80, 0x8f, 0xde, 0xc0, 0xa0] {
            assert!(!is_list(Encoding::MsgPack, &[first]), "{first:x}");
        }
    }
}
