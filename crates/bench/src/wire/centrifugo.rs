//! Centrifugo's client protocol over JSON, and its HTTP API.
//!
//! In: an API key. Out: commands as frames. A frame may hold several replies, one a line; an empty
//! object is a ping and its own answer.

use serde_json::{Value, json};

use super::{Call, Destination, Heard, Identity, JOINED, Upgrade, Wire, words};
use crate::frames;

/// The id of the connect command.
const CONNECT_ID: u64 = 1;
/// The id of the subscribe command.
const SUBSCRIBE_ID: u64 = 2;

/// Speaks the bidirectional protocol.
#[derive(Debug)]
pub struct Centrifugo {
    /// The key of the HTTP API.
    pub api_key: String,
}

fn frame(command: &Value) -> Vec<u8> {
    frames::masked(frames::TEXT, command.to_string().as_bytes())
}

impl Wire for Centrifugo {
    fn upgrade(&self, _identity: &Identity) -> Upgrade {
        Upgrade {
            path: "/connection/websocket".to_owned(),
            headers: String::new(),
        }
    }

    fn hello(&self, identity: &Identity) -> Option<Vec<u8>> {
        let mut connect = json!({});
        if let Some(token) = &identity.token {
            connect["token"] = token.as_str().into();
        }
        Some(frame(&json!({"id": CONNECT_ID, "connect": connect})))
    }

    fn subscribe(&self, topic: &str, _since: Option<&str>) -> Vec<u8> {
        frame(&json!({"id": SUBSCRIBE_ID, "subscribe": {"channel": topic}}))
    }

    fn hear(&self, payload: &[u8]) -> Heard {
        if payload == b"{}" {
            return Heard::Answer(frames::masked(frames::TEXT, b"{}"));
        }
        let reply: Value = serde_json::from_slice(payload).unwrap_or_default();
        if reply["error"].is_object() || reply["push"]["disconnect"].is_object() {
            return Heard::Refused(words(payload));
        }
        match reply["id"].as_u64() {
            Some(CONNECT_ID) => Heard::Welcome,
            Some(SUBSCRIBE_ID) => JOINED,
            _ => Heard::Nothing,
        }
    }

    fn has_lines(&self) -> bool {
        true
    }

    fn publish(&self, to: Destination<'_>, data: &str, _key: &str) -> Call {
        let (path, body) = match to {
            Destination::Topic(topic) => ("/api/publish", json!({"channel": topic, "data": data})),
            Destination::Users(users) => {
                let channels: Vec<String> = users.iter().map(|user| format!("#{user}")).collect();
                (
                    "/api/broadcast",
                    json!({"channels": channels, "data": data}),
                )
            }
        };
        Call {
            path: path.to_owned(),
            header: Some(("x-api-key", self.api_key.clone())),
            body: body.to_string(),
        }
    }

    fn refusal(&self, answer: &[u8]) -> Option<String> {
        let answer: Value = serde_json::from_slice(answer).ok()?;
        let error = &answer["error"];
        error.is_object().then(|| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_object_is_answered_and_an_error_is_a_refusal() {
        let wire = Centrifugo {
            api_key: String::new(),
        };
        assert_eq!(
            wire.hear(b"{}"),
            Heard::Answer(frames::masked(frames::TEXT, b"{}"))
        );
        assert_eq!(wire.hear(br#"{"id":1,"connect":{}}"#), Heard::Welcome);
        assert_eq!(wire.hear(br#"{"id":2,"subscribe":{}}"#), JOINED);
        let error = br#"{"id":2,"error":{"code":103,"message":"permission denied"}}"#;
        assert!(matches!(wire.hear(error), Heard::Refused(_)));
        let refused = br#"{"error":{"code":102,"message":"unknown channel"}}"#;
        assert!(wire.refusal(refused).is_some());
        assert!(wire.refusal(br#"{"result":{}}"#).is_none());
    }
}
