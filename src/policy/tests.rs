//! One table: who, what, where, under which rules, and the answer.

use super::*;
use crate::config::Allow;
use fanfare_protocol::ids::App;

const SUBSCRIBE: OnTopic = OnTopic::Subscribe;
const PUBLISH: OnTopic = OnTopic::Publish;
const PRESENCE: OnTopic = OnTopic::Presence;
const HISTORY: OnTopic = OnTopic::History;

/// The same rule for all operations.
pub(super) fn namespace(allow: Allow, presence: bool) -> Namespace {
    let config = crate::session::rig::config(|_| {});
    Namespace {
        subscribe: allow,
        publish: allow,
        history: allow,
        presence_allow: allow,
        presence,
        ..config.inbox.clone()
    }
}

#[test]
fn every_door_gets_its_answer_from_one_table() {
    let ada = User::new("ada").unwrap();
    let read = |json: &str| Rights::from_json(json).unwrap();
    let all = read(
        r#"{"subscribe":["**"],"publish":["**","@**","@"],"presence":["**"],"history":["**"]}"#,
    );
    let none = read("{}");
    let app = App::default_app();
    let key = ApiClient::with_key("k");
    let client = Subject::Client {
        app: &app,
        client: &key,
        is_only_app: false,
    };
    let session = |user, can, has_topic_token| Subject::Session {
        app: &app,
        user,
        can,
        has_topic_token,
    };
    let anonymous = session(None, None, false);
    let plain = session(Some(&ada), None, false);
    let full = session(Some(&ada), Some(&all), false);
    let bare = session(Some(&ada), Some(&none), false);
    let with_token = session(Some(&ada), Some(&none), true);
    let (anyone, users, token, nobody) = (
        Allow::Anyone,
        Allow::Authenticated,
        Allow::Token,
        Allow::Nobody,
    );
    let yes = Ok(());
    let not = Err(Denied::NotPermitted);
    let no_members = Err(Denied::NoMembers);
    let of_another = Err(Denied::OfAnother);
    // Who, under which rule, where; then to subscribe, publish, see members, read history.
    #[rustfmt::skip]
    let table = [
        (client, nobody, "t", [yes, yes, yes, yes]),
        (client, nobody, "@bob", [yes, yes, yes, yes]),
        (client, nobody, "@", [yes, yes, yes, yes]),
        (anonymous, anyone, "t", [yes, yes, yes, yes]),
        (anonymous, users, "t", [not, not, not, not]),
        (plain, users, "t", [yes, yes, yes, yes]),
        (plain, token, "t", [not, not, not, not]),
        (full, token, "t", [yes, yes, yes, yes]),
        (full, nobody, "t", [not, not, not, not]),
        (bare, anyone, "t", [not, not, not, not]),
        (with_token, token, "t", [yes, not, yes, yes]),
        (with_token, nobody, "t", [not, not, not, not]),
        (full, token, "@", [not, Err(Denied::ApiOnly), no_members, not]),
        (plain, anyone, "@", [yes, Err(Denied::ApiOnly), no_members, yes]),
        (full, token, "@bob", [of_another, yes, no_members, of_another]),
        (bare, anyone, "@ada", [not, not, no_members, yes]),
        (bare, token, "@ada", [not, not, no_members, yes]),
        (bare, nobody, "@ada", [not, not, no_members, not]),
        (anonymous, anyone, "@ada", [of_another, yes, no_members, of_another]),
    ];
    for (subject, rule, name, answers) in table {
        let topic = Topic::new(&App::default_app(), name).unwrap();
        let namespace = namespace(rule, true);
        let asked = [SUBSCRIBE, PUBLISH, PRESENCE, HISTORY];
        let got = asked.map(|operation| may(subject, operation, &topic, &namespace));
        assert_eq!(got, answers, "{subject:?} on {name} under {rule:?}");
    }
}

#[test]
fn a_namespace_without_presence_has_none_for_anybody() {
    let topic = Topic::new(&App::default_app(), "t").unwrap();
    let without = namespace(Allow::Anyone, false);
    let app = App::default_app();
    let key = ApiClient::with_key("k");
    let client = Subject::Client {
        app: &app,
        client: &key,
        is_only_app: false,
    };
    let anonymous = Subject::Session {
        app: &app,
        user: None,
        can: None,
        has_topic_token: false,
    };
    for subject in [client, anonymous] {
        let answer = may(subject, PRESENCE, &topic, &without);
        assert_eq!(answer, Err(Denied::NoPresence), "{subject:?}");
        assert_eq!(may(subject, SUBSCRIBE, &topic, &without), Ok(()));
    }
}
