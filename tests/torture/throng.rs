//! Many members: sessions that are in a hundred topics each and must never be told as gone while
//! they are there.
//!
//! In: what nodes tell of members. Out: [`Event::FalseLeave`] for each member that was told as
//! left while its connection stood. Each topic has two sessions, on different nodes, and each of
//! them hears of the other and of itself. Owner: one task a session, on the run's thread. Bound:
//! [`TOPICS_EACH`] topics a session. A node that the run has frozen past its lease is rightly held
//! for dead: its sessions are forgotten until they come back.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use fanfare_bench::socket::{Scratch, SocketError};
use fanfare_client::http::percent_encode;
use rustc_hash::FxHashMap;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::app::App;
use super::closing;
use super::history::Event;
use super::run::Run;
use super::speech::{Form, Speech};
use super::stage::{MEMBERS_NAMESPACE, Stage};

/// Topics of one session.
pub(crate) const TOPICS_EACH: u32 = 100;
/// Between a lost connection, or a refused join, and the next attempt.
const REST: Duration = Duration::from_millis(300);
/// A connection that ended may be noticed here later than the leave that followed it.
const DOUBT: Duration = Duration::from_millis(1_500);
/// A join that was refused is undone, which may be told as late as this after the next one was
/// answered.
const UNDONE_WITHIN: Duration = Duration::from_secs(5);
/// Longest wait until everybody is in, at the begin and at the end.
const ASSEMBLY_PATIENCE: Duration = Duration::from_secs(60);
/// Topics whose members are compared at the end, through every node.
const COMPARED: u32 = 20;

/// The sessions that are connected.
#[derive(Debug, Default)]
pub(crate) struct Living {
    sessions: RefCell<FxHashMap<String, Life>>,
}

/// A session that is connected.
#[derive(Debug)]
struct Life {
    node: usize,
    /// Its topics, and when each join was answered.
    joined: FxHashMap<String, Instant>,
}

impl Living {
    /// A node is held for dead, rightly.
    pub(crate) fn forget_node(&self, node: usize) {
        self.sessions
            .borrow_mut()
            .retain(|_, life| life.node != node);
    }

    fn joined(&self, session: &str, topic: String) {
        if let Some(life) = self.sessions.borrow_mut().get_mut(session) {
            life.joined.entry(topic).or_insert_with(Instant::now);
        }
    }

    /// Whether the session has been a member for some time, and is connected.
    fn is_in(&self, session: &str, topic: &str) -> bool {
        let sessions = self.sessions.borrow();
        let joined = sessions
            .get(session)
            .and_then(|life| life.joined.get(topic));
        joined.is_some_and(|at| at.elapsed() > UNDONE_WITHIN)
    }
}

/// See the module.
pub(crate) struct Throng {
    sessions: Vec<Rc<Member>>,
    over: watch::Sender<bool>,
}

/// One session after the other of one user.
struct Member {
    number: u32,
    run: Rc<Run>,
    stage: Rc<Stage>,
    scratch: Scratch,
    /// The present session.
    session: RefCell<Option<String>>,
    /// Topics that are joined.
    joined: RefCell<BTreeSet<u32>>,
}

impl Throng {
    /// Lets so many members in, and waits until all are.
    pub(crate) async fn gather(
        members_count: u32,
        run: &Rc<Run>,
        stage: &Rc<Stage>,
        scratch: &Scratch,
    ) -> Self {
        let over = watch::Sender::new(false);
        let sessions: Vec<_> = (0..members_count / TOPICS_EACH)
            .map(|number| {
                Rc::new(Member {
                    number,
                    run: Rc::clone(run),
                    stage: Rc::clone(stage),
                    scratch: Rc::clone(scratch),
                    session: RefCell::default(),
                    joined: RefCell::default(),
                })
            })
            .collect();
        for member in &sessions {
            tokio::task::spawn_local(Rc::clone(member).live(over.subscribe()));
        }
        let throng = Self { sessions, over };
        throng.assemble(run).await;
        throng
    }

    /// Waits until everybody is in, and records when that takes too long.
    async fn assemble(&self, run: &Run) {
        let assembled = async {
            while !self.sessions.iter().all(|member| member.is_in()) {
                sleep(REST).await;
            }
        };
        if timeout(ASSEMBLY_PATIENCE, assembled).await.is_err() {
            let out = self.sessions.iter().filter(|member| !member.is_in());
            let out: Vec<_> = out.map(|member| member.number).collect();
            run.broken(format!("members {out:?} are not in"));
        }
    }

    /// Compares what every node shows with who is there, and ends everybody.
    pub(crate) async fn dismiss(self, run: &Rc<Run>, stage: &Rc<Stage>) {
        self.assemble(run).await;
        let pairs = self.sessions.len().div_ceil(2) as u32;
        for look in 0..COMPARED.min(pairs * TOPICS_EACH) {
            let (pair, topic) = (look % pairs, look * 7 % TOPICS_EACH);
            let path = percent_encode(&name(pair, topic));
            let path = format!("/v1/topics/{path}/presence?limit=1000");
            let there = || {
                let of_pair = self.sessions.iter().filter(|m| m.number / 2 == pair);
                of_pair.filter_map(|m| m.session.borrow().clone()).collect()
            };
            for node in 0..stage.nodes_count() {
                let (ghosts, missing) =
                    closing::compare(stage, node, (App::Default, &path), there).await;
                if !ghosts.is_empty() || !missing.is_empty() {
                    let (node, name) = (&stage.seats[node].name, name(pair, topic));
                    run.broken(format!(
                        "{node} shows {ghosts:?} and not {missing:?} in {name}"
                    ));
                }
            }
        }
        self.over.send_replace(true);
    }
}

impl Member {
    fn is_in(&self) -> bool {
        self.session.borrow().is_some() && self.joined.borrow().len() == TOPICS_EACH as usize
    }

    /// Connects again and again until told to end.
    async fn live(self: Rc<Self>, mut over: watch::Receiver<bool>) {
        let nodes = self.stage.nodes_count();
        for attempt in 0.. {
            let node = (self.number as usize + attempt) % nodes;
            tokio::select! {
                // Why it ended matters to nobody: the next one joins everything anew.
                _ = self.session(node) => {}
                _ = over.wait_for(|over| *over) => return,
            }
            if let Some(session) = self.session.take() {
                let living = &self.run.living;
                living.sessions.borrow_mut().remove(&session);
            }
            self.joined.borrow_mut().clear();
            sleep(REST).await;
        }
    }

    async fn session(&self, node: usize) -> Result<(), SocketError> {
        let user = format!("member-{}", self.number);
        let form = Form::of(self.number);
        let to = self.stage.door(node, true);
        let mut speech =
            Speech::open(to, (App::Default, &user), form, false, &self.scratch).await?;
        let (mut events, mut refused) = (Vec::new(), Vec::new());
        speech.send(&json!({"type": "connect", "id": 1})).await?;
        speech.rest(&mut events).await?;
        loop {
            tokio::select! {
                read = speech.read(&mut events) => read?,
                () = sleep(REST), if !refused.is_empty() => {
                    for topic in refused.drain(..) {
                        speech.send(&self.subscribe(topic)).await?;
                    }
                }
            }
            for event in std::mem::take(&mut events) {
                match event["type"].as_str().unwrap_or_default() {
                    "welcome" => {
                        self.welcome(&event, node);
                        for topic in 0..TOPICS_EACH {
                            speech.send(&self.subscribe(topic)).await?;
                        }
                    }
                    "drain" | "unsubscribed" => return Ok(()),
                    _ => refused.extend(self.hear(&event)),
                }
            }
        }
    }

    fn welcome(&self, event: &Value, node: usize) {
        let session = event["session"].as_str().unwrap_or_default().to_owned();
        let living = &self.run.living.sessions;
        let joined = FxHashMap::default();
        living
            .borrow_mut()
            .insert(session.clone(), Life { node, joined });
        self.session.replace(Some(session));
    }

    fn subscribe(&self, topic: u32) -> Value {
        let name = name(self.number / 2, topic);
        json!({"type": "subscribe", "id": u64::from(topic) + 10, "topic": name, "presence": true})
    }

    /// Returns the topic whose join was refused.
    fn hear(&self, event: &Value) -> Option<u32> {
        let id = event["id"].as_u64().and_then(|id| id.checked_sub(10));
        let topic = id.map(|topic| topic as u32);
        match event["type"].as_str().unwrap_or_default() {
            "ok" => {
                if let (Some(topic), Some(session)) = (topic, &*self.session.borrow()) {
                    let name = name(self.number / 2, topic);
                    self.run.living.joined(session, name);
                }
                self.joined.borrow_mut().extend(topic);
            }
            "error" => return topic,
            "presence" => {
                for left in event["left"].as_array().into_iter().flatten() {
                    let session = left["session"].as_str().unwrap_or_default().to_owned();
                    let topic = event["topic"].as_str().unwrap_or_default();
                    self.left(session, topic.to_owned());
                }
            }
            _ => {}
        }
        None
    }

    /// Somebody is told as gone. Looked at again a little later, when the end of a connection
    /// would have been noticed here too.
    fn left(&self, session: String, topic: String) {
        if !self.run.living.is_in(&session, &topic) {
            return;
        }
        let run = Rc::clone(&self.run);
        tokio::task::spawn_local(async move {
            sleep(DOUBT).await;
            if run.living.is_in(&session, &topic) {
                run.push(Event::FalseLeave { session, topic });
            }
        });
    }
}

fn name(pair: u32, topic: u32) -> String {
    format!("{MEMBERS_NAMESPACE}:{pair}-{topic}")
}
