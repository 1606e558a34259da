//! What callers can see: topics, history, members, users, nodes, routes.

use fanfare::api::state::NodeSessions;
use fanfare_protocol::event::Member;
use fanfare_protocol::ids::{App, SessionId, Topic};
use fanfare_protocol::info::Info;
use serde_json::{Value, json};

use crate::fixture::{Mood, Node};

fn topic(name: &str) -> Topic {
    Topic::new(&App::default_app(), name).unwrap()
}

fn sessions(node: &str, sessions: u64) -> NodeSessions {
    NodeSessions {
        node: node.into(),
        sessions,
    }
}

async fn publish(node: &Node, topic: &str, count: u64) -> Vec<String> {
    let items: Vec<_> = (0..count)
        .map(|n| json!({"topic": topic, "data": n}))
        .collect();
    let answer = node.post("/v1/batch", &json!(items)).await.value();
    let results = answer["results"].as_array().unwrap().iter();
    results
        .map(|item| item["results"][0]["position"].as_str().unwrap().to_owned())
        .collect()
}

fn data(page: &Value) -> Vec<u64> {
    let publications = page["publications"].as_array().unwrap().iter();
    publications
        .map(|message| message["data"].as_u64().unwrap())
        .collect()
}

#[tokio::test]
async fn history_is_read_page_by_page_in_both_directions() {
    let node = Node::start();
    let positions = publish(&node, "a/b=c,d~#", 10).await;
    // The name is percent-encoded where the path needs it.
    let path = "/v1/topics/a%2Fb%3Dc%2Cd~%23/history";
    let page = node.get(path).await.value();
    assert_eq!(
        (data(&page), &page["more"]),
        ((0..10).collect(), &json!(false))
    );

    let of = async |query: &str| node.get(&format!("{path}?{query}")).await.value();
    let page = of("limit=4").await;
    assert_eq!(
        (data(&page), &page["more"]),
        (vec![0, 1, 2, 3], &json!(true))
    );
    let last = page["publications"][3]["position"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(
        data(&of(&format!("limit=4&since={last}")).await),
        [4, 5, 6, 7]
    );
    let page = of("limit=3&reverse=true").await;
    assert_eq!((data(&page), &page["more"]), (vec![9, 8, 7], &json!(true)));
    let page = of(&format!("reverse=true&until={}&limit=2", positions[7])).await;
    assert_eq!(data(&page), [6, 5]);
    let page = of(&format!("since={}&until={}", positions[2], positions[5])).await;
    assert_eq!((data(&page), &page["more"]), (vec![3, 4], &json!(false)));
}

#[tokio::test]
async fn messages_past_their_end_are_left_out_and_do_not_end_a_page() {
    let node = Node::start();
    // Ended as soon as the clock has moved on: `ttl_ms` 0 ends within the millisecond.
    for _ in 0..5 {
        let body = json!({"topic": "t", "data": 0, "ttl_ms": 0});
        assert_eq!(node.post("/v1/publish", &body).await.status, 200);
    }
    publish(&node, "t", 2).await;
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    loop {
        let page = node.get("/v1/topics/t/history?limit=2").await.value();
        if data(&page) == [0, 1] && page["more"] == false {
            break;
        }
        assert!(std::time::Instant::now() < deadline, "{page}");
    }
}

#[tokio::test]
async fn live_topics_are_listed_page_by_page_with_counts() {
    let node = Node::start();
    for (name, nodes) in [
        ("a", vec![sessions("node-a", 2), sessions("node-b", 3)]),
        ("b", vec![sessions("node-a", 1)]),
        ("@u", vec![sessions("node-b", 1)]),
    ] {
        node.directory
            .occupancy
            .lock()
            .unwrap()
            .insert(topic(name), nodes);
    }
    let page = node.get("/v1/topics?limit=2").await.value();
    let wanted = json!({"topics": [
        {"topic": "@u", "sessions": 1, "nodes": 1}, {"topic": "a", "sessions": 5, "nodes": 2},
    ], "next": "a"});
    assert_eq!(page, wanted);
    let page = node.get("/v1/topics?limit=2&after=a").await.value();
    let wanted = json!({"topics": [{"topic": "b", "sessions": 1, "nodes": 1}]});
    assert_eq!(page, wanted);
}

#[tokio::test]
async fn a_topic_tells_who_joined_it_and_its_newest_position() {
    let node = Node::start();
    let nodes = vec![sessions("node-a", 2), sessions("node-b", 3)];
    node.directory
        .occupancy
        .lock()
        .unwrap()
        .insert(topic("orders:7"), nodes);
    let positions = publish(&node, "orders:7", 2).await;
    let answer = node.get("/v1/topics/orders:7").await.value();
    let partition = topic("orders:7").partition(256);
    assert_eq!(
        answer,
        json!({
            "topic": "orders:7", "namespace": "orders", "sessions": 5,
            "nodes": [{"node": "node-a", "sessions": 2}, {"node": "node-b", "sessions": 3}],
            "position": positions[1], "home": {"node": "node-a", "partition": partition},
            "history": {"entries_max": 100, "age_ms": 3_600_000},
        })
    );
    let nobody = node.get("/v1/topics/never-seen").await.value();
    assert_eq!(
        (&nobody["sessions"], &nobody["position"]),
        (&json!(0), &Value::Null)
    );
}

#[tokio::test]
async fn members_are_listed_page_by_page() {
    let node = Node::start();
    let owner = "node-a~7".parse().unwrap();
    for n in 1..=3 {
        let member = Member {
            user: Some(format!("user-{n}")),
            session: SessionId(n),
            info: (n == 1).then(|| Info::from(&json!({"name": "One"}))),
        };
        node.broker
            .enter(&topic("room"), &member, &owner, 1)
            .await
            .unwrap();
    }
    let page = node.get("/v1/topics/room/presence?limit=2").await.value();
    assert_eq!((&page["count"], &page["more"]), (&json!(3), &json!(true)));
    assert_eq!(page["members"][0]["info"], json!({"name": "One"}));
    assert!(page["position"].is_string());
    let after = page["members"][1]["session"].as_str().unwrap();
    let path = format!("/v1/topics/room/presence?after={after}");
    let page = node.get(&path).await.value();
    assert_eq!(page["members"][0]["user"], "user-3");
    assert_eq!(
        (page["members"].as_array().unwrap().len(), &page["more"]),
        (1, &json!(false))
    );
}

#[tokio::test]
async fn a_user_has_sessions_and_an_inbox_with_a_cursor() {
    let node = Node::start();
    let inbox = topic("@auth0|x");
    let nodes = vec![sessions("node-b", 2)];
    node.directory
        .occupancy
        .lock()
        .unwrap()
        .insert(inbox.clone(), nodes);
    let positions = publish(&node, "@auth0|x", 3).await;
    let retention = fanfare::config::Retention {
        entries_max: 100,
        age_ms: 3_600_000,
    };
    let cursor = positions[0].parse().unwrap();
    node.broker
        .ack(&inbox, cursor, SessionId(1), retention)
        .await
        .unwrap();

    let user = node.get("/v1/users/auth0%7Cx").await.value();
    assert_eq!(
        user,
        json!({
            "user": "auth0|x", "sessions": 2, "nodes": [{"node": "node-b", "sessions": 2}],
            "home": {"node": "node-a", "partition": inbox.partition(256)},
        })
    );
    let answer = node.get("/v1/users/auth0%7Cx/inbox?limit=2").await.value();
    assert_eq!(answer["topic"], "@auth0|x");
    assert_eq!(answer["position"], positions[0]);
    assert_eq!(answer["last"], positions[2]);
    assert_eq!(answer["pending"], 2);
    assert_eq!((data(&answer), &answer["more"]), (vec![0, 1], &json!(true)));
    let unknown = node.get("/v1/users/nobody/inbox").await.value();
    assert_eq!(
        (&unknown["position"], &unknown["pending"]),
        (&json!("0-0"), &json!(0))
    );
}

#[tokio::test]
async fn disconnect_is_told_to_the_node_for_the_named_user_only() {
    let node = Node::start();
    let answer = node.post_text("/v1/users/auth0%7Cx/disconnect", "").await;
    assert_eq!(
        (answer.status.as_u16(), answer.value()),
        (200, json!({"user": "auth0|x"}))
    );
    assert_eq!(*node.directory.disconnected.lock().unwrap(), ["auth0|x"]);
}

#[tokio::test]
async fn a_node_that_is_there_is_told_to_leave_and_no_other() {
    let node = Node::start();
    let answer = node.post_text("/v1/nodes/node-a/drain", "").await;
    let told = (answer.status.as_u16(), answer.value());
    assert_eq!(told, (200, json!({"node": "node-a"})));
    let answer = node.post_text("/v1/nodes/node-z/drain", "").await;
    assert_eq!(answer.error(), (404, "not_found".into()));
    assert_eq!(*node.directory.drained.lock().unwrap(), ["node-a"]);
}

#[tokio::test]
async fn nodes_and_routes_are_those_of_the_directory() {
    let node = Node::start();
    let nodes = node.get("/v1/nodes").await.value();
    assert_eq!(
        nodes,
        json!({"partitions": 256, "nodes": [{
            "node": "node-a", "url": "wss://a.example", "state": "ready", "sessions": 3, "share": 1.0,
            "partitions": 4, "partition_ranges": "0-2,7",
            "incarnation": 7, "version": "0.1.0", "started_ms": 5, "age_ms": 40, "fresh": true,
        }]})
    );
    let by_user = node.get("/v1/route?user=alice").await.value();
    let partition = topic("@alice").partition(256);
    assert_eq!(by_user, json!({"node": "node-a", "partition": partition}));
    let by_topic = node.get("/v1/route?topic=%40alice").await.value();
    assert_eq!(by_topic, by_user);
}

#[tokio::test]
async fn a_lost_answer_of_the_broker_says_that_the_outcome_is_unknown() {
    let node = Node::start();
    node.set(Mood::Lost);
    let answer = node.post_text("/v1/users/u/disconnect", "").await;
    assert_eq!(answer.error(), (503, "unavailable".into()));
    assert_eq!(answer.headers["retry-after"], "1");
    let message = answer.value()["error"]["message"].to_string();
    assert!(message.contains("unknown"), "{message}");
}
