//! Token keys: from configured text to keys that fit their one algorithm.
//!
//! In: secrets and PEM text. Out: keys for [`super::auth`] and [`super::mint`], or a [`KeyFault`]
//! that says what to do. Everything that could be found wrong with a key is found here, at start,
//! and nothing of a key is ever printed.
//!
//! The key's own kind is compared with the algorithm's, by the OIDs that are written in it: a point on
//! another curve of the same length is none of P-256, and the PEM of a public key, which everybody
//! knows, is no secret.

use pkcs1::der::Decode as _;
use pkcs1::{RsaPublicKey, UintRef};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, RsaKeyPair};
use spki::{ObjectIdentifier, SubjectPublicKeyInfoRef};

use super::signature::{Algorithm, KeyBytesError, RSA_BITS_MAX, RSA_BITS_MIN, SignKey, VerifyKey};
use crate::config::{Secret, TokenKey};

/// Shortest HMAC secret. RFC 7518, section 3.2, asks for at least the length of the hash; 256
/// bits are beyond guessing for whoever holds a token, whichever the hash.
pub const SECRET_BYTES_MIN: usize = 32;

/// `rsaEncryption` (RFC 8017, appendix C).
const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
/// `id-ecPublicKey` (RFC 5480, section 2.1.1).
const EC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
/// `secp256r1` (RFC 5480, section 2.1.1.1).
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
/// `id-Ed25519` (RFC 8410, section 3).
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");

/// Why a key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyFault {
    /// Not one of the contract's algorithms.
    #[error("the algorithm must be one of HS256, HS384, HS512, RS256, PS256, ES256, EdDSA")]
    Algorithm,
    /// An HMAC secret that can be guessed.
    #[error("the secret must have at least {SECRET_BYTES_MIN} bytes")]
    ShortSecret,
    /// PEM where a secret belongs.
    #[error("a PEM key is no secret: choose RS256, PS256, ES256 or EdDSA")]
    PemAsSecret,
    /// A private key where the public one suffices.
    #[error("this is a private key: give the public one (openssl pkey -pubout)")]
    Private,
    /// Not PEM, or a key of another kind.
    #[error("the key is no PEM key of the kind that {algorithm} needs ({form})")]
    Unfit {
        /// What the key is for.
        algorithm: &'static str,
        /// Which form it should have.
        form: &'static str,
    },
    /// An RSA key that can be broken.
    #[error("the RSA key must have at least {RSA_BITS_MIN} bits")]
    SmallRsa,
    /// An RSA key whose checks would cost too much.
    #[error("the RSA key must have at most {RSA_BITS_MAX} bits")]
    LargeRsa,
}

/// Whether tokens can be verified with this key.
///
/// # Errors
/// Why they cannot.
pub fn try_key(key: &TokenKey) -> Result<(), KeyFault> {
    verifying(key).map(drop)
}

/// The key that verifies what `key` may sign.
pub(super) fn verifying(key: &TokenKey) -> Result<VerifyKey, KeyFault> {
    let algorithm = Algorithm::of(&key.algorithm).ok_or(KeyFault::Algorithm)?;
    let text = &key.material.0;
    let made = if algorithm.is_symmetric() {
        check_secret(text)?;
        VerifyKey::from_secret(algorithm, text.as_bytes())
    } else if text.contains("PRIVATE KEY-----") {
        return Err(KeyFault::Private);
    } else {
        from_pem(algorithm, text)
    };
    made.map_err(|error| match error {
        KeyBytesError::Unfit => KeyFault::Unfit {
            algorithm: algorithm.name(),
            form: "PUBLIC KEY",
        },
        KeyBytesError::SmallRsa => KeyFault::SmallRsa,
        KeyBytesError::LargeRsa => KeyFault::LargeRsa,
    })
}

fn from_pem(algorithm: Algorithm, text: &str) -> Result<VerifyKey, KeyBytesError> {
    let pem = pem::parse(text).map_err(|_| KeyBytesError::Unfit)?;
    if pem.tag() == "RSA PUBLIC KEY" {
        return from_pkcs1(algorithm, pem.contents());
    }
    if pem.tag() != "PUBLIC KEY" {
        return Err(KeyBytesError::Unfit);
    }
    let info = SubjectPublicKeyInfoRef::try_from(pem.contents());
    let info = info.map_err(|_| KeyBytesError::Unfit)?;
    let bytes = info.subject_public_key.as_bytes();
    let bytes = bytes.ok_or(KeyBytesError::Unfit)?;
    let curve = || info.algorithm.parameters_oid().ok();
    match (algorithm, info.algorithm.oid) {
        (Algorithm::Rs256 | Algorithm::Ps256, RSA) => from_pkcs1(algorithm, bytes),
        (Algorithm::Es256, EC) if curve() == Some(P256) => VerifyKey::from_p256(bytes),
        (Algorithm::EdDsa, ED25519) => VerifyKey::from_ed25519(bytes),
        _ => Err(KeyBytesError::Unfit),
    }
}

fn from_pkcs1(algorithm: Algorithm, der: &[u8]) -> Result<VerifyKey, KeyBytesError> {
    let key = RsaPublicKey::from_der(der).map_err(|_| KeyBytesError::Unfit)?;
    let bytes = |number: UintRef<'_>| number.as_bytes().to_vec();
    VerifyKey::from_rsa(algorithm, &bytes(key.modulus), &bytes(key.public_exponent))
}

/// The key that signs, from a secret or a private key as PEM.
pub(super) fn signing(
    algorithm_name: &str,
    material: &Secret,
) -> Result<(Algorithm, SignKey), KeyFault> {
    let algorithm = Algorithm::of(algorithm_name).ok_or(KeyFault::Algorithm)?;
    if algorithm.is_symmetric() {
        check_secret(&material.0)?;
    }
    let key = SignKey::from_secret(algorithm, material.0.as_bytes())
        .or_else(|| private(algorithm, &material.0))
        .ok_or(KeyFault::Unfit {
            algorithm: algorithm.name(),
            form: "PRIVATE KEY, PKCS #8",
        })?;
    Ok((algorithm, key))
}

fn private(algorithm: Algorithm, text: &str) -> Option<SignKey> {
    let pem = pem::parse(text).ok()?;
    let der = pem.contents();
    match (algorithm, pem.tag()) {
        (Algorithm::Rs256 | Algorithm::Ps256, tag) => {
            let pair = match tag {
                "PRIVATE KEY" => RsaKeyPair::from_pkcs8(der).ok()?,
                "RSA PRIVATE KEY" => RsaKeyPair::from_der(der).ok()?,
                _ => return None,
            };
            Some(SignKey::Rsa(Box::new(pair), algorithm == Algorithm::Ps256))
        }
        (Algorithm::Es256, "PRIVATE KEY") => {
            let (form, random) = (&ECDSA_P256_SHA256_FIXED_SIGNING, SystemRandom::new());
            let pair = EcdsaKeyPair::from_pkcs8(form, der, &random).ok()?;
            Some(SignKey::P256(pair))
        }
        (Algorithm::EdDsa, "PRIVATE KEY") => {
            let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der).ok()?;
            Some(SignKey::Ed25519(pair))
        }
        _ => None,
    }
}

fn check_secret(secret: &str) -> Result<(), KeyFault> {
    if secret.contains("-----BEGIN ") {
        return Err(KeyFault::PemAsSecret);
    }
    if secret.len() < SECRET_BYTES_MIN {
        return Err(KeyFault::ShortSecret);
    }
    Ok(())
}
