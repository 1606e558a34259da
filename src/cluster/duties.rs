//! The runner of what a home has to do for its partitions.
//!
//! In: the partitions that this node holds, the view, and a tick a second. Out: work for single
//! partitions, begun by the [`Duty`] as far as there is room, and what came of it. Owner: the task
//! that runs it. Bound: so many pieces of work that are counted for one server at once
//! ([`Work::has_room`]); a duty that also begins other work bounds that itself.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use super::partition_leases::Held;
use super::view::View;
use crate::redis::keyspace::ServerId;

/// How often a duty is told that time passes.
const TICK: Duration = Duration::from_secs(1);

/// Something that the home of a partition does for it. `T` is what comes of a piece of work.
pub(super) trait Duty<T> {
    /// The work that was begun.
    fn work(&mut self) -> &mut Work<T>;

    /// Takes what is held and who lives now.
    fn note(&mut self, held: BTreeSet<u32>, view: &View);

    /// A second has passed.
    fn tick(&mut self);

    /// Begins as much as there is room for.
    fn begin(&mut self);

    /// Takes what came of a piece of work.
    fn take(&mut self, outcome: T);
}

/// Does a duty until nobody holds partitions any more, or the membership has ended.
pub(super) async fn run<T: Send + 'static>(
    mut duty: impl Duty<T>,
    mut held: watch::Receiver<Held>,
    mut view: watch::Receiver<Arc<View>>,
) {
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let mut is_tick = false;
        // All four waits are cancel-safe.
        tokio::select! {
            changed = held.changed() => if changed.is_err() { return },
            // Each view says how others ended since the one before.
            changed = view.changed() => if changed.is_err() { return },
            _ = ticks.tick() => is_tick = true,
            outcome = duty.work().next() => {
                duty.take(outcome);
                duty.begin();
                continue;
            }
        }
        let partitions = held.borrow_and_update().partitions();
        let now = Arc::clone(&view.borrow_and_update());
        duty.note(partitions, &now);
        if is_tick {
            duty.tick();
        }
        duty.begin();
    }
}

/// Work that was begun, and how much of it each server has.
pub(super) struct Work<T> {
    begun: FuturesUnordered<BoxFuture<'static, T>>,
    /// Of that which is counted.
    counts: BTreeMap<Option<ServerId>, usize>,
    of_server_max: usize,
}

impl<T: Send + 'static> Work<T> {
    /// Nothing yet; each server may have so many counted pieces at once.
    pub(super) fn new(of_server_max: usize) -> Self {
        Self {
            begun: FuturesUnordered::new(),
            counts: BTreeMap::new(),
            of_server_max,
        }
    }

    /// Whether a server may have one more counted piece.
    pub(super) fn has_room(&self, server: Option<ServerId>) -> bool {
        let count = self.counts.get(&server);
        count.is_none_or(|count| *count < self.of_server_max)
    }

    /// Counts a piece of a server, from here until [`Self::leave`].
    pub(super) fn enter(&mut self, server: Option<ServerId>) {
        *self.counts.entry(server).or_default() += 1;
    }

    /// A counted piece of a server is done.
    pub(super) fn leave(&mut self, server: Option<ServerId>) {
        if let Some(count) = self.counts.get_mut(&server) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&server);
            }
        }
    }

    /// Begins a piece of work.
    pub(super) fn push(&mut self, piece: impl Future<Output = T> + Send + 'static) {
        self.begun.push(piece.boxed());
    }

    /// What comes of the next piece that is done; waits for ever where nothing was begun.
    /// Cancel-safe.
    async fn next(&mut self) -> T {
        match self.begun.next().await {
            Some(outcome) => outcome,
            None => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::cluster::view::NodeDetails;

    const PARTITIONS: u32 = 40;
    const OF_SERVER_MAX: usize = 3;

    #[derive(Default)]
    struct Seen {
        done: BTreeSet<u32>,
        begun: BTreeMap<u32, usize>,
        most: usize,
    }

    /// Looks at each partition once; even ones lie on one server, odd ones on another.
    struct Looking {
        work: Work<u32>,
        todo: BTreeSet<u32>,
        seen: Arc<Mutex<Seen>>,
        all_done: Option<watch::Sender<Held>>,
    }

    fn server(partition: u32) -> Option<ServerId> {
        Some(ServerId::numbered(partition as usize % 2))
    }

    impl Duty<u32> for Looking {
        fn work(&mut self) -> &mut Work<u32> {
            &mut self.work
        }

        fn note(&mut self, held: BTreeSet<u32>, view: &View) {
            assert_eq!(view.me.node.as_str(), "a");
            let seen = self.seen.lock().unwrap();
            let is_new = |p: &u32| !seen.done.contains(p) && !seen.begun.contains_key(p);
            self.todo = held.into_iter().filter(is_new).collect();
        }

        fn tick(&mut self) {}

        fn begin(&mut self) {
            let mut seen = self.seen.lock().unwrap();
            while let Some(partition) = self
                .todo
                .iter()
                .copied()
                .find(|p| self.work.has_room(server(*p)))
            {
                self.todo.remove(&partition);
                self.work.enter(server(partition));
                *seen.begun.entry(partition).or_default() += 1;
                let count = |rest| seen.begun.keys().filter(|p| **p % 2 == rest).count();
                seen.most = seen.most.max(count(0)).max(count(1));
                self.work.push(async move {
                    tokio::task::yield_now().await;
                    partition
                });
            }
        }

        fn take(&mut self, partition: u32) {
            self.work.leave(server(partition));
            let mut seen = self.seen.lock().unwrap();
            assert_eq!(seen.begun.remove(&partition), Some(1));
            assert!(
                seen.done.insert(partition),
                "{partition} was looked at twice"
            );
            if seen.done.len() == PARTITIONS as usize {
                self.all_done = None;
            }
        }
    }

    #[tokio::test]
    async fn each_held_partition_is_worked_for_and_no_server_has_more_at_once_than_it_may() {
        let view = View::alone("a~5".parse().unwrap(), NodeDetails::default(), PARTITIONS);
        let (_view, views) = watch::channel(Arc::new(view));
        let (sender, held) = watch::channel(Held::all(PARTITIONS));
        let seen = Arc::<Mutex<Seen>>::default();
        let duty = Looking {
            work: Work::new(OF_SERVER_MAX),
            todo: BTreeSet::new(),
            seen: Arc::clone(&seen),
            all_done: Some(sender),
        };
        // It ends when nobody holds partitions any more.
        run(duty, held, views).await;
        let seen = seen.lock().unwrap();
        assert_eq!(seen.done, (0..PARTITIONS).collect());
        assert_eq!(seen.most, OF_SERVER_MAX);
    }
}
