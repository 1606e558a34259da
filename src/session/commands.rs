//! Carrying out what the state machine has let through.

use crate::broker::PublishRequest;
use crate::broker::idempotency::Publisher;
use crate::broker::publication::Publication;
use crate::tasks::running::Stopwatch;
use crate::telemetry::labels::CommandType;
use fanfare_protocol::close::CloseReason;
use fanfare_protocol::command::{Connect, Publish};
use fanfare_protocol::error::{ErrorCode, WireError};
use fanfare_protocol::event::{Event, Member, Ok};
use fanfare_protocol::ids::{SessionId, Topic};

use super::joining::{Amendment, Joining};
use super::opening::Opening;
use super::state::{Now, Refusal, Request};
use super::{Read, Session};

/// Bytes that are kept of the name of a device.
const DEVICE_BYTES_MAX: usize = 64;

impl Session {
    pub(super) fn carry_out(&mut self, id: Option<u64>, request: Request, now: Now) {
        let calls = self.calls.clone();
        let read = |kind| Read {
            kind,
            watch: Stopwatch::begun(now.instant),
        };
        match request {
            Request::Open(connect) => {
                if let Some(opening) = self.open(id, connect, now) {
                    self.work_on(read(CommandType::Connect), calls.open(opening));
                }
            }
            Request::Subscribe(joining) => {
                self.subscribe(id, joining, now, read(CommandType::Subscribe));
            }
            Request::Amend(amendment) => {
                self.amend(id, amendment, now, read(CommandType::Subscribe));
            }
            Request::Unsubscribe(topic, presence) => {
                self.unjoin(&topic, presence);
                self.ok(Ok {
                    id,
                    ..Ok::default()
                });
            }
            Request::Publish(topic, publish) => {
                self.publish(id, (topic, *publish), now, read(CommandType::Publish));
            }
            Request::Ack(inbox, position) => {
                self.work_on(read(CommandType::Ack), calls.ack(id, inbox, position));
            }
            Request::History(topic, history) => {
                let page = calls.history(id, topic, history);
                self.work_alone(read(CommandType::History), page);
            }
            Request::Presence(topic, after, limit) => {
                let read = read(CommandType::Presence);
                self.read_members(id, topic, (after, limit), read);
            }
            Request::Refreshed(expires) => {
                self.mind_tokens();
                self.renewed(id, expires, now);
            }
            // Parked before it comes here.
            Request::Check(_) | Request::Ask(_) => {}
            Request::Ping => self.ok(Ok {
                id,
                ..Ok::default()
            }),
        }
    }

    fn publish(&mut self, id: Option<u64>, what: (Topic, Publish), now: Now, read: Read) {
        let (topic, publish) = what;
        let asks = self.machine.asks_to_publish(&topic);
        let is_asked = asks.is_some();
        let request = self.publication(topic, publish, now);
        let work = self.calls.clone().publish(id, request, asks);
        match is_asked {
            // None may overtake it while it is asked about.
            true => self.work_alone(read, work),
            false => self.work_on(read, work),
        }
    }

    fn read_members(
        &mut self,
        id: Option<u64>,
        topic: Topic,
        (after, limit): (Option<String>, u32),
        read: Read,
    ) {
        match after.as_deref().map(str::parse::<SessionId>).transpose() {
            Result::Ok(after) => {
                let page = self.calls.clone().presence(id, topic, after, limit);
                self.work_alone(read, page);
            }
            Err(_) => {
                let error = WireError::bad_request("`after` is no session id");
                self.refuse(id, error.into());
            }
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
        if let Err(refusal) = self.machine.open_known(now) {
            return self.refuse(None, refusal);
        }
        if let Some(opening) = self.open(None, Connect::default(), now) {
            let read = Read {
                kind: CommandType::Connect,
                watch: Stopwatch::begin(),
            };
            self.work_on(read, self.calls.clone().open(opening));
        }
    }

    /// What opening waits for; `None` where the session may not open. Its token is minded either way.
    fn open(&mut self, id: Option<u64>, connect: Connect, now: Now) -> Option<Opening> {
        let opening = self.opening(id, connect, now);
        self.mind_tokens();
        opening
    }

    fn opening(&mut self, id: Option<u64>, mut connect: Connect, now: Now) -> Option<Opening> {
        let most = self.calls.services.config.session.per_user_max as u64;
        let inbox = self.machine.inbox();
        if let Some(inbox) = &inbox {
            if !self.count_in(inbox, most) {
                let text = format!("a user has at most {most} sessions");
                let refusal = Refusal {
                    error: WireError::new(ErrorCode::LimitExceeded, text),
                    end: Some(CloseReason::TooManySessions),
                };
                self.refuse(id, refusal);
                return None;
            }
            self.hold_inbox();
        }
        let everyone = Topic::everyone(self.machine.app());
        self.count_in(&everyone, u64::MAX);
        self.device = connect.device.take().map(|name| cut(&name).into());
        let (mut topics, mut of_inbox, mut of_everyone) = (Vec::new(), None, None);
        for subscribe in connect.into_subscribes() {
            if subscribe.topic == everyone.name() {
                of_everyone = Some(subscribe);
            } else if inbox.as_ref().is_some_and(|i| i.name() == subscribe.topic) {
                of_inbox = Some(subscribe);
            } else {
                let joining = self.machine.joining(&subscribe, now);
                if let Result::Ok(joining) = &joining {
                    self.count_in(&joining.topic, u64::MAX);
                }
                topics.push((subscribe.topic, joining));
            }
        }
        Some(Opening {
            id,
            everyone: self.machine.own_topic(everyone, of_everyone.as_ref()),
            inbox: inbox.map(|inbox| self.machine.own_topic(inbox, of_inbox.as_ref())),
            topics,
            member: self.member(),
        })
    }

    /// Joins the inbox of a session whose user is known, so that what ends the user's sessions
    /// finds this one too. Nothing is sent of it before `welcome`.
    pub(super) fn hold_inbox(&self) {
        if let Some(inbox) = self.machine.inbox() {
            let has_history = self.calls.retention(&inbox).entries_max > 0;
            // Whoever opens the session asks again and waits.
            drop(self.calls.worker.join(self.calls.key, &inbox, has_history));
        }
    }

    /// Ends a session whose user was sent away, or whose token was revoked, after the request had said
    /// who it is.
    pub(super) fn end_if_disconnected(&mut self, count: u64) {
        let inbox = self.machine.inbox();
        let worker = &self.calls.worker;
        let reason = inbox.and_then(|inbox| worker.disconnected_since(&inbox, count));
        if let Some(reason) = reason {
            self.end(reason);
        }
        // Its app may have gone, or have changed, while its token was checked.
        self.obey_app();
        self.mind_tokens();
    }

    fn count_in(&mut self, topic: &Topic, most: u64) -> bool {
        let is_in = self.calls.services.registry.join(topic, most);
        if is_in {
            self.counted.push(topic.clone());
        }
        is_in
    }

    fn subscribe(&mut self, id: Option<u64>, joining: Joining, now: Now, read: Read) {
        self.count_in(&joining.topic, u64::MAX);
        let member = joining.presence.then(|| self.member());
        let is_member = member.is_some();
        if joining.expires.is_some() {
            self.mind_tokens();
            self.schedule(now);
        }
        let is_asked = joining.asks.is_some();
        let user = is_asked.then(|| self.user().map(str::to_owned)).flatten();
        let work = self.calls.clone().subscribe(id, joining, (member, user));
        if is_member || is_asked {
            // A snapshot that is asked for next must see this membership and its changes, and a
            // leave must find it. And what comes behind an enquiry waits.
            self.work_alone(read, work);
        } else {
            self.work_on(read, work);
        }
    }

    fn amend(&mut self, id: Option<u64>, amendment: Amendment, now: Now, read: Read) {
        if amendment.expires.is_some() {
            self.mind_tokens();
            self.schedule(now);
        }
        if amendment.unlimited {
            let (worker, key) = (&self.calls.worker, self.calls.key);
            worker.limit(key, &amendment.topic, false);
        }
        if amendment.presence {
            let member = self.member();
            self.work_alone(read, self.calls.clone().amend(id, amendment, member));
        } else {
            self.ok(Ok {
                id,
                expires: amendment.expires,
                ..Ok::default()
            });
        }
    }

    fn member(&self) -> Member {
        let identity = self.machine.identity();
        Member {
            user: self.user().map(str::to_owned),
            session: self.calls.session,
            info: identity.claims.as_ref().and_then(|c| c.info.clone()),
        }
    }

    /// The token for a topic has ended, and the session may not stay there without.
    pub(super) fn token_ended(&mut self, topic: Topic, was_member: bool) {
        let text = "the token for this topic has expired";
        self.unsubscribe(topic, was_member, ErrorCode::TokenExpired, text);
    }

    /// What an authorizer granted for a topic has ended.
    pub(super) fn authorization_ended(&mut self, topic: Topic, was_member: bool) {
        let text = "what the authorizer granted for this topic has ended; subscribe again";
        self.unsubscribe(topic, was_member, ErrorCode::TokenExpired, text);
    }

    pub(super) fn unsubscribe(
        &mut self,
        topic: Topic,
        was_member: bool,
        code: ErrorCode,
        text: &str,
    ) {
        self.unjoin(&topic, was_member);
        self.reply(&Event::Unsubscribed {
            topic,
            code,
            message: text.into(),
        });
    }

    /// Ends a membership, as far as it came about.
    pub(super) fn end_membership(&self, topic: &Topic) {
        let calls = &self.calls;
        calls.worker.leave(calls.key, &topic.presence());
        calls.services.presence.leave(topic.clone(), calls.session);
    }

    /// Leaves a topic that the state machine has forgotten already.
    pub(super) fn unjoin(&mut self, topic: &Topic, presence: bool) {
        let worker = &self.calls.worker;
        worker.leave(self.calls.key, topic);
        if presence {
            self.end_membership(topic);
        }
        if let Some(at) = self.counted.iter().position(|t| t == topic) {
            self.counted.swap_remove(at);
            self.calls.services.registry.leave(topic);
        }
    }

    fn publication(&self, topic: Topic, publish: Publish, now: Now) -> PublishRequest {
        let config = &self.calls.services.config;
        let namespace = self.machine.namespace(&topic);
        let user = self.user().map(str::to_owned);
        let publisher = match &user {
            Some(user) => Publisher::User(user),
            None => Publisher::Session(self.calls.session),
        };
        let remembered_ms =
            u64::try_from(config.session.idempotency.as_millis()).unwrap_or(u64::MAX);
        PublishRequest {
            retention: namespace.retention(),
            replicas: namespace.replicas(),
            idempotency: publish
                .idempotency_key
                .map(|key| (publisher.remembered(&key), remembered_ms)),
            publication: Publication {
                data: publish.data,
                user,
                priority: publish.priority.unwrap_or(namespace.priority),
                key: publish.key,
                conflate: publish.conflate.unwrap_or(namespace.conflate),
                removed: false,
                time_ms: now.unix_ms,
                ttl_ms: publish.ttl_ms,
                exclude: (!publish.echo).then_some(self.calls.session),
            },
            trace: publish
                .traceparent
                .and_then(|text| self.calls.services.tracer.read(&text)),
            topic,
        }
    }
}

/// As much of a device's name as is kept.
fn cut(name: &str) -> &str {
    let mut end = name.len().min(DEVICE_BYTES_MAX);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    &name[..end]
}
