//! Messages between nodes on the cluster's control channel: versioned JSON, one object each.
//!
//! In: the API, which asks every node for something (`Broker::control`). Out: the dispatcher,
//! which reads what the feed brings (`FeedEvent::Control`). Nothing is kept here. The channel is
//! at most once: a message is a request to act now, never the only record of a fact. Whoever can
//! write to the channel is a node or has its password in Redis; nothing else proves a sender.
//!
//! Nodes of two releases run side by side during an update. So a release goes on writing each kind
//! as those before it read it: a field may be added, which older nodes skip. What they would get
//! wrong has a new kind or a higher `v`, which they skip as a whole and count as `control_ignored`.
//! `tests/recorded/control_v1.jsonl` holds the bytes that nodes of version 1 write.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use fanfare_protocol::close::CloseReason;
use fanfare_protocol::ids::{App, NodeId, Owner, SessionId, User};

/// The highest version that this release reads; all that it writes is in this one.
const VERSION: u32 = 1;

/// One message with its sender.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlMessage {
    /// Which life of which node sent it; it receives its own messages too.
    pub from: Owner,
    /// What it asks.
    pub request: Request,
}

/// What a node can ask of all nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// End sessions of a user.
    Disconnect {
        /// In which app.
        app: App,
        /// Whose.
        user: User,
        /// Only this session; `None`: all of the user's.
        session: Option<SessionId>,
        /// The reason they end with. It travels as its close code.
        reason: CloseReason,
    },
    /// Leave in order.
    Drain {
        /// Which node.
        node: NodeId,
    },
    /// Tokens were revoked: read which.
    Revoked,
    /// An app was set or removed: read which. Nodes of the release before skip it and look by themselves.
    AppsSet,
}

/// Why a message is ignored.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Written by another release.
    #[error("control message of version {0}, this node reads {VERSION}")]
    Version(u32),
    /// A request that this release does not know, or a field that no node would have written.
    #[error("control message that cannot be read")]
    Unreadable(#[source] serde_json::Error),
    /// A name in it is not valid.
    #[error("control message with an invalid name")]
    Name(#[from] fanfare_protocol::ids::NameError),
    /// A close code that this release does not know.
    #[error("control message with the unknown close code {0}")]
    Code(u16),
}

/// What is read first, whatever the rest looks like.
#[derive(Deserialize)]
struct Versioned {
    v: u32,
}

#[derive(Serialize, Deserialize)]
struct Encoding {
    v: u32,
    from: String,
    #[serde(flatten)]
    request: WireRequest,
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum WireRequest {
    Disconnect {
        app: String,
        user: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        session: Option<SessionId>,
        code: u16,
    },
    Drain {
        node: String,
    },
    Revoked,
    AppsSet,
}

/// Writes a message for the control channel.
#[must_use]
pub fn encode(message: &ControlMessage) -> Bytes {
    let request = match &message.request {
        Request::Disconnect {
            app,
            user,
            session,
            reason,
        } => WireRequest::Disconnect {
            app: app.to_string(),
            user: user.to_string(),
            session: *session,
            // `Lost` alone has no code. It cannot be asked for: every reader refuses a 0.
            code: reason.code().unwrap_or(0),
        },
        Request::Drain { node } => WireRequest::Drain {
            node: node.to_string(),
        },
        Request::Revoked => WireRequest::Revoked,
        Request::AppsSet => WireRequest::AppsSet,
    };
    let wire = Encoding {
        v: VERSION,
        from: message.from.to_string(),
        request,
    };
    serde_json::to_vec(&wire)
        .expect("text, numbers and string keys always serialize")
        .into()
}

/// Reads a message from the control channel.
///
/// # Errors
/// [`ControlError`] for what this release does not understand; the caller ignores and counts it.
pub fn decode(bytes: &[u8]) -> Result<ControlMessage, ControlError> {
    let Versioned { v } = serde_json::from_slice(bytes).map_err(ControlError::Unreadable)?;
    if !(1..=VERSION).contains(&v) {
        return Err(ControlError::Version(v));
    }
    let wire: Encoding = serde_json::from_slice(bytes).map_err(ControlError::Unreadable)?;
    let request = match wire.request {
        WireRequest::Disconnect {
            app,
            user,
            session,
            code,
        } => Request::Disconnect {
            app: App::new(&app)?,
            user: User::new(&user)?,
            session,
            reason: CloseReason::ALL
                .into_iter()
                .find(|reason| reason.code() == Some(code))
                .ok_or(ControlError::Code(code))?,
        },
        WireRequest::Drain { node } => Request::Drain {
            node: NodeId::new(&node)?,
        },
        WireRequest::Revoked => Request::Revoked,
        WireRequest::AppsSet => Request::AppsSet,
    };
    Ok(ControlMessage {
        from: wire.from.parse()?,
        request,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disconnect(session: Option<SessionId>) -> ControlMessage {
        ControlMessage {
            from: "node-1~1732190000000000".parse().unwrap(),
            request: Request::Disconnect {
                app: App::default_app(),
                user: User::new("auth0|x").unwrap(),
                session,
                reason: CloseReason::Disconnected,
            },
        }
    }

    #[test]
    fn a_message_is_read_as_it_was_written() {
        for session in [None, Some(SessionId::random())] {
            let message = disconnect(session);
            assert_eq!(decode(&encode(&message)).unwrap(), message);
        }
    }

    #[test]
    fn the_wire_form_is_the_one_that_other_releases_read() {
        let text = r#"{"v":1,"from":"node-1~1732190000000000","kind":"disconnect","app":"default","user":"auth0|x","code":4002}"#;
        assert_eq!(encode(&disconnect(None)), text.as_bytes());
    }

    #[test]
    fn the_order_to_leave_names_one_node() {
        let message = ControlMessage {
            from: "node-1~5".parse().unwrap(),
            request: Request::Drain {
                node: NodeId::new("node-2").unwrap(),
            },
        };
        let text = r#"{"v":1,"from":"node-1~5","kind":"drain","node":"node-2"}"#;
        assert_eq!(encode(&message), text.as_bytes());
        assert_eq!(decode(text.as_bytes()).unwrap(), message);
    }

    /// What a test fails on here, running nodes of other releases fail on: write a new kind or
    /// version instead, and keep these lines.
    #[test]
    fn the_recorded_messages_are_read_and_still_written_byte_for_byte() {
        let ada = Request::Disconnect {
            app: App::default_app(),
            user: User::new("ada").unwrap(),
            session: Some("0123456789abcdef0123456789abcdef".parse().unwrap()),
            reason: CloseReason::TooManySessions,
        };
        let node = NodeId::new("node-2").unwrap();
        let drain = Request::Drain { node };
        let requests = [
            disconnect(None).request,
            ada,
            drain,
            Request::Revoked,
            Request::AppsSet,
        ];
        let recorded = include_str!("../../tests/recorded/control_v1.jsonl");
        assert_eq!(recorded.lines().count(), requests.len());
        for (line, request) in recorded.lines().zip(requests) {
            let from = disconnect(None).from;
            let message = ControlMessage { from, request };
            assert_eq!(decode(line.as_bytes()).unwrap(), message);
            assert_eq!(encode(&message), line.as_bytes());
        }
    }

    #[test]
    fn a_field_that_a_newer_release_added_is_no_hindrance() {
        let text = r#"{"v":1,"from":"n~1","kind":"disconnect","app":"default","user":"a","code":4002,"why":"x"}"#;
        assert!(decode(text.as_bytes()).is_ok());
    }

    #[test]
    fn what_is_not_understood_is_refused_with_the_cause() {
        let of = |text: &str| decode(text.as_bytes()).unwrap_err();
        assert!(matches!(of(r#"{"v":2,"x":[]}"#), ControlError::Version(2)));
        let unknown_kind = r#"{"v":1,"from":"n~1","kind":"dance"}"#;
        assert!(matches!(of(unknown_kind), ControlError::Unreadable(_)));
        assert!(matches!(of("hello"), ControlError::Unreadable(_)));
        let bad_user =
            r#"{"v":1,"from":"n~1","kind":"disconnect","app":"default","user":"{}","code":4002}"#;
        assert!(matches!(of(bad_user), ControlError::Name(_)));
        let bad_code =
            r#"{"v":1,"from":"n~1","kind":"disconnect","app":"default","user":"a","code":4999}"#;
        assert!(matches!(of(bad_code), ControlError::Code(4999)));
    }
}
