//! Leases of nodes: they see each other, die, pause, collide, and outlive Redis.

use std::sync::{Arc, mpsc};

use fanfare::cluster::lease_store::LeaseStore;
use fanfare::cluster::membership_machine::MembershipState;
use fanfare::cluster::roster::Beat;
use fanfare::cluster::view::{NodeDetails, View};
use fanfare::redis::Keys;
use fanfare_protocol::ids::NodeId;
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::rig::{LEASE, Node, PARTITIONS, names, occupied_by, topic};
use crate::scripts::answering;
use fanfare_testkit::redis_server::RedisServer;
use fanfare_testkit::wait::PATIENCE;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_nodes_see_each_other_with_the_same_homes_and_one_that_leaves_is_gone() {
    let redis = RedisServer::start().await;
    let [a, b, c] = ["a", "b", "c"].map(|name| Node::start(redis.port(), name));
    let all = |view: &View| names(view) == ["a", "b", "c"];
    let views = tokio::join!(a.sees("all", all), b.sees("all", all), c.sees("all", all));
    assert_eq!(views.0.ring, views.1.ring);
    assert_eq!(views.1.ring, views.2.ring);
    let home = views.0.home(&topic("orders:7"));
    assert_eq!(home, views.2.home(&topic("orders:7")));
    assert_eq!(home.url, Some(format!("wss://{}.example", home.node)));
    assert!(views.0.is_live(&b.me()), "its incarnation is known");

    b.leave().await;
    assert_eq!(
        b.stands(MembershipState::is_final).await,
        MembershipState::Left
    );
    a.sees("two", |view| names(view) == ["a", "c"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_node_vanishes_when_its_lease_ends() {
    let redis = RedisServer::start().await;
    let a = Node::joined(redis.port(), "a").await;
    let b = Node::joined(redis.port(), "b").await;
    a.sees("both", |view| names(view) == ["a", "b"]).await;
    b.kill();
    let view = a.sees("one", |view| names(view) == ["a"]).await;
    assert!(view.fresh && !view.is_live(&b.me()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_of_a_living_name_is_turned_away() {
    let redis = RedisServer::start().await;
    let holder = Node::joined(redis.port(), "a").await;
    let me = holder.me();
    for _ in 0..2 {
        let other = Node::start(redis.port(), "a");
        let end = other.stands(MembershipState::is_final).await;
        assert_eq!(end, MembershipState::NameTaken);
        // Its end takes nothing from the other.
        timeout(PATIENCE, other.membership.leave(true))
            .await
            .unwrap();
    }
    let later = holder.membership.now().time_us + 1;
    let sees = holder.sees("itself again", |view| view.time_us > later);
    assert_eq!(sees.await.me, me);
    // Of one that was killed the name is taken, after a look.
    holder.kill();
    let next = Node::joined(redis.port(), "a").await;
    assert!(next.me().incarnation > me.incarnation);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_node_takes_a_new_incarnation_and_writes_its_occupancy_again() {
    let redis = RedisServer::start().await;
    let a = Node::joined(redis.port(), "a").await;
    // b lives on a thread of its own, which is held as a stopped process is.
    let port = redis.port();
    let (hold, held) = oneshot::channel::<mpsc::Receiver<()>>();
    let (tell, told) = oneshot::channel();
    let (stop, stopped) = oneshot::channel::<()>();
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime.unwrap().block_on(async {
            let b = Node::joined(port, "b").await;
            b.occupancy.set(topic("t"), 2);
            tell.send((b.me(), b.membership.view())).unwrap();
            // Blocks the thread with everything on it: heartbeats, timers, the Redis client.
            held.await.unwrap().recv().unwrap();
            stopped.await.unwrap();
        });
    });
    let (before, mut view) = told.await.unwrap();
    occupied_by(&a, "t", &[(before.clone(), 2)]).await;

    let (release, released) = mpsc::channel();
    hold.send(released).unwrap();
    a.sees("b's end", |view| !view.is_live(&before)).await;
    occupied_by(&a, "t", &[]).await;
    release.send(()).unwrap();
    let renewed = timeout(PATIENCE, view.wait_for(|view| view.me != before)).await;
    let after = renewed.unwrap().unwrap().me.clone();
    assert!(after.incarnation > before.incarnation);
    occupied_by(&a, "t", &[(after, 2)]).await;
    stop.send(()).unwrap();
    thread.join().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_joins_when_redis_appears_keeps_its_view_without_it_and_returns() {
    let mut redis = RedisServer::not_yet();
    let port = redis.port();
    let a = Node::start(port, "a");
    assert_eq!(*a.membership.standing().borrow(), MembershipState::Joining);
    assert_eq!(a.me().incarnation, 0);
    a.occupancy.set(topic("t"), 1);
    redis.restart().await;
    let first = a.sees("Redis", |view| view.fresh).await;
    timeout(PATIENCE, a.occupancy.settled()).await.unwrap();

    redis.kill_with_data();
    let kept = a.sees("nothing new", |view| !view.fresh).await;
    assert_eq!(kept.me, first.me);
    assert_eq!(names(&kept), ["a"]);
    a.occupancy.set(topic("t"), 0);
    a.occupancy.set(topic("u"), 5);

    redis.restart().await;
    let again = a.sees("Redis again", |view| view.fresh).await;
    assert!(
        again.me.incarnation > first.me.incarnation,
        "the lease was lost"
    );
    timeout(PATIENCE, a.occupancy.settled()).await.unwrap();
    let b = Node::joined(port, "b").await;
    occupied_by(&b, "t", &[]).await;
    occupied_by(&b, "u", &[(again.me.clone(), 5)]).await;
}

#[tokio::test]
async fn the_next_heartbeat_finds_what_one_whose_answer_was_lost_has_done() {
    let redis = RedisServer::start().await;
    let (link, keys) = (answering(&redis).await, Keys::new("ff", PARTITIONS));
    let mut store = LeaseStore::new(Arc::clone(&link), &keys);
    // The first answer was lost: the process still believes that it never had the name.
    let first = held(&mut store, None).await;
    assert_eq!(held(&mut store, Some(first)).await, first);
    // The lease ended, and the answer that gave the new incarnation was lost.
    let ended = |name: &str| vec!["1".into(), name.into()];
    link.command("ZADD", &keys.nodes(), &ended("a"))
        .await
        .unwrap();
    let second = held(&mut store, Some(first)).await;
    assert!(second > first);
    assert_eq!(held(&mut store, Some(first)).await, second);

    // A lease that ended long ago is forgotten with all that belongs to it.
    link.command("ZADD", &keys.nodes(), &ended("ghost"))
        .await
        .unwrap();
    for key in [keys.node_incarnations(), keys.node_details()] {
        let field = ["ghost".into(), "1 f".into()];
        link.command("HSET", &key, &field).await.unwrap();
    }
    held(&mut store, Some(second)).await;
    for key in [keys.node_incarnations(), keys.node_details()] {
        let known = link.command("HEXISTS", &key, &["ghost".into()]).await;
        assert_eq!(known.unwrap().convert::<u64>().unwrap(), 0);
    }
}

/// A failover may lose that this process took the name, and bring back who had it before.
#[tokio::test]
async fn a_process_that_redis_forgot_takes_its_name_again_from_the_one_before_it() {
    let redis = RedisServer::start().await;
    let store = async || LeaseStore::new(answering(&redis).await, &Keys::new("ff", PARTITIONS));
    let (mut old, mut new) = (store().await, store().await);
    let first = held(&mut old, None).await;
    let lost = redis.ask(&["HGET", "{ff:nodes}:i", "a"]).unwrap();
    let second = held(&mut new, None).await;
    let superseded = Some(Beat::Superseded { newest: second });
    assert_eq!(beat(&mut old, Some(first)).await, superseded);

    let back = ["HSET", "{ff:nodes}:i", "a", &lost[0]];
    redis.ask(&back).unwrap();
    let third = held(&mut new, Some(second)).await;
    assert!(third > second);
    let superseded = Some(Beat::Superseded { newest: third });
    assert_eq!(beat(&mut old, Some(first)).await, superseded);

    // Its own past is behind it too, with a lease that lasts.
    let mut past = redis.ask(&["HGET", "{ff:nodes}:i", "a"]).unwrap().remove(0);
    past.replace_range(..past.find(' ').unwrap(), &first.to_string());
    redis.ask(&["HSET", "{ff:nodes}:i", "a", &past]).unwrap();
    assert!(held(&mut new, Some(third)).await > third);
}

/// One heartbeat of a process called `a`.
async fn beat(store: &mut LeaseStore, mine: Option<u64>) -> Option<Beat> {
    let me = NodeId::new("a").unwrap();
    let details = NodeDetails::default();
    store.heartbeat(&me, mine, LEASE * 60, &details).await.ok()
}

/// The incarnation that a heartbeat brings.
async fn held(store: &mut LeaseStore, mine: Option<u64>) -> u64 {
    match beat(store, mine).await {
        Some(Beat::Held { incarnation, .. }) => incarnation,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_lease_that_has_ended_is_marked_as_over_and_forgotten_an_hour_later() {
    let redis = RedisServer::start().await;
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_millis();
    let (a_second_ago, long_ago) = (now - 1_000, now - 7_200_000);
    let leases = [
        ("ended", format!("{a_second_ago}")),
        ("old", format!("{long_ago}")),
        ("older", format!("-{long_ago}")),
    ];
    for (name, end) in &leases {
        redis.ask(&["ZADD", "{ff:nodes}", end, name]).unwrap();
        redis.ask(&["HSET", "{ff:nodes}:i", name, "7 ab"]).unwrap();
    }
    let node = Node::joined(redis.port(), "a").await;
    assert_eq!(names(&node.membership.now()), ["a"]);
    let mut known = redis.ask(&["ZRANGE", "{ff:nodes}", "0", "-1"]).unwrap();
    known.sort_unstable();
    assert_eq!(known, ["a", "ended"]);
    let over = redis.ask(&["ZSCORE", "{ff:nodes}", "ended"]).unwrap();
    assert_eq!(over, [format!("-{a_second_ago}")], "no clock revives it");
    let mut names = redis.ask(&["HKEYS", "{ff:nodes}:i"]).unwrap();
    names.sort_unstable();
    assert_eq!(names, ["a", "ended"]);
}
