//! Apps over the API: set, shown and removed, what is refused and how, and that nothing of one app is
//! told to another.

use axum::body::Body;
use axum::http::Method;
use fanfare::api::state::NodeSessions;
use fanfare::broker::queue::Why;
use fanfare::config::Config;
use fanfare::config::api_clients::{ApiClient, ClientApp, Scope, hash_of};
use fanfare::config::app::AppSettings;
use fanfare_protocol::ids::{App, Topic};
use fanfare_testkit::wait;
use serde_json::{Value, json};

use crate::dead_letters::bury;
use crate::fixture::{Answered, Node, request};

const SECRET: &str = "hunter2-hunter2-hunter2-hunter2-";

fn app(name: &str) -> App {
    App::new(name).unwrap()
}

/// A client with the key of its name and every scope.
fn client(name: &str, of: ClientApp) -> ApiClient {
    ApiClient {
        name: name.into(),
        hashes: vec![hash_of(name.as_bytes())],
        app: of,
        scopes: Scope::ALL.into_iter().collect(),
        topics: None,
        expires: None,
    }
}

/// A node whose file has the app `filed`, with clients `any`, `filed` and `default`.
fn node() -> Node {
    Node::with(|config: &mut Config| {
        let settings = AppSettings::of_default(config);
        config.apps.insert(app("filed"), settings);
        config.api.clients = vec![
            client("any", ClientApp::Any),
            client("filed", ClientApp::One(app("filed"))),
            client("shop", ClientApp::One(app("shop"))),
            client("default", ClientApp::One(App::default_app())),
        ];
    })
}

/// A call with a client's key, for an app where one is named.
async fn send(
    node: &Node,
    (key, of): (&str, Option<&str>),
    (method, path, body): (&str, &str, &str),
) -> Answered {
    let mut request = request(method.parse().unwrap(), path, Body::from(body.to_owned()));
    let headers = request.headers_mut();
    headers.insert("authorization", format!("Bearer {key}").parse().unwrap());
    if let Some(of) = of {
        headers.insert("fanfare-app", of.parse().unwrap());
    }
    node.send(request).await
}

async fn put(node: &Node, name: &str, body: &Value) -> Answered {
    let path = format!("/v1/apps/{name}");
    node.send(request(Method::PUT, &path, Body::from(body.to_string())))
        .await
}

async fn delete(node: &Node, name: &str) -> Answered {
    let path = format!("/v1/apps/{name}");
    node.send(request(Method::DELETE, &path, Body::empty()))
        .await
}

fn told(answer: &Answered) -> (u16, String, String) {
    let (status, code) = answer.error();
    let value = answer.value();
    (
        status,
        code,
        value["error"]["message"].as_str().unwrap().to_owned(),
    )
}

#[tokio::test]
async fn an_app_is_set_shown_without_its_secret_changed_and_removed() {
    let node = node();
    let settings = json!({
        "auth": {"keys": [{"id": "k", "algorithm": "HS256", "secret": SECRET}], "anonymous": true},
        "namespaces": {"chat": {"presence": true}},
    });
    let set = put(&node, "shop", &settings).await;
    assert_eq!(set.value(), json!({"app": "shop", "changed": true}));
    let again = put(&node, "shop", &settings).await;
    assert_eq!(again.value(), json!({"app": "shop", "changed": false}));
    let shown = node.get("/v1/apps/shop").await;
    assert!(!String::from_utf8_lossy(&shown.bytes).contains("hunter2"));
    let mut hidden = settings.clone();
    hidden["auth"]["keys"][0]["secret"] = "***".into();
    let wanted = json!({
        "app": "shop", "source": "api", "stored": true, "faulty": false, "settings": hidden,
    });
    assert_eq!(shown.value(), wanted);
    // What is shown is not taken for a secret.
    let back = told(&put(&node, "shop", &hidden).await);
    assert_eq!((back.0, &*back.1), (400, "bad_request"), "{back:?}");
    let list = node.get("/v1/apps").await.value();
    let row = |name: &str, source: &str, stored: bool| json!({"app": name, "source": source, "stored": stored, "faulty": false});
    let rows = [
        row("default", "node", false),
        row("filed", "file", false),
        row("shop", "api", true),
    ];
    assert_eq!(list, json!({"apps": rows}));
    let page = node.get("/v1/apps?limit=2").await.value();
    assert_eq!(page, json!({"apps": rows[..2], "next": "filed"}));
    let page = node.get("/v1/apps?limit=2&after=filed").await.value();
    assert_eq!(page, json!({"apps": rows[2..]}));
}

#[tokio::test]
async fn a_stored_app_is_in_force_until_it_is_removed_and_both_are_in_the_audit() {
    let node = node();
    let of_shop = async || send(&node, ("shop", None), ("GET", "/v1/topics/t", "")).await;
    let gone = (404, "not_found".into(), "there is no app `shop`".into());
    assert_eq!(told(&of_shop().await), gone);
    assert!(put(&node, "shop", &json!({})).await.status.is_success());
    assert_eq!(of_shop().await.status.as_u16(), 200, "its client is known");
    // A client of all apps may name it.
    let named = ("any", Some("shop"));
    let history = send(&node, named, ("GET", "/v1/topics/t/history", "")).await;
    assert_eq!(history.status.as_u16(), 200);
    assert_eq!(delete(&node, "shop").await.value(), json!({"app": "shop"}));
    assert_eq!(told(&delete(&node, "shop").await), gone);
    assert_eq!(told(&node.get("/v1/apps/shop").await), gone);
    assert_eq!(told(&of_shop().await), gone);
    let audit = node.get("/v1/audit").await.value();
    let entries = audit["entries"].as_array().unwrap().iter().rev();
    let entries: Vec<_> = entries
        .map(|one| (&one["operation"], &one["target"]))
        .collect();
    let shop = json!(json!({"app": "shop"}).to_string());
    let (put, delete) = (json!("put_app"), json!("delete_app"));
    assert_eq!(entries, [(&put, &shop), (&delete, &shop), (&delete, &shop)]);
}

#[tokio::test]
async fn what_cannot_be_set_is_told_exactly() {
    let node = node();
    let of_default = "the app `default` has the sections of the node ([auth], [namespaces], [inbox], \
                      [everyone]), and cannot be set or removed";
    let in_file = "the app `filed` is in the file of this node as [apps.filed], and the file wins: \
                   change it there, or take it out";
    let name = "the name of an app is 1 to 32 of a-z 0-9 _ -";
    let rows = [
        ("default", 409, "conflict", of_default),
        ("filed", 409, "conflict", in_file),
        ("Shop", 400, "bad_request", name),
        ("%20", 400, "bad_request", name),
    ];
    for (app, status, code, text) in rows {
        let wanted = (status, code.to_owned(), text.to_owned());
        assert_eq!(told(&put(&node, app, &json!({})).await), wanted, "{app}");
        assert_eq!(told(&delete(&node, app).await), wanted, "{app}");
    }
    let faulty = json!({
        "auth": {"anonymous": 1, "keys": [{"algorithm": "HS256", "secret_file": "/etc/passwd"}]},
        "redis": {"url": "redis://r"},
    });
    let text = "the settings of the app `shop` have 3 faults: auth.anonymous cannot be 1; give true or \
                false | auth.keys[0].secret_file cannot be given by the API; give the text itself as \
                secret | redis cannot be set for an app; leave it out: [redis] holds for all apps";
    let wanted = (400, "bad_request".to_owned(), text.to_owned());
    assert_eq!(told(&put(&node, "shop", &faulty).await), wanted);
    let many: serde_json::Map<_, _> = (0..50)
        .map(|n| (format!("x{n:02}{}", "y".repeat(400)), json!({})))
        .collect();
    let (status, _, text) = told(&put(&node, "shop", &Value::from(many)).await);
    assert!(
        status == 400 && text.ends_with(" | and 30 more") && text.len() < 8_192,
        "{text}"
    );
    let mut msgpack = request(Method::PUT, "/v1/apps/shop", Body::from(vec![0x80]));
    let kind = "application/msgpack".parse().unwrap();
    msgpack.headers_mut().insert("content-type", kind);
    let (status, code, _) = told(&node.send(msgpack).await);
    assert_eq!((status, &*code), (415, "unsupported_media_type"));
    let large = json!({"auth": {"issuer": "x".repeat(65_536)}});
    let (status, code, text) = told(&put(&node, "shop", &large).await);
    assert_eq!((status, &*code), (413, "too_large"), "{text}");
    assert!(
        node.get("/v1/apps/shop").await.status.as_u16() == 404,
        "nothing was stored"
    );
}

/// A client changes so much at once, and the rest as time passes.
async fn put_in_time(node: &Node, name: &str, settings: &Value) -> Answered {
    wait::until("another change to be allowed", async || {
        let set = put(node, name, settings).await;
        (set.status.as_u16() != 429).then_some(set)
    })
    .await
}

#[tokio::test]
async fn a_thousand_apps_are_stored_and_one_more_is_refused() {
    let node = node();
    for n in 0..1_000 {
        let set = put_in_time(&node, &format!("a{n}"), &json!({})).await;
        assert!(set.status.is_success(), "{n} {set:?}");
    }
    let (status, code, text) = told(&put_in_time(&node, "one-more", &json!({})).await);
    let wanted = "1000 apps are stored, and at most 1000 can be: remove one that is not used";
    assert_eq!((status, &*code, &*text), (400, "limit_exceeded", wanted));
    assert!(
        put_in_time(&node, "a7", &json!({"auth": {}}))
            .await
            .status
            .is_success(),
        "one that is there"
    );
    wait::until("a removal to be allowed", async || {
        let gone = delete(&node, "a8").await;
        gone.status.is_success().then_some(())
    })
    .await;
    assert!(
        put_in_time(&node, "one-more", &json!({}))
            .await
            .status
            .is_success()
    );
}

#[tokio::test]
async fn apps_are_for_clients_of_all_apps_and_so_is_what_is_about_all() {
    let node = node();
    let text = |name: &str| {
        format!(
            "the API client `{name}` is of one app, and this call is about all apps: it needs a client \
             with app = \"*\""
        )
    };
    for key in ["filed", "default"] {
        for call in [
            ("GET", "/v1/apps", ""),
            ("GET", "/v1/apps/filed", ""),
            ("PUT", "/v1/apps/shop", "{}"),
            ("DELETE", "/v1/apps/shop", ""),
            ("GET", "/v1/queue", ""),
            ("GET", "/v1/nodes", ""),
            ("GET", "/v1/performance", ""),
            ("POST", "/v1/nodes/node-a/drain", ""),
        ] {
            let answer = told(&send(&node, (key, None), call).await);
            assert_eq!(answer, (403, "forbidden".into(), text(key)), "{call:?}");
            let of_all = send(&node, ("any", None), call).await;
            assert_ne!(of_all.status.as_u16(), 403, "{call:?}");
        }
    }
    // While there is no other app, what is about all is about the own one.
    let alone = Node::with(|config| {
        config.api.clients = vec![client("default", ClientApp::One(App::default_app()))];
    });
    for path in ["/v1/queue", "/v1/nodes", "/v1/performance"] {
        let answer = send(&alone, ("default", None), ("GET", path, "")).await;
        assert_eq!(answer.status.as_u16(), 200, "{path}");
    }
    let answer = told(&send(&alone, ("default", None), ("GET", "/v1/apps", "")).await);
    assert_eq!(answer, (403, "forbidden".into(), text("default")));
}

#[tokio::test]
async fn lists_and_users_are_those_of_the_calls_app() {
    let node = node();
    let sessions = |node: &str| {
        vec![NodeSessions {
            node: node.into(),
            sessions: 1,
        }]
    };
    {
        let mut occupancy = node.directory.occupancy.lock().unwrap();
        for (of, name, at) in [
            ("default", "t", "a"),
            ("filed", "t", "b"),
            ("filed", "u", "b"),
            ("default", "@ada", "a"),
        ] {
            occupancy.insert(Topic::new(&app(of), name).unwrap(), sessions(at));
        }
    }
    let names = async |key: &str, of: Option<&str>| {
        let answer = send(&node, (key, of), ("GET", "/v1/topics", ""))
            .await
            .value();
        let topics = answer["topics"].as_array().unwrap().iter();
        topics
            .map(|one| one["topic"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(names("any", Some("filed")).await, ["t", "u"]);
    assert_eq!(names("filed", None).await, ["t", "u"]);
    assert_eq!(names("any", None).await, ["@ada", "t"]);
    assert_eq!(names("default", None).await, ["@ada", "t"]);
    let user = async |key: &str| {
        let answer = send(&node, (key, None), ("GET", "/v1/users/ada", ""))
            .await
            .value();
        answer["sessions"].as_u64().unwrap()
    };
    assert_eq!((user("default").await, user("filed").await), (1, 0));
    let ended = send(
        &node,
        ("filed", None),
        ("POST", "/v1/users/ada/disconnect", ""),
    )
    .await;
    assert!(ended.status.is_success());
    assert_eq!(*node.directory.disconnected.lock().unwrap(), ["filed/ada"]);
}

#[tokio::test]
async fn dead_letters_are_those_of_the_calls_app() {
    let node = node();
    for (of, data) in [("default", 1), ("filed", 2), ("filed", 3)] {
        let body = json!({"topic": "t", "data": data, "idempotency_key": "k"}).to_string();
        let body = match data {
            3 => body.replace("\"k\"", "\"another\""),
            _ => body,
        };
        let put = send(&node, ("any", Some(of)), ("POST", "/v1/queue", &body)).await;
        assert_eq!(put.status.as_u16(), 202, "{put:?}");
    }
    assert_eq!(
        bury(&node, Why::Failed).await,
        3,
        "equal keys of two apps are two"
    );
    let letters = async |key: &str, of: Option<&str>| {
        let page = send(&node, (key, of), ("GET", "/v1/queue/dead", ""))
            .await
            .value();
        let letters = page["letters"].as_array().unwrap().clone();
        let id = |one: &Value| (one["id"].as_str().unwrap().to_owned(), one["data"].clone());
        letters.iter().map(id).collect::<Vec<_>>()
    };
    let own = letters("default", None).await;
    let data: Vec<_> = own.iter().map(|(_, data)| data.clone()).collect();
    assert_eq!(data, [1]);
    assert_eq!(letters("any", None).await, own);
    let others = letters("filed", None).await;
    let data: Vec<_> = others.iter().map(|(_, data)| data.clone()).collect();
    assert_eq!(data, [2, 3]);
    assert_eq!(letters("any", Some("filed")).await, others);
    // Nobody is told even that another app's letter is there.
    let of_other = &others[0].0;
    let path = format!("/v1/queue/dead?ids={of_other}");
    let dropped = send(&node, ("default", None), ("DELETE", &path, "")).await;
    let dropped = dropped.value();
    assert_eq!(dropped["dropped"], 0);
    assert_eq!(dropped["failed"][0]["error"]["code"], "not_found");
    let body = json!({"ids": [of_other]}).to_string();
    let call = ("POST", "/v1/queue/dead/redrive", &*body);
    let redriven = send(&node, ("default", None), call).await.value();
    assert_eq!(redriven["redriven"], 0);
    assert_eq!(redriven["failed"][0]["error"]["code"], "not_found");
    let all = send(
        &node,
        ("default", None),
        ("DELETE", "/v1/queue/dead?all=true", ""),
    )
    .await;
    assert_eq!(all.value()["dropped"], 1);
    assert_eq!(letters("filed", None).await, others, "they stay");
    let all = r#"{"all":true}"#;
    let redriven = send(
        &node,
        ("filed", None),
        ("POST", "/v1/queue/dead/redrive", all),
    )
    .await;
    assert_eq!(redriven.value()["redriven"], 2);
    assert!(letters("filed", None).await.is_empty());
}

#[tokio::test]
async fn letters_of_an_app_that_is_gone_are_those_of_the_operator() {
    let node = node();
    assert!(put(&node, "shop", &json!({})).await.status.is_success());
    let body = json!({"topic": "t", "data": 7}).to_string();
    let added = send(&node, ("shop", None), ("POST", "/v1/queue", &body)).await;
    assert_eq!(added.status.as_u16(), 202);
    assert_eq!(bury(&node, Why::Failed).await, 1);
    let count = async |key: &str, of: Option<&str>| {
        let page = send(&node, (key, of), ("GET", "/v1/queue/dead", ""))
            .await
            .value();
        page["letters"].as_array().unwrap().len()
    };
    assert_eq!(
        (count("shop", None).await, count("any", None).await),
        (1, 0)
    );
    assert!(delete(&node, "shop").await.status.is_success());
    assert_eq!(count("any", None).await, 1);
    assert_eq!(count("default", None).await, 0, "it is not of this app");
    assert_eq!(count("any", Some("filed")).await, 0);
    let dropped = send(
        &node,
        ("any", None),
        ("DELETE", "/v1/queue/dead?all=true", ""),
    )
    .await;
    assert_eq!(dropped.value()["dropped"], 1);
}

#[tokio::test]
async fn other_nodes_are_told_of_each_change_and_of_nothing_else() {
    let node = node();
    let told = async || *node.directory.apps_set.lock().unwrap();
    assert!(put(&node, "shop", &json!({})).await.status.is_success());
    assert_eq!(told().await, 1);
    assert!(put(&node, "shop", &json!({})).await.status.is_success());
    assert!(!delete(&node, "none").await.status.is_success());
    assert_eq!(told().await, 1, "nothing has changed");
    assert!(delete(&node, "shop").await.status.is_success());
    assert_eq!(told().await, 2);
}

#[tokio::test]
async fn before_the_first_reading_nobody_is_told_that_there_is_no_app() {
    let node = node();
    let call = async |key: &str, of: Option<&str>, path: &str| {
        let answer = send(&node, (key, of), ("GET", path, "")).await;
        answer.status.as_u16()
    };
    node.apps().are_unread();
    assert_eq!(call("shop", None, "/v1/topics/t").await, 503);
    assert_eq!(call("any", Some("shop"), "/v1/topics/t").await, 503);
    assert_eq!(call("any", None, "/v1/apps/shop").await, 503);
    assert_eq!(call("any", Some("filed"), "/v1/topics/t").await, 200);
    node.apps().were_read(std::time::Instant::now());
    assert_eq!(call("shop", None, "/v1/topics/t").await, 404);
    assert_eq!(call("any", None, "/v1/apps/shop").await, 404);
    // Nor is a client of one app taken for the only one.
    let alone = Node::with(|config| {
        config.api.clients = vec![client("default", ClientApp::One(App::default_app()))];
    });
    let nodes = async || {
        let answer = send(&alone, ("default", None), ("GET", "/v1/nodes", "")).await;
        answer.status.as_u16()
    };
    alone.apps().are_unread();
    assert_eq!(nodes().await, 403);
    alone.apps().were_read(std::time::Instant::now());
    assert_eq!(nodes().await, 200);
}

#[tokio::test]
async fn an_app_has_a_bound_of_namespaces() {
    let node = node();
    let settings = |count: usize| {
        let names = (1..count).map(|n| (format!("n{n}"), json!({})));
        json!({"namespaces": names.collect::<serde_json::Map<_, _>>()})
    };
    let (status, code, text) = told(&put(&node, "shop", &settings(201)).await);
    assert_eq!((status, &*code), (400, "bad_request"));
    assert!(text.contains("namespaces has 201 of them"), "{text}");
    for n in 0..100 {
        let set = put(&node, &format!("a{n}"), &settings(200)).await;
        assert!(set.status.is_success(), "{n}: {set:?}");
    }
    let (status, code, text) = told(&put(&node, "shop", &json!({})).await);
    assert_eq!((status, &*code), (400, "limit_exceeded"));
    assert!(text.contains("would have 20001 namespaces"), "{text}");
    // One that is there may be set again.
    assert!(put(&node, "a7", &settings(3)).await.status.is_success());
    assert!(put(&node, "shop", &json!({})).await.status.is_success());
}
