//! One WebSocket of a client: the dial, JSON frames out and in, and why it ended.
//!
//! In: an address, a token, commands as JSON. Out: the server's events as JSON, and at the end one
//! [`ConnectionError`]. Independent of the server's codec, so that one cannot hide a fault of the
//! other. Owner: [`crate::resuming::ResumingConnection`]. Bounds: [`DIAL_TIMEOUT`] for the connection, silence
//! of more than two pings, one frame of at most 16 MiB; at each the connection ends with its
//! error.

use std::time::Duration;

use futures_util::{FutureExt, SinkExt, StreamExt};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::Error as SocketError;
use tokio_tungstenite::tungstenite::protocol::{Message, WebSocketConfig};

use crate::address::Address;
use crate::dial::{DialError, Stream};
use crate::error::ConnectionError;
use crate::reconnect::Again;

/// Longest wait for the TCP connection and the handshake together.
const DIAL_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest wait for the farewell of a connection that this side ends.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// What a late ping may take on top of two intervals before the connection counts as dead.
const SILENCE_GRACE: Duration = Duration::from_secs(10);
/// Largest frame that is taken: pages of the server are bounded to 1 MiB of bodies.
const FRAME_BYTES_MAX: usize = 16 << 20;

/// A frame of the server.
#[derive(Debug, Clone)]
pub struct Frame {
    /// What it says. A field that no [`Value`] can hold (`1e400`, half of a surrogate pair) is null.
    pub says: Value,
    /// The same as it came.
    pub text: String,
}

impl Frame {
    /// Reads a frame. What it carries of other people may be more than this program can hold, and
    /// is then only carried.
    fn read(text: &str) -> Result<Self, serde_json::Error> {
        let says = serde_json::from_str(text).or_else(|_| {
            let fields: std::collections::BTreeMap<String, &RawValue> = serde_json::from_str(text)?;
            let known = |value: &RawValue| serde_json::from_str(value.get()).unwrap_or_default();
            let fields = fields.into_iter().map(|(name, value)| (name, known(value)));
            Ok::<_, serde_json::Error>(Value::Object(fields.collect::<Map<_, _>>()))
        })?;
        let text = text.to_owned();
        Ok(Self { says, text })
    }
}

/// An open connection.
#[derive(Debug)]
pub struct Connection {
    socket: WebSocketStream<Stream>,
    opened: Instant,
    heard: Instant,
    silence_max: Option<Duration>,
    drain_at: Option<Instant>,
}

impl Connection {
    /// Dials and shakes hands.
    ///
    /// # Errors
    /// [`ConnectionError`].
    pub async fn open(address: &Address, token: Option<&str>) -> Result<Self, ConnectionError> {
        match timeout(DIAL_TIMEOUT, Self::dial(address, token)).await {
            Ok(result) => result,
            Err(_elapsed) => Err(ConnectionError::TimedOut {
                url: address.url().to_owned(),
            }),
        }
    }

    async fn dial(address: &Address, token: Option<&str>) -> Result<Self, ConnectionError> {
        let stream = address.place().dial().await;
        let stream = stream.map_err(|source| ConnectionError::Unreachable {
            url: address.url().to_owned(),
            source,
        })?;
        let config = WebSocketConfig::default()
            .max_frame_size(Some(FRAME_BYTES_MAX))
            .max_message_size(Some(FRAME_BYTES_MAX));
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
        })
    }

    /// How long it has been open.
    #[must_use]
    pub fn age(&self) -> Duration {
        self.opened.elapsed()
    }

    /// From now on, silence of more than two such intervals is a break; zero turns that off.
    pub fn expect_pings(&mut self, interval: Duration) {
        self.silence_max = (!interval.is_zero()).then(|| interval * 2 + SILENCE_GRACE);
    }

    /// Sends one frame.
    ///
    /// # Errors
    /// [`ConnectionError::Broken`].
    pub async fn send(&mut self, frame: &Value) -> Result<(), ConnectionError> {
        let frame = Message::text(frame.to_string());
        self.socket
            .send(frame)
            .await
            .map_err(ConnectionError::Broken)
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
            let message = match self.deadline() {
                Some(deadline) => timeout_at(deadline, self.socket.next()).await,
                None => Ok(self.socket.next().await),
            };
            let Ok(message) = message else {
                return Err(self.overdue().await);
            };
            let message = message
                .unwrap_or(Err(SocketError::ConnectionClosed))
                .map_err(ConnectionError::Broken)?;
            self.heard = Instant::now();
            match message {
                Message::Text(text) => {
                    let frame = Frame::read(&text).map_err(ConnectionError::Unreadable)?;
                    if !self.is_for_connection(&frame.says).await? {
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

    /// Says good-bye, briefly.
    pub async fn close(mut self) {
        // An end that cannot be told is one that the server sees anyway.
        let _ = timeout(CLOSE_TIMEOUT, self.socket.close(None)).await;
    }

    /// Takes what concerns the connection itself: answers `ping` (and keeps it from the caller),
    /// remembers `drain` (which the caller is told too).
    async fn is_for_connection(&mut self, frame: &Value) -> Result<bool, ConnectionError> {
        match frame["type"].as_str() {
            Some("ping") => {
                self.send(&json!({"type": "ping"})).await?;
                Ok(true)
            }
            Some("drain") => {
                let wait_ms = frame["reconnect_after_ms"].as_u64().unwrap_or(0);
                self.drain_at = Some(Instant::now() + Duration::from_millis(wait_ms));
                Ok(false)
            }
            _ => Ok(false),
        }
    }

    fn deadline(&self) -> Option<Instant> {
        let silent_at = self.silence_max.map(|silence| self.heard + silence);
        [silent_at, self.drain_at].into_iter().flatten().min()
    }

    /// The deadline has passed: which one it was.
    async fn overdue(&mut self) -> ConnectionError {
        if self.drain_at.is_some_and(|at| at <= Instant::now()) {
            let _ = timeout(CLOSE_TIMEOUT, self.socket.close(None)).await;
            return ConnectionError::Drained;
        }
        ConnectionError::Silent(self.heard.elapsed())
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
                .map(Duration::from_secs),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_that_carries_more_than_a_value_holds_is_a_frame() {
        let text = r#"{"type":"message","topic":"t","data":[1e400,"\ud800"],"position":"1-1"}"#;
        let frame = Frame::read(text).expect("a frame");
        assert_eq!(frame.text, text);
        let says = json!({"type": "message", "topic": "t", "data": null, "position": "1-1"});
        assert_eq!(frame.says, says);
        assert!(Frame::read("{\"type\":").is_err());
    }
}
