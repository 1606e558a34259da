//! A client of a session in this process, over tungstenite: JSON values in both wire forms.
//!
//! In: commands. Out: events in the order in which they came; [`Client::event`] looks for one and
//! keeps what it passes over for later.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::node::DEADLINE;
use fanfare_protocol::form::Encoding;

/// See the module.
pub(crate) struct Client {
    stream: WebSocketStream<TcpStream>,
    encoding: Encoding,
    passed_over: VecDeque<Value>,
    last_id: u64,
    closed: Option<u16>,
}

impl Client {
    pub(crate) async fn new(stream: TcpStream, encoding: Encoding) -> Self {
        Self {
            stream: WebSocketStream::from_raw_socket(stream, Role::Client, None).await,
            encoding,
            passed_over: VecDeque::new(),
            last_id: 0,
            closed: None,
        }
    }

    /// Sends a command with an id, which is returned.
    pub(crate) async fn send(&mut self, mut command: Value) -> u64 {
        self.last_id += 1;
        command["id"] = self.last_id.into();
        self.send_raw(&command).await;
        self.last_id
    }

    pub(crate) async fn send_raw(&mut self, command: &Value) {
        let message = match self.encoding {
            Encoding::Json => Message::text(command.to_string()),
            Encoding::MsgPack => {
                let bytes = rmp_serde::to_vec_named(command).expect("a value");
                Message::binary(Bytes::from(bytes))
            }
        };
        self.send_message(message).await;
    }

    pub(crate) async fn send_message(&mut self, message: Message) {
        self.stream.send(message).await.expect("an open socket");
    }

    /// The answer to the command with this id.
    pub(crate) async fn answer(&mut self, id: u64) -> Value {
        self.find(&format!("the answer to {id}"), |e| e["id"] == id)
            .await
    }

    pub(crate) async fn ask(&mut self, command: Value) -> Value {
        let id = self.send(command).await;
        self.answer(id).await
    }

    /// Asks and expects `ok` (or `welcome`).
    pub(crate) async fn ok(&mut self, command: Value) -> Value {
        let answer = self.ask(command.clone()).await;
        assert_ne!(answer["type"], "error", "{command}: {answer}");
        answer
    }

    /// Asks and expects an error; returns its code.
    pub(crate) async fn refused(&mut self, command: Value) -> String {
        let answer = self.ask(command.clone()).await;
        assert_eq!(answer["type"], "error", "{command}: {answer}");
        answer["code"].as_str().expect("a code").to_owned()
    }

    pub(crate) async fn subscribe(&mut self, topic: &str, more: Value) -> Value {
        let mut command = json!({"type": "subscribe", "topic": topic});
        let more = more.as_object().expect("a map").clone();
        command.as_object_mut().expect("a map").extend(more);
        self.ok(command).await
    }

    /// The next event of this type.
    pub(crate) async fn event(&mut self, kind: &str) -> Value {
        self.find(kind, |e| e["type"] == kind).await
    }

    async fn find(&mut self, what: &str, is_it: impl Fn(&Value) -> bool) -> Value {
        if let Some(at) = self.passed_over.iter().position(&is_it) {
            return self.passed_over.remove(at).expect("found there");
        }
        loop {
            match self.receive().await {
                Some(event) if is_it(&event) => return event,
                Some(event) => self.passed_over.push_back(event),
                None => panic!("{what} did not come before the end ({:?})", self.closed),
            }
        }
    }

    /// The next event, of whatever kind; `None` when the session is over.
    pub(crate) async fn next(&mut self) -> Option<Value> {
        match self.passed_over.pop_front() {
            Some(event) => Some(event),
            None => self.receive().await,
        }
    }

    /// What came while something else was looked for.
    pub(crate) fn passed_over(&mut self) -> Vec<Value> {
        self.passed_over.drain(..).collect()
    }

    /// What came before the answer to a `ping` that is sent now: all that was on its way.
    pub(crate) async fn all(&mut self) -> Vec<Value> {
        let id = self.send(json!({"type": "ping"})).await;
        let mut all = Vec::new();
        loop {
            let event = self.next().await.expect("an open session");
            if event["id"] == id {
                return all;
            }
            all.push(event);
        }
    }

    /// `data` of the next `count` messages, and nothing else may come between them.
    pub(crate) async fn data(&mut self, count: usize) -> Vec<Value> {
        let mut data = Vec::new();
        for _ in 0..count {
            let event = self.next().await.expect("an open session");
            assert_eq!(event["type"], "message", "{event}");
            data.push(event["data"].clone());
        }
        data
    }

    async fn receive(&mut self) -> Option<Value> {
        loop {
            let next = tokio::time::timeout(DEADLINE, self.stream.next());
            let message = next.await.expect("something in time");
            return match message {
                Some(Ok(Message::Text(text))) => {
                    Some(serde_json::from_str(&text).expect("an event"))
                }
                Some(Ok(Message::Binary(bytes))) => {
                    Some(rmp_serde::from_slice(&bytes).expect("an event"))
                }
                Some(Ok(Message::Close(frame))) => {
                    self.closed = frame.map(|f| f.code.into());
                    continue;
                }
                Some(Ok(_)) => continue,
                Some(Err(_)) | None => None,
            };
        }
    }

    /// The code of the close frame that ends the session, after everything before it.
    pub(crate) async fn close_code(&mut self) -> Option<u16> {
        while self.receive().await.is_some() {}
        self.closed
    }

    /// Sends a command again and again until the connection takes no more, because nobody reads it
    /// at the other end. Returns the id of the last one, which may have gone in part.
    pub(crate) async fn flood(&mut self, command: &Value) -> u64 {
        const PATIENCE: Duration = Duration::from_millis(500);
        loop {
            let sent = self.send(command.clone());
            if tokio::time::timeout(PATIENCE, sent).await.is_err() {
                return self.last_id;
            }
        }
    }

    /// The ids of all replies up to this one, in order. Meanwhile what was sent in part goes out.
    pub(crate) async fn replies_until(&mut self, last: u64) -> Vec<u64> {
        let (mut sink, mut stream) = (&mut self.stream).split();
        let read = async {
            let mut ids = Vec::new();
            while ids.last() != Some(&last) {
                let message = stream.next().await.expect("an open session");
                if let Ok(Message::Text(text)) = message {
                    let event: Value = serde_json::from_str(&text).expect("an event");
                    ids.extend(event["id"].as_u64());
                }
            }
            ids
        };
        let both = async { tokio::join!(sink.flush(), read) };
        let both = tokio::time::timeout(DEADLINE, both).await;
        let (flushed, ids) = both.expect("everything in time");
        flushed.expect("an open socket");
        ids
    }
}
