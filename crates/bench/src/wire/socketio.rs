//! Socket.IO over the WebSocket transport of Engine.IO 4, against the small server of
//! `docs/bench.md`.
//!
//! In: topics as rooms. Out: packets as frames: `subscribe` with an acknowledgement joins a room,
//! messages come as the event `message`. Socket.IO has no HTTP API, so the server offers
//! `POST /publish` with `topic` and `data`.

use serde_json::json;

use super::{Call, Destination, Heard, Identity, JOINED, Upgrade, Wire, words};
use crate::frames;

/// Speaks Engine.IO 4.
#[derive(Debug)]
pub struct SocketIo;

fn packet(text: &str) -> Vec<u8> {
    frames::masked(frames::TEXT, text.as_bytes())
}

impl Wire for SocketIo {
    fn upgrade(&self, _identity: &Identity) -> Upgrade {
        Upgrade {
            path: "/socket.io/?EIO=4&transport=websocket".to_owned(),
            headers: String::new(),
        }
    }

    fn hello(&self, _identity: &Identity) -> Option<Vec<u8>> {
        None
    }

    fn subscribe(&self, topic: &str, _since: Option<&str>) -> Vec<u8> {
        packet(&format!("420{}", json!(["subscribe", topic])))
    }

    fn hear(&self, payload: &[u8]) -> Heard {
        match payload {
            // Engine.IO has opened: connect to the main namespace.
            [b'0', ..] => Heard::Answer(packet("40")),
            [b'2'] => Heard::Answer(packet("3")),
            [b'4', b'0', ..] => Heard::Welcome,
            [b'4', b'3', b'0', ..] => JOINED,
            [b'1', ..] | [b'4', b'1' | b'4', ..] => Heard::Refused(words(payload)),
            _ => Heard::Nothing,
        }
    }

    fn publish(&self, to: Destination<'_>, data: &str, _key: &str) -> Call {
        let body = match to {
            Destination::Topic(topic) => json!({"topic": topic, "data": data}),
            Destination::Users(users) => json!({"topic": users, "data": data}),
        };
        Call {
            path: "/publish".to_owned(),
            header: None,
            body: body.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_packets_of_the_opening_lead_to_a_joined_room() {
        let open = br#"0{"sid":"x","upgrades":[],"pingInterval":25000}"#;
        assert_eq!(SocketIo.hear(open), Heard::Answer(packet("40")));
        assert_eq!(SocketIo.hear(br#"40{"sid":"y"}"#), Heard::Welcome);
        assert_eq!(SocketIo.hear(b"430[]"), JOINED);
        assert_eq!(SocketIo.hear(b"2"), Heard::Answer(packet("3")));
        assert_eq!(SocketIo.hear(br#"42["other"]"#), Heard::Nothing);
        assert!(matches!(SocketIo.hear(b"44{}"), Heard::Refused(_)));
    }
}
