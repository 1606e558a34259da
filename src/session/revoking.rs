//! What becomes of a session whose tokens are revoked.
//!
//! In: that something was revoked which may concern it, or that it got a token. Out: its end (4002), or
//! the topics that it leaves (`unsubscribed`). A token is judged when it is used and again when it
//! has been taken, since what was revoked between the two was told to those who had taken theirs.
//! Pure in [`Machine`]; a session without a token cannot be revoked.

use crate::revocation::news::Marks;
use crate::revocation::table::Bearer;
use fanfare_protocol::close::CloseReason;
use fanfare_protocol::error::ErrorCode;
use fanfare_protocol::ids::Topic;

use super::Session;
use super::clock::Due;
use super::joining::TopicToken;
use super::state::Machine;

impl Machine {
    /// By what it is found where tokens are revoked or its app changes.
    fn marks(&self) -> Marks {
        let Some(claims) = &self.identity.claims else {
            return Marks::of_app(self.app());
        };
        let of_topics = self
            .joined
            .iter()
            .filter_map(|joined| joined.token.as_ref());
        let of_topics = of_topics.filter_map(|token| token.id.as_deref());
        Marks::new(&claims.app, &claims.user, claims.id.as_deref(), of_topics)
    }

    /// Whether the session's own token is revoked.
    pub(super) fn is_revoked(&self) -> bool {
        let claims = self.identity.claims.as_ref();
        claims.is_some_and(|claims| self.verifier.revocations().refuses(claims.bearer()))
    }

    /// Takes the revoked tokens for topics away. Returns the topics that are left by that, and those
    /// with which the session may be caught up less far.
    pub(super) fn end_revoked_topic_tokens(&mut self) -> Vec<Due> {
        let by_token = self.joined.iter().filter_map(|joined| {
            let token = joined.token.as_ref()?;
            Some((&joined.topic, token))
        });
        let Some(user) = &self.identity.user else {
            return Vec::new();
        };
        let revocations = self.verifier.revocations();
        let is_revoked = |token: &TopicToken| {
            revocations.refuses(Bearer {
                app: self.app(),
                user,
                id: token.id.as_deref(),
                issued: token.issued,
            })
        };
        let ended = by_token.filter(|(_, token)| is_revoked(token));
        let ended: Vec<Topic> = ended.map(|(topic, _)| topic.clone()).collect();
        let mut due = Vec::new();
        for topic in ended {
            due.extend(self.end_topic_token(topic));
        }
        due
    }
}

impl Session {
    /// The session has a token, or another one: from now on it is found by it.
    pub(super) fn mind_tokens(&mut self) {
        self.calls.worker.mark(self.calls.key, self.machine.marks());
        self.obey_revocations();
    }

    /// Ends what was revoked.
    pub(super) fn obey_revocations(&mut self) {
        if self.machine.is_revoked() {
            self.machine
                .verifier
                .revocations()
                .metrics()
                .sessions
                .add(1);
            let session = self.calls.session;
            tracing::debug!(event = "session_revoked", %session, "the token of a session was revoked");
            return self.end(CloseReason::Disconnected);
        }
        let ended = self.machine.end_revoked_topic_tokens();
        if ended.is_empty() {
            return;
        }
        for due in ended {
            match due {
                Due::Left(topic, was_member) => {
                    self.machine.verifier.revocations().metrics().topics.add(1);
                    let text = "the token for this topic was revoked";
                    self.unsubscribe(topic, was_member, ErrorCode::Forbidden, text);
                }
                Due::Limited(topic) => self.calls.worker.limit(self.calls.key, &topic, true),
                _ => {}
            }
        }
        self.calls.worker.mark(self.calls.key, self.machine.marks());
    }
}
