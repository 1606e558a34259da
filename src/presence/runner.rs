//! The task that carries out what memberships need, through one lane for each master.
//!
//! In: keys for which something is due, answers, the view, places, the index. Out: calls to the
//! broker, answers to the sessions that wait, and the incarnation under which all stands. Memberships
//! are written again when this node has another life, and when their place is another: another
//! master has the topic, or the same one lost what it had ([`Broker::moves`]). A feed that broke
//! and stands again is neither. Bounds: a lane has `CALLS_IN_FLIGHT_MAX` calls on their way; lists
//! have each membership once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::Key;
use super::memberships::{Act, Next, Order, Outcome, World};
use super::queue::{CALLS_IN_FLIGHT_MAX, End, Keys, Lane};
use super::{Answer, Presence};
use crate::broker::{Broker, BrokerError, BrokerHealth, FeedNumber, Moves, Place};
use crate::cluster::occupancy::Failure;
use crate::cluster::settled::Settled;
use crate::cluster::view::View;
use crate::tasks::turns;
use fanfare_protocol::ids::{Owner, Topic};

/// Answers that are taken in one go, before new calls are begun.
const ANSWERS_MAX: usize = 256;
/// How long many that wait for the index rest between two looks.
const INDEX_REST: Duration = Duration::from_millis(50);
/// Those that have left are looked through so often.
const EXPIRE_EVERY: Duration = Duration::from_secs(1);

/// Which lane: the master that brings the topic's feed, or none while no master has the topic.
type LaneOf = Option<FeedNumber>;

/// A call and its answer.
type Done = (LaneOf, Order, Answer);

/// See the module.
pub(super) struct Runner<'a> {
    presence: &'a Presence,
    settled: &'a Settled,
    view: watch::Receiver<Arc<View>>,
    moves: watch::Receiver<Moves>,
    written: watch::Receiver<u64>,
    losses_count: u64,
    me: Owner,
    lanes: BTreeMap<LaneOf, Lane>,
    calls: FuturesUnordered<BoxFuture<'a, Done>>,
    /// Due once the node has a lease.
    without_lease: Keys,
    /// Due once their topic stands in the index.
    without_index: Keys,
    index_at: Option<Duration>,
    expire_at: Duration,
}

impl<'a> Runner<'a> {
    pub(super) fn new(presence: &'a Presence, settled: &'a Settled) -> Self {
        let moves = presence.broker.moves();
        let losses_count = moves.borrow().losses_count;
        Self {
            presence,
            settled,
            view: presence.view.clone(),
            losses_count,
            moves,
            written: presence.occupancy.written(),
            me: presence.view.borrow().me.clone(),
            lanes: BTreeMap::new(),
            calls: FuturesUnordered::new(),
            without_lease: Keys::default(),
            without_index: Keys::default(),
            index_at: None,
            expire_at: Duration::ZERO,
        }
    }

    pub(super) async fn run(mut self) {
        self.view_changed();
        let stamp = turns::stamp("presence".to_owned());
        loop {
            stamp.turned();
            self.take_due();
            self.expire();
            self.begin();
            let wakes_at = self.wakes_at();
            // All of these are cancel-safe.
            tokio::select! {
                () = self.presence.wake.notified() => {}
                Some(done) = self.calls.next(), if !self.calls.is_empty() => self.answered(done),
                Ok(()) = self.view.changed() => self.view_changed(),
                Ok(()) = self.moves.changed() => self.topics_moved(),
                Ok(()) = self.written.changed(), if !self.without_index.is_empty() => {
                    self.index_changed();
                }
                () = sleep_until(wakes_at) => self.wake(),
            }
        }
    }

    fn now(&self) -> Duration {
        self.presence.started.elapsed()
    }

    /// Brings what is due to its lane.
    fn take_due(&mut self) {
        let (asked, due) = {
            let mut state = self.presence.state();
            (
                std::mem::take(&mut state.asked),
                std::mem::take(&mut state.due),
            )
        };
        self.sort_in(asked, true);
        self.sort_in(due, false);
    }

    fn sort_in(&mut self, mut keys: Keys, is_asked: bool) {
        while let Some(key) = keys.pop() {
            let lane = self.lane_of(&key.0);
            self.lanes.entry(lane).or_default().push(key, is_asked);
        }
    }

    fn lane_of(&self, topic: &Topic) -> LaneOf {
        place_of(&self.presence.broker, topic).map(|place| place.feed)
    }

    /// Begins calls, as many as the lanes have room for.
    fn begin(&mut self) {
        let has_lease = self.view.borrow().has_lease() && self.view.borrow().me == self.me;
        let now = self.now();
        let (mut without_lease, mut without_index) = (Vec::new(), Vec::new());
        for (number, lane) in &mut self.lanes {
            while let Some(key) = lane.pop() {
                let occupancy = &self.presence.occupancy;
                let world = World {
                    me: &self.me,
                    has_lease,
                    place: place_of(&self.presence.broker, &key.0),
                    is_indexed: occupancy.is_indexed(&key.0, &self.me),
                    now,
                };
                let next = self.presence.state().memberships.next(&key, &world);
                match next {
                    Next::Nothing => {}
                    Next::NoLease => without_lease.push(key),
                    Next::NoIndex => without_index.push(key),
                    Next::Call(order) => {
                        lane.begun();
                        let call = call(&self.presence.broker, *number, order);
                        self.calls.push(call.boxed());
                    }
                }
            }
        }
        self.lanes.retain(|_, lane| !lane.is_idle());
        let presence = self.presence;
        for key in without_lease {
            self.refuse(&key, &presence.no_lease());
            self.without_lease.push(key);
        }
        for key in without_index {
            self.await_index(key);
        }
    }

    /// What is to be written waits for the index. A session is told why that was not written where
    /// Redis has refused it since the member came, and in any case while the broker is not whole;
    /// otherwise what is known may be older than that.
    fn await_index(&mut self, key: Key) {
        let presence = self.presence;
        let is_whole = *presence.broker.health().borrow() == BrokerHealth::Up;
        if let Some(Failure { why, is_new }) = presence.occupancy.failure(&key.0)
            && (!is_whole || (is_new && why.refusal().is_some()))
        {
            // Whatever became of the index, no member was written.
            self.refuse(&key, &BrokerError::not_done(&why));
        }
        self.without_index.push(key);
    }

    /// Tells a session that waits, if one does, instead of letting it wait in vain.
    fn refuse(&self, key: &Key, why: &BrokerError) {
        let mut state = self.presence.state();
        if let Some(generation) = state.memberships.is_asked(key) {
            for waits in state.waiting.remove(&generation).unwrap_or_default() {
                // The session may have left meanwhile.
                let _ = waits.send(Err(why.clone()));
            }
            let (_, index) = state.memberships.abandon(key, generation);
            self.presence.index(&key.0, index);
        }
    }

    /// Takes an answer, and the others that are there already.
    fn answered(&mut self, done: Done) {
        self.take(done);
        for _ in 0..ANSWERS_MAX {
            let Some(Some(done)) = self.calls.next().now_or_never() else {
                break;
            };
            self.take(done);
        }
        self.tell_settled();
        self.presence.ended.notify_waiters();
    }

    fn take(&mut self, (number, order, answer): Done) {
        let (outcome, end) = judge(&answer);
        let now = self.now();
        if let Err(error @ (BrokerError::Unexpected(_) | BrokerError::Broken(_))) = &answer {
            let topic = order.key.0.name();
            tracing::warn!(
                event = "membership_refused",
                topic,
                error = error as &(dyn std::error::Error + 'static),
                "Redis refuses a member"
            );
        }
        {
            let mut state = self.presence.state();
            let (index, given_up) = state.memberships.answered(&order, outcome, now);
            self.presence.index(&order.key.0, index);
            if let Some(((topic, _), index)) = given_up {
                self.presence.index(&topic, index);
                self.presence.metrics.control.presence_forgotten.add(1);
            }
            let waiting = match order.act {
                Act::Enter(_) => state.waiting.remove(&order.generation),
                Act::Leave => None,
            };
            for waits in waiting.unwrap_or_default() {
                // The session may have left meanwhile.
                let _ = waits.send(answer.clone());
            }
        }
        if let Some(lane) = self.lanes.get_mut(&number) {
            lane.ended(order.key, end, now, rand::random());
        }
    }

    fn tell_settled(&self) {
        if self.presence.state().memberships.all_stand() {
            self.settled.tell(&self.me);
        }
    }

    fn view_changed(&mut self) {
        let view = Arc::clone(&self.view.borrow_and_update());
        if view.me != self.me {
            self.me = view.me.clone();
            self.presence.state().memberships.renew(self.me.incarnation);
            self.look_through();
        }
        if view.has_lease() {
            let keys = std::mem::take(&mut self.without_lease);
            self.sort_in(keys, false);
        }
        self.tell_settled();
    }

    /// The index has changed. Few are looked at again at once, many now and then.
    fn index_changed(&mut self) {
        let rest = if self.without_index.len() > CALLS_IN_FLIGHT_MAX {
            INDEX_REST
        } else {
            Duration::ZERO
        };
        let at = self.now() + rest;
        self.index_at = Some(self.index_at.map_or(at, |known| known.min(at)));
        self.wake();
    }

    /// Some topics may have another place: what waits for one goes where it belongs, and what stood
    /// at the one before is written at the new one.
    fn topics_moved(&mut self) {
        let losses_count = self.moves.borrow_and_update().losses_count;
        if losses_count != self.losses_count {
            self.losses_count = losses_count;
            self.presence.occupancy.write_again();
        }
        let waiting: Vec<_> = self.lanes.values_mut().flat_map(Lane::drain).collect();
        for (key, is_asked) in waiting {
            let lane = self.lane_of(&key.0);
            self.lanes.entry(lane).or_default().push(key, is_asked);
        }
        self.look_through();
    }

    /// Finds all for which something is due.
    fn look_through(&mut self) {
        let broker = &self.presence.broker;
        let mut state = self.presence.state();
        let due = state.memberships.due(|topic| place_of(broker, topic));
        let due: Vec<_> = due.cloned().collect();
        due.into_iter().for_each(|key| state.due.push(key));
    }

    /// Ends the time of those that have left.
    fn expire(&mut self) {
        let now = self.now();
        if now < self.expire_at {
            return;
        }
        self.expire_at = now + EXPIRE_EVERY;
        let mut state = self.presence.state();
        while let Some((key, index)) = state.memberships.expire(now) {
            self.presence.index(&key.0, index);
            state.due.push(key);
        }
        drop(state);
        self.take_due();
    }

    fn wake(&mut self) {
        let now = self.now();
        self.lanes.values_mut().for_each(|lane| lane.wake(now));
        if self.index_at.is_some_and(|at| at <= now) {
            self.index_at = None;
            let keys = std::mem::take(&mut self.without_index);
            self.sort_in(keys, false);
        }
    }

    /// When something is to be done though nothing happens.
    fn wakes_at(&self) -> Instant {
        let lanes = self.lanes.values().filter_map(Lane::wakes_at);
        let expires_at = self.presence.state().memberships.expires_at();
        let expires_at = expires_at.map(|at| at.max(self.expire_at));
        let first = lanes.chain(expires_at).chain(self.index_at).min();
        let rest = first.map(|at| at.saturating_sub(self.now()));
        Instant::now() + rest.unwrap_or(turns::IDLE_TURN).min(turns::IDLE_TURN)
    }
}

/// Where the members of a topic are: with its changes, which may be elsewhere than its messages.
fn place_of(broker: &Broker, topic: &Topic) -> Option<Place> {
    broker.place_of(&topic.presence())
}

async fn call(broker: &Broker, lane: LaneOf, order: Order) -> Done {
    let ((topic, session), generation) = (&order.key, order.generation);
    let answer = match &order.act {
        Act::Enter(member) => {
            let entered = broker.enter(topic, member, &order.owner, generation).await;
            entered.map(|entered| entered.counts)
        }
        Act::Leave => {
            let left = broker.leave(topic, *session, &order.owner, generation);
            left.await.map(|()| Vec::new())
        }
    };
    (lane, order, answer)
}

fn judge(answer: &Answer) -> (Outcome, End) {
    match answer {
        Ok(_) => (Outcome::Done, End::Done),
        Err(BrokerError::Unavailable(_) | BrokerError::Refused(_)) => (Outcome::NotDone, End::Away),
        Err(BrokerError::Unknown(_) | BrokerError::Unconfirmed(_)) => (Outcome::Unknown, End::Away),
        // A script that fails may have done a part.
        Err(BrokerError::Unexpected(_) | BrokerError::Broken(_)) => {
            (Outcome::Unknown, End::Refused)
        }
    }
}
