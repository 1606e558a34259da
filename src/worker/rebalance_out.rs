//! Which sessions a worker sends away when its node has more than its share.
//!
//! In: how many, and which partitions are at home here. Out: a notice to each that is chosen; its
//! session tells the client and closes later. Chosen are those for whom it matters least: first
//! sessions that nothing waits for, among them those whose user is at home elsewhere, and of these
//! the oldest. The newest would be the same ones again whenever the balancer sends them back here.
//! Who was told is written down, so that it is seen who comes back ([`super::batch_told`]).
//! Costs one look at every session, and only in seconds in which somebody is sent away.

use fanfare_protocol::ids::{Topic, TopicKind};

use super::handle::ShedOrder;
use super::hub::SessionKey;
use super::{SessionSlot, State, Worker};

impl Worker {
    /// Sends sessions away, and writes down who they are.
    pub(super) fn shed(&self, order: ShedOrder) {
        let ShedOrder {
            count,
            at_home,
            batch,
        } = order;
        let state = &mut *self.state.borrow_mut();
        let mut chosen: Vec<_> = state
            .sessions
            .iter()
            .filter(|(_, entry)| !entry.is_told_to_move && !entry.references.is_empty())
            .map(|(key, entry)| {
                let is_busy = entry.catching_up || !entry.outbox.is_empty();
                let is_at_home = state.is_at_home(entry, &at_home);
                (is_busy, is_at_home, entry.number, key)
            })
            .collect();
        if count < chosen.len() {
            chosen.select_nth_unstable(count);
            chosen.truncate(count);
        }
        for (_, _, _, key) in &chosen {
            state.tell_to_go(*key);
            batch.told(state.known_by(*key));
        }
        state.batch = Some(batch);
        let counters = &self.metrics.counters;
        counters.rebalanced.add_owned(chosen.len() as u64);
        counters.rebalancing.add_owned(chosen.len() as u64);
    }
}

/// A user with more sessions than so many on one worker opens one every now and then, which says nothing
/// of the one that was told to go.
const OF_ONE_USER_MAX: usize = 3;

impl State {
    /// The inbox by which a session is known when it comes back; `None`: it cannot be.
    fn known_by(&self, key: SessionKey) -> Option<&Topic> {
        let references = &self.sessions.get(key)?.references;
        let mut topics = references.iter().filter_map(|r| self.hub.get(r.topic));
        let inbox = topics.find(|topic| topic.name.kind() == TopicKind::Inbox)?;
        (inbox.members.len() <= OF_ONE_USER_MAX).then_some(&inbox.name)
    }

    fn is_at_home(&self, entry: &SessionSlot, at_home: &[bool]) -> bool {
        let partitions_count = u32::try_from(at_home.len()).unwrap_or(u32::MAX);
        entry.references.iter().any(|reference| {
            let topic = self.hub.get(reference.topic).map(|topic| &topic.name);
            topic.is_some_and(|name| {
                let partition = name.partition(partitions_count) as usize;
                name.kind() == TopicKind::Inbox && at_home[partition]
            })
        })
    }

    fn tell_to_go(&mut self, key: SessionKey) {
        if let Some(entry) = self.sessions.get_mut(key) {
            entry.is_told_to_move = true;
            entry.notify(|notices| notices.shed = true);
        }
    }
}
