//! Events as lines for people.
//!
//! Pure. In: an event as JSON. Out: a line for a message, a remark for what else happened. Control
//! characters of other people's text are written as escapes; numbers and objects stay as they came.

use serde_json::Value;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::output::{clock, printable, raw_body};

/// What a message carries, as it came.
#[derive(Deserialize)]
struct Carried<'a> {
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

/// A message: when, where, at which position, from whom, and what. `text` is the event as it came.
#[must_use]
pub fn message(event: &Value, text: &str) -> String {
    let carried = serde_json::from_str::<Carried<'_>>(text).ok();
    let data = carried.and_then(|carried| carried.data);
    let mut words = vec![clock(event["time"].as_u64().unwrap_or(0))];
    for field in ["topic", "position"] {
        words.extend(event[field].as_str().map(str::to_owned));
    }
    for (label, field) in [("from", "user"), ("priority", "priority"), ("key", "key")] {
        words.extend(event[field].as_str().map(|text| format!("{label}={text}")));
    }
    if event["removed"] == true {
        words.push("removed".to_owned());
    }
    let data = raw_body(data.map_or("null", RawValue::get));
    format!("{}  {data}", printable(&words.join(" ")))
}

/// A sentence for an event that is no message; `None` for those that mean nothing to people.
#[must_use]
pub fn remark(event: &Value) -> Option<String> {
    let text = |field: &str| text(event, field);
    let remark = match event["type"].as_str()? {
        "subscribed" => subscribed(event),
        "gap" => gap(event),
        "presence" => format!(
            "presence in {}: joined [{}], left [{}], now {}",
            text("topic"),
            users(&event["joined"]),
            users(&event["left"]),
            event["count"]
        ),
        "drain" => "the node is leaving; connecting again soon".to_owned(),
        "expiring" => "the token ends soon".to_owned(),
        "disconnected" => format!(
            "{}; trying again in {} ms",
            text("message"),
            event["again_after_ms"]
        ),
        "reconnected" => format!("connected again, to node {}", text("node")),
        "error" => format!("{}: {}", text("code"), text("message")),
        _ => return None,
    };
    Some(format!("-- {}", printable(&remark)))
}

fn subscribed(event: &Value) -> String {
    let mut remark = format!(
        "joined {} after {}",
        text(event, "topic"),
        text(event, "position")
    );
    if let Some(count) = event["count"].as_u64() {
        remark.push_str(&format!(", {count} present"));
    }
    if let Some(reason) = event["gap_reason"].as_str() {
        remark.push_str(&format!("; older messages are gone ({reason})"));
    }
    remark
}

fn gap(event: &Value) -> String {
    let mut remark = format!("gap in {}", text(event, "topic"));
    for (word, field) in [("after", "from"), ("up to", "to")] {
        if let Some(position) = event[field].as_str() {
            remark.push_str(&format!(" {word} {position}"));
        }
    }
    remark.push_str(&format!(": lost ({})", text(event, "reason")));
    if let Some(count) = event["dropped"].as_u64() {
        remark.push_str(&format!(", {count} messages"));
    }
    remark
}

fn users(members: &Value) -> String {
    let members = members.as_array().map_or(&[][..], Vec::as_slice);
    let name = |member: &Value| member["user"].as_str().unwrap_or("anonymous").to_owned();
    members.iter().map(name).collect::<Vec<_>>().join(", ")
}

fn text<'a>(event: &'a Value, field: &str) -> &'a str {
    event[field].as_str().unwrap_or("?")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_message_shows_what_is_there_and_cannot_forge_a_line() {
        let event = json!({"type": "message", "topic": "news", "position": "5-1", "time": 1_007,
            "user": "al\nice", "priority": "high"});
        assert_eq!(
            message(&event, r#"{"data":{"b":1.10,"a":18446744073709551616}}"#),
            r#"00:00:01.007Z news 5-1 from=al\nice priority=high  {"b":1.10,"a":18446744073709551616}"#
        );
        let plain = json!({"type": "message", "topic": "t", "time": 0});
        assert_eq!(message(&plain, r#"{"data":"hi"}"#), "00:00:00.000Z t  hi");
        assert_eq!(message(&plain, r#"{"data":null}"#), "00:00:00.000Z t  null");
    }

    #[test]
    fn a_remark_says_what_was_lost_and_where() {
        let event = json!({"type": "gap", "topic": "news", "from": "5-1", "to": "9-2",
            "reason": "retention", "dropped": 3});
        assert_eq!(
            remark(&event).as_deref(),
            Some("-- gap in news after 5-1 up to 9-2: lost (retention), 3 messages")
        );
        let presence = json!({"type": "presence", "topic": "room", "count": 2,
            "joined": [{"user": "bob"}, {"session": "x"}], "left": []});
        assert_eq!(
            remark(&presence).as_deref(),
            Some("-- presence in room: joined [bob, anonymous], left [], now 2")
        );
        assert_eq!(remark(&json!({"type": "acked", "position": "1-1"})), None);
    }
}
