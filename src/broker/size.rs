//! How many bytes what a topic carries has: where it is kept, and on the wire.
//!
//! In: a body. Out: two measures that are never mixed. Where bodies are kept as they came (Redis,
//! the broker inside the process, what is held while a topic is repaired) the bytes that are there
//! count; where frames come of them, the longer of their forms does ([`FrameSize`]).

use super::Body;
use crate::protocol::data::Data;
use crate::protocol::ids::Topic;
use crate::protocol::info::Info;
use crate::protocol::size::FrameSize;

/// Position, time and what else stands around the parts that vary.
const ENVELOPE_BYTES: usize = 32;

impl Body {
    /// About what it holds where it is kept as it came: never 0.
    #[must_use]
    pub fn bytes_count(&self) -> usize {
        let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        ENVELOPE_BYTES
            + match self {
                Self::Publication(publication) => {
                    let (Data::Json(data) | Data::MsgPack(data)) = &publication.data;
                    data.len() + text(&publication.user) + text(&publication.key)
                }
                Self::Presence(change) => {
                    let info = change.member.info.as_ref();
                    text(&change.member.user) + info.map_or(0, Info::bytes_count)
                }
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
