//! A repeated publication is answered, not published.

use fanfare::broker::PublishRequest;
use fanfare_protocol::ids::Topic;

use crate::rig::{HISTORY, NO_HISTORY, Rig, message, positions, request, topic};
use fanfare_testkit::wait;

const LONG_MS: u64 = 300_000;

fn keyed(topic: &Topic, json: &str, key: &str, life_ms: u64) -> PublishRequest {
    let mut request = request(topic, HISTORY, json);
    request.idempotency = Some((key.into(), life_ms));
    request
}

pub(crate) async fn a_repeated_key_answers_the_first_position_and_publishes_nothing(mut rig: Rig) {
    let topic = topic("chat:keys");
    rig.hear(&topic).await;
    let first = rig.submit(keyed(&topic, "1", "anna:k", LONG_MS)).await;
    let between = rig.publish(&topic, HISTORY, "2").await;
    let again = rig.submit(keyed(&topic, "3", "anna:k", LONG_MS)).await;
    assert!(!first.duplicate);
    assert!(again.duplicate);
    assert_eq!(again.position, first.position);
    // The key belongs to its publisher.
    let other = rig.submit(keyed(&topic, "4", "bert:k", LONG_MS)).await;
    assert!(!other.duplicate);

    let published = [first.position, between, other.position];
    assert_eq!(positions(&rig.retained(&topic, HISTORY).await), published);
    for json in ["1", "2", "4"] {
        let (_, entry) = rig.delivery().await;
        assert_eq!(message(&entry), &crate::rig::publication(json));
    }
    let control = &rig.metrics.control;
    assert_eq!(control.published.get(), 3);
    assert_eq!(control.publish_duplicates.get(), 1);
    assert_eq!(control.publish_errors.get(), 0);
}

pub(crate) async fn a_key_is_known_only_on_its_topic(rig: Rig) {
    let (one, other) = (topic("chat:one"), topic("chat:other"));
    rig.submit(keyed(&one, "1", "anna:k", LONG_MS)).await;
    assert!(
        !rig.submit(keyed(&other, "1", "anna:k", LONG_MS))
            .await
            .duplicate
    );
    // Also where no history could tell.
    let mut plain = keyed(&topic("chat:plain"), "1", "anna:k", LONG_MS);
    plain.retention = NO_HISTORY;
    let first = rig.submit(plain.clone()).await;
    let again = rig.submit(plain).await;
    assert_eq!((first.duplicate, again.duplicate), (false, true));
    assert_eq!(again.position, first.position);
}

pub(crate) async fn a_key_is_forgotten_after_its_time(rig: Rig) {
    let topic = topic("chat:short");
    let first = rig.submit(keyed(&topic, "1", "anna:k", 100)).await;
    let rig = &rig;
    let later = wait::until("the key is forgotten", || {
        let request = keyed(&topic, "1", "anna:k", 100);
        async move {
            let published = rig.submit(request).await;
            (!published.duplicate).then_some(published)
        }
    })
    .await;
    assert!(later.position > first.position);
    // The repeats in between did not prolong it, and the new one counts anew.
    assert_eq!(rig.retained(&topic, HISTORY).await.len(), 2);
}
