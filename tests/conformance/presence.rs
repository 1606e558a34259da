//! Members of a topic, and the stream of their changes on `%topic`.

use fanfare::broker::publication::PresenceChange;
use fanfare::broker::{Body, Entry, MemberEntry};
use fanfare::config::Retention;
use fanfare::protocol::event::Member;
use fanfare::protocol::ids::{NodeId, Owner, Position, SessionId, Topic};
use serde_json::json;

use crate::rig::{HISTORY, Rig, assert_linked, publication, topic};

/// What every change stream keeps.
const CHANGES: Retention = Retention {
    entries_max: 1_000,
    age_ms: 3_600_000,
};

fn anna() -> Member {
    Member {
        user: Some("anna".into()),
        session: SessionId(1),
        info: Some(json!({"name": "Anna \u{1f600}", "roles": [1, null, 2.5]})),
    }
}

fn anonymous() -> Member {
    Member {
        user: None,
        session: SessionId(u128::MAX),
        info: None,
    }
}

fn owner(incarnation: u64) -> Owner {
    Owner {
        node: NodeId::new("node-a").expect("a valid name"),
        incarnation,
    }
}

async fn enter(rig: &Rig, topic: &Topic, member: &Member, owner: &Owner) -> (u64, Position) {
    let answer = rig.broker.enter(topic, member, owner).await;
    answer.expect("the broker is up")
}

async fn leave(rig: &Rig, topic: &Topic, member: &Member, owner: &Owner) {
    let answer = rig.broker.leave(topic, member.session, owner).await;
    answer.expect("the broker is up");
}

async fn reap(rig: &Rig, topic: &Topic, owner: &Owner) -> u64 {
    let answer = rig.broker.reap(topic, owner).await;
    answer.expect("the broker is up")
}

/// The members in the order of their sessions, and the position of the list.
async fn members(rig: &Rig, topic: &Topic) -> (Vec<MemberEntry>, Position) {
    let answer = rig.broker.members(topic).await;
    let (mut members, position) = answer.expect("the broker is up");
    members.sort_by_key(|entry| entry.member.session);
    (members, position)
}

async fn sessions(rig: &Rig, topic: &Topic) -> Vec<SessionId> {
    let (members, _) = members(rig, topic).await;
    members.iter().map(|entry| entry.member.session).collect()
}

/// All changes so far, oldest first.
async fn changes(rig: &Rig, topic: &Topic) -> Vec<Entry> {
    rig.retained(&topic.presence(), CHANGES).await
}

fn change(entry: &Entry) -> &PresenceChange {
    match &entry.body {
        Body::Presence(change) => change,
        other => panic!("expected a change, got {other:?}"),
    }
}

pub(crate) async fn members_come_and_go(mut rig: Rig) {
    let room = topic("chat:room");
    rig.hear(&room.presence()).await;
    assert_eq!(members(&rig, &room).await, (Vec::new(), Position::ZERO));

    let (count, first) = enter(&rig, &room, &anna(), &owner(1)).await;
    assert_eq!(count, 1);
    let (count, second) = enter(&rig, &room, &anonymous(), &owner(2)).await;
    assert_eq!(count, 2);
    assert!(second > first && first > Position::ZERO);
    let (listed, position) = members(&rig, &room).await;
    assert_eq!(position, second);
    assert_eq!(listed.len(), 2);
    assert_eq!((&listed[0].member, &listed[0].owner), (&anna(), &owner(1)));
    assert_eq!(
        (&listed[1].member, &listed[1].owner),
        (&anonymous(), &owner(2))
    );
    assert!(listed[0].since_ms <= listed[1].since_ms);
    assert!(listed[0].since_ms.abs_diff(first.ms) < 60_000);

    leave(&rig, &room, &anna(), &owner(1)).await;
    assert_eq!(sessions(&rig, &room).await, [anonymous().session]);

    let mut heard = Vec::new();
    for (joined, member, owner, count) in [
        (true, anna(), owner(1), 1),
        (true, anonymous(), owner(2), 2),
        (false, anna(), owner(1), 1),
    ] {
        let (delivered_on, entry) = rig.delivery().await;
        assert_eq!(delivered_on, room.presence());
        let expected = PresenceChange {
            joined,
            member,
            owner,
            count,
        };
        assert_eq!(change(&entry), &expected);
        heard.push(entry);
    }
    assert_linked(Position::ZERO, &heard);
    assert_eq!((heard[0].position, heard[1].position), (first, second));
    assert_eq!(members(&rig, &room).await.1, heard[2].position);
    assert_eq!(changes(&rig, &room).await, heard);
}

pub(crate) async fn the_changes_are_a_topic_like_any_other(rig: Rig) {
    let room = topic("chat:room");
    let (_, first) = enter(&rig, &room, &anna(), &owner(1)).await;
    enter(&rig, &room, &anonymous(), &owner(1)).await;
    leave(&rig, &room, &anna(), &owner(1)).await;
    let page = rig.since(&room.presence(), first, CHANGES).await;
    assert_eq!((page.gap, page.start), (None, first));
    assert_eq!(page.entries.len(), 2);
    assert_linked(first, &page.entries);
    assert_eq!(rig.last(&room.presence(), CHANGES).await, Some(page.last));
    // The topic's own positions are of no concern to its members.
    assert_eq!(rig.last(&room, HISTORY).await, None);
}

pub(crate) async fn entering_again_changes_nothing(rig: Rig) {
    let room = topic("chat:room");
    let entered = enter(&rig, &room, &anna(), &owner(1)).await;
    let listed = members(&rig, &room).await;
    assert_eq!(enter(&rig, &room, &anna(), &owner(1)).await, entered);
    assert_eq!(members(&rig, &room).await, listed);
    assert_eq!(changes(&rig, &room).await.len(), 1);
}

pub(crate) async fn a_member_taken_over_by_a_new_life_of_its_node_neither_leaves_nor_joins(
    rig: Rig,
) {
    let room = topic("chat:room");
    let entered = enter(&rig, &room, &anna(), &owner(1)).await;
    assert_eq!(enter(&rig, &room, &anna(), &owner(2)).await, entered);
    assert_eq!(changes(&rig, &room).await.len(), 1);
    // What cleans up after the first life no longer finds it.
    assert_eq!(reap(&rig, &room, &owner(1)).await, 0);
    let (listed, _) = members(&rig, &room).await;
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].owner, owner(2));
}

pub(crate) async fn leaving_for_another_node_removes_nothing(rig: Rig) {
    let room = topic("chat:room");
    enter(&rig, &room, &anna(), &owner(5)).await;
    let listed = members(&rig, &room).await;
    for elsewhere in ["node", "node-b", "node-aa"] {
        let elsewhere = Owner {
            node: NodeId::new(elsewhere).expect("a valid name"),
            incarnation: 5,
        };
        leave(&rig, &room, &anna(), &elsewhere).await;
        assert_eq!(reap(&rig, &room, &elsewhere).await, 0);
    }
    assert_eq!(members(&rig, &room).await, listed);
    assert_eq!(changes(&rig, &room).await.len(), 1);
    // Nor does the leave of somebody who was never there.
    leave(&rig, &room, &anonymous(), &owner(5)).await;
    leave(&rig, &topic("chat:empty"), &anna(), &owner(5)).await;
    assert_eq!(changes(&rig, &room).await.len(), 1);
    assert_eq!(changes(&rig, &topic("chat:empty")).await.len(), 0);
}

pub(crate) async fn a_member_that_an_earlier_life_entered_leaves_with_its_session(rig: Rig) {
    let room = topic("chat:room");
    enter(&rig, &room, &anna(), &owner(5)).await;
    leave(&rig, &room, &anna(), &owner(6)).await;
    assert_eq!(sessions(&rig, &room).await, []);
    assert_eq!(changes(&rig, &room).await.len(), 2);
}

pub(crate) async fn what_a_dead_owner_left_is_removed_and_told_once_whoever_does_it(rig: Rig) {
    let room = topic("chat:room");
    let member = |session| Member {
        session: SessionId(session),
        ..anonymous()
    };
    // More than one step of a scan.
    for session in 0..1_000 {
        let owner = if session % 10 == 0 {
            owner(2)
        } else {
            owner(1)
        };
        enter(&rig, &room, &member(session), &owner).await;
    }
    let entered = members(&rig, &room).await.1;
    let (one, two, three) = (owner(1), owner(1), owner(3));
    let removed = tokio::join!(
        reap(&rig, &room, &one),
        reap(&rig, &room, &two),
        reap(&rig, &room, &three),
    );
    assert_eq!((removed.0 + removed.1, removed.2), (900, 0));
    let (left, newest) = members(&rig, &room).await;
    assert_eq!(left.len(), 100);
    assert!(left.iter().all(|entry| entry.owner == owner(2)));
    let told = rig.since(&room.presence(), entered, CHANGES).await;
    assert_eq!((told.gap, told.last), (None, newest));
    let mut told = rig.retained(&room.presence(), CHANGES).await;
    told.retain(|entry| entry.position > entered);
    assert_linked(entered, &told);
    let counts: Vec<_> = told.iter().map(|entry| change(entry).count).collect();
    assert_eq!(counts, (100..1_000).rev().collect::<Vec<_>>());
    let gone: std::collections::BTreeSet<_> = told
        .iter()
        .inspect(|entry| assert!(!change(entry).joined && change(entry).owner == owner(1)))
        .map(|entry| change(entry).member.session)
        .collect();
    assert_eq!(gone.len(), 900, "each once");
    assert_eq!(reap(&rig, &room, &owner(1)).await, 0);
}

pub(crate) async fn members_of_one_topic_are_not_those_of_another(mut rig: Rig) {
    let (room, other) = (topic("chat:room"), topic("chat:other"));
    rig.hear(&room.presence()).await;
    rig.hear(&room).await;
    enter(&rig, &other, &anna(), &owner(1)).await;
    enter(&rig, &room, &anna(), &owner(1)).await;
    leave(&rig, &other, &anna(), &owner(1)).await;
    rig.publish(&room, HISTORY, "1").await;
    assert_eq!(sessions(&rig, &room).await, [anna().session]);
    assert_eq!(rig.delivery().await.0, room.presence());
    let (delivered_on, entry) = rig.delivery().await;
    assert_eq!(delivered_on, room);
    assert_eq!(crate::rig::message(&entry), &publication("1"));
}
