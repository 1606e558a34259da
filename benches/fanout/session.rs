//! One client's socket: handshake, welcome, subscription, then frames as they come.
//!
//! In: an address, a token, a topic. Out: every whole frame, to whoever asks for the next ones;
//! pings are answered here. All sessions of the thread read into the same memory, so that one
//! that waits holds nothing but the begin of a frame whose end has not come.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::Poll;

use socket2::{Domain, Socket, Type};
use tokio::io::{AsyncRead as _, ReadBuf};
use tokio::net::{TcpSocket, TcpStream};

use crate::frames::handshake;
use fanfare::cli::bench::frames;

const WHOLE: &str = "the node keeps the rules of frames";

/// Most that one session reads at once.
pub(crate) const READ_BYTES: usize = 64 * 1_024;

/// Segments and receive buffer of a client far away. Loopback's own segments of 64 KiB would let
/// the kernel keep megabytes for a reader who takes nothing, and the node would never see it.
const NARROW_SEGMENT_BYTES: u32 = 536;
const NARROW_BUFFER_BYTES: usize = 4_096;

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_BYTES]);
}

/// What a session is connected by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Line {
    /// Loopback as it is.
    Wide,
    /// Small segments and a small window.
    Narrow,
}

/// A socket, before or after its handshake.
#[derive(Debug)]
pub(crate) struct Session {
    stream: TcpStream,
    /// The begin of a frame whose end has not come.
    partial: Vec<u8>,
}

impl Session {
    /// Connects, and nothing more.
    pub(crate) async fn raw(to: SocketAddr, line: Line) -> Self {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, None);
        let socket = socket.expect("a free descriptor: is `ulimit -n` 20,000?");
        if line == Line::Narrow {
            let narrow = socket
                .set_tcp_mss(NARROW_SEGMENT_BYTES)
                .and_then(|()| socket.set_recv_buffer_size(NARROW_BUFFER_BYTES));
            narrow.expect("options of a TCP socket");
        }
        socket.set_nonblocking(true).expect("a socket");
        let connected = TcpSocket::from_std_stream(socket.into()).connect(to).await;
        let stream = connected.expect("the listener takes connections");
        stream.set_nodelay(true).expect("a TCP socket");
        Self {
            stream,
            partial: Vec::new(),
        }
    }

    /// Connects, is welcomed, and joins topics.
    pub(crate) async fn open(to: SocketAddr, line: Line, token: &str, topics: &[&str]) -> Self {
        let mut session = Self::raw(to, line).await;
        session.send(handshake(&to.to_string(), token).as_bytes());
        session.upgraded().await;
        session.until(r#""type":"welcome""#).await;
        for topic in topics {
            let command = format!(r#"{{"type":"subscribe","id":1,"topic":"{topic}"}}"#);
            session.send(&frames::masked(frames::TEXT, command.as_bytes()));
            session.until(r#""type":"ok""#).await;
        }
        session
    }

    /// Waits for bytes, at most so many, and hands over every whole frame. False at the end of
    /// the stream.
    pub(crate) async fn frames(
        &mut self,
        bytes_max: usize,
        mut each: impl FnMut(u8, &[u8]),
    ) -> bool {
        poll_fn(|cx| {
            SCRATCH.with_borrow_mut(|scratch| {
                let mut buffer = ReadBuf::new(&mut scratch[..bytes_max]);
                let read = Pin::new(&mut self.stream).poll_read(cx, &mut buffer);
                if read.is_pending() {
                    return Poll::Pending;
                }
                // An error ends a stream as its end does.
                let bytes = buffer.filled();
                self.take(bytes, &mut each);
                Poll::Ready(!bytes.is_empty())
            })
        })
        .await
    }

    fn take(&mut self, bytes: &[u8], each: &mut impl FnMut(u8, &[u8])) {
        let stream = &self.stream;
        let each = |opcode, payload: &[u8]| match opcode {
            frames::PING => send(stream, &frames::masked(frames::PONG, payload)),
            _ => each(opcode, payload),
        };
        if self.partial.is_empty() {
            let end = frames::each_frame(bytes, each).expect(WHOLE);
            self.partial.extend_from_slice(&bytes[end..]);
        } else {
            self.partial.extend_from_slice(bytes);
            let end = frames::each_frame(&self.partial, each).expect(WHOLE);
            self.partial.drain(..end);
        }
        if self.partial.is_empty() {
            self.partial = Vec::new();
        }
    }

    /// What a load sends fits into the socket's empty buffer.
    fn send(&self, bytes: &[u8]) {
        send(&self.stream, bytes);
    }

    /// Reads to the end of the answer's head; what follows stays for later.
    async fn upgraded(&mut self) {
        let mut answer = Vec::new();
        loop {
            self.stream.readable().await.expect("a socket");
            match self.stream.try_read_buf(&mut answer) {
                Ok(read) => assert_ne!(read, 0, "the handshake was cut off"),
                Err(e) => assert_eq!(e.kind(), std::io::ErrorKind::WouldBlock, "{e}"),
            }
            if let Some(end) = answer.windows(4).position(|w| w == b"\r\n\r\n") {
                let text = String::from_utf8_lossy(&answer[..end]);
                assert!(text.starts_with("HTTP/1.1 101"), "refused: {text}");
                self.partial.extend_from_slice(&answer[end + 4..]);
                return;
            }
        }
    }

    /// Reads until a text frame with these words has come.
    async fn until(&mut self, words: &str) {
        let found = Cell::new(false);
        let mut look = |opcode, payload: &[u8]| {
            let text = String::from_utf8_lossy(payload);
            assert_ne!(opcode, frames::CLOSE, "closed instead of {words}: {text}");
            found.set(found.get() || text.contains(words));
        };
        // The answer to the handshake may have brought the first frame.
        self.take(&[], &mut look);
        while !found.get() {
            let more = self.frames(READ_BYTES, &mut look).await;
            assert!(more, "cut off instead of {words}");
        }
    }
}

fn send(stream: &TcpStream, bytes: &[u8]) {
    let sent = stream.try_write(bytes);
    assert_eq!(sent.expect("the socket takes it"), bytes.len());
}
