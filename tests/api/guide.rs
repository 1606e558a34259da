//! The examples of `docs/api.md`, run by a real shell and curl against a listening node; and the
//! listener's own promises.

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use crate::fixture::{KEY, state};

const GUIDE: &str = include_str!("../../docs/api.md");

/// What differs from run to run; of these only the type is compared.
const VARYING: [&str; 17] = [
    "id",
    "next",
    "entry",
    "position",
    "last",
    "time",
    "incarnation",
    "started_ms",
    "partition",
    "version",
    "commit",
    "uptime_s",
    "memory_bytes",
    "message",
    "detail",
    "newest",
    "age_ms",
];

/// A listening API that ends when the sender is used or dropped.
async fn listening() -> (SocketAddr, oneshot::Sender<()>, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel();
    let (state, _) = state();
    let api = fanfare::api::Api::new(state);
    let serving = tokio::spawn(fanfare::api::serve::serve(listener, 16, api, async {
        let _ = stopped.await;
    }));
    (address, stop, serving)
}

/// The fenced blocks of the guide: language and text.
fn blocks() -> Vec<(&'static str, &'static str)> {
    let fenced = GUIDE.split("```").skip(1).step_by(2);
    fenced
        .map(|block| block.split_once('\n').unwrap())
        .collect()
}

/// Whether an answer is what the guide shows.
fn assert_shown(shown: &Value, answered: &Value, at: &str) {
    let name = at.rsplit('/').next().unwrap();
    match (shown, answered) {
        (Value::Object(a), Value::Object(b)) => {
            let keys = |map: &serde_json::Map<_, _>| map.keys().cloned().collect::<Vec<_>>();
            assert_eq!(keys(a), keys(b), "at {at}");
            for (key, value) in a {
                assert_shown(value, &b[key], &format!("{at}/{key}"));
            }
        }
        (Value::Array(a), Value::Array(b)) => {
            assert_eq!(a.len(), b.len(), "at {at}");
            for (a, b) in a.iter().zip(b) {
                assert_shown(a, b, &format!("{at}/[]"));
            }
        }
        _ if VARYING.contains(&name) => assert_eq!(
            std::mem::discriminant(shown),
            std::mem::discriminant(answered),
            "at {at}"
        ),
        _ => assert_eq!(shown, answered, "at {at}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_example_of_the_guide_answers_what_the_guide_shows() {
    let (address, _stop, _serving) = listening().await;
    let blocks = blocks();
    let examples = blocks
        .windows(2)
        .filter(|pair| pair[0].0 == "sh" && pair[1].0 == "json");
    let mut count = 0;
    for pair in examples {
        let (command, shown) = (pair[0].1, pair[1].1);
        let output = Command::new("sh")
            .args(["-euc", command])
            .env("FANFARE_API_URL", format!("http://{address}"))
            .env("FANFARE_API_KEY", KEY)
            .output()
            .unwrap();
        let answered = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {command}: {output:?}"));
        let shown = serde_json::from_str(shown).unwrap();
        assert_shown(&shown, &answered, command);
        count += 1;
    }
    assert!(count >= 8, "only {count} examples were found");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopping_listener_answers_what_it_has_begun_and_ends_idle_connections() {
    let (address, stop, serving) = listening().await;
    let deadline = Some(Duration::from_secs(10));
    let connect = || {
        let socket = std::net::TcpStream::connect(address).unwrap();
        socket.set_read_timeout(deadline).unwrap();
        socket
    };
    let mut idle = connect();
    idle.write_all(b"GET /health/live HTTP/1.1\r\nhost: x\r\n\r\n")
        .unwrap();
    let mut answer = [0; 1_024];
    let length = idle.read(&mut answer).unwrap();
    assert!(answer[..length].starts_with(b"HTTP/1.1 200"));
    let mut begun = connect();
    let head = format!(
        "POST /v1/publish HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\n\
         expect: 100-continue\r\ncontent-type: application/json\r\ncontent-length: 22\r\n\r\n"
    );
    begun.write_all(head.as_bytes()).unwrap();
    // `100 Continue` says that the handler waits for the body.
    let length = begun.read(&mut answer).unwrap();
    assert!(answer[..length].starts_with(b"HTTP/1.1 100"));

    stop.send(()).unwrap();
    assert_eq!(idle.read(&mut answer).unwrap(), 0, "the idle one is closed");
    assert!(
        std::net::TcpStream::connect(address).is_err(),
        "nobody is let in"
    );
    begun.write_all(br#"{"topic":"t","data":1}"#).unwrap();
    let mut rest = String::new();
    begun.read_to_string(&mut rest).unwrap();
    assert!(rest.starts_with("HTTP/1.1 200"), "{rest}");
    tokio::time::timeout(Duration::from_secs(10), serving)
        .await
        .unwrap()
        .unwrap();
}
