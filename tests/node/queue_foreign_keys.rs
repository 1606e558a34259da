//! Dead letters and figures of a queue in which one partition cannot be read.
//!
//! In: a node over a Redis of its own, letters that died of their `expires_at`, and a key of another type
//! in the place of one partition's letters. Out: what operators are told of the others, and of that one.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use fanfare_protocol::ids::{App, Topic};
use fanfare_testkit::http;
use fanfare_testkit::node::{Node, Plan};
use fanfare_testkit::redis_server::RedisServer;
use fanfare_testkit::wait;
use http_body_util::Full;
use hyper::Request;
use serde_json::{Value, json};

const LETTERS: u64 = 40;

/// One command of one line, which is answered by one line.
fn command(redis: &RedisServer, line: &str) -> String {
    let mut socket = TcpStream::connect(redis.address()).expect("a connection");
    write!(socket, "{line}\r\n").expect("it is sent");
    let mut answer = String::new();
    let mut reader = BufReader::new(socket);
    reader.read_line(&mut answer).expect("an answer");
    answer
}

fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    u64::try_from(since.expect("after 1970").as_millis()).expect("in this era")
}

/// Makes a letter of each of so many topics, none of them of this partition.
async fn buried(node: &Node, spared: u32) {
    let partition = |name: &str| {
        let topic = Topic::new(&App::default_app(), name);
        topic.expect("a topic").partition(256)
    };
    let names = (0..).map(|n| format!("t{n}"));
    let names = names.filter(|name| partition(name) != spared);
    let names: Vec<_> = names.take(usize::try_from(LETTERS).expect("few")).collect();
    let begins_ms = unix_ms() + 300;
    let body =
        json!({"topics": names, "data": 1, "not_before": begins_ms, "expires_at": begins_ms + 1});
    let answer = http::post(node.api, "/v1/queue", &body).await;
    assert_eq!(answer.status, 202, "{}", answer.text());
    let all_dead = async || (dead(node).await.0.len() as u64 == LETTERS).then_some(());
    wait::until("all entries to be dead", all_dead).await;
}

/// The letters, and what could not be read.
async fn dead(node: &Node) -> (Vec<Value>, Value) {
    let page = http::get(node.api, "/v1/queue/dead").await;
    assert_eq!(page.status, 200, "{}", page.text());
    let page = page.json();
    let letters = page["letters"].as_array().expect("a list").clone();
    (letters, page["failed"].clone())
}

fn assert_told(failed: &Value, partition: u32) {
    assert_eq!(failed.as_array().map(Vec::len), Some(1), "{failed}");
    assert_eq!(failed[0]["partition"], partition, "{failed}");
    assert_eq!(failed[0]["error"]["code"], "internal", "{failed}");
    let message = failed[0]["error"]["message"].as_str().expect("words");
    let key = format!("ff:q:{{{partition}}}:");
    assert!(
        message.contains("another type") && message.contains(&key),
        "{message}"
    );
}

#[tokio::test]
async fn a_partition_that_cannot_be_read_is_told_and_ends_no_call() {
    let redis = RedisServer::start().await;
    let node = Plan::clustered("node-0", &redis.url()).start().await;
    let partition = 100;
    buried(&node, partition).await;
    let foreign = format!("SET ff:q:{{{partition}}}:dead x");
    assert_eq!(command(&redis, &foreign), "+OK\r\n");

    let (letters, failed) = dead(&node).await;
    assert_eq!(letters.len() as u64, LETTERS);
    assert_told(&failed, partition);
    let depth = http::get(node.api, "/v1/queue?partitions=true").await;
    assert_eq!(depth.status, 200, "{}", depth.text());
    let depth = depth.json();
    assert_told(&depth["failed"], partition);
    let of = depth["partitions"].as_array().expect("a list").iter();
    let count: u64 = of.map(|one| one["dead"].as_u64().expect("a number")).sum();
    assert_eq!(count, LETTERS);

    let all = json!({"all": true});
    let redriven = http::post(node.api, "/v1/queue/dead/redrive", &all).await;
    assert_eq!(redriven.status, 200, "{}", redriven.text());
    let redriven = redriven.json();
    assert_eq!(
        (&redriven["redriven"], &redriven["more"]),
        (&json!(LETTERS), &json!(false))
    );
    assert_told(&redriven["failed"], partition);

    buried(&node, partition).await;
    let request = Request::delete("/v1/queue/dead?why=expired")
        .body(Full::new(Bytes::new()))
        .expect("a request");
    let dropped = http::send(node.api, request).await.expect("an answer");
    assert_eq!(dropped.status, 200, "{}", dropped.text());
    let dropped = dropped.json();
    assert_eq!(dropped["dropped"], LETTERS);
    assert_told(&dropped["failed"], partition);
}
