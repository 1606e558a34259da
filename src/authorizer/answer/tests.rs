//! Answers of each kind, and those that cannot be used, by values.

use serde_json::{Value, json};

use super::super::enquiry::Asker;
use super::*;
use crate::config::load::defaults;
use fanfare_protocol::ids::{App, SessionId, Topic};

const NOW_S: u64 = 1_800_000_000;

fn enquiry(kind: Kind, user: Option<&str>) -> Enquiry {
    let app = App::default_app();
    let user = user.map(|name| User::new(name).unwrap());
    let asker = Asker::new(
        &app,
        user.as_ref(),
        SessionId::random(),
        defaults().auth.token_life_max,
    );
    let topic = Topic::new(&app, "chat:1").unwrap();
    match kind {
        Kind::Connect => Enquiry::connect(asker, false),
        Kind::Subscribe => Enquiry::subscribe(asker, &topic, false),
        Kind::Publish => {
            let data = Data::from_json(b"1").unwrap();
            Enquiry::publish(asker, &topic, (&data, None), None)
        }
    }
}

fn said(kind: Kind, user: Option<&str>, answer: &str) -> Result<Answer, Unusable> {
    let now = UNIX_EPOCH + Duration::from_secs(NOW_S);
    let limits = Limits::from(&defaults());
    read(answer.as_bytes(), &enquiry(kind, user), &limits, now)
}

fn granted(kind: Kind, user: Option<&str>, answer: &Value) -> Granted {
    match said(kind, user, &answer.to_string()) {
        Ok(Answer::Allowed(granted)) => *granted,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_no_is_a_no_whatever_else_it_says_and_its_reason_is_told_where_it_is_short() {
    let long = "x".repeat(REASON_BYTES_MAX + 1);
    for (reason, told) in [
        (json!(null), None),
        (json!("too late"), Some("too late".to_owned())),
        (json!(""), None),
        (json!(5), None),
        (json!("two\nlines"), None),
        (json!(long), None),
    ] {
        let answer = json!({"allow": false, "reason": reason, "user": 5, "topic": "other"});
        let said = said(Kind::Subscribe, None, &answer.to_string());
        assert_eq!(said, Ok(Answer::Denied(told)), "{reason}");
    }
}

#[test]
fn connect_may_say_who_it_is_and_no_other_than_it_is() {
    let can = json!({"publish": ["chat:**"]});
    let answer = json!({
        "allow": true, "user": "ada", "can": can, "info": {"n": 1}, "expires": NOW_S + 60, "more": 1,
    });
    let made = granted(Kind::Connect, None, &answer);
    assert_eq!(made.user, User::new("ada").ok());
    assert_eq!(made.expires, Some(NOW_S + 60));
    assert!(made.can.is_some() && made.info.is_some());
    let same = granted(Kind::Connect, Some("ada"), &answer);
    assert_eq!(same, made);
    let other = said(Kind::Connect, Some("bob"), &answer.to_string());
    assert_eq!(other, Err(Unusable::Lying("it changes the user")));
}

#[test]
fn publish_may_replace_data_and_key() {
    let answer = json!({"allow": true, "data": null, "key": "k", "topic": "chat:1"});
    let replaced = granted(Kind::Publish, None, &answer);
    assert_eq!(replaced.data, Data::from_json(b"null").ok());
    assert_eq!(replaced.key.as_deref(), Some("k"));
    let same = granted(Kind::Publish, None, &json!({"allow": true}));
    assert_eq!(same, Granted::default());
}

#[test]
fn what_was_not_asked_for_is_a_lie() {
    let rows = [
        (
            Kind::Subscribe,
            json!({"user": "ada"}),
            "`user` is granted by `connect` only",
        ),
        (
            Kind::Publish,
            json!({"user": null}),
            "`user` is granted by `connect` only",
        ),
        (
            Kind::Subscribe,
            json!({"can": {}}),
            "`can` and `info` are granted by `connect` only",
        ),
        (
            Kind::Publish,
            json!({"info": 1}),
            "`can` and `info` are granted by `connect` only",
        ),
        (
            Kind::Connect,
            json!({"data": 1}),
            "`data` and `key` are replaced by `publish` only",
        ),
        (
            Kind::Subscribe,
            json!({"key": "k"}),
            "`data` and `key` are replaced by `publish` only",
        ),
        (
            Kind::Publish,
            json!({"topic": "chat:2"}),
            "it names another topic",
        ),
        (
            Kind::Subscribe,
            json!({"topic": 5}),
            "it names another topic",
        ),
        (
            Kind::Connect,
            json!({"topic": "chat:1"}),
            "it names another topic",
        ),
    ];
    for (kind, mut answer, why) in rows {
        answer["allow"] = true.into();
        let said = said(kind, Some("ada"), &answer.to_string());
        assert_eq!(said, Err(Unusable::Lying(why)), "{answer}");
    }
}

type Row = (String, &'static str);

/// What none of the three may be answered.
fn of_all() -> Vec<Row> {
    let late = NOW_S + 604_801;
    let form = "`expires` is no whole number of seconds";
    let allow = "`allow` is not true or false";
    vec![
        (String::new(), "the answer is no JSON map"),
        ("[true]".into(), "the answer is no JSON map"),
        ("{}".into(), allow),
        (r#"{"allow":"true"}"#.into(), allow),
        (r#"{"allow":null}"#.into(), allow),
        (
            r#"{"allow":false,"allow":true}"#.into(),
            "a field is there twice",
        ),
        (yes(r#""expires":"1""#), form),
        (yes(r#""expires":1.5"#), form),
        (yes(r#""expires":1800000000"#), "`expires` is past"),
        (
            yes(&format!(r#""expires":{late}"#)),
            "`expires` is later than auth.token_life_max_s allows",
        ),
    ]
}

/// JSON that nests too deep.
fn deep() -> String {
    "[".repeat(65) + &"]".repeat(65)
}

fn of_connect() -> Vec<Row> {
    let (info, deep) = ("x".repeat(2_048), deep());
    let can = format!(r#"{{"publish":["{}"]}}"#, "c".repeat(8_192));
    let map = "`can` is no map from operations to lists of patterns";
    let long = "`info` is longer than session.info_bytes_max";
    vec![
        (yes(r#""user":5"#), "`user` is no text"),
        (yes(r#""user":"a b""#), "`user` cannot be the name of one"),
        (yes(r#""user":"a","can":[]"#), map),
        (
            yes(&format!(r#""user":"a","can":{can}"#)),
            "`can` is longer than auth.token_bytes_max",
        ),
        (
            yes(&format!(r#""user":"a","info":{deep}"#)),
            "`info` is no JSON that `data` may be",
        ),
        (yes(&format!(r#""user":"a","info":"{info}""#)), long),
        (
            yes(r#""info":1"#),
            "`expires`, `can` and `info` need a `user`",
        ),
    ]
}

fn of_publish() -> Vec<Row> {
    let (key, deep) = ("k".repeat(129), deep());
    let size = "`key` is empty, or longer than session.key_bytes_max";
    vec![
        (
            yes(&format!(r#""data":{deep}"#)),
            "`data` is no JSON that a client may send",
        ),
        (yes(r#""key":5"#), "`key` is no text"),
        (yes(r#""key":"""#), size),
        (yes(&format!(r#""key":"{key}""#)), size),
    ]
}

#[test]
fn garbage_is_told_from_an_answer() {
    for (kind, rows) in [
        (Kind::Connect, of_all()),
        (Kind::Subscribe, of_all()),
        (Kind::Publish, of_all()),
        (Kind::Connect, of_connect()),
        (Kind::Publish, of_publish()),
    ] {
        for (answer, why) in rows {
            let said = said(kind, None, &answer);
            assert_eq!(said, Err(Unusable::Garbage(why)), "{kind:?} {answer}");
        }
    }
    // Longer than a client's message, though not than an answer.
    let mut limits = Limits::from(&defaults());
    limits.data_bytes_max = 3;
    let long = yes(r#""data":"long""#);
    let asked = enquiry(Kind::Publish, None);
    let read = read(long.as_bytes(), &asked, &limits, UNIX_EPOCH);
    let why = "`data` is longer than session.message_bytes_max";
    assert_eq!(read, Err(Unusable::Garbage(why)));
}

fn yes(more: &str) -> String {
    format!(r#"{{"allow":true,{more}}}"#)
}
