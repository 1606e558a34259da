//! Who may do what: namespace rules, `can`, tokens for one topic, and what a refresh takes away.

use super::*;
use crate::config::Allow;
use crate::config::app::AppSettings;
use crate::session::settings::Judged;

const NAMESPACES: [&str; 4] = ["open:t", "users:t", "token:t", "nobody:t"];

fn with_token(topic: &str, token: String) -> Command {
    Command::Subscribe(Subscribe {
        topic: topic.into(),
        token: Some(token),
        presence: true,
        ..Subscribe::default()
    })
}

/// From now on the app of the session sets this.
fn set(asked: &mut Asked, change: impl FnOnce(&mut Config)) {
    let settings = AppSettings::of_default(&config(change));
    asked.machine.settings = Arc::new(settings);
}

fn as_member(topic: &str) -> Command {
    Command::Subscribe(Subscribe {
        topic: topic.into(),
        presence: true,
        ..Subscribe::default()
    })
}

/// Which of the four namespaces let the session subscribe, publish, read history, see members.
fn allowed(asked: &mut Asked) -> [[bool; 4]; 4] {
    let commands: [fn(&str) -> Command; 4] = [
        subscribe,
        |topic| Command::Publish(publish(topic)),
        |topic| history(topic, None),
        |topic| members(topic, None),
    ];
    commands.map(|command| {
        NAMESPACES.map(|topic| match asked.refusal(command(topic)) {
            None => true,
            Some(ErrorCode::Forbidden) => false,
            Some(other) => panic!("{topic}: {other:?}"),
        })
    })
}

#[test]
fn the_namespace_says_who_may_and_can_restricts_per_operation() {
    // Per operation: anyone, authenticated, token, nobody.
    let none = [false; 4];
    let anyone = [true, false, false, false];
    let users = [true, true, false, false];
    let named = [true, true, true, false];
    assert_eq!(allowed(&mut Asked::anonymous()), [anyone; 4]);
    assert_eq!(allowed(&mut Asked::of("ada", json!({}))), [users; 4]);
    let can = json!({"can": {"subscribe": ["*:t"]}});
    assert_eq!(
        allowed(&mut Asked::of("ada", can)),
        [named, none, none, none]
    );
    let can = json!({"can": {"publish": ["**"], "presence": ["*:t"]}});
    assert_eq!(
        allowed(&mut Asked::of("ada", can)),
        [none, named, none, named]
    );
    let can = json!({"can": {"history": ["users:*", "token:t"]}});
    let in_two = [false, true, true, false];
    assert_eq!(
        allowed(&mut Asked::of("ada", can)),
        [none, none, in_two, none]
    );
}

#[test]
fn an_inbox_is_written_by_whom_the_configuration_and_the_token_allow() {
    let to = |user: &str| Command::Publish(publish(&format!("@{user}")));
    let mut plain = Asked::of("ada", json!({"can": {"publish": ["**"]}}));
    assert_eq!(plain.refusal(to("bob")), Some(ErrorCode::Forbidden));
    let mut anonymous = Asked::anonymous();
    assert_eq!(anonymous.refusal(to("bob")), Some(ErrorCode::Forbidden));
    let mut named = Asked::of("ada", json!({"can": {"publish": ["@*"]}}));
    assert_eq!(named.refusal(to("bob")), None);
    assert_eq!(named.refusal(to("ada")), None);
    set(&mut named, |c| c.inbox.publish = Allow::Nobody);
    assert_eq!(named.refusal(to("bob")), Some(ErrorCode::Forbidden));
}

#[test]
fn the_own_inbox_is_read_without_a_can_unless_nobody_may() {
    let mut ada = Asked::of("ada", json!({"can": {"history": ["t"]}}));
    let own = || history("@ada", None);
    for (rule, expected) in [
        (Allow::Anyone, None),
        (Allow::Authenticated, None),
        (Allow::Token, None),
        (Allow::Nobody, Some(ErrorCode::Forbidden)),
    ] {
        set(&mut ada, |c| c.inbox.history = rule);
        assert_eq!(ada.refusal(own()), expected, "{rule:?}");
        let other = ada.refusal(history("@bob", None));
        assert_eq!(other, Some(ErrorCode::Forbidden));
    }
}

#[test]
fn a_token_for_one_topic_lets_its_subscriber_join_see_members_and_read_but_not_write() {
    let of = |claims| token("ada", claims);
    let mut ada = Asked::of("ada", json!({"can": {}}));
    let refused = [
        (of(json!({"topic": "token:other"})), ErrorCode::Forbidden),
        (
            token("bob", json!({"topic": "token:t"})),
            ErrorCode::Forbidden,
        ),
        (of(json!({})), ErrorCode::Unauthorized),
        (
            of(json!({"topic": "token:t", "exp": START_S - 6})),
            ErrorCode::TokenExpired,
        ),
        ("garbage".to_owned(), ErrorCode::Unauthorized),
    ];
    for (token, code) in refused {
        assert_eq!(ada.refusal(with_token("token:t", token)), Some(code));
    }
    let before = [history("token:t", None), members("token:t", None)];
    for command in before {
        assert_eq!(ada.refusal(command), Some(ErrorCode::Forbidden));
    }
    let good = of(json!({"topic": "token:t"}));
    assert_eq!(ada.refusal(with_token("token:t", good.clone())), None);
    assert_eq!(ada.refusal(history("token:t", None)), None);
    assert_eq!(ada.refusal(members("token:t", None)), None);
    let write = Command::Publish(publish("token:t"));
    assert_eq!(ada.refusal(write), Some(ErrorCode::Forbidden));
    assert_eq!(
        ada.refusal(subscribe("token:other")),
        Some(ErrorCode::Forbidden)
    );
    // It ends with the subscription.
    assert_eq!(ada.refusal(unsubscribe("token:t")), None);
    let after = ada.refusal(history("token:t", None));
    assert_eq!(after, Some(ErrorCode::Forbidden));

    let nobody = of(json!({"topic": "nobody:t"}));
    let refused = ada.refusal(with_token("nobody:t", nobody));
    assert_eq!(refused, Some(ErrorCode::Forbidden), "nobody means nobody");
    let mut anonymous = Asked::anonymous();
    let refused = anonymous.refusal(with_token("token:t", good));
    assert_eq!(refused, Some(ErrorCode::Forbidden), "it has no user");
}

#[test]
fn membership_needs_a_namespace_that_keeps_members_and_the_right_to_be_one() {
    let mut ada = Asked::of("ada", json!({}));
    assert_eq!(ada.refusal(as_member("open:t")), None);
    assert_eq!(ada.refusal(as_member("bare:t")), Some(ErrorCode::Forbidden));
    assert_eq!(
        ada.refusal(members("bare:t", None)),
        Some(ErrorCode::Forbidden)
    );
    let only_subscribe = json!({"can": {"subscribe": ["**"]}});
    let mut bob = Asked::of("bob", only_subscribe);
    assert_eq!(bob.refusal(as_member("open:t")), Some(ErrorCode::Forbidden));
    assert_eq!(bob.refusal(subscribe("open:t")), None, "it was not joined");
}

#[test]
fn a_refresh_is_for_the_same_user_only() {
    let mut ada = Asked::of("ada", json!({}));
    let cases = [
        (token("bob", json!({})), ErrorCode::Forbidden),
        (
            token("ada", json!({"exp": START_S - 6})),
            ErrorCode::TokenExpired,
        ),
        (token("ada", json!({"topic": "t"})), ErrorCode::Unauthorized),
        ("garbage".into(), ErrorCode::Unauthorized),
    ];
    for (token, code) in cases {
        assert_eq!(ada.refusal(refresh(token)), Some(code));
    }
    let claims = ada.machine.identity().claims.clone().unwrap();
    assert_eq!(claims.expires, START_S + 3_600, "nothing has changed");
    let mut anonymous = Asked::anonymous();
    let refused = anonymous.refusal(refresh(token("ada", json!({}))));
    assert_eq!(refused, Some(ErrorCode::Forbidden));
}

#[test]
fn a_refresh_moves_the_end_and_takes_what_the_new_token_does_not_allow() {
    let all = json!({"can": {"subscribe": ["**"], "presence": ["**"]}});
    let mut ada = Asked::of("ada", all.clone());
    for topic in ["open:kept", "open:lost", "token:lost"] {
        assert_eq!(ada.refusal(subscribe(topic)), None);
    }
    for topic in ["open:member", "users:member"] {
        assert_eq!(ada.refusal(as_member(topic)), None);
    }
    let for_topic = token("ada", json!({"topic": "token:by-token"}));
    assert_eq!(ada.refusal(with_token("token:by-token", for_topic)), None);

    let less = json!({
        "exp": START_S + 7_200,
        "can": {"subscribe": ["*:kept", "*:member"], "presence": ["open:member"]},
    });
    let request = ada.tell(refresh(token("ada", less)));
    let Ok(Request::Refreshed(expires)) = request else {
        panic!("{request:?}");
    };
    assert_eq!(expires, START_S + 7_200);
    let judged: Vec<_> = std::iter::from_fn(|| ada.machine.judge_next()).collect();
    let mut lost: Vec<_> = judged
        .iter()
        .filter_map(|(topic, judged)| match judged {
            Judged::Lost(member) => Some((topic.name(), *member)),
            _ => None,
        })
        .collect();
    lost.sort_unstable();
    assert_eq!(
        lost,
        [
            ("open:lost", false),
            ("token:lost", false),
            ("users:member", true)
        ]
    );
    let mut left: Vec<_> = ada.machine.joined.iter().map(|j| j.topic.name()).collect();
    left.sort_unstable();
    assert_eq!(left, ["open:kept", "open:member", "token:by-token"]);
    // What was lost can be joined again by a token that allows it.
    assert_eq!(
        ada.refusal(subscribe("open:lost")),
        Some(ErrorCode::Forbidden)
    );
    assert!(ada.tell(refresh(token("ada", all))).is_ok());
    assert_eq!(ada.refusal(subscribe("open:lost")), None);
}

/// What the topics are limited to by a new token, by name.
fn limits(ada: &mut Asked, can: Value) -> Vec<(String, bool)> {
    let request = ada.tell(refresh(token("ada", json!({"can": can}))));
    assert!(matches!(request, Ok(Request::Refreshed(_))), "{request:?}");
    let judged = std::iter::from_fn(|| ada.machine.judge_next());
    let mut limits: Vec<_> = judged
        .filter_map(|(topic, judged)| match judged {
            Judged::Limited(is_limited) => Some((topic.name().to_owned(), is_limited)),
            _ => None,
        })
        .collect();
    limits.sort_unstable();
    limits
}

#[test]
fn a_refresh_says_which_topics_may_be_read_back_otherwise() {
    let can = json!({"subscribe": ["**"], "history": ["open:a", "open:b", "@"]});
    let mut ada = Asked::of("ada", json!({"can": can.clone()}));
    for topic in ["open:a", "open:b", "open:c", "nobody:d"] {
        let _ = ada.refusal(subscribe(topic));
    }
    let by_token = token("ada", json!({"topic": "open:e"}));
    assert_eq!(ada.refusal(with_token("open:e", by_token)), None);
    assert_eq!(limits(&mut ada, can.clone()), []);
    let less = json!({"subscribe": ["**"], "history": ["open:b"]});
    // What is read by a token for the topic, and the own inbox, stay as they are.
    let lost = [("@".to_owned(), true), ("open:a".to_owned(), true)];
    assert_eq!(limits(&mut ada, less), lost);
    let got = lost.map(|(topic, _)| (topic, false));
    assert_eq!(limits(&mut ada, can), got);
}

#[test]
fn a_token_for_a_topic_lets_it_be_read_back_from_then_on() {
    let can = json!({"subscribe": ["**"], "history": ["open:known"]});
    let mut ada = Asked::of("ada", json!({"can": can}));
    for (topic, unlimited) in [("open:new", true), ("open:known", false)] {
        assert_eq!(ada.refusal(subscribe(topic)), None);
        let by_token = token("ada", json!({"topic": topic}));
        let request = ada.tell(with_token(topic, by_token));
        let Ok(Request::Amend(amendment)) = request else {
            panic!("{request:?}");
        };
        assert_eq!(amendment.unlimited, unlimited, "{topic}");
    }
}
