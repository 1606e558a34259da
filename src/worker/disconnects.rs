//! Users who are sent away: their sessions here, and those that are still on their way in.
//!
//! In: the inbox of a user, and one session or none for all. Out: the end of each session that holds
//! the inbox. A request whose user is known becomes a session a moment later, when its answer is
//! written; so what ended all of a user's sessions is remembered, and whoever was counted in before
//! that and holds the inbox after it asks ([`Worker::disconnected_since`]). Bound: [`RECENT_MAX`],
//! more than come in that moment. Whoever comes in while more came is let in, and counted.

use std::collections::VecDeque;

use fanfare_protocol::close::CloseReason;
use fanfare_protocol::ids::{SessionId, Topic};

use super::Worker;

/// Users that are remembered.
const RECENT_MAX: usize = 1_024;

/// The newest orders that end all sessions of a user.
#[derive(Debug, Default)]
pub(super) struct Disconnects {
    count: u64,
    recent: VecDeque<(Topic, CloseReason)>,
}

impl Disconnects {
    fn note(&mut self, inbox: &Topic, reason: CloseReason) {
        self.count += 1;
        if self.recent.len() == RECENT_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back((inbox.clone(), reason));
    }
}

impl Worker {
    /// How many orders there were so far that end all sessions of a user.
    #[must_use]
    pub fn disconnects(&self) -> u64 {
        self.state.borrow().disconnects.count
    }

    /// Why all sessions of this user were ended after there had been so many orders; `None`: they
    /// were not.
    #[must_use]
    pub fn disconnected_since(&self, inbox: &Topic, count: u64) -> Option<CloseReason> {
        let known = &self.state.borrow().disconnects;
        let missed = usize::try_from(known.count - count).unwrap_or(usize::MAX);
        let mut recent = known.recent.iter().rev().take(missed);
        let found = recent.find(|(of, _)| of == inbox);
        if found.is_none() && missed > known.recent.len() {
            self.metrics.counters.disconnects_unknown.add_owned(1);
        }
        found.map(|(_, reason)| *reason)
    }

    /// Ends one session that holds the inbox, or all.
    pub(super) fn disconnect(&self, inbox: &Topic, only: Option<SessionId>, reason: CloseReason) {
        let state = &mut *self.state.borrow_mut();
        if only.is_none() {
            state.disconnects.note(inbox, reason);
        }
        let Some(topic) = state.hub.find(inbox).and_then(|t| state.hub.get(t)) else {
            return;
        };
        for member in &topic.members {
            if let Some(entry) = state.sessions.get_mut(member.session)
                && only.is_none_or(|id| id == entry.id)
            {
                entry.end(reason);
            }
        }
    }
}
