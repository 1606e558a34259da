//! What an entry of the audit says of an act: with whom or what, and by which parameters.
//!
//! In: names and values of one act. Out: one JSON object, so that no value can look like another. Pure.
//! Bound: of a list as many values as take [`LIST_BYTES_MAX`]; where that leaves any out, the entry says
//! how many they all are, and the SHA-256 of the whole list as JSON without spaces: who has the list can
//! prove that it is the one.

use std::fmt::Write as _;

use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::broker::audit::TARGET_BYTES_MAX;
use fanfare_protocol::ids::USER_BYTES_MAX;

/// Longest values of a list together, as JSON.
const LIST_BYTES_MAX: usize = 512;
// The list, its count and its digest, a time, and names; or a user of which each byte is escaped.
const _: () = assert!(LIST_BYTES_MAX + 64 + 128 <= TARGET_BYTES_MAX);
const _: () = assert!(2 * USER_BYTES_MAX + 128 <= TARGET_BYTES_MAX);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct About(String);

impl About {
    /// Says this besides.
    pub(super) fn with(self, name: &str, value: &(impl Serialize + ?Sized)) -> Self {
        self.raw(name, &json(value))
    }

    /// Says these besides, as many as there is room for.
    pub(super) fn with_all(self, name: &str, values: &[String]) -> Self {
        let mut shown = String::new();
        let mut shown_count = 0;
        for value in values {
            let value = json(value);
            if shown.len() + value.len() + 1 > LIST_BYTES_MAX {
                break;
            }
            if shown_count > 0 {
                shown.push(',');
            }
            shown.push_str(&value);
            shown_count += 1;
        }
        let said = self.raw(name, &format!("[{shown}]"));
        if shown_count == values.len() {
            return said;
        }
        let mut digest = String::new();
        for byte in Sha256::digest(json(values)) {
            // Writing to a String cannot fail.
            let _ = write!(digest, "{byte:02x}");
        }
        said.with(&format!("{name}_count"), &values.len())
            .with(&format!("{name}_sha256"), &digest)
    }

    /// The whole of it.
    pub(super) fn text(&self) -> String {
        format!("{{{}}}", self.0)
    }

    fn raw(mut self, name: &str, value: &str) -> Self {
        if !self.0.is_empty() {
            self.0.push(',');
        }
        self.0.push_str(&json(name));
        self.0.push(':');
        self.0.push_str(value);
        self
    }
}

fn json(value: &(impl Serialize + ?Sized)) -> String {
    serde_json::to_string(value).expect("texts, numbers and lists of them can be written")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: &[&str]) -> String {
        let values: Vec<_> = values.iter().map(ToString::to_string).collect();
        let about = About::default().with_all("jti", &values);
        about.with("issued_before", "any").text()
    }

    #[test]
    fn no_value_looks_like_another() {
        let all = About::default().with("all", &true).text();
        assert_eq!(all, r#"{"all":true}"#);
        let rows = [
            (
                vec!["a, all", "b"],
                r#"{"jti":["a, all","b"],"issued_before":"any"}"#,
            ),
            (
                vec!["a\",\"b"],
                r#"{"jti":["a\",\"b"],"issued_before":"any"}"#,
            ),
            (vec![], r#"{"jti":[],"issued_before":"any"}"#),
        ];
        for (values, wanted) in rows {
            assert_eq!(of(&values), wanted);
        }
    }

    #[test]
    fn what_is_left_out_is_counted_and_part_of_the_digest() {
        let padding = "p".repeat(128);
        let mut values = vec![padding.as_str(); 4];
        values.extend(["victim-1", "victim-2"]);
        let said: serde_json::Value = serde_json::from_str(&of(&values)).unwrap();
        assert_eq!(said["jti"].as_array().unwrap().len(), 3);
        assert_eq!(said["jti_count"], 6);
        assert_eq!(said["issued_before"], "any");
        let digest = said["jti_sha256"].as_str().unwrap();
        assert_eq!(digest.len(), 64);
        values[5] = "victim-3";
        let other: serde_json::Value = serde_json::from_str(&of(&values)).unwrap();
        assert_ne!(other["jti_sha256"], digest);
    }

    #[test]
    fn the_digest_is_that_of_other_programs() {
        // printf '["aaa…","b"]' | sha256sum, with 600 times a.
        let long = "a".repeat(600);
        let said: serde_json::Value = serde_json::from_str(&of(&[&long, "b"])).unwrap();
        assert_eq!(said["jti"], serde_json::json!([]));
        assert_eq!(said["jti_sha256"], LONG_SHA256);
    }

    const LONG_SHA256: &str = "57cf8296c4862baa3174add1299f7d9b9daa978850cf031e7df85fa65d1264c6";

    #[test]
    fn the_longest_act_is_whole() {
        let worst = "\u{1}".repeat(128);
        let values = vec![worst; 100];
        let about = About::default().with_all("jti", &values);
        let text = about.with("issued_before", &u64::MAX).text();
        assert!(text.len() <= TARGET_BYTES_MAX, "{}", text.len());
        assert!(text.ends_with("}"));
    }
}
