//! The end of a WebSocket on the wire: close frames both ways, then the connection (RFC 6455,
//! sections 5.5.1 and 7.1.1).
//!
//! In: a stream whose last frame, the close frame, is being written. Out: a connection that ended
//! without a reset, which could destroy that frame on its way to the client. Owner of nothing.
//! Bound: none in time, callers have one; what is read is not kept.
//!
//! What the client still sends is read all the while: one that writes before it reads would
//! otherwise never come to the close frame, and closing with unread bytes resets the connection.

use std::future::{Future, poll_fn};
use std::io;

use bytes::Bytes;
use tokio::sync::Notify;

use super::Scratch;
use super::socket::{Incoming, Socket};
use crate::worker::stream::Stream;
use fanfare_protocol::close::CloseReason;
use fanfare_protocol::frame;

/// The close frame that answers the client's: its own code goes back.
#[must_use]
pub fn answer_to(code: Option<u16>) -> Bytes {
    match code {
        Some(code) => frame::close(code, ""),
        None => frame::close_empty(),
    }
}

/// Whether the client is to answer the close frame of this end. It is not where it sent its own
/// first, and where it broke the rules: behind that nothing of it may be looked at, an answering
/// close frame included (section 7.1.7).
#[must_use]
pub fn is_answered(reason: CloseReason) -> bool {
    !matches!(
        reason,
        CloseReason::Client
            | CloseReason::Lost
            | CloseReason::ProtocolViolation
            | CloseReason::InvalidUtf8
            | CloseReason::MessageTooBig
    )
}

/// Closes a stream once `written` says that the close frame is. With a `reader` the client is to
/// answer that frame before this direction is closed; see [`is_answered`].
pub async fn close(
    stream: &Stream,
    scratch: &Scratch,
    reader: Option<&mut Socket>,
    written: impl Future<Output = io::Result<()>>,
) {
    let answered = Notify::new();
    let reading = async {
        if let Some(reader) = reader {
            until_close_frame(reader, scratch).await;
        }
        answered.notify_one();
        until_end(stream, scratch).await;
    };
    let writing = async {
        if written.await.is_err() {
            return;
        }
        answered.notified().await;
        // An error means that nobody is there any more, which the reading side sees.
        let _ = stream.shut_writing();
    };
    tokio::join!(writing, reading);
}

/// Until the client's close frame. Messages that were on their way are not looked at; a stream that
/// is none any more will not bring one.
async fn until_close_frame(reader: &mut Socket, scratch: &Scratch) {
    loop {
        let next = poll_fn(|cx| reader.poll_next(cx, &mut scratch.borrow_mut())).await;
        if matches!(next, Ok(Incoming::Close(_)) | Err(_)) {
            return;
        }
    }
}

/// Until the client closes its direction.
async fn until_end(stream: &Stream, scratch: &Scratch) {
    loop {
        if poll_fn(|cx| stream.poll_read_ready(cx)).await.is_err() {
            return;
        }
        match stream.try_read(&mut scratch.borrow_mut()) {
            Ok(1..) => {}
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Ok(0) | Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;
    use std::time::Duration;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::time::timeout;

    use super::*;
    use crate::session::socket::ReadLimits;

    const DEADLINE: Duration = Duration::from_secs(20);
    const LONG: usize = 32 * 1024 * 1024;

    async fn pair() -> (TcpStream, Rc<Stream>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap());
        let (client, accepted) = tokio::join!(client, listener.accept());
        (client.unwrap(), Rc::new(accepted.unwrap().0.into()))
    }

    fn scratch() -> Scratch {
        Rc::new(RefCell::new(vec![0; 4_096]))
    }

    async fn written(stream: &Stream, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            stream.writable().await?;
            match stream.try_write(bytes) {
                Ok(count) => bytes = &bytes[count..],
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Neither side reads before it has written more than lies between them, and still the last
    /// byte arrives.
    #[tokio::test]
    async fn a_client_that_writes_before_it_reads_gets_everything_and_no_reset() {
        let (mut client, server) = pair().await;
        let scratch = scratch();
        let ours = vec![1; LONG];
        let closing = close(&server, &scratch, None, written(&server, &ours));
        let talking = async {
            client.write_all(&vec![2; LONG]).await.unwrap();
            let mut got = Vec::new();
            client.read_to_end(&mut got).await.unwrap();
            drop(client);
            got
        };
        let both = async { tokio::join!(closing, talking) };
        let ((), got) = timeout(DEADLINE, both)
            .await
            .expect("neither waits for ever");
        assert!(got == ours, "{} bytes came", got.len());
    }

    #[tokio::test]
    async fn a_client_that_is_gone_is_not_waited_for() {
        let (client, server) = pair().await;
        drop(client);
        let limits = ReadLimits {
            message_bytes_max: 1_024,
            fragments_max: 1,
        };
        let mut reader = Socket::new(Rc::clone(&server), Bytes::new(), limits);
        let scratch = scratch();
        let frame = frame::close(4_000, "");
        let last = written(&server, &frame);
        let closed = close(&server, &scratch, Some(&mut reader), last);
        timeout(DEADLINE, closed).await.expect("it ends by itself");
    }
}
