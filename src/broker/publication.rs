//! What travels through the broker: the publication, its envelope in bytes, and presence changes.
//!
//! In: sessions and the API make a [`Publication`]. Out: one body of bytes for the stream and the
//! channel, and back.
//!
//! Nodes of two releases run side by side. The first byte of a body says its kind and version. What
//! a release adds to a kind stands at the end of its list, where older releases skip it; what they
//! would get wrong has a new first byte. A body that this release cannot read is
//! [`Body::Unreadable`]: counted, told to sessions as a gap, never guessed at.
//! `tests/recorded/bodies_v1.hex` holds the bytes that nodes of these versions write.

use std::sync::Arc;

use bytes::Bytes;
use serde::de::value::SeqAccessDeserializer;
use serde::de::{IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Body, PublishRequest};
use crate::config::{Replicas, Retention};
use fanfare_protocol::data::Data;
use fanfare_protocol::event::{Member, Message};
use fanfare_protocol::ids::{Owner, Position, Priority, SessionId, Topic};
use fanfare_protocol::info::Info;

/// A message as it was accepted.
#[derive(Debug, Clone, PartialEq)]
pub struct Publication {
    /// The body, in the form in which it came.
    pub data: Data,
    /// Who published it; `None` from the API and from anonymous sessions.
    pub user: Option<String>,
    /// How urgent.
    pub priority: Priority,
    /// What it is about.
    pub key: Option<String>,
    /// A newer one of the same key may stand for this one.
    pub conflate: bool,
    /// The entry of this key is gone (state topics).
    pub removed: bool,
    /// When it was accepted, unix milliseconds.
    pub time_ms: u64,
    /// Not shown to new readers so many milliseconds after `time_ms`.
    pub ttl_ms: Option<u64>,
    /// The session that is left out (the publisher without `echo`, or `exclude_session`).
    pub exclude: Option<SessionId>,
}

impl Publication {
    /// Nothing but a body, accepted at this time (unix milliseconds).
    #[must_use]
    pub fn new(data: Data, time_ms: u64) -> Self {
        Self {
            data,
            user: None,
            priority: Priority::Normal,
            key: None,
            conflate: false,
            removed: false,
            time_ms,
            ttl_ms: None,
            exclude: None,
        }
    }

    /// Whether it is past its own end and no longer shown to new readers.
    #[must_use]
    pub fn has_ended(&self, now_ms: u64) -> bool {
        self.ttl_ms
            .is_some_and(|ttl_ms| self.time_ms.saturating_add(ttl_ms) <= now_ms)
    }

    /// The `message` that shows it; without a position on topics without history.
    #[must_use]
    pub fn message(&self, topic: &Topic, position: Option<Position>) -> Message {
        Message {
            topic: topic.clone(),
            data: self.data.clone(),
            position,
            user: self.user.clone(),
            priority: self.priority,
            key: self.key.clone(),
            removed: self.removed,
            time: self.time_ms,
            traceparent: None,
        }
    }
}

impl PublishRequest {
    /// Waits for no replica, and is not remembered.
    #[must_use]
    pub fn new(topic: Topic, publication: Publication, retention: Retention) -> Self {
        Self {
            topic,
            publication,
            retention,
            replicas: Replicas::default(),
            idempotency: None,
            trace: None,
        }
    }
}

/// A change of one topic's members.
#[derive(Debug, Clone, PartialEq)]
pub struct PresenceChange {
    /// Came (true) or left.
    pub joined: bool,
    /// Who.
    pub member: Member,
    /// Which life of which node it belongs to.
    pub owner: Owner,
    /// Member sessions after the change, members of dead nodes included.
    pub count: u64,
}

/// Kind and version of a publication's bytes.
const PUBLICATION_V1: u8 = 0x01;
/// Kind and version of a presence change's bytes.
const PRESENCE_V1: u8 = 0x02;

/// A body that this release cannot read: of a newer release, or no body at all.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// Not even a first byte.
    #[error("the body is empty")]
    Empty,
    /// A kind or version that this release does not know.
    #[error("the body's kind and version, {0:#04x}, is not known")]
    Version(u8),
    /// Known by its first byte, but not what that kind is made of.
    #[error("the body is damaged: {0}")]
    Damaged(#[from] rmp_serde::decode::Error),
    /// A name or number in it that no node would have written.
    #[error("the body has an impossible {0}")]
    Field(&'static str),
}

impl Unreadable {
    /// Whether a newer release wrote it, as far as the first byte says.
    #[must_use]
    pub fn is_newer_kind(&self) -> bool {
        matches!(self, Self::Version(_))
    }
}

/// A publication as its bytes: a MessagePack array in this order. New parts come at the end.
#[derive(Serialize, Deserialize)]
struct PublicationV1<'a> {
    msgpack: bool,
    #[serde(borrow)]
    data: Raw<'a>,
    user: Option<&'a str>,
    priority: u8,
    key: Option<&'a str>,
    conflate: bool,
    removed: bool,
    time_ms: u64,
    ttl_ms: Option<u64>,
    exclude: Option<Raw<'a>>,
}

/// A member as its bytes: user, session, info (by reference when written).
type MemberV1<'a, I> = (Option<&'a str>, Raw<'a>, Option<I>);

/// Bytes that stay bytes; serde would write a slice as a list of numbers.
pub(super) struct Raw<'a>(pub(super) &'a [u8]);

impl Serialize for Raw<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Raw<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        <&[u8]>::deserialize(deserializer).map(Raw)
    }
}

/// A list that may go on after what this release knows, which is skipped.
pub(super) struct Growing<T>(pub(super) T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Growing<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Beginning<T>(std::marker::PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Beginning<T> {
            type Value = Growing<T>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a list")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                let known = T::deserialize(SeqAccessDeserializer::new(&mut list))?;
                while list.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Growing(known))
            }
        }
        deserializer.deserialize_seq(Beginning(std::marker::PhantomData))
    }
}

/// A body as the bytes that stand in streams and channels. One that could not be read is nothing
/// that could be written: it has no bytes.
#[must_use]
pub fn encode(body: &Body) -> Vec<u8> {
    match body {
        Body::Publication(publication) => encode_publication(publication),
        Body::Presence(change) => {
            let mut out = encode_presence_head(change.joined, &change.owner);
            out.extend(encode_member(&change.member));
            pack(&mut out, &change.count);
            out
        }
        Body::Unreadable => Vec::new(),
    }
}

/// Reads what [`encode`] made, in this release or an older one.
///
/// # Errors
/// [`Unreadable`].
pub fn decode(bytes: &[u8]) -> Result<Body, Unreadable> {
    let (version, rest) = bytes.split_first().ok_or(Unreadable::Empty)?;
    match *version {
        PUBLICATION_V1 => Ok(Body::Publication(Arc::new(decode_publication(rest)?))),
        PRESENCE_V1 => Ok(Body::Presence(Arc::new(decode_presence(rest)?))),
        other => Err(Unreadable::Version(other)),
    }
}

/// The beginning of a presence change. A script completes it by the bytes of
/// [`encode_member`] and the count as a MessagePack number, because only the script knows them.
#[must_use]
pub fn encode_presence_head(joined: bool, owner: &Owner) -> Vec<u8> {
    // 0x94: an array of the four parts joined, owner, member, count.
    let mut out = vec![PRESENCE_V1, 0x94];
    pack(&mut out, &joined);
    pack(&mut out, &owner.to_string());
    out
}

/// A member as one MessagePack value.
#[must_use]
pub fn encode_member(member: &Member) -> Vec<u8> {
    let mut out = Vec::new();
    let session = member.session.0.to_be_bytes();
    let parts: MemberV1<'_, &Info> = (member.user.as_deref(), Raw(&session), member.info.as_ref());
    pack(&mut out, &parts);
    out
}

/// Reads what [`encode_member`] made.
///
/// # Errors
/// [`Unreadable`].
pub fn decode_member(bytes: &[u8]) -> Result<Member, Unreadable> {
    member(rmp_serde::from_slice(bytes)?)
}

fn member(
    Growing((user, session, info)): Growing<MemberV1<'_, Info>>,
) -> Result<Member, Unreadable> {
    Ok(Member {
        user: user.map(str::to_owned),
        session: session_id(&session)?,
        info,
    })
}

/// [`encode`] of a publication that is not in a [`Body`].
#[must_use]
pub fn encode_publication(publication: &Publication) -> Vec<u8> {
    let (msgpack, data) = match &publication.data {
        Data::Json(bytes) => (false, bytes),
        Data::MsgPack(bytes) => (true, bytes),
    };
    let exclude = publication.exclude.map(|session| session.0.to_be_bytes());
    let mut out = Vec::with_capacity(64 + data.len());
    out.push(PUBLICATION_V1);
    pack(
        &mut out,
        &PublicationV1 {
            msgpack,
            data: Raw(data),
            user: publication.user.as_deref(),
            priority: publication.priority as u8,
            key: publication.key.as_deref(),
            conflate: publication.conflate,
            removed: publication.removed,
            time_ms: publication.time_ms,
            ttl_ms: publication.ttl_ms,
            exclude: exclude.as_ref().map(|bytes| Raw(bytes)),
        },
    );
    out
}

fn decode_publication(bytes: &[u8]) -> Result<Publication, Unreadable> {
    let Growing(read): Growing<PublicationV1<'_>> = rmp_serde::from_slice(bytes)?;
    // Copied out, so that a retained message does not hold the whole read buffer it came in.
    let data = Bytes::copy_from_slice(read.data.0);
    Ok(Publication {
        data: if read.msgpack {
            Data::MsgPack(data)
        } else {
            Data::Json(data)
        },
        user: read.user.map(str::to_owned),
        priority: priority(read.priority)?,
        key: read.key.map(str::to_owned),
        conflate: read.conflate,
        removed: read.removed,
        time_ms: read.time_ms,
        ttl_ms: read.ttl_ms,
        exclude: read.exclude.as_ref().map(session_id).transpose()?,
    })
}

fn decode_presence(bytes: &[u8]) -> Result<PresenceChange, Unreadable> {
    type Parts<'a> = (bool, &'a str, Growing<MemberV1<'a, Info>>, u64);
    let Growing((joined, owner, parts, count)): Growing<Parts<'_>> = rmp_serde::from_slice(bytes)?;
    Ok(PresenceChange {
        joined,
        member: member(parts)?,
        owner: owner.parse().map_err(|_| Unreadable::Field("owner"))?,
        count,
    })
}

fn priority(number: u8) -> Result<Priority, Unreadable> {
    [
        Priority::Low,
        Priority::Normal,
        Priority::High,
        Priority::Critical,
    ]
    .into_iter()
    .find(|priority| *priority as u8 == number)
    .ok_or(Unreadable::Field("priority"))
}

fn session_id(raw: &Raw<'_>) -> Result<SessionId, Unreadable> {
    let bytes = raw.0.try_into().map_err(|_| Unreadable::Field("session"))?;
    Ok(SessionId(u128::from_be_bytes(bytes)))
}

fn pack<T: Serialize>(out: &mut Vec<u8>, value: &T) {
    rmp_serde::encode::write(out, value).expect("writing to memory and these types never fail");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn publication() -> Publication {
        Publication {
            data: Data::Json(Bytes::from_static(b"{\"a\":1}")),
            user: Some("alice".to_owned()),
            priority: Priority::High,
            key: None,
            conflate: true,
            removed: false,
            time_ms: 1_732_190_000_000,
            ttl_ms: Some(5),
            exclude: Some(SessionId(0x0102)),
        }
    }

    fn plain() -> Publication {
        Publication {
            data: Data::MsgPack(Bytes::from_static(&[0x91, 0xc4, 0x01, 0xff])),
            user: None,
            priority: Priority::Low,
            key: Some("k".to_owned()),
            conflate: false,
            removed: true,
            time_ms: u64::MAX,
            ttl_ms: None,
            exclude: None,
        }
    }

    fn change() -> PresenceChange {
        PresenceChange {
            joined: true,
            member: Member {
                user: Some("bob".to_owned()),
                session: SessionId(u128::MAX - 1),
                info: Some(Info::from(
                    &serde_json::json!({"name": "Bob", "n": [1, 2.5, null]}),
                )),
            },
            owner: "node-1~77".parse().unwrap(),
            count: 300,
        }
    }

    #[test]
    fn a_body_comes_back_as_it_was() {
        for body in [
            Body::Publication(Arc::new(publication())),
            Body::Publication(Arc::new(plain())),
            Body::Presence(Arc::new(change())),
        ] {
            assert_eq!(decode(&encode(&body)).unwrap(), body);
        }
    }

    fn bytes_of(hex: &str) -> Vec<u8> {
        let digits = hex.as_bytes().chunks_exact(2);
        let byte = |pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
        digits.map(byte).collect()
    }

    fn recorded() -> Vec<Vec<u8>> {
        let lines = include_str!("../../tests/recorded/bodies_v1.hex").lines();
        lines.map(bytes_of).collect()
    }

    /// What fails here, running nodes of other releases fail on: write a new kind instead, and
    /// keep these lines.
    #[test]
    fn recorded_bodies_are_read_and_written_byte_for_byte() {
        let bodies = [
            Body::Publication(Arc::new(publication())),
            Body::Publication(Arc::new(plain())),
            Body::Presence(Arc::new(change())),
        ];
        let recorded = recorded();
        assert_eq!(recorded.len(), bodies.len());
        for (bytes, body) in recorded.iter().zip(&bodies) {
            assert_eq!(&decode(bytes).unwrap(), body);
            assert_eq!(&encode(body), bytes);
        }
    }

    /// The bytes of the next release: one part more at the end of each list, of any form.
    #[test]
    fn parts_that_a_newer_release_added_are_skipped() {
        let added: [&[u8]; 6] = [
            b"\xc0",
            b"\xa55-abc",
            b"\xc4\x0200",
            b"\x93\x01\x92\xc3\xc0\x81\xa1k\x90",
            b"\x82\xa1a\x01\xa1b\xcb0123\x34567",
            b"\xd6\xff1234",
        ];
        for part in added {
            for before in &recorded()[..2] {
                let mut bytes = before.clone();
                bytes[1] += 1;
                bytes.extend_from_slice(part);
                assert_eq!(decode(&bytes).unwrap(), decode(before).unwrap(), "{part:?}");
            }
            let member = encode_member(&change().member);
            let mut grown = member.clone();
            grown[0] = 0x94;
            grown.extend_from_slice(part);
            assert_eq!(decode_member(&grown).unwrap(), change().member);
            let mut bytes = encode_presence_head(true, &change().owner);
            bytes[1] = 0x95;
            bytes.extend_from_slice(&grown);
            pack(&mut bytes, &change().count);
            bytes.extend_from_slice(part);
            assert_eq!(decode(&bytes).unwrap(), Body::Presence(Arc::new(change())));
        }
    }

    #[test]
    fn what_a_newer_or_foreign_writer_left_is_unreadable_and_not_guessed_at() {
        let newer = decode(&[0x41, 0x90]);
        assert!(matches!(newer, Err(Unreadable::Version(0x41))), "{newer:?}");
        assert!(matches!(decode(b""), Err(Unreadable::Empty)));
        assert!(matches!(decode(b"\x01xyz"), Err(Unreadable::Damaged(_))));
        let mut bytes = encode(&Body::Publication(Arc::new(publication())));
        bytes.truncate(bytes.len() - 1);
        assert!(matches!(decode(&bytes), Err(Unreadable::Damaged(_))));
    }
}
