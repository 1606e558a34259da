//! The echo endpoint: what a client sends comes back as it came, so that conformance suites can
//! judge the WebSocket below the sessions.
//!
//! In: a socket whose handshake is done. Out: each message, a pong for each ping, a close frame
//! with the right code. The reading side is that of the sessions ([`super::socket`]). Owner: one
//! task. Bounds: [`MESSAGE_BYTES_MAX`] and [`FRAGMENTS_MAX`] a message (1009); one answer at a time,
//! and nothing is read while it waits for the client, which may take nothing of it for
//! `session.replies_timeout` (4103); `session.idle` of silence (4201).
//! Does not: know users, topics or the broker, or count as a session: a node that ends cuts it off.

use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use tokio::time::timeout;

use super::socket::{Incoming, ReadLimits, Socket};
use super::{Scratch, close_handshake};
use crate::config::Config;
use crate::worker::stream::Stream;
use fanfare_protocol::close::CloseReason;
use fanfare_protocol::frame::{self, Opcode};

/// Longest message. Autobahn's longest case is as long.
pub const MESSAGE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Most fragments of one message: the longest in fragments of 64 bytes, Autobahn's smallest.
pub const FRAGMENTS_MAX: usize = MESSAGE_BYTES_MAX / 64;

struct Echo {
    config: Arc<Config>,
    scratch: Scratch,
    stream: Rc<Stream>,
    socket: Socket,
    /// What the client has not taken yet of the present answer.
    unsent: Bytes,
}

/// Echoes until the client closes, breaks a rule or falls silent. `early` is what came behind the
/// handshake.
pub async fn run(config: Arc<Config>, scratch: Scratch, stream: Stream, early: Bytes) {
    let stream = Rc::new(stream);
    let limits = ReadLimits {
        message_bytes_max: MESSAGE_BYTES_MAX,
        fragments_max: FRAGMENTS_MAX,
    };
    let mut echo = Echo {
        config,
        scratch,
        socket: Socket::new(Rc::clone(&stream), early, limits),
        stream,
        unsent: Bytes::new(),
    };
    let reason = echo.serve().await;
    tracing::debug!(
        event = "echo_closed",
        reason = reason.label(),
        "echo closed"
    );
    echo.finish(reason).await;
}

impl Echo {
    /// Echoes until there is a reason to end.
    async fn serve(&mut self) -> CloseReason {
        loop {
            // A client that keeps this loop busy shares the thread with the others.
            tokio::task::coop::consume_budget().await;
            let scratch = &self.scratch;
            let next = poll_fn(|cx| self.socket.poll_next(cx, &mut scratch.borrow_mut()));
            let Ok(incoming) = timeout(self.config.session.idle, next).await else {
                return CloseReason::IdleTimeout;
            };
            match incoming {
                Ok(Incoming::Text(text)) => self.unsent = message(Opcode::Text, &text),
                Ok(Incoming::Binary(bytes)) => self.unsent = message(Opcode::Binary, &bytes),
                Ok(Incoming::Ping(payload)) => self.unsent = frame::pong(&payload),
                Ok(Incoming::Pong) => {}
                Ok(Incoming::Close(code)) => {
                    self.unsent = close_handshake::answer_to(code);
                    return CloseReason::Client;
                }
                Err(reason) => return reason,
            }
            let patience = self.config.session.replies_timeout;
            if let Err(error) = write(&self.stream, &mut self.unsent, patience).await {
                return match error.kind() {
                    io::ErrorKind::TimedOut => CloseReason::SlowConsumer,
                    _ => CloseReason::Lost,
                };
            }
        }
    }

    /// What is left of an answer, the close frame, and the end of the connection.
    async fn finish(&mut self, reason: CloseReason) {
        let Some(code) = reason.code() else {
            return;
        };
        let mut farewell = match reason {
            CloseReason::Client => Bytes::new(),
            _ => frame::close(code, reason.text()),
        };
        let Self {
            stream,
            scratch,
            socket,
            unsent,
            config,
        } = self;
        let patience = config.session.close_timeout;
        let written = async {
            write(stream, unsent, patience).await?;
            write(stream, &mut farewell, patience).await
        };
        let reader = close_handshake::is_answered(reason).then_some(socket);
        let closed = close_handshake::close(stream, scratch, reader, written);
        // A client that takes nothing, or never closes, is left alone when time is up.
        let _ = timeout(patience, closed).await;
    }
}

/// Writes it all. Cancel-safe: what was written is no longer in `bytes`.
///
/// # Errors
/// The stream's; `TimedOut` when the client takes nothing for so long.
async fn write(stream: &Stream, bytes: &mut Bytes, patience: Duration) -> io::Result<()> {
    while bytes.has_remaining() {
        timeout(patience, stream.writable()).await??;
        match stream.try_write(bytes) {
            Ok(count) => bytes.advance(count),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

fn message(opcode: Opcode, payload: &[u8]) -> Bytes {
    let mut buffer = frame::begin(payload.len());
    buffer.extend_from_slice(payload);
    frame::finish(opcode, buffer)
}
