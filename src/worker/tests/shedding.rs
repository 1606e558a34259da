//! Which sessions are told to go when there are too many, and that each is told once.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use super::rig::{Client, Rig, Source};
use crate::worker::batch_told::BatchTold;
use crate::worker::handle::{Inbound, ShedOrder};
use fanfare_protocol::ids::Position;

const PARTITIONS: u32 = 64;

/// Where this inbox is at home.
fn partition(inbox: &Source) -> usize {
    inbox.topic.partition(PARTITIONS) as usize
}

/// The order to send so many away, on a node that is the home of these inboxes.
fn shed(count: usize, at_home: &[&Source]) -> Inbound {
    let mut partitions = vec![false; PARTITIONS as usize];
    for inbox in at_home {
        partitions[partition(inbox)] = true;
    }
    Inbound::Shed(ShedOrder {
        count,
        at_home: partitions.into(),
        batch: Arc::default(),
    })
}

/// Which of these clients have been told to go since this was last asked, by their place.
fn told(rig: &Rig, clients: &[Client]) -> Vec<usize> {
    let mut context = Context::from_waker(Waker::noop());
    let mut was_told = |client: &Client| {
        let notices = rig.worker.poll_notices(client.key, &mut context);
        matches!(notices, Poll::Ready(notices) if notices.shed)
    };
    let places = clients.iter().enumerate();
    let told = places.filter(|(_, client)| was_told(client));
    told.map(|(place, _)| place).collect()
}

#[tokio::test]
async fn the_oldest_go_first_each_is_told_once_and_the_count_falls_as_they_leave() {
    let source = Source::new(100);
    let mut rig = Rig::new().await;
    let mut clients = Vec::new();
    for _ in 0..5 {
        clients.push(rig.live(&source).await);
    }
    let going = |rig: &Rig| rig.counters().rebalancing.get();
    rig.turn([shed(2, &[])]);
    assert_eq!(told(&rig, &clients), [0, 1]);
    assert_eq!(going(&rig), 2);
    rig.worker.remove(clients[0].key);
    assert_eq!(going(&rig), 1);
    rig.turn([shed(2, &[])]);
    assert_eq!(told(&rig, &clients), [2, 3]);
    rig.turn([shed(100, &[])]);
    assert_eq!(told(&rig, &clients), [4], "no more than there are");
    assert_eq!(rig.counters().rebalanced.get(), 5);
    for client in &clients {
        rig.worker.remove(client.key);
    }
    assert_eq!(going(&rig), 0);
}

#[tokio::test]
async fn who_is_at_home_here_goes_after_the_others_and_who_waits_for_something_last() {
    let ours = Source::named("@ours", 100);
    let theirs = Source::named("@theirs", 100);
    assert_ne!(partition(&ours), partition(&theirs), "choose other names");
    let mut busy = Source::new(100);
    let mut rig = Rig::new().await;
    let waits = rig.after(&busy, Position::ZERO).await;
    let mut clients = vec![rig.live(&ours).await, rig.live(&theirs).await, waits];
    rig.stall(&clients[2]);
    let entry = busy.publish();
    rig.turn([busy.deliver(&entry)]);
    // It has joined nothing yet: it is not through its handshake.
    clients.push(rig.client().await);
    let order = || shed(1, &[&ours]);
    for place in [1, 0, 2] {
        rig.turn([order()]);
        assert_eq!(told(&rig, &clients), [place]);
    }
    rig.turn([order()]);
    assert!(told(&rig, &clients).is_empty(), "it stays");
}

#[tokio::test]
async fn a_user_who_comes_back_is_counted_and_who_is_anonymous_or_here_often_is_not() {
    let inboxes = ["@a", "@b", "@often"].map(|name| Source::named(name, 100));
    let anonymous = Source::new(100);
    let mut rig = Rig::new().await;
    let mut clients = Vec::new();
    for source in [&inboxes[0], &inboxes[1], &anonymous] {
        clients.push(rig.live(source).await);
    }
    for _ in 0..4 {
        clients.push(rig.live(&inboxes[2]).await);
    }
    let batch = Arc::new(BatchTold::default());
    let order = |count: usize| {
        Inbound::Shed(ShedOrder {
            count,
            at_home: vec![false; PARTITIONS as usize].into(),
            batch: Arc::clone(&batch),
        })
    };
    rig.turn([order(100)]);
    assert_eq!((batch.all(), batch.known(), batch.returned()), (7, 2, 0));
    for client in &clients {
        rig.worker.remove(client.key);
    }
    // Each of them comes back, @a with another session besides.
    for source in [&inboxes[0], &inboxes[0], &anonymous, &inboxes[2]] {
        rig.live(source).await;
    }
    assert_eq!(batch.returned(), 1);
    // Another batch has nothing to do with those of the one before.
    rig.turn([Inbound::Shed(ShedOrder {
        count: 0,
        at_home: vec![false; PARTITIONS as usize].into(),
        batch: Arc::default(),
    })]);
    rig.live(&inboxes[1]).await;
    assert_eq!(batch.returned(), 1);
}
