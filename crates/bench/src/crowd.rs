//! Many sessions in one thread: each one parked task that reads when there is something.
//!
//! In: a target and a [`Plan`]. Out: a [`Crowd`], whose tally knows what came. Bounds: so many
//! connect at once as the plan says. A session that cannot be opened fails the whole, unless the
//! crowd was open before and comes back; one that ends later is counted. Sessions end when the crowd
//! is dropped or cut; what they had seen stays, so that a cut crowd can be opened again and resumes.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio::sync::{Notify, Semaphore};
use tokio::task::{self, JoinHandle};

use super::error::BenchError;
use super::latency;
use super::progress::Progress;
use super::session::{Memory, Session, Shared, Stall};
use super::socket::{self, Dial, SocketError};
use super::tally::Tally;
use super::target::Target;
use super::wire::Identity;

/// Longest wait before a session that could not be opened is tried again.
const AGAIN_AFTER_MAX: Duration = Duration::from_millis(500);
/// Most tries of one session.
const TRIES_MAX: usize = 100;

/// What a crowd is to be.
#[derive(Debug, Clone)]
pub struct Plan {
    /// How many.
    pub sessions: usize,
    /// The number of the first, which makes its name.
    pub first: usize,
    /// How many connect at the same time.
    pub at_once: usize,
    /// How many begin to connect in a second, at most.
    pub per_s: Option<f64>,
    /// What they join.
    pub topic: Option<String>,
    /// How many publishers number their messages.
    pub publishers: usize,
    /// Whether they keep their positions, and come back with them when they are ended.
    pub comes_back: bool,
    /// Whether the system may keep as little as possible for them that they have not read.
    pub is_narrow: bool,
    /// How to stop them from reading.
    pub stall: Option<Rc<Stall>>,
}

impl Plan {
    /// Sessions on a topic that stay where they are.
    #[must_use]
    pub fn on_topic(sessions: usize, at_once: usize, topic: &str, publishers: usize) -> Self {
        Self {
            sessions,
            first: 0,
            at_once,
            per_s: None,
            topic: Some(topic.to_owned()),
            publishers,
            comes_back: false,
            is_narrow: false,
            stall: None,
        }
    }
}

/// How long the opening took.
#[derive(Debug)]
pub struct Openings {
    /// All of it.
    pub took: Duration,
    /// From dial to welcome.
    pub welcome: Histogram<u64>,
    /// From subscription to answer.
    pub joined: Histogram<u64>,
    /// Dials that had to be tried again.
    pub tried_again: u64,
}

/// Sessions that are open, or were.
pub struct Crowd {
    /// What they have seen.
    pub tally: Rc<Tally>,
    /// What it is; the pace of opening may be changed between two openings.
    pub plan: Plan,
    was_open: bool,
    shared: Rc<Shared>,
    members: Vec<Member>,
}

struct Member {
    identity: Rc<Identity>,
    memory: Rc<RefCell<Memory>>,
    task: Option<JoinHandle<()>>,
}

/// What the tasks tell while they open.
struct Opening {
    opened: Cell<usize>,
    welcome: RefCell<Histogram<u64>>,
    joined: RefCell<Histogram<u64>>,
    tried_again: Cell<u64>,
    failed: RefCell<Option<BenchError>>,
    changed: Notify,
    gate: Semaphore,
}

impl Crowd {
    /// Sessions that are not open yet.
    ///
    /// # Errors
    /// [`BenchError::Target`] where a token cannot be signed.
    pub fn new(target: &Target, plan: Plan, tally: Rc<Tally>) -> Result<Self, BenchError> {
        let shared = Shared {
            wire: Rc::clone(&target.wire),
            dial: Dial {
                address: target.address,
                host: target.host.clone(),
                narrow_bytes: plan.is_narrow.then_some(socket::NARROW_BUFFER_BYTES),
            },
            topic: plan.topic.clone(),
            keeps_positions: plan.comes_back,
            tally: Rc::clone(&tally),
            scratch: socket::scratch(socket::READ_BYTES),
            stall: plan.stall.clone(),
        };
        let members = (plan.first..plan.first + plan.sessions).map(|number| {
            Ok(Member {
                identity: Rc::new(target.identity(number)?),
                memory: Rc::new(RefCell::new(Memory::new(plan.publishers))),
                task: None,
            })
        });
        Ok(Self {
            members: members.collect::<Result<_, BenchError>>()?,
            tally,
            plan,
            was_open: false,
            shared: Rc::new(shared),
        })
    }

    /// Opens all sessions, and waits until each is let in and has joined its topic.
    ///
    /// # Errors
    /// [`BenchError::Open`] for the first session that could not be opened.
    pub async fn open(&mut self, progress: &Progress) -> Result<Openings, BenchError> {
        let begin = Instant::now();
        let opening = Rc::new(Opening {
            opened: Cell::new(0),
            welcome: RefCell::new(latency::histogram()),
            joined: RefCell::new(latency::histogram()),
            tried_again: Cell::new(0),
            failed: RefCell::new(None),
            changed: Notify::new(),
            gate: Semaphore::new(self.plan.at_once),
        });
        let sessions = self.members.len();
        for (number, member) in self.members.iter_mut().enumerate() {
            let starts_after = self.plan.per_s.map(|per_s| number as f64 / per_s);
            let life = Life {
                number,
                sessions,
                starts_at: begin + Duration::from_secs_f64(starts_after.unwrap_or(0.0)),
                comes_back: self.plan.comes_back,
                tries_max: if self.was_open { TRIES_MAX } else { 1 },
                shared: Rc::clone(&self.shared),
                identity: Rc::clone(&member.identity),
                memory: Rc::clone(&member.memory),
            };
            let live = life.live(Rc::clone(&opening));
            member.task = Some(task::spawn_local(live));
        }
        let all_open = async {
            while opening.opened.get() < sessions && opening.failed.borrow().is_none() {
                opening.changed.notified().await;
            }
        };
        let line = || format!("{} of {sessions} sessions open", opening.opened.get());
        progress.during(line, all_open).await;
        if let Some(error) = opening.failed.take() {
            return Err(error);
        }
        self.was_open = true;
        Ok(Openings {
            took: begin.elapsed(),
            welcome: opening.welcome.borrow().clone(),
            joined: opening.joined.borrow().clone(),
            tried_again: opening.tried_again.get(),
        })
    }

    /// Ends every connection at once, without a word to the server.
    pub async fn cut(&mut self) {
        for member in &mut self.members {
            if let Some(task) = member.task.take() {
                task.abort();
                // An aborted task has no result, and its socket is gone once it is awaited.
                let _ = task.await;
            }
        }
    }

    /// How many sessions there are, as a factor of deliveries.
    #[must_use]
    pub fn sessions(&self) -> u64 {
        self.members.len() as u64
    }

    /// The newest number that every session has seen of the first publisher.
    #[must_use]
    pub fn seen_by_all(&self) -> u64 {
        let seen = self.members.iter();
        let seen = seen.map(|member| member.memory.borrow().newest());
        seen.min().unwrap_or(0)
    }

    /// The users that the sessions have.
    #[must_use]
    pub fn users(&self) -> Vec<String> {
        let users = self.members.iter();
        users.filter_map(|m| m.identity.user.clone()).collect()
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        for task in self
            .members
            .iter()
            .filter_map(|member| member.task.as_ref())
        {
            task.abort();
        }
    }
}

/// One session from its first dial on.
struct Life {
    number: usize,
    sessions: usize,
    starts_at: Instant,
    comes_back: bool,
    tries_max: usize,
    shared: Rc<Shared>,
    identity: Rc<Identity>,
    memory: Rc<RefCell<Memory>>,
}

impl Life {
    async fn live(self, opening: Rc<Opening>) {
        tokio::time::sleep_until(self.starts_at.into()).await;
        // The gate is never closed.
        let Ok(place) = opening.gate.acquire().await else {
            return;
        };
        let result = self.try_open(self.tries_max, || {
            opening.tried_again.set(opening.tried_again.get() + 1)
        });
        let session = match result.await {
            Ok((session, took)) => {
                let record = |into: &RefCell<Histogram<u64>>, time| {
                    into.borrow_mut().saturating_record(latency::micros(time));
                };
                record(&opening.welcome, took.welcome);
                took.joined
                    .iter()
                    .for_each(|time| record(&opening.joined, *time));
                opening.opened.set(opening.opened.get() + 1);
                Some(session)
            }
            Err(error) => {
                let error = BenchError::Open {
                    number: self.number + 1,
                    sessions: self.sessions,
                    source: error,
                };
                opening.failed.borrow_mut().get_or_insert(error);
                None
            }
        };
        opening.changed.notify_one();
        drop(place);
        drop(opening);
        if let Some(session) = session {
            self.listen(session).await;
        }
    }

    /// Counts until the end, and where it is wanted comes back after it.
    async fn listen(&self, mut session: Session) {
        let tally = &self.shared.tally;
        loop {
            let end = session.listen().await;
            drop(session);
            if !self.comes_back {
                return tally.session_ended(&end.to_string());
            }
            session = match self.try_open(TRIES_MAX, || ()).await {
                Ok((session, _)) => session,
                Err(error) => return tally.session_ended(&error.to_string()),
            };
            tally.session_returned();
        }
    }

    async fn try_open(
        &self,
        tries_max: usize,
        again: impl Fn(),
    ) -> Result<(Session, super::session::Opened), SocketError> {
        let mut tries = 0;
        loop {
            let (shared, memory) = (Rc::clone(&self.shared), Rc::clone(&self.memory));
            let error = match Session::open(shared, &self.identity, memory).await {
                Ok(opened) => return Ok(opened),
                Err(error) => error,
            };
            tries += 1;
            // What a server refuses in words it will refuse again.
            let is_final = matches!(error, SocketError::Refused(_));
            if is_final || tries >= tries_max {
                return Err(error);
            }
            again();
            tokio::time::sleep(AGAIN_AFTER_MAX.mul_f64(rand::random())).await;
        }
    }
}
