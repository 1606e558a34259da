//! The worker's tick, whatever else happens on its thread.
//!
//! In: sessions that come and go. Out: that the tick has come, by a gauge that only it sets.

use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::{LocalSet, spawn_local};

use super::rig::Rig;
use crate::lifecycle::Lifecycle;
use crate::worker::handle::WorkerHandle;
use crate::worker::wheel::TICK;

/// What the tick never sets.
const NOT_YET: u64 = u64::MAX;

#[tokio::test]
async fn the_tick_comes_though_short_sessions_follow_each_other_without_end() {
    let all = LocalSet::new();
    all.run_until(async {
        let mut rig = Rig::new().await;
        let (_handle, inbound) = WorkerHandle::new(Arc::clone(&rig.worker.metrics));
        let lifecycle = watch::Sender::new(Lifecycle::Ready);
        spawn_local(Rc::clone(&rig.worker).run(inbound, lifecycle.subscribe()));
        rig.counters().recent_bytes.set(NOT_YET);
        // Each of them comes sooner after the one before than a tick takes, and all take many.
        for _ in 0..400 {
            let client = rig.client().await;
            rig.worker.remove(client.key);
            tokio::time::sleep(TICK / 25).await;
            if rig.counters().recent_bytes.get() != NOT_YET {
                return;
            }
        }
        panic!("there was no tick");
    })
    .await;
}
