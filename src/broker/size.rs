//! How many bytes what a topic carries has: where it is kept, and on the wire.
//!
//! In: a body, or a member. Out: two measures that are never mixed. Where bodies are kept as they came (Redis,
//! the broker inside the process, what is held while a topic is repaired) the bytes that are there
//! count; where frames come of them, the longer of their forms does ([`FrameSize`]).

use super::Body;
use fanfare_protocol::data::Data;
use fanfare_protocol::event::Member;
use fanfare_protocol::ids::Topic;
use fanfare_protocol::info::Info;
use fanfare_protocol::size::FrameSize;

/// Position, time and what else stands around the parts that vary.
const ENVELOPE_BYTES: usize = 32;

/// About what a member holds where it is kept.
pub(super) fn member_bytes(member: &Member) -> usize {
    ENVELOPE_BYTES + parts(member)
}

fn parts(member: &Member) -> usize {
    text(&member.user) + member.info.as_ref().map_or(0, Info::bytes_count)
}

fn text(text: &Option<String>) -> usize {
    text.as_ref().map_or(0, String::len)
}

impl Body {
    /// About what it holds where it is kept as it came: never 0.
    #[must_use]
    pub fn bytes_count(&self) -> usize {
        ENVELOPE_BYTES
            + match self {
                Self::Publication(publication) => {
                    let (Data::Json(data) | Data::MsgPack(data)) = &publication.data;
                    data.len() + text(&publication.user) + text(&publication.key)
                }
                Self::Presence(change) => parts(&change.member),
                Self::Unreadable => 0,
            }
    }

    /// How long the frames are, at most, that tell of it in this topic. Passes once over the body.
    #[must_use]
    pub fn frame_size(&self, topic: &Topic) -> FrameSize {
        match self {
            Self::Publication(publication) => FrameSize::message(
                topic,
                &publication.data,
                publication.user.as_deref(),
                publication.key.as_deref(),
            ),
            Self::Presence(change) => FrameSize::change(topic, &change.member),
            Self::Unreadable => FrameSize::gap(topic),
        }
    }
}
