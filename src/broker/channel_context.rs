//! The context of a trace, in front of a body on a channel.
//!
//! In: a context and the body as it is stored. Out: a first byte, the context, the body; and back. It
//! stands on channels alone: what is stored is the same with and without. Nodes of the release before
//! cannot read it, and tell their sessions of a gap, so it is sent while every node of the cluster says
//! that it reads it ([`Broker::carry_context`]). Pure. Bound: [`CONTEXT_BYTES_MAX`] bytes a message.

use tokio::time::Instant;

use super::Broker;
use crate::telemetry::trace::context::{CONTEXT_BYTES, TraceContext};

/// Kind and version: the first bytes of bodies are others (`publication.rs`).
const CONTEXT_V1: u8 = 0x03;
/// So many bytes stand before the body.
pub const CONTEXT_BYTES_MAX: usize = 1 + CONTEXT_BYTES;

/// What stands before the body.
#[must_use]
pub fn encode(context: &TraceContext) -> [u8; CONTEXT_BYTES_MAX] {
    let mut bytes = [CONTEXT_V1; CONTEXT_BYTES_MAX];
    bytes[1..].copy_from_slice(&context.to_bytes());
    bytes
}

/// Takes the context off what a channel brought, where there is one. One whose ids are zeros is left
/// out, and one that is cut off stays: then there is no body that could be read.
#[must_use]
pub fn split(bytes: &[u8]) -> (Option<TraceContext>, &[u8]) {
    let split = bytes
        .strip_prefix(&[CONTEXT_V1])
        .and_then(|rest| rest.split_first_chunk::<CONTEXT_BYTES>());
    match split {
        Some((context, body)) => (TraceContext::from_bytes(context), body),
        None => (None, bytes),
    }
}

impl Broker {
    /// Until when every node of the cluster reads the context that a publication may bring: so long it
    /// is sent, and not before this was called. The engine inside the process is its only reader.
    pub fn carry_context(&self, until: Option<Instant>) {
        if let Self::Redis(broker) = self {
            broker.carry_context(until);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::publication::{Unreadable, decode};

    #[test]
    fn a_context_is_taken_off_what_a_channel_brought_and_the_body_is_whole() {
        let body = b"\x01body".as_slice();
        assert_eq!(split(body), (None, body));
        let context = TraceContext {
            trace: [0xff; 16],
            span: [3; 8],
            flags: 1,
        };
        let sent = [&encode(&context)[..], body].concat();
        assert_eq!((sent[0], sent.len()), (0x03, 26 + body.len()));
        assert_eq!(split(&sent), (Some(context), body));
        let mut zeros = sent.clone();
        zeros[1..17].fill(0);
        assert_eq!(split(&zeros), (None, body), "an id is none");
        let cut = &sent[..25];
        assert_eq!(split(cut), (None, cut));
        assert!(matches!(decode(cut), Err(Unreadable::Version(0x03))));
    }
}
