//! Makes a node's feed miss publications in ways that the node cannot find out: the controls.
//!
//! In: what Redis sends to a node. Out: the same without some publications. Everything else
//! passes, answers to PING and the node's own probes included, so the node believes that it hears
//! well. With `mends` the link to the publication before (`prev`) is written anew over the hole:
//! a node without repair, as seen from outside. Without it everything published is swallowed: a
//! node without the end-to-end probe.

use std::cell::RefCell;
use std::rc::Rc;

use rustc_hash::FxHashMap;
use tokio::io::{AsyncWriteExt, BufReader};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use fanfare_testkit::resp::read_frame;

/// With `mends`, one of so many publications is swallowed.
const ONE_OF: u64 = 50;

/// See the module.
#[derive(Debug, Clone, Default)]
pub(crate) struct Swallow {
    mends: bool,
    state: Rc<RefCell<State>>,
}

#[derive(Debug, Default)]
struct State {
    is_on: bool,
    passed: u64,
    /// Per channel the last id that was passed on.
    last: FxHashMap<Vec<u8>, Vec<u8>>,
}

impl Swallow {
    /// Swallows single publications and hides the hole.
    pub(crate) fn mending() -> Self {
        Self {
            mends: true,
            ..Self::default()
        }
    }

    /// Swallows every publication and answers probes.
    pub(crate) fn deaf() -> Self {
        Self::default()
    }

    /// From now on, or no more.
    pub(crate) fn set(&self, is_on: bool) {
        self.state.borrow_mut().is_on = is_on;
    }

    /// Passes frames until one side ends.
    pub(crate) async fn pump(&self, mut from: BufReader<OwnedReadHalf>, mut to: OwnedWriteHalf) {
        while let Some(frame) = read_frame(&mut from).await {
            let Some(frame) = self.passed(frame) else {
                continue;
            };
            if to.write_all(&frame).await.is_err() {
                return;
            }
        }
    }

    /// The frame as it is passed on, if it is.
    fn passed(&self, frame: Vec<u8>) -> Option<Vec<u8>> {
        let Some([channel, payload]) = published(&frame) else {
            return Some(frame);
        };
        // A topic's channel has its name in braces; the probe's has none.
        if !channel.contains(&b'{') {
            return Some(frame);
        }
        let mut words = payload.splitn(3, |byte| *byte == b' ');
        let (Some(id), Some(_), Some(body)) = (words.next(), words.next(), words.next()) else {
            return Some(frame);
        };
        let mut state = self.state.borrow_mut();
        state.passed += 1;
        if state.is_on && (!self.mends || state.passed.is_multiple_of(ONE_OF)) {
            return None;
        }
        let before = state.last.insert(channel.to_vec(), id.to_vec());
        let before = before.filter(|_| self.mends && state.is_on);
        let Some(before) = before else {
            return Some(frame);
        };
        let payload = [id, &before, body].join(&b' ');
        let mut anew = Vec::with_capacity(frame.len() + before.len());
        anew.extend_from_slice(b">3\r\n$7\r\nmessage\r\n");
        for part in [channel, &payload] {
            anew.extend_from_slice(format!("${}\r\n", part.len()).as_bytes());
            anew.extend_from_slice(part);
            anew.extend_from_slice(b"\r\n");
        }
        Some(anew)
    }
}

/// Channel and payload, if the frame is a publication.
fn published(frame: &[u8]) -> Option<[&[u8]; 2]> {
    let rest = frame.strip_prefix(b">3\r\n$7\r\nmessage\r\n")?;
    let (channel, rest) = bulk(rest)?;
    let (payload, _) = bulk(rest)?;
    Some([channel, payload])
}

/// A string of the protocol, and what stands behind it.
fn bulk(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let bytes = bytes.strip_prefix(b"$")?;
    let line = bytes.iter().position(|byte| *byte == b'\r')?;
    let length: usize = std::str::from_utf8(&bytes[..line]).ok()?.parse().ok()?;
    let begin = line + 2;
    Some((
        bytes.get(begin..begin + length)?,
        bytes.get(begin + length + 2..)?,
    ))
}
