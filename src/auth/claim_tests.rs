//! Tests of claims: what a rightly signed token may say, each fault with its answer.

use serde_json::json;

use super::tests::{
    INFO_BYTES_MAX, LIFE_MAX_S, NOW_S, SECRET, auth, claim_of, claims, key, now, refusal, signed,
    simple, valid_claims, with_header, with_payload,
};
use super::verifier::Verifier;
use super::*;
use crate::telemetry::token_metrics::TokenRefusal;
use fanfare_protocol::error::ErrorCode;

#[test]
fn the_end_is_required_and_must_be_a_time() {
    let missing = signed(&claims(json!({"exp": null})));
    assert_eq!(refusal(&simple(), &missing), TokenError::Missing("exp"));
    for exp in [
        "\"1732190060\"",
        "1e308",
        "1e400",
        "-1e308",
        "-1",
        "null",
        "true",
        "[1732190060]",
        "18446744073709551616",
        "1732190060000",
    ] {
        let token = with_payload(&format!(r#"{{"sub":"alice","exp":{exp}}}"#));
        assert_eq!(claim_of(refusal(&simple(), &token)), "exp", "{exp}");
    }
    let fraction = signed(&claims(json!({"exp": NOW_S as f64 + 60.9})));
    assert_eq!(
        simple().session(&fraction, None, now()).unwrap().expires,
        NOW_S + 60
    );
}

#[test]
fn times_are_held_to_the_second_of_the_leeway() {
    let taken = |changes: Value| {
        simple()
            .session(&signed(&claims(changes)), None, now())
            .is_ok()
    };
    let refused = |changes: Value| refusal(&simple(), &signed(&claims(changes)));
    assert!(taken(json!({"exp": NOW_S - 4})));
    assert_eq!(refused(json!({"exp": NOW_S - 5})), TokenError::Expired);
    assert_eq!(refused(json!({"exp": 0})), TokenError::Expired);
    assert!(taken(json!({"nbf": NOW_S + 5, "iat": NOW_S + 5})));
    assert_eq!(refused(json!({"nbf": NOW_S + 6})), TokenError::NotYetValid);
    assert_eq!(
        refused(json!({"iat": NOW_S + 6})),
        TokenError::IssuedInFuture
    );
    for claim in ["nbf", "iat"] {
        for value in [json!("0"), json!(-1), json!(1e308), json!({}), json!(true)] {
            assert_eq!(claim_of(refused(json!({claim: value}))), claim);
        }
        let null = format!(r#"{{"sub":"alice","exp":{},"{claim}":null}}"#, NOW_S + 60);
        assert_eq!(claim_of(refusal(&simple(), &with_payload(&null))), claim);
    }
    // What has ended and is wrong besides is wrong: a refresh would not mend it.
    let both = json!({"exp": NOW_S - 5, "app": "other"});
    assert_eq!(refused(both), TokenError::UnknownApp);
}

#[test]
fn issuer_and_audience_are_required_where_they_are_configured() {
    let mut rules = auth(vec![key(None, "HS256", SECRET)]);
    rules.issuer = Some("https://id.example".to_owned());
    rules.audience = Some("fanfare".to_owned());
    let strict = Verifier::new(&rules, INFO_BYTES_MAX).ok().unwrap();
    let iss = "https://id.example";
    for aud in [json!("fanfare"), json!(["other", "fanfare"])] {
        let token = signed(&claims(json!({"iss": iss, "aud": aud})));
        assert!(strict.session(&token, None, now()).is_ok());
    }
    for wrong in [
        json!("other"),
        json!([]),
        json!(["fanfare2"]),
        json!(5),
        json!({"fanfare": 1}),
    ] {
        let token = signed(&claims(json!({"iss": iss, "aud": wrong})));
        assert_eq!(claim_of(refusal(&strict, &token)), "aud");
    }
    let no_audience = signed(&claims(json!({"iss": iss})));
    assert_eq!(claim_of(refusal(&strict, &no_audience)), "aud");
    for wrong in [
        json!("https://id.example/"),
        json!(["https://id.example"]),
        json!(5),
        json!(null),
    ] {
        let token = signed(&claims(json!({"iss": wrong, "aud": "fanfare"})));
        assert_eq!(claim_of(refusal(&strict, &token)), "iss");
    }
    let foreign = signed(&claims(json!({"iss": "anybody", "aud": ["anything"]})));
    assert!(simple().session(&foreign, None, now()).is_ok());
}

#[test]
fn names_in_claims_must_be_names() {
    let refused = |changes: Value| refusal(&simple(), &signed(&claims(changes)));
    assert_eq!(refused(json!({"sub": null})), TokenError::Missing("sub"));
    let long = "u".repeat(200);
    for sub in [
        json!(""),
        json!("a b"),
        json!("a{b}"),
        json!("ä"),
        json!("a\n"),
        json!(long),
        json!(7),
    ] {
        assert_eq!(claim_of(refused(json!({"sub": sub}))), "sub");
    }
    assert_eq!(signed_user("auth0|5f7c"), "auth0|5f7c");
    for app in ["other", "Default", ""] {
        assert_eq!(refused(json!({"app": app})), TokenError::UnknownApp);
    }
    for app in [json!(["default"]), json!(5)] {
        assert_eq!(claim_of(refused(json!({"app": app}))), "app");
    }
    assert_eq!(claim_of(refused(json!({"jti": 5}))), "jti");
    for can in [
        json!([]),
        json!("**"),
        json!({"subscribe": "**"}),
        json!({"publish": ["a*"]}),
    ] {
        assert_eq!(claim_of(refused(json!({"can": can}))), "can");
    }
    let null = format!(r#"{{"sub":"alice","exp":{},"can":null}}"#, NOW_S + 60);
    assert_eq!(claim_of(refusal(&simple(), &with_payload(&null))), "can");
}

fn signed_user(sub: &str) -> String {
    let token = signed(&claims(json!({"sub": sub})));
    simple()
        .session(&token, None, now())
        .unwrap()
        .user
        .to_string()
}

#[test]
fn a_claim_or_header_that_is_there_twice_refuses_the_token() {
    let exp = NOW_S + 60;
    for (payload, name) in [
        (
            format!(r#"{{"sub":"alice","sub":"bob","exp":{exp}}}"#),
            "sub",
        ),
        (
            format!(r#"{{"sub":"alice","exp":{exp},"exp":{exp}}}"#),
            "exp",
        ),
        (
            format!(r#"{{"sub":"alice","exp":{exp},"\u0073ub":"bob"}}"#),
            "sub",
        ),
    ] {
        assert_eq!(
            refusal(&simple(), &with_payload(&payload)),
            TokenError::Twice(name)
        );
    }
    let header = with_header(r#"{"alg":"HS256","alg":"none"}"#);
    assert_eq!(refusal(&simple(), &header), TokenError::Twice("alg"));
}

#[test]
fn info_is_bounded_and_null_is_none() {
    let fits = "x".repeat(INFO_BYTES_MAX - 2);
    let info =
        |value: Value| simple().session(&signed(&claims(json!({"info": value}))), None, now());
    assert_eq!(
        info(json!(fits)).unwrap().info,
        Some(Info::from(&json!(fits)))
    );
    let over = "x".repeat(INFO_BYTES_MAX - 1);
    assert_eq!(
        info(json!(over)),
        Err(TokenError::InfoTooLarge(INFO_BYTES_MAX))
    );
    let null = format!(r#"{{"sub":"alice","exp":{},"info":null}}"#, NOW_S + 60);
    assert_eq!(
        simple()
            .session(&with_payload(&null), None, now())
            .unwrap()
            .info,
        None
    );
}

#[test]
fn a_token_for_one_topic_opens_that_topic_and_no_session() {
    let for_topic = |topic: Value| signed(&claims(json!({"topic": topic})));
    let token = for_topic(json!("orders:7"));
    let (claims, topic) = simple().topic(&token, None, now()).unwrap();
    assert_eq!(
        (claims.user.as_str(), topic.as_str()),
        ("alice", "orders:7")
    );
    assert_eq!(refusal(&simple(), &token), TokenError::ForOneTopic);
    let session = signed(&valid_claims());
    assert_eq!(
        simple().topic(&session, None, now()),
        Err(TokenError::Missing("topic"))
    );
    for wrong in [
        json!(""),
        json!("a b"),
        json!("@alice"),
        json!("@"),
        json!("%a"),
        json!(5),
    ] {
        let error = simple().topic(&for_topic(wrong), None, now()).unwrap_err();
        assert_eq!(claim_of(error), "topic");
    }
    let null = format!(r#"{{"sub":"alice","exp":{},"topic":null}}"#, NOW_S + 60);
    assert_eq!(
        refusal(&simple(), &with_payload(&null)),
        TokenError::ForOneTopic
    );
    let later = now() + Duration::from_secs(65);
    assert_eq!(
        simple().topic(&token, None, later),
        Err(TokenError::Expired)
    );
}

#[test]
fn no_token_lives_longer_than_it_may() {
    let refused = |changes: Value| refusal(&simple(), &signed(&claims(changes)));
    let taken = |changes: Value| {
        simple()
            .session(&signed(&claims(changes)), None, now())
            .is_ok()
    };
    let year = TokenError::LivesTooLong(LIFE_MAX_S);
    assert_eq!(refused(json!({"exp": NOW_S + 31_536_000})), year);
    assert_eq!(
        (year.code(), year.reason()),
        (ErrorCode::Unauthorized, TokenRefusal::LivesTooLong)
    );
    assert_eq!(
        year.to_string(),
        "the token's `exp` may be at most 604800 seconds after its `iat` and after now \
         (`auth.token_life_max_s`): issue tokens for a shorter time"
    );
    // Without `iat` from now on, with the leeway of the other times; with `iat` from there on.
    assert!(taken(json!({"exp": NOW_S + LIFE_MAX_S + 5})));
    assert_eq!(refused(json!({"exp": NOW_S + LIFE_MAX_S + 6})), year);
    let issued = NOW_S - LIFE_MAX_S + 60;
    assert!(taken(json!({"iat": issued, "exp": issued + LIFE_MAX_S})));
    let longer = json!({"iat": issued, "exp": issued + LIFE_MAX_S + 1});
    assert_eq!(refused(longer), year);
}

#[test]
fn claims_say_when_the_token_was_issued_and_what_it_is_called() {
    let said = |changes: Value| simple().session(&signed(&claims(changes)), None, now());
    let none = said(json!({})).unwrap();
    assert_eq!((none.issued, none.id), (0, None));
    let both = said(json!({"iat": NOW_S as f64 - 0.5, "jti": "a b"})).unwrap();
    assert_eq!((both.issued, both.id.as_deref()), (NOW_S - 1, Some("a b")));
    let longest = "é".repeat(ID_BYTES_MAX / 2);
    assert!(said(json!({"jti": longest})).is_ok());
    let error = said(json!({"jti": longest + "x"})).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the token's claim `jti` must be text of at most 128 bytes"
    );
    assert_eq!(claim_of(said(json!({"jti": 7})).unwrap_err()), "jti");
}
