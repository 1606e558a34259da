//! A crowd of sessions in one thread: each one task that reads, answers pings and counts.
//!
//! In: an address and who they are. Out: a [`Crowd`], which knows how many were welcomed, how many
//! messages came, and whether one was missing, doubled or out of order. Bounds: so many connect
//! at once as the caller says. Sessions end when the crowd is dropped.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::net::TcpStream;
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;

use crate::frames;
use crate::support::tokens;

/// Everything that is read at once, by all sessions in turn.
const SCRATCH_BYTES: usize = 64 * 1_024;

/// Who a session is, and what it does once it is welcome.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Who {
    /// Nobody: `connect` without a token.
    Anonymous,
    /// A user of its own with a token and an inbox: the prefix and a number.
    Each(&'static str),
    /// All have a token of the same user.
    Same(&'static str),
    /// Raw bytes follow at once, no handshake, no welcome.
    Bare,
}

impl Who {
    fn query(self, number: usize) -> String {
        let token = |user: &str| format!("?token={}", tokens::token(user));
        match self {
            Self::Anonymous | Self::Bare => String::new(),
            Self::Each(prefix) => token(&format!("{prefix}{number}")),
            Self::Same(name) => token(name),
        }
    }
}

/// What the sessions of a crowd share.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    /// Messages that came.
    pub(crate) messages: Cell<u64>,
    /// Numbers that were jumped over.
    pub(crate) missing: Cell<u64>,
    /// Numbers that came again, or after a higher one.
    pub(crate) again: Cell<u64>,
    /// Sessions that the server ended.
    pub(crate) ended: Cell<u64>,
    /// The length of the newest message, in bytes.
    pub(crate) message_bytes: Cell<usize>,
    target: Cell<u64>,
    reached: Notify,
}

impl Counts {
    /// Waits until so many messages came.
    pub(crate) async fn until(&self, messages: u64) {
        self.target.set(messages);
        while self.messages.get() < messages {
            self.reached.notified().await;
        }
    }

    fn message(&self, payload: &[u8], last: &mut u64) {
        let Some(number) = number(payload) else {
            return;
        };
        match number.checked_sub(*last + 1) {
            Some(jumped) => {
                self.missing.set(self.missing.get() + jumped);
                *last = number;
            }
            None => self.again.set(self.again.get() + 1),
        }
        self.message_bytes.set(payload.len());
        self.messages.set(self.messages.get() + 1);
        if self.messages.get() == self.target.get() {
            self.reached.notify_one();
        }
    }
}

/// Sessions that are open.
#[derive(Debug)]
pub(crate) struct Crowd {
    /// What they have seen.
    pub(crate) counts: Rc<Counts>,
    /// From the begin of each connect to its `welcome`.
    pub(crate) waits: Vec<Duration>,
    sessions: JoinSet<()>,
}

/// What a crowd is to be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    /// Where to.
    pub(crate) to: SocketAddr,
    /// How many.
    pub(crate) sessions_count: usize,
    /// How many connect at the same time.
    pub(crate) at_once: usize,
    /// Who they are.
    pub(crate) who: Who,
    /// What they subscribe to.
    pub(crate) topic: Option<&'static str>,
}

impl Plan {
    /// Opens all sessions, and waits until each is welcome and has joined its topic.
    pub(crate) async fn open(self) -> Crowd {
        let counts = Rc::new(Counts::default());
        let scratch = Rc::new(RefCell::new(vec![0; SCRATCH_BYTES]));
        let gate = Rc::new(Semaphore::new(self.at_once));
        let waits = Rc::new(RefCell::new(Vec::new()));
        let opened = Rc::new(Notify::new());
        let mut sessions = JoinSet::new();
        for number in 0..self.sessions_count {
            let (counts, scratch) = (Rc::clone(&counts), Rc::clone(&scratch));
            let (gate, waits) = (Rc::clone(&gate), Rc::clone(&waits));
            let opened = Rc::clone(&opened);
            let query = self.who.query(number);
            sessions.spawn_local(async move {
                let place = gate.acquire().await.expect("the gate is never closed");
                let from = Instant::now();
                let mut session = Session::connect(self, &query, scratch, counts).await;
                waits.borrow_mut().push(from.elapsed());
                session.subscribe(self.topic).await;
                drop(place);
                opened.notify_one();
                drop((gate, waits, opened));
                session.listen().await;
            });
        }
        while Rc::strong_count(&opened) > 1 {
            tokio::select! {
                () = opened.notified() => {}
                Some(ended) = sessions.join_next() => ended.expect("a session could not open"),
            }
        }
        let waits = waits.take();
        Crowd {
            counts,
            waits,
            sessions,
        }
    }
}

impl Crowd {
    /// How many sessions there are.
    pub(crate) fn len(&self) -> usize {
        self.sessions.len()
    }

    /// Ends all sessions.
    pub(crate) async fn close(mut self) {
        self.sessions.shutdown().await;
    }
}

struct Session {
    stream: TcpStream,
    scratch: Rc<RefCell<Vec<u8>>>,
    counts: Rc<Counts>,
    /// The begin of a frame whose end has not come.
    partial: Vec<u8>,
    last: u64,
}

impl Session {
    async fn connect(
        plan: Plan,
        query: &str,
        scratch: Rc<RefCell<Vec<u8>>>,
        counts: Rc<Counts>,
    ) -> Self {
        let stream = TcpStream::connect(plan.to).await;
        let stream = stream.expect("the listener takes connections (is `ulimit -n` high enough?)");
        stream.set_nodelay(true).expect("a TCP socket");
        let mut session = Self {
            stream,
            scratch,
            counts,
            partial: Vec::new(),
            last: 0,
        };
        if let Who::Bare = plan.who {
            return session;
        }
        session.send(frames::handshake(&plan.to.to_string(), query).as_bytes());
        session.upgraded().await;
        if let Who::Anonymous = plan.who {
            session.send(&frames::masked(frames::TEXT, br#"{"type":"connect"}"#));
        }
        session.until(r#""type":"welcome""#).await;
        session
    }

    async fn subscribe(&mut self, topic: Option<&str>) {
        if let Some(topic) = topic {
            let command = format!(r#"{{"type":"subscribe","id":1,"topic":"{topic}"}}"#);
            self.send(&frames::masked(frames::TEXT, command.as_bytes()));
            self.until(r#""type":"ok""#).await;
        }
    }

    /// What a load sends fits into the socket's empty buffer.
    fn send(&self, bytes: &[u8]) {
        let sent = self.stream.try_write(bytes);
        assert_eq!(sent.expect("the socket takes it"), bytes.len());
    }

    /// Reads to the end of the answer's head; what follows stays for later.
    async fn upgraded(&mut self) {
        loop {
            assert!(self.read().await, "the handshake was cut off");
            let text = String::from_utf8_lossy(&self.partial);
            assert!(text.starts_with("HTTP/1.1 101"), "refused: {text}");
            if let Some(end) = self.partial.windows(4).position(|w| w == b"\r\n\r\n") {
                self.partial.drain(..end + 4);
                return;
            }
        }
    }

    /// Reads until a text frame with these words has come.
    async fn until(&mut self, words: &str) {
        let mut found = false;
        loop {
            let end = frames::each_frame(&self.partial, |opcode, payload| {
                let text = std::str::from_utf8(payload).unwrap_or_default();
                assert_ne!(opcode, frames::CLOSE, "closed instead of {words}: {text}");
                found |= text.contains(words);
            });
            self.partial.drain(..end);
            if found {
                return;
            }
            assert!(self.read().await, "cut off instead of {words}");
        }
    }

    /// Appends what comes. False at the end of the stream.
    async fn read(&mut self) -> bool {
        let Some(read) = self.ready().await else {
            return false;
        };
        self.partial
            .extend_from_slice(&self.scratch.borrow()[..read]);
        true
    }

    /// Waits for bytes in the scratch memory. None at the end of the stream.
    async fn ready(&self) -> Option<usize> {
        loop {
            self.stream.readable().await.ok()?;
            match self.stream.try_read(&mut self.scratch.borrow_mut()) {
                Ok(0) => return None,
                Ok(read) => return Some(read),
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(_) => return None,
            }
        }
    }

    /// Reads, answers pings and counts, to the end of the stream.
    async fn listen(mut self) {
        self.partial.shrink_to_fit();
        let scratch = Rc::clone(&self.scratch);
        while let Some(read) = self.ready().await {
            let scratch = scratch.borrow();
            let bytes = &scratch[..read];
            if self.partial.is_empty() {
                let end = self.take(bytes);
                self.partial.extend_from_slice(&bytes[end..]);
            } else {
                let mut whole = std::mem::take(&mut self.partial);
                whole.extend_from_slice(bytes);
                let end = self.take(&whole);
                self.partial.extend_from_slice(&whole[end..]);
            }
        }
        self.counts.ended.set(self.counts.ended.get() + 1);
    }

    fn take(&mut self, bytes: &[u8]) -> usize {
        let mut last = self.last;
        let end = frames::each_frame(bytes, |opcode, payload| match opcode {
            frames::TEXT => self.counts.message(payload, &mut last),
            frames::PING => self.send(&frames::masked(frames::PONG, payload)),
            _ => {}
        });
        self.last = last;
        end
    }
}

/// The number that a message carries as `"n":NUMBER`, from 1 on.
fn number(payload: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(payload).ok()?;
    let (_, rest) = text.split_once("\"n\":")?;
    let end = rest.find(|c: char| !c.is_ascii_digit())?;
    rest[..end].parse().ok()
}
