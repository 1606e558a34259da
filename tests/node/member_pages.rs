//! What a page of members costs beside how many there are: a measurement, which asserts what the
//! pages show and prints the figures (docs/performance.md has them).
//!
//! In: a node over a Redis of its own, ten members and ten thousand; the same lists in the broker
//! of a process. Out: CPU a page of node and Redis, by turns, the least of some rounds.

use std::sync::Arc;
use std::time::Instant;

use fanfare::broker::Page;
use fanfare::broker::memory::{MemoryBroker, clock::Clock};
use fanfare::broker::publication::encode_member;
use fanfare::redis::Keys;
use fanfare::telemetry::metrics::Metrics;
use fanfare_protocol::event::Member;
use fanfare_protocol::form::Encoding;
use fanfare_protocol::ids::{App, Owner, SessionId, Topic};
use fanfare_protocol::info::Info;
use fanfare_testkit::http;
use fanfare_testkit::node::Plan;
use fanfare_testkit::process::cpu;
use fanfare_testkit::redis_server::RedisServer;
use fanfare_testkit::talk::Talk;
use fanfare_testkit::turns;
use serde_json::json;

const ROOMS: [(&str, u64); 2] = [("few", 10), ("many", 10_000)];
const ROUNDS: usize = 5;
const PAGES: u64 = 4_000;
/// Commands of a session at a time.
const AT_ONCE: u64 = 40;

fn member(session: u128) -> Member {
    Member {
        user: Some("ada".into()),
        session: SessionId(session),
        info: Some(Info::from(&json!({"name": "Ada"}))),
    }
}

fn topic(name: &str) -> Topic {
    Topic::new(&App::default_app(), name).expect("a name")
}

/// As `enter.lua` leaves them.
fn fill(redis: &RedisServer, name: &str, count: u64, owner: &str) {
    const SCRIPT: &str = "
        local member = string.gsub(ARGV[3], '..', function(byte)
          return string.char(tonumber(byte, 16))
        end)
        for n = 1, tonumber(ARGV[2]) do
          local session = string.format('%032x', n)
          redis.call('HSET', KEYS[1], session, ARGV[1] .. ' 1 1 ' .. member)
          redis.call('ZADD', KEYS[2], 0, session)
        end
        redis.call('HSET', KEYS[3], ARGV[1], ARGV[2])";
    let (keys, changes) = (Keys::new("ff", 256), topic(name).presence());
    // The server's words are text.
    let bytes = encode_member(&member(0));
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let words = [
        "EVAL",
        SCRIPT,
        "3",
        &keys.hash(&changes),
        &keys.member_names(&changes),
        &keys.member_counts(&changes),
        owner,
        &count.to_string(),
        &hex,
    ];
    redis.command(&words).expect("Redis answers");
}

async fn pages(talk: &mut Talk, room: &str, count: u64) {
    let ask = json!({"type": "presence", "topic": room, "limit": 1});
    for _ in 0..PAGES / AT_ONCE {
        let mut ids = Vec::new();
        for _ in 0..AT_ONCE {
            ids.push(talk.command(ask.clone()).await);
        }
        for id in ids {
            let page = talk.answer(id).await;
            assert_eq!(
                (&page["count"], &page["more"]),
                (&json!(count), &json!(true))
            );
        }
    }
}

#[tokio::test]
#[ignore = "a measurement: see docs/performance.md"]
async fn a_page_of_many_members_costs_what_one_of_few_does() {
    let _turn = turns::heavy().await;
    let redis = RedisServer::start().await;
    let node = Plan::clustered("one", &redis.url()).start().await;
    let nodes = http::get(node.api, "/v1/nodes").await.json();
    let owner = format!("one~{}", nodes["nodes"][0]["incarnation"]);
    for (room, count) in ROOMS {
        fill(&redis, room, count, &owner);
    }
    let (mut talk, _) = Talk::welcomed(&node.connect_url("?user=ada"), Encoding::Json).await;
    let mut least = [[u64::MAX; 2]; 2];
    for _ in 0..ROUNDS {
        for (at, (room, count)) in ROOMS.into_iter().enumerate() {
            let pids = [node.pid(), redis.pid()];
            let before = pids.map(cpu);
            pages(&mut talk, room, count).await;
            let after = pids.map(cpu);
            for part in 0..2 {
                let took = (after[part] - before[part]).as_micros();
                let took_us = u64::try_from(took).expect("it is small") / PAGES;
                least[at][part] = least[at][part].min(took_us);
            }
        }
    }
    for ((room, count), [node_us, redis_us]) in ROOMS.into_iter().zip(least) {
        println!("{room}, {count} members: node {node_us} µs, Redis {redis_us} µs of CPU a page");
    }
}

#[tokio::test]
#[ignore = "a measurement: see docs/performance.md"]
async fn a_page_of_many_members_in_the_process_costs_what_one_of_few_does() {
    let _turn = turns::heavy().await;
    let (broker, _feed) = MemoryBroker::new(Clock::System, Arc::new(Metrics::new(1)));
    let owner: Owner = "one~1".parse().expect("an owner");
    for (room, count) in ROOMS {
        for session in 0..count {
            let member = member(u128::from(session));
            let entered = broker.enter(&topic(room), &member, &owner, 1).await;
            entered.expect("it never fails");
        }
    }
    for (room, count) in ROOMS {
        let began = Instant::now();
        for _ in 0..PAGES {
            let size = Page {
                entries_max: 2,
                bytes_max: 1 << 20,
            };
            let page = broker.members(&topic(room), None, size).await;
            assert_eq!(page.expect("it never fails").counts[0].1, count);
        }
        let took = began.elapsed() / u32::try_from(PAGES).expect("few");
        println!("{room}, {count} members: {took:?} a page");
    }
}
