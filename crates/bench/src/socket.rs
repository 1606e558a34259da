//! One WebSocket of a load: the dial, whole frames in, frames out.
//!
//! In: an address and a handshake. Out: payloads, read through memory that all sockets of the thread
//! share, with one system call where less came than that holds; a socket that waits keeps only what
//! is left of an incomplete frame, mostly nothing. Pings are answered here. Bounds: [`DIAL_TIMEOUT`] for the dial, [`HEAD_BYTES_MAX`] for
//! the answer to the handshake; at each the socket fails with its error. A dropped socket is reset,
//! not closed in order, so that a load leaves no ports behind that must first cool down.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Poll, ready};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead as _, ReadBuf};
use tokio::net::{TcpSocket, TcpStream};

use super::class::Class;
use super::frames::{self, BadFrame};
use super::wire::Upgrade;

/// Longest wait for the connection and the answer to the handshake together.
const DIAL_TIMEOUT: Duration = Duration::from_secs(60);
/// Longest answer to a handshake.
const HEAD_BYTES_MAX: usize = 64 * 1_024;
/// What a load reads at once.
pub const READ_BYTES: usize = 256 * 1_024;

/// The receive buffer of a load's narrow socket.
pub const NARROW_BUFFER_BYTES: u32 = 8 * 1_024;
/// The longest segment that a narrow socket takes.
const NARROW_SEGMENT_BYTES: u32 = 536;

/// The memory that sockets of the thread read through.
pub type Scratch = Rc<RefCell<Vec<u8>>>;

/// Memory for a new crowd, which then reads at most so many bytes at once.
#[must_use]
pub fn scratch(bytes: usize) -> Scratch {
    Rc::new(RefCell::new(vec![0; bytes]))
}

/// Why there is no socket, or no more.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// No TCP connection.
    #[error("cannot connect to {address}")]
    Unreachable {
        /// What was dialled.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The handshake was refused.
    #[error("the handshake was answered with {status} {body}")]
    Rejected {
        /// The HTTP status.
        status: u16,
        /// The begin of what was said.
        body: String,
    },
    /// The server refused what the session asked for.
    #[error("refused: {0}")]
    Refused(String),
    /// The server closed.
    #[error("closed by the server with {code} {text}")]
    Closed {
        /// The close code; 1005 when there was none.
        code: u16,
        /// The text of the close frame.
        text: String,
    },
    /// The stream ended without a close frame.
    #[error("cut off by the server")]
    CutOff,
    /// The stream broke.
    #[error("the connection broke")]
    Broken(#[source] std::io::Error),
    /// No answer in time.
    #[error("no answer within {} s", DIAL_TIMEOUT.as_secs())]
    TimedOut,
    /// The server does not speak WebSocket as it should.
    #[error(transparent)]
    Frame(#[from] BadFrame),
}

impl SocketError {
    /// What kind of failure it is.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Self::Rejected { status, .. } => Class::Status(*status),
            Self::Closed { code, .. } => Class::Close(*code),
            Self::Refused(_) | Self::Frame(_) => Class::Refused,
            Self::Unreachable { .. } | Self::CutOff | Self::Broken(_) | Self::TimedOut => {
                Class::Unreachable
            }
        }
    }
}

/// What a dial needs.
#[derive(Debug, Clone)]
pub struct Dial {
    /// Where to.
    pub address: SocketAddr,
    /// The `Host` header.
    pub host: String,
    /// The receive buffer, where the system is to keep as little as possible of what is not read:
    /// with it segments are small, and by these the buffer at the server.
    pub narrow_bytes: Option<u32>,
}

/// An open WebSocket.
#[derive(Debug)]
pub struct Socket {
    stream: TcpStream,
    scratch: Scratch,
    /// The begin of a frame whose end has not come.
    partial: Vec<u8>,
    /// Pongs that are to be written.
    pongs: Vec<u8>,
}

impl Socket {
    /// Connects, and nothing more: for a server that sends frames at once.
    ///
    /// # Errors
    /// [`SocketError::Unreachable`].
    pub async fn connect(dial: &Dial, scratch: Scratch) -> Result<Self, SocketError> {
        Ok(Self {
            stream: connect(dial).await?,
            scratch,
            partial: Vec::new(),
            pongs: Vec::new(),
        })
    }

    /// Connects and asks for a WebSocket.
    ///
    /// # Errors
    /// [`SocketError`].
    pub async fn open(
        dial: &Dial,
        upgrade: &Upgrade,
        scratch: Scratch,
    ) -> Result<Self, SocketError> {
        let opening = async {
            let mut socket = Self::connect(dial, scratch).await?;
            let Upgrade { path, headers } = upgrade;
            let request = format!(
                "GET {path} HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                 Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
                 {headers}\r\n",
                dial.host
            );
            socket.send(request.as_bytes()).await?;
            socket.upgraded().await?;
            Ok(socket)
        };
        match tokio::time::timeout(DIAL_TIMEOUT, opening).await {
            Ok(result) => result,
            Err(_elapsed) => Err(SocketError::TimedOut),
        }
    }

    /// Writes all of it.
    ///
    /// # Errors
    /// [`SocketError::Broken`].
    pub async fn send(&self, mut bytes: &[u8]) -> Result<(), SocketError> {
        while !bytes.is_empty() {
            match self.stream.try_write(bytes) {
                Ok(written) => bytes = &bytes[written..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.stream.writable().await.map_err(SocketError::Broken)?;
                }
                Err(error) => return Err(SocketError::Broken(error)),
            }
        }
        Ok(())
    }

    /// Waits for bytes and hands every whole data frame to `each`.
    ///
    /// # Errors
    /// [`SocketError`] at the end of the stream; what came before it was handed over.
    pub async fn read(&mut self, mut each: impl FnMut(&[u8])) -> Result<(), SocketError> {
        let read = self.fill().await?;
        self.take(read, &mut each)?;
        self.answer_pings().await
    }

    /// Hands over the whole frames that came right behind the handshake.
    ///
    /// # Errors
    /// [`SocketError`], as [`Self::read`].
    pub async fn rest(&mut self, mut each: impl FnMut(&[u8])) -> Result<(), SocketError> {
        self.take(0, &mut each)?;
        self.answer_pings().await
    }

    async fn answer_pings(&mut self) -> Result<(), SocketError> {
        if self.pongs.is_empty() {
            return Ok(());
        }
        let pongs = std::mem::take(&mut self.pongs);
        self.send(&pongs).await
    }

    /// Handles what is left of before and the first bytes of the scratch memory.
    fn take(&mut self, read: usize, each: &mut impl FnMut(&[u8])) -> Result<(), SocketError> {
        let scratch = self.scratch.borrow();
        let fresh = &scratch[..read];
        let (mut closed, pongs) = (None, &mut self.pongs);
        let mut sort = |opcode: u8, payload: &[u8]| match opcode {
            frames::PING => pongs.extend(frames::masked(frames::PONG, payload)),
            frames::PONG => {}
            frames::CLOSE => closed = Some(close_reason(payload)),
            _ => each(payload),
        };
        if self.partial.is_empty() {
            let end = frames::each_frame(fresh, &mut sort)?;
            self.partial.extend_from_slice(&fresh[end..]);
        } else {
            self.partial.extend_from_slice(fresh);
            let end = frames::each_frame(&self.partial, &mut sort)?;
            self.partial.drain(..end);
            if self.partial.is_empty() {
                self.partial = Vec::new();
            }
        }
        closed.map_or(Ok(()), Err)
    }

    /// Waits for bytes in the scratch memory.
    async fn fill(&mut self) -> Result<usize, SocketError> {
        let Self {
            stream, scratch, ..
        } = self;
        let read = poll_fn(|cx| {
            let mut scratch = scratch.borrow_mut();
            let mut buffer = ReadBuf::new(&mut scratch);
            let read = ready!(Pin::new(&mut *stream).poll_read(cx, &mut buffer));
            Poll::Ready(read.map(|()| buffer.filled().len()))
        });
        match read.await.map_err(SocketError::Broken)? {
            0 => Err(SocketError::CutOff),
            read => Ok(read),
        }
    }

    /// Reads to the end of the answer's head; what follows stays for later.
    async fn upgraded(&mut self) -> Result<(), SocketError> {
        loop {
            let read = self.fill().await?;
            self.partial
                .extend_from_slice(&self.scratch.borrow()[..read]);
            let end = self.partial.windows(4).position(|part| part == b"\r\n\r\n");
            let Some(end) = end else {
                if self.partial.len() > HEAD_BYTES_MAX {
                    return Err(BadFrame.into());
                }
                continue;
            };
            let head = String::from_utf8_lossy(&self.partial[..end]).into_owned();
            let status = head.split(' ').nth(1).and_then(|text| text.parse().ok());
            self.partial.drain(..end + 4);
            return match status {
                Some(101) => Ok(()),
                Some(status) => Err(SocketError::Rejected {
                    status,
                    body: first_line(&self.partial),
                }),
                None => Err(BadFrame.into()),
            };
        }
    }
}

async fn connect(dial: &Dial) -> Result<TcpStream, SocketError> {
    let address = dial.address;
    let open = async {
        let socket = match address {
            SocketAddr::V4(_) => TcpSocket::new_v4()?,
            SocketAddr::V6(_) => TcpSocket::new_v6()?,
        };
        if let Some(bytes) = dial.narrow_bytes {
            socket.set_recv_buffer_size(bytes)?;
            SockRef::from(&socket).set_tcp_mss(NARROW_SEGMENT_BYTES)?;
        }
        let stream = socket.connect(address).await?;
        stream.set_nodelay(true)?;
        stream.set_zero_linger()?;
        Ok(stream)
    };
    open.await
        .map_err(|source| SocketError::Unreachable { address, source })
}

fn close_reason(payload: &[u8]) -> SocketError {
    let (code, text) = match payload {
        [a, b, text @ ..] => (u16::from_be_bytes([*a, *b]), text),
        _ => (1005, &[][..]),
    };
    SocketError::Closed {
        code,
        text: first_line(text),
    }
}

fn first_line(bytes: &[u8]) -> String {
    const LENGTH_MAX: usize = 200;
    let text = String::from_utf8_lossy(bytes);
    let line = text.lines().next().unwrap_or_default();
    line.chars().take(LENGTH_MAX).collect()
}
