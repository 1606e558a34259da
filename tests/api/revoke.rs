//! Revoking: what reaches the node, what is answered, and each bad request with its exact answer.

use fanfare::api::state::Revoked;
use fanfare::revocation::{ANY_TIME, Target};
use fanfare_protocol::ids::User;
use serde_json::{Value, json};

use crate::fixture::{Mood, Node};

fn ada() -> Target {
    Target::User(User::new("auth0|ada").unwrap())
}

fn jti(id: &str) -> Target {
    Target::Token(id.into())
}

#[tokio::test]
async fn a_user_is_revoked_with_and_without_a_time() {
    let node = Node::start();
    let path = "/v1/users/auth0%7Cada/revoke";
    let answer = node.post_text(path, "").await;
    let told = json!({
        "user": "auth0|ada", "issued_before": 1_732_190_001, "sessions": 0, "waiting": [],
    });
    assert_eq!((answer.status.as_u16(), answer.value()), (200, told));
    let answer = node.post(path, &json!({"issued_before": 7})).await;
    assert_eq!(answer.status.as_u16(), 200);
    assert_eq!(node.post(path, &json!({})).await.status.as_u16(), 200);
    let asked = [None, Some(7), None].map(|at| (vec![ada()], at));
    assert_eq!(*node.directory.revoked.lock().unwrap(), asked);
}

#[tokio::test]
async fn tokens_are_revoked_by_name_or_all_at_once() {
    let node = Node::start();
    let asked = json!({"jti": ["a", "b c"]});
    *node.directory.revoked_as.lock().unwrap() = Revoked::Stored {
        issued_before: ANY_TIME,
        waiting: Vec::new(),
    };
    let answer = node.post("/v1/revoke", &asked).await;
    let told = (answer.status.as_u16(), answer.value());
    assert_eq!(told, (200, json!({"waiting": []})));
    *node.directory.revoked_as.lock().unwrap() = Revoked::Stored {
        issued_before: 9,
        waiting: vec!["node-b".into()],
    };
    let answer = node
        .post("/v1/revoke", &json!({"all": true, "issued_before": 9}))
        .await;
    let told = (answer.status.as_u16(), answer.value());
    assert_eq!(
        told,
        (202, json!({"issued_before": 9, "waiting": ["node-b"]}))
    );
    let asked = [
        (vec![jti("a"), jti("b c")], Some(ANY_TIME)),
        (vec![Target::All], Some(9)),
    ];
    assert_eq!(*node.directory.revoked.lock().unwrap(), asked);
}

#[tokio::test]
async fn each_bad_request_says_what_to_do() {
    let node = Node::start();
    let one = "exactly one of `jti` (a list that is not empty) and `all: true` is needed";
    let time = "`issued_before` must be a time in unix seconds, from 1 to 300 seconds from now";
    let long = "x".repeat(129);
    let many: Vec<_> = (0..101).map(|number| number.to_string()).collect();
    let rows: &[(Value, &str, &str)] = &[
        (json!({}), "bad_request", one),
        (json!({"all": false}), "bad_request", one),
        (json!({"jti": []}), "bad_request", one),
        (json!({"jti": ["a"], "all": true}), "bad_request", one),
        (
            json!({"jti": "a"}),
            "bad_request",
            "the field `jti` must be a list of texts",
        ),
        (
            json!({"jti": [""]}),
            "bad_request",
            "each `jti` must be text of 1 to 128 bytes",
        ),
        (
            json!({"jti": [long]}),
            "bad_request",
            "each `jti` must be text of 1 to 128 bytes",
        ),
        (
            json!({"jti": many}),
            "limit_exceeded",
            "101 jti are more than 100",
        ),
        (
            json!({"all": 1}),
            "bad_request",
            "the field `all` must be true or false",
        ),
        (
            json!({"all": true, "issued_before": 1_732_190_000_000_u64}),
            "bad_request",
            time,
        ),
        (
            json!({"all": true, "issued_before": "now"}),
            "bad_request",
            "the field `issued_before` must be an unsigned integer",
        ),
    ];
    for (body, code, message) in rows {
        let error = node.post("/v1/revoke", body).await.value();
        assert_eq!(error["error"]["code"], *code, "{body}");
        assert_eq!(error["error"]["message"], *message, "{body}");
    }
    let body = json!({"all": true});
    let error = node.post("/v1/users/ada/revoke", &body).await.error();
    assert_eq!(error, (400, "bad_request".into()), "no field of this call");
    let error = node.post_text("/v1/users/a%20b/revoke", "").await.error();
    assert_eq!(error, (400, "invalid_topic".into()));
    assert!(node.directory.revoked.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_time_may_lie_as_far_ahead_as_its_target_allows() {
    let node = Node::start();
    let far = 1_732_190_000_000_u64;
    for (body, ahead_s) in [
        (json!({"all": true, "issued_before": 0}), 300),
        (json!({"all": true, "issued_before": far}), 300),
        (json!({"jti": ["a"], "issued_before": far}), 604_800),
    ] {
        let error = node.post("/v1/revoke", &body).await.value();
        let wanted = format!(
            "`issued_before` must be a time in unix seconds, from 1 to {ahead_s} seconds from now"
        );
        assert_eq!(error["error"]["message"], wanted, "{body}");
    }
    assert!(node.directory.revoked.lock().unwrap().is_empty());
}

#[tokio::test]
async fn one_too_many_and_a_lost_answer_are_told() {
    let node = Node::start();
    *node.directory.revoked_as.lock().unwrap() = Revoked::Full(100_000);
    let answer = node.post_text("/v1/users/ada/revoke", "").await;
    assert_eq!(answer.status.as_u16(), 400);
    assert_eq!(
        answer.value()["error"],
        json!({
            "code": "limit_exceeded",
            "message": "100000 revocations are kept and no more of this kind can be: revoke all tokens at once, or replace the key that signed them; a revocation is forgotten when no token lives that it names",
        })
    );
    node.set(Mood::Lost);
    let answer = node.post("/v1/revoke", &json!({"all": true})).await;
    assert_eq!(answer.error(), (503, "unavailable".into()));
    assert_eq!(answer.headers["retry-after"], "1");
}

#[tokio::test]
async fn whoever_cannot_be_counted_is_put_out_all_the_same() {
    let node = Node::start();
    node.set(Mood::Uncounted);
    let answer = node.post_text("/v1/users/auth0%7Cada/revoke", "").await;
    let told = json!({"user": "auth0|ada", "issued_before": 1_732_190_001, "waiting": []});
    assert_eq!((answer.status.as_u16(), answer.value()), (200, told));
    assert_eq!(
        *node.directory.revoked.lock().unwrap(),
        [(vec![ada()], None)]
    );
}

#[tokio::test]
async fn what_is_still_open_is_said_where_no_more_of_a_kind_can_be_revoked() {
    let node = Node::start();
    *node.directory.revoked_as.lock().unwrap() = Revoked::Full(102_000);
    for (body, says) in [
        (
            json!({"jti": ["a"]}),
            "can be: revoke by user instead of by `jti`, or all tokens at once, or replace the key",
        ),
        (json!({"all": true}), "can be: replace the key"),
    ] {
        let error = node.post("/v1/revoke", &body).await.value();
        let message = error["error"]["message"].as_str().unwrap().to_owned();
        assert!(message.contains(says), "{message}");
    }
}
