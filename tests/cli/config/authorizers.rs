//! `[[authorizers]]`: what is taken, what is told of the rest, and that no secret is shown.

use std::time::Duration;

use fanfare::config::inputs::Inputs;
use fanfare::config::show::rows;

use super::{fault_lines, faults_of_file, file, inputs, loaded, variables};

const HEAD: &str = "[[authorizers]]\n";
/// The 24 bytes of the example in the specification of Standard Webhooks.
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const SECRETS: &str = "secrets = [\"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\"]";

const GIVE_SECRET: &str =
    "give one secret, or two while it is rotated: whsec_ and the base64 of 24 to 64 bytes";
const GIVE_URL: &str = "give https://HOST/PATH, without a login or a fragment";
const GIVE_HEADERS: &str = "give names and values, as { Authorization = \"Bearer …\" }";

/// The lines of an entry, and its first fault.
type Row = (String, String);

fn at(place: &str, what: &str, remedy: &str) -> String {
    format!("fanfare.toml:{place}: authorizers[0]{what}; {remedy}")
}

/// A good entry with one more line, the fifth.
fn with(line: &str) -> String {
    format!("name = \"a\"\nurl = \"https://a/\"\n{SECRETS}\n{line}")
}

fn names_and_urls() -> Vec<Row> {
    let url = |url: &str, why: &str| {
        let entry = format!("name = \"a\"\nurl = {url:?}\n{SECRETS}");
        (entry, at("3:7", &format!(".url {why}"), GIVE_URL))
    };
    let name = "give 1 to 32 characters of a-z 0-9 _ -";
    vec![
        (
            format!("url = \"https://a/\"\n{SECRETS}"),
            at("1:1", " has no name", "give name"),
        ),
        (
            format!("name = \"A b\"\nurl = \"https://a/\"\n{SECRETS}"),
            at("2:8", ".name cannot be this", name),
        ),
        (
            format!("name = \"a\"\n{SECRETS}"),
            at("1:1", " has no url", "give url"),
        ),
        url("http://a/", "is http, which goes with allow_private only"),
        url("ftp://a/", "is not https"),
        url("https://u:hunter2@a/", "has a login"),
        url("a", "is no URL"),
        url("https://a/#b", "has no host, or a fragment"),
    ]
}

fn secrets() -> Vec<Row> {
    let entry = |line: &str| format!("name = \"a\"\nurl = \"https://a/\"\n{line}");
    let source = at(
        "1:1",
        " has not one source of secrets",
        "give one of secrets, secrets_file, secrets_env",
    );
    let wrong = |secrets: &str, why: &str| {
        let fault = at("4:11", &format!(".secrets {why}"), GIVE_SECRET);
        (entry(&format!("secrets = {secrets}")), fault)
    };
    let three = format!("[{SECRET:?}, {SECRET:?}, {SECRET:?}]");
    let unusable = "cannot be used: secret 1";
    let absent =
        ".secrets_file names absent, which cannot be read: No such file or directory (os error 2)";
    let unset = "set ABSENT to the secrets, separated by a comma";
    vec![
        (entry(""), source.clone()),
        (with("secrets_env = \"X\""), source),
        wrong("[]", "has 0 secrets"),
        wrong(&three, "has 3 secrets"),
        wrong(
            "[\"hunter2\"]",
            &format!("{unusable} does not begin with whsec_"),
        ),
        wrong(
            "[\"whsec_hunter2=\"]",
            &format!("{unusable} is no base64 behind whsec_"),
        ),
        wrong(
            "[\"whsec_aHVudGVyMg==\"]",
            &format!("{unusable} has not 24 to 64 bytes"),
        ),
        (
            entry("secrets_file = \"absent\""),
            at("4:16", absent, "name a file with one secret a line"),
        ),
        (
            entry("secrets_env = \"ABSENT\""),
            at("4:15", ".secrets_env names ABSENT, which is not set", unset),
        ),
    ]
}

fn headers() -> Vec<Row> {
    let header = |headers: &str, place: &str, why: &str| {
        let fault = at(place, &format!(".headers.{why}"), GIVE_HEADERS);
        (with(&format!("headers = {headers}")), fault)
    };
    let reserved = "is a header that this server sets, or one of a single connection";
    let value = "x has a value that is no visible ASCII of at most 4096 bytes";
    vec![
        (
            with("headers = 5"),
            at("5:11", ".headers is no table", GIVE_HEADERS),
        ),
        header(
            "{ \"a b\" = \"hunter2\" }",
            "5:21",
            "a b is no name of a header",
        ),
        header(
            "{ Transfer-Encoding = \"hunter2\" }",
            "5:33",
            &format!("Transfer-Encoding {reserved}"),
        ),
        header(
            "{ webhook-id = \"hunter2\" }",
            "5:26",
            &format!("webhook-id {reserved}"),
        ),
        header("{ x = \"hunter2\\n\" }", "5:17", value),
        header("{ x = \"1\", X = \"hunter2\" }", "5:26", "X is there twice"),
    ]
}

fn others() -> Vec<Row> {
    let absent = ".ca_file cannot be used: No such file or directory (os error 2)";
    let number = |from_to: &str| format!("give a whole number from {from_to}");
    vec![
        (
            with("timeout_ms = 9"),
            at("5:14", ".timeout_ms cannot be this", &number("10 to 30000")),
        ),
        (
            with("concurrency = 0"),
            at("5:15", ".concurrency cannot be this", &number("1 to 1024")),
        ),
        (
            with("allow_private = 1"),
            at(
                "5:17",
                ".allow_private is no true or false",
                "give true or false",
            ),
        ),
        (
            with("ca_file = \"absent\""),
            at("5:11", absent, "name a file with certificates as PEM"),
        ),
        (
            with("urls = \"a\""),
            at("5:1", ".urls is no key", "did you mean authorizers[0].url?"),
        ),
    ]
}

#[test]
fn what_an_authorizer_cannot_be_is_told_with_what_to_give() {
    let rows = [names_and_urls(), secrets(), headers(), others()].concat();
    for (entry, fault) in rows {
        let lines = faults_of_file(&format!("{HEAD}{entry}\n"));
        assert_eq!(lines, [fault], "{entry}");
        assert!(!lines.join("\n").contains("hunter2"), "{lines:?}");
    }
    let lines = faults_of_file("authorizers = 5\n");
    let fault = "authorizers is no list of tables; write [[authorizers]] once for each authorizer";
    assert_eq!(lines, [format!("fanfare.toml:1:15: {fault}")]);
}

fn entry(name: &str) -> String {
    format!("{HEAD}name = {name:?}\nurl = \"https://{name}/\"\n{SECRETS}\n")
}

#[test]
fn names_are_there_once_and_sixteen_may_be() {
    let lines = faults_of_file(&[entry("a"), entry("a")].concat());
    let fault =
        "authorizers[1].name is taken by an earlier entry; give each authorizer its own name";
    assert_eq!(lines, [format!("fanfare.toml:6:8: {fault}")]);
    let many: String = (0..17).map(|n| entry(&format!("a{n}"))).collect();
    let lines = faults_of_file(&many);
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(
        lines[0].ends_with("authorizers has 17 entries; give at most 16"),
        "{lines:?}"
    );
}

#[test]
fn a_name_that_is_not_there_is_a_fault_wherever_it_stands() {
    for (key, place) in [
        ("[auth]\nauthorize_connect = \"b\"", "2:21"),
        ("[namespaces.chat]\nauthorize_subscribe = \"b\"", "2:23"),
        ("[namespaces.default]\nauthorize_publish = \"b\"", "2:21"),
        ("[inbox]\nauthorize_publish = \"b\"", "2:21"),
    ] {
        let path = key.replace(['[', ']'], "").replace('\n', ".");
        let path = path.split(' ').next().expect("a path");
        let what =
            format!("fanfare.toml:{place}: {path} names \"b\", which is none of [[authorizers]]");
        let lines = faults_of_file(key);
        assert_eq!(
            lines,
            [format!("{what}; write [[authorizers]] with name = \"b\"")]
        );
        let lines = faults_of_file(&format!("{key}\n{}", entry("ba")));
        assert_eq!(lines, [format!("{what}; did you mean ba?")]);
        // The entry's own fault is enough.
        let lines = faults_of_file(&format!("{key}\n{HEAD}name = \"b\"\n{SECRETS}\n"));
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(lines[0].contains("has no url"), "{lines:?}");
    }
    let slow = "[auth]\nauthorize_connect = \"a\"\ntimeout_ms = 4000\n";
    let lines = faults_of_file(&[slow, &entry("a")].concat());
    let fault = "the timeout_ms of the authorizer a is 2000, and a session must be in by \
                 auth.timeout_ms, 4000; give it less than half of auth.timeout_ms";
    assert_eq!(lines, [format!("fanfare.toml:2:21: {fault}")]);
}

#[test]
fn an_authorizer_is_read_with_all_that_it_says_and_shown_without_its_secrets() {
    let text = format!(
        "[auth]\nauthorize_connect = \"a\"\n[namespaces.chat]\nauthorize_publish = \"b\"\n\
         {HEAD}name = \"a\"\nurl = \"http://a/?x=1\"\nsecrets_env = \"OWN\"\nallow_private = true\n\
         timeout_ms = 500\nconcurrency = 8\nheaders = {{ Authorization = \"Bearer hunter2\" }}\n\
         {HEAD}name = \"b\"\nurl = \"https://b/\"\nsecrets_file = \"secrets\"\n"
    );
    let (directory, path) = file(&text);
    let lines = format!("# the next\n{SECRET}\n\n{SECRET}\n");
    std::fs::write(directory.path().join("secrets"), lines).unwrap();
    let mut inputs = Inputs {
        file: Some(path),
        ..inputs()
    };
    inputs.environment.extend(variables(&[("OWN", SECRET)]));
    let loaded = loaded(&inputs);
    let [a, b] = &loaded.config.authorizers[..] else {
        panic!("two authorizers");
    };
    assert_eq!((a.name.as_str(), a.url.as_str()), ("a", "http://a/?x=1"));
    assert_eq!((a.timeout, a.concurrency), (Duration::from_millis(500), 8));
    assert!(a.allow_private && a.secrets[0].0 == SECRET);
    assert_eq!(a.headers[0].0, "authorization");
    assert_eq!(a.headers[0].1.0, "Bearer hunter2");
    assert_eq!((b.timeout, b.concurrency), (Duration::from_secs(2), 64));
    assert_eq!(b.secrets.len(), 2);
    let config = &loaded.config;
    assert_eq!(config.auth.authorize_connect.as_deref(), Some("a"));
    let chat = &config.namespaces["chat"];
    assert_eq!(chat.authorize_publish.as_deref(), Some("b"));
    assert_eq!(chat.authorize_subscribe, None);
    assert_eq!(config.inbox.authorize_publish, None);
    assert!(!loaded.values.watched_files().is_empty());
    let rows = rows(&loaded.values);
    let shown: Vec<_> = rows.iter().map(|row| row.value.to_string()).collect();
    let shown = shown.join("\n");
    let own = "\"a http://a/?x=1 ***, 500 ms, 8 at once, private\"\n\"authorization ***\"";
    assert!(shown.contains(own), "{shown}");
    assert!(
        !shown.contains("hunter2") && !shown.contains("MfKQ"),
        "{shown}"
    );
}

#[test]
fn with_an_authorizer_of_sessions_nobody_needs_a_token_key() {
    let text = format!("[auth]\nauthorize_connect = \"a\"\n{}", entry("a"));
    let (_directory, path) = file(&text);
    loaded(&Inputs {
        file: Some(path),
        ..super::keyless()
    });
}

#[test]
fn a_variable_for_them_is_told_where_they_are_set() {
    let name = "FANFARE_AUTHORIZERS__NAME";
    let mut inputs = inputs();
    inputs.environment.extend(variables(&[(name, "a")]));
    let fault = "is no setting; authorizers are set in the file only, as [[authorizers]]";
    assert_eq!(fault_lines(&inputs), [format!("{name}: {fault}")]);
}
