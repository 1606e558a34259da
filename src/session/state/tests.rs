//! The session's rules by values: no socket, no broker, a clock that the tests set.

use super::*;
use crate::session::rig::{Clocks, START_S, config, machine, token};
use bytes::Bytes;
use fanfare_protocol::command::Subscribe;
use fanfare_protocol::data::Data;
use serde_json::{Value, json};

mod rights;

/// A machine with its time, asked in few words.
pub(super) struct Asked {
    pub(super) machine: Machine,
    pub(super) now: Now,
}

impl Asked {
    fn unauthenticated(change: impl FnOnce(&mut Config)) -> Self {
        let now = Clocks::new().start();
        let machine = machine(&config(change), now);
        Self { machine, now }
    }

    /// An open session of this user, with these claims beside `sub` and `exp`.
    pub(super) fn of(user: &str, claims: Value) -> Self {
        let mut asked = Self::unauthenticated(|_| {});
        let token = token(user, claims);
        let request = asked.tell(connect(Some(&token)));
        assert!(matches!(request, Ok(Request::Open(_))), "{request:?}");
        asked.machine.opened();
        asked
    }

    pub(super) fn anonymous() -> Self {
        let mut asked = Self::unauthenticated(|c| c.auth.anonymous = true);
        assert!(matches!(asked.tell(connect(None)), Ok(Request::Open(_))));
        asked.machine.opened();
        asked
    }

    fn tell(&mut self, command: Command) -> Result<Request, Refusal> {
        self.machine.command(command, self.now)
    }

    /// The code of the refusal; `None` when it is carried out.
    pub(super) fn refusal(&mut self, command: Command) -> Option<ErrorCode> {
        match self.tell(command) {
            Ok(_) => None,
            Err(refusal) => {
                assert_eq!(refusal.end, None, "only a bad `connect` ends a session");
                Some(refusal.error.code)
            }
        }
    }
}

fn connect(token: Option<&str>) -> Command {
    Command::Connect(Connect {
        token: token.map(Into::into),
        ..Connect::default()
    })
}

pub(super) fn subscribe(topic: &str) -> Command {
    Command::Subscribe(Subscribe {
        topic: topic.into(),
        ..Subscribe::default()
    })
}

fn unsubscribe(topic: &str) -> Command {
    Command::Unsubscribe {
        topic: topic.into(),
    }
}

pub(super) fn publish(topic: &str) -> Publish {
    Publish {
        topic: Some(topic.into()),
        user: None,
        data: Data::Json(Bytes::from_static(b"1")),
        priority: None,
        idempotency_key: None,
        key: None,
        conflate: None,
        ttl_ms: None,
        echo: false,
        traceparent: None,
    }
}

pub(super) fn history(topic: &str, limit: Option<u32>) -> Command {
    Command::History(History {
        topic: topic.into(),
        limit,
        ..History::default()
    })
}

pub(super) fn members(topic: &str, limit: Option<u32>) -> Command {
    Command::Presence {
        topic: topic.into(),
        after: None,
        limit,
    }
}

fn refresh(token: String) -> Command {
    Command::Refresh { token }
}

fn ack() -> Command {
    Command::Ack {
        position: Position::default(),
    }
}

/// One of every command but `connect`.
fn all_commands() -> Vec<Command> {
    vec![
        subscribe("t"),
        unsubscribe("t"),
        Command::Publish(publish("t")),
        ack(),
        history("t", None),
        members("t", None),
        refresh(token("ada", json!({}))),
        Command::Ping,
    ]
}

#[test]
fn before_welcome_every_command_but_connect_is_unauthorized_and_changes_nothing() {
    let mut asked = Asked::unauthenticated(|_| {});
    for command in all_commands() {
        let refused = asked.refusal(command);
        assert_eq!(refused, Some(ErrorCode::Unauthorized));
    }
    let token = token("ada", json!({}));
    assert!(matches!(
        asked.tell(connect(Some(&token))),
        Ok(Request::Open(_))
    ));
    for command in all_commands() {
        let refused = asked.refusal(command);
        assert_eq!(refused, Some(ErrorCode::Unauthorized), "still opening");
    }
    asked.machine.opened();
    assert_eq!(asked.refusal(Command::Ping), None);
    assert_eq!(
        asked.machine.joined.len(),
        0,
        "no refused subscribe is kept"
    );
}

#[test]
fn a_second_connect_is_a_bad_request_and_ten_of_them_end_the_session() {
    let mut opening = Asked::unauthenticated(|c| c.auth.anonymous = true);
    assert!(opening.tell(connect(None)).is_ok());
    let open = Asked::of("ada", json!({}));
    for mut asked in [opening, open] {
        for nth in 1..=10 {
            let refusal = asked.tell(connect(None)).unwrap_err();
            assert_eq!(refusal.error.code, ErrorCode::BadRequest);
            let end = (nth == 10).then_some(CloseReason::BadCommands);
            assert_eq!(refusal.end, end, "{nth}");
        }
    }
}

#[test]
fn ten_unreadable_commands_in_a_row_end_the_session_and_a_readable_one_breaks_the_row() {
    let mut asked = Asked::of("ada", json!({}));
    for _ in 0..9 {
        assert_eq!(asked.machine.malformed(), None);
    }
    assert_eq!(asked.refusal(Command::Ping), None);
    for _ in 0..9 {
        assert_eq!(asked.machine.malformed(), None);
    }
    assert_eq!(asked.machine.malformed(), Some(CloseReason::BadCommands));

    // Unreadable commands and second connects are one row.
    let mut asked = Asked::of("ada", json!({}));
    for _ in 0..9 {
        assert_eq!(asked.machine.malformed(), None);
    }
    let refusal = asked.tell(connect(None)).unwrap_err();
    assert_eq!(refusal.end, Some(CloseReason::BadCommands));

    // A first connect breaks it too, and a command that comes too early is readable.
    let mut asked = Asked::unauthenticated(|c| c.auth.anonymous = true);
    for _ in 0..9 {
        assert_eq!(asked.machine.malformed(), None);
    }
    assert_eq!(asked.refusal(Command::Ping), Some(ErrorCode::Unauthorized));
    for _ in 0..9 {
        assert_eq!(asked.machine.malformed(), None);
    }
    assert!(asked.tell(connect(None)).is_ok());
    assert_eq!(asked.machine.malformed(), None);
}

#[test]
fn anonymous_sessions_are_let_in_only_where_they_are_allowed() {
    let mut refused = Asked::unauthenticated(|_| {});
    let code = refused.refusal(connect(None));
    assert_eq!(code, Some(ErrorCode::Unauthorized));
    // It may still bring a token before its deadline.
    let token = token("ada", json!({}));
    assert!(refused.tell(connect(Some(&token))).is_ok());
    let anonymous = Asked::anonymous();
    assert_eq!(anonymous.machine.inbox(), None);
    assert!(anonymous.machine.identity().user.is_none());
}

#[test]
fn a_bad_token_in_connect_ends_the_session_with_the_code_of_its_fault() {
    let expired = token("ada", json!({"exp": START_S - 6}));
    let cases = [
        (expired, ErrorCode::TokenExpired, CloseReason::TokenExpired),
        (
            "garbage".to_owned(),
            ErrorCode::Unauthorized,
            CloseReason::Unauthorized,
        ),
        (
            token("ada", json!({"topic": "t"})),
            ErrorCode::Unauthorized,
            CloseReason::Unauthorized,
        ),
    ];
    for (token, code, reason) in cases {
        let mut asked = Asked::unauthenticated(|_| {});
        let refusal = asked.tell(connect(Some(&token))).unwrap_err();
        assert_eq!((refusal.error.code, refusal.end), (code, Some(reason)));
    }
}

#[test]
fn a_connect_may_bring_a_token_of_the_handshakes_user_and_of_nobody_else() {
    let identity = || Identity {
        user: User::new("ada").ok(),
        claims: None,
    };
    let mut asked = Asked::unauthenticated(|_| {});
    asked.machine.identify(identity());
    let other = token("bob", json!({}));
    assert_eq!(
        asked.refusal(connect(Some(&other))),
        Some(ErrorCode::Forbidden)
    );
    assert!(asked.machine.identity().claims.is_none());
    let own = token("ada", json!({"info": {"name": "Ada"}}));
    assert!(asked.tell(connect(Some(&own))).is_ok());
    assert!(asked.machine.identity().claims.is_some());

    let mut without = Asked::unauthenticated(|_| {});
    without.machine.identify(identity());
    assert!(
        without.tell(connect(None)).is_ok(),
        "the handshake has said who it is"
    );
    assert_eq!(without.machine.inbox().unwrap().name(), "@ada");
}

#[test]
fn own_inbox_and_everyone_are_joined_by_the_server_and_never_by_command() {
    let mut ada = Asked::of("ada", json!({"can": {"subscribe": ["@**", "@"]}}));
    for own in ["@ada", "@"] {
        let refused = ada.refusal(subscribe(own));
        assert_eq!(refused, Some(ErrorCode::AlreadySubscribed), "{own}");
        let refused = ada.refusal(unsubscribe(own));
        assert_eq!(refused, Some(ErrorCode::Forbidden), "{own}");
    }
    assert_eq!(ada.refusal(subscribe("@bob")), Some(ErrorCode::Forbidden));
    assert_eq!(
        ada.refusal(unsubscribe("@bob")),
        Some(ErrorCode::NotSubscribed)
    );
    assert_eq!(
        ada.refusal(history("@bob", None)),
        Some(ErrorCode::Forbidden)
    );
    assert_eq!(ada.refusal(history("@ada", None)), None);
    for no_members in ["@ada", "@bob", "@"] {
        let refused = ada.refusal(members(no_members, None));
        assert_eq!(refused, Some(ErrorCode::Forbidden), "{no_members}");
    }
    let to_everyone = Command::Publish(publish("@"));
    assert_eq!(ada.refusal(to_everyone), Some(ErrorCode::Forbidden));

    let mut anonymous = Asked::anonymous();
    assert_eq!(
        anonymous.refusal(subscribe("@ada")),
        Some(ErrorCode::Forbidden)
    );
    assert_eq!(anonymous.refusal(ack()), Some(ErrorCode::Forbidden));
    assert!(matches!(ada.tell(ack()), Ok(Request::Ack(inbox, _)) if inbox.name() == "@ada"));
}

#[test]
fn a_topic_is_joined_once_and_left_once() {
    let mut ada = Asked::of("ada", json!({}));
    assert_eq!(ada.refusal(subscribe("t")), None);
    let topic = Topic::new(ada.machine.app(), "t").unwrap();
    let first = ada.machine.stay(&topic);
    assert_eq!(
        ada.refusal(subscribe("t")),
        Some(ErrorCode::AlreadySubscribed)
    );
    assert_eq!(ada.machine.stay(&topic), first);
    assert!(matches!(
        ada.tell(unsubscribe("t")),
        Ok(Request::Unsubscribe(left, false)) if left == topic
    ));
    assert_eq!(
        ada.refusal(unsubscribe("t")),
        Some(ErrorCode::NotSubscribed)
    );
    assert_eq!(ada.machine.stay(&topic), None);
    let again = Command::Subscribe(Subscribe {
        topic: "t".into(),
        presence: true,
        ..Subscribe::default()
    });
    assert_eq!(ada.refusal(again), None);
    assert_ne!(ada.machine.stay(&topic), first, "another stay");
    assert!(ada.machine.memberships().eq([&topic]));
    assert!(matches!(
        ada.tell(unsubscribe("t")),
        Ok(Request::Unsubscribe(_, true))
    ));
}

#[test]
fn a_session_joins_so_many_topics_and_inbox_and_everyone_do_not_count() {
    let mut ada = Asked::of("ada", json!({}));
    for n in 0..128 {
        assert_eq!(ada.refusal(subscribe(&format!("t{n}"))), None);
    }
    let one_more = ada.refusal(subscribe("one-more"));
    assert_eq!(one_more, Some(ErrorCode::LimitExceeded));
    assert_eq!(
        ada.refusal(subscribe("t0")),
        Some(ErrorCode::AlreadySubscribed)
    );
    assert_eq!(ada.refusal(unsubscribe("t0")), None);
    assert_eq!(ada.refusal(subscribe("one-more")), None);
}

#[test]
fn keys_have_a_length_of_1_to_128_bytes() {
    let mut ada = Asked::of("ada", json!({}));
    let cases = [
        (0, Some(ErrorCode::BadRequest)),
        (1, None),
        (128, None),
        (129, Some(ErrorCode::TooLarge)),
    ];
    for (length, expected) in cases {
        let text = Some("k".repeat(length));
        let with_key = Publish {
            key: text.clone(),
            ..publish("t")
        };
        let with_idempotency_key = Publish {
            idempotency_key: text,
            ..publish("t")
        };
        for publish in [with_key, with_idempotency_key] {
            let refused = ada.refusal(Command::Publish(publish));
            assert_eq!(refused, expected, "{length}");
        }
    }
    let two_byte_letters = Publish {
        key: Some("é".repeat(65)),
        ..publish("t")
    };
    let refused = ada.refusal(Command::Publish(two_byte_letters));
    assert_eq!(refused, Some(ErrorCode::TooLarge), "bytes are counted");
}

#[test]
fn a_publication_to_a_user_is_one_to_the_inbox() {
    let mut ada = Asked::of("ada", json!({"can": {"publish": ["@*"]}}));
    let to = |user: &str| {
        Command::Publish(Publish {
            topic: None,
            user: Some(user.into()),
            ..publish("unused")
        })
    };
    assert!(matches!(
        ada.tell(to("bob")),
        Ok(Request::Publish(topic, _)) if topic.name() == "@bob"
    ));
    for bad in ["", "b b", "{", &"b".repeat(200)] {
        assert_eq!(ada.refusal(to(bad)), Some(ErrorCode::InvalidTopic), "{bad}");
    }
}

#[test]
fn a_name_that_is_none_is_an_invalid_topic_in_every_command() {
    let mut ada = Asked::of("ada", json!({}));
    for bad in ["", "a b", "{a}", "%t", "a\n", "é", &"t".repeat(201)] {
        for command in [
            subscribe(bad),
            unsubscribe(bad),
            Command::Publish(publish(bad)),
            history(bad, None),
            members(bad, None),
        ] {
            let text = format!("{command:?}");
            assert_eq!(
                ada.refusal(command),
                Some(ErrorCode::InvalidTopic),
                "{text}"
            );
        }
    }
}

#[test]
fn a_page_has_100_entries_unless_asked_for_1_to_1000() {
    let mut ada = Asked::of("ada", json!({}));
    let limit_of = |request: Result<Request, Refusal>| match request {
        Ok(Request::Presence(_, _, limit)) => Ok(limit),
        Ok(other) => panic!("{other:?}"),
        Err(refusal) => Err(refusal.error.code),
    };
    assert_eq!(limit_of(ada.tell(members("t", None))), Ok(100));
    let rows = [
        (1, Ok(1)),
        (1_000, Ok(1_000)),
        (0, Err(ErrorCode::BadRequest)),
        (1_001, Err(ErrorCode::LimitExceeded)),
    ];
    for (limit, expected) in rows {
        assert_eq!(limit_of(ada.tell(members("t", Some(limit)))), expected);
        let code = ada.refusal(history("t", Some(limit)));
        assert_eq!(code, expected.err(), "{limit}");
    }
}
