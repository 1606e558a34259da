//! A crowd of sessions in one thread: each one task that reads and counts.
//!
//! Not the crowd and tally of `fanfare bench`, which find the time of a publication in its message:
//! here it stays in the load, so that `data` is an object as all figures before were taken with, and
//! each session can have a series of its own.
//!
//! In: an address, tokens, topics. Out: a [`Crowd`], whose [`Counts`] know how many messages came,
//! how long each took, and whether one was missing, doubled, out of order or at the wrong session.
//! Publications are numbered in series: within one they arrive in the order in which they left.
//! Bounds: so many connect at once as the caller says; four bytes a message for its time. Sessions
//! end when the crowd is dropped.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::ops::Range;
use std::rc::Rc;
use std::time::Instant;

use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;

use fanfare_bench::socket::{self, Scratch, Socket};

use crate::session::{self, READ_BYTES};

/// Most publishers at once. On a common topic each has a series of its own, because publications of
/// several arrive in whatever order the broker took them.
pub(crate) const PUBLISHERS_MAX: usize = 8;

/// What the sessions of a crowd share: numbers that were given out, and messages that came.
#[derive(Debug)]
pub(crate) struct Counts {
    /// Messages that came.
    pub(crate) messages: Cell<u64>,
    /// Numbers that were jumped over.
    missing: Cell<u64>,
    /// Numbers that came again, or after a higher one.
    again: Cell<u64>,
    /// Messages of a series that their session does not follow.
    astray: Cell<u64>,
    /// Sessions that the server ended.
    ended: Cell<u64>,
    /// The length of the newest message, in bytes.
    pub(crate) message_bytes: Cell<usize>,
    /// When the publications of each series left.
    sent: RefCell<Vec<Vec<Instant>>>,
    /// From there to the reading of each message, in µs.
    waits_us: RefCell<Vec<u32>>,
    target: Cell<u64>,
    reached: Notify,
}

/// What one session has: the newest number of each series that it follows.
#[derive(Debug)]
pub(crate) struct Seen {
    first: usize,
    newest: Vec<u64>,
}

impl Seen {
    /// Nothing yet of these series.
    pub(crate) fn of(series: Range<usize>) -> Self {
        Self {
            first: series.start,
            newest: vec![0; series.len()],
        }
    }

    /// The newest number of a series that it follows.
    pub(crate) fn newest(&mut self, series: usize) -> Option<&mut u64> {
        self.newest.get_mut(series.checked_sub(self.first)?)
    }
}

impl Counts {
    /// For so many series.
    pub(crate) fn of(series_count: usize) -> Self {
        Self {
            messages: Cell::default(),
            missing: Cell::default(),
            again: Cell::default(),
            astray: Cell::default(),
            ended: Cell::default(),
            message_bytes: Cell::default(),
            sent: RefCell::new(vec![Vec::new(); series_count]),
            waits_us: RefCell::default(),
            target: Cell::default(),
            reached: Notify::new(),
        }
    }

    /// The number for the next publication of a series, which leaves now. Numbers of one series lie
    /// as far apart as there are series.
    pub(crate) fn next(&self, series: usize) -> u64 {
        let mut sent = self.sent.borrow_mut();
        sent[series].push(Instant::now());
        (sent[series].len() * sent.len() + series) as u64
    }

    /// How many publications left.
    pub(crate) fn sent(&self) -> u64 {
        self.sent
            .borrow()
            .iter()
            .map(|sent| sent.len() as u64)
            .sum()
    }

    /// Waits until so many messages came.
    pub(crate) async fn until(&self, messages: u64) {
        self.target.set(messages);
        while self.messages.get() < messages {
            self.reached.notified().await;
        }
    }

    /// One message came, just now.
    pub(crate) fn message(&self, payload: &[u8], now: Instant, seen: &mut Seen) {
        let Some(number) = number(payload) else {
            return;
        };
        let sent = self.sent.borrow();
        let series = number as usize % sent.len();
        let number = number / sent.len() as u64;
        let Some(last) = seen.newest(series) else {
            add(&self.astray, 1);
            return;
        };
        match number.checked_sub(*last + 1) {
            Some(jumped) => {
                add(&self.missing, jumped);
                *last = number;
            }
            None => add(&self.again, 1),
        }
        let left = sent[series][number as usize - 1];
        let wait = now.duration_since(left).as_micros();
        let wait = u32::try_from(wait).unwrap_or(u32::MAX);
        self.waits_us.borrow_mut().push(wait);
        self.message_bytes.set(payload.len());
        add(&self.messages, 1);
        if self.messages.get() == self.target.get() {
            self.reached.notify_one();
        }
    }

    /// The waits since the last call.
    pub(crate) fn take_waits(&self) -> Waits {
        let mut waits = self.waits_us.take();
        waits.sort_unstable();
        Waits(waits)
    }

    /// Missing, doubled, reordered and misled messages, and sessions that the server ended.
    pub(crate) fn faults(&self) -> u64 {
        self.missing.get() + self.again.get() + self.astray.get() + self.ended.get()
    }
}

fn add(cell: &Cell<u64>, more: u64) {
    cell.set(cell.get() + more);
}

/// Waits of many messages, in µs, sorted.
#[derive(Debug)]
pub(crate) struct Waits(Vec<u32>);

impl Waits {
    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The wait, in ms, that so many percent did not exceed; NaN of none.
    pub(crate) fn percentile_ms(&self, percent: usize) -> f64 {
        let at = self.0.len() * percent / 100;
        self.0.get(at).map_or(f64::NAN, |us| f64::from(*us) / 1e3)
    }
}

/// The number that a message carries as `"n":NUMBER`.
fn number(payload: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(payload).ok()?;
    let (_, rest) = text.split_once("\"n\":")?;
    let end = rest.find(|c: char| !c.is_ascii_digit())?;
    rest[..end].parse().ok()
}

/// Who the sessions are.
#[derive(Debug)]
pub(crate) enum Who {
    /// So many that only read: no handshake, no welcome.
    Bare(usize),
    /// One for each token.
    Tokens(Vec<String>),
}

/// What the sessions subscribe to.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Topics {
    /// All to the same: a publication reaches everyone, and each publisher has a series.
    Common(&'static [&'static str]),
    /// Each to one of its own, this name and the session's number: a publication reaches one
    /// session, and each session has a series.
    Own(&'static str),
}

/// What a crowd is to be.
#[derive(Debug)]
pub(crate) struct Plan {
    /// Where to.
    pub(crate) to: SocketAddr,
    /// How many connect at the same time.
    pub(crate) at_once: usize,
    /// Who they are.
    pub(crate) who: Who,
    /// What they subscribe to; those that only read are sent it all the same.
    pub(crate) topics: Topics,
}

impl Plan {
    /// So many that only read, one after the other.
    pub(crate) fn bare(to: SocketAddr, count: usize, topics: Topics) -> Self {
        Self {
            to,
            at_once: 1,
            who: Who::Bare(count),
            topics,
        }
    }

    /// Opens all sessions, and waits until each is welcome and has joined its topics.
    pub(crate) async fn open(self) -> Crowd {
        let gate = Rc::new(Semaphore::new(self.at_once));
        let opened = Rc::new(Notify::new());
        let mut sessions = JoinSet::new();
        let tokens: Vec<_> = match self.who {
            Who::Bare(count) => vec![None; count],
            Who::Tokens(tokens) => tokens.into_iter().map(Some).collect(),
        };
        let series_count = match self.topics {
            Topics::Common(_) => PUBLISHERS_MAX,
            Topics::Own(_) => tokens.len(),
        };
        let counts = Rc::new(Counts::of(series_count));
        let scratch = socket::scratch(READ_BYTES);
        for (number, token) in tokens.into_iter().enumerate() {
            let counts = Rc::clone(&counts);
            let (gate, opened) = (Rc::clone(&gate), Rc::clone(&opened));
            let scratch = Rc::clone(&scratch);
            sessions.spawn_local(async move {
                let place = gate.acquire().await.expect("the gate is never closed");
                let socket = match &token {
                    None => session::raw(self.to, scratch).await,
                    Some(token) => self.topics.open(self.to, token, number, scratch).await,
                };
                let seen = match self.topics {
                    Topics::Common(_) => Seen::of(0..series_count),
                    Topics::Own(_) => Seen::of(number..number + 1),
                };
                drop(place);
                opened.notify_one();
                drop((gate, opened, token));
                listen(socket, counts, seen).await;
            });
        }
        while Rc::strong_count(&opened) > 1 {
            tokio::select! {
                () = opened.notified() => {}
                Some(ended) = sessions.join_next() => ended.expect("a session could not open"),
            }
        }
        Crowd { counts, sessions }
    }
}

impl Topics {
    /// Opens the session of this number.
    async fn open(self, to: SocketAddr, token: &str, number: usize, scratch: Scratch) -> Socket {
        match self {
            Self::Common(topics) => session::open(to, None, token, topics, scratch).await,
            Self::Own(name) => {
                let topic = format!("{name}{number}");
                session::open(to, None, token, &[&topic], scratch).await
            }
        }
    }
}

/// Reads and counts, to the end of the stream.
async fn listen(mut socket: Socket, counts: Rc<Counts>, mut seen: Seen) {
    loop {
        let mut now = None;
        let read = socket.read(|payload| {
            let now = *now.get_or_insert_with(Instant::now);
            counts.message(payload, now, &mut seen);
        });
        if read.await.is_err() {
            break;
        }
    }
    add(&counts.ended, 1);
}

/// Sessions that are open.
#[derive(Debug)]
pub(crate) struct Crowd {
    /// What they have seen.
    pub(crate) counts: Rc<Counts>,
    sessions: JoinSet<()>,
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
