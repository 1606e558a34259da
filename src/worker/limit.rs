//! A session loses the right to read history, or gets it, while a topic is read to it.
//!
//! In: which session, which topic, and whether what it may be caught up with is limited from now on.
//! Out: what waits for its socket and can be read again is taken back, a page that is on its way is
//! not waited for, and the next one is read by the limit ([`super::catchup::Pull::is_limited`]). What
//! that page leaves out is told as its gap; what follows it is newer, so one page by the limit is
//! enough. A session that gets the right before that reads on as before. Constant in the topic's
//! members; bound: the outbox.

use fanfare_protocol::ids::{Priority, Topic};

use super::Worker;
use super::hub::{Mode, SessionKey};

impl Worker {
    /// Limits how far back the session is caught up with this topic from now on, or limits it no
    /// more. Does nothing before the session has begun there: where it begins is its own to judge.
    pub fn limit(&self, key: SessionKey, topic: &Topic, is_limited: bool) {
        let state = &mut *self.state.borrow_mut();
        let Some(reader) = state.reader(key, topic).filter(|r| r.has_history) else {
            return;
        };
        let Some(entry) = state.sessions.get_mut(key) else {
            return;
        };
        let waited = match reader.mode {
            Mode::Starting { .. } => return,
            // What waits has come live, or was let through already.
            _ if !is_limited => None,
            _ => entry
                .outbox
                .take_back(reader.reference.topic, &mut state.spares),
        };
        let (at, urgency) = match (reader.mode, waited) {
            (Mode::Pull { urgency, .. }, Some(back)) => (back.at, urgency.max(back.urgency)),
            (_, Some(back)) => (back.at, back.urgency.max(Priority::default())),
            (Mode::Pull { at, urgency, .. }, None) => (at, urgency),
            (_, None) => return,
        };
        let member = state.hub.member_mut(reader.reference);
        member.mode = Mode::pull(at, urgency);
        member.is_limited = is_limited;
        entry.catch_up();
    }
}
