//! What full workers are owed: one slot a topic, instead of a queue without bound.
//!
//! In: everything the dispatcher has for a worker. Out: the worker's queue while it has room.
//! While it is full, the topic's slot remembers the newest position, how much was left out, from
//! where on a failover made it void, and whether a join waits for its answer; the slot is sent
//! before any other delivery of that topic. Topics are paid in the order in which they began to be
//! owed, and what is new waits behind them, so that none starves; while the queue is full a turn
//! costs one look at it. Bound: one slot per topic and worker, and [`ORDERS_MAX`] orders.

use std::collections::VecDeque;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use crate::broker::interest::WishNumber;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::trace::delivery::Delivery;
use crate::worker::handle::{Inbound, WorkerHandle};
use crate::worker::outgoing::Outgoing;
use fanfare_protocol::event::GapReason;
use fanfare_protocol::ids::{Position, Priority, SessionId, Topic};

/// Orders (ends of a user's sessions) that wait for one worker. Over it the oldest is dropped and
/// counted, with an error in the log: the API caller's order is not carried out on this worker.
const ORDERS_MAX: usize = 1_024;

/// Places in the order without a slot that are kept before it is cleared up.
const ORDER_SPARE: usize = 64;

#[derive(Debug, Default)]
struct Slot {
    /// Its place in the order; another one there is void.
    ticket: u64,
    newest: Option<Position>,
    dropped: u64,
    /// The highest of those that were left out.
    urgency: Priority,
    /// A failover was left out: everything above this is void. Of several the lowest.
    void_above: Option<Position>,
    /// A join is to be answered; then nothing before `newest` is of interest.
    joined: Option<WishNumber>,
    acked: Option<(Position, SessionId)>,
}

#[derive(Debug)]
struct WorkerQueue {
    handle: WorkerHandle,
    slots: FxHashMap<Topic, Slot>,
    /// Which topics are paid first; what has no slot of its ticket is passed over.
    order: VecDeque<(Topic, u64)>,
    tickets: u64,
    orders: VecDeque<Inbound>,
}

/// All workers of the node, as the dispatcher sees them.
#[derive(Debug)]
pub struct WorkerQueues {
    all: Vec<WorkerQueue>,
    metrics: Arc<Metrics>,
}

impl WorkerQueues {
    /// Nothing is owed.
    #[must_use]
    pub fn new(handles: Vec<WorkerHandle>, metrics: Arc<Metrics>) -> Self {
        let one = |handle| WorkerQueue {
            handle,
            slots: FxHashMap::default(),
            order: VecDeque::new(),
            tickets: 0,
            orders: VecDeque::new(),
        };
        Self {
            all: handles.into_iter().map(one).collect(),
            metrics,
        }
    }

    /// HOT: hands one delivery to these workers.
    pub fn deliver(
        &mut self,
        workers: &[usize],
        outgoing: &Arc<Outgoing>,
        traced: Option<&Arc<Delivery>>,
    ) {
        for worker in workers {
            let message = match traced {
                None => Inbound::Deliver(Arc::clone(outgoing)),
                Some(delivery) => Inbound::Traced(Arc::clone(outgoing), Arc::clone(delivery)),
            };
            self.send(*worker, &outgoing.topic, message, |slot| {
                slot.newest = Some(outgoing.position);
                slot.dropped += 1;
                slot.urgency = slot.urgency.max(outgoing.priority());
            });
        }
    }

    /// Whether anything is owed to any of them.
    #[must_use]
    pub fn owe(&self) -> bool {
        let mut all = self.all.iter();
        all.any(|one| !(one.order.is_empty() && one.orders.is_empty()))
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
                ticket: slot.ticket,
                newest: Some(position),
                joined: Some(wish),
                ..Slot::default()
            };
        });
    }

    /// Tells a gap.
    pub fn send_gap(&mut self, worker: usize, gap: Inbound) {
        let Inbound::Gap {
            topic,
            from,
            to,
            reason,
        } = &gap
        else {
            return;
        };
        let (topic, from, to) = (topic.clone(), *from, *to);
        let failed_over = *reason == GapReason::Failover;
        // A session that catches up from its own position meets any other gap there, but ids may
        // lie below that position after a failover.
        self.send(worker, &topic, gap, |slot| {
            slot.newest = Some(to);
            if failed_over {
                slot.void_above = Some(slot.void_above.map_or(from, |above| above.min(from)));
            }
        });
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
                self.metrics.control.orders_dropped.add(1);
                tracing::error!(event = "order_dropped", "a worker does not take its orders");
            }
            one.orders.push_back(order());
        }
    }

    /// The worker left the topic: it is owed nothing more of it.
    pub fn forget(&mut self, worker: usize, topic: &Topic) {
        let one = &mut self.all[worker];
        one.slots.remove(topic);
        if one.slots.is_empty() {
            one.order.clear();
        }
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
            one.settle();
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
        one.settle();
        if one.slots.is_empty() && one.handle.send(message).is_ok() {
            return;
        }
        let owed = one.slots.len();
        owe(one.slot(topic));
        if one.slots.len() > owed {
            self.metrics.control.worker_queue_full.add(1);
        }
    }

    /// Places in all orders, with a slot or without.
    #[cfg(test)]
    pub(super) fn places(&self) -> usize {
        self.all.iter().map(|one| one.order.len()).sum()
    }

    /// Takes out the rule that a failover which was left out is told.
    #[cfg(test)]
    pub(super) fn forget_failovers(&mut self) {
        let slots = self.all.iter_mut().flat_map(|one| one.slots.values_mut());
        slots.for_each(|slot| slot.void_above = None);
    }
}

impl WorkerQueue {
    /// The topic's slot, which is made behind all others where there is none.
    fn slot(&mut self, topic: &Topic) -> &mut Slot {
        if !self.slots.contains_key(topic) {
            self.tickets += 1;
            let slot = Slot {
                ticket: self.tickets,
                ..Slot::default()
            };
            self.order.push_back((topic.clone(), self.tickets));
            self.slots.insert(topic.clone(), slot);
            if self.order.len() > 2 * self.slots.len() + ORDER_SPARE {
                let slots = &self.slots;
                self.order.retain(|(topic, ticket)| {
                    slots.get(topic).is_some_and(|s| s.ticket == *ticket)
                });
            }
        }
        self.slots.get_mut(topic).expect("it was made")
    }

    /// Pays topics, the first first, as far as there is room.
    fn settle(&mut self) {
        while !self.order.is_empty() && self.handle.has_room() {
            if !self.pay_first() {
                return;
            }
        }
    }

    /// Pays the first topic's slot; false when the queue is full.
    fn pay_first(&mut self) -> bool {
        let Some((topic, ticket)) = self.order.front() else {
            return false;
        };
        let slot = self.slots.get_mut(topic);
        let Some(slot) = slot.filter(|slot| slot.ticket == *ticket) else {
            self.order.pop_front();
            return true;
        };
        if let Some(newest) = slot.newest {
            let message = if let Some(wish) = slot.joined {
                Inbound::Joined {
                    topic: topic.clone(),
                    position: newest,
                    wish,
                }
            } else {
                Inbound::Behind {
                    topic: topic.clone(),
                    newest,
                    dropped: slot.dropped,
                    urgency: slot.urgency,
                    void_above: slot.void_above,
                }
            };
            if self.handle.send(message).is_err() {
                return false;
            }
            *slot = Slot {
                ticket: *ticket,
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
        self.order.pop_front();
        true
    }
}
