//! What full workers are owed: one slot a topic, instead of a queue without bound.
//!
//! In: everything the dispatcher has for a worker. Out: the worker's queue while it has room.
//! While it is full, the topic's slot remembers the newest position, how much was left out and
//! whether a join waits for its answer; the slot is sent before any other delivery of that topic.
//! Bound: one slot per topic and worker, and [`ORDERS_MAX`] orders.

use std::collections::VecDeque;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use crate::broker::interest::WishNumber;
use crate::protocol::ids::{Position, Priority, SessionId, Topic};
use crate::telemetry::metrics::Metrics;
use crate::worker::handle::{Inbound, WorkerHandle};
use crate::worker::outgoing::Outgoing;

/// Orders (ends of a user's sessions) that wait for one worker. Over it the oldest is dropped,
/// with an error in the log: the API caller's order is then not carried out on this worker.
const ORDERS_MAX: usize = 1_024;

#[derive(Debug, Default, Clone)]
struct Slot {
    newest: Position,
    dropped: u64,
    /// The highest of those that were left out.
    urgency: Priority,
    /// A join is to be answered; then nothing before `newest` is of interest.
    joined: Option<WishNumber>,
    acked: Option<(Position, SessionId)>,
}

#[derive(Debug)]
struct One {
    handle: WorkerHandle,
    slots: FxHashMap<Topic, Slot>,
    orders: VecDeque<Inbound>,
}

/// All workers of the node, as the dispatcher sees them.
#[derive(Debug)]
pub struct Workers {
    all: Vec<One>,
    metrics: Arc<Metrics>,
}

impl Workers {
    /// Nothing is owed.
    #[must_use]
    pub fn new(handles: Vec<WorkerHandle>, metrics: Arc<Metrics>) -> Self {
        let one = |handle| One {
            handle,
            slots: FxHashMap::default(),
            orders: VecDeque::new(),
        };
        Self {
            all: handles.into_iter().map(one).collect(),
            metrics,
        }
    }

    /// HOT: hands one delivery to these workers.
    pub fn deliver(&mut self, workers: &[usize], outgoing: &Arc<Outgoing>) {
        for worker in workers {
            let message = Inbound::Deliver(Arc::clone(outgoing));
            self.send(*worker, &outgoing.topic, message, |slot| {
                slot.newest = outgoing.position;
                slot.dropped += 1;
                slot.urgency = slot.urgency.max(outgoing.priority());
            });
        }
    }

    /// Answers a join.
    pub fn send_joined(
        &mut self,
        worker: usize,
        topic: &Topic,
        position: Position,
        wish: WishNumber,
    ) {
        let message = Inbound::Joined {
            topic: topic.clone(),
            position,
            wish,
        };
        self.send(worker, topic, message, |slot| {
            *slot = Slot {
                newest: position,
                joined: Some(wish),
                ..Slot::default()
            };
        });
    }

    /// Tells a gap.
    pub fn send_gap(&mut self, worker: usize, gap: Inbound) {
        let Inbound::Gap { topic, to, .. } = &gap else {
            return;
        };
        let (topic, to) = (topic.clone(), *to);
        // A session that catches up from its own position meets the same gap there.
        self.send(worker, &topic, gap, |slot| slot.newest = to);
    }

    /// Tells that the cursor moved.
    pub fn send_acked(&mut self, worker: usize, topic: &Topic, position: Position, by: SessionId) {
        let message = Inbound::Acked {
            topic: topic.clone(),
            position,
            session: by,
        };
        self.send(worker, topic, message, |slot| {
            slot.acked = Some((position, by))
        });
    }

    /// Gives an order to every worker.
    pub fn broadcast(&mut self, order: impl Fn() -> Inbound) {
        for one in &mut self.all {
            if one.orders.len() == ORDERS_MAX {
                one.orders.pop_front();
                tracing::error!(event = "order_dropped", "a worker does not take its orders");
            }
            one.orders.push_back(order());
        }
    }

    /// The worker left the topic: it is owed nothing more of it.
    pub fn forget(&mut self, worker: usize, topic: &Topic) {
        self.all[worker].slots.remove(topic);
    }

    /// Pays what is owed as far as the queues have room.
    pub fn settle(&mut self) {
        let mut owed = 0;
        for one in &mut self.all {
            while let Some(order) = one.orders.pop_front() {
                if let Err(order) = one.handle.send(order) {
                    one.orders.push_front(order);
                    break;
                }
            }
            let topics: Vec<_> = one.slots.keys().cloned().collect();
            for topic in topics {
                if !one.pay(&topic) {
                    break;
                }
            }
            owed += one.slots.len();
        }
        self.metrics.control.owed.set(owed as u64);
    }

    fn send(
        &mut self,
        worker: usize,
        topic: &Topic,
        message: Inbound,
        owe: impl FnOnce(&mut Slot),
    ) {
        let one = &mut self.all[worker];
        if let Some(slot) = one.slots.get_mut(topic) {
            owe(slot);
        } else if one.handle.send(message).is_err() {
            self.metrics.control.worker_queue_full.add(1);
            owe(one.slots.entry(topic.clone()).or_default());
        }
    }
}

impl One {
    /// Pays one topic's slot; false when the queue is full.
    fn pay(&mut self, topic: &Topic) -> bool {
        let Some(slot) = self.slots.get_mut(topic) else {
            return true;
        };
        if slot.joined.is_some() || slot.newest > Position::ZERO {
            let message = if let Some(wish) = slot.joined {
                Inbound::Joined {
                    topic: topic.clone(),
                    position: slot.newest,
                    wish,
                }
            } else {
                Inbound::Behind {
                    topic: topic.clone(),
                    newest: slot.newest,
                    dropped: slot.dropped,
                    urgency: slot.urgency,
                }
            };
            if self.handle.send(message).is_err() {
                return false;
            }
            *slot = Slot {
                acked: slot.acked,
                ..Slot::default()
            };
        }
        if let Some((position, session)) = slot.acked {
            let message = Inbound::Acked {
                topic: topic.clone(),
                position,
                session,
            };
            if self.handle.send(message).is_err() {
                return false;
            }
        }
        self.slots.remove(topic);
        true
    }
}
