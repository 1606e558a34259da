//! One process of the simulation: its membership, its partitions, and how it fares.
//!
//! In: what the world does to it. Out: whether it acts. Owner: the world. One heartbeat waits for its
//! answer at a time, and the calls of one round.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::duties::Duty;
use crate::cluster::membership_machine::{MembershipMachine, MembershipState};
use crate::cluster::ring::Ring;
use crate::cluster::roster::Roster;
use crate::cluster::view::{NodeDetails, NodeInfo, View};
use fanfare_protocol::ids::{NodeId, Owner};

/// As a cluster has them by default.
pub(super) const PARTITIONS: u32 = 256;
pub(super) const LEASE: Duration = Duration::from_secs(5);

thread_local! {
    /// Rings that were dealt already: there are few sets of so few names.
    static RINGS: RefCell<HashMap<Vec<NodeId>, Arc<Ring>>> = RefCell::default();
}

/// The ring of these names.
pub(super) fn ring(names: &[NodeId]) -> Arc<Ring> {
    RINGS.with_borrow_mut(|rings| {
        let known = rings.entry(names.to_vec());
        Arc::clone(known.or_insert_with(|| Arc::new(Ring::new(names, PARTITIONS))))
    })
}

/// See the module.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) holder: u64,
    /// It runs the scripts of the release before.
    pub(super) is_old: bool,
    pub(super) roster: Roster,
    /// What it says of itself.
    pub(super) sessions: u64,
    pub(super) course: MembershipMachine,
    pub(super) duty: Duty,
    pub(super) is_dead: bool,
    pub(super) paused_until_ms: u64,
    pub(super) cut_until_ms: u64,
    /// The number of the heartbeat that waits for its answer, and when it was sent.
    pub(super) waits: Option<(u64, u64)>,
    pub(super) next_beat_ms: u64,
    /// Until when an answer or a refusal has shown its lease.
    pub(super) shown_until_ms: Option<u64>,
    /// Since when another process has its name.
    pub(super) taken_ms: Option<u64>,
    /// When what it sent last reaches Redis, and the last answer to it arrives.
    pub(super) reaches_ms: [u64; 2],
}

impl Process {
    /// It comes up under this name.
    pub(super) fn new(name: &str, holder: u64, now_ms: u64) -> Self {
        let node = NodeId::new(name).expect("a valid name");
        let me = Owner {
            node: node.clone(),
            incarnation: 0,
        };
        let view = View {
            nodes: vec![NodeInfo {
                owner: me.clone(),
                details: NodeDetails::default(),
            }],
            ring: ring(&[node]),
            fresh: true,
            time_us: 0,
            until: None,
            bare: Vec::new(),
            contexts_from: None,
            told_at: Instant::now(),
            me: me.clone(),
        };
        let mut course = MembershipMachine::new(view, LEASE);
        course.deal = |names, _| ring(names);
        Self {
            holder,
            is_old: false,
            roster: Roster::default(),
            sessions: 0,
            course,
            duty: Duty::new(me),
            is_dead: false,
            paused_until_ms: 0,
            cut_until_ms: 0,
            waits: None,
            next_beat_ms: now_ms,
            shown_until_ms: None,
            taken_ms: None,
            reaches_ms: [now_ms; 2],
        }
    }

    /// It lives and has not given up.
    pub(super) fn is_running(&self) -> bool {
        !self.is_dead && !self.course.standing.is_final()
    }

    pub(super) fn was_superseded(&self) -> bool {
        matches!(self.course.standing, MembershipState::Superseded { .. })
    }

    pub(super) fn name(&self) -> &NodeId {
        &self.course.view.me.node
    }

    pub(super) fn acts(&self, now_ms: u64) -> bool {
        self.is_running() && self.paused_until_ms <= now_ms
    }
}
