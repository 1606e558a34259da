//! The last words of a connection: a body for what the HTTP parser refuses, and an end that lets the
//! last answer arrive.
//!
//! In: the stream that hyper writes to. Out: the same bytes, but for answers that hyper makes itself
//! (400, 414, 431), which have no body and are replaced by ours. hyper has no hook for them; they
//! are known by their form: a whole head at the end of a write, with `content-length: 0`,
//! `connection: close`, and without the `cache-control` that all our answers have. Bounds: what is
//! still read of a request that was refused has a time and a length ([`Rest`]), and a peer that does not
//! take what is written to it has a time as well, where the stream was given one.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use hyper::StatusCode;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep};

use super::error::as_body;
use fanfare_protocol::error::{ErrorCode, WireError};

/// The longest head that hyper makes for a refusal, with room to spare.
const BARE_HEAD_BYTES_MAX: usize = 256;
/// What is read at once of what nobody wants.
const DISCARD_BYTES: usize = 8 * 1024;

/// How much is still taken of a request whose answer was written. Closing with unread bytes resets
/// the connection, and the peer might never see the answer (RFC 9112, section 9.6).
#[derive(Debug, Clone, Copy)]
pub struct Rest {
    /// For so long.
    pub timeout: Duration,
    /// So many bytes.
    pub bytes_max: usize,
}

/// A stream whose parser's refusals have a body.
#[derive(Debug)]
pub struct Answering<S> {
    stream: S,
    /// What is written in place of a bare head, as far as it is not yet.
    instead: Option<Bytes>,
    /// How long the peer may take for what is written at once.
    patience: Option<Duration>,
    /// When that is over; there while something waits.
    late: Option<Pin<Box<Sleep>>>,
}

impl<S> Answering<S> {
    /// Over this stream.
    pub fn new(stream: S) -> Self {
        Self {
            stream,
            instead: None,
            patience: None,
            late: None,
        }
    }

    /// The same with a peer that has so long to take what is written: not from one byte to the next,
    /// but until nothing waits any more. After it, writing fails with `TimedOut`.
    #[must_use]
    pub fn patient(self, patience: Duration) -> Self {
        Self {
            patience: Some(patience),
            ..self
        }
    }

    /// The stream.
    pub fn into_inner(self) -> S {
        self.stream
    }
}

impl<S: AsyncWrite + Unpin> Answering<S> {
    fn pass(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut left = match (self.instead.take(), bare_head(bytes)) {
            (Some(left), _) => left,
            (None, None) => return Pin::new(&mut self.stream).poll_write(cx, bytes),
            // What comes before goes first, and the head is offered again.
            (None, Some((start, _))) if start > 0 => {
                return Pin::new(&mut self.stream).poll_write(cx, &bytes[..start]);
            }
            (None, Some((_, status))) => refusal(status),
        };
        while left.has_remaining() {
            match Pin::new(&mut self.stream).poll_write(cx, &left) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(written)) => left.advance(written),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    self.instead = Some(left);
                    return Poll::Pending;
                }
            }
        }
        Poll::Ready(Ok(bytes.len()))
    }

    /// The stream takes nothing at the moment.
    fn wait(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let Some(patience) = self.patience else {
            return Poll::Pending;
        };
        let late = self.late.get_or_insert_with(|| Box::pin(sleep(patience)));
        let late = late.as_mut().poll(cx);
        late.map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Answering<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Answering<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.pass(cx, bytes) {
            Poll::Pending => self.wait(cx),
            done => done,
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        // A head that hyper makes itself stands alone: nothing of an earlier answer waits.
        match slices {
            [one] => self.poll_write(cx, one),
            _ => match Pin::new(&mut self.stream).poll_write_vectored(cx, slices) {
                Poll::Pending => self.wait(cx),
                done => done,
            },
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// It is asked for when all that was to be written is.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.late = None;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Where a head without body begins that hyper made itself, and its status.
fn bare_head(bytes: &[u8]) -> Option<(usize, StatusCode)> {
    if !bytes.ends_with(b"\r\n\r\n") {
        return None;
    }
    let from = bytes.len().saturating_sub(BARE_HEAD_BYTES_MAX);
    let start = from + last_place(&bytes[from..], b"HTTP/1.")?;
    let head = std::str::from_utf8(&bytes[start..]).ok()?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let is_bare = head.contains("\r\ncontent-length: 0\r\n")
        && head.contains("\r\nconnection: close\r\n")
        && !head.contains("\r\ncache-control: ");
    matches!(
        status,
        StatusCode::BAD_REQUEST
            | StatusCode::URI_TOO_LONG
            | StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE
    )
    .then_some((start, status))
    .filter(|_| is_bare)
}

fn last_place(bytes: &[u8], word: &[u8]) -> Option<usize> {
    bytes.windows(word.len()).rposition(|part| part == word)
}

/// The whole answer to a request that the parser refuses.
fn refusal(status: StatusCode) -> Bytes {
    let (code, message) = match status {
        StatusCode::URI_TOO_LONG => (ErrorCode::TooLarge, "the target is too long"),
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => (
            ErrorCode::TooLarge,
            "the request's headers are too many or too long",
        ),
        StatusCode::REQUEST_TIMEOUT => (
            ErrorCode::RequestTimeout,
            "the request's head did not arrive in time",
        ),
        _ => (ErrorCode::BadRequest, "this is no HTTP/1.1 request"),
    };
    let error = WireError::new(code, message);
    let body = serde_json::json!({ "error": as_body(&error) }).to_string();
    let reason = status.canonical_reason().unwrap_or_default();
    Bytes::from(format!(
        "HTTP/1.1 {} {reason}\r\nconnection: close\r\ncontent-type: application/json\r\n\
         content-length: {}\r\ncache-control: no-store\r\n\r\n{body}",
        status.as_u16(),
        body.len(),
    ))
}

/// Tells a peer that its request's head came too slowly. Where nothing of a head has come, the
/// connection was idle and ends without a word.
pub fn tell_timeout(stream: &TcpStream) {
    // Few bytes into an empty buffer; where they do not fit, nobody reads.
    let _ = stream.try_write(&refusal(StatusCode::REQUEST_TIMEOUT));
}

/// Ends a connection after its last answer: the writing side first, then whatever is still sent is
/// taken and thrown away, up to the bounds.
pub async fn end(mut stream: TcpStream, rest: Rest) {
    if stream.shutdown().await.is_err() {
        return;
    }
    let mut buffer = vec![0; DISCARD_BYTES];
    let all = async {
        let mut taken = 0;
        while taken < rest.bytes_max {
            match stream.read(&mut buffer).await {
                Ok(0) | Err(_) => return,
                Ok(bytes) => taken += bytes,
            }
        }
    };
    // A peer that goes on for longer does not want the answer.
    let _ = tokio::time::timeout(rest.timeout, all).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    const BARE: &str = "HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\n\
                        content-length: 0\r\ndate: Thu, 28 Nov 2024 19:00:00 GMT\r\n\r\n";
    const OURS: &str = "HTTP/1.1 200 OK\r\ncache-control: no-store\r\ncontent-length: 0\r\n\r\n";

    async fn through(writes: &[&str]) -> String {
        let (near, mut far) = tokio::io::duplex(16);
        let mut stream = Answering::new(near);
        let write = async {
            for bytes in writes {
                stream.write_all(bytes.as_bytes()).await.unwrap();
            }
            drop(stream);
        };
        let mut text = String::new();
        let (_, read) = tokio::join!(write, far.read_to_string(&mut text));
        read.unwrap();
        text
    }

    #[tokio::test]
    async fn a_bare_refusal_gets_a_body_also_behind_another_answer() {
        for before in ["", OURS] {
            let text = through(&[&format!("{before}{BARE}")]).await;
            let rest = text.strip_prefix(before).unwrap();
            let (head, body) = rest.split_once("\r\n\r\n").unwrap();
            assert!(head.starts_with("HTTP/1.1 431 Request Header Fields Too Large\r\n"));
            assert!(head.contains(&format!("content-length: {}\r\n", body.len())));
            let body: serde_json::Value = serde_json::from_str(body).unwrap();
            assert_eq!(body["error"]["code"], "too_large");
        }
    }

    #[tokio::test]
    async fn a_peer_that_hardly_takes_anything_is_left_when_its_time_is_up() {
        for bytes in [0, 1] {
            let (near, mut far) = tokio::io::duplex(16);
            let mut stream = Answering::new(near).patient(Duration::from_millis(200));
            let read = async {
                let mut bytes = vec![0; bytes];
                loop {
                    sleep(Duration::from_millis(20)).await;
                    far.read_exact(&mut bytes).await.unwrap();
                }
            };
            let written = tokio::select! {
                written = stream.write_all(&[b'x'; 10_000]) => written,
                () = read => unreachable!("it reads for ever"),
            };
            assert_eq!(written.unwrap_err().kind(), io::ErrorKind::TimedOut);
        }
    }

    /// Fifteen answers take longer together than one of them may.
    #[tokio::test]
    async fn each_answer_has_its_own_time() {
        let (near, mut far) = tokio::io::duplex(16);
        let mut stream = Answering::new(near).patient(Duration::from_secs(2));
        let read = async {
            let mut bytes = [0; 16];
            while far.read_exact(&mut bytes).await.is_ok() {
                sleep(Duration::from_millis(50)).await;
            }
        };
        let write = async {
            for _ in 0..15 {
                stream.write_all(&[b'x'; 64]).await.unwrap();
                stream.flush().await.unwrap();
            }
            drop(stream);
        };
        tokio::join!(read, write);
    }

    #[tokio::test]
    async fn every_other_byte_goes_through_as_it_is() {
        let told = BARE.replace("content-length: 0", "content-length: 5");
        let stored = BARE.replace("date: ", "cache-control: no-store\r\ndate: ");
        for text in [
            OURS,
            &told,
            &stored,
            "frames\r\n\r\n",
            &BARE.replace("431", "200"),
        ] {
            assert_eq!(through(&[text, "more"]).await, format!("{text}more"));
        }
    }
}
