//! Commands by their key, wherever the key lives: one server, a master of a cluster, a deployment.
//!
//! In: scripts and commands from those who keep something in Redis and don't care where. Out: the
//! same on the [`RedisLink`] of the server that has the key. All keys of one call live together
//! (one tag), so the first decides; or the caller names a key of the server that it means. Owns
//! nothing: who knows the way is given at the start. Bounds are the link's.

use std::sync::Arc;

use fred::types::Value;
use futures_util::future::BoxFuture;

use super::{RedisError, RedisLink, Script};

/// Who knows which server has a key. An error says why there is none at the moment.
type Way = dyn Fn(&str) -> Result<Arc<RedisLink>, RedisError> + Send + Sync;

/// One server, as long as it is used: another one may have the number later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServerId(usize);

#[cfg(test)]
impl ServerId {
    /// One that differs from those of other numbers.
    pub(crate) fn numbered(number: usize) -> Self {
        Self(number)
    }
}

/// See the module. A clone leads to the same servers.
#[derive(Clone)]
pub struct Keyspace {
    way: Arc<Way>,
}

impl std::fmt::Debug for Keyspace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keyspace").finish_non_exhaustive()
    }
}

impl From<Arc<RedisLink>> for Keyspace {
    /// Everything on one server.
    fn from(link: Arc<RedisLink>) -> Self {
        Self::new(move |_| Ok(Arc::clone(&link)))
    }
}

impl Keyspace {
    /// Keys whose server this function knows.
    pub fn new(
        way: impl Fn(&str) -> Result<Arc<RedisLink>, RedisError> + Send + Sync + 'static,
    ) -> Self {
        Self { way: Arc::new(way) }
    }

    /// Which server has a key now; `None` while none has it.
    #[must_use]
    pub fn server_of(&self, key: &str) -> Option<ServerId> {
        let link = (self.way)(key).ok()?;
        Some(ServerId(Arc::as_ptr(&link).addr()))
    }

    /// Which server that is, for people.
    #[must_use]
    pub fn server_name_of(&self, key: &str) -> String {
        match (self.way)(key) {
            Ok(link) => link.server(),
            Err(why) => why.to_string(),
        }
    }

    /// As [`RedisLink::eval`].
    ///
    /// # Errors
    /// [`RedisError`].
    pub async fn eval(
        &self,
        script: &Script,
        keys: &[String],
        args: &[Vec<u8>],
    ) -> Result<Value, RedisError> {
        let first = keys.first().map_or("", String::as_str);
        (self.way)(first)?.eval(script, keys, args).await
    }

    /// As [`Self::eval`], on the server that has `key`, for a script that gets its keys as
    /// arguments: they may lie in several slots of that server.
    ///
    /// # Errors
    /// [`RedisError`].
    pub async fn eval_beside(
        &self,
        key: &str,
        script: &Script,
        args: &[Vec<u8>],
    ) -> Result<Value, RedisError> {
        (self.way)(key)?.eval(script, &[], args).await
    }

    /// As [`RedisLink::command`].
    ///
    /// # Errors
    /// [`RedisError`].
    pub async fn command(
        &self,
        name: &'static str,
        key: &str,
        args: &[Vec<u8>],
    ) -> Result<Value, RedisError> {
        (self.way)(key)?.command(name, key, args).await
    }

    /// As [`RedisLink::submit`], for commands whose first argument is the key.
    #[must_use]
    pub fn submit(
        &self,
        name: &'static str,
        args: Vec<Value>,
    ) -> BoxFuture<'static, Result<Value, RedisError>> {
        let link = {
            let key = args.first().and_then(Value::as_str).unwrap_or_default();
            (self.way)(&key)
        };
        match link {
            Ok(link) => link.submit(name, args),
            Err(error) => Box::pin(std::future::ready(Err(error))),
        }
    }
}
