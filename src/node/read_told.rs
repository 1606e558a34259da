//! How far the live nodes have read revocations: this node says it, and looks while a call waits.
//!
//! In: that this node has read further, and that somebody waits. Out: what others said, in
//! [`ReadTold::told`]. Owner of that: the task that looks. Where it is said: [`Progress`]; and with an
//! early heartbeat while a node of the release before lives, which looks nowhere else. Bounds: this node
//! says it at most every [`APART`], and looks as often, however many calls there are. What cannot be
//! said is said again; what cannot be read stays as it was, and calls are answered 202.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::sleep;

use crate::cluster::membership::Membership;
use crate::cluster::membership_machine::MembershipState;
use crate::revocation::known::Revocations;
use crate::revocation::progress::Progress;
use crate::tasks;
use fanfare_protocol::ids::Owner;

/// Least time from one saying to the next, and from one look to the next.
const APART: Duration = Duration::from_millis(50);
/// So long after somebody began to wait it is looked first: the others have to read.
const FIRST_LOOK: Duration = Duration::from_millis(10);
/// After so long it is tried again to say what could not be said.
const AGAIN: Duration = Duration::from_millis(250);

/// See the module. A clone tells and looks with the same tasks.
#[derive(Debug, Clone)]
pub struct ReadTold {
    /// Told when this node has read further.
    pub read_on: Arc<Notify>,
    wanted: Arc<Notify>,
    told: Arc<watch::Sender<Told>>,
}

/// Up to which change which life has read, as it said.
pub type Told = HashMap<Owner, u64>;

impl Default for ReadTold {
    fn default() -> Self {
        Self {
            read_on: Arc::default(),
            wanted: Arc::default(),
            told: Arc::new(watch::channel(Told::new()).0),
        }
    }
}

impl ReadTold {
    /// Starts both tasks. `hurry` asks for a heartbeat.
    pub fn start(
        &self,
        progress: &Progress,
        known: &Revocations,
        membership: &Membership,
        hurry: &Arc<Notify>,
    ) {
        let saying = Saying {
            progress: progress.clone(),
            known: known.clone(),
            membership: membership.clone(),
            hurry: Arc::clone(hurry),
        };
        tasks::vital("revocations_said", saying.run(Arc::clone(&self.read_on)));
        let (wanted, told) = (Arc::clone(&self.wanted), Arc::clone(&self.told));
        let looking = look(progress.clone(), membership.clone(), wanted, told);
        tasks::vital("revocations_looked", looking);
    }

    /// What others said, and whenever it was looked anew.
    #[must_use]
    pub fn told(&self) -> watch::Receiver<Told> {
        self.told.subscribe()
    }

    /// Somebody waits: asks for one look.
    pub fn want(&self) {
        self.wanted.notify_one();
    }
}

/// What the task that says it has.
struct Saying {
    progress: Progress,
    known: Revocations,
    membership: Membership,
    hurry: Arc<Notify>,
}

impl Saying {
    async fn run(self, read_on: Arc<Notify>) {
        let mut is_owed = false;
        loop {
            if is_owed {
                sleep(AGAIN).await;
            } else {
                read_on.notified().await;
            }
            is_owed = !self.say().await;
            if !self.membership.now().all_look_beside() {
                self.hurry.notify_one();
            }
            sleep(APART).await;
        }
    }

    /// Whether there is nothing left to say.
    async fn say(&self) -> bool {
        let MembershipState::Member(me) = self.membership.standing().borrow().clone() else {
            return false;
        };
        let said = self.progress.tell(&me, self.known.read_to()).await;
        if let Err(error) = &said {
            let error = error as &(dyn std::error::Error + 'static);
            tracing::debug!(
                event = "revocation_reading_missed",
                error,
                "how far revocations were read could not be said, and will be said again"
            );
        }
        said.is_ok()
    }
}

/// Looks when somebody waits.
async fn look(
    progress: Progress,
    membership: Membership,
    wanted: Arc<Notify>,
    told: Arc<watch::Sender<Told>>,
) {
    loop {
        wanted.notified().await;
        sleep(FIRST_LOOK).await;
        let view = membership.now();
        let lives = view.nodes.iter().map(|node| node.owner.clone());
        let others: Vec<_> = lives.filter(|life| life.node != view.me.node).collect();
        if let Ok(said) = progress.told(&others).await {
            told.send_replace(said);
        }
        sleep(APART).await;
    }
}
