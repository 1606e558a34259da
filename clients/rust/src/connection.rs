//! One WebSocket of a client: the dial, JSON frames out and in, and why it ended.
//!
//! In: an address, a token, commands as text. Out: the server's [`Frame`]s, and at the end one
//! [`ConnectionError`]. Owner: [`crate::resuming::ResumingConnection`]. What is sent leaves while
//! something is read, so that neither side waits for the other. Bounds: [`DIAL_TIMEOUT`] for the
//! connection, silence of more than two pings, and a length of frames; at each the connection ends
//! with its error. What waits to leave is bounded by whoever sends.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::{FutureExt, SinkExt, StreamExt};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::Error as SocketError;
use tokio_tungstenite::tungstenite::protocol::{Message, WebSocketConfig};

use crate::address::Address;
use crate::dial::{DialError, Stream};
use crate::error::ConnectionError;
use crate::frame::{Frame, Head};
use crate::reconnect::{ASKED_MAX, Again, asked};

/// Longest wait for the TCP connection and the handshake together.
const DIAL_TIMEOUT: Duration = Duration::from_secs(10);
/// What of it all addresses of a name have for TCP.
const TCP_TIMEOUT: Duration = Duration::from_secs(8);
/// Longest wait for the farewell of a connection that this side ends.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// What a late ping may take on top of two intervals before the connection counts as dead.
const SILENCE_GRACE: Duration = Duration::from_secs(10);

/// An open connection.
#[derive(Debug)]
pub struct Connection {
    socket: WebSocketStream<Stream>,
    opened: Instant,
    heard: Instant,
    silence_max: Option<Duration>,
    drain_at: Option<Instant>,
    /// What waits to leave.
    outgoing: VecDeque<Message>,
    /// Something was handed to the socket that may not have left.
    is_unflushed: bool,
    /// Nothing can be sent any more; why is still to be read.
    is_deaf: bool,
    /// How often this side pings, where the server does not; and when next.
    own_pings: Option<(Duration, Instant)>,
}

impl Connection {
    /// Dials and shakes hands. Frames of more than `frame_bytes_max` bytes end the connection.
    ///
    /// # Errors
    /// [`ConnectionError`].
    pub async fn open(
        address: &Address,
        token: Option<&str>,
        frame_bytes_max: usize,
    ) -> Result<Self, ConnectionError> {
        match timeout(DIAL_TIMEOUT, Self::dial(address, token, frame_bytes_max)).await {
            Ok(result) => result,
            Err(_elapsed) => Err(ConnectionError::TimedOut {
                url: address.url().to_owned(),
            }),
        }
    }

    async fn dial(
        address: &Address,
        token: Option<&str>,
        frame_bytes_max: usize,
    ) -> Result<Self, ConnectionError> {
        let stream = address.place().dial(TCP_TIMEOUT).await;
        let stream = stream.map_err(|source| ConnectionError::Unreachable {
            url: address.url().to_owned(),
            source,
        })?;
        let config = WebSocketConfig::default()
            .max_frame_size(Some(frame_bytes_max))
            .max_message_size(Some(frame_bytes_max));
        let request = address.request(token);
        let shaken =
            tokio_tungstenite::client_async_with_config(request, stream, Some(config)).await;
        let (socket, _response) = shaken.map_err(|error| refused(address.url(), error))?;
        let now = Instant::now();
        Ok(Self {
            socket,
            opened: now,
            heard: now,
            silence_max: None,
            drain_at: None,
            outgoing: VecDeque::new(),
            is_unflushed: false,
            is_deaf: false,
            own_pings: None,
        })
    }

    /// How long it has been open.
    #[must_use]
    pub fn age(&self) -> Duration {
        self.opened.elapsed()
    }

    /// From now on the server pings so often, and silence of more than two such intervals is a
    /// break. Where it is zero, the server does not, and this side pings each `own`.
    pub fn expect_pings(&mut self, interval: Duration, own: Duration) {
        let is_silent = interval.is_zero();
        self.own_pings = is_silent.then(|| (own, Instant::now() + own));
        let interval = if is_silent { own } else { interval };
        self.silence_max = Some(interval * 2 + SILENCE_GRACE);
    }

    /// Has one frame leave as soon as [`Self::read`] runs and the socket takes it.
    pub fn send(&mut self, text: String) {
        self.outgoing.push_back(Message::text(text));
    }

    /// The next frame of the server. Pings are answered here and not told.
    ///
    /// # Errors
    /// [`ConnectionError`]; the connection is then finished.
    ///
    /// # Cancel safety
    /// Safe: a frame is either returned or still to come.
    pub async fn read(&mut self) -> Result<Frame, ConnectionError> {
        loop {
            let deadline = self.deadline();
            let message = poll_fn(|context| self.poll(context));
            let message = match deadline {
                Some(deadline) => timeout_at(deadline, message).await,
                None => Ok(message.await),
            };
            let Ok(message) = message else {
                if let Some(cause) = self.overdue().await {
                    return Err(cause);
                }
                continue;
            };
            let message = message
                .unwrap_or(Err(SocketError::ConnectionClosed))
                .map_err(ConnectionError::Broken)?;
            self.heard = Instant::now();
            match message {
                Message::Text(text) => {
                    let frame = Frame::read(&text).map_err(ConnectionError::Unreadable)?;
                    if !self.is_for_connection(&frame.head) {
                        return Ok(frame);
                    }
                }
                Message::Close(frame) => {
                    // Polled once: the answer is small, and a server that does not take it now
                    // has the connection's end as its answer.
                    let _ = self.socket.flush().now_or_never();
                    let (code, reason_text) = frame.map_or((1005, String::new()), |frame| {
                        (frame.code.into(), frame.reason.to_string())
                    });
                    let drain = self
                        .drain_at
                        .map(|at| at.saturating_duration_since(Instant::now()));
                    let again = Again::by_close_code(code, drain);
                    return Err(ConnectionError::Closed {
                        code,
                        reason_text,
                        again,
                    });
                }
                // tungstenite answers pings by itself at the next read.
                Message::Ping(_) | Message::Pong(_) | Message::Binary(_) | Message::Frame(_) => {}
            }
        }
    }

    /// Writes what the socket takes, and reads. A socket that takes nothing more is still read: the
    /// server's reason may stand there.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Message, SocketError>>> {
        while !self.is_deaf && !self.outgoing.is_empty() {
            let sent = match self.socket.poll_ready_unpin(context) {
                Poll::Pending => break,
                Poll::Ready(Ok(())) => match self.outgoing.pop_front() {
                    Some(message) => self.socket.start_send_unpin(message),
                    None => Ok(()),
                },
                Poll::Ready(Err(error)) => Err(error),
            };
            self.is_unflushed = true;
            self.is_deaf = sent.is_err();
        }
        if self.is_unflushed && !self.is_deaf {
            match self.socket.poll_flush_unpin(context) {
                Poll::Pending => {}
                Poll::Ready(Ok(())) => self.is_unflushed = false,
                Poll::Ready(Err(_)) => self.is_deaf = true,
            }
        }
        self.socket.poll_next_unpin(context)
    }

    /// Says good-bye, briefly.
    pub async fn close(mut self) {
        // An end that cannot be told is one that the server sees anyway.
        let _ = timeout(CLOSE_TIMEOUT, self.socket.close(None)).await;
    }

    /// Takes what concerns the connection itself: answers `ping` (and keeps it from the caller),
    /// remembers `drain` (which the caller is told too).
    fn is_for_connection(&mut self, head: &Head) -> bool {
        match &*head.kind {
            "ping" => {
                self.send(r#"{"type":"ping"}"#.to_owned());
                true
            }
            "drain" => {
                let wait = asked(head.reconnect_after_ms.unwrap_or(0));
                self.drain_at = Some(Instant::now() + wait);
                false
            }
            _ => false,
        }
    }

    fn deadline(&self) -> Option<Instant> {
        let silent_at = self.silence_max.map(|silence| self.heard + silence);
        let ping_at = self.own_pings.map(|(_, at)| at);
        let all = [silent_at, ping_at, self.drain_at];
        all.into_iter().flatten().min()
    }

    /// The deadline has passed: which one it was; `None` where it was time for a ping.
    async fn overdue(&mut self) -> Option<ConnectionError> {
        let now = Instant::now();
        if self.drain_at.is_some_and(|at| at <= now) {
            let _ = timeout(CLOSE_TIMEOUT, self.socket.close(None)).await;
            return Some(ConnectionError::Drained);
        }
        if let Some((interval, at)) = &mut self.own_pings
            && *at <= now
        {
            *at = now + *interval;
            self.outgoing.push_back(Message::Ping(Default::default()));
        }
        let silence = self.heard.elapsed();
        self.silence_max
            .is_some_and(|silence_max| silence >= silence_max)
            .then_some(ConnectionError::Silent(silence))
    }
}

/// Tells a handshake that the server refused from one that failed.
fn refused(url: &str, error: SocketError) -> ConnectionError {
    let url = url.to_owned();
    match error {
        SocketError::Http(response) => ConnectionError::Rejected {
            url,
            status: response.status().as_u16(),
            retry_after: response
                .headers()
                .get("retry-after")
                .and_then(|value| value.to_str().ok()?.parse().ok())
                .map(|seconds| Duration::from_secs(seconds).min(ASKED_MAX)),
            message: String::from_utf8_lossy(response.body().as_deref().unwrap_or_default())
                .into_owned(),
        },
        SocketError::Io(source) => ConnectionError::Unreachable {
            url,
            source: DialError::Tcp(source),
        },
        source => ConnectionError::Handshake { url, source },
    }
}
