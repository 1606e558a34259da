//! JSON as the text of a file, so that an app has one reader whichever way it is given.
//!
//! In: the JSON of an app. Out: the same as inline tables of TOML, and for each value where it begins in
//! that text, so that a fault names the path of the value. A key that is there twice stays twice, so
//! that the reader tells it. Bounds: the caller's, on the length; a depth of [`DEPTH_MAX`]. Pure.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

use crate::config::faults::Wrong;

/// Deepest nesting. The settings of an app have five levels.
const DEPTH_MAX: usize = 16;

/// JSON with its keys in order, those that are there twice as well.
enum Json {
    Null,
    Flag(bool),
    Number(String),
    Text(String),
    List(Vec<Self>),
    Object(Vec<(String, Self)>),
}

/// What was made of it.
#[derive(Debug)]
pub struct AsToml {
    /// The text.
    pub text: String,
    /// The path of each value and key, by where it begins.
    pub paths: BTreeMap<usize, String>,
}

/// Writes JSON as TOML.
///
/// # Errors
/// It is no JSON, no object, or has something that no setting can be.
pub fn as_toml(json: &[u8]) -> Result<AsToml, Wrong> {
    let read = serde_json::from_slice(json).map_err(|error| {
        let what = format!("not JSON: {error}");
        Wrong::new(
            what,
            "give one object, for example {\"auth\":{\"anonymous\":true}}",
        )
    })?;
    let Json::Object(fields) = read else {
        let remedy = "give one object, for example {\"auth\":{\"anonymous\":true}}";
        return Err(Wrong::new("the settings are no object", remedy));
    };
    let mut writer = Writer {
        toml: AsToml {
            text: String::new(),
            paths: BTreeMap::new(),
        },
    };
    for (name, value) in &fields {
        writer.field(name, value, "", 1)?;
        writer.toml.text.push('\n');
    }
    Ok(writer.toml)
}

struct Writer {
    toml: AsToml,
}

impl Writer {
    fn field(&mut self, name: &str, value: &Json, at: &str, depth: usize) -> Result<(), Wrong> {
        let path = match at {
            "" => name.to_owned(),
            at => format!("{at}.{name}"),
        };
        self.begins(&path);
        self.text(name);
        self.toml.text.push_str(" = ");
        self.value(value, &path, depth)
    }

    fn value(&mut self, value: &Json, path: &str, depth: usize) -> Result<(), Wrong> {
        if depth > DEPTH_MAX {
            let what = format!("{path} is nested too deep");
            return Err(Wrong::new(what, "give settings as docs/apps.md shows them"));
        }
        self.begins(path);
        match value {
            Json::Null => {
                let what = format!("{path} is null");
                return Err(Wrong::new(what, "leave the key out"));
            }
            Json::Flag(flag) => self
                .toml
                .text
                .push_str(if *flag { "true" } else { "false" }),
            Json::Number(number) => self.toml.text.push_str(number),
            Json::Text(text) => self.text(text),
            Json::List(items) => {
                self.toml.text.push('[');
                for (index, item) in items.iter().enumerate() {
                    if index > 0 {
                        self.toml.text.push_str(", ");
                    }
                    self.value(item, &format!("{path}[{index}]"), depth + 1)?;
                }
                self.toml.text.push(']');
            }
            Json::Object(fields) => {
                self.toml.text.push('{');
                for (index, (name, field)) in fields.iter().enumerate() {
                    self.toml.text.push_str(if index > 0 { ", " } else { " " });
                    self.field(name, field, path, depth + 1)?;
                }
                self.toml.text.push_str(" }");
            }
        }
        Ok(())
    }

    fn begins(&mut self, path: &str) {
        let at = self.toml.text.len();
        self.toml.paths.insert(at, path.to_owned());
    }

    /// Both forms escape in the same way, but for one character that TOML wants escaped.
    fn text(&mut self, text: &str) {
        let json = serde_json::Value::from(text).to_string();
        self.toml.text.push_str(&json.replace('\u{7f}', "\\u007F"));
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(JsonVisitor)
    }
}

struct JsonVisitor;

impl<'de> Visitor<'de> for JsonVisitor {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value of JSON")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Json, E> {
        Ok(Json::Flag(flag))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Json, E> {
        Ok(Json::Number(number.to_string()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Json, E> {
        Ok(Json::Number(number.to_string()))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Json, E> {
        Ok(Json::Number(format!("{number:?}")))
    }

    fn visit_str<E>(self, text: &str) -> Result<Json, E> {
        Ok(Json::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Json, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Json::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Json, A::Error> {
        let mut object = Vec::new();
        while let Some(field) = fields.next_entry()? {
            object.push(field);
        }
        Ok(Json::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_written_as_toml_with_the_path_of_each_value() {
        let json = br#"{"auth":{"keys":[{"id":"a\"\u007f\n"}],"n":5,"f":0.5},"x":true}"#;
        let AsToml { text, paths } = as_toml(json).unwrap();
        let wanted = "\"auth\" = { \"keys\" = [{ \"id\" = \"a\\\"\\u007F\\n\" }], \"n\" = 5, \"f\" = 0.5 }\n\
                      \"x\" = true\n";
        assert_eq!(text, wanted);
        let read: toml::Table = text.parse().unwrap();
        assert_eq!(read["auth"]["keys"][0]["id"].as_str(), Some("a\"\u{7f}\n"));
        let at = |what: &str| text.find(what).unwrap();
        assert_eq!(paths[&at("[{")], "auth.keys");
        assert_eq!(paths[&at("{ \"id\"")], "auth.keys[0]");
        assert_eq!(paths[&at("\"id\"")], "auth.keys[0].id");
        assert_eq!(paths[&at("5")], "auth.n");
    }

    #[test]
    fn what_no_setting_can_be_is_refused() {
        let rows: [(&[u8], &str); 6] = [
            (b"", "not JSON"),
            (b"{", "not JSON"),
            (b"[]", "no object"),
            (b"5", "no object"),
            (br#"{"auth":{"issuer":null}}"#, "auth.issuer is null"),
            (b"{\"a\":\xff}", "not JSON"),
        ];
        for (json, wanted) in rows {
            let told = as_toml(json).unwrap_err();
            assert!(told.what.contains(wanted), "{told:?}");
        }
        let deep = format!("{{\"a\":{}1{}}}", "[".repeat(40), "]".repeat(40));
        assert!(
            as_toml(deep.as_bytes())
                .unwrap_err()
                .what
                .contains("too deep")
        );
    }
}
