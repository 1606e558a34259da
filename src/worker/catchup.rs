//! How a session gets from an old position to the live stream: pages, paced by its own socket.
//!
//! In: the session says from where it begins, and brings each page that it read from the broker.
//! Out: frames in its outbox, and in the same turn the switch back to live deliveries once the
//! pages have reached what this worker has seen. No publication falls between a page and the live
//! stream, because a topic's last position and a member's mode change on one thread. Bound: one
//! page a session on its way, and only while its outbox is less than half full.

use crate::broker::{Body, Entry, SincePage};
use crate::protocol::codec::{self, Wire};
use crate::protocol::event::{Event, Gap, GapReason};
use crate::protocol::ids::{Position, SessionId, Topic};

use super::Worker;
use super::hub::{Mode, SessionKey};
use super::outbox::{Bound, Kind};
use super::outgoing;

impl Worker {
    /// Lets live deliveries through from here on. Returns the position after which they begin,
    /// or `None` when the session does not belong to the topic (any more).
    pub fn begin_live(&self, key: SessionKey, topic: &Topic) -> Option<Position> {
        let mut last = Position::ZERO;
        self.with_mode(key, topic, |mode, topic_last| {
            last = topic_last;
            *mode = Mode::Push { after: topic_last };
        })
        .then_some(last)
    }

    /// Begins to catch up from `at`. The pages are asked for by [`Self::next_pull`].
    pub fn begin_pull(&self, key: SessionKey, topic: &Topic, at: Position) {
        self.with_mode(key, topic, |mode, _| {
            *mode = Mode::Pull { at, loading: false };
        });
        if let Some(entry) = self.state.borrow_mut().sessions.get_mut(key) {
            entry.catching_up = true;
            entry.notify(|n| n.room = true);
        }
    }

    /// The topic and position of which the session should read the next page now: `None` while
    /// its outbox has no room or a page is on its way, or when it has caught up with everything.
    pub fn next_pull(&self, key: SessionKey, bound: Bound) -> Option<(Topic, Position)> {
        let state = &mut *self.state.borrow_mut();
        let entry = state.sessions.get_mut(key)?;
        if !entry.catching_up || !entry.outbox.has_room(bound) {
            return None;
        }
        let count = entry.references.len();
        let mut next = None;
        for step in 0..count {
            let at = (entry.next_pull + step) % count;
            match state.hub.member_mut(entry.references[at]).mode {
                Mode::Pull { loading: true, .. } => return None,
                Mode::Pull { at: position, .. } => next = next.or(Some((at, position))),
                Mode::Starting | Mode::Push { .. } => {}
            }
        }
        let Some((at, position)) = next else {
            entry.catching_up = false;
            return None;
        };
        let reference = entry.references[at];
        entry.next_pull = at + 1;
        state.hub.member_mut(reference).mode = Mode::Pull {
            at: position,
            loading: true,
        };
        let topic = state.hub.get(reference.topic)?;
        Some((topic.name.clone(), position))
    }

    /// Lets the next page be asked for, after one could not be read or brought nothing.
    pub fn pull_again(&self, key: SessionKey, topic: &Topic) {
        self.with_mode(key, topic, |mode, _| {
            if let Mode::Pull { loading, .. } = mode {
                *loading = false;
            }
        });
    }

    /// Queues a page, tells what is gone before it (with `tell_gap`; the page that was answered
    /// in an `ok` was told there), and goes live when the pages have reached what this worker
    /// has seen. Returns false when the page brought the session no further although it has not
    /// caught up: the history is behind the feed. The next page is then asked for only after
    /// [`Self::pull_again`], which the caller calls a little later.
    pub fn page(
        &self,
        key: SessionKey,
        topic: &Topic,
        page: &SincePage,
        now_ms: u64,
        tell_gap: bool,
    ) -> bool {
        let Some((id, wire, has_history)) = self.reader(key, topic) else {
            return true;
        };
        let Some(asked_at) = self.pulled_at(key, topic) else {
            return true;
        };
        if let Some(reason) = page.gap.filter(|_| tell_gap) {
            let gap = Gap {
                topic: outgoing::shown(topic),
                from: Some(asked_at),
                to: (reason != GapReason::Failover).then_some(page.start),
                reason,
                dropped: None,
            };
            self.metrics.counters.gaps_told.add_owned(1);
            self.push(key, codec::encode(wire, &Event::Gap(gap)), Kind::Reply);
        }
        let mut replayed = 0;
        for entry in visible(&page.entries, id, now_ms) {
            let event = outgoing::event(topic, entry.position, has_history, &entry.body);
            self.push(key, codec::encode(wire, &event), Kind::Replay);
            replayed += 1;
        }
        self.metrics.counters.replayed.add_owned(replayed);
        let reached = page.entries.last().map_or(page.start, |e| e.position);
        let mut goes_on = true;
        self.with_mode(key, topic, |mode, topic_last| {
            // Not "the page was empty": a delivery may have passed this session by while the
            // page was on its way.
            if reached >= topic_last {
                *mode = Mode::Push { after: reached };
                return;
            }
            goes_on = reached != asked_at;
            *mode = Mode::Pull {
                at: reached,
                loading: !goes_on,
            };
        });
        goes_on
    }

    fn pulled_at(&self, key: SessionKey, topic: &Topic) -> Option<Position> {
        let mut found = None;
        self.with_mode(key, topic, |mode, _| {
            if let Mode::Pull { at, .. } = mode {
                found = Some(*at);
            }
        });
        found
    }

    fn reader(&self, key: SessionKey, topic: &Topic) -> Option<(SessionId, Wire, bool)> {
        let state = self.state.borrow();
        let entry = state.sessions.get(key)?;
        let topic = state.hub.get(state.hub.find(topic)?)?;
        Some((entry.id, entry.wire, topic.has_history))
    }

    /// Runs `change` on the session's mode in the topic; false when it is no member.
    fn with_mode(
        &self,
        key: SessionKey,
        topic: &Topic,
        change: impl FnOnce(&mut Mode, Position),
    ) -> bool {
        let state = &mut *self.state.borrow_mut();
        let Some(topic_key) = state.hub.find(topic) else {
            return false;
        };
        let Some(entry) = state.sessions.get(key) else {
            return false;
        };
        let Some(reference) = entry.references.iter().find(|r| r.topic == topic_key) else {
            return false;
        };
        let last = state
            .hub
            .get(topic_key)
            .and_then(|t| t.last)
            .unwrap_or_default();
        change(&mut state.hub.member_mut(*reference).mode, last);
        true
    }
}

/// The entries of a page that a reader is shown: not those past their own end, not those that a
/// newer one of the same conflation key in the page stands for, not the reader's own.
pub fn visible(entries: &[Entry], reader: SessionId, now_ms: u64) -> impl Iterator<Item = &Entry> {
    entries.iter().enumerate().filter_map(move |(at, entry)| {
        let Body::Publication(publication) = &entry.body else {
            return Some(entry);
        };
        let superseded = publication.conflate
            && publication.key.is_some()
            && entries[at + 1..].iter().any(|newer| match &newer.body {
                Body::Publication(newer) => newer.conflate && newer.key == publication.key,
                Body::Presence(_) => false,
            });
        let own = publication.exclude == Some(reader);
        (!publication.has_ended(now_ms) && !superseded && !own).then_some(entry)
    })
}
