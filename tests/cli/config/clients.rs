//! `[[api.clients]]`, `api.keys_file` and `fanfare api-key new`: what is taken, and what is told of the
//! rest.

use std::process::{Command, Output};

use fanfare::config::api_clients::{ApiClient, ClientApp, Scope, hash_of};
use fanfare::config::inputs::Inputs;
use fanfare::config::show::rows;
use serde_json::Value;

use super::{fault_lines, faults_of_file, file, inputs, loaded, variables};

const HASH: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

fn clients(text: &str) -> Vec<ApiClient> {
    let (_directory, path) = file(text);
    let inputs = Inputs {
        file: Some(path),
        ..inputs()
    };
    loaded(&inputs).config.api.clients
}

#[test]
fn a_client_is_read_with_all_that_it_may() {
    let other = HASH.replace("00", "ff").to_uppercase();
    let clients = clients(&format!(
        "[[api.clients]]\nname = \"billing\"\nkey_sha256 = {HASH:?}\nscopes = [\"publish\"]\n\
         [[api.clients]]\nname = \"ops-2\"\nkey_sha256 = [{other:?}]\napp = \"*\"\n\
         scopes = [\"admin\", \"read\"]\ntopics = [\"orders:**\", \"@*\"]\n\
         expires = 2027-01-01T00:00:00Z\n"
    ));
    let [billing, ops] = &clients[..] else {
        panic!("{clients:?}");
    };
    assert_eq!(billing.name, "billing");
    assert_eq!(billing.hashes[0][..3], [0x00, 0x11, 0x22]);
    assert!(matches!(&billing.app, ClientApp::One(app) if app.as_str() == "default"));
    assert_eq!(billing.scopes.iter().collect::<Vec<_>>(), [Scope::Publish]);
    assert_eq!((&billing.topics, billing.expires), (&None, None));
    assert_eq!(ops.app, ClientApp::Any);
    let scopes: Vec<_> = ops.scopes.iter().collect();
    assert_eq!(scopes, [Scope::Read, Scope::Admin]);
    assert_eq!(ops.expires, Some(1_798_761_600));
    assert!(ops.names("orders:7") && ops.names("@ada") && !ops.names("t"));
}

/// The fault of one client with these lines in place of the good ones.
fn fault(lines: &[(&str, &str)]) -> String {
    let hash = format!("{HASH:?}");
    let mut fields = vec![
        ("name", "\"billing\""),
        ("key_sha256", hash.as_str()),
        ("scopes", "[\"publish\"]"),
    ];
    for (field, value) in lines {
        fields.retain(|(known, _)| known != field);
        if !value.is_empty() {
            fields.push((field, value));
        }
    }
    let lines = fields
        .iter()
        .map(|(field, value)| format!("{field} = {value}\n"));
    let faults = faults_of_file(&format!("[[api.clients]]\n{}", lines.collect::<String>()));
    assert_eq!(faults.len(), 1, "{faults:?}");
    let (_, told) = faults[0].split_once(": ").unwrap();
    assert!(!told.contains(&HASH[..8]), "{told}");
    told.to_owned()
}

#[test]
fn what_a_client_cannot_be_is_told_with_what_to_give() {
    let scopes = "give a list of publish, read, users, queue and admin";
    let hidden = "api.clients[0].key_sha256 cannot be this value, which is hidden; give the SHA-256 \
                  of the key as 64 hexadecimal digits, or a list of one or two: fanfare api-key new \
                  prints it";
    let name = "give 1 to 64 characters of A-Z a-z 0-9 . _ -, for example billing";
    let short = format!("{:?}", &HASH[1..]);
    let three = format!("[{HASH:?}, {HASH:?}, {HASH:?}]");
    let rows: [(&str, &str, String); 16] = [
        ("name", "", "api.clients[0] has no name; give it a name".into()),
        ("key_sha256", "", "api.clients[0] has no key_sha256; make a key by fanfare api-key new".into()),
        ("scopes", "", format!("api.clients[0] has no scopes; {scopes}")),
        ("name", "\"a b\"", format!("api.clients[0].name cannot be this; {name}")),
        ("name", "7", format!("api.clients[0].name cannot be this; {name}")),
        (
            "name",
            "\"api.keys\"",
            "api.clients[0].name cannot be api.keys, which the keys of that list have; give it another one".into(),
        ),
        ("key_sha256", "\"x\"", hidden.into()),
        ("key_sha256", &short, hidden.into()),
        ("key_sha256", &three, hidden.into()),
        ("key_sha256", "[]", hidden.into()),
        ("scopes", "[]", format!("api.clients[0].scopes is no list, or empty; {scopes}")),
        ("scopes", "[\"write\"]", format!("api.clients[0].scopes cannot have \"write\"; {scopes}")),
        (
            "topics",
            "[]",
            "api.clients[0].topics has 0 patterns; give 1 to 100, or leave it out for all topics".into(),
        ),
        (
            "topics",
            "[\"orders*\"]",
            "api.clients[0].topics cannot have \"orders*\": a `*` stands for a whole segment between `:`, \
             a `**` only for the last ones; give patterns such as orders:**, @* and news"
                .into(),
        ),
        (
            "app",
            "\"A\"",
            "api.clients[0].app cannot be this; give the name of an app, 1 to 32 of a-z 0-9 _ -, or * \
             for all apps"
                .into(),
        ),
        (
            "expires",
            "2027-01-01",
            "api.clients[0].expires is no such time; give a date and time with its offset, without \
             quotes, such as 2027-01-01T00:00:00Z, or unix seconds"
                .into(),
        ),
    ];
    for (field, value, told) in rows {
        assert_eq!(fault(&[(field, value)]), told, "{field} = {value}");
    }
    let unknown = fault(&[("topic", "[\"t\"]")]);
    assert_eq!(
        unknown,
        "api.clients[0].topic is no key; did you mean api.clients[0].topics?"
    );
}

#[test]
fn two_clients_have_neither_a_name_nor_a_key_in_common() {
    let two = |name: &str, hash: &str| {
        let one = |name: &str, hash: &str| {
            format!(
                "[[api.clients]]\nname = {name:?}\nkey_sha256 = {hash:?}\nscopes = [\"read\"]\n"
            )
        };
        faults_of_file(&(one("a", HASH) + &one(name, hash)))
    };
    let other = HASH.replace("00", "ff");
    let told = two("a", &other);
    let wanted = "api.clients[1].name is taken by an earlier client; give each client its own name";
    assert!(told.len() == 1 && told[0].ends_with(wanted), "{told:?}");
    let told = two("b", HASH);
    let wanted = "api.clients[1].key_sha256 is there twice; give each client keys of its own, and each key once";
    assert!(told.len() == 1 && told[0].ends_with(wanted), "{told:?}");
    let told = faults_of_file("[api]\nclients = \"billing\"\n");
    let wanted = "api.clients is no list of tables; write [[api.clients]] once for each client";
    assert!(told.len() == 1 && told[0].ends_with(wanted), "{told:?}");
}

#[test]
fn a_key_that_everybody_knows_and_one_of_two_callers_are_faults() {
    let quoted = |key: &[u8]| {
        let hash = hash_of(key).map(|byte| format!("{byte:02x}"));
        format!("\"{}\"", hash.concat())
    };
    for key in [&b""[..], b"\n", b"dev"] {
        let told = fault(&[("key_sha256", &quoted(key))]);
        let wanted = "key_sha256 is the hash of a key that everybody knows";
        assert!(told.contains(wanted), "{key:?}: {told}");
    }
    let text = format!(
        "[api]\nkeys = [\"0123456789abcdef\"]\n[[api.clients]]\nname = \"billing\"\nkey_sha256 = {}\n\
         scopes = [\"publish\"]\n",
        quoted(b"0123456789abcdef")
    );
    let told = faults_of_file(&text);
    let wanted = "the API client billing has a key that stands in api.keys or api.keys_file too, where \
                  it may do everything; give the client a key of its own: fanfare api-key new";
    assert!(told.len() == 1 && told[0].ends_with(wanted), "{told:?}");
}

#[test]
fn production_refuses_a_short_key() {
    let mut short = inputs();
    short.environment.extend(variables(&[
        ("FANFARE_ENV", "production"),
        ("FANFARE_API__KEYS", "0123456789abcdef,0123456789abcde"),
        ("FANFARE_REDIS__URL", "redis://redis.example"),
    ]));
    assert_eq!(
        fault_lines(&short),
        [
            "FANFARE_API__KEYS: api.keys has a key of fewer than 16 bytes, which can be guessed and \
             which production refuses; make keys by fanfare api-key new, or openssl rand -hex 32"
        ]
    );
}

#[test]
fn a_file_of_keys_joins_the_list_and_is_watched() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("keys");
    std::fs::write(
        &path,
        "# those of today\nfirst-key-of-the-api\n\nsecond-key-of-the-api\n",
    )
    .unwrap();
    let mut inputs = inputs();
    let name = path.display().to_string();
    let environment = variables(&[("FANFARE_API__KEYS_FILE", &name)]);
    inputs.environment.extend(environment);
    inputs.env = Some("production".to_owned());
    let environment = variables(&[("FANFARE_CLUSTER__ALONE", "true")]);
    inputs.environment.extend(environment);
    let loaded = loaded(&inputs);
    let keys: Vec<_> = loaded
        .config
        .api
        .file_keys
        .iter()
        .map(|key| key.0.as_str())
        .collect();
    assert_eq!(keys, ["first-key-of-the-api", "second-key-of-the-api"]);
    let watched = loaded.values.watched_files();
    assert_eq!(watched.now(), *watched);
    std::fs::write(&path, "bad key\n").unwrap();
    assert_ne!(watched.now(), *watched);
    let told = fault_lines(&inputs).join("\n");
    let wanted = format!(
        "FANFARE_API__KEYS_FILE: api.keys_file names {name}, which has in line 1 no key of printable \
         ASCII without spaces and commas; name a file with one key a line"
    );
    assert_eq!(told, wanted);
    std::fs::remove_file(&path).unwrap();
    assert!(fault_lines(&inputs)[0].contains("which cannot be read"));
}

#[test]
fn what_is_shown_of_a_client_is_no_hash() {
    let text = format!(
        "[[api.clients]]\nname = \"billing\"\nkey_sha256 = {HASH:?}\nscopes = [\"publish\", \"read\"]\n\
         topics = [\"orders:**\"]\nexpires = 1798761600\n"
    );
    let (_directory, path) = file(&text);
    let inputs = Inputs {
        file: Some(path),
        ..inputs()
    };
    let rows = rows(&loaded(&inputs).values);
    let row = rows.iter().find(|row| row.key == "api.clients[0]").unwrap();
    let wanted = "billing app default, publish,read, orders:**, until 1798761600";
    assert_eq!(row.value, wanted);
}

fn api_key(arguments: &[&str]) -> Output {
    Command::new(fanfare_testkit::program::fanfare())
        .args(["api-key", "new"])
        .args(arguments)
        .output()
        .expect("the binary starts")
}

#[test]
fn a_new_key_and_its_section_belong_together() {
    let arguments = [
        "--name",
        "billing",
        "--scope",
        "read",
        "--scope",
        "publish",
        "--topic",
        "orders:**",
        "--topic",
        "@*",
        "--expires",
        "90d",
    ];
    let output = api_key(&arguments);
    assert!(output.status.success(), "{output:?}");
    let told: Value = serde_json::from_slice(&output.stdout).expect("JSON in a pipe");
    let key = told["key"].as_str().unwrap();
    assert!(key.starts_with("ffk_") && key.len() == 47, "{key}");
    let section = told["section"].as_str().unwrap();
    assert!(!section.contains(key), "{section}");
    let clients = clients(section);
    assert_eq!(clients.len(), 1);
    assert_eq!(clients[0].hashes, [hash_of(key.as_bytes())]);
    let scopes: Vec<_> = clients[0].scopes.iter().collect();
    assert_eq!(scopes, [Scope::Publish, Scope::Read]);
    assert!(clients[0].names("@ada") && !clients[0].names("t"));
    assert!(clients[0].expires.is_some());
    let text = api_key(&[
        "--name", "b", "--scope", "queue", "--app", "*", "--format", "text",
    ]);
    let text = String::from_utf8(text.stdout).unwrap();
    let (_, section) = text.split_once("[[api.clients]]").unwrap();
    let again = self::clients(&format!("[[api.clients]]{section}"));
    assert_eq!(again[0].app, ClientApp::Any);
}

#[test]
fn a_key_that_no_configuration_would_take_is_not_made() {
    for (arguments, told) in [
        (
            &["--name", "a b", "--scope", "read"][..],
            "a name is 1 to 64 characters",
        ),
        (
            &["--name", "a", "--scope", "write"],
            "possible values: publish, read, users, queue, admin",
        ),
        (&["--name", "a"], "--scope"),
        (
            &["--name", "a", "--scope", "read", "--topic", "a*"],
            "stands for a whole segment",
        ),
        (
            &["--name", "a", "--scope", "read", "--app", "A"],
            "an app is 1 to 32 characters",
        ),
    ] {
        let output = api_key(arguments);
        assert_eq!(output.status.code(), Some(64), "{arguments:?}");
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(error.contains(told), "{error}");
        assert!(output.stdout.is_empty());
    }
}
