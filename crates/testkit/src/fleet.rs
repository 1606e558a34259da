//! A crowd of readers that move as `docs/protocol.md` asks, and a publisher whose every number they
//! must read once and in order.
//!
//! A reader stays on one topic. It comes back with its position after what `drain` said, to a node
//! that takes sessions, in turns as a simple balancer deals them. What it then gets must go on with
//! the next number; anything else is a fault.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::task::{JoinHandle, JoinSet};

use crate::http;
use crate::node::Node;
use crate::talk::Talk;
use crate::wait;
use fanfare_protocol::form::Encoding;

/// How long anything may take: the longest drain, and the start of a node.
pub const PATIENCE: Duration = Duration::from_secs(120);
/// What a client waits after a refused handshake, and a publisher after a refused batch.
const REFUSED_REST: Duration = Duration::from_millis(200);
/// Handshakes of the beginning at the same time.
const AT_ONCE: usize = 64;

/// A node that is ready, as a balancer knows it.
#[derive(Debug, Clone, PartialEq)]
pub struct Door {
    url: String,
    api: SocketAddr,
}

impl Door {
    /// The way into this node.
    pub fn of(node: &Node) -> Self {
        Self {
            url: node.connect_url(""),
            api: node.api,
        }
    }
}

/// What all clients share.
#[derive(Debug, Default)]
pub struct Fleet {
    /// The nodes that are ready.
    pub doors: Mutex<Vec<Door>>,
    /// Sessions and publications take turns apart: together they could fall into step, and leave
    /// a node out for ever.
    session_turn: AtomicUsize,
    publication_turn: AtomicUsize,
    /// When each session that was sent away had its `welcome` elsewhere.
    pub returns: Mutex<Vec<Instant>>,
    faults: Mutex<Vec<String>>,
}

/// The value under a lock.
pub fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no holder of this lock panics")
}

impl Fleet {
    /// Clients of these nodes.
    pub fn new<'n>(nodes: impl IntoIterator<Item = &'n Node>) -> Arc<Self> {
        let doors = nodes.into_iter().map(Door::of).collect();
        Arc::new(Self {
            doors: Mutex::new(doors),
            ..Self::default()
        })
    }

    /// A way in, each in turn.
    fn door(&self, turn: &AtomicUsize) -> Door {
        let doors = locked(&self.doors);
        doors[turn.fetch_add(1, Ordering::Relaxed) % doors.len()].clone()
    }

    fn fault(&self, user: usize, what: &str) {
        locked(&self.faults).push(format!("u{user}: {what}"));
    }

    /// Opens a session, at another door where one refuses.
    async fn enter(&self, user: usize) -> Talk {
        loop {
            let url = format!("{}?user=u{user}", self.door(&self.session_turn).url);
            match Talk::open(&url, Encoding::Json, &[]).await {
                Ok(mut talk) => {
                    talk.be_patient(PATIENCE);
                    talk.event_of("welcome").await;
                    return talk;
                }
                Err(_) => tokio::time::sleep(REFUSED_REST).await,
            }
        }
    }
}

/// One reader of one topic over all its sessions.
struct Reader {
    fleet: Arc<Fleet>,
    user: usize,
    topic: String,
    talk: Talk,
    position: Value,
    next: Option<u64>,
}

impl Reader {
    async fn open(fleet: Arc<Fleet>, user: usize, topic: String) -> Self {
        let mut talk = fleet.enter(user).await;
        let ok = talk.ok(json!({"type": "subscribe", "topic": topic})).await;
        let position = ok["position"].clone();
        Self {
            fleet,
            user,
            topic,
            talk,
            position,
            next: None,
        }
    }

    /// Reads to the end of the load.
    async fn run(mut self) {
        while let Some(reconnect_after) = self.read().await {
            // The old session goes on until then; what it brings comes again behind `position`.
            tokio::time::sleep(reconnect_after).await;
            self.talk = self.fleet.enter(self.user).await;
            locked(&self.fleet.returns).push(Instant::now());
            let (topic, since) = (&self.topic, &self.position);
            let command = json!({"type": "subscribe", "topic": topic, "since": since});
            let ok = self.talk.ok(command).await;
            if ok["recovered"] != true {
                self.fleet.fault(self.user, &ok.to_string());
            }
        }
    }

    /// Reads one session to its end: how long to wait before the next, or `None` when all is read.
    async fn read(&mut self) -> Option<Duration> {
        while let Some(event) = self.talk.next().await {
            match event["type"].as_str() {
                Some("drain") => {
                    let ms = event["reconnect_after_ms"].as_u64().expect("a number");
                    return Some(Duration::from_millis(ms));
                }
                Some("message") if event["topic"] == self.topic => {
                    let end = event["data"]["end"].as_u64();
                    let number = event["data"].as_u64().or(end).expect("a number");
                    let wanted = self.next.unwrap_or(number);
                    if number != wanted {
                        let what = format!("{number} came instead of {wanted}");
                        self.fleet.fault(self.user, &what);
                    }
                    if end.is_some() {
                        return None;
                    }
                    self.next = Some(number + 1);
                    self.position = event["position"].clone();
                }
                Some("gap" | "unsubscribed") => self.fleet.fault(self.user, &event.to_string()),
                _ => {}
            }
        }
        self.fleet.fault(self.user, "cut off without a word");
        Some(Duration::from_secs(1))
    }
}

/// Opens all sessions, and lets them read.
pub async fn open_all(fleet: &Arc<Fleet>, sessions: usize, topics: usize) -> JoinSet<()> {
    let mut readers = JoinSet::new();
    let at_once = Arc::new(tokio::sync::Semaphore::new(AT_ONCE));
    let joined = Arc::new(AtomicUsize::new(0));
    for user in 0..sessions {
        let topic = format!("t:{}", user % topics);
        let (fleet, joined) = (Arc::clone(fleet), Arc::clone(&joined));
        let place = Arc::clone(&at_once).acquire_owned().await;
        readers.spawn(async move {
            let reader = Reader::open(fleet, user, topic).await;
            drop(place);
            joined.fetch_add(1, Ordering::Relaxed);
            reader.run().await;
        });
    }
    wait::until_within(PATIENCE, "everybody to join", async || {
        (joined.load(Ordering::Relaxed) == sessions).then_some(())
    })
    .await;
    readers
}

/// A steady publisher of numbers on every topic.
#[derive(Debug)]
pub struct Numbers {
    enough: Arc<AtomicBool>,
    publishing: JoinHandle<u64>,
}

impl Numbers {
    /// Begins to publish on so many topics, one number each in every interval.
    pub fn start(fleet: &Arc<Fleet>, topics: usize, every: Duration) -> Self {
        let (fleet, enough) = (Arc::clone(fleet), Arc::new(AtomicBool::new(false)));
        let until = Arc::clone(&enough);
        let publishing = tokio::spawn(async move {
            let mut ticks = tokio::time::interval(every);
            let mut number = 0;
            while !until.load(Ordering::Relaxed) {
                ticks.tick().await;
                publish(&fleet, topics, number, &json!(number)).await;
                number += 1;
            }
            publish(&fleet, topics, number, &json!({"end": number})).await;
            number
        });
        Self { enough, publishing }
    }

    /// Ends the load, waits until every reader has read all of it, and returns how many numbers
    /// that were.
    ///
    /// # Panics
    /// When something was lost, doubled or out of order, or a loss was told.
    pub async fn end(self, fleet: &Fleet, mut readers: JoinSet<()>) -> u64 {
        self.enough.store(true, Ordering::Relaxed);
        let numbers = self
            .publishing
            .await
            .expect("the publisher came to its end");
        while let Some(reader) = readers.join_next().await {
            reader.expect("the reader came to its end");
        }
        let faults = locked(&fleet.faults);
        let shown = &faults[..faults.len().min(10)];
        assert!(
            faults.is_empty(),
            "{} faults, such as {shown:#?}",
            faults.len()
        );
        numbers
    }
}

/// One publication on every topic, repeated under its key until it was answered.
async fn publish(fleet: &Fleet, topics: usize, number: u64, data: &Value) {
    let topics: Vec<_> = (0..topics).map(|topic| format!("t:{topic}")).collect();
    let key = number.to_string();
    let body = json!({"topics": topics, "data": data, "idempotency_key": key});
    loop {
        let to = fleet.door(&fleet.publication_turn).api;
        let answer = http::try_post(to, "/v1/publish", &body).await;
        if let Some(answer) = answer
            && answer.status == 200
            && answer.json()["failed"].is_null()
        {
            return;
        }
        tokio::time::sleep(REFUSED_REST).await;
    }
}
