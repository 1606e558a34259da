//! What waits for one socket: whole frames in order, one lane, one bound.
//!
//! In: replies of the session, live deliveries, pages of a catch-up. Out: [`Outbox::write`], one
//! vectored write of everything that waits. Owned by the worker. Bounds: live deliveries by
//! messages and bytes (at the bound the session ends with 4103); replies by number and bytes (at
//! the bound no further command is read); a catch-up asks for its next page only when
//! [`Outbox::has_room`]. An empty outbox holds no memory.

use std::collections::VecDeque;
use std::io::{self, IoSlice};

use bytes::Bytes;

/// Frames of one `writev`. Linux takes 1,024; past 64 the copy dominates the call.
const SLICES_MAX: usize = 64;

/// Where a frame came from; each kind has its own bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// An answer, a notice, a control frame.
    Reply,
    /// A live delivery.
    Live,
    /// Part of a catch-up page.
    Replay,
}

/// How much of one kind waits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Waiting {
    /// Frames.
    pub messages: usize,
    /// Their bytes.
    pub bytes: usize,
}

/// Most that may wait of one kind.
#[derive(Debug, Clone, Copy)]
pub struct Bound {
    /// Frames.
    pub messages_max: usize,
    /// Their bytes.
    pub bytes_max: usize,
}

impl Bound {
    /// Whether so much is over the bound.
    #[must_use]
    pub fn exceeded(&self, waiting: Waiting) -> bool {
        waiting.messages > self.messages_max || waiting.bytes > self.bytes_max
    }
}

/// What a write did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Written {
    /// Frames that the socket took whole.
    pub frames: u64,
    /// Bytes that it took.
    pub bytes: u64,
    /// Write calls.
    pub calls: u64,
    /// The socket takes no more: wait until it is writable.
    pub blocked: bool,
}

/// The queue itself.
#[derive(Debug, Default)]
pub struct Outbox {
    frames: VecDeque<(Bytes, Kind)>,
    /// Bytes of the first frame that the socket has taken already.
    head_written: usize,
    waiting: [Waiting; 3],
}

impl Outbox {
    /// Appends a frame.
    pub fn push(&mut self, frame: Bytes, kind: Kind) {
        let waiting = &mut self.waiting[kind as usize];
        waiting.messages += 1;
        waiting.bytes += frame.len();
        self.frames.push_back((frame, kind));
    }

    /// How much of a kind waits.
    #[must_use]
    pub fn waiting(&self, kind: Kind) -> Waiting {
        self.waiting[kind as usize]
    }

    /// Nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Whether a catch-up may add its next page: less than half of the bound waits in all.
    #[must_use]
    pub fn has_room(&self, bound: Bound) -> bool {
        let bytes: usize = self.waiting.iter().map(|w| w.bytes).sum();
        self.frames.len() <= bound.messages_max / 2 && bytes <= bound.bytes_max / 2
    }

    /// Writes as much as `write` takes, several frames a call, until nothing waits or it would
    /// block. HOT: no allocation; bench: `benches/fanout.rs`.
    ///
    /// # Errors
    /// What `write` says, other than `WouldBlock` and `Interrupted`.
    pub fn write(
        &mut self,
        mut write: impl FnMut(&[IoSlice<'_>]) -> io::Result<usize>,
    ) -> io::Result<Written> {
        let mut done = Written::default();
        while !self.frames.is_empty() {
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let mut count = 0;
            for (slice, (frame, _)) in slices.iter_mut().zip(&self.frames) {
                let skip = if count == 0 { self.head_written } else { 0 };
                *slice = IoSlice::new(&frame[skip..]);
                count += 1;
            }
            done.calls += 1;
            match write(&slices[..count]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => {
                    done.bytes += n as u64;
                    done.frames += self.advance(n);
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    done.blocked = true;
                    return Ok(done);
                }
                Err(e) => return Err(e),
            }
        }
        // An idle session holds no buffer. Growing again costs one allocation per burst.
        self.frames = VecDeque::new();
        Ok(done)
    }

    /// Drops everything but a frame that is partly written. Returns how many messages went.
    pub fn drop_unsent(&mut self) -> u64 {
        let partly = self.frames.pop_front().filter(|_| self.head_written > 0);
        let messages =
            |w: &[Waiting; 3]| w[Kind::Live as usize].messages + w[Kind::Replay as usize].messages;
        let before = messages(&self.waiting);
        self.frames = VecDeque::new();
        self.waiting = [Waiting::default(); 3];
        if let Some((frame, kind)) = partly {
            self.push(frame, kind);
        }
        (before - messages(&self.waiting)) as u64
    }

    /// Takes `n` written bytes off the front; returns how many frames are through.
    fn advance(&mut self, n: usize) -> u64 {
        let mut left = n + self.head_written;
        let mut frames = 0;
        while let Some((frame, kind)) = self.frames.front() {
            if left < frame.len() {
                break;
            }
            left -= frame.len();
            let waiting = &mut self.waiting[*kind as usize];
            waiting.messages -= 1;
            waiting.bytes -= frame.len();
            self.frames.pop_front();
            frames += 1;
        }
        self.head_written = left;
        frames
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn whatever_the_socket_takes_the_bytes_come_in_order(
            frames in prop::collection::vec(1usize..300, 1..200),
            takes in prop::collection::vec(0usize..500, 1..400),
        ) {
            let mut outbox = Outbox::default();
            let mut expected = Vec::new();
            let kinds = [Kind::Reply, Kind::Live, Kind::Replay];
            for (at, len) in frames.iter().enumerate() {
                let frame = vec![at as u8; *len];
                expected.extend_from_slice(&frame);
                outbox.push(frame.into(), kinds[at % 3]);
            }
            let mut got = Vec::new();
            let mut takes = takes.into_iter();
            while !outbox.is_empty() {
                // After the plan is used up the socket takes everything.
                let mut room = takes.next().unwrap_or(usize::MAX);
                let result = outbox.write(|slices| {
                    let mut n = 0;
                    for slice in slices {
                        let part = slice.len().min(room - n);
                        got.extend_from_slice(&slice[..part]);
                        n += part;
                    }
                    room -= n;
                    if n == 0 { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(n) }
                });
                prop_assert!(result.is_ok());
            }
            prop_assert_eq!(got, expected);
            for kind in kinds {
                prop_assert_eq!(outbox.waiting(kind), Waiting::default());
            }
        }
    }

    #[test]
    fn room_is_half_the_bound() {
        let bound = Bound {
            messages_max: 4,
            bytes_max: 100,
        };
        let mut outbox = Outbox::default();
        outbox.push(Bytes::from_static(&[0; 50]), Kind::Replay);
        assert!(outbox.has_room(bound));
        outbox.push(Bytes::from_static(&[0; 1]), Kind::Replay);
        assert!(!outbox.has_room(bound));
    }
}
