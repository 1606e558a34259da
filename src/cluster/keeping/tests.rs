//! What nodes say of their settings, and where two of them differ.

use super::*;
use crate::config::Allow;
use fanfare_protocol::ids::Priority;

fn namespace(history_entries_max: u32) -> Namespace {
    Namespace {
        history_entries_max,
        history_age: Duration::from_secs(60),
        presence: false,
        priority: Priority::Normal,
        conflate: false,
        trace: false,
        subscribe: Allow::Token,
        publish: Allow::Token,
        history: Allow::Token,
        presence_allow: Allow::Token,
        replicas_min: 0,
        authorize_subscribe: None,
        authorize_publish: None,
        replicas_timeout: Duration::from_secs(1),
    }
}

/// What a node with these namespaces says; `default` has 10 entries.
fn saying(namespaces: &[(&str, Namespace)]) -> String {
    let default = [("default", namespace(10))];
    let all = default.iter().chain(namespaces);
    let all = all.map(|(name, n)| ((*name).to_owned(), n.clone()));
    let own = namespace(5);
    let own = [(INBOX, &own), (EVERYONE, &own)];
    let head = Head {
        idempotency: Duration::from_secs(300),
        message_bytes_max: 65_536,
        lease: Duration::from_secs(5),
        queue_capacity: 50_000,
        queue_idempotency: Duration::from_secs(86_400),
        auth: "604800,5,false,1,2,3,4,5".to_owned(),
        api: "6,7".to_owned(),
    };
    text(&head, own, &all.collect())
}

fn told(mine: &str, theirs: &str) -> Vec<String> {
    let differences = differences(mine, theirs).into_iter();
    let told = differences.map(|d| format!("{}: {}, {}", d.what, d.mine, d.theirs));
    told.collect()
}

/// So many namespaces with a history of 1.
fn many(count: usize) -> Vec<(String, Namespace)> {
    let name = |nth| (format!("n{nth:03}"), namespace(1));
    (0..count).map(name).collect()
}

fn saying_of(namespaces: &[(String, Namespace)]) -> String {
    let named = namespaces
        .iter()
        .map(|(name, n)| (name.as_str(), n.clone()));
    saying(&named.collect::<Vec<_>>())
}

#[test]
fn what_is_kept_and_promised_is_said_in_few_words() {
    let orders = Namespace {
        presence: true,
        replicas_min: 2,
        conflate: true,
        priority: Priority::High,
        subscribe: Allow::Nobody,
        ..namespace(7)
    };
    assert_eq!(
        saying(&[("orders", orders), ("ticks", namespace(0))]),
        "@session:300,65536 @redis:5000 @queue:50000,86400 \
             @auth:604800,5,false,1,2,3,4,5 @api:6,7 \
             @inbox:5,60,false,0,false,normal,token,token,token,token \
             @everyone:5,60,false,0,false,normal,token,token,token,token \
             default:10,60,false,0,false,normal,token,token,token,token \
             orders:7,60,true,2,true,high,nobody,token,token,token \
             ticks:0,0,false,0,false,normal,token,token,token,token"
    );
}

#[test]
fn each_setting_that_differs_is_named_with_both_sides() {
    let mine = saying(&[("a=b,c", namespace(7))]);
    assert_eq!(told(&mine, &mine), [""; 0]);
    let theirs = saying(&[("a=b,c", namespace(0))]);
    let both = [
        "namespaces.a=b,c.history_age_s: 60, 0",
        "namespaces.a=b,c.history_entries_max: 7, 0",
    ];
    let mut found = told(&mine, &theirs);
    found.sort_unstable();
    assert_eq!(found, both);
    let theirs = mine.replace("@session:300", "@session:60");
    assert_eq!(told(&mine, &theirs), ["session.idempotency_s: 300, 60"]);
    let theirs = mine.replace("300,65536", "300,300000");
    let message_bytes_max = ["session.message_bytes_max: 65536, 300000"];
    assert_eq!(told(&mine, &theirs), message_bytes_max);
    let theirs = mine.replace("@queue:50000,86400", "@queue:10,5");
    let queue = ["queue.capacity: 50000, 10", "queue.idempotency_s: 86400, 5"];
    assert_eq!(told(&mine, &theirs), queue);
    let theirs = mine.replace("@redis:5000", "@redis:20000");
    assert_eq!(told(&mine, &theirs), ["redis.lease_ms: 5000, 20000"]);
    let theirs = mine.replace("604800,5,false,1", "60,300,true,9");
    let auth = [
        "auth.anonymous: false, true",
        "auth.keys (digest): 1, 9",
        "auth.leeway_s: 5, 300",
        "auth.token_life_max_s: 604800, 60",
    ];
    let mut found = told(&mine, &theirs);
    found.sort_unstable();
    assert_eq!(found, auth);
    let theirs = mine.replace("@api:6,7", "@api:6,8");
    assert_eq!(told(&mine, &theirs), ["api.clients (digest): 7, 8"]);
    let theirs = mine.replace("@everyone:5", "@everyone:6");
    assert_eq!(told(&mine, &theirs), ["everyone.history_entries_max: 5, 6"]);
}

#[test]
fn a_namespace_that_only_one_has_is_compared_with_the_default_of_the_other() {
    let chat = namespace(7);
    let (with, without) = (saying(&[("chat", chat)]), saying(&[]));
    let what = "namespaces.chat.history_entries_max";
    assert_eq!(told(&with, &without), [format!("{what}: 7, 10")]);
    assert_eq!(told(&without, &with), [format!("{what}: 10, 7")]);
    let like_default = saying(&[("chat", namespace(10))]);
    assert_eq!(told(&like_default, &without), [""; 0]);
    // And where the defaults differ, by what holds.
    let theirs = without.replace("default:10", "default:7");
    let default = "namespaces.default.history_entries_max: 10, 7";
    assert_eq!(told(&with, &theirs), [default]);
}

#[test]
fn what_another_release_says_more_or_less_is_no_difference() {
    let mine = saying(&[("chat", namespace(7))]);
    for theirs in [
        String::new(),
        "from another planet".to_owned(),
        mine.replace("token ", "token,12 ") + " @more:3",
        mine.replace(",normal,token,token,token,token", ""),
        mine.replace(",token,token,token,token", ""),
        mine.replace("@auth:604800,5,false,1,2,3,4,5 @api:6,7 ", ""),
        mine.replace("@redis:5000 ", ""),
        mine.replace(",65536", ""),
        mine.replace("@queue:50000,86400 ", ""),
    ] {
        assert_eq!(told(&mine, &theirs), [""; 0], "{theirs}");
        assert_eq!(told(&theirs, &mine), [""; 0], "{theirs}");
    }
}

#[test]
fn beyond_the_bound_one_digest_is_compared_and_nothing_is_told_twice() {
    let mine = many(LISTED_MAX + 3);
    let said = saying_of(&mine);
    assert!(said.contains(" @rest:3,"), "{said}");
    assert_eq!(told(&said, &said), [""; 0]);
    let mut theirs = mine.clone();
    theirs[LISTED_MAX + 1].1.history_entries_max = 2;
    let found = told(&said, &saying_of(&theirs));
    assert_eq!(found.len(), 1);
    assert!(
        found[0].starts_with("namespaces after the first 32"),
        "{found:?}"
    );
    let found = told(&said, &saying_of(&mine[..LISTED_MAX]));
    assert!(found[0].ends_with(", none"), "{found:?}");
    // One of the first is missing, so that others are listed.
    theirs = mine.clone();
    theirs.remove(5);
    let missing = "namespaces.n005.history_entries_max: 1, 10";
    assert_eq!(told(&said, &saying_of(&theirs)), [missing]);
    // The rest of a release with more settings is another digest over the same.
    let later = said
        .replace("token ", "token,1 ")
        .replace("@rest:3,", "@rest:3,0");
    assert_eq!(told(&said, &later), [""; 0]);
}

/// What a node says of these apps, each with so much history.
fn saying_apps(apps: &[(String, u32)]) -> String {
    let of_default = AppSettings::of_default(&crate::config::load::defaults());
    let apps: BTreeMap<_, _> = apps
        .iter()
        .map(|(name, history_entries_max)| {
            let mut settings = of_default.clone();
            let orders = namespace(*history_entries_max);
            settings.namespaces.insert("orders".to_owned(), orders);
            (App::new(name).unwrap(), Arc::new(settings))
        })
        .collect();
    saying(&[]) + &text_of_apps(apps.iter())
}

#[test]
fn apps_of_the_file_are_compared_by_what_they_keep() {
    let of = |apps: &[(&str, u32)]| {
        let apps = apps
            .iter()
            .map(|(name, count)| ((*name).to_owned(), *count));
        saying_apps(&apps.collect::<Vec<_>>())
    };
    let mine = of(&[("game", 5), ("shop", 7)]);
    assert_eq!(told(&mine, &mine), [""; 0]);
    let [game, shop] = ["game", "shop"].map(|app| format!("apps.{app} (digest)"));
    let names = |theirs: &str| {
        let found = told(&mine, theirs).into_iter();
        let found = found.map(|told| told.split(':').next().unwrap().to_owned());
        found.collect::<Vec<_>>()
    };
    assert_eq!(
        names(&of(&[("game", 5), ("shop", 8)])),
        std::slice::from_ref(&shop)
    );
    assert_eq!(names(&of(&[("shop", 7)])), std::slice::from_ref(&game));
    assert!(told(&mine, &of(&[("shop", 7)]))[0].ends_with(", none"));
    assert_eq!(names(&of(&[])), [game, shop]);
    // A release without apps says nothing of them.
    assert_eq!(names(&saying(&[])), [""; 0]);
}

#[test]
fn apps_of_the_file_are_compared_by_whom_they_let_in() {
    let of_default = AppSettings::of_default(&crate::config::load::defaults());
    let with = |change: fn(&mut AppSettings)| {
        let mut settings = of_default.clone();
        change(&mut settings);
        let apps = BTreeMap::from([(App::new("shop").unwrap(), Arc::new(settings))]);
        saying(&[]) + &text_of_apps(apps.iter())
    };
    let mine = with(|_| {});
    let changes: [fn(&mut AppSettings); 4] = [
        |shop| shop.auth.anonymous = true,
        |shop| shop.auth.audience = Some("x".to_owned()),
        |shop| shop.auth.authorize_connect = Some("gate".to_owned()),
        |shop| shop.auth.issuer = Some("y".to_owned()),
    ];
    for change in changes {
        assert_eq!(told(&mine, &with(change)).len(), 1);
    }
}

#[test]
fn many_apps_are_said_in_few_words() {
    let many: Vec<_> = (0..LISTED_MAX + 3)
        .map(|nth| (format!("a{nth:03}"), 5))
        .collect();
    let mine = saying_apps(&many);
    let mut theirs = many.clone();
    theirs[LISTED_MAX + 1].1 = 6;
    let found = told(&mine, &saying_apps(&theirs));
    assert_eq!(found.len(), 1);
    assert!(found[0].starts_with("apps after the first 32"), "{found:?}");
    theirs = many.clone();
    theirs[3].1 = 6;
    let found = told(&mine, &saying_apps(&theirs));
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].starts_with("apps.a003"), "{found:?}");
    let bytes = mine.len() - saying(&[]).len();
    assert!(bytes < LISTED_MAX * 48, "{bytes}");
}
