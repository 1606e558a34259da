//! The own inbox: it begins with the session, and goes on behind what its reader took.

use fanfare_client::Subscription;
use serde_json::{Value, json};

use super::played::{client, gap, number, options, subscribed};
use fanfare_testkit::played::{Server, Session, soon};

fn welcome() -> Value {
    let inbox = json!({"topic": "@ada", "position": "1-0", "pending": 2});
    json!({"node": "n", "user": "ada", "inbox": inbox})
}

/// Answers a page of the inbox with these numbers.
async fn page(session: &mut Session, since: &str, numbers: std::ops::Range<usize>) {
    let history = session.hear_of("history", "@ada").await;
    assert_eq!(history["since"], since);
    let message = |n: usize| json!({"topic": "@ada", "data": n, "position": format!("{}-0", n + 2), "time": 1});
    let publications: Vec<_> = numbers.map(message).collect();
    let ok = json!({"publications": publications, "more": false});
    session.answer(&history, "ok", ok).await;
}

async fn inbox_of(client: &fanfare_client::Client) -> Subscription {
    soon(client.inbox()).await.expect("an inbox")
}

#[tokio::test]
async fn an_inbox_is_read_up_to_what_comes_live_and_the_connection_stays() {
    let server = Server::start().await;
    let (client, mut session) = client(&server, options(&server), welcome()).await;
    session.number("@ada", 0).await;
    session.number("@ada", 1).await;
    // An answer behind them says that they have come.
    subscribed(&client, &mut session, "marker").await;
    let mut inbox = inbox_of(&client).await;
    session.hear_of("unsubscribe", "marker").await;
    // While the page is on its way, one comes that is in it too, and one that is not.
    let history = session.hear_of("history", "@ada").await;
    assert_eq!(history["since"], "1-0");
    session.number("@ada", 2).await;
    session.number("@ada", 3).await;
    let message = |n: usize| json!({"topic": "@ada", "data": n, "position": format!("{}-0", n + 2), "time": 1});
    let publications: Vec<_> = (0..3).map(message).collect();
    let ok = json!({"publications": publications, "more": false});
    session.answer(&history, "ok", ok).await;
    session.number("@ada", 4).await;
    for turn in 0..5 {
        assert_eq!(number(&mut inbox).await, turn);
    }
}

#[tokio::test]
async fn an_inbox_taken_again_begins_behind_what_was_read() {
    let server = Server::start().await;
    let (client, mut session) = client(&server, options(&server), welcome()).await;
    let mut inbox = inbox_of(&client).await;
    for number in 0..4 {
        session.number("@ada", number).await;
    }
    assert_eq!(number(&mut inbox).await, 0);
    subscribed(&client, &mut session, "marker").await;
    drop(inbox);
    session.hear_of("unsubscribe", "marker").await;
    let (mut inbox, ()) = tokio::join!(inbox_of(&client), page(&mut session, "2-0", 1..4));
    for turn in 1..4 {
        assert_eq!(number(&mut inbox).await, turn);
    }
    session.number("@ada", 4).await;
    assert_eq!(number(&mut inbox).await, 4);
}

#[tokio::test]
async fn what_came_and_is_not_kept_any_more_is_told() {
    let server = Server::start().await;
    let (client, mut session) = client(&server, options(&server), welcome()).await;
    for number in 0..3 {
        session.number("@ada", number).await;
    }
    subscribed(&client, &mut session, "marker").await;
    let mut inbox = inbox_of(&client).await;
    session.hear_of("unsubscribe", "marker").await;
    page(&mut session, "1-0", 2..3).await;
    assert_eq!(number(&mut inbox).await, 2);
    assert_eq!(gap(&mut inbox).await, (None, "retention".to_owned()));
}
