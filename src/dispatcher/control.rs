//! What the dispatcher does with the cluster's control messages.
//!
//! In: messages of the feed. Out: word to every worker, to this node's end, or to who reads
//! revocations. Owns nothing. What it does not know it counts and leaves.

use super::Dispatcher;
use crate::cluster::control::{self, ControlMessage, Request};
use crate::worker::handle::Inbound;
use fanfare_protocol::ids::Topic;

impl Dispatcher {
    pub(super) fn control(&mut self, message: &[u8]) {
        match control::decode(message) {
            Ok(ControlMessage {
                request:
                    Request::Disconnect {
                        app,
                        user,
                        session,
                        reason,
                    },
                ..
            }) => {
                let inbox = Topic::inbox(&app, &user);
                self.workers.broadcast(|| Inbound::Disconnect {
                    inbox: inbox.clone(),
                    session,
                    reason,
                });
            }
            Ok(ControlMessage {
                from,
                request: Request::Drain { node },
            }) => {
                if node == self.config.server.node_id {
                    tracing::info!(event = "drain_asked", %from, "this node was asked to leave");
                    self.leave.notify_one();
                }
            }
            Ok(ControlMessage {
                request: Request::Revoked,
                ..
            }) => self.revocations.hear(),
            Ok(ControlMessage {
                request: Request::AppsSet,
                ..
            }) => self.apps.ring(),
            Err(error) => {
                self.metrics.control.control_ignored.add(1);
                tracing::debug!(
                    event = "control_ignored",
                    error = &error as &(dyn std::error::Error + 'static),
                    "a control message was ignored"
                );
            }
        }
    }
}
