//! One pass over some partitions: their heads are fetched, judged and moved.
//!
//! In: partitions that share a call. Out: what was seen of each, and what became of entries, in the
//! counters. Moves go out one after the other. A pass that is dropped leaves nothing half done: what was
//! not moved is still where it was. Bounds: those of a fetch and a move.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use crate::apps::Apps;
use crate::broker::queue::{
    Depths, End, Fetched, HeldPartition, Judged, MOVE_MAX, MoveBatch, Moved, PartitionState,
    Verdict,
};
use crate::broker::{Broker, BrokerError};
use crate::config::Config;
use crate::telemetry::fields::causes;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::trace::tracer::Tracer;

use super::faults::Fault;
use super::judge;
use super::rota::Seen;
use super::traced::MovingTraces;

/// What a pass needs to know.
#[derive(Debug)]
pub(super) struct Context {
    pub(super) broker: Arc<Broker>,
    pub(super) config: Arc<Config>,
    pub(super) apps: Arc<Apps>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) tracer: Arc<Tracer>,
}

/// What is known of a partition after a pass.
#[derive(Debug, Clone)]
pub(super) struct Looked {
    pub(super) held: HeldPartition,
    pub(super) seen: Seen,
    /// What waits there. `None` where it was not seen, and where nothing waits: a glance asks nothing
    /// of dead letters.
    pub(super) depths: Option<Depths>,
    /// What kept it from being read or moved, for people.
    pub(super) fault: Option<Fault>,
}

/// What a pass has brought.
#[derive(Debug)]
pub(super) struct Outcome {
    /// One for each partition.
    pub(super) looked: Vec<Looked>,
    /// Redis' clock when it was fetched, unix milliseconds.
    pub(super) now_ms: Option<u64>,
}

/// One partition while its pass runs.
struct Partition {
    held: HeldPartition,
    state: Option<PartitionState>,
    /// So many of its entries were fetched.
    fetched_count: u64,
    fault: Option<Fault>,
}

impl Context {
    /// Runs a pass; at a glance, where nothing is expected. Never fails: what did not work is seen in
    /// the outcome.
    pub(super) async fn run(
        &self,
        held: Vec<HeldPartition>,
        from: u64,
        is_glance: bool,
    ) -> Outcome {
        match is_glance {
            true => self.glance(held).await,
            false => self.fetch_and_move(held, from).await,
        }
    }

    /// Looks where anything is, and fetches nothing.
    async fn glance(&self, held: Vec<HeldPartition>) -> Outcome {
        let seen = self.broker.glance(&held).await;
        let looked = held.into_iter().enumerate().map(|(at, held)| Looked {
            held,
            seen: match &seen {
                None => Seen::Unsaid,
                Some(is_something) if is_something.get(at) == Some(&false) => BARE,
                Some(_) => Seen::Something,
            },
            depths: None,
            fault: None,
        });
        Outcome {
            looked: looked.collect(),
            now_ms: None,
        }
    }

    async fn fetch_and_move(&self, held: Vec<HeldPartition>, from: u64) -> Outcome {
        let fetched = match self.broker.fetch(&held, from).await {
            Ok(fetched) if fetched.partitions.len() == held.len() => fetched,
            Ok(_) => return failed(&held, &Fault::told("not all partitions were answered")),
            Err(error) => return failed(&held, &fault(&error)),
        };
        let now_ms = fetched.now_ms;
        let mut partitions = partitions(&held, &fetched);
        if let Err(error) = self.move_all(fetched, &mut partitions).await {
            for partition in partitions.iter_mut().filter(|one| one.fetched_count > 0) {
                partition.fault.get_or_insert_with(|| fault(&error));
            }
        }
        let looked = partitions.into_iter().map(|one| one.looked(now_ms));
        Outcome {
            looked: looked.collect(),
            now_ms: Some(now_ms),
        }
    }

    async fn move_all(
        &self,
        fetched: Fetched,
        partitions: &mut [Partition],
    ) -> Result<(), BrokerError> {
        let Fetched {
            place,
            now_ms,
            entries,
            ..
        } = fetched;
        let mut entries = entries.into_iter().peekable();
        while entries.peek().is_some() {
            let some = entries.by_ref().take(MOVE_MAX);
            let is_held = |partition: u32| {
                let found = partitions
                    .iter()
                    .find(|one| one.held.partition == partition);
                found.is_some_and(Partition::is_well)
            };
            let judged: Vec<_> = some
                .filter(|entry| is_held(entry.partition))
                .map(|entry| judge::judge(entry, now_ms, self.rules()))
                .collect();
            let numbers: BTreeSet<_> = judged.iter().map(|entry| entry.partition).collect();
            let held = partitions.iter().map(|one| one.held);
            let batch = MoveBatch {
                place,
                held: held
                    .filter(|held| numbers.contains(&held.partition))
                    .collect(),
                entries: judged,
            };
            self.move_some(batch, now_ms, partitions).await?;
        }
        Ok(())
    }

    fn rules(&self) -> judge::Rules<'_> {
        judge::Rules {
            config: &self.config,
            apps: &self.apps,
        }
    }

    async fn move_some(
        &self,
        mut batch: MoveBatch,
        now_ms: u64,
        partitions: &mut [Partition],
    ) -> Result<(), BrokerError> {
        if batch.entries.is_empty() {
            return Ok(());
        }
        let fates: Vec<_> = batch.entries.iter().map(Fate::of).collect();
        let held = batch.held.clone();
        let traces = MovingTraces::begin(&self.tracer, &self.apps, &mut batch, now_ms);
        let moved = self.broker.move_entries(batch).await;
        traces.end(moved.as_ref().ok().map(|moved| &moved.ends[..]));
        let moved = moved?;
        self.count(&fates, &moved, now_ms);
        for (held, state) in held.iter().zip(moved.partitions) {
            if let Some(one) = partitions.iter_mut().find(|one| one.held == *held) {
                if let PartitionState::Failed(why) = &state {
                    one.fault.get_or_insert_with(|| Fault::told(why));
                }
                one.state = Some(state);
            }
        }
        if moved
            .ends
            .iter()
            .any(|end| matches!(end, End::Published(_)))
        {
            self.broker.relieved().await;
        }
        Ok(())
    }

    fn count(&self, fates: &[Fate], moved: &Moved, now_ms: u64) {
        let counters = &self.metrics.queue;
        counters.dead_dropped.add(moved.dead_dropped);
        for (fate, end) in fates.iter().zip(&moved.ends) {
            match end {
                End::Published(_) => {
                    counters.published.add(1);
                    let waited = Duration::from_millis(now_ms.saturating_sub(fate.since_ms));
                    counters.wait.count(waited);
                }
                End::Buried => counters.count_dead(fate.why.unwrap_or("failed")),
                End::Failed => counters.count_dead("failed"),
                End::Gone => counters.gone.add(1),
                End::Refused => {}
            }
        }
    }
}

/// What is to be counted of an entry when it has been moved.
struct Fate {
    /// When it was accepted, or became due.
    since_ms: u64,
    why: Option<&'static str>,
}

impl Fate {
    fn of(judged: &Judged) -> Self {
        Self {
            since_ms: judged.id.ms,
            why: match &judged.verdict {
                Verdict::Publish { .. } => None,
                Verdict::Bury { why, .. } => Some(why.as_str()),
            },
        }
    }
}

impl Partition {
    /// Whether more of it may be moved: behind one that was not, none is.
    fn is_well(&self) -> bool {
        matches!(self.state, Some(PartitionState::Held(_)))
    }

    fn looked(self, now_ms: u64) -> Looked {
        let depths = match &self.state {
            Some(PartitionState::Held(depths)) => Some(*depths),
            _ => None,
        };
        let seen = match (&self.state, depths) {
            _ if self.fault.is_some() => Seen::Failed,
            (Some(PartitionState::Refused), _) => Seen::Refused,
            (_, Some(depths)) => Seen::Looked {
                has_come: self.fetched_count > 0,
                left: depths.due.iter().sum(),
                next_due: depths
                    .next_due_ms
                    .map(|due_ms| Duration::from_millis(due_ms.saturating_sub(now_ms))),
            },
            _ => Seen::Failed,
        };
        Looked {
            held: self.held,
            seen,
            depths,
            fault: self.fault,
        }
    }
}

fn partitions(held: &[HeldPartition], fetched: &Fetched) -> Vec<Partition> {
    let states = held.iter().zip(&fetched.partitions);
    let partitions = states.map(|(held, state)| {
        let of_it = |entry: &&_| {
            let entry: &crate::broker::queue::FetchedEntry = entry;
            entry.partition == held.partition
        };
        let fault = match state {
            PartitionState::Failed(why) => Some(Fault::told(why)),
            PartitionState::Held(_) | PartitionState::Refused => None,
        };
        Partition {
            held: *held,
            state: Some(state.clone()),
            fetched_count: fetched.entries.iter().filter(of_it).count() as u64,
            fault,
        }
    });
    partitions.collect()
}

/// Nothing waits there.
const BARE: Seen = Seen::Looked {
    has_come: false,
    left: 0,
    next_due: None,
};

/// Nothing is known of any of them.
fn failed(held: &[HeldPartition], fault: &Fault) -> Outcome {
    let looked = held.iter().map(|held| Looked {
        held: *held,
        seen: Seen::Failed,
        depths: None,
        fault: Some(fault.clone()),
    });
    Outcome {
        looked: looked.collect(),
        now_ms: None,
    }
}

fn fault(error: &BrokerError) -> Fault {
    Fault {
        reason: causes(error),
        is_outage: matches!(error, BrokerError::Unavailable(_) | BrokerError::Unknown(_)),
    }
}
