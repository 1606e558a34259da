//! A frame of the server: what a client must know of it to deal it on, and the rest as it came.
//!
//! In: text. Out: a [`Frame`]. Only the few fields of [`Head`] are read, so that what waits costs
//! about as many bytes as it had on the wire, and nothing that it carries is changed.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

/// A frame of the server.
#[derive(Debug, Clone)]
pub struct Frame {
    /// What is known of it.
    pub(crate) head: Head,
    /// The frame as it came.
    pub text: String,
}

/// The fields by which a client steers. One that is there and not of its kind is as if absent.
#[derive(Debug, Clone, Default)]
pub(crate) struct Head {
    pub(crate) kind: String,
    pub(crate) id: Option<u64>,
    pub(crate) topic: Option<String>,
    pub(crate) position: Option<String>,
    pub(crate) reconnect_after_ms: Option<u64>,
    /// Of a gap: where it leads to, if anywhere.
    behind_gap: Option<String>,
}

impl Head {
    /// The place in its topic that an event leads to; `None` where it leads nowhere.
    pub(crate) fn place_after(&self) -> Option<&str> {
        match &*self.kind {
            "message" => self.position.as_deref(),
            "gap" => self.behind_gap.as_deref(),
            _ => None,
        }
    }

    /// A message that stands nowhere: its topic keeps no history.
    pub(crate) fn is_unplaced(&self) -> bool {
        self.kind == "message" && self.position.is_none()
    }
}

impl Frame {
    /// Reads a frame. What it carries of other people may be more than this program can hold, and
    /// is then only carried.
    pub(crate) fn read(text: &str) -> Result<Self, serde_json::Error> {
        let fields: BTreeMap<String, &RawValue> = serde_json::from_str(text)?;
        let text_of = |name| field::<String>(&fields, name);
        let mut head = Head {
            kind: text_of("type").unwrap_or_default(),
            id: field(&fields, "id"),
            topic: text_of("topic"),
            position: text_of("position"),
            reconnect_after_ms: field(&fields, "reconnect_after_ms"),
            behind_gap: None,
        };
        // Positions of changes of members have nothing to do with those of messages.
        if head.kind == "gap" && text_of("of").as_deref() != Some("presence") {
            // Ids may start below the old ones after a failover: go back to what still stands.
            let is_failover = text_of("reason").as_deref() == Some("failover");
            head.behind_gap = text_of(if is_failover { "from" } else { "to" });
        }
        let text = text.to_owned();
        Ok(Self { head, text })
    }

    /// All of it. A field that no [`Value`] can hold (`1e400`, half of a surrogate pair) is null.
    #[must_use]
    pub fn says(&self) -> Value {
        let whole = serde_json::from_str(&self.text).or_else(|_| {
            let fields: BTreeMap<String, &RawValue> = serde_json::from_str(&self.text)?;
            let known = |value: &RawValue| serde_json::from_str(value.get()).unwrap_or_default();
            let fields = fields.into_iter().map(|(name, value)| (name, known(value)));
            Ok::<_, serde_json::Error>(Value::Object(fields.collect::<Map<_, _>>()))
        });
        // It was read before as a map.
        whole.unwrap_or_default()
    }
}

fn field<T: DeserializeOwned>(fields: &BTreeMap<String, &RawValue>, name: &str) -> Option<T> {
    serde_json::from_str(fields.get(name)?.get()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_frame_that_carries_more_than_a_value_holds_is_a_frame() {
        let text = r#"{"type":"message","topic":"t","data":[1e400,"\ud800"],"position":"1-1"}"#;
        let frame = Frame::read(text).expect("a frame");
        assert_eq!(frame.text, text);
        let says = json!({"type": "message", "topic": "t", "data": null, "position": "1-1"});
        assert_eq!(frame.says(), says);
        assert_eq!(frame.head.place_after(), Some("1-1"));
        assert!(Frame::read("{\"type\":").is_err());
    }

    #[test]
    fn a_gap_leads_behind_what_is_gone_and_one_of_members_nowhere() {
        let place = |text: &str| {
            let frame = Frame::read(text).expect("a frame");
            frame.head.place_after().map(str::to_owned)
        };
        let slow = r#"{"type":"gap","topic":"t","from":"1-1","to":"2-1","reason":"slow"}"#;
        assert_eq!(place(slow).as_deref(), Some("2-1"));
        assert_eq!(
            place(&slow.replace("slow", "failover")).as_deref(),
            Some("1-1")
        );
        let members = r#"{"type":"gap","topic":"t","of":"presence","to":"2-1","reason":"slow"}"#;
        assert_eq!(place(members), None);
    }
}
