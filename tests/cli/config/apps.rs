//! `[apps.NAME]`: what is taken, from whom an app has the rest, what is told of faults, and that JSON of
//! the same shape gives the same.

use fanfare::auth::keys::try_key;
use fanfare::config::app::AppSettings;
use fanfare::config::show::rows;
use fanfare::config::{Allow, Config};
use fanfare_protocol::ids::App;

use super::{faults_of_file, file, inputs, keyless, loaded};

const SECRET: &str = "hunter2-hunter2-hunter2-hunter2-";

fn app(name: &str) -> App {
    App::new(name).unwrap()
}

/// The configuration of a node with this file.
fn config(text: &str) -> Config {
    let (_directory, path) = file(text);
    let mut inputs = inputs();
    inputs.file = Some(path);
    loaded(&inputs).config
}

/// What is told of JSON that a node with this file is given; empty where it is taken.
fn told_of(file: &str, json: &str) -> Vec<String> {
    match read_json(file, json) {
        Ok(_) => Vec::new(),
        Err(told) => told,
    }
}

fn read_json(file: &str, json: &str) -> Result<AppSettings, Vec<String>> {
    let try_key = |key: &_| try_key(key).map_err(|fault| fault.to_string());
    let read = config(file).inherited.read_json(json.as_bytes(), try_key);
    read.map_err(|faults| faults.0.iter().map(ToString::to_string).collect())
}

/// The settings as they can be compared.
fn shape(settings: &AppSettings) -> String {
    let auth = &settings.auth;
    let keys: Vec<_> = auth
        .keys
        .iter()
        .map(|key| (&key.id, &key.algorithm, &key.material.0))
        .collect();
    format!(
        "{keys:?} {:?} {:?} {:?} {} {:?} {:?} {:?} {:?} {:?}",
        auth.issuers,
        auth.issuer,
        auth.audience,
        auth.anonymous,
        auth.token_life_max,
        auth.origins,
        settings.namespaces,
        settings.inbox,
        settings.everyone
    )
}

#[test]
fn an_app_has_from_the_node_what_it_does_not_say() {
    let config = config(&format!(
        "[auth]\nissuer = \"https://login.example\"\nleeway_s = 9\ntoken_life_max_s = 5000\n\
         [[auth.keys]]\nid = \"node\"\nalgorithm = \"HS256\"\nsecret = {SECRET:?}\n\
         [namespaces.default]\npresence = true\nhistory_entries_max = 7\n\
         [namespaces.chat]\npublish = \"anyone\"\n\
         [inbox]\nhistory_entries_max = 3\n\
         [apps.shop.auth]\nanonymous = true\n\
         [[apps.shop.auth.keys]]\nid = \"node\"\nalgorithm = \"HS256\"\nsecret = \"of the shop, 32 bytes or even more\"\n\
         [apps.shop.namespaces.default]\nhistory_entries_max = 8\n\
         [apps.shop.namespaces.orders]\nsubscribe = \"anyone\"\n\
         [apps.shop.everyone]\nhistory_entries_max = 2\n\
         [apps.bare]\n"
    ));
    let (shop, bare) = (&config.apps[&app("shop")], &config.apps[&app("bare")]);
    assert_eq!(shop.auth.issuer.as_deref(), Some("https://login.example"));
    assert_eq!(shop.auth.leeway.as_secs(), 9);
    assert!(shop.auth.anonymous && !bare.auth.anonymous && !config.auth.anonymous);
    // Keys are never those of another app, whatever their ids.
    assert_eq!(shop.auth.keys.len(), 1);
    assert_eq!(
        shop.auth.keys[0].material.0,
        "of the shop, 32 bytes or even more"
    );
    assert!(bare.auth.keys.is_empty() && bare.auth.issuers.is_empty());
    assert_eq!(
        config.auth.keys.len(),
        2,
        "the file's and that of the environment"
    );
    let names: Vec<_> = shop.namespaces.keys().map(String::as_str).collect();
    assert_eq!(names, ["default", "orders"], "no namespace of the node");
    let default = &shop.namespaces["default"];
    assert!(default.presence && default.history_entries_max == 8);
    // As in the node: what a namespace leaves out has the default of the table.
    let orders = &shop.namespaces["orders"];
    assert!(!orders.presence && orders.history_entries_max == 1_000);
    assert_eq!(orders.subscribe, Allow::Anyone);
    assert_eq!(bare.namespaces["default"].history_entries_max, 7);
    assert_eq!(
        (
            shop.inbox.history_entries_max,
            shop.everyone.history_entries_max
        ),
        (3, 2)
    );
}

const AUTHORIZERS: &str = "[auth]\nauthorize_connect = \"a\"\n\
    [namespaces.default]\nauthorize_subscribe = \"a\"\n\
    [[authorizers]]\nname = \"a\"\nurl = \"https://a.example\"\n\
    secrets = [\"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\"]\n";

#[test]
fn an_app_names_authorizers_of_the_node_and_never_has_the_one_that_lets_in_from_it() {
    let config = config(&format!(
        "{AUTHORIZERS}[apps.shop.auth]\nauthorize_connect = \"a\"\n\
         [apps.shop.namespaces.orders]\nauthorize_publish = \"a\"\n[apps.bare]\n"
    ));
    let (shop, bare) = (&config.apps[&app("shop")], &config.apps[&app("bare")]);
    let a = Some("a".to_owned());
    assert_eq!(shop.auth.authorize_connect, a);
    assert_eq!(bare.auth.authorize_connect, None, "as keys are");
    assert_eq!(bare.namespaces["default"].authorize_subscribe, a);
    assert_eq!(shop.namespaces["orders"].authorize_publish, a);
    assert_eq!(shop.namespaces["orders"].authorize_subscribe, None);
    // The same as JSON, which an unknown name is a fault of.
    let json = r#"{"auth":{"authorize_connect":"a"}}"#;
    let read = read_json(AUTHORIZERS, json).unwrap();
    assert_eq!(read.auth.authorize_connect, a);
    let json = r#"{"auth":{"authorize_connect":"b"},"inbox":{"authorize_publish":"b"}}"#;
    let none = "names \"b\", which is none of [[authorizers]]; did you mean a?";
    assert_eq!(
        told_of(AUTHORIZERS, json),
        ["auth.authorize_connect", "inbox.authorize_publish"]
            .map(|path| format!("{path}: {path} {none}"))
    );
}

/// A file behind `[auth]` of a node with a key, and what is told of it.
const FAULTS: &[(&str, &str)] = &[
    (
        "[apps.default.auth]\nanonymous = true",
        "fanfare.toml:1:7: apps.default cannot be set: the sections of the node are the app default; \
         write [auth] for [apps.default.auth], and so on",
    ),
    (
        "[apps.Shop]",
        "fanfare.toml:1:7: \"Shop\" cannot be the name of an app; give 1 to 32 of a-z 0-9 _ -",
    ),
    (
        "[apps]\nshop = 5",
        "fanfare.toml:2:1: apps.shop is no section; write its settings under [apps.shop]",
    ),
    (
        "[apps.shop]\nanonymous = true",
        "fanfare.toml:2:1: apps.shop.anonymous is no key of an app; did you mean \
         apps.shop.auth.anonymous?",
    ),
    (
        "[apps.shop.autth]",
        "fanfare.toml:1:12: apps.shop.autth is no section of an app; did you mean apps.shop.auth?",
    ),
    (
        "[apps.shop.redis]\nurl = \"redis://r\"",
        "fanfare.toml:1:12: apps.shop.redis cannot be set for an app; leave it out: [redis] holds for \
         all apps",
    ),
    (
        "[apps.shop.auth]\norigins = [\"https://a.example\"]",
        "fanfare.toml:2:1: apps.shop.auth.origins cannot be set for an app; leave it out: \
         auth.origins of the node holds for all apps",
    ),
    (
        "[apps.shop.auth]\nanonymus = true",
        "fanfare.toml:2:1: apps.shop.auth.anonymus is no key; did you mean apps.shop.auth.anonymous?",
    ),
    (
        "[apps.shop.auth]\nhmac_secret = \"hunter2\"",
        "fanfare.toml:2:1: apps.shop.auth.hmac_secret cannot be set for an app; give it among the \
         keys of the app, with algorithm HS256: that of the node is of the app default alone",
    ),
    (
        "[apps.shop.auth]\nanonymous = 5",
        "fanfare.toml:2:13: apps.shop.auth.anonymous cannot be 5; give true or false",
    ),
    (
        "[apps.shop.auth]\nkeys = 5",
        "fanfare.toml:2:8: apps.shop.auth.keys is no list of tables; write [[apps.shop.auth.keys]] \
         once for each key",
    ),
    (
        "[[apps.shop.auth.keys]]\nalgorithm = \"HS256\"\nsecret = \"hunter2\"",
        "fanfare.toml:3:10: apps.shop.auth.keys[0].secret cannot be used: the secret must have at \
         least 32 bytes; give another one; docs/configuration.md names the forms",
    ),
    (
        "[[apps.shop.auth.issuers]]\nissuer = \"a\"",
        "fanfare.toml:1:1: apps.shop.auth.issuers[0] has not one source of keys; give jwks_url, or \
         [[auth.issuers.keys]], and not both",
    ),
    (
        "[apps.shop.auth]\ntoken_life_max_s = 604801",
        "fanfare.toml:2:20: apps.shop.auth.token_life_max_s is 604801, but must be at most that of the \
         node, which is 604800; lower it, or raise auth.token_life_max_s of every node",
    ),
    (
        "[apps.shop]\nnamespaces.chat = 5",
        "fanfare.toml:2:12: apps.shop.namespaces.chat is no section; write its options under \
         [apps.shop.namespaces.chat]",
    ),
    (
        "[apps.shop.namespaces.chat]\npresense = true",
        "fanfare.toml:2:1: apps.shop.namespaces.chat.presense is no key; did you mean \
         apps.shop.namespaces.chat.presence?",
    ),
    (
        "[apps.shop.namespaces.chat]\nsubscribe = \"all\"",
        "fanfare.toml:2:13: apps.shop.namespaces.chat.subscribe cannot be \"all\"; give anyone or \
         authenticated or token or nobody",
    ),
    (
        "[apps.shop.inbox]\nhistory_entries_max = 0",
        "fanfare.toml:2:23: apps.shop.inbox.history_entries_max is 0, but an inbox keeps history; give \
         at least 1",
    ),
    (
        "[apps.shop.everyone]\npublish = \"anyone\"",
        "fanfare.toml:2:1: apps.shop.everyone.publish is no key; did you mean \
         apps.shop.everyone.priority?",
    ),
    (
        "[apps.shop.namespaces.chat]\nreplicas_min = 1\nreplicas_timeout_ms = 5000",
        "fanfare.toml:3:23: redis.command_timeout_ms is 2000, but must be above \
         apps.shop.namespaces.chat.replicas_timeout_ms, which is 5000; raise \
         redis.command_timeout_ms or lower apps.shop.namespaces.chat.replicas_timeout_ms",
    ),
];

#[test]
fn what_an_app_cannot_be_is_told_with_its_place() {
    for (text, fault) in FAULTS {
        let lines = faults_of_file(&format!("{text}\n"));
        assert_eq!(lines, [*fault], "{text}");
        assert!(!lines.join("\n").contains("hunter2"), "{lines:?}");
    }
    let key = "[[apps.shop.auth.keys]]\nalgorithm = \"HS256\"\nsecret = \"0123456789abcdef0123456789abcdef\"\n";
    let lines = faults_of_file(&key.repeat(5));
    let words = "apps.shop.auth.keys has 5 keys of HS256 without an id";
    assert!(lines.len() == 1 && lines[0].contains(words), "{lines:?}");
    let many: String = (0..1_001).map(|n| format!("[apps.a{n}]\n")).collect();
    let lines = faults_of_file(&many);
    assert_eq!(
        lines,
        ["fanfare.toml:1:7: apps has 1001 entries; give at most 1000"]
    );
    assert!(config(&many[..many.rfind('[').unwrap()]).apps.len() == 1_000);
}

#[test]
fn all_faults_of_all_apps_are_told_at_once() {
    let lines = faults_of_file(
        "[apps.a.auth]\nanonymous = 1\nissuer = 2\n[apps.b.inbox]\nhistory_entries_max = 0\n",
    );
    let places: Vec<_> = lines
        .iter()
        .map(|line| line.split(' ').next().unwrap())
        .collect();
    assert_eq!(
        places,
        [
            "fanfare.toml:2:13:",
            "fanfare.toml:3:10:",
            "fanfare.toml:5:23:"
        ]
    );
}

#[test]
fn a_node_whose_apps_have_keys_needs_none_of_its_own() {
    let (_directory, path) = file(&format!(
        "[[apps.shop.auth.keys]]\nalgorithm = \"HS256\"\nsecret = {SECRET:?}\n"
    ));
    let mut inputs = keyless();
    inputs.file = Some(path);
    assert_eq!(loaded(&inputs).config.apps.len(), 1);
}

#[test]
fn what_an_app_sets_is_shown_without_its_secrets() {
    let (_directory, path) = file(
        "[apps.shop.auth]\nanonymous = true\n\
         [[apps.shop.auth.keys]]\nid = \"web\"\nalgorithm = \"HS256\"\nsecret_env = \"FANFARE_SHOP__KEY\"\n\
         [apps.shop.namespaces.chat]\npresence = true\nhistory_entries_max = 0\nhistory_age_s = 5\n",
    );
    let mut inputs = inputs();
    inputs.file = Some(path);
    inputs
        .environment
        .push(("FANFARE_SHOP__KEY".to_owned(), SECRET.to_owned()));
    let loaded = loaded(&inputs);
    let shown: Vec<_> = rows(&loaded.values)
        .into_iter()
        .filter(|row| row.key.starts_with("apps."))
        .collect();
    let lines: Vec<_> = shown
        .iter()
        .map(|row| {
            let origin = row.origin.rsplit('/').next().unwrap();
            format!("{} {} {origin}", row.key, row.value)
        })
        .collect();
    assert_eq!(
        lines,
        [
            "apps.shop.auth.anonymous true fanfare.toml:2:13",
            "apps.shop.namespaces.chat.history_age_s 5 fanfare.toml:10:17",
            "apps.shop.namespaces.chat.history_entries_max 0 fanfare.toml:9:23",
            "apps.shop.namespaces.chat.presence true fanfare.toml:8:12",
            "apps.shop.auth.keys[0] \"web HS256 ***\" fanfare.toml:3:1",
        ]
    );
    let words =
        "apps.shop.namespaces.chat.history_age_s has no effect while history_entries_max is 0";
    let warned = loaded
        .warnings
        .iter()
        .any(|warning| warning.contains(words));
    assert!(warned, "{:?}", loaded.warnings);
}

#[test]
fn json_and_the_file_give_the_same_settings() {
    let pem = include_str!("../../keys/ed25519-public.pem");
    let node = "[auth]\naudience = \"all\"\n[namespaces.default]\nhistory_entries_max = 7\n";
    let toml = format!(
        "{node}[apps.shop.auth]\nissuer = \"https://shop.example\"\nanonymous = true\ntoken_life_max_s = 900\n\
         [[apps.shop.auth.keys]]\nid = \"web\"\nalgorithm = \"HS256\"\nsecret = {SECRET:?}\n\
         [[apps.shop.auth.keys]]\nid = \"ed\"\nalgorithm = \"EdDSA\"\npublic_key = '''\n{pem}'''\n\
         [[apps.shop.auth.issuers]]\nissuer = \"b\"\njwks_url = \"https://b.example/keys\"\ntypes = [\"at+jwt\"]\n\
         [apps.shop.namespaces.default]\npresence = true\n\
         [apps.shop.namespaces.\"a=b\"]\npublish = \"anyone\"\nconflate = true\n\
         [apps.shop.inbox]\npublish = \"authenticated\"\n[apps.shop.everyone]\nhistory_age_s = 5\n"
    );
    let json = serde_json::json!({
        "auth": {
            "issuer": "https://shop.example", "anonymous": true, "token_life_max_s": 900,
            "keys": [
                {"id": "web", "algorithm": "HS256", "secret": SECRET},
                {"id": "ed", "algorithm": "EdDSA", "public_key": pem},
            ],
            "issuers": [{"issuer": "b", "jwks_url": "https://b.example/keys", "types": ["at+jwt"]}],
        },
        "namespaces": {
            "default": {"presence": true},
            "a=b": {"publish": "anyone", "conflate": true},
        },
        "inbox": {"publish": "authenticated"},
        "everyone": {"history_age_s": 5},
    });
    let of_file = shape(&config(&toml).apps[&app("shop")]);
    let of_json = shape(&read_json(node, &json.to_string()).unwrap());
    assert_eq!(of_json, of_file);
    // An empty object is an app with what it has from the node.
    let bare = shape(&config(&format!("{node}[apps.shop]\n")).apps[&app("shop")]);
    assert_eq!(shape(&read_json(node, "{}").unwrap()), bare);
}

/// JSON, and all that is told of it.
const JSON_FAULTS: &[(&str, &[&str])] = &[
    (
        "{\"auth\":",
        &[
            ": not JSON: EOF while parsing a value at line 1 column 8; give one object, for example \
           {\"auth\":{\"anonymous\":true}}",
        ],
    ),
    (
        "[]",
        &[
            ": the settings are no object; give one object, for example {\"auth\":{\"anonymous\":true}}",
        ],
    ),
    (
        "{\"auth\":{\"issuer\":null}}",
        &[": auth.issuer is null; leave the key out"],
    ),
    (
        "{\"auth\":{\"anonymous\":true,\"anonymous\":false}}",
        &["auth.anonymous: cannot be read: duplicate key; mend it"],
    ),
    (
        "{\"auht\":{}}",
        &["auht: auht is no section of an app; did you mean auth?"],
    ),
    (
        "{\"auth\":5}",
        &["auth: auth is no section; write its keys under [auth], or in JSON as an object"],
    ),
    (
        "{\"auth\":{\"anonymous\":\"yes\",\"token_life_max_s\":99999999999999999999}}",
        &[
            "auth.anonymous: auth.anonymous cannot be \"yes\"; give true or false",
            "auth.token_life_max_s: auth.token_life_max_s cannot be 1e20; give a whole number from 60 \
             to 31536000 seconds",
        ],
    ),
    (
        "{\"auth\":{\"keys\":[{\"algorithm\":\"HS256\",\"secret_file\":\"/etc/shadow\"},\
         {\"algorithm\":\"EdDSA\",\"public_key_env\":\"HOME\"}]}}",
        &[
            "auth.keys[0].secret_file: auth.keys[0].secret_file cannot be given by the API; give the \
             text itself as secret",
            "auth.keys[1].public_key_env: auth.keys[1].public_key_env cannot be given by the API; give \
             the text itself as public_key",
        ],
    ),
    (
        "{\"auth\":{\"keys\":[{\"algorithm\":\"HS256\",\"secret\":\"***\"}]}}",
        &[
            "auth.keys[0].secret: auth.keys[0].secret cannot be used: the secret must have at least 32 \
           bytes; give another one; docs/configuration.md names the forms",
        ],
    ),
    (
        "{\"auth\":{\"issuers\":[{\"issuer\":\"a\",\"jwks_url\":\"https://a/\",\
         \"ca_file\":\"/etc/shadow\",\"allow_private\":true}]}}",
        &[
            "auth.issuers[0].ca_file: auth.issuers[0].ca_file cannot be given by the API; leave it \
             out, or write the app into the file of every node",
            "auth.issuers[0].allow_private: auth.issuers[0].allow_private cannot be given by the API; \
             leave it out, or write the app into the file of every node",
        ],
    ),
    (
        "{\"namespaces\":{\"a:b\":{},\"chat\":{\"replicas_min\":1}}}",
        &[
            "namespaces.a:b: \"a:b\" cannot be the name of a namespace; give what stands before the \
             first : of a topic, of A-Z a-z 0-9 _ - . / = , ~ #",
            "namespaces.chat.replicas_min: namespaces.chat.replicas_min is 1, but the file of this node \
             asks for 0 at the most; lower it, or set it in the file of every node: it is read at a start",
        ],
    ),
];

#[test]
fn what_json_cannot_be_is_told_with_its_path() {
    for (json, wanted) in JSON_FAULTS {
        assert_eq!(told_of("", json), *wanted, "{json}");
    }
    let large = format!("{{\"auth\":{{\"issuer\":\"{}\"}}}}", "a".repeat(65_536));
    let wanted = format!(
        ": the settings have {} bytes; give at most 65536",
        large.len()
    );
    assert_eq!(told_of("", &large), [wanted]);
}
