//! Pusher Channels, protocol 7: public channels, and publishing through the signed HTTP API.
//!
//! In: the credentials of an app. Out: frames, and calls signed as the API asks.

use hmac::{Hmac, Mac};
use md5::{Digest, Md5};
use serde_json::{Value, json};
use sha2::Sha256;

use super::{Call, Destination, Heard, Identity, JOINED, Upgrade, Wire, words};
use crate::frames;

/// The credentials of an app.
#[derive(Debug, Clone, clap::Args)]
pub struct AppArgs {
    /// Pusher: id of the app
    #[arg(long, default_value = "app-id", value_name = "ID")]
    app_id: String,
    /// Pusher: key of the app
    #[arg(long, default_value = "app-key", value_name = "KEY")]
    app_key: String,
    /// Pusher: secret of the app
    #[arg(long, default_value = "app-secret", value_name = "SECRET")]
    app_secret: String,
}

/// Speaks protocol 7.
#[derive(Debug)]
pub struct Pusher {
    /// As which app.
    pub app: AppArgs,
}

impl AppArgs {
    /// The query that the API asks for: sorted, and signed with the secret.
    fn signed_query(&self, path: &str, body: &str, unix_s: u64) -> String {
        let body_md5 = hex(&Md5::digest(body));
        let query = format!(
            "auth_key={}&auth_timestamp={unix_s}&auth_version=1.0&body_md5={body_md5}",
            self.app_key
        );
        let mut mac = Hmac::<Sha256>::new_from_slice(self.app_secret.as_bytes())
            .expect("a key of any length is taken");
        mac.update(format!("POST\n{path}\n{query}").as_bytes());
        let signature = hex(&mac.finalize().into_bytes());
        format!("{query}&auth_signature={signature}")
    }
}

impl Wire for Pusher {
    fn upgrade(&self, _identity: &Identity) -> Upgrade {
        Upgrade {
            path: format!(
                "/app/{}?protocol=7&client=fanfare-bench&version=1",
                self.app.app_key
            ),
            headers: String::new(),
        }
    }

    fn hello(&self, _identity: &Identity) -> Option<Vec<u8>> {
        None
    }

    fn subscribe(&self, topic: &str, _since: Option<&str>) -> Vec<u8> {
        let command = json!({"event": "pusher:subscribe", "data": {"channel": topic}});
        frames::masked(frames::TEXT, command.to_string().as_bytes())
    }

    fn hear(&self, payload: &[u8]) -> Heard {
        let event: Value = serde_json::from_slice(payload).unwrap_or_default();
        match event["event"].as_str() {
            Some("pusher:connection_established") => Heard::Welcome,
            Some("pusher_internal:subscription_succeeded") => JOINED,
            Some("pusher:ping") => {
                let pong = br#"{"event":"pusher:pong","data":{}}"#;
                Heard::Answer(frames::masked(frames::TEXT, pong))
            }
            Some("pusher:error" | "pusher:subscription_error") => Heard::Refused(words(payload)),
            _ => Heard::Nothing,
        }
    }

    fn publish(&self, to: Destination<'_>, data: &str, _key: &str) -> Call {
        let channels = match to {
            Destination::Topic(topic) => vec![topic.to_owned()],
            Destination::Users(users) => {
                let channel = |user: &String| format!("#server-to-user-{user}");
                users.iter().map(channel).collect()
            }
        };
        let body = json!({"name": "message", "channels": channels, "data": data}).to_string();
        let path = format!("/apps/{}/events", self.app.app_id);
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap_or_default();
        let query = self.app.signed_query(&path, &body, now.as_secs());
        Call {
            path: format!("{path}?{query}"),
            header: None,
            body,
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_signed_as_in_the_example_of_pushers_documentation() {
        let app = AppArgs {
            app_id: "3".to_owned(),
            app_key: "278d425bdf160c739803".to_owned(),
            app_secret: "7ad3773142a6692b25b8".to_owned(),
        };
        let body = r#"{"name":"foo","channels":["project-3"],"data":"{\"some\":\"data\"}"}"#;
        let query = app.signed_query("/apps/3/events", body, 1_353_088_179);
        assert_eq!(
            query,
            "auth_key=278d425bdf160c739803&auth_timestamp=1353088179&auth_version=1.0\
             &body_md5=ec365a775a4cd0599faeb73354201b6f\
             &auth_signature=da454824c97ba181a32ccc17a72625ba02771f50b50e1e7430e47a1f3f457e6c"
        );
    }

    #[test]
    fn a_ping_is_answered() {
        let wire = Pusher {
            app: AppArgs {
                app_id: String::new(),
                app_key: String::new(),
                app_secret: String::new(),
            },
        };
        let heard = wire.hear(br#"{"event":"pusher:ping","data":{}}"#);
        assert!(matches!(heard, Heard::Answer(_)));
    }
}
