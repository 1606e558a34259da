//! Judges a history: what was lost, doubled, reordered, invented, misled, or left untold.
//!
//! In: a [`History`], and whether Redis may lose what it accepted. Out: a [`Verdict`]. Pure, and
//! linear in the history but for sorting. The truth is what the topics retain at the end (every
//! topic of a run retains everything): with it, each client's stream can be judged alone.

use std::collections::BTreeMap;
use std::time::Duration;

use fanfare_protocol::ids::Position;
use rustc_hash::{FxHashMap, FxHashSet};

use super::history::{ClientIndex, Event, History, Id, Outcome, TopicIndex};
use super::retained;

/// What can be wrong. The order is that of the figure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Wrong {
    /// Accepted, and a client that should have it does not, or Redis itself has it no more.
    Lost,
    /// The same publication twice.
    Doubled,
    /// Out of the order of positions, or positions against the order of acceptance.
    Reordered,
    /// Received, and nobody published it, or it was surely refused.
    Phantom,
    /// Received by a client, or on a topic, that it was not for.
    Misdirected,
    /// Of one app, and seen in another.
    BetweenApps,
    /// Something later came first, and nobody said a word.
    SilentGap,
    /// A gap or `recovered: false` was told, and everything is still there.
    NeedlessGap,
    /// What a client had was lost by Redis, and the client was never told.
    Untold,
    /// A member of a topic that is not there.
    Ghost,
    /// A session that is there and no member.
    MissingMember,
    /// A session told as left that never left.
    FalseLeave,
    /// Nothing new within the deadline after everything was healed.
    Deaf,
    /// Accepted by the durable queue, and its target has it not.
    QueueLost,
    /// An entry of the queue that was published twice.
    QueueDoubled,
    /// Entries of one target and priority out of the order in which they were accepted.
    QueueReordered,
    /// Published by the queue, and nobody had handed it over, or it was surely refused.
    QueuePhantom,
    /// A dead letter, where every entry is well.
    QueueDead,
    /// What the queue still has, or says to have, when it has had time.
    QueueLeft,
    /// Something else that must not be.
    Broken,
}

impl Wrong {
    /// All, in the order of the figure.
    pub(crate) const ALL: [Self; 20] = [
        Self::Lost,
        Self::Doubled,
        Self::Reordered,
        Self::Phantom,
        Self::Misdirected,
        Self::BetweenApps,
        Self::SilentGap,
        Self::NeedlessGap,
        Self::Untold,
        Self::Ghost,
        Self::MissingMember,
        Self::FalseLeave,
        Self::Deaf,
        Self::QueueLost,
        Self::QueueDoubled,
        Self::QueueReordered,
        Self::QueuePhantom,
        Self::QueueDead,
        Self::QueueLeft,
        Self::Broken,
    ];

    /// The word in the figure.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::Doubled => "doubled",
            Self::Reordered => "reordered",
            Self::Phantom => "phantom",
            Self::Misdirected => "wrong-recipient",
            Self::BetweenApps => "between-apps",
            Self::SilentGap => "silent-gaps",
            Self::NeedlessGap => "needless-gaps",
            Self::Untold => "untold",
            Self::Ghost => "ghosts",
            Self::MissingMember => "missing-members",
            Self::FalseLeave => "false-leaves",
            Self::Deaf => "deaf",
            Self::QueueLost => "queue-lost",
            Self::QueueDoubled => "queue-doubled",
            Self::QueueReordered => "queue-reordered",
            Self::QueuePhantom => "queue-phantom",
            Self::QueueDead => "queue-dead",
            Self::QueueLeft => "queue-left",
            Self::Broken => "broken",
        }
    }
}

/// What is allowed in a run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Allowed {
    /// Whether Redis may lose what it has, as in a failover: who had that is to be told.
    pub(crate) redis_may_lose: bool,
    /// Whether that may be something that was answered `ok`: not where replicas had to confirm it.
    pub(crate) also_accepted: bool,
    /// Longest time from the heal to something new, for each client and topic.
    pub(crate) deaf_for: Duration,
}

/// What a history is worth.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    /// How often each thing was wrong.
    pub(crate) wrongs: BTreeMap<Wrong, u64>,
    /// The first few of each, in words.
    pub(crate) examples: Vec<String>,
    /// Accepted, one for each target.
    pub(crate) accepted: u64,
    /// Neither surely done nor surely not.
    pub(crate) unknown: u64,
    /// Surely not done.
    pub(crate) failed: u64,
    /// Messages that clients got.
    pub(crate) delivered: u64,
    /// Messages that clients had to get.
    pub(crate) due: u64,
    /// Accepted and lost by Redis, where that is allowed.
    pub(crate) redis_lost: u64,
    /// Gaps and `recovered: false` that were told.
    pub(crate) told_gaps: u64,
    /// What Redis lost before a client had it, and the client was not told: nobody could know.
    pub(crate) never_seen: u64,
    /// Joins from a position, and those of them that recovered everything.
    pub(crate) resumes: u64,
    pub(crate) recovered: u64,
    /// What the durable queue took and moved.
    pub(crate) queue: super::queue_checker::Moves,
}

/// How many of each kind are put into words.
const EXAMPLES_MAX: u64 = 5;

impl Verdict {
    /// Whether nothing was wrong.
    pub(crate) fn is_clean(&self) -> bool {
        self.wrongs.is_empty()
    }

    /// How often this was wrong.
    pub(crate) fn count(&self, wrong: Wrong) -> u64 {
        self.wrongs.get(&wrong).copied().unwrap_or(0)
    }

    fn wrong(&mut self, wrong: Wrong, what: impl FnOnce() -> String) {
        let count = self.wrongs.entry(wrong).or_default();
        *count += 1;
        if *count <= EXAMPLES_MAX {
            self.examples.push(format!("{}: {}", wrong.word(), what()));
        }
    }
}

/// A publication to one topic.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Publication {
    pub(crate) begun: Duration,
    pub(crate) ended: Option<(Duration, Outcome)>,
    pub(crate) lane: Option<u32>,
}

impl Publication {
    /// Where and when it was accepted.
    pub(crate) fn accepted(&self) -> Option<(Duration, Position)> {
        match self.ended {
            Some((at, Outcome::Ok(position))) => Some((at, position)),
            _ => None,
        }
    }
}

/// All publications, by topic.
pub(crate) type Publications = Vec<FxHashMap<Id, Publication>>;

/// Gathers what publishers did.
pub(crate) fn publications(history: &History) -> Publications {
    let mut all: Publications = vec![FxHashMap::default(); history.topics.len()];
    for entry in &history.entries {
        match entry.event {
            Event::Begun { id, topic } => {
                let publication = Publication {
                    begun: entry.at,
                    ended: None,
                    lane: None,
                };
                all[topic as usize].insert(id, publication);
            }
            Event::Ended {
                id,
                topic,
                outcome,
                lane,
            } => {
                if let Some(publication) = all[topic as usize].get_mut(&id) {
                    publication.ended = Some((entry.at, outcome));
                    publication.lane = lane;
                }
            }
            _ => {}
        }
    }
    all
}

/// What one topic holds at the end, and what is gone from it.
#[derive(Debug, Default)]
struct Truth {
    retained: BTreeMap<Position, Id>,
    /// Positions that somebody was told or received, and that are not retained.
    gone: FxHashMap<Position, Id>,
    /// Publications of unknown outcome that are not retained: whether Redis ever had them
    /// nobody knows.
    has_doubt: bool,
}

/// Judges a history.
pub(crate) fn check(history: &History, allowed: Allowed) -> Verdict {
    let mut verdict = Verdict::default();
    let published = publications(history);
    let truths = truths(history, &published, allowed, &mut verdict);
    for (topic, publications) in published.iter().enumerate() {
        let (name, truth) = (&history.topics[topic].name, &truths[topic]);
        orders(name, publications, truth, &mut verdict);
    }
    for ((client, topic), stream) in streams(history) {
        let mut judge = super::stream::Judge {
            client,
            topic: &history.topics[topic as usize],
            topics: &history.topics,
            published: &published,
            publications: &published[topic as usize],
            retained: &truths[topic as usize].retained,
            gone: &truths[topic as usize].gone,
            may_lose: allowed.redis_may_lose,
            has_doubt: truths[topic as usize].has_doubt,
            verdict: &mut verdict,
        };
        judge.judge(&stream);
    }
    for entry in &history.entries {
        remainder(history, &entry.event, &mut verdict);
    }
    super::queue_checker::check(history, allowed, &mut verdict);
    super::recovery::find_deaf(history, &published, allowed.deaf_for, |what| {
        verdict.wrong(Wrong::Deaf, || what);
    });
    verdict
}

/// What a stream consists of, with its place in the history.
pub(crate) type Stream<'a> = Vec<(Duration, &'a Event)>;

/// The events of each client on each topic, in order; there for each client that should have
/// joined, even if nothing ever came.
pub(crate) fn streams(history: &History) -> BTreeMap<(ClientIndex, TopicIndex), Stream<'_>> {
    let mut streams: BTreeMap<_, Stream<'_>> = BTreeMap::new();
    for (topic, about) in (0..).zip(&history.topics) {
        for client in &about.clients {
            streams.insert((*client, topic), Vec::new());
        }
    }
    for entry in &history.entries {
        let (Event::Joined { client, topic, .. }
        | Event::Received { client, topic, .. }
        | Event::Gap { client, topic, .. }) = entry.event
        else {
            continue;
        };
        let stream = streams.entry((client, topic)).or_default();
        stream.push((entry.at, &entry.event));
    }
    streams
}

/// What each topic holds, held against what publishers were told.
fn truths(
    history: &History,
    published: &Publications,
    allowed: Allowed,
    verdict: &mut Verdict,
) -> Vec<Truth> {
    let mut truths: Vec<Option<Truth>> = Vec::new();
    truths.resize_with(history.topics.len(), || None);
    for entry in &history.entries {
        let Event::Retained {
            node,
            topic,
            entries,
        } = &entry.event
        else {
            continue;
        };
        let retained: BTreeMap<_, _> = entries.iter().copied().collect();
        match &truths[*topic as usize] {
            None => {
                truths[*topic as usize] = Some(Truth {
                    retained,
                    ..Truth::default()
                });
            }
            Some(truth) if truth.retained != retained => {
                let name = &history.topics[*topic as usize].name;
                verdict.wrong(Wrong::Reordered, || {
                    format!("{node} tells another history of {name} than the first node")
                });
            }
            Some(_) => {}
        }
    }
    let mut truths: Vec<_> = truths.into_iter().map(Option::unwrap_or_default).collect();
    for (topic, truth) in truths.iter_mut().enumerate() {
        let (topics, name) = (&history.topics, &history.topics[topic].name);
        let index = topic as TopicIndex;
        retained::once(topics, index, &truth.retained, published, verdict);
        accepted_is_retained(name, truth, &published[topic], allowed, verdict);
    }
    let all: Vec<_> = truths.iter().map(|truth| &truth.retained).collect();
    retained::keys(&history.topics, &all, published, verdict);
    for entry in &history.entries {
        if let Event::Received {
            topic,
            id,
            position,
            ..
        } = entry.event
        {
            let truth = &mut truths[topic as usize];
            if !truth.retained.contains_key(&position) {
                truth.gone.insert(position, id);
            }
        }
    }
    truths
}

/// What publishers were told is what the topic holds.
fn accepted_is_retained(
    name: &str,
    truth: &mut Truth,
    publications: &FxHashMap<Id, Publication>,
    allowed: Allowed,
    verdict: &mut Verdict,
) {
    let ids: FxHashSet<Id> = truth.retained.values().copied().collect();
    for (id, publication) in publications {
        let Some((_, position)) = publication.accepted() else {
            match publication.ended {
                Some((_, Outcome::Fail)) => verdict.failed += 1,
                _ => {
                    verdict.unknown += 1;
                    truth.has_doubt |= !ids.contains(id);
                }
            }
            continue;
        };
        verdict.accepted += 1;
        match truth.retained.get(&position) {
            Some(there) if there == id => {}
            Some(there) => verdict.wrong(Wrong::Reordered, || {
                format!("{id:?} was accepted at {position} of {name}, where {there:?} stands")
            }),
            None => {
                truth.gone.insert(position, *id);
                if allowed.redis_may_lose && allowed.also_accepted {
                    verdict.redis_lost += 1;
                } else {
                    verdict.wrong(Wrong::Lost, || {
                        format!("{id:?} was accepted at {position} of {name} and is not there")
                    });
                }
            }
        }
    }
}

/// Positions follow the order of acceptance: what was accepted before something else was begun
/// stands before it, and what one session sent first stands first. What Redis lost has no place in
/// that order: its position was given by a master that was none any more.
fn orders(
    name: &str,
    publications: &FxHashMap<Id, Publication>,
    truth: &Truth,
    verdict: &mut Verdict,
) {
    let accepted = || {
        let all = publications.iter();
        let all = all.filter_map(|(id, p)| p.accepted().map(|(at, to)| (*id, p, at, to)));
        all.filter(|(.., position)| truth.retained.contains_key(position))
    };
    let mut begun: Vec<_> = accepted().map(|(id, p, _, at)| (p.begun, at, id)).collect();
    let mut ended: Vec<_> = accepted().map(|(id, _, at, p)| (at, p, id)).collect();
    begun.sort();
    ended.sort();
    let mut ended = ended.into_iter().peekable();
    let mut highest: Option<(Position, Id)> = None;
    for (begun, position, id) in begun {
        while let Some((_, position, id)) = ended.next_if(|(at, ..)| *at < begun) {
            highest = highest.max(Some((position, id)));
        }
        if let Some((before, other)) = highest.filter(|(before, _)| *before >= position) {
            verdict.wrong(Wrong::Reordered, || {
                format!(
                    "{id:?} at {position} of {name} was begun after {other:?} was accepted at {before}"
                )
            });
        }
    }
    let in_lane = accepted().filter_map(|(id, p, _, at)| p.lane.map(|lane| (lane, id.number, at)));
    let mut in_lane: Vec<_> = in_lane.collect();
    in_lane.sort();
    for pair in in_lane.windows(2) {
        let ((lane, first, before), (other, second, after)) = (pair[0], pair[1]);
        if lane == other && before >= after {
            verdict.wrong(Wrong::Reordered, || {
                format!("connection {lane} published {first} before {second} on {name}")
            });
        }
    }
}

/// What is judged as it stands.
fn remainder(history: &History, event: &Event, verdict: &mut Verdict) {
    match event {
        Event::Members {
            node,
            topic,
            ghosts,
            missing,
        } => {
            let name = &history.topics[*topic as usize].name;
            for ghost in ghosts {
                verdict.wrong(Wrong::Ghost, || format!("{ghost} in {name}, says {node}"));
            }
            for session in missing {
                verdict.wrong(Wrong::MissingMember, || {
                    format!("{session} in {name}, says {node}")
                });
            }
        }
        Event::FalseLeave { session, topic } => verdict.wrong(Wrong::FalseLeave, || {
            format!("{session} was told as left in {topic} and is there")
        }),
        Event::BetweenApps { what } => verdict.wrong(Wrong::BetweenApps, || what.clone()),
        Event::QueueDead { what } => verdict.wrong(Wrong::QueueDead, || what.clone()),
        Event::QueueLeft { what } => verdict.wrong(Wrong::QueueLeft, || what.clone()),
        Event::Broken { what } => verdict.wrong(Wrong::Broken, || what.clone()),
        _ => {}
    }
}

impl Verdict {
    /// Counts what a stream shows, for [`super::stream`].
    pub(crate) fn found(&mut self, wrong: Wrong, what: String) {
        self.wrong(wrong, || what);
    }
}
