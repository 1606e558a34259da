//! Authorizers and a session: what is asked, and what comes of the answer.
//!
//! In: what the rules permit already. Out: an enquiry for an authorizer, and with its answer what is carried
//! out. Authorizers narrow: an answer takes away, and only that to `connect` may say who a session without a
//! token is. `connect` and `refresh` are parked as [`super::checking`] parks a command; a joining and a
//! publication are asked about in their own work, and nothing more is read until that is done. So the order of
//! a session's commands stays. Bounds: one parked command; of the topics of `connect`, [`TOPICS_AT_ONCE`]
//! enquiries at once, all in half of `auth.timeout_ms`.

use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::Session;
use super::broker_calls::{BrokerCalls, Completion};
use super::clock::Due;
use super::joining::Joined;
use super::parked::Asked;
use super::state::{Asking, Identity, Machine, Now, Refusal, Request};
use crate::auth::Claims;
use crate::authorizer::Verdict;
use crate::authorizer::answer::Granted;
use crate::authorizer::enquiry::{Asker, Enquiry};
use crate::broker::PublishRequest;
use crate::policy::identity;
use crate::telemetry::labels::CommandType;
use fanfare_protocol::close::CloseReason;
use fanfare_protocol::command::Connect;
use fanfare_protocol::error::{ErrorCode, WireError};
use fanfare_protocol::event::Member;
use fanfare_protocol::ids::{Topic, User};

/// Enquiries about the topics of one `connect` at once.
const TOPICS_AT_ONCE: usize = 8;

/// Until when an authorizer lets a session stay in a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Authorized {
    /// In unix seconds.
    pub(super) until: u64,
    /// The client was told that it ends.
    pub(super) is_told: bool,
}

impl Machine {
    /// Goes on with a command whose authorizer was asked. `read_ms` is when it was read, in unix milliseconds:
    /// what is revoked after that concerns whoever is let in by it.
    ///
    /// # Errors
    /// As [`Self::command`].
    pub fn answered(
        &mut self,
        asking: Asking,
        verdict: Verdict,
        (read_ms, now): (u64, Now),
    ) -> Result<Request, Refusal> {
        match asking {
            Asking::Connect(connect, claims) => {
                let granted = verdict.map_err(not_let_in)?;
                self.let_in(connect, claims, granted, (read_ms, now))
            }
            Asking::Refresh(claims) => {
                let granted = verdict.map_err(Refusal::from)?;
                Ok(self.renew(narrowed(claims, granted)))
            }
        }
    }

    fn let_in(
        &mut self,
        connect: Connect,
        claims: Option<Claims>,
        granted: Granted,
        (read_ms, now): (u64, Now),
    ) -> Result<Request, Refusal> {
        let known = self.identity.user.clone();
        // What the app sets may have changed meanwhile. Without an authorizer nobody says who comes.
        let granted = match self.settings.auth.authorize_connect {
            Some(_) => granted,
            None => Granted {
                user: None,
                ..granted
            },
        };
        let identity = match (claims, known.or_else(|| granted.user.clone())) {
            (Some(claims), _) => Identity {
                user: Some(claims.user.clone()),
                claims: Some(narrowed(claims, granted)),
            },
            (None, Some(user)) => Identity {
                claims: Some(self.made(&user, granted, read_ms / 1_000)),
                user: Some(user),
            },
            (None, None) => {
                let anonymous = self.settings.auth.anonymous;
                identity::may_open(self.holder(), None, anonymous)
                    .map_err(super::state::not_opened)?;
                Identity::default()
            }
        };
        Ok(self.opens(identity, connect, now))
    }

    /// The claims of a session that came without any.
    fn made(&self, user: &User, granted: Granted, issued: u64) -> Claims {
        let latest = issued.saturating_add(self.settings.auth.token_life_max.as_secs());
        // Who was known before has its rights by that, and they are only narrowed.
        let is_new = self.identity.user.is_none();
        let can = granted.can.map(|can| match is_new {
            true => can,
            false => can.narrowing(),
        });
        Claims {
            app: self.app().clone(),
            user: user.clone(),
            expires: granted.expires.unwrap_or(latest),
            issued,
            id: None,
            info: granted.info,
            can: can.map(Arc::new),
        }
    }

    /// The authorizer that is asked before the topic is joined.
    pub(super) fn asks_to_join(&self, topic: &Topic) -> Option<Box<str>> {
        let name = self.namespace(topic).authorize_subscribe.as_ref()?;
        Some(name.as_str().into())
    }

    /// The same before something is published there.
    pub(super) fn asks_to_publish(&self, topic: &Topic) -> Option<Box<str>> {
        let name = self.namespace(topic).authorize_publish.as_ref()?;
        Some(name.as_str().into())
    }

    /// An authorizer lets the session stay in the topic until then.
    pub(super) fn authorized(&mut self, topic: &Topic, until: u64) {
        if let Some(joined) = self.joined.iter_mut().find(|j| j.topic == *topic) {
            joined.authorized = Some(Authorized {
                until,
                is_told: false,
            });
        }
    }

    /// What authorizers let it stay in: told before it ends, as tokens for topics are.
    pub(super) fn authorizations_due(&mut self, now: Now, due: &mut Vec<Due>) {
        let mut ended = Vec::new();
        for at in 0..self.joined.len() {
            let Some(authorized) = self.joined[at].authorized else {
                continue;
            };
            let topic = self.joined[at].topic.clone();
            if now.unix_ms >= self.expired_at_ms(authorized.until) {
                ended.push(topic);
            } else if !authorized.is_told && now.unix_ms >= self.expiring_at_ms(authorized.until) {
                self.joined[at].authorized = Some(Authorized {
                    is_told: true,
                    ..authorized
                });
                due.push(Due::Expiring(Some(topic), authorized.until));
            }
        }
        for topic in ended {
            if let Some(was_member) = self.leave(&topic) {
                due.push(Due::Unauthorized(topic, was_member));
            }
        }
    }

    /// When those end, and whether that was told.
    pub(super) fn authorizations(&self) -> impl Iterator<Item = (u64, bool)> {
        let authorized = self.joined.iter().filter_map(|j: &Joined| j.authorized);
        authorized.map(|one| (one.until, one.is_told))
    }
}

/// What a token says, and no more than its authorizer grants.
fn narrowed(claims: Claims, granted: Granted) -> Claims {
    let can = match (claims.can, granted.can) {
        (Some(own), Some(by)) => Some(Arc::new(own.narrowed(by))),
        (None, Some(by)) => Some(Arc::new(by.narrowing())),
        (own, None) => own,
    };
    let expires = granted.expires.unwrap_or(u64::MAX);
    Claims {
        expires: claims.expires.min(expires),
        info: granted.info.or(claims.info),
        can,
        ..claims
    }
}

/// A session that may not be ends: with `forbidden` it should not come back as it is.
fn not_let_in(error: WireError) -> Refusal {
    let end = match error.code {
        ErrorCode::Forbidden => CloseReason::Unauthorized,
        _ => CloseReason::Unavailable,
    };
    Refusal {
        error,
        end: Some(end),
    }
}

impl Session {
    /// Parks a command until the authorizer of sessions has answered.
    pub(super) fn ask(&mut self, id: Option<u64>, asking: Asking, read: Now) {
        self.alone = true;
        let services = Arc::clone(&self.calls.services);
        let claims = match &asking {
            Asking::Connect(_, claims) => claims.as_ref(),
            Asking::Refresh(claims) => Some(claims),
        };
        let user = claims.map(|claims| &claims.user);
        let user = user.or(self.machine.identity().user.as_ref());
        let life_max = self.machine.settings.auth.token_life_max;
        let asker = Asker::new(self.machine.app(), user, self.calls.session, life_max);
        let enquiry = Enquiry::connect(asker, matches!(asking, Asking::Refresh(_)));
        let disconnects = self.calls.worker.disconnects();
        let name = self.machine.settings.auth.authorize_connect.clone();
        self.work(async move {
            let name = name.unwrap_or_default();
            let verdict = services.authorizers.ask(&name, enquiry);
            let asked = Asked {
                id,
                verdict: verdict.await,
                asking,
                disconnects,
                read,
            };
            Completion::Alone(Box::new(Completion::Authorized(Box::new(asked))))
        });
    }

    /// The authorizer of a parked command has answered.
    pub(super) fn authorized(&mut self, asked: Asked) {
        let kind = match asked.asking {
            Asking::Connect(..) => CommandType::Connect,
            Asking::Refresh(_) => CommandType::Refresh,
        };
        let now = Now::read();
        let was_read = asked.read.unix_ms;
        let judged = self
            .machine
            .answered(asked.asking, asked.verdict, (was_read, now));
        // Its time counts from when it was read; deadlines are of now.
        let read = Now {
            instant: asked.read.instant,
            unix_ms: now.unix_ms,
        };
        self.judged(kind, asked.id, judged, read);
        if kind == CommandType::Connect {
            // The user's sessions may have been sent away while it was asked.
            self.end_if_disconnected(asked.disconnects);
        }
    }

    /// Asks about a session whose handshake said all that is needed. Who sends the user's sessions away finds
    /// this one meanwhile.
    pub(super) fn ask_unasked(&mut self, now: Now) {
        if let Err(refusal) = self.machine.judge_known() {
            return self.refuse(None, refusal);
        }
        self.hold_inbox();
        let claims = self.machine.identity().claims.clone();
        self.ask(None, Asking::Connect(Connect::default(), claims), now);
    }
}

impl BrokerCalls {
    /// Asks whether the session may join a topic. `None`: nobody is to be asked. Returns when that ends.
    pub(super) async fn may_join(
        &self,
        asks: Option<Box<str>>,
        topic: &Topic,
        (user, presence): (Option<&str>, bool),
    ) -> Result<Option<u64>, WireError> {
        let Some(name) = asks else {
            return Ok(None);
        };
        let asker = self.asker(topic, user);
        let enquiry = Enquiry::subscribe(asker, topic, presence);
        let granted = Box::pin(self.services.authorizers.ask(&name, enquiry)).await?;
        Ok(granted.expires)
    }

    /// The same for a topic of `connect`, of which only so many are asked about at once.
    pub(super) async fn may_begin_with(
        &self,
        asks: Option<Box<str>>,
        topic: &Topic,
        (member, presence): (&Member, bool),
        (places, until): (&Semaphore, Instant),
    ) -> Result<Option<u64>, WireError> {
        if asks.is_none() {
            return Ok(None);
        }
        let asked = async {
            let _place = places.acquire().await;
            let user = member.user.as_deref();
            self.may_join(asks, topic, (user, presence)).await
        };
        let in_time = tokio::time::timeout_at(until, asked).await;
        in_time.unwrap_or_else(|_| {
            let text = "the authorizer of this topic was not asked in time; try again";
            Err(WireError {
                retry_after_ms: Some(1_000),
                ..WireError::unavailable(text)
            })
        })
    }

    /// Places and time for the enquiries about the topics of one `connect`.
    pub(super) fn places(&self) -> (Semaphore, Instant) {
        let patience = self.services.config.auth.timeout / 2;
        (Semaphore::new(TOPICS_AT_ONCE), Instant::now() + patience)
    }

    /// Asks whether this may be published, and takes what is to be published instead.
    /// `None`: nobody is to be asked.
    pub(super) async fn may_publish(
        &self,
        asks: Option<Box<str>>,
        request: &mut PublishRequest,
    ) -> Result<(), WireError> {
        let Some(name) = asks else {
            return Ok(());
        };
        let before = self.services.apps.of_topic(&request.topic);
        let publication = &mut request.publication;
        let asker = self.asker(&request.topic, publication.user.as_deref());
        let body = (&publication.data, publication.key.as_deref());
        let enquiry = Enquiry::publish(asker, &request.topic, body, request.trace);
        let granted = Box::pin(self.services.authorizers.ask(&name, enquiry)).await?;
        let after = self.services.apps.of_topic(&request.topic);
        let (before, after) = (
            before.namespace(&request.topic),
            after.namespace(&request.topic),
        );
        if before != after {
            let text =
                "the settings of the topic changed while its authorizer was asked; try again";
            return Err(WireError::unavailable(text));
        }
        if let Some(data) = granted.data {
            publication.data = data;
        }
        publication.key = granted.key.or(publication.key.take());
        // Its time is when it is published, and not when it was asked for.
        publication.time_ms = Now::read().unix_ms;
        Ok(())
    }

    fn asker<'a>(&self, topic: &'a Topic, user: Option<&'a str>) -> Asker<'a> {
        Asker {
            app: topic.app(),
            user,
            session: self.session,
            life_max: self.services.apps.of_topic(topic).auth.token_life_max,
        }
    }
}

#[cfg(test)]
mod tests;
