//! `fanfare.v1` as a client of the run speaks it, in either wire form.
//!
//! In: commands as JSON values, payloads. Out: frames, events as JSON values, and what a message
//! says about itself. Independent of the server's codec. Not the testkit's `Talk`, which fails its test
//! at the first surprise and reads each event by itself: here a broken session is an event of the run,
//! thousands share one buffer, and some have narrow sockets and read nothing by order.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use fanfare_bench::frames;
use fanfare_bench::mark::Mark;
use fanfare_bench::socket::{Dial, NARROW_BUFFER_BYTES, Scratch, Socket, SocketError};
use fanfare_bench::wire::Upgrade;
use fanfare_protocol::ids::Position;
use serde_json::Value;

use super::app::App;
use super::history::Id;

/// Longest wait for a connection and its upgrade.
const DIAL_PATIENCE: Duration = Duration::from_secs(4);

/// A wire form.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Form {
    Json,
    MsgPack,
}

impl Form {
    /// Every second speaker speaks the other form.
    pub(crate) fn of(number: u32) -> Self {
        if number.is_multiple_of(2) {
            Self::Json
        } else {
            Self::MsgPack
        }
    }

    fn subprotocol(self) -> &'static str {
        match self {
            Self::Json => "fanfare.v1.json",
            Self::MsgPack => "fanfare.v1.msgpack",
        }
    }

    fn frame(self, command: &Value) -> Vec<u8> {
        match self {
            Self::Json => frames::masked(frames::TEXT, command.to_string().as_bytes()),
            Self::MsgPack => {
                let bytes = rmp_serde::to_vec_named(command).expect("a map of texts and numbers");
                frames::masked(frames::BINARY, &bytes)
            }
        }
    }

    fn read(self, payload: &[u8]) -> Value {
        match self {
            Self::Json => serde_json::from_slice(payload).unwrap_or_default(),
            Self::MsgPack => rmp_serde::from_slice(payload).unwrap_or_default(),
        }
    }
}

/// An open session.
pub(crate) struct Speech {
    socket: Socket,
    form: Form,
}

impl Speech {
    /// Connects, as a user of an app, and asks to be let in by `connect`.
    pub(crate) async fn open(
        to: SocketAddr,
        (app, user): (App, &str),
        form: Form,
        is_narrow: bool,
        scratch: &Scratch,
    ) -> Result<Self, SocketError> {
        let dial = Dial {
            address: to,
            host: to.to_string(),
            narrow_bytes: is_narrow.then_some(NARROW_BUFFER_BYTES),
        };
        let upgrade = Upgrade {
            path: format!("/v1/connect?user={user}&wait=1&app={}", app.word()),
            headers: format!("Sec-WebSocket-Protocol: {}\r\n", form.subprotocol()),
        };
        let opening = Socket::open(&dial, &upgrade, Rc::clone(scratch));
        let opened = tokio::time::timeout(DIAL_PATIENCE, opening).await;
        let socket = opened.unwrap_or(Err(SocketError::TimedOut))?;
        Ok(Self { socket, form })
    }

    /// Sends a command.
    pub(crate) async fn send(&self, command: &Value) -> Result<(), SocketError> {
        self.socket.send(&self.form.frame(command)).await
    }

    /// Waits for bytes, and adds the events in them. What came before an error is added too.
    pub(crate) async fn read(&mut self, into: &mut Vec<Value>) -> Result<(), SocketError> {
        let form = self.form;
        self.socket
            .read(|payload| into.push(form.read(payload)))
            .await
    }

    /// Adds the events that came right behind the handshake.
    pub(crate) async fn rest(&mut self, into: &mut Vec<Value>) -> Result<(), SocketError> {
        let form = self.form;
        self.socket
            .rest(|payload| into.push(form.read(payload)))
            .await
    }
}

/// A position in an event; none where there is none.
pub(crate) fn position(event: &Value, field: &str) -> Option<Position> {
    event[field].as_str()?.parse().ok()
}

/// What `data` of a message says: which publication it is, and when it was first tried.
pub(crate) fn identity(data: &Value) -> Option<(Id, Duration)> {
    let (mark, _) = Mark::find(data.as_str()?.as_bytes())?;
    let id = Id {
        publisher: u32::try_from(mark.publisher).ok()?,
        number: u32::try_from(mark.number).ok()?,
    };
    Some((id, Duration::from_micros(mark.sent_us)))
}

/// The `data` of a publication, filled up to so many bytes.
pub(crate) fn data(id: Id, begun: Duration, bytes: usize) -> String {
    let mark = Mark {
        publisher: id.publisher as usize,
        number: u64::from(id.number),
        sent_us: begun.as_micros() as u64,
    };
    mark.text(bytes)
}
