//! A server of `fanfare.v1` whose every word is in the test: it takes connections by hand, tells
//! what the client said, and says what the test wants. For tests of the client's side only.

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

use crate::wait::PATIENCE;

/// Waits, but not for ever.
pub async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what).await.expect("in time")
}

/// See the module.
#[derive(Debug)]
pub struct Server(TcpListener);

impl Server {
    /// Listens on a free port.
    pub async fn start() -> Self {
        Self(TcpListener::bind("127.0.0.1:0").await.expect("a free port"))
    }

    /// Where it listens.
    pub fn url(&self) -> String {
        format!("ws://{}", self.0.local_addr().expect("an address"))
    }

    /// Takes the next connection up to the handshake.
    pub async fn accept(&self) -> Session {
        let (stream, _) = soon(self.0.accept()).await.expect("a connection");
        let mut asked = (String::new(), None);
        #[allow(clippy::result_large_err)]
        let answer = |request: &Request, mut response: Response| {
            let header = |name: &str| request.headers().get(name).cloned();
            let token = header("authorization");
            asked.0 = request.uri().to_string();
            asked.1 = token.map(|value| value.to_str().expect("ASCII").to_owned());
            let offered = header("sec-websocket-protocol").expect("a subprotocol");
            assert_eq!(offered, "fanfare.v1.json");
            response
                .headers_mut()
                .insert("sec-websocket-protocol", offered);
            Ok(response)
        };
        let socket = tokio_tungstenite::accept_hdr_async(stream, answer);
        let socket = soon(socket).await.expect("a handshake");
        let (uri, authorization) = asked;
        Session {
            socket,
            uri,
            authorization,
        }
    }

    /// Takes the next connection up to `welcome`; gives the `connect` without its id.
    pub async fn welcome(&self, welcome: Value) -> (Session, Value) {
        let mut session = self.accept().await;
        let mut connect = session.hear().await;
        session.answer(&connect, "welcome", welcome).await;
        connect.as_object_mut().expect("a map").remove("id");
        (session, connect)
    }

    /// Takes the next connection and its `subscribe`, which it answers with `ok`; gives the
    /// `subscribe` without its id.
    pub async fn joined(&self, ok: Value) -> (Session, Value) {
        let (mut session, _) = self.welcome(json!({"node": "n"})).await;
        let mut subscribe = session.hear().await;
        session.answer(&subscribe, "ok", ok).await;
        subscribe.as_object_mut().expect("a map").remove("id");
        (session, subscribe)
    }

    /// Takes the next connection, whose `connect` joins topics, and answers what became of them;
    /// gives what it says of them.
    pub async fn resumed(&self, topics: Value) -> (Session, Value) {
        let welcome = json!({"node": "n", "topics": topics});
        let (session, mut connect) = self.welcome(welcome).await;
        (session, connect["topics"].take())
    }

    /// Refuses the next connection with a status.
    pub async fn refuse(&self, head: &str) {
        let (mut stream, _) = soon(self.0.accept()).await.expect("a connection");
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            request.push(soon(stream.read_u8()).await.expect("a request"));
        }
        let answer = format!("HTTP/1.1 {head}\r\nContent-Length: 0\r\n\r\n");
        stream.write_all(answer.as_bytes()).await.expect("written");
    }
}

/// The server's side of one connection.
#[derive(Debug)]
pub struct Session {
    socket: WebSocketStream<TcpStream>,
    /// What the handshake asked for.
    pub uri: String,
    /// The header of that name.
    pub authorization: Option<String>,
}

impl Session {
    /// The client's next frame of text, as it came.
    pub async fn hear_text(&mut self) -> String {
        loop {
            match self.hear_frame().await {
                Message::Text(text) => return text.to_string(),
                Message::Ping(_) | Message::Pong(_) => {}
                other => panic!("unexpected {other:?}"),
            }
        }
    }

    /// Its next frame of any kind.
    pub async fn hear_frame(&mut self) -> Message {
        let frame = soon(self.socket.next()).await.expect("open");
        frame.expect("a frame")
    }

    /// Its next command.
    pub async fn hear(&mut self) -> Value {
        serde_json::from_str(&self.hear_text().await).expect("JSON")
    }

    /// Its next command, which must be of this type and for this topic.
    pub async fn hear_of(&mut self, kind: &str, topic: &str) -> Value {
        let command = self.hear().await;
        let of = (command["type"].as_str(), command["topic"].as_str());
        assert_eq!(of, (Some(kind), Some(topic)), "{command}");
        command
    }

    /// Sends a frame of text.
    pub async fn say_text(&mut self, text: String) {
        soon(self.socket.send(Message::text(text)))
            .await
            .expect("sent");
    }

    /// Sends an event.
    pub async fn say(&mut self, event: Value) {
        self.say_text(event.to_string()).await;
    }

    /// Answers a command.
    pub async fn answer(&mut self, command: &Value, kind: &str, mut answer: Value) {
        answer["type"] = kind.into();
        answer["id"] = command["id"].clone();
        self.say(answer).await;
    }

    /// Sends a message.
    pub async fn message(&mut self, topic: &str, position: &str) {
        self.say(message(topic, position)).await;
    }

    /// Sends a message whose data is its number, behind the position of the one before.
    pub async fn number(&mut self, topic: &str, number: usize) {
        let position = format!("{}-0", number + 2);
        self.say(json!({
            "type": "message", "topic": topic, "data": number, "position": position, "time": 1,
        }))
        .await;
    }

    /// Sends a message of a topic without history.
    pub async fn unplaced(&mut self, topic: &str, number: usize) {
        self.say(json!({"type": "message", "topic": topic, "data": number, "time": 1}))
            .await;
    }

    /// Answers a `subscribe` with a topic that begins live at `1-0`.
    pub async fn join(&mut self, topic: &str) {
        let command = self.hear_of("subscribe", topic).await;
        self.answer(&command, "ok", joined("1-0")).await;
    }

    /// Answers a command with an error; `unavailable` passes.
    pub async fn refuse(&mut self, command: &Value, code: &str) {
        let is_passing = code == "unavailable";
        let error = json!({"code": code, "message": "no", "retry": is_passing});
        self.answer(command, "error", error).await;
    }

    /// Closes with a code.
    pub async fn close(&mut self, code: u16) {
        let frame = CloseFrame {
            code: code.into(),
            reason: "because".into(),
        };
        soon(self.socket.close(Some(frame))).await.expect("sent");
    }

    /// Waits until the client has ended the connection, and how.
    pub async fn ended(mut self) -> Option<Message> {
        soon(self.socket.next()).await.and_then(Result::ok)
    }
}

/// A message as the server sends it.
pub fn message(topic: &str, position: &str) -> Value {
    json!({"type": "message", "topic": topic, "position": position, "time": 1_007, "data": "hi"})
}

/// What `ok` and `welcome` say of a topic that goes on at a position.
pub fn joined(position: &str) -> Value {
    json!({"recovered": true, "position": position})
}

/// What `welcome` says of a topic that cannot be joined at the moment.
pub fn unavailable() -> Value {
    json!({"error": {"code": "unavailable", "message": "the broker is away"}})
}
