//! The reading side over a real pair of sockets, with bytes that the tests make by hand.

use std::future::poll_fn;

use proptest::prelude::*;
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::session::SCRATCH_BYTES;

mod breaches;
mod sequences;

const LIMITS: ReadLimits = ReadLimits {
    message_bytes_max: 64 * 1024,
    fragments_max: 256,
};

/// FIN.
const LAST: u8 = 0x80;
const CONTINUATION: u8 = 0x0;
const TEXT: u8 = 0x1;
const BINARY: u8 = 0x2;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xa;

const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// The header of a masked frame, with its length in the shortest form.
fn header(first: u8, length: u64) -> Vec<u8> {
    let mut bytes = vec![first];
    if length <= 125 {
        bytes.push(0x80 | length as u8);
    } else if length <= 0xffff {
        bytes.push(0x80 | 126);
        bytes.extend((length as u16).to_be_bytes());
    } else {
        bytes.push(0x80 | 127);
        bytes.extend(length.to_be_bytes());
    }
    bytes.extend(MASK);
    bytes
}

fn masked(payload: &[u8]) -> impl Iterator<Item = u8> {
    payload.iter().zip(MASK.iter().cycle()).map(|(b, m)| b ^ m)
}

/// A masked frame.
fn frame(first: u8, payload: impl AsRef<[u8]>) -> Vec<u8> {
    let payload = payload.as_ref();
    let mut bytes = header(first, payload.len() as u64);
    bytes.extend(masked(payload));
    bytes
}

fn text(text: impl Into<Vec<u8>>) -> Incoming {
    Incoming::Text(text.into())
}

/// A reading side and the client's end of its stream.
struct Pair {
    client: TcpStream,
    socket: Socket,
    scratch: Vec<u8>,
}

type Got = Vec<Result<Incoming, CloseReason>>;

impl Pair {
    async fn new() -> Self {
        Self::with_early(Bytes::new()).await
    }

    async fn with_early(early: Bytes) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap());
        let (client, accepted) = tokio::join!(client, listener.accept());
        let client = client.unwrap();
        client.set_nodelay(true).unwrap();
        client.writable().await.unwrap();
        Self {
            client,
            socket: Socket::new(Rc::new(accepted.unwrap().0.into()), early, LIMITS),
            scratch: vec![0; SCRATCH_BYTES],
        }
    }

    /// Sends these bytes as one piece, and returns all that comes of them (nothing follows an
    /// error).
    async fn feed(&mut self, bytes: &[u8]) -> Got {
        let mut rest = bytes;
        let mut got = Vec::new();
        loop {
            if let Ok(n) = self.client.try_write(rest) {
                rest = &rest[n..];
            }
            match self.poll().await {
                Poll::Ready(one) => {
                    let is_end = one.is_err();
                    got.push(one);
                    if is_end {
                        return got;
                    }
                }
                Poll::Pending if rest.is_empty() && !self.has_unread() => return got,
                Poll::Pending => tokio::task::yield_now().await,
            }
        }
    }

    async fn feed_each(&mut self, pieces: impl Iterator<Item = &[u8]>) -> Got {
        let mut got = Vec::new();
        for piece in pieces {
            got.extend(self.feed(piece).await);
            if matches!(got.last(), Some(Err(_))) {
                break;
            }
        }
        got
    }

    async fn poll(&mut self) -> Poll<Result<Incoming, CloseReason>> {
        poll_fn(|cx| Poll::Ready(self.socket.poll_next(cx, &mut self.scratch))).await
    }

    /// Whether the kernel holds bytes that were not taken yet.
    fn has_unread(&self) -> bool {
        let mut byte = [std::mem::MaybeUninit::uninit()];
        let socket = self.socket.stream.raw();
        socket.peek(&mut byte).is_ok()
    }

    fn holds_nothing(&self) -> bool {
        let Socket {
            early,
            reading,
            partial,
            ..
        } = &self.socket;
        early.is_empty() && reading.is_none() && partial.is_none()
    }
}

/// What comes of these bytes when each is written by itself, which must be the same as when all
/// are written at once.
async fn read(bytes: &[u8]) -> Got {
    let mut whole = Pair::new().await;
    let at_once = whole.feed(bytes).await;
    if bytes.len() < 4_096 {
        let mut pair = Pair::new().await;
        let one_by_one = pair.feed_each(bytes.chunks(1)).await;
        assert_eq!(one_by_one, at_once);
    }
    at_once
}

/// What comes of valid bytes, behind which nothing may be kept.
async fn read_all(bytes: &[u8]) -> Vec<Incoming> {
    let mut pair = Pair::new().await;
    let got = pair.feed(bytes).await;
    assert!(pair.holds_nothing(), "{:?}", pair.socket);
    assert_eq!(read(bytes).await, got);
    let valid = got.into_iter().map(|one| one.expect("a valid frame"));
    valid.collect()
}

/// How bytes that break a rule end.
async fn breach(bytes: &[u8]) -> CloseReason {
    let got = read(bytes).await;
    match got.as_slice() {
        [Err(reason)] => *reason,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn every_kind_of_frame_comes_byte_by_byte_as_in_one_piece() {
    let close = [&3_001_u16.to_be_bytes()[..], "tschüß".as_bytes()].concat();
    let cases = [
        (frame(LAST | TEXT, "hé"), text("hé")),
        (frame(LAST | TEXT, ""), text("")),
        (
            frame(LAST | BINARY, [0xff, 0]),
            Incoming::Binary(vec![0xff, 0]),
        ),
        (frame(LAST | BINARY, []), Incoming::Binary(Vec::new())),
        (frame(LAST | PING, "p"), Incoming::Ping(b"p".to_vec())),
        (frame(LAST | PING, [7; 125]), Incoming::Ping(vec![7; 125])),
        (frame(LAST | PONG, ""), Incoming::Pong),
        (frame(LAST | PONG, [7; 125]), Incoming::Pong),
        (frame(LAST | CLOSE, ""), Incoming::Close(None)),
        (frame(LAST | CLOSE, close), Incoming::Close(Some(3_001))),
    ];
    for (bytes, expected) in cases {
        assert_eq!(read_all(&bytes).await, [expected]);
    }
}

#[tokio::test]
async fn lengths_at_every_border_of_the_header_and_of_the_buffers_come_whole() {
    // 8 KiB is the reader's first buffer, 16 KiB the scratch memory; with 8 bytes of header.
    let lengths = [125, 126, 127, 1_024, 65_535, 65_536];
    let around = [8_192, SCRATCH_BYTES].map(|end| [end - 9, end - 8, end - 7]);
    for length in lengths.into_iter().chain(around.into_iter().flatten()) {
        let long = vec![b'x'; length];
        let mut bytes = frame(LAST | TEXT, &long);
        bytes.extend(frame(LAST | TEXT, "behind"));
        assert!(
            read_all(&bytes).await == [text(long), text("behind")],
            "{length}"
        );
    }
}

#[tokio::test]
async fn many_frames_of_one_piece_come_in_order() {
    let count = 5_000;
    let messages: Vec<_> = (0..count).map(|n| format!("message {n}")).collect();
    let bytes: Vec<u8> = messages
        .iter()
        .flat_map(|message| frame(LAST | TEXT, message))
        .collect();
    let expected: Vec<_> = messages.into_iter().map(text).collect();
    assert_eq!(read_all(&bytes).await, expected);
}

#[tokio::test]
async fn what_the_handshake_read_too_far_comes_first() {
    let bytes = [frame(LAST | TEXT, "early"), frame(LAST | TEXT, "later")].concat();
    for cut in 0..=bytes.len() {
        let early = Bytes::copy_from_slice(&bytes[..cut]);
        let mut pair = Pair::with_early(early).await;
        let got = pair.feed(&bytes[cut..]).await;
        assert_eq!(got, [Ok(text("early")), Ok(text("later"))], "{cut}");
        assert!(pair.holds_nothing());
    }
}

#[tokio::test]
async fn an_idle_session_does_not_keep_the_buffer_of_its_handshake() {
    let buffer = Bytes::from(vec![0; 8_192]);
    let mut rest = buffer.clone();
    rest.advance(8_192);
    let pair = Pair::with_early(rest).await;
    assert!(buffer.is_unique(), "{:?} holds it", pair.socket);
}

#[tokio::test]
async fn a_reader_is_kept_only_in_the_middle_of_a_frame_and_a_message_only_in_its_middle() {
    let mut pair = Pair::new().await;
    let bytes = frame(LAST | TEXT, "whole");
    for (at, byte) in bytes.iter().enumerate() {
        let is_last = at + 1 == bytes.len();
        assert_eq!(pair.feed(&[*byte]).await.len(), usize::from(is_last));
        assert_eq!(pair.holds_nothing(), is_last, "{at}");
    }
    assert_eq!(pair.feed(&frame(TEXT, "begun, ")).await, []);
    assert!(pair.socket.reading.is_none() && pair.socket.partial.is_some());
    let got = pair.feed(&frame(LAST, "done")).await;
    assert_eq!(got, [Ok(text("begun, done"))]);
    assert!(pair.holds_nothing());
}

#[tokio::test]
async fn the_end_of_the_stream_is_a_loss_wherever_it_comes() {
    let bytes = frame(LAST | TEXT, "whole");
    for cut in 0..bytes.len() {
        let mut pair = Pair::new().await;
        assert_eq!(pair.feed(&bytes[..cut]).await, []);
        let Pair {
            client,
            mut socket,
            mut scratch,
        } = pair;
        drop(client);
        let end = poll_fn(|cx| socket.poll_next(cx, &mut scratch)).await;
        assert_eq!(end, Err(CloseReason::Lost), "{cut}");
    }
}
