//! Sessions of two apps, of which each has an authorizer of its own.

use super::*;
use crate::config::app::AppSettings;

#[test]
fn each_app_is_asked_about_at_its_own_authorizer() {
    run(async {
        let backend = Backend::http(|_| yes()).await;
        let of_shop = Backend::http(|asked| {
            let json = &asked.json;
            match (json["type"] == "connect", json["user"].is_null()) {
                (true, true) => granting(&json!({"user": "guest"})),
                (true, false) => yes(),
                (false, _) => no(),
            }
        })
        .await;
        let shop = App::new("shop").expect("a name");
        let url = of_shop.url.clone();
        let node = asking(&backend, |config| {
            let mut second = config.authorizers[0].clone();
            (second.name, second.url) = ("second".to_owned(), url);
            config.authorizers.push(second);
            let mut settings = AppSettings::of_default(config);
            let name = || Some("second".to_owned());
            settings.auth.anonymous = false;
            settings.auth.authorize_connect = name();
            let open = settings.namespaces.get_mut("open").expect("the rig has it");
            (open.authorize_subscribe, open.authorize_publish) = (name(), None);
            config.apps.insert(shop.clone(), settings);
        });
        let subscribe = json!({"type": "subscribe", "topic": "open:t"});
        let mut ada = node.welcomed(user("ada")).await;
        ada.ok(subscribe.clone()).await;
        assert!(of_shop.asked().is_empty());
        let in_shop = Entrance {
            app: Some("shop"),
            ..nobody()
        };
        let mut guest = node.connect(in_shop).await;
        guest.ok(json!({"type": "connect"})).await;
        let text = "refused by the authorizer `second`: closed";
        refused(&mut guest, subscribe, "forbidden", text).await;
        let asked = of_shop.asked();
        let seen = asked
            .iter()
            .map(|one| (&one.json["type"], &one.json["app"], &one.json["user"]));
        let (app, absent) = (json!("shop"), Value::Null);
        let (connect, subscribe, guest) = (json!("connect"), json!("subscribe"), json!("guest"));
        let wanted = [(&connect, &app, &absent), (&subscribe, &app, &guest)];
        assert_eq!(seen.collect::<Vec<_>>(), wanted);
        // Where the token of `connect` chooses the app, its authorizer is asked, behind that choice.
        let mut eve = node.connect(nobody()).await;
        let of_eve = token("eve", json!({"exp": LATER, "app": "shop"}));
        eve.ok(json!({"type": "connect", "token": of_eve})).await;
        let last = of_shop.asked().pop().expect("asked").json;
        assert_eq!((&last["user"], &last["app"]), (&json!("eve"), &app));
        assert_eq!(backend.asked().len(), 1, "that of ada alone");
    });
}

/// The bound was that of the node: an authorizer let sessions of an app stay for longer than a token of the app
/// may live.
#[test]
fn nobody_is_let_in_for_longer_than_a_token_of_the_app_may_live() {
    run(async {
        let backend = Backend::http(|asked| match asked.json["type"] == "connect" {
            true => granting(&json!({"user": "guest", "expires": LATER})),
            false => granting(&json!({ "expires": LATER })),
        })
        .await;
        let shop = App::new("shop").expect("a name");
        let node = asking(&backend, |config| {
            connects(config);
            let mut settings = AppSettings::of_default(config);
            settings.auth.token_life_max = Duration::from_secs(600);
            config.apps.insert(shop.clone(), settings.clone());
            settings.auth.authorize_connect = None;
            let unasked = App::new("unasked").expect("a name");
            config.apps.insert(unasked, settings);
        });
        let mut guest = node.connect(nobody()).await;
        let welcome = guest.ok(json!({"type": "connect"})).await;
        assert_eq!(welcome["expires"], LATER);
        let of = |app| Entrance {
            app: Some(app),
            ..nobody()
        };
        let mut guest = node.connect(of("shop")).await;
        refused(
            &mut guest,
            json!({"type": "connect"}),
            "unavailable",
            USELESS,
        )
        .await;
        let mut guest = node.connect(of("unasked")).await;
        guest.ok(json!({"type": "connect"})).await;
        let subscribe = json!({"type": "subscribe", "topic": "open:t"});
        refused(&mut guest, subscribe, "unavailable", USELESS).await;
    });
}
