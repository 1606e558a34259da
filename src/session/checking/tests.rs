//! Commands that are parked for their tokens, judged by values.

use fanfare_testkit::tokens::put_together;
use serde_json::json;

use super::super::rig;
use super::super::state::Request;
use super::*;
use crate::auth::verifier::Checked;
use crate::config::{Issuer, Jwks};
use fanfare_protocol::close::CloseReason;
use fanfare_protocol::command::{Connect, Subscribe};

/// A session of a node that knows an issuer whose keys nobody has fetched.
fn machine() -> (Machine, Now) {
    let config = rig::config(|config| {
        config.auth.issuers = vec![Issuer {
            issuer: "id".to_owned(),
            audience: None,
            jwks: Some(Jwks {
                url: "https://id.example.com/keys".to_owned(),
                ca_file: None,
                allow_private: false,
            }),
            keys: Vec::new(),
            algorithms: Vec::new(),
            types: Vec::new(),
            user_claim: "sub".to_owned(),
        }];
    });
    let now = rig::Clocks::new().start();
    (rig::machine(&config, now), now)
}

/// A token of that issuer. Nobody has looked at its signature.
fn of_id() -> String {
    let claims = json!({"iss": "id", "sub": "ada"});
    put_together(&json!({"alg": "ES256", "kid": "1"}), &claims, "AAAA")
}

fn connect(token: &str) -> Command {
    Command::Connect(Connect {
        token: Some(token.to_owned()),
        ..Connect::default()
    })
}

fn subscribe(token: &str) -> Command {
    Command::Subscribe(Subscribe {
        topic: "token:7".to_owned(),
        token: Some(token.to_owned()),
        ..Subscribe::default()
    })
}

fn refresh(token: &str) -> Command {
    Command::Refresh {
        token: token.to_owned(),
    }
}

/// The command, where it was parked.
fn parked(judged: Result<Request, Refusal>) -> Command {
    match judged.expect("no refusal") {
        Request::Check(command) => *command,
        other => panic!("not parked: {other:?}"),
    }
}

fn open(machine: &mut Machine, now: Now) {
    let judged = machine.command(connect(&rig::token("ada", json!({}))), now);
    assert!(matches!(judged, Ok(Request::Open(_))), "its key is known");
    machine.opened();
}

#[test]
fn a_connect_whose_key_is_not_there_is_parked_and_then_judged_by_what_was_found() {
    let (mut machine, now) = machine();
    let of_id = of_id();
    let command = parked(machine.command(connect(&of_id), now));
    let checked = vec![Checked::unavailable(of_id.clone())];
    let refusal = machine.checked(command, checked, now).unwrap_err();
    assert_eq!(refusal.error.code, ErrorCode::Unavailable);
    assert_eq!(refusal.end, Some(CloseReason::Unavailable));
    // It may come again, and the answer to another token is none to this one.
    let command = parked(machine.command(connect(&of_id), now));
    let other = machine.verifier.check(rig::token("bob", json!({})), None);
    let refusal = machine.checked(command, vec![other], now).unwrap_err();
    assert_eq!(refusal.error.code, ErrorCode::Unauthorized);
}

#[test]
fn a_token_that_was_checked_elsewhere_opens_the_session() {
    let (mut machine, now) = machine();
    let token = rig::token("ada", json!({}));
    let checked = vec![machine.verifier.check(token.clone(), None)];
    let judged = machine.checked(connect(&token), checked, now);
    assert!(matches!(judged, Ok(Request::Open(_))));
    assert_eq!(machine.identity().user.as_ref().unwrap().as_str(), "ada");
}

#[test]
fn refresh_and_topic_tokens_are_parked_too_and_commands_without_a_token_never() {
    let (mut machine, now) = machine();
    open(&mut machine, now);
    let of_id = of_id();
    for command in [refresh(&of_id), subscribe(&of_id)] {
        let command = parked(machine.command(command, now));
        let checked = vec![Checked::unavailable(of_id.clone())];
        let refusal = machine.checked(command, checked, now).unwrap_err();
        assert_eq!(refusal.error.code, ErrorCode::Unavailable);
        assert_eq!(refusal.end, None, "the session stays");
    }
    assert!(matches!(
        machine.command(Command::Ping, now),
        Ok(Request::Ping)
    ));
    let own = rig::token("ada", json!({"topic": "token:7"}));
    let judged = machine.command(subscribe(&own), now);
    assert!(matches!(judged, Ok(Request::Subscribe(_))), "{judged:?}");
}

#[test]
fn a_command_that_comes_when_it_may_not_costs_no_check() {
    let (mut machine, now) = machine();
    let of_id = of_id();
    let refusal = machine.command(refresh(&of_id), now).unwrap_err();
    assert_eq!(refusal.error.code, ErrorCode::Unauthorized);
    open(&mut machine, now);
    let refusal = machine.command(connect(&of_id), now).unwrap_err();
    assert_eq!(refusal.error.code, ErrorCode::BadRequest);
}

#[test]
fn many_light_tokens_are_heavy_together() {
    let (mut machine, now) = machine();
    let topics = (0..64).map(|number| Subscribe {
        topic: format!("token:{number}"),
        token: Some(rig::token(
            "ada",
            json!({"topic": format!("token:{number}")}),
        )),
        ..Subscribe::default()
    });
    let command = Command::Connect(Connect {
        token: Some(rig::token("ada", json!({}))),
        topics: topics.collect(),
        ..Connect::default()
    });
    let tokens: Vec<_> = command.tokens().map(str::to_owned).collect();
    let command = parked(machine.command(command, now));
    let checked = tokens
        .into_iter()
        .map(|token| machine.verifier.check(token, None));
    let checked = checked.collect();
    let judged = machine.checked(command, checked, now);
    let Ok(Request::Open(connect)) = judged else {
        panic!("{judged:?}");
    };
    for subscribe in connect.into_subscribes() {
        machine.joining(&subscribe, now).expect("its token is good");
    }
    machine.forget_checked();
    assert!(machine.checked.is_empty());
}
