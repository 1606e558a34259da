//! Nodes of this release and of the one before, on one Redis: by whichever scripts a command comes,
//! it is answered as the engine inside the process answers it.
//!
//! Redis' clock is the test's, and it steps back. What was given a life is there up to its end, to the
//! millisecond, and gone a little later; between the two nothing is asked. Positions differ by their
//! random sequences: they are compared by the number of the publication.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use fanfare::broker::memory::MemoryBroker;
use fanfare::broker::memory::clock::Clock;
use fanfare::broker::{Acked, HistoryQuery, InboxSummary, OVERLAP_MS, Page, PublishRequest};
use fanfare::config::Retention;
use fanfare::telemetry::metrics::Metrics;
use fanfare_protocol::event::GapReason;
use fanfare_protocol::ids::{Position, SessionId, Topic};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};

use crate::before::Before;
use crate::rig::{Peer, request, topic};
use fanfare_testkit::redis_server::RedisServer;

const START_MS: u64 = 1_732_190_000_000;
const HOUR_MS: u64 = 3_600_000;
/// Below that age each publication renews.
const BRIEF_MS: u64 = 60_000;
/// So much longer than for their life things are there, where only the first publication of a second
/// renews, and where others than publications do.
const SECOND_MS: u64 = 1_000;
const RENEWAL_MS: u64 = 60_000;
const SESSION: SessionId = SessionId(7);
const RUNS: u64 = 60;
const COMMANDS: usize = 80;

/// Both releases over one Redis, and the engine that says what is right.
struct Both {
    redis: RedisServer,
    now: Peer,
    before: Before,
}

/// One run on a topic of its own.
struct Run<'a> {
    both: &'a Both,
    right: MemoryBroker,
    right_ms: Arc<AtomicU64>,
    now_ms: u64,
    highest_ms: u64,
    /// Up to when something surely lives, and from after when on it is surely gone.
    ends_ms: Vec<(u64, u64)>,
    /// The same of idempotency keys.
    key_ends_ms: Vec<(u64, u64)>,
    /// Nodes of the release before take part. They renew lives by the clock alone, so that what this
    /// release does not renew in the same second ends within a second of what they said.
    is_mixed: bool,
    topic: Topic,
    is_inbox: bool,
    age_ms: u64,
    rng: StdRng,
    /// Positions that were given, in Redis and by the engine. The first is `0-0`.
    made: Vec<(Position, Position)>,
}

/// What is compared: numbers of publications where answers have positions.
#[derive(Debug, PartialEq)]
enum Said {
    Published(usize, bool),
    Since(Option<GapReason>, usize, usize, Vec<(usize, usize)>),
    Last(Option<usize>),
    History(Vec<usize>, bool),
    Inbox(Option<usize>, usize, u64),
    Cursor(Option<usize>),
}

impl<'a> Run<'a> {
    fn new(both: &'a Both, seed: u64, start_ms: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let right_ms = Arc::new(AtomicU64::new(start_ms));
        let clock = Clock::Manual(Arc::clone(&right_ms));
        let is_inbox = rng.random_bool(0.5);
        let name = if is_inbox { "@user" } else { "room" };
        let mut run = Self {
            both,
            right: MemoryBroker::new(clock, Arc::new(Metrics::new(0))).0,
            right_ms,
            now_ms: 0,
            highest_ms: start_ms,
            ends_ms: Vec::new(),
            key_ends_ms: Vec::new(),
            is_mixed: rng.random_bool(0.6),
            topic: topic(&format!("{name}{seed}")),
            is_inbox,
            age_ms: match rng.random_range(0..4) {
                0 => rng.random_range(1..40),
                1 => rng.random_range(1_000..BRIEF_MS),
                2 => 4 * OVERLAP_MS,
                _ => rng.random_range(BRIEF_MS..2 * BRIEF_MS),
            },
            rng,
            made: vec![(Position::ZERO, Position::ZERO)],
        };
        run.set_clock(start_ms);
        run
    }

    fn set_clock(&mut self, now_ms: u64) {
        self.now_ms = now_ms;
        self.highest_ms = self.highest_ms.max(now_ms);
        self.right_ms.store(now_ms, Ordering::Relaxed);
        self.both.redis.set_clock(now_ms);
    }

    fn step(&mut self) {
        let now_ms = self.now_ms;
        let ends_ms: Vec<_> = self.ends_ms.iter().chain(&self.key_ends_ms).collect();
        let (lives_ms, gone_ms) = **ends_ms.choose(&mut self.rng).unwrap_or(&&(now_ms, now_ms));
        let next_ms = match self.rng.random_range(0..40) {
            0 => now_ms + HOUR_MS + self.age_ms,
            1..4 => now_ms - self.rng.random_range(0..1_500),
            4..8 => now_ms + self.rng.random_range(0..2_500),
            // The last moment of something, or the first without it.
            8..11 => lives_ms,
            11..14 => gone_ms + 1,
            _ => now_ms + self.rng.random_range(0..4),
        };
        // What has ended is not to come back: whether it was freed is nobody's business.
        let is_open = |(lives_ms, gone_ms): &(u64, u64)| {
            let revives = *gone_ms >= next_ms && *lives_ms < self.highest_ms;
            revives || (*lives_ms < next_ms && next_ms <= *gone_ms)
        };
        if !ends_ms.into_iter().any(is_open) {
            self.set_clock(next_ms);
        }
    }

    /// Whether the next command comes from a node of the release before.
    fn is_before(&mut self) -> bool {
        self.rng.random_bool(0.5) && self.is_mixed
    }

    fn retention(&mut self) -> Retention {
        Retention {
            entries_max: self.rng.random_range(1..6),
            age_ms: self.age_ms,
        }
    }

    /// What a publication at this millisecond gives lives to.
    fn begins(&mut self, at_ms: u64, retention: Retention) {
        let (age_ms, life_ms) = (retention.age_ms, retention.last_life_ms());
        let more_ms = if age_ms < BRIEF_MS { 0 } else { SECOND_MS };
        // What was renewed before in the same second may live for longer.
        let longest_ms = (age_ms + HOUR_MS).max(life_ms) + RENEWAL_MS;
        let mut from_ms = self.now_ms;
        if !self.is_mixed {
            self.ends_ms.clear();
            from_ms = at_ms;
        }
        // Entries live from the clock on, what else is remembered from the position on.
        let entries_until_ms = if self.is_mixed { at_ms } else { self.now_ms } + more_ms;
        let entries_ms = (self.now_ms + age_ms, entries_until_ms + age_ms);
        let until_ms = at_ms + more_ms;
        self.ends_ms.push(entries_ms);
        self.ends_ms
            .push((from_ms + life_ms, until_ms + longest_ms));
    }

    /// The last id and the cursor are renewed.
    fn renewed(&mut self, retention: Retention) {
        let life_ms = retention.last_life_ms() + RENEWAL_MS;
        let end_ms = self.now_ms + retention.last_life_ms();
        self.ends_ms.push((end_ms, self.highest_ms + life_ms));
    }

    /// Some position that was given, or one that never was.
    fn any(&mut self) -> (Position, Position) {
        let (mut ours, mut right) = *self.made.choose(&mut self.rng).expect("some");
        if self.rng.random_bool(0.1) {
            (ours.seq, right.seq) = (ours.seq | 1 << 40, right.seq | 1 << 40);
        }
        (ours, right)
    }

    fn ours(&self, position: Position) -> usize {
        let mut made = self.made.iter();
        let found = made.position(|made| made.0 == position);
        found.unwrap_or_else(|| panic!("{position} was never given"))
    }

    fn right(&self, position: Position) -> usize {
        let mut made = self.made.iter();
        made.position(|made| made.1 == position).expect("given")
    }

    async fn publish(&mut self) -> [Said; 2] {
        let mut retention = self.retention();
        if self.rng.random_bool(0.1) {
            retention.entries_max = 0;
        }
        let request = PublishRequest {
            retention,
            idempotency: self.rng.random_bool(0.3).then(|| {
                let key = self.rng.random_range(0..3).to_string();
                (key, self.rng.random_range(1..3_000))
            }),
            ..request(&self.topic, self.made.len() as u64)
        };
        let (position, is_duplicate) = if self.is_before() {
            self.both.before.publish(&request).await
        } else {
            let published = self.both.now.broker.publish(request.clone()).await;
            let published = published.expect("Redis is up");
            (published.position, published.duplicate)
        };
        let right = self.right.publish(request.clone()).await.expect("room");
        assert_eq!(
            is_duplicate, right.duplicate,
            "{request:?} at {}",
            self.now_ms
        );
        if !is_duplicate {
            self.made.push((position, right.position));
            self.begins(position.ms, request.retention);
            if let Some((_, life_ms)) = request.idempotency {
                let end_ms = self.now_ms + life_ms;
                // In its last millisecond a repeat ends it: Redis is told to let it live for none.
                self.key_ends_ms.push((end_ms - 1, end_ms));
            }
        }
        [
            Said::Published(self.ours(position), is_duplicate),
            Said::Published(self.right(right.position), right.duplicate),
        ]
    }

    async fn since(&mut self) -> [Said; 2] {
        let (ours, right) = self.any();
        let retention = self.retention();
        let page = Page {
            entries_max: self.rng.random_range(1..5),
            bytes_max: usize::MAX >> 12,
        };
        let (gap, start, last, entries) = if self.is_before() {
            let page = self.both.before.since(&self.topic, ours, retention, page);
            let page = page.await;
            let entries = page.entries.iter().map(|e| (e.prev, e.position)).collect();
            (page.gap, page.start, page.last, entries)
        } else {
            let broker = &self.both.now.broker;
            let page = broker.since(&self.topic, ours, retention, page).await;
            let page = page.expect("Redis is up");
            let entries: Vec<_> = page.entries.iter().map(|e| (e.prev, e.position)).collect();
            (page.gap, page.start, page.last, entries)
        };
        let numbers = entries.iter().map(|e| (self.ours(e.0), self.ours(e.1)));
        let said = Said::Since(gap, self.ours(start), self.ours(last), numbers.collect());
        let page = self.right.since(&self.topic, right, retention, page).await;
        let page = page.expect("it never fails");
        let numbers = page.entries.iter();
        let numbers = numbers.map(|e| (self.right(e.prev), self.right(e.position)));
        let numbers = numbers.collect();
        [
            said,
            Said::Since(
                page.gap,
                self.right(page.start),
                self.right(page.last),
                numbers,
            ),
        ]
    }

    async fn last(&mut self) -> [Said; 2] {
        let retention = self.retention();
        let last = if self.is_before() {
            self.both.before.last(&self.topic, retention).await
        } else {
            let was_there = self.rng.random_bool(0.5);
            let last = self.both.now.broker.last(&self.topic, retention, was_there);
            last.await.expect("Redis is up")
        };
        self.renewed(retention);
        let right = self.right.last(&self.topic, retention, true).await;
        let right = right.expect("it never fails");
        [
            Said::Last(last.map(|last| self.ours(last))),
            Said::Last(right.map(|right| self.right(right))),
        ]
    }

    async fn history(&mut self) -> [Said; 2] {
        let mut bound = || {
            self.rng
                .random_bool(0.3)
                .then(|| self.rng.random_range(0..self.made.len()))
        };
        let (since, until) = (bound(), bound());
        let at = |bound: Option<usize>, is_right: bool| {
            let made = self.made[bound?];
            Some(if is_right { made.1 } else { made.0 })
        };
        let query = |is_right, retention, limit, reverse| HistoryQuery {
            topic: self.topic.clone(),
            retention,
            since: at(since, is_right),
            until: at(until, is_right),
            limit,
            bytes_max: usize::MAX >> 12,
            reverse,
        };
        let (limit, reverse) = (self.rng.random_range(1..5), self.rng.random_bool(0.5));
        let retention = Retention {
            entries_max: 5,
            age_ms: self.age_ms,
        };
        let ours = query(false, retention, limit, reverse);
        let right = query(true, retention, limit, reverse);
        let is_never = ours.until == Some(Position::ZERO);
        let (positions, more) = if !is_never && self.is_before() {
            self.both.before.history(&ours).await
        } else {
            let page = self
                .both
                .now
                .broker
                .history(ours)
                .await
                .expect("Redis is up");
            let positions = page.entries.iter().map(|e| e.position).collect();
            (positions, page.more)
        };
        let numbers = positions.iter().map(|p| self.ours(*p)).collect();
        let said = Said::History(numbers, more);
        let page = self.right.history(right).await.expect("it never fails");
        let numbers = page.entries.iter().map(|e| self.right(e.position));
        [said, Said::History(numbers.collect(), page.more)]
    }

    async fn inbox(&mut self) -> [Said; 2] {
        let retention = self.retention();
        let InboxSummary {
            cursor,
            last,
            pending,
        } = if self.is_before() {
            self.both.before.inbox(&self.topic, retention).await
        } else {
            let summary = self.both.now.broker.inbox(&self.topic, retention).await;
            summary.expect("Redis is up")
        };
        let cursor = cursor.map(|cursor| self.ours(cursor));
        let said = Said::Inbox(cursor, self.ours(last), pending);
        let right = self.right.inbox(&self.topic, retention).await;
        let right = right.expect("it never fails");
        let cursor = right.cursor.map(|cursor| self.right(cursor));
        [
            said,
            Said::Inbox(cursor, self.right(right.last), right.pending),
        ]
    }

    async fn ack(&mut self) -> [Said; 2] {
        let (ours, right) = *self.made.choose(&mut self.rng).expect("some");
        let retention = self.retention();
        let acked = if self.is_before() {
            let before = &self.both.before;
            before.ack(&self.topic, ours, SESSION, retention).await
        } else {
            let broker = &self.both.now.broker;
            let acked = broker.ack(&self.topic, ours, SESSION, retention).await;
            acked.expect("Redis is up")
        };
        self.renewed(retention);
        let cursor = |acked| match acked {
            Acked::Cursor(cursor) => Some(cursor),
            Acked::AboveNewest => None,
        };
        let said = Said::Cursor(cursor(acked).map(|cursor| self.ours(cursor)));
        let acked = self.right.ack(&self.topic, right, SESSION, retention).await;
        let acked = acked.expect("it never fails");
        let right = cursor(acked).map(|cursor| self.right(cursor));
        [said, Said::Cursor(right)]
    }

    async fn command(&mut self) -> [Said; 2] {
        let of_inboxes = if self.is_inbox { 4 } else { 0 };
        match self.rng.random_range(0..12 + of_inboxes) {
            0..7 => self.publish().await,
            7..9 => self.since().await,
            9 => self.last().await,
            10..12 => self.history().await,
            12..14 => self.inbox().await,
            _ => self.ack().await,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_releases_answer_as_the_engine_inside_the_process_does() {
    // What ended is freed when it is asked for, and not before: the clock steps back.
    let options = ["--enable-debug-command", "yes"];
    let mut redis = RedisServer::with(&options).clock_at(START_MS);
    redis.restart().await;
    let calm = redis.command(&["DEBUG", "SET-ACTIVE-EXPIRE", "0"]);
    assert_eq!(calm.as_deref(), Some("+OK"));
    let both = Both {
        now: Peer::up(redis.url()).await,
        before: Before::over(redis.url()).await,
        redis,
    };
    let mut begin_ms = START_MS;
    for seed in 0..RUNS {
        let mut run = Run::new(&both, seed, begin_ms);
        for nth in 0..COMMANDS {
            run.step();
            let [said, right] = run.command().await;
            let (age_ms, now_ms) = (run.age_ms, run.now_ms);
            assert_eq!(said, right, "seed {seed}, {nth}, age {age_ms}, at {now_ms}");
        }
        begin_ms = run.highest_ms;
    }
}
