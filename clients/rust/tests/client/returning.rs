//! When a client comes back, and with how much at once.

use std::time::Duration;

use fanfare_client::address::Address;
use fanfare_client::connection::Connection;
use fanfare_client::{Options, Status, Subscribe, Tls};
use serde_json::json;
use tokio_tungstenite::tungstenite::Message;

use super::played::{client, number, options, subscribed};
use fanfare_testkit::played::{Server, joined, soon};

#[tokio::test]
async fn what_passes_does_not_end_the_client() {
    let server = Server::start().await;
    let (client, mut session) = client(&server, options(&server), json!({"node": "n"})).await;
    let mut topic = subscribed(&client, &mut session, "t").await;
    let kept = || json!({"t": joined("1-0")});
    session.close(4004).await;
    (session, _) = server.resumed(kept()).await;
    session.close(4006).await;
    server.refuse("404 Not Found").await;
    server.refuse("408 Request Timeout").await;
    let (mut session, _) = server.resumed(kept()).await;
    session.number("t", 0).await;
    assert_eq!(number(&mut topic).await, 0);
}

#[tokio::test]
async fn a_wait_beyond_an_hour_counts_as_an_hour() {
    let server = Server::start().await;
    let (client, mut session) = client(&server, options(&server), json!({"node": "n"})).await;
    session.close(4200).await;
    server
        .refuse("503 Service Unavailable\r\nRetry-After: 18446744073709551615")
        .await;
    let mut status = client.status();
    let is_long = |status: &Status| match status {
        Status::Away { again_after, .. } => *again_after > Duration::from_secs(60),
        Status::Ended(ended) => panic!("{ended}"),
        Status::Connected { .. } => false,
    };
    let away = soon(status.wait_for(is_long))
        .await
        .expect("it lives")
        .clone();
    let Status::Away { again_after, .. } = away else {
        panic!("{away:?}");
    };
    assert!(
        again_after <= Duration::from_secs(2 * 3_600),
        "{again_after:?}"
    );
}

#[tokio::test]
async fn topics_that_do_not_fit_in_connect_are_asked_for_one_by_one() {
    let server = Server::start().await;
    let options = Options {
        message_bytes_max: 2_000,
        ..options(&server)
    };
    let (client, mut session) = client(&server, options, json!({"node": "n"})).await;
    let mut topics = Vec::new();
    for number in 0..5 {
        let mut topic = Subscribe::from(&*format!("t:{number}"));
        topic.token = Some("x".repeat(600));
        topics.push(subscribed(&client, &mut session, topic).await);
    }
    session.close(4200).await;
    let mut session = server.accept().await;
    let connect = session.hear().await;
    assert!(connect.to_string().len() <= 2_000);
    let named = connect["topics"].as_array().expect("topics").clone();
    let names = named
        .iter()
        .map(|topic| topic["topic"].as_str().expect("a name").to_owned());
    let answers: serde_json::Map<_, _> = names.map(|name| (name, joined("1-0"))).collect();
    assert_eq!(answers.len(), 2);
    session
        .answer(&connect, "welcome", json!({"node": "n", "topics": answers}))
        .await;
    for _ in 2..5 {
        let join = session.hear().await;
        assert_eq!(join["type"], "subscribe");
        session.answer(&join, "ok", joined("1-0")).await;
    }
    for (at, topic) in topics.iter_mut().enumerate() {
        session.number(&format!("t:{at}"), at).await;
        assert_eq!(number(topic).await, at);
    }
}

#[tokio::test]
async fn where_the_server_does_not_ping_the_client_does() {
    let server = Server::start().await;
    let options = options(&server);
    let address = Address::new(&options.urls[0], None, &Tls::default()).expect("an address");
    let opening = Connection::open(&address, None, 1 << 20);
    let (connection, mut session) = tokio::join!(soon(opening), server.accept());
    let mut connection = connection.expect("open");
    connection.expect_pings(Duration::ZERO, Duration::from_millis(50));
    tokio::select! {
        frame = connection.read() => panic!("{frame:?}"),
        frame = session.hear_frame() => assert!(matches!(frame, Message::Ping(_)), "{frame:?}"),
    }
}
