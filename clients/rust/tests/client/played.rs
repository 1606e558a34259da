//! A client of a server whose every word is in the test.

use fanfare_client::{Client, Item, Options, Subscribe, Subscription};
use fanfare_testkit::played::{Server, Session, soon};
use serde_json::Value;

/// How a client of the server is made.
pub(crate) fn options(server: &Server) -> Options {
    Options {
        urls: vec![server.url()],
        ..Options::default()
    }
}

/// A client, and the server's side of its first connection.
pub(crate) async fn client(server: &Server, options: Options, welcome: Value) -> (Client, Session) {
    let (client, (session, _)) =
        tokio::join!(soon(Client::connect(options)), server.welcome(welcome));
    (client.expect("connected"), session)
}

/// Subscribes, and has the server answer that the topic begins live at `1-0`.
pub(crate) async fn subscribed(
    client: &Client,
    session: &mut Session,
    what: impl Into<Subscribe>,
) -> Subscription {
    let what = what.into();
    let topic = what.topic.clone();
    let (subscription, ()) = tokio::join!(client.subscribe(what), session.join(&topic));
    subscription.expect("joined")
}

pub(crate) async fn next(subscription: &mut Subscription) -> Item {
    soon(subscription.next()).await.expect("not the end")
}

pub(crate) async fn number(subscription: &mut Subscription) -> usize {
    match next(subscription).await {
        Item::Message(message) => message.data.read().expect("a number"),
        other => panic!("no message: {other:?}"),
    }
}

/// The next item, which must be a gap: of what, and why.
pub(crate) async fn gap(subscription: &mut Subscription) -> (Option<String>, String) {
    match next(subscription).await {
        Item::Gap(gap) => (gap.of, gap.reason),
        other => panic!("no gap: {other:?}"),
    }
}
