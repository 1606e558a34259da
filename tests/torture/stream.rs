//! Judges what one client saw of one topic, over all its connections.
//!
//! In: joins, messages and gaps in the order in which the client saw them, and what the topic
//! holds at the end. Out: counts in the verdict. Every client joins from `0-0`, so that everything
//! that is retained is due; a told failover sets the client back, and what it then reads again is
//! no double.

use std::collections::BTreeMap;

use fanfare_protocol::ids::Position;
use rustc_hash::{FxHashMap, FxHashSet};

use super::checker::{Publication, Publications, Stream, Verdict, Wrong};
use super::history::{ClientIndex, Event, Id, Outcome, Topic};
use super::retained::app_of;

/// Everything needed to judge one stream.
pub(crate) struct Judge<'a> {
    pub(crate) client: ClientIndex,
    pub(crate) topic: &'a Topic,
    pub(crate) topics: &'a [Topic],
    /// Of all topics, to tell a stray message from an invented one.
    pub(crate) published: &'a Publications,
    /// Of this topic.
    pub(crate) publications: &'a FxHashMap<Id, Publication>,
    pub(crate) retained: &'a BTreeMap<Position, Id>,
    pub(crate) gone: &'a FxHashMap<Position, Id>,
    pub(crate) may_lose: bool,
    pub(crate) has_doubt: bool,
    pub(crate) verdict: &'a mut Verdict,
}

/// What the client was told it would not get: above the first, up to the second.
type Told = (Position, Position);

const END: Position = Position {
    ms: u64::MAX,
    seq: u64::MAX,
};

/// What is known of a client while its stream is read.
#[derive(Default)]
struct Seen {
    ids: FxHashSet<Id>,
    last: Position,
    /// The highest that ever came.
    highest: Position,
    /// Messages above this may come again.
    reread_above: Option<Position>,
    told: Vec<Told>,
    /// What came and is not retained.
    void: Vec<(Position, Id)>,
}

impl Judge<'_> {
    /// Reads the stream from its begin to its end.
    pub(crate) fn judge(&mut self, stream: &Stream<'_>) {
        let mut seen = Seen::default();
        for (_, event) in stream {
            match **event {
                Event::Received { id, position, .. } => self.received(&mut seen, id, position),
                Event::Joined {
                    since,
                    recovered,
                    position,
                    ..
                } => self.joined(&mut seen, since, recovered, position),
                Event::Gap {
                    from,
                    to,
                    is_failover,
                    ..
                } => {
                    let from = from.unwrap_or(seen.last);
                    let to = to.unwrap_or(END);
                    let told = (from, to);
                    self.told(&mut seen, told, told, is_failover);
                }
                _ => {}
            }
        }
        if self.topic.clients.contains(&self.client) {
            self.missing(&seen);
            self.untold(&seen);
        }
    }

    fn received(&mut self, seen: &mut Seen, id: Id, position: Position) {
        self.verdict.delivered += 1;
        let name = &self.topic.name;
        let client = self.client;
        let what = |word: &str| format!("client {client} {word} {id:?} at {position} of {name}");
        if !self.topic.clients.contains(&client) {
            let what = what("is no reader and got");
            return self.verdict.found(Wrong::Misdirected, what);
        }
        match self.publications.get(&id) {
            None => {
                let (wrong, what) = match app_of(self.published, self.topics, id) {
                    None => (Wrong::Phantom, what("got the unpublished")),
                    Some(app) if app == self.topic.app => {
                        (Wrong::Misdirected, what("got from another topic"))
                    }
                    Some(_) => {
                        seen.ids.insert(id);
                        (Wrong::BetweenApps, what("got from the other app"))
                    }
                };
                return self.verdict.found(wrong, what);
            }
            Some(publication) if matches!(publication.ended, Some((_, Outcome::Fail))) => {
                self.verdict.found(Wrong::Phantom, what("got the refused"));
            }
            Some(_) => {}
        }
        if self
            .retained
            .get(&position)
            .is_some_and(|there| *there != id)
        {
            self.verdict
                .found(Wrong::Reordered, what("got another than others:"));
        }
        let may_reread = seen.reread_above.is_some_and(|from| position > from);
        if !seen.ids.insert(id) {
            if !may_reread {
                self.verdict.found(Wrong::Doubled, what("got twice"));
            }
        } else if position <= seen.last && !may_reread {
            let what = what(&format!("got after {}", seen.last));
            self.verdict.found(Wrong::Reordered, what);
        }
        if !self.retained.contains_key(&position) {
            seen.void.push((position, id));
        }
        seen.last = position;
        seen.highest = seen.highest.max(position);
    }

    fn joined(&mut self, seen: &mut Seen, since: Position, recovered: bool, position: Position) {
        if since > Position::ZERO {
            self.verdict.resumes += 1;
            self.verdict.recovered += u64::from(recovered);
        }
        if !recovered {
            let below_since = Position {
                ms: since.ms,
                seq: since.seq.saturating_sub(1),
            };
            // It begins far below with what is still there; what is gone is the position itself.
            let retained = self.retained.range(..since).next_back();
            let below = retained.map_or(Position::ZERO, |(position, _)| *position);
            let gone = (below.min(below_since), position.max(since));
            let told = (position.min(below_since), position.max(since));
            self.told(seen, told, gone, true);
        }
    }

    /// `gone`: somewhere in this something must be gone.
    fn told(&mut self, seen: &mut Seen, told: Told, gone: Told, is_failover: bool) {
        self.verdict.told_gaps += 1;
        let lies_in = |position: &Position| gone.0 < *position && *position <= gone.1;
        let is_justified = self.may_lose && (self.has_doubt || self.gone.keys().any(lies_in));
        if !is_justified {
            let (client, name) = (self.client, &self.topic.name);
            let what = format!("client {client} was told {told:?} of {name}");
            self.verdict.found(Wrong::NeedlessGap, what);
        }
        seen.told.push(told);
        if is_failover {
            seen.last = seen.last.min(told.0);
            let above = seen.reread_above.unwrap_or(END);
            seen.reread_above = Some(above.min(told.0));
        }
    }

    /// Everything retained is due, told gaps or not: nothing was lost there.
    fn missing(&mut self, seen: &Seen) {
        self.verdict.due += self.retained.len() as u64;
        for (position, id) in self.retained {
            if seen.ids.contains(id) {
                continue;
            }
            let what = format!(
                "client {} has nothing of {id:?} at {position} of {}",
                self.client, self.topic.name
            );
            let is_told = seen
                .told
                .iter()
                .any(|(from, to)| from < position && position <= to);
            let wrong = match (is_told, *position < seen.highest) {
                (false, true) => Wrong::SilentGap,
                _ => Wrong::Lost,
            };
            self.verdict.found(wrong, what);
        }
    }

    /// Who had something that Redis lost must have been told; who had not may have been.
    fn untold(&mut self, seen: &Seen) {
        let is_told = |position: &Position| {
            let mut told = seen.told.iter();
            told.any(|(from, to)| from < position && position <= to)
        };
        for (position, id) in &seen.void {
            if !is_told(position) {
                let (client, name) = (self.client, &self.topic.name);
                let what = format!(
                    "client {client} got {id:?} at {position} of {name}, which is gone, and was not told"
                );
                self.verdict.found(Wrong::Untold, what);
            }
        }
        let accepted = self.gone.iter().filter(|(position, id)| {
            let publication = self.publications.get(*id);
            publication
                .and_then(Publication::accepted)
                .is_some_and(|(_, at)| at == **position)
        });
        let never_seen =
            accepted.filter(|(position, id)| !seen.ids.contains(*id) && !is_told(position));
        self.verdict.never_seen += never_seen.count() as u64;
    }
}
