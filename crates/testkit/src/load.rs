//! A steady publisher and a steady listener, for whatever is done to a cluster meanwhile.
//!
//! The publisher sends 0, 1, 2, … to one topic, each once the one before was answered `ok`. An
//! answer that says `retry` is followed by a repeat under the same idempotency key, so that what
//! the listener must hear is known exactly: every number once, in order.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::node::Node;
use crate::talk::Talk;
use crate::wait;
use fanfare_protocol::form::Encoding;

/// The last message of a load.
const END: &str = "end";

/// How long to wait before a refused publication is repeated.
const REPEAT_AFTER: Duration = Duration::from_millis(50);

/// Longest silence, which spans the time that a server needs to come back.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// The publisher, at work.
#[derive(Debug)]
pub struct Load {
    enough: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    publishing: JoinHandle<()>,
}

impl Load {
    /// Begins to publish through this node.
    pub async fn start(node: &Node, topic: &str) -> Self {
        let (mut talk, _) = Talk::welcomed(&node.connect_url("?user=load"), Encoding::Json).await;
        talk.be_patient(SILENCE_MAX);
        let (enough, answered) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicU64::new(0)),
        );
        let (until, count, topic) = (Arc::clone(&enough), Arc::clone(&answered), topic.to_owned());
        let publishing = tokio::spawn(async move {
            while !until.load(Ordering::Relaxed) {
                let number = count.load(Ordering::Relaxed);
                publish(&mut talk, &topic, json!(number)).await;
                count.store(number + 1, Ordering::Relaxed);
            }
            publish(&mut talk, &topic, json!(END)).await;
        });
        Self {
            enough,
            answered,
            publishing,
        }
    }

    /// How many were answered `ok`.
    pub fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    /// Waits until so many more were answered `ok`.
    pub async fn goes_on(&self, more: u64) {
        let from = self.answered();
        wait::until_within(SILENCE_MAX, "publications to be answered", async || {
            (self.answered() >= from + more).then_some(())
        })
        .await;
    }

    /// Ends the load and returns what every listener must have heard.
    pub async fn end(self) -> Vec<Value> {
        self.enough.store(true, Ordering::Relaxed);
        self.publishing.await.expect("the publisher failed");
        (0..self.answered.load(Ordering::Relaxed))
            .map(Value::from)
            .collect()
    }
}

async fn publish(talk: &mut Talk, topic: &str, data: Value) {
    let key = data.to_string();
    let command = json!({"type": "publish", "topic": topic, "data": data, "idempotency_key": key});
    loop {
        let answer = talk.ask(command.clone()).await;
        if answer["type"] == "ok" {
            return;
        }
        assert_eq!(answer["retry"], true, "{command} was answered by {answer}");
        tokio::time::sleep(REPEAT_AFTER).await;
    }
}

/// The listener, at work.
#[derive(Debug)]
pub struct Listening {
    count: Arc<AtomicU64>,
    hearing: JoinHandle<Vec<Value>>,
}

impl Listening {
    /// Joins the topic on this node and hears everything from now on.
    pub async fn start(node: &Node, user: &str, wire: Encoding, topic: &str) -> Self {
        let url = node.connect_url(&format!("?user={user}"));
        let (mut talk, _) = Talk::welcomed(&url, wire).await;
        talk.ok(json!({"type": "subscribe", "topic": topic})).await;
        Self::go_on(talk, topic)
    }

    /// Hears everything on a topic that the session has joined.
    pub fn go_on(mut talk: Talk, topic: &str) -> Self {
        let topic = topic.to_owned();
        talk.be_patient(SILENCE_MAX);
        let count = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&count);
        let hearing = tokio::spawn(async move {
            let mut heard = Vec::new();
            loop {
                let message = talk.message(&topic).await;
                if message["data"] == END {
                    return heard;
                }
                heard.push(message["data"].clone());
                counted.fetch_add(1, Ordering::Relaxed);
            }
        });
        Self { count, hearing }
    }

    /// Waits until so many more were heard, well before a sweep would find what is missing.
    pub async fn goes_on(&self, more: u64) {
        let from = self.count.load(Ordering::Relaxed);
        wait::until("messages to be heard", async || {
            (self.count.load(Ordering::Relaxed) >= from + more).then_some(())
        })
        .await;
    }

    /// What was heard until the load ended.
    ///
    /// # Panics
    /// When a gap was told, or the session ended.
    pub async fn heard(self) -> Vec<Value> {
        self.hearing
            .await
            .expect("the listener was told a gap or cut off")
    }

    /// Heard the last of `answered`, each once and in order, from when it had joined: by then
    /// `before` were answered, and one more was on its way.
    pub async fn heard_all(self, answered: &[Value], before: u64) {
        let heard = self.heard().await;
        assert!(heard.len() as u64 + before + 1 >= answered.len() as u64);
        assert_eq!(heard, answered[answered.len() - heard.len()..]);
    }
}
