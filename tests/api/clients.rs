//! Clients of the API: what each scope opens, what `topics` leaves, and how others are refused.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::{HeaderValue, Method, Request};
use fanfare::config::Api;
use fanfare::config::api_clients::{ApiClient, ClientApp, Scope, hash_of};
use fanfare::telemetry::labels::ApiRefusal;
use fanfare_protocol::ids::App;
use serde_json::{Value, json};

use crate::fixture::{Answered, KEY, Node, request, state};

/// Every call that asks the judge, with the scope that it needs. A test compares the paths with the
/// document.
const CALLS: [(&str, &str, &str, &str); 26] = [
    (
        "POST",
        "/v1/publish",
        r#"{"topic":"t","data":1}"#,
        "publish",
    ),
    (
        "POST",
        "/v1/batch",
        r#"[{"topic":"t","data":1}]"#,
        "publish",
    ),
    ("POST", "/v1/queue", r#"{"topic":"t","data":1}"#, "queue"),
    ("GET", "/v1/queue", "", "queue"),
    ("GET", "/v1/queue/dead", "", "queue"),
    ("DELETE", "/v1/queue/dead?all=true", "", "queue"),
    ("POST", "/v1/queue/dead/redrive", r#"{"all":true}"#, "queue"),
    ("GET", "/v1/topics", "", "read"),
    ("GET", "/v1/topics/t", "", "read"),
    ("GET", "/v1/topics/t/history", "", "read"),
    ("GET", "/v1/topics/t/presence", "", "read"),
    ("GET", "/v1/users/ada", "", "users"),
    ("GET", "/v1/users/ada/inbox", "", "read"),
    ("POST", "/v1/users/ada/disconnect", "", "users"),
    ("POST", "/v1/users/ada/revoke", "", "users"),
    ("POST", "/v1/revoke", r#"{"jti":["a"]}"#, "users"),
    ("GET", "/v1/nodes", "", "admin"),
    ("GET", "/v1/performance", "", "admin"),
    ("GET", "/v1/route?topic=t", "", "read"),
    ("GET", "/v1/route?user=ada", "", "read"),
    ("POST", "/v1/nodes/node-a/drain", "", "admin"),
    ("GET", "/v1/audit", "", "admin"),
    ("GET", "/v1/apps", "", "admin"),
    ("GET", "/v1/apps/default", "", "admin"),
    ("PUT", "/v1/apps/shop", "{}", "admin"),
    ("DELETE", "/v1/apps/shop", "", "admin"),
];

/// A client with the key of its name.
fn client(name: &str, scopes: &[Scope]) -> ApiClient {
    ApiClient {
        name: name.into(),
        hashes: vec![hash_of(name.as_bytes())],
        app: ClientApp::One(App::default_app()),
        scopes: scopes.iter().copied().collect(),
        topics: None,
        expires: None,
    }
}

fn node(clients: Vec<ApiClient>) -> Node {
    Node::with(|config| config.api.clients = clients)
}

/// A call with another key than the usual one.
fn call(key: &str, (method, path, body): (&str, &str, &str)) -> Request<Body> {
    let method = Method::from_bytes(method.as_bytes()).unwrap();
    let body = match body {
        "" => Body::empty(),
        text => Body::from(text.to_owned()),
    };
    let mut request = request(method, path, body);
    let value = HeaderValue::from_str(&format!("Bearer {key}")).unwrap();
    request.headers_mut().insert("authorization", value);
    request
}

fn message(answer: &Answered) -> String {
    let value = answer.value();
    value["error"]["message"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

#[tokio::test]
async fn each_call_needs_its_scope_and_no_other() {
    let clients = Scope::ALL.map(|scope| ApiClient {
        app: ClientApp::Any,
        ..client(scope.word(), &[scope])
    });
    let node = node(clients.to_vec());
    for (method, path, body, needed) in CALLS {
        for scope in Scope::ALL {
            let answer = node.send(call(scope.word(), (method, path, body))).await;
            if scope.word() == needed {
                assert!(answer.status.is_success(), "{path} {scope:?} {answer:?}");
                continue;
            }
            assert_eq!(
                answer.error(),
                (403, "forbidden".into()),
                "{path} {scope:?}"
            );
            let has = scope.word();
            let told = format!(
                "the API client `{has}` has not the scope `{needed}`, which this call needs"
            );
            assert_eq!(message(&answer), told);
        }
    }
    let refused = node.metrics.api.refused.of(ApiRefusal::Scope).get();
    assert_eq!(refused, 4 * CALLS.len() as u64);
}

#[tokio::test]
async fn every_documented_call_is_in_that_table() {
    let document: Value = serde_json::from_slice(&fanfare::api::openapi::text()).unwrap();
    let mut documented = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in item.as_object().unwrap().keys() {
            documented.push((method.to_ascii_uppercase(), path.clone()));
        }
    }
    documented.retain(|(_, path)| path.starts_with("/v1/"));
    let named = |path: &str| {
        let path = path.split('?').next().unwrap();
        let path = path.replace("/topics/t", "/topics/{topic}");
        let path = path.replace("/users/ada", "/users/{user}");
        let path = path.replace("/apps/default", "/apps/{app}");
        let path = path.replace("/apps/shop", "/apps/{app}");
        path.replace("/nodes/node-a", "/nodes/{node}")
    };
    let mut known: Vec<_> = CALLS
        .iter()
        .map(|(method, path, ..)| ((*method).to_owned(), named(path)))
        .collect();
    known.sort();
    known.dedup();
    documented.sort();
    assert_eq!(documented, known);
}

#[tokio::test]
async fn a_client_with_topics_names_no_others() {
    let bound = ApiClient {
        topics: Some(vec!["orders:**".into(), "@ada".into()]),
        ..client("bound", &Scope::ALL)
    };
    let node = node(vec![bound]);
    let denied = "the `topics` of the API client `bound` do not allow this one";
    let rows = [
        ("GET", "/v1/topics/orders:7", true),
        ("GET", "/v1/topics/orders", false),
        ("GET", "/v1/topics/orders:7/history", true),
        ("GET", "/v1/topics/t/history", false),
        ("GET", "/v1/topics/orders:7/presence", true),
        ("GET", "/v1/topics/t/presence", false),
        ("GET", "/v1/topics/@ada/history", true),
        ("GET", "/v1/topics/@bob/history", false),
        ("GET", "/v1/topics/@/history", false),
        ("GET", "/v1/users/ada", true),
        ("GET", "/v1/users/bob", false),
        ("GET", "/v1/users/ada/inbox", true),
        ("GET", "/v1/users/bob/inbox", false),
        ("POST", "/v1/users/ada/disconnect", true),
        ("POST", "/v1/users/bob/disconnect", false),
        ("GET", "/v1/route?topic=orders:7", true),
        ("GET", "/v1/route?topic=t", false),
        ("GET", "/v1/route?user=bob", false),
    ];
    for (method, path, may) in rows {
        let answer = node.send(call("bound", (method, path, ""))).await;
        if may {
            assert!(answer.status.is_success(), "{path} {answer:?}");
        } else {
            assert_eq!(answer.error(), (403, "forbidden".into()), "{path}");
            assert_eq!(message(&answer), denied, "{path}");
        }
    }
    assert_eq!(*node.directory.disconnected.lock().unwrap(), ["ada"]);
    let all = "the API client `bound` is bound to its `topics`, and this call is about all of them";
    for (method, path, body) in [
        ("GET", "/v1/topics", ""),
        ("GET", "/v1/queue/dead", ""),
        ("DELETE", "/v1/queue/dead?all=true", ""),
        ("POST", "/v1/queue/dead/redrive", r#"{"all":true}"#),
        ("GET", "/v1/audit", ""),
    ] {
        let answer = node.send(call("bound", (method, path, body))).await;
        assert_eq!(answer.error(), (403, "forbidden".into()), "{path}");
        assert_eq!(message(&answer), all, "{path}");
    }
}

#[tokio::test]
async fn targets_that_a_client_may_not_are_refused_alone_and_nothing_goes_there() {
    let bound = ApiClient {
        topics: Some(vec!["orders:**".into()]),
        ..client("bound", &[Scope::Publish, Scope::Queue])
    };
    let node = node(vec![bound]);
    let body = json!({"topics": ["orders:7", "t", "@ada", "@"], "data": 1}).to_string();
    for (path, done) in [("/v1/publish", 200), ("/v1/queue", 202)] {
        let answer = node.send(call("bound", ("POST", path, &body))).await;
        assert_eq!(answer.status.as_u16(), done);
        let value = answer.value();
        assert_eq!(value["failed"], 3, "{value}");
        let results = value["results"].as_array().unwrap();
        let codes: Vec<_> = results
            .iter()
            .map(|one| one["error"]["code"].clone())
            .collect();
        let forbidden = json!("forbidden");
        assert_eq!(
            codes[1..],
            [forbidden.clone(), forbidden.clone(), forbidden],
            "{path}"
        );
        assert!(codes[0].is_null(), "{path}");
        let topics: Vec<_> = results.iter().map(|one| one["topic"].clone()).collect();
        assert_eq!(
            topics,
            ["orders:7", "t", "@ada", "@"].map(|name| json!(name))
        );
    }
    let one = json!({"topic": "t", "data": 1}).to_string();
    for path in ["/v1/publish", "/v1/queue"] {
        let answer = node.send(call("bound", ("POST", path, &one))).await;
        assert_eq!(answer.error(), (403, "forbidden".into()), "{path}");
    }
    for name in ["t", "@ada"] {
        let history = node
            .get(&format!("/v1/topics/{name}/history"))
            .await
            .value();
        assert_eq!(history["publications"], json!([]), "{name}");
    }
    let queue = node.get("/v1/queue?partitions=true").await.value();
    let partitions = queue["partitions"].as_array().unwrap();
    assert_eq!(partitions.len(), 1, "{queue}");
}

#[tokio::test]
async fn a_client_that_is_over_or_of_another_app_is_told_so() {
    let of = |app: &str| ClientApp::One(App::new(app).unwrap());
    let expired = ApiClient {
        expires: Some(1_700_000_000),
        ..client("old", &Scope::ALL)
    };
    let removed = ApiClient {
        app: of("gone"),
        ..client("lost", &Scope::ALL)
    };
    let any = ApiClient {
        app: ClientApp::Any,
        ..client("any", &Scope::ALL)
    };
    let node = node(vec![expired, removed, any, client("own", &Scope::ALL)]);
    let rows = [
        (
            "old",
            None,
            401,
            "unauthorized",
            "the keys of the API client `old` have expired",
        ),
        ("lost", None, 404, "not_found", "there is no app `gone`"),
        (
            "any",
            Some("shop"),
            404,
            "not_found",
            "there is no app `shop`",
        ),
        (
            "own",
            Some("shop"),
            403,
            "forbidden",
            "the API client `own` is of another app than `Fanfare-App` names",
        ),
        (
            "any",
            Some("Shop"),
            400,
            "bad_request",
            "`Fanfare-App` must be there once and name an app: 1 to 32 of a-z 0-9 _ -",
        ),
    ];
    for (key, app, status, code, told) in rows {
        let mut request = call(key, ("GET", "/v1/nodes", ""));
        if let Some(app) = app {
            request
                .headers_mut()
                .insert("fanfare-app", app.parse().unwrap());
        }
        let answer = node.send(request).await;
        assert_eq!(answer.error(), (status, code.into()), "{key} {app:?}");
        assert_eq!(message(&answer), told);
    }
}

#[tokio::test]
async fn a_call_may_name_its_own_app_once() {
    let any = ApiClient {
        app: ClientApp::Any,
        ..client("any", &Scope::ALL)
    };
    let node = node(vec![any, client("own", &Scope::ALL)]);
    for (key, app) in [("any", "default"), ("own", "default"), (KEY, "default")] {
        let mut request = call(key, ("GET", "/v1/nodes", ""));
        request
            .headers_mut()
            .insert("fanfare-app", app.parse().unwrap());
        assert_eq!(node.send(request).await.status.as_u16(), 200, "{key}");
    }
    let mut twice = call("any", ("GET", "/v1/nodes", ""));
    for app in ["default", "default"] {
        twice
            .headers_mut()
            .append("fanfare-app", app.parse().unwrap());
    }
    assert_eq!(node.send(twice).await.error(), (400, "bad_request".into()));
}

#[tokio::test]
async fn wrong_keys_get_429_after_twenty_and_a_right_one_never() {
    let node = Node::start();
    let [here, there] = ["192.0.2.1", "192.0.2.2"].map(|text| text.parse::<IpAddr>().unwrap());
    let (here, there) = (node.api.to_peer(here), node.api.to_peer(there));
    let ask = async |api: &fanfare::api::Api, key: &str| {
        let mut request = call(key, ("GET", "/v1/nodes", ""));
        request
            .headers_mut()
            .insert("host", "fanfare.test".parse().unwrap());
        let response = api.answer(request).await;
        let retry = response.headers().get("retry-after");
        let retry = retry.map(|value| value.to_str().unwrap().parse::<u64>().unwrap());
        (response.status().as_u16(), retry)
    };
    for n in 0..20 {
        assert_eq!(ask(&here, &format!("wrong-{n}")).await, (401, None), "{n}");
    }
    for n in 20..22 {
        let begun = Instant::now();
        let (status, retry) = ask(&here, &format!("wrong-{n}")).await;
        assert_eq!(status, 429, "{n}");
        let waited = begun.elapsed();
        assert!(waited >= Duration::from_millis(900), "its turn: {waited:?}");
        let begun = Instant::now();
        assert!((1..=60).contains(&retry.unwrap()), "{retry:?}");
        assert_eq!(
            ask(&here, KEY).await,
            (200, None),
            "a right key at any time"
        );
        assert!(begun.elapsed() < Duration::from_millis(900), "and at once");
    }
    assert_eq!(ask(&there, "wrong").await, (401, None));
    // No key is no guess.
    let mut keyless = Request::get("/v1/nodes").body(Body::empty()).unwrap();
    keyless
        .headers_mut()
        .insert("host", "fanfare.test".parse().unwrap());
    assert_eq!(here.answer(keyless).await.status().as_u16(), 401);
    let refused = &node.metrics.api.refused;
    assert_eq!(refused.of(ApiRefusal::WrongKey).get(), 23);
    assert_eq!(refused.of(ApiRefusal::TooMany).get(), 2);
    assert_eq!(refused.of(ApiRefusal::NoKey).get(), 1);
}

#[tokio::test]
async fn all_tokens_are_revoked_by_an_operator_alone_and_not_for_days() {
    let node = node(vec![
        client("support", &[Scope::Users]),
        client("operator", &[Scope::Users, Scope::Admin]),
    ]);
    let week = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs() + 600_000;
    let all = r#"{"all":true}"#;
    let answer = node
        .send(call("support", ("POST", "/v1/revoke", all)))
        .await;
    assert_eq!(answer.error(), (403, "forbidden".into()));
    let told = "the API client `support` has not the scope `admin`, which this call needs";
    assert_eq!(message(&answer), told);
    let ahead = json!({"all": true, "issued_before": week}).to_string();
    let answer = node
        .send(call("operator", ("POST", "/v1/revoke", &ahead)))
        .await;
    assert_eq!(answer.error(), (400, "bad_request".into()));
    let told = "`issued_before` must be a time in unix seconds, from 1 to 300 seconds from now";
    assert_eq!(message(&answer), told);
    assert!(node.directory.revoked.lock().unwrap().is_empty());
    let answer = node
        .send(call("operator", ("POST", "/v1/revoke", all)))
        .await;
    assert!(answer.status.is_success(), "{answer:?}");
}

fn of_all_apps(client: ApiClient) -> ApiClient {
    ApiClient {
        app: ClientApp::Any,
        ..client
    }
}

#[tokio::test]
async fn a_key_that_is_taken_out_while_the_body_comes_does_nothing() {
    for (method, path, body, scope) in CALLS {
        if body.is_empty() {
            continue;
        }
        let (mut state, directory) = state();
        let api = |clients| Api {
            clients,
            ..state.config.api.clone()
        };
        let (with, without) = (
            api(vec![of_all_apps(client("leaving", &Scope::ALL))]),
            api(vec![of_all_apps(client("leaving", &[]))]),
        );
        let gone = api(Vec::new());
        state.keys = Arc::new(fanfare::api::keys::ApiKeys::new(&with));
        let keys = Arc::clone(&state.keys);
        let node = Node::of((state, directory));
        for (now, wanted) in [
            (&gone, (401, "unauthorized")),
            (&without, (403, "forbidden")),
        ] {
            keys.replace(&with);
            let (send, receive) = tokio::sync::oneshot::channel::<()>();
            let bytes = body.to_owned();
            let late = futures_util::stream::once(async move {
                receive.await.expect("the test goes on");
                Ok::<_, std::io::Error>(bytes)
            });
            let mut request = call("leaving", (method, path, ""));
            *request.body_mut() = Body::from_stream(late);
            let mut asked = Box::pin(node.send(request));
            let early = tokio::time::timeout(Duration::from_millis(20), &mut asked).await;
            assert!(early.is_err(), "{path} waits for its body");
            keys.replace(now);
            send.send(()).expect("it still waits");
            let (status, code) = wanted;
            assert_eq!(asked.await.error(), (status, code.into()), "{path} {scope}");
        }
        assert!(node.directory.revoked.lock().unwrap().is_empty(), "{path}");
        let history = node.broker.audited(None, 10).await.unwrap();
        assert!(history.is_empty(), "{path}: {history:?}");
        let history = node.get("/v1/topics/t/history").await.value();
        assert_eq!(history["publications"], json!([]), "{path}");
    }
}

#[tokio::test]
async fn idempotency_keys_are_of_one_client() {
    let node = node(vec![
        client("one", &[Scope::Publish, Scope::Queue]),
        client("two", &[Scope::Publish, Scope::Queue]),
    ]);
    let body = json!({"topic": "t", "data": 1, "idempotency_key": "order-7-paid"}).to_string();
    for path in ["/v1/publish", "/v1/queue"] {
        for (key, is_repeated) in [("one", false), ("two", false), ("one", true), ("two", true)] {
            let answer = node.send(call(key, ("POST", path, &body))).await.value();
            let duplicate = answer["results"][0]["duplicate"].as_bool().unwrap_or(false);
            assert_eq!(duplicate, is_repeated, "{path} {key}: {answer}");
        }
    }
}
