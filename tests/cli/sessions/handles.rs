//! The client that programs use, against a server that the test plays by hand: subscriptions beside
//! each other, full queues, dropped readers, token functions.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use fanfare_client::subscription::ITEMS_MAX;
use fanfare_client::{
    Client, ClientError, Ended, Item, Options, Publication, Status, Subscription, Token,
};
use serde_json::{Value, json};

use fanfare_testkit::played::{Server, Session, soon};

/// A client and the server's side of its first connection.
async fn connected(server: &Server, welcome: Value) -> (Client, Session) {
    let options = Options {
        urls: vec![server.url()],
        ..Options::default()
    };
    let (client, (session, _)) =
        tokio::join!(soon(Client::connect(options)), server.welcome(welcome));
    (client.expect("connected"), session)
}

/// Subscribes; the server answers that the topic begins live at `1-0`.
async fn subscribed(client: &Client, session: &mut Session, topic: &str) -> Subscription {
    let serve = async {
        let command = session.hear().await;
        assert_eq!(
            (&command["type"], &command["topic"]),
            (&json!("subscribe"), &json!(topic))
        );
        let ok = json!({"recovered": true, "position": "1-0"});
        session.answer(&command, "ok", ok).await;
    };
    let (subscription, ()) = tokio::join!(client.subscribe(topic), serve);
    subscription.expect("joined")
}

/// A message that a reader can read: `number` is its data.
async fn say(session: &mut Session, topic: &str, number: usize) {
    let position = format!("{}-0", number + 2);
    let message =
        json!({"type": "message", "topic": topic, "data": number, "position": position, "time": 1});
    session.say(message).await;
}

async fn number(subscription: &mut Subscription) -> usize {
    match soon(subscription.next()).await {
        Some(Item::Message(message)) => message.data.read().expect("a number"),
        other => panic!("no message: {other:?}"),
    }
}

#[tokio::test]
async fn subscriptions_beside_each_other_get_each_their_own() {
    let server = Server::start().await;
    let (client, mut session) = connected(&server, json!({"node": "n"})).await;
    let mut one = subscribed(&client, &mut session, "one").await;
    let mut two = subscribed(&client, &mut session, "two").await;
    for turn in 0..3 {
        say(&mut session, "one", turn).await;
        say(&mut session, "two", 10 + turn).await;
    }
    for turn in 0..3 {
        assert_eq!(number(&mut two).await, 10 + turn);
    }
    for turn in 0..3 {
        assert_eq!(number(&mut one).await, turn);
    }
    let again = client.subscribe("one").await;
    let error = again.expect_err("once is enough").to_string();
    assert!(error.starts_with("already_subscribed: "), "{error}");
    let gap = json!({"type": "gap", "topic": "two", "from": "14-0", "to": "20-0", "reason": "slow", "dropped": 6});
    session.say(gap).await;
    let Some(Item::Gap(gap)) = soon(two.next()).await else {
        panic!("no gap");
    };
    assert_eq!((&*gap.reason, gap.dropped), ("slow", Some(6)));
}

#[tokio::test]
async fn a_dropped_subscription_leaves_and_can_be_taken_again() {
    let server = Server::start().await;
    let (client, mut session) = connected(&server, json!({"node": "n"})).await;
    drop(subscribed(&client, &mut session, "t").await);
    let command = session.hear().await;
    assert_eq!(
        (&command["type"], &command["topic"]),
        (&json!("unsubscribe"), &json!("t"))
    );
    session.answer(&command, "ok", json!({})).await;
    let mut again = subscribed(&client, &mut session, "t").await;
    say(&mut session, "t", 0).await;
    assert_eq!(number(&mut again).await, 0);
}

#[tokio::test]
async fn a_reader_that_is_slow_is_told_and_misses_nothing() {
    let server = Server::start().await;
    let (client, mut session) = connected(&server, json!({"node": "n"})).await;
    let mut slow = subscribed(&client, &mut session, "slow").await;
    let mut other = subscribed(&client, &mut session, "other").await;
    for turn in 0..ITEMS_MAX + 3 {
        say(&mut session, "slow", turn).await;
    }
    let left = session.hear().await;
    assert_eq!(
        (&left["type"], &left["topic"]),
        (&json!("unsubscribe"), &json!("slow"))
    );
    // What still comes before the answer comes again later.
    say(&mut session, "slow", ITEMS_MAX + 3).await;
    session.answer(&left, "ok", json!({})).await;
    say(&mut session, "other", 0).await;
    assert_eq!(number(&mut other).await, 0, "the other is not held up");
    let read = async {
        for turn in 0..ITEMS_MAX {
            assert_eq!(number(&mut slow).await, turn);
        }
        let told = soon(slow.next()).await;
        assert!(
            matches!(told, Some(Item::Overflowed { times: 1 })),
            "{told:?}"
        );
        for turn in ITEMS_MAX..ITEMS_MAX + 10 {
            assert_eq!(number(&mut slow).await, turn);
        }
    };
    let serve = async {
        let back = session.hear().await;
        let since = format!("{}-0", ITEMS_MAX + 1);
        assert_eq!(
            (&back["topic"], &back["since"]),
            (&json!("slow"), &json!(since))
        );
        let ok = json!({"recovered": true, "position": since});
        session.answer(&back, "ok", ok).await;
        for turn in ITEMS_MAX..ITEMS_MAX + 10 {
            say(&mut session, "slow", turn).await;
        }
    };
    soon(async { tokio::join!(read, serve) }).await;
}

#[tokio::test]
async fn a_token_function_is_called_again_when_the_token_has_ended() {
    let server = Server::start().await;
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let token = Token::fetched(move || {
        let call = counted.fetch_add(1, Ordering::Relaxed) + 1;
        async move { Ok::<_, std::io::Error>(format!("token-{call}")) }
    });
    let options = Options {
        urls: vec![server.url()],
        token,
        ..Options::default()
    };
    let welcome = json!({"node": "n"});
    let (client, (mut session, _)) = tokio::join!(
        soon(Client::connect(options)),
        server.welcome(welcome.clone())
    );
    let client = client.expect("connected");
    assert_eq!(session.authorization.as_deref(), Some("Bearer token-1"));
    let mut topic = subscribed(&client, &mut session, "t").await;
    session.close(4001).await;
    let (mut session, topics) = server
        .resumed(json!({"t": {"recovered": true, "position": "1-0"}}))
        .await;
    assert_eq!(session.authorization.as_deref(), Some("Bearer token-2"));
    assert_eq!(topics, json!([{"topic": "t", "since": "1-0"}]));
    say(&mut session, "t", 0).await;
    assert_eq!(number(&mut topic).await, 0);
    // Any other break keeps the token.
    session.close(4200).await;
    let (mut session, _) = server
        .resumed(json!({"t": {"recovered": true, "position": "2-0"}}))
        .await;
    assert_eq!(session.authorization.as_deref(), Some("Bearer token-2"));
    // A new token that is refused as well is the end.
    session.close(4001).await;
    server.refuse("401 Unauthorized").await;
    let ended = soon(topic.next()).await;
    assert!(
        matches!(ended, Some(Item::Ended(Ended::SentAway(_)))),
        "{ended:?}"
    );
    assert!(soon(topic.next()).await.is_none());
    assert_eq!(calls.load(Ordering::Relaxed), 3);
    let error = client.subscribe("u").await.expect_err("it has ended");
    assert!(
        matches!(error, ClientError::Ended(Ended::SentAway(_))),
        "{error:?}"
    );
    assert!(matches!(&*client.status().borrow(), Status::Ended(_)));
}

#[tokio::test]
async fn a_publication_with_a_key_is_repeated_by_the_client_itself() {
    let server = Server::start().await;
    let welcome = json!({"node": "n", "user": "ada"});
    let (client, mut session) = connected(&server, welcome.clone()).await;
    let publication = Publication::to("t", &json!({"n": 1}))
        .expect("data")
        .idempotency_key("k");
    let serve = async {
        let first = session.hear().await;
        assert_eq!(
            (&first["data"], &first["idempotency_key"]),
            (&json!({"n": 1}), &json!("k"))
        );
        session.close(4200).await;
        let (mut session, _) = server.welcome(welcome).await;
        let second = session.hear().await;
        assert_eq!(second["idempotency_key"], "k");
        let ok = json!({"position": "7-1", "duplicate": true});
        session.answer(&second, "ok", ok).await;
        // Without a key nobody knows whether it may be repeated.
        session.hear().await;
        session.close(4200).await;
    };
    let publish = async {
        let published = client.publish(publication).await.expect("published");
        assert!(published.is_duplicate);
        assert_eq!(
            published.position.map(|at| at.to_string()).as_deref(),
            Some("7-1")
        );
        let bare = Publication::to("t", &1).expect("data");
        let error = client.publish(bare).await.expect_err("lost").to_string();
        assert!(error.contains("it is unknown whether"), "{error}");
    };
    soon(async { tokio::join!(serve, publish) }).await;
}

#[tokio::test]
async fn closing_ends_every_subscription() {
    let server = Server::start().await;
    let (client, mut session) = connected(&server, json!({"node": "n"})).await;
    let mut topic = subscribed(&client, &mut session, "t").await;
    let other = client.clone();
    tokio::join!(soon(client.close()), session.ended());
    assert!(matches!(
        soon(topic.next()).await,
        Some(Item::Ended(Ended::Closed))
    ));
    assert!(matches!(
        other.subscribe("t").await,
        Err(ClientError::Ended(Ended::Closed))
    ));
}
