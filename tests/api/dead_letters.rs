//! Dead letters over the API: what is told of them, redriven and dropped.
//!
//! In: entries of the tests, over the in-process broker, moved by the test as a node's consumer would
//! move them. Out: pages, counts, and what failed, by id.

use axum::body::Body;
use axum::http::Method;
use fanfare::broker::queue::entry::{encode_fields, of_fields};
use fanfare::broker::queue::{Content, HeldPartition, Judged, MoveBatch, Verdict, Why};
use fanfare::telemetry::text::{self, TextForm};
use fanfare_protocol::ids::Topic;
use serde_json::{Value, json};

use crate::fixture::{Answered, Node, request};
use crate::queue::unix_ms;

const PARTITIONS_COUNT: u32 = 256;

async fn delete(node: &Node, query: &str) -> Answered {
    let path = format!("/v1/queue/dead?{query}");
    node.send(request(Method::DELETE, &path, Body::empty()))
        .await
}

/// The ids of the letters of a page.
fn ids(page: &Value) -> Vec<String> {
    let letters = page["letters"].as_array().unwrap().iter();
    letters
        .map(|letter| letter["id"].as_str().unwrap().to_owned())
        .collect()
}

/// Makes dead letters of all entries that are due, each of this cause. Returns how many.
pub(crate) async fn bury(node: &Node, why: Why) -> usize {
    let held = (0..PARTITIONS_COUNT).map(|partition| HeldPartition {
        partition,
        token: 0,
    });
    let held: Vec<_> = held.collect();
    let mut count = 0;
    loop {
        let fetched = node.broker.fetch(&held, 0).await.unwrap();
        if fetched.entries.is_empty() {
            return count;
        }
        let judged = fetched.entries.into_iter().map(|entry| {
            let Content::Blob(kept) = entry.content else {
                panic!("the engine inside the process has bytes only");
            };
            let verdict = Verdict::Bury {
                why,
                error: "the test wants it".into(),
                kept,
            };
            Judged {
                partition: entry.partition,
                priority: entry.priority,
                id: entry.id,
                verdict,
            }
        });
        let entries: Vec<_> = judged.collect();
        count += entries.len();
        let batch = MoveBatch {
            place: fetched.place,
            held: held.clone(),
            entries,
        };
        node.broker.move_entries(batch).await.unwrap();
    }
}

/// Enqueues a message for each of these topics and buries it.
async fn buried(node: &Node, topics: &[&str], why: Why) {
    let body = json!({"topics": topics, "data": {"state": "paid"}, "priority": "high"});
    assert_eq!(node.post("/v1/queue", &body).await.status, 202);
    assert_eq!(bury(node, why).await, topics.len());
}

#[tokio::test]
async fn a_dead_letter_says_what_it_is_and_comes_in_pages() {
    let node = Node::start();
    let topics: Vec<_> = (0..40).map(|n| format!("t{n}")).collect();
    let topics: Vec<_> = topics.iter().map(String::as_str).collect();
    // More in one partition than are read at once.
    let topics = [&topics[..], &["one"; 40]].concat();
    buried(&node, &topics, Why::Failed).await;
    buried(&node, &["orders:7"], Why::Expired).await;
    let expired = node.get("/v1/queue/dead?why=expired").await.value();
    let letter = &expired["letters"][0];
    let partition = Topic::new(&fanfare_protocol::ids::App::default_app(), "orders:7");
    let partition = partition.unwrap().partition(PARTITIONS_COUNT);
    assert!(
        letter["id"]
            .as_str()
            .unwrap()
            .starts_with(&format!("{partition}:"))
    );
    assert_eq!(letter["topic"], "orders:7");
    assert_eq!(letter["priority"], "high");
    assert_eq!(letter["why"], "expired");
    assert_eq!(letter["error"], "the test wants it");
    assert_eq!(letter["data"], json!({"state": "paid"}));
    assert!(unix_ms() - letter["accepted"].as_u64().unwrap() < 60_000);
    assert!(letter.get("fields").is_none());
    assert_eq!(
        (&expired["more"], &expired["durable"]),
        (&json!(false), &json!(false))
    );
    assert!(expired.get("next").is_none() && expired.get("failed").is_none());

    let all = ids(&node.get("/v1/queue/dead?limit=1000").await.value());
    assert_eq!(all.len(), 81);
    let mut read = Vec::new();
    let mut after = String::new();
    loop {
        let page = node
            .get(&format!("/v1/queue/dead?limit=7{after}"))
            .await
            .value();
        read.extend(ids(&page));
        if page["more"] != true {
            break;
        }
        assert_eq!(page["next"].as_str(), read.last().map(String::as_str));
        after = format!("&after={}", page["next"].as_str().unwrap());
        assert_eq!(read.len() % 7, 0);
    }
    assert_eq!(read, all);
}

#[tokio::test]
async fn a_redriven_letter_is_an_entry_again_and_once_only() {
    let node = Node::start();
    let ends = unix_ms() + 40;
    let body = json!({"topic": "t", "data": 1, "expires_at": ends});
    assert_eq!(node.post("/v1/queue", &body).await.status, 202);
    bury(&node, Why::Expired).await;
    buried(&node, &["a", "b"], Why::Failed).await;
    while unix_ms() <= ends {
        tokio::task::yield_now().await;
    }
    let expired = node.get("/v1/queue/dead?why=expired").await.value();
    let id = &expired["letters"][0]["id"];
    let asked = json!({"ids": [id, "3:17-0", "70000:1-1"]});
    let answer = node.post("/v1/queue/dead/redrive", &asked).await;
    assert_eq!(answer.status, 200);
    let answer = answer.value();
    assert_eq!(
        (&answer["redriven"], &answer["more"]),
        (&json!(1), &json!(false))
    );
    let failed = answer["failed"].as_array().unwrap();
    let failed: Vec<_> = failed
        .iter()
        .map(|one| {
            (
                one["id"].as_str().unwrap(),
                one["error"]["code"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        failed,
        [("3:17-0", "not_found"), ("70000:1-1", "not_found")]
    );
    // It is gone, and again among the entries, where it does not end any more.
    assert_eq!(ids(&node.get("/v1/queue/dead").await.value()).len(), 2);
    let answer = node
        .post("/v1/queue/dead/redrive", &json!({"ids": [id]}))
        .await;
    assert_eq!(answer.value()["failed"][0]["error"]["code"], "not_found");
    assert_eq!(bury(&node, Why::Crashed).await, 1);

    let all = node
        .post("/v1/queue/dead/redrive", &json!({"why": "failed"}))
        .await;
    assert_eq!(
        all.value(),
        json!({"redriven": 2, "failed": [], "more": false, "durable": false})
    );
    let left = node.get("/v1/queue/dead").await.value();
    assert_eq!(left["letters"][0]["why"], "crashed");
    assert_eq!(ids(&left).len(), 1);
    let all = node
        .post("/v1/queue/dead/redrive", &json!({"all": true}))
        .await;
    assert_eq!(all.value()["redriven"], 1);
    assert_eq!(ids(&node.get("/v1/queue/dead").await.value()).len(), 0);
    assert_eq!(bury(&node, Why::Failed).await, 3);
}

#[tokio::test]
async fn a_letter_that_cannot_be_read_shows_its_fields_and_is_not_redriven() {
    let node = Node::start();
    let body = json!({"topic": "t", "data": 1});
    assert_eq!(node.post("/v1/queue", &body).await.status, 202);
    let fields = [("topic", "a b"), ("data", "1")].map(|(n, v)| (n.into(), v.into()));
    let held = [HeldPartition {
        partition: Topic::new(&fanfare_protocol::ids::App::default_app(), "t")
            .unwrap()
            .partition(PARTITIONS_COUNT),
        token: 0,
    }];
    let fetched = node.broker.fetch(&held, 0).await.unwrap();
    let entry = &fetched.entries[0];
    let why = of_fields(&fields, entry.id, entry.priority, |_| false).unwrap_err();
    let batch = MoveBatch {
        place: fetched.place,
        held: held.to_vec(),
        entries: vec![Judged {
            partition: entry.partition,
            priority: entry.priority,
            id: entry.id,
            verdict: Verdict::Bury {
                why: Why::BadEntry,
                error: why,
                kept: encode_fields(&fields).into(),
            },
        }],
    };
    node.broker.move_entries(batch).await.unwrap();
    let page = node.get("/v1/queue/dead").await.value();
    let letter = &page["letters"][0];
    assert_eq!(letter["fields"], json!([["topic", "a b"], ["data", "1"]]));
    assert_eq!(letter["why"], "bad_entry");
    assert!(letter.get("topic").is_none() && letter.get("data").is_none());
    assert!(letter["accepted"].is_u64());
    let answer = node
        .post("/v1/queue/dead/redrive", &json!({"all": true}))
        .await;
    let answer = answer.value();
    assert_eq!(answer["redriven"], 0);
    assert_eq!(answer["failed"][0]["error"]["code"], "bad_request");
    assert_eq!(answer["failed"][0]["id"], letter["id"]);
    assert_eq!(ids(&node.get("/v1/queue/dead").await.value()).len(), 1);
}

#[tokio::test]
async fn letters_are_dropped_by_id_by_cause_and_all() {
    let node = Node::start();
    buried(&node, &["a", "b", "c"], Why::Failed).await;
    buried(&node, &["d"], Why::Expired).await;
    let letters = ids(&node.get("/v1/queue/dead").await.value());
    let asked = format!("ids={},3:17-0,70000:1-1", letters[0]);
    let answer = delete(&node, &asked).await.value();
    assert_eq!(answer["dropped"], 1);
    assert_eq!(answer["failed"].as_array().unwrap().len(), 2);
    assert_eq!(answer["failed"][0]["error"]["code"], "not_found");
    let answer = delete(&node, "why=expired").await.value();
    let count = answer["dropped"].as_u64().unwrap();
    assert!(count <= 1, "the first may have been that one");
    let answer = delete(&node, "all=true").await.value();
    assert_eq!(
        answer,
        json!({"dropped": 3 - count, "failed": [], "more": false, "durable": false})
    );
    assert_eq!(ids(&node.get("/v1/queue/dead").await.value()).len(), 0);
}

/// Buries 1,200 entries, several in each partition.
async fn many_buried(node: &Node) {
    for part in 0..6 {
        let topics: Vec<_> = (0..200).map(|n| format!("t{part}-{n}")).collect();
        let topics: Vec<_> = topics.iter().map(String::as_str).collect();
        buried(node, &topics, Why::Failed).await;
    }
}

#[tokio::test]
async fn a_call_takes_up_to_a_thousand_letters_and_none_that_died_again_meanwhile() {
    let node = Node::start();
    many_buried(&node).await;
    let mut counts = Vec::new();
    let mut asked = json!({"all": true});
    loop {
        let answer = node.post("/v1/queue/dead/redrive", &asked).await.value();
        assert_eq!(answer["failed"], json!([]));
        let count = answer["redriven"].as_u64().unwrap();
        counts.push(count);
        // Each dies again before the next call.
        assert_eq!(bury(&node, Why::Failed).await as u64, count);
        if answer["more"] == false {
            assert!(answer.get("next").is_none());
            break;
        }
        asked["after"] = answer["next"].clone();
        assert!(counts.len() < 10, "it has no end: {counts:?}");
    }
    assert_eq!(counts.iter().sum::<u64>(), 1_200, "{counts:?}");
    assert_eq!(counts.len(), 2);
    assert!(counts[0] > 1_000 - 50 && counts[0] <= 1_000, "{counts:?}");

    let first = delete(&node, "why=failed").await.value();
    let dropped = first["dropped"].as_u64().unwrap();
    assert!(first["more"] == true && dropped <= 1_000, "{first}");
    let next = format!("why=failed&after={}", first["next"].as_str().unwrap());
    assert_eq!(
        delete(&node, &next).await.value()["dropped"],
        1_200 - dropped
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn each_letter_is_counted_by_one_call() {
    let node = std::sync::Arc::new(Node::start());
    many_buried(&node).await;
    let call = |is_drop: bool| {
        let node = std::sync::Arc::clone(&node);
        tokio::spawn(async move {
            let answer = match is_drop {
                true => delete(&node, "all=true").await.value(),
                false => {
                    let all = json!({"all": true});
                    node.post("/v1/queue/dead/redrive", &all).await.value()
                }
            };
            let count = |name: &str| answer[name].as_u64().unwrap_or(0);
            count("dropped") + count("redriven")
        })
    };
    let mut count = 0;
    let calls = [
        call(false),
        call(true),
        call(false),
        call(true),
        call(false),
    ];
    for call in calls {
        count += call.await.unwrap();
    }
    let left = ids(&node.get("/v1/queue/dead?limit=1000").await.value());
    assert_eq!(count, 1_200 - left.len() as u64);
}

#[tokio::test]
async fn what_is_done_with_letters_is_counted() {
    let node = Node::start();
    buried(&node, &["a"], Why::Failed).await;
    let metrics = &node.metrics;
    let all = json!({"all": true});
    let answer = node.post("/v1/queue/dead/redrive", &all).await.value();
    assert_eq!(
        (&answer["redriven"], &answer["durable"]),
        (&json!(1), &json!(false))
    );
    let told = || text::write(&metrics.queue.families(), TextForm::Prometheus);
    let told_before = told();
    let redriven = "fanfare_queue_redriven_total 1\n";
    assert!(told_before.contains(redriven), "{told_before}");
    assert_eq!(bury(&node, Why::Failed).await, 1);
    assert_eq!(delete(&node, "why=failed").await.value()["dropped"], 1);
    let told = told();
    assert!(told.contains("fanfare_queue_dropped_total 1\n"), "{told}");
}

#[tokio::test]
async fn a_full_queue_takes_no_letter_back() {
    let node = Node::start();
    buried(&node, &["a"], Why::Failed).await;
    node.directory.queue.lock().unwrap().told.later = 50_000;
    let answer = node
        .post("/v1/queue/dead/redrive", &json!({"all": true}))
        .await;
    let answer = answer.value();
    assert_eq!(answer["redriven"], 0);
    assert_eq!(answer["failed"][0]["error"]["code"], "rate_limited");
    assert_eq!(ids(&node.get("/v1/queue/dead").await.value()).len(), 1);
}

#[tokio::test]
async fn letters_that_are_named_wrongly_are_refused() {
    let node = Node::start();
    let many: Vec<_> = (0..1_001).map(|n| format!("0:{n}-0")).collect();
    let rows = [
        (json!({}), "bad_request"),
        (json!({"all": false}), "bad_request"),
        (json!({"all": true, "why": "failed"}), "bad_request"),
        (json!({"ids": []}), "bad_request"),
        (json!({"ids": ["x"]}), "bad_request"),
        (json!({"ids": ["1:2-3"], "after": "1:2-3"}), "bad_request"),
        (json!({"ids": "1:2-3"}), "bad_request"),
        (json!({"ids": many}), "limit_exceeded"),
        (json!({"why": "because"}), "bad_request"),
        (json!({"why": "failed", "after": "1-1"}), "bad_request"),
        (json!({"reason": "failed"}), "bad_request"),
    ];
    for (body, code) in rows {
        let error = node.post("/v1/queue/dead/redrive", &body).await.error();
        assert_eq!(error, (400, code.into()), "{body}");
    }
    let queries = [
        "",
        "all=false",
        "all=1",
        "why=x",
        "ids=",
        "ids=x",
        "id=1:2-3",
        "all=true&why=failed",
    ];
    for query in queries {
        assert_eq!(
            delete(&node, query).await.error(),
            (400, "bad_request".into()),
            "{query}"
        );
    }
    let pages = [
        ("limit=0", "bad_request"),
        ("limit=1001", "limit_exceeded"),
        ("after=1-1", "bad_request"),
        ("why=x", "bad_request"),
        ("since=1", "bad_request"),
    ];
    for (query, code) in pages {
        let error = node.get(&format!("/v1/queue/dead?{query}")).await.error();
        assert_eq!(error, (400, code.into()), "{query}");
    }
    assert_eq!(node.get("/v1/queue?partitions=yes").await.error().0, 400);
}
