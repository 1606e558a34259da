//! What is logged of the other nodes: who came and who has gone, and whose settings differ.
//!
//! In: each view beside the one before, and how nodes ended, where that is known. Out: lines of the
//! log, gauges, and how settings compare. Owner: the membership task. Bounds: [`LINES_MAX`] lines a
//! change of nodes, above that one with the counts; one line where the set of settings that differ
//! becomes another, whichever nodes have them, the same once in [`QUIET`] and [`SETS_MAX`] in all.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{info, warn};

use super::comparison::{Comparison, compare};
use super::roster::End;
use super::texts::Texts;
use super::view::View;
use crate::telemetry::metrics::Metrics;
use fanfare_protocol::ids::{NodeId, Owner};

/// Most nodes that are named in one change.
const LINES_MAX: usize = 20;

/// The same set of settings is not logged again before this is over.
const QUIET: Duration = Duration::from_secs(60);
/// Most sets that are logged within it.
const SETS_MAX: usize = 8;

/// See the module.
#[derive(Debug)]
pub(super) struct Others {
    texts: Texts,
    compared: watch::Sender<Comparison>,
    telling: Telling,
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
    /// Nobody was seen yet. `texts`: what nodes have; and where it is seen how they compare.
    pub(super) fn new(texts: Texts) -> (Self, watch::Receiver<Comparison>) {
        let (compared, seen) = watch::channel(Comparison::default());
        let others = Self {
            texts,
            compared,
            telling: Telling::default(),
        };
        (others, seen)
    }

    /// The view was `before` and is another, or the same, now.
    pub(super) fn tell(
        &mut self,
        before: &View,
        now: &View,
        gone: &[(NodeId, End)],
        metrics: &Metrics,
    ) {
        Changes::between(before, now, gone).tell(now.nodes.len());
        let compared = compare(now, &self.texts);
        let gauges = &metrics.control;
        gauges.nodes.set(now.nodes.len() as u64);
        gauges.nodes_differing.set(compared.differing_count as u64);
        if self.telling.is_due(&compared.settings, Instant::now()) {
            tell_differences(&compared);
        }
        self.compared.send_replace(compared);
    }
}

/// Which sets of settings were logged. The empty one is that nothing differs.
#[derive(Debug, Default)]
struct Telling {
    last: BTreeSet<String>,
    lately: Vec<(BTreeSet<String>, Instant)>,
}

impl Telling {
    /// Whether a line is due where these settings differ; then it counts as logged.
    fn is_due(&mut self, settings: &BTreeSet<String>, now: Instant) -> bool {
        self.lately.retain(|(_, told_at)| now < *told_at + QUIET);
        let was_told = self.lately.iter().any(|(told, _)| told == settings);
        if *settings == self.last || was_told || self.lately.len() == SETS_MAX {
            return false;
        }
        self.last.clone_from(settings);
        self.lately.push((settings.clone(), now));
        true
    }
}

fn tell_differences(compared: &Comparison) {
    let nodes_count = compared.differing_count;
    if nodes_count == 0 {
        info!(
            event = "settings_agreed",
            "no other node has settings otherwise any more which all should have alike"
        );
        return;
    }
    warn!(
        event = "settings_differed",
        nodes_count,
        differences = %compared.differences,
        "other nodes have settings otherwise which all should have alike: what is kept and promised \
         depends on the node"
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

    #[test]
    fn the_same_settings_are_told_once_a_minute_whatever_comes_between() {
        let mut telling = Telling::default();
        let set = |names: &[&str]| names.iter().map(ToString::to_string).collect();
        let [none, one, more] = [set(&[]), set(&["a"]), set(&["a", "b"])];
        let start = Instant::now();
        let mut told = Vec::new();
        // A node that goes and comes every five seconds.
        for second in (0..150).step_by(5) {
            let settings = if second % 10 == 0 { &one } else { &none };
            if telling.is_due(settings, start + Duration::from_secs(second)) {
                told.push(second);
            }
        }
        assert_eq!(told, [0, 5, 60, 65, 120, 125]);
        let mut is_due =
            |settings, second| telling.is_due(settings, start + Duration::from_secs(second));
        assert!(is_due(&more, 150), "another set");
        assert!(!is_due(&more, 300), "nothing has changed");
        assert!(is_due(&one, 301));
        assert!(is_due(&none, 302));
        assert!(!is_due(&one, 303));
        assert!(is_due(&one, 361), "it is so still");
    }

    #[test]
    fn however_many_sets_come_few_are_told_a_minute() {
        let (mut telling, start) = (Telling::default(), Instant::now());
        let sets = (0..100).map(|nth| BTreeSet::from([format!("a{nth}")]));
        let told = sets.filter(|set| telling.is_due(set, start));
        assert_eq!(told.count(), SETS_MAX);
        let last = BTreeSet::from(["a99".to_owned()]);
        assert!(telling.is_due(&last, start + QUIET));
    }
}
