//! Where publications stand, how they link, and that they come back as they were given.

use bytes::Bytes;
use fanfare::broker::publication::Publication;
use fanfare_protocol::data::Data;
use fanfare_protocol::ids::{Position, Priority, SessionId};

use crate::rig::{
    HISTORY, NO_HISTORY, Rig, assert_linked, message, positions, publication, request, topic,
};

pub(crate) async fn ids_rise_and_link_to_their_predecessor(rig: Rig) {
    let topic = topic("chat:links");
    let published = rig.publish_count(&topic, HISTORY, 100).await;
    let entries = rig.retained(&topic, HISTORY).await;
    assert_eq!(positions(&entries), published);
    assert_linked(Position::ZERO, &entries);
}

pub(crate) async fn a_topic_without_history_links_too(mut rig: Rig) {
    let topic = topic("chat:plain");
    rig.hear(&topic).await;
    let published = rig.publish_count(&topic, NO_HISTORY, 20).await;
    let mut heard = Vec::new();
    while heard.len() < published.len() {
        heard.push(rig.delivery().await.1);
    }
    assert_eq!(positions(&heard), published);
    assert_linked(Position::ZERO, &heard);
}

pub(crate) async fn a_new_millisecond_begins_at_a_random_sequence(rig: Rig) {
    let mut sequences = Vec::new();
    for name in ["a", "b", "c"] {
        let position = rig.publish(&topic(name), HISTORY, "1").await;
        assert!(position.seq <= u64::from(u32::MAX));
        sequences.push(position.seq);
    }
    sequences.sort_unstable();
    sequences.dedup();
    assert!(sequences.len() > 1, "three topics began at {sequences:?}");
}

pub(crate) async fn the_last_position_is_known_per_topic(rig: Rig) {
    let (kept, plain, unknown) = (topic("chat:kept"), topic("chat:plain"), topic("chat:none"));
    let kept_last = rig.publish_count(&kept, HISTORY, 3).await[2];
    let plain_last = rig.publish_count(&plain, NO_HISTORY, 2).await[1];
    assert_eq!(rig.last(&plain, NO_HISTORY).await, Some(plain_last));
    assert_eq!(rig.last(&unknown, HISTORY).await, None);
    assert_eq!(rig.last(&kept, HISTORY).await, Some(kept_last));
}

pub(crate) async fn every_field_of_a_publication_survives(mut rig: Rig) {
    let topic = topic("chat:fields");
    rig.hear(&topic).await;
    let full = Publication {
        data: Data::Json(Bytes::from_static(br#"{"text":"hi"}"#)),
        user: Some("auth0|anna@example.com".into()),
        priority: Priority::Critical,
        key: Some("row 7 \u{1f600}".into()),
        conflate: true,
        removed: true,
        time_ms: 1_732_190_000_123,
        ttl_ms: Some(60_000),
        exclude: Some(SessionId(u128::MAX - 5)),
    };
    let low = Publication {
        priority: Priority::Low,
        ttl_ms: Some(0),
        key: Some(String::new()),
        ..publication("null")
    };
    let high = Publication {
        priority: Priority::High,
        exclude: Some(SessionId(0)),
        ..publication("[]")
    };
    assert_comes_back(&mut rig, &topic, [full, low, high, publication("{}")]).await;
}

pub(crate) async fn bodies_survive_byte_for_byte(mut rig: Rig) {
    let topic = topic("chat:bytes");
    rig.hear(&topic).await;
    // Spaces, key order and number forms are the publisher's own, and stay so.
    let json = Bytes::from_static(br#" { "b" : 1.50e+2, "a":"\u00e9\u0000", "a":2 } "#);
    // A map with `bin` and a float that no shorter form stands for.
    let msgpack = Bytes::from_static(b"\x81\xa1k\x92\xc4\x03\x00\xff\x20\xcb\x3f\xf8\0\0\0\0\0\0");
    let large = Bytes::from(format!("\"{}\"", "x".repeat(65_000)));
    let bodies =
        [Data::Json(json), Data::MsgPack(msgpack), Data::Json(large)].map(|data| Publication {
            data,
            ..publication("0")
        });
    assert_comes_back(&mut rig, &topic, bodies).await;
}

/// Publishes each and reads it back by the feed, by `since` and by history.
async fn assert_comes_back<const COUNT: usize>(
    rig: &mut Rig,
    topic: &fanfare_protocol::ids::Topic,
    publications: [Publication; COUNT],
) {
    for publication in &publications {
        let mut request = request(topic, HISTORY, "0");
        request.publication = publication.clone();
        rig.submit(request).await;
        assert_eq!(message(&rig.delivery().await.1), publication);
    }
    let replayed = rig.since(topic, Position::ZERO, HISTORY).await.entries;
    let retained = rig.retained(topic, HISTORY).await;
    for entries in [replayed, retained] {
        let read: Vec<_> = entries.iter().map(|entry| message(entry).clone()).collect();
        assert_eq!(read, publications);
    }
}
