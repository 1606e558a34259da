//! Runs in which a rule is taken out on purpose, to show that the checker would see it.
//!
//! In: a stage that is well. Out: a stage on which something is wrong that the product cannot
//! mend, made by the harness' own links and by Redis alone; the product has no switch for it.

use std::time::Duration;

use tokio::time::sleep;

use super::app_control;
use super::history::{Event, Window};
use super::options::Control;
use super::queue_control;
use super::run::Run;
use super::stage::Stage;
use super::swallow::Swallow;

/// How long writes go to a master whose replica does not hear it.
const BEHIND: Duration = Duration::from_secs(2);

/// What the first node's link to Redis does in this control.
pub(crate) fn swallow(control: Option<Control>) -> Option<Swallow> {
    match control? {
        Control::RepairOff => Some(Swallow::mending()),
        Control::ProbeOff => Some(Swallow::deaf()),
        Control::LossyFailover
        | Control::QueueNoClaim
        | Control::QueueTwoCalls
        | Control::AppsMixed => None,
    }
}

/// Does it, for so long.
pub(crate) async fn run(
    control: Control,
    run: &Run,
    stage: &Stage,
    swallow: Option<&Swallow>,
    lasts: Duration,
) {
    sleep(lasts / 4).await;
    let begun = run.now();
    match swallow {
        Some(swallow) => {
            run.say("control: the first node misses publications");
            swallow.set(true);
        }
        None if control == Control::LossyFailover => lossy_failover(run, stage).await,
        None if control == Control::AppsMixed => app_control::run(run, stage, lasts / 2).await,
        None => {
            run.say("control: somebody else moves entries of the queue");
            queue_control::run(control, run, stage, lasts / 2).await;
        }
    }
    if control != Control::RepairOff {
        let healed = run.now();
        run.push(Event::Window(Window {
            kinds: vec!["control"],
            begun,
            healed,
            measured_from: healed,
        }));
    }
    sleep((begun + lasts * 3 / 4).saturating_sub(run.now())).await;
    if let Some(swallow) = swallow {
        swallow.set(false);
    }
}

/// A master dies whose only replica had stopped hearing it: what was accepted in between is gone.
async fn lossy_failover(run: &Run, stage: &Stage) {
    const MASTER: usize = 0;
    const REPLICA: usize = 1;
    run.say("control: a replica that is behind takes over");
    let mut redis = stage.redis.lock().await;
    redis.signal(REPLICA, "STOP");
    // Without this the bytes would wait in the socket and not be lost.
    redis
        .ask(MASTER, &["CLIENT", "KILL", "TYPE", "replica"])
        .await;
    sleep(BEHIND).await;
    redis.kill(MASTER);
    redis.signal(REPLICA, "CONT");
    redis.ask(REPLICA, &["REPLICAOF", "NO", "ONE"]).await;
    stage.lead_to_redis(redis.port(REPLICA));
}
