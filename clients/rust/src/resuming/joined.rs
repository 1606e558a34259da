//! The topics of a resuming connection: how each was joined, where it stands, and what an answer to
//! joining it means.
//!
//! Pure. In: options, positions, answers of the server, the clock. Out: what to send again, and the
//! gaps and ends that the caller is told. Each topic has its own back-off, so that one which cannot
//! be joined at the moment costs no other anything.

use serde_json::{Map, Value, json};
use tokio::time::Instant;

use crate::reconnect::{Again, Pace, asked};

/// Where a topic is between the client and the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// The session has it.
    Here,
    /// It is to be asked for at this time.
    Due(Instant),
    /// It was asked for by the command with this id.
    Asked(u64),
}

/// A joined topic.
#[derive(Debug)]
pub(super) struct Joined {
    /// What its `subscribe` said of it beside where it begins.
    pub(super) options: Map<String, Value>,
    /// The place after which the next message is expected.
    pub(super) position: Option<String>,
    /// Messages without a position came after that place: it does not say what was missed.
    pub(super) is_unplaced: bool,
    pub(super) stage: Stage,
    pace: Pace,
}

/// What an answer to a resume means for the topic.
#[derive(Debug)]
pub(super) enum Outcome {
    /// It goes on, after these gaps.
    Resumed(Vec<Value>),
    /// It will be asked for again.
    Later,
    /// It is no more; the event that says so.
    Ended(Value),
}

impl Joined {
    /// A topic that the session has, or that is to be joined at once.
    pub(super) fn new(options: Map<String, Value>, position: Option<String>, stage: Stage) -> Self {
        Self {
            options,
            position,
            is_unplaced: false,
            stage,
            pace: Pace::default(),
        }
    }

    /// Its entry in `connect.topics`, and what `subscribe` says of it; none for an inbox or `@`
    /// that begins where the server says.
    pub(super) fn entry(&self, topic: &str) -> Option<Value> {
        if topic.starts_with('@') && (self.position.is_none() || self.is_unplaced) {
            return None;
        }
        let mut entry = self.options.clone();
        entry.insert("topic".to_owned(), topic.into());
        if let Some(position) = &self.position {
            entry.remove("rewind");
            entry.insert("since".to_owned(), position.as_str().into());
        }
        Some(Value::Object(entry))
    }

    /// Takes the answer to a resume.
    pub(super) fn resumed(&mut self, topic: &str, answer: &Value) -> Outcome {
        if answer["error"].is_object() {
            return self.refused(topic, &answer["error"]);
        }
        self.stage = Stage::Here;
        self.pace.settled();
        let since = self.position.take();
        self.position = answer["position"].as_str().map(str::to_owned);
        let is_unplaced = std::mem::take(&mut self.is_unplaced);
        let mut gaps = Vec::new();
        // The server tells a loss on inbox and `@` itself.
        let is_told = topic.starts_with('@') && !is_unplaced;
        if (answer["recovered"] == false || is_unplaced) && !is_told {
            let said = answer["gap_reason"].as_str().unwrap_or("retention");
            let reason = if is_unplaced { "lost" } else { said };
            let mut gap = json!({"type": "gap", "topic": topic, "reason": reason});
            // After a failover the old position has no place in the topic's order any more.
            if reason != "failover" {
                gap["from"] = json!(since);
                gap["to"] = json!(self.position);
            }
            gaps.push(without_nulls(gap));
        }
        if self.options.get("presence") == Some(&Value::Bool(true)) {
            // Changes of members are not replayed.
            gaps.push(lost_of_members(topic));
        }
        Outcome::Resumed(gaps)
    }

    fn refused(&mut self, topic: &str, error: &Value) -> Outcome {
        let code = error["code"].as_str().unwrap_or_default();
        let is_of_rights = ["unauthorized", "token_expired", "forbidden"].contains(&code);
        // The token for the topic may have ended, where the session's own permits it by now.
        if is_of_rights && self.options.remove("token").is_some() {
            self.stage = Stage::Due(Instant::now());
            return Outcome::Later;
        }
        if !["unavailable", "internal", "rate_limited"].contains(&code) {
            return Outcome::Ended(json!({
                "type": "unsubscribed", "topic": topic,
                "code": error["code"], "message": error["message"],
            }));
        }
        let again = match error["retry_after_ms"].as_u64() {
            Some(wait_ms) => Again::After(asked(wait_ms)),
            None => Again::BackOff,
        };
        let wait = self.pace.wait(again, rand::random()).unwrap_or_default();
        self.stage = Stage::Due(Instant::now() + wait);
        Outcome::Later
    }

    /// Takes a `subscribe` that succeeded on a topic that the session has: other options, the same
    /// place.
    pub(super) fn amend(&mut self, options: Map<String, Value>) {
        self.options.extend(options);
    }
}

/// Changes of a topic's members that will not come.
fn lost_of_members(topic: &str) -> Value {
    json!({"type": "gap", "topic": topic, "of": "presence", "reason": "lost"})
}

fn without_nulls(mut value: Value) -> Value {
    if let Value::Object(fields) = &mut value {
        fields.retain(|_, value| !value.is_null());
    }
    value
}
