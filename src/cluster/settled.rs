//! Under which incarnation all members of this node stand.
//!
//! In: `presence`, whenever it has written the last of them under a new incarnation. Out: what the
//! node says of itself with its heartbeats, by which the reapers know that nothing of an earlier
//! incarnation belongs to somebody who stayed. One number; nothing waits here.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use fanfare_protocol::ids::Owner;

/// The handle. Cheap to clone; 0 before the node has an incarnation.
#[derive(Debug, Clone, Default)]
pub struct Settled(Arc<AtomicU64>);

impl Settled {
    /// Every member that this node has is under `me`, in all masters of Redis. To be told also
    /// by a node without members.
    pub fn tell(&self, me: &Owner) {
        self.0.store(me.incarnation, Ordering::Relaxed);
    }

    /// The last incarnation that was reported.
    #[must_use]
    pub fn incarnation(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
