//! Signatures of tokens, over `ring`: the seven algorithms of the contract and no other.
//!
//! In: keys as bytes, messages, signatures. Out: whether a signature is right, or a new one. Pure;
//! a key is prepared once and then only read, by all workers. Bounds: RSA of 2,048 to 8,192 bits.
//!
//! Signatures have the form of RFC 7518: ECDSA as r and s of 32 bytes each, and no DER. `ring` reads a
//! public key of RSA or P-256 at each check, so all that could be wrong with one is looked at here when
//! the key is made. The tests ask the vectors of Project
//! Wycheproof of each algorithm.

use std::time::Duration;

use ring::agreement::{self, ECDH_P256, EphemeralPrivateKey};
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ED25519, EcdsaKeyPair, Ed25519KeyPair, RSA_PKCS1_2048_8192_SHA256,
    RSA_PKCS1_SHA256, RSA_PSS_2048_8192_SHA256, RSA_PSS_SHA256, RsaKeyPair, RsaPublicKeyComponents,
    UnparsedPublicKey,
};
use ring::{error::Unspecified, hmac};

/// Fewest bits of an RSA key (RFC 7518, section 3.3).
pub const RSA_BITS_MIN: usize = 2_048;
/// Most bits of an RSA key: `ring` checks no larger one, and one of this size costs about 0.6 ms.
pub const RSA_BITS_MAX: usize = 8_192;
/// Length of an uncompressed point on P-256 (SEC 1, section 2.3.3).
pub const P256_POINT_BYTES: usize = 65;
/// Length of an Ed25519 public key (RFC 8032, section 5.1.5).
pub const ED25519_BYTES: usize = 32;

/// How a token is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// HMAC with SHA-256.
    Hs256,
    /// HMAC with SHA-384.
    Hs384,
    /// HMAC with SHA-512.
    Hs512,
    /// RSA, PKCS #1 v1.5, with SHA-256.
    Rs256,
    /// RSA, PSS, with SHA-256.
    Ps256,
    /// ECDSA on P-256 with SHA-256.
    Es256,
    /// Ed25519.
    EdDsa,
}

impl Algorithm {
    /// All of them, in the order in which they are told.
    pub const ALL: [Self; 7] = [
        Self::Hs256,
        Self::Hs384,
        Self::Hs512,
        Self::Rs256,
        Self::Ps256,
        Self::Es256,
        Self::EdDsa,
    ];

    /// The name in configuration and in a token's header (RFC 7518, section 3.1; RFC 8037).
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Hs256 => "HS256",
            Self::Hs384 => "HS384",
            Self::Hs512 => "HS512",
            Self::Rs256 => "RS256",
            Self::Ps256 => "PS256",
            Self::Es256 => "ES256",
            Self::EdDsa => "EdDSA",
        }
    }

    /// The algorithm of a name. Exactly these seven: `none`, in any spelling, is no name.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.name() == name)
    }

    /// Whether its key is a secret that both sides share.
    #[must_use]
    pub fn is_symmetric(self) -> bool {
        self.hmac().is_some()
    }

    fn hmac(self) -> Option<hmac::Algorithm> {
        match self {
            Self::Hs256 => Some(hmac::HMAC_SHA256),
            Self::Hs384 => Some(hmac::HMAC_SHA384),
            Self::Hs512 => Some(hmac::HMAC_SHA512),
            Self::Rs256 | Self::Ps256 | Self::Es256 | Self::EdDsa => None,
        }
    }
}

/// Why bytes are no key of an algorithm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyBytesError {
    /// Of another kind, or no key at all.
    #[error("it is no key of this algorithm")]
    Unfit,
    /// An RSA key that can be broken.
    #[error("the RSA key must have at least {RSA_BITS_MIN} bits")]
    SmallRsa,
    /// An RSA key whose checks would cost too much.
    #[error("the RSA key must have at most {RSA_BITS_MAX} bits")]
    LargeRsa,
}

/// A key that checks signatures of one algorithm.
#[derive(Clone)]
pub struct VerifyKey {
    algorithm: Algorithm,
    material: Material,
}

#[derive(Clone)]
enum Material {
    Hmac(hmac::Key),
    Rsa(RsaPublicKeyComponents<Box<[u8]>>, usize),
    P256(Box<[u8]>),
    Ed25519(Box<[u8]>),
}

impl VerifyKey {
    /// From a secret. How long it must be is for the caller to say.
    ///
    /// # Errors
    /// [`KeyBytesError::Unfit`] where the algorithm takes no secret.
    pub fn from_secret(algorithm: Algorithm, secret: &[u8]) -> Result<Self, KeyBytesError> {
        let hmac = algorithm.hmac().ok_or(KeyBytesError::Unfit)?;
        let material = Material::Hmac(hmac::Key::new(hmac, secret));
        Ok(Self {
            algorithm,
            material,
        })
    }

    /// From modulus and exponent of RSA, the highest byte first; zeros in front count for nothing.
    ///
    /// # Errors
    /// [`KeyBytesError`].
    pub fn from_rsa(algorithm: Algorithm, n: &[u8], e: &[u8]) -> Result<Self, KeyBytesError> {
        if !matches!(algorithm, Algorithm::Rs256 | Algorithm::Ps256) {
            return Err(KeyBytesError::Unfit);
        }
        let (n, e) = (without_zeros(n), without_zeros(e));
        let bits = match n.first() {
            Some(first) => n.len() * 8 - first.leading_zeros() as usize,
            None => return Err(KeyBytesError::Unfit),
        };
        if bits < RSA_BITS_MIN {
            return Err(KeyBytesError::SmallRsa);
        }
        if bits > RSA_BITS_MAX {
            return Err(KeyBytesError::LargeRsa);
        }
        // An even modulus or exponent is none, and `ring` takes exponents from 3 to 33 bits.
        let is_odd = |number: &[u8]| number.last().is_some_and(|last| last % 2 == 1);
        if !is_odd(n) || !is_odd(e) || e == [1] || e.len() > 4 {
            return Err(KeyBytesError::Unfit);
        }
        let components = RsaPublicKeyComponents {
            n: n.into(),
            e: e.into(),
        };
        Ok(Self {
            algorithm,
            material: Material::Rsa(components, bits),
        })
    }

    /// From a point on P-256, uncompressed.
    ///
    /// # Errors
    /// [`KeyBytesError::Unfit`] where it is none.
    pub fn from_p256(point: &[u8]) -> Result<Self, KeyBytesError> {
        // `ring` looks at a point only where it is used: an agreement with a key for this once is
        // such a use.
        let own = EphemeralPrivateKey::generate(&ECDH_P256, &SystemRandom::new());
        let peer = agreement::UnparsedPublicKey::new(&ECDH_P256, point);
        let agreed = own.and_then(|own| agreement::agree_ephemeral(own, &peer, |_| ()));
        if point.len() != P256_POINT_BYTES || agreed.is_err() {
            return Err(KeyBytesError::Unfit);
        }
        Ok(Self {
            algorithm: Algorithm::Es256,
            material: Material::P256(point.into()),
        })
    }

    /// From a public key of Ed25519.
    ///
    /// # Errors
    /// [`KeyBytesError::Unfit`] where it has another length.
    pub fn from_ed25519(key: &[u8]) -> Result<Self, KeyBytesError> {
        if key.len() != ED25519_BYTES {
            return Err(KeyBytesError::Unfit);
        }
        Ok(Self {
            algorithm: Algorithm::EdDsa,
            material: Material::Ed25519(key.into()),
        })
    }

    /// The one algorithm that it is for.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Whether the signature is one of this message by this key.
    #[must_use]
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        let verified: Result<(), Unspecified> = match &self.material {
            Material::Hmac(key) => hmac::verify(key, message, signature),
            Material::Rsa(key, _) => {
                let parameters = match self.algorithm {
                    Algorithm::Ps256 => &RSA_PSS_2048_8192_SHA256,
                    _ => &RSA_PKCS1_2048_8192_SHA256,
                };
                key.verify(parameters, message, signature)
            }
            Material::P256(point) => {
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(message, signature)
            }
            Material::Ed25519(key) => {
                UnparsedPublicKey::new(&ED25519, key).verify(message, signature)
            }
        };
        verified.is_ok()
    }

    /// About what one check costs, of a token as long as most are: medians on a busy machine, in
    /// docs/keys.md. `benches/signatures.rs` measures it anew.
    #[must_use]
    pub fn cost(&self) -> Duration {
        let us = match &self.material {
            Material::Hmac(_) => 2,
            Material::Rsa(_, bits) => match *bits {
                ..=2_048 => 35,
                2_049..=3_072 => 70,
                3_073..=4_096 => 180,
                _ => 600,
            },
            Material::P256(_) => 60,
            Material::Ed25519(_) => 60,
        };
        Duration::from_micros(us)
    }
}

impl std::fmt::Debug for VerifyKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "VerifyKey({})", self.algorithm.name())
    }
}

/// A key that checks signatures, with its name.
#[derive(Debug)]
pub struct Key {
    /// Its `kid`. Without one it is tried for every token of its algorithm.
    pub id: Option<String>,
    /// What checks.
    pub verify: VerifyKey,
}

/// A key that signs, for the command line and for tests.
pub(super) enum SignKey {
    /// HS256, HS384, HS512.
    Hmac(hmac::Key),
    /// RS256; true: PS256.
    Rsa(Box<RsaKeyPair>, bool),
    /// ES256.
    P256(EcdsaKeyPair),
    /// EdDSA.
    Ed25519(Ed25519KeyPair),
}

impl SignKey {
    /// From a secret; `None` where the algorithm takes none.
    pub(super) fn from_secret(algorithm: Algorithm, secret: &[u8]) -> Option<Self> {
        let hmac = algorithm.hmac()?;
        Some(Self::Hmac(hmac::Key::new(hmac, secret)))
    }

    /// A signature as a token has it; `None` where the system has no random bytes.
    pub(super) fn sign(&self, message: &[u8]) -> Option<Vec<u8>> {
        let random = SystemRandom::new();
        match self {
            Self::Hmac(key) => Some(hmac::sign(key, message).as_ref().to_vec()),
            Self::Rsa(key, is_pss) => {
                let mut signature = vec![0; key.public().modulus_len()];
                let signed = match is_pss {
                    true => key.sign(&RSA_PSS_SHA256, &random, message, &mut signature),
                    false => key.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature),
                };
                signed.ok().map(|()| signature)
            }
            Self::P256(key) => Some(key.sign(&random, message).ok()?.as_ref().to_vec()),
            Self::Ed25519(key) => Some(key.sign(message).as_ref().to_vec()),
        }
    }
}

fn without_zeros(number: &[u8]) -> &[u8] {
    let from = number.iter().position(|byte| *byte != 0);
    &number[from.unwrap_or(number.len())..]
}

#[cfg(test)]
mod tests;
