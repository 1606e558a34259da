//! The reaper: what dead nodes left is removed once, by the home of its partition.
//!
//! In: the partitions that this node holds, and the view, which says who is dead. Out: members of
//! dead owners removed and told as leaves, by one script each time; their occupancy and their
//! entries in the index removed. Which partition is looked through when is decided in [`agenda`]:
//! all when somebody died, those that were taken, a sixtieth of the others each second, and again
//! what could not be done. Order: members, count, index, so that a reaper that dies
//! midway leaves enough for the next to find. The index is read and written under the partition's
//! token; what lies in other slots is compared with the dead owner itself, so that two reapers
//! never remove or tell the same twice. A node that has taken a new incarnation says when all its
//! members stand under it; what stands under its earlier ones waits for that ([`calls`]), so that
//! who stayed neither leaves nor joins. What a node left that is gone is removed at once. A topic or
//! a partition that cannot be cleaned holds up no other; that there are any is told once, and when
//! there are none any more. Nor does a master that hangs: indexes are read by each master's own
//! number, and what is found in them waits by the masters that must take part ([`lanes`]).
//! Bounds: parts of some hundred entries, [`INDEXES_IN_FLIGHT_MAX`] indexes of each master at once,
//! the lanes, and one call to an index that takes out what was removed a partition.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{debug, info, warn};

use super::due::Lane;
use super::occupancy_store::OccupancyError;
use super::partition_store::PartitionError;
use super::tenure::Held;
use super::view::View;
use crate::broker::{Broker, BrokerError};
use crate::redis::Keys;
use crate::redis::keyspace::{Keyspace, ServerId};
use crate::telemetry::metrics::Metrics;
use agenda::{Agenda, Outcome};
use calls::{Calls, Part};
use lanes::{Lanes, Remains};

mod agenda;
mod calls;
mod lanes;

/// How often the sweep goes on, and what could not be done has its turn again.
const TICK: Duration = Duration::from_secs(1);
/// Indexes on one master that are read at the same time.
const INDEXES_IN_FLIGHT_MAX: usize = 8;
/// Entries that one call takes out of an index.
const UNINDEXED_MAX: usize = 250;

/// Why something is left.
#[derive(Debug, thiserror::Error)]
enum ReapError {
    #[error(transparent)]
    Partition(#[from] PartitionError),
    #[error(transparent)]
    Members(#[from] BrokerError),
    #[error(transparent)]
    Occupancy(#[from] OccupancyError),
}

/// What the reaper needs to know.
#[derive(Debug)]
pub struct Settings {
    /// Where members are.
    pub broker: Arc<Broker>,
    /// Where occupancy, indexes and leases are.
    pub keyspace: Keyspace,
    /// Under which names.
    pub keys: Keys,
    /// For which partitions this node may act.
    pub held: watch::Receiver<Held>,
    /// Who lives.
    pub view: watch::Receiver<Arc<View>>,
    /// Where the removed is counted.
    pub metrics: Arc<Metrics>,
}

/// The answer to a call.
#[derive(Debug)]
enum Answer {
    /// A part of a partition's index, which lies on this server.
    Read(u32, Option<ServerId>, Result<Part, ReapError>),
    /// How many members were removed.
    Cleaned(Lane, Remains, Result<u64, ReapError>),
    /// These entries were taken out of the index.
    Unindexed(u32, Vec<String>, Result<(), ReapError>),
}

/// A partition that is looked through, until what was found in it is removed.
#[derive(Debug, Default)]
struct Look {
    is_reading: bool,
    /// What was found, until it is out of the index or could not be removed.
    found: BTreeSet<String>,
    /// What of it is removed and still stands in the index.
    removed: Vec<String>,
    is_unindexing: bool,
    /// Something was left, for a node to write it again first, or for want of room.
    waits: bool,
    /// Something else was left.
    has_failed: bool,
}

impl Look {
    fn is_over(&self) -> bool {
        !self.is_reading && self.found.is_empty()
    }

    fn outcome(&self) -> Outcome {
        match (self.has_failed, self.waits) {
            (true, _) => Outcome::Failed,
            (false, true) => Outcome::Waits,
            (false, false) => Outcome::Done,
        }
    }
}

/// The task. It has no handle: what it does is seen in Redis and in the counters.
pub struct ReaperTask {
    calls: Arc<Calls>,
    held: watch::Receiver<Held>,
    view: watch::Receiver<Arc<View>>,
    metrics: Arc<Metrics>,
    agenda: Agenda,
    lanes: Lanes,
    looks: BTreeMap<u32, Look>,
    /// How many indexes on each server are being read.
    reading: BTreeMap<Option<ServerId>, usize>,
    answers: FuturesUnordered<BoxFuture<'static, Answer>>,
    /// Held partitions in which the last look could not remove all.
    failing: BTreeSet<u32>,
    /// Removed since it was logged last.
    topics: u64,
    members: u64,
}

impl std::fmt::Debug for ReaperTask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReaperTask").finish_non_exhaustive()
    }
}

impl ReaperTask {
    /// The reaper of a node's partitions. The caller runs it.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        let (held, view) = (settings.held.clone(), settings.view.clone());
        let metrics = Arc::clone(&settings.metrics);
        Self {
            calls: Arc::new(Calls::new(settings)),
            held,
            view,
            metrics,
            agenda: Agenda::default(),
            lanes: Lanes::default(),
            looks: BTreeMap::new(),
            reading: BTreeMap::new(),
            answers: FuturesUnordered::new(),
            failing: BTreeSet::new(),
            topics: 0,
            members: 0,
        }
    }

    /// Reaps until nobody holds partitions any more.
    pub async fn run(mut self) {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            // All three waits are cancel-safe.
            tokio::select! {
                changed = self.held.changed() => match changed {
                    Ok(()) => self.note(),
                    Err(_) => break,
                },
                _ = ticks.tick() => self.tick(),
                Some(answer) = self.answers.next(), if !self.answers.is_empty() => self.take(answer),
            }
            self.begin();
        }
    }

    /// Takes what is held and who lives now.
    fn note(&mut self) {
        let held = self.held.borrow_and_update().partitions();
        let view = Arc::clone(&self.view.borrow());
        self.calls.note_young(&view);
        let live = view.nodes.iter().map(|node| node.owner.clone()).collect();
        let mut failing = self.failing.clone();
        failing.retain(|partition| held.contains(partition));
        self.tell_failing(failing, None);
        self.agenda.note(held, live);
    }

    fn tick(&mut self) {
        self.note();
        self.agenda.tick();
        let (topics_count, members_count) = (
            std::mem::take(&mut self.topics),
            std::mem::take(&mut self.members),
        );
        if topics_count > 0 {
            info!(
                event = "remains_reaped",
                topics_count, members_count, "removed what dead nodes had left"
            );
        }
    }

    /// Begins to read and to clean, as much as each master has room for.
    fn begin(&mut self) {
        let has_room = |count: &usize| *count < INDEXES_IN_FLIGHT_MAX;
        loop {
            let (calls, reading) = (&self.calls, &self.reading);
            let may_begin = |partition| {
                let count = reading.get(&calls.index_server(partition));
                count.is_none_or(has_room)
            };
            let Some(partition) = self.agenda.take(may_begin) else {
                break;
            };
            let server = self.calls.index_server(partition);
            *self.reading.entry(server).or_default() += 1;
            self.looks.entry(partition).or_default().is_reading = true;
            self.read(partition, server, None);
        }
        while let Some((lane, remains)) = self.lanes.take() {
            let calls = Arc::clone(&self.calls);
            let cleaning = async move {
                let members = calls.clean(&remains).await;
                Answer::Cleaned(lane, remains, members)
            };
            self.answers.push(cleaning.boxed());
        }
    }

    fn read(&self, partition: u32, server: Option<ServerId>, cursor: Option<String>) {
        let calls = Arc::clone(&self.calls);
        let reading = async move {
            let part = calls.read(partition, cursor).await;
            Answer::Read(partition, server, part)
        };
        self.answers.push(reading.boxed());
    }

    fn take(&mut self, answer: Answer) {
        let partition = match answer {
            Answer::Read(partition, server, part) => {
                let next = self.was_read(partition, part);
                match next {
                    Some(cursor) => self.read(partition, server, Some(cursor)),
                    None => self.read_all(partition, server),
                }
                partition
            }
            Answer::Cleaned(lane, remains, members) => {
                for partition in self.lanes.ended(&lane) {
                    // What fails has its turn when it has rested.
                    let look = self.looks.get(&partition);
                    if look.is_none_or(|look| !look.has_failed) {
                        self.agenda.again(partition);
                    }
                }
                let partition = remains.partition;
                self.was_cleaned(remains, members);
                partition
            }
            Answer::Unindexed(partition, entries, answer) => {
                self.was_unindexed(partition, &entries, answer);
                partition
            }
        };
        self.unindex(partition);
        self.end(partition);
    }

    /// Brings what was found to its lanes; returns where to go on reading.
    fn was_read(&mut self, partition: u32, part: Result<Part, ReapError>) -> Option<String> {
        let part = match part {
            Ok(part) => part,
            // Refused: what is left there is its new home's to remove.
            Err(ReapError::Partition(PartitionError::Refused)) => return None,
            Err(error) => {
                self.fail(partition, &error);
                return None;
            }
        };
        let look = self.looks.get_mut(&partition)?;
        look.waits |= part.waits;
        for remains in part.remains {
            // It may have been found before and be on its way.
            if look.found.contains(&remains.entry) {
                continue;
            }
            let entry = remains.entry.clone();
            let lane = self.calls.lane_of(&remains.topic);
            match self.lanes.push(lane, remains) {
                true => {
                    look.found.insert(entry);
                }
                false => look.waits = true,
            }
        }
        part.next
    }

    /// An index was read to its end, or cannot be.
    fn read_all(&mut self, partition: u32, server: Option<ServerId>) {
        if let Some(count) = self.reading.get_mut(&server) {
            *count -= 1;
            if *count == 0 {
                self.reading.remove(&server);
            }
        }
        if let Some(look) = self.looks.get_mut(&partition) {
            look.is_reading = false;
        }
        self.agenda.read(partition);
    }

    fn was_cleaned(&mut self, remains: Remains, members: Result<u64, ReapError>) {
        let Remains {
            partition, entry, ..
        } = remains;
        match members {
            Ok(members) => {
                self.metrics.control.reaped_members.add(members);
                self.members += members;
                if let Some(look) = self.looks.get_mut(&partition) {
                    look.removed.push(entry);
                }
            }
            // It stays in the index; the others need not wait.
            Err(error) => {
                if let Some(look) = self.looks.get_mut(&partition) {
                    look.found.remove(&entry);
                }
                self.fail(partition, &error);
            }
        }
    }

    /// Takes out of the index what is removed, while no other call does.
    fn unindex(&mut self, partition: u32) {
        let Some(look) = self.looks.get_mut(&partition) else {
            return;
        };
        if look.is_unindexing || look.removed.is_empty() {
            return;
        }
        look.is_unindexing = true;
        let count = look.removed.len().min(UNINDEXED_MAX);
        let entries: Vec<_> = look.removed.drain(..count).collect();
        let calls = Arc::clone(&self.calls);
        let unindexing = async move {
            let answer = calls.unindex(partition, &entries).await;
            Answer::Unindexed(partition, entries, answer)
        };
        self.answers.push(unindexing.boxed());
    }

    fn was_unindexed(&mut self, partition: u32, entries: &[String], answer: Result<(), ReapError>) {
        if let Some(look) = self.looks.get_mut(&partition) {
            look.is_unindexing = false;
            for entry in entries {
                look.found.remove(entry);
            }
        }
        match answer {
            Ok(()) => {
                let count = entries.len() as u64;
                self.metrics.control.reaped_topics.add(count);
                self.topics += count;
            }
            // Its new home finds an entry of which nothing is left.
            Err(ReapError::Partition(PartitionError::Refused)) => {}
            Err(error) => self.fail(partition, &error),
        }
    }

    /// Something is left in a partition.
    fn fail(&mut self, partition: u32, error: &ReapError) {
        let look = self.looks.entry(partition).or_default();
        if !std::mem::replace(&mut look.has_failed, true) {
            debug!(
                event = "partition_not_reaped",
                partition,
                error = error as &(dyn Error + 'static),
                "something is left, it is tried again"
            );
            let mut failing = self.failing.clone();
            failing.insert(partition);
            self.tell_failing(failing, Some(error));
        }
    }

    /// Ends a look where nothing of it is on its way.
    fn end(&mut self, partition: u32) {
        let Some(look) = self.looks.get(&partition).filter(|look| look.is_over()) else {
            return;
        };
        let outcome = look.outcome();
        self.looks.remove(&partition);
        if outcome != Outcome::Failed && self.failing.contains(&partition) {
            let mut failing = self.failing.clone();
            failing.remove(&partition);
            self.tell_failing(failing, None);
        }
        self.agenda.looked(partition, outcome);
    }

    /// Counts the partitions that cannot be cleaned, and logs that there are any, or none any more.
    fn tell_failing(&mut self, failing: BTreeSet<u32>, error: Option<&ReapError>) {
        let failing_count = failing.len() as u64;
        let before = std::mem::replace(&mut self.failing, failing);
        self.metrics.control.reaping_failing.set(failing_count);
        if let (true, Some(error)) = (before.is_empty(), error) {
            warn!(
                event = "reaping_failed",
                error = error as &(dyn Error + 'static),
                "what a dead node left cannot be removed, watchers see its members; it is tried again"
            );
        }
        if failing_count == 0 && !before.is_empty() {
            info!(
                event = "reaping_recovered",
                "no partition held here fails to be cleaned any more"
            );
        }
    }
}
