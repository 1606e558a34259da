//! Tests of form, key and signature, each fault with its answer, under a clock that stands still.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use serde_json::{Map, json};

use super::verifier::Verifier;
use super::*;
use crate::auth::mint::{MintKey, mint};
use crate::auth::rights::Operation;
use crate::auth::test_keys;
use crate::config::{Secret, TokenKey};
use fanfare_protocol::close::CloseReason;
use fanfare_protocol::error::ErrorCode;

pub(super) const SECRET: &str = "a secret for tests, of 32 bytes or more";
const OTHER_SECRET: &str = "another secret for tests, quite as long";
pub(super) const NOW_S: u64 = 1_732_190_000;
pub(super) const INFO_BYTES_MAX: usize = 64;
pub(super) const LIFE_MAX_S: u64 = 604_800;
const TOKEN_BYTES_MAX: usize = 8 * 1024;

pub(super) fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(NOW_S)
}

pub(super) fn key(id: Option<&str>, algorithm: &str, material: &str) -> TokenKey {
    TokenKey {
        id: id.map(str::to_owned),
        algorithm: algorithm.to_owned(),
        material: Secret(material.to_owned()),
    }
}

pub(super) fn auth(keys: Vec<TokenKey>) -> config::Auth {
    config::Auth {
        keys,
        issuers: Vec::new(),
        issuer: None,
        audience: None,
        authorize_connect: None,
        anonymous: false,
        cookie: None,
        origins: Vec::new(),
        timeout: Duration::from_secs(10),
        leeway: Duration::from_secs(5),
        token_life_max: Duration::from_secs(LIFE_MAX_S),
        token_bytes_max: TOKEN_BYTES_MAX,
        expiring: Duration::from_secs(60),
        expired_grace: Duration::from_secs(10),
    }
}

fn verifier(keys: Vec<TokenKey>) -> Verifier {
    Verifier::new(&auth(keys), INFO_BYTES_MAX).unwrap_or_else(|error| panic!("{error}"))
}

/// Knows one HS256 key without an id.
pub(super) fn simple() -> Verifier {
    verifier(vec![key(None, "HS256", SECRET)])
}

pub(super) fn valid_claims() -> Value {
    json!({"sub": "alice", "exp": NOW_S + 60})
}

/// The valid claims with some replaced; null takes one away.
pub(super) fn claims(changes: Value) -> Value {
    let mut claims = valid_claims();
    for (name, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => claims.as_object_mut().unwrap().remove(name),
            value => claims
                .as_object_mut()
                .unwrap()
                .insert(name.clone(), value.clone()),
        };
    }
    claims
}

fn minted(id: Option<&str>, algorithm: &str, material: &str, claims: &Value) -> String {
    let key = MintKey {
        id: id.map(str::to_owned),
        algorithm: algorithm.to_owned(),
        material: Secret(material.to_owned()),
    };
    let claims: &Map<String, Value> = claims.as_object().unwrap();
    mint(&key, claims).unwrap()
}

pub(super) fn signed(claims: &Value) -> String {
    minted(None, "HS256", SECRET, claims)
}

/// A token of any text, signed with HMAC-SHA256.
fn forged(header: &str, payload: &str, secret: &[u8]) -> String {
    let message = format!(
        "{}.{}",
        URL_SAFE_NO_PAD.encode(header),
        URL_SAFE_NO_PAD.encode(payload)
    );
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    let signature = hmac::sign(&key, message.as_bytes());
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
}

pub(super) fn with_payload(payload: &str) -> String {
    forged(r#"{"alg":"HS256"}"#, payload, SECRET.as_bytes())
}

pub(super) fn with_header(header: &str) -> String {
    forged(header, &valid_claims().to_string(), SECRET.as_bytes())
}

pub(super) fn refusal(verifier: &Verifier, token: &str) -> TokenError {
    let error = verifier.session(token, None, now()).expect_err(token);
    let expected = match error {
        TokenError::Expired => (ErrorCode::TokenExpired, CloseReason::TokenExpired),
        _ => (ErrorCode::Unauthorized, CloseReason::Unauthorized),
    };
    assert_eq!((error.code(), error.close()), expected);
    error
}

pub(super) fn claim_of(error: TokenError) -> &'static str {
    match error {
        TokenError::Claim { claim, .. } => claim,
        other => panic!("no fault of a claim: {other:?}"),
    }
}

#[test]
fn a_token_of_every_algorithm_is_taken_and_its_claims_are_read() {
    let pairs = [
        ("HS256", SECRET, SECRET),
        ("HS384", SECRET, SECRET),
        ("HS512", SECRET, SECRET),
        ("RS256", test_keys::RSA_PRIVATE, test_keys::RSA_PUBLIC),
        ("RS256", test_keys::RSA_PRIVATE, test_keys::RSA_PUBLIC_PKCS1),
        ("PS256", test_keys::RSA_PRIVATE, test_keys::RSA_PUBLIC),
        ("ES256", test_keys::EC_PRIVATE, test_keys::EC_PUBLIC),
        ("EdDSA", test_keys::ED_PRIVATE, test_keys::ED_PUBLIC),
    ];
    let full = claims(
        json!({"app": "default", "jti": "j", "info": {"name": "Al"}, "nbf": NOW_S,
        "iat": NOW_S, "can": {"subscribe": ["orders:*"]}, "unknown": [1]}),
    );
    for (algorithm, private, public) in pairs {
        let verifier = verifier(vec![key(None, algorithm, public)]);
        let token = minted(Some("any"), algorithm, private, &full);
        let claims = verifier.session(&token, None, now()).unwrap();
        assert_eq!(claims.app, App::default_app());
        assert_eq!(claims.user.as_str(), "alice");
        assert_eq!(claims.expires, NOW_S + 60);
        assert_eq!(claims.info, Some(Info::from(&json!({"name": "Al"}))));
        let can = claims.can.unwrap();
        assert!(can.allows(Operation::Subscribe, "orders:7"));
        assert!(!can.allows(Operation::Publish, "orders:7"));
        // One bit of the signature, of the claims, of the header.
        for part in 0..3 {
            let mut parts: Vec<String> = token.split('.').map(str::to_owned).collect();
            let mut bytes = URL_SAFE_NO_PAD.decode(&parts[part]).unwrap();
            let last = bytes.len() - 2;
            bytes[last] ^= 1;
            parts[part] = URL_SAFE_NO_PAD.encode(bytes);
            assert!(
                verifier.session(&parts.join("."), None, now()).is_err(),
                "{algorithm} {part}"
            );
        }
    }
}

#[test]
fn the_algorithm_none_is_refused_however_it_is_written() {
    let payload = URL_SAFE_NO_PAD.encode(valid_claims().to_string());
    for none in [
        "none", "None", "NONE", "nOnE", "", "hs256", "HS256 ", "RS512", "ES384",
    ] {
        let header = URL_SAFE_NO_PAD.encode(json!({"alg": none}).to_string());
        for signature in ["", "AAAA"] {
            let token = format!("{header}.{payload}.{signature}");
            assert_eq!(refusal(&simple(), &token), TokenError::Algorithm, "{none}");
        }
    }
    for header in [
        "{}",
        r#"{"alg":null}"#,
        r#"{"alg":["HS256"]}"#,
        r#"{"alg":5}"#,
    ] {
        assert_eq!(
            refusal(&simple(), &with_header(header)),
            TokenError::Algorithm
        );
    }
}

#[test]
fn a_public_key_is_never_taken_as_an_hmac_secret() {
    let header = r#"{"alg":"HS256"}"#;
    let payload = valid_claims().to_string();
    for public in [
        test_keys::RSA_PUBLIC,
        test_keys::EC_PUBLIC,
        test_keys::ED_PUBLIC,
    ] {
        let token = forged(header, &payload, public.as_bytes());
        let rsa_only = verifier(vec![key(None, "RS256", test_keys::RSA_PUBLIC)]);
        assert_eq!(refusal(&rsa_only, &token), TokenError::Algorithm);
        let both = verifier(vec![
            key(None, "RS256", test_keys::RSA_PUBLIC),
            key(None, "HS256", SECRET),
        ]);
        assert_eq!(refusal(&both, &token), TokenError::Signature);
    }
    // An RSA key allows the one algorithm it is configured for, not the whole family.
    let rs256 = verifier(vec![key(None, "RS256", test_keys::RSA_PUBLIC)]);
    let ps256 = minted(None, "PS256", test_keys::RSA_PRIVATE, &valid_claims());
    assert_eq!(refusal(&rs256, &ps256), TokenError::Algorithm);
}

#[test]
fn the_signature_must_be_there_and_be_right() {
    let token = minted(None, "HS256", OTHER_SECRET, &valid_claims());
    assert_eq!(refusal(&simple(), &token), TokenError::Signature);
    let token = signed(&valid_claims());
    let (message, signature) = token.rsplit_once('.').unwrap();
    for wrong in ["", "AAAA", "=", "not base64!", &signature[1..]] {
        let token = format!("{message}.{wrong}");
        assert_eq!(refusal(&simple(), &token), TokenError::Signature, "{wrong}");
    }
    assert_eq!(
        refusal(&verifier(Vec::new()), &token),
        TokenError::Algorithm
    );
    assert!(!verifier(Vec::new()).has_keys() && simple().has_keys());
}

#[test]
fn garbage_is_refused_before_any_key_is_tried() {
    let token = signed(&valid_claims());
    for garbage in [
        "",
        ".",
        "..",
        "...",
        "garbage",
        "a.b",
        "ä.ö.ü",
        &format!("{token}.x"),
        &format!(" {token}"),
        &token.replace('.', " "),
    ] {
        assert_eq!(refusal(&simple(), garbage), TokenError::NotJwt, "{garbage}");
    }
    let not_maps = ["", "[]", "5", r#"{"alg":"HS256"}{}"#, r#"{"alg":"HS256""#];
    for header in not_maps {
        assert_eq!(refusal(&simple(), &with_header(header)), TokenError::NotJwt);
        assert_eq!(
            refusal(&simple(), &with_payload(header)),
            match header {
                r#"{"alg":"HS256"}"# => TokenError::Missing("sub"),
                _ => TokenError::ClaimsNotMap,
            }
        );
    }
    assert_eq!(
        refusal(&simple(), &"x".repeat(1_000_000)),
        TokenError::TooLong(TOKEN_BYTES_MAX)
    );
    let long = signed(&claims(json!({"unknown": "x".repeat(TOKEN_BYTES_MAX)})));
    assert_eq!(
        refusal(&simple(), &long),
        TokenError::TooLong(TOKEN_BYTES_MAX)
    );
    let deep = format!("{{\"x\":{}", "[".repeat(2_000));
    assert_eq!(
        refusal(&simple(), &with_payload(&deep)),
        TokenError::ClaimsNotMap
    );
    let nest = format!("{}{}", "[".repeat(1_000), "]".repeat(1_000));
    let deep = format!(r#"{{"sub":"alice","exp":{},"info":{nest}}}"#, NOW_S + 60);
    assert_eq!(claim_of(refusal(&simple(), &with_payload(&deep))), "info");
    assert_eq!(refusal(&simple(), &with_header(&nest)), TokenError::NotJwt);
}

#[test]
fn kid_chooses_among_the_keys_that_have_an_id() {
    let keys = verifier(vec![
        key(Some("a"), "HS256", SECRET),
        key(Some("b"), "HS256", OTHER_SECRET),
    ]);
    let token = |kid, secret| minted(kid, "HS256", secret, &valid_claims());
    assert!(keys.session(&token(Some("a"), SECRET), None, now()).is_ok());
    assert!(
        keys.session(&token(Some("b"), OTHER_SECRET), None, now())
            .is_ok()
    );
    assert!(
        keys.session(&token(None, OTHER_SECRET), None, now())
            .is_ok()
    );
    assert_eq!(
        refusal(&keys, &token(Some("a"), OTHER_SECRET)),
        TokenError::Signature
    );
    for kid in [
        "c",
        "",
        "../../dev/null",
        "https://evil.example/key",
        "' OR 1=1 --",
    ] {
        assert_eq!(
            refusal(&keys, &token(Some(kid), SECRET)),
            TokenError::UnknownKey,
            "{kid}"
        );
    }
    let number = with_header(r#"{"alg":"HS256","kid":5}"#);
    assert_eq!(refusal(&keys, &number), TokenError::UnknownKey);
    // A key without an id is tried for every token of its algorithm.
    assert!(
        simple()
            .session(&token(Some("c"), SECRET), None, now())
            .is_ok()
    );
}

#[test]
fn headers_that_bring_or_name_a_key_are_not_read() {
    let jwk = r#"{"kty":"oct","k":"c2VjcmV0"}"#;
    let foreign = format!(
        r#"{{"alg":"HS256","jku":"http://127.0.0.1:1/keys","x5u":7,"x5c":["x"],"jwk":{jwk}}}"#
    );
    assert!(
        simple()
            .session(&with_header(&foreign), None, now())
            .is_ok()
    );
    let own_key = forged(&foreign, &valid_claims().to_string(), b"secret");
    assert_eq!(refusal(&simple(), &own_key), TokenError::Signature);
    let critical = with_header(r#"{"alg":"HS256","crit":["b64"],"b64":false}"#);
    assert_eq!(refusal(&simple(), &critical), TokenError::Critical);
}

#[test]
fn every_key_that_cannot_be_used_is_reported_with_its_place() {
    let keys = vec![
        key(None, "HS256", SECRET),
        key(None, "none", SECRET),
        key(None, "HS256", "short secret"),
        key(None, "HS256", test_keys::RSA_PUBLIC),
        key(None, "RS256", test_keys::RSA_PRIVATE),
        key(None, "RS256", test_keys::RSA_SMALL_PUBLIC),
        key(None, "RS256", test_keys::EC_PUBLIC),
        key(None, "RS256", "no PEM"),
        key(None, "ES256", test_keys::EC_P384_PUBLIC),
        key(None, "ES256", test_keys::ED_PUBLIC),
        key(None, "EdDSA", test_keys::ED448_PUBLIC),
        key(None, "EdDSA", test_keys::ED_SHORT_PUBLIC),
        key(None, "EdDSA", ""),
    ];
    let count = keys.len();
    let error = Verifier::new(&auth(keys), INFO_BYTES_MAX).err().unwrap();
    let places: Vec<_> = error
        .faults
        .iter()
        .map(|(place, _)| place.clone())
        .collect();
    let wanted = (1..count).map(|index| format!("auth.keys[{index}]"));
    assert_eq!(places, wanted.collect::<Vec<_>>());
    use crate::auth::keys::KeyFault;
    let faults: Vec<&KeyFault> = error.faults.iter().map(|(_, fault)| fault).collect();
    assert!(matches!(
        faults[..5],
        [
            KeyFault::Algorithm,
            KeyFault::ShortSecret,
            KeyFault::PemAsSecret,
            KeyFault::Private,
            KeyFault::SmallRsa,
        ]
    ));
    assert!(
        faults[5..]
            .iter()
            .all(|fault| matches!(fault, KeyFault::Unfit { .. }))
    );
    let text = error.to_string();
    assert!(text.contains("auth.keys[2]: the secret must have at least 32 bytes; auth.keys[3]:"));
    assert!(
        !text.contains("short secret") && !text.contains("MII"),
        "{text}"
    );
}

#[test]
fn no_text_of_a_refusal_repeats_the_token() {
    let marker = "marker7f3a";
    for changes in [
        json!({"sub": format!("{marker} {marker}")}),
        json!({"exp": marker}),
        json!({"app": marker}),
        json!({"can": marker}),
        json!({"info": marker.repeat(20)}),
    ] {
        let error = refusal(&simple(), &signed(&claims(changes)));
        assert!(!format!("{error} {error:?}").contains(marker), "{error}");
    }
}

#[test]
fn one_verifier_serves_all_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<Verifier>();
}
