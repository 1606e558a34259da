//! A connection of `fanfare.v1` that is made again after a break and resumes where it was.
//!
//! In: commands as JSON objects without `id`. Out: the result of each, and a stream of events.
//! Owner: whoever calls; there is no task behind it, so nothing arrives (and no ping is answered)
//! while neither [`ResumingConnection::command`] nor [`ResumingConnection::next_event`] runs. It keeps, per topic,
//! the position after which the next message is expected, and after a break joins every topic
//! again from there; what the server then says was lost is told as a `gap` event. A topic that
//! cannot be joined at the moment is asked for again and again, beside the others.
//! Bounds: 10,000 events or 16 MiB wait while an answer is awaited; then the connection is ended,
//! the waiting events are handed out first, and the rest is resumed. [`ANSWER_TIMEOUT`] per command.

use std::collections::BTreeMap;
use std::time::Duration;

use fanfare_protocol::command::Subscribe;
use serde_json::{Map, Value, json};
use tokio::time::{Instant, sleep_until};

use crate::address::Address;
use crate::connection::Connection;
use crate::error::ConnectionError;
use crate::frame::Frame;
use crate::reconnect::{Again, Pace};
use crate::token::Credential;

mod happening;
mod joined;
mod opening;
mod session;
mod told;

pub(crate) use happening::Happening;
pub use told::{CommandError, Event, Options};

use happening::Waiting;
use joined::{Joined, Outcome, Stage};
use opening::{Opening, Tried};

/// Longest wait for an answer. A node answers within its command timeout of 2 s.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// A connection that lasted so long starts the back-off anew.
const SETTLED_AFTER: Duration = Duration::from_secs(10);
/// How long until a token function that failed is asked again, while the session still has a token.
const RENEW_AGAIN: Duration = Duration::from_secs(5);
/// How often this side pings where the server does not. Halved where that was too seldom.
const OWN_PING: Duration = Duration::from_secs(25);
/// The most often that it does.
const OWN_PING_MIN: Duration = Duration::from_millis(500);
/// What stands in `connect` around its topics.
const HELLO_BYTES: usize = 256;

/// What a command that succeeded joins or leaves.
#[derive(Debug)]
pub(crate) enum Memory {
    Nothing,
    Join(String, Map<String, Value>),
    Leave(String),
}

/// Whose a command is.
#[derive(Debug)]
enum Asker {
    /// That of [`ResumingConnection::command`].
    Caller(Memory),
    /// The task of a client.
    Client(Memory),
    /// A topic that is resumed.
    Resume(String),
    /// A newer token.
    Refresh,
}

/// A command that waits for its answer.
#[derive(Debug)]
struct Pending {
    asker: Asker,
    deadline: Instant,
}

/// Sessions one after the other, each of which resumes what the one before had.
#[derive(Debug)]
pub struct ResumingConnection {
    addresses: Vec<Address>,
    /// The one in use.
    address_index: usize,
    credential: Credential,
    /// The token of the last try was fetched for it.
    is_token_fresh: bool,
    renew_at: Option<Instant>,
    message_bytes_max: usize,
    frame_bytes_max: usize,
    /// How much of `connect` topics may be. Halved where a node takes less.
    hello_bytes_max: usize,
    own_ping: Duration,
    connection: Option<Connection>,
    opening: Option<Opening>,
    welcome: Value,
    joined: BTreeMap<String, Joined>,
    pending: BTreeMap<u64, Pending>,
    /// The answer that [`Self::command`] waits for.
    answer: Option<Result<Frame, CommandError>>,
    waiting: Waiting,
    last_text: Option<String>,
    last_id: u64,
    pace: Pace,
    again_at: Instant,
}

impl ResumingConnection {
    /// Connects and waits for `welcome`. This first time each address is tried once.
    ///
    /// # Errors
    /// [`ConnectionError`].
    pub async fn connect(options: Options) -> Result<Self, ConnectionError> {
        let user = options.user.as_deref();
        let urls = options.urls.iter();
        let addresses = urls.map(|url| Address::new(url, user, &options.tls));
        let addresses = addresses.collect::<Result<Vec<_>, _>>()?;
        if addresses.is_empty() {
            return Err(ConnectionError::NoAddress);
        }
        let now = Instant::now();
        let joined = options.positions.into_iter().map(|(topic, position)| {
            let joined = Joined::new(Map::new(), Some(position), Stage::Due(now));
            (topic, joined)
        });
        let mut client = Self {
            addresses,
            address_index: 0,
            credential: Credential::new(options.token),
            is_token_fresh: false,
            renew_at: None,
            message_bytes_max: options.message_bytes_max,
            frame_bytes_max: options.frame_bytes_max,
            hello_bytes_max: options.message_bytes_max.saturating_sub(HELLO_BYTES),
            own_ping: OWN_PING,
            connection: None,
            opening: None,
            welcome: Value::Null,
            joined: joined.collect(),
            pending: BTreeMap::new(),
            answer: None,
            waiting: Waiting::default(),
            last_text: None,
            last_id: 0,
            pace: Pace::default(),
            again_at: now,
        };
        client.open_any().await?;
        Ok(client)
    }

    /// The newest `welcome`.
    #[must_use]
    pub fn welcome(&self) -> &Value {
        &self.welcome
    }

    /// The event that [`Self::next_event`] gave last, as the server wrote it; `None` where the
    /// client made it.
    #[must_use]
    pub fn last_text(&self) -> Option<&str> {
        self.last_text.as_deref()
    }

    /// The position from which a topic would be resumed now.
    #[must_use]
    pub fn position(&self, topic: &str) -> Option<&str> {
        self.joined.get(topic)?.position.as_deref()
    }

    /// Sends a command, without `id`, and waits for its result: the fields of `ok`. Connects
    /// first where the connection is gone. Topics joined and left this way are remembered.
    ///
    /// # Errors
    /// [`CommandError`].
    ///
    /// # Cancel safety
    /// Not safe: dropped in the middle, it is unknown whether the command was done.
    pub async fn command(&mut self, mut command: Value) -> Result<Value, CommandError> {
        while self.connection.is_none() {
            self.reopen().await.map_err(CommandError::Ended)?;
        }
        let id = self.next_id();
        command["id"] = id.into();
        let text = command.to_string();
        self.fits(&text)?;
        self.answer = None;
        self.ask(id, text, Asker::Caller(memory(command)));
        loop {
            if let Some(answer) = self.answer.take() {
                return answer.map(|frame| frame.says());
            }
            self.step().await.map_err(CommandError::Ended)?;
            if self.waiting.is_full() && self.answer.is_none() {
                let broken = self.break_off(ConnectionError::Backlog);
                broken.map_err(CommandError::Ended)?;
            }
        }
    }

    /// The next event, whenever it comes. Reconnects as long as the server wants it.
    ///
    /// # Errors
    /// [`ConnectionError`] when the client should not come back; it is then finished.
    ///
    /// # Cancel safety
    /// Safe: no event is lost, a try to reconnect goes on at the next call.
    pub async fn next_event(&mut self) -> Result<Event, ConnectionError> {
        loop {
            let (event, text) = match self.happening().await? {
                Happening::Said(frame) => (Event::Server(frame.says()), Some(frame.text)),
                Happening::Made(event) => (Event::Server(event), None),
                Happening::Away { cause, again_after } => {
                    (Event::Disconnected { cause, again_after }, None)
                }
                Happening::Back { welcome } => (Event::Reconnected { welcome }, None),
                Happening::Resumed(_) | Happening::Answered { .. } => continue,
            };
            self.last_text = text;
            return Ok(event);
        }
    }

    /// What happens next. Errors and cancel safety as of [`Self::next_event`].
    pub(crate) async fn happening(&mut self) -> Result<Happening, ConnectionError> {
        loop {
            if let Some(happening) = self.waiting.pop() {
                return Ok(happening);
            }
            self.step().await?;
        }
    }

    /// Ends the session in order.
    pub async fn close(self) {
        if let Some(connection) = self.connection {
            connection.close().await;
        }
    }

    /// Whether a command can be sent now.
    pub(crate) fn is_open(&self) -> bool {
        self.connection.is_some()
    }

    /// The id of the next command.
    pub(crate) fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    /// Whether a command is short enough to be sent.
    pub(crate) fn fits(&self, text: &str) -> Result<(), CommandError> {
        let (bytes, limit) = (text.len(), self.message_bytes_max);
        if bytes > limit {
            return Err(CommandError::TooBig { bytes, limit });
        }
        Ok(())
    }

    /// Sends a command whose answer is to happen. Only while it is open.
    pub(crate) fn send(&mut self, id: u64, text: String, memory: Memory) {
        self.ask(id, text, Asker::Client(memory));
    }

    /// Follows a topic that every session has by itself, so that what is lost of it is told.
    pub fn attend(&mut self, topic: &str) {
        let here = || Joined::new(Map::new(), None, Stage::Here);
        self.joined.entry(topic.to_owned()).or_insert_with(here);
    }

    /// Does not ask for a topic any more.
    pub(crate) fn forget(&mut self, topic: &str) {
        self.joined.remove(topic);
    }

    /// Joins a topic again after a position, by itself and as often as it takes, and tells what is
    /// missing. `is_unplaced`: so does everything that has no position.
    pub(crate) fn rejoin(
        &mut self,
        options: &Subscribe,
        position: Option<String>,
        is_unplaced: bool,
    ) {
        let due = Stage::Due(Instant::now());
        let mut joined = Joined::new(options_of(options), position, due);
        joined.is_unplaced = is_unplaced;
        self.joined.insert(options.topic.clone(), joined);
    }

    fn ask(&mut self, id: u64, text: String, asker: Asker) {
        let deadline = Instant::now() + ANSWER_TIMEOUT;
        self.pending.insert(id, Pending { asker, deadline });
        if let Some(connection) = &mut self.connection {
            connection.send(text);
        }
    }

    /// Tries each address once.
    async fn open_any(&mut self) -> Result<(), ConnectionError> {
        loop {
            match self.open().await {
                Ok(()) => return Ok(()),
                Err(cause) if cause.again() == Again::Never => return Err(cause),
                Err(cause) if self.address_index + 1 == self.addresses.len() => return Err(cause),
                Err(_) => self.address_index += 1,
            }
        }
    }

    /// One thing at a time: connects, or reads a frame, or does what is due.
    async fn step(&mut self) -> Result<(), ConnectionError> {
        if self.connection.is_none() {
            return self.reopen().await;
        }
        self.resume_what_is_due();
        let due = self.next_due();
        let Some(connection) = &mut self.connection else {
            return Ok(());
        };
        let read = tokio::select! {
            read = connection.read() => read,
            token = self.credential.renewed() => {
                match token {
                    Ok(token) => self.refresh(&token),
                    Err(_) => self.renew_at = Some(Instant::now() + RENEW_AGAIN),
                }
                return Ok(());
            }
            () = sleep_until(due) => return self.what_is_due(),
        };
        match read {
            Ok(frame) => {
                self.sort(frame);
                Ok(())
            }
            Err(cause) => self.break_off(cause),
        }
    }

    fn next_due(&self) -> Instant {
        let resumes = self
            .joined
            .values()
            .filter_map(|joined| match joined.stage {
                Stage::Due(at) => Some(at),
                _ => None,
            });
        let deadlines = self.pending.values().map(|pending| pending.deadline);
        let all = resumes.chain(deadlines).chain(self.renew_at).min();
        all.unwrap_or_else(|| Instant::now() + ANSWER_TIMEOUT)
    }

    fn what_is_due(&mut self) -> Result<(), ConnectionError> {
        let now = Instant::now();
        if self.renew_at.is_some_and(|at| at <= now) {
            self.renew_at = None;
            self.credential.renew();
        }
        if self.pending.values().any(|pending| pending.deadline <= now) {
            let url = self.addresses[self.address_index].url().to_owned();
            return self.break_off(ConnectionError::TimedOut { url });
        }
        Ok(())
    }

    fn resume_what_is_due(&mut self) {
        let now = Instant::now();
        let is_due = |joined: &Joined| matches!(joined.stage, Stage::Due(at) if at <= now);
        let due = self.joined.iter().filter(|(_, joined)| is_due(joined));
        let due: Vec<String> = due.map(|(topic, _)| topic.clone()).collect();
        for topic in due {
            let id = self.next_id();
            let Some(joined) = self.joined.get_mut(&topic) else {
                continue;
            };
            // What cannot be joined is there by itself.
            joined.stage = Stage::Here;
            if topic.starts_with('@') {
                continue;
            }
            joined.stage = Stage::Asked(id);
            if let Some(mut command) = joined.entry(&topic) {
                command["type"] = "subscribe".into();
                command["id"] = id.into();
                self.ask(id, command.to_string(), Asker::Resume(topic));
            }
        }
    }

    fn refresh(&mut self, token: &str) {
        let id = self.next_id();
        let command = json!({"type": "refresh", "id": id, "token": token});
        self.ask(id, command.to_string(), Asker::Refresh);
    }
}

/// What a command joins or leaves where it succeeds.
fn memory(command: Value) -> Memory {
    let Value::Object(mut command) = command else {
        return Memory::Nothing;
    };
    let text = |name: &str| {
        command
            .get(name)
            .and_then(Value::as_str)
            .unwrap_or_default()
    };
    let (kind, topic) = (text("type"), text("topic").to_owned());
    match kind {
        "subscribe" => {
            for field in ["type", "id", "topic", "since"] {
                command.remove(field);
            }
            Memory::Join(topic, command)
        }
        "unsubscribe" => Memory::Leave(topic),
        _ => Memory::Nothing,
    }
}

/// What a `subscribe` says of a topic beside where it begins.
pub(crate) fn options_of(options: &Subscribe) -> Map<String, Value> {
    let mut map = Map::new();
    if let Some(rewind) = options.rewind {
        map.insert("rewind".to_owned(), rewind.into());
    }
    if let Some(token) = &options.token {
        map.insert("token".to_owned(), token.as_str().into());
    }
    if options.presence {
        map.insert("presence".to_owned(), true.into());
    }
    map
}
