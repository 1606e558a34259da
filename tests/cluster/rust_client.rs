//! The Rust client against real nodes: through a node's death, a token's end, and a reader that
//! does not read.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use fanfare_client::subscription::ITEMS_MAX;
use fanfare_client::{Client, History, Item, Options, Publication, Subscription, Token};
use fanfare_testkit::load::Load;
use fanfare_testkit::node::{Node, Plan};
use fanfare_testkit::redis_server::RedisServer;
use fanfare_testkit::{http, tokens, wait};
use serde_json::{Value, json};

/// A client of a node that was started with `--dev`.
async fn client(node: &Node) -> Client {
    let options = Options {
        urls: vec![node.connect_url("")],
        user: Some("ada".to_owned()),
        ..Options::default()
    };
    Client::connect(options).await.expect("connected")
}

/// Waits until so many sessions have joined a topic.
async fn until_joined_by(node: &Node, topic: &str, sessions_count: u64) {
    wait::until("the topic to be joined or left", async || {
        let answer = http::get(node.api, &format!("/v1/topics/{topic}")).await;
        (answer.json()["sessions"] == sessions_count).then_some(())
    })
    .await;
}

async fn next(subscription: &mut Subscription) -> Item {
    let item = tokio::time::timeout(wait::PATIENCE, subscription.next()).await;
    item.expect("in time").expect("not the end")
}

async fn data(subscription: &mut Subscription) -> Value {
    match next(subscription).await {
        Item::Message(message) => message.data.read().expect("JSON"),
        other => panic!("no message: {other:?}"),
    }
}

/// The example as cargo built it: with all targets, or by `cargo build --example follow`.
fn example() -> std::path::PathBuf {
    let test = std::env::current_exe().expect("a program has a path");
    let built = test.ancestors().nth(2).expect("it lies in deps");
    let path = built.join("examples/follow");
    assert!(
        path.exists(),
        "build it first: cargo build --example follow"
    );
    path
}

/// A program that ends with its test.
struct Follower(Child);

impl Drop for Follower {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What a follower prints up to the end of the load.
fn printed(stdout: ChildStdout) -> Vec<Value> {
    let mut values = Vec::new();
    for line in BufReader::new(stdout).lines() {
        match serde_json::from_str(&line.expect("readable")).expect("JSON") {
            Value::String(_) => break,
            value => values.push(value),
        }
    }
    values
}

#[tokio::test]
async fn the_example_follows_a_topic_through_the_death_of_its_node() {
    let redis = RedisServer::start().await;
    let start = |name: &'static str| Plan::clustered(name, &redis.url()).start();
    let (mut one, two) = tokio::join!(start("one"), start("two"));
    let mut follow = Command::new(example());
    follow.args(["orders:7", &one.connect_url(""), &two.connect_url("")]);
    follow.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut follow = Follower(follow.spawn().expect("it starts"));
    let told = BufReader::new(follow.0.stderr.take().expect("piped"));
    let first = told.lines().next().expect("a line").expect("readable");
    assert_eq!(first, "following orders:7");
    assert_eq!(one.metric("fanfare_sessions").await, 1);
    let stdout = follow.0.stdout.take().expect("piped");
    let printing = tokio::task::spawn_blocking(|| printed(stdout));

    let load = Load::start(&two, "orders:7").await;
    load.goes_on(100).await;
    one.kill();
    until_joined_by(&two, "orders:7", 1).await;
    load.goes_on(100).await;
    let published = load.end().await;
    let printed = tokio::time::timeout(wait::PATIENCE, printing).await;
    assert_eq!(printed.expect("in time").expect("printed"), published);
}

#[tokio::test]
async fn a_token_that_has_ended_is_followed_by_another_and_nothing_is_lost() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let plan = Plan::with_config(&tokens::config_file(&directory));
    let node = plan.env("FANFARE_AUTH__EXPIRED_GRACE_S", "0").start().await;
    let calls_count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls_count);
    let token = Token::fetched(move || {
        let lives_s = if counted.fetch_add(1, Ordering::Relaxed) == 0 {
            2
        } else {
            600
        };
        let claims = json!({"sub": "ada", "exp": tokens::seconds_from_now(lives_s)});
        async move { Ok::<_, std::io::Error>(tokens::signed(&claims)) }
    });
    let options = Options {
        urls: vec![node.connect_url("")],
        token,
        ..Options::default()
    };
    let client = Client::connect(options).await.expect("connected");
    let mut topic = client.subscribe("t").await.expect("joined");
    for number in 0.. {
        let answer = http::post(
            node.api,
            "/v1/publish",
            &json!({"topic": "t", "data": number}),
        )
        .await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(data(&mut topic).await, number);
        if calls_count.load(Ordering::Relaxed) == 2 {
            break;
        }
    }
}

#[tokio::test]
async fn a_reader_that_does_not_read_is_left_and_gets_all_the_same() {
    const PUBLISHED: usize = 3 * ITEMS_MAX;
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("fanfare.toml");
    let text = "[namespaces.long]\nhistory_entries_max = 60000\nsubscribe = \"anyone\"\n";
    std::fs::write(&path, text).expect("the directory can be written");
    let plan = Plan::dev().flag(&format!("--config={}", path.display()));
    let node = plan.start().await;
    let client = client(&node).await;
    let mut long = client.subscribe("long:1").await.expect("joined");
    let numbers: Vec<_> = (0..PUBLISHED).collect();
    for numbers in numbers.chunks(ITEMS_MAX) {
        let items: Vec<_> = numbers
            .iter()
            .map(|n| json!({"topic": "long:1", "data": n}))
            .collect();
        let answer = http::post(node.api, "/v1/batch", &json!(items)).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    until_joined_by(&node, "long:1", 0).await;
    let (mut read, mut overflows) = (Vec::new(), 0);
    while read.len() < PUBLISHED {
        match next(&mut long).await {
            Item::Message(message) => read.push(message.data.read::<usize>().expect("a number")),
            Item::Overflowed { times } => overflows = times,
            other => panic!("unexpected: {other:?}"),
        }
    }
    assert_eq!(read, numbers);
    assert!(overflows >= 1);
}

#[tokio::test]
async fn a_slow_reader_of_a_topic_without_history_is_told_that_something_is_lost() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("fanfare.toml");
    let text = "[namespaces.live]\nhistory_entries_max = 0\nsubscribe = \"anyone\"\n";
    std::fs::write(&path, text).expect("the directory can be written");
    let plan = Plan::dev().flag(&format!("--config={}", path.display()));
    let node = plan.start().await;
    let client = client(&node).await;
    let mut live = client.subscribe("live:1").await.expect("joined");
    let publish = async |numbers: std::ops::Range<usize>| {
        let item = |n: usize| json!({"topic": "live:1", "data": n});
        let items: Vec<_> = numbers.map(item).collect();
        let answer = http::post(node.api, "/v1/batch", &json!(items)).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    };
    for turn in 0..2 {
        publish(turn * ITEMS_MAX..(turn + 1) * ITEMS_MAX).await;
    }
    until_joined_by(&node, "live:1", 0).await;
    for number in 0..ITEMS_MAX {
        assert_eq!(data(&mut live).await, number);
    }
    let told = next(&mut live).await;
    assert!(matches!(told, Item::Overflowed { times: 1 }), "{told:?}");
    let Item::Gap(gap) = next(&mut live).await else {
        panic!("no gap");
    };
    assert_eq!((gap.of, &*gap.reason), (None, "lost"));
    until_joined_by(&node, "live:1", 1).await;
    publish(5_000..5_001).await;
    assert_eq!(data(&mut live).await, 5_000);
}

#[tokio::test]
async fn what_is_published_once_is_kept_once_and_a_dropped_subscription_leaves() {
    let node = Plan::dev().start().await;
    let client = client(&node).await;
    let mut topic = client.subscribe("t").await.expect("joined");
    let order = json!({"state": "paid"});
    let publication = Publication::to("t", &order)
        .expect("data")
        .idempotency_key("k")
        .echo();
    let first = client
        .publish(publication.clone())
        .await
        .expect("published");
    let again = client.publish(publication).await.expect("published");
    assert!(!first.is_duplicate && again.is_duplicate);
    assert_eq!(first.position, again.position);
    assert_eq!(data(&mut topic).await, order);
    let history = History {
        topic: "t".to_owned(),
        ..History::default()
    };
    let page = client.history(history).await.expect("a page");
    assert_eq!((page.messages.len(), page.has_more), (1, false));
    assert_eq!(page.messages[0].position, first.position);
    drop(topic);
    until_joined_by(&node, "t", 0).await;

    let mut inbox = client.inbox().await.expect("an inbox");
    let answer = http::post(node.api, "/v1/publish", &json!({"user": "ada", "data": 1})).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let Item::Message(message) = next(&mut inbox).await else {
        panic!("no message");
    };
    let position = message.position.expect("an inbox has history");
    assert_eq!(client.ack(position).await.expect("acknowledged"), position);
}
