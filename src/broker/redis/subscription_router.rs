//! Brings each wish to hear a topic to the feed of the master that has it, and moves it after it.
//!
//! In: the node's wishes ([`Interest`]), word that keys moved ([`Masters::moved`]). Out: the same
//! wishes, by their numbers, in the interest of one master each. One task on the control runtime;
//! owner of where each wished topic is heard. Bound: one entry per wished topic.
//!
//! A topic that moved is wished for at its new master under the number of its wish, so that it is
//! confirmed again when it is there. Whoever hears that of a topic that was live compares its
//! last id, as after a break: what was published between is found.

use std::sync::Arc;

use rustc_hash::FxHashMap;
use tokio::sync::watch;

use super::link::stopped;
use super::masters::{Masters, Placed};
use crate::broker::interest::{Interest, WishNumber};
use crate::telemetry::metrics::Metrics;
use fanfare_protocol::ids::Topic;

/// See the module.
pub struct SubscriptionRouter {
    /// Where keys are.
    pub masters: Arc<Masters>,
    /// What the node wishes.
    pub interest: Arc<Interest>,
    /// Instruments.
    pub metrics: Arc<Metrics>,
}

/// A wished topic.
struct Wished {
    number: WishNumber,
    /// `None` while no master has it.
    at: Option<Placed>,
}

impl SubscriptionRouter {
    /// Places until `stop` turns true.
    pub async fn run(self, mut stop: watch::Receiver<bool>) {
        let mut wished: FxHashMap<Topic, Wished> = FxHashMap::default();
        loop {
            tokio::select! {
                () = stopped(&mut stop) => return,
                () = self.masters.moved.notified() => {
                    for (topic, wished) in &mut wished {
                        self.follow(topic, wished);
                    }
                }
                wishes = self.interest.changed() => {
                    for (topic, number) in wishes {
                        self.wish(&mut wished, topic, number);
                    }
                }
            }
        }
    }

    fn wish(
        &self,
        wished: &mut FxHashMap<Topic, Wished>,
        topic: Topic,
        number: Option<WishNumber>,
    ) {
        match number {
            Some(number) => {
                let at = self.find(&topic);
                let now = at.clone();
                let before = wished.insert(topic.clone(), Wished { number, at });
                let before = before.and_then(|wished| wished.at);
                bring(&topic, number, before, now);
            }
            None => {
                let before = wished.remove(&topic).and_then(|wished| wished.at);
                if let Some(Placed { master, .. }) = before {
                    master.interest.set(topic, None);
                }
            }
        }
    }

    /// Moves the topic if it is somewhere else now, or if it went away and came back.
    fn follow(&self, topic: &Topic, wished: &mut Wished) {
        let now = self.find(topic);
        let identity = |at: &Option<Placed>| at.as_ref().map(|at| (at.master.number, at.epoch));
        if identity(&now) == identity(&wished.at) {
            return;
        }
        let before = std::mem::replace(&mut wished.at, now.clone());
        if before.is_some() {
            self.metrics.control.topics_moved.add(1);
        }
        bring(topic, wished.number, before, now);
    }

    fn find(&self, topic: &Topic) -> Option<Placed> {
        self.masters.find_topic(topic).ok()
    }
}

/// Lets a topic be heard where it is now, and no more where it was.
fn bring(topic: &Topic, number: WishNumber, before: Option<Placed>, now: Option<Placed>) {
    let here = now.as_ref().map(|at| at.master.number);
    if let Some(Placed { master, .. }) = before
        && Some(master.number) != here
    {
        master.interest.set(topic.clone(), None);
    }
    if let Some(Placed { master, .. }) = now {
        master.interest.set(topic.clone(), Some(number));
    }
}
