//! The claim `info`: what a token says of its user to others, kept as the text that it came as.
//!
//! In: a token, or a member that another node wrote. Out: the same value in either wire form. It is
//! only ever shown, so it is never taken apart: parsed, it would hold many times its length, in
//! every session. Copies share their bytes. Bounded by `session.info_bytes_max` and by the rules of
//! [`Data`].

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use super::data::Data;
use super::raw::Raw;
use super::rules::DataError;

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Info(Data);

impl Info {
    /// Takes a claim.
    ///
    /// # Errors
    /// [`DataError`] where it is not what both wire forms can say.
    pub fn from_raw(raw: Raw<'_>) -> Result<Self, DataError> {
        raw.data().map(Self)
    }

    /// The value.
    pub(super) fn data(&self) -> &Data {
        &self.0
    }

    /// How many bytes it has.
    #[must_use]
    pub fn bytes_count(&self) -> usize {
        self.0.bytes().len()
    }
}

impl From<&Value> for Info {
    fn from(value: &Value) -> Self {
        Self(Data::Json(value.to_string().into()))
    }
}

impl Serialize for Info {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Info {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Value::deserialize(deserializer).map(|value| Self::from(&value))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_info_is_the_same_in_both_forms_and_comes_back() {
        for value in [
            json!({"name": "Al", "n": [1, 2.5, null]}),
            json!("é"),
            json!(-7),
        ] {
            let info = Info::from(&value);
            assert_eq!(serde_json::to_value(&info).unwrap(), value);
            let bytes = rmp_serde::to_vec_named(&info).unwrap();
            assert_eq!(rmp_serde::from_slice::<Value>(&bytes).unwrap(), value);
            assert_eq!(rmp_serde::from_slice::<Info>(&bytes).unwrap(), info);
        }
    }
}
