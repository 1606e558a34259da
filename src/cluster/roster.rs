//! Who lives, as one process knows it from the answers to its heartbeats: pure.
//!
//! In: each answer, which tells of all nodes or only of those that changed since the answer before.
//! Out: all of them, and the numbers by which the script knows which answer this process took in
//! last. Owner: the lease store. Bound: one entry per node with a lease.

use std::collections::BTreeMap;

use super::load_told::LoadTold;
use super::view::{NodeDetails, NodeInfo};
use fanfare_protocol::ids::{NodeId, Owner};

/// A process asks to be told of all after so many answers, or as many as there are nodes: what
/// somebody changed in Redis by hand is seen then at the latest.
const TOLD_ALL_AFTER: u64 = 64;

/// What an answer to a heartbeat says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The name is this process's.
    Held {
        /// As [`Beat::Held`] has it.
        incarnation: u64,
        /// As [`Beat::Held`] has it.
        time_us: u64,
        /// Who lives.
        told: Told,
        /// How those ended that it tells to be gone; of all that are not named, nobody says how.
        gone: Vec<(NodeId, End)>,
    },
    /// Another process took the name later.
    Superseded {
        /// Its incarnation.
        newest: u64,
    },
}

/// What a heartbeat brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Beat {
    /// The name is this process's. If the incarnation is not the one before, everything written
    /// under the old one is to be written again.
    Held {
        /// The incarnation.
        incarnation: u64,
        /// Redis time, in microseconds, raised above what was told before where the clock stepped
        /// back.
        time_us: u64,
        /// All nodes with a lease, sorted by name, this one included.
        nodes: Vec<NodeInfo>,
        /// How nodes ended that have none any more, where that is known.
        gone: Vec<(NodeId, End)>,
    },
    /// Another process took the name later.
    Superseded {
        /// Its incarnation.
        newest: u64,
    },
}

/// How a node came to have no lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It gave its lease back and left nothing behind, as it says. Nodes of the release before say
    /// so also where they had to leave something.
    Left,
    /// Its lease ended, or was given back by a node that had to leave something behind.
    Lapsed,
}

impl End {
    /// Reads the word of `heartbeat.lua`.
    fn read(word: &str) -> Option<Self> {
        match word {
            "left" => Some(Self::Left),
            "ended" => Some(Self::Lapsed),
            _ => None,
        }
    }
}

/// What an answer says of the nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// All that have a lease.
    All(Vec<NodeInfo>),
    /// Those that changed since the answer that this process took in last; `None`: it has no lease
    /// any more.
    Changed(Vec<(NodeId, Option<NodeInfo>)>),
}

/// The numbers that a heartbeat carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Numbers {
    /// Its own. No two of one process have the same.
    pub beat: u64,
    /// That of the last one whose answer was taken in; 0: tell of all.
    pub taken: u64,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Roster {
    nodes: BTreeMap<NodeId, NodeInfo>,
    sent: u64,
    taken: u64,
    /// Answers since the last that told of all.
    changes_count: u64,
}

impl Roster {
    /// The numbers of the next heartbeat.
    pub fn numbers(&mut self) -> Numbers {
        self.sent += 1;
        let most = TOLD_ALL_AFTER.max(self.nodes.len() as u64);
        Numbers {
            beat: self.sent,
            taken: if self.changes_count < most {
                self.taken
            } else {
                0
            },
        }
    }

    /// How many nodes live.
    #[must_use]
    pub fn nodes_count(&self) -> usize {
        self.nodes.len()
    }

    /// As the view has it, of the nodes that were told.
    pub fn all_look_beside(&self) -> bool {
        let mut nodes = self.nodes.values();
        nodes.all(|node| node.details.looks_beside)
    }

    /// Takes in the answer to the heartbeat with this number. One that is not taken in changes
    /// nothing: the next one is asked as if it had not come.
    pub fn take(&mut self, number: u64, answer: Answer) -> Beat {
        match answer {
            Answer::Superseded { newest } => Beat::Superseded { newest },
            Answer::Held {
                incarnation,
                time_us,
                told,
                gone,
            } => {
                self.apply(told);
                self.taken = number;
                Beat::Held {
                    incarnation,
                    time_us,
                    nodes: self.nodes.values().cloned().collect(),
                    gone,
                }
            }
        }
    }

    fn apply(&mut self, told: Told) {
        match told {
            Told::All(nodes) => {
                let by_name = |node: NodeInfo| (node.owner.node.clone(), node);
                self.nodes = nodes.into_iter().map(by_name).collect();
                self.changes_count = 0;
            }
            Told::Changed(changes) => {
                self.changes_count += 1;
                for (name, change) in changes {
                    match change {
                        Some(node) => self.nodes.insert(name, node),
                        None => self.nodes.remove(&name),
                    };
                }
            }
        }
    }
}

/// Reads the answer of `heartbeat.lua`; `None`: it is not one. A node whose name, incarnation or
/// details cannot be read was not written by this program or is half gone, and counts as not there
/// or as silent.
pub(super) fn read_answer(answer: &[String]) -> Option<Answer> {
    let number = |text: &String| text.parse::<u64>().ok();
    match answer {
        [outcome, newest] if outcome == "superseded" => Some(Answer::Superseded {
            newest: number(newest)?,
        }),
        [outcome, incarnation, time_us, kind, nodes @ ..] if outcome == "held" => {
            let gone = nodes.chunks_exact(3);
            let gone = gone.filter_map(|node| read_end(node.first_chunk()?));
            let nodes = nodes.chunks_exact(3);
            let nodes = nodes.filter_map(|node| read_node(node.first_chunk()?));
            let told = match kind.as_str() {
                "all" => Told::All(nodes.filter_map(|(_, node)| node).collect()),
                "changed" => Told::Changed(nodes.collect()),
                _ => return None,
            };
            Some(Answer::Held {
                incarnation: number(incarnation)?,
                time_us: number(time_us)?,
                told,
                gone: gone.collect(),
            })
        }
        _ => None,
    }
}

fn read_node([name, incarnation, details]: &[String; 3]) -> Option<(NodeId, Option<NodeInfo>)> {
    let name = NodeId::new(name).ok()?;
    let node = incarnation.parse().ok().map(|incarnation| NodeInfo {
        owner: Owner {
            node: name.clone(),
            incarnation,
        },
        details: serde_json::from_str(details).unwrap_or_default(),
    });
    Some((name, node))
}

fn read_end([name, incarnation, word]: &[String; 3]) -> Option<(NodeId, End)> {
    let end = End::read(word).filter(|_| incarnation.is_empty())?;
    Some((NodeId::new(name).ok()?, end))
}

/// What a node says of itself with its heartbeats: the figures that are never at rest are told anew
/// only where they moved by a sixteenth, or after a quarter as many heartbeats as there are nodes.
/// So a beat of all nodes tells every node of some, and not of all. Load is said anew only with the
/// latter, and where it moved far ([`super::load_told`]); alerts at once. How far revocations were read
/// is said beside heartbeats, and here with the figures, unless somebody looks for it here alone.
#[derive(Debug, Default)]
pub(super) struct Saying {
    said: Option<NodeDetails>,
    beats_since: u64,
}

impl Saying {
    /// Of a figure below sixteen times this, a move by less than this is a small one.
    const STEP_MIN: u64 = 16;

    /// What to say now.
    pub(super) fn next(
        &mut self,
        details: &NodeDetails,
        nodes_count: usize,
        all_look_beside: bool,
    ) -> &NodeDetails {
        self.beats_since += 1;
        let is_due = self.beats_since > nodes_count as u64 / 4;
        let mut news = details.clone();
        if let Some(said) = self.said.as_ref().filter(|_| all_look_beside && !is_due) {
            news.revoked = said.revoked;
        }
        if let Some(said) = &self.said
            && Self::rests(said.load.as_ref(), news.load.as_ref(), is_due)
        {
            news.load.clone_from(&said.load);
        }
        let stays = |said: &NodeDetails| !is_due && Self::is_nearly(said, &news);
        if !self.said.as_ref().is_some_and(stays) {
            self.beats_since = 0;
            self.said = None;
        }
        self.said.get_or_insert(news)
    }

    /// Whether the load that was said stands for this one.
    fn rests(said: Option<&LoadTold>, now: Option<&LoadTold>, is_due: bool) -> bool {
        match (said, now) {
            (Some(said), Some(now)) if is_due => said.is_near(now),
            (Some(said), Some(now)) => said.alerts == now.alerts,
            _ => false,
        }
    }

    /// Whether nothing but the sessions differs, and they by little.
    fn is_nearly(said: &NodeDetails, details: &NodeDetails) -> bool {
        let (before, now) = (said.sessions, details.sessions);
        let is_small = before.abs_diff(now) < (before / 16).max(Self::STEP_MIN);
        let is_alike = NodeDetails {
            sessions: now,
            ..said.clone()
        } == *details;
        is_alike && is_small && (before == 0) == (now == 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(owner: &str, sessions: u64) -> NodeInfo {
        NodeInfo {
            owner: owner.parse().unwrap(),
            details: details(sessions),
        }
    }

    fn details(sessions: u64) -> NodeDetails {
        NodeDetails {
            sessions,
            ..NodeDetails::default()
        }
    }

    fn read(answer: &[&str]) -> Option<Answer> {
        read_answer(&answer.iter().map(ToString::to_string).collect::<Vec<_>>())
    }

    fn taken(roster: &mut Roster, told: Told) -> Vec<String> {
        let numbers = roster.numbers();
        let answer = Answer::Held {
            incarnation: 7,
            time_us: 9,
            told,
            gone: Vec::new(),
        };
        let Beat::Held { nodes, .. } = roster.take(numbers.beat, answer) else {
            panic!("it is held");
        };
        let text = |node: &NodeInfo| format!("{} {}", node.owner, node.details.sessions);
        nodes.iter().map(text).collect()
    }

    #[test]
    fn nodes_are_read_and_what_cannot_be_read_is_left_out() {
        let rest = [
            "b",
            "4",
            "[1]",
            "c",
            "",
            "{}",
            "a",
            "7",
            r#"{"sessions":3}"#,
        ];
        let told = |kind| {
            let answer = read(&[&["held", "7", "9", kind][..], &rest].concat());
            let Some(Answer::Held {
                incarnation: 7,
                time_us: 9,
                told,
                gone,
            }) = answer
            else {
                panic!("{answer:?}");
            };
            assert_eq!(gone, []);
            told
        };
        // What b says is from another planet, c has no incarnation.
        let [a, b] = [node("a~7", 3), node("b~4", 0)];
        assert_eq!(told("all"), Told::All(vec![b.clone(), a.clone()]));
        let name = |text| NodeId::new(text).unwrap();
        let changed = vec![
            (name("b"), Some(b)),
            (name("c"), None),
            (name("a"), Some(a)),
        ];
        assert_eq!(told("changed"), Told::Changed(changed));
    }

    #[test]
    fn how_a_node_ended_is_read_where_it_is_told() {
        let gone = [
            "b", "", "left", "c", "", "ended", "d", "", "eaten", "e", "", "",
        ];
        let mut answer = vec!["held", "7", "9", "changed", "a", "7", "left"];
        answer.extend(gone);
        let Some(Answer::Held { told, gone, .. }) = read(&answer) else {
            panic!("it is held");
        };
        let Told::Changed(changed) = told else {
            panic!("only changes are told");
        };
        let are_live: Vec<_> = changed.iter().map(|(_, node)| node.is_some()).collect();
        assert_eq!(are_live, [true, false, false, false, false]);
        let [b, c] = ["b", "c"].map(|name| NodeId::new(name).unwrap());
        assert_eq!(gone, [(b, End::Left), (c, End::Lapsed)]);
    }

    #[test]
    fn superseded_is_read_and_anything_else_is_refused() {
        assert_eq!(
            read(&["superseded", "8"]),
            Some(Answer::Superseded { newest: 8 })
        );
        let strange = [
            &["held"][..],
            &["held", "x", "9", "all"],
            &["held", "7", "9", "some"],
            &["hello", "8"],
            &[],
        ];
        for strange in strange {
            assert_eq!(read(strange), None, "{strange:?}");
        }
    }

    #[test]
    fn changes_are_made_to_what_the_answer_before_left() {
        let mut roster = Roster::default();
        let all = Told::All(vec![node("b~2", 0), node("a~1", 0)]);
        assert_eq!(taken(&mut roster, all), ["a~1 0", "b~2 0"]);
        let change = |name: &str, node| (NodeId::new(name).unwrap(), node);
        let changed = vec![
            change("a", None),
            change("b", Some(node("b~2", 5))),
            change("c", Some(node("c~3", 0))),
        ];
        let changed = taken(&mut roster, Told::Changed(changed));
        assert_eq!(changed, ["b~2 5", "c~3 0"]);
        assert_eq!(roster.numbers(), Numbers { beat: 3, taken: 2 });
        // The answer to that one was lost.
        assert_eq!(roster.numbers(), Numbers { beat: 4, taken: 2 });
    }

    #[test]
    fn all_nodes_are_asked_for_now_and_then() {
        let mut roster = Roster::default();
        taken(&mut roster, Told::All(Vec::new()));
        for number in 1..=TOLD_ALL_AFTER {
            assert_eq!(taken(&mut roster, Told::Changed(Vec::new())).len(), 0);
            let is_due = roster.numbers().taken == 0;
            assert_eq!(is_due, number == TOLD_ALL_AFTER);
        }
        taken(&mut roster, Told::All(Vec::new()));
        assert_ne!(roster.numbers().taken, 0);
    }

    #[test]
    fn sessions_are_told_anew_where_they_moved_far_or_after_a_while() {
        let mut saying = Saying::default();
        let mut says = |sessions| saying.next(&details(sessions), 12, true).sessions;
        assert_eq!([1_600, 1_650, 1_699].map(&mut says), [1_600; 3]);
        assert_eq!(says(1_700), 1_700, "a sixteenth more");
        assert_eq!([1_701, 1_702, 1_703].map(&mut says), [1_700; 3]);
        assert_eq!(says(1_704), 1_704, "a quarter as many beats as nodes");
        assert_eq!([0, 1, 2].map(&mut says), [0, 1, 1], "some or none");
        let mut few = Saying::default();
        assert_eq!(
            [5, 6, 7].map(|n| few.next(&details(n), 3, true).sessions),
            [5, 6, 7]
        );
    }

    #[test]
    fn load_is_told_anew_after_a_while_where_it_moved_far_and_alerts_at_once() {
        let loaded = |cpu_percent, alerts: &[&str]| NodeDetails {
            load: Some(LoadTold {
                cpu_percent,
                alerts: alerts.iter().map(ToString::to_string).collect(),
                ..LoadTold::default()
            }),
            ..details(3)
        };
        let mut saying = Saying::default();
        let mut says = |cpu_percent, alerts: &[&str]| {
            let said = saying.next(&loaded(cpu_percent, alerts), 12, true);
            said.load.clone().unwrap().cpu_percent
        };
        assert_eq!(says(40, &[]), 40);
        assert_eq!([90, 10, 90].map(|cpu| says(cpu, &[])), [40; 3]);
        assert_eq!(says(80, &[]), 80, "a quarter as many beats as nodes");
        // One that moves little is not said anew then.
        assert_eq!([81, 82, 83, 84, 84].map(|cpu| says(cpu, &[])), [80; 5]);
        assert_eq!(says(30, &["cpu_high"]), 30);
        let first = Saying::default().next(&details(3), 1, true).clone();
        assert_eq!(first.load, None);
    }

    #[test]
    fn what_was_read_of_revocations_is_told_with_the_figures_and_at_once_to_who_looks_nowhere_else()
    {
        let read = |revoked| NodeDetails {
            revoked,
            ..details(3)
        };
        let mut saying = Saying::default();
        let mut says = |revoked, all_look| saying.next(&read(revoked), 12, all_look).revoked;
        assert_eq!([1, 2, 3].map(|to| says(to, true)), [1; 3]);
        assert_eq!(says(4, false), 4, "a node of the release before lives");
        assert_eq!([5, 6, 7].map(|to| says(to, true)), [4; 3]);
        assert_eq!(says(8, true), 8, "a quarter as many beats as nodes");
    }

    #[test]
    fn everything_else_is_told_at_once() {
        let mut saying = Saying::default();
        let changed = NodeDetails {
            state: "draining".to_owned(),
            ..details(3)
        };
        saying.next(&details(3), 100, true);
        assert_eq!(*saying.next(&changed, 100, true), changed);
    }
}
