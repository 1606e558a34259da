//! `fanfare revoke`: what it asks, what it prints, and what it refuses to ask.

use serde_json::json;

use crate::commands::{PlayedApi, json_lines, run};

#[test]
fn a_user_tokens_and_all_are_revoked_by_their_calls() {
    let stored = json!({"user": "auth0|x", "issued_before": 9, "sessions": 2, "waiting": []});
    let of_tokens = json!({"waiting": ["node-b", "node-c"]});
    let of_all = json!({"issued_before": 7, "waiting": []});
    let answers = [(200, stored.clone()), (202, of_tokens), (200, of_all)];
    let api = PlayedApi::start(answers);
    let url = api.url();
    let call = |more: &[&str]| run(&[&["revoke", "--api-url", &url], more].concat());

    let output = call(&["--user", "auth0|x"]);
    assert_eq!(json_lines(&output), [stored]);
    assert_eq!(api.asked()[0].line, "POST /v1/users/auth0%7Cx/revoke");
    assert_eq!(api.asked()[0].body, json!({}));

    let output = call(&["--jti", "a", "--jti", "b", "--format", "text"]);
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(told, "revoked tokens by name: 2\n");
    let note = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(note.contains("not read yet by: node-b, node-c"), "{note}");
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(api.asked()[1].line, "POST /v1/revoke");
    assert_eq!(api.asked()[1].body, json!({"jti": ["a", "b"]}));

    let output = call(&["--all", "--issued-before", "7", "--format", "text"]);
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(told, "revoked all tokens issued before 7\n");
    let asked = json!({"all": true, "issued_before": 7});
    assert_eq!(api.asked()[2].body, asked);
}

#[test]
fn exactly_one_of_user_jti_and_all_is_needed() {
    for more in [
        &[][..],
        &["--all", "--user", "ada"],
        &["--jti", "a", "--all"],
    ] {
        let output = run(&[&["revoke"], more].concat());
        assert_eq!(output.status.code(), Some(64), "{more:?}");
    }
}

#[test]
fn a_refusal_is_told_with_its_reason() {
    let error =
        json!({"error": {"code": "limit_exceeded", "message": "100000 revocations are kept"}});
    let api = PlayedApi::start([(400, error)]);
    let output = run(&["revoke", "--all", "--api-url", &api.url()]);
    assert_eq!(output.status.code(), Some(1));
    let note = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(note.contains("100000 revocations are kept"), "{note}");
}
