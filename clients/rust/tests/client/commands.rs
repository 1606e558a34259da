//! Commands: beside what comes, too long ones, repeated ones, and the bytes of what they carry.

use std::time::{Duration, Instant};

use fanfare_client::resuming::{CommandError, ResumingConnection};
use fanfare_client::{ClientError, History, Options, Publication, Status, Subscribe};
use serde_json::json;
use serde_json::value::RawValue;

use super::played::{client, number, options, subscribed};
use fanfare_testkit::played::{Server, joined, soon};

/// Not in the order of names, not the shortest, one name twice: JSON all the same.
const STRANGE: &str = r#"{"z":1e2,"a":1.10,"b":{"y":0,"x":-0.0},"d":1,"d":2}"#;

fn lost(error: &ClientError) -> Option<u16> {
    match error {
        ClientError::Command(CommandError::Lost { close_code, .. }) => *close_code,
        other => panic!("not lost: {other:?}"),
    }
}

#[tokio::test]
async fn commands_wait_neither_for_each_other_nor_do_messages_wait_for_them() {
    let server = Server::start().await;
    let (client, mut session) = client(&server, options(&server), json!({"node": "n"})).await;
    let mut topic = subscribed(&client, &mut session, "t").await;
    let publish = |n: usize| {
        let client = client.clone();
        async move {
            let publication = Publication::to("u", &n).expect("data");
            client
                .publish(publication)
                .await
                .expect("published")
                .position
        }
    };
    let serve = async {
        let first = session.hear_of("publish", "u").await;
        let second = session.hear_of("publish", "u").await;
        session.number("t", 0).await;
        assert_eq!(number(&mut topic).await, 0, "before any answer");
        session
            .answer(&second, "ok", json!({"position": "2-2"}))
            .await;
        session
            .answer(&first, "ok", json!({"position": "1-1"}))
            .await;
    };
    let (first, second, ()) = soon(async { tokio::join!(publish(1), publish(2), serve) }).await;
    let text = |position: Option<fanfare_client::Position>| position.map(|at| at.to_string());
    assert_eq!(text(first).as_deref(), Some("1-1"));
    assert_eq!(text(second).as_deref(), Some("2-2"));
}

#[tokio::test]
async fn a_command_that_is_too_long_is_told_and_the_connection_stays() {
    let server = Server::start().await;
    let (client, mut session) = client(&server, options(&server), json!({"node": "n"})).await;
    let mut topic = subscribed(&client, &mut session, "t").await;
    let long = "x".repeat(70_000);
    let publication = Publication::to("t", &long)
        .expect("data")
        .idempotency_key("k");
    let mut with_token = Subscribe::from("u");
    with_token.token = Some(long);
    for error in [
        soon(client.publish(publication))
            .await
            .expect_err("too long"),
        soon(client.subscribe(with_token))
            .await
            .expect_err("too long"),
    ] {
        let limit = 65_536;
        assert!(
            matches!(error, ClientError::Command(CommandError::TooBig { limit: of, .. }) if of == limit),
            "{error:?}"
        );
    }
    session.number("t", 0).await;
    assert_eq!(number(&mut topic).await, 0);
}

#[tokio::test]
async fn what_was_on_its_way_when_the_server_closed_because_of_it_is_not_repeated() {
    let server = Server::start().await;
    let welcome = json!({"node": "n", "user": "ada"});
    let (client, mut session) = client(&server, options(&server), welcome.clone()).await;
    let publication = Publication::to("t", &1).expect("data").idempotency_key("k");
    let serve = async {
        session.hear_of("publish", "t").await;
        session.hear_of("subscribe", "u").await;
        session.close(1009).await;
    };
    let (published, joined, ()) =
        soon(async { tokio::join!(client.publish(publication), client.subscribe("u"), serve) })
            .await;
    assert_eq!(lost(&published.expect_err("lost")), Some(1009));
    assert_eq!(lost(&joined.expect_err("lost")), Some(1009));
    let (mut session, connect) = server.welcome(welcome).await;
    assert_eq!(connect["topics"], json!(null));
    subscribed(&client, &mut session, "v").await;
}

#[tokio::test]
async fn a_key_is_not_repeated_when_the_node_may_have_forgotten_it() {
    let server = Server::start().await;
    let options = Options {
        repeat_within: Duration::from_millis(300),
        ..options(&server)
    };
    let welcome = json!({"node": "n", "user": "ada"});
    let (client, mut session) = client(&server, options, welcome.clone()).await;
    let publication = Publication::to("t", &1).expect("data").idempotency_key("k");
    let serve = async {
        session.hear_of("publish", "t").await;
        session.close(4200).await;
        // Soon enough: it is repeated.
        let (mut session, _) = server.welcome(welcome.clone()).await;
        session.hear_of("publish", "t").await;
        session.close(4200).await;
        server
            .refuse("503 Service Unavailable\r\nRetry-After: 2")
            .await;
    };
    let (published, ()) = soon(async { tokio::join!(client.publish(publication), serve) }).await;
    assert_eq!(lost(&published.expect_err("unknown")), None);
    let (mut session, _) = server.welcome(welcome).await;
    subscribed(&client, &mut session, "u").await;
}

#[tokio::test]
async fn a_client_closes_at_once_although_a_call_waits() {
    let server = Server::start().await;
    let (client, mut session) = client(&server, options(&server), json!({"node": "n"})).await;
    session.close(4200).await;
    drop(server);
    let mut status = client.status();
    let is_away = |status: &Status| matches!(status, Status::Away { .. });
    soon(status.wait_for(is_away)).await.expect("it lives");
    let other = client.clone();
    let waits = tokio::spawn(async move {
        let publication = Publication::to("t", &1).expect("data");
        other.publish(publication).await
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    let begun = Instant::now();
    soon(client.close()).await;
    assert!(begun.elapsed() < Duration::from_secs(5));
    let error = soon(waits).await.expect("no panic").expect_err("closed");
    assert!(matches!(error, ClientError::Ended(_)), "{error:?}");
}

#[tokio::test]
async fn data_is_published_and_read_byte_for_byte() {
    let server = Server::start().await;
    let (client, mut session) = client(&server, options(&server), json!({"node": "n"})).await;
    let raw: &RawValue = serde_json::from_str(STRANGE).expect("JSON");
    let publication = Publication::to("t", &raw).expect("data");
    let serve = async {
        let text = session.hear_text().await;
        assert!(text.contains(&format!("\"data\":{STRANGE}")), "{text}");
        let command = serde_json::from_str(&text).expect("JSON");
        session
            .answer(&command, "ok", json!({"position": "2-0"}))
            .await;
        let command = session.hear_of("history", "t").await;
        let id = &command["id"];
        session
            .say_text(format!(
                r#"{{"type":"ok","id":{id},"publications":[{{"topic":"t","data":{STRANGE},"position":"2-0","time":1}}],"more":false}}"#
            ))
            .await;
    };
    let talk = async {
        client.publish(publication).await.expect("published");
        let history = History {
            topic: "t".to_owned(),
            ..History::default()
        };
        let page = client.history(history).await.expect("a page");
        assert_eq!(&page.messages[0].data.bytes()[..], STRANGE.as_bytes());
    };
    soon(async { tokio::join!(serve, talk) }).await;
}

#[tokio::test]
async fn a_newer_token_for_a_topic_leaves_its_position_as_it_is() {
    let server = Server::start().await;
    let options = options(&server);
    let (client, (mut session, _)) = tokio::join!(
        soon(ResumingConnection::connect(options)),
        server.welcome(json!({"node": "n"}))
    );
    let mut client = client.expect("connected");
    for (token, ok) in [("a", joined("7-0")), ("b", json!({"expires": 9}))] {
        let command = json!({"type": "subscribe", "topic": "t", "token": token});
        let serve = async {
            let command = session.hear_of("subscribe", "t").await;
            session.answer(&command, "ok", ok).await;
        };
        let (result, ()) = tokio::join!(client.command(command), serve);
        result.expect("joined");
        assert_eq!(client.position("t"), Some("7-0"));
    }
    session.close(4200).await;
    let serve = async {
        let (_session, topics) = server.resumed(json!({"t": joined("7-0")})).await;
        assert_eq!(
            topics,
            json!([{"topic": "t", "since": "7-0", "token": "b"}])
        );
    };
    tokio::select! {
        () = serve => {}
        // Drives the client.
        () = async { while client.next_event().await.is_ok() {} } => panic!("it ended"),
    }
}

#[tokio::test]
async fn what_waits_for_an_answer_is_bounded_in_bytes() {
    let server = Server::start().await;
    let options = options(&server);
    let (client, (mut session, _)) = tokio::join!(
        soon(ResumingConnection::connect(options)),
        server.welcome(json!({"node": "n"}))
    );
    let mut client = client.expect("connected");
    let flood = async {
        session.hear().await;
        let data = format!("[{}1]", "1,".repeat(500_000));
        for n in 0..40 {
            let text = format!(
                r#"{{"type":"message","topic":"@","data":{data},"position":"{}-0","time":1}}"#,
                n + 2
            );
            session.say_text(text).await;
        }
        std::future::pending::<()>().await;
    };
    let result = tokio::select! {
        result = soon(client.command(json!({"type": "ping"}))) => result,
        () = flood => panic!("it has no end"),
    };
    let error = result.expect_err("too much waits").to_string();
    assert!(error.contains("too many events wait"), "{error}");
}
