//! One topic, a thousand sessions, one publication at a time: the node and the bare loop.
//!
//! In: sessions that have joined, and how to publish. Out: processor time a delivery, how long it
//! took, and what was not as it should be. Two paces. *Awaited*: the next publication leaves when
//! the one before was answered. *Lockstep*: when the one before has reached every session, so
//! that no two of them can share a write.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::bare::{Bare, Orders};
use crate::crowd::{Crowd, Plan, Who};
use crate::process;
use crate::{API_KEY, frames};

/// The topic of all fan-outs.
pub(crate) const TOPIC: &str = "fan";
/// Sessions on it.
pub(crate) const SESSIONS_COUNT: usize = 1_000;
/// Publications of one measurement.
pub(crate) const PUBLICATIONS_COUNT: u64 = 2_000;
/// Length of `data`.
pub(crate) const DATA_BYTES: usize = 200;
/// Publications before the measurement.
const WARM_UP_COUNT: u64 = 50;
/// Longest time for one measurement.
const PATIENCE: Duration = Duration::from_secs(300);

/// When the next publication leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pace {
    /// When the one before was answered.
    Awaited,
    /// When the one before has reached every session.
    Lockstep,
}

/// What one fan-out cost.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cost {
    /// Processor time of the sender a delivery, in µs.
    pub(crate) cpu_us: f64,
    /// Deliveries a second.
    pub(crate) per_s: f64,
    /// Numbers that did not come.
    pub(crate) missing: u64,
    /// Numbers that came twice or too late.
    pub(crate) again: u64,
    /// Length of one message, in bytes.
    pub(crate) message_bytes: usize,
}

/// What sends a publication to everybody.
enum Sender {
    Node(Publisher),
    Bare(Orders, usize),
}

impl Sender {
    async fn send(&mut self, number: u64) {
        match self {
            Self::Node(publisher) => publisher.publish(number).await,
            Self::Bare(orders, bytes) => {
                let frame = frames::text_of_server(data(number, *bytes).as_bytes());
                orders.send(&frame).await;
            }
        }
    }
}

/// The node's fan-out to sessions that have joined [`TOPIC`]; `first` is the first number.
pub(crate) async fn of_node(
    pid: u32,
    api: SocketAddr,
    crowd: &Crowd,
    pace: Pace,
    first: u64,
) -> Cost {
    let publisher = Publisher::connect(api).await;
    measure(pid, crowd, Sender::Node(publisher), pace, first).await
}

/// The loop's fan-out of messages of the same length, over sockets of its own.
pub(crate) async fn of_bare(pace: Pace, message_bytes: usize) -> Cost {
    let bare = Bare::start(SESSIONS_COUNT);
    process::pin(bare.pid(), process::MEASURED_CORE);
    let orders = TcpStream::connect(bare.address).await;
    let orders = Orders(orders.expect("the loop listens"));
    let plan = Plan {
        to: bare.address,
        sessions_count: SESSIONS_COUNT,
        at_once: 1,
        who: Who::Bare,
        topic: None,
    };
    let crowd = plan.open().await;
    let sender = Sender::Bare(orders, message_bytes);
    let cost = measure(bare.pid(), &crowd, sender, pace, 1).await;
    crowd.close().await;
    cost
}

/// How many numbers one measurement uses.
pub(crate) const NUMBERS_COUNT: u64 = WARM_UP_COUNT + PUBLICATIONS_COUNT;

async fn measure(pid: u32, crowd: &Crowd, mut sender: Sender, pace: Pace, first: u64) -> Cost {
    let counts = &crowd.counts;
    let sessions = crowd.len() as u64;
    let mut sent = 0;
    let mut from = (Instant::now(), Duration::ZERO);
    let all = async {
        for number in first..first + NUMBERS_COUNT {
            if sent == WARM_UP_COUNT {
                counts.until((number - 1) * sessions).await;
                from = (Instant::now(), process::cpu(pid));
            }
            sender.send(number).await;
            sent += 1;
            if pace == Pace::Lockstep {
                counts.until(number * sessions).await;
            }
        }
        counts.until((first + NUMBERS_COUNT - 1) * sessions).await;
    };
    // What did not come by then is missing.
    let in_time = tokio::time::timeout(PATIENCE, all).await.is_ok();
    let cpu = process::cpu(pid) - from.1;
    let deliveries = (PUBLICATIONS_COUNT * sessions) as f64;
    let late = (first - 1 + sent) * sessions - counts.messages.get();
    Cost {
        cpu_us: cpu.as_secs_f64() * 1e6 / deliveries,
        per_s: deliveries / from.0.elapsed().as_secs_f64(),
        missing: counts.missing.get() + if in_time { 0 } else { late },
        again: counts.again.get(),
        message_bytes: counts.message_bytes.get(),
    }
}

/// `{"n":NUMBER,"text":"xxx…"}` of exactly so many bytes.
fn data(number: u64, bytes: usize) -> String {
    let head = format!("{{\"n\":{number},\"text\":\"");
    let text = bytes - head.len() - 2;
    format!("{head}{}\"}}", "x".repeat(text))
}

/// One connection to the API that is kept.
struct Publisher {
    stream: TcpStream,
    host: String,
}

impl Publisher {
    async fn connect(api: SocketAddr) -> Self {
        let stream = TcpStream::connect(api).await.expect("the API listens");
        stream.set_nodelay(true).expect("a TCP socket");
        Self {
            stream,
            host: api.to_string(),
        }
    }

    /// Publishes one number and waits for the answer.
    async fn publish(&mut self, number: u64) {
        let body = format!(
            r#"{{"topic":"{TOPIC}","data":{}}}"#,
            data(number, DATA_BYTES)
        );
        let request = format!(
            "POST /v1/publish HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {API_KEY}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            self.host,
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
        assert!(text.starts_with("HTTP/1.1 200"), "refused: {text}");
    }
}

/// Whether an answer with `content-length` has come to its end.
fn is_whole(answer: &[u8]) -> bool {
    let text = String::from_utf8_lossy(answer).to_ascii_lowercase();
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        return false;
    };
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length:"))
        .and_then(|length| length.trim().parse::<usize>().ok());
    body.len() >= length.expect("the API says how long its answers are")
}
