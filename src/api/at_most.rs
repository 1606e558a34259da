//! A list of which no more is kept than a request may have: what is beyond is only counted, so that
//! eight megabytes of commas and quotes do not become a hundred of empty texts.
//!
//! In: the bytes of a list, in either form. Out: the items, or how many they are. Pure.
//! Bound: `max` items.

use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, SeqAccess, Visitor};

/// At most so many items, or how many more there are.
pub(super) type Counted<T> = Result<Vec<T>, usize>;

/// See the module.
pub(super) struct AtMost<T> {
    max: usize,
    items: PhantomData<T>,
}

impl<T> AtMost<T> {
    /// A list of at most so many.
    pub(super) fn new(max: usize) -> Self {
        Self {
            max,
            items: PhantomData,
        }
    }
}

impl<'de, T: Deserialize<'de>> DeserializeSeed<'de> for AtMost<T> {
    type Value = Counted<T>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for AtMost<T> {
    type Value = Counted<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut items = Vec::new();
        while items.len() < self.max {
            match list.next_element()? {
                Some(item) => items.push(item),
                None => return Ok(Ok(items)),
            }
        }
        let mut count = items.len();
        while list.next_element::<IgnoredAny>()?.is_some() {
            count += 1;
        }
        Ok(if count > self.max {
            Err(count)
        } else {
            Ok(items)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<Counted<String>> {
        let mut json = serde_json::Deserializer::from_str(text);
        AtMost::new(2).deserialize(&mut json).ok()
    }

    #[test]
    fn what_is_beyond_is_counted_and_nothing_of_it_kept() {
        let texts = |texts: &[&str]| Some(Ok(texts.iter().map(ToString::to_string).collect()));
        assert_eq!(read("[]"), texts(&[]));
        assert_eq!(read(r#"["a","b"]"#), texts(&["a", "b"]));
        assert_eq!(read(r#"["a","b","c"]"#), Some(Err(3)));
        // Not read as what it should be, so it cannot have been kept.
        assert_eq!(read(r#"["a","b",1,{}]"#), Some(Err(4)));
        assert_eq!(read(r#"["a",1]"#), None);
        assert_eq!(read(r#"{"a":1}"#), None);
    }
}
