//! A backend that publishes: one kept connection to the HTTP API, one call at a time.
//!
//! In: the body of a call. Out: nothing but its end; an answer that is not an unclouded success
//! ends the bench, because what follows would measure something else. Not the publisher of `fanfare
//! bench`, whose idempotency keys cost the node and Redis, and whose HTTP costs the load's core, which
//! is also that of Redis.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use fanfare_testkit::http::DEV_KEY;

/// A connection that rested for longer is taken anew: the API gives the head of a request 5 s.
const RESTED: Duration = Duration::from_secs(2);

/// One connection.
#[derive(Debug)]
pub(crate) struct Publisher {
    stream: TcpStream,
    api: SocketAddr,
    used_at: Instant,
    /// It is taken anew when it has rested.
    is_renewed: bool,
}

impl Publisher {
    /// Connects.
    pub(crate) async fn connect(api: SocketAddr) -> Self {
        let stream = TcpStream::connect(api).await.expect("the API listens");
        stream.set_nodelay(true).expect("a TCP socket");
        Self {
            stream,
            api,
            used_at: Instant::now(),
            is_renewed: true,
        }
    }

    /// Connects to the relay, which ends with the first publisher that goes.
    pub(crate) async fn connect_to_relay(relay: SocketAddr) -> Self {
        let connected = Self::connect(relay).await;
        Self {
            is_renewed: false,
            ..connected
        }
    }

    /// Publishes to a topic.
    pub(crate) async fn publish(&mut self, topic: &str, data: &str) {
        let body = format!(r#"{{"topic":"{topic}","data":{data}}}"#);
        self.call(&body).await;
    }

    /// Publishes, and waits for the answer.
    pub(crate) async fn call(&mut self, body: &str) {
        if self.is_renewed && self.used_at.elapsed() > RESTED {
            *self = Self::connect(self.api).await;
        }
        let request = format!(
            "POST /v1/publish HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {DEV_KEY}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            self.api,
            body.len()
        );
        let sent = self.stream.write_all(request.as_bytes()).await;
        sent.expect("the API takes requests");
        let mut answer = Vec::new();
        while !is_whole(&answer) {
            let read = self.stream.read_buf(&mut answer).await;
            assert!(read.is_ok_and(|n| n > 0), "the API hung up");
        }
        let text = String::from_utf8_lossy(&answer);
        self.used_at = Instant::now();
        let good = text.starts_with("HTTP/1.1 200") && !text.contains("\"error\"");
        assert!(good, "not published: {text}");
    }
}

/// Whether an answer with `content-length` has come to its end.
fn is_whole(answer: &[u8]) -> bool {
    let Some(end) = answer.windows(4).position(|w| w == b"\r\n\r\n") else {
        return false;
    };
    let head = String::from_utf8_lossy(&answer[..end]).to_ascii_lowercase();
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length:"))
        .and_then(|length| length.trim().parse::<usize>().ok());
    answer.len() >= end + 4 + length.expect("the API says how long its answers are")
}

/// `{"n":NUMBER,"text":"xxx…"}` of exactly so many bytes.
pub(crate) fn data(number: u64, bytes: usize) -> String {
    let head = format!("{{\"n\":{number},\"text\":\"");
    let text = bytes - head.len() - 2;
    format!("{head}{}\"}}", "x".repeat(text))
}
