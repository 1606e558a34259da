//! Control messages, which may be heard on several connections and count once.
//!
//! In: messages of this node on their way out, and what the feeds of the first deployment hear: in
//! a Redis Cluster every master repeats a classic message to all, so that each feed hears it, and
//! an unreachable master does not matter. Out: each message once. Owner of the newest ids, shared by
//! the feeds under a lock that is held for one comparison. Bound: [`IDS_MAX`] ids; a message that
//! comes again after so many others is processed again, which does no harm: requests are idempotent.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;

/// The form of the channel itself: a number of its own in front of versioned JSON. Raised only when
/// nodes of both sides could not run beside each other; a new kind of message needs no new form.
pub const PROTOCOL: u32 = 1;

/// Control messages come some a second at most; their copies come within milliseconds.
const IDS_MAX: usize = 256;

/// See the module.
#[derive(Debug, Default)]
pub struct Heard {
    ids: Mutex<VecDeque<u64>>,
}

/// The message as it is published: a number of its own, space, the message.
#[must_use]
pub fn numbered(message: &[u8]) -> Bytes {
    let mut numbered = format!("{:016x} ", rand::random::<u64>()).into_bytes();
    numbered.extend_from_slice(message);
    numbered.into()
}

impl Heard {
    /// The message, the first time that it is heard. Without a number it is not one of ours.
    pub fn first(&self, numbered: &[u8]) -> Option<Bytes> {
        let (id, message) = numbered.split_at_checked(17)?;
        let id = std::str::from_utf8(id).ok()?.strip_suffix(' ')?;
        let id = u64::from_str_radix(id, 16).ok()?;
        let mut ids = self.ids.lock().unwrap_or_else(PoisonError::into_inner);
        if ids.contains(&id) {
            return None;
        }
        if ids.len() == IDS_MAX {
            ids.pop_front();
        }
        ids.push_back(id);
        Some(Bytes::copy_from_slice(message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_that_comes_on_several_ways_is_heard_once() {
        let heard = Heard::default();
        let (first, second) = (numbered(b"hello"), numbered(b"hello"));
        assert_eq!(heard.first(&first).as_deref(), Some(&b"hello"[..]));
        assert_eq!(heard.first(&second).as_deref(), Some(&b"hello"[..]));
        assert_eq!(heard.first(&first), None);
        assert_eq!(heard.first(b"hello"), None);
    }

    #[test]
    fn no_more_numbers_are_kept_than_the_bound() {
        let heard = Heard::default();
        for _ in 0..2 * IDS_MAX {
            assert!(heard.first(&numbered(b"")).is_some());
        }
        assert_eq!(heard.ids.lock().unwrap().len(), IDS_MAX);
    }
}
