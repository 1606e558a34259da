//! Lanes, bounds and deadlines, with threads that are held.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc;

use futures_util::FutureExt as _;
use futures_util::future::join_all;

use super::*;

/// Long enough for any machine.
fn later() -> tokio::time::Instant {
    tokio::time::Instant::now() + Duration::from_secs(60)
}

/// Holds every thread of the pool until it is dropped.
struct Held {
    release: Vec<mpsc::Sender<()>>,
}

async fn hold(pool: &Arc<Pool>) -> Held {
    let (begins, begun) = mpsc::channel::<()>();
    let mut release = Vec::new();
    for _ in 0..threads() {
        let (sender, held) = mpsc::channel::<()>();
        let (pool, begins) = (Arc::clone(pool), begins.clone());
        release.push(sender);
        tokio::spawn(async move {
            let work = move || {
                let _ = begins.send(());
                let _ = held.recv_timeout(Duration::from_secs(60));
            };
            pool.run(Lane::Known, 0, later(), work).await
        });
    }
    let all = move || (0..threads()).all(|_| begun.recv_timeout(Duration::from_secs(60)).is_ok());
    assert!(tokio::task::spawn_blocking(all).await.unwrap());
    Held { release }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.release.clear();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_no_room_is_not_taken_and_room_comes_back() {
    let pool = Arc::new(Pool::default());
    let run = |lane, bytes| pool.run(lane, bytes, later(), || 5);
    for lane in [Lane::Known, Lane::Stranger] {
        assert_eq!(run(lane, 1).await, Ok(5));
        assert_eq!(run(lane, BYTES_MAX + 1).await, Err(Refused::Full));
        let held = hold(&pool).await;
        let mut waiting = join_all((0..JOBS_MAX).map(|_| Box::pin(run(lane, 1))));
        assert!(
            (&mut waiting).now_or_never().is_none(),
            "the threads are held"
        );
        assert_eq!(
            run(lane, 1).await,
            Err(Refused::Full),
            "as many wait as may"
        );
        drop(held);
        assert!(waiting.await.into_iter().all(|answer| answer == Ok(5)));
        assert_eq!(run(lane, 1).await, Ok(5));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_lane_of_strangers_leaves_room_and_time_to_those_who_are_known() {
    let pool = Arc::new(Pool::default());
    let done = Arc::new(AtomicUsize::new(0));
    let held = hold(&pool).await;
    let stranger = || {
        let done = Arc::clone(&done);
        let work = move || {
            std::thread::sleep(Duration::from_millis(2));
            done.fetch_add(1, Relaxed)
        };
        Box::pin(pool.run(Lane::Stranger, 1, later(), work))
    };
    let mut strangers = join_all((0..JOBS_MAX).map(|_| stranger()));
    assert!((&mut strangers).now_or_never().is_none());
    let before = Arc::clone(&done);
    let mut known = Box::pin(pool.run(Lane::Known, 1, later(), move || before.load(Relaxed)));
    assert!((&mut known).now_or_never().is_none());
    drop(held);
    // It came last. Before it come those that are at work, and as many as make up for the time in which
    // the pool was held, which is counted for those who are known.
    let done_before = known.await.unwrap();
    assert!(
        done_before < JOBS_MAX / 4,
        "{done_before} strangers came first"
    );
    drop(strangers);
}

#[test]
fn while_both_wait_each_lane_has_half_of_the_time() {
    let mut lanes = Lanes::default();
    for _ in 0..100 {
        assert!(lanes.known.push(1, Box::new(|| ())));
        assert!(lanes.strangers.push(1, Box::new(|| ())));
    }
    // A job of those who are known costs nine times as much.
    let (mut known, mut strangers) = (0, 0);
    for _ in 0..50 {
        let (lane, _) = lanes.next().unwrap();
        match lane {
            Lane::Known => known += 1,
            Lane::Stranger => strangers += 1,
        }
        let took = Duration::from_millis(if lane == Lane::Known { 9 } else { 1 });
        lanes.count(lane, took);
    }
    assert_eq!((known, strangers), (5, 45));
    // Where one lane wants nothing the other has all, and owes nothing for it.
    lanes.strangers = Queue::default();
    for _ in 0..50 {
        let (lane, _) = lanes.next().unwrap();
        assert_eq!(lane, Lane::Known);
        lanes.count(lane, Duration::from_millis(9));
    }
    assert!(lanes.strangers.push(1, Box::new(|| ())));
    assert_eq!(lanes.next().unwrap().0, Lane::Known);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_too_long_is_late_and_not_done() {
    let pool = Arc::new(Pool::default());
    let held = hold(&pool).await;
    let done = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&done);
    let soon = tokio::time::Instant::now() + Duration::from_millis(20);
    let late = pool.run(Lane::Stranger, 1, soon, move || {
        counted.fetch_add(1, Relaxed)
    });
    assert_eq!(late.await, Err(Refused::Late));
    drop(held);
    assert_eq!(pool.run(Lane::Stranger, 1, later(), || 5).await, Ok(5));
    assert_eq!(done.load(Relaxed), 0, "nobody waits for it");
}
