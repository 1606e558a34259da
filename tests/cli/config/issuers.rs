//! `[[auth.issuers]]`: what is taken, what is told of the rest, and that no secret is shown.

use fanfare::config::inputs::Inputs;
use fanfare::config::show::rows;

use super::{fault_lines, faults_of_file, file, inputs, loaded, variables};

const HEAD: &str = "[[auth.issuers]]\n";
const SECRET: &str = "hunter2-hunter2-hunter2-hunter2-";

/// The first fault of an entry.
const ENTRIES: &[(&str, &str)] = &[
    (
        "jwks_url = \"https://a/\"",
        "fanfare.toml:1:1: auth.issuers[0] has no issuer; give issuer, the tokens' iss",
    ),
    (
        "issuer = 5\njwks_url = \"https://a/\"",
        "fanfare.toml:2:10: auth.issuers[0].issuer is no text, or empty; give text in quotes",
    ),
    (
        "issuer = \"a\"",
        "fanfare.toml:1:1: auth.issuers[0] has not one source of keys; give jwks_url, or \
         [[auth.issuers.keys]], and not both",
    ),
    (
        "issuer = \"a\"\njwks_url = \"https://a/\"\nkeys = []",
        "fanfare.toml:1:1: auth.issuers[0] has not one source of keys; give jwks_url, or \
         [[auth.issuers.keys]], and not both",
    ),
    (
        "issuer = \"a\"\njwks_url = \"http://a/\"",
        "fanfare.toml:3:12: auth.issuers[0].jwks_url is not https; give https://HOST/PATH, without a \
         login or a fragment",
    ),
    (
        "issuer = \"a\"\njwks_url = \"https://user:hunter2@a/\"",
        "fanfare.toml:3:12: auth.issuers[0].jwks_url has a login; give https://HOST/PATH, without a \
         login or a fragment",
    ),
    (
        "issuer = \"a\"\njwks_url = \"a\"",
        "fanfare.toml:3:12: auth.issuers[0].jwks_url is no URL; give https://HOST/PATH, without a \
         login or a fragment",
    ),
    (
        "issuer = \"a\"\njwks_url = \"https://a/\"\nalgorithms = [\"HS256\"]",
        "fanfare.toml:4:14: auth.issuers[0].algorithms cannot have \"HS256\"; give some of RS256, \
         PS256, ES256, EdDSA",
    ),
    (
        "issuer = \"a\"\njwks_url = \"https://a/\"\ntypes = []",
        "fanfare.toml:4:9: auth.issuers[0].types is no list of texts, or empty; give texts in quotes, \
         in brackets",
    ),
    (
        "issuer = \"a\"\njwks_url = \"https://a/\"\nallow_private = \"yes\"",
        "fanfare.toml:4:17: auth.issuers[0].allow_private is no true or false; give true or false",
    ),
    (
        "issuer = \"a\"\nallow_private = true",
        "fanfare.toml:3:17: auth.issuers[0].allow_private goes with jwks_url only; leave it out",
    ),
    (
        "issuer = \"a\"\njwks_url = \"https://a/\"\nca_file = \"absent\"",
        "fanfare.toml:4:11: auth.issuers[0].ca_file cannot be used: No such file or directory (os \
         error 2); name a file with certificates as PEM",
    ),
    (
        "issuer = \"a\"\njwks_url = \"https://a:0/\"",
        "fanfare.toml:3:12: auth.issuers[0].jwks_url has the port 0, where nothing is; give \
         https://HOST/PATH, without a login or a fragment",
    ),
    (
        "issuer = \"a\"\njwks_url = \"https://10.0.0.1/keys?client=hunter2\"",
        "fanfare.toml:3:12: auth.issuers[0].jwks_url leads to a private address, which is asked only \
         with allow_private = true; give https://HOST/PATH, without a login or a fragment",
    ),
    (
        "issuer = \"a\"\njwks_url = \"https://localhost/\"",
        "fanfare.toml:3:12: auth.issuers[0].jwks_url leads to a private address, which is asked only \
         with allow_private = true; give https://HOST/PATH, without a login or a fragment",
    ),
    (
        "issuer = \"a\"\njwks_url = \"https://a/\"\nuser_claim = \"iss\"",
        "fanfare.toml:4:14: auth.issuers[0].user_claim cannot be iss, which says something else; give a \
         claim that names the user, such as sub or email",
    ),
    (
        "issuer = \"a\"\nalgorithms = [\"ES256\"]\n[[auth.issuers.keys]]\nalgorithm = \"HS256\"\n\
         secret = \"hunter2-hunter2-hunter2-hunter2-\"",
        "fanfare.toml:3:14: auth.issuers[0].algorithms has none of its keys'; give those of its keys, or \
         leave it out",
    ),
    (
        "issuers = \"a\"\nissuer = \"a\"\njwks_url = \"https://a/\"",
        "fanfare.toml:2:1: auth.issuers[0].issuers is no key; did you mean auth.issuers[0].issuer?",
    ),
    (
        "issuer = \"a\"\n[[auth.issuers.keys]]\nalgorithm = \"HS256\"\nsecret = \"hunter2\"",
        "fanfare.toml:5:10: auth.issuers[0].keys[0].secret cannot be used: the secret must have at \
         least 32 bytes; give another one; docs/configuration.md names the forms",
    ),
];

#[test]
fn what_an_issuer_cannot_be_is_told_with_what_to_give() {
    for (entry, fault) in ENTRIES {
        let lines = faults_of_file(&format!("{HEAD}{entry}\n"));
        assert_eq!(lines.first().map(String::as_str), Some(*fault), "{entry}");
        assert!(!lines.join("\n").contains("hunter2"), "{lines:?}");
    }
    assert_eq!(
        faults_of_file("[auth]\nissuers = 5\n"),
        [
            "fanfare.toml:2:11: auth.issuers is no list of tables; write [[auth.issuers]] once for each issuer"
        ]
    );
}

#[test]
fn an_issuer_is_there_once_and_so_many_of_them_may_be() {
    let entry = |name: usize| {
        format!("{HEAD}issuer = \"{name}\"\njwks_url = \"https://{name}.example/\"\n")
    };
    assert_eq!(
        faults_of_file(&[entry(1), entry(1)].concat()),
        [
            "fanfare.toml:4:1: auth.issuers[1].issuer is that of an earlier entry; write each issuer once, with all its keys"
        ]
    );
    let many: String = (0..65).map(entry).collect();
    let faults = faults_of_file(&many);
    assert_eq!(faults.len(), 1, "{faults:?}");
    let words = "auth.issuers has 65 entries; give at most 64";
    assert!(faults[0].ends_with(words), "{faults:?}");
}

#[test]
fn an_issuer_is_read_with_all_that_it_says_and_shown_without_its_secrets() {
    let text = format!(
        "{HEAD}issuer = \"a\"\naudience = \"fanfare\"\njwks_url = \"https://a/keys?x=hunter2\"\n\
         allow_private = true\nalgorithms = [\"ES256\", \"EdDSA\"]\ntypes = [\"at+jwt\"]\nuser_claim = \"uid\"\n\
         {HEAD}issuer = \"b\"\n[[auth.issuers.keys]]\nalgorithm = \"HS256\"\nsecret = {SECRET:?}\n"
    );
    let (_directory, path) = file(&text);
    let loaded = loaded(&Inputs {
        file: Some(path),
        ..inputs()
    });
    let issuers = &loaded.config.auth.issuers;
    let (first, second) = (&issuers[0], &issuers[1]);
    assert_eq!(first.issuer, "a");
    assert_eq!(first.audience.as_deref(), Some("fanfare"));
    let jwks = first.jwks.as_ref().unwrap();
    assert_eq!(jwks.url, "https://a/keys?x=hunter2");
    assert!(jwks.allow_private && jwks.ca_file.is_none());
    assert_eq!(first.algorithms, ["ES256", "EdDSA"]);
    assert_eq!(first.types, ["at+jwt"]);
    assert_eq!(first.user_claim, "uid");
    assert_eq!((second.user_claim.as_str(), second.keys.len()), ("sub", 1));
    assert_eq!(second.keys[0].material.0, SECRET);
    let rows = rows(&loaded.values);
    let shown: Vec<_> = rows.iter().map(|row| row.value.clone()).collect();
    let shown = format!("{shown:?}");
    assert!(
        shown.contains("b 1 keys ***")
            && shown.contains("a https://a/keys?***")
            && !shown.contains("hunter2"),
        "{shown}"
    );
    // Nor is it where the whole is printed for people who look for a fault.
    let debug = format!("{:?}", loaded.config.auth);
    assert!(!debug.contains("hunter2"), "{debug}");
}

/// No token could ever be one of `[auth]` itself: each with that `iss` was the entry's.
#[test]
fn the_issuer_of_the_section_is_none_of_the_list() {
    let text = format!(
        "[auth]\nissuer = \"a\"\n{HEAD}issuer = \"b\"\njwks_url = \"https://b/\"\n\
         {HEAD}issuer = \"a\"\njwks_url = \"https://a/\"\n"
    );
    assert_eq!(
        faults_of_file(&text),
        [
            "fanfare.toml:2:10: auth.issuer is that of auth.issuers[1], so no token could be one of \
             [auth] itself; leave auth.issuer out, or the entry"
        ]
    );
}

/// The one secret without a `_file`.
#[test]
fn the_secret_of_tokens_may_lie_in_a_file_that_is_watched() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("secret");
    std::fs::write(&path, "the secret of this test, of 32 bytes\n").unwrap();
    let name = path.display().to_string();
    let mut inputs = inputs();
    let environment = variables(&[("FANFARE_AUTH__HMAC_SECRET_FILE", &name)]);
    inputs.environment.extend(environment);
    let loaded = loaded(&inputs);
    let keys = &loaded.config.auth.keys;
    // The inputs of all tests have a secret of their own.
    let key = keys.last().unwrap();
    assert_eq!((keys.len(), key.algorithm.as_str()), (2, "HS256"));
    assert_eq!(key.material.0, "the secret of this test, of 32 bytes");
    let watched = loaded.values.watched_files();
    std::fs::write(&path, "short").unwrap();
    assert_ne!(watched.now(), *watched);
    let told = fault_lines(&inputs).join("\n");
    assert!(
        told.contains("auth.hmac_secret_file cannot be used: the secret must have at least 32"),
        "{told}"
    );
    assert!(!told.contains("short"), "{told}");
    std::fs::remove_file(&path).unwrap();
    let wanted = format!(
        "FANFARE_AUTH__HMAC_SECRET_FILE: auth.hmac_secret_file names {name}, which cannot be read: No such \
         file or directory (os error 2); name a file with one secret of at least 32 bytes"
    );
    assert_eq!(fault_lines(&inputs), [wanted]);
}

/// Google's keys without `aud` let everybody in who has an account there.
#[test]
fn production_asks_for_whom_a_published_issuer_signs() {
    let of = |more: &str| {
        let text = format!("{HEAD}issuer = \"a\"\njwks_url = \"https://a/\"\n{more}");
        let (directory, path) = file(&text);
        let mut inputs = Inputs {
            file: Some(path),
            env: Some("production".to_owned()),
            ..inputs()
        };
        inputs.environment.extend(variables(&[
            ("FANFARE_API__KEYS", "a-key-of-the-api"),
            ("FANFARE_CLUSTER__ALONE", "true"),
        ]));
        (directory, inputs)
    };
    let (_directory, open) = of("");
    let told = fault_lines(&open);
    let wanted = "auth.issuers[0] has a jwks_url and neither audience nor types, so its tokens for \
                  whomever open sessions, which production refuses; give audience, which its tokens for \
                  this service have as aud";
    assert!(told.len() == 1 && told[0].ends_with(wanted), "{told:?}");
    for more in ["audience = \"fanfare\"\n", "types = [\"at+jwt\"]\n"] {
        let (_directory, inputs) = of(more);
        loaded(&inputs);
    }
}
