//! What waits in an outbox, for whoever adds it up.
//!
//! In: the outbox. Out: a number and bytes for each lane. Pure.

use super::lanes::{FRONT, LANES, LAST};
use super::{Outbox, Waiting};

impl std::iter::Sum for Waiting {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |sum, one| Self {
            messages: sum.messages + one.messages,
            bytes: sum.bytes + one.bytes,
        })
    }
}

impl Outbox {
    /// What waits in each lane, one that is partly written included with its rest; answers and what
    /// comes last are one.
    #[must_use]
    pub fn waiting(&self) -> [Waiting; LAST] {
        let lanes = self.lanes.as_ref();
        let [mut all @ .., last] = lanes.map_or([Waiting::default(); LANES], |l| l.waiting());
        all[FRONT] = [all[FRONT], last].into_iter().sum();
        if let Some((item, lane)) = &self.head {
            let bytes = item.bytes_count(self.form);
            all[lane % LAST].add(bytes.saturating_sub(self.head_written));
        }
        all
    }
}
