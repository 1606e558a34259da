//! What a protocol is to a load: how a session opens, joins, stays alive, and how one publishes.
//!
//! In: who a session is, topics, payloads of frames. Out: bytes to send, and what a payload means.
//! Messages with a mark are counted before a wire is asked, so nothing here is on the way of a
//! delivery. One file per protocol.

pub mod centrifugo;
pub mod fanfare;
pub mod pusher;
pub mod socketio;

/// Who a session is.
#[derive(Debug, Clone, Default)]
pub struct Identity {
    /// The user's name, for servers that believe it.
    pub user: Option<String>,
    /// The token, for servers that check.
    pub token: Option<String>,
}

/// The request that asks for a WebSocket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upgrade {
    /// Path and query.
    pub path: String,
    /// Further header lines, each ended by a line break.
    pub headers: String,
}

/// What a payload without a mark means to a load.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// The session is let in.
    Welcome,
    /// The subscription stands.
    Joined {
        /// The position after which it begins, where there is one.
        position: Option<String>,
        /// Whether everything since the position asked for follows.
        is_whole: bool,
    },
    /// The server wants this frame at once.
    Answer(Vec<u8>),
    /// Something was lost, and the server says so.
    Gap,
    /// What was asked for is refused, with the server's words.
    Refused(String),
    /// Nothing that matters here.
    Nothing,
}

/// Where a publication goes.
#[derive(Debug, Clone, Copy)]
pub enum Destination<'a> {
    /// To everybody on a topic.
    Topic(&'a str),
    /// To the inboxes of these users.
    Users(&'a [String]),
}

/// One message of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item<'a> {
    /// Whose inbox.
    pub user: &'a str,
    /// How urgent, in the words of the API.
    pub priority: &'static str,
    /// What; no character of it is escaped in JSON.
    pub data: String,
}

/// What became of a message of a list that was not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Its place in the list.
    pub index: usize,
    /// Whether it may be taken later.
    pub may_be_repeated: bool,
    /// What the server said.
    pub text: String,
}

/// A call of a server's HTTP API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// Path and query.
    pub path: String,
    /// The header that carries the key, where there is one.
    pub header: Option<(&'static str, String)>,
    /// The body, JSON.
    pub body: String,
}

/// One protocol.
pub trait Wire {
    /// The handshake of a session.
    fn upgrade(&self, identity: &Identity) -> Upgrade;

    /// The first frame of a session, where it speaks first.
    fn hello(&self, identity: &Identity) -> Option<Vec<u8>>;

    /// Joins a topic, from a position where the protocol knows such.
    fn subscribe(&self, topic: &str, since: Option<&str>) -> Vec<u8>;

    /// What a payload means.
    fn hear(&self, payload: &[u8]) -> Heard;

    /// Whether one frame may carry several messages, one a line.
    fn has_lines(&self) -> bool {
        false
    }

    /// The call that publishes. `key` stays the same when a call is repeated.
    fn publish(&self, to: Destination<'_>, data: &str, key: &str) -> Call;

    /// The call that hands over a list of messages; `None` where there is none.
    fn list(&self, _path: &str, _items: &[Item<'_>]) -> Option<Call> {
        None
    }

    /// What of a list was refused, where the call as a whole was not.
    fn refused_of(&self, _answer: &[u8]) -> Vec<Refusal> {
        Vec::new()
    }

    /// What a call that was answered with 2xx was refused with all the same.
    fn refusal(&self, _answer: &[u8]) -> Option<String> {
        None
    }
}

/// A subscription of a protocol without positions stands.
const JOINED: Heard = Heard::Joined {
    position: None,
    is_whole: true,
};

/// A sentence about a payload that refuses something, short enough for a line.
fn words(payload: &[u8]) -> String {
    const LENGTH_MAX: usize = 300;
    String::from_utf8_lossy(payload)
        .chars()
        .take(LENGTH_MAX)
        .collect()
}
