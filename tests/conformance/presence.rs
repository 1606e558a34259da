//! Members of a topic, and the stream of their changes on `%topic`.

use fanfare::broker::member::{MemberCounts, MemberEntry, MemberPage};
use fanfare::broker::publication::PresenceChange;
use fanfare::broker::{Body, Entry, Page};
use fanfare::config::Retention;
use fanfare_protocol::event::Member;
use fanfare_protocol::ids::{NodeId, Owner, Position, SessionId, Topic};
use fanfare_protocol::info::Info;
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
        info: Some(Info::from(
            &json!({"name": "Anna \u{1f600}", "roles": [1, null, 2.5]}),
        )),
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

/// Enters by the first generation. Returns how many members there are, whoever has entered them.
async fn enter(rig: &Rig, topic: &Topic, member: &Member, owner: &Owner) -> (u64, Position) {
    enter_as(rig, topic, member, (owner, 1)).await
}

async fn enter_as(
    rig: &Rig,
    topic: &Topic,
    member: &Member,
    (owner, generation): (&Owner, u64),
) -> (u64, Position) {
    let answer = rig.broker.enter(topic, member, owner, generation).await;
    let entered = answer.expect("the broker is up");
    (sum(&entered.counts), entered.position)
}

fn sum(counts: &MemberCounts) -> u64 {
    counts.iter().map(|(_, count)| count).sum()
}

async fn leave(rig: &Rig, topic: &Topic, member: &Member, owner: &Owner) {
    leave_as(rig, topic, member, (owner, 1)).await;
}

async fn leave_as(rig: &Rig, topic: &Topic, member: &Member, (owner, generation): (&Owner, u64)) {
    let left = rig.broker.leave(topic, member.session, owner, generation);
    left.await.expect("the broker is up");
}

async fn reap(rig: &Rig, topic: &Topic, owner: &Owner) -> u64 {
    let answer = rig.broker.reap(topic, owner).await;
    answer.expect("the broker is up")
}

async fn page(rig: &Rig, topic: &Topic, after: Option<SessionId>, limit: u32) -> MemberPage {
    page_of(rig, topic, after, (limit, 1 << 20)).await
}

async fn page_of(
    rig: &Rig,
    topic: &Topic,
    after: Option<SessionId>,
    (entries_max, bytes_max): (u32, usize),
) -> MemberPage {
    let page = Page {
        entries_max,
        bytes_max,
    };
    let answer = rig.broker.members(topic, after, page).await;
    answer.expect("the broker is up")
}

/// All members in the order of their sessions, and the position of the list.
async fn members(rig: &Rig, topic: &Topic) -> (Vec<MemberEntry>, Position) {
    let page = page(rig, topic, None, 10_000).await;
    assert_eq!(page.next, None);
    assert_eq!(sum(&page.counts), page.entries.len() as u64);
    for (owner, count) in &page.counts {
        let of_owner = page.entries.iter().filter(|entry| entry.owner == *owner);
        assert_eq!(of_owner.count() as u64, *count, "{owner}");
    }
    let sessions = page.entries.iter().map(|entry| entry.member.session);
    assert!(sessions.is_sorted());
    (page.entries, page.position)
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

/// As on two connections: what is older comes last, and changes nothing.
pub(crate) async fn a_late_command_of_an_earlier_entering_changes_nothing(rig: Rig) {
    let room = topic("chat:room");
    let (old, new) = (owner(5), owner(6));
    enter_as(&rig, &room, &anna(), (&old, 1)).await;
    // It left and came back, and the leave comes behind the entering.
    let (count, entered) = enter_as(&rig, &room, &anna(), (&old, 2)).await;
    leave_as(&rig, &room, &anna(), (&old, 1)).await;
    let listed = members(&rig, &room).await;
    assert_eq!((count, listed.1), (1, entered));
    assert_eq!(listed.0[0].generation, 2);
    // Its node has another life, and an entering under the one before comes behind that.
    enter_as(&rig, &room, &anna(), (&new, 2)).await;
    for generation in [1, 2] {
        let late = enter_as(&rig, &room, &anna(), (&old, generation)).await;
        assert_eq!(late, (1, entered));
    }
    assert_eq!(reap(&rig, &room, &old).await, 0);
    let (listed, _) = members(&rig, &room).await;
    assert_eq!((&listed[0].owner, listed[0].generation), (&new, 2));
    // A later entering stands above a later life.
    enter_as(&rig, &room, &anna(), (&old, 3)).await;
    assert_eq!(members(&rig, &room).await.0[0].owner, old);
    assert_eq!(
        changes(&rig, &room).await.len(),
        1,
        "it was there all the time"
    );
    // A leave takes what is older with it.
    leave_as(&rig, &room, &anna(), (&new, 9)).await;
    assert_eq!(sessions(&rig, &room).await, []);
    assert_eq!(changes(&rig, &room).await.len(), 2);
}

pub(crate) async fn members_are_read_page_by_page_in_the_order_of_their_sessions(rig: Rig) {
    let room = topic("chat:room");
    let some = |n: u64| Member {
        // Small and large ones, so that the order of numbers and of names is one.
        session: SessionId(u128::from(n) << (n % 3 * 50)),
        ..anonymous()
    };
    let mut all: Vec<_> = (1..=25).map(|n| some(n).session).collect();
    for n in 1..=25 {
        enter(&rig, &room, &some(n), &owner(1 + n % 2)).await;
    }
    all.sort_unstable();
    let (mut read, mut after) = (Vec::new(), None);
    loop {
        let page = page(&rig, &room, after, 10).await;
        assert_eq!(sum(&page.counts), 25);
        read.extend(page.entries.iter().map(|entry| entry.member.session));
        after = page.next;
        if after.is_none() {
            break;
        }
        assert_eq!((page.entries.len(), after.as_ref()), (10, read.last()));
    }
    assert_eq!(read, all);
    assert_eq!(page(&rig, &room, Some(all[24]), 10).await.entries, []);
    assert_eq!(page(&rig, &room, None, 25).await.next, None);
    // The place of a session that has left is a place all the same.
    leave(&rig, &room, &some(1), &owner(2)).await;
    let at = all.binary_search(&some(1).session).expect("it was there");
    let rest = page(&rig, &room, Some(some(1).session), 25).await;
    assert_eq!(rest.entries.len(), 24 - at);
}

/// Of 150 members with some 2 KB each: no member is passed over or shown twice, and one that is
/// longer than the page by itself is a page.
pub(crate) async fn a_page_of_members_has_a_bound_in_bytes(rig: Rig) {
    const INFO_BYTES: usize = 2_000;
    let room = topic("chat:room");
    for n in 1..=150 {
        let member = Member {
            session: SessionId(n),
            info: Some(Info::from(&json!("x".repeat(INFO_BYTES)))),
            ..anonymous()
        };
        enter(&rig, &room, &member, &owner(1)).await;
    }
    for (bytes_max, most) in [
        (1, 1),
        (INFO_BYTES, 1),
        (10 * INFO_BYTES, 10),
        (1 << 20, 150),
    ] {
        let (mut read, mut after) = (Vec::new(), None);
        loop {
            let page = page_of(&rig, &room, after, (1_000, bytes_max)).await;
            assert!((1..=most).contains(&page.entries.len()), "{bytes_max}");
            assert_eq!(sum(&page.counts), 150);
            read.extend(page.entries.iter().map(|entry| entry.member.session.0));
            after = page.next;
            if after.is_none() {
                break;
            }
            assert!(
                page.entries.len() + 1 >= most,
                "it ended because it was full"
            );
        }
        assert_eq!(read, Vec::from_iter(1..=150));
    }
    // Also where the number and the bytes end a page at once.
    let page = page_of(&rig, &room, Some(SessionId(148)), (2, 10 * INFO_BYTES)).await;
    assert_eq!((page.entries.len(), page.next), (2, None));
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
