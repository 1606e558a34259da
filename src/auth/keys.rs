//! Token keys: from configured text to keys that fit their one algorithm.
//!
//! In: secrets and PEM text. Out: keys for [`super::auth`] and [`super::mint`], or a [`KeyFault`]
//! that says what to do. Everything that could be found wrong with a key is found here, at start,
//! and nothing of a key is ever printed.
//!
//! Known of jsonwebtoken: an RSA key is first looked at when a signature is verified, and an
//! Ed25519 key of fewer than 32 bytes panics there; both are looked at here before. It also takes
//! any text as an HMAC secret, the PEM of a public key included, which everybody knows.

use jsonwebtoken::crypto::rust_crypto::DEFAULT_PROVIDER;
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, EncodingKey};

use crate::config::{Secret, TokenKey};

/// Shortest HMAC secret. RFC 7518, section 3.2, asks for at least the length of the hash; 256
/// bits are beyond guessing for whoever holds a token, whichever the hash.
pub const SECRET_BYTES_MIN: usize = 32;

/// Shortest RSA modulus: 2,048 bits (RFC 7518, section 3.3).
const RSA_BYTES_MIN: usize = 256;

/// Length of an Ed25519 public key (RFC 8032, section 5.1.5).
const ED25519_BYTES: usize = 32;

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
    #[error("the key is no PEM key of the kind that {algorithm:?} needs ({form})")]
    Unfit {
        /// What the key is for.
        algorithm: Algorithm,
        /// Which form it should have.
        form: &'static str,
        /// What the library says.
        #[source]
        source: jsonwebtoken::errors::Error,
    },
    /// An RSA key that can be broken.
    #[error("the RSA key must have at least 2048 bits")]
    SmallRsa,
}

/// The algorithm of a name in configuration or in a token's header. Exactly these seven names:
/// `none`, in any spelling, is no name.
pub(super) fn algorithm(name: &str) -> Option<Algorithm> {
    Some(match name {
        "HS256" => Algorithm::HS256,
        "HS384" => Algorithm::HS384,
        "HS512" => Algorithm::HS512,
        "RS256" => Algorithm::RS256,
        "PS256" => Algorithm::PS256,
        "ES256" => Algorithm::ES256,
        "EdDSA" => Algorithm::EdDSA,
        _ => return None,
    })
}

/// Whether tokens can be verified with this key.
///
/// # Errors
/// Why they cannot.
pub fn try_key(key: &TokenKey) -> Result<(), KeyFault> {
    verifying(key).map(drop)
}

/// The key that verifies what `key` may sign.
pub(super) fn verifying(key: &TokenKey) -> Result<(Algorithm, DecodingKey), KeyFault> {
    let algorithm = algorithm(&key.algorithm).ok_or(KeyFault::Algorithm)?;
    let material = key.material.0.as_bytes();
    if algorithm.family() != AlgorithmFamily::Hmac && is_private(&key.material.0) {
        return Err(KeyFault::Private);
    }
    let unfit = |source| KeyFault::Unfit {
        algorithm,
        form: "PUBLIC KEY",
        source,
    };
    let decoding = match algorithm.family() {
        AlgorithmFamily::Hmac => {
            check_secret(&key.material.0)?;
            DecodingKey::from_secret(material)
        }
        AlgorithmFamily::Rsa => DecodingKey::from_rsa_pem(material).map_err(unfit)?,
        AlgorithmFamily::Ec => DecodingKey::from_ec_pem(material).map_err(unfit)?,
        AlgorithmFamily::Ed => DecodingKey::from_ed_pem(material).map_err(unfit)?,
    };
    let bytes = decoding.try_get_as_bytes().map_err(unfit)?;
    if algorithm.family() == AlgorithmFamily::Ed && bytes.len() != ED25519_BYTES {
        return Err(unfit(
            jsonwebtoken::errors::ErrorKind::InvalidEddsaKey.into(),
        ));
    }
    if algorithm.family() == AlgorithmFamily::Rsa {
        let components = DEFAULT_PROVIDER
            .key_utils
            .rsa_pub_components_from_public_key;
        let (modulus, _) = components(bytes).map_err(unfit)?;
        if modulus.len() < RSA_BYTES_MIN {
            return Err(KeyFault::SmallRsa);
        }
    }
    (DEFAULT_PROVIDER.verifier_factory)(&algorithm, &decoding).map_err(unfit)?;
    Ok((algorithm, decoding))
}

/// The key that signs, from a secret or a private key as PEM.
pub(super) fn signing(
    algorithm_name: &str,
    material: &Secret,
) -> Result<(Algorithm, EncodingKey), KeyFault> {
    let algorithm = algorithm(algorithm_name).ok_or(KeyFault::Algorithm)?;
    let bytes = material.0.as_bytes();
    let unfit = |source| KeyFault::Unfit {
        algorithm,
        form: "PRIVATE KEY, PKCS #8",
        source,
    };
    let encoding = match algorithm.family() {
        AlgorithmFamily::Hmac => {
            check_secret(&material.0)?;
            EncodingKey::from_secret(bytes)
        }
        AlgorithmFamily::Rsa => EncodingKey::from_rsa_pem(bytes).map_err(unfit)?,
        AlgorithmFamily::Ec => EncodingKey::from_ec_pem(bytes).map_err(unfit)?,
        AlgorithmFamily::Ed => EncodingKey::from_ed_pem(bytes).map_err(unfit)?,
    };
    Ok((algorithm, encoding))
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

fn is_private(pem: &str) -> bool {
    pem.contains("PRIVATE KEY-----")
}
