//! Redis is away for longer than a lease, or its clock steps: nobody who stayed has left, and who
//! died meanwhile has.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use fanfare::redis::Keys;
use futures_util::future::join_all;
use serde_json::json;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::processes::{SOME_BEATS, owner_of, plan_over, sees};
use crate::rig::{self, PARTITIONS, topic};
use fanfare_protocol::form::Encoding;
use fanfare_testkit::node::Node;
use fanfare_testkit::redis_sentinels::{MASTER, RedisSentinels};
use fanfare_testkit::redis_server::{self, RedisServer};
use fanfare_testkit::talk::Talk;
use fanfare_testkit::turns;
use fanfare_testkit::wait;

/// Topics of one session, of which it is a member.
const TOPICS: usize = 120;
/// Sessions that have the same topics.
const SESSIONS_A_GROUP: usize = 10;
/// Longest wait until the dead are told as left, and for all else of the long runs.
const LONG: Duration = Duration::from_secs(180);

/// What sessions that are members were told.
#[derive(Debug, Default)]
struct Told {
    joined: AtomicUsize,
    left: AtomicUsize,
    gaps: AtomicUsize,
}

/// Sessions on one node, each a member of [`TOPICS`] topics, which read all that comes.
struct Crowd {
    told: Arc<Told>,
    readers: Vec<JoinHandle<()>>,
}

impl Crowd {
    async fn enter(node: &Node, name: &str, sessions: usize) -> Self {
        let told = Arc::new(Told::default());
        let enter = (0..sessions).map(|number| async move {
            let url = node.connect_url(&format!("?user={name}-{number}"));
            let (mut talk, _) = Talk::welcomed(&url, Encoding::Json).await;
            talk.be_patient(LONG);
            for topic in 0..TOPICS {
                let topic = format!("room:{}-{topic}", number / SESSIONS_A_GROUP);
                talk.ok(json!({"type": "subscribe", "topic": topic, "presence": true}))
                    .await;
            }
            talk
        });
        let talks = join_all(enter).await;
        let read = |mut talk: Talk| {
            let told = Arc::clone(&told);
            tokio::spawn(async move {
                while let Some(event) = talk.next().await {
                    let count = |name: &str| event[name].as_array().map_or(0, Vec::len);
                    if event["type"] == "presence" {
                        told.joined.fetch_add(count("joined"), Ordering::Relaxed);
                        told.left.fetch_add(count("left"), Ordering::Relaxed);
                    } else if event["type"] == "gap" {
                        told.gaps.fetch_add(1, Ordering::Relaxed);
                    }
                }
            })
        };
        let readers = talks.into_iter().map(read).collect();
        Self { told, readers }
    }

    /// What was told since it was asked for last.
    fn told(&self) -> [usize; 3] {
        let Told { joined, left, gaps } = &*self.told;
        [joined, left, gaps].map(|count| count.swap(0, Ordering::Relaxed))
    }

    /// Waits until nothing has been told for a second; returns what was until then.
    async fn until_quiet(&self) -> [usize; 3] {
        let mut sum = [0; 3];
        wait::until_within(LONG, "all members to be told", async || {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let told = self.told();
            sum = std::array::from_fn(|at| sum[at] + told[at]);
            (told == [0, 0, 0]).then_some(())
        })
        .await;
        sum
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.readers.iter().for_each(JoinHandle::abort);
    }
}

async fn reaped(nodes: [&Node; 2]) -> u64 {
    let members = nodes.map(|node| node.metric("fanfare_reaped_total{kind=\"member\"}"));
    join_all(members).await.iter().sum()
}

/// How many members the topics of the first group have, by Redis: what a node has counted may lack
/// a call whose answer was lost.
fn members_of_the_first_group(master: SocketAddr) -> Option<usize> {
    const SUM: &str = "
        local sum = 0
        for _, key in ipairs(KEYS) do sum = sum + redis.call('HLEN', key) end
        return sum";
    let keys = Keys::new("ff", PARTITIONS);
    let hash = |number| keys.hash(&topic(&format!("room:0-{number}")).presence());
    let hashes: Vec<_> = (0..TOPICS).map(hash).collect();
    let count = TOPICS.to_string();
    let mut words = vec!["EVAL", SUM, &count];
    words.extend(hashes.iter().map(String::as_str));
    redis_server::ask(master, &words)?.first()?.parse().ok()
}

/// Two nodes stay while Redis is away, and one dies: only what that one had leaves. `master`: who
/// is it when Redis is back.
async fn nobody_leaves(
    url: &str,
    sessions: usize,
    begin: impl FnOnce(),
    end: impl Future<Output = ()>,
    master: impl Fn() -> SocketAddr,
) {
    let start = |name| plan_over(url, name).env("FANFARE_REBALANCE__ENABLED", "false");
    let [one, two, three] = ["one", "two", "three"].map(|name| start(name).start());
    let (one, two, mut three) = tokio::join!(one, two, three);
    for node in [&one, &two, &three] {
        sees(node, &["one", "two", "three"]).await;
    }
    let crowd = Crowd::enter(&one, "stays", sessions).await;
    let lost = Crowd::enter(&three, "dies", 1).await;
    crowd.until_quiet().await;
    let before = [owner_of("one", &one).await, owner_of("two", &one).await];
    let began = Instant::now();
    begin();
    three.kill();
    end.await;
    drop(lost);
    let away = began.elapsed();
    let back_at = Instant::now();
    for node in [&one, &two] {
        wait::until_within(LONG, "the node to be ready", async || {
            node.is_ready().await.then_some(())
        })
        .await;
    }
    let ready = back_at.elapsed();
    // So reapers have been everywhere.
    wait::until_within(LONG, "what died meanwhile to be removed", async || {
        let members = members_of_the_first_group(master())?;
        (members <= TOPICS * SESSIONS_A_GROUP).then_some(())
    })
    .await;
    let removed = back_at.elapsed();
    let [joined, left, gaps] = crowd.until_quiet().await;
    sees(&one, &["one", "two"]).await;
    let after = [owner_of("one", &one).await, owner_of("two", &one).await];
    let members = reaped([&one, &two]).await;
    println!(
        "{} members, Redis away for {away:.1?}: ready after {ready:.1?}, what died removed after \
         {removed:.1?}; {} of those who stayed were removed; {joined} told as joined, {left} as \
         left, {gaps} gaps; lives before {before:?}, afterwards {after:?}",
        sessions * TOPICS,
        members.saturating_sub(TOPICS as u64),
    );
    assert_eq!(after, before, "the same lives");
    assert!(members <= TOPICS as u64, "only what died was removed");
    let members = members_of_the_first_group(master());
    assert_eq!(members, Some(TOPICS * SESSIONS_A_GROUP), "who stayed");
    assert_eq!(joined, 0);
    // The one that died was in the first group.
    let most = TOPICS * SESSIONS_A_GROUP;
    assert!(
        left <= most,
        "{left} were told as left, and {most} had met the one that died"
    );
}

/// Redis stands still for so long.
async fn nobody_leaves_while_stopped(sessions: usize, stopped: Duration) {
    let redis = RedisServer::start().await;
    let begin = || redis.signal("STOP");
    let end = async {
        tokio::time::sleep(stopped).await;
        redis.signal("CONT");
    };
    nobody_leaves(&redis.url(), sessions, begin, end, || redis.address()).await;
}

#[tokio::test]
async fn nobody_who_stays_leaves_where_redis_stops_for_two_leases() {
    nobody_leaves_while_stopped(25, Duration::from_secs(4)).await;
}

#[tokio::test]
#[ignore = "long: scripts/test-long runs it"]
async fn of_20_000_members_none_leaves_where_redis_stops_for_4_s() {
    let _turn = turns::heavy().await;
    nobody_leaves_while_stopped(170, Duration::from_secs(4)).await;
}

#[tokio::test]
#[ignore = "long: scripts/test-long runs it"]
async fn of_20_000_members_none_leaves_where_redis_stops_for_40_s() {
    let _turn = turns::heavy().await;
    nobody_leaves_while_stopped(170, Duration::from_secs(40)).await;
}

/// As sentinels are by default: a master is down when it has not answered for 30 s.
#[tokio::test]
#[ignore = "long: scripts/test-long runs it"]
async fn of_20_000_members_none_leaves_where_a_master_is_killed() {
    let _turn = turns::heavy().await;
    let redis = RedisSentinels::start().await;
    for sentinel in &redis.sentinels {
        for (name, value) in [
            ("down-after-milliseconds", "30000"),
            ("failover-timeout", "180000"),
        ] {
            let words = ["SENTINEL", "SET", MASTER, name, value];
            redis_server::ask(sentinel.address, &words).expect("the sentinel runs");
        }
    }
    let master = redis.master().expect("there is one");
    let begin = || redis.servers[master].signal("KILL");
    let end = redis.is_not(master);
    let now = || redis.servers[1 - master].address();
    nobody_leaves(&redis.url(), 170, begin, end, now).await;
}

/// Moves all that Redis has by the clock: as if that had stepped the other way.
fn step_clock(redis: &RedisServer, by_ms: i64) {
    const MOVE: &str = "
        for _, key in ipairs(redis.call('KEYS', 'ff:part:*')) do
          local owner, token, ends = string.match(redis.call('GET', key), '^(%S+) (%d+) (%d+)$')
          redis.call('SET', key, owner .. ' ' .. token .. ' ' .. string.format('%.0f', ends - ARGV[1]))
        end
        local leases = redis.call('ZRANGE', '{ff:nodes}', 0, -1, 'WITHSCORES')
        for i = 1, #leases, 2 do
          local ends = tonumber(leases[i + 1])
          local moved = ends > 0 and ends - ARGV[1] or ends + ARGV[1]
          redis.call('ZADD', '{ff:nodes}', moved, leases[i])
        end
        local last, told = string.match(redis.call('GET', '{ff:nodes}:t'), '^(%d+) (.+)$')
        redis.call('SET', '{ff:nodes}:t', string.format('%.0f ', last - ARGV[1]) .. told)
        return 1";
    let done = redis.command(&["EVAL", MOVE, "0", &by_ms.to_string()]);
    assert_eq!(done.as_deref(), Some(":1"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_steps_ends_no_lease_and_keeps_no_dead_node() {
    let redis = RedisServer::start().await;
    let port = redis.port();
    let [a, b] = ["a", "b"].map(|name| rig::Node::joined(port, name));
    let (a, b) = tokio::join!(a, b);
    let both = |view: &fanfare::cluster::view::View| rig::names(view) == ["a", "b"];
    let lives = [a.me(), b.me()];
    for by_ms in [60_000, -60_000, -60_000, 60_000] {
        a.sees("both", both).await;
        let before = a.membership.now().time_us;
        step_clock(&redis, by_ms);
        // Some heartbeats of each.
        a.sees("later", |view| view.time_us > before + 2_000_000)
            .await;
        a.sees("both", both).await;
        assert_eq!([a.me(), b.me()], lives, "after {by_ms}");
    }
    step_clock(&redis, -600_000);
    b.kill();
    let gone = a.sees("b's end", |view| rig::names(view) == ["a"]);
    timeout(SOME_BEATS, gone).await.expect("not in ten minutes");
    let partitions = async {
        let mut held = a.partitions.held();
        let all = |held: &fanfare::cluster::partition_leases::Held| held.partitions().len() == 256;
        held.wait_for(all).await.expect("they are led").partitions()
    };
    timeout(SOME_BEATS, partitions).await.expect("all are a's");
    assert_eq!(a.me(), lives[0]);
}
