//! The client of `fanfare.v1` against a server that the test plays by hand: commands, events,
//! positions, and when it comes back.

use std::time::{Duration, Instant};

use fanfare_client::error::ConnectionError;
use fanfare_client::resuming::{CommandError, Event, Options, ResumingConnection};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use fanfare_testkit::played::{Server, Session, message, soon};

/// A client and the server's side of its first connection.
async fn connected(
    server: &Server,
    positions: &[(&str, &str)],
) -> (ResumingConnection, Session, Value) {
    let pairs = positions.iter();
    let options = Options {
        urls: vec![server.url()],
        positions: pairs
            .map(|(t, p)| ((*t).to_owned(), (*p).to_owned()))
            .collect(),
        ..Options::default()
    };
    let welcome = json!({"node": "n", "ping_ms": 25_000});
    let (client, (session, connect)) = tokio::join!(
        soon(ResumingConnection::connect(options)),
        server.welcome(welcome)
    );
    (client.expect("connected"), session, connect)
}

async fn next_server_event(client: &mut ResumingConnection) -> Value {
    loop {
        if let Event::Server(event) = soon(client.next_event()).await.expect("open") {
            return event;
        }
    }
}

async fn subscribe(
    client: &mut ResumingConnection,
    session: &mut Session,
    topic: &str,
    position: &str,
) {
    let command = json!({"type": "subscribe", "topic": topic, "rewind": 5});
    let serve = async {
        let command = session.hear().await;
        let ok = json!({"recovered": true, "position": position});
        session.answer(&command, "ok", ok).await;
    };
    let (result, ()) = tokio::join!(client.command(command), serve);
    result.expect("joined");
}

#[tokio::test]
async fn an_answer_finds_its_command_and_events_before_it_are_kept_in_order() {
    let server = Server::start().await;
    let (mut client, mut session, _) = connected(&server, &[]).await;
    subscribe(&mut client, &mut session, "t", "1-0").await;
    let serve = async {
        let command = session.hear().await;
        session.message("t", "2-0").await;
        session.message("t", "3-0").await;
        session
            .answer(&command, "ok", json!({"position": "9-9"}))
            .await;
        let command = session.hear().await;
        let error = json!({"code": "rate_limited", "message": "slow down", "retry": true, "retry_after_ms": 250});
        session.answer(&command, "error", error).await;
    };
    let publish = json!({"type": "publish", "topic": "u", "data": 1});
    let talk = async {
        let ok = client.command(publish.clone()).await.expect("published");
        assert_eq!(ok["position"], "9-9");
        let refused = client.command(publish.clone()).await;
        assert!(matches!(
            refused,
            Err(CommandError::Refused { code, retry: true, retry_after: Some(wait), .. })
                if code == "rate_limited" && wait == Duration::from_millis(250)
        ));
    };
    soon(async { tokio::join!(serve, talk) }).await;
    assert_eq!(next_server_event(&mut client).await, message("t", "2-0"));
    assert_eq!(next_server_event(&mut client).await, message("t", "3-0"));
    assert_eq!(client.position("t"), Some("3-0"));
    client.close().await;
    assert!(matches!(session.ended().await, Some(Message::Close(_))));
}

#[tokio::test]
async fn an_application_ping_is_answered_and_not_told() {
    let server = Server::start().await;
    let (mut client, mut session, _) = connected(&server, &[]).await;
    session.say(json!({"type": "ping"})).await;
    session.message("@", "1-0").await;
    assert_eq!(next_server_event(&mut client).await, message("@", "1-0"));
    assert_eq!(session.hear().await, json!({"type": "ping"}));
}

#[tokio::test]
async fn a_command_whose_answer_was_lost_says_so_and_the_next_one_connects_again() {
    let server = Server::start().await;
    let (mut client, mut session, _) = connected(&server, &[]).await;
    let lose = async {
        session.hear().await;
        drop(session);
    };
    let (result, ()) = tokio::join!(client.command(json!({"type": "ping"})), lose);
    assert!(
        matches!(result, Err(CommandError::Lost { .. })),
        "{result:?}"
    );
    let serve = async {
        let (mut session, _) = server.welcome(json!({"node": "m"})).await;
        let command = session.hear().await;
        session.answer(&command, "ok", json!({})).await;
        session
    };
    let (result, _session) = tokio::join!(client.command(json!({"type": "ping"})), serve);
    result.expect("answered on the new connection");
    assert_eq!(client.welcome()["node"], "m");
}

#[tokio::test]
async fn the_close_code_decides_when_it_comes_back() {
    let server = Server::start().await;
    let (mut client, mut session, _) = connected(&server, &[]).await;
    session.close(4200).await;
    let event = soon(client.next_event()).await.expect("comes back");
    assert!(matches!(
        event,
        Event::Disconnected {
            again_after: Duration::ZERO,
            ..
        }
    ));

    let (event, (mut session, _)) = tokio::join!(
        soon(client.next_event()),
        server.welcome(json!({"node": "m"}))
    );
    assert!(matches!(event, Ok(Event::Reconnected { welcome }) if welcome["node"] == "m"));
    session.close(4103).await;
    let closed = Instant::now();
    let event = soon(client.next_event()).await.expect("comes back");
    assert!(matches!(
        event,
        Event::Disconnected {
            cause: ConnectionError::Closed { code: 4103, .. },
            ..
        }
    ));
    let (event, (mut session, _)) = tokio::join!(
        soon(client.next_event()),
        server.welcome(json!({"node": "n"}))
    );
    assert!(matches!(event, Ok(Event::Reconnected { .. })));
    assert!(closed.elapsed() >= Duration::from_secs(1));

    session.close(4002).await;
    let ended = soon(client.next_event()).await;
    assert!(matches!(
        ended,
        Err(ConnectionError::Closed { code: 4002, .. })
    ));
}

#[tokio::test]
async fn it_returns_when_drain_said_and_not_before() {
    let server = Server::start().await;
    let (mut client, mut session, _) = connected(&server, &[]).await;
    let told = Instant::now();
    session
        .say(json!({"type": "drain", "reconnect_after_ms": 400}))
        .await;
    session.close(4100).await;
    assert_eq!(next_server_event(&mut client).await["type"], "drain");
    let come_back = async {
        loop {
            if let Event::Reconnected { .. } = client.next_event().await.expect("comes back") {
                return told.elapsed();
            }
        }
    };
    let (after, _) = tokio::join!(soon(come_back), server.welcome(json!({"node": "n"})));
    assert!(after >= Duration::from_millis(400), "{after:?}");
}

#[tokio::test]
async fn positions_follow_messages_and_gaps_and_are_asked_for_again() {
    let server = Server::start().await;
    let given = [("@", "1-1"), ("early", "7-0")];
    let (mut client, mut session, connect) = connected(&server, &given).await;
    let of = |topic: &str, since: &str| json!({"topic": topic, "since": since});
    assert_eq!(
        connect["topics"],
        json!([of("@", "1-1"), of("early", "7-0")])
    );
    for topic in ["left", "taken", "behind", "failed"] {
        subscribe(&mut client, &mut session, topic, "10-0").await;
    }
    let leave = async {
        let command = session.hear().await;
        session.answer(&command, "ok", json!({})).await;
    };
    let command = json!({"type": "unsubscribe", "topic": "left"});
    let (result, ()) = tokio::join!(client.command(command), leave);
    result.expect("left");
    let gap = |topic: &str, reason: &str| json!({"type": "gap", "topic": topic, "from": "11-0", "to": "15-0", "reason": reason});
    session.message("@", "2-1").await;
    session.message("failed", "12-0").await;
    session.say(gap("behind", "slow")).await;
    session.say(gap("failed", "failover")).await;
    session
        .say(json!({"type": "unsubscribed", "topic": "taken", "code": "forbidden", "message": ""}))
        .await;
    for _ in 0..5 {
        next_server_event(&mut client).await;
    }
    drop(session);
    let serve = async {
        let refused = json!({"error": {"code": "forbidden", "message": "no more"}});
        let resumed = json!({"recovered": false, "position": "9-0"});
        let welcome = json!({"behind": refused, "early": resumed, "failed": refused});
        let (_session, topics) = server.resumed(welcome).await;
        let expected = [
            of("@", "2-1"),
            of("behind", "15-0"),
            of("early", "7-0"),
            of("failed", "11-0"),
        ];
        assert_eq!(topics, json!(expected));
    };
    let listen = async {
        let mut events = Vec::new();
        for _ in 0..3 {
            events.push(next_server_event(&mut client).await);
        }
        events
    };
    let (events, ()) = tokio::join!(listen, serve);
    let refused = |topic: &str| json!({"type": "unsubscribed", "topic": topic, "code": "forbidden", "message": "no more"});
    let lost =
        json!({"type": "gap", "topic": "early", "from": "7-0", "to": "9-0", "reason": "retention"});
    assert_eq!(events, [refused("behind"), lost, refused("failed")]);
    assert_eq!(client.position("early"), Some("9-0"));
    assert_eq!(client.position("behind"), None);
}

#[tokio::test]
async fn a_resume_that_may_be_tried_again_is_tried_again() {
    let server = Server::start().await;
    let (mut client, mut session, _) = connected(&server, &[]).await;
    let command = json!({"type": "subscribe", "topic": "t", "presence": true, "token": "x"});
    let serve = async {
        let command = session.hear().await;
        let ok = json!({"recovered": true, "position": "1-0"});
        session.answer(&command, "ok", ok).await;
    };
    let (result, ()) = tokio::join!(client.command(command), serve);
    result.expect("joined");
    session.close(4201).await;
    let serve = async {
        let kept = json!([{"topic": "t", "since": "1-0", "presence": true, "token": "x"}]);
        let later = json!({"error": {"code": "unavailable", "message": "later"}});
        let (mut session, topics) = server.resumed(json!({"t": later})).await;
        assert_eq!(topics, kept, "with all that it was joined with");
        let again = session.hear().await;
        for field in ["topic", "since", "presence", "token"] {
            assert_eq!(again[field], kept[0][field], "on the same connection");
        }
        let joined = json!({"recovered": true, "position": "1-0"});
        session.answer(&again, "ok", joined).await;
        session.message("t", "2-0").await;
        session
    };
    let listen = async {
        let gap = next_server_event(&mut client).await;
        (gap, next_server_event(&mut client).await)
    };
    let ((gap, event), _session) = tokio::join!(listen, serve);
    assert_eq!(
        (&gap["of"], &gap["reason"]),
        (&json!("presence"), &json!("lost"))
    );
    assert_eq!(event, message("t", "2-0"));
}
