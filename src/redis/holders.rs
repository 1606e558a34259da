//! Who holds the name of a node, by the leases in Redis.
//!
//! In: the keys of leases and details. Out: the holder's lease and what it said of itself last. A
//! lease that nobody has seen to end counts also when its time is over: one that Redis' absence
//! outlasted goes on with the next heartbeat. So a holder is dead only if it says nothing new for a
//! whole lease. Owns nothing. Bounds: two commands a name.

use fred::types::{FromValue, Value};

use super::RedisError;
use super::keyspace::Keyspace;

/// Who holds a name.
#[derive(Debug, Clone, PartialEq)]
pub struct Holder {
    /// When the lease ends, in milliseconds by Redis' clock; it may be over.
    pub lease_end_ms: f64,
    /// What the holder said of itself. It changes with each of its heartbeats.
    pub said: String,
}

/// The holder of a name; `None` where nobody has it, or its lease was seen to end.
///
/// # Errors
/// [`RedisError`].
pub async fn holder_of(
    keyspace: &Keyspace,
    leases: &str,
    details: &str,
    name: &str,
) -> Result<Option<Holder>, RedisError> {
    let name = [name.as_bytes().to_vec()];
    let end: Option<f64> = read(keyspace.command("ZSCORE", leases, &name).await?)?;
    let Some(lease_end_ms) = end.filter(|end| *end > 0.0) else {
        return Ok(None);
    };
    let said: Option<String> = read(keyspace.command("HGET", details, &name).await?)?;
    let said = said.unwrap_or_default();
    Ok(Some(Holder { lease_end_ms, said }))
}

/// An answer as the type that its command has.
///
/// # Errors
/// [`RedisError::Failed`]: it is of another type.
pub fn read<T: FromValue>(value: Value) -> Result<T, RedisError> {
    value.convert().map_err(RedisError::Failed)
}
