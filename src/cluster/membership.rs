//! Membership: keeps this node's lease alive and tells everybody who else lives.
//!
//! In: answers to heartbeats, sent five times per lease. Out: levels that anybody may watch: the
//! [`View`], this node's [`MembershipState`], and why heartbeats bring nothing. Owner of all: the [`MembershipTask`], on the
//! control runtime; what an answer means is decided in `membership_machine`. Bounds: one heartbeat is in
//! flight and given up after two fifths of the lease, so that at least two fit into one. When
//! Redis is away the last view stays and, a lease later, is no longer fresh. A node with the
//! in-process broker runs the same task, which then answers itself.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::{Notify, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tracing::{debug, error, info, warn};

use super::comparison::Comparison;
use super::entry::{Entry, Judgement};
use super::lease_store::{LeaseError, LeaseStore};
use super::membership_machine::{MembershipMachine, MembershipState};
use super::others::Others;
use super::roster::Beat;
use super::texts::Texts;
use super::trouble::Trouble;
use super::view::{NodeDetails, NodeInfo, View};
use crate::telemetry::metrics::Metrics;
use fanfare_protocol::ids::{NodeId, Owner};

/// Least time from one heartbeat to the next, whoever asks and how often.
const HURRIED: Duration = Duration::from_millis(200);
/// Heartbeats per lease.
pub const BEATS_PER_LEASE: u32 = 5;

/// What membership needs to know.
pub struct Settings {
    /// This node's name.
    pub node: NodeId,
    /// How long a lease lasts without a heartbeat.
    pub lease: Duration,
    /// The number of partitions that this node is configured for.
    pub partitions_count: u32,
    /// What the node says of itself, asked at each heartbeat.
    pub details: Box<dyn Fn() -> NodeDetails + Send + Sync>,
    /// What it keeps and promises, and what is known of others.
    pub texts: Texts,
    /// Where heartbeats and live nodes are counted.
    pub metrics: Arc<Metrics>,
    /// Told when the next heartbeat should not wait for its time.
    pub hurry: Arc<Notify>,
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Settings of {}", self.node)
    }
}

/// The handle: what everybody else sees of the membership.
#[derive(Debug, Clone)]
pub struct Membership {
    view: watch::Receiver<Arc<View>>,
    standing: watch::Receiver<MembershipState>,
    trouble: watch::Receiver<Option<String>>,
    comparison: watch::Receiver<Comparison>,
    leave: Arc<watch::Sender<bool>>,
    is_bare: Arc<AtomicBool>,
}

impl Membership {
    /// A node of the cluster whose leases are in `store`, or without one a node alone, which is
    /// a member at once. The caller runs the task; nothing is sent before.
    #[must_use]
    pub fn new(settings: Settings, store: Option<LeaseStore>) -> (Self, MembershipTask) {
        let me = Owner {
            node: settings.node.clone(),
            incarnation: 0,
        };
        let first = View::alone(me, (settings.details)(), settings.partitions_count);
        let lease = store.as_ref().map_or(Duration::MAX, |_| settings.lease);
        let course = MembershipMachine::new(first, lease);
        let leases = match store {
            Some(store) => Leases::Redis(Box::new(store)),
            None => Leases::Alone {
                incarnation: unix_us(),
            },
        };
        let (view, view_rx) = watch::channel(Arc::clone(&course.view));
        let (standing, standing_rx) = watch::channel(course.standing.clone());
        let (trouble, trouble_rx) = Trouble::new(Arc::clone(&settings.metrics));
        let (others, comparison) = Others::new(settings.texts.clone());
        let (leave, leave_rx) = watch::channel(false);
        let is_bare = Arc::new(AtomicBool::new(false));
        let mut task = MembershipTask {
            settings,
            leases,
            course,
            view,
            standing,
            leave: leave_rx,
            is_bare: Arc::clone(&is_bare),
            trouble,
            others,
            entry: Entry::New,
            started: Instant::now(),
        };
        if let Leases::Alone { incarnation } = task.leases {
            let beat = task.beat_alone(incarnation);
            task.course.answered(beat, Instant::now());
        }
        task.tell();
        let membership = Self {
            view: view_rx,
            standing: standing_rx,
            trouble: trouble_rx,
            comparison,
            leave: Arc::new(leave),
            is_bare,
        };
        (membership, task)
    }

    /// The cluster as this node sees it, now and whenever it changes.
    #[must_use]
    pub fn view(&self) -> watch::Receiver<Arc<View>> {
        self.view.clone()
    }

    /// The present view.
    #[must_use]
    pub fn now(&self) -> Arc<View> {
        Arc::clone(&self.view.borrow())
    }

    /// The state of this node, now and whenever it changes.
    #[must_use]
    pub fn standing(&self) -> watch::Receiver<MembershipState> {
        self.standing.clone()
    }

    /// What became of the last heartbeat, as the end of a sentence about it, with the reason; `None`
    /// where it was answered, or none was sent yet.
    #[must_use]
    pub fn trouble(&self) -> watch::Receiver<Option<String>> {
        self.trouble.clone()
    }

    /// How the settings of the other nodes compared with this one's at the last heartbeat.
    #[must_use]
    pub fn comparison(&self) -> Comparison {
        self.comparison.borrow().clone()
    }

    /// Gives the lease back and returns when the task has ended, whether Redis answered or not.
    /// `is_bare`: nothing is under this node's name any more, so that nobody need look for it.
    pub async fn leave(&self, is_bare: bool) {
        self.is_bare.store(is_bare, Ordering::Relaxed);
        self.leave.send_replace(true);
        // An error means that the task is gone, which is what is waited for.
        let _ended = self
            .standing()
            .wait_for(MembershipState::is_final)
            .await
            .is_ok();
    }
}

/// Where leases are kept.
#[derive(Debug)]
enum Leases {
    Redis(Box<LeaseStore>),
    /// Nowhere: the incarnation only has to differ from those of earlier lives.
    Alone {
        incarnation: u64,
    },
}

/// The task of a [`Membership`].
#[derive(Debug)]
pub struct MembershipTask {
    settings: Settings,
    leases: Leases,
    course: MembershipMachine,
    view: watch::Sender<Arc<View>>,
    standing: watch::Sender<MembershipState>,
    leave: watch::Receiver<bool>,
    is_bare: Arc<AtomicBool>,
    trouble: Trouble,
    others: Others,
    entry: Entry,
    started: Instant,
}

/// What a turn brought.
enum Turn {
    Beat(Beat),
    /// Nothing to take in until this long has passed.
    Look(Duration),
    /// The name belongs to a process that lives.
    Taken,
    /// Redis takes no writes. For so long this node's lease surely lasts all the same.
    Refused(LeaseError, Duration),
}

impl MembershipTask {
    /// Sends heartbeats until the standing is final. When every handle is gone nobody needs the
    /// lease any more, and it is given back.
    pub async fn run(mut self) {
        let mut beats = interval(self.settings.lease / BEATS_PER_LEASE);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut leave, hurry) = (self.leave.clone(), Arc::clone(&self.settings.hurry));
        let mut last = Instant::now();
        while !self.course.standing.is_final() {
            // All waits are cancel-safe.
            tokio::select! {
                _ = beats.tick() => {
                    last = Instant::now();
                    if let Some(soon) = self.beat().await {
                        beats.reset_after(soon);
                    }
                }
                () = hurry.notified() => beats.reset_at(last + HURRIED),
                () = asked(&mut leave) => self.give_back().await,
            }
            self.tell();
        }
    }

    /// Returns when to go on, where that is not at the next heartbeat: while this process looks at its
    /// name's holder, and where this is the first heartbeat that brought nothing.
    async fn beat(&mut self) -> Option<Duration> {
        let sent_at = Instant::now();
        match timeout(self.patience(), self.ask()).await {
            Ok(Ok(Turn::Look(look))) => {
                self.trouble.answered();
                return Some(look);
            }
            Ok(Ok(Turn::Taken)) => self.course.turned_away(),
            Ok(Ok(Turn::Beat(beat))) => {
                self.trouble.over();
                self.course.answered(beat, sent_at);
            }
            Ok(Ok(Turn::Refused(error, left))) => return self.refused(&error, left, sent_at),
            Ok(Err(error)) => return self.unanswered(&error),
            Err(_) => return self.unanswered(&LeaseError::Late(self.patience())),
        }
        None
    }

    /// When a heartbeat that brought nothing is sent again, if it is the first, or if there is no link:
    /// a lease must not end while the link is back and its heartbeat not due. Whoever looks at this
    /// node's name asks as often whether Redis takes writes (`entry`): a shorter moment in which it
    /// takes none escapes him, and must not take away the sign of life that he waits for.
    fn soon(&self, is_wanted: bool) -> Option<Duration> {
        is_wanted.then(|| self.settings.lease / (4 * BEATS_PER_LEASE))
    }

    /// One exchange with Redis. Where that takes no writes, this node's state is read.
    async fn ask(&mut self) -> Result<Turn, LeaseError> {
        match self.exchange().await {
            Err(error) if error.is_read_only() => {
                let left = self.left().await.unwrap_or_default();
                Ok(Turn::Refused(error, left))
            }
            turn => turn,
        }
    }

    /// How long this node's lease lasts though it cannot be extended; `None`: it has none, or that
    /// cannot be read.
    async fn left(&self) -> Option<Duration> {
        let Leases::Redis(store) = &self.leases else {
            return None;
        };
        let mine = self.course.standing.incarnation()?;
        let own = store.own_lease(&self.settings.node, mine).await.ok()??;
        Some(own.left(self.settings.lease))
    }

    async fn exchange(&mut self) -> Result<Turn, LeaseError> {
        let look = self.look();
        let store = match &mut self.leases {
            Leases::Redis(store) => store,
            Leases::Alone { incarnation } => {
                let incarnation = *incarnation;
                return Ok(Turn::Beat(self.beat_alone(incarnation)));
            }
        };
        let node = &self.settings.node;
        if matches!(self.entry, Entry::Free) {
            if store.was_contested(node).await? {
                error!(
                    event = "name_contested",
                    "another process was started with this node's name, and was sent away"
                );
            }
        } else {
            // While Redis takes no writes, a holder that lives says nothing new.
            store.try_write().await?;
            let said = store.holder_of(node).await?;
            match self.entry.judge(said, Instant::now(), look) {
                Judgement::Free => self.entry = Entry::Free,
                Judgement::Look(look) => return Ok(Turn::Look(look)),
                Judgement::Taken => {
                    // This process ends, whether word can be left or not.
                    if let Err(error) = store.contest(node).await {
                        let error = &error as &(dyn std::error::Error + 'static);
                        warn!(
                            event = "contest_failed",
                            error, "the holder of this name could not be told of this process"
                        );
                    }
                    return Ok(Turn::Taken);
                }
            }
            // Word that was left for an earlier process of the name.
            store.was_contested(node).await?;
        }
        let Settings { node, lease, .. } = &self.settings;
        let mine = self.course.standing.incarnation();
        let details = (self.settings.details)();
        let beat = store.heartbeat(node, mine, *lease, &details).await?;
        Ok(Turn::Beat(beat))
    }

    fn beat_alone(&self, incarnation: u64) -> Beat {
        Beat::Held {
            incarnation,
            time_us: unix_us(),
            nodes: vec![NodeInfo {
                owner: Owner {
                    node: self.settings.node.clone(),
                    incarnation,
                },
                details: (self.settings.details)(),
            }],
            gone: Vec::new(),
        }
    }

    fn unanswered(&mut self, error: &LeaseError) -> Option<Duration> {
        self.look_anew();
        // A node asks before it is connected: while it starts that is no news.
        let is_starting = self.course.standing == MembershipState::Joining
            && self.started.elapsed() < self.settings.lease;
        let is_first = self.trouble.missed(error, !is_starting);
        self.course.unanswered(Instant::now());
        self.soon(is_first || error.is_unsent())
    }

    /// Redis is there and takes no writes, so that nobody's lease can be extended. Who lives stays as
    /// it was, and this node is a member for as long as Redis says that its lease lasts.
    fn refused(
        &mut self,
        error: &LeaseError,
        left: Duration,
        sent_at: Instant,
    ) -> Option<Duration> {
        self.look_anew();
        let is_first = self.trouble.refused(error);
        self.course.refused(left, sent_at, Instant::now());
        self.soon(is_first)
    }

    /// Who has no name yet looks at its holder again.
    fn look_anew(&mut self) {
        if self.course.standing == MembershipState::Joining {
            self.entry.interrupt();
        }
    }

    async fn give_back(&mut self) {
        if let Leases::Redis(store) = &self.leases {
            let is_bare = self.is_bare.load(Ordering::Relaxed);
            let left = store.leave(&self.settings.node, is_bare);
            let answer = timeout(self.patience(), left).await;
            if !matches!(answer, Ok(Ok(()))) {
                warn!(
                    event = "lease_not_returned",
                    "the lease could not be given back, it ends by itself"
                );
            }
        }
        self.course.standing = MembershipState::Left;
    }

    /// How long a holder has to show that it lives: one and a half heartbeats, or a whole lease where
    /// Redis took no writes, or was away for so long that the holder has to find it first.
    fn look(&self) -> Duration {
        let lease = self.settings.lease;
        if self.trouble.was_refused() || self.trouble.lasted() > lease / 2 {
            lease
        } else {
            lease * 3 / (2 * BEATS_PER_LEASE)
        }
    }

    /// Two fifths of the lease.
    fn patience(&self) -> Duration {
        self.settings.lease * 2 / BEATS_PER_LEASE
    }

    /// Shows view and standing to the watchers, and the operator what changed.
    fn tell(&mut self) {
        let (now, metrics) = (Arc::clone(&self.course.view), &self.settings.metrics);
        let nodes_count = now.nodes.len();
        let seen = self.view.send_replace(Arc::clone(&now));
        self.others.tell(&seen, &now, &self.course.gone, metrics);
        let before = self.standing.borrow().clone();
        let standing = &self.course.standing;
        if *standing == before {
            return;
        }
        match (standing, &before) {
            (MembershipState::Member(me), MembershipState::Member(old)) => {
                metrics.control.incarnations_changed.add(1);
                warn!(
                    event = "incarnation_changed",
                    incarnation = me.incarnation,
                    before = old.incarnation,
                    "the lease had ended, a new incarnation was taken"
                );
            }
            (MembershipState::Member(me), _) => info!(
                event = "cluster_joined",
                incarnation = me.incarnation,
                nodes_count,
                "joined the cluster"
            ),
            (MembershipState::Superseded { newest }, _) => error!(
                event = "name_lost",
                newest, "another process has taken this node's name"
            ),
            (MembershipState::NameTaken, _) => error!(
                event = "name_taken",
                "a running process has this node's name; this one ends"
            ),
            (MembershipState::Left | MembershipState::Joining, _) => {
                debug!(event = "cluster_left", "left the cluster")
            }
        }
        self.standing.send_replace(standing.clone());
    }
}

/// Waits until the wish is there, or nobody is left to have one. Cancel-safe.
pub(super) async fn asked(leave: &mut watch::Receiver<bool>) {
    // The answer holds a lock and is dropped here, before the caller's next await.
    let _asked = leave.wait_for(|&leave| leave).await.is_ok();
}

fn unix_us() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| u64::try_from(now.as_micros()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[tokio::test]
    async fn a_node_alone_is_a_member_at_once_shows_its_sessions_and_leaves() {
        let sessions = Arc::new(AtomicU64::new(0));
        let shown = Arc::clone(&sessions);
        let (membership, task) = Membership::new(
            Settings {
                node: NodeId::new("a").unwrap(),
                lease: Duration::from_millis(50),
                partitions_count: 256,
                details: Box::new(move || NodeDetails {
                    sessions: shown.load(Ordering::Relaxed),
                    ..NodeDetails::default()
                }),
                texts: Texts::default(),
                hurry: Arc::default(),
                metrics: Arc::new(Metrics::new(1)),
            },
            None,
        );
        let now = membership.now();
        assert_eq!(
            *membership.standing().borrow(),
            MembershipState::Member(now.me.clone())
        );
        assert!(now.fresh && now.is_live(&now.me) && now.me.incarnation > 0);

        let task = tokio::spawn(task.run());
        sessions.store(3, Ordering::Relaxed);
        let mut view = membership.view();
        let shows_three = |view: &Arc<View>| view.nodes[0].details.sessions == 3;
        let shown = timeout(Duration::from_secs(60), view.wait_for(shows_three)).await;
        assert!(shown.unwrap().unwrap().fresh);
        membership.leave(true).await;
        task.await.unwrap();
        assert_eq!(*membership.standing().borrow(), MembershipState::Left);
    }
}
