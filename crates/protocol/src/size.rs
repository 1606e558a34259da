//! How long things are on the wire, in the longer of the two forms, without writing them.
//!
//! In: a body as it came, and what stands around it. Out: bytes, never fewer than the codec would
//! write. A body changes its length between the forms: text of control characters that came as
//! MessagePack is six times as long in JSON, a list of `-0` that came as JSON three times as long
//! in MessagePack. So every bound in bytes counts the longer form, or two readers of the same page
//! would be bounded differently. Holds no state, allocates nothing, and passes once over what it
//! measures; JSON without fractions, exponents and `-0` is only looked through for these.
//!
//! Of bodies that came as MessagePack, floats count as the longest in JSON, all else as it is. JSON
//! counts as it is, and its doubles, where they are shorter, as they are in MessagePack. Numbers
//! around bodies count as the longest.

use super::data::Data;
use super::event::Member;
use super::frame::HEADER_BYTES_MAX;
use super::ids::Topic;
use super::info::Info;
use super::{json, msgpack};

/// All of a `message` but the text in it and its body. Each part is shorter in MessagePack.
const MESSAGE_BYTES: usize = HEADER_BYTES_MAX
    + r#"{"type":"message","topic":,"data":,"position":"18446744073709551615-18446744073709551615","user":,"priority":"critical","key":,"removed":true,"time":18446744073709551615}"#
        .len();
/// A `traceparent` among the fields of a `message`.
const TRACEPARENT_BYTES: usize =
    r#","traceparent":"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01""#.len();
/// All of a `presence` change but its topic and its member.
const CHANGE_BYTES: usize = HEADER_BYTES_MAX
    + r#"{"type":"presence","topic":,"joined":[],"left":[],"count":18446744073709551615,"position":"18446744073709551615-18446744073709551615"}"#
        .len();
/// All of a `gap` of one but its topic.
const GAP_BYTES: usize = HEADER_BYTES_MAX
    + r#"{"type":"gap","topic":,"of":"presence","from":"18446744073709551615-18446744073709551615","to":"18446744073709551615-18446744073709551615","reason":"retention","dropped":1}"#
        .len();
/// All of a member in a list but its user and its `info`.
const MEMBER_BYTES: usize =
    r#"{"user":,"session":"00112233445566778899aabbccddeeff","info":},"#.len();

/// How long the frames of one event are, at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameSize {
    /// The longer one.
    pub longest: usize,
    /// Both together: the memory that they take once both forms were asked for.
    pub both: usize,
}

impl FrameSize {
    /// Around a body stand so many bytes.
    fn new(around: usize, body: BodySize) -> Self {
        Self {
            longest: around + body.longest,
            both: 2 * around + body.both,
        }
    }

    /// A `message` of this topic, with its position.
    #[must_use]
    pub fn message(topic: &Topic, data: &Data, user: Option<&str>, key: Option<&str>) -> Self {
        let names = text(topic.name()) + user.map_or(0, text) + key.map_or(0, text);
        Self::new(MESSAGE_BYTES + names, BodySize::of(data))
    }

    /// The same with a `traceparent`.
    #[must_use]
    pub fn with_traceparent(self) -> Self {
        Self {
            longest: self.longest + TRACEPARENT_BYTES,
            both: self.both + 2 * TRACEPARENT_BYTES,
        }
    }

    /// A change of a topic's members by one.
    #[must_use]
    pub fn change(topic: &Topic, member: &Member) -> Self {
        let around = CHANGE_BYTES + text(topic.name()) + MEMBER_BYTES;
        let around = around + member.user.as_deref().map_or(0, text);
        Self::new(around, BodySize::of_info(member.info.as_ref()))
    }

    /// The `gap` that stands for one publication.
    #[must_use]
    pub fn gap(topic: &Topic) -> Self {
        Self::new(GAP_BYTES + text(topic.name()), BodySize::default())
    }
}

impl Member {
    /// How long it is in a list of members, at most, in the longer form.
    #[must_use]
    pub fn longest(&self) -> usize {
        let user = self.user.as_deref().map_or(0, text);
        MEMBER_BYTES + user + BodySize::of_info(self.info.as_ref()).longest
    }
}

/// How long a body is in its two forms.
#[derive(Debug, Clone, Copy, Default)]
struct BodySize {
    longest: usize,
    both: usize,
}

impl BodySize {
    fn of(data: &Data) -> Self {
        let (here, there) = match data {
            Data::Json(bytes) => (bytes.len(), json::msgpack_bytes_max(bytes)),
            Data::MsgPack(bytes) => (bytes.len(), msgpack::json_bytes_max(bytes)),
        };
        Self {
            longest: here.max(there),
            both: here + there,
        }
    }

    fn of_info(info: Option<&Info>) -> Self {
        info.map_or(Self::default(), |info| Self::of(info.data()))
    }
}

/// A text as JSON, quotes included: it is shorter in MessagePack, up to the longest name.
pub(super) fn text(text: &str) -> usize {
    2 + text.len() + json::escaped(text.as_bytes())
}

#[cfg(test)]
mod tests;
