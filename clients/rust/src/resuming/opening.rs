//! The way to a session: a token, the connection, `connect`, and `welcome`.
//!
//! In: an address, where the token comes from, the text of `connect`. Out: [`Opened`], or why not.
//! Owner: [`super::ResumingConnection`], which keeps a try that is under way, so that it goes on
//! although its caller does something else meanwhile. Bounds: those of the token, of the dial, and
//! [`WELCOME_TIMEOUT`].

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use serde_json::Value;
use tokio::time::timeout;

use crate::address::Address;
use crate::connection::Connection;
use crate::error::ConnectionError;
use crate::reconnect::{Again, asked};
use crate::token::{Presented, Source};

/// Longest wait for `welcome`.
const WELCOME_TIMEOUT: Duration = Duration::from_secs(30);

/// What came of a try to connect.
pub(super) struct Tried {
    /// The token that was shown, if it came so far.
    pub(super) presented: Option<Presented>,
    pub(super) opened: Result<(Connection, Value), ConnectionError>,
}

/// A try that is under way.
pub(super) struct Opening(Pin<Box<dyn Future<Output = Tried> + Send>>);

impl fmt::Debug for Opening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Opening")
    }
}

impl Opening {
    /// Begins a try. `hello` is the text of `connect`.
    pub(super) fn begin(
        address: Address,
        source: Source,
        hello: String,
        frame_bytes_max: usize,
    ) -> Self {
        Self(Box::pin(async move {
            let presented = match source.get().await {
                Ok(presented) => presented,
                Err(error) => {
                    return Tried {
                        presented: None,
                        opened: Err(ConnectionError::Token(error)),
                    };
                }
            };
            let token = presented.token.as_deref();
            let opened = open(&address, token, hello, frame_bytes_max).await;
            Tried {
                presented: Some(presented),
                opened,
            }
        }))
    }

    /// Waits for its end.
    ///
    /// # Cancel safety
    /// Safe: it goes on at the next call.
    pub(super) async fn end(&mut self) -> Tried {
        (&mut self.0).await
    }
}

async fn open(
    address: &Address,
    token: Option<&str>,
    hello: String,
    frame_bytes_max: usize,
) -> Result<(Connection, Value), ConnectionError> {
    let mut connection = Connection::open(address, token, frame_bytes_max).await?;
    connection.send(hello);
    match timeout(WELCOME_TIMEOUT, welcome(&mut connection)).await {
        Ok(welcome) => Ok((connection, welcome?)),
        Err(_elapsed) => Err(ConnectionError::TimedOut {
            url: address.url().to_owned(),
        }),
    }
}

/// Reads up to the answer to `connect`. Before it a session belongs to no topic, so that nothing
/// which comes earlier (a `drain`, which the connection has noticed) is for the caller.
async fn welcome(connection: &mut Connection) -> Result<Value, ConnectionError> {
    loop {
        let frame = connection.read().await?;
        match &*frame.head.kind {
            "welcome" => return Ok(frame.says()),
            "error" => return Err(refusal(&frame.says())),
            _ => {}
        }
    }
}

/// The error that an answer to `connect` means for the connection.
fn refusal(frame: &Value) -> ConnectionError {
    let text = |name: &str| frame[name].as_str().unwrap_or_default().to_owned();
    let code = text("code");
    // Too many topics can be sent again with less, and sessions of the user end.
    let may_pass = frame["retry"] == true || code == "limit_exceeded";
    let again = match (may_pass, frame["retry_after_ms"].as_u64()) {
        (true, Some(wait_ms)) => Again::After(asked(wait_ms)),
        (true, None) => Again::BackOff,
        (false, _) => Again::Never,
    };
    ConnectionError::Refused {
        code,
        message: text("message"),
        again,
    }
}
