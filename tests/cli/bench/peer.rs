//! A played server of another protocol, on one port for sockets and publishing, and its faults.
//!
//! It has one topic: what is published goes to every session that has subscribed. It is strict
//! about what a session must say first, and knows no more than a load needs.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::broadcast;
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{WebSocketStream, accept_async};

/// Every so many-th message of a session meets the fault.
const FAULT_EVERY: u64 = 7;

/// A protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Pusher,
    Centrifugo,
    SocketIo,
}

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    Loses,
    Doubles,
    Reorders,
}

/// A server that runs until it is dropped.
#[derive(Debug)]
pub(crate) struct Peer {
    kind: Kind,
    address: SocketAddr,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct State {
    kind: Kind,
    fault: Fault,
    published: broadcast::Sender<String>,
}

impl Peer {
    pub(crate) async fn start(kind: Kind, fault: Fault) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let (published, _) = broadcast::channel(10_000);
        let state = Arc::new(State {
            kind,
            fault,
            published,
        });
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&state)));
            }
        });
        Self {
            kind,
            address,
            task,
        }
    }

    /// The arguments of a small load of this scenario.
    pub(crate) fn arguments(&self, scenario: &str) -> Vec<String> {
        let protocol = match self.kind {
            Kind::Pusher => "pusher",
            Kind::Centrifugo => "centrifugo",
            Kind::SocketIo => "socketio",
        };
        let size = match scenario {
            "fanout" => "--publications=30",
            "connect" => "--at-once=2",
            _ => "--seconds=0.3",
        };
        [
            scenario.to_owned(),
            "--sessions=5".to_owned(),
            size.to_owned(),
            "--patience=0.5".to_owned(),
            format!("--protocol={protocol}"),
            format!("--url=ws://{}", self.address),
            format!("--api-url=http://{}", self.address),
        ]
        .into()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A connection is a socket or an HTTP call, by its first letter.
async fn serve(stream: TcpStream, state: Arc<State>) {
    let mut first = [0];
    let Ok(1) = stream.peek(&mut first).await else {
        return;
    };
    if first == *b"G" {
        let socket = accept_async(stream).await.expect("a handshake");
        // A load that ends cuts its sockets.
        let _ = Session { socket, state }.run().await;
        return;
    }
    let service = service_fn(move |request| {
        let state = Arc::clone(&state);
        async move { Ok::<_, hyper::Error>(publish(request, &state).await) }
    });
    let server = hyper::server::conn::http1::Builder::new();
    let _ = server.serve_connection(TokioIo::new(stream), service).await;
}

async fn publish(request: Request<Incoming>, state: &State) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    let query = head.uri.query().unwrap_or_default();
    let is_right = match state.kind {
        Kind::Pusher => {
            head.uri.path() == "/apps/app-id/events" && query.contains("&auth_signature=")
        }
        Kind::Centrifugo => {
            let key = head.headers.get("x-api-key");
            head.uri.path() == "/api/publish" && key.is_some_and(|key| key == "dev")
        }
        Kind::SocketIo => head.uri.path() == "/publish",
    };
    let body = body.collect().await.expect("a body").to_bytes();
    let body: Value = serde_json::from_slice(&body).expect("JSON");
    let mut answer = Response::new(Full::from("{}"));
    match body["data"].as_str() {
        Some(data) if is_right => {
            // Nobody may have subscribed yet.
            let _ = state.published.send(data.to_owned());
        }
        _ => *answer.status_mut() = StatusCode::BAD_REQUEST,
    }
    answer
}

struct Session {
    socket: WebSocketStream<TcpStream>,
    state: Arc<State>,
}

type Ended = Option<()>;

impl Session {
    async fn run(mut self) -> Ended {
        match self.state.kind {
            Kind::Pusher => {
                let hello = json!({"event": "pusher:connection_established", "data": "{}"});
                self.send(&hello.to_string()).await?;
                let command = self.heard().await?;
                assert_eq!(command["event"], "pusher:subscribe");
                let joined = "pusher_internal:subscription_succeeded";
                let joined = json!({"event": joined, "channel": command["data"]["channel"]});
                self.subscribed(&joined.to_string()).await
            }
            Kind::Centrifugo => {
                let command = self.heard().await?;
                assert!(command["connect"].is_object(), "{command}");
                self.send(&json!({"id": command["id"], "connect": {}}).to_string())
                    .await?;
                let command = self.heard().await?;
                assert!(command["subscribe"]["channel"].is_string(), "{command}");
                let joined = json!({"id": command["id"], "subscribe": {}});
                self.subscribed(&joined.to_string()).await
            }
            Kind::SocketIo => {
                self.send(r#"0{"sid":"a","upgrades":[]}"#).await?;
                assert_eq!(self.heard_text().await?, "40");
                self.send(r#"40{"sid":"b"}"#).await?;
                let command = self.heard_text().await?;
                assert!(command.starts_with(r#"420["subscribe","#), "{command}");
                self.subscribed("430[]").await
            }
        }
    }

    /// Answers the subscription and passes on what is published from then on.
    async fn subscribed(&mut self, answer: &str) -> Ended {
        let mut published = self.state.published.subscribe();
        self.send(answer).await?;
        let (mut count, mut held) = (0_u64, None);
        loop {
            let data = tokio::select! {
                data = published.recv() => data.expect("no session lags"),
                heard = self.socket.next() => {
                    heard?.ok()?;
                    continue;
                }
            };
            count += 1;
            let frame = self.frame(&data);
            match self.state.fault {
                Fault::Loses if count.is_multiple_of(FAULT_EVERY) => {}
                Fault::Reorders if count.is_multiple_of(FAULT_EVERY) => held = Some(frame),
                fault => {
                    self.send(&frame).await?;
                    if fault == Fault::Doubles && count.is_multiple_of(FAULT_EVERY) {
                        self.send(&frame).await?;
                    }
                    if let Some(held) = held.take() {
                        self.send(&held).await?;
                    }
                }
            }
        }
    }

    fn frame(&self, data: &str) -> String {
        match self.state.kind {
            Kind::Pusher => json!({"event": "message", "channel": "t", "data": data}).to_string(),
            Kind::Centrifugo => {
                // With a ping on a line of its own in the same frame.
                let push = json!({"push": {"channel": "t", "pub": {"data": data}}});
                format!("{push}\n{{}}")
            }
            Kind::SocketIo => format!("42{}", json!(["message", data])),
        }
    }

    async fn send(&mut self, text: &str) -> Ended {
        self.socket.send(Message::text(text)).await.ok()
    }

    async fn heard_text(&mut self) -> Option<String> {
        let message = self.socket.next().await?.ok()?;
        Some(message.into_text().ok()?.to_string())
    }

    async fn heard(&mut self) -> Option<Value> {
        let text = self.heard_text().await?;
        Some(serde_json::from_str(&text).expect("JSON"))
    }
}
