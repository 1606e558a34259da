//! Sessions whose authorizers answer well and badly, on a whole node in this process.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fanfare_testkit::backend::{Backend, Reply};
use fanfare_testkit::talk::Talk;
use fanfare_testkit::wait;
use serde_json::{Value, json};

use crate::cluster::control::{self, ControlMessage, Request};
use crate::config::{Authorizer, Config, Secret};
use crate::revocation::memory::Held;
use crate::revocation::reader::Reader;
use crate::revocation::store_rig::{add, read};
use crate::session::rig::node::{Entrance, Node, nobody, run, user};
use crate::session::rig::{config, token};
use crate::worker::handle::Inbound;
use fanfare_protocol::close::CloseReason;
use fanfare_protocol::ids::{App, User};

const LATER: u64 = 4_000_000_000;

/// A node that asks this backend about everything in `open` and `token`, and about each session.
fn asking(backend: &Backend, change: impl FnOnce(&mut Config)) -> Node {
    let one = Authorizer {
        name: "backend".to_owned(),
        url: backend.url.clone(),
        secrets: vec![Secret(format!("whsec_{}", STANDARD.encode([1; 24])))],
        timeout: Duration::from_secs(1),
        concurrency: 64,
        headers: Vec::new(),
        ca_file: None,
        allow_private: true,
    };
    let name = || Some("backend".to_owned());
    Node::start(config(|config| {
        config.authorizers = vec![one];
        config.auth.anonymous = true;
        for namespace in ["open", "token"] {
            let namespace = config
                .namespaces
                .get_mut(namespace)
                .expect("the rig has it");
            (namespace.authorize_subscribe, namespace.authorize_publish) = (name(), name());
        }
        change(config);
    }))
}

fn connects(config: &mut Config) {
    config.auth.authorize_connect = Some("backend".to_owned());
}

fn yes() -> Reply {
    Reply::json(&json!({"allow": true}))
}

fn no() -> Reply {
    Reply::json(&json!({"allow": false, "reason": "closed"}))
}

fn granting(more: &Value) -> Reply {
    let mut answer = json!({"allow": true});
    let more = more.as_object().expect("a map").clone();
    answer.as_object_mut().expect("a map").extend(more);
    Reply::json(&answer)
}

fn waiting(name: &'static str) -> Entrance {
    Entrance {
        waits: true,
        ..user(name)
    }
}

const USELESS: &str = "the authorizer `backend` gave no answer that can be used; try again";

async fn refused(talk: &mut Talk, command: Value, code: &str, text: &str) {
    let error = talk.refused(command, code).await;
    assert_eq!(error["message"], text, "{error}");
}

#[test]
fn a_topic_is_joined_where_the_authorizer_says_yes_and_not_where_it_says_no() {
    run(async {
        let backend = Backend::http(|asked| match asked.json["topic"] == "open:no" {
            true => no(),
            false => yes(),
        })
        .await;
        let node = asking(&backend, |_| {});
        let mut ada = node.welcomed(user("ada")).await;
        ada.subscribe("open:yes", json!({"presence": true})).await;
        let subscribe = |topic: &str| json!({"type": "subscribe", "topic": topic});
        let text = "refused by the authorizer `backend`: closed";
        refused(&mut ada, subscribe("open:no"), "forbidden", text).await;
        // What the rules forbid is not asked about, and a namespace without an authorizer neither.
        ada.refused(subscribe("nobody:t"), "forbidden").await;
        ada.subscribe("bare:t", json!({})).await;
        let asked = backend.asked();
        let topics: Vec<_> = asked.iter().map(|one| one.json["topic"].clone()).collect();
        assert_eq!(topics, ["open:yes", "open:no"]);
        assert_eq!(asked[0].json["presence"], true);
        assert_eq!(
            (&asked[0].json["user"], &asked[0].json["app"]),
            (&json!("ada"), &json!("default"))
        );
        // It is not joined, and can be asked for again.
        node.publish("open:no", "1").await;
        node.publish("open:yes", "2").await;
        assert_eq!(ada.data(1).await, [2]);
        backend.answer(|_| yes());
        ada.subscribe("open:no", json!({})).await;
    });
}

#[test]
fn a_membership_that_is_added_is_asked_about_and_refused_alone() {
    run(async {
        let backend = Backend::http(|asked| match asked.json["presence"] == true {
            true => no(),
            false => yes(),
        })
        .await;
        let node = asking(&backend, |_| {});
        let mut ada = node.welcomed(user("ada")).await;
        ada.subscribe("open:t", json!({})).await;
        let more = json!({"type": "subscribe", "topic": "open:t", "presence": true});
        ada.refused(more.clone(), "forbidden").await;
        node.publish("open:t", "1").await;
        assert_eq!(ada.data(1).await, [1], "it stays");
        let members = json!({"type": "presence", "topic": "open:t"});
        assert_eq!(ada.ok(members.clone()).await["count"], 0);
        backend.answer(|_| yes());
        ada.ok(more).await;
        assert_eq!(ada.ok(members).await["count"], 1);
    });
}

#[test]
fn answers_that_cannot_be_used_are_unavailable_and_change_nothing() {
    run(async {
        let backend = Backend::http(|_| yes()).await;
        let node = asking(&backend, |_| {});
        let mut ada = node.welcomed(user("ada")).await;
        let subscribe = json!({"type": "subscribe", "topic": "open:t"});
        let publish = json!({"type": "publish", "topic": "open:t", "data": 1});
        for reply in [
            Reply::text("garbage"),
            Reply::text(" ".repeat(64 * 1024 + 1)),
            Reply::status(302),
            // It changes the user, where it may say nothing of one.
            granting(&json!({"user": "bob"})),
            granting(&json!({"can": {"publish": ["**"]}})),
            granting(&json!({"topic": "open:other"})),
        ] {
            backend.answer(move |_| reply.clone());
            refused(&mut ada, subscribe.clone(), "unavailable", USELESS).await;
        }
        backend.answer(|_| yes());
        ada.ok(subscribe).await;
        for reply in [
            granting(&json!({"key": ""})),
            granting(&json!({"topic": "open:other", "data": 2})),
        ] {
            backend.answer(move |_| reply.clone());
            refused(&mut ada, publish.clone(), "unavailable", USELESS).await;
        }
        backend.answer(|_| yes());
        ada.ok(publish).await;
        node.publish("open:t", "9").await;
        assert_eq!(ada.data(1).await, [9], "nothing else was published");
    });
}

#[test]
fn what_is_published_may_be_replaced_and_never_its_topic() {
    run(async {
        let backend = Backend::http(|asked| match asked.json["type"] == "publish" {
            true => granting(&json!({"data": {"clean": asked.json["data"]}, "key": "k2"})),
            false => yes(),
        })
        .await;
        let node = asking(&backend, |_| {});
        let mut ada = node.welcomed(user("ada")).await;
        ada.subscribe("open:t", json!({})).await;
        let publish = json!({
            "type": "publish", "topic": "open:t", "data": {"raw": 1}, "key": "k1", "echo": true,
        });
        ada.ok(publish).await;
        let message = ada.message("open:t").await;
        assert_eq!(message["data"], json!({"clean": {"raw": 1}}));
        assert_eq!(
            (&message["key"], &message["user"]),
            (&json!("k2"), &json!("ada"))
        );
        let asked = backend.asked().remove(1);
        assert_eq!(asked.json["key"], "k1");
        assert_eq!(asked.json["data_form"], "json");
        // The API is trusted by its scopes.
        node.publish("open:t", "5").await;
        assert_eq!(ada.data(1).await, [5]);
        assert_eq!(backend.asked().len(), 2);
    });
}

#[test]
fn no_publication_overtakes_another_and_nobody_else_waits() {
    run(async {
        // The earlier ones take longer.
        let backend = Backend::http(|asked| {
            let number = asked.json["data"].as_u64().unwrap_or(0);
            yes().after(Duration::from_millis(40 - (number % 5) * 10))
        })
        .await;
        let node = asking(&backend, |_| {});
        let mut reader = node.welcomed(user("bob")).await;
        reader.subscribe("open:t", json!({})).await;
        reader.subscribe("bare:t", json!({})).await;
        let mut ada = node.welcomed(user("ada")).await;
        for number in 0..20 {
            ada.command(json!({"type": "publish", "topic": "open:t", "data": number}))
                .await;
        }
        // Behind them all, though nobody is asked about it.
        ada.command(json!({"type": "publish", "topic": "bare:t", "data": "last"}))
            .await;
        // Another session is served meanwhile.
        let mut other = node.welcomed(user("eve")).await;
        other.publish("bare:t", json!("first")).await;
        let seen = reader.data(22).await;
        assert_eq!(seen.first(), Some(&json!("first")), "{seen:?}");
        assert_eq!(seen.last(), Some(&json!("last")), "{seen:?}");
        let numbers: Vec<_> = seen.iter().filter_map(Value::as_u64).collect();
        assert_eq!(numbers, (0..20).collect::<Vec<_>>());
    });
}

#[test]
fn a_session_that_ends_while_its_command_waits_is_forgotten() {
    run(async {
        let backend = Backend::http(|_| Reply::never()).await;
        let node = asking(&backend, |_| {});
        let (mut ada, task) = node.connect_task(user("ada")).await;
        ada.event_of("welcome").await;
        ada.command(json!({"type": "publish", "topic": "open:t", "data": 1}))
            .await;
        wait::until_equal(1, async || backend.open()).await;
        drop(ada);
        task.await.expect("it ends in order");
        // The enquiry is given up, and with it its place.
        wait::until_equal(0, async || backend.open()).await;
        assert_eq!(node.control().published.get(), 0);
    });
}

#[test]
fn connect_says_who_comes_without_a_token_and_what_they_may_do() {
    run(async {
        let backend = Backend::http(|_| {
            let can = json!({"subscribe": ["token:1"], "publish": ["token:1"]});
            granting(&json!({"user": "ada", "can": can, "info": {"n": 1}, "expires": LATER}))
        })
        .await;
        let node = asking(&backend, |config| {
            connects(config);
            config.auth.anonymous = false;
            let namespace = config.namespaces.get_mut("token").expect("it is there");
            namespace.authorize_subscribe = None;
        });
        let mut ada = node.connect(nobody()).await;
        let welcome = ada.ok(json!({"type": "connect"})).await;
        assert_eq!(
            (&welcome["user"], &welcome["expires"]),
            (&json!("ada"), &json!(LATER))
        );
        assert_eq!(backend.asked()[0].json["user"], Value::Null);
        assert_eq!(welcome["inbox"]["topic"], "@ada");
        ada.subscribe("token:1", json!({})).await;
        let other = json!({"type": "subscribe", "topic": "token:2"});
        ada.refused(other, "forbidden").await;
    });
}

#[test]
fn who_is_nobody_by_connect_needs_anonymous_sessions() {
    run(async {
        let backend = Backend::http(|_| yes()).await;
        let node = asking(&backend, |config| {
            connects(config);
            config.auth.anonymous = false;
        });
        let mut one = node.connect(nobody()).await;
        one.refused(json!({"type": "connect"}), "unauthorized")
            .await;
        let node = asking(&backend, connects);
        let mut one = node.connect(nobody()).await;
        assert!(one.ok(json!({"type": "connect"})).await["user"].is_null());
    });
}

#[test]
fn a_token_is_narrowed_and_never_widened_and_its_user_stays() {
    run(async {
        let can = json!({"subscribe": ["users:1", "token:**"]});
        let backend = Backend::http(move |asked| match asked.json["type"] == "connect" {
            true => granting(&json!({"can": can, "user": "ada"})),
            false => yes(),
        })
        .await;
        let node = asking(&backend, connects);
        let connect = |token: String| json!({"type": "connect", "token": token});
        let subscribe = |topic: &str| json!({"type": "subscribe", "topic": topic});
        // Without `can` of its own: the rule `token` is not met by the answer's.
        let mut ada = node.connect(nobody()).await;
        ada.ok(connect(token("ada", json!({"exp": LATER})))).await;
        ada.ok(subscribe("users:1")).await;
        ada.refused(subscribe("users:2"), "forbidden").await;
        ada.refused(subscribe("token:1"), "forbidden").await;
        // With one: what both allow.
        let own = json!({"exp": LATER, "can": {"subscribe": ["token:1", "users:2"]}});
        let mut ada = node.connect(nobody()).await;
        ada.ok(connect(token("ada", own))).await;
        ada.ok(subscribe("token:1")).await;
        ada.refused(subscribe("token:2"), "forbidden").await;
        ada.refused(subscribe("users:2"), "forbidden").await;
        // Another user is a lie, and nobody comes in by it.
        let mut bob = node.connect(nobody()).await;
        let bobs = connect(token("bob", json!({"exp": LATER})));
        refused(&mut bob, bobs, "unavailable", USELESS).await;
        assert_eq!(bob.close_code().await, Some(4105));
    });
}

#[test]
fn a_no_to_connect_ends_the_session_whichever_way_it_came() {
    run(async {
        let backend = Backend::http(|_| no()).await;
        let node = asking(&backend, connects);
        let text = "refused by the authorizer `backend`: closed";
        for entrance in [waiting("ada"), nobody()] {
            let mut one = node.connect(entrance).await;
            refused(&mut one, json!({"type": "connect"}), "forbidden", text).await;
            assert_eq!(one.close_code().await, Some(4000));
        }
        let mut unasked = node.connect(user("ada")).await;
        let error = unasked.event_of("error").await;
        assert_eq!(
            (&error["code"], &error["message"]),
            (&json!("forbidden"), &json!(text))
        );
        assert_eq!(unasked.close_code().await, Some(4000));
        backend.answer(|_| Reply::never());
        let mut slow = node.connect(user("ada")).await;
        assert_eq!(slow.event_of("error").await["code"], "unavailable");
        assert_eq!(slow.close_code().await, Some(4105));
    });
}

#[test]
fn refresh_asks_again_and_a_no_leaves_things_as_they_were() {
    run(async {
        let backend = Backend::http(|_| yes()).await;
        let node = asking(&backend, connects);
        let mut ada = node.connect(nobody()).await;
        let fresh = || token("ada", json!({"exp": LATER}));
        ada.ok(json!({"type": "connect", "token": fresh()})).await;
        ada.subscribe("users:1", json!({})).await;
        ada.subscribe("users:2", json!({})).await;
        let refresh = json!({"type": "refresh", "token": fresh()});
        backend.answer(|_| no());
        ada.refused(refresh.clone(), "forbidden").await;
        node.publish("users:1", "1").await;
        assert_eq!(ada.data(1).await, [1]);
        backend.answer(|asked| {
            assert_eq!(asked.json["refresh"], true);
            granting(&json!({"can": {"subscribe": ["users:1"]}, "expires": LATER - 5}))
        });
        assert_eq!(ada.ok(refresh).await["expires"], LATER - 5);
        let left = ada.event_of("unsubscribed").await;
        assert_eq!(
            (&left["topic"], &left["code"]),
            (&json!("users:2"), &json!("forbidden"))
        );
    });
}

#[test]
fn what_is_granted_for_a_topic_ends_as_a_token_for_it_does() {
    run(async {
        let ends = wait::unix_ms() / 1_000 + 2;
        let backend = Backend::http(move |_| granting(&json!({ "expires": ends }))).await;
        let node = asking(&backend, |config| {
            config.auth.expiring = Duration::from_secs(1);
            config.auth.expired_grace = Duration::ZERO;
        });
        let mut ada = node.welcomed(user("ada")).await;
        let joined = ada.subscribe("open:t", json!({})).await;
        assert_eq!(joined["expires"], ends);
        let told = ada.event_of("expiring").await;
        assert_eq!(
            (&told["topic"], &told["expires"]),
            (&json!("open:t"), &json!(ends))
        );
        let left = ada.event_of("unsubscribed").await;
        assert_eq!(left["code"], "token_expired");
        let text = "what the authorizer granted for this topic has ended; subscribe again";
        assert_eq!(left["message"], text);
        assert!(wait::unix_ms() >= ends * 1_000);
        backend.answer(|_| yes());
        ada.subscribe("open:t", json!({})).await;
    });
}

#[test]
fn topics_of_connect_are_asked_about_some_at_once_and_each_fails_alone() {
    run(async {
        let backend = Backend::http(|asked| {
            let name = asked.json["topic"].as_str().unwrap_or_default();
            let reply = match name {
                "open:no" => no(),
                "open:lie" => granting(&json!({"user": "bob"})),
                _ => granting(&json!({ "expires": LATER - 1_999_999_999 })),
            };
            reply.after(Duration::from_millis(30))
        })
        .await;
        let node = asking(&backend, |config| {
            config.auth.token_life_max = Duration::from_secs(10_000_000_000);
        });
        let mut names: Vec<_> = (0..30).map(|number| format!("open:{number}")).collect();
        names.extend([
            "open:no".to_owned(),
            "open:lie".to_owned(),
            "bare:t".to_owned(),
        ]);
        let topics: Vec<_> = names.iter().map(|name| json!({ "topic": name })).collect();
        let mut ada = node.connect(waiting("ada")).await;
        let welcome = ada.ok(json!({"type": "connect", "topics": topics})).await;
        let told = &welcome["topics"];
        for name in &names[..30] {
            assert_eq!(told[name]["recovered"], true, "{told}");
            assert_eq!(told[name]["expires"], LATER - 1_999_999_999, "{told}");
        }
        assert_eq!(told["open:no"]["error"]["code"], "forbidden");
        assert_eq!(told["open:lie"]["error"]["code"], "unavailable");
        assert_eq!(told["bare:t"]["recovered"], true);
        assert_eq!(backend.asked().len(), 32);
        let most = backend.most_at_once();
        assert!((2..=super::TOPICS_AT_ONCE).contains(&most), "{most}");
        node.publish("open:no", "1").await;
        node.publish("open:7", "2").await;
        assert_eq!(ada.data(1).await, [2]);
    });
}

#[test]
fn who_is_put_out_while_the_authorizer_is_asked_is_out() {
    run(async {
        let ada = || granting(&json!({"user": "ada"})).after(Duration::from_millis(200));
        let backend = Backend::http(move |_| ada()).await;
        let node = asking(&backend, connects);
        for entrance in [nobody(), user("ada")] {
            let mut one = node.connect(entrance).await;
            let asked = backend.asked().len();
            if entrance.user.is_none() {
                one.command(json!({"type": "connect"})).await;
            }
            wait::until_equal(asked + 1, async || backend.asked().len()).await;
            let message = ControlMessage {
                from: "api~1".parse().expect("an owner"),
                request: Request::Disconnect {
                    app: App::default_app(),
                    user: User::new("ada").expect("a name"),
                    session: None,
                    reason: CloseReason::Disconnected,
                },
            };
            let order = control::encode(&message);
            node.services.broker.control(order).await.expect("sent");
            assert_eq!(one.close_code().await, Some(4002), "{entrance:?}");
        }
        // And whoever it lets in is revoked by what comes after that.
        let known = node.services.verifier.revocations().clone();
        let (mut held, mut reader) = (Held::default(), Reader::default());
        let mut one = node.connect(nobody()).await;
        one.ok(json!({"type": "connect"})).await;
        let later = wait::unix_ms() / 1_000 + 1;
        add(&mut held, "u default ada", later);
        read(&known, &mut reader, &held);
        node.worker()
            .handle(Inbound::Revoked(known.take_news().into()));
        assert_eq!(one.close_code().await, Some(4002));
    });
}

mod apps;
