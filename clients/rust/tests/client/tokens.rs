//! Tokens that end: before, while and after the client is away.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use fanfare_client::{Options, Subscribe, Token};
use serde_json::json;

use super::played::{client, number, options, subscribed};
use fanfare_testkit::played::{Server, joined};

/// A token function that gives `t1`, `t2` and so on.
fn counted(options: Options) -> Options {
    let calls = Arc::new(AtomicUsize::new(0));
    let token = Token::fetched(move || {
        let call = calls.fetch_add(1, Ordering::Relaxed) + 1;
        async move { Ok::<_, std::io::Error>(format!("t{call}")) }
    });
    Options { token, ..options }
}

#[tokio::test]
async fn a_token_that_ends_soon_is_refreshed_and_the_session_goes_on() {
    let server = Server::start().await;
    let options = counted(options(&server));
    let (client, mut session) = client(&server, options, json!({"node": "n"})).await;
    let mut topic = subscribed(&client, &mut session, "t").await;
    session.say(json!({"type": "expiring", "expires": 9})).await;
    let refresh = session.hear().await;
    assert_eq!(
        (&refresh["type"], &refresh["token"]),
        (&json!("refresh"), &json!("t2"))
    );
    session.answer(&refresh, "ok", json!({"expires": 99})).await;
    session.number("t", 0).await;
    assert_eq!(number(&mut topic).await, 0);
    // The next session begins with it.
    session.close(4200).await;
    let (session, _) = server.resumed(json!({"t": joined("2-0")})).await;
    assert_eq!(session.authorization.as_deref(), Some("Bearer t2"));
}

#[tokio::test]
async fn a_token_that_aged_while_nobody_answered_is_followed_by_another() {
    let server = Server::start().await;
    let options = counted(options(&server));
    let (client, mut session) = client(&server, options, json!({"node": "n"})).await;
    let mut topic = subscribed(&client, &mut session, "t").await;
    session.close(4001).await;
    server
        .refuse("503 Service Unavailable\r\nRetry-After: 0")
        .await;
    server.refuse("401 Unauthorized").await;
    let (mut session, _) = server.resumed(json!({"t": joined("1-0")})).await;
    assert_eq!(session.authorization.as_deref(), Some("Bearer t3"));
    session.number("t", 0).await;
    assert_eq!(number(&mut topic).await, 0);
}

#[tokio::test]
async fn a_token_for_a_topic_that_has_ended_is_left_out() {
    let server = Server::start().await;
    let (client, mut session) = client(&server, options(&server), json!({"node": "n"})).await;
    let mut topic = Subscribe::from("t");
    topic.token = Some("ended".to_owned());
    let mut topic = subscribed(&client, &mut session, topic).await;
    session.close(4200).await;
    let ended = json!({"error": {"code": "token_expired", "message": "the token has ended"}});
    let (mut session, topics) = server.resumed(json!({"t": ended})).await;
    assert_eq!(topics[0]["token"], "ended");
    let join = session.hear_of("subscribe", "t").await;
    assert_eq!(
        (&join["token"], &join["since"]),
        (&json!(null), &json!("1-0"))
    );
    session.answer(&join, "ok", joined("1-0")).await;
    session.number("t", 0).await;
    assert_eq!(number(&mut topic).await, 0);
}
