//! A server of `fanfare.v1` whose every word is in the test, and a client of it.

use std::time::Duration;

use fanfare_client::{Client, Item, Options, Subscribe, Subscription};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

/// Waits, but not for ever.
pub(crate) async fn soon<T>(what: impl Future<Output = T>) -> T {
    let in_time = tokio::time::timeout(Duration::from_secs(60), what).await;
    in_time.expect("in time")
}

pub(crate) struct Server(TcpListener);

impl Server {
    pub(crate) async fn start() -> Self {
        Self(TcpListener::bind("127.0.0.1:0").await.expect("a free port"))
    }

    pub(crate) fn options(&self) -> Options {
        let address = self.0.local_addr().expect("an address");
        Options {
            urls: vec![format!("ws://{address}")],
            ..Options::default()
        }
    }

    /// Takes the next connection up to the handshake.
    pub(crate) async fn accept(&self) -> Session {
        let (stream, _) = soon(self.0.accept()).await.expect("a connection");
        let mut authorization = None;
        #[allow(clippy::result_large_err)]
        let answer = |request: &Request, mut response: Response| {
            let header = |name: &str| request.headers().get(name).cloned();
            let token = header("authorization");
            authorization = token.map(|token| token.to_str().expect("ASCII").to_owned());
            let offered = header("sec-websocket-protocol").expect("a subprotocol");
            let headers = response.headers_mut();
            headers.insert("sec-websocket-protocol", offered);
            Ok(response)
        };
        let socket = tokio_tungstenite::accept_hdr_async(stream, answer);
        let socket = soon(socket).await.expect("a handshake");
        Session {
            socket,
            authorization,
        }
    }

    /// Takes the next connection up to `welcome`; gives the `connect`.
    pub(crate) async fn welcome(&self, welcome: Value) -> (Session, Value) {
        let mut session = self.accept().await;
        let connect = session.hear().await;
        session.answer(&connect, "welcome", welcome).await;
        (session, connect)
    }

    /// Takes the next connection, whose `connect` joins topics, and answers what became of them.
    pub(crate) async fn resumed(&self, topics: Value) -> (Session, Value) {
        self.welcome(json!({"node": "n", "topics": topics})).await
    }

    /// Refuses the next connection with a status.
    pub(crate) async fn refuse(&self, head: &str) {
        let (mut stream, _) = soon(self.0.accept()).await.expect("a connection");
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            request.push(soon(stream.read_u8()).await.expect("a request"));
        }
        let answer = format!("HTTP/1.1 {head}\r\nContent-Length: 0\r\n\r\n");
        stream.write_all(answer.as_bytes()).await.expect("written");
    }

    /// A client, and the server's side of its first connection.
    pub(crate) async fn client(&self, options: Options, welcome: Value) -> (Client, Session) {
        let (client, (session, _)) =
            tokio::join!(soon(Client::connect(options)), self.welcome(welcome));
        (client.expect("connected"), session)
    }
}

/// The server's side of one connection.
pub(crate) struct Session {
    socket: WebSocketStream<TcpStream>,
    pub(crate) authorization: Option<String>,
}

impl Session {
    /// The client's next frame of text, as it came.
    pub(crate) async fn hear_text(&mut self) -> String {
        loop {
            let frame = soon(self.socket.next()).await.expect("open");
            match frame.expect("a frame") {
                Message::Text(text) => return text.to_string(),
                Message::Ping(_) | Message::Pong(_) => {}
                other => panic!("unexpected {other:?}"),
            }
        }
    }

    /// The next frame of any kind.
    pub(crate) async fn hear_frame(&mut self) -> Message {
        let frame = soon(self.socket.next()).await.expect("open");
        frame.expect("a frame")
    }

    pub(crate) async fn hear(&mut self) -> Value {
        serde_json::from_str(&self.hear_text().await).expect("JSON")
    }

    /// The next command, which must be of this type and for this topic.
    pub(crate) async fn hear_of(&mut self, kind: &str, topic: &str) -> Value {
        let command = self.hear().await;
        let of = (command["type"].as_str(), command["topic"].as_str());
        assert_eq!(of, (Some(kind), Some(topic)), "{command}");
        command
    }

    pub(crate) async fn say_text(&mut self, text: String) {
        soon(self.socket.send(Message::text(text)))
            .await
            .expect("sent");
    }

    pub(crate) async fn say(&mut self, event: Value) {
        self.say_text(event.to_string()).await;
    }

    pub(crate) async fn answer(&mut self, command: &Value, kind: &str, mut answer: Value) {
        answer["type"] = kind.into();
        answer["id"] = command["id"].clone();
        self.say(answer).await;
    }

    /// A message whose data is its number, behind the position of the one before.
    pub(crate) async fn number(&mut self, topic: &str, number: usize) {
        let position = format!("{}-0", number + 2);
        self.say(json!({
            "type": "message", "topic": topic, "data": number, "position": position, "time": 1,
        }))
        .await;
    }

    /// A message of a topic without history.
    pub(crate) async fn unplaced(&mut self, topic: &str, number: usize) {
        self.say(json!({"type": "message", "topic": topic, "data": number, "time": 1}))
            .await;
    }

    /// Answers a `subscribe` with a topic that begins live at `1-0`.
    pub(crate) async fn join(&mut self, topic: &str) {
        let command = self.hear_of("subscribe", topic).await;
        self.answer(&command, "ok", joined("1-0")).await;
    }

    pub(crate) async fn refuse(&mut self, command: &Value, code: &str) {
        let is_passing = code == "unavailable";
        let error = json!({"code": code, "message": "no", "retry": is_passing});
        self.answer(command, "error", error).await;
    }

    pub(crate) async fn close(&mut self, code: u16) {
        let frame = CloseFrame {
            code: code.into(),
            reason: "because".into(),
        };
        soon(self.socket.close(Some(frame))).await.expect("sent");
    }
}

/// What `ok` and `welcome` say of a topic that goes on at a position.
pub(crate) fn joined(position: &str) -> Value {
    json!({"recovered": true, "position": position})
}

/// What `welcome` says of a topic that cannot be joined at the moment.
pub(crate) fn unavailable() -> Value {
    json!({"error": {"code": "unavailable", "message": "the broker is away"}})
}

/// Subscribes, and has the server answer that the topic begins live at `1-0`.
pub(crate) async fn subscribed(
    client: &Client,
    session: &mut Session,
    what: impl Into<Subscribe>,
) -> Subscription {
    let what = what.into();
    let topic = what.topic.clone();
    let (subscription, ()) = tokio::join!(client.subscribe(what), session.join(&topic));
    subscription.expect("joined")
}

pub(crate) async fn next(subscription: &mut Subscription) -> Item {
    soon(subscription.next()).await.expect("not the end")
}

pub(crate) async fn number(subscription: &mut Subscription) -> usize {
    match next(subscription).await {
        Item::Message(message) => message.data.read().expect("a number"),
        other => panic!("no message: {other:?}"),
    }
}

/// The next item, which must be a gap: of what, and why.
pub(crate) async fn gap(subscription: &mut Subscription) -> (Option<String>, String) {
    match next(subscription).await {
        Item::Gap(gap) => (gap.of, gap.reason),
        other => panic!("no gap: {other:?}"),
    }
}
