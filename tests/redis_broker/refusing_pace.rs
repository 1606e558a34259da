//! A server that refuses all the time: how often it is asked, how much is sent to it, and what is told.
//!
//! In: a server of our own that answers as it is told, and counts. Out: so many commands and connections
//! in a while, for one node.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use crate::rig::Peer;

/// How often each command came; `HELLO` is a connection.
type Counts = Arc<Mutex<HashMap<String, u32>>>;

/// What is answered to a command of this name with so many arguments.
type Answers = fn(&str) -> &'static str;

/// Long enough for waits to have grown.
const GROWN: Duration = Duration::from_secs(4);
/// How long is counted.
const WHILE: Duration = Duration::from_secs(4);

const MASTER: &str = "*3\r\n$6\r\nmaster\r\n:0\r\n*0\r\n";
const REPLICA: &str = "*5\r\n$5\r\nslave\r\n$9\r\n127.0.0.1\r\n:1\r\n$9\r\nconnected\r\n:0\r\n";
const LOADED: &str = "$1\r\na\r\n";

/// A command; its words.
async fn command(from: &mut (impl AsyncBufReadExt + Unpin)) -> Option<Vec<String>> {
    let mut line = String::new();
    from.read_line(&mut line)
        .await
        .ok()
        .filter(|read| *read > 0)?;
    let Some(count) = line.strip_prefix('*') else {
        return Some(line.split_whitespace().map(str::to_owned).collect());
    };
    let mut words = Vec::new();
    for _ in 0..count.trim().parse::<usize>().ok()? {
        let mut length = String::new();
        from.read_line(&mut length).await.ok()?;
        let length: usize = length.trim().strip_prefix('$')?.parse().ok()?;
        let mut word = vec![0; length + 2];
        from.read_exact(&mut word).await.ok()?;
        words.push(String::from_utf8_lossy(&word[..length]).into_owned());
    }
    Some(words)
}

async fn serve(mut stream: TcpStream, answers: Answers, counts: Counts) -> Option<()> {
    let (from, mut to) = stream.split();
    let mut from = BufReader::new(from);
    loop {
        let words = command(&mut from).await?;
        let name = words.first()?.to_uppercase();
        *counts.lock().ok()?.entry(name.clone()).or_default() += 1;
        let subscribed = |channel: &String| {
            let length = channel.len();
            format!(">3\r\n$9\r\nsubscribe\r\n${length}\r\n{channel}\r\n:1\r\n")
        };
        let answer = match (name.as_str(), answers(&name)) {
            ("HELLO", _) => "%1\r\n$5\r\nproto\r\n:3\r\n".to_owned(),
            ("SELECT" | "CLIENT", _) => "+OK\r\n".to_owned(),
            ("SUBSCRIBE", "") => words[1..].iter().map(subscribed).collect(),
            (_, answer) => answer.to_owned(),
        };
        to.write_all(answer.as_bytes()).await.ok()?;
    }
}

/// What a node does to a server that answers so, in [`WHILE`]; and the node.
async fn asked(answers: Answers) -> (HashMap<String, u32>, Peer) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("a bound port");
    let counts = Counts::default();
    let counting = Arc::clone(&counts);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, answers, Arc::clone(&counting)));
        }
    });
    let peer = Peer::start(format!("redis://{address}"));
    tokio::time::sleep(GROWN).await;
    counts.lock().expect("nobody panicked").clear();
    tokio::time::sleep(WHILE).await;
    let asked = counts.lock().expect("nobody panicked").clone();
    (asked, peer)
}

fn count(asked: &HashMap<String, u32>, name: &str) -> u32 {
    asked.get(name).copied().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_loading_is_asked_seldom_and_given_no_scripts() {
    let (asked, peer) = asked(|_| "-LOADING Redis is loading the dataset in memory\r\n").await;
    assert_eq!(count(&asked, "SCRIPT"), 0, "{asked:?}");
    assert!(asked.values().sum::<u32>() <= 40, "{asked:?}");
    peer.is_down_for("LOADING").await;
}

/// A real one says what it is while it is loading.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_that_is_loading_is_given_one_script_at_a_time() {
    let (asked, peer) = asked(|name| match name {
        "ROLE" => MASTER,
        "SUBSCRIBE" => "",
        _ => "-LOADING Redis is loading the dataset in memory\r\n",
    })
    .await;
    assert!(count(&asked, "SCRIPT") <= 16, "{asked:?}");
    assert!(asked.values().sum::<u32>() <= 60, "{asked:?}");
    peer.is_down_for("LOADING").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_is_connected_to_seldom_and_given_no_scripts() {
    let (asked, peer) = asked(|name| match name {
        "ROLE" => REPLICA,
        "PING" => "+PONG\r\n",
        "SUBSCRIBE" => "",
        "SCRIPT" => LOADED,
        _ => "-READONLY You can't write against a read only replica.\r\n",
    })
    .await;
    assert_eq!(count(&asked, "SCRIPT"), 0, "{asked:?}");
    assert!(count(&asked, "HELLO") <= 14, "{asked:?}");
    peer.is_down_for("is a replica").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_forgets_every_script_is_asked_seldom_and_named() {
    let (asked, peer) = asked(|name| match name {
        "ROLE" => MASTER,
        "PING" => "+PONG\r\n",
        "SUBSCRIBE" => "",
        "SCRIPT" => LOADED,
        "GET" => "_\r\n",
        "EVALSHA" | "EVALSHA_RO" => "-NOSCRIPT No matching script.\r\n",
        _ => "+OK\r\n",
    })
    .await;
    assert!(count(&asked, "SCRIPT") <= 120, "{asked:?}");
    peer.is_down_for("NOSCRIPT").await;
}
