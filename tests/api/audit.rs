//! The audit: what is written before which call, what is refused where it cannot be, and its pages.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::body::Body;
use axum::http::Method;
use fanfare::broker::Broker;
use fanfare::broker::audit::AuditEntry;
use fanfare::broker::redis::RedisBroker;
use fanfare::config::api_clients::{ApiClient, ClientApp, Scopes, hash_of};
use fanfare::config::{self, Secret};
use fanfare::telemetry::labels::ApiRefusal;
use fanfare_protocol::ids::App;
use serde_json::{Value, json};

use crate::fixture::{Node, request, state};

async fn entries(node: &Node) -> Vec<(String, String)> {
    let told = node.broker.audited(None, 100).await.unwrap().into_iter();
    told.map(|one| (one.entry.operation, one.entry.target))
        .collect()
}

#[tokio::test]
async fn all_but_reads_and_publications_is_written_down() {
    let node = Node::start();
    let document: Value = serde_json::from_slice(&fanfare::api::openapi::text()).unwrap();
    let bodies = json!({
        "publish": {"topic": "t", "data": 1},
        "batch": [{"topic": "t", "data": 1}],
        "enqueue": {"topic": "t", "data": 1},
        "redrive_dead": {"why": "failed"},
        "revoke": {"all": true},
        "put_app": {},
    });
    let mut changing = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        let mut calls: Vec<_> = item.as_object().unwrap().iter().collect();
        // What is removed must be there.
        let order = ["put", "get", "post", "delete"];
        calls.sort_by_key(|(method, _)| order.iter().position(|one| method == one));
        for (method, call) in calls {
            let operation = call["operationId"].as_str().unwrap();
            let mut path = path
                .replace("{topic}", "t")
                .replace("{user}", "ada")
                .replace("{node}", "node-a")
                .replace("{app}", "shop");
            match operation {
                "get_route" => path += "?topic=t",
                "drop_dead" => path += "?all=true",
                _ => {}
            }
            let body = match &bodies[operation] {
                Value::Null => Body::empty(),
                body => Body::from(body.to_string()),
            };
            let method = Method::from_bytes(method.to_ascii_uppercase().as_bytes()).unwrap();
            if method != Method::GET {
                changing.insert(operation.to_owned());
            }
            let answer = node.send(request(method, &path, body)).await;
            assert!(answer.status.is_success(), "{path} {answer:?}");
        }
    }
    for published in ["publish", "batch", "enqueue"] {
        assert!(changing.remove(published), "{published}");
    }
    let written = entries(&node).await;
    let operations: BTreeSet<_> = written
        .iter()
        .map(|(operation, _)| operation.clone())
        .collect();
    assert_eq!(operations, changing);
    assert_eq!(written.len(), changing.len(), "each once: {written:?}");
    for wanted in [
        ("disconnect", r#"{"user":"ada"}"#),
        ("drain_node", r#"{"node":"node-a"}"#),
        ("drop_dead", r#"{"all":true}"#),
        ("redrive_dead", r#"{"why":"failed"}"#),
        ("revoke_user", r#"{"user":"ada","issued_before":"now"}"#),
        ("revoke", r#"{"all":true,"issued_before":"now"}"#),
    ] {
        let wanted = (wanted.0.to_owned(), wanted.1.to_owned());
        assert!(written.contains(&wanted), "{wanted:?} in {written:?}");
    }
}

#[tokio::test]
async fn what_was_not_done_for_what_was_asked_is_not_written_down() {
    let node = Node::start();
    let rows = [
        ("/v1/users/a b/disconnect", "", 400),
        ("/v1/nodes/none/drain", "", 404),
        ("/v1/queue/dead/redrive", "{}", 400),
    ];
    for (path, body, status) in rows {
        let path = path.replace(' ', "%20");
        let answer = node.post_text(&path, body.to_owned()).await;
        assert_eq!(answer.status.as_u16(), status, "{path}");
    }
    assert_eq!(entries(&node).await, []);
}

/// A node whose Redis never answers.
fn without_redis() -> Node {
    let (mut state, directory) = state();
    let redis = config::Redis {
        // The port of a service that nobody runs.
        url: Some(Secret("redis://127.0.0.1:9".into())),
        ..config::load::defaults().redis
    };
    let (broker, feed) = RedisBroker::start(&redis, Arc::clone(&state.metrics)).unwrap();
    // What it says is heard by nobody, and it must not find its feed closed.
    Box::leak(Box::new(feed));
    state.broker = Arc::new(Broker::Redis(broker));
    Node::of((state, directory))
}

#[tokio::test]
async fn what_cannot_be_written_down_is_not_done_but_a_node_may_leave() {
    let node = without_redis();
    for (path, body) in [
        ("/v1/users/ada/disconnect", ""),
        ("/v1/queue/dead/redrive", r#"{"all":true}"#),
    ] {
        let answer = node.post_text(path, body.to_owned()).await;
        assert_eq!(answer.error(), (503, "unavailable".into()), "{path}");
        let value = answer.value();
        let told = value["error"]["message"].as_str().unwrap();
        let begin = "the audit could not be written, so nothing was done: ";
        assert!(told.starts_with(begin), "{told}");
    }
    assert!(node.directory.disconnected.lock().unwrap().is_empty());
    assert_eq!(node.metrics.api.refused.of(ApiRefusal::Audit).get(), 2);
    let answer = node.post_text("/v1/nodes/node-a/drain", "").await;
    assert_eq!(answer.status.as_u16(), 200);
    assert_eq!(*node.directory.drained.lock().unwrap(), ["node-a"]);
}

/// It had one fewer than was asked for.
#[tokio::test]
async fn the_longest_page_of_the_audit_is_full() {
    let node = Node::start();
    for n in 0..1_001 {
        let entry = AuditEntry {
            time_ms: n,
            client: "billing".into(),
            app: "default".into(),
            operation: "disconnect".into(),
            target: String::new(),
            address: String::new(),
        };
        node.broker.audit(entry).await.unwrap();
    }
    let page = node.get("/v1/audit?limit=1000").await.value();
    assert_eq!(page["entries"].as_array().unwrap().len(), 1_000);
    assert_eq!(page["more"], true);
    let rest = format!(
        "/v1/audit?limit=1000&before={}",
        page["next"].as_str().unwrap()
    );
    let rest = node.get(&rest).await.value();
    assert_eq!(rest["entries"].as_array().unwrap().len(), 1);
    assert_eq!(rest["more"], false);
}

#[tokio::test]
async fn pages_of_the_audit_show_the_newest_first() {
    let node = Node::start();
    for n in 0..5 {
        let path = format!("/v1/users/u{n}/disconnect");
        assert_eq!(node.post_text(&path, "").await.status.as_u16(), 200);
    }
    let first = node.get("/v1/audit?limit=3").await.value();
    let targets = |page: &Value| -> Vec<String> {
        let entries = page["entries"].as_array().unwrap().iter();
        entries
            .map(|one| one["target"].as_str().unwrap().to_owned())
            .collect()
    };
    let told = |names: &[&str]| -> Vec<String> {
        let names = names.iter();
        names
            .map(|name| format!(r#"{{"user":"{name}"}}"#))
            .collect()
    };
    assert_eq!(targets(&first), told(&["u4", "u3", "u2"]));
    assert_eq!(first["more"], true);
    let entry = &first["entries"][0];
    assert_eq!(entry["client"], "api.keys");
    assert_eq!(entry["app"], "default");
    assert_eq!(entry["operation"], "disconnect");
    assert_eq!(entry["result"], "attempted");
    let next = first["next"].as_str().unwrap();
    let second = node
        .get(&format!("/v1/audit?limit=3&before={next}"))
        .await
        .value();
    assert_eq!(targets(&second), told(&["u1", "u0"]));
    assert_eq!(second["more"], false);
    assert!(second["next"].is_null());
    for (query, code) in [
        ("limit=0", "bad_request"),
        ("limit=1001", "limit_exceeded"),
        ("before=x", "bad_request"),
        ("after=1-1", "bad_request"),
    ] {
        let answer = node.get(&format!("/v1/audit?{query}")).await;
        assert_eq!(answer.error(), (400, code.into()), "{query}");
    }
}

#[tokio::test]
async fn a_client_of_one_app_sees_nothing_of_another() {
    let own = ApiClient {
        name: "own".into(),
        hashes: vec![hash_of(b"own")],
        app: ClientApp::One(App::default_app()),
        scopes: Scopes::all(),
        topics: None,
        expires: None,
    };
    let node = Node::with(|config| config.api.clients = vec![own]);
    let entry = |app: &str| fanfare::broker::audit::AuditEntry {
        time_ms: 1,
        client: "c".into(),
        app: app.into(),
        operation: "disconnect".into(),
        target: format!("of {app}"),
        address: String::new(),
    };
    for app in ["default", "shop"] {
        node.broker.audit(entry(app)).await.unwrap();
    }
    let seen = async |key: &str| {
        let mut request = request(Method::GET, "/v1/audit", Body::empty());
        let value = format!("Bearer {key}").parse().unwrap();
        request.headers_mut().insert("authorization", value);
        let entries = node.send(request).await.value()["entries"].clone();
        entries.as_array().unwrap().len()
    };
    assert_eq!(seen("own").await, 1);
    assert_eq!(seen(crate::fixture::KEY).await, 2);
}

#[tokio::test]
async fn an_entry_says_all_that_was_done_or_how_much_it_leaves_out() {
    let node = Node::start();
    let padding = "p".repeat(128);
    let mut ids: Vec<String> = (0..4).map(|n| format!("{padding:.127}{n}")).collect();
    ids.extend((0..90).map(|n| format!("victim-{n}")));
    let letters: Vec<_> = (0..1_000).map(|n| format!("0:{n}-0")).collect();
    let rows = [
        ("/v1/users/ada/revoke", json!({"issued_before": 7})),
        ("/v1/users/ada/revoke", json!({"issued_before": 8})),
        ("/v1/revoke", json!({"jti": ["a, all", "user ada"]})),
        ("/v1/revoke", json!({"jti": ids})),
        ("/v1/queue/dead/redrive", json!({"ids": letters})),
    ];
    for (path, body) in &rows {
        let answer = node.post(path, body).await;
        assert_eq!(answer.status.as_u16(), 200, "{path} {answer:?}");
    }
    let mut told = entries(&node).await;
    told.reverse();
    let targets: Vec<_> = told.iter().map(|(_, target)| target.as_str()).collect();
    assert_eq!(targets[0], r#"{"user":"ada","issued_before":7}"#);
    assert_eq!(targets[1], r#"{"user":"ada","issued_before":8}"#);
    assert_eq!(
        targets[2],
        r#"{"jti":["a, all","user ada"],"issued_before":"any"}"#
    );
    for (at, list, count, all) in [
        (3, "jti", 94, json!(ids)),
        (4, "ids", 1_000, json!(letters)),
    ] {
        let said: Value = serde_json::from_str(targets[at]).expect("whole, and not cut");
        assert_eq!(said[format!("{list}_count")], count, "{said}");
        let digest = hash_of(all.to_string().as_bytes());
        let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(said[format!("{list}_sha256")], digest, "{said}");
    }
}

#[tokio::test]
async fn a_client_that_changes_too_much_waits_and_others_do_not() {
    let own = |name: &str| ApiClient {
        name: name.into(),
        hashes: vec![hash_of(name.as_bytes())],
        ..ApiClient::with_key("")
    };
    let node = Node::with(|config| config.api.clients = vec![own("busy"), own("calm")]);
    let disconnect = async |key: &str| {
        let mut request = request(Method::POST, "/v1/users/ada/disconnect", Body::empty());
        let value = format!("Bearer {key}").parse().unwrap();
        request.headers_mut().insert("authorization", value);
        node.send(request).await
    };
    let mut refused = None;
    for _ in 0..2_000 {
        let answer = disconnect("busy").await;
        if answer.status.as_u16() != 200 {
            refused = Some(answer);
            break;
        }
    }
    let refused = refused.expect("it has a rate");
    assert_eq!(refused.error(), (429, "rate_limited".into()));
    assert!(refused.headers.contains_key("retry-after"));
    assert_eq!(disconnect("calm").await.status.as_u16(), 200);
    assert_eq!(node.metrics.api.refused.of(ApiRefusal::Acts).get(), 1);
    let done = node.directory.disconnected.lock().unwrap().len();
    assert_eq!(done, entries_of(&node).await, "what is refused is not done");
}

async fn entries_of(node: &Node) -> usize {
    node.broker.audited(None, 1_000).await.unwrap().len()
}
