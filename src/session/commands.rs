//! Carrying out what the state machine has let through.

use crate::broker::PublishRequest;
use crate::broker::publication::Publication;
use crate::protocol::close::CloseReason;
use crate::protocol::command::{Connect, Publish, Subscribe};
use crate::protocol::error::{ErrorCode, WireError};
use crate::protocol::event::{Error, Event, Member, Ok};
use crate::protocol::ids::{SessionId, Topic};

use super::Session;
use super::state::{Now, Request};

impl Session {
    pub(super) fn carry_out(&mut self, id: Option<u64>, request: Request, now: Now) {
        let desk = self.desk.clone();
        match request {
            Request::Open(connect) => self.open(id, connect),
            Request::Subscribe(topic, subscribe) => self.subscribe(id, topic, subscribe),
            Request::Unsubscribe(topic, presence) => {
                self.unjoin(&topic, presence);
                self.ok(Ok {
                    id,
                    ..Ok::default()
                });
            }
            Request::Publish(topic, publish) => self.publish(id, topic, *publish, now),
            Request::Ack(inbox, position) => self.work(desk.ack(id, inbox, position)),
            Request::History(topic, history) => self.work_alone(desk.history(id, topic, history)),
            Request::Presence(topic, after, limit) => {
                match after.as_deref().map(str::parse::<SessionId>).transpose() {
                    Result::Ok(after) => self.work_alone(desk.presence(id, topic, after, limit)),
                    Err(_) => {
                        let error = WireError::bad_request("`after` is no session id");
                        self.reply(&Error::answer(id, error));
                    }
                }
            }
            Request::Refreshed(lost, expires) => {
                for (topic, presence) in lost {
                    self.unjoin(&topic, presence);
                    self.reply(&Event::Unsubscribed {
                        topic,
                        code: ErrorCode::Forbidden,
                        message: "the new token does not permit this topic".into(),
                    });
                }
                self.ok(Ok {
                    id,
                    expires: Some(expires),
                    ..Ok::default()
                });
                self.schedule(now);
            }
            Request::Ping => self.ok(Ok {
                id,
                ..Ok::default()
            }),
        }
    }

    /// Answers with an `ok`, if the command had an id.
    pub(super) fn ok(&self, ok: Ok) {
        if ok.id.is_some() {
            self.reply(&Event::Ok(ok));
        }
    }

    /// Opens a session whose handshake said all that is needed.
    pub(super) fn open_unasked(&mut self, now: Now) {
        self.machine.opening(now);
        self.open(None, Connect::default());
    }

    fn open(&mut self, id: Option<u64>, connect: Connect) {
        let registry = &self.desk.services.registry;
        let everyone = Topic::everyone(self.machine.app());
        let inbox = self.machine.inbox();
        let most = self.desk.services.config.session.per_user_max as u64;
        if let Some(inbox) = &inbox {
            if !registry.join(inbox, most) {
                let text = format!("a user has at most {most} sessions");
                let error = WireError::new(ErrorCode::LimitExceeded, text);
                self.reply(&Error::answer(id, error));
                return self.end(CloseReason::TooManySessions);
            }
            self.counted.push(inbox.clone());
        }
        if registry.join(&everyone, u64::MAX) {
            self.counted.push(everyone.clone());
        }
        let mut topics = Vec::new();
        for (name, _) in &connect.positions {
            if *name == everyone.name() || inbox.as_ref().is_some_and(|i| i.name() == name) {
                continue;
            }
            topics.push((name.clone(), self.resumable(name)));
        }
        let work = self.desk.clone().open(id, inbox, connect, topics);
        self.work(work);
    }

    /// Whether a topic of `connect.positions` may be joined; if so it is.
    fn resumable(&mut self, name: &str) -> Result<Topic, WireError> {
        let topic = Topic::new(self.machine.app(), name)?;
        self.machine.may_subscribe(&topic, false, false)?;
        self.joined(&topic, false);
        Result::Ok(topic)
    }

    fn joined(&mut self, topic: &Topic, presence: bool) {
        self.machine.join(topic, presence, false);
        if self.desk.services.registry.join(topic, u64::MAX) {
            self.counted.push(topic.clone());
        }
    }

    fn subscribe(&mut self, id: Option<u64>, topic: Topic, subscribe: Subscribe) {
        if self.desk.services.registry.join(&topic, u64::MAX) {
            self.counted.push(topic.clone());
        }
        let stay = self.machine.stay(&topic).unwrap_or_default();
        let member = subscribe.presence.then(|| self.member());
        let is_member = member.is_some();
        let desk = self.desk.clone();
        let work = desk.subscribe(id, topic, stay, subscribe, member);
        if is_member {
            // A snapshot that is asked for next must see this membership and its changes, and a
            // leave must find it.
            self.work_alone(work);
        } else {
            self.work(work);
        }
    }

    fn member(&self) -> Member {
        let identity = self.machine.identity();
        Member {
            user: identity.user.as_ref().map(|u| u.as_str().to_owned()),
            session: self.desk.session,
            info: identity.claims.as_ref().and_then(|c| c.info.clone()),
        }
    }

    /// Leaves a topic that the state machine has forgotten already.
    pub(super) fn unjoin(&mut self, topic: &Topic, presence: bool) {
        let worker = &self.desk.worker;
        worker.leave(self.desk.key, topic);
        if presence {
            worker.leave(self.desk.key, &topic.presence());
            let presence = &self.desk.services.presence;
            presence.leave(topic.clone(), self.desk.session);
        }
        if let Some(at) = self.counted.iter().position(|t| t == topic) {
            self.counted.swap_remove(at);
            self.desk.services.registry.leave(topic);
        }
    }

    fn publish(&mut self, id: Option<u64>, topic: Topic, publish: Publish, now: Now) {
        let config = &self.desk.services.config;
        let namespace = config.namespace(&topic);
        let user = self
            .machine
            .identity()
            .user
            .as_ref()
            .map(|u| u.as_str().to_owned());
        let publisher = match &user {
            Some(user) => format!("u:{user}"),
            None => format!("s:{}", self.desk.session),
        };
        let remembered_ms = u64::try_from(config.session.idempotency.as_millis());
        let request = PublishRequest {
            retention: namespace.retention(),
            replicas: namespace.replicas(),
            idempotency: publish.idempotency_key.map(|key| {
                (
                    format!("{publisher}:{key}"),
                    remembered_ms.unwrap_or(u64::MAX),
                )
            }),
            publication: Publication {
                data: publish.data,
                user,
                priority: publish.priority.unwrap_or(namespace.priority),
                key: publish.key,
                conflate: publish.conflate.unwrap_or(namespace.conflate),
                removed: false,
                time_ms: now.unix_ms,
                ttl_ms: publish.ttl_ms,
                exclude: (!publish.echo).then_some(self.desk.session),
            },
            topic,
        };
        let work = self.desk.clone().publish(id, request);
        self.work(work);
    }
}
