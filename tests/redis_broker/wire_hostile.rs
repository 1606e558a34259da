//! Our own connection to what is no Redis: it ends with an exact error, and takes no memory for it.

use fanfare::config::RedisAccess;
use fanfare::redis::access::{Target, explain};
use fanfare::redis::wire::Connection;
use fanfare::redis::wire::extent::{ANSWER_BYTES_MAX, DEPTH_MAX, ELEMENTS_MAX, LINE_BYTES_MAX};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::rig::settings;
use crate::wire::PATIENCE;
use fanfare_testkit::wait;

/// Answers whoever connects with `first`, and then with `again` until that is taken no more. The
/// number of bytes that were taken.
async fn server(first: Vec<u8>, again: Vec<u8>) -> (String, JoinHandle<usize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = listener.local_addr().expect("a bound port").port();
    let playing = tokio::spawn(async move {
        let (mut client, _) = listener.accept().await.expect("somebody connects");
        let mut asked = [0; 1024];
        let _ = client.read(&mut asked).await;
        let mut taken = 0;
        if client.write_all(&first).await.is_ok() {
            taken += first.len();
            while !again.is_empty() && client.write_all(&again).await.is_ok() {
                taken += again.len();
            }
        }
        if again.is_empty() {
            // Until the other end is closed.
            let _ = client.read_to_end(&mut Vec::new()).await;
        }
        taken
    });
    (format!("redis://127.0.0.1:{port}"), playing)
}

fn target(url: String) -> Target {
    Target::new(&settings(url, RedisAccess::default())).expect("a good URL")
}

/// What ends a connection to which this is said, in place of an answer to its first words or to a
/// later command; and how many bytes were taken.
async fn end(said: &[u8], again: &[u8], is_first: bool) -> (String, usize) {
    let greeting: &[u8] = if is_first { b"" } else { b"%0\r\n" };
    let (url, playing) = server([greeting, said].concat(), again.to_vec()).await;
    let opened = Connection::<u64>::open(&target(url), "fanfare-test", PATIENCE).await;
    let error = if is_first {
        opened.map(drop).expect_err("that is no greeting")
    } else {
        let mut connection = opened.expect("it is greeted");
        let sent = connection.send(1, 1, |arguments| {
            arguments.bytes(b"PING");
        });
        let mut events = Vec::new();
        loop {
            // It may have ended before anything was sent.
            if let Err((_, error)) = sent {
                break error.into_reported();
            }
            match timeout(wait::PATIENCE, connection.turn(&mut events))
                .await
                .expect("an end")
            {
                Ok(()) => events.clear(),
                Err(error) => break error,
            }
        }
    };
    (explain(&error), playing.await.expect("it plays to the end"))
}

/// What a socket of either side takes before the other end reads it, and more.
const KERNEL_BYTES: usize = 16 << 20;

#[tokio::test]
async fn what_is_no_redis_ends_the_connection_with_an_exact_error() {
    let no_resp = "what answers does not speak RESP3: ";
    let wide = format!("an answer of Redis has more than {ELEMENTS_MAX} values");
    let long = format!("an answer of Redis is longer than {ANSWER_BYTES_MAX} bytes");
    let cases: [(&[u8], &[u8], String); 9] = [
        (
            b"HTTP/1.1 400 Bad Request\r\n\r\n",
            b"",
            format!("{no_resp}a value begins with the byte 0x48"),
        ),
        (
            b"\x16\x03\x01\x02\x00",
            b"",
            format!("{no_resp}a value begins with the byte 0x16"),
        ),
        (b"$-5\r\n", b"", format!("{no_resp}a length is no number")),
        (
            b"$2\r\nabcd\r\n",
            b"",
            format!("{no_resp}a text does not end with its length"),
        ),
        (b"*99999999999999999999\r\n", b"", long.clone()),
        (b"*900000000\r\n", b":1\r\n", wide.clone()),
        (b"$600000000\r\n", b"xxxxxxxxxxxxxxxx", long),
        (
            b"",
            &b"*1\r\n".repeat(DEPTH_MAX),
            format!("an answer of Redis is nested more than {DEPTH_MAX} deep"),
        ),
        (
            b"+",
            &[b'x'; 4096],
            format!("an answer of Redis has a line of more than {LINE_BYTES_MAX} bytes"),
        ),
    ];
    for is_first in [true, false] {
        for (said, again, expected) in &cases {
            let (told, taken) = end(said, again, is_first).await;
            assert_eq!(&told, expected);
            assert!(taken < KERNEL_BYTES, "{told}: {taken} bytes were taken");
        }
    }
}

#[tokio::test]
async fn answers_without_a_question_end_the_connection() {
    let (told, taken) = end(b"", b"+PONG\r\n", false).await;
    assert_eq!(told, "Redis answers what it was not asked");
    assert!(taken < KERNEL_BYTES, "{taken} bytes were taken");
}

#[tokio::test]
async fn a_server_that_does_not_greet_is_given_up_in_time() {
    let (url, _playing) = server(Vec::new(), Vec::new()).await;
    let opened = Connection::<u64>::open(&target(url), "fanfare-test", PATIENCE).await;
    let told = explain(&opened.map(drop).expect_err("nobody greets"));
    assert!(
        told.starts_with("Request timed out. (it does not answer"),
        "{told}"
    );
}
