//! Our own connection against a real Redis: order, pieces, pushes, errors, and what is known at its end.

use std::time::Duration;

use fanfare::config::RedisAccess;
use fanfare::redis::access::Target;
use fanfare::redis::wire::{Connection, Event};
use fanfare::redis::{RedisError, Script};
use fred::types::Value;
use tokio::time::timeout;

use crate::cutting_proxy;
use crate::rig::settings;
use fanfare_testkit::redis_server::RedisServer;
use fanfare_testkit::wait;

/// Longer than any server here takes that is not stopped.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A token and what was answered.
type Answered = (u64, Result<Value, RedisError>);

/// A connection to this URL on which commands get so much time.
async fn open(url: String, patience: Duration) -> Connection<u64> {
    let target = Target::new(&settings(url, RedisAccess::default())).expect("a good URL");
    let opened = Connection::open(&target, "fanfare-test", patience).await;
    opened.expect("a server that takes everybody")
}

/// Sends a command of these words.
fn send(connection: &mut Connection<u64>, token: u64, words: &[&[u8]]) {
    let sent = connection.send(token, words.len(), |arguments| {
        for word in words {
            arguments.bytes(word);
        }
    });
    sent.expect("there is room");
}

/// Waits until so many commands are answered.
async fn answers(connection: &mut Connection<u64>, count: usize) -> Vec<Answered> {
    let (mut answered, mut events) = (Vec::new(), Vec::new());
    while answered.len() < count {
        let turned = timeout(wait::PATIENCE, connection.turn(&mut events)).await;
        turned.expect("in time").expect("the connection stands");
        answered.extend(events.drain(..).filter_map(|event| match event {
            Event::Answered(token, answer) => Some((token, answer)),
            Event::Pushed(_) => None,
        }));
    }
    answered
}

/// The answer to one command.
pub(crate) async fn ask(
    connection: &mut Connection<u64>,
    words: &[&[u8]],
) -> Result<Value, RedisError> {
    send(connection, 0, words);
    let mut answers = answers(connection, 1).await;
    answers.pop().expect("one").1
}

#[tokio::test]
async fn ten_thousand_commands_at_once_are_answered_in_their_order() {
    let server = RedisServer::start().await;
    let mut connection = open(server.url(), PATIENCE).await;
    for n in 0..10_000_u64 {
        send(&mut connection, n, &[b"ECHO", n.to_string().as_bytes()]);
    }
    for (at, (token, answer)) in answers(&mut connection, 10_000)
        .await
        .into_iter()
        .enumerate()
    {
        assert_eq!(token, at as u64);
        let echo = answer.expect("an echo");
        assert_eq!(echo.as_bytes(), Some(at.to_string().as_bytes()));
    }
    assert_eq!(connection.unanswered_count(), 0);
}

#[tokio::test]
async fn answers_in_pieces_and_answers_of_megabytes_arrive_whole() {
    let server = RedisServer::start().await;
    let proxied = cutting_proxy::start(server.port(), 7).await;
    let mut cut = open(proxied, PATIENCE).await;
    let body: Vec<u8> = (0..100_000_u32)
        .map(|n| (n.wrapping_mul(n) >> 7) as u8)
        .collect();
    for n in 0..200_u64 {
        send(&mut cut, n, &[b"ECHO", &body[..n as usize * 10]]);
    }
    send(&mut cut, 200, &[b"ECHO", &body]);
    for (token, answer) in answers(&mut cut, 201).await {
        let length = if token == 200 {
            body.len()
        } else {
            token as usize * 10
        };
        let echo = answer.expect("an echo");
        assert!(echo.as_bytes() == Some(&body[..length]), "echo {token}");
    }
    let mut direct = open(server.url(), PATIENCE).await;
    let long = vec![b'\r'; 20 << 20];
    let echo = ask(&mut direct, &[b"ECHO", &long]).await.expect("an echo");
    assert!(echo.as_bytes() == Some(&long[..]), "20 MiB");
    let echo = ask(&mut direct, &[b"ECHO", b""]).await.expect("an echo");
    assert_eq!(echo.as_bytes(), Some(&b""[..]));
}

#[tokio::test]
async fn what_is_pushed_between_answers_is_taken_for_none() {
    let server = RedisServer::start().await;
    let mut connection = open(server.url(), PATIENCE).await;
    send(
        &mut connection,
        0,
        &[b"CLIENT", b"TRACKING", b"ON", b"BCAST"],
    );
    for n in 1..=1_000_u64 {
        send(&mut connection, n, &[b"INCR", b"count"]);
    }
    let (mut next, mut pushed_count, mut events) = (0, 0, Vec::new());
    while next <= 1_000 || pushed_count == 0 {
        let turned = timeout(wait::PATIENCE, connection.turn(&mut events)).await;
        turned.expect("in time").expect("the connection stands");
        for event in events.drain(..) {
            match event {
                Event::Answered(0, answer) => assert!(answer.is_ok(), "{answer:?}"),
                Event::Answered(token, answer) => {
                    let count = answer.expect("a count").as_u64();
                    assert_eq!((token, count), (next, Some(next)));
                }
                Event::Pushed(values) => {
                    assert_eq!(values[0].as_bytes(), Some(&b"invalidate"[..]));
                    pushed_count += 1;
                    continue;
                }
            }
            next += 1;
        }
    }
}

#[tokio::test]
async fn errors_are_sorted_as_those_of_the_client_are() {
    let mut server = RedisServer::start().await;
    let mut connection = open(server.url(), PATIENCE).await;
    let script = Script::new("return redis.call('INCR', KEYS[1])");
    let run: [&[u8]; 4] = [b"EVALSHA", script.sha().as_bytes(), b"1", b"key"];
    let missed = ask(&mut connection, &run).await;
    assert!(matches!(missed, Err(RedisError::NoScript(_))), "{missed:?}");
    let load: [&[u8]; 3] = [b"SCRIPT", b"LOAD", script.source().as_bytes()];
    ask(&mut connection, &load).await.expect("it is loaded");
    assert_eq!(
        ask(&mut connection, &run).await.expect("it runs").as_u64(),
        Some(1)
    );
    let wrong = ask(&mut connection, &[b"LPUSH", b"key", b"a"]).await;
    assert!(matches!(wrong, Err(RedisError::Failed(_))), "{wrong:?}");
    server.command(&["REPLICAOF", "127.0.0.1", "1"]);
    let demoted = ask(&mut connection, &run).await;
    assert!(
        matches!(demoted, Err(RedisError::NotMaster(_))),
        "{demoted:?}"
    );
    server.kill();
}

#[tokio::test]
async fn of_a_server_that_is_killed_all_that_was_written_is_unknown() {
    let mut server = RedisServer::start().await;
    let mut connection = open(server.url(), PATIENCE).await;
    server.signal("STOP");
    (0..100).for_each(|n| send(&mut connection, n, &[b"INCR", b"key"]));
    let mut events = Vec::new();
    let unanswered = timeout(Duration::from_millis(50), connection.turn(&mut events)).await;
    assert!(unanswered.is_err(), "it is stopped, and yet: {events:?}");
    // The next turn tries to write them, and sees the end.
    (100..110).for_each(|n| send(&mut connection, n, &[b"INCR", b"key"]));
    server.kill();
    let ended = timeout(wait::PATIENCE, connection.turn(&mut events)).await;
    let error = ended.expect("in time").expect_err("it is gone");
    let told: Vec<_> = connection.into_unanswered(error).collect();
    assert_eq!(told.len(), 110);
    for (n, error) in told {
        match n {
            0..100 => assert!(matches!(error, RedisError::Unknown(_)), "{n}: {error}"),
            _ => assert!(error.to_string().contains("Connection"), "{n}: {error}"),
        }
    }
    server.restart().await;
    let mut connection = open(server.url(), PATIENCE).await;
    assert!(ask(&mut connection, &[b"PING"]).await.is_ok());
}

#[tokio::test]
async fn a_server_that_stalls_is_told_at_the_deadline_and_used_again_when_it_goes_on() {
    let server = RedisServer::start().await;
    let mut connection = open(server.url(), Duration::from_millis(300)).await;
    server.signal("STOP");
    (0..10).for_each(|n| send(&mut connection, n, &[b"INCR", b"key"]));
    for (_, answer) in answers(&mut connection, 10).await {
        let error = answer.expect_err("it is stopped");
        assert!(matches!(error, RedisError::Unknown(_)), "{error}");
        assert!(error.is_timeout(), "{error}");
    }
    server.signal("CONT");
    // It did execute them, and the late answers are not those of this.
    let count = async |connection: &mut Connection<u64>| ask(connection, &[b"GET", b"key"]).await;
    let mut found = count(&mut connection).await;
    while found.as_ref().is_err_and(RedisError::is_timeout) {
        found = count(&mut connection).await;
    }
    assert_eq!(found.expect("a count").as_bytes(), Some(&b"10"[..]));
}
