//! A second judge, written from the tables of `docs/security.md` and not from the first one: both are
//! asked the same, 100,000 times, at every door.
//!
//! In: a seed. Out: nothing, or the first question to which they have different answers. The tables here
//! are the tables of that page, which a test compares. Nine rules are taken out of the first judge, one
//! after the other ([`Without`]), by hiding from it what the rule looks at; each must be found.

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::tests::namespace;
use super::{Denied, OnTopic, Overall, Subject, may, may_begin, may_overall};
use crate::auth::rights::Rights;
use crate::config::api_clients::{ApiClient, ClientApp, Scope, Scopes};
use crate::config::{Allow, Namespace};
use crate::seeds::{self, Verdict};
use fanfare_protocol::ids::{App, Topic, User};

pub(super) mod doors;
mod names;

use names::names;

/// What is asked with a topic; the scope that a client needs; what a session is judged by: the name in
/// its token's `can`, `own` for the own inbox alone, `-` for nothing at all.
const ON_TOPIC: [(&str, OnTopic, &str, &str); 10] = [
    ("join", OnTopic::Subscribe, "read", "subscribe"),
    ("publish", OnTopic::Publish, "publish", "publish"),
    ("see members", OnTopic::Presence, "read", "presence"),
    (
        "read history, or an inbox",
        OnTopic::History,
        "read",
        "history",
    ),
    ("see the home", OnTopic::Home, "read", "own"),
    ("see a topic's sessions", OnTopic::Inspect, "read", "-"),
    ("add to the queue", OnTopic::Enqueue, "queue", "-"),
    ("see a user's sessions", OnTopic::SeeUser, "users", "-"),
    ("end a user's sessions", OnTopic::Disconnect, "users", "-"),
    ("revoke a user's tokens", OnTopic::RevokeUser, "users", "-"),
];

/// What is about all apps is for one of them only then.
const ALONE: &str = "while there is no other";

/// What is asked without a topic; the scope; whether a client that has `topics` may; whether one of one
/// app.
const OVERALL: [(&str, Overall, &str, &str, &str); 13] = [
    ("list topics", Overall::ListTopics, "read", "no", "yes"),
    (
        "see the queue's depth",
        Overall::SeeQueue,
        "queue",
        "yes",
        ALONE,
    ),
    ("see dead letters", Overall::SeeDead, "queue", "no", "yes"),
    (
        "redrive dead letters",
        Overall::RedriveDead,
        "queue",
        "no",
        "yes",
    ),
    ("drop dead letters", Overall::DropDead, "queue", "no", "yes"),
    ("revoke tokens", Overall::RevokeTokens, "users", "no", "yes"),
    (
        "revoke all tokens, besides",
        Overall::RevokeAll,
        "admin",
        "no",
        "yes",
    ),
    ("see nodes", Overall::SeeNodes, "admin", "yes", ALONE),
    (
        "see how a node did",
        Overall::SeePerformance,
        "admin",
        "yes",
        ALONE,
    ),
    ("drain a node", Overall::Drain, "admin", "yes", ALONE),
    ("read the audit", Overall::SeeAudit, "admin", "no", "yes"),
    ("see apps", Overall::SeeApps, "admin", "no", "no"),
    ("set and remove apps", Overall::SetApps, "admin", "no", "no"),
];

/// A rule that the first judge does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Without {
    Nothing,
    /// Clients need scopes.
    Scopes,
    /// Clients may name what matches.
    Topics,
    /// Nobody comes near another app.
    Apps,
    /// `can` restricts.
    Can,
    /// A token for a topic is for its subscriber, and lets nobody publish.
    TopicTokens,
    /// An inbox is its user's.
    Inboxes,
    /// `**` names no inbox.
    Stars,
    /// `nobody` is nobody.
    Nobody,
    /// What is of all apps is not for a client of one.
    AllApps,
}

/// Who asks what.
#[derive(Debug, Clone)]
struct Case {
    app: App,
    /// A client, or a session.
    client: Option<ApiClient>,
    user: Option<User>,
    /// The patterns of each operation; `None`: no `can`.
    can: Option<[Vec<&'static str>; 4]>,
    has_topic_token: bool,
    operation: usize,
    overall: usize,
    topic: Topic,
    rules: [Allow; 4],
    keeps_presence: bool,
    is_only_app: bool,
}

const NAMES: [&str; 9] = [
    "t",
    "orders",
    "orders:7",
    "orders:7:items",
    "a::b",
    "@ada",
    "@bob",
    "@team:ada",
    "@",
];
const PATTERNS: [&str; 14] = [
    "t",
    "*",
    "**",
    "orders:*",
    "orders:**",
    "orders:7",
    "*:7",
    "a:*:b",
    "@*",
    "@**",
    "@ada",
    "@team:*",
    "@",
    "",
];
const RULES: [Allow; 4] = [
    Allow::Anyone,
    Allow::Authenticated,
    Allow::Token,
    Allow::Nobody,
];
const OPERATIONS: [&str; 4] = ["subscribe", "publish", "presence", "history"];

struct Dice(StdRng);

impl Dice {
    fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.0.random_range(0..from.len())].clone()
    }

    fn is(&mut self, percent: u32) -> bool {
        self.0.random_range(0..100) < percent
    }

    fn app(&mut self, other_percent: u32) -> App {
        match self.is(other_percent) {
            true => App::new("shop").unwrap(),
            false => App::default_app(),
        }
    }

    fn patterns(&mut self) -> Vec<&'static str> {
        let count = self.0.random_range(0..4);
        (0..count).map(|_| self.pick(&PATTERNS)).collect()
    }

    fn client(&mut self) -> ApiClient {
        let scopes: Scopes = Scope::ALL.into_iter().filter(|_| self.is(60)).collect();
        let topics = self.is(60).then(|| self.patterns());
        let app = match self.is(50) {
            true => ClientApp::Any,
            false => ClientApp::One(App::default_app()),
        };
        ApiClient {
            app,
            scopes,
            topics: topics.map(|all| all.into_iter().map(str::to_owned).collect()),
            ..ApiClient::with_key("k")
        }
    }

    fn case(&mut self) -> Case {
        let topic_app = self.app(15);
        let topic = Topic::new(&topic_app, self.pick(&NAMES)).unwrap();
        let topic = match self.is(10) {
            true => topic.presence(),
            false => topic,
        };
        Case {
            app: self.app(15),
            client: self.is(50).then(|| self.client()),
            user: self
                .pick(&[None, Some("ada"), Some("bob")])
                .map(|user| User::new(user).unwrap()),
            can: self
                .is(60)
                .then(|| std::array::from_fn(|_| self.patterns())),
            has_topic_token: self.is(30),
            operation: self.0.random_range(0..ON_TOPIC.len()),
            overall: self.0.random_range(0..OVERALL.len()),
            topic,
            rules: std::array::from_fn(|_| self.pick(&RULES)),
            keeps_presence: self.is(80),
            is_only_app: self.is(50),
        }
    }
}

impl Case {
    /// What the first judge says: of the operation with the topic, whether it may begin, and overall.
    fn judged(&self, without: Without) -> [Result<(), Denied>; 3] {
        let seen = self.hidden(without);
        let can = seen.can.as_ref().map(rights);
        let subject = match &seen.client {
            Some(client) => Subject::Client {
                app: &seen.app,
                client,
                is_only_app: seen.is_only_app,
            },
            None => Subject::Session {
                app: &seen.app,
                user: seen.user.as_ref(),
                can: can.as_ref(),
                has_topic_token: seen.has_topic_token,
            },
        };
        let [subscribe, publish, presence_allow, history] = seen.rules;
        let namespace = Namespace {
            subscribe,
            publish,
            presence_allow,
            history,
            ..namespace(Allow::Nobody, seen.keeps_presence)
        };
        let operation = ON_TOPIC[seen.operation].1;
        [
            may(subject, operation, &seen.topic, &namespace),
            may_begin(subject, operation),
            may_overall(subject, OVERALL[seen.overall].1),
        ]
    }

    /// The case without what a rule looks at.
    fn hidden(&self, without: Without) -> Self {
        let mut seen = self.clone();
        let is_publish = ON_TOPIC[self.operation].1 == OnTopic::Publish;
        match without {
            Without::Nothing => {}
            Without::Scopes => {
                let all = |client: &mut ApiClient| client.scopes = Scopes::all();
                seen.client.iter_mut().for_each(all);
            }
            Without::Topics => {
                let none = |client: &mut ApiClient| client.topics = None;
                seen.client.iter_mut().for_each(none);
            }
            Without::Apps => seen.app = App::new(self.topic.app()).unwrap(),
            Without::Can => seen.can = None,
            Without::TopicTokens if is_publish && self.has_topic_token => {
                seen.can = Some(std::array::from_fn(|_| vec!["**", "@**"]));
            }
            Without::TopicTokens => {}
            Without::Inboxes => {
                let of = self
                    .topic
                    .inbox_user()
                    .and_then(|user| User::new(user).ok());
                seen.user = of.or(seen.user);
            }
            Without::Stars => {
                let more = |all: &mut Vec<String>| {
                    if all.iter().any(|one| one == "**") {
                        all.extend(["@**".to_owned(), "@".to_owned()]);
                    }
                };
                let topics = seen.client.iter_mut().filter_map(|one| one.topics.as_mut());
                topics.for_each(more);
            }
            Without::AllApps => {
                let any = |client: &mut ApiClient| client.app = ClientApp::Any;
                seen.client.iter_mut().for_each(any);
            }
            Without::Nobody => {
                let anyone = |rule: &mut Allow| {
                    if *rule == Allow::Nobody {
                        *rule = Allow::Anyone;
                    }
                };
                seen.rules.iter_mut().for_each(anyone);
            }
        }
        seen
    }

    /// What the tables say.
    fn wanted(&self) -> [Result<(), Denied>; 3] {
        let (_, _, scope, of_session) = ON_TOPIC[self.operation];
        let (_, _, overall_scope, is_for_bound, is_for_one) = OVERALL[self.overall];
        let is_of_app = self.topic.app() == self.app.as_str();
        let Some(client) = &self.client else {
            let begins = match of_session {
                "-" => Err(Denied::ApiOnly),
                _ => Ok(()),
            };
            let whole = match is_of_app {
                false => Err(Denied::OfAnotherApp),
                true => self.session(of_session),
            };
            return [whole, begins, Err(Denied::ApiOnly)];
        };
        let scoped = |word: &str| {
            let scope = Scope::of(word).unwrap();
            let has = client.scopes.iter().any(|one| one.word() == word);
            has.then_some(()).ok_or(Denied::NoScope(scope))
        };
        let name = self.topic.name();
        let patterns = client.topics.as_deref();
        let is_named = patterns.is_none_or(|all| all.iter().any(|one| names(one, name)));
        let is_members = ON_TOPIC[self.operation].1 == OnTopic::Presence;
        let whole = match (is_of_app, scoped(scope)) {
            (false, _) => Err(Denied::OfAnotherApp),
            (_, Err(denied)) => Err(denied),
            _ if !is_named => Err(Denied::NotOfClient),
            _ if is_members && !self.keeps_presence => Err(Denied::NoPresence),
            _ => Ok(()),
        };
        let is_of_one = client.app != ClientApp::Any;
        let overall = scoped(overall_scope).and(match (patterns, is_for_bound) {
            _ if is_of_one && is_for_one == "no" => Err(Denied::OfAllApps),
            _ if is_of_one && is_for_one == ALONE && !self.is_only_app => Err(Denied::OfAllApps),
            (Some(_), "no") => Err(Denied::OfAllTopics),
            _ => Ok(()),
        });
        [whole, scoped(scope), overall]
    }

    /// The second table: of which kind the topic is decides first, then the namespace's rule.
    fn session(&self, judged_by: &str) -> Result<(), Denied> {
        let name = self.topic.name();
        let user = self.user.as_ref().map(User::as_str);
        let is_own = user.is_some_and(|user| name == format!("@{user}"));
        let kind = match name.as_bytes() {
            [b'@'] => "everyone",
            [b'@', ..] if is_own => "own inbox",
            [b'@', ..] => "other inbox",
            [b'%', ..] => "members",
            _ => "plain",
        };
        let at = OPERATIONS.iter().position(|one| *one == judged_by);
        let stands_in = match (judged_by, kind) {
            ("-", _) => return Err(Denied::ApiOnly),
            ("own", "own inbox") => return Ok(()),
            ("own", _) => return Err(Denied::OfAnother),
            ("publish", "everyone") => return Err(Denied::ApiOnly),
            ("subscribe", "other inbox" | "members") => return Err(Denied::OfAnother),
            ("history", "other inbox") => return Err(Denied::OfAnother),
            ("presence", "plain") if !self.keeps_presence => return Err(Denied::NoPresence),
            ("presence", "everyone" | "own inbox" | "other inbox" | "members") => {
                return Err(Denied::NoMembers);
            }
            ("publish", _) => false,
            ("history", "own inbox") => true,
            _ => self.has_topic_token,
        };
        let at = at.expect("one of the four");
        let can = self.can.as_ref().map(|all| &all[at]);
        let is_named = stands_in || can.is_some_and(|all| all.iter().any(|one| names(one, name)));
        let is_free = is_named || self.can.is_none();
        let may = match self.rules[at] {
            Allow::Anyone => is_free,
            Allow::Authenticated => is_free && user.is_some(),
            Allow::Token => is_named,
            Allow::Nobody => false,
        };
        may.then_some(()).ok_or(Denied::NotPermitted)
    }

    fn compare(&self, without: Without) -> Verdict {
        let (judged, wanted) = (self.judged(without), self.wanted());
        match judged == wanted {
            true => Ok(()),
            false => Err(format!("{judged:?}, and not {wanted:?}, of {self:?}")),
        }
    }
}

fn rights(all: &[Vec<&'static str>; 4]) -> Rights {
    let lists = OPERATIONS.iter().zip(all);
    let map: serde_json::Map<_, _> = lists
        .map(|(operation, patterns)| ((*operation).to_owned(), (*patterns).clone().into()))
        .collect();
    Rights::from_json(&serde_json::Value::from(map).to_string()).unwrap()
}

fn run(seed: u64, without: Without) -> Verdict {
    let mut dice = Dice(StdRng::seed_from_u64(seed));
    dice.case().compare(without)?;
    match without {
        Without::Nothing => doors::asked(&mut dice),
        _ => Ok(()),
    }
}

#[test]
fn both_judges_say_the_same_a_hundred_thousand_times() {
    seeds::each(100_000, |seed| run(seed, Without::Nothing));
}

#[test]
fn each_rule_that_is_taken_out_is_missed() {
    for without in [
        Without::Scopes,
        Without::Topics,
        Without::Apps,
        Without::Can,
        Without::TopicTokens,
        Without::Inboxes,
        Without::Stars,
        Without::Nobody,
        Without::AllApps,
    ] {
        let found = seeds::first_failure(|seed| run(seed, without));
        assert!(found.is_some(), "nobody missed {without:?}");
    }
}

#[test]
fn the_page_has_the_tables_of_the_second_judge() {
    let page = include_str!("../../docs/security.md");
    let rows = |begin: &str| -> Vec<String> {
        let (_, rest) = page.split_once(begin).expect("the page has the table");
        let lines = rest
            .lines()
            .skip(1)
            .skip_while(|line| !line.starts_with("|---"));
        let rows = lines.skip(1).take_while(|line| line.starts_with('|'));
        rows.map(str::to_owned).collect()
    };
    let session = |by: &str| match by {
        "-" => "no".to_owned(),
        "own" => "the own user's".to_owned(),
        by => format!("`{by}`"),
    };
    let wanted: Vec<_> = ON_TOPIC
        .iter()
        .map(|(what, _, scope, by)| format!("| {what} | `{scope}` | {} |", session(by)))
        .collect();
    assert_eq!(rows("### With a topic"), wanted);
    let wanted: Vec<_> = OVERALL
        .iter()
        .map(|(what, _, scope, bound, one)| format!("| {what} | `{scope}` | {bound} | {one} |"))
        .collect();
    assert_eq!(rows("### Without a topic"), wanted);
    let all: Vec<_> = ON_TOPIC.iter().map(|row| row.1).collect();
    assert_eq!(all, OnTopic::ALL);
    let all: Vec<_> = OVERALL.iter().map(|row| row.1).collect();
    assert_eq!(all, Overall::ALL);
}
