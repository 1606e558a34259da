//! How the settings of the other nodes compare with those of this one: pure.
//!
//! In: a view, and the texts of what its nodes keep and promise (`texts`). Out: counts, which
//! settings differ, and where, in words. Owns nothing. Bounds: [`TOLD_MAX`] differences are reported, each
//! with up to [`NAMED_MAX`] nodes; of nodes that have the same, one is compared.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::keeping::{Difference, differences};
use super::texts::Texts;
use super::view::{NodeDetails, View};
use fanfare_protocol::ids::NodeId;

/// Most differences that are reported.
const TOLD_MAX: usize = 8;
/// Most nodes that are named for each.
const NAMED_MAX: usize = 3;

/// How the other nodes of a view compare with this one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Comparison {
    /// How many have the same settings.
    pub same_count: usize,
    /// How many do not.
    pub differing_count: usize,
    /// How many do not say, because they are of an earlier release.
    pub silent_count: usize,
    /// How many have others that could not be read yet.
    pub unread_count: usize,
    /// Which settings are others at some node.
    pub settings: BTreeSet<String>,
    /// The same with values and nodes, for people.
    pub differences: String,
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (same, silent, unread) = (self.same_count, self.silent_count, self.unread_count);
        match self.differing_count {
            0 => write!(
                f,
                "the same at {same} of {} other nodes",
                same + silent + unread
            )?,
            _ => f.write_str(&self.differences)?,
        }
        match silent {
            0 => (),
            _ => write!(f, "; not said by {silent} of an earlier release")?,
        }
        match unread {
            0 => Ok(()),
            _ => write!(f, "; others at {unread}, which could not be read yet"),
        }
    }
}

/// What a node says of its settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Said<'a> {
    Nothing,
    /// As releases do that know no digest.
    Text(&'a str),
    Digest(&'a str),
}

impl<'a> Said<'a> {
    fn by(details: &'a NodeDetails) -> Self {
        match (&*details.keeps_digest, &*details.keeps) {
            ("", "") => Self::Nothing,
            ("", text) => Self::Text(text),
            (digest, _) => Self::Digest(digest),
        }
    }
}

/// Compares all nodes of a view with this one.
#[must_use]
pub(super) fn compare(view: &View, texts: &Texts) -> Comparison {
    // Nodes mostly say one of few things.
    let mut said: BTreeMap<Said<'_>, Vec<&NodeId>> = BTreeMap::new();
    let others = view.nodes.iter().filter(|n| n.owner.node != view.me.node);
    for other in others {
        let names = said.entry(Said::by(&other.details)).or_default();
        names.push(&other.owner.node);
    }
    let (own, known) = (texts.own(), texts.known());
    let mut comparison = Comparison::default();
    let mut found: BTreeMap<Difference<'_>, Vec<&NodeId>> = BTreeMap::new();
    for (said, names) in said {
        let theirs = match said {
            Said::Nothing => {
                comparison.silent_count += names.len();
                continue;
            }
            Said::Text(text) => text,
            Said::Digest(digest) if *digest == *own.digest => &own.text,
            Said::Digest(digest) => match known.get(digest) {
                Some(text) => text,
                None => {
                    comparison.unread_count += names.len();
                    continue;
                }
            },
        };
        let differences = differences(&own.text, theirs);
        if differences.is_empty() {
            comparison.same_count += names.len();
        } else {
            comparison.differing_count += names.len();
        }
        for difference in differences {
            found.entry(difference).or_default().extend(&names);
        }
    }
    comparison.settings = found.keys().map(|found| found.what.clone()).collect();
    comparison.differences = in_words(&found);
    comparison
}

fn in_words(found: &BTreeMap<Difference<'_>, Vec<&NodeId>>) -> String {
    let one = |(difference, names): (&Difference<'_>, &Vec<&NodeId>)| {
        let Difference { what, mine, theirs } = difference;
        let named: Vec<_> = names.iter().take(NAMED_MAX).map(|n| n.as_str()).collect();
        let more = more_than(NAMED_MAX, names.len(), "more nodes");
        let named = named.join(", ");
        format!("{what}: {theirs} at {named}{more}, {mine} here")
    };
    let told: Vec<_> = found.iter().take(TOLD_MAX).map(one).collect();
    told.join("; ") + &more_than(TOLD_MAX, found.len(), "more settings")
}

/// How many were not reported.
fn more_than(told_max: usize, count: usize, of: &str) -> String {
    match count.saturating_sub(told_max) {
        0 => String::new(),
        more => format!(" and {more} {of}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::texts::digest;
    use crate::cluster::view::NodeInfo;

    const MINE: &str = "@session:300 default:10,60";

    /// A view of n00, which is this node, n01 and so on, which say this.
    fn view(others: &[NodeDetails]) -> View {
        let all = [NodeDetails::default()];
        let all = all.iter().chain(others).enumerate();
        let info = |(nth, details): (usize, &NodeDetails)| NodeInfo {
            owner: format!("n{nth:02}~1").parse().unwrap(),
            details: details.clone(),
        };
        let me = "n00~1".parse().unwrap();
        View {
            nodes: all.map(info).collect(),
            ..View::alone(me, NodeDetails::default(), 8)
        }
    }

    /// A node with this text, which lies apart.
    fn now(text: &str) -> NodeDetails {
        NodeDetails {
            keeps_digest: digest(text),
            ..NodeDetails::default()
        }
    }

    /// A node of the release that says the text itself.
    fn before(text: &str) -> NodeDetails {
        NodeDetails {
            keeps: text.to_owned(),
            ..NodeDetails::default()
        }
    }

    #[test]
    fn the_nodes_of_a_view_are_counted_and_named() {
        let less = "@session:300 default:0,0";
        let texts = Texts::knowing(MINE, &[less]);
        assert_eq!(compare(&view(&[]), &texts), Comparison::default());
        let seen = [now(MINE), now(less), before(""), before(less), now("else")];
        let comparison = compare(&view(&seen), &texts);
        let counts = [
            comparison.same_count,
            comparison.differing_count,
            comparison.silent_count,
            comparison.unread_count,
        ];
        assert_eq!(counts, [1, 2, 1, 1]);
        let settings = ["history_age_s", "history_entries_max"];
        let settings = settings.map(|setting| format!("namespaces.default.{setting}"));
        assert_eq!(comparison.settings, settings.into());
        assert_eq!(
            comparison.to_string(),
            "namespaces.default.history_age_s: 0 at n04, n02, 60 here; \
             namespaces.default.history_entries_max: 0 at n04, n02, 10 here; \
             not said by 1 of an earlier release; others at 1, which could not be read yet"
        );
        let same = compare(&view(&[before(MINE), now(MINE), now("else")]), &texts);
        assert_eq!(
            same.to_string(),
            "the same at 2 of 3 other nodes; others at 1, which could not be read yet"
        );
    }

    #[test]
    fn what_is_told_of_many_nodes_and_settings_is_bounded() {
        let names = |count: usize| (0..count).map(|nth| format!("n{nth:02}:1"));
        let more = names(TOLD_MAX + 2).collect::<Vec<_>>().join(" ");
        let theirs = format!("{MINE} {more}");
        let texts = Texts::knowing(MINE, &[&theirs]);
        let comparison = compare(&view(&vec![now(&theirs); NAMED_MAX + 4]), &texts);
        assert_eq!(comparison.settings.len(), TOLD_MAX + 2);
        let told = comparison.differences;
        assert_eq!(told.matches(" here").count(), TOLD_MAX);
        assert!(
            told.contains("n01, n02, n03 and 4 more nodes, 10 here"),
            "{told}"
        );
        assert!(told.ends_with(" and 2 more settings"), "{told}");
    }
}
