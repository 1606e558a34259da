//! Lanes that are lent to outboxes while more than one message waits there.
//!
//! In: lanes that were emptied. Out: lanes for the next outbox that needs some. Owned by the worker.
//! Bound: [`SPARES_MAX`] lanes of at most [`SPARE_ITEMS_MAX`] places a queue; what goes beyond is
//! given back to the allocator.

use super::lanes::Lanes;

/// Lanes that a worker keeps for the next sessions that need some.
const SPARES_MAX: usize = 16_384;
/// Lanes that grew beyond so many items a queue are given back.
pub(super) const SPARE_ITEMS_MAX: usize = 64;

/// Lanes that no session needs at the moment.
#[derive(Debug, Default)]
#[expect(
    clippy::vec_box,
    reason = "they are lent and given back without being moved"
)]
pub struct LanePool {
    pub(super) lanes: Vec<Box<Lanes>>,
    /// Some were lent since the last [`LanePool::shrink`].
    in_use: bool,
}

impl LanePool {
    pub(super) fn lend(&mut self) -> Box<Lanes> {
        self.in_use = true;
        self.lanes.pop().unwrap_or_default()
    }

    /// Lets half of them go, if none was needed since the last time: a worker that fell quiet soon
    /// holds none.
    pub fn shrink(&mut self) {
        if !std::mem::take(&mut self.in_use) {
            self.lanes.truncate(self.lanes.len() / 2);
        }
    }

    pub(super) fn give_back(&mut self, lanes: Box<Lanes>) {
        if self.lanes.len() < SPARES_MAX && lanes.is_small(SPARE_ITEMS_MAX) {
            self.lanes.push(lanes);
        }
    }
}
