//! What is read while a node looks at everything or writes back, which may take many answers.
//!
//! In: pages of what is new. Out: the table, news, and readings that count for the use of tokens. Owns
//! nothing.

use std::sync::PoisonError;
use std::time::Instant;

use super::{Revocations, lock};
use crate::revocation::news::News;
use crate::revocation::reader::{Page, Reader};

impl Revocations {
    /// Takes what is new while everything is read, or while it is written back. Returns whether nothing
    /// else is: a reading that was begun then counts for the use of tokens. What the store lost this node
    /// had already, while everything is read only if it had read of late.
    pub(in crate::revocation) fn take_new(
        &self,
        page: &Page,
        reader: &mut Reader,
        begun_at: Instant,
    ) -> bool {
        let mut news = News::default();
        let table = self.shared.table.write();
        let mut table = table.unwrap_or_else(PoisonError::into_inner);
        let is_all = reader.take_new(page, &mut table, &mut news);
        drop(table);
        lock(&self.shared.news).merge(news);
        if is_all && (reader.is_looking().is_none() || self.unread().is_none()) {
            self.looked(begun_at);
        }
        is_all
    }

    /// All that the store has was read since then, though it may lack something: that counts for the use of
    /// tokens, except for the first reading.
    pub(in crate::revocation) fn looked(&self, begun_at: Instant) {
        if self.is_shared() && self.read_at().is_some() {
            self.was_read(begun_at);
            self.shared.readings.send_modify(|count| *count += 1);
        }
    }
}
