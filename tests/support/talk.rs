//! A well-behaved client of `fanfare.v1` in either wire form, for ordinary talk.
//!
//! Commands and events are JSON values on this side of the client, whatever goes over the wire,
//! so that one test serves both forms.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use super::wait::PATIENCE;

/// A wire form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wire {
    /// Text messages.
    Json,
    /// Binary messages.
    MsgPack,
}

/// Both, for tests that hold for both.
pub const WIRES: [Wire; 2] = [Wire::Json, Wire::MsgPack];

impl Wire {
    fn subprotocol(self) -> &'static str {
        match self {
            Self::Json => "fanfare.v1.json",
            Self::MsgPack => "fanfare.v1.msgpack",
        }
    }
}

/// One session.
#[derive(Debug)]
pub struct Talk {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    wire: Wire,
    waiting: VecDeque<Value>,
    commands_count: u64,
    patience: Duration,
}

impl Talk {
    /// Opens a session and reads nothing yet.
    ///
    /// # Errors
    /// The refusal of the handshake.
    pub async fn open(
        url: &str,
        wire: Wire,
        headers: &[(&'static str, &str)],
    ) -> Result<Self, Box<tungstenite::Error>> {
        let mut request = url.into_client_request()?;
        let subprotocol = wire.subprotocol().parse().expect("a header value");
        request
            .headers_mut()
            .insert("sec-websocket-protocol", subprotocol);
        for (name, value) in headers {
            let value = value.parse().expect("a header value");
            request.headers_mut().insert(*name, value);
        }
        let (socket, response) = connect_async(request).await?;
        let spoken = response.headers().get("sec-websocket-protocol");
        assert_eq!(spoken.expect("a subprotocol is chosen"), wire.subprotocol());
        Ok(Self {
            socket,
            wire,
            waiting: VecDeque::new(),
            commands_count: 0,
            patience: PATIENCE,
        })
    }

    /// Opens a session that is welcomed unasked (`?user=`, `?token=`).
    pub async fn welcomed(url: &str, wire: Wire) -> (Self, Value) {
        let mut talk = Self::connected(url, wire).await;
        let welcome = talk.event_of("welcome").await;
        (talk, welcome)
    }

    /// Opens a session, where the handshake must succeed.
    pub async fn connected(url: &str, wire: Wire) -> Self {
        let opened = Self::open(url, wire, &[]).await;
        opened.unwrap_or_else(|error| panic!("{url} refused the session: {error}"))
    }

    /// Waits so long for each event from now on.
    pub fn be_patient(&mut self, patience: Duration) {
        self.patience = patience;
    }

    /// Sends a value as it is, in this session's wire form.
    pub async fn send(&mut self, value: &Value) {
        let message = match self.wire {
            Wire::Json => Message::text(value.to_string()),
            Wire::MsgPack => {
                let bytes = rmp_serde::to_vec_named(value).expect("JSON fits into MessagePack");
                Message::binary(bytes)
            }
        };
        self.send_message(message).await;
    }

    /// Sends bytes as one message of this session's kind.
    pub async fn send_bytes(&mut self, bytes: &[u8]) {
        let message = match self.wire {
            Wire::Json => Message::text(String::from_utf8_lossy(bytes).into_owned()),
            Wire::MsgPack => Message::binary(Bytes::copy_from_slice(bytes)),
        };
        self.send_message(message).await;
    }

    /// Sends a message of any kind. That the node has hung up is found when reading.
    pub async fn send_message(&mut self, message: Message) {
        let _ = self.socket.send(message).await;
    }

    /// Sends a command under a fresh id and returns the id.
    pub async fn command(&mut self, mut command: Value) -> u64 {
        self.commands_count += 1;
        command["id"] = self.commands_count.into();
        self.send(&command).await;
        self.commands_count
    }

    /// Sends a command and waits for its one answer (`ok`, `error` or `welcome`).
    pub async fn ask(&mut self, command: Value) -> Value {
        let id = self.command(command).await;
        self.answer(id).await
    }

    /// Waits for the answer to a command.
    pub async fn answer(&mut self, id: u64) -> Value {
        self.event(|event| event["id"] == id).await
    }

    /// Sends a command that must succeed.
    pub async fn ok(&mut self, command: Value) -> Value {
        let answer = self.ask(command.clone()).await;
        assert_eq!(answer["type"], "ok", "{command} was answered by {answer}");
        answer
    }

    /// Sends a command that must fail with this code.
    pub async fn refused(&mut self, command: Value, code: &str) -> Value {
        let answer = self.ask(command.clone()).await;
        assert_eq!(
            answer["type"], "error",
            "{command} was answered by {answer}"
        );
        assert_eq!(answer["code"], code, "{command} was answered by {answer}");
        answer
    }

    /// Publishes and returns the position.
    pub async fn publish(&mut self, topic: &str, data: Value) -> String {
        let command = serde_json::json!({"type": "publish", "topic": topic, "data": data});
        let ok = self.ok(command).await;
        ok["position"]
            .as_str()
            .expect("ok of publish has a position")
            .to_owned()
    }

    /// The next event, whichever it is; `None` when the session has ended.
    pub async fn next(&mut self) -> Option<Value> {
        match self.waiting.pop_front() {
            Some(event) => Some(event),
            None => self.read().await.ok(),
        }
    }

    /// The first event that fits; others stay for later.
    pub async fn event(&mut self, fits: impl Fn(&Value) -> bool) -> Value {
        if let Some(at) = self.waiting.iter().position(&fits) {
            return self.waiting.remove(at).expect("found there");
        }
        loop {
            match self.read().await {
                Ok(event) if fits(&event) => return event,
                Ok(event) => self.waiting.push_back(event),
                Err(code) => panic!(
                    "the session ended ({code:?}) before the event came; waiting were {:?}",
                    self.waiting
                ),
            }
        }
    }

    /// The first event of a type; others stay for later.
    pub async fn event_of(&mut self, kind: &str) -> Value {
        self.event(|event| event["type"] == kind).await
    }

    /// The next message of a topic.
    ///
    /// # Panics
    /// When a gap or an end of the subscription comes instead.
    pub async fn message(&mut self, topic: &str) -> Value {
        let of_topic = |event: &Value| {
            event["topic"] == topic
                && ["message", "gap", "unsubscribed"]
                    .iter()
                    .any(|kind| event["type"] == *kind)
        };
        let event = self.event(of_topic).await;
        assert_eq!(event["type"], "message", "{event}");
        event
    }

    /// The next messages of a topic, in the order in which they came.
    pub async fn messages(&mut self, topic: &str, count: usize) -> Vec<Value> {
        let mut messages = Vec::with_capacity(count);
        for _ in 0..count {
            messages.push(self.message(topic).await);
        }
        messages
    }

    /// Reads until the session ends and returns the close code.
    pub async fn close_code(&mut self) -> Option<u16> {
        loop {
            match self.read().await {
                Ok(event) => self.waiting.push_back(event),
                Err(code) => return code,
            }
        }
    }

    /// Closes in order and waits for the answer; returns the code that came back.
    pub async fn close(mut self) -> Option<u16> {
        let _ = self.socket.close(None).await;
        self.close_code().await
    }

    /// Reads one event, or the close code (`None` without a close frame).
    async fn read(&mut self) -> Result<Value, Option<u16>> {
        loop {
            let message = timeout(self.patience, self.socket.next()).await;
            let message = message.unwrap_or_else(|_| {
                panic!(
                    "nothing came for {:?}; waiting were {:?}",
                    self.patience, self.waiting
                )
            });
            match message {
                Some(Ok(Message::Text(text))) => {
                    assert_eq!(self.wire, Wire::Json, "text in a binary session");
                    return Ok(serde_json::from_str(&text).expect("an event is JSON"));
                }
                Some(Ok(Message::Binary(bytes))) => {
                    assert_eq!(self.wire, Wire::MsgPack, "binary in a text session");
                    return Ok(rmp_serde::from_slice(&bytes).expect("an event is MessagePack"));
                }
                Some(Ok(Message::Close(frame))) => {
                    return Err(frame.map(|frame| frame.code.into()));
                }
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Err(None),
            }
        }
    }
}

/// What a message carries, for comparing runs of messages.
pub fn data_of(messages: &[Value]) -> Vec<Value> {
    messages
        .iter()
        .map(|message| message["data"].clone())
        .collect()
}
