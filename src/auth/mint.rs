//! Makes tokens: for the command line and for tests, never on the path of a session.
//!
//! In: a secret or a private key, and claims as they are. Out: a signed token. Nothing about the
//! claims is checked, so that tokens which a node must refuse can be made too.

use jsonwebtoken::Header;
use serde_json::{Map, Value};

use super::keys::{self, KeyFault};
use crate::config::Secret;

/// Why no token was made.
#[derive(Debug, thiserror::Error)]
pub enum MintError {
    /// The key cannot sign.
    #[error("the key cannot be used")]
    Key(#[from] KeyFault),
    /// The library refused.
    #[error("the token cannot be signed")]
    Sign(#[source] jsonwebtoken::errors::Error),
}

/// A key that signs.
#[derive(Debug, Clone)]
pub struct MintKey {
    /// Becomes the token's `kid`.
    pub id: Option<String>,
    /// One of the names that [`crate::config::TokenKey::algorithm`] lists.
    pub algorithm: String,
    /// The secret (HS) or the private key as PEM, PKCS #8 (all others).
    pub material: Secret,
}

/// Signs `claims` with `key`.
///
/// # Errors
/// [`MintError`] when the key does not fit its algorithm.
pub fn mint(key: &MintKey, claims: &Map<String, Value>) -> Result<String, MintError> {
    let (algorithm, encoding) = keys::signing(&key.algorithm, &key.material)?;
    let mut header = Header::new(algorithm);
    header.kid.clone_from(&key.id);
    jsonwebtoken::encode(&header, claims, &encoding).map_err(MintError::Sign)
}
