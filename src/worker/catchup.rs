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

use super::hub::{Mode, SessionKey};
use super::outbox::{Bound, Kind};
use super::outgoing;
use super::{State, Worker};

/// A session as the reader of one topic.
struct Reader {
    id: SessionId,
    wire: Wire,
    has_history: bool,
    mode: Mode,
}

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

    /// Lets through what comes after `at`: live deliveries if the topic has come no further on this
    /// worker, a catch-up otherwise. Returns where it begins: `at`, or on a topic without history,
    /// where nobody can catch up, the topic's last position if that is higher.
    pub fn begin_after(&self, key: SessionKey, topic: &Topic, at: Position) -> Position {
        let has_history = self.reader(key, topic).is_some_and(|r| r.has_history);
        let mut begins = at;
        self.with_mode(key, topic, |mode, topic_last| {
            if has_history && at < topic_last {
                *mode = Mode::Pull { at, loading: false };
            } else {
                begins = at.max(topic_last);
                *mode = Mode::Push { after: begins };
            }
        });
        self.look_for_pages(key);
        begins
    }

    fn look_for_pages(&self, key: SessionKey) {
        if let Some(entry) = self.state.borrow_mut().sessions.get_mut(key) {
            entry.catching_up = true;
            entry.notify(|n| n.room = true);
        }
    }

    /// The topic and position of which the session should read the next page now: `None` while
    /// a page is on its way or the outbox has no room, and when it has caught up with everything.
    pub fn next_pull(&self, key: SessionKey, bound: Bound) -> Option<(Topic, Position)> {
        let State { sessions, hub, .. } = &mut *self.state.borrow_mut();
        let entry = sessions.get_mut(key)?;
        if !entry.catching_up || !entry.outbox.has_room(bound) {
            return None;
        }
        let count = entry.references.len();
        let mut next = None;
        for step in 0..count {
            let place = (entry.next_pull + step) % count;
            match hub.member_mut(entry.references[place]).mode {
                Mode::Pull { loading: true, .. } => return None,
                Mode::Pull { at, .. } if next.is_none() => next = Some((place, at)),
                _ => {}
            }
        }
        let Some((place, at)) = next else {
            entry.catching_up = false;
            return None;
        };
        entry.next_pull = place + 1;
        let reference = entry.references[place];
        hub.member_mut(reference).mode = Mode::Pull { at, loading: true };
        hub.get(reference.topic).map(|t| (t.name.clone(), at))
    }

    /// Lets the next page be asked for, after one could not be read or brought nothing.
    pub fn pull_again(&self, key: SessionKey, topic: &Topic) {
        self.with_mode(key, topic, |mode, _| {
            if let Mode::Pull { loading, .. } = mode {
                *loading = false;
            }
        });
        self.look_for_pages(key);
    }

    /// Queues the page that was asked for at `asked_at`, tells what is gone before it, and goes
    /// live when the pages have reached what this worker has seen. A page for another position
    /// than the session now waits for belongs to an earlier stay, and is dropped. Returns false
    /// when the page brought the session no further although it has not caught up: the history is
    /// behind the feed. The next page is then asked for only after [`Self::pull_again`], which the
    /// caller calls a little later.
    pub fn page(
        &self,
        key: SessionKey,
        topic: &Topic,
        asked_at: Position,
        page: &SincePage,
        now_ms: u64,
    ) -> bool {
        let Some(reader) = self.reader(key, topic) else {
            return true;
        };
        let awaited = Mode::Pull {
            at: asked_at,
            loading: true,
        };
        if reader.mode != awaited {
            return true;
        }
        if let Some(reason) = page.gap {
            let gap = Gap {
                topic: outgoing::shown(topic),
                from: Some(asked_at),
                to: (reason != GapReason::Failover).then_some(page.start),
                reason,
                dropped: None,
            };
            self.metrics.counters.gaps_told.add_owned(1);
            let frame = codec::encode(reader.wire, &Event::Gap(gap));
            self.push(key, frame, Kind::Reply);
        }
        let mut replayed = 0;
        for entry in visible(&page.entries, reader.id, now_ms) {
            let event = outgoing::event(topic, entry.position, reader.has_history, &entry.body);
            self.push(key, codec::encode(reader.wire, &event), Kind::Replay);
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

    fn reader(&self, key: SessionKey, topic: &Topic) -> Option<Reader> {
        let State { sessions, hub, .. } = &mut *self.state.borrow_mut();
        let entry = sessions.get(key)?;
        let topic_key = hub.find(topic)?;
        let has_history = hub.get(topic_key)?.has_history;
        let reference = entry.references.iter().find(|r| r.topic == topic_key)?;
        Some(Reader {
            id: entry.id,
            wire: entry.wire,
            has_history,
            mode: hub.member_mut(*reference).mode,
        })
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
