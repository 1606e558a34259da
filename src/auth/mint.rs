//! Makes tokens: for the command line and for tests, never on the path of a session.
//!
//! In: a secret or a private key, and claims as they are. Out: a signed token. Nothing about the
//! claims is checked, so that tokens which a node must refuse can be made too.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::keys::{self, KeyFault};
use crate::config::Secret;

/// Why no token was made.
#[derive(Debug, thiserror::Error)]
pub enum MintError {
    /// The key cannot sign.
    #[error("the key cannot be used")]
    Key(#[from] KeyFault),
    /// The system has no random bytes.
    #[error("the token cannot be signed")]
    Sign,
}

/// A key that signs.
#[derive(Debug, Clone)]
pub struct MintKey {
    /// Becomes the token's `kid`.
    pub id: Option<String>,
    /// One of the names that [`crate::config::TokenKey::algorithm`] lists.
    pub algorithm: String,
    /// The secret (HS) or the private key as PEM, PKCS #8 (all others). RSA: up to 4,096 bits.
    pub material: Secret,
}

/// Signs `claims` with `key`.
///
/// # Errors
/// [`MintError`] when the key does not fit its algorithm.
pub fn mint(key: &MintKey, claims: &Map<String, Value>) -> Result<String, MintError> {
    let (algorithm, signing) = keys::signing(&key.algorithm, &key.material)?;
    let mut header = Map::new();
    header.insert("typ".to_owned(), "JWT".into());
    header.insert("alg".to_owned(), algorithm.name().into());
    if let Some(id) = &key.id {
        header.insert("kid".to_owned(), id.clone().into());
    }
    let part =
        |map: &Map<String, Value>| URL_SAFE_NO_PAD.encode(Value::from(map.clone()).to_string());
    let message = format!("{}.{}", part(&header), part(claims));
    let signature = signing.sign(message.as_bytes()).ok_or(MintError::Sign)?;
    Ok(format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature)))
}
