//! The doors before the judge: for which app a call of the API is, and whose token stands for whom.
//!
//! In: dice. Out: nothing, or the first answer that is not what `docs/security.md` says.

use std::sync::LazyLock;
use std::time::{Duration, UNIX_EPOCH};

use super::Dice;
use crate::auth::Claims;
use crate::config::api_clients::{ApiClient, ClientApp};
use crate::policy::calls::{self, Refused};
use crate::policy::identity::{self, Holder, Mismatch};
use crate::seeds::Verdict;
use crate::session::rig;
use fanfare_protocol::ids::{App, Topic, User};

/// Asks at each of them once.
pub(super) fn asked(dice: &mut Dice) -> Verdict {
    let client = ApiClient {
        app: match dice.is(50) {
            true => ClientApp::Any,
            false => ClientApp::One(dice.app(30)),
        },
        expires: dice.is(50).then(|| dice.pick(&[99, 100, 101])),
        ..ApiClient::with_key("k")
    };
    let named = dice.is(50).then(|| dice.app(50));
    let knows_shop = dice.is(50);
    let known = |app: &App| app.as_str() == "default" || knows_shop;
    let now = UNIX_EPOCH + Duration::from_secs(100);
    let judged = calls::app_of(&client, named.clone(), (&App::default_app(), known), now);
    let own = match &client.app {
        ClientApp::One(own) => Some(own),
        ClientApp::Any => None,
    };
    let asked = named.as_ref().or(own).map_or("default", App::as_str);
    let asked = App::new(asked).unwrap();
    let wanted = if client.expires.is_some_and(|end| end <= 100) {
        Err(Refused::Expired)
    } else if own.is_some_and(|own| *own != asked) {
        Err(Refused::OtherApp)
    } else if asked.as_str() == "shop" && !knows_shop {
        Err(Refused::UnknownApp(asked))
    } else {
        Ok(asked)
    };
    if judged != wanted {
        return Err(format!(
            "{judged:?}, and not {wanted:?}, of {client:?} for {named:?}"
        ));
    }
    tokens(dice)
}

fn tokens(dice: &mut Dice) -> Verdict {
    let (app, claims_app) = (dice.app(20), dice.app(20));
    let user = dice.pick(&[None, Some("ada"), Some("bob")]);
    let user = user.map(|user| User::new(user).unwrap());
    let claims = claims_of(&claims_app, dice.pick(&["ada", "bob"]));
    let holder = Holder {
        app: &app,
        user: user.as_ref(),
    };
    let topic = Topic::new(&dice.app(20), dice.pick(&["t", "u"])).unwrap();
    let named = dice.pick(&["t", "u"]);
    let is_app = app == claims_app;
    let is_user = user.as_ref() == Some(&claims.user);
    let goes_on = match (is_app, is_user) {
        (false, _) => Err(Mismatch::OtherApp),
        (_, false) => Err(Mismatch::OtherUser),
        _ => Ok(()),
    };
    let opens = match user {
        None if is_app => Ok(()),
        _ => goes_on,
    };
    let is_topic = topic.qualified() == format!("{}:{named}", app.as_str());
    let opens_topic = goes_on.and(is_topic.then_some(()).ok_or(Mismatch::OtherTopic));
    let judged = [
        identity::may_open(holder, Some(&claims), dice.is(50)),
        identity::may_go_on(holder, &claims),
        identity::may_open_topic(holder, (&claims, named), &topic),
    ];
    match judged == [opens, goes_on, opens_topic] {
        true => Ok(()),
        false => Err(format!(
            "{judged:?} of {holder:?} with {claims:?} on {topic:?}"
        )),
    }
}

/// What a token says, as it is read from one: all that a token of the tests has, with this app and user.
pub(in crate::policy) fn claims_of(app: &App, user: &str) -> Claims {
    static READ: LazyLock<Claims> = LazyLock::new(|| {
        let now = UNIX_EPOCH + Duration::from_secs(rig::START_S);
        let verifier = rig::verifier(&rig::config(|_| {}));
        let token = rig::token("ada", serde_json::json!({}));
        verifier.session(&token, None, now).expect("it is valid")
    });
    Claims {
        app: app.clone(),
        user: User::new(user).expect("a name"),
        ..READ.clone()
    }
}
