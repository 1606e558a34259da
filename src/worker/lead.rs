//! What a failover makes void: at all sessions of a topic, and at those that have come further than
//! their worker has seen.
//!
//! A page of a catch-up may run ahead of the feed, and a client may come back with a position that
//! its worker has not seen. Live messages up to that position are passed over then: the session has
//! them. Should the broker lose that very position before the feed brings it, neither dispatcher nor
//! worker knows of it, and where the clock of the new master is behind, new messages lie below it.
//!
//! In: who may have a lead, and where the worker stood before; time. Out: a lead that the feed has
//! not caught up with within [`PATIENCE`] is doubted. On a topic with history the session asks the
//! broker for what follows its position. Where that is not there any more, the session goes back to
//! where the worker stood when the lead began, which both have in common, is told so as a failover,
//! and reads on from there. On a topic without history it is told so as soon as something was passed
//! over. Owned by one worker. Bound: one lead for each membership; each ends when the feed has
//! caught up. What the worker has seen itself needs none: when the broker loses that, the dispatcher
//! says so.

use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;

use fanfare_protocol::event::GapReason;
use fanfare_protocol::ids::{Position, Priority, Topic};

use super::catchup::Reader;
use super::hub::{Mode, SessionKey, TopicKey};
use super::{State, Worker};

/// How long the feed may take to bring what a session has had from a page: many times what it does.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);

/// One session's lead in one topic.
#[derive(Debug)]
struct Lead {
    /// Where the worker stood: below it the session has what the worker has.
    base: Position,
    since: Instant,
}

/// All leads of a worker's sessions.
#[derive(Debug, Default)]
pub(super) struct Leads(FxHashMap<(SessionKey, TopicKey), Lead>);

impl Leads {
    /// The session is in the topic, and does not know yet where it begins.
    pub(super) fn begin(&mut self, key: SessionKey, topic: TopicKey, base: Position) {
        let since = Instant::now();
        let lead = self.0.entry((key, topic));
        lead.or_insert(Lead { base, since });
    }

    /// The session has come further than its worker had, when that stood at `base`.
    pub(super) fn note(&mut self, key: SessionKey, topic: TopicKey, base: Position) {
        let since = Instant::now();
        self.0.insert((key, topic), Lead { base, since });
    }

    /// Where a lead began that has led the session to `at`.
    pub(super) fn base(&self, key: SessionKey, topic: TopicKey, at: Position) -> Option<Position> {
        let lead = self.0.get(&(key, topic))?;
        (lead.base < at).then_some(lead.base)
    }

    /// The session has left the topic.
    pub(super) fn forget(&mut self, key: SessionKey, topic: TopicKey) {
        self.0.remove(&(key, topic));
    }
}

impl Worker {
    /// Looks at the leads that have lasted for too long.
    pub(super) fn doubt_leads(&self, state: &mut State, now: Instant) {
        let leads = state.leads.0.iter();
        let late: Vec<_> = leads
            .filter(|(_, lead)| lead.since + PATIENCE <= now)
            .map(|((key, topic), lead)| (*key, *topic, lead.base))
            .collect();
        for (key, topic_key, base) in late {
            self.doubt_lead(state, key, topic_key, base);
        }
    }

    fn doubt_lead(&self, state: &mut State, key: SessionKey, topic_key: TopicKey, base: Position) {
        let name = state.hub.get(topic_key).map(|topic| topic.name.clone());
        let reader = name.and_then(|name| Some((state.reader(key, &name)?, name)));
        let Some((reader, name)) = reader else {
            return state.leads.forget(key, topic_key);
        };
        match reader.mode {
            // The broker is asked.
            Mode::Starting { .. } | Mode::Pull { .. } => {}
            Mode::Push { after } if after > reader.last && reader.has_history => {
                let mode = Mode::pull(after, Priority::default());
                state.hub.member_mut(reader.reference).mode = mode;
                if let Some(entry) = state.sessions.get_mut(key) {
                    entry.catch_up();
                }
            }
            Mode::Push { after } if after > reader.last => {
                if reader.last > base {
                    self.go_back(state, key, &reader, &name, base);
                }
            }
            Mode::Push { .. } => state.leads.forget(key, topic_key),
        }
    }

    /// What the session has above `base` is void: it is told, and goes on from there.
    pub(super) fn go_back(
        &self,
        state: &mut State,
        key: SessionKey,
        reader: &Reader,
        topic: &Topic,
        base: Position,
    ) {
        state.leads.forget(key, reader.reference.topic);
        let (bounds, reason) = ((base, None), GapReason::Failover);
        self.tell_gap(state, key, reader, topic, bounds, reason);
        let mode = &mut state.hub.member_mut(reader.reference).mode;
        *mode = match *mode {
            Mode::Pull { urgency, .. } => Mode::pull(base, urgency),
            _ => Mode::Push {
                after: Position::ZERO,
            },
        };
        if let Some(entry) = state.sessions.get_mut(key) {
            entry.catch_up();
        }
    }
}

/// Everything of this topic above `from` is void, here and at its sessions.
pub(super) fn fail_over(state: &mut State, key: TopicKey, from: Position) {
    state.failovers += 1;
    let topic = state.hub.get_mut(key).expect("the caller found it");
    state.recent.forget(key, topic);
    for member in &mut topic.members {
        void(&mut member.mode, from);
        if let Mode::Pull { .. } = member.mode
            && let Some(entry) = state.sessions.get_mut(member.session)
        {
            entry.catch_up();
        }
    }
}

/// After a failover what a session has above `from` is void, and ids may start below it. A page
/// that is on its way may be of before.
fn void(mode: &mut Mode, from: Position) {
    match mode {
        Mode::Starting { void_above } => {
            *void_above = Some(void_above.map_or(from, |above| above.min(from)));
        }
        Mode::Push { after } => *after = Position::ZERO,
        Mode::Pull { at, asked, .. } => (*at, *asked) = (from.min(*at), None),
    }
}
