//! Calls that revoke, and by what their node knows that all live nodes have read: its last heartbeat.
//!
//! In: chance. Out: entries, and the promises by which the world is judged.

use rand::RngExt as _;

use super::{BEAT_EVERY, LEASE, NODES, PATIENCE, USERS, Without, World, adding, name};
use crate::revocation::adding::{Added, Asked};

/// A call that waits for its answer.
pub(super) struct Call {
    pub(super) by: usize,
    user: u64,
    issued_before: u64,
    called_at: u64,
}

impl World {
    pub(super) fn beat(&mut self, at: usize) {
        let tick = self.tick;
        let is_asked = self.calls.iter().any(|call| call.by == at);
        let node = &mut self.nodes[at];
        let is_news = node.told != node.known.read_to() && tick >= node.beat_at + 3;
        // Who takes the view as it is asks for no other.
        let asks = is_asked && self.without != Without::FreshView;
        let is_hurried = asks && tick >= node.beat_at + 2;
        let is_due = is_news || is_hurried || tick >= node.beat_at + BEAT_EVERY;
        if node.is_away(tick) || tick < node.joins_at || !is_due {
            return;
        }
        if !node.is_live(tick) {
            (node.is_member, node.joined_at, node.wants) = (true, tick, true);
        }
        (node.beat_at, node.told) = (tick, node.known.read_to());
        let nodes = self.nodes.iter();
        let view = nodes.map(|node| (node.is_live(tick), node.told)).collect();
        (self.nodes[at].view, self.nodes[at].view_at) = (view, tick);
    }

    pub(super) fn revoke(&mut self) {
        let by = self.rng.random_range(0..NODES);
        if self.nodes[by].is_away(self.tick) {
            return;
        }
        let user = self.rng.random_range(0..USERS);
        // Some are of before another one of the same user.
        let before = self.now_ms() / 1_000 - self.rng.random_range(0..20);
        let asked = Asked {
            name: name(user),
            issued_before: Some(before),
            until_ms: None,
        };
        let adding = adding(vec![asked], self.nodes[by].known.read_to());
        let store_ms = self.store_ms();
        let chance = self.rng.random_range(0..1_024);
        let Added::Stored(holds) = self.store.add(&adding, store_ms, chance) else {
            panic!("there is room");
        };
        assert!(holds >= before);
        let known = &mut self.asked[user as usize];
        *known = before.max(*known);
        for node in 0..NODES {
            let is_heard = !self.chance(3);
            self.nodes[node].wants |= is_heard || node == by;
        }
        self.calls.push(Call {
            by,
            user,
            issued_before: before,
            called_at: self.tick,
        });
    }

    pub(super) fn answer_calls(&mut self) {
        let tick = self.tick;
        let calls = std::mem::take(&mut self.calls);
        for call in calls {
            let by = &self.nodes[call.by];
            if tick < by.stopped_until {
                self.calls.push(call);
                continue;
            }
            let names = [name(call.user)];
            let covers = |read_to| by.known.covers(read_to, &names, call.issued_before);
            // A call comes after the heartbeats of its tick.
            let is_told = self.without == Without::FreshView || by.view_at > call.called_at;
            let others = by.view.iter().enumerate().filter(|(at, _)| *at != call.by);
            let mut live = others.filter(|(_, (is_live, _))| *is_live);
            let all_have_read = live.all(|(_, (_, told))| covers(*told));
            if by.is_live(tick) && is_told && covers(by.known.read_to()) && all_have_read {
                let promised = &mut self.promised[call.user as usize];
                *promised = call.issued_before.max(*promised);
                self.met.promises += 1;
            } else if tick < call.called_at + PATIENCE {
                self.calls.push(call);
            } else {
                self.met.late += 1;
            }
        }
    }
}

const _: () = assert!(BEAT_EVERY < LEASE);
