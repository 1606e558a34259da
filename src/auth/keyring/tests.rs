//! Issuers beside each other, through the verifier that all doors use.

use fanfare_testkit::tokens::put_together;
use serde_json::{Value, json};

use crate::auth::Claims;
use crate::auth::error::TokenError;
use crate::auth::mint::{MintKey, mint};
use crate::auth::test_keys;
use crate::auth::tests::{INFO_BYTES_MAX, NOW_S, SECRET, auth, key, now, simple};
use crate::auth::verifier::Verifier;
use crate::config::{Issuer, Jwks, Secret, TokenKey};
use fanfare_protocol::ids::App;

const OF_A: &str = "the secret of issuer a, of 32 bytes or more";
const OF_B: &str = "the secret of issuer b, of 32 bytes or more";

fn issuer(name: &str, keys: Vec<TokenKey>) -> Issuer {
    Issuer {
        issuer: name.to_owned(),
        audience: None,
        jwks: None,
        keys,
        algorithms: Vec::new(),
        types: Vec::new(),
        user_claim: "sub".to_owned(),
    }
}

fn verifier(keys: Vec<TokenKey>, issuers: Vec<Issuer>) -> Verifier {
    let mut auth = auth(keys);
    auth.issuers = issuers;
    Verifier::new(&auth, INFO_BYTES_MAX).unwrap_or_else(|error| panic!("{error}"))
}

fn two() -> Verifier {
    let of = |name: &str, secret| issuer(name, vec![key(Some("1"), "HS256", secret)]);
    verifier(Vec::new(), vec![of("a", OF_A), of("b", OF_B)])
}

fn token(kid: Option<&str>, secret: &str, more: Value) -> String {
    let mut claims = json!({"sub": "alice", "exp": NOW_S + 60});
    for (name, value) in more.as_object().unwrap() {
        claims[name] = value.clone();
    }
    let key = MintKey {
        id: kid.map(str::to_owned),
        algorithm: "HS256".to_owned(),
        material: Secret(secret.to_owned()),
    };
    mint(&key, claims.as_object().unwrap()).unwrap()
}

fn session(verifier: &Verifier, token: &str) -> Result<Claims, TokenError> {
    verifier.session(token, None, now())
}

#[test]
fn equal_kids_of_two_issuers_never_meet() {
    let verifier = two();
    for (iss, secret) in [("a", OF_A), ("b", OF_B)] {
        let token = token(Some("1"), secret, json!({"iss": iss}));
        assert!(session(&verifier, &token).is_ok(), "{iss}");
    }
    for (iss, secret) in [("a", OF_B), ("b", OF_A)] {
        let signed = token(Some("1"), secret, json!({"iss": iss}));
        let error = session(&verifier, &signed).unwrap_err();
        assert_eq!(error, TokenError::Signature, "{iss}");
    }
    let other = token(Some("2"), OF_A, json!({"iss": "a"}));
    assert_eq!(session(&verifier, &other), Err(TokenError::UnknownKey));
    for iss in [json!("c"), json!("A"), json!("a ")] {
        let signed = token(Some("1"), OF_A, json!({ "iss": iss }));
        assert_eq!(
            session(&verifier, &signed),
            Err(TokenError::Issuer),
            "{iss}"
        );
    }
    // Without a text in `iss` it is a token of `[auth]`, which has no keys here.
    for iss in [json!(null), json!(5), json!(["a"])] {
        let signed = token(Some("1"), OF_A, json!({ "iss": iss }));
        assert_eq!(
            session(&verifier, &signed),
            Err(TokenError::Algorithm),
            "{iss}"
        );
    }
}

#[test]
fn the_keys_of_the_section_itself_are_for_tokens_of_no_other_issuer() {
    let of_a = issuer("a", vec![key(None, "HS256", OF_A)]);
    let mut auth = auth(vec![key(None, "HS256", SECRET)]);
    auth.issuers = vec![of_a];
    auth.issuer = Some("own".to_owned());
    let verifier = Verifier::new(&auth, INFO_BYTES_MAX).unwrap();
    assert!(session(&verifier, &token(None, SECRET, json!({"iss": "own"}))).is_ok());
    assert!(session(&verifier, &token(None, OF_A, json!({"iss": "a"}))).is_ok());
    let crossed = token(None, SECRET, json!({"iss": "a"}));
    assert_eq!(session(&verifier, &crossed), Err(TokenError::Signature));
    let crossed = token(None, OF_A, json!({"iss": "own"}));
    assert_eq!(session(&verifier, &crossed), Err(TokenError::Signature));
    let none = token(None, SECRET, json!({}));
    let error = session(&verifier, &none).unwrap_err();
    assert!(matches!(error, TokenError::Claim { claim: "iss", .. }));
}

#[test]
fn an_issuer_has_its_own_audience_types_and_user() {
    let mut of_a = issuer("a", vec![key(None, "HS256", OF_A)]);
    of_a.audience = Some("fanfare".to_owned());
    of_a.user_claim = "uid".to_owned();
    of_a.types = vec!["application/AT+jwt".to_owned(), "JWT".to_owned()];
    let verifier = verifier(Vec::new(), vec![of_a.clone()]);
    let good = token(
        None,
        OF_A,
        json!({"iss": "a", "aud": ["x", "fanfare"], "uid": "bob"}),
    );
    assert_eq!(session(&verifier, &good).unwrap().user.as_str(), "bob");
    let audience = token(None, OF_A, json!({"iss": "a", "aud": "x", "uid": "bob"}));
    let error = session(&verifier, &audience).unwrap_err();
    assert!(matches!(error, TokenError::Claim { claim: "aud", .. }));
    for uid in [json!(null), json!(5)] {
        let signed = token(
            None,
            OF_A,
            json!({"iss": "a", "aud": "fanfare", "uid": uid}),
        );
        assert_eq!(session(&verifier, &signed), Err(TokenError::NoUser));
    }
    of_a.types = vec!["at+jwt".to_owned()];
    let strict = self::verifier(Vec::new(), vec![of_a]);
    assert_eq!(session(&strict, &good), Err(TokenError::Type));
}

#[test]
fn an_issuer_may_allow_fewer_algorithms_than_it_has_keys_for() {
    let mut of_a = issuer(
        "a",
        vec![
            key(Some("1"), "HS256", OF_A),
            key(Some("2"), "ES256", test_keys::EC_PUBLIC),
        ],
    );
    of_a.algorithms = vec!["ES256".to_owned()];
    let verifier = verifier(Vec::new(), vec![of_a]);
    let signed = token(Some("1"), OF_A, json!({"iss": "a"}));
    assert_eq!(session(&verifier, &signed), Err(TokenError::Algorithm));
}

#[test]
fn at_most_four_keys_are_tried() {
    let secret = |n: usize| format!("secret {n} of some, of 32 bytes or more");
    let keys = |count| (0..count).map(|n| key(Some(&n.to_string()), "HS256", &secret(n)));
    let four = verifier(keys(4).collect(), Vec::new());
    assert!(session(&four, &token(None, &secret(3), json!({}))).is_ok());
    let five = verifier(keys(5).collect(), Vec::new());
    let error = session(&five, &token(None, &secret(0), json!({}))).unwrap_err();
    assert_eq!(error, TokenError::ManyKeys);
    assert_eq!(
        error.to_string(),
        "more than 4 keys may be the token's: give tokens and keys a `kid`"
    );
    assert!(session(&five, &token(Some("4"), &secret(4), json!({}))).is_ok());
}

/// Keys without an id were counted beside the one that has the token's `kid`, and the token was refused
/// with the advice to give it a `kid`.
#[test]
fn a_kid_that_a_key_has_means_that_key_however_many_have_none() {
    let secret = |n: usize| format!("secret {n} of some, of 32 bytes or more");
    let mut keys: Vec<_> = (0..4).map(|n| key(None, "HS256", &secret(n))).collect();
    keys.push(key(Some("5"), "HS256", &secret(5)));
    let verifier = verifier(keys, Vec::new());
    assert!(session(&verifier, &token(Some("5"), &secret(5), json!({}))).is_ok());
    // A key without an id is not tried in the name of one that has it.
    let crossed = token(Some("5"), &secret(0), json!({}));
    assert_eq!(session(&verifier, &crossed), Err(TokenError::Signature));
    assert!(session(&verifier, &token(Some("6"), &secret(3), json!({}))).is_ok());
}

#[test]
fn keys_that_are_not_there_yet_are_waited_for_and_known_ones_are_not() {
    let mut of_a = issuer("a", Vec::new());
    of_a.jwks = Some(Jwks {
        url: "https://id.example.com/keys".to_owned(),
        ca_file: None,
        allow_private: false,
    });
    let verifier = verifier(vec![key(None, "HS256", SECRET)], vec![of_a]);
    let most = std::time::Duration::from_micros(50);
    let light = |token: &str| verifier.is_light(std::iter::once(token), None, most);
    let own = token(None, SECRET, json!({}));
    assert!(light(&own) && verifier.missing(&own, None).is_none());
    let secret = token(Some("1"), SECRET, json!({"iss": "a"}));
    assert!(light(&secret) && verifier.missing(&secret, None).is_none());
    assert_eq!(session(&verifier, &secret), Err(TokenError::Algorithm));
    let of_a = put_together(
        &json!({"alg": "ES256", "kid": "1"}),
        &json!({"iss": "a"}),
        "AAAA",
    );
    assert!(!light(&of_a) && verifier.missing(&of_a, None).is_some());
    assert_eq!(session(&verifier, &of_a), Err(TokenError::UnknownKey));
    // What no key could mend is not waited for.
    assert!(light("garbage") && verifier.missing("garbage", None).is_none());
    assert_eq!(verifier.key_sets().len(), 1);
}

#[test]
fn what_is_dear_is_not_checked_on_a_worker() {
    let most = std::time::Duration::from_micros(50);
    let one =
        |algorithm: &str, public: &str| verifier(vec![key(None, algorithm, public)], Vec::new());
    let tokens = |algorithm: &str, private: &str| {
        let key = MintKey {
            id: None,
            algorithm: algorithm.to_owned(),
            material: Secret(private.to_owned()),
        };
        mint(&key, json!({"sub": "a", "exp": NOW_S}).as_object().unwrap()).unwrap()
    };
    let rows = [
        ("HS256", SECRET, SECRET, 1, true),
        ("HS256", SECRET, SECRET, 25, true),
        ("HS256", SECRET, SECRET, 26, false),
        (
            "RS256",
            test_keys::RSA_PRIVATE,
            test_keys::RSA_PUBLIC,
            1,
            true,
        ),
        (
            "RS256",
            test_keys::RSA_PRIVATE,
            test_keys::RSA_PUBLIC,
            2,
            false,
        ),
        (
            "ES256",
            test_keys::EC_PRIVATE,
            test_keys::EC_PUBLIC,
            1,
            false,
        ),
    ];
    for (algorithm, private, public, count, wanted) in rows {
        let token = tokens(algorithm, private);
        let all = std::iter::repeat_n(token.as_str(), count);
        let is_light = one(algorithm, public).is_light(all, None, most);
        assert_eq!(is_light, wanted, "{count} of {algorithm}");
    }
}

/// Two apps that have everything in common but the secret.
fn two_apps(shop: &str) -> Verifier {
    let settings = |secret| {
        let mut settings = auth(vec![key(Some("1"), "HS256", secret)]);
        settings.issuers = vec![issuer("a", vec![key(Some("2"), "HS256", secret)])];
        settings
    };
    let (default, of_shop) = (settings(SECRET), settings(shop));
    let names = [App::default_app(), App::new("shop").unwrap()];
    let apps = names.iter().zip([&default, &of_shop]);
    Verifier::of_apps(apps, INFO_BYTES_MAX).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn equal_kids_issuers_and_users_of_two_apps_never_meet() {
    let verifier = two_apps(OF_B);
    let shop = App::new("shop").unwrap();
    for (kid, iss) in [("1", None), ("2", Some("a"))] {
        let with = |secret, mut claims: Value| {
            if let Some(iss) = iss {
                claims["iss"] = json!(iss);
            }
            token(Some(kid), secret, claims)
        };
        let without = |secret| with(secret, json!({}));
        let of = |secret, app: &str| with(secret, json!({"app": app}));
        let session = |token: &str, app: Option<&App>| {
            let claims = verifier.session(token, app, now());
            claims.map(|claims| claims.app.as_str().to_owned())
        };
        assert_eq!(session(&without(SECRET), None), Ok("default".to_owned()));
        assert_eq!(session(&of(OF_B, "shop"), None), Ok("shop".to_owned()));
        assert_eq!(session(&without(OF_B), Some(&shop)), Ok("shop".to_owned()));
        let signature = Err(TokenError::Signature);
        assert_eq!(session(&without(OF_B), None), signature);
        assert_eq!(session(&of(SECRET, "shop"), None), signature);
        assert_eq!(session(&without(SECRET), Some(&shop)), signature);
        // Whoever has signed it, and before any key is looked at.
        for secret in [SECRET, OF_B] {
            let contradicted = Err(TokenError::OtherApp);
            assert_eq!(session(&of(secret, "default"), Some(&shop)), contradicted);
            assert_eq!(
                session(&of(secret, "gone"), None),
                Err(TokenError::UnknownApp)
            );
        }
    }
    assert!(verifier.has_keys());
}

#[test]
fn a_key_of_an_app_that_cannot_be_used_is_named_with_its_place() {
    let short = auth(vec![key(None, "HS256", "short")]);
    let shop = App::new("shop").unwrap();
    let error = Verifier::of_apps([(&shop, &short)].into_iter(), INFO_BYTES_MAX).err();
    let places: Vec<_> = error
        .unwrap()
        .faults
        .into_iter()
        .map(|(place, _)| place)
        .collect();
    assert_eq!(places, ["apps.shop.auth.keys[0]"]);
}

#[test]
fn only_apps_that_have_changed_are_read_again_and_a_bad_key_is_told_once() {
    let verifier = two_apps(OF_B);
    let (default, shop) = (App::default_app(), App::new("shop").unwrap());
    let of_shop = |secret| token(Some("1"), secret, json!({"app": "shop"}));
    let of = |kid, secret| auth(vec![key(kid, "HS256", secret)]);
    let (of_default, of_b) = (of(None, SECRET), of(Some("1"), OF_B));
    let (of_a, bad) = (of(Some("1"), OF_A), of(Some("1"), "short"));
    let follow = |of_shop: &crate::config::Auth, same: &[&App]| {
        let apps = [(&default, &of_default), (&shop, of_shop)];
        let is_same = |app: &App| same.contains(&app);
        verifier.follow(apps.into_iter(), is_same, INFO_BYTES_MAX)
    };
    // What is said to be the same is not even looked at.
    assert!(follow(&bad, &[&default, &shop]).is_ok());
    assert!(session(&verifier, &of_shop(OF_B)).is_ok());
    assert!(follow(&of_a, &[&default]).is_ok());
    assert!(session(&verifier, &of_shop(OF_A)).is_ok());
    let error = follow(&bad, &[&default]).unwrap_err();
    assert_eq!(error.faults[0].0, "apps.shop.auth.keys[0]");
    for _ in 0..2 {
        let refused = session(&verifier, &of_shop(OF_A));
        assert_eq!(refused, Err(TokenError::UnknownApp));
        assert!(session(&verifier, &token(None, SECRET, json!({}))).is_ok());
        assert!(follow(&bad, &[&default, &shop]).is_ok(), "it was told");
    }
    assert!(follow(&of_b, &[&default]).is_ok());
    assert!(session(&verifier, &of_shop(OF_B)).is_ok());
}

#[test]
fn before_apps_were_read_nobody_is_told_that_there_is_none() {
    let unread = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(true));
    let verifier = two_apps(OF_B).unread_while(std::sync::Arc::clone(&unread));
    let gone = token(Some("1"), OF_B, json!({"app": "gone"}));
    let error = session(&verifier, &gone).unwrap_err();
    assert_eq!(error, TokenError::AppsUnread);
    assert_eq!(
        error.code(),
        fanfare_protocol::error::ErrorCode::Unavailable
    );
    unread.store(false, std::sync::atomic::Ordering::Release);
    assert_eq!(session(&verifier, &gone), Err(TokenError::UnknownApp));
}

#[test]
fn an_app_that_is_replaced_or_gone_has_its_new_keys_or_none() {
    let verifier = two_apps(OF_B);
    let of_shop = |secret| token(Some("1"), secret, json!({"app": "shop"}));
    assert!(session(&verifier, &of_shop(OF_B)).is_ok());
    verifier.take_over(two_apps(OF_A));
    assert_eq!(
        session(&verifier, &of_shop(OF_B)),
        Err(TokenError::Signature)
    );
    assert!(session(&verifier, &of_shop(OF_A)).is_ok());
    verifier.take_over(simple());
    assert_eq!(
        session(&verifier, &of_shop(OF_A)),
        Err(TokenError::UnknownApp)
    );
    assert!(session(&verifier, &token(None, SECRET, json!({}))).is_ok());
}
