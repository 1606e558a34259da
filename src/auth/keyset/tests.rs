//! Sets as issuers publish them, and what may not be in one.

use serde_json::{Value, json};

use super::*;

fn set(algorithms: &[Algorithm]) -> KeySet {
    let source = Jwks {
        url: "https://id.example.com/keys".to_owned(),
        ca_file: None,
        allow_private: false,
    };
    KeySet::new(&source, algorithms)
}

fn ec(kid: &str) -> Value {
    json!({
        "kty": "EC", "crv": "P-256", "kid": kid,
        // RFC 7517, appendix A.1.
        "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4",
        "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM",
    })
}

fn rsa(bytes: usize) -> Value {
    let mut n = vec![0xff; bytes];
    n[0] = 0x80;
    json!({"kty": "RSA", "kid": "r", "n": URL_SAFE_NO_PAD.encode(n), "e": "AQAB"})
}

fn with(mut key: Value, changes: Value) -> Value {
    for (name, value) in changes.as_object().unwrap() {
        key[name] = value.clone();
    }
    key
}

fn parse(set: &KeySet, keys: &[Value]) -> Result<Parsed, SetError> {
    set.parse(json!({ "keys": keys }).to_string().as_bytes())
}

fn algorithms(parsed: &Parsed) -> Vec<&'static str> {
    let keys = parsed.keys.iter();
    keys.map(|key| key.verify.algorithm().name()).collect()
}

#[test]
fn a_key_serves_the_algorithms_that_go_with_it_and_are_allowed() {
    let ed =
        json!({"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"});
    let keys = [rsa(256), ec("a"), ed];
    let parsed = parse(&set(&[]), &keys).unwrap();
    assert_eq!(algorithms(&parsed), ["RS256", "PS256", "ES256", "EdDSA"]);
    assert_eq!(parsed.keys[2].id.as_deref(), Some("a"));
    assert_eq!(parsed.keys[3].id, None);
    let only = set(&[Algorithm::Rs256]);
    let parsed = parse(&only, &keys).unwrap();
    assert_eq!(algorithms(&parsed), ["RS256"]);
    assert_eq!(parsed.left_out, [Unusable::Kind, Unusable::Kind]);
    let named = with(rsa(512), json!({"alg": "PS256", "use": "sig"}));
    assert_eq!(algorithms(&parse(&set(&[]), &[named]).unwrap()), ["PS256"]);
}

#[test]
fn a_key_that_is_no_use_is_left_out_and_does_not_take_the_others_along() {
    let rows = [
        (json!({"kty": "oct", "k": "c2VjcmV0"}), Unusable::Symmetric),
        (with(ec("a"), json!({"d": "AA"})), Unusable::Private),
        (with(ec("a"), json!({"use": "enc"})), Unusable::Use),
        (
            with(ec("a"), json!({"key_ops": ["deriveKey"]})),
            Unusable::Use,
        ),
        (with(ec("a"), json!({"crv": "P-384"})), Unusable::Kind),
        (with(ec("a"), json!({"kty": "XX"})), Unusable::Kind),
        (with(rsa(256), json!({"alg": "RS512"})), Unusable::Kind),
        (with(rsa(256), json!({"alg": "none"})), Unusable::Kind),
        (rsa(255), Unusable::RsaSize),
        (rsa(128), Unusable::RsaSize),
        (rsa(1_025), Unusable::RsaSize),
        (with(rsa(256), json!({"e": "AA"})), Unusable::Numbers),
        (with(rsa(256), json!({"n": "?"})), Unusable::Numbers),
        (with(ec("a"), json!({"y": "AAAA"})), Unusable::Numbers),
        (
            with(
                ec("a"),
                json!({"y": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4"}),
            ),
            Unusable::Numbers,
        ),
        (
            with(ec("a"), json!({"kid": "k".repeat(257)})),
            Unusable::Kid,
        ),
        (json!({"kid": "a"}), Unusable::Numbers),
        (json!(5), Unusable::Numbers),
    ];
    for (key, why) in rows {
        let parsed = parse(&set(&[]), &[key.clone(), ec("good")]).unwrap();
        assert_eq!(parsed.left_out, [why], "{key}");
        assert_eq!(parsed.keys.len(), 1, "{key}");
        let alone = parse(&set(&[]), std::slice::from_ref(&key)).unwrap();
        assert_eq!((alone.keys.len(), alone.left_out), (0, vec![why]), "{key}");
    }
}

#[test]
fn a_set_is_refused_whole_that_is_none_or_has_too_much() {
    let keys = |count| vec![ec("a"); count];
    assert_eq!(parse(&set(&[]), &keys(64)).unwrap().keys.len(), 64);
    let many = parse(&set(&[]), &keys(65)).unwrap_err();
    assert_eq!(many, SetError::TooMany(65));
    assert_eq!(many.to_string(), "it has 65 keys, and at most 64 are read");
    for text in ["", "[]", "{}", r#"{"keys":{}}"#, r#"{"keys":[]"#, "<html>"] {
        let error = set(&[]).parse(text.as_bytes()).unwrap_err();
        assert_eq!(error, SetError::Form, "{text}");
    }
    let long = format!(r#"{{"keys":[]}}{}"#, " ".repeat(BYTES_MAX));
    assert_eq!(
        set(&[]).parse(long.as_bytes()).unwrap_err(),
        SetError::TooLong
    );
    let deep = format!(r#"{{"keys":[{}]}}"#, "[".repeat(10_000));
    assert_eq!(set(&[]).parse(deep.as_bytes()).unwrap_err(), SetError::Form);
}

/// The last key was taken out because it was stolen, and went on for a day: a set without a usable key
/// counted as one that could not be read.
#[test]
fn a_set_without_a_usable_key_takes_the_keys_before_away() {
    let set = set(&[]);
    let take = |text: String| {
        let (bytes, at) = (text.into(), Instant::now());
        set.take(&Reading { bytes, at })
            .map(|taken| taken.keys_count)
    };
    let of = |keys: &[Value]| json!({ "keys": keys }).to_string();
    assert_eq!(take(of(&[ec("a")])), Ok(1));
    assert_eq!((set.refused(), set.trouble()), (None, None));
    assert_eq!(take("<html>".to_owned()), Err(SetError::Form));
    assert_eq!(
        set.keys().map(|keys| keys.len()),
        Some(1),
        "that says nothing"
    );
    assert_eq!(set.refused(), Some(SetError::Form));
    let secret = json!({"kty": "oct", "k": "c2VjcmV0"});
    let rows = [
        (vec![], "it has no keys, so no token is taken by it"),
        (
            vec![secret],
            "none of its 1 keys can be used here; the last: a symmetric key (`oct`) is no public key",
        ),
    ];
    for (keys, told) in rows {
        assert_eq!(take(of(&[ec("a")])), Ok(1));
        assert_eq!(take(of(&keys)), Ok(0));
        assert_eq!(set.keys().map(|keys| keys.len()), Some(0));
        assert_eq!(set.refused(), None);
        assert_eq!(set.trouble().as_deref(), Some(told));
    }
}
