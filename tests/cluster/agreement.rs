//! What nodes must have in common: who differs does not run, and says where.

use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::processes::{SOME_BEATS, owner_of, plan, sees};
use fanfare_protocol::form::Encoding;
use fanfare_testkit::http;
use fanfare_testkit::node::{Node, Plan};
use fanfare_testkit::redis_server::{RedisServer, free_address};
use fanfare_testkit::talk::Talk;
use fanfare_testkit::wait;

fn named(server: &RedisServer, host: &str, name: &str) -> String {
    format!("redis://{host}:{}?name={name}", server.port())
}

/// A node over these deployments.
fn over(name: &str, first: &str, shards: &[String]) -> Plan {
    Plan::clustered(name, first)
        .env("FANFARE_REDIS__LEASE_MS", "2000")
        .env("FANFARE_REDIS__COMMAND_TIMEOUT_MS", "800")
        .env("FANFARE_DRAIN__WINDOW_MS", "500")
        .env("FANFARE_REDIS__SHARDS", &shards.join(","))
}

/// Starts a node that must end with 64, and returns what it logged.
async fn differs(plan: Plan) -> String {
    let mut node = plan.start_unready().await;
    let status = node.ended_within(SOME_BEATS).await;
    let log = node.log_text();
    assert_eq!(status.code(), Some(64), "{log}");
    assert_eq!(node.log_lines("configuration_differed").len(), 1, "{log}");
    log
}

fn adopt(first: &str, shards: &[String], more: &[&str]) -> Output {
    let program = fanfare_testkit::program::fanfare();
    let mut command = Command::new(program);
    command
        .args(["redis", "adopt", "--dev", "--redis", first])
        .args(more);
    let output = command
        .env("FANFARE_REDIS__SHARDS", shards.join(","))
        .output();
    output.expect("the program runs")
}

fn said(output: &Output) -> String {
    let text = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8(text).expect("it is text")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_differs_exits_64_and_names_the_difference() {
    let servers = [RedisServer::start().await, RedisServer::start().await];
    let [east, west] = &servers;
    let [e, w] = [
        named(east, "127.0.0.1", "east"),
        named(west, "127.0.0.1", "west"),
    ];
    let a = over("a", &e, std::slice::from_ref(&w)).start().await;
    // The same servers otherwise spelt are the same deployments.
    let (le, lw) = (
        named(east, "localhost", "east"),
        named(west, "localhost", "west"),
    );
    let b = over("b", &le, &[lw]).start().await;
    sees(&a, &["a", "b"]).await;

    let other = RedisServer::start().await;
    let elsewhere = named(&other, "127.0.0.1", "west");
    let swapped = [
        named(west, "127.0.0.1", "east"),
        named(east, "127.0.0.1", "west"),
    ];
    let partitions = over("c", &e, std::slice::from_ref(&w)).env("FANFARE_REDIS__PARTITIONS", "64");
    for (plan, difference) in [
        (
            over("c", &w, std::slice::from_ref(&e)),
            "the cluster has east, this node has west",
        ),
        (
            over("c", &e, &[]),
            "redis.shards: the cluster has east, west, this node has east",
        ),
        (
            over("c", &w, &[]),
            "redis.shards: the cluster has east, west, this node has west",
        ),
        (
            over("c", &swapped[0], &swapped[1..]),
            "the name of this deployment",
        ),
        (
            over("c", &e, &[elsewhere]),
            "of which nothing is found where this node looks",
        ),
        (
            partitions,
            "redis.partitions: the cluster has 256, this node has 64",
        ),
    ] {
        let log = differs(plan).await;
        assert!(log.contains(difference), "{difference}: {log}");
    }
    assert_eq!(
        other.command(&["DBSIZE"]).as_deref(),
        Some(":0"),
        "nothing was written there"
    );
    // Nobody was disturbed, and nothing is lost between the two.
    let mut reader = Talk::connected(&b.connect_url("?user=r"), Encoding::Json).await;
    for n in 0..20 {
        let topic = format!("t{n}");
        reader
            .ok(json!({"type": "subscribe", "topic": topic}))
            .await;
        let body = json!({"topic": topic, "data": n});
        assert_eq!(http::post(a.api, "/v1/publish", &body).await.status, 200);
        assert_eq!(reader.message(&topic).await["data"], n);
    }
    sees(&a, &["a", "b"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_shards_is_adopted_when_no_node_lives() {
    let (east, west) = (RedisServer::start().await, RedisServer::start().await);
    let single = format!("redis://127.0.0.1:{}", east.port());
    let [e, w] = [
        named(&east, "127.0.0.1", "east"),
        named(&west, "127.0.0.1", "west"),
    ];
    let mut a = plan(&east, "a").start().await;
    let shards = [w.clone()];
    let refused = adopt(&e, &shards, &[]);
    assert_eq!(refused.status.code(), Some(1), "{}", said(&refused));
    assert!(said(&refused).contains("running: a"), "{}", said(&refused));
    // What runs goes on, and the new configuration is still another one.
    differs(over("b", &e, &shards)).await;
    assert!(a.is_ready().await);
    assert_eq!(a.terminate().await.code(), Some(0));

    let adopted = adopt(&e, &shards, &[]);
    assert_eq!(adopted.status.code(), Some(0), "{}", said(&adopted));
    let line: Value = serde_json::from_slice(&adopted.stdout).expect("JSON in a pipe");
    assert_eq!(line["deployments"], json!(["east", "west"]));
    assert_eq!(line["changed"], true);
    let b = over("b", &e, &shards).start().await;
    drop(b);
    // The old configuration is the one that differs now.
    let log = differs(plan(&east, "c").env("FANFARE_REDIS__URL", &single)).await;
    assert!(
        log.contains("redis.shards: the cluster has east, west"),
        "{log}"
    );
    // Where the leases were is not listed any more.
    east.command(&["DEL", "{ff:nodes}"]);
    let blind = adopt(&w, &[], &[]);
    assert_eq!(blind.status.code(), Some(1), "{}", said(&blind));
    assert!(said(&blind).contains("--all-stopped"), "{}", said(&blind));
    assert_eq!(adopt(&w, &[], &["--all-stopped"]).status.code(), Some(0));
    let nowhere = adopt(&format!("redis://{}", free_address()), &[], &[]);
    assert_eq!(nowhere.status.code(), Some(69), "{}", said(&nowhere));
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_used_before_the_comparison_and_a_lost_one_is_written_again() {
    let mut redis = RedisServer::not_yet();
    let node = plan(&redis, "a").start_unready().await;
    redis.restart().await;
    node.until_ready().await;
    let print = || {
        let stands = redis.command(&["EXISTS", "{ff:nodes}:fp"])?;
        (stands == ":1").then_some(())
    };
    wait::until_within(SOME_BEATS, "the fingerprint", async || print()).await;
    redis.command(&["FLUSHALL"]);
    wait::until_within(SOME_BEATS, "it to be written again", async || print()).await;
    // With another one in its place, as after an adoption that it slept through, it must not run.
    let other = "{\"layout\":2}";
    redis.command(&["SET", "{ff:nodes}:fp", other]);
    let mut node = node;
    assert_eq!(node.ended_within(SOME_BEATS).await.code(), Some(64));
    // One that starts then touches nothing.
    redis.command(&["FLUSHALL"]);
    redis.command(&["SET", "{ff:nodes}:fp", other]);
    let log = differs(plan(&redis, "b")).await;
    assert!(log.contains("key layout"), "{log}");
    assert_eq!(redis.command(&["DBSIZE"]).as_deref(), Some(":1"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_earlier_releases_agreed_on_is_compared_too() {
    let redis = RedisServer::start().await;
    let get = |key: &str| redis.ask(&["GET", key]).expect("the server runs").concat();
    let mut node = plan(&redis, "a").start().await;
    let print = get("{ff:nodes}:fp");
    // An earlier release that starts now looks there alone.
    assert_eq!(get("ff:fp"), print);
    assert_eq!(node.terminate().await.code(), Some(0));

    redis.command(&["FLUSHALL"]);
    let other = print.replace("\"partitions\":256", "\"partitions\":64");
    assert_ne!(other, print);
    let difference = "redis.partitions: the cluster has 64, this node has 256";
    redis.command(&["SET", "ff:fp", &other]);
    let log = differs(plan(&redis, "b")).await;
    assert!(log.contains(difference), "{log}");
    assert_eq!(redis.command(&["DBSIZE"]).as_deref(), Some(":1"), "{log}");
    // As after an adoption by an earlier release.
    redis.command(&["SET", "{ff:nodes}:fp", &print]);
    let log = differs(plan(&redis, "b")).await;
    assert!(log.contains(difference), "{log}");

    let adopted = adopt(&redis.url(), &[], &[]);
    assert_eq!(adopted.status.code(), Some(0), "{}", said(&adopted));
    assert!(said(&adopted).contains(difference), "{}", said(&adopted));
    assert!(get("ff:fp").contains("\"partitions\":256"));
    drop(plan(&redis, "c").start().await);
    // Beside such a release that agrees this one runs.
    redis.command(&["FLUSHALL"]);
    redis.command(&["SET", "ff:fp", &print]);
    drop(plan(&redis, "d").start().await);
    assert_eq!(get("{ff:nodes}:fp"), print);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_key_layouts_are_never_used_under_one_prefix() {
    let redis = RedisServer::start().await;
    let get = |key: &str| redis.ask(&["GET", key]).expect("the server runs").concat();
    let mut node = plan(&redis, "a").start().await;
    // Wherever a node of the release before looks, it finds a layout that it has not.
    let print = get("ff:fp");
    assert!(print.contains("\"layout\":3"), "{print}");
    assert_eq!(get("{ff:nodes}:fp"), print);
    assert_eq!(node.terminate().await.code(), Some(0));

    // What such a node left. Its own names of keys begin otherwise, but for leases and indexes.
    let before = print.replace("\"layout\":3", "\"layout\":2");
    let difference = "key layout: the cluster has 2, this node has 3";
    let left = [
        ["SET", "ff:{default:room}:l", "1-1"],
        ["SET", "ff:part:{160}", "gone~1 5 5"],
        ["SADD", "ff:ti:{160}", "default:room gone~1"],
    ];
    for at in ["ff:fp", "{ff:nodes}:fp"] {
        redis.command(&["FLUSHALL"]);
        redis.command(&["SET", at, &before]);
        for words in &left {
            redis.command(words);
        }
        let log = differs(plan(&redis, "b")).await;
        assert!(log.contains(difference), "{log}");
        let refused = adopt(&redis.url(), &[], &["--all-stopped"]);
        assert_eq!(refused.status.code(), Some(64), "{}", said(&refused));
        let why = said(&refused);
        assert!(
            why.contains(difference) && why.contains("redis.prefix"),
            "{why}"
        );
        // Nothing was added, and nothing is away.
        assert_eq!(redis.command(&["DBSIZE"]).as_deref(), Some(":4"), "{log}");
        assert_eq!(get("ff:part:{160}"), "gone~1 5 5");
        assert_eq!(get(at), before);
    }
    // Beside it, under another prefix.
    let other = plan(&redis, "c").env("FANFARE_REDIS__PREFIX", "fg");
    drop(other.start().await);
    assert_eq!(get("ff:part:{160}"), "gone~1 5 5");
    assert_eq!(get("ff:{default:room}:l"), "1-1");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_adopted_under_nodes_whose_leases_seem_over() {
    const LASTING: &str = "
        local t = redis.call('TIME')
        return #redis.call('ZRANGEBYSCORE', '{ff:nodes}', t[1] * 1000 + t[2] / 1000, '+inf')";
    const WAS_READ: &str = "
        local stats = redis.call('INFO', 'commandstats')
        return string.find(stats, 'zrangebyscore', 1, true) and 1 or 0";
    let redis = RedisServer::start().await;
    let is = |script: &str, number: &str| {
        let answer = redis.command(&["EVAL", script, "0"])?;
        (answer == number).then_some(())
    };
    let start = |name| plan(&redis, name).start();
    let (a, b, c) = tokio::join!(start("a"), start("b"), start("c"));
    sees(&a, &["a", "b", "c"]).await;
    let before = owner_of("a", &a).await;
    // As after an outage: no heartbeat was answered for longer than a lease.
    let mut nodes = [a, b, c];
    nodes.iter().for_each(|node| node.signal("STOP"));
    let over = async || is(LASTING, ":0");
    wait::until_within(SOME_BEATS, "the leases to be over", over).await;
    redis.command(&["CONFIG", "RESETSTAT"]);
    let url = format!("redis://127.0.0.1:{}?name=east", redis.port());
    let other = RedisServer::start().await;
    let shards = [named(&other, "127.0.0.1", "west")];
    let asked = (url.clone(), shards.clone());
    let refused = tokio::task::spawn_blocking(move || adopt(&asked.0, &asked.1, &[]));
    let looks = async || is(WAS_READ, ":1");
    wait::until_within(SOME_BEATS, "the leases to be read", looks).await;
    nodes.iter().for_each(|node| node.signal("CONT"));
    let refused = refused.await.unwrap();
    assert_eq!(refused.status.code(), Some(1), "{}", said(&refused));
    assert!(said(&refused).contains("running: "), "{}", said(&refused));
    for node in &nodes {
        node.until_ready().await;
    }
    sees(&nodes[0], &["a", "b", "c"]).await;
    assert_eq!(owner_of("a", &nodes[0]).await, before);
    // Who is dead says nothing.
    nodes.iter_mut().for_each(Node::kill);
    wait::until_within(SOME_BEATS, "the leases to be over", over).await;
    let adopted = adopt(&url, &[], &[]);
    assert_eq!(adopted.status.code(), Some(0), "{}", said(&adopted));
}
