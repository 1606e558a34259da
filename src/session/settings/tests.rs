//! Sessions of two apps that have all names in common, and apps that change, by values.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use super::super::rig::{self, Clocks, START_S, machine_of};
use super::super::state::{Now, Refusal, Request};
use super::*;
use crate::apps::{Apps, settings_of};
use crate::auth::mint::{MintKey, mint};
use crate::config::{Allow, Config, Secret, TokenKey};
use fanfare_protocol::command::Subscribe;
use fanfare_protocol::error::WireError;

const OF_SHOP: &str = "the secret of the app shop, 32 bytes long";

/// The rig's configuration, and an app `shop` with the same names and a key of its own.
fn config(change: impl FnOnce(&mut AppSettings)) -> Arc<Config> {
    rig::config(|config| {
        let mut shop = AppSettings::of_default(config);
        shop.auth.keys = vec![TokenKey {
            id: None,
            algorithm: "HS256".into(),
            material: Secret(OF_SHOP.into()),
        }];
        change(&mut shop);
        config.apps = BTreeMap::from([(app("shop"), shop)]);
    })
}

fn app(name: &str) -> App {
    App::new(name).unwrap()
}

/// A token of ada that the app `shop` has signed.
fn of_shop(more: Value) -> String {
    let mut claims = json!({"sub": "ada", "exp": START_S + 3_600});
    for (name, value) in more.as_object().unwrap() {
        claims[name] = value.clone();
    }
    let key = MintKey {
        id: None,
        algorithm: "HS256".into(),
        material: Secret(OF_SHOP.into()),
    };
    mint(&key, claims.as_object().unwrap()).unwrap()
}

fn connect(token: Option<&str>) -> Command {
    Command::Connect(Connect {
        token: token.map(str::to_owned),
        ..Connect::default()
    })
}

fn subscribe(topic: &str, token: Option<String>) -> Command {
    Command::Subscribe(Subscribe {
        topic: topic.into(),
        token,
        ..Subscribe::default()
    })
}

/// A session in a request for this app.
struct Asked {
    machine: Machine,
    now: Now,
}

impl Asked {
    fn new(app: Option<&str>) -> Self {
        Self::with(&config(|_| {}), app)
    }

    fn with(config: &Arc<Config>, app: Option<&str>) -> Self {
        let now = Clocks::new().after(Duration::ZERO);
        let machine = machine_of(config, app, now);
        Self { machine, now }
    }

    fn tell(&mut self, command: Command) -> Result<Request, Refusal> {
        self.machine.command(command, self.now)
    }

    /// What it is told, and whether it ends.
    fn refusal(&mut self, command: Command) -> (WireError, Option<CloseReason>) {
        let refusal = self.tell(command).unwrap_err();
        (refusal.error, refusal.end)
    }

    /// Opens with this token.
    fn open(mut self, token: Option<&str>) -> Self {
        let opened = self.tell(connect(token));
        assert!(matches!(opened, Ok(Request::Open(_))), "{opened:?}");
        self.machine.opened();
        self
    }

    fn joined(&self) -> Vec<&str> {
        let joined = self.machine.joined.iter();
        let mut names: Vec<_> = joined.map(|joined| joined.topic.qualified()).collect();
        names.sort_unstable();
        names
    }
}

#[test]
fn the_token_of_connect_chooses_the_app_where_nothing_else_has() {
    let claimed = of_shop(json!({"app": "shop"}));
    let mut ada = Asked::new(None).open(Some(&claimed));
    assert_eq!(ada.machine.inbox().unwrap().qualified(), "shop:@ada");
    assert!(ada.tell(subscribe("open:t", None)).is_ok());
    assert_eq!(ada.joined(), ["shop:open:t"]);
    let other = Asked::new(None).open(Some(&rig::token("ada", json!({}))));
    assert_eq!(other.machine.inbox().unwrap().qualified(), "default:@ada");
    // In the app of the URL a token need not name it.
    let named = Asked::new(Some("shop")).open(Some(&of_shop(json!({}))));
    assert_eq!(named.machine.inbox().unwrap().qualified(), "shop:@ada");
}

#[test]
fn only_the_keys_of_the_app_are_tried_and_a_contradiction_is_told() {
    let unauthorized = |(error, end): (WireError, _)| {
        assert_eq!(
            (error.code, end),
            (ErrorCode::Unauthorized, Some(CloseReason::Unauthorized))
        );
        error.message.into_owned()
    };
    let told = |app, token: String| unauthorized(Asked::new(app).refusal(connect(Some(&token))));
    let signature = "the token's signature is not valid";
    assert_eq!(told(None, of_shop(json!({}))), signature);
    assert_eq!(told(Some("shop"), rig::token("ada", json!({}))), signature);
    assert_eq!(
        told(None, rig::token("ada", json!({"app": "shop"}))),
        signature
    );
    let contradicted = "the token is one of another app than this connection: put `?app=` with the \
         token's app into the URL, or leave both away for `default`";
    assert_eq!(
        told(Some("shop"), rig::token("ada", json!({"app": "default"}))),
        contradicted
    );
    assert_eq!(
        told(Some("default"), of_shop(json!({"app": "shop"}))),
        contradicted
    );
    let unknown = "the token is one of an app that is not known here";
    assert_eq!(told(None, of_shop(json!({"app": "gone"}))), unknown);
}

#[test]
fn refresh_and_tokens_for_topics_are_of_the_sessions_app() {
    let mut ada = Asked::new(Some("shop")).open(Some(&of_shop(json!({}))));
    let forbidden = |(error, end): (WireError, _)| {
        assert_eq!((error.code, end), (ErrorCode::Forbidden, None));
        error.message.into_owned()
    };
    let other = "the token belongs to another app";
    let refresh = |token| Command::Refresh { token };
    let of_default = || rig::token("ada", json!({"app": "default"}));
    assert_eq!(forbidden(ada.refusal(refresh(of_default()))), other);
    let for_topic = rig::token("ada", json!({"app": "default", "topic": "token:t"}));
    assert_eq!(
        forbidden(ada.refusal(subscribe("token:t", Some(for_topic)))),
        other
    );
    // One that does not name its app is tried with the keys of this one only.
    let unnamed = rig::token("ada", json!({"topic": "token:t"}));
    let (error, _) = ada.refusal(subscribe("token:t", Some(unnamed)));
    assert_eq!(error.code, ErrorCode::Unauthorized);
    let own = of_shop(json!({"topic": "token:t"}));
    assert!(ada.tell(subscribe("token:t", Some(own))).is_ok());
    assert!(ada.tell(refresh(of_shop(json!({"app": "shop"})))).is_ok());
}

#[test]
fn the_tokens_for_topics_of_a_connect_are_of_the_app_that_its_own_token_chooses() {
    let ada = Asked::new(None);
    let asked = |command: &Command| ada.machine.asked_app(command);
    let claimed = of_shop(json!({"app": "shop"}));
    assert_eq!(asked(&connect(Some(&claimed))), Some(app("shop")));
    assert_eq!(
        asked(&connect(Some(&of_shop(json!({}))))),
        Some(App::default_app())
    );
    assert_eq!(asked(&connect(Some("garbage"))), None);
    assert_eq!(asked(&connect(None)), Some(App::default_app()));
    // An anonymous session has chosen, too.
    let config = rig::config(|config| config.auth.anonymous = true);
    let mut anonymous = Asked::with(&config, None).open(None);
    assert_eq!(anonymous.machine.chosen_app(), Some(&App::default_app()));
    let refresh = Command::Refresh { token: claimed };
    assert_eq!(anonymous.refusal(refresh).0.code, ErrorCode::Forbidden);
}

/// The app `shop` sets this from now on. Returns what that changes for topics that are judged by it.
fn changed(
    ada: &mut Asked,
    change: impl FnOnce(&mut AppSettings),
) -> Result<Vec<(Topic, Judged)>, CloseReason> {
    let apps = Apps::new(settings_of(&config(change)));
    ada.machine.take_settings(apps.get(&app("shop")))?;
    let judged = std::iter::from_fn(|| ada.machine.judge_next());
    Ok(judged
        .filter(|(_, judged)| *judged != Judged::Stays)
        .collect())
}

#[test]
fn an_app_that_was_removed_and_made_anew_is_another_one() {
    let config = config(|shop| shop.life = Some(7));
    let mut ada = Asked::with(&config, Some("shop")).machine;
    let of_life = |life, publish| {
        let mut settings = config.apps[&app("shop")].clone();
        settings.life = life;
        settings.everyone.publish = publish;
        Some(Arc::new(settings))
    };
    for (life, publish) in [
        (Some(7), Allow::Nobody),
        (Some(7), Allow::Anyone),
        (None, Allow::Nobody),
    ] {
        assert!(
            ada.take_settings(of_life(life, publish)).is_ok(),
            "{life:?}"
        );
    }
    assert!(
        ada.take_settings(of_life(Some(7), Allow::Nobody)).is_ok(),
        "out of the file again"
    );
    let other = ada.take_settings(of_life(Some(8), Allow::Nobody));
    assert_eq!(other, Err(CloseReason::Disconnected));
}

#[test]
fn a_change_of_the_app_ends_what_may_not_stay_and_tries_no_key_again() {
    let can = json!({"can": {"subscribe": ["**"], "history": ["**"]}});
    let mut ada = Asked::new(Some("shop")).open(Some(&of_shop(can)));
    for topic in ["open:t", "users:t", "token:t"] {
        assert!(ada.tell(subscribe(topic, None)).is_ok(), "{topic}");
    }
    // The key that signed its token is gone, which is no matter of the session.
    let same = changed(&mut ada, |shop| shop.auth.keys.clear());
    assert_eq!(same, Ok(Vec::new()));
    let judged = changed(&mut ada, |shop| {
        shop.namespaces.get_mut("users").unwrap().subscribe = Allow::Nobody;
        shop.namespaces.get_mut("open").unwrap().history = Allow::Nobody;
    })
    .unwrap();
    let topic = |name| Topic::new(&app("shop"), name).unwrap();
    assert!(
        judged.contains(&(topic("users:t"), Judged::Lost(false))),
        "{judged:?}"
    );
    assert!(
        judged.contains(&(topic("open:t"), Judged::Limited(true))),
        "{judged:?}"
    );
    assert!(!judged.iter().any(|(judged, _)| *judged == topic("token:t")));
    assert_eq!(ada.joined(), ["shop:open:t", "shop:token:t"]);
    assert_eq!(
        ada.refusal(subscribe("users:t", None)).0.code,
        ErrorCode::Forbidden
    );
    assert_eq!(
        ada.machine.take_settings(None),
        Err(CloseReason::Disconnected)
    );
}

#[test]
fn each_topic_is_judged_though_others_are_joined_and_left_meanwhile() {
    let can = json!({"can": {"subscribe": ["**"], "history": ["**"]}});
    let mut ada = Asked::new(Some("shop")).open(Some(&of_shop(can)));
    let names = [
        "users:1", "open:2", "users:3", "open:4", "users:5", "open:6",
    ];
    for topic in names {
        assert!(ada.tell(subscribe(topic, None)).is_ok(), "{topic}");
    }
    let config = config(|shop| {
        shop.namespaces.get_mut("users").unwrap().subscribe = Allow::Nobody;
    });
    let apps = Apps::new(settings_of(&config));
    let is_change = ada.machine.take_settings(apps.get(&app("shop")));
    assert_eq!(is_change, Ok(true));
    let topic = |name| Topic::new(&app("shop"), name).unwrap();
    // `@`, and the last one.
    for _ in 0..2 {
        assert!(ada.machine.judge_next().is_some());
    }
    // Leaving the first one puts the last one into its place.
    assert_eq!(ada.machine.leave(&topic("users:1")), Some(false));
    assert!(ada.tell(subscribe("open:7", None)).is_ok());
    assert!(
        ada.tell(subscribe("users:8", None)).is_err(),
        "by what holds now"
    );
    while ada.machine.judge_next().is_some() {}
    assert_eq!(
        ada.joined(),
        ["shop:open:2", "shop:open:4", "shop:open:6", "shop:open:7"]
    );
    assert!(ada.machine.rejudging.is_none());
}

#[test]
fn anonymous_sessions_end_when_their_app_lets_no_more_in() {
    let open = |anonymous| config(|shop| shop.auth.anonymous = anonymous);
    let mut anonymous = Asked::with(&open(true), Some("shop")).open(None);
    let end = changed(&mut anonymous, |shop| shop.auth.anonymous = false);
    assert_eq!(end, Err(CloseReason::Unauthorized));
    // Who has not come in yet is told so by the answer to `connect`.
    let mut waiting = Asked::with(&open(true), Some("shop"));
    assert!(changed(&mut waiting, |shop| shop.auth.anonymous = false).is_ok());
    assert_eq!(
        waiting.refusal(connect(None)).0.code,
        ErrorCode::Unauthorized
    );
    // And a user stays.
    let mut ada = Asked::new(Some("shop")).open(Some(&of_shop(json!({}))));
    assert!(changed(&mut ada, |shop| shop.auth.anonymous = true).is_ok());
    assert!(changed(&mut ada, |shop| shop.auth.anonymous = false).is_ok());
}

#[test]
fn a_session_of_the_handshake_opens_with_a_token_of_its_app_only() {
    let verifier = rig::verifier(&config(|_| {}));
    let now = Clocks::new().start();
    let claims = verifier
        .session(&of_shop(json!({"app": "shop"})), None, now.wall())
        .unwrap();
    let opened = |app| {
        let mut asked = Asked::new(Some(app));
        asked.machine.identify(super::super::state::Identity {
            user: Some(claims.user.clone()),
            claims: Some(claims.clone()),
        });
        asked.machine.open_known(now).map_err(|refusal| refusal.end)
    };
    assert_eq!(opened("shop"), Ok(()));
    assert_eq!(opened("default"), Err(Some(CloseReason::Unauthorized)));
}
