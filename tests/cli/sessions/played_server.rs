//! A server of `fanfare.v1` whose every word is in the test: it takes connections by hand, tells
//! what the client said, and says what the test wants. For tests of the client's side only.

use fanfare_testkit::wait::PATIENCE;
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

/// Waits, but not for ever.
pub(crate) async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what).await.expect("in time")
}

/// A server whose every word is in the test.
pub(crate) struct Server(TcpListener);

impl Server {
    /// Listens on a free port.
    pub(crate) async fn start() -> Self {
        Self(TcpListener::bind("127.0.0.1:0").await.expect("a free port"))
    }

    /// Where it listens.
    pub(crate) fn url(&self) -> String {
        format!("ws://{}", self.0.local_addr().expect("an address"))
    }

    /// Takes the next connection up to the handshake.
    pub(crate) async fn accept(&self) -> Session {
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
    pub(crate) async fn welcome(&self, welcome: Value) -> (Session, Value) {
        let mut session = self.accept().await;
        let mut connect = session.hear().await;
        session.answer(&connect, "welcome", welcome).await;
        connect.as_object_mut().expect("a map").remove("id");
        (session, connect)
    }

    /// Takes the next connection and its `subscribe`, which it answers with `ok`; gives the
    /// `subscribe` without its id.
    pub(crate) async fn joined(&self, ok: Value) -> (Session, Value) {
        let (mut session, _) = self.welcome(json!({"node": "n"})).await;
        let mut subscribe = session.hear().await;
        session.answer(&subscribe, "ok", ok).await;
        subscribe.as_object_mut().expect("a map").remove("id");
        (session, subscribe)
    }

    /// Takes the next connection, whose `connect` joins topics, and answers what became of them;
    /// gives what it says of them.
    pub(crate) async fn resumed(&self, topics: Value) -> (Session, Value) {
        let welcome = json!({"node": "n", "topics": topics});
        let (session, mut connect) = self.welcome(welcome).await;
        (session, connect["topics"].take())
    }

    /// Refuses the next connection with a status.
    pub(crate) async fn refuse(&self, head: &str) {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
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
pub(crate) struct Session {
    socket: WebSocketStream<TcpStream>,
    /// What the handshake asked for.
    pub(crate) uri: String,
    /// The header of that name.
    pub(crate) authorization: Option<String>,
}

impl Session {
    /// The client's next frame.
    pub(crate) async fn hear(&mut self) -> Value {
        loop {
            match soon(self.socket.next())
                .await
                .expect("open")
                .expect("a frame")
            {
                Message::Text(text) => return serde_json::from_str(&text).expect("JSON"),
                Message::Ping(_) | Message::Pong(_) => {}
                other => panic!("unexpected {other:?}"),
            }
        }
    }

    /// Sends an event.
    pub(crate) async fn say(&mut self, event: Value) {
        let text = Message::text(event.to_string());
        soon(self.socket.send(text)).await.expect("sent");
    }

    /// Answers a command.
    pub(crate) async fn answer(&mut self, command: &Value, kind: &str, mut answer: Value) {
        answer["type"] = kind.into();
        answer["id"] = command["id"].clone();
        self.say(answer).await;
    }

    /// Sends a message.
    pub(crate) async fn message(&mut self, topic: &str, position: &str) {
        self.say(message(topic, position)).await;
    }

    /// Closes with a code.
    pub(crate) async fn close(&mut self, code: u16) {
        let frame = CloseFrame {
            code: code.into(),
            reason: "because".into(),
        };
        soon(self.socket.close(Some(frame))).await.expect("sent");
    }

    /// Waits until the client has ended the connection, and how.
    pub(crate) async fn ended(mut self) -> Option<Message> {
        soon(self.socket.next()).await.and_then(Result::ok)
    }
}

/// A message as the server sends it.
pub(crate) fn message(topic: &str, position: &str) -> Value {
    json!({"type": "message", "topic": topic, "position": position, "time": 1_007, "data": "hi"})
}
