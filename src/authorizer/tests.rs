//! A real backend by http and https, well and badly, and everything that is bounded.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fanfare_protocol::data::Data;
use fanfare_protocol::error::ErrorCode;
use fanfare_protocol::ids::{App, SessionId, Topic, User};
use fanfare_testkit::backend::{Backend, Reply};
use fanfare_testkit::wait;
use futures_util::future::join_all;
use serde_json::{Value, json};

use super::enquiry::Asker;
use super::*;
use crate::config::Secret;
use crate::config::load::defaults;

const NAME: &str = "backend";

struct Rig {
    backend: Backend,
    metrics: Arc<AuthorizerMetrics>,
    all: Arc<Authorizers>,
}

fn secret(byte: u8) -> Secret {
    Secret(format!("whsec_{}", STANDARD.encode([byte; 24])))
}

fn settings(backend: &Backend) -> Settings {
    Settings {
        name: NAME.to_owned(),
        url: backend.url.clone(),
        secrets: vec![secret(1)],
        timeout: Duration::from_millis(500),
        concurrency: 64,
        headers: vec![("x-own".to_owned(), Secret("own".to_owned()))],
        ca_file: Some(backend.ca_file.display().to_string()),
        allow_private: true,
    }
}

impl Rig {
    fn new(backend: Backend, change: impl FnOnce(&mut Settings)) -> Self {
        let mut one = settings(&backend);
        change(&mut one);
        let mut config = defaults();
        config.authorizers = vec![one];
        let metrics = Arc::<AuthorizerMetrics>::default();
        let all = Authorizers::new(&config, &metrics);
        Self {
            backend,
            metrics,
            all,
        }
    }

    async fn http(answer: Value) -> Self {
        let backend = Backend::http(move |_| Reply::json(&answer)).await;
        Self::new(backend, |_| {})
    }

    async fn ask(&self) -> Verdict {
        self.all.ask(NAME, enquiry("ada")).await
    }

    fn count(&self, result: Authorization) -> u64 {
        self.metrics.results.of(result).get()
    }

    fn failure(&self) -> String {
        lock(&self.all.all[0].told)
            .failure
            .clone()
            .unwrap_or_default()
    }
}

fn enquiry(user: &str) -> Enquiry {
    let (app, user) = (App::default_app(), User::new(user).unwrap());
    let topic = Topic::new(&app, "chat:1").unwrap();
    let data = Data::from_json(br#"{"n":1}"#).unwrap();
    let asker = Asker::new(
        &app,
        Some(&user),
        SessionId::random(),
        Duration::from_secs(600),
    );
    Enquiry::publish(asker, &topic, (&data, None), None)
}

const USELESS: &str = "the authorizer `backend` gave no answer that can be used; try again";

fn assert_useless(verdict: Verdict) {
    let error = verdict.unwrap_err();
    assert_eq!(
        (error.code, &*error.message),
        (ErrorCode::Unavailable, USELESS)
    );
    assert_eq!(error.retry_after_ms, Some(1_000));
}

#[tokio::test]
async fn an_enquiry_is_signed_by_each_secret_and_its_answer_is_taken() {
    let rig = Rig::http(json!({"allow": true, "data": 5})).await;
    rig.all.take_over(&[Settings {
        secrets: vec![secret(1), secret(2)],
        ..settings(&rig.backend)
    }]);
    let granted = rig.ask().await.unwrap();
    assert_eq!(granted.data, Data::from_json(b"5").ok());
    let asked = rig.backend.asked().remove(0);
    assert_eq!(asked.json["user"], "ada");
    assert_eq!(asked.json["data"], json!({"n": 1}));
    let header = |name: &str| asked.headers[name].to_str().unwrap().to_owned();
    assert_eq!(header("content-type"), "application/json");
    assert_eq!(header("x-own"), "own");
    let (id, timestamp) = (header("webhook-id"), header("webhook-timestamp"));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let timestamp: u64 = timestamp.parse().unwrap();
    assert!(now.as_secs() - timestamp < 10, "{timestamp}");
    let keys = SigningKeys::new(&[secret(1), secret(2)]);
    assert_eq!(
        header("webhook-signature"),
        keys.sign(&id, timestamp, &asked.body)
    );
    rig.ask().await.unwrap();
    let again = rig.backend.asked().remove(1);
    assert_ne!(again.headers["webhook-id"], asked.headers["webhook-id"]);
    assert_eq!(rig.backend.connections(), 1, "a connection is used again");
    assert_eq!(rig.count(Authorization::Allowed), 2);
}

#[tokio::test]
async fn by_https_who_is_named_is_trusted_and_nobody_else() {
    let backend = Backend::https(|_| Reply::json(&json!({"allow": true}))).await;
    let rig = Rig::new(backend, |_| {});
    rig.ask().await.unwrap();
    let stranger = Backend::https(|_| Reply::json(&json!({"allow": true}))).await;
    let other = rig.backend.ca_file.display().to_string();
    let rig = Rig::new(stranger, |one| one.ca_file = Some(other));
    assert_useless(rig.ask().await);
    assert!(rig.failure().starts_with("no TLS: "), "{}", rig.failure());
    assert!(rig.backend.asked().is_empty());
}

#[tokio::test]
async fn a_no_is_forbidden_with_its_reason() {
    let rig = Rig::http(json!({"allow": false, "reason": "not in this room"})).await;
    let error = rig.ask().await.unwrap_err();
    let text = "refused by the authorizer `backend`: not in this room";
    assert_eq!((error.code, &*error.message), (ErrorCode::Forbidden, text));
    rig.backend
        .answer(|_| Reply::json(&json!({"allow": false})));
    let error = rig.ask().await.unwrap_err();
    assert_eq!(error.message, "refused by the authorizer `backend`");
    assert_eq!(rig.count(Authorization::Denied), 2);
    assert!(rig.all.troubles().is_empty());
}

#[tokio::test]
async fn what_is_no_answer_is_unavailable_and_told() {
    let rig = Rig::http(json!({})).await;
    let (whole, more) = (64 * 1024, 64 * 1024 + 1);
    let padded = |bytes: usize| {
        let head = r#"{"allow":true}"#;
        Reply::text(format!("{head}{}", " ".repeat(bytes - head.len())))
    };
    let redirect = Reply {
        location: Some("https://localhost:1/".to_owned()),
        ..Reply::status(307)
    };
    let page = Reply {
        kind: "text/html",
        ..Reply::json(&json!({"allow": true}))
    };
    let rows = [
        (Reply::text("garbage"), "the answer is no JSON map"),
        (padded(more), "its answer is longer than 65536 bytes"),
        (
            redirect,
            "it answered 307 Temporary Redirect, and redirects are not followed",
        ),
        (Reply::status(500), "it answered 500 Internal Server Error"),
        (Reply::status(204), "it answered 204 No Content"),
        (page, "its answer is not application/json"),
    ];
    let failed = rows.len() as u64;
    for (reply, why) in rows {
        rig.backend.answer(move |_| reply.clone());
        assert_useless(rig.ask().await);
        assert_eq!(rig.failure(), why);
    }
    assert_eq!(rig.count(Authorization::Failed), failed);
    assert_eq!(rig.all.all[0].failures.get(), failed);
    rig.backend.answer(move |_| padded(whole));
    rig.ask().await.unwrap();
    assert_eq!(rig.failure(), "");
}

#[tokio::test]
async fn a_lie_is_unavailable_and_no_reason_to_stop_asking() {
    let rig = Rig::http(json!({"allow": true, "user": "bob"})).await;
    for _ in 0..20 {
        assert_useless(rig.ask().await);
    }
    assert_eq!(rig.count(Authorization::Lied), 20);
    assert!(rig.all.troubles().is_empty());
}

/// What one client can bring about was a failure like any other: whoever sent eight messages that the backend
/// made too long, or that a proxy before it did not take, stopped the enquiries of all.
#[tokio::test]
async fn no_client_stops_the_enquiries_of_others_by_what_it_sends() {
    let rig = Rig::http(json!({})).await;
    let deep = "[".repeat(65) + &"]".repeat(65);
    let rows = [
        Reply::json(&json!({"allow": true, "data": "x".repeat(64 * 1024)})),
        Reply::json(&json!({"allow": true, "key": "x".repeat(200)})),
        Reply::text(format!(r#"{{"allow":true,"data":{deep}}}"#)),
        Reply::status(400),
        Reply::status(413),
        Reply::status(422),
    ];
    for reply in rows {
        let of_eve = reply.clone();
        rig.backend
            .answer(move |asked| match asked.json["user"] == "eve" {
                true => of_eve.clone(),
                false => Reply::json(&json!({"allow": true})),
            });
        for _ in 0..20 {
            assert_useless(rig.all.ask(NAME, enquiry("eve")).await);
        }
        assert!(rig.ask().await.is_ok(), "{reply:?}");
        assert!(rig.all.troubles().is_empty(), "{reply:?}");
    }
    assert_eq!(rig.count(Authorization::Failed), 6 * 20);
}

#[tokio::test]
async fn who_is_slow_is_not_waited_for_and_nobody_else_is_held_up() {
    let rig = Rig::http(json!({"allow": true})).await;
    rig.backend
        .answer(|asked| match asked.json["user"] == "slow" {
            true => Reply::never(),
            false => Reply::json(&json!({"allow": true})),
        });
    let began = Instant::now();
    let slow = rig.all.ask(NAME, enquiry("slow"));
    let others = async {
        let all = join_all((0..50).map(|_| rig.ask())).await;
        (all, began.elapsed())
    };
    let (slow, (others, took)) = tokio::join!(slow, others);
    assert_useless(slow);
    assert!(began.elapsed() >= Duration::from_millis(500));
    assert_eq!(rig.count(Authorization::TimedOut), 1);
    assert!(others.iter().all(Result::is_ok));
    assert!(took < Duration::from_millis(500), "{took:?}");
}

#[tokio::test]
async fn a_private_address_is_not_asked_by_whatever_name() {
    let backend = Backend::https(|_| Reply::json(&json!({"allow": true}))).await;
    let port = backend.url.split(':').nth(2).unwrap().to_owned();
    let urls = [
        backend.url.clone(),
        format!("https://127.0.0.1:{port}"),
        format!("https://[::ffff:127.0.0.1]:{port}"),
    ];
    let mut rig = Rig::new(backend, |one| one.allow_private = false);
    for url in urls {
        rig = Rig::new(rig.backend, |one| {
            one.allow_private = false;
            one.url = url;
        });
        assert_useless(rig.ask().await);
        let failure = rig.failure();
        assert!(failure.contains("is no public address"), "{failure}");
    }
    // And http goes with `allow_private` only.
    let plain = Backend::http(|_| Reply::json(&json!({"allow": true}))).await;
    let rig = Rig::new(plain, |one| one.allow_private = false);
    assert_useless(rig.ask().await);
    assert_eq!(rig.failure(), "it is not https");
    assert_eq!(rig.backend.connections(), 0);
}

#[tokio::test]
async fn after_eight_failures_it_is_left_alone_and_tried_again_by_one() {
    let rig = Rig::http(json!({"allow": true})).await;
    rig.backend.answer(|_| Reply::status(503));
    for _ in 0..8 {
        assert_useless(rig.ask().await);
    }
    let suspended = rig.ask().await.unwrap_err();
    let text = "the authorizer `backend` failed too often and is not asked for a moment";
    assert_eq!(
        (suspended.code, &*suspended.message),
        (ErrorCode::Unavailable, text)
    );
    assert!(suspended.retry_after_ms >= Some(1_000));
    assert_eq!(rig.backend.asked().len(), 8);
    assert_eq!(rig.metrics.suspended.get(), 1);
    let trouble = "authorizer backend: it answered 503 Service Unavailable";
    assert_eq!(rig.all.troubles(), [trouble]);
    tokio::time::sleep(Duration::from_millis(1_050)).await;
    // The one by which it is tried is given up: the next one may.
    rig.backend.answer(|_| Reply::never());
    let tried = tokio::time::timeout(Duration::from_millis(100), rig.ask()).await;
    assert!(tried.is_err());
    wait::until_equal(9, async || rig.backend.asked().len()).await;
    rig.backend.answer(|_| Reply::json(&json!({"allow": true})));
    wait::until("the try was given up", async || {
        rig.ask().await.is_ok().then_some(())
    })
    .await;
    assert_eq!(rig.metrics.suspended.get(), 0);
    assert!(rig.all.troubles().is_empty());
}

#[tokio::test]
async fn so_many_are_asked_at_once_and_so_many_wait() {
    let backend = Backend::http(|_| Reply::never()).await;
    let rig = Rig::new(backend, |one| {
        one.concurrency = 2;
        one.timeout = Duration::from_secs(5);
    });
    let asked = |count: usize| join_all((0..count).map(|_| Box::pin(rig.ask())));
    let mut running = asked(2);
    let mut waiting = asked(WAITING_MAX);
    let held = tokio::time::timeout(Duration::from_millis(300), &mut running);
    assert!(held.await.is_err(), "both are asked");
    let held = tokio::time::timeout(Duration::from_millis(50), &mut waiting);
    assert!(held.await.is_err(), "all of them wait");
    assert_eq!(rig.metrics.waiting.get(), WAITING_MAX as u64);
    let error = rig.ask().await.unwrap_err();
    let text = "too many enquiries wait for the authorizer `backend`; try again";
    assert_eq!(
        (error.code, &*error.message),
        (ErrorCode::Unavailable, text)
    );
    assert_eq!(rig.count(Authorization::Busy), 1);
    rig.backend.answer(|_| Reply::json(&json!({"allow": true})));
    // Who is not waited for any more makes room.
    drop(running);
    let answers = waiting.await;
    assert!(answers.iter().all(Result::is_ok));
    assert!(
        rig.backend.most_at_once() <= 3,
        "{}",
        rig.backend.most_at_once()
    );
    assert_eq!(rig.metrics.waiting.get(), 0);
    assert_eq!(rig.all.waiting(), 0);
}

#[tokio::test]
async fn no_more_bytes_wait_than_may() {
    let backend = Backend::http(|_| Reply::never()).await;
    let rig = Rig::new(backend, |one| one.concurrency = 1);
    let long = || {
        let mut enquiry = enquiry("ada");
        enquiry.body = vec![b' '; WAITING_BYTES_MAX / 2 + 1].into();
        enquiry
    };
    let mut first = Box::pin(rig.ask());
    let mut second = Box::pin(rig.all.ask(NAME, long()));
    let short = Duration::from_millis(50);
    let asked = tokio::time::timeout(short, &mut first).await;
    let waits = tokio::time::timeout(short, &mut second).await;
    assert!(
        asked.is_err() && waits.is_err(),
        "one is asked, and one waits"
    );
    let error = rig.all.ask(NAME, long()).await.unwrap_err();
    assert!(error.message.starts_with("too many"), "{error}");
    assert_eq!(rig.count(Authorization::Busy), 1);
    drop(second);
    assert_eq!(rig.all.all[0].waiting_bytes.load(Relaxed), 0);
}

#[tokio::test]
async fn who_waits_too_long_for_a_place_is_told() {
    let backend = Backend::http(|_| Reply::never()).await;
    let rig = Rig::new(backend, |one| one.concurrency = 1);
    let first = rig.ask();
    let second = async {
        tokio::time::sleep(Duration::from_millis(10)).await;
        let queue = join_all((0..3).map(|_| rig.ask())).await;
        queue
            .into_iter()
            .map(Result::unwrap_err)
            .collect::<Vec<_>>()
    };
    let (first, queue) = tokio::join!(first, second);
    assert_useless(first);
    let busy = queue
        .iter()
        .filter(|error| error.message.starts_with("too many"));
    assert!(busy.count() >= 2, "{queue:?}");
}

#[tokio::test]
async fn secrets_change_under_load_and_no_enquiry_is_signed_by_halves() {
    let backend = Backend::http(|asked| {
        let header = |name: &str| asked.headers[name].to_str().unwrap();
        let timestamp = header("webhook-timestamp").parse().unwrap();
        let signed = |byte| {
            let keys = SigningKeys::new(&[secret(byte)]);
            keys.sign(header("webhook-id"), timestamp, &asked.body)
        };
        let told: Vec<_> = header("webhook-signature").split(' ').collect();
        let is_known = (1..4).any(|byte| told.contains(&&*signed(byte)));
        Reply::json(&json!({"allow": is_known})).after(Duration::from_millis(5))
    })
    .await;
    let rig = Rig::new(backend, |_| {});
    let load = join_all((0..20).map(|_| async {
        for _ in 0..10 {
            rig.ask().await.unwrap();
        }
    }));
    let rotation = async {
        for secrets in [vec![1, 2], vec![2], vec![2, 3], vec![3]] {
            tokio::time::sleep(Duration::from_millis(10)).await;
            let secrets = secrets.into_iter().map(secret).collect();
            let now = Settings {
                secrets,
                ..settings(&rig.backend)
            };
            rig.all.take_over(&[now]);
        }
    };
    tokio::join!(load, rotation);
    let count = rig.count(Authorization::Allowed);
    assert_eq!(count, 200);
    rig.ask().await.unwrap();
}

#[tokio::test]
async fn an_idle_connection_that_was_closed_loses_no_enquiry() {
    // It closes each connection after one answer, without saying so.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = vec![0; 4_096];
            let _ = stream.read(&mut head).await;
            let body = r#"{"allow":true}"#;
            let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 14";
            let _ = stream
                .write_all(format!("{head}\r\n\r\n{body}").as_bytes())
                .await;
        }
    });
    let backend = Backend::http(|_| Reply::never()).await;
    let rig = Rig::new(backend, |one| one.url = format!("http://127.0.0.1:{port}/"));
    for _ in 0..50 {
        rig.ask().await.unwrap();
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn a_name_that_is_not_there_permits_nothing() {
    let rig = Rig::http(json!({"allow": true})).await;
    let error = rig.all.ask("other", enquiry("ada")).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::Unavailable);
}
