//! A worker with real sockets, a stream behind it, and the clients' ends of the sockets.
//!
//! In: what the dispatcher would say and what sessions would do, one call each. Out: the events that
//! a client has read when its socket is closed. Pages are read from [`Stream`] when a test says so,
//! so that an answer can be as old as it likes.

use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use serde_json::Value;
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use crate::broker::model::{Stream, publication};
use crate::broker::publication::Publication;
use crate::broker::{Entry, SincePage};
use crate::config::Retention;
use crate::telemetry::metrics::WorkerCounters;
use crate::worker::catchup::{Pull, ReadPage};
use crate::worker::handle::Inbound;
use crate::worker::hub::SessionKey;
use crate::worker::outbox::Bound;
use crate::worker::outgoing::Outgoing;
use crate::worker::{Join, Worker, WorkerInterest};
use fanfare_protocol::close::CloseReason;
use fanfare_protocol::event::{Event, GapReason, Ok as Answer};
use fanfare_protocol::form::{Encoding, WireForm};
use fanfare_protocol::ids::{App, Position, Priority, SessionId, Topic};

pub(super) const BOUND: Bound = Bound {
    messages_max: 10_000,
    bytes_max: 10_000_000,
};
const START_MS: u64 = 1_732_190_000_000;

/// One topic at the broker, its publications numbered from 1.
pub(super) struct Source {
    pub(super) topic: Topic,
    pub(super) stream: Stream,
    /// The position of each number, from 1 on; before it `0-0`.
    pub(super) positions: Vec<Position>,
}

impl Source {
    pub(super) fn new(entries_max: u32) -> Self {
        Self::named("t", entries_max)
    }

    pub(super) fn named(name: &str, entries_max: u32) -> Self {
        let retention = Retention {
            entries_max,
            age_ms: 3_600_000,
        };
        Self {
            topic: Topic::new(&App::default_app(), name).expect("a valid name"),
            stream: Stream::new(retention, START_MS),
            positions: vec![Position::ZERO],
        }
    }

    pub(super) fn publish(&mut self) -> Entry {
        self.publish_with(|_| {})
    }

    pub(super) fn publish_as(&mut self, priority: Priority) -> Entry {
        self.publish_with(|p| p.priority = priority)
    }

    /// Newer publications of the same key may stand for it.
    pub(super) fn publish_about(&mut self, key: &str) -> Entry {
        self.publish_with(|p| {
            p.conflate = true;
            p.key = Some(key.to_owned());
        })
    }

    pub(super) fn publish_with(&mut self, change: impl FnOnce(&mut Publication)) -> Entry {
        self.stream.now_ms += 1;
        let number = self.positions.len();
        let data = Bytes::from(number.to_string());
        let mut publication = publication(data, self.stream.now_ms);
        change(&mut publication);
        // No position is made a second time, whatever the stream loses.
        let sequence = u32::try_from(number).expect("few");
        let entry = self.stream.append(sequence, publication);
        self.positions.push(entry.position);
        entry
    }

    pub(super) fn publish_many(&mut self, count: usize) -> Vec<Entry> {
        (0..count).map(|_| self.publish()).collect()
    }

    pub(super) fn newest(&self) -> Position {
        self.stream.last().unwrap_or_default()
    }

    pub(super) fn deliver(&self, entry: &Entry) -> Inbound {
        let has_history = self.has_history();
        Inbound::Deliver(Outgoing::new(
            self.topic.clone(),
            entry.clone(),
            has_history,
        ))
    }

    pub(super) fn behind(&self, newest: Position, dropped: u64) -> Inbound {
        Inbound::Behind {
            topic: self.topic.clone(),
            newest,
            dropped,
            urgency: Priority::default(),
            void_above: None,
        }
    }

    /// A failover is among what did not come.
    pub(super) fn behind_failover(
        &self,
        from: Position,
        newest: Position,
        dropped: u64,
    ) -> Inbound {
        Inbound::Behind {
            topic: self.topic.clone(),
            newest,
            dropped,
            urgency: Priority::default(),
            void_above: Some(from),
        }
    }

    pub(super) fn gap(&self, from: Position, to: Position, reason: GapReason) -> Inbound {
        Inbound::Gap {
            topic: self.topic.clone(),
            from,
            to,
            reason,
        }
    }

    pub(super) fn page(&self, since: Position) -> SincePage {
        self.stream.since(since, 100)
    }

    fn has_history(&self) -> bool {
        self.stream.retention.entries_max > 0
    }
}

/// A session on the worker, and its client's end.
pub(super) struct Client {
    pub(super) key: SessionKey,
    pub(super) id: SessionId,
    pub(super) end: TcpStream,
}

/// See the module.
pub(super) struct Rig {
    pub(super) worker: Rc<Worker>,
    listener: TcpListener,
    sessions: u128,
    /// What each socket's buffer for sending holds; `None`: as much as the system likes.
    socket_bytes: Option<u32>,
}

impl Rig {
    /// A worker without a window of recent publications: every page is read from the broker.
    pub(super) async fn new() -> Self {
        Self::with(BOUND, 0).await
    }

    pub(super) async fn with_bound(bound: Bound) -> Self {
        Self::with(bound, 0).await
    }

    pub(super) async fn with(bound: Bound, recent_bytes_max: usize) -> Self {
        let interest = Arc::new(WorkerInterest::default());
        Self {
            worker: Worker::new(0, bound, recent_bytes_max, interest, Arc::default()),
            listener: listener(None),
            sessions: 0,
            socket_bytes: None,
        }
    }

    /// From now on clients have sockets that take little at once.
    pub(super) fn narrow(&mut self, socket_bytes: u32) {
        self.listener = listener(Some(socket_bytes));
        self.socket_bytes = Some(socket_bytes);
    }

    pub(super) fn counters(&self) -> &WorkerCounters {
        &self.worker.metrics.counters
    }

    pub(super) async fn client(&mut self) -> Client {
        let address = self.listener.local_addr().expect("bound");
        let (end, accepted) = tokio::join!(
            socket(self.socket_bytes).connect(address),
            self.listener.accept()
        );
        let (stream, _) = accepted.expect("a connection");
        stream.set_nodelay(true).expect("open");
        stream.writable().await.expect("open");
        self.sessions += 1;
        let id = SessionId(self.sessions);
        Client {
            key: self.worker.add(
                id,
                WireForm::websocket(Encoding::Json),
                Rc::new(stream.into()),
            ),
            id,
            end: end.expect("a connection"),
        }
    }

    pub(super) fn join(&self, client: &Client, source: &Source) -> Join {
        let has_history = source.has_history();
        self.worker.join(client.key, &source.topic, has_history)
    }

    /// What answers the worker's present wish for the topic.
    pub(super) fn joined(&self, source: &Source, position: Position) -> Inbound {
        let state = self.worker.state.borrow();
        let topic = state.hub.find(&source.topic).and_then(|k| state.hub.get(k));
        Inbound::Joined {
            topic: source.topic.clone(),
            position,
            wish: topic.and_then(|t| t.wish).expect("it is wished for"),
        }
    }

    /// Joins, and lets the worker know where the topic stands if nobody had joined before.
    pub(super) fn enter(&self, client: &Client, source: &Source) {
        if let Join::Waiting(_) = self.join(client, source) {
            self.turn([self.joined(source, source.newest())]);
        }
    }

    /// A client that takes the topic live from where it stands.
    pub(super) async fn live(&mut self, source: &Source) -> Client {
        let client = self.client().await;
        self.enter(&client, source);
        let begins = self.worker.begin_live(client.key, &source.topic);
        begins.expect("it joined");
        client
    }

    /// A client that begins after this position.
    pub(super) async fn after(&mut self, source: &Source, at: Position) -> Client {
        let client = self.client().await;
        self.enter(&client, source);
        self.worker.begin_after(client.key, &source.topic, at);
        client
    }

    /// The worker takes these in one turn.
    pub(super) fn turn(&self, messages: impl IntoIterator<Item = Inbound>) {
        for message in messages {
            self.worker.handle(message);
        }
        self.worker.flush_dirty(usize::MAX);
    }

    pub(super) fn pull(&self, client: &Client) -> Option<Pull> {
        self.worker.catch_up(client.key, START_MS)
    }

    /// The page arrives. Returns whether the next one may be asked for at once.
    pub(super) fn page(&self, client: &Client, pull: &Pull, page: &SincePage) -> bool {
        let page = ReadPage::new(&pull.topic, page.clone(), self.worker.page_bytes_max());
        let goes_on = self.worker.page(client.key, pull, &page, START_MS);
        self.worker.flush(client.key);
        goes_on
    }

    /// Reads pages until there is none to be read.
    pub(super) fn catch_up(&self, client: &Client, source: &Source) {
        while let Some(pull) = self.pull(client) {
            assert!(self.page(client, &pull, &source.page(pull.at)));
        }
    }

    /// As if the client's socket had refused the last write.
    pub(super) fn stall(&self, client: &Client) {
        self.worker.state.borrow_mut().sessions[client.key].blocked = true;
    }

    /// The client's socket takes everything again, and pages are read until none is missing.
    pub(super) fn drain(&self, client: &Client, sources: &[&Source]) {
        self.worker.flush(client.key);
        while let Some(pull) = self.pull(client) {
            let mut of_topic = sources.iter().filter(|s| s.topic == pull.topic);
            let source = of_topic.next().expect("one of them");
            assert!(self.page(client, &pull, &source.page(pull.at)));
        }
    }

    /// A frame by which a test finds its place again.
    pub(super) fn mark(&self, client: &Client, id: u64) {
        let answer = Answer {
            id: Some(id),
            ..Answer::default()
        };
        self.worker.reply(client.key, &Event::Ok(answer));
        self.worker.flush(client.key);
    }

    /// What the client's outbox holds: messages, and what tells of others.
    pub(super) fn waiting(&self, client: &Client) -> usize {
        let state = self.worker.state.borrow();
        state.sessions[client.key].outbox.messages().messages
    }

    /// For which reason the worker wants the session to end.
    pub(super) fn end_reason(&self, client: &Client) -> Option<CloseReason> {
        let mut context = Context::from_waker(Waker::noop());
        match self.worker.poll_notices(client.key, &mut context) {
            Poll::Ready(notices) => notices.end,
            Poll::Pending => None,
        }
    }

    /// Ends the session; returns every event that the client was sent.
    pub(super) async fn close(&self, mut client: Client) -> Vec<Value> {
        self.worker.flush(client.key);
        assert!(self.worker.is_flushed(client.key), "the socket has room");
        self.worker.remove(client.key);
        let mut bytes = Vec::new();
        let read = client.end.read_to_end(&mut bytes).await;
        read.expect("the socket is closed in order");
        events(&bytes)
    }

    /// What the client read, in short: a message as its number, a mark as `ok:ID`.
    pub(super) async fn read(&self, client: Client) -> Vec<String> {
        short(&self.close(client).await)
    }
}

fn socket(bytes: Option<u32>) -> TcpSocket {
    let socket = TcpSocket::new_v4().expect("a socket");
    if let Some(bytes) = bytes {
        socket.set_send_buffer_size(bytes).expect("a size");
        // With much less the system drops what has come, and sends it again only after a while.
        socket.set_recv_buffer_size(4 * bytes).expect("a size");
    }
    socket
}

/// Accepted sockets have the sizes of the one that listens.
fn listener(bytes: Option<u32>) -> TcpListener {
    let socket = socket(bytes);
    let any = (std::net::Ipv4Addr::LOCALHOST, 0).into();
    socket.bind(any).expect("a port");
    socket.listen(16).expect("bound")
}

/// What the frames say: whole unmasked text frames, one after the other.
pub(super) fn events(mut bytes: &[u8]) -> Vec<Value> {
    let mut events = Vec::new();
    while let [first, length, rest @ ..] = bytes {
        assert_eq!(*first, 0x81, "a whole text frame");
        let (length, rest) = match length {
            126 => {
                let length = u16::from_be_bytes([rest[0], rest[1]]);
                (usize::from(length), &rest[2..])
            }
            short => (usize::from(*short), rest),
        };
        let (payload, rest) = rest.split_at(length);
        events.push(serde_json::from_slice(payload).expect("JSON"));
        bytes = rest;
    }
    events
}

pub(super) fn short(events: &[Value]) -> Vec<String> {
    let short = |event: &Value| {
        let kind = event["type"].as_str().expect("every event has a type");
        match kind {
            "message" => event["data"].to_string(),
            "gap" => format!("gap:{}", event["reason"].as_str().expect("a reason")),
            "ok" => format!("ok:{}", event["id"]),
            other => other.to_owned(),
        }
    };
    events.iter().map(short).collect()
}
