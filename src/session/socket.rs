//! The reading side of one WebSocket, on fastwebsockets; the only file that names that crate.
//!
//! In: bytes of one TCP stream. Out: whole messages and control frames, or the reason why the
//! stream is no WebSocket any more. Owner: the session's task. Bounds: message bytes and fragments
//! ([`ReadLimits`]); control frames 125 bytes. At a bound: an error with its close code, and
//! nothing is allocated for what was announced. While nothing arrives there is no buffer: bytes are
//! first tried into the worker's scratch memory, a reader is built only for them, and dropped when
//! the stream stands between two frames.
//!
//! Known faults of fastwebsockets 0.10 that this file closes, each pinned by a test here or in
//! `tests/node/rfc6455.rs`: `read_frame` is not cancel-safe (its future is kept until it is done);
//! its size limit is per frame and refuses an equal length (fragments are put together here);
//! unmasked frames, pongs and closes over 125 bytes and lengths in too many bytes pass ([`framing`]
//! sees the headers first); fragment order and UTF-8 across fragments are not checked; 8 KiB are
//! allocated per reader.

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use fastwebsockets::{Frame, OpCode, Role, WebSocket, WebSocketError};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::worker::stream::Stream;
use fanfare_protocol::close::CloseReason;

mod framing;

use framing::Framing;

/// Bounds of what one client may send at once.
#[derive(Debug, Clone, Copy)]
pub struct ReadLimits {
    /// Longest message, whole or put together.
    pub message_bytes_max: usize,
    /// Most fragments of one message.
    pub fragments_max: usize,
}

/// What a client sent.
#[derive(Debug, PartialEq, Eq)]
pub enum Incoming {
    /// A whole text message, valid UTF-8.
    Text(Vec<u8>),
    /// A whole binary message.
    Binary(Vec<u8>),
    /// A ping; its payload goes back in a pong.
    Ping(Vec<u8>),
    /// A pong: a sign of life.
    Pong,
    /// The client closes; the code goes back, if there was one.
    Close(Option<u16>),
}

/// A fragmented message so far.
#[derive(Debug)]
struct Partial {
    text: bool,
    bytes: Vec<u8>,
    fragments: usize,
    /// Bytes before this are known to be UTF-8.
    checked: usize,
}

type Reading = Pin<Box<dyn Future<Output = (WebSocket<Source>, ReadResult)>>>;
type ReadResult = Result<Frame<'static>, WebSocketError>;

/// The reading side of one session's socket.
pub struct Socket {
    stream: Rc<Stream>,
    limits: ReadLimits,
    /// Bytes that the handshake read too far.
    early: Bytes,
    reading: Option<Reading>,
    /// What the present reader was given.
    framing: Rc<RefCell<Framing>>,
    partial: Option<Box<Partial>>,
}

impl Socket {
    /// A reader over a stream whose handshake is done. `early` is what was read past it.
    #[must_use]
    pub fn new(stream: Rc<Stream>, early: Bytes, limits: ReadLimits) -> Self {
        Self {
            stream,
            limits,
            // An empty slice may still hold the buffer that it was cut from.
            early: match early.is_empty() {
                true => Bytes::new(),
                false => early,
            },
            reading: None,
            framing: Rc::default(),
            partial: None,
        }
    }

    /// The next message or control frame. After an error the stream is finished. `scratch` is
    /// memory that several sockets share; nothing stays in it.
    ///
    /// # Errors
    /// The reason with which the session ends.
    pub fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut [u8],
    ) -> Poll<Result<Incoming, CloseReason>> {
        loop {
            let mut reading = match self.reading.take() {
                Some(reading) => reading,
                None => match ready!(self.poll_bytes(cx, scratch)) {
                    Ok(bytes) if is_pong(&bytes) => return Poll::Ready(Ok(Incoming::Pong)),
                    Ok(bytes) => self.read_from(bytes),
                    Err(_) => return Poll::Ready(Err(CloseReason::Lost)),
                },
            };
            let polled = reading.as_mut().poll(cx);
            if let Some(breach) = self.framing.borrow().breach() {
                return Poll::Ready(Err(breach));
            }
            let Poll::Ready((reader, result)) = polled else {
                self.reading = Some(reading);
                return Poll::Pending;
            };
            let taken = match result {
                Ok(frame) => self.take(frame),
                Err(error) => Err(reason(&error)),
            };
            self.framing.borrow_mut().returned();
            if !self.framing.borrow().is_between_frames() {
                self.reading = Some(Box::pin(read(reader)));
            }
            if let Some(incoming) = taken.transpose() {
                return Poll::Ready(incoming);
            }
        }
    }

    /// Bytes that are there already, or have come. Allocates only for what has come.
    fn poll_bytes(&mut self, cx: &mut Context<'_>, scratch: &mut [u8]) -> Poll<io::Result<Bytes>> {
        if !self.early.is_empty() {
            return Poll::Ready(Ok(std::mem::take(&mut self.early)));
        }
        loop {
            ready!(self.stream.poll_read_ready(cx))?;
            match self.stream.try_read(scratch) {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
                Ok(n) => {
                    if n < scratch.len() {
                        self.stream.mark_drained();
                    }
                    return Poll::Ready(Ok(Bytes::copy_from_slice(&scratch[..n])));
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => return Poll::Ready(Err(e)),
            }
        }
    }

    fn read_from(&self, early: Bytes) -> Reading {
        self.framing.borrow_mut().given(&early);
        let source = Source {
            early,
            stream: Rc::clone(&self.stream),
            framing: Rc::clone(&self.framing),
        };
        let mut reader = WebSocket::after_handshake(source, Role::Server);
        reader.set_auto_close(false);
        reader.set_auto_pong(false);
        reader.set_auto_apply_mask(true);
        // The crate refuses a length equal to its limit.
        reader.set_max_message_size(self.limits.message_bytes_max + 1);
        Box::pin(read(reader))
    }

    /// Judges one frame; `None` for a fragment that completes nothing.
    fn take(&mut self, frame: Frame<'static>) -> Result<Option<Incoming>, CloseReason> {
        let payload = Vec::from(frame.payload);
        match frame.opcode {
            OpCode::Ping => Ok(Some(Incoming::Ping(payload))),
            OpCode::Pong => Ok(Some(Incoming::Pong)),
            OpCode::Close => close(&payload).map(Some),
            OpCode::Text | OpCode::Binary if self.partial.is_some() => {
                Err(CloseReason::ProtocolViolation)
            }
            OpCode::Text if frame.fin => Ok(Some(Incoming::Text(payload))),
            OpCode::Binary if frame.fin => Ok(Some(Incoming::Binary(payload))),
            OpCode::Text | OpCode::Binary => {
                self.partial = Some(Box::new(Partial {
                    text: frame.opcode == OpCode::Text,
                    bytes: Vec::new(),
                    fragments: 0,
                    checked: 0,
                }));
                self.append(&payload, false)
            }
            OpCode::Continuation => self.append(&payload, frame.fin),
        }
    }

    fn append(&mut self, payload: &[u8], last: bool) -> Result<Option<Incoming>, CloseReason> {
        let Some(partial) = &mut self.partial else {
            return Err(CloseReason::ProtocolViolation);
        };
        partial.fragments += 1;
        if partial.bytes.len() + payload.len() > self.limits.message_bytes_max
            || partial.fragments > self.limits.fragments_max
        {
            return Err(CloseReason::MessageTooBig);
        }
        partial.bytes.extend_from_slice(payload);
        if partial.text {
            partial.check_utf8(last)?;
        }
        if !last {
            return Ok(None);
        }
        let Some(whole) = self.partial.take() else {
            return Ok(None);
        };
        Ok(Some(if whole.text {
            Incoming::Text(whole.bytes)
        } else {
            Incoming::Binary(whole.bytes)
        }))
    }
}

impl std::fmt::Debug for Socket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Socket")
            .field("framing", &self.framing)
            .finish_non_exhaustive()
    }
}

impl Partial {
    /// Checks what is new, fragment by fragment, so that bad text ends the session at once; a
    /// character may be cut between two fragments.
    fn check_utf8(&mut self, last: bool) -> Result<(), CloseReason> {
        match std::str::from_utf8(&self.bytes[self.checked..]) {
            Ok(_) => self.checked = self.bytes.len(),
            Err(e) if e.error_len().is_none() && !last => self.checked += e.valid_up_to(),
            Err(_) => return Err(CloseReason::InvalidUtf8),
        }
        Ok(())
    }
}

/// Whether the bytes are one pong and nothing else, which is all that an idle client sends: no
/// reader is built for it.
fn is_pong(bytes: &[u8]) -> bool {
    const FIN_PONG: u8 = 0x8a;
    const MASKED: u8 = 0x80;
    let [FIN_PONG, second, _, _, _, _, payload @ ..] = bytes else {
        return false;
    };
    let length = usize::from(*second).checked_sub(usize::from(MASKED));
    payload.len() <= 125 && length == Some(payload.len())
}

async fn read(mut reader: WebSocket<Source>) -> (WebSocket<Source>, ReadResult) {
    let result = reader.read_frame().await;
    (reader, result)
}

fn close(payload: &[u8]) -> Result<Incoming, CloseReason> {
    let [high, low, text @ ..] = payload else {
        return match payload {
            [] => Ok(Incoming::Close(None)),
            _ => Err(CloseReason::ProtocolViolation),
        };
    };
    let code = u16::from_be_bytes([*high, *low]);
    if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
        return Err(CloseReason::ProtocolViolation);
    }
    if std::str::from_utf8(text).is_err() {
        return Err(CloseReason::InvalidUtf8);
    }
    Ok(Incoming::Close(Some(code)))
}

fn reason(error: &WebSocketError) -> CloseReason {
    match error {
        WebSocketError::FrameTooLarge => CloseReason::MessageTooBig,
        WebSocketError::InvalidUTF8 => CloseReason::InvalidUtf8,
        WebSocketError::UnexpectedEOF | WebSocketError::IoError(_) => CloseReason::Lost,
        _ => CloseReason::ProtocolViolation,
    }
}

/// The stream as the reader sees it: first the bytes that came, then what follows, which
/// [`Framing`] sees too. It cannot write: the worker writes.
struct Source {
    early: Bytes,
    stream: Rc<Stream>,
    framing: Rc<RefCell<Framing>>,
}

impl AsyncRead for Source {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.early.has_remaining() {
            let n = self.early.len().min(buf.remaining());
            buf.put_slice(&self.early[..n]);
            self.early.advance(n);
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        loop {
            ready!(self.stream.poll_read_ready(cx))?;
            match self.stream.try_read_buf(buf) {
                Ok(_) => {
                    self.framing.borrow_mut().given(&buf.filled()[before..]);
                    return Poll::Ready(Ok(()));
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => return Poll::Ready(Err(e)),
            }
        }
    }
}

impl AsyncWrite for Source {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Err(io::ErrorKind::Unsupported.into()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests;
