//! A WebSocket client that does what it is told, right or wrong: bytes in, bytes out.
//!
//! It knows RFC 6455 well enough to break every rule of it on purpose, and uses no WebSocket
//! library, so that no library mends what a test wants broken.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::wait::PATIENCE;

/// A key as a browser would send it, and what RFC 6455 section 1.3 says the answer is.
pub const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
/// See [`KEY`].
pub const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// Opcodes of RFC 6455, section 5.2.
pub const CONTINUATION: u8 = 0x0;
/// See [`CONTINUATION`].
pub const TEXT: u8 = 0x1;
/// See [`CONTINUATION`].
pub const BINARY: u8 = 0x2;
/// See [`CONTINUATION`].
pub const CLOSE: u8 = 0x8;
/// See [`CONTINUATION`].
pub const PING: u8 = 0x9;
/// See [`CONTINUATION`].
pub const PONG: u8 = 0xA;

/// A frame from the client, right as [`Frame::new`] makes it and wrong as the test bends it.
#[derive(Debug, Clone)]
pub struct Frame {
    /// FIN and the three reserved bits, as they stand in the first byte.
    pub flags: u8,
    /// The opcode.
    pub opcode: u8,
    /// Whether the payload is masked, as every client must.
    pub masked: bool,
    /// The length in the header, when it is to differ from the payload's.
    pub announced: Option<u64>,
    /// The payload.
    pub payload: Vec<u8>,
}

impl Frame {
    /// A whole, masked frame.
    pub fn new(opcode: u8, payload: impl Into<Vec<u8>>) -> Self {
        Self {
            flags: 0x80,
            opcode,
            masked: true,
            announced: None,
            payload: payload.into(),
        }
    }

    /// A text frame.
    pub fn text(text: &str) -> Self {
        Self::new(TEXT, text)
    }

    /// A close frame with a code.
    pub fn close(code: u16) -> Self {
        Self::new(CLOSE, code.to_be_bytes())
    }

    /// The same frame without FIN: more fragments follow.
    #[must_use]
    pub fn unfinished(mut self) -> Self {
        self.flags &= !0x80;
        self
    }

    /// The same frame with a reserved bit set (1, 2 or 3).
    #[must_use]
    pub fn reserved(mut self, bit: u8) -> Self {
        self.flags |= 0x80 >> bit;
        self
    }

    /// The same frame without a mask.
    #[must_use]
    pub fn unmasked(mut self) -> Self {
        self.masked = false;
        self
    }

    /// The same frame with another length in its header.
    #[must_use]
    pub fn announcing(mut self, length: u64) -> Self {
        self.announced = Some(length);
        self
    }

    /// What goes over the wire.
    pub fn bytes(&self) -> Vec<u8> {
        const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
        let length = self.announced.unwrap_or(self.payload.len() as u64);
        let mask_bit = if self.masked { 0x80 } else { 0 };
        let mut out = vec![self.flags | self.opcode];
        match length {
            0..=125 => out.push(mask_bit | length as u8),
            126..=0xffff => {
                out.push(mask_bit | 126);
                out.extend((length as u16).to_be_bytes());
            }
            _ => {
                out.push(mask_bit | 127);
                out.extend(length.to_be_bytes());
            }
        }
        if self.masked {
            out.extend(MASK);
            let masked = self.payload.iter().zip(MASK.iter().cycle());
            out.extend(masked.map(|(byte, mask)| byte ^ mask));
        } else {
            out.extend(&self.payload);
        }
        out
    }
}

/// A frame from the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// FIN, reserved bits and opcode.
    pub first: u8,
    /// The payload.
    pub payload: Vec<u8>,
}

impl Received {
    /// The opcode.
    pub fn opcode(&self) -> u8 {
        self.first & 0x0f
    }
}

/// The head of an HTTP answer.
#[derive(Debug)]
pub struct Head {
    /// The status.
    pub status: u16,
    lines: Vec<String>,
}

impl Head {
    /// The value of a header; the name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.lines.iter().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

/// An opening handshake that is right until the test bends it.
#[derive(Debug, Clone)]
pub struct Handshake {
    /// Method, target and version.
    pub request_line: String,
    /// Headers in their order.
    pub headers: Vec<(String, String)>,
}

impl Handshake {
    /// As a browser would send it, for a path with its query.
    pub fn to(path: &str) -> Self {
        let headers = [
            ("Host", "fanfare.test"),
            ("Upgrade", "websocket"),
            ("Connection", "Upgrade"),
            ("Sec-WebSocket-Key", KEY),
            ("Sec-WebSocket-Version", "13"),
        ];
        Self {
            request_line: format!("GET {path} HTTP/1.1"),
            headers: headers
                .map(|(name, value)| (name.into(), value.into()))
                .into(),
        }
    }

    /// Without a header.
    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(key, _)| key != name);
        self
    }

    /// With one more header.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// With a header's value changed.
    #[must_use]
    pub fn set(self, name: &str, value: &str) -> Self {
        self.without(name).with(name, value)
    }

    /// With another request line.
    #[must_use]
    pub fn line(mut self, request_line: &str) -> Self {
        self.request_line = request_line.into();
        self
    }

    /// What goes over the wire.
    pub fn bytes(&self) -> Vec<u8> {
        let mut text = format!("{}\r\n", self.request_line);
        for (name, value) in &self.headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        text.push_str("\r\n");
        text.into_bytes()
    }
}

/// How a connection ended.
#[derive(Debug, PartialEq, Eq)]
pub struct Ended {
    /// The code of the close frame; `None` when there was no frame or none in it.
    pub code: Option<u16>,
    /// Data frames that came before it.
    pub before: Vec<Received>,
}

/// One TCP connection.
#[derive(Debug)]
pub struct Raw {
    stream: TcpStream,
    read: Vec<u8>,
}

impl Raw {
    /// Connects, and says nothing yet.
    pub async fn open(to: SocketAddr) -> Self {
        let stream = TcpStream::connect(to).await.expect("the node listens");
        stream.set_nodelay(true).expect("an open socket");
        Self {
            stream,
            read: Vec::new(),
        }
    }

    /// Connects and upgrades.
    ///
    /// # Panics
    /// When the node does not answer with 101.
    pub async fn upgraded(to: SocketAddr, path: &str) -> Self {
        Self::upgraded_as(to, &Handshake::to(path)).await
    }

    /// Connects and upgrades with this handshake.
    ///
    /// # Panics
    /// When the node does not answer with 101.
    pub async fn upgraded_as(to: SocketAddr, handshake: &Handshake) -> Self {
        let mut raw = Self::open(to).await;
        raw.send(&handshake.bytes()).await;
        let head = raw.head().await.expect("an answer to the handshake");
        assert_eq!(head.status, 101, "{head:?}");
        raw
    }

    /// A second handle on the same connection, so that one task writes while another reads.
    pub fn writer(&self) -> Self {
        let copy = socket2::SockRef::from(&self.stream).try_clone();
        let stream = TcpStream::from_std(copy.expect("a free descriptor").into());
        Self {
            stream: stream.expect("a socket that does not block"),
            read: Vec::new(),
        }
    }

    /// Sends bytes as they are. That the node has already hung up is no fault here: the test
    /// reads why.
    pub async fn send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes).await;
    }

    /// Sends a frame.
    pub async fn frame(&mut self, frame: &Frame) {
        self.send(&frame.bytes()).await;
    }

    /// Tries to send for a while; false when the node does not take it.
    pub async fn try_send(&mut self, bytes: &[u8], patience: Duration) -> bool {
        matches!(
            timeout(patience, self.stream.write_all(bytes)).await,
            Ok(Ok(()))
        )
    }

    /// Whether nothing has come that was not read yet, the end of the stream included.
    pub fn is_silent(&self) -> bool {
        self.read.is_empty()
            && self
                .stream
                .try_read(&mut [0])
                .is_err_and(|e| e.kind() == ErrorKind::WouldBlock)
    }

    /// Reads the head of an HTTP answer; `None` when the node hangs up without one.
    pub async fn head(&mut self) -> Option<Head> {
        let end = loop {
            if let Some(end) = self.read.windows(4).position(|four| four == b"\r\n\r\n") {
                break end + 4;
            }
            if !self.fill().await {
                return None;
            }
        };
        let head: Vec<u8> = self.read.drain(..end).collect();
        let text = String::from_utf8_lossy(&head).into_owned();
        let mut lines = text.lines();
        let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
        Some(Head {
            status,
            lines: lines.map(str::to_owned).collect(),
        })
    }

    /// Reads a whole HTTP answer: its head and as many bytes as it announces; `None` when the
    /// node hangs up before its end.
    pub async fn answer(&mut self) -> Option<(Head, Vec<u8>)> {
        let head = self.head().await?;
        let length: usize = head.header("content-length")?.parse().ok()?;
        while self.read.len() < length {
            if !self.fill().await {
                return None;
            }
        }
        let body = self.read.drain(..length).collect();
        Some((head, body))
    }

    /// Reads one frame; `None` at the end of the stream.
    pub async fn receive(&mut self) -> Option<Received> {
        loop {
            if let Some((received, used)) = parse(&self.read) {
                self.read.drain(..used);
                return Some(received);
            }
            if !self.fill().await {
                return None;
            }
        }
    }

    /// Reads the next text message as JSON; pings and pongs are read over.
    ///
    /// # Panics
    /// When something else comes.
    pub async fn receive_json(&mut self) -> serde_json::Value {
        loop {
            let frame = self.receive().await.expect("a frame");
            if matches!(frame.opcode(), PING | PONG) {
                continue;
            }
            assert_eq!(frame.first, 0x80 | TEXT, "{frame:?}");
            return serde_json::from_slice(&frame.payload).expect("a message is JSON");
        }
    }

    /// Reads over other events until the command with this id is answered by `ok`.
    pub async fn answered(&mut self, id: u64) {
        loop {
            let event = self.receive_json().await;
            if event["id"] == id {
                assert_eq!(event["type"], "ok", "{event}");
                return;
            }
        }
    }

    /// Reads until the close frame, answers it, and sees the connection end.
    ///
    /// # Panics
    /// When the connection does not end.
    pub async fn ended(&mut self) -> Ended {
        let mut before = Vec::new();
        let mut code = None;
        while let Some(frame) = self.receive().await {
            match frame.opcode() {
                CLOSE => {
                    let two = frame.payload.first_chunk::<2>();
                    code = two.map(|two| u16::from_be_bytes(*two));
                    self.frame(&Frame::new(CLOSE, frame.payload)).await;
                    while self.fill().await {}
                    break;
                }
                TEXT | BINARY => before.push(frame),
                _ => {}
            }
        }
        Ended { code, before }
    }

    /// Reads more; false at the end of the stream, a reset included.
    async fn fill(&mut self) -> bool {
        let read = timeout(PATIENCE, self.stream.read_buf(&mut self.read)).await;
        let count = read.unwrap_or_else(|_| panic!("nothing came for {PATIENCE:?}"));
        count.is_ok_and(|count| count > 0)
    }
}

/// The first frame in `bytes` with the bytes it takes up.
fn parse(bytes: &[u8]) -> Option<(Received, usize)> {
    let [first, second, rest @ ..] = bytes else {
        return None;
    };
    assert_eq!(second & 0x80, 0, "a server must not mask");
    let (length, header_bytes) = match second & 0x7f {
        126 => (u64::from(u16::from_be_bytes(*rest.first_chunk()?)), 4),
        127 => (u64::from_be_bytes(*rest.first_chunk()?), 10),
        short => (u64::from(short), 2),
    };
    let end = header_bytes + usize::try_from(length).expect("a frame fits into memory");
    let payload = bytes.get(header_bytes..end)?.to_vec();
    let received = Received {
        first: *first,
        payload,
    };
    Some((received, end))
}
