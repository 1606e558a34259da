//! A well-behaved client of `fanfare.v1` in either wire form, for ordinary talk.
//!
//! Commands and events are JSON values on this side of the client, whatever goes over the encoding,
//! so that one test serves both forms.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use fanfare_protocol::form::Encoding;
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use crate::kept;
use crate::wait::PATIENCE;

fn subprotocol(encoding: Encoding) -> &'static str {
    match encoding {
        Encoding::Json => "fanfare.v1.json",
        Encoding::MsgPack => "fanfare.v1.msgpack",
    }
}

fn message(encoding: Encoding, value: &Value) -> Message {
    match encoding {
        Encoding::Json => Message::text(value.to_string()),
        Encoding::MsgPack => {
            let bytes = rmp_serde::to_vec_named(value).expect("JSON fits into MessagePack");
            Message::binary(bytes)
        }
    }
}

/// One session.
#[derive(Debug)]
pub struct Talk {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    encoding: Encoding,
    waiting: VecDeque<Value>,
    commands_count: u64,
    patience: Duration,
    closed: Option<u16>,
}

impl Talk {
    /// Opens a session and reads nothing yet.
    ///
    /// # Errors
    /// The refusal of the handshake.
    pub async fn open(
        url: &str,
        encoding: Encoding,
        headers: &[(&'static str, &str)],
    ) -> Result<Self, Box<tungstenite::Error>> {
        let mut request = url.into_client_request()?;
        let asked = subprotocol(encoding).parse().expect("a header value");
        request
            .headers_mut()
            .insert("sec-websocket-protocol", asked);
        for (name, value) in headers {
            let value = value.parse().expect("a header value");
            request.headers_mut().insert(*name, value);
        }
        let (socket, response) = connect_async(request).await?;
        let spoken = response.headers().get("sec-websocket-protocol");
        assert_eq!(
            spoken.expect("a subprotocol is chosen"),
            subprotocol(encoding)
        );
        Ok(Self::of(socket, encoding))
    }

    /// A session over a connection that is taken for upgraded, as one inside this process is.
    pub async fn over(stream: TcpStream, encoding: Encoding) -> Self {
        let stream = MaybeTlsStream::Plain(stream);
        let socket = WebSocketStream::from_raw_socket(stream, Role::Client, None).await;
        Self::of(socket, encoding)
    }

    fn of(socket: WebSocketStream<MaybeTlsStream<TcpStream>>, encoding: Encoding) -> Self {
        Self {
            socket,
            encoding,
            waiting: VecDeque::new(),
            commands_count: 0,
            patience: PATIENCE,
            closed: None,
        }
    }

    /// Opens a session that is welcomed unasked (`?user=`, `?token=`).
    pub async fn welcomed(url: &str, encoding: Encoding) -> (Self, Value) {
        let mut talk = Self::connected(url, encoding).await;
        let welcome = talk.event_of("welcome").await;
        (talk, welcome)
    }

    /// Opens a session, where the handshake must succeed.
    pub async fn connected(url: &str, encoding: Encoding) -> Self {
        let opened = Self::open(url, encoding, &[]).await;
        opened.unwrap_or_else(|error| panic!("{url} refused the session: {error}"))
    }

    /// Waits so long for each event from now on.
    pub fn be_patient(&mut self, patience: Duration) {
        self.patience = patience;
    }

    /// Sends a value as it is, in this session's wire form.
    pub async fn send(&mut self, value: &Value) {
        self.send_message(message(self.encoding, value)).await;
    }

    /// Sends bytes as one message of this session's kind.
    pub async fn send_bytes(&mut self, bytes: &[u8]) {
        let message = match self.encoding {
            Encoding::Json => Message::text(String::from_utf8_lossy(bytes).into_owned()),
            Encoding::MsgPack => Message::binary(Bytes::copy_from_slice(bytes)),
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

    /// Sends a command that must succeed: `ok`, and to `connect` `welcome`.
    pub async fn ok(&mut self, command: Value) -> Value {
        let answer = self.ask(command.clone()).await;
        let expected = match command["type"].as_str() {
            Some("connect") => "welcome",
            _ => "ok",
        };
        assert_eq!(
            answer["type"], expected,
            "{command} was answered by {answer}"
        );
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

    /// Subscribes, with these fields beside the topic's name (`{}`: with none).
    pub async fn subscribe(&mut self, topic: &str, more: Value) -> Value {
        let mut command = json!({"type": "subscribe", "topic": topic});
        let more = more.as_object().expect("a map").clone();
        command.as_object_mut().expect("a map").extend(more);
        self.ok(command).await
    }

    /// Publishes and returns the position.
    pub async fn publish(&mut self, topic: &str, data: Value) -> String {
        let command = json!({"type": "publish", "topic": topic, "data": data});
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

    /// What came while something else was looked for.
    pub fn passed_over(&mut self) -> Vec<Value> {
        self.waiting.drain(..).collect()
    }

    /// What came before the answer to a `ping` that is sent now: all that was on its way.
    pub async fn all(&mut self) -> Vec<Value> {
        let id = self.command(json!({"type": "ping"})).await;
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
    pub async fn data(&mut self, count: usize) -> Vec<Value> {
        let mut data = Vec::new();
        for _ in 0..count {
            let event = self.next().await.expect("an open session");
            assert_eq!(event["type"], "message", "{event}");
            data.push(event["data"].clone());
        }
        data
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

    /// Sends a command again and again until the connection takes no more, because nobody reads
    /// it at the other end. Returns the id of the last one, which may have gone in part.
    pub async fn flood(&mut self, command: &Value) -> u64 {
        const FULL_AFTER: Duration = Duration::from_millis(500);
        let mut command = command.clone();
        loop {
            self.commands_count += 1;
            command["id"] = self.commands_count.into();
            let sent = self.socket.send(message(self.encoding, &command));
            match timeout(FULL_AFTER, sent).await {
                Ok(sent) => sent.expect("an open socket"),
                Err(_) => return self.commands_count,
            }
        }
    }

    /// The ids of all replies up to this one, in order. Meanwhile what was sent in part goes out.
    pub async fn replies_until(&mut self, last: u64) -> Vec<u64> {
        let (mut sink, mut stream) = (&mut self.socket).split();
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
        let both = timeout(self.patience, both).await;
        let (flushed, ids) = both.expect("everything in time");
        flushed.expect("an open socket");
        ids
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
                    assert_eq!(self.encoding, Encoding::Json, "text in a binary session");
                    if text.contains(r#""type":"error""#) {
                        kept::line("refusals", || text.to_string());
                    }
                    return Ok(serde_json::from_str(&text).expect("an event is JSON"));
                }
                Some(Ok(Message::Binary(bytes))) => {
                    assert_eq!(self.encoding, Encoding::MsgPack, "binary in a text session");
                    return Ok(rmp_serde::from_slice(&bytes).expect("an event is MessagePack"));
                }
                Some(Ok(Message::Close(frame))) => {
                    kept::line("refusals", || format!("{frame:?}"));
                    self.closed = frame.map(|frame| frame.code.into());
                    // The answer, which the library has ready. That nobody takes it is no fault.
                    let _ = self.socket.flush().await;
                    return Err(self.closed);
                }
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Err(self.closed),
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
