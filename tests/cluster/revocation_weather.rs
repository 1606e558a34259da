//! A hundred revocations a second over three real nodes, while doorbells are lost, a node stands still,
//! Redis fails over, and Redis loses everything: whoever is put out is out within a second of the moment
//! from which his node and Redis can be reached, nobody comes in again, and nobody else is ended.
//!
//! Each who is put out has a session of his own, which is opened a little before, and tries to come in
//! again afterwards. Beside them are sessions of nobody who is revoked. Figures are printed.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use fanfare_protocol::form::Encoding;
use fanfare_testkit::http;
use fanfare_testkit::node::{Node, Plan};
use fanfare_testkit::redis_sentinels::RedisSentinels;
use fanfare_testkit::talk::Talk;
use fanfare_testkit::tokens::{self, seconds_from_now};
use fanfare_testkit::wait;
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::{sleep, sleep_until, timeout};

/// A session must end within so long.
const BOUND: Duration = Duration::from_secs(1);
/// A node that cannot read takes no token after so long.
const UNREAD: Duration = Duration::from_secs(4);
const APART: Duration = Duration::from_millis(10);
/// So long before it is revoked a session is opened.
const BEFORE: Duration = Duration::from_secs(3);
/// So long after what it waits for a session is watched.
const WATCHED: Duration = Duration::from_secs(20);
/// Doorbells are lost for so long out of twice as long.
const DEAF_MS: &str = "3000";
/// Sessions of nobody who is revoked, on each node.
const INNOCENTS: usize = 40;
const TRIES: u32 = 3;

/// What is done, and what must not be.
#[derive(Debug, Default)]
struct Counts {
    revoked: u32,
    late_answers: u32,
    repeated: u32,
    without_session: u32,
    ended: u32,
    refused: u32,
    unavailable: u32,
    /// How long sessions took to end, from the moment that counts.
    took: Vec<Duration>,
    ended_late: Vec<String>,
    let_in: Vec<String>,
    wrongly: Vec<String>,
}

/// What all tasks share.
struct World {
    nodes: [Node; 3],
    /// When each node could be reached again last.
    on_at: [Mutex<Instant>; 3],
    /// When Redis could be reached again by all nodes last.
    redis_at: Mutex<Instant>,
    /// Something is away, and it is not known until when.
    is_away: [AtomicBool; 4],
    counts: Mutex<Counts>,
}

const REDIS: usize = 3;

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no task panics with it")
}

fn token(user: &str, id: &str) -> String {
    tokens::signed(&json!({
        "sub": user,
        "jti": id,
        "iat": seconds_from_now(-10),
        "exp": seconds_from_now(600),
    }))
}

/// How a try to come in ended.
#[derive(Debug)]
enum Entry {
    In(Box<Talk>),
    /// The token is no good.
    Refused,
    /// Not now, or nobody answers.
    Unavailable,
}

impl World {
    async fn start(redis: &RedisSentinels, never_polls: bool) -> Arc<Self> {
        let start = |name: &'static str| {
            let plan = Plan::clustered(name, &redis.url())
                .env("FANFARE_AUTH__HMAC_SECRET", tokens::SECRET)
                .env("PLANTED_DEAF", DEAF_MS);
            match never_polls {
                true => plan.env("PLANTED_NEVER_POLLS", "1"),
                false => plan,
            }
            .start()
        };
        let (one, two, three) = tokio::join!(start("one"), start("two"), start("three"));
        let now = Instant::now();
        let world = Self {
            nodes: [one, two, three],
            on_at: [now, now, now].map(Mutex::new),
            redis_at: Mutex::new(now),
            is_away: Default::default(),
            counts: Mutex::default(),
        };
        for node in &world.nodes {
            wait::until("all nodes to be seen", async || {
                let seen = http::get(node.api, "/v1/nodes").await.json();
                (seen["nodes"].as_array()?.len() == 3).then_some(())
            })
            .await;
        }
        Arc::new(world)
    }

    async fn enter(&self, at: usize, token: &str) -> Entry {
        let url = self.nodes[at].connect_url(&format!("?token={token}"));
        let entry = async {
            let Ok(mut talk) = Talk::open(&url, Encoding::Json, &[]).await else {
                return Entry::Unavailable;
            };
            talk.be_patient(Duration::from_secs(600));
            match talk.next().await {
                Some(event) if event["type"] == "welcome" => Entry::In(Box::new(talk)),
                Some(event) if event["code"] == "unauthorized" => Entry::Refused,
                _ => Entry::Unavailable,
            }
        };
        // A node that stands still answers when it goes on.
        timeout(WATCHED, entry).await.unwrap_or(Entry::Unavailable)
    }

    /// From when on both are reached for good, as far as is known.
    fn reached_at(&self, at: usize) -> Instant {
        (*locked(&self.on_at[at])).max(*locked(&self.redis_at))
    }

    fn is_away(&self, at: usize) -> bool {
        [at, REDIS]
            .iter()
            .any(|part| self.is_away[*part].load(Ordering::SeqCst))
    }

    /// Revokes until that was stored. When it was asked for, when it was answered, and whether every
    /// node is said to know.
    async fn revoke(&self, number: usize) -> (Instant, Instant, bool) {
        let (path, body) = match number % 2 {
            0 => (format!("/v1/users/user-{number}/revoke"), json!({})),
            _ => (
                "/v1/revoke".to_owned(),
                json!({"jti": [format!("t-{number}")]}),
            ),
        };
        loop {
            // The third stands still for a while and answers nothing then.
            let to = self.nodes[number % 2].api;
            let asked = Instant::now();
            let answer = http::try_post(to, &path, &body).await;
            let status = answer.map_or(0, |answer| answer.status.as_u16());
            if matches!(status, 200 | 202) {
                let mut counts = locked(&self.counts);
                counts.revoked += 1;
                counts.late_answers += u32::from(status == 202);
                return (asked, Instant::now(), status == 200);
            }
            // Not stored, or not known: it is safe to repeat.
            locked(&self.counts).repeated += 1;
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// The whole course of one who is put out at this instant.
    async fn put_out(self: Arc<Self>, number: usize, due: Instant) {
        let at = number % 3;
        let token = token(&format!("user-{number}"), &format!("t-{number}"));
        sleep_until((due - BEFORE).into()).await;
        let session = match self.enter(at, &token).await {
            Entry::In(talk) => Some(talk),
            Entry::Refused => {
                let told = format!("user-{number} was refused before he was revoked");
                locked(&self.counts).wrongly.push(told);
                None
            }
            Entry::Unavailable => None,
        };
        sleep_until(due.into()).await;
        // Both count from the call: who asks sees them end while he waits for the answer.
        let ends = session.map(|talk| tokio::spawn(ended(*talk)));
        let (asked, answered, all_know) = self.revoke(number).await;
        match ends {
            Some(ends) => self.judge_end(number, at, asked, ends).await,
            None => locked(&self.counts).without_session += 1,
        }
        // Who is not said to know takes such a token for a while.
        if !all_know {
            let until = (answered + UNREAD + BOUND).max(self.reached_at(at) + BOUND);
            sleep_until(until.into()).await;
        }
        for nth in 0..TRIES {
            let at = (number + nth as usize) % 3;
            let entry = self.enter(at, &token).await;
            match entry {
                Entry::In(_) => {
                    let after = answered.elapsed();
                    let told = format!(
                        "user-{number} by node {at}, {after:?} after the answer (200: {all_know})"
                    );
                    locked(&self.counts).let_in.push(told);
                }
                Entry::Refused => locked(&self.counts).refused += 1,
                Entry::Unavailable => locked(&self.counts).unavailable += 1,
            }
            sleep(Duration::from_millis(700)).await;
        }
    }

    async fn judge_end(
        &self,
        number: usize,
        at: usize,
        asked: Instant,
        ends: tokio::task::JoinHandle<Instant>,
    ) {
        let ended_at = loop {
            let waited = timeout(BOUND, async {
                while !ends.is_finished() {
                    sleep(Duration::from_millis(2)).await
                }
            });
            if waited.await.is_ok() {
                break ends.await.expect("no panic");
            }
            let from = asked.max(self.reached_at(at));
            if !self.is_away(at) && from.elapsed() > WATCHED {
                ends.abort();
                let told = format!("user-{number} at node {at}: not at all within {WATCHED:?}");
                locked(&self.counts).ended_late.push(told);
                return;
            }
        };
        let from = asked.max(self.reached_at(at));
        let took = ended_at.saturating_duration_since(from);
        let mut counts = locked(&self.counts);
        counts.ended += 1;
        counts.took.push(took);
        if took > BOUND && !self.is_away(at) {
            counts
                .ended_late
                .push(format!("user-{number} at node {at}: {took:?}"));
        }
    }

    /// Somebody whom nobody puts out: his session stays, and he comes in again.
    async fn stay(self: Arc<Self>, number: usize, until: Instant) {
        let at = number % 3;
        let name = format!("innocent-{number}");
        let token = token(&name, &name);
        // A node that has read nothing for a while takes no token: in the control that is so at first.
        let talk = loop {
            if let Entry::In(talk) = self.enter(at, &token).await {
                break talk;
            }
            sleep(Duration::from_millis(100)).await;
        };
        let stays = tokio::spawn(ended(*talk));
        while Instant::now() < until {
            sleep(Duration::from_secs(1)).await;
            if stays.is_finished() {
                locked(&self.counts)
                    .wrongly
                    .push(format!("the session of {name} was ended"));
                return;
            }
            if let Entry::Refused = self.enter((number + 1) % 3, &token).await {
                locked(&self.counts)
                    .wrongly
                    .push(format!("{name} was refused"));
            }
        }
        stays.abort();
    }

    /// What happens meanwhile.
    async fn weather(&self, redis: &mut RedisSentinels) {
        sleep(Duration::from_secs(12)).await;
        self.is_away[2].store(true, Ordering::SeqCst);
        self.nodes[2].signal("STOP");
        sleep(Duration::from_secs(10)).await;
        self.nodes[2].signal("CONT");
        *locked(&self.on_at[2]) = Instant::now();
        self.is_away[2].store(false, Ordering::SeqCst);
        println!("the third node stood still for 10 s");

        sleep(Duration::from_secs(12)).await;
        let begun = Instant::now();
        self.is_away[REDIS].store(true, Ordering::SeqCst);
        redis.fail_over().await;
        self.until_reached().await;
        println!(
            "Redis failed over: all nodes reached it after {:?}",
            begun.elapsed()
        );

        sleep(Duration::from_secs(12)).await;
        let begun = Instant::now();
        self.is_away[REDIS].store(true, Ordering::SeqCst);
        let master = redis.master().expect("the sentinel runs");
        let flushed = redis.servers[master].command(&["FLUSHALL"]);
        assert_eq!(flushed.as_deref(), Some("+OK"));
        self.until_reached().await;
        println!(
            "Redis lost everything: all nodes said to know after {:?}",
            begun.elapsed()
        );
        sleep(Duration::from_secs(12)).await;
    }

    /// Until each node was answered by Redis again: from then on the bound counts.
    async fn until_reached(&self) {
        for node in &self.nodes {
            wait::until("a node to reach Redis", async || {
                let answer = http::try_post(node.api, "/v1/users/nobody/revoke", &json!({})).await;
                answer.is_some_and(|answer| answer.status == 200 || answer.status == 202)
            })
            .await;
        }
        *locked(&self.redis_at) = Instant::now();
        self.is_away[REDIS].store(false, Ordering::SeqCst);
    }
}

/// When a session ended.
async fn ended(mut talk: Talk) -> Instant {
    talk.close_code().await;
    Instant::now()
}

/// All of it, with figures.
async fn run(never_polls: bool) -> Counts {
    let mut redis = RedisSentinels::start().await;
    let world = World::start(&redis, never_polls).await;
    let begun = Instant::now();
    let over = Arc::new(AtomicBool::new(false));
    let mut tasks = JoinSet::new();
    for number in 0..3 * INNOCENTS {
        let until = begun + Duration::from_secs(65);
        tasks.spawn(Arc::clone(&world).stay(number, until));
    }
    let feeding = {
        let (world, over) = (Arc::clone(&world), Arc::clone(&over));
        tokio::spawn(async move {
            let mut all = JoinSet::new();
            let first = Instant::now() + BEFORE;
            for number in 0.. {
                let due = first + APART * number;
                sleep_until((due - BEFORE).into()).await;
                if over.load(Ordering::SeqCst) {
                    break;
                }
                all.spawn(Arc::clone(&world).put_out(number as usize, due));
            }
            while let Some(done) = all.join_next().await {
                done.expect("no panic");
            }
        })
    };
    world.weather(&mut redis).await;
    over.store(true, Ordering::SeqCst);
    feeding.await.expect("no panic");
    while let Some(done) = tasks.join_next().await {
        done.expect("no panic");
    }
    let mut counts = std::mem::take(&mut *locked(&world.counts));
    report(&mut counts, begun.elapsed());
    counts
}

fn report(counts: &mut Counts, lasted: Duration) {
    counts.took.sort_unstable();
    let at = |part: f64| {
        let index = (counts.took.len() as f64 * part) as usize;
        let took = counts
            .took
            .get(index.min(counts.took.len().saturating_sub(1)));
        took.copied().unwrap_or_default()
    };
    println!(
        "{} revocations in {lasted:?}, {} of them answered 202, {} calls repeated after no answer or \
         another; {} had no session; {} sessions ended: half of them within {:?}, 99 % within {:?}, all \
         within {:?}; tries to come in again: {} refused, {} unavailable",
        counts.revoked,
        counts.late_answers,
        counts.repeated,
        counts.without_session,
        counts.ended,
        at(0.5),
        at(0.99),
        at(1.0),
        counts.refused,
        counts.unavailable,
    );
    for (what, all) in [
        ("ended late", &counts.ended_late),
        ("let in", &counts.let_in),
        ("wrongly ended or refused", &counts.wrongly),
    ] {
        println!(
            "{what}: {}, such as {:?}",
            all.len(),
            all.iter().take(5).collect::<Vec<_>>()
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long: scripts/test-long runs it"]
async fn who_is_put_out_is_out_within_a_second_whatever_happens() {
    let counts = run(false).await;
    assert!(
        counts.revoked >= 5_000 && counts.ended >= 4_000,
        "{}",
        counts.revoked
    );
    assert!(counts.let_in.is_empty(), "{:?}", counts.let_in);
    assert!(counts.wrongly.is_empty(), "{:?}", counts.wrongly);
    assert!(counts.ended_late.is_empty(), "{:?}", counts.ended_late);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long: scripts/test-long runs it"]
async fn a_doorbell_alone_does_not_put_them_out_in_time() {
    let counts = run(true).await;
    assert!(counts.wrongly.is_empty(), "{:?}", counts.wrongly);
    assert!(
        counts.ended_late.len() > 100,
        "what is lost must be found: {:?}",
        counts.ended_late
    );
}
