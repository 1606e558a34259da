//! A connection of `fanfare.v1` that is made again after a break and resumes where it was.
//!
//! In: commands as JSON objects without `id`. Out: the result of each, and a stream of events.
//! Owner: whoever calls; there is no task behind it, so nothing arrives (and no ping is answered)
//! while neither [`ResumingConnection::command`] nor [`ResumingConnection::next_event`] runs. It keeps, per topic,
//! the position after which the next message is expected, and after a break joins every topic
//! again from there; what the server then says was lost is told as a `gap` event.
//! Bounds: [`BACKLOG_MAX`] events wait while an answer is awaited; then the connection is ended,
//! the waiting events are handed out first, and the rest is resumed. [`ANSWER_TIMEOUT`] per command.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use serde_json::{Map, Value, json};
use tokio::time::{Instant, sleep_until, timeout};

use crate::address::Address;
use crate::connection::{Connection, Frame};
use crate::error::ConnectionError;
use crate::reconnect::{Again, Pace};
use crate::token::Credential;

mod told;

pub use told::{CommandError, Event, Options};

/// Most events that wait for the caller while a command waits for its answer.
const BACKLOG_MAX: usize = 10_000;
/// Longest wait for an answer. A node answers within its command timeout of 2 s.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// A connection that lasted so long starts the back-off anew.
const SETTLED_AFTER: Duration = Duration::from_secs(10);

/// A joined topic.
#[derive(Debug, Default)]
struct Joined {
    /// What its `subscribe` said of it beside where it begins.
    options: Map<String, Value>,
    /// The place after which the next message is expected.
    position: Option<String>,
}

impl Joined {
    /// Its entry in `connect.topics`; none for an inbox or `@` that begins where the server says.
    fn entry(&self, topic: &str) -> Option<Value> {
        if topic.starts_with('@') && self.position.is_none() {
            return None;
        }
        let mut entry = self.options.clone();
        entry.insert("topic".to_owned(), topic.into());
        if let Some(position) = &self.position {
            entry.remove("rewind");
            entry.insert("since".to_owned(), position.as_str().into());
        }
        Some(Value::Object(entry))
    }
}

/// Sessions one after the other, each of which resumes what the one before had.
#[derive(Debug)]
pub struct ResumingConnection {
    addresses: Vec<Address>,
    /// The one in use.
    address_index: usize,
    credential: Credential,
    connection: Option<Connection>,
    welcome: Value,
    joined: BTreeMap<String, Joined>,
    /// Each event of the server with its text.
    backlog: VecDeque<(Event, Option<String>)>,
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
        let joined = options.positions.into_iter().map(|(topic, position)| {
            let joined = Joined {
                options: Map::new(),
                position: Some(position),
            };
            (topic, joined)
        });
        let mut client = Self {
            addresses,
            address_index: 0,
            credential: Credential::new(options.token),
            connection: None,
            welcome: Value::Null,
            joined: joined.collect(),
            backlog: VecDeque::new(),
            last_text: None,
            last_id: 0,
            pace: Pace::default(),
            again_at: Instant::now(),
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
        self.last_id += 1;
        let id = self.last_id;
        command["id"] = id.into();
        let answer = match timeout(ANSWER_TIMEOUT, self.exchange(id, &command)).await {
            Ok(answer) => answer,
            Err(_elapsed) => Err(self.timed_out()),
        };
        let answer = match answer {
            Ok(answer) => answer,
            Err(cause) => {
                self.break_off(cause).map_err(CommandError::Ended)?;
                let has_user = self.welcome["user"].is_string();
                return Err(CommandError::Lost { has_user });
            }
        };
        if answer["type"] == "error" {
            return Err(CommandError::Refused {
                code: text(&answer["code"]),
                message: text(&answer["message"]),
                retry: answer["retry"] == true,
                retry_after: answer["retry_after_ms"].as_u64().map(Duration::from_millis),
            });
        }
        self.remember(command, &answer);
        Ok(answer)
    }

    /// The next event, whenever it comes. Reconnects as long as the server wants it.
    ///
    /// # Errors
    /// [`ConnectionError`] when the client should not come back; it is then finished.
    ///
    /// # Cancel safety
    /// Safe: no event is lost, a try to reconnect is begun again.
    pub async fn next_event(&mut self) -> Result<Event, ConnectionError> {
        loop {
            if let Some((event, text)) = self.backlog.pop_front() {
                self.last_text = text;
                return Ok(event);
            }
            match &mut self.connection {
                None => self.reopen().await?,
                Some(connection) => match connection.read().await {
                    // An answer that nobody waits for any more is let go.
                    Ok(frame) => drop(self.sort(frame)),
                    Err(cause) => self.break_off(cause)?,
                },
            }
        }
    }

    /// The next event, with its text, if one has come already. Reads nothing.
    pub(crate) fn take_waiting(&mut self) -> Option<(Event, Option<String>)> {
        self.backlog.pop_front()
    }

    /// Does not ask for a topic any more that could not be left in order.
    pub(crate) fn forget(&mut self, topic: &str) {
        self.joined.remove(topic);
    }

    /// Connects anew, so that a topic that cannot be left begins after this position. All others
    /// go on where they are.
    ///
    /// # Errors
    /// None as long as there is an address; the type is that of every break.
    pub(crate) fn go_back(&mut self, topic: &str, position: &str) -> Result<(), ConnectionError> {
        let joined = self.joined.entry(topic.to_owned()).or_default();
        joined.position = Some(position.to_owned());
        match self.connection {
            Some(_) => self.break_off(ConnectionError::Backlog),
            None => Ok(()),
        }
    }

    /// Ends the session in order.
    pub async fn close(self) {
        if let Some(connection) = self.connection {
            connection.close().await;
        }
    }

    /// Sends a command and reads until its answer; events meanwhile wait in the backlog.
    async fn exchange(&mut self, id: u64, command: &Value) -> Result<Value, ConnectionError> {
        let mut is_sent = false;
        loop {
            let Some(connection) = &mut self.connection else {
                return Err(ConnectionError::Backlog);
            };
            if !is_sent {
                connection.send(command).await?;
                is_sent = true;
            }
            let frame = connection.read().await?;
            if let Some(answer) = self.sort(frame)
                && answer["id"] == id
            {
                return Ok(answer);
            }
            if self.backlog.len() >= BACKLOG_MAX {
                return Err(ConnectionError::Backlog);
            }
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

    /// Waits for its time and tries to connect once.
    async fn reopen(&mut self) -> Result<(), ConnectionError> {
        sleep_until(self.again_at).await;
        match self.open().await {
            Ok(()) => {
                let welcome = self.welcome.clone();
                self.tell(Event::Reconnected { welcome });
                Ok(())
            }
            Err(cause) => self.break_off(cause),
        }
    }

    /// Connects, says `connect` with every topic, and takes the `welcome`. The connection is kept
    /// only when none of them has to be asked for again.
    async fn open(&mut self) -> Result<(), ConnectionError> {
        let token = self
            .credential
            .get()
            .await
            .map_err(ConnectionError::Token)?;
        let address = &self.addresses[self.address_index];
        let mut connection = Connection::open(address, token.as_deref()).await?;
        let topics = self.joined.iter();
        let topics: Vec<Value> = topics
            .filter_map(|(topic, joined)| joined.entry(topic))
            .collect();
        self.last_id += 1;
        let mut hello = json!({"type": "connect", "id": self.last_id});
        if !topics.is_empty() {
            hello["topics"] = json!(topics);
        }
        connection.send(&hello).await?;
        let welcome = match timeout(ANSWER_TIMEOUT, welcome(&mut connection)).await {
            Ok(welcome) => welcome?,
            Err(_elapsed) => return Err(self.timed_out()),
        };
        let ping_ms = welcome["ping_ms"].as_u64().unwrap_or(0);
        connection.expect_pings(Duration::from_millis(ping_ms));
        let topics = welcome["topics"].as_object().into_iter().flatten();
        for (topic, resumed) in topics {
            if topic != "@" && is_for_later(&resumed["error"]) {
                return Err(refusal(&resumed["error"], true));
            }
        }
        self.credential.accepted();
        self.take_welcome(welcome);
        self.connection = Some(connection);
        Ok(())
    }

    /// Takes what `welcome` says about inbox and topics.
    fn take_welcome(&mut self, welcome: Value) {
        if let Some(inbox) = welcome["inbox"]["topic"].as_str() {
            let joined = self.joined.entry(inbox.to_owned()).or_default();
            let cursor = || text(&welcome["inbox"]["position"]);
            joined.position.get_or_insert_with(cursor);
        }
        if let Some(topics) = welcome["topics"].as_object() {
            for (topic, resumed) in topics {
                self.resumed(topic, resumed);
            }
        }
        self.welcome = welcome;
    }

    /// Takes the answer to a resume.
    fn resumed(&mut self, topic: &str, answer: &Value) {
        let error = &answer["error"];
        if topic == "@" && is_for_later(error) {
            // It is joined as soon as it can be, and a gap says what was missed.
            return;
        }
        if error.is_object() {
            self.joined.remove(topic);
            self.tell(Event::Server(json!({
                "type": "unsubscribed", "topic": topic,
                "code": error["code"], "message": error["message"],
            })));
            return;
        }
        let Some(joined) = self.joined.get_mut(topic) else {
            return;
        };
        let since = joined.position.take();
        joined.position = answer["position"].as_str().map(str::to_owned);
        // The server tells a loss on inbox and `@` itself.
        if answer["recovered"] == false && !topic.starts_with('@') {
            let reason = answer["gap_reason"].as_str().unwrap_or("retention");
            let mut gap = json!({"type": "gap", "topic": topic, "reason": reason});
            // After a failover the old position has no place in the topic's order any more.
            if reason != "failover" {
                gap["from"] = json!(since);
                gap["to"] = json!(joined.position);
            }
            self.tell(Event::Server(gap));
        }
    }

    /// Drops the connection and plans the next; an error when there is none.
    fn break_off(&mut self, cause: ConnectionError) -> Result<(), ConnectionError> {
        if let Some(connection) = self.connection.take()
            && connection.age() >= SETTLED_AFTER
        {
            self.pace.settled();
        }
        let again = if cause.is_of_token() && self.credential.refused() {
            Again::AtOnce
        } else {
            cause.again()
        };
        let Some(again_after) = self.pace.wait(again, rand::random()) else {
            return Err(cause);
        };
        self.again_at = Instant::now() + again_after;
        self.address_index = (self.address_index + 1) % self.addresses.len();
        self.tell(Event::Disconnected { cause, again_after });
        Ok(())
    }

    /// Sorts a frame: an answer is given back, an event is followed and put in the backlog.
    fn sort(&mut self, frame: Frame) -> Option<Value> {
        let Frame { says, text } = frame;
        if says["id"].is_u64() {
            return Some(says);
        }
        self.follow(&says);
        self.backlog.push_back((Event::Server(says), Some(text)));
        None
    }

    /// Has an event of the client's own wait for the caller.
    fn tell(&mut self, event: Event) {
        self.backlog.push_back((event, None));
    }

    /// Follows what an event says about positions and joined topics.
    fn follow(&mut self, event: &Value) {
        let Some(topic) = event["topic"].as_str() else {
            return;
        };
        if event["type"] == "unsubscribed" {
            self.joined.remove(topic);
            return;
        }
        let Some(position) = place_after(event) else {
            return;
        };
        if topic.starts_with('@') {
            self.joined.entry(topic.to_owned()).or_default();
        }
        if let Some(joined) = self.joined.get_mut(topic) {
            joined.position = Some(position.to_owned());
        }
    }

    /// Remembers what a command that succeeded has joined or left.
    fn remember(&mut self, command: Value, answer: &Value) {
        let Value::Object(mut command) = command else {
            return;
        };
        let field = |name: &str| command.get(name).map(text).unwrap_or_default();
        let (kind, topic) = (field("type"), field("topic"));
        match kind.as_str() {
            "subscribe" => {
                for field in ["type", "id", "topic", "since"] {
                    command.remove(field);
                }
                let joined = Joined {
                    options: command,
                    position: answer["position"].as_str().map(str::to_owned),
                };
                self.joined.insert(topic, joined);
            }
            "unsubscribe" => {
                self.joined.remove(&topic);
            }
            _ => {}
        }
    }

    fn timed_out(&self) -> ConnectionError {
        ConnectionError::TimedOut {
            url: self.addresses[self.address_index].url().to_owned(),
        }
    }
}

/// Reads up to the answer to `connect`. Before it a session belongs to no topic, so that nothing
/// which comes earlier (a `drain`, which the connection has noticed) is for the caller.
async fn welcome(connection: &mut Connection) -> Result<Value, ConnectionError> {
    loop {
        let frame = connection.read().await?.says;
        match frame["type"].as_str() {
            Some("welcome") => return Ok(frame),
            Some("error") => return Err(refusal(&frame, frame["retry"] == true)),
            _ => {}
        }
    }
}

/// The place in its topic that an event leads to; `None` where it leads nowhere.
pub(crate) fn place_after(event: &Value) -> Option<&str> {
    let position = match event["type"].as_str()? {
        "message" => &event["position"],
        // Positions of changes of members have nothing to do with those of messages.
        "gap" if event["of"] == "presence" => return None,
        // Ids may start below the old ones after a failover: go back to what still stands.
        "gap" if event["reason"] == "failover" => &event["from"],
        "gap" => &event["to"],
        _ => return None,
    };
    position.as_str()
}

/// Whether a topic that `welcome` refuses may be joined by a later `connect`.
fn is_for_later(error: &Value) -> bool {
    let code = error["code"].as_str();
    code.is_some_and(|code| ["unavailable", "internal", "rate_limited"].contains(&code))
}

/// The error that an `error` means for the connection.
fn refusal(frame: &Value, retry: bool) -> ConnectionError {
    let again = match (retry, frame["retry_after_ms"].as_u64()) {
        (true, Some(wait_ms)) => Again::After(Duration::from_millis(wait_ms)),
        (true, None) => Again::BackOff,
        (false, _) => Again::Never,
    };
    ConnectionError::Refused {
        code: text(&frame["code"]),
        message: text(&frame["message"]),
        again,
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
