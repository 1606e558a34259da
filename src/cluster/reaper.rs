//! The reaper: what dead nodes left is removed once, by the home of its partition.
//!
//! In: the partitions that this node holds, and the view, which says who is dead. Out: members of
//! dead owners removed and told as leaves, by one script each time; their occupancy and their
//! entries in the index removed. Which partition is looked through when is decided in [`agenda`]:
//! all when somebody died, those that were taken, a sixtieth of the others each second, and again
//! what could not be done. How far a partition is looked through is known to its [`look`]. Order: members, count, index, so that a reaper that dies
//! midway leaves enough for the next to find. The index is read and written under the partition's
//! token; members and counts are compared with the dead owner itself, so that two reapers
//! never remove or tell the same twice. A node that has taken a new incarnation says when all its
//! members are under it; what is under its earlier ones waits for that ([`calls`]), so that
//! who stayed neither leaves nor joins. What a node left that is gone is removed at once. A topic or
//! a partition that cannot be cleaned holds up no other; that there are any is reported, with the reason,
//! and when there are none any more ([`failures`]). Nor does a master that hangs: indexes are read by
//! each master's own number, and what is found in them waits by its master ([`lanes`]).
//! Bounds: parts of some hundred entries, [`INDEXES_IN_FLIGHT_MAX`] indexes of each master at once,
//! the lanes, and one call to an index that takes out what was removed a partition.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::error::Error;
use std::sync::Arc;

use tokio::sync::watch;
use tracing::{debug, info};

use super::due::Lane;
use super::duties::{self, Duty, Work};
use super::occupancy_store::OccupancyError;
use super::partition_leases::Held;
use super::partition_store::PartitionError;
use super::view::View;
use crate::broker::{Broker, BrokerError};
use crate::redis::Keys;
use crate::redis::keyspace::{Keyspace, ServerId};
use crate::telemetry::metrics::Metrics;
use agenda::{Agenda, Lives, Outcome};
use calls::{Calls, Part};
use failures::{Failure, Failures, Step};
use lanes::{Lanes, Remains};
use look::{Look, Place};

mod agenda;
mod calls;
mod failures;
mod lanes;
mod look;

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
    Read(u32, Option<ServerId>, Place, Result<Part, ReapError>),
    /// How many members were removed.
    Cleaned(Lane, Remains, Result<u64, ReapError>),
    /// These entries were taken out of the index.
    Unindexed(u32, Vec<String>, Result<(), ReapError>),
}

/// The task. What it does is seen in Redis and in the counters.
pub struct ReaperTask {
    calls: Arc<Calls>,
    held: watch::Receiver<Held>,
    view: watch::Receiver<Arc<View>>,
    metrics: Arc<Metrics>,
    agenda: Agenda,
    lanes: Lanes,
    looks: BTreeMap<u32, Look>,
    /// Where to read on as soon as the server has room.
    ready: VecDeque<(u32, Place)>,
    /// Of each server the readings of indexes are counted.
    work: Work<Answer>,
    failures: Failures,
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
            failures: Failures::new(Arc::clone(&metrics)),
            metrics,
            agenda: Agenda::default(),
            lanes: Lanes::default(),
            looks: BTreeMap::new(),
            ready: VecDeque::new(),
            work: Work::new(INDEXES_IN_FLIGHT_MAX),
            topics: 0,
            members: 0,
        }
    }

    /// How many partitions cannot be read or cleaned, and why; `None`: none fails.
    #[must_use]
    pub fn failing(&self) -> watch::Receiver<Option<String>> {
        self.failures.shown()
    }

    /// Reaps until nobody holds partitions any more, or the membership has ended.
    pub async fn run(self) {
        let (held, view) = (self.held.clone(), self.view.clone());
        duties::run(self, held, view).await;
    }
}

impl Duty<Answer> for ReaperTask {
    fn work(&mut self) -> &mut Work<Answer> {
        &mut self.work
    }

    fn note(&mut self, held: BTreeSet<u32>, view: &View) {
        if self.failures.are_any() {
            // What is not held and has no other home is not cleaned by anybody.
            let mine = view.ring.partitions_of(&view.me.node).collect();
            self.failures.retain(&mine);
        }
        let lives = Lives {
            live: view.nodes.iter().map(|node| node.owner.clone()).collect(),
            unsettled: self.calls.note_young(view),
            bare: view.bare.iter().cloned().collect(),
        };
        self.agenda.note(held, lives);
    }

    fn tick(&mut self) {
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

    /// Reads and cleans, as much as each master has room for.
    fn begin(&mut self) {
        while let Some((partition, place)) = self.next_reading() {
            let server = self.calls.index_server(partition);
            self.work.enter(server);
            self.read(partition, server, place);
        }
        while let Some((lane, remains)) = self.lanes.take() {
            let calls = Arc::clone(&self.calls);
            self.work.push(async move {
                let members = calls.clean(&remains).await;
                Answer::Cleaned(lane, remains, members)
            });
        }
    }

    fn take(&mut self, answer: Answer) {
        let partition = match answer {
            Answer::Read(partition, server, place, part) => {
                self.was_read(partition, server, place, part);
                partition
            }
            Answer::Cleaned(lane, remains, members) => {
                let named = self.lanes.ended(&lane);
                self.go_on(lane, named);
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
}

impl ReaperTask {
    /// Where to read: first what was begun.
    fn next_reading(&mut self) -> Option<(u32, Place)> {
        let (calls, work) = (&self.calls, &self.work);
        let may_begin = |partition| work.has_room(calls.index_server(partition));
        let mut ready = self.ready.iter();
        if let Some(at) = ready.position(|(partition, _)| may_begin(*partition)) {
            return self.ready.remove(at);
        }
        let partition = self.agenda.take(may_begin)?;
        self.looks.entry(partition).or_default().begin();
        Some((partition, Place::start()))
    }

    fn read(&mut self, partition: u32, server: Option<ServerId>, place: Place) {
        let calls = Arc::clone(&self.calls);
        self.work.push(async move {
            let part = calls.read(partition, &place.cursor).await;
            Answer::Read(partition, server, place, part)
        });
    }

    /// A lane has room for what it turned away of these.
    fn go_on(&mut self, lane: Lane, mut named: BTreeSet<u32>) {
        while let Some(partition) = named.pop_first() {
            let look = self.looks.get_mut(&partition);
            match look.and_then(|look| look.go_on(&lane)) {
                Some(place) => self.ready.push_back((partition, place)),
                // It was found by another reading.
                None => named.extend(self.lanes.came(&lane, partition)),
            }
        }
    }

    /// Brings what was found to its lanes, and reads on, or does so later.
    fn was_read(
        &mut self,
        partition: u32,
        server: Option<ServerId>,
        place: Place,
        part: Result<Part, ReapError>,
    ) {
        let next = match part {
            Ok(part) => self.found(partition, &place, part, server),
            Err(error) => {
                self.unread(partition, &error);
                Next::End
            }
        };
        let named_by = place.named_by;
        let is_whole = place.of.is_none();
        if let Next::Part(cursor) = next {
            self.read(partition, server, place.next(cursor));
        } else {
            self.work.leave(server);
            if let Some(look) = self.looks.get_mut(&partition) {
                look.ended();
            }
            if is_whole && matches!(next, Next::End) {
                self.agenda.read(partition);
            }
        }
        if let Some(lane) = named_by {
            let named = self.lanes.came(&lane, partition);
            self.go_on(lane, named);
        }
    }

    fn found(&mut self, partition: u32, place: &Place, part: Part, own: Lane) -> Next {
        let Some(look) = self.looks.get_mut(&partition) else {
            return Next::End;
        };
        look.waits_for.extend(part.waits_for);
        for remains in part.remains {
            // It may have been found before and be on its way.
            if look.found.contains(&remains.entry) {
                continue;
            }
            let entry = remains.entry.clone();
            let lane = self.calls.lane_of(&remains.topic);
            if self.lanes.push(lane, remains) {
                look.found.insert(entry);
            } else if look.turned_away(lane, place, own) {
                return Next::Later;
            }
        }
        part.next.map_or(Next::End, Next::Part)
    }

    /// A part of an index could not be read.
    fn unread(&mut self, partition: u32, error: &ReapError) {
        if matches!(error, ReapError::Partition(PartitionError::Refused)) {
            // What is left there is its new home's to remove.
            return self.lost(partition);
        }
        self.fail(&Failure {
            step: Step::Read,
            partition,
            remains: None,
            server: self.calls.index_server_name(partition),
            error,
        });
    }

    fn was_cleaned(&mut self, remains: Remains, members: Result<u64, ReapError>) {
        let partition = remains.partition;
        match members {
            Ok(members) => {
                self.metrics.control.reaped_members.add(members);
                self.members += members;
                if let Some(look) = self.looks.get_mut(&partition) {
                    look.removed.push(remains.entry);
                }
            }
            // It stays in the index; the others need not wait.
            Err(error) => {
                if let Some(look) = self.looks.get_mut(&partition) {
                    look.found.remove(&remains.entry);
                }
                self.fail(&Failure {
                    step: Step::Clean,
                    partition,
                    server: self.calls.members_server_name(&remains.topic),
                    remains: Some(&remains),
                    error: &error,
                });
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
        self.work.push(async move {
            let answer = calls.unindex(partition, &entries).await;
            Answer::Unindexed(partition, entries, answer)
        });
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
            Err(ReapError::Partition(PartitionError::Refused)) => self.lost(partition),
            Err(error) => self.fail(&Failure {
                step: Step::Unindex,
                partition,
                remains: None,
                server: self.calls.index_server_name(partition),
                error: &error,
            }),
        }
    }

    /// This node is not to act for a partition.
    fn lost(&mut self, partition: u32) {
        if let Some(look) = self.looks.get_mut(&partition) {
            look.is_lost = true;
        }
    }

    /// Something is left in a partition.
    fn fail(&mut self, failure: &Failure<'_>) {
        let Failure { partition, .. } = *failure;
        let look = self.looks.entry(partition).or_default();
        if !std::mem::replace(&mut look.has_failed, true) {
            debug!(
                event = "partition_not_reaped",
                partition,
                error = failure.error as &(dyn Error + 'static),
                "something is left, it is tried again"
            );
        }
        self.failures.failed(failure);
    }

    /// Ends a look where nothing of it is on its way.
    fn end(&mut self, partition: u32) {
        if !self.looks.get(&partition).is_some_and(Look::is_over) {
            return;
        }
        if let Some(look) = self.looks.remove(&partition) {
            let outcome = look.outcome();
            if matches!(outcome, Outcome::Done | Outcome::Waits(_)) {
                self.failures.succeeded(partition);
            }
            self.agenda.looked(partition, outcome);
        }
    }
}

/// Where a reading goes on.
enum Next {
    Part(String),
    /// When a lane has room.
    Later,
    End,
}
