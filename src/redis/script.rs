//! A script, its name and its arguments.
//!
//! In: the source. Out: the name by which Redis knows it once it was loaded, and how to load it.
//! Pure. Bounds: none of its own.

use std::borrow::Cow;

use fred::types::Value;

/// An argument of a script or a command: the text of a value.
#[must_use]
pub fn text(value: impl std::fmt::Display) -> Vec<u8> {
    value.to_string().into_bytes()
}

/// A Lua script and the name by which Redis knows it.
#[derive(Debug, Clone)]
pub struct Script {
    source: Cow<'static, str>,
    sha: String,
}

impl Script {
    /// Names a script by the SHA-1 of its source.
    #[must_use]
    pub fn new(source: impl Into<Cow<'static, str>>) -> Self {
        let source = source.into();
        Self {
            sha: fred::util::sha1_hash(&source),
            source,
        }
    }

    /// The same script under another name: Redis knows one and not the other.
    #[must_use]
    pub fn variant(&self, number: u16) -> Self {
        Self::new(format!("{}\n-- variant {number}\n", self.source))
    }

    /// The arguments of SCRIPT that load it.
    #[must_use]
    pub fn load_args(&self) -> Vec<Value> {
        vec![Value::from_static_str("LOAD"), self.source.as_ref().into()]
    }

    /// The arguments of EVALSHA that run it.
    #[must_use]
    pub fn call_args(&self, keys: &[String], args: Vec<Vec<u8>>) -> Vec<Value> {
        let mut values = Vec::with_capacity(2 + keys.len() + args.len());
        values.extend([self.sha().into(), keys.len().to_string().into()]);
        values.extend(keys.iter().map(|key| Value::from(key.as_str())));
        values.extend(args.into_iter().map(|arg| Value::Bytes(arg.into())));
        values
    }

    /// The same of keys and arguments that are values already.
    #[must_use]
    pub fn call_values(&self, keys: Vec<Value>, args: Vec<Value>) -> Vec<Value> {
        let mut values = Vec::with_capacity(2 + keys.len() + args.len());
        values.extend([self.sha().into(), keys.len().to_string().into()]);
        values.extend(keys);
        values.extend(args);
        values
    }

    /// The source.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The SHA-1 of the source in lower-case hex, as EVALSHA wants it.
    #[must_use]
    pub fn sha(&self) -> &str {
        &self.sha
    }
}
