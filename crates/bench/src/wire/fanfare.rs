//! `fanfare.v1`, in both wire forms.
//!
//! In: identities and topics. Out: commands as frames. Independent of the server's codec.

use fanfare_client::http::percent_encode;
use serde_json::{Value, json};

use super::{Call, Destination, Heard, Identity, Item, Refusal, Upgrade, Wire, words};
use crate::frames;

/// How maps are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Encoding {
    /// Text messages
    Json,
    /// Binary messages
    Msgpack,
}

/// Speaks `fanfare.v1`.
#[derive(Debug)]
pub struct Fanfare {
    /// The path of sessions.
    pub path: String,
    /// The wire form.
    pub encoding: Encoding,
    /// The key of the HTTP API.
    pub api_key: String,
}

impl Fanfare {
    fn frame(&self, command: &Value) -> Vec<u8> {
        match self.encoding {
            Encoding::Json => frames::masked(frames::TEXT, command.to_string().as_bytes()),
            Encoding::Msgpack => {
                let bytes = rmp_serde::to_vec_named(command).expect("a map of texts and numbers");
                frames::masked(frames::BINARY, &bytes)
            }
        }
    }

    fn read(&self, payload: &[u8]) -> Option<Value> {
        match self.encoding {
            Encoding::Json => serde_json::from_slice(payload).ok(),
            Encoding::Msgpack => rmp_serde::from_slice(payload).ok(),
        }
    }
}

impl Wire for Fanfare {
    fn upgrade(&self, identity: &Identity) -> Upgrade {
        let mut path = self.path.clone();
        let mut headers = match self.encoding {
            Encoding::Json => "Sec-WebSocket-Protocol: fanfare.v1.json\r\n".to_owned(),
            Encoding::Msgpack => "Sec-WebSocket-Protocol: fanfare.v1.msgpack\r\n".to_owned(),
        };
        if let Some(token) = &identity.token {
            headers.push_str(&format!("Authorization: Bearer {token}\r\n"));
        } else if let Some(user) = &identity.user {
            path.push_str(&format!("?user={}", percent_encode(user)));
        }
        Upgrade { path, headers }
    }

    fn hello(&self, identity: &Identity) -> Option<Vec<u8>> {
        let is_anonymous = identity.user.is_none() && identity.token.is_none();
        is_anonymous.then(|| self.frame(&json!({"type": "connect"})))
    }

    fn subscribe(&self, topic: &str, since: Option<&str>) -> Vec<u8> {
        let mut command = json!({"type": "subscribe", "id": 1, "topic": topic});
        if let Some(since) = since {
            command["since"] = since.into();
        }
        self.frame(&command)
    }

    fn hear(&self, payload: &[u8]) -> Heard {
        let Some(event) = self.read(payload) else {
            return Heard::Nothing;
        };
        match event["type"].as_str() {
            Some("welcome") => Heard::Welcome,
            Some("ok") => Heard::Joined {
                position: event["position"].as_str().map(str::to_owned),
                is_whole: event["recovered"] != false,
            },
            Some("gap") => Heard::Gap,
            Some("error" | "unsubscribed") => Heard::Refused(words(event.to_string().as_bytes())),
            _ => Heard::Nothing,
        }
    }

    fn publish(&self, to: Destination<'_>, data: &str, key: &str) -> Call {
        let body = match to {
            Destination::Topic(topic) => {
                json!({"topic": topic, "data": data, "idempotency_key": key})
            }
            Destination::Users(users) => {
                json!({"users": users, "data": data, "idempotency_key": key})
            }
        };
        Call {
            path: "/v1/publish".to_owned(),
            header: Some(("authorization", format!("Bearer {}", self.api_key))),
            body: body.to_string(),
        }
    }

    fn list(&self, path: &str, items: &[Item<'_>]) -> Option<Call> {
        let mut body = String::from("[");
        for (index, item) in items.iter().enumerate() {
            let Item {
                user,
                priority,
                data,
            } = item;
            let comma = if index > 0 { "," } else { "" };
            // Names of users are the caller's own; the other two have nothing to escape.
            let user = Value::from(*user);
            body.push_str(&format!(
                r#"{comma}{{"user":{user},"priority":"{priority}","data":"{data}"}}"#
            ));
        }
        body.push(']');
        Some(Call {
            path: path.to_owned(),
            header: Some(("authorization", format!("Bearer {}", self.api_key))),
            body,
        })
    }

    fn refused_of(&self, answer: &[u8]) -> Vec<Refusal> {
        const WORD: &[u8] = b"\"failed\"";
        // Most answers refuse nothing, and then have no such word.
        if !answer.windows(WORD.len()).any(|part| part == WORD) {
            return Vec::new();
        }
        let answer: Value = serde_json::from_slice(answer).unwrap_or_default();
        let results = answer["results"].as_array().into_iter().flatten();
        let refused = results
            .enumerate()
            .filter(|(_, one)| one["error"].is_object());
        let refused = refused.map(|(index, one)| Refusal {
            index,
            // What stands behind such a one of the same target was not tried, to keep the order.
            may_be_repeated: one["error"]["code"] == "rate_limited"
                || one["error"]["not_tried"] == true,
            text: words(one["error"].to_string().as_bytes()),
        });
        refused.collect()
    }

    fn refusal(&self, answer: &[u8]) -> Option<String> {
        let answer: Value = serde_json::from_slice(answer).ok()?;
        let failed = answer["failed"].as_u64().unwrap_or(0) > 0;
        let errors = || {
            answer["results"]
                .as_array()?
                .iter()
                .find(|r| r["error"].is_object())
        };
        failed.then(|| errors().map_or_else(String::new, ToString::to_string))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wire(encoding: Encoding) -> Fanfare {
        Fanfare {
            path: "/v1/connect".to_owned(),
            encoding,
            api_key: "dev".to_owned(),
        }
    }

    #[test]
    fn both_forms_hear_the_same() {
        let events = [
            (json!({"type": "welcome", "session": "s"}), Heard::Welcome),
            (
                json!({"type": "ok", "id": 1, "position": "7-1"}),
                Heard::Joined {
                    position: Some("7-1".to_owned()),
                    is_whole: true,
                },
            ),
            (json!({"type": "gap", "topic": "t"}), Heard::Gap),
            (json!({"type": "acked"}), Heard::Nothing),
        ];
        for (event, heard) in events {
            let text = event.to_string();
            assert_eq!(wire(Encoding::Json).hear(text.as_bytes()), heard);
            let bytes = rmp_serde::to_vec_named(&event).expect("a map");
            assert_eq!(wire(Encoding::Msgpack).hear(&bytes), heard);
        }
    }

    #[test]
    fn what_was_refused_of_a_list_is_known_by_its_place() {
        let wire = wire(Encoding::Json);
        let taken = br#"{"results":[{"results":[{"topic":"@a","entry":"1-1"}]}]}"#;
        assert_eq!(wire.refused_of(taken), []);
        let answer = json!({"failed": 4, "results": [
            {"results": [{"topic": "@a", "entry": "1-1"}]},
            {"failed": 1, "results": [], "error": {"code": "rate_limited"}},
            {"failed": 1, "results": [], "error": {"code": "bad_request"}},
            {"failed": 1, "results": [], "error": {"code": "unavailable", "not_tried": true}},
            {"failed": 1, "results": [], "error": {"code": "unavailable"}},
        ]});
        let refused = wire.refused_of(answer.to_string().as_bytes());
        let told = refused.iter().map(|one| (one.index, one.may_be_repeated));
        assert_eq!(
            told.collect::<Vec<_>>(),
            [(1, true), (2, false), (3, true), (4, false)]
        );
    }

    #[test]
    fn a_list_is_json() {
        let item = Item {
            user: "a\"b",
            priority: "low",
            data: "!~0.1.2~".to_owned(),
        };
        let call = wire(Encoding::Json).list("/v1/queue", &[item.clone(), item]);
        let body: Value = serde_json::from_str(&call.expect("a call").body).expect("JSON");
        assert_eq!(
            body[1],
            json!({"user": "a\"b", "priority": "low", "data": "!~0.1.2~"})
        );
    }

    #[test]
    fn a_resume_that_lost_something_is_joined_with_a_hole() {
        let ok = br#"{"type":"ok","id":1,"recovered":false,"gap_reason":"retention"}"#;
        let Heard::Joined { is_whole, .. } = wire(Encoding::Json).hear(ok) else {
            panic!("not joined");
        };
        assert!(!is_whole);
    }
}
