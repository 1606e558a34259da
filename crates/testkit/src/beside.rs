//! A good client beside a bad one: it talks to itself through the node all the while and must
//! miss nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::json;
use tokio::task::JoinHandle;

use crate::node::Node;
use crate::talk::Talk;
use fanfare_protocol::form::Encoding;

/// How fast it talks; it is to be there, not to load the node.
const PACE: Duration = Duration::from_millis(5);

/// The good client, at work.
#[derive(Debug)]
pub struct Beside {
    enough: Arc<AtomicBool>,
    talking: JoinHandle<()>,
}

impl Beside {
    /// Begins to talk, with a token or as `?user=` in the query.
    pub async fn start(node: &Node, query: &str) -> Self {
        let topic = "beside:good";
        let (mut talk, _) = Talk::welcomed(&node.connect_url(query), Encoding::Json).await;
        talk.ok(json!({"type": "subscribe", "topic": topic})).await;
        let enough = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&enough);
        let talking = tokio::spawn(async move {
            for number in 0.. {
                let last = until.load(Ordering::Relaxed);
                talk.ok(json!({"type": "publish", "topic": topic, "data": number, "echo": true}))
                    .await;
                assert_eq!(talk.message(topic).await["data"], number);
                if last {
                    break;
                }
                tokio::time::sleep(PACE).await;
            }
        });
        Self { enough, talking }
    }

    /// Ends the talk with one more message, which began after this call.
    ///
    /// # Panics
    /// When a message was lost, doubled or late.
    pub async fn unharmed(self) {
        self.enough.store(true, Ordering::Relaxed);
        self.talking.await.expect("the good client lost something");
    }
}
