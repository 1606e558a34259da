//! A worker by hand: what the dispatcher would send it and what sessions would ask of it, step by
//! step, in orders that a whole node only seldom shows.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;

use super::*;
use crate::broker::publication::{PresenceChange, Publication};
use crate::broker::{Body, Entry as Retained, SincePage};
use crate::protocol::data::Data;
use crate::protocol::event::{GapReason, Member};
use crate::protocol::ids::{App, Position, Priority};
use crate::worker::*;

const DEADLINE: Duration = Duration::from_secs(20);
const WIDE: Bound = Bound {
    messages_max: 1_000,
    bytes_max: 1_000_000,
};

fn at(ms: u64) -> Position {
    Position { ms, seq: 0 }
}

fn topic(name: &str) -> Topic {
    Topic::new(&App::default_app(), name).expect("a name")
}

fn publication(n: u64) -> Body {
    Body::Publication(Arc::new(Publication {
        data: Data::from_json(n.to_string().as_bytes()).expect("JSON"),
        user: None,
        priority: Priority::Normal,
        key: None,
        conflate: false,
        removed: false,
        time_ms: 0,
        ttl_ms: None,
        exclude: None,
    }))
}

/// An entry that stands at `n` and says so.
fn entry(n: u64, prev: u64) -> Retained {
    Retained {
        position: at(n),
        prev: at(prev),
        body: publication(n),
    }
}

fn page(start: u64, entries: &[u64], gap: Option<GapReason>) -> SincePage {
    let befores = std::iter::once(start).chain(entries.iter().copied());
    let entries: Vec<_> = befores.zip(entries).map(|(p, n)| entry(*n, p)).collect();
    SincePage {
        gap,
        start: at(start),
        last: entries.last().map_or(at(start), |e| e.position),
        entries,
    }
}

/// A worker without a thread: the test takes its turns.
struct Rig {
    worker: Rc<Worker>,
}

impl Rig {
    fn new() -> Self {
        let metrics = Arc::default();
        Self {
            worker: Worker::new(0, WIDE, Arc::default(), metrics),
        }
    }

    fn turn(&self, message: Inbound) {
        self.worker.handle(message);
        self.worker.flush_dirty();
    }

    fn live_at(&self, topic: &Topic, position: u64) {
        self.turn(Inbound::Joined {
            topic: topic.clone(),
            position: at(position),
        });
    }

    fn deliver(&self, topic: &Topic, n: u64, prev: u64) {
        let outgoing = Outgoing::new(topic.clone(), entry(n, prev), true);
        self.turn(Inbound::Deliver(outgoing));
    }

    fn gap(&self, topic: &Topic, from: u64, to: u64, reason: GapReason) {
        self.turn(Inbound::Gap {
            topic: topic.clone(),
            from: at(from),
            to: at(to),
            reason,
        });
    }

    async fn session(&self) -> Session {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let client = TcpStream::connect(listener.local_addr().expect("an address"));
        let (client, server) = tokio::join!(client, listener.accept());
        let server = server.expect("accepted").0;
        server.writable().await.expect("a new socket");
        let key = self
            .worker
            .add(SessionId::random(), Wire::Json, Rc::new(server));
        Session {
            key,
            client: client.expect("connected"),
            worker: Rc::clone(&self.worker),
        }
    }

    /// A session that belongs to a topic which is live at `position`.
    async fn member(&self, topic: &Topic, has_history: bool, position: u64) -> Session {
        let session = self.session().await;
        let join = self.worker.join(session.key, topic, has_history);
        if matches!(join, Join::Waiting(_)) {
            self.live_at(topic, position);
        }
        session
    }
}

struct Session {
    key: SessionKey,
    client: TcpStream,
    worker: Rc<Worker>,
}

impl Session {
    fn pull(&self) -> Option<Position> {
        self.worker.next_pull(self.key, WIDE).map(|(_, at)| at)
    }

    fn page(&self, topic: &Topic, asked_at: u64, page: &SincePage) -> bool {
        self.worker.page(self.key, topic, at(asked_at), page, 0)
    }

    /// What has come since the last look: numbers of messages, and whatever else as it is.
    async fn got(&mut self) -> Vec<Value> {
        // The end of what there is, in order behind it.
        self.worker.reply(self.key, &Event::Ping {});
        self.worker.flush(self.key);
        let mut got = Vec::new();
        loop {
            let event = tokio::time::timeout(DEADLINE, self.event()).await;
            let event = event.expect("an event in time");
            match event["type"].as_str() {
                Some("ping") => return got,
                Some("message") => got.push(event["data"].clone()),
                _ => got.push(event),
            }
        }
    }

    async fn event(&mut self) -> Value {
        let mut header = [0; 2];
        self.client.read_exact(&mut header).await.expect("a frame");
        assert_eq!(header[0], 0x81, "a text frame");
        let length = match header[1] {
            126 => self.client.read_u16().await.expect("a length").into(),
            short => usize::from(short),
        };
        let mut payload = vec![0; length];
        self.client
            .read_exact(&mut payload)
            .await
            .expect("a payload");
        serde_json::from_slice(&payload).expect("JSON")
    }

    fn ends_with(&self) -> Option<CloseReason> {
        let mut cx = Context::from_waker(Waker::noop());
        match self.worker.poll_notices(self.key, &mut cx) {
            Poll::Ready(notices) => notices.end,
            Poll::Pending => None,
        }
    }
}

fn gap_event(topic: &str, from: u64, to: Option<u64>, reason: &str) -> Value {
    let mut event = json!({"type": "gap", "topic": topic, "from": at(from), "reason": reason});
    if let Some(to) = to {
        event["to"] = json!(at(to));
    }
    event
}

#[tokio::test]
async fn a_second_join_of_a_topic_that_is_not_live_waits_too() {
    let (rig, t) = (Rig::new(), topic("t"));
    let session = rig.session().await;
    let joins = [(); 2].map(|()| rig.worker.join(session.key, &t, true));
    rig.live_at(&t, 5);
    for join in joins {
        let Join::Waiting(answer) = join else {
            panic!("nothing is live");
        };
        assert_eq!(answer.await, Ok(()));
    }
    let again = rig.worker.join(session.key, &t, true);
    assert!(matches!(again, Join::Live));
    assert_eq!(rig.worker.metrics().counters.subscriptions.get(), 1);
    rig.worker.remove(session.key);
    let Join::Waiting(never) = rig.worker.join(session.key, &t, true) else {
        panic!("no such session");
    };
    assert!(never.await.is_err());
}

#[tokio::test]
async fn a_place_behind_the_feed_is_pulled_and_one_ahead_of_it_is_skipped_to() {
    let (rig, t) = (Rig::new(), topic("t"));
    let mut behind = rig.member(&t, true, 5).await;
    let mut ahead = rig.member(&t, true, 5).await;
    let mut here = rig.member(&t, true, 5).await;
    for (session, place) in [(&behind, 3), (&ahead, 7), (&here, 5)] {
        assert_eq!(
            rig.worker.begin_after(session.key, &t, at(place)),
            at(place)
        );
    }
    assert_eq!(behind.pull(), Some(at(3)));
    assert_eq!((ahead.pull(), here.pull()), (None, None));
    for (n, prev) in [(6, 5), (7, 6), (8, 7)] {
        rig.deliver(&t, n, prev);
    }
    assert_eq!(ahead.got().await, [8]);
    assert_eq!(here.got().await, [6, 7, 8]);
    assert_eq!(behind.got().await, [0; 0]);
    assert!(behind.page(&t, 3, &page(3, &[4, 5, 6, 7, 8], None)));
    rig.deliver(&t, 9, 8);
    assert_eq!(behind.got().await, [4, 5, 6, 7, 8, 9]);
}

#[tokio::test]
async fn without_history_what_has_passed_by_is_not_promised() {
    let (rig, t) = (Rig::new(), topic("t"));
    let mut behind = rig.member(&t, false, 5).await;
    let mut ahead = rig.member(&t, false, 5).await;
    assert_eq!(rig.worker.begin_after(behind.key, &t, at(3)), at(5));
    assert_eq!(rig.worker.begin_after(ahead.key, &t, at(7)), at(7));
    assert_eq!((behind.pull(), ahead.pull()), (None, None));
    for (n, prev) in [(6, 5), (7, 6), (8, 7)] {
        rig.deliver(&t, n, prev);
    }
    assert_eq!(behind.got().await, [6, 7, 8]);
    assert_eq!(ahead.got().await, [8]);
}

#[tokio::test]
async fn only_one_page_is_on_its_way_and_topics_take_turns() {
    let rig = Rig::new();
    let topics = ["a", "b", "c"].map(topic);
    let mut session = rig.session().await;
    for t in &topics {
        let _waits = rig.worker.join(session.key, t, true);
        rig.live_at(t, 9);
        rig.worker.begin_after(session.key, t, at(1));
    }
    let mut turns = Vec::new();
    for round in 1..=2 {
        for _ in &topics {
            let (t, place) = rig.worker.next_pull(session.key, WIDE).expect("behind");
            assert_eq!(
                rig.worker.next_pull(session.key, WIDE),
                None,
                "one at a time"
            );
            let next = round + 1;
            assert_eq!(place, at(round));
            assert!(session.page(&t, round, &page(round, &[next], None)));
            turns.push(t.name().to_owned());
        }
    }
    assert_eq!(turns, ["a", "b", "c", "a", "b", "c"]);
    assert_eq!(session.got().await, [2, 2, 2, 3, 3, 3]);
    let little = Bound {
        messages_max: 0,
        bytes_max: 1_000,
    };
    rig.worker.push(session.key, frame(), Kind::Replay);
    assert_eq!(rig.worker.next_pull(session.key, little), None, "no room");
    assert!(rig.worker.next_pull(session.key, WIDE).is_some());
}

/// A ping, as a frame that waits.
fn frame() -> Bytes {
    codec::encode(Wire::Json, &Event::Ping {})
}

#[tokio::test]
async fn a_page_of_an_earlier_stay_is_dropped() {
    let (rig, t) = (Rig::new(), topic("t"));
    let mut session = rig.member(&t, true, 9).await;
    let _keeps_the_topic_live = rig.member(&t, true, 9).await;
    rig.worker.begin_after(session.key, &t, at(1));
    assert_eq!(session.pull(), Some(at(1)));
    let late = page(1, &[2, 3], None);
    rig.worker.leave(session.key, &t);
    assert!(session.page(&t, 1, &late), "nobody waits for it");
    let _live = rig.worker.join(session.key, &t, true);
    assert!(session.page(&t, 1, &late), "it has not begun again");
    rig.worker.begin_after(session.key, &t, at(7));
    assert!(session.page(&t, 1, &late), "it is elsewhere");
    assert_eq!(session.got().await, [0; 0]);
    assert_eq!(session.pull(), Some(at(7)));
    assert!(session.page(&t, 1, &late), "it waits for another");
    assert!(session.page(&t, 7, &page(7, &[8, 9], None)));
    assert!(session.page(&t, 9, &late), "it is live");
    assert_eq!(session.got().await, [8, 9]);
}

#[tokio::test]
async fn a_page_that_brings_nothing_although_more_was_seen_asks_for_a_rest() {
    let (rig, t) = (Rig::new(), topic("t"));
    let mut session = rig.member(&t, true, 9).await;
    rig.worker.begin_after(session.key, &t, at(8));
    assert_eq!(session.pull(), Some(at(8)));
    assert!(!session.page(&t, 8, &page(8, &[], None)));
    assert_eq!(session.pull(), None, "not before the rest is over");
    rig.worker.pull_again(session.key, &t);
    assert_eq!(session.pull(), Some(at(8)));
    assert!(session.page(&t, 8, &page(8, &[9], None)));
    assert_eq!(session.got().await, [9]);
}

#[tokio::test]
async fn a_gap_in_a_page_is_told_before_what_follows_it() {
    let (rig, t) = (Rig::new(), topic("t"));
    let mut session = rig.member(&t, true, 9).await;
    rig.worker.begin_after(session.key, &t, at(1));
    assert_eq!(session.pull(), Some(at(1)));
    assert!(session.page(&t, 1, &page(7, &[8, 9], Some(GapReason::Retention))));
    let gap = gap_event("t", 1, Some(7), "retention");
    assert_eq!(session.got().await, [gap, json!(8), json!(9)]);
    assert_eq!(rig.worker.metrics().counters.gaps_told.get(), 1);
}

#[tokio::test]
async fn a_delivery_that_does_not_follow_the_last_one_is_fetched_from_history() {
    let (rig, t) = (Rig::new(), topic("t"));
    let mut session = rig.member(&t, true, 5).await;
    rig.worker.begin_live(session.key, &t);
    rig.deliver(&t, 6, 5);
    rig.deliver(&t, 8, 7);
    assert_eq!(session.got().await, [6]);
    assert_eq!(session.pull(), Some(at(6)));
    rig.deliver(&t, 9, 8);
    assert!(session.page(&t, 6, &page(6, &[7, 8], None)));
    assert_eq!(session.pull(), Some(at(8)));
    assert!(session.page(&t, 8, &page(8, &[9], None)));
    rig.deliver(&t, 10, 9);
    assert_eq!(session.got().await, [7, 8, 9, 10]);
}

#[tokio::test]
async fn without_history_a_worker_that_fell_behind_tells_what_it_lost() {
    let (rig, t) = (Rig::new(), topic("t"));
    let mut live = rig.member(&t, false, 5).await;
    let mut ahead = rig.member(&t, false, 5).await;
    let mut starting = rig.member(&t, false, 5).await;
    rig.worker.begin_live(live.key, &t);
    rig.worker.begin_after(ahead.key, &t, at(9));
    rig.turn(Inbound::Behind {
        topic: t.clone(),
        newest: at(9),
        dropped: 3,
    });
    rig.deliver(&t, 10, 9);
    let mut gap = gap_event("t", 5, Some(9), "slow");
    gap["dropped"] = json!(3);
    assert_eq!(live.got().await, [gap, json!(10)]);
    assert_eq!(ahead.got().await, [10], "it has 9 already");
    assert_eq!(starting.got().await, [0; 0]);
}

#[tokio::test]
async fn a_lost_range_is_told_to_those_who_would_have_got_it() {
    let (rig, t) = (Rig::new(), topic("t"));
    let mut live = rig.member(&t, true, 5).await;
    let mut ahead = rig.member(&t, true, 5).await;
    let mut behind = rig.member(&t, true, 5).await;
    rig.worker.begin_live(live.key, &t);
    rig.worker.begin_after(ahead.key, &t, at(8));
    rig.worker.begin_after(behind.key, &t, at(1));
    rig.gap(&t, 5, 8, GapReason::Retention);
    rig.deliver(&t, 9, 8);
    let gap = gap_event("t", 5, Some(8), "retention");
    assert_eq!(live.got().await, [gap, json!(9)]);
    assert_eq!(ahead.got().await, [9]);
    assert_eq!(behind.pull(), Some(at(1)));
    assert!(behind.page(&t, 1, &page(8, &[9], Some(GapReason::Retention))));
    let gap = gap_event("t", 1, Some(8), "retention");
    assert_eq!(behind.got().await, [gap, json!(9)]);
}

#[tokio::test]
async fn after_a_failover_everybody_is_told_and_lower_ids_come_through() {
    let (rig, t) = (Rig::new(), topic("t"));
    let mut live = rig.member(&t, true, 20).await;
    let mut catching_up = rig.member(&t, true, 20).await;
    rig.worker.begin_live(live.key, &t);
    rig.worker.begin_after(catching_up.key, &t, at(15));
    assert_eq!(catching_up.pull(), Some(at(15)));
    // Redis has lost everything above 10.
    rig.gap(&t, 10, 10, GapReason::Failover);
    let gap = gap_event("t", 10, None, "failover");
    rig.deliver(&t, 12, 10);
    assert_eq!(live.got().await, [gap.clone(), json!(12)]);
    // The page that was on its way is of what is no more.
    assert!(catching_up.page(&t, 15, &page(15, &[16, 20], None)));
    assert_eq!(catching_up.pull(), Some(at(10)));
    assert!(catching_up.page(&t, 10, &page(10, &[12], None)));
    rig.deliver(&t, 13, 12);
    assert_eq!(catching_up.got().await, [gap, json!(12), json!(13)]);
    assert_eq!(live.got().await, [13]);
}

#[tokio::test]
async fn what_is_gone_of_the_changes_of_members_is_told_of_their_topic() {
    let (rig, room) = (Rig::new(), topic("room"));
    let changes = room.presence();
    let mut session = rig.member(&changes, true, 5).await;
    rig.worker.begin_live(session.key, &changes);
    rig.gap(&changes, 5, 8, GapReason::Retention);
    let change = Retained {
        position: at(9),
        prev: at(8),
        body: Body::Presence(Arc::new(PresenceChange {
            joined: true,
            member: Member {
                user: None,
                session: SessionId(7),
                info: None,
            },
            owner: "a~5".parse().expect("an owner"),
            count: 1,
        })),
    };
    let outgoing = Outgoing::new(changes.clone(), change, true);
    rig.turn(Inbound::Deliver(outgoing));
    let got = session.got().await;
    assert_eq!(got[0], gap_event("room", 5, Some(8), "retention"));
    assert_eq!(
        (&got[1]["type"], &got[1]["topic"]),
        (&json!("presence"), &json!("room"))
    );
}

#[tokio::test]
async fn a_burst_over_the_bound_ends_only_who_does_not_take_it() {
    let few = Bound {
        messages_max: 10,
        bytes_max: 1_000_000,
    };
    let worker = Worker::new(0, few, Arc::default(), Arc::default());
    let (rig, t) = (Rig { worker }, topic("t"));
    let mut session = rig.member(&t, true, 0).await;
    rig.worker.begin_live(session.key, &t);
    for n in 1..=50 {
        let outgoing = Outgoing::new(t.clone(), entry(n, n - 1), true);
        rig.worker.handle(Inbound::Deliver(outgoing));
    }
    assert_eq!(session.ends_with(), None);
    assert_eq!(session.got().await, (1..=50).collect::<Vec<_>>());
    // As if its socket had refused the last write.
    rig.worker.state.borrow_mut().sessions[session.key].blocked = true;
    for n in 51..=60 {
        rig.deliver(&t, n, n - 1);
    }
    assert_eq!(session.ends_with(), None);
    rig.deliver(&t, 61, 60);
    assert_eq!(session.ends_with(), Some(CloseReason::SlowConsumer));
}
