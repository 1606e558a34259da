//! Sessions that are to look at their tokens, because something was revoked.
//!
//! In: by what a session's tokens can be revoked, and the news of a tenth of a second. Out: a signal to
//! each session that may be concerned, which judges by itself. Bound: one comparison a session and
//! news: 10,000 sessions take well under a millisecond.

use crate::revocation::news::{Marks, News};

use super::Worker;
use super::hub::SessionKey;

impl Worker {
    /// From now on the session is found by these.
    pub fn mark(&self, key: SessionKey, marks: Marks) {
        if let Some(entry) = self.state.borrow_mut().sessions.get_mut(key) {
            entry.marks = marks;
        }
    }

    /// Tells those sessions that may be concerned.
    pub(super) fn revoked(&self, news: &News) {
        let state = &mut *self.state.borrow_mut();
        for entry in state.sessions.values_mut() {
            if news.concerns(&entry.marks) {
                entry.notify(|signals| signals.revoked = true);
            }
        }
    }
}
