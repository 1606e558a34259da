//! One session of a crowd: let in, joined, then counting until its end.
//!
//! In: a wire, an identity, what the session remembers from its earlier connections. Out: counts
//! in the crowd's tally. Owner: one task, see `crowd.rs`. What outlives a connection (the numbers
//! seen, the position) is in [`Memory`].

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::mark::{self, Mark};
use super::socket::{Dial, Scratch, Socket, SocketError};
use super::tally::{Tally, Track};
use super::wire::{Heard, Identity, Wire};

/// What a session knows beyond one connection.
#[derive(Debug, Default)]
pub struct Memory {
    /// One per publisher.
    tracks: Vec<Track>,
    /// After which the next message is expected, where it is kept.
    position: Option<String>,
}

impl Memory {
    /// Nothing seen yet of so many publishers.
    #[must_use]
    pub fn new(publishers_count: usize) -> Self {
        Self {
            tracks: (0..publishers_count).map(|_| Track::default()).collect(),
            position: None,
        }
    }

    /// The newest number of the first publisher.
    #[must_use]
    pub fn newest(&self) -> u64 {
        self.tracks.first().map_or(0, Track::newest)
    }
}

/// A reader that can be told to read nothing for a while.
#[derive(Debug, Default)]
pub struct Stall {
    is_on: Cell<bool>,
    over: Notify,
}

impl Stall {
    /// From now on nothing is read.
    pub fn begin(&self) {
        self.is_on.set(true);
    }

    /// Reading goes on.
    pub fn end(&self) {
        self.is_on.set(false);
        self.over.notify_waiters();
    }

    async fn over(&self) {
        while self.is_on.get() {
            self.over.notified().await;
        }
    }
}

/// What the sessions of one crowd share.
pub struct Shared {
    /// The protocol.
    pub wire: Rc<dyn Wire>,
    /// Where to and how.
    pub dial: Dial,
    /// What is joined; nothing where a session is only to be let in.
    pub topic: Option<String>,
    /// Whether positions are kept, so that a session can come back.
    pub keeps_positions: bool,
    /// Where everything is counted.
    pub tally: Rc<Tally>,
    /// What everything is read through.
    pub scratch: Scratch,
    /// How to stop the sessions from reading.
    pub stall: Option<Rc<Stall>>,
}

/// How long a session took to open.
#[derive(Debug, Clone, Copy)]
pub struct Opened {
    /// From the dial to the welcome.
    pub welcome: Duration,
    /// From the subscription to its answer.
    pub joined: Option<Duration>,
}

/// How far a session is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Dialled,
    Welcome,
    Joined,
}

/// An open session.
pub struct Session {
    socket: Socket,
    ears: Ears,
}

/// What makes sense of payloads, apart from the socket so that both can be borrowed at once.
struct Ears {
    shared: Rc<Shared>,
    memory: Rc<RefCell<Memory>>,
    stage: Stage,
    answers: Vec<u8>,
    refused: Option<String>,
}

impl Session {
    /// Connects, and waits to be let in and to have joined.
    ///
    /// # Errors
    /// [`SocketError`].
    pub async fn open(
        shared: Rc<Shared>,
        identity: &Identity,
        memory: Rc<RefCell<Memory>>,
    ) -> Result<(Self, Opened), SocketError> {
        let begin = Instant::now();
        let upgrade = shared.wire.upgrade(identity);
        let socket = Socket::open(&shared.dial, &upgrade, Rc::clone(&shared.scratch)).await?;
        let hello = shared.wire.hello(identity);
        let ears = Ears {
            shared,
            memory,
            stage: Stage::Dialled,
            answers: hello.unwrap_or_default(),
            refused: None,
        };
        let mut session = Self { socket, ears };
        session
            .socket
            .rest(|payload| session.ears.hear(payload))
            .await?;
        session.until(Stage::Welcome).await?;
        let mut opened = Opened {
            welcome: begin.elapsed(),
            joined: None,
        };
        if session.ears.shared.topic.is_some() {
            let begin = Instant::now();
            session.subscribe().await?;
            session.until(Stage::Joined).await?;
            opened.joined = Some(begin.elapsed());
        }
        Ok((session, opened))
    }

    /// Counts what comes, to the end of the connection.
    pub async fn listen(&mut self) -> SocketError {
        let stall = self.ears.shared.stall.clone();
        loop {
            if let Some(stall) = &stall {
                stall.over().await;
            }
            if let Err(error) = self.read().await {
                return error;
            }
        }
    }

    async fn subscribe(&mut self) -> Result<(), SocketError> {
        let shared = &self.ears.shared;
        let topic = shared.topic.as_deref().unwrap_or_default();
        let since = self.ears.memory.borrow().position.clone();
        let frame = shared.wire.subscribe(topic, since.as_deref());
        self.socket.send(&frame).await
    }

    async fn until(&mut self, stage: Stage) -> Result<(), SocketError> {
        self.answer().await?;
        while self.ears.stage != stage {
            self.read().await?;
        }
        Ok(())
    }

    async fn read(&mut self) -> Result<(), SocketError> {
        let ears = &mut self.ears;
        self.socket.read(|payload| ears.hear(payload)).await?;
        self.answer().await
    }

    async fn answer(&mut self) -> Result<(), SocketError> {
        if let Some(refused) = self.ears.refused.take() {
            return Err(SocketError::Refused(refused));
        }
        if self.ears.answers.is_empty() {
            return Ok(());
        }
        let answers = std::mem::take(&mut self.ears.answers);
        self.socket.send(&answers).await
    }
}

impl Ears {
    fn hear(&mut self, payload: &[u8]) {
        if !self.shared.wire.has_lines() {
            return self.hear_one(payload);
        }
        for line in payload.split(|byte| *byte == b'\n') {
            self.hear_one(line);
        }
    }

    fn hear_one(&mut self, payload: &[u8]) {
        if let Some((mark, rest)) = Mark::find(payload) {
            let mut memory = self.memory.borrow_mut();
            let tally = &self.shared.tally;
            tally.message(&mut memory.tracks, mark, Instant::now());
            if self.shared.keeps_positions
                && let Some(position) = mark::position(rest)
            {
                let kept = memory.position.get_or_insert_default();
                kept.clear();
                kept.push_str(position);
            }
            return;
        }
        match self.shared.wire.hear(payload) {
            Heard::Welcome => self.stage = Stage::Welcome,
            Heard::Joined { position, is_whole } => {
                self.stage = Stage::Joined;
                if self.shared.keeps_positions {
                    self.memory.borrow_mut().position = position;
                }
                if !is_whole {
                    self.shared.tally.gap_told();
                }
            }
            Heard::Answer(frame) => self.answers.extend(frame),
            Heard::Gap => self.shared.tally.gap_told(),
            Heard::Refused(text) => self.refused = Some(text),
            Heard::Nothing => {}
        }
    }
}
