//! What a subscription is dealt: nothing of another stay, and no loss in silence.

use fanfare_client::subscription::{ITEMS_BYTES_MAX, ITEMS_MAX};
use fanfare_client::{Item, Options, Subscribe};
use serde_json::json;

use super::played::{client, gap, next, number, options, subscribed};
use fanfare_testkit::played::{Server, joined, soon, unavailable};

#[tokio::test]
async fn nothing_of_the_stay_before_comes_to_a_new_subscription() {
    let server = Server::start().await;
    let (client, mut session) = client(&server, options(&server), json!({"node": "n"})).await;
    drop(subscribed(&client, &mut session, "t").await);
    let serve = async {
        let leave = session.hear_of("unsubscribe", "t").await;
        session.number("t", 0).await;
        session.answer(&leave, "ok", json!({})).await;
        let join = session.hear_of("subscribe", "t").await;
        session.number("t", 1).await;
        session.answer(&join, "ok", joined("1-0")).await;
        session.number("t", 2).await;
    };
    let (again, ()) = soon(async { tokio::join!(client.subscribe("t"), serve) }).await;
    assert_eq!(number(&mut again.expect("joined")).await, 2);
}

#[tokio::test]
async fn a_topic_without_history_tells_what_a_break_may_have_cost() {
    let server = Server::start().await;
    let (client, mut session) = client(&server, options(&server), json!({"node": "n"})).await;
    let mut topic = subscribed(&client, &mut session, "live").await;
    let mut everyone = client.subscribe("@").await.expect("joined");
    session.unplaced("live", 0).await;
    session.unplaced("@", 0).await;
    assert_eq!(number(&mut topic).await, 0);
    assert_eq!(number(&mut everyone).await, 0);
    session.close(4200).await;
    // Where the position does not move, the server cannot know better.
    let (mut session, _) = server.resumed(json!({"live": joined("1-0")})).await;
    session.unplaced("live", 1).await;
    session.unplaced("@", 1).await;
    for topic in [&mut topic, &mut everyone] {
        assert_eq!(gap(topic).await, (None, "lost".to_owned()));
        assert_eq!(number(topic).await, 1);
    }
}

#[tokio::test]
async fn a_slow_reader_of_what_has_no_history_is_told_what_it_lost() {
    let server = Server::start().await;
    let (client, mut session) = client(&server, options(&server), json!({"node": "n"})).await;
    let mut topic = subscribed(&client, &mut session, "live").await;
    let mut everyone = client.subscribe("@").await.expect("joined");
    for number in 0..ITEMS_MAX + 5 {
        session.unplaced("live", number).await;
        session.unplaced("@", number).await;
    }
    let leave = session.hear_of("unsubscribe", "live").await;
    session.answer(&leave, "ok", json!({})).await;
    let serve = async {
        let join = session.hear_of("subscribe", "live").await;
        session.answer(&join, "ok", joined("1-0")).await;
        session.unplaced("live", 5_000).await;
        session.unplaced("@", 5_000).await;
    };
    let read = async {
        for topic in [&mut topic, &mut everyone] {
            for turn in 0..ITEMS_MAX {
                assert_eq!(number(topic).await, turn);
            }
            assert!(matches!(next(topic).await, Item::Overflowed { times: 1 }));
            assert_eq!(gap(topic).await, (None, "lost".to_owned()));
        }
        assert_eq!(number(&mut topic).await, 5_000);
    };
    soon(async { tokio::join!(serve, read) }).await;
}

#[tokio::test]
async fn members_that_changed_meanwhile_are_told_as_a_gap() {
    let server = Server::start().await;
    let (client, mut session) = client(&server, options(&server), json!({"node": "n"})).await;
    let mut room = Subscribe::from("room");
    room.presence = true;
    let mut room = subscribed(&client, &mut session, room).await;
    session.close(4200).await;
    let (mut session, _) = server.resumed(json!({"room": joined("1-0")})).await;
    assert_eq!(
        gap(&mut room).await,
        (Some("presence".to_owned()), "lost".to_owned())
    );
    session.number("room", 0).await;
    assert_eq!(number(&mut room).await, 0);
}

#[tokio::test]
async fn one_topic_that_cannot_be_joined_costs_the_others_nothing() {
    let server = Server::start().await;
    let (client, mut session) = client(&server, options(&server), json!({"node": "n"})).await;
    let mut good = subscribed(&client, &mut session, "good").await;
    let mut bad = subscribed(&client, &mut session, "bad").await;
    session.close(4200).await;
    let topics = json!({"good": joined("1-0"), "bad": unavailable()});
    let (mut session, _) = server.resumed(topics).await;
    session.number("good", 0).await;
    assert_eq!(number(&mut good).await, 0);
    for _ in 0..2 {
        let again = session.hear_of("subscribe", "bad").await;
        assert_eq!(again["since"], "1-0");
        session.refuse(&again, "unavailable").await;
    }
    let again = session.hear_of("subscribe", "bad").await;
    session.answer(&again, "ok", joined("1-0")).await;
    session.number("bad", 0).await;
    assert_eq!(number(&mut bad).await, 0);
}

#[tokio::test]
async fn a_topic_that_cannot_be_joined_again_after_an_overflow_is_asked_for_again() {
    let server = Server::start().await;
    let (client, mut session) = client(&server, options(&server), json!({"node": "n"})).await;
    let mut slow = subscribed(&client, &mut session, "slow").await;
    for number in 0..=ITEMS_MAX {
        session.number("slow", number).await;
    }
    let leave = session.hear_of("unsubscribe", "slow").await;
    session.answer(&leave, "ok", json!({})).await;
    let serve = async {
        let join = session.hear_of("subscribe", "slow").await;
        session.refuse(&join, "unavailable").await;
        let join = session.hear_of("subscribe", "slow").await;
        let since = join["since"].as_str().expect("a position").to_owned();
        session.answer(&join, "ok", joined(&since)).await;
        session.number("slow", ITEMS_MAX).await;
    };
    let read = async {
        for turn in 0..ITEMS_MAX {
            assert_eq!(number(&mut slow).await, turn);
        }
        assert!(matches!(next(&mut slow).await, Item::Overflowed { .. }));
        assert_eq!(number(&mut slow).await, ITEMS_MAX);
    };
    soon(async { tokio::join!(serve, read) }).await;
}

#[tokio::test]
async fn what_waits_for_a_reader_is_bounded_in_bytes() {
    const BYTES: usize = 1 << 20;
    let server = Server::start().await;
    let (client, mut session) = client(&server, options(&server), json!({"node": "n"})).await;
    let _big = subscribed(&client, &mut session, "big").await;
    let data = "x".repeat(BYTES);
    for number in 0..ITEMS_BYTES_MAX / BYTES + 1 {
        let position = format!("{}-0", number + 2);
        session
            .say(json!({"type": "message", "topic": "big", "data": data, "position": position, "time": 1}))
            .await;
    }
    session.hear_of("unsubscribe", "big").await;
}

#[tokio::test]
async fn a_client_begins_where_its_positions_say() {
    let server = Server::start().await;
    let options = Options {
        positions: [("news".to_owned(), "7-0".to_owned())].into(),
        ..options(&server)
    };
    let (client, mut session) = client(&server, options, json!({"node": "n"})).await;
    let serve = async {
        let join = session.hear_of("subscribe", "news").await;
        assert_eq!(join["since"], "7-0");
        session.answer(&join, "ok", joined("7-0")).await;
        session.number("news", 6).await;
    };
    let (news, ()) = soon(async { tokio::join!(client.subscribe("news"), serve) }).await;
    assert_eq!(number(&mut news.expect("joined")).await, 6);
}
