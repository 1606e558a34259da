//! One client's socket, on the sockets of `fanfare bench`: connected, or up to its topics.
//!
//! In: an address, a token, topics. Out: a [`Socket`] that has joined them. A load's own session
//! (`crates/bench/src/session.rs`) opens by a header and in its wire form; here it is always JSON and
//! the token in the query, as all figures before were taken.

use std::cell::Cell;
use std::net::SocketAddr;

use fanfare_bench::frames;
use fanfare_bench::socket::{Dial, Scratch, Socket};
use fanfare_bench::wire::Upgrade;

/// Most that one session reads at once.
pub(crate) const READ_BYTES: usize = 64 * 1_024;

/// Receive buffer of a client far away. Loopback's own would let the kernel keep megabytes for a
/// reader who takes nothing, and the node would never see it.
pub(crate) const NARROW_BUFFER_BYTES: u32 = 4_096;

fn dial(to: SocketAddr, narrow_bytes: Option<u32>) -> Dial {
    Dial {
        address: to,
        host: to.to_string(),
        narrow_bytes,
    }
}

/// Connects, and nothing more.
pub(crate) async fn raw(to: SocketAddr, scratch: Scratch) -> Socket {
    let connected = Socket::connect(&dial(to, None), scratch).await;
    connected.expect("the floor listens: is `ulimit -n` 20,000?")
}

/// Connects, is welcomed, and joins topics.
pub(crate) async fn open(
    to: SocketAddr,
    narrow_bytes: Option<u32>,
    token: &str,
    topics: &[&str],
    scratch: Scratch,
) -> Socket {
    let upgrade = Upgrade {
        path: format!("/v1/connect?token={token}"),
        headers: String::new(),
    };
    let opened = Socket::open(&dial(to, narrow_bytes), &upgrade, scratch).await;
    let mut socket = opened.expect("the node lets it in: is `ulimit -n` 20,000?");
    until(&mut socket, r#""type":"welcome""#).await;
    for topic in topics {
        let command = format!(r#"{{"type":"subscribe","id":1,"topic":"{topic}"}}"#);
        let command = frames::masked(frames::TEXT, command.as_bytes());
        let sent = socket.send(&command).await;
        sent.expect("the node takes commands");
        until(&mut socket, r#""type":"ok""#).await;
    }
    socket
}

/// Reads until a frame with these words has come.
async fn until(socket: &mut Socket, words: &str) {
    let found = Cell::new(false);
    let look = |payload: &[u8]| {
        let has_words = String::from_utf8_lossy(payload).contains(words);
        found.set(found.get() || has_words);
    };
    // The answer to the handshake may have brought the first frame.
    let mut result = socket.rest(look).await;
    while !found.get() {
        if let Err(error) = result {
            panic!("{error} instead of {words}");
        }
        result = socket.read(look).await;
    }
}
