//! Presence over the broker in this process. [`steps`] has single steps of the machine.

mod steps;

use super::*;
use crate::broker::HistoryQuery;
use crate::broker::member::{MemberEntry, PRESENCE_RETENTION};
use crate::broker::memory::{MemoryBroker, clock::Clock};
use crate::cluster::view::NodeDetails;
use fanfare_protocol::ids::{App, Owner};
use fanfare_protocol::info::Info;
use fanfare_testkit::wait::{self, PATIENCE};

struct Rig {
    presence: Arc<Presence>,
    topic: Topic,
    view: watch::Sender<Arc<View>>,
    settled: Settled,
}

/// Presence of this life of a node, with its task running.
fn rig(me: &str) -> Rig {
    let metrics = Arc::new(Metrics::new(1));
    let (memory, _) = MemoryBroker::new(Clock::System, Arc::clone(&metrics));
    let view = View::alone(owner(me), NodeDetails::default(), 256);
    let view = watch::Sender::new(Arc::new(view));
    let occupancy = Arc::new(Occupancy::alone(view.subscribe()));
    let broker = Arc::new(Broker::Memory(memory));
    let presence = Presence::new(broker, view.subscribe(), occupancy, metrics);
    let presence = Arc::new(presence);
    let settled = Settled::default();
    let (runs, tells) = (Arc::clone(&presence), settled.clone());
    tokio::spawn(async move { runs.run(&tells).await });
    Rig {
        presence,
        topic: topic(),
        view,
        settled,
    }
}

fn topic() -> Topic {
    Topic::new(&App::default_app(), "t").expect("a name")
}

fn owner(text: &str) -> Owner {
    text.parse().expect("an owner")
}

fn member(session: u128) -> Member {
    Member {
        user: None,
        session: SessionId(session),
        info: None,
    }
}

impl Rig {
    async fn enter(&self, session: u128) -> u64 {
        let entered = self.presence.enter(&self.topic, member(session)).await;
        entered.expect("the broker is here")
    }

    fn leave(&self, session: u128) {
        self.presence.leave(self.topic.clone(), SessionId(session));
    }

    async fn page(&self, after: Option<u128>, limit: u32) -> MembersPage {
        self.page_of(after, up_to(limit)).await
    }

    async fn page_of(&self, after: Option<u128>, size: Page) -> MembersPage {
        let after = after.map(SessionId);
        let page = self.presence.page(&self.topic, after, size).await;
        page.expect("the broker is here")
    }

    async fn entries(&self) -> Vec<MemberEntry> {
        let page = self
            .presence
            .broker
            .members(&self.topic, None, up_to(10_000));
        page.await.expect("the broker is here").entries
    }

    async fn until(&self, so: impl AsyncFn() -> bool) {
        wait::until("it to be so", so).await;
    }

    /// What was told of members: how many joined and left.
    async fn told(&self) -> usize {
        let query = HistoryQuery {
            topic: self.topic.presence(),
            retention: PRESENCE_RETENTION,
            since: None,
            until: None,
            limit: 1_000,
            bytes_max: usize::MAX,
            reverse: false,
        };
        let page = self.presence.broker.history(query).await;
        page.expect("the broker is here").entries.len()
    }

    fn live_as(&self, me: &str, is_fresh: bool) {
        let view = View::alone(owner(me), NodeDetails::default(), 256);
        self.view.send_replace(Arc::new(View {
            fresh: is_fresh,
            ..view
        }));
    }

    /// Another node's member.
    async fn enter_of(&self, session: u128, owner: &Owner) {
        let broker = &self.presence.broker;
        let entered = broker.enter(&self.topic, &member(session), owner, 1).await;
        entered.expect("the broker is here");
    }
}

fn up_to(limit: u32) -> Page {
    Page {
        entries_max: limit,
        bytes_max: 1 << 20,
    }
}

fn is_unavailable<T>(answer: &Result<T, BrokerError>) -> bool {
    matches!(answer, Err(BrokerError::Unavailable(_)))
}

#[tokio::test]
async fn a_session_that_comes_right_back_never_goes_missing() {
    let rig = rig("a~5");
    for round in 0..200 {
        assert_eq!(rig.enter(1).await, 1, "{round}");
        assert_eq!(rig.page(None, 1).await.count, 1, "{round}");
        rig.leave(1);
    }
    rig.until(async || rig.page(None, 1).await.count == 0).await;
}

#[tokio::test]
async fn entering_again_is_answered_and_changes_nothing() {
    let rig = rig("a~5");
    assert_eq!((rig.enter(1).await, rig.enter(2).await), (1, 2));
    let before = rig.entries().await;
    assert_eq!((rig.enter(1).await, rig.enter(1).await), (2, 2));
    assert_eq!((rig.entries().await, rig.told().await), (before, 2));
}

#[tokio::test]
async fn before_the_node_has_a_lease_nobody_enters_and_nothing_is_written() {
    let rig = rig("a~0");
    let refused = rig.presence.enter(&rig.topic, member(1)).await;
    assert!(is_unavailable(&refused), "{refused:?}");
    assert_eq!(rig.entries().await, []);
    rig.live_as("a~5", true);
    assert_eq!(rig.enter(1).await, 1);
}

#[tokio::test]
async fn while_the_node_has_no_lease_who_is_in_may_leave_and_nobody_enters() {
    let rig = rig("a~5");
    rig.enter(1).await;
    rig.enter(2).await;
    rig.live_as("a~5", false);
    let refused = rig.presence.enter(&rig.topic, member(3)).await;
    assert!(is_unavailable(&refused), "{refused:?}");
    rig.leave(1);
    rig.until(async || rig.entries().await.len() == 1).await;
}

#[tokio::test]
async fn under_a_new_life_all_are_written_again_and_that_is_told() {
    let rig = rig("a~5");
    for session in 1..=200 {
        rig.enter(session).await;
    }
    let told = rig.told().await;
    rig.until(async || rig.settled.incarnation() == 5).await;
    rig.live_as("a~9", true);
    rig.until(async || rig.settled.incarnation() == 9).await;
    let entries = rig.entries().await;
    assert_eq!(entries.len(), 200);
    assert!(entries.iter().all(|entry| entry.owner == owner("a~9")));
    assert_eq!(rig.told().await, told, "nobody left or joined by it");
}

#[tokio::test]
async fn at_the_end_of_the_process_every_member_leaves() {
    let rig = rig("a~5");
    for session in 1..=200 {
        rig.enter(session).await;
    }
    rig.leave(1);
    timeout(PATIENCE, rig.presence.settle(2 * PATIENCE))
        .await
        .expect("it ends as soon as all have left");
    assert_eq!(rig.page(None, 10).await.count, 0);
}

#[tokio::test]
async fn members_of_nodes_without_a_lease_are_neither_shown_nor_counted() {
    let rig = rig("a~5");
    rig.enter(10).await;
    for session in (0..600).filter(|session| session % 10 != 0) {
        rig.enter_of(session, &owner("b~1")).await;
    }
    // A node that came since the last heartbeat is not in the view yet.
    rig.enter_of(500, &owner("c~9")).await;
    assert_eq!(rig.enter(590).await, 3);
    let page = rig.page(None, 2).await;
    let shown = |page: &MembersPage| Vec::from_iter(page.members.iter().map(|m| m.session.0));
    assert_eq!(
        (shown(&page), page.count, page.more),
        (vec![10, 500], 3, true)
    );
    let page = rig.page(Some(500), 2).await;
    assert_eq!((shown(&page), page.more), (vec![590], false));
    let page = rig.page(None, 3).await;
    assert_eq!((shown(&page), page.more), (vec![10, 500, 590], false));
}

/// Each has a user of another length, with `info` that is six times as long in the other form.
#[tokio::test]
async fn a_page_of_members_ends_at_its_bytes() {
    let rig = rig("a~5");
    let mut longest = Vec::new();
    for session in 1..=40_u128 {
        let info = "\u{1}".repeat(50 * usize::try_from(session % 7).expect("small"));
        let member = Member {
            info: Some(Info::from(&serde_json::Value::from(info))),
            ..member(session)
        };
        longest.push(member.longest());
        let entered = rig.presence.enter(&rig.topic, member).await;
        entered.expect("the broker is here");
    }
    for bytes_max in [1, 500, 2_000, 2_200, 10_000, 1 << 20] {
        for entries_max in [1, 3, 39, 40, 41] {
            let size = Page {
                entries_max,
                bytes_max,
            };
            let mut shown = Vec::new();
            loop {
                let page = rig.page_of(shown.last().copied(), size).await;
                assert!(!page.members.is_empty() && page.members.len() <= entries_max as usize);
                let bytes: usize = page.members.iter().map(Member::longest).sum();
                assert!(bytes <= bytes_max || page.members.len() == 1, "{bytes}");
                shown.extend(page.members.iter().map(|m| m.session.0));
                if !page.more {
                    break;
                }
                // It ended because it was full.
                let next = longest[shown.len()];
                let is_full = page.members.len() == entries_max as usize;
                assert!(is_full || bytes + next > bytes_max, "{size:?}");
            }
            assert_eq!(shown, Vec::from_iter(1..=40));
        }
    }
}

#[tokio::test]
async fn of_the_dead_only_so_many_are_passed_over_for_a_page() {
    let rig = rig("a~5");
    for session in (0..6_000).filter(|session| *session != 100) {
        rig.enter_of(session, &owner("b~1")).await;
    }
    rig.enter(7_000).await;
    let refused = rig.presence.page(&rig.topic, None, up_to(10)).await;
    assert!(is_unavailable(&refused), "{refused:?}");
    // What was found is shown, and the next page goes on behind it.
    rig.enter(100).await;
    for (after, found) in [(None, 1), (Some(2_500), 1)] {
        let page = rig.page(after, 10).await;
        assert_eq!((page.members.len(), page.count), (found, 2));
        assert_eq!(page.more, after.is_none());
    }
    let removed = rig.presence.broker.reap(&rig.topic, &owner("b~1")).await;
    assert_eq!(removed, Ok(5_999));
    assert_eq!(rig.page(None, 10).await.members.len(), 2);
}
