//! What is told of the other nodes: who came and who has gone, and who keeps something else.
//!
//! In: each view beside the one before, and how nodes ended, where that is known. Out: lines of the
//! log and gauges. Owner: the membership task. Bounds: [`LINES_MAX`] lines a change, above that one
//! with the counts; one line for each change of what is kept otherwise, see `keeping`.

use std::fmt;

use tracing::{info, warn};

use super::keeping::{self, Comparison};
use super::roster::End;
use super::view::View;
use crate::protocol::ids::{NodeId, Owner};
use crate::telemetry::metrics::Metrics;

/// Most nodes that are named in one change.
const LINES_MAX: usize = 20;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Others {
    compared: Comparison,
}

/// Why another node is not in the view any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reason {
    Known(End),
    /// A later life of the name is there: another process, or the same whose lease had ended.
    Replaced,
    /// All nodes were told, and it is not among them.
    Unknown,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Known(End::Left) => "left",
            Self::Known(End::Lapsed) => "lease_ended",
            Self::Replaced => "replaced",
            Self::Unknown => "unknown",
        })
    }
}

/// Who came and who has gone.
#[derive(Debug, Default, PartialEq, Eq)]
struct Changes<'a> {
    came: Vec<&'a Owner>,
    gone: Vec<(&'a Owner, Reason)>,
}

impl<'a> Changes<'a> {
    /// A node that has just become a member has seen nobody come.
    fn between(before: &'a View, now: &'a View, gone: &[(NodeId, End)]) -> Self {
        if before.me.incarnation == 0 {
            return Self::default();
        }
        let others = |view: &'a View| {
            let owners = view.nodes.iter().map(|node| &node.owner);
            owners.filter(|owner| owner.node != now.me.node)
        };
        let reason = |owner: &Owner| match gone.iter().find(|(name, _)| *name == owner.node) {
            _ if now.node(&owner.node).is_some() => Reason::Replaced,
            Some((_, end)) => Reason::Known(*end),
            None => Reason::Unknown,
        };
        let came = others(now).filter(|owner| !before.is_live(owner));
        let gone = others(before).filter(|owner| !now.is_live(owner));
        Self {
            came: came.collect(),
            gone: gone.map(|owner| (owner, reason(owner))).collect(),
        }
    }

    fn tell(&self, nodes_count: usize) {
        let (came_count, gone_count) = (self.came.len(), self.gone.len());
        if came_count + gone_count > LINES_MAX {
            info!(
                event = "nodes_changed",
                came_count, gone_count, nodes_count, "many other nodes came or have gone"
            );
            return;
        }
        for (Owner { node, incarnation }, reason) in &self.gone {
            info!(
                event = "node_gone",
                other = %node,
                incarnation,
                reason = %reason,
                nodes_count,
                "another node has no lease any more"
            );
        }
        for Owner { node, incarnation } in &self.came {
            info!(
                event = "node_joined",
                other = %node,
                incarnation,
                nodes_count,
                "another node has a lease"
            );
        }
    }
}

impl Others {
    /// The view was `before` and is another, or the same, now.
    pub(super) fn tell(
        &mut self,
        before: &View,
        now: &View,
        gone: &[(NodeId, End)],
        metrics: &Metrics,
    ) {
        Changes::between(before, now, gone).tell(now.nodes.len());
        let compared = keeping::compare(now);
        let gauges = &metrics.control;
        gauges.nodes.set(now.nodes.len() as u64);
        gauges.nodes_differing.set(compared.differing_count as u64);
        if compared.differences != self.compared.differences {
            tell_differences(&compared);
        }
        self.compared = compared;
    }
}

fn tell_differences(compared: &Comparison) {
    let nodes_count = compared.differing_count;
    if nodes_count == 0 {
        info!(
            event = "namespaces_agreed",
            "no other node keeps or promises anything else any more"
        );
        return;
    }
    warn!(
        event = "namespaces_differed",
        nodes_count,
        differences = %compared.differences,
        "other nodes keep or promise something else: what is published depends on the node"
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::view::{NodeDetails, NodeInfo};

    fn view(owners: &[&str]) -> View {
        let info = |owner: &&str| NodeInfo {
            owner: owner.parse().unwrap(),
            details: NodeDetails::default(),
        };
        let nodes: Vec<_> = owners.iter().map(info).collect();
        let me = nodes[0].owner.clone();
        View {
            nodes,
            ..View::alone(me, NodeDetails::default(), 8)
        }
    }

    fn end(name: &str, end: End) -> (NodeId, End) {
        (NodeId::new(name).unwrap(), end)
    }

    #[test]
    fn who_came_and_who_has_gone_is_told_with_the_reason() {
        let before = view(&["a~1", "b~1", "c~1", "d~1", "e~1"]);
        let now = view(&["a~2", "b~1", "e~7", "f~2"]);
        let gone = [end("c", End::Left), end("e", End::Lapsed)];
        let changes = Changes::between(&before, &now, &gone);
        let text: Vec<_> = changes.came.iter().map(ToString::to_string).collect();
        assert_eq!(text, ["e~7", "f~2"]);
        let text = |(owner, reason): &(&Owner, Reason)| format!("{owner} {reason:?}");
        let text: Vec<_> = changes.gone.iter().map(text).collect();
        assert_eq!(text, ["c~1 Known(Left)", "d~1 Unknown", "e~1 Replaced"]);
        assert_eq!(Changes::between(&now, &now, &gone), Changes::default());
    }

    #[test]
    fn whoever_joins_has_seen_nobody_come() {
        let (joining, joined) = (view(&["a~0"]), view(&["a~5", "b~1"]));
        let changes = Changes::between(&joining, &joined, &[]);
        assert_eq!(changes, Changes::default());
    }
}
