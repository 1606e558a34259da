//! One pass over some partitions: their heads are fetched, judged and moved.
//!
//! An entry of an app that is not known stands where it is until what is stored of apps was read after it
//! was fetched: the app may have just been set, and a node that begins has read none.
//!
//! In: partitions that share a call. Out: what was seen of each, and what became of entries, in the
//! counters. Moves go out one after the other. A pass that is dropped leaves nothing half done: what was
//! not moved is still where it was. Bounds: those of a fetch and a move.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::apps::Apps;
use crate::broker::queue::{
    Depths, End, Fetched, FetchedEntry, HeldPartition, Judged, MOVE_MAX, MoveBatch, Moved,
    PartitionState, Verdict,
};
use crate::broker::{Broker, BrokerError};
use crate::config::Config;
use crate::telemetry::fields::causes;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::trace::tracer::Tracer;

use super::faults::Fault;
use super::rota::Seen;
use super::traced::MovingTraces;
use super::{ids, judge};

/// How long a pass waits for a reading of apps, before it leaves the entries of those that it does not know.
const READ_WITHIN: Duration = Duration::from_millis(500);

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
    /// What waits there, also where not all was moved. `None` where it was not seen, and where nothing
    /// waits: a glance asks nothing of dead letters.
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
    state: PartitionState,
    /// What waits there, as far as it was told: by the fetch, or a move since.
    depths: Option<Depths>,
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
        let begun_at = Instant::now();
        let fetched = match self.broker.fetch(&held, from).await {
            Ok(fetched) if fetched.partitions.len() == held.len() => fetched,
            Ok(_) => return failed(&held, &Fault::told("not all partitions were answered")),
            Err(error) => return failed(&held, &fault(&error)),
        };
        let now_ms = fetched.now_ms;
        let mut partitions = partitions(&held, &fetched);
        if let Err(error) = self.move_all(fetched, begun_at, &mut partitions).await {
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
        begun_at: Instant,
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
            let some: Vec<_> = some.filter(|entry| is_held(entry.partition)).collect();
            let judged = self.judge(&some, (now_ms, begun_at), partitions).await;
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

    /// Judges entries. Those of unknown apps are left where they are, as long as what is stored of apps was
    /// not read since they were fetched.
    async fn judge(
        &self,
        entries: &[FetchedEntry],
        (now_ms, begun_at): (u64, Instant),
        partitions: &mut [Partition],
    ) -> Vec<Judged> {
        let judge = |entry| judge::judge(entry, now_ms, self.rules());
        let mut judged: Vec<_> = entries.iter().map(judge).collect();
        if !judged.iter().any(judge::is_of_unknown_app) {
            return judged;
        }
        let read = tokio::time::timeout(READ_WITHIN, self.apps.read_after(begun_at)).await;
        for (entry, judged) in entries.iter().zip(&mut judged) {
            if judge::is_of_unknown_app(judged) {
                *judged = judge(entry);
            }
        }
        if read.is_err() {
            for left in judged.iter().filter(|one| judge::is_of_unknown_app(one)) {
                let partition = partitions
                    .iter_mut()
                    .find(|one| one.held.partition == left.partition);
                if let Some(partition) = partition {
                    partition.fault.get_or_insert_with(|| Fault {
                        reason: "entries of an app that is not known wait until the stored apps \
                                 can be read"
                            .to_owned(),
                        is_outage: true,
                    });
                }
            }
            judged.retain(|one| !judge::is_of_unknown_app(one));
        }
        judged
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
                one.is(state);
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
                    // Of one whose id says nothing it is not known.
                    if ids::is_of_a_clock(fate.since_ms, now_ms) {
                        let waited = now_ms.saturating_sub(fate.since_ms);
                        counters.wait.count(Duration::from_millis(waited));
                    }
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
        matches!(self.state, PartitionState::Held(_))
    }

    /// It stands so now.
    fn is(&mut self, state: PartitionState) {
        match &state {
            PartitionState::Held(depths) => self.depths = Some(*depths),
            // Whoever has it changes it.
            PartitionState::Refused => self.depths = None,
            PartitionState::Failed(_) => {}
        }
        self.state = state;
    }

    fn looked(self, now_ms: u64) -> Looked {
        let seen = match (&self.fault, self.state) {
            (Some(fault), _) => seen_failed(fault),
            (None, PartitionState::Refused) => Seen::Refused,
            (None, PartitionState::Failed(_)) => Seen::Ill,
            (None, PartitionState::Held(depths)) => Seen::Looked {
                has_come: self.fetched_count > 0,
                left: depths.due.iter().sum(),
                next_due: depths
                    .next_due_ms
                    .map(|due_ms| Duration::from_millis(due_ms.saturating_sub(now_ms))),
            },
        };
        Looked {
            held: self.held,
            seen,
            depths: self.depths,
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
        let (depths, fault) = match state {
            PartitionState::Held(depths) => (Some(*depths), None),
            PartitionState::Failed(why) => (None, Some(Fault::told(why))),
            PartitionState::Refused => (None, None),
        };
        Partition {
            held: *held,
            state: state.clone(),
            depths,
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
        seen: seen_failed(fault),
        depths: None,
        fault: Some(fault.clone()),
    });
    Outcome {
        looked: looked.collect(),
        now_ms: None,
    }
}

fn seen_failed(fault: &Fault) -> Seen {
    match fault.is_outage {
        true => Seen::Failed,
        false => Seen::Ill,
    }
}

fn fault(error: &BrokerError) -> Fault {
    Fault {
        reason: causes(error),
        is_outage: matches!(error, BrokerError::Unavailable(_) | BrokerError::Unknown(_)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::Place;
    use crate::broker::memory::MemoryBroker;
    use crate::broker::memory::clock::Clock;
    use crate::broker::publication::Publication;
    use crate::broker::queue::Content;
    use crate::broker::queue::entry::{self, QueuedMessage};
    use crate::config::load::defaults;
    use fanfare_protocol::data::Data;
    use fanfare_protocol::ids::{App, Position, Priority, Topic};

    const HELD: HeldPartition = HeldPartition {
        partition: 7,
        token: 1,
    };

    /// A partition after a fetch that found it so.
    fn fetched(state: PartitionState) -> Partition {
        let fetched = Fetched {
            place: Place::default(),
            now_ms: 10,
            partitions: vec![state],
            entries: Vec::new(),
        };
        let mut all = partitions(&[HELD], &fetched);
        all.pop().expect("one")
    }

    fn depths(critical: u64) -> Depths {
        Depths {
            due: [critical, 0, 0, 0],
            ..Depths::default()
        }
    }

    #[test]
    fn a_partition_that_stands_still_is_told_with_what_waits_there() {
        let mut one = fetched(PartitionState::Held(depths(3)));
        one.is(PartitionState::Failed("WRONGTYPE".to_owned()));
        one.fault = Some(Fault::told("WRONGTYPE"));
        let looked = one.looked(10);
        assert_eq!((looked.seen, looked.depths), (Seen::Ill, Some(depths(3))));
        // Some of it was moved before.
        let mut one = fetched(PartitionState::Held(depths(3)));
        one.is(PartitionState::Held(depths(2)));
        one.is(PartitionState::Failed("WRONGTYPE".to_owned()));
        let looked = one.looked(10);
        assert_eq!((looked.seen, looked.depths), (Seen::Ill, Some(depths(2))));
    }

    #[test]
    fn of_what_was_not_read_and_of_what_another_has_nothing_is_told() {
        let one = fetched(PartitionState::Failed("WRONGTYPE".to_owned()));
        let looked = one.looked(10);
        assert_eq!((looked.seen, looked.depths), (Seen::Ill, None));
        let mut one = fetched(PartitionState::Held(depths(3)));
        one.is(PartitionState::Refused);
        let looked = one.looked(10);
        assert_eq!((looked.seen, looked.depths), (Seen::Refused, None));
    }

    /// An entry of the app `shop`.
    fn of_shop() -> FetchedEntry {
        let topic = Topic::new(&App::new("shop").unwrap(), "orders:7").unwrap();
        let message = QueuedMessage {
            publication: Publication::new(Data::Json("1".into()), 1_000),
            expires_ms: None,
            traceparent: None,
            topic,
        };
        FetchedEntry {
            partition: HELD.partition,
            priority: Priority::Normal,
            id: Position { ms: 1_000, seq: 0 },
            content: Content::Blob(entry::encode(&message).into()),
            starts: 1,
        }
    }

    #[tokio::test]
    async fn an_entry_of_an_unknown_app_waits_until_apps_were_read_after_it_was_fetched() {
        let config = defaults();
        let metrics = Arc::new(Metrics::new(1));
        let (broker, _feed) = MemoryBroker::new(Clock::System, Arc::clone(&metrics));
        let context = Context {
            broker: Arc::new(Broker::Memory(broker)),
            apps: Arc::new(Apps::of(&config)),
            config: Arc::new(config),
            tracer: Arc::new(Tracer::without_exporter(Arc::clone(&metrics.trace))),
            metrics,
        };
        let begun_at = Instant::now();
        let judge = async || {
            let mut partitions = [fetched(PartitionState::Held(depths(0)))];
            let entries = [of_shop()];
            let judged = context.judge(&entries, (2_000, begun_at), &mut partitions);
            let buried = judged.await.iter().any(judge::is_of_unknown_app);
            (
                buried,
                partitions[0].fault.as_ref().map(|fault| fault.is_outage),
            )
        };
        context.apps.are_unread();
        assert_eq!(judge().await, (false, Some(true)));
        let before = begun_at.checked_sub(Duration::from_millis(1)).unwrap();
        context.apps.were_read(before);
        assert_eq!(judge().await, (false, Some(true)), "that began before");
        context.apps.were_read(Instant::now());
        assert_eq!(judge().await, (true, None));
    }
}
