//! How each kind of fault is done and undone.
//!
//! In: the stage, the crowd, a place, a length of time. Out: the same stage, healed. A fault
//! returns when its cause is gone; what the service makes of that is measured from then on.

use std::rc::Rc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;
use tokio::time::sleep;

use super::app::TARGETS_COUNT;
use super::client::Client;
use super::kind::{Kind, Target};
use super::link::Mode;
use super::queue;
use super::queue_raw::RawWriter;
use super::redis_form::Form;
use super::run::{DATA_BYTES, Run};
use super::stage::Stage;

/// Longer than a node's lease, so that the others hold it for dead.
const PAST_LEASE: Duration = Duration::from_millis(6_500);
/// Shorter than Sentinel and Cluster need to hold a master for dead.
const BLINK: Duration = Duration::from_millis(500);
/// Longer than a narrow client's buffers last, with data of this length.
const SLOW_FOR: Duration = Duration::from_secs(5);
const SLOW_DATA_BYTES: usize = 16_000;
/// Longer than silence lasts before a session is ended (`session.pong_ms` of the run).
const THIN_FOR: Duration = Duration::from_secs(18);
/// A slowed server computes for a tenth of the time.
const SLOW_RUNS: Duration = Duration::from_millis(10);
const SLOW_RESTS: Duration = Duration::from_millis(90);
/// Questions to the broker that one fault may cost each topic of a node.
const QUESTIONS_PER_TOPIC_MAX: u64 = 2;
/// What a slow link adds to each piece.
const DELAY: Duration = Duration::from_millis(120);
/// How often connections are killed in one window, and how far apart.
const KILLS: u32 = 3;
const BETWEEN_KILLS: Duration = Duration::from_millis(400);
/// How many slots move in one window.
const SLOTS_MOVED: usize = 1_000;

/// Parts that panic, as docs/development.md names them, how long after the start, and the exit code.
const PARTS: [&str; 6] = [
    "worker-0",
    "dispatcher",
    "feed",
    "publisher",
    "membership",
    "presence",
];
const PANICS_AFTER_MS: u32 = 2_500;
const PANICS_WITHIN: Duration = Duration::from_millis(3_000);
const EXIT_CODE: i32 = 70;
/// So many entries of the queue does a home get at once, and within this time it is killed.
const BURST_COUNT: u32 = 400;
const BURST_FOR: Duration = Duration::from_millis(80);
/// In the name of the log of a node that was to panic, whose errors are no finding.
pub(crate) const PLANTED: &str = "-planted";

/// Where and how long.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Blow {
    pub(crate) kind: Kind,
    pub(crate) form: Form,
    /// Which node.
    pub(crate) node: usize,
    /// Which of those that may be chosen, by the one who knows how many there are.
    pub(crate) chosen: usize,
    pub(crate) lasts: Duration,
    /// The same for a fault that lasts longer than a lease.
    pub(crate) lasts_long: Duration,
}

impl Blow {
    /// Does it, waits, and undoes it. Returns when it was done.
    pub(crate) fn strike<'a>(
        self,
        run: &'a Rc<Run>,
        stage: &'a Stage,
        crowd: &'a [Rc<Client>],
    ) -> LocalBoxFuture<'a, Duration> {
        match self.kind.target() {
            Target::Node if self.kind == Kind::HomeKill => self.kill_home(run, stage).boxed_local(),
            Target::Node => self.node(run, stage).boxed_local(),
            Target::Redis => self.redis(run, stage).boxed_local(),
            Target::Clients => self.clients(run, stage, crowd).boxed_local(),
        }
    }

    async fn node(self, run: &Run, stage: &Stage) -> Duration {
        let seat = &stage.seats[self.node];
        let stopped_for = match self.kind {
            Kind::NodePause => self.lasts,
            Kind::NodeFreeze => PAST_LEASE,
            _ => return self.end_node(run, stage).await,
        };
        let signal = async |name: &str| {
            if let Some(node) = &*seat.node.lock().await {
                node.signal(name);
            }
        };
        if self.kind == Kind::NodeFreeze {
            run.living.forget_node(self.node);
        }
        signal("STOP").await;
        let done = run.now();
        sleep(stopped_for).await;
        signal("CONT").await;
        done
    }

    /// Kills the home of a target of the queue while it has its hands full.
    async fn kill_home(mut self, run: &Rc<Run>, stage: &Stage) -> Duration {
        let target = (self.chosen % usize::from(TARGETS_COUNT)) as u16;
        self.node = queue::home(stage, target).await.unwrap_or(self.node);
        let writer = RawWriter::new(run, &stage.redis_doors);
        tokio::task::spawn_local(writer.burst(target, BURST_COUNT));
        sleep(BURST_FOR.mul_f64(self.chosen as f64 / 1_000.0)).await;
        self.end_node(run, stage).await
    }

    async fn end_node(self, run: &Run, stage: &Stage) -> Duration {
        let seat = &stage.seats[self.node];
        let taken = seat.node.lock().await.take();
        let mut node = taken.expect("every seat has a node");
        let done = run.now();
        if self.kind == Kind::NodeDrain {
            let status = node.terminate().await;
            if !status.success() {
                run.broken(format!("{} drained and ended with {status}", seat.name));
            }
        } else {
            node.kill();
            sleep(self.lasts).await;
        }
        stage.keep_log(&seat.name, &node);
        if self.kind == Kind::NodePanic {
            self.panic(run, stage).await;
        }
        stage.start_node(self.node).await;
        done
    }

    /// A node that panics in a part without which it serves nobody ends with 70, whatever it did.
    async fn panic(self, run: &Run, stage: &Stage) {
        let seat = &stage.seats[self.node];
        let part = PARTS[self.chosen % PARTS.len()];
        let planted = format!("{part}@{PANICS_AFTER_MS}");
        stage
            .start_node_with(self.node, &[("PLANTED_PANIC", &planted)])
            .await;
        sleep(PANICS_WITHIN).await;
        let taken = seat.node.lock().await.take();
        let mut node = taken.expect("it was started");
        let status = node.ended().await;
        if status.code() != Some(EXIT_CODE) {
            run.broken(format!(
                "{} ended with {status} when {part} panicked",
                seat.name
            ));
        }
        stage.keep_log(&format!("{}{PLANTED}", seat.name), &node);
    }

    async fn redis(self, run: &Run, stage: &Stage) -> Duration {
        match self.kind {
            Kind::RedisLinkCut => return self.redis_link(run, stage, Mode::Cut).await,
            Kind::RedisLinkDelay => return self.redis_link(run, stage, Mode::Delay(DELAY)).await,
            Kind::RedisLinkStall => return self.redis_link(run, stage, Mode::Stall).await,
            Kind::RedisUnreachable => return self.unreachable(run, stage).await,
            Kind::RedisSlow => return self.slow(run, stage).await,
            _ => {}
        }
        let mut redis = stage.redis.lock().await;
        let masters = redis.masters().await;
        let master = masters[self.chosen % masters.len()];
        let done = run.now();
        match self.kind {
            Kind::RedisKill => {
                redis.kill(master);
                if self.form.has_replicas() {
                    redis.is_replaced(master).await;
                    redis.restart(master).await;
                    redis.follow(master).await;
                } else {
                    sleep(self.lasts).await;
                    redis.restart(master).await;
                }
            }
            Kind::RedisPause => {
                redis.signal(master, "STOP");
                let has_replicas = self.form.has_replicas();
                sleep(if has_replicas { BLINK } else { self.lasts }).await;
                redis.signal(master, "CONT");
            }
            Kind::RedisOutage => {
                redis.signal(master, "STOP");
                sleep(self.lasts_long).await;
                redis.signal(master, "CONT");
            }
            Kind::RedisReadOnly => {
                // More replicas than there are.
                redis.configure("min-replicas-to-write", "100").await;
                sleep(self.lasts_long).await;
                redis.configure("min-replicas-to-write", "0").await;
            }
            Kind::RedisFull => {
                redis.configure("maxmemory", "1").await;
                sleep(self.lasts_long).await;
                redis.configure("maxmemory", "0").await;
            }
            Kind::KillFeeds | Kind::KillCommands => {
                let is_feed = self.kind == Kind::KillFeeds;
                let kind = if is_feed { "pubsub" } else { "normal" };
                for _ in 0..KILLS {
                    redis.kill_connections(kind).await;
                    sleep(BETWEEN_KILLS).await;
                }
            }
            Kind::Failover => redis.fail_over(self.chosen).await,
            _ => redis.move_slots(self.chosen, SLOTS_MOVED).await,
        }
        done
    }

    async fn redis_link(self, run: &Run, stage: &Stage, mode: Mode) -> Duration {
        let link = stage.seats[self.node].redis_link.as_ref();
        let link = link.expect("only where there are links to Redis");
        link.set(mode);
        let done = run.now();
        sleep(self.lasts).await;
        link.set(Mode::Pass);
        done
    }

    /// No node reaches Redis, which itself is well.
    async fn unreachable(self, run: &Run, stage: &Stage) -> Duration {
        let links = || {
            stage
                .seats
                .iter()
                .filter_map(|seat| seat.redis_link.as_ref())
        };
        let done = run.now();
        links().for_each(|link| link.set(Mode::Stall));
        sleep(self.lasts_long).await;
        links().for_each(|link| link.set(Mode::Pass));
        done
    }

    /// Redis computes a tenth of the time, and feeds are cut off, so that every topic is in doubt.
    async fn slow(self, run: &Run, stage: &Stage) -> Duration {
        let asked = stage.questions().await;
        let redis = stage.redis.lock().await;
        let masters = redis.masters().await;
        let master = masters[self.chosen % masters.len()];
        redis
            .ask(master, &["CLIENT", "KILL", "TYPE", "pubsub"])
            .await;
        let done = run.now();
        while run.now() < done + self.lasts_long {
            redis.signal(master, "STOP");
            sleep(SLOW_RESTS).await;
            redis.signal(master, "CONT");
            sleep(SLOW_RUNS).await;
        }
        for (before, after) in asked.iter().zip(stage.questions().await) {
            let asked = after.asked.saturating_sub(before.asked);
            // Sessions come and go meanwhile: a node that has no topic afterwards had some before.
            let topics = before.topics.max(after.topics);
            let sweeps = self.lasts_long.as_secs() * topics.div_ceil(60);
            if asked > QUESTIONS_PER_TOPIC_MAX * topics + sweeps {
                run.broken(format!("{asked} questions for {topics} topics"));
            }
        }
        done
    }

    /// Narrow clients ask for a long reply and take it at a few kilobytes a second: that is no
    /// silence. A session that is ended nevertheless gets no word of it in time, so that only the
    /// nodes' counters tell.
    async fn thin_clients(self, run: &Run, stage: &Stage, crowd: &[Rc<Client>]) {
        let order = |is_thin| {
            for client in crowd.iter().filter(|client| client.is_narrow()) {
                client.orders.send_modify(|orders| orders.is_thin = is_thin);
            }
        };
        run.data_bytes.set(SLOW_DATA_BYTES);
        sleep(self.lasts).await;
        let before = stage.silent_ends().await;
        order(true);
        sleep(THIN_FOR).await;
        run.data_bytes.set(DATA_BYTES);
        order(false);
        let after = stage.silent_ends().await;
        for (seat, (before, after)) in stage.seats.iter().zip(before.iter().zip(after)) {
            // A node that was started anew counts from 0.
            if after > *before {
                let count = after - before;
                run.broken(format!("{} ended {count} sessions as silent", seat.name));
            }
        }
    }

    async fn clients(self, run: &Run, stage: &Stage, crowd: &[Rc<Client>]) -> Duration {
        let done = run.now();
        let door = &stage.seats[self.node].door;
        match self.kind {
            Kind::ClientLinkCut => door.set(Mode::Cut),
            Kind::ClientLinkDelay => door.set(Mode::Delay(DELAY)),
            Kind::ClientLinkStall => door.set(Mode::Stall),
            Kind::ThinClients => {
                self.thin_clients(run, stage, crowd).await;
                return done;
            }
            Kind::SlowClients => {
                let stall = |is_stalled| {
                    for client in crowd.iter().filter(|client| client.is_narrow()) {
                        client
                            .orders
                            .send_modify(|orders| orders.is_stalled = is_stalled);
                    }
                };
                stall(true);
                run.data_bytes.set(SLOW_DATA_BYTES);
                sleep(SLOW_FOR).await;
                run.data_bytes.set(DATA_BYTES);
                stall(false);
                return done;
            }
            _ => {
                // Every third, then those beside them, while the first are coming back.
                for turn in 0..2 {
                    let offset = self.chosen + turn;
                    for client in crowd.iter().skip(offset % 3).step_by(3) {
                        client.orders.send_modify(|orders| orders.drops += 1);
                    }
                    sleep(BETWEEN_KILLS).await;
                }
                return done;
            }
        }
        sleep(self.lasts).await;
        door.set(Mode::Pass);
        done
    }
}
