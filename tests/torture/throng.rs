//! Many members: sessions that are in a hundred topics each and must never be told as gone while
//! they are there.
//!
//! In: what nodes tell of members. Out: [`Event::FalseLeave`] for each session that was told as
//! left while its connection stood. Each topic has two sessions, on different nodes, and each of
//! them hears of the other and of itself. Owner: one task a session, on the run's thread. Bound:
//! [`TOPICS_EACH`] topics a session. A node that the run has frozen past its lease is rightly held
//! for dead: its sessions are forgotten until they come back.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use fanfare::cli::bench::socket::{Scratch, SocketError};
use fanfare::cli::http::percent_encode;
use rustc_hash::FxHashMap;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

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
/// Longest wait until everybody is in, at the begin and at the end.
const ASSEMBLY_PATIENCE: Duration = Duration::from_secs(60);
/// Topics whose members are compared at the end, through every node.
const COMPARED: u32 = 20;

/// The sessions that are connected, and through which node.
#[derive(Debug, Default)]
pub(crate) struct Living {
    sessions: RefCell<FxHashMap<String, usize>>,
}

impl Living {
    /// A node is held for dead, rightly.
    pub(crate) fn forget_node(&self, node: usize) {
        self.sessions.borrow_mut().retain(|_, of| *of != node);
    }

    fn is_living(&self, session: &str) -> bool {
        self.sessions.borrow().contains_key(session)
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
                let (ghosts, missing) = closing::compare(stage, node, &path, there).await;
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
        let mut speech = Speech::open(to, &user, form, false, &self.scratch).await?;
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
        living.borrow_mut().insert(session.clone(), node);
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
            "ok" => self.joined.borrow_mut().extend(topic),
            "error" => return topic,
            "presence" => {
                for left in event["left"].as_array().into_iter().flatten() {
                    let session = left["session"].as_str().unwrap_or_default().to_owned();
                    self.left(session, &event["topic"]);
                }
            }
            _ => {}
        }
        None
    }

    /// Somebody is told as gone. Looked at again a little later, when the end of a connection
    /// would have been noticed here too.
    fn left(&self, session: String, topic: &Value) {
        if !self.run.living.is_living(&session) {
            return;
        }
        let (run, topic) = (Rc::clone(&self.run), topic.to_string());
        tokio::task::spawn_local(async move {
            sleep(DOUBT).await;
            if run.living.is_living(&session) {
                run.push(Event::FalseLeave { session, topic });
            }
        });
    }
}

fn name(pair: u32, topic: u32) -> String {
    format!("{MEMBERS_NAMESPACE}:{pair}-{topic}")
}
