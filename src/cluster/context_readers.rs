//! From when on every node reads the contexts of traces, as far as one node can know: pure.
//!
//! In: who lives, as each heartbeat tells it, and that this node knew nothing for a while. Out: an
//! instant, or none. A node of the release before takes what it cannot read for a gap, so who is not in
//! the view may still be one: a node that was paused goes on to hear after its lease has ended, and a
//! Redis that comes back empty tells of the nodes alone that were there first. So it is waited for
//! [`LEASES_FIRST`] after a first view, and after each that follows upon a time in which nothing was
//! known; and for [`LEASES_AFTER`] after such a node was seen last, unless it said that it leaves. Owner:
//! the membership machine. Bound: two instants.

use std::time::Duration;

use tokio::time::Instant;

use super::roster::End;
use super::view::NodeInfo;
use fanfare_protocol::ids::NodeId;

/// Leases after a view that may not tell of all: the others send five heartbeats in each.
const LEASES_FIRST: u32 = 2;
/// Leases after a node was seen last that reads none, and did not say that it leaves.
const LEASES_AFTER: u32 = 20;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct ContextReaders {
    /// Since when it is known without a break who lives.
    known_since: Option<Instant>,
    /// When a node that reads none was gone without a word.
    lapsed_at: Option<Instant>,
}

impl ContextReaders {
    /// It is not known any more who lives, or may not be.
    pub(super) fn interrupted(&mut self) {
        self.known_since = None;
    }

    /// An answer to what was sent at this instant tells that `now` live, `before` lived, and how others
    /// ended. From when on contexts may be sent, if nothing changes; `None`: not.
    pub(super) fn told(
        &mut self,
        (before, now): (&[NodeInfo], &[NodeInfo]),
        gone: &[(NodeId, End)],
        lease: Duration,
        sent_at: Instant,
    ) -> Option<Instant> {
        let lives = |one: &NodeInfo| now.iter().any(|other| other.owner == one.owner);
        let left = |one: &NodeInfo| {
            let end = gone.iter().find(|(name, _)| *name == one.owner.node);
            end.is_some_and(|(_, end)| *end == End::Left)
        };
        let mut others = before.iter().filter(|node| !node.details.reads_context);
        if others.any(|node| !lives(node) && !left(node)) {
            self.lapsed_at = Some(sent_at);
        }
        let known_since = *self.known_since.get_or_insert(sent_at);
        if !now.iter().all(|node| node.details.reads_context) {
            return None;
        }
        let first = known_since.checked_add(lease.saturating_mul(LEASES_FIRST))?;
        let after = |lapsed: Instant| lapsed.checked_add(lease.saturating_mul(LEASES_AFTER));
        match self.lapsed_at {
            Some(lapsed) => after(lapsed).map(|after| after.max(first)),
            None => Some(first),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::view::NodeDetails;

    const LEASE: Duration = Duration::from_secs(5);

    fn nodes(all: &[(&str, bool)]) -> Vec<NodeInfo> {
        let node = |(owner, reads_context): &(&str, bool)| NodeInfo {
            owner: owner.parse().unwrap(),
            details: NodeDetails {
                reads_context: *reads_context,
                ..NodeDetails::default()
            },
        };
        all.iter().map(node).collect()
    }

    /// A node's readers, what they were told last, and when.
    struct Told {
        readers: ContextReaders,
        before: Vec<NodeInfo>,
        at: Instant,
    }

    impl Told {
        fn new() -> Self {
            Self {
                readers: ContextReaders::default(),
                before: nodes(&[("a~0", true)]),
                at: Instant::now(),
            }
        }

        /// A second later these live; in how many seconds contexts may be sent.
        fn next(&mut self, now: &[(&str, bool)], gone: &[(&str, End)]) -> Option<u64> {
            self.at += Duration::from_secs(1);
            let now = nodes(now);
            let gone: Vec<_> = gone
                .iter()
                .map(|(name, end)| (NodeId::new(name).unwrap(), *end))
                .collect();
            let both = (&self.before[..], &now[..]);
            let from = self.readers.told(both, &gone, LEASE, self.at);
            self.before = now;
            from.map(|from| from.saturating_duration_since(self.at).as_secs())
        }
    }

    const ALONE: &[(&str, bool)] = &[("a~1", true)];
    const MIXED: &[(&str, bool)] = &[("a~1", true), ("old~1", false)];

    #[test]
    fn after_a_first_view_and_after_a_break_others_have_two_leases_to_be_heard_of() {
        let mut told = Told::new();
        assert_eq!(told.next(ALONE, &[]), Some(10));
        assert_eq!(told.next(ALONE, &[]), Some(9));
        assert_eq!(told.next(&[("a~1", true), ("b~1", true)], &[]), Some(8));
        told.readers.interrupted();
        assert_eq!(told.next(ALONE, &[]), Some(10), "b reads them");
    }

    #[test]
    fn none_is_sent_while_a_node_reads_none_and_at_once_after_it_left() {
        let mut told = Told::new();
        assert_eq!(told.next(MIXED, &[]), None);
        for _ in 0..20 {
            assert_eq!(told.next(MIXED, &[]), None);
        }
        assert_eq!(told.next(ALONE, &[("old", End::Left)]), Some(0));
    }

    #[test]
    fn a_node_that_reads_none_and_is_gone_without_a_word_is_remembered() {
        // What was seen: one that was paused for longer than its lease went on to hear.
        let mut told = Told::new();
        told.next(MIXED, &[]);
        assert_eq!(told.next(ALONE, &[("old", End::Lapsed)]), Some(100));
        assert_eq!(told.next(MIXED, &[]), None, "it goes on");
        assert_eq!(told.next(ALONE, &[]), Some(100), "nobody says how");
        assert_eq!(told.next(ALONE, &[]), Some(99));
        // Redis comes back without what it had, and this node is the first that is there.
        told.next(MIXED, &[]);
        told.readers.interrupted();
        assert_eq!(told.next(&[("a~9", true)], &[]), Some(100));
    }
}
